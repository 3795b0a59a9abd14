"""The same seed gives the same run: in another process, with other numbers of readers, beside another run."""

import json
from pathlib import Path

import pytest

from modeling_sere.training.corpora import corpus
from testing import runs
from testing.corpora import write_corpus
from testing.forked import Forked, linux_only


@pytest.fixture
def start(tmp_path):
    """(name, cache="cache", before=None, **options) -> a run in a process of its own, into the folder of that name."""
    corpora = {name: write_corpus(tmp_path / name, seed=seed) for seed, name in enumerate(("source", "target"))}

    def start(name: str, cache: str = "cache", before=None, **options) -> Forked:
        places = {"output_dir": tmp_path / name, "cache_dir": tmp_path / cache}
        flags = {"shots": 2, "draws": 2, "report_to": "none"} | corpora | places | options
        with open(tmp_path / f"{name}.txt", "w") as stderr:
            return Forked(runs.command(**flags), runs.environment(tmp_path / "hf"), None, stderr, before)

    return start


@pytest.fixture
def run(start, tmp_path):
    """The same, run to its end -> the output folder."""

    def run(name: str, *arguments, **options) -> Path:
        assert start(name, *arguments, **options).wait() == 0, (tmp_path / f"{name}.txt").read_text()
        return tmp_path / name

    return run


def one_reader():
    corpus.DECODING_THREADS = corpus.PREFETCHED_CLIPS = 1


def two_readers():
    corpus.DECODING_THREADS, corpus.PREFETCHED_CLIPS = 2, 8


@linux_only
def test_same_run_with_one_and_with_two_readers(run):
    one, two = run("one", "cache of one", one_reader), run("two", "cache of two", two_readers)
    assert runs.differences(one, two) == []
    assert runs.results(run("other", seed=1))["shot_files"] != runs.results(one)["shot_files"]


@linux_only
def test_two_runs_share_a_cache_at_once(start, run, tmp_path):
    """Both begin with an empty cache, encode the same clips, and end with what a run alone gives."""
    pair = start("first"), start("second")
    assert [process.wait() for process in pair] == [0, 0]
    first, second = tmp_path / "first", tmp_path / "second"
    alone = run("alone", "another cache")
    assert runs.differences(first, alone) == runs.differences(second, alone) == []
    assert not list((tmp_path / "cache").rglob("*.partial"))
    assert runs.differences(run("third"), alone) == []  # from what the two have left


def test_differences_are_seen(tmp_path):
    """What the tests above rest on."""
    for name, uar in (("one", 0.5), ("two", 0.5 + 2e-6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"uar": uar, "seconds": {}, "shot_files": [name]}))
        (tmp_path / name / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    found = runs.differences(tmp_path / "one", tmp_path / "two")
    assert len(found) == 2 and "uar" in found[0] and "shot_files" in found[1]
