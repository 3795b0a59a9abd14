"""Recordings as overlapping windows: how they are cut, how much each counts, and what is told of them.

A window is a mapping: `start` and `end` (samples), `loudness`, whether it is `silent`, its `logits` and `highlights`.
"""

from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from .audio_sere import SAMPLING_RATE
from .configuration_sere import FRAME_SAMPLES

SILENCE = "silence"  # the label of a recording in which nothing is to be heard


class WindowCutter:
    """Blocks of a recording, joined and cut into overlapping windows of which no more than one is held.

    Args:
        window, hop: length and distance of the windows in samples, whole numbers of frames, `hop` at most `window`.
    """

    def __init__(self, window: int, hop: int):
        self.window, self.hop = window, hop
        self.held: list[np.ndarray] = []  # joined, sample `offset` of the recording and what follows
        self.offset = self.end = self.start = self.covered = 0

    def push(self, block: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Start (sample, on the frame grid) and samples of the windows that end in this block."""
        self.held.append(block)
        self.end += len(block)
        if self.start + self.window > self.end:
            return  # blocks are joined once per window: a microphone gives hundreds of them
        held = np.concatenate(self.held)
        while self.start + self.window <= self.end:
            yield self.start, held[self.start - self.offset : self.start - self.offset + self.window]
            self.covered = self.start + self.window
            self.start += self.hop
        keep = min(self.start, max(0, self.end - self.window - FRAME_SAMPLES))
        self.held, self.offset = [held[keep - self.offset :].copy()], keep  # a view would keep all of it

    def finish(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the last window, if something is left. It starts early enough to have full length, up to one frame
        more.
        """
        if self.end > self.covered:
            start = max(0, self.end - self.window) // FRAME_SAMPLES * FRAME_SAMPLES
            yield start, np.concatenate(self.held)[start - self.offset :]


def cut_windows(blocks: Iterable[np.ndarray], window: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Start and samples of windows that cover the joined blocks; see [`WindowCutter`]."""
    cutter = WindowCutter(window, hop)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


def loudness_of(samples: np.ndarray) -> float:
    """Return the mean square amplitude to the power 0.3: Stevens' law, twice as loud every 10 dB."""
    return float(np.mean(np.square(samples, dtype=np.float64))) ** 0.3


def shares(windows: list[dict]) -> np.ndarray:
    """Return the share of each window by loudness, (K,) with sum 1; silent ones count only if all of them are."""
    loudness = np.array([0.0 if window["silent"] else window["loudness"] for window in windows])
    return loudness / loudness.sum() if loudness.any() else np.full(len(windows), 1 / len(windows))


def weighted_mean(windows: list[dict], scores: list[torch.Tensor | None]) -> torch.Tensor | None:
    """Return the mean (K,) of the windows' scores by loudness; silent ones have none, and if all are silent, so has the
    mean.
    """
    heard = [(share, values) for share, values in zip(shares(windows), scores, strict=True) if values is not None]
    if not heard:
        return None
    weights, values = zip(*heard, strict=True)
    return torch.stack(values, dim=1) @ torch.tensor(weights, dtype=torch.float32)


def compact(windows: Iterable[dict]) -> tuple[list[dict], np.ndarray]:
    """Store windows with plain numbers for tensors (`frames`, and `peak`, the strongest of them), and all their
    highlights.

    Thousands of small tensors, made between the large ones of forward passes, would keep the heap from shrinking: an
    hour then took up to half as much memory again as a minute.
    """
    kept, highlights = [], array("f")
    for window in windows:
        weights = window.pop("highlights").numpy()
        window["logits"] = None if window["silent"] else tuple(window["logits"].tolist())
        peak = len(weights) // 2 if window["silent"] else int(weights.argmax())
        kept.append(window | {"frames": len(weights), "peak": peak})
        highlights.frombytes(weights.tobytes())
    return kept, np.frombuffer(highlights, np.float32)


def joined_highlights(windows: list[dict], highlights: np.ndarray) -> np.ndarray:
    """Join highlights of overlapping windows, one after the other, to those of the recording (T,) with sum 1."""
    frames = max(1, windows[-1]["end"] // FRAME_SAMPLES)
    total, count = np.zeros(frames, np.float32), np.zeros(frames, np.int32)
    past = 0
    for window, weight in zip(windows, shares(windows), strict=True):
        first = window["start"] // FRAME_SAMPLES
        span = slice(first, first + window["frames"])
        total[span] += weight * highlights[past : past + window["frames"]]
        count[span] += 1
        past += window["frames"]
    joined = total / count
    return joined / joined.sum()


def ranked(scores: torch.Tensor | None, labels: list[str], top_k: int | None) -> list[dict[str, Any]]:
    """Return labels by their scores (K,), best first; without scores it is `SILENCE`, and no label has any."""
    if scores is None:
        return [{"score": 1.0, "label": SILENCE}, *({"score": 0.0, "label": label} for label in labels)][:top_k]
    values, order = scores.topk(min(top_k or len(labels), len(labels)))
    return [{"score": score, "label": labels[i]} for score, i in zip(values.tolist(), order.tolist(), strict=True)]


def best_of(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first label and its score."""
    return {"label": scores[0]["label"], "score": scores[0]["score"]}


def chunk_of(window: dict, scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a window of `compact` as it is told: when, which emotions, and its strongest moment in seconds."""
    return {
        "timestamp": [window["start"] / SAMPLING_RATE, window["end"] / SAMPLING_RATE],
        **best_of(scores),
        "scores": scores,
        "silent": window["silent"],
        "highlight": (window["start"] + FRAME_SAMPLES * (window["peak"] + 0.5)) / SAMPLING_RATE,
    }
