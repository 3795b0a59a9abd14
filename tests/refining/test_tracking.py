"""Experiment trackers."""

import pytest

from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.errors import RunError
from modeling_sere.training.refining import tracking
from modeling_sere.training.refining.tracking import tracked_arguments, trackers


def test_default_is_tensorboard_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(tracking, "is_tensorboard_available", lambda: True)
    assert trackers(None) == ["tensorboard"]
    monkeypatch.setattr(tracking, "is_tensorboard_available", lambda: False)
    assert trackers(None) == []


@pytest.mark.parametrize("text", ["none", "", "none,none", " none "])
def test_no_trackers(text):
    assert trackers(text) == []


def test_named_trackers():
    pytest.importorskip("tensorboard")
    assert trackers(" tensorboard , none") == ["tensorboard"]


def test_tracker_that_is_not_installed():
    with pytest.raises(RunError, match=r"--report_to abacus.*tensorboard"):
        trackers("abacus")


def test_paths_are_not_recorded():
    places = {name: f"/home/me/{name}" for name in ("source", "target", "model", "output_dir")}
    options = tracked_arguments(SereArguments(**places, shots=3))
    assert options["shots"] == 3
    assert "/" not in "".join(map(str, options.values()))
