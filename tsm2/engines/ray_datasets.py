"""Ray Datasets: rows are grouped by a bucket of whole series, and groups are mapped."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import pandas as pd
import ray  # pyright: ignore[reportMissingImports]

from tsm2.engines.work import Task, run

__all__ = ["collect", "columns", "is_frame", "names", "ordered", "over", "rows"]

ordered = False
_BUCKET = "_tsm2_bucket"
_PER_PROCESSOR = 4  # buckets, so that none waits for the largest


def is_frame(frame: object) -> bool:
    """Say if something is a Ray Dataset."""
    return isinstance(frame, ray.data.Dataset)


def columns(frame: Any) -> pd.DataFrame:
    """Return the columns without rows."""
    head: pd.DataFrame = frame.limit(1).to_pandas()
    return head.iloc[:0]


def over(frame: Any, task: Task, by: str, partitions: int | None) -> Any:
    """Return what a task makes of buckets, as a Ray Dataset."""
    count = partitions or _PER_PROCESSOR * _processors()
    marked = frame.map_batches(
        partial(_marked, by=by, count=count), batch_format="pandas", batch_size=None
    )
    sent = ray.put(task)  # once to every machine
    grouped = marked.groupby(_BUCKET, num_partitions=count)
    return grouped.map_groups(partial(_run, sent=sent), batch_format="pandas")


def _processors() -> int:
    resources: Any = ray.cluster_resources  # untyped
    return int(resources().get("CPU", 1))


def _marked(rows: pd.DataFrame, by: str, count: int) -> pd.DataFrame:
    codes = pd.util.hash_array(rows[by].to_numpy(), categorize=True)
    return rows.assign(**{_BUCKET: (codes % count).astype("int64")})


def _run(rows: pd.DataFrame, sent: Any) -> pd.DataFrame:
    return run(ray.get(sent), rows.drop(columns=_BUCKET))


def names(frame: Any, column: str) -> pd.Index:
    """Return the distinct values of a column."""
    found: pd.Index = pd.Index(frame.unique(column))
    return found


def rows(frame: Any, column: str, names: Sequence[Hashable] | None) -> pd.DataFrame:
    """Return all rows here, or those with certain values in a column."""
    if names is None:
        return collect(frame)
    chosen = partial(_chosen, column=column, names=frozenset(names))
    return collect(frame.map_batches(chosen, batch_format="pandas"))


def _chosen(rows: pd.DataFrame, column: str, names: frozenset[Hashable]) -> pd.DataFrame:
    return rows[rows[column].isin(names)]


def collect(frame: Any) -> pd.DataFrame:
    """Compute a Dataset."""
    found: pd.DataFrame = frame.to_pandas()
    return found
