"""Tables in text files: CSV and its relatives with other separators, JSON Lines, JSON arrays; and parquet tables."""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modeling_sere.training.corpora.names import clean_name, listed
from modeling_sere.training.corpora.strict_json import parse_json
from modeling_sere.training.errors import RunError, first_line

SEPARATED, JSON_LINES = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson", ".json")
MAX_TABLE_BYTES = 2**30  # a table is read whole
MAX_HEADER = 10_000  # characters of the first row
AS_UTF8 = "save the table as UTF-8 (in Excel, CSV UTF-8)"
# what a damaged or strange parquet file is answered with, beside pyarrow's own errors
DAMAGE = (OSError, ValueError, TypeError, AttributeError, ArithmeticError, LookupError, NotImplementedError)
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table: `columns` in their order, and of each row its number and its cells by column.

    Row numbers count the header of a CSV file as row 1, as a spreadsheet does. `decimal_comma`: numbers may be written
    as 1,5, since it is not commas that separate the cells. `foreign`: the text is in some old encoding, and only its
    ASCII can be relied on.
    """

    columns: list[str]
    rows: list[tuple[int, dict[str, Any]]]
    decimal_comma: bool = False
    foreign: bool = False


def read_rows(path: Path, title: str) -> Rows:
    """Read a table by the suffix of its file.

    Raises:
        RunError: the file is not what its suffix says; names the row.
    """
    kind = path.suffix.lower()
    if kind == ".parquet":
        return _read_parquet(path, title)
    data = _content(path, title)
    try:
        text = _decode(data)
    except UnicodeDecodeError as error:
        if kind in JSON_LINES:
            # the position does not count the mark of UTF-8 at the start
            line = data.removeprefix(codecs.BOM_UTF8).count(b"\n", 0, error.start) + 1
            raise RunError(f"{title}, line {line} is not in UTF-8: {AS_UTF8}") from error
        rows = _read_separated(data.removeprefix(codecs.BOM_UTF8).decode("latin-1"), title)
        return replace(rows, foreign=True)
    if "\0" in text[:MAX_HEADER]:
        raise RunError(f"{title} has NUL characters: {AS_UTF8}")
    return (_read_json if kind in JSON_LINES else _read_separated)(text, title)


def _content(path: Path, title: str) -> bytes:
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise RunError(f"{title} has more than {MAX_TABLE_BYTES >> 30} GB: no table of clips is that long")
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{title} cannot be read: {error.strerror}") from error


def _decode(data: bytes) -> str:
    """Return a text in UTF-8 or, if its first bytes say so, in UTF-16 as Excel saves "Unicode text"."""
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if marked else "utf-8-sig")


def _read_separated(text: str, title: str) -> Rows:
    separator, number, text = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    columns, rows = None, []
    try:
        for record in reader:
            number += 1
            if not any(cell.strip() for cell in record):  # spreadsheets leave empty rows
                continue
            if columns is None:
                columns = [clean_name(cell) for cell in record]
            elif any(cell.strip() for cell in record[len(columns) :]):
                raise RunError(
                    f"{title}, row {number}: {len(record)} cells, but the header has {len(columns)}: put cells with"
                    f" {SEPARATORS[separator]} in double quotes"
                )
            else:
                rows.append((number, dict(zip(columns, record, strict=False))))
    except csv.Error as error:
        raise RunError(f"{title}, row {number + 1} is not valid CSV: {error}") from error
    named = [column for column in columns or [] if column]
    if len(set(named)) < len(named):
        raise RunError(f"{title} has two columns of the same name: {listed(named)}")
    return Rows(named, rows, decimal_comma=separator != ",")


def _separator(text: str) -> tuple[str, int, str]:
    """Return what separates the cells, how many rows were read to know it, and the text after them."""
    if told := re.match(r"sep=([,;\t|])\r?\n", text, re.IGNORECASE):  # as Excel has it
        return told[1], 1, text[told.end() :]
    header = re.sub(r'"[^"]*"', "", text[:MAX_HEADER].lstrip("\r\n")).partition("\n")[0]
    return max(SEPARATORS, key=header.count), 0, text  # of equals the first


def _read_json(text: str, title: str) -> Rows:
    """Read one object per line, or one array of objects."""
    rows = []
    for number, value in _json_values(text, title):
        if not isinstance(value, dict):
            raise RunError(f"{title}, row {number}: expected a JSON object")
        row = {clean_name(key): cell for key, cell in value.items()}
        if len(row) < len(value):
            raise RunError(f"{title}, row {number}: two columns of the same name")
        rows.append((number, row))
    return Rows(list(dict.fromkeys(key for _, row in rows for key in row)), rows)


def _json_values(text: str, title: str) -> Iterator[tuple[int, Any]]:
    array = text.lstrip().startswith("[")
    for number, part in [(1, text)] if array else enumerate(text.split("\n"), 1):
        if part.strip():
            try:
                value = parse_json(part)
            except ValueError as error:
                raise RunError(f"{title}, row {number}: not JSON ({error})") from error
            yield from enumerate(value, 1) if array else [(number, value)]


def _read_parquet(path: Path, title: str) -> Rows:
    import pyarrow.parquet  # with `datasets`; slow to import

    try:
        table = pyarrow.parquet.read_table(path)
        names = _class_names(table.schema)
        columns = [name for name in table.column_names if not name.startswith("__index_level_")]
        cells = [table.column(name).to_pylist() for name in columns]
    except (*DAMAGE, pyarrow.ArrowException) as error:
        raise RunError(f"{title} cannot be read as parquet: {first_line(error)}") from error
    for column, values in zip(columns, cells, strict=True):
        if column in names:
            values[:] = [names[column][value] if value in range(len(names[column])) else None for value in values]
    columns = [clean_name(column) for column in columns]
    if len(set(columns)) < len(columns):
        raise RunError(f"{title} has two columns of the same name: {listed(columns)}")
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True))
    return Rows(columns, list(enumerate(rows, 1)))


def holds_audio(path: Path, title: str) -> bool:
    """Tell whether a parquet file has audio in a column, and not only names of files. Raises as `read_rows`."""
    import pyarrow.parquet  # with `datasets`; slow to import

    try:
        types = pyarrow.parquet.read_schema(path).types
    except (*DAMAGE, pyarrow.ArrowException) as error:
        raise RunError(f"{title} cannot be read as parquet: {first_line(error)}") from error
    parts = [{field.name for field in kind} for kind in types if pyarrow.types.is_struct(kind)]
    return any({"bytes", "path"} <= names or {"array", "sampling_rate"} <= names for names in parts) or any(
        pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind) for kind in types
    )


def _class_names(schema) -> dict[str, list[str]]:
    """Return the names of classes that `datasets` writes into a schema, by column."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    from datasets import ClassLabel, Features

    return {
        column: feature.names
        for column, feature in Features.from_arrow_schema(schema).items()
        if isinstance(feature, ClassLabel)
    }
