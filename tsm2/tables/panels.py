"""Several series in, several forecasts out: one network for all of them.

    read_panel(X) -> Panel(values (T, M), index (T,), ids (S,), offsets (S + 1,), layout)
    write_panel(Panel) -> the container of X

A panel is a long frame (a column of series names, one of time stamps), a frame whose rows have a
MultiIndex (series, time), or a list or dict of frames or of arrays. Its series have the same
variates and the same frequency; where they start and end is their own affair. One table alone goes
through `tsm2.tables.frames`, as a panel of one series.

Every check is made of all series at once; a series that fails it is then checked on its own, as
`tsm2.tables.frames` would, for the message. Only the tables of a list or dict are taken one by one.

Sizes: S series, T rows of all of them, M variates.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tsm2.errors import FrameError, ParameterError, SavedModelError
from tsm2.tables.frames import (
    Layout,
    Panel,
    check_finite,
    check_same,
    describe,
    future_index,
    layout_from_json,
    layout_to_json,
    past_index,
    read_cells,
    read_table,
    stamp_from_json,
    stamp_to_json,
    write_forecast,
)
from tsm2.tables.gaps import Missing
from tsm2.tables.ragged import offsets_of, owners, places, ranges
from tsm2.tables.stamps import (
    check_order,
    completed,
    frequency_of,
    index_kind,
    stamps_after,
    steps_between,
    type_name,
)

__all__ = [
    "Container",
    "Data",
    "LongColumns",
    "Table",
    "extend",
    "future_rows",
    "join",
    "numbers_in",
    "panel_from_json",
    "panel_to_json",
    "read_panel",
    "write_panel",
]

Data: TypeAlias = (
    pd.DataFrame | ArrayLike | Sequence[pd.DataFrame] | Mapping[Any, pd.DataFrame | ArrayLike]
)
"""What comes in: a table or several series."""
Table: TypeAlias = pd.DataFrame | NDArray[np.float64]
Container: TypeAlias = Table | list[Table] | dict[Any, Table]
"""What a forecast comes out in: that of the history."""

_Result = TypeVar("_Result")


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


# --- in -------------------------------------------------------------------------------------------


def read_panel(
    X: object,
    *,
    frequency: str | int | None = None,
    like: Layout | None = None,
    long: LongColumns | None = None,
    missing: Missing = "raise",
) -> Panel:
    """Read one table or several series, and check that they are regular, numeric and finite.

    Parameters
    ----------
    X
        A table as for `tsm2.tables.frames.read_table`, or several series: a long frame, a frame
        with a MultiIndex (series, time), a list or dict of frames or of 2-D arrays. The rows of a
        series are in the order of time; rows of other series may stand between them.
    frequency
        Time between rows, the same for all series; None takes it from the longest.
    like
        Layout of earlier data that these must agree with; its frequency is needed.
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
    >>> days = pd.date_range("2024-01-01", periods=2)
    >>> frame = pd.DataFrame({"unique_id": ["b", "b", "a"], "ds": [*days, days[0]], "y": [1, 2, 5]})
    >>> panel = read_panel(frame)
    >>> panel.ids, panel.counts.tolist(), panel.values.ravel().tolist()
    (('b', 'a'), [2, 1], [1.0, 2.0, 5.0])
    """
    long = LongColumns() if long is None else long
    frequency = frequency if like is None else like.frequency
    if isinstance(X, pd.DataFrame) and X.columns.nlevels == 1 and long.id in X.columns:
        panel = _read_long(X, long, like)
    elif isinstance(X, pd.DataFrame) and X.index.nlevels == 2:
        panel = _read_levels(X, like)
    elif _is_several(X):
        panel = _read_tables(X, None if like else frequency, like, missing)
    else:
        return read_table(X, frequency=frequency, like=like, missing=missing)
    _check_order(panel)
    if missing != "raise" and panel.layout.kind == "frame":
        panel = _completed(panel, frequency)
    panel = replace(panel, layout=replace(panel.layout, frequency=_regular(panel, frequency)))
    fine = np.isfinite(panel.values) if missing == "raise" else ~np.isinf(panel.values)
    _blame(
        panel,
        np.asarray(~fine.all(axis=1)),
        lambda one: check_finite(one.values, one.layout.columns, one.index, missing=missing),
    )
    return panel


def _is_several(X: object) -> bool:
    """Say if X is a list or dict of tables, and not one table made of lists."""
    if isinstance(X, Mapping):
        return not hasattr(X, "toarray")  # scipy's dok_array is a mapping
    if not isinstance(X, list | tuple):
        return False
    return any(isinstance(each, pd.DataFrame | pd.Series) or _is_array(each) for each in X)


def _is_array(X: object) -> bool:
    return getattr(X, "ndim", 0) == 2 and not isinstance(X, pd.DataFrame)


def _read_long(frame: pd.DataFrame, columns: LongColumns, like: Layout | None) -> Panel:
    _check_long_columns(frame, columns)
    stamps = pd.Index(frame[columns.time], name=columns.time)
    where = f"column {columns.time!r}"
    return _read_stacked(
        frame[columns.targets], frame[columns.id], columns.id, stamps, where, "long", like
    )


def _read_levels(frame: pd.DataFrame, like: Layout | None) -> Panel:
    names, stamps = frame.index.get_level_values(0), frame.index.get_level_values(1)
    where = "the second level of the index"
    return _read_stacked(frame, names, names.name, stamps, where, "levels", like)


def _read_stacked(
    table: pd.DataFrame,
    names: pd.Series[Any] | pd.Index,
    id_name: Hashable,
    stamps: pd.Index,
    where: str,
    series: Any,
    like: Layout | None,
) -> Panel:
    """Read rows that each say their series and their time; put those of a series together."""
    try:
        index_kind(stamps)
    except FrameError as error:
        raise FrameError(
            f"{where} holds {type_name(stamps)} of dtype {stamps.dtype}, but time stamps or whole "
            f"numbers are needed. Convert it with pd.to_datetime."
        ) from error
    table = table.set_axis(stamps)
    layout = replace(describe(table), series=series, id_name=id_name, id_dtype=_plain_dtype(names))
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
    return Panel(values=values, layout=layout, index=index, ids=ids, offsets=offsets)


def _read_tables(
    X: Any, frequency: str | int | None, like: Layout | None, missing: Missing
) -> Panel:
    """Read a list or dict of tables, one by one."""
    is_dict = isinstance(X, Mapping)
    tables = dict(X) if is_dict else dict(enumerate(X))
    ids = _checked_ids(list(tables))
    if not ids:
        raise FrameError("the dict holds no series, but at least one is needed.")
    panels: list[Panel] = []
    for name, table in tables.items():
        try:
            panels.append(_read_one(table, frequency, missing))
            _check_alike(panels[-1], panels[0])
        except FrameError as error:
            raise FrameError(f"series {name!r}: {error}") from error
    index = panels[0].index.append([panel.index for panel in panels[1:]])
    layout = replace(
        panels[0].layout, series="dict" if is_dict else "list", unit=getattr(index, "unit", None)
    )
    if like is not None:
        check_same(layout, like)
    return Panel(
        values=np.concatenate([panel.values for panel in panels]),
        layout=layout,
        index=index,
        ids=ids,
        offsets=offsets_of(np.array([len(panel.values) for panel in panels])),
    )


def _read_one(table: object, frequency: str | int | None, missing: Missing) -> Panel:
    """Read one table of a list or dict; its stamps are checked with those of the others."""
    if not isinstance(table, pd.DataFrame):
        if _is_array(table):
            return read_table(table, frequency=frequency, missing=missing)
        raise FrameError(
            f"it is {type_name(table)}, but a DataFrame or a 2-D array with a row per time step is "
            f"needed; a pandas Series becomes one with X.to_frame()."
        )
    layout = describe(table)
    if not len(table):
        raise FrameError("it has no rows: 0 sample(s) where at least 1 is needed. Leave it out.")
    return Panel(values=read_cells(table), layout=layout, index=_plain_stamps(table.index))


def _check_alike(panel: Panel, first: Panel) -> None:
    """Check that a table of a list or dict has what all of them must have in common."""
    common = {
        "container": (panel.layout.container, first.layout.container),
        "columns": (panel.layout.columns, first.layout.columns),
        "index": (panel.layout.index_kind, first.layout.index_kind),
        "time zone": (panel.layout.timezone, first.layout.timezone),
    }
    if panel.layout.index_kind == "period":
        common["frequency"] = str(panel.index.dtype), str(first.index.dtype)
    for what, (own, wanted) in common.items():
        if own != wanted:
            raise FrameError(
                f"its {what} is {_listed(own)}, but that of the first series is {_listed(wanted)}. "
                f"All series need the same; fit those that differ on their own."
            )


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


def _plain_dtype(names: pd.Series[Any] | pd.Index) -> str:
    """Return a dtype in which the names of the series can be written again."""
    dtype = names.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        dtype = dtype.categories.dtype
    return "object" if isinstance(dtype, pd.SparseDtype) else str(dtype)


def _plain_stamps(index: pd.Index) -> pd.Index:
    """Return whole numbers as int64, so that those of several tables fit together."""
    if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        return index
    if index.hasnans:
        check_order(index)
    if int(index.max()) >= 2**63:
        raise FrameError(f"the index goes to {index.max()}, beyond what 64 bits can represent.")
    return pd.Index(index.to_numpy(dtype=np.int64), name=index.name)


def _check_order(panel: Panel) -> None:
    """Refuse missing, duplicated and unsorted stamps."""
    index = panel.index
    unsorted = np.asarray(index.isna())
    unsorted[1:] |= ~np.asarray(index[1:] > index[:-1]) & (np.diff(owners(panel.offsets)) == 0)
    _blame(panel, unsorted, lambda one: check_order(one.index))


def _completed(panel: Panel, frequency: str | int | None) -> Panel:
    """Put rows of NaN where series lack some; leave all as it is if a stamp is beside the grid.

    A panel that would grow a hundredfold is left, too: `_regular` says what is wrong with it.
    """
    longest = slice(*panel.offsets[(number := int(np.argmax(panel.counts))) : number + 2])
    whole, _ = completed(panel.index[longest], frequency)
    try:
        found = frequency_of(whole, frequency)
        first = panel.index[panel.offsets[:-1].repeat(panel.counts)]
        steps = steps_between(first, panel.index, found)
        if (panel.index != stamps_after(first, steps.clip(min=0), found)).any():
            return panel
    except FrameError:
        return panel
    counts = steps[panel.offsets[1:] - 1] + 1
    if counts.sum() > 100 * len(panel.values) or (counts == panel.counts).all():
        return panel
    offsets = offsets_of(counts)
    values = np.full((offsets[-1], panel.values.shape[1]), np.nan)
    values[offsets[:-1].repeat(panel.counts) + steps] = panel.values
    first = panel.index[panel.offsets[:-1].repeat(counts)]
    index = stamps_after(first, places(offsets), found).rename(panel.index.name)
    return replace(panel, values=values, index=index, offsets=offsets)


def _regular(panel: Panel, frequency: str | int | None) -> str | int:
    """Return the frequency of all series; refuse stamps that are off it."""
    if panel.layout.kind == "array":
        return 1
    index = panel.index
    longest = int(np.argmax(panel.counts))
    found = _on_its_own(panel, longest, lambda one: frequency_of(one.index, frequency))
    first = index[np.repeat(panel.offsets[:-1], panel.counts)]
    off = np.asarray(index != stamps_after(first, places(panel.offsets), found))
    _blame(panel, off, lambda one: frequency_of(one.index, found))
    return found


def _blame(panel: Panel, bad: NDArray[np.bool_], check: Callable[[Panel], object]) -> None:
    """Check each series with a bad row on its own, which says what is wrong with it."""
    if bad.any():
        for number in np.unique(owners(panel.offsets)[bad]):
            _on_its_own(panel, number, check)


def _on_its_own(panel: Panel, number: int, check: Callable[[Panel], _Result]) -> _Result:
    rows = slice(*panel.offsets[number : number + 2])
    one = Panel(values=panel.values[rows], layout=panel.layout, index=panel.index[rows])
    try:
        return check(one)
    except FrameError as error:
        name = panel.ids[number]
        raise FrameError(f"series {name!r}, as a table X of its own: {error}") from error


def numbers_in(panel: Panel, ids: tuple[Hashable, ...]) -> NDArray[np.int64]:
    """Return the position in `ids` of every series, (S,); -1 for one that is not there.

    The series of a list have no names, so none of them is there.
    """
    if panel.layout.series == "list":
        return np.full(len(panel.ids), -1)
    known = {name: number for number, name in enumerate(ids)}
    return np.array([known.get(name, -1) for name in panel.ids])


def join(past: Panel, panel: Panel) -> Panel:
    """Put the rows of `past` before those of each series that goes on right behind them.

    A series goes on if it has the name and the next stamp; rows of an array or of a list have not.
    """
    if panel.layout.kind == "array":
        return panel
    numbers = numbers_in(panel, past.ids)
    known = np.flatnonzero(numbers >= 0)
    first = panel.index[panel.offsets[known]]
    known = known[np.asarray(first == _next_stamps(past)[numbers[known]])]
    counts = past.counts[numbers[known]]
    rows = ranges(past.offsets[numbers[known]], counts)
    return _merged(past.take(rows, counts), known, panel, np.arange(len(panel.ids)), panel.ids)


def extend(past: Panel, panel: Panel) -> Panel:
    """Put new rows behind those of the series of `past`, which all stay.

    Raises
    ------
    FrameError
        A series is new, or its rows do not go on where the known ones end.
    """
    numbers = numbers_in(panel, past.ids)
    if (numbers < 0).any():
        name = panel.ids[int(np.argmin(numbers))]
        raise FrameError(
            f"series {name!r} is new, but only series that were there in fit, by their names, can "
            f"go on. Forecast it with predict(X), or fit again with it."
        )
    index, expected = panel.index, _next_stamps(past)[numbers]
    if panel.layout.kind == "array":
        index = stamps_after(expected.repeat(panel.counts), places(panel.offsets), 1)
    first = index[panel.offsets[:-1]]
    off = np.flatnonzero(np.asarray(first != expected))
    if len(off):
        where = "" if panel.layout.series == "one" else f" of series {panel.ids[off[0]]!r}"
        last = past.index[past.offsets[numbers[off[0]] + 1] - 1]
        raise FrameError(
            f"the new rows{where} start at {first[off[0]]}, but the known ones end at {last}, so "
            f"{expected[off[0]]} must come first. Pass the rows from there on."
        )
    new = replace(panel, index=index)
    return _merged(past, np.arange(len(past.ids)), new, numbers, past.ids)


def _next_stamps(panel: Panel) -> pd.Index:
    """Return the stamp that follows the last one of each series, (S,)."""
    first = panel.index[panel.offsets[:-1]]
    return stamps_after(first, panel.counts, panel.layout.frequency)


def _merged(
    past: Panel,
    past_numbers: NDArray[np.int64],
    panel: Panel,
    numbers: NDArray[np.int64],
    ids: tuple[Hashable, ...],
) -> Panel:
    """Put the rows of two panels together; `numbers` say which of `ids` their series are."""
    owner = np.concatenate((past_numbers.repeat(past.counts), numbers.repeat(panel.counts)))
    order = np.argsort(owner, kind="stable")
    return Panel(
        values=np.concatenate((past.values, panel.values))[order],
        layout=panel.layout,
        index=past.index.append(panel.index)[order],
        ids=ids,
        offsets=offsets_of(np.bincount(owner)),
    )


# --- out ------------------------------------------------------------------------------------------


def future_rows(panel: Panel, values: NDArray[np.float64]) -> Panel:
    """Return the panel of forecasts that continues every series.

    Parameters
    ----------
    panel
        The histories.
    values
        The forecasts, (S, H, M).

    Raises
    ------
    FrameError
        The stamps leave the range that pandas can represent.
    """
    n_series, horizon, n_variates = values.shape
    if panel.layout.series == "one":
        index = future_index(panel.index, horizon, panel.layout)
        return Panel(values=values[0], layout=panel.layout, index=index)
    first = panel.index[panel.offsets[:-1].repeat(horizon)]
    steps = (panel.counts[:, None] + np.arange(horizon)).ravel()
    index = stamps_after(first, steps, panel.layout.frequency)
    return replace(
        panel,
        values=values.reshape(-1, n_variates),
        index=index.rename(panel.layout.index_name),
        offsets=np.arange(n_series + 1) * horizon,
    )


def write_panel(panel: Panel) -> Container:
    """Put the rows of a panel into the container that its layout describes.

    Returns
    -------
    A long frame has the columns of `LongColumns` in that order; all else is as it came in.
    """
    layout = panel.layout
    if layout.series in ("list", "dict"):
        pieces = [
            write_forecast(panel.values[a:b], panel.index[a:b], layout)
            for a, b in zip(panel.offsets, panel.offsets[1:], strict=False)
        ]
        return pieces if layout.series == "list" else dict(zip(panel.ids, pieces, strict=True))
    if layout.series == "one":
        return write_forecast(panel.values, panel.index, layout)
    names = pd.Index(
        panel.ids,
        dtype=layout.id_dtype,
        name=layout.id_name,
        tupleize_cols=False,
    ).repeat(panel.counts)
    if layout.series == "levels":
        index = pd.MultiIndex.from_arrays([names, panel.index])
        return write_forecast(panel.values, index, layout)
    columns: dict[int, Any] = {0: names, 1: panel.index}
    columns |= {place + 2: column for place, column in enumerate(panel.values.T)}
    frame = pd.DataFrame(columns)
    frame.columns = pd.Index(
        [layout.id_name, layout.index_name, *layout.columns],
        dtype=layout.columns_dtype,
        name=layout.columns_name,
    )
    return frame


def _listed(value: object) -> str:
    """Return what a list or tuple holds, the first of many, for a message."""
    if not isinstance(value, list | tuple):
        return str(value)
    more = f" and {len(value) - 5} more" if len(value) > 5 else ""
    return ", ".join(repr(each) for each in value[:5]) + more


# --- saved ----------------------------------------------------------------------------------------


def panel_to_json(panel: Panel) -> dict[str, Any]:
    """Return all of a panel but its numbers and offsets as plain types."""
    is_one = panel.layout.series == "one"
    stamps = panel.index[-1:] if is_one else panel.index[panel.offsets[:-1]]
    return {
        "layout": layout_to_json(panel.layout),
        "series": panel.ids,
        "stamps": [stamp_to_json(stamp) for stamp in stamps],
    }


def panel_from_json(
    saved: Mapping[str, Any], values: NDArray[np.float64], offsets: NDArray[np.int64]
) -> Panel:
    """Return the panel that `panel_to_json` wrote, with its numbers and offsets.

    Raises
    ------
    SavedModelError
        The parts do not fit together.
    """
    layout = layout_from_json(saved["layout"])
    ids = tuple(saved["series"])
    stamps: Any = [stamp_from_json(stamp, layout) for stamp in saved["stamps"]]
    fits = (
        len(ids) == len(stamps) == len(offsets) - 1
        and values.ndim == 2
        and (offsets[0], offsets[-1]) == (0, len(values))
        and bool((np.diff(offsets) > 0).all())
    )
    if not fits:
        raise SavedModelError("the saved series do not fit their rows. Save the model again.")
    if layout.series == "one":
        index = past_index(stamps[0], len(values), layout)
    else:
        first = pd.Index(stamps)
        if isinstance(first, pd.DatetimeIndex):
            first = first.as_unit(cast("Any", layout.unit))
        index = stamps_after(first[owners(offsets)], places(offsets), layout.frequency)
    return Panel(
        values=values,
        layout=layout,
        index=index.rename(layout.index_name),
        ids=ids,
        offsets=offsets,
    )
