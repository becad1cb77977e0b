"""Stamps: what makes the rows of a table regular, and where its next rows are.

Regular means: `stamps_from(first, T, frequency)` gives the index back, stamp by stamp. The same
function writes the future, so that a forecast continues its history by construction. A calendar
frequency ("D", "B", "MS") steps on the wall clock of the index's time zone, a fixed one ("h",
"15min") in elapsed time.
"""

from __future__ import annotations

import datetime
import re
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types
from pandas.tseries.frequencies import to_offset

from tsm2.errors import FrameError

__all__ = [
    "INDEX_NAMES",
    "Stamp",
    "check_order",
    "completed",
    "first_break",
    "frequency_of",
    "index_kind",
    "into_zone",
    "offset_of",
    "on_wall_clock",
    "stamps_after",
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


def frequency_of(index: pd.Index, given: str | int | None) -> str | int:
    """Return the frequency that continues this index, given or its own; raise if none does."""
    frequency = _own_frequency(index) if given is None else _in_index_terms(given, index)
    broken = first_break(index, frequency)
    if broken is None:
        return frequency
    row, expected = broken
    where = f"row {row} should be at {expected}, but is at {index[row]}"
    if given is not None and len(index) > 1:
        own = _followed_frequency(index)
        if first_break(index, own) is None:
            raise FrameError(
                f"frequency {given!r} (given, or that of the fit) contradicts the index, whose "
                f"rows are {own!r} apart: {where}. Leave frequency out, or resample the table."
            )
    ways = "Insert the missing rows with X.reindex(...) and fill them."
    if isinstance(index, pd.DatetimeIndex):
        ways = (
            f"Insert missing rows with X.asfreq({frequency!r}) and fill them; put stamps beside "
            f"the grid on it with X.resample({frequency!r}).mean(); pass frequency= if this one "
            f"is wrong."
        )
    raise FrameError(
        f"the index is irregular: with frequency {frequency!r}, {where}. {ways} {_BY_POSITION}"
    )


def _in_index_terms(given: str | int, index: pd.Index) -> str | int:
    """Return a given frequency as the index would spell it."""
    if isinstance(given, str) != isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        raise FrameError(
            f"frequency {given!r} is needed, but does not suit {INDEX_NAMES[index_kind(index)]}: "
            f"time stamps are an alias such as 'h' apart, whole numbers a whole number. Give the "
            f"table the index that suits, or leave frequency out."
        )
    if isinstance(index, pd.DatetimeIndex):
        return cast("str", offset_of(given).freqstr)
    if isinstance(index, pd.PeriodIndex):
        try:
            return pd.PeriodIndex([], freq=cast("str", given)).freqstr
        except ValueError as error:
            raise FrameError(
                f"frequency {given!r} is no alias for periods ({error}). This index has "
                f"{index.freqstr!r}."
            ) from error
    return given


def _own_frequency(index: pd.Index) -> str | int:
    """Return the frequency that the index states, or that its rows follow."""
    if isinstance(index, pd.DatetimeIndex) and index.freq is not None:
        return _alias(index.freq)
    if isinstance(index, pd.RangeIndex):
        return abs(index.step)
    if len(index) == 1 and not isinstance(index, pd.PeriodIndex):
        raise FrameError(
            f"the table has one row, at {index[0]}, which says nothing about the time to the "
            f"next. Give more rows, or pass frequency=, for example frequency='h'."
        )
    return _followed_frequency(index)


def _followed_frequency(index: pd.Index) -> str | int:
    """Return the frequency of all rows, else of most."""
    if isinstance(index, pd.PeriodIndex):
        return index.freqstr
    if not isinstance(index, pd.DatetimeIndex):
        return max(1, int(pd.Series(np.diff(index.to_numpy())).mode()[0]))
    middle = len(index) // 2
    for piece in (index, index[:8], index[middle : middle + 8], index[-8:]):
        offset = _inferred(piece)
        if offset is not None:
            return _alias(offset)
    return _commonest_step(index)


def _inferred(index: pd.DatetimeIndex) -> Any:
    try:  # pandas 3.1 warns from infer_freq
        return pd.DatetimeIndex(index, freq="infer").freq
    except ValueError:  # pandas inferred what it then found not to fit, business hours for one
        return None


def _commonest_step(index: pd.DatetimeIndex) -> str:
    try:
        wall = index.tz_localize(None)
        step = pd.Series(wall[1:] - wall[:-1]).mode()[0]
        if step > pd.Timedelta(0) and step % pd.Timedelta(days=1) == pd.Timedelta(0):
            offset = to_offset(f"{step.days}D")  # also when the clocks change in between
        else:
            offset = to_offset(pd.Series(index[1:] - index[:-1]).mode()[0])
    except (OverflowError, ValueError) as error:
        raise FrameError(
            f"the stamps {index[0]} and {index[1]} are too far apart ({error}). Correct them, or "
            f"pass frequency=."
        ) from error
    return _alias(offset)


def _alias(offset: Any) -> str:
    """Return the alias of an offset, if the alias says all of it."""
    try:
        if to_offset(offset.freqstr) == offset:
            return cast("str", offset.freqstr)
    except ValueError:
        pass
    raise FrameError(
        f"the index has frequency {offset!r}, which no alias expresses (holidays, a DateOffset): a "
        f"saved model could not keep it. Pass an alias that fits as frequency=. {_BY_POSITION}"
    )


def offset_of(frequency: str | int) -> Any:
    """Return the pandas offset of an alias that goes forward."""
    try:
        offset = to_offset(cast("str", frequency))
    except ValueError as error:
        raise FrameError(
            f"frequency {frequency!r} is no pandas alias ({error}). Examples: 'h', '15min', 'D', "
            f"'B', 'W-SUN', 'MS', 'ME', 'QE'."
        ) from error
    if offset.n < 1:
        raise FrameError(f"frequency {frequency!r} does not go forward; use a positive one.")
    return offset


def first_break(index: pd.Index, frequency: str | int) -> tuple[int, object] | None:
    """Return the first row that is not where the frequency puts it, and its place; None if none."""
    expected = stamps_from(index[0], len(index), frequency)
    breaks = np.flatnonzero(np.asarray(index != expected))
    return (int(breaks[0]), expected[breaks[0]]) if breaks.size else None


def stamps_from(first: Stamp, n: int, frequency: str | int) -> pd.Index:
    """Return n stamps from `first` on: what regular means."""
    offset = offset_of(frequency) if isinstance(first, pd.Timestamp) else None
    try:
        if isinstance(first, pd.Timestamp):
            wall = on_wall_clock(first, offset)
            index = pd.date_range(wall, periods=n, freq=offset, unit=first.unit)
            return into_zone(index, first)
        if isinstance(first, pd.Period):
            return pd.period_range(first, periods=n, freq=cast("str", frequency))
        steps = range(int(first), int(first) + n * int(frequency), int(frequency))
        if max(abs(steps[0]), abs(steps[-1])) >= 2**63:  # RangeIndex lets some of them pass
            raise OverflowError("beyond 64 bits")
        return pd.RangeIndex(steps)
    except (ValueError, OverflowError) as error:  # also pandas' OutOfBoundsDatetime
        raise FrameError(
            f"{n} rows from {first} on, {frequency!r} apart, leave what pandas can represent "
            f"({error}). Time stamps reach further in a coarser unit: X.index.as_unit('s'). "
            f"{_BY_POSITION}"
        ) from error


def completed(index: pd.Index, frequency: str | int | None) -> tuple[pd.Index, NDArray[np.int64]]:
    """Return a sorted index with the stamps that it lacks, and the place of its own among them.

    An index with a stamp beside the grid, or one that would grow a hundredfold, comes back as it
    is: `frequency_of` says what is wrong with it.
    """
    as_it_is = index, np.arange(len(index))
    given = _own_frequency(index) if frequency is None else _in_index_terms(frequency, index)
    try:
        if isinstance(index, pd.DatetimeIndex):
            offset = offset_of(given)
            first, last = (on_wall_clock(end, offset) for end in (index[0], index[-1]))
            rows = len(pd.date_range(first, last, freq=offset))
        elif isinstance(index, pd.PeriodIndex):
            rows = index[-1].ordinal - index[0].ordinal + 1
        else:
            rows = int(index[-1] - index[0]) // int(given) + 1
        if rows > 100 * len(index):
            return as_it_is
        whole = stamps_from(index[0], rows, given).rename(index.name)
    except (ValueError, OverflowError, FrameError):
        return as_it_is
    places = whole.get_indexer(index)
    return as_it_is if (places < 0).any() else (whole, places)


def stamps_after(first: pd.Index, steps: NDArray[np.int64], frequency: str | int) -> pd.Index:
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
        return pd.Index(_added(first.to_numpy(), steps, int(frequency), frequency))
    offset = offset_of(frequency)
    is_fixed = isinstance(offset, pd.offsets.Tick) and not isinstance(offset, pd.offsets.Day)
    wall = first if first.tz is None else first.tz_localize(None)
    if is_fixed and first.tz is not None:
        wall = first.tz_convert(None)
    if is_fixed or isinstance(offset, pd.offsets.Day):
        step = _length_of(offset, first.unit)
        stamps = _added(wall.asi8, steps, step, frequency).view(f"datetime64[{first.unit}]")
        later = pd.DatetimeIndex(stamps)
    else:
        later = _calendar_stamps(wall, steps, offset)
    if first.tz is None:
        return later
    return later.tz_localize("UTC").tz_convert(first.tz) if is_fixed else into_zone(later, first[0])


def steps_between(first: pd.Index, index: pd.Index, frequency: str | int) -> NDArray[np.int64]:
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

    Examples
    --------
    >>> first = pd.DatetimeIndex(["2024-01-31", "2023-11-30"])
    >>> steps_between(first, pd.DatetimeIndex(["2024-01-31", "2024-02-29"]), "ME").tolist()
    [0, 3]
    """
    if isinstance(first, pd.PeriodIndex) and isinstance(index, pd.PeriodIndex):
        freq: Any = first.freq
        apart: NDArray[np.int64] = index.asi8 - first.asi8
        return apart // int(freq.n)
    if not isinstance(first, pd.DatetimeIndex) or not isinstance(index, pd.DatetimeIndex):
        apart = index.to_numpy(np.int64) - first.to_numpy(np.int64)
        return apart // int(frequency)
    offset = offset_of(frequency)
    is_tick = isinstance(offset, pd.offsets.Tick) and not isinstance(offset, pd.offsets.Day)
    start, end = (
        each if each.tz is None else each.tz_convert(None) if is_tick else each.tz_localize(None)
        for each in (first, index.as_unit(first.unit))
    )
    if is_tick or isinstance(offset, pd.offsets.Day):
        return np.rint((end.asi8 - start.asi8) / _length_of(offset, first.unit)).astype(np.int64)
    calendar = pd.date_range(start.min(), end.max(), freq=offset.base, unit=first.unit)
    last, before = (calendar.searchsorted(each, side="right") for each in (end, start))
    apart = np.asarray(last - before, dtype=np.int64)
    return apart // int(offset.n)


def _added(
    first: NDArray[Any], steps: NDArray[np.int64], step: int, frequency: str | int
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
        calendar = stamps_from(earliest, int(wanted.max()) + 1, offset.base.freqstr)
        result[waiting[here]] = calendar.to_numpy()[wanted]
        waiting = waiting[~here]
    return pd.DatetimeIndex(result)


def on_wall_clock(stamp: pd.Timestamp, offset: Any) -> pd.Timestamp:
    """Drop the time zone for a calendar frequency; a fixed one counts elapsed time."""
    is_fixed = isinstance(offset, pd.offsets.Tick) and not isinstance(offset, pd.offsets.Day)
    return stamp if is_fixed else stamp.tz_localize(None)


def into_zone(index: pd.DatetimeIndex, stamp: pd.Timestamp) -> pd.DatetimeIndex:
    """Put wall-clock stamps back into the time zone of `stamp`."""
    if stamp.tz is None or index.tz is not None:
        return index
    first_of_two = np.ones(len(index), dtype=bool)  # an hour that comes twice in autumn
    return index.tz_localize(stamp.tz, ambiguous=first_of_two, nonexistent="shift_forward")


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
