"""The card that `push_to_hub` puts beside weights: the run's own where they are the same, else an honest one."""

import pytest
from huggingface_hub import ModelCard

from modeling_sere.card_sere import WEIGHTS, put_card
from modeling_sere.published_sere import published
from testing.traps import CARD, FORMS, SECRET, TRAPS, png

LABELS = ["anger", "fear"]


@pytest.fixture
def run(tmp_path):
    """A finished run's folder."""
    folder = tmp_path / "run"
    (folder / "plots").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "plots" / "confusion.png").write_bytes(png())
    (folder / WEIGHTS).write_bytes(b"weights")
    return folder


@pytest.fixture
def put(tmp_path):
    """(weights, origin, ...) -> the folder that is to be uploaded, with its card."""

    def put(weights: bytes, origin, on_hub=False, labels=LABELS, corpus=None):
        folder = tmp_path / "upload"
        folder.mkdir()
        (folder / WEIGHTS).write_bytes(weights)
        put_card(folder, "org/name", str(origin), on_hub, labels, corpus or {"name": "emodb", "license": "mit"})
        return folder

    return put


def test_same_weights_keep_card_and_plots(run, put):
    folder = put(b"weights", run)
    assert (folder / "README.md").read_text() == CARD.replace("path/to/this/folder", "org/name")
    assert (folder / "plots" / "confusion.png").read_bytes() == png()


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


@pytest.mark.parametrize("trap", [*TRAPS, *FORMS])
@pytest.mark.parametrize("name", ["README.md", "plots/confusion.png", "plots"])
def test_nothing_but_the_folder_s_own_card_and_plots_is_kept(run, put, tmp_path, caplog, name, trap):
    """A card of which a part is something else is written anew, and that is said."""
    (tmp_path / "away").mkdir()
    secret = tmp_path / "away" / "confusion.png"
    secret.write_bytes(png((b"tEXt", SECRET.encode())) if name == "plots" else SECRET.encode())
    if name == "plots":
        (run / "plots" / "confusion.png").unlink()
        (run / "plots").rmdir()
    else:
        (run / name).unlink()
    (TRAPS | FORMS)[trap](run / name, secret)
    folder = put(b"weights", run)
    files = [path for path in folder.rglob("*") if path.is_file()]
    if (name, trap) == ("plots", "folder"):  # an empty one: there is nothing wrong
        assert (folder / "README.md").read_text() == CARD.replace("path/to/this/folder", "org/name")
        return
    assert {path.name for path in files} == {"README.md", WEIGHTS} and not any(path.is_symlink() for path in files)
    assert "not measured" in (folder / "README.md").read_text()
    assert not any(SECRET.encode() in path.read_bytes() for path in files)
    assert "The card is written anew: " in caplog.text and str(run) in caplog.text


@pytest.mark.parametrize("name", ["README.md", "plots"])
def test_nothing_is_written_through_a_link(run, tmp_path, name):
    """Where a model is saved into a folder that was there before."""
    (tmp_path / "away").mkdir()
    folder = tmp_path / "upload"
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(b"weights")
    (folder / name).symlink_to(tmp_path / "away" / ("x" if name == "README.md" else ""))
    with pytest.raises(ValueError, match=f"{name} is a link"):
        put_card(folder, "org/name", str(run), False, LABELS, {})
    assert list((tmp_path / "away").iterdir()) == []


@pytest.mark.parametrize(("origin", "base_model"), [("org/other", "org/other"), ("", None)])
def test_card_names_the_model_on_the_hub_it_was_made_from(put, origin, base_model):
    card = ModelCard.load(put(b"weights", origin, on_hub=True) / "README.md")
    assert card.data.base_model == base_model
    assert (card.data.license, card.data.pipeline_tag) == ("other", "audio-classification")
    assert ("It was made from" in card.text) == (base_model is not None)
    assert 'model="org/name"' in card.text


@pytest.mark.parametrize(
    ("origin", "on_hub"),
    [
        ("out/mine", False),
        ("/home/anneliese/x", False),
        ("/home/anneliese/snapshots/0af3", True),
        ("x/snapshots/0", True),
    ],
)
def test_a_folder_that_is_gone_is_no_model_on_the_hub(put, origin, on_hub):
    """Its path is told to nobody; transformers takes a folder called snapshots for one of the Hub's cache."""
    text = (put(b"weights", origin, on_hub) / "README.md").read_text()
    assert origin not in text and "anneliese" not in text and "base_model" not in text


def test_names_in_a_new_card_stay_text(put):
    labels = ["[anger](https://evil.example)", "fear\n# Results: 99 %", "<img src=x>"]
    corpus = {"name": "emo|db\n---\nlicense: mit", "language": "no"}
    folder = put(b"weights", "", labels=labels, corpus=corpus)
    card = ModelCard.load(folder / "README.md")
    assert "Emotions: anger(https: evil.example), fear Results: 99 %, img src=x." in card.text
    assert "Corpus of its labelled clips: name emodb --- license: mit, language no." in card.text
    assert card.data.license == "other"
    (folder / WEIGHTS).unlink()
    assert published(folder).keys() == {"README.md"}


def test_folder_that_was_saved_over_does_not_keep_its_card(run):
    put_card(run, "org/name", str(run), False, LABELS, {})
    text = (run / "README.md").read_text()
    assert "not measured" in text and "labelled clips: not recorded" in text
