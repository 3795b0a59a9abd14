"""Datasets: parquet folders and the Hub."""

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import fsspec
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError

from modeling_sere.audio_sere import AudioError
from modeling_sere.training.corpora.columns import NamedColumns, Table, cell_text, label_speaker_language, listed
from modeling_sere.training.corpora.folder import Locator, file_bytes
from modeling_sere.training.errors import RunError


def dataset_table(
    source: str,
    split: str | None,
    config: str | None,
    revision: str | None,
    token: str | bool | None,
    streaming: bool,
    named: NamedColumns,
) -> Table:
    folder = Path(source).expanduser()
    local = folder.is_dir()
    address = str(folder.resolve()) if local else source
    title = folder.resolve().name if local else source
    hub = {} if local else {"revision": revision, "token": token}
    with _explained(title, local):
        if split is None:
            splits = datasets.get_dataset_split_names(address, config_name=config, **hub)
            if len(splits) != 1:
                raise RunError(f"{title} has the splits {listed(splits)}: choose one")
            split = splits[0]

        def load(**kwargs: Any) -> datasets.Dataset | datasets.IterableDataset:
            return datasets.load_dataset(address, name=config, split=split, streaming=streaming, **hub, **kwargs)

        dataset = load()
        if dataset.features is None:
            raise RunError(f"{title} does not say which columns it has: load it without streaming")

        def only(columns: list[str]) -> datasets.Dataset | datasets.IterableDataset:
            if streaming and dataset.info.builder_name == "parquet":
                return load(columns=columns)  # select_columns would fetch the audio too, and drop it
            return dataset.select_columns(columns)

        columns = list(dataset.features)
        audio = _audio_column(title, dataset.features, named.audio)
        used = label_speaker_language(title, columns, named)
        if streaming:
            # rows must be counted even if no column is of use; reading the audio for that is the last resort
            read = [column for column in used if column] or [column for column in columns if column != audio][:1]
            count, cells = _streamed_cells(only(read or [audio]), used)
        else:
            count, cells = len(dataset), {column: dataset[column][:] for column in used if column}
        encoded = only([audio]).cast_column(audio, datasets.Audio(decode=False))
        texts = [column and _as_text(cells[column], dataset.features[column], f"{title}: {column}") for column in used]
    names = [f"{split}[{row}]" for row in range(count)]
    read_cell = _CellReader(audio, Locator(folder) if local else None, source, token)
    clips_audio = _Stream(encoded, read_cell, names, title) if streaming else _Rows(encoded, read_cell, names)
    return Table(title, title, columns, names, *texts, clips_audio)


@contextmanager
def _explained(title: str, local: bool) -> Iterator[None]:
    try:
        yield
    except RunError:
        raise
    except (DatasetsError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, DatasetNotFoundError) or (isinstance(error, HfHubHTTPError) and _hidden(error)):
            reason = "it does not exist, or is private: check the name, or run `hf auth login` or set HF_TOKEN"
        kind = "a folder of parquet files that" if local else "no local folder, and as a dataset of the Hub it"
        raise RunError(f"{title} is {kind} cannot be loaded: {reason}") from error


def _hidden(error: HfHubHTTPError) -> bool:
    """Whether the Hub says no more than that it has nothing to show to this token."""
    return error.response.status_code in (401, 403, 404)


def _audio_column(title: str, features: datasets.Features, named: str | None) -> str:
    if named is not None:
        if named not in features:
            raise RunError(f"{title} has no column {named!r}: it has {listed(features)}")
        return named
    typed = [column for column, feature in features.items() if isinstance(feature, datasets.Audio)]
    if len(typed) == 1:
        return typed[0]
    usual = [column for column in ("audio", "file") if column in (typed or features)]
    if not usual:
        raise RunError(f"{title} has no obvious audio column among {listed(typed or features)}: name it")
    return usual[0]


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
        return [None if value is None or value < 0 else cell_text(feature.names[value]) for value in values]
    if isinstance(feature, datasets.Value):
        return [cell_text(value) for value in values]
    raise RunError(f"{title} holds {feature}, expected one text or class per row: name another column")


class _CellReader:
    """Reads the encoded file in one audio cell: its bytes, or the file it points to within the dataset."""

    def __init__(self, column: str, locate: Locator | None, dataset: str, token: str | bool | None):
        self.column = column
        self._locate = locate  # of a local folder
        self._dataset, self._token = dataset, token  # of the Hub

    def __call__(self, cell: Mapping | None, name: str) -> bytes:
        if cell is None or (cell["bytes"] is None and not cell["path"]):
            raise AudioError(f"{name} has no audio")
        if cell["bytes"] is not None:
            return cell["bytes"]
        path = cell["path"]
        if self._locate is not None:
            try:
                relative, _ = self._locate(path)
            except (OSError, ValueError) as error:
                raise AudioError(f"{name} has no bytes, and its path leads to no file in the folder") from error
            return file_bytes(os.path.join(self._locate.root, relative), name)
        # a dataset must not make us read other files of this machine, or other addresses
        if re.fullmatch(rf"(zip://[^:]*::)?hf://datasets/{re.escape(self._dataset)}[@/](?!.*\.\.)[^:]*", path):
            try:
                with fsspec.open(path, "rb", hf={"token": self._token}) as file:
                    return file.read()
            except FileNotFoundError as error:  # anything else is the network's fault, not the clip's
                raise AudioError(f"{name} cannot be read (no such file in {self._dataset})") from error
        roots = [os.path.realpath(root) for root in (HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE)]
        real = os.path.realpath(path)
        if "://" not in path and any(os.path.commonpath([root, real]) == root for root in roots):
            return file_bytes(real, name)
        raise AudioError(f"{name} has no bytes, and its path is not part of {self._dataset}")


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
                raise RunError(f"{self._title} is streamed: its clips can only be read in ascending order")
            row = next(itertools.islice(rows, index - previous - 1, None), None)
            if row is None:
                raise RunError(f"{self._title} now has fewer rows than when it was opened: load it again")
            previous = index
            yield index, lambda cell=row[self._read.column], index=index: self._read(cell, self._names[index])
