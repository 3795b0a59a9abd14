import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modeling_sere.training.organising.nuisance_groups import (
    GROUP_SIZE,
    MAX_GROUPS,
    NuisanceGroups,
    class_means,
    unexplained,
)

SIZE, CLASSES, SENTENCES = 24, 3, 5


@pytest.fixture
def clips():
    """Embeddings (200, D) of unit length made of an emotion, a sentence and noise; emotions and sentences."""
    emotions, sentences = torch.randint(CLASSES, (200,)), torch.randint(SENTENCES, (200,))
    values = torch.randn(CLASSES, SIZE)[emotions] + 3 * torch.randn(SENTENCES, SIZE)[sentences]
    return F.normalize(values + torch.randn(200, SIZE), dim=1), emotions, sentences


def without_means(values, posteriors):
    return values - posteriors @ class_means(values, posteriors)


@pytest.mark.parametrize("without", [unexplained, without_means])
def test_classes_have_one_mean_afterwards(clips, without):
    embeddings, emotions, _ = clips
    rest = without(embeddings, F.one_hot(emotions).float())
    for k in range(CLASSES):
        torch.testing.assert_close(rest[emotions == k].mean(0), torch.zeros(SIZE), atol=1e-4, rtol=0)


def test_unsure_posteriors_explain_as_much_as_sure_ones(clips):
    embeddings, emotions, _ = clips
    sure = F.one_hot(emotions).float()
    rest = unexplained(embeddings, 0.5 * sure + 0.5 / CLASSES)
    torch.testing.assert_close(rest, unexplained(embeddings, sure), atol=1e-3, rtol=0)


@pytest.mark.parametrize("without", [unexplained, without_means])
def test_a_class_without_clips_changes_nothing(clips, without):
    embeddings, emotions, _ = clips
    posteriors = F.one_hot(emotions, CLASSES + 1).float()
    torch.testing.assert_close(without(embeddings, posteriors), without(embeddings, posteriors[:, :CLASSES]))


def test_groups_are_sentences_and_not_emotions(clips):
    embeddings, emotions, sentences = clips
    groups = NuisanceGroups(embeddings).groups(F.one_hot(emotions).float())

    def purity(parts):
        each = [parts[groups == group] for group in groups.unique()]
        return np.mean([(part == part.mode().values).float().mean() for part in each])

    assert purity(sentences) > 0.95 and purity(emotions) < 0.75


def test_removed_is_what_sentences_share(clips):
    embeddings, emotions, sentences = clips
    posteriors = F.one_hot(emotions).float()

    def share(values, parts):
        """Of the variance, how much lies between the parts."""
        centred = values - values.mean(0)
        between = sum((parts == part).sum() * centred[parts == part].mean(0).square().sum() for part in parts.unique())
        return float(between / centred.square().sum())

    removed, _ = NuisanceGroups(embeddings).removed(posteriors)
    torch.testing.assert_close(removed.norm(dim=1), torch.ones(200))
    assert share(removed, sentences) < 0.3 * share(embeddings, sentences)
    assert share(removed, emotions) > 2 * share(embeddings, emotions)


def test_an_emotion_with_sentences_of_its_own_keeps_what_tells_it(clips):
    """Where words and emotion go together, what the posteriors explain is not taken away."""
    embeddings, _, sentences = clips
    posteriors = F.one_hot(sentences).float()
    removed, _ = NuisanceGroups(embeddings).removed(posteriors)
    assert (removed * embeddings).sum(1).mean() > 0.9


@pytest.mark.parametrize("count", [1, 2, GROUP_SIZE, 29])
def test_few_clips_stay_as_they_are(count):
    embeddings = F.normalize(torch.randn(count, SIZE), dim=1)
    assert torch.equal(NuisanceGroups(embeddings).removed(torch.full((count, CLASSES), 1 / CLASSES))[0], embeddings)


@pytest.mark.parametrize("copies", [F.normalize(torch.ones(60, SIZE), dim=1), torch.zeros(60, SIZE)])
def test_copies_of_one_clip(copies, recwarn):
    removed, _ = NuisanceGroups(copies).removed(torch.full((60, CLASSES), 1 / CLASSES))
    torch.testing.assert_close(removed, copies)
    assert not recwarn.list


def test_groups_are_bounded_and_repeatable():
    embeddings = F.normalize(torch.randn(GROUP_SIZE * (MAX_GROUPS + 10), SIZE), dim=1)
    posteriors = torch.randn(len(embeddings), CLASSES).softmax(1)
    first, again = NuisanceGroups(embeddings), NuisanceGroups(embeddings.clone())
    assert first.count == MAX_GROUPS
    assert torch.equal(first.removed(posteriors)[0], again.removed(posteriors)[0])


def test_cues_lose_what_groups_share_and_keep_their_deviation(clips):
    embeddings, emotions, sentences = clips
    posteriors = F.one_hot(emotions).float()
    of_sentence = torch.tensor([2.0, -2.0, 0.0, 1.0, -1.0])[sentences]
    cues = torch.stack([of_sentence + torch.randn(200), emotions - 1.0 + 0.1 * torch.randn(200)], 1)
    _, removed = NuisanceGroups(embeddings).removed(posteriors, cues)

    def told(values, parts):
        return torch.corrcoef(torch.stack([values, parts.float()]))[0, 1].abs()

    assert told(removed[:, 0], of_sentence) < 0.6 * told(cues[:, 0], of_sentence)
    assert told(removed[:, 1], emotions) > 0.95
    torch.testing.assert_close(removed.std(0), cues.std(0), rtol=0.2, atol=0)  # some are clipped
