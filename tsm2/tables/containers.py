"""Containers: tables of any library become pandas ones with their stamps as index, and go back.

    polars, Arrow                 columns become those of pandas; a column of dates or date-times is
                                  the axis of time; without one, the rows are counted
    pandas, stamps in a column    the column becomes the index
    Series                        becomes a table of one column

What a table was is its `Form`. A column is copied as it is: whole numbers stay whole unless some
are missing, which NaN stands for; categories and what a dictionary codes are text, or whatever they
stand for. Going out, NaN is null again where the library tells them apart.

Other libraries are asked through narwhals, which is loaded with the first such table.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import pandas as pd
from pandas.api import types

from tsm2.errors import DependencyError, FrameError

if TYPE_CHECKING:
    import narwhals as nw
    from narwhals.typing import IntoDataFrame

__all__ = [
    "Form",
    "Table",
    "as_frame",
    "form_from_json",
    "give_back",
    "is_table",
    "open_table",
    "to_library",
]

Table: TypeAlias = "pd.DataFrame | pd.Series[Any] | IntoDataFrame"
"""A table of pandas, polars or Arrow, or a column of pandas with its stamps."""
Library = Literal["pandas", "polars", "pyarrow"]
_TABLES: dict[str, str] = {"polars": "polars DataFrame", "pyarrow": "Arrow table"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """What a table was before it became one of pandas with its stamps as index."""

    library: Library = "pandas"
    """What it was made with; an array counts as pandas."""
    stamps: Literal["index", "column", "counted"] = "index"
    """Where its stamps were; "counted" has none, as an array."""
    place: int = 0
    """Place of the column of stamps among its columns."""
    is_date: bool = False
    """Whether the stamps were dates without a time of day."""
    series: Literal["named", "unnamed"] | None = None
    """Whether it was a pandas Series, and had a name; None for a table."""

    @property
    def nouns(self) -> tuple[str, str]:
        """What to call one such table, and several, in a message; without an article."""
        if self.series is not None:
            return "pandas Series", "pandas Series"
        noun = _TABLES.get(self.library, "DataFrame")
        without = " without stamps" if self.stamps == "counted" else ""
        return f"{noun}{without}", f"{noun}s{without}"

    def to_json(self) -> dict[str, Any]:
        """Return the form as plain JSON types."""
        return asdict(self)


def form_from_json(saved: object) -> Form:
    """Return the form that `Form.to_json` wrote.

    Raises
    ------
    ValueError
        It is damaged.
    """
    known: dict[str, tuple[object, ...]] = {
        "library": ("pandas", "polars", "pyarrow"),
        "stamps": ("index", "column", "counted"),
        "series": ("named", "unnamed", None),
        "is_date": (True, False),
    }
    if not isinstance(saved, Mapping) or set(saved) != {*known, "place"}:
        raise ValueError(f"{saved!r} does not say what a table was")
    if any(saved[name] not in values for name, values in known.items()):
        raise ValueError(f"{saved!r} is no table that tsm2 reads")
    if type(saved["place"]) is not int or saved["place"] < 0:
        raise ValueError(f"{saved['place']!r} is no place of a column")
    return Form(**cast("Mapping[str, Any]", saved))


# --- in -------------------------------------------------------------------------------------------


def is_table(X: object) -> bool:
    """Say if something is a table, or a Series, of pandas or of another library that is read."""
    return isinstance(X, pd.DataFrame | pd.Series) or _is_foreign(X)


def _is_foreign(X: object) -> bool:
    """Say if something is a table of polars or Arrow, without loading either."""
    for library, name in (("polars", "DataFrame"), ("pyarrow", "Table")):
        module = sys.modules.get(library)
        if module is not None and isinstance(X, getattr(module, name, ())):
            return True
    return False


def open_table(X: object, *, id_name: Hashable = None) -> tuple[Any, Form]:
    """Make a table one of pandas with its stamps as index; leave what is no table as it is.

    Parameters
    ----------
    X
        Anything.
    id_name
        Name of the column that makes it a long table, whose stamps stay a column.

    Raises
    ------
    FrameError
        A column holds what is read nowhere, or several could be the axis of time.
    """
    if isinstance(X, pd.Series):
        form = Form(series="unnamed" if X.name is None else "named")
        return X.to_frame(), form
    if _is_foreign(X):
        frame, library, dates = _to_pandas(X)
        if id_name is not None and id_name in frame.columns:
            return frame, Form(library=library, stamps="column", is_date=bool(dates))
        times = _time_columns(frame)
        if not times:
            return frame, Form(library=library, stamps="counted")
        return _stamps_in(
            frame, times, Form(library=library, is_date=frame.columns[times[0]] in dates)
        )
    if not isinstance(X, pd.DataFrame) or X.columns.nlevels > 1 or X.columns.has_duplicates:
        return X, Form()
    is_long = id_name is not None and id_name in X.columns
    if is_long or X.index.name is not None or not types.is_integer_dtype(X.index.dtype):
        return X, Form()
    times = _time_columns(X)
    return _stamps_in(X, times, Form()) if times else (X, Form())


def _time_columns(frame: pd.DataFrame) -> list[int]:
    """Return the places of the columns of time stamps."""
    return [
        place
        for place, dtype in enumerate(frame.dtypes)
        if types.is_datetime64_any_dtype(dtype)
        or isinstance(dtype, pd.PeriodDtype)
        or (isinstance(dtype, pd.ArrowDtype) and dtype.kind == "M")
    ]


def _stamps_in(frame: pd.DataFrame, times: list[int], form: Form) -> tuple[pd.DataFrame, Form]:
    """Make the column of stamps the index."""
    if len(times) > 1:
        listed = ", ".join(repr(frame.columns[each]) for each in times)
        raise FrameError(
            f"the table has {len(times)} columns of time stamps, {listed}, but one alone can say "
            f"when its rows are. Drop the others."
        )
    (place,) = times
    label: Any = frame.columns[place]
    if label is None:
        raise FrameError(
            "the column of time stamps has no name, but None. Name it with X.rename(columns=...)."
        )
    stamps = pd.Index(frame.iloc[:, place], name=label)
    others = [each for each in range(frame.shape[1]) if each != place]
    rest = frame.iloc[:, others].set_axis(stamps, axis="index")
    return rest, replace(form, stamps="column", place=place)


def _to_pandas(X: Any) -> tuple[pd.DataFrame, Library, list[str]]:
    """Return a table of another library as one of pandas, and its columns of plain dates."""
    import narwhals as nw

    library: Library = "pyarrow" if type(X).__module__.startswith("pyarrow") else "polars"
    names = list(X.column_names if library == "pyarrow" else X.columns)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FrameError(
            f"the {_TABLES[library]} has a column {twice!r} more than once, but names must be "
            f"unique. Rename one of them."
        )
    if library == "pyarrow":  # narwhals takes what a dictionary codes for text
        for place, name in enumerate(names):
            coded = X.schema.types[place]
            if hasattr(coded, "index_type"):  # a dictionary
                X = X.set_column(place, name, X.column(place).cast(coded.value_type))
    table = nw.from_native(X, eager_only=True)
    columns = {each.name: _column(each, library) for each in table.iter_columns()}
    dates = [each.name for each in table.iter_columns() if each.dtype == nw.Date]
    return pd.DataFrame(columns, index=pd.RangeIndex(len(table))), library, dates


def _column(column: nw.Series[Any], library: Library) -> Any:
    import narwhals as nw

    dtype = column.dtype
    if dtype == nw.Datetime or dtype == nw.Date:
        stamps = pd.DatetimeIndex(column.to_numpy())
        zone = getattr(dtype, "time_zone", None)
        return stamps if zone is None else stamps.tz_localize("UTC").tz_convert(zone)
    if dtype in (nw.String, nw.Categorical, nw.Enum):
        return pd.array(column.cast(nw.String).to_list(), dtype="str")
    is_whole = dtype.is_integer() or dtype == nw.Boolean
    if is_whole and dtype not in (nw.Int128, nw.UInt128) and not column.is_null().any():
        return column.to_numpy()
    if dtype.is_numeric() or dtype == nw.Boolean or column.is_null().all():
        return column.cast(nw.Float64).to_numpy()
    raise FrameError(
        f"column {column.name!r} of the {_TABLES[library]} holds {dtype}, but numbers, text, "
        f"categories, dates or date-times are needed. Convert it, or drop it."
    )


def as_frame(table: Any) -> tuple[pd.DataFrame, Form]:
    """Return a table of any library as one of pandas, all columns as they are, and what it was."""
    if not _is_foreign(table):
        return table, Form()
    frame, library, dates = _to_pandas(table)
    return frame, Form(library=library, stamps="column", is_date=bool(dates))


# --- out ------------------------------------------------------------------------------------------


def give_back(frame: pd.DataFrame, form: Form, *, per_variate: int = 1) -> Any:
    """Make a table of pandas with its stamps as index what a form says.

    Parameters
    ----------
    frame
        The table; a long one has its stamps in a column already.
    form
        What it was.
    per_variate
        Columns of each variate, in front of which the column of stamps may stand.

    Raises
    ------
    DependencyError
        The library is not installed here.
    """
    if form.series is not None and frame.shape[1] == 1:
        column = frame.iloc[:, 0]
        return column.rename(None) if form.series == "unnamed" else column
    if form.stamps == "index":
        return frame
    if form.stamps == "column" and frame.index.name is not None:
        stamps, name = frame.index, frame.index.name
        frame = frame.reset_index(drop=True)
        frame.insert(min(form.place * per_variate, frame.shape[1]), name, stamps)
    return to_library(frame, form)


def to_library(frame: pd.DataFrame, form: Form) -> Any:
    """Return a table of pandas, its index left out, as one of the library of a form.

    One of pandas is returned as it is. Date-times at midnight are dates if the form says so.

    Raises
    ------
    DependencyError
        The library is not installed here.
    """
    if form.library == "pandas":
        return frame
    try:
        import narwhals as nw

        __import__(form.library)
    except ImportError as error:
        raise DependencyError(
            f"the model was fitted to {form.library} tables, and a forecast comes out as one, but "
            f"{form.library} is not installed. Install it, pip install {form.library}, or pass the "
            f"history as a pandas DataFrame."
        ) from error
    first, *rest = (
        _column_of(frame.iloc[:, place], str(label), form)
        for place, label in enumerate(frame.columns)
    )
    table = first.to_frame().with_columns(*rest)
    with_gaps = [str(label) for label, cells in frame.items() if cells.hasnans]
    known = [nw.when(~nw.col(name).is_nan()).then(nw.col(name)).alias(name) for name in with_gaps]
    return table.with_columns(*known).to_native() if known else table.to_native()


def _column_of(cells: pd.Series[Any], name: str, form: Form) -> nw.Series[Any]:
    import narwhals as nw

    if types.is_datetime64_any_dtype(cells.dtype):
        stamps = pd.DatetimeIndex(cells)
        zone = stamps.tz
        if stamps.unit == "s" and form.library == "polars":  # which has no seconds
            stamps = stamps.as_unit("ms")
        plain = stamps if zone is None else stamps.tz_convert(None)
        column = nw.new_series(name, plain.to_numpy(), backend=form.library)
        if zone is not None:
            zone_name = re.sub("^UTC(?=[+-])", "", str(zone))
            return column.dt.replace_time_zone("UTC").dt.convert_time_zone(zone_name)
        is_date = form.is_date and bool((plain == plain.normalize()).all())
        return column.cast(nw.Date) if is_date else column
    if types.is_numeric_dtype(cells.dtype) or types.is_bool_dtype(cells.dtype):
        return nw.new_series(name, cells.to_numpy(), backend=form.library)
    return nw.new_series(name, [str(each) for each in cells], nw.String, backend=form.library)
