"""What forecasts without a fit are worth, beside what is fitted to every window anew, or once.

    python benchmarks/zero.py DATA --half choices --methods naive classical zero
    python benchmarks/zero.py --speed
    python benchmarks/zero.py DATA --half read-once --methods naive classical zero AutoETS AutoTheta

DATA holds the folders long_horizon, short_horizon and small. Tables and halves: `zero_tasks.py`.

MASE divides by the mean absolute difference over a season in the rows before the first window;
"relative" is MASE beside that of the seasonal naive forecast. The weighted quantile loss is the
mean over the levels 0.1, 0.5 and 0.9 of twice the pinball loss, over the sum of what happened.
Coverage is that of the interval between 0.1 and 0.9. Milliseconds are per series, one thread.
"classical" is where the network starts: its weighted mean of classical forecasts, without itself.
"separate" is the network with every variate as a table of its own. "tuned" is the network after a
fit with `warm_start` on all rows before the first window, "tuned gently" without the exact part.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zero_tasks import CHOICES, READ_ONCE, Task, tasks

LEVELS = (0.1, 0.5, 0.9)
TUNING = {"warm_start": True, "max_epochs": 3, "random_state": 0}
RESULTS = Path(__file__).parent / "results" / "zero.csv"
Numbers = NDArray[np.float64]


def naive(task: Task) -> Numbers:
    """Return the last season again, (N, H, 1)."""
    steps = np.arange(task.actual.shape[1]) % task.season
    return np.stack([each[-task.season :][steps] for each in task.histories])[..., None]


def pretrained(task: Task, weights: str, *, joint: bool = True, **tuning: Any) -> Numbers:
    """Return quantiles of `TSM2Forecaster.from_pretrained`, tuned or not, (N, H, Q)."""
    from tsm2 import TSM2Forecaster

    season = task.season if task.season > 1 else None
    model = TSM2Forecaster.from_pretrained(weights, season=season, device="cpu", **tuning)
    if tuning:
        model.fit(task.tables if task.name == "M4 Hourly" else task.tables[:1])
        print(task.name, model.choices_, model.history_, sep="\n", flush=True)
    groups = task.groups if joint else np.arange(len(task.histories))
    tables = [
        np.stack([task.histories[k] for k in np.flatnonzero(groups == group)], 1)
        for group in np.unique(groups)
    ]
    found = model.predict_quantiles(tables, quantiles=LEVELS, horizon=task.actual.shape[1])
    return np.concatenate([np.moveaxis(np.asarray(each), 1, 0) for each in found])


def classical(task: Task, weights: str) -> Numbers:
    """Return the forecast that the network starts from, (N, H, 1)."""
    import torch

    from tsm2.fitted.rolling import roll_forward
    from tsm2.networks.pretrained import load_pretrained

    network = load_pretrained(weights).for_season(task.season if task.season > 1 else None)

    class Start(torch.nn.Module):
        def forward(self, context: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            told = network.tell(context, mask)
            return (told.base * told.deviation + told.level).float()

    rows = np.full((len(task.histories), 512), np.nan)
    for row, each in zip(rows, task.histories, strict=True):
        row[512 - len(each) :] = each
    pieces = []
    for part in np.array_split(rows, max(1, len(rows) // 256)):
        values = torch.from_numpy(part.astype(np.float32))[:, None]
        known = values.isfinite()
        forecast = roll_forward(
            Start(),
            values.nan_to_num(),
            task.actual.shape[1],
            network.config.horizon,
            {"mask": known},
            point=lambda each, *_: each,
        )
        pieces.append(forecast[:, 0].numpy())
    return np.concatenate(pieces)[..., None]


def statsforecast(task: Task, name: str) -> Numbers:
    """Return the quantiles of a model that is fitted to every history, (N, H, Q)."""
    import statsforecast.models as models

    found = []
    for each in task.histories:
        model = getattr(models, name)(season_length=task.season)
        forecast = model.forecast(y=each, h=task.actual.shape[1], level=[80])
        found.append(np.stack([forecast["lo-80"], forecast["mean"], forecast["hi-80"]], -1))
    return np.stack(found)


def fitted(task: Task) -> Numbers:
    """Return quantiles of a TSM2 with nothing set but horizon and season, (N, H, Q).

    It is fitted once: to all rows before the first window, or to all series of M4. Where rows are
    too few to calibrate these levels on, there is a point forecast alone, (N, H, 1).
    """
    from tsm2 import TSM2Forecaster
    from tsm2.errors import ParameterError

    model = TSM2Forecaster(
        horizon=task.actual.shape[1],
        season=task.season if task.season > 1 else None,
        random_state=0,
        device="cpu",
    ).fit(task.tables if task.name == "M4 Hourly" else task.tables[:1])
    try:
        found = model.predict_quantiles(task.tables, quantiles=LEVELS)
    except ParameterError:
        point = [np.asarray(each).T for each in model.predict(task.tables)]
        return np.concatenate(point)[..., None]
    return np.concatenate([np.moveaxis(np.asarray(each), 1, 0) for each in found])


def measure(task: Task, method: str, weights: str) -> dict[str, Any]:
    """Return a row of results."""
    ways: dict[str, Callable[[], Numbers]] = {
        "naive": lambda: naive(task),
        "classical": lambda: classical(task, weights),
        "zero": lambda: pretrained(task, weights),
        "tuned": lambda: pretrained(task, weights, **TUNING),
        "tuned gently": lambda: pretrained(task, weights, **TUNING, linear_start="random"),
        "separate": lambda: pretrained(task, weights, joint=False),
        "fitted TSM2": lambda: fitted(task),
    }
    began = time.perf_counter()
    values = ways[method]() if method in ways else statsforecast(task, method)
    seconds = time.perf_counter() - began
    middle = values[..., values.shape[-1] // 2]
    errors = np.abs(middle - task.actual).mean(1) / task.scale
    row: dict[str, Any] = {"table": task.name, "method": method, "series": len(values)}
    row["MASE"] = round(float(errors.mean()), 4)
    if values.shape[-1] == len(LEVELS):
        away = task.actual[..., None] - values
        levels = np.array(LEVELS)
        loss = 2 * np.maximum(levels * away, (levels - 1) * away).sum((0, 1))
        row["weighted quantile loss"] = round(float(loss.mean() / np.abs(task.actual).sum()), 4)
        inside = (values[..., 0] <= task.actual) & (task.actual <= values[..., 2])
        row["coverage 80"] = round(float(inside.mean()), 3)
    row["ms"] = round(1000 * seconds / len(values), 2)
    return row


def speed(weights: str) -> None:
    """Print the processor time of forecasts of one series and of a thousand, of 512 rows."""
    from tsm2 import TSM2Forecaster
    from tsm2.datasets import load_sample

    model = TSM2Forecaster.from_pretrained(weights, season=24, device="cpu")
    one = load_sample(512).to_numpy()[:, :1]
    for count, runs in ((1, 21), (1000, 3)):
        series = one if count == 1 else [one + k for k in range(count)]
        for horizon in (64, 96):
            seconds = []
            for _ in range(runs):
                began = time.process_time()
                model.predict(series, horizon=horizon)
                seconds.append(time.process_time() - began)
            middle = 1000 * np.median(seconds)
            print(f"{horizon} steps of {count} series: {middle:.0f} ms of processor time")


def main() -> None:
    """Measure, and write a row per table and method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--half", choices=("choices", "read-once"))
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--tables", nargs="+", help="only these of the half")
    parser.add_argument("--weights", default="zero")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--speed", action="store_true", help="time forecasts instead")
    given = parser.parse_args()
    if given.speed:
        speed(given.weights)
        return
    if given.data is None or given.half is None or given.methods is None:
        parser.error("DATA, --half and --methods are needed, or --speed")
    columns = ["half", "table", "method", "series", "MASE"]
    columns += ["weighted quantile loss", "coverage 80", "ms"]
    is_new = not given.out.exists()
    with given.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if is_new:
            writer.writeheader()
        names = CHOICES if given.half == "choices" else READ_ONCE
        names = tuple(name for name in names if given.tables is None or name in given.tables)
        for task in sorted(tasks(names, given.data), key=lambda each: len(each.histories)):
            for method in given.methods:
                writer.writerow({"half": given.half, **measure(task, method, given.weights)})
                file.flush()


if __name__ == "__main__":
    sys.exit(main())
