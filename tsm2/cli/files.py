"""Files in and out: tables and covariates for a fit or for a saved model, results as CSV."""

from __future__ import annotations

import csv
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tsm2.cli.printing import say
from tsm2.errors import FrameError, OutputError

if TYPE_CHECKING:
    from tsm2.forecaster import TSM2Forecaster

__all__ = [
    "covariates_for",
    "read_covariates",
    "read_csv",
    "read_for",
    "require_writable",
    "write_csv",
]


def read_csv(
    path: Path, time_column: str | None, long: Sequence[str] = (), *, is_long: bool = False
) -> pd.DataFrame:
    """Read a CSV file into a frame indexed by its time column, or into a long frame.

    Parameters
    ----------
    path
        The file.
    time_column
        Its column of time stamps, if it holds one table; None for the first.
    long
        Columns of a long frame: series, time, values. A file with the first of them holds one.
    is_long
        Refuse another file.

    Raises
    ------
    FrameError
        The file cannot be read, or its time column is missing or not readable as times.
    """
    frame = _read_file(path)
    if is_long or (long and long[0] in frame.columns):
        missing = [name for name in long if name not in frame.columns]
        if missing:
            raise FrameError(
                f"{path} has no column {', '.join(map(repr, missing))}; it has: "
                f"{', '.join(map(str, frame.columns))}. Name its columns with --id-col, "
                f"--time-col and --target-col."
            )
        stamps = _read_stamps(path, frame[long[1]])
        return frame[list(long)].assign(**{long[1]: stamps})
    column = frame.columns[0] if time_column is None else time_column
    if column not in frame.columns:
        raise FrameError(
            f"{path} has no column {column!r}; it has: {', '.join(map(str, frame.columns))}."
        )
    return frame.set_index(_read_stamps(path, frame.pop(column)))


def _read_file(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FrameError(f"cannot read {path}: {reason}") from error


def _read_stamps(path: Path, column: pd.Series[Any]) -> pd.Index:
    """Return whole numbers or time stamps of a column, as an index of its name."""
    index: pd.Index = pd.Index(column, name=str(column.name))
    if pd.api.types.is_integer_dtype(column):
        return index
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a format that must be guessed row by row
            return pd.DatetimeIndex(pd.to_datetime(column), name=str(column.name))
    except (ValueError, TypeError) as error:
        raise FrameError(
            f"column {column.name!r} of {path} does not hold times ({str(error).splitlines()[0]}). "
            f"Name the time column with --time-column."
        ) from error


def read_for(model: TSM2Forecaster, path: Path, time_column: str | None) -> pd.DataFrame:
    """Read a CSV file in the form that a model was fitted to."""
    layout = model.layout_
    if layout.series != "long":
        return read_csv(path, time_column)
    time = time_column or model.time_col
    long = [model.id_col, time, *map(str, layout.columns)]
    return read_csv(path, None, long, is_long=True).rename(columns={time: model.time_col})


def read_covariates(
    past: Path | None,
    future: Path | None,
    static: Path | None,
    time_column: str | None,
    long: Sequence[str],
) -> dict[str, Any]:
    """Read files of covariates, by the names of the arguments of `TSM2Forecaster.fit`.

    `long` names the columns of series and time, if the data are a long frame. A file without the
    first of them holds for all series.
    """
    found = {}
    for name, path in {"past_covariates": past, "future_covariates": future}.items():
        if path is None:
            continue
        frame = read_csv(path, long[1] if long else time_column)
        if long and long[0] in frame.columns:
            frame = frame.reset_index()
        found[name] = frame
    if static is not None:
        table = _read_file(static)
        found["static_covariates"] = table.set_index(table.columns[0])
    return found


def covariates_for(
    model: TSM2Forecaster,
    past: Path | None,
    future: Path | None,
    static: Path | None,
    time_column: str | None,
) -> dict[str, Any]:
    """Read files of covariates in the form that a model was fitted to."""
    is_long = model.layout_.series == "long"
    long = (model.id_col, time_column or model.time_col) if is_long else ()
    found = read_covariates(past, future, static, time_column, long)
    renamed = {time_column: model.time_col} if is_long and time_column is not None else {}
    return {name: frame.rename(columns=renamed) for name, frame in found.items()}


def write_csv(frame: pd.DataFrame, out: Path | None) -> None:
    """Write a table to a file, or to standard output."""
    try:
        frame.to_csv(sys.stdout if out is None else out, quoting=csv.QUOTE_MINIMAL)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    if out is not None:
        say(f"written: {out}")


def require_writable(out: Path) -> None:
    """Find out before the work starts that its result has a place to go."""
    parent = out.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {out}: the folder {parent} does not exist. Make it first.")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write {out}: the folder {parent} is not writable.")
