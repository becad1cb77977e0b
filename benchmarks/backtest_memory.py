"""Peak memory of a backtest at stride 1: its table in memory, and written to a file.

    python benchmarks/backtest_memory.py

A linear model (blocks=0, lookback 96, horizon 24) of 7 variates forecasts every window of tables of
more and more rows, and its errors are measured by variate. Each run is in a process of its own;
what is told is by how much resident memory grows at its peak, model and table aside, with the time.
The last runs refit 4 times on the way. Memory is the result: the machine may be shared.
"""

import argparse
import csv
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from timing import commit, hardware, in_fresh_process, peak_growth, processor, versions

from tsm2 import TSM2Forecaster
from tsm2.backtesting import error_table

RESULTS = Path(__file__).parent / "results" / "backtest_memory.csv"
SIZES = (10_000, 20_000, 40_000, 80_000)
CSV_UP_TO = 10_000  # rows; as text, millions of rows take minutes
VARIATES = 7


def table(rows: int) -> pd.DataFrame:
    walk = np.random.default_rng(0).normal(size=(rows, VARIATES)).cumsum(axis=0)
    index = pd.date_range("2015-01-01", periods=rows, freq="h")
    return pd.DataFrame(walk, index, [f"v{number}" for number in range(VARIATES)])


def run(rows: int, to: str | None, refits: int) -> tuple[float, float, float]:
    """Return the MiB and the seconds of a backtest, and a mean error."""
    torch.set_num_threads(1)
    frame = table(rows)
    model = TSM2Forecaster(lookback=96, horizon=24, blocks=0, max_epochs=1, random_state=0)
    model.fit(frame.iloc[:2000])
    how: dict[str, Any] = {}
    if refits:
        how = {"start": frame.index[2000], "refit": rows // refits, "window": "sliding"}
    found: list[float] = []
    with TemporaryDirectory() as folder:
        path = None if to is None else Path(folder) / f"errors.{to}"
        model.backtest(frame.iloc[:3000], to=path)  # what is loaded once

        def task() -> None:
            errors = error_table(model.backtest(frame, to=path, **how), by="variate")
            found.append(float(errors["MAE"].sum()))

        start = time.perf_counter()
        memory = peak_growth(task)
        return memory, time.perf_counter() - start, found[0]


def measure(sizes: Sequence[int]) -> list[dict[str, object]]:
    rows = []
    cases: list[tuple[int, int]] = [(size, 0) for size in sizes] + [(sizes[-1], 4)]
    for size, refits in cases:
        errors = set()
        for to in (None, "parquet", "csv") if size <= CSV_UP_TO else (None, "parquet"):
            memory, seconds, error = in_fresh_process(run, size, to, refits)
            errors.add(error)
            where = "memory" if to is None else to
            print(f"{size:>7} rows, {refits} refits, {where:8} {memory:8.0f} MiB {seconds:7.1f} s")
            rows.append(
                {
                    "rows": size,
                    "refits": refits,
                    "table": where,
                    "peak_mib": f"{memory:.0f}",
                    "seconds": f"{seconds:.1f}",
                    "machine": processor(),
                    "versions": versions("torch", "pandas", "pyarrow"),
                    "commit": commit(),
                    "date": date.today().isoformat(),
                }
            )
        if len(errors) > 1:
            raise SystemExit(f"the errors differ: {errors}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    print(f"{hardware(1)}, stride 1, horizon 24, {VARIATES} variates")
    rows = measure(options.sizes)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
