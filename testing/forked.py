"""train_sere.py in a fork of this process, which has imported everything already: a fresh process takes seconds."""

import multiprocessing
import os
import sys

import pytest
from huggingface_hub import constants

import train_sere
from modeling_sere.training.running.ending import one_sentence
from testing.runs import Ended

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="forks a process with threads, which Linux allows")


class Forked:
    """Stand-in for `subprocess.Popen`, as far as it is used, for a command that runs train_sere.py."""

    def __init__(self, words, env, stdout, stderr, before=None):
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=self._run, args=(words[2:], env, stderr.fileno(), before))
        self.process.start()
        self.kill = self.process.kill

    def _run(self, flags, env, stderr, before):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(stderr, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        os.environ.update(env)
        constants.ENDPOINT = env.get("HF_ENDPOINT", constants.ENDPOINT)
        constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = env["HF_HUB_OFFLINE"] == "1", True
        sys.argv = ["train_sere.py", *flags]
        if before is not None:
            before()
        with one_sentence(train_sere.PROGRAM):
            train_sere.main()

    def poll(self):
        return self.process.exitcode

    def wait(self):
        self.process.join()
        return self.process.exitcode


def finished(words, variables, before=None) -> Ended:
    """In place of `testing.runs.finished`."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as said:
        with os.fdopen(writing, "w") as stderr:
            process = Forked(words, variables, None, stderr, before)
        text = said.read()
    return Ended(process.wait(), text)
