"""What the rows that chose are worth to a fit afterwards, by whether its mixers were kept.

    python benchmarks/refits.py --data FOLDER          # runs what results/ lacks
    python benchmarks/refits.py --summary

FOLDER holds `long_horizon/` with the public files. Each fold ends with the validation part of a
table, or at 0.8 of it, so that no test row is read; its last fifth judges, and the fifth of the
rest before that validates. Of Weather the last 16,000 rows before a fold's end are read.

"start" is the exact start alone, "trained" the network that errs least on the validation rows,
though it be by less than `start_margin`; "again" is either with `refit_linear`. A trained network
is no worse for it where "trained_again" is below "trained" as "start_again" is below "start".
"unbounded" is the trained network whose mixers add as much as they like (decision 24).
Mean squared errors over the judging rows, in standard units; "gain" is the share by which the
trained network errs less than the start on the validation rows.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from averaged_maps import CELLS, ENDS, MOST_ROWS
from numpy.typing import NDArray
from rows import keys_in, run_or_show

from tsm2 import TSM2Forecaster
from tsm2.benchmark.protocol import load_table
from tsm2.training.bounds import lift_bounds

RESULTS = Path(__file__).parent / "results" / "refits.csv"
STRIDE = 7
"""Rows from one judged forecast to the next."""


def errors_of(
    model: TSM2Forecaster, values: NDArray[np.float64], known: int
) -> NDArray[np.float64]:
    """Return the errors after the known rows of each variate, (M,), in standard units."""
    lookback, horizon = model.fitted_.lookback, model.horizon
    spans = np.lib.stride_tricks.sliding_window_view(values, lookback + horizon, 0)
    spans = spans[known - lookback :: STRIDE].transpose(0, 2, 1)  # (W, L + H, M)
    errors = model.forecast_contexts(spans[:, :lookback], horizon) - spans[:, lookback:]
    return np.square(errors / values[:known].std(0).clip(min=1e-9)).mean((0, 1))


def errors_of_fold(values: NDArray[np.float64], lookback: int, horizon: int) -> dict[str, str]:
    """Return the errors of a start and of a trained network, with and without the rows again."""
    known = int(len(values) * 0.8)
    row, errors = {}, {}
    for name, blocks in (("start", 0), ("trained", 1)):
        with TemporaryDirectory() as folder:  # the second fit goes on from the end of the first
            for refit in (False, True):
                model = TSM2Forecaster(
                    lookback,
                    horizon,
                    blocks=blocks,
                    start_margin=0.0,
                    refit_linear=refit,
                    random_state=0,
                ).fit(values[:known], checkpoint=folder)
                key = f"{name}_again" if refit else name
                errors[key] = f"{errors_of(model, values, known).mean():.5f}"
                if key == "trained":
                    network = model.fitted_.network
                    lift_bounds(network)  # the next fit makes its own
                    errors["unbounded"] = f"{errors_of(model, values, known).mean():.5f}"
        losses = model.history_["validation_loss"]
        row["gain"] = f"{1 - losses.min() / losses.iloc[0]:.4f}"
    return row | errors


def folds(
    data: Path, results: Path, cells: Mapping[str, tuple[int, tuple[int, ...]]]
) -> Iterator[tuple[dict[str, str], NDArray[np.float64], int]]:
    """Yield the folds of cells that results lack: what names each, its rows, and the lookback."""
    done = keys_in(results, ("table", "horizon", "end"))
    for name, (lookback, horizons) in cells.items():
        table = load_table(name, data_home=data / "long_horizon")
        for horizon in horizons:
            for end in ENDS:
                key = {"table": name, "horizon": str(horizon), "end": str(end)}
                if tuple(key.values()) not in done:
                    values = table.values[: int(table.split.validation_end * end)]
                    yield key, values[-MOST_ROWS:] if name == "Weather" else values, lookback
                    print(*key.values(), flush=True)


def summary() -> None:
    """Print what it is worth to starts and to trained networks."""
    table = pd.read_csv(RESULTS)
    for name in ("start", "trained"):
        table[f"{name}: again"] = table[f"{name}_again"] / table[name]
    print(table.round(3).to_string(index=False))
    beaten = table[table["gain"] > 0]
    for name in ("start: again", "trained: again"):
        ratio = np.exp(np.log(beaten[name]).mean())
        print(f"{name}: {len(beaten)} folds, {ratio:.4f}, worst {beaten[name].max():.3f}")
    over_start = np.log(beaten[["unbounded", "trained"]].div(beaten["start"], axis=0))
    by_gain = over_start.groupby(pd.cut(beaten["gain"], [0, 0.01, 0.02, 1]), observed=True)
    print("\nover the start, by what training gained on the validation rows:")
    print(np.exp(by_gain.mean()).assign(folds=by_gain.size()).round(3).to_string())


def rows(data: Path) -> Iterator[dict[str, object]]:
    """Make the rows that are missing."""
    for key, values, lookback in folds(data, RESULTS, CELLS):
        yield key | errors_of_fold(values, lookback, int(key["horizon"]))


if __name__ == "__main__":
    run_or_show(__doc__, RESULTS, rows, summary)
