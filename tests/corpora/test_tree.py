"""Folders of audio files without a table."""

import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.errors import RunError

from .helpers import EMOTIONS, error_of, fill, labels_of


def tree(tmp_path, *levels, clips=2, texts=None):
    """A folder with all combinations of the levels' names, and some clips in each."""
    paths = [""]
    for level in levels:
        paths = [f"{path}{name}/" for path in paths for name in level]
    return fill(tmp_path / "set", [f"{path}{k}.wav" for path in paths for k in range(clips)], texts)


def test_a_bare_folder_is_an_unlabelled_target(tmp_path):
    hidden = {".DS_Store": "", "._a.wav": "x", "notes.txt": "", "sub/B.lab": "", "license": ""}
    root = fill(tmp_path / "set", ["a.wav", "sub/B.WAV", "c.Flac"], hidden)
    corpus = load_corpus(root, require_labels=False)
    assert corpus.names == ["a.wav", "c.Flac", "sub/B.WAV"]
    assert corpus.labels == corpus.speakers == [None] * 3
    assert (
        corpus.reading["files"] == "all 3 audio files of the folder; other files left out: .lab 1, .txt 1, no suffix 1"
    )
    assert "set has audio files, but nothing tells their emotions: put the clips of each emotion" in error_of(root)


@pytest.mark.parametrize(
    ("names", "emotions"),
    [
        (["anger", "sadness"], ["anger", "sadness"]),
        (["Angry", "SAD", "excited"], ["anger", "sadness", "excited"]),
        (["Wut", "Freude"], ["anger", "happiness"]),
        (["愤怒", "高兴"], ["anger", "happiness"]),
    ],
)
def test_a_folder_per_emotion(tmp_path, names, emotions):
    found = labels_of(tree(tmp_path, names))
    assert found == {f"{n}/{k}.wav": e for n, e in zip(names, emotions, strict=True) for k in range(2)}


def test_names_of_folders_can_be_mapped(tmp_path):
    root = tree(tmp_path, ["W", "F", "T"])
    message = error_of(root)
    assert "its folders (F, T, W) are not named after emotions" in message
    assert "--label_map 'F=?,T=?,W=?'" in message
    corpus = load_corpus(root, label_map={"W": "anger", "F": "happiness"})
    assert sorted(set(corpus.labels)) == ["anger", "happiness", "t"]
    assert load_corpus(root, label_column="folder1").labels[0] == "f"


@pytest.mark.parametrize("order", [(["anna", "ben"], EMOTIONS), (EMOTIONS, ["anna", "ben"])])
def test_speakers_beside_emotions(tmp_path, order):
    corpus = load_corpus(tree(tmp_path, ["wav"], *order))
    for clip in corpus.clips:
        assert {clip.label, clip.speaker} == set(clip.name.split("/")[1:3])
    assert corpus.reading["speakers"] in ("folder2: 2 (anna, ben)", "folder3: 2 (anna, ben)")


def test_folders_without_emotions_are_not_guessed_to_be_speakers(tmp_path):
    root = tree(tmp_path, ["Actor_01", "Actor_02"])
    corpus = load_corpus(root, require_labels=False)
    assert corpus.speakers == [None] * 4
    assert corpus.reading["not used"] == (
        "folder1 (Actor_01, Actor_02): if it is the speaker, say so with --speaker_column folder1"
    )
    asked = load_corpus(root, require_labels=False, speaker_column="folder1", label_column="mood")
    assert asked.speakers == ["Actor_01", "Actor_01", "Actor_02", "Actor_02"]
    assert "'folder2'" in error_of(root, require_labels=False, speaker_column="folder2")


def test_two_levels_beside_the_emotions_are_not_guessed(tmp_path):
    corpus = load_corpus(tree(tmp_path, ["anna", "ben"], EMOTIONS, ["normal", "strong"]))
    assert not corpus.has_speakers
    assert corpus.reading["not used"].startswith("folder1 (anna, ben), folder3 (normal, strong): ")
    assert load_corpus(tmp_path / "set", speaker_column="folder1").has_speakers


def test_a_folder_for_each_clip_is_no_speaker(tmp_path):
    paths = [f"{emotion}/{emotion}_{k}/audio.wav" for emotion in EMOTIONS for k in range(2)]
    assert load_corpus(fill(tmp_path / "set", paths)).speakers == [None] * 6


def test_files_beside_the_folders_of_emotions_are_unlabelled(tmp_path):
    root = tree(tmp_path, EMOTIONS)
    fill(root, ["x.wav"])
    corpus = load_corpus(root)
    assert corpus.labels.count(None) == 1 and "; 1 without" in corpus.reading["emotions"]


def test_splits_before_emotions(tmp_path):
    root = tree(tmp_path, ["train", "dev"], EMOTIONS)
    assert "set has the splits dev, train: choose one, a+b or all with --source_split or --target_split" in error_of(
        root
    )
    corpus = load_corpus(root, split="train")
    assert corpus.names[0] == "train/anger/0.wav" and len(corpus) == 6 and set(corpus.labels) == set(EMOTIONS)
    assert corpus.reading["split"] == "folder1: train, of dev 6, train 6"
    assert len(load_corpus(root, split="validation")) == 6  # as dev is called elsewhere
    assert len(load_corpus(root, split="train+dev")) == len(load_corpus(root, split="all")) == 12
    assert "no split 'test'" in error_of(root, split="test")


def test_a_single_split_need_not_be_named(tmp_path):
    corpus = load_corpus(tree(tmp_path, ["train"], EMOTIONS))
    assert len(corpus) == 6 and corpus.reading["split"] == "folder1: train, of train 6"


def test_a_split_that_is_not_there(tmp_path):
    assert "has no split 'train': leave it out" in error_of(tree(tmp_path, EMOTIONS), split="train")


def test_links_in_the_folder_are_followed(tmp_path):
    root = tree(tmp_path, ["anger", "sadness"])
    (root / "neutral").mkdir()
    (root / "neutral" / "x.wav").symlink_to("../anger/0.wav")
    (tmp_path / "alias").symlink_to(root)
    assert labels_of(tmp_path / "alias")["neutral/x.wav"] == "neutral"


def test_links_out_of_the_folder_need_the_flag(tmp_path):
    root = tree(tmp_path, ["anger", "sadness"])
    fill(tmp_path, ["x.wav"])
    (root / "anger" / "x.wav").symlink_to(tmp_path / "x.wav")
    message = error_of(root)
    assert message.startswith("set: anger/x.wav is a symbolic link out of the folder") and "--outside_files" in message
    assert len(load_corpus(root, outside_files=True)) == 5


def test_what_cannot_be_a_clip_is_one_sentence(tmp_path):
    root = tree(tmp_path, ["anger", "sadness"])
    os.mkfifo(root / "pipe.wav")
    assert "pipe.wav is not a file" in error_of(root)
    (root / "pipe.wav").unlink()
    (root / "gone.wav").symlink_to("nowhere.wav")
    assert "gone.wav does not exist" in error_of(root)
    (root / "gone.wav").unlink()
    (root / os.fsdecode(b"\xff.wav")).touch()
    assert r"the file name '\udcff.wav' is not in UTF-8: rename the file" in error_of(root)


folders = st.lists(
    st.sampled_from(["train", "dev", "anger", "Wut", "SAD", "anna", "ben", "é", "e\u0301", "?"]), max_size=3
)
files = st.sampled_from(["0.wav", "1.WAV", "._2.wav", "x.txt", "train.csv", "metadata.json"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(folders, files), max_size=8, unique_by=str), st.booleans(), st.none() | st.just("train"))
def test_any_folder_is_read_or_refused_in_one_line(tmp_path_factory, entries, labelled, split):
    root = tmp_path_factory.mktemp("any")
    paths = ["/".join([*inner, name]) for inner, name in entries]
    fill(root, texts=dict.fromkeys(paths, ""))
    try:
        corpus = load_corpus(root, require_labels=labelled, split=split)
    except RunError as error:
        assert str(error).isprintable()
    else:
        assert set(corpus.names) <= {path for path in paths if path.lower().endswith(".wav") and "._" not in path}
        assert not labelled or any(corpus.labels)
    shutil.rmtree(root)
