"""Checkpoints that lie are refused: all of reliability/strangers.py, by fewer ways of loading."""

import subprocess
import sys
from pathlib import Path

import pytest

from reliability import strangers


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """(name, failures) of every spoilt folder and way to load it, and where the folders are."""
    root = tmp_path_factory.mktemp("strangers")
    return list(strangers.try_strangers(root, ["AutoModelForAudioClassification"])), root


def test_each_is_refused_with_the_reason_and_without_filling_memory(outcomes):
    tried = [name for name, _ in outcomes[0]]
    assert sorted(tried) == sorted([*strangers.SPOILT, "intact"] * 2 + [strangers.BESIDE])
    assert [failure for _, failures in outcomes[0] for failure in failures] == []


def test_the_command_ends_with_one_line(outcomes, tmp_path):
    script = Path(strangers.__file__).resolve().parents[1] / "train_sere.py"
    flags = [f"--model={outcomes[1] / 'header_of_an_exabyte'}", f"--output_dir={tmp_path / 'out'}"]
    done = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "claims a header of 1152921504606846976 bytes" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
