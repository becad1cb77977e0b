"""Why this forecast: which columns and which past steps moved the forecast of one window.

    influence[target, source, part] = sqrt(mean over steps of (f(x) - f(x without the part))^2)

A part is a run of rows of one source; it is left out by standing at the source's mean in the
window, as in `inspection`. What is left out of two parts need not add up to what is left out of
both. It says what the model reacts to, not what causes what.

Sizes: M variates, L lookback, H horizon.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from tsm2.errors import ParameterError
from tsm2.fitted.inspection import mean_of

__all__ = ["Explanation", "WhatIf", "changed_covariates", "explain_window"]

_TOLD = 3  # sources, and parts, that are named in words


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explanation:
    """What moved the forecast of one window."""

    columns: pd.DataFrame
    """How far the forecast of each variate (row) moves without each source (column)."""
    parts: pd.DataFrame
    """One row per variate, source and part: `target`, `source`, `first` and `last` (rows counted to
    0 for the last row before the forecast; those to forecast from 1), `influence`."""
    unit: str = "deviations of the training rows"
    """Unit of both."""

    def in_words(self, target: Hashable = None) -> str:
        """Say in sentences what moved the forecast of one variate, or of each.

        Parameters
        ----------
        target
            The variate; None for all.
        """
        named = list(self.columns.index) if target is None else [target]
        return "\n".join(self._sentence(each) for each in named)

    def _sentence(self, target: Hashable) -> str:
        place = list(self.columns.index).index(target)
        row = self.columns.iloc[place].sort_values(ascending=False)
        first, *rest = [(name, value) for name, value in row.items() if value > 0][:_TOLD]
        text = f"{target}: {first[0]} moved this forecast most, by {first[1]:.2f}"
        text += "".join(f", then {name} by {value:.2f}" for name, value in rest)
        own = self.parts[(self.parts["target"] == target) & (self.parts["source"] == first[0])]
        best = own.iloc[int(own["influence"].to_numpy().argmax())]
        return f"{text} ({self.unit}). Of {first[0]} it was {_rows(best['first'], best['last'])}."

    def _repr_html_(self) -> str:
        words = "".join(f"<p>{escape(line)}</p>" for line in self.in_words().splitlines())
        return words + self.columns.round(3).to_html()


def _rows(first: int, last: int) -> str:
    if first > 0:
        return f"steps {first} to {last} of the forecast"
    if last == 0:
        return f"the last {1 - first} rows"
    return f"the rows from {-first} to {-last} before the last one"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WhatIf:
    """A forecast, and the one with other covariates."""

    forecast: pd.DataFrame
    """As things are."""
    changed: pd.DataFrame
    """With the changes."""
    changes: Mapping[Hashable, float]
    """By what each covariate was multiplied in the rows to forecast."""

    @property
    def difference(self) -> pd.DataFrame:
        """The changed forecast minus the other, in the table's units."""
        return self.changed - self.forecast

    def in_words(self) -> str:
        """Say in a sentence per variate how far the forecast moves."""
        what = ", ".join(f"{name} times {factor:g}" for name, factor in self.changes.items())
        return "\n".join(
            f"{column}: with {what} the forecast moves by {moved.mean():+.4g} on average, "
            f"from {moved.min():+.4g} to {moved.max():+.4g}."
            for column, moved in self.difference.items()
        )

    def _repr_html_(self) -> str:
        words = "".join(f"<p>{escape(line)}</p>" for line in self.in_words().splitlines())
        return words + self.difference.to_html()


def changed_covariates(
    known: Any,
    changes: Mapping[Hashable, float],
    *,
    series: Hashable,
    last: Any,
    id_col: str | None,
    time_col: str | None,
) -> Any:
    """Multiply covariates in the rows to forecast; the caller's tables stay as they are.

    Parameters
    ----------
    known
        Future covariates: a DataFrame, also a long one or one with a MultiIndex (series, time), or
        a list or dict of DataFrames.
    changes
        By what to multiply each column.
    series
        Whose rows change, where the tables tell series apart.
    last
        Stamp of its last known row.
    id_col, time_col
        Columns of a long frame.

    Raises
    ------
    ParameterError
        A column is not there, or is not numeric.
    """
    how: dict[str, Any] = {"series": series, "last": last, "id_col": id_col, "time_col": time_col}
    if isinstance(known, Mapping):
        return {**known, series: changed_covariates(known[series], changes, **how)}
    if isinstance(known, list):
        return [
            changed_covariates(table, changes, **how) if place == series else table
            for place, table in enumerate(known)
        ]
    lacking = [name for name in changes if name not in known or known[name].dtype.kind not in "iuf"]
    if lacking or not changes:
        raise ParameterError(
            f"changes must name numeric columns of future_covariates, which has "
            f"{', '.join(map(str, known.columns))}; got {dict(changes)!r}."
        )
    stamps, owners = known.index, None
    if id_col in known:
        stamps, owners = known[time_col], known[id_col]
    elif known.index.nlevels > 1:
        owners, stamps = (known.index.get_level_values(level) for level in (0, 1))
    later = np.asarray(stamps > last)
    if owners is not None:
        later = later & np.asarray(owners == series)
    other = known.astype(dict.fromkeys(changes, float))
    for name, factor in changes.items():
        other[name] = other[name].where(~later, other[name] * factor)
    return other


@torch.inference_mode()
def explain_window(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    names: Mapping[str, Sequence[Hashable]],
    *,
    point: Callable[[Tensor], Tensor],
    part: int,
    lookback: int,
) -> Explanation:
    """Explain the forecast of one window.

    Parameters
    ----------
    network
        What forecasts.
    inputs
        What it reads, by the names of its arguments, of one window: "context", (1, M, L), and the
        rest.
    names
        Names of the variates under "context" and of the covariates under "past" and "future".
    point
        Makes a point forecast, (1, M, H), of what the network returns.
    part
        Rows of a part.
    lookback
        Rows L of the window.
    """
    whole = point(network(**inputs))  # (1, M, H)

    def moved(kind: str, number: int, rows: slice) -> Tensor:
        without = inputs[kind].clone()
        without[:, number, rows] = mean_of(inputs, kind, number)
        change = point(network(**{**inputs, kind: without})) - whole
        return change.square().mean((0, 2)).sqrt().cpu()  # (M,)

    targets = list(names["context"])
    columns, tables = {}, []
    for kind, sources in names.items():
        length = inputs[kind].shape[-1]
        borders = [*range(lookback % part, lookback, part)]
        borders = sorted({0, *borders, *range(lookback, length, part), length})
        for number, source in enumerate(sources):
            columns[source] = moved(kind, number, slice(None)).numpy()
            for first, stop in pairwise(borders):
                table = pd.DataFrame(
                    {
                        "target": pd.Series(targets, dtype=object),
                        "source": pd.Series([source] * len(targets), dtype=object),
                        "first": first - lookback + 1,
                        "last": stop - lookback,
                        "influence": moved(kind, number, slice(first, stop)).numpy(),
                    }
                )
                tables.append(table)
    index = pd.Index(targets, name="target", tupleize_cols=False)
    frame = pd.DataFrame(columns, index=index).rename_axis(columns="source")
    return Explanation(columns=frame, parts=pd.concat(tables, ignore_index=True))
