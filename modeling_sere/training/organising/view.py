"""All domains as the field sees them: normalised in one way, in their leading joint directions."""

import copy
from dataclasses import dataclass
from functools import cached_property

import torch

from modeling_sere.embedding_sere import moments
from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.resonance_sere import CHUNK
from modeling_sere.training.organising.grouping import Grouping
from modeling_sere.training.organising.nuisance_groups import NuisanceGroups
from modeling_sere.training.organising.subspace import leading_directions, projected, whitened


@dataclass
class Embedded:
    """A domain's embeddings (n, D), standardised cues (n, 5), and the deviation (5,) that standardised them.

    The sources of a checkpoint come without the deviation: nothing else will be standardised as they were.
    """

    embeddings: torch.Tensor
    cues: torch.Tensor
    cue_std: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeddings)


@torch.no_grad()
def embed(model: SereForAudioClassification, features: torch.Tensor, grouping: Grouping) -> Embedded:
    """Normalise a domain's raw features (n, D) group by group (docs/method.md, "Embedding")."""
    embedding = model.sere.embedding
    embeddings = torch.empty_like(features)
    cue_map = embedding.cue_map.double()
    raw = features.new_empty(len(features), cue_map.shape[1], dtype=torch.double)
    for g in range(len(grouping.statistics)):
        for rows in (grouping.group == g).nonzero().squeeze(1).split(CHUNK):
            standardised = embedding.standardised(features[rows], grouping.statistics[g])
            embeddings[rows] = embedding.embed(standardised)
            raw[rows] = standardised[:, : len(cue_map)].double() @ cue_map
    cue_std = moments(raw)[1]
    return Embedded(embeddings, embedding.cues(raw, cue_std).to(features), cue_std.to(features))


def joined(parts: list[Embedded]) -> Embedded:
    """Join several domains to one, without the deviations; one alone stays itself."""
    if len(parts) == 1:
        return parts[0]
    return Embedded(torch.cat([part.embeddings for part in parts]), torch.cat([part.cues for part in parts]))


class View:
    """All domains, normalised in one way, in their leading joint directions (equation "projection").

    embeddings: (n, d) of unit length, the target last, in double precision, so that no order in which sums are
    taken decides a group of clips. cues: (n, 5). sizes: clips of each domain. directions: (D, d),
    or None where the embeddings are whole.
    """

    def __init__(self, parts: list[Embedded]):
        self.sizes = [len(part) for part in parts]
        embeddings, cues = torch.cat([part.embeddings for part in parts]), torch.cat([part.cues for part in parts])
        self.directions = leading_directions(embeddings)
        self.embeddings, self.cues = projected(embeddings, self.directions), cues.double()

    def whitened(self, told: torch.Tensor) -> "View":
        """Return the same clips, scattering alike in all directions within an emotion. told (n, C): their emotions."""
        changed = copy.copy(self)
        changed.embeddings = whitened(self.embeddings, told, self.sizes)
        changed.__dict__.pop("nuisance", None)  # it was that of the other embeddings
        return changed

    @cached_property
    def nuisance(self) -> list[NuisanceGroups]:
        """Groups of each domain's clips that share more than their emotion."""
        return [NuisanceGroups(part) for part in self.embeddings.split(self.sizes)]

    def without_nuisance(self, told: torch.Tensor, of_cues: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return embeddings and cues without nuisance; the cues keep theirs unless `of_cues`. told (n, C)."""
        parts = zip(self.nuisance, told.split(self.sizes), self.cues.split(self.sizes), strict=True)
        removed = [groups.removed(part, cues if of_cues else None) for groups, part, cues in parts]
        embeddings = torch.cat([embeddings for embeddings, _ in removed])
        return embeddings, torch.cat([cues for _, cues in removed]) if of_cues else self.cues

    def lifted(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Bring (m, d) in the leading directions back to (m, D) in those of the features."""
        return (embeddings if self.directions is None else embeddings @ self.directions.T).float()
