"""What the pages about other libraries show runs as it stands there, where the library is."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

PAGES = Path(__file__).parents[2] / "docs" / "adapters"
PEERS = ["darts", "neuralforecast", "sktime"]

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend


def run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    if page in PEERS:
        pytest.importorskip(page)
    monkeypatch.chdir(folder)
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, page, "exec"), names)
    return names


def test_darts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("darts")
    from darts import TimeSeries, datasets  # pyright: ignore

    table = pd.read_csv(Path(__file__).with_name("airline.csv"), parse_dates=["month"])
    passengers = TimeSeries.from_dataframe(table, "month", "passengers", freq="MS")
    monkeypatch.setattr(datasets.AirPassengersDataset, "load", lambda self: passengers)
    names = run("darts", tmp_path, monkeypatch)
    assert names["mape"](names["later"], names["forecast"]) < 20
    assert names["band"].n_samples == 200
    assert np.isfinite(names["error"])
    median = names["at_once"]["passengers_q0.500"]
    assert names["mape"](names["later"], median) < 20
    assert len(names["another"]) == 12
    expected = names["model"].predict(12).values()
    np.testing.assert_allclose(names["estimator"].predict(), expected, rtol=1e-4)


def test_neuralforecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("neuralforecast", tmp_path, monkeypatch)
    columns = ["unique_id", "ds", "TSM2-median", "TSM2-lo-80", "TSM2-hi-80"]
    assert sorted(names["forecast"].columns) == sorted(columns)
    pd.testing.assert_frame_equal(names["again"].predict(), names["driver"].predict())


def test_sktime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("sktime", tmp_path, monkeypatch)
    assert names["forecast"].index.equals(names["later"].index)
    assert names["at_once"].index.equals(names["later"].index)
    assert (np.abs(names["at_once"] / names["later"] - 1) < 0.25).all()
    assert (names["band"].iloc[:, 0] < names["band"].iloc[:, 1]).all()
    assert (names["scores"]["test_MeanAbsolutePercentageError"] < 0.2).all()


def test_tslib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("tslib", tmp_path, monkeypatch)["forecast"].shape == (32, 96, 7)


def test_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("baseline", tmp_path, monkeypatch)
    assert names["table"].loc["sample"].notna().all()
    assert names["forecast"].shape == (32, 7, 96)
    assert names["mixers"]
