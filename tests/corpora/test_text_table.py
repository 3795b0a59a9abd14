"""Tables that strangers wrote: CSV with any separator, JSON Lines, JSON, parquet."""

import csv
import io
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modeling_sere.training.corpora.names import clean_name
from modeling_sere.training.corpora.text_table import holds_audio, read_rows
from modeling_sere.training.errors import RunError


@pytest.fixture
def read(tmp_path):
    """(content, suffix=".csv") -> what `read_rows` makes of a file with this content."""

    def read(content: str | bytes, suffix: str = ".csv"):
        (tmp_path / f"table{suffix}").write_bytes(content.encode() if isinstance(content, str) else content)
        return read_rows(tmp_path / f"table{suffix}", "table")

    return read


ROWS = [(2, {"file": "a.wav", "emotion": "Wut"}), (3, {"file": "b.wav", "emotion": "żal"})]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_ends_of_lines_and_encodings(read, separator, end, encoding):
    text = end.join(["file;emotion", "a.wav;Wut", "", '"b.wav";żal', ";"]).replace(";", separator)
    table = read(text.encode(encoding), ".tsv" if separator == "\t" else ".csv")
    assert table.columns == ["file", "emotion"] and table.rows[0] == ROWS[0]
    assert table.rows[1][1] == ROWS[1][1] and len(table.rows) == 2
    assert table.decimal_comma == (separator != ",")


def test_the_line_that_excel_puts_first(read):
    table = read('sep=;\r\nfile;emotion\r\na.wav;"x;y"\r\n')
    assert (table.columns, table.rows) == (["file", "emotion"], [(3, {"file": "a.wav", "emotion": "x;y"})])


def test_names_of_columns_lose_what_nobody_sees(read):
    assert read("\ufeff File  Name\u200b ,e\u0301\na,b\n").columns == ["File Name", "é"]


def test_quotes_short_rows_and_cells_beyond_the_header(read):
    rows = read('file,"who",emotion,\n"a.wav","Doe, ""J""",anger,,\n\nb.wav\n').rows
    assert rows == [(2, {"file": "a.wav", "who": 'Doe, "J"', "emotion": "anger", "": ""}), (4, {"file": "b.wav"})]


def test_blanks_after_separators(read):
    assert read('file, emotion\n"a.wav", "x, y"\n').rows == [(2, {"file": "a.wav", "emotion": "x, y"})]


def test_an_old_encoding_is_read_as_far_as_it_is_ascii(read):
    table = read("file;Größe\na.wav;1\n".encode("latin-1"))
    assert table.foreign and table.columns[0] == "file" and table.rows == [(2, {"file": "a.wav", "Größe": "1"})]
    assert not read("file;Größe\na.wav;1\n").foreign


def test_json_lines_and_json(read):
    objects = [{"file": "a.wav", "n": 1}, {"file": "b.wav", "e": None}]
    lines = read("\n".join(map(json.dumps, objects)) + "\n\n", ".jsonl")
    assert lines.columns == ["file", "n", "e"] and lines.rows == [(1, objects[0]), (2, objects[1])]
    assert read(json.dumps(objects, indent=1), ".json") == lines


def test_parquet(tmp_path):
    table = datasets.Dataset.from_dict({"file": ["a.wav", "b.wav"], "emotion": [1, -1], "n": [1.5, None]})
    table.cast_column("emotion", datasets.ClassLabel(names=["fear", "anger"])).to_parquet(tmp_path / "x.parquet")
    found = read_rows(tmp_path / "x.parquet", "table")
    assert found.columns == ["file", "emotion", "n"]
    assert found.rows == [
        (1, {"file": "a.wav", "emotion": "anger", "n": 1.5}), (2, {"file": "b.wav", "emotion": None, "n": None})
    ]  # fmt: skip
    assert not holds_audio(tmp_path / "x.parquet", "table")


@pytest.mark.parametrize(
    "column", [[{"bytes": b"x", "path": None}], [b"x"], [{"array": [0.0], "sampling_rate": 16000}]]
)
def test_parquet_with_audio_is_told_from_a_table(tmp_path, column):
    pq.write_table(pa.table({"sound": column}), tmp_path / "x.parquet")
    assert holds_audio(tmp_path / "x.parquet", "table")


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        ("file,e\na,b,x\n", ".csv", "row 2: 3 cells, but the header has 2: put cells with commas in double quotes"),
        ("file;e\na;b;x\n", ".csv", "put cells with semicolons in double quotes"),
        ('file,e\na,b\n"c,d\n', ".csv", "row 3 is not valid CSV"),
        ('"file"x,e\na,b\n', ".csv", "row 1 is not valid CSV"),
        (f"file,e\na,{'x' * 200_000}\n", ".csv", "row 2 is not valid CSV"),
        ("file,e,e\na,b,c\n", ".csv", "two columns of the same name: file, e, e"),
        ("file,e\u0301,é\na,b,c\n", ".csv", "two columns of the same name"),
        ("file,e\na,b\n".encode("utf-16")[2:], ".csv", "NUL characters: save the table as UTF-8"),
        (b"PAR0", ".parquet", "cannot be read as parquet"),
        ('{"file": "a"}\n[1]\n', ".jsonl", "row 2: expected a JSON object"),
        ('{"file": "a"}\n{"file"\n', ".jsonl", "row 2: not JSON"),
        ('{"file": "a"}\n\xff'.encode("latin-1"), ".jsonl", "line 2 is not in UTF-8"),
        ('{"file": "\\ud800"}\n', ".jsonl", "row 1: not JSON ('utf-8' codec can't encode"),
        ('{"file": ' + "[" * 100_000, ".jsonl", "row 1: not JSON (it is nested too deeply)"),
        ('{"file": ' + "9" * 5_000 + "}", ".jsonl", "row 1: not JSON (Exceeds the limit"),
        ('{"file": "a", "file": "b"}', ".jsonl", "row 1: not JSON (the key 'file' occurs twice)"),
        ('{"file": "a", "file ": "b"}', ".jsonl", "row 1: two columns of the same name"),
        ("[1]", ".json", "row 1: expected a JSON object"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(read, content, suffix, message):
    with pytest.raises(RunError) as caught:
        read(content, suffix)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_table_without_end_is_refused(tmp_path):
    with open(tmp_path / "x.csv", "wb") as file:
        file.truncate(20 * 2**30)  # of holes
    with pytest.raises(RunError, match="more than 1 GB"):
        read_rows(tmp_path / "x.csv", "table")


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, cells), max_size=4), st.sampled_from(",;\t|"), st.sampled_from(["utf-8", "utf-16"]))
@example([('"\n', ",")], ",", "utf-8")
def test_any_cells_survive(tmp_path_factory, rows, separator, encoding):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([("one", "two"), *rows])
    path.write_bytes(text.getvalue().encode(encoding))
    found = read_rows(path, "table")
    cells = [tuple(cell.lstrip(" ") for cell in row.values()) for _, row in found.rows]
    assert cells == [tuple(cell.lstrip(" ") for cell in row) for row in rows if any(cell.strip() for cell in row)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(cells, st.none() | cells | st.integers() | st.floats() | st.lists(cells)), max_size=4))
def test_any_objects_survive(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    try:
        found = read_rows(path, "table")
    except RunError as error:
        assert "same name" in str(error)  # after cleaning
        return
    assert repr([row for _, row in found.rows]) == repr(
        [{clean_name(key): cell for key, cell in row.items()} for row in rows]
    )


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40) | cells.map(str.encode), st.sampled_from([".csv", ".jsonl", ".json", ".parquet"]))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"bytes{suffix}"
    path.write_bytes(content)
    try:
        read_rows(path, "table")
    except RunError as error:
        assert str(error).isprintable()
