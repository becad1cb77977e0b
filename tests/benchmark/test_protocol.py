"""The protocol counts every window, scales by the training rows, and lets contexts reach back."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tsm2.benchmark.baselines import RepeatLast
from tsm2.benchmark.protocol import (
    RULES,
    Table,
    count_windows,
    dataset_name,
    horizons_of,
    load_table,
    measure_errors,
)
from tsm2.benchmark.settings import load_settings
from tsm2.datasets import Split, names
from tsm2.errors import DatasetError, ParameterError, TrainingError, WindowError

GOLDEN = Path(__file__).with_name("windows.csv")


def golden() -> list[dict[str, str]]:
    with GOLDEN.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def small_table() -> Table:
    """Twenty rows of two variates: 10 train, 4 validate, 6 test."""
    rows = np.arange(20.0)
    return Table(
        name="small",
        values=np.stack((rows, rows**2), axis=1),
        split=Split(10, 14, 20),
        season=4,
    )


def test_the_golden_file_has_every_dataset_and_horizon() -> None:
    wanted = {
        (name, str(load_settings(name, "paper").lookback), str(horizon))
        for name in names()
        for horizon in horizons_of(name)
    }
    assert {(row["dataset"], row["lookback"], row["horizon"]) for row in golden()} == wanted
    assert len(golden()) == 40


@pytest.mark.parametrize("row", golden(), ids=lambda row: f"{row['dataset']}-{row['horizon']}")
def test_windows_are_counted_as_published(row: dict[str, str]) -> None:
    counts = count_windows(
        row["dataset"], lookback=int(row["lookback"]), horizon=int(row["horizon"])
    )
    wanted = tuple(int(row[part]) for part in ("train", "validation", "test"))
    assert (counts.train, counts.validation, counts.test) == wanted


def test_a_file_has_the_rows_that_the_counts_follow_from() -> None:
    if "TSM2_DATA_HOME" not in os.environ:
        pytest.skip("needs the file of ETTh1 in TSM2_DATA_HOME")
    table = load_table("ETTh1")
    assert table.values.shape == (14400, 7)
    assert table.season == 24
    errors = measure_errors(RepeatLast(), table, lookback=512, horizon=96)
    assert (errors.n_windows, round(errors.mse, 5)) == (2785, 1.29437)


def test_errors_agree_with_a_loop_over_windows() -> None:
    table = small_table()
    errors = measure_errors(RepeatLast(), table, lookback=5, horizon=3)
    deviation = table.values[:10].std(axis=0)
    each = []
    for first in range(14, 18):  # the first context reaches back to row 9
        last, actual = table.values[first - 1], table.values[first : first + 3]
        each.append((last - actual) / deviation)
    wanted = np.stack(each)  # (W, H, M)
    assert errors.n_windows == 4
    np.testing.assert_allclose(errors.squared, (wanted**2).mean(axis=(0, 2)))
    np.testing.assert_allclose(errors.absolute, abs(wanted).mean(axis=(0, 2)))
    assert errors.mse == pytest.approx((wanted**2).mean())
    assert errors.mae == pytest.approx(abs(wanted).mean())


def test_batches_lose_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    table = load_table("sample")
    whole = measure_errors(RepeatLast(), table, lookback=48, horizon=24)
    monkeypatch.setattr("tsm2.benchmark.protocol._CELLS", 7 * 5 * 72)  # 7 windows a batch
    parts = measure_errors(RepeatLast(), table, lookback=48, horizon=24)
    assert parts.n_windows == whole.n_windows == 480 - 24 + 1
    np.testing.assert_allclose(parts.squared, whole.squared)


class _Wrong:
    """Forecasts one step, or what is not finite."""

    def __init__(self, value: float, horizon: int) -> None:
        self.value, self.horizon = value, horizon

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        return np.full((len(contexts), self.horizon, contexts.shape[2]), self.value)


def test_wrong_forecasts_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"shape \(4, 1, 2\), but \(4, 3, 2\)"):
        measure_errors(_Wrong(0.0, 1), small_table(), lookback=5, horizon=3)
    with pytest.raises(TrainingError, match="NaN or infinite"):
        measure_errors(_Wrong(np.nan, 3), small_table(), lookback=5, horizon=3)


def test_names_and_sizes_that_cannot_be() -> None:
    assert dataset_name("WEATHER") == "Weather"
    with pytest.raises(DatasetError, match="ETTh1"):
        dataset_name("ETTh11")
    with pytest.raises(WindowError, match="needs 832"):
        count_windows("ILI", lookback=112, horizon=720)


def test_every_rule_names_its_source() -> None:
    assert all(rule.about and rule.says and rule.source for rule in RULES)
