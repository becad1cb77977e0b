"""Walks name every window, the floor forecasts what it says, mean errors agree with the table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from tsm2.backtesting import Walk, backtest_table, error_table, mean_errors, refit_table
from tsm2.benchmark import RepeatLast, RLinear, SeasonalNaive
from tsm2.errors import WindowError
from tsm2.tables.frames import Panel, read_table


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


def test_the_table_and_the_mean_errors_agree() -> None:
    frame = table()
    panel = read_table(frame)
    walk = Walk(lookback=4, horizon=3, stride=2)
    result = backtest_table(RepeatLast(), panel, walk)
    assert len(result) == len(walk.starts(30)) * 3 * 2
    first = result.iloc[0]
    assert (first["cutoff"], first["step"], first["time"]) == (frame.index[3], 1, frame.index[4])
    assert (first["variate"], first["actual"], first["forecast"]) == ("a", 8.0, 6.0)
    # A line that rises by 2 a day is missed by 2, 4 and 6.
    scale = np.array([2.0, 2.0])
    mse, mae, windows = mean_errors(RepeatLast(), panel.values, walk, scale=scale)
    assert (mse, mae) == pytest.approx(((1 + 4 + 9) / 3, 2.0))
    assert windows == result["cutoff"].nunique()


class RisingQuantiles(RepeatLast):
    """Repeats the last row, with bounds that are further off at every step: 10 times the level."""

    def forecast_quantiles(
        self, contexts: NDArray[np.float64], horizon: int, levels: Sequence[float]
    ) -> NDArray[np.float64]:
        steps = np.arange(1, horizon + 1)[:, None, None]
        last = self.forecast_contexts(contexts, horizon)[..., None]
        return last + 10 * steps * (np.asarray(levels) - 0.5)


def test_quantiles_stand_beside_the_forecast_they_belong_to() -> None:
    panel = read_table(table())
    walk = Walk(lookback=4, horizon=3, stride=2)
    plain = backtest_table(RisingQuantiles(), panel, walk)
    result = backtest_table(RisingQuantiles(), panel, walk, quantiles=(0.1, 0.5, 0.75))
    assert list(result.columns[6:]) == ["lo-80", "median", "hi-50"]
    pd.testing.assert_frame_equal(result.iloc[:, :6], plain)
    np.testing.assert_allclose(result["lo-80"], result["forecast"] - 4 * result["step"])
    np.testing.assert_allclose(result["median"], result["forecast"])
    np.testing.assert_allclose(result["hi-50"], result["forecast"] + 2.5 * result["step"])


def test_error_tables_by_hand() -> None:
    """A line that rises by 2 a day is missed by 2, 4 and 6; the bounds are 4 and 1.5 steps away."""
    walk = Walk(lookback=4, horizon=3, stride=2)
    levels = (0.1, 0.65, 0.9)
    result = backtest_table(RisingQuantiles(), read_table(table()), walk, quantiles=levels)
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


def test_rlinear_learns_a_line_of_sines() -> None:
    t = np.arange(400)
    values = np.stack((np.sin(t * 0.3), 5 + 3 * np.cos(t * 0.3)), axis=1)
    model = RLinear(24, 6, max_epochs=30, learning_rate=1e-2).fit(values[:320], 240)
    walk = Walk(lookback=24, horizon=6, first=320)
    mse, _, _ = mean_errors(model, values, walk, scale=values.std(axis=0))
    naive, _, _ = mean_errors(RepeatLast(), values, walk, scale=values.std(axis=0))
    assert mse < 0.05 * naive


class RowsSeen(BaseEstimator):  # type: ignore[misc]
    """Forecast the first value that it was fitted to, and how many there were."""

    def fit(self, X: pd.DataFrame) -> "RowsSeen":
        self.seen_ = np.array([X["a"].iloc[0], len(X)])
        return self

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        assert contexts.shape[1] == 5
        return np.tile(self.seen_, (len(contexts), horizon, 1))

    def backtest_panel(self, panel: Panel, walk: Walk, **_: object) -> pd.DataFrame:
        return backtest_table(self, panel, walk)


@pytest.mark.parametrize(
    ("window", "first_values", "counts"),
    [("expanding", [0, 0, 0], [10, 16, 22]), ("sliding", [0, 12, 24], [10, 10, 10])],
)
def test_which_rows_a_refit_sees(window: Any, first_values: list[int], counts: list[int]) -> None:
    """Column "a" of row t is 2 t, so that a forecast of it names the first row of the fit."""
    walk = Walk(lookback=5, horizon=2, stride=3, first=10)
    got = refit_table(RowsSeen(), read_table(table(29)), walk, every=2, window=window)
    starts = got.groupby("cutoff")["forecast"].apply(list).to_list()
    wanted = [[float(v), float(n)] * 2 for v, n in zip(first_values, counts, strict=True)]
    assert starts == [pair for pair in wanted for _ in range(2)]
    plain = backtest_table(RepeatLast(), read_table(table(29)), walk)
    for column in ("cutoff", "step", "time", "variate", "actual"):
        pd.testing.assert_series_equal(got[column], plain[column])
