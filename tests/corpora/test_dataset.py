"""Datasets on the Hub, and parquet files."""

import io

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from fsspec.implementations.memory import MemoryFileSystem

from modeling_sere.audio_sere import AudioError, read_audio
from modeling_sere.training.corpora import dataset
from modeling_sere.training.corpora.corpus import Clip
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.errors import RunError

from .helpers import error_of, fill, wav, write_parquet


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_folder(tmp_path, cache, streaming):
    corpus = load_corpus(write_parquet(tmp_path / "set"), streaming=streaming)
    assert (corpus.name, corpus.language) == ("set", "it")
    assert corpus.labels == [None, "anger", "fear"] * 2
    assert corpus.relabelled == {"ang": "anger"}
    assert corpus.clips[3] == Clip(3, "train[3]", None, "s1")
    clips = list(corpus.iter_audio([1, 4]))
    assert [clip.index for clip in clips] == [1, 4]
    expected, _ = soundfile.read(io.BytesIO(wav(4)), dtype="float32")
    np.testing.assert_array_equal(clips[1].waveform, expected)


def test_streaming_reads_the_audio_once_and_in_order(tmp_path, cache):
    corpus = load_corpus(write_parquet(tmp_path / "set"), streaming=True)
    with pytest.raises(RunError, match="ascending"):
        list(corpus.iter_audio([1, 0]))
    assert [clip.index for clip in corpus.iter_audio()] == list(range(6))


def test_streaming_metadata_never_asks_for_the_audio_column(tmp_path, cache, monkeypatch):
    root, asked, load = write_parquet(tmp_path / "set"), [], datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append(k.get("columns")) or load(*a, **k))
    load_corpus(root, streaming=True)
    assert asked == [None, ["label", "speaker", "language"], ["audio"]]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("columns", [{"language": ["it"] * 6}, {"language": None}])
def test_rows_are_counted_without_useful_columns(tmp_path, cache, streaming, columns):
    root = write_parquet(tmp_path / "set", label=None, speaker=None, **columns)
    corpus = load_corpus(root, streaming=streaming, require_labels=False)
    assert corpus.labels == [None] * 6
    assert sum(clip.error is None for clip in corpus.iter_audio()) == 6


@pytest.mark.parametrize("streaming", [False, True])
def test_splits(tmp_path, cache, streaming):
    root = write_parquet(tmp_path / "set")
    write_parquet(root, rows=4, split="test")
    assert "has the splits test, train: choose one" in error_of(root, streaming=streaming)
    assert load_corpus(root, split="test", streaming=streaming).names == [f"test[{i}]" for i in range(4)]
    message = error_of(root, split="dev", streaming=streaming)
    assert message == "set has no split 'dev', only test, train"


def test_dataset_columns(tmp_path, cache):
    root = write_parquet(tmp_path / "set", emotion=["Joy", "sad", None, "joy", "sad", ""], many=[["a"]] * 6)
    assert load_corpus(root).labels == ["happiness", "sadness", None] * 2
    assert load_corpus(root, label_column="label").labels[1] == "anger"
    assert "expected one text or class per row" in error_of(root, label_column="many")
    message = error_of(root, label_column="mood")
    assert "'mood'" in message
    assert "audio, label, speaker, language, emotion, many" in message
    assert "'sound'" in error_of(root, audio_column="sound")
    assert "has no revision" in error_of(root, revision="main")


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_without_features_or_with_two_audio_columns(tmp_path, cache, streaming):
    (tmp_path / "set").mkdir()
    audio = [{"bytes": wav(i), "path": None} for i in range(3)]
    pq.write_table(pa.table({"file": audio, "emotion": ["fear"] * 3}), tmp_path / "set" / "x.parquet")
    assert [clip.error for clip in load_corpus(tmp_path / "set", streaming=streaming).iter_audio()] == [None] * 3
    pq.write_table(pa.table({"one": audio, "two": audio, "emotion": ["fear"] * 3}), tmp_path / "set" / "x.parquet")
    assert "no obvious audio column" in error_of(tmp_path / "set", streaming=streaming)
    assert len(list(load_corpus(tmp_path / "set", streaming=streaming, audio_column="two").iter_audio())) == 3


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_with_paths_reads_within_the_folder_only(tmp_path, cache, streaming):
    (tmp_path / "x.wav").write_bytes(wav(0))
    paths = ["in.wav", "../x.wav", str(tmp_path / "x.wav"), "gone.wav", None]
    root = write_parquet(
        tmp_path / "set", 5, audio=[{"bytes": None, "path": path} for path in paths], label=None, language=None
    )
    (root / "in.wav").write_bytes(wav(1))
    corpus = load_corpus(root, require_labels=False, streaming=streaming)
    errors = [clip.error and str(clip.error) for clip in corpus.iter_audio()]
    assert errors[0] is None
    assert all("leads to no file in the folder" in error for error in errors[1:4])
    assert errors[4] == "train[4] has no audio"


class FakeHub(MemoryFileSystem):
    protocol = "hf"
    store = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("hf://").lstrip("/")


@pytest.fixture
def hub(tmp_path, cache, monkeypatch):
    """Puts a dataset in place of the Hub's org/set: a function of the audio cells."""
    fsspec.register_implementation("hf", FakeHub, clobber=True)
    monkeypatch.setattr(dataset, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def make(audio: list):
        dataset = datasets.Dataset.from_dict({"audio": audio, "label": ["anger"] * len(audio)})
        calls = []
        monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *a, **k: ["train"])
        monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: calls.append((a, k)) or dataset)
        return calls

    yield make
    fsspec.register_implementation("hf", "huggingface_hub.HfFileSystem", clobber=True)


def test_hub_dataset_reads_its_own_files_only(tmp_path, hub):
    fsspec.filesystem("hf").pipe("hf://datasets/org/set@1/a.wav", wav(0))
    (tmp_path / "hub").mkdir()
    for path in ("hub/b.wav", "private.wav"):
        (tmp_path / path).write_bytes(wav(1))
    paths = [
        "hf://datasets/org/set@1/a.wav",
        str(tmp_path / "hub" / "b.wav"),
        str(tmp_path / "private.wav"),
        str(tmp_path / "hub" / ".." / "private.wav"),
        "hf://datasets/org/other@1/a.wav",
        "hf://datasets/org/set@1/../../org/other/a.wav",
        "hf://datasets/org/set@1/a.wav::file:///etc/passwd",
        "http://127.0.0.1/a.wav::hf://datasets/org/set@1/a.wav",
        "file:///etc/passwd",
        "hf://datasets/org/set@1/gone.wav",
    ]
    calls = hub([{"bytes": None, "path": path} for path in paths])
    corpus = load_corpus("org/set", config="de", revision="1", outside_files=True)
    assert calls[0] == (
        ("org/set",), {"name": "de", "split": "train", "streaming": False, "revision": "1"}
    )  # fmt: skip
    assert corpus.name == "org/set"
    errors = [clip.error and str(clip.error) for clip in corpus.iter_audio()]
    assert errors[:2] == [None, None]
    assert all("its path is not part of org/set" in error for error in errors[2:-1])
    assert errors[-1] == "train[9] cannot be read (no such file in org/set)"


def test_failures_of_the_hub_are_one_sentence(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("Couldn't reach the Hub\nTraceback ...")

    monkeypatch.setattr(datasets, "get_dataset_split_names", refuse)
    assert error_of("org/set").endswith("cannot be loaded: Couldn't reach the Hub")


# Audio in other forms than files


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["int16", "int32", "float32", "float64"])
def test_columns_of_samples(tmp_path, cache, kind, streaming):
    samples, _ = soundfile.read(io.BytesIO(wav(3)), dtype=kind)
    pq.write_table(
        pa.table({"sound": [{"array": samples, "sampling_rate": 16000}], "emotion": ["fear"]}), tmp_path / "x.parquet"
    )
    (clip,) = load_corpus(tmp_path, streaming=streaming).iter_audio()
    np.testing.assert_allclose(clip.waveform, read_audio(wav(3)), atol=1e-7)


def test_samples_of_several_channels_and_samples_that_are_none(tmp_path, cache):
    stereo = [np.full(4000, 0.25), np.full(4000, 0.75)]
    cells = [{"array": stereo, "sampling_rate": 8000}, {"array": None, "sampling_rate": 8000}, None]
    pq.write_table(pa.table({"audio": cells, "emotion": ["fear"] * 3}), tmp_path / "x.parquet")
    clips = list(load_corpus(tmp_path).iter_audio())
    assert len(clips[0].waveform) == 8000 and clips[0].waveform[4000] == pytest.approx(0.5, abs=1e-3)
    assert [str(clip.error) for clip in clips[1:]] == ["train[1] has no audio", "train[2] has no audio"]
    with pytest.raises(AudioError, match="samples that are no audio"):
        dataset._encoded([[1.0], [1.0, 2.0]], 16000, "x", "float32")
    with pytest.raises(AudioError, match="type uint16"):
        dataset._encoded([1, 2] * 4000, 16000, "x", "uint16")


def test_columns_of_bytes(tmp_path, cache):
    pq.write_table(pa.table({"audio": [wav(0)], "emotion": ["fear"]}), tmp_path / "x.parquet")
    assert [clip.error for clip in load_corpus(tmp_path).iter_audio()] == [None]


def test_a_pipe_in_the_place_of_audio_does_not_hold_the_run_up(tmp_path, cache):
    import os

    root = write_parquet(
        tmp_path / "set", 1, audio=[{"bytes": None, "path": "pipe.wav"}], label=["fear"], language=None
    )
    os.mkfifo(root / "pipe.wav")
    (clip,) = load_corpus(root).iter_audio()
    assert "leads to no file in the folder" in str(clip.error)


def test_absolute_paths_in_parquet_need_the_flag(tmp_path, cache):
    outside = fill(tmp_path, ["x.wav"]) / "x.wav"
    root = write_parquet(
        tmp_path / "set", 1, audio=[{"bytes": None, "path": str(outside)}], label=["fear"], language=None
    )
    assert "--outside_files" in str(next(load_corpus(root).iter_audio()).error)
    assert next(load_corpus(root, outside_files=True).iter_audio()).error is None
