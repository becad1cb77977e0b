"""Classical forecasts in closed form, of many short histories at once.

    0 "last"        the last value
    1 "seasonal"    the last season again
    2 "longer"      the last longer season again, or the mean of the last two
    3 "level"       mean season + mean level of the last two seasons or so
    4 "theta"       mean season + exponentially smoothed level + half a straight line's slope
    5 "growing"     the same of the logarithms, where all is positive
    6 "regression"  on a few lags, around the season, held towards "seasonal"; fed its own forecasts

They are what a pretrained network starts from and is told, see `tsm2.networks.zero`. Each is made
of the whole history, and of the history without its last fifth and two fifths, at most one and two
horizons, which tells how far it errs.

Sizes: N histories, T time steps, H horizon, K forecasts.
Sources: Assimakopoulos & Nikolopoulos (2000), Int. Journal of Forecasting 16(4), for theta;
Gardner (2006), ibid. 22(4), for exponential smoothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAMES", "ClassicalForecasts", "classical_forecasts", "find_periods"]

Numbers = NDArray[np.float32]
Whole = NDArray[np.int64]

NAMES = ("last", "seasonal", "longer", "level", "theta", "growing", "regression")
"""The K forecasts."""

_SMOOTHING = (0.05, 0.2, 0.5, 1.0)
_HELD, _CUTS = 5, 2  # a share of a fifth is held out, two times
_STEADY = 0.1  # smoothing of a level that hardly follows, where there is no season
_CYCLE_DECAY = 0.85  # weight of a season beside the one after it
_FEWEST = 24  # steps to regress on
_RIDGE = 2.0  # steps
_TINY = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassicalForecasts:
    """Forecasts of histories in standard units: minus their mean, over their deviation."""

    courses: Numbers
    """Forecasts, (N, K, H)."""
    errors: Numbers
    """Mean absolute error of each over the end of the history, (N, K)."""
    naive: Numbers
    """Mean absolute difference from a season before, (N,)."""
    periods: Whole
    """Steps of the season and of the longer one, (N, 2); 1 for none."""
    strengths: Numbers
    """Autocorrelations at these steps, (N, 2)."""
    counts: Whole
    """Steps of each history from the first known one on, (N,)."""


def classical_forecasts(
    values: Numbers,
    known: NDArray[np.bool_],
    horizon: int,
    *,
    offset: Numbers,
    seasons: Whole,
) -> ClassicalForecasts:
    """Forecast histories.

    Parameters
    ----------
    values
        In standard units, (N, T), oldest first, with gaps filled; before the first known value it
        is repeated.
    known
        Where they are known, (N, T).
    horizon
        Steps H to forecast.
    offset
        Mean of each history in deviations, (N,): a value plus it is positive where the history's
        is.
    seasons
        Steps of the season that the frequency tells, (N,); 0 for none.
    """
    n, steps = values.shape
    first = np.where(known.any(1), known.argmax(1), steps - 1)
    weights = known.astype(np.float32)
    periods, strengths = find_periods(values, weights, first, seasons)
    held = np.clip((steps - first) // _HELD, 1, horizon)
    histories, known_parts, firsts = [values], [weights], [first]
    for cut in range(1, _CUTS + 1):
        place = np.arange(steps) - cut * held[:, None]  # without its end, moved to the end
        at = np.maximum(place, 0)
        histories.append(np.take_along_axis(values, at, 1))
        known_parts.append(np.take_along_axis(weights, at, 1) * (place >= 0))
        firsts.append(np.minimum(first + cut * held, steps - 1))
    courses = _forecasts(
        np.concatenate(histories),
        np.concatenate(known_parts),
        np.concatenate(firsts),
        np.tile(periods, (_CUTS + 1, 1)),
        horizon,
        np.tile(offset, _CUTS + 1),
    ).reshape(_CUTS + 1, n, len(NAMES), horizon)
    ahead = np.arange(horizon)
    away, total = np.zeros((n, len(NAMES))), np.zeros((n, 1))
    for cut in range(1, _CUTS + 1):
        place = np.minimum(steps - cut * held[:, None] + ahead, steps - 1)
        counted = np.take_along_axis(weights, place, 1) * (ahead < held[:, None])
        target = np.take_along_axis(values, place, 1)
        away += (np.abs(courses[cut] - target[:, None]) * counted[:, None]).sum(-1)
        total += counted.sum(-1, keepdims=True)
    errors = away / np.maximum(total, 1)
    naive = _seasonal_difference(values, weights, periods[:, 0])
    return ClassicalForecasts(
        courses=courses[0],
        errors=errors.astype(np.float32),
        naive=naive,
        periods=periods,
        strengths=strengths,
        counts=steps - first,
    )


# --- seasons --------------------------------------------------------------------------------------


def find_periods(
    values: Numbers, weights: Numbers, first: Whole, seasons: Whole
) -> tuple[Whole, Numbers]:
    """Find the season of each history, and a longer one, by its autocorrelation.

    Parameters
    ----------
    values, weights
        Histories, (N, T), and 1 where they are known, else 0.
    first
        First known step, (N,).
    seasons
        What the frequency tells, (N,): taken where the history does not speak against it.

    Returns
    -------
    Steps of both, (N, 2), and the autocorrelations there.
    """
    n, steps = values.shape
    rows = np.arange(n)
    counts = steps - first
    moved = weights * (values - _line(values, weights)[0])
    transformed = np.fft.rfft(moved, 2 * steps)
    present = np.fft.rfft(weights, 2 * steps)
    covariance = np.fft.irfft(np.abs(transformed) ** 2)[:, :steps]
    pairs = np.fft.irfft(np.abs(present) ** 2)[:, :steps]
    correlation = covariance / np.maximum(pairs, 1)
    correlation = correlation / np.maximum(correlation[:, :1], _TINY)
    lags = np.arange(steps)
    correlation = np.where((pairs > 3) & (lags < counts[:, None]), correlation, 0)
    rise = correlation - np.minimum.accumulate(correlation, 1)  # above the lowest before
    told = np.minimum(seasons, steps - 1)
    few = counts < 2 * told
    trusted = (told > 1) & (counts > told) & (few | (rise[rows, told] > 0.1))
    peaks = np.zeros_like(correlation, dtype=bool)
    peaks[:, 2:-1] = (correlation[:, 2:-1] >= correlation[:, 1:-2]) & (
        correlation[:, 2:-1] > correlation[:, 3:]
    )
    peaks &= (rise > 0.4) & (correlation > 0.25) & (lags <= (counts // 2)[:, None])
    # A random walk turns by chance; its steps from one row to the next do not come round again.
    changes = np.diff(values, axis=1) * weights[:, 1:] * weights[:, :-1]
    moves = np.fft.rfft(changes - changes.mean(1, keepdims=True), 2 * steps)
    again = np.fft.irfft(np.abs(moves) ** 2)[:, :steps]
    again = again / np.maximum(again[:, :1], _TINY)
    peaks &= again > np.maximum(0.08, 2.0 / np.sqrt(np.maximum(counts, 4)))[:, None]
    height = np.where(peaks, correlation, 0)
    seen = (height >= 0.9 * np.maximum(height.max(1, keepdims=True), _TINY)).argmax(1)
    period = np.where(trusted, told, np.where(height.max(1) > 0, seen, 1))
    week = 7 * period
    reach = (period >= 20) & (week < counts * 0.7)
    at_week = correlation[rows, np.minimum(week, steps - 1)]
    longer = np.where(reach & (at_week > correlation[rows, period]), week, period)
    found: Whole = np.stack((period, longer), 1).astype(np.int64)
    return found, correlation[rows[:, None], found].astype(np.float32)


def _seasonal_difference(values: Numbers, weights: Numbers, period: Whole) -> Numbers:
    """Return the mean absolute difference from a season before, (N,), of what is known."""
    place = np.arange(values.shape[1]) - period[:, None]
    at = np.maximum(place, 0)
    counted = weights * np.take_along_axis(weights, at, 1) * (place >= 0)
    away = np.abs(values - np.take_along_axis(values, at, 1)) * counted
    mean: Numbers = (away.sum(1) / np.maximum(counted.sum(1), 1)).astype(np.float32)
    return mean


def _line(values: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Return the straight line of least squares, (N, T), and its slope per step, (N,)."""
    t = np.arange(values.shape[1], dtype=np.float32)
    total = np.maximum(weights.sum(1, keepdims=True), 1)
    middle = (weights * t).sum(1, keepdims=True) / total
    mean = (weights * values).sum(1, keepdims=True) / total
    away = (t - middle) * weights
    slope = (away * (values - mean)).sum(1, keepdims=True) / np.maximum(
        (away * (t - middle)).sum(1, keepdims=True), 1
    )
    return mean + slope * (t - middle), slope[:, 0]


# --- forecasts ------------------------------------------------------------------------------------


def _forecasts(
    values: Numbers, weights: Numbers, first: Whole, periods: Whole, horizon: int, offset: Numbers
) -> Numbers:
    """Return all forecasts, (N, K, H)."""
    steps = values.shape[1]
    ahead = np.arange(horizon)
    usable = np.minimum(periods, np.maximum(steps - first, 1)[:, None])
    short, long = usable.T
    last = np.repeat(values[:, -1:], horizon, 1)
    seasonal = np.take_along_axis(values, steps - short[:, None] + ahead % short[:, None], 1)
    before = np.maximum(steps - 2 * short[:, None] + ahead % short[:, None], 0)
    before = np.where(before >= first[:, None], np.take_along_axis(values, before, 1), seasonal)
    far = np.take_along_axis(values, steps - long[:, None] + ahead % long[:, None], 1)
    longer = np.where((long > short)[:, None], far, 0.5 * (seasonal + before))
    level, theta = _smoothed(values, weights, first, long, horizon)
    growing = theta.copy()
    smallest = np.where(weights > 0, values, np.inf).min(1)
    positive = np.flatnonzero((smallest + offset > 0.02) & (offset < 100))
    if len(positive):
        logs = np.log(np.maximum(values[positive] + offset[positive, None], 0.02))
        _, grown = _smoothed(logs, weights[positive], first[positive], long[positive], horizon)
        growing[positive] = np.exp(np.minimum(grown, 12)) - offset[positive, None]
    regression = _regression(values, weights, first, usable, horizon, seasonal)
    courses = np.stack((last, seasonal, longer, level, theta, growing, regression), 1)
    smallest, largest = values.min(1)[:, None, None], values.max(1)[:, None, None]
    width = largest - smallest
    clipped: Numbers = np.clip(courses, smallest - width, largest + width).astype(np.float32)
    return clipped


def _smoothed(
    values: Numbers, weights: Numbers, first: Whole, period: Whole, horizon: int
) -> tuple[Numbers, Numbers]:
    """Return the forecasts "level" and "theta", (N, H)."""
    from scipy.signal import lfilter  # takes a moment, and whoever fits does not need it

    n, steps = values.shape
    t = np.arange(steps)
    rows = np.arange(n)[:, None]
    sums = np.zeros((n, steps + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    width = period[:, None]
    start = t - width // 2
    inside = (start >= first[:, None]) & (start + width <= steps)
    start = np.clip(start, np.minimum(first[:, None], steps - width), steps - width)
    trend = (
        np.take_along_axis(sums, start + width, 1) - np.take_along_axis(sums, start, 1)
    ) / width
    even = inside & (width % 2 == 0) & (start + width < steps)
    after = np.take_along_axis(values, np.minimum(start + width, steps - 1), 1)
    trend = np.where(
        even, trend + 0.5 * (after - np.take_along_axis(values, start, 1)) / width, trend
    )
    inside |= ~inside.any(1, keepdims=True)
    ago = steps - 1 - t
    phase, cycle = ago % width, ago // width
    counted = weights * inside * _CYCLE_DECAY ** np.minimum(cycle, 40)
    most = int(period.max())
    flat = (rows * most + phase).ravel()
    away = (values - trend) * counted
    total = np.bincount(flat, counted.ravel(), n * most).reshape(n, most)
    season = np.bincount(flat, away.ravel(), n * most).reshape(n, most) / np.maximum(total, _TINY)
    season -= season.sum(1, keepdims=True) / width  # phases beyond the period are zero
    season = np.where((np.arange(most) < width) & (width > 1), season, 0)
    adjusted: Numbers = (values - np.take_along_axis(season, phase, 1)).astype(np.float32)
    ends, errors = [], []
    for alpha in _SMOOTHING:
        a = np.float32(alpha)
        smooth = adjusted
        if alpha < 1:
            begun = (1 - a) * adjusted[:, :1]
            smooth, _ = lfilter(np.array([a]), np.array([1, a - 1]), adjusted, zi=begun)
        errors.append(((adjusted[:, 1:] - smooth[:, :-1]) ** 2 * weights[:, 1:]).sum(1))
        ends.append(smooth[:, -1])
    best = np.argmin(errors, 0)
    level = np.stack(ends)[best, rows[:, 0]][:, None]
    ahead = np.arange(1, horizon + 1)
    again = np.take_along_axis(season, -ahead % width, 1)
    _, slope = _line(adjusted, weights)
    rate = np.where(width > 1, 0.5 / width, _STEADY)
    fading = weights * np.exp(np.log1p(-rate) * ago).astype(np.float32)
    steady = (fading * adjusted).sum(1, keepdims=True) / np.maximum(
        fading.sum(1, keepdims=True), _TINY
    )
    return steady + again, level + again + 0.5 * slope[:, None] * ahead


def _regression(
    values: Numbers,
    weights: Numbers,
    first: Whole,
    periods: Whole,
    horizon: int,
    seasonal: Numbers,
) -> Numbers:
    """Return the forecast of a regression on lags, (N, H); "seasonal" where too little is known."""
    n, steps = values.shape
    short, long = periods.T
    none = short == 1
    around = [short - 1, short, short + 1, np.where(long > short, long, 2 * short)]
    others = (4, 6, 8, 12)
    lags = [np.full(n, k) for k in (1, 2, 3)]
    lags += [np.where(none, k, np.maximum(lag, 1)) for k, lag in zip(others, around, strict=True)]
    lag = np.minimum(np.stack(lags, 1), np.maximum((steps - first) // 2, 1)[:, None])  # (N, G)
    t = np.arange(steps)
    design = np.ones((n, lag.shape[1] + 1, steps), np.float32)
    for k, each in enumerate(lag.T):
        place = np.maximum(t - each[:, None], 0)
        design[:, k] = np.take_along_axis(values, place, 1)
    counted = weights * (t >= (first + lag.max(1))[:, None])
    prior = np.zeros((n, design.shape[1]), np.float32)
    prior[np.arange(n), np.where(none, 0, 4)] = 1
    rest = (values - np.matmul(prior[:, None], design)[:, 0]) * counted
    weighed = design * counted[:, None]
    gram = np.matmul(weighed, design.transpose(0, 2, 1)).astype(np.float64)
    gram += _RIDGE * np.eye(design.shape[1])
    right = np.matmul(design, rest[..., None]).astype(np.float64)
    weight = prior + np.linalg.solve(gram, right)[..., 0].astype(np.float32)
    smallest, largest = values.min(1), values.max(1)
    spread = 0.5 * (largest - smallest)
    longest = int(lag.max())
    course = np.empty((n, longest + horizon), np.float32)
    course[:, :longest] = values[:, steps - longest :]
    for k in range(longest, longest + horizon):
        read = np.take_along_axis(course, k - lag, 1)
        step = (read * weight[:, :-1]).sum(1) + weight[:, -1]
        course[:, k] = np.clip(step, smallest - spread, largest + spread)
    enough = counted.sum(1) >= _FEWEST
    return np.where(enough[:, None], course[:, longest:], seasonal)
