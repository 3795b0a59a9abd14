"""A file of answers, CSV or JSON Lines, that is written bit by bit and can be gone on with after a kill."""

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modeling_sere.training.errors import RunError, writing
from modeling_sere.training.reporting.predictions import as_cell

ROOM = "free some space, then add --resume"


class AnswerFile:
    """The output of `modeling_sere.predict`.

    Rows go to `<name>.partial`. Beside it `<name>.progress` tells of what they are and how far they are whole, so that
    a run that was killed while it wrote goes on where it was. The file appears under its name when all is written.

    Attributes:
        done: recordings that are answered.

    Args:
        columns: of a table; JSON Lines take what a row has. identity: all that decides the answers.

    Raises:
        RunError: the suffix is unknown, the file or a part of it is there already, or that part is of other answers.
    """

    def __init__(self, path: Path, columns: list[str], identity: Mapping[str, Any], resume: bool):
        self.path, self.columns = path, columns
        self.partial, self.progress = (path.with_name(f"{path.name}.{end}") for end in ("partial", "progress"))
        self.identity = _identity_digest(identity)
        self.is_table = path.suffix.lower() == ".csv"
        self.done, size = 0, None
        if self.partial.exists() or self.progress.exists():
            if not resume:
                raise RunError(f"{self.partial} is there from a run that broke off: add --resume, or delete it")
            self.done, size = self._begun()
        with writing(str(path), "give another --output"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.partial, "r+b" if size is not None else "wb")
            self._file.truncate(size or 0)
            self._file.seek(0, os.SEEK_END)
            if size is None and self.is_table:
                self._file.write(_csv([columns]))
            self._keep()

    def _begun(self) -> tuple[int, int | None]:
        """Return the recordings and bytes that are whole; no bytes where nothing was written yet."""
        try:
            state = json.loads(self.progress.read_text(encoding="utf-8"))
            identity, done, size = state["identity"], int(state["done"]), int(state["bytes"])
        except FileNotFoundError:
            return 0, None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(f"{self.progress} cannot be read: delete it and {self.partial}, and begin anew") from error
        if identity != self.identity:
            raise RunError(
                f"{self.partial} is of another model, other recordings or other flags: --resume with those, or delete"
                f" it and {self.progress.name}"
            )
        if not self.partial.exists() or self.partial.stat().st_size < size:
            raise RunError(f"{self.partial} has lost what was written to it: delete it and {self.progress}")
        return done, size

    def add(self, rows: Iterable[Mapping[str, Any]], answered: int) -> None:
        """Write the rows of this many recordings. Raises RunError: the disk is full."""
        with writing(str(self.partial), ROOM):
            if self.is_table:
                self._file.write(_csv([as_cell(row.get(column)) for column in self.columns] for row in rows))
            else:
                lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
                self._file.write("".join(f"{line}\n" for line in lines).encode())
            self.done += answered
            self._keep()

    def _keep(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        state = {"identity": self.identity, "done": self.done, "bytes": self._file.tell()}
        half = self.progress.with_name(f"{self.progress.name}.half")
        half.write_text(json.dumps(state), encoding="utf-8")
        os.replace(half, self.progress)

    def close(self, whole: bool) -> None:
        """Close the file, and give it its name if it is `whole`."""
        with writing(str(self.path), ROOM):
            self._file.close()
            if whole:
                os.replace(self.partial, self.path)
                self.progress.unlink()


def _csv(rows: Iterable[list[str]]) -> bytes:
    lines = _Lines()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return "".join(lines).encode()


class _Lines(list):
    """A file for `csv` that keeps the lines."""

    write = list.append


def _identity_digest(identity: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()
