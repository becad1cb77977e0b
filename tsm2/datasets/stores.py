"""Generated series whose answers lie in their covariates, a share of them in each kind.

Daily sales of many stores; t counts days, [.] is 1 if true and 0 if not, each e is independent
standard normal noise:

    sales[s, t] = level[s] + growth[s] t + 3 promotion[s, t] + 2 [snow at t] - 2 [rain at t]
                  + 2 visits[s, t - 14] + e1[s, t]
    growth[s]   = 0.2 [city] - 0.2 [village] + 0.1 rent[s]

`promotion` and `weather` are drawn anew every few days and known in advance; `visits` is noise
until it shows in the sales, 14 days later; `place` and `rent` are known of each store. No history
of the sales foretells what promotion, weather and visits add to the next 14 days, and a short one
says little about the growth.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.datasets.sample import check_whole

__all__ = ["Stores", "load_stores"]

_LAG = 14  # days from a visit to what it adds to the sales
_WEATHER = np.array(["rain", "snow", "sun"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Stores:
    """Sales and all that is known beside them, as long frames with the columns `store`, `day`."""

    sales: pd.DataFrame
    """`sales`, a row per store and day."""
    past: pd.DataFrame
    """`visits`, for the days of the sales."""
    future: pd.DataFrame
    """`promotion`, 0 or 1, and `weather`, a category, for these days and those ahead."""
    static: pd.DataFrame
    """`place`, a category, and `rent`, with the stores as index."""


def load_stores(
    n_stores: int = 40, n_days: int = 120, *, n_ahead: int = 14, random_state: int = 0
) -> Stores:
    """Generate sales that covariates of every kind explain, see the equations of the module.

    Parameters
    ----------
    n_stores
        Series.
    n_days
        Days of sales.
    n_ahead
        Further days for which the future covariates are known.
    random_state
        Seed; the same seed gives the same tables.

    Raises
    ------
    ParameterError
        A parameter is not a whole number or is out of range.

    Examples
    --------
    >>> stores = load_stores(3, 100)
    >>> stores.sales.shape, stores.past.shape, stores.future.shape, stores.static.shape
    ((300, 3), (300, 3), (342, 4), (3, 2))
    """
    check_whole("n_stores", n_stores, at_least=1)
    check_whole("n_days", n_days, at_least=1)
    check_whole("n_ahead", n_ahead, at_least=0)
    check_whole("random_state", random_state, at_least=0)
    seeds = np.random.SeedSequence(random_state).spawn(5)
    chance = [np.random.default_rng(seed) for seed in seeds]
    n_known = n_days + n_ahead
    promotion = _held(chance[0].integers(0, 2, (n_stores, n_known)), days=3)
    weather = _held(chance[1].integers(0, 3, (1, n_known)), days=2).repeat(n_stores, axis=0)
    visits = chance[2].standard_normal((n_stores, n_days + _LAG))  # the first show on day 0
    is_city = chance[3].random(n_stores) < 0.5
    rent = chance[3].standard_normal(n_stores)
    level = chance[3].normal(20, 5, n_stores)
    growth = np.where(is_city, 0.2, -0.2) + 0.1 * rent
    sales = (
        level[:, None]
        + growth[:, None] * np.arange(n_days)
        + 3 * promotion[:, :n_days]
        + np.array([-2, 2, 0])[weather[:, :n_days]]
        + 2 * visits[:, :n_days]
        + chance[4].standard_normal((n_stores, n_days))
    )
    names = np.array([f"store {number}" for number in range(n_stores)])
    static = pd.DataFrame(
        {"place": np.where(is_city, "city", "village"), "rent": rent},
        index=pd.Index(names, name="store"),
    )
    return Stores(
        sales=_long(names, sales=sales),
        past=_long(names, visits=visits[:, _LAG:]),
        future=_long(names, promotion=promotion, weather=_WEATHER[weather]),
        static=static,
    )


def _held(draws: NDArray[np.int64], *, days: int) -> NDArray[np.int64]:
    """Let every draw hold for some days, along the last axis."""
    return draws[:, np.arange(draws.shape[1]) // days]


def _long(names: NDArray[np.str_], **columns: NDArray[np.generic]) -> pd.DataFrame:
    """Return a row per store and day, from arrays, (stores, days)."""
    n_days = next(iter(columns.values())).shape[1]
    days = pd.date_range("2024-01-01", periods=n_days)
    keys = {"store": names.repeat(n_days), "day": np.tile(days, len(names))}
    return pd.DataFrame(keys | {name: values.ravel() for name, values in columns.items()})
