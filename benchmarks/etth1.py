"""ETTh1, horizon 96, lookback 512: TSM2 beside the floor under the long-horizon protocol.

    python benchmarks/etth1.py --data-dir DIR --jobs 2

Rows 0-8640 train, 8640-11520 validate, 11520-14400 test (Zhou et al., 2021); scaler from the
training rows; a test window's context may reach back; stride 1 and every one of the 2,785 test
windows; errors on standardised values. SETTINGS were chosen on validation loss alone, by the search
that docs/results.md describes; test rows are read once per row of the result file.

One row per model and seed is added to benchmarks/results/etth1.csv. Every run has a process of its
own, so that its peak memory is its own.
"""

import argparse
import csv
import json
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

from timing import commit, processor, versions

RESULTS = Path(__file__).parent / "results" / "etth1.csv"
LOOKBACK, HORIZON, DAY = 512, 96, 24
SETTINGS: dict[str, Any] = {
    "max_epochs": 6,
    "mixer_learning_rate": 3e-3,
    "sam_radius": 0.5,
}


def measure(model_name: str, seed: int, data_dir: str | None, threads: int) -> dict[str, Any]:
    """Fit one model with one seed, and forecast every test window."""
    import torch

    from tsm2.backtesting import Walk, mean_errors
    from tsm2.datasets import borders, load
    from tsm2.scaling import Scaling

    torch.set_num_threads(threads)
    frame = load("ETTh1", data_home=data_dir)
    split = borders("ETTh1")
    values = frame.to_numpy(dtype="float64")[: split.test_end]
    config: dict[str, Any] = {}

    start = time.perf_counter()
    model: Any
    if model_name == "TSM2":
        from tsm2 import TSM2Forecaster

        n_validation = split.validation_end - split.train_end
        config = SETTINGS | {"validation_fraction": n_validation / split.validation_end}
        model = TSM2Forecaster(LOOKBACK, HORIZON, device="cpu", random_state=seed, **config)
        model.fit(frame.iloc[: split.validation_end])
    else:
        from tsm2.benchmark import RepeatLast, RLinear, SeasonalNaive

        model = {
            "RLinear": RLinear(LOOKBACK, HORIZON, random_state=seed),
            "seasonal naive": SeasonalNaive(DAY),
            "repeat last": RepeatLast(),
        }[model_name]
        if model_name == "RLinear":
            model.fit(values[: split.validation_end], split.train_end)
    fitted = time.perf_counter()
    mse, mae, n_windows = mean_errors(
        model,
        values,
        Walk(lookback=LOOKBACK, horizon=HORIZON, first=split.validation_end),
        scale=Scaling.of(values[: split.train_end]).scale,
    )
    done = time.perf_counter()
    packages = ("tsm2", "torch", "numba", "numpy", "pandas", "scikit-learn", "accelerate")
    return {
        "dataset": "ETTh1",
        "lookback": LOOKBACK,
        "horizon": HORIZON,
        "model": model_name,
        "config": json.dumps(config),
        "seed": seed,
        "n_windows": n_windows,
        "mse": f"{mse:.5f}",
        "mae": f"{mae:.5f}",
        "fit_seconds": f"{fitted - start:.1f}",
        "predict_seconds": f"{done - fitted:.1f}",
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "device": f"cpu: {processor()}",
        "threads": threads,
        "versions": versions(*packages),
        "commit": commit(),
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="folder with ETT-small/ETTh1.csv")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run")
    parser.add_argument(
        "--models", nargs="+", default=["repeat last", "seasonal naive", "RLinear", "TSM2"]
    )
    arguments = parser.parse_args()
    seeds = range(arguments.seeds)
    learns = {"RLinear", "TSM2"}
    runs = [(n, seed) for n in arguments.models for seed in (seeds if n in learns else [0])]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        futures = [
            pool.submit(measure, *run, arguments.data_dir, arguments.threads) for run in runs
        ]
        for future in futures:
            row = future.result()
            is_new = not RESULTS.exists()
            with RESULTS.open("a", newline="") as file:
                writer = csv.DictWriter(file, list(row))
                if is_new:
                    writer.writeheader()
                writer.writerow(row)
            shown = ("model", "seed", "n_windows", "mse", "mae", "fit_seconds")
            print(*(row[name] for name in shown), flush=True)


if __name__ == "__main__":
    main()
