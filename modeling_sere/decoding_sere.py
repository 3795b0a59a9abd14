"""Encoded audio files as blocks of samples: by libsndfile, and by FFmpeg what libsndfile does not know.

soundfile (libsndfile) reads WAV, FLAC, OGG, MP3, AIFF, AU, CAF and more. What it does not recognise goes to PyAV
(FFmpeg), if that is installed: m4a, webm, aac, wma, amr, and the sound of mp4, mov, 3gp, mkv, avi, flv and MPEG-TS.
Both are imported where a file is read, not before. A file is known by what is in it, not by the end of its name.

FFmpeg is handed an open file and a list of formats, and may open nothing else: a playlist could name any file of this
machine or any address.
"""

import errno
import importlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

MAX_BYTES = 2**29  # of an encoded file that is held in memory: 10 minutes of 8 channels in 24 bits at 44.1 kHz fit
MAX_FILE_CHANNELS = 64  # seventh-order ambisonics; 255 channels of Vorbis decode no faster than they play
MAX_HOLE_BYTES = 2**26  # of zeros read in search of the next samples; sparse files have them without end
BLOCK_VALUES = 2**18  # samples times channels decoded at a time: 1 MB
FFMPEG_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,asf,avi,flv,mpegts,amr,caf",
    "protocol_whitelist": "none",
}


class AudioError(ValueError):
    """The audio itself is unusable: unreadable, empty, too short or too long, or with impossible samples. Names it."""


def file_blocks(source: Any, name: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yield blocks (n, channels), n > 0, of float or PCM samples of an encoded file, and their sampling rate in Hz.

    Blocks end where the file ends, whatever length its header claims.

    Args:
        source: a path, the bytes of a file, or a seekable binary file object, which is read from its start.
        name: what error messages call the audio.

    Raises:
        AudioError: no regular file, no audio in a known format, damaged, or more than `MAX_FILE_CHANNELS`.
        OSError: the file is missing, may not be opened, or its disk fails.
        ImportError: soundfile is not installed.
    """
    soundfile = require("soundfile")
    with _opened(source, name) as file:
        watched = _Watched(file, name)
        try:
            decoder = soundfile.SoundFile(watched)
        except soundfile.SoundFileError as error:
            watched.check()
            yield from _container_blocks(watched, name, _reason(error))
            return
        with decoder:
            _check_channels(decoder.channels, name)
            step = max(1, BLOCK_VALUES // decoder.channels)
            try:
                while len(block := decoder.read(step, dtype="float32", always_2d=True)):
                    watched.check()
                    yield block, decoder.samplerate
            except soundfile.SoundFileError as error:
                watched.check()
                raise AudioError(f"{name} cannot be read as audio ({_reason(error)}): it is damaged") from error
            watched.check()  # a decoder takes an error for the end of the file


def require(module: str) -> Any:
    """Import a library that only some audio needs.

    Raises:
        ImportError: it is not installed; the message says what for and how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        purpose = {
            "soundfile": "reading audio files",
            "soxr": "audio that is not at 16000 Hz",
            "av": "reading m4a, webm, aac, wma and video",
        }[module]
        raise ImportError(f"{purpose} needs {module}: pip install {module}") from error


def _container_blocks(file: "_Watched", name: str, reason: str) -> Iterator[tuple[np.ndarray, int]]:
    try:
        av = require("av")
    except ImportError:
        raise AudioError(
            f"{name} cannot be read as audio ({reason}): convert it to WAV or FLAC, or install PyAV if it is m4a, webm,"
            ' aac, wma or video (pip install av, or this package with its extra "formats"), else it is damaged'
        ) from None
    file.seek(0)
    try:
        with av.open(file, container_options=FFMPEG_OPTIONS, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioError(f"{name} cannot be read as audio: it is a video without sound")
            form: tuple | None = None
            converter: Any = None
            for frame in container.decode(container.streams.audio[0]):
                channels = frame.layout.nb_channels
                _check_channels(channels, name)
                if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
                    # into one plane: of 8 planes or more PyAV 18 would read past the last
                    converter = av.AudioResampler(format="flt")
                file.check()
                for part in converter.resample(frame):
                    yield part.to_ndarray().reshape(-1, channels), part.sample_rate
            file.check()
    except av.FFmpegError as error:
        file.check()
        raise AudioError(
            f"{name} cannot be read as audio ({error.strerror}): it is damaged, or in an unknown format: convert it to"
            " WAV or FLAC"
        ) from error


def _check_channels(channels: int, name: str):
    if channels > MAX_FILE_CHANNELS:
        raise AudioError(f"{name} has {channels} channels, at most {MAX_FILE_CHANNELS} are read: keep fewer of them")


@contextmanager
def _opened(source: Any, name: str) -> Iterator[BinaryIO]:
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        check_regular(source, name)
        with open(source, "rb") as file:
            yield file
    else:
        _rewind(source, name)
        yield source


def check_regular(path: str | os.PathLike, name: str):
    """Pass files and folders, which Python's `open` refuses itself, and refuse what could block for ever or never end.

    Raises:
        AudioError: a named pipe, a device or a socket, or text that can be no path.
        OSError: there is nothing at this path, or it may not be looked at.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:
        raise AudioError(f"{name} is no path: it holds a null character") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise AudioError(f"{name} is too long for a path: pass the audio itself as bytes") from error
        raise
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise AudioError(f"{name} is a pipe or a device, not a file: read it and pass its bytes")


def _rewind(file: Any, name: str):
    if getattr(file, "closed", False):
        raise AudioError(f"{name} is a closed file: open it again")
    if not callable(getattr(file, "seekable", None)) or not file.seekable():
        raise AudioError(f"{name} is a stream that cannot seek: read it and pass its bytes")
    file.seek(0)
    if not isinstance(file.read(0), bytes):
        raise AudioError(f'{name} is a text stream: open it in binary mode ("rb")')


class _Watched:
    """A file whose errors wait for `check`: decoders in C that call it would print them, and go on as at its end."""

    def __init__(self, file: BinaryIO, name: str):
        self.file, self.audio = file, name  # soundfile would guess a format from the end of an attribute `name`
        self.error: Exception | None = None
        self.zeros = 0

    def check(self):
        """Raise what a read has met, and let the search for the next samples begin.

        Raises:
            OSError: a read has failed.
            AudioError: there were more than `MAX_HOLE_BYTES` of zeros and no samples.
        """
        self.zeros = 0
        if self.error is not None:
            raise self.error

    def read(self, size: int = -1) -> bytes:
        if self.error is not None:
            return b""
        try:
            data = self.file.read(size)
        except OSError as error:
            self.error = error
            return b""
        self.zeros = 0 if data.strip(b"\0") else self.zeros + len(data)
        if self.zeros > MAX_HOLE_BYTES:
            self.error = AudioError(
                f"{self.audio} has more than {MAX_HOLE_BYTES >> 20} MB of zeros in place of audio: it is damaged"
            )
            return b""
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):  # decoders of damaged files seek to before the start
            return self.file.tell()

    def tell(self) -> int:
        return self.file.tell()


def _reason(error: Exception) -> str:
    return getattr(error, "error_string", str(error)).rstrip(".").removeprefix("Error : ")
