"""Where the truth is known, an explanation tells it: the column, the past steps, the price."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.errors import ParameterError
from tsm2.fitted.explanation import WhatIf
from tsm2.plotting import plot_what_if


def follower(rows: int = 1500) -> pd.DataFrame:
    """A column that repeats what another was eight rows before; a third is of no use."""
    draw = np.random.default_rng(0)
    lead = draw.normal(size=rows + 8)
    values = {"lead": lead[8:], "follows": lead[:-8], "noise": draw.normal(size=rows)}
    return pd.DataFrame(values, pd.date_range("2024-01-01", periods=rows, freq="h"))


def test_the_column_and_the_steps_that_moved_a_forecast_are_found() -> None:
    frame = follower()
    model = TSM2Forecaster(
        32,
        8,
        target="follows",
        patch_length=8,
        features=16,
        max_epochs=8,
        epoch_steps=40,
        mixer_learning_rate=1e-2,
        linear_start="random",
        random_state=0,
    ).fit(frame)
    found = model.explain(frame, part=8)
    influence = found.columns.loc["follows"]
    assert influence["lead"] > 4 * influence["noise"]
    lead = found.parts[found.parts["source"] == "lead"].set_index("last")["influence"]
    assert lead.idxmax() == 0  # the last eight rows, which come again
    assert found.parts["first"].min() == -31
    words = found.in_words()
    assert words.startswith("follows: lead moved this forecast most, by ")
    assert words.endswith("Of lead it was the last 8 rows.")
    assert "<p>follows: lead moved" in found._repr_html_()


def sales(rows: int = 400) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sales that fall by two with every unit of the price, which is known in advance."""
    index = pd.date_range("2024-01-01", periods=rows + 8, freq="D")
    price = np.random.default_rng(1).uniform(5, 15, rows + 8)
    sold = 100 - 2 * price + np.random.default_rng(2).normal(0, 0.1, rows + 8)
    return pd.DataFrame({"sold": sold[:rows]}, index[:rows]), pd.DataFrame({"price": price}, index)


@pytest.fixture(scope="module")
def shop() -> tuple[TSM2Forecaster, pd.DataFrame, pd.DataFrame]:
    table, price = sales()
    model = TSM2Forecaster(
        16, 8, features=16, max_epochs=30, epoch_steps=40, mixer_learning_rate=1e-2, random_state=0
    )
    return model.fit(table, future_covariates=price), table, price


def test_a_higher_price_lowers_the_forecast_as_in_the_truth(
    shop: tuple[TSM2Forecaster, pd.DataFrame, pd.DataFrame],
) -> None:
    model, table, price = shop
    found = model.what_if({"price": 1.1}, table, future_covariates=price)
    pd.testing.assert_frame_equal(found.forecast, model.predict(table, future_covariates=price))
    truth = -2 * 0.1 * price["price"].iloc[-8:].mean()
    assert found.difference["sold"].mean() == pytest.approx(truth, rel=0.5)
    assert "with price times 1.1 the forecast moves by -" in found.in_words()
    assert price["price"].iloc[-1] == sales()[1]["price"].iloc[-1]  # the caller's table stays


def test_the_difference_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    one = pd.DataFrame({"sold": [1.0, 2.0]})
    figure = plot_what_if(WhatIf(forecast=one, changed=one + 1, changes={"price": 2.0}))
    (panel,) = figure.axes
    lines = {str(line.get_label()): line.get_ydata() for line in panel.get_lines()}
    np.testing.assert_allclose(np.asarray(lines["changed"]), [2, 3])
    (band,) = panel.collections
    assert band.get_label() == "difference"


def test_mistakes(shop: tuple[TSM2Forecaster, pd.DataFrame, pd.DataFrame]) -> None:
    model, table, price = shop
    with pytest.raises(ParameterError, match="which has price; got"):
        model.what_if({"weather": 2.0}, table, future_covariates=price)
    two = TSM2Forecaster(16, 8, max_epochs=1, features=4).fit([follower(100), follower(90)])
    with pytest.raises(ParameterError, match=r"one of the 2, such as 0, 1; got None"):
        two.explain()
    with pytest.raises(ParameterError, match="leave series out; got 3"):
        model.what_if({"price": 2.0}, table, future_covariates=price, series=3)


def test_one_of_several_series_is_explained() -> None:
    tables = {"long": follower(120), "short": follower(90)}
    model = TSM2Forecaster(16, 8, max_epochs=1, features=4, random_state=0).fit(tables)
    alone = model.explain({"short": tables["short"]})
    pd.testing.assert_frame_equal(model.explain(series="short").columns, alone.columns)
    assert not model.explain(series="long").columns.equals(alone.columns)


@pytest.mark.parametrize("container", ["dict", "long", "levels"])
def test_the_covariates_of_one_of_several_series_change(container: str) -> None:
    table, price = sales(100)
    tables, prices = {"a": table, "b": table.iloc[:80] / 2}, {"a": price, "b": price.iloc[:88]}
    given: Any = (tables, prices)
    if container != "dict":
        given = [pd.concat(each, names=["shop", "day"]) for each in given]
    if container == "long":
        given = [each.reset_index() for each in given]
    rows, known = given
    model = TSM2Forecaster(16, 8, max_epochs=1, features=4, random_state=0, id_col="shop")
    model.set_params(time_col="day", target_col="sold").fit(rows, future_covariates=known)
    found = model.what_if({"price": 3.0}, rows, future_covariates=known, series="b")
    alone: dict[str, Any] = {
        name: {"b": each["b"]} for name, each in (("X", tables), ("future_covariates", prices))
    }
    single = TSM2Forecaster(**model.get_params())
    single.fit(tables, future_covariates=prices)
    pd.testing.assert_frame_equal(
        found.forecast, single.predict(**alone)["b"], check_names=False, check_freq=False
    )
    dearer = prices["b"].copy()
    dearer.iloc[80:] *= 3
    wanted = single.predict(tables, future_covariates={"a": price, "b": dearer})["b"]
    pd.testing.assert_frame_equal(found.changed, wanted, check_names=False, check_freq=False)
    assert (found.difference["sold"] != 0).all()
