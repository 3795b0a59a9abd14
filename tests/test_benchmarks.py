"""The benchmark commands that are not crosslingual.py: each runs in this process on two tiny corpora."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import calibration, command, confusion, pools, shots, tric
from benchmarks.experiment import score
from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.reporting import metrics
from testing.corpora import write_corpus


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("benchmarks")
    for seed, name in enumerate(("one", "two")):
        write_corpus(place / name, clips=6, speakers=4, seed=seed)
    return place


@pytest.fixture
def measure(place, tmp_path, monkeypatch, capsys):
    """(benchmark, flags) -> the rows in its JSON file and what it printed, all in this process."""

    def measure(benchmark, *flags):
        common = "--corpora", place / "one", place / "two", "--cache_dir", place / "cache", "--json", tmp_path / "rows"
        monkeypatch.setattr("sys.argv", [benchmark.__name__, *map(str, common), *map(str, flags)])
        monkeypatch.setattr(benchmark, "run_in_processes", in_this_process)
        benchmark.main()
        return json.loads((tmp_path / "rows").read_text())["rows"], capsys.readouterr().out

    return measure


def in_this_process(function, tasks) -> list[dict]:
    return [row for task in tasks for row in function(task)]


def picture(path):
    """Its size, if there is something on it."""
    with Image.open(path) as image:
        assert np.asarray(image.convert("L")).std() > 5
        return image.size


def test_scores_are_those_of_the_metrics():
    random = np.random.default_rng(0)
    references = np.r_[random.integers(4, size=50), [0, 1, 3]]
    references[references == 2] = 3  # a class without references
    predictions = random.integers(5, size=len(references))
    expected = metrics.score(predictions, references, list("abcde"))
    assert score(predictions, references) == pytest.approx({key: expected[key] for key in ("uar", "war", "macro_f1")})


def test_shots(measure, tmp_path):
    rows, printed = measure(shots, "--shots", 0, 2, 3, "--draws", "0-1", "--figure", tmp_path / "shots.png")
    assert {row["shots"] for row in rows} == {0, 2, 3} and {row["draw"] for row in rows} == {0, 1}
    assert {row["method"] for row in rows if row["shots"] == 0} == {"sere"}  # all others need a label
    assert {row["method"] for row in rows if row["shots"] == 2} == set(shots.METHODS)
    sere = [100 * row["uar"] for row in rows if (row["method"], row["labels"], row["shots"], row["speaker_ids"])
            == ("sere", "shots", 2, True)]  # fmt: skip
    assert f"{np.mean(sere):.1f} +- " in printed and "ridge, all labels" in printed
    assert picture(tmp_path / "shots.png")[0] > picture(tmp_path / "shots.png")[1]


def test_too_many_shots_are_refused_in_a_sentence(measure):
    with pytest.raises(SystemExit, match="ask for fewer shots"):
        measure(shots, "--shots", 500)


def test_confusion(measure, tmp_path):
    rows, printed = measure(confusion, "--shots", 3, "--draws", "0-1", "--figures", tmp_path)
    assert len(rows) == 4 and all(np.sum(row["confusion"]) == 72 for row in rows)
    assert "one" in printed and "most often taken for" in printed
    for name in ("one", "two"):
        picture(tmp_path / f"confusion-{name}.png")


def test_confusion_adds_up_over_sources_with_other_emotions():
    rows = [
        {"target": "x", "draw": draw, "emotions": ["anger", "fear"], "confusion": [[4, 1], [2, 3]]} for draw in (0, 1)
    ]
    rows += [
        {"target": "x", "draw": draw, "emotions": ["anger", "sadness"], "confusion": [[5, 0], [1, 4]]}
        for draw in (0, 1)
    ]
    emotions, total = confusion.matrix(rows, "x")
    assert emotions == ["anger", "fear", "sadness"]
    assert total.tolist() == [[9, 1, 0], [2, 3, 0], [1, 0, 4]]


def test_pools(measure, tmp_path):
    rows, printed = measure(pools, "--shots", 3, "--draws", 0, "--figure", tmp_path / "pools.png")
    assert {row["study"] for row in rows} == {"size", "skew"}  # of three emotions none can be spared
    assert {row["value"] for row in rows if row["study"] == "size"} == {"20", "50"}
    assert {row["method"] for row in rows} == set(pools.METHODS)
    assert "size: UAR %" in printed
    picture(tmp_path / "pools.png")


def test_pools_with_foreign_emotions(measure, tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "FOREIGN_EMOTIONS", 1)
    monkeypatch.setattr(pools, "STUDIES", {"foreign": pools.STUDIES["foreign"]})
    rows, printed = measure(pools, "--shots", 3, "--draws", 0)
    assert {row["value"] for row in rows} == {"0", "0.2", "0.4", "0.6"}
    assert all(0 <= row["auroc"] <= 1 for row in rows if "auroc" in row) and "AUROC" in printed


def test_samples_of_a_pool():
    random = np.random.default_rng(0)
    references = np.repeat([0, 1, 2, 3], 50)
    assert len(set(pools.sized(references, 20, random))) == 20
    assert pools.sized(references, 1000, random) is None
    even = pools.skewed(references, float("inf"), random)
    assert np.bincount(references[even]).tolist() == [25, 25, 25, 25]
    uneven = np.bincount(references[pools.skewed(references, 0.5, random)], minlength=4)
    assert uneven.max() > 2 * uneven.min() and uneven.sum() <= 100
    references[references >= 2] = UNLABELLED
    chosen = pools.mixed(references, 0.4, random)
    assert (references[chosen] == UNLABELLED).mean() == pytest.approx(0.4, abs=0.02)


def test_calibration(measure, tmp_path):
    rows, printed = measure(calibration, "--shots", 3, "--draws", 0, "--figure", tmp_path / "reliability.png")
    assert {row["way"] for row in rows} == set(calibration.WAYS)
    best, none = (np.mean([row["nll"] for row in rows if row["way"] == way]) for way in ("best there is", "none"))
    assert best < none and all(0 <= row["ece"] <= 1 for row in rows) and "speaker ids" in printed
    picture(tmp_path / "reliability.png")


def test_tric(measure):
    rows, printed = measure(tric, "--shots", 3, "--draws", 0)
    assert {row["idea"] for row in rows} == set(tric.IDEAS) and len(rows) == 2 * len(tric.IDEAS)
    assert len({row["uar_field"] for row in rows if row["source"] == "one"}) == 1  # all are paired with one field
    assert all(0 <= row["uar"] <= 1 for row in rows) and printed.count("+-") == len(tric.IDEAS)


def test_trained_gains_do_not_stay(measure, monkeypatch):
    """Each idea starts from the same embedding."""
    seen = []
    monkeypatch.setattr(tric, "with_chain", lambda task, organised: seen.append(log_gain(task)) or 0.0)
    monkeypatch.setattr(tric, "IDEAS", ("gains", "chain"))
    measure(tric, "--shots", 3, "--draws", "0-1", "--ideas", "gains", "chain")
    assert len(seen) == 4 and not any(gain.any() for gain in seen)


def log_gain(task) -> torch.Tensor:
    return task.adaptation.model.sere.embedding.log_gain.detach().clone()


def test_seeds():
    assert command._seeds("3") == [3] and command._seeds("0-2") == [0, 1, 2]
    with pytest.raises(command.argparse.ArgumentTypeError, match="0-9"):
        command._seeds("some")


def test_document_puts_a_run_into_its_block(tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text("# Title\n<!-- one -->\nold\n<!-- end -->\ntext\n<!-- two -->\nkept\n<!-- end -->\n")
    flags = ["--corpora", "/home/ana/emodb/", "/home/ana/emovo", "--draws", "0-9", "--document", "one"]
    monkeypatch.setattr("sys.argv", ["/somewhere/shots.py", *flags])
    versions = {"torch": "2", "transformers": "5", "numpy": "1"}
    facts = {"command": command.command_line(), "date": "2026-01-02", "versions": versions, "seconds": 125}
    command.document(page, "one", "\nmethod 61.0\n", facts)
    command.document(page, "one", "\nmethod 62.0\n", facts)  # a later run replaces an earlier one
    text = page.read_text()
    assert text.startswith("# Title\n<!-- one -->\n") and text.endswith("<!-- two -->\nkept\n<!-- end -->\n")
    assert "python -m benchmarks.shots --corpora emodb emovo --draws 0-9\n" in text and "2 min" in text
    assert "method 62.0" in text and "61.0" not in text and "old" not in text and "ana" not in text
    with pytest.raises(SystemExit, match="no block"):
        command.document(page, "three", "", facts)
