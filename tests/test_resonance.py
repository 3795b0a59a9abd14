"""The field against a dense prototype, on planted clusters and on degenerate input; balance; TRIC."""

import resource
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from modeling_sere.configuration_sere import EMOTION_PROFILE
from modeling_sere.resonance_sere import (
    UNLABELLED,
    InstantaneousResonanceField,
    LinearMap,
    ResonanceFilter,
    TripleResonanceInteractionChain,
    balanced_softmax,
    center_rows,
    spread,
)

FIVE = ("anger", "happiness", "fear", "sadness", "neutral")


def unit(*shape) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def mixed_batch(n_source: int, n_target: int, size: int, classes: int, shots: int = 2):
    """Random embeddings, cues, labels (the first `shots` per class of the source) and domains."""
    n = n_source + n_target
    labels = torch.full((n,), UNLABELLED)
    labels[: shots * classes] = torch.arange(classes).repeat_interleave(shots)
    domains = torch.tensor([0] * n_source + [1] * n_target)
    return unit(n, size), torch.randn(n, 5).clamp(-2.5, 2.5), labels, domains


def planted(classes: int = 4, per_class: int = 60, size: int = 24, shots: int = 5, noise: float = 0.25):
    """Two domains of the same clusters, the target's shifted; 5 labels per class in the source. Also the truth."""
    centres = torch.randn(classes, size)
    truth = torch.arange(classes).repeat_interleave(per_class).repeat(2)
    domains = torch.tensor([0, 1]).repeat_interleave(classes * per_class)
    shift = 0.3 * torch.randn(size)
    x = centres[truth] + noise * centres.norm(dim=1).mean() / size**0.5 * 3 * torch.randn(len(truth), size)
    x = x + domains[:, None] * shift
    labels = torch.full((len(truth),), UNLABELLED)
    for k in range(classes):
        labels[k * per_class : k * per_class + shots] = k
    return F.normalize(x, dim=1), torch.zeros(len(truth), 5), labels, domains, truth


# ------------------------------------------------------------------------------------------------ the prototype


def dense_field(embeddings, cues, labels, domains, names, weight):
    """The field with dense matrices in float64 and constants of its own, as a prototype of it was first written."""

    def nrm(scores):
        scores = scores - scores.mean(1, keepdims=True)
        return scores / scores.std()

    def softmax(scores):
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return scores / scores.sum(1, keepdims=True)

    def sinkhorn(scores):
        bias = np.zeros(scores.shape[1])
        for _ in range(2000):
            bias = 0.5 * (bias - np.log(len(bias) * softmax(scores + bias).mean(0)))
        return softmax(scores + bias)

    kernel = embeddings @ embeddings.T
    shots = np.flatnonzero(labels != UNLABELLED)
    onehot = np.eye(len(names))[labels[shots]]
    gram = kernel[np.ix_(shots, shots)] + np.eye(len(shots))
    response = kernel[:, shots] @ np.linalg.inv(gram) @ (onehot - onehot.mean(0))
    profile = np.array([EMOTION_PROFILE[name] for name in names])
    prior = -0.5 * np.square(cues[:, None] - (profile - profile.mean(0))).sum(2)
    corpora = [np.flatnonzero(domains == d) for d in np.unique(domains)]
    gain = np.sqrt(1 + weight)
    start = np.empty_like(response)
    for rows in corpora:
        start[rows] = gain * nrm(nrm(response[rows]) + weight * nrm(prior[rows]))
    resonance = kernel @ np.linalg.inv(kernel + 2 * np.eye(len(kernel)))
    scores = start.copy()
    for keep in np.linspace(1, 0, 10):
        posteriors = np.concatenate([sinkhorn(2 * scores[rows]) for rows in corpora])
        posteriors[shots] = onehot
        filtered = resonance @ (posteriors - posteriors.mean(0))
        joined = np.concatenate([nrm(filtered[rows]) + keep * start[rows] for rows in corpora])
        scores = gain * nrm(joined)
    return np.concatenate([sinkhorn(scores[rows]) for rows in corpora])


@pytest.mark.parametrize("size", [20, 300], ids=["more clips than dimensions", "fewer clips than dimensions"])
@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_field_equals_dense_prototype(size, weight, make_config):
    embeddings, cues, labels, domains = mixed_batch(70, 50, size, len(FIVE), shots=5)
    output = InstantaneousResonanceField(make_config(labels=FIVE, prior_weight=weight))(
        embeddings, cues, labels, domains
    )
    expected = dense_field(
        embeddings.double().numpy(), cues.double().numpy(), labels.numpy(), domains.numpy(), FIVE, weight
    )
    np.testing.assert_allclose(output.posteriors.numpy(), expected, atol=2e-4)
    for domain, linear in output.maps.items():
        rows = domains == domain
        again = linear(embeddings[rows], cues[rows]).softmax(1)
        torch.testing.assert_close(again, output.posteriors[rows], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("n", "size"), [(30, 7), (7, 30), (12, 12)])
def test_filter_equals_dense_formula(n, size):
    embeddings, targets = unit(n, size), torch.randn(n, 3)
    kernel = (embeddings @ embeddings.T).double()
    expected = kernel @ torch.linalg.inv(kernel + 3 * torch.eye(n).double()) @ targets.double()
    result = embeddings @ ResonanceFilter(embeddings, 3.0).weights(targets)
    torch.testing.assert_close(result, expected.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [4, 40], ids=["more sources than dimensions", "fewer sources than dimensions"])
def test_response_is_ridge_regression(size, make_config):
    embeddings, _, labels, _ = mixed_batch(12, 6, size, 3, shots=3)
    linear = InstantaneousResonanceField(make_config(ridge=0.7)).response(embeddings, labels)
    x = embeddings[:9].double()
    y = F.one_hot(labels[:9], 3).double()
    expected = torch.linalg.solve(x.T @ x + 0.7 * torch.eye(size).double(), x.T @ (y - y.mean(0)))
    torch.testing.assert_close(linear.weight, expected.float(), atol=1e-5, rtol=1e-4)


def test_given_filter_is_the_same_as_its_own(make_config):
    batch = mixed_batch(20, 20, 16, 3)
    field = InstantaneousResonanceField(make_config())
    torch.testing.assert_close(field(*batch, filter=field.filter(batch[0])).posteriors, field(*batch).posteriors)


def test_order_of_clips_does_not_matter(make_config):
    embeddings, cues, labels, domains = mixed_batch(30, 30, 16, 3)
    field = InstantaneousResonanceField(make_config())
    order = torch.randperm(60)
    mixed = field(embeddings[order], cues[order], labels[order], domains[order]).posteriors
    torch.testing.assert_close(mixed, field(embeddings, cues, labels, domains).posteriors[order], atol=1e-3, rtol=0)


def test_zero_rounds_leave_the_start(make_config):
    """The start is the sum of both normalised sources of knowledge; no clip but the labelled ones has a say."""
    embeddings, cues, labels, domains = mixed_batch(30, 30, 16, 3)
    field = InstantaneousResonanceField(make_config(field_rounds=0, field_balance=0.0, prior_weight=1.5))
    rows = domains == 1
    response = center_rows(field.response(embeddings, labels)(embeddings[rows], cues[rows]))
    prior = center_rows(field.prior(embeddings)(embeddings[rows], cues[rows]))
    total = response / spread(response) + 1.5 * prior / spread(prior)
    expected = (2.5**0.5 * total / spread(total)).softmax(1)
    torch.testing.assert_close(field(embeddings, cues, labels, domains).posteriors[rows], expected, atol=1e-4, rtol=0)


def test_recovers_planted_clusters(make_config):
    embeddings, cues, labels, domains, truth = planted()
    config = make_config(labels=("a", "b", "c", "d"))  # emotions the prior does not know
    posteriors = InstantaneousResonanceField(config)(embeddings, cues, labels, domains).posteriors
    assert (posteriors.argmax(1) == truth)[domains == 1].float().mean() > 0.97


def test_field_improves_on_the_response(make_config):
    """Unlabelled clips help: with one label per class and noisy clusters."""
    embeddings, cues, labels, domains, truth = planted(shots=1, noise=0.4, per_class=100)
    field = InstantaneousResonanceField(make_config(labels=("a", "b", "c", "d")))
    before = (field.response(embeddings, labels)(embeddings, cues).argmax(1) == truth).float().mean()
    after = (field(embeddings, cues, labels, domains).posteriors.argmax(1) == truth).float().mean()
    assert after > before + 0.03


def test_prior_alone_follows_the_cues(make_config):
    """Without any label, clusters of clips that sound as the profile says get that emotion."""
    config = make_config(labels=FIVE)
    profile = torch.tensor([EMOTION_PROFILE[name] for name in FIVE])
    truth = torch.arange(5).repeat(40)
    cues = (profile - profile.mean(0))[truth] * 1.5 + 0.1 * torch.randn(200, 5)
    embeddings = F.normalize(unit(5, 16)[truth] + 0.15 * torch.randn(200, 16), dim=1)
    labels, domains = torch.full((200,), UNLABELLED), torch.zeros(200, dtype=torch.long)
    posteriors = InstantaneousResonanceField(config)(embeddings, cues, labels, domains).posteriors
    assert (posteriors.argmax(1) == truth).float().mean() > 0.95


def test_prior_scores_are_the_squared_distance(make_config):
    names = ("anger", "sadness", "neutral", "fear")
    field = InstantaneousResonanceField(make_config(labels=names))
    cues, embeddings = torch.randn(9, 5), unit(9, 8)
    profile = torch.tensor([EMOTION_PROFILE[name] for name in names])
    expected = -0.5 * (cues[:, None] - (profile - profile.mean(0))).square().sum(2)
    torch.testing.assert_close(center_rows(field.prior(embeddings)(embeddings, cues)), center_rows(expected))


def test_prior_is_silent_on_unknown_emotions(make_config):
    field = InstantaneousResonanceField(make_config(labels=("anger", "boredom", "sadness")))
    scores = field.prior(torch.zeros(1, 8))(torch.zeros(20, 8), torch.randn(20, 5))
    assert torch.all(scores[:, 1] == 0) and scores[:, 0].std() > 0.1


# ------------------------------------------------------------------------------------------------ degenerate input


def identical(size=16):
    return unit(1, size).repeat(40, 1), torch.zeros(40, 5)


def check(output, n, classes):
    assert output.posteriors.shape == (n, classes)
    assert torch.isfinite(output.posteriors).all()
    torch.testing.assert_close(output.posteriors.sum(1), torch.ones(n))
    for linear in output.maps.values():
        assert all(torch.isfinite(part).all() for part in (linear.weight, linear.cue_weight, linear.bias))


@pytest.mark.parametrize("prior", [True, False], ids=["with prior", "without prior"])
@pytest.mark.parametrize("case", ["identical", "one class without sources", "one class only", "no labels",
                                  "all labelled", "one unlabelled", "target alone", "zero embeddings"])  # fmt: skip
def test_degenerate_input(case, prior, make_config):
    config = make_config(**({} if prior else {"prior_profile": {}}))
    embeddings, cues, labels, domains = mixed_batch(20, 20, 16, 3)
    if case == "identical":
        embeddings, cues = identical()
    elif case == "one class without sources":
        labels[labels == 1] = UNLABELLED
    elif case == "one class only":
        labels[labels > 0] = UNLABELLED
    elif case == "no labels":
        labels[:] = UNLABELLED
    elif case == "all labelled":
        labels[:] = torch.arange(40) % 3
    elif case == "one unlabelled":
        embeddings, cues, labels, domains = (
            embeddings[14:21],
            cues[14:21],
            torch.tensor([0, 0, 1, 1, 2, 2, -100]),
            domains[14:21],
        )
    elif case == "target alone":
        domains[:] = 1
    elif case == "zero embeddings":
        embeddings = torch.zeros_like(embeddings)
    check(InstantaneousResonanceField(config)(embeddings, cues, labels, domains), len(embeddings), 3)


def test_nothing_known_gives_the_class_prior(make_config):
    """Neither labels nor a prior profile: no emotion is preferred beyond its expected share."""
    embeddings, cues, _, domains = mixed_batch(20, 20, 16, 3)
    share = torch.tensor([0.5, 0.3, 0.2])
    field = InstantaneousResonanceField(make_config(prior_profile={}, field_balance=1.0))
    posteriors = field(embeddings, cues, torch.full((40,), UNLABELLED), domains, class_prior=share).posteriors
    torch.testing.assert_close(posteriors, share.expand(40, 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("classes", [2, 50])
def test_number_of_classes(classes, make_config):
    config = make_config(labels=tuple(f"emotion {i}" for i in range(classes)))
    batch = mixed_batch(2 * classes + 10, 60, 32, classes)
    check(InstantaneousResonanceField(config)(*batch), len(batch[0]), classes)


def test_class_prior_with_a_zero(make_config):
    embeddings, cues, labels, domains = mixed_batch(20, 20, 16, 3)
    output = InstantaneousResonanceField(make_config())(
        embeddings, cues, labels, domains, class_prior=torch.tensor([0.6, 0.4, 0.0])
    )
    check(output, 40, 3)
    assert output.posteriors[domains == 1, 2].max() < 0.01


def test_large_scale_needs_no_dense_matrix(make_config):
    """20,000 x 20,000 floats would be 1.6 GB."""
    batch = mixed_batch(2_000, 18_000, 64, 3, shots=5)
    field = InstantaneousResonanceField(make_config())
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    check(field(*batch), 20_000, 3)
    labels = torch.arange(20_000) % 3  # nor when every clip is labelled
    field.response(batch[0], labels)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024  # KiB
    assert time.monotonic() - start < 30


def test_full_precision_under_autocast(make_config):
    batch = mixed_batch(20, 20, 16, 3)
    field = InstantaneousResonanceField(make_config())
    expected = field(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = field(*batch)
    assert output.posteriors.dtype == torch.float32
    assert torch.equal(output.posteriors, expected.posteriors)
    half = field(batch[0].bfloat16(), *batch[1:])
    assert half.posteriors.dtype == torch.float32


def test_read_out_is_ridge_regression_of_the_posteriors(make_config):
    """On one domain, up to the scale and the balance's bias that every map of the field has."""
    embeddings, cues, labels, domains = mixed_batch(30, 30, 16, 3)
    domains[:] = 1
    posteriors = torch.rand(60, 3).softmax(1)
    field = InstantaneousResonanceField(make_config(field_damping=0.7, field_balance=0.0))
    read = field.read_out(embeddings, cues, labels, domains, posteriors)[1]
    taught = posteriors.clone()
    taught[labels != UNLABELLED] = F.one_hot(labels[labels != UNLABELLED], 3).float()
    gram = embeddings.T @ embeddings + 0.7 * torch.eye(16)
    expected = center_rows(torch.linalg.solve(gram, embeddings.T @ (taught - taught.mean(0))))
    scale = read.weight.norm() / expected.norm()
    torch.testing.assert_close(read.weight, scale * expected, atol=1e-4, rtol=1e-3)
    gain = (1 + field.config.prior_weight) ** 0.5
    assert float((embeddings @ read.weight).std(correction=0)) == pytest.approx(gain, rel=1e-2)


def test_the_organised_map_is_of_embeddings_alone(make_config):
    """The prior's cues have had their say in the posteriors: the start takes no part in the last round."""
    batch = mixed_batch(30, 30, 16, 3)
    output = InstantaneousResonanceField(make_config())(*batch)
    assert not any(linear.cue_weight.any() for linear in output.maps.values())


def test_linear_maps_add_scale_and_centre():
    embeddings, cues = torch.randn(6, 4), torch.randn(6, 5)
    a, b = (LinearMap(torch.randn(4, 3), torch.randn(5, 3), torch.randn(3)) for _ in range(2))
    torch.testing.assert_close((a + b * 2.0)(embeddings, cues), a(embeddings, cues) + 2 * b(embeddings, cues))
    torch.testing.assert_close(a.centered()(embeddings, cues), center_rows(a(embeddings, cues)))


# ------------------------------------------------------------------------------------------------ balance


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 80), classes=st.integers(2, 8), scale=st.floats(0, 3))
def test_balanced_column_means_equal_the_prior(seed, n, classes, scale):
    random = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(n, classes, generator=random)
    prior = (0.2 + torch.rand(classes, generator=random)).double()
    prior = (prior / prior.sum()).float()
    posteriors, bias = balanced_softmax(scores, prior, 1.0)
    torch.testing.assert_close(posteriors.mean(0), prior, atol=1e-3, rtol=0)
    torch.testing.assert_close(posteriors, (scores + bias).softmax(1))
    torch.testing.assert_close(posteriors.sum(1), torch.ones(n))


def test_no_balance_is_the_plain_softmax():
    scores = torch.randn(9, 4)
    posteriors, bias = balanced_softmax(scores, torch.full((4,), 0.25), 0.0)
    assert torch.equal(posteriors, scores.softmax(1)) and torch.all(bias == 0)


def test_balance_in_between_is_its_fixed_point_and_monotone():
    """bias = strength / (1 - strength) log(prior / share), so shares move steadily from the softmax's to the prior."""
    scores, prior = torch.randn(200, 3) + torch.tensor([2.0, 0.0, 0.0]), torch.full((3,), 1 / 3)
    distances = []
    for strength in (0.0, 0.3, 0.6, 0.9, 1.0):
        posteriors, bias = balanced_softmax(scores, prior, strength, iterations=2000)
        distances.append((posteriors.mean(0) - prior).abs().max().item())
        if 0 < strength < 1:
            expected = strength / (1 - strength) * (prior / posteriors.mean(0)).log()
            torch.testing.assert_close(bias, expected, atol=1e-3, rtol=1e-3)
    assert distances == sorted(distances, reverse=True) and distances[-1] < 1e-4 < distances[-2]


# ------------------------------------------------------------------------------------------------ TRIC


@pytest.mark.parametrize(("labelled", "unlabelled"), [(6, 10), (1, 1), (1, 5), (5, 1), (2, 2)])
def test_rows_of_the_hops_sum_to_one(labelled, unlabelled, make_config):
    hops = TripleResonanceInteractionChain(make_config()).hops(unit(labelled, 8), unit(unlabelled, 8))
    shapes = [(labelled, unlabelled), (unlabelled, unlabelled), (unlabelled, labelled)]
    assert [hop.shape for hop in hops] == shapes
    for rows in hops:
        assert (rows >= 0).all()
        torch.testing.assert_close(rows.sum(1), torch.ones(len(rows)))


def test_tric_equals_three_hops_by_hand(make_config):
    tric = TripleResonanceInteractionChain(make_config(tric_temperature=0.3))
    a, b = unit(3, 8), unit(4, 8)
    within = (b @ b.T / 0.3).exp() * (1 - torch.eye(4))
    first = (a @ b.T / 0.3).softmax(1)
    chain = first @ (within / within.sum(1, keepdim=True)) @ (b @ a.T / 0.3).softmax(1)
    home = chain @ torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    terms = tric(torch.cat([a, b]), torch.tensor([0, 0, 1, *4 * [UNLABELLED]]))
    torch.testing.assert_close(terms["tric"], -home.diagonal().log().mean())
    torch.testing.assert_close(terms["visit"], -(4 * first.mean(0)).log().mean())


def test_tric_knows_home_from_abroad(make_config):
    """Clusters that keep together have almost no loss; labels that contradict the clusters have much."""
    tric = TripleResonanceInteractionChain(make_config())
    embeddings = torch.eye(3).repeat(6, 1)
    labels = torch.full((18,), UNLABELLED)
    labels[:6] = torch.tensor([0, 1, 2, 0, 1, 2])
    right = tric(embeddings, labels)
    labels[:6] = torch.tensor([0, 1, 2, 1, 2, 0])
    wrong = tric(embeddings, labels)
    assert right["tric"] < 0.05 and wrong["tric"] > 0.5
    assert abs(right["visit"]) < 1e-3  # all are visited alike


def test_visit_rises_when_clips_are_left_out(make_config):
    tric = TripleResonanceInteractionChain(make_config())
    labelled, near = torch.eye(8)[:1].repeat(4, 1), torch.eye(8)[:1].repeat(5, 1)
    labels = torch.tensor([0, 0, 1, 1] + [UNLABELLED] * 10)
    alone = tric(torch.cat([labelled, near, torch.eye(8)[1:2].repeat(5, 1)]), labels)["visit"]
    together = tric(torch.cat([labelled, near, near]), labels)["visit"]
    assert together.abs() < 1e-5 < 1 < alone


def test_tric_trains_a_linear_map(make_config):
    """On separable clusters hidden among noise dimensions the loss falls and homecoming becomes near certain."""
    config = make_config(visit_weight=0.5)
    tric = TripleResonanceInteractionChain(config)
    truth = torch.arange(3).repeat(20)
    x = torch.cat([torch.eye(3)[truth] + 0.1 * torch.randn(60, 3), 0.7 * torch.randn(60, 12)], 1)
    labels = torch.where(torch.arange(60) < 15, truth, UNLABELLED)
    projection = torch.nn.Linear(15, 8, bias=False)
    optimizer = torch.optim.Adam(projection.parameters(), lr=0.03)
    values = []
    for _ in range(80):
        terms = tric(F.normalize(projection(x), dim=1), labels)
        loss = tric.combine(terms)
        torch.testing.assert_close(loss, terms["tric"] + 0.5 * terms["visit"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(terms["tric"].item())
    assert values[-1] < 0.3 * values[0]


@pytest.mark.parametrize("labels", [[0, 1, 2, 0], [-100] * 4], ids=["all labelled", "none labelled"])
def test_tric_is_zero_without_both_kinds(labels, make_config):
    embeddings = unit(4, 8).requires_grad_()
    terms = TripleResonanceInteractionChain(make_config())(embeddings, torch.tensor(labels))
    loss = terms["tric"] + terms["visit"]
    loss.backward()
    assert loss == 0 and torch.all(embeddings.grad == 0)


@pytest.mark.parametrize("labels", [[0, 1, 2, -100], [0, -100, -100, -100], [0, 0, -100, -100]])
def test_tric_is_finite_with_few_clips(labels, make_config):
    embeddings = unit(4, 8).requires_grad_()
    terms = TripleResonanceInteractionChain(make_config())(embeddings, torch.tensor(labels))
    (terms["tric"] + terms["visit"]).backward()
    assert all(torch.isfinite(value) for value in terms.values()) and torch.isfinite(embeddings.grad).all()


def test_tric_in_full_precision_under_autocast(make_config):
    tric, embeddings = TripleResonanceInteractionChain(make_config()), unit(6, 8)
    labels = torch.tensor([0, 1, 2, -100, -100, -100])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = tric(embeddings, labels)
    outside = tric(embeddings, labels)
    for name in ("tric", "visit"):
        assert inside[name].dtype == torch.float32 and inside[name] == outside[name]
