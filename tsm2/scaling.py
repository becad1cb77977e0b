"""Standard units: every variate minus its mean over the training rows, over its deviation."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

__all__ = ["Scaling"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """What takes a table's units to standard units and back."""

    center: NDArray[np.float64]
    """Mean of every variate, (M,), in its unit."""
    scale: NDArray[np.float64]
    """Deviation of every variate, (M,), in its unit; 1 for a variate that does not move."""

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Self:
        """Measure a table, (T, M)."""
        scaler = StandardScaler().fit(values)
        return cls(center=np.asarray(scaler.mean_), scale=np.asarray(scaler.scale_))

    def standardise(self, values: NDArray[np.float64]) -> torch.Tensor:
        """Return values, (..., M), in standard units, as float32."""
        return torch.from_numpy(((values - self.center) / self.scale).astype(np.float32))

    def restore(self, values: torch.Tensor) -> NDArray[np.float64]:
        """Return standardised values, (..., M), in the table's units, as float64."""
        wide: NDArray[np.float64] = values.cpu().double().numpy()
        restored: NDArray[np.float64] = wide * self.scale + self.center
        return restored
