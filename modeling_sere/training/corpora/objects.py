"""Corpora that are given from Python: datasets of the library `datasets`, and lists of clips."""

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import soundfile

from modeling_sere.audio_sere import SAMPLING_RATE, AudioError, is_rate_and_samples, read_audio
from modeling_sere.training.corpora.columns import Table, build_corpus, cell_text
from modeling_sere.training.corpora.corpus import Corpus, Recording
from modeling_sere.training.corpora.dataset import dataset_table
from modeling_sere.training.corpora.files import Locator, read_bytes
from modeling_sere.training.corpora.names import number
from modeling_sere.training.corpora.options import ReadOptions
from modeling_sere.training.errors import RunError, first_line

FORMS = "a folder, a datasets.Dataset, or a list of (audio, emotion, speaker)"


def corpus_of(given: Any, name: str, options: ReadOptions) -> Corpus:
    """Return the corpus of a dataset, several datasets, or a list of clips.

    Args:
        given: a `datasets.Dataset`, a list of them with the same columns, or a list of clips: each the audio alone,
            `(audio, emotion)`, or `(audio, emotion, speaker)`. name: what the corpus is called.

    Raises:
        RunError: it is nothing of these, has no clips, or no labels where some are required.
    """
    if isinstance(given, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        raise RunError(f"{name} is a dict of the splits {', '.join(map(str, given))}: give one of them")
    if isinstance(given, datasets.IterableDataset):
        raise RunError(f"{name} is a stream, which cannot be read twice: give its id, with streaming=True")
    if isinstance(given, datasets.Dataset):
        given = [given]
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise RunError(f"{name} is of type {type(given).__name__}: give {FORMS}")
    rows = list(given)
    if rows and all(isinstance(row, datasets.Dataset) for row in rows):
        table = _table_of_datasets(rows, name, options)
    else:
        table = _table_of_clips(rows, name)
    return build_corpus(table, options.spellings, options.require_labels)


def _table_of_datasets(parts: Sequence[datasets.Dataset], name: str, options: ReadOptions) -> Table:
    try:
        whole = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(list(parts))
    except (ValueError, TypeError) as error:
        raise RunError(f"{name}: these datasets do not have the same columns ({first_line(error)})") from error
    # the caller's own dataset may name any file
    return dataset_table(whole.with_format(None), name, options, Locator(Path.cwd(), outside=True))


def _table_of_clips(rows: list[Any], name: str) -> Table:
    clips = [_clip(row, f"{name}[{row_number}]") for row_number, row in enumerate(rows)]
    audio = [clip[0] for clip in clips]
    names = _names(audio, name)
    return Table(
        name, name, ["audio", "emotion", "speaker"], names, [clip[1] for clip in clips], [clip[2] for clip in clips],
        None, None, None, Objects(audio, names), {"files": f"list of {number(len(clips), 'clip')}"},
    )  # fmt: skip


def _clip(row: Any, title: str) -> tuple[Any, str | None, str | None]:
    """Return the audio, emotion and speaker of one clip."""
    if isinstance(row, tuple) and not is_rate_and_samples(row):
        if not 1 <= len(row) <= 3:
            raise RunError(f"{title} has {len(row)} parts: give (audio, emotion, speaker)")
        audio, label, speaker = (*row, None, None)[:3]
        for part in (label, speaker):
            if part is not None and not isinstance(part, (str, int)):
                raise RunError(f"{title} has {type(part).__name__} for an emotion or a speaker: give a text or None")
        return audio, cell_text(label), cell_text(speaker)
    return row, None, None


def _names(audio: list[Any], name: str) -> list[str]:
    """Name clips: files by their paths below the folder that all have in common, others by position."""
    paths = [os.path.abspath(item) if isinstance(item, (str, os.PathLike)) else None for item in audio]
    files = [path for path in paths if path is not None]
    common = os.path.commonpath([os.path.dirname(path) for path in files]) if files else ""
    names = [
        f"{name}[{row}]" if path is None else Path(os.path.relpath(path, common)).as_posix()
        for row, path in enumerate(paths)
    ]
    if len(set(names)) < len(names):
        again = next(each for row, each in enumerate(names) if each in names[:row])
        raise RunError(f"{name}: {again} is in the list twice")
    return names


class Objects:
    """The audio of clips that are objects in memory, or paths."""

    def __init__(self, audio: list[Any], names: list[str]):
        self._audio, self._names = audio, names

    def recordings(self, indices: Iterable[int]) -> Iterator[Recording]:
        for index in indices:
            yield Recording(self._names[index], partial(_encoded, self._audio[index], self._names[index]), [index])


def _encoded(audio: Any, name: str) -> bytes:
    """Return the encoded file that an object is, names or becomes."""
    if isinstance(audio, (str, os.PathLike)):
        return read_bytes(os.path.expanduser(audio), name)
    if isinstance(audio, (bytes, bytearray)):
        return bytes(audio)
    try:
        waveform = read_audio(audio, name)
    except AudioError:
        raise
    except (TypeError, ValueError) as error:
        raise AudioError(f"{name} is no audio: {first_line(error)}") from error
    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLING_RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()
