"""What it is worth that columns which stop at zero have no forecast below it.

    python benchmarks/nonnegative.py --data FOLDER          # runs what results/ lacks
    python benchmarks/nonnegative.py --summary

The tables are those of `benchmarks/whole_histories.py`, new ones and development tasks, and two
more with many zeros. Every fit has nothing set but the horizon and `blocks=0`, and forecasts twice:
as it is, and as if nothing were known of zero. A row are the columns of a table that stop there;
tables that have none are named with a count of zero.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, product
from pathlib import Path

import numpy as np
import pandas as pd
from defaults import Task, fits_anew, heads, long, naive_errors
from rows import run_or_show
from whole_histories import every_task, missing_rows

from tsm2 import TSM2Forecaster
from tsm2.errors import ParameterError

RESULTS = Path(__file__).parent / "results" / "nonnegative.csv"

MORE = (
    Task("demand", "generated", "D", 7, 14, 4, "panel", "40 series of 300 days, two sales a week"),
    Task("Weather, 10 minutes", "long_horizon/weather/weather.csv", "10min", 144, 144, 4,
         about="21 columns, 4,000 rows"),
)  # fmt: skip


# --- read -----------------------------------------------------------------------------------------


def demand() -> dict[str, np.ndarray]:
    """Return what is sold of 40 things on 300 days, most of them on few."""
    draw = np.random.default_rng(0)
    day = np.arange(300)
    rates = draw.gamma(1.0, 0.3, 40)[:, None] * (1 + 0.5 * np.sin(2 * np.pi * day / 7))
    return {f"thing {k}": draw.poisson(rate).astype(float) for k, rate in enumerate(rates)}


def more(folder: Path) -> Iterator[tuple[Task, str, dict[str, pd.Series]]]:
    """Yield the tables that stand here alone."""
    for task in MORE:
        if task.source == "generated":
            columns = demand()
        elif (folder / task.source).is_file():
            rows = pd.read_csv(folder / task.source).select_dtypes("number").iloc[20_000:24_000]
            columns = {name: rows[name].to_numpy(float) for name in rows}
        else:
            print(f"left out: {task.name}: {folder / task.source} is not here")
            continue
        yield (
            task,
            "more",
            {
                name: pd.Series(
                    values, pd.date_range(task.begins, periods=len(values), freq=task.frequency)
                )
                for name, values in columns.items()
            },
        )


# --- forecast and judge ---------------------------------------------------------------------------


def row_of(task: Task, kind: str, series: dict[str, pd.Series]) -> dict[str, object]:
    """Return the errors of a task's columns that stop at zero, with that and without."""
    known, scale = heads(task, series), naive_errors(task, series)
    found: dict[str, list[float]] = {}
    model, stopping = None, set()
    for number, head in enumerate(known):
        frame = pd.DataFrame(head) if task.kind == "table" else long(head)
        if model is None or fits_anew(series, number):
            model = TSM2Forecaster(horizon=task.horizon, blocks=0, random_state=0).fit(frame)
        whole = model.fitted_
        if whole.nonnegative is None:
            continue
        stops = np.broadcast_to(whole.nonnegative, len(series)) & [scale[n] > 0 for n in series]
        names = [name for name, each in zip(series, stops, strict=True) if each]
        stopping |= set(names)
        later = np.column_stack([series[n].iloc[len(head[n]) :][: task.horizon] for n in names])
        unit = np.array([scale[name] for name in names])
        for label in ("with", "without"):
            model.fitted_ = whole if label == "with" else replace(whole, nonnegative=None)
            point, low, high = (each[:, stops] for each in forecasts(model, frame, task))
            measured = {
                "MASE": abs(later - point) / unit,
                "below": point < 0,
                "width": (high - low) / unit,
                "inside": (later >= low) & (later <= high),
            }
            for what, each in measured.items():
                found.setdefault(f"{what} {label}", []).extend(each.mean(0))
        model.fitted_ = whole
    means = {label: f"{np.mean(each):.4f}" for label, each in found.items()}
    judged = product(("MASE", "below", "width", "inside"), ("with", "without"))
    return {
        "kind": kind,
        "task": task.name,
        "cutoffs": task.cutoffs,
        "stopping": len(stopping),
        "columns": len(series),
        **{name: means.get(name, "") for name in map(" ".join, judged)},
    }


def forecasts(
    model: TSM2Forecaster, frame: pd.DataFrame, task: Task
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return forecasts and the ends of their 80 % intervals, a row per step, (H, series) each."""
    point = _by_series(model.predict(frame), task)[..., 0]
    try:
        ends = _by_series(model.predict_interval(frame, coverage=0.8), task)
    except ParameterError:  # too few windows for the level
        return point, point * np.nan, point * np.nan
    return point, ends[..., 0], ends[..., 1]


def _by_series(frame: pd.DataFrame, task: Task) -> np.ndarray:
    """Return the numbers of forecasts, (H, series, numbers of each)."""
    numbers = frame.select_dtypes("number").to_numpy()
    if task.kind == "panel":  # series behind each other
        return numbers.reshape(-1, task.horizon, numbers.shape[1]).swapaxes(0, 1)
    return numbers.reshape(task.horizon, frame.columns.get_level_values(0).nunique(), -1)


def summary() -> None:
    """Print what changes, and how many tables have no such column."""
    table = pd.read_csv(RESULTS).set_index(["kind", "task"])
    changed = table[table["stopping"] > 0]
    for name in ("MASE", "width"):
        changed = changed.assign(**{name: changed[f"{name} with"] / changed[f"{name} without"]})
    shown = ["stopping", "columns", "MASE", "width", "below without", "inside with"]
    print(changed[[*shown, "inside without"]].round(3).to_string())
    print(f"\n{len(table) - len(changed)} tables have no column that stops at zero")


def rows(data: Path) -> Iterator[dict[str, object]]:
    """Make the rows that are missing."""
    return missing_rows(chain(more(data), every_task(data)), RESULTS, row_of)


if __name__ == "__main__":
    run_or_show(__doc__, RESULTS, rows, summary)
