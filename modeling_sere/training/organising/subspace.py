"""The leading directions of all embeddings, in which the field is organised, and whitening within the emotions.

docs/method.md, "Leading directions" and "Passes".
"""

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from modeling_sere.resonance_sere import CHUNK
from modeling_sere.training.organising.nuisance_groups import unexplained

DIRECTIONS = 256
OVERSAMPLES, POWER_ROUNDS = 16, 3  # of the randomised singular vectors
DAMPING = 3.0  # of the whitening, in mean variances


def leading_directions(embeddings: torch.Tensor) -> torch.Tensor | None:
    """Find leading right singular vectors (D, k) about the origin, k = 256 or all; None where D is 256 at most.

    Randomised subspace iteration (Halko, Martinsson and Tropp, 2011). The random start lies on the side of the
    features, so the order of the clips plays no part, and only sums over clips are needed.
    """
    clips, size = embeddings.shape
    if size <= DIRECTIONS:
        return None
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(size, min(size, DIRECTIONS + OVERSAMPLES), generator=generator, dtype=torch.double)
    basis = start.to(embeddings.device)
    for _ in range(POWER_ROUNDS):
        basis = torch.linalg.qr(sum(block.T @ (block @ basis) for block in _blocks(embeddings)))[0]
    inner = sum((block @ basis).T @ (block @ basis) for block in _blocks(embeddings))
    return basis @ torch.linalg.eigh(inner)[1][:, -min(clips, DIRECTIONS) :]


def projected(embeddings: torch.Tensor, directions: torch.Tensor | None) -> torch.Tensor:
    """Write embeddings (n, D) in these directions, (n, d), of unit length, in double precision."""
    if directions is None:
        return embeddings.double()
    return F.normalize(torch.cat([block @ directions for block in _blocks(embeddings)]), dim=1)


def _blocks(embeddings: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield a few clips after the other, in double precision."""
    return (block.double() for block in embeddings.split(CHUNK))


def whitened(embeddings: torch.Tensor, posteriors: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Return embeddings in whose directions clips of one emotion scatter alike (equation "whitening"), of unit length.

    Args:
        embeddings: (n, d), the domains one after the other. posteriors: (n, C). sizes: clips of each domain.
    """
    scatter = embeddings.new_zeros(embeddings.shape[1], embeddings.shape[1])
    for part, told in zip(embeddings.split(sizes), posteriors.split(sizes), strict=True):
        rest = unexplained(part, told)
        scatter += rest.T @ rest
    variances, axes = torch.linalg.eigh(scatter / len(embeddings))
    variances = variances.clamp_min(0)
    return F.normalize((embeddings @ axes) * (variances + DAMPING * variances.mean()).clamp_min(1e-12).rsqrt(), dim=1)
