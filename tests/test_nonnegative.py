"""Columns that stop at zero: no forecast is below it, in every use, and all else is as it was.

What is given stands once, in `WAYS`. A model that is told nothing of zero is fitted beside each:
forecasts are its own, but for those below zero.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.errors import FrameError, ParameterError, SavedModelError
from tsm2.saving import load_folder, save_folder

HORIZON = 8
SETTINGS: dict[str, Any] = {
    "lookback": 24,
    "horizon": HORIZON,
    "max_epochs": 1,
    "epoch_steps": 5,
    "random_state": 0,
}
HELD_OUT = 40


def weather(count: int = 400, seed: int = 0) -> pd.DataFrame:
    """Sun by day, rain now and then, and a temperature on both sides of zero."""
    draw = np.random.default_rng(seed)
    hour = np.arange(count) % 24
    sun = np.maximum(0, np.sin(np.pi * (hour - 6) / 12) + 0.3 * draw.normal(size=count))
    sun[(hour < 6) | (hour > 18)] = 0
    rain = np.maximum(0, draw.normal(size=count))
    cold = 3 * np.sin(2 * np.pi * hour / 24) + draw.normal(size=count)
    index = pd.date_range("2024-01-01", periods=count, freq="h")
    return pd.DataFrame({"sun": 400 * sun, "cold": cold, "rain": rain}, index)


def holed(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.copy()
    frame.iloc[50:55, 0] = np.nan
    frame.iloc[200, 1:] = np.nan
    return frame


def heads(data: Any, less: int = HELD_OUT) -> Any:
    if isinstance(data, dict):
        return {name: each.iloc[:-less] for name, each in data.items()}
    return data.iloc[:-less]


def columns_of(found: Any) -> dict[Any, np.ndarray[Any, Any]]:
    """Return the numbers of a forecast by column, those of all series behind each other."""
    frames = list(found.values()) if isinstance(found, dict) else [found]
    named: dict[Any, np.ndarray[Any, Any]] = {}
    for key in frames[0].columns:
        name = key[0] if isinstance(key, tuple) else key
        parts = [frame[key].to_numpy() for frame in frames]
        named[name] = np.concatenate([named[name], *parts]) if name in named else np.hstack(parts)
    return named


def agree(told: Any, plain: Any, *, rtol: float = 1e-6) -> bool:
    """Compare forecasts of a model that stops at zero with another's; return if any stopped."""
    stopped = False
    other = columns_of(plain)
    for name, found in columns_of(told).items():
        wanted = other[name] if name == "cold" else np.maximum(other[name], 0)
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=1e-5)
        stopped |= bool((other[name] < 0).any() and name != "cold")
    return stopped


PANEL = {"x": weather(), "y": weather(330, seed=1) * 30}
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "table": (weather(), {}),
    "whole histories": (weather(), {"lookback": "auto", "classical": True, "blocks": 0}),
    "target": (weather(), {"target": ["rain", "cold"]}),
    "quantiles, calendar, trained": (
        weather(),
        {"quantiles": (0.1, 0.9), "calendar": ("hour",), "start_margin": 0.0},
    ),
    "panel, ensemble": (PANEL, {"n_estimators": 2}),
    "panel, global units, gaps, quantiles": (
        {name: holed(each) for name, each in PANEL.items()},
        {"scaling": "global", "missing": "mask", "quantiles": (0.1, 0.9)},
    ),
    "filled gaps, no mixers, random start": (
        holed(weather()),
        {"missing": "ffill", "blocks": 0, "linear_start": "random"},
    ),
}
Way = tuple[Any, TSM2Forecaster, TSM2Forecaster]


@pytest.fixture(scope="module", params=list(WAYS.values()), ids=list(WAYS))
def way(request: Any) -> Way:
    data, given = request.param
    how = SETTINGS | given
    models = [TSM2Forecaster(**how, nonnegative=each).fit(heads(data)) for each in ("auto", False)]
    return data, *models


# --- forecasts ------------------------------------------------------------------------------------


def test_nothing_is_forecast_below_zero_and_all_else_as_before(way: Way) -> None:
    data, told, plain = way
    targets = told.fitted_.roles.layout(told.layout_).columns
    assert told.fitted_.nonnegative is not None
    assert told.fitted_.nonnegative.tolist() == [name != "cold" for name in targets]
    assert plain.fitted_.nonnegative is None
    agree(told.predict(), plain.predict())
    if not told.fitted_.roles.others:  # whose rows to come nobody knows
        agree(*(each.predict(horizon=3 * HORIZON) for each in (told, plain)))
    ends = [each.predict_interval(coverage=0.9) for each in (told, plain)]
    assert agree(*ends)
    paths = [each.sample(n_samples=20, random_state=0) for each in (told, plain)]
    assert agree(*paths)
    later = [each.predict(heads(data, 9)) for each in (told, plain)]
    agree(*later)


@pytest.mark.parametrize("refit", [False, 16])
def test_backtests_stop_at_zero_and_lose_no_outcome_by_it(way: Way, refit: int) -> None:
    data, told, plain = way
    how: dict[str, Any] = {"stride": 8, "coverage": 0.9, "refit": refit}
    if refit:
        start = (data["y"] if isinstance(data, dict) else data).index[-HELD_OUT]
        how |= {"start": start}
    tables = [each.backtest(data, **how) for each in (told, plain)]
    found, other = (table[table["variate"] != "cold"] for table in tables)
    bounds = [name for name in found.columns if str(name).startswith(("lo", "hi"))]
    for name in ("forecast", *bounds):
        wanted = np.maximum(other[name], 0)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-5)
    inside = [
        ((each["actual"] >= each[bounds[0]]) & (each["actual"] <= each[bounds[-1]])).mean()
        for each in (found, other)
    ]
    assert inside[0] == inside[1]
    assert (found["actual"] - found["forecast"]).abs().mean() <= (
        other["actual"] - other["forecast"]
    ).abs().mean()


def test_it_is_the_same_model_when_it_is_read_again_and_goes_on(way: Way, tmp_path: Path) -> None:
    data, told, _ = way
    told.save(tmp_path / "model")
    again = TSM2Forecaster.load(tmp_path / "model")
    np.testing.assert_array_equal(again.fitted_.nonnegative, told.fitted_.nonnegative)
    assert again.choices_["nonnegative"].iloc[0] == told.choices_["nonnegative"].iloc[0]
    ends = [each.predict_interval(coverage=0.9) for each in (told, again)]
    for one, other in zip(columns_of(ends[0]).values(), columns_of(ends[1]).values(), strict=True):
        np.testing.assert_array_equal(one, other)
    rows = slice(-HELD_OUT, -20)
    if isinstance(data, dict):
        again.update({name: each.iloc[rows] for name, each in data.items()})
    else:
        again.update(data.iloc[rows])
    for name, numbers in columns_of(again.predict_interval(coverage=0.9)).items():
        assert name == "cold" or numbers.min() >= 0


def test_adaptive_bounds_stop_at_zero_too() -> None:
    frame = weather(900)
    model = TSM2Forecaster(**SETTINGS, blocks=0, quantiles=(0.1, 0.9)).fit(frame.iloc[:300])
    wild = frame.copy()
    wild.loc[wild["rain"] > 0, "rain"] *= 5  # many misses, so that widths grow
    table = model.backtest(wild.iloc[300:], stride=4, coverage=0.9, intervals="adaptive")
    rain = table[table["variate"] == "rain"]
    lower, upper = (name for name in table.columns if str(name).startswith(("lo", "hi")))
    assert rain[lower].min() == 0
    assert (rain[upper] >= rain["forecast"]).all()
    assert table.loc[table["variate"] == "cold", lower].min() < 0


def test_a_history_that_was_below_zero_is_forecast_as_if_nothing_had_been_said() -> None:
    frame = weather()
    told, plain = (
        TSM2Forecaster(**SETTINGS, blocks=0, nonnegative=each).fit(frame)
        for each in ("auto", False)
    )
    history = frame.iloc[-48:].copy()
    history["rain"] -= 3.0
    found, other = (each.predict_interval(history) for each in (told, plain))
    pd.testing.assert_frame_equal(found[["rain"]], other[["rain"]])
    assert (other["rain"] < 0).any(axis=None)
    assert (found["sun"] >= 0).all(axis=None)
    assert (other["sun"] < 0).any(axis=None)
    both = np.stack((frame.iloc[-24:], history.iloc[-24:]))
    several = told.forecast_contexts(both, HORIZON)
    assert several[0, :, 2].min() >= 0 > several[1, :, 2].min()


# --- what is said ---------------------------------------------------------------------------------


def test_true_says_so_of_all_that_is_forecast_and_false_of_nothing() -> None:
    frame = weather().drop(columns="cold")
    frame["sun"] += 1.0  # which never comes to zero
    given = SETTINGS | {"blocks": 0}
    found = TSM2Forecaster(**given).fit(frame)
    assert found.choices_["nonnegative"].iloc[0] == ("rain",)
    asked = TSM2Forecaster(**given, nonnegative=True).fit(frame)
    assert asked.choices_["nonnegative"].iloc[0] == ("sun", "rain")
    assert (asked.predict_interval(coverage=0.98) >= 0).all(axis=None)
    refused = TSM2Forecaster(**given, nonnegative=False).fit(frame)
    assert "nonnegative" not in refused.choices_
    assert (refused.predict_interval(coverage=0.98) < 0).any(axis=None)
    assert "nonnegative" not in TSM2Forecaster(**given).fit(weather()[["cold"]]).choices_


def test_a_column_that_is_only_read_says_nothing_of_those_that_are_forecast() -> None:
    model = TSM2Forecaster(**SETTINGS, blocks=0, target="cold").fit(weather())
    assert model.fitted_.nonnegative is None
    assert "nonnegative" not in model.choices_


def test_a_fit_that_goes_on_from_an_earlier_one_says_what_is_so_now() -> None:
    frame = weather().drop(columns="cold")
    model = TSM2Forecaster(**SETTINGS, warm_start=True).fit(frame)
    assert model.choices_["nonnegative"].iloc[0] == ("sun", "rain")
    model.fit(frame - 3 * (np.arange(2) == 1))
    assert model.choices_["nonnegative"].iloc[0] == ("sun",)
    assert model.fitted_.nonnegative is not None
    assert model.fitted_.nonnegative.tolist() == [True, False]
    model.set_params(nonnegative=False).fit(frame)
    assert "nonnegative" not in model.choices_
    assert model.fitted_.nonnegative is None


def test_what_is_said_of_a_column_with_values_below_zero_is_refused() -> None:
    frame = weather()
    asked = TSM2Forecaster(**SETTINGS, nonnegative=True)
    with pytest.raises(
        FrameError, match=r"nonnegative=True .* column 'cold' has \d+ values that are"
    ):
        asked.fit(frame)
    only_read = asked.set_params(target=["sun", "rain"], blocks=0).fit(frame)
    assert (only_read.predict() >= 0).all(axis=None)
    with pytest.raises(ParameterError, match="nonnegative"):
        TSM2Forecaster(**SETTINGS, nonnegative="always").fit(frame)  # type: ignore[arg-type]


def test_without_a_fit_nothing_is_forecast_below_zero_either() -> None:
    frame = weather()[["rain", "cold"]]
    told, plain = (
        TSM2Forecaster.from_pretrained("zero", nonnegative=each) for each in ("auto", False)
    )
    ends = [each.predict_interval(frame, coverage=0.9, horizon=12) for each in (told, plain)]
    assert agree(*ends)


def test_a_folder_that_was_edited_is_refused(tmp_path: Path) -> None:
    TSM2Forecaster(**SETTINGS, blocks=0).fit(weather()).save(tmp_path / "model")
    config, tensors = load_folder(tmp_path / "model", kind="TSM2Forecaster")
    kind: dict[str, Any] = {"kind": "TSM2Forecaster", "tensors": tensors}
    save_folder(tmp_path / "wrong", config=config | {"nonnegative": [True]}, **kind)
    with pytest.raises(SavedModelError, match="one truth value for each of 3"):
        TSM2Forecaster.load(tmp_path / "wrong")
    del config["nonnegative"]
    save_folder(tmp_path / "older", config=config, **kind)
    assert TSM2Forecaster.load(tmp_path / "older").fitted_.nonnegative is None
