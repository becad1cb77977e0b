"""What many series cost: fit on a sample, predict and backtest of more and more series.

    python benchmarks/many_series.py                              # pandas, one process
    python benchmarks/many_series.py --sizes 10000 30000 100000 300000

Series of 48 days, lookback 28, horizon 7, a linear model (blocks=0) and one with a block, fitted to
a sample of 2,000 series. Forecasts and a backtest of one window per series are made in partitions
of 10,000 series, one by one, so that memory does not grow with the series but for the table. Each
run is in a process of its own; memory is what is resident at its peak above what was there before,
table aside. The machine may be shared: seconds are then an upper bound.
"""

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from timing import commit, hardware, in_fresh_process, peak_growth, processor, versions

from tsm2 import TSM2Forecaster, engines

RESULTS = Path(__file__).parent / "results" / "many_series.csv"
SIZES = (10_000, 30_000, 100_000)
ROWS, PER_PARTITION = 48, 10_000


def table(count: int) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    days = np.arange(ROWS)
    values = draw.normal(size=(count, ROWS)) + 3 * np.sin(2 * np.pi * days / 7)
    values = values * draw.uniform(1, 100, size=(count, 1))
    names = np.array([f"s{number:07d}" for number in range(count)])
    stamps = pd.date_range("2024-01-01", periods=ROWS, freq="D")
    columns = {"unique_id": names.repeat(ROWS), "ds": np.tile(stamps, count), "y": values.ravel()}
    return pd.DataFrame(columns)


def run(count: int, blocks: int) -> dict[str, tuple[float, float]]:
    """Return the seconds and MiB of each verb."""
    torch.set_num_threads(1)
    frame = table(count)
    parts = -(-count // PER_PARTITION)
    asked = TSM2Forecaster(lookback=28, horizon=7, blocks=blocks, random_state=0, max_epochs=3)
    kept: dict[str, Any] = {}

    def fit() -> None:
        kept["model"] = engines.fit(asked, frame, sample=2000)

    def predict() -> None:
        engines.predict(kept["model"], frame, partitions=parts)

    def backtest() -> None:
        start = frame["ds"].iloc[ROWS - 7]
        engines.backtest(kept["model"], frame, partitions=parts, start=start)

    found = {}
    works: dict[str, Callable[[], None]] = {"fit": fit, "predict": predict, "backtest": backtest}
    for verb, work in works.items():
        start = time.perf_counter()
        memory = peak_growth(work)
        found[verb] = time.perf_counter() - start, memory
    found["table"] = 0.0, frame.memory_usage(deep=True).sum() / 2**20
    return found


def measure(sizes: Sequence[int], blocks: Sequence[int]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for each in blocks:
        for size in sizes:
            for verb, (seconds, memory) in in_fresh_process(run, size, each).items():
                line = f"{size:>8} series, {each} blocks, {verb:9} {seconds:8.1f} s"
                print(f"{line} {memory:8.0f} MiB", flush=True)
                rows.append(
                    {
                        "series": size,
                        "blocks": each,
                        "verb": verb,
                        "seconds": f"{seconds:.2f}",
                        "mib": f"{memory:.0f}",
                        "machine": processor(),
                        "versions": versions("torch", "pandas"),
                        "commit": commit(),
                        "date": date.today().isoformat(),
                    }
                )
            write(rows)
    return rows


def write(rows: Sequence[dict[str, object]]) -> None:
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--blocks", type=int, nargs="+", default=(0, 1))
    options = parser.parse_args()
    print(f"{hardware(1)}, series of {ROWS} rows")
    measure(options.sizes, options.blocks)


if __name__ == "__main__":
    main()
