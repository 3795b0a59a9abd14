"""Baselines on planted clusters: shape, better than chance, reproducible, and the prior and the balance at work."""

import builtins

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks import baselines
from benchmarks.baselines import BASELINES, Task, egemaps_functionals, normalised, svm, with_balance, with_prior
from modeling_sere.resonance_sere import UNLABELLED

CLASSES, PER_CLASS, SHOTS = 4, 40, 5
GUIDED = [name for name in BASELINES if name.endswith("+prior+balance")]
PLAIN = [name for name in BASELINES if name not in GUIDED]


def planted(seed: int = 0, classes: int = CLASSES, size: int = 48, informative_shots: bool = True):
    """Two domains with the same clusters, the target's shifted, and a noisy prior: the task and the target's classes.

    Without informative shots, their labels are drawn blindly.
    """
    torch.manual_seed(seed)
    truth = torch.arange(classes).repeat_interleave(PER_CLASS)
    centres = torch.randn(classes, size)

    def domain(shift):
        return F.normalize(centres[truth] + 1.5 * torch.randn(len(truth), size) + shift, dim=1)

    def prior():
        return normalised(F.one_hot(truth, classes) + 0.7 * torch.randn(len(truth), classes))

    source, target = domain(torch.zeros(size)), domain(0.3 * torch.randn(size))
    shots = torch.full((len(truth),), UNLABELLED)
    chosen = (torch.arange(classes)[:, None] * PER_CLASS + torch.arange(SHOTS)).flatten()
    shots[chosen] = truth[chosen] if informative_shots else truth[chosen].roll(2)[torch.randperm(len(chosen))]
    task = Task(source, target, shots, prior(), prior(), classes, seed, prior_weight=2.0)
    return task, truth


def accuracy(scores: torch.Tensor, truth: torch.Tensor) -> float:
    return (scores.argmax(1) == truth).float().mean().item()


def test_every_method_is_exported():
    simple = {"nearest-class-mean", "ridge", "logistic-regression"}
    adaptive = {"label-propagation", "self-training", "fixmatch", "shot", "aad", "mme", "coral", "dann"}
    assert set(BASELINES) == simple | adaptive | {f"{name}+prior+balance" for name in adaptive}


@pytest.mark.parametrize("name", BASELINES)
def test_scores_are_finite_reproducible_and_far_above_chance(name):
    task, truth = planted()
    before = torch.random.get_rng_state()
    scores = BASELINES[name](task)
    assert torch.equal(torch.random.get_rng_state(), before)  # one method must not change what the next one draws
    assert scores.shape == (len(truth), CLASSES) and torch.isfinite(scores).all() and not scores.requires_grad
    assert accuracy(scores, truth) > 0.6  # chance is 0.25
    torch.manual_seed(123)
    assert torch.equal(BASELINES[name](task), scores)


@pytest.mark.parametrize("name", BASELINES)
def test_two_classes_and_few_clips(name):
    task, truth = planted(classes=2, size=400)  # fewer clips than dimensions
    assert BASELINES[name](task).shape == (len(truth), 2)
    assert accuracy(BASELINES[name](task), truth) > 0.7


@pytest.mark.parametrize("name", BASELINES)
def test_target_labels_and_order_play_no_part(name):
    task, truth = planted()
    scores = BASELINES[name](task)
    order = torch.randperm(len(truth))
    task.target, task.target_prior = task.target[order], task.target_prior[order]
    agreement = (BASELINES[name](task).argmax(1) == scores[order].argmax(1)).float().mean()
    assert agreement > 0.9  # random batches and ties aside


@pytest.mark.parametrize("name", PLAIN)
def test_plain_methods_do_not_read_the_prior(name):
    task, _ = planted()
    scores = BASELINES[name](task)
    task.target_prior, task.source_prior = -task.target_prior, -task.source_prior
    assert torch.equal(BASELINES[name](task), scores)


@pytest.mark.parametrize("name", GUIDED)
def test_guided_methods_gain_from_the_prior_where_the_shots_say_nothing(name):
    plain, guided = [], []
    for seed in range(3):
        task, truth = planted(seed, informative_shots=False)
        plain.append(accuracy(BASELINES[name.partition("+")[0]](task), truth))
        guided.append(accuracy(BASELINES[name](task), truth))
    assert np.mean(guided) > np.mean(plain) + 0.2


@pytest.mark.parametrize("name", GUIDED)
def test_guided_methods_return_balanced_posteriors(name):
    task, _ = planted()
    posteriors = BASELINES[name](task).exp()
    torch.testing.assert_close(posteriors.sum(1), torch.ones(len(posteriors)), rtol=0, atol=1e-4)
    torch.testing.assert_close(posteriors.mean(0), torch.full((CLASSES,), 1 / CLASSES), rtol=0, atol=1e-3)


def test_with_prior_weighs_normalised_scores():
    task, _ = planted()
    scores = 7 * torch.randn(len(task.target), CLASSES) + 3
    combined = with_prior(scores, task)
    torch.testing.assert_close(combined - 2.0 * task.target_prior, normalised(scores))
    torch.testing.assert_close(with_prior(10 * scores + 1, task), combined)
    assert abs(normalised(scores).std(correction=0).item() - 1) < 1e-5


def test_with_balance_moves_only_the_class_shares():
    scores = torch.randn(200, CLASSES) + torch.tensor([2.0, 0.0, 0.0, -1.0])
    balanced = with_balance(scores)
    torch.testing.assert_close(balanced.exp().mean(0), torch.full((CLASSES,), 1 / CLASSES), rtol=0, atol=1e-3)
    shift = balanced - 2.0 * normalised(scores)
    pairwise = shift - shift[:, :1]  # between two classes every clip is shifted alike
    torch.testing.assert_close(pairwise, pairwise[:1].expand_as(pairwise), rtol=0, atol=1e-3)


def test_principal_directions_keep_cosines():
    task, _ = planted(size=400)
    source, target = baselines._principal(task)
    torch.testing.assert_close(source @ target.T, task.source @ task.target.T, rtol=0, atol=0.03)


def test_svm_on_planted_clusters():
    for classes in (2, CLASSES):
        task, truth = planted(classes=classes)
        scores = svm(5 * task.source, task.shots, 5 * task.target)
        assert scores.shape == (len(truth), classes) and accuracy(scores, truth) > 1.5 / classes


def test_egemaps_functionals(voice):
    pytest.importorskip("opensmile")
    low, high = voice(1.0, 0, pitch=110).numpy(), voice(1.0, 0, pitch=220).numpy()
    values = egemaps_functionals([low, high])
    assert values.shape == (2, 88) and values.dtype == torch.float32 and torch.isfinite(values).all()
    assert abs((values[1, 0] - values[0, 0]).item() - 12) < 1  # mean F0 in semitones: an octave apart


@pytest.mark.filterwarnings("ignore:Segment too short")
def test_egemaps_names_a_clip_that_is_too_short(voice):
    pytest.importorskip("opensmile")
    with pytest.raises(ValueError, match="clip 1"):
        egemaps_functionals([voice(1.0).numpy(), voice(0.03).numpy()])


def test_egemaps_without_opensmile_says_what_to_do(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "opensmile":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match="pip install opensmile"):
        egemaps_functionals([np.zeros(16_000, np.float32)])
