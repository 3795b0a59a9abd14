"""Calibration without target labels: scores as sure as the adapted model is likely to be right.

Two witnesses share no evidence: the field from the prior alone and the field from the shots alone. How often they agree
on the target tells how right they are there, and held-out shots tell how far that can be trusted (docs/method.md,
"Calibration").
"""

import copy
from dataclasses import dataclass

import torch

from modeling_sere.resonance_sere import UNLABELLED, InstantaneousResonanceField, prior_scores
from modeling_sere.training.organising.adaptation import Adaptation, Organised

FOLDS = 5  # of the held-out shots
LEAST_TRUST = 0.8  # a few dozen held-out shots cannot show more than a fifth of the agreement to be chance
LOG_TEMPERATURES = (-1.5, 1.5)  # where they are sought: a few clips must not make scores all equal or all certain


def accuracy_of_agreement(agreement: float, num_labels: int) -> float:
    """Estimate the accuracy a of two equally good classifiers that agree this often and whose errors are independent.

    Solves `a^2 + (1 - a)^2 / (num_labels - 1) = agreement` (equation "agreement"); below what chance gives, chance.
    """
    others = num_labels - 1
    root = 1 - num_labels * (1 - others * agreement)
    return (1 + max(root, 0.0) ** 0.5) / num_labels


def temperature(logits: torch.Tensor, accuracy: float) -> float:
    """Find T for which the mean best score of `softmax(logits / T)` over the clips is `accuracy`, or the nearest in
    bounds.

    logits: (n, C).
    """
    low, high = LOG_TEMPERATURES
    for _ in range(30):
        middle = (low + high) / 2
        sure = (logits / torch.tensor(middle).exp()).softmax(1).amax(1).mean()
        low, high = (middle, high) if sure > accuracy else (low, middle)
    return float(torch.tensor((low + high) / 2).exp())


@torch.no_grad()
def witnesses_agree(adaptation: Adaptation, shots: torch.Tensor) -> torch.Tensor | None:
    """Tell for each clip whether the prior alone and the shots alone give it the same emotion.

    Args:
        shots: (n source,) class index of the labelled clips, -100 elsewhere.

    Returns:
        (n source + n target,) bool, or None where the prior is silent, so that there is one witness only.
    """
    config = adaptation.model.config
    weight, _ = prior_scores(config.prior_profile, config.labels, adaptation.target.cues)
    if not weight.any():
        return None
    without_prior = copy.copy(config)
    without_prior.prior_profile = {}
    prior_alone = _answers(adaptation, torch.full_like(shots, UNLABELLED), adaptation.field)
    shots_alone = _answers(adaptation, shots, InstantaneousResonanceField(without_prior))
    return prior_alone == shots_alone


@torch.no_grad()
def expected_accuracy(adaptation: Adaptation, shots: torch.Tensor, agree: torch.Tensor) -> float:
    """Return the share of target clips that the organised field is likely to get right (equation "expected accuracy").

    Args:
        shots: (n source,) class index of the labelled clips, -100 elsewhere. agree: what `witnesses_agree` gives.
    """
    num_labels = adaptation.model.config.num_labels
    source, target = (
        accuracy_of_agreement(float(part.mean()), num_labels)
        for part in agree.float().split([len(shots), len(agree) - len(shots)])
    )
    chance = 1 / num_labels
    trust = (_held_out_accuracy(adaptation, shots) - chance) / max(source - chance, 1e-6)
    return chance + (target - chance) * min(1.0, max(LEAST_TRUST, trust))


def _answers(adaptation: Adaptation, shots: torch.Tensor, field: InstantaneousResonanceField) -> torch.Tensor:
    """Return the class (n source + n target,) that a field gives each clip."""
    changed = copy.copy(adaptation)
    changed.field = field
    return changed.organise(shots).posteriors.argmax(1)


def held_out_folds(shots: torch.Tensor) -> list[torch.Tensor]:
    """Make masks (n,) of the labelled clips that are held out together: of each class every fifth, in the order
    given.
    """
    rank = torch.zeros_like(shots)  # of a shot among those of its class
    labelled = shots != UNLABELLED
    for k in shots[labelled].unique():
        rank[shots == k] = torch.arange(int((shots == k).sum()))
    return [labelled & (rank % FOLDS == fold) for fold in range(min(FOLDS, int(rank.max()) + 1))]


def _held_out_accuracy(adaptation: Adaptation, shots: torch.Tensor) -> float:
    """Compute the share of the shots that the field gets right when a fold of them takes part without a label."""
    right = torch.zeros_like(shots, dtype=torch.bool)
    for held_out in held_out_folds(shots):
        answers = _answers(adaptation, shots.masked_fill(held_out, UNLABELLED), adaptation.field)
        right[held_out] = answers[: len(shots)][held_out] == shots[held_out]
    return float(right[shots != UNLABELLED].float().mean())


@dataclass
class Calibrated:
    """The certainty that the answers of a run may have.

    temperature: divides the logits of single clips; 1 where there is nothing to tell it. accuracy: that the organised
    field is expected to have on the target, and agree (n source + n target,): what `witnesses_agree` gives; both None
    with one witness only.
    """

    temperature: float
    accuracy: float | None = None
    agree: torch.Tensor | None = None

    def field_scores(self, organised: Organised) -> torch.Tensor:
        """Return the field's posteriors (n target, C), as sure in the mean as the field is likely to be right."""
        posteriors = organised.posteriors[len(organised.shots) :]
        if self.accuracy is None:
            return posteriors
        logits = posteriors.clamp_min(1e-12).log()
        return (logits / temperature(logits, self.accuracy)).softmax(1)


@torch.no_grad()
def calibrate(adaptation: Adaptation, organised: Organised) -> Calibrated:
    """Find out how sure the scores of single clips and of the field may be."""
    agree = None
    if (organised.shots != UNLABELLED).any():
        agree = witnesses_agree(adaptation, organised.shots)
    if agree is None:
        return Calibrated(1.0)
    accuracy = expected_accuracy(adaptation, organised.shots, agree)
    single = adaptation.single(organised)
    logits = single(adaptation.unknown.embeddings, adaptation.unknown.cues)
    return Calibrated(temperature(logits, accuracy), accuracy, agree)
