"""Forecasts before any fit: any container, short and long, with gaps; then kept, judged, tuned."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import nn

from tsm2 import TSM2Forecaster
from tsm2.errors import NotFittedError, ParameterError
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.training import seeded


@pytest.fixture
def model(zero_weights: str) -> TSM2Forecaster:
    return TSM2Forecaster.from_pretrained(zero_weights, device="cpu")


@pytest.fixture
def frame() -> pd.DataFrame:
    t = np.arange(200)
    index = pd.date_range("2024-01-01", periods=200, freq="h", name="time")
    daily = 10 + np.sin(2 * np.pi * t / 24)
    noise = np.random.default_rng(0).standard_normal(200)
    return pd.DataFrame({"load": daily + 0.05 * noise, "wind": 0.3 * noise}, index)


def test_a_forecast_continues_a_table_that_was_never_seen(
    model: TSM2Forecaster, frame: pd.DataFrame
) -> None:
    forecast = model.predict(frame.iloc[:176], horizon=24)
    pd.testing.assert_index_equal(forecast.index, frame.index[176:])
    assert list(forecast.columns) == ["load", "wind"]
    assert np.abs(forecast["load"] - frame["load"].iloc[176:]).mean() < 0.25
    assert not hasattr(model, "fitted_")


def test_lists_arrays_and_long_tables_come_back_as_they_came(
    model: TSM2Forecaster, frame: pd.DataFrame
) -> None:
    arrays = model.predict([frame.to_numpy(), frame.to_numpy()[:30]])
    assert [each.shape for each in arrays] == [(8, 2), (8, 2)]
    long = frame[["load"]].rename(columns={"load": "y"}).rename_axis("ds").reset_index()
    long = pd.concat([long.assign(unique_id=name) for name in "ab"])
    forecast = model.predict(long, horizon=3)
    assert forecast.groupby("unique_id").size().to_dict() == {"a": 3, "b": 3}


def test_gaps_and_short_histories_are_unknown(model: TSM2Forecaster, frame: pd.DataFrame) -> None:
    short = frame.iloc[:20].copy()
    short.iloc[5:9, 0] = np.nan
    assert np.isfinite(model.predict(short).to_numpy()).all()


def test_intervals_reach_as_far_as_forecasts_and_widen(
    model: TSM2Forecaster, frame: pd.DataFrame
) -> None:
    bounds = model.predict_interval(frame, coverage=0.8, horizon=24)
    width = (bounds["load"][0.9] - bounds["load"][0.1]).to_numpy()
    assert len(width) == 24
    assert (width > 0).all()
    assert width[8:].min() > width[7]
    point = model.predict(frame, horizon=24)["load"]
    assert ((bounds["load"][0.1] < point) & (point < bounds["load"][0.9])).all()


def test_backtest_and_score_need_no_fit(model: TSM2Forecaster, frame: pd.DataFrame) -> None:
    table = model.backtest(frame, stride=40, coverage=0.8)
    assert {"forecast", "lo-80", "hi-80"} <= set(table.columns)
    first = table[(table["variate"] == "load") & (table["cutoff"] == table["cutoff"].iloc[0])]
    known = frame.loc[: first["cutoff"].iloc[0]]
    np.testing.assert_allclose(first["forecast"], model.predict(known)["load"], rtol=1e-4)
    assert model.score(frame) < 0


def test_fit_takes_the_table_for_the_history_and_learns_nothing(
    model: TSM2Forecaster, frame: pd.DataFrame, tmp_path: Path
) -> None:
    before = model.predict(frame)
    pd.testing.assert_frame_equal(model.fit(frame).predict(), before)
    model.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(), before)
    assert loaded.fitted_.network.season == 24
    model.update(frame.shift(len(frame), freq="h"))
    assert model.predict().index[0] > before.index[-1]


@pytest.mark.parametrize("batch_size", [32, "auto"])
def test_a_warm_start_tunes_the_weights_and_keeps_them_if_they_are_better(
    model: TSM2Forecaster, frame: pd.DataFrame, batch_size: int | str
) -> None:
    model.set_params(warm_start=True, max_epochs=1, epoch_steps=3, random_state=0)
    model.set_params(batch_size=batch_size).fit(frame)
    assert model.history_["epoch"].tolist() == [0, 1]
    assert model.history_["validation_loss"].notna().all()
    assert np.isfinite(model.predict().to_numpy()).all()


def test_what_needs_a_history_says_so(model: TSM2Forecaster) -> None:
    with pytest.raises(NotFittedError, match="or pass the history to predict"):
        model.predict()


def test_what_the_network_was_not_trained_for_is_refused(
    model: TSM2Forecaster, frame: pd.DataFrame, zero_weights: str, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match="target='load' does not go with pretrained="):
        TSM2Forecaster.from_pretrained(zero_weights, target="load").predict(frame)
    with pytest.raises(ParameterError, match="reads no covariates, but past were given"):
        model.fit(frame[["load"]], past_covariates=frame[["wind"]])
    with pytest.raises(ParameterError, match="checkpoint, max_time and log_dir do not go with"):
        model.fit(frame, checkpoint=tmp_path / "checkpoint")
    with pytest.raises(ParameterError, match="refit=2 does not go with pretrained="):
        model.backtest(frame, start=frame.index[-40], refit=2)
    with pytest.raises(ParameterError, match="has no parameter 'lookbak'"):
        TSM2Forecaster.from_pretrained(zero_weights, lookbak=3)
    with pytest.raises(ParameterError, match="no pretrained weights 'one'"):
        TSM2Forecaster.from_pretrained("one")
    model.fit(frame)
    with pytest.raises(ParameterError, match="trained by fit with warm_start=True"):
        model.update(frame.shift(len(frame), freq="h"), epochs=1)


def test_inspect_looks_at_the_tsm2_within_and_at_the_whole_forecast(
    model: TSM2Forecaster, frame: pd.DataFrame
) -> None:
    gaps = frame.copy()
    gaps.iloc[180:184, 0] = np.nan
    selection = model.inspect(gaps)
    assert set(selection.steps["variate"]) == {"load", "wind"}
    assert selection.steps["patch"].max() == 4
    assert (selection.steps["step"] > 0).all()
    last = selection.steps.query("patch == 4 and mixer == 'time' and variate == 'load'")
    assert last[["first", "last"]].to_numpy().tolist() == [[-15, 0]]
    assert selection.averaging["reader"].iloc[-1] == "readout"
    assert list(selection.influence.columns) == list(selection.influence.index) == ["load", "wind"]
    moved = selection.influence.to_numpy()
    assert (np.diag(moved) > 0.05).all()  # classical forecasts are of each column alone
    assert max(moved[0, 1], moved[1, 0]) < 1e-5
    known = model.fit(frame).inspect()
    pd.testing.assert_frame_equal(known.averaging, selection.averaging)


def test_it_goes_with_many_series_gaps_pictures_files_and_calibration(
    model: TSM2Forecaster, frame: pd.DataFrame, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    gaps = frame.copy()
    gaps.iloc[100:110, 0] = np.nan
    series = {"a": gaps.iloc[:150], "b": frame.iloc[20:120]}
    later = {"a": frame.iloc[80:], "b": frame.iloc[40:]}
    fitted = model.fit(series)
    assert len(fitted.plot(coverage=0.8, series="a").axes) == 2
    before = fitted.predict_interval(coverage=0.8)
    fitted.calibrate(later)
    after = fitted.predict_interval(coverage=0.8)
    assert not after["a"].equals(before["a"])
    asked = {"start": frame.index[150], "stride": 8, "coverage": 0.8}
    file = fitted.backtest(later, to=tmp_path / "errors.csv", **asked)
    pd.testing.assert_frame_equal(file.read(), fitted.backtest(later, **asked))
    fitted.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    fitted.update({"a": frame.iloc[150:160]})
    loaded.update({"a": frame.iloc[150:160]})
    one, two = fitted.predict_interval(coverage=0.8), loaded.predict_interval(coverage=0.8)
    for name in series:
        assert np.isfinite(one[name].to_numpy()).all()
        pd.testing.assert_frame_equal(one[name], two[name])


# --- ONNX -----------------------------------------------------------------------------------------


def ending(table: pd.DataFrame, rows: int = 64) -> np.ndarray[Any, Any]:
    """Return the last rows, those that there are not as NaN."""
    values = table.to_numpy()[-rows:]
    return np.concatenate((np.full((rows - len(values), values.shape[1]), np.nan), values))


def test_a_file_forecasts_tables_that_were_never_seen_as_the_model_does(
    model: TSM2Forecaster, frame: pd.DataFrame, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model.fit(frame).to_onnx(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    assert [each.name for each in session.get_inputs()] == ["context"]
    gaps = frame * 1e3 + 5e3
    gaps.iloc[150:157, 0] = np.nan
    gaps.iloc[-1] = np.nan
    counts = frame.assign(wind=np.random.default_rng(1).poisson(0.3, len(frame)))
    tables = [frame, gaps, frame.iloc[:21], counts, frame.cumsum(), frame.assign(wind=7.0)]
    contexts = np.stack([ending(table) for table in tables])
    forecasts, quantiles = session.run(None, {"context": contexts})
    for number, table in enumerate(tables):
        wanted = model.predict(table).to_numpy()
        unit = np.abs(wanted).max(0)
        np.testing.assert_allclose(forecasts[number] / unit, wanted / unit, rtol=0, atol=1e-4)
        wanted = model.predict_quantiles(table, quantiles=(0.1, 0.5, 0.9)).to_numpy()
        unit = unit[:, None]
        np.testing.assert_allclose(
            quantiles[number] / unit, wanted.reshape(-1, 2, 3) / unit, rtol=0, atol=1e-4
        )
    (one, _) = session.run(None, {"context": contexts[1:2]})
    np.testing.assert_allclose(one[0], forecasts[1], rtol=1e-5)


@pytest.mark.slow
def test_a_file_of_a_tuned_model_holds_what_was_solved(
    model: TSM2Forecaster, frame: pd.DataFrame, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    series = {"a": frame[["load"]], "b": frame[["load"]] * 1e4}
    network = model.fit(series).fitted_.network
    assert isinstance(network, ZeroShotNetwork)
    tuned = network.with_solved()
    assert tuned.solved is not None
    with seeded(0):
        nn.init.normal_(tuned.solved.courses, std=0.1)
        nn.init.normal_(tuned.solved.history, std=0.02)
    before = model.predict()
    model.fitted_ = replace(model.fitted_, network=tuned)
    wanted = model.predict()
    assert np.abs(wanted["a"] - before["a"]).max(axis=None) > 0.05
    model.to_onnx(tmp_path / "model.onnx")
    forecasts, _ = runtime.InferenceSession(tmp_path / "model.onnx").run(
        None,
        {
            "context": np.stack([ending(each) for each in series.values()]),
            "center": model.scaling_.center,
            "scale": model.scaling_.scale,
        },
    )
    for number, name in enumerate(series):
        np.testing.assert_allclose(forecasts[number], wanted[name], rtol=1e-4)
