"""The main job on the generated sample: fit, backtest against the floor, forecast, plot, save."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tsm2.benchmark.baselines import RepeatLast, RLinear, SeasonalNaive
from tsm2.benchmark.protocol import SAMPLE, ForecastsContexts, Table, measure_errors
from tsm2.datasets import Split, load_sample
from tsm2.errors import OutputError
from tsm2.forecaster import TSM2Forecaster
from tsm2.plotting import plot_forecast, save_figure

__all__ = ["Demo", "run_demo"]

_LOOKBACK, _HORIZON, _DAY = 168, 24, 24
_TEST_SHARE = _VALIDATION_SHARE = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """What the demo measured and wrote."""

    errors: pd.DataFrame
    """MSE and MAE per model, on standardised values, over every test window."""
    n_windows: int
    """Test windows behind each figure."""
    written: dict[str, Path]
    """What was written, by what it is."""


def run_demo(out: Path, *, verbose: int = 0) -> Demo:
    """Fit TSM2 and the floor on the sample, forecast its test rows, and write the results.

    Parameters
    ----------
    out
        Folder for the forecast, the picture and the model; made if missing.
    verbose
        1 shows training progress.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out}: {error.strerror}") from error
    frame = load_sample()
    n_fit = round(len(frame) * (1 - _TEST_SHARE))
    n_train = n_fit - round(n_fit * _VALIDATION_SHARE)

    model = TSM2Forecaster(
        lookback=_LOOKBACK,
        horizon=_HORIZON,
        max_epochs=20,  # the sample is small
        validation_fraction=_VALIDATION_SHARE,
        random_state=0,
        verbose=verbose,
    ).fit(frame.iloc[:n_fit])
    values = frame.to_numpy(dtype=np.float64)
    rivals: dict[str, ForecastsContexts] = {
        "TSM2": model,
        "RLinear": RLinear(_LOOKBACK, _HORIZON).fit(values[:n_fit], n_train),
        "seasonal naive (a day)": SeasonalNaive(_DAY),
        "repeat last": RepeatLast(),
    }
    split = Split(n_train, n_fit, len(frame))
    table = Table(name=SAMPLE, values=values, split=split, season=_DAY)
    measured = {
        name: measure_errors(rival, table, lookback=_LOOKBACK, horizon=_HORIZON)
        for name, rival in rivals.items()
    }
    errors = pd.DataFrame(
        {name: (each.mse, each.mae) for name, each in measured.items()}, index=["MSE", "MAE"]
    ).T

    history, truth = frame.iloc[:-_HORIZON], frame.iloc[-_HORIZON:]
    forecast = model.predict(history)
    written = {
        "forecast": out / "forecast.csv",
        "plot": out / "forecast.png",
        "model": out / "model",
    }
    try:
        forecast.to_csv(written["forecast"])
    except OSError as error:
        raise OutputError(f"cannot write {written['forecast']}: {error.strerror}") from error
    save_figure(plot_forecast(history, forecast, truth=truth), written["plot"])
    model.save(written["model"])
    return Demo(errors=errors, n_windows=measured["TSM2"].n_windows, written=written)
