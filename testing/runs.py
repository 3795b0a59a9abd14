"""Runs of train_sere.py in processes of their own: the command, its environment, its outcome."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from transformers import AutoModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = str(ROOT / "train_sere.py")
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64, "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def tiny_encoder(folder: Path) -> Path:
    """Save a random wav2vec2 as a repository."""
    torch.manual_seed(0)
    AutoModel.from_config(Wav2Vec2Config(**SIZES)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return folder


def command(*switches: str, **options) -> list[str]:
    """Return the command of train_sere.py with these flags."""
    return [sys.executable, SCRIPT, *(f"--{name}={value}" for name, value in options.items()), *switches]


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a process that touches no cache but its own, on one thread."""
    return os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | variables


class Ended(NamedTuple):
    """The end of a process."""

    status: int
    stderr: str

    @property
    def last_line(self) -> str:
        return (self.stderr.strip().splitlines() or ["nothing said"])[-1]


def finished(words: list[str], variables: dict[str, str], before: Callable | None = None) -> Ended:
    """Run a process to its end, whatever that is; `before` runs in it first."""
    done = subprocess.run(
        words, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=before,
        timeout=600, check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stderr)


def one_sentence(run: Ended) -> list[str]:
    """Return what is wrong with how a run that could not go on has ended: status 1 and one line of its own is right."""
    said = [line for line in run.stderr.splitlines() if line.startswith("train_sere.py: ")]
    if run.status == 1 and len(said) == 1 and "Traceback" not in run.stderr:
        return []
    return [f"status {run.status}, no one sentence but: {run.last_line}"]


def results(folder: Path) -> dict:
    """Read results.json without what no two runs share."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    del found["seconds"]
    return found


def differences(one: Path, other: Path, tolerance: float = 1e-6) -> list[str]:
    """Return where two output folders differ: in results.json, or by more than `tolerance` in a weight."""
    found = [f"results.json: {path}" for path in _unequal(results(one), results(other), tolerance)]
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    if first.keys() != second.keys():
        return [*found, "model.safetensors: other tensors"]
    found += [
        f"model.safetensors: {name} by {(first[name].double() - second[name].double()).abs().max():.1e}"
        for name in first
        if not torch.allclose(first[name].double(), second[name].double(), rtol=tolerance, atol=tolerance)
    ]
    return found


def _unequal(one, other, tolerance, path="") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in _unequal(one[key], other[key], tolerance, f"{path}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for k, (a, b) in pairs for found in _unequal(a, b, tolerance, f"{path}/{k}")]
    if isinstance(one, float) and isinstance(other, float):
        return [] if math.isclose(one, other, rel_tol=0, abs_tol=tolerance) else [f"{path} is {one}, {other}"]
    return [] if one == other else [f"{path} is {one}, {other}"]
