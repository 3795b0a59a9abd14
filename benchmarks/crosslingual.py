"""Cross-lingual accuracy: SERE, its ablations, the baselines and the ceiling, paired over the same shot draws.

    python benchmarks/crosslingual.py --corpora DIR DIR [DIR ...] --encoder DIR|id|none --json results.json

Every directed pair of corpora is one task. Features, pools, adaptation and evaluation are the ones of train_sere.py.

--methods takes names and groups, separated by commas: "baselines", "ablations", and "all" for both with SERE itself.
"fine-tuned-encoder" (trained on the shots, without SERE) is in no group, for it takes minutes per task: name it. It is
run on the first of --draws only, and its scores are kept in the cache. What --shots 0, --encoder none or a package that
is not installed makes impossible is left out of a group, which is said, and refused by name.
"""

import argparse
import copy
import hashlib
import importlib.util
import itertools
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for a run from any folder

from benchmarks import baselines
from benchmarks.baselines import BASELINES, PRIOR, SIMPLE, Clips, Task
from modeling_sere.dynamics_sere import FRAME_NAMES
from modeling_sere.modeling_sere import SereModel
from modeling_sere.resonance_sere import UNLABELLED, InstantaneousResonanceField
from modeling_sere.training.adaptation import Adaptation
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.data import Corpus, DataError, load_corpus
from modeling_sere.training.episodes import shared_labels, split_speakers
from modeling_sere.training.evaluation import Evaluation
from modeling_sere.training.features import (
    DEFAULT_CACHE,
    FeatureCache,
    FeatureExtraction,
    Features,
    collate,
    fingerprint,
    length_batches,
)
from modeling_sere.training.models import build_model
from modeling_sere.training.outputs import versions
from modeling_sere.training.pool import Pool, kept_clips

# name -> what differs from SERE as it is: constants of the configuration, "highlights" False for features that are the
# plain mean over the frames, "shots" 0 for no labelled clip
ALONE = 1e6  # weight of the encoder's blocks at which the dynamics block is no more than rounding
ABLATIONS = {
    "sere-no-field": {"field_rounds": 0},
    "sere-one-round": {"field_rounds": 1},
    "sere-no-prior": {"prior_profile": {}},
    "sere-no-balance": {"field_balance": 0.0},
    "sere-full-balance": {"field_balance": 1.0},
    "sere-no-voices": {"num_voice_groups": 1},
    "sere-no-highlights": {"highlights": False},
    "sere-no-encoder": {"encoder_weight": 0.0},  # the dynamics stream and the prior
    "sere-dynamics-alone": {"encoder_weight": 0.0, "prior_profile": {}},
    "sere-semantic-only": {"encoder_weight": ALONE},  # the encoder and the prior
    "sere-semantic-alone": {"encoder_weight": ALONE, "prior_profile": {}},
    "sere-zero-shot": {"shots": 0},
}
EMBEDDING = ("highlights", "encoder_weight", "num_voice_groups")  # these change embeddings, all others the field alone
ENROLMENTS = (1, 5, 20)
ENROLLED = [f"sere-enrol-{n}" for n in ENROLMENTS]
CEILINGS = ("sere", "ridge")  # also run with every source label
FINE_TUNED = "fine-tuned-encoder"
GROUPS = {
    "baselines": [name for name in BASELINES if not name.startswith(FINE_TUNED)],
    "ablations": list(ABLATIONS),
}
GROUPS["all"] = ["sere", *ABLATIONS, *ENROLLED, *GROUPS["baselines"]]
KNOWN = ["sere", *ABLATIONS, *ENROLLED, *BASELINES]


def add_common(parser: argparse.ArgumentParser, draws: str):
    """The flags that all benchmarks on pairs of corpora share. draws: default of --draws."""
    parser.add_argument("--corpora", nargs="+", required=True, action=_Pairs, help="folders with metadata.csv")
    parser.add_argument("--encoder", default="none", help="encoder folder, Hub id, or none")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--draws", type=_seeds, default=draws, help="first-last seed of the shot draws")
    parser.add_argument("--cache_dir", default=str(DEFAULT_CACHE))
    parser.add_argument("--json", help="write all rows to this file")


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


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common(parser, draws="0-9")
    parser.add_argument("--methods", default="all", help="names and groups separated by commas")
    parser.add_argument("--speaker_ids", choices=["both", "with", "without"], default="both")
    parser.add_argument("--setting", choices=["transductive", "inductive", "both"], default="transductive")
    arguments = parser.parse_args()
    names, left_out = [], {}
    for asked in arguments.methods.split(","):
        for name in GROUPS.get(asked, [asked]):
            if name not in KNOWN:
                known = ", ".join([*GROUPS, *KNOWN])
                parser.error(f"--methods: {name} is unknown; known are {known}")
            reason = impossible(name, arguments)
            if reason is None:
                names.append(name)
            elif asked in GROUPS:
                left_out.setdefault(reason, []).append(name)
            else:
                parser.error(f"--methods: {name} {reason}")
    for reason, some in left_out.items():
        print(f"Left out: {', '.join(dict.fromkeys(some))}: each {reason}", file=sys.stderr)
    arguments.methods = list(dict.fromkeys(names))
    return arguments


def impossible(method: str, arguments) -> str | None:
    """Why a method cannot be run with these arguments, or None."""
    name = method.partition("+")[0]
    options = ABLATIONS.get(name, {})
    if name == "egemaps-svm" and importlib.util.find_spec("opensmile") is None:
        return 'needs openSMILE: pip install -e ".[benchmark]"'
    if arguments.encoder == "none" and (name == FINE_TUNED or "encoder_weight" in options):
        return "needs an encoder (--encoder)"
    if arguments.shots == 0:
        if (method in BASELINES and name != PRIOR) or "prior_profile" in options:
            return "needs labelled clips (--shots)"
        if name == "sere-zero-shot":
            return "is SERE itself with --shots 0"
    return None


class Encoded(NamedTuple):
    """A corpus and what is computed once per clip."""

    corpus: Corpus
    features: Features
    uniform: Features | None = None  # pooled with equal weights in place of the highlights
    egemaps: np.ndarray | None = None  # (n, 88), rows as in `features`


def encode(arguments, methods=()) -> list[Encoded]:
    """Every corpus with the features of all its clips, from the cache where they are there."""
    base = SereArguments(encoder=arguments.encoder)
    accelerator = Accelerator()
    model = build_model(base, ["one", "two"], speaker_ids=True).sere.to(accelerator.device)
    corpora = [load_corpus(folder) for folder in arguments.corpora]
    uniform = egemaps = [None] * len(corpora)

    def features() -> list[Features]:
        extract = FeatureExtraction(model, accelerator, Path(arguments.cache_dir))
        return [extract(corpus) for corpus in corpora]

    pooled = features()
    if "sere-no-highlights" in methods:
        without_highlights(model)
        uniform = features()
    if any(name.startswith("egemaps") for name in methods):
        egemaps = [measure(*row, arguments.cache_dir) for row in zip(corpora, pooled, strict=True)]
    return [Encoded(*row) for row in zip(corpora, pooled, uniform, egemaps, strict=True)]


@torch.no_grad()
def without_highlights(model: SereModel):
    """Refine the highlights to equal weights: their learned part cancels the loudness."""
    model.highlight_weight.zero_()
    model.highlight_weight[FRAME_NAMES.index("log_energy")] = -1


def measure(corpus: Corpus, features: Features, cache_dir) -> np.ndarray:
    """eGeMAPS functionals (n, 88) of the clips that have features; each is measured once and kept in the cache."""
    cache = FeatureCache(Path(cache_dir) / f"egemaps-{baselines.egemaps_version()}")
    found = {}
    bar = tqdm(total=len(features.indices), desc=f"eGeMAPS of {corpus.name}", unit="clip")
    for clip in corpus.iter_audio(features.indices, known=cache.places):
        bar.update()
        if clip.waveform is not None:
            try:
                found[clip.key] = baselines.egemaps_functionals(clip.waveform)
            except ValueError as error:
                raise DataError(f"{corpus.clips[clip.index].name}: {error}") from error
        if len(found) == 256:
            cache.add(found)
            found = {}
    bar.close()
    cache.add(found)
    return np.stack([cache[key] for key in features.keys])


def with_constants(adaptation: Adaptation, constants: dict) -> Adaptation:
    """The same adaptation with other constants of the field, which embeddings and resonance filter do not depend on."""
    if not constants:
        return adaptation
    config = copy.deepcopy(adaptation.model.config)
    for name, value in constants.items():
        setattr(config, name, value)
    changed = copy.copy(adaptation)
    changed.field = InstantaneousResonanceField(config)
    return changed


def score(predictions: np.ndarray, references: np.ndarray) -> dict:
    """UAR, WAR and macro-F1 as in `metrics.score`, which takes 30 ms: more than many a method here."""
    size = 1 + max(predictions.max(), references.max())
    confusion = np.bincount(size * references + predictions, minlength=size**2).reshape(size, size)
    there = confusion.sum(1) > 0
    hits, true, told = confusion.diagonal()[there], confusion.sum(1)[there], confusion.sum(0)[there]
    return {
        "uar": float((hits / true).mean()),
        "war": float(hits.sum() / len(references)),
        "macro_f1": float((2 * hits / (true + told)).mean()),
    }


class QuickEvaluation(Evaluation):
    """`Evaluation` with the three scores of this benchmark."""

    def of_map(self, linear) -> dict:
        return score(linear(*self.inputs).argmax(1).numpy(), self.references)


class Experiment:
    """One task with or without speaker ids in one setting: adaptations are made once and shared by all draws.

    Args:
        labels: the emotions that have shots, by default all that both corpora have. Target clips of the others stay
            in the pool without being scored.
    """

    def __init__(self, arguments, source: Encoded, target: Encoded, speaker_ids: bool, setting: str, labels=None):
        self.arguments, self.speaker_ids, self.setting = arguments, speaker_ids, setting
        shared = shared_labels(source.corpus.labels, target.corpus.labels)
        self.labels = shared if labels is None else labels
        self.encoded = source, target
        self.kept = kept_rows(source, self.labels), kept_rows(target, shared)
        self.source, self.target = self._pools("features")
        self.names = source.corpus.name, target.corpus.name
        self.base = SereArguments(encoder=arguments.encoder, shots=max(1, arguments.shots))
        self._forget(None)

    def _forget(self, adapting: tuple[int, ...] | None):
        self.adapting, self.adaptations, self.clips, self.settled = adapting, {}, None, {}
        self.task, self.task_of = None, None

    @cached_property
    def uniform(self) -> tuple[Pool, Pool]:
        """Source and target with the features of equal weights."""
        return self._pools("uniform")

    def _pools(self, pooling: str) -> tuple[Pool, Pool]:
        return tuple(
            Pool(encoded.corpus, chosen(getattr(encoded, pooling), rows), self.labels, self.speaker_ids)
            for encoded, rows in zip(self.encoded, self.kept, strict=True)
        )

    def adaptation(self, options: dict, adapting: tuple[int, ...]) -> Adaptation:
        """With some constants of the configuration changed, on some rows of the target."""
        if adapting != self.adapting:  # another draw's speakers: the adaptations to these will not come back
            self._forget(adapting)
        embedding = {name: value for name, value in options.items() if name in EMBEDDING}
        key, constants = _key(embedding), {name: options[name] for name in options if name not in EMBEDDING}
        if key not in self.adaptations:
            self.adaptations[key] = self._adapt(embedding, list(adapting))
        if _key(options) not in self.adaptations:
            self.adaptations[_key(options)] = with_constants(self.adaptations[key], constants)
        return self.adaptations[_key(options)]

    def _adapt(self, options: dict, adapting: list[int]) -> Adaptation:
        source, target = self.pools_of(options)
        fields = {name: value for name, value in options.items() if name != "highlights"}
        model = build_model(self.base, self.labels, self.speaker_ids, weights=False, **fields)
        return Adaptation(model, source.domain, target.domain.subset(adapting))

    def pools_of(self, options: dict) -> tuple[Pool, Pool]:
        """Source and target with the features that an ablation asks for."""
        return (self.source, self.target) if options.get("highlights", True) else self.uniform

    def rows(self, draw: int):
        """Rows of the results of one draw: one dict per method."""
        everyone = list(range(len(self.target)))
        adapting, scored = everyone, everyone
        if self.setting == "inductive":
            adapting, scored = split_speakers([clip.speaker for clip in self.target.clips], draw)
        for labels, marked in (("shots", self.shots(self.arguments.shots, draw)), ("all", self.source.references)):
            for method in self.arguments.methods:
                if labels == "all" and method not in CEILINGS or not self.exists(method, draw):
                    continue
                scores = self._settled(method, labels, marked, tuple(adapting), scored, draw)
                yield {
                    "source": self.names[0], "target": self.names[1], "draw": draw, "shots": self.arguments.shots,
                    "method": method, "setting": self.setting, "speaker_ids": self.speaker_ids, "labels": labels,
                    "uar": scores["uar"], "war": scores["war"], "macro_f1": scores["macro_f1"],
                }  # fmt: skip

    def exists(self, method: str, draw: int) -> bool:
        """Whether a method has a score in this setting."""
        name = method.partition("+")[0]
        if method in ENROLLED:
            return self.setting == "inductive"
        if method == "sere-no-voices" and self.speaker_ids and self.setting == "transductive":
            return False  # nothing to switch off
        if name == FINE_TUNED and draw != self.arguments.draws[0]:
            return False
        # the other baselines answer for a whole pool, not for one clip
        return self.setting == "transductive" or method not in BASELINES or name in SIMPLE

    def _settled(self, method, labels, shots, adapting, scored, draw) -> dict:
        """`scores`, made once for all draws where no draw plays a part."""
        unlabelled = ABLATIONS.get(method, {}).get("shots") == 0 or method == PRIOR or self.arguments.shots == 0
        drawn = labels == "shots" and not unlabelled or method in ENROLLED
        if drawn or (method, labels, adapting) not in self.settled:
            scores = self.scores(method, shots, adapting, scored, draw)
            self.settled[method, labels, adapting] = scores
        return self.settled[method, labels, adapting]

    def shots(self, count: int, draw: int) -> torch.Tensor:
        if count == 0:
            return torch.full((len(self.source),), UNLABELLED)
        return self.source.shots(count, draw)

    def scores(self, method: str, shots, adapting: tuple[int, ...], scored: list[int], draw: int) -> dict:
        """UAR, WAR and macro-F1 of one method, adapted to some rows of the target, on others."""
        if method in BASELINES:
            return self.baseline(method, shots, adapting, scored, draw)
        if method in ENROLLED:
            return self.enrolled(int(method.rsplit("-", 1)[1]), self.adaptation({}, adapting), shots, scored, draw)
        options = dict(ABLATIONS.get(method, {}))
        if options.pop("shots", None) == 0:
            shots = torch.full_like(shots, UNLABELLED)
        adaptation = self.adaptation(options, adapting)
        evaluation = QuickEvaluation(adaptation, self.pools_of(options)[1], scored, self.setting)
        return evaluation.scores(adaptation.organise(shots))

    def baseline(self, method: str, shots, adapting, scored, draw) -> dict:
        """A baseline on SERE's own embeddings, with the prior and the balance where its name says so."""
        evaluation = QuickEvaluation(self.adaptation({}, adapting), self.target, scored, self.setting)
        told = self.target.references[scored] != UNLABELLED
        if self.setting == "inductive":  # one clip alone cannot be balanced
            method, told = method.removesuffix("+balance"), slice(None)
        values = baselines.run(method, self._task(evaluation, shots, adapting, draw))
        return score(values[told].argmax(1).numpy(), evaluation.references)

    def _task(self, evaluation: QuickEvaluation, shots, adapting, draw) -> Task:
        """What the baselines see; the last one is kept, for they come one after the other."""
        if self.task is not None and self.task_of == (adapting, draw) and torch.equal(self.task.shots, shots):
            return self.task
        adaptation = evaluation.adaptation
        target = adaptation.target
        embeddings, cues = (target.embeddings, target.cues) if self.setting == "transductive" else evaluation.inputs
        if self.clips is None or self.setting == "inductive":
            self.clips = Clips(adaptation.source.embeddings, embeddings)

        def prior(embeddings, cues):
            return baselines.normalised(adaptation.field.prior(embeddings)(embeddings, cues))

        self.task_of = adapting, draw
        self.task = Task(
            clips=self.clips, shots=shots, source_prior=prior(adaptation.source.embeddings, adaptation.source.cues),
            target_prior=prior(embeddings, cues), num_labels=len(self.labels), seed=draw,
            prior_weight=adaptation.model.config.prior_weight, egemaps=self.egemaps(adapting),
            fine_tuned=self.fine_tuned(shots, adapting, draw),
        )  # fmt: skip
        return self.task

    def egemaps(self, adapting: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Functionals (n, 88) and (m, 88), standardised by speaker where there are ids, if a method needs them."""
        if self.encoded[0].egemaps is None:
            return None
        values = [torch.from_numpy(e.egemaps[rows]) for e, rows in zip(self.encoded, self.kept, strict=True)]
        target = self.target.domain.subset(list(adapting))
        return (
            baselines.standardised(values[0], self.source.domain.speakers),
            baselines.standardised(values[1][list(adapting)], target.speakers),
        )

    def fine_tuned(self, shots, adapting: tuple[int, ...], draw: int) -> torch.Tensor | None:
        """Logits (m, C) of the encoder fine-tuned on the shots, if a method needs them; kept in the cache."""
        named = any(name.startswith(FINE_TUNED) for name in getattr(self.arguments, "methods", ()))
        labelled = (shots != UNLABELLED).nonzero().squeeze(1).tolist()
        if not named or draw != self.arguments.draws[0] or len(labelled) == len(self.source):
            return None
        depth = self.adaptation({}, adapting).model.config.encoder_config.num_hidden_layers
        model = build_model(self.base, self.labels, self.speaker_ids, encoder_layers=[depth]).sere
        source, target = self.encoded
        keys = [self.target.features.keys[row] for row in adapting]
        parts = fingerprint(model), Path(baselines.__file__).read_text(), self.labels, shots[labelled].tolist(), draw
        parts += ([self.source.features.keys[row] for row in labelled],)
        cache = FeatureCache(
            Path(self.arguments.cache_dir) / f"fine-tuned-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"
        )
        if not all(key in cache.places for key in keys):
            waveforms = audio(source.corpus, [self.source.features.indices[row] for row in labelled])
            classifier = baselines.fine_tune(model.encoder, waveforms, shots[labelled], len(self.labels), draw)
            waveforms = audio(target.corpus, [self.target.features.indices[row] for row in adapting])
            logits = np.empty((len(keys), len(self.labels)), np.float32)
            for batch in length_batches([len(waveform) for waveform in waveforms]):
                with torch.inference_mode():
                    logits[batch] = classifier(*collate([waveforms[row] for row in batch], "cpu")).numpy()
            cache.add(dict(zip(keys, logits, strict=True)))
        return torch.from_numpy(np.stack([cache[key] for key in keys]))

    def enrolled(self, count: int, adaptation: Adaptation, shots, scored, draw) -> dict:
        """Each clip normalised by statistics from `count` earlier clips of its speaker, those clips left out."""
        single = adaptation.single(adaptation.organise(shots))
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
                predictions.append(single(*inputs).argmax(1))
                references.append(self.target.references[torch.from_numpy(rest)])
        return score(torch.cat(predictions).numpy(), torch.cat(references).numpy())


def kept_rows(encoded: Encoded, labels: list[str]) -> list[int]:
    """Rows of a corpus's features whose clips take part."""
    kept = set(kept_clips(encoded.corpus, labels))
    return [row for row, index in enumerate(encoded.features.indices) if index in kept]


def chosen(features: Features, rows: list[int]) -> Features:
    """These rows."""
    return Features(
        features.values[rows], [features.indices[row] for row in rows], [features.keys[row] for row in rows], []
    )


def audio(corpus: Corpus, indices: list[int]) -> list[np.ndarray]:
    """Waveforms of some clips, ascending indices."""
    return [clip.waveform for clip in corpus.iter_audio(indices)]


def _key(options: dict) -> str:
    return json.dumps(options, sort_keys=True)


def run(arguments) -> list[dict]:
    """All rows."""
    corpora = encode(arguments, arguments.methods)
    ids = {"both": [True, False], "with": [True], "without": [False]}[arguments.speaker_ids]
    settings = ["transductive", "inductive"] if arguments.setting == "both" else [arguments.setting]
    # pairs innermost: what one task leaves in the cache for another is there long before that is its turn
    tasks = [(arguments, *pair, *rest) for *rest, pair in itertools.product(ids, settings, pairs(corpora))]
    # one thread each: the matrices are small, and as many processes as cores are quicker than as many threads
    with ProcessPoolExecutor(
        os.cpu_count(), mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as executor:
        done = tqdm(executor.map(run_task, tasks), total=len(tasks), desc="Tasks", unit="task")
        return [row for rows in done for row in rows]


def pairs(corpora: list[Encoded]) -> list[tuple[Encoded, Encoded]]:
    """All directed pairs."""
    return list(itertools.permutations(corpora, 2))


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
        count = len({row["draw"] for row in some})
        table = {}  # (method, labels) -> draw -> task -> UAR in %
        for row in some:
            cell = table.setdefault((row["method"], row["labels"]), {}).setdefault(row["draw"], {})
            cell[row["source"], row["target"]] = 100 * row["uar"]
        ids = "with" if speaker_ids else "without"
        lines += ["", f"{setting}, {ids} speaker ids: UAR %, {len(tasks)} tasks, {count} draws"]
        heads = " ".join(f"{source[:5] + '-' + target[:5]:>11}" for source, target in tasks)
        lines.append(f"{'method':<44}{'mean':>6}{'s.d.':>6}{'SERE leads by':>18}  {heads}")
        means = {key: {draw: np.mean([cell[task] for task in tasks]) for draw, cell in draws.items()}
                 for key, draws in table.items()}  # fmt: skip
        for key, per_draw in sorted(means.items(), key=lambda item: -np.mean(list(item[1].values()))):
            values = np.array(list(per_draw.values()))
            lead = ""
            if ("sere", "shots") in means and key != ("sere", "shots"):
                lead = _difference(np.array([means["sere", "shots"][draw] - per_draw[draw] for draw in per_draw]))
            cells = [np.mean([cell[task] for cell in table[key].values()]) for task in tasks]
            name = key[0] + (", all labels" if key[1] == "all" else "")
            if len(values) < count:
                name += f" ({len(values)} draw{'s' * (len(values) > 1)})"
            row = " ".join(f"{cell:11.1f}" for cell in cells)
            lines.append(f"{name:<44}{values.mean():6.1f}{values.std():6.1f}{lead:>18}  {row}")
    return "\n".join(lines)


def _difference(values: np.ndarray) -> str:
    """Mean and standard error, which one value does not have."""
    error = f" +- {values.std(ddof=1) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{values.mean():+.1f}{error}"


def meta(arguments) -> dict:
    """What the rows of a JSON file were measured on."""
    return {
        "corpora": [Path(folder).resolve().name for folder in arguments.corpora],
        "encoder": "none" if arguments.encoder == "none" else Path(arguments.encoder).name,
        "shots": arguments.shots, "draws": arguments.draws,
        "date": time.strftime("%Y-%m-%d"), "versions": versions(),
    }  # fmt: skip


def main():
    arguments = parse()
    torch.manual_seed(0)
    start = time.monotonic()
    try:
        rows = run(arguments)
    except DataError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    print(summary(rows))
    if arguments.json:
        content = {"meta": meta(arguments) | {"seconds": round(time.monotonic() - start, 1)}, "rows": rows}
        Path(arguments.json).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
