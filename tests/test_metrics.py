"""Measures of forecasts against figures worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from tsm2.errors import ParameterError
from tsm2.metrics import coverage, mae, mase, mse, quantile_loss, rmsse, smape, wrmsse

ACTUAL = np.array([[1.0, 10.0], [3.0, 20.0]])
FORECAST = np.array([[2.0, 10.0], [1.0, 24.0]])
HISTORY = np.array([[0.0, 5.0], [2.0, 5.0], [0.0, 5.0], [4.0, 5.0]])  # the second never changes


def test_errors_by_hand() -> None:
    assert mse(ACTUAL, FORECAST) == (1 + 4 + 0 + 16) / 4
    assert mae(ACTUAL, FORECAST) == (1 + 2 + 0 + 4) / 4
    assert mae(ACTUAL, FORECAST, axis=0).tolist() == [1.5, 2.0]
    assert mse(ACTUAL, FORECAST, axis=1).tolist() == [0.5, 10.0]
    assert mse(ACTUAL, FORECAST, axis=()).tolist() == [[1, 0], [4, 16]]
    assert smape(ACTUAL, FORECAST) == pytest.approx(100 * (2 / 3 + 4 / 4 + 0 + 8 / 44) / 4)


def test_scaled_errors_divide_by_what_the_naive_forecast_misses() -> None:
    with np.errstate(all="raise"):
        scaled = mase(ACTUAL, FORECAST, HISTORY, axis=0)
    assert scaled[0] == pytest.approx(1.5 / ((2 + 2 + 4) / 3))
    assert np.isnan(scaled[1])
    assert mase(ACTUAL, FORECAST, HISTORY, season=2, axis=0)[0] == pytest.approx(1.5 / 1)
    squared = rmsse(ACTUAL, FORECAST, HISTORY)
    assert squared[0] == pytest.approx(np.sqrt(2.5 / ((4 + 4 + 16) / 3)))
    assert np.isnan(squared[1])
    both = np.array([[0.0, 0.0], [1.0, 2.0]])
    wanted = (3 * np.sqrt(2.5) + np.sqrt(8.0 / 4)) / 4
    assert wrmsse(ACTUAL, FORECAST, both, [3.0, 1.0]) == pytest.approx(wanted)


@pytest.mark.parametrize("season", [0, 4])
def test_a_season_that_the_history_does_not_hold_is_refused(season: int) -> None:
    with pytest.raises(ParameterError, match=f"below the history's 4 rows, got {season}"):
        mase(ACTUAL, FORECAST, HISTORY, season=season)


def test_quantile_loss_by_hand() -> None:
    quantiles = np.stack((FORECAST - 1, FORECAST + 1), axis=-1)
    # Errors below and above: 0 and -2; 1 and -1; 3 and 1; -3 and -5.
    by_hand = np.array(
        [[0 + 2 * 0.2 * 2, 2 * 0.3 + 2 * 0.2], [2 * 0.9 + 2 * 0.8, 2 * 2.1 + 2 * 1.0]]
    )
    losses = quantile_loss(ACTUAL, quantiles, (0.3, 0.8), axis=())
    assert losses.shape == (2, 2)
    assert losses[0, 0] == pytest.approx(by_hand[0, 0] / 2)
    assert losses[0, 1] == pytest.approx(by_hand[0, 1] / 2)
    assert losses[1, 0] == pytest.approx(by_hand[1, 0] / 2)
    assert losses[1, 1] == pytest.approx(by_hand[1, 1] / 2)
    assert quantile_loss(ACTUAL, quantiles, (0.3, 0.8)) == pytest.approx(by_hand.mean() / 2)
    assert quantile_loss(ACTUAL, FORECAST[..., None], (0.5,)) == mae(ACTUAL, FORECAST)


def test_tables_are_compared_by_place_not_by_label() -> None:
    early, late = pd.Series([1.0, 2.0], [0, 1]), pd.Series([2.0, 5.0], [1, 2])
    assert mse(early, late) == (1 + 9) / 2
    assert smape(early, late, axis=()).tolist() == pytest.approx([100 * 2 / 3, 100 * 6 / 7])
    assert coverage(early, early, late, axis=()).tolist() == [1, 1]


def test_bounds_belong_to_the_interval() -> None:
    lower, upper = np.array([1.0, 1.0, 1.0, 1.0]), np.array([2.0, 2.0, 2.0, 2.0])
    assert coverage([1.0, 2.0, 0.9, 2.1], lower, upper) == 0.5
    assert coverage([1.0, 2.0, 0.9, 2.1], lower, upper, axis=()).tolist() == [1, 1, 0, 0]
