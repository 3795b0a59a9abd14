"""Names are compared however Unicode spells them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_sere.training.corpora.names import clean_name, compact_name, counted, listed, normal_name, number, shown

texts = st.text(st.characters(codec="utf-8"), max_size=8)


@given(texts, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_every_unicode_form_has_one_normal_name(text, form):
    name = normal_name(text)
    assert normal_name(unicodedata.normalize(form, text)) == name
    assert normal_name(name) == name
    assert clean_name(clean_name(text)) == clean_name(text)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("HİDDET", "hiddet"), ("hi\u0307ddet", "hiddet"), ("KIZGIN", "kızgın"), ("İ", "i"),
        ("Wut\u200b", "wut"), ("\ufeffWut", "WUT"), ("w\u00adut", "wut"), ("\u200ewut\u200f", "wut"),
        ("neutral\u00a0 state ", "Neutral state"), ("ａｎｇｅｒ", "anger"), ("ΦΌΒΟΣ", "φόβος"), ("SPASS", "Spaß"),
        ("\U0001f620\ufe0f", "\U0001f620"), ("ﬁne", "fine"),
    ],
)  # fmt: skip
def test_what_looks_the_same_is_the_same(text, other):
    assert normal_name(text) == normal_name(other)


@pytest.mark.parametrize(("text", "other"), [("wut", "mut"), ("żal", "zal"), ("愤怒", "憤怒"), ("a b", "ab")])
def test_what_differs_stays_different(text, other):
    assert normal_name(text) != normal_name(other)


def test_clean_name_keeps_case_and_accents():
    assert clean_name(" Z\u0307al\u200b \t B") == "Żal B"


def test_columns_are_compared_without_what_joins_their_words():
    assert {compact_name(name) for name in ("File Name", "file_name", "FILE-NAME", "fileName", "\ufefffile.name")} == {
        "filename"
    }


def test_lists_for_messages():
    assert shown("a\nb") == r"'a\nb'" and len(shown("x" * 1000)) < 210
    assert listed([]) == "none" and listed("abc") == "a, b, c" and listed("abc", 2) == "a, b and 1 more"
    assert counted({"a": 1, "b": 2, "c": 1}) == "b 2, a 1, c 1" and counted({"a": 1, "b": 2}, 1) == "b 2 and 1 more"
    assert number(1, "clip") == "1 clip" and number(2, "clip") == "2 clips"
