"""What SERE has to beat: few-shot classifiers and domain adaptation on the very same embeddings, shots and prior.

Every baseline maps a `Task` to scores of the target's clips, (m, C), on a log-like scale. Those whose name ends in
"+prior+balance" are the same methods with the two helps that SERE's field has: its psychology prior and the balance of
the classes. Methods that adapt get both inside, from their first assignments on; for the others apply `with_prior`
and `with_balance` to the scores.

Published methods are meant for networks that are trained throughout; here they run on fixed embeddings, with a linear
bottleneck (from the identity) or a linear head as the part that adapts, and in full batches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import nn
from torch.nn import functional as F

from modeling_sere.resonance_sere import UNLABELLED, ResonanceFilter, balanced_softmax, center_rows, spread

SHARPNESS = 2.0  # the field's own, see SereConfig.field_sharpness
DIRECTIONS = 256  # principal directions of both domains that the trained baselines see


@dataclass
class Task:
    """One source-target pair and one draw of shots, on SERE's own embeddings."""

    source: torch.Tensor  # (n, D) of unit length
    target: torch.Tensor  # (m, D)
    shots: torch.Tensor  # (n,) class index, -100 = unlabelled
    target_prior: torch.Tensor  # (m, C) scores of SERE's prior, centred over the classes and of unit spread
    source_prior: torch.Tensor  # (n, C)
    num_labels: int
    seed: int
    prior_weight: float

    @property
    def labelled(self) -> torch.Tensor:
        """(l,) indices of the labelled source clips."""
        return (self.shots != UNLABELLED).nonzero().squeeze(1)

    @property
    def labels(self) -> torch.Tensor:
        """(l,) their classes."""
        return self.shots[self.labelled]

    @property
    def onehot(self) -> torch.Tensor:
        """(l, C) their classes."""
        return F.one_hot(self.labels, self.num_labels).float()


def normalised(scores: torch.Tensor) -> torch.Tensor:
    """Scores (m, C) centred over the classes and of unit spread, as the field does it."""
    scores = center_rows(scores)
    return scores / spread(scores)


def with_prior(scores: torch.Tensor, task: Task) -> torch.Tensor:
    """Target scores (m, C) and the prior's, weighed as in the field's start."""
    return normalised(scores) + task.prior_weight * task.target_prior


def with_balance(scores: torch.Tensor) -> torch.Tensor:
    """Log posteriors (m, C) of the scores, their class shares brought to uniform."""
    return _balanced(SHARPNESS * normalised(scores)).clamp_min(1e-12).log()


def _balanced(logits: torch.Tensor) -> torch.Tensor:
    return balanced_softmax(logits, logits.new_full((logits.shape[1],), 1 / logits.shape[1]))[0]


# ------------------------------------------------------------------------------------------- from the shots alone


def nearest_class_mean(task: Task) -> torch.Tensor:
    """Cosine with the mean of each class's shots (prototypical networks' rule; Snell et al., NeurIPS 2017)."""
    means = task.onehot.T @ task.source[task.labelled]
    return F.normalize(task.target, dim=1) @ F.normalize(means, dim=1).T


def ridge(task: Task, damping: float = 1.0) -> torch.Tensor:
    """Ridge regression to the centred classes: the field's response, and nothing after it."""
    return task.target @ _ridge_weights(task.source[task.labelled], task.onehot, damping)


def _ridge_weights(features: torch.Tensor, targets: torch.Tensor, damping: float) -> torch.Tensor:
    return ResonanceFilter(features, damping).weights(targets - targets.mean(0))


def logistic_regression(task: Task, C: float = 10.0) -> torch.Tensor:
    """Multinomial logistic regression on the shots."""
    return _logistic_scores(task.source[task.labelled], task.labels, task.target, C)


def _logistic_scores(features: torch.Tensor, labels: torch.Tensor, others: torch.Tensor, C: float) -> torch.Tensor:
    classifier = LogisticRegression(C=C, max_iter=1000).fit(features.numpy(), labels.numpy())
    return torch.from_numpy(classifier.predict_log_proba(others.numpy())).float()


def coral(task: Task, shrinkage: float = 0.1, C: float = 10.0) -> torch.Tensor:
    """Sources recoloured to the target's second moments, then logistic regression (Sun et al., AAAI 2016).

    `shrinkage`: added to both covariances, in units of the mean variance of a direction.
    """
    source, target = _principal(task)
    eye = torch.eye(source.shape[1])

    def power(clips: torch.Tensor, exponent: float) -> torch.Tensor:
        covariance = clips.T.cov()
        values, vectors = torch.linalg.eigh(covariance + shrinkage * covariance.diagonal().mean() * eye)
        return (vectors * values**exponent) @ vectors.T

    recoloured = (source - source.mean(0)) @ power(source, -0.5) @ power(target, 0.5)
    return _logistic_scores(recoloured[task.labelled], task.labels, target - target.mean(0), C)


# ------------------------------------------------------------------------------------------------ semi-supervised


def label_propagation(
    task: Task, guided: bool = False, neighbours: int = 10, alpha: float = 0.9, trust: float = 0.1
) -> torch.Tensor:
    """Labels spread over the neighbour graph of both domains (Zhou et al., NeurIPS 2003), in closed form.

    Guided, every unlabelled clip carries `trust` times its balanced posterior under ridge and prior as its own label.
    """
    clips = torch.cat([task.source, task.target])
    labels = torch.zeros(len(clips), task.num_labels)
    if guided:
        labels = trust * _guided_posteriors(task, ridge_scores(task), guided)
    labels[task.labelled] = task.onehot
    graph = _neighbour_graph(clips, neighbours)
    system = torch.eye(len(clips)) - alpha * graph
    spreaded = torch.cholesky_solve(labels, torch.linalg.cholesky(system))[len(task.source) :]
    scores = spreaded.clamp_min(1e-8).log()
    return with_balance(scores) if guided else scores


def _neighbour_graph(clips: torch.Tensor, neighbours: int) -> torch.Tensor:
    """(n, n) symmetric, degree-normalised affinity of each clip's nearest neighbours by cosine."""
    cosine = (clips @ clips.T).fill_diagonal_(-1)
    nearest = cosine.topk(min(neighbours, len(clips) - 1), dim=1)
    affinity = torch.zeros_like(cosine).scatter_(1, nearest.indices, nearest.values.clamp_min(1e-3))
    affinity = affinity + affinity.T
    degree = affinity.sum(1).rsqrt()
    return affinity * degree[:, None] * degree


def ridge_scores(task: Task) -> torch.Tensor:
    """Ridge scores of both domains, (n + m, C)."""
    return torch.cat([task.source, task.target]) @ _ridge_weights(task.source[task.labelled], task.onehot, 1.0)


def _guided_posteriors(task: Task, logits: torch.Tensor, guided: bool) -> torch.Tensor:
    """Posteriors (n + m, C) of both domains' scores; guided, with the prior and balanced domain by domain."""
    if not guided:
        return torch.softmax(logits, 1)
    parts = logits.split([len(task.source), len(task.target)])
    priors = (task.source_prior, task.target_prior)
    return torch.cat(
        [
            _balanced(SHARPNESS * normalised(normalised(part) + task.prior_weight * prior))
            for part, prior in zip(parts, priors, strict=True)
        ]
    )


def self_training(task: Task, guided: bool = False, rounds: int = 10, C: float = 10.0, last: float = 0.8, joint=True):
    """Class-balanced self-training: each round adds the most confident clips of every class to the shots.

    The share of clips taken grows linearly to `last` (CBST; Zou et al., ECCV 2018).
    """
    source, target = _principal(task)
    clips = torch.cat([source, target])
    features, labels = source[task.labelled], task.labels
    free = torch.ones(len(clips), dtype=torch.bool)
    free[task.labelled] = False
    if not joint:
        free[: len(source)] = False
    for r in range(rounds + 1):
        scores = _logistic_scores(features, labels, clips, C)
        if r == rounds:
            break
        posteriors = _guided_posteriors(task, scores, guided)
        quota = max(1, round(last * (r + 1) / rounds * int(free.sum()) / task.num_labels))
        confidence, guess = posteriors.max(1)
        chosen = []
        for k in range(task.num_labels):
            members = (free & (guess == k)).nonzero().squeeze(1)
            chosen.append(members[confidence[members].argsort(descending=True)[:quota]])
        chosen = torch.cat(chosen)
        features = torch.cat([source[task.labelled], clips[chosen]])
        labels = torch.cat([task.labels, guess[chosen]])
    scores = scores[len(source) :]
    return with_balance(with_prior(scores, task)) if guided else scores


def fixmatch(
    task: Task,
    guided: bool = False,
    steps: int = 150,
    rate: float = 0.02,
    threshold: float = 0.7,
    dropout: float = 0.5,
    weight: float = 1.0,
    sharpness: float = 4.0,
    batch: int = 256,
) -> torch.Tensor:
    """Confident guesses on the clips teach a linear head on views with dropped features (Sohn et al., NeurIPS 2020).

    The weak view is the embedding itself. Guided, guesses are made with the prior and aligned to uniform class shares
    (distribution alignment, as in ReMixMatch).
    """
    generator = torch.Generator().manual_seed(task.seed)
    head, offset = _start(task, task.source, task.target, guided, sharpness)
    head.requires_grad_()
    optimizer = torch.optim.Adam([head], lr=rate)
    for _ in range(steps):
        rows = torch.randint(len(task.target), (batch,), generator=generator)
        with torch.no_grad():
            logits = task.target @ head + offset
            confidence, guess = (_balanced(logits) if guided else torch.softmax(logits, 1))[rows].max(1)
        views = torch.cat([task.source[task.labelled], task.target[rows]])
        views = views * (torch.rand(views.shape, generator=generator) >= dropout) / (1 - dropout)
        logits = views @ head
        labelled, unlabelled = logits.split([len(task.labels), batch])
        loss = F.cross_entropy(labelled, task.labels) + weight * (
            F.cross_entropy(unlabelled + offset[rows], guess, reduction="none") * (confidence > threshold)
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = (task.target @ head + offset).detach()
    return with_balance(scores) if guided else scores


# ---------------------------------------------------------------------------------------------- domain adaptation


def _principal(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Both domains, (n, d) and (m, d), in their common leading directions; cosines stay nearly the same."""
    clips = torch.cat([task.source, task.target])
    size = min(DIRECTIONS, *clips.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        directions = torch.svd_lowrank(clips, q=size, niter=2)[2]
    return task.source @ directions, task.target @ directions


def _start(task: Task, source: torch.Tensor, target: torch.Tensor, guided: bool, sharpness: float):
    """Ridge head (d, C) on the shots whose target scores have the given spread, and a constant (m, C) to add to them.

    Guided, the constant holds the prior and the balance, so that the first assignments are `ridge`'s with both.
    """
    head = center_rows(_ridge_weights(source[task.labelled], task.onehot, 1.0))
    head = head * sharpness / spread(target @ head)
    if not guided:
        return head, torch.zeros(len(target), task.num_labels)
    scale = sharpness / SHARPNESS
    prior = task.prior_weight * sharpness * task.target_prior
    gain = sharpness / spread(target @ head + prior)
    bias = balanced_softmax(gain * (target @ head + prior), head.new_full((task.num_labels,), 1 / task.num_labels))[1]
    return gain * head, gain * prior + bias


def _entropy(posteriors: torch.Tensor) -> torch.Tensor:
    return -(posteriors * posteriors.clamp_min(1e-8).log()).sum(-1)


def shot(
    task: Task,
    guided: bool = False,
    steps: int = 60,
    rate: float = 0.003,
    beta: float = 0.3,
    sharpness: float = 2.0,
    refresh: int = 10,
) -> torch.Tensor:
    """Information maximisation and centroid pseudo-labels under a frozen head (SHOT; Liang et al., ICML 2020)."""
    source, target = _principal(task)
    head, offset = _start(task, source, target, guided, sharpness)
    bottleneck = torch.eye(len(head), requires_grad=True)
    optimizer = torch.optim.Adam([bottleneck], lr=rate)
    for step in range(steps):
        features = target @ bottleneck
        logits = features @ head + offset
        posteriors = torch.softmax(logits, 1)
        if step % refresh == 0:
            pseudo = _centroid_labels(features.detach(), posteriors.detach())
        information = _entropy(posteriors.mean(0)) - _entropy(posteriors).mean()
        loss = beta * F.cross_entropy(logits, pseudo) - information
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = (target @ bottleneck @ head + offset).detach()
    return with_balance(scores) if guided else scores


def _centroid_labels(features: torch.Tensor, posteriors: torch.Tensor) -> torch.Tensor:
    """Nearest of the classes' centroids by cosine, twice: weighted by posteriors, then by the labels found."""
    features = F.normalize(features, dim=1)
    for _ in range(2):
        labels = (features @ F.normalize(posteriors.T @ features, dim=1).T).argmax(1)
        posteriors = F.one_hot(labels, posteriors.shape[1]).float()
    return labels


def aad(
    task: Task,
    guided: bool = False,
    steps: int = 60,
    rate: float = 0.003,
    neighbours: int = 5,
    dispersion: float = 1.0,
    decay: float = 0.0,
    sharpness: float = 2.0,
) -> torch.Tensor:
    """Predictions attracted to the neighbours' and dispersed from all others' (AaD; Yang et al., NeurIPS 2022)."""
    source, target = _principal(task)
    head, offset = _start(task, source, target, guided, sharpness)
    nearest = (target @ target.T).fill_diagonal_(-1).topk(min(neighbours, len(target) - 1), dim=1).indices
    bottleneck = torch.eye(len(head), requires_grad=True)
    optimizer = torch.optim.Adam([bottleneck], lr=rate)
    for step in range(steps):
        posteriors = torch.softmax(target @ bottleneck @ head + offset, 1)
        attraction = (posteriors * posteriors[nearest].mean(1)).sum(1).mean()
        others = (posteriors @ posteriors.mean(0)).mean()
        loss = dispersion * (1 + 10 * step / steps) ** -decay * others - attraction
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = (target @ bottleneck @ head + offset).detach()
    return with_balance(scores) if guided else scores


class _Reversal(torch.autograd.Function):
    """Identity whose gradient is multiplied by -strength."""

    @staticmethod
    def forward(ctx, values, strength):
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.strength * gradient, None


def mme(
    task: Task,
    guided: bool = False,
    steps: int = 60,
    rate: float = 0.003,
    weight: float = 0.1,
    temperature: float = 0.1,
) -> torch.Tensor:
    """Minimax entropy (Saito et al., ICCV 2019): the cosine head raises the target's entropy, the features lower it."""
    source, target = _principal(task)
    means = F.normalize(task.onehot.T @ source[task.labelled], dim=1)
    offset = torch.zeros(len(target), task.num_labels)
    if guided:
        logits = F.normalize(target, dim=1) @ means.T / temperature
        offset = task.prior_weight * spread(center_rows(logits)) * task.target_prior
        offset = offset + balanced_softmax(logits + offset, means.new_full((len(means),), 1 / len(means)))[1]
    bottleneck = torch.eye(source.shape[1], requires_grad=True)
    prototypes = means.clone().requires_grad_()
    optimizer = torch.optim.Adam([bottleneck, prototypes], lr=rate)

    def logits_of(features: torch.Tensor) -> torch.Tensor:
        return F.normalize(features, dim=1) @ F.normalize(prototypes, dim=1).T / temperature

    for _ in range(steps):
        supervised = F.cross_entropy(logits_of(source[task.labelled] @ bottleneck), task.labels)
        reversed_features = _Reversal.apply(target @ bottleneck, 1.0)
        entropy = _entropy(torch.softmax(logits_of(reversed_features) + offset, 1)).mean()
        loss = supervised - weight * entropy
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        scores = logits_of(target @ bottleneck) + offset
    return with_balance(scores) if guided else scores


def dann(
    task: Task,
    guided: bool = False,
    steps: int = 100,
    rate: float = 0.003,
    strength: float = 0.3,
    hidden: int = 64,
    trust: float = 1.0,
    decay: float = 0.01,
) -> torch.Tensor:
    """Features that tell the emotion and not the domain (DANN; Ganin et al., JMLR 2016), in a small network.

    Guided, the network also learns the target's balanced posteriors under ridge and prior, with weight `trust`.
    """
    source, target = _principal(task)
    clips = torch.cat([source, target]) * source.shape[1] ** 0.5  # entries of unit size
    domains = torch.tensor([0.0] * len(source) + [1.0] * len(target))
    domain_weight = torch.where(domains == 0, 0.5 / len(source), 0.5 / len(target))
    guess = _guided_posteriors(task, ridge_scores(task), guided)[len(source) :] if guided else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        features = nn.Sequential(nn.Linear(clips.shape[1], hidden), nn.ReLU())
        emotion = nn.Linear(hidden, task.num_labels)
        domain = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
    parameters = [p for module in (features, emotion, domain) for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    for step in range(steps):
        hidden_features = features(clips)
        logits = emotion(hidden_features)
        ramp = 2 / (1 + np.exp(-10 * step / steps)) - 1
        told = domain(_Reversal.apply(hidden_features, strength * ramp)).squeeze(1)
        confusion = F.binary_cross_entropy_with_logits(told, domains, weight=domain_weight, reduction="sum")
        loss = F.cross_entropy(logits[task.labelled], task.labels) + confusion
        if guided:
            loss = loss + trust * F.cross_entropy(logits[len(source) :], guess)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        scores = emotion(features(clips[len(source) :]))
    return with_balance(with_prior(scores, task)) if guided else scores
