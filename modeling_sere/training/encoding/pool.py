"""A pool: the clips of one corpus that take part in a run, with their features and, where known, their emotions."""

import torch

from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.corpora.corpus import Clip, Corpus, SkippedClip
from modeling_sere.training.corpora.episodes import draw_shots
from modeling_sere.training.encoding.domain import Domain
from modeling_sere.training.encoding.features import Features


def kept_clips(corpus: Corpus, labels: list[str]) -> list[int]:
    """Return indices of the clips that take part: those of a shared emotion and those without a label."""
    return [clip.index for clip in corpus.clips if clip.label is None or clip.label in labels]


class Pool:
    """Usable clips of a corpus.

    Attributes:
        clips: one per row. domain: their features and speakers. references: (n,) class index of the true emotion, -100
            where there is none; read by the shot draw and the scorer only.
    """

    def __init__(self, corpus: Corpus, features: Features, labels: list[str], speaker_ids: bool):
        self.name, self.labels, self.features = corpus.name, labels, features
        self.clips: list[Clip] = [corpus.clips[index] for index in features.indices]
        index = {label: k for k, label in enumerate(labels)}
        self.references = torch.tensor([index.get(clip.label, UNLABELLED) for clip in self.clips])
        self.speaker_ids = speaker_ids and corpus.has_speakers
        self.domain = Domain.of(
            features.values, [clip.speaker or "" for clip in self.clips] if self.speaker_ids else None
        )

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def skipped(self) -> list[SkippedClip]:
        """Clips without usable audio."""
        return self.features.skipped

    def shots(self, count: int, seed: int) -> torch.Tensor:
        """Draw shots: (n,) class index of `count` clips per emotion, -100 elsewhere. Raises RunError: too few clips."""
        drawn = draw_shots(
            [clip.label for clip in self.clips], [clip.name for clip in self.clips], self.labels, count, seed
        )
        marked = torch.full((len(self),), UNLABELLED)
        marked[drawn] = self.references[drawn]
        return marked

    def names(self, marked: torch.Tensor) -> list[str]:
        """Return names of the rows that are not -100."""
        return [self.clips[row].name for row in (marked != UNLABELLED).nonzero().squeeze(1).tolist()]
