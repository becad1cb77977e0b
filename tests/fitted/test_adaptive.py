"""Adaptive intervals of a backtest: misses that are known move the next bounds, and no others."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.backtesting import error_table
from tsm2.errors import ParameterError
from tsm2.fitted.adaptive import adapted_table

SMALL: dict[str, Any] = {"lookback": 8, "horizon": 4, "blocks": 0, "level": "mean"}
SMALL |= {"separate_heads": False, "random_state": 0}


def waves(rows: int = 900, *, end: int | None = None, seed: int = 0) -> pd.DataFrame:
    """Return waves with a little noise, which are nothing but noise from row `end` on."""
    draw = np.random.default_rng(seed)
    values = np.sin(np.arange(rows)[:, None] * 0.7 + np.arange(2))
    values += 0.1 * draw.normal(size=values.shape)
    if end is not None:
        values[end:] = draw.normal(size=values[end:].shape)
    return pd.DataFrame(values, pd.date_range("2024-01-01", periods=rows, freq="h"), ["a", "b"])


def forecasts(actual: list[float]) -> pd.DataFrame:
    """Return a backtest of one step: the median is 0, the bounds lie at -1 and 1."""
    time = pd.date_range("2024-01-02", periods=len(actual))
    table = pd.DataFrame({"cutoff": time - pd.Timedelta(days=1), "step": 1, "time": time})
    table["variate"] = pd.Categorical(["a"] * len(actual))
    return table.assign(actual=actual, forecast=0.0, median=0.0, **{"lo-80": -1.0, "hi-80": 1.0})


def test_a_miss_widens_the_next_interval_and_a_hit_narrows_it() -> None:
    table = adapted_table(
        forecasts([2.0, 0.0, np.nan, -3.0, 0.0]), (0.1, 0.9), several=False, rate=0.5
    )
    np.testing.assert_allclose(np.log(table["hi-80"]), [0, 0.45, 0.4, 0.4, 0.35], atol=1e-12)
    np.testing.assert_allclose(np.log(-table["lo-80"]), [0, -0.05, -0.1, -0.1, 0.35], atol=1e-12)
    assert "median" not in table


def test_bounds_that_come_to_zero_in_one_series_go_below_it_in_none() -> None:
    sold = {"median": 1.0, "forecast": 1.0, "hi-80": 2.0}
    at_zero = forecasts([0.0] * 4).assign(**sold, **{"lo-80": 0.0})
    above = forecasts([0.0] * 4).assign(**sold, **{"lo-80": 0.5})
    both = pd.concat([each.assign(series=name) for name, each in (("x", at_zero), ("y", above))])
    both = both.set_index("series").reset_index()
    stopped = adapted_table(both, (0.1, 0.9), several=True, rate=2.0)
    alone = adapted_table(above, (0.1, 0.9), several=False, rate=2.0)
    assert stopped.loc[stopped["series"] == "y", "lo-80"].tolist() == [0.5, 0.0, 0.0, 0.0]
    assert (alone["lo-80"].iloc[1:] < 0).all()


@pytest.mark.parametrize("stride", [1, 3, 6])
def test_what_is_not_known_yet_moves_nothing(stride: int) -> None:
    frame = waves(200)
    model = TSM2Forecaster(**SMALL).fit(frame.iloc[:120])
    asked: dict[str, Any] = {"start": frame.index[120], "stride": stride, "coverage": 0.8}
    asked["intervals"] = "adaptive"
    changed = frame.copy()
    changed.iloc[160:] += 50  # forecasts that end their context before cannot know
    one, two = (model.backtest(each, **asked) for each in (frame, changed))
    before = one["cutoff"] < frame.index[160]
    for name in ("lo-80", "hi-80"):
        np.testing.assert_array_equal(one[name][before], two[name][before])
        assert not np.allclose(one[name][~before], two[name][~before])


def test_coverage_holds_where_the_table_is_no_longer_what_it_was() -> None:
    frame = waves(end=450)
    model = TSM2Forecaster(**SMALL).fit(frame.iloc[:400])
    asked: dict[str, Any] = {"start": frame.index[450], "coverage": 0.8}
    fixed, adaptive = (
        error_table(model.backtest(frame, intervals=kind, **asked), by=None)["coverage-80"].item()
        for kind in ("calibrated", "adaptive")
    )
    assert fixed < 0.55
    assert 0.75 < adaptive < 0.85


def test_the_point_forecast_and_the_columns_stay() -> None:
    frame = waves(300)
    model = TSM2Forecaster(**SMALL).fit(frame.iloc[:200])
    asked: dict[str, Any] = {"start": frame.index[200], "quantiles": (0.05, 0.1, 0.5, 0.9)}
    one, two = (model.backtest(frame, intervals=k, **asked) for k in ("calibrated", "adaptive"))
    assert list(one) == list(two)
    kept = ["cutoff", "step", "time", "variate", "actual", "forecast", "median"]
    pd.testing.assert_frame_equal(one[kept], two[kept])
    bounds = two[["lo-90", "lo-80", "median", "hi-80"]].to_numpy()
    assert (np.diff(bounds, axis=1) >= 0).all()
    first = two["cutoff"] == two["cutoff"].iloc[0]
    pd.testing.assert_frame_equal(one[first], two[first])


@pytest.mark.parametrize("refit", [False, 20])
def test_each_series_adapts_by_its_own_misses(refit: Any) -> None:
    calm, wild = waves(520), waves(520, end=450, seed=1)
    start = calm.index[450]
    asked: dict[str, Any] = {"start": start, "stride": 2, "coverage": 0.8, "refit": refit}
    asked["intervals"] = "adaptive"
    model = TSM2Forecaster(**SMALL)
    tables = {"calm": calm, "wild": wild.iloc[5:]}
    if refit is False:
        model.fit({name: each.iloc[:400] for name, each in tables.items()})
    both = model.backtest(tables, **asked)
    assert list(both.columns[:1]) == ["series"]
    other = model.backtest(tables | {"wild": waves(520, end=460, seed=2).iloc[5:]}, **asked)
    own = both["series"] == "calm"
    if refit is False:  # a refit learns from both
        np.testing.assert_array_equal(both["hi-80"][own], other["hi-80"][own])
    width = both["hi-80"] - both["lo-80"]
    late = both["cutoff"] > calm.index[490]
    assert width[late & ~own].mean() > 1.5 * width[late & own].mean()


def test_other_containers_get_it_too() -> None:
    polars = pytest.importorskip("polars")
    frame = waves(200).reset_index(names="time")
    model = TSM2Forecaster(**SMALL).fit(polars.from_pandas(frame.iloc[:150]))
    table = model.backtest(polars.from_pandas(frame.iloc[150:]), coverage=0.8, intervals="adaptive")
    assert isinstance(table, polars.DataFrame)
    assert "median" not in table.columns


@pytest.mark.parametrize(
    "given", [{"intervals": "adaptive"}, {"intervals": "aci", "coverage": 0.8}]
)
def test_adaptive_intervals_need_levels(given: dict[str, Any]) -> None:
    model = TSM2Forecaster(**SMALL).fit(waves(100))
    with pytest.raises(ParameterError, match="intervals must be 'calibrated', or 'adaptive' with"):
        model.backtest(waves(200), **given)


def test_a_file_is_written_too_early_for_adaptive_bounds(tmp_path: Path) -> None:
    model = TSM2Forecaster(**SMALL).fit(waves(120))
    with pytest.raises(ParameterError, match="leave one of the two out"):
        model.backtest(waves(200), coverage=0.8, intervals="adaptive", to=tmp_path / "errors.csv")
    assert not list(tmp_path.iterdir())
