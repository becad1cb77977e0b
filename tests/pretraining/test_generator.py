"""Generated series: seeded, finite, as different as real ones, with calendars as they are."""

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from tsm2.errors import ParameterError
from tsm2.pretraining import generate
from tsm2.pretraining.characteristics import characteristics
from tsm2.pretraining.generator import FREQUENCIES, _calendar
from tsm2.pretraining.loops import filter_rows

REAL = {  # 10th and 90th percentile over the tables of benchmarks/zero_tasks.py
    "trend": (0.15, 0.98),
    "season": (0.0, 0.91),
    "entropy": (0.28, 0.80),
}


def test_a_seed_says_all() -> None:
    first, again, other = (generate(seed, 32, variates=2) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.known, again.known)
    assert not np.array_equal(first.values, other.values)


@pytest.mark.parametrize("variates", [1, 3])
def test_a_seed_draws_what_it_drew_before(variates: int) -> None:
    """Windows of the first generator, from which the weights of zero were made."""
    before = np.load(Path(__file__).with_name("generated.npz"))
    wanted = before[f"values-{variates}"]
    count = len(wanted)
    windows = generate([7, variates], count, variates=variates, length=120, horizon=8)
    np.testing.assert_array_equal(windows.known, before[f"known-{variates}"])
    np.testing.assert_array_equal(windows.seasons, before[f"seasons-{variates}"])
    # To the bit where processor and numpy are the same; elsewhere an exponential may round
    # otherwise, and what was rounded to whole numbers goes up in place of down.
    assert np.isclose(windows.values, wanted, rtol=1e-4, atol=1e-4).mean() > 0.999


@pytest.mark.parametrize(("moving", "poles"), [(0.0, (-0.99, 0.0)), (0.4, (-1.2, 0.5))])
def test_rows_are_filtered_as_scipy_does(moving: float, poles: tuple[float, float]) -> None:
    rows = np.random.default_rng(0).standard_normal((21, 40)).astype(np.float32)
    which = np.array([0, *range(3, 21)])
    wanted = rows.copy()
    weights = np.array([1, moving], np.float32), np.array([1, *poles], np.float32)
    wanted[which] = lfilter(*weights, rows[which])
    filter_rows(rows, which, moving, poles)
    np.testing.assert_allclose(rows, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variates", [1, 5])
def test_windows_are_finite_and_their_horizon_is_known_but_for_gaps(variates: int) -> None:
    windows = generate(1, 400, variates=variates)
    assert windows.values.shape == windows.known.shape == (400, variates, 576)
    assert windows.values.dtype == np.float32
    assert np.isfinite(windows.values).all()
    assert windows.known[..., 511].all()  # what a forecast goes on from
    assert windows.known[..., 512:].mean() > 0.95
    lengths = 512 - windows.known[:, 0].argmax(1)
    assert lengths.min() < 30
    assert (lengths == 512).mean() > 0.3


def test_generated_series_are_as_different_as_real_ones() -> None:
    windows = generate(2, 2000)
    found = np.concatenate(
        [
            characteristics(windows.values[windows.seasons == season, 0, :512], max(1, int(season)))
            for season in np.unique(windows.seasons)
        ]
    )
    for k, (name, (low, high)) in enumerate(REAL.items()):
        generated = np.quantile(found[:, k], (0.05, 0.95))
        assert generated[0] <= low + 0.02, name
        assert generated[1] >= high - 0.02, name


def test_months_and_years_are_as_long_as_calendars_have_them() -> None:
    starts = {name: np.flatnonzero(np.diff(phase) < 0) for name, phase in _calendar().items()}
    assert set(np.diff(starts["month"]).tolist()) == {28, 29, 30, 31}
    assert set(np.diff(starts["year"]).tolist()) == {365, 366}


def test_variates_move_together_sometimes_later() -> None:
    values = generate(5, 300, variates=2).values
    values = values - values.mean(-1, keepdims=True)
    values /= values.std(-1, keepdims=True) + 1e-6
    together = np.abs((values[:, 0] * values[:, 1]).mean(-1))
    assert np.quantile(together, 0.9) > 0.6
    assert np.quantile(together, 0.1) < 0.1


def test_frequencies_tell_their_season() -> None:
    seasons = generate(6, 2000).seasons
    assert set(seasons.tolist()) == {each.season for each in FREQUENCIES.values()}


def test_sizes_that_leave_no_history_are_refused() -> None:
    with pytest.raises(ParameterError, match="length above the horizon, got 1, 1, 64 and 64"):
        generate(0, 1, length=64)
