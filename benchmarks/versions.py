"""The oldest and the newest transformers that pyproject.toml admits, each in a fresh virtual environment.

    python -m benchmarks.versions

First the environment holds only what somebody needs who predicts (torch, transformers, soundfile, soxr): a model that
this process puts on a Hub on loopback is loaded there by name and must give this process' logits. Then the package and
its test dependencies join, and the tests of loading run. Needs a package index, and 2 GB of disk per version.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import requires
from pathlib import Path

import torch
from huggingface_hub import HfApi, constants

from modeling_sere import SereConfig, SereForAudioClassification
from testing.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[1]
TESTS = ["tests/test_loading.py", "tests/test_pipeline.py", "tests/test_root_files.py", "tests/reporting/test_hub.py"]
PREDICT = ("torch", "soundfile", "soxr")
TOKEN, REPOSITORY = "hf_versions", "org/sere-none"

USER = """
import importlib.util, sys, torch
assert importlib.util.find_spec("modeling_sere") is None and importlib.util.find_spec("datasets") is None
from transformers import AutoModel, AutoModelForAudioClassification, pipeline
name, clip = "org/sere-none", torch.load("clip.pt")
model = AutoModelForAudioClassification.from_pretrained(name, trust_remote_code=True).eval()
with torch.inference_mode():
    logits = model(clip[None]).logits
    AutoModel.from_pretrained(name, trust_remote_code=True)(clip[None]).embeddings
pipe = pipeline("audio-classification", model=name, trust_remote_code=True, device="cpu")
scores = {entry["label"]: entry["score"] for entry in pipe({"array": clip.numpy(), "sampling_rate": 16000})}
ranked = torch.tensor([[scores[model.config.id2label[k]] for k in range(len(scores))]])
torch.testing.assert_close(ranked, logits.softmax(1), atol=1e-5, rtol=0)
torch.testing.assert_close(logits, torch.load("logits.pt"), atol=1e-5, rtol=0)
import huggingface_hub, transformers
print(transformers.__version__, huggingface_hub.__version__, torch.__version__)
"""


def requirements() -> dict[str, str]:
    """Map each package to its requirement in pyproject.toml."""
    return {re.match(r"[\w-]+", line)[0]: line for line in requires("sere") if ";" not in line}  # ";": of an extra


def fresh_environment(folder: Path, *packages: str) -> str:
    """Return the Python of a new virtual environment."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    install(python, *packages)
    return python


def install(python: str, *packages: str):
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, stderr=subprocess.DEVNULL)


def published(hub: HubServer, folder: Path) -> None:
    """Put a small model on the Hub, and beside the user's script a clip and the logits that are expected for it."""
    torch.manual_seed(0)
    model = SereForAudioClassification(SereConfig(num_labels=3)).eval()
    torch.nn.init.normal_(model.classifier.weight)
    torch.nn.init.ones_(model.sere.embedding.statistics)
    clip = 0.1 * torch.randn(16000)
    model.save_pretrained(folder / "model")
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    api.create_repo(REPOSITORY)
    api.upload_folder(repo_id=REPOSITORY, folder_path=folder / "model")
    with torch.inference_mode():
        torch.save(model(clip[None]).logits, folder / "logits.pt")
    torch.save(clip, folder / "clip.pt")


def try_version(requirement: str, folder: Path, hub: HubServer) -> tuple[bool, str, str]:
    """Tell whether all is well, the versions that the empty environment got, and the last line of the tests."""
    needed = requirements()
    python = fresh_environment(folder / "venv", requirement, *(needed[name] for name in PREDICT))
    environment = hub.environment(folder / "hf")
    user = subprocess.run(
        [python, "-I", "-c", USER], cwd=folder.parent, env=environment, capture_output=True, text=True, check=False
    )
    if user.returncode:
        return False, f"empty environment failed: {user.stderr.strip().splitlines()[-1]}", "-"
    install(python, requirement, "-e", f"{ROOT}[test]")
    tests = subprocess.run(
        [python, "-m", "pytest", *TESTS], cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    failed = [line for line in tests.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return tests.returncode == 0, user.stdout.strip(), "\n".join([tests.stdout.strip().splitlines()[-1], *failed])


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    constants.HF_HUB_OFFLINE = False  # the Hub is on loopback
    constants.HF_HUB_DISABLE_XET = True
    wanted, failed = requirements()["transformers"], False
    oldest = re.search(r">=([\d.]+)", wanted)[1]
    with tempfile.TemporaryDirectory() as name, HubServer({TOKEN: {"name": "versions", "orgs": ["org"]}}) as hub:
        root = Path(name)
        published(hub, root)
        print("transformers, huggingface_hub, torch | tests of loading")
        for requirement in (f"transformers=={oldest}", wanted):
            (root / requirement).mkdir()
            good, *told = try_version(requirement, root / requirement, hub)
            print(*told, sep=" | ", flush=True)
            failed |= not good
    sys.exit(failed)


if __name__ == "__main__":
    main()
