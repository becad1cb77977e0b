"""Figures: panels of lines, bands and bars, drawn with matplotlib or with plotly.

A picture is first put together as `Panel`s, which hold the numbers and say nothing of a library,
and then drawn with the one that was asked for.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from tsm2.errors import OutputError, ParameterError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLORS",
    "HISTORY",
    "TRUTH",
    "AxesGiven",
    "Backend",
    "Band",
    "Bars",
    "Line",
    "Panel",
    "axes_of",
    "draw",
    "figure_class",
    "positions",
    "save_figure",
    "to_png",
]

Backend: TypeAlias = Literal["matplotlib", "plotly"]
AxesGiven: TypeAlias = "Axes | Sequence[Axes] | None"

HISTORY, TRUTH = "#3b3b3b", "#9aa5b1"
COLORS = ("#d1495b", "#2e6f95", "#66a182", "#edae49", "#8d6a9f", "#00798c", "#5c4742")
"""Colours of forecasts, the first of them for ours or for the only one."""
_DPI = 110  # of files


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Line:
    """A line of a panel."""

    x: Any
    """Where its points are: stamps or numbers."""
    y: Any
    """How high they are."""
    label: str
    """Its name in the legend."""
    color: str
    """Its colour."""
    width: float = 1.5
    """Its width in points."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Band:
    """A shaded band of a panel."""

    x: Any
    """Where its points are."""
    low: Any
    """Its lower edge."""
    high: Any
    """Its upper edge."""
    label: str
    """Its name in the legend."""
    color: str
    """Its colour."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Bars:
    """Bars of a panel, from left to right, the first on top."""

    names: Sequence[str]
    """Their names."""
    lengths: Any
    """Their lengths."""
    color: str = TRUTH
    """Their colour."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Panel:
    """One pair of axes and what stands in it."""

    title: str = ""
    """Its title."""
    x_label: str = ""
    """What is on the horizontal axis."""
    y_label: str = ""
    """What is on the vertical axis, with its unit."""
    parts: Sequence[Line | Band | Bars] = ()
    """What is drawn, from back to front."""
    from_zero: bool = False
    """Whether the vertical axis starts at zero."""


def draw(
    panels: Sequence[Panel],
    *,
    size: tuple[float, float],
    n_columns: int = 1,
    widths: Sequence[float] | None = None,
    title: str | None = None,
    ax: AxesGiven = None,
    backend: Backend = "matplotlib",
) -> Any:
    """Draw panels, row by row.

    Parameters
    ----------
    panels
        What to draw.
    size
        Width and height of the figure in inches.
    n_columns
        Panels side by side.
    widths
        Widths of the columns in relation to each other; None for equal ones.
    title
        Title of the whole figure.
    ax
        matplotlib Axes to draw into, one for each panel; None makes a figure.
    backend
        Which library draws.

    Returns
    -------
    matplotlib's Figure, or plotly's.

    Raises
    ------
    ParameterError
        The backend is unknown or not installed, or there are fewer Axes than panels.
    """
    if backend not in ("matplotlib", "plotly"):
        raise ParameterError(f"backend must be 'matplotlib' or 'plotly', got {backend!r}.")
    n_rows = -(-len(panels) // n_columns)
    if backend == "plotly":
        if ax is not None:
            raise ParameterError("ax is matplotlib's; leave it out with backend='plotly'.")
        return _draw_with_plotly(panels, (n_rows, n_columns), size, widths, title)
    if ax is None:
        figure = figure_class()(figsize=size, layout="constrained")
        grid: list[Axes] = (
            figure.subplots(
                n_rows,
                n_columns,
                sharex="col" if n_columns == 1 else False,
                squeeze=False,
                width_ratios=widths,
            )
            .ravel()
            .tolist()
        )
        if title:
            figure.suptitle(title, x=0.01, ha="left")
    else:
        grid = axes_of(ax, len(panels))
    for axes, panel in zip(grid, panels, strict=False):
        _fill(axes, panel)
    for unused in grid[len(panels) :] if ax is None else ():
        unused.remove()
    return grid[0].figure


def axes_of(ax: AxesGiven, needed: int) -> list[Axes]:
    """Return the Axes that were given, as many as are needed.

    Raises
    ------
    ParameterError
        There are fewer.
    """
    given: list[Any] = np.atleast_1d(np.asarray(ax, dtype=object)).ravel().tolist()
    if len(given) < needed:
        raise ParameterError(
            f"ax holds {len(given)} Axes, but {needed} panels are to be drawn. Give one for each, "
            f"or choose fewer with columns."
        )
    return given[:needed]


def _fill(axes: Axes, panel: Panel) -> None:
    for part in panel.parts:
        if isinstance(part, Line):
            axes.plot(part.x, part.y, color=part.color, lw=part.width, label=part.label)
        elif isinstance(part, Band):
            axes.fill_between(
                part.x, part.low, part.high, color=part.color, alpha=0.2, lw=0, label=part.label
            )
        else:
            axes.barh(list(part.names), part.lengths, color=part.color)
            axes.invert_yaxis()
    axes.set_title(panel.title, loc="left", fontsize="medium")
    axes.set(xlabel=panel.x_label, ylabel=panel.y_label)
    axes.spines[["top", "right"]].set_visible(False)
    if not any(isinstance(part, Bars) for part in panel.parts):
        axes.margins(x=0)
        axes.legend(  # above, where it hides no line
            loc="lower right", bbox_to_anchor=(1, 1), ncols=8, frameon=False, fontsize="x-small"
        )
    if panel.from_zero:
        axes.set_ylim(0, None)


def _draw_with_plotly(
    panels: Sequence[Panel],
    shape: tuple[int, int],
    size: tuple[float, float],
    widths: Sequence[float] | None,
    title: str | None,
) -> Any:
    try:
        from plotly import graph_objects  # pyright: ignore[reportMissingImports]
        from plotly.subplots import make_subplots  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ParameterError(
            "backend='plotly' needs plotly, which is not installed. Install it with tsm2's extra "
            "'plotly': pip install 'tsm2[plotly]'."
        ) from error
    figure = make_subplots(
        *shape,
        subplot_titles=[panel.title for panel in panels],
        column_widths=None if widths is None else list(widths),
        shared_xaxes=shape[1] == 1,
    )
    shown: set[str] = set()  # one entry of the legend for all panels
    for number, panel in enumerate(panels):
        place = {"row": number // shape[1] + 1, "col": number % shape[1] + 1}
        for part in panel.parts:
            for trace in _traces(graph_objects, part, shown):
                figure.add_trace(trace, **place)
        figure.update_xaxes(title_text=panel.x_label, **place)
        figure.update_yaxes(
            title_text=panel.y_label, rangemode="tozero" if panel.from_zero else None, **place
        )
    width, height = (round(110 * inches) for inches in size)
    figure.update_layout(title=title, template="plotly_white", width=width, height=height + 60)
    return figure


def _traces(graph_objects: Any, part: Line | Band | Bars, shown: set[str]) -> Iterable[Any]:
    """Yield what plotly calls traces: one of a line or of bars, both edges of a band."""
    if isinstance(part, Bars):
        names, lengths = list(part.names)[::-1], np.asarray(part.lengths)[::-1]
        yield graph_objects.Bar(
            x=lengths, y=names, orientation="h", marker_color=part.color, showlegend=False
        )
        return
    named = {
        "name": part.label,
        "legendgroup": part.label,
        "showlegend": part.label not in shown,
    }
    shown.add(part.label)
    if isinstance(part, Line):
        pen = {"color": part.color, "width": part.width}
        yield graph_objects.Scatter(x=part.x, y=part.y, mode="lines", line=pen, **named)
        return
    edge = {"mode": "lines", "line": {"width": 0, "color": part.color}}
    yield graph_objects.Scatter(x=part.x, y=part.low, **edge, **(named | {"showlegend": False}))
    yield graph_objects.Scatter(x=part.x, y=part.high, fill="tonexty", **edge, **named)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure; the ending of `path` says in which format.

    Raises
    ------
    OutputError
        The file cannot be written, or its format is unknown.
    """
    try:
        figure.savefig(path, dpi=_DPI)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write the picture {path}: {error}") from error


def to_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=_DPI, format="png")
    return buffer.getvalue()


@cache
def figure_class() -> type[Figure]:
    """Return a Figure that draws without pyplot's global state, and that a notebook shows.

    Raises
    ------
    ParameterError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ParameterError(
            "plots need matplotlib, which is not installed. Install it with tsm2's extra 'plot': "
            "pip install 'tsm2[plot]'."
        ) from error

    class ShownFigure(Figure):
        """A Figure that shows itself, also where nobody has imported pyplot."""

        def _repr_png_(self) -> bytes:
            return to_png(self)

    return ShownFigure


def positions(index: pd.Index) -> pd.Index:
    """Return what can be placed on an axis: periods become the stamps they start at."""
    return index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index
