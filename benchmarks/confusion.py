"""Confusions: what SERE takes for what, in every target language.

    python -m benchmarks.confusion --corpora DIR DIR [DIR ...] --encoder DIR|id|none --figures FOLDER

Transductive, with speaker ids. A language's matrix is the sum over its source languages and the draws; an emotion that
a source lacks is counted with the other sources only.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.command import CorpusParser, report, run_in_processes
from benchmarks.experiment import Experiment, encode, pairs
from model_card.plots import plot_confusion
from modeling_sere.training.reporting.evaluation import Evaluation


def parse() -> argparse.Namespace:
    parser = CorpusParser(__doc__, draws="0-9")
    parser.add_argument("--figures", dest="figure", help="draw confusion-<corpus>.png into this folder")
    return parser.parse_args()


def run(arguments) -> list[dict]:
    """Measure one row per pair and draw."""
    return run_in_processes(run_task, [(arguments, *pair) for pair in pairs(encode(arguments))])


def run_task(task: tuple) -> list[dict]:
    """Measure all draws of one pair."""
    arguments, source, target = task
    experiment = Experiment(arguments, source, target, True, "transductive")
    everyone = list(range(len(experiment.target)))
    adaptation = experiment.adaptation({}, tuple(everyone))
    evaluation = Evaluation(adaptation, experiment.target, everyone, "transductive")
    rows = []
    for draw in arguments.draws:
        scores = evaluation.scores(adaptation.organise(experiment.shots(arguments.shots, draw)))
        rows.append({
            "source": source.corpus.name, "target": target.corpus.name, "draw": draw, "shots": arguments.shots,
            "emotions": experiment.labels, "confusion": scores["confusion"],
        })  # fmt: skip
    return rows


def matrix(rows: list[dict], target: str) -> tuple[list[str], np.ndarray]:
    """Return emotions of a target, and its confusion (C, C) in clips, rows the truth: the mean over the draws."""
    some = [row for row in rows if row["target"] == target]
    emotions = sorted({emotion for row in some for emotion in row["emotions"]})
    total = np.zeros((len(emotions), len(emotions)))
    for row in some:
        places = [emotions.index(emotion) for emotion in row["emotions"]]
        total[np.ix_(places, places)] += row["confusion"]
    return emotions, np.round(total / len({row["draw"] for row in some})).astype(int)


def summary(rows: list[dict]) -> str:
    """Return recalls per language, and what each emotion is most often mistaken for."""
    lines = []
    for target in dict.fromkeys(row["target"] for row in rows):
        emotions, confusion = matrix(rows, target)
        shares = 100 * confusion / confusion.sum(1, keepdims=True).clip(1)
        lines += ["", target]
        for k, emotion in enumerate(emotions):
            others = np.delete(np.arange(len(emotions)), k)
            mistaken = others[shares[k, others].argmax()]
            lines.append(
                f"  {emotion:<12}{shares[k, k]:5.1f} %, most often taken for {emotions[mistaken]} "
                f"({shares[k, mistaken]:.1f} %)"
            )
    return "\n".join(lines)


def plot(rows: list[dict], folder: str):
    """Draw one figure per target."""
    for target in dict.fromkeys(row["target"] for row in rows):
        emotions, confusion = matrix(rows, target)
        plot_confusion(Path(folder) / f"confusion-{target}.png", confusion, emotions)


def main():
    report(parse(), run, summary, plot)


if __name__ == "__main__":
    main()
