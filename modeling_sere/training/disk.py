"""Writing to a disk that may be full or closed to us: one sentence in place of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from modeling_sere.training.data import DataError


@contextmanager
def writing(what: str, remedy: str) -> Iterator[None]:
    """A block that only writes files: whatever goes wrong in it is the disk's doing.

    Raises:
        DataError: `what` cannot be written, the reason, and the remedy.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise DataError(f"{what} cannot be written ({reason}): {remedy}.") from error
