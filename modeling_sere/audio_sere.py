"""Audio in: whatever holds a recording becomes float32 mono samples at 16 kHz, whole or block by block.

A *source* is one of

* a path (`str` or `os.PathLike`), the `bytes` of an audio file, or a seekable binary file object (read from its start);
* a numpy array or torch tensor at 16 kHz: `(n,)`, `(channels, n)` or `(n, channels)`, float in [-1, 1] or integer PCM;
* a mapping `{"array" | "raw": samples, "sampling_rate": rate}` or `{"bytes": ..., "path": ...}`, the two forms in which
  `datasets` hands out audio (decoded, and with `Audio(decode=False)`);
* a `torchcodec` `AudioDecoder`.

Files are read with soundfile (WAV, FLAC, OGG, MP3, AIFF, AU, CAF, ...) and other rates are converted with soxr, both
imported only where needed: mono or multi-channel arrays at 16 kHz need neither. A file that was cut short is an error
in FLAC; WAV, MP3, OGG and AIFF cannot tell, and are read up to the cut.

Channels are averaged. Samples beyond [-1, 1] are legal in float files and are kept, because clipping would distort
them; beyond +-MAX_PEAK they can only be integer PCM that was never scaled, which is an error. Digital silence is fine.
"""

import importlib
import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

SAMPLING_RATE = 16_000
MIN_SECONDS = 0.1  # two frames of pitch: anything shorter carries no emotion worth a label
MAX_PEAK = 16.0  # 24 dB above full scale
RATE_RANGE = (1_000, 1_000_000)  # Hz; outside it the header is wrong, and resampling from 1 Hz would fill the memory
BLOCK_VALUES = 2**18  # samples times channels decoded at a time: 1 MB


class AudioError(ValueError):
    """The audio itself is unusable: unreadable, empty, too short, or with impossible samples. Names the file."""


def read_audio(source: Any, name: str | None = None) -> np.ndarray:
    """The whole recording as float32 samples at 16 kHz, shape (n,).

    Args:
        source: see the module's first lines.
        name: what error messages call the audio; by default the path, or the kind of source.

    Raises:
        AudioError: unreadable or corrupt, empty, shorter than `MIN_SECONDS`, NaN or infinite samples, samples beyond
            `MAX_PEAK`, or an impossible sampling rate.
        OSError: the file is missing or may not be opened.
        TypeError: `source` is none of the kinds above.
        ImportError: soundfile or soxr is needed and not installed.
    """
    return np.concatenate(list(_mono_blocks(source, name)))


def stream_audio(source: Any, block_samples: int, name: str | None = None) -> Iterator[np.ndarray]:
    """The recording as consecutive float32 blocks of `block_samples` samples at 16 kHz, the last one possibly shorter.

    Joined, the blocks equal `read_audio(source)`. Memory does not grow with the length of a file, whatever its header
    claims. A recording that is too short raises before the first block; other errors raise where they occur.

    Raises:
        ValueError: `block_samples` is below `MIN_SECONDS`; otherwise as `read_audio`.
    """
    if block_samples < MIN_SECONDS * SAMPLING_RATE:
        raise ValueError(f"block_samples is {block_samples}, give at least {int(MIN_SECONDS * SAMPLING_RATE)}")
    held, count = [], 0
    for block in _mono_blocks(source, name):
        while count + len(block) >= block_samples:
            head, block = np.split(block, [block_samples - count])
            yield np.concatenate([*held, head])
            held, count = [], 0
        held.append(block)
        count += len(block)
    if count:
        yield np.concatenate(held)


def to_mono_16k(array: Any, sampling_rate: float, name: str | None = None) -> np.ndarray:
    """Samples at any rate, shape (n,), (channels, n) or (n, channels), as float32 mono at 16 kHz, shape (n',).

    Of two axes the shorter one is taken for the channels. Integers are PCM: scaled by the full scale of their type.
    Raises as `read_audio`.
    """
    return read_audio({"array": array, "sampling_rate": sampling_rate}, name)


def _mono_blocks(source: Any, name: str | None) -> Iterator[np.ndarray]:
    """Checked float32 blocks at 16 kHz, mono, of no particular size."""
    total = 0
    for block in _resampled(source, name := name or _name_of(source)):
        total += len(block)
        yield block
    if total == 0:
        raise AudioError(f"{name} contains no samples")
    if total < MIN_SECONDS * SAMPLING_RATE:
        raise AudioError(f"{name} lasts {total / SAMPLING_RATE:.3f} s, at least {MIN_SECONDS} s are needed")


def _resampled(source: Any, name: str) -> Iterator[np.ndarray]:
    resampler = None
    for block, rate in _decoded(source, name):  # (n, channels)
        mono = _checked(block, name).mean(axis=1, dtype=np.float32)
        if rate == SAMPLING_RATE:
            yield mono
            continue
        if resampler is None:
            low, high = RATE_RANGE
            if not low <= rate <= high:
                raise AudioError(f"{name} claims a sampling rate of {rate} Hz, expected {low} to {high} Hz")
            resampler = _require("soxr").ResampleStream(rate, SAMPLING_RATE, 1, dtype="float32")
        yield resampler.resample_chunk(mono)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


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


def _decoded(source: Any, name: str) -> Iterator[tuple[np.ndarray, float]]:
    """Float blocks (n, channels), n > 0, of at most `BLOCK_VALUES` values, and their sampling rate."""
    rate = SAMPLING_RATE
    if hasattr(source, "get_all_samples"):
        samples = source.get_all_samples()
        source = {"array": samples.data, "sampling_rate": samples.sample_rate}
    if isinstance(source, Mapping):
        source, rate = _unpacked(source)
    if isinstance(source, (np.ndarray, torch.Tensor)):
        yield from ((block, rate) for block in _array_blocks(source, name))
    elif isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(source, "read"):
        yield from _file_blocks(source, name)
    else:
        raise TypeError(
            f"{name} is not audio: expected a path, bytes, a binary file, a numpy array, a torch tensor or a mapping"
            ' with "array" and "sampling_rate"'
        )


def _unpacked(source: Mapping) -> tuple[Any, float]:
    """The samples, bytes or path inside a mapping, and the sampling rate (only samples need it)."""
    samples = source.get("array") if source.get("array") is not None else source.get("raw")
    if samples is not None:
        if source.get("sampling_rate") is None:
            raise TypeError('a mapping with audio samples needs their "sampling_rate" in Hz')
        return samples if isinstance(samples, torch.Tensor) else np.asarray(samples), source["sampling_rate"]
    inner = source.get("bytes") if source.get("bytes") is not None else source.get("path")
    if inner is None:
        raise TypeError(
            'a mapping of audio needs "array" (or "raw") and "sampling_rate", or "bytes" or "path",'
            f" got the keys {sorted(map(str, source))}"
        )
    return inner, SAMPLING_RATE


def _array_blocks(array: np.ndarray | torch.Tensor, name: str) -> Iterator[np.ndarray]:
    if isinstance(array, torch.Tensor):
        # numpy has no bfloat16
        array = (array.float() if array.dtype == torch.bfloat16 else array).detach().cpu().numpy()
    if array.ndim not in (1, 2):
        raise AudioError(f"{name} has shape {array.shape}, expected (n,), (channels, n) or (n, channels)")
    if array.size == 0:
        return
    frames = array.reshape(len(array), -1)
    if frames.shape[1] > frames.shape[0]:
        frames = frames.T
    step = max(1, BLOCK_VALUES // frames.shape[1])
    for start in range(0, len(frames), step):
        yield _as_float(frames[start : start + step], name)


def _as_float(block: np.ndarray, name: str) -> np.ndarray:
    kind, size = block.dtype.kind, block.dtype.itemsize
    if kind == "f":
        return block
    if kind == "u" and size == 1:  # 8-bit WAV is the one unsigned PCM format, with its zero at 128
        return (block.astype(np.float32) - 128) / 128
    if kind == "i" and size <= 4:
        return block / np.float32(2 ** (8 * size - 1))
    raise AudioError(f"{name} has samples of type {block.dtype}, expected float, int8, int16, int32 or uint8")


def _file_blocks(source: Any, name: str) -> Iterator[tuple[np.ndarray, int]]:
    soundfile = _require("soundfile")
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = _Bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        with open(source, "rb"):  # for Python's own error where the file is missing or is a folder
            source = os.fspath(source)
    elif not source.seekable():
        raise AudioError(f"{name} is a stream that cannot seek: read it and pass its bytes")
    else:
        source.seek(0)
    try:
        with soundfile.SoundFile(source) as file:
            # reading by blocks: the number of frames in the header is only a claim
            step = max(1, BLOCK_VALUES // file.channels)
            while len(block := file.read(step, dtype="float32", always_2d=True)):
                yield block, file.samplerate
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a headerless .raw file
        reason = getattr(error, "error_string", str(error)).rstrip(".").removeprefix("Error : ")
        raise AudioError(
            f"{name} cannot be read as audio ({reason}): convert it to WAV or FLAC if it is in a format that"
            " libsndfile does not know, else it is damaged"
        ) from error


class _Bytes(io.BytesIO):
    """An encoded file in memory. Decoders of damaged files seek to before its start, and would print a traceback."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def _require(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        purpose = {"soundfile": "reading audio files", "soxr": f"audio that is not at {SAMPLING_RATE} Hz"}[module]
        raise ImportError(f"{purpose} needs {module}: pip install {module}") from error


def _name_of(source: Any) -> str:
    if isinstance(source, Mapping):
        source = source.get("path") or next((source[key] for key in ("array", "raw", "bytes") if key in source), source)
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    own = getattr(source, "name", None)
    return own if isinstance(own, str) else f"<{type(source).__name__}>"
