"""Recordings that are in both corpora: a score on them is not one of a new language."""

import numpy as np
import torch

from modeling_sere.embedding_sere import moments
from modeling_sere.resonance_sere import CHUNK, UNLABELLED
from modeling_sere.training.encoding.pool import Pool, Pools

CLOSE = 1e-3  # standard deviations, in every feature: rounding stays below 1e-4, another take of a sentence above 1


def in_both(source: Pool | Pools, target: Pool, shots: torch.Tensor) -> dict[str, list[str]]:
    """Return names of target clips, sorted, whose very audio is in a source corpus too, and in its shots.

    The audio is the same if the encoded files are, or else all features: a copy in another lossless format.

    Args:
        shots: (n,) class index of the labelled source clips, UNLABELLED elsewhere.
    """
    drawn = (shots != UNLABELLED).numpy()
    return {
        "same_audio_in_both": _repeated(source, target, np.ones_like(drawn)),
        "shots_in_target": _repeated(source, target, drawn),
    }


def _repeated(source: Pool | Pools, target: Pool, chosen: np.ndarray) -> list[str]:
    keys = {key for key, taken in zip(source.keys, chosen, strict=True) if taken}
    same = np.array([key in keys for key in target.keys])
    ends = np.cumsum([len(part) for part in source.parts])
    for part, taken in zip(source.parts, np.split(chosen, ends[:-1]), strict=True):
        same |= repeated_rows(part.features.values[taken], target.features.values)
    return sorted(target.clips[row].name for row in same.nonzero()[0])


def repeated_rows(seen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return (m,) bool: which rows of `values` (m, D) are, but for rounding, a row of `seen` (n, D).

    Rows are sorted along a random direction, and compared with those close to them there.
    """
    scale = moments(torch.from_numpy(values))[1].double().numpy().clip(1e-6)
    width = values.shape[1]
    direction = np.random.default_rng(0).standard_normal(width) / scale / np.sqrt(width)
    order = np.argsort(places := _along(seen, direction))
    low, high = (np.searchsorted(places[order], _along(values, direction) + side) for side in (-CLOSE, CLOSE))
    return np.array([
        bool((np.abs(seen[order[first:last]] - row) <= CLOSE * scale).all(1).any())
        for row, first, last in zip(values, low, high, strict=True)
    ])  # fmt: skip


def _along(values: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return (n,) values (n, D) times direction (D,), in double precision, without a double copy of the values."""
    return np.concatenate([values[row : row + CHUNK] @ direction for row in range(0, len(values) or 1, CHUNK)])
