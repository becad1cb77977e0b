"""Covariates and gaps through the estimator: what they change, where they are found, refusals."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from tsm2 import TSM2Forecaster
from tsm2.datasets import load_stores
from tsm2.errors import (
    CalibrationWarning,
    CovariateWarning,
    FrameError,
    ParameterError,
    TSM2Error,
    WindowError,
)

SMALL: dict[str, Any] = {
    "lookback": 12,
    "horizon": 4,
    "features": 4,
    "patch_length": 4,
    "d_state": 2,
    "max_epochs": 2,
    "batch_size": 16,
    "learning_rate": 0.03,  # heads start at zero, and there are few steps
    "mixer_learning_rate": 0.03,
    "sam_radius": 0.0,
    "device": "cpu",
    "random_state": 0,
}
ROWS = 80


def stamps(rows: int = ROWS, first: str = "2024-03-01") -> pd.DatetimeIndex:
    return pd.date_range(first, periods=rows, freq="h", name="time")


def noise(rows: int, columns: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(rows, columns))


def values(rows: int = ROWS) -> pd.DataFrame:
    numbers = noise(rows, 2, 0) + np.array([5.0, -20.0])
    return pd.DataFrame(numbers, stamps(rows), ["load", "wind"])


def past(rows: int = ROWS) -> pd.DataFrame:
    return pd.DataFrame({"flow": noise(rows, 1, 1)[:, 0]}, stamps(rows))


def future(rows: int = ROWS + 8) -> pd.DataFrame:
    kinds = np.array(["a", "b", "c"])[np.arange(rows) % 7 % 3]
    return pd.DataFrame({"heat": noise(rows, 1, 2)[:, 0], "kind": kinds}, stamps(rows))


def static() -> pd.DataFrame:
    return pd.DataFrame({"size": [1.0, 3.0], "zone": ["n", "s"]}, ["wind", "load"])


def everything() -> dict[str, Any]:
    return {
        "past_covariates": past(),
        "future_covariates": future(),
        "static_covariates": static(),
    }


@pytest.fixture(scope="module")
def fitted() -> TSM2Forecaster:
    """A model of all kinds, which 80 rows were shown to."""
    return TSM2Forecaster(**SMALL, calendar=("hour",)).fit(values(), **everything())


# --- every kind is read ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["past", "future", "static"])
def test_a_forecast_answers_to_every_kind(kind: str, fitted: TSM2Forecaster) -> None:
    wanted = fitted.predict()
    name = f"{kind}_covariates"
    given: dict[str, Any] = {name: everything()[name]}
    same = fitted.predict(**given)
    pd.testing.assert_frame_equal(same, wanted)
    moved = everything()[name].copy()
    moved.iloc[:, 0] = moved.iloc[:, 0] * -3.0 + 1.0
    given = {name: moved}
    other = fitted.predict(**given)
    assert not np.allclose(other, wanted)


def test_a_history_of_its_own_finds_its_rows_by_their_stamps(fitted: TSM2Forecaster) -> None:
    wanted = fitted.predict()
    pd.testing.assert_frame_equal(fitted.predict(values()), wanted, check_freq=False)
    earlier = fitted.predict(values(60), past_covariates=past(), future_covariates=future())
    table = fitted.backtest(
        values(), past_covariates=past(), future_covariates=future(), start=stamps()[60], stride=99
    )
    pivot = table.pivot(index="time", columns="variate", values="forecast")
    np.testing.assert_allclose(pivot[["load", "wind"]], earlier, rtol=1e-5)


def test_rolling_forward_reads_the_covariates_of_every_horizon() -> None:
    model = TSM2Forecaster(**SMALL).fit(values(), future_covariates=future(ROWS + 8))
    long, short = model.predict(horizon=8), model.predict()
    np.testing.assert_allclose(long.iloc[:4], short, rtol=1e-5)
    after = model.predict(pd.concat((values(), short)), future_covariates=future())
    np.testing.assert_allclose(long.iloc[4:], after, rtol=1e-4)
    assert len(model.predict(horizon=3)) == 3
    with pytest.raises(FrameError, match=r"future_covariates lacks 4 of the 24 rows"):
        model.predict(horizon=9)


def test_a_saved_model_knows_its_covariates(fitted: TSM2Forecaster, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(), fitted.predict())
    later: dict[str, Any] = {"past_covariates": past(), "future_covariates": future()}
    pd.testing.assert_frame_equal(
        loaded.backtest(values(), stride=9, **later), fitted.backtest(values(), stride=9, **later)
    )
    assert clone(loaded).get_params() == fitted.get_params()


def test_quantiles_and_paths_answer_to_covariates(fitted: TSM2Forecaster) -> None:
    moved = future().assign(heat=lambda f: f["heat"] * -3)
    calls: list[Any] = [
        lambda m, **kw: m.predict_interval(coverage=0.5, **kw),
        lambda m, **kw: m.sample(n_samples=3, random_state=0, **kw),
    ]
    for forecast in calls:
        one, other = forecast(fitted), forecast(fitted, future_covariates=moved)
        assert one.shape == other.shape
        assert not np.allclose(one, other)


def test_what_moves_a_forecast_is_named(fitted: TSM2Forecaster) -> None:
    influence = fitted.inspect().influence
    assert list(influence.index) == ["load", "wind"]
    sources = ["load", "wind", "flow", "heat", "kind=a", "kind=b", "kind=c", "hour sin", "hour cos"]
    assert list(influence.columns) == sources
    assert (influence[["flow", "heat", "hour sin"]] > 0).all(axis=None)
    seen = fitted.inspect(values(), past_covariates=past(), future_covariates=future())
    assert seen.influence.shape == influence.shape
    model = TSM2Forecaster(**SMALL, target="wind").fit(values())
    assert model.inspect().influence.shape == (1, 2)
    figure = model.plot(values(), coverage=0.5)
    assert len(figure.axes) == 1


def test_an_update_moves_the_covariates_along() -> None:
    model = TSM2Forecaster(**SMALL).fit(
        values(60), past_covariates=past(60), future_covariates=future(64)
    )
    whole = model.predict(values(), past_covariates=past(), future_covariates=future())
    model.update(
        values().iloc[60:], past_covariates=past().iloc[60:], future_covariates=future().iloc[60:]
    )
    np.testing.assert_allclose(model.predict(), whole, rtol=1e-5)
    np.testing.assert_allclose(model.predict(), model.predict(values()), rtol=1e-5)


def test_a_refit_backtest_reads_covariates_too() -> None:
    model = TSM2Forecaster(**(SMALL | {"max_epochs": 1}))
    how: dict[str, Any] = {"start": stamps()[70], "stride": 3, "refit": 2}
    table = model.backtest(values(), future_covariates=future(), **how)
    single = clone(model).fit(values(70), future_covariates=future())
    first = single.predict()
    pivot = table[table["cutoff"] == stamps()[69]].pivot(
        index="time", columns="variate", values="forecast"
    )
    np.testing.assert_allclose(pivot[["load", "wind"]], first, rtol=1e-5)


def test_arrays_have_covariates_by_position() -> None:
    numbers = future().assign(kind=lambda f: (f["kind"] == "a") * 1.0)
    table = TSM2Forecaster(**SMALL).fit(values(), future_covariates=numbers)
    array = TSM2Forecaster(**SMALL).fit(
        values().to_numpy(), future_covariates=numbers.to_numpy(), static_covariates=None
    )
    np.testing.assert_allclose(array.predict(), table.predict(), rtol=1e-6)
    horizon = numbers.to_numpy()[ROWS : ROWS + 4]
    np.testing.assert_allclose(array.predict(future_covariates=horizon), table.predict(), rtol=1e-6)
    both = numbers.to_numpy()[: ROWS + 4]
    again = array.predict(values().to_numpy(), future_covariates=both)
    np.testing.assert_allclose(again, table.predict(), rtol=1e-6)


def test_an_updated_array_has_covariates_by_position() -> None:
    numbers = future()[["heat"]]
    table = TSM2Forecaster(**SMALL).fit(values(60), future_covariates=numbers.iloc[:60])
    array = TSM2Forecaster(**SMALL).fit(
        values(60).to_numpy(), future_covariates=numbers.iloc[:60].to_numpy()
    )
    table.update(values().iloc[60:], future_covariates=numbers)
    array.update(values().iloc[60:].to_numpy(), future_covariates=numbers.iloc[60:ROWS].to_numpy())
    ahead = numbers.iloc[ROWS : ROWS + 4].to_numpy()
    np.testing.assert_allclose(array.predict(future_covariates=ahead), table.predict(), rtol=1e-6)


# --- what they are worth --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stores_errors() -> dict[str, float]:
    """Mean squared errors of forecasts of the stores, by the covariates that were read."""
    stores = load_stores()
    is_test = stores.sales["day"] >= "2024-04-02"
    kinds = {"past": stores.past, "future": stores.future, "static": stores.static}
    found = {}
    for used in ("", "past", "future", "static", "past future static"):
        given: dict[str, Any] = {f"{kind}_covariates": kinds[kind] for kind in used.split()}
        model = TSM2Forecaster(
            **SMALL
            | {"lookback": 14, "horizon": 14, "features": 8, "patch_length": 7, "d_state": 4}
            | {"learning_rate": 3e-3, "max_epochs": 2, "batch_size": 32},
            id_col="store",
            time_col="day",
            target_col="sales",
            scaling="global",
        ).fit(stores.sales[~is_test], **given)
        table = model.backtest(stores.sales[is_test], **given)
        found[used] = float(((table["forecast"] - table["actual"]) ** 2).mean())
    return found


@pytest.mark.parametrize(("kind", "share"), [("past", 0.9), ("future", 0.65), ("static", 0.75)])
def test_every_kind_pays(kind: str, share: float, stores_errors: dict[str, float]) -> None:
    assert stores_errors[kind] < share * stores_errors[""], stores_errors


def test_all_kinds_together_leave_little_but_noise(stores_errors: dict[str, float]) -> None:
    assert stores_errors["past future static"] < 2.5, stores_errors  # the noise has variance 1


# --- target and calendar --------------------------------------------------------------------------


def test_a_target_is_forecast_from_the_whole_table() -> None:
    model = TSM2Forecaster(**SMALL, target="wind").fit(values())
    forecast = model.predict()
    assert list(forecast.columns) == ["wind"]
    assert bool(forecast["wind"].between(-26, -14).all())
    other = values().assign(load=lambda f: -3 * f["load"])
    assert not np.allclose(model.predict(other), forecast)
    table = model.backtest(values(), stride=9)
    assert set(table["variate"]) == {"wind"}
    np.testing.assert_array_equal(table["actual"], values()["wind"].loc[table["time"]])
    scale = model.scaling_.scale[1]
    every = model.backtest(values())
    wanted = -(((every["forecast"] - every["actual"]) / scale) ** 2).mean()
    assert model.score(values()) == pytest.approx(wanted)


def test_other_columns_are_past_covariates_by_another_name() -> None:
    one = TSM2Forecaster(**SMALL, target=["wind"]).fit(values())
    two = TSM2Forecaster(**SMALL).fit(
        values()[["wind"]], past_covariates=values()[["load"]].iloc[:ROWS]
    )
    assert one.network_.config == two.network_.config
    train = slice(0, ROWS - round(ROWS * 0.2))
    np.testing.assert_allclose(one.scaling_.center[0], values()["load"].iloc[train].mean())
    np.testing.assert_allclose(one.predict(), two.predict(), rtol=1e-4)


def test_targets_keep_the_order_in_which_they_were_named() -> None:
    model = TSM2Forecaster(**SMALL, target=["wind", "load"]).fit(values())
    forecast = model.predict()
    assert list(forecast.columns) == ["wind", "load"]
    assert bool((forecast["load"] > 0).all())
    assert bool((forecast["wind"] < 0).all())
    intervals = model.predict_interval(coverage=0.5)
    assert list(intervals.columns.get_level_values(0).unique()) == ["wind", "load"]


def test_the_calendar_tells_the_hour() -> None:
    """Values that jump at noon, after a lookback too short to show the last noon."""
    index = stamps(600)
    step = 10.0 * (index.hour >= 12)
    frame = pd.DataFrame({"a": step + noise(600, 1, 3)[:, 0]}, index)
    errors = {}
    for calendar in ((), ("hour",)):
        model = TSM2Forecaster(
            **(SMALL | {"lookback": 8, "learning_rate": 1e-2, "max_epochs": 8, "horizon": 6}),
            calendar=calendar,
        ).fit(frame.iloc[:480])
        errors[calendar] = -model.score(frame.iloc[480:])
    assert errors[("hour",)] < 0.6 * errors[()], errors


# --- gaps -----------------------------------------------------------------------------------------


def with_gaps(frame: pd.DataFrame, share: float = 0.2, seed: int = 0) -> pd.DataFrame:
    return frame.mask(np.random.default_rng(seed).random(frame.shape) < share)


@pytest.mark.parametrize("missing", ["mask", "ffill"])
def test_no_gap_reaches_a_forecast(missing: Any) -> None:
    frame = with_gaps(values())
    frame.iloc[0] = 1.0
    model = TSM2Forecaster(**SMALL, missing=missing).fit(frame)
    for forecast in (
        model.predict(),
        model.predict(horizon=9),
        model.predict(with_gaps(values(), 0.7).fillna({"load": 0.0}).ffill().bfill()),
        model.predict_interval(coverage=0.5),
        model.sample(n_samples=2, random_state=0),
        model.backtest(frame, stride=5)["forecast"].to_frame(),
    ):
        assert np.isfinite(forecast.to_numpy()).all()
    assert np.isfinite(model.score(frame))


def test_what_is_unknown_counts_for_nothing() -> None:
    """Standard units are those of what is known, and so are errors."""
    frame = with_gaps(values())
    model = TSM2Forecaster(**SMALL, missing="mask").fit(frame)
    train = frame.iloc[: ROWS - round(ROWS * 0.2)]
    np.testing.assert_allclose(model.scaling_.center, train.mean())
    np.testing.assert_allclose(model.scaling_.scale, train.std(ddof=0))
    table = model.backtest(frame, stride=3)
    assert (
        table["actual"].isna().sum()
        == table.merge(
            frame.isna().melt(ignore_index=False, var_name="variate").reset_index(),
            on=["time", "variate"],
        )["value"].sum()
    )
    squares = ((table["forecast"] - table["actual"]) ** 2).dropna()
    assert 0 < len(squares) < len(table)


def test_the_network_is_told_of_gaps() -> None:
    frame = with_gaps(values())
    model = TSM2Forecaster(**SMALL, missing="mask", linear_start="random").fit(frame)
    (weights,) = (p for name, p in model.network_.named_parameters() if name == "gaps.weight")
    assert bool((weights != 0).any())  # it starts at zero and has learned
    filled = frame.fillna(frame.iloc[: ROWS - round(ROWS * 0.2)].mean())
    assert not np.allclose(model.predict(frame), model.predict(filled))


def test_rows_that_are_lacking_count_as_unknown() -> None:
    frame = values().drop(index=stamps()[[20, 21, 75]])
    masked = values()
    masked.iloc[[20, 21, 75]] = np.nan
    with pytest.raises(FrameError, match="irregular"):
        TSM2Forecaster(**SMALL).fit(frame)
    one = TSM2Forecaster(**SMALL, missing="mask").fit(frame)
    two = TSM2Forecaster(**SMALL, missing="mask").fit(masked)
    pd.testing.assert_frame_equal(one.predict(), two.predict())


def test_a_filled_gap_is_what_pandas_would_fill() -> None:
    frame = with_gaps(values())
    frame.iloc[0] = 0.0
    one = TSM2Forecaster(**SMALL, missing="ffill").fit(frame)
    two = TSM2Forecaster(**SMALL).fit(frame.ffill())
    pd.testing.assert_frame_equal(one.predict(), two.predict())
    np.testing.assert_array_equal(
        one.backtest(frame, stride=7)["forecast"], two.backtest(frame.ffill(), stride=7)["forecast"]
    )
    assert one.backtest(frame)["actual"].isna().any()  # what was filled did not happen
    frame.iloc[0, 1] = np.nan
    with pytest.raises(FrameError, match=r"none at the start: .*'wind' \(\d+, first at 2024-03-01"):
        TSM2Forecaster(**SMALL, missing="ffill").fit(frame)


def test_a_history_too_short_is_refused_or_unknown_before() -> None:
    model = TSM2Forecaster(**SMALL).fit(values())
    with pytest.raises(WindowError, match=r"10 rows.*12 \(lookback\)"):
        model.predict(values(10))
    masked = TSM2Forecaster(**SMALL, missing="mask").fit(values())
    padded = values(12)
    padded.iloc[:2] = np.nan
    wanted = masked.predict(padded)
    shifted = masked.predict(values(12).iloc[2:])
    np.testing.assert_allclose(shifted, wanted, rtol=1e-6)


def test_a_variate_of_which_nothing_is_known_is_refused_in_fit_and_forecast_after() -> None:
    with pytest.raises(FrameError, match="column 'wind' has no value in any training row"):
        TSM2Forecaster(**SMALL, missing="mask").fit(values().assign(wind=np.nan))
    model = TSM2Forecaster(**SMALL, missing="mask").fit(values())
    forecast = model.predict(values().assign(wind=np.nan))
    assert bool(forecast["wind"].between(-21.5, -18.5).all())  # near its mean in training


def test_a_variate_unknown_in_all_validation_rows_alone_has_no_intervals() -> None:
    frame = values()
    frame.loc[stamps()[60:], "wind"] = np.nan
    model = TSM2Forecaster(**SMALL, missing="mask", linear_start="random").fit(frame)
    assert np.isfinite(model.predict().to_numpy()).all()
    with pytest.warns(CalibrationWarning, match="column 'wind' is not known on the held-out rows"):
        interval = model.predict_interval(coverage=0.5)
    assert np.isnan(interval["wind"]).all(axis=None)
    assert np.isfinite(interval.drop(columns="wind", level=0)).all(axis=None)
    exact = TSM2Forecaster(**SMALL, missing="mask").fit(frame)  # earlier blocks are held out too
    assert np.isfinite(exact.predict_interval(coverage=0.5)).all(axis=None)


def test_gaps_in_past_covariates_and_other_columns() -> None:
    model = TSM2Forecaster(**SMALL, missing="mask", target="wind").fit(
        with_gaps(values()), past_covariates=with_gaps(past())
    )
    assert np.isfinite(model.predict().to_numpy()).all()
    assert np.isfinite(model.predict(horizon=11).to_numpy()).all()  # unknown from the horizon on


def test_several_series_with_gaps_and_covariates() -> None:
    tables = {name: with_gaps(values(60 + 9 * k), seed=k) for k, name in enumerate("xyz")}
    covariates = {name: future(80 + 9 * k) for k, name in enumerate("xyz")}
    sizes = pd.DataFrame({"size": [1.0, 2.0, 4.0]}, list("xyz"))
    model = TSM2Forecaster(**SMALL, missing="mask", calendar=("hour",)).fit(
        tables, future_covariates=covariates, static_covariates=sizes
    )
    forecast = model.predict()
    assert {name: each.shape for name, each in forecast.items()} == dict.fromkeys("xyz", (4, 2))
    alone = model.predict({"y": tables["y"]})
    np.testing.assert_allclose(alone["y"], forecast["y"], rtol=1e-5)
    new = model.predict(
        {"w": tables["y"]},
        future_covariates={"w": covariates["y"]},
        static_covariates=sizes.rename(index={"y": "w"}),
    )
    assert np.isfinite(new["w"].to_numpy()).all()
    with pytest.raises(FrameError, match="static_covariates lacks"):
        model.predict({"w": tables["y"]}, future_covariates={"w": covariates["y"]})
    table = model.backtest(tables, future_covariates=covariates, stride=7)
    assert np.isfinite(table["forecast"]).all()


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.iloc[: ROWS - 5], r"lacks 5 of the 80 rows.*goes from .*pd\.date_range"),
        (lambda f: f.iloc[3:], r"lacks 3 of the 80 rows.*2024-03-01 00:00:00"),
        (lambda f: f.set_axis(stamps(len(f), "2030-01-01")), "lacks 80 of the 80 rows"),
        (lambda f: f.set_axis(pd.date_range("2024-03-01", periods=len(f), freq="2h")), "'2h'"),
        (lambda f: f.tz_localize("UTC"), "time zone"),
        (lambda f: f.drop(index=f.index[9]), "irregular"),
        (lambda f: f.assign(heat=f["heat"].where(f["heat"] < 1)), "'heat' has no value at"),
        (lambda f: f.reset_index(drop=True), "whole numbers"),
        (lambda f: f.to_numpy(), "a DataFrame is needed"),
        (lambda f: "heat", "a DataFrame is needed"),
    ],
)
def test_covariates_that_do_not_go_with_the_table_are_refused(change: Any, message: str) -> None:
    with pytest.raises(FrameError, match=f"future_covariates.*{message}"):
        TSM2Forecaster(**SMALL).fit(values(), future_covariates=change(future()))


def test_covariates_unlike_those_of_the_fit_are_refused(fitted: TSM2Forecaster) -> None:
    changes: list[Any] = [
        (lambda f: f.assign(kind="z"), "a category that fit did not see"),
        (lambda f: f.drop(columns="kind"), "lacks column 'kind'"),
        (lambda f: f.assign(more=1), "has column 'more'"),
    ]
    for change, message in changes:
        with pytest.raises(FrameError, match=message):
            fitted.predict(future_covariates=change(future()))
    with pytest.raises(FrameError, match=r"future_covariates lacks 3 of the 16 rows"):
        fitted.predict(
            values().set_axis(stamps(first="2024-03-01 07:00")), past_covariates=past(99)
        )
    plain = TSM2Forecaster(**SMALL).fit(values())
    with pytest.raises(ParameterError, match="future_covariates were not given to fit"):
        plain.predict(future_covariates=future())
    with pytest.raises(ParameterError, match="contexts alone were given"):
        fitted.forecast_contexts(values().to_numpy()[None, :12], 4)


def test_rolling_forward_without_past_covariates_is_refused(fitted: TSM2Forecaster) -> None:
    for call in (fitted.predict, fitted.sample):
        with pytest.raises(ParameterError, match=r"horizon=5 is longer than trained \(4\)"):
            call(horizon=5)


def test_what_does_not_change_is_left_out_with_a_warning() -> None:
    with pytest.warns(CovariateWarning, match="future_covariates: 'flat' does not change"):
        model = TSM2Forecaster(**SMALL).fit(
            values(), future_covariates=future()[["heat"]].assign(flat=1.0)
        )
    assert model.network_.config.n_future == 1
    model.predict(future_covariates=future()[["heat"]].assign(flat=2.0))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"target": "sun"}, "target='sun' must name columns"),
        ({"calendar": ("hours",)}, "does not know 'hours'"),
        ({"calendar": "hour"}, "or a sequence of names"),
        ({"missing": "drop"}, "'missing' parameter"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(parameters: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        TSM2Forecaster(**SMALL, **parameters).fit(values())


# --- any frame ------------------------------------------------------------------------------------

KINDS: dict[str, Any] = {
    "h": lambda n: pd.date_range("2024-03-30 20:00", periods=n, freq="h", tz="Europe/Berlin"),
    "D": lambda n: pd.date_range("2024-02-27", periods=n, freq="D"),
    "MS": lambda n: pd.date_range("2001-01-01", periods=n, freq="MS"),
    "period": lambda n: pd.period_range("2001-01", periods=n, freq="M"),
    "range": lambda n: pd.RangeIndex(3, 3 + 2 * n, 2),
}
CELLS: dict[str, Any] = {
    "floats": st.floats(-1e3, 1e3),
    "whole": st.integers(-5, 5),
    "yes or no": st.booleans(),
    "text": st.sampled_from(["a", "b", "c"]),
    "text with gaps": st.sampled_from(["a", "b", "c", None]),
    "numbers with gaps": st.sampled_from([1.0, 2.0, None]),
    "anything": st.sampled_from(["a", 1, 2.5, True, None, np.inf, pd.Timestamp("2024")]),
}


@given(data=st.data())
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_tables_are_forecast_or_refused_in_our_words(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    rows, ahead = data.draw(st.integers(20, 30)), data.draw(st.integers(0, 5))
    index = KINDS[kind](rows + ahead)
    generator = np.random.default_rng(data.draw(st.integers(0, 9)))
    frame = pd.DataFrame(generator.normal(size=(rows, 2)), index[:rows], ["x", "y"])
    frame = frame.mask(generator.random(frame.shape) < data.draw(st.sampled_from([0, 0, 0.1, 0.9])))
    if data.draw(st.booleans()):
        frame = frame.drop(index=index[data.draw(st.integers(1, rows - 2))])
    columns: dict[Any, Any] = {
        name: data.draw(
            st.lists(
                CELLS[data.draw(st.sampled_from(sorted(CELLS)))],
                min_size=rows + ahead,
                max_size=rows + ahead,
            )
        )
        for name in data.draw(st.lists(st.sampled_from(["p", 3, "x"]), unique=True, min_size=1))
    }
    covariates = pd.DataFrame(columns, index)
    parameters: dict[str, Any] = {
        "missing": data.draw(st.sampled_from(["raise", "mask", "ffill"])),
        "calendar": data.draw(st.sampled_from([(), ("month",), ("hour", "weekend")])),
        "target": data.draw(st.sampled_from([None, "x", ["y"]])),
        "lookback": 6,
        "horizon": 2,
        "max_epochs": 1,
        "blocks": data.draw(st.sampled_from([0, 1])),
    }
    which = data.draw(st.sampled_from(["past_covariates", "future_covariates"]))
    given: dict[str, Any] = {which: covariates}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovariateWarning)
        try:
            model = TSM2Forecaster(**(SMALL | parameters)).fit(frame, **given)
            forecast = model.predict()
        except TSM2Error:
            return
    assert forecast.shape == (2, 2 if parameters["target"] is None else 1)
    assert np.isfinite(forecast.to_numpy()).all()
