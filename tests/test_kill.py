"""A killed run and its resumption, in small: reliability/kill.py has the rest."""

import pytest

from reliability import kill
from testing.corpora import write_corpus
from testing.forked import Forked, linux_only


@pytest.fixture
def kinds(tmp_path) -> dict[str, dict]:
    """One kind of run, on small corpora, with a checkpoint near its end."""
    corpora = {name: write_corpus(tmp_path / name, seed=seed) for seed, name in enumerate(("source", "target"))}
    return {"none": corpora | {"shots": 2, "refine_steps": 60, "batch_size": 6}}


@linux_only
def test_killed_run_is_resumed_to_the_same_results(kinds, tmp_path, monkeypatch):
    monkeypatch.setattr(kill.subprocess, "Popen", Forked)
    phases = ("encoding", "training with a checkpoint", "pushing")
    outcomes = kill.measure(tmp_path, len(phases), seed=1, kinds=kinds, phases=phases)
    assert sum(outcomes.tried.values()) == len(phases) and not any(outcomes.failures.values()), outcomes.failures
