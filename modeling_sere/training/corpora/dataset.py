"""Corpora that the library `datasets` reads: datasets on the Hub, and parquet and arrow files on disk."""

import io
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import fsspec
import httpx2
import numpy as np
import soundfile
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError

from modeling_sere.audio_sere import SAMPLING_RATE, AudioError, read_audio
from modeling_sere.training.corpora.columns import (
    FILES,
    Table,
    cell_text,
    columns_of_clips,
    find_column,
    told_columns,
)
from modeling_sere.training.corpora.corpus import Recording
from modeling_sere.training.corpora.files import MAX_FILE_BYTES, OUTSIDE, Locator, OutsideError, check_size, read_bytes
from modeling_sere.training.corpora.names import compact_name, listed, normal_name, number, shown
from modeling_sere.training.corpora.options import ReadOptions
from modeling_sere.training.errors import RunError, first_line

Load = Callable[..., datasets.Dataset | datasets.IterableDataset]


def hub_table(address: str, options: ReadOptions) -> Table:
    """Read a dataset on the Hub by its id.

    Raises:
        RunError: it does not exist, cannot be reached, or has no such split or columns.
    """
    failure = f"there is no folder {shown(address)} here, and as a dataset on the Hub it cannot be loaded"
    split = options.split
    with _explained(failure):
        if split is None:
            splits = datasets.get_dataset_split_names(address, config_name=options.config, revision=options.revision)
            if len(splits) != 1:
                raise RunError(
                    f"{address} has the splits {listed(splits)}: choose one with --source_split or --target_split"
                )
            split = splits[0]
        if normal_name(split) == "all":
            splits = datasets.get_dataset_split_names(address, config_name=options.config, revision=options.revision)
            split = "+".join(splits)
        load = partial(
            _loaded, split.split("+"), address, name=options.config, streaming=options.streaming,
            revision=options.revision,
        )  # fmt: skip
        table = _table(address, split, load, partial(_hub_file, dataset=address), options)
    table.reading["files"] = f"dataset on the Hub, {table.reading['files']}"
    return table


def _loaded(splits: list[str], *address: str, **options: Any) -> datasets.Dataset | datasets.IterableDataset:
    """Load some splits as one, of which a stream knows no sum."""
    parts = [datasets.load_dataset(*address, split=split.strip(), **options) for split in splits]
    if len(parts) == 1:
        return parts[0]
    whole = datasets.concatenate_datasets(parts)
    whole.info.builder_name = parts[0].info.builder_name
    return whole


def files_table(corpus: str, kind: str, paths: list[Path], split: str, locate: Locator, options: ReadOptions) -> Table:
    """Read parquet or arrow files.

    Args:
        kind: "parquet" or "arrow". split: what the rows are called. locate: finds the files that cells of audio name.

    Raises:
        RunError: a file is damaged, or has no such columns.
    """
    files = {"train": [str(path) for path in paths]}  # whatever it is called: `datasets` does not take every name
    load = partial(datasets.load_dataset, kind, data_files=files, split="train", streaming=options.streaming)
    with _explained(f"{corpus} has {kind} files that cannot be loaded"):
        table = _table(corpus, split, load, partial(_local_file, locate=locate), options)
    table.reading["files"] = f"{number(len(paths), f'{kind} file')}, {table.reading['files']}"
    return table


def dataset_table(dataset: datasets.Dataset, corpus: str, options: ReadOptions, locate: Locator) -> Table:
    """Read a dataset that is loaded already.

    Args:
        corpus: its name. locate: finds the files that cells of audio name.

    Raises:
        RunError: it has no such columns.
    """
    with _explained(f"{corpus} cannot be used"):
        return _table(corpus, corpus, lambda: dataset, partial(_local_file, locate=locate), options)


@contextmanager
def _explained(failure: str) -> Iterator[None]:
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # a stranger's file passes through many hands in there, which raise what they like
        reason = first_line(error).strip() or type(error).__name__
        if isinstance(error, DatasetNotFoundError) or (isinstance(error, HfHubHTTPError) and _hidden(error)):
            reason = "it does not exist, or is private: check the name, or run `hf auth login` or set HF_TOKEN"
        if reason.startswith("Config name is missing"):  # the configurations are named in the lines after it
            reason = f"{' '.join(str(error).split())} (--source_config or --target_config)"
        raise RunError(f"{failure}: {reason}") from error


def _hidden(error: HfHubHTTPError) -> bool:
    """Tell whether the Hub says no more than that it has nothing to show to this token."""
    return error.response.status_code in (401, 403, 404)


def _table(corpus: str, split: str, load: Load, read_file: Callable[[str, str], bytes], options: ReadOptions) -> Table:
    """Return the table of a dataset; `read_file` gives the bytes of a path in it, and takes the clip's name for
    messages.
    """
    dataset = load()
    if dataset.features is None:
        raise RunError(f"{corpus} does not say which columns it has: load it without --streaming")

    def only(columns: list[str]) -> datasets.Dataset | datasets.IterableDataset:
        if options.streaming and dataset.info.builder_name == "parquet":
            return load(columns=columns)  # select_columns would fetch the audio too, and drop it
        return dataset.select_columns(columns)

    columns = list(dataset.features)
    audio = _audio_column(corpus, dataset.features, options.columns.audio)
    used = columns_of_clips(corpus, columns, options.columns)
    if options.streaming:
        # rows must be counted even if no column is of use; reading the audio for that is the last resort
        read = [column for column in used if column] or [column for column in columns if column != audio][:1]
        count, cells = _streamed_cells(only(read or [audio]), used)
    else:
        count, cells = len(dataset), {column: dataset[column][:] for column in used if column}
    encoded = only([audio])
    if not _holds_samples(dataset.features[audio]):
        encoded = encoded.cast_column(audio, datasets.Audio(decode=False))
    texts = [column and _as_text(cells[column], dataset.features[column], f"{corpus}: {column}") for column in used]
    names = [f"{split}[{row}]" for row in range(count)]
    read_cell = partial(_cell_bytes, read_file=read_file, kind=_sample_type(dataset.features[audio]))
    rows = (_Stream if options.streaming else _Rows)(encoded, audio, read_cell, names, corpus)
    reading = {"files": f"column {shown(audio)} of {number(count, 'row')}", "split": split}
    return Table(corpus, corpus, columns, names, *texts, rows, reading | told_columns(used))


def _audio_column(title: str, features: datasets.Features, named: str | None) -> str:
    """Find the column of audio: the named one, else the only one of that type, else one with a usual name."""
    if named is not None:
        return find_column(title, list(features), named)
    typed = [column for column, feature in features.items() if _is_audio(feature)]
    if len(typed) == 1:
        return typed[0]
    usual = [column for column in typed or features if compact_name(column) in ("audio", "file")]
    usual = usual or [column for column in typed or features if compact_name(column) in FILES]
    if not usual:
        raise RunError(
            f"{title} has no obvious audio column among {listed(typed or features)}: name it as --audio_column"
        )
    return usual[0]


def _is_audio(feature: Any) -> bool:
    """Tell whether a column is of audio: by its type, or by its parts where the type was lost on the way."""
    is_file = isinstance(feature, dict) and {"bytes", "path"} <= feature.keys()
    return isinstance(feature, datasets.Audio) or is_file or _holds_samples(feature)


def _holds_samples(feature: Any) -> bool:
    return isinstance(feature, dict) and {"array", "sampling_rate"} <= feature.keys()


def _streamed_cells(rows: datasets.IterableDataset, used: list[str | None]) -> tuple[int, dict[str, list]]:
    """Return the number of rows, and the values of the used columns, in one pass."""
    count, cells = 0, {column: [] for column in used if column}
    for batch in rows.with_format("arrow").iter(batch_size=1000):
        count += len(batch)
        for column, values in cells.items():
            values.extend(batch[column].to_pylist())
    return count, cells


def _as_text(values: list, feature: Any, title: str) -> list[str | None]:
    if isinstance(feature, datasets.ClassLabel):
        return [None if value is None or value < 0 else cell_text(feature.names[value]) for value in values]
    if isinstance(feature, datasets.Value):
        return [cell_text(value) for value in values]
    raise RunError(f"{title} holds {feature}, expected one text or class per row: name another column")


def _cell_bytes(cell: Mapping | None, name: str, read_file: Callable[[str, str], bytes], kind: str | None) -> bytes:
    """Return the encoded file in one cell of audio: its bytes, its samples as a file, or the file it points to."""
    if cell is not None and cell.get("array") is not None:
        return _encoded(cell["array"], cell["sampling_rate"], name, kind)
    if cell is not None and cell.get("bytes") is not None:
        return cell["bytes"]
    if cell is None or not cell.get("path"):
        raise AudioError(f"{name} has no audio")
    return read_file(cell["path"], name)


def _encoded(samples: Any, rate: float, name: str, kind: str) -> bytes:
    """Encode samples of a numpy type as the file that the rest of the way expects: 16 kHz, mono, floats."""
    try:
        waveform = read_audio({"array": np.asarray(samples, kind), "sampling_rate": rate}, name)
    except AudioError:
        raise
    except (TypeError, ValueError) as error:
        raise AudioError(f"{name} has samples that are no audio: {type(error).__name__} {first_line(error)}") from error
    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLING_RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def _sample_type(feature: Any) -> str | None:
    """Return the numpy type of the samples in a column of arrays."""
    samples = feature["array"] if _holds_samples(feature) else None
    while hasattr(samples, "feature"):
        samples = samples.feature
    return getattr(samples, "dtype", None)


def _local_file(path: str, name: str, locate: Locator) -> bytes:
    try:
        found, status = locate(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a file")
    except (OSError, ValueError) as error:
        hint = f" ({OUTSIDE} allows others)" if isinstance(error, OutsideError) else ""
        raise AudioError(f"{name} has no bytes, and its path leads to no file in the folder{hint}") from error
    return read_bytes(locate.path(found), name)


def _hub_file(path: str, name: str, dataset: str) -> bytes:
    """Return a file of the dataset; it must not make us read other files of this machine, or other addresses."""
    if re.fullmatch(rf"(zip://[^:]*::)?hf://datasets/{re.escape(dataset)}[@/](?!.*\.\.)[^:]*", path):
        try:
            with fsspec.open(path, "rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            check_size(len(data), name)
            return data
        except FileNotFoundError as error:
            raise AudioError(f"{name} cannot be read (no such file in {dataset})") from error
        except (OSError, httpx2.HTTPError) as error:  # the network's fault, not the clip's
            raise RunError(_broken_off(name, error)) from error
    roots = [os.path.realpath(root) for root in (HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE)]
    real = os.path.realpath(path)
    if "://" not in path and any(os.path.commonpath([root, real]) == root for root in roots):
        return read_bytes(real, name)
    raise AudioError(f"{name} has no bytes, and its path is not part of {dataset}")


def _broken_off(what: str, error: Exception) -> str:
    reason = first_line(error).strip() or type(error).__name__
    return f"{what} cannot be fetched ({reason}): the same command with --resume goes on once it can."


class _Rows:
    """The audio of a dataset of which any row can be read."""

    def __init__(self, rows: datasets.Dataset, column: str, read: Callable, names: list[str], title: str):
        self._rows, self._column, self._read, self._names = rows, column, read, names

    def recordings(self, indices: Iterable[int]) -> Iterator[Recording]:
        for index in indices:
            yield Recording(self._names[index], partial(self._cell, index), [index])

    def _cell(self, index: int) -> bytes:
        return self._read(self._rows[index][self._column], self._names[index])


class _Stream:
    """The audio of a dataset that is read in passes."""

    def __init__(self, rows: datasets.IterableDataset, column: str, read: Callable, names: list[str], title: str):
        self._rows, self._column, self._read, self._names, self._title = rows, column, read, names, title

    def recordings(self, indices: Iterable[int]) -> Iterator[Recording]:
        rows, previous = iter(self._rows), -1
        for index in indices:
            if index <= previous:
                raise RunError(f"{self._title} is streamed: its clips can only be read in ascending order")
            try:
                row = next(itertools.islice(rows, index - previous - 1, None), None)
            except (OSError, httpx2.HTTPError) as error:
                raise RunError(_broken_off(self._title, error)) from error
            if row is None:
                raise RunError(f"{self._title} now has fewer rows than when it was opened: load it again")
            previous = index
            name = self._names[index]
            yield Recording(name, partial(self._read, row[self._column], name), [index])
