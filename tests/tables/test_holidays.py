"""Holidays by region: the day, the day before and after; by day, hour, span and time zone."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.errors import DependencyError, ParameterError
from tsm2.tables.calendars import calendar_table
from tsm2.tables.holidays import check_holidays

SMALL: dict[str, Any] = {"lookback": 14, "horizon": 7, "max_epochs": 1, "features": 4}
SMALL |= {"random_state": 0}


def regions(*names: str) -> tuple[str, ...]:
    pytest.importorskip("holidays")
    return check_holidays(names)


def test_a_holiday_is_told_on_its_day_before_and_after() -> None:
    days = pd.date_range("2024-12-23", "2025-01-07")
    table = calendar_table(days, regions("DE", "DE-BY"))
    of_bavaria = table["holiday DE-BY"]
    assert pd.DatetimeIndex(of_bavaria[of_bavaria > 0].index).strftime("%m-%d").tolist() == [
        *("12-25", "12-26", "01-01", "01-06")
    ]
    assert table.loc["2025-01-06", "holiday DE"] == 0  # Epiphany is none of all Germany
    before, after = table["holiday DE-BY before"], table["holiday DE-BY after"]
    np.testing.assert_array_equal(before[:-1], of_bavaria[1:])
    np.testing.assert_array_equal(after[1:], of_bavaria[:-1])
    assert before.iloc[0] == after.iloc[0] == 0
    assert after.iloc[-1] == 1


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("step", ["15min", "h", "12h", "D", "B"])
def test_a_stamp_counts_by_its_day_on_the_wall(zone: str | None, step: str) -> None:
    stamps = pd.date_range("2024-04-26", "2024-05-13", freq=step, tz=zone)
    flag = calendar_table(stamps, regions("FR"))["holiday FR"]
    wanted = [f"{stamp:%m-%d}" in ("05-01", "05-08", "05-09") for stamp in stamps]
    np.testing.assert_array_equal(flag, wanted)


def test_spans_of_time_count_their_holidays() -> None:
    months = pd.period_range("2024-04", "2024-06", freq="M")
    assert calendar_table(months, regions("FR"))["holiday FR"].tolist() == [1, 4, 0]
    hours = pd.period_range("2024-04-30 22:00", periods=4, freq="h")
    assert calendar_table(hours, regions("FR"))["holiday FR"].tolist() == [0, 0, 1, 1]


def test_exchanges_are_regions_too() -> None:
    days = pd.date_range("2024-03-28", "2024-04-01")
    assert calendar_table(days, regions("XNYS"))["holiday XNYS"].tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("kind", ["daily", "hourly", "period", "dict"])
def test_a_model_reads_them_and_keeps_them(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("holidays")
    step = "8h" if kind == "hourly" else "D"
    index: Any = pd.date_range("2023-01-01", periods=500, freq=step)
    off = calendar_table(index, regions("DE-BY"))["holiday DE-BY"]
    noise = np.random.default_rng(0).normal(0, 0.1, 500)
    index = index.to_period() if kind == "period" else index
    frame = pd.DataFrame({"load": 10 - 5 * off.to_numpy() + noise}, index)
    table: Any = {"a": frame, "b": frame + 1} if kind == "dict" else frame
    whole: Any = SMALL | {"max_epochs": 2, "horizon": 21 if kind == "hourly" else 7}
    model = TSM2Forecaster(**whole, holidays=("DE-BY", "US")).fit(table)
    labels = model.knowledge_.labels("calendar")
    assert labels[:3] == ["holiday DE-BY", "holiday DE-BY before", "holiday DE-BY after"]
    assert len(labels) == 6
    forecast = model.predict()
    model.save(tmp_path)
    loaded = TSM2Forecaster.load(tmp_path)
    assert tuple(loaded.holidays) == ("DE-BY", "US")
    again: Any = loaded.predict()
    for name in table if kind == "dict" else [...]:
        one, two = (each if name is ... else each[name] for each in (forecast, again))
        pd.testing.assert_frame_equal(one, two)
    if kind == "daily":  # it has learned what a holiday does
        ends = frame.loc[:"2024-04-28"]
        ahead = model.predict(ends)["load"]  # 1 May is one
        assert ahead.idxmin() == pd.Timestamp("2024-05-01")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("DE-BY", r"must be a sequence of regions, got 'DE-BY'.*holidays=\('DE-BY', 'FR'\)"),
        (None, "must be a sequence of regions, got None"),
        (["DE", "DE"], "has a region twice"),
        (["DE-BX"], r"does not know the region 'DE-BX'.*Did you mean .*'DE-BY'"),
        (["de-by"], "does not know the region 'de-by'"),
        (["Germany"], "does not know the region 'Germany'"),
        ([5], "does not know the region 5"),
    ],
)
def test_unknown_regions_are_refused(given: Any, message: str) -> None:
    pytest.importorskip("holidays")
    with pytest.raises(ParameterError, match=message):
        check_holidays(given)


@pytest.mark.parametrize("step", ["W-SUN", "MS", "ME", "QE", "2D", "36h"])
def test_stamps_of_more_than_a_day_are_refused(step: str) -> None:
    pytest.importorskip("holidays")
    index = pd.date_range("2020-01-01", periods=60, freq=step)
    frame = pd.DataFrame({"load": np.arange(60.0)}, index)
    with pytest.raises(ParameterError, match="holidays need rows that stand for a day or less"):
        TSM2Forecaster(**SMALL, holidays=["FR"]).fit(frame)


def test_rows_without_dates_are_refused() -> None:
    pytest.importorskip("holidays")
    with pytest.raises(ParameterError, match="need time stamps, but the rows are numbered"):
        TSM2Forecaster(**SMALL, holidays=["FR"]).fit(np.arange(60.0)[:, None])


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "holidays", None)
    with pytest.raises(DependencyError, match=r"pip install 'tsm2\[holidays\]'"):
        check_holidays(["FR"])
    assert check_holidays(()) == ()
