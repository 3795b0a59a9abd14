"""Traps in a file's place: to have something else published or written over, or to keep a reader for ever."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

SECRET = "hf_swordfish_anneliese"
CARD = """---
library_name: transformers
pipeline_tag: audio-classification
tags:
- speech-emotion-recognition
- sere
---

# Card

model="path/to/this/folder"
"""


def png(*more: tuple[bytes, bytes]) -> bytes:
    """Return a picture of one pixel; `more` are chunks (kind, body) before its end."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0\0")), *more]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [*chunks, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _other_form(path: Path, secret: Path):
    path.write_text(f"HF_TOKEN={SECRET}\x00")


def _long(path: Path, secret: Path):
    with open(path, "wb") as file:
        file.truncate(2**30)


# name -> makes a file's place a trap; `secret` is a file outside the folder
TRAPS: dict[str, Callable[[Path, Path], None]] = {
    "link": lambda path, secret: path.symlink_to(secret),
    "relative link": lambda path, secret: path.symlink_to(os.path.relpath(secret, path.parent)),
    "link to the environment": lambda path, secret: path.symlink_to("/proc/self/environ"),
    "link to a device": lambda path, secret: path.symlink_to("/dev/zero"),
    "link to nothing": lambda path, secret: path.symlink_to(secret.parent / "gone"),
    "link to a folder": lambda path, secret: path.symlink_to(secret.parent, target_is_directory=True),
    "pipe": lambda path, secret: os.mkfifo(path),
    "folder": lambda path, secret: path.mkdir(),
}
FORMS: dict[str, Callable[[Path, Path], None]] = {
    "another form": _other_form,
    "a gigabyte": _long,
    "hard link": lambda path, secret: os.link(secret, path),
}
