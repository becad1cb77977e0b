"""The stores' sales are the sum that their module says, and each part of it is where it says."""

import numpy as np
import pandas as pd
import pytest

from tsm2.datasets import load_stores
from tsm2.errors import ParameterError


def wide(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    return frame.pivot(index="day", columns="store", values=column)


def test_sales_are_the_sum_of_what_is_known_and_noise() -> None:
    stores = load_stores(8, 200)
    sales, visits = wide(stores.sales, "sales"), wide(stores.past, "visits")
    static = stores.static.loc[sales.columns]
    growth = static["place"].map({"city": 0.2, "village": -0.2}) + 0.1 * static["rent"]
    promotion = wide(stores.future, "promotion").iloc[:200]
    weather = wide(stores.future, "weather").iloc[:200].replace({"rain": -2, "snow": 2, "sun": 0})
    rest = sales - 3 * promotion - weather.astype(float) - 2 * visits.shift(14)
    rest = (rest - np.outer(np.arange(200), growth)).iloc[14:]
    assert rest.std().between(0.85, 1.15).all()  # unit noise about a level
    assert rest.mean().std() > 1


def test_what_is_known_in_advance_holds_for_days() -> None:
    stores = load_stores(5, 90, n_ahead=9)
    weather = wide(stores.future, "weather")
    assert len(weather) == 99
    assert (weather.nunique(axis=1) == 1).all()  # the same for all stores
    assert (weather.to_numpy()[:-1:2] == weather.to_numpy()[1::2]).all()
    promotion = wide(stores.future, "promotion").to_numpy()
    assert (promotion[::3] == promotion[2::3]).all()
    assert set(promotion.ravel()) == {0, 1}


def test_a_seed_fixes_all_tables() -> None:
    one, two, other = load_stores(3, 50), load_stores(3, 50), load_stores(3, 50, random_state=1)
    for name in ("sales", "past", "future", "static"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name))
    assert not one.sales["sales"].equals(other.sales["sales"])


@pytest.mark.parametrize("wrong", [{"n_stores": 0}, {"n_days": 1.5}, {"n_ahead": -1}])
def test_wrong_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        load_stores(**wrong)
