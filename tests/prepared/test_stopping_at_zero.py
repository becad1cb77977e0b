"""Which variates stop at zero: those that come to it again and again, and never go on."""

import numpy as np
import pandas as pd
import pytest

from tsm2.prepared.nonnegative import stop_at_zero
from tsm2.tables.read import read


def counts(rate: float, rows: int = 400) -> np.ndarray:
    return np.random.default_rng(0).poisson(rate, rows).astype(float)


@pytest.mark.parametrize(
    ("column", "stops"),
    [
        (counts(2.0), True),
        (counts(30.0), False),  # never there
        (-counts(2.0), False),
        (counts(2.0) - 1e-9 * (np.arange(400) == 7), False),  # once below it
        (np.where(np.arange(400) < 19, 0.0, 5.0), False),  # 19 of 400 are less than a twentieth
        (np.where(np.arange(400) < 20, 0.0, 5.0), True),
        (np.where(np.arange(30) < 9, 0.0, 5.0), False),  # nine are few, however large their share
        (np.where(np.arange(30) < 10, 0.0, 5.0), True),
        (np.zeros(40), True),
        (np.where(np.arange(400) < 360, np.nan, np.arange(400) % 2), True),  # half of what is known
        (np.append(np.full(40, np.nan), 1.0), False),
    ],
    ids=[
        *("counts", "large counts", "negative", "once below", "rare", "often"),
        *("few", "enough", "zeros", "gaps", "unknown"),
    ],
)
def test_a_variate_stops_where_it_is_often_and_never_beyond(
    column: np.ndarray, stops: bool
) -> None:
    index = pd.date_range("2024-01-01", periods=len(column), freq="h")
    frame = pd.DataFrame({"other": np.arange(len(column)) - 5.0, "column": column}, index)
    assert stop_at_zero(read(frame, missing="mask")).tolist() == [False, stops]


def test_several_series_speak_together() -> None:
    index = pd.date_range("2024-01-01", periods=40, freq="h")
    tables = {name: pd.DataFrame({"a": counts(2.0, 40)}, index) for name in "xyz"}
    assert stop_at_zero(read(tables)).tolist() == [True]
    tables["z"].iloc[3] = -1.0
    assert stop_at_zero(read(tables)).tolist() == [False]
    few = {name: table.clip(lower=1) for name, table in tables.items()}
    for table in few.values():
        table.iloc[:4] = 0.0  # twelve of them all
    assert stop_at_zero(read(few)).tolist() == [True]
