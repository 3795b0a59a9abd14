"""What a run says of speakers and emotions."""

import torch

from modeling_sere.training.organising.adaptation import Organised
from modeling_sere.training.reporting.field_notes import found_by, notes_on_field

LABELS = ["anger", "fear", "sadness"]


def organised(tied, shares):
    return Organised(*[None] * 6, torch.tensor([[1 / 3] * 3, shares]), tied)


def test_speakers_that_differ_much_are_named():
    assert "differ much" in " ".join(notes_on_field(organised(0.8, [1 / 3] * 3), LABELS))
    assert not list(notes_on_field(organised(0.1, [1 / 3] * 3), LABELS))
    assert not list(notes_on_field(organised(None, [1 / 3] * 3), LABELS))


def test_an_emotion_that_is_not_heard_is_named():
    result = organised(None, [0.5, 1e-4, 0.5])
    assert found_by(result, LABELS) == {"speaker_emotion_tie": None, "emotions_not_heard": ["fear"]}
    assert "like fear:" in " ".join(notes_on_field(result, LABELS))
