"""The marker of a run: any file in its place is read or refused in one sentence, and names only what it may."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_sere.training.errors import RunError
from modeling_sere.training.running.marker import (
    KIND,
    MARKER,
    Marker,
    entries,
    file_digest,
    foreign,
    prune,
    read_marker,
    remove,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
markers = st.fixed_dictionaries(
    {"kind": st.just(KIND), "format": st.just(1) | values},
    optional={"identity": values, "files": values, "emptying": values},
).map(lambda marker: json.dumps(marker).encode())
unshared = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@unshared
@given(st.binary(max_size=60) | markers | st.just(b"[" * 100_000) | st.just(b"9" * 5000))
def test_any_bytes_are_a_marker_or_one_sentence(tmp_path, content):
    (tmp_path / MARKER).write_bytes(content)
    try:
        marker = read_marker(tmp_path)
    except RunError as error:
        assert "\n" not in str(error) and str(error).startswith(f"{tmp_path / MARKER} cannot be used (")
    else:
        assert isinstance(marker.identity, dict) and isinstance(marker.files, dict)
        assert foreign(tmp_path, marker.files) == []


@unshared
@given(
    st.dictionaries(st.text(max_size=5), values, max_size=3),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    st.booleans(),
)
def test_what_is_written_is_read(tmp_path, identity, files, emptying):
    marker = Marker(identity, files, emptying)
    marker.write(tmp_path)
    assert read_marker(tmp_path) == marker and [path.name for path in tmp_path.iterdir()] == [MARKER]


def test_no_marker(tmp_path):
    assert read_marker(tmp_path) is None and read_marker(tmp_path / "missing") is None


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_file_is_no_marker(tmp_path, kind):
    Marker({}).write(tmp_path)
    (tmp_path / MARKER).rename(tmp_path / "other")
    if kind == "link":
        (tmp_path / MARKER).symlink_to(tmp_path / "other")
    elif kind == "folder":
        (tmp_path / MARKER).mkdir()
    elif not hasattr(os, "mkfifo"):
        pytest.skip("makes a pipe")
    else:
        os.mkfifo(tmp_path / MARKER)
    with pytest.raises(RunError, match="it is not the file of a run"):
        read_marker(tmp_path)


def test_only_what_is_listed_and_unchanged_is_removed(tmp_path):
    for name in ("a", "b", "c/d", "c/mine", "e/f/g"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    files = {name: file_digest(tmp_path / name) for name in ("a", "b", "c/d", "e/f/g")} | {"link": "x", "gone": "x"}
    (tmp_path / "b").write_text("changed")
    others = foreign(tmp_path, files)
    assert sorted(others) == ["b", "c/mine", "empty/", "link"]
    remove(tmp_path, [name for name in entries(tmp_path) if name not in others])
    prune(tmp_path / "e")
    assert sorted(entries(tmp_path)) == ["b", "c/mine", "empty/", "link"]
