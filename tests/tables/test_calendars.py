"""Calendar features: known phases at known stamps, and clear refusals."""

import numpy as np
import pandas as pd
import pytest

from tsm2.errors import ParameterError
from tsm2.tables.calendars import CALENDAR, calendar_table, check_calendar


def angle(table: pd.DataFrame, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The phase in turns, in [0, 1), back from sine and cosine."""
    turns: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = np.arctan2(
        table[f"{name} sin"].to_numpy(), table[f"{name} cos"].to_numpy()
    ) / (2 * np.pi)
    return turns % 1


@pytest.mark.parametrize(
    ("name", "stamp", "phase"),
    [
        ("minute", "2024-01-01 00:15", 0.25),
        ("hour", "2024-01-01 18:00", 0.75),
        ("hour", "2024-01-01 18:30", 18.5 / 24),
        ("dayofweek", "2024-01-04 12:00", 3.5 / 7),  # a Thursday
        ("day", "2024-02-15", 14 / 29),
        ("dayofyear", "2023-12-31", 364 / 365),
        ("dayofyear", "2024-12-31", 365 / 366),
        ("month", "2024-10-01", 0.75),
        ("quarter", "2024-10-01", 0.75),
    ],
)
def test_a_stamp_has_its_phase(name: str, stamp: str, phase: float) -> None:
    table = calendar_table(pd.DatetimeIndex([stamp]), [name])
    assert angle(table, name) == pytest.approx([phase])


def test_every_feature_comes_round_evenly() -> None:
    stamps = pd.date_range("2023-01-01", "2024-12-31 23:00", freq="h")
    table = calendar_table(stamps, [*CALENDAR, "weekend"])
    assert table.shape == (len(stamps), 2 * len(CALENDAR) + 1)
    for name in CALENDAR:
        phase = angle(table, name)
        forward = np.diff(phase) % 1
        assert forward.max() < 0.3 or name == "quarter"  # never a step back
    assert table["weekend"].mean() == pytest.approx(2 / 7, abs=0.01)


def test_an_hour_is_the_hour_on_the_wall() -> None:
    stamps = pd.date_range("2024-06-01", periods=24, freq="h", tz="UTC")
    there = stamps.tz_convert("Asia/Tokyo")
    shifted = angle(calendar_table(there, ["hour"]), "hour")
    np.testing.assert_allclose(shifted, (np.arange(24) + 9) % 24 / 24, atol=1e-9)


def test_periods_have_features_too() -> None:
    periods = pd.period_range("2024-01", periods=12, freq="M")
    phase = angle(calendar_table(periods, ["month"]), "month")
    np.testing.assert_allclose(phase, np.arange(12) / 12, atol=1e-9)


@pytest.mark.parametrize("names", ["hour", ("hours",), ("hour", "hour"), 5])
def test_unknown_features_are_refused(names: object) -> None:
    with pytest.raises(ParameterError, match=r"calendar.*Known: minute, hour"):
        check_calendar(names)


def test_numbered_rows_have_no_calendar() -> None:
    with pytest.raises(ParameterError, match="need time stamps, but the rows are numbered"):
        calendar_table(pd.RangeIndex(5), ["hour"])
