"""Series and a forecaster for tests of engines."""

from typing import Any

import numpy as np
import pandas as pd

from tsm2 import TSM2Forecaster

__all__ = ["forecaster", "in_order", "series"]


def series(*, store: bool = False, extra: str | None = None) -> pd.DataFrame:
    """Return forty series of about sixty days."""
    draw = np.random.default_rng(0)
    parts = []
    for number in range(40):
        rows = 60 - number % 5
        columns: dict[str, Any] = {
            "unique_id": f"s{number:03d}",
            "ds": pd.date_range("2024-01-01", periods=rows, freq="D"),
            "y": draw.normal(size=rows).cumsum() + 50 * number,
        }
        if extra is not None:
            columns[extra] = draw.normal(size=rows)
        if store:
            columns["store"] = "AB"[number % 2]
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def forecaster(**changes: Any) -> TSM2Forecaster:
    """Return one whose mixers take part, as they start at random weights."""
    sizes: dict[str, Any] = {"lookback": 16, "horizon": 4, "features": 4, "random_state": 0}
    return TSM2Forecaster(
        **(sizes | {"linear_start": "random", "max_epochs": 1, "epoch_steps": 2} | changes)
    )


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table sorted by series and time, in the types of pandas."""
    keys = [name for name in ("store", "unique_id", "cutoff", "step", "ds") if name in table]
    return table.sort_values(keys, ignore_index=True)
