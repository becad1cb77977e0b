"""Business calendars: frequencies of pandas that no alias says all of, kept as plain data.

Business days with a week and holidays of their own, their first and last ones of a month, and hours
of opening are offsets of pandas. Their alias ("C", "CBME", "cbh") says nothing of week, holidays
and hours, so the offset itself is the frequency, and a saved model keeps what it is made from:

    {"offset": "CustomBusinessDay", "n": 1, "weekmask": "Mon Tue Wed Thu Fri",
     "holidays": ["2024-12-25"]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

__all__ = [
    "Frequency",
    "alias_of",
    "days_per_week",
    "frequency_from_json",
    "frequency_name",
    "frequency_to_json",
    "plain_frequency",
]

Frequency: TypeAlias = "str | int | pd.offsets.BaseOffset"
"""Time between rows: a pandas alias, a whole number for numbered rows, a business calendar."""

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        pd.offsets.CustomBusinessDay,
        pd.offsets.CustomBusinessHour,
        pd.offsets.CustomBusinessMonthBegin,
        pd.offsets.CustomBusinessMonthEnd,
        pd.offsets.BusinessHour,
    )
}


def alias_of(offset: Any) -> str | None:
    """Return the alias of an offset, if the alias says all of it."""
    try:
        alias: str = offset.freqstr
        same: Any = to_offset(alias)
        if type(same) is not type(offset) or same != offset:
            return None
    except ValueError:
        return None
    # offsets with a calendar= of NumPy's compare as equal to those without
    return alias if _week_of(same) == _week_of(offset) else None


def plain_frequency(offset: Any) -> Frequency | None:
    """Return an offset as its alias or as a business calendar; None if it is neither.

    Examples
    --------
    >>> plain_frequency(pd.offsets.Hour(2))
    '2h'
    >>> plain_frequency(pd.offsets.CustomBusinessDay(holidays=["2024-12-25"]))
    <CustomBusinessDay>
    """
    alias = alias_of(offset)
    if alias is not None:
        return alias
    name = type(offset).__name__
    is_plain = name in _KINDS and not offset.normalize and not offset.offset
    if hasattr(offset, "start"):  # pandas counts hours over midnight wrongly
        is_plain &= all(a < b for a, b in zip(offset.start, offset.end, strict=True))
    return frequency_from_json(frequency_to_json(offset)) if is_plain else None


def days_per_week(offset: Any) -> int:
    """Return how many days of a week are business days of a calendar."""
    return int(offset.calendar.weekmask.sum())


def frequency_name(frequency: Frequency) -> str:
    """Say a frequency in words.

    Examples
    --------
    >>> frequency_name(pd.offsets.CustomBusinessDay(holidays=["2024-12-25"]))
    'CustomBusinessDay, Mon Tue Wed Thu Fri without 1 holidays'
    """
    if isinstance(frequency, str | int):
        return str(frequency)
    plain = frequency_to_json(frequency)
    parts = [f"{plain['n']} x " * (plain["n"] > 1) + plain["offset"]]
    if "weekmask" in plain:
        parts.append(f"{plain['weekmask']} without {len(plain['holidays'])} holidays")
    if "start" in plain:
        parts += [f"{a} to {b}" for a, b in zip(plain["start"], plain["end"], strict=True)]
    return ", ".join(parts)


def frequency_to_json(frequency: Frequency) -> Any:
    """Return a frequency as plain JSON types."""
    if isinstance(frequency, str | int):
        return frequency
    offset: Any = frequency
    week = _week_of(offset)
    plain: dict[str, Any] = {"offset": type(offset).__name__, "n": int(offset.n)}
    if week is not None:
        plain |= {"weekmask": week[0], "holidays": list(week[1])}
    if isinstance(offset, pd.offsets.BusinessHour):
        for edge in ("start", "end"):
            plain[edge] = [time.strftime("%H:%M") for time in getattr(offset, edge)]
    return plain


def frequency_from_json(saved: Any) -> Frequency:
    """Return the frequency that `frequency_to_json` wrote.

    Raises
    ------
    ValueError
        It is none.

    Examples
    --------
    >>> saved = {"offset": "BusinessHour", "n": 1, "start": ["08:00"], "end": ["16:00"]}
    >>> frequency_from_json(saved)
    <BusinessHour: bh=08:00-16:00>
    """
    if isinstance(saved, str | int):
        return saved
    if not isinstance(saved, Mapping) or saved.get("offset") not in _KINDS:
        raise ValueError(f"{saved!r} is no frequency")
    names = ("n", "weekmask", "holidays", "start", "end")
    made_from = {name: saved[name] for name in names if name in saved}
    try:
        offset: pd.offsets.BaseOffset = _KINDS[saved["offset"]](**made_from)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{saved!r} is no frequency ({error})") from error
    return offset


def _week_of(offset: Any) -> tuple[str, tuple[str, ...]] | None:
    """Return the business days and the holidays of an offset; None if it has no calendar."""
    calendar = getattr(offset, "calendar", None)
    if not isinstance(calendar, np.busdaycalendar):
        return None
    days = (day for day, is_open in zip(_WEEKDAYS, calendar.weekmask, strict=True) if is_open)
    return " ".join(days), tuple(str(day) for day in calendar.holidays)
