"""Whether an exact start should be the mean over a lookback and twice of it, and who tells.

    python benchmarks/lookback_means.py --data FOLDER          # runs what results/ lacks
    python benchmarks/lookback_means.py --summary

The folds are cut as those of `averaged_maps.py`, but of Weather 28,000 rows are read, and of ETTm1
all horizons are run; none reads a test row. "once" is the start from the lookback that the
benchmark has, as a fit solves it: the mean of the maps from both levels, with maps of single
variates where they err 3 % less on the choosing rows, half of it from zero where that errs less.
"twice" is the same from twice as many rows, "mean" the mean forecast of both. Errors of the
choosing rows are of maps that have not seen them, those of the judging rows of maps solved again
with them.

A forecaster that may read both takes "mean" where it errs less than "once" on the choosing windows
and these are 1,024, four horizons and four lookbacks of them at least.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from averaged_maps import CELLS, Fold, missing_folds
from level_reversion import mean_of_levels
from rows import add_row, folder_given

from tsm2.prepared.windows import Windows
from tsm2.training.ridge import LinearMap, solve_again, solve_from_zero, with_zero
from tsm2.training.simple import error_of

RESULTS = Path(__file__).parent / "results" / "lookback_means.csv"
TRIED = CELLS | {"ETTm1": (512, (96, 192, 336, 720))}
MOST_ROWS = 28_000
"""Of Weather, so that four lookbacks of windows choose."""


def start_of(train: Windows, choosing: Windows) -> LinearMap:
    """Return what a fit with these windows begins with."""
    mean = mean_of_levels(train, choosing)
    zero = solve_from_zero(mean, train, choosing)
    many = len(choosing) >= max(1024, 4 * train.horizon)
    reverts = many and error_of(zero, choosing) < error_of(mean, choosing)
    return with_zero(mean, zero) if reverts else mean


def twice(windows: Windows) -> Windows:
    """Return windows of the same targets that read twice as many rows, where there are so many."""
    starts = torch.arange(len(windows)) if windows.starts is None else windows.starts
    starts = starts - windows.lookback
    return replace(windows, lookback=2 * windows.lookback, starts=starts[starts >= 0])


def errors_of(once: LinearMap, both: LinearMap, windows: Windows) -> list[float]:
    """Return the mean squared errors of two starts, and of their mean, over the same targets."""
    total = torch.zeros(3, dtype=torch.float64)
    for which in windows.batches(256):
        errors = []
        for found, read in ((once, windows), (both, twice(windows))):
            x, y = found.linear.read(read.gather(which))
            weights = found.weights.expand(y.shape[1], -1, -1)
            errors.append(torch.einsum("bmd,mdh->bmh", x, weights) - y)
        errors.append((errors[0] + errors[1]) / 2)
        total += torch.stack([each.square().mean((1, 2)).sum() for each in errors])
    return (total / len(windows)).tolist()


def errors_of_fold(fold: Fold) -> dict[str, str]:
    """Return the errors of a fold, by the rows that they are of."""
    train, choosing, judging = fold
    row = {"windows": str(len(choosing))}
    starts = start_of(train, choosing), start_of(twice(train), twice(choosing))
    again = (
        solve_again(starts[0], [train, choosing]),
        solve_again(starts[1], [twice(train), twice(choosing)]),
    )
    for part, maps, windows in (("chosen", starts, choosing), ("judged", again, judging)):
        for name, error in zip(("once", "twice", "mean"), errors_of(*maps, windows), strict=True):
            row[f"{part}_{name}"] = f"{error:.5f}"
    return row


def summary() -> None:
    """Print what judging rows say, of all folds and of those that the rule takes."""
    table = pd.read_csv(RESULTS)
    lookbacks = 2 * table["table"].map({name: cell[0] for name, cell in TRIED.items()})
    table["ratio"] = table["judged_mean"] / table["judged_once"]
    enough = table["windows"] >= np.maximum(1024, 4 * np.maximum(table["horizon"], lookbacks))
    table["taken"] = enough & (table["chosen_mean"] < table["chosen_once"])
    print(table.round(3).to_string(index=False))
    for name, folds in (("taken", table[table["taken"]]), ("others", table[~table["taken"]])):
        ratio = np.exp(np.log(folds["ratio"]).mean())
        print(f"{name}: {len(folds)} folds, {ratio:.3f}, worst {folds['ratio'].max():.3f}")


def main() -> None:
    """Run what is missing, or print what is there."""
    data = folder_given(__doc__ or "")
    if data is None:
        summary()
        return
    for key, fold in missing_folds(data, RESULTS, TRIED, MOST_ROWS):
        add_row(RESULTS, key | errors_of_fold(fold))


if __name__ == "__main__":
    main()
