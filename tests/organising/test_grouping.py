"""Statistics of speakers: with every emotion, with some, and the tie between the two."""

import pytest
import torch
from torch.nn import functional as F

from modeling_sere.training.encoding.domain import Domain
from modeling_sere.training.organising.grouping import grounded_speakers, lean, tie

SIZE = 6


def test_tie_is_nothing_where_speakers_show_all_emotions_alike():
    emotions, speakers = torch.arange(60) % 3, torch.arange(60) // 3 % 4
    assert tie(F.one_hot(emotions).float(), speakers) == pytest.approx(0, abs=1e-6)


def test_tie_is_whole_where_each_speaker_has_an_emotion_alone():
    emotions = torch.arange(60) % 3
    assert tie(F.one_hot(emotions).float(), emotions) == pytest.approx(2, abs=1e-5)
    assert lean(2.0) == 1


def test_lean_is_bounded():
    assert (lean(0.0), lean(0.15), lean(0.5)) == (0, 0, 1)
    assert 0 < lean(0.3) < 1


@pytest.fixture
def tied():
    """A domain of two speakers, each with one emotion more than the other, their offsets and the one-hot emotions."""
    emotions = torch.tensor([0] * 150 + [1] * 50 + [0] * 50 + [1] * 150)
    speakers = torch.arange(400) // 200
    offsets, means = 3 * torch.randn(2, SIZE), 2 * torch.randn(2, SIZE)
    features = means[emotions] + offsets[speakers] + torch.randn(400, SIZE)
    return Domain(features, speakers), offsets, F.one_hot(emotions).float(), means


def test_emotions_of_a_speaker_are_not_taken_for_the_voice(tied):
    """As if both had the same emotions: their centres then differ by the offsets, give or take the estimate."""
    domain, offsets, posteriors, means = tied
    wanted = offsets[0] - offsets[1]
    told = (wanted + 0.5 * (means[0] - means[1]),)  # what the mean of a speaker's clips tells

    def error(leaning):
        centres = grounded_speakers(domain, posteriors, leaning).statistics[:, 0]
        return float((centres[0] - centres[1] - wanted).norm())

    assert error(1.0) < error(0.0)
    assert error(0.0) == pytest.approx(float((told[0] - wanted).norm()), rel=0.3)


def test_without_a_lean_the_centre_is_the_speaker_s_own(tied):
    domain, _, posteriors, _ = tied
    statistics = grounded_speakers(domain, posteriors, 0.0).statistics
    for speaker in range(2):
        own = domain.features[domain.speakers == speaker].mean(0)
        torch.testing.assert_close(statistics[speaker, 0], own, atol=0.15, rtol=0)


def test_a_constant_feature_has_no_deviation(tied):
    domain, _, posteriors, _ = tied
    domain.features[:, 2] = 1234.567
    assert not grounded_speakers(domain, posteriors, 0.5).statistics[:, 1, 2].any()


def test_order_of_the_clips_does_not_matter(tied):
    domain, _, posteriors, _ = tied
    order = torch.randperm(400)
    shuffled = Domain(domain.features[order], domain.speakers[order])
    one, other = grounded_speakers(domain, posteriors, 0.5), grounded_speakers(shuffled, posteriors[order], 0.5)
    torch.testing.assert_close(one.statistics, other.statistics, atol=1e-4, rtol=1e-5)
