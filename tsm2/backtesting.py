"""Backtests: forecast every window of a table and set the forecasts beside what happened.

Nothing here knows the model: it forecasts a batch of contexts at a time, and a table of forecasts
or their mean errors come out. TSM2 and the models it is compared with go the same way. A model may
be fitted again as the backtest moves on, always to rows before the first one that it forecasts:

    window="expanding"   fit 1 |======|          fit 2 |=========|       fit 3 |============|
    window="sliding"     fit 1 |======|          fit 2    |======|       fit 3       |======|

Sizes: T rows, M variates, B windows, L lookback, H horizon, Q quantiles.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone

from tsm2 import metrics
from tsm2.errors import FrameError, ParameterError, WindowError
from tsm2.prepared.inputs import Beside
from tsm2.prepared.knowledge import Tables
from tsm2.prepared.splits import check_long_enough
from tsm2.tables.frames import Layout, Panel, rows_of, write_forecast
from tsm2.tables.quantiles import bound_level, bound_name
from tsm2.tables.ragged import owners, ranges

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
        """Return forecasts, (B, H, M), for contexts, (B, L, M), both in the units of the table.

        A model that takes `units` as well may be backtested on series that have units of their own.
        """
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

    def starts_in(self, panel: Panel, start: object = None) -> NDArray[np.int64]:
        """Return the row of the first forecast row of every window in a panel, (W,), rising.

        Parameters
        ----------
        panel
            One table, or several series, none of whose windows reaches into another.
        start
            Label of the first row to forecast; of several series, each starts at its first row from
            there on that has a full lookback before it. None for the first row that has one.

        Raises
        ------
        WindowError
            No window fits, or, without `start`, a series is too short for one.
        FrameError
            `start` is no row of the table, or no label of its kind.
        """
        if panel.layout.series == "one":
            first = self.first if start is None else start_position(panel.index, start)
            return replace(self, first=first).starts(len(panel.values))
        needed = self.lookback + self.horizon
        before = np.full(len(panel.ids), self.lookback)
        if start is None:
            sum_of = f"lookback={self.lookback} + horizon={self.horizon}"
            check_long_enough(panel, needed, sum_of)
        else:
            before = np.maximum(before, _rows_before(panel, start))
        counts = np.maximum(0, (panel.counts - before - self.horizon) // self.stride + 1)
        if not counts.any():
            raise WindowError(
                f"no series has {self.horizon} rows (horizon) from start={start!r} on and "
                f"{self.lookback} (lookback) before them. Start earlier."
            )
        steps = ranges(np.zeros_like(counts), counts) * self.stride
        return np.repeat(panel.offsets[:-1] + before, counts) + steps


def _rows_before(panel: Panel, start: object) -> NDArray[np.int64]:
    """Count the rows of each series that stand before a label, (S,)."""
    try:
        is_before = np.asarray(panel.index < start)
    except (TypeError, ValueError) as error:
        raise FrameError(
            f"start={start!r} cannot be compared with the rows of the series, which go from "
            f"{panel.index[0]} on ({error}). Pass a label like theirs."
        ) from error
    return np.add.reduceat(is_before, panel.offsets[:-1], dtype=np.int64)


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
    values: NDArray[np.float64],
    contexts: NDArray[np.float64] | None,
    walk: Walk,
    starts: NDArray[np.int64],
    beside: Beside | None,
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64], dict[str, Any]]]:
    """Yield, a batch at a time, which windows, contexts (B, L, M), what happened (B, H, M).

    The arguments that a model gets beside the contexts come last.
    """
    read = values if contexts is None else contexts
    before = np.lib.stride_tricks.sliding_window_view(read, walk.lookback, axis=0)
    targets = np.lib.stride_tricks.sliding_window_view(values, walk.horizon, axis=0)
    for first in range(0, len(starts), _BATCH):
        which = slice(first, first + _BATCH)
        batch = starts[which]
        context, target = before[batch - walk.lookback], targets[batch]
        own = {} if beside is None else beside(which)
        yield which, context.swapaxes(1, 2), target.swapaxes(1, 2), own


def backtest_table(
    model: ForecastsContexts,
    panel: Panel,
    walk: Walk,
    *,
    contexts: NDArray[np.float64] | None = None,
    starts: NDArray[np.int64] | None = None,
    beside: Beside | None = None,
    quantiles: Sequence[float] = (),
) -> pd.DataFrame:
    """Forecast every window of a walk.

    Parameters
    ----------
    model
        What forecasts; for quantiles a `ForecastsQuantiles`.
    panel
        The table, or several series.
    walk
        Which windows.
    contexts
        What the model reads of the rows; None for their values.
    starts
        First forecast row of every window, (W,); None for all of the walk.
    beside
        What the model gets beside the contexts, such as the units of every window.
    quantiles
        Levels of quantiles to forecast too, rising.

    Returns
    -------
    One row per window, step and variate: `cutoff` (the last row the model saw), `step` (1 to H),
    `time` (the row that is forecast), `variate`, `actual` and `forecast` in the table's units; then
    a column per quantile, such as `lo-80`, `median`, `hi-80`. Of several series, the first column
    says which one, see `series_column`.
    """
    starts = walk.starts_in(panel) if starts is None else starts
    actual, forecast, bounds = [], [], []
    for _, context, target, own in _windows(panel.values, contexts, walk, starts, beside):
        actual.append(target)
        forecast.append(model.forecast_contexts(context, walk.horizon, **own))
        if quantiles:
            both = cast("ForecastsQuantiles", model)
            bounds.append(both.forecast_quantiles(context, walk.horizon, quantiles, **own))
    n_windows, horizon, n_variates = len(starts), walk.horizon, len(panel.layout.columns)
    steps = np.arange(horizon)
    per_window = horizon * n_variates
    variates = pd.Index(panel.layout.columns)
    table = pd.DataFrame(
        {
            "cutoff": panel.index[np.repeat(starts - 1, per_window)],
            "step": np.tile(np.repeat(steps + 1, n_variates), n_windows),
            "time": panel.index[np.repeat((starts[:, None] + steps).ravel(), n_variates)],
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
    if panel.layout.series != "one":
        series = owners(panel.offsets)[starts].repeat(per_window)
        names = pd.Index(panel.ids, dtype=panel.layout.id_dtype, tupleize_cols=False)
        table.insert(0, series_column(panel.layout, table.columns), names[series])
    return table


def series_column(layout: Layout, taken: Iterable[Hashable] = ()) -> Hashable:
    """Name the column of a backtest that says which series: as in the data, or "series"."""
    name = layout.id_name
    return "series" if name is None or name in taken else name


def error_table(
    table: pd.DataFrame,
    *,
    by: str | list[str] | None = "variate",
    scale: Mapping[Any, float] | NDArray[np.float64] | None = None,
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
        What the errors of each variate, or of each row of the table, are divided by first; None
        leaves them in their units.

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
    unit: Any = 1.0 if scale is None else scale
    if isinstance(scale, Mapping):
        unit = table["variate"].map(scale).to_numpy(np.float64)
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
    tables: Tables = Tables(),  # noqa: B008 (frozen)
) -> pd.DataFrame:
    """Forecast every window of a walk, each with a model that was fitted shortly before it.

    Parameters
    ----------
    model
        A `TSM2Forecaster`; copies of it are fitted.
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
    tables
        Covariates of all rows.

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
    if panel.layout.series != "one":
        raise ParameterError(
            "refit is there for one table alone, not for several series. Pass refit=False, or "
            "backtest them one by one."
        )
    starts = walk.starts(len(panel.values))
    pieces = np.array_split(starts, range(every, len(starts), every))
    backtests: Any = Parallel(n_jobs=n_jobs)(
        delayed(_refit_piece)(
            model,
            rows_of(panel, 0 if window == "expanding" else piece[0] - walk.first, piece[0]),
            rows_of(panel, piece[0] - walk.lookback, piece[-1] + walk.horizon),
            replace(walk, first=None),
            quantiles,
            tables,
        )
        for piece in pieces
    )
    whole: pd.DataFrame = pd.concat(backtests, ignore_index=True)
    return whole


def _refit_piece(
    model: Any,
    known: Panel,
    tested: Panel,
    walk: Walk,
    quantiles: Sequence[float],
    tables: Tables,
) -> pd.DataFrame:
    """Fit a copy of the model to the known rows and forecast the windows of the tested ones."""
    copy: Any = clone(model)
    given = {f"{kind}_covariates": getattr(tables, kind) for kind in tables.given()}
    copy.fit(write_forecast(known.values, known.index, known.layout), **given)
    table: pd.DataFrame = copy.backtest_panel(tested, walk, quantiles=quantiles, tables=tables)
    return table


def mean_errors(
    model: ForecastsContexts,
    values: NDArray[np.float64],
    walk: Walk,
    *,
    scale: NDArray[np.float64],
    contexts: NDArray[np.float64] | None = None,
    starts: NDArray[np.int64] | None = None,
    beside: Beside | None = None,
) -> tuple[float, float, int]:
    """Return MSE and MAE over all windows, steps and variates, and the number of windows.

    What did not become known, NaN, counts for nothing.

    Parameters
    ----------
    model
        What forecasts.
    values
        The table, (T, M).
    walk
        Which windows.
    scale
        What each variate's errors are divided by first, (M,), or those of each window, (W, M).
    contexts, starts, beside
        As for `backtest_table`.
    """
    starts = walk.starts(len(values)) if starts is None else starts
    squared = absolute = 0.0
    cells = 0
    for which, context, actual, own in _windows(values, contexts, walk, starts, beside):
        unit = scale if scale.ndim == 1 else scale[which, None]
        errors = (model.forecast_contexts(context, walk.horizon, **own) - actual) / unit
        squared += float(np.nansum(np.square(errors)))
        absolute += float(np.nansum(np.abs(errors)))
        cells += int((~np.isnan(actual)).sum())
    return squared / max(cells, 1), absolute / max(cells, 1), len(starts)
