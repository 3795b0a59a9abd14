"""Features: every clip is encoded once, and what cannot be used is named."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.encoding.features import FeatureExtraction, length_batches
from modeling_sere.training.errors import RunError
from testing.corpora import bad_files, read_metadata, write_corpus, write_metadata


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return load_corpus(write_corpus(tmp_path_factory.mktemp("corpora") / "voices", clips=2))


@pytest.fixture(scope="module")
def sere(make_model):
    return make_model().sere


def extraction(sere, cache_dir) -> FeatureExtraction:
    return FeatureExtraction(sere, Accelerator(cpu=True), cache_dir)


def shards(cache_dir) -> list:
    return sorted(cache_dir.glob("*/*.npy"))


def test_features_are_those_of_the_model(sere, corpus):
    found = extraction(sere, None)(corpus)
    assert found.indices == list(range(len(corpus)))
    assert found.keys == [clip.key for clip in corpus.iter_audio(found.indices)]
    assert found.skipped == []
    for clip in corpus.iter_audio():
        _, alone = sere.pool(sere.frames(torch.from_numpy(clip.waveform)[None]))
        np.testing.assert_allclose(found.values[clip.index], alone[0].detach(), rtol=1e-4, atol=1e-4)


def test_chosen_clips_come_in_the_order_of_the_corpus(sere, corpus):
    found = extraction(sere, None)(corpus, [7, 2, 5])
    assert found.indices == [2, 5, 7]
    everything = extraction(sere, None)(corpus).values
    np.testing.assert_allclose(found.values, everything[[2, 5, 7]], rtol=1e-4, atol=1e-4)


def test_second_reading_encodes_nothing(sere, corpus, tmp_path):
    first = extraction(sere, tmp_path)
    values = first(corpus).values
    assert first.encoded == len(corpus)
    second = extraction(sere, tmp_path)
    np.testing.assert_array_equal(second(corpus).values, values)
    assert second.encoded == 0


def test_only_what_is_new_is_encoded(sere, corpus, tmp_path):
    extraction(sere, tmp_path)(corpus, [0, 1, 2])
    more = extraction(sere, tmp_path)
    assert len(more(corpus).values) == len(corpus)
    assert more.encoded == len(corpus) - 3


@settings(deadline=None)
@given(st.lists(st.integers(1, 200_000), max_size=60))
def test_length_batches_cover_every_clip_once_within_the_budget(lengths):
    batches = list(length_batches(lengths, batch_seconds=5))
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 5 * 16000


def test_clip_longer_than_the_budget_is_a_batch_of_its_own():
    assert list(length_batches([16000, 100 * 16000, 16000], batch_seconds=5)) == [[1], [0, 2]]


def test_unusable_clips_are_skipped_and_named(sere, tmp_path, caplog):
    folder = write_corpus(tmp_path / "voices", clips=1, speakers=1)
    good = extraction(sere, None)(load_corpus(folder)).values
    rows = read_metadata(folder)
    for name, content in bad_files().items():
        (folder / name).write_bytes(content)
        rows.insert(1, {"file_name": name, "emotion": "anger", "speaker": "s0"})
    write_metadata(folder, rows)
    corpus = load_corpus(folder)
    found = extraction(sere, tmp_path / "cache")(corpus)
    names = [corpus.clips[index].name for index in found.indices]
    assert names == ["anger_0_0.wav", "neutral_0_0.wav", "sadness_0_0.wav"]
    np.testing.assert_allclose(found.values, good, rtol=1e-4, atol=1e-4)
    assert sorted(clip.name for clip in found.skipped) == sorted(bad_files())
    assert all(clip.name in clip.reason and clip.name in caplog.text for clip in found.skipped)


def test_corpus_without_a_usable_clip_is_an_error(sere, tmp_path):
    folder = tmp_path / "voices"
    folder.mkdir()
    (folder / "corrupt.wav").write_bytes(bad_files()["corrupt.wav"])
    write_metadata(folder, [{"file_name": "corrupt.wav", "emotion": "anger"}])
    with pytest.raises(RunError, match=r"voices.*corrupt\.wav"):
        extraction(sere, None)(load_corpus(folder))


def test_the_same_audio_twice(sere, tmp_path):
    folder = write_corpus(tmp_path / "voices", clips=1, speakers=1)
    (folder / "copy.wav").write_bytes((folder / "anger_0_0.wav").read_bytes())
    write_metadata(folder, [{"file_name": "copy.wav", "emotion": "anger"}, *read_metadata(folder)])
    for _ in range(2):  # fresh, then from the cache
        found = extraction(sere, tmp_path / "cache")(load_corpus(folder))
        assert found.indices == [0, 1, 2, 3]
        assert found.keys[0] == found.keys[1]
        np.testing.assert_allclose(found.values[0], found.values[1], rtol=1e-5)
        assert not np.allclose(found.values[0], found.values[2])


def test_clip_without_finite_features_is_skipped_and_not_kept(make_model, corpus, tmp_path, monkeypatch):
    sere = make_model().sere
    pool, broken = sere.pool, []

    def overflowing(frames):
        highlights, features = pool(frames)
        if not broken:
            broken.append(True)
            features[0, 3] = float("inf")
        return highlights, features

    monkeypatch.setattr(sere, "pool", overflowing)
    for cache in (None, tmp_path):
        broken.clear()
        found = extraction(sere, cache)(corpus)
        (skipped,) = found.skipped
        assert skipped.reason == f"{skipped.name} gives features that are not finite"
        assert len(found.indices) == len(corpus) - 1 and np.isfinite(found.values).all()
    assert len(extraction(sere, tmp_path)(corpus).indices) == len(corpus)  # only that one is tried again


def test_bar_tells_clips_hours_and_time_left(sere, corpus, capsys):
    extraction(sere, None)(corpus)
    bar = capsys.readouterr().err
    assert "Encoding voices: 100%" in bar and f"{len(corpus)}/{len(corpus)}" in bar and "0.00 h of audio" in bar
