"""Work: what a worker does with the rows of whole series, from pandas to pandas.

A task is sent to every worker with all that it needs. It is called with a partition, which may be
empty, and returns rows of the columns that it says beforehand.
"""

from __future__ import annotations

import pickle
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pandas as pd
from sklearn.base import clone

from tsm2.errors import FrameError, NotFittedError, WindowError
from tsm2.forecaster import TSM2Forecaster

__all__ = ["FitGroups", "FittedGroups", "Forecast", "Task", "check_columns", "in_order", "run"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FittedGroups:
    """A fitted forecaster for every group of series."""

    by: str
    """Column that says to which group a row belongs."""
    forecasters: Mapping[Hashable, TSM2Forecaster]
    """The forecaster of each group; each can be saved and used by itself."""

    @property
    def any_forecaster(self) -> TSM2Forecaster:
        """One of them: they have the same columns."""
        return next(iter(self.forecasters.values()))

    def of(self, group: Hashable) -> TSM2Forecaster:
        """Return the forecaster of a group.

        Raises
        ------
        FrameError
            There is none.
        """
        if group not in self.forecasters:
            known = ", ".join(map(repr, list(self.forecasters)[:5]))
            raise FrameError(
                f"there is no model for {self.by}={group!r}, but for {len(self.forecasters)} "
                f"others, such as {known}. Fit again with its rows, or leave them out."
            )
        return self.forecasters[group]


class Task(Protocol):
    """What is done with a partition."""

    @property
    def columns(self) -> pd.DataFrame:
        """The table that it returns, without its rows."""
        ...

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return what comes of the rows of whole series, or groups."""
        ...

    @property
    def forecaster(self) -> TSM2Forecaster:
        """Names the columns of series and time."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Forecast:
    """Ask a fitted model about each series."""

    columns: pd.DataFrame
    model: TSM2Forecaster | FittedGroups
    verb: Literal["predict", "predict_quantiles", "backtest"]
    how: Mapping[str, Any] = field(default_factory=dict)

    @property
    def forecaster(self) -> TSM2Forecaster:
        """Names the columns of series and time."""
        return self.model if isinstance(self.model, TSM2Forecaster) else self.model.any_forecaster

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return what a forecaster says of the rows."""
        if isinstance(self.model, TSM2Forecaster):
            return self._said_by(self.model, rows)
        by, parts = self.model.by, []
        for group, own in rows.groupby(by, sort=False):
            said = self._said_by(self.model.of(group), own.drop(columns=by))
            said.insert(0, by, group)
            parts.append(said)
        return pd.concat(parts, ignore_index=True)

    def _said_by(self, forecaster: TSM2Forecaster, rows: pd.DataFrame) -> pd.DataFrame:
        try:
            said: pd.DataFrame = getattr(forecaster, self.verb)(rows, **self.how)
        except WindowError:
            if self.verb != "backtest" or self.how.get("start") is None:
                raise
            return self.columns.drop(columns=getattr(self.model, "by", []))  # all end before it
        return said


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FitGroups:
    """Fit a copy of a forecaster to the rows of each group."""

    columns: pd.DataFrame
    forecaster: TSM2Forecaster
    by: str
    how: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the groups with their models, pickled, for whoever asked for them."""
        found: dict[str, list[Any]] = {self.by: [], "model": []}
        for group, own in rows.groupby(self.by, sort=False):
            copy: Any = clone(self.forecaster)  # scikit-learn's hint says less
            copy.fit(own.drop(columns=self.by), **self.how)
            found[self.by].append(group)
            found["model"].append(pickle.dumps(copy))
        return pd.DataFrame(found)


def run(task: Task, rows: pd.DataFrame, *, ordered: bool = False) -> pd.DataFrame:
    """Return what comes of a partition, in the types that the task says.

    Rows of engines come in any order and are put into that of series and time first.
    """
    if not len(rows):
        return task.columns
    rows = rows if ordered else in_order(rows, task.forecaster)
    return task(rows).astype(task.columns.dtypes.to_dict())[list(task.columns)]


def in_order(rows: pd.DataFrame, forecaster: TSM2Forecaster) -> pd.DataFrame:
    """Sort rows by series and time."""
    return rows.sort_values([forecaster.id_col, forecaster.time_col], ignore_index=True)


def check_columns(
    columns: pd.DataFrame, forecaster: TSM2Forecaster, by: str | None, *, needs_fit: bool
) -> None:
    """Check that a frame has the columns of a long table, and that the model reads such a one.

    Raises
    ------
    FrameError
        It has not, or the model was fitted to another container.
    NotFittedError
        The model is not fitted.
    """
    target = forecaster.target_col
    targets = [target] if isinstance(target, str) else list(target)
    wanted = [forecaster.id_col, forecaster.time_col, *targets, *([] if by is None else [by])]
    missing = [name for name in wanted if name not in columns.columns]
    if missing:
        raise FrameError(
            f"the frame has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, columns.columns))}. Series, time and values are named by the "
            f"forecaster's id_col, time_col and target_col."
        )
    if needs_fit and not hasattr(forecaster, "fitted_"):
        raise NotFittedError("the forecaster is not fitted yet. Call tsm2.engines.fit first.")
    if needs_fit and forecaster.layout_.container != "a long frame":
        raise FrameError(
            f"the model was fitted to {forecaster.layout_.container}, but on an engine it reads "
            f"long tables. Fit it to a long DataFrame of pandas, or with tsm2.engines.fit."
        )
