"""Adapting a model to a target domain in closed form: statistics, field, and what of them stays in the model."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional as F

from modeling_sere.embedding_sere import moments, shrunk_moments
from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.resonance_sere import CHUNK, UNLABELLED, InstantaneousResonanceField, LinearMap
from modeling_sere.training.encoding.domain import Domain
from modeling_sere.training.organising.nuisance_groups import NuisanceGroups
from modeling_sere.training.organising.voice_groups import GROUPS, voice_group_map

SOURCE, TARGET = 0, 1  # domain numbers inside the field


@dataclass
class Grouping:
    """How the clips of a domain are normalised: `statistics` (G, 2, D) and the group (n,) of each clip."""

    statistics: torch.Tensor
    group: torch.Tensor


@dataclass
class Voices(Grouping):
    """Grouping by voice, with the linear rule (F, G), (G,) that tells the group of any clip from its functionals."""

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass
class Embedded:
    """A domain's embeddings (n, D), standardised cues (n, 5), and the deviation (5,) that standardised them.

    The sources of a checkpoint come without the deviation: nothing else will be standardised as they were.
    """

    embeddings: torch.Tensor
    cues: torch.Tensor
    cue_std: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeddings)


@dataclass
class Organised:
    """What one draw of shots gives, stage by stage.

    prototype, response: maps from embedding and cues to scores (C); cosine with each class's mean embedding, and ridge
    on the shots alone. sources: embeddings of the shots without nuisance. posteriors: of the organised field.
    """

    shots: torch.Tensor  # (n source,) class index or -100
    prototype: LinearMap
    response: LinearMap
    sources: torch.Tensor  # (m, D)
    posteriors: torch.Tensor  # (n source + n target, C), source first


def voices(model: SereForAudioClassification, features: torch.Tensor) -> Voices:
    """Voice groups of a domain (docs/method.md, "Voice groups"); one group twice where there are none to be found."""
    cue_map = model.sere.embedding.cue_map
    functionals = features[:, : len(cue_map)]
    everyone = moments(features).expand(model.config.num_voice_groups, -1, -1)
    rule = voice_group_map(functionals, cue_map) if model.config.num_voice_groups == GROUPS else None
    if rule is None:
        weight = functionals.new_zeros(len(cue_map), len(everyone))
        return Voices(everyone, torch.zeros(len(features), dtype=torch.long), weight, weight[0])
    group = (functionals @ rule[0] + rule[1]).argmax(1)
    return Voices(torch.stack([moments(features[group == g]) for g in range(GROUPS)]), group, *rule)


def grouped(model: SereForAudioClassification, domain: Domain) -> Grouping:
    """By speaker id where there are ids, else by voice group."""
    return voices(model, domain.features) if domain.speakers is None else speakers(domain)


def speakers(domain: Domain) -> Grouping:
    """Grouping by speaker id; a speaker's statistics are shrunk towards the domain's, the more the fewer clips."""
    everyone = moments(domain.features)
    groups = range(int(domain.speakers.max()) + 1)
    own = [shrunk_moments(domain.features[domain.speakers == g], everyone) for g in groups]
    return Grouping(torch.stack(own), domain.speakers)


@torch.no_grad()
def embed(model: SereForAudioClassification, features: torch.Tensor, grouping: Grouping) -> Embedded:
    """Normalise a domain's raw features (n, D) group by group (docs/method.md, "Embedding")."""
    embedding = model.sere.embedding
    embeddings = torch.empty_like(features)
    raw = features.new_empty(len(features), embedding.cue_map.shape[1])
    for g in range(len(grouping.statistics)):
        for rows in (grouping.group == g).nonzero().squeeze(1).split(CHUNK):
            standardised = embedding.standardised(features[rows], grouping.statistics[g])
            embeddings[rows], raw[rows] = embedding.embed(standardised), embedding.raw_cues(standardised)
    cue_std = moments(raw)[1]
    return Embedded(embeddings, embedding.cues(raw, cue_std), cue_std)


def joined(source: Embedded, target: Embedded) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and cues of both, source first. Each of them then holds a view, so that there is one copy in all."""
    embeddings = torch.cat([source.embeddings, target.embeddings])
    source.embeddings, target.embeddings = embeddings[: len(source)], embeddings[len(source) :]
    return embeddings, torch.cat([source.cues, target.cues])


class Adaptation:
    """The closed-form part: both domains embedded once, the field organised for any draw of shots.

    Args:
        model: gives embedding and constants; it gets the target's statistics here, and an organised field by `install`.
        source, target: domains with raw features; their labels are not read. A source that is embedded already (the
            sources of a checkpoint) stays as it is.
    """

    @torch.no_grad()
    def __init__(self, model: SereForAudioClassification, source: Domain | Embedded, target: Domain):
        self.model = model
        self.groupings = {TARGET: grouped(model, target)}
        self.target = embed(model, target.features, self.groupings[TARGET])
        # what the saved model knows of a clip whose speaker it has never met
        self.voices = self.groupings[TARGET] if target.speakers is None else voices(model, target.features)
        self.unknown = self.target if target.speakers is None else embed(model, target.features, self.voices)
        if isinstance(source, Embedded):
            self.source = self.unknown_source = source
        else:
            self.groupings[SOURCE] = grouped(model, source)
            self.source = self.unknown_source = embed(model, source.features, self.groupings[SOURCE])
            if target.speakers is not None and source.speakers is not None:
                self.unknown_source = embed(model, source.features, voices(model, source.features))
        self.field = InstantaneousResonanceField(model.config)
        self.embeddings, self.cues = joined(self.source, self.target)
        self.domains = torch.tensor([SOURCE] * len(source) + [TARGET] * len(target))
        self.filter = self.field.filter(self.embeddings)
        embedding = model.sere.embedding
        embedding.statistics.copy_(self.voices.statistics)
        embedding.voice_weight.copy_(self.voices.weight)
        embedding.voice_bias.copy_(self.voices.bias)
        embedding.cue_std.copy_(self.unknown.cue_std)

    @torch.no_grad()
    def organise(self, shots: torch.Tensor) -> Organised:
        """Run the field, and again without what the last posteriors show to be nuisance.

        shots (n source,): class index of the labelled clips, -100 elsewhere.
        """
        labels = self._labels(shots)
        embeddings = torch.empty_like(self.embeddings) if self.field.config.nuisance_rounds else self.embeddings
        posteriors = self.field(self.embeddings, self.cues, labels, self.domains, filter=self.filter).posteriors
        for _ in range(self.field.config.nuisance_rounds):
            self._remove_nuisance(posteriors, labels, embeddings)
            posteriors = self.field(embeddings, self.cues, labels, self.domains).posteriors
        classes = range(self.model.config.num_labels)
        means = torch.stack([self.source.embeddings[shots == k].mean(0) for k in classes])
        return Organised(
            shots=shots,
            prototype=LinearMap.of_embeddings(F.normalize(means, dim=1).T),
            response=self.field.response(self.embeddings, labels),
            sources=embeddings[: len(shots)][shots != UNLABELLED],
            posteriors=posteriors,
        )

    def _remove_nuisance(self, posteriors: torch.Tensor, labels: torch.Tensor, out: torch.Tensor) -> None:
        """Of all embeddings, into `out` (n source + n target, D); labelled clips have the emotion of their label."""
        told = posteriors.clone()
        labelled = labels != UNLABELLED
        told[labelled] = F.one_hot(labels[labelled], told.shape[1]).to(told)
        sizes = [len(groups.embeddings) for groups in self._nuisance]
        for groups, part, place in zip(self._nuisance, told.split(sizes), out.split(sizes), strict=True):
            groups.removed(part, place)

    @cached_property
    def _nuisance(self) -> tuple[NuisanceGroups, NuisanceGroups]:
        return NuisanceGroups(self.source.embeddings), NuisanceGroups(self.target.embeddings)

    @torch.no_grad()
    def single(self, organised: Organised) -> LinearMap:
        """The map that the saved model carries, for clips normalised by voice group (equation "read-out")."""
        embeddings, cues, filter = self._read_out
        labels = self._labels(organised.shots)
        maps = self.field.read_out(embeddings, cues, labels, self.domains, organised.posteriors, filter=filter)
        return maps[TARGET]

    @cached_property
    def _read_out(self):
        """Embeddings, cues and resonance filter of both domains as of unknown speakers."""
        if self.unknown is self.target:
            return self.embeddings, self.cues, self.filter
        embeddings, cues = joined(self.unknown_source, self.unknown)
        return embeddings, cues, self.field.filter(embeddings)

    def _labels(self, shots: torch.Tensor) -> torch.Tensor:
        return torch.cat([shots, shots.new_full((len(self.target.embeddings),), UNLABELLED)])

    @torch.no_grad()
    def install(self, organised: Organised, temperature: float = 1.0) -> None:
        """Leave in the model what a draw of shots gives it: the labelled sources and the organised map.

        temperature: divides the map, and with it the logits (`calibration.calibrate`).
        """
        model = self.model
        model.adopt(self.single(organised) * (1 / temperature))
        labelled = organised.shots != UNLABELLED
        model.source_embeddings.copy_(organised.sources)
        model.source_cues.copy_(self.source.cues[labelled])
        model.source_labels.copy_(organised.shots[labelled])

    def clip_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Statistics (G, 2, D) of all groups and the group (n,) of each clip, source first; the source has audio."""
        first, second = self.groupings[SOURCE], self.groupings[TARGET]
        group = torch.cat([first.group, second.group + len(first.statistics)])
        return torch.cat([first.statistics, second.statistics]), group
