"""Calibration: how far scores are probabilities: expected calibration error (ECE) before and after it.

    python -m benchmarks.calibration --corpora DIR DIR [DIR ...] --encoder DIR|id|none --figure reliability.png

Scored are the single clips of the target by what the saved model carries, which is what its pipeline returns. Beside it
stand temperature scaling fitted on shots held out in the source, and the best temperature there is (it sees the
target's labels).
"""

import argparse
import itertools

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.command import CorpusParser, report, run_in_processes
from benchmarks.experiment import Experiment, encode, pairs
from benchmarks.plots import panels
from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.organising.calibration import (
    LOG_TEMPERATURES,
    expected_accuracy,
    held_out_folds,
    temperature,
    witnesses_agree,
)
from modeling_sere.training.reporting.evaluation import Evaluation
from modeling_sere.training.reporting.metrics import expected_calibration_error

WAYS = ("none", "held-out shots", "agreement (SERE)", "best there is")
BINS = 10


def parse() -> argparse.Namespace:
    parser = CorpusParser(__doc__, draws="0-2")
    parser.add_argument("--figure", help="draw the reliability diagrams into this file")
    return parser.parse_args()


def best_temperature(logits: torch.Tensor, references: torch.Tensor) -> float:
    """Return the temperature of least negative log-likelihood, by a fine search."""
    candidates = torch.linspace(*LOG_TEMPERATURES, 121).exp()
    losses = [float(F.cross_entropy(logits / candidate, references)) for candidate in candidates]
    return float(candidates[int(np.argmin(losses))])


def held_out_temperature(adaptation, shots: torch.Tensor) -> float:
    """Return the best temperature for shots that took part without their label, a fold at a time."""
    logits, references = [], []
    for held_out in held_out_folds(shots):
        result = adaptation.organise(shots.masked_fill(held_out, UNLABELLED))
        logits.append(result.posteriors[: len(shots)][held_out].clamp_min(1e-9).log())
        references.append(shots[held_out])
    return best_temperature(torch.cat(logits), torch.cat(references))


def run(arguments) -> list[dict]:
    """Measure all rows."""
    tasks = itertools.product(pairs(encode(arguments)), (True, False))
    return run_in_processes(run_task, [(arguments, *pair, ids) for pair, ids in tasks])


def run_task(task: tuple) -> list[dict]:
    """Measure all draws of one pair, with or without speaker ids."""
    arguments, source, target, speaker_ids = task
    experiment = Experiment(arguments, source, target, speaker_ids, "transductive")
    everyone = list(range(len(experiment.target)))
    adaptation = experiment.adaptation({}, tuple(everyone))
    evaluation = Evaluation(adaptation, experiment.target, everyone, "inductive")
    rows = []
    for draw in arguments.draws:
        shots = experiment.shots(arguments.shots, draw)
        organised = adaptation.organise(shots)
        single = adaptation.single(organised)
        expected = expected_accuracy(adaptation, shots, witnesses_agree(adaptation, shots))
        logits = single(*evaluation.inputs)
        references = torch.from_numpy(evaluation.references)
        agreement = temperature(single(adaptation.unknown.embeddings, adaptation.unknown.cues), expected)
        temperatures = (1.0, held_out_temperature(adaptation, shots), agreement, best_temperature(logits, references))
        right = logits.argmax(1) == references
        for way, chosen in zip(WAYS, temperatures, strict=True):
            scores = (logits / chosen).softmax(1)
            rows.append({
                "source": source.corpus.name, "target": target.corpus.name, "draw": draw, "speaker_ids": speaker_ids,
                "way": way, "temperature": chosen, "ece": expected_calibration_error(scores.numpy(), references),
                "nll": float(F.cross_entropy(logits / chosen, references)), "accuracy": float(right.float().mean()),
                "expected_accuracy": expected, "bins": bins(scores.amax(1), right),
            })  # fmt: skip
    return rows


def bins(best: torch.Tensor, right: torch.Tensor) -> list[list[float]]:
    """Return per interval of the best score: clips, sum of scores, right answers."""
    interval = (best * BINS).long().clamp_max(BINS - 1)
    columns = (torch.ones_like(best), best, right.float())
    return torch.stack([torch.zeros(BINS).index_add(0, interval, column) for column in columns], 1).tolist()


def summary(rows: list[dict]) -> str:
    """Return means over tasks and draws."""
    lines = []
    for speaker_ids in sorted({row["speaker_ids"] for row in rows}, reverse=True):
        some = [row for row in rows if row["speaker_ids"] == speaker_ids]
        gap = np.mean([abs(row["expected_accuracy"] - row["accuracy"]) for row in some])
        lines += ["", f"{'with' if speaker_ids else 'without'} speaker ids; expected and true accuracy "
                  f"{100 * np.mean([row['expected_accuracy'] for row in some]):.1f} % and "
                  f"{100 * np.mean([row['accuracy'] for row in some]):.1f} %, on a task "
                  f"{100 * gap:.1f} points apart"]  # fmt: skip
        lines.append(f"{'temperature from':<20}{'ECE %':>8}{'NLL':>8}{'T':>8}")
        for way in WAYS:
            ece, nll, chosen = np.mean(
                [(100 * row["ece"], row["nll"], row["temperature"]) for row in some if row["way"] == way], 0
            )
            lines.append(f"{way:<20}{ece:8.1f}{nll:8.2f}{chosen:8.2f}")
    return "\n".join(lines)


def plot(rows: list[dict], path: str):
    """Draw reliability before and after, all tasks together."""
    with panels(path, 2, "share of right answers") as axes:
        for axis, speaker_ids in zip(axes, (True, False), strict=True):
            axis.plot([0, 1], [0, 1], color="grey", lw=0.8, ls="--")
            for way in (WAYS[0], WAYS[2]):
                some = [row["bins"] for row in rows if (row["way"], row["speaker_ids"]) == (way, speaker_ids)]
                clips, score, right = np.sum(some, 0).T
                used = clips > 0
                axis.plot(score[used] / clips[used], right[used] / clips[used], marker="o", label=f"temperature: {way}")
            axis.set_title(f"{'with' if speaker_ids else 'without'} speaker ids")
            axis.set_xlabel("best score")


def main():
    report(parse(), run, summary, plot)


if __name__ == "__main__":
    main()
