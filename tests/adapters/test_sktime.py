"""The sktime adapter: its checks, the estimator's own forecasts, and sktime around it."""

import pickle
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sktime")

from sktime.base import load  # pyright: ignore[reportMissingImports]
from sktime.datasets import load_airline  # pyright: ignore[reportMissingImports]
from sktime.forecasting.base import (  # pyright: ignore[reportMissingImports]
    ForecastingHorizon,
)
from sktime.forecasting.model_evaluation import (  # pyright: ignore[reportMissingImports]
    evaluate,
)
from sktime.forecasting.model_selection import (  # pyright: ignore[reportMissingImports]
    ForecastingGridSearchCV,
)
from sktime.split import (  # pyright: ignore[reportMissingImports]
    ExpandingWindowSplitter,
    SingleWindowSplitter,
    SlidingWindowSplitter,
)
from sktime.utils._testing.hierarchical import (  # pyright: ignore[reportMissingImports]
    _make_hierarchical,
)
from sktime.utils.estimator_checks import (  # pyright: ignore[reportMissingImports]
    parametrize_with_checks,
)

from tsm2 import TSM2Forecaster
from tsm2.adapters.sktime import TSM2SktimeForecaster, TSM2Zero
from tsm2.datasets import load_sample
from tsm2.errors import FrameError, WindowError

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

SIZES: dict[str, Any] = {"lookback": 24, "horizon": 6, "max_epochs": 1, "random_state": 0}


@parametrize_with_checks(TSM2SktimeForecaster)  # type: ignore[untyped-decorator]
def test_every_check_of_sktime(obj: object, test_name: str) -> None:
    from sktime.utils.estimator_checks import (  # pyright: ignore[reportMissingImports]
        check_estimator,
    )

    check_estimator(obj, tests_to_run=test_name, raise_exceptions=True, verbose=False)


def test_its_parameters_are_the_estimators() -> None:
    ours = signature(TSM2SktimeForecaster).parameters
    theirs = signature(TSM2Forecaster).parameters
    assert list(ours) == list(theirs)
    assert {name for name in ours if ours[name].default != theirs[name].default} == {"horizon"}
    with pytest.raises(TypeError, match="look_back"):
        TSM2SktimeForecaster(look_back=3)


def test_forecasts_are_the_estimators() -> None:
    table = load_sample(300)
    own: Any = TSM2Forecaster(**SIZES).fit(table)
    model = TSM2SktimeForecaster(**SIZES).fit(table)
    pd.testing.assert_frame_equal(
        model.predict(fh=range(1, 7)), own.predict(), check_names=False, check_freq=False
    )
    further = own.predict(horizon=15)  # beyond the trained horizon, with gaps
    pd.testing.assert_frame_equal(
        model.predict(fh=[2, 9, 15]), further.iloc[[1, 8, 14]], check_names=False, check_freq=False
    )


@pytest.mark.parametrize("quantiles", [None, (0.05, 0.95)])
def test_quantiles_and_intervals_are_the_estimators(quantiles: Any) -> None:
    table = load_sample(300)
    own: Any = TSM2Forecaster(**SIZES, quantiles=quantiles).fit(table)
    model = TSM2SktimeForecaster(**SIZES, quantiles=quantiles).fit(table)
    wanted = own.predict_quantiles(quantiles=(0.1, 0.9)).iloc[[1, 5]]
    got = model.predict_quantiles(fh=[2, 6], alpha=[0.9, 0.1])
    assert got.columns[:2].tolist() == [("temperature", 0.9), ("temperature", 0.1)]
    for variate in table.columns:
        np.testing.assert_array_equal(got[variate][[0.1, 0.9]], wanted[variate])
    interval = model.predict_interval(fh=[2, 6], coverage=0.8)
    np.testing.assert_array_equal(interval["load"][0.8], wanted["load"])


@pytest.mark.parametrize("fh", [[1, 2, 3, 4, 5, 6], [2, 5], [4, 9]])
def test_exogenous_columns_are_future_covariates(fh: list[int]) -> None:
    whole = load_sample(340)
    table, known = whole[["load", "price"]], whole[["temperature", "noise_a"]]
    own: Any = TSM2Forecaster(**SIZES).fit(table[:300], future_covariates=known[:300])
    model = TSM2SktimeForecaster(**SIZES).fit(table[:300], X=known[:300])
    steps = [299 + step for step in fh]
    filled = known.copy()  # steps without a row repeat the row before
    filled.iloc[[row for row in range(300, 312) if row not in steps]] = np.nan
    filled = filled.ffill()
    wanted = own.predict(horizon=max(fh), future_covariates=filled[:312])
    got = model.predict(fh=fh, X=known.iloc[steps])
    np.testing.assert_array_equal(got, wanted.iloc[[step - 1 for step in fh]])
    other = model.predict(fh=fh, X=known.iloc[steps] ** 2)
    assert (other.to_numpy() != got.to_numpy()).any()

    model.update(table[300:310], X=known[300:310], update_params=False)
    later = known[: 310 + 6]
    np.testing.assert_array_equal(
        model.predict(fh=[1, 2, 3, 4, 5, 6], X=known[310:316]),
        own.predict(table[:310], future_covariates=later),
    )
    with pytest.raises(FrameError, match="no rows for 2 steps of fh, the first 2024-01-13 23"):
        model.predict(fh=[1, 2, 3], X=known[310:311])


def test_gaps_are_let_through_only_where_they_are_asked_for() -> None:
    table = load_sample(300).astype(float)
    table.iloc[::7, 1] = np.nan
    own: Any = TSM2Forecaster(**SIZES, missing="mask").fit(table)
    model = TSM2SktimeForecaster(**SIZES, missing="mask").fit(table, fh=[1, 6])
    np.testing.assert_array_equal(model.predict(), own.predict().iloc[[0, 5]])
    with pytest.raises(ValueError, match="cannot handle missing data"):
        TSM2SktimeForecaster(**SIZES).fit(table)


def test_intervals_beyond_the_horizon_come_from_paths() -> None:
    table = load_sample(300)
    own: Any = TSM2Forecaster(**SIZES).fit(table)
    model = TSM2SktimeForecaster(**SIZES).fit(table)
    paths = own.sample(n_samples=400, horizon=14, random_state=0)
    got = model.predict_quantiles(fh=[3, 14], alpha=[0.25, 0.75])
    wanted = np.quantile(paths["price"].to_numpy()[[2, 13]], [0.25, 0.75], axis=1).T
    np.testing.assert_allclose(got["price"], wanted, rtol=1e-9)


def test_without_a_horizon_fh_decides() -> None:
    series = load_airline()
    model = TSM2SktimeForecaster(lookback=24, max_epochs=1)
    assert model.fit(series, fh=[3, 7]).forecaster_.horizon == 7
    assert model.fit(series, fh=pd.PeriodIndex(["1961-05"], freq="M")).forecaster_.horizon == 5
    assert model.fit(series).forecaster_.horizon == TSM2Forecaster().horizon


@pytest.mark.parametrize(("first", "step"), [(0, 5), (-7, 3), (100, 1), (3, 24)])
def test_whole_numbers_may_be_any_number_apart(first: int, step: int) -> None:
    values = load_sample(300)[["load"]].to_numpy()
    index = pd.RangeIndex(first, first + 300 * step, step)
    table = pd.DataFrame(values, index, ["load"])
    own: Any = TSM2Forecaster(**SIZES).fit(table)
    further = own.predict(horizon=8)
    model = TSM2SktimeForecaster(**SIZES).fit(table)
    end = first + 300 * step
    for fh in ([2, 8], ForecastingHorizon([end + step, end + 7 * step], is_relative=False)):
        got = model.predict(fh=fh)
        assert got.index.tolist() == [end + step, end + 7 * step]
        np.testing.assert_array_equal(got, further.iloc[[1, 7]])
    absolute = ForecastingHorizon([end, end + 3 * step], is_relative=False)
    fresh = TSM2SktimeForecaster(**(SIZES | {"horizon": None})).fit(table, fh=absolute)
    assert fresh.forecaster_.horizon == 4
    interval = model.predict_interval(fh=absolute, coverage=0.5)
    assert interval.index.tolist() == [end, end + 3 * step]
    if step > 1:
        with pytest.raises(FrameError, match=rf"fh names {end + 1}, but the rows are {step} apart"):
            model.predict(fh=ForecastingHorizon([end + 1], is_relative=False))


def test_the_default_horizon_is_named_where_it_is_too_long() -> None:
    table = load_sample(60)
    with pytest.raises(WindowError, match=r"The horizon of 24 is the default.*pass fh to fit"):
        TSM2SktimeForecaster(lookback=48, max_epochs=1).fit(table)


def test_update_moves_the_context_and_trains_only_if_asked() -> None:
    table = load_sample(400)
    model = TSM2SktimeForecaster(**SIZES).fit(table[:300])
    own: Any = TSM2Forecaster(**SIZES).fit(table[:300])
    model.update(table[300:310], update_params=False)
    np.testing.assert_array_equal(model.predict(fh=[1, 6]), own.predict(table[:310]).iloc[[0, 5]])
    model.update(table[305:320])  # rows may overlap
    whole: Any = TSM2Forecaster(**SIZES).fit(table[:320])
    np.testing.assert_array_equal(model.predict(fh=[1, 6]), whole.predict().iloc[[0, 5]])


def test_update_predict_walks_forward() -> None:
    table = load_sample(330)
    model = TSM2SktimeForecaster(**SIZES).fit(table[:300])
    own: Any = TSM2Forecaster(**SIZES).fit(table[:300])
    splitter = SlidingWindowSplitter(fh=[1, 2], window_length=10, step_length=5)
    walked = model.update_predict(table[300:], splitter, update_params=False)
    for last in (309, 314, 319):
        forecast = walked[table.index[last]].dropna()
        np.testing.assert_array_equal(forecast, own.predict(table[: last + 1]).iloc[:2])


@pytest.mark.parametrize("kind", ["save", "pickle"])
def test_a_kept_forecaster_forecasts_the_same(kind: str, tmp_path: Path) -> None:
    model = TSM2SktimeForecaster(**SIZES).fit(load_airline())
    if kind == "save":
        model.save(tmp_path / "model")
        again = load(tmp_path / "model.zip")
    else:
        again = pickle.loads(pickle.dumps(model))
    pd.testing.assert_series_equal(again.predict(fh=[1, 8]), model.predict(fh=[1, 8]))


def test_each_series_of_a_hierarchy_gets_its_forecast() -> None:
    hierarchy = _make_hierarchical((2, 2), min_timepoints=60, max_timepoints=60, random_state=0)
    model = TSM2SktimeForecaster(**SIZES).fit(hierarchy, fh=[1, 6])
    forecast = model.predict()
    assert len(forecast) == 4 * 2
    one = hierarchy.index.droplevel(-1)[0]
    alone: Any = TSM2Forecaster(**SIZES).fit(hierarchy.loc[one]).predict()
    np.testing.assert_array_equal(forecast.loc[one], alone.iloc[[0, 5]])


def test_evaluation_and_search() -> None:
    series = load_airline()
    model = TSM2SktimeForecaster(**SIZES)
    splitter = ExpandingWindowSplitter(initial_window=100, step_length=20, fh=range(1, 7))
    scores = evaluate(model, cv=splitter, y=series, strategy="no-update_params")
    errors = scores["test_MeanAbsolutePercentageError"]
    assert len(errors) == 2
    assert np.isfinite(errors).all()
    search = ForecastingGridSearchCV(
        model, cv=SingleWindowSplitter(fh=range(1, 7)), param_grid={"lookback": [12, 24]}
    )
    assert search.fit(series).best_params_["lookback"] in (12, 24)


# --- without a fit --------------------------------------------------------------------------------


@parametrize_with_checks(TSM2Zero)  # type: ignore[untyped-decorator]
def test_every_check_of_sktime_without_a_fit(obj: object, test_name: str) -> None:
    from sktime.utils.estimator_checks import (  # pyright: ignore[reportMissingImports]
        check_estimator,
    )

    check_estimator(obj, tests_to_run=test_name, raise_exceptions=True, verbose=False)


def test_without_a_fit_forecasts_are_the_estimators() -> None:
    table = load_sample(300)
    own: Any = TSM2Forecaster.from_pretrained("zero")
    model = TSM2Zero().fit(table)
    further = own.predict(table, horizon=70)  # beyond what the weights forecast at once
    np.testing.assert_array_equal(model.predict(fh=[2, 9, 70]), further.iloc[[1, 8, 69]])
    wanted = own.predict_quantiles(table, quantiles=(0.1, 0.9), horizon=6)
    got = model.predict_quantiles(fh=[2, 6], alpha=[0.9, 0.1])
    assert got.columns[:2].tolist() == [("temperature", 0.9), ("temperature", 0.1)]
    for variate in table.columns:
        np.testing.assert_array_equal(got[variate][[0.1, 0.9]], wanted[variate].iloc[[1, 5]])
    interval = model.predict_interval(fh=[2, 6], coverage=0.8)
    np.testing.assert_array_equal(interval["load"][0.8], wanted["load"].iloc[[1, 5]])


def test_without_a_fit_gaps_and_rows_to_come_are_read() -> None:
    table = load_sample(330).astype(float)
    table.iloc[100:110, 1] = np.nan
    own: Any = TSM2Forecaster.from_pretrained("zero")
    model = TSM2Zero().fit(table[:300])
    model.update(table[300:310])
    np.testing.assert_array_equal(model.predict(fh=[1, 6]), own.predict(table[:310]).iloc[[0, 5]])


def test_pretrain_tunes_the_weights_on_a_panel() -> None:
    values = np.random.default_rng(0).standard_normal(1500)
    for k in range(37, 1500):  # an echo that no calendar knows
        values[k] = 0.3 * values[k] - 0.9 * values[k - 37]
    index = pd.date_range("2024-01-01", periods=700, freq="h")
    panel = pd.concat(
        {name: pd.DataFrame({"y": values[first : first + 700]}, index) for name, first in
         (("a", 0), ("b", 750))}, names=["series", "time"],
    )  # fmt: skip
    model = TSM2Zero(max_epochs=1, random_state=0)
    model.pretrain(panel)
    assert model.state == "pretrained"
    assert list(model.get_pretrained_params(deep=False)) == ["tuned_"]
    known = panel.loc["b"].iloc[:-30]
    later = panel.loc["b"].iloc[-30:]
    fh = range(1, 31)
    tuned = model.fit(known).predict(fh=fh)
    zero = TSM2Zero().fit(known).predict(fh=fh)
    errors = [float((each - later).abs().mean().iloc[0]) for each in (tuned, zero)]
    assert errors[0] < 0.8 * errors[1]
