"""Pictures of forecasts, of their errors, and of what a network selects.

matplotlib is imported when a picture is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tsm2.backtesting import scale_of_rows
from tsm2.errors import OutputError, ParameterError
from tsm2.tables.containers import as_frame, open_table

if TYPE_CHECKING:
    import os
    from collections.abc import Hashable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from tsm2.fitted.inspection import Selection
    from tsm2.tables.series import Series

__all__ = ["plot_errors", "plot_forecast", "plot_rows", "plot_selection", "save_figure"]

_MOST_NUMBERS = 100  # that are written into a map
_HISTORY, _FORECAST, _TRUTH = "#3b3b3b", "#d1495b", "#9aa5b1"


def plot_forecast(
    history: Any,
    forecast: Any,
    *,
    truth: Any = None,
    interval: pd.DataFrame | None = None,
    max_variates: int = 6,
) -> list[Axes]:
    """Draw the end of a history and the forecast that continues it, one panel per variate.

    Parameters
    ----------
    history
        What the model saw, in any container; the last rows, at most three times the forecast's,
        are drawn.
    forecast
        Forecast rows of the same columns.
    truth
        What happened, drawn behind the forecast; None if nobody knows yet.
    interval
        Quantiles of the forecast rows, with columns (variate, level), as `predict_interval` and
        `predict_quantiles` return them: the band between the lowest and the highest is shaded.
    max_variates
        Panels at most; the first columns are drawn.

    Returns
    -------
    One Axes per panel, top to bottom.

    Raises
    ------
    ParameterError
        matplotlib is not installed, or `max_variates` is below 1.
    """
    if max_variates < 1:
        raise ParameterError(f"max_variates must be at least 1, got {max_variates}.")
    history, forecast, truth = (open_table(each)[0] for each in (history, forecast, truth))
    figure_class = _figure_class()
    columns = list(forecast.columns[:max_variates])
    figure = figure_class(figsize=(9, 0.6 + 1.5 * len(columns)), layout="constrained")
    grid = figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
    shown = history.tail(3 * len(forecast))
    for axes, column in zip(grid, columns, strict=True):
        axes.plot(_positions(shown), shown[column], color=_HISTORY, lw=1, label="history")
        if truth is not None:
            axes.plot(_positions(truth), truth[column], color=_TRUTH, lw=1.5, label="truth")
        if interval is not None:
            _shade(axes, interval, column)
        axes.plot(_positions(forecast), forecast[column], color=_FORECAST, lw=1.5, label="forecast")
        axes.set_title(str(column), loc="left", fontsize="medium")
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, fontsize="small"
    )
    return list(grid)


def plot_rows(
    history: Series,
    forecast: NDArray[np.float64],
    quantiles: tuple[NDArray[np.float64], Sequence[float]] | None,
    *,
    truth: pd.DataFrame | None,
    max_variates: int,
) -> list[Axes]:
    """Draw the numbers of a table and of what follows it; else as `plot_forecast`.

    Parameters
    ----------
    history
        What the model saw, one table.
    forecast
        The rows behind it, (1, H, M).
    quantiles
        Quantiles of these, (1, H, M, Q), and their levels, (Q,); None for none.
    truth, max_variates
        As in `plot_forecast`.
    """
    columns = pd.Index(history.layout.columns, tupleize_cols=False)
    index = history.stamps_behind(forecast.shape[1])
    interval = None
    if quantiles is not None:
        values, levels = quantiles
        pairs = pd.MultiIndex.from_product([columns, levels])
        interval = pd.DataFrame(values.reshape(len(index), -1), index, pairs)
    return plot_forecast(
        pd.DataFrame(history.values, history.index, columns),
        pd.DataFrame(forecast[0], index, columns),
        truth=truth,
        interval=interval,
        max_variates=max_variates,
    )


def _shade(axes: Axes, interval: pd.DataFrame, column: Hashable) -> None:
    bounds = interval.loc[:, [pair[0] == column for pair in interval.columns]]
    levels = np.array([pair[1] for pair in bounds.columns], dtype=float)
    low, high = int(levels.argmin()), int(levels.argmax())
    axes.fill_between(
        _positions(interval),
        bounds.iloc[:, low],
        bounds.iloc[:, high],
        color=_FORECAST,
        alpha=0.2,
        lw=0,
        label=f"{100 * (levels[high] - levels[low]):.0f} % interval",
    )


def plot_errors(
    table: Any,
    *,
    scale: Mapping[Hashable, float] | pd.DataFrame | NDArray[np.float64] | None = None,
    max_variates: int = 6,
) -> list[Axes]:
    """Draw the errors of a backtest: per step, a line for each variate, and per variate, a bar.

    Parameters
    ----------
    table
        What `TSM2Forecaster.backtest` returns.
    scale
        What errors are divided by, as for `tsm2.backtesting.error_table`; None for the deviation of
        what happened, variate by variate.
    max_variates
        Lines at most; the first variates are drawn. The bars show all.

    Returns
    -------
    Two Axes: mean absolute error by step, and by variate.

    Raises
    ------
    ParameterError
        matplotlib is not installed, or `max_variates` is below 1.
    """
    if max_variates < 1:
        raise ParameterError(f"max_variates must be at least 1, got {max_variates}.")
    frame: pd.DataFrame = as_frame(table)[0]
    figure = _figure_class()(figsize=(9, 3.4), layout="constrained")
    by_step, by_variate = figure.subplots(1, 2, width_ratios=(2, 1))
    variate = frame["variate"].astype("object")
    if scale is None:
        deviations = frame.groupby(variate, sort=False)["actual"].std(ddof=0)
        scale = deviations.where(deviations > 0, 1.0).to_dict()
    errors = (frame["forecast"] - frame["actual"]).abs() / scale_of_rows(frame, scale)
    steps = errors.groupby([variate, frame["step"]], sort=False).mean().unstack(0)
    for column in list(steps.columns[:max_variates]):
        by_step.plot(steps.index, steps[column], lw=1.2, label=str(column))
    by_step.plot(steps.index, steps.mean(axis=1), color=_HISTORY, lw=2, label="all")
    by_step.set(xlabel="step", ylabel="mean absolute error, in deviations", ylim=(0, None))
    by_step.legend(frameon=False, fontsize="small")
    means = errors.groupby(variate, sort=False).mean()
    by_variate.barh([str(name) for name in means.index], means, color=_TRUTH)
    by_variate.invert_yaxis()  # the first variate on top, as in the table
    by_variate.set(xlabel="mean absolute error, in deviations")
    for axes in (by_step, by_variate):
        axes.spines[["top", "right"]].set_visible(False)
    return [by_step, by_variate]


def plot_selection(selection: Selection) -> list[Axes]:
    """Draw what a network selected: influences, averaging weights, and step sizes per scan.

    Parameters
    ----------
    selection
        What `TSM2Forecaster.inspect` returns.

    Returns
    -------
    One Axes for the influences, one for the averaging weights, and one per scan.

    Raises
    ------
    ParameterError
        matplotlib is not installed.
    """
    scans = list(selection.steps.groupby(["block", "mixer", "direction"], sort=False))
    n_rows = 1 + -(-len(scans) // 2)
    height = 0.8 + 0.3 * len(selection.influence)
    figure = _figure_class()(figsize=(10, n_rows * max(height, 2.4)), layout="constrained")
    grid = figure.subplots(n_rows, 2, squeeze=False).ravel()
    _map(grid[0], selection.influence, "influence on forecasts", "of the history of", numbers=True)
    names = selection.averaging[["reader", "block", "source", "source_block"]].astype(str)
    averaging = selection.averaging.assign(
        reader=names["reader"] + " " + names["block"],
        source=(names["source"].str.removesuffix(" mixer") + " " + names["source_block"]),
    )
    weights = averaging.pivot_table(index="reader", columns="source", values="weight", sort=False)
    _map(
        grid[1],
        weights,
        "averaging weights",
        "of the outputs of (0: the model input)",
        numbers=True,
    )
    for axes, (labels, steps) in zip(grid[2:], scans, strict=False):
        table = steps.pivot_table(index="variate", columns="last", values="step", sort=False)
        block, mixer, direction = labels
        title = f"step sizes of {mixer} mixer {block}, {direction}"
        _map(axes, table, title, "last row of the patch")
    for unused in grid[2 + len(scans) :]:
        unused.remove()
    return list(grid[: 2 + len(scans)])


def _map(
    axes: Axes, table: pd.DataFrame, title: str, columns: str, *, numbers: bool = False
) -> None:
    """Draw a table as a map of shades; with its numbers if they are asked for and few."""
    axes.set_title(title, loc="left", fontsize="medium")
    if table.empty:
        axes.set_axis_off()
        return
    values = table.to_numpy(dtype=float)
    drawn = axes.imshow(values, aspect="auto", cmap="Greys", vmin=0 if numbers else None)
    if not numbers:
        axes.figure.colorbar(drawn, ax=axes)  # what differs may differ by little
    axes.set_yticks(range(len(table.index)), [str(name) for name in table.index])
    every = max(1, len(table.columns) // 8)
    places = range(0, len(table.columns), every)
    axes.set_xticks(places, [str(table.columns[place]) for place in places])
    axes.set_xlabel(columns)
    if numbers and values.size <= _MOST_NUMBERS:
        for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
            value = values[row, column]
            color = "white" if value > 0.6 * np.nanmax(values) else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)


def save_figure(axes: list[Axes], path: str | os.PathLike[str]) -> None:
    """Write the figure that holds `axes`; the ending of `path` says in which format.

    Raises
    ------
    OutputError
        The file cannot be written, or its format is unknown.
    """
    figure: Figure = axes[0].figure  # type: ignore[assignment]
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write the picture {path}: {error}") from error


def _figure_class() -> type[Figure]:
    """Import matplotlib's Figure, which draws without pyplot's global state or a display."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ParameterError(
            "plots need matplotlib, which is not installed. Install it with tsm2's extra 'plot': "
            "pip install 'tsm2[plot]'."
        ) from error
    return Figure


def _positions(frame: pd.DataFrame) -> pd.Index:
    """Return what matplotlib can place on an axis: periods become the stamps they start at."""
    index = frame.index
    return index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index
