"""Building a page, putting it on the Hub, and what goes wrong on the way; what the page does is in test_browser.py."""

import base64
import gzip
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import HfApi, constants

from modeling_sere import space
from modeling_sere.training.errors import RunError
from testing.hub_server import HubServer, card_metadata

ROOT = Path(__file__).resolve().parents[2]
TOKEN, READER = "hf_anneliese_secret", "hf_anneliese_reads"
USERS = {
    TOKEN: {"name": "anneliese", "orgs": ["org"]},
    READER: {"name": "anneliese", "orgs": ["org"], "role": "read"},
}
CLIP = ROOT / "samples/polish/MK0_anger_20.flac"


def package(path: Path) -> Path:
    """An npm package with the two files that a page takes from onnxruntime-web."""
    with tarfile.open(path, "w:gz") as files:
        for name in (space.RUNTIME_SCRIPT, space.RUNTIME_BINARY):
            content = name.encode()
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            files.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def runtime(tmp_path_factory) -> Path:
    return package(tmp_path_factory.mktemp("cache") / space.RUNTIME)


@pytest.fixture(scope="module")
def folder(make_model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "sere polish"
    make_model(labels=("anger", "grief")).save_pretrained(path)
    return path


@pytest.fixture
def fast(monkeypatch, runtime):
    """Pages without a network in them: exporting one takes longer than all else."""
    monkeypatch.setattr(space, "runtime_package", lambda: runtime)
    monkeypatch.setattr(space, "_check_packages", lambda: None)
    monkeypatch.setattr(space, "export_network", lambda model, path: path.write_bytes(b"network"))


def build(folder: Path, output: Path, **options) -> Path:
    options = {"link": None, "samples": [], "samples_license": None} | options
    space.build(str(folder), output, **options)
    return output


def test_a_page_has_all_that_it_needs(folder, fast, tmp_path):
    page = build(folder, tmp_path / "page", link="org/sere", samples=[CLIP], samples_license="cc-by-nc-sa-4.0")
    names = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    assert names > {"index.html", "page.js", "worker.js", "style.css", "model.onnx", "model.json", "README.md"}
    assert f"samples/{CLIP.name}" in names and not any(name.endswith((".ts", ".mts")) for name in names)
    assert (page / "ort.mjs").read_bytes() == space.RUNTIME_SCRIPT.encode()
    assert gzip.decompress((page / "ort.wasm.gz").read_bytes()) == space.RUNTIME_BINARY.encode()
    settings = json.loads((page / "model.json").read_text(encoding="utf-8"))
    assert settings["labels"] == ["anger", "grief"] and list(settings["prior"]) == ["anger"]
    assert settings["samples"] == [{"file": f"samples/{CLIP.name}", "name": CLIP.stem}]
    statistics = space.SereForAudioClassification.from_pretrained(folder).sere.embedding.statistics
    torch.testing.assert_close(torch.tensor(settings["statistics"]), statistics, rtol=1e-7, atol=0)
    card = card_metadata((page / "README.md").read_text(encoding="utf-8"))
    assert card["sdk"] == "static" and card["app_file"] == "index.html" and card["models"] == ["org/sere"]


def test_the_page_loads_nothing_from_elsewhere():
    html = (ROOT / "space/page/index.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html and "unsafe-inline" not in html
    for path in space.SOURCES.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text and "style=" not in text, path.name


def test_a_page_may_be_built_again_and_nothing_else_is_overwritten(folder, fast, tmp_path):
    page = build(folder, tmp_path / "page", samples=[CLIP], samples_license="x")
    build(folder, page)
    assert list((page / "samples").iterdir()) == []
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years")
    with pytest.raises(RunError, match="thesis holds something else than a page"):
        build(folder, other)
    assert [path.name for path in other.iterdir()] == ["chapter.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": [CLIP]}, "--samples needs --samples_license"),
        ({"samples": [CLIP, CLIP], "samples_license": "x"}, "MK0_anger_20.flac twice"),
        ({"samples": [ROOT / "README.md"], "samples_license": "x"}, "README.md: give files of the kinds"),
        ({"samples": [ROOT / "none.wav"], "samples_license": "x"}, "none.wav: give files"),
    ],
)
def test_samples_are_sounds_with_a_licence(folder, fast, tmp_path, options, message):
    with pytest.raises(RunError, match=message):
        build(folder, tmp_path / "page", **options)
    assert not (tmp_path / "page").exists()


def test_a_model_that_is_none_is_told(fast, tmp_path):
    with pytest.raises(RunError, match="cannot be loaded"):
        build(tmp_path / "nowhere", tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_names_cannot_break_the_card_of_the_page(folder, fast, tmp_path):
    odd = tmp_path / 'a: "b" #c'
    odd.symlink_to(folder)
    text = (build(odd, tmp_path / "page") / "README.md").read_text(encoding="utf-8")
    assert card_metadata(text)["title"] == 'Emotion in a voice (a: "b" #c)'


def test_onnxruntime_is_pinned_by_its_hash(tmp_path, monkeypatch):
    path = package(tmp_path / space.RUNTIME)
    with pytest.raises(RunError, match="is not the onnxruntime-web that is expected"):
        space.runtime_package(tmp_path)
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    monkeypatch.setattr(space, "RUNTIME_HASH", digest)
    assert space.runtime_package(tmp_path) == path
    path.unlink()
    monkeypatch.setenv("PATH", "")  # no npm, as on a machine without a network
    with pytest.raises(RunError, match=r"cannot be fetched \(.*\): install npm .* or put onnxruntime-web-[\d.]+tgz"):
        space.runtime_package(tmp_path)


def test_packages_that_are_not_there_are_told_before_the_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(RunError, match=r'a page needs onnxscript, not installed here: pip install "sere\[export\]"'):
        build(tmp_path / "nowhere", tmp_path / "page")


def test_a_card_is_linked_once():
    card = "---\nlicense: mit\n---\n# comment\n\ntext\n"
    linked = space.with_link(card, "https://huggingface.co/spaces/org/demo")
    assert linked.startswith(card[:31]) and "[org/demo](https://huggingface.co/spaces/org/demo)" in linked
    assert linked.endswith("\n\ntext\n") and space.with_link(linked, "https://huggingface.co/spaces/org/demo") == linked
    assert yaml.safe_load(linked.split("---")[1]) == {"license": "mit"}


@pytest.fixture
def hub(monkeypatch):
    """The Hub of this process, as an account that may write."""
    with HubServer(USERS) as server:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(space, "HfApi", lambda: space_api(server, TOKEN))
        yield server


def space_api(server: HubServer, token: str) -> HfApi:
    return HfApi(endpoint=server.endpoint, token=token)


def command(monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, "argv", ["space", *map(str, words)])
    space.main()


def test_a_page_goes_to_the_hub_and_its_model_leads_to_it(folder, fast, hub, tmp_path, monkeypatch, capsys):
    api = space_api(hub, TOKEN)
    api.create_repo("org/sere")
    api.upload_file(path_or_fileobj=b"# SERE\n\nA model.\n", path_in_repo="README.md", repo_id="org/sere")
    page = tmp_path / "page"
    words = (folder, "--output", page, "--model_id", "org/sere", "--push", "org/demo")
    command(monkeypatch, *words, "--samples", CLIP, "--samples_license", "cc-by-nc-sa-4.0")
    files = hub.files("org/demo", repo_type="space")
    on_disk = {path.relative_to(page).as_posix(): path.read_bytes() for path in page.rglob("*") if path.is_file()}
    assert {name: files[name] for name in on_disk} == on_disk and f"samples/{CLIP.name}" in files
    assert f"Pushed to {hub.endpoint}/spaces/org/demo" in capsys.readouterr().out
    card = hub.files("org/sere")["README.md"].decode()
    assert card.startswith("# SERE\n\n**Try it in your browser: [org/demo]") and card.endswith("\n\nA model.\n")
    commits = len(hub.repository("org/sere").commits)
    command(monkeypatch, *words)  # again, without the clip: it goes, and the card stays
    assert f"samples/{CLIP.name}" not in hub.files("org/demo", repo_type="space")
    assert len(hub.repository("org/sere").commits) == commits


def test_a_token_that_may_only_read_is_told(folder, fast, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(space, "HfApi", lambda: space_api(hub, READER))
    with pytest.raises(SystemExit, match="the token of anneliese may only read"):
        command(monkeypatch, folder, "--output", tmp_path / "page", "--push", "org/demo")
    assert not (tmp_path / "page").exists() and ("space", "org/demo") not in hub.repositories


def test_an_installed_package_has_the_files_of_the_page():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'space = ["page/*"]' in project and '"space"]' in project
    assert all(path.is_file() for path in space.SOURCES.iterdir())
