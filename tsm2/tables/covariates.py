"""Covariates: tables of what is known beside the values, read and found by their stamps.

    past      measured as the values are      a row for every row of the history
    future    known in advance                a row for every row of the history and the horizon
    static    holds at all times              a row for every variate, or for every series

Rows are found by their stamp, of several series by series and stamp, so that a table of covariates
may begin earlier, end later and hold more series than the values do.

Sizes: T rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.errors import FrameError
from tsm2.tables.containers import Form, Table, as_frame, open_table
from tsm2.tables.layout import Layout, check_index, check_kind, plain_names
from tsm2.tables.series import Series
from tsm2.tables.stamps import as_stamps, type_name

__all__ = [
    "KINDS",
    "CovariateTable",
    "CovariateTables",
    "label_rows",
    "read_covariates",
    "read_static",
    "rows_at",
]

CovariateTable: TypeAlias = "Table | NDArray[Any] | Mapping[Any, Table] | Sequence[Table] | None"
"""Covariates of one kind as a user gives them: one table, or one for each of several series."""

KINDS = ("past", "future", "static")


@dataclass(frozen=True, slots=True, eq=False)
class CovariateTables:
    """Covariates of all kinds as a user gives them."""

    past: CovariateTable = None
    """Measured as the values are."""
    future: CovariateTable = None
    """Known in advance."""
    static: CovariateTable = None
    """Holding at all times."""

    def given(self) -> list[str]:
        """Return the kinds that were given."""
        return [kind for kind in KINDS if getattr(self, kind) is not None]


def label_rows(series: Series, among: pd.Index | None = None) -> pd.Index:
    """Return what tells the rows of series apart: the stamp, of several series (series, stamp).

    Parameters
    ----------
    series
        The rows.
    among
        Labels that they are looked up among: the stamp alone if these name no series.
    """
    if series.layout.alone or (among is not None and among.nlevels == 1):
        return series.index
    names = pd.Index(series.ids, tupleize_cols=False).repeat(series.counts)
    return pd.MultiIndex.from_arrays([names, series.index])


def read_covariates(
    table: object, kind: str, layout: Layout, *, last: object = None
) -> pd.DataFrame:
    """Return a table of covariates as a frame with stamps, or (series, stamp), as its index.

    Parameters
    ----------
    table
        A DataFrame with the values' kind of index, time zone and frequency. For several series, it
        holds for each of them, or it is of the container that the values came in. For an array
        of values also a 2-D array.
    kind
        "past" or "future".
    layout
        Of the values.
    last
        Number of an array's last row; None counts its rows from 0.

    Raises
    ------
    FrameError
        It is something else, or its index is irregular or of another kind.
    """
    name = f"{kind}_covariates"
    try:
        opened, form = _opened(table, layout)
    except FrameError as error:
        raise FrameError(f"{name}: {error}") from error
    is_array = isinstance(opened, np.ndarray) and opened.ndim == 2
    if layout.kind == "array" and (is_array or form.stamps == "counted"):
        rows = pd.DataFrame(opened).infer_objects()
        first = 0 if last is None else cast("int", last) + 1 - len(rows)
        return rows.set_axis(pd.RangeIndex(first, first + len(rows)), axis=0)
    frame: Any = opened if layout.alone else _by_series(opened, name, layout)
    if not isinstance(frame, pd.DataFrame):
        raise FrameError(
            f"{name} is {type_name(table)}, but a DataFrame is needed, with a row per time step "
            f"and a column per covariate{', or an array' * (layout.kind == 'array')}."
        )
    if frame.columns.nlevels > 1 or frame.columns.has_duplicates or not frame.shape[1]:
        raise FrameError(
            f"{name} needs at least one column, and one label for each, but has columns "
            f"{list(frame.columns)[:5]}."
        )
    if not len(frame):
        raise FrameError(f"{name} has no rows.")
    if frame.index.has_duplicates:
        twice = frame.index[frame.index.duplicated()][0]
        raise FrameError(f"{name} has more than one row for {twice}. Keep one of them.")
    try:
        if frame.index.nlevels == 1:
            check_index(frame.index, layout)
        else:
            check_kind(cast("pd.MultiIndex", frame.index).levels[1], layout)
    except FrameError as error:
        raise FrameError(f"{name}, as a table X: {error}") from error
    return frame


def _opened(table: Any, layout: Layout) -> tuple[Any, Form]:
    """Make covariates, one table or several, tables of pandas with their stamps as index."""
    if isinstance(table, Mapping):
        return {key: _opened(each, layout)[0] for key, each in table.items()}, Form()
    if isinstance(table, list):
        return [_opened(each, layout)[0] for each in table], Form()
    opened, form = open_table(table, id_name=layout.id_name)
    if isinstance(opened, pd.DataFrame) and opened.index.nlevels == 1:
        opened = opened.set_axis(as_stamps(opened.index), axis=0)
    return opened, form


def _by_series(table: Any, name: str, layout: Layout) -> Any:
    """Return tables of several series as one frame with (series, stamp) as its index."""
    if isinstance(table, Mapping | list):
        tables = dict(table) if isinstance(table, Mapping) else dict(enumerate(table))
        if not tables or not all(isinstance(each, pd.DataFrame) for each in tables.values()):
            raise FrameError(f"{name} of several series needs a DataFrame for each of them.")
        frame = pd.concat(list(tables.values()))
        names = pd.Index(list(tables), tupleize_cols=False).repeat([*map(len, tables.values())])
        return frame.set_axis(pd.MultiIndex.from_arrays([names, frame.index]))
    if isinstance(table, pd.DataFrame) and layout.id_name in table.columns:
        if layout.index_name not in table.columns:
            raise FrameError(
                f"{name} has a column {layout.id_name!r}, but no column {layout.index_name!r} with "
                f"the time stamps. Name it so."
            )
        rest = table.drop(columns=layout.id_name).set_index(layout.index_name)
        owners = pd.Index(plain_names(table[layout.id_name]), name=layout.id_name)
        levels = [owners, as_stamps(rest.index)]
        return rest.set_axis(pd.MultiIndex.from_arrays(levels), axis=0)
    return table


def read_static(table: object, variates: Layout, ids: tuple[Hashable, ...]) -> pd.DataFrame:
    """Return a table of static covariates with a row per variate, or series, in their order.

    Parameters
    ----------
    table
        DataFrame whose index names the variates of a single table, or the series of several; for
        an array of values also a 2-D array.
    variates
        Layout of a forecast, whose columns are the variates.
    ids
        Names of the series.

    Raises
    ------
    FrameError
        It is something else, or does not name them all once.
    """
    one = variates.alone
    labels, what = (list(variates.columns), "variate") if one else (list(ids), "series")
    if variates.kind == "array" and isinstance(table, np.ndarray) and table.ndim == 2:
        table = pd.DataFrame(table).infer_objects()
    opened, form = as_frame(table)
    if form.library != "pandas":
        key = "variate" if one else str(variates.id_name or "series")
        if key not in opened.columns:
            raise FrameError(
                f"static_covariates is {type_name(table)} without a column {key!r} that names "
                f"every {what}; it has: {', '.join(map(repr, opened.columns[:10]))}. Name it so."
            )
        table = opened.set_index(key)
    if not isinstance(table, pd.DataFrame):
        raise FrameError(
            f"static_covariates is {type_name(table)}, but a DataFrame is needed, with a row per "
            f"{what}, named in its index, and a column per covariate."
        )
    if not one and variates.id_name in table.columns:
        named = pd.Index(plain_names(table[variates.id_name]))
        table = table.drop(columns=variates.id_name).set_axis(named, axis=0)
    names = pd.Index(labels, tupleize_cols=False)
    missing, unknown = names[~names.isin(table.index)], table.index[~table.index.isin(names)]
    fault = None
    if table.index.has_duplicates:
        fault = "names one twice"
    elif len(missing):
        fault = f"lacks {missing[0]!r}"
    elif one and len(unknown):
        fault = f"names {unknown[0]!r}"
    if fault is not None:
        raise FrameError(
            f"the index of static_covariates {fault}, but must name every {what} once: "
            f"{', '.join(repr(label) for label in labels[:10])}"
            f"{', ...' if len(labels) > 10 else ''}."
        )
    return table.iloc[table.index.get_indexer(names)]


def rows_at(labels: pd.Index, needed: pd.Index, name: str, series: Series) -> NDArray[np.int64]:
    """Return the place of every needed row among the rows that are there.

    Raises
    ------
    FrameError
        Rows are missing; the message lists them and says how to make all of them.
    """
    places = labels.get_indexer(needed)
    missing = needed[places < 0]
    if len(missing):
        listed = ", ".join(str(label) for label in missing[:3])
        more = f", ..., {missing[-1]}" if len(missing) > 3 else ""
        have = f"it goes from {labels[0]} to {labels[-1]}" if len(labels) else "it was not given"
        raise FrameError(
            f"{name} lacks {len(missing)} of the {len(needed)} rows that are needed: {listed}"
            f"{more}; {have}.{_recipe(needed, series.layout)}"
        )
    return np.asarray(places, dtype=np.int64)


def _recipe(needed: pd.Index, layout: Layout) -> str:
    """Return a sentence with Python that makes the needed stamps of a single table."""
    if not layout.alone or needed.nlevels > 1:
        return ""
    first, n = needed[0], len(needed)
    if layout.index_kind == "range":
        step = int(cast("int", layout.frequency))
        return f" All that are needed: range({first}, {int(first) + n * step}, {step})."
    make = "date_range" if layout.index_kind == "datetime" else "period_range"
    stamps = f"pd.{make}({str(first)!r}, periods={n}, freq={layout.frequency!r})"
    return f" All that are needed: {stamps}."
