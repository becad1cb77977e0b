"""Labels: which row of a table a time, a day, a month or a number stands for.

A label that says less than a stamp, "2024-01-05" or "2024-01", spans a time and means its first
row. Labels come as the argument `start`, which messages name.
"""

from __future__ import annotations

import datetime
import re
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.errors import FrameError
from tsm2.tables.wall_clocks import into_zone

__all__ = ["is_before", "position_of"]


def position_of(index: pd.Index, label: object) -> int:
    """Return the position of the row with a label, or of the first row of the time that it spans.

    Parameters
    ----------
    index
        The stamps of a table, (T,), in order.
    label
        For time stamps a time, or a text such as "2024-01-05 12:00"; a `datetime.date` or a text
        that says less, "2024-01-05" or "2024-01", is the first row of that day or month. Without
        a time zone it is local time. For whole numbers, a whole number.

    Raises
    ------
    FrameError
        No row is there; the message names those next to it.

    Examples
    --------
    >>> hours = pd.date_range("2024-01-04 22:00", periods=6, freq="h", tz="Europe/Berlin")
    >>> position_of(hours, "2024-01-05"), position_of(hours, pd.Timestamp("2024-01-05 01:00"))
    (2, 3)
    """
    begin, stop = _span_of(index, label)
    stamps = index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index
    place = int(stamps.searchsorted(begin))
    if place < len(index) and (stamps[place] == begin or stamps[place] < stop):
        return place
    if isinstance(index, pd.PeriodIndex) and place and begin <= index[place - 1].end_time:
        return place - 1
    near = [str(index[each]) for each in (place - 1, place) if 0 <= each < len(index)]
    raise FrameError(
        f"start={label!r} is not a row of the table, whose rows go {_ends(index)}. The nearest: "
        f"{' and '.join(near)}. Pass the label of a row."
    )


def is_before(index: pd.Index, label: object) -> NDArray[np.bool_]:
    """Return which rows, of one series or of many, stand before a label, see `position_of`.

    Raises
    ------
    FrameError
        It is no label of such rows.

    Examples
    --------
    >>> hours = pd.date_range("2024-01-04 22:00", periods=4, freq="h", tz="Europe/Berlin")
    >>> is_before(hours, "2024-01-05").tolist()
    [True, True, False, False]
    """
    begin, _ = _span_of(index, label)
    if isinstance(index, pd.PeriodIndex):
        return np.asarray(index.end_time < begin)
    return np.asarray(index < begin)


def _span_of(index: pd.Index, label: object) -> tuple[Any, Any]:
    """Return where the time, or the number, of a label begins and stops."""
    zone = index.tz if isinstance(index, pd.DatetimeIndex) else None
    if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        span = _time_span(label, zone)
        zoned = "without" if zone is None else "with or without"
        needed = f"a time {zoned} time zone, year first, such as '2024-01-05 12:00',"
    else:
        span, needed = _number_span(label), "a whole number"
    if span is None:
        raise FrameError(
            f"start={label!r} cannot be the label of a row: the rows go {_ends(index)}, so "
            f"{needed} is needed."
        )
    return span


def _ends(index: pd.Index) -> str:
    """Say from where to where the rows go."""
    zone = index.tz if isinstance(index, pd.DatetimeIndex) else None
    return f"from {index[0]} to {index[-1]}" + ("" if zone is None else f" in time zone {zone}")


def _number_span(label: object) -> tuple[Any, Any] | None:
    """Return a whole number as where a label begins and stops."""
    if isinstance(label, bool | np.bool_) or not isinstance(label, int | float | np.number):
        return None
    return (int(label), int(label)) if float(label).is_integer() else None


def _time_span(label: object, zone: Any) -> tuple[Any, Any] | None:
    """Return where the time of a label begins and stops, in a time zone."""
    span: Any
    try:
        if isinstance(label, str) and not re.match(r"\d{4}", label):  # "12:00" is not of today
            return None
        if isinstance(label, datetime.datetime | np.datetime64) or (
            isinstance(label, str) and pd.Timestamp(label).tz is not None
        ):
            stamp = pd.Timestamp(label)
            span = (stamp, stamp)
        elif isinstance(label, str | datetime.date | pd.Period):
            is_day = isinstance(label, datetime.date)
            period = pd.Period(label, freq="D") if is_day else pd.Period(cast("str", label))
            span = (period.start_time, (period + 1).start_time)
        else:
            return None
    except ValueError:  # a text that says no time, or NaT
        return None
    if span[0] is pd.NaT or (span[0].tz is not None and zone is None):
        return None
    if span[0].tz is None and zone is not None:
        span = tuple(into_zone(pd.DatetimeIndex(span), zone))
    return span[0], span[1]
