"""Nuisance groups: clips that sound alike apart from their emotion, and the removal of what makes them alike.

The same sentence, voice or room makes clips resonate whatever their emotion. Once a first field tells what emotion each
clip may have, the rest of its embedding can be grouped, and what a group has in common taken away (docs/method.md,
"Nuisance").
"""

import warnings
from functools import cached_property

import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from torch.nn import functional as F

GROUP_SIZE = 20  # clips of a group on average
MAX_GROUPS = 64  # so that grouping stays linear in the number of clips
DIRECTIONS = 20  # principal directions in which clips are grouped
SHRINKAGE = 5.0  # clips' worth of evidence against a group having anything in common


def without_emotion(values: torch.Tensor, posteriors: torch.Tensor) -> torch.Tensor:
    """(n, d) less the mean of each clip's emotion as far as the posteriors (n, C) tell it."""
    means = posteriors.T @ values / posteriors.sum(0).clamp_min(1e-6)[:, None]
    return values - posteriors @ means


class NuisanceGroups:
    """Of the clips of one domain, embeddings (n, D). A domain of fewer than 30 clips has none."""

    def __init__(self, embeddings: torch.Tensor):
        self.embeddings = embeddings
        self.count = min(MAX_GROUPS, round(len(embeddings) / GROUP_SIZE))

    @cached_property
    def coordinates(self) -> torch.Tensor:
        """(n, d) in the principal directions."""
        size = min(DIRECTIONS, *self.embeddings.shape)
        pca = PCA(size, svd_solver="randomized", random_state=0)
        return torch.from_numpy(pca.fit_transform(self.embeddings.numpy()))

    def groups(self, posteriors: torch.Tensor) -> torch.Tensor:
        """(n,) group of each clip: k-means of what is left of its coordinates without the emotion."""
        rest = without_emotion(self.coordinates, posteriors)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # copies of one clip share a group: that is right
            groups = KMeans(self.count, n_init=1, random_state=0).fit_predict(rest.numpy())
        return torch.from_numpy(groups).long()

    def removed(self, posteriors: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, D) of unit length without what the clips of a group share but for their emotion."""
        if self.count < 2:
            return self.embeddings
        groups = self.groups(posteriors)
        rest = without_emotion(self.embeddings, posteriors)
        sums = rest.new_zeros(self.count, rest.shape[1]).index_add_(0, groups, rest)
        shared = sums / (groups.bincount(minlength=self.count) + SHRINKAGE)[:, None]
        return F.normalize(self.embeddings - shared[groups], dim=1)
