"""The network of a page, without the minutes that exporting takes: what is taken out of it changes nothing."""

import numpy as np
import pytest

from modeling_sere import space
from modeling_sere.dynamics_sere import fourier_basis

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def network(basis: np.ndarray, other: np.ndarray):
    """Frames (n, L) times a basis and another matrix, with the notes that an exporter leaves."""
    nodes = [
        onnx.helper.make_node("MatMul", ["frames", "basis"], ["spectrum"], name="first"),
        onnx.helper.make_node("MatMul", ["frames", "other"], ["rest"], name="second"),
    ]
    nodes[0].metadata_props.add(key="stack_trace", value="x" * 1000)
    sizes = {"frames": len(basis), "spectrum": basis.shape[1], "rest": other.shape[1]}
    values = [onnx.helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in sizes.items()]
    weights = [onnx.numpy_helper.from_array(x, name) for x, name in ((basis, "basis"), (other, "other"))]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


def outputs(model, frames: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"frames": frames})


@pytest.mark.parametrize(("length", "size"), [(320, 512), (960, 1024)])
def test_fourier_bases_are_put_together_again(length, size):
    random = np.random.default_rng(0)
    other = random.standard_normal((length, 130)).astype(np.float32)
    model = network(fourier_basis(length, size).astype(np.float32), other)
    frames = random.standard_normal((3, length)).astype(np.float32)
    before, large = outputs(model, frames), model.ByteSize()
    slim = space.slim(model)
    onnx.checker.check_model(slim)
    for value, expected in zip(outputs(slim, frames), before, strict=True):
        np.testing.assert_allclose(value, expected, atol=2e-5)
    assert slim.ByteSize() < large - 4 * length * (size + 2) + 40_000
    assert {tensor.name for tensor in slim.graph.initializer} >= {"other"} and b"xxxx" not in slim.SerializeToString()
