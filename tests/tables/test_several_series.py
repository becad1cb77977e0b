"""Several series are read in any container, checked, continued, and written as they came."""

import datetime
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsm2.errors import FrameError, ParameterError
from tsm2.tables.layout import layout_from_json, layout_to_json
from tsm2.tables.ragged import owners, places, ranges
from tsm2.tables.read import LongColumns, read
from tsm2.tables.stamps import stamps_after, stamps_from
from tsm2.tables.write import write


def hours(n: int, start: str = "2024-01-01", **options: Any) -> pd.DatetimeIndex:
    return pd.date_range(start, periods=n, freq="h", **options)


def frames(**options: Any) -> dict[str, pd.DataFrame]:
    """Three series of unequal lengths, of which one starts later."""
    lengths = {"b": (5, "2024-01-01"), "a": (2, "2024-03-01 05:00"), "c": (3, "2024-01-01")}
    return {
        name: pd.DataFrame(
            {"y": np.arange(n) + 10.0 * k, "z": -np.arange(n)},
            hours(n, start, name="ds", **options),
        )
        for k, (name, (n, start)) in enumerate(lengths.items())
    }


def levels(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, names=["unique_id"])


def long(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return levels(tables).reset_index()


BOTH = LongColumns(target=("y", "z"))
CONTAINERS: dict[str, Callable[[dict[str, pd.DataFrame]], Any]] = {
    "long": long,
    "levels": levels,
    "dict": lambda tables: tables,
    "list": lambda tables: list(tables.values()),
    "arrays": lambda tables: [table.to_numpy() for table in tables.values()],
    "named arrays": lambda tables: {name: table.to_numpy() for name, table in tables.items()},
}


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_holds_the_same_series(container: str) -> None:
    tables = frames()
    panel = read(CONTAINERS[container](tables), long=BOTH)
    assert panel.counts.tolist() == [5, 2, 3]
    assert panel.offsets.tolist() == [0, 5, 7, 10]
    wanted = np.concatenate([table.to_numpy() for table in tables.values()])
    np.testing.assert_array_equal(panel.values, wanted)
    assert panel.ids == ((0, 1, 2) if container in ("list", "arrays") else ("b", "a", "c"))
    assert panel.layout.columns == ((0, 1) if "arrays" in container else ("y", "z"))
    assert panel.layout.frequency == (1 if "arrays" in container else "h")
    stamps = [stamp for table in tables.values() for stamp in table.index]
    assert "arrays" in container or list(panel.index) == stamps


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_comes_in_goes_out(container: str) -> None:
    X = CONTAINERS[container](frames())
    back: Any = write(read(X, long=BOTH))
    pairs = (
        [(X, back)]
        if isinstance(X, pd.DataFrame)
        else list(zip(pieces(X), pieces(back), strict=True))
    )
    assert type(back) is type(X)
    for given_, written in pairs:
        if isinstance(given_, np.ndarray):
            np.testing.assert_array_equal(written, given_)
        else:
            pd.testing.assert_frame_equal(written, given_, check_dtype=False, check_freq=False)
    if isinstance(X, dict):
        assert list(back) == list(X)


def pieces(X: Any) -> list[Any]:
    if isinstance(X, pd.DataFrame):
        return [X]
    return list(X.values()) if isinstance(X, dict) else list(X)


def test_rows_of_several_series_may_be_mixed() -> None:
    frame = long(frames())
    by_time = frame.sort_values("ds", kind="stable")
    mixed = read(by_time, long=BOTH)
    assert mixed.ids == ("b", "c", "a")  # in order of appearance
    for name, table in frames().items():
        number = mixed.ids.index(name)
        rows = slice(mixed.offsets[number], mixed.offsets[number + 1])
        np.testing.assert_array_equal(mixed.values[rows], table)
        assert mixed.index[rows].equals(table.index)


@pytest.mark.parametrize("dtype", ["object", "category", "str", "int64", "Int64", "float64"])
def test_names_of_series_keep_their_dtype(dtype: Any) -> None:
    names = [7, 7, 3] if "64" in dtype else ["x", "x", "a"]
    frame = pd.DataFrame({"unique_id": names, "ds": [1, 2, 1], "y": [1.0, 2.0, 3.0]})
    frame["unique_id"] = frame["unique_id"].astype(dtype)
    written = write(read(frame))
    assert isinstance(written, pd.DataFrame)
    wanted = (
        frame.astype({"unique_id": frame["unique_id"].cat.categories.dtype})
        if (dtype == "category")
        else frame
    )
    pd.testing.assert_frame_equal(written, wanted)


def test_columns_of_a_long_frame_can_be_named() -> None:
    frame = long(frames()).drop(columns="z").set_axis(["shop", "day", "sales"], axis=1)
    columns = LongColumns(id="shop", time="day", target="sales")
    panel = read(frame, long=columns)
    assert panel.layout.columns == ("sales",)
    pd.testing.assert_frame_equal(write(panel), frame)
    with pytest.raises(ParameterError, match="name a column twice"):
        LongColumns(id="shop", target=("sales", "shop"))


def test_one_table_is_a_panel_of_one_series() -> None:
    table = frames()["b"]
    panel = read(table)
    assert (panel.ids, panel.offsets.tolist()) == ((None,), [0, 5])
    pd.testing.assert_frame_equal(write(panel), table, check_dtype=False)
    assert read([np.array([1, 2]), np.array([3, 4])]).layout.series == "one"


def test_the_longest_series_gives_the_frequency() -> None:
    months = pd.date_range("2024-01-31", periods=6, freq="ME")
    panel = read({"short": on(months[2:4]), "long": on(months), "one": on(months[:1])})
    assert panel.layout.frequency == "ME"
    later = panel.continued(np.zeros((3, 2, 1)))
    wanted = ["2024-05-31", "2024-06-30", "2024-07-31", "2024-08-31", "2024-02-29", "2024-03-31"]
    assert later.index.astype(str).tolist() == wanted


def on(index: Any) -> pd.DataFrame:
    return pd.DataFrame({"y": np.arange(len(index), dtype=float)}, pd.Index(list(index)))


def test_the_end_of_every_series() -> None:
    tail = read(frames()).tail(3)
    assert tail.counts.tolist() == [3, 2, 3]
    assert tail.values[:, 0].tolist() == [2, 3, 4, 10, 11, 20, 21, 22]
    assert list(tail.index[:3]) == list(hours(5)[2:])


def test_a_layout_of_series_can_be_saved() -> None:
    for container in CONTAINERS.values():
        layout = read(container(frames()), long=BOTH).layout
        assert layout_from_json(json.loads(json.dumps(layout_to_json(layout)))) == layout


# --- gaps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["h", "2h", "D", "3D", "B", "MS", "2ME", "W-WED", "QE-NOV"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_rows_that_series_lack_become_rows_of_nan(alias: str, zone: str | None) -> None:
    lengths = {"b": (20, "2024-01-03"), "a": (4, "2023-02-01"), "c": (9, "2024-03-29")}
    tables = {
        name: on(pd.date_range(start, periods=n, freq=alias, tz=zone))
        for name, (n, start) in lengths.items()
    }
    gappy = {
        name: table.drop(table.index[[1, 2] if name == "a" else [3]])
        for name, table in tables.items()
    }
    panel = read(gappy, missing="mask")
    assert panel.counts.tolist() == [20, 4, 9]
    assert list(panel.index) == [stamp for table in tables.values() for stamp in table.index]
    assert panel.layout.frequency == read(tables).layout.frequency
    whole = np.concatenate([table["y"].to_numpy() for table in tables.values()])
    lost = [3, 21, 22, 27]
    assert np.flatnonzero(np.isnan(panel.values[:, 0])).tolist() == lost
    np.testing.assert_array_equal(np.delete(panel.values[:, 0], lost), np.delete(whole, lost))
    with pytest.raises(FrameError, match="series 'b'"):
        read(gappy)


def test_periods_and_numbers_may_lack_rows() -> None:
    months = pd.period_range("2024-01", periods=6, freq="M")
    for index in (months, pd.RangeIndex(0, 60, 10)):
        tables = {"a": on(index).drop(index[2]), "b": on(index[1:4])}
        panel = read(tables, missing="ffill")
        assert list(panel.index) == [*index, *index[1:4]]
        np.testing.assert_array_equal(panel.values[:, 0], [0, 1, np.nan, 3, 4, 5, 0, 1, 2])


def test_a_stamp_beside_the_grid_is_no_gap() -> None:
    beside = on(hours(9).delete(3)[:7].insert(7, pd.Timestamp("2024-01-01 08:20")))
    with pytest.raises(FrameError, match=r"series 'a'.* row 3 should be at"):
        read({"a": beside, "b": on(hours(3))}, missing="mask")
    with pytest.raises(FrameError, match=r"series 'a'.* row 3 should be at"):
        read({"long": on(hours(20)), "a": beside}, missing="mask")
    far = on(pd.DatetimeIndex(["2020-01-01", "2020-01-01 01:00", "2024-01-01"]))
    with pytest.raises(FrameError, match=r"series 'a'.* row 2 should be at 2020-01-01 02:00"):
        read({"a": far}, missing="mask", frequency="h")


def test_series_are_padded_in_front() -> None:
    padded = read(frames()).padded(np.array([0, 3, 1]))
    assert padded.counts.tolist() == [5, 5, 4]
    wanted = [0, 1, 2, 3, 4, np.nan, np.nan, np.nan, 10, 11, np.nan, 20, 21, 22]
    np.testing.assert_array_equal(padded.values[:, 0], wanted)
    assert list(padded.index[5:10]) == [frames()["a"].index[k] for k in (0, 0, 0, 0, 1)]


# --- what is refused ------------------------------------------------------------------------------


def with_row(frame: pd.DataFrame, row: int, column: str, value: Any) -> pd.DataFrame:
    frame = frame.astype({"unique_id": object})
    frame.loc[row, column] = value
    return frame


LONG = long(frames()).drop(columns="z")
REFUSED: dict[str, tuple[Any, str]] = {
    "no time": (LONG.drop(columns="ds"), r"no column 'ds'; it has 'unique_id', 'y'.*time_col="),
    "no target": (LONG.rename(columns={"y": "sales"}), "no column 'y'.*target_col="),
    "more columns": (LONG.assign(price=1.0), r"more columns .* 'price'\. Drop them"),
    "a column twice": (pd.concat((LONG, LONG[["y"]]), axis=1), "has a column twice"),
    "no rows": (LONG[:0], r"no rows: 0 sample\(s\)"),
    "no name": (with_row(LONG, 6, "unique_id", None), "row 6 belongs to no series"),
    "odd name": (with_row(LONG, 6, "unique_id", hours(1)[0]), "a series is named Timestamp"),
    "unhashable": (LONG.assign(unique_id=pd.Series([[1]] * 10)), "cannot be compared"),
    "dates as text": (LONG.assign(ds=LONG["ds"].astype(str)), "'ds' holds .* pd.to_datetime"),
    "no stamp": (with_row(LONG, 6, "ds", pd.NaT), r"series 'a', as .* 1 missing stamps .* row 1"),
    "NaN": (with_row(LONG, 6, "y", np.nan), "series 'a'.* 1 NaN .* first at 2024-03-01 06:00:00"),
    "a text value": (LONG.assign(y="x"), r"not: 'y' \("),
    "twice": (pd.concat((LONG, LONG[6:7])), "series 'a'.* duplicated stamps: 1"),
    "unsorted": (LONG[::-1], "series 'c'.* unsorted: row 1 "),
    "a gap": (LONG.drop(2), "series 'b'.* irregular: with frequency 'h', row 2 should be at .* 02"),
    "a gap in a short one": (LONG.drop(8), "series 'c'.*contradicts the index.* '2h' apart"),
    "dict of text": ({"a": "text"}, "series 'a': it is a str, but a DataFrame or a 2-D array"),
    "series under other names": (
        {"a": frames()["a"]["y"], "b": frames()["a"]["z"]},
        r"series 'b': its columns is 'z', .* is 'y'.*X.rename\('y'\)",
    ),
    "list of columns": ([pd.Series([1.0], name="y"), [1.0]], "series 1: it is a list"),
    "list of indexes": ([hours(3), frames()["a"]], "series 0: it is a pandas DatetimeIndex"),
    "empty dict": ({}, "at least one is needed"),
    "empty table": ({"a": frames()["a"], "e": frames()["a"][:0]}, "series 'e': it has no rows"),
    "odd key": ({None: frames()["a"]}, "a series is named None"),
    "mixed": (
        [frames()["a"], np.ones((3, 2))],
        "series 1: its container is an array, but .* Dat",
    ),
    "columns": (
        {"a": frames()["a"], "b": frames()["b"][["z", "y"]]},
        "series 'b': its columns is 'z', 'y', but that of the first series is 'y', 'z'",
    ),
    "index": ([frames()["a"], frames()["b"].reset_index(drop=True)], "its index is range"),
    "zone": ([frames()["a"], frames(tz="UTC")["b"]], "its time zone is UTC, but .* is None"),
    "periods": (
        [frames()["a"].to_period("D")[:1], frames()["b"].to_period("h")],
        r"its frequency is period\[h\], but that of the first series is period\[D\]",
    ),
    "one row each": ([on([0]).set_axis(hours(1)[[0]])] * 2, "series 0.*one row, .* frequency="),
    "three levels": (
        pd.concat({"x": levels(frames())}),
        "MultiIndex of 3 levels .*and time",
    ),
    "an array with NaN": ([np.ones((2, 1)), np.array([[np.nan]])], "series 1, .* 1 NaN"),
    "far apart": ([on([0, 2**62]), on([2**62, 2**63 - 1])], "series 1.*contradicts|can represent"),
}


@pytest.mark.parametrize(("X", "reason"), REFUSED.values(), ids=REFUSED)
def test_series_that_cannot_be_used_are_refused_with_the_reason(X: Any, reason: str) -> None:
    with pytest.raises(FrameError, match=f"(?s){reason}"):
        read(X)


@pytest.mark.parametrize("given_", CONTAINERS)
@pytest.mark.parametrize("fitted", ["long", "levels", "dict", "list", "arrays"])
def test_a_history_comes_in_the_container_of_the_fit(fitted: str, given_: str) -> None:
    tables = frames()
    layout = read(CONTAINERS[fitted](tables), long=BOTH).layout
    if fitted == given_:
        read(CONTAINERS[given_]({"new": tables["b"]}), like=layout, long=BOTH)
        return
    wanted = "the model was fit on .*, but this is a.* Pass the same container"
    with pytest.raises(FrameError, match=wanted):
        read(CONTAINERS[given_](tables), like=layout, long=BOTH)


def test_a_history_of_other_variates_is_refused() -> None:
    layout = read(levels(frames())).layout
    with pytest.raises(FrameError, match="seen at fit time, yet now missing:\n- z"):
        read(levels(frames())[["y"]], like=layout)
    every_second = {name: table[::2] for name, table in frames().items()}
    with pytest.raises(FrameError, match=r"series 'b'.*contradicts"):
        read(levels(every_second), like=layout)


# --- stamps of many series ------------------------------------------------------------------------


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize(
    "alias",
    ["h", "36h", "15min", "D", "3D", "B", "2B", "W-WED", "MS", "2ME", "QE-NOV", "YS-JUL", "SMS-15"],
)
def test_stamps_of_many_series_are_those_of_each(alias: str, zone: str | None) -> None:
    starts = ["2024-03-27 02:30", "2023-11-06", "2024-10-24 02:30", "2024-02-29 07:00"]
    calendar = pd.DatetimeIndex(
        [stamps_from(pd.Timestamp(start, tz=zone), 1, alias)[0] for start in starts]
    )
    first, steps = calendar.repeat(9), np.tile(np.arange(0, 45, 5), len(starts))
    found = stamps_after(first, steps, alias)
    wanted = [
        stamps_from(stamp, step + 1, alias)[-1] for stamp, step in zip(first, steps, strict=True)
    ]
    assert list(found) == wanted
    assert getattr(found, "unit", None) == calendar.unit


def test_periods_and_numbers_of_many_series() -> None:
    periods = pd.PeriodIndex(["2024-01", "2023-05"], freq="2M")
    assert stamps_after(periods, np.array([1, 3]), "2M").astype(str).tolist() == [
        "2024-03",
        "2023-11",
    ]
    numbers = stamps_after(pd.Index([5, -1]), np.array([2, 0]), 10)
    assert numbers.tolist() == [25, -1]
    with pytest.raises(FrameError, match="what 64 bits can represent"):
        stamps_after(pd.Index([2**62]), np.array([4]), 2**61)
    with pytest.raises(FrameError, match="finer than the stamps"):
        stamps_after(hours(1, unit="s"), np.array([1]), "500ms")


def test_ragged_arrays() -> None:
    offsets = np.array([0, 2, 2, 5])
    assert owners(offsets).tolist() == [0, 0, 2, 2, 2]
    assert places(offsets).tolist() == [0, 1, 0, 1, 2]
    assert ranges(np.array([4, 9, -1]), np.array([2, 0, 2])).tolist() == [4, 5, -1, 0]


def test_ten_thousand_series_are_read_and_written_at_once() -> None:
    n, rows = 10_000, 30
    start = np.datetime64("2024-01-01") + np.arange(n) % 500
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat([f"s{k}" for k in range(n)], rows),
            "ds": (start[:, None] + np.arange(rows)).ravel().astype("datetime64[us]"),
            "y": np.arange(n * rows, dtype=float),
        }
    )
    for table in (frame, frame[frame["ds"].dt.day_of_week < 5].reset_index(drop=True)):
        begin = time.perf_counter()
        panel = read(table)
        later = write(panel.continued(np.zeros((n, 7, 1))))
        assert time.perf_counter() - begin < 5  # a loop over series would take a minute
        assert len(later) == n * 7
        pd.testing.assert_frame_equal(write(panel), table)


# --- any series -----------------------------------------------------------------------------------

ALIASES = ["h", "15min", "D", "2D", "B", "W-WED", "MS", "2ME", "QE-NOV", "s"]


@st.composite
def panels(draw: st.DrawFn) -> tuple[dict[Any, pd.DataFrame], Any]:
    """Tables with the same columns and frequency, by name."""
    ids = draw(st.sampled_from([st.text(max_size=4), st.integers(-5, 5)]))
    names = draw(st.lists(ids, min_size=1, max_size=5, unique=True))
    labels = draw(st.lists(st.text(max_size=3), min_size=1, max_size=3, unique=True))
    kind = draw(st.sampled_from(["datetime", "period", "numbers"]))
    zone = draw(st.sampled_from([None, "UTC", "Europe/Berlin"]))
    alias: Any = draw(st.sampled_from(ALIASES))
    dtype: Any = draw(st.sampled_from(["float64", "int64", "Int64", "bool", "float32"]))
    tables = {}
    for name in names:
        length = draw(st.integers(1, 20))
        day = draw(st.dates(datetime.date(2000, 1, 1), datetime.date(2030, 1, 1)))
        index: Any
        if kind == "datetime":
            index = pd.date_range(day, periods=length, freq=alias, tz=zone, name="t")
        elif kind == "period":
            index = pd.period_range(day, periods=length, freq="W-SUN", name="t")
        else:
            start = draw(st.integers(-100, 100))
            index = pd.RangeIndex(start, start + 3 * length, 3, name="t")
        size = length * len(labels)
        cells = draw(st.lists(st.integers(0, 200), min_size=size, max_size=size))
        table = np.array(cells).reshape(length, -1)
        tables[name] = pd.DataFrame(table, index, labels).astype(dtype)
    return tables, {"datetime": alias, "period": "W-SUN", "numbers": 3}[kind]


@settings(deadline=None, max_examples=60)
@given(panels(), st.sampled_from(["dict", "list", "levels", "long"]), st.integers(1, 9))
def test_any_series_are_continued_as_each_alone(
    drawn: tuple[dict[Any, pd.DataFrame], Any], container: str, n: int
) -> None:
    tables, frequency = drawn
    columns = LongColumns(id="+id", time="+time", target=tuple(next(iter(tables.values())).columns))
    X: Any = tables if container == "dict" else list(tables.values())
    if container in ("levels", "long"):
        X = pd.concat(tables, names=["+id", "+time"])
        X = X.reset_index() if container == "long" else X
    panel = read(X, frequency=frequency, long=columns)
    assert panel.values.shape == (sum(map(len, tables.values())), len(columns.targets))
    later = panel.continued(np.zeros((len(tables), n, len(columns.targets))))
    for number, table in enumerate(tables.values()):
        rows = slice(panel.offsets[number], panel.offsets[number + 1])
        np.testing.assert_array_equal(panel.values[rows], table.to_numpy(dtype=float))
        alone = read(table, frequency=frequency)
        wanted = alone.stamps_behind(n)
        assert list(later.index[number * n : (number + 1) * n]) == list(wanted)
    again = read(write(panel), frequency=frequency, long=columns)
    assert again.ids == panel.ids
    assert again.layout == panel.layout
    np.testing.assert_array_equal(again.values, panel.values)


IDS = st.one_of(st.text(max_size=2), st.integers(0, 2), st.none(), st.floats(), st.booleans())
STAMPS = st.one_of(
    st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=2),
    st.none(),
)
CELLS = st.one_of(st.floats(), st.integers(), st.text(max_size=2), st.none())


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_bad_long_frame_is_a_frame_error(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 6))
    ids, stamps, cells = (
        data.draw(st.lists(data.draw(st.sampled_from(kinds)), min_size=n, max_size=n))
        for kinds in (
            [IDS, st.integers(0, 1)],
            [STAMPS, st.integers(0, 3), st.integers(-(2**63), 2**63 - 1)],
            [CELLS, st.floats(), st.integers(0, 9)],
        )
    )
    frame = pd.DataFrame({"unique_id": ids, "ds": stamps, "y": cells})
    drop = data.draw(st.sampled_from([[], ["ds"], ["y"], ["unique_id"]]))
    for X in (frame.drop(columns=drop), frame.set_index(["unique_id", "ds"])):
        try:
            panel = read(X)
        except FrameError as error:
            assert len(str(error)) > 20  # noqa: PT017
            continue
        assert np.isfinite(panel.values).all()
        assert panel.offsets[-1] == len(panel.values) == len(panel.index)
        assert len(panel.ids) == len(panel.counts)
        assert (panel.counts > 0).all()
