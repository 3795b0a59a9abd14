"""A saved folder in the hands of somebody who has transformers and nothing of ours."""

import getpass
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification, pipeline

from modeling_sere import SereForAudioClassification, SereModel
from modeling_sere.modeling_sere import feature_extractor
from modeling_sere.pipeline_sere import SerePipeline

FILES = {
    "README.md", "config.json", "model.safetensors", "preprocessor_config.json",
    "configuration_sere.py", "modeling_sere.py", "embedding_sere.py", "encoder_sere.py", "dynamics_sere.py",
    "resonance_sere.py", "pipeline_sere.py", "timeline_sere.py", "audio_sere.py", "decoding_sere.py",
    "fetching_sere.py", "card_sere.py", "published_sere.py", "weights_sere.py", "stream_sere.py",
}  # fmt: skip
ENCODERS = ("none", "wavlm", "whisper")

# run by a fresh interpreter: loads every folder, writes what it saw to seen.pt, and saves each model once more
STRANGER = """
import sys, torch
torch.set_num_threads(1)
sys.modules["modeling_sere"] = None  # where it is installed, it must not help
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, pipeline
)

given = torch.load("given.pt")
seen = {}
for name in sys.argv[1:]:
    config = AutoConfig.from_pretrained(name, trust_remote_code=True)
    base = AutoModel.from_pretrained(name, trust_remote_code=True).eval()
    model, info = AutoModelForAudioClassification.from_pretrained(
        name, trust_remote_code=True, output_loading_info=True
    )
    model.eval()
    extractor = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=True)
    clips = [clip.numpy() for clip in given["clips"]]
    batch = extractor(clips, sampling_rate=16000, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits, embeddings = model(**batch).logits, base(**batch).embeddings
    pipe = pipeline("audio-classification", model=name, trust_remote_code=True, device="cpu")
    seen[name] = {
        "classes": [type(x).__name__ for x in (config, base, model, pipe)],
        "id2label": config.id2label,
        "logits": logits,
        "embeddings": embeddings,
        "buffers": dict(model.named_buffers()),
        "problems": {key: sorted(map(str, value)) for key, value in info.items() if value},
        "scores": pipe({"array": clips[0], "sampling_rate": 16000}),
    }
    model.save_pretrained(name + "-again")
    again = AutoModelForAudioClassification.from_pretrained(name + "-again", trust_remote_code=True).eval()
    with torch.no_grad():
        seen[name]["logits again"] = again(**batch).logits
torch.save(seen, "seen.pt")
"""


@pytest.fixture(scope="module")
def saved(make_model, encoder_config, clips, tmp_path_factory):
    """A folder with one saved model per kind of encoder, the models, and what the stranger saw of them."""
    root = tmp_path_factory.mktemp("hub")
    models = {}
    for name in ENCODERS:
        options = {}
        if name != "none":  # the encoder's configuration comes from a local folder, as in training
            encoder_config(name).save_pretrained(root / f"{name}-encoder")
            options["encoder_config"] = AutoConfig.from_pretrained(root / f"{name}-encoder")
        model = models[name] = make_model(name, num_sources=3, **options)
        for buffer in (model.source_embeddings, model.source_cues, model.sere.embedding.voice_weight):
            buffer.uniform_(-0.1, 0.1)
        model.source_labels.copy_(torch.arange(3))
        model.save_pretrained(root / name)
    torch.save({"clips": clips}, root / "given.pt")
    return root, models


@pytest.fixture(scope="module")
def seen(saved):
    root, _ = saved
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_", "TRANSFORMERS"))
    }
    environment |= {"HF_HOME": str(root / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", STRANGER, *ENCODERS]
    result = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return torch.load(root / "seen.pt")


@pytest.fixture(params=ENCODERS)
def kind(request) -> str:
    return request.param


def test_exactly_the_documented_files_are_written(saved, kind):
    assert set(os.listdir(saved[0] / kind)) == FILES


def test_config_names_the_code_and_no_place(saved, kind):
    root, _ = saved
    text = (root / kind / "config.json").read_text()
    config = json.loads(text)
    assert config["auto_map"] == {
        "AutoConfig": "configuration_sere.SereConfig",
        "AutoModel": "modeling_sere.SereModel",
        "AutoModelForAudioClassification": "modeling_sere.SereForAudioClassification",
    }
    assert config["custom_pipelines"]["audio-classification"]["impl"] == "pipeline_sere.SerePipeline"
    assert config["architectures"] == ["SereForAudioClassification"] and config["model_type"] == "sere-resonance"
    values = []
    for part in (text, (root / kind / "preprocessor_config.json").read_text()):
        assert not [place for place in (root, Path.home(), Path.cwd()) if str(place) in part]
        json.loads(part, object_hook=lambda item: values.extend(item.values()))
    names = [value for value in values if isinstance(value, str)]
    assert len(names) > 5
    assert not [name for name in names if name.startswith(("/", "~")) or name == getpass.getuser()]


def test_loads_where_our_package_is_absent(saved, seen, kind):
    model = saved[1][kind]
    assert seen[kind]["classes"] == ["SereConfig", "SereModel", "SereForAudioClassification", "SerePipeline"]
    assert seen[kind]["id2label"] == model.config.id2label
    assert seen[kind]["problems"] == {}


def test_logits_and_embeddings_are_the_same(saved, seen, kind, clips, pad):
    with torch.no_grad():
        output = saved[1][kind](*pad(clips))
    torch.testing.assert_close(seen[kind]["logits"], output.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[kind]["embeddings"], output.embeddings, atol=1e-5, rtol=0)


def test_every_buffer_is_the_same(saved, seen, kind):
    buffers = dict(saved[1][kind].named_buffers())
    assert buffers.keys() == seen[kind]["buffers"].keys()
    assert {
        "sere.embedding.statistics",
        "sere.embedding.cue_map",
        "source_embeddings",
        "source_labels",
    } <= buffers.keys()
    for name, buffer in buffers.items():
        assert torch.equal(seen[kind]["buffers"][name], buffer), name


def test_pipeline_scores(saved, seen, kind, clips):
    model = saved[1][kind]
    with torch.no_grad():
        scores = model(clips[0][None]).logits.softmax(1)[0]
    given = {entry["label"]: entry["score"] for entry in seen[kind]["scores"]}
    np.testing.assert_allclose([given[label] for label in model.config.labels], scores.numpy(), atol=1e-5)


def test_saved_again_from_the_remote_code(saved, seen, kind):
    """The copy is complete: the same files, the same model, and it names its own code, not where it came from."""
    root = saved[0]
    assert set(os.listdir(root / f"{kind}-again")) == FILES
    torch.testing.assert_close(seen[kind]["logits again"], seen[kind]["logits"], atol=0, rtol=0)
    first, second = (json.loads((root / name / "config.json").read_text()) for name in (kind, f"{kind}-again"))
    assert first == second


def test_loads_here_without_remote_code(saved, kind, clips, pad):
    root, models = saved
    model, info = SereForAudioClassification.from_pretrained(root / kind, output_loading_info=True)
    assert not any(info.values())
    with torch.no_grad():
        assert torch.equal(model.eval()(*pad(clips)).logits, models[kind](*pad(clips)).logits)


def test_every_weight_is_initialised_when_the_head_is_missing(saved):
    """Another number of emotions: the head is drawn anew, finite, and the rest is kept."""
    root, models = saved
    model = SereForAudioClassification.from_pretrained(root / "none", num_labels=5, ignore_mismatched_sizes=True)
    assert model.classifier.weight.shape[0] == 5 and torch.isfinite(model.classifier.weight).all()
    assert torch.equal(model.sere.embedding.statistics, models["none"].sere.embedding.statistics)


@pytest.mark.parametrize("index", [None, "model.safetensors.index.json"])
def test_weights_that_are_a_pickle_are_refused(saved, tmp_path, index):
    """By name of the file, and by an index that leads to it."""
    root, models = saved
    folder = shutil.copytree(root / "none", tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save(models["none"].state_dict(), folder / "pytorch_model.bin")
    if index is not None:
        places = dict.fromkeys(models["none"].state_dict(), "pytorch_model.bin")
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for load in (SereForAudioClassification, AutoModel, AutoModelForAudioClassification):
        with pytest.raises(OSError, match="pickled has no model.safetensors: SERE reads no other weights"):
            load.from_pretrained(folder, trust_remote_code=True)


def test_a_saved_pipeline_is_a_whole_repository(saved, tmp_path, clips):
    """Saved from one whose card has results; that card goes along, and another is written only for other weights."""
    root, _ = saved
    first = shutil.copytree(root / "wavlm", tmp_path / "first")
    (first / "README.md").write_text((first / "README.md").read_text().replace("not measured", "43.1 % UAR"))
    pipe = pipeline("audio-classification", model=str(first), trust_remote_code=True, device="cpu")
    pipe.save_pretrained(tmp_path / "second")
    assert set(os.listdir(tmp_path / "second")) >= FILES
    assert "43.1 % UAR" in (tmp_path / "second" / "README.md").read_text()
    again = pipeline("audio-classification", model=str(tmp_path / "second"), trust_remote_code=True, device="cpu")
    clip = {"array": clips[0].numpy(), "sampling_rate": 16000}
    assert again(clip) == pipe(clip) and type(again).__name__ == "SerePipeline"
    torch.nn.init.zeros_(again.model.classifier.weight)
    again.save_pretrained(tmp_path / "third")
    assert "Results of these weights: not measured" in (tmp_path / "third" / "README.md").read_text()
    (tmp_path / "third" / "README.md").write_text("mine")
    again.save_pretrained(tmp_path / "third")
    assert (tmp_path / "third" / "README.md").read_text() == "mine"


def test_small_shards_are_asked_for(saved, tmp_path, clips):
    root, models = saved
    models["wavlm"].save_pretrained(tmp_path, max_shard_size="10KB")
    loaded = SereForAudioClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(clips[0][None]).logits, models["wavlm"](clips[0][None]).logits)


def test_a_pipeline_around_a_model_in_memory(saved, clips):
    """transformers looks for a pipeline's code in a repository, so that a model in memory needs the class named."""
    model = saved[1]["none"]
    pipe = pipeline(
        "audio-classification", model=model, feature_extractor=feature_extractor(), pipeline_class=SerePipeline,
        device="cpu",
    )  # fmt: skip
    assert isinstance(pipe, SerePipeline) and pipe(clips[0].numpy(), return_timestamps=True)["chunks"]


def test_models_of_earlier_versions(saved, tmp_path, caplog):
    """They have a classifier of the cues beside the one of the embeddings, zero in all that a run has made."""
    shutil.copytree(saved[0] / "none", tmp_path / "old")
    path = tmp_path / "old" / "model.safetensors"
    weights = load_file(path)
    save_file(weights | {"cue_classifier.weight": torch.zeros(3, 5)}, path, {"format": "pt"})
    loaded = SereForAudioClassification.from_pretrained(tmp_path / "old")
    torch.testing.assert_close(loaded.classifier.weight, weights["classifier.weight"])
    assert "cue_classifier" not in caplog.text
    save_file(weights | {"cue_classifier.weight": torch.ones(3, 5)}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"old: cue_classifier\.weight is not zero: .* earlier version of SERE"):
        SereForAudioClassification.from_pretrained(tmp_path / "old")
    SereModel.from_pretrained(tmp_path / "old")  # has no classifier
