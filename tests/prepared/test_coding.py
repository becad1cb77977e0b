"""Covariate tables: cells become numbers in standard units, rows are found by their stamp."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.errors import CovariateWarning, FrameError, SavedModelError
from tsm2.prepared.coding import Coding
from tsm2.tables.covariates import label_rows, read_covariates, read_static, rows_at
from tsm2.tables.read import read
from tsm2.tables.series import Series


def table(rows: int = 8) -> pd.DataFrame:
    index = pd.date_range("2024-03-01", periods=rows, freq="h")
    return pd.DataFrame(
        {
            "heat": np.arange(rows, dtype=float),
            "open": [True, False] * (rows // 2),
            "kind": ["b", "a", "c", "a"] * (rows // 4),
        },
        index,
    )


def panel(rows: int = 8) -> Series:
    return read(table(rows)[["heat"]])


# --- cells ----------------------------------------------------------------------------------------


def test_numbers_are_standardised_by_the_training_rows_alone() -> None:
    train = np.arange(8) < 4
    coding = Coding.of(table()[["heat", "open"]], "future_covariates", train=train)
    rows = coding.code(table()[["open", "heat"]])  # the order of columns is no matter
    np.testing.assert_allclose(rows[:4].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(rows[:4].std(0), 1)
    np.testing.assert_allclose(rows[:, 0], (np.arange(8) - 1.5) / np.arange(4).std())


def test_categories_are_zeros_and_ones() -> None:
    coding = Coding.of(table()[["kind"]], "future_covariates")
    assert coding.width == 3
    rows = coding.code(table()[["kind"]])
    np.testing.assert_array_equal(rows[:4], [[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("dtype", ["object", "str", "category", "string"])
def test_categories_are_the_same_in_any_dtype(dtype: str) -> None:
    coding = Coding.of(table()[["kind"]], "x")
    np.testing.assert_array_equal(
        coding.code(table()[["kind"]].astype(dtype)),  # type: ignore[arg-type]
        coding.code(table()[["kind"]]),
    )


def test_numbers_may_be_categories() -> None:
    frame = pd.DataFrame({"zone": pd.Categorical([3, 1, 3])})
    np.testing.assert_array_equal(Coding.of(frame, "x").code(frame), [[0, 1], [1, 0], [0, 1]])


def test_missing_cells_stay_missing() -> None:
    frame = table()
    frame.loc[frame.index[2], ["heat", "kind"]] = None
    coding = Coding.of(frame, "past_covariates")
    rows = coding.code(frame)
    assert np.isnan(rows[2]).tolist() == [True, False, True, True, True]
    assert np.isnan(rows).sum() == 4
    with pytest.raises(FrameError, match=r"past_covariates: column 'heat'.*02:00:00; in all 1 row"):
        coding.check_whole(rows, frame.index)
    coding.check_whole(rows, frame.index, may_lack=True)


def test_what_does_not_change_in_training_is_left_out_with_a_warning() -> None:
    frame = table().assign(flat=7.0, one="x")
    frame.loc[frame.index[6:], "flat"] = 8.0  # it changes, but after the training rows
    with pytest.warns(CovariateWarning, match="'flat', 'one' does not change"):
        coding = Coding.of(frame, "future_covariates", train=np.arange(8) < 6)
    assert coding.width == 1 + 1 + 3
    assert coding.code(frame).shape == (8, 5)


@pytest.mark.parametrize("kind", [True, 1, 1.0, "promo", pd.NA])
@pytest.mark.parametrize("known", [0, 3, 7])
def test_a_flag_that_is_there_or_missing_is_refused(kind: Any, known: int) -> None:
    """A missing cell may say no: the column is not one that does not change."""
    cells = [None] * 8
    cells[known] = kind
    frame = table().assign(flag=pd.Series(cells, dtype="object").to_numpy())
    first = "01:00" if known == 0 else "00:00"
    holds = "has no value at all" if kind is pd.NA else "is .* or missing"
    first = "00:00" if kind is pd.NA else first
    with pytest.raises(
        FrameError, match=rf"'flag' {holds}: [78] of 8 .*{first}:00.* says no.*fill"
    ):
        Coding.of(frame, "future_covariates")
    with pytest.warns(CovariateWarning, match=r"'flag' does not change.*Missing cells of 'flag'"):
        assert Coding.of(frame, "past_covariates", may_lack=True).left_out == ("flag",)
    numbers = table().assign(flag=pd.array([1] + [None] * 7, dtype="Int64"))
    with pytest.raises(FrameError, match=r"'flag' is .*1.* or missing: 7 of 8"):
        Coding.of(numbers, "future_covariates")


@pytest.mark.parametrize("missing", ["raise", "mask", "ffill"])
def test_flags_of_all_kinds_are_refused_in_a_fit(missing: Any) -> None:
    index = pd.date_range("2024-03-01", periods=24, freq="h")
    values = pd.DataFrame({"a": np.arange(24.0), "b": np.sin(np.arange(24.0))}, index)
    flag = pd.DataFrame({"promo": [True, None] * 12}, index)
    model = TSM2Forecaster(lookback=4, horizon=2, max_epochs=1, missing=missing)
    with pytest.raises(FrameError, match="future_covariates: column 'promo' is True or missing"):
        model.fit(values, future_covariates=flag)
    static = pd.DataFrame({"outdoors": ["yes", None]}, ["a", "b"])
    with pytest.raises(
        FrameError, match="static_covariates: column 'outdoors' is 'yes' or missing"
    ):
        model.fit(values, static_covariates=static)
    if missing == "raise":
        with pytest.raises(FrameError, match="past_covariates: column 'promo' is True or missing"):
            model.fit(values, past_covariates=flag)
    else:
        with pytest.warns(CovariateWarning, match="Missing cells of 'promo' do not say no"):
            model.fit(values, past_covariates=flag)


def test_a_coding_comes_back_from_json() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovariateWarning)
        coding = Coding.of(table().assign(flat=1.0), "future_covariates")
    assert Coding.from_json(coding.to_json()) == coding
    with pytest.raises(SavedModelError, match="damaged"):
        Coding.from_json({"name": "x"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="heat"), "lacks column 'heat'.*'heat', 'open', 'kind'"),
        (lambda f: f.assign(rain=1), "has column 'rain', which fit did not see"),
        (lambda f: f.assign(kind="d"), "holds 'd' at 2024-03-01 00:00:00, a category that fit"),
        (lambda f: f.assign(heat="warm"), "'heat' of dtype .* should hold numbers"),
        (lambda f: f.assign(heat=np.inf), "'heat' is infinite at 2024-03-01"),
    ],
)
def test_cells_unlike_those_of_the_fit_are_refused(change: Any, message: str) -> None:
    coding = Coding.of(table(), "future_covariates")
    with pytest.raises(FrameError, match=f"future_covariates.*{message}"):
        coding.code(change(table()))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.date_range("2024", periods=8), "neither numbers nor categories"),
        ([[1]] * 8, "a category is text or a number"),
        ([f"{k}" for k in range(8)], None),
    ],
)
def test_columns_that_cannot_be_coded_are_refused(column: Any, message: str | None) -> None:
    frame = table().assign(new=column)
    if message is None:
        assert Coding.of(frame, "x").width == 1 + 1 + 3 + 8
        return
    with pytest.raises(FrameError, match=f"x: column 'new'.*{message}"):
        Coding.of(frame, "x")


def test_too_many_categories_are_refused() -> None:
    with pytest.raises(FrameError, match="has 101 categories, but at most 100"):
        Coding.of(pd.DataFrame({"name": [f"{k}" for k in range(101)]}), "x")


# --- rows -----------------------------------------------------------------------------------------


def test_rows_that_are_lacking_are_listed_with_how_to_make_all() -> None:
    frame = table(12)
    needed = pd.date_range("2024-03-01 10:00", periods=6, freq="h")
    assert rows_at(frame.index, needed[:2], "future_covariates", panel()).tolist() == [10, 11]
    with pytest.raises(FrameError, match="lacks 4 of the 6 rows") as caught:
        rows_at(frame.index, needed, "future_covariates", panel())
    message = str(caught.value)
    assert "2024-03-01 12:00:00" in message
    recipe = message.partition("All that are needed: ")[2].rstrip(".")
    assert eval(recipe, {"pd": pd}).equals(needed)


@pytest.mark.parametrize(
    "index", [pd.RangeIndex(5, 21, 2), pd.period_range("2024-01", periods=8, freq="M")]
)
def test_the_recipe_makes_any_kind_of_stamps(index: pd.Index) -> None:
    own = read(pd.DataFrame({"a": np.arange(8.0)}, index))
    with pytest.raises(FrameError, match="All that are needed") as caught:
        rows_at(index[:0], index, "x", own)
    recipe = str(caught.value).partition("All that are needed: ")[2].rstrip(".")
    assert list(eval(recipe, {"pd": pd})) == list(index)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: (
                f.resample("D")
                .mean(numeric_only=True)
                .reindex(pd.date_range("2024-03-01", periods=3))
            ),
            "apart|irregular",
        ),
        (lambda f: f.tz_localize("UTC"), "time zone"),
        (lambda f: f.reset_index(drop=True), "whole numbers"),
        (lambda f: f.iloc[::-1], "unsorted"),
        (lambda f: f.iloc[[0, 0]], "more than one row for 2024-03-01"),
        (lambda f: f.iloc[:0], "has no rows"),
        (lambda f: f[[]], "at least one column"),
        (lambda f: f.to_numpy(), "is .*ndarray.*a DataFrame is needed"),
        (lambda f: f["heat"].tolist(), "a DataFrame is needed"),
        (lambda f: f.asfreq("30min"), "'30min'"),
    ],
)
def test_tables_that_do_not_go_with_the_values_are_refused(change: Any, message: str) -> None:
    with pytest.raises(FrameError, match=f"past_covariates.*({message})"):
        read_covariates(change(table()), "past", panel().layout)


def test_an_array_goes_with_an_array_by_position() -> None:
    values = read(np.zeros((8, 2)))
    frame = read_covariates(np.ones((8, 3)), "past", values.layout)
    assert frame.index.equals(pd.RangeIndex(8))
    later = read_covariates(np.ones((8, 3)), "future", values.layout, last=99)
    assert later.index[-1] == 99


# --- several series -------------------------------------------------------------------------------


def series() -> dict[str, pd.DataFrame]:
    return {"x": table(8)[["heat"]], "y": table(4)[["heat"]] + 100}


def as_long(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, names=["unique_id", "ds"]).reset_index()


CONTAINERS: dict[str, Any] = {
    "dict": lambda tables: tables,
    "list": lambda tables: list(tables.values()),
    "levels": lambda tables: pd.concat(tables, names=["shop", "time"]),
    "long": as_long,
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_rows_of_several_series_are_found_by_series_and_stamp(container: str) -> None:
    build = CONTAINERS[container]
    values = build(series())
    if container == "long":
        values = values.rename(columns={"heat": "y"})
    data = read(values)
    covariates = build({name: 10 * each for name, each in reversed(series().items())})
    if container == "list":
        covariates = covariates[::-1]
    frame = read_covariates(covariates, "future", data.layout)
    places = rows_at(frame.index, label_rows(data, frame.index), "future_covariates", data)
    np.testing.assert_array_equal(frame["heat"].iloc[places], 10 * data.values[:, 0])
    shared = read_covariates(table(8), "future", data.layout)
    places = rows_at(shared.index, label_rows(data, shared.index), "future_covariates", data)
    assert places.tolist() == [*range(8), *range(4)]


def test_static_rows_are_in_the_order_of_the_variates() -> None:
    layout = read(pd.DataFrame(np.zeros((3, 2)), columns=["a", "b"])).layout
    frame = pd.DataFrame({"size": [2.0, 1.0]}, ["b", "a"])
    assert read_static(frame, layout, (None,))["size"].tolist() == [1.0, 2.0]
    for bad, message in (
        (frame.iloc[:1], "lacks 'a'"),
        (pd.concat((frame, frame)), "names one twice"),
        (frame.rename(index={"a": "c"}), "lacks 'a'"),
        (pd.concat((frame, frame.rename(index={"a": "c", "b": "d"}))), "names 'd'"),
        ([1, 2], "a DataFrame is needed"),
    ):
        with pytest.raises(FrameError, match=message):
            read_static(bad, layout, (None,))


def test_static_rows_of_series_may_be_more_than_there_are_series() -> None:
    data = read(series())
    frame = pd.DataFrame({"size": [3.0, 2.0, 1.0]}, ["z", "y", "x"])
    assert read_static(frame, data.layout, data.ids)["size"].tolist() == [1.0, 2.0]
    with pytest.raises(FrameError, match="lacks 'x', but must name every series"):
        read_static(frame.iloc[:2], data.layout, data.ids)
