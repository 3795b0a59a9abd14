"""What of a folder may be published or saved over: its own regular files, of known names and forms."""

import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from transformers import Wav2Vec2FeatureExtractor, modeling_utils
from transformers.utils import hub

from modeling_sere import SereForAudioClassification
from modeling_sere.card_sere import plain
from modeling_sere.pipeline_sere import SerePipeline
from modeling_sere.published_sere import check_writable, known_names, published, read_known, read_own
from testing.traps import CARD, FORMS, SECRET, TRAPS, png

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("README.md", "config.json", "preprocessor_config.json", "pipeline_sere.py", "plots/confusion.png")
ALL = {*SMALL, "plots/highlights.png", "model.safetensors", *(p.name for p in ROOT.glob("modeling_sere/*_sere.py"))}


@pytest.fixture(scope="module")
def saved(make_model, tmp_path_factory):
    """A complete folder."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    make_model().save_pretrained(folder)
    (folder / "plots").mkdir()
    (folder / "README.md").write_text(CARD)
    for name in ("confusion", "highlights"):
        (folder / "plots" / f"{name}.png").write_bytes(png())
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "run"))


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text(f"HF_TOKEN={SECRET}\n!")
    return path


def test_what_is_saved_is_what_may_be_published(folder):
    (folder / "results.json").write_text("{}")
    (folder / "plots" / "family.png").write_bytes(png())
    (folder / "setup.py").write_text("")
    content = published(folder)
    assert content.keys() == ALL and content["model.safetensors"] == folder / "model.safetensors"
    assert content["README.md"] == CARD.encode()
    check_writable(folder)


@pytest.mark.parametrize("trap", [*TRAPS, *FORMS])
@pytest.mark.parametrize("name", [*SMALL, "model.safetensors"])
def test_anything_else_in_a_file_s_place_is_refused(folder, secret, name, trap):
    (folder / name).unlink()
    (TRAPS | FORMS)[trap](folder / name, secret)
    with pytest.raises(ValueError, match=str(folder)) as caught:
        published(folder)
    assert "\n" not in str(caught.value) and SECRET not in str(caught.value)
    if trap in TRAPS:
        with pytest.raises(ValueError, match=f"{name} is (a link|not a file), and must be a file of .* itself"):
            check_writable(folder)
    else:
        check_writable(folder)


@pytest.mark.parametrize("trap", [trap for trap in TRAPS if trap != "folder"])
def test_anything_else_in_the_place_of_the_folder_of_plots_is_refused(folder, secret, trap):
    shutil.move(folder / "plots", secret.parent / "away")
    TRAPS[trap](folder / "plots", secret.parent / "away" / "x")
    for check in (published, check_writable):
        with pytest.raises(ValueError, match="plots is (a link|not a folder), and must be a folder of"):
            check(folder)


def test_a_folder_s_own_name_may_be_a_link(folder, tmp_path):
    """It is the user who gives it."""
    (tmp_path / "link").symlink_to(folder)
    assert published(tmp_path / "link").keys() == ALL


def test_no_folder_and_an_empty_one_publish_nothing(tmp_path):
    assert published(tmp_path / "gone") == published(tmp_path) == {}


@pytest.mark.parametrize("name", ["README.md", "plots/confusion.png"])
def test_what_becomes_a_link_while_it_is_looked_at_is_not_followed(folder, secret, monkeypatch, name):
    """Between the look at a file's kind and its opening."""
    opened = os.open

    def swapped(path, flags, *rest):
        (folder / name).unlink()
        (folder / name).symlink_to(secret)
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises((OSError, ValueError)) as caught:
        read_own(folder, name, 1000)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "card",
    [
        b"",
        b"# Card\n",
        CARD.replace("- sere\n", "").encode(),
        CARD.replace("library_name: transformers\n", "").encode(),
        CARD.encode("utf-16"),
        CARD.encode() + b"\xff",
        ("\n" + CARD).encode(),
        CARD.encode() + b"x" * 2**20,
    ],
    ids=range(8),
)
def test_a_card_has_our_first_lines_and_is_text_of_sane_size(tmp_path, card):
    (tmp_path / "README.md").write_bytes(card)
    with pytest.raises(ValueError, match="README.md"):
        read_known(tmp_path, "README.md")


@pytest.mark.parametrize(
    "picture",
    [
        png()[:-1],
        png() + SECRET.encode(),
        png()[:20] + b"x" + png()[21:],
        b"\x89PNG\r\n\x1a\n" + SECRET.encode(),
        b"",
        png()[8:],
        SECRET.encode() + png(),
        png().replace(b"IDAT", b"IDAX"),
    ],
    ids=range(8),
)
def test_a_plot_is_a_png_from_its_first_byte_to_its_last(tmp_path, picture):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "confusion.png").write_bytes(picture)
    with pytest.raises(ValueError, match="is not what SERE writes under this name"):
        read_known(tmp_path, "plots/confusion.png")


@given(data=st.binary(max_size=300) | st.text().map(lambda text: f"---\n{text}\n---\n".encode()), start=st.booleans())
def test_any_bytes_under_a_known_name_are_taken_or_refused_in_one_sentence(tmp_path_factory, data, start):
    folder = tmp_path_factory.mktemp("any")
    (folder / "plots").mkdir()
    for name in SMALL:
        (folder / name).write_bytes((png()[:40] if name.endswith("png") and start else b"") + data)
        try:
            assert read_known(folder, name).endswith(data)
        except ValueError as error:
            assert str(error).startswith(str(folder)) and "\n" not in str(error)
    shutil.rmtree(folder)


class Commits(list):
    """A Hub that only keeps what is committed: {path in the repository: content}."""

    def create_commit(self, operations, **_):
        self.append({step.path_in_repo: Path(step.path_or_fileobj).read_bytes() for step in operations})

    def create_repo(self, repo_id, **_):
        return type("Address", (), {"repo_id": repo_id})


@pytest.fixture
def commits(monkeypatch):
    found = Commits()
    for module in (hub, modeling_utils):
        monkeypatch.setattr(module, "hf_api", lambda: found)
        monkeypatch.setattr(module, "create_and_tag_model_card", lambda *_, **__: ModelCard("---\ntags: [x]\n---\n"))
    return found


def pushed_by(way: str, model, folder: Path):
    """Publish a model that was loaded from elsewhere, by one of the ways of transformers."""
    if way == "model":
        model.push_to_hub("org/x")
    elif way == "pipeline":
        extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
        SerePipeline(model=model, feature_extractor=extractor).push_to_hub("org/x")
    else:
        model.save_pretrained(folder, push_to_hub=True, repo_id="org/x")


@pytest.mark.parametrize("way", ["model", "pipeline", "save_pretrained"])
def test_every_way_to_push_publishes_the_card_and_what_is_known(folder, commits, tmp_path, way):
    model = SereForAudioClassification.from_pretrained(folder)
    target = tmp_path / "target"
    target.mkdir()
    pushed_by(way, model, target)
    (content,) = commits
    assert content.keys() == ALL
    assert content["README.md"].decode() == CARD.replace("path/to/this/folder", "org/x")


@pytest.mark.parametrize("way", ["model", "pipeline", "save_pretrained"])
@pytest.mark.parametrize("trap", ["link", "link to the environment", "pipe", "another form", "a gigabyte"])
def test_no_way_to_push_publishes_anything_else(folder, secret, commits, tmp_path, way, trap):
    (folder / "README.md").unlink()
    (TRAPS | FORMS)[trap](folder / "README.md", secret)
    model = SereForAudioClassification.from_pretrained(folder)
    pushed_by(way, model, tmp_path / "target")
    (content,) = commits
    assert content.keys() == ALL - {"plots/confusion.png", "plots/highlights.png"}
    assert b"not measured" in content["README.md"]
    assert not [name for name, data in content.items() if SECRET.encode() in data]


def test_a_folder_that_is_pushed_as_it_is_saved_keeps_its_other_files_to_itself(saved, commits, tmp_path, monkeypatch):
    model = SereForAudioClassification.from_pretrained(saved)
    target = tmp_path / "target"
    target.mkdir()
    taken = type(model)._get_files_timestamps

    def then_more(self, folder):
        stamps = taken(self, folder)
        (target / "notes.txt").write_text(SECRET)
        (target / "link.txt").unlink(missing_ok=True)
        (target / "link.txt").symlink_to("/proc/self/environ")
        (target / "private").mkdir(exist_ok=True)
        (target / "private" / "key").write_text(SECRET)
        return stamps

    monkeypatch.setattr(type(model), "_get_files_timestamps", then_more)
    pushed_by("save_pretrained", model, target)
    assert commits[0].keys() == ALL
    (target / "plots" / "family.png").write_bytes(png())
    with pytest.raises(ValueError, match=r"has plots/family\.png, which is no plot of the card"):
        pushed_by("save_pretrained", model, target)


@pytest.mark.parametrize("trap", [*TRAPS, "hard link"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json", "timeline_sere.py"])
def test_a_save_writes_through_no_link(saved, secret, tmp_path, name, trap):
    target = tmp_path / "target"
    target.mkdir()
    (TRAPS | FORMS)[trap](target / name, secret)
    model = SereForAudioClassification.from_pretrained(saved)
    if trap != "hard link":
        with pytest.raises(ValueError, match=f"{name} is (a link|not a file)"):
            model.save_pretrained(target)
        assert [path.name for path in target.iterdir()] == [name]
    assert SECRET in secret.read_text()


def test_weights_are_one_file_of_one_name(saved, tmp_path):
    model = SereForAudioClassification.from_pretrained(saved)
    model.save_pretrained(tmp_path, max_shard_size="1KB")
    assert [path.name for path in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    with pytest.raises(ValueError, match="variant is 'fp16'; SERE reads model.safetensors only: leave it out"):
        model.save_pretrained(tmp_path, variant="fp16")


def test_names_that_sere_does_not_give_are_none_of_its(folder):
    for name in ("token_SERE.py", "x.py", "model.bin", "secrets.json", ".env", "README.md~"):
        (folder / name).write_text("")
    assert set(known_names(folder)) == ALL


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("happiness", "happiness"),
        ("very_happy", "very_happy"),
        ("[click](https://evil.example)", "click(https: evil.example)"),
        ("![x](http://evil.example/pixel.png)", "!x(http: evil.example/pixel.png)"),
        ("# Heading\n\n| a | b |", "Heading a b"),
        ("<script>alert(1)</script>", "scriptalert(1)/script"),
        ("`code` **bold** _thin_ ~~gone~~ $x$", "code bold thin gone x"),
        ("www.evil.example @user a@b.example", "www evil.example user ab.example"),
        ("\u202egnp.exe\u200b\x07", "gnp.exe"),
        ("fro\u0301h", "fr\u00f3h"),
        ("x" * 500, "x" * 197 + "..."),
        ("波兰语", "波兰语"),
    ],
)
def test_names_of_strangers_stay_text(name, shown):
    assert plain(name) == shown


@given(st.text())
def test_any_name_becomes_one_line_without_markup(text):
    shown = plain(text)
    assert shown == shown.strip() and shown.isprintable() and len(shown) <= 200
    assert not set('[]<>|`*~#$@\\"') & set(shown) and "://" not in shown
    assert plain(shown) == shown
