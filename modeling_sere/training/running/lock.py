"""The lock on an output folder for the life of a run: two runs never write to one folder at the same time.

The lock is one of the operating system on an open file, not the file's existence: it goes with the process that holds
it, however that ends, and who gets its number later does not matter. What a file server on the network makes of such
locks is its own affair (docs/safety.md): two machines can then be in one folder at once.
"""

import errno
import logging
import os
import socket
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

from modeling_sere.training.errors import RunError, writing

logger = logging.getLogger(__name__)

# what a file system without locks answers with
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
MAX_HOLDER = 200  # characters of what the holder of a lock says of itself


class InUseError(RunError):
    """Another run holds the lock."""


class FolderLock:
    """A lock on the folder `final`, in a hidden file beside it that is there while a run holds the lock.

    The file of a run that was killed is taken over by the next one.
    """

    def __init__(self, final: Path):
        self.final, self.path = final, final.parent / f".{final.name}.sere-lock"
        self._file: int | None = None
        self._made: list[Path] = []  # folders above it that were not there, the innermost first

    def acquire(self) -> None:
        """Take the lock, with the folders above if they are missing.

        Raises:
            InUseError: another run holds it.
            RunError: no file can be made there.
        """
        with writing(f"The lock {self.path}", "give another --output_dir"):
            missing = [folder for folder in self.path.parents if not folder.exists()]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._made = self._made or missing
            while self._file is None:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    self._lock(file)
                    if not _is_at(file, self.path):  # its holder has removed it meanwhile
                        os.close(file)
                        continue
                    self._file = file
                except BaseException:
                    os.close(file)
                    raise
            os.truncate(self._file, 0)
            os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def release(self) -> None:
        """Give the lock back, and remove what it needed."""
        if self._file is None:
            return
        try:
            self.path.unlink(missing_ok=True)
            for folder in self._made:
                folder.rmdir()
        except OSError:
            pass  # a folder in which there is something by now; or no right to it any more, and the lock goes anyhow
        os.close(self._file)
        self._file = None

    def _lock(self, file: int) -> None:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                os.lseek(file, MAX_HOLDER, os.SEEK_SET)  # beyond what others may read
                msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in NO_LOCKS:
                logger.warning(
                    "%s lies where no locks are (%s): start no second run to it.", self.final, error.strerror
                )
                return
            if error.errno not in TAKEN:
                raise
            holder = os.pread(file, MAX_HOLDER, 0).decode(errors="replace") or "another process"
            raise InUseError(
                f"{self.final} is in use by another run ({holder}): wait for its end, or give another --output_dir."
            ) from error


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
