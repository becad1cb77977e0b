"""A generated table whose dependences are known: what a model should select can be checked.

Hourly, from Monday 2024-01-01 00:00; t counts hours from there, [.] is 1 if true and 0 if not,
each e is independent standard normal noise:

    temperature[t] = 12 + 6 sin(2 pi (t - 9) / 24) + front[t]
    front[t]       = 0.9 front[t-1] + e1[t]
    load[t]        = 60 + 6 sin(4 pi (t - 2) / 24) - 8 [weekend] - 12 holiday[t]
                     + 1.5 (temperature[t-3] - 12) + e2[t]
    price[t]       = 40 + 0.6 (load[t-6] - 60) + 0.8 e3[t]
    noise_a[t]     = 0.95 noise_a[t-1] + e4[t]
    noise_b[t]     = e5[t]
    holiday[t]     = 1 on one day of every ten, drawn at random and known in advance

So `price` is foretold 6 hours ahead by `load` and 9 by `temperature`, `load` 3 hours ahead by
`temperature`, and the two noises are of no use to anything. `SAMPLE_LINKS` holds the same facts
and the generator reads them from there.

A shorter table is the beginning of a longer one with the same `random_state`: ask for more rows
and the rest is what truly came after.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.errors import ParameterError

__all__ = ["SAMPLE_LINKS", "Link", "load_sample", "load_sample_covariates"]

_START = pd.Timestamp("2024-01-01 00:00")  # a Monday
_DAY = 24
_WEEK = 7 * _DAY
_BURN_IN = _WEEK  # hours generated before the first row, so that every lag has a value
_GAP_EVERY = 14 * _DAY  # rows per gap


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One dependence in the sample: `target` at hour t moves with `source` at hour t - `lag`."""

    source: str
    """The variate or covariate that leads."""
    target: str
    """The variate that follows."""
    lag: int
    """Hours from the one to the other."""
    weight: float
    """Change of the target per unit of the source."""


SAMPLE_LINKS = (
    Link(source="temperature", target="load", lag=3, weight=1.5),
    Link(source="load", target="price", lag=6, weight=0.6),
    Link(source="holiday", target="load", lag=0, weight=-12.0),
)
"""Every dependence between the columns of the sample; `noise_a` and `noise_b` are in none."""


def load_sample(
    n_rows: int = 2400, *, random_state: int = 0, with_gaps: bool = False
) -> pd.DataFrame:
    """Generate an hourly table of five variates with known seasons and dependences.

    The module docstring has the equations, `SAMPLE_LINKS` the dependences, and
    `load_sample_covariates` the holidays that are known in advance.

    Parameters
    ----------
    n_rows
        Hours; the default of 100 days trains a small model in seconds.
    random_state
        Seed; the same seed gives the same table.
    with_gaps
        Whether to blank one stretch of 2 to 8 hours in one variate every 14 days.

    Returns
    -------
    Table with an hourly DatetimeIndex and the columns `temperature`, `load`, `price`,
    `noise_a` and `noise_b`; without missing values unless `with_gaps`.

    Raises
    ------
    ParameterError
        `n_rows` or `random_state` is not a whole number or is out of range.

    Examples
    --------
    >>> from tsm2.datasets import load_sample
    >>> frame = load_sample()
    >>> frame.shape, int(frame.isna().sum().sum())
    ((2400, 5), 0)
    >>> future = load_sample(len(frame) + 24).iloc[len(frame):]  # what truly came after
    """
    check_whole("n_rows", n_rows, at_least=1)
    check_whole("random_state", random_state, at_least=0)
    streams = _streams(random_state)
    hours = np.arange(-_BURN_IN, n_rows)
    link = {(one.source, one.target): one for one in SAMPLE_LINKS}

    daily = np.sin(2 * np.pi * (hours - 9) / _DAY)
    half_daily = np.sin(4 * np.pi * (hours - 2) / _DAY)
    weekend = hours % _WEEK >= 5 * _DAY
    holiday = _holidays(streams["holiday"], len(hours))

    temperature = 12 + 6 * daily + _autoregression(streams["temperature"], len(hours), decay=0.9)
    load = (
        60
        + 6 * half_daily
        - 8 * weekend
        + _followed(link["holiday", "load"], holiday)
        + _followed(link["temperature", "load"], temperature - 12)
        + streams["load"].standard_normal(len(hours))
    )
    price = (
        40
        + _followed(link["load", "price"], load - 60)
        + 0.8 * streams["price"].standard_normal(len(hours))
    )
    columns = {
        "temperature": temperature,
        "load": load,
        "price": price,
        "noise_a": _autoregression(streams["noise_a"], len(hours), decay=0.95),
        "noise_b": streams["noise_b"].standard_normal(len(hours)),
    }
    frame = pd.DataFrame(columns).iloc[_BURN_IN:].set_axis(_index(n_rows))
    if with_gaps:
        _blank_gaps(frame, streams["gaps"])
    return frame


def load_sample_covariates(
    n_rows: int = 2400, *, n_ahead: int = _WEEK, random_state: int = 0
) -> pd.DataFrame:
    """Generate the covariate of `load_sample` that is known in advance.

    Parameters
    ----------
    n_rows
        Hours of the table it belongs to.
    n_ahead
        Further hours after the end of that table.
    random_state
        Seed of the table it belongs to.

    Returns
    -------
    Table of `n_rows` + `n_ahead` hours with the column `holiday`, 1.0 on holidays and 0.0 on
    other days.

    Raises
    ------
    ParameterError
        A parameter is not a whole number or is out of range.

    Examples
    --------
    >>> from tsm2.datasets import load_sample_covariates
    >>> load_sample_covariates(n_ahead=24).shape
    (2424, 1)
    """
    check_whole("n_rows", n_rows, at_least=1)
    check_whole("n_ahead", n_ahead, at_least=0)
    check_whole("random_state", random_state, at_least=0)
    total = n_rows + n_ahead
    holiday = _holidays(_streams(random_state)["holiday"], _BURN_IN + total)[_BURN_IN:]
    return pd.DataFrame({"holiday": holiday}, index=_index(total))


def _streams(random_state: int) -> dict[str, np.random.Generator]:
    """One generator per column: adding rows to one never moves the draws of another."""
    users = ("temperature", "load", "price", "noise_a", "noise_b", "holiday", "gaps")
    seeds = np.random.SeedSequence(random_state).spawn(len(users))
    return {user: np.random.default_rng(seed) for user, seed in zip(users, seeds, strict=True)}


def _index(n_rows: int) -> pd.DatetimeIndex:
    return pd.date_range(_START, periods=n_rows, freq="h", name="date")


def _autoregression(
    stream: np.random.Generator, n_rows: int, *, decay: float
) -> NDArray[np.float64]:
    """Noise that remembers: x[t] = decay x[t-1] + e[t], started in its stationary spread."""
    values = stream.standard_normal(n_rows)
    values[0] /= np.sqrt(1 - decay**2)
    for t in range(1, n_rows):
        values[t] += decay * values[t - 1]
    return values


def _holidays(stream: np.random.Generator, n_rows: int) -> NDArray[np.float64]:
    """One whole day of ones in every ten; the first row is the first hour of a day."""
    n_tens = -(-n_rows // (10 * _DAY))
    days = np.zeros((n_tens, 10))
    days[np.arange(n_tens), (10 * stream.random(n_tens)).astype(int)] = 1
    return np.repeat(days, _DAY)[:n_rows]  # repeat flattens: (n_tens * 10 * 24,)


def _followed(link: Link, source: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a link adds to its target; the first `lag` hours, in the burn-in, get 0."""
    effect = np.zeros_like(source)
    effect[link.lag :] = link.weight * source[: len(source) - link.lag]
    return effect


def _blank_gaps(frame: pd.DataFrame, stream: np.random.Generator) -> None:
    """Blank one stretch of 2 to 8 hours in one variate in every 14 days, in place."""
    for block in range(0, len(frame), _GAP_EVERY):
        column = int(stream.integers(frame.shape[1]))
        length = int(stream.integers(2, 9))
        first = block + int(stream.integers(_DAY, _GAP_EVERY - length))
        frame.iloc[first : first + length, column] = np.nan


def check_whole(name: str, value: int, *, at_least: int) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < at_least:
        raise ParameterError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
