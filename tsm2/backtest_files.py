"""Backtest files: backtests that are written while their forecasts are made, and read in pieces.

    forecasts, a batch at a time -> pieces of a table -> a file beside its place -> its place

A piece has the columns of a backtest; a file holds one behind the other, so that neither who writes
nor who measures errors ever has more than a piece in memory. Parquet keeps the types of the
columns. CSV is text: floats are written so that they come back to the bit, and what the text stands
for is known to who wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from tsm2.errors import DependencyError, OutputError, ParameterError
from tsm2.replacing import replacing
from tsm2.tables.containers import Form, to_library
from tsm2.tables.spreadsheet import mark_formulas, may_hold_text, unmark_formulas

__all__ = ["BacktestFile", "check_target", "in_blocks", "write_backtest"]

_ROWS = 2**16  # that are written at once, at least
_SUFFIXES = (".parquet", ".csv")
_AT_A_GLANCE = 2**26  # bytes of a file that a notebook measures to show it, in a second or two


@dataclass(frozen=True, slots=True, eq=False)
class BacktestFile:
    """A backtest that lies in a file; `tsm2.backtesting.error_table` measures it piece by piece.

    `TSM2Forecaster.backtest` returns one where it is given `to`. A Parquet file is taken up again
    later, or elsewhere, with ``BacktestFile("errors.parquet")``.

    Raises
    ------
    OutputError
        There is no such file, or it is not one of a backtest.
    """

    path: Path
    """The file."""
    like: pd.DataFrame | None = field(default=None, repr=False)
    """The table without its rows, which says what the text of a CSV file stands for."""
    form: Form = field(default=Form(), repr=False)
    """What table was tested, and what `read` and error tables therefore are."""
    names: Mapping[str, Hashable] = field(default_factory=dict, repr=False)
    """Names of series that are not text, by what they are written as."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if not self.path.is_file():
            raise OutputError(f"there is no file {self.path}. Check the path.")
        if self.like is not None:
            return
        if self.path.suffix != ".parquet":
            raise OutputError(
                f"{self.path} does not say what types its columns have, as only Parquet files do. "
                f"Read it with pandas.read_csv, or write the backtest to a .parquet file."
            )
        try:
            columns = next(self.pieces(1)).columns
        except (OSError, ValueError, StopIteration) as error:
            raise OutputError(f"{self.path} is no Parquet file of a backtest: {error}") from error
        if missing := {"cutoff", "step", "time", "variate", "actual", "forecast"} - {*columns}:
            raise OutputError(
                f"{self.path} is no backtest: it has no column {', '.join(sorted(missing))}."
            )

    def pieces(self, rows: int = _ROWS) -> Iterator[pd.DataFrame]:
        """Yield the table, `rows` rows of it at a time, in the types of a backtest in memory."""
        pieces = _parquet_pieces if self.path.suffix == ".parquet" else _csv_pieces
        for piece in in_blocks(pieces(self.path, rows, self.like), rows):
            yield piece if self.like is None else _typed(piece, self.like, self.names)

    def read(self) -> Any:
        """Return the whole table, as `TSM2Forecaster.backtest` returns it without `to`."""
        return to_library(pd.concat(self.pieces(), ignore_index=True), self.form)

    def _repr_html_(self) -> str:
        size = self.path.stat().st_size
        title = f"Backtest in {escape(str(self.path))}, {size / 2**20:,.1f} MiB"
        if size > _AT_A_GLANCE:
            first = next(self.pieces()).head()
            return f"<p>{title}. Its first rows:</p>{first.to_html(index=False)}"
        shown = self._errors().to_html(max_rows=10, float_format="{:.4g}".format, na_rep="–")
        return f"<p>{title}. Mean absolute errors, in the table's units:</p>{shown}"

    def _errors(self) -> pd.DataFrame:
        """Return mean absolute errors of each variate: at three steps, and at all of them."""
        parts = []
        for piece in self.pieces():
            errors = (piece["forecast"] - piece["actual"]).abs()
            keys = [piece["variate"], piece["step"]]
            grouped = errors.groupby(keys, observed=True, sort=False)
            parts.append(grouped.agg(["sum", "count"]))
        sums = pd.concat(parts).groupby(level=[0, 1], observed=True, sort=False).sum()
        variates = sums.index.unique("variate")
        total, known = (sums[name].unstack("step").loc[variates] for name in ("sum", "count"))
        last = int(total.columns.to_numpy(np.int64).max())
        steps = sorted({1, (1 + last) // 2, last})
        shown = (total / known)[steps].add_prefix("step ")
        return shown.assign(all=total.sum(axis="columns") / known.sum(axis="columns"))


class _Writer(Protocol):
    def __call__(self, piece: pd.DataFrame) -> None: ...


def check_target(value: Path) -> Path:
    """Check, before any work is done, that a backtest can be written to a path.

    Raises
    ------
    ParameterError
        Its suffix names no kind of file that is written.
    DependencyError
        pyarrow is not installed.
    OutputError
        Its folder does not exist or is not writable, or something else than a file is there.
    """
    if value.suffix not in _SUFFIXES:
        raise ParameterError(
            f"a backtest is written to a .parquet or a .csv file, got {str(value)!r}. Choose one "
            f"of these suffixes."
        )
    if value.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise DependencyError(
            "a .parquet file needs pyarrow, which is not installed. Install it with tsm2's extra "
            "'parquet': pip install 'tsm2[parquet]'; or write a .csv file."
        )
    parent = value.absolute().parent
    if not parent.is_dir():
        raise OutputError(
            f"cannot write {value}: the folder {parent} does not exist. Make it first."
        )
    if not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write {value}: the folder {parent} is not writable.")
    if os.path.lexists(value) and (value.is_symlink() or not value.is_file()):
        raise OutputError(
            f"{value} is a link, a folder or a device, which is not replaced. Choose another path, "
            f"or remove it first."
        )
    return value


def write_backtest(path: Path, pieces: Iterable[pd.DataFrame], form: Form) -> BacktestFile:
    """Write the pieces of a backtest to a file, which takes its place when it is whole.

    Parameters
    ----------
    path
        The file; what was there is replaced, or stays as it is if anything fails.
    pieces
        Tables of the same columns and types, at least one.
    form
        What table was tested.

    Raises
    ------
    ParameterError
        A name of a series or column is of a type that the file cannot hold.
    OutputError
        The file cannot be written.
    """
    like: pd.DataFrame | None = None
    names: dict[str, Hashable] = {}
    writing = _parquet_writer if path.suffix == ".parquet" else _csv_writer
    with replacing(path) as part, writing(part) as write:
        for piece in _at_least(pieces, _ROWS):
            like = piece.iloc[:0] if like is None else like
            _take_names(piece, names)
            write(piece)
    return BacktestFile(path, like, form, names)


def _take_names(piece: pd.DataFrame, names: dict[str, Hashable]) -> None:
    """Add the names of the series in a piece that only their text would be known of."""
    if piece.dtypes.iloc[0] != np.object_:
        return
    for name in piece.iloc[:, 0].unique():
        if names.setdefault(str(name), name) != name:
            raise ParameterError(
                f"series {name!r} and {names[str(name)]!r} would have one name in a file. Name "
                f"them differently."
            )


def _at_least(pieces: Iterable[pd.DataFrame], rows: int) -> Iterator[pd.DataFrame]:
    """Put pieces together until they have some rows."""
    waiting: list[pd.DataFrame] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= rows:
            yield pd.concat(waiting, ignore_index=True)
            waiting = []
    if waiting:
        yield pd.concat(waiting, ignore_index=True)


def in_blocks(pieces: Iterable[pd.DataFrame], rows: int) -> Iterator[pd.DataFrame]:
    """Cut a table, given in pieces, into blocks of so many rows; the last one has the rest.

    What is summed block by block is then the same to the bit, however the table came.

    Examples
    --------
    >>> pieces = [pd.DataFrame({"step": range(n)}) for n in (2, 4, 1)]
    >>> [len(block) for block in in_blocks(pieces, 3)]
    [3, 3, 1]
    """
    rest: pd.DataFrame | None = None
    for piece in pieces:
        rest = piece if rest is None else pd.concat((rest, piece), ignore_index=True)
        while len(rest) > rows:
            yield rest.iloc[:rows].reset_index(drop=True)
            rest = rest.iloc[rows:].reset_index(drop=True)
    if rest is not None:
        yield rest


# --- Parquet --------------------------------------------------------------------------------------


@contextmanager
def _parquet_writer(path: Path) -> Iterator[_Writer]:
    import pyarrow as pa
    from pyarrow import parquet

    file: Any = None

    def write(piece: pd.DataFrame) -> None:
        nonlocal file
        named = piece.set_axis([str(name) for name in piece.columns], axis="columns")
        try:
            schema = None if file is None else file.schema
            table = pa.Table.from_pandas(named, schema=schema, preserve_index=False)
            file = parquet.ParquetWriter(path, table.schema) if file is None else file
            file.write_table(table)
        except pa.ArrowException as error:
            raise ParameterError(
                f"a .parquet file cannot hold the names of these series or columns: {error}. Name "
                f"them by text, or by whole numbers, or write a .csv file."
            ) from error

    try:
        yield write
    finally:
        if file is not None:
            file.close()


def _parquet_pieces(path: Path, _: int, like: pd.DataFrame | None) -> Iterator[pd.DataFrame]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for number in range(file.num_row_groups):  # iter_batches holds on to what it has read
            piece: pd.DataFrame = file.read_row_group(number).to_pandas()
            yield piece if like is None else piece.set_axis(like.columns, axis="columns")


# --- CSV ------------------------------------------------------------------------------------------


@contextmanager
def _csv_writer(path: Path) -> Iterator[_Writer]:
    with path.open("w", encoding="utf-8", newline="") as stream:

        def write(piece: pd.DataFrame) -> None:
            is_first = stream.tell() == 0
            mark_formulas(piece).to_csv(stream, index=False, header=is_first)

        yield write


def _csv_pieces(path: Path, rows: int, like: pd.DataFrame | None) -> Iterator[pd.DataFrame]:
    if like is None:  # BacktestFile has said so before
        raise TypeError("a CSV file does not say what types its columns have")
    text = [place for place, dtype in enumerate(like.dtypes) if may_hold_text(dtype)]
    how: dict[str, Any] = {"names": like.columns, "header": 0, "dtype": str}
    for chunk in pd.read_csv(path, keep_default_na=False, chunksize=rows, **how):
        for place in text:
            chunk.isetitem(place, unmark_formulas(chunk.iloc[:, place]).array)
        yield chunk


def _typed(piece: pd.DataFrame, like: pd.DataFrame, names: Mapping[str, Hashable]) -> pd.DataFrame:
    """Give the columns of a piece the types that they had when it was written."""
    for place, dtype in enumerate(like.dtypes):
        column = piece.iloc[:, place]
        if dtype == np.object_ and len(names):
            column = column.map(lambda name: names[str(name)])
        if column.dtype != dtype:
            # A Series, for which the stubs have no place: objects that are text stay objects.
            typed: Any = pd.Series(_column(column, dtype), piece.index, dtype=dtype)
            piece.isetitem(place, typed)
    return piece


def _column(column: pd.Series[Any], dtype: Any) -> Any:
    types = pd.api.types
    if not types.is_string_dtype(column.dtype):
        return column.astype(dtype).array
    if types.is_float_dtype(dtype):  # by Python, which reads what was written to the last bit
        return np.where(column == "", "nan", column.to_numpy(object)).astype(np.float64)
    if isinstance(dtype, pd.CategoricalDtype):
        labels = pd.Index([str(label) for label in dtype.categories])
        return pd.Categorical.from_codes(labels.get_indexer(pd.Index(column)), dtype=dtype)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return pd.to_datetime(column, utc=True, format="ISO8601").astype(dtype).array
    if types.is_datetime64_any_dtype(dtype):
        return pd.to_datetime(column, format="ISO8601").astype(dtype).array
    if isinstance(dtype, pd.PeriodDtype):
        return pd.PeriodIndex(column, dtype=dtype)
    return (column == "True").array if types.is_bool_dtype(dtype) else column.astype(dtype).array
