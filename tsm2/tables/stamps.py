"""Stamps: what makes the rows of a table regular, and where its next rows are.

Regular means: `stamps_from(first, T, frequency)` gives the index back, stamp by stamp. The same
function writes the future, so that a forecast continues its history by construction. A calendar
frequency ("D", "B", "MS") steps on the wall clock of the index's time zone, a fixed one ("h",
"15min") in elapsed time. Which frequency an index has is in `tsm2.tables.frequencies`.

Where the clocks skip a time, its row stands at the end of the skip. A stamp there does not say
which time it stands for, so the functions take a `clock`: the time of day of the table's rows, as
`clock_of` returns it. Without it midnight is meant if that was skipped, else the stamp as it is.
"""

from __future__ import annotations

import datetime
import re
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from tsm2.errors import FrameError
from tsm2.tables.business import Frequency
from tsm2.tables.frequencies import (
    guessed_frequency,
    inferred_frequency,
    is_fixed,
    offset_of,
    other_frequencies,
    stated_frequency,
)
from tsm2.tables.wall_clocks import into_zone, usual_clock, wall_clock

__all__ = [
    "INDEX_NAMES",
    "Stamp",
    "as_stamps",
    "check_order",
    "clock_of",
    "completed",
    "first_break",
    "frequency_of",
    "index_kind",
    "offset_of",
    "other_frequencies",
    "stamps_after",
    "stamps_before",
    "stamps_from",
    "steps_between",
    "timezone_name",
    "type_name",
]

Stamp: TypeAlias = pd.Timestamp | pd.Period | int
_BY_POSITION = "To go by position instead, drop the stamps: X.reset_index(drop=True)."
INDEX_NAMES = {
    "datetime": "a DatetimeIndex",
    "period": "a PeriodIndex",
    "range": "an index of whole numbers",
}


def type_name(X: object) -> str:
    """Name what somebody passed, with its library."""
    module = type(X).__module__.partition(".")[0]
    return f"a {type(X).__name__}" if module == "builtins" else f"a {module} {type(X).__name__}"


def as_stamps(index: pd.Index) -> pd.Index:
    """Return dates and times that Arrow keeps as a DatetimeIndex, any other index as it is."""
    dtype = index.dtype
    if isinstance(dtype, pd.ArrowDtype) and dtype.kind == "M":
        return pd.DatetimeIndex(index)
    return index


def index_kind(index: pd.Index) -> Literal["datetime", "period", "range"]:
    """Say what the stamps of an index are; refuse one that has none."""
    if isinstance(index, pd.DatetimeIndex):
        return "datetime"
    if isinstance(index, pd.PeriodIndex):
        return "period"
    if isinstance(index, pd.MultiIndex):
        raise FrameError(
            f"the rows have a MultiIndex of {index.nlevels} levels {list(index.names)}, but one "
            f"level of stamps is needed, or two: series and time. Select a part, X.xs(...), or "
            f"join the levels that name a series: X.index = pd.MultiIndex.from_arrays(...)."
        )
    if types.is_integer_dtype(index.dtype):
        return "range"
    raise FrameError(
        f"the index is {type_name(index)} of dtype {index.dtype}, but time stamps or whole "
        f"numbers are needed. Dates kept as text or objects become stamps with "
        f"X.index = pd.to_datetime(X.index). {_BY_POSITION}"
    )


def check_order(index: pd.Index) -> None:
    """Refuse missing, duplicated and unsorted stamps, naming the first."""
    if index.hasnans:
        rows = np.flatnonzero(np.asarray(index.isna()))
        raise FrameError(
            f"the index has {len(rows)} missing stamps (NaT), first in row {rows[0]}. Drop these "
            f"rows: X[X.index.notna()]."
        )
    if index.has_duplicates:
        repeated = index[index.duplicated()]
        first = ", ".join(str(stamp) for stamp in repeated.unique()[:3])
        raise FrameError(
            f"the index has duplicated stamps: {len(repeated)} row(s) repeat an earlier one, "
            f"first {first}. Keep one row each, X[~X.index.duplicated()], or average them, "
            f"X.groupby(level=0).mean(). Several series below each other need X.pivot(...) first. "
            f"{_BY_POSITION}"
        )
    if not index.is_monotonic_increasing:
        row = int(np.flatnonzero(np.asarray(index[1:] < index[:-1]))[0]) + 1
        raise FrameError(
            f"the index is unsorted: row {row} at {index[row]} follows {index[row - 1]}. "
            f"Use X.sort_index()."
        )


def frequency_of(index: pd.Index, given: Frequency | None) -> Frequency:
    """Return the frequency that continues this index, given or its own; raise if none does."""
    frequency = _own_frequency(index) if given is None else _in_index_terms(given, index)
    broken = first_break(index, frequency)
    if broken is None:
        return frequency
    row, expected = broken
    where = f"row {row} should be at {expected}, but is at {index[row]}"
    own = _contradicting(index) if given is not None else None
    if own is not None:
        raise FrameError(
            f"frequency {given!r} (given, or that of the fit) contradicts the index, whose rows "
            f"are {own!r} apart: {where}. Leave frequency out, or resample the table."
        )
    ways = "Insert the missing rows with X.reindex(...) and fill them"
    if isinstance(index, pd.DatetimeIndex):
        ways = f"Insert missing rows with X.asfreq({frequency!r}) and fill them"
    whole, _ = completed(index, frequency)
    if len(whole) > len(index):
        lacking = len(whole) - len(index)
        ways += f", or pass missing='mask' or 'ffill' ({lacking} row(s) are missing, all else fits)"
    if isinstance(index, pd.DatetimeIndex):
        ways += (
            f"; put stamps beside the grid on it with X.resample({frequency!r}).mean(); pass "
            f"frequency= if this one is wrong"
        )
    raise FrameError(
        f"the index is irregular: with frequency {frequency!r}, {where}. {ways}. {_BY_POSITION}"
    )


def _contradicting(index: pd.Index) -> Frequency | None:
    """Return the frequency that an index has without a gap, None if it has none."""
    try:
        own = _own_frequency(index) if len(index) > 1 else None
        return own if own is not None and first_break(index, own) is None else None
    except FrameError:
        return None


def _in_index_terms(given: Frequency, index: pd.Index) -> Frequency:
    """Return a given frequency as the index would spell it."""
    if isinstance(given, int) == isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        raise FrameError(
            f"frequency {given!r} is needed, but does not suit {INDEX_NAMES[index_kind(index)]}: "
            f"time stamps are an alias such as 'h' apart, whole numbers a whole number. Give the "
            f"table the index that suits, or leave frequency out."
        )
    if isinstance(index, pd.DatetimeIndex):
        return stated_frequency(offset_of(given))
    if isinstance(index, pd.PeriodIndex):
        try:
            return pd.PeriodIndex([], freq=cast("Any", given)).freqstr
        except ValueError as error:
            raise FrameError(
                f"frequency {given!r} is no alias for periods ({error}). This index has "
                f"{index.freqstr!r}."
            ) from error
    return given


def _own_frequency(index: pd.Index) -> Frequency:
    """Return the frequency that the index states, or that its rows follow, perhaps with gaps."""
    if isinstance(index, pd.PeriodIndex):
        return index.freqstr
    if isinstance(index, pd.RangeIndex):
        return abs(index.step)
    if len(index) == 1 and getattr(index, "freq", None) is None:
        raise FrameError(
            f"the table has one row, at {index[0]}, which says nothing about the time to the "
            f"next. Give more rows, or pass frequency=, for example frequency='h'."
        )
    if isinstance(index, pd.DatetimeIndex):
        return inferred_frequency(index) or guessed_frequency(index)
    return max(1, int(pd.Series(np.diff(index.to_numpy())).mode()[0]))


def clock_of(index: pd.Index, frequency: Frequency) -> str | None:
    """Return the time of day of the rows, where a time that the clocks skip needs it.

    Parameters
    ----------
    index
        Stamps of one series or of several, (T,).
    frequency
        Time between rows.

    Returns
    -------
    "HH:MM:SS", with decimals if there are; None for midnight, for fixed frequencies and business
    hours, and for an index without a time zone.

    Examples
    --------
    >>> days = stamps_from(pd.Timestamp("2024-03-30 02:30", tz="Europe/Berlin"), 3, "D")
    >>> clock_of(days, "D"), clock_of(days[1:2], "D")
    ('02:30:00', None)
    """
    if not isinstance(index, pd.DatetimeIndex):
        return None
    offset = offset_of(frequency)
    has_one = not is_fixed(offset) and not isinstance(offset, pd.offsets.BusinessHour)
    return usual_clock(index) if has_one else None


def first_break(index: pd.Index, frequency: Frequency) -> tuple[int, object] | None:
    """Return the first row that is not where the frequency puts it, and its place; None if none."""
    expected = stamps_from(index[0], len(index), frequency, clock_of(index, frequency))
    breaks = np.flatnonzero(np.asarray(index != expected))
    return (int(breaks[0]), expected[breaks[0]]) if breaks.size else None


def stamps_from(first: Stamp, n: int, frequency: Frequency, clock: str | None = None) -> pd.Index:
    """Return n stamps from `first` on: what regular means.

    Parameters
    ----------
    first
        The first stamp.
    n
        Rows.
    frequency
        Time between rows.
    clock
        Time of day of the rows, see `clock_of`; it matters if the clocks skipped it at `first`.

    Raises
    ------
    FrameError
        The stamps leave what pandas can represent, or a whole day of them does not exist.

    Examples
    --------
    >>> moved = pd.Timestamp("2024-09-08 01:00", tz="America/Santiago")  # there was no midnight
    >>> stamps_from(moved, 2, "D").strftime("%d %H:%M").tolist()
    ['08 01:00', '09 00:00']
    """
    return _stamps(first, n, frequency, clock, is_last=False)


def stamps_before(last: Stamp, n: int, frequency: Frequency, clock: str | None = None) -> pd.Index:
    """Return the n stamps that end with `last`; the parameters are those of `stamps_from`.

    Examples
    --------
    >>> stamps_before(pd.Timestamp("2024-03-31"), 3, "ME").strftime("%m-%d").tolist()
    ['01-31', '02-29', '03-31']
    """
    return _stamps(last, n, frequency, clock, is_last=True)


def _stamps(
    stamp: Stamp, n: int, frequency: Frequency, clock: str | None, *, is_last: bool
) -> pd.Index:
    """Return n stamps that start or end with one."""
    offset = offset_of(frequency) if isinstance(stamp, pd.Timestamp) else None
    end = "end" if is_last else "start"
    try:
        if isinstance(stamp, pd.Timestamp):
            anchor: Any = pd.DatetimeIndex([stamp])
            if not is_fixed(offset):
                anchor = wall_clock(anchor, clock)
            ends: dict[str, Any] = {end: anchor[0]}
            # counted backwards, an opening hour is the closing one of the day before in pandas
            spare = int(is_last and isinstance(offset, pd.offsets.BusinessHour))
            index = pd.date_range(**ends, periods=n + spare, freq=offset, unit=stamp.unit)[spare:]
            return index if index.tz is not None else into_zone(index, stamp.tz)
        if isinstance(stamp, pd.Period):
            first = stamp - (n - 1) if is_last else stamp
            return pd.period_range(first, periods=n, freq=cast("str", frequency))
        step = _whole(frequency)
        begin = int(stamp) - (n - 1) * step if is_last else int(stamp)
        steps = range(begin, begin + n * step, step)
        if max(abs(steps[0]), abs(steps[-1])) >= 2**63:  # RangeIndex lets some of them pass
            raise OverflowError("beyond 64 bits")
        return pd.RangeIndex(steps)
    except FrameError:  # a day that does not exist
        raise
    except (ValueError, OverflowError) as error:  # also pandas' OutOfBoundsDatetime
        way = "up to" if is_last else "from"
        raise FrameError(
            f"{n} rows {way} {stamp}, {frequency!r} apart, leave what pandas can represent "
            f"({error}). Time stamps reach further in a coarser unit: X.index.as_unit('s'). "
            f"{_BY_POSITION}"
        ) from error


def completed(index: pd.Index, frequency: Frequency | None) -> tuple[pd.Index, NDArray[np.int64]]:
    """Return a sorted index with the stamps that it lacks, and the place of its own among them.

    An index with a stamp beside the grid, or one that would grow a hundredfold, comes back as it
    is: `frequency_of` says what is wrong with it.
    """
    as_it_is = index, np.arange(len(index))
    given = _own_frequency(index) if frequency is None else _in_index_terms(frequency, index)
    try:
        rows = int(steps_between(index[:1], index[-1:], given)[0]) + 1
        if not 0 < rows <= 100 * len(index):  # below 1: further apart than 64 bits can say
            return as_it_is
        whole = stamps_from(index[0], rows, given, clock_of(index, given)).rename(index.name)
    except (ValueError, OverflowError, FrameError):
        return as_it_is
    places = whole.get_indexer(index)
    return as_it_is if (places < 0).any() else (whole, places)


def stamps_after(
    first: pd.Index, steps: NDArray[np.int64], frequency: Frequency, clock: str | None = None
) -> pd.Index:
    """Return the stamps that are `steps` rows behind those of `first`, one by one.

    This is `stamps_from` for many series at once: fixed steps and days are added up; calendar
    frequencies are looked up in one calendar for all series that share it.

    Parameters
    ----------
    first
        First stamps of series, (N,).
    steps
        Rows behind them, (N,).
    frequency
        Time between rows.
    clock
        Time of day of the rows, see `clock_of`.

    Raises
    ------
    FrameError
        The stamps leave the range that pandas can represent.

    Examples
    --------
    >>> first = pd.DatetimeIndex(["2024-01-31", "2024-01-31", "2023-11-30"])
    >>> stamps_after(first, np.array([0, 1, 1]), "ME").strftime("%m-%d").tolist()
    ['01-31', '02-29', '12-31']
    """
    if isinstance(first, pd.PeriodIndex):
        freq: Any = first.freq
        ordinals = _added(first.asi8, steps, freq.n, frequency)
        return cast("Any", pd.PeriodIndex).from_ordinals(ordinals, freq=freq)  # type: ignore[no-any-return]
    if not isinstance(first, pd.DatetimeIndex):
        return pd.Index(_added(first.to_numpy(), steps, _whole(frequency), frequency))
    offset = offset_of(frequency)
    if is_fixed(offset):
        utc = first if first.tz is None else first.tz_convert(None)
        stamps = _added(utc.asi8, steps, _length_of(offset, first.unit), frequency)
        later = pd.DatetimeIndex(stamps.view(f"datetime64[{first.unit}]"))
        return later if first.tz is None else later.tz_localize("UTC").tz_convert(first.tz)
    wall = wall_clock(first, clock)
    if isinstance(offset, pd.offsets.Day):
        stamps = _added(wall.asi8, steps, _length_of(offset, first.unit), frequency)
        later = pd.DatetimeIndex(stamps.view(f"datetime64[{first.unit}]"))
    else:
        later = _calendar_stamps(wall, steps, offset)
    return into_zone(later, first.tz)


def steps_between(
    first: pd.Index, index: pd.Index, frequency: Frequency, clock: str | None = None
) -> NDArray[np.int64]:
    """Return how many rows behind those of `first` the stamps of `index` are, one by one.

    The answer for a stamp beside the grid is that of a stamp near it: `stamps_after` tells.

    Parameters
    ----------
    first
        First stamps of series, (N,).
    index
        Stamps of the same series, (N,), none before.
    frequency
        Time between rows.
    clock
        Time of day of the rows, see `clock_of`; None takes that of most of these stamps.

    Examples
    --------
    >>> first = pd.DatetimeIndex(["2024-01-31", "2023-11-30"])
    >>> steps_between(first, pd.DatetimeIndex(["2024-01-31", "2024-02-29"]), "ME").tolist()
    [0, 3]
    """
    if not len(first):
        return np.zeros(0, np.int64)
    if isinstance(first, pd.PeriodIndex) and isinstance(index, pd.PeriodIndex):
        freq: Any = first.freq
        apart: NDArray[np.int64] = index.asi8 - first.asi8
        return apart // int(freq.n)
    if not isinstance(first, pd.DatetimeIndex) or not isinstance(index, pd.DatetimeIndex):
        apart = index.to_numpy(np.int64) - first.to_numpy(np.int64)
        return apart // _whole(frequency)
    offset = offset_of(frequency)
    index = index.as_unit(first.unit)
    if is_fixed(offset):
        apart = index.asi8 - first.asi8
        return np.rint(apart / _length_of(offset, first.unit)).astype(np.int64)
    clock = clock_of(first.append(index), frequency) if clock is None else clock
    start, end = wall_clock(first, clock), wall_clock(index, clock)
    if isinstance(offset, pd.offsets.Day):
        apart = end.asi8 - start.asi8
        return np.rint(apart / _length_of(offset, first.unit)).astype(np.int64)
    calendar = pd.date_range(start.min(), end.max(), freq=offset.base, unit=first.unit)
    last, before = (calendar.searchsorted(each, side="right") for each in (end, start))
    apart = np.asarray(last - before, dtype=np.int64)
    return apart // int(offset.n)


def _whole(frequency: Frequency) -> int:
    """Return the step of numbered rows."""
    return int(cast("int", frequency))


def _added(
    first: NDArray[Any], steps: NDArray[np.int64], step: int, frequency: Frequency
) -> NDArray[np.int64]:
    """Return first + steps * step; refuse what 64 bits do not hold."""
    furthest = int(steps.max(initial=0)) * step
    if max(int(first.max(initial=0)) + furthest, -int(first.min(initial=0))) >= 2**63:
        raise FrameError(
            f"{steps.max()} rows, {frequency!r} apart, behind {first.max()} leave what 64 bits can "
            f"represent. Time stamps reach further in a coarser unit: .as_unit('s')."
        )
    added: NDArray[np.int64] = first.astype(np.int64) + steps * step
    return added


def _length_of(offset: Any, unit: str) -> int:
    """Return the length of a fixed offset, or of days, in the unit of an index."""
    nanoseconds = (
        offset.n * 86_400 * 10**9 if isinstance(offset, pd.offsets.Day) else int(offset.nanos)
    )
    per_unit = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    if nanoseconds % per_unit:
        raise FrameError(
            f"frequency {offset.freqstr!r} is finer than the stamps, which are kept in {unit!r}. "
            f"Use a finer unit, .as_unit('ns'), or another frequency."
        )
    return nanoseconds // per_unit


def _calendar_stamps(
    wall: pd.DatetimeIndex, steps: NDArray[np.int64], offset: Any
) -> pd.DatetimeIndex:
    """Look stamps up in calendars: one for all series that share days and time of day."""
    result = np.empty(len(wall), dtype=f"datetime64[{wall.unit}]")
    waiting = np.arange(len(wall))
    while len(waiting):
        left = wall[waiting]
        earliest = left.min()
        until_last = pd.date_range(earliest, left.max(), freq=offset.base, unit=wall.unit)
        places = until_last.get_indexer(left)
        places[left == earliest] = 0  # also when it is not on the calendar: then the next one is
        here = places >= 0
        wanted = places[here] + offset.n * steps[waiting[here]]
        calendar = stamps_from(earliest, int(wanted.max()) + 1, offset.base)
        result[waiting[here]] = calendar.to_numpy()[wanted]
        waiting = waiting[~here]
    return pd.DatetimeIndex(result)


def timezone_name(index: pd.DatetimeIndex) -> str | None:
    """Return a name of the time zone that pandas reads back on any machine."""
    zone = index.tz
    if zone is None:
        return None
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)  # zoneinfo, pytz
    if name is not None:
        return str(name)
    elapsed = zone.utcoffset(None)
    if elapsed is not None:
        return str(datetime.timezone(elapsed))
    found = re.search(r"zoneinfo/(?:posix/|right/)?([\w+/-]+)", repr(zone))  # dateutil
    if found is None:
        raise FrameError(
            f"the time zone {zone!r} has no name that a saved model could keep. Use a named one: "
            f"X.tz_convert('Europe/Berlin') or X.tz_convert('UTC')."
        )
    return found[1]
