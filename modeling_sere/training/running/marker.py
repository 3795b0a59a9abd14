"""The marker of a run: by this file a folder is known to be one of ours, and which of its files are.

It is the first file in the folder of a run. Nothing is ever removed from a folder without it, nor anything that it does
not list, nor what has been changed since.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modeling_sere.training.errors import RunError, first_line

MARKER, HALF_MARKER = "sere_run.json", "sere_run.json.partial"
KIND = "folder of a run of train_sere.py, which replaces or removes only the files that are listed here"
FORMAT = 1
MAX_BYTES = 2**24


@dataclass
class Marker:
    """Facts about a run that its folder keeps.

    identity: what makes it this run and no other (`running.identity`). files: {name: digest} of a finished run.
    emptying: whether an earlier run's files are being removed, so that what lies there is of no use to this one.
    """

    identity: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    emptying: bool = False

    def write(self, folder: Path) -> None:
        """Put the marker into a folder, whole or not at all. Raises OSError."""
        values = {"kind": KIND, "format": FORMAT, "identity": self.identity, "files": self.files}
        text = json.dumps(values | {"emptying": self.emptying}, indent=1)
        (folder / HALF_MARKER).write_text(text)
        (folder / HALF_MARKER).replace(folder / MARKER)


def read_marker(folder: Path) -> Marker | None:
    """Return the marker in a folder, None where there is none.

    Raises:
        RunError: a marker that cannot be read, is damaged, or of another version of SERE.
    """
    path = folder / MARKER
    if not os.path.lexists(path):
        return None
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise ValueError("it is not the file of a run")
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("kind") != KIND or values.get("format") != FORMAT:
            raise ValueError("it is of another version, or of no run")
        marker = Marker(values["identity"], values["files"], values["emptying"])
        if not isinstance(marker.identity, dict) or not isinstance(marker.emptying, bool):
            raise ValueError("it is damaged")
        if not all(isinstance(part, str) for pair in marker.files.items() for part in pair):
            raise ValueError("it is damaged")
    except (OSError, ValueError, LookupError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise RunError(
            f"{path} cannot be used ({reason}), so nothing is removed or replaced there: give another --output_dir, or"
            " look through that folder and delete it yourself."
        ) from error
    return marker


def entries(folder: Path) -> Iterator[str]:
    """Give the names of all files and links in a folder, and of empty folders with a / at their end, at any depth."""
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        for name in sorted(files + links):
            yield Path(root, name).relative_to(folder).as_posix()
        if not folders and not files and Path(root) != folder:
            yield Path(root).relative_to(folder).as_posix() + "/"


def foreign(folder: Path, files: dict[str, str]) -> list[str]:
    """Return what is in the folder of a run beside its marker and the `files` that it wrote, as it wrote them."""
    return [
        name for name in entries(folder)
        if name not in (MARKER, HALF_MARKER) and (name not in files or file_digest(folder / name) != files[name])
    ]  # fmt: skip


def remove(folder: Path, names: list[str]) -> None:
    """Remove these files of a folder, of the names that `entries` gives; empty folders are left. Raises OSError."""
    for name in names:
        if not name.endswith("/"):
            (folder / name).unlink()


def prune(folder: Path) -> None:
    """Remove the folders in a folder, and itself, in which there are no files. Raises OSError."""
    for root, _, _ in os.walk(folder, topdown=False):
        if not os.listdir(root):
            os.rmdir(root)


def file_digest(path: Path) -> str | None:
    """Return the digest of a file's content; None for what is no regular file."""
    if path.is_symlink() or not path.is_file():
        return None
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
