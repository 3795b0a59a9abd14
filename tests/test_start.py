"""How a command starts: what is answered without a model does not wait for the imports that a model needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SLOW = ["torch", "datasets", "sklearn", "scipy", "pandas", "matplotlib", "accelerate", "evaluate", "peft"]
STARTED = """
import json, runpy, sys
name, sys.argv = sys.argv[1], sys.argv[1:]
try:
    runpy.run_module(name, run_name="__main__")
except SystemExit as ended:
    print(json.dumps([ended.code, sorted(sys.modules)]))
"""


def started(module: str, *flags: str) -> tuple[int | str, list[str]]:
    """What a command ends with, and the slow packages that it has imported until then."""
    command = [sys.executable, "-c", STARTED, module, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    status, modules = json.loads(done.stdout.splitlines()[-1])
    return status, [name for name in SLOW if name in modules]


@pytest.mark.parametrize("module", ["train_sere", "modeling_sere.training.reporting.hub"])
def test_help_imports_no_slow_package(module):
    assert started(module, "--help") == (0, [])


@pytest.mark.parametrize("flags", [("--shots", "-1"), ("--shotz", "3"), ("missing.json",)])
def test_wrong_flag_is_answered_before_slow_imports(flags):
    status, slow = started("train_sere", *flags)
    assert status.startswith("train_sere.py: ") and flags[0] in status
    assert slow == []


def test_package_has_no_other_names():
    import modeling_sere

    with pytest.raises(AttributeError, match="no attribute 'SereTokenizer'"):
        modeling_sere.SereTokenizer  # noqa: B018
