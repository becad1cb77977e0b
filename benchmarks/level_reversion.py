"""Where half of the exact start should count from the mean of the training rows, and who tells.

    python benchmarks/level_reversion.py --data FOLDER          # runs what results/ lacks
    python benchmarks/level_reversion.py --summary

The folds are those of `averaged_maps.py`, none of which reads a test row: the rows before those
that judge choose, the rest trains. "mean" is the mean of the maps from both levels, "zero" the map
of the values themselves, which come back to 0, "reverts" the mean of these two. Maps of single
variates are in them where they err 3 % less on the choosing rows. Errors of the choosing rows are
of maps that have not seen them, those of the judging rows of maps solved again with them.

A forecaster takes "reverts" where "zero" errs less than "mean" on 1,024 choosing windows, and four
horizons of them, at least.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from averaged_maps import MARGIN, missing_folds
from rows import run_or_show

from tsm2.prepared.windows import Windows
from tsm2.training.moments import LinearInput
from tsm2.training.ridge import (
    LinearMap,
    solve_again,
    solve_averaged,
    solve_from_zero,
    with_zero,
)
from tsm2.training.simple import error_of

RESULTS = Path(__file__).parent / "results" / "level_reversion.csv"


def mean_of_levels(train: Windows, choosing: Windows, fine: int | None = None) -> LinearMap:
    """Return the mean of the maps from both levels, of single variates where they err less.

    Of very many rows at least the last `fine` are read one by one; None for all.
    """
    own = [
        solve_averaged(train, choosing, LinearInput(level="mean", fine=fine), separate=separate)
        for separate in (False, True)
    ]
    lowest = [min(part.error or np.inf for part in found.parts) for found in own]
    return own[int(lowest[1] < (1 - MARGIN) * lowest[0])]


def errors_of_fold(train: Windows, choosing: Windows, judging: Windows) -> dict[str, str]:
    """Return the errors of a fold, by the rows that they are of."""
    mean = mean_of_levels(train, choosing)
    zero = solve_from_zero(mean, train, choosing)
    reverts = with_zero(mean, zero)
    known = [train, choosing]

    def again(found: LinearMap) -> str:
        return f"{error_of(solve_again(found, known), judging):.5f}"

    return {
        "windows": str(len(choosing)),
        "chosen_mean": f"{error_of(mean, choosing):.5f}",
        "chosen_zero": f"{error_of(zero, choosing):.5f}",
        "judged_mean": again(mean),
        "judged_reverts": again(reverts),
    }


def summary() -> None:
    """Print what judging rows say, of all folds and of those that the rule takes."""
    table = pd.read_csv(RESULTS)
    table["ratio"] = table["judged_reverts"] / table["judged_mean"]
    enough = table["windows"] >= np.maximum(1024, 4 * table["horizon"])
    table["taken"] = enough & (table["chosen_zero"] < table["chosen_mean"])
    print(table.round(3).to_string(index=False))
    for name, folds in (("taken", table[table["taken"]]), ("all", table)):
        ratio = np.exp(np.log(folds["ratio"]).mean())
        print(f"{name}: {len(folds)} folds, {ratio:.3f}, worst {folds['ratio'].max():.3f}")


def rows(data: Path) -> Iterator[dict[str, object]]:
    """Make the rows that are missing."""
    for key, fold in missing_folds(data, RESULTS):
        yield key | errors_of_fold(*fold)


if __name__ == "__main__":
    run_or_show(__doc__, RESULTS, rows, summary)
