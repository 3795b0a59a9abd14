"""Features: the cache never gives a wrong or missing row, and every clip is encoded once."""

import errno
import multiprocessing
import os
import sys

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.encoding import features
from modeling_sere.training.encoding.cache import FeatureCache, fingerprint
from modeling_sere.training.encoding.features import FeatureExtraction, length_batches
from modeling_sere.training.errors import RunError
from modeling_sere.training.refining.frame_store import FrameStore
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


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


@pytest.mark.parametrize("damage", [truncate, flip, lambda _: b"", lambda _: b"no array at all"])
def test_damaged_shard_is_encoded_again(sere, corpus, tmp_path, caplog, damage):
    values = extraction(sere, tmp_path)(corpus).values
    (shard,) = shards(tmp_path)
    shard.write_bytes(damage(shard.read_bytes()))
    again = extraction(sere, tmp_path)
    assert shard.name in caplog.text
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(again(corpus).values, values)
    assert again.encoded == len(corpus)
    caplog.clear()
    repaired = extraction(sere, tmp_path)
    assert repaired(corpus).values.shape == values.shape
    assert repaired.encoded == 0
    assert not caplog.records


def test_half_written_shard_is_ignored(sere, corpus, tmp_path, caplog):
    extraction(sere, tmp_path)(corpus)
    (shard,) = shards(tmp_path)
    shard.rename(shard.with_suffix(".partial"))
    again = extraction(sere, tmp_path)
    again(corpus)
    assert again.encoded == len(corpus)
    assert not caplog.records


def _write_rows(folder, first: int):
    for start in range(first, first + 60, 3):
        FeatureCache(folder).add({f"{key:064x}": np.full(5, key, np.float32) for key in range(start, start + 10)})


def test_two_processes_share_a_cache(tmp_path):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    workers = [context.Process(target=_write_rows, args=(tmp_path, first)) for first in (0, 30)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    cache = FeatureCache(tmp_path)
    assert len(cache.places) == 97
    for key in range(97):
        np.testing.assert_array_equal(cache.read([f"{key:064x}"])[0], np.full(5, key))
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files the Linux way")
def test_cache_of_many_shards_keeps_none_of_them_open(tmp_path):
    cache = FeatureCache(tmp_path)
    for key in range(50):
        cache.add({f"{key:064x}": np.ones(3, np.float32)})
    before = len(os.listdir("/proc/self/fd"))
    opened = FeatureCache(tmp_path)
    assert (opened.read(list(opened.places)).sum(1) == 3).all()
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(opened.places) == 50


def test_fingerprint_tells_models_apart(make_model):
    model = make_model("wav2vec2")
    original = fingerprint(model.sere)
    assert fingerprint(make_model("wav2vec2").sere) == original
    with torch.no_grad():  # what comes after the raw features
        for tensor in (model.classifier.weight, model.sere.embedding.statistics, model.sere.embedding.log_gain):
            tensor.add_(1)
    assert fingerprint(model.sere) == original
    others = [fingerprint(model.sere, "bf16"), fingerprint(make_model("wav2vec2", encoder_layers=[1, 2]).sere)]
    others.append(fingerprint(make_model("wav2vec2", encoder_normalize=False).sere))
    others.append(fingerprint(make_model().sere))
    with torch.no_grad():
        model.sere.encoder.model.encoder.layers[0].attention.q_proj.weight[0, 0] += 1e-3
        others.append(fingerprint(model.sere))
        model.sere.highlight_weight[0] = 1e-3
        others.append(fingerprint(model.sere))
    assert len({original, *others}) == 1 + len(others)


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


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("7 requested and 3 written")]
)
def test_full_disk_is_one_clear_error(sere, corpus, tmp_path, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(features.np, "save", full)
    with pytest.raises(RunError) as caught:
        extraction(sere, tmp_path / "cache")(corpus)
    message = str(caught.value)
    assert "--cache_dir" in message
    assert (error.strerror or str(error)) in message
    assert "None" not in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


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
