"""Backtests: forecast every window of a table and set the forecasts beside what happened.

`tsm2.refitting` fits the model again as the backtest moves on.

Sizes: S series, T rows, M variates, W windows, B windows in a batch, L lookback, H horizon, Q
quantiles.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2 import metrics
from tsm2.backtest_files import BacktestFile, in_blocks
from tsm2.fitted.model import FittedModel, known_before
from tsm2.fitted.rolling import whole_horizons
from tsm2.prepared.prepared import Prepared, filled
from tsm2.prepared.walk import Walk
from tsm2.prepared.windows import Covariates
from tsm2.tables.containers import Form, as_frame, to_library
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.gaps import fill_forward
from tsm2.tables.layout import Layout
from tsm2.tables.quantiles import bound_level, bound_name
from tsm2.tables.series import Series

__all__ = [
    "BacktestFile",
    "Floor",
    "Pieces",
    "Walked",
    "backtest_pieces",
    "backtest_table",
    "batches",
    "deviations",
    "error_table",
    "naive_scale_table",
    "outcomes",
    "recalibrated",
    "scale_of_rows",
    "scale_table",
]

_BATCH = 256
_BLOCK = 2**17  # rows of a backtest whose errors are summed at once


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """A backtest that is made again, piece by piece, whenever its errors are measured."""

    make: Callable[[], Iterator[pd.DataFrame]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Walked:
    """A walk through series, every window forecast by the same model."""

    model: FittedModel
    """What forecasts."""
    prepared: Prepared
    """The series, made ready for their windows, the stored context before those that go on."""
    starts: NDArray[np.int64]
    """First forecast row of every window, (W,)."""
    horizon: int
    """Rows H of a forecast."""
    quantiles: Sequence[float] = ()
    """As in `backtest_table`."""

    @classmethod
    def through(
        cls,
        model: FittedModel,
        series: Series,
        given: CovariateTables,
        *,
        start: object,
        horizon: int,
        stride: int = 1,
        quantiles: Sequence[float] = (),
    ) -> Self:
        """Make series ready for a walk.

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
        quantiles
            As in `backtest_table`.

        Raises
        ------
        WindowError
            No window fits.
        FrameError
            `start` is no row of the table; or covariates lack rows.
        """
        series, starts = _windows(model, series, start, horizon, stride)
        ahead = whole_horizons(horizon, model.horizon) - horizon
        return cls(
            model=model,
            prepared=model.prepare(series, given, starts=starts, ahead=ahead),
            starts=starts,
            horizon=horizon,
            quantiles=quantiles,
        )

    @property
    def series(self) -> Series:
        """The targets of the series."""
        return self.prepared.series

    def table(self) -> pd.DataFrame:
        """Forecast every window, with the columns of `backtest_table`."""
        return backtest_table(
            self.model, self.prepared, self.starts, self.horizon, quantiles=self.quantiles
        )

    def pieces(self, folder: Path) -> Iterator[pd.DataFrame]:
        """Yield the same table in pieces, which its forecasts are made in; `folder` stays empty."""
        yield from backtest_pieces(
            self.model, self.prepared, self.starts, self.horizon, quantiles=self.quantiles
        )

    def mean_squared_error(self) -> float:
        """Return the mean over windows, steps and variates, on standardised values.

        What did not become known, NaN, counts for nothing.
        """
        squared, cells = 0.0, 0
        found = self.model.forecasts(self.prepared, self.starts, self.horizon, size=_BATCH)
        for batch, forecast in zip(batches(self.starts), found, strict=True):
            actual = self.prepared.actual(batch, self.horizon)
            scale = self.prepared.units_of(batch).deviation
            unit = scale if scale.ndim == 1 else scale[:, None]
            squared += float(np.nansum(np.square((forecast - actual) / unit)))
            cells += int((~np.isnan(actual)).sum())
        return squared / max(cells, 1)


def recalibrated(
    model: FittedModel, series: Series, given: CovariateTables, start: object, horizon: int
) -> FittedModel:
    """Return the model with the scores of the windows of a walk, as for `Walked.through`."""
    series, starts = _windows(model, series, start, horizon)
    windows = model.prepare(filled(series, model.missing), given).windows(starts, horizon)
    return model.calibrated(windows)


def scale_table(model: FittedModel, series: Series, *, start: object, horizon: int) -> pd.DataFrame:
    """Return the deviations that targets are scaled with in a walk, as for `Walked.through`.

    Returns
    -------
    A row for each series, a column for each variate, in their units.
    """
    series, starts = _windows(model, series, start, horizon)
    units = model.units(filled(series, model.missing), starts)
    names = pd.Index(series.ids, tupleize_cols=False)
    columns = pd.Index(model.roles.layout(series.layout).columns, tupleize_cols=False)
    scale = np.broadcast_to(model.roles.units(units).deviation, (len(names), len(columns)))
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
    whole, stored = model.with_context(series)
    walk = Walk(lookback=model.lookback, horizon=horizon, stride=stride)
    return whole, walk.starts_in(whole, start, known=stored)


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
    forecast = model.forecast(prepared, starts, horizon, size=_BATCH)
    bounds = None
    if quantiles:
        bounds = model.quantiles(prepared, starts, horizon, quantiles, size=_BATCH)
    return _table_of(prepared, starts, horizon, forecast, bounds, quantiles)


def backtest_pieces(
    model: FittedModel,
    prepared: Prepared,
    starts: NDArray[np.int64],
    horizon: int,
    *,
    quantiles: Sequence[float] = (),
) -> Iterator[pd.DataFrame]:
    """Yield the table of `backtest_table` in pieces, for the windows of `batches`."""
    forecasts = model.forecasts(prepared, starts, horizon, size=_BATCH)
    bounds: Iterator[NDArray[np.float64] | None] = repeat(None)
    if quantiles:
        bounds = model.each_quantiles(prepared, starts, horizon, quantiles, size=_BATCH)
    for batch, forecast, bound in zip(batches(starts), forecasts, bounds, strict=False):
        yield _table_of(prepared, batch, horizon, forecast, bound, quantiles)


def _table_of(
    prepared: Prepared,
    starts: NDArray[np.int64],
    horizon: int,
    forecast: NDArray[np.float64],
    bounds: NDArray[np.float64] | None,
    quantiles: Sequence[float],
) -> pd.DataFrame:
    """Set forecasts, (W, H, M), and quantiles, (W, H, M, Q), beside what happened."""
    table = outcomes(prepared.series, starts, horizon)
    table["forecast"] = forecast.ravel()
    if bounds is not None:
        table[[bound_name(level) for level in quantiles]] = bounds.reshape(len(table), -1)
    return table


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Floor:
    """The windows of a walk, forecast with what costs nothing: the last row, or season, again.

    A gap is the value before it, and where nothing is known of the season before, the last row
    comes again.
    """

    series: Series
    """The targets of the series, the stored context before those that go on."""
    starts: NDArray[np.int64]
    """First forecast row of every window, (W,)."""
    horizon: int
    """Rows H of a forecast."""
    season: int | None
    """Rows of a season; None for none."""
    values: NDArray[np.float64]
    """Rows of the series, gaps filled, (T, M)."""

    @classmethod
    def through(
        cls,
        model: FittedModel,
        series: Series,
        *,
        start: object,
        horizon: int,
        stride: int,
        season: int | None,
    ) -> Self:
        """Make series ready for a walk; parameters as for `Walked.through`, without covariates."""
        whole, starts = _windows(model, series, start, horizon, stride)
        units = model.units(filled(whole, model.missing), starts)
        prepared = Prepared.of(whole, units, model.roles, Covariates(), lookback=model.lookback)
        known = prepared.series
        values = fill_forward(known.values, known.offsets)
        return cls(series=known, starts=starts, horizon=horizon, season=season, values=values)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return a table as that of `backtest_table` for each forecast, by its name."""
        return self._tables_of(self.starts)

    def pieces(self) -> dict[str, Pieces]:
        """Return the same tables as what yields their pieces, made anew each time."""
        first = self._tables_of(self.starts[:1])
        return {name: Pieces(partial(self._pieces_of, name)) for name in first}

    def _pieces_of(self, name: str) -> Iterator[pd.DataFrame]:
        for batch in batches(self.starts):
            yield self._tables_of(batch)[name]

    def _tables_of(self, starts: NDArray[np.int64]) -> dict[str, pd.DataFrame]:
        series, season = self.series, self.season
        last = np.repeat(self.values[starts - 1][:, None], self.horizon, axis=1)  # (W, H, M)
        found = {"repeat last": last}
        if season is not None:
            rows = starts[:, None] - season + np.arange(self.horizon) % season
            seen = starts - season >= series.offsets[series.owners_of(starts - 1)]
            again = np.where(seen[:, None, None], self.values[rows.clip(min=0)], np.nan)
            found["seasonal naive"] = np.where(np.isnan(again), last, again)
        table = outcomes(series, starts, self.horizon)
        return {name: table.assign(forecast=each.ravel()) for name, each in found.items()}


def outcomes(series: Series, starts: NDArray[np.int64], horizon: int) -> pd.DataFrame:
    """Return what happened in windows of the targets: a row per window, step and variate."""
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
            "actual": series.rows_from(starts, horizon).ravel(),
        }
    )
    if not series.layout.alone:
        here, owner = np.unique(series.owners_of(starts - 1), return_inverse=True)
        names = pd.Index(
            [series.ids[number] for number in here],
            dtype=series.layout.id_dtype,
            tupleize_cols=False,
        )
        name = series_column(series.layout, table.columns)
        table.insert(0, name, names[owner.repeat(per_window)])
    return table


def batches(starts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield windows, (W,), as many at a time as are forecast at once."""
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
        What `TSM2Forecaster.backtest` returned: a table, or the `BacktestFile` that it wrote, which
        is read piece by piece.
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
    keys = None if by is None else [by] if isinstance(by, str) else list(by)

    def measured(block: pd.DataFrame, first: int) -> pd.DataFrame:
        if scale is None:
            return _errors(block, 1.0)
        part = scale[first : first + len(block)] if isinstance(scale, np.ndarray) else scale
        return _errors(block, scale_of_rows(block, part))

    blocks, form = _blocks(table)
    means: Any = _means(blocks, keys, measured)
    if keys is None or form.library == "pandas":
        return to_library(means, form)
    return to_library(means.reset_index(), form)


def deviations(table: Any) -> dict[Hashable, float]:
    """Return the deviation of what happened to each variate of a backtest; 1 if it never moved."""

    def happened(block: pd.DataFrame, _: int) -> pd.DataFrame:
        return block[["actual"]]

    levels = _means(_blocks(table)[0], ["variate"], happened)["actual"].to_dict()

    def squared(block: pd.DataFrame, _: int) -> pd.DataFrame:
        level = block["variate"].map(levels).astype(np.float64)
        return (block["actual"] - level).pow(2).to_frame()

    variances = _means(_blocks(table)[0], ["variate"], squared).iloc[:, 0]
    return dict(variances.where(variances > 0, 1.0).pow(0.5))


def _means(
    blocks: Iterable[pd.DataFrame],
    keys: list[str] | None,
    measured: Callable[[pd.DataFrame, int], pd.DataFrame],
) -> Any:
    """Return the means of what is measured of rows, NaN left out, for all that have the same keys.

    `measured` gets a block of rows, and the number of its first one.
    """
    total, first = pd.DataFrame(), 0
    for block in blocks:
        each = measured(block, first)
        sums = pd.concat({"sum": each, "count": each.notna()}, axis="columns").astype(np.float64)
        sums = _grouped(sums, None if keys is None else [block[name] for name in keys])
        total = _grouped(pd.concat((total, sums)), keys) if len(total) else sums
        first += len(block)
    means: Any = total["sum"] / total["count"]  # pandas-stubs take it for a column
    return means


def _blocks(table: Any) -> tuple[Iterable[pd.DataFrame], Form]:
    """Return a backtest in blocks of rows, the same ones wherever it lies, and what it was."""
    if isinstance(table, BacktestFile):
        return table.pieces(_BLOCK), table.form
    if isinstance(table, Pieces):
        return in_blocks(table.make(), _BLOCK), Form()
    frame, form = as_frame(table)
    firsts = range(0, max(len(frame), 1), _BLOCK)
    return (frame.iloc[first : first + _BLOCK] for first in firsts), form


def _errors(table: pd.DataFrame, unit: Any) -> pd.DataFrame:
    """Return the errors of each row of a backtest, divided by its unit."""
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
    return pd.DataFrame(each, index=table.index).astype(np.float64)


def _grouped(sums: pd.DataFrame, keys: list[Any] | None) -> pd.DataFrame:
    """Add up rows that have the same keys, or all of them, as they come."""
    if keys is None:
        return sums.sum().to_frame("all").T
    if all(isinstance(key, pd.Series) for key in keys):
        return sums.groupby(keys, observed=True, sort=False).sum()
    levels = list(range(len(keys)))
    return sums.groupby(level=levels, observed=True, sort=False).sum()


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
