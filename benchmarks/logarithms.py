"""What measuring columns in logarithms is worth on weeks of influenza, ILI, judged by no test row.

    python benchmarks/logarithms.py --data FOLDER        # of the long-horizon tables

The exact linear start reads 104 weeks and is fitted to the rows before each of three cuts, with
weekly stamps as a user's have them; all windows of the two years behind the cut judge it. Squared
errors are in units of the rows' deviations before the first cut.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from tsm2 import TSM2Forecaster
from tsm2.benchmark.protocol import load_table
from tsm2.errors import FloorWarning

LOOKBACK = 104
HORIZONS = (24, 36, 48, 60)
YEARS = 2
CUTS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore", FloorWarning)
    table = load_table("ILI", data_home=options.data)
    rows = table.values[: table.split.validation_end]
    stamps = pd.date_range("2002-01-01", periods=len(rows), freq="W-TUE")
    frame = pd.DataFrame(rows, stamps).rename(columns=str)
    judged = 52 * YEARS
    cuts = [len(frame) - judged * back for back in range(CUTS, 0, -1)]
    unit = frame[: cuts[0]].std()
    print("rows", "horizon", "none", "auto", "all", "columns that auto takes", sep="\t")
    for cut in cuts:
        for horizon in HORIZONS:
            how: dict[str, Any] = {"random_state": 0, "blocks": 0}
            errors = []
            for logarithms in (False, "auto", True):
                model = TSM2Forecaster(LOOKBACK, horizon, logarithms=logarithms, **how)
                model.fit(frame[:cut])
                known = frame[: cut + judged]
                found = model.backtest(known, start=stamps[cut], stride=1)
                away = (found["forecast"] - found["actual"]) / found["variate"].astype(str).map(
                    unit
                )
                errors.append(f"{float((away**2).mean()):.4f}")
                if logarithms == "auto":
                    taken = model.choices_.get("logarithms", pd.Series([()])).iloc[0]
            print(cut, horizon, *errors, taken, sep="\t", flush=True)


if __name__ == "__main__":
    main()
