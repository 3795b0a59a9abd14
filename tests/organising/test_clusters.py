"""k-means without chance: the values decide the groups."""

import pytest
import torch

from modeling_sere.training.organising.clusters import clusters


def same_partition(one: torch.Tensor, other: torch.Tensor) -> bool:
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(one.unique()) == len(other.unique())


def test_groups_that_lie_apart_are_found():
    truth = torch.arange(200) % 7
    points = 10 * torch.randn(7, 5)[truth] + 0.1 * torch.randn(200, 5)
    assert same_partition(clusters(points, 7), truth)


@pytest.mark.parametrize("count", [2, 12])
def test_order_of_the_rows_does_not_matter(count):
    points, order = torch.randn(300, 6), torch.randperm(300)
    assert torch.equal(clusters(points[order], count), clusters(points, count)[order])


def test_every_point_is_nearest_to_its_own_centre():
    points = torch.randn(300, 4).double()
    groups = clusters(points, 9)
    centres = torch.stack([points[groups == group].mean(0) for group in groups.unique()])
    assert torch.equal(groups.unique()[torch.cdist(points, centres).argmin(1)], groups)


@pytest.mark.parametrize("points", [torch.zeros(20, 3), torch.ones(1, 2), torch.tensor([[0.0], [0.0], [1.0]])])
def test_copies_share_a_group(points):
    groups = clusters(points, 5)
    assert len(groups.unique()) == len(points.unique(dim=0))
