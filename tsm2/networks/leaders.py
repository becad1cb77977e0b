"""Leaders: what the latest rows of all columns say of each variate.

    added[m, h] = sum over columns c and rows k of weight[m, h, c, k] x[c, k],  within +- largest

A linear path reads one variate at a time, and a mixer must find by small steps what leads what. A
river's gauge upstream, or the store that a fashion reaches first, tells of the hours to come as a
plain linear map, which a fit solves (`tsm2.training.leading`).

What is added never exceeds what was added to any training window: a column that leaves its range
would else carry along those that it never moved so far.

Sizes: B windows, C columns (the variates, then the past covariates), M variates, T lookback, K
rows, H horizon.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Leaders"]


class Leaders(nn.Module):
    """Add to each variate's forecast what the latest rows of all columns say of it: nothing first.

    Parameters
    ----------
    n_columns
        Columns C that are read.
    n_variates
        Variates M that are forecast.
    rows
        Latest rows K of each column.
    horizon
        Steps H that are forecast.
    """

    def __init__(self, n_columns: int, n_variates: int, *, rows: int, horizon: int) -> None:
        super().__init__()
        self.rows = rows
        self.weight = nn.Parameter(torch.zeros(n_variates, horizon, n_columns * rows))
        self.register_buffer("largest", torch.full((n_variates, horizon), torch.inf))
        self.largest: Tensor

    def forward(self, columns: Tensor) -> Tensor:
        """Return what is added, (B, M, H), from columns less their levels, (B, C, T)."""
        added = self._unbounded(columns)
        return torch.maximum(torch.minimum(added, self.largest), -self.largest)

    def size(self, columns: Tensor) -> Tensor:
        """Return the size of what would be added unbounded, (B, M, H)."""
        return self._unbounded(columns).abs()

    def _unbounded(self, columns: Tensor) -> Tensor:
        latest = columns[..., -self.rows :].flatten(1)  # (B, C * K)
        added = functional.linear(latest, self.weight.flatten(0, 1))
        return added.view(-1, *self.largest.shape)
