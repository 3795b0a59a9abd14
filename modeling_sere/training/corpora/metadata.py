"""Corpora whose clips are listed in tables beside the audio: metadata.csv, train.tsv, manifest.jsonl and the like."""

import posixpath
import stat
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from modeling_sere.training.corpora.columns import (
    FILES,
    SPLITS,
    Table,
    cell_text,
    columns_of_clips,
    find_column,
    told_columns,
)
from modeling_sere.training.corpora.files import AUDIO_SUFFIXES, Files, Locator, locate_file
from modeling_sere.training.corpora.names import compact_name, counted, listed, normal_name, number, shown
from modeling_sere.training.corpora.options import ReadOptions
from modeling_sere.training.corpora.segments import BEGINS, DURATIONS, ENDS, Span, parse_span, segment_name
from modeling_sere.training.corpora.splits import split_key
from modeling_sere.training.corpora.text_table import AS_UTF8, Rows
from modeling_sere.training.errors import RunError


class Part(NamedTuple):
    """One table of a corpus: its path relative to the corpus' folder, and its rows."""

    path: str
    content: Rows


class _Row(NamedTuple):
    part: Part
    number: int
    cells: dict[str, Any]

    def where(self, corpus: str) -> str:
        """Return the row for messages."""
        return f"{self.part.path} of {corpus}, row {self.number}"


def file_column(part: Part, corpus: str, options: ReadOptions) -> str | None:
    """Return the column of a table that names audio files, None if there is none. Raises as `find_column`."""
    return find_column(f"{part.path} of {corpus}", part.content.columns, options.columns.audio, FILES)


def metadata_table(
    corpus: str, folder: Path, parts: list[Part], options: ReadOptions, split: str | None = None
) -> Table:
    """Read the clips that tables of a folder list.

    Args:
        corpus: its name. parts: the tables to read; file names are relative to the folder in which their table lies, or
            else to `folder`. split: which rows to read, by a column of splits.

    Raises:
        RunError: a row or a column that cannot be used.
    """
    tables = listed(part.path for part in parts)
    title = f"{tables} of {corpus}"
    columns = list(dict.fromkeys(column for part in parts for column in part.content.columns))
    files = find_column(title, columns, options.columns.audio, FILES)
    if files is None and any(part.content.foreign for part in parts):
        raise RunError(f"{title} is not in UTF-8: {AS_UTF8}")
    if files is None:
        raise RunError(f"{title} has no column 'file_name', only {listed(columns)}{_header_hint(columns)}")
    used = columns_of_clips(title, columns, options.columns)
    begin_end_duration = _span_columns(title, columns) if options.segments else (None, None, None)
    reading = {"files": f"{tables}, column {shown(files)}"} | told_columns(used)
    rows = [_Row(part, number, cells) for part in parts for number, cells in part.content.rows]
    rows = _of_split(rows, columns, title, split, reading)

    locate = Locator(folder, options.outside_files)
    names, spans = _clips(rows, corpus, files, begin_end_duration, locate)
    reading["files"] += _told_clips(names, spans, begin_end_duration, locate)
    return Table(
        title, corpus, columns, [segment_name(*clip) for clip in zip(names, spans, strict=True)],
        *(_cells(rows, corpus, column) for column in used),
        Files(locate, names, spans if any(spans) else None), reading,
    )  # fmt: skip


def _told_clips(names: list[str], spans: list[Span | None], columns: Iterable[str | None], locate: Locator) -> str:
    """Return what the user should know of how files were found and cut."""
    told = ""
    if cut := sum(span is not None for span in spans):
        files = number(len(set(names)), "file")
        told += f"; {number(cut, 'clip')} cut out of {files} by the columns {', '.join(filter(None, columns))}"
    if locate.respelled:
        given, found = next(iter(locate.respelled.items()))
        example = f"like {ascii(given)} under {ascii(found)}"
        told += f"; {len(locate.respelled)} found under another spelling, {example}"
    return told


def _of_split(
    rows: list[_Row], columns: list[str], title: str, split: str | None, reading: dict[str, str]
) -> list[_Row]:
    """Return the rows of the wanted split of one table, which a column tells; all rows if none is wanted."""
    column = find_column(title, columns, None, SPLITS)
    if column is None and split is not None:
        raise RunError(f"{title} has no column of splits, and so no split {shown(split)!r}: leave it out")
    if column is None:
        return rows
    of_row = [cell_text(row.cells.get(column)) or "" for row in rows]
    told = counted(Counter(of_row))
    if split is None or normal_name(split) == "all":
        reading["split"] = f"all rows; the column {shown(column)} has {told}"
        return rows
    wanted = {split_key(name) for name in split.split("+")}
    kept = [row for row, name in zip(rows, of_row, strict=True) if split_key(name) in wanted]
    if not kept:
        raise RunError(f"{title} has no row of the split {shown(split)!r}: its column {shown(column)} has {told}")
    reading["split"] = f"{shown(split)}, of the column {shown(column)}: {told}"
    return kept


def _span_columns(title: str, columns: list[str]) -> tuple[str | None, str | None, str | None]:
    """Return the columns of beginnings, ends and durations."""
    begin, end, duration = (find_column(title, columns, None, usual) for usual in (BEGINS, ENDS, DURATIONS))
    if begin is not None and compact_name(begin) == "onset":  # beside it, an offset is the end
        end = end or find_column(title, columns, None, ("offset",))
    return (None, None, None) if begin is None else (begin, end, duration if end is None else None)


def _clips(
    rows: list[_Row], corpus: str, files: str, begin_end_duration: Iterable[str | None], locate: Locator
) -> tuple[list[str], list[Span | None]]:
    """Return the file of each row, and which part of it."""
    names, spans = [], []
    bases: dict[str, str] = {}  # of each table, the folder in which its names begin
    located: dict[tuple[str, str | None], str] = {}
    first: dict[tuple[str, Span | None], _Row] = {}
    for row in rows:
        given = _file_text(_single(row, files, corpus))
        if row.part.path not in bases:
            bases[row.part.path] = _base(locate, row.part.path, given)
        base = bases[row.part.path]
        if (base, given) not in located:
            located[base, given] = locate_file(locate, given, base, partial(row.where, corpus))
        name = located[base, given]
        try:
            span = parse_span(*(row.cells.get(column) for column in begin_end_duration), row.part.content.decimal_comma)
        except ValueError as error:
            raise RunError(f"{row.where(corpus)}: {error} (--no_segments reads whole files)") from error
        if (other := first.setdefault((name, span), row)) is not row:
            hint = "" if span else "; parts of one file need columns start and end, in seconds"
            place = f"row {other.number} of {other.part.path}{hint}"
            raise RunError(f"{row.where(corpus)}: {shown(name)} is already in {place}")
        names.append(name)
        spans.append(span)
    return names, spans


def _base(locate: Locator, table: str, first: str | None) -> str:
    """Return the folder in which the names of a table begin, by its first file.

    It is the folder of the table, or that of the corpus, or the one folder beside the table in which the file is.
    """
    beside = posixpath.dirname(table)
    for place in (beside, ""):
        if _is_there(locate, posixpath.join(place, first or "")):
            return place
    inside = [place for place in locate.folders(beside) if _is_there(locate, posixpath.join(place, first or ""))]
    return inside[0] if len(inside) == 1 else beside


def _is_there(locate: Locator, name: str) -> bool:
    try:
        return stat.S_ISREG(locate(name)[1].st_mode)
    except (OSError, ValueError):
        return False


def _cells(rows: list[_Row], corpus: str, column: str | None) -> list[str | None] | None:
    return None if column is None else [cell_text(_single(row, column, corpus)) for row in rows]


def _single(row: _Row, column: str, corpus: str) -> Any:
    """Return a cell that holds one value; of audio as `datasets` writes it into JSON, the path."""
    cell = row.cells.get(column)
    if isinstance(cell, dict) and isinstance(cell.get("path"), str):
        return cell["path"]
    if isinstance(cell, (dict, list)):
        raise RunError(f"{row.where(corpus)}: {shown(column)} holds several values: give one text")
    if row.part.content.foreign and not (cell or "").isascii():
        raise RunError(f"{row.where(corpus)}: {shown(column)} is not in UTF-8; {AS_UTF8}")
    return cell


def _file_text(cell: Any) -> str | None:
    """Return a file name as it is, but for blanks around it: in its middle it may have what other cells lose."""
    return None if cell_text(cell) is None else str(cell).strip()


def _header_hint(columns: list[str]) -> str:
    if any(posixpath.splitext(column)[1].lower() in AUDIO_SUFFIXES for column in columns):
        return ": the first row has to name the columns, like file_name,emotion"
    return ": name it as --audio_column"
