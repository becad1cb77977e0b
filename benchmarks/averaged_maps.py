"""Which exact start holds on later rows: the one of four that validation rows choose, or a mean.

    python benchmarks/averaged_maps.py --data FOLDER          # runs what results/ lacks
    python benchmarks/averaged_maps.py --summary

FOLDER holds `long_horizon/` with the public files. Test rows of the benchmark are not read: each
fold ends with the validation part of a table, or at 0.8 of it; its last fifth judges, the fifth of
the rest before that chooses, and the rest trains. Maps are solved again with the choosing rows.

The four are maps from the mean or the last value of a window, of all variates together or of each.
"chosen" is the best of them, if it errs 3 % less than the first on the choosing rows, else that;
"averaged" the mean of both levels, and of both kinds where the best of each variate errs 3 % less
than the best of all.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rows import add_row, keys_in

from tsm2.benchmark.protocol import load_table
from tsm2.prepared.windows import Windows
from tsm2.training.moments import LinearInput
from tsm2.training.ridge import LinearMap, solve_again, solve_averaged, solve_linear
from tsm2.training.simple import error_of

RESULTS = Path(__file__).parent / "results" / "averaged_maps.csv"
CELLS = {
    "ETTh1": (512, (96, 192, 336, 720)),
    "ETTh2": (512, (96, 192, 336, 720)),
    "ETTm1": (512, (96, 336)),
    "ETTm2": (512, (96, 336)),
    "Exchange": (192, (96, 192, 336, 720)),
    "ILI": (104, (24, 60)),
}
ENDS = (1.0, 0.8)
MARGIN = 0.03
"""Share by which an error must be lower, as in `tsm2.training.ridge.choose_linear`."""


def cut(values: np.ndarray, lookback: int, horizon: int) -> tuple[Windows, Windows, Windows]:
    """Return the windows that train, that choose and that judge."""
    judged = int(len(values) * 0.8)
    chosen = int(judged * 0.8)
    train = values[:chosen]
    deviation = np.where(train.std(0) > 0, train.std(0), 1.0)
    rows = torch.from_numpy((values - train.mean(0)) / deviation).float()
    edges = (lookback, chosen, judged, len(values))

    def windows(first: int, end: int) -> Windows:
        starts = torch.arange(first - lookback, end - horizon - lookback + 1)
        return Windows(values=rows, lookback=lookback, horizon=horizon, starts=starts)

    return tuple(windows(*edges[k : k + 2]) for k in range(3))


def candidates(train: Windows, choosing: Windows) -> Iterator[tuple[str, LinearMap]]:
    """Yield what is compared, solved with the choosing rows too."""
    known = [train, choosing]
    four: dict[str, LinearMap] = {}
    for separate in (False, True):
        for level in ("mean", "last"):
            name = f"{level}, {'each' if separate else 'all'}"
            linear = LinearInput(level=level)
            four[name] = solve_linear(train, choosing, linear, separate=separate)
            yield name, solve_again(four[name], known)
    errors = {name: float(each.error or 0.0) for name, each in four.items()}
    best, first = min(errors, key=errors.__getitem__), next(iter(errors))
    best = best if errors[best] < (1 - MARGIN) * errors[first] else first
    yield "chosen", solve_again(four[best], known)
    of_all, of_each = (
        min(error for name, error in errors.items() if name.endswith(kind))
        for kind in ("all", "each")
    )
    own = of_each < (1 - MARGIN) * of_all
    mean = solve_averaged(train, choosing, LinearInput(level="mean"), separate=own)
    yield "averaged", solve_again(mean, known)


def summary() -> None:
    """Print the errors over those of the choice."""
    table = pd.read_csv(RESULTS)
    errors = table.pivot_table(
        index=["table", "horizon", "end"], columns="candidate", values="mse", sort=False
    )
    ratios = errors.div(errors["chosen"], axis=0).drop(columns="chosen")
    print(ratios.round(3).to_string())
    print("\ngeometric mean:")
    print(np.exp(np.log(ratios).groupby("table", sort=False).mean()).round(3).to_string())
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
    done = keys_in(RESULTS, ("table", "horizon", "end"))
    for name, (lookback, horizons) in CELLS.items():
        table = load_table(name, data_home=given.data / "long_horizon")
        for horizon in horizons:
            for end in ENDS:
                key = {"table": name, "horizon": str(horizon), "end": str(end)}
                if tuple(key.values()) in done:
                    continue
                values = table.values[: int(table.split.validation_end * end)]
                train, choosing, judging = cut(values, lookback, horizon)
                for candidate, found in candidates(train, choosing):
                    error = error_of(found, judging)
                    row = key | {"candidate": candidate, "mse": f"{error:.5f}"}
                    add_row(RESULTS, row)
                print(name, horizon, end, flush=True)


if __name__ == "__main__":
    main()
