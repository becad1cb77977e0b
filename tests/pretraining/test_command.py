"""`tsm2 predict` and `backtest` with pretrained weights, and the command that makes some."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tsm2 import TSM2Forecaster
from tsm2.cli import app
from tsm2.pretraining import __main__ as command
from tsm2.pretraining import pretrain as module


@pytest.fixture
def file(tmp_path: Path) -> Path:
    index = pd.date_range("2024-01-01", periods=120, freq="h", name="time")
    rows = np.sin(2 * np.pi * np.arange(120) / 24) + 2
    pd.DataFrame({"load": rows}, index).to_csv(tmp_path / "data.csv")
    return tmp_path / "data.csv"


def test_predict_takes_weights_in_place_of_a_model(zero_weights: str, file: Path) -> None:
    out = file.with_name("forecast.csv")
    arguments = ["predict", zero_weights, str(file), "--horizon", "12", "--coverage", "0.8"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    forecast = pd.read_csv(out)
    assert list(forecast.columns) == ["time", "load", "load-lo-80", "load-hi-80"]
    assert len(forecast) == 12
    assert forecast["time"].iloc[0].startswith("2024-01-06")


def test_backtest_takes_them_too(zero_weights: str, file: Path) -> None:
    result = CliRunner().invoke(app, ["backtest", zero_weights, str(file), "--stride", "12"])
    assert result.exit_code == 0, result.output
    assert "seasonal naive" in result.output


def test_the_command_writes_weights_that_forecast(
    zero_sizes: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "default_network", lambda: zero_sizes)
    options = ["--steps", "2", "--trust", "0.5", "--device", "cpu", "--workers", "0"]
    monkeypatch.setattr(sys, "argv", ["pretraining", str(tmp_path), *options])
    command.main()
    text = (tmp_path / "zero" / "README.md").read_text()
    assert "--seed 0 --steps 2 --trust 0.5" in text
    assert "threads of a processor, windows drawn between" in text
    model = TSM2Forecaster.from_pretrained(str(tmp_path / "zero"))
    assert model.predict(np.arange(50.0)[:, None]).shape == (8, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "2", "--workers", "-1"], "workers must be at least 0"),
        ([], "needs steps, minutes or both"),
        (["--steps", "2", "--device", "abacus"], "invalid choice: 'abacus'"),
        (["--steps", "2", "--capture-steps", "perhaps"], "invalid choice: 'perhaps'"),
    ],
)
def test_the_command_refuses_in_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["pretraining", str(tmp_path), *options])
    with pytest.raises(SystemExit):
        command.main()
    assert words in capsys.readouterr().err
