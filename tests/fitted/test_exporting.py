"""ONNX files agree with the forecaster in onnxruntime, at any batch; they need the extra."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.errors import ExportWarning, NotFittedError, OutputError, ParameterError
from tsm2.fitted import exporting
from tsm2.tables.calendars import calendar_table

SMALL: dict[str, Any] = {
    "features": 8,
    "patch_length": 8,
    "max_epochs": 1,
    "device": "cpu",
    "random_state": 0,
    "zero_start": False,
    "zero_head": False,
}
LINEAR = SMALL | {"blocks": 0}  # for what is around the mixers, whose scans take a second each


def waves(rows: int = 160, level: float = 0.0) -> pd.DataFrame:
    t = np.arange(rows)
    index = pd.date_range("2024-03-01", periods=rows, freq="h")
    noise = np.random.default_rng(0).normal(0, 0.1, (rows, 2))
    values = np.stack((np.sin(t * 0.26), np.cos(t * 0.26)), axis=1) + noise
    return pd.DataFrame(level + values * [5.0, 300.0] + [50.0, -2e6], index, ["load", "wind"])


def session(path: Path) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


def contexts(count: int, rows: int = 24) -> np.ndarray[Any, Any]:
    values = waves().to_numpy()
    return np.stack([values[first : first + rows] for first in range(count)])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"variate_mixer": "mlp", "separate_heads": True, "patch_stride": 5},
        {"instance_norm": False, "time_mixer": "linear", "variate_directions": "forward"},
        {"blocks": 0, "n_estimators": 2},
    ],
    ids=str,
)
def test_onnxruntime_says_what_python_says(changes: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = TSM2Forecaster(24, 6, **(SMALL | changes)).fit(waves())
    model.to_onnx(tmp_path / "model.onnx")
    runs = session(tmp_path / "model.onnx")
    scale = model.scaling_.scale
    for batch in (1, 2, 33):
        (got,) = runs.run(["forecast"], {"context": contexts(batch)})
        wanted = model.forecast_contexts(contexts(batch), 6)
        assert got.shape == (batch, 6, 2)
        np.testing.assert_allclose(got / scale, wanted / scale, rtol=0, atol=1e-4)
    described = json.loads(runs.get_modelmeta().custom_metadata_map["tsm2"])
    assert described == {
        "variates": ["load", "wind"],
        "inputs": {"context": ["load", "wind"]},
        "missing": "raise",
        "lookback": 24,
        "horizon": 6,
        "frequency": "h",
        "quantiles": None,
    }
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_quantiles_come_out_beside_the_forecast(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = TSM2Forecaster(24, 6, **LINEAR, quantiles=(0.1, 0.9)).fit(waves())
    model.to_onnx(tmp_path / "model.onnx")
    forecast, quantiles = session(tmp_path / "model.onnx").run(None, {"context": contexts(5)})
    wanted = model.forecast_quantiles(contexts(5), 6, (0.1, 0.5, 0.9), calibrated=False)
    scale = model.scaling_.scale[:, None]
    np.testing.assert_allclose(quantiles / scale, wanted / scale, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(forecast, quantiles[..., 1])


def test_several_series_bring_their_units_along(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    tables = {"a": waves(), "b": waves(140, level=1e4) * 7}
    model = TSM2Forecaster(24, 6, **LINEAR).fit(tables)
    model.to_onnx(tmp_path / "model.onnx")
    inputs = {
        "context": np.stack([each.to_numpy()[-24:] for each in tables.values()]),
        "center": model.scaling_.center,
        "scale": model.scaling_.scale,
    }
    (got,) = session(tmp_path / "model.onnx").run(None, inputs)
    forecast: Any = model.predict()
    for number, name in enumerate(tables):
        unit = model.scaling_.scale[number]
        np.testing.assert_allclose(got[number] / unit, forecast[name] / unit, rtol=0, atol=1e-4)


@pytest.mark.parametrize("several", [False, True], ids=["table, point", "series, quantiles"])
def test_logarithms_are_in_the_file(several: bool, tmp_path: Path) -> None:
    """One column of two in them; a zero in a history has its place on the line below."""
    pytest.importorskip("onnxscript")
    table = waves().assign(load=lambda each: np.exp(each["load"] / each["load"].std()))
    given: Any = {"a": table, "b": waves(140).abs() + 1} if several else table
    quantiles = (0.1, 0.9) if several else None
    model = TSM2Forecaster(24, 6, **LINEAR, quantiles=quantiles, logarithms=True, target="load")
    model.fit(given).to_onnx(tmp_path / "model.onnx")
    history = table.to_numpy()[None, -24:].copy()
    history[0, -3, 0] = 0.0
    inputs = {"context": history}
    if several:
        inputs |= {"center": model.scaling_.center[:1], "scale": model.scaling_.scale[:1]}
    units = model.scaling_.take([0]) if several else None
    got = session(tmp_path / "model.onnx").run(None, inputs)
    np.testing.assert_allclose(got[0], model.forecast_contexts(history, 6, units=units), rtol=1e-4)
    if quantiles:
        levels = (0.1, 0.5, 0.9)
        wanted = model.forecast_quantiles(history, 6, levels, calibrated=False, units=units)
        np.testing.assert_allclose(got[1], wanted, rtol=1e-4)


@pytest.mark.parametrize("quantiles", [None, (0.1, 0.9)])
def test_what_stops_at_zero_does_so_in_the_file(
    quantiles: tuple[float, ...] | None, tmp_path: Path
) -> None:
    """One column of two that is forecast; a history below zero says that it does not.

    With quantiles of several series, whose gaps are masked.
    """
    pytest.importorskip("onnxscript")
    sun, wind = waves(level=-50)["load"].clip(lower=0), waves()["wind"]
    table = pd.DataFrame({"sun": sun, "other": 0.0, "wind": wind})
    data: Any = table
    given = LINEAR | {"quantiles": quantiles, "target": ["wind", "sun"]}
    if quantiles:
        table.iloc[-9, 0] = np.nan
        data, given = {"a": table, "b": 7 * table.iloc[20:]}, given | {"missing": "mask"}
    model = TSM2Forecaster(24, 6, **given).fit(data)
    model.to_onnx(tmp_path / "model.onnx")
    histories = np.stack([table.to_numpy()[-24:]] * 2)
    histories[1, 5, 0] = -0.1
    inputs, how, scale = {"context": histories}, dict[str, Any](), model.scaling_.scale
    if quantiles:
        units = model.scaling_.take([0, 0])
        inputs |= {"center": units.center, "scale": units.scale}
        how, scale = {"units": units}, units.scale[0]
    got = session(tmp_path / "model.onnx").run(None, inputs)
    wanted = [model.forecast_contexts(histories, 6, **how)]
    if quantiles:
        levels = (0.1, 0.5, 0.9)
        wanted.append(model.forecast_quantiles(histories, 6, levels, calibrated=False, **how))
    for found, expected in zip(got, wanted, strict=True):
        unit = scale[[2, 0]].reshape(2, *[1] * (expected.ndim - 3))
        np.testing.assert_allclose(found / unit, expected / unit, rtol=0, atol=1e-4)
        assert found[0, :, 1].min() == 0 > found[1, :, 1].min()


@pytest.mark.parametrize(
    ("missing", "quantiles"),
    [("raise", None), ("ffill", (0.1, 0.9)), ("mask", (0.1, 0.9))],
    ids=["raise", "ffill", "mask"],
)
def test_classical_forecasts_of_whole_histories_are_in_the_file(
    missing: Any, quantiles: tuple[float, ...] | None, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    table = waves(100)
    if missing != "raise":
        table.iloc[[30, -20], 0] = np.nan
    model = TSM2Forecaster(
        horizon=6, blocks=0, random_state=0, quantiles=quantiles, missing=missing, device="cpu"
    ).fit(table)
    assert model.fitted_.classical is not None
    model.to_onnx(tmp_path / "model.onnx")
    runs, scale = session(tmp_path / "model.onnx"), model.scaling_.scale
    assert json.loads(runs.get_modelmeta().custom_metadata_map["tsm2"])["lookback"] == 100
    whole = table.to_numpy()[None]
    (got,) = runs.run(["forecast"], {"context": whole})
    np.testing.assert_allclose(got / scale, [model.predict() / scale], rtol=0, atol=1e-4)
    needed = model.fitted_.lookback
    shorter = whole.copy()
    shorter[:, : -needed - 5] = np.nan  # a history that begins later
    (got,) = runs.run(["forecast"], {"context": shorter})
    wanted = model.forecast_contexts(whole[:, -needed - 5 :], 6)
    np.testing.assert_allclose(got / scale, wanted / scale, rtol=0, atol=1e-4)
    lacking = whole.copy()
    lacking[:, -1, 0] = np.nan
    (got,) = runs.run(["forecast"], {"context": lacking})
    assert np.isnan(got[..., 0]).all() == (missing == "raise")
    assert np.isfinite(got[..., 1]).all()


# --- gaps and covariates --------------------------------------------------------------------------


def holes(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows and cells are missing, also in the last rows."""
    frame = frame.copy()
    frame.iloc[[30, -1, -7], 0] = np.nan
    frame.iloc[[-9, -3, -2], 1] = np.nan
    return frame


def beside(rows: int, *, categories: bool = False) -> pd.DataFrame:
    index = pd.date_range("2024-03-01", periods=rows, freq="h")
    frame = pd.DataFrame({"heat": 1e4 * np.sin(np.arange(rows) / 5) + 3e4}, index)
    return frame.assign(kind=["x", "y", "z", "y"] * (rows // 4)) if categories else frame


def answer(model: TSM2Forecaster, file: Path, inputs: dict[str, Any]) -> list[Any]:
    model.to_onnx(file)
    runs = session(file)
    described = json.loads(runs.get_modelmeta().custom_metadata_map["tsm2"])
    assert list(described["inputs"]) == [each.name for each in runs.get_inputs()] == list(inputs)
    for name, columns in described["inputs"].items():
        assert inputs[name].shape[-1] == len(columns)
    both = {name: np.concatenate((each[:1] * 0 + 1, each)) for name, each in inputs.items()}
    for answers in zip(runs.run(None, inputs), runs.run(None, both), strict=True):
        np.testing.assert_allclose(answers[0], answers[1][1:], rtol=1e-6)
    return list(runs.run(None, inputs))


@pytest.mark.parametrize(
    ("missing", "target", "blocks"), [("mask", None, 1), ("mask", "wind", 0), ("ffill", "wind", 0)]
)
def test_gaps_are_in_the_graph(missing: Any, target: Any, blocks: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    frame, changes = holes(waves()), SMALL | {"blocks": blocks, "missing": missing}
    model = TSM2Forecaster(24, 6, **changes, target=target).fit(frame)
    inputs = {"context": frame.to_numpy()[None, -24:]}
    (got,) = answer(model, tmp_path / "model.onnx", inputs)
    wanted = model.predict()
    scale = model.roles_.units(model.scaling_).scale
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[0] / scale, wanted / scale, rtol=0, atol=1e-4)
    (known,) = session(tmp_path / "model.onnx").run(None, {"context": contexts(3)})
    last: Any = model.forecast_contexts(contexts(3), 6)
    np.testing.assert_allclose(known / scale, last / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("missing", "quantiles"), [("raise", (0.1, 0.9)), ("mask", None)])
def test_covariates_are_inputs_of_their_own(missing: Any, quantiles: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    frame = waves() if missing == "raise" else holes(waves())
    past, future = beside(160), beside(168, categories=True)
    if missing == "mask":
        past.iloc[[-2, -5]] = np.nan
    static = pd.DataFrame({"area": [1.0, 5.0], "place": ["in", "out"]}, ["load", "wind"])
    how: dict[str, Any] = {"missing": missing, "quantiles": quantiles}
    model = TSM2Forecaster(24, 6, **(LINEAR | how), calendar=["hour", "weekend"])
    model.fit(frame, past_covariates=past, future_covariates=future, static_covariates=static)
    rows = slice(160 - 24, 160 + 6)
    coded = future.iloc[rows]
    stamps = calendar_table(future.index[rows], ["hour", "weekend"])
    known = [coded[["heat"]], *(coded[["kind"]] == kind for kind in "xyz"), stamps]
    inputs = {
        "context": frame.to_numpy()[None, -24:],
        "past": past.to_numpy()[None, -24:],
        "future": np.concatenate([np.asarray(each, float) for each in known], axis=1)[None],
    }
    got = answer(model, tmp_path / "model.onnx", inputs)
    scale = model.scaling_.scale
    np.testing.assert_allclose(got[0][0] / scale, model.predict() / scale, rtol=0, atol=1e-4)
    if quantiles is not None:
        wanted = model.predict_quantiles(quantiles=(0.1, 0.5, 0.9), calibrated=False)
        whole = np.asarray(wanted).reshape(6, 2, 3)
        np.testing.assert_allclose(
            got[1][0] / scale[:, None], whole / scale[:, None], rtol=0, atol=1e-4
        )


def test_several_series_are_a_batch_with_static_covariates(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    tables = {"a": holes(waves()), "b": waves(140, level=1e4) * 7}
    static = pd.DataFrame({"area": [2.0, 9.0], "place": ["in", "out"]}, ["a", "b"])
    how: dict[str, Any] = {"missing": "mask", "target": "load", "n_estimators": 2}
    model = TSM2Forecaster(24, 6, **(LINEAR | how), variate_mixer="mlp")
    model.fit(tables, static_covariates=static)
    inputs = {
        "context": np.stack([each.to_numpy()[-24:] for each in tables.values()]),
        "static": np.array([[2.0, 1, 0], [9, 0, 1]]),
        "center": model.scaling_.center,
        "scale": model.scaling_.scale,
    }
    (got,) = answer(model, tmp_path / "model.onnx", inputs)
    forecast: Any = model.predict()
    for number, name in enumerate(tables):
        unit = model.scaling_.scale[number, :1]
        np.testing.assert_allclose(got[number] / unit, forecast[name] / unit, rtol=0, atol=1e-4)


def test_a_file_that_says_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = TSM2Forecaster(24, 6, **LINEAR).fit(waves())
    monkeypatch.setattr(exporting, "_CLOSE", -1.0)
    with pytest.raises(OutputError, match=r"model\.onnx was not kept.*says something else"):
        model.to_onnx(tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == []
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.warns(ExportWarning, match=r"model\.onnx was written but not run"):
        model.to_onnx(tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_a_failed_write_keeps_the_file_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    model = TSM2Forecaster(24, 6, **LINEAR).fit(waves())
    file = tmp_path / "model.onnx"
    file.write_bytes(b"the old one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"No space left.*unchanged"):
        model.to_onnx(file)
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert file.read_bytes() == b"the old one"
    with pytest.raises(OutputError, match="there is no folder"):
        model.to_onnx(tmp_path / "nowhere" / "model.onnx")


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFittedError):
        TSM2Forecaster().to_onnx(tmp_path / "model.onnx")
    model = TSM2Forecaster(24, 6, **LINEAR).fit(waves())
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ParameterError, match=r"pip install 'tsm2\[onnx\]'"):
        model.to_onnx(tmp_path / "model.onnx")


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
def test_nothing_is_written_through_a_link_or_over_what_is_no_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = TSM2Forecaster(24, 6, **LINEAR).fit(waves())
    target, precious = tmp_path / "model.onnx", tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / ".model.onnx.part").symlink_to(precious)  # where a part was once written
    model.to_onnx(target)
    assert precious.read_text() == "mine"
    assert target.is_file()
    assert not target.is_symlink()
    (tmp_path / "link.onnx").symlink_to(precious)
    os.mkfifo(tmp_path / "pipe.onnx")
    for name in ("link.onnx", "pipe.onnx"):
        with pytest.raises(OutputError, match="a link, a folder or a device"):
            model.to_onnx(tmp_path / name)
    assert precious.read_text() == "mine"
    assert not list(tmp_path.glob(".writing-*"))


def test_a_fit_in_bfloat16_is_exported_as_any_other(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = TSM2Forecaster(24, 6, **SMALL, precision="bfloat16").fit(waves())
    model.to_onnx(tmp_path / "model.onnx")
    (forecast,) = session(tmp_path / "model.onnx").run(["forecast"], {"context": contexts(3)})
    wanted = model.forecast_contexts(contexts(3), 6)
    np.testing.assert_allclose(
        forecast / model.scaling_.scale, wanted / model.scaling_.scale, atol=1e-5
    )
    model.save(tmp_path / "model")
    again = TSM2Forecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.predict(), model.predict(), check_exact=True)
