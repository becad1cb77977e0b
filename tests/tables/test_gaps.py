"""Gaps: filled forward within a series; rows that a table lacks become rows of NaN."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsm2.errors import FrameError
from tsm2.tables.gaps import fill_forward
from tsm2.tables.read import read


@given(st.lists(st.sampled_from([np.nan, 1.0, 2.0, 3.0]), min_size=1), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_filling_forward_is_what_pandas_does(cells: list[float], cut: int) -> None:
    values = np.array(cells)[:, None]
    cut = min(cut, len(cells))
    first, second = pd.Series(cells[:cut], dtype=float), pd.Series(cells[cut:], dtype=float)
    wanted = np.concatenate((first.ffill(), second.ffill()))
    np.testing.assert_array_equal(
        fill_forward(values, np.array([0, cut, len(cells)]))[:, 0], wanted
    )
    np.testing.assert_array_equal(fill_forward(values)[:, 0], pd.Series(cells).ffill())


def hours(rows: int = 12) -> pd.DataFrame:
    index = pd.date_range("2024-03-01", periods=rows, freq="h", name="time")
    return pd.DataFrame({"a": np.arange(rows, dtype=float), "b": 1.0}, index)


INDEXES = {
    "hours": pd.date_range("2024-03-01", periods=12, freq="h"),
    "summer time": pd.date_range("2024-03-30 18:00", periods=12, freq="h", tz="Europe/Berlin"),
    "months": pd.date_range("2024-01-31", periods=12, freq="ME"),
    "business days": pd.date_range("2024-01-01", periods=12, freq="B"),
    "periods": pd.period_range("2024-01", periods=12, freq="M"),
    "numbers": pd.RangeIndex(10, 34, 2),
}


@pytest.mark.parametrize(("name", "index"), INDEXES.items(), ids=INDEXES.keys())
def test_rows_that_are_lacking_become_unknown(name: str, index: pd.Index) -> None:
    frame = hours().set_axis(index)
    frequency = {"months": "ME", "business days": "B"}.get(name)  # too few rows to infer it
    panel = read(frame.drop(index[[3, 7]]), frequency=frequency, missing="mask")
    assert list(panel.index) == list(index)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(panel.values).any(1)), [3, 7])
    np.testing.assert_array_equal(panel.values[4:7], frame.to_numpy()[4:7])


def test_a_whole_table_reads_the_same_however_gaps_are_treated() -> None:
    wanted = read(hours())
    for missing in ("mask", "ffill"):
        panel = read(hours(), missing=missing)
        np.testing.assert_array_equal(panel.values, wanted.values)
        assert panel.layout == wanted.layout
        assert panel.index.equals(wanted.index)


def test_what_is_no_gap_is_refused_as_ever() -> None:
    frame = hours()
    beside = frame.rename(index={frame.index[5]: frame.index[5] + pd.Timedelta("7min")})
    for bad, message in (
        (beside, "irregular"),
        (frame.replace(3.0, np.inf), "1 infinity"),
        (frame.iloc[[0, 0, 1]], "duplicated"),
        (frame.set_axis([*frame.index[:-1], pd.Timestamp("2200-01-01")]), "irregular"),
    ):
        with pytest.raises(FrameError, match=message):
            read(bad, missing="mask")
    with pytest.raises(FrameError, match=r"1 NaN.*missing='mask'"):
        read(frame.replace(3.0, np.nan))


def test_several_series_may_have_unknown_cells() -> None:
    frame = hours().replace(3.0, np.nan)
    for data in ([frame, hours()], pd.concat({"x": frame, "y": hours()})):
        panel = read(data, missing="mask")
        assert np.flatnonzero(np.isnan(panel.values).any(1)).tolist() == [3]
        with pytest.raises(FrameError, match="1 NaN"):
            read(data)
