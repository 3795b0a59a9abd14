"""A domain: raw features of the clips of one corpus, and who speaks in them."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class Domain:
    """Clips of one domain as the field sees them.

    features: (n, D) raw. speakers: (n,) index of the speaker, or None without ids.
    """

    features: torch.Tensor
    speakers: torch.Tensor | None = None

    @classmethod
    def of(cls, values: np.ndarray, speakers: list[str] | None) -> "Domain":
        """Make a domain from an array and a list of speaker names."""
        index = None if speakers is None else torch.from_numpy(np.unique(speakers, return_inverse=True)[1])
        return cls(torch.from_numpy(values), index)  # without a copy, even of a part of longer rows

    def __len__(self) -> int:
        return len(self.features)

    def subset(self, rows: list[int]) -> "Domain":
        """Return these rows, in this order."""
        if rows == list(range(len(self))):
            return self  # without a copy
        speakers = None if self.speakers is None else self.speakers[rows].unique(return_inverse=True)[1]
        return Domain(self.features[rows], speakers)
