"""Audio that arrives bit by bit: its windows are scored while it is spoken."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .audio_sere import MAX_ARRAY_CHANNELS, MIN_SECONDS, SAMPLING_RATE, AudioError, MonoConverter, as_float, rate_of
from .timeline_sere import WindowCutter

NAME = "the stream"


class SereStream:
    """A recording in the making, from `classifier.stream(...)`.

        stream = classifier.stream(speaker_clips=earlier)
        for chunk in microphone:
            for window in stream.push(chunk, sampling_rate=48_000):
                print(window["timestamp"], window["label"], window["highlight"])
        last = stream.finish()

    The windows of all calls, one after the other, are those that the pipeline gives as `"chunks"` with
    `return_timestamps=True` for the whole recording, to 1e-5. A window is given by the call that brings its last
    sample; other rates than 16 kHz come up to 0.12 s later, as resampling looks ahead (measured from 8 to 96 kHz).
    Between two calls no more is held than one window, so that a stream may run for days. Streams share nothing but the
    model: several may be open at once, each used by one thread at a time.

    Args:
        score: gives what is told of windows `[(start, samples), ...]`.
        window, hop: their length and distance in samples.
    """

    def __init__(self, score: Callable[[list[tuple[int, np.ndarray]]], list[dict[str, Any]]], window: int, hop: int):
        self._score = score
        self._converter = MonoConverter(NAME)
        self._cutter = WindowCutter(window, hop)
        self._finished = False

    def push(self, chunk: np.ndarray | torch.Tensor | bytes, sampling_rate: float = SAMPLING_RATE) -> list[dict]:
        """Take the next samples, and give the windows that they complete: none, one or many.

        Args:
            chunk: (n,) or (n, channels) with one or two channels, of any length, also 0; float in [-1, 1] or integer
                PCM of up to 32 bits. Bytes are 16 bit little-endian mono PCM.
            sampling_rate: of the chunk in Hz, the same in all calls.

        Raises:
            AudioError: the chunk is unusable. It is left out, and the stream goes on with the next one.
            ImportError: soxr is needed for this rate and not installed.
            ValueError: the stream is finished, or the model gives scores that are not finite.
        """
        if self._finished:
            raise ValueError("the stream is finished: open another one with classifier.stream()")
        samples = _samples(chunk)
        if len(samples) == 0:
            return []
        mono = self._converter.convert(as_float(samples, NAME), rate_of(sampling_rate, NAME))
        return self._score(list(self._cutter.push(mono)))

    def finish(self) -> list[dict]:
        """End the recording, and give its last windows; the last of all is moved back to end with it.

        A recording of less than 0.1 s has none.
        """
        if self._finished:
            return []
        self._finished = True
        windows = [*self._cutter.push(self._converter.finish()), *self._cutter.finish()]
        return self._score(windows) if self._cutter.end >= MIN_SECONDS * SAMPLING_RATE else []


def _samples(chunk: np.ndarray | torch.Tensor | bytes) -> np.ndarray:
    """Return (n, channels) of the type they came in."""
    if isinstance(chunk, (bytes, bytearray, memoryview)):
        data = bytes(chunk)
        if len(data) % 2:
            raise AudioError(f"{NAME} got {len(data)} bytes, an odd number: expected 16 bit little-endian mono PCM")
        chunk = np.frombuffer(data, "<i2")
    if isinstance(chunk, torch.Tensor):
        chunk = (chunk.float() if chunk.dtype == torch.bfloat16 else chunk).numpy(force=True)
    if not isinstance(chunk, np.ndarray):
        raise TypeError(f"{NAME} got a {type(chunk).__name__}: expected a numpy array, a torch tensor or bytes")
    # unlike a whole recording a chunk may be shorter than it has channels: only its order of axes can tell them apart
    if chunk.ndim not in (1, 2) or (chunk.ndim == 2 and not 1 <= chunk.shape[1] <= MAX_ARRAY_CHANNELS):
        raise AudioError(
            f"{NAME} got a chunk of shape {chunk.shape}, expected (n,) or (n, channels) with one or two channels"
        )
    return chunk[:, None] if chunk.ndim == 1 else chunk
