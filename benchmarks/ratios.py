"""Two things measured in the same run on the same clips, and their ratio: what `speed.py` and `scale.py` print."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5


@dataclass
class Ratio:
    """One row: `ours` and `reference` are one value per repeat in `unit`, and `most` or `least` bounds their ratio.

    A row without a bound only explains another one.
    """

    name: str
    unit: str
    ours: list[float]
    reference: list[float]
    most: float | None = None
    least: float | None = None

    @property
    def value(self) -> float:
        """Median of ours over median of the reference."""
        return median(self.ours) / median(self.reference)

    def row(self) -> dict:
        """Return what stands in the JSON file."""
        bound, met = "-", None
        if self.most is not None:
            bound, met = f"<= {self.most:g}", self.value <= self.most
        if self.least is not None:
            bound, met = f">= {self.least:g}", self.value >= self.least
        return {
            "name": self.name, "unit": self.unit, "ours": median(self.ours), "reference": median(self.reference),
            "ratio": self.value, "target": bound, "ok": met, "all_ours": self.ours, "all_reference": self.reference,
        }  # fmt: skip


def table(rows: list[dict]) -> str:
    """Name, ours, reference, ratio, target, ok."""
    words = {None: "-", True: "yes", False: "NO"}
    lines = [f"{'name':<24}{'ours':>10}{'reference':>12}  {'unit':<12}{'ratio':>8}  {'target':<8}ok"]
    for row in rows:
        lines.append(
            f"{row['name']:<24}{row['ours']:>10.4g}{row['reference']:>12.4g}  {row['unit']:<12}{row['ratio']:>8.3f}  "
            f"{row['target']:<8}{words[row['ok']]}"
        )
    return "\n".join(lines)


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turns(name: str, *calls: Callable[[], float]) -> list[list[float]]:
    """Measure each call in turns, so that what else the machine does meets all alike."""
    rounds = [[call() for call in calls] for _ in tqdm(range(REPEATS), desc=name, unit="repeat")]
    return [list(values) for values in zip(*rounds, strict=True)]


def fresh_process(code: str, *words) -> str:
    """Return the last line that some code prints, run in a new Python with these `sys.argv[1:]`.

    Raises:
        RuntimeError: it fails; the message ends with its last words.
    """
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the measured process failed: {done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1]
