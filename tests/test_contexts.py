"""Forecasts of contexts without stamps: none reads what is not its own."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tsm2 import TSM2Forecaster
from tsm2.errors import FrameError, ParameterError, TSM2Error, WindowError

SIZES: dict[str, Any] = {"lookback": 24, "horizon": 6, "blocks": 0, "random_state": 0}


def walks(rows: int = 160, columns: int = 2) -> NDArray[np.float64]:
    return np.cumsum(np.random.default_rng(3).normal(size=(rows, columns)), axis=0)


def cut(rows: int, count: int = 5) -> NDArray[np.float64]:
    return np.stack([walks()[k * 7 : k * 7 + rows] for k in range(count)])


@pytest.mark.parametrize("levels", [None, (0.1, 0.5, 0.9)])
@pytest.mark.parametrize("rows", [1, 10, 24, 40])
def test_short_contexts_are_masked_in_front_and_long_ones_cut(
    rows: int, levels: tuple[float, ...] | None
) -> None:
    model = TSM2Forecaster(**SIZES, missing="mask", quantiles=levels).fit(walks())
    short = cut(rows)
    whole = np.full((len(short), 24, 2), np.nan)
    whole[:, -rows:] = short[:, -24:]
    together = model.forecast_contexts(short, 9)
    np.testing.assert_allclose(together, model.forecast_contexts(whole, 9), atol=1e-5)
    alone = np.concatenate([model.forecast_contexts(each[None], 9) for each in short])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    if levels:
        quantiles = model.forecast_quantiles(short, 6, levels)
        np.testing.assert_allclose(quantiles, model.forecast_quantiles(whole, 6, levels), atol=1e-5)


def test_a_pretrained_network_takes_short_contexts_for_what_they_are() -> None:
    model = TSM2Forecaster.from_pretrained("zero", season=12, device="cpu").fit(walks())
    contexts = cut(60)
    together = model.forecast_contexts(contexts, 6)
    alone: Any = [model.predict(each, horizon=6) for each in contexts]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-4, atol=1e-4)


def test_gaps_are_filled_within_a_context() -> None:
    model = TSM2Forecaster(**SIZES, missing="ffill").fit(walks())
    whole = cut(24)
    whole[:, 10] = whole[:, 9]
    gaps = whole.copy()
    gaps[:, 10] = np.nan
    np.testing.assert_array_equal(
        model.forecast_contexts(gaps, 6), model.forecast_contexts(whole, 6)
    )
    gaps[1, 0, 0] = np.nan  # nothing stands before it, least of all the context before
    with pytest.raises(FrameError, match="there is none at the start"):
        model.forecast_contexts(gaps, 6)


@pytest.mark.parametrize("missing", ["raise", "ffill"])
def test_what_is_too_short_is_refused(missing: Any) -> None:
    model = TSM2Forecaster(**SIZES, missing=missing).fit(walks())
    with pytest.raises(WindowError, match="have 23 rows, but a forecast reads 24"):
        model.forecast_contexts(cut(23), 6)


@pytest.mark.parametrize(
    ("contexts", "error", "message"),
    [
        (cut(24)[0], ParameterError, r"2 columns, got an array of shape \(24, 2\)"),
        (cut(24)[..., :1], ParameterError, r"2 columns, got an array of shape \(5, 24, 1\)"),
        (np.where(np.arange(24)[:, None] == 5, np.nan, cut(24)), FrameError, "nan in row 5 of"),
    ],
)
def test_what_is_no_context_is_refused(
    contexts: NDArray[np.float64], error: type[TSM2Error], message: str
) -> None:
    model = TSM2Forecaster(**SIZES).fit(walks())
    with pytest.raises(error, match=message):
        model.forecast_contexts(contexts, 6)
    with pytest.raises(error, match=message):
        model.forecast_quantiles(contexts, 6, (0.5,))
