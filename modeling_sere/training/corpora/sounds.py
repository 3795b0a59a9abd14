"""Clips in which there is nothing to hear, or the same thing again: told before they are organised, or refused."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from modeling_sere.dynamics_sere import FUNCTIONAL_NAMES
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.corpora.names import listed
from modeling_sere.training.errors import RunError

# Mean spectral flux: silence and any other constant have 1e-10, the rounding of 16 bits 1e-4, speech recorded at -51 dB
# 6e-3, and louder speech more
STILL_FLUX = 3e-4
_FLUX = FUNCTIONAL_NAMES.index("spectral_flux.mean")
SAME = 1e-4  # relative difference of two features: rounding stays below it


def notes_on_sounds(corpus: Corpus, indices: Sequence[int], values: np.ndarray, keys: Sequence[str]) -> Iterator[str]:
    """Give one sentence each on clips that are silent or the same recording.

    Args:
        indices: (n,) clips of the corpus. values: (n, D) their raw features, functionals first. keys: (n,) their
            content keys.

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
    if copies := len(keys) - len(set(keys)):
        (_, most), *_ = Counter(keys).most_common(1)
        yield (
            f"{corpus.name}: {copies} of {len(keys)} clips are copies of another one, the most frequent of which is"
            f" there {most} times: each counts as a clip of its own."
        )


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((np.abs(one - other) > SAME * (1 + np.abs(one))).any())
