"""How a run ends that cannot go on: in one sentence, whatever stopped it, and with its text on any console."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from modeling_sere.training.errors import RunError, first_line

PROGRAM = "train_sere.py"
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
GRACE = 30  # seconds in which a run that was told to stop unwinds
RESUME = "the same command with --resume goes on"
# what torch says, in errors of no type of their own
NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")
PEER_ENDED = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused", "Socket closed")


class Stopped(BaseException):
    """A signal that asks the run to end."""

    def __init__(self, number: int):
        self.number = number


class Console:
    """A stream of text that takes any text, and goes silent once nobody can read it any more.

    What is saved, and what is still to be pushed, must not depend on a terminal.
    """

    def __init__(self, stream):
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, if there is still a reader."""
        try:
            self._stream.write(text)
        except (OSError, ValueError):  # a pipe without a reader, a full disk, a closed file
            self._fall_silent()
        return len(text)

    def flush(self) -> None:
        """Flush what was written, if there is still a reader."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._fall_silent()

    def _fall_silent(self):
        try:  # else what is left in the buffer would fail once more, at the very end
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        except (OSError, ValueError):
            pass  # closed, or no file at all


def end_early(program: str) -> None:
    """Let signals end the program in one sentence while it has not begun: its imports take seconds."""

    def end(number, _):
        _end_now(program, number)

    for number in SIGNALS:
        signal.signal(number, end)


@contextmanager
def one_sentence(program: str) -> Iterator[None]:
    """Run the block of a program, and end the program in one sentence if the block cannot go on.

    Raises:
        SystemExit: status 1 after an error of the user or of the machine, 128 and the signal's number after a signal.
    """

    watches: list[threading.Timer] = []

    def stop(number, _):
        for other in SIGNALS:  # a second one does not wait
            signal.signal(other, lambda again, _: _end_now(program, again))
        watch = threading.Timer(GRACE, _end_now, (program, number))  # whatever holds up or swallows what is raised here
        watch.daemon = True
        watch.start()
        watches.append(watch)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and Console(stream) for stream in streams)
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stopped:
        number = getattr(stopped, "number", signal.SIGINT)
        _say_stopped(program, number)
        sys.exit(128 + number)
    except BaseException as error:
        if (text := sentence(error)) is None:
            raise
        sys.exit(f"{program}: {text}")
    finally:
        for watch in watches:
            watch.cancel()
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()  # here, where a reader that is gone does no harm
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.stdout, sys.stderr = streams


def sentence(error: BaseException) -> str | None:
    """Return what ended a run, if it was the user's or the machine's doing; None for a fault of the program."""
    if isinstance(error, RunError):
        return str(error)
    text = first_line(error) if isinstance(error, Exception) else ""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(part in text for part in NO_MEMORY)):
        return (
            f"There is not enough memory ({text or 'nothing more is known'}): use a machine with more, then {RESUME}."
        )
    if isinstance(error, RuntimeError) and "WORLD_SIZE" in os.environ and any(part in text for part in PEER_ENDED):
        return f"Another process of this run has ended, and said why; {RESUME}."
    if isinstance(error, OSError):  # the network's too
        place = "" if error.filename is None else f" at {error.filename}"
        reason = error.strerror or text or type(error).__name__
        return f"Something cannot be read or written{place} ({reason}): mend that, then {RESUME}."
    return None


def _say_stopped(program: str, number: int) -> None:
    if os.environ.get("RANK", "0") == "0":  # all processes of a run get it
        print(f"{program}: Ended by {signal.Signals(number).name}: {RESUME}.", file=sys.stderr, flush=True)


def _end_now(program: str, number: int) -> NoReturn:
    """End without unwinding: what is left behind is what a killed run leaves."""
    try:
        _say_stopped(program, number)
    finally:
        os._exit(128 + number)
