"""Frequencies: which pandas alias the stamps of an index follow, also where rows are lacking.

What an index states holds, an alias or a business calendar (`tsm2.tables.business`); else what
pandas infers from all rows. If it infers nothing, because rows are lacking or a midnight does not
exist, the coarsest grid is taken on which all rows lie, in this order:

    years, quarters and months: their starts, business starts, ends, business ends
    half months (SMS-15, SME-15), a weekday of the month (WOM-3FRI), weeks by weekday
    business days, if a weekend lies between the rows; days
    if rows differ in their time of day: business hours (Mon-Fri, 9 to 17), a fixed length of time

Several units at once are one step if all rows lie on them ("2MS", "15min"). From weeks down the
rows must support the grid: that step is the commonest, or, for days and weeks, fewer than half of
the grid's rows are lacking. Otherwise a single stamp beside a weekly grid would make a daily one.
All rows are looked at, always: the answer never depends on where in the table the gaps are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset

from tsm2.errors import FrameError
from tsm2.tables.business import Frequency, alias_of, plain_frequency
from tsm2.tables.wall_clocks import ticks_per_day, usual_clock, wall_clock

__all__ = [
    "guessed_frequency",
    "inferred_frequency",
    "is_fixed",
    "offset_of",
    "other_frequencies",
    "stated_frequency",
]

_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_WEEKDAYS = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]
_OPENING_HOURS = (9, 17)  # of pandas' "bh"
_NOT_PLAIN = (  # pandas infers a plain alias from some of their stamps, which later ones leave
    pd.offsets.CustomBusinessDay,
    pd.offsets.CustomBusinessHour,
    pd.offsets.CustomBusinessMonthBegin,
    pd.offsets.CustomBusinessMonthEnd,
    pd.offsets.BusinessHour,
)


class _Grid(NamedTuple):
    """A grid on which all rows lie."""

    frequency: str | None
    """Its alias; None if pandas has none."""
    rows: int
    """Places on it from the first row to the last."""
    refusal: str = ""
    """Why rows on a grid without an alias cannot be continued, and what to do."""


def offset_of(frequency: Frequency) -> Any:
    """Return the pandas offset of a frequency that goes forward."""
    try:
        offset: Any = to_offset(cast("Any", frequency))
    except ValueError as error:
        raise FrameError(
            f"frequency {frequency!r} is no pandas alias ({error}). Examples: 'h', '15min', 'D', "
            f"'B', 'W-SUN', 'MS', 'ME', 'QE'."
        ) from error
    if offset.n < 1:
        raise FrameError(f"frequency {frequency!r} does not go forward; use a positive one.")
    return offset


def is_fixed(offset: Any) -> bool:
    """Return whether an offset is a length of time; all others step on the wall clock."""
    return isinstance(offset, pd.offsets.Tick) and not isinstance(offset, pd.offsets.Day)


def inferred_frequency(index: pd.DatetimeIndex) -> Frequency | None:
    """Return the frequency on whose grid all rows lie, see above; None if there is none.

    Parameters
    ----------
    index
        Stamps, (T,), in order. A frequency that it states holds.

    Raises
    ------
    FrameError
        The rows follow a rule that no alias expresses, such as the 15th of each month or hours
        of opening; or the index states one that is neither an alias nor a business calendar.

    Examples
    --------
    >>> days = pd.DatetimeIndex(["2024-12-23", "2024-12-24", "2024-12-26", "2024-12-30"])
    >>> inferred_frequency(days)
    'B'
    >>> inferred_frequency(pd.DatetimeIndex(["2024-01-01", "2024-02-01"]))
    'MS'
    """
    if index.freq is not None:
        return stated_frequency(index.freq, index[0])
    regular = _pandas_infers(index)
    if regular is not None:
        return regular
    for grid in _grids(index):
        if grid.frequency is None:
            raise FrameError(grid.refusal)
        return grid.frequency
    return None


def other_frequencies(index: pd.DatetimeIndex, frequency: str) -> list[str]:
    """Return the aliases that explain all rows as well as `frequency` and continue otherwise.

    As well means that no more rows are lacking. Two rows, or few, often leave several.

    Examples
    --------
    >>> other_frequencies(pd.DatetimeIndex(["2024-01-01", "2024-02-01"]), "MS")
    ['BMS', '31D']
    >>> week = pd.date_range("2024-01-08", "2024-01-12")
    >>> other_frequencies(week, "D")
    ['B']
    """

    def ahead(alias: str) -> list[pd.Timestamp]:
        start = index[-1:] if is_fixed(offset_of(alias)) else wall[-1:]
        stamps = pd.date_range(start[0], periods=13, freq=alias)
        return list(stamps if stamps.tz is None else stamps.tz_localize(None))

    wall = wall_clock(index, usual_clock(index))
    grids = {grid.frequency: grid.rows for grid in _grids(index) if grid.frequency is not None}
    rows = grids.pop(frequency, len(index))
    taken = ahead(frequency)
    return [alias for alias, n in grids.items() if n <= rows and ahead(alias) != taken]


def guessed_frequency(index: pd.DatetimeIndex) -> str:
    """Return a frequency that some rows follow, to say which row is the first one beside it."""
    middle = len(index) // 2
    for piece in (index[:8], index[middle : middle + 8], index[-8:]):
        alias = _pandas_infers(piece)
        if alias is not None:
            return alias
    day = ticks_per_day(index)
    for stamps in (wall_clock(index).asi8, index.asi8):
        step = int(pd.Series(np.diff(stamps)).mode()[0])
        if step > 0 and step % day == 0:  # also when the clocks change in between
            return f"{_times(step // day)}D"
    return _of_length(step, index)


def stated_frequency(offset: Any, first: pd.Timestamp | None = None) -> Frequency:
    """Return a frequency that is stated as an offset of pandas, as tsm2 keeps it.

    Parameters
    ----------
    offset
        What an index states, or what was given.
    first
        The first stamp: what an offset without an alias makes of it has one perhaps.

    Raises
    ------
    FrameError
        It is neither an alias nor a business calendar.

    Examples
    --------
    >>> stated_frequency(pd.DateOffset(days=1), pd.Timestamp("2024-01-05"))
    'D'
    """
    found = plain_frequency(offset)
    if found is None and first is not None and not isinstance(offset, _NOT_PLAIN):
        stamps = pd.date_range(first.tz_localize(None), periods=12, freq=offset)
        found = _pandas_infers(pd.DatetimeIndex(stamps.to_numpy()))
    if found is None:
        raise FrameError(
            f"the frequency {offset!r} is one which no alias expresses, and no business calendar "
            f"of pandas without offset=, normalize= and hours over midnight. Pass an alias that "
            f"fits as frequency=, or pd.offsets.CustomBusinessDay(holidays=...) for business days. "
            f"To go by position instead, drop the stamps: X.reset_index(drop=True)."
        )
    return found


def _pandas_infers(index: pd.DatetimeIndex) -> str | None:
    """Return what pandas infers from three rows or more without a gap."""
    if len(index) < 3:
        return None
    try:  # pandas 3.1 warns from infer_freq
        offset = pd.DatetimeIndex(index, freq="infer").freq
    except ValueError:  # pandas inferred what it then found not to fit
        return None
    hasty = (pd.offsets.BusinessHour, pd.offsets.WeekOfMonth)  # also from rows that do not fit
    return None if offset is None or isinstance(offset, hasty) else alias_of(offset)


# --- grids, from coarse to fine -------------------------------------------------------------------


def _grids(index: pd.DatetimeIndex) -> Iterator[_Grid]:
    """Yield the grids on which all rows lie, coarse ones first."""
    if len(index) < 2:
        return
    wall = wall_clock(index, usual_clock(index))
    days = wall.asi8 // ticks_per_day(wall)
    if len(np.unique(wall.asi8 - days * ticks_per_day(wall))) == 1:
        yield from _months(wall, days)
        yield from _days(wall, days)
        return
    if days[-1] > days[0]:
        yield from _business_hours(wall, days)
    step = _step(index.asi8)
    if step is not None:
        alias, rows = _of_length(step, index), _rows(index.asi8, step)
        refusal = _closed(wall, days, step, alias)
        yield _Grid(None, rows, refusal) if refusal else _Grid(alias, rows)


def _months(wall: pd.DatetimeIndex, days: NDArray[np.int64]) -> Iterator[_Grid]:
    """Yield grids of years, quarters, months and parts of a month."""
    months = np.asarray(wall.year * 12 + wall.month - 1, dtype=np.int64)
    day, length = np.asarray(wall.day), np.asarray(wall.days_in_month)
    begins = days - day + 1
    date, begin, next_begin = (
        each.astype("datetime64[D]") for each in (days, begins, begins + length)
    )
    is_last = day == length
    kinds = {
        "S": day == 1,
        "BS": date == np.busday_offset(begin, 0, roll="forward"),
        "E": is_last,
        "BE": date == np.busday_offset(next_begin, -1, roll="forward"),
    }
    for kind, holds in kinds.items():
        if holds.all():
            step = int(np.gcd.reduce(np.diff(months)))
            yield _Grid(_of_months(step, kind, int(months[0]) % 12), _rows(months, step))
    for alias, first, second in (("SMS-15", day == 1, day == 15), ("SME-15", day == 15, is_last)):
        halves = 2 * months + second
        if (first | second).all() and first.any() and second.any() and len(wall) > 2:
            yield _Grid(alias, _rows(halves, 1))
    weekday, week = np.asarray(wall.day_of_week), (day - 1) // 7
    is_alone = len(np.unique(months)) == len(months)
    name, on, nameless = _WEEKDAYS[weekday[0]], day.max(), ""
    if len(wall) > 2 and is_alone and not np.ptp(weekday):
        if week[0] < 4 and not np.ptp(week):
            yield _Grid(f"WOM-{week[0] + 1}{name}", _rows(months, 1))
        elif (day > length - 7).all():
            nameless = f"on the last {name}"
    if is_alone and on > 1 and (day == np.minimum(on, length)).all() and not is_last.all():
        nameless = f"on day {on}"
    if nameless:
        refusal = (
            f"the rows are months apart, {nameless} of the month, for which pandas has no alias. "
            f"Make them spans of time, X.index = X.index.to_period('M'), or put them on the "
            f"starts of the months, X.index = X.index.to_period('M').to_timestamp(). If they are "
            f"days apart, pass frequency=, for example frequency='D'."
        )
        yield _Grid(None, _rows(months, 1), refusal)


def _days(wall: pd.DatetimeIndex, days: NDArray[np.int64]) -> Iterator[_Grid]:
    """Yield grids of weeks, business days and days."""
    weekday = np.asarray(wall.day_of_week)
    weeks = (days - weekday[0]) // 7
    step = _step(weeks, lacking=0.5) if not np.ptp(weekday) else None
    if step is not None:
        yield _Grid(f"{_times(step)}W-{_WEEKDAYS[weekday[0]]}", _rows(weeks, step))
    grids = []
    step = _step(days, lacking=0.5)
    if step is not None and step % 7:
        grids.append(_Grid(f"{_times(step)}D", _rows(days, step)))
    if (weekday < 5).all():
        epoch = np.datetime64("1970-01-01", "D")
        business = np.busday_count(epoch, days.astype("datetime64[D]")).astype(np.int64)
        step = _step(business, lacking=0.5)
        if step == 1 or (step is not None and len(days) > 2):
            one = _Grid(f"{_times(step)}B", _rows(business, step))
            weekend_between = days[-1] - days[0] > business[-1] - business[0]
            grids.insert(0 if weekend_between else 1, one)
    yield from grids


def _business_hours(wall: pd.DatetimeIndex, days: NDArray[np.int64]) -> Iterator[_Grid]:
    """Yield pandas' business hours, whose rows stand at full hours from 9 to 16."""
    opens, closes = _OPENING_HOURS
    hours, rest = np.divmod(wall.asi8, ticks_per_day(wall) // 24)
    hour = hours % 24
    is_open = (np.asarray(wall.day_of_week) < 5) & (hour >= opens) & (hour < closes)
    if is_open.all() and not rest.any():
        epoch = np.datetime64("1970-01-01", "D")
        business = np.busday_count(epoch, days.astype("datetime64[D]")).astype(np.int64)
        places = business * (closes - opens) + hour - opens
        if _step(places) == 1:
            yield _Grid("bh", _rows(places, 1))


def _closed(wall: pd.DatetimeIndex, days: NDArray[np.int64], step: int, alias: str) -> str:
    """Say which hours have no row on any of three days or more, if four hours or more.

    A fixed step would forecast these hours, and pandas has no alias that leaves them out.
    """
    per_day, rest = divmod(ticks_per_day(wall), step)
    if rest or per_day < 4 or len(np.unique(days)) < 3:
        return ""
    seen = np.unique(wall.asi8 % ticks_per_day(wall) // step)
    gaps = np.diff(np.append(seen, seen[0] + per_day))
    longest = int(np.argmax(gaps))
    if gaps[longest] <= max(3, per_day // 6):
        return ""
    last, first = seen[longest], seen[(longest + 1) % len(seen)]
    at = [pd.Timestamp(0) + int(each) * pd.Timedelta(days=1) / per_day for each in (last, first)]
    return (
        f"the index is irregular: its rows are {alias!r} apart, but on no day is there one after "
        f"{at[0]:%H:%M} and before {at[1]:%H:%M}. If time goes on meanwhile, pass "
        f"frequency={alias!r} and missing='mask' or 'ffill', and these hours are missing and "
        f"forecast like any other. If it stands still, as for opening hours, pandas has no alias "
        f"for it: go by position, X.reset_index(drop=True)."
    )


def _step(places: NDArray[np.int64], lacking: float = 0.0) -> int | None:
    """Return the step of the grid on which places lie, if the rows are enough to believe in it.

    They are if most are one step apart, or if a smaller share than `lacking` is not there.
    """
    apart = np.diff(places)
    step = int(np.gcd.reduce(apart))
    if step < 1:
        return None
    is_common = int(pd.Series(apart).mode()[0]) == step
    return step if is_common or len(places) > (1 - lacking) * _rows(places, step) else None


def _rows(places: NDArray[np.int64], step: int) -> int:
    return int(places[-1] - places[0]) // step + 1


def _of_months(step: int, kind: str, month: int) -> str:
    """Return the alias of steps of some months from a month on, 0 to 11, as pandas infers it."""
    business, edge = kind[:-1], kind[-1]
    if step % 12 == 0:
        return f"{_times(step // 12)}{business}Y{edge}-{_MONTHS[month]}"
    if step % 3 == 0:
        anchor = month % 3 + (9 if edge == "E" else 0)
        return f"{_times(step // 3)}{business}Q{edge}-{_MONTHS[anchor]}"
    return f"{_times(step)}{business}M{edge}"


def _times(step: int) -> str:
    return "" if step == 1 else str(step)


def _of_length(ticks: int, index: pd.DatetimeIndex) -> str:
    """Return the alias of a length of time in the unit of an index."""
    days, rest = divmod(ticks, ticks_per_day(index))
    if not rest:
        return f"{24 * days}h"  # "D" is a day of the wall clock
    try:
        alias = alias_of(to_offset(pd.Timedelta(ticks, unit=index.unit)))
    except (OverflowError, ValueError) as error:
        raise FrameError(
            f"the stamps {index[0]} and {index[1]} are too far apart ({error}). Correct them, or "
            f"pass frequency=."
        ) from error
    return cast("str", alias)
