"""Backtests: forecast every window of a table and set the forecasts beside what happened.

A model may be fitted again as the backtest moves on, always to rows before the first one that it
forecasts:

    window="expanding"   fit 1 |======|          fit 2 |=========|       fit 3 |============|
    window="sliding"     fit 1 |======|          fit 2    |======|       fit 3       |======|

Sizes: S series, T rows, M variates, W windows, B windows in a batch, L lookback, H horizon, Q
quantiles.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray

from tsm2 import metrics
from tsm2.errors import ParameterError
from tsm2.fitted.model import FittedModel, known_before
from tsm2.fitted.rolling import whole_horizons
from tsm2.prepared.prepared import Prepared, filled
from tsm2.prepared.walk import Walk
from tsm2.prepared.windows import Covariates
from tsm2.tables.containers import as_frame, to_library
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.gaps import fill_forward
from tsm2.tables.layout import Layout
from tsm2.tables.quantiles import bound_level, bound_name
from tsm2.tables.series import Series
from tsm2.tables.stamps import is_before
from tsm2.training.choices import chosen
from tsm2.training.processes import check_side_by_side
from tsm2.training.recipe import Recipe

__all__ = [
    "backtest_table",
    "error_table",
    "floor_tables",
    "mean_squared_error",
    "naive_scale_table",
    "recalibrated",
    "refit_table",
    "scale_of_rows",
    "scale_table",
    "walked",
]

_BATCH = 256

Fit: TypeAlias = Callable[[Series, CovariateTables, pd.DataFrame], FittedModel]


def walked(
    model: FittedModel,
    series: Series,
    given: CovariateTables,
    *,
    start: object,
    horizon: int,
    stride: int = 1,
) -> tuple[Prepared, NDArray[np.int64]]:
    """Make series ready for the windows of a walk, the stored context before those that go on.

    Parameters
    ----------
    model
        What forecasts.
    series, given
        The series with their covariates.
    start
        Label of the first row to forecast, as for `Walk.starts_in`.
    horizon, stride
        Rows of a forecast, and from one to the next.

    Returns
    -------
    The series, and the first forecast row of every window, (W,).

    Raises
    ------
    WindowError
        No window fits.
    FrameError
        `start` is no row of the table; or covariates lack rows.
    """
    series, starts = _windows(model, series, start, horizon, stride)
    ahead = whole_horizons(horizon, model.horizon) - horizon
    return model.prepare(series, given, starts=starts, ahead=ahead), starts


def recalibrated(
    model: FittedModel, series: Series, given: CovariateTables, start: object, horizon: int
) -> FittedModel:
    """Return the model with the scores of the windows of a walk; parameters as for `walked`."""
    series, starts = _windows(model, series, start, horizon)
    windows = model.prepare(filled(series, model.missing), given).windows(starts, horizon)
    return model.calibrated(windows)


def scale_table(model: FittedModel, series: Series, *, start: object, horizon: int) -> pd.DataFrame:
    """Return the deviations that targets are scaled with in a walk; parameters as for `walked`.

    Returns
    -------
    A row for each series, a column for each variate, in their units.
    """
    series, starts = _windows(model, series, start, horizon)
    units = model.units(filled(series, model.missing), starts)
    names = pd.Index(series.ids, tupleize_cols=False)
    columns = pd.Index(model.roles.layout(series.layout).columns, tupleize_cols=False)
    scale = np.broadcast_to(model.roles.units(units).scale, (len(names), len(columns)))
    return pd.DataFrame(scale.copy(), index=names, columns=columns)


def naive_scale_table(
    model: FittedModel, series: Series, *, start: object, horizon: int, season: int | None
) -> pd.DataFrame:
    """Return how far rows are from those a season earlier, before a walk; else as `scale_table`.

    That is `tsm2.metrics.naive_scale`, which the errors of MASE are divided by; NaN where nothing
    moves. Without a season, or before one is over, neighbouring rows are compared.
    """
    series, starts = _windows(model, series, start, horizon)
    known = model.roles.of_targets(series.head(known_before(series, starts)))
    scale = np.full((len(known.ids), len(known.layout.columns)), np.nan)
    for number, (first, end) in enumerate(pairwise(known.offsets)):
        apart = season if season is not None and season < end - first else 1
        if apart < end - first:
            scale[number] = metrics.naive_scale(known.values[first:end], apart)
    columns = pd.Index(known.layout.columns, tupleize_cols=False)
    return pd.DataFrame(scale, pd.Index(known.ids, tupleize_cols=False), columns)


def _windows(
    model: FittedModel, series: Series, start: object, horizon: int, stride: int = 1
) -> tuple[Series, NDArray[np.int64]]:
    whole = model.with_context(series)
    walk = Walk(lookback=model.lookback, horizon=horizon, stride=stride)
    return whole, walk.starts_in(whole, start)


def backtest_table(
    model: FittedModel,
    prepared: Prepared,
    starts: NDArray[np.int64],
    horizon: int,
    *,
    quantiles: Sequence[float] = (),
) -> pd.DataFrame:
    """Forecast windows.

    Parameters
    ----------
    model
        What forecasts.
    prepared
        The series, made ready by the model.
    starts
        First forecast row of every window, (W,).
    horizon
        Rows H to forecast.
    quantiles
        Levels of quantiles to forecast too, rising.

    Returns
    -------
    One row per window, step and variate: `cutoff` (the last row the model saw), `step` (1 to H),
    `time` (the row that is forecast), `variate`, `actual` and `forecast` in the table's units; then
    a column per quantile, such as `lo-80`, `median`, `hi-80`. Of several series, the first column
    says which one, see `series_column`.
    """
    forecast, bounds = [], []
    for batch in _batches(starts):
        forecast.append(model.forecast(prepared, batch, horizon, size=_BATCH))
        if quantiles:
            bounds.append(model.quantiles(prepared, batch, horizon, quantiles, size=_BATCH))
    table = _outcomes(prepared, starts, horizon)
    table["forecast"] = np.concatenate(forecast).ravel()
    if quantiles:
        columns = np.concatenate(bounds).reshape(len(table), -1)
        table[[bound_name(level) for level in quantiles]] = columns
    return table


def floor_tables(
    model: FittedModel,
    series: Series,
    *,
    start: object,
    horizon: int,
    stride: int,
    season: int | None,
) -> dict[str, pd.DataFrame]:
    """Forecast windows with what costs nothing: the last row again, and the last season again.

    Parameters
    ----------
    model, series, start, horizon, stride
        As for `walked`.
    season
        Rows of a season; None for none.

    Returns
    -------
    A table as that of `backtest_table` for each, by its name. A gap is the value before it, and
    where nothing is known of the season before, the last row comes again.
    """
    whole, starts = _windows(model, series, start, horizon, stride)
    units = model.units(filled(whole, model.missing), starts)
    prepared = Prepared.of(whole, units, model.roles, Covariates(), lookback=model.lookback)
    series = prepared.series
    values = fill_forward(series.values, series.offsets)
    last = np.repeat(values[starts - 1][:, None], horizon, axis=1)  # (W, H, M)
    found = {"repeat last": last}
    if season is not None:
        rows = starts[:, None] - season + np.arange(horizon) % season
        seen = starts - season >= series.offsets[prepared.owners(starts)]
        again = np.where(seen[:, None, None], values[rows.clip(min=0)], np.nan)
        found["seasonal naive"] = np.where(np.isnan(again), last, again)
    table = _outcomes(prepared, starts, horizon)
    return {name: table.assign(forecast=each.ravel()) for name, each in found.items()}


def _outcomes(prepared: Prepared, starts: NDArray[np.int64], horizon: int) -> pd.DataFrame:
    """Return what happened in windows: a row per window, step and variate."""
    series = prepared.series
    n_windows, n_variates = len(starts), len(series.layout.columns)
    steps = np.arange(horizon)
    per_window = horizon * n_variates
    variates = pd.Index(series.layout.columns, tupleize_cols=False)
    table = pd.DataFrame(
        {
            "cutoff": series.index[np.repeat(starts - 1, per_window)],
            "step": np.tile(np.repeat(steps + 1, n_variates), n_windows),
            "time": series.index[np.repeat((starts[:, None] + steps).ravel(), n_variates)],
            "variate": pd.Categorical.from_codes(
                np.tile(np.arange(n_variates), n_windows * horizon), categories=variates
            ),
            "actual": prepared.actual(starts, horizon).ravel(),
        }
    )
    if not series.layout.alone:
        owner = prepared.owners(starts).repeat(per_window)
        names = pd.Index(series.ids, dtype=series.layout.id_dtype, tupleize_cols=False)
        table.insert(0, series_column(series.layout, table.columns), names[owner])
    return table


def mean_squared_error(
    model: FittedModel, prepared: Prepared, starts: NDArray[np.int64], horizon: int
) -> float:
    """Return the mean squared error over windows, steps and variates, on standardised values.

    What did not become known, NaN, counts for nothing; parameters as for `backtest_table`.
    """
    squared, cells = 0.0, 0
    for batch in _batches(starts):
        actual, scale = prepared.actual(batch, horizon), prepared.units_of(batch).scale
        unit = scale if scale.ndim == 1 else scale[:, None]
        errors = (model.forecast(prepared, batch, horizon, size=_BATCH) - actual) / unit
        squared += float(np.nansum(np.square(errors)))
        cells += int((~np.isnan(actual)).sum())
    return squared / max(cells, 1)


def _batches(starts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(starts), _BATCH):
        yield starts[first : first + _BATCH]


def series_column(layout: Layout, taken: Iterable[Hashable] = ()) -> Hashable:
    """Name the column of a backtest that says which series: as in the data, or "series"."""
    name = layout.id_name
    return "series" if name is None or name in taken else name


def error_table(
    table: Any,
    *,
    by: str | list[str] | None = "variate",
    scale: Mapping[Any, float] | pd.DataFrame | NDArray[np.float64] | None = None,
) -> Any:
    """Return the mean errors of a backtest.

    Parameters
    ----------
    table
        What `TSM2Forecaster.backtest` returned.
    by
        Column or columns, such as "variate" or "step", whose values get a row each; None for one
        row, "all".
    scale
        What the errors of each variate, or of each row of the table, are divided by first, or a
        frame with a row for each series, as `TSM2Forecaster.error_scale` returns; None leaves them
        in their units.

    Returns
    -------
    `MSE` and `MAE`; with quantiles also `quantile loss`, the mean over them (see
    `tsm2.metrics.quantile_loss`), and the share of outcomes inside each interval, such as
    `coverage-80`, whose two bounds were forecast. They are in a DataFrame with `by` as its index;
    of a backtest in polars or Arrow, in such a table with `by` as its first columns.

    Examples
    --------
    >>> table = pd.DataFrame({"variate": ["a", "a"], "actual": [1.0, 4.0], "forecast": [2.0, 4.0],
    ...                       "lo-80": [1.5, 3.0], "hi-80": [3.0, 5.0]})
    >>> error_table(table).loc["a"].round(3).to_dict()
    {'MSE': 0.5, 'MAE': 0.5, 'quantile loss': 0.425, 'coverage-80': 0.5}
    """
    table, form = as_frame(table)
    unit: Any = 1.0 if scale is None else scale
    if scale is not None:
        unit = scale_of_rows(table, scale)
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
        return to_library(errors.mean().to_frame("all").T, form)
    keys = [table[name] for name in ([by] if isinstance(by, str) else by)]
    means = errors.groupby(keys, observed=True, sort=False).mean()
    return means if form.library == "pandas" else to_library(means.reset_index(), form)


def scale_of_rows(
    table: pd.DataFrame, scale: Mapping[Any, float] | pd.DataFrame | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what each row of a backtest is divided by, from any `scale` of `error_table`."""
    if isinstance(scale, Mapping):
        return np.asarray(table["variate"].map(scale), dtype=np.float64)
    if not isinstance(scale, pd.DataFrame):
        return scale
    variates = pd.Index(scale.columns, tupleize_cols=False).get_indexer(pd.Index(table["variate"]))
    names = pd.Index(scale.index, tupleize_cols=False)
    series = np.zeros(len(table), np.int64)
    if len(names) > 1:
        series = names.get_indexer(pd.Index(table.iloc[:, 0].tolist(), tupleize_cols=False))
    units: NDArray[np.float64] = scale.to_numpy(np.float64)[series, variates]
    return units


def refit_table(
    recipe: Recipe,
    fit: Fit,
    series: Series,
    *,
    start: object,
    horizon: int,
    stride: int,
    every: int,
    window: Literal["expanding", "sliding"],
    n_jobs: int | None = None,
    quantiles: Sequence[float] = (),
    given: CovariateTables = CovariateTables(),  # noqa: B008 (frozen)
) -> pd.DataFrame:
    """Forecast every window of a walk, each with a model that was fitted shortly before it.

    Parameters
    ----------
    recipe
        What is asked of every fit.
    fit
        Fits series with their covariates and choices made before.
    series
        One table or several series. A series is in a fit from its first whole window on; before,
        it is forecast as one that the fit has not seen.
    start
        Label of the first row to forecast, as for `Walk.starts_in`.
    horizon, stride
        Rows of a forecast, and from one to the next.
    every
        How many forecasts, one behind another in time, one fit makes: of several series, those of
        all of them from the same row are one.
    window
        "expanding" fits to all rows before a fit's first forecast, "sliding" to the last of them,
        as many as the first fit had of each series.
    n_jobs
        Fits side by side, as joblib counts them.
    quantiles
        As in `backtest_table`.
    given
        Covariates of all rows.

    Returns
    -------
    The columns of `backtest_table`.

    Raises
    ------
    ParameterError
        There is no start, `window` is unknown, or `n_jobs` is no count or more than 1 where several
        processes share the fits.
    WindowError
        No window fits, or the rows before the start are too few to fit to.
    """
    if start is None:
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
    asked: Any = n_jobs  # joblib's hint forgets None
    check_side_by_side(effective_n_jobs(asked))
    known = _with_windows(series.head(_rows_before(series, start)), recipe)
    choices = recipe.choose_for(filled(known, recipe.missing))
    walk = Walk(lookback=chosen(choices)["lookback"], horizon=horizon, stride=stride)
    starts = walk.starts_in(series, start)
    # Places of a list name its series as long as they are together.
    series = replace(series, layout=series.layout.with_names())
    read = filled(series, recipe.missing)
    stamps = series.index[starts]
    cutoffs = stamps.unique().sort_values()
    fits: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for first in range(0, len(cutoffs), every):
        those = np.asarray(stamps.isin(cutoffs[first : first + every]))
        fits.append((_rows_before(series, cutoffs[first]), starts[those]))
    first_counts = fits[0][0]
    backtests: Any = Parallel(n_jobs=n_jobs)(
        delayed(_refit_piece)(
            fit,
            _with_windows(
                read.between(n_known - _learnt(n_known, first_counts, window), n_known), recipe
            ),
            *_around(series, read, own, walk),
            horizon,
            quantiles,
            given,
            choices,
        )
        for n_known, own in fits
    )
    whole: pd.DataFrame = pd.concat(backtests, ignore_index=True)
    per_window = len(whole) // len(starts)
    owner = np.concatenate([series.owners[own] for _, own in fits]).repeat(per_window)
    return whole.iloc[np.argsort(owner, kind="stable")].reset_index(drop=True)


def _rows_before(series: Series, label: object) -> NDArray[np.int64]:
    """Count the rows of each series before a label, (S,)."""
    before = is_before(series.index, label)
    return np.add.reduceat(before, series.offsets[:-1], dtype=np.int64)


def _learnt(
    n_known: NDArray[np.int64], first: NDArray[np.int64], window: Literal["expanding", "sliding"]
) -> NDArray[np.int64]:
    """Count the rows of each series that a fit learns from, (S,); `first` had none of new ones."""
    if window == "expanding":
        return n_known
    return np.where(first > 0, np.minimum(n_known, first), n_known)


def _around(
    series: Series, read: Series, starts: NDArray[np.int64], walk: Walk
) -> tuple[Series, Series, NDArray[np.int64]]:
    """Return the rows that windows lie in, what is read of them, and the windows' first rows."""
    owned, first, count = np.unique(series.owners[starts], return_index=True, return_counts=True)
    before, stop = np.zeros(len(series.ids), np.int64), np.zeros(len(series.ids), np.int64)
    before[owned] = starts[first] - walk.lookback - series.offsets[owned]
    stop[owned] = starts[first + count - 1] + walk.horizon - series.offsets[owned]
    tested, seen = series.between(before, stop), read.between(before, stop)
    here = stop > before
    shift = (tested.offsets[:-1] - series.offsets[:-1] - before)[series.owners[starts]]
    return tested.chosen(here), seen.chosen(here), starts + shift


def _refit_piece(
    fit: Fit,
    known: Series,
    tested: Series,
    read: Series,
    starts: NDArray[np.int64],
    horizon: int,
    quantiles: Sequence[float],
    given: CovariateTables,
    choices: pd.DataFrame,
) -> pd.DataFrame:
    """Fit to the known rows and forecast the windows of the tested ones."""
    model = fit(known, given, choices)
    ahead = whole_horizons(horizon, model.horizon)
    prepared = model.prepare(tested, given, starts=starts, ahead=ahead, read=read)
    return backtest_table(model, prepared, starts, horizon, quantiles=quantiles)


def _with_windows(series: Series, recipe: Recipe) -> Series:
    """Leave out series that give a fit no window yet; if none does, the fit says so of all."""
    needed = recipe.horizon + 2
    if recipe.lookback != "auto" and recipe.missing != "mask":
        needed = recipe.lookback + recipe.horizon  # else rows before are taken as unknown
    enough = series.counts >= needed
    if series.layout.alone or enough.all():
        return series
    return series.chosen(enough if enough.any() else series.counts > 0)
