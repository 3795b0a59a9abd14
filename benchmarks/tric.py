"""TRIC: whether the loss adds anything to the field, each way to use it paired with the field without it.

    python -m benchmarks.tric --corpora DIR DIR [DIR ...] --encoder DIR|id|none --json tric.json

Every directed pair of corpora is one task; transductive, with speaker ids.

chain        closed form: where the chain goes from each clip, as class scores, is added to the field's scores
blocks       one gain per block of the embedding (dynamics, encoder layers) is trained by TRIC; then the field
gains        one gain per feature is trained by TRIC; then the field
soft-gains   the same with the field's surest quarter of the clips as labelled ones beside the shots
refine       --refine_steps of train_sere.py on frames: highlight weights and gains by the loss with TRIC; the field
refine-0     the same with a weight of TRIC of 0: what of "refine" is TRIC's
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional as F
from tqdm.auto import tqdm

from benchmarks.baselines import normalised
from benchmarks.command import CorpusParser, report, run_in_processes
from benchmarks.experiment import Encoded, Experiment, QuickEvaluation, encode, pairs
from modeling_sere.resonance_sere import UNLABELLED, TripleResonanceInteractionChain
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.encoding.domain import Domain
from modeling_sere.training.organising.adaptation import Adaptation, Organised
from modeling_sere.training.refining.frame_store import FrameStore
from modeling_sere.training.refining.refinement import Refinement, trainable
from modeling_sere.training.running.models import build_model

CHAIN_WEIGHT = 0.5  # of the chain's scores beside the field's, both of unit spread
STEPS, RATE, BATCH = 40, 0.02, 256  # of gains trained by TRIC
REFINE_STEPS = 60
IDEAS = ("chain", "blocks", "gains", "soft-gains", "refine", "refine-0")
ON_FRAMES = ("refine", "refine-0")


def parse() -> argparse.Namespace:
    parser = CorpusParser(__doc__, draws="0-1")
    parser.add_argument("--ideas", nargs="+", choices=IDEAS, default=IDEAS)
    return parser.parse_args()


def run(arguments) -> list[dict]:
    """Measure all rows."""
    corpora = encode(arguments)
    pooled = [idea for idea in arguments.ideas if idea not in ON_FRAMES]
    rows = run_in_processes(run_task, [(arguments, *pair, pooled) for pair in pairs(corpora)])
    if len(pooled) < len(arguments.ideas):
        rows += refined(arguments, corpora)
    return rows


class Task:
    """One pair, its field without TRIC, and what it takes to score another embedding of the same clips."""

    def __init__(self, arguments, source: Encoded, target: Encoded):
        self.experiment = Experiment(arguments, source, target, True, "transductive")
        self.everyone = list(range(len(self.experiment.target)))
        self.adaptation = self.experiment.adaptation({}, tuple(self.everyone))

    def uar(self, adaptation: Adaptation, organised: Organised) -> float:
        evaluation = QuickEvaluation(adaptation, self.experiment.target, self.everyone, "transductive")
        return evaluation.scores(organised)["uar"]

    def row(self, idea: str, draw: int, before: float, uar: float) -> dict:
        source, target = self.experiment.names
        return {"source": source, "target": target, "draw": draw, "idea": idea, "uar_field": before, "uar": uar}


def run_task(task: tuple) -> list[dict]:
    """Measure the ideas on pooled features, for all draws of one pair."""
    arguments, source, target, ideas = task
    task, rows = Task(arguments, source, target), []
    for draw in arguments.draws:
        shots = task.experiment.shots(arguments.shots, draw)
        organised = task.adaptation.organise(shots)
        before = task.uar(task.adaptation, organised)
        for idea in ideas:
            after = with_chain(task, organised) if idea == "chain" else with_gains(task, organised, draw, idea)
            rows.append(task.row(idea, draw, before, after))
    return rows


@torch.no_grad()
def with_chain(task: Task, organised: Organised) -> float:
    """Return UAR of the field's target scores plus `log` of the last two hops: unlabelled -> unlabelled -> labelled."""
    adaptation, shots = task.adaptation, organised.shots
    chain = TripleResonanceInteractionChain(adaptation.model.config)
    labelled = adaptation.source.embeddings[shots != UNLABELLED]
    unlabelled = torch.cat([adaptation.source.embeddings[shots == UNLABELLED], adaptation.target.embeddings])
    _, within, back = chain.hops(labelled, unlabelled)
    classes = F.one_hot(shots[shots != UNLABELLED]).float()
    scores = (within @ (back @ classes))[-len(adaptation.target.embeddings) :].clamp_min(1e-12).log()
    field = organised.posteriors[len(shots) :].clamp_min(1e-12).log()
    told = task.experiment.target.references != UNLABELLED
    answers = (normalised(field) + CHAIN_WEIGHT * normalised(scores)).argmax(1)[told]
    references = task.experiment.target.references[told]
    return float(np.mean([(answers[references == k] == k).float().mean() for k in references.unique()]))


def with_gains(task: Task, organised: Organised, draw: int, idea: str) -> float:
    """Return UAR of the field on embeddings whose gains TRIC has trained."""
    adaptation = task.adaptation
    statistics, group = adaptation.clip_statistics()
    labels = torch.cat([organised.shots, torch.full((len(adaptation.target.embeddings),), UNLABELLED)])
    if idea == "soft-gains":
        best, answers = organised.posteriors.max(1)
        labels = torch.where((labels == UNLABELLED) & (best >= best.quantile(0.75)), answers, labels)
    source, target = (pool.domain for pool in (task.experiment.source, task.experiment.target))
    features = torch.cat([source.features, target.features])
    model = adaptation.model
    embedding, chain = model.sere.embedding, TripleResonanceInteractionChain(model.config)
    sizes = torch.tensor(embedding.block_sizes)
    parameters = torch.zeros(len(sizes) if idea == "blocks" else int(sizes.sum()), requires_grad=True)
    optimizer = torch.optim.Adam([parameters], lr=RATE)
    generator = torch.Generator().manual_seed(draw)
    shots, others = ((labels != UNLABELLED).nonzero().squeeze(1), (labels == UNLABELLED).nonzero().squeeze(1))

    def gains() -> torch.Tensor:
        return parameters.repeat_interleave(sizes) if idea == "blocks" else parameters

    for _ in range(STEPS):
        drawn = [some[torch.randperm(len(some), generator=generator)[:BATCH]] for some in (shots, others)]
        items = torch.cat(drawn)
        standardised = embedding.standardised(features[items], statistics[group[items]])
        embeddings = F.normalize(standardised * embedding.scale.detach() * gains().exp(), dim=1)
        optimizer.zero_grad()
        chain.combine(chain(embeddings, labels[items])).backward()
        optimizer.step()
    with torch.no_grad():
        embedding.log_gain.copy_(gains())
        changed = Adaptation(model, source, target)
        result = task.uar(changed, changed.organise(organised.shots))
        embedding.log_gain.zero_()
    return result


def refined(arguments, corpora: list[Encoded]) -> list[dict]:
    """Measure the ideas on frames, which are kept once for all corpora."""
    accelerator, rows = Accelerator(cpu=True), []
    ideas = [idea for idea in arguments.ideas if idea in ON_FRAMES]
    frozen = build_model(SereArguments(encoder=arguments.encoder), ["one", "two"], True).sere
    owners = [encoded.corpus for encoded in corpora for _ in encoded.features.indices]
    with FrameStore(frozen, accelerator.device) as store:
        store.fill(owners, [index for encoded in corpora for index in encoded.features.indices], progress=True)
        starts = dict(zip((encoded.corpus.name for encoded in corpora),
                          np.cumsum([0, *(len(encoded.features.indices) for encoded in corpora)]),
                          strict=False))  # fmt: skip
        tasks = list(itertools.product(pairs(corpora), arguments.draws, ideas))
        for (source, target), draw, idea in tqdm(tasks, desc="Refining", unit="run"):
            task = Task(arguments, source, target)
            rows.append(with_refining(arguments, task, store, starts, accelerator, draw, idea))
    return rows


def with_refining(arguments, task: Task, store: FrameStore, starts: dict, accelerator, draw: int, idea: str) -> dict:
    """Do one run of `Refinement`, as train_sere.py does it."""
    experiment, adaptation = task.experiment, task.adaptation
    model = adaptation.model
    kept = [
        [starts[pool.name] + encoded.features.keys.index(key) for key in pool.features.keys]
        for pool, encoded in zip((experiment.source, experiment.target), experiment.encoded, strict=True)
    ]
    items = kept[0] + kept[1]
    shots = experiment.shots(arguments.shots, draw)
    organised = adaptation.organise(shots)
    before = task.uar(adaptation, organised)
    adaptation.install(organised)
    model.config.tric_weight = 1.0 if idea == "refine" else 0.0
    options = SereArguments(encoder=arguments.encoder, seed=draw, refine_steps=REFINE_STEPS)
    with trainable(model, "none"), tempfile.TemporaryDirectory() as checkpoint:
        refinement = Refinement(
            adaptation, accelerator, shots, lambda some: {"frames": store.batch([items[i] for i in some])}, options
        )
        refinement.run(Path(checkpoint), False, lambda losses, step: None)
    with torch.no_grad():
        features = torch.cat([model.sere.pool(store.batch(items[i : i + 64]))[1] for i in range(0, len(items), 64)])
    source, target = features.split([len(kept[0]), len(kept[1])])
    speakers = [pool.domain.speakers for pool in (experiment.source, experiment.target)]
    changed = Adaptation(model, Domain(source, speakers[0]), Domain(target, speakers[1]))
    return task.row(idea, draw, before, task.uar(changed, changed.organise(shots)))


def summary(rows: list[dict]) -> str:
    """Return paired difference to the field per idea, over tasks (means over draws), with its standard error."""
    lines = [f"{'idea':<12}{'field':>8}{'with TRIC':>11}{'difference':>16}"]
    for idea in dict.fromkeys(row["idea"] for row in rows):
        by_task: dict[tuple, list] = {}
        for row in rows:
            if row["idea"] == idea:
                by_task.setdefault((row["source"], row["target"]), []).append((row["uar_field"], row["uar"]))
        before, after = 100 * np.array([np.mean(values, 0) for values in by_task.values()]).T
        error = (after - before).std(ddof=1) / len(before) ** 0.5 if len(before) > 1 else float("nan")
        difference = f"{(after - before).mean():+.1f} +- {error:.1f}"
        lines.append(f"{idea:<12}{before.mean():8.1f}{after.mean():11.1f}{difference:>16}")
    return "\n".join(lines)


def main():
    report(parse(), run, summary)


if __name__ == "__main__":
    main()
