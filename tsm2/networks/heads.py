"""Heads: from the features of all patches to the horizon, and the losses that train them.

    point       y = W x + b
    quantiles   q[k] = m + s[1] + ... + s[k],   q[-k] = m - s[-1] - ... - s[-k],   s = softplus(g)
    parameters  of any distribution, in the units of a window of mean c and deviation d:
                location c + d y,   scale d softplus(y),   free y

with the median m and the gaps g two maps of the same features: quantiles cannot cross. A quantile's
loss is twice the pinball loss, so that the median's is the absolute error and the mean over many
quantiles comes near the continuous ranked probability score.

Sizes: B windows, M variates, P patches, F features, H horizon, Q quantiles, K parameters.
Sources: Behrouz et al. (2024), arXiv:2403.19888, figure 3 ("Temporal Projection"); Koenker &
Bassett (1978), Econometrica 46(1), for the quantile loss; Gneiting & Raftery (2007), JASA 102(477),
for its mean.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "LOSSES",
    "LossName",
    "ParameterHead",
    "ParameterKind",
    "PointHead",
    "QuantileHead",
    "in_units",
    "mean_loss",
    "quantile_loss",
]

LossName = Literal["mse", "mae", "huber", "quantile"]
ParameterKind = Literal["location", "scale", "free"]

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
}
"""Losses of a point forecast in standard units, (B, M, H) against (B, M, H), by name."""


def mean_loss(
    name: LossName,
    forecast: Tensor,
    target: Tensor,
    *,
    quantiles: Sequence[float] | Tensor = (),
    mask: Tensor | None = None,
) -> Tensor:
    """Return the loss of a batch.

    Parameters
    ----------
    name
        A name of `LOSSES`, or "quantile".
    forecast
        Standard units, (B, M, H); for "quantile" (B, M, H, Q).
    target
        What happened, (B, M, H).
    quantiles
        The levels of a quantile forecast, (Q,).
    mask
        True where the target is known, (B, M, H); None if all of it is.

    Returns
    -------
    The mean over what is known; 0 if nothing is.

    Examples
    --------
    >>> forecast, target = torch.zeros(1, 1, 3), torch.tensor([[[1.0, -3.0, float("nan")]]])
    >>> mean_loss("mae", forecast, target, mask=torch.tensor([[[True, True, False]]])).item()
    2.0
    """
    share: Tensor | float = 1.0
    if mask is not None:
        known = mask.unsqueeze(-1) if name == "quantile" else mask
        forecast, target = forecast.where(known, 0.0), target.where(mask, 0.0)  # no error there
        share = mask.numel() / mask.sum().clamp(min=1)
    if name == "quantile":
        return quantile_loss(forecast, target, quantiles) * share
    return LOSSES[name](forecast, target) * share


def quantile_loss(forecast: Tensor, target: Tensor, quantiles: Sequence[float] | Tensor) -> Tensor:
    """Return the mean of twice the pinball loss.

    Parameters
    ----------
    forecast
        One value per level, (..., Q).
    target
        What happened, (...).
    quantiles
        The levels, (Q,), in (0, 1).

    Examples
    --------
    >>> quantile_loss(torch.tensor([1.0, 2.0]), torch.tensor(3.0), [0.5, 0.9]).item()  # 2, 1.8
    1.899999976158142
    """
    levels = torch.as_tensor(quantiles, dtype=forecast.dtype, device=forecast.device)
    error = target.unsqueeze(-1) - forecast
    return 2 * torch.maximum(levels * error, (levels - 1) * error).mean()


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
    start_at_zero
        Forecast the window's level at first, whatever the window.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        *,
        n_variates: int | None = None,
        start_at_zero: bool = False,
    ) -> None:
        super().__init__()
        shared = nn.Linear(width, horizon)
        if start_at_zero:
            nn.init.zeros_(shared.weight)
            nn.init.zeros_(shared.bias)
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


class QuantileHead(nn.Module):
    """Forecast quantiles that never cross: the median, and gaps above and below it.

    The median starts as a point head of the same seed would. The gaps start as those of a normal
    distribution of unit deviation, alike for every input.

    Parameters
    ----------
    width
        P * F, the features that one variate has in all its patches.
    horizon
        Steps H that are forecast.
    quantiles
        Levels, (Q,), rising, 0.5 among them.
    n_variates, start_at_zero
        As of a `PointHead`, the median's.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        quantiles: Sequence[float],
        *,
        n_variates: int | None = None,
        start_at_zero: bool = False,
    ) -> None:
        super().__init__()
        self.n_below = list(quantiles).index(0.5)
        self.median = PointHead(width, horizon, n_variates=n_variates, start_at_zero=start_at_zero)
        self.gaps = PointHead(width, horizon * (len(quantiles) - 1), n_variates=n_variates)
        distances = torch.special.ndtri(torch.tensor(quantiles, dtype=torch.float64)).diff()
        nn.init.zeros_(self.gaps.weight)
        with torch.no_grad():
            self.gaps.bias.copy_(torch.log(torch.expm1(distances)).repeat(horizon))

    def forward(self, x: Tensor) -> Tensor:
        """Return quantiles, (B, M, H, Q), from the stream, (B, M, P, F)."""
        median = self.median(x).unsqueeze(-1)  # (B, M, H, 1)
        gaps = functional.softplus(self.gaps(x)).view(*median.shape[:-1], -1)  # (B, M, H, Q - 1)
        below = gaps[..., : self.n_below].flip(-1).cumsum(-1).flip(-1)
        above = gaps[..., self.n_below :].cumsum(-1)
        return torch.cat((median - below, median, median + above), dim=-1)


class ParameterHead(nn.Module):
    """Forecast K parameters of a distribution; which ones, the loss decides.

    The first starts as a point head's forecast does, the others start at zero for every input.

    Parameters
    ----------
    width
        P * F, the features that one variate has in all its patches.
    horizon
        Steps H that are forecast.
    n_parameters
        Parameters K.
    n_variates, start_at_zero
        As of a `PointHead`, the first parameter's.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        n_parameters: int,
        *,
        n_variates: int | None = None,
        start_at_zero: bool = False,
    ) -> None:
        super().__init__()
        self.n_parameters = n_parameters
        self.projection = PointHead(
            width, horizon * n_parameters, n_variates=n_variates, start_at_zero=start_at_zero
        )
        later = torch.arange(horizon * n_parameters) % n_parameters > 0
        with torch.no_grad():
            self.projection.weight[..., later, :] = 0.0
            self.projection.bias[..., later] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Return parameters, (B, M, H, K), from the stream, (B, M, P, F)."""
        values: Tensor = self.projection(x)  # (B, M, H * K)
        return values.view(*values.shape[:2], -1, self.n_parameters)


def in_units(
    raw: Tensor, kinds: Sequence[ParameterKind], mean: Tensor, deviation: Tensor
) -> Tensor:
    """Return a distribution's parameters in the units of windows.

    Parameters
    ----------
    raw
        As a `ParameterHead` gives them, (B, M, H, K).
    kinds
        What each of the K is.
    mean, deviation
        Of each window and variate, (B, M, 1).

    Examples
    --------
    >>> raw = torch.zeros(1, 1, 1, 2)
    >>> mean, deviation = torch.full((1, 1, 1), 5.0), torch.full((1, 1, 1), 2.0)
    >>> in_units(raw, ("location", "free"), mean, deviation).flatten().tolist()
    [5.0, 0.0]
    """
    restored = []
    for each, kind in zip(raw.unbind(-1), kinds, strict=True):  # (B, M, H)
        if kind == "location":
            restored.append(each * deviation + mean)
        elif kind == "scale":
            restored.append(functional.softplus(each) * deviation)
        else:
            restored.append(each)
    return torch.stack(restored, dim=-1)
