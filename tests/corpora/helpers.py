"""What the tests of corpora share: small audio files, folders of them, and the sentence by which one is refused."""

import io
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile

from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.errors import RunError

EMOTIONS = ["anger", "sadness", "neutral"]


def wav(pitch: int, seconds: float = 0.2) -> bytes:
    """A tone as a file; every pitch is another content."""
    buffer = io.BytesIO()
    samples = 0.5 * np.sin(2 * np.pi * 50 * (pitch + 1) * np.arange(int(16000 * seconds)) / 16000)
    soundfile.write(buffer, samples, 16000, format="WAV")
    return buffer.getvalue()


def fill(folder: Path, files=(), texts: dict[str, str | bytes] | None = None) -> Path:
    """Write audio files of these names, and other files of these contents, into a folder. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {name: wav(number) for number, name in enumerate(files)} | (texts or {})
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def error_of(*args, **kwargs) -> str:
    """The one sentence by which `load_corpus` refuses."""
    with pytest.raises(RunError) as caught:
        load_corpus(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labels_of(*args, **kwargs) -> dict[str, str | None]:
    """Name -> label of the clips of a corpus, all of whose audio can be decoded."""
    corpus = load_corpus(*args, **kwargs)
    assert [clip.error for clip in corpus.iter_audio()] == [None] * len(corpus)
    return {clip.name: clip.label for clip in corpus.clips}


def write_parquet(root: Path, rows: int = 6, split: str = "train", **columns) -> Path:
    """Write a folder as `datasets` does: audio bytes, class labels (-1: none), speakers, a language."""
    table = {
        "audio": [{"bytes": wav(i), "path": f"{i}.wav"} for i in range(rows)],
        "label": [i % 3 - 1 for i in range(rows)],
        "speaker": [f"s{i % 2}" for i in range(rows)],
        "language": ["it"] * rows,
        **columns,
    }
    dataset = datasets.Dataset.from_dict({name: column for name, column in table.items() if column is not None})
    dataset = dataset.cast_column("audio", datasets.Audio(decode=False))
    if "label" in dataset.features and "label" not in columns:
        dataset = dataset.cast_column("label", datasets.ClassLabel(names=["ang", "fear"]))
    root.mkdir(exist_ok=True)
    dataset.to_parquet(root / f"{split}-00000-of-00001.parquet", batch_size=2)
    return root
