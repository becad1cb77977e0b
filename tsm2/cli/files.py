"""Files in and out: tables and covariates, for a fit or for a saved model; results as CSV."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tsm2.cli.advice import for_command_line
from tsm2.cli.known import as_known_ids
from tsm2.cli.options import Reading
from tsm2.cli.printing import print_json, say
from tsm2.cli.values import split_names
from tsm2.errors import OutputError
from tsm2.tables.csv import FileOptions, FileTable, TextTable, read_text
from tsm2.tables.dates import KnownStamps
from tsm2.tables.spreadsheet import mark_formulas

if TYPE_CHECKING:
    from tsm2.forecaster import TSM2Forecaster
    from tsm2.tables.layout import Layout

__all__ = [
    "Covariates",
    "Roles",
    "covariates_for",
    "open_model",
    "read_covariates",
    "read_for",
    "read_new",
    "require_writable",
    "write",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Covariates:
    """The files of covariates that were given; None for those that were not."""

    past: Path | None = None
    future: Path | None = None
    static: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Roles:
    """What the columns of a file are."""

    time: str | None
    """Name of the time column; None for the first."""
    series: str | None = None
    """Name of the column that says to which series a row belongs; None for one table."""
    targets: Sequence[str] = field(default=())
    """Columns of values of a file of many series."""


def read_new(
    path: Path, reading: Reading, *, time: str | None, series: str | None, targets: str | None
) -> tuple[pd.DataFrame, Roles]:
    """Read a file for a fit: of many series if it has the column that names them.

    Parameters
    ----------
    path
        The file; "-" for standard input.
    reading
        What settles how it is read.
    time, series
        Columns that were named; None if they were not.
    targets
        Columns of values that were named, between commas.

    Raises
    ------
    FrameError
        The file cannot be read.
    """
    text = _open(path, reading)
    if series is None and "unique_id" not in text.columns:
        return _said(text.wide(time)), Roles(time=time)
    roles = Roles(
        time=time or "ds", series=series or "unique_id", targets=split_names(targets or "y")
    )
    return _said(text.long(str(roles.series), str(roles.time), roles.targets)), roles


def open_model(
    name: Path, path: Path, time: str | None, reading: Reading
) -> tuple[TSM2Forecaster, pd.DataFrame]:
    """Return a saved model, or a pretrained one that takes the file for its history, and the file.

    Raises
    ------
    FrameError
        The file cannot be read, or names series as the model does not.
    SavedModelError
        There is no such model.
    """
    from tsm2.forecaster import TSM2Forecaster
    from tsm2.networks.pretrained import holds_pretrained

    if not holds_pretrained(str(name)):
        model = TSM2Forecaster.load(name)
        return model, read_for(model, path, time, reading)
    frame, roles = read_new(path, reading, time=time, series=None, targets=None)
    columns: dict[str, Any] = {}
    if roles.series is not None:
        columns = {"id_col": roles.series, "time_col": roles.time, "target_col": roles.targets}
    model = TSM2Forecaster.from_pretrained(str(name), **columns)
    return model.fit(frame), frame


def read_for(model: TSM2Forecaster, path: Path, time: str | None, reading: Reading) -> pd.DataFrame:
    """Read a file in the form that a model was fitted to.

    Raises
    ------
    FrameError
        The file cannot be read, or names series as the model does not.
    """
    layout, text = model.layout_, _open(path, reading)
    if layout.series != "long":
        return _said(text.wide(time, known=_known(layout)))
    named = time or model.time_col
    columns = list(map(str, layout.columns))
    table = text.long(model.id_col, named, columns, known=_known(layout))
    frame = _said(table).rename(columns={named: model.time_col})
    return as_known_ids(model, frame)


def read_covariates(
    files: Covariates, roles: Roles, reading: Reading, known: KnownStamps | None = None
) -> dict[str, Any]:
    """Read files of covariates, by the names of the arguments of `TSM2Forecaster.fit`.

    A file without the column of series holds for all of them; `known` is what a model knows of
    the stamps.

    Raises
    ------
    FrameError
        A file cannot be read.
    """
    found = {}
    for name, path in {"past_covariates": files.past, "future_covariates": files.future}.items():
        if path is None:
            continue
        text = _open(path, reading)
        if roles.series is not None and roles.series in text.columns:
            found[name] = _said(text.long(roles.series, str(roles.time), known=known))
        else:
            found[name] = _said(text.wide(roles.time, known=known))
    if files.static is not None:
        found["static_covariates"] = _said(_open(files.static, reading).static())
    return found


def covariates_for(
    model: TSM2Forecaster, files: Covariates, time: str | None, reading: Reading
) -> dict[str, Any]:
    """Read files of covariates in the form that a model was fitted to."""
    layout = model.layout_
    known = _known(layout)
    if layout.series != "long":
        return read_covariates(files, Roles(time=time), reading, known)
    roles = Roles(time=time or model.time_col, series=model.id_col)
    found = read_covariates(files, roles, reading, known)
    renamed = {roles.time: model.time_col}
    return {
        name: as_known_ids(model, frame.rename(columns=renamed)) for name, frame in found.items()
    }


def _known(layout: Layout) -> KnownStamps:
    is_dated = layout.index_kind == "datetime"
    return KnownStamps(
        index_kind=layout.index_kind,
        zone=layout.timezone,
        frequency=layout.frequency if is_dated else None,
    )


def _open(path: Path, reading: Reading) -> TextTable:
    source = sys.stdin.buffer if str(path) == "-" else path
    return read_text(source, FileOptions(**reading))


def _said(table: FileTable) -> pd.DataFrame:
    """Say how a file was read, and return what it holds."""
    for note in table.notes:
        say(f"note: {for_command_line(note)}")
    return table.frame


def write(frame: pd.DataFrame, out: Path | None, *, as_json: bool = False) -> None:
    """Write a table to a file as CSV, or to standard output as CSV or as one JSON object a row.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    if out is None and as_json:
        for record in frame.reset_index().to_dict("records"):
            print_json(record)
        return
    try:
        mark_formulas(frame).to_csv(sys.stdout if out is None else out, quoting=csv.QUOTE_MINIMAL)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    if out is not None:
        say(f"written: {out}")


def require_writable(out: Path) -> None:
    """Find out before the work starts that its result has a place to go.

    Raises
    ------
    OutputError
        It has not.
    """
    parent = out.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {out}: the folder {parent} does not exist. Make it first.")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write {out}: the folder {parent} is not writable.")
