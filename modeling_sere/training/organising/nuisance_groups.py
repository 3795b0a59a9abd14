"""Nuisance groups: clips that sound alike apart from their emotion, and the removal of what makes them alike.

The same sentence, voice or room makes clips resonate whatever their emotion. Once a first field tells what emotion each
clip may have, the rest of its embedding can be grouped, and what a group has in common taken away (docs/method.md,
"Nuisance").
"""

from functools import cached_property

import torch
from torch.nn import functional as F

from modeling_sere.embedding_sere import CUE_CLIP
from modeling_sere.training.organising.clusters import clusters

GROUP_SIZE = 20  # clips of a group on average
MAX_GROUPS = 64  # so that grouping stays linear in the number of clips
DIRECTIONS = 20  # principal directions in which clips are grouped
SHRINKAGE = 5.0  # clips' worth of evidence against a group having anything in common


def unexplained(values: torch.Tensor, posteriors: torch.Tensor) -> torch.Tensor:
    """Take from values (n, d) all that the posteriors (n, C) explain: the residual of a least-squares fit."""
    gram = posteriors.T @ posteriors
    gram.diagonal().add_(1e-3)  # an emotion without clips
    return values - posteriors @ torch.linalg.solve(gram, posteriors.T @ values)


def class_means(values: torch.Tensor, posteriors: torch.Tensor) -> torch.Tensor:
    """Compute the means (C, d) of each emotion's clips, (n, C) telling how much a clip is of each.

    A clip's posteriors times these are taken off it. Where they are unsure this leaves a part of the emotion: a group's
    lean towards one emotion is then taken away in part, as groups are expected to have all of them. That is worth 4
    points beside the exact residual.
    """
    return posteriors.T @ values / posteriors.sum(0).clamp_min(1e-6)[:, None]


class NuisanceGroups:
    """Groups of one domain's clips by what they share besides emotion; a domain of fewer than 30 clips has none."""

    def __init__(self, embeddings: torch.Tensor):
        self.embeddings = embeddings
        self.count = min(MAX_GROUPS, round(len(embeddings) / GROUP_SIZE))

    @cached_property
    def coordinates(self) -> torch.Tensor:
        """(n, d) in the principal directions."""
        size = min(DIRECTIONS, *self.embeddings.shape)
        centred = self.embeddings - self.embeddings.mean(0)
        return centred @ torch.linalg.eigh(centred.T @ centred)[1][:, -size:]

    def groups(self, posteriors: torch.Tensor) -> torch.Tensor:
        """Group the clips, (n,): k-means of what the emotion does not explain of its coordinates."""
        return clusters(unexplained(self.coordinates, posteriors), self.count)

    def removed(self, posteriors: torch.Tensor, cues: torch.Tensor | None = None):
        """Take away what the clips of a group share but for their emotion (equation "nuisance").

        Args:
            posteriors: (n, C). cues: (n, 5), to be treated as the embeddings are; each keeps its deviation.

        Returns:
            Embeddings (n, D) of unit length, and the cues.
        """
        if self.count < 2:
            return self.embeddings, cues
        groups = self.groups(posteriors)
        embeddings = F.normalize(self._less(self.embeddings, groups, posteriors), dim=1)
        if cues is not None:
            less = self._less(cues, groups, posteriors)
            cues = (less * (cues.std(0) / less.std(0).clamp_min(1e-6))).clamp(-CUE_CLIP, CUE_CLIP)
        return embeddings, cues

    def _less(self, values: torch.Tensor, groups: torch.Tensor, posteriors: torch.Tensor) -> torch.Tensor:
        """Return values (n, d) less the shrunk mean of their group's residuals."""
        rest = values - posteriors @ class_means(values, posteriors)
        sums = values.new_zeros(self.count, values.shape[1]).index_add_(0, groups, rest)
        return values - (sums / (groups.bincount(minlength=self.count) + SHRINKAGE)[:, None])[groups]
