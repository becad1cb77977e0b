"""Whether columns that lead are found, and what that is worth on rows that chose nothing.

    python benchmarks/leaders.py --data FOLDER          # runs what results/ lacks
    python benchmarks/leaders.py --summary

FOLDER holds `long_horizon/` with the public files. Each fold ends with the validation part of a
table, or at 0.8 of it, so that no test row is read; its last fifth judges, and the fifth of the
rest before that validates. Of Weather the last 16,000 rows before a fold's end are read. Beside the
benchmark's horizons there are short ones, over which what leads reaches furthest. Generated tables,
in which columns follow others, stand for what such a table can be worth.

"plain" is the exact start, "led" the same with leaders, in any case; "validation" is what the
choice sees of the second over the first, of the variates that are led alone, and "taken" whether it
takes them, for which the error must be clearly lower with all variates led. Mean squared errors
over the judging rows, in standard units; "typical" is the geometric mean of the variates' ratios.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from averaged_maps import CELLS
from numpy.typing import NDArray
from refits import errors_of, folds
from rows import keys_in, run_or_show
from selection import gated_lags, leads_and_lags

from tsm2 import TSM2Forecaster

RESULTS = Path(__file__).parent / "results" / "leaders.csv"
SHORT = {
    "ETTh1": (168, (6, 24)),
    "ETTh2": (168, (6, 24)),
    "ETTm1": (192, (6, 24)),
    "ETTm2": (192, (6, 24)),
    "Exchange": (96, (6, 24)),
    "ILI": (52, (4, 12)),
    "Weather": (144, (6, 24)),
}
"""Lookbacks and horizons beside those of the benchmark."""
GENERATED = {"leads and lags": leads_and_lags, "gated lags": gated_lags}


def row_of_fold(values: NDArray[np.float64], lookback: int, horizon: int) -> dict[str, str]:
    """Return what leaders are worth on a fold."""
    known = int(len(values) * 0.8)

    def fitted(leaders: Any) -> TSM2Forecaster:
        model = TSM2Forecaster(lookback, horizon, blocks=0, leaders=leaders, random_state=0)
        return model.fit(values[:known])

    chosen = fitted("auto")
    taken, tried = bool(chosen.network_.config.leaders), chosen.choices_
    row = {"validation": "", "taken": str(taken), "plain": "", "led": "", "typical": ""}
    if "leaders" not in tried:
        return row
    plain, led = (fitted(False), chosen) if taken else (chosen, fitted(True))
    errors = [errors_of(model, values, known) for model in (plain, led)]
    tries, losses = tried["leaders"].notna(), tried["validation_mse"]
    ratio = losses[tries].iloc[0] / losses[~tries].iloc[-1]
    return row | {
        "validation": f"{ratio:.4f}",
        "plain": f"{errors[0].mean():.5f}",
        "led": f"{errors[1].mean():.5f}",
        "typical": f"{np.exp(np.log(errors[1] / errors[0]).mean()):.4f}",
    }


def every_fold(data: Path) -> Iterator[tuple[dict[str, str], NDArray[np.float64], int]]:
    """Yield the folds that results lack: what names each, its rows, and the lookback."""
    done = keys_in(RESULTS, ("table", "horizon", "end"))
    for name, make in GENERATED.items():
        key = {"table": name, "horizon": "24", "end": "1.0"}
        if tuple(key.values()) not in done:
            yield key, make(), 96
    for cells in (SHORT, CELLS):
        yield from folds(data, RESULTS, cells)


def summary() -> None:
    """Print all folds, and what those are worth that are taken."""
    table = pd.read_csv(RESULTS)
    table["judged"] = table["led"] / table["plain"]
    print(table.round(3).to_string(index=False))
    logs, validation = np.log(table[["judged", "typical"]]), table["validation"]
    for told, groups in (
        ("by the error over the validation windows", pd.cut(validation, [0, 0.9, 0.95, 0.97, 2])),
        ("by whether they are taken", table["taken"].where(validation.notna())),
    ):
        by = logs.groupby(groups, observed=True)
        worst = np.exp(by["judged"].max())
        print(f"\n{told}:")
        print(np.exp(by.mean()).assign(worst=worst, folds=by.size()).round(3).to_string())


def rows(data: Path) -> Iterator[dict[str, object]]:
    """Make the rows that are missing."""
    for key, values, lookback in every_fold(data):
        yield key | row_of_fold(values, lookback, int(key["horizon"]))


if __name__ == "__main__":
    run_or_show(__doc__, RESULTS, rows, summary)
