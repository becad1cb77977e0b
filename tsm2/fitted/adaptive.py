"""Adaptive intervals: in a backtest, the misses so far move the next bounds.

    bound[w] = median[w] + width[w] (quantile[w] - median[w])              width[0] = 1
    width[w + 1] = width[w] exp(rate (missed[w] - level))

of each variate of each series and each level, where `missed[w]` is the share of outcomes beyond the
bound, over the cells that became known between the forecasts w and w + 1, and `level` the share
that should be. Quantiles are the calibrated ones, so that widths are in units of what was expected
of a window and step. However the table drifts, the share of misses comes to `level` in the long
run: the sum of missed - level is the change of the width's logarithm over the rate, and widths that
cover all or nothing come back.

Sizes: W windows, H horizon, M variates, Q levels.
Source: Gibbs & Candes (2021), arXiv:2106.00172 (adaptive conformal inference); Angelopoulos, Candes
& Tibshirani (2023), arXiv:2307.16895, section 2 (the same for a bound, here for its logarithm).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.tables.quantiles import bound_name

__all__ = ["adapted_table"]

_RATE = 0.2
"""What costs no width on the development tasks, see `benchmarks/adaptive_intervals.py`."""
_WIDEST = 1e6  # a width of 0 would never grow again


def adapted_table(
    table: pd.DataFrame, levels: Sequence[float], *, several: bool, rate: float = _RATE
) -> pd.DataFrame:
    """Return a backtest with bounds that follow the misses before each forecast.

    Parameters
    ----------
    table
        As `tsm2.backtesting.backtest_table` makes it, with calibrated quantiles of the levels and
        of the median; whole windows of the same steps and variates, those of a series in the order
        of time.
    levels
        Levels to adapt, rising.
    several
        Whether the first column says which series.
    rate
        How far the width moves with a share of misses.
    """
    names = [bound_name(level) for level in levels]
    n_variates = len(table["variate"].cat.categories)
    horizon = int(table["step"].max())
    shape = (-1, horizon, n_variates)
    actual = table["actual"].to_numpy(np.float64).reshape(shape)
    median = table[bound_name(0.5)].to_numpy(np.float64).reshape(shape)
    bounds = table[names].to_numpy(np.float64).reshape(*shape, len(levels))
    firsts = slice(None, None, horizon * n_variates)
    owners = pd.factorize(table.iloc[firsts, 0])[0] if several else np.zeros(len(actual), np.int64)
    stamps = pd.concat((table["time"], table["cutoff"]))
    codes = pd.factorize(stamps, sort=True)[0]
    order = codes.reshape(2, len(actual), horizon, n_variates)[..., 0]  # (2, W, H)
    # Calibrated bounds come to exactly zero where a model forecasts nothing below it.
    reached = np.fmin.reduce(bounds, axis=(0, 1, 3)) == 0
    lowest = np.where(reached, 0.0, -np.inf)
    adapted = np.empty_like(bounds)
    for owner in range(int(owners.max()) + 1):
        own = np.flatnonzero(owners == owner)
        happens, seen = order[0, own], order[1, own, 0]
        adapted[own] = _adapted(
            actual[own], median[own], bounds[own], lowest, happens, seen, np.asarray(levels), rate
        )
    columns = adapted.reshape(len(table), -1)
    extra = [] if 0.5 in levels else [bound_name(0.5)]
    return table.drop(columns=extra).assign(**{n: columns[:, k] for k, n in enumerate(names)})


def _adapted(
    actual: NDArray[np.float64],
    median: NDArray[np.float64],
    bounds: NDArray[np.float64],
    lowest: NDArray[np.float64],
    happens: NDArray[np.int64],
    seen: NDArray[np.int64],
    levels: NDArray[np.float64],
    rate: float,
) -> NDArray[np.float64]:
    """Adapt the windows of one series.

    Parameters
    ----------
    actual, median
        (W, H, M).
    bounds
        (W, H, M, Q).
    lowest
        What no bound is below, (M,).
    happens
        Number of the row of each step, (W, H).
    seen
        Number of the last row before each forecast, (W,).
    levels
        (Q,).
    rate
        See `adapted_table`.
    """
    below = levels < 0.5
    share = np.minimum(levels, 1 - levels)
    width = np.ones(bounds.shape[2:])  # (M, Q)
    adapted, missed = np.empty_like(bounds), np.zeros_like(bounds)
    first = 0  # windows before have no step that becomes known
    for window, now in enumerate(seen):
        if window:
            while happens[first, -1] <= seen[window - 1]:
                first += 1
            new = (happens[first:window] > seen[window - 1]) & (happens[first:window] <= now)
            cells = missed[first:window][new]  # (cells, M, Q)
            counts = np.isfinite(cells).sum(0)
            moved = np.nansum(cells, axis=0) / counts.clip(min=1) - share
            width = width * np.exp(rate * np.where(counts > 0, moved, 0.0))
            width = width.clip(1 / _WIDEST, _WIDEST)
        center = median[window][..., None]
        adapted[window] = np.maximum(center + width * (bounds[window] - center), lowest[:, None])
        adapted[window][..., levels == 0.5] = center
        outcome = actual[window][..., None]
        beyond = np.where(below, outcome < adapted[window], outcome > adapted[window])
        missed[window] = np.where(np.isnan(outcome + adapted[window]), np.nan, beyond)
    return np.maximum.accumulate(adapted, axis=-1)
