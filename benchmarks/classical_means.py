"""What the mean of a linear fit and of classical forecasts of the whole history would be worth.

    python benchmarks/classical_means.py --data FOLDER          # runs what results/ lacks
    python benchmarks/classical_means.py --summary

FOLDER is that of `benchmarks/defaults.py`; its development tasks are forecast at many cutoffs, with
nothing set but the horizon and `blocks=0`. The classical forecasts are the seven of
`tsm2.networks.classical`, weighted by how far each erred at the end of the history, to the power
-3 or -6. They read up to 2,000 rows, or, "short", no more than the fitted model does. No fitted
model of the package takes such a mean: it is no linear map, and needs more rows than a window.
"""

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from defaults import (
    MANY_RESULTS,
    TASKS,
    Task,
    at_many_cutoffs,
    fits_anew,
    heads,
    loaded,
    long,
    naive_errors,
    ours_as_table,
)
from rows import add_row, keys_in

from tsm2 import TSM2Forecaster
from tsm2.networks.classical import classical_forecasts
from tsm2.training.choices import chosen

RESULTS = Path(__file__).parent / "results" / "classical_means.csv"
MOST_ROWS = 2000
POWERS = (3, 6)


def classical(history: np.ndarray, horizon: int, season: int) -> dict[int, np.ndarray]:
    """Return the weighted means of the classical forecasts of one history, by their power."""
    center, scale = history.mean(), history.std() or 1.0
    values = torch.tensor((history - center) / scale, dtype=torch.float32)[None]
    found = classical_forecasts(
        values,
        torch.ones_like(values, dtype=torch.bool),
        horizon,
        offset=torch.tensor([center / scale], dtype=torch.float32),
        seasons=torch.tensor([season]),
    )
    courses, errors = found.courses[0].double(), found.errors[0].double() + 1e-6
    means = {}
    for power in POWERS:
        weights = errors**-power
        means[power] = (weights / weights.sum() @ courses).numpy() * scale + center
    return means


def forecasts(task: Task, series: dict[str, pd.Series]) -> Iterator[dict[str, pd.DataFrame]]:
    """Yield all forecasts of each cutoff, by name: a row per step, a column per series."""
    model = None
    season = task.season if task.frequency != "YS" else 0  # what a frequency tells, and no more
    for number, known in enumerate(heads(task, series)):
        frame = pd.DataFrame(known) if task.kind == "table" else long(known)
        if model is None or fits_anew(series, number):
            model = TSM2Forecaster(horizon=task.horizon, blocks=0, random_state=0).fit(frame)
        fitted = ours_as_table(model.predict(frame), task)
        found = {"fitted": fitted}
        reads = {"": MOST_ROWS, ", short": chosen(model.choices_)["lookback"]}
        for name, rows in reads.items():
            means = {
                label: classical(each.to_numpy(dtype=float)[-rows:], task.horizon, season)
                for label, each in known.items()
            }
            for power in POWERS:
                alone = pd.DataFrame({label: mean[power] for label, mean in means.items()})
                found[f"classical, {power}{name}"] = alone
                found[f"half of both, {power}{name}"] = (fitted + alone) / 2
        yield found


def errors_of(task: Task, series: dict[str, pd.Series]) -> dict[str, float]:
    """Return the MASE of every forecast, as `benchmarks/defaults.py` measures it."""
    known = heads(task, series)
    scale = naive_errors(task, series)
    errors: dict[str, list[float]] = {}
    for head, found in zip(known, forecasts(task, series), strict=True):
        for name, each in series.items():
            happened = each.iloc[len(head[name]) :][: task.horizon].to_numpy()
            for label, forecast in found.items():
                if scale[name] > 0:
                    error = np.abs(happened - forecast[name].to_numpy()).mean() / scale[name]
                    errors.setdefault(label, []).append(float(error))
    return {label: float(np.mean(each)) for label, each in errors.items()}


def summary() -> None:
    """Print the errors over those of seasonal naive, and their geometric means."""
    table = pd.read_csv(RESULTS).pivot(index="task", columns="forecast", values="mase")
    naive = pd.read_csv(MANY_RESULTS).query("model == 'SeasonalNaive'").set_index("task")["mase"]
    ratios = table.div(naive, axis=0).dropna()
    print(ratios.round(3).to_string())
    print(f"\ngeometric mean, {len(ratios)} tasks:")
    print(np.exp(np.log(ratios).mean()).round(3).to_string())


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the public files")
    parser.add_argument("--summary", action="store_true", help="print what is there")
    given = parser.parse_args()
    if given.summary:
        summary()
        return
    if given.data is None:
        parser.error("--data FOLDER is needed to run")
    done = keys_in(RESULTS, ("task",))
    judged = [t for t in TASKS if t.name != "prescriptions" and (t.name,) not in done]
    for task, series in loaded(judged, given.data):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            errors = errors_of(at_many_cutoffs(task, series), series)
        for label, error in errors.items():
            add_row(RESULTS, {"task": task.name, "forecast": label, "mase": f"{error:.4f}"})
        print(task.name, flush=True)


if __name__ == "__main__":
    main()
