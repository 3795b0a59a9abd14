"""Reading a corpus from wherever it is."""

import itertools
import os
import shutil
import time
from pathlib import Path

import pytest

from modeling_sere.training.corpora.loading import load_corpus

from .helpers import error_of, fill

CORPORA = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"


@pytest.mark.parametrize(
    "name",
    ["nowhere", "a folder that does not exist", "./nowhere", "~/no/where", "a/b/c", "C:\\x", "mine/", "", "x\0y",
     "x" * 5000, "~nobody-at-all/x", "../x", "http://127.0.0.1/x"],
)  # fmt: skip
def test_what_does_not_exist_is_not_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setattr("datasets.get_dataset_split_names", lambda *_, **__: pytest.fail("asked"))
    assert "does not exist: give a folder, a file, or a dataset on the Hub by its id, owner/name" in error_of(name)


def test_a_name_that_could_be_of_the_hub_is_asked_there(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("Couldn't reach the Hub\nTraceback ...")

    monkeypatch.setattr("datasets.get_dataset_split_names", refuse)
    message = "there is no folder org/set here, and as a dataset on the Hub it cannot be loaded: Couldn't reach the Hub"
    assert error_of("org/set") == message


def test_links_to_a_folder_and_relative_paths(folder, tmp_path, monkeypatch):
    root = folder("file_name,emotion\na.wav,anger\nlink.wav,fear\n")
    (root / "link.wav").symlink_to("sub/c.wav")
    (tmp_path / "alias").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    for source in ("alias", "corpus/", root, "corpus/metadata.csv"):
        corpus = load_corpus(source)
        assert corpus.name == "corpus" and len({clip.key for clip in corpus.iter_audio()}) == 2
    monkeypatch.chdir(root)
    assert load_corpus(".").name == "corpus"


def test_20000_clips_in_a_second(tmp_path):
    names = [f"{i % 100}/{i}.wav" for i in range(20_000)]
    for part in range(100):
        (tmp_path / str(part)).mkdir()
    for name in names:
        os.close(os.open(tmp_path / name, os.O_CREAT))
    seconds = []
    for table in (False, True):
        if table:
            rows = (f"{name},anger,s{i % 50},de\n" for i, name in enumerate(names))
            (tmp_path / "metadata.csv").write_text("file_name,emotion,speaker,language\n" + "".join(rows))
        start = time.process_time()
        corpus = load_corpus(tmp_path, require_labels=table)
        seconds.append(time.process_time() - start)  # of this process: others share the machine
        assert len(corpus) == 20_000
    shutil.rmtree(tmp_path)
    assert max(seconds) < 1


def test_30000_clips_of_the_same_files_in_seconds(tmp_path):
    fill(tmp_path / "set", [f"{k}.wav" for k in range(10)])
    rows = (f"{k % 10}.wav,{k / 2},{k / 2 + 0.4},anger,s{k % 10}\n" for k in range(30_000))
    (tmp_path / "set" / "metadata.csv").write_text("file_name,start,end,emotion,speaker\n" + "".join(rows))
    start = time.process_time()
    corpus = load_corpus(tmp_path / "set")
    clips = list(corpus.iter_audio())
    assert time.process_time() - start < 5
    assert len(corpus) == len(clips) == 30_000


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the real corpora are not beside the repository")
@pytest.mark.parametrize(("name", "language", "clips"), [("emodb", "de", 535), ("emovo", "it", 588)])
def test_real_corpora(name, language, clips):
    corpus = load_corpus(CORPORA / name)
    assert (corpus.name, corpus.language, len(corpus)) == (name, language, clips)
    assert corpus.has_speakers and not corpus.relabelled and not corpus.notes
    decoded = list(itertools.islice(corpus.iter_audio(), 5))
    assert all(clip.error is None and len(clip.waveform) > 16000 for clip in decoded)
