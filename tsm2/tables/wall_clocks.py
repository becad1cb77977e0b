"""Wall clocks: the local time of stamps, also where the clocks skip some of it.

A table of days in America/Santiago has no row at 2024-09-08 00:00: the clocks went from 23:59:59 to
01:00, and that is where pandas puts the row. Read as it stands, its days would begin at 01:00 from
there on. So a stamp right behind a skip is read as the skipped time that it stands for: the time
of day of the table's other rows (its `clock`) if that was skipped, else midnight if that was, else
as it stands. A time that comes twice in autumn is the first one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.errors import FrameError

__all__ = ["into_zone", "ticks_per_day", "usual_clock", "wall_clock"]


def ticks_per_day(index: pd.DatetimeIndex) -> int:
    """Return the length of a day in the unit of an index."""
    return 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[index.unit]


def wall_clock(index: pd.DatetimeIndex, clock: str | None = None) -> pd.DatetimeIndex:
    """Return stamps as the wall clock was meant to show them, without their time zone.

    Parameters
    ----------
    index
        Stamps, (N,), in any order.
    clock
        Time of day of the rows, see `usual_clock`; None if unknown.

    Examples
    --------
    >>> days = pd.DatetimeIndex(["2024-09-08 01:00", "2024-09-09"], tz="America/Santiago")
    >>> wall_clock(days).strftime("%d %H:%M").tolist()
    ['08 00:00', '09 00:00']
    >>> wall_clock(days, "00:30:00").strftime("%d %H:%M").tolist()
    ['08 00:30', '09 00:00']
    """
    if index.tz is None:
        return index
    wall = index.tz_localize(None)
    skipped = _skipped_before(index, wall)
    rows = np.flatnonzero(skipped)
    if not rows.size:
        return wall
    stamps: NDArray[np.int64] = wall.asi8.copy()
    stands, skip = stamps[rows], skipped[rows]
    for time in ("00:00:00", clock):  # the clock has the last word
        if time is not None:
            at = pd.Timedelta(time) // pd.Timedelta(1, unit=index.unit)
            since = (stands - at) % ticks_per_day(index)  # it was that time, also if skipped
            stamps[rows] = np.where(since <= skip, stands - since, stamps[rows])
    return pd.DatetimeIndex(stamps.view(f"datetime64[{index.unit}]"))


def usual_clock(index: pd.DatetimeIndex) -> str | None:
    """Return the time of day of most stamps that are not right behind a skip, as "HH:MM:SS".

    None stands for midnight, for no time zone, and if there is no such stamp.
    """
    if index.tz is None:
        return None
    wall = index.tz_localize(None)
    times = wall.asi8[_skipped_before(index, wall) == 0] % ticks_per_day(index)
    if not times.size:
        return None
    seen, counts = np.unique(times, return_counts=True)
    usual = pd.Timedelta(int(seen[np.argmax(counts)]), unit=index.unit)
    return str(usual).removeprefix("0 days ") if usual else None


def into_zone(index: pd.DatetimeIndex, zone: Any) -> pd.DatetimeIndex:
    """Put times of the wall clock into a time zone; a skipped one moves to the end of the skip.

    Raises
    ------
    FrameError
        A whole day was skipped, where the date line moved: its row would be that of the next.
    """
    if zone is None:
        return index
    first_of_two = np.ones(len(index), dtype=bool)  # an hour that comes twice in autumn
    zoned = index.tz_localize(zone, ambiguous=first_of_two, nonexistent="shift_forward")
    moved = zoned.tz_localize(None).asi8 - index.asi8 >= ticks_per_day(index)
    if moved.any():
        raise FrameError(
            f"the day {index[moved][0]:%Y-%m-%d} does not exist in {zone}, where the date changed. "
            f"Drop the time zone, X.tz_localize(None), or use UTC, X.tz_convert('UTC')."
        )
    return zoned


def _skipped_before(index: pd.DatetimeIndex, wall: pd.DatetimeIndex) -> NDArray[np.int64]:
    """Return how much time the clocks skipped right before each stamp, in its unit, (N,)."""
    ticks = np.maximum(index.asi8, np.iinfo(np.int64).min + 2) - 1
    before = pd.DatetimeIndex(ticks.view(f"datetime64[{index.unit}]"), tz="UTC")
    local = before.tz_convert(index.tz).tz_localize(None)
    skipped: NDArray[np.int64] = (wall.asi8 - local.asi8 - 1).clip(min=0)
    return skipped
