"""A corpus: its clips, and their audio, fetched and decoded clip by clip, in threads, on demand."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from modeling_sere.audio_sere import AudioError, read_audio
from modeling_sere.training.errors import RunError

DECODING_THREADS = min(4, os.cpu_count() or 1)
PREFETCHED_CLIPS = 4 * DECODING_THREADS  # bounds memory: a minute of audio is 4 MB


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording's metadata. `label` and `speaker` are None where the corpus does not give them."""

    index: int
    name: str  # unique in its corpus: the file name relative to the folder, or split[row] of a dataset
    label: str | None
    speaker: str | None


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """One recording's audio: `waveform` (n,) float32 at 16 kHz, or the `error` that made it unusable.

    Both are None for a clip whose content is already `known` to the caller of `Corpus.iter_audio`.
    """

    index: int
    key: str | None  # None if not even the encoded bytes could be read
    waveform: np.ndarray | None
    error: AudioError | None


@dataclass(frozen=True, slots=True)
class SkippedClip:
    """A clip left out, and why."""

    name: str
    reason: str


class AudioBytes(Protocol):
    """Where a corpus' encoded audio comes from."""

    random_access: bool

    def fetches(self, indices: Iterable[int]) -> Iterator[tuple[int, Callable[[], bytes]]]:
        """For each index, in order, a function that reads the encoded file (run in a thread; may raise AudioError)."""
        ...


class Corpus:
    """The clips of one corpus and access to their audio. Made by `load_corpus`.

    Attributes:
        name: the folder's base name or the dataset's id; never an absolute path, so it can be published.
        language: the value of the language column if it is the same in every row, else None.
        clips: one `Clip` per row, in the order of the metadata; `clips[i].index == i`.
        relabelled: {spelling in the corpus: emotion it was read as}, where they differ by more than case and blanks.
    """

    def __init__(
        self, name: str, clips: list[Clip], language: str | None, relabelled: dict[str, str], audio: AudioBytes
    ):
        self.name = name
        self.clips = clips
        self.language = language
        self.relabelled = relabelled
        self._audio = audio
        self._keys: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        return f"Corpus({self.name!r}, {len(self)} clips, language={self.language!r})"

    @property
    def names(self) -> list[str]:
        return [clip.name for clip in self.clips]

    @property
    def labels(self) -> list[str | None]:
        return [clip.label for clip in self.clips]

    @property
    def speakers(self) -> list[str | None]:
        return [clip.speaker for clip in self.clips]

    @property
    def has_speakers(self) -> bool:
        """Whether every clip has a speaker id."""
        return all(clip.speaker is not None for clip in self.clips)

    def iter_audio(
        self, indices: Iterable[int] | None = None, *, known: Collection[str] = frozenset()
    ) -> Iterator[DecodedClip]:
        """Reads, hashes and decodes clips in a few threads ahead of the caller; results come in the order asked for.

        Args:
            indices: which clips; all by default. A streamed corpus is read in one pass, so they must ascend.
            known: content keys the caller already holds features for: such clips are hashed but not decoded.

        A clip that cannot be read or decoded comes with its `error` instead of raising.

        Raises:
            IndexError: no such clip.
            RunError: indices of a streamed corpus that do not ascend.
            OSError: a disk or network failure, as opposed to one missing or forbidden file.
        """
        pending = deque()
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            try:
                for index, fetch in self._audio.fetches(self._checked(indices)):
                    pending.append(pool.submit(self._decode, index, fetch, known))
                    if len(pending) == PREFETCHED_CLIPS:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:  # the caller may stop early
                for future in pending:
                    future.cancel()

    def content_key(self, index: int) -> str:
        """SHA-256 of the clip's encoded file (hex): reads it unless `iter_audio` already did, and decodes nothing.

        Raises:
            AudioError: the file cannot be read.
            RunError: a streamed clip that `iter_audio` has not passed yet.
        """
        if index not in self._keys:
            if not self._audio.random_access:
                raise RunError(f"{self.name} is streamed: iterate over its audio before asking for content keys")
            ((_, fetch),) = self._audio.fetches(self._checked([index]))
            self._keys[index] = _content_key(fetch())
        return self._keys[index]

    def _checked(self, indices: Iterable[int] | None) -> Iterator[int]:
        for index in range(len(self)) if indices is None else indices:
            if not 0 <= index < len(self):
                raise IndexError(f"{self.name} has {len(self)} clips, there is none with index {index}")
            yield int(index)

    def _decode(self, index: int, fetch: Callable[[], bytes], known: Collection[str]) -> DecodedClip:
        key = None
        try:
            data = fetch()
            self._keys[index] = key = _content_key(data)
            waveform = None if key in known else read_audio(data, name=self.clips[index].name)
            return DecodedClip(index, key, waveform, None)
        except AudioError as error:
            return DecodedClip(index, key, None, error)


def check_skipped(skipped: Collection[SkippedClip], total: int, limit: float = 0.05) -> None:
    """Passes if at most the share `limit` of `total` clips, and not all of them, was skipped.

    Raises:
        RunError: names the first few with their reasons.
    """
    if skipped and (len(skipped) > limit * total or len(skipped) == total):
        few = "; ".join(f"{clip.name}: {clip.reason}" for clip in list(skipped)[:3])
        rest = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        raise RunError(
            f"{len(skipped)} of {total} clips cannot be used, more than the limit of {limit:.0%}: repair or remove"
            f" them, or raise the limit ({few}{rest})"
        )


def _content_key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
