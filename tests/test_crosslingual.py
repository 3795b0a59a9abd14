import json

import pytest

import train_sere
from benchmarks import crosslingual
from benchmarks.command import place_and_split, run_in_processes
from benchmarks.experiment import read
from testing.corpora import write_corpus


def in_this_process(function, tasks) -> list[dict]:
    return [row for task in tasks for row in function(task)]


def run(main, *flags):
    """Run a command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["command", *map(str, flags)])
        patch.setattr(crosslingual, "run_in_processes", in_this_process)
        main()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two corpora, and the benchmark's rows on them: {(source, setting, ids, method, labels, draw): row}."""
    place = tmp_path_factory.mktemp("crosslingual")
    for seed, name in enumerate(("one", "two")):
        write_corpus(place / name, clips=6, speakers=4, seed=seed)
    run(
        crosslingual.main, "--corpora", place / "one", place / "two", "--shots", 3, "--draws", "0-1",
        "--methods", "sere,sere-no-prior,sere-enrol-5,ridge,ridge+prior+balance", "--setting", "both",
        "--cache_dir", place / "cache", "--json", place / "rows.json",
    )  # fmt: skip
    return place


def test_tasks_are_spread_over_processes():
    """Rows of a task that fresh processes do, in the order of the tasks."""
    assert run_in_processes(json.loads, ['[{"row": 1}]', '[{"row": 2}, {"row": 3}]']) == [{"row": k} for k in (1, 2, 3)]


def test_rows_are_complete(place):
    content = json.loads((place / "rows.json").read_text())
    fields = "source target draw shots method setting speaker_ids labels uar war macro_f1".split()
    assert all(list(row) == fields for row in content["rows"])
    found = {
        (row["source"], row["setting"], row["speaker_ids"], row["method"], row["labels"], row["draw"])
        for row in content["rows"]
    }  # noqa: E501
    assert len(found) == len(content["rows"])
    transductive = {
        ("sere", "shots"),
        ("sere", "all"),
        ("sere-no-prior", "shots"),
        ("ridge", "shots"),
        ("ridge", "all"),
        ("ridge+prior+balance", "shots"),
    }  # noqa: E501
    for source in ("one", "two"):
        for ids in (True, False):
            for draw in (0, 1):
                in_setting = {(s, i): set() for s in ("transductive", "inductive") for i in (True, False)}
                for row in content["rows"]:
                    if row["source"] == source and row["draw"] == draw:
                        in_setting[row["setting"], row["speaker_ids"]].add((row["method"], row["labels"]))
                assert in_setting["transductive", ids] == transductive
                assert in_setting["inductive", ids] == transductive | {("sere-enrol-5", "shots")}
    assert content["meta"]["corpora"] == ["one", "two"]


def test_same_figure_as_the_training_script(place, tmp_path):
    run(
        train_sere.main, "--source", place / "one", "--target", place / "two", "--shots", 3, "--seed", 1, "--draws", 1,
        "--speaker_ids", True, "--cache_dir", place / "cache", "--output_dir", tmp_path / "out",
    )  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (row,) = (
        row
        for row in json.loads((place / "rows.json").read_text())["rows"]
        if (row["source"], row["draw"], row["method"], row["labels"], row["setting"], row["speaker_ids"])
        == ("one", 1, "sere", "shots", "transductive", True)
    )
    assert row["uar"] == pytest.approx(results["uar"], abs=1e-3)
    assert row["war"] == pytest.approx(results["war"], abs=1e-3)


def test_unknown_method_is_refused(capsys):
    with pytest.raises(SystemExit):
        run(crosslingual.main, "--corpora", "a", "b", "--methods", "magic")
    assert "magic is unknown" in capsys.readouterr().err


def test_corpora_are_named_with_their_split(tmp_path):
    write_corpus(tmp_path / "set", clips=1)
    (tmp_path / "set" / "metadata.csv").rename(tmp_path / "set" / "dev.csv")
    (tmp_path / "set" / "test.csv").write_text("file_name,emotion\nanger_0_0.wav,anger\n")
    corpora = [read(f"{tmp_path / 'set'}:{split}", False) for split in ("dev", "test")]
    assert [(corpus.name, len(corpus)) for corpus in corpora] == [("dev", 6), ("test", 1)]
    assert place_and_split("amu-cai/CAMEO:nemo") == ("amu-cai/CAMEO", "nemo", "nemo")
    (tmp_path / "a:b").mkdir()
    assert place_and_split(str(tmp_path / "a:b")) == (str(tmp_path / "a:b"), None, "a:b")
