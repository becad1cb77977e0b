"""Frames of Dask: a shuffle puts the rows of a series together, then partitions are mapped."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import dask.dataframe as dd  # pyright: ignore[reportMissingImports]
import pandas as pd
from dask.delayed import delayed  # pyright: ignore[reportMissingImports]

from tsm2.engines.work import Task, run

__all__ = ["collect", "columns", "is_frame", "names", "ordered", "over", "rows"]

ordered = False


def is_frame(frame: object) -> bool:
    """Say if something is a DataFrame of Dask."""
    return isinstance(frame, dd.DataFrame)


def columns(frame: Any) -> pd.DataFrame:
    """Return the columns without rows."""
    meta: pd.DataFrame = frame._meta
    return meta


def over(frame: Any, task: Task, by: str, partitions: int | None) -> Any:
    """Return what a task makes of partitions, as a DataFrame of Dask."""
    together = frame.shuffle(on=by, npartitions=partitions or frame.npartitions)
    sent = delayed(task)  # once to every worker, and not once with every partition
    return together.map_partitions(_run, sent, meta=task.columns, align_dataframes=False)


def _run(rows: pd.DataFrame, task: Task) -> pd.DataFrame:
    return run(task, rows)


def names(frame: Any, column: str) -> pd.Index:
    """Return the distinct values of a column."""
    found: pd.Index = pd.Index(frame[column].drop_duplicates().compute())
    return found


def rows(frame: Any, column: str, names: Sequence[Hashable] | None) -> pd.DataFrame:
    """Return all rows here, or those with certain values in a column."""
    chosen = frame if names is None else frame[frame[column].isin(names)]
    return collect(chosen)


def collect(frame: Any) -> pd.DataFrame:
    """Compute a frame."""
    found: pd.DataFrame = frame.compute()
    return found
