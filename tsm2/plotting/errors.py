"""Pictures of errors: how far a backtest misses, by step and by variate."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.backtest_files import BacktestFile
from tsm2.backtesting import deviations, error_table
from tsm2.plotting.figures import (
    COLORS,
    HISTORY,
    AxesGiven,
    Backend,
    Bars,
    Line,
    Panel,
    draw,
)
from tsm2.plotting.forecasts import choose_columns
from tsm2.tables.containers import as_frame

__all__ = ["plot_errors"]


def plot_errors(
    table: Any,
    *,
    scale: Mapping[Hashable, float] | pd.DataFrame | NDArray[np.float64] | None = None,
    columns: Sequence[Hashable] | None = None,
    max_variates: int = 6,
    units: str | None = None,
    title: str | None = None,
    ax: AxesGiven = None,
    backend: Backend = "matplotlib",
) -> Any:
    """Draw the errors of a backtest: per step, a line for each variate, and per variate, a bar.

    Parameters
    ----------
    table
        What `TSM2Forecaster.backtest` returns, a table or a file, of one table or of several
        series, which are drawn as their mean.
    scale
        What errors are divided by, as for `tsm2.backtesting.error_table`; None for the deviation of
        what happened, variate by variate, or with `units` for nothing.
    columns
        Variates to draw as lines, in this order; None for the first `max_variates`. The line "all"
        and the bars are of all.
    max_variates
        Lines at most if no columns are named.
    units
        Unit of the errors, for the axes, such as "MW": they are then not divided by anything unless
        `scale` says by what. None for deviations.
    title
        Title of the figure.
    ax
        Two matplotlib Axes to draw into; None makes a figure.
    backend
        "matplotlib", or "plotly" to zoom in, with tsm2's extra `plotly`.

    Returns
    -------
    The figure: mean absolute error by step on the left, by variate on the right.

    Raises
    ------
    ParameterError
        The library is not installed, `max_variates` is below 1, a column is not there, or there
        are fewer than two Axes.
    """
    source = table if isinstance(table, BacktestFile) else as_frame(table)[0]
    if scale is None and units is None:
        scale = deviations(source)
    steps = error_table(source, by=["variate", "step"], scale=scale)["MAE"].unstack(0)
    steps.columns = steps.columns.astype("object")
    means = error_table(source, by="variate", scale=scale)["MAE"]
    shown = choose_columns(means.index.astype("object"), columns, max_variates)
    lines = [
        Line(
            x=steps.index,
            y=steps[column],
            label=str(column),
            color=COLORS[number % len(COLORS)],
            width=1.2,
        )
        for number, column in enumerate(shown)
    ]
    lines.append(Line(x=steps.index, y=steps.mean(axis=1), label="all", color=HISTORY, width=2))
    what = f"mean absolute error, in {'deviations' if units is None else units}"
    panels = [
        Panel(x_label="step", y_label=what, parts=lines, from_zero=True),
        Panel(x_label=what, parts=[Bars(names=[*map(str, means.index)], lengths=means)]),
    ]
    return draw(
        panels, size=(9, 3.4), n_columns=2, widths=(2, 1), title=title, ax=ax, backend=backend
    )
