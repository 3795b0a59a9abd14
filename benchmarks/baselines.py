"""Baselines that SERE has to beat: few-shot classifiers and domain adaptation on the same embeddings, shots and prior.

Every baseline maps a `Task` to scores of the target's clips, (m, C), on a log-like scale; `run` finds it by name. Those
whose name ends in "+prior+balance" are the same methods with the two helps that SERE's field has: its psychology prior
and the balance of the classes. Methods that assign unlabelled clips to classes get both inside, from their first
assignments on; the others at the end (`with_prior`, `with_balance`). Two baselines are what a user would pick instead,
and see no embedding of SERE's: eGeMAPS with a support vector machine, and the encoder fine-tuned on the shots.

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

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional as F
from transformers import get_linear_schedule_with_warmup

from modeling_sere.encoder_sere import SereEncoder, frame_lengths, frame_mask
from modeling_sere.resonance_sere import UNLABELLED, ResonanceFilter, balanced_softmax, center_rows, spread
from modeling_sere.training.encoding.features import collate

SHARPNESS = 2.0  # the field's own, see SereConfig.field_sharpness
DIRECTIONS = 256  # principal directions of both domains that the trained baselines see
NEIGHBOURS = 20  # of AaD
TEMPERATURE, ALPHA = 0.8, 0.9  # of label propagation: affinities, and the share of a label that comes from others


class Clips:
    """Both domains' embeddings, (n, D) and (m, D) of unit length, and what of them serves every draw of shots."""

    def __init__(self, source: torch.Tensor, target: torch.Tensor):
        self.source, self.target = source, target
        self.both = torch.cat([source, target])

    @cached_property
    def principal(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both domains, (n, d) and (m, d), in their common leading directions; cosines stay nearly the same."""
        directions = torch.linalg.eigh(self.both.T @ self.both)[1][:, -DIRECTIONS:]
        return self.source @ directions, self.target @ directions

    @cached_property
    def neighbours(self) -> torch.Tensor:
        """(m, k) the nearest target clips of each, itself apart."""
        target = self.principal[1]
        cosine = (target @ target.T).fill_diagonal_(-1)
        return cosine.topk(min(NEIGHBOURS, len(target) - 1), dim=1).indices

    @cached_property
    def propagation(self) -> torch.Tensor:
        """Cholesky factor (n + m, n + m) of `1 - alpha S`, S the normalised affinities of label propagation."""
        affinity = (self.both @ self.both.T / TEMPERATURE).exp().fill_diagonal_(0)
        degree = affinity.sum(1).rsqrt()
        return torch.linalg.cholesky(torch.eye(len(affinity)) - ALPHA * affinity * degree[:, None] * degree)


@dataclass
class Task:
    """One source-target pair and one draw of shots."""

    clips: Clips  # on SERE's own embeddings
    shots: torch.Tensor  # (n,) class index, -100 = unlabelled
    target_prior: torch.Tensor  # (m, C) scores of SERE's prior, centred over the classes and of unit spread
    source_prior: torch.Tensor  # (n, C)
    num_labels: int
    seed: int
    prior_weight: float
    egemaps: tuple[torch.Tensor, torch.Tensor] | None = None  # (n, 88), (m, 88), standardised
    fine_tuned: torch.Tensor | None = None  # (m, C) logits of the fine-tuned encoder
    known: dict[str, torch.Tensor] = field(default_factory=dict)  # scores of the methods that were run, for `run`

    @property
    def source(self) -> torch.Tensor:
        """(n, D) embeddings of unit length."""
        return self.clips.source

    @property
    def target(self) -> torch.Tensor:
        """(m, D)"""
        return self.clips.target

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
    """Return scores (m, C) centred over the classes and of unit spread, as the field does it."""
    scores = center_rows(scores)
    return scores / spread(scores)


def with_prior(scores: torch.Tensor, task: Task) -> torch.Tensor:
    """Return target scores (m, C) and the prior's, weighed as in the field's start."""
    return normalised(scores) + task.prior_weight * task.target_prior


def with_balance(scores: torch.Tensor) -> torch.Tensor:
    """Log posteriors (m, C) of the scores, their class shares brought to uniform."""
    return _balanced(SHARPNESS * normalised(scores)).clamp_min(1e-12).log()


def _balanced(logits: torch.Tensor) -> torch.Tensor:
    return balanced_softmax(logits, logits.new_full((logits.shape[1],), 1 / logits.shape[1]))[0]


# ------------------------------------------------------------------------------------------- from the shots alone


def nearest_class_mean(task: Task) -> torch.Tensor:
    """Score by the cosine with the mean of each class's shots (prototypical networks' rule; Snell et al., NeurIPS
    2017).
    """
    means = task.onehot.T @ task.source[task.labelled]
    return F.normalize(task.target, dim=1) @ F.normalize(means, dim=1).T


def ridge(task: Task, damping: float = 1.0) -> torch.Tensor:
    """Fit ridge regression to the centred classes: the field's response, and nothing after it."""
    return task.target @ _ridge_weights(task.source[task.labelled], task.onehot, damping)


def _ridge_weights(features: torch.Tensor, targets: torch.Tensor, damping: float) -> torch.Tensor:
    return ResonanceFilter(features, damping).weights(targets - targets.mean(0))


def logistic_regression(task: Task, C: float = 100.0) -> torch.Tensor:
    """Fit multinomial logistic regression on the shots."""
    return _logistic_scores(task.source[task.labelled], task.labels, task.target, C)


def _logistic_scores(features: torch.Tensor, labels: torch.Tensor, others: torch.Tensor, C: float) -> torch.Tensor:
    with threadpool_limits(1):  # so small a problem is slower on more
        classifier = LogisticRegression(C=C, max_iter=1000).fit(features.numpy(), labels.numpy())
    return torch.from_numpy(classifier.predict_log_proba(others.numpy())).float()


def coral(task: Task, shrinkage: float = 3.0, C: float = 100.0) -> torch.Tensor:
    """Recolour sources to the target's second moments, then logistic regression (Sun et al., AAAI 2016).

    `shrinkage`: added to both covariances, in units of the mean variance of a direction.
    """
    source, target = task.clips.principal
    eye = torch.eye(source.shape[1])

    def power(clips: torch.Tensor, exponent: float) -> torch.Tensor:
        covariance = clips.T.cov()
        values, vectors = torch.linalg.eigh(covariance + shrinkage * covariance.diagonal().mean() * eye)
        return (vectors * values**exponent) @ vectors.T

    recoloured = (source - source.mean(0)) @ power(source, -0.5) @ power(target, 0.5)
    return _logistic_scores(recoloured[task.labelled], task.labels, target - target.mean(0), C)


# ------------------------------------------------------------------------------------------------ semi-supervised


def _guess(task: Task, scores: torch.Tensor, guided: bool) -> torch.Tensor:
    """Return posteriors (n + m, C) of both domains' scores; guided, with the prior and balanced domain by domain."""
    if not guided:
        return torch.softmax(scores, 1)
    parts = scores.split([len(task.source), len(task.target)])
    priors = (task.source_prior, task.target_prior)
    both = [normalised(part) + task.prior_weight * prior for part, prior in zip(parts, priors, strict=True)]
    return torch.cat([with_balance(part).exp() for part in both])


def _response(task: Task) -> torch.Tensor:
    """Return ridge scores of both domains, (n + m, C)."""
    return task.clips.both @ _ridge_weights(task.source[task.labelled], task.onehot, 1.0)


def label_propagation(task: Task, guided: bool = False, trust: float = 0.1) -> torch.Tensor:
    """Spread labels over the affinity graph of both domains (Zhou et al., NeurIPS 2003), in closed form.

    Affinities are `exp(cosine / TEMPERATURE)`; what a class gains by lying in a dense region is divided out (class mass
    normalisation; Zhu et al., ICML 2003). Guided, every unlabelled clip carries `trust` times its balanced posterior
    under ridge and prior as a label.
    """
    factor = task.clips.propagation
    labels = trust * _guess(task, _response(task), guided) if guided else torch.zeros(len(factor), task.num_labels)
    labels[task.labelled] = task.onehot
    spread_out = torch.cholesky_solve(labels, factor)
    target = spread_out[len(task.source) :].clamp_min(1e-12)
    scores = (target / target.mean(0)).log()
    return with_balance(with_prior(scores, task)) if guided else scores


def self_training(
    task: Task, guided: bool = False, rounds: int = 10, last: float = 0.8, weight: float = 0.03
) -> torch.Tensor:
    """Train by class-balanced self-training: each round adds the most confident clips of every class to the shots.

    The share of clips taken, of both domains, grows linearly to `last` (CBST; Zou et al., ECCV 2018); each counts as
    `weight` shots.
    """
    clips = task.clips.both
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


def _start(task: Task, source: torch.Tensor, target: torch.Tensor, guided: bool, sharpness: float):
    """Return the ridge head (d, C) whose target logits have the given spread, and a constant (m, C) to add.

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
    """Return the head (d, C) after gradient descent with momentum on `loss(head, step)`."""
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
    """Let confident guesses on the clips teach the head on views with dropped features (Sohn et al., NeurIPS 2020).

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
    """Adapt by information maximisation and centroid pseudo-labels (SHOT; Liang et al., ICML 2020)."""
    source, target = task.clips.principal
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
    """Return the nearest centroid by cosine, twice: weighted by posteriors, then by the labels found."""
    for _ in range(2):
        labels = (features @ F.normalize(posteriors.T @ features, dim=1).T).argmax(1)
        posteriors = F.one_hot(labels, posteriors.shape[1]).float()
    return labels


def aad(
    task: Task,
    guided: bool = False,
    steps: int = 60,
    rate: float = 0.3,
    dispersion: float = 1.0,
    sharpness: float = 4.0,
) -> torch.Tensor:
    """Attract predictions to the neighbours' and disperse them from others' (AaD; Yang et al., NeurIPS 2022)."""
    source, target = task.clips.principal
    start, offset = _start(task, source, target, guided, sharpness)
    nearest = task.clips.neighbours

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
    """Adapt by minimax entropy (Saito et al., ICCV 2019): the cosine head raises the target's entropy,
    the features lower it.
    """
    source, target = task.clips.principal
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
    """Learn features that tell the emotion and not the domain (DANN; Ganin et al., JMLR 2016)."""
    source, target = task.clips.principal
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


def egemaps_version() -> str:
    """Return the version of openSMILE. Raises ImportError: it is not installed."""
    try:
        return version("opensmile")
    except ImportError as error:  # PackageNotFoundError is one
        raise ImportError('eGeMAPS needs openSMILE: pip install -e ".[benchmark]".') from error


@functools.cache
def _smile():
    egemaps_version()
    import opensmile

    return opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)


def egemaps_functionals(waveform: np.ndarray) -> np.ndarray:
    """Compute the 88 functionals of eGeMAPSv02 (Eyben et al., IEEE Trans. Affective Computing 2016), (88,) float32.

    Args:
        waveform: (samples,) float32 at 16 kHz, mono.

    Raises:
        ImportError: openSMILE is not installed.
        ValueError: openSMILE finds nothing to measure.
    """
    values = _smile()(waveform, 16_000).reshape(-1)
    if not np.isfinite(values).all():
        raise ValueError("openSMILE measures nothing in this clip: is it shorter than 100 ms? Leave it out.")
    return values.astype(np.float32)


def standardised(values: torch.Tensor, speakers: torch.Tensor | None) -> torch.Tensor:
    """Standardise functionals (n, F) within each speaker's clips, or over all where there are no ids."""
    groups = torch.zeros(len(values), dtype=torch.long) if speakers is None else speakers
    result = torch.empty_like(values)
    for g in groups.unique():
        own = values[groups == g]
        deviation = own.std(0, correction=0)
        result[groups == g] = (own - own.mean(0)) / deviation.where(deviation > 1e-6, 1.0)
    return result


def egemaps_svm(task: Task, C: float = 0.003) -> torch.Tensor:
    """Fit a linear support vector machine on the shots' functionals, one class against the rest; scores are its
    margins.
    """
    source, target = task.egemaps
    classifier = LinearSVC(C=C, class_weight="balanced", random_state=task.seed)
    classifier.fit(source[task.labelled].numpy(), task.labels.numpy())
    margins = torch.from_numpy(classifier.decision_function(target.numpy())).float()
    return torch.stack([-margins, margins], 1) if margins.ndim == 1 else margins


class EncoderClassifier(nn.Module):
    """An encoder of full depth, projector, mean over the frames, linear classifier.

    These are the layers of `WhisperForAudioClassification` and `Wav2Vec2ForSequenceClassification`. The encoder is
    `SereEncoder` because transformers' Whisper pads every clip to 30 s, at ten times the cost; padding has no other
    part in what the class computes.
    """

    def __init__(self, encoder: SereEncoder, num_labels: int, size: int = 256):
        super().__init__()
        self.encoder = encoder.requires_grad_(True)
        if hasattr(encoder.model, "feature_extractor"):  # the convolutions stay, as in transformers' example
            encoder.model.feature_extractor.requires_grad_(False)
        # what follows Whisper's last layer and is not part of its hidden states
        self.norm = encoder.model.layer_norm if encoder.model_type == "whisper" else nn.Identity()
        self.projector = nn.Linear(encoder.hidden_size, size)
        self.classifier = nn.Linear(size, num_labels)

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Map (B, N), (B, N) to logits (B, C)."""
        lengths = frame_lengths(attention_mask)
        (states,) = self.encoder(input_values, lengths).states
        real = frame_mask(lengths, states.shape[1])[..., None]
        return self.classifier((self.projector(self.norm(states)) * real).sum(1) / lengths[:, None])


def fine_tune(
    encoder: SereEncoder,
    waveforms: list[np.ndarray],
    labels: torch.Tensor,
    num_labels: int,
    seed: int,
    epochs: int = 10,
    rate: float = 3e-5,
    batch: int = 8,
    warmup: float = 0.1,
) -> EncoderClassifier:
    """Train the encoder and its head on the shots, as transformers' audio-classification example does it.

    AdamW, the rate rising over the first tenth of the steps and falling to 0. The target plays no part.

    Args:
        encoder: with weights, its only chosen layer the last one; it is copied.
        waveforms: of the labelled clips, (samples,) each. labels: (l,) their classes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EncoderClassifier(copy.deepcopy(encoder), num_labels).train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
        steps = epochs * math.ceil(len(waveforms) / batch)
        schedule = get_linear_schedule_with_warmup(optimizer, round(warmup * steps), steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(waveforms)).split(batch):
                logits = model(*collate([waveforms[row] for row in rows], "cpu"))
                optimizer.zero_grad()
                F.cross_entropy(logits, labels[rows]).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # Trainer's default
                optimizer.step()
                schedule.step()
    return model.eval()


# ------------------------------------------------------------------------------------------------------- all of them

ASSIGNING: dict[str, Callable[..., torch.Tensor]] = {  # the prior and the balance guide these from the start
    "label-propagation": label_propagation,
    "self-training": self_training,
    "fixmatch": fixmatch,
    "shot": shot,
    "aad": aad,
    "mme": mme,
}
SIMPLE: dict[str, Callable[[Task], torch.Tensor]] = {  # these score one clip as well as a pool
    "nearest-class-mean": nearest_class_mean,
    "ridge": ridge,
    "logistic-regression": logistic_regression,
}
OTHERS: dict[str, Callable[[Task], torch.Tensor]] = {
    "coral": coral,
    "dann": dann,
    "egemaps-svm": egemaps_svm,
    "fine-tuned-encoder": lambda task: task.fine_tuned,
}
PRIOR = "prior"  # the prior's scores as they are, without shots and without embeddings
BASELINES = [
    *(f"{name}{helps}" for name in SIMPLE for helps in ("", "+prior", "+prior+balance")),
    *(f"{name}{helps}" for name in (*ASSIGNING, *OTHERS) for helps in ("", "+prior+balance")),
    PRIOR,
]


def run(method: str, task: Task) -> torch.Tensor:
    """Return target scores (m, C) of one of `BASELINES`."""
    name, *helps = method.split("+")
    if name == PRIOR:
        return task.target_prior
    if helps and name in ASSIGNING:
        return ASSIGNING[name](task, guided=True)
    if name not in task.known:
        task.known[name] = (ASSIGNING | SIMPLE | OTHERS)[name](task)
    scores = task.known[name]
    if "prior" in helps:
        scores = with_prior(scores, task)
    return with_balance(scores) if "balance" in helps else scores
