"""A checkpoint is used if it is whole, whatever lies in its place."""

import json

import pytest
import torch
from accelerate import Accelerator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_sere.training.errors import RunError
from modeling_sere.training.refining.checkpoint import DIGESTS, Checkpoints, _digests, is_of_checkpoint

names = st.sampled_from([DIGESTS, "model.safetensors", "optimizer.bin", "random_states_0.pkl", "more.txt"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Checkpoints, torch.nn.Linear, dict[str, bytes]]:
    """Checkpoints with one of step 3, the model, and the files of the checkpoint."""
    accelerator = Accelerator(cpu=True)
    layer = torch.nn.Linear(2, 2)
    model, _ = accelerator.prepare(layer, torch.optim.SGD(layer.parameters()))
    checkpoints = Checkpoints(tmp_path_factory.mktemp("checkpoint"), accelerator)
    checkpoints.save(3)
    files = {path.name: path.read_bytes() for path in (checkpoints.folder / "3").iterdir()}
    return checkpoints, model, files


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, st.none() | st.binary(max_size=30) | st.just(b"[" * 50_000), max_size=3))
def test_any_change_is_seen(saved, changes):
    """To a file, to the digests, or by a file more or less."""
    checkpoints, _, files = saved
    folder = checkpoints.folder / "3"
    for name in {*files, *changes}:
        content = changes.get(name, files.get(name))
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
    same = all(files.get(name) == content for name, content in changes.items())
    assert checkpoints.restore() == (3 if same else 0)
    for name in changes:
        (folder / name).unlink(missing_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert checkpoints.restore() == 3


def test_whole_checkpoint_that_cannot_be_loaded_is_one_sentence(saved):
    checkpoints, _, _ = saved
    checkpoints.save(4)
    folder = checkpoints.folder / "4"
    (folder / "optimizer.bin").write_bytes(b"of another version")
    (folder / DIGESTS).write_text(json.dumps(_digests(folder)))
    with pytest.raises(RunError, match=r"The checkpoint .*4 cannot be loaded \(.+\): delete it\.") as caught:
        checkpoints.restore()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("50/model.safetensors", True), ("partial/optimizer.bin", True), ("50/random_states_1.pkl", True),
        ("50/pytorch_model_fsdp_0/__0_0.distcp", True), ("50/optimizer_0/.metadata", True), ("50/digests.json", True),
        ("50/model-00001-of-00002.safetensors", True), ("50/thesis.tex", False), ("thesis/model.safetensors", False),
        ("50/a/model.safetensors", False), ("model.safetensors", False),
    ],
)  # fmt: skip
def test_files_of_checkpoints(name, ours):
    assert is_of_checkpoint(name) == ours


def test_file_of_somebody_else_in_a_checkpoint_stays(saved):
    checkpoints, _, _ = saved
    checkpoints.save(5)
    (checkpoints.folder / "5" / "thesis.tex").write_text("mine")
    checkpoints.save(6)
    assert [path.name for path in (checkpoints.folder / "5").iterdir()] == ["thesis.tex"]
    assert checkpoints.restore() == 6
