"""A fit that is averaged with classical forecasts of whole histories, in every way that it is used.

What is given stands once, in `ways`: tables and panels, gaps, quantiles, ensembles, logarithms.
"""

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tsm2 import TSM2Forecaster
from tsm2.errors import FloorWarning, ParameterError, SavedModelError, WindowError
from tsm2.networks.combined import ClassicalMean
from tsm2.saving import load_folder, save_folder

HORIZON = 6
SETTINGS: dict[str, Any] = {"horizon": HORIZON, "blocks": 0, "random_state": 0}


def months(count: int = 120, seed: int = 0, begins: str = "2010-01-01") -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    index = pd.date_range(begins, periods=count, freq="MS")
    season = np.sin(2 * np.pi * np.arange(count) / 12)
    walk = np.cumsum(draw.normal(0, 0.15, (count, 2)), 0)
    values = 20 + 4 * season[:, None] + walk + draw.normal(0, 0.2, (count, 2))
    return pd.DataFrame(values, index, ["a", "b"])


def panel(count: int = 90) -> dict[str, pd.DataFrame]:
    return {"x": months(count), "y": months(count - 40, 1, "2013-05-01") * 30}


def holed(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.copy()
    frame.iloc[25:28, 0] = np.nan
    frame.iloc[38, 1] = np.nan
    return frame


def with_gaps(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: holed(each) for name, each in data.items()}
    return holed(data)


def heads(data: Any, less: int) -> Any:
    if isinstance(data, dict):
        return {name: each.iloc[:-less] for name, each in data.items()}
    return data.iloc[:-less]


def tails(data: Any, rows: int) -> Any:
    if isinstance(data, dict):
        return {name: each.iloc[-rows:] for name, each in data.items()}
    return data.iloc[-rows:]


def same(one: Any, other: Any, **how: Any) -> None:
    if isinstance(one, dict):
        for name in one:
            pd.testing.assert_frame_equal(one[name], other[name], **how)
        return
    pd.testing.assert_frame_equal(one, other, **how)


def kept(model: TSM2Forecaster) -> pd.Series:
    return model.choices_[model.choices_["chosen"]].iloc[0]


WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "table": (months(), {}),
    "panel": (panel(), {}),
    "gaps": (with_gaps(months()), {"missing": "mask"}),
    "panel, gaps": (with_gaps(panel()), {"missing": "mask"}),
    "panel, filled": (with_gaps(panel()), {"missing": "ffill"}),
    "quantiles": (months(), {"quantiles": (0.1, 0.9)}),
    "panel, quantiles, ensemble": (
        panel(),
        {"quantiles": (0.1, 0.9), "n_estimators": 2, "blocks": 1, "features": 4, "max_epochs": 1},
    ),
    "logarithms": (np.exp(months() / 10), {"logarithms": True}),
    "one units": (panel(), {"scaling": "global"}),
}


@pytest.fixture(params=WAYS)
def way(request: Any) -> tuple[Any, TSM2Forecaster]:
    data, given = WAYS[request.param]
    model = TSM2Forecaster(**{**SETTINGS, **given})
    return data, model.fit(heads(data, HORIZON))


# --- what is forecast -----------------------------------------------------------------------------


def test_a_forecast_is_half_of_the_network_and_half_of_all_rows() -> None:
    frame = months()
    model = TSM2Forecaster(**SETTINGS).fit(frame)
    assert bool(kept(model)["classical"])
    fitted = model.fitted_
    assert fitted.classical == ClassicalMean(season=12)
    assert fitted.lookback < len(frame) == len(model.context_)
    rows = fitted.scaling.standardise(frame.to_numpy())
    history = rows.mT[None]
    with torch.no_grad():
        own = model.network_(history[..., -fitted.lookback :])
    mean = fitted.classical.forecast(history, None, HORIZON)
    wanted = fitted.scaling.restore(((own + mean) / 2)[0].mT.double())
    np.testing.assert_allclose(model.predict().to_numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("given", [{}, {"lookback": 24}, {"missing": "mask"}], ids=str)
def test_what_is_asked_for_is_done_and_not_chosen(given: dict[str, Any]) -> None:
    frame = months()
    asked = TSM2Forecaster(**SETTINGS, **given, classical=True, calendar="auto").fit(frame)
    assert asked.choices_.loc[asked.choices_["classical"], "chosen"].tolist() == [True]
    assert asked.fitted_.classical is not None
    refused = TSM2Forecaster(**SETTINGS, **given, classical=False).fit(frame)
    assert not refused.choices_["classical"].any()
    assert refused.fitted_.classical is None
    asked.set_params(classical=False, warm_start=True, max_epochs=1).fit(frame)
    assert asked.fitted_.classical is None


@pytest.mark.parametrize("way", ["covariates", "calendar", "target"])
def test_what_reads_more_than_values_cannot_be_averaged(way: str) -> None:
    frame = months()
    ways: dict[str, dict[str, Any]] = {
        "calendar": {"calendar": ("month",)},
        "target": {"target": "a"},
    }
    model = TSM2Forecaster(**SETTINGS, **ways.get(way, {}), classical=True)
    beside: dict[str, Any] = {"past_covariates": frame} if way == "covariates" else {}
    with pytest.raises(ParameterError, match="classical='auto'"):
        model.fit(frame, **beside)
    with pytest.raises(ParameterError, match="classical=True does not go with pretrained"):
        TSM2Forecaster.from_pretrained("zero", classical=True).predict(frame)


def test_nothing_is_averaged_where_no_choice_is_left_or_covariates_are_read() -> None:
    frame = months()
    fixed = TSM2Forecaster(**SETTINGS, lookback=24).fit(frame)
    assert fixed.fitted_.classical is None
    known = pd.DataFrame(
        {"price": np.arange(130.0)}, pd.date_range("2010-01-01", periods=130, freq="MS")
    )
    told = TSM2Forecaster(**SETTINGS).fit(frame, future_covariates=known)
    assert told.fitted_.classical is None
    one = TSM2Forecaster(**SETTINGS, target="a").fit(frame)
    assert one.fitted_.classical is None
    assert len(fixed.context_) == 24


def test_where_many_windows_say_so_the_network_stays_alone() -> None:
    """Every value follows from the tenth before it, which no classical forecast looks at."""
    draw = np.random.default_rng(3)
    values = np.zeros(3000)
    for k in range(3000):
        values[k] = 0.1 * draw.normal() - (0.97 * values[k - 10] if k >= 10 else 0)
    frame = pd.DataFrame({"a": values}, pd.date_range("2015-01-01", periods=3000))
    model = TSM2Forecaster(horizon=5, blocks=0, random_state=0).fit(frame)
    tried = model.choices_[model.choices_["classical"]]["validation_mse"]
    assert not bool(kept(model)["classical"])
    assert tried.item() > kept(model)["validation_mse"] / 0.97


def test_the_worth_of_whole_histories_is_measured_on_the_validation_rows() -> None:
    model = TSM2Forecaster(**SETTINGS).fit(months())
    tried = model.choices_[model.choices_["classical"]]
    # At least 64 windows are looked at, which are all: the error is that of the model itself.
    refit = TSM2Forecaster(**SETTINGS, refit_linear=False).fit(months())
    assert tried["validation_mse"].item() == pytest.approx(model.floor_["network"], rel=1e-4)
    assert refit.floor_["network"] == pytest.approx(model.floor_["network"], rel=1e-6)


# --- used in every way ----------------------------------------------------------------------------


def test_what_goes_on_is_forecast_as_what_was_known_before(way: tuple[Any, Any]) -> None:
    data, model = way
    assert bool(kept(model)["classical"])
    same(model.predict(heads(data, HORIZON)), model.predict(), rtol=1e-6)
    # The rows behind those of the fit: one window of each series, made from all that is known.
    backtest = model.backtest(tails(data, HORIZON))
    assert len(backtest) == HORIZON * 2 * (len(data) if isinstance(data, dict) else 1)
    forecast = model.predict()
    frames = list(forecast.values()) if isinstance(forecast, dict) else [forecast]
    wanted = np.concatenate([each.to_numpy().ravel() for each in frames])
    np.testing.assert_allclose(backtest["forecast"], wanted, rtol=1e-6)
    assert np.isfinite(model.score(tails(data, HORIZON)))


def test_new_rows_become_history(way: tuple[Any, Any]) -> None:
    data, model = way
    wanted = model.predict(data)
    same(model.update(tails(data, HORIZON)).predict(), wanted, rtol=1e-6)


def test_training_goes_on_with_the_network_alone(way: tuple[Any, Any]) -> None:
    data, model = way
    before = {name: each.clone() for name, each in model.network_.state_dict().items()}
    model.update(tails(data, HORIZON), epochs=1)
    after = model.network_.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    forecast = model.predict()
    for each in forecast.values() if isinstance(forecast, dict) else [forecast]:
        assert np.isfinite(each.to_numpy()).all()


def test_what_is_trained_further_ends_in_new_rows(way: tuple[Any, Any]) -> None:
    """More is kept of the known rows than a window needs, and is not learned again."""
    data, model = way
    fitted = model.fitted_
    network = copy.deepcopy(fitted.network)
    model.update(tails(data, HORIZON), epochs=1)
    short = replace(fitted, network=network, classical=None)
    model.fitted_ = replace(short, context=fitted.context.tail(fitted.lookback))
    trained = fitted.network.state_dict()
    model.update(tails(data, HORIZON), epochs=1)
    for name, each in network.state_dict().items():
        assert torch.equal(each, trained[name])


def test_it_is_the_same_model_when_it_is_read_again(way: tuple[Any, Any], tmp_path: Path) -> None:
    data, model = way
    model.save(tmp_path / "model")
    again = TSM2Forecaster.load(tmp_path / "model")
    assert again.fitted_.classical == model.fitted_.classical
    assert bool(kept(again)["classical"])
    same(again.predict(), model.predict())
    same(again.predict_interval(), model.predict_interval())
    same(again.update(tails(data, HORIZON)).predict(), model.predict(data), rtol=1e-6)


def test_intervals_and_paths_lie_around_the_forecast(way: tuple[Any, Any]) -> None:
    _, model = way
    point, ends, paths = (
        model.predict(),
        model.predict_interval(coverage=0.6),
        model.sample(n_samples=40, random_state=0),
    )
    points = list(point.values()) if isinstance(point, dict) else [point]
    bounds = list(ends.values()) if isinstance(ends, dict) else [ends]
    drawn = list(paths.values()) if isinstance(paths, dict) else [paths]
    for each, bound, path in zip(points, bounds, drawn, strict=True):
        values = bound.to_numpy().reshape(HORIZON, 2, 2)
        assert (values[..., 0] <= values[..., 1]).all()
        away = np.abs(path.to_numpy().reshape(HORIZON, 2, 40) - each.to_numpy()[..., None])
        assert np.isfinite(away).all()
        assert away.mean() < 10 * (values[..., 1] - values[..., 0]).mean()


def test_how_wide_an_interval_is_comes_from_the_rows_of_the_network() -> None:
    frame = months()
    model = TSM2Forecaster(**SETTINGS, classical=True).fit(frame)
    wild = frame.copy()
    early = slice(0, len(frame) - model.fitted_.lookback)
    wild.iloc[early] = 20 + 3 * (wild.iloc[early] - 20)
    widths = []
    for each in (frame, wild):
        ends = model.predict_interval(each).to_numpy().reshape(HORIZON, 2, 2)
        widths.append(ends[..., 1] - ends[..., 0])
    np.testing.assert_allclose(widths[0], widths[1], rtol=1e-4)
    assert not np.allclose(model.predict(frame), model.predict(wild), rtol=1e-4)


def test_refits_are_fits_to_what_was_known(way: tuple[Any, Any]) -> None:
    data, model = way
    first = next(iter(data.values())) if isinstance(data, dict) else data
    start = first.index[-HORIZON]
    backtest = model.backtest(data, start=start, refit=True)
    forecast = model.predict()
    frames = list(forecast.values()) if isinstance(forecast, dict) else [forecast]
    wanted = np.concatenate([each.to_numpy().ravel() for each in frames])
    np.testing.assert_allclose(backtest["forecast"], wanted, rtol=1e-5)


def test_forecasts_roll_forward(way: tuple[Any, Any]) -> None:
    _, model = way
    longer, forecast = model.predict(horizon=2 * HORIZON), model.predict()
    if isinstance(longer, dict):
        longer = {name: each.iloc[:HORIZON] for name, each in longer.items()}
    else:
        longer = longer.iloc[:HORIZON]
    same(longer, forecast, rtol=1e-6, check_freq=False)


# --- single histories -----------------------------------------------------------------------------


def test_a_series_is_forecast_alike_to_the_bit_alone_and_among_others() -> None:
    data = panel() | {f"z{k}": months(30 + 3 * k, k + 2) for k in range(5)}
    model = TSM2Forecaster(**SETTINGS, leaders=False).fit(data)
    assert model.fitted_.classical is not None
    together = model.predict(data)
    for name, each in data.items():
        pd.testing.assert_frame_equal(
            model.predict({name: each})[name], together[name], rtol=0, atol=0, check_freq=False
        )


def test_more_of_a_history_is_read_where_it_is_given() -> None:
    frame = months(200)
    model = TSM2Forecaster(**SETTINGS).fit(frame.iloc[:114])
    assert model.fitted_.classical is not None
    few, many = model.predict(frame.iloc[-100:]), model.predict(frame)
    assert not np.allclose(few, many, rtol=1e-4)
    contexts = frame.to_numpy()[None]
    np.testing.assert_allclose(model.forecast_contexts(contexts, HORIZON)[0], many, rtol=1e-6)
    np.testing.assert_allclose(
        model.forecast_contexts(contexts[:, -100:], HORIZON)[0], few, rtol=1e-6
    )
    with pytest.raises(WindowError, match="lookback"):
        model.predict(frame.iloc[-5:])


def test_rows_that_were_known_are_no_rows_to_forecast() -> None:
    frame = months(150)
    model = TSM2Forecaster(**SETTINGS).fit(frame.iloc[:120])
    later = frame.iloc[120:]
    backtest = model.backtest(later)
    assert backtest["time"].min() == later.index[0]
    with pytest.raises(WindowError, match=r"the model knows already.* 2020-01-01"):
        model.backtest(later, start=frame.index[100])
    with pytest.raises(WindowError, match="must stand before it"):
        model.backtest(later, start=frame.index[5])
    tables = {"x": frame.iloc[:110], "y": frame.iloc[:90]}
    several = TSM2Forecaster(**SETTINGS, classical=True).fit(tables)
    with pytest.raises(WindowError, match=r"'y' has 92 rows.*needs 96 .*known already"):
        several.backtest({"x": frame.iloc[110:130], "y": frame.iloc[90:92]})


def test_what_moved_a_forecast_is_looked_for_in_all_that_was_read() -> None:
    frame = months(150)
    model = TSM2Forecaster(**SETTINGS, leaders=False).fit(frame)
    assert model.fitted_.classical is not None
    told = model.explain()
    assert told.parts["first"].min() == 1 - len(frame)
    assert told.columns.to_numpy()[0, 0] > 0
    early = told.parts[
        (told.parts["target"] == "a") & (told.parts["last"] < -model.fitted_.lookback)
    ]
    assert early["influence"].max() > 0
    selection = model.inspect()
    assert (np.diag(selection.influence) > 0).all()


def test_a_mean_that_few_windows_speak_against_is_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FloorWarning)
        model = TSM2Forecaster(**SETTINGS).fit(months(70, 6))
    assert model.fitted_.classical is not None
    assert model.floor_["network"] > 1.5 * model.floor_["linear"]


def test_what_is_averaged_is_told_in_the_choices_and_on_the_card(tmp_path: Path) -> None:
    model = TSM2Forecaster(**SETTINGS).fit(months())
    assert "linear" in model.floor_
    model.save(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "`classical=True`" in card
    assert "its classical forecasts, up to 2000" in card


def test_a_fit_goes_on_from_an_earlier_one_with_what_it_was_averaged_with() -> None:
    model = TSM2Forecaster(**SETTINGS).fit(months())
    model.set_params(warm_start=True, max_epochs=1).fit(months(130))
    assert model.fitted_.classical == ClassicalMean(season=12)
    model.set_params(lookback=model.fitted_.lookback).fit(months(130))
    assert model.fitted_.classical is None


@pytest.mark.parametrize(
    "told", [{"rows": 0, "season": 12}, {"rows": 10}, {"rows": 2.5, "season": 1}, [1, 2], True]
)
def test_a_folder_that_was_edited_is_refused(told: object, tmp_path: Path) -> None:
    TSM2Forecaster(**SETTINGS).fit(months()).save(tmp_path / "model")
    config, tensors = load_folder(tmp_path / "model", kind="TSM2Forecaster")
    save_folder(
        tmp_path / "model",
        kind="TSM2Forecaster",
        config=config | {"classical": told},
        tensors=tensors,
    )
    with pytest.raises(SavedModelError, match="rows and season"):
        TSM2Forecaster.load(tmp_path / "model")


def test_a_model_that_was_saved_before_there_were_any_forecasts_as_it_did(tmp_path: Path) -> None:
    model = TSM2Forecaster(**SETTINGS).fit(months())
    model.save(tmp_path / "model")
    config, tensors = load_folder(tmp_path / "model", kind="TSM2Forecaster")
    del config["classical"]
    del config["choices"][0]["classical"]
    save_folder(tmp_path / "model", kind="TSM2Forecaster", config=config, tensors=tensors)
    again = TSM2Forecaster.load(tmp_path / "model")
    assert again.fitted_.classical is None
    assert "classical" not in again.choices_
    assert not np.allclose(again.predict(), model.predict(), rtol=1e-5)
