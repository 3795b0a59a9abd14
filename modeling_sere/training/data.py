"""Corpora: which clips there are, their emotions and speakers, and their audio, decoded on demand.

A corpus is a local folder with `metadata.csv` or `metadata.jsonl` (columns `file_name`, `emotion` or `label`, and
optionally `speaker` and `language`), a local folder of parquet files, or a dataset on the Hub. Reading one touches the
metadata only; audio is fetched and decoded clip by clip, in threads, when `Corpus.iter_audio` asks for it.

Row numbers in messages count the header of a CSV file as row 1, as a spreadsheet does.
"""

import codecs
import csv
import hashlib
import io
import itertools
import json
import logging
import math
import os
import posixpath
import re
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import datasets
import fsspec
import numpy as np
import soundfile
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError

from modeling_sere.audio_sere import SAMPLING_RATE, AudioError, read_audio
from modeling_sere.decoding_sere import MAX_BYTES, check_regular

logger = logging.getLogger(__name__)

# Spellings that can only mean one emotion. Every use is reported (`Corpus.relabelled`); `label_map` overrides them.
LABEL_ALIASES = {
    spelling: emotion
    for emotion, spellings in {
        "anger": ("angry", "ang"),
        "happiness": ("happy", "joy", "hap"),
        "sadness": ("sad",),
        "fear": ("fearful", "fea"),
        "disgust": ("disgusted", "dis"),
        "surprise": ("surprised", "sur"),
        "neutral": ("neutrality", "neu"),
        "boredom": ("bored",),
        "contempt": ("contemptuous",),
        "calm": ("calmness",),
    }.items()
    for spelling in spellings
}

DECODING_THREADS = min(4, os.cpu_count() or 1)
PREFETCHED_CLIPS = 4 * DECODING_THREADS  # bounds memory: a minute of audio is 4 MB


class DataError(ValueError):
    """A corpus cannot be used as it is: one sentence that names the file, row or column and what to do."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording's metadata. `label` and `speaker` are None where the corpus does not give them."""

    index: int
    name: str  # unique in its corpus: the file name relative to the folder, or split[row] of a dataset
    label: str | None
    speaker: str | None


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """One recording's audio: `waveform` (n,) float32 at 16 kHz, or the `error` that made it unusable.

    Both are None for a clip whose content is already `known` to the caller of `Corpus.iter_audio`.
    """

    index: int
    key: str | None  # None if not even the encoded bytes could be read
    waveform: np.ndarray | None
    error: AudioError | None


@dataclass(frozen=True, slots=True)
class SkippedClip:
    """A clip left out, and why."""

    name: str
    reason: str


class AudioBytes(Protocol):
    """Where a corpus' encoded audio comes from."""

    random_access: bool

    def fetches(self, indices: Iterable[int]) -> Iterator[tuple[int, Callable[[], bytes]]]:
        """For each index, in order, a function that reads the encoded file (run in a thread; may raise AudioError)."""
        ...


class Corpus:
    """The clips of one corpus and access to their audio. Made by `load_corpus`.

    Attributes:
        name: the folder's base name or the dataset's id; never an absolute path, so it can be published.
        language: the value of the language column if it is the same in every row, else None.
        clips: one `Clip` per row, in the order of the metadata; `clips[i].index == i`.
        relabelled: {spelling in the corpus: emotion it was read as}, where they differ by more than case and blanks.
    """

    def __init__(
        self, name: str, clips: list[Clip], language: str | None, relabelled: dict[str, str], audio: AudioBytes
    ):
        self.name = name
        self.clips = clips
        self.language = language
        self.relabelled = relabelled
        self._audio = audio
        self._keys: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        return f"Corpus({self.name!r}, {len(self)} clips, language={self.language!r})"

    @property
    def names(self) -> list[str]:
        return [clip.name for clip in self.clips]

    @property
    def labels(self) -> list[str | None]:
        return [clip.label for clip in self.clips]

    @property
    def speakers(self) -> list[str | None]:
        return [clip.speaker for clip in self.clips]

    @property
    def has_speakers(self) -> bool:
        """Whether every clip has a speaker id."""
        return all(clip.speaker is not None for clip in self.clips)

    def iter_audio(
        self, indices: Iterable[int] | None = None, *, known: Collection[str] = frozenset()
    ) -> Iterator[DecodedClip]:
        """Reads, hashes and decodes clips in a few threads ahead of the caller; results come in the order asked for.

        Args:
            indices: which clips; all by default. A streamed corpus is read in one pass, so they must ascend.
            known: content keys the caller already holds features for: such clips are hashed but not decoded.

        A clip that cannot be read or decoded comes with its `error` instead of raising.

        Raises:
            IndexError: no such clip.
            DataError: indices of a streamed corpus that do not ascend.
            OSError: a disk or network failure, as opposed to one missing or forbidden file.
        """
        pending = deque()
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            try:
                for index, fetch in self._audio.fetches(self._checked(indices)):
                    pending.append(pool.submit(self._decode, index, fetch, known))
                    if len(pending) == PREFETCHED_CLIPS:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:  # the caller may stop early
                for future in pending:
                    future.cancel()

    def content_key(self, index: int) -> str:
        """SHA-256 of the clip's encoded file (hex): reads it unless `iter_audio` already did, and decodes nothing.

        Raises:
            AudioError: the file cannot be read.
            DataError: a streamed clip that `iter_audio` has not passed yet.
        """
        if index not in self._keys:
            if not self._audio.random_access:
                raise DataError(f"{self.name} is streamed: iterate over its audio before asking for content keys")
            ((_, fetch),) = self._audio.fetches(self._checked([index]))
            self._keys[index] = _content_key(fetch())
        return self._keys[index]

    def _checked(self, indices: Iterable[int] | None) -> Iterator[int]:
        for index in range(len(self)) if indices is None else indices:
            if not 0 <= index < len(self):
                raise IndexError(f"{self.name} has {len(self)} clips, there is none with index {index}")
            yield int(index)

    def _decode(self, index: int, fetch: Callable[[], bytes], known: Collection[str]) -> DecodedClip:
        key = None
        try:
            data = fetch()
            self._keys[index] = key = _content_key(data)
            waveform = None if key in known else read_audio(data, name=self.clips[index].name)
            return DecodedClip(index, key, waveform, None)
        except AudioError as error:
            return DecodedClip(index, key, None, error)


def load_corpus(
    source: str | os.PathLike,
    *,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    audio_column: str | None = None,
    label_column: str | None = None,
    speaker_column: str = "speaker",
    language_column: str = "language",
    label_map: Mapping[str, str] | None = None,
    streaming: bool = False,
    require_labels: bool = True,
    token: str | bool | None = None,
) -> Corpus:
    """Reads the metadata of a corpus.

    Args:
        source: a folder with metadata.csv or metadata.jsonl, a folder of parquet files, or a dataset id on the Hub.
        split, config: of a dataset. A dataset with a single split needs no `split`.
        revision, token: of a dataset on the Hub.
        audio_column: by default `file_name` in a folder with metadata; in a dataset the one column of audio, else
            `audio`, else `file`.
        label_column: by default `emotion`, else `label`, else `labels`. Empty cells (and class -1) are unlabelled.
        speaker_column, language_column: the defaults are optional (`speaker_id` is tried too); any other name must
            exist.
        label_map: {spelling: emotion} that takes precedence over `LABEL_ALIASES`; see `parse_label_map`.
        streaming: do not download a dataset but read it in passes. A folder with metadata is read file by file anyway.
        require_labels: whether a corpus without a single label is an error.

    Labels are compared without case and surrounding blanks; unknown ones are kept as they are, in lower case.

    Raises:
        DataError: anything about the corpus or these options that needs the user's attention.
    """
    source = os.fspath(source)
    folder = Path(source).expanduser()
    named = _Named(audio_column, label_column, speaker_column, language_column)
    options = {"split": split, "config": config, "revision": revision}
    if folder.is_dir() and (metadata := _metadata_file(folder, require_labels)) is not None:
        if given := [option for option, value in options.items() if value is not None]:
            raise DataError(f"{source} is a folder with {metadata.name} and has no {given[0]}: leave it out")
        table = _folder_table(folder, metadata, named)
    else:
        if not folder.is_dir() and (folder.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1):
            raise DataError(f"{source} is not a folder: give a folder with metadata.csv, or the id of a Hub dataset")
        if folder.is_dir() and revision is not None:
            raise DataError(f"{source} is a local folder and has no revision: leave it out")
        table = _dataset_table(source, split, config, revision, token, streaming, named)
    if not table.names:
        raise DataError(f"{table.title} has no rows")
    return _corpus(table, label_map or {}, require_labels)


def parse_label_map(text: str) -> dict[str, str]:
    """`"Wut=anger,Freude=happiness"`, or the path of a JSON file with one such object, as a dictionary.

    Keys and values are stripped and lowered, as labels are; a value is taken literally, without `LABEL_ALIASES`.

    Raises:
        DataError: the text or the file has another form, or gives one spelling two emotions.
    """
    if text.strip().lower().endswith(".json") and "=" not in text:
        return _normalised_map(_json_pairs(Path(text.strip()).expanduser()))
    pairs = [part.split("=") for part in text.split(",") if part.strip()]
    if bad := [pair for pair in pairs if len(pair) != 2]:
        raise DataError(f"label map: {'='.join(bad[0]).strip()!r} is not of the form spelling=emotion")
    return _normalised_map(pairs)


def check_skipped(skipped: Collection[SkippedClip], total: int, limit: float = 0.05) -> None:
    """Passes if at most the share `limit` of `total` clips, and not all of them, was skipped.

    Raises:
        DataError: names the first few with their reasons.
    """
    if skipped and (len(skipped) > limit * total or len(skipped) == total):
        few = "; ".join(f"{clip.name}: {clip.reason}" for clip in list(skipped)[:3])
        rest = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        raise DataError(
            f"{len(skipped)} of {total} clips cannot be used, more than the limit of {limit:.0%}: repair or remove"
            f" them, or raise the limit ({few}{rest})"
        )


# Columns, from whichever source


@dataclass(frozen=True, slots=True)
class _Named:
    """Column names as the user gave them."""

    audio: str | None
    label: str | None
    speaker: str
    language: str


@dataclass(slots=True)
class _Table:
    """Columns of text, one entry per clip, before labels are understood."""

    title: str  # for messages
    corpus: str
    columns: list[str]
    names: list[str]
    labels: list[str | None] | None
    speakers: list[str | None] | None
    languages: list[str | None] | None
    audio: AudioBytes


def _corpus(table: _Table, label_map: Mapping[str, str], require_labels: bool) -> Corpus:
    if require_labels and table.labels is None:
        raise DataError(
            f"{table.title} has no column named {_either(_LABEL_COLUMNS)}, only {_listed(table.columns)}:"
            " name the one with the emotions as label column"
        )
    if require_labels and not any(table.labels):
        raise DataError(f"{table.title} has an emotion column, but every cell of it is empty")
    spellings = {**LABEL_ALIASES, **_normalised_map(label_map.items())}
    raw = table.labels or [None] * len(table.names)
    emotion_of = {text: spellings.get(_normal(text), _normal(text)) for text in set(raw) - {None}}
    relabelled = {text: emotion for text, emotion in sorted(emotion_of.items()) if emotion != _normal(text)}
    if relabelled:
        logger.warning("%s: labels read as %s", table.corpus, ", ".join(f"{a} -> {b}" for a, b in relabelled.items()))
    speakers = table.speakers or [None] * len(table.names)
    if table.speakers and 0 < (missing := speakers.count(None)) < len(speakers):
        logger.warning("%s: %d of %d clips have no speaker", table.corpus, missing, len(speakers))
    emotion_of[None] = None
    clips = [
        Clip(index, name, emotion_of[text], speaker)
        for index, (name, text, speaker) in enumerate(zip(table.names, raw, speakers, strict=True))
    ]
    languages = set(table.languages or [])
    return Corpus(table.corpus, clips, languages.pop() if len(languages) == 1 else None, relabelled, table.audio)


_LABEL_COLUMNS = ("emotion", "label", "labels")
_SPEAKER_COLUMNS = ("speaker", "speaker_id")
_LANGUAGE_COLUMNS = ("language",)


def _column(title: str, columns: list[str], named: str | None, usual: tuple[str, ...]) -> str | None:
    """The column to use: the named one, else the first usual one there is. A named one that is unusual must exist."""
    if named is not None and named in columns:
        return named
    if named is not None and named != usual[0]:
        raise DataError(f"{title} has no column {named!r}: it has {_listed(columns)}")
    return next((name for name in usual if name in columns), None)


def _label_speaker_language(title: str, columns: list[str], named: _Named) -> list[str | None]:
    if named.label is not None and named.label not in columns:
        raise DataError(f"{title} has no column {named.label!r}: it has {_listed(columns)}")
    return [
        _column(title, columns, named.label, _LABEL_COLUMNS),
        _column(title, columns, named.speaker, _SPEAKER_COLUMNS),
        _column(title, columns, named.language, _LANGUAGE_COLUMNS),
    ]


def _text(value: Any) -> str | None:
    """A cell as text; None for an empty one and for NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def _normal(label: str) -> str:
    return label.strip().lower()


def _normalised_map(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    result = {}
    for spelling, emotion in pairs:
        spelling, emotion = _normal(spelling), _normal(emotion)
        if not spelling or not emotion:
            raise DataError(f"label map: '{spelling}={emotion}' needs a spelling and an emotion")
        if result.setdefault(spelling, emotion) != emotion:
            raise DataError(f"label map: {spelling!r} is given both as {result[spelling]} and as {emotion}")
    return result


def _json_pairs(path: Path) -> list[tuple[str, str]]:
    try:
        # every object as a tuple of pairs: repeated keys stay visible, and arrays remain distinct from objects
        pairs = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=tuple)
    except OSError as error:
        raise DataError(f"label map {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"label map {path} is not JSON in UTF-8: {error}") from error
    if not isinstance(pairs, tuple) or not all(isinstance(value, str) for _, value in pairs):
        raise DataError(f'label map {path} must be one JSON object of texts, like {{"Wut": "anger"}}')
    return list(pairs)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(_shown, names)) or "no columns"


def _shown(text: str) -> str:
    """What a file says, fit for a message of one line."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(names)


def _content_key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# A folder with metadata.csv or metadata.jsonl


def _metadata_file(folder: Path, require_labels: bool) -> Path | None:
    """The folder's metadata; None if it holds parquet files instead."""
    title = folder.resolve().name
    found = [path for name in ("metadata.csv", "metadata.jsonl") if (path := folder / name).is_file()]
    if len(found) == 2:
        raise DataError(f"{title} has both metadata.csv and metadata.jsonl: keep one")
    if found and not found[0].resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{found[0].name} of {title} is a symbolic link out of the folder: put the file itself there")
    if found:
        return found[0]
    if next(folder.rglob("*.parquet"), None) is None:
        columns = "columns file_name and emotion" if require_labels else "column file_name"
        raise DataError(f"{title} has neither metadata.csv nor parquet files: add a metadata.csv with the {columns}")
    return None


def _folder_table(folder: Path, metadata: Path, named: _Named) -> _Table:
    title = f"{metadata.name} of {folder.resolve().name}"
    columns, rows = (_read_csv if metadata.suffix == ".csv" else _read_jsonl)(metadata, title)
    files = named.audio or "file_name"
    if files not in columns:
        hint = ": separate the cells with commas" if len(columns) == 1 and re.search(r"[;\t|]", columns[0]) else ""
        raise DataError(f"{title} has no column {files!r}, only {_listed(columns)}{hint}")
    used = _label_speaker_language(title, columns, named)

    for number, row in rows:
        for column in (files, *filter(None, used)):
            if isinstance(row.get(column), (list, dict)):
                raise DataError(f"{title}, row {number}: {column} holds several values: give one text")
    locate = _Locator(folder)
    first_row, names = {}, []
    for number, row in rows:
        name = _located(locate, _text(row.get(files)), f"{title}, row {number}")
        if first_row.setdefault(name, number) != number:
            raise DataError(f"{title}, row {number}: {_shown(name)} is already in row {first_row[name]}")
        names.append(name)

    def cells(column: str | None) -> list[str | None] | None:
        return None if column is None else [_text(row.get(column)) for _, row in rows]

    return _Table(title, folder.resolve().name, columns, names, *map(cells, used), _Files(locate.root, names))


def _read_csv(path: Path, title: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The column names, and every row with its number."""
    records = enumerate(csv.reader(io.StringIO(_decoded(path, title), newline=""), strict=True), 1)
    number, rows = 0, []
    try:
        number, header = next(records, (1, []))
        columns = [cell.strip() for cell in header]
        named = [column for column in columns if column]
        if len(set(named)) < len(named):
            raise DataError(f"{title} has two columns of the same name: {_listed(named)}")
        for number, record in records:
            if len(record) > len(columns):
                raise DataError(
                    f"{title}, row {number}: {len(record)} cells, but the header has {len(columns)}:"
                    " put cells with commas in double quotes"
                )
            if record:
                rows.append((number, dict(zip(columns, record, strict=False))))
    except csv.Error as error:
        raise DataError(f"{title}, row {number + 1} is not valid CSV: {error}") from error
    return named, rows


def _read_jsonl(path: Path, title: str) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    rows = []
    for number, line in enumerate(_decoded(path, title).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
                if "\\u" in line:
                    json.dumps(row, ensure_ascii=False).encode()  # half of a character can be neither printed nor saved
            except (ValueError, RecursionError) as error:
                raise DataError(f"{title}, row {number}: not JSON ({getattr(error, 'msg', error)})") from error
            if not isinstance(row, dict):
                raise DataError(f"{title}, row {number}: expected a JSON object")
            rows.append((number, row))
    return list(dict.fromkeys(key for _, row in rows for key in row)), rows


def _decoded(path: Path, title: str) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # its position does not count the mark of UTF-8 at the start
        line = data.removeprefix(codecs.BOM_UTF8).count(b"\n", 0, error.start) + 1
        raise DataError(f"{title}, line {line} is not in UTF-8: save it as UTF-8") from error


class _Outside(ValueError):
    """A file name that leads out of its folder."""


class _Locator:
    """Turns a file name given in metadata into a path below `root`, or says why not."""

    def __init__(self, folder: Path):
        self.root = os.path.realpath(folder)
        self._real_folders = {}  # many files share a folder, and resolving links is slow

    def __call__(self, name: str) -> tuple[str, os.stat_result]:
        """The normalised relative name and the file's status.

        Raises:
            _Outside: the file is, by its name or through a symbolic link, outside the folder.
            OSError: the file does not exist or cannot be reached.
        """
        if re.match(r"[\\/]|[A-Za-z]:", name) or ".." in re.split(r"[\\/]", name):
            raise _Outside("points outside the folder: give a name relative to it, without ..")
        name = posixpath.normpath(name)
        parent = posixpath.dirname(name)
        if parent not in self._real_folders:
            self._real_folders[parent] = os.path.realpath(os.path.join(self.root, parent))
        path = os.path.join(self._real_folders[parent], posixpath.basename(name))
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            path = os.path.realpath(path)
            status = os.stat(path)
        if os.path.commonpath([self.root, path]) != self.root:
            raise _Outside("is a symbolic link out of the folder: put the file itself there")
        return name, status


def _located(locate: _Locator, name: str | None, where: str) -> str:
    if name is None:
        raise DataError(f"{where}: the file name is empty")
    try:
        name, status = locate(name)
    except _Outside as error:
        raise DataError(f"{where}: {_shown(name)} {error}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        hint = " (use / between folders)" if "\\" in name else ""
        raise DataError(f"{where}: {_shown(name)} does not exist{hint}") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{where}: {_shown(name)} is not a file")
    return name


class _Files:
    random_access = True

    def __init__(self, root: str, names: list[str]):
        self._root, self._names = root, names

    def fetches(self, indices: Iterable[int]) -> Iterator[tuple[int, Callable[[], bytes]]]:
        for index in indices:
            yield index, lambda name=self._names[index]: _file_bytes(os.path.join(self._root, name), name)


def _file_bytes(path: str, name: str) -> bytes:
    try:
        check_regular(path, name)
        with open(path, "rb") as file:
            _check_size(os.fstat(file.fileno()).st_size, name)
            return file.read()
    except (FileNotFoundError, PermissionError) as error:  # other OSErrors are the disk's fault, not the clip's
        raise AudioError(f"{name} cannot be read ({error.strerror})") from error


def _check_size(size: int, name: str):
    if size > MAX_BYTES:  # of a sparse file, more than any memory holds
        raise AudioError(f"{name} has more than {MAX_BYTES >> 20} MB: cut it into clips, or leave it out")


# Datasets: parquet folders and the Hub


def _dataset_table(
    source: str,
    split: str | None,
    config: str | None,
    revision: str | None,
    token: str | bool | None,
    streaming: bool,
    named: _Named,
) -> _Table:
    folder = Path(source).expanduser()
    local = folder.is_dir()
    address = str(folder.resolve()) if local else source
    title = folder.resolve().name if local else source
    hub = {} if local else {"revision": revision, "token": token}
    with _explained(title, local):
        if split is None:
            splits = datasets.get_dataset_split_names(address, config_name=config, **hub)
            if len(splits) != 1:
                raise DataError(f"{title} has the splits {_listed(splits)}: choose one")
            split = splits[0]

        def load(**kwargs: Any) -> datasets.Dataset | datasets.IterableDataset:
            return datasets.load_dataset(address, name=config, split=split, streaming=streaming, **hub, **kwargs)

        dataset = load()
        if dataset.features is None:
            raise DataError(f"{title} does not say which columns it has: load it without streaming")

        def only(columns: list[str]) -> datasets.Dataset | datasets.IterableDataset:
            if streaming and dataset.info.builder_name == "parquet":
                return load(columns=columns)  # select_columns would fetch the audio too, and drop it
            return dataset.select_columns(columns)

        columns = list(dataset.features)
        audio = _audio_column(title, dataset.features, named.audio)
        used = _label_speaker_language(title, columns, named)
        if streaming:
            # rows must be counted even if no column is of use; reading the audio for that is the last resort
            read = [column for column in used if column] or [column for column in columns if column != audio][:1]
            count, cells = _streamed_cells(only(read or [audio]), used)
        else:
            count, cells = len(dataset), {column: dataset[column][:] for column in used if column}
        encoded = only([audio])
        if not _holds_samples(dataset.features[audio]):
            encoded = encoded.cast_column(audio, datasets.Audio(decode=False))
        texts = [column and _as_text(cells[column], dataset.features[column], f"{title}: {column}") for column in used]
    names = [f"{split}[{row}]" for row in range(count)]
    read_cell = _CellReader(audio, _Locator(folder) if local else None, source, token)
    clips_audio = _Stream(encoded, read_cell, names, title) if streaming else _Rows(encoded, read_cell, names)
    return _Table(title, title, columns, names, *texts, clips_audio)


@contextmanager
def _explained(title: str, local: bool) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (DatasetsError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, DatasetNotFoundError) or (isinstance(error, HfHubHTTPError) and _hidden(error)):
            reason = "it does not exist, or is private: check the name, or run `hf auth login` or set HF_TOKEN"
        kind = "a folder of parquet files that" if local else "no local folder, and as a dataset of the Hub it"
        raise DataError(f"{title} is {kind} cannot be loaded: {reason}") from error


def _hidden(error: HfHubHTTPError) -> bool:
    """Whether the Hub says no more than that it has nothing to show to this token."""
    return error.response.status_code in (401, 403, 404)


def _audio_column(title: str, features: datasets.Features, named: str | None) -> str:
    if named is not None:
        if named not in features:
            raise DataError(f"{title} has no column {named!r}: it has {_listed(features)}")
        return named
    typed = [column for column, feature in features.items() if isinstance(feature, datasets.Audio)]
    if len(typed) == 1:
        return typed[0]
    usual = [column for column in ("audio", "file") if column in (typed or features)]
    if not usual:
        raise DataError(f"{title} has no obvious audio column among {_listed(typed or features)}: name it")
    return usual[0]


def _holds_samples(feature: Any) -> bool:
    """Whether a column holds decoded audio, as `{array, sampling_rate}`."""
    return isinstance(feature, dict) and {"array", "sampling_rate"} <= feature.keys()


def _streamed_cells(rows: datasets.IterableDataset, used: list[str | None]) -> tuple[int, dict[str, list]]:
    """The number of rows, and the values of the used columns, in one pass."""
    count, cells = 0, {column: [] for column in used if column}
    for batch in rows.with_format("arrow").iter(batch_size=1000):
        count += len(batch)
        for column, values in cells.items():
            values.extend(batch[column].to_pylist())
    return count, cells


def _as_text(values: list, feature: Any, title: str) -> list[str | None]:
    if isinstance(feature, datasets.ClassLabel):
        return [None if value is None or value < 0 else _text(feature.names[value]) for value in values]
    if isinstance(feature, datasets.Value):
        return [_text(value) for value in values]
    raise DataError(f"{title} holds {feature}, expected one text or class per row: name another column")


class _CellReader:
    """Reads the encoded file in one audio cell: its bytes, or the file it points to within the dataset."""

    def __init__(self, column: str, locate: _Locator | None, dataset: str, token: str | bool | None):
        self.column = column
        self._locate = locate  # of a local folder
        self._dataset, self._token = dataset, token  # of the Hub

    def __call__(self, cell: Mapping | None, name: str) -> bytes:
        if cell is not None and cell.get("array") is not None:
            return _as_wav(cell, name)
        if cell is None or (cell.get("bytes") is None and not cell.get("path")):
            raise AudioError(f"{name} has no audio")
        if cell["bytes"] is not None:
            return cell["bytes"]
        path = cell["path"]
        if self._locate is not None:
            try:
                relative, _ = self._locate(path)
            except (OSError, ValueError) as error:
                raise AudioError(f"{name} has no bytes, and its path leads to no file in the folder") from error
            return _file_bytes(os.path.join(self._locate.root, relative), name)
        # a dataset must not make us read other files of this machine, or other addresses
        if re.fullmatch(rf"(zip://[^:]*::)?hf://datasets/{re.escape(self._dataset)}[@/](?!.*\.\.)[^:]*", path):
            try:
                with fsspec.open(path, "rb", hf={"token": self._token}) as file:
                    data = file.read(MAX_BYTES + 1)
                _check_size(len(data), name)
                return data
            except FileNotFoundError as error:  # anything else is the network's fault, not the clip's
                raise AudioError(f"{name} cannot be read (no such file in {self._dataset})") from error
        roots = [os.path.realpath(root) for root in (HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE)]
        real = os.path.realpath(path)
        if "://" not in path and any(os.path.commonpath([root, real]) == root for root in roots):
            return _file_bytes(real, name)
        raise AudioError(f"{name} has no bytes, and its path is not part of {self._dataset}")


def _as_wav(cell: Mapping, name: str) -> bytes:
    """Decoded audio as the file that the rest of the way expects, at 16 kHz in floats."""
    try:
        samples = read_audio(cell, name)
    except TypeError as error:
        raise AudioError(f"{name} cannot be read ({error})") from error
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLING_RATE, "FLOAT", format="WAV")
    return buffer.getvalue()


class _Rows:
    random_access = True

    def __init__(self, rows: datasets.Dataset, read: _CellReader, names: list[str]):
        self._rows, self._read, self._names = rows, read, names

    def fetches(self, indices: Iterable[int]) -> Iterator[tuple[int, Callable[[], bytes]]]:
        for index in indices:
            yield index, lambda index=index: self._read(self._rows[index][self._read.column], self._names[index])


class _Stream:
    random_access = False

    def __init__(self, rows: datasets.IterableDataset, read: _CellReader, names: list[str], title: str):
        self._rows, self._read, self._names, self._title = rows, read, names, title

    def fetches(self, indices: Iterable[int]) -> Iterator[tuple[int, Callable[[], bytes]]]:
        rows, previous = iter(self._rows), -1
        for index in indices:
            if index <= previous:
                raise DataError(f"{self._title} is streamed: its clips can only be read in ascending order")
            row = next(itertools.islice(rows, index - previous - 1, None), None)
            if row is None:
                raise DataError(f"{self._title} now has fewer rows than when it was opened: load it again")
            previous = index
            yield index, lambda cell=row[self._read.column], index=index: self._read(cell, self._names[index])
