"""A killed run and its resumption, in small: benchmarks/reliability/kill.py has the rest."""

import multiprocessing
import os
import sys

import pytest
from corpus_fixtures import write_corpus
from huggingface_hub import constants

import train_sere
from benchmarks.reliability import kill


class Forked:
    """`subprocess.Popen` of train_sere.py by a fork of this process, which has imported everything already."""

    def __init__(self, words, env, stdout, stderr):
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=self._run, args=(words[2:], env, stderr))
        self.process.start()
        self.kill = self.process.kill

    def _run(self, flags, env, stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(stderr.fileno(), 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        os.environ.update(env)
        constants.ENDPOINT, constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = env["HF_ENDPOINT"], False, True
        sys.argv = ["train_sere.py", *flags]
        train_sere.main()

    def poll(self):
        return self.process.exitcode

    def wait(self):
        self.process.join()
        return self.process.exitcode


@pytest.fixture
def kinds(tmp_path) -> dict[str, dict]:
    """One kind of run, on small corpora, with a checkpoint near its end."""
    corpora = {name: write_corpus(tmp_path / name, seed=seed) for seed, name in enumerate(("source", "target"))}
    return {"none": corpora | {"shots": 2, "refine_steps": 60, "batch_size": 6}}


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process with threads, which Linux allows")
def test_killed_run_is_resumed_to_the_same_results(kinds, tmp_path, monkeypatch):
    monkeypatch.setattr(kill.subprocess, "Popen", Forked)
    phases = ("encoding", "training with a checkpoint", "pushing")
    outcomes = kill.measure(tmp_path, len(phases), seed=1, kinds=kinds, phases=phases)
    assert sum(outcomes.tried.values()) == len(phases) and not any(outcomes.failures.values()), outcomes.failures
