"""Errors that end a run with one sentence: the one that all of this package raises, and how other errors become it."""

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError


class RunError(ValueError):
    """A run cannot go on: one sentence that says what is wrong, where, and what to do.

    It is one line, whatever names of files and texts of strangers are in it.
    """

    def __init__(self, sentence: str):
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in sentence))


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, which may go on for a page."""
    return str(error).partition("\n")[0]


@contextmanager
def writing(what: str, remedy: str) -> Iterator[None]:
    """Run a block that only writes files: whatever goes wrong in it is the disk's doing.

    Raises:
        RunError: `what` cannot be written, the reason, and the remedy.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise RunError(f"{what} cannot be written ({reason}): {remedy}.") from error
