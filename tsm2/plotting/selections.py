"""Pictures of what a network selects, and of what a changed covariate does."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from tsm2.plotting.figures import (
    COLORS,
    HISTORY,
    AxesGiven,
    Band,
    Line,
    Panel,
    axes_of,
    draw,
    figure_class,
    positions,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tsm2.fitted.explanation import WhatIf
    from tsm2.fitted.inspection import Selection

__all__ = ["plot_selection", "plot_what_if"]

_MOST_NUMBERS = 100  # that are written into a map


def plot_selection(selection: Selection, *, ax: AxesGiven = None) -> Figure:
    """Draw what a network selected: influences, averaging weights, and step sizes per scan.

    Parameters
    ----------
    selection
        What `TSM2Forecaster.inspect` returns.
    ax
        matplotlib Axes to draw into, one per map; None makes a figure.

    Returns
    -------
    The figure: a map of the influences, one of the averaging weights, and one per scan.

    Raises
    ------
    ParameterError
        matplotlib is not installed, or there are fewer Axes than maps.
    """
    scans = list(selection.steps.groupby(["block", "mixer", "direction"], sort=False))
    n_maps = 2 + len(scans)
    if ax is None:
        n_rows = -(-n_maps // 2)
        height = 0.8 + 0.3 * len(selection.influence)
        figure = figure_class()(figsize=(10, n_rows * max(height, 2.4)), layout="constrained")
        every: list[Axes] = list(figure.subplots(n_rows, 2, squeeze=False).ravel())
        for unused in every[n_maps:]:
            unused.remove()
        grid = every[:n_maps]
    else:
        grid = axes_of(ax, n_maps)
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
    for axes, (labels, steps) in zip(grid[2:], scans, strict=True):
        table = steps.pivot_table(index="variate", columns="last", values="step", sort=False)
        block, mixer, direction = labels
        title = f"step sizes of {mixer} mixer {block}, {direction}"
        _map(axes, table, title, "last row of the patch")
    return cast("Figure", grid[0].figure)


def plot_what_if(result: WhatIf, *, ax: AxesGiven = None) -> Figure:
    """Draw what a change of covariates does: both forecasts, the difference shaded.

    Parameters
    ----------
    result
        What `TSM2Forecaster.what_if` returns.
    ax
        matplotlib Axes to draw into, one per variate; None makes a figure.

    Returns
    -------
    The figure, with one panel per variate.

    Raises
    ------
    ParameterError
        matplotlib is not installed, or there are fewer Axes than variates.
    """
    x = positions(result.forecast.index)
    panels = [
        Panel(
            title=str(column),
            parts=[
                Band(x=x, low=as_it_is, high=other, label="difference", color=COLORS[0]),
                Line(x=x, y=as_it_is, label="forecast", color=HISTORY),
                Line(x=x, y=other, label="changed", color=COLORS[0]),
            ],
        )
        for (column, as_it_is), (_, other) in zip(
            result.forecast.items(), result.changed.items(), strict=True
        )
    ]
    return cast("Figure", draw(panels, size=(9, 0.8 + 1.7 * len(panels)), ax=ax))


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
