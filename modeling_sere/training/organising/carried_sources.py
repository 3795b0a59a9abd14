"""The labelled source clips that travel in a checkpoint: adaptation to a new target without source data."""

import torch

from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.corpora.labels import Spellings
from modeling_sere.training.errors import RunError
from modeling_sere.training.organising.view import Embedded


def carried_labels(checkpoint: SereForAudioClassification) -> list[str]:
    """Return the emotions of a checkpoint as those of corpora are read, in the order of its classes."""
    return [Spellings().emotion(label) for label in checkpoint.config.labels]


class Sources:
    """Carried clips in the place of a source corpus' `Pool` where there is no corpus.

    Attributes:
        domain: embeddings and cues as they were in the run that made the checkpoint. references: (M,) class index.
        shots: labelled clips per emotion. skipped: none, as there is no audio.

    Raises:
        RunError: an emotion without a labelled clip.
    """

    def __init__(self, checkpoint: SereForAudioClassification, labels: list[str]):
        self.labels, self.skipped = labels, []
        index = {place: labels.index(name) for place, name in enumerate(carried_labels(checkpoint)) if name in labels}
        if checkpoint.source_labels is None:
            raise RunError("--model carries no labelled clips: name a labelled corpus as --source.")
        classes = torch.tensor([index.get(k, UNLABELLED) for k in checkpoint.source_labels.tolist()], dtype=torch.long)
        kept = classes != UNLABELLED
        self.references = classes[kept]
        self.domain = Embedded(checkpoint.source_embeddings[kept], checkpoint.source_cues[kept])
        counts = torch.bincount(self.references, minlength=len(labels))
        if not counts.all():
            lacking = labels[int(counts.argmin())]
            raise RunError(f"--model carries no labelled clip of {lacking}: name a labelled corpus as --source.")
        self.shots = int(counts.min())

    def __len__(self) -> int:
        return len(self.references)
