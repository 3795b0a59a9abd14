"""Files of a model's folder that may be published or saved over: regular files of the folder itself, of known forms.

A folder may come from anybody. A link in it could name any file of this machine, which a push would publish and a save
would write over; a pipe would block for ever. So no link below the folder is followed, and each file has a known name
and its form: a key or a list of passwords is neither a card of SERE nor a picture.
"""

import ast
import json
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

CARD, WEIGHTS = "README.md", "model.safetensors"
MAX_BYTES = 2**20  # of a text; the longest card and the longest code have a twentieth of it
MAX_PLOT_BYTES = 2**23
PNG = b"\x89PNG\r\n\x1a\n"
# lines of the front matter of each card that SERE writes
OURS = ("library_name: transformers", "pipeline_tag: audio-classification", "- sere")


def status_of(folder: str | os.PathLike, name: str) -> os.stat_result | None:
    """Return the status of a regular file by its name in a folder, or None where there is nothing.

    Raises:
        ValueError: it, or a folder on the way to it, is a link, a pipe, a device, or anything but what it should be.
    """
    place, parts = Path(folder), PurePosixPath(name).parts
    for depth, part in enumerate(parts, start=1):
        place = place / part
        try:
            status = place.lstat()
        except FileNotFoundError:
            return None
        form, wanted = (stat.S_ISREG, "a file") if depth == len(parts) else (stat.S_ISDIR, "a folder")
        if not form(status.st_mode):
            kind = "a link" if stat.S_ISLNK(status.st_mode) else f"not {wanted}"
            raise ValueError(f"{place} is {kind}, and must be {wanted} of {folder} itself: remove it, or put one there")
    return status


def read_own(folder: str | os.PathLike, name: str, limit: int) -> bytes:
    """Return the content of a regular file of a folder.

    Raises:
        ValueError: as `status_of`, or it has more than `limit` bytes.
        OSError: it is not there, or cannot be read.
    """
    status = status_of(folder, name)
    path = Path(folder, name)
    # what has become a link or a pipe since then is neither followed nor waited for
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        if status is None or not os.path.samestat(status, os.fstat(file.fileno())):
            raise ValueError(f"{path} is changed while it is read: wait until nobody writes to {folder}")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} has more than {limit} bytes, which is no file that SERE writes: remove it")
    return data


def check_writable(folder: str | os.PathLike) -> None:
    """Pass if what is saved into a folder is written there and nowhere else. Raises ValueError: as `status_of`."""
    for name in known_names(folder):
        status_of(folder, name)


def known_names(folder: str | os.PathLike) -> list[str]:
    """Return the names, of those that SERE gives to files, under which there is anything in a folder.

    Raises:
        ValueError: its folder of plots is a link or no folder.
    """
    folder = Path(folder)
    entries = os.listdir(folder) if folder.is_dir() else []
    names = {name for name in entries if name == WEIGHTS or _form(name)}
    status_of(folder, "plots/-")  # a link in the place of a folder is not looked into
    plots = os.listdir(folder / "plots") if "plots" in entries else []
    return sorted(names | {f"plots/{name}" for name in plots if _form(f"plots/{name}")})


def published(folder: str | os.PathLike) -> dict[str, bytes | Path]:
    """Return {name: content} of all files of a folder that may be published; of the weights their path.

    Other files are left out.

    Raises:
        ValueError: a file of a known name that is no regular file of the folder, or not of the form of its name.
        OSError: a file cannot be read.
    """
    from .weights_sere import read_header  # with torch, which the help of the command that pushes does not wait for

    content: dict[str, bytes | Path] = {}
    for name in known_names(folder):
        if name == WEIGHTS:
            status_of(folder, name)
            read_header(str(Path(folder, name)), str(folder))
            content[name] = Path(folder, name)
        else:
            content[name] = read_known(folder, name)
    return content


def read_known(folder: str | os.PathLike, name: str) -> bytes:
    """Return the content of one of the small files that are published. Raises as `published`."""
    form = _form(name)
    if form is None:
        raise ValueError(f"{name} is no file that SERE publishes: it is not read")
    limit, check = form
    data = read_own(folder, name, limit)
    try:
        check(data)
    except (ArithmeticError, LookupError, RecursionError, MemoryError, SyntaxError, ValueError, struct.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{Path(folder, name)} is not what SERE writes under this name ({reason}): remove it"
        ) from error
    return data


def _check_card(data: bytes):
    front = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", data.decode("utf-8"), re.DOTALL)
    lines = front[1].splitlines() if front else []
    if lacking := [line for line in OURS if line not in lines]:
        raise ValueError(f"its first lines lack {lacking[0]!r}")


def _check_json(data: bytes):
    if not isinstance(json.loads(data.decode("utf-8")), dict):
        raise ValueError("no JSON object")


def _check_code(data: bytes):
    ast.parse(data.decode("utf-8"))


def _check_png(data: bytes):
    """Check chunk by chunk to the end, so that nothing stands before, between or behind them."""
    if not data.startswith(PNG):
        raise ValueError("no PNG")
    place, kinds = len(PNG), []
    while place < len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 4 : place + 8 + size]
        if struct.unpack_from(">I", data, place + 8 + size)[0] != zlib.crc32(body):
            raise ValueError("a damaged PNG")
        kinds.append(kind)
        place += 12 + size
    if kinds[:1] != [b"IHDR"] or b"IDAT" not in kinds or kinds.index(b"IEND") != len(kinds) - 1:
        raise ValueError("a damaged PNG")


FORMS = {
    r"README\.md": (MAX_BYTES, _check_card),
    r"(config|preprocessor_config)\.json": (MAX_BYTES, _check_json),
    r"[a-z]+_sere\.py": (MAX_BYTES, _check_code),
    r"plots/(confusion|highlights)\.png": (MAX_PLOT_BYTES, _check_png),
}


def _form(name: str) -> tuple[int, Callable[[bytes], None]] | None:
    """Return the limit of size and the check of a small file of this name; None of a name that SERE does not give."""
    return next((form for pattern, form in FORMS.items() if re.fullmatch(pattern, name)), None)
