"""The feature cache never gives a wrong or missing row, whatever happens to its files."""

import errno
import io
import multiprocessing
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.encoding import cache as cache_module
from modeling_sere.training.encoding.cache import FeatureCache, fingerprint
from modeling_sere.training.encoding.features import FeatureExtraction
from modeling_sere.training.errors import RunError
from testing.corpora import write_corpus

KEYS = [f"{number:064x}" for number in range(4)]


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


def rows(keys=KEYS, width: int = 3) -> dict[str, np.ndarray]:
    return {key: np.full(width, number, np.float32) for number, key in enumerate(keys)}


def small(folder) -> tuple[FeatureCache, bytes]:
    """A cache with one shard of four rows, and its content."""
    cache = FeatureCache(folder)
    cache.add(rows())
    (path,) = folder.glob("*.npy")
    return cache, path.read_bytes()


def given_again(folder, width=None) -> int:
    """How many rows a cache gives that is opened anew; each must be the right one."""
    cache = FeatureCache(folder, width)
    values, lost = cache.read(KEYS)
    kept = [row for row in range(len(KEYS)) if row not in lost]
    assert all((values[row] == row).all() for row in kept)
    return len(kept)


def saved(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def valid(folder, data: bytes):
    """Put data under the digest that belongs to it, as somebody who knows the form could."""
    for path in folder.glob("*.npy"):
        path.unlink()
    (folder / f"{cache_module._digest(data)}.npy").write_bytes(data)


def array(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data))


def permuted(data: bytes) -> bytes:
    shard = array(data)
    shard["features"] = shard["features"][::-1].copy()
    return saved(shard)


def not_finite(data: bytes) -> bytes:
    shard = array(data)
    shard["features"][1, 2] = np.nan
    return saved(shard)


def compressed(data: bytes) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, array(data))
    return buffer.getvalue()


def wider(data: bytes) -> bytes:
    shard = array(data)
    wide = np.zeros(len(shard), cache_module._row(5))
    wide["key"] = shard["key"]
    return saved(wide)


FORGERIES = {
    "permuted rows": permuted,
    "not finite": not_finite,
    "npz": compressed,
    "another width": wider,
    "pickled": lambda data: saved(np.array([{}], object)),
    "no array": lambda data: b"no array at all",
    "another array": lambda data: saved(np.zeros((4, 3), np.float32)),
    "a header of an exabyte": lambda data: data.replace(b"(4,), }" + b" " * 16, b"(40000000000000000,), }"),
    "a negative header": lambda data: data.replace(b"(4,), }  ", b"(-4,), } "),
    "no header": lambda data: data[:10] + b"(" * 90 + data[100:],
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_forged_shard_is_named_and_set_aside(tmp_path, caplog, kind):
    """What lies under the digest that belongs to it, and still is no shard of these clips."""
    folder = tmp_path / "fingerprint"
    _, data = small(folder)
    valid(folder, FORGERIES[kind](data))
    (path,) = folder.glob("*.npy")
    assert given_again(folder) == 0
    assert path.name in caplog.text and "damaged, its clips are encoded again" in caplog.text
    assert [left.name for left in folder.iterdir()] == [path.name + cache_module.DAMAGED]


def test_shard_of_another_model_is_not_believed(tmp_path):
    small(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    assert given_again(tmp_path / "one") == 4 and given_again(tmp_path / "other") == 0


def test_flip_of_a_bit_is_seen(tmp_path, monkeypatch):
    """In the header too. No file is read as other numbers, and none ends a run."""
    cache, data = small(tmp_path / "fingerprint")
    (path,) = (tmp_path / "fingerprint").glob("*.npy")
    monkeypatch.setattr(cache_module.logger, "warning", lambda *_: None)
    header = len(data) - 4 * cache_module._row(3).itemsize
    for bit in [*range(0, 8 * header, 3), *range(8 * header, 8 * len(data), 31)]:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert cache._load(path) is None
        assert path.with_name(path.name + cache_module.DAMAGED).exists()


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_content_ends_a_run(tmp_path, data):
    """Any bytes, and any change of a shard, under a digest that is right."""
    folder = tmp_path / "fingerprint"
    shutil.rmtree(folder, ignore_errors=True)
    _, content = small(folder)
    start = data.draw(st.integers(0, len(content)))
    changed = (
        content[:start] + data.draw(st.binary(max_size=40)) + content[data.draw(st.integers(start, len(content))) :]
    )
    valid(folder, changed if data.draw(st.booleans()) else data.draw(st.binary(max_size=200)))
    assert given_again(folder) in (0, 4)  # nothing, or what was kept: a header may be written in other ways


@pytest.mark.parametrize("change", ["deleted", "folder deleted", "cut", "a folder"])
def test_what_is_lost_while_a_run_goes_on_is_encoded_again(sere, corpus, tmp_path, change, monkeypatch, caplog):
    expected = extraction(sere, tmp_path)(corpus).values
    extract = extraction(sere, tmp_path)
    cached = FeatureExtraction._cached

    def lost(self, *given):
        (path,) = shards(tmp_path)
        if change == "folder deleted":
            shutil.rmtree(tmp_path)
        elif change == "cut":
            os.truncate(path, 500)
        else:
            path.unlink()
            if change == "a folder":
                path.mkdir()
        return cached(self, *given)

    monkeypatch.setattr(FeatureExtraction, "_cached", lost)
    np.testing.assert_allclose(extract(corpus).values, expected, rtol=1e-5, atol=1e-5)
    assert extract.encoded == len(corpus) and "its clips are encoded again" in caplog.text
    monkeypatch.undo()
    again = extraction(sere, tmp_path)
    assert len(again(corpus).values) == len(corpus) and again.encoded == 0


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_have_the_rights_that_the_user_gives_all_files(tmp_path, umask):
    before = os.umask(umask)
    try:
        small(tmp_path / "fingerprint")
    finally:
        os.umask(before)
    (path,) = (tmp_path / "fingerprint").glob("*.npy")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert path.parent.stat().st_mode & 0o777 == 0o777 & ~umask


def test_shard_that_may_not_be_read_is_told_and_left(tmp_path, monkeypatch, caplog):
    """As another user's is, whose umask keeps it to himself."""
    small(tmp_path / "fingerprint")
    (path,) = (tmp_path / "fingerprint").glob("*.npy")
    forbidden = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr(type(path), "read_bytes", lambda _: (_ for _ in ()).throw(forbidden))
    assert not FeatureCache(tmp_path / "fingerprint").places
    assert "cannot be read, its clips are encoded again (Permission denied)" in caplog.text and path.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_pipe_in_the_cache_is_not_waited_for(tmp_path):
    (tmp_path / "fingerprint").mkdir()
    os.mkfifo(tmp_path / "fingerprint" / f"{0:032x}.npy")
    assert not FeatureCache(tmp_path / "fingerprint").places


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
        np.testing.assert_array_equal(cache.read([f"{key:064x}"])[0][0], np.full(5, key))
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files the Linux way")
def test_cache_of_many_shards_keeps_none_of_them_open(tmp_path):
    cache = FeatureCache(tmp_path)
    for key in range(50):
        cache.add({f"{key:064x}": np.ones(3, np.float32)})
    before = len(os.listdir("/proc/self/fd"))
    opened = FeatureCache(tmp_path)
    assert (opened.read(list(opened.places))[0].sum(1) == 3).all()
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(opened.places) == 50


def test_fingerprint_is_of_what_decides_the_features(make_model):
    model = make_model("wav2vec2")
    original = fingerprint(model.sere)
    same = [fingerprint(make_model("wav2vec2", prior_weight=3.0, field_balance=0.1, labels=("a", "b")).sere)]
    model.config.encoder_config._name_or_path = "/home/somebody/wav2vec2"
    same.append(fingerprint(model.sere))
    with torch.no_grad():  # what comes after the raw features
        for tensor in (model.classifier.weight, model.sere.embedding.statistics, model.sere.embedding.log_gain):
            tensor.add_(1)
    same.append(fingerprint(model.sere))
    assert {*same} == {original}
    others = [fingerprint(model.sere, "bf16"), fingerprint(make_model("wav2vec2", encoder_layers=[1, 2]).sere)]
    others.append(fingerprint(make_model("wav2vec2", encoder_normalize=False).sere))
    others.append(fingerprint(make_model().sere))
    with torch.no_grad():
        model.sere.encoder.model.encoder.layers[0].attention.q_proj.weight[0, 0] += 1e-3
        others.append(fingerprint(model.sere))
        model.sere.highlight_weight[0] = 1e-3
        others.append(fingerprint(model.sere))
    others.append(fingerprint(model.sere.to(torch.bfloat16)))
    assert len({original, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    "change",
    [{"num_attention_heads": 2}, {"hidden_act": "relu"}, {"layer_norm_eps": 1e-3}, {"feat_extract_activation": "relu"}],
)
def test_same_weights_in_another_configuration_are_another_model(make_model, encoder_config, change):
    one = make_model("wav2vec2").sere
    other = make_model(encoder_config=encoder_config("wav2vec2", **change)).sere
    other.encoder.load_state_dict(one.encoder.state_dict())
    assert fingerprint(one) != fingerprint(other)


def test_version_of_the_features_is_in_the_key_and_the_source_text_is_not(sere, monkeypatch):
    original = fingerprint(sere)
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda _: pytest.fail("a file was read"))
    assert fingerprint(sere) == original
    monkeypatch.setattr(cache_module, "FEATURE_VERSION", cache_module.FEATURE_VERSION + 1)
    assert fingerprint(sere) != original


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("7 requested and 3 written")]
)
def test_full_disk_is_one_clear_error(sere, corpus, tmp_path, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(cache_module.os, "replace", full)
    with pytest.raises(RunError) as caught:
        extraction(sere, tmp_path / "cache")(corpus)
    message = str(caught.value)
    assert "--cache_dir" in message
    assert (error.strerror or str(error)) in message
    assert "None" not in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
