"""Backtests: forecast every window of a table and set the forecasts beside what happened.

Nothing here knows the model: it forecasts a batch of contexts at a time, and a table of forecasts
or their mean errors come out. TSM2 and the models it is compared with go the same way. A model may
be fitted again as the backtest moves on, always to rows before the first one that it forecasts:

    window="expanding"   fit 1 |======|          fit 2 |=========|       fit 3 |============|
    window="sliding"     fit 1 |======|          fit 2    |======|       fit 3       |======|

Sizes: T rows, M variates, B windows, L lookback, H horizon, Q quantiles.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone

from tsm2 import metrics
from tsm2.errors import FrameError, ParameterError, WindowError
from tsm2.frames import Panel, rows_of, write_forecast
from tsm2.quantiles import bound_level, bound_name

__all__ = [
    "ForecastsContexts",
    "ForecastsQuantiles",
    "Walk",
    "backtest_table",
    "error_table",
    "mean_errors",
    "refit_table",
    "start_position",
]

_BATCH = 256


class ForecastsContexts(Protocol):
    """What a model offers to be backtested."""

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return forecasts, (B, H, M), for contexts, (B, L, M), both in the units of the table."""
        ...


class ForecastsQuantiles(ForecastsContexts, Protocol):
    """What a model offers to be backtested on its quantiles."""

    def forecast_quantiles(
        self, contexts: NDArray[np.float64], horizon: int, levels: Sequence[float]
    ) -> NDArray[np.float64]:
        """Return quantiles, (B, H, M, Q), for contexts, (B, L, M), and rising levels, (Q,)."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """Which windows of a table are forecast."""

    lookback: int
    """Rows L that a model may read before each forecast."""
    horizon: int
    """Rows H that are forecast."""
    stride: int = 1
    """Rows from one forecast to the next."""
    first: int | None = None
    """Position of the first forecast row; None for the first one with a full lookback."""

    def starts(self, n_rows: int) -> NDArray[np.int64]:
        """Return the position of the first forecast row of every window, none dropped.

        Raises
        ------
        WindowError
            No window fits.
        """
        first = self.lookback if self.first is None else self.first
        if first < self.lookback:
            raise WindowError(
                f"the first forecast row is row {first} of the table, but {self.lookback} rows "
                f"(lookback) must stand before it. Start later, or put history in front."
            )
        if first + self.horizon > n_rows:
            raise WindowError(
                f"the table has {n_rows} rows, but one forecast needs {first + self.horizon}: "
                f"{first} before it and {self.horizon} (horizon) to compare with. Give more rows, "
                f"or lower horizon or lookback."
            )
        return np.arange(first, n_rows - self.horizon + 1, self.stride)


def start_position(index: pd.Index, start: object) -> int:
    """Return the position of the row labelled `start`.

    Raises
    ------
    FrameError
        No row has that label.
    """
    try:
        position = index.get_loc(start)
    except (KeyError, TypeError, ValueError):
        position = None
    if not isinstance(position, (int, np.integer)):
        raise FrameError(
            f"start={start!r} is not a row of the table, whose rows go from {index[0]} to "
            f"{index[-1]}. Pass the label of the first row to forecast."
        )
    return int(position)


def _windows(
    values: NDArray[np.float64], walk: Walk
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
    """Yield, a batch at a time, starts (B,), contexts (B, L, M) and what happened (B, H, M)."""
    starts = walk.starts(len(values))
    contexts = np.lib.stride_tricks.sliding_window_view(values, walk.lookback, axis=0)
    targets = np.lib.stride_tricks.sliding_window_view(values, walk.horizon, axis=0)
    for batch in np.array_split(starts, range(_BATCH, len(starts), _BATCH)):
        yield batch, contexts[batch - walk.lookback].swapaxes(1, 2), targets[batch].swapaxes(1, 2)


def backtest_table(
    model: ForecastsContexts, panel: Panel, walk: Walk, *, quantiles: Sequence[float] = ()
) -> pd.DataFrame:
    """Forecast every window of a walk.

    Parameters
    ----------
    model
        What forecasts; for quantiles a `ForecastsQuantiles`.
    panel
        The table.
    walk
        Which windows.
    quantiles
        Levels of quantiles to forecast too, rising.

    Returns
    -------
    One row per window, step and variate: `cutoff` (the last row the model saw), `step` (1 to H),
    `time` (the row that is forecast), `variate`, `actual` and `forecast` in the table's units; then
    a column per quantile, such as `lo-80`, `median`, `hi-80`.
    """
    starts, actual, forecast, bounds = [], [], [], []
    for batch, contexts, target in _windows(panel.values, walk):
        starts.append(batch)
        actual.append(target)
        forecast.append(model.forecast_contexts(contexts, walk.horizon))
        if quantiles:
            both = cast("ForecastsQuantiles", model)
            bounds.append(both.forecast_quantiles(contexts, walk.horizon, quantiles))
    first = np.concatenate(starts)
    n_windows, horizon, n_variates = len(first), walk.horizon, len(panel.layout.columns)
    steps = np.arange(horizon)
    per_window = horizon * n_variates
    variates = pd.Index(panel.layout.columns)
    table = pd.DataFrame(
        {
            "cutoff": panel.index[np.repeat(first - 1, per_window)],
            "step": np.tile(np.repeat(steps + 1, n_variates), n_windows),
            "time": panel.index[np.repeat((first[:, None] + steps).ravel(), n_variates)],
            "variate": pd.Categorical.from_codes(
                np.tile(np.arange(n_variates), n_windows * horizon), categories=variates
            ),
            "actual": np.concatenate(actual).ravel(),
            "forecast": np.concatenate(forecast).ravel(),
        }
    )
    if quantiles:
        columns = np.concatenate(bounds).reshape(len(table), -1)
        table[[bound_name(level) for level in quantiles]] = columns
    return table


def error_table(
    table: pd.DataFrame,
    *,
    by: str | list[str] | None = "variate",
    scale: Mapping[object, float] | None = None,
) -> pd.DataFrame:
    """Return the mean errors of a backtest.

    Parameters
    ----------
    table
        What `backtest_table` returned.
    by
        Column or columns, such as "variate" or "step", whose values get a row each; None for one
        row, "all".
    scale
        What the errors of each variate are divided by first; None leaves them in its unit.

    Returns
    -------
    `MSE` and `MAE`; with quantiles also `quantile loss`, the mean over them (see
    `tsm2.metrics.quantile_loss`), and the share of outcomes inside each interval, such as
    `coverage-80`, whose two bounds were forecast.

    Examples
    --------
    >>> table = pd.DataFrame({"variate": ["a", "a"], "actual": [1.0, 4.0], "forecast": [2.0, 4.0],
    ...                       "lo-80": [1.5, 3.0], "hi-80": [3.0, 5.0]})
    >>> error_table(table).loc["a"].round(3).to_dict()
    {'MSE': 0.5, 'MAE': 0.5, 'quantile loss': 0.425, 'coverage-80': 0.5}
    """
    unit = 1.0 if scale is None else table["variate"].map(scale).to_numpy(np.float64)
    actual, forecast = (table[name].to_numpy(np.float64) / unit for name in ("actual", "forecast"))
    each = {
        "MSE": metrics.mse(actual, forecast, axis=()),
        "MAE": metrics.mae(actual, forecast, axis=()),
    }
    levels = {name: level for name in table.columns if (level := bound_level(name)) is not None}
    if levels:
        bounds = table[list(levels)].to_numpy(np.float64) / np.reshape(unit, (-1, 1))
        each["quantile loss"] = metrics.quantile_loss(actual, bounds, [*levels.values()], axis=())
    for lower in levels:
        upper = lower.replace("lo-", "hi-")
        if lower != upper and upper in levels:
            inside = metrics.coverage(table["actual"], table[lower], table[upper], axis=())
            each[lower.replace("lo-", "coverage-")] = inside
    errors = pd.DataFrame(each, index=table.index).astype(np.float64)
    if by is None:
        return errors.mean().to_frame("all").T
    keys = [table[name] for name in ([by] if isinstance(by, str) else by)]
    return errors.groupby(keys, observed=True, sort=False).mean()


def refit_table(
    model: Any,
    panel: Panel,
    walk: Walk,
    *,
    every: int,
    window: Literal["expanding", "sliding"],
    n_jobs: int | None = None,
    quantiles: Sequence[float] = (),
) -> pd.DataFrame:
    """Forecast every window of a walk, each with a model that was fitted shortly before it.

    Parameters
    ----------
    model
        A scikit-learn estimator that also forecasts contexts; copies of it are fitted.
    panel
        The table.
    walk
        Which windows; `first` must be given.
    every
        Windows that one fit forecasts.
    window
        "expanding" fits to all rows before a fit's first forecast, "sliding" to the last of them,
        as many as the first fit had.
    n_jobs
        Fits side by side, as joblib counts them.
    quantiles
        As in `backtest_table`.

    Returns
    -------
    The columns of `backtest_table`.

    Raises
    ------
    ParameterError
        The walk has no start, `window` is unknown, or `n_jobs` is no count.
    WindowError
        No window fits, or the rows before the start are too few to fit to.
    """
    if walk.first is None:
        raise ParameterError(
            "refit needs start, the label of the first row to forecast: the rows before it are "
            "what the first fit learns from."
        )
    if window not in ("expanding", "sliding"):
        raise ParameterError(f"window must be 'expanding' or 'sliding', got {window!r}.")
    if not isinstance(n_jobs, int | None) or n_jobs == 0:
        raise ParameterError(
            f"n_jobs must be a count of processes, -1 for all processors, or None, got {n_jobs!r}."
        )
    starts = walk.starts(len(panel.values))
    pieces = np.array_split(starts, range(every, len(starts), every))
    tables: Any = Parallel(n_jobs=n_jobs)(
        delayed(_refit_piece)(
            model,
            rows_of(panel, 0 if window == "expanding" else piece[0] - walk.first, piece[0]),
            rows_of(panel, piece[0] - walk.lookback, piece[-1] + walk.horizon),
            replace(walk, first=None),
            quantiles,
        )
        for piece in pieces
    )
    whole: pd.DataFrame = pd.concat(tables, ignore_index=True)
    return whole


def _refit_piece(
    model: Any, known: Panel, tested: Panel, walk: Walk, quantiles: Sequence[float]
) -> pd.DataFrame:
    """Fit a copy of the model to the known rows and forecast the windows of the tested ones."""
    copy: Any = clone(model)
    copy.fit(write_forecast(known.values, known.index, known.layout))
    return backtest_table(copy, tested, walk, quantiles=quantiles)


def mean_errors(
    model: ForecastsContexts,
    values: NDArray[np.float64],
    walk: Walk,
    *,
    scale: NDArray[np.float64],
) -> tuple[float, float, int]:
    """Return MSE and MAE over all windows, steps and variates, and the number of windows.

    Parameters
    ----------
    model
        What forecasts.
    values
        The table, (T, M).
    walk
        Which windows.
    scale
        What each variate's errors are divided by first, (M,).
    """
    squared = absolute = 0.0
    windows = 0
    for batch, contexts, actual in _windows(values, walk):
        errors = (model.forecast_contexts(contexts, walk.horizon) - actual) / scale
        squared += float(np.square(errors).mean(axis=(1, 2)).sum())
        absolute += float(np.abs(errors).mean(axis=(1, 2)).sum())
        windows += len(batch)
    return squared / windows, absolute / windows, windows
