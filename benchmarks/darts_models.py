"""TSM2 beside four of Darts' own models, all on one backtest of Darts.

    python benchmarks/darts_models.py airline.csv --out benchmarks/results/darts_models.csv

The monthly airline passengers, from a CSV file, and ETTh1 (see `tsm2 data`): every model gets the
same rows, scaler, optimiser, batches and epochs, Darts' reversible instance normalisation, and the
defaults of its class. Models and seeds take turns; the table shows medians over seeds.
"""

import argparse
import logging
import platform
import random
import statistics
import time
import warnings
from pathlib import Path

import darts
import numpy as np
import pandas as pd
import torch
from darts import TimeSeries
from darts.dataprocessing.transformers import Scaler
from darts.metrics import mae, mape, mse
from darts.models import DLinearModel, NLinearModel, TiDEModel, TSMixerModel
from sklearn.preprocessing import StandardScaler

from tsm2 import datasets
from tsm2.adapters.darts import TSM2Model

MODELS = [TSM2Model, DLinearModel, NLinearModel, TSMixerModel, TiDEModel]
Data = tuple[TimeSeries, int, dict[str, int]]  # a series, its rows for training, the sizes
QUIET = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def airline(file: Path) -> Data:
    """Return all months, how many of them train, and the sizes."""
    table = pd.read_csv(file)
    stamps = pd.DatetimeIndex(pd.to_datetime(table.iloc[:, 0]))
    values = table.iloc[:, 1].to_numpy(np.float32)[:, None]
    series = TimeSeries.from_times_and_values(stamps, values, freq="MS")
    return series, 108, {"input_chunk_length": 24, "output_chunk_length": 12, "n_epochs": 100}


def etth1(_: Path) -> Data:
    """Return the hours of training, validation and test, how many train, and the sizes."""
    frame = datasets.load("ETTh1").iloc[:14400]
    series = TimeSeries.from_dataframe(frame).astype(np.float32)
    return series, 11520, {"input_chunk_length": 336, "output_chunk_length": 96, "n_epochs": 2}


def measure(
    kind: type, data: tuple[TimeSeries, int, dict[str, int]], seed: int
) -> dict[str, float]:
    """Fit a model, and backtest it over the rows behind the training rows."""
    series, n_train, sizes = data
    scaler = Scaler(StandardScaler()).fit(series[:n_train])
    scaled = scaler.transform(series)
    same = {"use_reversible_instance_norm": True, "batch_size": 32, "pl_trainer_kwargs": QUIET}
    model = kind(**sizes, **same, random_state=seed)
    start = time.process_time()
    model.fit(scaled[:n_train])
    fitted = time.process_time()
    horizon = sizes["output_chunk_length"]
    forecasts = model.historical_forecasts(
        scaled,
        start=n_train,
        start_format="position",
        forecast_horizon=horizon,
        stride=1 if len(series) < 1000 else 24,
        retrain=False,
        last_points_only=False,
        verbose=False,
    )
    forecast = time.process_time()
    truth = scaled
    if len(series) < 1000:  # passengers are read as passengers
        forecasts, truth = [scaler.inverse_transform(each) for each in forecasts], series
    errors = {
        "mae": np.mean([mae(truth, each) for each in forecasts]),
        "mse": np.mean([mse(truth, each) for each in forecasts]),
    }
    if len(series) < 1000:
        errors["mape"] = np.mean([mape(truth, each) for each in forecasts])
    seconds = {"fit_seconds": fitted - start, "forecast_seconds": forecast - fitted}
    return {**errors, **seconds, "windows": len(forecasts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("airline", type=Path, help="CSV file of month and passengers")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "darts"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    rows = []
    shuffled = random.Random(0)
    for about, load in (("airline", airline), ("ETTh1", etth1)):
        data = load(chosen.airline)
        measure(TSM2Model, (data[0], data[1], data[2] | {"n_epochs": 1}), 0)  # compile the kernels
        for seed in range(chosen.seeds):
            for kind in shuffled.sample(MODELS, len(MODELS)):
                rows.append(
                    {
                        "data": about,
                        "model": kind.__name__,
                        "seed": seed,
                        **measure(kind, data, seed),
                    }
                )
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows).assign(
        darts=darts.__version__, torch=torch.__version__, machine=platform.machine()
    )
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(chosen.out, index=False)
    order = [kind.__name__ for kind in MODELS]
    figures = ["mae", "mse", "mape", "fit_seconds", "forecast_seconds"]
    medians = table.groupby(["data", "model"])[figures].agg(statistics.median)
    print(medians.reindex(order, level="model").round(4).to_string())


if __name__ == "__main__":
    main()
