"""SERE and the baselines over the number K of labelled clips per emotion, from none upwards.

    python -m benchmarks.shots --corpora DIR DIR [DIR ...] --encoder DIR|id|none --json shots.json --figure shots.png

Every directed pair of corpora is one task; transductive, with and without speaker ids. Without labels only what has
the prior says anything. The ceiling of the embeddings is ridge on all source labels.
"""

import argparse
import copy
import itertools

import numpy as np

from benchmarks.command import CorpusParser, report, run_in_processes
from benchmarks.crosslingual import impossible, run_task
from benchmarks.experiment import encode, pairs
from benchmarks.plots import panels

METHODS = (
    "sere", "sere-no-prior", "mme+prior+balance", "self-training+prior+balance", "ridge+prior+balance", "ridge",
    "logistic-regression", "nearest-class-mean",
)  # fmt: skip
CEILING = "ridge, all labels"


def parse() -> argparse.Namespace:
    parser = CorpusParser(__doc__, draws="0-2")
    parser.add_argument("--shots", nargs="+", type=int, default=[0, 1, 2, 5, 10, 20], help="values of K")
    parser.add_argument("--figure", help="draw the curves into this file")
    return parser.parse_args()


def with_count(arguments: argparse.Namespace, count: int) -> argparse.Namespace:
    """Return the arguments of a run with this many shots, and the methods that are possible with them."""
    changed = copy.copy(arguments)
    changed.shots = count
    changed.methods = [method for method in METHODS if impossible(method, changed) is None]
    return changed


def run(arguments) -> list[dict]:
    """Measure all rows."""
    corpora = encode(arguments)
    tasks = itertools.product((True, False), pairs(corpora), arguments.shots)
    return run_in_processes(
        run_task, [(with_count(arguments, count), *pair, ids, "transductive") for ids, pair, count in tasks]
    )


def curve(rows: list[dict], method: str, speaker_ids: bool) -> dict[int, tuple[float, float]]:
    """Return per K the UAR in %, averaged over the tasks: mean and s.d. over draws."""
    by_draw: dict[int, dict[int, list[float]]] = {}
    for row in rows:
        if name(row) == method and row["speaker_ids"] == speaker_ids:
            by_draw.setdefault(row["shots"], {}).setdefault(row["draw"], []).append(100 * row["uar"])
    means = {count: [np.mean(uars) for uars in draws.values()] for count, draws in by_draw.items()}
    return {count: (float(np.mean(values)), float(np.std(values))) for count, values in sorted(means.items())}


def name(row: dict) -> str:
    return row["method"] + (", all labels" if row["labels"] == "all" else "")


def summary(rows: list[dict]) -> str:
    """Return one table with and one without speaker ids."""
    lines, counts = [], sorted({row["shots"] for row in rows})
    for speaker_ids in (True, False):
        lines += ["", f"{'with' if speaker_ids else 'without'} speaker ids: UAR % with K shots",
                  f"{'method':<30}" + "".join(f"{f'K = {count}':>14}" for count in counts)]  # fmt: skip
        for method in METHODS:
            points = curve(rows, method, speaker_ids)
            cells = [f"{points[k][0]:.1f} +- {points[k][1]:.1f}" if k in points else "-" for k in counts]
            lines.append(f"{method:<30}" + "".join(f"{cell:>14}" for cell in cells))
        for ceiling in ("sere, all labels", CEILING):
            lines.append(f"{ceiling:<30}{curve(rows, ceiling, speaker_ids)[counts[-1]][0]:>14.1f}")
    return "\n".join(lines)


def plot(rows: list[dict], path: str):
    """Draw a panel with and one without speaker ids."""
    counts = sorted({row["shots"] for row in rows})
    with panels(path, 2, "UAR, %") as axes:
        for axis, speaker_ids in zip(axes, (True, False), strict=True):
            for method in METHODS:
                points = curve(rows, method, speaker_ids)
                x = [counts.index(count) for count in points]
                mean, deviation = np.array(list(points.values())).T
                axis.errorbar(x, mean, deviation, label=method, marker="o", capsize=2, lw=2 if method == "sere" else 1)
            height = curve(rows, CEILING, speaker_ids)[counts[-1]][0]
            axis.axhline(height, color="grey", ls="--", lw=1, label=CEILING)
            axis.set_xticks(range(len(counts)), counts)
            axis.set_xlabel("labelled clips per emotion")
            axis.set_title(f"{'with' if speaker_ids else 'without'} speaker ids")


def main():
    report(parse(), run, summary, plot)


if __name__ == "__main__":
    main()
