"""Layouts: the container that a table came in, without its numbers and its stamps.

A layout is what a forecast needs to go out as its history came in, and what a later table must
agree with. Labels are kept as plain Python, so that a saved model can hold them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from tsm2.errors import FrameError, SavedModelError
from tsm2.tables.cells import name_some
from tsm2.tables.containers import Form, form_from_json
from tsm2.tables.stamps import (
    INDEX_NAMES,
    check_order,
    frequency_of,
    index_kind,
    timezone_name,
    type_name,
)

__all__ = [
    "Layout",
    "check_index",
    "check_kind",
    "check_same",
    "describe",
    "layout_from_json",
    "layout_to_json",
    "plain_label",
    "plain_names",
]

_CONTAINERS = {
    "one": "{a} {one}",
    "long": "a long {one}",
    "levels": "a {one} with a MultiIndex (series, time)",
    "list": "a list of {many}",
    "dict": "a dict of {many}",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The container that a table came in, without its numbers and its stamps."""

    kind: Literal["frame", "array"]
    """A table with stamps; or a 2-D array, or a table without stamps, whose rows are counted."""
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
    clock: str | None = None
    """Time of day of rows in calendar steps, where the clocks of the time zone may skip it; None
    for midnight, and where it is not needed."""
    unit: str | None = None
    """Resolution of the stamps ("ns", "us", ...), for "datetime"."""
    series: Literal["one", "long", "levels", "list", "dict"] = "one"
    """What keeps several series apart: a column, a level of the index, their place in a list or
    their key in a dict; "one" for a single table."""
    id_name: Hashable = None
    """Name of the column or level that says to which series a row belongs."""
    id_dtype: str = "object"
    """dtype of that column or level."""
    form: Form = Form()  # noqa: RUF009 (frozen)
    """What each table was before it became one of pandas with its stamps as index."""

    @property
    def container(self) -> str:
        """What to call it in a message."""
        one, many = self.form.nouns
        if self.kind == "array" and self.form.library == "pandas":
            one, many = "array", "arrays"
        elif self.series in ("long", "levels") and one == "DataFrame":
            one = "frame"
        a = "an" if one[0] in "aA" else "a"
        return _CONTAINERS[self.series].format(a=a, one=one, many=many)

    @property
    def alone(self) -> bool:
        """Whether it is one table, and not several series."""
        return self.series == "one"

    @property
    def stamped(self) -> bool:
        """Whether rows have stamps that later tables go on from; those of arrays are counted."""
        return self.kind == "frame"

    @property
    def named(self) -> bool:
        """Whether series are known again by their names; those of a list have places alone."""
        return self.series != "list"

    def in_pieces(self) -> Layout:
        """Return the layout with several series as a table each, by their names."""
        return self if self.alone else replace(self, series="dict")

    def with_names(self) -> Layout:
        """Return the layout with the places of a list taken for names."""
        return self if self.named else replace(self, series="dict")


# --- labels ---------------------------------------------------------------------------------------


def describe(frame: pd.DataFrame, form: Form = Form()) -> Layout:  # noqa: B008 (frozen)
    """Return the layout of a wide frame whose frequency is still to be found.

    Parameters
    ----------
    frame
        The table, with its stamps as index.
    form
        What it was before.

    Raises
    ------
    FrameError
        Its index or a label cannot be used.
    """
    index, columns = frame.index, frame.columns
    stamps = index if isinstance(index, pd.DatetimeIndex) else None
    return Layout(
        kind="array" if form.stamps == "counted" else "frame",
        columns=_read_labels(columns),
        columns_name=plain_label(columns.name, "name of the columns"),
        columns_dtype=str(columns.dtype),
        index_kind=index_kind(index),
        index_name=plain_label(index.name, "name of the index"),
        frequency=1 if form.stamps == "counted" else 0,
        form=form,
        timezone=None if stamps is None else timezone_name(stamps),
        unit=None if stamps is None else stamps.unit,
    )


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
            f"{name_some(repeated, 'column')} there more than once, but labels must be unique. "
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


def plain_names(names: pd.Series[Any] | pd.Index) -> pd.Series[Any] | pd.Index:
    """Return the names of series in a dtype in which they can be written again.

    A categorical, or what Arrow codes by a dictionary, becomes what its categories are.
    """
    dtype = names.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return names.astype(dtype.categories.dtype) if not names.hasnans else names.astype(object)
    if isinstance(dtype, pd.ArrowDtype) and hasattr(dtype.pyarrow_dtype, "index_type"):
        return names.astype(pd.ArrowDtype(dtype.pyarrow_dtype.value_type))
    return names.astype(object) if isinstance(dtype, pd.SparseDtype) else names


# --- compared -------------------------------------------------------------------------------------


def check_same(given: Layout, fitted: Layout) -> None:
    """Check that two layouts agree in everything but the frequency.

    Raises
    ------
    FrameError
        They do not; the message says that `fitted` is that of the fit.
    """
    if (given.kind, given.series) != (fitted.kind, fitted.series):
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
    if given.kind == "array" and given.form.library == "pandas":
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


# --- saved ----------------------------------------------------------------------------------------


def layout_to_json(layout: Layout) -> dict[str, Any]:
    """Return the layout as plain JSON types; a tuple in a label becomes a list."""
    saved = {f.name: _lists(getattr(layout, f.name)) for f in fields(layout)}
    return saved | {"form": layout.form.to_json()}


def layout_from_json(saved: Mapping[str, Any]) -> Layout:
    """Return the layout that `layout_to_json` wrote.

    Raises
    ------
    SavedModelError
        A field is missing, unknown, or holds what no layout holds.
    """
    wanted = {f.name for f in fields(Layout)}
    older = ("clock", "form")  # may lack in saved ones of before
    if not isinstance(saved, Mapping) or {*saved, *older} != wanted:
        raise SavedModelError(f"the saved layout {saved!r} needs exactly the fields {wanted}.")
    plain: dict[str, Any] = {name: _tuples(value) for name, value in saved.items()}
    try:
        plain["form"] = form_from_json(saved["form"]) if "form" in saved else Form()
    except ValueError as error:
        raise SavedModelError(f"the saved layout is damaged: {error}. Save it again.") from error
    layout = Layout(**plain)
    is_range = layout.index_kind == "range"
    usable = (
        layout.kind in ("frame", "array")
        and layout.series in _CONTAINERS
        and (layout.kind == "frame" or layout.series in ("one", "list", "dict"))
        and layout.index_kind in INDEX_NAMES
        and isinstance(layout.columns, tuple)
        and type(layout.frequency) is (int if is_range else str)
    )
    if not usable:
        raise SavedModelError(f"the saved layout {saved!r} is damaged. Save the model again.")
    return layout


def _lists(value: object) -> object:
    return [_lists(each) for each in value] if isinstance(value, tuple) else value


def _tuples(value: object) -> object:
    return tuple(_tuples(each) for each in value) if isinstance(value, list | tuple) else value
