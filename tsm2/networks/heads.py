"""Heads: from the features of all patches to the horizon, and the losses that train them.

Sizes: B windows, M variates, P patches, F features, H horizon.
Source: Behrouz et al. (2024), arXiv:2403.19888, figure 3 ("Temporal Projection").
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["LOSSES", "PointHead"]

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
}
"""Losses on standardised values, (B, M, H) against (B, M, H), by the name a user gives."""


class PointHead(nn.Module):
    """Project the features of all patches onto the horizon: one value per variate and step.

    Parameters
    ----------
    width
        P * F, the features that one variate has in all its patches.
    horizon
        Steps H that are forecast.
    n_variates
        Give every variate a projection of its own; None shares one.
    """

    def __init__(self, width: int, horizon: int, *, n_variates: int | None = None) -> None:
        super().__init__()
        shared = nn.Linear(width, horizon)
        if n_variates is None:
            self.weight, self.bias = shared.weight, shared.bias
        else:
            self.weight = nn.Parameter(shared.weight.detach().repeat(n_variates, 1, 1))
            self.bias = nn.Parameter(shared.bias.detach().repeat(n_variates, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return forecasts, (B, M, H), from the stream, (B, M, P, F)."""
        flat = x.flatten(2)  # (B, M, P * F)
        if self.weight.ndim == 2:
            return functional.linear(flat, self.weight, self.bias)
        return torch.einsum("bmk,mhk->bmh", flat, self.weight) + self.bias
