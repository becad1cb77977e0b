r"""Single networks, and the mean of their forecasts from the same fits.

    python benchmarks/ensembles.py ETTh1 ETTh2 --horizons 96 192 --jobs 3

TSM2 is fitted with the settings of `--config best` and with each of the seeds, as `tsm2 benchmark`
does it: those rows go to its result file (--out), and rows that are there stay as they are. The
mean of the networks' forecasts, which is what `n_estimators` makes, is measured on the same windows
and goes to a file of its own (--ensembles), one row for all seeds; what is there is not run again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from rows import add_row, keys_in
from timing import commit

from tsm2.benchmark.job import Job, fit_model, measure_model
from tsm2.benchmark.models import Forecaster
from tsm2.benchmark.protocol import dataset_name, horizons_of, load_table, measure_errors
from tsm2.benchmark.results import append_row, finished
from tsm2.benchmark.settings import load_settings

RESULTS = Path(__file__).parent / "results"
KEY = ("dataset", "lookback", "horizon", "config", "seeds")
COLUMNS = (*KEY, "mse", "mae", "commit", "date")


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of several models' forecasts."""

    models: Sequence[Forecaster]

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return forecasts, (B, H, M), for contexts, (B, L, M)."""
        forecasts = [model.forecast_contexts(contexts, horizon) for model in self.models]
        mean: NDArray[np.float64] = np.mean(forecasts, axis=0)
        return mean


def jobs_of(dataset: str, horizon: int, options: argparse.Namespace) -> list[Job]:
    settings = load_settings(dataset, "best")
    return [
        Job(
            dataset=dataset,
            lookback=settings.lookback,
            horizon=horizon,
            label="TSM2",
            model="TSM2",
            parameters=settings.at(horizon),
            seed=seed,
            data_home=options.data_dir,
        )
        for seed in range(options.seeds)
    ]


def key_of(jobs: Sequence[Job]) -> tuple[str, ...]:
    job = jobs[0]
    return job.dataset, str(job.lookback), str(job.horizon), job.config, str(len(jobs))


def measure(jobs: Sequence[Job], options: argparse.Namespace) -> dict[str, str]:
    torch.set_num_threads(1)
    table = load_table(jobs[0].dataset, data_home=options.data_dir)
    models = []
    for job in jobs:
        model, seconds = fit_model(job, table)
        measured = measure_model(job, table, model, seconds)
        if job.key not in finished(options.out):
            append_row(options.out, measured.row)
        models.append(model)
    sizes = {"lookback": jobs[0].lookback, "horizon": jobs[0].horizon}
    errors = measure_errors(Mean(models), table, **sizes)
    found = f"{errors.mse:.6f}", f"{errors.mae:.6f}", commit(), date.today().isoformat()
    return dict(zip(COLUMNS, (*key_of(jobs), *found), strict=True))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("datasets", nargs="+", metavar="DATASET")
    parser.add_argument("--horizons", type=int, nargs="+", help="default: the published")
    parser.add_argument("--seeds", type=int, default=3, help="networks in an ensemble")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, default=RESULTS / "long_horizon.csv")
    parser.add_argument("--ensembles", type=Path, default=RESULTS / "ensembles.csv")
    options = parser.parse_args(argv)
    done = keys_in(options.ensembles, KEY)
    cells = [
        jobs_of(name, horizon, options)
        for name in map(dataset_name, options.datasets)
        for horizon in options.horizons or horizons_of(name)
    ]
    tasks = (joblib.delayed(measure)(jobs, options) for jobs in cells if key_of(jobs) not in done)
    rows: Any = joblib.Parallel(options.jobs, return_as="generator_unordered")(tasks)
    for row in rows:
        add_row(options.ensembles, row)
        print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
