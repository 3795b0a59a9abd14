"""The card that `push_to_hub` puts beside weights: the run's own where they are the same, else an honest one."""

import pytest
from huggingface_hub import ModelCard

from modeling_sere.card_sere import WEIGHTS, put_card

LABELS = ["anger", "fear"]


@pytest.fixture
def run(tmp_path):
    """A finished run's folder."""
    folder = tmp_path / "run"
    (folder / "plots").mkdir(parents=True)
    (folder / "README.md").write_text('# Card\n\nmodel="path/to/this/folder"\n')
    (folder / "plots" / "confusion.png").write_bytes(b"png")
    (folder / WEIGHTS).write_bytes(b"weights")
    return folder


@pytest.fixture
def put(tmp_path):
    """(weights, origin) -> the folder that is to be uploaded, with its card."""

    def put(weights: bytes, origin):
        folder = tmp_path / "upload"
        folder.mkdir()
        (folder / WEIGHTS).write_bytes(weights)
        put_card(folder, "org/name", str(origin), LABELS, {"name": "emodb", "license": "mit"})
        return folder

    return put


def test_same_weights_keep_card_and_plots(run, put):
    folder = put(b"weights", run)
    assert (folder / "README.md").read_text() == '# Card\n\nmodel="org/name"\n'
    assert (folder / "plots" / "confusion.png").read_bytes() == b"png"


def test_weights_changed_since_do_not(run, put):
    folder = put(b"Weights", run)
    card = ModelCard.load(folder / "README.md")
    assert "not measured" in card.text and "anger, fear" in card.text and str(run) not in str(card)
    assert "Corpus of its labelled clips: name emodb, license mit." in card.text
    assert card.data.base_model is None
    assert not (folder / "plots").exists()


def test_a_run_s_folder_without_its_card_does_not(run, put):
    (run / "README.md").unlink()
    assert "not measured" in (put(b"weights", run) / "README.md").read_text()


@pytest.mark.parametrize(("origin", "base_model"), [("org/other", "org/other"), ("", None)])
def test_card_names_the_model_on_the_hub_it_was_made_from(put, origin, base_model):
    card = ModelCard.load(put(b"weights", origin) / "README.md")
    assert card.data.base_model == base_model
    assert (card.data.license, card.data.pipeline_tag) == ("other", "audio-classification")
    assert ("It was made from" in card.text) == (base_model is not None)
    assert 'model="org/name"' in card.text


def test_folder_that_was_saved_over_does_not_keep_its_card(run):
    put_card(run, "org/name", str(run), LABELS, {})
    text = (run / "README.md").read_text()
    assert "not measured" in text and "labelled clips: not recorded" in text
