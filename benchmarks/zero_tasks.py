"""What a forecast before any fit is measured on: the tables, their windows, and the two halves.

The halves were named before the first forecast was measured. CHOICES may be looked at as often as
one likes: generator, sizes and rules are chosen by them. READ_ONCE is measured once, at the end.
None of the tables was ever trained on.

Every table gives histories of at most 512 rows, each variate as a series of its own, and the rows
after them. A table with many rows gives windows that are evenly spread over its test rows: not
every one, so that rivals which fit each window anew can be measured on the same ones.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CHOICES = ("AirPassengers", "ausbeer", "ice_cream_heater", "exchange_rate", "ETTh1", "ETTm1")
READ_ONCE = (
    *("M4 Hourly", "monthly-milk", "australian_tourism", "heart_rate"),
    *("ETTh2", "ETTm2", "Weather"),
)
LOOKBACK = 512

_MONTHLY = {"AirPassengers", "ice_cream_heater", "monthly-milk"}
_ORIGINS = 20  # of a long table


@dataclass(frozen=True, kw_only=True)
class Task:
    """Histories with what came after them."""

    name: str
    frequency: str | None
    """As pandas calls it; None for rows without stamps."""
    season: int
    """Rows of the season that MASE and the seasonal naive forecast go by; 1 for none."""
    histories: list[NDArray[np.float64]]
    """One per series and window."""
    actual: NDArray[np.float64]
    """(N, H)."""
    scale: NDArray[np.float64]
    """Mean absolute difference over a season in all rows before the windows, (N,)."""
    groups: NDArray[np.int64]
    """Number of the window, (N,): variates of one window are forecast together."""
    tables: list[NDArray[np.float64]]
    """All rows before each window, (T, M): for what is fitted to a table once."""


def tasks(names: tuple[str, ...], folder: Path) -> Iterator[Task]:
    """Read the tables of these names from the folder of the data."""
    for name in names:
        yield _m4(folder) if name == "M4 Hourly" else _table(name, folder)


def _m4(folder: Path) -> Task:
    train, test = (
        [
            np.array([float(cell) for cell in row[1:] if cell])
            for row in list(csv.reader((folder / f"short_horizon/m4/Hourly-{part}.csv").open()))[1:]
        ]
        for part in ("train", "test")
    )
    return Task(
        name="M4 Hourly",
        frequency="h",
        season=24,
        histories=[each[-LOOKBACK:] for each in train],
        actual=np.stack(test),
        scale=np.array([np.abs(each[24:] - each[:-24]).mean() for each in train]),
        groups=np.arange(len(train)),
        tables=[each[:, None] for each in train],
    )


def _table(name: str, folder: Path) -> Task:
    values, frequency, season, horizon, origins = _read(name, folder)
    histories, actual, scale, groups = [], [], [], []
    first = origins[0]
    for number, origin in enumerate(origins):
        for k in range(values.shape[1]):
            histories.append(values[max(0, origin - LOOKBACK) : origin, k])
            actual.append(values[origin : origin + horizon, k])
            known = values[:first, k]
            scale.append(np.abs(known[season:] - known[:-season]).mean())
            groups.append(number)
    return Task(
        name=name,
        frequency=frequency,
        season=season,
        histories=histories,
        actual=np.stack(actual),
        scale=np.array(scale),
        groups=np.array(groups),
        tables=[values[:origin] for origin in origins],
    )


def _read(
    name: str, folder: Path
) -> tuple[NDArray[np.float64], str | None, int, int, NDArray[np.int64]]:
    """Return values, (T, M), frequency, season, horizon, and the first rows of the windows."""
    if name == "Weather":
        frame = pd.read_csv(folder / "long_horizon/weather/weather.csv", encoding_errors="replace")
        values = frame.iloc[:, 1:].to_numpy(float)
        n = len(values)
        return values, "10min", 144, 96, _spread(n - int(0.2 * n), n, 96)
    if name.startswith("ETT"):
        frame = pd.read_csv(folder / f"long_horizon/ETT-small/{name}.csv")
        per_hour = 4 if "m" in name else 1
        month = 30 * 24 * per_hour
        values = frame.iloc[:, 1:].to_numpy(float)
        frequency, season = ("15min", 96) if per_hour == 4 else ("h", 24)
        return values, frequency, season, 96, _spread(16 * month, 20 * month, 96)
    frame = pd.read_csv(folder / f"small/{name}.csv")
    values = frame.select_dtypes("number").to_numpy(float)
    n = len(values)
    if name in _MONTHLY:
        return values, "MS", 12, 12, np.arange(n - 60, n - 11, 6)
    if name == "ausbeer":
        return values, "QS", 4, 8, np.arange(n - 40, n - 7, 4)
    if name == "australian_tourism":
        return values, "QS", 4, 8, np.array([n - 12, n - 8])
    horizon = 30 if name == "exchange_rate" else 60
    return values, None, 1, horizon, _spread(int(0.8 * n), n, horizon)


def _spread(first: int, end: int, horizon: int) -> NDArray[np.int64]:
    return np.linspace(first, end - horizon, _ORIGINS).astype(np.int64)
