"""Files are found in their folder, however their names are spelled, and nowhere else."""

import os
import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_sere.audio_sere import AudioError
from modeling_sere.training.corpora import files
from modeling_sere.training.corpora.files import Locator, OutsideError, locate_file, read_bytes, walk
from modeling_sere.training.errors import RunError

from .helpers import fill

NFC, NFD = (unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD"))


@pytest.fixture
def root(tmp_path):
    return fill(tmp_path / "set", ["a.wav", "sub/B.WAV", "sub/deep/c.wav"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.wav", "a.wav"), ("./a.wav", "a.wav"), ("sub//B.WAV", "sub/B.WAV"), ("A.wav", "a.wav"),
        ("sub\\b.wav", "sub/B.WAV"), ("SUB/Deep/C.Wav", "sub/deep/c.wav"), ("a\u200b.wav", "a.wav"),
        ("a", "a.wav"), ("sub/b", "sub/B.WAV"),
    ],
)  # fmt: skip
def test_names_lead_to_files(root, name, found):
    locate = Locator(root)
    assert locate(name)[0] == found
    assert bool(locate.respelled) == (os.path.normpath(name) != found)


@pytest.mark.parametrize(("given", "there"), [(NFC, NFD), (NFD, NFC)])
def test_either_unicode_form_is_found_in_the_other(tmp_path, given, there):
    root = fill(tmp_path / "set", [f"d{there}/{there}"])
    assert Locator(root)(f"d{given}/{given}")[0] == f"d{there}/{there}"


def test_the_very_name_goes_before_another_spelling(tmp_path):
    locate = Locator(fill(tmp_path / "set", [NFC, NFD, "A.wav", "a.wav"]))
    assert [locate(name)[0] for name in (NFC, NFD, "A.wav", "a.wav")] == [NFC, NFD, "A.wav", "a.wav"]
    assert locate.respelled == {}


def test_a_name_that_could_be_two_files_is_refused(tmp_path):
    locate = Locator(fill(tmp_path / "set", ["ab.wav", "AB.wav"]))
    for name in ("Ab.wav", "ab"):
        with pytest.raises(RunError, match=rf"here: {name} could be AB\.wav, ab\.wav: write it as the file is named"):
            locate_file(locate, name, "", lambda: "here")


@pytest.mark.parametrize(
    "name",
    ["/etc/hosts", "../x.wav", "sub/../../x.wav", "..\\x.wav", "C:\\x.wav", "\\\\host\\x", "out/x.wav", "link.wav"],
)
def test_nothing_outside_the_folder_is_found_unless_allowed(root, tmp_path, name):
    fill(tmp_path, ["x.wav", "away/x.wav"])
    (root / "out").symlink_to(tmp_path / "away")
    (root / "link.wav").symlink_to("../x.wav")
    with pytest.raises(OutsideError, match="--outside_files"):
        Locator(root)(name)
    if not set("\\:") & set(name):
        assert Locator(root, outside=True)(name)[0] == os.path.normpath(name)


def test_another_spelling_does_not_lead_outside(root, tmp_path):
    fill(tmp_path, ["x.wav"])
    (root / "Link.wav").symlink_to("../x.wav")
    with pytest.raises(OutsideError):
        Locator(root)("link.wav")


parts = st.sampled_from(["..", ".", "sub", "SUB", "a.wav", "out", "é", "\\", "\0", "/", "x" * 300])
paths = st.lists(parts).map("/".join)


@given(paths | st.text(max_size=8))
def test_any_name_is_in_the_folder_or_refused(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "any"
    if not root.exists():
        fill(root, ["a.wav", "sub/a.wav"])
        (root / "out").symlink_to("/etc")
    try:
        found = locate_file(Locator(root), name, "", lambda: "here")
    except RunError as error:
        assert str(error).isprintable()
    else:
        assert found in ("a.wav", "sub/a.wav")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is empty"),
        ("z.wav", "z.wav does not exist"),
        ("a\0.wav", r"'a\x00.wav' does not exist"),
        ("sub", "is not a file"),
        ("a.wav/b", "does not exist"),
        ("pipe", "is not a file"),
        ("x" * 300, "cannot be reached"),
    ],
)
def test_what_is_no_file_is_told(root, name, message):
    os.mkfifo(root / "pipe")
    with pytest.raises(RunError) as caught:
        locate_file(Locator(root), name, "", lambda: "row 7")
    assert str(caught.value).startswith("row 7: ") and message in str(caught.value)


# All files of a folder


def test_walk_leaves_out_what_is_hidden(root):
    fill(root, [".DS_Store", "._a.wav", "sub/._B.WAV", ".git/x.wav", "__MACOSX/a.wav"])
    assert list(walk(root)) == ["a.wav", "sub/B.WAV", "sub/deep/c.wav"]


def test_walk_follows_links_in_the_folder_once(root, tmp_path):
    (root / "again").symlink_to("sub")
    (root / "sub" / "circle").symlink_to("..")
    (root / "self").symlink_to("self")
    assert list(walk(root)) == ["a.wav", "self", "sub/B.WAV", "sub/deep/c.wav"]
    (root / ".hidden").mkdir()
    (root / ".hidden" / "d.wav").touch()
    (root / "shown").symlink_to(".hidden")
    assert list(walk(root))[-1] == "shown/d.wav"


def test_walk_does_not_leave_the_folder_unless_allowed(root, tmp_path):
    fill(tmp_path / "away", ["x.wav"])
    (root / "out").symlink_to(tmp_path / "away")
    with pytest.raises(RunError, match=r"^set: out is a symbolic link out of the folder"):
        list(walk(root))
    assert "out/x.wav" in list(walk(root, outside=True))


def test_walk_goes_to_any_depth(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(24):  # of more letters than a path may have
        os.mkdir("deep" * 50, dir_fd=folder)
        inner = os.open("deep" * 50, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    with pytest.raises(RunError, match=r"cannot be looked into \(File name too long\)"):
        list(walk(tmp_path))
    subprocess.run(["rm", "-rf", tmp_path / ("deep" * 50)], check=True)  # too deep for what removes folders in Python


# Their bytes


def test_files_that_cannot_be_read(root, monkeypatch):
    with pytest.raises(AudioError, match=r"^a cannot be read \(No such file"):
        read_bytes(str(root / "gone.wav"), "a")
    with open(root / "hole.wav", "wb") as file:
        file.truncate(20 * 2**30)
    with pytest.raises(AudioError, match=r"^hole\.wav has 20\.0 GB, more than the 2 GB that are read: cut it"):
        read_bytes(str(root / "hole.wav"), "hole.wav")

    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "open", broken, raising=False)
    with pytest.raises(AudioError, match=r"^a\.wav cannot be read \(Input/output error\)"):  # as in a bad sector
        read_bytes(str(root / "a.wav"), "a.wav")
