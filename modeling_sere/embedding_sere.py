"""From raw clip features to embeddings: normalisation by domain, voice group or speaker, and the cues of the prior."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils import logging

from .resonance_sere import CHUNK

logger = logging.get_logger(__name__)

NO_STATISTICS = (
    "This model has no statistics of a target domain, so each clip is compared with the others of its batch, and one "
    "alone with nothing: adapt it with train_sere.py, or call model.estimate_statistics with clips of the domain."
)
CLIP = 4.0  # standardised features beyond this many deviations are artefacts more often than emotion
CUE_CLIP = 2.5
ENROLMENT = 1.0  # weight of the domain's statistics, in clips, beside those of a speaker's own clips


def standardise(features: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Standardise features, (features - mean) / std, clipped; constant features give 0."""
    return ((features - mean) / std.clamp_min(1e-6)).clamp(-CLIP, CLIP) * (std > 1e-6)


def moments(features: torch.Tensor) -> torch.Tensor:
    """Compute mean and standard deviation, (2, D), of (n, D); a deviation that is only rounding counts as 0.

    Sums are in double precision, so that the order of the clips decides no digit of the result.
    """
    count = features.shape[0]  # len() would fix the number of clips in a graph, and so would blocks
    blocks = [features] if torch.compiler.is_compiling() else features.split(CHUNK)
    mean = torch.stack([block.double().sum(0) for block in blocks]).sum(0) / count
    squares = torch.stack([(block.double() - mean).square().sum(0) for block in blocks]).sum(0)
    std = (squares / count).sqrt()
    return torch.stack([mean, std * (std > 1e-6 * mean.abs())]).to(features.dtype)


def shrunk_moments(features: torch.Tensor, domain: torch.Tensor) -> torch.Tensor:
    """Estimate a speaker's statistics from few clips, shrunk towards the domain's (equation "enrolment" of
    docs/method.md).

    With n clips the speaker's own mean and variance weigh n / (n + 1), the domain's the rest.

    Args:
        features: (n, D) raw features of the speaker's clips. domain: (2, D).
    """
    share = len(features) / (len(features) + ENROLMENT)
    own, domain = features.double(), domain.double()
    mean = share * own.mean(0) + (1 - share) * domain[0]
    within = (own - own.mean(0)).square().mean(0)
    std = (share * within + (1 - share) * domain[1].square()).sqrt()
    return torch.stack([mean, std]).to(features.dtype)


class SereEmbedding(nn.Module):
    """Raw features (B, D) -> unit-length embeddings (B, D) and cues (B, 5).

    The D features are blocks: the dynamics stream (its F functionals, then its frames at the highlights), and one per
    encoder layer. Each block is standardised, scaled by sqrt(weight / size), so that the cosine of two embeddings is
    the weighted mean of the blocks' resonances (equation "resonance"), and multiplied by a learned gain (1 until
    refined).

    Buffers, all from unlabelled clips of the target domain: `statistics` (G, 2, D) for G voice groups, `cue_std` (5,),
    and the linear map `voice_weight` (F, G), `voice_bias` (G,) of the functionals that tells the voice group of a clip.
    """

    def __init__(self, config, block_sizes: list[int], cues: torch.Tensor):
        super().__init__()
        self.statistics: torch.Tensor
        self.cue_map: torch.Tensor
        self.cue_std: torch.Tensor
        self.voice_weight: torch.Tensor
        self.voice_bias: torch.Tensor
        groups, size = config.num_voice_groups, sum(block_sizes)
        self.block_sizes = list(block_sizes)
        self.block_weights = [1.0] + [config.encoder_weight] * (len(block_sizes) - 1)
        kind = torch.float32  # whatever the precision of the rest
        self.log_gain = nn.Parameter(torch.zeros(size, dtype=kind))
        self.register_buffer("statistics", torch.zeros(groups, 2, size, dtype=kind))
        self.register_buffer("cue_map", cues)  # (F, 5): signed means
        self.register_buffer("cue_std", torch.ones(cues.shape[1], dtype=kind))
        self.register_buffer("voice_weight", torch.zeros(len(cues), groups, dtype=kind))
        self.register_buffer("voice_bias", torch.zeros(groups, dtype=kind))

    @property
    def scale(self) -> torch.Tensor:
        """(D,) factor of each standardised feature."""
        sizes = zip(self.block_weights, self.block_sizes, strict=True)
        block = [self.log_gain.new_full((size,), (weight / size) ** 0.5) for weight, size in sizes]
        return torch.cat(block) * self.log_gain.exp()

    def voice_groups(self, features: torch.Tensor) -> torch.Tensor:
        """Find the voice group (B,) of raw features (B, D)."""
        return (features[:, : len(self.voice_weight)] @ self.voice_weight.float() + self.voice_bias.float()).argmax(1)

    def _default_statistics(self, features: torch.Tensor) -> torch.Tensor:
        """Give the statistics, (B, 2, D) or (2, D), by which raw features (B, D) are standardised."""
        known, lacking = self.statistics[self.voice_groups(features)], ~self.statistics.any()
        if torch.compiler.is_compiling():  # a graph must not look at values: it has both
            return torch.where(lacking, moments(features.detach()).to(known), known)
        if lacking.is_meta or not bool(lacking):
            return known
        logger.warning_once(NO_STATISTICS)
        return moments(features.detach()).to(known)

    def standardised(self, features: torch.Tensor, statistics: torch.Tensor | None = None) -> torch.Tensor:
        """Standardise raw features (B, D) by `statistics` (2, D) or (B, 2, D), by default the domain's.

        Where the model has none yet they are those of the clips themselves, and a warning says so, once.
        """
        if statistics is None:
            statistics = self._default_statistics(features)
        elif statistics.shape not in ((2, features.shape[1]), (len(features), 2, features.shape[1])):
            raise ValueError(
                f"statistics must have shape (2, {features.shape[1]}) or ({len(features)}, 2, {features.shape[1]}), "
                f"not {tuple(statistics.shape)}: take them from model.speaker_statistics."
            )
        statistics = statistics.to(features)
        return standardise(features, statistics[..., 0, :], statistics[..., 1, :])

    def embed(self, standardised: torch.Tensor) -> torch.Tensor:
        """Bring standardised features (B, D) to unit length (all zeros stay zeros)."""
        return F.normalize(standardised * self.scale, dim=1)

    def raw_cues(self, standardised: torch.Tensor) -> torch.Tensor:
        """Compute the signed means (B, 5) of the cues' functionals from standardised features (B, D)."""
        return standardised[:, : len(self.cue_map)] @ self.cue_map.float()

    def cues(self, raw_cues: torch.Tensor, cue_std: torch.Tensor | None = None) -> torch.Tensor:
        """Standardise raw cues (B, 5) by a domain's deviation (default: the target's) and clipped."""
        cue_std = self.cue_std if cue_std is None else cue_std
        return (raw_cues / cue_std.clamp_min(1e-6)).clamp(-CUE_CLIP, CUE_CLIP)

    def forward(
        self,
        features: torch.Tensor,
        statistics: torch.Tensor | None = None,
        dropout: float = 0.0,
        enrol: bool = False,
    ):
        """Return embeddings (B, D) and cues (B, 5), or one speaker's statistics.

        All that needs this module's tensors at run time goes through here: hooks that bring offloaded tensors see
        nothing but calls.

        Args:
            features: (B, D) raw. statistics: (2, D) or (B, 2, D), by default the domain's.
            dropout: share of the standardised features that are dropped.
            enrol: the clips are of one speaker: give the statistics (2, D) of this speaker instead.

        Raises:
            ValueError: statistics have another size.
        """
        with torch.autocast(device_type=features.device.type, enabled=False):
            features = features.float()
            if enrol:
                group = self.voice_groups(features).mode().values
                return shrunk_moments(features, self.statistics[group].float())
            standardised = F.dropout(self.standardised(features, statistics), dropout, training=dropout > 0)
            return self.embed(standardised), self.cues(self.raw_cues(standardised))
