"""The texts of a time column become stamps: read as written, or refused with both readings shown.

A format is inferred from the whole column. Where day and month could be exchanged in every row, the
reading counts under which the rows are regular. Where both are, the file is refused, unless one of
them is all months of a year, as for 01/01, 01/02, ... 01/12: that is taken and said. Nothing is
read by pandas' guessing, which decides row by row.

Whole numbers are dates (20240101, 202401, 2024), seconds or fractions of them since 1970, or
positions. What is written with offsets from UTC that change is read as UTC, or in a named zone.
"""

from __future__ import annotations

import datetime
import difflib
import re
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.errors import FrameError, ParameterError
from tsm2.tables.business import Frequency
from tsm2.tables.date_formats import CLOCK, Order, formats_of
from tsm2.tables.time_columns import TimeColumn

__all__ = ["DateOptions", "KnownStamps", "check_zone", "looks_like_time", "read_stamps"]

_ISO = re.compile(
    r"\d{4}([-/])\d{2}\1\d{2}"
    r"(?:[T ]\d{2}(?::\d{2}(?::\d{2}(?:\.\d{1,9})?)?)?(?: ?(?:Z|[+-]\d{2}:?\d{2}))?)?"
)
_OFFSET = re.compile(r" ?(Z|UTC|GMT|[+-]\d{2}:?\d{2})$")
_UTC = re.compile(r" ?(UTC|GMT)$")
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp]\.?[Mm]\.?)?")
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"-?\d+(?:[.,]0*)?")
_FRACTION = re.compile(r"(\d+)[.,](\d+)")
_MONTH = re.compile(r"\d{2}\.\d{4}|\d{4}\.\d{2}")
_QUARTER = re.compile(r"(?:(\d{4})[-/ ]?Q([1-4])|Q([1-4])[-/ ]?(\d{4}))")
_WEEK = re.compile(r"(\d{4})-?W(\d{2})(?:-?([1-7]))?")
_UNITS = {"s": (9, 10), "ms": (12, 13), "us": (15, 16), "ns": (18, 19)}  # digits since 1973
_COMPACT = {  # by digits; a year of four digits in front is no coincidence
    4: ("%Y",),
    6: ("%Y%m", "%y%m%d", "%d%m%y", "%m%d%y"),
    8: ("%Y%m%d", "%d%m%Y", "%m%d%Y"),
    10: ("%Y%m%d%H",),
    12: ("%Y%m%d%H%M",),
    14: ("%Y%m%d%H%M%S",),
}
_FIRST_YEAR, _LAST_YEAR = 1900, 2100  # of dates that are written as whole numbers
_POSITION = "position"


@dataclass(frozen=True, kw_only=True, slots=True)
class DateOptions:
    """What settles how a time column is read; None is inferred."""

    date_format: str | None = None
    """A format of `datetime.strptime`; "position" for whole numbers that are no dates; "s", "ms",
    "us" or "ns" for time since 1970."""
    day_first: bool | None = None
    """True for 31/12/2024, False for 12/31/2024."""
    time_zone: str | None = None
    """Zone of stamps without an offset, or into which stamps with one are put."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownStamps:
    """What a model knows of the stamps of the files that it is given; None is not known."""

    index_kind: str | None = None
    """"range" if whole numbers are positions, "datetime" if they are dates."""
    zone: str | None = None
    """Into which stamps with an offset are put, if the options name none."""
    frequency: Frequency | None = None
    """A pandas alias: of two readings the one that has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidate:
    """One way in which a column can be read."""

    words: str
    stamps: pd.DatetimeIndex
    """Of the different texts of the column."""
    order: Order | None = None
    """What stands first in a date of three numbers."""


def read_stamps(
    texts: Sequence[str],
    options: DateOptions,
    *,
    name: str,
    series: Sequence[str] | None = None,
    known: KnownStamps | None = None,
) -> tuple[pd.Index, list[str]]:
    """Read the time column of a file.

    Parameters
    ----------
    texts
        Its cells, (T,).
    options
        What settles its reading.
    name
        Of the column.
    series
        Series of each row, (T,); None for a single table. Steps are looked at within each.
    known
        What is known of the stamps, as by a model.

    Returns
    -------
    The index of the rows, and what should be said of how it was read.

    Raises
    ------
    FrameError
        The column holds no times, lacks one, or can be read in two ways.
    ParameterError
        A format or a time zone is unknown.

    Examples
    --------
    >>> texts = ["13/01/2024", "14/01/2024"]
    >>> index, notes = read_stamps(texts, DateOptions(), name="day")
    >>> index[0].isoformat()
    '2024-01-13T00:00:00'
    """
    known = known or KnownStamps()
    if options.time_zone is not None:
        check_zone(options.time_zone)
    cells = np.array([text.strip() for text in texts], dtype=object)
    codes, unique = pd.factorize(cells)
    ids = (
        np.zeros(len(cells), dtype=np.intp)
        if series is None
        else pd.factorize(np.array(series, dtype=object))[0]
    )
    order = np.argsort(ids, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(ids[order])) + 1)
    column = TimeColumn(name=name, texts=[str(text) for text in unique], codes=codes, groups=groups)
    if "" in column.texts:
        row = column.row_of(column.texts.index(""))
        raise column.refusal(f"has no time in row {row} below the header.", "Fill or delete it.")
    if options.date_format is not None:
        index, notes = _by_format(column, options.date_format)
    elif all(map(_NUMBER.fullmatch, column.texts)):
        index, notes = _from_numbers(column, known, options)
    elif all(map(_FRACTION.fullmatch, column.texts)) and not all(
        map(_MONTH.fullmatch, column.texts)
    ):
        index, notes = _from_fractions(column)
    else:
        index, notes = _from_words(column, options, known)
    if not isinstance(index, pd.DatetimeIndex):
        if options.time_zone is not None:
            raise column.refusal("holds whole numbers, not times.", "Leave time_zone= out.")
        return pd.Index(index[codes], name=name), notes
    if index.tz is None:
        stamps = index[codes]
        if options.time_zone is not None:
            stamps = _localized(column, stamps, options.time_zone)
    else:
        chosen = options.time_zone or known.zone
        stamps, more = _in_one_zone(column, index, chosen)
        notes = [*notes, *more]
    return _in_microseconds(stamps).rename(name), notes


def looks_like_time(text: str) -> bool:
    """Return whether a text is a date with a year, as no name of a column is.

    Examples
    --------
    >>> looks_like_time("2024-01-31 00:00"), looks_like_time("31.1.24"), looks_like_time("2024")
    (True, True, False)
    """
    date = CLOCK.sub("", text.strip())
    has_three = re.fullmatch(r"\d{1,4}([-/. ])\d{1,2}\1\d{1,4}", date)
    is_compact = re.fullmatch(r"(19|20)\d{2}[01]\d[0-3]\d", date)
    return bool(has_three or is_compact)


def check_zone(name: str) -> None:
    """Check that a time zone exists.

    Raises
    ------
    ParameterError
        It does not; the message says which name is close.
    """
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        close = difflib.get_close_matches(name, zoneinfo.available_timezones(), 1)
        hint = f"Did you mean {close[0]!r}?" if close else "Such as 'Europe/Berlin' or 'UTC'."
        raise ParameterError(f"time_zone={name!r} is no time zone. {hint}") from error


# --- whole numbers --------------------------------------------------------------------------------


def _from_numbers(
    column: TimeColumn, known: KnownStamps, options: DateOptions
) -> tuple[pd.Index, list[str]]:
    """Read whole numbers as dates, as time since 1970, or as positions."""
    texts = [re.sub(r"[.,]0*$", "", text) for text in column.texts]
    positions = pd.Index(np.array([int(text) for text in texts], dtype=object).astype(np.int64))
    lengths = set(map(len, texts))
    if known.index_kind == "range" or len(lengths) > 1 or not all(map(_DIGITS.fullmatch, texts)):
        return positions, []
    (digits,) = lengths
    found: list[_Candidate] = []
    failed: tuple[str, int] | None = None
    for form in _COMPACT.get(digits, ()):
        if options.day_first is not None and form[1] in "dm" and _is_excluded(form, options):
            continue
        stamps = _parsed(texts, form)
        good = (stamps.year >= _FIRST_YEAR) & (stamps.year <= _LAST_YEAR)
        if good.all():
            found.append(_Candidate(words=form, stamps=stamps))
        elif form == "%Y%m%d" and good.mean() > 0.5:
            failed = form, int(np.argmin(good))
    for unit, sizes in _UNITS.items():
        if digits in sizes and positions.min() > 0:
            stamps = _since_1970(positions.to_numpy(), unit)
            if (stamps.year <= _LAST_YEAR).all():
                found.append(_Candidate(words=unit, stamps=stamps))
    if not found:
        if failed is not None:
            row = column.row_of(failed[1])
            raise column.refusal(
                f"holds dates such as {column.texts[0]}, but row {row} below the header has "
                f"{column.texts[failed[1]]}, which is no date.",
                f"Correct it, or give date_format='{_POSITION}' if these are no dates.",
            )
        return positions, []
    is_strong = [each.words.startswith("%Y") or each.words in _UNITS for each in found]
    is_counted = column.step(positions.to_numpy()) is not None and texts[0][0] != "0"
    if is_counted and not any(is_strong) and known.index_kind != "datetime":
        shown = "; ".join(f"{each.words}: {column.span(each.stamps)}" for each in found)
        raise column.refusal(
            f"holds whole numbers such as {column.texts[0]}, which may be dates ({shown}) or "
            f"positions.",
            f"Give date_format='{found[0].words}' or date_format='{_POSITION}'.",
        )
    chosen = _only_regular(column, found, known) if len(found) > 1 else found[0]
    kind = "time since 1970 in" if chosen.words in _UNITS else "dates of format"
    note = (
        f"the whole numbers of column {column.name!r} are read as {kind} {chosen.words}: "
        f"{column.span(chosen.stamps)}. date_format='{_POSITION}' keeps them as numbers."
    )
    return chosen.stamps, [note]


def _is_excluded(form: str, options: DateOptions) -> bool:
    return form.startswith("%m" if options.day_first else "%d")


def _only_regular(column: TimeColumn, found: list[_Candidate], known: KnownStamps) -> _Candidate:
    """Return the one candidate under which the rows are regular; of several the year-first ones."""
    regular = [each for each in found if column.follows(each.stamps, known.frequency)]
    regular = regular or [each for each in found if column.step(each.stamps) is not None]
    if len(regular) == 1:
        return regular[0]
    shown = "; ".join(f"{each.words}: {column.span(each.stamps)}" for each in regular or found)
    raise column.refusal(
        f"holds whole numbers such as {column.texts[0]}, which can be read as {shown}.",
        f"Give date_format='{found[0].words}', another one, or '{_POSITION}'.",
    )


def _from_fractions(column: TimeColumn) -> tuple[pd.Index, list[str]]:
    """Read numbers with a fraction as seconds, or fractions of them, since 1970."""
    pairs = [text.replace(",", ".").split(".") for text in column.texts]
    sizes = {len(whole) for whole, _ in pairs}
    for unit, digits in _UNITS.items():
        if sizes <= set(digits):
            more = {"s": 9, "ms": 6, "us": 3, "ns": 0}[unit]
            stamps = pd.DatetimeIndex(
                np.array(
                    [int(whole + part[:more].ljust(more, "0")) for whole, part in pairs],
                    dtype=np.int64,
                ).view("M8[ns]")
            )
            if (stamps.year <= _LAST_YEAR).all():
                return stamps, [
                    f"the numbers of column {column.name!r} are read as time since 1970 in {unit}: "
                    f"{column.span(stamps)}."
                ]
    raise column.refusal(
        f"holds numbers such as {column.texts[0]}, not times or whole numbers.",
        "Name the time column with time_column=.",
    )


def _since_1970(values: NDArray[np.int64], unit: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(values.astype(np.int64).view(f"M8[{unit}]"))


# --- dates in words and signs ---------------------------------------------------------------------


def _by_format(column: TimeColumn, form: str) -> tuple[pd.Index, list[str]]:
    """Read a column by the format that was given."""
    if form == _POSITION or form in _UNITS:
        if not all(map(_NUMBER.fullmatch, column.texts)):
            if form != _POSITION and all(
                _NUMBER.fullmatch(text) or _FRACTION.fullmatch(text) for text in column.texts
            ):
                scaled = [float(text.replace(",", ".")) for text in column.texts]
                return pd.DatetimeIndex(pd.to_datetime(scaled, unit=form)), []  # type: ignore[call-overload]
            bad = next(text for text in column.texts if not _NUMBER.fullmatch(text))
            raise column.refusal(f"holds {bad!r}, no whole number.", "Leave date_format= out.")
        whole = [int(re.sub(r"[.,]0*$", "", text)) for text in column.texts]
        values = np.array(whole, dtype=np.int64)
        return (pd.Index(values) if form == _POSITION else _since_1970(values, form)), []
    if "%" not in form:
        raise ParameterError(
            f"date_format={form!r} is no format: give one such as '%d.%m.%Y %H:%M', "
            f"'{_POSITION}', 's' or 'ms'."
        )
    stamps = _parsed(column.texts, form)
    if stamps.isna().any():
        place = int(np.argmax(stamps.isna()))
        raise column.refusal(
            f"has {column.texts[place]!r} in row {column.row_of(place)} below the header, which "
            f"date_format={form!r} does not read.",
            "Correct the format or the row.",
        )
    return stamps, []


def _from_words(
    column: TimeColumn, options: DateOptions, known: KnownStamps
) -> tuple[pd.DatetimeIndex, list[str]]:
    """Read a column of dates as they are written."""
    texts = [_UTC.sub("Z", text) for text in column.texts]
    first = texts[0]
    if all(map(_TIME_OF_DAY.fullmatch, texts)):
        raise column.refusal(
            f"holds times of day without a date, such as {first!r}.",
            "Write the date into the same column, or name another with time_column=.",
        )
    if all(map(_ISO.fullmatch, texts)):
        utc = any(map(_OFFSET.search, (text[10:] for text in texts)))
        stamps = pd.to_datetime(
            pd.Index(texts, dtype=object), format="ISO8601", errors="coerce", utc=utc
        )
        found = [_Candidate(words="year first", stamps=pd.DatetimeIndex(stamps))]
        if utc and not all(map(_OFFSET.search, (text[10:] for text in texts))):
            raise column.refusal(
                "has stamps with and without an offset from UTC.", "Write all in the same way."
            )
    elif all(map(_QUARTER.fullmatch, texts)):
        pairs = [_QUARTER.fullmatch(text).groups() for text in texts]  # type: ignore[union-attr]
        months = [f"{a or d}-{3 * int(b or c) - 2:02d}" for a, b, c, d in pairs]
        found = [_Candidate(words="quarters", stamps=_parsed(months, "%Y-%m"))]
    elif all(map(_WEEK.fullmatch, texts)):
        parts = [_WEEK.fullmatch(text).groups() for text in texts]  # type: ignore[union-attr]
        days = [f"{year}-{week}-{day or 1}" for year, week, day in parts]
        found = [_Candidate(words="weeks", stamps=_parsed(days, "%G-%V-%u"))]
    else:
        found = [
            _Candidate(words=form, stamps=_parsed(texts, form), order=order)
            for form, order in formats_of(first)
        ]
    if not found:
        raise column.refusal(
            f"does not hold times: {first!r} in row 1 below the header has no date that is known.",
            "Name the time column with time_column=, or its format with date_format='%d.%m.%Y'.",
        )
    alive = [each for each in found if not each.stamps.isna().any()]
    if options.day_first is not None:
        wanted = "day" if options.day_first else "month"
        alive = [each for each in alive if each.order in (None, wanted)]
    if not alive:
        raise _unread(column, found, options)
    return _choose(column, alive, known)


def _unread(column: TimeColumn, found: list[_Candidate], options: DateOptions) -> FrameError:
    """Return the error that names the row at which the best reading ends."""
    if options.day_first is not None:
        wanted = "day" if options.day_first else "month"
        found = [each for each in found if each.order in (None, wanted)] or found
    best = max(found, key=lambda each: int(np.argmax(each.stamps.isna())))
    place = int(np.argmax(best.stamps.isna()))
    first = column.texts[0]
    return column.refusal(
        f"does not hold times in one format: row 1 below the header has {first!r}, row "
        f"{column.row_of(place)} has {column.texts[place]!r}.",
        "Write all in the same way, or give date_format='%d.%m.%Y'.",
    )


def _choose(
    column: TimeColumn, alive: list[_Candidate], known: KnownStamps
) -> tuple[pd.DatetimeIndex, list[str]]:
    """Return the stamps of the reading under which the rows are regular, and what to say of it."""
    different: list[_Candidate] = []
    for each in alive:
        if not any(each.stamps.equals(other.stamps) for other in different):
            different.append(each)
    if len(different) == 1:
        return different[0].stamps, []
    regular = [each for each in different if column.follows(each.stamps, known.frequency)]
    regular = regular or [each for each in different if column.step(each.stamps) is not None]
    if len(regular) == 1:
        return regular[0].stamps, []
    years = [each for each in regular if _is_a_year_of_months(each.stamps)]
    if len(regular) == 2 and len(years) == 1:
        (coarser,) = years
        (finer,) = (each for each in regular if each is not coarser)
        other = finer.order == "day"
        return coarser.stamps, [
            f"the dates of column {column.name!r} are read {coarser.order} first: "
            f"{column.span(coarser.stamps)}. day_first={other} reads them {finer.order} first: "
            f"{column.span(finer.stamps)}."
        ]
    shown = " or ".join(f"{each.order} first ({column.span(each.stamps)})" for each in different)
    ways = {"day": "day_first=True", "month": "day_first=False"}
    names = [ways.get(str(each.order)) or f"date_format='{each.words}'" for each in different]
    raise column.refusal(
        f"can be read {shown}, and the rows do not say which is meant.",
        f"Give {' or '.join(names)}.",
    )


def _is_a_year_of_months(stamps: pd.DatetimeIndex) -> bool:
    """Return whether stamps are the twelve first days of the months of a year.

    As days they would end by chance with the last one at which day and month can be exchanged.
    """
    return (
        sorted(stamps.month) == list(range(1, 13))
        and bool((stamps.day == 1).all())
        and stamps.year.nunique() == 1
    )


def _parsed(texts: Sequence[str], form: str) -> pd.DatetimeIndex:
    """Read texts by a format; NaT where it does not fit."""
    aware = form.endswith("%z")
    try:
        found = pd.to_datetime(
            pd.Index(list(texts), dtype=object), format=form, errors="coerce", utc=aware
        )
    except ValueError as error:
        raise ParameterError(f"date_format={form!r} is no format: {error}") from error
    return pd.DatetimeIndex(found)


# --- time zones -----------------------------------------------------------------------------------


def _in_one_zone(
    column: TimeColumn, index: pd.DatetimeIndex, zone: str | None
) -> tuple[pd.DatetimeIndex, list[str]]:
    """Put stamps with offsets into one zone: a named one, or that of their one offset, or UTC."""
    if zone is not None:
        return index[column.codes].tz_convert(zone), []
    written = [_OFFSET.search(text) for text in column.texts]
    offsets = [_minutes(match[1]) if match else 0 for match in written]
    different = sorted(set(offsets))
    if len(different) == 1:
        own = datetime.timezone(datetime.timedelta(minutes=different[0]))
        return index[column.codes].tz_convert(own if different[0] else "UTC"), []
    shift = pd.TimedeltaIndex(np.array(offsets) * np.timedelta64(60, "s"))
    wall = index.tz_localize(None) + shift
    shown = " and ".join(f"{m // 60:+03d}:{m % 60:02d}" for m in different)
    if column.step(index.tz_localize(None)) is None and column.step(wall) is not None:
        raise column.refusal(
            f"has rows that are regular on the clock of a zone, but their offsets from UTC change "
            f"({shown}).",
            "Name the zone with time_zone='Europe/Berlin', or whichever it is.",
        )
    return index[column.codes], [
        f"the offsets of column {column.name!r} change ({shown}), so that it is read as UTC. "
        f"time_zone='Europe/Berlin', for one, puts it into a zone."
    ]


def _minutes(offset: str) -> int:
    """Return the minutes of an offset from UTC."""
    if offset[0] not in "+-":
        return 0
    minutes = 60 * int(offset[1:3]) + int(offset[-2:])
    return -minutes if offset[0] == "-" else minutes


def _localized(column: TimeColumn, stamps: pd.DatetimeIndex, zone: str) -> pd.DatetimeIndex:
    """Put stamps without an offset on the clock of a zone, series by series."""
    is_daily = bool((stamps == stamps.normalize()).all())
    parts = []
    for rows in column.groups:
        try:
            parts.append(
                stamps[rows].tz_localize(
                    zone,
                    ambiguous="infer",
                    nonexistent="shift_forward" if is_daily else "raise",  # of midnights alone
                )
            )
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise column.refusal(
                f"has a stamp that the clock of time_zone={zone!r} has not, or has twice "
                f"({reason}).",
                "Write the offsets from UTC into the file, or leave time_zone= out.",
            ) from error
    whole = parts[0].append(parts[1:]) if len(parts) > 1 else parts[0]
    back = np.empty(len(stamps), dtype=np.intp)
    back[np.concatenate(column.groups)] = np.arange(len(stamps))
    return pd.DatetimeIndex(whole[back])


def _in_microseconds(stamps: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return one resolution for all ways of reading; nanoseconds stay where there are any."""
    if stamps.unit == "ns" and (stamps.nanosecond != 0).any():
        return stamps
    return stamps.as_unit("us")
