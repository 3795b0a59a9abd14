"""A corpus: its clips, and their audio, fetched and decoded on demand, in threads."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from modeling_sere.audio_sere import SAMPLING_RATE, AudioError, read_audio
from modeling_sere.training.corpora.segments import Span, cut, segment_key
from modeling_sere.training.errors import RunError

DECODING_THREADS = min(4, os.cpu_count() or 1)
PREFETCHED_CLIPS = 4 * DECODING_THREADS  # bounds memory: a minute of audio is 4 MB
PREFETCHED_LONG_FILES = 2  # of which clips are cut: an hour of them may be hundreds of MB


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


@dataclass(frozen=True, slots=True)
class Recording:
    """One encoded file, and the clips that are wanted of it.

    name: for messages. read: gives its bytes (run in a thread; may raise AudioError). indices: the clips. spans:
    beginning and end of each in seconds, or None for one clip that is the whole file.
    """

    name: str
    read: Callable[[], bytes]
    indices: list[int]
    spans: list[Span] | None = None


class AudioBytes(Protocol):
    """A source of a corpus' encoded audio."""

    def recordings(self, indices: Iterable[int]) -> Iterator[Recording]:
        """Give the files that hold these clips, in order of their first clip."""
        ...


class Corpus:
    """The clips of one corpus and access to their audio. Made by `load_corpus`.

    Attributes:
        name: the folder's base name or the dataset's id; never an absolute path, so it can be published.
        language: the value of the language column if it is the same in every row, else None.
        languages: all values of that column. licenses: {licence: clips} of the column of licences.
        clips: one `Clip` per row, in the order of the metadata; `clips[i].index == i`.
        relabelled: {spelling in the corpus: emotion it was read as}, where they differ by more than case and blanks.
        reading: what was taken for files, split, emotions, speakers and language, and what was not used, one line each.
        notes: one sentence each on what may not be as the user thinks it is.
    """

    def __init__(
        self,
        name: str,
        clips: list[Clip],
        language: str | None,
        relabelled: dict[str, str],
        audio: AudioBytes,
        reading: dict[str, str] | None = None,
        notes: Iterable[str] = (),
    ):
        self.name = name
        self.clips = clips
        self.language = language
        self.languages: list[str] = []
        self.licenses: dict[str, int] = {}
        self.relabelled = relabelled
        self.reading = reading or {}
        self.notes = list(notes)
        self._audio = audio

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
        """Whether at least half of the clips have a speaker id: the others are then taken for one more speaker."""
        return 2 * sum(clip.speaker is not None for clip in self.clips) >= len(self)

    def iter_audio(
        self, indices: Iterable[int] | None = None, *, known: Collection[str] = frozenset()
    ) -> Iterator[DecodedClip]:
        """Read, hash and decode clips in a few threads ahead of the caller.

        Clips come in the order asked for, except that those cut out of one file come together, as it is decoded once.

        Args:
            indices: which clips; all by default. A streamed corpus is read in one pass, so they must ascend.
            known: content keys the caller already holds features for: such clips are hashed but not decoded.

        A clip that cannot be read or decoded comes with its `error` instead of raising.

        Raises:
            IndexError: no such clip.
            RunError: indices of a streamed corpus that do not ascend.
            OSError: a disk or network failure, as opposed to one missing or forbidden file.
        """
        pending: deque[tuple[Iterator[DecodedClip], Future]] = deque()
        with ThreadPoolExecutor(DECODING_THREADS) as pool:

            def finished() -> Iterator[DecodedClip]:
                """Yield the clips of the file that has waited longest, each while the next one is being decoded."""
                clips, future = pending.popleft()
                while (clip := future.result()) is not None:
                    future = pool.submit(next, clips, None)
                    yield clip

            try:
                for recording in self._audio.recordings(self._checked(indices)):
                    clips = self._decode(recording, known)
                    pending.append((clips, pool.submit(next, clips, None)))
                    while len(pending) >= (PREFETCHED_CLIPS if recording.spans is None else PREFETCHED_LONG_FILES):
                        yield from finished()
                while pending:
                    yield from finished()
            finally:  # the caller may stop early
                for _, future in pending:
                    future.cancel()

    def iter_encoded(self, indices: Iterable[int]) -> Iterator[tuple[int, dict[str, Any] | AudioError]]:
        """Give the audio of clips for the pipeline: `{"bytes"}` of a file, `{"array", "sampling_rate"}` of a part.

        Files are not decoded, however long they are. Otherwise as `iter_audio`; a clip that cannot be read comes as
        its error.
        """
        for recording in self._audio.recordings(self._checked(indices)):
            if recording.spans is not None:
                for clip in self._decode(recording, frozenset()):
                    audio = {"array": clip.waveform, "sampling_rate": SAMPLING_RATE}
                    yield clip.index, clip.error if clip.waveform is None else audio
                continue
            try:
                yield recording.indices[0], {"bytes": recording.read()}
            except AudioError as error:
                yield recording.indices[0], error

    def _checked(self, indices: Iterable[int] | None) -> Iterator[int]:
        for index in range(len(self)) if indices is None else indices:
            if not 0 <= index < len(self):
                raise IndexError(f"{self.name} has {len(self)} clips, there is none with index {index}")
            yield int(index)

    def _decode(self, recording: Recording, known: Collection[str]) -> Iterator[DecodedClip]:
        """Decode the clips of one file, one with each step; run in a thread."""
        key, left = None, set(recording.indices)
        try:
            data = recording.read()
            key = hashlib.sha256(data).hexdigest()
            for clip in self._clips(recording, data, key, known):
                left.remove(clip.index)
                yield clip
            return
        except AudioError as reason:
            error = reason
        except MemoryError:
            error = AudioError(f"{recording.name} does not fit into the memory: cut it into shorter files")
        yield from (DecodedClip(index, key, None, error) for index in sorted(left))

    def _clips(self, recording: Recording, data: bytes, key: str, known: Collection[str]) -> Iterator[DecodedClip]:
        if recording.spans is None:
            waveform = None if key in known else read_audio(data, name=recording.name)
            yield DecodedClip(recording.indices[0], key, waveform, None)
            return
        keys = [segment_key(key, span) for span in recording.spans]
        wanted = []
        for row, (index, key) in enumerate(zip(recording.indices, keys, strict=True)):
            if key in known:
                yield DecodedClip(index, key, None, None)
            else:
                wanted.append(row)
        if wanted:
            spans = [recording.spans[row] for row in wanted]
            names = [self.clips[recording.indices[row]].name for row in wanted]
            for place, waveform, error in cut(data, spans, names, recording.name):
                row = wanted[place]
                yield DecodedClip(recording.indices[row], keys[row], waveform, error)


def check_skipped(skipped: Collection[SkippedClip], total: int, limit: float = 0.05) -> None:
    """Pass if at most the share `limit` of `total` clips, and not all of them, was skipped.

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
