"""Names of emotions: what was learned for one follows its name, and the two ways to write them never contradict."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForAudioClassification

from modeling_sere import SereConfig, SereForAudioClassification, embedding_sere
from modeling_sere.training.errors import RunError
from modeling_sere.training.organising.carried_sources import Sources, carried_labels

NAMES = ["anger", "fear", "sadness"]


@pytest.fixture(scope="module")
def folder(make_model, tmp_path_factory):
    """A saved model with two labelled sources of each of three emotions."""
    model = make_model(labels=NAMES, num_sources=6)
    model.source_embeddings.copy_(torch.nn.functional.normalize(torch.randn_like(model.source_embeddings), dim=1))
    model.source_labels.copy_(torch.tensor([0, 1, 2, 0, 1, 2]))
    folder = tmp_path_factory.mktemp("labels") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def said(caplog):
    """What the model warns of."""
    return lambda: [record.getMessage() for record in caplog.records if "emotions" in record.getMessage()]


def named(*names: str) -> dict:
    return dict(enumerate(names))


def by_name(model, clips) -> dict[str, float]:
    with torch.no_grad():
        logits = model.eval()(clips[0][None]).logits[0]
    return {model.config.id2label[k]: float(value) for k, value in enumerate(logits)}


def sources_by_name(model) -> dict[str, torch.Tensor]:
    labels = model.source_labels.tolist()
    return {
        name: model.source_embeddings[[row for row, label in enumerate(labels) if label == k]]
        for k, name in enumerate(model.config.labels)
    }


@pytest.mark.parametrize("load", [SereForAudioClassification, AutoModelForAudioClassification])
@pytest.mark.parametrize("how", ["id2label", "label2id", "config"])
def test_the_same_names_in_another_order(folder, clips, load, how):
    first = SereForAudioClassification.from_pretrained(folder)
    order = ["sadness", "anger", "fear"]
    given = {"id2label": named(*order), "label2id": {name: k for k, name in enumerate(order)}}
    given["config"] = SereConfig.from_pretrained(folder, id2label=given["id2label"])
    model = load.from_pretrained(folder, **{how: given[how]})
    assert model.config.labels == order and model.config.label2id == given["label2id"]
    assert by_name(model, clips) == pytest.approx(by_name(first, clips), abs=1e-5)
    for name, embeddings in sources_by_name(first).items():
        assert len(embeddings) == 2 and torch.equal(embeddings, sources_by_name(model)[name])
    sources = Sources(model, ["fear", "sadness"])  # as train_sere.py --model takes them
    assert torch.equal(sources.domain.embeddings[sources.references == 0], sources_by_name(first)["fear"])


def test_names_of_a_checkpoint_are_read_as_those_of_corpora(folder):
    """Whatever their case and Unicode form, and in German."""
    first = SereForAudioClassification.from_pretrained(folder)
    model = SereForAudioClassification.from_pretrained(folder)
    model.config.id2label = dict(enumerate(("WUT", "A\u0308ngstlich", "Sad\u200bness")))
    assert carried_labels(model) == first.config.labels == ["anger", "fear", "sadness"]
    sources = Sources(model, ["fear", "sadness"])
    assert torch.equal(sources.domain.embeddings[sources.references == 0], sources_by_name(first)["fear"])


def test_what_was_loaded_in_another_order_is_saved_and_loaded_in_it(folder, clips, tmp_path):
    model = SereForAudioClassification.from_pretrained(folder, id2label=named("fear", "sadness", "anger"))
    model.save_pretrained(tmp_path)
    assert by_name(SereForAudioClassification.from_pretrained(tmp_path), clips) == pytest.approx(by_name(model, clips))


def test_sources_of_a_name_that_is_gone_are_dropped_and_that_is_said(folder, clips, said):
    first = SereForAudioClassification.from_pretrained(folder)
    model = SereForAudioClassification.from_pretrained(folder, id2label=named("fear", "calm", "anger"))
    assert {name: len(found) for name, found in sources_by_name(model).items()} == {"fear": 2, "calm": 0, "anger": 2}
    assert model.config.num_sources == len(model.source_embeddings) == len(model.source_cues) == 4
    for name in ("fear", "anger"):
        assert torch.equal(sources_by_name(model)[name], sources_by_name(first)[name])
        assert by_name(model, clips)[name] == pytest.approx(by_name(first, clips)[name], abs=1e-5)
    assert len(said()) == 2 and "sadness is now calm" in said()[0]
    assert "2 labelled sources are dropped, as their emotions are gone: sadness" in said()[1]
    with pytest.raises(RunError, match="--model carries no labelled clip of calm"):
        Sources(model, ["fear", "calm"])


@pytest.mark.parametrize(("given", "kept"), [({"num_labels": 4}, 0), ({"id2label": named("fear", "anger")}, 4)])
def test_another_number_of_emotions(folder, said, tmp_path, given, kept):
    model = SereForAudioClassification.from_pretrained(folder, ignore_mismatched_sizes=True, **given)
    assert model.config.num_sources == kept == (0 if model.source_labels is None else len(model.source_labels))
    assert f"{6 - kept} labelled sources are dropped" in said()[-1]
    model.save_pretrained(tmp_path)
    assert SereForAudioClassification.from_pretrained(tmp_path).config.num_sources == kept


@pytest.mark.parametrize("label", [3, -1, -101, 10**6])
def test_labels_of_sources_that_are_none_are_refused(folder, tmp_path, label):
    weights = load_file(folder / "model.safetensors")
    weights["source_labels"][2] = label
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="source_labels holds numbers that are no label of its 3 emotions"):
        SereForAudioClassification.from_pretrained(tmp_path)


# Both ways


def test_a_file_that_contradicts_itself_is_refused(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    for label2id in ({"anger": 1, "fear": 0, "sadness": 2}, {"anger": 0}, {"a": 0, "b": 1, "c": 2}, {"anger": "x"}):
        (tmp_path / "config.json").write_text(json.dumps(config | {"label2id": label2id}))
        with pytest.raises(ValueError, match="label2id"):
            SereConfig.from_pretrained(tmp_path)


def test_contradicting_arguments_are_refused(folder):
    both = {"id2label": named(*"abc"), "label2id": {"a": 2, "b": 1, "c": 0}}
    for make in (lambda: SereConfig(**both), lambda: SereConfig.from_pretrained(folder, **both)):
        with pytest.raises(ValueError, match="contradicts id2label"):
            make()


def test_a_model_with_contradicting_names_is_not_saved(folder, tmp_path):
    model = SereForAudioClassification.from_pretrained(folder)
    model.config.id2label = named("fear", "anger", "sadness")
    with pytest.raises(ValueError, match="contradicts id2label"):
        model.save_pretrained(tmp_path)


@given(names=st.lists(st.text(max_size=20), min_size=2, max_size=6, unique=True), key=st.booleans(), text=st.booleans())
def test_either_way_says_the_other(names, key, text):
    numbers = [str(k) if text else k for k in range(len(names))]
    if key:
        config = SereConfig(id2label=dict(zip(numbers, names, strict=True)))
    else:
        config = SereConfig(label2id=dict(zip(names, numbers, strict=True)))
    assert config.labels == names and config.label2id == {name: k for k, name in enumerate(names)}
    again = SereConfig.from_dict(config.to_dict())
    assert again.labels == names and again.label2id == config.label2id


# A model without statistics, and one whose answers cannot mean anything


@pytest.fixture
def bare(make_config):
    """A model from a configuration."""
    return SereForAudioClassification(make_config())


def test_a_model_without_statistics_says_so_and_still_learns(bare, clips, pad, caplog):
    embedding_sere.logger.warning_once.__func__.cache_clear()
    values, mask = pad(clips)
    output = bare.train()(values, mask, labels=torch.tensor([0, 1, 2, 0, 1]))
    output.loss.backward()
    assert caplog.text.count("This model has no statistics of a target domain") == 1
    torch.testing.assert_close(output.embeddings.norm(dim=1), torch.ones(5))
    assert bare.classifier.weight.grad.abs().max() > 1e-3
    assert not bare.sere.embedding.statistics.any()  # a forward pass leaves nothing behind


def test_statistics_that_are_estimated_are_those_of_the_domain(bare, clips, pad):
    values, mask = pad(clips)
    with torch.no_grad():
        together = bare.eval()(values, mask).embeddings
        bare.estimate_statistics(values, mask)
        torch.testing.assert_close(bare(values, mask).embeddings, together)
        torch.testing.assert_close(bare(clips[0][None]).embeddings[0], together[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["classifier.weight", "sere.embedding.log_gain"])
def test_logits_that_are_not_finite_are_no_answer(make_model, clips, name):
    model = make_model()
    with torch.no_grad():
        model.get_parameter(name).add_(torch.inf if name == "classifier.weight" else 1000)
        with pytest.raises(ValueError, match="The model gives logits that are not finite"):
            model(clips[0][None])
        for odd in (torch.nan, torch.inf, 1e25):
            with pytest.raises(ValueError, match="input_values hold NaN, or numbers far beyond those of samples"):
                make_model()(torch.full((1, 16000), odd))


@pytest.mark.parametrize(
    ("name", "value"),
    [("sere.embedding.log_gain", 1000.0), ("sere.embedding.log_gain", -1e30), ("source_embeddings", 1e20)],
)
def test_weights_that_can_mean_nothing_are_refused(folder, tmp_path, name, value):
    weights = load_file(folder / "model.safetensors")
    weights[name].flatten()[-1] = value
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"{name} holds numbers of 1e.*so the model can answer nothing"):
        SereForAudioClassification.from_pretrained(tmp_path)
