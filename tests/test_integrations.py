"""docs/integrations.md: blocks that need packages beyond those of the tests run with the least that they use of them.

The other blocks are run by tests/test_documents.py.
"""

import io
import sys
import types

import numpy as np
import pytest
import soundfile
import torch

from benchmarks import threads
from modeling_sere.modeling_sere import feature_extractor
from modeling_sere.pipeline_sere import SerePipeline
from testing.documents import ROOT, steps


@pytest.fixture(scope="module")
def names(make_model):
    """What the first block of the document leaves: a model and a pipeline, here tiny ones."""
    model = make_model()
    classifier = SerePipeline(model=model, feature_extractor=feature_extractor(), device="cpu")
    return {"model": model, "classifier": classifier}


def run(package: str, names: dict, modules: dict, monkeypatch) -> dict:
    """Run the block that begins with "# needs package" beside stand-ins for modules; give its names."""
    text = (ROOT / "docs/integrations.md").read_text(encoding="utf-8")
    (code,) = [step.code for step in steps(text) if step.code.startswith(f"# needs {package}")]
    for name, members in modules.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    found = dict(names)
    exec(code, found)
    return found


def test_every_block_that_needs_a_package_is_run_here():
    text = (ROOT / "docs/integrations.md").read_text(encoding="utf-8")
    needs = [step.code.split()[2].rstrip(",") for step in steps(text) if not step.runs]
    assert needs == ["fastapi", "gradio", "mteb"]


def test_fastapi(names, voice, monkeypatch):
    """A plain function under the route, called from a pool of threads as FastAPI does."""
    routes = {}

    class FastAPI:
        def post(self, path):
            return lambda function: routes.setdefault(path, function)

    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    run("fastapi", names, {"fastapi": {"FastAPI": FastAPI, "UploadFile": object}}, monkeypatch)
    sound = io.BytesIO()
    soundfile.write(sound, voice(0.5).numpy(), 16000, format="FLAC")
    upload = types.SimpleNamespace(file=io.BytesIO(sound.getvalue()))
    labels = {score["label"] for score in routes["/emotion"](upload)}
    assert labels == set(names["model"].config.labels)
    assert "error" in routes["/emotion"](types.SimpleNamespace(file=io.BytesIO(b"no audio")))


def test_gradio(names, voice, monkeypatch):
    built = []
    parts = {"Interface": lambda *parts: built.append(parts), "Audio": lambda: "audio", "Label": lambda: "label"}
    answer = run("gradio", names, {"gradio": parts}, monkeypatch)["answer"]
    assert built == [(answer, "audio", "label")]
    microphone = (voice(0.5).numpy() * 32767).astype(np.int16)  # as gradio gives it
    assert sum(answer((16000, microphone)).values()) == pytest.approx(1)


def test_mteb(names, voice, monkeypatch):
    """Batches of mteb's `AudioInputItem` at another rate give the embeddings of the model."""
    encoder = {"mteb.models.abs_encoder": {"AbsEncoder": object}, "mteb.models": {}, "mteb": {}}
    sere = run("mteb", names, encoder, monkeypatch)["Sere"]()
    items = [{"array": voice(0.5, seed).numpy().astype(np.float64), "sampling_rate": 16000} for seed in range(3)]
    embeddings = sere.encode([{"audio": items[:2]}, {"audio": items[2:]}], task_metadata=None, hf_split="test")
    with torch.no_grad():
        expected = names["model"].sere(voice(0.5, 2)[None]).embeddings
    assert embeddings.shape == (3, expected.shape[1])
    np.testing.assert_allclose(embeddings[2], expected[0], atol=1e-5)
    other_rate = sere.encode([{"audio": [{"array": np.repeat(items[0]["array"], 2), "sampling_rate": 32000}]}])
    assert float(other_rate[0] @ embeddings[0]) > 0.5


def test_cost_of_threads(names):
    clips = [np.random.default_rng(0).standard_normal(8000).astype(np.float32)] * 3
    assert all(milliseconds > 0 for milliseconds in threads.cost(names["classifier"], clips, callers=2))
