"""Write a model as ONNX, in the layout that optimum and transformers.js read.

    python -m modeling_sere.export MODEL --output onnx/ [--clips CLIP ...]

MODEL is a folder or a name on the Hub. --output, the folder `onnx` of a model's repository, gets

    model.onnx             single precision
    model_fp16.onnx        weights of the encoder in half precision, computed with in single precision
    model_quantized.onnx   matrices of the encoder in 8 bits

the last two of a model with an encoder only: without one there is nothing to make smaller. Each takes `input_values`
(batch, samples) at 16 kHz and `attention_mask` (batch, samples), 1 at real samples, and gives `logits`, `highlights`
and `embeddings`. With --clips the table tells how many answers each variant changes.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from modeling_sere import SereForAudioClassification
from modeling_sere.configuration_sere import FRAME_SAMPLES
from modeling_sere.encoder_sere import WINDOW_FRAMES
from modeling_sere.training.errors import RunError, first_line, writing

INPUTS, OUTPUTS = ("input_values", "attention_mask"), ("logits", "highlights", "embeddings")
SHORTEST, LONGEST = 640, 16_000 * 300  # samples that a graph takes, without an encoder
PACKAGES = 'writing ONNX needs onnx, onnxscript and onnxruntime: pip install "sere[export]"'
SMALL = 4096  # numbers of a tensor that is left in single precision


class SereGraph(nn.Module):
    """The part of a classifier that is exported: waveforms in, logits, highlights and embeddings out."""

    def __init__(self, model: SereForAudioClassification):
        super().__init__()
        self.model = model

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, N), (B, N) -> (B, C), (B, T), (B, D)."""
        output = self.model(input_values, attention_mask, return_dict=True)
        return output.logits, output.highlights, output.embeddings


@torch.no_grad()
def program(model: SereForAudioClassification) -> torch.export.ExportedProgram:
    """Trace a model into one graph for any number of clips of any length from 40 ms to 5 minutes.

    With an encoder it is 30 s. The model must be in eval mode and in single precision, on a CPU.
    """
    longest = LONGEST if model.sere.encoder is None else WINDOW_FRAMES * FRAME_SAMPLES
    batch, samples = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("samples", min=SHORTEST, max=longest)
    values = torch.randn(2, 2 * 16_000 + 53, generator=torch.Generator().manual_seed(0)) * 0.1
    shape = {0: batch, 1: samples}
    traced = torch.export.export(
        SereGraph(model),
        (values, torch.ones_like(values, dtype=torch.long)),
        dynamic_shapes=(shape, shape),
        strict=False,
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    unasserted(traced)
    return traced


def unasserted(traced: torch.export.ExportedProgram) -> None:
    """Take the assertions on shapes out of a graph.

    What the tracer could not prove for every shape it asserts, and also how tensors lie in memory, which decides
    nothing and differs for one clip: the tests compare all lengths instead.
    """
    for node in traced.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default):
        traced.graph.erase_node(node)
    traced.graph_module.recompile()


def export(model: SereForAudioClassification, folder: Path) -> list[Path]:
    """Write a model's variants into a folder and return their paths, that of single precision first.

    Raises:
        RunError: a package is missing, the model cannot be traced, or the files cannot be written.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RunError(f"{PACKAGES} ({error})") from error
    try:
        graph = program(model)
    except torch._dynamo.exc.UserError as error:
        raise RunError(f"this model cannot be traced for any number of clips ({first_line(error)})") from error
    traced = torch.onnx.export(
        graph,
        dynamo=True,
        verbose=False,
        optimize=False,  # onnxscript's optimiser moved logits by 5e-3
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
    )
    with writing(f"The ONNX files in {folder}", "free some space, or give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "model.onnx"]
        traced.save(str(paths[0]), external_data=False)
        if model.sere.encoder is not None:
            whole = onnx.load(str(paths[0]))
            paths += [folder / "model_fp16.onnx", folder / "model_quantized.onnx"]
            onnx.save(_halved(whole, weight_shapes(model)), str(paths[1]))
            quantised(paths[0], paths[2], weight_shapes(model))
    return paths


def weight_shapes(model: SereForAudioClassification) -> set[tuple[int, ...]]:
    """Return the shapes of the encoder's large tensors, either way up: a graph does not keep their names."""
    shapes = {tuple(p.shape) for p in model.sere.encoder.parameters() if p.numel() > SMALL}
    return shapes | {shape[::-1] for shape in shapes}


def _halved(graph: Any, shapes: set[tuple[int, ...]]) -> Any:
    """Return a graph whose weights of these shapes are kept in float16 and cast back where they are used."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tuple(tensor.dims) not in shapes:
            continue
        name = tensor.name
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, f"{name}_fp16"))
        casts.append(helper.make_node("Cast", [f"{name}_fp16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


def quantised(source: Path, target: Path, shapes: set[tuple[int, ...]]) -> None:
    """Write a graph with the products of these weights in 8 bits; those of the front end keep their digits."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(str(source), load_external_data=False).graph
    large = {tensor.name for tensor in graph.initializer if tuple(tensor.dims) in shapes}
    chosen = [node.name for node in graph.node if node.op_type in ("MatMul", "Gemm") and large.intersection(node.input)]
    quantize_dynamic(source, target, nodes_to_quantize=chosen, weight_type=QuantType.QInt8, per_channel=True)


def answers(path: Path, waveforms: list[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
    """Give logits (C,), highlights (T,) and embeddings (D,) of each clip by an ONNX file in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for waveform in waveforms:
        mask = np.ones((1, len(waveform)), np.int64)
        outputs = session.run(list(OUTPUTS), {INPUTS[0]: waveform[None].astype(np.float32), INPUTS[1]: mask})
        yield tuple(output[0] for output in outputs)


def table(model: SereForAudioClassification, paths: list[Path], waveforms: list[np.ndarray]) -> str:
    """Compare each file with the model: operators, size, largest difference of a logit, and answers that change."""
    import onnx

    with torch.inference_mode():
        logits = [model(torch.from_numpy(w)[None], return_dict=True).logits[0].numpy() for w in waveforms]
    lines = [f"{'file':<24}{'operators':>10}{'MB':>8}{'logits differ by':>18}{'other answers':>15}"]
    for path in paths:
        nodes = len(onnx.load(str(path), load_external_data=False).graph.node)
        ours = [answer for answer, *_ in answers(path, waveforms)]
        furthest = max((np.abs(a - b).max() for a, b in zip(ours, logits, strict=True)), default=0.0)
        changed = sum(a.argmax() != b.argmax() for a, b in zip(ours, logits, strict=True))
        size = path.stat().st_size / 1e6
        lines.append(f"{path.name:<24}{nodes:>10}{size:>8.1f}{furthest:>18.1e}{f'{changed} of {len(ours)}':>15}")
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m modeling_sere.export", description=__doc__, formatter_class=about)
    parser.add_argument("model", help="folder of a SERE model, or its name on the Hub")
    parser.add_argument("--output", type=Path, required=True, help="folder of the ONNX files")
    parser.add_argument("--clips", nargs="+", default=[], help="recordings on which the variants are compared")
    arguments = parser.parse_args()
    try:
        model = _loaded(arguments.model)
        waveforms = _read(arguments.clips)
        print(table(model, export(model, arguments.output), waveforms))
    except RunError as error:
        sys.exit(f"export: {error}")


def _loaded(name: str) -> SereForAudioClassification:
    try:
        return SereForAudioClassification.from_pretrained(name, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        raise RunError(f"{name} cannot be loaded ({first_line(error)}): give a SERE model") from error


def _read(clips: list[str]) -> list[np.ndarray]:
    from modeling_sere.audio_sere import read_audio

    try:
        return [read_audio(clip) for clip in clips]
    except (OSError, ValueError) as error:
        raise RunError(f"--clips: {first_line(error)}") from error


if __name__ == "__main__":
    main()
