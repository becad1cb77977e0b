"""Whether an exact start should be the mean over a lookback and a multiple of it, and who tells.

    python benchmarks/lookback_means.py --data FOLDER          # runs what results/ lacks
    python benchmarks/lookback_means.py --summary

The folds are cut as those of `averaged_maps.py`, but of Weather 28,000 rows are read, and of ETTm1
all horizons are run; none reads a test row. "once" is the start from the lookback that the
benchmark has, as a fit solves it: the mean of the maps from both levels, with maps of single
variates where they err 3 % less on the choosing rows, half of it from zero where that errs less.
"longer" is the same from two or four times as many rows, "mean" the mean forecast of both. Errors
of the choosing rows are of maps that have not seen them, those of the judging rows of maps solved
again with them.

A forecaster that may read both takes "mean" where it errs less than "once" on the choosing windows
and these are 1,024, four horizons and four lookbacks of them at least. The folds of ETTm1 and ETTm2
have fewer than four times 2,048, the benchmark itself has more.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from averaged_maps import CELLS, Fold, missing_folds
from level_reversion import mean_of_levels
from rows import run_or_show

from tsm2.prepared.windows import Windows
from tsm2.training.ridge import LinearMap, solve_again, solve_from_zero, with_zero
from tsm2.training.simple import error_of

RESULTS = Path(__file__).parent / "results" / "lookback_means.csv"
TRIED = {
    2: CELLS | {"ETTm1": (512, (96, 192, 336, 720))},
    4: {"ETTm1": (512, (96, 192, 336, 720)), "ETTm2": CELLS["ETTm2"]},
}
"""Lookback and horizons by table, for each multiple of the lookback."""
MOST_ROWS = 28_000
"""Of Weather, so that four lookbacks of windows choose."""


def start_of(train: Windows, choosing: Windows, fine: int | None = None) -> LinearMap:
    """Return what a fit with these windows begins with, see `mean_of_levels`."""
    mean = mean_of_levels(train, choosing, fine)
    zero = solve_from_zero(mean, train, choosing)
    many = len(choosing) >= max(1024, 4 * train.horizon)
    reverts = many and error_of(zero, choosing) < error_of(mean, choosing)
    return with_zero(mean, zero) if reverts else mean


def longer(windows: Windows, times: int) -> Windows:
    """Return those windows of the same targets that can read so many times the rows."""
    starts = torch.arange(len(windows)) if windows.starts is None else windows.starts
    starts = starts - (times - 1) * windows.lookback
    return replace(windows, lookback=times * windows.lookback, starts=starts[starts >= 0])


def errors_of(once: LinearMap, other: LinearMap, windows: Windows, times: int) -> list[float]:
    """Return the mean squared errors of two starts, and of their mean, over the same targets."""
    total = torch.zeros(3, dtype=torch.float64)
    for which in windows.batches(256):
        errors = []
        for found, read in ((once, windows), (other, longer(windows, times))):
            x, y = found.linear.read(read.gather(which))
            weights = found.weights.expand(y.shape[1], -1, -1)
            errors.append(torch.einsum("bmd,mdh->bmh", x, weights) - y)
        errors.append((errors[0] + errors[1]) / 2)
        total += torch.stack([each.square().mean((1, 2)).sum() for each in errors])
    return (total / len(windows)).tolist()


def errors_of_fold(fold: Fold, times: int) -> dict[str, str]:
    """Return the errors of a fold, by the rows that they are of."""
    train, choosing, judging = fold
    row = {"windows": str(len(choosing))}
    known = [train, choosing]
    also = [longer(each, times) for each in known]
    starts = start_of(train, choosing), start_of(*also, train.lookback)
    again = solve_again(starts[0], known), solve_again(starts[1], also)
    for part, maps, windows in (("chosen", starts, choosing), ("judged", again, judging)):
        errors = errors_of(*maps, windows, times)
        for name, error in zip(("once", "longer", "mean"), errors, strict=True):
            row[f"{part}_{name}"] = f"{error:.5f}"
    return row


def summary() -> None:
    """Print what judging rows say, of all folds and of those that the rule takes."""
    table = pd.read_csv(RESULTS)
    lookbacks = table["times"] * table["table"].map({name: cell[0] for name, cell in CELLS.items()})
    table["ratio"] = table["judged_mean"] / table["judged_once"]
    enough = table["windows"] >= np.maximum(1024, 4 * np.maximum(table["horizon"], lookbacks))
    table["taken"] = enough & (table["chosen_mean"] < table["chosen_once"])
    print(table.round(3).to_string(index=False))
    for (times, taken), folds in table.groupby(["times", "taken"]):
        ratio = np.exp(np.log(folds["ratio"]).mean())
        name = f"{times} times, {'taken' if taken else 'not taken'}"
        print(f"{name}: {len(folds)} folds, {ratio:.3f}, worst {folds['ratio'].max():.3f}")


def rows(data: Path) -> Iterator[dict[str, object]]:
    """Make the rows that are missing."""
    for times, cells in TRIED.items():
        named = {"times": str(times)}
        for key, fold in missing_folds(data, RESULTS, cells, MOST_ROWS, named):
            yield key | errors_of_fold(fold, times)


if __name__ == "__main__":
    run_or_show(__doc__, RESULTS, rows, summary)
