"""A picture of a forecast: of one table, or of one series of many."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from tsm2.cli.printing import say
from tsm2.errors import ParameterError
from tsm2.plotting import plot_forecast, save_figure

if TYPE_CHECKING:
    from tsm2.forecaster import TSM2Forecaster

__all__ = ["choose_series", "draw_forecast"]

_MOST_PANELS = 30  # of a picture, one per variate


def choose_series(model: TSM2Forecaster, history: pd.DataFrame, series: str | None) -> object:
    """Return the name of the series to draw: the one that was named, or the first.

    Raises
    ------
    ParameterError
        There is no such series.
    """
    if model.layout_.series != "long":
        if series is not None:
            raise ParameterError("--series chooses one of many, but the file holds one table.")
        return None
    names = {str(name): name for name in history[model.id_col].unique()}
    if series is None:
        name = next(iter(names))
        if len(names) > 1:
            say(f"plot shows series {name}, the first; --series NAME chooses another")
        return names[name]
    if series not in names:
        near = difflib.get_close_matches(series, names, 3)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {len(names)} others."
        raise ParameterError(f"--series {series}: the file has no such series. {hint}")
    return names[series]


def draw_forecast(
    model: TSM2Forecaster,
    history: pd.DataFrame,
    forecast: pd.DataFrame,
    bounds: pd.DataFrame | None,
    levels: tuple[float, ...] | None,
    series: object,
    plot: Path,
) -> None:
    """Draw a forecast and its quantiles, if there are any, and say what is left out.

    Parameters
    ----------
    model
        Whose forecast it is.
    history, forecast, bounds
        As given to and returned by the model.
    levels
        Of the quantiles.
    series
        From `choose_series`.
    plot
        The picture.

    Raises
    ------
    ParameterError
        matplotlib is not installed.
    OutputError
        The picture cannot be written.
    """
    if model.layout_.series == "long":
        history, forecast = (_table(model, frame, series) for frame in (history, forecast))
        if bounds is not None and levels is not None:
            pairs = pd.MultiIndex.from_product([model.layout_.columns, levels])
            bounds = _table(model, bounds, series).set_axis(pairs, axis="columns")
    figure = plot_forecast(
        history[list(forecast)], forecast, interval=bounds, max_variates=_MOST_PANELS
    )
    left_out = list(map(str, forecast.columns[_MOST_PANELS:]))
    if left_out:
        say(f"plot leaves out {', '.join(left_out)}")
    save_figure(figure, plot)
    say(f"plot: {plot}")


def _table(model: TSM2Forecaster, frame: pd.DataFrame, series: object) -> pd.DataFrame:
    """Return the rows of one series of a long frame, by time."""
    rows = frame[frame[model.id_col] == series]
    return rows.set_index(model.time_col).drop(columns=model.id_col)
