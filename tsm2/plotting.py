"""Pictures of forecasts. matplotlib is imported when a picture is drawn, not before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from tsm2.errors import OutputError, ParameterError

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_forecast", "save_figure"]

_HISTORY, _FORECAST, _TRUTH = "#3b3b3b", "#d1495b", "#9aa5b1"


def plot_forecast(
    history: pd.DataFrame,
    forecast: pd.DataFrame,
    *,
    truth: pd.DataFrame | None = None,
    max_variates: int = 6,
) -> list[Axes]:
    """Draw the end of a history and the forecast that continues it, one panel per variate.

    Parameters
    ----------
    history
        What the model saw; the last rows, at most three times the forecast's, are drawn.
    forecast
        Forecast rows of the same columns.
    truth
        What happened, drawn behind the forecast; None if nobody knows yet.
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
    figure_class = _figure_class()
    columns = list(forecast.columns[:max_variates])
    figure = figure_class(figsize=(9, 0.6 + 1.5 * len(columns)), layout="constrained")
    grid = figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
    shown = history.tail(3 * len(forecast))
    for axes, column in zip(grid, columns, strict=True):
        axes.plot(_positions(shown), shown[column], color=_HISTORY, lw=1, label="history")
        if truth is not None:
            axes.plot(_positions(truth), truth[column], color=_TRUTH, lw=1.5, label="truth")
        axes.plot(_positions(forecast), forecast[column], color=_FORECAST, lw=1.5, label="forecast")
        axes.set_title(str(column), loc="left", fontsize="medium")
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize="small"
    )
    return list(grid)


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
