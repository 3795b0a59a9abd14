"""Baselines on planted clusters: shape, better than chance, reproducible, and the prior and the balance at work."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks import baselines
from benchmarks.baselines import (
    ASSIGNING,
    BASELINES,
    OTHERS,
    PRIOR,
    SIMPLE,
    Clips,
    Task,
    egemaps_functionals,
    fine_tune,
    normalised,
    run,
    standardised,
    with_balance,
    with_prior,
)
from modeling_sere.encoder_sere import SereEncoder
from modeling_sere.resonance_sere import UNLABELLED
from testing.corpora import voice as corpus_voice

CLASSES, PER_CLASS, SHOTS = 4, 40, 5
METHODS = [name for name in BASELINES if name != PRIOR and not name.startswith("fine-tuned-encoder")]
GUIDED = [name for name in METHODS if name.endswith("+prior+balance")]
PLAIN = [name for name in METHODS if "+" not in name]


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
    clips = Clips(source, target)
    functionals = 5 * source[:, :88], 5 * target[:, :88]
    task = Task(clips, shots, prior(), prior(), classes, seed, prior_weight=2.0, egemaps=functionals)
    return task, truth


def fresh(task: Task, **changes) -> Task:
    """The same task, of which nothing has been run."""
    return replace(task, **{"known": {}} | changes)


def accuracy(scores: torch.Tensor, truth: torch.Tensor) -> float:
    return (scores.argmax(1) == truth).float().mean().item()


def test_every_method_is_exported():
    assert set(SIMPLE) == {"nearest-class-mean", "ridge", "logistic-regression"}
    assert set(ASSIGNING) == {"label-propagation", "self-training", "fixmatch", "shot", "aad", "mme"}
    assert set(OTHERS) == {"coral", "dann", "egemaps-svm", "fine-tuned-encoder"}
    both = {f"{name}{helps}" for name in SIMPLE | ASSIGNING | OTHERS for helps in ("", "+prior+balance")}
    assert set(BASELINES) == both | {f"{name}+prior" for name in SIMPLE} | {"prior"}


@pytest.mark.parametrize("name", METHODS)
def test_scores_are_finite_reproducible_and_far_above_chance(name):
    task, truth = planted()
    before = torch.random.get_rng_state()
    scores = run(name, task)
    assert torch.equal(torch.random.get_rng_state(), before)  # one method must not change what the next one draws
    assert scores.shape == (len(truth), CLASSES) and torch.isfinite(scores).all() and not scores.requires_grad
    assert accuracy(scores, truth) > 0.6  # chance is 0.25
    torch.manual_seed(123)
    assert torch.equal(run(name, fresh(task)), scores)


@pytest.mark.parametrize("name", METHODS)
def test_two_classes_and_few_clips(name):
    task, truth = planted(classes=2, size=400)  # fewer clips than dimensions
    scores = run(name, task)
    assert scores.shape == (len(truth), 2) and accuracy(scores, truth) > 0.7


@pytest.mark.parametrize("name", METHODS)
def test_target_labels_and_order_play_no_part(name):
    task, truth = planted()
    scores = run(name, task)
    order = torch.randperm(len(truth))
    shuffled = fresh(
        task, clips=Clips(task.source, task.target[order]), target_prior=task.target_prior[order],
        egemaps=(task.egemaps[0], task.egemaps[1][order]),
    )  # fmt: skip
    agreement = (run(name, shuffled).argmax(1) == scores[order].argmax(1)).float().mean()
    assert agreement > 0.9  # random batches and ties aside


@pytest.mark.parametrize("name", PLAIN)
def test_plain_methods_do_not_read_the_prior(name):
    task, _ = planted()
    scores = run(name, task)
    contrary = fresh(task, target_prior=-task.target_prior, source_prior=-task.source_prior)
    assert torch.equal(run(name, contrary), scores)


@pytest.mark.parametrize("name", GUIDED)
def test_guided_methods_gain_from_the_prior_where_the_shots_say_nothing(name):
    plain, guided = [], []
    for seed in range(3):
        task, truth = planted(seed, informative_shots=False)
        plain.append(accuracy(run(name.partition("+")[0], task), truth))
        guided.append(accuracy(run(name, task), truth))
    assert np.mean(guided) > np.mean(plain) + 0.2


@pytest.mark.parametrize("name", GUIDED)
def test_guided_methods_return_balanced_posteriors(name):
    task, _ = planted()
    posteriors = run(name, task).exp()
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


def test_helps_at_the_end_do_not_run_a_method_again(monkeypatch):
    task, _ = planted()
    alone = run("dann", task)
    monkeypatch.setitem(OTHERS, "dann", None)
    assert torch.equal(run("dann+prior+balance", task), with_balance(with_prior(alone, task)))


def test_the_prior_alone_needs_no_shots():
    task, _ = planted()
    task = fresh(task, shots=torch.full_like(task.shots, UNLABELLED))
    assert torch.equal(run("prior", task), task.target_prior)


def test_principal_directions_keep_cosines():
    task, _ = planted(size=400)
    source, target = task.clips.principal
    assert source.shape[1] == baselines.DIRECTIONS
    torch.testing.assert_close(source @ target.T, task.source @ task.target.T, rtol=0, atol=0.03)


def test_propagation_factor_is_that_of_the_normalised_graph():
    task, _ = planted()
    clips = torch.cat([task.source, task.target]).double()
    affinity = (clips @ clips.T / baselines.TEMPERATURE).exp()
    affinity.fill_diagonal_(0)
    scale = affinity.sum(1).sqrt()
    expected = torch.eye(len(clips)) - baselines.ALPHA * affinity / torch.outer(scale, scale)
    factor = task.clips.propagation.double()
    torch.testing.assert_close(factor @ factor.T, expected, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ eGeMAPS


def test_functionals_are_standardised_by_group():
    values = torch.randn(30, 4) * torch.tensor([1.0, 5.0, 0.1, 0.0]) + 7
    speakers = torch.arange(30) % 3
    result = standardised(values, speakers)
    for g in range(3):
        own = result[speakers == g]
        torch.testing.assert_close(own.mean(0), torch.zeros(4), rtol=0, atol=1e-4)
        torch.testing.assert_close(own.std(0, correction=0)[:3], torch.ones(3), rtol=0, atol=1e-4)
    assert torch.equal(result[:, 3], torch.zeros(30))  # a constant functional says nothing
    alone = standardised(values, None)
    torch.testing.assert_close(alone.std(0, correction=0)[:3], torch.ones(3), rtol=0, atol=1e-4)
    assert torch.equal(standardised(values[:1], None), torch.zeros(1, 4))


def test_egemaps_functionals(voice):
    pytest.importorskip("opensmile")
    low, high = (egemaps_functionals(voice(1.0, 0, pitch=pitch).numpy()) for pitch in (110, 220))
    assert low.shape == (88,) and low.dtype == np.float32 and np.isfinite(low).all()
    assert abs(high[0] - low[0] - 12) < 1  # mean F0 in semitones: an octave apart


@pytest.mark.filterwarnings("ignore:Segment too short")
def test_egemaps_of_a_clip_that_is_too_short(voice):
    pytest.importorskip("opensmile")
    with pytest.raises(ValueError, match="shorter than 100 ms"):
        egemaps_functionals(voice(0.03).numpy())


def test_egemaps_without_opensmile_says_what_to_do(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(baselines, "version", missing)
    baselines._smile.cache_clear()
    with pytest.raises(ImportError, match="pip install"):
        egemaps_functionals(np.zeros(16_000, np.float32))


# --------------------------------------------------------------------------------------------- the encoder, fine-tuned


@pytest.fixture
def sounds():
    """Waveforms of two emotions, and their classes."""
    labels = torch.arange(12) % 2
    return [corpus_voice(("anger", "sadness")[k], i % 4, i, 0.3 + 0.02 * i) for i, k in enumerate(labels)], labels


@pytest.mark.parametrize("name", ["whisper", "wavlm", "wav2vec2-large"])
def test_fine_tuning_learns_the_shots(make_config, sounds, name):
    waveforms, labels = sounds
    encoder = SereEncoder(make_config(name, encoder_layers=[4]))
    before = [parameter.clone() for parameter in encoder.parameters()]
    model = fine_tune(encoder, waveforms, labels, 2, seed=3, epochs=30, rate=3e-3, batch=6)
    with torch.no_grad():
        logits = model(*baselines.collate(waveforms, "cpu"))
        alone = torch.cat([model(*baselines.collate([waveform], "cpu")) for waveform in waveforms])
    assert logits.shape == (12, 2) and accuracy(logits, labels) > 0.9
    torch.testing.assert_close(logits, alone, rtol=1e-3, atol=1e-3)  # padding plays no part
    assert all(torch.equal(old, new) for old, new in zip(before, encoder.parameters(), strict=True))
    changed = {
        key for key, value in model.encoder.state_dict().items() if not torch.equal(value, encoder.state_dict()[key])
    }
    assert any("layers.0." in key for key in changed)  # all of the transformer, and not the convolutions below it
    assert not any("feature_extractor" in key for key in changed)


def test_fine_tuning_is_reproducible_and_leaves_the_generator(make_config, sounds):
    waveforms, labels = sounds
    encoder = SereEncoder(make_config("whisper", encoder_layers=[4]))
    state = torch.random.get_rng_state()
    first, second = (fine_tune(encoder, waveforms, labels, 2, seed=3, epochs=1).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[key], second[key]) for key in first)
