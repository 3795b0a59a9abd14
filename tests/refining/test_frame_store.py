"""Frames on disk are those of the model, and a disk without room is one sentence."""

import os

import pytest
import torch

from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.errors import RunError
from modeling_sere.training.refining.frame_store import FrameStore
from testing.corpora import write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return load_corpus(write_corpus(tmp_path_factory.mktemp("corpora") / "voices", clips=2))


@pytest.fixture(scope="module")
def sere(make_model):
    return make_model().sere


@pytest.mark.parametrize("name", ["none", "wavlm"])
def test_kept_frames_are_those_of_the_model(make_model, corpus, tmp_path, name):
    sere = make_model(name).sere
    other = load_corpus(write_corpus(tmp_path / "others", clips=1, seed=5))
    corpora, indices = [corpus, other, corpus, other], [3, 1, 0, 4]
    with FrameStore(sere, "cpu") as store:
        store.fill(corpora, indices, progress=False)
        frames = store.batch([3, 0, 2])
        for row, item in enumerate([3, 0, 2]):
            (clip,) = corpora[item].iter_audio([indices[item]])
            with torch.no_grad():
                alone = sere.frames(torch.from_numpy(clip.waveform)[None])
            size = alone.mask.shape[1]
            assert frames.mask[row].sum() == size
            torch.testing.assert_close(frames.functionals[row], alone.functionals[0])
            kept = (frames.dynamics, *frames.states)
            for stream, expected in zip(kept, (alone.dynamics, *alone.states), strict=True):
                torch.testing.assert_close(stream[row, :size], expected[0], rtol=2**-10, atol=1e-4)
                assert not stream[row, size:].any()


def test_frames_on_a_full_disk_are_one_clear_error(sere, corpus, monkeypatch):
    with FrameStore(sere, "cpu") as store:
        store.file.close()
        store.file = open("/dev/full", "wb") if os.path.exists("/dev/full") else pytest.skip("needs /dev/full")
        with pytest.raises(RunError, match="No space left on device.*TMPDIR"):
            store.fill([corpus], [0], progress=False)
        monkeypatch.setattr(store, "file", open(os.devnull, "wb"))
