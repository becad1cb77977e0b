"""What it is worth that each series' errors count in units of its own seasonal naive error.

    python benchmarks/scaled_errors.py --data FOLDER      # runs what results/ lacks
    python benchmarks/scaled_errors.py --summary

FOLDER is that of `defaults.py`. Its tables of several columns are read as series of their own here;
"M4 hourly, 207" and "... rest" are the two halves of M4's hourly series with their official test
rows, of which the first is for development and the second was read once, at the end.

Every fit is that of the rows before the last two horizons, and before the last one (M4: of the
training rows). MASE is the mean over series, "validation" the mean absolute scaled error of the
choice over that of the plain one on validation rows.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from defaults import TASKS, load, long
from rows import add_row, folder_given, keys_in

from tsm2 import TSM2Forecaster

RESULTS = Path(__file__).parent / "results" / "scaled_errors.csv"
PANELS = ("short panel", "M4 hourly", "tourism", "macro", "US change", "exchange", "electricity",
          "leads and lags")  # fmt: skip
HALVES = {"M4 hourly, 207": slice(0, 207), "M4 hourly, rest": slice(207, None)}
_SEASON = 24  # of M4's hourly series
Cut = tuple[dict[str, pd.Series], dict[str, np.ndarray]]
"""The rows of each series that are known, and those that came after them."""


def m4(folder: Path, which: slice) -> Cut:
    """Return the training rows of some hourly series, and what came after them."""
    found = []
    for part in ("train", "test"):
        with (folder / f"short_horizon/m4/Hourly-{part}.csv").open() as file:
            rows = list(csv.reader(file))[1:][which]
        found.append({row[0]: np.array([float(cell) for cell in row[1:] if cell]) for row in rows})
    known, later = found
    return {
        name: pd.Series(values, pd.date_range("2015-01-01", periods=len(values), freq="h"))
        for name, values in known.items()
    }, later


def judge(
    known: dict[str, pd.Series], later: dict[str, np.ndarray], season: int, **given: Any
) -> tuple[float, float]:
    """Return the mean scaled error of a fit, and that of its choice over the plain one's."""
    horizon = len(next(iter(later.values())))
    how: dict[str, Any] = {"horizon": horizon, "random_state": 0, "device": "cpu", **given}
    model = TSM2Forecaster(**how).fit(long(known))
    errors = []
    for name, forecast in model.predict().reset_index().groupby("unique_id"):
        values = known[str(name)].to_numpy()
        scale = np.abs(values[season:] - values[:-season]).mean()
        if scale > 0:
            error = np.abs(forecast["y"].to_numpy() - later[str(name)]).mean()
            errors.append(error / scale)
    judged = model.choices_["validation_scaled_error"].dropna().to_numpy()
    return float(np.mean(errors)), float(judged[-1] / judged[0]) if len(judged) > 1 else np.nan


def panels(folder: Path) -> dict[str, tuple[int, list[Cut]]]:
    """Return of each panel its season, and what is known and what came later, by cutoff."""
    found: dict[str, tuple[int, list[Cut]]] = {}
    for task in TASKS:
        if task.name in PANELS:
            series, h = load(task, folder), task.horizon
            cuts = [
                ({name: each.iloc[: -h * back] for name, each in series.items()},
                 {name: each.iloc[len(each) - h * back :][:h].to_numpy()
                  for name, each in series.items()})
                for back in (2, 1)
            ]  # fmt: skip
            found[task.name] = task.season, cuts
    for name, which in HALVES.items():
        found[name] = _SEASON, [m4(folder, which)]
    return found


def main() -> None:
    """Run what is missing, or print what is there."""
    data = folder_given(__doc__ or "")
    if data is None:
        table = pd.read_csv(RESULTS)
        where = ["panel", "blocks"]
        print(table.pivot_table(index=where, columns="scaled_errors", values="mase", sort=False))
        return
    done = keys_in(RESULTS, ("panel", "blocks", "scaled_errors", "cutoff"))
    for name, (season, cuts) in panels(data).items():
        for blocks in ("0", "default") if name in HALVES else ("0",):
            for scaled in ("auto", "True", "False"):
                for number, (known, later) in enumerate(cuts):
                    key = {"panel": name, "blocks": blocks, "scaled_errors": scaled}
                    key["cutoff"] = str(number)
                    if tuple(key.values()) in done:
                        continue
                    how: dict[str, Any] = {} if blocks == "default" else {"blocks": 0}
                    how["scaled_errors"] = {"True": True, "False": False}.get(scaled, scaled)
                    mase, validation = judge(known, later, season, **how)
                    row = {"mase": f"{mase:.4f}", "validation": f"{validation:.3f}"}
                    add_row(RESULTS, key | row)
                    print(*key.values(), *row.values(), flush=True)


if __name__ == "__main__":
    main()
