"""One task of the benchmarks: SERE, its ablations and the baselines on the same features and draws of the shots.

Features, pools, adaptation and evaluation are the ones of train_sere.py.
"""

import copy
import hashlib
import itertools
import json
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from benchmarks import baselines
from benchmarks.baselines import BASELINES, PRIOR, SIMPLE, Clips, Task
from benchmarks.command import place_and_split
from modeling_sere.dynamics_sere import FRAME_NAMES
from modeling_sere.modeling_sere import SereModel
from modeling_sere.resonance_sere import UNLABELLED, InstantaneousResonanceField
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.corpora.episodes import shared_labels, split_speakers
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.encoding.features import (
    FeatureCache,
    FeatureExtraction,
    Features,
    collate,
    fingerprint,
    length_batches,
)
from modeling_sere.training.encoding.pool import Pool, kept_clips
from modeling_sere.training.errors import RunError
from modeling_sere.training.organising.adaptation import Adaptation
from modeling_sere.training.reporting.evaluation import Evaluation
from modeling_sere.training.running.models import build_model

# name -> what differs from SERE as it is: constants of the configuration, "highlights" False for features that are the
# plain mean over the frames, "shots" 0 for no labelled clip
ALONE = 1e6  # weight of the encoder's blocks at which the dynamics block is no more than rounding
ABLATIONS = {
    "sere-no-field": {"field_rounds": 0, "nuisance_rounds": 0},
    "sere-no-nuisance": {"nuisance_rounds": 0},
    "sere-one-pass": {"field_passes": 0},
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


class Encoded(NamedTuple):
    """A corpus and what is computed once per clip."""

    corpus: Corpus
    features: Features
    uniform: Features | None = None  # pooled with equal weights in place of the highlights
    egemaps: np.ndarray | None = None  # (n, 88), rows as in `features`


def encode(arguments, methods=()) -> list[Encoded]:
    """Return every corpus with the features of all its clips, from the cache where they are there."""
    base = SereArguments(encoder=arguments.encoder)
    accelerator = Accelerator()
    model = build_model(base, ["one", "two"], speaker_ids=True).sere.to(accelerator.device)
    corpora = [read(place, arguments.streaming) for place in arguments.corpora]
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


def read(text: str, streaming: bool) -> Corpus:
    """Read the corpus that `--corpora` names, under the name that tables give it."""
    place, split, name = place_and_split(text)
    corpus = load_corpus(place, split=split, streaming=streaming)
    corpus.name = name if split else corpus.name
    return corpus


@torch.no_grad()
def without_highlights(model: SereModel):
    """Refine the highlights to equal weights: their learned part cancels the loudness."""
    model.highlight_weight.zero_()
    model.highlight_weight[FRAME_NAMES.index("log_energy")] = -1


def measure(corpus: Corpus, features: Features, cache_dir) -> np.ndarray:
    """Measure eGeMAPS functionals (n, 88) of the clips that have features, once, and keep them in the cache."""
    cache = FeatureCache(Path(cache_dir) / f"egemaps-{baselines.egemaps_version()}")
    found = {}
    bar = tqdm(total=len(features.indices), desc=f"eGeMAPS of {corpus.name}", unit="clip")
    for clip in corpus.iter_audio(features.indices, known=cache.places):
        bar.update()
        if clip.waveform is not None:
            try:
                found[clip.key] = baselines.egemaps_functionals(clip.waveform)
            except ValueError as error:
                raise RunError(f"{corpus.clips[clip.index].name}: {error}") from error
        if len(found) == 256:
            cache.add(found)
            found = {}
    bar.close()
    cache.add(found)
    return cache.read(features.keys)[0]


def with_constants(adaptation: Adaptation, constants: dict) -> Adaptation:
    """Return the adaptation with other constants of the field, which embeddings and resonance filter do not depend
    on.
    """
    if not constants:
        return adaptation
    config = copy.deepcopy(adaptation.model.config)
    for name, value in constants.items():
        setattr(config, name, value)
    changed = copy.copy(adaptation)
    changed.field = InstantaneousResonanceField(config)
    return changed


def score(predictions: np.ndarray, references: np.ndarray) -> dict:
    """Return UAR, WAR and macro-F1 as in `metrics.score`, which takes 30 ms: more than many a method here."""
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

    def of_answers(self, answers) -> dict:
        return score(answers.numpy(), self.references)


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
        """Score with some constants of the configuration changed, on some rows of the target."""
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
        """Return source and target with the features that an ablation asks for."""
        return (self.source, self.target) if options.get("highlights", True) else self.uniform

    def rows(self, draw: int):
        """Yield rows of the results of one draw: one dict per method."""
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
        """Tell whether a method has a score in this setting."""
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
        """Return `scores`, made once for all draws where no draw plays a part."""
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
        """Return UAR, WAR and macro-F1 of one method, adapted to some rows of the target, on others."""
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
        """Return a baseline on SERE's own embeddings, with the prior and the balance where its name says so."""
        evaluation = QuickEvaluation(self.adaptation({}, adapting), self.target, scored, self.setting)
        told = self.target.references[scored] != UNLABELLED
        if self.setting == "inductive":  # one clip alone cannot be balanced
            method, told = method.removesuffix("+balance"), slice(None)
        values = baselines.run(method, self._task(evaluation, shots, adapting, draw))
        return score(values[told].argmax(1).numpy(), evaluation.references)

    def _task(self, evaluation: QuickEvaluation, shots, adapting, draw) -> Task:
        """Return what the baselines see; the last one is kept, for they come one after the other."""
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
        """Return functionals (n, 88), (m, 88), standardised by speaker where there are ids, if a method needs them."""
        if self.encoded[0].egemaps is None:
            return None
        values = [torch.from_numpy(e.egemaps[rows]) for e, rows in zip(self.encoded, self.kept, strict=True)]
        target = self.target.domain.subset(list(adapting))
        return (
            baselines.standardised(values[0], self.source.domain.speakers),
            baselines.standardised(values[1][list(adapting)], target.speakers),
        )

    def fine_tuned(self, shots, adapting: tuple[int, ...], draw: int) -> torch.Tensor | None:
        """Return logits (m, C) of the encoder fine-tuned on the shots, if a method needs them; kept in the cache."""
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
        return torch.from_numpy(cache.read(keys)[0])

    def enrolled(self, count: int, adaptation: Adaptation, shots, scored, draw) -> dict:
        """Return each clip normalised by statistics from `count` earlier clips of its speaker, those clips left out."""
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
    """Return rows of a corpus's features whose clips take part."""
    kept = set(kept_clips(encoded.corpus, labels))
    return [row for row, index in enumerate(encoded.features.indices) if index in kept]


def chosen(features: Features, rows: list[int]) -> Features:
    """Return these rows."""
    return Features(
        features.values[rows], [features.indices[row] for row in rows], [features.keys[row] for row in rows], [],
        features.strongest[rows],
    )  # fmt: skip


def audio(corpus: Corpus, indices: list[int]) -> list[np.ndarray]:
    """Return waveforms of some clips, ascending indices."""
    return [clip.waveform for clip in corpus.iter_audio(indices)]


def _key(options: dict) -> str:
    return json.dumps(options, sort_keys=True)


def pairs(corpora: list[Encoded]) -> list[tuple[Encoded, Encoded]]:
    """Return all directed pairs."""
    return list(itertools.permutations(corpora, 2))
