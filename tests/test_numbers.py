"""Constants at their limits and degenerate data: a clear ValueError, or finite numbers and probabilities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from modeling_sere import SereConfig, SereForAudioClassification
from modeling_sere.configuration_sere import EMOTION_PROFILE
from modeling_sere.modeling_sere import SereFrames
from modeling_sere.resonance_sere import UNLABELLED, InstantaneousResonanceField, balanced_softmax
from modeling_sere.training.arguments import MAX_SEED, SereArguments

# field -> values that are allowed up to the limits, and values that are not
CONSTANTS = {
    **dict.fromkeys(("ridge", "field_damping", "field_sharpness", "tric_temperature"), (1e-6, 1e-3, 1.0, 1e3, 1e6)),
    **dict.fromkeys(
        ("prior_weight", "tric_weight", "visit_weight", "consistency_weight", "encoder_weight"), (0.0, 1e-12, 1.0, 1e6)
    ),
    "field_balance": (0.0, 1e-12, 0.5, 1 - 1e-12, 1.0),
    "view_dropout": (0.0, 0.5, 0.95),
    "field_rounds": (0, 1, 3),
    "nuisance_rounds": (0, 20),
    "field_passes": (0, 100),
    "num_voice_groups": (1, 2),
}
ARGUMENTS = {  # name -> at the limits, beyond them
    "shots": ((0, 10**6), (-1,)), "draws": ((1, 10**6), (0, -1)), "batch_size": ((1, 10**6), (0, -1)),
    "refine_steps": ((0, 10**6), (-1,)), "seed": ((0, MAX_SEED - 5), (-1, MAX_SEED - 4, MAX_SEED)),
    "max_skipped": ((0.0, 1.0), (-1e-9, 1 + 1e-9, math.nan)),
    "learning_rate": ((5e-324, 1e300), (0.0, -1e-9, math.inf, math.nan)),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_at_and_beyond_their_limits(name):
    at, beyond = ARGUMENTS[name]
    for value in at:
        assert getattr(SereArguments(**{name: value}), name) == value
    for value in beyond:
        with pytest.raises(ValueError, match=f"--{name} must be "):
            SereArguments(**{name: value})


def constants(labels: list[str]):
    """Configurations with every constant somewhere between, or at, its limits."""
    values = {name: st.sampled_from(allowed) for name, allowed in CONSTANTS.items()}
    profile = st.sampled_from(({}, EMOTION_PROFILE, {name: [0.0] * 5 for name in EMOTION_PROFILE}))
    return st.builds(
        lambda profile, **values: SereConfig(id2label=dict(enumerate(labels)), prior_profile=profile, **values),
        profile, **values,
    )  # fmt: skip


NAMES = [*EMOTION_PROFILE, *(f"emotion {k}" for k in range(43))]
CASES = ("ordinary", "identical", "zero", "a class without sources", "one unlabelled", "none labelled", "K = 1")


def clips(case: str, classes: int, random: torch.Generator):
    """Embeddings (n, 16), cues, labels and domains of a few clips of each class."""
    shots = 1 if case == "K = 1" else 3
    n = 2 * shots * classes
    embeddings = F.normalize(torch.randn(n, 16, generator=random), dim=1)
    cues = torch.randn(n, 5, generator=random).clamp(-2.5, 2.5)
    labels = torch.full((n,), UNLABELLED)
    labels[: n // 2] = torch.arange(n // 2) % classes
    domains = (torch.arange(n) >= n // 2).long()
    if case == "identical":
        embeddings, cues = embeddings[:1].repeat(n, 1), cues[:1].repeat(n, 1)
    elif case == "zero":
        embeddings, cues = torch.zeros_like(embeddings), torch.zeros_like(cues)
    elif case == "a class without sources":
        labels[labels == 0] = UNLABELLED
    elif case == "one unlabelled":
        embeddings, cues, labels, domains = (part[: n // 2 + 1] for part in (embeddings, cues, labels, domains))
    elif case == "none labelled":
        labels[:] = UNLABELLED
    return embeddings, cues, labels, domains


situations = st.tuples(st.sampled_from(CASES), st.sampled_from((2, 3, 7, 50)), st.integers(0, 99))


@settings(max_examples=25, deadline=None)
@given(st.data(), situations)
def test_field_gives_probabilities(data, situation):
    case, classes, seed = situation
    random = torch.Generator().manual_seed(seed)
    config = data.draw(constants(NAMES[:classes]))
    prior = data.draw(st.sampled_from((None, 0.0, 0.2)))  # the share of the first class
    if prior is not None:
        prior = torch.tensor([prior, *[(1 - prior) / (classes - 1)] * (classes - 1)])
    output = InstantaneousResonanceField(config)(*clips(case, classes, random), class_prior=prior)
    assert output.posteriors.isfinite().all()
    torch.testing.assert_close(output.posteriors.sum(1), torch.ones(len(output.posteriors)))
    for linear in output.maps.values():
        assert all(part.isfinite().all() for part in (linear.weight, linear.cue_weight, linear.bias))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.sampled_from((2, 3, 50)), st.sampled_from((0.0, 1.0, 1e4, 1e30)), st.floats(0, 1),
    st.integers(0, 9),
)  # fmt: skip
def test_balance_gives_probabilities(n, classes, scale, strength, seed):
    random = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(n, classes, generator=random)
    prior = F.one_hot(torch.tensor(seed % classes), classes).float()  # all other shares are zero
    posteriors, bias = balanced_softmax(scores, prior, strength)
    assert posteriors.isfinite().all() and bias.isfinite().all()
    torch.testing.assert_close(posteriors.sum(1), torch.ones(n))


@settings(max_examples=25, deadline=None)
@given(st.data(), situations)
def test_losses_and_gradients_are_finite(data, situation):
    case, classes, seed = situation
    random = torch.Generator().manual_seed(seed)
    model = SereForAudioClassification(data.draw(constants(NAMES[:classes]))).train()
    labels = clips(case, classes, random)[2]
    sere, n = model.sere, len(labels)
    dynamics = torch.randn(n, 6, len(sere.highlight_weight), generator=random)
    functionals = torch.randn(n, len(sere.embedding.cue_map), generator=random)
    if case == "identical":
        dynamics, functionals = dynamics[:1].expand(n, -1, -1), functionals[:1].expand(n, -1)
    elif case == "zero":
        dynamics, functionals = torch.zeros_like(dynamics), torch.zeros_like(functionals)
    frames = SereFrames(dynamics, functionals, (), torch.ones(n, 6, dtype=torch.bool))
    torch.nn.init.normal_(model.classifier.weight, generator=random)
    with torch.no_grad():
        sere.embedding.statistics[:, 1] = 1.0
    output = model(frames=frames, labels=labels)
    output.loss.backward()
    assert all(value.isfinite() for name, value in output.items() if name.startswith("loss"))
    torch.testing.assert_close(output.logits.softmax(1).sum(1), torch.ones(n))
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert [name for name, gradient in gradients.items() if not gradient.isfinite().all()] == []
