"""A run that cannot go on ends in one sentence, and text reaches any console or none."""

import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import train_sere
from modeling_sere.training.errors import RunError
from modeling_sere.training.running import ending
from modeling_sere.training.running.ending import Console, one_sentence
from testing import runs
from testing.corpora import write_corpus
from testing.forked import Forked, linux_only


def ended(error: BaseException, capsys) -> tuple[int, str]:
    """Status and last words of a program that such an error ends."""
    with pytest.raises(SystemExit) as caught, one_sentence("prog"):
        raise error
    said = capsys.readouterr().err
    # Python prints a text, and ends with status 1
    return (1, f"{caught.value.code}\n") if isinstance(caught.value.code, str) else (caught.value.code, said)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RunError("The corpus is empty."), "The corpus is empty."),
        (
            OSError(5, os.strerror(5), "/disk/a.wav"),
            "read or written at /disk/a.wav (Input/output error)",
        ),
        (OSError(28, os.strerror(28)), "Something cannot be read or written (No space left on device)"),
        (OSError("7 requested and 3 written"), "cannot be read or written (7 requested and 3 written)"),
        (MemoryError(), "There is not enough memory (nothing more is known)"),
        (
            np._core._exceptions._ArrayMemoryError((2**50,), np.dtype("f4")),
            "enough memory (Unable to allocate 4.00 PiB",
        ),
        (
            RuntimeError("[alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
            "not enough memory",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "not enough memory (CUDA out of memory."),
        (KeyboardInterrupt(), "Ended by SIGINT: the same command with --resume goes on."),
    ],
)
def test_what_is_not_the_program_s_fault_is_one_sentence(error, message, capsys):
    status, said = ended(error, capsys)
    assert status == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert said.startswith("prog: ") and message in said and said.count("\n") == 1
    assert isinstance(error, RunError) or "--resume" in said


def test_faults_of_the_program_keep_their_traceback():
    for error in (KeyError("x"), RuntimeError("shapes differ")):
        with pytest.raises(type(error)), one_sentence("prog"):
            raise error


def test_another_process_that_has_ended_is_no_traceback(monkeypatch, capsys):
    error = RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3")
    with pytest.raises(RuntimeError), one_sentence("prog"):
        raise error
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, said = ended(error, capsys)
    assert status == 1 and said == "prog: Another process of this run has ended, and said why; " + ending.RESUME + ".\n"


@pytest.mark.parametrize("number", ending.SIGNALS)
def test_signals(number, capsys, monkeypatch):
    before = signal.getsignal(number)
    for rank, words in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as caught, one_sentence("prog"):
            os.kill(os.getpid(), number)
            time.sleep(60)
        assert caught.value.code == 128 + number
        said = f"prog: Ended by {number.name}: the same command with --resume goes on.\n"
        assert capsys.readouterr().err == said * words
    assert signal.getsignal(number) == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_signal_while_the_program_is_imported(tmp_path):
    """What an import is doing then does not matter: it is told from the first line on."""
    text = (
        "import os, signal\nfrom modeling_sere.training.running.ending import end_early\nend_early('prog')\n"
        "os.kill(os.getpid(), signal.SIGINT)\nimport time; time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=runs.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and done.stderr.startswith("prog: Ended by SIGINT") and done.stderr.count("\n") == 1


@linux_only
def test_run_that_is_stopped_says_so_and_is_resumed(tmp_path, number=signal.SIGTERM):
    corpora = {name: write_corpus(tmp_path / name, seed=seed) for seed, name in enumerate(("source", "target"))}
    flags = corpora | {"shots": 2, "draws": 1, "report_to": "none", "refine_steps": 40, "batch_size": 4}
    flags |= {"output_dir": tmp_path / "out", "cache_dir": tmp_path / "cache"}

    def run(*switches: str):
        with open(tmp_path / "said", "w") as said:
            return Forked(runs.command(*switches, **flags), runs.environment(tmp_path / "hf"), None, said)

    process = run()
    while process.poll() is None and not (tmp_path / "out.partial" / "sere_run.json").exists():
        time.sleep(0.01)
    os.kill(process.process.pid, number)
    assert process.wait() == 128 + number
    words = (tmp_path / "said").read_text().splitlines()
    assert words[-1] == f"train_sere.py: Ended by {signal.Signals(number).name}: {ending.RESUME}."
    assert not any("Traceback" in line for line in words) and not (tmp_path / "out").exists()
    assert run("--resume").wait() == 0
    assert not list(tmp_path.glob("out.*")) and not list(tmp_path.glob(".out*"))


def test_console_takes_any_text():
    raw = io.BytesIO()
    console = Console(io.TextIOWrapper(raw, encoding="ascii"))
    print("波兰语 \udcff é", file=console, flush=True)
    assert raw.getvalue() == b"\\u6ce2\\u5170\\u8bed \\udcff \\xe9\n"
    assert console.encoding == "ascii"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_console_that_nobody_reads_goes_silent(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    for file in (open("/dev/full", "w"), os.fdopen(writing, "w"), io.StringIO()):
        if isinstance(file, io.StringIO):
            file.close()
        console = Console(file)
        for _ in range(3):
            print("a word", file=console, flush=True)
        file.close()


@linux_only
def test_run_on_an_ascii_console(tmp_path, monkeypatch):
    corpora = {name: write_corpus(tmp_path / name, seed=seed) for seed, name in enumerate(("波兰语", "zażółć"))}
    flags = {"source": corpora["波兰语"], "target": corpora["zażółć"], "shots": 2, "draws": 1, "report_to": "none"}
    flags |= {"output_dir": tmp_path / "out", "cache_dir": tmp_path / "cache"}
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "argv", runs.command(**flags)[1:])
    monkeypatch.setattr(sys, "stdout", console)
    with one_sentence("prog"):
        train_sere.main()
    assert (tmp_path / "out" / "results.json").exists() and not (tmp_path / "out.partial").exists()
    assert rb"\u6ce2\u5170\u8bed -> za\u017c" in console.buffer.getvalue()
