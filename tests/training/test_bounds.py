"""What mixers add to a window that is unlike all others is held to what they added to those."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsm2 import TSM2Forecaster
from tsm2.fitted.model import FittedModel
from tsm2.fitting import Fitting
from tsm2.networks.ensemble import members_of
from tsm2.networks.tsm2 import TSM2Network
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.read import read
from tsm2.training.bounds import lift_bounds
from tsm2.training.recipe import Recipe
from tsm2.training.start import without_mixers

LOOKBACK, HORIZON = 16, 4
SETTINGS: dict[str, Any] = {
    "lookback": LOOKBACK,
    "horizon": HORIZON,
    "level": "last",
    "max_epochs": 8,
    "mixer_learning_rate": 1e-2,
    "random_state": 0,
}
WAYS: dict[str, dict[str, Any]] = {
    "table": {},
    "own heads": {"separate_heads": True},
    "quantiles": {"quantiles": (0.1, 0.9)},
    "gaps": {"missing": "mask"},
    "ensemble": {"n_estimators": 2},
    "linear mixers": {"time_mixer": "linear", "variate_mixer": "none", "blocks": 2},
}


@pytest.fixture(autouse=True)
def mixers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any later epoch be kept in place of the start, whatever it gains."""
    monkeypatch.setattr("tsm2.fitting.sure_margin", lambda *_: -1e9)


def waves(rows: int = 400) -> pd.DataFrame:
    """Two columns, of which mixers can learn more than a linear path, but not as much of both."""
    draw = np.random.default_rng(0)
    time = np.arange(rows)
    waves = np.sin(time / 3), np.sin(time / 3 + 1)
    values = np.stack((np.sign(waves[0]) * np.abs(np.sin(time / 50)), np.abs(waves[1])), 1)
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    return pd.DataFrame(values + 0.1 * draw.normal(size=(rows, 2)), index, ["a", "b"])


def outliers() -> NDArray[np.float64]:
    """Contexts of single large values, unlike any wave, (W, L, M)."""
    return np.random.default_rng(1).standard_cauchy((300, LOOKBACK, 2)).clip(-50, 50)


def networks(fitted: FittedModel) -> list[TSM2Network]:
    network: Any = fitted.network
    return [each for each in members_of(network) if isinstance(each, TSM2Network)]


@torch.no_grad()
def added(network: TSM2Network, contexts: NDArray[np.float64]) -> Tensor:
    """Return what mixers add to the forecasts of contexts in standard units, (B, M, H)."""
    context = torch.from_numpy(contexts.copy()).float().mT
    mixed, plain = (each(context) for each in (network, without_mixers(network)))
    levels = network.config.quantiles
    difference: Tensor = mixed - plain
    return difference if levels is None else difference[..., levels.index(0.5)]


def freed(network: TSM2Network) -> TSM2Network:
    free = copy.deepcopy(network)
    lift_bounds(free)
    return free


def trained_windows(model: TSM2Forecaster, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return the contexts that trained, in standard units, (W, L, M)."""
    rows = int(len(frame) * (1 - model.validation_fraction))
    scaled = (frame.to_numpy()[:rows] - model.scaling_.center) / model.scaling_.scale
    return np.lib.stride_tricks.sliding_window_view(scaled[:-HORIZON], LOOKBACK, 0).swapaxes(1, 2)


@pytest.mark.parametrize("way", WAYS)
def test_far_windows_are_held_and_those_that_trained_mostly_are_not(way: str) -> None:
    frame = waves()
    model = TSM2Forecaster(**SETTINGS | WAYS[way], refit_linear=False).fit(frame)
    usual, far = trained_windows(model, frame), outliers()
    for network in networks(model.fitted_):
        untouched = (added(network, usual) == added(freed(network), usual)).all(-1)
        assert untouched.double().mean(0).numpy() == pytest.approx(0.95, abs=0.01)
        held, free = added(network, far), added(freed(network), far)
        shares = held / free
        share = shares.median(-1, keepdim=True).values  # of a step it is rounded, near 0
        torch.testing.assert_close(held, share * free, rtol=1e-3, atol=1e-4)
        assert share.max() == pytest.approx(1.0, abs=1e-3)
        assert share.min() < 0.97


@pytest.mark.parametrize("way", WAYS)
def test_a_loaded_model_holds_them_too(way: str, tmp_path: Path) -> None:
    model = TSM2Forecaster(**SETTINGS | WAYS[way]).fit(waves())
    model.save(tmp_path)
    again = TSM2Forecaster.load(tmp_path)
    for own, loaded in zip(networks(model.fitted_), networks(again.fitted_), strict=True):
        assert own.bound is not None
        assert loaded.bound is not None
        assert torch.equal(own.bound.largest, loaded.bound.largest)
        assert torch.equal(added(own, outliers()), added(loaded, outliers()))


def test_a_network_that_kept_its_start_has_no_bound_beside_one_that_has(tmp_path: Path) -> None:
    model = TSM2Forecaster(**SETTINGS, n_estimators=2).fit(waves(300))
    first, _ = networks(model.fitted_)
    lift_bounds(first)  # as a start that is kept is left
    model.save(tmp_path)
    again = TSM2Forecaster.load(tmp_path)
    pd.testing.assert_frame_equal(again.predict(), model.predict())
    again.update(waves(340).iloc[300:], epochs=1)
    for network in networks(again.fitted_):
        assert network.bound is not None
        assert bool(network.bound.largest.isfinite().all())


def test_a_model_that_was_saved_without_bounds_has_none_and_begins_a_fit(tmp_path: Path) -> None:
    model = TSM2Forecaster(**SETTINGS).fit(waves())
    (network,) = networks(model.fitted_)
    older = TSM2Network(replace(network.config, bounded=False)).eval()
    older.load_state_dict(dict(network.named_parameters()))
    model.fitted_ = replace(model.fitted_, network=older)
    model.save(tmp_path)
    again = TSM2Forecaster.load(tmp_path)
    (loaded,) = networks(again.fitted_)
    assert loaded.bound is None
    assert torch.equal(added(loaded, outliers()), added(freed(network), outliers()))
    (further,) = networks(again.set_params(warm_start=True).fit(waves()).fitted_)
    assert further.bound is not None
    assert bool(further.bound.largest.isfinite().all())


def test_more_training_lifts_the_bound_and_measures_it_anew() -> None:
    first, rows = waves(300), waves()
    model = TSM2Forecaster(**SETTINGS).fit(first)
    (before,) = networks(model.fitted_)
    assert before.bound is not None
    earlier = before.bound.largest.clone()
    before.bound.largest.fill_(0.0)  # would hold all if it were not lifted
    model.update(rows.iloc[300:], epochs=2)
    (after,) = networks(model.fitted_)
    assert after.bound is not None
    assert bool((after.bound.largest > 0.1 * earlier).all())
    assert not torch.equal(after.bound.largest, earlier)


def test_no_bound_of_before_is_validated() -> None:
    frame = waves()
    model = TSM2Forecaster(**SETTINGS).fit(frame)
    again = Fitting.of(Recipe.of(model.get_params()), read(frame), CovariateTables())
    for network in networks(again.model):
        assert network.bound is not None
        network.bound.largest.fill_(0.0)
    _, history, _ = again.run()
    pd.testing.assert_frame_equal(history, model.history_)


def test_a_start_of_drawn_weights_is_not_bounded() -> None:
    model = TSM2Forecaster(**SETTINGS, linear_start="random").fit(waves())
    (network,) = networks(model.fitted_)
    assert network.bound is None


def test_the_file_for_others_holds_them_too(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = TSM2Forecaster(**SETTINGS).fit(waves())
    model.to_onnx(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    far = outliers()
    forecast = model.forecast_contexts(far, HORIZON)
    (name,) = (each.name for each in session.get_inputs())
    (got,) = session.run(["forecast"], {name: far})
    np.testing.assert_allclose(got, forecast, rtol=1e-4, atol=1e-4)
    model.fitted_ = replace(model.fitted_, network=freed(networks(model.fitted_)[0]))
    assert np.abs(model.forecast_contexts(far, HORIZON) - forecast).max() > 1e-2
