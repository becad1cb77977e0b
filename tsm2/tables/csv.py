"""A CSV file as people have it becomes a frame: read exactly, or refused in words.

    read_text(path) -> TextTable (cells as text) -> wide | long | static -> FileTable(frame, notes)

Every cell is read as text by Python's csv module, and each column becomes what its role says:
stamps, names of series as they are written, numbers. pandas' reader is not used: it guesses a type
for each column (007 becomes 7), shifts the columns of rows that are longer than the header, fills
those that are shorter, and renames what is there twice. Its sniffer is not csv.Sniffer's, which
knows no header without letters and may take a letter for a separator, but a count of what becomes
numbers and dates under each of the four usual signs; a library for it (clevercsv) does the same
with a larger list of signs.

Nothing is printed: `notes` say what a reader of the file should be told.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.errors import DependencyError, FrameError, ParameterError
from tsm2.tables.dates import DateOptions, KnownStamps, looks_like_time, read_stamps

__all__ = ["FileOptions", "FileTable", "TextTable", "read_text"]

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_BOMS = {  # longest first: that of UTF-16 begins that of UTF-32
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_MISSING = frozenset(
    ["", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "<NA>", "NULL", "null", "None"]
)
_SPACES = " \u00a0\u202f\u2009'’"
_NUMBER = re.compile(
    rf"[+-]?(?P<body>\d{{1,3}}(?:[{_SPACES}]\d{{3}})+(?:[.,]\d*)?|[\d.,]+)(?:[eE][+-]?\d+)?"
)
_TYPED = re.compile(r"[\d.,:+/\- TZeE%]*\d[\d.,:+/\- TZeE%]*")
_LEADING_ZERO = re.compile(r"[+-]?0\d")
_SAMPLE = 200  # lines that say what separates cells


@dataclass(frozen=True, kw_only=True, slots=True)
class FileOptions(DateOptions):
    """What settles how a file is read; None is inferred."""

    sep: str | None = None
    """Sign between cells."""
    decimal: str | None = None
    """"." or ","; the other one, blanks and apostrophes may stand between thousands."""
    encoding: str | None = None
    """Such as "utf-8" or "cp1250"."""
    header: bool | None = None
    """False if the first line is a row; columns are then named "0", "1", ..."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FileTable:
    """What a file holds, and what should be said of how it was read."""

    frame: pd.DataFrame
    notes: tuple[str, ...] = ()


Cells = list[str]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TextTable:
    """A file whose cells are still text, but for those of a Parquet file."""

    source: str
    """What to call it in a message."""
    columns: dict[str, Cells | pd.Series[Any]]
    """Cells by the name of their column."""
    options: FileOptions
    sep: str = ","
    """Sign that stood between cells."""
    notes: tuple[str, ...] = field(default=())
    """What is to be said of the file as a whole."""

    def wide(
        self,
        time_column: str | None = None,
        *,
        known: KnownStamps | None = None,
    ) -> FileTable:
        """Return one table, indexed by its time column.

        Parameters
        ----------
        time_column
            Its name; None for the first.
        known
            What is known of the stamps, as by a model.

        Raises
        ------
        FrameError
            A column is missing, or is read in two ways.
        """
        columns, notes = self._without_row_numbers(time_column)
        name = next(iter(columns)) if time_column is None else time_column
        self._require([name], columns)
        if len(columns) == 1:
            raise FrameError(
                f"{self.source} has one column alone, {name!r}. If another sign stands between its "
                f"columns, give sep=."
            )
        try:
            index, more = self._stamps(name, columns[name], None, known)
        except FrameError as error:
            raise self._with_hint(error, name, columns) from error
        values = {each: cells for each, cells in columns.items() if each != name}
        times = _named_times(values)
        if times and time_column is None and not isinstance(index, pd.DatetimeIndex):
            raise FrameError(
                f"{self.source}: the first column {name!r} holds whole numbers, but column "
                f"{times[0]!r} holds times. Name the one that counts with time_column=."
            )
        frame = pd.DataFrame(self._numbers(values), index=index)
        return FileTable(frame=frame, notes=(*self.notes, *notes, *more))

    def long(
        self,
        id_column: str,
        time_column: str,
        values: Sequence[str] | None = None,
        *,
        known: KnownStamps | None = None,
    ) -> FileTable:
        """Return a long frame: names of series as text, stamps, values.

        Parameters
        ----------
        id_column, time_column
            Their names.
        values
            Columns to keep; None for all.
        known
            As in `wide`.

        Raises
        ------
        FrameError
            A column is missing, or is read in two ways.
        """
        keys = [id_column, time_column]
        columns, notes = self._without_row_numbers(id_column)
        how = " Name its columns with id_col=, time_col= and target_col=."
        self._require([*keys, *(values or ())], columns, how)
        series = _as_text(columns[id_column])
        index, more = self._stamps(time_column, columns[time_column], series, known)
        notes.extend(more)
        rest = [name for name in columns if name not in keys]
        kept = rest if values is None else list(values)
        dropped = [name for name in rest if name not in kept]
        if dropped:
            notes.append(f"not read of {self.source}: column {', '.join(map(repr, dropped))}.")
        frame = pd.DataFrame(
            {
                id_column: pd.Series(series, dtype="str"),
                time_column: index,
                **self._numbers({name: columns[name] for name in kept}),
            }
        )
        return FileTable(frame=frame, notes=(*self.notes, *notes))

    def static(self) -> FileTable:
        """Return a row per series or variate, indexed by the first column as text.

        A column is numbers if each of its cells is one without leading zeros, and else categories,
        as they are written.

        Raises
        ------
        FrameError
            A column is read in two ways.
        """
        columns, notes = self._without_row_numbers(next(iter(self.columns)))
        first, *rest = columns
        names = pd.Index(_as_text(columns[first]), dtype="str", name=first)
        numbers = self._numbers({name: columns[name] for name in rest}, is_static=True)
        frame = pd.DataFrame(numbers, index=names)
        return FileTable(frame=frame, notes=(*self.notes, *notes))

    def _require(self, names: Sequence[str], columns: dict[str, Any], how: str = "") -> None:
        lacking = [name for name in names if name not in columns]
        if lacking:
            hint = " Give header=False if its first line is a row."
            raise FrameError(
                f"{self.source} has no column {', '.join(map(repr, lacking))}; it has: "
                f"{', '.join(columns)}.{how}{hint if any(map(_NUMBER.fullmatch, columns)) else ''}"
            )

    def _stamps(
        self,
        name: str,
        cells: Cells | pd.Series[Any],
        series: list[str] | None,
        known: KnownStamps | None,
    ) -> tuple[pd.Index, list[str]]:
        if isinstance(cells, pd.Series) and pd.api.types.is_datetime64_any_dtype(cells):
            index = pd.DatetimeIndex(cells, name=name)  # a Parquet file knows
            wanted = self.options.time_zone or (None if known is None else known.zone)
            is_aware = index.tz is not None and wanted is not None
            return (index.tz_convert(wanted) if is_aware else index), []
        try:
            return read_stamps(
                _as_text(cells),
                self.options,
                name=name,
                series=series,
                known=known,
            )
        except FrameError as error:
            raise FrameError(f"{self.source}: {error}") from error

    def _with_hint(self, error: FrameError, name: str, columns: dict[str, Any]) -> FrameError:
        """Say which column holds times, if the one that was taken does not."""
        times = _named_times({each: cells for each, cells in columns.items() if each != name})
        return FrameError(f"{error} Column {times[0]!r} does.") if times else error

    def _without_row_numbers(
        self, key: str | None
    ) -> tuple[dict[str, Cells | pd.Series[Any]], list[str]]:
        """Leave out a first column without a name that counts rows, if the times are in another."""
        columns = dict(self.columns)
        first = next(iter(columns))
        if first not in ("", "Unnamed: 0") or first == key or len(columns) < 3:
            return columns, []
        cells = _as_text(columns[first])
        start = cells[0] if cells else ""
        counts = start in ("0", "1") and cells == [
            str(number) for number in range(int(start), int(start) + len(cells))
        ]
        if not counts or (key is None and not self._is_time(list(columns)[1])):
            return columns, []
        del columns[first]
        return columns, [f"the first column of {self.source} counts rows and is not read."]

    def _is_time(self, name: str) -> bool:
        """Return whether a column holds times, as words or as rising whole numbers."""
        cells = self.columns[name]
        if isinstance(cells, pd.Series):
            return cells.dtype.kind == "M"
        has_digits = all(map(str.isdigit, cells))
        if looks_like_time(cells[0]) or (has_digits and cells != sorted(cells)):
            return looks_like_time(cells[0])
        try:
            return isinstance(self._stamps(name, cells, None, None)[0], pd.DatetimeIndex)
        except FrameError:
            return has_digits  # that are read in two ways

    def _numbers(
        self, columns: dict[str, Cells | pd.Series[Any]], *, is_static: bool = False
    ) -> dict[str, Any]:
        """Turn each column that holds numbers into numbers; others stay text."""
        texts = {name: cells for name, cells in columns.items() if isinstance(cells, list)}
        decimal = self.options.decimal or _decimal_sign(self.source, texts, self.sep)
        found: dict[str, Any] = {}
        for name, cells in columns.items():
            if isinstance(cells, pd.Series):
                is_number = pd.api.types.is_numeric_dtype(cells)  # a truth value too
                found[name] = cells.to_numpy() if is_number else _words(_as_text(cells))
                continue
            numbers: NDArray[Any] | None = None
            if not (is_static and any(map(_LEADING_ZERO.match, cells))):
                numbers = _to_numbers(cells, decimal)
            if numbers is None and not is_static and cells:
                numbers = _to_flags(cells)
            found[name] = _words(cells) if numbers is None else numbers
        return found


def read_text(source: str | os.PathLike[str] | IO[bytes], options: FileOptions) -> TextTable:
    """Read a CSV file, or standard input, or a Parquet file, into text by columns.

    Parameters
    ----------
    source
        Path of the file, or an open stream of bytes. A path that ends in ".parquet" is read by
        pyarrow.
    options
        What settles its reading.

    Raises
    ------
    FrameError
        The file cannot be opened or decoded, has no header, or names a column twice.
    ParameterError
        An option has no such value.
    DependencyError
        A Parquet file needs pyarrow.
    """
    if options.decimal not in (None, ".", ","):
        raise ParameterError(f"decimal={options.decimal!r} must be '.' or ','.")
    name = str(source) if isinstance(source, str | os.PathLike) else "standard input"
    if name.endswith(".parquet"):
        return _read_parquet(name, options)
    try:
        if isinstance(source, str | os.PathLike):
            content = Path(source).read_bytes()
        else:
            content = source.read()
    except OSError as error:
        raise FrameError(f"cannot read {name}: {error.strerror or error}") from error
    text, notes = _decoded(name, content, options.encoding)
    first, _, rest = text.partition("\n")
    sep = options.sep
    if named := re.fullmatch(r'"?sep=(.|\\t)"?\s*', first.strip("\r"), re.IGNORECASE):
        text, sep = rest, sep or named[1]
    sep = {"tab": "\t", "\\t": "\t", "space": " "}.get(sep or "", sep)
    if sep is not None and len(sep) != 1:
        raise ParameterError(f"sep={sep!r} must be one sign, or 'tab' or 'space'.")
    sep = sep or _sniffed(name, text)
    columns = _columns(name, _rows(name, text, sep), options.header)
    return TextTable(source=name, columns=columns, options=options, sep=sep, notes=tuple(notes))


# --- bytes to cells -------------------------------------------------------------------------------


def _decoded(name: str, content: bytes, encoding: str | None) -> tuple[str, list[str]]:
    """Decode a file: by the mark at its start, as UTF-8, or as Windows writes western Europe."""
    chosen = encoding or next((e for bom, e in _BOMS.items() if content.startswith(bom)), None)
    if chosen is None and content[1:2] == b"\0":
        chosen = "utf-16-le"
    elif chosen is None and content[:1] == b"\0":
        chosen = "utf-16-be"
    try:
        return content.decode(chosen or "utf-8").removeprefix("\ufeff"), []
    except LookupError as error:
        raise ParameterError(f"encoding={chosen!r} is unknown. Such as 'utf-8'.") from error
    except UnicodeDecodeError as error:
        if chosen is not None:
            raise FrameError(f"cannot read {name} as {chosen}: {error}. Give encoding=.") from error
    try:
        note = f"{name} is no UTF-8 and is read as cp1252 (Windows, western Europe); encoding= "
        return content.decode("cp1252"), [note + "names another."]
    except UnicodeDecodeError as error:
        raise FrameError(
            f"cannot read {name}: it is neither UTF-8 nor cp1252. Give encoding='cp1250', or "
            f"whichever it has."
        ) from error


def _rows(name: str, text: str, sep: str) -> list[Cells]:
    """Split a text into rows of trimmed cells; empty rows are left out."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=sep, skipinitialspace=True)
        rows = [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:
        raise FrameError(f"cannot read {name}: {error}.") from error
    return [row for row in rows if any(row)]


def _sniffed(name: str, text: str) -> str:
    """Return the sign that stands between cells, by what becomes of the first lines under each."""
    sample = "\n".join(text.splitlines()[:_SAMPLE])
    scores = {}
    for sep in _SEPARATORS:
        rows = _rows(name, sample, sep)
        widths = [len(row) for row in rows]
        width = max(set(widths), key=widths.count, default=0)
        if width < 2:
            continue
        cells = [cell for row in rows[1:] for cell in row]
        typed = sum(cell in _MISSING or _TYPED.fullmatch(cell) is not None for cell in cells)
        # A header as wide as the rows says more than the cells do.
        fits = sum(each == width for each in widths) / len(widths) + (widths[0] == width)
        scores[sep] = (round(fits, 3), typed / max(len(cells), 1), width)
    if not scores:
        return ","
    ranked = sorted(scores, key=lambda sep: scores[sep][:2], reverse=True)
    if len(ranked) > 1 and scores[ranked[0]][:2] == scores[ranked[1]][:2]:
        shown = " or ".join(f"{_SEPARATORS[sep]} ({scores[sep][2]} columns)" for sep in ranked[:2])
        raise FrameError(f"the columns of {name} may be separated by {shown}. Give sep=.")
    return ranked[0]


def _columns(name: str, rows: list[Cells], header: bool | None) -> dict[str, Any]:
    """Turn rows into named columns; refuse what would shift, rename or lose any."""
    if not rows:
        raise FrameError(f"cannot read {name}: No columns, the file is empty.")
    body = rows if header is False else rows[1:]
    width = len(rows[0])
    longest = max(map(len, body), default=width)
    while longest > width and header is False:
        width = longest
    if longest > width:
        place = next(i for i, row in enumerate(body) if any(row[width:]) or i == len(body) - 1)
        if any(body[place][width:]):
            raise FrameError(
                f"row {place + 1} below the header of {name} has {len(body[place])} cells, the "
                f"header {width}: {rows[0]!r} and {body[place]!r}. Name every column, delete "
                f"lines above the header, or give sep= or decimal=."
            )
    # Excel leaves out empty cells at the end of a row.
    cells = [[*row[:width], *[""] * (width - len(row))] for row in body]
    names = list(map(str, range(width))) if header is False else rows[0]
    columns = [list(column) for column in zip(*cells, strict=True)] or [[] for _ in names]
    while len(names) > 1 and names[-1] == "" and not any(columns[-1]):
        names, columns = names[:-1], columns[:-1]
    if not body:
        raise FrameError(f"{name} has no rows below its header {names!r}.")
    unnamed = [place + 1 for place, each in enumerate(names) if each == "" and place > 0]
    if unnamed:
        raise FrameError(f"column {unnamed[0]} of {name} has no name. Give it one in the header.")
    twice = next((each for place, each in enumerate(names) if each in names[:place]), None)
    if twice is not None:
        raise FrameError(f"{name} has two columns {twice!r}. Rename one in the header.")
    if header is None and _is_a_row(names, columns):
        raise FrameError(
            f"{name} seems to have no header: its first line {names!r} looks like the rows below. "
            f"Give header=False to read it as a row, or header=True if these are names."
        )
    return dict(zip(names, columns, strict=True))


def _is_a_row(names: list[str], columns: list[Cells]) -> bool:
    """Return whether a header looks like the rows below it.

    A date stands above dates, a number with decimals above numbers, or numbers alone above numbers;
    names that are whole numbers beside others that are words are names.
    """
    pairs = list(zip(names, (cells[0] for cells in columns), strict=True))
    numbers = [all(map(_NUMBER.fullmatch, pair)) for pair in pairs]
    return (
        all(numbers)
        or any(looks_like_time(name) and looks_like_time(below) for name, below in pairs)
        or any(
            is_number and ("." in name or "," in name)
            for is_number, (name, _) in zip(numbers, pairs, strict=True)
        )
    )


def _read_parquet(name: str, options: FileOptions) -> TextTable:
    try:
        frame = pd.read_parquet(name)
    except ImportError as error:
        raise DependencyError(
            f"{name}: Parquet files need pyarrow, which is not installed. Install it with tsm2's "
            f"extra 'parquet': pip install 'tsm2[parquet]'; or write the table as CSV."
        ) from error
    except (OSError, ValueError) as error:
        raise FrameError(f"cannot read {name}: {error}") from error
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index(names=frame.index.name or "")
    columns: dict[str, Cells | pd.Series[Any]] = {str(each): frame[each] for each in frame.columns}
    return TextTable(source=name, columns=columns, options=options)


# --- cells to numbers -----------------------------------------------------------------------------


def _decimal_sign(name: str, columns: dict[str, Cells], sep: str) -> str:
    """Return the sign before decimals, by all cells of a file.

    1.234 is a number with three decimals or with a thousand; 12.5, 1234.567 and 0.123 are not in
    doubt, and decide for all.
    """
    decided: dict[str, str] = {}
    doubtful: dict[str, str] = {}
    for cells in columns.values():
        whole = "".join(cells)
        if "," not in whole and ("." in decided or "." not in whole):
            continue  # nothing new to learn
        if not all(_NUMBER.fullmatch(cell) or cell in _MISSING for cell in cells[:_SAMPLE]):
            continue  # words
        for cell in cells:
            # Once a point is sure to stand before decimals, more of them say nothing new.
            if "," in cell or ("." in cell and "." not in decided):
                match = _NUMBER.fullmatch(cell)
                sign, is_sure = _sign_of(match["body"]) if match else ("", False)
                if sign:
                    (decided if is_sure else doubtful).setdefault(sign, cell)
    if len(decided) == 2:
        raise FrameError(
            f"the numbers of {name} have points and commas before decimals: {decided['.']!r} and "
            f"{decided[',']!r}. Write them in one way, or give decimal='.' or decimal=','."
        )
    if decided:
        return next(iter(decided))
    if not doubtful or (set(doubtful) == {"."} and sep == ","):
        return "."
    raise FrameError(
        f"the numbers of {name}, such as {next(iter(doubtful.values()))!r}, have a sign before "
        f"three digits that may be decimals or thousands. Give decimal='.' or decimal=','."
    )


def _sign_of(body: str) -> tuple[str, bool]:
    """Return the sign before decimals of a number, and whether it is sure; "" if it has none."""
    points, commas = body.count("."), body.count(",")
    if points and commas:
        sign = max(".,", key=body.rfind)
        return (sign, True) if body.count(sign) == 1 else ("", False)
    if not points and not commas:
        return "", False
    sign, other = (".", ",") if points else (",", ".")
    if points + commas > 1:
        return other, True
    return sign, re.fullmatch(r"[1-9]\d{0,2}[.,]\d{3}", body) is None


def _to_numbers(cells: Cells, decimal: str) -> NDArray[np.float64] | None:
    """Return numbers, NaN where one is missing; None if a cell is no number."""
    if decimal == "." and "_" not in "".join(cells):  # which Python allows in numbers
        try:
            return np.array(cells, dtype=object).astype(np.float64)
        except ValueError:
            pass
    other = "," if decimal == "." else "."
    groups = re.escape(other) + _SPACES
    whole = rf"\d{{1,3}}(?:[{groups}]\d{{3}})+|\d+"
    number = re.compile(
        rf"[+-]?(?:(?:{whole})(?:{re.escape(decimal)}\d*)?|{re.escape(decimal)}\d+)"
        rf"(?:[eE][+-]?\d+)?|[+-]?inf(?:inity)?"
    )
    drop = str.maketrans("", "", groups.replace("\\", ""))
    values = np.empty(len(cells))
    for place, cell in enumerate(cells):
        if number.fullmatch(cell):
            values[place] = float(cell.translate(drop).replace(decimal, "."))
        elif cell in _MISSING:
            values[place] = np.nan
        else:
            return None
    return values


def _to_flags(cells: Cells) -> NDArray[np.bool_] | None:
    """Return truth values, if a column holds nothing else."""
    lowered = [cell.lower() for cell in cells]
    return np.array([c == "true" for c in lowered]) if set(lowered) <= {"true", "false"} else None


def _named_times(columns: dict[str, Cells | pd.Series[Any]]) -> list[str]:
    """Name the columns that seem to hold times."""
    return [
        name
        for name, cells in columns.items()
        if len(cells) and isinstance(cells, list) and looks_like_time(cells[0])
    ]


def _words(cells: Cells) -> NDArray[np.object_]:
    """Return words, None where one is missing."""
    return np.array([cell or None for cell in cells], dtype=object)


def _as_text(cells: Cells | pd.Series[Any]) -> list[str]:
    if isinstance(cells, list):
        return cells
    return ["" if pd.isna(cell) else str(cell) for cell in cells]
