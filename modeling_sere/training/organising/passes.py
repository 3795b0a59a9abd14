"""The passes of one draw of shots: each normalises, whitens and organises anew by what the one before has found."""

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.organising.grouping import grounded_speakers, lean, tie
from modeling_sere.training.organising.nuisance_groups import class_means
from modeling_sere.training.organising.view import View, embed

if TYPE_CHECKING:
    from modeling_sere.training.organising.adaptation import Adaptation

TARGET = -1  # place of the target among the domains; all others are sources
VOICE_PRIOR = 0.5  # of the prior's weight with speaker ids: the cues of clips normalised by voice are less sure
VOICE_SHARE = 0.5  # of the voice groups in the posteriors of a domain whose speakers are tied to emotions altogether
LAG = 0.28  # by which the evidence of an emotion that does not occur lags the mean of the others'
GONE = 1e-4  # share of the clips that is expected of it
HEARD = 200  # target clips, and a label, that it takes to say of an emotion that it does not occur
POOL = 100  # target clips from which on the passes have the last word


class Passes:
    """The field of one draw of shots, organised pass by pass (docs/method.md, "Passes").

    Args:
        adaptation: gives the views of all domains. shots (n source,): class index of the labelled clips, -100
            elsewhere.

    Attributes:
        posteriors: (n, C), source first. view: the clips as they were normalised at last, not whitened. class_prior:
            (domains, C), the shares that the balance expects.
    """

    def __init__(self, adaptation: "Adaptation", shots: torch.Tensor):
        self.adaptation, self.field, self.config = adaptation, adaptation.field, adaptation.field.config
        self.sizes, self.speakers, self.domains = adaptation.sizes, adaptation.speakers, adaptation.domains
        self.by_speaker = self.speakers[TARGET] is not None
        self.labels = adaptation.labels(shots)
        count = self.config.num_labels
        self.class_prior = torch.full((len(self.sizes), count), 1 / count, dtype=torch.double)
        self.view = adaptation.of_voices

    @torch.no_grad()
    def run(self) -> "Passes":
        """Take all passes."""
        self.posteriors, self.clean = self._settled(self.view, voiced=True)
        for number in range(1, self.config.field_passes + 1):
            if number == self.config.field_passes > 1:
                self._drop_absent()
            if self.by_speaker:
                self._pass_by_speaker(number)
            else:
                self.posteriors, self.clean = self._settled(self.view.whitened(self.told), voiced=True)
        if self.sizes[TARGET] < POOL and self.config.field_passes:
            self.posteriors = self._mixed(self.posteriors, self._start(), len(self.sizes) * [self.sizes[TARGET] / POOL])
        return self

    @property
    def told(self) -> torch.Tensor:
        """Posteriors (n, C), labelled clips having the emotion of their label."""
        return self._told(self.posteriors)

    def _told(self, posteriors: torch.Tensor) -> torch.Tensor:
        told, labelled = posteriors.clone(), self.labels != UNLABELLED
        told[labelled] = F.one_hot(self.labels[labelled], told.shape[1]).to(told)
        return told

    def _settled(self, view: View, voiced: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Posteriors (n, C) of the field in one view, organised again without nuisance, and embeddings without it.

        voiced: the view is of voice groups, so the cues are less sure. (Without speaker ids the configuration's weight
        of the prior is made for them.)
        """
        weight = self.config.prior_weight * (VOICE_PRIOR if voiced and self.by_speaker else 1.0)
        embeddings, cues = view.embeddings, view.cues
        posteriors = self._field(embeddings, cues, weight)
        for _ in range(self.config.nuisance_rounds):
            embeddings, cues = view.without_nuisance(self._told(posteriors), of_cues=not self.by_speaker)
            posteriors = self._field(embeddings, cues, weight)
        return posteriors, embeddings

    def _field(self, embeddings, cues, weight: float, rounds: int | None = None) -> torch.Tensor:
        output = self.field(
            embeddings, cues, self.labels, self.domains, self.class_prior, prior_weight=weight, rounds=rounds
        )
        return output.posteriors

    def _start(self) -> torch.Tensor:
        """Posteriors of the start alone: the response to the shots, the prior and the balance."""
        view = self.adaptation.of_speakers if self.by_speaker else self.view
        return self._field(view.embeddings, view.cues, self.config.prior_weight, rounds=0)

    def _pass_by_speaker(self, number: int) -> None:
        """One pass where the target has speaker ids."""
        leans = self._leans()
        if number == 2:  # where no tie is seen any more, the detour by voice groups leaves no trace
            self.posteriors = self._mixed(self.posteriors, self._settled(self.adaptation.of_speakers)[0], leans)
        told = self.told
        self.view = self._grounded(told, leans)
        self.posteriors, self.clean = self._settled(self.view.whitened(told) if number > 1 else self.view)
        if number > 1 and any(leans):  # of tied speakers the voice groups know what statistics cannot tell
            voices, _ = self._settled(self.adaptation.of_voices.whitened(told), voiced=True)
            self.posteriors = self._mixed(voices, self.posteriors, [VOICE_SHARE * leaning for leaning in leans])

    def _leans(self) -> list[float]:
        """How much of a speaker's lean is taken for emotion in each domain; 0 where it has no speaker ids."""
        told = self.told.split(self.sizes)
        return [0.0 if who is None else lean(tie(part, who)) for part, who in zip(told, self.speakers, strict=True)]

    def _mixed(self, first: torch.Tensor, second: torch.Tensor, shares: list[float]) -> torch.Tensor:
        """Posteriors between two, in the logarithm; the first have that share in a domain."""
        share = first.new_tensor(shares)[self.domains][:, None]
        return (share * first.clamp_min(1e-9).log() + (1 - share) * second.clamp_min(1e-9).log()).softmax(1)

    def _grounded(self, told: torch.Tensor, leans: list[float]) -> View:
        """Clips normalised by what of their speaker the emotions do not explain."""
        embedded, parts = list(self.adaptation.embedded), self.adaptation.parts
        for d, part in enumerate(told.split(self.sizes)):
            if self.speakers[d] is not None:
                grouping = grounded_speakers(parts[d], part, leans[d])
                embedded[d] = embed(self.adaptation.model, parts[d].features, grouping)
        return View(embedded)

    def _drop_absent(self) -> None:
        """Expect no target clip of the emotion whose evidence lags most, if it lags far."""
        if self.config.num_labels <= 2 or self.sizes[TARGET] < HEARD or (self.labels == UNLABELLED).all():
            return
        evidence = self.evidence()
        lag = evidence - (evidence.sum() - evidence) / (len(evidence) - 1)
        if lag.min() < -LAG:
            shares = torch.full_like(self.class_prior[TARGET], (1 - GONE) / (len(evidence) - 1))
            shares[lag.argmin()] = GONE
            self.class_prior[TARGET] = shares

    def evidence(self) -> torch.Tensor:
        """(C,) that each emotion occurs in the target (equation "evidence"): alike in both domains, and told surely."""
        means = [
            F.normalize(class_means(embeddings, told) - embeddings.mean(0), dim=1)
            for embeddings, told in zip(self.clean.split(self.sizes), self.told.split(self.sizes), strict=True)
            if len(embeddings)
        ]
        alike = sum((means[TARGET] * source).sum(1) for source in means[:TARGET]) / max(len(means) - 1, 1)
        target = self.posteriors.split(self.sizes)[TARGET]
        return alike + target.square().sum(0) / target.sum(0).clamp_min(1e-6)
