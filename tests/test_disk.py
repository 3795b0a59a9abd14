"""A full disk: one sentence, and what was there stays. reliability/disk.py tries more, and small disks."""

import resource
from contextlib import contextmanager

import pytest
import torch
from accelerate import Accelerator

from modeling_sere.training.errors import RunError, writing
from modeling_sere.training.refining.checkpoint import Checkpoints
from reliability import disk
from testing import runs
from testing.corpora import write_corpus
from testing.forked import finished, linux_only


@contextmanager
def small_files(size: int):
    """No file can grow beyond this size in the block; Python ignores the signal that would come with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    disk.small_files(size)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_written_is_named_with_reason_and_remedy(tmp_path):
    with pytest.raises(RunError, match=r"^The log cannot be written \(File too large\): move it\.$"):
        with writing("The log", "move it"), small_files(10):
            (tmp_path / "log").write_text("x" * 11)
    with pytest.raises(KeyError), writing("The log", "move it"):
        raise KeyError  # of no disk


@pytest.mark.parametrize("size", [10, 3_000, 9_000])
def test_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path, size):
    """The first file, the weights and the optimizer's state, each with another error of its library."""
    model = torch.nn.Linear(50, 40)
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    model(torch.ones(1, 50)).sum().backward()
    optimizer.step()
    checkpoints = Checkpoints(tmp_path / "checkpoint", accelerator)
    checkpoints.save(1)
    kept = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    with pytest.raises(RunError, match=r"checkpoint of step 2 in .* cannot be written .*free some space.*--resume\.$"):
        with small_files(size):
            checkpoints.save(2)
    assert checkpoints.restore() == 1
    assert torch.equal(model.weight, kept)


@linux_only
def test_run_on_a_full_or_failing_disk_keeps_the_earlier_result_and_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "finished", finished)
    corpora = {name: write_corpus(tmp_path / name, seed=seed) for seed, name in enumerate(("source", "target"))}
    stages = {stage: corpora | {"shots": 2} for stage in ("caching", "saving")}
    sizes = {"caching": (1_000,), "saving": (100, 20_000)}
    faults = [("caching", "EIO", 0), ("organising", "no memory", 1), ("saving the card", "EIO", 0)]
    outcomes = disk.measure(tmp_path, stages, file_sizes=sizes, disk_sizes={}, faults=faults)
    assert sum(outcomes.tried.values()) == 6 and not any(outcomes.failures.values()), outcomes.failures
