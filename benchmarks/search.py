r"""Compare settings by their validation errors: how the settings of the benchmark were chosen.

    python benchmarks/search.py ETTh1 --horizons 96 720 --seeds 0 1 --jobs 2 \
        "RLinear" "TSM2" "TSM2(d_state=4)" "TSM2(d_state=4, features=32)"
    python benchmarks/search.py Exchange --lookback 192 --folds 4 --rows 760 "RLinear" "TSM2"

Models are named as for `tsm2 benchmark`. The first thing done to a table is to cut its test rows
off; what is left takes the whole way that a benchmark's run takes: trained, stopped early and
judged. The columns `stops` and `judges` tell by which rows; all rows before `stops` train.

Without --folds the validation rows do both, so that an epoch which suits them by chance counts as
skill. With it, each fold is judged by rows that follow those that stopped it, as the test rows
will: by --rows of them, after as many to stop by. The first fold ends where the validation rows
end, each further one --stride rows earlier.

Each run is a row of the file (--out), runs that are in it are not run again, and the means are
printed at the end. `ratio` is to the error of the model that is named first, on the same rows: a
mean over folds of the errors themselves would be that of the liveliest fold.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import torch
from rows import add_row, keys_in
from timing import commit

from tsm2.benchmark.models import ModelName, Setup, build, uses_seed
from tsm2.benchmark.protocol import dataset_name, load_table, measure_errors
from tsm2.benchmark.settings import load_settings
from tsm2.datasets import Split

RESULTS = Path(__file__).parent / "results" / "search.csv"
KEY = ("dataset", "stops", "judges", "lookback", "horizon", "model", "config", "seed")
COLUMNS = (*KEY, "validation_mse", "validation_mae", "seconds", "commit")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One run."""

    dataset: str
    stops: str
    judges: str
    lookback: int
    horizon: int
    model: str
    config: str
    seed: int

    @property
    def key(self) -> tuple[str, ...]:
        """What names the run in the file."""
        return tuple(str(getattr(self, name)) for name in KEY)


def folds_of(name: str, arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the rows that stop and the rows that judge, of each fold; none is a test row."""
    known = load_table(name, data_home=arguments.data_dir).split
    if arguments.folds is None:
        both = f"{known.train_end}:{known.validation_end}"
        return [(both, both)]
    rows = arguments.rows or known.validation_end - known.train_end
    stride = arguments.stride or rows
    ends = [known.validation_end - fold * stride for fold in range(arguments.folds)]
    if min(ends) <= 2 * rows:
        raise SystemExit(
            f"{arguments.folds} folds of {rows} rows, {stride} apart, leave {name} no row to train "
            f"on: it has {known.validation_end} before its test rows. Lower --folds or --rows."
        )
    return [(f"{end - 2 * rows}:{end - rows}", f"{end - rows}:{end}") for end in ends]


def run(candidate: Candidate, data_home: str | None) -> dict[str, str]:
    torch.set_num_threads(1)
    table = load_table(candidate.dataset, data_home=data_home)
    train_end, stop_end = map(int, candidate.stops.split(":"))
    judge_start, judge_end = map(int, candidate.judges.split(":"))
    if max(stop_end, judge_end) > table.split.validation_end:
        raise ValueError(f"{candidate} reads test rows; they begin at {table.split.validation_end}")
    split = Split(train_end, judge_start, judge_end)
    table = replace(table, values=table.values[:judge_end], split=split)
    setup = Setup(
        lookback=candidate.lookback,
        horizon=candidate.horizon,
        season=table.season,
        seed=candidate.seed,
        parameters=json.loads(candidate.config),
    )
    start = time.perf_counter()
    model = build(candidate.model, setup)
    model.fit(table.values[:stop_end], train_end)
    sizes = {"lookback": candidate.lookback, "horizon": candidate.horizon}
    errors = measure_errors(model, table, **sizes)
    found = f"{errors.mse:.5f}", f"{errors.mae:.5f}", f"{time.perf_counter() - start:.0f}", commit()
    return dict(zip(COLUMNS, (*candidate.key, *found), strict=True))


def candidates_of(arguments: argparse.Namespace) -> list[Candidate]:
    found = []
    for name in map(dataset_name, arguments.datasets):
        lookback = arguments.lookback or load_settings(name, "paper").lookback
        folds = folds_of(name, arguments)
        for horizon, model in product(arguments.horizons, map(ModelName.read, arguments.models)):
            config = json.dumps(model.parameters, sort_keys=True)
            seeds = arguments.seeds if uses_seed(model.name, model.parameters) else [0]
            found += [
                Candidate(name, *rows, lookback, horizon, model.name, config, seed)
                for rows, seed in product(folds, seeds)
            ]
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("datasets", type=lambda text: text.split(","), metavar="DATASET[,...]")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--horizons", type=int, nargs="+", default=[96])
    parser.add_argument("--lookback", type=int, help="default: the paper's")
    parser.add_argument("--folds", type=int, help="default: the validation rows stop and judge")
    parser.add_argument("--rows", type=int, help="of a fold; default: the validation rows' number")
    parser.add_argument("--stride", type=int, help="default: the folds' rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)

    done = keys_in(arguments.out, KEY)
    todo = [each for each in candidates_of(arguments) if each.key not in done]
    tasks = (joblib.delayed(run)(each, arguments.data_dir) for each in todo)
    rows: Any = joblib.Parallel(arguments.jobs, return_as="generator_unordered")(tasks)
    for row in rows:
        add_row(arguments.out, row)
        print(*row.values(), flush=True)

    print(means_of(pd.read_csv(arguments.out), ModelName.read(arguments.models[0])).to_string())


def means_of(table: pd.DataFrame, reference: ModelName) -> pd.DataFrame:
    """Average over folds and seeds, beside the ratio to a reference's error on the same rows."""
    same_rows = ["dataset", "stops", "judges", "lookback", "horizon"]
    config = json.dumps(reference.parameters, sort_keys=True)
    of_reference = table[(table["model"] == reference.name) & (table["config"] == config)]
    errors = of_reference.groupby(same_rows)["validation_mse"].mean().rename("reference")
    table = table.join(errors, on=same_rows)
    table["ratio"] = table["validation_mse"] / table["reference"]
    table["folds"] = table["stops"] != table["judges"]
    settings = table.groupby(["dataset", "folds", "lookback", "horizon", "model", "config"])
    return settings[["validation_mse", "validation_mae", "ratio", "seconds"]].mean().round(4)


if __name__ == "__main__":
    main()
