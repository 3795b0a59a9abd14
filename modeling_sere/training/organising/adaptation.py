"""Adapting a model to a target domain in closed form: statistics, field, and what of them stays in the model."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional as F

from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.resonance_sere import UNLABELLED, InstantaneousResonanceField, LinearMap
from modeling_sere.training.encoding.domain import Domain
from modeling_sere.training.organising.grouping import Grouping, speakers, tie, voices
from modeling_sere.training.organising.passes import GONE, SOURCE, TARGET, Passes
from modeling_sere.training.organising.view import Embedded, View, embed


@dataclass
class Organised:
    """What one draw of shots gives, stage by stage.

    prototype, response: maps from embedding and cues to scores (C); cosine with each class's mean embedding, and ridge
    on the shots alone. sources: the labelled clips without nuisance. posteriors: of the organised field. class_prior:
    shares that the balance expects. tied: how far the emotions of the target's speakers differ (equation "tie"), None
    without speaker ids.
    """

    shots: torch.Tensor  # (n source,) class index or -100
    prototype: LinearMap
    response: LinearMap
    sources: Embedded
    posteriors: torch.Tensor  # (n source + n target, C), source first
    class_prior: torch.Tensor  # (2, C)
    tied: float | None

    @property
    def absent(self) -> list[int]:
        """Classes that no clip of the target seems to have."""
        return (self.class_prior[TARGET] <= GONE).nonzero().squeeze(1).tolist()


def grouped(model: SereForAudioClassification, domain: Domain) -> Grouping:
    """By speaker id where there are ids, else by voice group."""
    return voices(model, domain.features) if domain.speakers is None else speakers(domain)


class Adaptation:
    """The closed-form part: both domains embedded, and the field organised in passes for any draw of shots.

    Args:
        model: gives embedding and constants; it gets the target's statistics here, and an organised field by `install`.
        source, target: domains with raw features; their labels are not read. A source that is embedded already (the
            sources of a checkpoint) stays as it is.
    """

    @torch.no_grad()
    def __init__(self, model: SereForAudioClassification, source: Domain | Embedded, target: Domain):
        self.model, self.parts = model, (source, target)
        self.speakers = [getattr(part, "speakers", None) for part in self.parts]
        self.by_speaker = target.speakers is not None
        self.groupings = {TARGET: grouped(model, target)}
        self.target = embed(model, target.features, self.groupings[TARGET])
        # what the saved model knows of a clip whose speaker it has never met
        self.voices = voices(model, target.features) if self.by_speaker else self.groupings[TARGET]
        self.unknown = embed(model, target.features, self.voices) if self.by_speaker else self.target
        if isinstance(source, Embedded):
            self.source = self.unknown_source = source
        else:
            self.groupings[SOURCE] = grouped(model, source)
            self.source = self.unknown_source = embed(model, source.features, self.groupings[SOURCE])
            if self.by_speaker and source.speakers is not None:
                self.unknown_source = embed(model, source.features, voices(model, source.features))
        self.field = InstantaneousResonanceField(model.config)
        self.sizes = [len(source), len(target)]
        self.domains = torch.tensor([SOURCE] * len(source) + [TARGET] * len(target))
        embedding = model.sere.embedding
        embedding.statistics.copy_(self.voices.statistics)
        embedding.voice_weight.copy_(self.voices.weight)
        embedding.voice_bias.copy_(self.voices.bias)
        embedding.cue_std.copy_(self.unknown.cue_std)

    @cached_property
    def of_voices(self) -> View:
        """Clips normalised by voice group, as far as their domain has speaker ids."""
        return View(self.unknown_source, self.unknown)

    @cached_property
    def of_speakers(self) -> View:
        """Clips normalised by speaker, whatever the emotions of the speaker."""
        return View(self.source, self.target)

    @torch.no_grad()
    def organise(self, shots: torch.Tensor) -> Organised:
        """Run the field in passes, each normalising anew by what the one before has found (docs/method.md, "Passes").

        shots (n source,): class index of the labelled clips, -100 elsewhere.
        """
        passes = Passes(self, shots).run()
        view, posteriors = passes.view, passes.posteriors
        labelled = shots != UNLABELLED
        sources = view.nuisance[SOURCE].removed(passes.told[: len(shots)])[0][labelled]
        return Organised(
            shots=shots,
            prototype=self._prototype(shots),
            response=self.field.response(self.source.embeddings, shots),
            sources=Embedded(view.lifted(sources), view.cues[: len(shots)][labelled]),
            posteriors=posteriors,
            class_prior=passes.class_prior,
            tied=tie(posteriors[len(shots) :], self.speakers[TARGET]) if self.by_speaker else None,
        )

    def _prototype(self, shots: torch.Tensor) -> LinearMap:
        """Cosine with the mean embedding of each class; 0 for a class without a shot."""
        labelled = shots != UNLABELLED
        onehot = F.one_hot(shots[labelled], self.model.config.num_labels).to(self.source.embeddings)
        return LinearMap.of_embeddings(F.normalize(onehot.T @ self.source.embeddings[labelled], dim=1).T)

    @torch.no_grad()
    def single(self, organised: Organised) -> LinearMap:
        """The map that the saved model carries, for clips normalised by voice group (equation "read-out")."""
        embeddings, cues, filter = self._read_out
        labels = self._labels(organised.shots)
        maps = self.field.read_out(
            embeddings, cues, labels, self.domains, organised.posteriors, organised.class_prior, filter
        )
        return maps[TARGET]

    @cached_property
    def _read_out(self):
        """Embeddings, cues and resonance filter of both domains as of unknown speakers."""
        embeddings = torch.cat([self.unknown_source.embeddings, self.unknown.embeddings])
        return embeddings, self.of_voices.cues, self.field.filter(embeddings)

    def _labels(self, shots: torch.Tensor) -> torch.Tensor:
        return torch.cat([shots, shots.new_full((self.sizes[TARGET],), UNLABELLED)])

    @torch.no_grad()
    def install(self, organised: Organised, temperature: float = 1.0) -> None:
        """Leave in the model what a draw of shots gives it: the labelled sources and the organised map.

        temperature: divides the map, and with it the logits (`calibration.calibrate`).
        """
        model = self.model
        model.adopt(self.single(organised) * (1 / temperature))
        model.source_embeddings.copy_(organised.sources.embeddings)
        model.source_cues.copy_(organised.sources.cues)
        model.source_labels.copy_(organised.shots[organised.shots != UNLABELLED])

    def clip_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Statistics (G, 2, D) of all groups and the group (n,) of each clip, source first; the source has audio."""
        first, second = self.groupings[SOURCE], self.groupings[TARGET]
        group = torch.cat([first.group, second.group + len(first.statistics)])
        return torch.cat([first.statistics, second.statistics]), group
