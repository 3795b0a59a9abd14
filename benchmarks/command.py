"""Helpers of the benchmark commands: flags, a process per core, the JSON file."""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm.auto import tqdm

from modeling_sere.training.arguments import DEFAULT_CACHE
from modeling_sere.training.errors import RunError
from modeling_sere.training.reporting.description import versions

README = Path(__file__).with_name("README.md")


class CorpusParser(argparse.ArgumentParser):
    """A parser with the flags that all benchmarks on pairs of corpora share.

    Args:
        about: the script's docstring. draws: default of --draws.
    """

    def __init__(self, about: str, draws: str):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=about, formatter_class=formatter, conflict_handler="resolve")
        self.add_argument(
            "--corpora", nargs="+", required=True, action=_Pairs,
            help="folders, or datasets on the Hub, each with its split: amu-cai/CAMEO:nemo",
        )  # fmt: skip
        self.add_argument("--streaming", action="store_true", help="read datasets on the Hub without downloading them")
        self.add_argument("--encoder", default="none", help="encoder folder, Hub id, or none")
        self.add_argument("--shots", type=int, default=5, help="labelled clips per emotion")
        self.add_argument("--draws", type=_seeds, default=draws, help="first-last seed of the shot draws")
        self.add_argument("--cache_dir", default=str(DEFAULT_CACHE))
        self.add_argument("--json", help="write all rows to this file")
        self.add_argument("--document", metavar="BLOCK", help="put command and table into this block of README.md here")


class _Pairs(argparse.Action):
    """At least two values."""

    def __call__(self, parser, namespace, values, option_string=None):
        if len(values) < 2:
            parser.error(f"{option_string} needs at least two corpora: every directed pair is a task")
        setattr(namespace, self.dest, values)


def place_and_split(text: str) -> tuple[str, str | None, str]:
    """Return where a corpus lies, its split, and its name in tables, of `folder`, `folder:split` or `owner/name:split`.

    A split is called by its own name, as all the corpora of a table may be splits of one dataset.
    """
    place, colon, split = text.rpartition(":")
    if not colon or Path(text).exists():
        return text, None, Path(text).resolve().name
    return place, split, split


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    try:
        return list(range(int(first), int(last or first) + 1))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like 0-9, not {text}") from None


def run_in_processes(function: Callable, tasks: list, desc: str = "Tasks") -> list[dict]:
    """Return rows that `function` gives for each task, in order. One process per core, one thread each.

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
    except RunError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    facts, table = meta(arguments) | {"seconds": round(time.monotonic() - start, 1)}, summary(rows)
    print(table)
    if arguments.document:
        document(README, arguments.document, table, facts)
    if arguments.json:
        content = {"meta": facts, "rows": rows}
        Path(arguments.json).write_text(json.dumps(content, indent=1) + "\n")
    if plot is not None and arguments.figure:
        plot(rows, arguments.figure)


def document(page: Path, block: str, table: str, facts: dict):
    """Replace what stands between the lines `<!-- block -->` and `<!-- end -->` of a page by a run.

    Args:
        table: what the run printed. facts: its `meta`, with "command".
    """
    text = page.read_text(encoding="utf-8")
    start, end = f"<!-- {block} -->\n", "<!-- end -->"
    before, found, after = text.partition(start)
    if not found or end not in after:
        sys.exit(f"--document: {page.name} has no block between the lines {start.strip()} and {end}: add it.")
    packages = ", ".join(f"{name} {facts['versions'][name]}" for name in ("torch", "transformers", "numpy"))
    made = f"{facts['date']}, {packages}, {facts['seconds'] / 60:.0f} min."
    body = f"```\n{facts['command']}\n```\n\n{made}\n\n```\n{table.strip()}\n```\n"
    page.write_text(before + start + body + after[after.index(end) :], encoding="utf-8")


def command_line() -> str:
    """Return how this process was called, less the folders of this machine and --document itself."""
    words = [word if word.startswith("-") else word.rstrip("/").split("/")[-1] for word in sys.argv[1:]]
    if "--document" in words:
        place = words.index("--document")
        del words[place : place + 2]
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *words])


def meta(arguments) -> dict:
    """Return what the rows of a JSON file were measured on."""
    given = vars(arguments)
    facts = {name: given[name] for name in ("shots", "draws") if name in given}
    if "corpora" in given:
        facts["corpora"] = [place_and_split(place)[2] for place in arguments.corpora]
    if "encoder" in given:
        facts["encoder"] = "none" if arguments.encoder == "none" else Path(arguments.encoder).name
    return facts | {"command": command_line(), "date": time.strftime("%Y-%m-%d"), "versions": versions()}
