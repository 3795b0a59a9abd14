"""The files that travel: what they import, and that importing them asks nothing of the network."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "modeling_sere").glob("*_sere.py"))
ALLOWED = {"torch", "transformers", "numpy", "safetensors", *sys.stdlib_module_names}
LAZY = {"soundfile", "soxr", "av"}  # named in a call of `require`, where a file is read or resampled

# any connection, process or remote address ends this interpreter with an error
OBSERVED = """
import sys
import torch, transformers, transformers.pipelines.audio_classification
from transformers.models.whisper import modeling_whisper

def observe(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "urllib.Request"):
        raise RuntimeError(f"{event} {arguments}")

sys.addaudithook(observe)
import importlib
for name in sys.argv[1:]:
    importlib.import_module(f"modeling_sere.{name}")
print("imported", len(sys.argv[1:]))
"""


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def tree(request) -> ast.Module:
    return ast.parse(request.param.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> set[str]:
    """Top-level packages of all absolute imports, and "." for those of a neighbour."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else node.module.split(".")[0])
    return names


def test_only_torch_transformers_numpy_the_standard_library_and_each_other(tree):
    assert imported(tree) <= ALLOWED | {"."}
    neighbours = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert all(node.level == 1 and f"{node.module}.py" in {path.name for path in FILES} for node in neighbours)


def test_what_is_imported_by_a_string_is_soundfile_soxr_or_av(tree):
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = {ast.unparse(call.func): call for call in calls}
    assert not {"__import__", "exec", "eval"} & named.keys()
    required = [call.args[0] for call in calls if ast.unparse(call.func) == "require"]
    assert {ast.literal_eval(argument) for argument in required} <= LAZY
    by_string = [call for call in calls if ast.unparse(call.func) == "importlib.import_module"]
    assert [ast.unparse(call.args[0]) for call in by_string] in ([], ["module"])  # the one inside `require`


def test_nothing_is_fetched_or_run_at_import():
    names = [path.stem for path in FILES]
    command = [sys.executable, "-c", OBSERVED, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == f"imported {len(names)}\n", done.stderr[-2000:]
