"""Frames of Spark: a repartition puts the rows of a series together, then partitions are mapped."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import pandas as pd
from pyspark.sql.types import (  # pyright: ignore[reportMissingImports]
    BinaryType,
    DoubleType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from tsm2.engines.work import Task, run

__all__ = ["collect", "columns", "is_frame", "names", "ordered", "over", "rows"]

ordered = False


def is_frame(frame: object) -> bool:
    """Say if something is a DataFrame of Spark, connected to or not."""
    return type(frame).__name__ == "DataFrame" and hasattr(frame, "mapInPandas")


def columns(frame: Any) -> pd.DataFrame:
    """Return the columns without rows."""
    empty: pd.DataFrame = frame.limit(0).toPandas()
    return empty


def over(frame: Any, task: Task, by: str, partitions: int | None) -> Any:
    """Return what a task makes of partitions, as a DataFrame of Spark; categories are text."""
    together = frame.repartition(by) if partitions is None else frame.repartition(partitions, by)
    context = getattr(frame.sparkSession, "sparkContext", None)  # not through Spark Connect
    sent = None if context is None else context.broadcast(task)  # once to every machine
    taken: Callable[[], Task] = (lambda: task) if sent is None else (lambda: sent.value)

    def over_partition(pieces: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        whole = list(pieces)
        if whole:
            found = run(taken(), pd.concat(whole, ignore_index=True))
            texts = found.select_dtypes(["category", "string"]).columns
            yield found.astype(dict.fromkeys(texts, object))  # Spark takes no text in chunks

    return together.mapInPandas(over_partition, _schema(frame, task))


def _schema(frame: Any, task: Task) -> StructType:
    """Return the types of a result: series and stamps have those of the frame."""
    given = {field.name: field.dataType for field in frame.schema.fields}
    time = given[task.forecaster.time_col]
    kinds: dict[str, Any] = {
        **given,
        **dict.fromkeys(("cutoff", "time"), time),
        "series": given[task.forecaster.id_col],
        "step": LongType(),
        "variate": StringType(),
        "model": BinaryType(),
    }
    fields = []
    for name, dtype in task.columns.dtypes.items():
        kind = DoubleType() if dtype == "float64" else kinds[str(name)]
        fields.append(StructField(str(name), kind))
    return StructType(fields)


def names(frame: Any, column: str) -> pd.Index:
    """Return the distinct values of a column."""
    found: pd.Index = pd.Index(frame.select(column).distinct().toPandas()[column])
    return found


def rows(frame: Any, column: str, names: Sequence[Hashable] | None) -> pd.DataFrame:
    """Return all rows here, or those with certain values in a column."""
    if names is None:
        return collect(frame)
    chosen = frozenset(names)

    def of_batches(pieces: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for piece in pieces:
            yield piece[piece[column].isin(chosen)]

    return collect(frame.mapInPandas(of_batches, frame.schema))


def collect(frame: Any) -> pd.DataFrame:
    """Compute a frame."""
    found: pd.DataFrame = frame.toPandas()
    return found
