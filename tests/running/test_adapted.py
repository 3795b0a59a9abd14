"""The Python way: folders, datasets and lists of clips give what the command gives."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

import train_sere
from modeling_sere import SereForAudioClassification
from modeling_sere.training import adapt
from modeling_sere.training.errors import RunError
from testing.corpora import SOUNDS, bad_files, read_metadata, voice, wav, write_corpus
from testing.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_adapted"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with corpora: source and target."""
    folder = tmp_path_factory.mktemp("adapted")
    write_corpus(folder / "source", clips=3, seed=1)
    write_corpus(folder / "target", clips=3, seed=2)
    return folder


@pytest.fixture(scope="module")
def flags(data) -> dict:
    return {"shots": 2, "draws": 2, "cache_dir": str(data / "cache")}


@pytest.fixture(scope="module")
def command(data, flags) -> Path:
    """The folder of a run by the command."""
    places = {"source": data / "source", "target": data / "target", "output_dir": data / "run", "report_to": "none"}
    with pytest.MonkeyPatch.context() as patch:
        words = [f"--{name}={value}" for name, value in (flags | places).items()]
        patch.setattr(sys, "argv", ["train_sere.py", *words])
        train_sere.main()
    return data / "run"


@pytest.fixture(scope="module")
def from_folders(data, flags):
    return adapt(source=data / "source", target=str(data / "target"), **flags)


def clips(folder: Path, labels: bool = True) -> list[tuple]:
    return [
        (folder / row["file_name"], *((row["emotion"],) if labels else (None,)), row["speaker"])
        for row in read_metadata(folder)
    ]


def dataset(folder: Path) -> datasets.Dataset:
    rows = read_metadata(folder)
    return datasets.Dataset.from_dict(
        {
            "audio": [{"bytes": (folder / row["file_name"]).read_bytes(), "path": row["file_name"]} for row in rows],
            "emotion": [row["emotion"] for row in rows],
            "speaker_id": [row["speaker"] for row in rows],
        }
    ).cast_column("audio", datasets.Audio(decode=False))


def same(result, command: Path):
    """Whether a result has the model and the scores of the command, whatever its clips are called."""
    found = load_file(command / "model.safetensors")
    assert all(torch.equal(tensor, found[name]) for name, tensor in result.model.state_dict().items())
    written = json.loads((command / "results.json").read_text())
    for key in ("uar", "confusion", "shares", "labels", "speaker_ids", "spread", "num_target_clips"):
        assert result.results[key] == written[key], key


def test_folders_give_what_the_command_gives(from_folders, command, data):
    same(from_folders, command)
    rows = list(from_folders.predictions)
    assert [row["file"] for row in rows] == [row["file_name"] for row in read_metadata(data / "target")]
    assert rows[0].keys() >= {"emotion", "score", "strongest", "label"}
    assert len(from_folders.predictions) == 18 and not from_folders.model.training
    assert "SERE (after the field)" in str(from_folders)
    assert repr(from_folders) == "Adapted(source -> target, 18 predictions)"


def test_lists_of_clips_and_a_folder_that_goes_with_the_result(from_folders, command, data, flags):
    listed = adapt(source=clips(data / "source"), target=clips(data / "target"), **flags)
    same(listed, command)
    assert [row["file"] for row in listed.predictions] == [row["file"] for row in from_folders.predictions]
    folder = listed.folder
    assert (folder / "README.md").is_file()
    del listed
    assert not folder.exists()


def test_lists_of_samples_and_bytes_without_labels(data, flags):
    source = [(voice(e, s, k), e, f"s{s}") for e in SOUNDS for s in range(2) for k in range(3)]
    target = [wav(voice(e, s, 10 + k)) for e in SOUNDS for s in range(2) for k in range(3)]
    target += [(16_000, voice("anger", 0, 77)), {"array": voice("anger", 1, 78), "sampling_rate": 16_000}]
    target += [torch.from_numpy(voice("anger", 1, 79)), bad_files()["corrupt.wav"]]
    result = adapt(source=source, target=target, max_skipped=0.2, **flags)
    assert result.results["uar"] is None and result.results["num_target_clips"] == 21
    *rows, bad = result.predictions
    assert rows[0]["file"] == "target[0]" and rows[-1]["label"] is None
    assert bad["file"] == "target[21]" and "target[21]" in bad["error"]


def test_datasets_and_several_of_them(command, data, flags):
    whole = dataset(data / "source")
    halves = [whole.select(range(9)), whole.select(range(9, 18))]
    result = adapt(source=halves, target=dataset(data / "target"), **flags | {"shots": 6})
    assert result.results["num_source_clips"] == 18 and result.results["speaker_ids"]
    assert next(iter(result.predictions))["file"] == "target[0]"
    assert sum(result.results["shares"].values()) == pytest.approx(1)


def test_a_list_of_corpora_is_several(data, flags):
    halves = [clips(data / "source")[:9], [dataset(data / "source").select(range(9, 18))]]
    results = adapt(source=[*halves, data / "target"], target=dataset(data / "source"), **flags | {"shots": 1}).results
    assert results["source"] == "source[0], source[1], target" and results["num_source_clips"] == 36
    assert {name.split("/")[0] for name in results["shot_files"]} == {"source[0]", "source[1]", "target"}
    with pytest.raises(RunError, match="twice: name each corpus once"):
        adapt(source=[data / "source", data / "source"], target=data / "target", **flags)


def test_a_model_in_place_of_a_source(command, data, flags):
    result = adapt(target=data / "target", model=command, **flags)
    assert result.results["source_free"] and result.results["source"] == "source"


def test_maps_and_lists_as_flags(data, flags):
    words = {"anger": "W", "neutral": "N", "sadness": "T"}
    target = [(audio, words[label], speaker) for audio, label, speaker in clips(data / "target")]
    result = adapt(
        source=data / "source", target=target, label_map={"W": "anger", "N": "neutral", "T": "sadness"},
        emotions=["anger", "sadness"], **flags,
    )  # fmt: skip
    assert result.results["labels"] == ["anger", "sadness"]
    assert result.results["labels_left_out"]["target"] == {"neutral": 6}


def test_saved_folder_is_that_of_a_run(from_folders, command, tmp_path):
    place = from_folders.save(tmp_path / "mine")
    assert {path.name for path in place.iterdir()} == {path.name for path in command.iterdir()}
    loaded = SereForAudioClassification.from_pretrained(place)
    assert torch.equal(loaded.classifier.weight, from_folders.model.classifier.weight)
    with pytest.raises(RunError, match="mine is not empty: give another folder"):
        from_folders.save(tmp_path / "mine")


def test_result_is_pushed(from_folders, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with HubServer({TOKEN: {"name": "me", "orgs": {"org": "write"}}}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        address = from_folders.push("org/mine", private=True, tag="v1")
        assert address == f"{server.endpoint}/org/mine"
        pushed = server.files("org/mine", "v1")
        assert {"README.md", "model.safetensors"} <= pushed.keys()
        assert not {"results.json", "predictions.csv", "sere_run.json"} & pushed.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": None}, "adapt needs a target"),
        ({"source": None}, "adapt needs a source of labelled clips, or a model"),
        ({"shot": 3}, "adapt has no argument shot"),
        ({"shots": -1}, "--shots must be at least 0, not -1"),
        ({"source": 7}, "source is of type int: give a folder, a datasets.Dataset, or a list"),
        ({"source": {"anger": []}}, "source is of type dict"),
        ({"source": []}, "source has no rows"),
        ({"source": [(b"x", "anger", "a", "b")]}, r"source\[0\] has 4 parts"),
        ({"source": [(b"x", np.zeros(3))]}, r"source\[0\] has ndarray for an emotion"),
        ({"source": ["a.wav", "b.wav"]}, "every cell of it is empty"),
        ({"source": [("a.wav", "anger"), ("a.wav", "anger")]}, "a.wav is in the list twice"),
        ({"source": "nowhere"}, "nowhere does not exist"),
        ({"source": datasets.DatasetDict()}, "source is a dict of the splits"),
        ({"source": datasets.Dataset.from_dict({"x": [1]})}, "source"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(data, flags, given, message):
    with pytest.raises(RunError, match=message) as caught:
        adapt(**{"source": data / "source", "target": data / "target"} | flags | given)
    assert "\n" not in str(caught.value)


def test_importing_it_costs_nothing():
    code = "import sys; from modeling_sere.training import adapt; assert 'torch' not in sys.modules, 'slow'"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
