"""Audio in: whatever holds a recording becomes float32 mono samples at 16 kHz, whole or block by block.

A *source* is one of

* a path (`str` or `os.PathLike`), the `bytes` of an audio file, or a seekable binary file object (read from its start);
* a numpy array or torch tensor at 16 kHz: `(n,)`, `(channels, n)` or `(n, channels)`, float in [-1, 1] or integer PCM;
* a pair `(rate, samples)` or `(samples, rate)`, as microphones of web pages and audio libraries give it;
* a mapping `{"array" | "raw": samples, "sampling_rate": rate}` or `{"bytes": ..., "path": ...}`, the two forms in which
  `datasets` hands out audio (decoded, and with `Audio(decode=False)`); samples that are bytes are raw PCM, 16 bit
  little-endian mono;
* a `torchcodec` `AudioDecoder`.

Files are read with soundfile and PyAV (see `decoding_sere.py`) and other rates are converted with soxr, all imported
only where needed: arrays at 16 kHz need none. A file that was cut short is an error in FLAC; WAV, MP3, OGG and AIFF
cannot tell, and are read up to the cut.

Channels are averaged. An array of two axes is one recording of one or two channels; with more of them it could as well
be several clips, or a spectrogram, and is refused. Integers of 64 bits, into which lists and tables turn PCM of any
width, are taken as the narrowest of 16, 24 and 32 bits that holds them all. Samples beyond [-1, 1] are legal in float
files and are kept, because clipping would distort them; beyond +-MAX_PEAK they can only be integer PCM that was never
scaled, which is an error. Digital silence is no error: see `is_silent`.
"""

import numbers
import os
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from .decoding_sere import BLOCK_VALUES, AudioError, file_blocks, require
from .dynamics_sere import LONG, SAMPLING_RATE, SILENCE_RMS
from .fetching_sere import is_url, shown_url

MIN_SECONDS = 0.1  # two frames of pitch: anything shorter carries no emotion worth a label
MAX_SECONDS = 600.0  # of a recording read whole: no one label holds for 10 minutes, and a small file can hold days
MAX_PEAK = 16.0  # 24 dB above full scale
MAX_ARRAY_CHANNELS = 2
RATE_RANGE = (1_000, 1_000_000)  # Hz; outside it the header is wrong, and resampling from 1 Hz would fill the memory
# of formats with a mark of their own; MP3 and AAC begin with what raw PCM may begin with
FILE_STARTS = (
    b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b".snd", b"FLV", b"#!AMR", b"\x1aE\xdf\xa3",
    b"0&\xb2u",
)  # fmt: skip


def read_audio(source: Any, name: str | None = None, max_seconds: float | None = MAX_SECONDS) -> np.ndarray:
    """Read the whole recording as float32 samples at 16 kHz, shape (n,).

    Args:
        source: see the module's first lines.
        name: what error messages call the audio; by default the path, or the kind of source.
        max_seconds: a longer recording is refused as soon as so much of it is decoded; None reads any length.

    Raises:
        AudioError: unreadable or corrupt, empty, shorter than `MIN_SECONDS`, longer than `max_seconds`, NaN or infinite
            samples, samples beyond `MAX_PEAK`, or an impossible shape or sampling rate.
        OSError: the file is missing or may not be opened.
        TypeError: `source` is none of the kinds above.
        ImportError: soundfile or soxr is needed and not installed.
    """
    return np.concatenate(list(_mono_blocks(source, name, max_seconds)))


def stream_audio(
    source: Any, block_samples: int, name: str | None = None, max_seconds: float | None = None
) -> Generator[np.ndarray, None, None]:
    """Read the recording as consecutive float32 blocks of `block_samples` samples at 16 kHz, the last one possibly
    shorter.

    Joined, the blocks equal `read_audio(source)`. Memory does not grow with the length of a file, whatever its header
    claims. A recording that is too short raises before the first block; other errors raise where they occur.

    Raises:
        ValueError: `block_samples` is below `MIN_SECONDS`; otherwise as `read_audio`.
    """
    if block_samples < MIN_SECONDS * SAMPLING_RATE:
        raise ValueError(f"block_samples is {block_samples}, give at least {int(MIN_SECONDS * SAMPLING_RATE)}")
    held: list[np.ndarray] = []
    count = 0
    for block in _mono_blocks(source, name, max_seconds):
        while count + len(block) >= block_samples:
            head, block = np.split(block, [block_samples - count])
            yield np.concatenate([*held, head])
            held, count = [], 0
        held.append(block)
        count += len(block)
    if count:
        yield np.concatenate(held)


def to_mono_16k(array: Any, sampling_rate: float, name: str | None = None) -> np.ndarray:
    """Convert samples at any rate, shape (n,), (channels, n) or (n, channels), to float32 mono at 16 kHz, shape (n',).

    Of two axes the shorter one is taken for the channels. Integers are PCM: scaled by the full scale of their type.
    Raises as `read_audio`, but takes any length.
    """
    return read_audio({"array": array, "sampling_rate": sampling_rate}, name, max_seconds=None)


def is_silent(samples: np.ndarray) -> bool:
    """Tell whether no 60 ms of the samples (n,) rise above `SILENCE_RMS` about their own mean.

    It is the level, -60 dB of full scale, below which the dynamics stream hears no voice. A constant offset counts for
    nothing.
    """
    size = min(LONG, len(samples))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    frames = np.concatenate([frames, samples[None, -size:]])  # the last ones, which may not fill a frame
    centred = frames - frames.mean(axis=1, keepdims=True)
    return bool(np.square(centred).mean(axis=1).max() <= SILENCE_RMS**2)


def is_rate_and_samples(source: Any) -> bool:
    """Tell whether a source is one recording as a pair of a number and samples, rather than a tuple of two sources."""
    return isinstance(source, tuple) and len(source) == 2 and sum(map(_is_number, source)) == 1


def name_of(source: Any) -> str:
    """Name a source for error messages: its path or URL without secrets, in one printable line, else its kind."""
    if isinstance(source, Mapping):
        source = source.get("path") or next((source[key] for key in ("array", "raw", "bytes") if key in source), source)
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
    else:
        own = getattr(source, "name", None)
        name = own if isinstance(own, str) else f"<{type(source).__name__}>"
    name = shown_url(name) if is_url(name) else name
    name = name if name.isprintable() else repr(name)
    return name if len(name) <= 300 else f"{name[:200]}...{name[-50:]}"


def as_float(block: np.ndarray, name: str) -> np.ndarray:
    """Convert samples of any numeric type to floats; integers are PCM, scaled by the full scale of their type."""
    kind, size = block.dtype.kind, block.dtype.itemsize
    if kind == "f":
        return block
    if kind == "u" and size == 1:  # 8-bit WAV is the one unsigned PCM format, with its zero at 128
        return (block.astype(np.float32) - 128) / 128
    if kind == "i" and size <= 4:
        return block / np.float32(2 ** (8 * size - 1))
    raise AudioError(
        f"{name} has samples of type {block.dtype}, expected float, uint8, or signed integers of at most 32 bits"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _mono_blocks(source: Any, name: str | None, max_seconds: float | None) -> Iterator[np.ndarray]:
    """Yield checked float32 blocks at 16 kHz, mono, of no particular size."""
    total = 0
    for block in _resampled(source, name := name or name_of(source)):
        total += len(block)
        if max_seconds is not None and total > max_seconds * SAMPLING_RATE:
            raise AudioError(f"{name} lasts more than {max_seconds:g} s (max_seconds): cut it into shorter clips")
        yield block
    if total == 0:
        raise AudioError(f"{name} contains no samples")
    if total < MIN_SECONDS * SAMPLING_RATE:
        raise AudioError(f"{name} lasts {total / SAMPLING_RATE:.3f} s, at least {MIN_SECONDS} s are needed")


class MonoConverter:
    """Blocks of one recording of any rate, checked, averaged over their channels and converted to 16 kHz.

    Args:
        name: what error messages call the recording.
    """

    def __init__(self, name: str):
        self.name = name
        self.rate: float | None = None  # of the first block, and of all others
        self._resampler = None

    def convert(self, block: np.ndarray, rate: float) -> np.ndarray:
        """Convert float samples (n, channels) to mono float32 (n',); resampling holds some milliseconds back.

        Raises:
            AudioError: NaN, infinite or far too large samples, an impossible rate, or another one than before; the
                block is then left out, and the next one may come.
        """
        if self.rate not in (None, rate):
            raise AudioError(f"{self.name} changes its sampling rate from {self.rate} to {rate} Hz: convert it to WAV")
        mono = _checked(block, self.name).mean(axis=1, dtype=np.float32)
        if self.rate is None and rate != SAMPLING_RATE:
            low, high = RATE_RANGE
            if not low <= rate <= high:
                raise AudioError(f"{self.name} claims a sampling rate of {rate:g} Hz, expected {low} to {high} Hz")
            self._resampler = require("soxr").ResampleStream(rate, SAMPLING_RATE, 1, dtype="float32")
        self.rate = rate
        return mono if self._resampler is None else self._resampler.resample_chunk(mono)

    def finish(self) -> np.ndarray:
        """Return what was held back."""
        last = np.zeros(0, np.float32)
        return last if self._resampler is None else self._resampler.resample_chunk(last, last=True)


def _resampled(source: Any, name: str) -> Iterator[np.ndarray]:
    converter = MonoConverter(name)
    for block, rate in _decode(source, name):  # (n, channels)
        yield converter.convert(block, rate)
    yield converter.finish()


def _checked(block: np.ndarray, name: str) -> np.ndarray:
    peak = np.maximum(block.max(), -block.min())  # NaN if any sample is
    if not np.isfinite(peak):
        raise AudioError(f"{name} contains NaN or infinite samples")
    if peak > MAX_PEAK:
        raise AudioError(
            f"{name} has float samples up to {peak:.6g} where full scale is 1: divide integer PCM by its full scale"
            " (32768 for 16 bit) or keep it as integers"
        )
    return block


def _decode(source: Any, name: str) -> Iterator[tuple[np.ndarray, float]]:
    """Yield float blocks (n, channels), n > 0, and their sampling rate."""
    rate: float = SAMPLING_RATE
    if hasattr(source, "get_all_samples"):
        source = _from_decoder(source, name)
    if is_rate_and_samples(source):
        first, second = source
        rate, samples = (first, second) if _is_number(first) else (second, first)
        source = {"array": samples, "sampling_rate": rate}
    if isinstance(source, Mapping):
        source, rate = _unpacked(source, name)
    if isinstance(source, (str, os.PathLike)) and is_url(os.fsdecode(source)):
        raise AudioError(f"{name} is a URL, not a file: download it and give its path or bytes")
    if isinstance(source, (np.ndarray, torch.Tensor)):
        blocks: Iterator = ((block, rate) for block in _array_blocks(source, name))
    elif isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(source, "read"):
        blocks = file_blocks(source, name)
    else:
        raise TypeError(
            f"{name} is not audio: expected a path, bytes, a binary file, a numpy array, a torch tensor or a mapping"
            ' with "array" and "sampling_rate"'
        )
    for block, rate in blocks:
        yield as_float(block, name), rate


def _from_decoder(decoder: Any, name: str) -> dict[str, Any]:
    try:
        samples = decoder.get_all_samples()
    except RuntimeError as error:
        raise AudioError(f"{name} cannot be decoded ({str(error).partition(chr(10))[0]}): it is damaged") from error
    return {"array": samples.data, "sampling_rate": samples.sample_rate}


def _unpacked(source: Mapping, name: str) -> tuple[Any, float]:
    """Return the samples, bytes or path inside a mapping, and the sampling rate (only samples need it)."""
    samples = source.get("array") if source.get("array") is not None else source.get("raw")
    if samples is not None:
        if source.get("sampling_rate") is None:
            raise TypeError('a mapping with audio samples needs their "sampling_rate" in Hz')
        return _as_array(samples, name), rate_of(source["sampling_rate"], name)
    inner = source.get("bytes") if source.get("bytes") is not None else source.get("path")
    if isinstance(inner, bytes) and source.get("sampling_rate") is not None and not _is_file(inner):
        raise AudioError(f'{name} has "bytes" and a rate: give raw PCM as "raw", and a whole file without a rate')
    if inner is None:
        raise TypeError(
            'a mapping of audio needs "array" (or "raw") and "sampling_rate", or "bytes" or "path",'
            f" got the keys {sorted(map(str, source))}"
        )
    return inner, SAMPLING_RATE


def _as_array(samples: Any, name: str) -> np.ndarray | torch.Tensor:
    if isinstance(samples, torch.Tensor):
        return samples
    if isinstance(samples, (bytes, bytearray, memoryview)):
        return _raw_pcm(bytes(samples), name)
    try:
        return np.asarray(samples)
    except ValueError as error:
        raise AudioError(f"{name} has rows of different lengths: expected the samples of one recording") from error


def _raw_pcm(data: bytes, name: str) -> np.ndarray:
    if _is_file(data):
        raise AudioError(f'{name} is a whole audio file, not raw PCM: give it as "bytes" instead')
    if len(data) % 2:
        raise AudioError(f"{name} has {len(data)} bytes of raw PCM, an odd number: expected 16 bit little-endian mono")
    return np.frombuffer(data, "<i2")


def _is_file(data: bytes) -> bool:
    return data.startswith(FILE_STARTS) or data[4:8] == b"ftyp"


def rate_of(value: Any, name: str) -> float:
    """Read a sampling rate in Hz from a number, or from a text as web forms send it."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        shown = repr(value)[:50]
        raise AudioError(f"{name} has the sampling rate {shown}, expected a number in Hz such as 16000") from None


def _array_blocks(array: np.ndarray | torch.Tensor, name: str) -> Iterator[np.ndarray]:
    if isinstance(array, torch.Tensor):
        if array.is_floating_point() and array.dtype not in (torch.float16, torch.float32, torch.float64):
            array = array.float()  # numpy has no bfloat16
        array = array.numpy(force=True)
    if array.size == 0:
        return
    frames = _frames(array, name)
    if frames.dtype == np.int64:
        frames = _narrowed(frames)
    step = max(1, BLOCK_VALUES // frames.shape[1])
    for start in range(0, len(frames), step):
        yield frames[start : start + step]


def _frames(array: np.ndarray, name: str) -> np.ndarray:
    """Return the array as (n, channels): leading axes of length 1 are dropped, the shorter of two axes has the
    channels.
    """
    frames = array
    while frames.ndim > 1 and len(frames) == 1:
        frames = frames[0]
    if frames.ndim == 1:
        return frames[:, None]
    if frames.ndim != 2 or min(frames.shape) > MAX_ARRAY_CHANNELS:
        raise AudioError(
            f"{name} has shape {array.shape}, expected (n,), (channels, n) or (n, channels) with one or two channels:"
            " give several clips as a list, and average more channels before"
        )
    return frames.T if frames.shape[1] > frames.shape[0] else frames


def _narrowed(samples: np.ndarray) -> np.ndarray:
    """Convert PCM in 64 bits to float64 in [-1, 1), by the narrowest of 16, 24 and 32 bits that holds all of it."""
    peak = max(int(samples.max()), -int(samples.min()) - 1)
    bits = next((bits for bits in (16, 24, 32) if peak < 2 ** (bits - 1)), None)
    return samples if bits is None else samples / 2.0 ** (bits - 1)
