"""The sample is what its docstring says: reproducible, seasonal, and linked where it says so."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tsm2.datasets import SAMPLE_LINKS, load_sample, load_sample_covariates
from tsm2.errors import ParameterError

COLUMNS = ["temperature", "load", "price", "noise_a", "noise_b"]


def without_season(values: pd.Series) -> NDArray[np.float64]:
    """Take away the mean of each hour of the week."""
    by_hour = values.groupby([values.index.day_of_week, values.index.hour])  # type: ignore[attr-defined]
    return (values - by_hour.transform("mean")).to_numpy()


def correlation(leader: NDArray[np.float64], follower: NDArray[np.float64], lag: int) -> float:
    n = len(leader)
    return float(
        np.corrcoef(
            leader[max(0, -lag) : n - max(0, lag)], follower[max(0, lag) :][: n - abs(lag)]
        )[0, 1]
    )


# --- one table, always the same ---


def test_the_default_table_fits_at_once() -> None:
    frame = load_sample()
    assert frame.shape == (2400, 5)
    assert list(frame.columns) == COLUMNS
    assert set(frame.dtypes) == {np.dtype("float64")}
    assert np.isfinite(frame.to_numpy()).all()
    assert isinstance(frame.index, pd.DatetimeIndex)
    assert (frame.index.name, frame.index.freqstr) == ("date", "h")
    assert frame.index[0] == pd.Timestamp("2024-01-01 00:00")


def test_the_same_seed_gives_the_same_table_and_another_another() -> None:
    pd.testing.assert_frame_equal(load_sample(), load_sample())
    assert not np.isclose(load_sample(), load_sample(random_state=1)).any(axis=0).all()
    wanted = [8.240755, 53.428548, 41.370573, 0.648171, 0.606400]
    np.testing.assert_allclose(load_sample(1).iloc[0], wanted, atol=1e-6)


def test_no_global_seed_is_touched() -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    load_sample(48)
    after = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("with_gaps", [False, True])
@pytest.mark.parametrize("n_rows", [1, 23, 24, 100, 340, 2399])
def test_a_short_table_begins_a_long_one(n_rows: int, with_gaps: bool) -> None:
    short = load_sample(n_rows, with_gaps=with_gaps)
    long = load_sample(2400, with_gaps=with_gaps)
    pd.testing.assert_frame_equal(short, long.iloc[:n_rows], check_freq=False)


@pytest.mark.parametrize("value", [0, -1, 2.0, "10", True, None])
def test_a_number_of_rows_that_is_none_is_an_error(value: Any) -> None:
    with pytest.raises(ParameterError, match="n_rows must be a whole number of at least 1, got"):
        load_sample(value)
    with pytest.raises(ParameterError, match="n_rows must be"):
        load_sample_covariates(value)


def test_other_numbers_are_checked_too() -> None:
    with pytest.raises(ParameterError, match=r"random_state must be .* at least 0, got -1"):
        load_sample(random_state=-1)
    with pytest.raises(ParameterError, match=r"n_ahead must be .* at least 0, got -1"):
        load_sample_covariates(n_ahead=-1)


# --- gaps ---


def test_gaps_come_only_when_asked_for_and_change_nothing_else() -> None:
    clean, gappy = load_sample(), load_sample(with_gaps=True)
    blank = gappy.isna()
    pd.testing.assert_frame_equal(gappy.where(~blank, clean), clean)
    stretches = []
    for column in COLUMNS:
        starts = blank[column] & ~blank[column].shift(fill_value=False)
        stretches += [int(size) for size in blank[column].groupby(starts.cumsum()).sum() if size]
    assert len(stretches) in (7, 8)  # one in 14 days; the last of 100 days may not be reached
    assert all(2 <= size <= 8 for size in stretches)
    assert not blank.iloc[:24].any(axis=None)
    by_fortnight = blank.any(axis=1).to_numpy()[: 7 * 336].reshape(7, 336)
    assert by_fortnight.any(axis=1).all()


# --- the covariate ---


def test_the_covariate_is_known_beyond_the_table() -> None:
    frame, covariates = load_sample(), load_sample_covariates()
    assert covariates.index[: len(frame)].equals(frame.index)
    assert len(covariates) == len(frame) + 168
    longer = load_sample_covariates(2400 + 168, n_ahead=0)
    pd.testing.assert_frame_equal(covariates, longer)
    days = covariates["holiday"].to_numpy().reshape(-1, 24)
    assert set(np.unique(days)) == {0.0, 1.0}
    assert (days == days[:, :1]).all()
    assert days[3:103, 0].reshape(10, 10).sum(axis=1).tolist() == [1.0] * 10


# --- seasons and links ---


def test_the_equations_hold_row_by_row() -> None:
    """Written out again, from the columns alone: what is left is the stated noise."""
    frame = load_sample(24 * 400)
    holiday = load_sample_covariates(24 * 400, n_ahead=0)["holiday"]
    t = np.arange(len(frame))
    weekend = (frame.index.day_of_week >= 5).astype(float)  # type: ignore[attr-defined]
    temperature, load, price = frame["temperature"], frame["load"], frame["price"]

    front = temperature - 12 - 6 * np.sin(2 * np.pi * (t - 9) / 24)
    rest = {
        "temperature": front - 0.9 * front.shift(1),
        "load": load
        - (60 + 6 * np.sin(4 * np.pi * (t - 2) / 24) - 8 * weekend - 12 * holiday)
        - 1.5 * (temperature.shift(3) - 12),
        "price": (price - 40 - 0.6 * (load.shift(6) - 60)) / 0.8,
        "noise_a": frame["noise_a"] - 0.95 * frame["noise_a"].shift(1),
        "noise_b": frame["noise_b"],
    }
    noise = pd.DataFrame(rest).iloc[6:]
    np.testing.assert_allclose(noise.mean(), 0, atol=0.05)
    np.testing.assert_allclose(noise.std(), 1, atol=0.03)
    np.testing.assert_allclose(noise.corr(), np.eye(5), atol=0.05)
    memory = [noise[column].autocorr(1) for column in COLUMNS]
    np.testing.assert_allclose(memory, 0, atol=0.05)


@pytest.mark.parametrize("random_state", [0, 1, 2])
@pytest.mark.parametrize(("leader", "follower"), [("temperature", "load"), ("load", "price")])
def test_the_lag_is_found_by_cross_correlation(
    leader: str, follower: str, random_state: int
) -> None:
    frame = load_sample(random_state=random_state)
    first, second = without_season(frame[leader]), without_season(frame[follower])
    found = {lag: correlation(first, second, lag) for lag in range(-24, 25)}
    (link,) = (one for one in SAMPLE_LINKS if (one.source, one.target) == (leader, follower))
    assert max(found, key=found.__getitem__) == link.lag


def test_the_links_are_these() -> None:
    links = [(link.source, link.target, link.lag, link.weight) for link in SAMPLE_LINKS]
    assert links == [
        ("temperature", "load", 3, 1.5),
        ("load", "price", 6, 0.6),
        ("holiday", "load", 0, -12.0),
    ]


def squared_errors(
    frame: pd.DataFrame, target: str, inputs: list[str], *, lookback: int = 96, horizon: int = 24
) -> NDArray[np.float64]:
    """Ridge regression from the lookback of `inputs` to the horizon; test error of each step.

    The calendar is given to every model, so that no variate helps merely as a clock.
    """
    n_train = int(0.7 * len(frame))
    scaled = (frame - frame[:n_train].mean()) / frame[:n_train].std()
    windows = np.lib.stride_tricks.sliding_window_view
    read = [windows(scaled[column].to_numpy()[:-horizon], lookback) for column in inputs]
    hour_of_week = pd.get_dummies(np.arange(len(frame)) % 168).to_numpy(float)
    X = np.concatenate([*read, hour_of_week[lookback : len(frame) - horizon + 1]], axis=1)
    Y = windows(scaled[target].to_numpy()[lookback:], horizon)
    n_fit = n_train - lookback - horizon + 1  # no training window reaches into the test rows
    weights = np.linalg.solve(
        X[:n_fit].T @ X[:n_fit] + 30 * np.eye(X.shape[1]), X[:n_fit].T @ Y[:n_fit]
    )
    test = slice(n_train - lookback, None)
    errors: NDArray[np.float64] = ((X[test] @ weights - Y[test]) ** 2).mean(axis=0)
    return errors  # (horizon,)


@pytest.mark.parametrize("random_state", [0, 1, 2])
def test_other_variates_foretell_price_and_load(random_state: int) -> None:
    frame = load_sample(random_state=random_state)
    alone = squared_errors(frame, "price", ["price"])
    linked = squared_errors(frame, "price", ["price", "load", "temperature"])
    assert linked.mean() < 0.8 * alone.mean()
    assert linked[:6].mean() < 0.25 * alone[:6].mean()  # the 6 hours that load knows

    alone = squared_errors(frame, "load", ["load"])
    linked = squared_errors(frame, "load", ["load", "temperature"])
    assert linked[:3].mean() < 0.6 * alone[:3].mean()  # the 3 hours that temperature knows


@pytest.mark.parametrize("random_state", [0, 1, 2])
def test_the_noises_help_nothing_and_nothing_helps_them(random_state: int) -> None:
    frame = load_sample(random_state=random_state)
    for target in ("temperature", "load", "price"):
        alone = squared_errors(frame, target, [target])
        with_noise = squared_errors(frame, target, [target, "noise_a", "noise_b"])
        assert with_noise.mean() > 0.98 * alone.mean()
    for target in ("noise_a", "noise_b"):
        alone = squared_errors(frame, target, [target])
        with_others = squared_errors(frame, target, [target, "temperature", "load", "price"])
        assert with_others.mean() > 0.98 * alone.mean()
