"""Networks, fits, forecasts and saved models on the GPU at hand, beside those of a CPU."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_captured_steps import CONFIG, NETWORKS, QUANTILES, assert_same, made, windows

from tsm2 import TSM2Forecaster, backtesting
from tsm2.training import loop
from tsm2.training.fit import Fit
from tsm2.training.loop import fit_network
from tsm2.training.recording import PAYS

pytestmark = pytest.mark.gpu


@pytest.fixture
def trains(device: str) -> Any:
    """The device, if fits run on it."""
    if device == "xpu":
        pytest.skip("fits run on CUDA, MPS and CPUs, not on XPU")
    return device


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_and_its_gradients(device: str, name: str) -> None:
    sizes: dict[str, Any] = NETWORKS[name] | {"backend": "auto", "dropout": 0.0}
    batch = windows(**sizes).gather(torch.arange(8))
    here, there = made(**sizes), made(**sizes).to(device)
    for network, given in ((here, batch), (there, batch.to(device))):
        network(given.context, **given.auxiliary()).square().mean().backward()
    for (each, a), (_, b) in zip(here.named_parameters(), there.named_parameters(), strict=True):
        if a.grad is not None and b.grad is not None:
            limit = 1e-3 * a.grad.abs().max().item() + 1e-7
            assert (b.grad.cpu() - a.grad).abs().max().item() <= limit, each


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "bfloat16": ({}, {"precision": "bfloat16", "schedule": "cosine"}),
    "no SAM": ({}, {"sam_radius": 0.0, "ema_decay": 0.0}),
    "quantiles": ({"quantiles": QUANTILES}, {"loss": "quantile", "quantiles": QUANTILES}),
    "covariates": (NETWORKS["covariates"], {"loss": "mae"}),
}


@pytest.mark.parametrize("name", CASES)
def test_captured_steps_leave_the_weights_of_uncaptured_ones(trains: Any, name: str) -> None:
    if trains != "cuda":
        pytest.skip("only CUDA captures steps")
    given, changes = CASES[name]
    sizes: dict[str, Any] = given | {"backend": "auto"}
    rows, both = windows(**sizes), []
    for asked in (False, True):  # True: captured or else an error
        network = made(**sizes)
        config = dataclasses.replace(CONFIG, device="cuda", capture_steps=asked, **changes)
        both.append((network, fit_network(network, rows, rows, config, seed=1)))
    (taken, losses), (replayed, same_losses) = both
    assert losses == same_losses
    assert_same(taken, replayed)


def test_captured_validation_measures_what_uncaptured_measures(trains: Any) -> None:
    if trains != "cuda":
        pytest.skip("only CUDA captures validation")
    both = []
    for asked in (False, True):
        network = made(backend="auto")
        epochs: dict[str, Any] = {"max_epochs": PAYS + 4, "patience": PAYS + 4}
        config = dataclasses.replace(CONFIG, device="cuda", capture_steps=asked, **epochs)
        both.append((network, fit_network(network, windows(), windows(), config, seed=1)))
    (taken, losses), (replayed, same_losses) = both
    assert losses == same_losses
    assert_same(taken, replayed)


@pytest.mark.parametrize("missing", ["raise", "mask"])
def test_captured_forecasts_are_uncaptured_ones(
    trains: Any, missing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trains != "cuda":
        pytest.skip("only CUDA captures forecasts")
    monkeypatch.setattr(backtesting, "_BATCH", 4)
    rows = np.arange(240.0)
    frame = pd.DataFrame({"a": np.sin(rows / 3), "b": rows % 7})
    if missing == "mask":
        frame = frame.mask(np.arange(480).reshape(240, 2) % 11 == 0)
    given: dict[str, Any] = {"lookback": 14, "horizon": 5, "features": 8, "random_state": 0}
    model = TSM2Forecaster(
        **given, max_epochs=2, batch_size=16, n_estimators=2, missing=missing, device="cuda"
    ).fit(frame[:100])
    found = []
    for asked in (False, True):
        model.set_params(capture_steps=asked)
        table = model.backtest(frame[100:], quantiles=[0.1, 0.5, 0.9])
        found.append((table, model.score(frame[100:])))
    (taken, score), (replayed, same_score) = found
    pd.testing.assert_frame_equal(replayed, taken, check_exact=True)
    assert score == same_score


def test_a_captured_fit_goes_on_from_a_checkpoint(trains: Any, tmp_path: Path) -> None:
    rows, unbroken, again = windows(), made(backend="auto"), made(backend="auto")
    config = dataclasses.replace(CONFIG, device=trains)
    fit_network(unbroken, rows, rows, config, seed=1)
    cut_off = made(backend="auto")
    fit_network(cut_off, rows, rows, config, seed=1, checkpoint=tmp_path / "a", max_seconds=1e-9)
    fit_network(again, rows, rows, config, seed=1, checkpoint=tmp_path / "a")
    assert_same(again, unbroken)


def test_a_step_does_not_wait_for_the_device(trains: Any) -> None:
    if trains != "cuda":
        pytest.skip("only CUDA says when a host waits")
    sizes: dict[str, Any] = NETWORKS["covariates"] | {"backend": "auto"}
    accelerator = loop._accelerator("cuda", None)
    rows = windows(**sizes)
    fit = Fit(made(**sizes), rows, None, dataclasses.replace(CONFIG), 1, accelerator)
    which = torch.arange(8, device="cuda")
    fit.take_step(which)  # kernels are compiled in it
    torch.cuda.set_sync_debug_mode("error")
    try:
        fit.take_step(which)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_an_estimator_fits_forecasts_and_is_saved(trains: Any, tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=90, name="day")
    rows = np.arange(90.0)
    frame = pd.DataFrame({"a": np.sin(rows / 3), "b": rows % 7}, index=days)
    given: dict[str, Any] = {"lookback": 14, "horizon": 5, "features": 8, "random_state": 0}
    given |= {"max_epochs": 2, "batch_size": 16, "linear_start": "random"}
    model = TSM2Forecaster(**given, device=trains).fit(frame[:80])
    on_a_cpu = TSM2Forecaster(**given, device="cpu").fit(frame[:80])
    forecast = model.predict()
    assert np.isfinite(forecast.to_numpy()).all()
    # Dropout is drawn by another generator, so that the fits are near and not equal.
    assert np.abs(forecast - on_a_cpu.predict()).to_numpy().max() < 0.5 * frame["b"].std()
    assert len(model.backtest(frame[80:]))
    model.save(tmp_path / "model")
    for device in (trains, "cpu"):
        loaded = TSM2Forecaster.load(tmp_path / "model", device=device).predict()
        pd.testing.assert_frame_equal(loaded, forecast, rtol=1e-4, atol=1e-4)
