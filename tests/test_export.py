"""Graphs of a model: one for all lengths, without a look at values, and ONNX files that answer as the model does."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from modeling_sere import SereConfig, SereForAudioClassification, export
from modeling_sere.embedding_sere import moments
from modeling_sere.encoder_sere import SereEncoder
from modeling_sere.training.errors import RunError

SAMPLES = sorted((Path(__file__).resolve().parents[1] / "samples" / "polish").glob("*_30.flac"))
SECONDS = (0.1, 0.333, 1.0, 2.7, 5.12, 10.0, 30.0)
FORBIDDEN = ("nonzero", "_local_scalar_dense", "masked_select", "unique", "_fft")
MOST_OPERATORS = 2500  # of the model without an encoder; a loop over blocks or frames would multiply them
TOLERANCE = 1e-4


def operators(program: torch.export.ExportedProgram) -> Counter:
    modules = [module for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    nodes = [node for module in modules for node in module.graph.nodes if node.op == "call_function"]
    return Counter(str(node.target) for node in nodes if "aten" in str(node.target))


def recording(seconds: float) -> np.ndarray:
    """Recordings of the samples one after the other, so many seconds of them."""
    joined = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in SAMPLES])
    return joined[8000 : 8000 + round(16_000 * seconds)]


@pytest.fixture(scope="module")
def model() -> SereForAudioClassification:
    """With the statistics of the samples, as a run leaves them."""
    torch.manual_seed(0)
    model = SereForAudioClassification(SereConfig(id2label=dict(enumerate("abcd")))).eval()
    clips = [torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None] for path in SAMPLES]
    with torch.no_grad():
        features = torch.cat([model.sere(clip, return_dict=True).features for clip in clips])
        model.sere.embedding.statistics.copy_(moments(features).expand_as(model.sere.embedding.statistics))
        torch.nn.init.normal_(model.classifier.weight)
    return model


@pytest.fixture(scope="module")
def program(model) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return export.program(model)


@pytest.fixture(scope="module")
def onnx_file(model, program, tmp_path_factory) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(export, "program", lambda _: program)
        (path,) = export.export(model, tmp_path_factory.mktemp("repository") / "onnx")
    return path


def test_graph_has_few_operators_and_looks_at_no_value(program):
    counted = operators(program)
    assert sum(counted.values()) < MOST_OPERATORS
    assert not [name for name in counted if any(word in name for word in FORBIDDEN)]


@pytest.mark.parametrize("seconds", SECONDS)
def test_graph_answers_as_the_model(model, program, seconds):
    """With a second, shorter clip beside it, on the same graph whatever the length."""
    values = torch.from_numpy(recording(seconds))[None].repeat(2, 1)
    mask = torch.ones_like(values, dtype=torch.long)
    mask[1, 2 * values.shape[1] // 3 :] = 0
    with torch.no_grad():
        for clips in (1, 2):
            ours = export.SereGraph(model)(values[:clips], mask[:clips])
            for one, other in zip(program.module()(values[:clips], mask[:clips]), ours, strict=True):
                torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=0)


def test_constants_of_a_trace_are_not_kept(model, program):
    """A tracer's tensors hold no numbers: nothing of them may be left for later calls."""
    copy = SereForAudioClassification(model.config).eval()
    copy.load_state_dict(model.state_dict())
    values = torch.from_numpy(recording(0.5))[None]
    with torch.no_grad():
        torch.testing.assert_close(copy(values).logits, model(values).logits)


@pytest.mark.parametrize("seconds", SECONDS)
def test_onnx_answers_as_the_model(model, onnx_file, seconds):
    waveform = recording(seconds)
    with torch.no_grad():
        output = model(torch.from_numpy(waveform)[None], return_dict=True)
    expected = output.logits[0], output.highlights[0], output.embeddings[0]
    ((logits, highlights, embeddings),) = export.answers(onnx_file, [waveform])
    for one, other in zip((logits, highlights, embeddings), expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=TOLERANCE, rtol=0)


def test_table_counts_operators_and_answers(model, onnx_file):
    head, row = export.table(model, [onnx_file], [recording(1.0), recording(2.0)]).splitlines()
    name, nodes, size, difference, *changed = row.split()
    assert head.startswith("file") and name == "model.onnx" and changed == ["0", "of", "2"]
    assert 500 < int(nodes) < 8000 and float(size) < 20 and float(difference) < TOLERANCE


class _States(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, waveform, lengths):
        return self.encoder(waveform, lengths).states


@pytest.mark.parametrize("kind", ["wavlm", "wav2vec2-bert", "whisper"])
@pytest.mark.filterwarnings("ignore")
def test_graph_of_an_encoder(kind, make_config):
    encoder = _States(SereEncoder(make_config(kind, encoder_layers=[1, 2])).eval())
    batch, samples = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("samples", min=640, max=480_000)
    with torch.no_grad():
        traced = torch.export.export(
            encoder, (0.1 * torch.randn(2, 16_053), torch.tensor([50, 30])),
            dynamic_shapes=({0: batch, 1: samples}, {0: batch}), strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
        assert not [name for name in operators(traced) if any(word in name for word in FORBIDDEN)]
        export.unasserted(traced)
        for clips, length in ((1, 1600), (3, 24_000), (2, 100_000)):
            values = 0.1 * torch.randn(clips, length)
            lengths = torch.full((clips,), length // 320)
            lengths[-1] -= clips - 1
            for one, other in zip(traced.module()(values, lengths), encoder(values, lengths), strict=True):
                torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", ["none", "whisper"])
@pytest.mark.filterwarnings("ignore")
def test_compiles_without_a_graph_break(kind, make_model, clips):
    model = make_model(kind)
    values = clips[1][None]
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(values).logits, model(values).logits, atol=1e-3, rtol=1e-3)


def test_a_missing_package_is_told(model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(RunError, match=r"needs onnx, onnxscript and onnxruntime: pip install"):
        export.export(model, tmp_path)


def test_a_model_that_is_none_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["export", str(tmp_path), "--output", str(tmp_path / "onnx")])
    with pytest.raises(SystemExit, match="export: .* cannot be loaded"):
        export.main()
