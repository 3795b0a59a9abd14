"""Adaptation without source data beside adaptation with it: what do the unlabelled source clips add?

    python -m benchmarks.source_free --corpora DIR DIR [DIR ...] --encoder DIR|id|none --json source_free.json

Every directed pair of corpora is one task. "source-free" has of the source no more than the labelled clips' embeddings
that travel in a checkpoint, as `train_sere.py --model ... --target ...`; "sere" has the whole source corpus. Both have
the same shots. Scores are of the clips adapted on ("transductive"), and of what the saved model says of them one by one
("single clips"); the expected calibration error of the latter is in the JSON file.
"""

import argparse

import torch

from benchmarks.command import CorpusParser, report, run_in_processes
from benchmarks.crosslingual import summary
from benchmarks.experiment import Experiment, QuickEvaluation, encode, pairs
from modeling_sere.training.organising.adaptation import Adaptation
from modeling_sere.training.organising.calibration import calibrate
from modeling_sere.training.organising.carried_sources import Sources
from modeling_sere.training.running.models import build_model


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Measure all rows."""
    corpora = encode(arguments)
    tasks = [(arguments, *pair, speaker_ids) for speaker_ids in (True, False) for pair in pairs(corpora)]
    return run_in_processes(run_task, tasks)


def run_task(task: tuple) -> list[dict]:
    """Measure all draws of one pair, with or without speaker ids."""
    arguments, source, target, speaker_ids = task
    experiment = Experiment(arguments, source, target, speaker_ids, "transductive")
    everyone = list(range(len(experiment.target)))
    with_source = experiment.adaptation({}, tuple(everyone))
    rows = []
    for draw in arguments.draws:
        shots = experiment.shots(arguments.shots, draw)
        with_source.install(with_source.organise(shots))  # the model is now a checkpoint, with its sources
        sources = Sources(with_source.model, experiment.labels)
        model = build_model(experiment.base, experiment.labels, speaker_ids, weights=False)
        free = Adaptation(model, sources.domain, experiment.target.domain)
        facts = {"source": experiment.names[0], "target": experiment.names[1], "draw": draw, "labels": "shots"}
        for method, adaptation, labelled in (("sere", with_source, shots), ("source-free", free, sources.references)):
            for setting, scores in scored(adaptation, labelled, experiment.target, everyone).items():
                rows.append(facts | {"method": method, "setting": setting, "speaker_ids": speaker_ids} | scores)
    return rows


def scored(adaptation: Adaptation, shots: torch.Tensor, target, everyone: list[int]) -> dict[str, dict]:
    """Return scores of the field on the target, and of the map that a saved model carries."""
    organised = adaptation.organise(shots)
    temperature = calibrate(adaptation, organised).temperature
    adaptation.install(organised)  # the evaluation of single clips embeds them with the model's statistics
    single = QuickEvaluation(adaptation, target, everyone, "inductive")
    error = single.calibration_error(adaptation.single(organised) * (1 / temperature))
    return {
        "transductive": QuickEvaluation(adaptation, target, everyone, "transductive").scores(organised),
        "single clips": single.scores(organised) | {"ece": error},
    }


if __name__ == "__main__":
    report(CorpusParser(__doc__, draws="0-2").parse_args(), measure, summary)
