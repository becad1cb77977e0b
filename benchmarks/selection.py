r"""Where mixing selectively pays: the mixers taken apart, on rows before the test rows.

    python benchmarks/selection.py --data FOLDER           # runs what results/selection.csv lacks
    python benchmarks/selection.py --data FOLDER --only ETTm1 --seeds 0 1
    python benchmarks/selection.py --summary

FOLDER holds `long_horizon/` with the public files. Every network starts from the same exact linear
map, which is chosen once for each table and lookback, and trains as by default; `start_margin` is
0, so that the mixers are kept wherever they help the rows that stop the training, and nothing is
solved again.

The rows before the test rows are cut in three: the first train, the next stop, the last judge. The
columns `stops` and `judges` hold mean squared errors on standardised values over all windows of
these rows, `start` that of the exact map on the rows that stop.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from defaults import TASKS
from defaults import load as load_task
from numpy.typing import NDArray
from rows import add_row, keys_in
from timing import commit

from tsm2 import TSM2Forecaster
from tsm2.backtesting import Walked
from tsm2.benchmark.protocol import load_table
from tsm2.fitting import Fitting
from tsm2.networks.config import NetworkConfig
from tsm2.networks.tsm2 import TSM2Network
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.read import read
from tsm2.training.choosing import choices_for
from tsm2.training.recipe import Recipe

RESULTS = Path(__file__).parent / "results" / "selection.csv"
KEY = ("table", "lookback", "horizon", "variant", "seed")
VARIANTS: dict[str, dict[str, Any]] = {
    "exact map": {"blocks": 0},
    "whole": {},
    "linear in time": {"time_mixer": "linear"},
    "variates by MLP": {"variate_mixer": "mlp"},
    "linear in time, variates by MLP": {"time_mixer": "linear", "variate_mixer": "mlp"},
    "time mixer alone": {"variate_mixer": "none"},
    "variate mixer alone": {"time_mixer": "none"},
    "linear path trained": {"time_mixer": "none", "variate_mixer": "none"},
    "SAM 0.35": {"sam_radius": 0.35},
    "SAM relative": {"sam_radius": "relative"},
    "patches of 8": {"patch_length": 8},
    "30 epochs": {"max_epochs": 30},
    "averaged map": {"blocks": 0},  # as "exact map", which was run before it was averaged
    "leaders": {"blocks": 0, "leaders": "auto"},
    "leaders, whole": {"leaders": "auto"},
}
"""What is set besides the defaults, without leaders where not said."""
SHARE = 0.001
""""relative" is this share of the norm of the mixers' parameters at the start."""


@dataclass(frozen=True)
class Rows:
    """A table before its test rows, and where its parts end."""

    values: NDArray[np.float64]
    train: int
    stop: int
    season: int


def rows_of(name: str, folder: Path) -> Rows:
    """Return the rows of a table."""
    if name in _GENERATED:
        return _thirds(_GENERATED[name](), 24)
    if name == "electricity":
        file = folder / "long_horizon" / "electricity" / "electricity_1000x203.csv"
        return _thirds(pd.read_csv(file).select_dtypes("number").to_numpy(float)[:976], 24)
    table = load_table(name, data_home=folder / "long_horizon")
    end = table.split.validation_end
    middle = (table.split.train_end + end) // 2
    return Rows(table.values[:end], table.split.train_end, middle, table.season)


def _thirds(values: NDArray[np.float64], season: int) -> Rows:
    n = len(values)
    return Rows(values, round(0.64 * n), round(0.82 * n), season)


def leads_and_lags() -> NDArray[np.float64]:
    """Twelve columns that follow each other by two rows each: the development task."""
    (task,) = (each for each in TASKS if each.name == "leads and lags")
    return np.column_stack(list(load_task(task, Path()).values()))[: -24 * task.cutoffs]


def gated_lags() -> NDArray[np.float64]:
    """Return stores that follow a leader 24 hours later, but only while a gate was open.

    Column 0 leads, column 1 is the gate, which changes every day or two; ten stores follow with
    weights of their own. No linear map knows which of the leader's hours will come through.
    """
    draw = np.random.default_rng(6)
    n, lag = 4000, 24
    leader = pd.Series(draw.normal(size=n + lag)).ewm(alpha=0.2).mean().to_numpy() * 3
    gate = np.repeat(draw.integers(0, 2, (n + lag) // 32 + 1), 32)[: n + lag].astype(float)
    through = (leader * gate)[:n, None] * draw.uniform(0.5, 1.5, 10)
    season = np.sin(2 * np.pi * (np.arange(n)[:, None] + draw.integers(0, 24, 10)) / 24)
    stores = through + season + 0.3 * draw.normal(size=(n, 10))
    return np.column_stack([leader[lag:], gate[lag:] + 0.01 * draw.normal(size=n), stores])


_GENERATED = {"leads and lags": leads_and_lags, "gated lags": gated_lags}
CELLS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("gated lags", 96, 24, tuple(VARIANTS)),
    ("leads and lags", 96, 24, tuple(VARIANTS)),
    ("ETTm1", 512, 96, tuple(VARIANTS)),
    ("electricity", 168, 24, tuple(VARIANTS)),
    ("Weather", 512, 96, tuple(VARIANTS)),
    ("ETTm1", 1024, 96, ("exact map", "whole", "linear in time", "variate mixer alone")),
    ("Weather", 1024, 96, ("exact map", "whole", "linear in time", "variate mixer alone")),
)
"""Tables, lookbacks, horizons, and what is run on them."""


def recipe_of(rows: Rows, lookback: int, horizon: int, variant: str, seed: int) -> Recipe:
    """Return what a variant asks of a fit."""
    given = {"leaders": False} | VARIANTS[variant]
    if given.get("sam_radius") == "relative":
        given["sam_radius"] = SHARE * _norm_of_mixers(lookback, horizon, rows.values.shape[1])
    model = TSM2Forecaster(
        lookback,
        horizon,
        season=rows.season,
        start_margin=0.0,
        refit_linear=False,
        validation_fraction=1 - rows.train / rows.stop,
        random_state=seed,
        device="cpu",
        **given,
    )
    return Recipe.of(model.get_params(deep=False))


def _norm_of_mixers(lookback: int, horizon: int, n_variates: int) -> float:
    network = TSM2Network(NetworkConfig(lookback=lookback, horizon=horizon, n_variates=n_variates))
    return float(torch.nn.utils.get_total_norm(list(network.mixer_parameters())))


def run(
    cell: tuple[str, int, int, tuple[str, ...]], seeds: list[int], folder: Path
) -> Iterator[dict[str, Any]]:
    """Yield a row for every variant and seed that the file lacks."""
    name, lookback, horizon, variants = cell
    done = keys_in(RESULTS, KEY)
    todo = [
        (variant, seed)
        for seed in seeds
        for variant in variants
        if (name, str(lookback), str(horizon), variant, str(seed)) not in done
        and not (VARIANTS[variant].get("blocks") == 0 and seed != seeds[0])
    ]
    if not todo:
        return
    rows = rows_of(name, folder)
    known = read(pd.DataFrame(rows.values[: rows.stop]))
    judged = read(pd.DataFrame(rows.values[rows.stop - lookback :]))
    choices = {
        variant: choices_for(
            recipe_of(rows, lookback, horizon, variant, 0), known, CovariateTables()
        )
        for variant in ("exact map", "leaders")
    }
    for variant, seed in todo:
        start = time.perf_counter()
        recipe = recipe_of(rows, lookback, horizon, variant, seed)
        chosen = choices["leaders" if recipe.leaders else "exact map"]
        fitting = Fitting.of(recipe, known, CovariateTables(), choices=chosen)
        model, history, _ = fitting.run()
        seconds = time.perf_counter() - start
        walk = Walked.through(model, judged, CovariateTables(), start=None, horizon=horizon)
        losses = history["validation_loss"]
        yield {
            "table": name,
            "lookback": lookback,
            "horizon": horizon,
            "variant": variant,
            "seed": seed,
            "start": f"{losses.iloc[0]:.5f}",
            "stops": f"{losses.min():.5f}",
            "judges": f"{walk.mean_squared_error():.5f}",
            "epochs": int(history["epoch"].max()),
            "kept": int(losses.argmin()),
            "seconds": f"{seconds:.0f}",
            "commit": commit(),
        }


def summary() -> None:
    """Print the judged errors as ratios to that of the exact map, the mean over seeds."""
    table = pd.read_csv(RESULTS)
    cells = ["table", "lookback", "horizon"]
    exact = table[table["variant"] == "exact map"].set_index(cells)["judges"]
    table = table.join(exact.rename("exact"), on=cells)
    table["ratio"] = table["judges"] / table["exact"]
    print(table.pivot_table("ratio", "variant", cells, sort=False).round(3).to_string())
    print(table.pivot_table("seconds", "variant", cells, sort=False).round(0).to_string())


def main() -> None:
    """Run what is missing, and print the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of the public files")
    parser.add_argument("--only", nargs="+", help="names of tables")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--summary", action="store_true", help="print what is there")
    given = parser.parse_args()
    if not given.summary and given.data is None:
        parser.error("--data FOLDER is needed to run")
    torch.set_num_threads(1)
    for name, lookback, horizon, variants in () if given.summary else CELLS:
        if given.only and name not in given.only:
            continue
        wanted = tuple(each for each in variants if each in given.variants)
        for row in run((name, lookback, horizon, wanted), given.seeds, given.data):
            add_row(RESULTS, {column: str(value) for column, value in row.items()})
            print(*row.values(), flush=True)
    summary()


if __name__ == "__main__":
    main()
