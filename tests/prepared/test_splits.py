"""Each series gives its last rows to validation, and no window crosses from one into another."""

import numpy as np
import pytest
import torch

from tsm2.errors import WindowError
from tsm2.prepared.prepared import Prepared
from tsm2.prepared.roles import Roles
from tsm2.prepared.scaling import Scaling
from tsm2.prepared.splits import split_starts, training_rows
from tsm2.prepared.windows import Covariates
from tsm2.tables.read import read
from tsm2.tables.series import Series

LENGTHS = (40, 12, 7, 24)


def panel(lengths: tuple[int, ...] = LENGTHS) -> Series:
    """Series whose values say where they are from: hundreds of the series plus the row."""
    return read([np.arange(n)[:, None] + 100.0 * k for k, n in enumerate(lengths)])


def test_a_series_validates_if_both_parts_hold_a_window() -> None:
    found = training_rows(panel(), lookback=4, horizon=3, validation_fraction=0.25)
    assert found.tolist() == [30, 9, 7, 18]  # 7 rows are one window, and train
    longer = training_rows(panel((40, 12)), lookback=4, horizon=4, validation_fraction=0.25)
    assert longer.tolist() == [30, 12]  # 3 of 12 rows hold no forecast of 4
    deeper = training_rows(panel((40, 12)), lookback=7, horizon=3, validation_fraction=0.25)
    assert deeper.tolist() == [30, 12]  # 9 rows would hold no window of 10


def test_windows_stay_in_their_series() -> None:
    given = panel()
    n_train = np.array([30, 9, 7, 18])
    as_they_are = Scaling(center=np.zeros(1), scale=np.ones(1))
    roles = Roles.of(None, given.layout)
    prepared = Prepared.of(given, as_they_are, roles, Covariates(), lookback=4)
    starts = split_starts(given, n_train, lookback=4, horizon=3)
    train, validation = (prepared.windows(each, 3) for each in starts)
    for windows, counts in ((train, [24, 3, 1, 12]), (validation, [8, 1, 0, 4])):
        batch = windows.gather(torch.arange(len(windows)))
        rows = torch.cat((batch.context, batch.target), dim=-1)[:, 0]  # (W, L + H)
        assert (rows.diff(dim=1) == 1).all()
        series = (rows[:, 0] // 100).long()
        assert torch.bincount(series, minlength=4).tolist() == counts
        assert windows.series is not None
        assert torch.equal(series, windows.series)
        first_target = batch.target[:, 0, 0] % 100
        ends = torch.from_numpy(n_train)[series]
        assert ((first_target >= ends) == (windows is validation)).all()
    assert (train.gather(torch.arange(len(train))).target.amax(2)[:, 0] % 100 < 30).all()


def test_without_validation_all_rows_train() -> None:
    given = panel()
    n_train = training_rows(given, lookback=4, horizon=3, validation_fraction=0.0)
    assert n_train.tolist() == list(LENGTHS)
    assert not len(split_starts(given, n_train, lookback=4, horizon=3)[1])


def test_series_that_are_too_short_are_counted() -> None:
    with pytest.raises(WindowError, match=r"series 1 has 12 rows, .* needs 13 .*, and 1 more"):
        training_rows(panel(), lookback=10, horizon=3, validation_fraction=0.25)


def test_units_of_every_series_are_scikit_learns() -> None:
    values = np.random.default_rng(0).normal(1e6, 3, (50, 2))
    values[20:, 1] = 0.1 + 0.2  # does not move
    offsets = np.array([0, 20, 50])
    units = Scaling.of_each(values, offsets)
    for k, rows in enumerate((values[:20], values[20:])):
        alone = Scaling.of(rows)
        np.testing.assert_allclose(units.center[k], alone.center, rtol=1e-12)
        np.testing.assert_allclose(units.scale[k], alone.scale, rtol=1e-9)
    assert units.scale[1, 1] == 1.0


def test_missing_values_do_not_count_in_the_units() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, 5.0], [10.0, 7.0]])
    units = Scaling.of_each(values, np.array([0, 2, 4]))
    assert units.center.tolist() == [[2, 0], [10, 6]]
    assert units.scale.tolist() == [[1, 1], [1, 1]]
