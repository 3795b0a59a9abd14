"""Leading directions and whitening."""

import pytest
import torch
from torch.nn import functional as F

from modeling_sere.training.organising import subspace
from modeling_sere.training.organising.subspace import leading_directions, whitened


@pytest.fixture
def embeddings():
    """(400, 300) of unit length, with a spectrum that falls."""
    return F.normalize(torch.randn(400, 300) * torch.arange(1, 301) ** -0.7, dim=1)


def test_directions_hold_as_much_as_the_singular_vectors(embeddings, monkeypatch):
    monkeypatch.setattr(subspace, "DIRECTIONS", 40)
    found = leading_directions(embeddings).float()
    torch.testing.assert_close(found.T @ found, torch.eye(40), atol=1e-5, rtol=0)
    best = torch.linalg.svdvals(embeddings)[:40].square().sum()
    assert (embeddings @ found).square().sum() > 0.999 * best


def test_order_of_the_clips_does_not_matter(embeddings, monkeypatch):
    monkeypatch.setattr(subspace, "DIRECTIONS", 40)
    one, other = (leading_directions(rows) for rows in (embeddings, embeddings[torch.randperm(400)]))
    torch.testing.assert_close(one @ one.T, other @ other.T, atol=1e-4, rtol=0)


def test_few_features_stay_as_they_are():
    assert leading_directions(torch.randn(500, subspace.DIRECTIONS)) is None


def test_few_clips_keep_all_that_tells_them_apart():
    few = F.normalize(torch.randn(12, 300), dim=1)
    found = leading_directions(few).float()
    assert found.shape == (300, 12)
    torch.testing.assert_close(few @ found @ found.T, few, atol=1e-5, rtol=0)


def test_whitening_keeps_what_tells_emotions_apart_and_evens_out_the_rest():
    emotions = torch.arange(600) % 3
    loud = torch.tensor([8.0] + [0.3] * 9)  # one direction is of anything but emotion
    embeddings = F.normalize(torch.randn(3, 10)[emotions] + torch.randn(600, 10) * loud, dim=1)
    posteriors = F.one_hot(emotions).float()
    after = whitened(embeddings, posteriors, [200, 400])
    torch.testing.assert_close(after.norm(dim=1), torch.ones(600))

    def within(values):
        centred = values - torch.stack([values[emotions == k].mean(0) for k in range(3)])[emotions]
        return centred.square().sum() / (values - values.mean(0)).square().sum()

    assert within(after) < within(embeddings)


def test_whitening_of_clips_that_are_all_alike_is_defined():
    same = F.normalize(torch.ones(50, 6), dim=1)
    assert whitened(same, torch.full((50, 3), 1 / 3), [20, 30]).isfinite().all()
