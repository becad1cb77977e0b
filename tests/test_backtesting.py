"""Walks name every window, the floor forecasts what it says, refits see only rows before."""

from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.backtesting import error_table
from tsm2.benchmark import RepeatLast, RLinear, SeasonalNaive
from tsm2.benchmark.protocol import Table, measure_errors
from tsm2.datasets import Split
from tsm2.errors import ParameterError, WindowError
from tsm2.prepared.walk import Walk
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.series import Series


def table(rows: int = 30) -> pd.DataFrame:
    index = pd.date_range("2024-01-01", periods=rows, freq="D")
    return pd.DataFrame(np.arange(2.0 * rows).reshape(rows, 2), index, ["a", "b"])


def test_the_protocol_has_2785_windows_of_etth1() -> None:
    walk = Walk(lookback=512, horizon=96, first=512)
    assert len(walk.starts(512 + 2880)) == 2785


def test_the_last_window_ends_with_the_table() -> None:
    starts = Walk(lookback=5, horizon=3, stride=4).starts(16)
    assert starts.tolist() == [5, 9, 13]


@pytest.mark.parametrize(
    ("walk", "message"),
    [
        (Walk(lookback=5, horizon=3, first=4), r"5 rows \(lookback\) must stand before it"),
        (Walk(lookback=5, horizon=30), "needs 35"),
    ],
)
def test_a_walk_without_windows_says_why(walk: Walk, message: str) -> None:
    with pytest.raises(WindowError, match=message):
        walk.starts(30)


def test_repeat_last_and_seasonal_naive() -> None:
    contexts = np.arange(12.0).reshape(1, 6, 2)
    assert RepeatLast().forecast_contexts(contexts, 2).tolist() == [[[10, 11], [10, 11]]]
    seasonal = SeasonalNaive(3).forecast_contexts(contexts, 4)
    assert seasonal.tolist() == [[[6, 7], [8, 9], [10, 11], [6, 7]]]


def backtested(**changes: Any) -> pd.DataFrame:
    """Return a backtest in which a line that rises by 2 a day is missed by 2, 4 and 6."""
    steps = np.tile(np.repeat([1, 2, 3], 2), 12)
    forecast = np.repeat(np.arange(12.0), 6)
    rows = {
        "step": steps,
        "variate": np.tile(["a", "b"], 36),
        "actual": forecast + 2 * steps,
        "forecast": forecast,
    }
    bounds = {"lo-80": forecast - 4 * steps, "hi-30": forecast + 1.5 * steps}
    return pd.DataFrame(rows | bounds | {"hi-80": forecast + 4 * steps} | changes)


def test_error_tables_by_hand() -> None:
    """The bounds are 4 and 1.5 steps away from the forecast."""
    result = backtested()
    by_step = error_table(result, by="step", scale={"a": 2.0, "b": 2.0})
    assert by_step["MSE"].tolist() == [1, 4, 9]
    assert by_step["MAE"].tolist() == [1, 2, 3]
    per_step = 2 / 3 * (0.1 * 6 + 0.65 * 0.5 + 0.1 * 2)  # errors 6, 0.5 and -2 times the step
    np.testing.assert_allclose(by_step["quantile loss"], per_step / 2 * np.arange(1, 4))
    assert by_step["coverage-80"].tolist() == [1, 1, 1]
    assert list(by_step.columns) == ["MSE", "MAE", "quantile loss", "coverage-80"]
    everything = error_table(result, by=None)
    assert everything.index.tolist() == ["all"]
    assert everything.loc["all", "MSE"] == pytest.approx((4 + 16 + 36) / 3)
    assert error_table(result, by=["variate", "step"]).loc[("b", 2), "MAE"] == 4
    missed = result.assign(actual=result["hi-80"] + 1)
    assert error_table(missed, by=None).loc["all", "coverage-80"] == 0


def test_errors_are_divided_by_the_scale_of_their_series() -> None:
    one = pd.DataFrame({"a": [2.0], "b": [4.0]})
    pd.testing.assert_frame_equal(
        error_table(backtested(), scale=one), error_table(backtested(), scale={"a": 2.0, "b": 4.0})
    )
    table = backtested()
    table.insert(0, "shop", np.repeat(["x", "y"], 36))
    several = pd.DataFrame({"a": [2.0, 1.0], "b": [4.0, 2.0]}, index=["x", "y"])
    found = error_table(table, by=["shop", "variate"], scale=several)["MAE"]
    wanted = {("x", "a"): 2.0, ("x", "b"): 1.0, ("y", "a"): 4.0, ("y", "b"): 2.0}
    assert found.to_dict() == wanted


def test_rlinear_learns_a_line_of_sines() -> None:
    t = np.arange(400)
    values = np.stack((np.sin(t * 0.3), 5 + 3 * np.cos(t * 0.3)), axis=1)
    model = RLinear(24, 6, max_epochs=30, learning_rate=1e-2).fit(values[:320], 240)
    table = Table(name="sines", values=values, split=Split(240, 320, 400), season=21)
    learned, naive = (
        measure_errors(each, table, lookback=24, horizon=6) for each in (model, RepeatLast())
    )
    assert learned.mse < 0.05 * naive.mse


class RowsSeen(TSM2Forecaster):
    """Remember which rows of a column every fit saw, by the values of the first and the last."""

    seen: ClassVar[list[list[tuple[float, float]]]] = []

    def fit_series(self, series: Series, given: CovariateTables, **how: Any) -> Self:
        ends = zip(series.offsets[:-1], series.offsets[1:] - 1, strict=True)
        self.seen.append([(series.values[a, 0], series.values[b, 0]) for a, b in ends])
        return super().fit_series(series, given, **how)


def rows_seen(X: Any, *, refit: int = 2, **how: Any) -> tuple[list[Any], pd.DataFrame]:
    RowsSeen.seen.clear()
    model = RowsSeen(lookback=5, horizon=2, max_epochs=1, features=4, validation_fraction=0)
    got = model.set_params(random_state=0).backtest(X, stride=3, refit=refit, **how)
    return list(RowsSeen.seen), got


@pytest.mark.parametrize(
    ("window", "wanted"),
    [("expanding", [(0, 9), (0, 15), (0, 21)]), ("sliding", [(0, 9), (6, 15), (12, 21)])],
)
def test_which_rows_a_refit_sees(window: Any, wanted: list[tuple[int, int]]) -> None:
    """Column "a" of row t is 2 t."""
    frame = table(29)
    seen, got = rows_seen(frame, start=frame.index[10], window=window)
    assert seen == [[(2 * first, 2 * last)] for first, last in wanted]
    assert got["cutoff"].unique().tolist() == [frame.index[t - 1] for t in range(10, 27, 3)]
    wanted_rows = frame["a"].reindex(pd.DatetimeIndex(got.loc[got["variate"] == "a", "time"]))
    assert got.loc[got["variate"] == "a", "actual"].tolist() == wanted_rows.tolist()


def test_a_refit_of_many_series_sees_only_what_was_there_before() -> None:
    """Forecasts from the same row are one step of the refits; a series is new until it is long."""
    frames = {"x": table(22), "y": table(22).iloc[9:] + 100}
    start = frames["x"].index[10]
    seen, got = rows_seen(frames, start=start, refit=1)
    # x is forecast from rows 10, 13, 16, 19; y, which has 5 rows from row 14 on, from 14, 17, 20.
    firsts = [10, 13, 14, 16, 17, 19, 20]
    assert sorted(got["cutoff"].unique()) == [frames["x"].index[t - 1] for t in firsts]
    wanted = [
        [(0.0, 2.0 * (t - 1)), *([(118.0, 100 + 2.0 * (t - 1))] if t >= 16 else [])] for t in firsts
    ]
    assert seen == wanted
    assert got["series"].unique().tolist() == ["x", "y"]
    plain = rows_seen(frames, start=start, refit=100)[1]
    for column in ("series", "cutoff", "step", "time", "variate", "actual"):
        pd.testing.assert_series_equal(got[column], plain[column])


# --- the floor ------------------------------------------------------------------------------------


def daily(rows: int, phase: float = 0.0) -> pd.DataFrame:
    day = np.arange(rows)
    values = np.sin(2 * np.pi * day / 7 + phase)[:, None] * [1.0, 5.0] + day[:, None] * [0.0, 0.1]
    return pd.DataFrame(values, pd.date_range("2024-01-01", periods=rows), columns=["a", "b"])


def floored(**changes: Any) -> TSM2Forecaster:
    sizes = {"lookback": 14, "horizon": 3, "blocks": 0, "random_state": 0}
    return TSM2Forecaster(**(sizes | changes))


def test_the_floor_is_told_on_the_windows_of_the_backtest() -> None:
    frame = daily(60)
    model = floored().fit(frame.iloc[:40])
    table = model.backtest(frame.iloc[40:], stride=2)
    floor = model.backtest_floor(frame.iloc[40:], stride=2)
    assert list(floor) == ["repeat last", "seasonal naive"]
    for name, each in floor.items():
        same = ["cutoff", "step", "time", "variate", "actual"]
        pd.testing.assert_frame_equal(each[same], table[same])
        for row in each.itertuples():
            at = row.cutoff if name == "repeat last" else row.time - pd.Timedelta(days=7)
            assert row.forecast == frame.loc[at, row.variate]


def test_mase_is_counted_from_the_rows_before_the_walk() -> None:
    frame = daily(60)
    model = floored().fit(frame)
    naive = model.error_scale(frame, start=frame.index[50], kind="naive").to_numpy()
    known = frame.iloc[:50].to_numpy()
    np.testing.assert_allclose(naive[0, 1], np.abs(known[7:] - known[:-7]).mean(0)[1])
    assert np.abs(naive[0, 0]) < 1e-12  # it repeats itself: rounding alone
    with pytest.raises(ParameterError, match="kind must be 'deviation' or 'naive', got 'mase'"):
        model.error_scale(frame, kind="mase")  # type: ignore[arg-type]


def test_a_short_series_with_gaps_has_a_floor_too() -> None:
    short = daily(5).assign(a=[1.0, np.nan, 3.0, np.nan, 5.0])
    model = floored(missing="mask").fit({"long": daily(60), "short": daily(40, 1.0)})
    floor = model.backtest_floor({"new": short}, horizon=2, start=None)
    part = floor["seasonal naive"]
    assert set(part.iloc[:, 0]) == {"new"}
    first = part[(part["variate"] == "a") & (part["step"] == 1)]
    assert first["forecast"].tolist() == [1.0, 1.0, 3.0][-len(first) :]
    scale = model.error_scale({"new": short}, horizon=2, kind="naive")
    assert scale.shape == (1, 2)
