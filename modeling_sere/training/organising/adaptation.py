"""Adapting a model to a target domain in closed form: statistics, field, and what of them stays in the model."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional as F

from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.resonance_sere import UNLABELLED, InstantaneousResonanceField, LinearMap
from modeling_sere.training.encoding.domain import Domain
from modeling_sere.training.organising.grouping import Grouping, grounded_speakers, lean, speakers, tie, voices
from modeling_sere.training.organising.view import Embedded, View, embed

SOURCE, TARGET = 0, 1  # domain numbers inside the field
VOICE_PRIOR = 0.5  # of the prior's weight with speaker ids: the cues of clips normalised by voice are less sure
VOICE_SHARE = 0.5  # of the voice groups in the posteriors of a domain whose speakers are tied to emotions altogether


@dataclass
class Organised:
    """What one draw of shots gives, stage by stage.

    prototype, response: maps from embedding and cues to scores (C); cosine with each class's mean embedding, and ridge
    on the shots alone. sources: the labelled clips without nuisance. posteriors: of the organised field. tied: how far
    the emotions of the target's speakers differ (equation "tie"), None without speaker ids.
    """

    shots: torch.Tensor  # (n source,) class index or -100
    prototype: LinearMap
    response: LinearMap
    sources: Embedded
    posteriors: torch.Tensor  # (n source + n target, C), source first
    tied: float | None


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
        labels = self._labels(shots)
        view = self.of_voices
        posteriors = self._settled(view, labels, voiced=True)
        if self.by_speaker:
            view, posteriors = self._passes_by_speaker(posteriors, labels)
        else:
            for _ in range(self.field.config.field_passes):
                posteriors = self._settled(view.whitened(self._told(posteriors, labels)), labels, voiced=True)
        told = self._told(posteriors, labels)
        labelled = shots != UNLABELLED
        sources = view.nuisance[SOURCE].removed(told[: len(shots)])[0][labelled]
        return Organised(
            shots=shots,
            prototype=self._prototype(shots),
            response=self.field.response(self.source.embeddings, shots),
            sources=Embedded(view.lifted(sources), view.cues[: len(shots)][labelled]),
            posteriors=posteriors,
            tied=tie(posteriors[len(shots) :], self.speakers[TARGET]) if self.by_speaker else None,
        )

    def _passes_by_speaker(self, posteriors: torch.Tensor, labels: torch.Tensor) -> tuple[View, torch.Tensor]:
        """The last view and posteriors of the passes with speaker ids; `posteriors` are those of the voice groups."""
        view = self.of_voices
        for number in range(1, self.field.config.field_passes + 1):
            leans = self._leans(posteriors, labels)
            if number == 2:  # where no tie is seen any more, the detour by voice groups leaves no trace
                posteriors = self._mixed(posteriors, self._settled(self.of_speakers, labels), leans)
            told = self._told(posteriors, labels)
            view = self._grounded(told, leans)
            posteriors = self._settled(view.whitened(told) if number > 1 else view, labels)
            if number > 1 and any(leans):  # of tied speakers the voice groups know what statistics cannot tell
                voices = self._settled(self.of_voices.whitened(told), labels, voiced=True)
                posteriors = self._mixed(voices, posteriors, [VOICE_SHARE * leaning for leaning in leans])
        return view, posteriors

    def _settled(self, view: View, labels: torch.Tensor, voiced: bool = False) -> torch.Tensor:
        """Posteriors (n, C) of the field in one view, organised again without nuisance.

        voiced: the view is of voice groups, so the cues are less sure. (Without speaker ids the configuration's weight
        of the prior is made for them.)
        """
        config = self.field.config
        weight = config.prior_weight * (VOICE_PRIOR if voiced and self.by_speaker else 1.0)
        embeddings, cues = view.embeddings, view.cues
        posteriors = self.field(embeddings, cues, labels, self.domains, prior_weight=weight).posteriors
        for _ in range(config.nuisance_rounds):
            embeddings, cues = view.without_nuisance(self._told(posteriors, labels), of_cues=not self.by_speaker)
            posteriors = self.field(embeddings, cues, labels, self.domains, prior_weight=weight).posteriors
        return posteriors

    def _told(self, posteriors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Posteriors (n, C), labelled clips having the emotion of their label."""
        told = posteriors.clone()
        labelled = labels != UNLABELLED
        told[labelled] = F.one_hot(labels[labelled], told.shape[1]).to(told)
        return told

    def _leans(self, posteriors: torch.Tensor, labels: torch.Tensor) -> list[float]:
        """How much of a speaker's lean is taken for emotion in each domain; 0 where it has no speaker ids."""
        told = self._told(posteriors, labels).split(self.sizes)
        return [0.0 if who is None else lean(tie(part, who)) for part, who in zip(told, self.speakers, strict=True)]

    def _mixed(self, first: torch.Tensor, second: torch.Tensor, shares: list[float]) -> torch.Tensor:
        """Posteriors between two, in the logarithm; the first have that share in a domain."""
        share = first.new_tensor(shares)[self.domains][:, None]
        return (share * first.clamp_min(1e-9).log() + (1 - share) * second.clamp_min(1e-9).log()).softmax(1)

    def _grounded(self, told: torch.Tensor, leans: list[float]) -> View:
        """Clips normalised by what of their speaker the emotions do not explain."""
        embedded = [self.source, self.target]
        for d, part in enumerate(told.split(self.sizes)):
            if self.speakers[d] is not None:
                grouping = grounded_speakers(self.parts[d], part, leans[d])
                embedded[d] = embed(self.model, self.parts[d].features, grouping)
        return View(*embedded)

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
        maps = self.field.read_out(embeddings, cues, labels, self.domains, organised.posteriors, filter=filter)
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
