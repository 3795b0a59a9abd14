"""benchmarks/source_free.py on two small corpora."""

import json
import os
import subprocess
import sys
from pathlib import Path

from testing.corpora import write_corpus

ROOT = Path(__file__).resolve().parents[1]


def test_both_ways_have_a_row_for_every_task_draw_and_setting(tmp_path):
    for seed, name in enumerate(("one", "two")):
        write_corpus(tmp_path / name, clips=4, speakers=2, seed=seed)
    flags = ["--corpora", tmp_path / "one", tmp_path / "two", "--shots", 2, "--draws", "0-1"]
    flags += ["--cache_dir", tmp_path / "cache", "--json", tmp_path / "rows.json"]
    command = [sys.executable, "-m", "benchmarks.source_free", *map(str, flags)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    keys = ("source", "draw", "method", "setting", "speaker_ids")
    found = {tuple(row[key] for key in keys) for row in rows}
    assert len(found) == len(rows) == 2 * 2 * 2 * 2 * 2
    assert {row["method"] for row in rows} == {"sere", "source-free"}
    assert all(1 / 3 < row["uar"] <= 1 for row in rows)  # voices that are easy to tell apart
    assert all(0 <= row["ece"] <= 1 for row in rows if row["setting"] == "single clips")
    assert "source-free" in done.stdout
