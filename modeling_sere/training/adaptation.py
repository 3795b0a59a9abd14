"""Adapting a model to a target domain in closed form: statistics, field, and what of them stays in the model."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from modeling_sere.embedding_sere import moments
from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.resonance_sere import UNLABELLED, InstantaneousResonanceField, LinearMap

SOURCE, TARGET = 0, 1  # domain numbers inside the field


@dataclass
class Domain:
    """Clips of one domain as the field sees them.

    features: (n, D) raw. speakers: (n,) index of the speaker, or None without ids.
    """

    features: torch.Tensor
    speakers: torch.Tensor | None = None

    @classmethod
    def of(cls, values: np.ndarray, speakers: list[str] | None) -> "Domain":
        """From an array and a list of speaker names."""
        index = None if speakers is None else torch.from_numpy(np.unique(speakers, return_inverse=True)[1])
        return cls(torch.from_numpy(np.ascontiguousarray(values)), index)

    def __len__(self) -> int:
        return len(self.features)

    def subset(self, rows: list[int]) -> "Domain":
        """These rows, in this order."""
        speakers = None if self.speakers is None else self.speakers[rows].unique(return_inverse=True)[1]
        return Domain(self.features[rows], speakers)

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(G, 2, D) statistics of each speaker (one group without ids) and (n,) the group of each clip."""
        if self.speakers is None:
            return moments(self.features)[None], torch.zeros(len(self), dtype=torch.long)
        groups = int(self.speakers.max()) + 1
        return torch.stack([moments(self.features[self.speakers == g]) for g in range(groups)]), self.speakers


@dataclass
class Embedded:
    """A domain's embeddings (n, D), standardised cues (n, 5), and the deviation (5,) that standardised them."""

    embeddings: torch.Tensor
    cues: torch.Tensor
    cue_std: torch.Tensor


@dataclass
class Organised:
    """What one draw of shots gives, stage by stage, each as a map from embedding and cues to scores (C).

    prototype: cosine with each class's mean embedding. response: ridge on the shots alone. field: the organised field,
    whose softmax over the clips it was organised with are its posteriors.
    """

    shots: torch.Tensor  # (n source,) class index or -100
    prototype: LinearMap
    response: LinearMap
    field: LinearMap


@torch.no_grad()
def embed(model: SereForAudioClassification, domain: Domain) -> Embedded:
    """Normalise a domain by its own statistics (docs/method.md, "Embedding")."""
    embedding = model.sere.embedding
    statistics, group = domain.statistics()
    standardised = torch.empty_like(domain.features)
    for g in range(len(statistics)):
        standardised[group == g] = embedding.standardised(domain.features[group == g], statistics[g])
    raw = embedding.raw_cues(standardised)
    cue_std = moments(raw)[1]
    return Embedded(embedding.embed(standardised), embedding.cues(raw, cue_std), cue_std)


class Adaptation:
    """The closed-form part: both domains embedded once, the field organised for any draw of shots.

    Args:
        model: gives embedding and constants; `install` leaves an organised field in it.
        source, target: domains with raw features; their labels are not read.
    """

    @torch.no_grad()
    def __init__(self, model: SereForAudioClassification, source: Domain, target: Domain):
        self.model, self.target_features = model, target.features
        self.source, self.target = embed(model, source), embed(model, target)
        self.field = InstantaneousResonanceField(model.config)
        self.embeddings = torch.cat([self.source.embeddings, self.target.embeddings])
        self.cues = torch.cat([self.source.cues, self.target.cues])
        self.domains = torch.tensor([SOURCE] * len(source) + [TARGET] * len(target))
        self.filter = self.field.filter(self.embeddings)

    @torch.no_grad()
    def organise(self, shots: torch.Tensor) -> Organised:
        """Run the field. shots (n source,): class index of the labelled clips, -100 elsewhere."""
        everything = torch.cat([shots, shots.new_full((len(self.target.embeddings),), UNLABELLED)])
        result = self.field(self.embeddings, self.cues, everything, self.domains, filter=self.filter)
        classes = range(self.model.config.num_labels)
        means = torch.stack([self.source.embeddings[shots == k].mean(0) for k in classes])
        return Organised(
            shots=shots,
            prototype=LinearMap.of_embeddings(F.normalize(means, dim=1).T),
            response=self.field.response(self.embeddings, everything),
            field=result.maps[TARGET],
        )

    @torch.no_grad()
    def install(self, organised: Organised) -> None:
        """Leave in the model all that travels: the organised map, the target's statistics, the labelled sources."""
        model, embedding = self.model, self.model.sere.embedding
        model.adopt(organised.field)
        embedding.statistics.copy_(moments(self.target_features)[None])
        embedding.cue_std.copy_(self.target.cue_std)
        labelled = organised.shots != UNLABELLED
        model.source_embeddings.copy_(self.source.embeddings[labelled])
        model.source_cues.copy_(self.source.cues[labelled])
        model.source_labels.copy_(organised.shots[labelled])
