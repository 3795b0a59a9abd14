"""Recordings in both corpora are found by their features, however many clips there are."""

import numpy as np
import pytest

from modeling_sere.training.reporting.duplicates import repeated_rows


def test_repeated_rows_are_found_despite_rounding():
    random = np.random.default_rng(0)
    seen, values = (random.standard_normal((count, 60)) * 10.0 ** np.arange(-30, 30) for count in (500, 400))
    chosen = [3, 17, 399]
    values[chosen] = seen[[9, 9, 0]] * (1 + 1e-5 * random.standard_normal((3, 60)))
    assert repeated_rows(seen, values).nonzero()[0].tolist() == chosen


@pytest.mark.parametrize("column", [0, 30, 59])
def test_a_row_that_differs_in_one_feature_is_another_recording(column):
    seen = np.random.default_rng(0).standard_normal((50, 60))
    other = seen.copy()
    other[:, column] += 0.01
    assert not repeated_rows(seen, other).any()


def test_constant_features_and_no_rows():
    assert repeated_rows(np.ones((3, 4)), np.ones((2, 4))).all()
    assert not repeated_rows(np.ones((0, 4)), np.ones((2, 4))).any()
