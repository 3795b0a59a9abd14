"""Clips cut out of longer files: where they begin and end, and their audio in one pass over the file."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from modeling_sere.audio_sere import SAMPLING_RATE, AudioError, read_audio, stream_audio

Span = tuple[float, float | None]  # beginning and end in seconds; without an end it is that of the file
LONGEST_SECONDS = 1e9
BLOCK_SECONDS = 10  # decoded at a time
ROUNDING_SECONDS = 0.1  # by which an annotated end may lie beyond that of the file
# what the columns of beginnings, ends and durations are called, as `compact_name` has them
BEGINS = ("start", "starttime", "begin", "begintime", "onset", "starts", "startsec", "startseconds", "offset")
ENDS = ("end", "endtime", "stop", "stoptime", "ends", "endsec", "endseconds")
DURATIONS = ("duration", "dur", "durationsec", "durationseconds")


def parse_span(begin: Any, end: Any, duration: Any, decimal_comma: bool = False) -> Span | None:
    """Return where a clip begins and ends from three cells, of which some may be empty; None for a whole file.

    Raises:
        ValueError: a cell that is no number of seconds, a negative one, or an end that is not after the beginning.
    """
    begin, end, duration = (_seconds(cell, decimal_comma) for cell in (begin, end, duration))
    if begin is None and end is None:
        return None  # a duration alone is that of the file
    begin = begin or 0.0
    if end is None and duration is not None:
        end = begin + duration
    if end is not None and end <= begin:
        raise ValueError(f"the clip ends at {end:g} s, not after its beginning at {begin:g} s")
    return begin, end


def _seconds(cell: Any, decimal_comma: bool) -> float | None:
    text = "" if cell is None else str(cell).strip()
    if not text or text.lower() == "nan":
        return None
    if decimal_comma:
        text = text.replace(",", ".")
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII) is None:
        raise ValueError(f"{text[:40]!r} is no number of seconds, like 12.5")
    if not 0 <= (seconds := float(text)) < LONGEST_SECONDS:
        raise ValueError(f"{text[:40]} s is no time in a recording")
    return seconds


def segment_name(file: str, span: Span | None) -> str:
    """Return the name of a clip that is cut out of a file."""
    if span is None:
        return file
    begin, end = ("" if seconds is None else repr(seconds).removesuffix(".0") for seconds in span)
    return f"{file}[{begin}-{end}]"


def segment_key(file_key: str, span: Span) -> str:
    """Return the content key of a clip that is cut out of a file with this key."""
    return hashlib.sha256(f"{file_key}{span}".encode()).hexdigest()


def cut(
    data: bytes, spans: Sequence[Span], names: Sequence[str], file: str
) -> Iterator[tuple[int, np.ndarray | None, AudioError | None]]:
    """Cut clips out of the encoded `data` of a file, which is decoded once and never held whole.

    Yields the position of each span, and its audio (n,) float32 at 16 kHz or what is wrong with it, in the order in
    which the spans end.
    """
    waiting = sorted(range(len(spans)), key=lambda k: spans[k][0], reverse=True)  # the next one comes last
    parts: dict[int, list[np.ndarray]] = {}  # of the clips that have begun
    position = 0  # of the decoded block, in samples
    try:
        for block in stream_audio(data, BLOCK_SECONDS * SAMPLING_RATE, name=file):
            after = position + len(block)
            while waiting and _samples(spans[waiting[-1]][0]) < after:
                parts[waiting.pop()] = []
            done = []
            for k, pieces in parts.items():
                begin, end = map(_samples, spans[k])
                pieces.append(block[max(0, begin - position) : None if end is None else end - position])
                if end is not None and end <= after:
                    done.append(k)
            for k in sorted(done, key=lambda k: spans[k][1]):
                yield _checked(k, parts.pop(k), names[k])
            position = after
            if not waiting and not parts:
                return
    except AudioError as error:
        yield from ((k, None, error) for k in (*parts, *reversed(waiting)))
        return
    for k, pieces in parts.items():
        end = spans[k][1]
        if end is None or end <= position / SAMPLING_RATE + ROUNDING_SECONDS:
            yield _checked(k, pieces, names[k])
        else:
            yield k, None, AudioError(f"{names[k]} ends {_beyond(end, position)}")
    for k in reversed(waiting):
        yield k, None, AudioError(f"{names[k]} begins {_beyond(spans[k][0], position)}")


def _samples(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * SAMPLING_RATE)


def _checked(k: int, pieces: list[np.ndarray], name: str) -> tuple[int, np.ndarray | None, AudioError | None]:
    try:
        return k, read_audio(np.concatenate(pieces), name=name), None
    except AudioError as error:
        return k, None, error


def _beyond(seconds: float, samples: int) -> str:
    return f"at {seconds:g} s, but the file at {samples / SAMPLING_RATE:.2f} s already"
