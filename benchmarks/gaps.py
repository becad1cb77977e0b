"""How much worse forecasts get when cells of ETTh1 are removed at random.

    python benchmarks/gaps.py

Trains with the benchmark's settings and borders, horizon 96, on the whole training rows and on rows
of which 20 % of the cells are missing, then forecasts every test window from contexts that lack a
share of their cells. Errors are those of all forecasts against the whole table, in standard units.
"mask" and "ffill" are what `missing` says.
"""

import argparse
import csv
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from timing import commit

from tsm2 import TSM2Forecaster
from tsm2.benchmark.settings import load_settings
from tsm2.datasets import borders, load

RESULTS = Path(__file__).parent / "results" / "gaps.csv"
DATASET, HORIZON = "ETTh1", 96
SHARES = (0.0, 0.1, 0.2, 0.4)


def thinned(frame: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Remove a share of the cells; the first row stays, so that gaps have a value before them."""
    gone = np.random.default_rng(seed).random(frame.shape) < share
    gone[0] = False
    return frame.mask(gone)


def errors(model: TSM2Forecaster, known: pd.DataFrame, truth: pd.DataFrame) -> tuple[float, float]:
    """Mean squared and absolute error of the forecasts from what is known, against the truth."""
    table = model.backtest(known)
    cells = truth.columns.get_indexer(table["variate"].astype(str))
    actual = truth.to_numpy()[truth.index.get_indexer(pd.Index(table["time"])), cells]
    away = (table["forecast"].to_numpy() - actual) / model.scaling_.scale[cells]
    return float(np.square(away).mean()), float(np.abs(away).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    frame, split, settings = load(DATASET), borders(DATASET), load_settings(DATASET, "paper")
    history = frame.iloc[: split.validation_end]
    later = frame.iloc[split.validation_end - settings.lookback : split.test_end]
    rows = []
    for missing in ("mask", "ffill"):
        for trained_on in (0.0, 0.2):
            model = TSM2Forecaster(
                settings.lookback,
                HORIZON,
                **settings.at(HORIZON) | {"max_epochs": chosen.epochs},
                validation_fraction=1 - split.train_end / split.validation_end,
                missing=missing,
                random_state=chosen.seed,
            ).fit(thinned(history, trained_on, seed=1))
            for share in SHARES:
                mse, mae = errors(model, thinned(later, share, seed=2), later)
                run = {"dataset": DATASET, "horizon": HORIZON, "lookback": settings.lookback}
                run |= {"missing": missing, "removed_in_training": trained_on, "removed": share}
                run |= {"mse": round(mse, 4), "mae": round(mae, 4), "seed": chosen.seed}
                rows.append(run | {"commit": commit(), "date": date.today().isoformat()})
                print(rows[-1], flush=True)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
