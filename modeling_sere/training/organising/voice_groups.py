"""Voice groups: an unsupervised stand-in for speaker ids that does not eat the emotion.

Two groups of voices (in practice mostly low and high ones) have statistics of their own. More groups, or groups found
on the raw features, follow the emotion instead of the speaker.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from modeling_sere.dynamics_sere import FUNCTIONAL_NAMES
from modeling_sere.embedding_sere import CLIP
from modeling_sere.training.organising.clusters import clusters

PITCH = ("f0.p20", "f0.p50")
# what tells voices apart, and what tells a loud or lively clip from a calm one of the same voice
TRAITS = (
    "f0.mean", "f0.p20", "f0.p50", "f0.p80",
    "voiced.f1_frequency.mean", "voiced.f2_frequency.mean", "voiced.f3_frequency.mean",
    "loudness.mean", "loudness.p80", "sound_level", "voiced.alpha_ratio.mean", "voiced.hammarberg.mean",
    "voiced.slope_500_1500.mean", "f0.std_norm", "f0.range", "voiced.hnr.mean", "voiced.jitter.mean",
    "voiced.h1_h2.mean",
)  # fmt: skip
GROUPS = 2
SELF_TRAINING_ROUNDS = 5
MIN_CLIPS = 10  # statistics of fewer clips say more about those clips than about the voice


def voice_group_map(functionals: torch.Tensor, cue_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Fit a linear rule for the voice group of a clip (docs/method.md, "Voice groups").

    k-means on pitch, from which what the other cues explain has been regressed out, gives a first grouping; a logistic
    regression on voice traits is then trained on its own answers.

    Args:
        functionals: (n, F) raw. cue_map: (F, 5) of [`SereEmbedding`].

    Returns:
        weight (F, 2) and bias (2,), the group being the larger of `functionals @ weight + bias`; None where no two
        groups of at least 10 clips were found.
    """
    cue_map = cue_map.double().numpy()
    looked_at = {FUNCTIONAL_NAMES.index(name) for name in (*PITCH, *TRAITS)} | set(cue_map.any(1).nonzero()[0].tolist())
    used = sorted(looked_at)
    place = {FUNCTIONAL_NAMES[functional]: column for column, functional in enumerate(used)}
    values = functionals[:, used].double().numpy()
    mean, std = values.mean(0), values.std(0)
    std = np.where(std > 1e-6 * np.abs(mean) + 1e-12, std, np.inf)  # constant functionals say nothing
    standardised = np.clip((values - mean) / std, -CLIP, CLIP)
    groups = _pitch_groups(standardised[:, [place[name] for name in PITCH]], standardised @ cue_map[used])
    columns = [place[name] for name in TRAITS]
    for _ in range(SELF_TRAINING_ROUNDS):
        if np.bincount(groups, minlength=GROUPS).min() < MIN_CLIPS:
            return None
        rule = LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced").fit(standardised[:, columns], groups)
        groups = rule.predict(standardised[:, columns])
    if np.bincount(groups, minlength=GROUPS).min() < MIN_CLIPS:
        return None
    slope = rule.coef_[0] / std[columns]
    weight = np.zeros((functionals.shape[1], GROUPS))
    weight[[used[column] for column in columns], 1] = slope
    bias = np.array([0.0, rule.intercept_[0] - mean[columns] @ slope])
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()


def _pitch_groups(pitch: np.ndarray, cues: np.ndarray) -> np.ndarray:
    """Cluster pitch (n, 2), given how lively, loud, bright and fast each clip is (n, 5), in two: (n,) 0 or 1."""
    if len(pitch) < GROUPS * MIN_CLIPS:
        return np.zeros(len(pitch), dtype=int)
    others = np.c_[cues[:, 1:], np.ones(len(cues))]  # all cues but the level of F0
    residual = pitch - others @ np.linalg.lstsq(others, pitch, rcond=None)[0]
    residual /= np.maximum(residual.std(0), 1e-12)
    groups = clusters(torch.from_numpy(residual), GROUPS).numpy()
    low, high = (residual[groups == group].sum() / max((groups == group).sum(), 1) for group in range(GROUPS))
    return groups if low <= high else 1 - groups  # the lower voices come first, whatever the order of the clips
