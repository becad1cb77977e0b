"""Frames: which engine a frame belongs to, and what is asked of an engine."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol, cast

import pandas as pd

from tsm2 import errors
from tsm2.engines.work import Task
from tsm2.errors import DependencyError, ParameterError, TSM2Error

__all__ = ["Engine", "engine_of", "own_errors"]

_ENGINES = {  # by the package that a frame's class is of
    "pandas": "pandas_frames",
    "dask": "dask_frames",
    "ray": "ray_datasets",
    "pyspark": "spark_frames",
}
_OWN = re.compile(r"tsm2\.errors\.(\w+Error): (.+)")


class Engine(Protocol):
    """What a module of an engine can do with its frames."""

    ordered: bool
    """Whether rows keep their order."""

    def is_frame(self, frame: object) -> bool:
        """Say if something is a frame of the engine."""
        ...

    def columns(self, frame: Any) -> pd.DataFrame:
        """Return the columns as a table of pandas without rows."""
        ...

    def over(self, frame: Any, task: Task, by: str, partitions: int | None) -> Any:
        """Return what a task makes of partitions that do not divide the values of a column."""
        ...

    def names(self, frame: Any, column: str) -> pd.Index:
        """Return the distinct values of a column."""
        ...

    def rows(self, frame: Any, column: str, names: Sequence[Hashable] | None) -> pd.DataFrame:
        """Return all rows here, or those with certain values in a column."""
        ...

    def collect(self, frame: Any) -> pd.DataFrame:
        """Return what `over` returned as a table of pandas."""
        ...


def engine_of(frame: object) -> Engine:
    """Return the module of the engine that a frame belongs to.

    Raises
    ------
    ParameterError
        It is no frame of a known engine.
    DependencyError
        A part of the engine is not installed.
    """
    package = type(frame).__module__.partition(".")[0]
    if package in _ENGINES:
        try:
            engine = cast("Engine", import_module(f"tsm2.engines.{_ENGINES[package]}"))
        except ImportError as error:
            extra = package.removeprefix("py")
            raise DependencyError(
                f"tsm2.engines needs {error.name or error} for this frame, which is not installed. "
                f"Install it with tsm2's extra {extra!r}: pip install 'tsm2[{extra}]'."
            ) from error
        if engine.is_frame(frame):
            return engine
    raise ParameterError(
        f"the frame is {type(frame).__module__}.{type(frame).__qualname__}, but a DataFrame of "
        f"pandas, Dask or Spark, or a Ray Dataset is needed. tsm2's extras 'dask', 'ray' and "
        f"'spark' install these."
    )


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise an error of tsm2 that an engine wrapped in one of its own as what it was."""
    try:
        yield
    except TSM2Error:
        raise
    except Exception as error:
        own = _OWN.findall(str(error))
        kind = getattr(errors, own[-1][0], None) if own else None
        if kind is None:
            raise
        raise kind(own[-1][1].strip()) from error
