"""Read: any container that tables come in becomes `Series`, checked to be regular and finite.

    read(X) -> Series(values (T, M), index (T,), ids (S,), offsets (S + 1,), layout)

One table is a wide DataFrame or a 2-D array. Several series are a long frame (a column of series
names, one of time stamps), a frame whose rows have a MultiIndex (series, time), or a list or dict
of frames or of arrays; they have the same variates and the same frequency, where they start and end
is their own affair. Every container is opened in a way of its own and checked in one.

Every check is made of all series at once; a series that fails it is then checked on its own, for
the message. Only the tables of a list or dict are taken one by one.

Sizes: S series, T rows of all of them, M variates.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tsm2.errors import FrameError, ParameterError
from tsm2.tables.business import Frequency
from tsm2.tables.cells import are_finite, check_finite, read_array, read_cells
from tsm2.tables.containers import Form, Table, is_table, open_table
from tsm2.tables.frequencies import stated_frequency
from tsm2.tables.gaps import Missing
from tsm2.tables.layout import Layout, check_same, describe, plain_names
from tsm2.tables.ragged import offsets_of, places
from tsm2.tables.series import Series
from tsm2.tables.stamps import (
    as_stamps,
    check_order,
    clock_of,
    completed,
    frequency_of,
    index_kind,
    stamps_after,
    steps_between,
    type_name,
)

__all__ = ["Data", "LongColumns", "read"]

Data: TypeAlias = "Table | ArrayLike | Sequence[Table] | Mapping[Any, Table | ArrayLike]"
"""What comes in: a table or several series."""

_Result = TypeVar("_Result")
_ONE_NAME = " The name of a pandas Series is that of its column: X.rename('y')."


@dataclass(frozen=True, kw_only=True, slots=True)
class LongColumns:
    """Which columns of a long frame are what; a frame that has the first one is a long frame."""

    id: str = "unique_id"
    """The series that a row belongs to."""
    time: str = "ds"
    """Its time stamp."""
    target: str | tuple[str, ...] = "y"
    """Its values: the variate, or several of them."""

    def __post_init__(self) -> None:
        if len(set(self.all)) < len(self.all):
            raise ParameterError(
                f"id_col={self.id!r}, time_col={self.time!r} and target_col={self.target!r} name a "
                f"column twice. Give each its own."
            )

    @property
    def targets(self) -> list[str]:
        """The target columns."""
        return [self.target] if isinstance(self.target, str) else list(self.target)

    @property
    def all(self) -> list[str]:
        """All columns of a long frame, in the order in which a forecast has them."""
        return [self.id, self.time, *self.targets]


def read(
    X: object,
    *,
    frequency: Frequency | None = None,
    like: Layout | None = None,
    long: LongColumns | None = None,
    missing: Missing = "raise",
) -> Series:
    """Read one table or several series, and check that they are regular, numeric and finite.

    Parameters
    ----------
    X
        Rows are time steps, columns variates, (T, M). A DataFrame has a DatetimeIndex, a
        PeriodIndex or whole numbers as its index; it is copied once and left as it is. Several
        series come as a long frame, a frame with a MultiIndex (series, time), a list or dict of
        frames or of 2-D arrays. The rows of a series are in the order of time; rows of other
        series may stand between them.
    frequency
        Time between rows, a pandas alias such as "h" or "MS", an offset of pandas that is one or a
        business calendar (a whole number for an index of whole numbers), the same for all series;
        None takes it from the index of the longest. One row alone needs it.
    like
        Layout of earlier data that these must agree with; its frequency is needed. Columns are
        compared before their cells are read.
    long
        Columns of a long frame; None for `unique_id`, `ds` and `y`.
    missing
        What is done about gaps, see `tsm2.tables.gaps`. All but "raise" lets cells be NaN, and
        makes rows of NaN where a series lacks some.

    Returns
    -------
    The numbers, one series after another in the order in which the series first appear.

    Raises
    ------
    FrameError
        The container, an index, a column or a cell cannot be used; the message says which, in
        which series, and what helps.

    Examples
    --------
    >>> stamps = pd.date_range("2024-01-31", periods=3, freq="ME", name="month")
    >>> series = read(pd.DataFrame({"load": [1, 2, 3]}, index=stamps))
    >>> series.values.shape, series.layout.frequency
    ((3, 1), 'ME')
    >>> days = pd.date_range("2024-01-01", periods=2)
    >>> frame = pd.DataFrame({"unique_id": ["b", "b", "a"], "ds": [*days, days[0]], "y": [1, 2, 5]})
    >>> series = read(frame)
    >>> series.ids, series.counts.tolist(), series.values.ravel().tolist()
    (('b', 'a'), [2, 1], [1.0, 2.0, 5.0])
    """
    frequency = frequency if like is None else like.frequency
    series = _opened(X, LongColumns() if long is None else long, frequency, like)
    _check_order(series)
    if frequency is None:  # that of tables whose index states one
        frequency = series.layout.frequency or None
    if missing != "raise":
        series = _completed(series, frequency)
    found = _regular(series, frequency)
    clock = clock_of(series.index, found) if like is None else like.clock
    series = replace(series, layout=replace(series.layout, frequency=found, clock=clock))
    _blame(
        series,
        np.asarray(~are_finite(series.values, missing).all(axis=1)),
        lambda one: check_finite(one.values, one.layout.columns, one.index, missing=missing),
    )
    return series


# --- containers -----------------------------------------------------------------------------------


def _opened(
    X: object, long: LongColumns, frequency: Frequency | None, like: Layout | None
) -> Series:
    """Return what a container holds; nothing is known yet of its order, gaps and frequency."""
    if _is_several(X):
        return _open_tables(X, None if like else frequency, like)
    X, form = open_table(X, id_name=long.id)
    if isinstance(X, pd.DataFrame) and X.columns.nlevels == 1 and long.id in X.columns:
        return _open_long(X, long, like, form)
    if isinstance(X, pd.DataFrame) and X.index.nlevels == 2:
        return _open_levels(X, like, form)
    if isinstance(X, pd.DataFrame):
        return _open_frame(X, like, form)
    return _open_array(X, None if like else frequency, like)


def _open_frame(frame: pd.DataFrame, like: Layout | None, form: Form) -> Series:
    """Return a wide frame."""
    frame = frame.set_axis(as_stamps(frame.index), axis=0)
    layout = describe(frame, form)
    if like is not None:
        check_same(layout, like)
    if not len(frame):
        raise FrameError("the table has no rows: 0 sample(s) where at least 1 is needed.")
    time = frame.index.name if form.stamps == "column" else None
    return Series(values=read_cells(frame, time=time), layout=layout, index=frame.index)


def _open_array(X: object, frequency: Frequency | None, like: Layout | None = None) -> Series:
    """Return an array, or what NumPy makes one of; its rows are numbered."""
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
    return Series(values=values, layout=layout, index=pd.RangeIndex(len(values)))


def _is_several(X: object) -> bool:
    """Say if X is a list or dict of tables, and not one table made of lists."""
    if isinstance(X, Mapping):
        return not hasattr(X, "toarray")  # scipy's dok_array is a mapping
    if not isinstance(X, list | tuple):
        return False
    return any(is_table(each) or _is_array(each) for each in X)


def _is_array(X: object) -> bool:
    return getattr(X, "ndim", 0) == 2 and not is_table(X)


def _open_long(
    frame: pd.DataFrame, columns: LongColumns, like: Layout | None, form: Form
) -> Series:
    _check_long_columns(frame, columns)
    stamps = as_stamps(pd.Index(frame[columns.time], name=columns.time))
    where = f"column {columns.time!r}"
    names, table = frame[columns.id], frame[columns.targets]
    return _open_stacked(table, names, columns.id, stamps, where, "long", like, form)


def _open_levels(frame: pd.DataFrame, like: Layout | None, form: Form) -> Series:
    names, stamps = frame.index.get_level_values(0), as_stamps(frame.index.get_level_values(1))
    where = "the second level of the index"
    return _open_stacked(frame, names, names.name, stamps, where, "levels", like, form)


def _open_stacked(
    table: pd.DataFrame,
    names: pd.Series[Any] | pd.Index,
    id_name: Hashable,
    stamps: pd.Index,
    where: str,
    kind: Any,
    like: Layout | None,
    form: Form,
) -> Series:
    """Read rows that each say their series and their time; put those of a series together."""
    try:
        index_kind(stamps)
    except FrameError as error:
        raise FrameError(
            f"{where} holds {type_name(stamps)} of dtype {stamps.dtype}, but time stamps or whole "
            f"numbers are needed. Convert it with pd.to_datetime."
        ) from error
    table = table.set_axis(stamps)
    names = plain_names(names)
    layout = replace(describe(table, form), series=kind, id_name=id_name, id_dtype=str(names.dtype))
    if like is not None:
        check_same(layout, like)
    if not len(table):
        raise FrameError("the table has no rows: 0 sample(s) where at least 1 is needed.")
    codes, ids = _numbered(names)
    values, index = read_cells(table), _plain_stamps(stamps)
    if (np.diff(codes) < 0).any():
        order = np.argsort(codes, kind="stable")
        values, index = values[order], index[order]
    offsets = offsets_of(np.bincount(codes, minlength=len(ids)))
    return Series(values=values, layout=layout, index=index, ids=ids, offsets=offsets)


def _open_tables(X: Any, frequency: Frequency | None, like: Layout | None) -> Series:
    """Read a list or dict of tables, one by one."""
    is_dict = isinstance(X, Mapping)
    tables = dict(X) if is_dict else dict(enumerate(X))
    ids = _checked_ids(list(tables))
    if not ids:
        raise FrameError("the dict holds no series, but at least one is needed.")
    each: list[Series] = []
    for name, table in tables.items():
        try:
            each.append(_open_one(table, frequency))
            _check_alike(each[-1], each[0])
        except FrameError as error:
            raise FrameError(f"series {name!r}: {error}") from error
    index = each[0].index.append([one.index for one in each[1:]])
    longest = max((one.index for one in each), key=len)
    stated = longest.freq if isinstance(longest, pd.DatetimeIndex) else None
    layout = replace(
        each[0].layout,
        series="dict" if is_dict else "list",
        unit=getattr(index, "unit", None),
        frequency=each[0].layout.frequency
        if stated is None
        else stated_frequency(stated, longest[0]),
    )
    if like is not None:
        check_same(layout, like)
    return Series(
        values=np.concatenate([one.values for one in each]),
        layout=layout,
        index=index,
        ids=ids,
        offsets=offsets_of(np.array([len(one.values) for one in each])),
    )


def _open_one(table: object, frequency: Frequency | None) -> Series:
    """Return one table of a list or dict; its stamps are checked with those of the others."""
    opened, form = open_table(table)
    if not isinstance(opened, pd.DataFrame):
        if _is_array(table):
            return _open_array(table, frequency)
        raise FrameError(
            f"it is {type_name(table)}, but a DataFrame or a 2-D array with a row per time step is "
            f"needed."
        )
    if not len(opened):
        raise FrameError("it has no rows: 0 sample(s) where at least 1 is needed. Leave it out.")
    one = _open_frame(opened, None, form)
    return replace(one, index=_plain_stamps(one.index))


def _check_alike(series: Series, first: Series) -> None:
    """Check that a table of a list or dict has what all of them must have in common."""
    common = {
        "container": (series.layout.container, first.layout.container),
        "columns": (series.layout.columns, first.layout.columns),
        "column of time stamps": (_time_column(series), _time_column(first)),
        "index": (series.layout.index_kind, first.layout.index_kind),
        "time zone": (series.layout.timezone, first.layout.timezone),
    }
    if series.layout.index_kind == "period":
        common["frequency"] = str(series.index.dtype), str(first.index.dtype)
    for what, (own, wanted) in common.items():
        if own != wanted:
            raise FrameError(
                f"its {what} is {_listed(own)}, but that of the first series is {_listed(wanted)}. "
                f"All series need the same; fit those that differ on their own."
                f"{_ONE_NAME * (what == 'columns' and series.layout.form.series is not None)}"
            )


def _time_column(series: Series) -> Hashable:
    is_column = series.layout.form.stamps == "column"
    return repr(series.layout.index_name) if is_column else "none"


def _check_long_columns(frame: pd.DataFrame, columns: LongColumns) -> None:
    present = list(frame.columns)
    missing = [name for name in columns.all if name not in present]
    if missing:
        raise FrameError(
            f"the table has a column {columns.id!r} and is read as a long frame, one row per "
            f"series and time, but has no column {_listed(missing)}; it has {_listed(present)}. "
            f"Name its columns with id_col=, time_col= and target_col=."
        )
    rest = [name for name in present if name not in columns.all]
    if rest:
        raise FrameError(
            f"the long frame has more columns than id_col, time_col and target_col: "
            f"{_listed(rest)}. Drop them, or forecast them too: target_col=[...]."
        )
    if len(present) > len(columns.all):
        raise FrameError(
            f"the long frame has a column twice: {_listed(present)}. Keep the first of each: "
            f"X.loc[:, ~X.columns.duplicated()]."
        )


# --- series ---------------------------------------------------------------------------------------


def _numbered(names: pd.Series[Any] | pd.Index) -> tuple[NDArray[np.int64], tuple[Hashable, ...]]:
    """Return the number of each row's series, in order of appearance, and their names."""
    try:
        codes, found = pd.factorize(names)
    except TypeError as error:
        raise FrameError(
            f"the names of the series cannot be compared ({error}). Use text or whole numbers."
        ) from error
    if (codes < 0).any():
        raise FrameError(
            f"row {int(np.flatnonzero(codes < 0)[0])} belongs to no series: its name is missing. "
            f"Name it, or drop such rows."
        )
    return codes.astype(np.int64), _checked_ids(pd.Index(found).tolist())


def _checked_ids(ids: list[Any]) -> tuple[Hashable, ...]:
    """Return the names of series as plain Python, which a saved model can hold."""
    plain = tuple(each.item() if isinstance(each, np.generic) else each for each in ids)
    for each in plain:
        parts = each if type(each) is tuple else (each,)
        if not all(type(part) in (str, int, float, bool) and part == part for part in parts):
            raise FrameError(
                f"a series is named {each!r}, {type_name(each)}, but text, a number or a tuple of "
                f"them is needed. Convert the names with str."
            )
    return plain


def _plain_stamps(index: pd.Index) -> pd.Index:
    """Return whole numbers as int64, so that those of several tables fit together."""
    if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        return index
    if index.hasnans:
        check_order(index)
    if int(index.max()) >= 2**63:
        raise FrameError(f"the index goes to {index.max()}, beyond what 64 bits can represent.")
    return pd.Index(index.to_numpy(dtype=np.int64), name=index.name)


# --- checks ---------------------------------------------------------------------------------------


def _check_order(series: Series) -> None:
    """Refuse missing, duplicated and unsorted stamps."""
    index = series.index
    unsorted = np.asarray(index.isna())
    unsorted[1:] |= ~np.asarray(index[1:] > index[:-1]) & (np.diff(series.owners) == 0)
    _blame(series, unsorted, lambda one: check_order(one.index))


def _completed(series: Series, frequency: Frequency | None) -> Series:
    """Put rows of NaN where series lack some; leave all as it is if a stamp is beside the grid.

    What would grow a hundredfold is left, too: `_regular` says what is wrong with it.
    """
    if series.layout.kind == "array":
        return series
    whole, _ = completed(_rows_of(series, int(np.argmax(series.counts))).index, frequency)
    try:
        found = frequency_of(whole, frequency)
        grid = found, clock_of(series.index, found)
        first = series.first_stamps.repeat(series.counts)
        steps = steps_between(first, series.index, *grid)
        if (series.index != stamps_after(first, steps.clip(min=0), *grid)).any():
            return series
    except FrameError:
        return series
    counts = steps[series.offsets[1:] - 1] + 1
    if counts.sum() > 100 * len(series.values) or (counts == series.counts).all():
        return series
    offsets = offsets_of(counts)
    values = np.full((offsets[-1], series.values.shape[1]), np.nan)
    values[offsets[:-1].repeat(series.counts) + steps] = series.values
    index = stamps_after(series.first_stamps.repeat(counts), places(offsets), *grid)
    index = index.rename(series.index.name)
    return replace(series, values=values, index=index, offsets=offsets)


def _regular(series: Series, frequency: Frequency | None) -> Frequency:
    """Return the frequency of all series; refuse stamps that are off it."""
    if series.layout.kind == "array":
        return 1
    longest = int(np.argmax(series.counts))
    found = _on_its_own(series, longest, lambda one: frequency_of(one.index, frequency))
    if len(series.ids) > 1:
        first = series.first_stamps.repeat(series.counts)
        steps, clock = places(series.offsets), clock_of(series.index, found)
        off = np.asarray(series.index != stamps_after(first, steps, found, clock))
        _blame(series, off, lambda one: frequency_of(one.index, found))
    return found


def _blame(series: Series, bad: NDArray[np.bool_], check: Callable[[Series], object]) -> None:
    """Check each series with a bad row on its own, which says what is wrong with it."""
    if bad.any():
        for number in np.unique(series.owners[bad]):
            _on_its_own(series, number, check)


def _on_its_own(series: Series, number: int, check: Callable[[Series], _Result]) -> _Result:
    try:
        return check(_rows_of(series, number))
    except FrameError as error:
        if series.layout.series == "one":
            raise
        name = series.ids[number]
        raise FrameError(f"series {name!r}, as a table X of its own: {error}") from error


def _rows_of(series: Series, number: int) -> Series:
    rows = slice(*series.offsets[number : number + 2])
    return Series(values=series.values[rows], layout=series.layout, index=series.index[rows])


def _listed(value: object) -> str:
    """Return what a list or tuple holds, the first of many, for a message."""
    if not isinstance(value, list | tuple):
        return str(value)
    more = f" and {len(value) - 5} more" if len(value) > 5 else ""
    return ", ".join(repr(each) for each in value[:5]) + more
