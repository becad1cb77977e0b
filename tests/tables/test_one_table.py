"""Tables are read or refused with a reason, continued without overlap, and written as they came."""

import datetime
import io
import json
import re
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from tsm2.errors import FrameError, SavedModelError
from tsm2.tables.layout import Layout, layout_from_json, layout_to_json
from tsm2.tables.read import read
from tsm2.tables.series import Series, stamp_from_json, stamp_to_json
from tsm2.tables.stamps import stamps_before
from tsm2.tables.write import write


def frame_on(index: Any, columns: Any = ("a", "b")) -> Any:  # pandas-stubs list every dtype
    values = np.arange(len(index) * len(columns), dtype=float).reshape(len(index), -1)
    return pd.DataFrame(values, index=index, columns=list(columns))


def hours(n: int = 48, **options: Any) -> pd.DatetimeIndex:
    return pd.date_range("2024-01-01", periods=n, freq="h", **options)


def bare(index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return the index as a file gives it: without a frequency."""
    return pd.DatetimeIndex(list(index), name=index.name)


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(FrameError) as caught:
        call()
    return str(caught.value)


# --- what is read ---------------------------------------------------------------------------------


def test_a_frame_becomes_numbers_of_its_own() -> None:
    frame = frame_on(hours())
    before = frame.copy()
    panel = read(frame)
    assert panel.values.dtype == np.float64
    assert panel.values.flags.c_contiguous
    assert panel.values.flags.writeable
    assert not np.shares_memory(panel.values, frame.to_numpy())
    panel.values[:] = 0
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_index_equal(panel.index, frame.index)


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_becomes_numbers_of_its_own(order: Any) -> None:
    array = np.asarray(np.arange(6.0).reshape(3, 2), order=order)
    array.flags.writeable = False
    panel = read(array)
    assert panel.values.flags.c_contiguous
    assert panel.values.flags.writeable
    assert not np.shares_memory(panel.values, array)
    np.testing.assert_array_equal(panel.values, array)
    assert panel.index.equals(pd.RangeIndex(3))
    assert panel.layout.kind == "array"


@pytest.mark.parametrize(
    "X",
    [
        [[1, 2], [3, 4]],
        ((1, 2), (3, 4)),
        np.array([[1, 2], [3, 4]], dtype=object),
        np.array([[1, 2], [3, 4]], dtype=np.float16),
        torch.tensor([[1, 2], [3, 4]]),
        [np.array([1, 2]), np.array([3, 4])],
    ],
    ids=lambda X: type(X).__name__,
)
def test_array_likes_are_read(X: Any) -> None:
    panel = read(X)
    np.testing.assert_array_equal(panel.values, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "int8", "uint64", "bool", "Int64", "Float32", "boolean"]
)
def test_numeric_dtypes_are_read(dtype: str) -> None:
    frame = frame_on(hours(2), columns=("a",)).astype(dtype)
    np.testing.assert_array_equal(read(frame).values, [[0], [1]])


def test_columns_of_different_dtypes_are_read() -> None:
    frame = pd.DataFrame(
        {"a": [True, False], "b": pd.array([1, 2], dtype="Int64"), "c": [2**63, 2**64 - 1]}
    )
    wanted = [[1, 1, 2.0**63], [0, 2, 2.0**64]]
    np.testing.assert_array_equal(read(frame).values, wanted)


@pytest.mark.parametrize(
    "alias",
    ["MS", "ME", "QE", "QS-OCT", "W-SUN", "W-WED", "B", "D", "3D", "h", "15min", "s", "YS", "BME"],
)
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_a_frequency_is_inferred_and_continued(alias: str, zone: str | None) -> None:
    whole = pd.date_range("2024-03-25", periods=260, freq=alias, tz=zone, name="time")
    frame = frame_on(bare(whole[:250]))
    panel = read(frame)
    later = panel.stamps_behind(10)
    assert later.equals(whole[250:])
    assert later.name == "time"


def test_days_keep_their_hour_when_the_clocks_change_and_hours_do_not() -> None:
    days = pd.date_range("2024-03-28 09:00", periods=3, freq="D", tz="Europe/Berlin")
    later = read(frame_on(days)).stamps_behind(3)
    assert [stamp.hour for stamp in later] == [9, 9, 9]
    elapsed = pd.date_range("2024-03-28 09:00", periods=3, freq="24h", tz="Europe/Berlin")
    later = read(frame_on(elapsed)).stamps_behind(3)
    assert [stamp.hour for stamp in later] == [10, 10, 10]


def test_a_daily_hour_that_the_clocks_skip_moves_forward_for_that_day() -> None:
    days = pd.date_range("2024-03-28 02:30", periods=3, freq="D", tz="Europe/Berlin")
    later = read(frame_on(days)).stamps_behind(2)
    assert [f"{stamp:%d %H:%M}" for stamp in later] == ["31 03:00", "01 02:30"]


def test_a_daily_hour_that_comes_twice_is_the_first_one() -> None:
    days = pd.date_range("2024-10-25 02:30", periods=2, freq="D", tz="Europe/Berlin")
    later = read(frame_on(days)).stamps_behind(2)
    assert [f"{stamp:%d %H:%M%z}" for stamp in later] == ["27 02:30+0200", "28 02:30+0100"]


def test_two_rows_give_their_difference() -> None:
    assert read(frame_on(bare(hours(2)))).layout.frequency == "h"
    days = pd.date_range("2024-03-30", periods=2, freq="D", tz="Europe/Berlin")
    assert read(frame_on(bare(days))).layout.frequency == "D"


def test_one_row_needs_a_frequency() -> None:
    frame = frame_on(pd.DatetimeIndex(["2024-01-31"]))
    assert "one row" in error_of(lambda: read(frame))
    panel = read(frame, frequency="ME")
    assert panel.stamps_behind(1)[0] == pd.Timestamp("2024-02-29")
    assert "row 0" in error_of(lambda: read(frame, frequency="MS"))


def test_one_row_of_a_known_frequency_is_enough() -> None:
    assert read(frame_on(hours(1))).layout.frequency == "h"
    assert read(frame_on(pd.RangeIndex(6, 8, 2))).layout.frequency == 2
    assert read(frame_on(pd.period_range("2024", periods=1, freq="M"))).layout
    assert read(frame_on(pd.Index([7])), frequency=3).layout.frequency == 3
    assert "one row, at 7" in error_of(lambda: read(frame_on(pd.Index([7]))))


def test_a_given_frequency_is_kept() -> None:
    month = pd.DatetimeIndex(["2024-01-01", "2024-02-01"])
    assert read(frame_on(month)).layout.frequency == "MS"
    assert read(frame_on(month), frequency="31D").layout.frequency == "31D"
    assert read(frame_on(hours()), frequency="60min").layout.frequency == "60min"
    periods = pd.period_range("2024-01", periods=3, freq="M")
    assert read(frame_on(periods), frequency="M").layout.frequency == "M"


@pytest.mark.parametrize(
    ("index", "wanted"),
    [
        (pd.RangeIndex(10, 20, 5), [20, 25]),
        (pd.Index([-2, -1], dtype="int8"), [0, 1]),
        (pd.Index([3, 6, 9], dtype="Int64"), [12, 15]),
        (pd.Index([0, 2], dtype="uint64"), [4, 6]),
    ],
)
def test_whole_numbers_are_continued_by_their_step(index: pd.Index, wanted: list[int]) -> None:
    panel = read(frame_on(index))
    assert panel.stamps_behind(2).tolist() == wanted


def test_periods_are_continued() -> None:
    index = pd.period_range("2024-11", periods=3, freq="2M", name="p")
    panel = read(frame_on(index))
    wanted = pd.period_range("2025-05", periods=2, freq="2M", name="p")
    pd.testing.assert_index_equal(panel.stamps_behind(2), wanted)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_resolution_of_the_stamps_is_kept(unit: Any) -> None:
    panel = read(frame_on(hours(3).as_unit(unit)))
    assert getattr(panel.stamps_behind(2), "unit", None) == unit


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        ("UTC", "UTC"),
        (datetime.UTC, "UTC"),
        (datetime.timezone(datetime.timedelta(hours=5.5)), "UTC+05:30"),
        ("dateutil/Europe/Berlin", "Europe/Berlin"),
    ],
    ids=str,
)
def test_time_zones_have_a_portable_name(zone: Any, name: str) -> None:
    index = hours(3, tz="UTC").tz_convert(zone)
    layout = read(frame_on(index)).layout
    assert layout.timezone == name
    back = stamp_from_json(stamp_to_json(index[0]), layout)
    assert back == index[0]


# --- what is refused ------------------------------------------------------------------------------


def labelled(columns: Any, **options: Any) -> pd.DataFrame:
    return pd.DataFrame(np.zeros((3, len(columns))), columns=pd.Index(columns, **options))


class Polars:
    """Stands for a table of another library."""

    def to_pandas(self) -> Any:
        return frame_on(hours())


def with_cell(value: object) -> Any:
    frame = frame_on(hours())
    frame.iloc[5, 1] = value
    return frame


def long_table() -> pd.DataFrame:
    return pd.DataFrame({"unique_id": ["a"] * 3, "ds": hours(3), "y": [1, 2, 3]})


REFUSED: dict[str, tuple[Any, str]] = {
    # containers
    "masked": (lambda: np.ma.masked_array([[1.0]], mask=True), "a mask would be ignored"),
    "stamps": (lambda: hours().to_numpy()[:, None], "time stamps are no values"),
    "other library": (Polars, r"Polars, .* pass X.to_pandas"),
    "nothing": (lambda: None, "NoneType that cannot be read as a 2-D table"),
    "text": (lambda: "table", "could not convert string"),
    "1-D": (lambda: np.zeros(3), r"Expected 2D array, got 1D array(.|\n)*Reshape your data"),
    "1-D list": (lambda: [1, 2], "got 1D array"),
    "3-D": (lambda: np.zeros((2, 2, 2)), "dim 3"),
    "ragged": (lambda: [[1], [2, 3]], "inhomogeneous"),
    "no rows": (lambda: np.zeros((0, 2)), r"0 sample\(s\)"),
    "no columns": (lambda: np.zeros((2, 0)), r"0 feature\(s\) \(shape=\(2, 0\)\)"),
    "complex": (lambda: np.ones((2, 2), dtype=complex), "Complex data not supported"),
    "words": (lambda: np.array([["a"]]), "could not convert string"),
    "huge integer": (lambda: np.array([[10**400]], dtype=object), "too large"),
    "gradient": (lambda: torch.ones(2, 2, requires_grad=True), "requires grad"),
    # columns
    "frame without columns": (lambda: frame_on(hours())[[]], r"0 feature\(s\)"),
    "frame without rows": (lambda: frame_on(hours())[:0], r"0 sample\(s\)"),
    "equal labels": (lambda: labelled(["a", "b", "a"]), "column 'a' is there more than once"),
    "levels": (lambda: labelled([("a", 1), ("b", 2)]), "MultiIndex of 2 levels"),
    "no label": (lambda: labelled([None, "a"], dtype=object), "label of a column is None"),
    "NaN label": (lambda: labelled([np.nan, 1.0]), "label of a column is NaN"),
    "dates as labels": (lambda: labelled(hours(2)), "Timestamp.*transpose the table"),
    "NaN in a label": (
        lambda: labelled([("a", np.nan)], tupleize_cols=False),
        "label of a column is NaN",
    ),
    "odd name": (lambda: frame_on(hours()).rename_axis(index=hours(1)[0]), "name of the index is"),
    "column of text": (lambda: frame_on(hours()).assign(c="x"), r"not: 'c' \((str|object)\). Conv"),
    "column of dates": (lambda: frame_on(hours(3)).assign(c=hours(3)), r"X.set_index\('c'\)"),
    "columns of dates": (
        lambda: frame_on(range(3)).assign(c=hours(3), d=hours(3)),
        "2 columns of time stamps, 'c', 'd', but one alone .* Drop the others",
    ),
    "long under other names": (
        lambda: long_table().rename(columns={"unique_id": "shop"}),
        r"long table.*id_col=..., time_col='ds', target_col=.*X.pivot\(index='ds'",
    ),
    "category": (lambda: frame_on(hours()).astype("category"), r"'a' \(category\), 'b'"),
    "many": (lambda: labelled([*"abcdefg"]).astype("category"), r"'e' \(category\) and 2 more"),
    "complex column": (lambda: frame_on(hours()).astype(complex), "Complex data not supported"),
    "sparse column": (lambda: frame_on(hours()).astype("Sparse[float]"), "'a', 'b' are sparse"),
    # cells
    "NaN": (lambda: with_cell(np.nan), r"1 NaN value.*'b' \(1, first at 2024-01-01 05:00:00\)"),
    "infinity": (lambda: with_cell(-np.inf), r"1 infinity value.*'b'"),
    "nullable": (lambda: with_cell(np.nan).astype("Float64"), "1 NaN value"),
    "cells of arrays": (lambda: [[np.nan, 1], [np.inf, 2]], "1 NaN and 1 infinity .*0 .2, first"),
    "all NaN": (lambda: pd.DataFrame(np.full((2, 5), np.nan)), "10 NaN .* and 2 more columns"),
    # stamps
    "rows in three levels": (
        lambda: long_table().assign(shop=1).set_index(["shop", "unique_id", "ds"]),
        "rows have a MultiI",
    ),
    "dates as text": (lambda: frame_on(hours().astype(str)), r"pd.to_datetime\(X.index\)"),
    "dates as objects": (lambda: frame_on(pd.Index(hours().date)), r"dtype object.*to_datetime"),
    "fractions": (lambda: frame_on(pd.Index([0.0, 1.0])), "dtype float64"),
    "durations": (lambda: frame_on(hours() - hours()[0]), "TimedeltaIndex"),
    "NaT": (lambda: frame_on(hours(4).insert(2, pd.NaT)), r"1 missing stamps \(NaT\).* row 2"),
    "repeated": (
        lambda: frame_on(hours(4).repeat(2)),
        "duplicated stamps: 4 .* first 2024-01-01 00:00:00, 2024-01-01 01:00:00, 2024-01-01 02",
    ),
    "unsorted": (
        lambda: frame_on(hours(4)[[0, 2, 1, 3]]),
        "unsorted: row 2 at 2024-01-01 01:00:00 follows 2024-01-01 02:00:00",
    ),
    "backwards": (lambda: frame_on(pd.RangeIndex(3, 0, -1)), "unsorted: row 1 at 2 follows 3"),
    "gap": (
        lambda: frame_on(hours().delete(20)),
        r"frequency 'h', row 20 should be at 2024-01-01 20:00:00, but is at 2024-01-01 21:00:00.*"
        r"X.asfreq\('h'\).*X.resample\('h'\).*X.reset_index\(drop=True\)",
    ),
    "gap early": (lambda: frame_on(hours().delete(1)), "'h', row 1 should be at 2024-01-01 01"),
    "holiday": (
        lambda: frame_on(pd.date_range("2024-01-01", periods=30, freq="B").delete(7)),
        "frequency 'B', row 7 should be at 2024-01-10 00:00:00",
    ),
    "missing month": (
        lambda: frame_on(pd.date_range("2024-01-01", periods=30, freq="MS").delete(14)),
        "frequency 'MS', row 14 should be at 2025-03-01",
    ),
    "jitter": (
        lambda: frame_on(hours() + pd.to_timedelta(np.arange(48) % 5, unit="s")),
        "irregular",
    ),
    "missing period": (
        lambda: frame_on(pd.period_range("2024", periods=5, freq="M").delete(2)),
        "row 2 should be at 2024-03, but is at 2024-04",
    ),
    "missing number": (lambda: frame_on([1, 2, 4, 5]), "row 2 should be at 3, but is at 4"),
    "far apart": (lambda: frame_on([-(2**63), 2**63 - 1]), "leave what pandas can represent"),
    "stamps far apart": (
        lambda: frame_on(
            pd.DatetimeIndex(["2000-01-01", "2293-01-01T00:00:00.000001"]).as_unit("us")
        ),
        "too far apart",
    ),
    "beyond 64 bits": (lambda: frame_on(pd.Index([2**64 - 2, 2**64 - 1])), "can represent"),
    "months from any day as frequency": (
        lambda: frame_on(pd.date_range("2024-01-15", periods=9, freq=pd.DateOffset(months=1))),
        "which no alias expresses",
    ),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_table_that_cannot_be_used_is_refused_with_the_reason(
    make: Callable[[], Any], reason: str
) -> None:
    with pytest.raises(FrameError, match=reason):
        read(make())


@pytest.mark.parametrize(
    ("index", "frequency", "reason"),
    [
        (hours(), "D", r"contradicts .* 'h' apart: row 1 should be at 2024-01-02 .* 01:00:00"),
        (hours().delete(7), "h", r"irregular: with frequency 'h', row 7"),
        (hours(), "fortnight", "'fortnight' is no pandas alias"),
        (hours(), "-1h", "does not go forward"),
        (hours(), "0h", "does not go forward"),
        (hours(), 1, "frequency 1 is needed, but does not suit a DatetimeIndex"),
        (pd.RangeIndex(3), "h", "'h' is needed, but does not suit an index of whole numbers"),
        (pd.RangeIndex(3), 2, "frequency 2 .* contradicts .* 1 apart"),
        (pd.period_range("2024", periods=3, freq="M"), "D", "contradicts .* 'M' apart"),
        (pd.period_range("2024", periods=3, freq="M"), "ME", "'ME' is no alias for periods"),
    ],
)
def test_a_frequency_that_does_not_fit_is_refused(
    index: pd.Index, frequency: Any, reason: str
) -> None:
    with pytest.raises(FrameError, match=reason):
        read(frame_on(index), frequency=frequency)


def test_a_time_zone_without_a_name_is_refused() -> None:
    files = [Path(folder, "Europe", "Berlin") for folder in zoneinfo.TZPATH]
    data = next((file.read_bytes() for file in files if file.exists()), None)
    if data is None:
        pytest.skip("this machine keeps its time zones elsewhere")
    zone = zoneinfo.ZoneInfo.from_file(io.BytesIO(data))
    frame = frame_on(hours(3, tz="UTC").tz_convert(zone))
    assert "has no name that a saved model could keep" in error_of(lambda: read(frame))


def test_an_array_has_no_frequency() -> None:
    assert "has no time stamps" in error_of(lambda: read(np.ones((3, 2)), frequency="h"))
    assert read(np.ones((3, 2)), frequency=1).layout.frequency == 1


def test_a_column_that_does_not_convert_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TypeError("no numbers inside")  # as arrays of other libraries may

    frame = frame_on(hours())
    monkeypatch.setattr(pd.Series, "to_numpy", fail)
    message = error_of(lambda: read(frame))
    assert "column 'a' of dtype float64 cannot be read as numbers: no numbers inside" in message


def test_every_refusal_names_a_way_out() -> None:
    ways = re.compile(
        r"Use |Pass |pass |Drop |Fill |Insert |Make |Convert |Rename|Reshape|Keep|Flatten|Name it"
        r"|fit one|Select|X\.|split|convert|needed|required|supported|large"
    )
    for make, _ in REFUSED.values():
        with pytest.raises(FrameError, match=ways):
            read(make())


def test_stamps_beyond_what_pandas_can_represent_are_refused() -> None:
    panel = read(frame_on(pd.date_range("2262-04-09", periods=2, freq="D", unit="ns")))
    message = error_of(lambda: panel.stamps_behind(3))
    assert "leave what pandas can represent" in message


# --- a history continues the table of the fit -----------------------------------------------------

FITTED = frame_on(hours(), columns=("a", "b", "c"))


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        (FITTED[["a", "c"]], r"seen at fit time, yet now missing:\n- b\nPass"),
        (FITTED.assign(d=1.0, e=1.0), r"unseen at fit time:\n- d\n- e\nPass"),
        (FITTED.rename(columns={"a": "z"}), r"unseen at fit time:\n- z\n.* missing:\n- a\n"),
        (FITTED[["a", "c", "b"]], r"same order .*\nColumn 1 is 'c' where 'b' was"),
        (frame_on(hours(), range(7)), r"unseen at fit time:\n- 0\n- 1\n- 2\n- 3\n- 4\n- ...\n"),
        (FITTED.to_numpy(), "fit on a DataFrame, but this is an array"),
        (FITTED.tz_localize("UTC"), "fit on time zone none, but this table has UTC"),
        (FITTED.to_period("h"), "fit on a DatetimeIndex, but this table has a PeriodIndex"),
        (FITTED.reset_index(drop=True), "DatetimeIndex, but this table has an index of whole"),
        (FITTED.iloc[::2], "contradicts .* '2h' apart"),
    ],
)
def test_a_history_that_differs_is_refused(history: Any, reason: str) -> None:
    layout = read(FITTED).layout
    with pytest.raises(FrameError, match=reason):
        read(history, like=layout)


@pytest.mark.parametrize(
    "history",
    [
        FITTED,
        FITTED.iloc[10:20].astype("Float32"),
        frame_on(pd.date_range("2030", periods=9, freq="60min", unit="s", name="t"), "abc"),
    ],
)
def test_a_history_that_continues_passes(history: pd.DataFrame) -> None:
    assert read(history, like=read(FITTED).layout).layout.frequency == "h"


def test_columns_are_compared_before_their_cells() -> None:
    history = FITTED.reindex(columns=["a", "b", "typo"])  # NaN all over
    message = error_of(lambda: read(history, like=read(FITTED).layout))
    assert "- typo" in message


def test_the_same_months_pass_under_another_alias() -> None:
    quarters = [frame_on(pd.date_range("2024-01-01", periods=4, freq=f)) for f in ("QS", "QS-APR")]
    assert read(quarters[0], like=read(quarters[1]).layout).layout.frequency == "QS-APR"


# --- out ------------------------------------------------------------------------------------------


def test_a_forecast_for_an_array_is_an_array() -> None:
    panel = read([[1, 2], [3, 4]])
    index = panel.stamps_behind(3)
    values = np.ones((3, 2))
    forecast = write(Series(values=values, layout=panel.layout, index=index))
    assert isinstance(forecast, np.ndarray)
    assert not np.shares_memory(forecast, values)
    assert index.tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    "columns",
    [
        pd.Index(["a", "b"], name="variate"),
        pd.Index(["a", "b"], dtype=object),
        pd.Index([("a", 1), ("b", 2)], tupleize_cols=False, name=("x", 1)),
        pd.Index([3, 1]),
        pd.RangeIndex(2),
        pd.Index([0.5, 1.5]),
        pd.Index([True, False]),
        pd.Index(["a", 1], dtype=object),
        pd.CategoricalIndex(["a", "b"]),
        pd.Index(np.array([3, 1], dtype=np.uint8)),
    ],
    ids=lambda columns: str(list(columns)),
)
def test_a_forecast_has_the_columns_of_the_table(columns: pd.Index) -> None:
    frame = pd.DataFrame(np.ones((3, 2)), columns=columns)
    layout = layout_from_json(json.loads(json.dumps(layout_to_json(read(frame).layout))))
    forecast = write(Series(values=np.ones((2, 2)), layout=layout, index=pd.RangeIndex(3, 5)))
    assert isinstance(forecast, pd.DataFrame)
    pd.testing.assert_index_equal(forecast.columns, columns, exact="equiv")
    assert pd.concat([frame, forecast]).columns.equals(columns)


def test_a_forecast_does_not_share_memory() -> None:
    values = np.ones((2, 2))
    layout = read(frame_on(pd.RangeIndex(3))).layout
    forecast = write(Series(values=values, layout=layout, index=pd.RangeIndex(3, 5)))
    values[:] = 7
    assert (np.asarray(forecast) == 1).all()


# --- saved ----------------------------------------------------------------------------------------


def saved_layout(**changes: Any) -> dict[str, Any]:
    return layout_to_json(read(FITTED).layout) | changes


@pytest.mark.parametrize(
    "saved",
    [
        {},
        [],
        {**saved_layout(), "extra": 1},
        saved_layout(kind="tensor"),
        saved_layout(index_kind="level"),
        saved_layout(frequency=1),
        saved_layout(columns="abc"),
    ],
)
def test_a_damaged_layout_is_refused(saved: Any) -> None:
    with pytest.raises(SavedModelError, match="saved layout"):
        layout_from_json(saved)


@pytest.mark.parametrize("saved", ["yesterday", None, [1], "2024-13-01"])
def test_a_damaged_stamp_is_refused(saved: Any) -> None:
    layout = read(frame_on(pd.RangeIndex(3))).layout
    for each in (read(FITTED.tz_localize("UTC")).layout, layout):
        with pytest.raises(SavedModelError, match="saved stamp"):
            stamp_from_json(saved, each)


def comes_back(panel: Series) -> None:
    """Check that a table's index can be rebuilt from JSON."""
    saved = json.loads(json.dumps([layout_to_json(panel.layout), stamp_to_json(panel.index[-1])]))
    layout = layout_from_json(saved[0])
    assert layout == panel.layout
    index = stamps_before(
        stamp_from_json(saved[1], layout), len(panel.index), layout.frequency, layout.clock
    ).rename(layout.index_name)
    assert index.equals(panel.index)
    assert index.name == panel.index.name
    back = Series(values=panel.values, layout=layout, index=index)
    assert back.stamps_behind(3).equals(panel.stamps_behind(3))


# --- scikit-learn's own checks --------------------------------------------------------------------


class LastRow(BaseEstimator):  # type: ignore[misc]
    """The smallest estimator on top of this module, as TSM2Forecaster uses it."""

    def fit(self, X: Any, y: object = None) -> Self:
        panel = read(X)
        validate_data(self, X, skip_check_array=True)
        self.layout_ = panel.layout
        return self

    def predict(self, X: Any) -> Any:
        check_is_fitted(self)
        panel = read(X, like=self.layout_)
        n = len(panel.values)
        forecast = np.repeat(panel.values[-1:], n, axis=0)
        return write(Series(values=forecast, layout=self.layout_, index=panel.stamps_behind(n)))


EXCHANGEABLE_ROWS = {
    "check_methods_sample_order_invariance": "the order of the rows is the data",
    "check_methods_subset_invariance": "the order of the rows is the data",
}


@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [LastRow()], expected_failed_checks=lambda estimator: EXCHANGEABLE_ROWS
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_accepts_what_is_read_and_refused(estimator: Any, check: Any) -> None:
    np.random.seed(0)  # noqa: NPY002 (checks shuffle with it, and a shuffle may keep the last row)
    check(estimator)


@pytest.mark.parametrize("matrix", ["csr", "csc", "coo", "dok", "lil", "bsr", "dia"])
def test_sparse_matrices_are_refused_as_such(matrix: str) -> None:
    for make in (scipy.sparse.eye, scipy.sparse.eye_array):
        with pytest.raises(TypeError, match=r"[Ss]parse") as caught:
            read(make(3, format=matrix))
        assert isinstance(caught.value, FrameError)


# --- any table ------------------------------------------------------------------------------------

ALIASES = ["h", "15min", "D", "2D", "B", "W-WED", "MS", "ME", "2ME", "QE-NOV", "YS-JUL", "s", "36h"]
LABELS = st.one_of(
    st.text(max_size=5),
    st.integers(-(2**40), 2**40),
    st.tuples(st.text(max_size=2), st.integers(0, 9)),
)


@st.composite
def indexes(draw: st.DrawFn, length: int) -> tuple[pd.Index, Any]:
    """An index and its frequency."""
    name = draw(st.none() | st.text(max_size=3) | st.integers(0, 3))
    kind = draw(st.sampled_from(["datetime", "period", "range", "numbers"]))
    if kind == "period":
        alias = draw(st.sampled_from(["h", "D", "W-SUN", "M", "Q-NOV", "Y-DEC", "3M"]))
        ordinal = draw(st.integers(-500, 500))
        start = pd.Period(ordinal=ordinal, freq=alias)
        return pd.period_range(start, periods=length, freq=alias, name=name), alias
    if kind in ("range", "numbers"):
        step = draw(st.integers(1, 50))
        start_at = draw(st.integers(-(2**50), 2**50))
        plain = pd.RangeIndex(start_at, start_at + length * step, step, name=name)
        return (plain if kind == "range" else pd.Index(list(plain), name=name)), step
    alias = draw(st.sampled_from(ALIASES))
    zone = draw(st.sampled_from([None, "UTC", "Europe/Berlin", "America/New_York", "UTC+05:30"]))
    day = draw(st.dates(datetime.date(1990, 1, 1), datetime.date(2030, 1, 1)))
    hour = draw(st.integers(4, 23))  # the clocks change earlier
    unit: Any = draw(st.sampled_from(["s", "ms", "us", "ns"]))
    start_stamp = pd.Timestamp(day) + pd.Timedelta(hours=hour)
    index = pd.date_range(start_stamp, periods=length, freq=alias, tz=zone, unit=unit, name=name)
    return (index if draw(st.booleans()) else pd.DatetimeIndex(list(index), name=name)), alias


@st.composite
def tables(draw: st.DrawFn) -> tuple[pd.DataFrame, Any]:
    length = draw(st.integers(1, 60))
    index, frequency = draw(indexes(length))
    labels = draw(st.lists(LABELS, min_size=1, max_size=4, unique=True))
    dtypes = ["float64", "float32", "int64", "Int64", "Float64", "bool", "uint8"]
    data = {}
    for position in range(len(labels)):
        integers = draw(st.lists(st.integers(0, 200), min_size=length, max_size=length))
        data[position] = pd.Series(integers, index=index).astype(draw(st.sampled_from(dtypes)))
    frame = pd.DataFrame(data, index=index)
    frame.columns = pd.Index(labels, tupleize_cols=False, name=draw(st.none() | st.text()))
    return frame, frequency


@settings(deadline=None, max_examples=150)
@given(tables(), st.integers(1, 30), st.booleans())
def test_any_table_is_continued(table: tuple[pd.DataFrame, Any], n: int, told: bool) -> None:
    frame, frequency = table
    before = frame.copy()
    tell = frequency if told or len(frame) < 3 else None
    panel = read(frame, frequency=tell)
    np.testing.assert_array_equal(panel.values, frame.to_numpy(dtype=float))
    later = panel.stamps_behind(n)
    whole = frame.index.append(later)
    assert whole.is_unique
    assert whole.is_monotonic_increasing
    assert len(later) == n
    assert later.name == frame.index.name
    both = read(pd.DataFrame(np.ones((len(whole), 1)), index=whole), frequency=tell)
    assert both.layout.index_kind == panel.layout.index_kind
    forecast = write(Series(values=np.ones((n, frame.shape[1])), layout=panel.layout, index=later))
    assert isinstance(forecast, pd.DataFrame)
    pd.testing.assert_index_equal(forecast.columns, frame.columns)
    pd.testing.assert_frame_equal(frame, before)
    read(frame[-1:], like=panel.layout)
    comes_back(panel)


CELLS = st.one_of(
    st.floats(),
    st.integers(),
    st.none(),
    st.text(max_size=3),
    st.booleans(),
    st.complex_numbers(),
    st.datetimes(),
    st.binary(max_size=2),
    st.just(pd.NA),
    st.just(pd.NaT),
)
STAMPS = st.one_of(
    st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=3),
    st.none(),
    st.dates(),
)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_bad_frame_is_a_frame_error(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 3))
    alike = data.draw(st.sampled_from([STAMPS, st.integers(0, 9), st.datetimes()]))
    cells = data.draw(st.sampled_from([CELLS, st.floats(), st.integers()]))
    stamps = data.draw(st.lists(alike, min_size=rows, max_size=rows))
    table = data.draw(
        st.lists(st.lists(cells, min_size=columns, max_size=columns), min_size=rows, max_size=rows)
    )
    labels = data.draw(st.lists(LABELS | CELLS, min_size=columns, max_size=columns))
    array = np.empty((rows, columns), dtype=object)
    for i, row in enumerate(table):
        for j, cell in enumerate(row):
            array[i, j] = cell
    frame = pd.DataFrame(array, index=pd.Index(stamps), columns=pd.Index(labels, dtype=object))
    if data.draw(st.booleans()):
        frame = frame.infer_objects()
    frequency = data.draw(st.none() | st.sampled_from([*ALIASES, "xx", ""]) | st.integers(-2, 2))
    finite_or_refused(frame, frequency)
    finite_or_refused(array, None)
    finite_or_refused(table, None)


@settings(deadline=None, max_examples=100)
@given(st.recursive(CELLS, st.lists, max_leaves=12) | st.dictionaries(st.text(), CELLS))
def test_any_bad_object_is_a_frame_error(X: Any) -> None:
    finite_or_refused(X, None)


def finite_or_refused(X: Any, frequency: Any) -> None:
    try:
        panel = read(X, frequency=frequency)
    except FrameError as error:
        assert len(str(error)) > 20  # noqa: PT017
        return
    assert np.isfinite(panel.values).all()
    values: NDArray[np.float64] = panel.values
    assert values.ndim == 2
    assert isinstance(panel.layout, Layout)
