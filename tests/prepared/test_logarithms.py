"""Which columns are measured in logarithms: those that swing the wider the higher they are."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tsm2.datasets import load_sample
from tsm2.prepared.logarithms import in_logarithms
from tsm2.tables.read import read

Shape = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]

SHAPES: dict[str, tuple[bool, Shape]] = {
    "growth by a share": (True, lambda level, swing: level * np.exp(swing)),
    "swings as wide everywhere": (False, lambda level, swing: level + 300 * swing),
    "a level that stays": (False, lambda _, swing: 100 * np.exp(swing)),
    "values below zero": (False, lambda level, swing: level * np.exp(swing) - 100),
    "swings that shrink": (False, lambda level, swing: level + 3e4 * swing / level),
}


def table(n: int = 120, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    t = np.arange(n)
    level = 100 * np.exp(0.01 * t)
    swing = 0.2 * np.sin(2 * np.pi * t / 12) + 0.05 * rng.normal(size=n)
    index = pd.date_range("2010-01-01", periods=n, freq="MS")
    return pd.DataFrame({name: shape(level, swing) for name, (_, shape) in SHAPES.items()}, index)


@pytest.mark.parametrize("power", [0, 700, -700])
def test_columns_whose_swings_grow_with_their_level_are(power: int) -> None:
    found = in_logarithms(read(table() * 2.0**power), 12)
    assert found.tolist() == [wanted for wanted, _ in SHAPES.values()]


@pytest.mark.parametrize("season", [None, 100], ids=["none", "longer than the rows tell"])
def test_without_a_season_short_blocks_tell(season: int | None) -> None:
    rng = np.random.default_rng(0)
    t, noise = np.arange(160), rng.normal(size=160)
    columns = {"share": np.exp(0.01 * t + 0.3 * noise), "same": 10 + 0.05 * t + noise}
    index = pd.date_range("2010-01-01", periods=160, freq="YS")
    assert in_logarithms(read(pd.DataFrame(columns, index)), season).tolist() == [True, False]


def test_gaps_leave_out_their_blocks_and_few_rows_tell_nothing() -> None:
    series = read(table())
    values = series.values.copy()
    values[20:23] = np.nan
    found = in_logarithms(replace(series, values=values), 12)
    assert found.tolist() == [wanted for wanted, _ in SHAPES.values()]
    assert not in_logarithms(replace(series, values=np.nan * values), 12).any()
    assert not in_logarithms(read(table(20)), 12).any()


def test_several_series_speak_together_each_of_its_own_level() -> None:
    """Levels that differ between series alone say nothing of how a series swings."""
    still = [100 * 5.0**k * (1 + 0.02 * np.sin(np.arange(96) + k)) for k in range(8)]
    grown = [k * table(96, seed=k)["growth by a share"].to_numpy() for k in range(1, 9)]
    for columns, wanted in ((still, False), (grown, True)):
        rows = [
            pd.DataFrame({"y": each}, pd.date_range("2010", periods=96, freq="MS"))
            for each in columns
        ]
        assert in_logarithms(read(dict(enumerate(rows))), 12).tolist() == [wanted]


def test_a_season_that_nobody_told_of_is_no_level_that_moves() -> None:
    """Hours of the sample under numbered rows: days rise and fall, and swing more at noon."""
    frame = load_sample(200)
    for each, season in ((frame, 24), (frame.reset_index(drop=True), None)):
        assert not in_logarithms(read(each), season).any()


def test_halves_of_few_seasons_tell_what_the_seasons_do_not() -> None:
    t, noise = np.arange(48), np.random.default_rng(0).normal(size=48)
    level, swing = 100 * np.exp(0.03 * t), 0.2 * np.sin(2 * np.pi * t / 12) + 0.02 * noise
    columns = {"share": level * np.exp(swing), "same": 100 + 6 * t + 100 * swing}
    index = pd.date_range("2010-01-01", periods=48, freq="MS")
    assert in_logarithms(read(pd.DataFrame(columns, index)), 12).tolist() == [True, False]


def test_what_swings_the_most_in_high_weeks_of_every_year_is_left_as_it_is() -> None:
    """Winters are high and wild, in high years no wilder than in low ones."""
    rng = np.random.default_rng(0)
    year, week = np.divmod(np.arange(8 * 52), 52)
    winter = np.exp(-(((week - 13) / 7) ** 2))
    height = rng.uniform(0.3, 1.5, 8)[year]
    demand = 200 + 400 * height + 600 * winter + (10 + 90 * winter) * rng.normal(size=416)
    frame = pd.DataFrame({"load": demand}, pd.date_range("2002", periods=416, freq="W"))
    assert in_logarithms(read(frame), 52).tolist() == [False]
