"""Files of strangers with anything in them: a configuration and an encoder are taken, or refused in one sentence."""

import copy
import json
import pickle
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, Wav2Vec2FeatureExtractor

from modeling_sere import SereConfig
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.errors import RunError
from modeling_sere.training.running.models import build_model
from reliability.strangers import Payload

ODD = (
    None, True, 0, -1, 2**40, 1e308, "", "wide", "a--b.C", [], [1], {}, {"a": 1}, [[[]]], {"impl": 3}, [None],
    "x" * 10_000,
)  # fmt: skip


@pytest.fixture(scope="module", params=["none", "wav2vec2", "wav2vec2-bert", "whisper"])
def config(request, make_config) -> dict:
    """config.json of a SERE model, with all that is written when it is saved."""
    values = make_config(request.param, num_sources=2).to_dict()
    values["auto_map"] = {"AutoModel": "modeling_sere.SereModel"}
    values["custom_pipelines"] = {"audio-classification": {"impl": "pipeline_sere.SerePipeline", "pt": ["AutoModel"]}}
    return values


def taken_or_refused(values) -> bool:
    """Whether it is taken; anything but a ValueError of one line fails the test."""
    try:
        SereConfig.from_dict(copy.deepcopy(values))
    except ValueError as error:
        assert "\n" not in str(error) and str(error).strip() and len(str(error)) < 2000
        return False
    return True


def test_each_value_may_be_anything(config):
    assert taken_or_refused(config)
    places = [(key,) for key in config]
    for key in ("encoder_config", "auto_map", "custom_pipelines", "prior_profile", "source_corpus"):
        places += [(key, inner) for inner in config[key] or {}]
    outcomes = []
    for place in places:
        for odd in ODD:
            values = copy.deepcopy(config)
            part = values if len(place) == 1 else values[place[0]]
            part[place[-1]] = odd
            outcomes.append(taken_or_refused(values))
    assert 0.02 < sum(outcomes) / len(outcomes) < 0.98 and len(outcomes) > 500


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
def test_any_json_in_any_place(config, data):
    changes = data.draw(st.dictionaries(st.sampled_from(sorted(config)) | st.text(max_size=8), json_values, max_size=3))
    taken_or_refused(config | changes)


@pytest.mark.parametrize("values", [None, 3, [], "x", [{}]])
def test_what_is_no_mapping(values):
    assert not taken_or_refused(values)


# Encoders


@pytest.fixture(scope="module")
def repository(encoder_config, tmp_path_factory):
    """A plain encoder."""
    folder = tmp_path_factory.mktemp("odd") / "encoder"
    AutoModel.from_config(encoder_config("wav2vec2")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def changed(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))


def weights_with(folder, value):
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layers.0.attention.k_proj.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def pickled(folder, mark):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Payload(mark)}))


def cut(folder, size):
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(size)


ENCODERS = {
    "no configuration": lambda f, m: (f / "config.json").unlink(),
    "empty configuration": lambda f, m: (f / "config.json").write_text(""),
    "a list for a configuration": lambda f, m: (f / "config.json").write_text("[]"),
    "brackets": lambda f, m: (f / "config.json").write_text('{"a":' + "[" * 100_000),
    "bytes": lambda f, m: (f / "config.json").write_bytes(bytes(range(256))),
    "an unknown type": lambda f, m: changed(f, model_type="spaceship"),
    "a text model": lambda f, m: changed(f, model_type="bert"),
    "a number for a type": lambda f, m: changed(f, model_type=3),
    "a wide text": lambda f, m: changed(f, hidden_size="wide"),
    "no width": lambda f, m: changed(f, hidden_size=0),
    "a negative width": lambda f, m: changed(f, hidden_size=-8),
    "a width of an exabyte": lambda f, m: changed(f, hidden_size=2**40),
    "heads that do not divide": lambda f, m: changed(f, num_attention_heads=5),
    "no heads": lambda f, m: changed(f, num_attention_heads=0),
    "an unknown activation": lambda f, m: changed(f, hidden_act="swish-wish"),
    "an activation that is none": lambda f, m: changed(f, feat_extract_activation=[1]),
    "an unknown norm": lambda f, m: changed(f, feat_extract_norm="none"),
    "no convolutions": lambda f, m: changed(f, conv_dim=[], conv_stride=[], conv_kernel=[], num_feat_extract_layers=0),
    "strides of text": lambda f, m: changed(f, conv_stride=["5"] * 7),
    "no layers": lambda f, m: changed(f, num_hidden_layers=0),
    "a billion layers": lambda f, m: changed(f, num_hidden_layers=10**9),
    "code of its own": lambda f, m: changed(f, model_type="mine", auto_map={"AutoConfig": "mine.Config"}),
    "no weights": lambda f, m: (f / "model.safetensors").unlink(),
    "empty weights": lambda f, m: (f / "model.safetensors").write_bytes(b""),
    "truncated weights": lambda f, m: cut(f, 5_000),
    "weights cut at their end": lambda f, m: cut(f, (f / "model.safetensors").stat().st_size - 4),
    "other bytes for weights": lambda f, m: (f / "model.safetensors").write_bytes(b"x" * 10_000),
    "a pickle": pickled,
    "a pickle by another name": lambda f, m: (f / "model.safetensors").write_bytes(pickle.dumps(Payload(m))),
    "NaN": lambda f, m: weights_with(f, float("nan")),
    "infinite": lambda f, m: weights_with(f, float("inf")),
    "adapters": lambda f, m: (f / "adapter_config.json").write_text('{"base_model_name_or_path": "."}'),
    "an extractor with code": lambda f, m: (f / "preprocessor_config.json").write_text(
        '{"auto_map": {"AutoFeatureExtractor": "mine.Extractor"}}'
    ),
    "no extractor": lambda f, m: (f / "preprocessor_config.json").unlink(),
    "an extractor of brackets": lambda f, m: (f / "preprocessor_config.json").write_text("[" * 100_000),
    "a file for a folder": lambda f, m: (shutil.rmtree(f), f.write_text("x")),
}


def arguments(folder) -> SereArguments:
    return SereArguments(encoder=str(folder), output_dir="out", shots=2)


def test_the_encoder_itself_is_taken(repository):
    model = build_model(arguments(repository), ["anger", "fear"], True)
    weights = load_file(repository / "model.safetensors")
    name = "encoder.layers.0.attention.k_proj.weight"
    assert torch.equal(model.sere.encoder.model.get_parameter(name), weights[name])


@pytest.mark.parametrize("what", ENCODERS)
def test_an_odd_encoder_is_refused_in_one_sentence(repository, tmp_path, what):
    folder = tmp_path / "encoder"
    shutil.copytree(repository, folder)
    mark = tmp_path / "ran"
    (folder / "mine.py").write_text(f"open({str(mark)!r}, 'w')\n")
    ENCODERS[what](folder, mark)
    with pytest.raises(RunError) as caught:
        build_model(arguments(folder), ["anger", "fear"], True)
    said = str(caught.value)
    assert str(folder) in said and "\n" not in said and len(said) < 1000
    assert not mark.exists()
