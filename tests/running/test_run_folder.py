"""The output folder appears only when it is whole, and nobody's files are lost."""

import itertools
import json
import os
import shutil
from pathlib import Path

import pytest

from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.errors import RunError
from modeling_sere.training.running import marker, run_folder
from modeling_sere.training.running.marker import HALF_MARKER, MARKER
from modeling_sere.training.running.run_folder import OutputFolder


@pytest.fixture
def make(tmp_path):
    """(**options) -> an OutputFolder for tmp_path/run, claimed as by a process of its own."""
    opened = []

    def make(**options) -> OutputFolder:
        for folder in opened:  # the process before has ended, and its locks with it
            folder.lock.release()
        folder = OutputFolder(SereArguments(**{"output_dir": str(tmp_path / "run"), **options}))
        opened.append(folder)
        folder.claim()
        return folder

    yield make
    for folder in opened:
        folder.lock.release()


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def put(folder: OutputFolder, content: str):
    """What a run saves."""
    (folder.result / "results.json").write_text(content)
    (folder.result / "plots").mkdir(exist_ok=True)
    (folder.result / "plots" / "confusion.png").write_text(content)


def finish(folder: OutputFolder, content: str = "{}"):
    folder.open()
    put(folder, content)
    folder.publish()
    folder.close()


def unfinished(folder: OutputFolder):
    folder.open()
    (folder.checkpoint / "50").mkdir(parents=True)
    (folder.checkpoint / "50" / "optimizer.bin").write_text("50")


def everything(folder: Path) -> dict[str, str]:
    """All files in a folder but locks, with their content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith("-lock"))
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_folder_appears_only_when_whole(make, tmp_path):
    folder = make()
    assert visible(tmp_path) == []
    folder.open()
    assert visible(tmp_path) == ["run.partial"] and MARKER in visible(folder.partial)
    unfinished(folder)
    put(folder, "{}")
    folder.publish()
    folder.close()
    folder.lock.release()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert visible(folder.final) == ["plots", "results.json", MARKER]


def test_parents_are_made_and_an_empty_folder_is_used(make, tmp_path):
    finish(make(output_dir=str(tmp_path / "a" / "b")))
    assert (tmp_path / "a" / "b" / "results.json").is_file()
    (tmp_path / "empty").mkdir()
    finish(make(output_dir=str(tmp_path / "empty")))
    assert (tmp_path / "empty" / "results.json").is_file()


def test_nothing_is_left_of_a_run_that_was_refused(tmp_path):
    with OutputFolder(SereArguments(output_dir=str(tmp_path / "a" / "b" / "run"))) as folder:
        folder.claim()
        assert folder.lock.path.exists()
    assert list(tmp_path.iterdir()) == []


def test_finished_run_is_not_replaced_unless_asked_for(make):
    finish(make(), "1")
    with pytest.raises(RunError, match=r"already holds a run of this command: .*--overwrite_output_dir"):
        make()
    with pytest.raises(RunError, match=r"already holds a run of other arguments \(--seed\): "):
        make(seed=1)
    folder = make(overwrite_output_dir=True)
    folder.open()
    assert (folder.final / "results.json").read_text() == "1"  # until the new one is whole
    put(folder, "2")
    folder.publish()
    folder.close()
    assert (folder.final / "results.json").read_text() == "2"
    assert not folder.partial.exists()


def test_resume_of_a_finished_run_has_nothing_left_to_do(make):
    finish(make(), '{"uar": 0.5}')
    assert make(resume=True).published and make(resume=True, overwrite_output_dir=True).published
    with pytest.raises(RunError, match=r"already holds a run of other arguments \(--shots\) \(50.0 % UAR\)"):
        make(resume=True, shots=3)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["thesis.tex", "results.json", "run_state.json", ".git/config", "sere_run.json"])
@pytest.mark.parametrize("place", ["run", "run.partial"])
def test_folder_without_our_marker_is_never_touched(make, tmp_path, place, name, overwrite):
    """Not with another program's results.json, nor as the working folder, nor with another file of our name."""
    (tmp_path / place / name).parent.mkdir(parents=True)
    (tmp_path / place / name).write_text('{"uar": 1}')
    (tmp_path / place / "thesis.tex").write_text("mine")
    before = everything(tmp_path)
    for resume in (False, True):
        with pytest.raises(RunError, match=rf"{place}( holds files that are not of a run| has no|/{MARKER} cannot)"):
            make(overwrite_output_dir=overwrite, resume=resume)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("change", ["more", "changed", "link", "folder"])
def test_run_with_other_files_in_it_is_not_replaced(make, tmp_path, change):
    finish(make(), "old")
    final = tmp_path / "run"
    if change == "more":
        (final / ".git").mkdir()
        (final / ".git" / "config").write_text("mine")
    elif change == "changed":
        (final / "results.json").write_text("with notes of mine")
    elif change == "link":
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "confusion.png").write_text("old")
        (final / "plots" / "confusion.png").unlink()
        (final / "plots").rmdir()
        (final / "plots").symlink_to(tmp_path / "mine")
    else:
        (final / "notes").mkdir()
    before = everything(tmp_path)
    with pytest.raises(RunError, match=r"did not write, or that were changed since \(.*(git|results|plots|notes)"):
        make(overwrite_output_dir=True)
    assert everything(tmp_path) == before


def test_files_that_come_while_a_run_goes_on_stay(make, tmp_path):
    finish(make(), "old")
    folder = make(overwrite_output_dir=True)
    folder.open()
    put(folder, "new")
    (folder.final / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"The result is whole in .*result, and stays there: .*thesis\.tex"):
        folder.publish()
    assert (folder.final / "thesis.tex").read_text() == "mine"
    assert (folder.final / "results.json").read_text() == "old" and (folder.result / "results.json").exists()
    (folder.final / "thesis.tex").unlink()
    folder.publish()
    folder.close()
    assert (folder.final / "results.json").read_text() == "new"


def test_folder_that_comes_while_a_run_goes_on_stays(make):
    folder = make()
    folder.open()
    put(folder, "new")
    folder.final.mkdir()
    (folder.final / "results.json").write_text("mine")
    with pytest.raises(RunError, match=r"The result is whole in .*result, and stays there: .* has no sere_run\.json"):
        folder.publish()
    assert (folder.final / "results.json").read_text() == "mine"
    assert (folder.result / "results.json").read_text() == "new"


@pytest.mark.parametrize("place", ["thesis.tex", "result/thesis.tex", "checkpoint/50/thesis.tex", "mine/thesis.tex"])
def test_files_in_the_working_folder_stay(make, place, caplog):
    """Whether the run comes to its end or is replaced by another one."""
    unfinished(make())
    folder = make(resume=True)
    (folder.partial / place).parent.mkdir(exist_ok=True)
    (folder.partial / place).write_text("mine")
    with pytest.raises(RunError, match=rf"holds files that no run writes \({place}\)"):
        make(overwrite_output_dir=True)
    folder = make(resume=True)
    finish(folder, "new")
    if place.startswith("result"):
        assert (folder.final / "thesis.tex").read_text() == "mine"
        with pytest.raises(RunError, match=r"did not write, or .*thesis\.tex"):
            make(overwrite_output_dir=True)
    else:
        assert "stays, as it holds files that no run writes" in caplog.text
        assert everything(folder.partial) == {place: "mine"}


def test_two_runs_at_once(make, tmp_path):
    """The second is told of the first, whatever its flags, and its end changes nothing."""
    with OutputFolder(SereArguments(output_dir=str(tmp_path / "run"))) as first:
        first.claim()
        for options in ({}, {"overwrite_output_dir": True}, {"resume": True}):
            with pytest.raises(RunError, match=r"run is in use by another run \(process \d+ on .*\): wait for its end"):
                make(**options)
        first.open()
        with pytest.raises(RunError, match="in use"):
            make(resume=True)
        put(first, "first")
        first.publish()
        first.close()
    assert make(resume=True).published


@pytest.mark.parametrize("overwrite", [False, True])
def test_current_folder_and_files_are_refused(make, tmp_path, monkeypatch, overwrite):
    (tmp_path / "note.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    for output, message in (
        (".", "not of a run"),
        ("note.txt", "is a file"),
        ("/", "mounted"),
        ("a.partial", "where an unfinished run would lie"),
        ("a\0b", "cannot be used"),
        ("x" * 300, "File name too long"),
        ("note.txt/run", "--output_dir"),
    ):
        with pytest.raises(RunError, match=message):
            make(output_dir=output, overwrite_output_dir=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_unfinished_run_must_be_resumed_or_replaced(make):
    unfinished(make())
    with pytest.raises(RunError, match=r"run\.partial is an unfinished run: add --resume"):
        make()
    folder = make(resume=True)
    folder.open()
    assert (folder.checkpoint / "50" / "optimizer.bin").read_text() == "50"
    folder = make(overwrite_output_dir=True)
    folder.open()
    assert not folder.checkpoint.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_resume_with_other_arguments(make, overwrite):
    unfinished(make())
    with pytest.raises(RunError, match=r"made with other arguments \(--seed\)"):
        make(resume=True, seed=1, overwrite_output_dir=overwrite)
    assert make(resume=True, report_to="none", cache_dir="elsewhere", overwrite_output_dir=overwrite).resume


def test_resume_with_other_clips(make):
    made = {"target": {"clips": 5, "digest": "a"}, "source": {"clips": 3, "digest": "b"}, "model": "c"}
    make().open(made)
    make(resume=True).open(made)
    for side, other, message in (
        ("target", {"clips": 3, "digest": "z"}, r"clips of the target \(5 then, 3 now\)"),
        ("source", {"clips": 3, "digest": "z"}, r"clips of the source \(content, labels, people or order\)"),
        ("model", "z", "weights or configuration to start from"),
    ):
        with pytest.raises(RunError, match=f"was made with other {message}: resume with those, or delete it"):
            make(resume=True).open(made | {side: other})


@pytest.mark.parametrize("content", ["{half", "[]", "{}", '{"kind": 1}', "[" * 10_000, '{"identity": {}, "files": 3}'])
def test_damaged_marker_is_one_sentence(make, content):
    unfinished(make())
    (make(resume=True).partial / MARKER).write_text(content)
    for options in ({}, {"resume": True}, {"overwrite_output_dir": True}):
        with pytest.raises(RunError, match=rf"{MARKER} cannot be used .*so nothing is removed") as caught:
            make(**options)
        assert "\n" not in str(caught.value)


def test_marker_of_strangers_leads_nowhere(make, tmp_path):
    """What it lists is removed only where it lies, as it is, in the folder itself."""
    finish(make(), "old")
    (tmp_path / "mine").write_text("old")
    values = json.loads((tmp_path / "run" / MARKER).read_text())
    values["files"]["../mine"] = values["files"]["results.json"]
    (tmp_path / "run" / MARKER).write_text(json.dumps(values))
    finish(make(overwrite_output_dir=True), "new")
    assert (tmp_path / "mine").read_text() == "old"


def test_resume_of_nothing_is_a_new_run(make):
    folder = make(resume=True)
    folder.open()
    assert folder.partial.is_dir() and not folder.published


def test_free_name(make, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    unnamed = {"output_dir": None, "source": "some/english", "target": "me/zażółć 3.csv"}
    first = make(**unnamed)
    assert first.final == tmp_path / "out" / "english-zażółć-3"
    finish(first, '{"uar": 0.25}')
    second = make(**unnamed)
    assert second.final.name == "english-zażółć-3-2"
    assert "already holds a run of this command (25.0 % UAR): this run takes another name." in caplog.text
    unfinished(second)
    with pytest.raises(RunError, match=r"-2\.partial is an unfinished run: add --resume"):
        make(**unnamed)
    assert make(**unnamed, seed=1).final.name == "english-zażółć-3-3"
    assert make(**unnamed, resume=True).published  # the first of this command is whole
    shutil.rmtree(first.final)
    assert make(**unnamed, overwrite_output_dir=True).final == first.final


def test_free_name_beside_a_run_that_goes_on(make, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    with OutputFolder(SereArguments()) as first:
        first.claim()
        assert first.final == tmp_path / "out" / "english-polish"
        assert make().final == tmp_path / "run"
        assert make(output_dir=None).final == tmp_path / "out" / "english-polish-2"
    assert "english-polish is in use by another run" in caplog.text


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

        def in_order(entries):
            return lambda folder: sorted(entries(folder), reverse="last" in request.param)

        def half_written(path, text):
            with open(path, "w") as file:
                file.write(text[: len(text) // 2])

        for name in ("mkdir", "rename", "replace", "unlink", "rmdir"):
            monkeypatch.setattr(Path, name, dying(getattr(Path, name)))
        monkeypatch.setattr(Path, "write_text", dying(Path.write_text, half_written))
        monkeypatch.setattr(marker.os, "rmdir", dying(os.rmdir))
        monkeypatch.setattr(marker, "entries", in_order(marker.entries))
        monkeypatch.setattr(run_folder, "entries", in_order(run_folder.entries))

    yield kill
    monkeypatch.undo()


def work(folder: OutputFolder, content: str):
    """What train_sere.py does with its folder."""
    if not folder.published:
        folder.open()
        places = "checkpoint/1/model.safetensors", "checkpoint/1/digests.json", "result/model.safetensors"
        for place in (*places, "result/results.json"):
            (folder.partial / place).parent.mkdir(parents=True, exist_ok=True)
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
        except RunError as error:  # the kill came before the other run was touched
            assert "other arguments" in str(error) and n <= 3, (n, error)
            assert (folder.checkpoint / "50" / "optimizer.bin").is_file()
            continue
        if not resumed.published:
            resumed.open()
            kept = {path.read_text() for path in resumed.checkpoint.rglob("*") if path.is_file()}
            assert kept <= {"new"}, n  # never another run's state
        work(resumed, "new")
        resumed.lock.release()
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
        files = everything(folder.final)
        assert MARKER in files and HALF_MARKER not in files
        assert {name: files[name] for name in files if name != MARKER} == {
            "model.safetensors": "new", "results.json": "new"
        }  # fmt: skip
    assert n > 6
