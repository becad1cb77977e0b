"""Forecasts of many windows that are replayed are those that are made, to the bit.

The recorder is that of a CPU, `tests/training/recorders.py`; `test_fits_on_a_device` asks CUDA.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tsm2 import TSM2Forecaster, backtesting
from tsm2.errors import BackendError, CaptureWarning
from tsm2.fitted import model as fitted_model
from tsm2.networks.zero import ZeroShotNetwork, zero_shot_config
from tsm2.tables.covariates import CovariateTables
from tsm2.training.capture import find_recorder, why_not_captured
from tsm2.training.recording import PAYS

sys.path.append(str(Path(__file__).parents[1] / "training"))

recorders: Any = import_module("recorders")

SMALL: dict[str, Any] = {
    "lookback": 12,
    "horizon": 3,
    "features": 4,
    "d_state": 2,
    "max_epochs": 1,
    "batch_size": 16,
    "calendar": (),
    "linear_start": "random",
    "random_state": 0,
    "device": "cpu",
    "backend": "torch",  # a tape hears of nothing else
}
ROWS = pd.DataFrame(
    {"a": np.sin(np.arange(150.0)), "b": np.arange(150.0) % 7},
    index=pd.date_range("2024-01-01", periods=150, freq="D"),
)
HOLES = ROWS.mask(np.arange(300).reshape(150, 2) % 11 == 0)
HOLES.iloc[100:120] = ROWS.iloc[100:120]  # windows that know all read no mask
CASES: dict[str, tuple[dict[str, Any], pd.DataFrame]] = {
    "points": ({}, ROWS),
    "quantiles": ({"quantiles": (0.1, 0.5, 0.9)}, ROWS),
    "gaps": ({"missing": "mask"}, HOLES),
    "an ensemble": ({"n_estimators": 2}, ROWS),
    "the linear path alone": ({"blocks": 0}, ROWS),
    "calendar": ({"calendar": ("dayofweek",)}, ROWS),
}


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record forecasts from now on; return what they were recorded on."""
    found: list[Any] = []

    def record(*_: Any, **__: Any) -> Any:
        found.append(recorders.Tape())
        return found[-1]

    monkeypatch.setattr(fitted_model, "find_recorder", record)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_replayed_backtest_is_the_one_that_is_made(
    name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    given, rows = CASES[name]
    monkeypatch.setattr(backtesting, "_BATCH", 4)
    model = TSM2Forecaster(**SMALL | given).fit(rows[:90])
    how: dict[str, Any] = {"quantiles": [0.2, 0.5, 0.8]}
    made, score = model.backtest(rows[90:], **how), model.score(rows[90:])
    tapes = request.getfixturevalue("tapes")
    pd.testing.assert_frame_equal(model.backtest(rows[90:], **how), made, check_exact=True)
    # 58 windows are 14 batches of four and one of two; point forecasts and quantiles are apart.
    if name == "gaps":
        assert all(tape.recorded and tape.replays for tape in tapes)
    else:
        assert [(tape.recorded, tape.replays) for tape in tapes] == [(1, 14 - PAYS)] * 2
    assert model.score(rows[90:]) == score
    tapes.clear()
    file = model.backtest(rows[90:], **how, to=tmp_path / "made.csv")
    assert len(tapes) == 2
    assert all(tape.replays for tape in tapes)
    np.testing.assert_allclose(file.read()["forecast"], made["forecast"], rtol=1e-12)


def test_every_roll_of_a_long_forecast_is_replayed(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Of a roll, what is known of the past is new to the network; the future moves on."""
    monkeypatch.setattr(backtesting, "_BATCH", 4)
    days = pd.date_range("2024-01-01", periods=160, freq="D")
    known = pd.DataFrame({"known": np.cos(np.arange(160.0))}, days)
    lagged = known.rename(columns={"known": "lagged"})
    covariates: dict[str, Any] = {"future_covariates": known, "past_covariates": lagged}
    model = TSM2Forecaster(**SMALL, missing="mask").fit(ROWS[:90], **covariates)
    how: dict[str, Any] = {"horizon": 5, "start": ROWS.index[102], **covariates}
    made = model.backtest(ROWS[90:], **how)
    tapes = request.getfixturevalue("tapes")
    pd.testing.assert_frame_equal(model.backtest(ROWS[90:], **how), made, check_exact=True)
    # 44 windows are eleven batches, each of which rolls once.
    assert [(tape.recorded, tape.replays) for tape in tapes] == [(2, 2 * (11 - PAYS))]


def test_many_series_and_their_paths_are_replayed(request: pytest.FixtureRequest) -> None:
    series = {f"s{number}": ROWS[:40] * number for number in range(1, 1 + 64 * 12)}
    model = TSM2Forecaster(**SMALL, validation_fraction=0.3).fit(dict(list(series.items())[:3]))
    fitted = model.fitted_
    prepared, starts = fitted.latest(model._read_history(series), CovariateTables(), 5)
    made = fitted.forecast(prepared, starts, 5)  # together
    tapes = request.getfixturevalue("tapes")
    apart = fitted.forecast(prepared, starts, 5, size=64)
    assert [(tape.recorded, tape.replays) for tape in tapes] == [
        (2, 2 * (12 - PAYS))
    ]  # each rolls once
    np.testing.assert_array_equal(apart, made)

    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setattr(fitted_model, "_CONTEXTS", 64)
    replayed = fitted.paths(prepared, starts, 5, 2, np.random.RandomState(0))
    assert tapes[-1].replays
    monkeypatch.setattr(fitted_model, "find_recorder", find_recorder)
    taken = fitted.paths(prepared, starts, 5, 2, np.random.RandomState(0))
    np.testing.assert_array_equal(taken, replayed)


def test_forecasts_that_cannot_be_replayed_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtesting, "_BATCH", 4)
    model = TSM2Forecaster(**SMALL).fit(ROWS[:90])
    made = model.score(ROWS[90:])
    monkeypatch.setattr(fitted_model, "find_recorder", lambda *_, **__: recorders.Broken())
    with pytest.warns(CaptureWarning, match=r"^forecasts are slower .*capture_steps=False") as said:
        assert model.score(ROWS[90:]) == made
    assert len(said) == 1
    model.set_params(capture_steps=True)
    with pytest.raises(BackendError, match=r"^forecasts cannot be captured here"):
        model.score(ROWS[90:])


@pytest.mark.parametrize(("asked", "wanted"), [("auto", "auto"), (True, "auto"), (False, False)])
def test_what_a_forecast_asks_of_a_device(
    asked: Any, wanted: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A fit that had to be captured can be forecast where nothing is."""
    model = TSM2Forecaster(**SMALL).fit(ROWS[:90]).set_params(capture_steps=asked)
    model.save(tmp_path / "model")
    heard: list[Any] = []
    monkeypatch.setattr(
        fitted_model, "find_recorder", lambda device, **how: heard.append((device, how))
    )
    for each in (model, TSM2Forecaster.load(tmp_path / "model")):
        each.predict()
    here = torch.device("cpu")
    assert heard == [(here, {"asks_host": False, "asked": wanted})] * 2


def test_a_network_that_asks_the_host_is_not_replayed() -> None:
    config = zero_shot_config(lookback=16, horizon=4, quantiles=(0.1, 0.5, 0.9), features=4)
    assert ZeroShotNetwork(config).asks_host
    assert "computes on the host" in str(why_not_captured("cuda", asks_host=True))
