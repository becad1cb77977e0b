"""Coverage of 80 % intervals over a rolling backtest, calibrated once and adaptive.

    python benchmarks/adaptive_intervals.py --data FOLDER     # the tasks of defaults.py
    python benchmarks/adaptive_intervals.py --summary

A linear model, with nothing set but the horizon, is fitted to the first half of the rows of a task
and never again; it then forecasts from every fourth of a horizon on. "adaptive 0.5" is with that
rate, see `tsm2.fitted.adaptive`. Coverage is over all variates and steps;
Winkler's score, of the interval, is in units of the calibrated interval's, and lower is better. A
task takes part if it has 60 rows, one table, and 20 forecasts.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from defaults import TASKS, MissingDataError, Task, load
from rows import add_row, folder_given, keys_in

from tsm2 import TSM2Forecaster
from tsm2.fitted.adaptive import adapted_table

RESULTS = Path(__file__).parent / "results" / "adaptive_intervals.csv"
LEVELS = (0.1, 0.9)
RATES = (0.05, 0.1, 0.2, 0.5, 1.0)


def winkler(table: pd.DataFrame) -> float:
    """Return the mean score of the intervals: their widths, and ten times what lies beyond."""
    low, high, actual = (table[name] for name in ("lo-80", "hi-80", "actual"))
    beyond = (low - actual).clip(lower=0) + (actual - high).clip(lower=0)
    return float((high - low + 10 * beyond).mean())


def measure(task: Task, folder: Path) -> Iterator[dict[str, str]]:
    """Yield a row for each kind of interval."""
    frame = pd.DataFrame(load(task, folder))
    half = len(frame) // 2
    stride = max(1, task.horizon // 4)
    if task.kind != "table" or len(frame) < 60 or half - task.horizon < 20 * stride:
        return
    model = TSM2Forecaster(horizon=task.horizon, blocks=0, random_state=0).fit(frame.iloc[:half])
    tested = {"start": frame.index[half], "stride": stride, "quantiles": (0.1, 0.5, 0.9)}
    calibrated = model.backtest(frame, **tested)
    tables = {"calibrated": calibrated} | {
        f"adaptive {rate}": adapted_table(calibrated, LEVELS, several=False, rate=rate)
        for rate in RATES
    }
    for kind, table in tables.items():
        inside = (table["actual"] >= table["lo-80"]) & (table["actual"] <= table["hi-80"])
        yield {
            "task": task.name,
            "intervals": kind,
            "coverage": f"{inside.mean():.3f}",
            "winkler": f"{winkler(table) / winkler(calibrated):.3f}",
            "forecasts": str(table["cutoff"].nunique()),
        }


def summary() -> None:
    """Print the coverage of every task, and what it comes to."""
    table = pd.read_csv(RESULTS)
    print(table.pivot_table("coverage", "task", "intervals", sort=False).to_string())
    groups = table.groupby("intervals", sort=False)
    found = groups["coverage"].agg(["mean", "min", "max"])
    found["from 70 to 90 %"] = groups["coverage"].agg(lambda each: each.between(0.7, 0.9).sum())
    found["winkler"] = groups["winkler"].agg(lambda each: np.exp(np.log(each).mean()))
    print(found.round(3).to_string())


def main() -> None:
    """Run what is missing, and print the summary."""
    data = folder_given(__doc__ or "")
    done = {name for (name,) in keys_in(RESULTS, ("task",))}
    for task in () if data is None else TASKS:
        if task.name in done:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for row in measure(task, data):
                    add_row(RESULTS, row)
        except MissingDataError as error:
            print(f"left out: {error}")
    summary()


if __name__ == "__main__":
    main()
