"""Predictions: what a run says of each clip of the target, in predictions.csv, and its summary in results.json."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.corpora.corpus import SkippedClip
from modeling_sere.training.encoding.pool import Pool
from modeling_sere.training.organising.adaptation import Adaptation, Organised
from modeling_sere.training.organising.calibration import Calibrated
from modeling_sere.training.reporting.evaluation import embed_singly
from modeling_sere.training.reporting.results import PREDICTIONS, Answer

EXAMPLES = 3  # of the surest and of the least sure answers


@dataclass
class Predictions:
    """The answers of a run for the clips of its target.

    files: n names. scores: (n, C) that sum to 1. strongest: (n,) strongest moment of each clip in seconds. agree: for
    each clip whether the two witnesses of the calibration give it the same emotion, or None. labels: the emotions that
    the corpus gives, or None. skipped: clips that could not be used.
    """

    emotions: list[str]
    files: list[str]
    scores: np.ndarray
    strongest: np.ndarray
    agree: list[bool | None]
    labels: list[str | None]
    skipped: list[SkippedClip]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[dict]:
        """Give one row per clip as it stands in predictions.csv; unusable clips come last, with their `error`."""
        for row, file in enumerate(self.files):
            best = int(self.scores[row].argmax())
            yield {
                "file": file,
                "emotion": self.emotions[best],
                "score": float(self.scores[row, best]),
                **{f"score_{name}": float(score) for name, score in zip(self.emotions, self.scores[row], strict=True)},
                "strongest": float(self.strongest[row]),
                "witnesses_agree": self.agree[row],
                "label": self.labels[row],
                "error": None,
            }
        for clip in self.skipped:
            yield {"file": clip.name, "error": clip.reason}

    @property
    def columns(self) -> list[str]:
        """Names of the columns of predictions.csv; `label` only if the corpus gives any."""
        scores = [f"score_{name}" for name in self.emotions]
        labelled = any(label is not None for label in self.labels)
        return ["file", "emotion", "score", *scores, "strongest", "witnesses_agree", *["label"] * labelled, "error"]

    def save(self, folder: Path) -> None:
        """Write predictions.csv."""
        with open(folder / PREDICTIONS, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: as_cell(value) for key, value in row.items()} for row in self)

    def summary(self) -> dict:
        """Return the part of results.json that tells of them."""
        best = self.scores.argmax(1)
        order = np.argsort(-self.scores.max(1), kind="stable")
        told = [agree for agree in self.agree if agree is not None]
        return {
            "shares": {name: float((best == k).mean()) for k, name in enumerate(self.emotions)},
            "surest": [self._answer(row) for row in order[:EXAMPLES]],
            "least_sure": [self._answer(row) for row in order[: -EXAMPLES - 1 : -1]],
            "agreement": sum(told) / len(told) if told else None,
        }

    def _answer(self, row: int) -> Answer:
        best = int(self.scores[row].argmax())
        return {
            "file": self.files[row],
            "emotion": self.emotions[best],
            "score": float(self.scores[row, best]),
            "strongest": float(self.strongest[row]),
        }


def as_cell(value: bool | float | str | None) -> str:
    """Return a value as a cell of CSV: numbers with four digits after the point, yes and no, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@torch.no_grad()
def predict(
    adaptation: Adaptation, organised: Organised, calibrated: Calibrated, target: Pool, adapting: list[int]
) -> Predictions:
    """Answer for all clips of the target.

    Args:
        adapting: rows of the target that took part in the adaptation, which get the field's answer. The others get that
            of the saved model, which sees each of them alone.
    """
    config = adaptation.model.config
    scores = torch.empty(len(target), config.num_labels)
    scores[adapting] = calibrated.field_scores(organised)
    others = sorted(set(range(len(target))) - set(adapting))
    if others:
        read_out = adaptation.single(organised) * (1 / calibrated.temperature)
        scores[others] = read_out(*embed_singly(adaptation, target.domain.features, torch.tensor(others))).softmax(1)
    agree: list[bool | None] = [None] * len(target)
    if calibrated.agree is not None:
        for row, same in zip(adapting, calibrated.agree[len(organised.shots) :].tolist(), strict=True):
            agree[row] = same
    return Predictions(
        emotions=list(target.labels),
        files=[clip.name for clip in target.clips],
        scores=scores.numpy(),
        strongest=target.features.strongest,
        agree=agree,
        labels=[target.labels[k] if k != UNLABELLED else None for k in target.references.tolist()],
        skipped=target.skipped,
    )
