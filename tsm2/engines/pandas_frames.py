"""Frames of pandas: partitions of series in the order in which they appear, through joblib."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from tsm2.engines.work import Task, run

__all__ = ["collect", "columns", "is_frame", "names", "ordered", "over", "rows"]

ordered = True


def is_frame(frame: object) -> bool:
    """Say if something is a DataFrame of pandas."""
    return isinstance(frame, pd.DataFrame)


def columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the columns without rows."""
    return frame.iloc[:0]


def over(frame: pd.DataFrame, task: Task, by: str, partitions: int | None) -> pd.DataFrame:
    """Return what a task makes of partitions, one by one, or as `joblib.parallel_config` says."""
    codes, found = pd.factorize(frame[by])
    part = codes * (partitions or 1) // max(len(found), 1)
    own = (frame[part == number] for number in np.unique(part))
    done: Any = Parallel()(delayed(run)(task, each, ordered=True) for each in own)
    return pd.concat(done, ignore_index=True) if done else task.columns


def names(frame: pd.DataFrame, column: str) -> pd.Index:
    """Return the distinct values of a column."""
    found: pd.Index = pd.Index(frame[column].unique())
    return found


def rows(frame: pd.DataFrame, column: str, names: Sequence[Hashable] | None) -> pd.DataFrame:
    """Return all rows, or those with certain values in a column."""
    return frame if names is None else frame[frame[column].isin(names)]


def collect(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame."""
    return frame
