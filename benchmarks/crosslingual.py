"""Cross-lingual accuracy: SERE, its ablations, the baselines and the ceiling, paired over the same shot draws.

    python benchmarks/crosslingual.py --corpora DIR DIR [DIR ...] --encoder DIR|id|none --json results.json

Every directed pair of corpora is one task. Features, pools, adaptation and evaluation are the ones of train_sere.py.
"""

import argparse
import itertools
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for a run from any folder

from benchmarks.baselines import BASELINES, Task, normalised, with_balance, with_prior
from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.adaptation import Adaptation
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.data import Corpus, load_corpus
from modeling_sere.training.episodes import shared_labels, split_speakers
from modeling_sere.training.evaluation import Evaluation
from modeling_sere.training.features import DEFAULT_CACHE, FeatureExtraction, Features
from modeling_sere.training.metrics import score
from modeling_sere.training.models import build_model
from modeling_sere.training.outputs import versions
from modeling_sere.training.pool import Pool, kept_clips

# name -> what differs from SERE as it is; "shots" 0 leaves the prior alone
ABLATIONS = {
    "sere-no-field": {"field_rounds": 0},
    "sere-no-prior": {"prior_profile": {}},
    "sere-no-balance": {"field_balance": 0.0},
    "sere-half-balance": {"field_balance": 0.5},
    "sere-no-voices": {"num_voice_groups": 1},
    "sere-no-encoder": {"encoder_weight": 0.0},
    "sere-zero-shot": {"shots": 0},
}
ENROLMENTS = (1, 5, 20)
SIMPLE = ("nearest-class-mean", "ridge", "logistic-regression")  # the harness adds prior and balance to these


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", required=True, help="folders with metadata.csv")
    parser.add_argument("--encoder", default="none", help="encoder folder, Hub id, or none")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--draws", default="0-9", help="first-last seed of the shot draws")
    parser.add_argument("--methods", default="all", help="all, or names separated by commas")
    parser.add_argument("--speaker_ids", choices=["both", "with", "without"], default="both")
    parser.add_argument("--setting", choices=["transductive", "inductive", "both"], default="transductive")
    parser.add_argument("--cache_dir", default=str(DEFAULT_CACHE))
    parser.add_argument("--json", help="write all rows to this file")
    arguments = parser.parse_args()
    if len(arguments.corpora) < 2:
        parser.error("--corpora needs at least two folders: every directed pair is a task")
    try:
        first, _, last = arguments.draws.partition("-")
        arguments.draws = list(range(int(first), int(last or first) + 1))
    except ValueError:
        parser.error(f"--draws must look like 0-9, not {arguments.draws}")
    known = [*method_names(), "all"]
    arguments.methods = arguments.methods.split(",")
    for name in arguments.methods:
        if name not in known:
            parser.error(f"--methods: {name} is unknown; known are {', '.join(known)}")
    if "all" in arguments.methods:
        arguments.methods = method_names()
    return arguments


def method_names() -> list[str]:
    """All methods, SERE first."""
    simple = [f"{name}{suffix}" for name in SIMPLE for suffix in ("", "+prior", "+prior+balance")]
    others = [name for name in BASELINES if name not in simple]
    return ["sere", *ABLATIONS, *(f"sere-enrol-{n}" for n in ENROLMENTS), *simple, *others]


def encode(arguments) -> list[tuple[Corpus, Features]]:
    """Every corpus with the features of all its clips, from the cache where they are there."""
    base = SereArguments(encoder=arguments.encoder)
    accelerator = Accelerator()
    model = build_model(base, ["one", "two"], speaker_ids=True)
    extract = FeatureExtraction(model.sere.to(accelerator.device), accelerator, Path(arguments.cache_dir))
    corpora = [load_corpus(folder) for folder in arguments.corpora]
    return [(corpus, extract(corpus)) for corpus in corpora]


def pool(corpus: Corpus, features: Features, labels: list[str], speaker_ids: bool) -> Pool:
    """The clips of the shared emotions."""
    kept = set(kept_clips(corpus, labels))
    rows = [row for row, index in enumerate(features.indices) if index in kept]
    chosen = Features(
        features.values[rows], [features.indices[row] for row in rows], [features.keys[row] for row in rows], []
    )
    return Pool(corpus, chosen, labels, speaker_ids)


class Experiment:
    """One task with or without speaker ids in one setting: adaptations are made once and shared by all draws."""

    def __init__(self, arguments, source, target, speaker_ids: bool, setting: str):
        self.arguments, self.speaker_ids, self.setting = arguments, speaker_ids, setting
        self.labels = shared_labels(source[0].labels, target[0].labels)
        self.source = pool(*source, self.labels, speaker_ids)
        self.target = pool(*target, self.labels, speaker_ids)
        self.names = source[0].name, target[0].name
        self.base = SereArguments(encoder=arguments.encoder, shots=max(1, arguments.shots))
        self.adapting, self.adaptations = None, {}

    def adaptation(self, options: dict, adapting: tuple[int, ...]) -> Adaptation:
        """With some constants of the configuration changed, on some rows of the target."""
        if adapting != self.adapting:  # another draw's speakers: the adaptations to these will not come back
            self.adapting, self.adaptations = adapting, {}
        key = json.dumps(options, sort_keys=True)
        if key not in self.adaptations:
            self.adaptations[key] = self._adapt(options, list(adapting))
        return self.adaptations[key]

    def _adapt(self, options, adapting):
        model = build_model(self.base, self.labels, self.speaker_ids, weights=False, **options)
        return Adaptation(model, self.source.domain, self.target.domain.subset(adapting))

    def rows(self, draw: int):
        """Rows of the results of one draw: one dict per method."""
        everyone = list(range(len(self.target)))
        adapting, scored = everyone, everyone
        if self.setting == "inductive":
            adapting, scored = split_speakers([clip.speaker for clip in self.target.clips], draw)
        shots = self.shots(self.arguments.shots, draw)
        for method in self.arguments.methods:
            if method == "sere-no-voices" and self.speaker_ids and self.setting == "transductive":
                continue  # nothing to switch off
            for labels, marked in self.labelled(method, shots):
                scores = self.scores(method, marked, tuple(adapting), scored, draw)
                if scores is not None:
                    yield {
                        "source": self.names[0], "target": self.names[1], "draw": draw, "shots": self.arguments.shots,
                        "method": method, "setting": self.setting, "speaker_ids": self.speaker_ids, "labels": labels,
                        "uar": scores["uar"], "war": scores["war"], "macro_f1": scores["macro_f1"],
                    }  # fmt: skip

    def shots(self, count: int, draw: int) -> torch.Tensor:
        if count == 0:
            return torch.full((len(self.source),), UNLABELLED)
        return self.source.shots(count, draw)

    def labelled(self, method: str, shots: torch.Tensor):
        """("shots", draw), and for the ceilings ("all", every source label)."""
        yield "shots", shots
        if method in ("sere", "ridge"):
            yield "all", self.source.references

    def scores(self, method: str, shots, adapting, scored, draw) -> dict | None:
        """Scores of one method, or None where it does not exist in this setting."""
        if method == "sere" or method in ABLATIONS:
            options = dict(ABLATIONS.get(method, {}))
            if options.pop("shots", None) == 0:
                shots = torch.full_like(shots, UNLABELLED)
            adaptation = self.adaptation(options, adapting)
            organised = adaptation.organise(shots)
            return Evaluation(adaptation, self.target, scored, self.setting).scores(organised)
        adaptation = self.adaptation({}, adapting)
        if method.startswith("sere-enrol-"):
            if self.setting == "transductive":
                return None
            return self.enrolled(int(method.rsplit("-", 1)[1]), adaptation, shots, scored, draw)
        if self.setting == "inductive" and method.partition("+")[0] not in SIMPLE:
            return None  # they answer for a whole pool, not for one clip
        return self.baseline(method, adaptation, shots, scored, draw)

    def baseline(self, method: str, adaptation: Adaptation, shots, scored, draw) -> dict:
        """A baseline on SERE's own embeddings, with the prior and the balance where its name says so."""
        evaluation = Evaluation(adaptation, self.target, scored, self.setting)
        embeddings, cues = evaluation.inputs

        def prior(embeddings, cues):
            return normalised(adaptation.field.prior(embeddings)(embeddings, cues))

        task = Task(
            source=adaptation.source.embeddings, target=embeddings, shots=shots,
            source_prior=prior(adaptation.source.embeddings, adaptation.source.cues),
            target_prior=prior(embeddings, cues), num_labels=len(self.labels), seed=draw,
            prior_weight=adaptation.model.config.prior_weight,
        )  # fmt: skip
        name, *extras = [method] if method in BASELINES else method.split("+")
        values = BASELINES[name](task)
        if "prior" in extras:
            values = with_prior(values, task)
        if "balance" in extras and self.setting == "transductive":  # one clip alone cannot be balanced
            values = with_balance(values)
        return score(values.argmax(1).numpy(), evaluation.references, self.labels)

    def enrolled(self, count: int, adaptation: Adaptation, shots, scored, draw) -> dict:
        """Each clip normalised by statistics from `count` earlier clips of its speaker, those clips left out."""
        organised = adaptation.organise(shots)
        model = adaptation.model.sere
        generator = np.random.default_rng([draw, count])
        features = self.target.domain.features
        speakers = np.array([self.target.clips[row].speaker for row in scored])
        predictions, references = [], []
        with torch.no_grad():
            for speaker in np.unique(speakers):
                order = generator.permutation(np.array(scored)[speakers == speaker])
                enrolment, rest = order[:count], order[count:]
                if len(rest) == 0:
                    continue
                statistics = model.enrol(features[torch.from_numpy(enrolment)])
                inputs = model.embedding(features[torch.from_numpy(rest)], statistics)
                predictions.append(organised.single(*inputs).argmax(1))
                references.append(self.target.references[torch.from_numpy(rest)])
        return score(torch.cat(predictions).numpy(), torch.cat(references).numpy(), self.labels)


def run(arguments) -> list[dict]:
    """All rows."""
    corpora = encode(arguments)
    ids = {"both": [True, False], "with": [True], "without": [False]}[arguments.speaker_ids]
    settings = ["transductive", "inductive"] if arguments.setting == "both" else [arguments.setting]
    pairs = itertools.permutations(corpora, 2)
    tasks = [(arguments, *pair, *rest) for pair, *rest in itertools.product(pairs, ids, settings)]
    # one thread each: the matrices are small, and as many processes as cores are quicker than as many threads
    with ProcessPoolExecutor(
        os.cpu_count(), mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as executor:
        done = tqdm(executor.map(run_task, tasks), total=len(tasks), desc="Tasks", unit="task")
        return [row for rows in done for row in rows]


def run_task(task: tuple) -> list[dict]:
    """All draws of one task in one setting, with or without speaker ids."""
    experiment = Experiment(*task)
    return [row for draw in task[0].draws for row in experiment.rows(draw)]


def summary(rows: list[dict]) -> str:
    """One table per setting and assumption: mean and s.d. over draws, the paired difference to SERE, UAR per task."""
    lines = []
    for setting, speaker_ids in sorted({(row["setting"], row["speaker_ids"]) for row in rows}, reverse=True):
        some = [row for row in rows if (row["setting"], row["speaker_ids"]) == (setting, speaker_ids)]
        tasks = list(dict.fromkeys((row["source"], row["target"]) for row in some))
        draws = sorted({row["draw"] for row in some})
        table = {}
        for row in some:
            cell = table.setdefault((row["method"], row["labels"]), {})
            cell[row["source"], row["target"], row["draw"]] = 100 * row["uar"]
        ids = "with" if speaker_ids else "without"
        lines += ["", f"{setting}, {ids} speaker ids: UAR %, {len(tasks)} tasks, {len(draws)} draws"]
        pairs = " ".join(f"{source[:5] + '-' + target[:5]:>11}" for source, target in tasks)
        lines.append(f"{'method':<36}{'mean':>6}{'s.d.':>6}{'SERE leads by':>18}  {pairs}")
        means = {key: _per_draw(cell, tasks, draws) for key, cell in table.items()}
        for key, per_draw in sorted(means.items(), key=lambda item: -item[1].mean()):
            lead = ""
            if ("sere", "shots") in means and key != ("sere", "shots"):
                difference = means["sere", "shots"] - per_draw
                error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else float("nan")
                lead = f"{difference.mean():+.1f} +- {error:.1f}"
            cells = [np.mean([table[key][(*task, draw)] for draw in draws]) for task in tasks]
            name = key[0] + (", all labels" if key[1] == "all" else "")
            row = " ".join(f"{cell:11.1f}" for cell in cells)
            lines.append(f"{name:<36}{per_draw.mean():6.1f}{per_draw.std():6.1f}{lead:>18}  {row}")
    return "\n".join(lines)


def _per_draw(cell: dict, tasks: list, draws: list[int]) -> np.ndarray:
    """(draws,) UAR averaged over the tasks."""
    return np.array([np.mean([cell[(*task, draw)] for task in tasks]) for draw in draws])


def main():
    arguments = parse()
    torch.manual_seed(0)
    start = time.monotonic()
    rows = run(arguments)
    print(summary(rows))
    if arguments.json:
        meta = {
            "corpora": [Path(folder).resolve().name for folder in arguments.corpora],
            "encoder": "none" if arguments.encoder == "none" else Path(arguments.encoder).name,
            "shots": arguments.shots, "draws": arguments.draws, "seconds": round(time.monotonic() - start, 1),
            "date": time.strftime("%Y-%m-%d"), "versions": versions(),
        }  # fmt: skip
        Path(arguments.json).write_text(json.dumps({"meta": meta, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
