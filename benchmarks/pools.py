"""Real-life pools: few target clips, uneven shares of the emotions, emotions that are not among the labels.

    python -m benchmarks.pools --corpora DIR DIR [DIR ...] --encoder DIR|id|none --json pools.json --figure pools.png

Every directed pair of corpora is one task. `size`: that many target clips, drawn at random. `skew`: half of the
target's clips, class shares drawn from a Dirichlet distribution of that concentration (inf: even shares); recalls are
of the emotions that the pool has. `foreign`: two of the shared emotions, drawn at random, have no labelled clip, and so
large a share of the target's clips is theirs; they are not scored, but it is told how sure the model is of them. Pairs
that share fewer than four emotions are left out of it.
"""

import argparse

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.command import CorpusParser, report, run_in_processes
from benchmarks.experiment import Experiment, encode, pairs
from benchmarks.plots import panels
from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.corpora.episodes import shared_labels
from modeling_sere.training.organising.calibration import expected_accuracy, temperature, witnesses_agree

SIZES = (20, 50, 100, 200, 500, 1000)
CONCENTRATIONS = (float("inf"), 10.0, 3.0, 1.0, 0.5)
FOREIGN = (0.0, 0.2, 0.4, 0.6)
FOREIGN_EMOTIONS = 2
METHODS = ("sere", "sere-full-balance", "sere-no-balance", "ridge+prior", "logistic-regression")
UNSURE = 0.5  # a best score below this says: not sure


def parse() -> argparse.Namespace:
    parser = CorpusParser(__doc__, draws="0-2")
    parser.add_argument("--speaker_ids", choices=["with", "without"], default="with")
    parser.add_argument("--figure", help="draw the curves into this file")
    return parser.parse_args()


def sized(references: np.ndarray, size: float, random: np.random.Generator) -> np.ndarray | None:
    """Return rows of a pool of this size; None where the target has fewer clips."""
    return random.permutation(len(references))[: int(size)] if size <= len(references) else None


def skewed(references: np.ndarray, concentration: float, random: np.random.Generator) -> np.ndarray:
    """Return rows of a pool of half the clips (fewer where a class runs out) with Dirichlet-drawn class shares."""
    counts = np.bincount(references)
    even = np.full(len(counts), 1 / len(counts))
    shares = random.dirichlet(len(counts) * [concentration]) if np.isfinite(concentration) else even
    wanted = np.minimum(np.round(shares * len(references) / 2).astype(int), counts)
    return np.concatenate([random.permutation(np.flatnonzero(references == k))[:n] for k, n in enumerate(wanted)])


def mixed(references: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray | None:
    """Return rows of a pool whose clips are foreign to this share; None where there are not enough foreign ones."""
    known, foreign = np.flatnonzero(references != UNLABELLED), np.flatnonzero(references == UNLABELLED)
    known = random.permutation(known)[: len(foreign) // 2]  # the same number of known clips for every share
    wanted = round(len(known) * share / (1 - share))
    return np.concatenate([known, random.permutation(foreign)[:wanted]]) if wanted <= len(foreign) else None


STUDIES = {"size": (sized, SIZES), "skew": (skewed, CONCENTRATIONS), "foreign": (mixed, FOREIGN)}


def run(arguments) -> list[dict]:
    """Measure all rows."""
    ids = arguments.speaker_ids == "with"
    return run_in_processes(run_task, [(arguments, *pair, ids) for pair in pairs(encode(arguments))])


def run_task(task: tuple) -> list[dict]:
    """Measure all studies and draws of one pair."""
    arguments, source, target, speaker_ids = task
    shared = shared_labels(source.corpus.labels, target.corpus.labels)
    whole = Experiment(arguments, source, target, speaker_ids, "transductive")
    rows = []
    for draw in arguments.draws:
        for study, (sample, values) in STUDIES.items():
            experiment = whole
            if study == "foreign":
                kept = np.random.default_rng([draw, 0]).permutation(shared)[FOREIGN_EMOTIONS:].tolist()
                if len(kept) < 2:
                    continue
                experiment = Experiment(arguments, source, target, speaker_ids, "transductive", labels=sorted(kept))
            references = experiment.target.references.numpy()
            for value in values:
                chosen = sample(references, value, np.random.default_rng([draw, 1]))
                if chosen is None:
                    continue
                facts = {"study": study, "value": f"{value:g}", "source": source.corpus.name}
                facts |= {"target": target.corpus.name, "draw": draw, "shots": arguments.shots}
                rows += [facts | scores for scores in pool_scores(experiment, chosen, draw, study)]
    return rows


def pool_scores(experiment: Experiment, chosen: np.ndarray, draw: int, study: str):
    """Score all methods on one pool; in "foreign" also how sure SERE is of clips of either kind."""
    chosen = sorted(chosen.tolist())
    shots = experiment.shots(experiment.arguments.shots, draw)
    for method in METHODS:
        scores = experiment.scores(method, shots, tuple(chosen), chosen, draw)
        row = {"method": method, "uar": scores["uar"], "war": scores["war"]}
        if study == "foreign" and method == "sere":
            row |= sureness(experiment, chosen, shots)
        yield row


def sureness(experiment: Experiment, chosen: list[int], shots: torch.Tensor) -> dict:
    """Return share of unsure answers for known and for foreign clips, and how well the best score tells them apart
    (AUROC).
    """
    adaptation = experiment.adaptation({}, tuple(chosen))
    logits = adaptation.organise(shots).posteriors[len(shots) :].clamp_min(1e-12).log()
    accuracy = expected_accuracy(adaptation, shots, witnesses_agree(adaptation, shots))
    chosen_temperature = temperature(logits, accuracy)
    best = (logits / chosen_temperature).softmax(1).amax(1).numpy()
    known = experiment.target.references.numpy()[chosen] != UNLABELLED
    if known.all():
        return {"unsure_known": float((best < UNSURE).mean())}
    return {
        "unsure_known": float((best[known] < UNSURE).mean()),
        "unsure_foreign": float((best[~known] < UNSURE).mean()),
        "auroc": float(roc_auc_score(known, best)),
    }


def summary(rows: list[dict]) -> str:
    """Return one table per study: mean UAR over the tasks at every value, and the s.d. over draws."""
    lines = []
    for study, (_, values) in STUDIES.items():
        some = [row for row in rows if row["study"] == study]
        if not some:
            continue
        lines += ["", f"{study}: UAR %", f"{'method':<24}" + "".join(f"{value:>14}" for value in values)]
        for method in METHODS:
            cells = [curve_point(some, method, value) for value in values]
            text = ["-" if cell is None else f"{cell[0]:.1f} +- {cell[1]:.1f}" for cell in cells]
            lines.append(f"{method:<24}" + "".join(f"{cell:>14}" for cell in text))
        tasks = {(row["value"], row["source"], row["target"]) for row in some}
        counts = [sum(task[0] == f"{value:g}" for task in tasks) for value in values]
        lines.append(f"{'tasks':<24}" + "".join(f"{count:>14}" for count in counts))
    sure = [row for row in rows if "auroc" in row]
    if sure:
        means = {key: 100 * np.mean([row[key] for row in sure]) for key in ("unsure_known", "unsure_foreign", "auroc")}
        lines += ["", f"best score below {UNSURE}: {means['unsure_known']:.0f} % of clips of known emotions, "
                  f"{means['unsure_foreign']:.0f} % of foreign ones; AUROC {means['auroc']:.0f} %"]  # fmt: skip
    return "\n".join(lines)


def curve_point(rows: list[dict], method: str, value: float) -> tuple[float, float] | None:
    """Return UAR in %, averaged over the tasks: mean and s.d. over draws."""
    by_draw = {}
    for row in rows:
        if (row["method"], row["value"]) == (method, f"{value:g}"):
            by_draw.setdefault(row["draw"], []).append(100 * row["uar"])
    means = [np.mean(uars) for uars in by_draw.values()]
    return (float(np.mean(means)), float(np.std(means))) if means else None


def plot(rows: list[dict], path: str):
    """Draw a panel per study."""
    labels = {"size": "target clips", "skew": "concentration of the class shares", "foreign": "share of foreign clips"}
    by_study = {study: [row for row in rows if row["study"] == study] for study in STUDIES}
    by_study = {study: some for study, some in by_study.items() if some}
    with panels(path, len(by_study), "UAR, %") as axes:
        for axis, (study, some) in zip(axes, by_study.items(), strict=True):
            values = STUDIES[study][1]
            for method in METHODS:
                points = [(i, curve_point(some, method, value)) for i, value in enumerate(values)]
                points = [(i, *point) for i, point in points if point is not None]
                x, mean, deviation = np.array(points).T
                axis.errorbar(x, mean, deviation, label=method, marker="o", capsize=2, lw=2 if method == "sere" else 1)
            axis.set_xticks(range(len(values)), ["even" if value == float("inf") else f"{value:g}" for value in values])
            axis.set_xlabel(labels[study])


def main():
    report(parse(), run, summary, plot)


if __name__ == "__main__":
    main()
