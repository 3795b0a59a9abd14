"""Scoring an adapted model on the target, with the field's own terms: transductive or inductive, always named."""

import numpy as np
import torch

from modeling_sere.configuration_sere import NUM_CUES
from modeling_sere.resonance_sere import CHUNK, UNLABELLED, LinearMap
from modeling_sere.training.encoding.pool import Pool
from modeling_sere.training.organising.adaptation import Adaptation, Organised
from modeling_sere.training.reporting.metrics import expected_calibration_error, score
from modeling_sere.training.reporting.results import SCORES, Spread


class Evaluation:
    """Scores maps on the target clips that have a label.

    Args:
        rows: rows of the target pool to score.
        setting: "transductive": the rows took part in `adaptation`, in the same order, and keep the embeddings they had
            there (normalised by their own speakers' statistics where ids are used). "inductive": each clip is embedded
            by itself, with the statistics and the map that the saved model carries.
    """

    def __init__(self, adaptation: Adaptation, target: Pool, rows: list[int], setting: str):
        self.adaptation, self.labels, self.setting = adaptation, target.labels, setting
        labelled = (target.references[rows] != UNLABELLED).nonzero().squeeze(1)
        self.rows, self.told = torch.tensor(rows)[labelled], labelled
        self.references = target.references[self.rows].numpy()
        if setting == "transductive":
            self.inputs = adaptation.target.embeddings, adaptation.target.cues
        else:
            self.inputs, self.told = embed_singly(adaptation, target.domain.features, self.rows), slice(None)

    def __len__(self) -> int:
        return len(self.rows)

    def of_answers(self, answers: torch.Tensor) -> dict:
        """Return UAR, WAR, macro-F1, recalls and confusion of one class per clip."""
        return score(answers.numpy(), self.references, self.labels)

    def of_map(self, linear: LinearMap) -> dict:
        """Score a linear map."""
        return self.of_answers(linear(*self.inputs)[self.told].argmax(1))

    def calibration_error(self, linear: LinearMap) -> float:
        """Return the expected calibration error of a map's softmax."""
        return expected_calibration_error(linear(*self.inputs)[self.told].softmax(1).numpy(), self.references)

    def scores(self, organised: Organised) -> dict:
        """Score SERE: the field's posteriors, or what the saved model says of a clip it has not seen."""
        if self.setting == "inductive":
            return self.of_map(self.adaptation.single(organised))
        target = organised.posteriors[len(organised.shots) :]
        return self.of_answers(target.argmax(1)[self.told])

    def stages(self, organised: Organised) -> dict:
        """Return the scores of SERE, and the UAR of what it starts from."""
        return self.scores(organised) | {
            "uar_before": self.of_map(organised.response)["uar"],
            "uar_prototype": self.of_map(organised.prototype)["uar"],
        }


def scores_of_run(
    adaptation: Adaptation, organised: Organised, target: Pool, rows: list[int], setting: str, temperature: float
) -> dict:
    """Return the scores of results.json; each is None where no row has a label.

    Args:
        rows, setting: as in `Evaluation`. temperature: of the saved model, whose map is scored on clips one by one too.
    """
    evaluation = Evaluation(adaptation, target, rows, setting)
    if not len(evaluation):
        calibration = {"temperature": temperature, "ece_before": None, "ece_after": None}
        return dict.fromkeys(SCORES) | {"calibration": calibration}
    single, read_out = Evaluation(adaptation, target, rows, "inductive"), adaptation.single(organised)
    return evaluation.stages(organised) | {
        "uar_single_clip": single.of_map(read_out)["uar"],
        "calibration": {
            "temperature": temperature,
            "ece_before": single.calibration_error(read_out),
            "ece_after": single.calibration_error(read_out * (1 / temperature)),
        },
    }


@torch.no_grad()
def embed_singly(adaptation: Adaptation, features: torch.Tensor, rows: torch.Tensor):
    """Return embeddings (m, D) and cues (m, 5) of these rows of raw features (n, D), as the saved model makes them."""
    embeddings, cues = features.new_empty(len(rows), features.shape[1]), features.new_empty(len(rows), NUM_CUES)
    for start in range(0, len(rows), CHUNK):
        block = slice(start, start + CHUNK)
        embeddings[block], cues[block] = adaptation.model.sere.embedding(features[rows[block]])
    return embeddings, cues


def spread(seeds: list[int], uars: list[float]) -> Spread | None:
    """Return mean and standard deviation of the UAR over draws of the shots; of one draw there is none."""
    if len(seeds) < 2:
        return None
    return {"seeds": seeds, "uar": uars, "uar_mean": float(np.mean(uars)), "uar_std": float(np.std(uars))}
