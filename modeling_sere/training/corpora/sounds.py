"""Clips in which there is nothing to hear, the same thing again, or no treble: told before they are organised."""

from collections.abc import Iterator, Sequence

import numpy as np

from modeling_sere.audio_sere import SAMPLING_RATE
from modeling_sere.dynamics_sere import FUNCTIONAL_NAMES
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.corpora.names import listed
from modeling_sere.training.errors import RunError

# Mean spectral flux: silence and any other constant have 1e-10, the rounding of 16 bits 1e-4, speech recorded at -51 dB
# 6e-3, and louder speech more
STILL_FLUX = 3e-4
_FLUX = FUNCTIONAL_NAMES.index("spectral_flux.mean")
SAME = 1e-4  # relative difference of two features: rounding stays below it
# Power density above 4.3 kHz beside that of speech below 3.4 kHz: 300 recordings of two corpora at 16 kHz, and their
# MP3 and Vorbis, have -36 dB and more, what has been at 8 kHz -58 dB and less
NARROW_DB = -50
LOW, HIGH, LOOKED_AT = (300, 3400), (4300, 7500), 2**16  # Hz, Hz, samples in the middle


def is_narrow(waveform: np.ndarray) -> bool:
    """Return whether a waveform (n,) at 16 kHz has next to nothing above 4 kHz, as from a telephone."""
    middle = waveform[max(0, (len(waveform) - LOOKED_AT) // 2) :][:LOOKED_AT]
    power = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) ** 2
    hertz = np.fft.rfftfreq(len(middle), 1 / SAMPLING_RATE)
    low, high = (power[(hertz >= first) & (hertz <= last)].sum() / (last - first) for first, last in (LOW, HIGH))
    return bool(high < low * 10 ** (NARROW_DB / 10))


def notes_on_sounds(
    corpus: Corpus, indices: Sequence[int], values: np.ndarray, keys: Sequence[str], narrow: np.ndarray
) -> Iterator[str]:
    """Give one sentence each on clips that are silent, the same recording, or of another bandwidth than others.

    Args:
        indices: (n,) clips of the corpus. values: (n, D) their raw features, functionals first. keys: (n,) their
            content keys. narrow: (n,) what `is_narrow` says of them.

    Raises:
        RunError: nothing can be told of these clips: all are silent, or the same recording.
    """
    still = values[:, _FLUX] < STILL_FLUX
    if still.all():
        raise RunError(f"{corpus.name}: all {len(values)} clips are silent: is it the right folder?")
    first, *others = (~still).nonzero()[0]
    if len(values) > 1 and not any(_differ(values[first], values[row]) for row in others):
        raise RunError(
            f"{corpus.name}: no two of {len(values)} clips are different recordings with a sound, so there is nothing"
            " to tell apart: is it the right folder?"
        )
    if still.any():
        names = [corpus.clips[indices[row]].name for row in still.nonzero()[0]]
        yield (
            f"{corpus.name}: {len(names)} of {len(values)} clips are silent, so an emotion that they are given means"
            f" nothing: {listed(names, 3)}."
        )
    copies, most = _copies(values, keys, still)
    if copies:
        yield (
            f"{corpus.name}: {copies} of {len(keys)} clips are copies of another one, the most frequent of which is"
            f" there {most} times: each counts as a clip of its own."
        )
    if 0 < (count := int(narrow[~still].sum())) < (~still).sum():
        yield (
            f"{corpus.name}: {count} of {len(values)} clips have no sound above 4 kHz, as from a telephone, and the"
            " others do: how they were recorded may be taken for emotion."
        )


def _copies(values: np.ndarray, keys: Sequence[str], still: np.ndarray) -> tuple[int, int]:
    """Return how many clips are copies of another one, and how often the most frequent is there.

    A copy is the same file, or the same sound in another one: then all features are the same but for rounding. Rows
    with a sound are compared with their neighbours along a random direction.
    """
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    recording = np.array([first[key] for key in keys])
    scale = values.std(0)
    direction = np.random.default_rng(0).standard_normal(len(scale)) / np.where(scale > 1e-6, scale, np.inf)
    order = np.argsort(values[~still] @ direction.astype(np.float32), kind="stable")
    order = np.flatnonzero(~still)[order]
    for before, after in zip(order, order[1:], strict=False):
        if recording[before] != recording[after] and not _differ(values[before], values[after]):
            recording[recording == recording[after]] = recording[before]
    counts = np.unique(recording, return_counts=True)[1]
    return len(keys) - len(counts), int(counts.max())


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((np.abs(one - other) > SAME * (1 + np.abs(one))).any())
