"""Pictures of forecasts: the end of a history, what follows it, and how sure that is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.errors import ParameterError
from tsm2.plotting.figures import (
    COLORS,
    HISTORY,
    TRUTH,
    AxesGiven,
    Backend,
    Band,
    Line,
    Panel,
    draw,
    positions,
)
from tsm2.tables.containers import open_table
from tsm2.tables.series import Series

__all__ = ["choose_columns", "plot_forecast", "plot_series"]

Forecasts = pd.DataFrame | Mapping[str, pd.DataFrame]


def plot_forecast(
    history: Any,
    forecast: Any,
    *,
    truth: Any = None,
    interval: Forecasts | None = None,
    columns: Sequence[Hashable] | None = None,
    max_variates: int = 6,
    units: str | Mapping[Any, str] = "",
    title: str | None = None,
    ax: AxesGiven = None,
    backend: Backend = "matplotlib",
) -> Any:
    """Draw the end of a history and the forecasts that continue it, one panel per variate.

    Parameters
    ----------
    history
        What the model saw, in any container; the last rows, at most three times the forecast's,
        are drawn.
    forecast
        Forecast rows of the same columns; or several of them by the names of their models.
    truth
        What happened, drawn behind the forecast; None if nobody knows yet.
    interval
        Quantiles of the forecast rows, with columns (variate, level), as `predict_interval` and
        `predict_quantiles` return them: the band between the lowest and the highest is shaded. Of
        several forecasts, by the same names, as far as there are any.
    columns
        Variates to draw, in this order; None for the first `max_variates`.
    max_variates
        Panels at most if no columns are named.
    units
        Unit of the values, for the vertical axis; or one per column.
    title
        Title of the figure.
    ax
        matplotlib Axes to draw into, one per panel; None makes a figure.
    backend
        "matplotlib", or "plotly" to zoom in, with tsm2's extra `plotly`.

    Returns
    -------
    The figure, of matplotlib or of plotly. Forecasts start at the last point of the history.

    Raises
    ------
    ParameterError
        The library is not installed, `max_variates` is below 1, a column is not there, or there
        are fewer Axes than panels.
    """
    given = forecast if isinstance(forecast, Mapping) else {"forecast": forecast}
    named: dict[str, pd.DataFrame] = {name: open_table(each)[0] for name, each in given.items()}
    history, truth = (open_table(each)[0] for each in (history, truth))
    if not named:
        raise ParameterError("there is no forecast to draw.")
    bounds: Mapping[str, pd.DataFrame] = {}
    if interval is not None:
        if isinstance(interval, pd.DataFrame):
            interval = dict.fromkeys(named, interval)
        bounds = interval
    shown = choose_columns(next(iter(named.values())).columns, columns, max_variates)
    panels = [
        _panel(history, named, truth, bounds, column, units=units, title=str(column))
        for column in shown
    ]
    return _draw(panels, title=title, ax=ax, backend=backend)


def plot_series(
    history: Series,
    forecast: NDArray[np.float64],
    *,
    truth: Series | None,
    quantiles: NDArray[np.float64] | None,
    levels: Sequence[float],
    series: Hashable | Sequence[Hashable],
    columns: Sequence[Hashable] | None,
    max_variates: int,
    units: str | Mapping[Any, str],
    title: str | None,
    ax: AxesGiven,
    backend: Backend,
) -> Any:
    """Draw a table, or some of several series, one panel per series and variate.

    Parameters
    ----------
    history
        What is continued, S series of M variates.
    forecast
        Rows that follow each, (S, H, M).
    truth
        What happened; the same series.
    quantiles, levels
        Quantiles of the forecast, (S, H, M, Q), and their levels, (Q,).
    series
        Names of those to draw; None for the first ones.
    columns, max_variates, units, title, ax, backend
        As for `plot_forecast`; `max_variates` counts panels.
    """
    names = pd.Index(history.layout.columns, tupleize_cols=False)
    shown = choose_columns(names, columns, max_variates)
    numbers = _choose_series(history, series, max(1, max_variates // len(shown)))
    behind = history.stamps_behind(forecast.shape[1])
    panels = []
    for number in numbers:
        past = _table_of(history, number)
        index = behind[number * forecast.shape[1] : (number + 1) * forecast.shape[1]]
        rows = {"forecast": pd.DataFrame(forecast[number], index, names)}
        bounds = {}
        if quantiles is not None:
            pairs = pd.MultiIndex.from_product([names, levels])
            flat = quantiles[number].reshape(len(index), -1)
            bounds["forecast"] = pd.DataFrame(flat, index, pairs)
        happened = None
        if truth is not None and history.ids[number] in truth.ids:
            happened = _table_of(truth, truth.ids.index(history.ids[number]))
            if not history.layout.stamped:  # its rows have no stamps
                happened = happened.set_axis(index[: len(happened)], axis="index")
        for column in shown:
            own = str(column)
            if not history.layout.alone:
                one = len(names) == 1
                own = str(history.ids[number]) if one else f"{history.ids[number]}: {column}"
            panels.append(_panel(past, rows, happened, bounds, column, units=units, title=own))
    return _draw(panels, title=title, ax=ax, backend=backend)


def _choose_series(history: Series, series: object, most: int) -> list[int]:
    """Return the numbers of the series to draw."""
    if series is None:
        return list(range(min(len(history.ids), most)))
    wanted = series if isinstance(series, list | tuple) else [series]
    if not wanted or any(name not in history.ids for name in wanted):
        known = ", ".join(map(str, history.ids[:5]))
        raise ParameterError(
            f"series must name some of the {len(history.ids)} series, such as {known}; got "
            f"{series!r}."
        )
    return [history.ids.index(name) for name in wanted]


def _table_of(series: Series, number: int) -> pd.DataFrame:
    rows = slice(*series.offsets[number : number + 2])
    names = pd.Index(series.layout.columns, tupleize_cols=False)
    return pd.DataFrame(series.values[rows], series.index[rows], names)


def _panel(
    history: pd.DataFrame,
    named: Mapping[str, pd.DataFrame],
    truth: pd.DataFrame | None,
    bounds: Mapping[str, pd.DataFrame],
    column: Hashable,
    *,
    units: str | Mapping[Any, str],
    title: str,
) -> Panel:
    """Put one variate of a table together; `bounds` are the intervals that there are."""
    past = history.tail(3 * len(next(iter(named.values()))))
    parts: list[Line | Band] = [
        Line(x=positions(past.index), y=past[column], label="history", color=HISTORY, width=1)
    ]
    last = past[column].iloc[-1:]
    if truth is not None:
        x, y = _joined(last, truth.index, truth[column])
        parts.append(Line(x=x, y=y, label="truth", color=TRUTH))
    for number, (name, rows) in enumerate(named.items()):
        color = COLORS[number % len(COLORS)]
        if name in bounds:
            prefix = "" if len(named) == 1 else f"{name}, "
            parts.append(_band(last, bounds[name], column, prefix=prefix, color=color))
        x, y = _joined(last, rows.index, rows[column])
        parts.append(Line(x=x, y=y, label=name, color=color))
    unit = units if isinstance(units, str) else units.get(column, "")
    return Panel(title=title, y_label=unit, parts=parts)


def _draw(panels: Sequence[Panel], *, title: str | None, ax: AxesGiven, backend: Backend) -> Any:
    size = (9, 0.8 + 1.7 * len(panels))
    return draw(panels, size=size, title=title, ax=ax, backend=backend)


def choose_columns(
    known: pd.Index, columns: Sequence[Hashable] | None, most: int
) -> list[Hashable]:
    """Return the columns to draw.

    Raises
    ------
    ParameterError
        `most` is below 1, or a column is not there.
    """
    if most < 1:
        raise ParameterError(f"max_variates must be at least 1, got {most}.")
    names = list(known)
    if columns is None:
        return names[:most]
    chosen: list[Hashable] = [columns] if isinstance(columns, str) else list(columns)
    missing = [column for column in chosen if column not in names]
    if missing or not chosen:
        raise ParameterError(
            f"columns must name some of {', '.join(map(str, names))}; got {columns!r}."
        )
    return chosen


def _band(
    last: pd.Series, interval: pd.DataFrame, column: Hashable, *, prefix: str, color: str
) -> Band:
    own = interval.loc[:, [pair[0] == column for pair in interval.columns]]
    levels = np.array([pair[1] for pair in own.columns], dtype=float)
    low, high = int(levels.argmin()), int(levels.argmax())
    x, lower = _joined(last, interval.index, own.iloc[:, low])
    share = 100 * (levels[high] - levels[low])
    return Band(
        x=x,
        low=lower,
        high=_joined(last, interval.index, own.iloc[:, high])[1],
        label=f"{prefix}{share:.0f} % interval",
        color=color,
    )


def _joined(last: pd.Series, index: pd.Index, values: pd.Series) -> tuple[pd.Index, Any]:
    """Put the last point of a history before rows."""
    x = positions(last.index).append(positions(index))
    return x, np.concatenate((last.to_numpy(float), values.to_numpy(float)))
