"""configs/accelerate: accelerate reads each file, one CPU runs with its own, FSDP trains with its settings."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from test_train_sere import script, tool
from transformers import AutoModel, Wav2Vec2FeatureExtractor

from testing.corpora import write_corpus

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
SPREAD = ROOT / "testing" / "fsdp_run.py"


@pytest.fixture
def flags(tmp_path, encoder_config):
    """(output) -> command line that trains a tiny encoder on two tiny corpora."""
    write_corpus(tmp_path / "source", clips=2, seed=1)
    write_corpus(tmp_path / "target", clips=2, seed=2)
    AutoModel.from_config(encoder_config("wav2vec2")).save_pretrained(tmp_path / "encoder")
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path / "encoder")

    def flags(output: str) -> list[str]:
        return [
            "--source=source", "--target=target", "--shots=2", "--draws=1", "--report_to=none", "--encoder=encoder",
            "--train_encoder=full", "--refine_steps=3", "--batch_size=2", "--learning_rate=0.001", "--cache_dir=cache",
            f"--output_dir={output}",
        ]  # fmt: skip

    return flags


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_knows_every_field(path):
    config = load_config_from_file(str(path))  # raises for a name it does not know
    assert config.num_processes == yaml.safe_load(path.read_text())["num_processes"] >= 1


def test_document_names_all_of_them():
    text = (ROOT / "docs" / "scaling.md").read_text()
    assert [path.name for path in CONFIGS] == ["cpu.yaml", "fsdp.yaml", "multi_gpu.yaml", "single.yaml"]
    assert all(f"configs/accelerate/{path.name}" in text for path in CONFIGS)


def test_one_cpu_where_the_package_is_installed(tmp_path):
    """The installed files alone, as a wheel has them: no samples, no folder of the project beside them."""
    project = (ROOT / "pyproject.toml").read_text()
    assert 'py-modules = ["train_sere"]' in project and '"modeling_sere*", "model_card*"' in project
    shutil.copy(ROOT / "train_sere.py", tmp_path)
    for package in ("modeling_sere", "model_card"):
        shutil.copytree(ROOT / package, tmp_path / package)
    write_corpus(tmp_path / "source", seed=1)
    write_corpus(tmp_path / "target", seed=2)
    launcher = tool("accelerate"), "launch", "--config_file", str(ROOT / "configs" / "accelerate" / "cpu.yaml")
    flags = "--source=source", "--target=target", "--shots=2", "--draws=1", "--cache_dir=cache", "--output_dir=run"
    script(flags, tmp_path, *launcher, "-m", path="train_sere")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["uar"] > 0.5


def test_fsdp_trains_the_model_that_plain_processes_train(flags, tmp_path):
    launcher = tool("torchrun"), "--standalone", "--nproc_per_node", "2"
    script(flags("plain"), tmp_path, *launcher)
    done = script(flags("spread"), tmp_path, *launcher, path=SPREAD)
    spread, all_of_them = map(int, re.search(r"spread: (\d+) of (\d+)", done.stdout).groups())
    assert spread == all_of_them > 50 and "FSDPWav2Vec2EncoderLayer" in done.stdout
    plain, sharded = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "spread"))
    before = load_file(tmp_path / "encoder" / "model.safetensors")
    name = "encoder.layers.0.attention.k_proj.weight"
    assert (plain[f"sere.encoder.model.{name}"] - before[name]).abs().max() > 1e-3  # it was trained at all
    for key, tensor in plain.items():
        torch.testing.assert_close(sharded[key], tensor, rtol=1e-4, atol=1e-5)
