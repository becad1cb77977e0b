"""Measures of forecasts: how far they miss, and whether their intervals hold.

Outcomes and forecasts are arrays of one shape. A measure is a mean over `axis`, as numpy counts
axes: None for all, () for every value on its own, 0 for one figure per variate of (T, M).

Sources: Hyndman & Koehler (2006), Int. J. Forecasting 22(4) (MASE); Makridakis et al. (2022), Int.
J. Forecasting 38(4) (RMSSE, WRMSSE); Gneiting & Raftery (2007), JASA 102(477) (quantile loss).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsm2.errors import ParameterError

__all__ = [
    "coverage",
    "mae",
    "mase",
    "mse",
    "naive_scale",
    "quantile_loss",
    "rmsse",
    "smape",
    "wrmsse",
]

Axis = int | tuple[int, ...] | None


def mse(actual: ArrayLike, forecast: ArrayLike, *, axis: Axis = None) -> Any:
    """Return the mean squared error, in the square of the unit."""
    return np.square(_errors(actual, forecast)).mean(axis=axis)


def mae(actual: ArrayLike, forecast: ArrayLike, *, axis: Axis = None) -> Any:
    """Return the mean absolute error, in the unit."""
    return np.abs(_errors(actual, forecast)).mean(axis=axis)


def smape(actual: ArrayLike, forecast: ArrayLike, *, axis: Axis = None) -> Any:
    """Return the symmetric mean absolute percentage error, in percent from 0 to 200.

    Where outcome and forecast are both 0, the error is 0.

    Examples
    --------
    >>> float(smape([100.0, 0.0], [300.0, 0.0]))
    50.0
    """
    missed = np.abs(_errors(actual, forecast))
    sizes = np.abs(np.asarray(actual)) + np.abs(np.asarray(forecast))
    shares = np.divide(2 * missed, sizes, out=np.zeros_like(missed, float), where=sizes > 0)
    return 100 * shares.mean(axis=axis)


def mase(
    actual: ArrayLike,
    forecast: ArrayLike,
    history: ArrayLike,
    *,
    season: int = 1,
    axis: Axis = None,
) -> Any:
    """Return the mean absolute scaled error, without unit.

    Parameters
    ----------
    actual, forecast
        Outcomes and forecasts, (..., M).
    history
        What the forecaster was trained on, (T, M): a variate's errors are divided by its mean
        absolute difference over a season.
    season
        Rows in a season; 1 compares with repeating the last value.
    axis
        As for all measures.

    Returns
    -------
    1 is as good as the seasonal naive forecast of one step was on the history; NaN for a variate
    that never changed there.

    Examples
    --------
    >>> float(mase([[5.0]], [[7.0]], [[1.0], [2.0], [3.0]]))
    2.0
    """
    return (np.abs(_errors(actual, forecast)) / naive_scale(history, season)).mean(axis=axis)


def naive_scale(history: ArrayLike, season: int = 1) -> NDArray[np.float64]:
    """Return what `mase` divides the errors of every variate by, (M,), in the unit.

    That is the mean absolute difference of a history, (T, M), from itself a season earlier. Where
    one of the two is missing the pair does not count; NaN for a variate that never changed.

    Examples
    --------
    >>> naive_scale([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]]).tolist()
    [1.5, nan]
    """
    moved = np.abs(_differences(history, season))
    counted = np.isfinite(moved).sum(axis=0)
    return _or_nan(np.nansum(moved, axis=0) / counted.clip(min=1))


def rmsse(
    actual: ArrayLike, forecast: ArrayLike, history: ArrayLike, *, season: int = 1
) -> NDArray[np.float64]:
    """Return the root mean squared scaled error of every variate, (M,), without unit.

    Parameters
    ----------
    actual, forecast
        Outcomes and forecasts, (..., M).
    history
        What the forecaster was trained on, (T, M).
    season
        Rows in a season.

    Examples
    --------
    >>> rmsse([[5.0], [5.0]], [[7.0], [7.0]], [[1.0], [2.0], [3.0]]).tolist()
    [2.0]
    """
    errors = np.square(_errors(actual, forecast))
    scale = np.square(_differences(history, season)).mean(axis=0)  # (M,)
    rooted: NDArray[np.float64] = np.sqrt(
        errors.mean(axis=tuple(range(errors.ndim - 1))) / _or_nan(scale)
    )
    return rooted


def wrmsse(
    actual: ArrayLike,
    forecast: ArrayLike,
    history: ArrayLike,
    weights: ArrayLike,
    *,
    season: int = 1,
) -> float:
    """Return the weighted mean of the variates' `rmsse`; the weights, (M,), need not add up to 1.

    Examples
    --------
    >>> wrmsse([[5.0, 1.0]], [[7.0, 1.0]], [[1.0, 0.0], [2.0, 1.0]], weights=[3.0, 1.0])
    1.5
    """
    each = rmsse(actual, forecast, history, season=season)
    return float(np.average(each, weights=np.asarray(weights)))


def quantile_loss(
    actual: ArrayLike, quantiles: ArrayLike, levels: ArrayLike, *, axis: Axis = None
) -> Any:
    """Return twice the pinball loss, in the unit, as a mean over the levels too.

    For the median alone it is the mean absolute error; over many levels, evenly spread, it comes
    near the continuous ranked probability score.

    Parameters
    ----------
    actual
        Outcomes, (...).
    quantiles
        Forecast quantiles, (..., Q).
    levels
        Their levels, (Q,).
    axis
        Of the outcomes.

    Examples
    --------
    >>> float(quantile_loss([3.0], [[1.0, 2.0]], [0.5, 0.9]))  # 2 and 1.8
    1.9
    """
    errors = np.expand_dims(np.asarray(actual), -1) - np.asarray(quantiles)
    shares = np.asarray(levels)
    losses = 2 * np.maximum(shares * errors, (shares - 1) * errors)
    return losses.mean(axis=-1).mean(axis=axis)


def coverage(actual: ArrayLike, lower: ArrayLike, upper: ArrayLike, *, axis: Axis = None) -> Any:
    """Return the share of outcomes that lie in their interval, bounds included, from 0 to 1.

    Examples
    --------
    >>> float(coverage([1.0, 2.0, 3.0, 4.0], lower=[0.0] * 4, upper=[3.0] * 4))
    0.75
    """
    outcomes = np.asarray(actual)
    inside = (outcomes >= np.asarray(lower)) & (outcomes <= np.asarray(upper))
    return inside.mean(axis=axis)


def _errors(actual: ArrayLike, forecast: ArrayLike) -> NDArray[np.float64]:
    """Return what the forecasts are off by; as arrays, so that no index is aligned."""
    return np.asarray(forecast, dtype=np.float64) - np.asarray(actual, dtype=np.float64)


def _differences(history: ArrayLike, season: int) -> NDArray[np.float64]:
    """Return what each row of a history, (T, M), differs from that a season earlier."""
    values = np.asarray(history, dtype=np.float64)
    if not 1 <= season < len(values):
        raise ParameterError(
            f"season must be from 1 to below the history's {len(values)} rows, got {season}."
        )
    return values[season:] - values[:-season]


def _or_nan(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scales with NaN for zero, which nothing can be divided by."""
    return np.where(scale > 0, scale, np.nan)
