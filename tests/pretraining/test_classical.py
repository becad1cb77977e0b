"""Classical forecasts of many histories at once say what each history's own say, written plainly.

The plain ones are loops over steps of one history, in float64, and follow the definitions.
"""

from itertools import product

import numpy as np
import pytest
import torch

from tsm2.networks.classical import (
    NAMES,
    NAMES_OF_VALUES,
    ClassicalForecasts,
    classical_forecasts,
)
from tsm2.networks.patches import interpolate_gaps
from tsm2.pretraining import generate

STEPS, HORIZON = 160, 20
Row = np.ndarray


def correlations(row: Row, known: Row) -> tuple[Row, Row]:
    """Return the autocorrelation by lag around a straight line, and that of the changes."""
    t = np.arange(len(row))
    line = np.polyval(np.polyfit(t[known], row[known], 1), t) if known.sum() > 1 else row.mean()
    moved = np.where(known, row - line, 0)
    pairs = np.array([known[k:] @ known[: len(row) - k].astype(int) for k in t])
    covariance = np.array([moved[k:] @ moved[: len(row) - k] for k in t]) / np.maximum(pairs, 1)
    correlation = covariance / max(covariance[0], 1e-6)
    changes = np.diff(row) * known[1:] * known[:-1]
    changes = changes - changes.mean()
    again = np.array([changes[k:] @ changes[: max(0, len(changes) - k)] for k in t])
    correlation[(pairs <= 3) | (t >= len(row) - known.argmax())] = 0
    return correlation, again / max(again[0], 1e-6)


def seasons(row: Row, known: Row, told: int) -> tuple[int, int]:
    """Return the season, and a longer one."""
    count = len(row) - int(known.argmax())
    correlation, again = correlations(row, known)
    rise = correlation - np.minimum.accumulate(correlation)
    period = 1
    if 1 < told < count and (count < 2 * told or rise[told] > 0.1):
        period = told
    else:
        heights = np.zeros(len(row))
        for lag in range(2, min(len(row) - 2, count // 2) + 1):
            top = correlation[lag - 1] <= correlation[lag] > correlation[lag + 1]
            comes_again = again[lag] > max(0.08, 2 / np.sqrt(count))
            if top and rise[lag] > 0.4 and correlation[lag] > 0.25 and comes_again:
                heights[lag] = correlation[lag]
        if heights.any():
            period = int((heights >= 0.9 * heights.max()).argmax())
    week = 7 * period
    if period >= 20 and week < 0.7 * count and correlation[week] > correlation[period]:
        return period, week
    return period, period


def expected(row: Row, known: Row, ways: list[tuple[float, float, float]]) -> Row:
    """Return what the smoothing of a level and its slope expects that errs least a step ahead."""
    errors: list[float] = []
    courses: list[Row] = []
    for of_level, of_slope, kept in ways:
        level, slope, error = row[0], 0.0, 0.0
        for step in range(1, len(row)):
            missed = row[step] - level - kept * slope
            error += known[step] * missed**2
            level = level + kept * slope + of_level * missed
            slope = kept * slope + of_level * of_slope * missed
        errors.append(error)
        courses.append(level + slope * np.cumsum(kept ** np.arange(1, HORIZON + 1)))
    return courses[int(np.argmin(errors))]


def smoothed(row: Row, known: Row, first: int, period: int, begin: int) -> tuple[Row, Row, Row]:
    """Return "level", "theta" and "damped", which smooth from the step `begin` on."""
    n, half = len(row), period // 2
    starts = np.arange(n) - half
    inside = (starts >= first) & (starts + period <= n)
    trend = np.empty(n)
    for step in range(n):
        start = min(max(starts[step], min(first, n - period)), n - period)
        trend[step] = row[start : start + period].mean()
        if inside[step] and period % 2 == 0 and start + period < n:
            trend[step] += 0.5 * (row[start + period] - row[start]) / period
    if not inside.any():
        inside[:] = True
    ago = n - 1 - np.arange(n)
    weights = known * inside * 0.85 ** np.minimum(ago // period, 40)
    season = np.zeros(period)
    if period > 1:
        for phase in range(period):
            of = ago % period == phase
            season[phase] = (weights * (row - trend))[of].sum() / max(weights[of].sum(), 1e-6)
        season -= season.mean()
    adjusted = row - season[ago % period]
    ahead = np.arange(1, HORIZON + 1)
    again = season[-ahead % period]
    t = np.arange(n)
    slope = np.polyfit(t[known], adjusted[known], 1)[0] if known.sum() > 1 else 0.0
    fading = known * (1 - (0.5 / period if period > 1 else 0.1)) ** ago
    steady = (fading * adjusted).sum() / max(fading.sum(), 1e-6)
    rest = adjusted[begin:], known[begin:]
    level = expected(*rest, [(rate, 0.0, 0.0) for rate in (0.05, 0.2, 0.5, 1.0)])
    damped = expected(*rest, list(product((0.05, 0.2, 0.5, 0.9), (0.05, 0.2), (0.9, 0.98))))
    return steady + again, level + again + 0.5 * slope * ahead, damped + again


def regression(row: Row, known: Row, first: int, short: int, long: int, seasonal: Row) -> Row:
    """Return the forecast of a regression on lags."""
    n, none = len(row), short == 1
    other = long if long > short else 2 * short
    lags = [1, 2, 3]
    lags += [4, 6, 8, 12] if none else [max(1, lag) for lag in (short - 1, short, short + 1, other)]
    lags = [min(lag, max(1, (n - first) // 2)) for lag in lags]
    used = [t for t in range(first + max(lags), n) if known[t]]
    if len(used) < 24:
        return seasonal
    prior = np.zeros(8)
    prior[0 if none else 4] = 1
    x = np.array([[*(row[t - lag] for lag in lags), 1.0] for t in used])
    weights = prior + np.linalg.solve(x.T @ x + 2 * np.eye(8), x.T @ (row[used] - x @ prior))
    spread = 0.5 * (row.max() - row.min())
    course = list(row)
    for _ in range(HORIZON):
        step = weights @ [*(course[-lag] for lag in lags), 1.0]
        course.append(np.clip(step, row.min() - spread, row.max() + spread))
    return np.array(course[n:])


def plain(row: Row, known: Row, periods: tuple[int, int], offset: float | None) -> Row:
    """Return all forecasts, (K, H), of what is known of one history."""
    n, first = len(row), int(known.argmax()) if known.any() else len(row) - 1
    short, long = (min(each, max(1, n - first)) for each in periods)
    steps = np.arange(HORIZON)
    seasonal, far = row[n - short + steps % short], row[n - long + steps % long]
    before = n - 2 * short + steps % short
    before = np.where(before >= first, row[np.maximum(before, 0)], seasonal)
    begin = first if offset is None else 0
    level, theta, damped = smoothed(row, known, first, long, begin)
    growing = theta
    if offset is not None and row[known].min(initial=np.inf) + offset > 0.02 and offset < 100:
        logs = np.log(np.maximum(row + offset, 0.02))
        growing = np.exp(np.minimum(smoothed(logs, known, first, long, begin)[1], 12)) - offset
    courses = {
        "last": np.full(HORIZON, row[-1]),
        "seasonal": seasonal,
        "longer": far if long > short else (seasonal + before) / 2,
        "level": level,
        "theta": theta,
        "growing": growing,
        "damped": damped,
        "regression": regression(row, known, first, short, long, seasonal),
    }
    width = row.max() - row.min()
    names = NAMES_OF_VALUES if offset is None else NAMES
    return np.stack([courses[name] for name in names]).clip(row.min() - width, row.max() + width)


def cut(row: Row, known: Row, count: int) -> tuple[Row, Row]:
    """Return a history without its end, moved to the end."""
    front = np.full(count, row[0]), np.zeros(count, bool)
    return (
        np.concatenate((front[0], row[: len(row) - count])),
        np.concatenate((front[1], known[: len(row) - count])),
    )


def check(
    found: ClassicalForecasts, which: int, row: Row, known: Row, told: int, offset: float | None
) -> None:
    """Compare one history of many with what is plainly said of it."""
    periods = seasons(row, known, told)
    assert found.periods[which].tolist() == list(periods)
    wanted = plain(row, known, periods, offset)
    np.testing.assert_allclose(found.courses[which], wanted, rtol=2e-4, atol=2e-4)
    held = int(np.clip((len(row) - known.argmax()) // 5, 1, HORIZON))
    away, count = np.zeros(len(NAMES)), 0
    for times in (1, 2):
        less = plain(*cut(row, known, times * held), periods, offset)[:, :held]
        rows = slice(len(row) - times * held, len(row) - times * held + held)
        away += (np.abs(less - row[rows]) * known[rows]).sum(1)
        count += int(known[rows].sum())
    np.testing.assert_allclose(found.errors[which], away / max(1, count), rtol=1e-3, atol=2e-4)


def special() -> tuple[Row, Row]:
    """Return histories at the edges, and where they are known."""
    t = np.arange(STEPS)
    rng = np.random.default_rng(0)
    demand = np.where(rng.random(STEPS) < 0.15, rng.poisson(3, STEPS), 0.0)
    hours = np.sin(2 * np.pi * t / 24) * (1 + 0.2 * (t // 24 % 7 == 5))
    growth = np.exp(0.01 * t) * (2 + np.sin(2 * np.pi * t / 12))
    rows = np.stack((demand, hours + 0.1 * rng.standard_normal(STEPS), growth, growth, growth))
    known = np.ones(rows.shape, bool)
    known[2, 60:75] = False
    known[3, :150] = False
    known[4] = rng.random(STEPS) < 0.6
    return rows, known


def drawn(count: int = 60) -> tuple[Row, Row, Row]:
    """Return histories of all kinds, where they are known, and the season that is told."""
    windows = generate(3, count, length=STEPS + HORIZON, horizon=HORIZON)
    rows, known = special()
    values = np.concatenate((rows, windows.values[:, 0, :STEPS]))
    told = np.concatenate((np.array([0, 24, 12, 12, 0]), windows.seasons))
    told[::4] = 0  # to be found
    return values, np.concatenate((known, windows.known[:, 0, :STEPS])), told


@pytest.mark.parametrize("zero_is_known", [True, False])
def test_many_histories_at_once_are_forecast_as_each_by_itself(zero_is_known: bool) -> None:
    values, known, told = drawn()
    count = np.maximum(known.sum(1, keepdims=True), 1)
    level = (values * known).sum(1, keepdims=True) / count
    deviation = np.sqrt((((values - level) * known) ** 2).sum(1, keepdims=True) / count)
    deviation = np.where(deviation > 0, deviation, 1)
    standard = torch.from_numpy((values - level) / deviation).float()
    filled = interpolate_gaps(standard, torch.from_numpy(known))
    offset = torch.from_numpy((level / deviation)[:, 0]).float() if zero_is_known else None
    found = classical_forecasts(
        filled,
        torch.from_numpy(known),
        HORIZON,
        offset=offset,
        seasons=torch.from_numpy(told),
    )
    found_seasons = set()
    for which, (row, each) in enumerate(zip(filled.double().numpy(), known, strict=True)):
        zero = None if offset is None else float(offset[which])
        check(found, which, row, each, int(told[which]), zero)
        found_seasons.add(int(found.periods[which, 0]))
    assert len(found_seasons) > 6


def test_where_nothing_moves_every_forecast_stays() -> None:
    still = torch.zeros(3, 40)
    known = torch.ones(3, 40, dtype=torch.bool)
    known[1, :39] = False
    known[2] = False
    found = classical_forecasts(
        still, known, 5, offset=torch.ones(3), seasons=torch.tensor([0, 12, 12])
    )
    torch.testing.assert_close(found.courses, torch.zeros_like(found.courses), rtol=0, atol=1e-6)
    assert found.counts.tolist() == [40, 1, 1]


@pytest.mark.parametrize("steps", [2, 5, 33])
def test_a_lookback_of_any_length_is_read(steps: int) -> None:
    values = torch.randn(4, steps, generator=torch.Generator().manual_seed(0))
    found = classical_forecasts(
        values,
        torch.ones_like(values, dtype=torch.bool),
        7,
        offset=torch.zeros(4),
        seasons=torch.tensor([0, 1, 4, 24]),
    )
    assert found.courses.isfinite().all()
    assert found.errors.isfinite().all()


def test_many_parts_are_joined_in_their_order() -> None:
    values = torch.randn(300, 48, generator=torch.Generator().manual_seed(0))
    known = torch.ones_like(values, dtype=torch.bool)
    seasons = torch.arange(300) % 3 * 6

    def forecast(rows: slice) -> ClassicalForecasts:
        return classical_forecasts(
            values[rows], known[rows], 6, offset=torch.zeros(300)[rows], seasons=seasons[rows]
        )

    whole, late = forecast(slice(None)), forecast(slice(250, 300))
    assert whole.periods[250:].tolist() == late.periods.tolist()
    torch.testing.assert_close(whole.courses[250:], late.courses, rtol=1e-4, atol=1e-4)
    assert len(whole.counts) == 300


def test_nothing_is_computed_beside_the_device_of_the_histories() -> None:
    values = torch.empty(6, 64, device="meta")  # which refuses to be mixed with others
    found = classical_forecasts(
        values,
        values > 0,
        8,
        offset=values[:, 0],
        seasons=torch.empty(6, dtype=torch.int64, device="meta"),
    )
    assert found.courses.device.type == found.errors.device.type == "meta"
    assert found.courses.shape == (6, len(NAMES), 8)
