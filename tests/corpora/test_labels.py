"""Spellings of emotions, label maps, and lists of emotions."""

import json
import shlex
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modeling_sere.training.corpora.labels import (
    EMOTIONS,
    LABEL_ALIASES,
    Spellings,
    is_known,
    label_map_flag,
    parse_emotions,
    parse_label_map,
)
from modeling_sere.training.corpora.names import normal_name
from modeling_sere.training.errors import RunError

texts = st.text(st.characters(codec="utf-8"), max_size=8)


def test_aliases_lead_to_emotions_in_one_step():
    assert not set(LABEL_ALIASES) & set(LABEL_ALIASES.values())
    assert all(text == normal_name(text) for text in LABEL_ALIASES)
    assert set(LABEL_ALIASES.values()) <= EMOTIONS


@pytest.mark.parametrize(
    ("label", "emotion"),
    [
        ("Angry", "anger"), ("Wut", "anger"), ("WUT", "anger"), ("Ärger", "anger"), ("HİDDET", "anger"),
        ("colère", "anger"), ("gioia", "happiness"), ("tristeza", "sadness"), ("愤怒", "anger"), ("ΦΌΒΟΣ", "fear"),
        ("нейтральный", "neutral"), ("خوف", "fear"), ("anger", "anger"), ("Anger ", "anger"),
    ],
)  # fmt: skip
def test_known_spellings_in_any_form(label, emotion):
    for form in ("NFC", "NFD"):
        assert Spellings().emotion(unicodedata.normalize(form, label)) == emotion


@pytest.mark.parametrize("label", ["excited", "neutral state", "disgusto", "vrede", "W", "0", "not angry"])
def test_what_may_mean_something_else_is_no_spelling(label):
    assert Spellings().emotion(label) == normal_name(label)
    assert not is_known(label)


def test_label_map_takes_precedence():
    spellings = Spellings({"Joy": "joy", "wut": "Fear ", "żal": "sadness"})
    assert [spellings.emotion(label) for label in ("joy", "WUT", "Z\u0307AL", "happy")] == [
        "joy", "fear", "sadness", "happiness"
    ]  # fmt: skip
    assert spellings.knows("Żal") and not is_known("Żal")


# Label maps


def test_parse_label_map(tmp_path):
    expected = {"wut": "anger", "freude": "happiness"}
    assert parse_label_map(" Wut=anger, Freude = Happiness,") == expected
    assert parse_label_map('{"Wut": "anger", "Freude": "happiness"}') == expected
    (tmp_path / "map.json").write_text('{"Wut": "anger", "Freude": "happiness"}', encoding="utf-8-sig")
    assert parse_label_map(str(tmp_path / "map.json")) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Wut", "Wut=a=b", "=anger", "Wut=", "Wut=anger,wut=fear", "missing.json", "\0.json", "excited=?",
        "Z\u0307al=anger,żal=fear", '{"a": 1}', '{"a": "x"', "{}x",
    ],
)  # fmt: skip
def test_parse_label_map_refuses(text):
    with pytest.raises(RunError, match="label map") as caught:
        parse_label_map(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "[]", "{", '{"a": 1}', '[["a", "b"]]', '{"a": "x", "a": "y"}', '"ab"', "[" * 100_000, '{"\\ud800": "a"}',
        "9" * 5_000,
    ],
)  # fmt: skip
def test_parse_label_map_refuses_json(tmp_path, text):
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(RunError, match="label map"):
        parse_label_map(str(tmp_path / "map.json"))


def test_a_label_map_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "map.json").write_bytes('{"Ärger": "anger"}'.encode("latin-1"))
    with pytest.raises(RunError, match="not in UTF-8"):
        parse_label_map(str(tmp_path / "map.json"))


names = texts.map(normal_name).filter(lambda text: text not in ("", "?"))


@given(st.dictionaries(names, names))
def test_a_label_map_round_trips(mapping):
    assert parse_label_map(json.dumps(mapping)) == mapping
    plain = {a: b for a, b in mapping.items() if not set("=,{") & {*a, *b} and not (a + b).endswith(".json")}
    assert parse_label_map(",".join(f"{a}={b}" for a, b in plain.items())) == plain


@given(texts | st.dictionaries(texts, texts).map(json.dumps))
@example("{" * 100_000)
def test_any_label_map_is_read_or_refused_in_one_line(text):
    try:
        assert all(map(normal_name, parse_label_map(text)))
    except RunError as error:
        assert str(error).isprintable()


# What the user is asked to fill in


@given(st.lists(texts.map(normal_name).filter(bool), min_size=1, max_size=4, unique=True))
@example(["a, b", "it's", "x=y", "c"])
@example(['{"a'])
def test_the_flag_that_is_suggested_can_be_filled_in(labels):
    flag, text = shlex.split(label_map_flag(labels))
    assert flag == "--label_map"
    filled = text.replace('"?"', '"anger"') if text.startswith("{") else text.replace("=?", "=anger")
    found = parse_label_map(filled)
    assert list(found) == labels
    assert set(found.values()) <= EMOTIONS


def test_the_flag_knows_what_a_label_says_of_one_emotion():
    assert label_map_flag(["excited", "neutral state", "0"]) == "--label_map 'excited=?,neutral state=neutral,0=?'"
    assert label_map_flag(["oaf_angry", "fear/anger"]) == "--label_map 'oaf_angry=anger,fear/anger=?'"


def test_parse_emotions():
    assert parse_emotions("anger, Sadness,neutral,angry,") == ["anger", "sadness", "neutral"]
    assert parse_emotions("Wut,żal", {"Z\u0307al": "sadness"}) == ["anger", "sadness"]
    for text in ("", "anger", "anger,angry", ",,"):
        with pytest.raises(RunError, match="at least two emotions"):
            parse_emotions(text)
