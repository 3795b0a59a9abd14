"""Calibration: the temperature comes from agreement and held-out shots, never from target labels."""

import numpy as np
import pytest
import torch

from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.encoding.domain import Domain
from modeling_sere.training.organising import calibration
from modeling_sere.training.organising.adaptation import Adaptation
from modeling_sere.training.organising.calibration import (
    Calibrated,
    accuracy_of_agreement,
    calibrate,
    expected_accuracy,
    temperature,
    witnesses_agree,
)

CLASSES, SHOTS = 3, 4


@pytest.fixture
def model(make_model):
    return make_model(num_sources=CLASSES * SHOTS)


@pytest.fixture
def make_adaptation(model):
    """(separation) -> an adaptation to clips around a mean per class that both domains share, and its shots."""

    def make(separation: float):
        size = model.classifier.in_features
        means = separation * torch.randn(CLASSES, size)
        classes = torch.arange(60) % CLASSES
        source, target = (Domain(means[classes] + torch.randn(60, size)) for _ in range(2))
        shots = torch.full((60,), UNLABELLED)
        shots[: CLASSES * SHOTS] = classes[: CLASSES * SHOTS]
        return Adaptation(model, source, target), shots

    return make


@pytest.mark.parametrize("num_labels", [2, 3, 7, 50])
@pytest.mark.parametrize("excess", [0.0, 0.3, 0.7, 1.0])
def test_agreement_tells_accuracy(num_labels, excess):
    accuracy = 1 / num_labels + excess * (1 - 1 / num_labels)
    agreement = accuracy**2 + (1 - accuracy) ** 2 / (num_labels - 1)
    assert accuracy_of_agreement(agreement, num_labels) == pytest.approx(accuracy, abs=1e-6)


def test_agreement_below_chance_tells_chance():
    assert accuracy_of_agreement(0.0, 4) == pytest.approx(0.25)


def test_agreement_of_simulated_witnesses():
    random = np.random.default_rng(0)
    truth = random.integers(5, size=20_000)

    def witness():
        wrong = (truth + random.integers(1, 5, size=len(truth))) % 5
        return np.where(random.random(len(truth)) < 0.6, truth, wrong)

    assert accuracy_of_agreement((witness() == witness()).mean(), 5) == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("accuracy", [0.4, 0.6, 0.9])
def test_temperature_makes_scores_as_sure_as_told(accuracy):
    logits = 2 * torch.randn(500, 4)
    found = temperature(logits, accuracy)
    assert float((logits / found).softmax(1).amax(1).mean()) == pytest.approx(accuracy, abs=1e-3)


def test_expected_accuracy_lies_between_chance_and_one(make_adaptation):
    for separation in (0.0, 2.0):
        adaptation, shots = make_adaptation(separation)
        assert 1 / CLASSES <= expected_accuracy(adaptation, shots, witnesses_agree(adaptation, shots)) <= 1


def test_held_out_shots_are_right_where_classes_are_apart_and_not_where_they_are_not(model, make_adaptation):
    model.config.prior_profile, model.config.num_voice_groups = {}, 1  # random cues and voices tell nothing
    assert calibration._held_out_accuracy(*make_adaptation(10.0)) > 0.8
    assert calibration._held_out_accuracy(*make_adaptation(0.0)) < 0.7


def test_calibrated_scores_are_as_sure_as_expected(model, make_adaptation, monkeypatch):
    adaptation, shots = make_adaptation(1.0)
    organised = adaptation.organise(shots)
    monkeypatch.setattr(calibration, "expected_accuracy", lambda *_: 0.55)
    adaptation.install(organised, calibrate(adaptation, organised).temperature)
    with torch.no_grad():
        scores = model.classify(adaptation.unknown.embeddings).softmax(1)
    assert float(scores.amax(1).mean()) == pytest.approx(0.55, abs=2e-3)


def test_the_field_s_scores_are_as_sure_as_expected_and_give_the_same_answers(make_adaptation):
    adaptation, shots = make_adaptation(1.0)
    organised = adaptation.organise(shots)
    posteriors = organised.posteriors[len(shots) :]
    scores = Calibrated(1.0, 0.55, None).field_scores(organised)
    assert float(scores.amax(1).mean()) == pytest.approx(0.55, abs=2e-3)
    assert torch.equal(scores.argmax(1), posteriors.argmax(1))


def test_agreement_is_of_every_clip_of_both_domains(make_adaptation):
    adaptation, shots = make_adaptation(10.0)
    agree = witnesses_agree(adaptation, shots)
    assert agree.shape == (len(shots) + len(adaptation.target),) and agree.dtype == torch.bool


def test_a_temperature_changes_no_answer(model, make_adaptation):
    adaptation, shots = make_adaptation(1.0)
    organised = adaptation.organise(shots)
    with torch.no_grad():
        adaptation.install(organised)
        before = model.classify(adaptation.unknown.embeddings)
        adaptation.install(organised, 2.0)
        after = model.classify(adaptation.unknown.embeddings)
    torch.testing.assert_close(after, before / 2)


def test_without_a_prior_scores_stay_as_they_are(model, make_adaptation):
    model.config.prior_profile = {}
    adaptation, shots = make_adaptation(1.0)
    assert witnesses_agree(adaptation, shots) is None
    organised = adaptation.organise(shots)
    assert calibrate(adaptation, organised) == Calibrated(1.0)
    torch.testing.assert_close(Calibrated(1.0).field_scores(organised), organised.posteriors[len(shots) :])


def test_one_shot_per_emotion_is_enough(make_adaptation):
    adaptation, shots = make_adaptation(1.0)
    shots[CLASSES:] = UNLABELLED
    assert 1 / CLASSES <= expected_accuracy(adaptation, shots, witnesses_agree(adaptation, shots)) <= 1
    assert 0.2 < calibrate(adaptation, adaptation.organise(shots)).temperature < 4.5
