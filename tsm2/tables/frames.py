"""Tables in, forecasts out: a table becomes numbers and a layout, numbers become a table again.

    read_table(X) -> Panel(values (T, M), layout, index)      rows are time steps, columns variates
    write_forecast(values (H, M), future_index(index, H, layout), layout) -> the container of X

This file reads one wide DataFrame or one 2-D array. `tsm2.tables.panels` reads several series at
once, with what is here, into the same `Panel`.

What makes rows regular is in `tsm2.tables.stamps`. Longer than other files, because half of it is
the text of errors: every way in which a table can be unusable is named once.

Sizes: T rows of history, H rows of forecast, M variates.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types
from sklearn.utils import check_array

from tsm2.errors import FrameError, SavedModelError
from tsm2.tables.gaps import Missing
from tsm2.tables.ragged import offsets_of, places, ranges
from tsm2.tables.stamps import (
    INDEX_NAMES,
    Stamp,
    check_order,
    completed,
    first_break,
    frequency_of,
    index_kind,
    into_zone,
    offset_of,
    on_wall_clock,
    stamps_from,
    timezone_name,
    type_name,
)

__all__ = [
    "Layout",
    "Panel",
    "check_continues",
    "check_finite",
    "check_index",
    "check_kind",
    "check_same",
    "describe",
    "future_index",
    "layout_from_json",
    "layout_to_json",
    "past_index",
    "plain_label",
    "read_array",
    "read_cells",
    "read_table",
    "rows_of",
    "stamp_from_json",
    "stamp_to_json",
    "write_forecast",
]

_CONTAINERS = {
    ("frame", "one"): "a DataFrame",
    ("array", "one"): "an array",
    ("frame", "long"): "a long frame",
    ("frame", "levels"): "a frame with a MultiIndex (series, time)",
    ("frame", "list"): "a list of DataFrames",
    ("array", "list"): "a list of arrays",
    ("frame", "dict"): "a dict of DataFrames",
    ("array", "dict"): "a dict of arrays",
}


class _CellError(FrameError, TypeError):
    """A cell or container that is no number at all; scikit-learn wants a TypeError for these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The container that a table came in, without its numbers and its stamps."""

    kind: Literal["frame", "array"]
    """A DataFrame, or a 2-D array."""
    columns: tuple[Hashable, ...]
    """Labels of the M variates; their positions for an array."""
    columns_name: Hashable = None
    """Name of the columns' index."""
    columns_dtype: str = "object"
    """dtype of the columns' index."""
    index_kind: Literal["datetime", "period", "range"]
    """What a stamp is: a point in time, a span of time, or a whole number."""
    index_name: Hashable = None
    """Name of the rows' index."""
    frequency: str | int
    """Time from one row to the next: a pandas alias, or a whole number for "range"."""
    timezone: str | None = None
    """Name of the time zone, for "datetime"."""
    unit: str | None = None
    """Resolution of the stamps ("ns", "us", ...), for "datetime"."""
    series: Literal["one", "long", "levels", "list", "dict"] = "one"
    """What keeps several series apart: a column, a level of the index, their place in a list or
    their key in a dict; "one" for a single table."""
    id_name: Hashable = None
    """Name of the column or level that says to which series a row belongs."""
    id_dtype: str = "object"
    """dtype of that column or level."""

    @property
    def container(self) -> str:
        """What to call it in a message."""
        return _CONTAINERS[self.kind, self.series]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Panel:
    """Tables read into numbers: rows are time steps, columns variates.

    Several series stand one after another, see `tsm2.tables.ragged`.
    """

    values: NDArray[np.float64]
    """Numbers, (T, M), finite, C-contiguous, in memory of their own."""
    layout: Layout
    """What is needed to write a forecast in the container that came in."""
    index: pd.Index
    """The T stamps; row numbers for an array."""
    ids: tuple[Hashable, ...] = (None,)
    """Names of the S series; their positions in a list; None for a single table."""
    offsets: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Row at which each series starts, and the end, (S + 1,); one series of all rows by default."""

    def __post_init__(self) -> None:
        if not len(self.offsets):
            object.__setattr__(self, "offsets", np.array([0, len(self.values)]))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows of each series, (S,)."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.int64], counts: NDArray[np.int64]) -> Panel:
        """Return some rows of every series, given by number, `counts` of them from each, (S,)."""
        return replace(
            self, values=self.values[rows], index=self.index[rows], offsets=offsets_of(counts)
        )

    def head(self, counts: NDArray[np.int64]) -> Panel:
        """Return the first rows of every series, `counts` of them from each, (S,)."""
        return self.take(ranges(self.offsets[:-1], counts), counts)

    def padded(self, counts: NDArray[np.int64]) -> Panel:
        """Put rows of NaN in front of every series, `counts` of them, (S,).

        They are for windows alone: their stamps repeat the first one of the series.
        """
        if not counts.any():
            return self
        lengths = self.counts + counts
        offsets = offsets_of(lengths)
        place = places(offsets) - counts.repeat(lengths)
        rows = self.offsets[:-1].repeat(lengths) + place.clip(min=0)
        values = np.where(place[:, None] < 0, np.nan, self.values[rows])
        return replace(self, values=values, index=self.index[rows], offsets=offsets)

    def tail(self, n: int) -> Panel:
        """Return the last n rows of every series, or as many as it has."""
        counts = np.minimum(self.counts, n)
        return self.take(ranges(self.offsets[1:] - counts, counts), counts)


# --- in -------------------------------------------------------------------------------------------


def read_table(
    X: object,
    *,
    frequency: str | int | None = None,
    like: Layout | None = None,
    missing: Missing = "raise",
) -> Panel:
    """Read a wide DataFrame or a 2-D array, and check that it is regular, numeric and finite.

    Parameters
    ----------
    X
        Rows are time steps, columns variates, (T, M). A DataFrame has a DatetimeIndex, a
        PeriodIndex or whole numbers as its index. It is copied once and left as it is.
    frequency
        Time between rows, a pandas alias such as "h" or "MS" (a whole number for an index of whole
        numbers); None takes it from the index. One row alone needs it.
    like
        Layout of an earlier table that this one must continue, see `check_continues`; its
        frequency is needed. Columns are compared before their cells are read.
    missing
        What is done about gaps, see `tsm2.tables.gaps`. All but "raise" lets cells be NaN, and
        makes rows of NaN where the index lacks some.

    Returns
    -------
    The numbers with their index and layout.

    Raises
    ------
    FrameError
        The container, an index, a column or a cell cannot be used; the message says which, where,
        and what helps.

    Examples
    --------
    >>> stamps = pd.date_range("2024-01-31", periods=3, freq="ME", name="month")
    >>> panel = read_table(pd.DataFrame({"load": [1, 2, 3]}, index=stamps))
    >>> panel.values.shape, panel.layout.frequency
    ((3, 1), 'ME')
    """
    frequency = frequency if like is None else like.frequency
    if isinstance(X, pd.DataFrame):
        return _read_frame(X, frequency, like, missing)
    _refuse_container(X)
    values = read_array(X)
    layout = Layout(
        kind="array",
        columns=tuple(range(values.shape[1])),
        columns_dtype="int64",
        index_kind="range",
        frequency=1,
    )
    if like is not None:
        check_same(layout, like)
    elif frequency not in (None, 1):
        raise FrameError(
            f"frequency {frequency!r} is needed, but {type_name(X)} has no time stamps. Pass a "
            f"DataFrame with its stamps as index, or leave frequency out."
        )
    index = pd.RangeIndex(len(values))
    check_finite(values, layout.columns, index, missing=missing)
    return Panel(values=values, layout=layout, index=index)


def check_continues(panel: Panel, layout: Layout) -> None:
    """Check that a table has the container, columns, time zone and frequency of an earlier one.

    Parameters
    ----------
    panel
        The table.
    layout
        Of the table that the model was fit on.

    Raises
    ------
    FrameError
        They differ; the message names what differs.
    """
    given = panel.layout
    check_same(given, layout)
    if given.frequency != layout.frequency and first_break(panel.index, layout.frequency):
        raise FrameError(
            f"the model was fit on rows {layout.frequency!r} apart (frequency), but the rows of "
            f"this table are {given.frequency!r} apart. Resample the table to "
            f"{layout.frequency!r}, or fit a model on tables like this one."
        )


def rows_of(panel: Panel, first: int, stop: int) -> Panel:
    """Return the rows of a table from position `first` up to but without `stop`, as views."""
    return Panel(
        values=panel.values[first:stop], layout=panel.layout, index=panel.index[first:stop]
    )


# --- out ------------------------------------------------------------------------------------------


def future_index(index: pd.Index, n: int, layout: Layout) -> pd.Index:
    """Return the n stamps after the last one, with the index's name, time zone and resolution.

    Parameters
    ----------
    index
        A regular index, as in a `Panel`.
    n
        Rows to come.
    layout
        Of the same table.

    Raises
    ------
    FrameError
        The stamps leave the range that pandas can represent.

    Examples
    --------
    >>> panel = read_table(pd.DataFrame({"load": [1, 2, 3]}, index=[10, 12, 14]))
    >>> future_index(panel.index, 2, panel.layout).tolist()
    [16, 18]
    """
    rows = len(index)
    return stamps_from(index[0], rows + n, layout.frequency)[rows:].rename(index.name)


def past_index(last: Stamp, n: int, layout: Layout) -> pd.Index:
    """Return the n stamps that end with `last`, as the index of the table had them.

    Parameters
    ----------
    last
        The last stamp, as `stamp_from_json` gives it back.
    n
        Rows.
    layout
        Of the table.
    """
    if isinstance(last, pd.Timestamp):
        offset = offset_of(layout.frequency)
        wall = on_wall_clock(last, offset)
        index = pd.date_range(end=wall, periods=n, freq=offset, unit=last.unit)
        return into_zone(index, last).rename(layout.index_name)
    step = 1 if isinstance(last, pd.Period) else cast("int", layout.frequency)
    return stamps_from(last - (n - 1) * step, n, layout.frequency).rename(layout.index_name)


def write_forecast(
    values: NDArray[np.float64], index: pd.Index, layout: Layout
) -> pd.DataFrame | NDArray[np.float64]:
    """Put a forecast into the container that the table came in.

    Parameters
    ----------
    values
        Forecast, (H, M), in the order of the layout's columns.
    index
        Its H stamps, see `future_index`.
    layout
        Of the table.

    Returns
    -------
    A DataFrame with the table's columns, or an array, float64, in memory of its own.
    """
    own = np.array(values, dtype=np.float64, order="C")
    if layout.kind == "array":
        return own
    columns = pd.Index(
        layout.columns,
        dtype=layout.columns_dtype,
        name=layout.columns_name,
        tupleize_cols=False,  # a label may be a tuple
    )
    return pd.DataFrame(own, index=index, columns=columns, copy=False)


def layout_to_json(layout: Layout) -> dict[str, Any]:
    """Return the layout as plain JSON types; a tuple in a label becomes a list."""
    return {f.name: _lists(getattr(layout, f.name)) for f in fields(layout)}


def layout_from_json(saved: Mapping[str, Any]) -> Layout:
    """Return the layout that `layout_to_json` wrote.

    Raises
    ------
    SavedModelError
        A field is missing, unknown, or holds what no layout holds.
    """
    wanted = {f.name for f in fields(Layout)}
    if not isinstance(saved, Mapping) or set(saved) != wanted:
        raise SavedModelError(f"the saved layout {saved!r} needs exactly the fields {wanted}.")
    layout = Layout(**{name: cast("Any", _tuples(value)) for name, value in saved.items()})
    is_range = layout.index_kind == "range"
    usable = (
        (layout.kind, layout.series) in _CONTAINERS
        and layout.index_kind in INDEX_NAMES
        and isinstance(layout.columns, tuple)
        and type(layout.frequency) is (int if is_range else str)
    )
    if not usable:
        raise SavedModelError(f"the saved layout {saved!r} is damaged. Save the model again.")
    return layout


def stamp_to_json(stamp: object) -> str | int:
    """Return one stamp of an index as a plain JSON type."""
    if isinstance(stamp, pd.Period):
        return int(stamp.ordinal)
    return stamp.isoformat() if isinstance(stamp, pd.Timestamp) else int(cast("int", stamp))


def stamp_from_json(saved: str | int, layout: Layout) -> Stamp:
    """Return the stamp that `stamp_to_json` wrote; `layout` is that of its table.

    Raises
    ------
    SavedModelError
        It is no stamp of such a table.
    """
    try:
        if layout.index_kind == "range":
            return int(saved)
        if layout.index_kind == "period":
            return pd.Period(ordinal=int(saved), freq=cast("str", layout.frequency))
        stamp = pd.Timestamp(saved)
        if pd.isna(stamp):
            raise ValueError("it is no point in time")
        stamp = stamp.as_unit(cast("Any", layout.unit))
        return stamp if layout.timezone is None else stamp.tz_convert(layout.timezone)
    except (TypeError, ValueError, LookupError) as error:
        raise SavedModelError(
            f"the saved stamp {saved!r} does not fit its table ({error}). Save the model again."
        ) from error


# --- containers and cells -------------------------------------------------------------------------


def _read_frame(
    frame: pd.DataFrame, frequency: str | int | None, like: Layout | None, missing: Missing
) -> Panel:
    layout = describe(frame)
    if like is not None:
        check_same(layout, like)
    index = frame.index
    if len(index) == 0:
        raise FrameError("the table has no rows: 0 sample(s) where at least 1 is needed.")
    check_order(index)
    values = read_cells(frame)
    if missing != "raise":
        index, places = completed(index, frequency)
        all_rows = np.full((len(index), values.shape[1]), np.nan)
        all_rows[places] = values
        values = all_rows
    layout = replace(layout, frequency=frequency_of(index, frequency))
    check_finite(values, layout.columns, index, missing=missing)
    return Panel(values=values, layout=layout, index=index)


def check_index(index: pd.Index, layout: Layout) -> None:
    """Check that an index is regular, and of the kind, time zone and frequency of a layout.

    Raises
    ------
    FrameError
        It is not; the message says what differs.
    """
    check_kind(index, layout)
    check_order(index)
    frequency_of(index, layout.frequency)


def check_kind(index: pd.Index, layout: Layout) -> None:
    """Check that an index is of the kind and time zone of a layout.

    Raises
    ------
    FrameError
        It is not; the message says what differs.
    """
    _check_kind(index_kind(index), layout)
    zone = timezone_name(index) if isinstance(index, pd.DatetimeIndex) else None
    _check_zone(zone, layout)


def describe(frame: pd.DataFrame) -> Layout:
    """Return the layout of a wide frame whose frequency is still to be found.

    Raises
    ------
    FrameError
        Its index or a label cannot be used.
    """
    index, columns = frame.index, frame.columns
    stamps = index if isinstance(index, pd.DatetimeIndex) else None
    return Layout(
        kind="frame",
        columns=_read_labels(columns),
        columns_name=plain_label(columns.name, "name of the columns"),
        columns_dtype=str(columns.dtype),
        index_kind=index_kind(index),
        index_name=plain_label(index.name, "name of the index"),
        frequency=0,
        timezone=None if stamps is None else timezone_name(stamps),
        unit=None if stamps is None else stamps.unit,
    )


def _refuse_container(X: object) -> None:
    """Refuse what `check_array` would misread or explain badly."""
    advice = None
    if isinstance(X, pd.Series):
        advice = "a Series is one column: pass X.to_frame()"
    elif hasattr(X, "to_pandas"):
        advice = "pass X.to_pandas() with its time stamps as index"
    elif isinstance(X, np.ma.MaskedArray):
        advice = "a mask would be ignored: pass X.filled(...) or a DataFrame with the gaps filled"
    elif isinstance(X, np.ndarray) and X.dtype.kind in "mM":
        advice = "time stamps are no values: pass a DataFrame with them as index"
    if advice is not None:
        raise _CellError(
            f"X is {type_name(X)}, but a wide DataFrame or a 2-D array is needed; {advice}."
        )


def read_array(X: object) -> NDArray[np.float64]:
    """Return the numbers of an array or of what NumPy makes one of, (T, M), in memory of their own.

    Raises
    ------
    FrameError
        It is no 2-D table of numbers.
    """
    try:
        values = check_array(
            X, dtype="float64", order="C", copy=True, ensure_all_finite=False, input_name="X"
        )
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        wrong_type = isinstance(error, TypeError)
        raise (_CellError if wrong_type else FrameError)(
            f"X is {type_name(X)} that cannot be read as a 2-D table of numbers: {error}\n"
            f"Pass a DataFrame, or an array with a row per time step and a column per variate."
        ) from error
    return cast("NDArray[np.float64]", values)


def read_cells(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return the numbers of a frame, (T, M), in memory of their own; missing ones are NaN.

    Raises
    ------
    FrameError
        A column does not hold numbers.
    """
    _check_dtypes(frame)
    values = np.empty(frame.shape)
    for position, label in enumerate(frame.columns):  # the one copy; no mixed table in between
        column = frame.iloc[:, position]
        try:
            values[:, position] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise FrameError(
                f"column {label!r} of dtype {column.dtype} cannot be read as numbers: {error}. "
                f"Convert it with pd.to_numeric."
            ) from error
    return values


def _check_dtypes(frame: pd.DataFrame) -> None:
    dtypes = list(zip(frame.columns, frame.dtypes, strict=True))
    sparse = [label for label, dtype in dtypes if isinstance(dtype, pd.SparseDtype)]
    if sparse:
        raise FrameError(
            f"{_name_some(sparse, 'column')} sparse, but dense numbers are needed. Use "
            f"X.sparse.to_dense()."
        )
    if any(types.is_complex_dtype(dtype) for _, dtype in dtypes):
        raise FrameError("Complex data not supported: split it into real and imaginary columns.")
    wrong = [
        (k, d) for k, d in dtypes if not types.is_numeric_dtype(d) and not types.is_bool_dtype(d)
    ]
    if not wrong:
        return
    times = [label for label, dtype in wrong if types.is_datetime64_any_dtype(dtype)]
    advice = "Convert with pd.to_numeric, or drop what is no series: X.select_dtypes('number')."
    if times and len(wrong) > 1:
        advice = (
            "Is this a long table, with one row per series and time? Name its columns: id_col="
            f"..., time_col={times[0]!r}, target_col=...; or make it wide: "
            f"X.pivot(index={times[0]!r}, columns=..., values=...)."
        )
    elif times:
        advice = f"Make the time stamps the index: X.set_index({times[0]!r})."
    listed = ", ".join(f"{label!r} ({dtype})" for label, dtype in wrong[:5])
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    raise FrameError(f"every column must be numeric, but these are not: {listed}{more}. {advice}")


def check_finite(
    values: NDArray[np.float64],
    columns: tuple[Hashable, ...],
    index: pd.Index,
    *,
    missing: Missing = "raise",
) -> None:
    """Refuse NaN and infinity; say how many, in which columns, and where first.

    Parameters
    ----------
    values
        Numbers, (T, M).
    columns, index
        Labels of the columns and rows.
    missing
        All but "raise" lets NaN pass.
    """
    finite = np.isfinite(values) if missing == "raise" else ~np.isinf(values)
    if finite.all():
        return
    gaps = int((np.isnan(values) & ~finite).sum())
    infinite = int(values.size - finite.sum() - gaps)
    kinds = [f"{gaps} NaN"] * bool(gaps) + [f"{infinite} infinity"] * bool(infinite)
    places = []
    for position in np.flatnonzero(~finite.all(axis=0))[:3]:
        rows = np.flatnonzero(~finite[:, position])
        places.append(f"{columns[position]!r} ({len(rows)}, first at {index[rows[0]]})")
    affected = int((~finite.all(axis=0)).sum())
    more = f" and {affected - 3} more columns" if affected > 3 else ""
    raise FrameError(
        f"the table contains {' and '.join(kinds)} value(s), in column {', '.join(places)}{more}; "
        f"finite numbers are needed. Pass missing='mask' or missing='ffill' for NaN, fill them "
        f"(X.ffill(), X.interpolate()), or drop these columns."
    )


# --- labels ---------------------------------------------------------------------------------------


def _read_labels(columns: pd.Index) -> tuple[Hashable, ...]:
    if isinstance(columns, pd.MultiIndex):
        raise FrameError(
            f"the columns are a MultiIndex of {columns.nlevels} levels, but one label per variate "
            f"is needed. Flatten them: X.columns = ['_'.join(map(str, c)) for c in X.columns]."
        )
    if len(columns) == 0:
        raise FrameError("the table has 0 feature(s), no column, while a minimum of 1 is required.")
    if columns.has_duplicates:
        repeated = columns[columns.duplicated()].unique()
        raise FrameError(
            f"{_name_some(repeated, 'column')} there more than once, but labels must be unique. "
            f"Rename them, or keep the first of each: X.loc[:, ~X.columns.duplicated()]."
        )
    return tuple(plain_label(label, "label of a column") for label in columns)


def plain_label(label: Hashable, what: str) -> Hashable:
    """Return a label as plain Python, which a saved model can hold.

    Raises
    ------
    FrameError
        It is no text, number or tuple of them.
    """
    if isinstance(label, np.generic):
        label = label.item()
    if isinstance(label, tuple):
        return tuple(plain_label(each, what) for each in label)
    is_name = what.startswith("name")
    if type(label) not in (str, int, float, bool) and not (is_name and label is None):
        raise FrameError(
            f"the {what} is {label!r}, {type_name(label)}, but text, a number or a tuple of them "
            f"is needed. Use X.columns = X.columns.map(str) or X.rename_axis(...); if the labels "
            f"are time stamps, transpose the table: X.T."
        )
    if label != label:
        raise FrameError(f"the {what} is NaN. Name it with X.rename(columns=...).")
    return label


def check_same(given: Layout, fitted: Layout) -> None:
    """Check that two layouts agree in everything but the frequency.

    Raises
    ------
    FrameError
        They do not; the message says that `fitted` is that of the fit.
    """
    if given.container != fitted.container:
        way = "X.to_numpy() or pd.DataFrame(X, columns=...)"
        if given.series != fitted.series:
            way = "pd.concat and X.groupby make one of the other"
        raise FrameError(
            f"the model was fit on {fitted.container}, but this is {given.container}. Pass the "
            f"same container to fit and predict: {way}."
        )
    _check_columns(given, fitted)
    _check_kind(given.index_kind, fitted)
    _check_zone(given.timezone, fitted)


def _check_kind(given: str, fitted: Layout) -> None:
    if given != fitted.index_kind:
        raise FrameError(
            f"the model was fit on {INDEX_NAMES[fitted.index_kind]}, but this table has "
            f"{INDEX_NAMES[given]}. Pass the same kind of index to fit and predict."
        )


def _check_zone(given: str | None, fitted: Layout) -> None:
    if given != fitted.timezone:
        raise FrameError(
            f"the model was fit on time zone {fitted.timezone or 'none'}, but this table has "
            f"{given or 'none'}. Use X.tz_localize(...) or X.tz_convert(...)."
        )


def _check_columns(given: Layout, fitted: Layout) -> None:
    """Compare columns; the wording is what scikit-learn's checks look for."""
    if given.columns == fitted.columns:
        return
    if given.kind == "array":
        raise FrameError(
            f"X has {len(given.columns)} features, but TSM2Forecaster is expecting "
            f"{len(fitted.columns)} features as input: the columns that it was fit on."
        )
    parts = {
        "Feature names unseen at fit time": set(given.columns) - set(fitted.columns),
        "Feature names seen at fit time, yet now missing": set(fitted.columns) - set(given.columns),
    }
    message = "The feature names should match those that were passed during fit.\n"
    for title, labels in parts.items():
        listed = [f"- {label}\n" for label in given.columns + fitted.columns if label in labels]
        more = "- ...\n" if len(listed) > 5 else ""
        message += f"{title}:\n{''.join(listed[:5])}{more}" if listed else ""
    if not any(parts.values()):
        pairs = enumerate(zip(given.columns, fitted.columns, strict=True))
        place, (got, needed) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        message += (
            f"Feature names must be in the same order as they were in fit.\n"
            f"Column {place} is {got!r} where {needed!r} was.\n"
        )
    raise FrameError(f"{message}Pass the same columns in the same order: X[[...]].")


def _name_some(labels: Iterable[object], noun: str) -> str:
    """Return "column 'a' is" or "columns 'a', 'b' and 7 more are"."""
    named = [repr(label) for label in labels]
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    plural = len(named) > 1
    return f"{noun}{'s' * plural} {', '.join(named[:5])}{more} {'are' if plural else 'is'}"


def _lists(value: object) -> object:
    return [_lists(each) for each in value] if isinstance(value, tuple) else value


def _tuples(value: object) -> object:
    return tuple(_tuples(each) for each in value) if isinstance(value, list | tuple) else value
