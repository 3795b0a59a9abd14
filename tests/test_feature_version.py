"""Features move only together with FEATURE_VERSION, which is in the key of every cache."""

import pytest
import torch

from modeling_sere import dynamics_sere
from modeling_sere.dynamics_sere import FEATURE_VERSION
from testing import golden

ADVICE = "raise FEATURE_VERSION in dynamics_sere.py, then run: python -m testing.golden"


@pytest.mark.parametrize("stream", ["none", *golden.encoders()])
def test_features_are_those_of_this_version(stream):
    written = golden.read()
    assert written["version"] == FEATURE_VERSION, f"no golden numbers of version {FEATURE_VERSION}: {ADVICE}"
    made = golden.features(golden.encoders().get(stream))
    assert golden.moved(written["features"][stream], made) <= 1, f"features of {stream!r} moved: {ADVICE}"


def test_a_changed_constant_is_seen(monkeypatch):
    """The numbers are worth nothing if they stay where they are when the front end changes."""
    known = golden.read()["features"]["none"]
    monkeypatch.setattr(dynamics_sere, "VOICING_THRESHOLD", 0.72)
    assert golden.moved(known, golden.features(None)) > 1
    assert golden.moved(known, torch.tensor(known) * 1.01) > 1


def test_numbers_that_moved_are_not_written_under_the_same_version(monkeypatch):
    monkeypatch.setattr(golden, "encoders", dict)
    monkeypatch.setattr(golden, "features", lambda _: torch.ones(4, 171))
    with pytest.raises(SystemExit, match="Raise FEATURE_VERSION first: none moved"):
        golden.main()
