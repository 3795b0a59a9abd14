"""Scores on the target: of the right clips, with the right embeddings."""

import numpy as np
import pytest
import torch

from modeling_sere.training.corpora.corpus import Clip, Corpus
from modeling_sere.training.encoding.domain import Domain
from modeling_sere.training.encoding.features import Features
from modeling_sere.training.encoding.pool import Pool
from modeling_sere.training.organising.adaptation import Adaptation
from modeling_sere.training.reporting.evaluation import Evaluation, spread

LABELS = ["anger", "happiness", "sadness"]
SHOTS = torch.arange(12) % 3


@pytest.fixture
def model(make_model):
    return make_model(num_sources=len(SHOTS))


@pytest.fixture
def make(model):
    """(unlabelled) -> Adaptation on a pool of 30 target clips, and the pool; the clips listed have no label."""

    def make(unlabelled=()):
        random = np.random.default_rng(0)
        means = random.normal(size=(3, model.classifier.in_features)).astype(np.float32)
        truth = np.arange(30) % 3
        values = means[truth] + random.normal(size=(30, means.shape[1])).astype(np.float32)
        clips = [
            Clip(row, f"clip{row}", None if row in unlabelled else LABELS[truth[row]], f"s{row % 2}")
            for row in range(30)
        ]
        found = Features(values, list(range(30)), [str(row) for row in range(30)], [], np.arange(30) / 50)
        pool = Pool(Corpus("target", clips, None, {}, audio=None), found, LABELS, speaker_ids=True)
        sources = means[SHOTS] + random.normal(size=(len(SHOTS), means.shape[1])).astype(np.float32)
        return Adaptation(model, Domain(torch.from_numpy(sources)), pool.domain), pool

    return make


def recalls(predictions: torch.Tensor, references: torch.Tensor) -> list[float]:
    return [float((predictions[references == k] == k).float().mean()) for k in references.unique()]


def test_transductive_scores_are_those_of_the_field(make):
    adaptation, pool = make()
    organised = adaptation.organise(SHOTS)
    evaluation = Evaluation(adaptation, pool, list(range(30)), "transductive")
    scores = evaluation.stages(organised)
    embedded = adaptation.target.embeddings, adaptation.target.cues
    answers = {
        "uar": organised.posteriors[len(SHOTS) :],
        "uar_before": organised.response(*embedded),
        "uar_prototype": organised.prototype(*embedded),
    }
    for name, scored in answers.items():
        assert scores[name] == pytest.approx(np.mean(recalls(scored.argmax(1), pool.references)))
    confusion = np.array(scores["confusion"])
    assert confusion.sum() == 30
    assert scores["uar"] == pytest.approx((confusion.diagonal() / confusion.sum(1)).mean())
    assert list(scores["per_class_recall"]) == LABELS


def test_inductive_scores_are_those_of_the_saved_model(model, make):
    adaptation, pool = make()
    rows = [1, 3, 5, 7, 11, 12, 20]
    organised = adaptation.organise(SHOTS)
    adaptation.install(organised)
    scores = Evaluation(adaptation, pool, rows, "inductive").scores(organised)
    with torch.no_grad():
        predictions = model.classify(model.sere.embedding(pool.domain.features[rows])[0]).argmax(1)
    assert scores["uar"] == pytest.approx(np.mean(recalls(predictions, pool.references[rows])))
    assert np.sum(scores["confusion"]) == len(rows)


def test_clips_without_a_label_are_not_scored(make):
    adaptation, pool = make(unlabelled=(0, 4, 29))
    evaluation = Evaluation(adaptation, pool, list(range(30)), "transductive")
    assert len(evaluation) == 27
    organised = adaptation.organise(SHOTS)
    kept = [row for row in range(30) if row not in (0, 4, 29)]
    scores = organised.posteriors[len(SHOTS) :][kept]
    assert evaluation.scores(organised)["uar"] == pytest.approx(
        np.mean(recalls(scores.argmax(1), pool.references[kept]))
    )


@pytest.mark.parametrize("setting", ["transductive", "inductive"])
def test_target_without_labels_has_nothing_to_score(make, setting):
    adaptation, pool = make(unlabelled=range(30))
    assert len(Evaluation(adaptation, pool, list(range(30)), setting)) == 0


def test_spread():
    found = spread([3, 4], [0.5, 0.7])
    assert found == {"seeds": [3, 4], "uar": [0.5, 0.7], "uar_mean": pytest.approx(0.6), "uar_std": pytest.approx(0.1)}
    assert spread([3], [0.5]) is None  # of one draw
