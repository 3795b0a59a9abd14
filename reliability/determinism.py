"""The same run again: in a fresh process, from the cache, beside another run, and in two processes.

    python -m reliability.determinism

Each run of train_sere.py adapts from English to Polish on samples/. Its shots, scores and weights must be those of the
first run of its seed to 1e-6 (two processes: 1e-5, as they encode other clips together).
"""

import argparse
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm.auto import tqdm

from reliability.outcomes import Outcomes
from testing import runs

KINDS = {"without gradient steps": {}, "with gradient steps": {"refine_steps": 30, "batch_size": 8}}


class Place:
    """The place of runs of one seed and kind."""

    def __init__(self, root: Path, options: dict):
        root.mkdir()
        self.root, self.options = root, {"draws": 2, "report_to": "none"} | options

    def run(self, name: str, cache: str, launcher: tuple[str, ...] = ()) -> Path:
        """Return the output folder of a fresh process."""
        flags = self.options | {"output_dir": self.root / name, "cache_dir": self.root / cache}
        words = runs.command(**flags)
        ended = runs.finished([*launcher, *words[1:]] if launcher else words, runs.environment(self.root / "hf"))
        if ended.status:
            raise SystemExit(f"a run failed: {ended.last_line}")
        return self.root / name

    def outcomes(self):
        """Name of what was tried, and what was wrong."""
        first = self.run("first", "cache")
        yield "fresh process", runs.differences(self.run("again", "another cache"), first)
        yield "from the cache", runs.differences(self.run("cached", "cache"), first)
        with ThreadPoolExecutor(2) as threads:
            for folder in threads.map(self.run, ("left", "right"), ["shared cache"] * 2):
                yield "two runs at once, one cache", runs.differences(folder, first)
        if torchrun := shutil.which("torchrun", path=f"{Path(sys.executable).parent}") or shutil.which("torchrun"):
            launcher = (torchrun, "--standalone", "--nproc_per_node", "2")
            if "refine_steps" not in self.options:  # two processes draw other batches than one
                yield "two processes", runs.differences(self.run("two", "cache of two", launcher), first, 1e-5)


def measure(root: Path, seeds: list[int]) -> Outcomes:
    """Run all kinds of runs with all seeds."""
    outcomes = Outcomes()
    for seed in tqdm(seeds, desc="Seeds"):
        for kind, options in KINDS.items():
            for name, found in Place(root / f"{seed} {kind}", options | {"seed": seed}).outcomes():
                outcomes.add(f"{name}, {kind}", [f"seed {seed}: {failure}" for failure in found])
    return outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), list(range(arguments.seeds))).close()


if __name__ == "__main__":
    main()
