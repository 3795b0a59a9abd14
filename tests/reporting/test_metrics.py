import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score

from modeling_sere.training.reporting.metrics import (
    MacroF1,
    UnweightedAverageRecall,
    WeightedAverageRecall,
    expected_calibration_error,
    score,
)

LABELS = ["anger", "fear", "sadness"]


def test_known_values():
    results = score([0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1], ["anger", "fear"])
    assert results["uar"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert results["war"] == pytest.approx(3 / 6)
    assert results["macro_f1"] == pytest.approx((4 / 7 + 2 / 5) / 2)
    assert results["per_class_recall"] == pytest.approx({"anger": 2 / 3, "fear": 1 / 3})
    assert results["confusion"] == [[2, 1], [2, 1]]  # rows: truth


def test_uar_and_war_differ_on_unbalanced_classes():
    results = score([0] * 10, [0] * 9 + [1], ["neutral", "fear"])
    assert results["uar"] == pytest.approx(0.5)
    assert results["war"] == pytest.approx(0.9)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30))
def test_equals_scikit_learn_where_every_class_has_references(pairs):
    predictions, references = map(list, zip(*pairs, (1, 0), (2, 1), (0, 2), strict=True))
    results = score(predictions, references, LABELS)
    assert results["uar"] == pytest.approx(recall_score(references, predictions, average="macro"))
    assert results["macro_f1"] == pytest.approx(f1_score(references, predictions, average="macro"))
    assert np.sum(results["confusion"]) == len(references)


def test_class_without_references_is_left_out_and_json_can_hold_it():
    results = score([0, 2, 1, 1], [0, 0, 1, 1], LABELS)
    assert results["uar"] == pytest.approx((0.5 + 1.0) / 2)
    assert results["macro_f1"] == pytest.approx((2 / 3 + 1.0) / 2)
    assert results["per_class_recall"]["sadness"] is None
    assert json.loads(json.dumps(results)) == results


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor])
def test_takes_lists_arrays_and_tensors(convert):
    assert score(convert([0, 1]), convert([0, 1]), LABELS)["uar"] == 1.0


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "no clips"),
        ([0, 1], [0], "one length"),
        ([3], [0], "predictions must be class ids from 0 to 2"),
        ([0], [-1], "references must be class ids"),
        ([0.5], [0], "predictions must be class ids"),
    ],
)
def test_refuses(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        score(predictions, references, LABELS)


@pytest.mark.parametrize(
    ("metric", "key"), [(UnweightedAverageRecall, "uar"), (WeightedAverageRecall, "war"), (MacroF1, "macro_f1")]
)
def test_metrics_gather_batches(metric, key):
    rng = np.random.default_rng(0)
    predictions, references = rng.integers(0, 3, (2, 40))
    gathered = metric()
    for start in range(0, 40, 16):
        part = slice(start, start + 16)
        gathered.add_batch(predictions=predictions[part], references=references[part])
    assert gathered.compute()[key] == pytest.approx(score(predictions, references, LABELS)[key])


def test_metrics_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "cache"))
    assert UnweightedAverageRecall().compute(predictions=[0, 1], references=[0, 1]) == {"uar": 1.0}
    assert list(tmp_path.iterdir()) == []


def test_calibration_error_is_the_gap_between_sureness_and_truth():
    sure = np.tile([0.8, 0.1, 0.1], (10, 1))
    right_eight_times = [0] * 8 + [1, 2]
    assert expected_calibration_error(sure, right_eight_times) == pytest.approx(0.0, abs=1e-9)
    assert expected_calibration_error(sure, [1] * 10) == pytest.approx(0.8)


def test_calibration_error_does_not_let_opposite_gaps_cancel():
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    references = [0] * 5 + [1] * 5 + [0] * 10  # too sure of the first ten, not sure enough of the others
    assert expected_calibration_error(probabilities, references) == pytest.approx(0.4)


def test_certain_answers_have_an_interval_too():
    assert expected_calibration_error(np.eye(3), [0, 1, 2]) == pytest.approx(0.0)
