"""Adaptation in closed form: what is organised is what the model answers, and all of it travels."""

import pytest
import torch

from modeling_sere import SereForAudioClassification
from modeling_sere.embedding_sere import moments, shrunk_moments
from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.encoding.domain import Domain
from modeling_sere.training.organising import passes
from modeling_sere.training.organising.adaptation import Adaptation
from modeling_sere.training.organising.carried_sources import Sources
from modeling_sere.training.organising.view import View

CLASSES, SHOTS = 3, 4


def domain(size: int, count: int, seed: int, speakers: int = 0) -> tuple[Domain, torch.Tensor]:
    """Random raw features around a mean per class and per speaker, and the classes."""
    random = torch.Generator().manual_seed(seed)
    classes = torch.arange(count) % CLASSES
    means = 2 * torch.randn(CLASSES, size, generator=torch.Generator().manual_seed(99))
    features = means[classes] + torch.randn(count, size, generator=random)
    voices = None
    if speakers:
        voices = torch.arange(count) // CLASSES % speakers
        features = features + 5 * torch.randn(speakers, size, generator=random)[voices]
    return Domain(features, voices), classes


@pytest.fixture
def model(make_model):
    return make_model(num_sources=CLASSES * SHOTS)


@pytest.fixture
def setup(model):
    """(speakers=0) -> an Adaptation, the target's domain and classes, and the shots."""

    def make(speakers: int = 0):
        size = model.classifier.in_features
        source, classes = domain(size, 30, 1, speakers)
        target, references = domain(size, 42, 2, speakers)
        shots = torch.full((30,), UNLABELLED)
        shots[: CLASSES * SHOTS] = classes[: CLASSES * SHOTS]
        return Adaptation(model, source, target), target, references, shots

    return make


def posteriors(adaptation: Adaptation, shots: torch.Tensor) -> torch.Tensor:
    """The organised field's, over the target."""
    return adaptation.organise(shots).posteriors[len(shots) :]


def told(posteriors: torch.Tensor, shots: torch.Tensor) -> torch.Tensor:
    """A label is surer than the field."""
    result = posteriors.clone()
    labelled = shots != UNLABELLED
    result[: len(shots)][labelled] = torch.eye(CLASSES)[shots[labelled]].to(result)
    return result


def test_model_answers_single_clips_as_the_read_out(model, setup):
    adaptation, target, _, shots = setup()
    organised = adaptation.organise(shots)
    adaptation.install(organised)
    labels = torch.cat([shots, torch.full((len(target),), UNLABELLED)])
    embeddings = torch.cat([adaptation.source.embeddings, adaptation.target.embeddings])
    cues = torch.cat([adaptation.source.cues, adaptation.target.cues])
    maps = adaptation.field.read_out(embeddings, cues, labels, adaptation.domains, organised.posteriors)
    expected = maps[1](adaptation.target.embeddings, adaptation.target.cues)
    for row in range(len(target)):
        with torch.no_grad():
            logits = model.classify(model.sere.embedding(target.features[row : row + 1])[0])
        torch.testing.assert_close(logits[0], expected[row], rtol=1e-4, atol=1e-4)


def test_without_passes_and_nuisance_rounds_there_is_one_field(model, setup):
    model.config.nuisance_rounds = model.config.field_passes = 0
    adaptation, target, _, shots = setup()
    labels = torch.cat([shots, torch.full((len(target),), UNLABELLED)])
    view = View([adaptation.source, adaptation.target])
    result = adaptation.field(view.embeddings, view.cues, labels, adaptation.domains)
    torch.testing.assert_close(adaptation.organise(shots).posteriors, result.posteriors.float())


def test_a_nuisance_round_removes_what_the_last_posteriors_show(model, setup):
    model.config.nuisance_rounds = model.config.field_passes = 0
    adaptation, target, _, shots = setup()
    first = adaptation.organise(shots)
    model.config.nuisance_rounds = 1
    second = adaptation.organise(shots)
    view = View([adaptation.source, adaptation.target])
    embeddings, cues = view.without_nuisance(told(first.posteriors.double(), shots), of_cues=True)
    assert not torch.allclose(embeddings, view.embeddings, atol=1e-3)
    labels = torch.cat([shots, torch.full((len(target),), UNLABELLED)])
    result = adaptation.field(embeddings, cues, labels, adaptation.domains)
    torch.testing.assert_close(second.posteriors, result.posteriors.float())


def test_a_pass_whitens_by_the_posteriors_of_the_one_before(model, setup, monkeypatch):
    monkeypatch.setattr(passes, "POOL", 1)
    model.config.nuisance_rounds = model.config.field_passes = 0
    adaptation, target, _, shots = setup()
    first = adaptation.organise(shots)
    model.config.field_passes = 1
    second = adaptation.organise(shots)
    view = View([adaptation.source, adaptation.target]).whitened(told(first.posteriors.double(), shots))
    labels = torch.cat([shots, torch.full((len(target),), UNLABELLED)])
    result = adaptation.field(view.embeddings, view.cues, labels, adaptation.domains)
    torch.testing.assert_close(second.posteriors, result.posteriors.float())


def test_speakers_of_one_emotion_each_do_not_take_it_for_their_voice(model):
    """Whose every clip is angry is no angry voice: without that, two thirds of the classes would be lost."""
    model.config.prior_profile, model.config.num_voice_groups = {}, 1
    size = model.classifier.in_features
    source, classes = domain(size, 60, 1, speakers=3)
    target, references = domain(size, 120, 2)
    offsets = torch.randn(6, size, generator=torch.Generator().manual_seed(5))
    speakers = references * 2 + torch.arange(120) // CLASSES % 2  # two speakers for each emotion
    target = Domain(target.features + offsets[speakers], speakers)
    shots = torch.where(torch.arange(60) < CLASSES * SHOTS, classes, UNLABELLED)
    organised = Adaptation(model, source, target).organise(shots)
    assert organised.tied > 1
    assert (organised.posteriors[60:].argmax(1) == references).float().mean() > 0.8


def test_tie_is_told_for_speaker_ids_alone(setup):
    for speakers, most in ((0, None), (3, 0.15)):
        adaptation, _, _, shots = setup(speakers=speakers)
        tied = adaptation.organise(shots).tied
        assert tied is None if most is None else 0 <= tied < most


def test_clusters_around_the_shots_are_found(model, setup):
    model.config.prior_profile, model.config.num_voice_groups = {}, 1  # random cues and voices tell nothing
    adaptation, _, references, shots = setup()
    assert (posteriors(adaptation, shots).argmax(1) == references).float().mean() > 0.8


def test_single_map_knows_the_emotions_of_unknown_speakers(model, setup):
    adaptation, target, references, shots = setup(speakers=3)
    adaptation.install(adaptation.organise(shots))
    with torch.no_grad():
        logits = model.classify(model.sere.embedding(target.features)[0])
    assert (logits.argmax(1) == references).float().mean() > 0.6


def test_statistics_are_those_of_each_speaker(setup):
    adaptation, target, _, shots = setup(speakers=3)
    statistics, group = adaptation.clip_statistics()
    assert statistics.shape[0] == 6
    assert group[: len(shots)].max() == 2
    assert group[len(shots) :].min() == 3
    for speaker in range(3):
        own = target.features[target.speakers == speaker]
        torch.testing.assert_close(statistics[3 + speaker], shrunk_moments(own, moments(target.features)))


def test_speaker_offsets_hardly_reach_the_embeddings(model):
    size = model.classifier.in_features
    source, _ = domain(size, 30, 1, speakers=3)
    target, _ = domain(size, 120, 2, speakers=3)
    moved = target.features + torch.arange(3.0)[target.speakers][:, None] * 3

    def agreement(speakers):
        plain = Adaptation(model, source, target).target.embeddings
        shifted = Adaptation(model, source, Domain(moved, speakers)).target.embeddings
        return (plain * shifted).sum(1).mean()

    assert agreement(target.speakers) > 0.9
    assert agreement(None) < 0.8


def test_voice_rule_in_the_model_is_the_grouping_of_the_adaptation(model, setup):
    adaptation, target, _, shots = setup(speakers=2)
    adaptation.install(adaptation.organise(shots))
    assert torch.equal(model.sere.embedding.voice_groups(target.features), adaptation.voices.group)
    torch.testing.assert_close(model.sere.embedding.statistics, adaptation.voices.statistics)


def test_few_clips_form_one_group(model):
    size = model.classifier.in_features
    adaptation = Adaptation(model, domain(size, 30, 1)[0], domain(size, 7, 2)[0])
    assert not adaptation.voices.group.any()
    assert not adaptation.voices.weight.any()
    torch.testing.assert_close(adaptation.voices.statistics[0], adaptation.voices.statistics[1])


def test_labelled_sources_travel_without_nuisance(model, setup, tmp_path):
    adaptation, target, _, shots = setup(speakers=2)
    organised = adaptation.organise(shots)
    adaptation.install(organised)
    model.save_pretrained(tmp_path)
    loaded = SereForAudioClassification.from_pretrained(tmp_path)
    labelled = shots != UNLABELLED
    assert torch.equal(loaded.source_labels, shots[labelled])
    torch.testing.assert_close(loaded.source_embeddings, organised.sources.embeddings)
    torch.testing.assert_close(loaded.source_cues, organised.sources.cues)
    with torch.no_grad():
        again = loaded.classify(loaded.sere.embedding(target.features)[0])
        torch.testing.assert_close(again, model.classify(model.sere.embedding(target.features)[0]))


def test_organising_again_with_other_shots_leaves_the_adaptation_as_it_was(setup):
    adaptation, _, _, shots = setup()
    first = adaptation.organise(shots)
    adaptation.organise(shots.flip(0))
    again = adaptation.organise(shots)
    for name in ("prototype", "response"):
        assert torch.equal(getattr(first, name).weight, getattr(again, name).weight)
    assert torch.equal(first.posteriors, again.posteriors)
    assert torch.equal(adaptation.single(first).weight, adaptation.single(again).weight)


@pytest.mark.parametrize("speakers", [0, 4])
def test_order_of_the_clips_does_not_matter(model, speakers):
    size = model.classifier.in_features
    source, classes = domain(size, 300, 1, speakers)
    target, _ = domain(size, 420, 2, speakers)
    shots = torch.where(torch.arange(300) < CLASSES * SHOTS, classes, UNLABELLED)
    orders = torch.randperm(300), torch.randperm(420)
    shuffled = Adaptation(model, source.subset(orders[0].tolist()), target.subset(orders[1].tolist()))
    one, other = Adaptation(model, source, target).organise(shots), shuffled.organise(shots[orders[0]])
    expected = torch.cat([one.posteriors[:300][orders[0]], one.posteriors[300:][orders[1]]])
    torch.testing.assert_close(other.posteriors, expected, rtol=1e-2, atol=1e-3)
    assert torch.equal(other.posteriors.argmax(1), expected.argmax(1))


def test_subset_counts_speakers_anew():
    whole, _ = domain(4, 12, 0, speakers=4)
    part = whole.subset([11, 4, 3])  # speakers 3, 1, 1
    assert part.speakers.tolist() == [1, 0, 0]
    assert torch.equal(part.features, whole.features[[11, 4, 3]])
    assert Domain(whole.features).subset([1]).speakers is None


@pytest.mark.parametrize("count", [1, 2])
def test_tiny_target(model, count):
    size = model.classifier.in_features
    target = Domain(domain(size, count, 2)[0].features, torch.arange(count))
    source, classes = domain(size, 12, 1)
    adaptation = Adaptation(model, source, target)
    organised = adaptation.organise(classes)
    assert organised.posteriors.isfinite().all()
    assert adaptation.single(organised)(adaptation.unknown.embeddings, adaptation.unknown.cues).isfinite().all()


def test_sources_of_a_checkpoint_take_the_place_of_a_source_corpus(model, setup):
    whole, target, references, shots = setup(speakers=2)
    organised = whole.organise(shots)
    whole.install(organised)
    sources = Sources(model, model.config.labels)
    assert torch.equal(sources.references, shots[shots != UNLABELLED]) and sources.shots == SHOTS
    free = Adaptation(model, sources.domain, target)
    again = free.organise(sources.references)
    answers = again.posteriors[len(sources) :].argmax(1)
    assert (answers == organised.posteriors[len(shots) :].argmax(1)).float().mean() > 0.9
    assert again.sources.embeddings.shape == sources.domain.embeddings.shape


def test_several_sources_are_domains_of_their_own(model):
    """One whose features lie elsewhere altogether takes nothing from the other, as each has its own statistics."""
    model.config.prior_profile, model.config.num_voice_groups = {}, 1
    size = model.classifier.in_features
    (one, classes), (other, _), (target, references) = (domain(size, 60, seed) for seed in (1, 2, 3))
    other = Domain(50 + 3 * other.features)
    shots = torch.where(torch.arange(60) < CLASSES * SHOTS, classes, UNLABELLED)
    organised = Adaptation(model, [one, other], target).organise(torch.cat([shots, shots]))
    assert len(organised.source_labels) == 2 * CLASSES * SHOTS
    assert (organised.posteriors[120:].argmax(1) == references).float().mean() > 0.9


def test_labels_of_the_target_help_and_travel(model):
    model.config.prior_profile, model.config.num_voice_groups = {}, 1
    size = model.classifier.in_features
    source, classes = domain(size, 60, 1)
    target, references = domain(size, 90, 2)
    target = Domain(target.features[:, torch.randperm(size)])  # nothing of the source tells anything here
    shots = torch.where(torch.arange(60) < CLASSES * SHOTS, classes, UNLABELLED)
    some = torch.where(torch.arange(90) < 5 * CLASSES, references, UNLABELLED)

    def right(marked):
        adaptation = Adaptation(model, source, target, marked)
        organised = adaptation.organise(shots)
        adaptation.install(organised)
        return float((organised.posteriors[60:].argmax(1) == references)[15:].float().mean())

    assert right(some) > right(None) + 0.2
    assert model.config.num_sources == len(model.source_labels) == CLASSES * SHOTS  # of the last, which had none
    right(some)
    assert model.config.num_sources == len(model.source_embeddings) == CLASSES * SHOTS + 15


def test_an_emotion_that_does_not_occur_is_given_no_share(model):
    model.config.prior_profile, model.config.num_voice_groups = {}, 1
    size = model.classifier.in_features
    source, classes = domain(size, 120, 1)
    target, references = domain(size, 360, 2)
    there = references != 1
    shots = torch.where(torch.arange(120) < CLASSES * SHOTS, classes, UNLABELLED)
    organised = Adaptation(model, source, Domain(target.features[there])).organise(shots)
    assert organised.absent == [1]
    assert (organised.posteriors[120:].argmax(1) == 1).float().mean() < 0.05
    assert Adaptation(model, source, target).organise(shots).absent == []
