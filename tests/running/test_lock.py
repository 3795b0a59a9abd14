"""The lock on an output folder: one run at a time, and a dead one holds nothing."""

import errno
import multiprocessing
import os
import sys

import pytest

from modeling_sere.training.errors import RunError
from modeling_sere.training.running import lock
from modeling_sere.training.running.lock import FolderLock, InUseError


def test_one_at_a_time(tmp_path):
    first, second = FolderLock(tmp_path / "run"), FolderLock(tmp_path / "run")
    first.acquire()
    with pytest.raises(InUseError, match=rf"run is in use by another run \(process {os.getpid()} on .+\): wait for"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
    second.release()  # once more changes nothing
    assert list(tmp_path.iterdir()) == []


def test_folders_above_are_made_and_go_again_unless_they_are_used(tmp_path):
    for used in (False, True):
        own = FolderLock(tmp_path / "a" / "b" / "run")
        own.acquire()
        if used:
            (tmp_path / "a" / "b" / "run").mkdir()
        own.release()
        assert (tmp_path / "a" / "b").exists() == used
    assert (tmp_path / "a" / "b" / "run").exists()


@pytest.mark.parametrize(
    "left",
    [b"", b"process 1 on here", b"process %d on here" % os.getpid(), b"\xff" * 300],
    ids=["empty", "another", "reused", "garbage"],
)
def test_file_of_a_dead_process_is_taken_over(tmp_path, left):
    """Whoever has its number now: process 1 and our own are alive."""
    own = FolderLock(tmp_path / "run")
    own.path.write_bytes(left)
    own.acquire()
    with pytest.raises(InUseError, match=f"process {os.getpid()} on"):
        FolderLock(tmp_path / "run").acquire()
    own.release()


def _hold(path, held):
    FolderLock(path).acquire()
    held.set()
    multiprocessing.Event().wait()


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_killed_process_holds_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "run", held))
    process.start()
    assert held.wait(60)
    own = FolderLock(tmp_path / "run")
    with pytest.raises(InUseError, match=f"process {process.pid} on"):
        own.acquire()
    process.kill()
    process.join()
    own.acquire()
    own.release()
    assert list(tmp_path.iterdir()) == []


def test_file_that_its_holder_removes_meanwhile(tmp_path, monkeypatch):
    """Else two could hold locks on two files of one name."""
    own, original = FolderLock(tmp_path / "run"), FolderLock._lock

    def removed(self, file):
        original(self, file)
        monkeypatch.undo()
        self.path.unlink()

    monkeypatch.setattr(FolderLock, "_lock", removed)
    own.acquire()
    with pytest.raises(InUseError):
        FolderLock(tmp_path / "run").acquire()
    own.release()


@pytest.mark.skipif(lock.fcntl is None, reason="another lock on Windows")
def test_file_system_without_locks_is_told_and_other_errors_end(tmp_path, monkeypatch, caplog):
    for number, told in ((errno.ENOLCK, True), (errno.EIO, False)):
        error = OSError(number, os.strerror(number))
        monkeypatch.setattr(lock.fcntl, "flock", lambda *_, error=error: (_ for _ in ()).throw(error))
        own = FolderLock(tmp_path / "run")
        if told:
            own.acquire()
            assert "lies where no locks are" in caplog.text
            own.release()
        else:
            with pytest.raises(RunError, match=r"The lock .* cannot be written \(Input/output error\)"):
                own.acquire()
