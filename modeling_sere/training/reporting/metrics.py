"""Scores of the field: unweighted average recall (UAR), weighted average recall (WAR), macro-F1, confusion, ECE.

UAR and macro-F1 average over the classes that occur in the references, so a class without a single reference neither
helps nor hurts; predicting it still costs the recall of the class it was mistaken for. Where every class has
references, both equal scikit-learn's macro averages.

The metrics are `evaluate.Metric`s defined here, so nothing is fetched from the Hub, and keep their inputs in memory.
Under several processes gather first, in the way that drops the items repeated to fill the last batch:

    uar = UnweightedAverageRecall()
    for batch in loader:
        predictions = model(batch["input_values"], batch["attention_mask"]).logits.argmax(-1)
        predictions, references = accelerator.gather_for_metrics((predictions, batch["labels"]))
        uar.add_batch(predictions=predictions, references=references)
    if accelerator.is_main_process:
        print(uar.compute()["uar"])
"""

import tempfile
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score


class _ClassIdMetric(evaluate.Metric):
    """A metric of predicted and true class ids, kept in memory; takes the other arguments of `evaluate.Metric`."""

    def __init__(self, **kwargs: Any):
        # the parent insists on making a cache folder, which an in-memory metric never uses
        with tempfile.TemporaryDirectory() as unused:
            super().__init__(cache_dir=unused, keep_in_memory=True, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            inputs_description="predictions, references: class ids, one per clip.",
            features=datasets.Features({name: datasets.Value("int64") for name in ("predictions", "references")}),
        )


class UnweightedAverageRecall(_ClassIdMetric):
    """UAR: the mean of the recalls of the classes that occur in the references. `compute()` gives `{"uar": float}`."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        recall = recall_score(references, predictions, labels=np.unique(references), average="macro", zero_division=0)
        return {"uar": float(recall)}


class WeightedAverageRecall(_ClassIdMetric):
    """WAR: recalls weighted by class size, which is plain accuracy. `compute()` gives `{"war": float}`."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"war": float(accuracy_score(references, predictions))}


class MacroF1(_ClassIdMetric):
    """Mean of the F1 scores of the classes that occur in the references. `compute()` gives `{"macro_f1": float}`."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        f1 = f1_score(references, predictions, labels=np.unique(references), average="macro", zero_division=0)
        return {"macro_f1": float(f1)}


def expected_calibration_error(probabilities: np.ndarray, references: Sequence[int], bins: int = 15) -> float:
    """Compute the gap between how sure answers are and how often they are right, in [0, 1] (Guo et al., ICML 2017).

    Args:
        probabilities: (n, C), rows summing to 1. references: (n,) class ids.
        bins: equal intervals of the best score; each counts by its clips.
    """
    probabilities, references = np.asarray(probabilities), np.asarray(references)
    confidence = probabilities.max(1)
    gap = (probabilities.argmax(1) == references) - confidence
    interval = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(interval, weights=gap, minlength=bins)).sum() / len(gap))


def score(predictions: Sequence[int], references: Sequence[int], labels: Sequence[str]) -> dict[str, Any]:
    """Compute all scores of one evaluation, ready for JSON.

    Args:
        predictions, references: class ids, shape (n,), n > 0: lists, arrays or tensors.
        labels: the name of each class id.

    Returns:
        uar, war, macro_f1: floats in [0, 1].
        per_class_recall: {label: recall}; None for a class without references.
        confusion: counts, rows are the truth and columns the prediction, in the order of `labels`.

    Raises:
        ValueError: no clips, different lengths, or an id that is not in `range(len(labels))`.
    """
    predictions, references = np.asarray(predictions), np.asarray(references)
    if predictions.shape != references.shape or predictions.ndim != 1:
        raise ValueError(
            f"predictions {predictions.shape} and references {references.shape} must be two lists of one length"
        )
    if predictions.size == 0:
        raise ValueError("there are no clips to score")
    for name, ids in (("predictions", predictions), ("references", references)):
        if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= len(labels):
            raise ValueError(f"{name} must be class ids from 0 to {len(labels) - 1}")
    results = {}
    for metric in (UnweightedAverageRecall(), WeightedAverageRecall(), MacroF1()):
        results |= metric.compute(predictions=predictions, references=references)
    confusion = confusion_matrix(references, predictions, labels=range(len(labels)))
    recalls = [float(row[i] / row.sum()) if row.any() else None for i, row in enumerate(confusion)]
    return {
        **results,
        "per_class_recall": dict(zip(labels, recalls, strict=True)),
        "confusion": confusion.tolist(),
    }
