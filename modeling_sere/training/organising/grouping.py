"""Normalisation of a domain's clips: by voice group, by speaker, or by what of a speaker no emotion explains."""

from dataclasses import dataclass

import torch

from modeling_sere.embedding_sere import moments, shrunk_moments
from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.resonance_sere import CHUNK
from modeling_sere.training.encoding.domain import Domain
from modeling_sere.training.organising.voice_groups import GROUPS, voice_group_map

UNTIED, TIED = 0.15, 0.5  # ties of speakers and emotions up to which there is none, and from which on it is whole
OWN_CLIPS = 5.0  # weight of the domain's statistics, in clips, beside those of a speaker whose emotions are estimated


@dataclass
class Grouping:
    """The normalisation of a domain's clips: `statistics` (G, 2, D) and the group (n,) of each clip."""

    statistics: torch.Tensor
    group: torch.Tensor


@dataclass
class Voices(Grouping):
    """Grouping by voice, with the linear rule (F, G), (G,) that tells the group of any clip from its functionals."""

    weight: torch.Tensor
    bias: torch.Tensor


def voices(model: SereForAudioClassification, features: torch.Tensor) -> Voices:
    """Find the voice groups of a domain (docs/method.md, "Voice groups"); one group twice where there are none to be
    found.
    """
    cue_map = model.sere.embedding.cue_map
    functionals = features[:, : len(cue_map)]
    everyone = moments(features).expand(model.config.num_voice_groups, -1, -1)
    rule = voice_group_map(functionals, cue_map) if model.config.num_voice_groups == GROUPS else None
    if rule is None:
        weight = functionals.new_zeros(len(cue_map), len(everyone))
        return Voices(everyone, torch.zeros(len(features), dtype=torch.long), weight, weight[0])
    group = (functionals @ rule[0] + rule[1]).argmax(1)
    return Voices(torch.stack([moments(features[group == g]) for g in range(GROUPS)]), group, *rule)


def speakers(domain: Domain) -> Grouping:
    """Group clips by speaker; statistics of few clips are shrunk towards the domain's."""
    everyone = moments(domain.features)
    groups = range(int(domain.speakers.max()) + 1)
    own = [shrunk_moments(domain.features[domain.speakers == g], everyone) for g in groups]
    return Grouping(torch.stack(own), domain.speakers)


def tie(posteriors: torch.Tensor, speakers: torch.Tensor) -> float:
    """Tell how far the speakers of a domain differ in their emotions, 0 for not at all (equation "tie").

    posteriors: (n, C). speakers: (n,) index.
    """
    sizes = speakers.bincount().clamp_min(1)
    sums = posteriors.new_zeros(len(sizes), posteriors.shape[1]).index_add_(0, speakers, posteriors)
    shares, mean = sums / sizes[:, None], posteriors.mean(0)
    return float(((shares - mean).square() / mean.clamp_min(1e-9)).sum(1) @ sizes.to(shares) / len(posteriors))


def lean(tied: float) -> float:
    """Return the share, 0 to 1, of what a speaker's emotions explain of the speaker's mean that is left to them."""
    return min(1.0, max(0.0, (tied - UNTIED) / (TIED - UNTIED)))


def grounded_speakers(domain: Domain, posteriors: torch.Tensor, leaning: float) -> Grouping:
    """Group clips by speaker, the statistics being of what the emotions do not explain (equation "grounded").

    Args:
        posteriors: (n, C). leaning: share of a speaker's lean towards some emotions that is taken for emotion and not
            for voice (`lean`).
    """
    features, posteriors = domain.features, posteriors.double()
    mean = moments(features)[0].double()
    weighted = sum(q.T @ f.double() for q, f in zip(posteriors.split(CHUNK), features.split(CHUNK), strict=True))
    means = weighted / posteriors.sum(0).clamp_min(1e-6)[:, None] - mean
    count = int(domain.speakers.max()) + 1
    sums = features.new_zeros(count, 4, features.shape[1], dtype=torch.double)
    for rows in torch.arange(len(features), device=features.device).split(CHUNK):
        explained = posteriors[rows] @ means
        rest = features[rows] - mean - explained
        values = torch.stack([rest, rest.square(), explained, explained.square()], 1)
        sums.index_add_(0, domain.speakers[rows], values)
    sizes = domain.speakers.bincount(minlength=count)[:, None].double()
    rest, between = (sums / sizes[..., None])[:, :2], (sums / sizes[..., None])[:, 2:]
    overall = _variances(sums.sum(0)[None] / len(features))
    own = _variances(sums / sizes[..., None])
    share = sizes / (sizes + OWN_CLIPS)
    centre = mean + share * (rest[:, 0] + (1 - leaning) * between[:, 0])
    variance = own[:, 0] + leaning * overall[:, 1] + (1 - leaning) * own[:, 1]
    std = (share * variance + (1 - share) * overall.sum(1)).sqrt()
    return Grouping(torch.stack([centre, std * (std > 1e-6 * centre.abs())], 1).to(features.dtype), domain.speakers)


def _variances(means: torch.Tensor) -> torch.Tensor:
    """Return (G, 2, D) of what the emotions leave and of what they explain, from means of values and of squares (G, 4,
    D).
    """
    return (means[:, 1::2] - means[:, ::2].square()).clamp_min(0)
