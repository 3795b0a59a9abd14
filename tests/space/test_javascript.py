"""The tests of the page's scripts by node's runner, and the types in their comments where the checker is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

SPACE = Path(__file__).resolve().parents[2] / "space"
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


def test_scripts_pass_their_tests():
    files = sorted(str(path) for path in (SPACE / "tests").glob("*.test.js"))
    done = subprocess.run(["node", "--test", *files], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "# fail 0" in done.stdout, done.stdout[-3000:]


@pytest.mark.skipif(not (SPACE / "node_modules/typescript").is_dir(), reason="needs npm ci --prefix space")
def test_types_in_comments_hold():
    command = ["node", "node_modules/typescript/bin/tsc", "--project", "tsconfig.json"]
    done = subprocess.run(command, cwd=SPACE, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == ""
