"""The floor: what any forecast must beat, measured on the rows that fit held out.

    repeat last       the last row comes again
    seasonal naive    the last season comes again
    linear            the exact linear forecast, if the fit started from it

Sizes: W windows, B windows in a batch, M variates, L lookback, H horizon.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn

from tsm2.errors import FloorWarning
from tsm2.networks.combined import CombinedNetwork, affordable
from tsm2.networks.patches import interpolate_gaps
from tsm2.prepared.windows import Windows

__all__ = ["measure_floor", "warn_below_floor"]

_MOST_WINDOWS, _BATCH = 4096, 256
_CLEAR = 1.02  # what lies closer is luck


@torch.inference_mode()
def measure_floor(
    network: nn.Module,
    windows: Windows,
    *,
    season: int | None,
    linear: float | None,
    point: Callable[[Tensor], Tensor],
) -> pd.Series[float]:
    """Return mean squared errors over held-out windows, by name.

    They are those of standardised values, in the units that errors of the windows count in.

    Parameters
    ----------
    network
        What was kept.
    windows
        Held out; at most 4096 of them, evenly spread, are forecast, and fewer where classical
        forecasts of them take long.
    season
        Rows of a season; None for none.
    linear
        Error of the exact linear forecast on all of them; None if it is not known.
    point
        Makes a point forecast, (B, M, H), of what the network returns.
    """
    lookback, horizon = windows.lookback, windows.horizon
    most = _MOST_WINDOWS
    if isinstance(network, CombinedNetwork):
        most = min(most, affordable(lookback, windows.values.shape[1]))
    device = next(network.parameters()).device
    sums: dict[str, float] = {}
    cells = 0.0
    for which in torch.split(windows.spread(most), _BATCH):
        batch = windows.gather(which)
        context = batch.context
        if batch.mask is not None:
            context = interpolate_gaps(context, batch.mask)
        forecasts = {"repeat last": context[..., -1:].expand(batch.target.shape)}
        if season is not None and season <= lookback:
            forecasts["seasonal naive"] = context[..., torch.arange(horizon) % season - season]
        placed = batch.to(device)
        forecasts["network"] = point(network(placed.context, **placed.auxiliary())).cpu()
        known = torch.ones_like(batch.target, dtype=torch.bool)
        known = known if batch.target_mask is None else batch.target_mask
        cells += float(known.sum())
        for name, forecast in forecasts.items():
            errors = forecast - batch.target
            if batch.error_unit is not None:
                errors = errors / batch.error_unit
            errors = errors.square().where(known, 0.0)
            sums[name] = sums.get(name, 0.0) + float(errors.double().sum())
    if not cells:
        return pd.Series(dtype=float)
    found = {name: total / cells for name, total in sums.items()}
    if linear is not None:
        found["linear"] = linear
    return pd.Series(found, dtype=float)


def warn_below_floor(floor: pd.Series[float]) -> None:
    """Warn in a sentence if the network errs clearly more than a forecast that costs nothing."""
    if "network" not in floor:
        return
    naive = floor.drop("network")
    best = str(naive.idxmin())
    if floor["network"] > _CLEAR * naive[best]:
        warnings.warn(
            f"on the rows held out for validation the model errs more than the forecast "
            f"{best!r} (mean squared error {floor['network']:.3g} against {naive[best]:.3g}, in "
            f"the units of its losses). Give more rows, a lookback that holds a season, or "
            f"lookback='auto', or take that forecast.",
            FloorWarning,
            stacklevel=3,
        )
