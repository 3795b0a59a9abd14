"""The output folder appears only when it is whole, and nobody's files are lost."""

import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.errors import RunError
from modeling_sere.training.reporting import outputs
from modeling_sere.training.reporting.outputs import save_results, table
from modeling_sere.training.running import run_folder
from modeling_sere.training.running.run_folder import OutputFolder


@pytest.fixture
def make(tmp_path):
    """An OutputFolder for tmp_path/run."""

    def make(**options) -> OutputFolder:
        return OutputFolder(SereArguments(**{"output_dir": str(tmp_path / "run"), **options}))

    return make


def finish(folder: OutputFolder, content: str = "{}"):
    folder.open()
    (folder.result / "results.json").write_text(content)
    folder.publish()
    folder.close()


def unfinished(folder: OutputFolder):
    folder.open()
    folder.checkpoint.mkdir()
    (folder.checkpoint / "step.txt").write_text("50")


def test_folder_appears_only_when_whole(make, tmp_path):
    folder = make()
    assert list(tmp_path.iterdir()) == []
    folder.open()
    assert [path.name for path in tmp_path.iterdir()] == ["run.partial"]
    folder.checkpoint.mkdir()
    (folder.result / "results.json").write_text("{}")
    folder.publish()
    folder.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in folder.final.iterdir()] == ["results.json"]


def test_parents_are_made_and_an_empty_folder_is_used(make, tmp_path):
    finish(make(output_dir=str(tmp_path / "a" / "b")))
    assert (tmp_path / "a" / "b" / "results.json").is_file()
    (tmp_path / "empty").mkdir()
    finish(make(output_dir=str(tmp_path / "empty")))
    assert (tmp_path / "empty" / "results.json").is_file()


def test_finished_run_is_not_replaced_unless_asked_for(make):
    finish(make(), "1")
    with pytest.raises(RunError, match=r"already holds a run.*--overwrite_output_dir"):
        make()
    folder = make(overwrite_output_dir=True)
    folder.open()
    assert (folder.final / "results.json").read_text() == "1"  # until the new one is whole
    (folder.result / "results.json").write_text("2")
    folder.publish()
    folder.close()
    assert (folder.final / "results.json").read_text() == "2"


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_of_other_files_is_never_replaced(make, tmp_path, overwrite):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="not of a run"):
        make(overwrite_output_dir=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_current_folder_and_files_are_refused(make, tmp_path, monkeypatch, overwrite):
    (tmp_path / "note.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="not of a run"):
        make(output_dir=".", overwrite_output_dir=overwrite)
    with pytest.raises(RunError, match="is a file"):
        make(output_dir="note.txt", overwrite_output_dir=overwrite)
    with pytest.raises(RunError, match="mounted"):
        make(output_dir="/", overwrite_output_dir=overwrite)


def test_folder_that_cannot_be_made(make, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="--output_dir"):
        make(output_dir=str(tmp_path / "file" / "run")).open()


def test_unfinished_run_must_be_resumed_or_replaced(make):
    unfinished(make())
    with pytest.raises(RunError, match=r"run\.partial is an unfinished run: add --resume"):
        make()
    folder = make(resume=True)
    folder.open()
    assert (folder.checkpoint / "step.txt").read_text() == "50"
    folder = make(overwrite_output_dir=True)
    folder.open()
    assert not folder.checkpoint.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_resume_with_other_arguments(make, overwrite):
    unfinished(make())
    with pytest.raises(RunError, match="other arguments"):
        make(resume=True, seed=1, overwrite_output_dir=overwrite)
    assert make(resume=True, report_to="none", cache_dir="elsewhere", overwrite_output_dir=overwrite).resume


def test_resume_without_the_run_s_state(make):
    unfinished(make())
    (make(resume=True).partial / run_folder.STATE).write_text("{half")
    with pytest.raises(RunError, match="other arguments"):
        make(resume=True)


def test_resume_of_nothing_is_a_new_run(make):
    folder = make(resume=True)
    folder.open()
    assert folder.partial.is_dir()


def test_results_are_plain_json(tmp_path):
    results = {"uar": np.float32(0.5), "confusion": np.eye(2, dtype=int), "name": "zażółć"}
    save_results(results, tmp_path)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert "zażółć" in text
    assert json.loads(text) == {"uar": 0.5, "confusion": [[1, 0], [0, 1]], "name": "zażółć"}


RUN = {
    "source": "a", "target": "b", "shots": 5, "seed": 0, "source_free": False, "setting": "inductive",
    "speaker_ids": True, "chance": 0.25, "skipped_clips": [],
}  # fmt: skip


def test_table_of_a_scored_run():
    scores = {"uar": 0.612, "uar_before": 0.5, "uar_prototype": 0.4, "uar_single_clip": 0.6}
    spread = {"seeds": [0, 1], "uar": [0.6, 0.7], "uar_mean": 0.65, "uar_std": 0.05}
    text = table(RUN | scores | {"spread": spread})
    assert all(part in text for part in ("a -> b", "inductive", "speaker ids: yes", "65.0 +- 5.0"))
    assert all(f"{percent:.1f} % UAR" in text for percent in (61.2, 50, 40, 60, 25))


def test_table_of_a_run_without_labels():
    text = table(RUN | outputs.NOT_SCORED)
    assert "no labels" in text
    assert "25.0 % UAR" in text


def test_table_of_a_run_without_source_data():
    text = table(RUN | outputs.NOT_SCORED | {"source": None, "source_free": True, "seed": None})
    assert text.startswith("unknown source -> b, 5 shots per emotion, source-free, inductive")


def test_table_tells_what_makes_a_score_dishonest():
    shared = {"same_audio_in_both": ["x.wav", "y.wav"], "shots_in_target": ["y.wav"], "skipped_clips": [{}]}
    text = table(RUN | outputs.NOT_SCORED | shared)
    assert "the audio of 2 clips of the target is in the source too, that of 1 as a shot" in text
    assert "unusable: 1 clip, named in results.json" in text
    assert "NOT ANOTHER" not in table(RUN | outputs.NOT_SCORED | {"same_audio_in_both": [], "shots_in_target": []})
    carried = RUN | outputs.NOT_SCORED | {"source_free": True, "source": "b"}
    assert "the labelled clips in the model come from b too" in table(carried)
    assert "NOT ANOTHER" not in table(carried | {"source": "a"})


class Killed(BaseException):
    """Takes the place of a signal: nothing handles it."""


@pytest.fixture(params=["first files first", "last files first"])
def kill(monkeypatch, request):
    """(n) -> the n-th change to the disk from now on is left half done, as by a kill."""

    def kill(n: int):
        changes = itertools.count()

        def dying(change, half=lambda *_: None):
            def changed(*arguments, **options):
                if next(changes) == n:
                    half(*arguments)
                    raise Killed
                return change(*arguments, **options)

            return changed

        def half_deleted(folder):
            files = sorted((path for path in folder.rglob("*") if path.is_file()), reverse="last" in request.param)
            for path in files[: (len(files) + 1) // 2]:
                os.remove(path)

        def half_written(path, text):
            with open(path, "w") as file:
                file.write(text[: len(text) // 2])

        for name in ("mkdir", "rename", "replace", "unlink", "rmdir"):
            monkeypatch.setattr(Path, name, dying(getattr(Path, name)))
        monkeypatch.setattr(Path, "write_text", dying(Path.write_text, half_written))
        monkeypatch.setattr(run_folder.shutil, "rmtree", dying(shutil.rmtree, half_deleted))

    yield kill
    monkeypatch.undo()


def work(folder: OutputFolder, content: str):
    """What train_sere.py does with its folder."""
    if not folder.published:
        folder.open()
        folder.checkpoint.mkdir(exist_ok=True)
        for place in ("checkpoint/0", "checkpoint/1", "result/model.safetensors", "result/results.json"):
            with open(folder.partial / place, "w") as file:
                file.write(content)
        folder.publish()
    folder.close()


@pytest.mark.parametrize("before", ["nothing", "a finished run", "an unfinished run"])
def test_run_killed_at_any_change_to_the_disk_is_resumed(make, kill, monkeypatch, tmp_path, before):
    options = {"overwrite_output_dir": before != "nothing"}
    for n in itertools.count():
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        if before == "a finished run":
            work(make(seed=1), "old")
        elif before == "an unfinished run":
            unfinished(make(seed=1))
        folder = make(**options)
        kill(n)
        try:
            work(folder, "new")
        except Killed:
            monkeypatch.undo()
        else:
            monkeypatch.undo()
            break
        standing = [path.read_text() for path in tmp_path.rglob("results.json")]
        assert before != "a finished run" or {"old", "new"} & set(standing), n
        try:
            resumed = make(resume=True, **options)
        except RunError as error:
            if "other arguments" in str(error):  # the kill came before the other run was touched
                assert n == 0 and (folder.checkpoint / "step.txt").is_file()
                continue
            assert not list(folder.partial.iterdir())  # all was done but for the last, empty folder
        else:
            if not resumed.published:
                resumed.open()
                kept = {path.read_text() for path in resumed.checkpoint.glob("*")}
                assert kept <= {"new"}, n  # never another run's state
            work(resumed, "new")
            assert [path.name for path in tmp_path.iterdir()] == ["run"]
        files = {path.name: path.read_text() for path in folder.final.iterdir()}
        assert files == {"model.safetensors": "new", "results.json": "new"}
    assert n > 6
