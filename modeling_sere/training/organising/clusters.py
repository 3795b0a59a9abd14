"""k-means whose groups are decided by the values alone: neither by the order of the rows nor by a random start."""

import torch

from modeling_sere.resonance_sere import CHUNK

ROUNDS = 50  # of moving the centres: few clips change their group after that


def clusters(points: torch.Tensor, count: int) -> torch.Tensor:
    """Cluster points: (n,) group of each, of at most `count`. points (n, d).

    The start halves the group of most scatter along its leading direction, again and again (Su and Dy, "In search of
    deterministic methods for initializing k-means", 2007); Lloyd's steps follow. Sums are in double precision, so that
    the order in which they are taken decides no group.
    """
    points = points.double()
    groups = _halved(points, count)
    for _ in range(ROUNDS):
        nearest = _nearest(points, groups, count)
        if torch.equal(nearest, groups):
            break
        groups = nearest
    return groups


def _nearest(points: torch.Tensor, groups: torch.Tensor, count: int) -> torch.Tensor:
    """Find the (n,) group whose mean is nearest to each point; a group that has become empty stays so."""
    sizes = groups.bincount(minlength=count)
    sums = points.new_zeros(count, points.shape[1]).index_add_(0, groups, points)
    centres = sums / sizes.clamp_min(1)[:, None]
    empty = sizes == 0
    blocks = (torch.cdist(block, centres).masked_fill(empty, torch.inf) for block in points.split(CHUNK))
    return torch.cat([block.argmin(1) for block in blocks])


def _halved(points: torch.Tensor, count: int) -> torch.Tensor:
    """Halve groups: (n,) group after up to `count` - 1 halvings; points that are all alike stay together."""
    groups = torch.zeros(len(points), dtype=torch.long, device=points.device)
    scatters = [_scatter(points)]
    for new in range(1, count):
        old = max(range(new), key=lambda group: scatters[group][0])
        if scatters[old][0] <= 1e-12:
            break
        rows = (groups == old).nonzero().squeeze(1)
        _, mean, direction = scatters[old]
        groups[rows[(points[rows] - mean) @ direction > 0]] = new
        scatters[old] = _scatter(points[groups == old])
        scatters.append(_scatter(points[groups == new]))
    return groups


def _scatter(points: torch.Tensor) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Sum of squared distances from the mean, the mean (d,) and the leading direction (d,)."""
    mean = points.mean(0)
    centred = points - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    direction = vectors[:, -1]
    # a direction has no sign of its own: without one the two halves would trade names from machine to machine
    direction = direction * torch.where(direction[direction.abs().argmax()] < 0, -1.0, 1.0)
    return float(values.clamp_min(0).sum()), mean, direction
