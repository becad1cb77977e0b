"""Stamps: calendars with gaps, midnights that do not exist, multiples, labels of rows."""

import datetime
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pandas.tseries.holiday import USFederalHolidayCalendar

from tsm2.errors import FrameError
from tsm2.tables.business import Frequency
from tsm2.tables.frequencies import inferred_frequency
from tsm2.tables.labels import position_of
from tsm2.tables.read import read
from tsm2.tables.stamps import (
    as_stamps,
    clock_of,
    completed,
    first_break,
    frequency_of,
    other_frequencies,
    stamps_after,
    stamps_before,
    stamps_from,
    steps_between,
)

SANTIAGO = "America/Santiago"


def bare(stamps: Any) -> pd.DatetimeIndex:
    """Return stamps as a file gives them, without a frequency."""
    return pd.DatetimeIndex(stamps, freq=cast("Any", None))


def table(index: pd.Index) -> pd.DataFrame:
    return pd.DataFrame({"y": np.arange(len(index), dtype=float)}, index=index)


def inferred(index: pd.Index) -> Frequency:
    """Return the frequency of an index, whatever it lacks."""
    return frequency_of(completed(index, None)[0], None)


def error_of(index: pd.Index, missing: Any = "raise") -> str:
    with pytest.raises(FrameError) as caught:
        read(table(index), missing=missing)
    return str(caught.value)


# --- calendars with gaps --------------------------------------------------------------------------

CHRISTMAS = ["12-23", "12-24", "12-26", "12-27", "12-30", "12-31"]
NEW_YEAR = ["01-02", "01-03", "01-06", "01-07", "01-08", "01-10"]
BUSINESS_DAYS = bare([f"2024-{day}" for day in CHRISTMAS] + [f"2025-{day}" for day in NEW_YEAR])
FEDERAL = pd.offsets.CustomBusinessDay(calendar=USFederalHolidayCalendar())


def test_business_days_with_holidays_go_on_as_business_days() -> None:
    panel = read(table(BUSINESS_DAYS), missing="mask")
    assert panel.layout.frequency == "B"
    later = panel.stamps_behind(3)
    assert [f"{stamp:%a %d}" for stamp in later] == ["Mon 13", "Tue 14", "Wed 15"]
    message = error_of(BUSINESS_DAYS)
    assert "irregular: with frequency 'B', row 2 should be at 2024-12-25" in message
    assert "X.asfreq('B') and fill them, or pass missing='mask' or 'ffill' (3 row(s)" in message


@pytest.mark.parametrize("zone", [None, "America/New_York"])
def test_asked_daily_over_three_years_business_days_stay_business_days(zone: str | None) -> None:
    index = bare(pd.date_range("2022-01-03", "2024-12-31", freq=FEDERAL, tz=zone))
    parts = [index[:end] for end in range(6, len(index))]
    parts += [index[end - 8 : end] for end in range(8, len(index))]
    assert {inferred_frequency(part) for part in parts} == {"B"}


GAPS: dict[str, tuple[list[str], str, str]] = {
    "month starts": (["2024-01-01", "2024-02-01", "2024-04-01"], "MS", "2024-05-01"),
    "month ends": (["2024-01-31", "2024-02-29", "2024-03-31", "2024-05-31"], "ME", "2024-06-30"),
    "business month ends": (
        ["2024-01-31", "2024-02-29", "2024-03-29", "2024-05-31"],
        "BME",
        "2024-06-28",
    ),
    "business month starts": (
        ["2024-05-01", "2024-06-03", "2024-07-01", "2024-09-02"],
        "BMS",
        "2024-10-01",
    ),
    "uneven months": (["2024-01-01", "2024-03-01", "2024-06-01"], "MS", "2024-07-01"),
    "every second month": (["2024-01-01", "2024-03-01", "2024-07-01"], "2MS", "2024-09-01"),
    "quarters": (["2023-03-31", "2023-06-30", "2023-12-31"], "QE-DEC", "2024-03-31"),
    "years": (["2019-07-01", "2020-07-01", "2022-07-01"], "YS-JUL", "2023-07-01"),
    "weeks": (["2024-01-03", "2024-01-10", "2024-01-24"], "W-WED", "2024-01-31"),
    "third Fridays": (
        ["2024-01-19", "2024-02-16", "2024-04-19", "2024-05-17"],
        "WOM-3FRI",
        "2024-06-21",
    ),
    "half months": (["2024-01-01", "2024-01-15", "2024-02-15"], "SMS-15", "2024-03-01"),
    "days": (["2024-01-05", "2024-01-06", "2024-01-08"], "D", "2024-01-09"),
    "days within a week": (["2024-01-08", "2024-01-09", "2024-01-11"], "D", "2024-01-12"),
    "a long weekend": (["2024-01-12", "2024-01-16", "2024-01-17"], "B", "2024-01-18"),
    "every third day": (["2024-01-05", "2024-01-08", "2024-01-14"], "3D", "2024-01-17"),
    "business hours": (
        [f"2024-01-{d:02} {h:02}:00" for d in (4, 5, 9) for h in range(9, 17)],
        "bh",
        "2024-01-10 09:00",
    ),
    "quarters of hours": (
        ["2024-01-05 00:00", "2024-01-05 00:15", "2024-01-05 01:00"],
        "15min",
        "2024-01-05 01:15",
    ),
}


@pytest.mark.parametrize(("stamps", "wanted", "later"), GAPS.values(), ids=GAPS)
def test_the_coarsest_calendar_is_taken(stamps: list[str], wanted: str, later: str) -> None:
    panel = read(table(bare(pd.DatetimeIndex(stamps))), missing="mask")
    assert panel.layout.frequency == wanted
    assert panel.stamps_behind(1)[0] == pd.Timestamp(later)
    assert f"asfreq('{wanted}')" in error_of(pd.DatetimeIndex(stamps))


@pytest.mark.parametrize(
    ("first", "second", "wanted", "later", "others"),
    [
        ("2024-01-01", "2024-02-01", "MS", "2024-03-01", ["BMS", "31D"]),
        ("2024-01-31", "2024-02-29", "ME", "2024-03-31", ["BME", "29D"]),
        ("2024-01-01", "2025-01-01", "YS-JAN", "2026-01-01", ["BYS-JAN", "366D"]),
        ("2024-01-01", "2024-07-01", "2QS-JAN", "2025-01-01", ["2BQS-JAN", "26W-MON"]),
        ("2024-01-05", "2024-01-08", "B", "2024-01-09", ["3D"]),
        ("2024-01-04", "2024-01-09", "5D", "2024-01-14", []),
        ("2024-01-08", "2024-01-09", "D", "2024-01-10", ["B"]),
        ("2024-01-09", "2024-01-16", "W-TUE", "2024-01-23", []),
        ("2024-01-01", "2024-01-01 12:00", "12h", "2024-01-02", []),
    ],
)
def test_two_rows_are_a_calendar_step_apart_if_they_can_be(
    first: str, second: str, wanted: str, later: str, others: list[str]
) -> None:
    index = bare([pd.Timestamp(first), pd.Timestamp(second)])
    panel = read(table(index))
    assert panel.layout.frequency == wanted
    assert panel.stamps_behind(1)[0] == pd.Timestamp(later)
    assert other_frequencies(index, wanted) == others


@pytest.mark.parametrize(
    ("stamps", "reason"),
    [
        (["2024-01-15", "2024-02-15"], "on day 15 of the month.*to_period"),
        (["2024-01-15", "2024-02-15", "2024-04-15"], "on day 15 of the month"),
        (["2024-01-30", "2024-02-29", "2024-04-30"], "on day 30 of the month"),
        (["2024-01-26", "2024-02-23", "2024-03-29", "2024-05-31"], "on the last FRI of the month"),
    ],
)
def test_months_that_no_alias_expresses_are_refused(stamps: list[str], reason: str) -> None:
    for missing in ("raise", "mask"):
        with pytest.raises(FrameError, match=reason):
            read(table(pd.DatetimeIndex(stamps)), missing=missing)


@pytest.mark.parametrize("step", ["h", "30min"])
def test_opening_hours_that_no_alias_expresses_are_refused(step: str) -> None:
    hours = pd.date_range("2024-01-01", periods=500, freq=step)
    index = bare(hours[(hours.hour > 9) & (hours.hour < 19) & (hours.day_of_week < 5)])
    for missing in ("raise", "mask"):
        message = error_of(index, missing)
        assert f"after 18:{'00' if step == 'h' else '30'} and before 10:00" in message
        assert f"frequency='{step}'" in message
    panel = read(table(index), frequency=step, missing="mask")
    assert len(panel.index) > 2 * len(index)


STRAY = {
    "a Thursday among Wednesdays": ("W-WED", 9, pd.Timedelta(days=1)),
    "a second among firsts of the month": ("MS", 9, pd.Timedelta(days=1)),
    "7 minutes late": ("h", 9, pd.Timedelta(minutes=7)),
    "a Saturday": ("B", 14, pd.Timedelta(hours=3)),
}


@pytest.mark.parametrize("missing", ["raise", "mask"])
@pytest.mark.parametrize(("alias", "row", "late"), STRAY.values(), ids=STRAY)
def test_a_stamp_beside_the_grid_makes_no_finer_grid(
    alias: str, row: int, late: pd.Timedelta, missing: Any
) -> None:
    stamps = list(pd.date_range("2024-01-01", periods=40, freq=alias))
    stamps[row] += late
    message = error_of(pd.DatetimeIndex(stamps), missing)
    assert f"irregular: with frequency '{alias}', row {row}" in message
    assert "or pass missing" not in message


def test_two_of_the_rows_of_an_hourly_table_make_no_half_hours() -> None:
    index = bare(pd.date_range("2024-01-01", periods=40, freq="h"))
    index = index.insert(10, index[9] + pd.Timedelta(minutes=30))
    assert "irregular: with frequency 'h', row 10" in error_of(index, "mask")


FREQUENCIES = [
    *("s", "15min", "h", "2h", "36h", "D", "3D", "B", "2B", "bh", "W-WED", "2W-SUN", "SMS-15"),
    *("SME-15", "MS", "ME", "2MS", "5ME", "BMS", "BME", "QS-FEB", "QE-DEC", "BQE-NOV", "YS-JAN"),
    *("YE-JUN", "BYS-MAR", "WOM-3FRI"),
]
ZONES = [
    None,
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    SANTIAGO,
    "Asia/Beirut",
]


@st.composite
def grids(draw: st.DrawFn) -> tuple[str, pd.DatetimeIndex]:
    """An alias and 160 stamps on it."""
    alias = draw(st.sampled_from(FREQUENCIES))
    zone = draw(st.sampled_from(ZONES))
    day = draw(st.dates(datetime.date(1990, 1, 1), datetime.date(2025, 1, 1)))
    clock = "10:00" if alias == "bh" else draw(st.sampled_from(["00:00", "02:30", "09:00"]))
    unit: Any = draw(st.sampled_from(["s", "us", "ns"]))
    start = pd.date_range(f"{day} {clock}", periods=1, freq=alias, unit=unit)
    first = start.tz_localize(zone, ambiguous=np.array([True]), nonexistent="shift_forward")[0]
    index = stamps_from(first, 160, alias, None if clock == "00:00" else f"{clock}:00")
    assert isinstance(index, pd.DatetimeIndex)
    return alias, index


@settings(deadline=None, max_examples=100)
@given(grids(), st.integers(0, 2**32 - 1), st.integers(0, 100))
def test_a_part_has_the_frequency_of_the_whole(
    drawn: tuple[str, pd.DatetimeIndex], seed: int, begin: int
) -> None:
    _, whole = drawn
    kept = np.random.default_rng(seed).random(len(whole)) > 0.2
    kept[[0, -1]] = True
    index = bare(whole[kept])
    found = inferred(index)
    full, places = completed(index, None)
    assert list(full) == list(whole)
    np.testing.assert_array_equal(places, np.flatnonzero(kept))

    part = bare(whole[begin : begin + 50][kept[begin : begin + 50]])
    assume(len(part) > 30)
    assert inferred(part) == found
    stop = begin + 50 - int(kept[begin : begin + 50][::-1].argmax())  # behind its last row
    filled, _ = completed(part, None)
    clock = clock_of(part, found)
    assert list(filled) == list(whole[stop - len(filled) : stop])
    later = stamps_from(filled[0], len(filled) + 20, found, clock)
    assert list(later[len(filled) :])[: 160 - stop] == list(whole[stop : stop + 20])
    assert list(stamps_before(filled[-1], len(filled), found, clock)) == list(filled)


@settings(deadline=None, max_examples=100)
@given(grids(), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 99)), min_size=1, max_size=9))
def test_stamps_after_and_steps_between_invert_each_other(
    drawn: tuple[str, pd.DatetimeIndex], pairs: list[tuple[int, int]]
) -> None:
    alias, whole = drawn
    rows, steps = np.array(pairs).T
    clock = clock_of(whole, alias)
    later = stamps_after(whole[rows], steps, alias, clock)
    assert list(later) == list(whole[rows + steps])
    np.testing.assert_array_equal(steps_between(whole[rows], later, alias, clock), steps)


@pytest.mark.parametrize("alias", ["s", "15min", "h", "D", "3D", "B", "W-WED", "2MS", "QE-DEC"])
def test_without_gaps_what_pandas_infers_is_taken(alias: str) -> None:
    index = bare(pd.date_range("2024-01-03", periods=50, freq=alias))
    for rows in (3, 4, 7, 50):
        assert inferred(index[:rows]) == pd.DatetimeIndex(index[:rows], freq="infer").freqstr


def test_business_hours_are_counted_backwards() -> None:
    whole = pd.date_range("2024-01-01 09:00", periods=40, freq="bh")
    for first in range(12):
        assert list(stamps_before(whole[-1], 40 - first, "bh")) == list(whole[first:])


# --- midnights that do not exist ------------------------------------------------------------------

SKIPPED = [  # the day whose midnight does not exist
    (SANTIAGO, "2024-09-08"),
    ("Asia/Beirut", "2024-03-31"),
    ("Africa/Cairo", "2024-04-26"),
    ("America/Havana", "2024-03-10"),
    ("America/Asuncion", "2017-10-01"),
]


def days_around(zone: str, day: str, before: int, after: int) -> pd.DatetimeIndex:
    """Return the midnights around a day, without a frequency."""
    midnight = pd.Timestamp(day)
    days = pd.date_range(midnight - pd.Timedelta(days=before), midnight + pd.Timedelta(days=after))
    return bare(
        days.tz_localize(zone, ambiguous=np.ones(len(days), bool), nonexistent="shift_forward")
    )


@pytest.mark.parametrize(("zone", "day"), SKIPPED)
@pytest.mark.parametrize("before", [0, 1, 7])
def test_a_day_without_a_midnight_is_a_day_like_others(zone: str, day: str, before: int) -> None:
    whole = days_around(zone, day, before, 12)
    assert whole[before].hour == 1
    for rows in range(2, len(whole)):
        panel = read(table(whole[:rows]))
        assert panel.layout.frequency == "D"
        later = panel.stamps_behind(len(whole) - rows)
        assert list(later) == list(whole[rows:])
        assert list(stamps_before(whole[rows - 1], rows, panel.layout.frequency)) == list(
            whole[:rows]
        )
    steps = np.arange(len(whole) - before)
    first = whole[[before]].repeat(len(steps))
    assert list(stamps_after(first, steps, "D")) == list(whole[before:])
    np.testing.assert_array_equal(steps_between(first, whole[before:], "D"), steps)
    lacking = whole.delete([before + 2, before + 5])
    full, places = completed(lacking, None)
    assert list(full) == list(whole)
    assert len(places) == len(lacking)


def test_a_resampled_table_may_start_on_a_day_without_a_midnight() -> None:
    hours = table(pd.date_range("2024-09-01", periods=288, freq="h", tz=SANTIAGO))
    days = hours.resample("D").mean()
    for part in (days.iloc[7:], days.iloc[:8], days.iloc[7:8], days.iloc[:11]):
        panel = read(part)
        later = panel.stamps_behind(2)
        assert [f"{stamp:%H:%M}" for stamp in later] == ["00:00", "00:00"]


@pytest.mark.parametrize("alias", ["D", "B", "W-SUN", "MS", "QS-JAN", "YS-OCT"])
def test_one_row_that_was_moved_from_midnight_goes_on_at_midnight(alias: str) -> None:
    moved = pd.Timestamp("2017-10-01 01:00", tz="America/Asuncion")  # a Sunday
    if alias == "B":
        moved = pd.Timestamp("2024-04-26 01:00", tz="Africa/Cairo")  # a Friday
    later = stamps_from(moved, 3, alias)
    assert [f"{stamp:%H:%M}" for stamp in later] == ["01:00", "00:00", "00:00"]
    assert list(stamps_before(later[-1], 3, alias)) == list(later)
    assert [f"{stamp:%H:%M}" for stamp in stamps_before(moved, 3, alias)] == ["00:00"] * 2 + [
        "01:00"
    ]
    assert frequency_of(pd.DatetimeIndex([moved]), alias) == alias


def test_the_other_rows_say_which_time_was_skipped() -> None:
    for clock in ("00:00", "00:30", "01:00"):
        wall = pd.DatetimeIndex([f"2024-09-{day:02} {clock}" for day in range(8, 14)])
        index = bare(wall.tz_localize(SANTIAGO, nonexistent="shift_forward"))
        panel = read(table(index))
        assert panel.layout.frequency == "D"
        assert clock_of(index, "D") == (None if clock == "00:00" else f"{clock}:00")
        known = clock_of(index, "D")
        assert list(stamps_from(index[0], 6, "D", known)) == list(index)
        assert f"{stamps_before(index[0], 2, 'D', known)[0]:%H:%M}" == clock
        steps = np.arange(6)
        assert list(stamps_after(index[[0] * 6], steps, "D", known)) == list(index)
        np.testing.assert_array_equal(steps_between(index[[0] * 6], index, "W-SUN") > 0, steps > 6)


def test_series_of_other_times_of_day_do_not_take_the_clock_of_a_series() -> None:
    moved = pd.DatetimeIndex(["2024-09-08 01:00", "2024-09-08 06:00"], tz=SANTIAGO)
    later = stamps_after(moved, np.array([1, 1]), "D", "06:00:00")
    assert [f"{stamp:%H:%M}" for stamp in later] == ["00:00", "06:00"]


def test_hours_are_never_moved() -> None:
    index = bare(pd.date_range("2024-09-08 01:00", periods=5, freq="h", tz=SANTIAGO))
    for rows in (2, 5):
        assert inferred(index[:rows]) == "h"
    assert list(stamps_from(index[0], 5, "h")) == list(index)
    assert clock_of(index, "h") is None


def test_a_day_that_does_not_exist_is_refused() -> None:
    index = pd.DatetimeIndex(["2011-12-28", "2011-12-29", "2011-12-31"], tz="Pacific/Apia")
    for missing in ("raise", "mask"):
        message = error_of(index, missing)
        assert message.startswith("the day 2011-12-30 does not exist in Pacific/Apia")


def test_elapsed_days_are_not_days_of_the_wall_clock() -> None:
    index = pd.date_range("2024-03-20", periods=40, freq="24h", tz="Europe/Berlin")
    assert inferred(bare(index)) == "24h"
    assert inferred(bare(index).delete([3, 4, 20])) == "24h"


# --- periods with a multiple ----------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["15min", "2h", "3D", "2M", "2Q-DEC", "2W-SUN", "M", "h"])
@pytest.mark.parametrize("missing", ["mask", "ffill"])
def test_missing_periods_are_put_where_they_belong(alias: str, missing: Any) -> None:
    whole = pd.period_range("2024-01-01", periods=12, freq=alias)
    frame = table(whole)
    panel = read(frame.drop(whole[[4, 5, 9]]), missing=missing)
    assert panel.index.equals(whole)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(panel.values[:, 0])), [4, 5, 9])
    steps = np.arange(12)
    assert stamps_after(whole[[0] * 12], steps, alias).equals(whole)
    np.testing.assert_array_equal(steps_between(whole[[0] * 12], whole, alias), steps)
    assert stamps_before(whole[-1], 12, alias).equals(whole)
    assert stamps_from(whole[0], 12, alias).equals(whole)
    assert first_break(whole, alias) is None


def test_periods_beside_a_multiple_are_refused() -> None:
    index = pd.PeriodIndex(["2024-01", "2024-03", "2024-06"], freq="2M")
    assert "row 2 should be at 2024-05" in error_of(index, "mask")


# --- frequencies that an index states -------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 12])
@pytest.mark.parametrize(
    ("start", "offset", "wanted"),
    [
        ("2024-01-03", pd.DateOffset(days=1), "D"),
        ("2024-01-03", pd.DateOffset(hours=6), "6h"),
        ("2024-01-03", pd.offsets.Week(), "W-WED"),
        ("2024-01-03", pd.DateOffset(weeks=2), "2W-WED"),
        ("2024-01-01", pd.DateOffset(months=1), "MS"),
        ("2024-01-01", pd.DateOffset(years=1), "YS-JAN"),
        ("2024-01-31", pd.offsets.MonthEnd(), "ME"),
    ],
)
def test_an_offset_that_an_alias_expresses_is_translated(
    start: str, offset: Any, wanted: str, rows: int
) -> None:
    index = pd.date_range(start, periods=rows, freq=offset)
    assert frequency_of(index, None) == wanted
    assert list(stamps_from(index[0], rows, wanted)) == list(index)


@pytest.mark.parametrize(
    "offset",
    [
        pd.offsets.CustomBusinessDay(holidays=["2024-03-18"], offset=pd.Timedelta("1h")),
        pd.offsets.BusinessHour(start="20:00", end="04:00"),
        pd.DateOffset(months=1),
        pd.offsets.Easter(),
    ],
)
def test_an_offset_that_no_alias_expresses_is_refused(offset: Any) -> None:
    index = pd.date_range("2024-03-15", periods=9, freq=offset)
    assert "which no alias expresses" in error_of(index)


# --- Arrow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_stamps_that_arrow_keeps_are_stamps(zone: str | None, unit: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    wanted = bare(pd.date_range("2024-03-30", periods=60, freq="h", tz=zone, unit=unit, name="t"))
    kept = wanted.astype(pd.ArrowDtype(pyarrow.timestamp(unit, tz=zone)))
    assert not isinstance(kept, pd.DatetimeIndex)
    pd.testing.assert_index_equal(as_stamps(kept), wanted, check_exact=True)
    dates = pd.Index([datetime.date(2024, 1, 1)], dtype=pd.ArrowDtype(pyarrow.date32()))
    assert as_stamps(dates)[0] == pd.Timestamp("2024-01-01")


def test_other_indexes_stay_as_they_are() -> None:
    for index in (pd.RangeIndex(3), pd.Index(["a"]), BUSINESS_DAYS, pd.Index([1], dtype="Int64")):
        assert as_stamps(index) is index


# --- labels of rows -------------------------------------------------------------------------------

HOURS = pd.date_range("2024-01-04 05:00", periods=60, freq="h")
BERLIN = HOURS.tz_localize("Europe/Berlin")
MIDNIGHTS = days_around(SANTIAGO, "2024-09-08", 7, 12)
TWO_MONTHS = pd.period_range("2024-01", periods=6, freq="2M")
FIVES = pd.RangeIndex(5, 50, 5)


@pytest.mark.parametrize(
    ("index", "label", "position"),
    [
        (HOURS, "2024-01-05", 19),
        (HOURS, "2024-01-04", 0),
        (HOURS, "2024", 0),
        (HOURS, datetime.date(2024, 1, 5), 19),
        (HOURS, datetime.datetime(2024, 1, 5, 2), 21),
        (HOURS, np.datetime64("2024-01-05T02"), 21),
        (HOURS, "2024-01-05 02:00", 21),
        (HOURS, pd.Period("2024-01-05", freq="D"), 19),
        (BERLIN, "2024-01-05", 19),
        (BERLIN, datetime.date(2024, 1, 5), 19),
        (BERLIN, pd.Timestamp("2024-01-05 02:00"), 21),
        (BERLIN, pd.Timestamp("2024-01-05 01:00", tz="UTC"), 21),
        (BERLIN, "2024-01-05T01:00+00:00", 21),
        (MIDNIGHTS, "2024-09-08", 7),
        (MIDNIGHTS, datetime.date(2024, 9, 8), 7),
        (MIDNIGHTS, pd.Timestamp("2024-09-08"), 7),
        (TWO_MONTHS, "2024-03", 1),
        (TWO_MONTHS, "2024-04", 1),
        (TWO_MONTHS, pd.Period("2024-05", freq="2M"), 2),
        (TWO_MONTHS, datetime.date(2024, 5, 1), 2),
        (FIVES, 15, 2),
        (FIVES, np.int8(15), 2),
        (pd.Index([5, 6, 7]), 7, 2),
    ],
)
def test_a_label_finds_its_row(index: pd.Index, label: object, position: int) -> None:
    assert position_of(index, label) == position


@pytest.mark.parametrize(
    ("index", "label", "reason"),
    [
        (HOURS, "2024-01-05 02:30", "nearest: 2024-01-05 02:00:00 and 2024-01-05 03:00:00"),
        (HOURS, datetime.date(2023, 1, 5), "from 2024-01-04 05:.*The nearest: 2024-01-04 05:00:00"),
        (BERLIN, pd.Timestamp("2025-01-01"), r"in time zone Europe/Berlin.*\+01:00. Pass"),
        (HOURS, pd.Timestamp("2024-01-05", tz="UTC"), "a time without time zone"),
        (HOURS, "12:00", "year first"),
        (HOURS, "05/01/2024", "year first"),
        (HOURS, "2024-13-45", "year first"),
        (HOURS, pd.NaT, "cannot be the label"),
        (HOURS, 3, "cannot be the label"),
        (HOURS, None, "cannot be the label"),
        (HOURS, ("a", 1), "cannot be the label"),
        (TWO_MONTHS, "2030", "is not a row"),
        (TWO_MONTHS, "2019-01", "is not a row"),
        (FIVES, 16, "from 5 to 45. The nearest: 15 and 20"),
        (FIVES, "15", "a whole number is needed"),
        (FIVES, True, "a whole number is needed"),
        (FIVES, float("nan"), "a whole number is needed"),
    ],
)
def test_a_label_of_no_row_is_refused(index: pd.Index, label: object, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        position_of(index, label)


def test_numbers_further_apart_than_64_bits_can_say_are_irregular() -> None:
    index = pd.Index([-1, 0, 2**63 - 1])
    with pytest.raises(FrameError, match="the index is irregular"):
        frequency_of(index, None)
    assert completed(index, 1)[0].equals(index)
