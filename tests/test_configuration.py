"""Configuration: limits of every field, round trips, encoders of every form."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, BertConfig, PreTrainedConfig, Wav2Vec2Config

from modeling_sere import SereConfig
from modeling_sere.configuration_sere import EMOTION_PROFILE, MAX_LABELS, MAX_SOURCES, NUM_CUES, default_layers

POSITIVE = ["ridge", "field_damping", "field_sharpness", "tric_temperature"]
NON_NEGATIVE = ["encoder_weight", "prior_weight", "tric_weight", "visit_weight", "consistency_weight"]
SHARES = {"field_balance": (0, 1), "view_dropout": (0, 0.95)}
WHOLE = {
    "field_rounds": (0, 100), "nuisance_rounds": (0, 20), "field_passes": (0, 100),
    "num_sources": (0, MAX_SOURCES), "num_voice_groups": (1, 2)
}  # fmt: skip
NOT_NUMBERS = [float("nan"), float("inf"), -float("inf"), "1", None, True, [1.0]]


def test_default():
    config = SereConfig()
    assert config.encoder_config is None and config.encoder_layers == []
    assert config.prior_profile == EMOTION_PROFILE and config.prior_profile is not EMOTION_PROFILE
    assert config.num_labels == 2


def test_default_profile_is_not_shared_between_configurations():
    SereConfig().prior_profile["anger"][0] = 99.0
    assert SereConfig().prior_profile["anger"][0] == 0.5


@pytest.mark.parametrize("name", POSITIVE)
def test_positive_fields(name):
    assert getattr(SereConfig(**{name: 1e-3}), name) == 1e-3
    for value in (0, -1e-9, 1e7, *NOT_NUMBERS):
        with pytest.raises(ValueError, match=name):
            SereConfig(**{name: value})


@pytest.mark.parametrize("name", NON_NEGATIVE)
def test_non_negative_fields(name):
    for value in (0, 0.5, 1e6):
        assert getattr(SereConfig(**{name: value}), name) == value
    for value in (-1e-9, 1e7, *NOT_NUMBERS):
        with pytest.raises(ValueError, match=name):
            SereConfig(**{name: value})


@pytest.mark.parametrize("name", SHARES)
def test_shares(name):
    low, high = SHARES[name]
    for value in (low, high, (low + high) / 2):
        assert getattr(SereConfig(**{name: value}), name) == value
    for value in (low - 1e-6, high + 1e-6, *NOT_NUMBERS):
        with pytest.raises(ValueError, match=name):
            SereConfig(**{name: value})


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers(name):
    low, high = WHOLE[name]
    for value in (low, high):
        assert getattr(SereConfig(**{name: value}), name) == value
    for value in (low - 1, high + 1, 1.0, *NOT_NUMBERS):
        with pytest.raises(ValueError, match=name):
            SereConfig(**{name: value})


@pytest.mark.parametrize("value", [None, 1, 0, "true"])
def test_encoder_normalize_is_boolean(value):
    with pytest.raises(ValueError, match="encoder_normalize"):
        SereConfig(encoder_normalize=value)


@pytest.mark.parametrize("number", [0, 1, MAX_LABELS + 1])
def test_number_of_labels_out_of_range(number):
    with pytest.raises(ValueError, match="num_labels"):
        SereConfig(id2label={i: str(i) for i in range(number)})


@pytest.mark.parametrize("number", [2, MAX_LABELS])
def test_number_of_labels_at_its_limits(number):
    config = SereConfig(id2label={i: str(i) for i in range(number)})
    assert config.num_labels == number and config.labels == [str(i) for i in range(number)]


@pytest.mark.parametrize("id2label", [{1: "a", 2: "b"}, {0: "a", 1: "a"}, ["a", "b"], {0: "a", 2: "b"}])
def test_labels_are_numbered_from_zero_and_differ(id2label):
    with pytest.raises(ValueError, match="id2label"):
        SereConfig(id2label=id2label)


def test_label2id_follows_from_id2label():
    assert SereConfig(id2label={0: "anger", 1: "fear"}).label2id == {"anger": 0, "fear": 1}


@pytest.mark.parametrize(
    "profile",
    [
        {"anger": [1.0] * (NUM_CUES - 1)}, {"anger": [1.0] * (NUM_CUES + 1)}, {"anger": [float("nan")] * NUM_CUES},
        {"anger": "abcde"}, {"anger": None}, {"anger": ["1"] * NUM_CUES}, {"anger": [True] * NUM_CUES},
        {1: [0.0] * NUM_CUES}, ["anger"], "anger", 5,
    ],
)  # fmt: skip
def test_bad_prior_profile(profile):
    with pytest.raises(ValueError, match="prior_profile"):
        SereConfig(prior_profile=profile)


def test_empty_prior_profile_switches_the_prior_off():
    assert SereConfig(prior_profile={}).prior_profile == {}


# ------------------------------------------------------------------------------------------------ encoders


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(1, [1]), (2, [1]), (3, [1, 2]), (4, [1, 2, 3]), (6, [2, 3, 4]), (12, [4, 6, 8]), (24, [8, 12, 16])],
)
def test_default_layers(depth, layers):
    assert default_layers(depth) == layers


@given(st.integers(1, 200))
def test_default_layers_are_valid_at_any_depth(depth):
    layers = default_layers(depth)
    assert layers == sorted(set(layers)) and 1 <= layers[0] and layers[-1] <= depth and len(layers) <= 3


def test_encoder_given_as_object_or_dict(encoder_name, encoder_config, tmp_path):
    """Both give the same, and both survive saving and loading."""
    inner = encoder_config(encoder_name)
    configs = [SereConfig(encoder_config=inner), SereConfig(encoder_config=inner.to_dict())]
    for number, config in enumerate(configs):
        assert isinstance(config.encoder_config, type(inner))
        assert config.encoder_layers == [1, 2, 3]
        config.save_pretrained(tmp_path / str(number))
        again = SereConfig.from_pretrained(tmp_path / str(number))
        assert isinstance(again.encoder_config, type(inner))
        assert again.to_diff_dict() == config.to_diff_dict() == configs[0].to_diff_dict()
        assert AutoConfig.from_pretrained(tmp_path / str(number)).to_diff_dict() == again.to_diff_dict()


def test_given_encoder_configuration_is_not_changed(encoder_config):
    inner = encoder_config("wavlm")
    before = inner.to_dict()
    config = SereConfig(encoder_config=inner)
    config.encoder_config.hidden_size = 1
    assert inner.to_dict() == before


def test_no_local_path_is_saved(encoder_config, tmp_path):
    encoder_config("wavlm").save_pretrained(tmp_path / "encoder")
    config = SereConfig(encoder_config=AutoConfig.from_pretrained(tmp_path / "encoder"))
    assert str(tmp_path) not in config.to_json_string(use_diff=False)
    assert (
        str(tmp_path)
        not in SereConfig(
            encoder_config=config.encoder_config.to_dict() | {"_name_or_path": str(tmp_path)}
        ).to_json_string()
    )


@pytest.mark.parametrize(
    "encoder",
    [
        BertConfig(), {"model_type": "bert"}, {"model_type": "no-such-model"}, {"hidden_size": 32}, {}, "wavlm", 5,
        PreTrainedConfig(),
    ],
    ids=lambda encoder: str(type(encoder).__name__),
)  # fmt: skip
def test_unknown_encoder(encoder):
    with pytest.raises(ValueError, match="encoder_config.*wavlm"):
        SereConfig(encoder_config=encoder)


@pytest.mark.parametrize("layers", [[], [0], [5], [-1], [1, 1], [1.0], ["1"], [True], "12", 2, {"1": 1}])
def test_bad_encoder_layers(layers, encoder_config):
    with pytest.raises(ValueError, match="encoder_layers.*1 to 4"):
        SereConfig(encoder_config=encoder_config("wavlm"), encoder_layers=layers)


@pytest.mark.parametrize("layers", [[1], [4], (2, 3), [4, 1]])
def test_chosen_encoder_layers(layers, encoder_config):
    assert SereConfig(encoder_config=encoder_config("wavlm"), encoder_layers=layers).encoder_layers == list(layers)


def test_encoder_layers_without_encoder():
    with pytest.raises(ValueError, match="encoder_layers"):
        SereConfig(encoder_layers=[1])


def test_encoder_with_another_frame_rate():
    with pytest.raises(ValueError, match="conv_stride"):
        SereConfig(encoder_config=Wav2Vec2Config(conv_stride=(5, 2, 2, 2, 2, 2, 4)))


# ------------------------------------------------------------------------------------------------ round trips


@settings(max_examples=25, deadline=None)
@given(
    numbers=st.fixed_dictionaries(
        {name: st.floats(0, 1e6) for name in NON_NEGATIVE}
        | {name: st.floats(1e-6, 1e6) for name in POSITIVE}
        | {name: st.floats(*limits) for name, limits in SHARES.items()}
        | {name: st.integers(*limits) for name, limits in WHOLE.items()}
        | {"encoder_normalize": st.booleans()}
    ),
    profile=st.dictionaries(st.text(max_size=9), st.lists(st.floats(-9, 9), min_size=5, max_size=5), max_size=4),
    labels=st.lists(st.text(max_size=12), min_size=2, max_size=9, unique=True),
)
def test_round_trip(tmp_path_factory, numbers, profile, labels):
    config = SereConfig(id2label=dict(enumerate(labels)), prior_profile=profile, **numbers)
    folder = tmp_path_factory.mktemp("config")
    config.save_pretrained(folder)
    again = SereConfig.from_pretrained(folder)
    assert again.to_diff_dict() == config.to_diff_dict()
    assert again.labels == labels and again.prior_profile == profile
    for name, value in numbers.items():
        assert getattr(again, name) == value


def test_bad_value_in_a_saved_file_is_refused(tmp_path):
    SereConfig().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(saved | {"ridge": -1}))
    with pytest.raises(ValueError, match="ridge"):
        SereConfig.from_pretrained(tmp_path)


def test_bad_override_at_loading_is_refused(tmp_path):
    SereConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="ridge"):
        SereConfig.from_pretrained(tmp_path, ridge=-1)


def test_source_corpus_holds_texts_of_known_names():
    known = {"name": "emodb", "language": "de", "license": "cc-by-4.0"}
    assert SereConfig(source_corpus=known).source_corpus == known
    assert SereConfig().source_corpus == {}
    for wrong in ({"speakers": "11"}, {"name": None}, "emodb", ["emodb"]):
        with pytest.raises(ValueError, match="source_corpus"):
            SereConfig(source_corpus=wrong)


def test_no_other_file_of_weights():
    with pytest.raises(ValueError, match="transformers_weights must not be set"):
        SereConfig(transformers_weights="adapter_model.bin")
