"""Logarithms: a fit that takes them is that of a table which holds them, whatever else is asked."""

from pathlib import Path
from typing import Any

import forging
import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.errors import FrameError, ParameterError, SavedModelError

SMALL: dict[str, Any] = {"lookback": 12, "horizon": 3, "max_epochs": 2, "features": 4, "season": 6}


def table(seed: int = 0, n: int = 110) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    t = np.arange(n)
    index = pd.date_range("2010-01-01", periods=n, freq="MS")
    swing = 0.3 * np.sin(2 * np.pi * t / 6) + 0.05 * rng.normal(size=n)
    return pd.DataFrame(
        {"a": 100 * np.exp(0.01 * t + swing), "b": 5 * np.exp(0.02 * t - swing)}, index
    )


def panel() -> dict[str, pd.DataFrame]:
    return {name: table(seed, 60 + 10 * seed) for seed, name in enumerate("xyz")}


def gapped() -> pd.DataFrame:
    frame = table()
    frame.iloc[[20, 55, 56], 0] = np.nan
    return frame


def every(data: Any, change: Any) -> Any:
    return {k: change(v) for k, v in data.items()} if isinstance(data, dict) else change(data)


def close(got: Any, wanted: Any) -> None:
    """Compare forecasts, or the columns of a backtest that hold some."""
    if isinstance(got, dict):
        for name in got:
            close(got[name], wanted[name])
        return
    got, wanted = (each.select_dtypes("number").to_numpy() for each in (got, wanted))
    np.testing.assert_allclose(got, wanted, rtol=2e-4)


@pytest.mark.parametrize(
    "more",
    [{}, {"quantiles": (0.1, 0.9)}, {"n_estimators": 2, "refit_linear": False}, {"blocks": 0}],
    ids=["point", "quantiles", "ensemble", "linear"],
)
@pytest.mark.parametrize("data", [table, panel, gapped])
def test_it_is_the_fit_of_a_table_of_logarithms(
    data: Any, more: dict[str, Any], tmp_path: Path
) -> None:
    whole = data()
    known, later = (every(whole, cut) for cut in (lambda f: f.iloc[:-6], lambda f: f.iloc[-6:]))
    given = SMALL | more | {"random_state": 0, "missing": "mask" if data is gapped else "raise"}
    one = TSM2Forecaster(**given, logarithms=True).fit(known)
    two = TSM2Forecaster(**given, logarithms=False).fit(every(known, np.log))
    assert one.scaling_.logs is not None
    assert one.scaling_.logs.all()
    assert two.scaling_.logs is None

    def compare(one: TSM2Forecaster) -> None:
        close(one.predict(), every(two.predict(), np.exp))
        close(one.predict_interval(coverage=0.5), every(two.predict_interval(coverage=0.5), np.exp))

    compare(one)
    one.save(tmp_path / "model")
    compare(TSM2Forecaster.load(tmp_path / "model"))
    walked = (one.backtest(whole, stride=5), two.backtest(every(whole, np.log), stride=5))
    for name in ("actual", "forecast"):
        np.testing.assert_allclose(walked[0][name], np.exp(walked[1][name]), rtol=2e-4)
    one.update(later, epochs=1)
    two.update(every(later, np.log), epochs=1)
    compare(one)
    again = [each.sample(n_samples=3, random_state=0) for each in (one, two)]
    close(again[0], every(again[1], np.exp))


def test_refits_and_warm_starts_keep_what_was_chosen() -> None:
    frame = table()
    model = TSM2Forecaster(**SMALL, random_state=0).fit(frame)
    assert model.choices_["logarithms"].tolist() == [("a", "b")] * len(model.choices_)
    own = TSM2Forecaster(**SMALL, random_state=0, logarithms=True)
    start = frame.index[95]
    found = [each.backtest(frame, start=start, stride=3, refit=2) for each in (model, own)]
    pd.testing.assert_frame_equal(found[0], found[1])
    level = frame / frame.rolling(6, center=True).mean().bfill().ffill()  # swings alike everywhere
    fresh = TSM2Forecaster(**SMALL, random_state=0).fit(level)
    assert fresh.scaling_.logs is None
    assert "logarithms" not in fresh.choices_
    warm = model.set_params(warm_start=True).fit(level)
    assert warm.scaling_.logs is not None
    assert warm.scaling_.logs.all()


def test_a_warm_start_without_them_does_not_say_that_it_has_them() -> None:
    model = TSM2Forecaster(**SMALL, blocks=0, warm_start=True).fit(table())
    assert model.choices_["logarithms"].iloc[0] == ("a", "b")
    model.set_params(logarithms=False).fit(table())
    assert model.scaling_.logs is None
    assert "logarithms" not in model.choices_


def test_a_loaded_model_starts_warm_in_its_logarithms(tmp_path: Path) -> None:
    model = TSM2Forecaster(**SMALL, random_state=0, warm_start=True).fit(table())
    model.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    close(loaded.fit(table()).predict(), model.fit(table()).predict())


def test_series_that_fit_has_not_seen_are_measured_in_logarithms() -> None:
    model = TSM2Forecaster(**SMALL, random_state=0).fit(panel())
    other = table(7)
    close(model.predict({"new": 1000 * other})["new"], 1000 * model.predict({"new": other})["new"])


def test_columns_with_zeros_have_none_and_zeros_may_come_later() -> None:
    frame = table()
    model = TSM2Forecaster(**SMALL, random_state=0).fit(frame)
    frame.iloc[-1, 0] = 0.0
    later = model.predict(frame)
    assert np.isfinite(later.to_numpy()).all()
    mixed = TSM2Forecaster(**SMALL, random_state=0).fit(frame)
    assert mixed.choices_["logarithms"].iloc[0] == ("b",)
    with pytest.raises(
        FrameError, match=r"column 'a' has 1 of zero or less, the first at 2019-02-01"
    ):
        TSM2Forecaster(**SMALL, logarithms=True).fit(frame)
    only = TSM2Forecaster(**SMALL, logarithms=True, target="b").fit(frame)
    assert only.scaling_.logs is not None
    assert only.scaling_.logs.tolist() == [False, True]


def test_a_pretrained_network_takes_none() -> None:
    model = TSM2Forecaster.from_pretrained("zero", horizon=3)
    assert model.fit(table()).scaling_.logs is None
    with pytest.raises(ParameterError, match=r"logarithms=True does not go with pretrained"):
        model.set_params(logarithms=True).fit(table())


def test_errors_are_judged_in_deviations_of_the_table() -> None:
    frame = table()
    model = TSM2Forecaster(**SMALL, random_state=0).fit(frame)
    scale = model.error_scale(frame, kind="deviation")
    np.testing.assert_allclose(scale.iloc[0], frame.std(), rtol=0.4)
    assert -3 < model.score(frame) < 0


@pytest.mark.parametrize("several", [False, True], ids=["table", "series"])
def test_growth_over_many_orders_is_no_reason_for_a_perfect_score(
    several: bool, tmp_path: Path
) -> None:
    """From one to a million: what errors are divided by is the deviation of the rows themselves."""
    frame = np.exp(0.12 * np.arange(110))[:, None] * table() / table().iloc[0]
    given: Any = {"x": frame, "y": 3 * frame.iloc[10:]} if several else frame
    model = TSM2Forecaster(**SMALL, random_state=0).fit(given)
    assert model.scaling_.logs is not None
    train = frame.iloc[:88]  # the first 80 %
    np.testing.assert_allclose(model.scaling_.deviation.reshape(-1, 2)[0], train.std(ddof=0))
    errors = model.backtest(given, stride=5)
    wide = errors[errors["variate"] == "a"]
    squared = ((wide["forecast"] - wide["actual"]) / train["a"].std(ddof=0)) ** 2
    if not several:
        assert model.score(given[["a", "b"]]) < -0.1 * squared.mean()
    model.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    assert loaded.score(given) == model.score(given)
    other = model.error_scale({"new": 7 * frame} if several else frame, kind="deviation")
    assert np.isfinite(other.to_numpy()).all()


@pytest.mark.parametrize("several", [False, True], ids=["table", "series"])
def test_covariates_and_refits_go_with_them(several: bool) -> None:
    """Past, future and calendar covariates; one column that is only read keeps its own units."""
    whole: Any = panel() if several else table()
    hours = every(whole, lambda f: pd.DataFrame({"c": np.sin(np.arange(len(f) + 6))}, longer(f)))
    past = every(whole, lambda f: pd.DataFrame({"p": np.arange(len(f)) % 5.0}, f.index))
    covariates = {"future_covariates": hours, "past_covariates": past}
    given = SMALL | {"random_state": 0, "target": "a", "calendar": ("month",)}
    one = TSM2Forecaster(**given, logarithms=True).fit(whole, **covariates)
    assert one.scaling_.logs is not None
    assert one.scaling_.logs.tolist() == [True, False]
    bent = every(whole, lambda f: f.assign(a=np.log(f["a"])))
    two = TSM2Forecaster(**given, logarithms=False).fit(bent, **covariates)
    close(one.predict(), every(two.predict(), np.exp))
    levels = (0.3, 0.5, 0.7)
    close(
        one.predict_quantiles(quantiles=levels),
        every(two.predict_quantiles(quantiles=levels), np.exp),
    )
    start = table().index[50 if several else 95]
    how: dict[str, Any] = {"start": start, "stride": 3, "refit": 3, **covariates}
    walked = one.backtest(whole, **how), two.backtest(bent, **how)
    np.testing.assert_allclose(walked[0]["forecast"], np.exp(walked[1]["forecast"]), rtol=2e-4)


def longer(frame: pd.DataFrame) -> pd.DatetimeIndex:
    return pd.date_range(frame.index[0], periods=len(frame) + 6, freq="MS")


@pytest.mark.parametrize(
    ("name", "told", "message"),
    [
        ("logarithms", [True], "one truth value for each of 2 columns"),
        ("logarithms", [1, 0], "one truth value for each of 2 columns"),
        ("stretches", 0.5, "a number of at least 1"),
        ("stretches", "many", "a number of at least 1"),
    ],
)
def test_what_was_saved_of_them_is_checked(
    name: str, told: object, message: str, tmp_path: Path
) -> None:
    TSM2Forecaster(**SMALL, random_state=0).fit(table()).save(tmp_path / "model")
    forging.change_config(
        tmp_path / "model", lambda saved: saved | {"config": saved["config"] | {name: told}}
    )
    with pytest.raises(SavedModelError, match=message):
        TSM2Forecaster.load(tmp_path / "model")
