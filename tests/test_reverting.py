"""Series that come back to their mean: what counts from it is half of the start, in every use.

Of several lookbacks, the start is the mean over them, in the same uses.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tsm2 import TSM2Forecaster
from tsm2.cli import app

LOOKBACK, HORIZON = 16, 12
TWO = (12, LOOKBACK)
SETTINGS: dict[str, Any] = {
    "lookback": LOOKBACK,
    "horizon": HORIZON,
    "max_epochs": 1,
    "epoch_steps": 5,
    "random_state": 0,
}


def hours(count: int = 5400, *, back: float = 0.94, seed: int = 0) -> pd.DataFrame:
    """Two columns of which `back` is left after an hour; a random walk of 1.0."""
    draw = np.random.default_rng(seed)
    shocks = draw.normal(0, 1, (count, 2))
    values = np.zeros((count, 2))
    for row in range(1, count):
        values[row] = back * values[row - 1] + shocks[row]
    index = pd.date_range("2024-01-01", periods=count, freq="h")
    return pd.DataFrame(50 + values, index, ["a", "b"])


def holed(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.copy()
    frame.iloc[100:700:37, 0] = frame.iloc[400:420, 1] = np.nan
    return frame


def cut(data: Any, rows: slice) -> Any:
    if isinstance(data, dict):
        return {name: frame.iloc[rows] for name, frame in data.items()}
    return data.iloc[rows]


def values_of(forecast: Any) -> NDArray[np.float64]:
    frames = forecast.values() if isinstance(forecast, dict) else [forecast]
    return np.concatenate([frame.to_numpy() for frame in frames])


def kept(model: TSM2Forecaster) -> pd.Series:
    return model.choices_[model.choices_["chosen"]].iloc[0]


PANEL = {"x": hours(), "y": hours(seed=1).iloc[900:] * 30}
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "table": (hours(), {}),
    "table, own maps": (hours(), {"separate_heads": True}),
    "panel": (PANEL, {}),
    "panel, gaps, quantiles": (
        {name: holed(frame) for name, frame in PANEL.items()},
        {"missing": "mask", "quantiles": (0.1, 0.9)},
    ),
    "ensemble, quantiles": (hours(), {"n_estimators": 2, "quantiles": (0.1, 0.9)}),
    "gaps, no mixers": (holed(hours()), {"missing": "mask", "blocks": 0}),
    "whole histories": (hours(), {"classical": True}),
    "two lookbacks, own maps": (hours(), {"lookback": TWO, "separate_heads": True}),
    "two lookbacks, panel, gaps, quantiles": (
        {name: holed(frame) for name, frame in PANEL.items()},
        {"lookback": TWO, "missing": "mask", "quantiles": (0.1, 0.9), "n_estimators": 2},
    ),
    "two lookbacks, whole histories": (hours(), {"lookback": TWO, "classical": True}),
}


@pytest.fixture(scope="module", params=list(WAYS.values()), ids=list(WAYS))
def way(request: Any) -> tuple[Any, dict[str, Any], TSM2Forecaster]:
    data, given = request.param
    how = SETTINGS | given
    return data, how, TSM2Forecaster(**how).fit(cut(data, slice(0, -20)))


def test_what_comes_back_to_its_mean_is_forecast_so() -> None:
    """The mean of the regression and of what holds a level errs less than the latter alone."""
    frame = hours(8000)
    model = TSM2Forecaster(**SETTINGS, blocks=0).fit(frame.iloc[:5400])
    assert kept(model)["reverts"]
    tried = model.choices_[model.choices_["averaged"]]
    assert tried["reverts"].tolist() == [False, True]
    assert tried["validation_mse"].iloc[1] < tried["validation_mse"].iloc[0]
    assert model.floor_["linear"] == pytest.approx(tried["validation_mse"].iloc[1], rel=1e-5)

    later = frame.iloc[5400 - LOOKBACK :]
    mean, last = (
        TSM2Forecaster(**SETTINGS, blocks=0, level=level).fit(frame.iloc[:5400])
        for level in ("mean", "last")
    )
    assert not kept(mean)["reverts"]
    errors = [each.score(later) for each in (model, mean, last)]
    assert errors[0] > max(errors[1:]) + 0.02

    far = frame.iloc[:5400] + 10 * (np.arange(5400) >= 5400 - LOOKBACK)[:, None]
    away = model.predict(far) - model.predict(frame.iloc[:5400])
    assert (away.iloc[0] > 9).all()
    assert (away.iloc[-1] < 8).all()  # of a level that is ten higher, which others repeat
    held = mean.predict(far) - mean.predict(frame.iloc[:5400])
    np.testing.assert_allclose(held, 10, atol=1e-3)


@pytest.mark.parametrize(
    ("frame", "given"),
    [
        (hours(back=1.0), {}),
        (hours(back=1.0).cumsum() / 50, {}),
        (hours(3000), {}),  # 589 validation windows say too little
        (hours(), {"level": "last"}),
        (hours(), {"calendar": ("hour",)}),
        (hours(), {"instance_norm": False}),
        (hours(), {"validation_fraction": 0}),
        (hours(), {"target": "a"}),  # the other column is read too
    ],
    ids=["walk", "trend", "few rows", "level", "calendar", "no levels", "no validation", "target"],
)
def test_what_does_not_or_may_not_keeps_its_level(
    frame: pd.DataFrame, given: dict[str, Any]
) -> None:
    model = TSM2Forecaster(**SETTINGS | given).fit(frame)
    assert not kept(model)["reverts"]
    assert model.network_.reversion is None


def test_in_every_way_it_errs_as_its_choice_did(way: tuple[Any, Any, TSM2Forecaster]) -> None:
    _, how, model = way
    assert kept(model)["reverts"]
    assert kept(model)["lookbacks"] == (TWO if how["lookback"] == TWO else ())
    assert model.fitted_.lookback == LOOKBACK
    if "quantiles" not in how and not how.get("classical"):
        wanted = kept(model)["validation_mse"]
        assert model.floor_["linear"] == pytest.approx(wanted, rel=1e-4)


def test_in_every_way_it_is_the_same_when_it_is_read_again(
    way: tuple[Any, Any, TSM2Forecaster], tmp_path: Path
) -> None:
    _, _, model = way
    model.save(tmp_path / "model")
    again = TSM2Forecaster.load(tmp_path / "model")
    np.testing.assert_array_equal(values_of(again.predict()), values_of(model.predict()))
    assert kept(again)["reverts"]
    assert tuple(kept(again)["lookbacks"]) == kept(model)["lookbacks"]


def test_in_every_way_new_rows_count_as_known_ones(
    way: tuple[Any, Any, TSM2Forecaster], tmp_path: Path
) -> None:
    data, _, model = way
    model.save(tmp_path / "model")
    updated = TSM2Forecaster.load(tmp_path / "model").update(cut(data, slice(-20, None)))
    got, wanted = updated.predict(), model.predict(data)
    np.testing.assert_allclose(values_of(got), values_of(wanted), rtol=1e-5)


def test_in_every_way_refits_are_fits(way: tuple[Any, Any, TSM2Forecaster]) -> None:
    data, how, model = way
    first = next(iter(data.values())) if isinstance(data, dict) else data
    begins: Any = {"start": first.index[-20], "stride": 100, "refit": True}
    table = TSM2Forecaster(**how).backtest(data, **begins)
    wanted = values_of(model.predict()).ravel()
    np.testing.assert_allclose(table["forecast"], wanted, rtol=1e-5)


def test_in_every_way_the_exported_program_forecasts_it(
    way: tuple[Any, Any, TSM2Forecaster], tmp_path: Path
) -> None:
    _, _, model = way
    if model.fitted_.classical is not None:
        pytest.skip("the half that reads whole histories takes long, and has tests of its own")
    model.to_onnx(tmp_path / "model.onnx")  # refuses a file that forecasts something else


def test_training_goes_on_from_it_and_from_where_it_was_cut_off(tmp_path: Path) -> None:
    frame = hours()
    how = SETTINGS | {"max_epochs": 2, "start_margin": 0.0, "ema_decay": 0.5}
    whole = TSM2Forecaster(**how).fit(frame)
    folder = tmp_path / "checkpoint"
    TSM2Forecaster(**how).fit(frame, checkpoint=folder, max_time=1e-3)
    resumed = TSM2Forecaster(**how).fit(frame, checkpoint=folder)
    np.testing.assert_array_equal(resumed.predict(), whole.predict())
    assert len(whole.history_) == 3

    warm = TSM2Forecaster(**how | {"warm_start": True}).fit(frame)
    before = warm.predict()
    warm.fit(frame)
    assert kept(warm)["reverts"]
    np.testing.assert_allclose(warm.predict(), before, rtol=0.05)


def test_what_moved_a_forecast_is_told() -> None:
    """Each column moves its own forecast, and nothing that is told is unknown."""
    frame = hours()
    told = TSM2Forecaster(**SETTINGS).fit(frame).explain(frame)
    assert (np.diag(told.columns) > 0).all()
    assert np.isfinite(told.parts["influence"]).all()


def test_intervals_cover_what_comes_back() -> None:
    frame = hours(7000)
    model = TSM2Forecaster(**SETTINGS, blocks=0).fit(frame.iloc[:5400])
    assert kept(model)["reverts"]
    table = model.backtest(frame.iloc[5400 - LOOKBACK :], stride=HORIZON, coverage=0.8)
    inside = (table["actual"] >= table["lo-80"]) & (table["actual"] <= table["hi-80"])
    assert 0.75 < inside.mean() < 0.85


@pytest.mark.parametrize(("back", "reverts"), [(0.94, True), (1.0, False)])
def test_a_fit_at_the_command_line_says_whether_levels_come_back(
    back: float, reverts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hours(back=back).to_csv("hours.csv", index_label="time")
    asked = f"fit hours.csv --out model --horizon {HORIZON} --lookback {LOOKBACK} --set blocks=0"
    told = CliRunner().invoke(app, asked.split())
    assert told.exit_code == 0, told.output
    assert ("half of it comes back to the mean" in told.output) == reverts
    told = CliRunner().invoke(app, [*asked.split(), "--json", "--quiet"])
    assert json.loads(told.stdout)["reverts"] is reverts
