"""What SERE has to beat: few-shot classifiers and domain adaptation on the very same embeddings, shots and prior.

Every baseline maps a `Task` to scores of the target's clips, (m, C), on a log-like scale. Those whose name ends in
"+prior+balance" are the same methods with the two helps that SERE's field has: its psychology prior and the balance of
the classes. Methods that assign unlabelled clips to classes get both inside, from their first assignments on; for the
simple ones apply `with_prior` and `with_balance` to the scores.

Published methods are meant for networks that are trained throughout; here they run on fixed embeddings and in full
batches. What adapts is a linear head that starts from the ridge response; where a method trains features against a
head (MME, DANN), a linear bottleneck that starts from the identity stands for the network.

The defaults are one set for all tasks. They were chosen by UAR on pseudo-targets inside one corpus (shots from half of
the speakers of EmoDB, EMOVO, CASIA or RAVDESS, the other half as the target; with and without speaker ids, one set for
a method with and without the helps). No score across two corpora took part, but for one tie: CORAL's shrinkage 1 and 3
are 0.3 points apart inside, and 3 is the better one across. The ridge keeps the field's damping; 0.3 gains 0.8 inside
and nothing across. Without the helps, stronger adaptation loses, inside and across: SHOT and AaD at ten times the rate
with softer starts 4 to 9 points, self-training whose pseudo-labels count like shots 5 to 12.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits
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


def logistic_regression(task: Task, C: float = 100.0) -> torch.Tensor:
    """Multinomial logistic regression on the shots."""
    return _logistic_scores(task.source[task.labelled], task.labels, task.target, C)


def _logistic_scores(features: torch.Tensor, labels: torch.Tensor, others: torch.Tensor, C: float) -> torch.Tensor:
    with threadpool_limits(1):  # so small a problem is slower on more
        classifier = LogisticRegression(C=C, max_iter=1000).fit(features.numpy(), labels.numpy())
    return torch.from_numpy(classifier.predict_log_proba(others.numpy())).float()


def coral(task: Task, shrinkage: float = 3.0, C: float = 100.0) -> torch.Tensor:
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


def _guess(task: Task, scores: torch.Tensor, guided: bool) -> torch.Tensor:
    """Posteriors (n + m, C) of both domains' scores; guided, with the prior and balanced domain by domain."""
    if not guided:
        return torch.softmax(scores, 1)
    parts = scores.split([len(task.source), len(task.target)])
    priors = (task.source_prior, task.target_prior)
    both = [normalised(part) + task.prior_weight * prior for part, prior in zip(parts, priors, strict=True)]
    return torch.cat([with_balance(part).exp() for part in both])


def _response(task: Task) -> torch.Tensor:
    """Ridge scores of both domains, (n + m, C)."""
    return torch.cat([task.source, task.target]) @ _ridge_weights(task.source[task.labelled], task.onehot, 1.0)


def label_propagation(
    task: Task, guided: bool = False, temperature: float = 0.8, alpha: float = 0.9, trust: float = 0.1
) -> torch.Tensor:
    """Labels spread over the affinity graph of both domains (Zhou et al., NeurIPS 2003), in closed form.

    Affinities are `exp(cosine / temperature)`; what a class gains by lying in a dense region is divided out (class mass
    normalisation; Zhu et al., ICML 2003). Guided, every unlabelled clip carries `trust` times its balanced posterior
    under ridge and prior as a label.
    """
    clips = torch.cat([task.source, task.target])
    labels = trust * _guess(task, _response(task), guided) if guided else torch.zeros(len(clips), task.num_labels)
    labels[task.labelled] = task.onehot
    affinity = (clips @ clips.T / temperature).exp().fill_diagonal_(0)
    degree = affinity.sum(1).rsqrt()
    graph = affinity * degree[:, None] * degree
    spread_out = torch.cholesky_solve(labels, torch.linalg.cholesky(torch.eye(len(clips)) - alpha * graph))
    target = spread_out[len(task.source) :].clamp_min(1e-12)
    scores = (target / target.mean(0)).log()
    return with_balance(with_prior(scores, task)) if guided else scores


def self_training(
    task: Task, guided: bool = False, rounds: int = 10, last: float = 0.8, weight: float = 0.03
) -> torch.Tensor:
    """Class-balanced self-training: each round adds the most confident clips of every class to the shots.

    The share of clips taken, of both domains, grows linearly to `last` (CBST; Zou et al., ECCV 2018); each counts as
    `weight` shots.
    """
    clips = torch.cat([task.source, task.target])
    free = torch.ones(len(clips), dtype=torch.bool)
    free[task.labelled] = False
    shots = task.source[task.labelled]
    scores = _response(task)
    for r in range(1, rounds + 1):
        confidence, guess = _guess(task, SHARPNESS * normalised(scores), guided).max(1)
        quota = max(1, round(last * r / rounds * int(free.sum()) / task.num_labels))
        chosen = []
        for k in range(task.num_labels):
            members = (free & (guess == k)).nonzero().squeeze(1)
            chosen.append(members[confidence[members].argsort(descending=True)[:quota]])
        chosen = torch.cat(chosen)
        labels = F.one_hot(guess[chosen], task.num_labels).float()
        features = torch.cat([shots, weight**0.5 * clips[chosen]])
        targets = torch.cat([center_rows(task.onehot), weight**0.5 * center_rows(labels)])
        scores = clips @ ResonanceFilter(features, 1.0).weights(targets)
    scores = scores[len(task.source) :]
    return with_balance(with_prior(scores, task)) if guided else scores


# ------------------------------------------------------------------------- heads that adapt to the unlabelled target


def _principal(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Both domains, (n, d) and (m, d), in their common leading directions; cosines stay nearly the same."""
    clips = torch.cat([task.source, task.target])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        directions = torch.svd_lowrank(clips, q=min(DIRECTIONS, *clips.shape), niter=2)[2]
    return task.source @ directions, task.target @ directions


def _start(task: Task, source: torch.Tensor, target: torch.Tensor, guided: bool, sharpness: float):
    """Ridge head (d, C) whose target logits have the given spread, and a constant (m, C) that is added to them.

    Guided, the constant holds the prior and the balance: the first assignments are those of ridge with both.
    """
    head = center_rows(_ridge_weights(source[task.labelled], task.onehot, 1.0))
    head = head * sharpness / spread(target @ head)
    if not guided:
        return head, torch.zeros(len(target), task.num_labels)
    prior = task.prior_weight * sharpness * task.target_prior
    uniform = head.new_full((task.num_labels,), 1 / task.num_labels)
    return head, prior + balanced_softmax(target @ head + prior, uniform)[1]


def _descend(head: torch.Tensor, loss: Callable, steps: int, rate: float) -> torch.Tensor:
    """The head (d, C) after gradient descent with momentum on `loss(head, step)`."""
    head = head.clone().requires_grad_()
    optimizer = torch.optim.SGD([head], lr=rate, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        loss(head, step).backward()
        optimizer.step()
    return head.detach()


def _entropy(posteriors: torch.Tensor) -> torch.Tensor:
    return -(posteriors * posteriors.clamp_min(1e-8).log()).sum(-1)


def fixmatch(
    task: Task,
    guided: bool = False,
    steps: int = 100,
    rate: float = 1.0,
    threshold: float = 0.8,
    dropout: float = 0.5,
    weight: float = 1.0,
    sharpness: float = 2.0,
    batch: int = 128,
    refresh: int = 10,
) -> torch.Tensor:
    """Confident guesses on the clips teach the head on views with dropped features (Sohn et al., NeurIPS 2020).

    The weak view is the embedding itself. Guided, guesses are made with the prior and aligned to uniform class shares
    (distribution alignment, as in ReMixMatch).
    """
    generator = torch.Generator().manual_seed(task.seed)
    start, offset = _start(task, task.source, task.target, guided, sharpness)
    shots = task.source[task.labelled]
    guess = None

    def loss(head, step):
        nonlocal guess
        if step % refresh == 0:
            logits = (task.target @ head + offset).detach()
            guess = (_balanced(logits) if guided else torch.softmax(logits, 1)).max(1)
        rows = torch.randint(len(task.target), (batch,), generator=generator)
        views = torch.cat([shots, task.target[rows]])
        views = views * (torch.rand(views.shape, generator=generator) >= dropout) / (1 - dropout)
        labelled, unlabelled = (views @ head).split([len(shots), batch])
        taught = F.cross_entropy(unlabelled + offset[rows], guess.indices[rows], reduction="none")
        confident = guess.values[rows] > threshold
        return F.cross_entropy(labelled, task.labels) + weight * (taught * confident).mean()

    scores = task.target @ _descend(start, loss, steps, rate) + offset
    return with_balance(scores) if guided else scores


def shot(
    task: Task,
    guided: bool = False,
    steps: int = 60,
    rate: float = 0.3,
    beta: float = 0.1,
    sharpness: float = 4.0,
    refresh: int = 10,
) -> torch.Tensor:
    """Information maximisation and centroid pseudo-labels (SHOT; Liang et al., ICML 2020)."""
    source, target = _principal(task)
    start, offset = _start(task, source, target, guided, sharpness)
    pseudo = None

    def loss(head, step):
        nonlocal pseudo
        logits = target @ head + offset
        posteriors = torch.softmax(logits, 1)
        if step % refresh == 0:
            pseudo = _centroid_labels(target, posteriors.detach())
        information = _entropy(posteriors.mean(0)) - _entropy(posteriors).mean()
        return beta * F.cross_entropy(logits, pseudo) - information

    scores = target @ _descend(start, loss, steps, rate) + offset
    return with_balance(scores) if guided else scores


def _centroid_labels(features: torch.Tensor, posteriors: torch.Tensor) -> torch.Tensor:
    """Nearest of the classes' centroids by cosine, twice: weighted by posteriors, then by the labels found."""
    for _ in range(2):
        labels = (features @ F.normalize(posteriors.T @ features, dim=1).T).argmax(1)
        posteriors = F.one_hot(labels, posteriors.shape[1]).float()
    return labels


def aad(
    task: Task,
    guided: bool = False,
    steps: int = 60,
    rate: float = 0.3,
    neighbours: int = 20,
    dispersion: float = 1.0,
    sharpness: float = 4.0,
) -> torch.Tensor:
    """Predictions attracted to the neighbours' and dispersed from all others' (AaD; Yang et al., NeurIPS 2022)."""
    source, target = _principal(task)
    start, offset = _start(task, source, target, guided, sharpness)
    cosine = (target @ target.T).fill_diagonal_(-1)
    nearest = cosine.topk(min(neighbours, len(target) - 1), dim=1).indices

    def loss(head, step):
        posteriors = torch.softmax(target @ head + offset, 1)
        attraction = (posteriors * posteriors[nearest].mean(1)).sum(1).mean()
        return dispersion * posteriors.mean(0).square().sum() - attraction

    scores = target @ _descend(start, loss, steps, rate) + offset
    return with_balance(scores) if guided else scores


# ------------------------------------------------------------------------------- features trained against a head


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
    rate: float = 0.001,
    weight: float = 0.1,
    temperature: float = 0.1,
) -> torch.Tensor:
    """Minimax entropy (Saito et al., ICCV 2019): the cosine head raises the target's entropy, the features lower it."""
    source, target = _principal(task)
    shots = source[task.labelled]
    prototypes = F.normalize(_ridge_weights(shots, task.onehot, 1.0), dim=0).requires_grad_()
    bottleneck = torch.eye(source.shape[1], requires_grad=True)

    def logits_of(features: torch.Tensor) -> torch.Tensor:
        return F.normalize(features, dim=1) @ F.normalize(prototypes, dim=0) / temperature

    offset = torch.zeros(len(target), task.num_labels)
    if guided:
        logits = logits_of(target).detach()
        offset = task.prior_weight * spread(center_rows(logits)) * task.target_prior
        offset = offset + balanced_softmax(logits + offset, offset.new_full((task.num_labels,), 1 / task.num_labels))[1]
    optimizer = torch.optim.Adam([bottleneck, prototypes], lr=rate)
    for _ in range(steps):
        supervised = F.cross_entropy(logits_of(shots @ bottleneck), task.labels)
        posteriors = torch.softmax(logits_of(_Reversal.apply(target @ bottleneck, 1.0)) + offset, 1)
        optimizer.zero_grad()
        (supervised - weight * _entropy(posteriors).mean()).backward()
        optimizer.step()
    scores = (logits_of(target @ bottleneck) + offset).detach()
    return with_balance(scores) if guided else scores


def dann(
    task: Task, steps: int = 60, rate: float = 0.0001, strength: float = 0.1, sharpness: float = 4.0
) -> torch.Tensor:
    """Features that tell the emotion and not the domain (DANN; Ganin et al., JMLR 2016)."""
    source, target = _principal(task)
    head, _ = _start(task, source, target, False, sharpness)
    bottleneck = torch.eye(len(head), requires_grad=True)
    head.requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        domain = nn.Sequential(nn.Linear(len(head), 64), nn.ReLU(), nn.Linear(64, 1))
    clips, domains = torch.cat([source, target]), torch.tensor([0.0] * len(source) + [1.0] * len(target))
    share = torch.where(domains == 0, 0.5 / len(source), 0.5 / len(target))  # both domains count alike
    optimizer = torch.optim.Adam([bottleneck, head, *domain.parameters()], lr=rate)
    for step in range(steps):
        features = clips @ bottleneck
        ramp = 2 / (1 + math.exp(-10 * step / steps)) - 1
        told = domain(_Reversal.apply(len(head) ** 0.5 * features, strength * ramp)).squeeze(1)
        confusion = F.binary_cross_entropy_with_logits(told, domains, weight=share, reduction="sum")
        optimizer.zero_grad()
        (F.cross_entropy(features[task.labelled] @ head, task.labels) + confusion).backward()
        optimizer.step()
    return (target @ bottleneck @ head).detach()


# --------------------------------------------------------------------------------------- what a user would pick instead


def egemaps_functionals(waveforms: list[np.ndarray]) -> torch.Tensor:
    """The 88 functionals of eGeMAPSv02 (Eyben et al., IEEE Trans. Affective Computing 2016), (n, 88).

    Args:
        waveforms: float32 at 16 kHz, mono, each (samples,).

    Raises:
        ImportError: openSMILE is not installed.
        ValueError: openSMILE finds nothing to measure in a clip.
    """
    try:
        import opensmile
    except ImportError as error:
        raise ImportError("The eGeMAPS baseline needs openSMILE: pip install opensmile.") from error
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    values = np.stack([smile(waveform, 16_000).reshape(-1) for waveform in waveforms])
    broken = np.flatnonzero(~np.isfinite(values).all(1))
    if len(broken):
        raise ValueError(f"openSMILE measures nothing in clip {broken[0]}: is it shorter than 100 ms? Leave it out.")
    return torch.from_numpy(values).float()


def svm(source: torch.Tensor, shots: torch.Tensor, target: torch.Tensor, C: float = 0.003) -> torch.Tensor:
    """Linear support vector machine, one class against the rest; scores are its margins (m, C).

    Args:
        source, target: (n, F) and (m, F), already standardised per speaker or per corpus.
        shots: (n,), -100 = unlabelled.
    """
    labelled = shots != UNLABELLED
    classifier = LinearSVC(C=C, class_weight="balanced").fit(source[labelled].numpy(), shots[labelled].numpy())
    margins = torch.from_numpy(classifier.decision_function(target.numpy())).float()
    return torch.stack([-margins, margins], 1) if margins.ndim == 1 else margins


# ------------------------------------------------------------------------------------------------------- all of them

ASSIGNING = {  # methods that assign unlabelled clips to classes on their way: the prior and the balance guide that
    "label-propagation": label_propagation,
    "self-training": self_training,
    "fixmatch": fixmatch,
    "shot": shot,
    "aad": aad,
    "mme": mme,
}
ALIGNING = {"coral": coral, "dann": dann}  # methods that do not: they get both at the end


def _helped(method: Callable[[Task], torch.Tensor], task: Task) -> torch.Tensor:
    return with_balance(with_prior(method(task), task))


BASELINES: dict[str, Callable[[Task], torch.Tensor]] = {
    "nearest-class-mean": nearest_class_mean,
    "ridge": ridge,
    "logistic-regression": logistic_regression,
    **ASSIGNING,
    **ALIGNING,
    **{f"{name}+prior+balance": partial(method, guided=True) for name, method in ASSIGNING.items()},
    **{f"{name}+prior+balance": partial(_helped, method) for name, method in ALIGNING.items()},
}
