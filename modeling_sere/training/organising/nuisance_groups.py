"""Nuisance groups: clips that sound alike apart from their emotion, and the removal of what makes them alike.

The same sentence, voice or room makes clips resonate whatever their emotion. Once a first field tells what emotion each
clip may have, the rest of its embedding can be grouped, and what a group has in common taken away (docs/method.md,
"Nuisance").
"""

import warnings
from functools import cached_property

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import randomized_svd
from torch.nn import functional as F

from modeling_sere.resonance_sere import CHUNK

GROUP_SIZE = 20  # clips of a group on average
MAX_GROUPS = 64  # so that grouping stays linear in the number of clips
DIRECTIONS = 20  # principal directions in which clips are grouped
SHRINKAGE = 5.0  # clips' worth of evidence against a group having anything in common


def unexplained(values: torch.Tensor, posteriors: torch.Tensor) -> torch.Tensor:
    """(n, d) less all that the posteriors (n, C) explain of them: the residual of a least-squares fit."""
    gram = posteriors.T @ posteriors
    gram.diagonal().add_(1e-3)  # an emotion without clips
    return values - posteriors @ torch.linalg.solve(gram, posteriors.T @ values)


def class_means(values: torch.Tensor, posteriors: torch.Tensor) -> torch.Tensor:
    """(C, d) mean of each emotion's clips, (n, C) telling how much a clip is of each.

    A clip's posteriors times these are taken off it. Where they are unsure this leaves a part of the emotion: a group's
    lean towards one emotion is then taken away in part, as groups are expected to have all of them. That is worth 4
    points beside the exact residual.
    """
    return posteriors.T @ values / posteriors.sum(0).clamp_min(1e-6)[:, None]


class NuisanceGroups:
    """Of the clips of one domain, embeddings (n, D). A domain of fewer than 30 clips has none."""

    def __init__(self, embeddings: torch.Tensor):
        self.embeddings = embeddings
        self.count = min(MAX_GROUPS, round(len(embeddings) / GROUP_SIZE))

    @cached_property
    def coordinates(self) -> torch.Tensor:
        """(n, d) in the principal directions."""
        size = min(DIRECTIONS, *self.embeddings.shape)
        centred = self.embeddings - self.embeddings.mean(0)
        _, _, directions = randomized_svd(centred.numpy(), size, n_iter=5, random_state=0)
        return centred @ torch.from_numpy(directions.T)

    def groups(self, posteriors: torch.Tensor) -> torch.Tensor:
        """(n,) group of each clip: k-means of what the emotion does not explain of its coordinates."""
        rest = unexplained(self.coordinates, posteriors)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # copies of one clip share a group: that is right
            groups = KMeans(self.count, n_init=1, random_state=0).fit_predict(rest.numpy())
        return torch.from_numpy(groups).long()

    def removed(self, posteriors: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Embeddings (n, D) of unit length without what the clips of a group share but for their emotion, in `out`."""
        out = torch.empty_like(self.embeddings) if out is None else out
        if self.count < 2:
            return out.copy_(self.embeddings)
        groups = self.groups(posteriors)
        means = class_means(self.embeddings, posteriors)
        sums = torch.zeros(self.count, means.shape[1])
        blocks = [slice(start, start + CHUNK) for start in range(0, len(out), CHUNK)]
        for rows in blocks:
            sums.index_add_(0, groups[rows], self.embeddings[rows] - posteriors[rows] @ means)
        shared = sums / (groups.bincount(minlength=self.count) + SHRINKAGE)[:, None]
        for rows in blocks:
            out[rows] = F.normalize(self.embeddings[rows] - shared[groups[rows]], dim=1)
        return out
