"""What the cards of corpora and models give: language and licence, where they give just one."""

from pathlib import Path

import pytest

from modeling_sere.training.corpora.corpus import Clip, Corpus
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.corpora.provenance import corpus_facts, joint_facts, model_license
from modeling_sere.training.errors import RunError

ROOT = Path(__file__).resolve().parents[2]


def facts(folder: Path, language: str | None = None) -> dict:
    corpus = Corpus("voices", [Clip(0, "a.wav", None, None)], language, {}, audio=None)
    return corpus_facts(corpus, str(folder))


def test_card_gives_language_and_licence(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\nlanguage: [de]\n---\n# Voices\n")
    assert facts(tmp_path) == {"name": "voices", "language": "de", "license": "mit"}
    assert facts(tmp_path, language="it")["language"] == "it"  # the column knows it of every clip


@pytest.mark.parametrize("text", ["no", "No", "[no]", "'no'"])
def test_no_is_norwegian(tmp_path, text):
    (tmp_path / "README.md").write_text(f"---\nlanguage: {text}\nlicense: mit\n---\n")
    assert facts(tmp_path)["language"].lower() == "no"


@pytest.mark.parametrize("card", [None, "# no metadata\n", "---\n---\n", "---\nlanguage: [de, it]\nlicense: 4\n---\n"])
def test_what_it_does_not_give_is_left_out(tmp_path, card):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert facts(tmp_path) == {"name": "voices"}


def test_broken_card(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(RunError, match=r"README\.md of .* is not YAML"):
        facts(tmp_path)


@pytest.mark.parametrize(("name", "language"), [("english", "en"), ("polish", "pl")])
def test_samples_say_their_terms(name, language):
    folder = ROOT / "samples" / name
    found = corpus_facts(load_corpus(folder), str(folder))
    assert found == {"name": name, "language": language, "license": "cc-by-nc-sa-4.0"}
    assert "CC BY-NC-SA 4.0" in (ROOT / "samples" / "README.md").read_text()


def test_licence_of_a_model(tmp_path):
    assert model_license(str(tmp_path), None) is None
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert model_license(str(tmp_path), None) == "apache-2.0"


def test_facts_of_several_corpora_are_known_if_those_of_each_are():
    one = {"name": "emodb", "language": "German", "license": "cc0-1.0"}
    other = {"name": "emovo", "language": "Italian", "license": "cc0-1.0"}
    assert joint_facts([one]) == one
    assert joint_facts([one, other]) == {"name": "emodb, emovo", "language": "German, Italian", "license": "cc0-1.0"}
    assert joint_facts([one, {"name": "mine", "language": "German"}]) == {"name": "emodb, mine", "language": "German"}
