"""Rolling forward: forecasts of any length from a network that forecasts H steps.

    context, then forecast 1, then forecast 2, ...      each reads the L steps before it

What was forecast is taken for known. Past covariates are unknown from the first forecast on, so
that only a network that can do without them, one that was trained with a mask, rolls forward.

Sizes: B windows, M variates, L lookback, H horizon of the network, Cp past covariates.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["roll_forward", "roll_quantiles", "whole_horizons"]


def whole_horizons(steps: int, horizon: int) -> int:
    """Return the steps that a forecast of `steps` reads covariates for: whole horizons.

    Examples
    --------
    >>> whole_horizons(25, 24), whole_horizons(6, 24)
    (48, 24)
    """
    return -(-steps // horizon) * horizon


def roll_forward(
    network: Callable[..., Tensor],
    context: Tensor,
    steps: int,
    horizon: int,
    auxiliary: Mapping[str, Tensor],
    *,
    point: Callable[[Tensor, Tensor, Tensor | None], Tensor],
) -> Tensor:
    """Forecast `steps` steps.

    Parameters
    ----------
    network
        Forecasts `horizon` steps.
    context
        Standardised values, (B, M, L).
    steps
        How many to forecast.
    horizon
        Steps H that the network forecasts at once.
    auxiliary
        What else the network reads, see `Batch.auxiliary`; "future" covers all whole horizons.
    point
        Makes of what the network returns, the context and its mask what comes next, (B, M, H).

    Returns
    -------
    Forecasts, (B, M, steps).
    """
    rolls = _rolls(network, context, steps, horizon, auxiliary, point=point)
    return torch.cat([each for _, each in rolls], dim=-1)[..., :steps]


def roll_quantiles(
    network: Callable[..., Tensor],
    context: Tensor,
    steps: int,
    horizon: int,
    auxiliary: Mapping[str, Tensor],
    *,
    point: Callable[[Tensor, Tensor, Tensor | None], Tensor],
) -> Tensor:
    """Forecast quantiles of `steps` steps, (B, M, steps, Q); parameters as for `roll_forward`.

    The network takes its own medians for known, but they are not: to the square of how far a
    quantile is from the median, that of the step which the roll began behind is added, as if the
    errors of both were independent.
    """
    pieces: list[Tensor] = []
    behind: Tensor | float = 0.0  # how far quantiles are from the median where a roll begins
    for quantiles, median in _rolls(network, context, steps, horizon, auxiliary, point=point):
        middle = median.unsqueeze(-1)
        own = quantiles - middle
        away = own.sign() * torch.sqrt(own.square() + torch.as_tensor(behind).square())
        pieces.append(middle + away)
        behind = away[..., -1:, :]
    return torch.cat(pieces, dim=-2)[..., :steps, :]


def _rolls(
    network: Callable[..., Tensor],
    context: Tensor,
    steps: int,
    horizon: int,
    auxiliary: Mapping[str, Tensor],
    *,
    point: Callable[[Tensor, Tensor, Tensor | None], Tensor],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what the network returns of every roll, and the point that is then taken for known."""
    lookback = context.shape[-1]
    now = dict(auxiliary)
    for start in range(0, steps, horizon):
        if "future" in now:
            now["future"] = auxiliary["future"][..., start : start + lookback + horizon]
        forecast = network(context, **now)
        next_values = point(forecast, context, now.get("mask"))
        yield forecast, next_values
        if start + horizon >= steps:
            break
        context = torch.cat((context, next_values), dim=-1)[..., -lookback:]
        if "mask" in now:
            now["mask"] = functional.pad(now["mask"], (0, horizon), value=True)[..., -lookback:]
        if "past" in now:
            known = now.get("past_mask", torch.ones_like(now["past"], dtype=torch.bool))
            now["past_mask"] = functional.pad(known, (0, horizon), value=False)[..., -lookback:]
            now["past"] = functional.pad(now["past"], (0, horizon))[..., -lookback:]
