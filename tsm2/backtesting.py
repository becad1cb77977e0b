"""Backtests: forecast every window of a table and set the forecasts beside what happened.

Nothing here knows the model: it forecasts a batch of contexts at a time, and a table of forecasts
or their mean errors come out. TSM2 and the models it is compared with go the same way. A model may
be fitted again as the backtest moves on, always to rows before the first one that it forecasts:

    window="expanding"   fit 1 |======|          fit 2 |=========|       fit 3 |============|
    window="sliding"     fit 1 |======|          fit 2    |======|       fit 3       |======|

Sizes: T rows, M variates, B windows, L lookback, H horizon.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone

from tsm2.errors import FrameError, ParameterError, WindowError
from tsm2.frames import Panel, rows_of, write_forecast

__all__ = [
    "ForecastsContexts",
    "Walk",
    "backtest_table",
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


def _forecasts(
    model: ForecastsContexts, values: NDArray[np.float64], walk: Walk
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
    """Yield, a batch at a time, starts (B,), forecasts (B, H, M) and what happened (B, H, M)."""
    starts = walk.starts(len(values))
    contexts = np.lib.stride_tricks.sliding_window_view(values, walk.lookback, axis=0)
    targets = np.lib.stride_tricks.sliding_window_view(values, walk.horizon, axis=0)
    for batch in np.array_split(starts, range(_BATCH, len(starts), _BATCH)):
        forecast = model.forecast_contexts(
            contexts[batch - walk.lookback].swapaxes(1, 2), walk.horizon
        )
        yield batch, forecast, targets[batch].swapaxes(1, 2)


def backtest_table(model: ForecastsContexts, panel: Panel, walk: Walk) -> pd.DataFrame:
    """Forecast every window of a walk.

    Returns
    -------
    One row per window, step and variate: `cutoff` (the last row the model saw), `step` (1 to H),
    `time` (the row that is forecast), `variate`, `actual` and `forecast` in the table's units.
    """
    batches = list(_forecasts(model, panel.values, walk))
    starts = np.concatenate([batch for batch, _, _ in batches])
    forecast = np.concatenate([forecast for _, forecast, _ in batches])  # (W, H, M)
    actual = np.concatenate([actual for _, _, actual in batches])
    n_windows, horizon, n_variates = forecast.shape
    steps = np.arange(horizon)
    per_window = horizon * n_variates
    variates = pd.Index(panel.layout.columns)
    return pd.DataFrame(
        {
            "cutoff": panel.index[np.repeat(starts - 1, per_window)],
            "step": np.tile(np.repeat(steps + 1, n_variates), n_windows),
            "time": panel.index[np.repeat((starts[:, None] + steps).ravel(), n_variates)],
            "variate": pd.Categorical.from_codes(
                np.tile(np.arange(n_variates), n_windows * horizon), categories=variates
            ),
            "actual": actual.ravel(),
            "forecast": forecast.ravel(),
        }
    )


def refit_table(
    model: Any,
    panel: Panel,
    walk: Walk,
    *,
    every: int,
    window: Literal["expanding", "sliding"],
    n_jobs: int | None = None,
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
        )
        for piece in pieces
    )
    whole: pd.DataFrame = pd.concat(tables, ignore_index=True)
    return whole


def _refit_piece(model: Any, known: Panel, tested: Panel, walk: Walk) -> pd.DataFrame:
    """Fit a copy of the model to the known rows and forecast the windows of the tested ones."""
    copy: Any = clone(model)
    copy.fit(write_forecast(known.values, known.index, known.layout))
    return backtest_table(copy, tested, walk)


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
    for batch, forecast, actual in _forecasts(model, values, walk):
        errors = (forecast - actual) / scale
        squared += float(np.square(errors).mean(axis=(1, 2)).sum())
        absolute += float(np.abs(errors).mean(axis=(1, 2)).sum())
        windows += len(batch)
    return squared / windows, absolute / windows, windows
