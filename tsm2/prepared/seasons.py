"""Seasons: how many rows come round again, how far back a forecast may want to look, and when.

A season is a day of rows that come several times a day, a week of days, and a year of weeks, months
and quarters. Numbered rows have none that could be known.

Sizes: T rows, H horizon.
"""

from typing import Any

import pandas as pd

from tsm2.tables.business import days_per_week
from tsm2.tables.frequencies import offset_of
from tsm2.tables.layout import Layout

__all__ = ["calendars", "lookbacks", "season_of"]

_DAY = pd.Timedelta(days=1)
_OF_CALENDARS = {
    "D": 7,
    "B": 5,
    "W": 52,
    "SM": 24,
    "M": 12,
    "BM": 12,
    "CBM": 12,
    "Q": 4,
    "BQ": 4,
}
_LONGEST = 1024  # rows
_CYCLES = {("hour",): _DAY, ("dayofweek", "weekend"): 7 * _DAY, ("month",): 364 * _DAY}


def season_of(layout: Layout) -> int | None:
    """Return the rows of a season; None if there is none, or nobody can know.

    Examples
    --------
    >>> def every(frequency: str) -> Layout:
    ...     return Layout(kind="frame", columns=("a",), index_kind="datetime", frequency=frequency)
    >>> [season_of(every(each)) for each in ("15min", "h", "D", "W-SUN", "MS", "QE-DEC", "YS")]
    [96, 24, 7, 52, 12, 4, None]
    """
    offset = _offset(layout)
    if offset is None:
        return None
    if _is_fixed(offset):
        rows = _DAY // pd.Timedelta(offset)
        return int(rows) if rows > 1 and rows * pd.Timedelta(offset) == _DAY else None
    if isinstance(offset, pd.offsets.CustomBusinessDay):
        season = days_per_week(offset) // offset.n
        return season if season > 1 else None
    kind = offset.base.freqstr.split("-")[0]
    kind = kind.removesuffix("S").removesuffix("E") if kind not in ("SMS", "SME") else "SM"
    season = _OF_CALENDARS.get(kind, 0) // offset.n
    return season if season > 1 else None


def lookbacks(layout: Layout, horizon: int, most: int) -> list[int]:
    """Return lookbacks that are worth a try, the plainest first.

    Parameters
    ----------
    layout
        Of the table.
    horizon
        Rows H to forecast.
    most
        The longest that the rows allow.

    Returns
    -------
    Twice the season or the horizon, whichever is longer; where a season is a day, also eight and
    fourteen days; without a season, also four and eight horizons.
    """
    season = season_of(layout)
    found = [2 * max(season or 1, horizon)]
    if season is None:
        found += [4 * horizon, 8 * horizon]
    elif _is_fixed(_offset(layout)):
        found += [8 * season, 14 * season]
    return list(dict.fromkeys(max(1, min(each, most, _LONGEST)) for each in found))


def calendars(stamps: pd.Index) -> list[tuple[str, ...]]:
    """Return features of the calendar that are worth a try, each kind alone and then all together.

    They are those of a cycle that holds two rows at least and comes round twice; numbered rows have
    none.

    Examples
    --------
    >>> calendars(pd.date_range("2024-01-01", periods=24 * 15, freq="h"))
    [('hour',), ('dayofweek', 'weekend'), ('hour', 'dayofweek', 'weekend')]
    >>> calendars(pd.date_range("2024-01-01", periods=24, freq="B"))
    [('dayofweek',)]
    """
    if isinstance(stamps, pd.PeriodIndex):
        stamps = stamps.to_timestamp()
    if not isinstance(stamps, pd.DatetimeIndex) or len(stamps) < 2:
        return []
    span = stamps[-1] - stamps[0]
    step = span / (len(stamps) - 1)
    found = [
        names for names, cycle in _CYCLES.items() if 2 * step <= cycle and 2 * cycle <= span + step
    ]
    if not (stamps.day_of_week >= 5).any():  # business days
        found = [tuple(name for name in names if name != "weekend") for names in found]
    together = tuple(name for names in found for name in names)
    return list(dict.fromkeys([*found, together])) if found else []


def _offset(layout: Layout) -> Any:
    """Return the pandas offset between rows; None for numbered ones."""
    if layout.index_kind == "range":
        return None
    if layout.index_kind == "period":
        return pd.PeriodIndex([], freq=str(layout.frequency)).freq
    return offset_of(layout.frequency)


def _is_fixed(offset: Any) -> bool:
    return isinstance(offset, pd.offsets.Tick) and not isinstance(offset, pd.offsets.Day)
