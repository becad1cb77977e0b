"""Characteristics of series: how much of them is trend, season, and order at all.

    trend     1 - Var(rest) / Var(trend + rest)        season    1 - Var(rest) / Var(season + rest)
    entropy   of the spectrum, over that of white noise: 0 for one wave, 1 for noise

The trend is a moving mean over a season, the season the mean of what is left at each of its places.

Sizes: N series, T time steps.
Source: Hyndman & Athanasopoulos (2021), "Forecasting: Principles and Practice", section 4.3; Goerg
(2013), "Forecastable component analysis", for the entropy.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAMES", "characteristics"]

NAMES = ("trend", "season", "entropy")
"""What is measured."""

_NOTHING = 1e-9  # variance, beside that of the whole
_SMOOTH = 13  # steps, where there is no season


def characteristics(values: NDArray[np.floating], period: int) -> NDArray[np.float64]:
    """Return what `NAMES` says of series, (N, 3), each in [0, 1].

    Parameters
    ----------
    values
        Series, (N, T), T at least twice the period.
    period
        Steps of the season; 1 for none, whose strength is then 0.

    Examples
    --------
    >>> wave = np.sin(2 * np.pi * np.arange(96) / 24)[None]
    >>> characteristics(wave, 24).round(2).tolist()
    [[0.0, 1.0, 0.0]]
    """
    whole = np.asarray(values, dtype=np.float64)
    whole = whole - whole.mean(1, keepdims=True)
    whole /= np.maximum(whole.std(1, keepdims=True), 1e-12)
    width = period if period > 1 else min(_SMOOTH, whole.shape[1] // 3)
    sums = np.cumsum(np.pad(whole, ((0, 0), (1, 0))), axis=1)
    trend = (sums[:, width:] - sums[:, :-width]) / width
    start = (width - 1) // 2
    inner = whole[:, start : start + trend.shape[1]]
    rest = inner - trend
    season = np.zeros_like(rest)
    if period > 1:
        for place in range(period):
            season[:, place::period] = rest[:, place::period].mean(1, keepdims=True)
        season -= season.mean(1, keepdims=True)
        rest = rest - season

    def strength(part: NDArray[np.float64]) -> NDArray[np.float64]:
        both = (part + rest).var(1)
        share = np.clip(1 - rest.var(1) / np.maximum(both, _NOTHING), 0, 1)
        found: NDArray[np.float64] = np.where(both > _NOTHING, share, 0)
        return found

    power = np.abs(np.fft.rfft(whole, axis=1)[:, 1:]) ** 2
    share = power / np.maximum(power.sum(1, keepdims=True), 1e-12)
    entropy = -(share * np.log(share + 1e-12)).sum(1) / np.log(share.shape[1])
    return np.stack((strength(trend), strength(season), np.clip(entropy, 0, 1)), 1)
