"""Pools: the clips of corpora that take part in a run, with their features and, where known, their emotions."""

import copy
from dataclasses import replace

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
        clips: one per row. own: emotions that the corpus has. domain: features and speakers of the clips. references:
            (n,) class index of the true emotion, -100 where there is none; read by the shot draw and the scorer only.
    """

    def __init__(self, corpus: Corpus, features: Features, labels: list[str], speaker_ids: bool):
        self.name, self.labels, self.features = corpus.name, labels, features
        self.own = [label for label in labels if label in corpus.labels]
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
    def parts(self) -> list["Pool"]:
        """The pool itself, as the only one."""
        return [self]

    @property
    def keys(self) -> list[str]:
        """Content keys of the clips."""
        return self.features.keys

    @property
    def skipped(self) -> list[SkippedClip]:
        """Clips without usable audio."""
        return self.features.skipped

    def shots(self, count: int, seed: int) -> torch.Tensor:
        """Draw shots: (n,) class index of `count` clips per emotion that the corpus has, -100 elsewhere.

        Raises:
            RunError: too few clips.
        """
        if count == 0:
            return torch.full((len(self),), UNLABELLED)
        drawn = draw_shots(
            [clip.label for clip in self.clips], [clip.name for clip in self.clips], self.own, count, seed
        )
        marked = torch.full((len(self),), UNLABELLED)
        marked[drawn] = self.references[drawn]
        return marked

    def told(self, asked: str | None, seed: int, rows: list[int]) -> torch.Tensor:
        """Draw labels that may help: (n,) class index of so many clips per emotion, -100 elsewhere.

        Args:
            asked: clips per emotion (fewer where there are fewer), "all", or None for none. rows: to draw from.
        """
        marked = torch.full((len(self),), UNLABELLED)
        for k, label in enumerate(self.labels if asked is not None else []):
            having = [row for row in rows if self.references[row] == k]
            count = len(having) if asked == "all" else min(int(asked), len(having))
            names = [self.clips[row].name for row in having]
            drawn = draw_shots([label] * len(having), names, [label], count, seed) if count else []
            marked[[having[place] for place in drawn]] = k
        return marked

    def without(self, marked: torch.Tensor) -> "Pool":
        """Return the same clips, those that are not -100 having no label to score them by."""
        hidden = copy.copy(self)
        hidden.references = self.references.masked_fill(marked != UNLABELLED, UNLABELLED)
        return hidden

    def names(self, marked: torch.Tensor) -> list[str]:
        """Return names of the rows that are not -100."""
        return [self.clips[row].name for row in (marked != UNLABELLED).nonzero().squeeze(1).tolist()]


class Pools:
    """Usable clips of several corpora, one corpus after the other: each a domain with shots of its own.

    Attributes:
        parts: a pool for each corpus. clips: of all, their names with that of their corpus before them.
    """

    def __init__(self, parts: list[Pool]):
        self.parts, self.labels = parts, parts[0].labels
        self.clips = [replace(clip, name=f"{part.name}/{clip.name}") for part in parts for clip in part.clips]
        self.domain = [part.domain for part in parts]
        self.speaker_ids = all(part.speaker_ids for part in parts)

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def keys(self) -> list[str]:
        """Content keys of the clips."""
        return [key for part in self.parts for key in part.keys]

    @property
    def skipped(self) -> list[SkippedClip]:
        """Clips without usable audio."""
        return [replace(clip, name=f"{part.name}/{clip.name}") for part in self.parts for clip in part.skipped]

    def shots(self, count: int, seed: int) -> torch.Tensor:
        """Draw shots from each corpus: (n,) class index, -100 elsewhere. Raises as `Pool.shots`."""
        return torch.cat([part.shots(count, seed) for part in self.parts])

    def names(self, marked: torch.Tensor) -> list[str]:
        """Return names of the rows that are not -100."""
        return [self.clips[row].name for row in (marked != UNLABELLED).nonzero().squeeze(1).tolist()]
