"""What the benchmark commands share: flags, a process per core, the JSON file."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm.auto import tqdm

from modeling_sere.training.data import DataError
from modeling_sere.training.features import DEFAULT_CACHE
from modeling_sere.training.outputs import versions


class CorpusParser(argparse.ArgumentParser):
    """With the flags that all benchmarks on pairs of corpora share.

    Args:
        about: the script's docstring. draws: default of --draws.
    """

    def __init__(self, about: str, draws: str):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=about, formatter_class=formatter, conflict_handler="resolve")
        self.add_argument("--corpora", nargs="+", required=True, action=_Pairs, help="folders with metadata.csv")
        self.add_argument("--encoder", default="none", help="encoder folder, Hub id, or none")
        self.add_argument("--shots", type=int, default=5, help="labelled clips per emotion")
        self.add_argument("--draws", type=_seeds, default=draws, help="first-last seed of the shot draws")
        self.add_argument("--cache_dir", default=str(DEFAULT_CACHE))
        self.add_argument("--json", help="write all rows to this file")


class _Pairs(argparse.Action):
    """At least two values."""

    def __call__(self, parser, namespace, values, option_string=None):
        if len(values) < 2:
            parser.error(f"{option_string} needs at least two folders: every directed pair is a task")
        setattr(namespace, self.dest, values)


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    try:
        return list(range(int(first), int(last or first) + 1))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like 0-9, not {text}") from None

def spread_out(function: Callable, tasks: list, desc: str = "Tasks") -> list[dict]:
    """Rows that `function` gives for each task, in order. One process per core, one thread each.

    The matrices are small: as many processes as cores are quicker than as many threads.
    """
    with ProcessPoolExecutor(
        os.cpu_count(), mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as executor:
        done = tqdm(executor.map(function, tasks), total=len(tasks), desc=desc, unit="task")
        return [row for rows in done for row in rows]


def report(arguments: argparse.Namespace, measure: Callable, summary: Callable, plot: Callable | None = None):
    """Run a benchmark: `measure(arguments)` gives rows; print their summary, write --json and draw --figure."""
    torch.manual_seed(0)
    start = time.monotonic()
    try:
        rows = measure(arguments)
    except DataError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    print(summary(rows))
    if arguments.json:
        content = {"meta": meta(arguments) | {"seconds": round(time.monotonic() - start, 1)}, "rows": rows}
        Path(arguments.json).write_text(json.dumps(content, indent=1) + "\n")
    if plot is not None and arguments.figure:
        plot(rows, arguments.figure)


def meta(arguments) -> dict:
    """What the rows of a JSON file were measured on."""
    return {
        "corpora": [Path(folder).resolve().name for folder in arguments.corpora],
        "encoder": "none" if arguments.encoder == "none" else Path(arguments.encoder).name,
        "shots": arguments.shots, "draws": arguments.draws,
        "date": time.strftime("%Y-%m-%d"), "versions": versions(),
    }  # fmt: skip
