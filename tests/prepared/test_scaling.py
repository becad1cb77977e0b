"""Units of columns of any size: measured to the last digit, or refused by name."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsm2 import TSM2Forecaster
from tsm2.errors import ForecastError, FrameError
from tsm2.prepared.coding import Coding
from tsm2.prepared.scaling import Scaling

SMALL: dict[str, Any] = {"lookback": 8, "horizon": 3, "max_epochs": 1, "features": 4}
POWERS = [-1000, -700, -400, 0, 60, 127, 400, 700, 900]


def table() -> pd.DataFrame:
    t = np.arange(60.0)
    index = pd.date_range("2024-01-01", periods=60)
    return pd.DataFrame({"a": np.sin(t) + 2, "b": np.cos(t)}, index)


@given(st.sampled_from(POWERS), st.booleans())
def test_units_do_not_depend_on_the_size_of_a_column(power: int, each: bool) -> None:
    values = table().to_numpy()
    other = values * [2.0**power, 1.0]
    offsets = np.array([0, 25, 60])
    one, two = (Scaling.of_each(x, offsets) if each else Scaling.of(x) for x in (values, other))
    np.testing.assert_array_equal(two.center, one.center * [2.0**power, 1.0])
    np.testing.assert_array_equal(two.scale, one.scale * [2.0**power, 1.0])
    assert two.take(np.array([0, 0])) is not None
    np.testing.assert_array_equal(Scaling.of(other).standardise(other), one_standard(values))


def one_standard(values: Any) -> Any:
    return Scaling.of(values).standardise(values)


@pytest.mark.parametrize("each", [False, True], ids=["a table", "several series"])
def test_logarithms_are_standardised_and_put_back(each: bool) -> None:
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(3, 0.5, (60, 3)))
    logs = np.array([True, False, True])
    offsets = np.array([0, 25, 60])
    units = Scaling.of_each(values, offsets, logs) if each else Scaling.of(values, logs)
    bent = np.where(logs, np.log(values), values)
    for number, rows in enumerate([slice(0, 25), slice(25, 60)] if each else [slice(None)]):
        own = units.take([number])
        standard = own.standardise(values[rows][None] if each else values)
        wanted = (bent[rows] - bent[rows].mean(0)) / bent[rows].std(0)
        np.testing.assert_allclose(standard.numpy().reshape(wanted.shape), wanted, atol=1e-5)
        np.testing.assert_allclose(own.restore(standard).reshape(-1, 3), values[rows], rtol=1e-5)
    assert units.of_columns([2]).logs is not None
    assert units.in_logarithms(["a", "b", 3]) == ("a", "3")
    plain = Scaling.of_each(values, offsets) if each else Scaling.of(values)
    np.testing.assert_array_equal(units.deviation, plain.scale)
    np.testing.assert_array_equal(units.take([1]).deviation, plain.take([1]).scale)
    np.testing.assert_array_equal(units.of_columns([2]).deviation, plain.scale[..., [2]])


def test_what_has_no_logarithm_has_its_place_on_a_line() -> None:
    """Zero and what is negative keep their order and come back as they were."""
    values = np.exp(np.random.default_rng(1).normal(3, 0.3, (50, 1)))
    units = Scaling.of(values, np.array([True]))
    far = np.array([[-1e6], [-1.0], [0.0], [0.1], [5.0], [20.0], [1e9], [np.nan]])
    standard = units.standardise(far)
    assert (standard[:-1].diff(dim=0) > 0).all()
    np.testing.assert_allclose(units.restore(standard), far, rtol=1e-5, atol=1e-5)
    slopes = units.restore(torch.tensor([[-4.01], [-4.0], [-3.99]])).ravel()
    assert slopes[2] - slopes[1] == pytest.approx(slopes[1] - slopes[0], rel=0.01)


def test_a_series_is_measured_by_the_values_that_have_logarithms() -> None:
    values = np.array([[1.0], [np.e], [0.0], [-3.0], [0.0], [0.0]])
    units = Scaling.of_each(values, np.array([0, 4, 6]), np.array([True]))
    np.testing.assert_allclose(units.center, [[0.5], [0.0]])
    np.testing.assert_allclose(units.scale, [[0.5], [1.0]])


@pytest.mark.parametrize("power", POWERS)
def test_a_forecast_does_not_depend_on_the_size_of_a_column(power: int) -> None:
    frame, unit = table(), np.array([2.0**power, 1.0])
    wanted = TSM2Forecaster(**SMALL, random_state=0).fit(frame).predict() * unit
    model = TSM2Forecaster(**SMALL, random_state=0)
    got = model.fit(frame * unit, past_covariates=frame * 2.0**power).predict()
    own = model.fit(frame * unit).predict()
    pd.testing.assert_frame_equal(own, wanted)
    assert np.isfinite(got.to_numpy()).all()


@pytest.mark.parametrize("size", [1e60, 1e200, -1e300, 1e-60, 1e-300])
def test_a_column_that_does_not_move_stays_what_it_is(size: float) -> None:
    frame = table().assign(b=size)
    forecast = TSM2Forecaster(**SMALL, random_state=0).fit(frame).predict()
    np.testing.assert_allclose(forecast["b"], size, rtol=1e-4)


@pytest.mark.parametrize("size", [2e300, -1.7e308])
def test_what_is_next_to_infinity_is_refused_by_name(size: float) -> None:
    frame = table()
    frame.loc["2024-01-20", "b"] = size
    with pytest.raises(FrameError, match=r"1 larger than 1e\+300.*'b' \(1, first at 2024-01-20"):
        TSM2Forecaster(**SMALL).fit(frame)
    with pytest.raises(FrameError, match=r"'b' holds .*, beyond 1e\+300, at 2024-01-20"):
        TSM2Forecaster(**SMALL).fit(table(), past_covariates=frame)


@pytest.mark.parametrize("size", [1e16, 1e22, 1e60, -1e290])
def test_what_is_too_far_from_the_training_rows_is_refused_by_name(size: float) -> None:
    frame, fit = table(), TSM2Forecaster(**SMALL).fit
    frame.loc["2024-02-29", "b"] = size  # a validation row
    for call in (
        lambda: TSM2Forecaster(**SMALL).fit(frame),
        lambda: TSM2Forecaster(**SMALL).fit(table()).predict(frame),
        lambda: TSM2Forecaster(**SMALL).fit(table()).backtest(frame),
        lambda: TSM2Forecaster(**SMALL).fit(table(), past_covariates=frame),
        lambda: fit(table(), past_covariates=table()).predict(past_covariates=frame),
    ):
        with pytest.raises(FrameError, match=r"'b' holds .* at 2024-02-29.* more than 1e\+15 dev"):
            call()


def test_the_same_holds_of_several_series() -> None:
    tables = {"x": table() * 1e250, "y": table() * 1e-250}
    forecast: Any = TSM2Forecaster(**SMALL, random_state=0).fit(tables).predict()
    for name, unit in (("x", 1e250), ("y", 1e-250)):
        np.testing.assert_allclose(forecast[name] / unit, forecast["x"] / 1e250, rtol=1e-3)


def test_outliers_that_networks_can_bear_give_finite_forecasts() -> None:
    frame = table()
    frame.loc[["2024-01-09", "2024-02-28"], "b"] = 1e14
    assert np.isfinite(TSM2Forecaster(**SMALL, random_state=0).fit(frame).predict()).all(axis=None)


def test_a_forecast_that_is_not_finite_does_not_leave() -> None:
    model = TSM2Forecaster(**SMALL, random_state=0).fit(table())
    for weight in model.network_.parameters():
        weight.data.fill_(float("nan"))
    with pytest.raises(ForecastError, match="forecasts that were made together are infinite"):
        model.predict()


def test_a_covariate_of_any_size_is_coded_alike() -> None:
    frame = table()
    one, two = Coding.of(frame, "x"), Coding.of(frame * 2.0**700, "x")
    np.testing.assert_array_equal(two.code(frame * 2.0**700), one.code(frame))
