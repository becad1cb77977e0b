"""A fit in words: the model card of a folder, and one line for a notebook.

A card is for who opens a folder before they load it. It is Markdown with a header that hubs of
models read, the same for the same model: no dates, no machine, no path. `TSM2Forecaster.save`
writes it as README.md beside the weights; nothing reads it.

Source: Mitchell et al. (2019), "Model cards for model reporting", arXiv:1810.03993.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tsm2 import __version__
from tsm2.tables.business import frequency_name

if TYPE_CHECKING:
    import pandas as pd

    from tsm2.fitted.saved import SavedFit

__all__ = ["fit_in_a_line", "model_card"]

_MOST_NAMES = 20  # columns that are named


def model_card(fit: SavedFit, *, changed: Mapping[str, Any]) -> str:
    """Return the card of a fit.

    Parameters
    ----------
    fit
        What the folder holds.
    changed
        Parameters of the estimator that are not at their default.
    """
    model, rows = fit.model, fit.n_rows
    layout = model.context.layout
    columns = [str(column) for column in model.roles.layout(layout).columns]
    ends = [str(end) for end in model.ends]
    n_series = len(ends)
    facts = {
        "forecasts": f"{_listed(columns)}, {model.horizon} rows at once",
        "reads": f"the last {model.lookback} rows"
        + (f"; its classical forecasts, up to {model.reach}" if model.classical else "")
        + (f", of {len(layout.columns)} columns" if len(layout.columns) > len(columns) else ""),
        "frequency": frequency_name(layout.frequency),
        "fitted on": ("rows that are not recorded" if rows is None else f"{rows} rows")
        + ("" if n_series == 1 else f" of {n_series} series"),
        "goes on behind": ends[0] if n_series == 1 else f"the last row of each, {_listed(ends)}",
        "quantiles": _listed([str(level) for level in model.levels])
        or ("none" if model.calibration is None else "by calibration"),
        "weights": f"{sum(p.numel() for p in model.network.parameters())} numbers",
    }
    return "\n".join(
        (
            "---",
            "library_name: tsm2",
            "pipeline_tag: time-series-forecasting",
            "---",
            "",
            "# A TSM2 forecaster",
            "",
            "| about | |",
            "|---|---|",
            *(f"| {name} | {_cell(text)} |" for name, text in facts.items()),
            "",
            "## Load it",
            "",
            "```python",
            "from tsm2 import TSM2Forecaster",
            "",
            'model = TSM2Forecaster.load("path/to/this/folder")',
            "forecast = model.predict()",
            "```",
            "",
            f"Written by tsm2 {__version__}. Loading runs no code from this folder, and does not",
            "read this file.",
            "",
            "## Errors on the validation rows",
            "",
            *_errors(fit.floor),
            "",
            "## What was chosen",
            "",
            *(f"- `{name}={value!r}`" for name, value in fit.choice.items()),
            "",
            "Parameters that differ from their defaults: "
            + (_listed([f"`{name}={value!r}`" for name, value in changed.items()]) or "none")
            + ".",
            "",
            "## What to mind",
            "",
            f"- `config.json` and the weights hold the last {model.reach} rows of each series, or",
            "  as many as there are, because `predict()` goes on from them. Do not hand the folder",
            "  to somebody who may not see them.",
            "- The errors are of rows that `fit` chose by; later rows judge, in `backtest`.",
            "- Nothing is known about tables that come from elsewhere than the rows of the fit.",
            "",
        )
    )


def fit_in_a_line(n_rows: int | None, n_epochs: int, floor: pd.Series[float]) -> str:
    """Say what was fitted: on how many rows, for how many epochs, with which errors."""
    rows = "" if n_rows is None else f" to {n_rows:,} rows"
    text = f"Fitted{rows}; epochs trained: {n_epochs}."
    if len(floor):
        errors = ", ".join(f"{name} {error:.3f}" for name, error in floor.items())
        text += f" Mean squared error on the validation rows: {errors}."
    return text


def _errors(floor: pd.Series[float]) -> list[str]:
    if floor.empty:
        return ["None were measured."]
    rows = [f"| {_cell(str(name))} | {error:.4g} |" for name, error in floor.items()]
    return [
        "Mean squared errors, on standardised values; `network` is this model.",
        "",
        "| forecast | error |",
        "|---|---|",
        *rows,
    ]


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _cell(text: str) -> str:
    """Escape what would end a table's cell or row."""
    return text.replace("|", "\\|").replace("\n", " ")
