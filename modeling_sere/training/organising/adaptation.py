"""Adapting a model to a target domain in closed form: statistics, field, and what of them stays in the model."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional as F

from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.resonance_sere import UNLABELLED, InstantaneousResonanceField, LinearMap
from modeling_sere.training.encoding.domain import Domain
from modeling_sere.training.organising.grouping import Grouping, speakers, tie, voices
from modeling_sere.training.organising.passes import GONE, TARGET, Passes
from modeling_sere.training.organising.view import Embedded, View, embed, joined


@dataclass
class Organised:
    """Results of one draw of shots, stage by stage.

    prototype, response: maps from embedding and cues to scores (C); cosine with each class's mean embedding, and ridge
    on the shots alone. sources: the labelled clips, of any domain, without nuisance. posteriors: of the organised
    field. class_prior: shares that the balance expects. tied: how far the emotions of the target's speakers differ
    (equation "tie"), None without speaker ids.
    """

    shots: torch.Tensor  # (n source,) class index or -100; all sources one after the other
    prototype: LinearMap
    response: LinearMap
    sources: Embedded
    source_labels: torch.Tensor  # (m,) class index of `sources`
    posteriors: torch.Tensor  # (n source + n target, C), source first
    class_prior: torch.Tensor  # (domains, C)
    tied: float | None

    @property
    def absent(self) -> list[int]:
        """Classes that no clip of the target seems to have."""
        return (self.class_prior[TARGET] <= GONE).nonzero().squeeze(1).tolist()


def grouped(model: SereForAudioClassification, domain: Domain) -> Grouping:
    """Group clips by speaker id where there are ids, else by voice group."""
    return voices(model, domain.features) if domain.speakers is None else speakers(domain)


class Adaptation:
    """The closed-form part: both domains embedded, and the field organised in passes for any draw of shots.

    Args:
        model: gives embedding and constants; it gets the target's statistics here, and an organised field by `install`.
        source, target: domains with raw features; their labels are not read. Several sources each have statistics and
            a balance of their own. A source that is embedded already (the sources of a checkpoint) stays as it is.
        target_shots: (n target,) class index of target clips whose label may help, -100 elsewhere.

    Attributes:
        source, target: embeddings and cues of the clips, by speaker where there are ids; all sources in one.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: SereForAudioClassification,
        source: Domain | Embedded | list[Domain],
        target: Domain,
        target_shots: torch.Tensor | None = None,
    ):
        sources = source if isinstance(source, list) else [source]
        self.model, self.parts = model, [*sources, target]
        self.speakers = [getattr(part, "speakers", None) for part in self.parts]
        self.by_speaker = target.speakers is not None
        self.target_shots = torch.full((len(target),), UNLABELLED) if target_shots is None else target_shots
        self.groupings = [None if isinstance(part, Embedded) else grouped(model, part) for part in self.parts]
        self.embedded = [
            part if grouping is None else embed(model, part.features, grouping)
            for part, grouping in zip(self.parts, self.groupings, strict=True)
        ]
        # what the saved model knows of a clip whose speaker it has never met
        self.voices = voices(model, target.features) if self.by_speaker else self.groupings[TARGET]
        self.unnamed = list(self.embedded)
        if self.by_speaker:
            self.unnamed[TARGET] = embed(model, target.features, self.voices)
            for d, part in enumerate(sources):
                if self.speakers[d] is not None:
                    self.unnamed[d] = embed(model, part.features, voices(model, part.features))
        self.source, self.target, self.unknown = joined(self.embedded[:-1]), self.embedded[TARGET], self.unnamed[TARGET]
        self.field = InstantaneousResonanceField(model.config)
        self.sizes = [len(part) for part in self.parts]
        self.domains = torch.arange(len(self.parts)).repeat_interleave(torch.tensor(self.sizes))
        embedding = model.sere.embedding
        embedding.statistics.copy_(self.voices.statistics)
        embedding.voice_weight.copy_(self.voices.weight)
        embedding.voice_bias.copy_(self.voices.bias)
        embedding.cue_std.copy_(self.unknown.cue_std)

    @cached_property
    def of_voices(self) -> View:
        """Clips normalised by voice group, as far as their domain has speaker ids."""
        return View(self.unnamed)

    @cached_property
    def of_speakers(self) -> View:
        """Clips normalised by speaker, whatever the emotions of the speaker."""
        return View(self.embedded)

    @torch.no_grad()
    def organise(self, shots: torch.Tensor) -> Organised:
        """Run the field in passes, each normalising anew by what the one before has found (docs/method.md, "Passes").

        shots (n source,): class index of the labelled clips, -100 elsewhere.
        """
        passes = Passes(self, shots).run()
        view, posteriors = passes.view, passes.posteriors
        embeddings, labels = torch.cat([part.embeddings for part in self.embedded]), self.labels(shots)
        labelled = labels != UNLABELLED
        without_nuisance, _ = view.without_nuisance(passes.told, of_cues=False)
        return Organised(
            shots=shots,
            prototype=self._prototype(embeddings[labelled], labels[labelled]),
            response=self.field.response(embeddings, labels),
            sources=Embedded(view.lifted(without_nuisance[labelled]), view.cues[labelled].float()),
            source_labels=labels[labelled],
            posteriors=posteriors.float(),
            class_prior=passes.class_prior.float(),
            tied=tie(posteriors[len(shots) :], self.speakers[TARGET]) if self.by_speaker else None,
        )

    def _prototype(self, embeddings: torch.Tensor, labels: torch.Tensor) -> LinearMap:
        """Score by the cosine with the mean embedding of each class; 0 for a class without a shot. Labelled clips (m,
        D), (m,).
        """
        onehot = F.one_hot(labels, self.model.config.num_labels).to(embeddings)
        return LinearMap.of_embeddings(F.normalize(onehot.T @ embeddings, dim=1).T)

    @torch.no_grad()
    def single(self, organised: Organised) -> LinearMap:
        """Return the map that the saved model carries, for clips normalised by voice group (equation "read-out")."""
        embeddings, cues, filter = self._read_out
        labels = self.labels(organised.shots)
        maps = self.field.read_out(
            embeddings, cues, labels, self.domains, organised.posteriors, organised.class_prior, filter
        )
        return maps[len(self.parts) - 1]

    @cached_property
    def _read_out(self):
        """Embeddings, cues and resonance filter of both domains as of unknown speakers."""
        embeddings = torch.cat([part.embeddings for part in self.unnamed])
        return embeddings, self.of_voices.cues.float(), self.field.filter(embeddings)

    def labels(self, shots: torch.Tensor) -> torch.Tensor:
        """Return (n,) class index of every labelled clip, source first, -100 elsewhere. shots (n source,)."""
        return torch.cat([shots, self.target_shots])

    @torch.no_grad()
    def install(self, organised: Organised, temperature: float = 1.0) -> None:
        """Leave in the model what a draw of shots gives it: the labelled sources and the organised map.

        temperature: divides the map, and with it the logits (`calibration.calibrate`).
        """
        model = self.model
        model.adopt(self.single(organised) * (1 / temperature))
        model.source_embeddings = organised.sources.embeddings.clone()
        model.source_cues, model.source_labels = organised.sources.cues.clone(), organised.source_labels.clone()
        model.config.num_sources = len(organised.source_labels)

    def clip_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return statistics (G, 2, D) of all groups and the group (n,) of each clip, source first; all domains have
        audio.
        """
        counts = [len(grouping.statistics) for grouping in self.groupings]
        starts = [sum(counts[:d]) for d in range(len(counts))]
        group = torch.cat([grouping.group + start for grouping, start in zip(self.groupings, starts, strict=True)])
        return torch.cat([grouping.statistics for grouping in self.groupings]), group
