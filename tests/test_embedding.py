"""Normalisation of features, statistics of domains, voice groups and speakers, and the cues."""

import pytest
import torch

from modeling_sere.embedding_sere import CLIP, CUE_CLIP, SereEmbedding, moments, shrunk_moments, standardise

SIZES = [7, 4, 4]  # 5 of the first block are functionals
WIDTH = sum(SIZES)


@pytest.fixture
def embedding(make_config):
    cues = torch.zeros(5, 5)
    cues[0, 0], cues[1, 0], cues[2, 1], cues[3, 2], cues[4, 3] = 0.5, -0.5, 1, -1, 1
    made = SereEmbedding(make_config(encoder_weight=2.0, num_voice_groups=2), SIZES, cues)
    made.statistics.copy_(torch.stack([torch.randn(2, WIDTH), 0.5 + torch.rand(2, WIDTH)], 1))
    return made


def test_moments_are_mean_and_population_deviation():
    features = torch.randn(20, 6) * torch.tensor([1e-3, 1, 5, 100, 1e4, 0.1]) + torch.arange(6)
    mean, std = moments(features)
    torch.testing.assert_close(mean, features.mean(0))
    torch.testing.assert_close(std, features.std(0, correction=0), rtol=1e-4, atol=0)


def test_deviation_that_is_only_rounding_counts_as_none():
    features = torch.full((1000, 2), 12345.678)
    features[:, 1] += torch.randn(1000)
    std = moments(features)[1]
    assert std[0] == 0 and std[1] > 0.5


def test_constant_features_give_zero():
    features = torch.full((9, 3), 77.7)
    assert torch.all(standardise(features, *moments(features)) == 0)
    assert torch.all(standardise(features + 1, *moments(features)) == 0)


def test_standardised_is_clipped():
    values = standardise(torch.tensor([[1e9, -1e9, 3.0]]), torch.zeros(3), torch.ones(3))
    assert values.tolist() == [[CLIP, -CLIP, 3.0]]


def test_shapes_unit_length_and_zeros(embedding):
    embeddings, cues = embedding(torch.randn(3, WIDTH))
    assert embeddings.shape == (3, WIDTH) and cues.shape == (3, 5)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    assert torch.all(embedding.embed(torch.zeros(1, WIDTH)) == 0)


def test_resonance_is_the_weighted_mean_of_the_blocks(embedding):
    """Blocks whose standardised features are all +-1 have cosines of their own; the total weighs them 1 : 2 : 2."""
    a, b = torch.randn(2, WIDTH).sign()
    blocks = zip(a.split(SIZES), b.split(SIZES), strict=True)
    cosines = torch.stack([(x * y).mean() for x, y in blocks])
    total = (embedding.embed(a[None]) * embedding.embed(b[None])).sum()
    torch.testing.assert_close(total, (cosines * torch.tensor([1.0, 2.0, 2.0])).sum() / 5)


def test_gain_scales_a_feature(embedding):
    before = embedding.scale.detach().clone()
    with torch.no_grad():
        embedding.log_gain[2] = 1.0
    after = embedding.scale / before
    torch.testing.assert_close(after[2], torch.tensor(1.0).exp())
    assert torch.all(after[torch.arange(WIDTH) != 2] == 1)


def test_voice_group_chooses_the_statistics(embedding):
    embedding.voice_weight[0, 1] = 1.0  # group 1: first functional above 0
    features = torch.randn(6, WIDTH)
    groups = (features[:, 0] > 0).long()
    assert torch.equal(embedding.voice_groups(features), groups)
    for row in range(6):
        expected = standardise(features[row : row + 1], *embedding.statistics[groups[row]])
        torch.testing.assert_close(embedding.standardised(features)[row], expected[0])


def test_statistics_can_be_given_for_all_or_each(embedding):
    features = torch.randn(3, WIDTH)
    given = torch.stack([torch.randn(3, WIDTH), 0.5 + torch.rand(3, WIDTH)], 1)
    each = embedding.standardised(features, given)
    for row in range(3):
        one = embedding.standardised(features, given[row])[row]
        torch.testing.assert_close(each[row], one)
        torch.testing.assert_close(one, standardise(features[row], *given[row]))
    same = [part[0] for part in embedding(features, given[0].expand(3, -1, -1))]
    torch.testing.assert_close(same, [part[0] for part in embedding(features, given[0])])


@pytest.mark.parametrize(
    "shape", [(2, WIDTH + 1), (3, WIDTH), (WIDTH,), (1, 2, WIDTH), (4, 2, WIDTH), (3, 1, 2, WIDTH)]
)
def test_statistics_of_another_shape_are_refused(shape, embedding):
    with pytest.raises(ValueError, match=rf"statistics must have shape \(2, {WIDTH}\)"):
        embedding(torch.randn(3, WIDTH), torch.ones(shape))


def test_cues_are_signed_means_of_functionals_clipped(embedding):
    standardised = torch.zeros(1, WIDTH)
    standardised[0, :5] = torch.tensor([1.0, 2.0, 3.0, 1.0, 0.5])
    raw = embedding.raw_cues(standardised)
    torch.testing.assert_close(raw, torch.tensor([[-0.5, 3.0, -1.0, 0.5, 0.0]]))
    embedding.cue_std.copy_(torch.tensor([0.5, 1.0, 0.1, 1.0, 0.0]))
    expected = torch.tensor([[-1.0, CUE_CLIP, -CUE_CLIP, 0.5, 0.0]])
    torch.testing.assert_close(embedding.cues(raw), expected)
    torch.testing.assert_close(embedding.cues(raw, torch.ones(5)), raw.clamp(-CUE_CLIP, CUE_CLIP))


@pytest.mark.parametrize("count", [1, 2, 5, 50])
def test_shrunk_moments_lie_between_domain_and_speaker(count):
    domain = torch.stack([torch.randn(6), 0.5 + torch.rand(6)])
    features = torch.randn(count, 6) * 3 + 5
    mean, std = shrunk_moments(features, domain)
    share = count / (count + 1)
    torch.testing.assert_close(mean, share * features.mean(0) + (1 - share) * domain[0])
    own = moments(features)[1]
    assert torch.all(std >= torch.minimum(own, domain[1]) - 1e-6)
    assert torch.all(std <= torch.maximum(own, domain[1]) + 1e-6)


def test_many_clips_outweigh_the_domain():
    features, domain = torch.randn(5000, 4) * 2 + 7, torch.stack([torch.zeros(4), torch.ones(4)])
    torch.testing.assert_close(shrunk_moments(features, domain), moments(features), rtol=0.01, atol=0.01)


def test_full_precision_under_autocast_and_from_half_features(embedding):
    features = torch.randn(3, WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = embedding(features)
    for one, other in zip(inside, embedding(features), strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other)
    assert embedding(features.bfloat16())[0].dtype == torch.float32
