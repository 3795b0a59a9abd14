"""A folder with metadata.csv or metadata.jsonl beside the audio."""

import codecs
import csv
import io
import json
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from modeling_sere.audio_sere import AudioError
from modeling_sere.training.corpora.columns import NamedColumns, Table, cell_text, label_speaker_language, listed, shown
from modeling_sere.training.errors import RunError


def metadata_file(folder: Path, require_labels: bool) -> Path | None:
    """The folder's metadata; None if it holds parquet files instead."""
    title = folder.resolve().name
    found = [path for name in ("metadata.csv", "metadata.jsonl") if (path := folder / name).is_file()]
    if len(found) == 2:
        raise RunError(f"{title} has both metadata.csv and metadata.jsonl: keep one")
    if found and not found[0].resolve().is_relative_to(folder.resolve()):
        raise RunError(f"{found[0].name} of {title} is a symbolic link out of the folder: put the file itself there")
    if found:
        return found[0]
    if next(folder.rglob("*.parquet"), None) is None:
        columns = "columns file_name and emotion" if require_labels else "column file_name"
        raise RunError(f"{title} has neither metadata.csv nor parquet files: add a metadata.csv with the {columns}")
    return None


def folder_table(folder: Path, metadata: Path, named: NamedColumns) -> Table:
    title = f"{metadata.name} of {folder.resolve().name}"
    columns, rows = (_read_csv if metadata.suffix == ".csv" else _read_jsonl)(metadata, title)
    files = named.audio or "file_name"
    if files not in columns:
        hint = ": separate the cells with commas" if len(columns) == 1 and re.search(r"[;\t|]", columns[0]) else ""
        raise RunError(f"{title} has no column {files!r}, only {listed(columns)}{hint}")
    used = label_speaker_language(title, columns, named)

    for number, row in rows:
        for column in (files, *filter(None, used)):
            if isinstance(row.get(column), (list, dict)):
                raise RunError(f"{title}, row {number}: {column} holds several values: give one text")
    locate = Locator(folder)
    first_row, names = {}, []
    for number, row in rows:
        name = _located(locate, cell_text(row.get(files)), f"{title}, row {number}")
        if first_row.setdefault(name, number) != number:
            raise RunError(f"{title}, row {number}: {shown(name)} is already in row {first_row[name]}")
        names.append(name)

    def cells(column: str | None) -> list[str | None] | None:
        return None if column is None else [cell_text(row.get(column)) for _, row in rows]

    return Table(title, folder.resolve().name, columns, names, *map(cells, used), _Files(locate.root, names))


def _read_csv(path: Path, title: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The column names, and every row with its number."""
    records = enumerate(csv.reader(io.StringIO(_decoded(path, title), newline=""), strict=True), 1)
    number, rows = 0, []
    try:
        number, header = next(records, (1, []))
        columns = [cell.strip() for cell in header]
        named = [column for column in columns if column]
        if len(set(named)) < len(named):
            raise RunError(f"{title} has two columns of the same name: {listed(named)}")
        for number, record in records:
            if len(record) > len(columns):
                raise RunError(
                    f"{title}, row {number}: {len(record)} cells, but the header has {len(columns)}:"
                    " put cells with commas in double quotes"
                )
            if record:
                rows.append((number, dict(zip(columns, record, strict=False))))
    except csv.Error as error:
        raise RunError(f"{title}, row {number + 1} is not valid CSV: {error}") from error
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
                raise RunError(f"{title}, row {number}: not JSON ({getattr(error, 'msg', error)})") from error
            if not isinstance(row, dict):
                raise RunError(f"{title}, row {number}: expected a JSON object")
            rows.append((number, row))
    return list(dict.fromkeys(key for _, row in rows for key in row)), rows


def _decoded(path: Path, title: str) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # its position does not count the mark of UTF-8 at the start
        line = data.removeprefix(codecs.BOM_UTF8).count(b"\n", 0, error.start) + 1
        raise RunError(f"{title}, line {line} is not in UTF-8: save it as UTF-8") from error


class _Outside(ValueError):
    """A file name that leads out of its folder."""


class Locator:
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


def _located(locate: Locator, name: str | None, where: str) -> str:
    if name is None:
        raise RunError(f"{where}: the file name is empty")
    try:
        name, status = locate(name)
    except _Outside as error:
        raise RunError(f"{where}: {shown(name)} {error}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        hint = " (use / between folders)" if "\\" in name else ""
        raise RunError(f"{where}: {shown(name)} does not exist{hint}") from error
    if not stat.S_ISREG(status.st_mode):
        raise RunError(f"{where}: {shown(name)} is not a file")
    return name


class _Files:
    random_access = True

    def __init__(self, root: str, names: list[str]):
        self._root, self._names = root, names

    def fetches(self, indices: Iterable[int]) -> Iterator[tuple[int, Callable[[], bytes]]]:
        for index in indices:
            yield index, lambda name=self._names[index]: file_bytes(os.path.join(self._root, name), name)


def file_bytes(path: str, name: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, PermissionError) as error:  # other OSErrors are the disk's fault, not the clip's
        raise AudioError(f"{name} cannot be read ({error.strerror})") from error
