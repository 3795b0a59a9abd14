"""Scoring an adapted model on the target, with the field's own terms: transductive or inductive, always named."""

import numpy as np
import torch

from modeling_sere.resonance_sere import UNLABELLED, LinearMap
from modeling_sere.training.adaptation import Adaptation, Organised
from modeling_sere.training.metrics import score
from modeling_sere.training.pool import Pool


class Evaluation:
    """Scores maps on the target clips that have a label.

    Args:
        rows: rows of the target pool to score.
        transductive: the rows took part in `adaptation`, in the same order, and keep the embeddings they had there
            (normalised by their own speakers' statistics where ids are used). Otherwise each clip is embedded by
            itself, with the statistics that the saved model carries.
    """

    def __init__(self, adaptation: Adaptation, target: Pool, rows: list[int], transductive: bool):
        self.labels = target.labels
        labelled = (target.references[rows] != UNLABELLED).nonzero().squeeze(1)
        self.rows = torch.tensor(rows)[labelled]
        self.references = target.references[self.rows].numpy()
        if transductive:
            self.inputs = adaptation.target.embeddings[labelled], adaptation.target.cues[labelled]
        else:
            self.inputs = self.single_clip_inputs(adaptation, target)

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def single_clip_inputs(self, adaptation: Adaptation, target: Pool) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings and cues of the rows as the saved model makes them: clip by clip, domain statistics only."""
        return adaptation.model.sere.embedding(target.domain.features[self.rows])

    def scores(self, linear: LinearMap) -> dict:
        """UAR, WAR, macro-F1, recalls and confusion of a map."""
        return score(linear(*self.inputs).argmax(1).numpy(), self.references, self.labels)

    def stages(self, organised: Organised) -> dict:
        """Scores of the field, and the UAR of the stages before it."""
        return self.scores(organised.field) | {
            "uar_before": self.scores(organised.response)["uar"],
            "uar_prototype": self.scores(organised.prototype)["uar"],
        }


def spread(seeds: list[int], uars: list[float]) -> dict:
    """Mean and standard deviation over shot draws."""
    return {"seeds": seeds, "uar": uars, "uar_mean": float(np.mean(uars)), "uar_std": float(np.std(uars))}
