"""Tar archives in the layout of webdataset."""

import io
import json
import tarfile
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sere.audio_sere import read_audio
from modeling_sere.training.corpora.archive import _samples
from modeling_sere.training.corpora.corpus import Clip
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.errors import RunError

from .helpers import EMOTIONS, error_of, fill, wav


def tar(members: dict[str, bytes | str], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def unfinished(archive: bytes) -> bytes:
    """Without the blocks of zeros that end it."""
    while archive.endswith(bytes(512)):
        archive = archive[:-512]
    return archive


def shard(first: int, count: int = 3) -> bytes:
    members = {}
    for k in range(first, first + count):
        members[f"{k:04}.wav"] = wav(k)
        members[f"{k:04}.json"] = json.dumps({"emotion": EMOTIONS[k % 3], "speaker_id": k % 2, "more": [1]})
        members[f"{k:04}.txt"] = "ąę"
    return tar(members)


def test_archives(tmp_path):
    root = fill(tmp_path / "set", texts={"shard-0.tar": shard(0), "shard-1.tar": shard(3)})
    corpus = load_corpus(root)
    assert corpus.clips[4] == Clip(4, "shard-1.tar/0004.wav", "sadness", "0") and len(corpus) == 6
    assert corpus.reading["files"] == "6 audio files in shard-0.tar, shard-1.tar"
    clips = list(corpus.iter_audio([4, 0]))  # in any order
    for clip, content in zip(clips, (4, 0), strict=True):
        np.testing.assert_array_equal(clip.waveform, read_audio(wav(content)))
    assert load_corpus(root / "shard-1.tar").names == ["0003.wav", "0004.wav", "0005.wav"]


def test_splits_and_other_members(tmp_path):
    members = {
        "a/x.Flac.WAV": wav(0),
        "a/x.cls": "1\n",
        "a/._x.wav": b"",
        "a/y.mp3": b"bad",
        "a/y.pth": b"\xff",
        "b": "x",
    }
    root = fill(tmp_path / "set", texts={"train-0.tar": tar(members), "test-0.tar": shard(0)})
    assert "has the splits test, train" in error_of(root)
    corpus = load_corpus(root, split="train")
    assert corpus.names == ["a/x.Flac.WAV", "a/y.mp3"] and corpus.labels == ["1", None]
    assert [clip.error is None for clip in corpus.iter_audio()] == [True, False]


def test_several_audio_files_of_a_clip(tmp_path):
    root = fill(tmp_path / "set", texts={"x.tar": tar({"a.far.wav": wav(0), "a.near.wav": wav(1), "a.cls": "anger"})})
    assert "a has several audio files, far.wav, near.wav: choose by --audio_column" in error_of(root)
    corpus = load_corpus(root, audio_column="near.wav")
    np.testing.assert_array_equal(next(corpus.iter_audio()).waveform, read_audio(wav(1)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (shard(0)[:1024], "cannot be read as a tar archive (unexpected end of data)"),
        (unfinished(tar({"a.wav": wav(0), "a.cls": "x"})), "ends without its end mark: it was cut short"),
        (tar({"a.wav": wav(0)}, "w:gz"), "cannot be read as a tar archive"),
        (b"", "cannot be read as a tar archive"),
        (b"\0" * 10_240, "has no audio files"),
        (tar({"a.txt": "x"}), "has no audio files"),
        (tar({"a.wav": wav(0), "a.json": "{"}), "a.json: not JSON"),
        (tar({"a.wav": wav(0), "a.txt": "x"}), "no column named emotion or label, only txt"),
        (tar({"\udcff.wav": wav(0)}), "is not in UTF-8: rename the file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(tmp_path, content, message):
    assert message in error_of(fill(tmp_path / "set", texts={"x.tar": content}))


def test_links_and_devices_in_an_archive_are_no_clips(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind in (("a.wav", tarfile.SYMTYPE), ("b.wav", tarfile.LNKTYPE), ("c.wav", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hosts"
            archive.addfile(info)
        info = tarfile.TarInfo("d.wav")
        info.size = len(wav(0))
        archive.addfile(info, io.BytesIO(wav(0)))
    root = fill(tmp_path / "set", texts={"x.tar": file.getvalue()})
    assert load_corpus(root, require_labels=False).names == ["d.wav"]


WHOLE = shard(0)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=20), st.integers(0, len(WHOLE)))
def test_damaged_archives_are_read_or_refused_in_one_line(tmp_path_factory, place, change, length):
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes((WHOLE[:place] + change + WHOLE[place + len(change) :])[: max(length, place)])
    try:
        _samples("damaged.tar", path, "set")
    except RunError as error:
        assert str(error).isprintable()


def test_files_of_one_clip_in_different_unicode_forms(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "żółć") for form in ("NFC", "NFD"))
    members = {f"{composed}{k}.wav": wav(k) for k in range(2)}
    members |= {f"{decomposed}{k}.cls": emotion for k, emotion in enumerate(("anger", "fear"))}
    (tmp_path / "a.tar").write_bytes(tar(members))
    assert load_corpus(tmp_path / "a.tar").labels == ["anger", "fear"]
