"""Business calendars: their weeks, holidays and hours hold in forecasts, gaps and saved models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.tseries.holiday import USFederalHolidayCalendar

from tsm2 import TSM2Forecaster
from tsm2.errors import FrameError, SavedModelError
from tsm2.prepared.seasons import season_of
from tsm2.tables.business import frequency_from_json, frequency_to_json, plain_frequency
from tsm2.tables.layout import layout_from_json, layout_to_json
from tsm2.tables.read import read
from tsm2.tables.stamps import stamps_after, stamps_before, stamps_from, steps_between

OFFSETS: dict[str, Any] = {
    "days": pd.offsets.CustomBusinessDay(holidays=["2024-12-25", "2025-01-06"]),
    "federal": pd.offsets.CustomBusinessDay(calendar=USFederalHolidayCalendar()),
    "every other day": pd.offsets.CustomBusinessDay(2, weekmask="Sun Mon Tue Wed Thu"),
    "calendar of NumPy": pd.offsets.CustomBusinessDay(
        calendar=np.busdaycalendar(weekmask="1111000", holidays=[np.datetime64("2025-01-06")])
    ),
    "hours": pd.offsets.CustomBusinessHour(
        start=["08:00", "13:00"], end=["12:00", "17:00"], holidays=["2024-11-11"]
    ),
    "plain hours": pd.offsets.BusinessHour(start="08:30", end="16:00"),
    "month ends": pd.offsets.CBMonthEnd(holidays=["2024-12-31"]),
    "month starts": pd.offsets.CBMonthBegin(calendar=USFederalHolidayCalendar()),
}
every_offset = pytest.mark.parametrize("offset", OFFSETS.values(), ids=OFFSETS)


def forecaster(**chosen: Any) -> TSM2Forecaster:
    return TSM2Forecaster(
        **{"lookback": 4, "horizon": 3, "max_epochs": 1, "features": 4, "validation_fraction": 0}
        | chosen
    )


def table(offset: Any, rows: int = 30) -> tuple[pd.DataFrame, pd.DatetimeIndex]:
    """Return a table, and the stamps of its next three rows as pandas has them."""
    stamps = pd.date_range("2024-11-01", periods=rows + 3, freq=offset)
    return pd.DataFrame({"y": np.sin(np.arange(rows))}, index=stamps[:rows]), stamps[rows:]


def long(frame: pd.DataFrame) -> pd.DataFrame:
    one = pd.DataFrame({"unique_id": "a", "ds": frame.index, "y": frame["y"].to_numpy()})
    return pd.concat([one, one.iloc[9:].assign(unique_id="b")])


@every_offset
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_all_ways_along_a_calendar_agree(offset: Any, zone: str | None) -> None:
    stamps = pd.date_range("2024-11-01", periods=50, freq=offset, tz=zone)
    frequency = read(pd.DataFrame({"y": np.arange(50.0)}, index=stamps)).layout.frequency
    assert list(stamps_from(stamps[7], 43, frequency)) == list(stamps[7:])
    assert list(stamps_before(stamps[-1], 43, frequency)) == list(stamps[7:])
    steps = np.arange(50)
    assert list(stamps_after(stamps[:1].repeat(50), steps, frequency)) == list(stamps)
    assert list(steps_between(stamps[:1].repeat(50), stamps, frequency)) == list(steps)


@every_offset
def test_forecasts_go_on_along_the_calendar_of_the_index(offset: Any, tmp_path: Path) -> None:
    frame, after = table(offset)
    model = forecaster().fit(frame)
    forecast = model.predict()
    assert list(forecast.index) == list(after)
    model.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(), forecast)
    bare = frame.set_axis(pd.DatetimeIndex(frame.index.to_numpy()))  # states nothing
    pd.testing.assert_frame_equal(loaded.predict(bare), forecast)
    begun = forecaster().fit(frame[:20])
    assert list(begun.update(bare[20:]).predict().index) == list(after)
    for refit in (False, 4):
        walked = begun.backtest(frame, start=frame.index[22], refit=refit)
        assert set(walked["time"] if "time" in walked else walked.iloc[:, 0]) <= set(frame.index)


@every_offset
def test_gaps_and_long_tables_are_counted_along_a_given_calendar(
    offset: Any, tmp_path: Path
) -> None:
    frame, after = table(offset)
    lacking = frame.drop(index=frame.index[[11, 12, 20]])
    for missing in ("mask", "ffill"):
        model = forecaster(frequency=offset, missing=missing).fit(lacking)
        assert model.n_rows_ == 30
        assert list(model.predict().index) == list(after)
    model = forecaster(frequency=offset).fit(long(frame))
    model.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    assert list(loaded.predict()["ds"]) == [*after, *after]
    assert frequency_to_json(loaded.frequency) == frequency_to_json(offset)  # type: ignore[arg-type]
    with pytest.raises(FrameError, match=r"irregular|contradicts"):
        forecaster(frequency=offset).fit(lacking)


def test_tables_of_a_dict_keep_the_calendar_that_the_longest_states() -> None:
    frame, after = table(OFFSETS["days"])
    model = forecaster().fit({"a": frame[5:], "b": frame})
    assert list(model.predict()["a"].index) == list(after)


def test_a_saved_calendar_is_plain_json() -> None:
    frame, _ = table(OFFSETS["days"])
    layout = read(frame).layout
    saved = json.loads(json.dumps(layout_to_json(layout)))
    assert saved["frequency"] == {
        "offset": "CustomBusinessDay",
        "n": 1,
        "weekmask": "Mon Tue Wed Thu Fri",
        "holidays": ["2024-12-25", "2025-01-06"],
    }
    assert layout_from_json(saved) == layout
    for damage in ({"offset": "system"}, {"offset": "BusinessHour", "start": "x"}, ["C"], None):
        with pytest.raises(SavedModelError, match=r"damaged|needs"):
            layout_from_json(saved | {"frequency": damage})


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    week=st.sets(st.sampled_from(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]), min_size=1),
    holidays=st.sets(
        st.dates(pd.Timestamp("2024-11-01").date(), pd.Timestamp("2025-03-01").date())
    ),
    n=st.integers(1, 3),
)
def test_any_week_and_holidays_survive(week: set[str], holidays: set[Any], n: int) -> None:
    offset = pd.offsets.CustomBusinessDay(n, weekmask=" ".join(week), holidays=sorted(holidays))
    kept: Any = plain_frequency(offset)
    again = frequency_from_json(json.loads(json.dumps(frequency_to_json(kept))))
    wanted = pd.date_range("2024-11-01", periods=40, freq=offset)
    assert list(stamps_from(wanted[0], 40, again)) == list(wanted)


def test_its_season_is_its_week() -> None:
    week = pd.offsets.CustomBusinessDay(weekmask="Mon Tue Wed Thu Fri Sat", holidays=["2024-12-25"])
    for offset, season in ((week, 6), (OFFSETS["days"], 5), (OFFSETS["month ends"], 12)):
        assert season_of(read(table(offset)[0]).layout) == season


def test_an_offset_that_an_alias_says_may_be_given() -> None:
    hours = pd.DataFrame({"y": np.arange(20.0)}, index=pd.date_range("2024", periods=20, freq="2h"))
    assert forecaster(frequency=pd.offsets.Hour(2)).fit(hours).layout_.frequency == "2h"
    with pytest.raises(FrameError, match="which no alias expresses"):
        forecaster(frequency=pd.DateOffset(months=1)).fit(hours)
