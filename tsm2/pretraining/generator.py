"""Series that nobody owns: windows drawn at random, of many kinds, for a network to learn from.

    value = trend + seasons + smooth process + noise        each with a random share, or none
    then, of some rows: level shifts, regimes, an exponential, counts, intermittent demand, a floor,
    rounding, outliers; and, of several variates, common factors with leads and lags

Seasons have the periods of real frequencies. Those of calendars are irregular, as calendars are: a
month of daily rows has 28 to 31 of them, a year 365 or 366. The smooth processes are Gaussian, with
random kernels, drawn by random Fourier features; noise is white, ARMA, or a random walk. Shapes of
seasons are looked up in a table that is drawn anew for every call, so that a sample costs some tens
of nanoseconds. All depends on the seed alone.

Sizes: W windows, M variates, R = W M rows, T time steps, K factors.
Sources: Rahimi & Recht (2007), "Random features for large-scale kernel machines", for the smooth
processes; the idea of learning from generated series alone: Dooley et al. (2023),
arXiv:2311.01933, and Ansari et al. (2024), arXiv:2403.07815, section 4.2.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsm2.errors import ParameterError
from tsm2.pretraining.loops import add_factors, add_season, filter_rows

__all__ = ["FREQUENCIES", "Frequency", "GeneratedWindows", "generate"]

Numbers = NDArray[np.float32]


class Frequency(NamedTuple):
    """What is drawn for windows of one frequency."""

    share: float
    """How often it is drawn, beside the others."""
    season: int
    """Rows of the season that the frequency tells; 0 if it tells none."""
    periods: tuple[float | str, ...]
    """Rows of its seasons, or the name of a calendar's: "month" and "year"."""
    shortest: int
    """Rows that a history has at least."""


FREQUENCIES = {
    "10min": Frequency(1.0, 144, (144.0, "none", "none"), 150),
    "15min": Frequency(1.5, 96, (96.0, 672.0, "none"), 100),
    "30min": Frequency(1.0, 48, (48.0, 336.0, "none"), 64),
    "h": Frequency(3.0, 24, (24.0, 168.0, "none"), 48),
    "D": Frequency(2.0, 7, (7.0, "month", "year"), 28),
    "B": Frequency(1.0, 5, (5.0, 21.0, 261.0), 20),
    "W": Frequency(1.0, 52, (52.18, 13.04, "none"), 40),
    "M": Frequency(2.0, 12, (12.0, 6.0, "none"), 18),
    "Q": Frequency(1.5, 4, (4.0, 2.0, "none"), 10),
    "Y": Frequency(0.7, 0, ("none", "none", "none"), 8),
    "other": Frequency(1.5, 0, ("any", "any", "none"), 24),
}
"""By the alias of pandas; "other" has rows without stamps and seasons of any length."""

_LONGEST_LAG = 24
_PLAIN = 0.12  # share of rows that are noise alone, half of them random walks
_SHAPES, _PHASES = 192, 512
_FEATURES = 5  # of a smooth process
_DAYS = 36_525


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedWindows:
    """Windows, the newest steps last."""

    values: Numbers
    """Values, (W, M, T), finite even where they are unknown."""
    known: NDArray[np.bool_]
    """Where they are known, (W, M, T): short histories are unknown in front, and some have gaps."""
    seasons: NDArray[np.int64]
    """Rows of the season that the frequency of each window tells, (W,); 0 for none."""


def generate(
    seed: int | list[int], count: int, *, variates: int = 1, length: int = 576, horizon: int = 64
) -> GeneratedWindows:
    """Draw windows.

    Parameters
    ----------
    seed
        Seed, or several numbers that make one up, as `numpy.random.default_rng` takes them.
    count
        Windows W.
    variates
        Variates M of every window.
    length
        Time steps T.
    horizon
        The last steps, which are known in any case but for gaps.

    Raises
    ------
    ParameterError
        A size is below 1, or no history is left before the horizon.

    Examples
    --------
    >>> windows = generate(0, 8, variates=2)
    >>> windows.values.shape, windows.known.shape
    ((8, 2, 576), (8, 2, 576))
    """
    if min(count, variates, horizon) < 1 or length <= horizon:
        raise ParameterError(
            f"count, variates and horizon must be at least 1 and length above the horizon, got "
            f"{count}, {variates}, {horizon} and {length}"
        )
    rng = np.random.Generator(np.random.SFC64(seed))
    names = list(FREQUENCIES)
    shares = np.array([FREQUENCIES[name].share for name in names])
    which = rng.choice(len(names), size=count, p=shares / shares.sum())
    of_rows = np.repeat(which, variates)
    longer = length + (_LONGEST_LAG if variates > 1 else 0)
    rows = _rows(rng, of_rows, longer, variates)
    if variates > 1:
        rows = _common_factors(rng, rows.reshape(count, variates, longer), length)
    values = _spoilt(rng, rows.reshape(-1, length)).reshape(count, variates, length)
    known = _known(rng, which, values.shape, horizon)
    seasons = np.array([FREQUENCIES[name].season for name in names])[which]
    return GeneratedWindows(values=values, known=known, seasons=seasons)


# --- what a row is made of ------------------------------------------------------------------------


def _rows(
    rng: np.random.Generator, frequency: NDArray[np.int64], steps: int, variates: int
) -> Numbers:
    """Return rows, (R, T), of the frequencies, (R,), in units of about one deviation."""
    n = len(frequency)
    rows = _noise(rng, n, steps)
    rows *= _column(np.exp(rng.uniform(np.log(0.03), np.log(1.5), n)))
    _regimes(rng, rows)
    plain = np.flatnonzero(rng.random(n) < _PLAIN)
    noise = rows[plain]
    walks = rng.random(len(plain)) < 0.5
    noise[walks] = np.cumsum(rng.standard_normal((int(walks.sum()), steps), dtype=np.float32), 1)
    _add_trends(rng, rows)
    _add_smooth(rng, rows)
    _add_seasons(rng, rows, frequency, variates)
    rows[plain] = noise
    return rows


def _noise(rng: np.random.Generator, n: int, steps: int) -> Numbers:
    """Return noise of unit deviation: white, ARMA, random walks and their damped sums."""
    noise = rng.standard_normal((n, steps), dtype=np.float32)
    heavy = rng.random(n) < 0.25
    noise[heavy] *= np.exp(0.6 * rng.standard_normal((int(heavy.sum()), steps), dtype=np.float32))
    groups = rng.integers(0, 32, n)
    for group in range(1, 24):  # the others stay white
        chosen = np.flatnonzero(groups == group)
        if not len(chosen):
            continue
        moving = rng.uniform(-0.6, 0.9) if group % 3 == 0 else 0.0
        if group < 10:
            poles = -rng.uniform(0.2, 0.98), 0.0
        elif group < 14:  # turns round like a cycle that nobody set a clock by
            r, angle = rng.uniform(0.8, 0.99), 2 * np.pi / rng.uniform(5, 80)
            poles = -2 * r * np.cos(angle), r * r
        elif group < 21:
            poles = -1.0, 0.0
        else:  # a random walk with a trend that wanders and fades
            fading = rng.uniform(0.7, 0.97)
            poles = -1.0 - fading, fading
        filter_rows(noise, chosen, moving, poles)
    noise -= noise.mean(1, keepdims=True)
    noise /= noise.std(1, keepdims=True) + 1e-6
    return noise


def _regimes(rng: np.random.Generator, noise: Numbers) -> None:
    """Let the size of some rows' noise change, at once or slowly, or come and go."""
    n, steps = noise.shape
    t = np.arange(steps, dtype=np.float32)
    changing = np.flatnonzero(rng.random(n) < 0.12)
    at = rng.integers(0, steps, (len(changing), 1))
    factor = np.exp(rng.normal(0, 0.8, (len(changing), 1))).astype(np.float32)
    noise[changing] *= np.where(t >= at, factor, np.float32(1))
    slowly = np.flatnonzero(rng.random(n) < 0.12)
    period, phase = rng.uniform(10, 400, (len(slowly), 1)), rng.random((len(slowly), 1))
    wave = np.sin((2 * np.pi) * (t / period.astype(np.float32) + phase.astype(np.float32)))
    noise[slowly] *= 1 + np.float32(0.8) * wave


def _add_trends(rng: np.random.Generator, rows: Numbers) -> None:
    """Add straight, bent, growing and saturating trends to a part of the rows."""
    n, steps = rows.shape
    t = np.linspace(-1, 1, steps, dtype=np.float32)
    kinds = rng.integers(0, 10, n)
    for kind in range(6):
        chosen = np.flatnonzero(kinds == kind)
        size = (rng.standard_normal((len(chosen), 1)) * 1.2).astype(np.float32)
        bend = rng.uniform(-1, 1, (len(chosen), 1)).astype(np.float32)
        if kind <= 2:
            shape = np.broadcast_to(t, (len(chosen), steps))
        elif kind == 3:  # bent at a step
            turn = rng.standard_normal((len(chosen), 1)).astype(np.float32)
            shape = t + turn * np.maximum(t - bend, 0)
        elif kind == 4:  # grows ever faster, or ever slower
            shape = np.expm1((0.5 + 1.5 * np.abs(bend)) * t * np.sign(bend))
        else:  # saturates
            shape = 2 * np.tanh((t - bend) * rng.uniform(1, 8, (len(chosen), 1)).astype(np.float32))
        rows[chosen] += size * shape


def _add_smooth(rng: np.random.Generator, rows: Numbers) -> None:
    """Add Gaussian processes with random kernels to a part of the rows."""
    n, steps = rows.shape
    chosen = np.flatnonzero(rng.random(n) < 0.25)
    scale = np.exp(rng.uniform(np.log(8), np.log(400), (len(chosen), 1)))
    rough = rng.random((len(chosen), 1)) < 0.5  # Matern's spectrum is that of Student's t
    draws = rng.standard_normal((len(chosen), _FEATURES))
    heavy = draws / np.sqrt(rng.chisquare(3, (len(chosen), _FEATURES)) / 3)
    omega = (np.where(rough, heavy, draws) / scale).astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi, (len(chosen), _FEATURES)).astype(np.float32)
    size = np.exp(rng.normal(-0.3, 0.6, (len(chosen), 1))).astype(np.float32)
    t = np.arange(steps, dtype=np.float32)
    total = np.zeros((len(chosen), steps), dtype=np.float32)
    for k in range(_FEATURES):
        total += np.cos(omega[:, k : k + 1] * t + phase[:, k : k + 1])
    rows[chosen] += size * np.float32(np.sqrt(2 / _FEATURES)) * total


# --- seasons --------------------------------------------------------------------------------------


def _add_seasons(
    rng: np.random.Generator, rows: Numbers, frequency: NDArray[np.int64], variates: int
) -> None:
    """Add none to three seasons to every row, some of which grow, shrink or come and go."""
    n, steps = rows.shape
    shapes = _shapes(rng)
    first = np.repeat(rng.integers(0, _DAYS - 8 * steps, n // variates), variates)  # of each window
    names = list(FREQUENCIES)
    alike = np.repeat(rng.random(n // variates) < 0.5, variates)  # variates share a shape
    for place, share in enumerate((0.75, 0.4, 0.3)):
        active = rng.random(n) < share
        shape: NDArray[np.int64] = np.asarray(rng.integers(0, _SHAPES, n))
        shape = np.where(alike, np.repeat(shape[::variates], variates), shape)
        drawn = np.exp(rng.uniform(np.log(2.5), np.log(250), n // variates))
        any_period = np.repeat(drawn, variates)
        size = np.exp(rng.normal(0.0 if place == 0 else -0.6, 0.7, n)).astype(np.float32)
        for number, name in enumerate(names):
            period = FREQUENCIES[name].periods[place]
            if period == "none":
                continue
            chosen = np.flatnonzero(active & (frequency == number))
            if not len(chosen):
                continue
            lengths = any_period[chosen] if period == "any" else period
            phase = _phase(first[chosen], lengths, steps)
            _add_modulated(rng, rows, chosen, shapes, shape[chosen], phase, size[chosen])


def _phase(
    first: NDArray[np.int64], period: float | str | NDArray[np.float64], steps: int
) -> NDArray[np.int32]:
    """Return where in its season each step is, (R, T), counted in `_PHASES`."""
    if isinstance(period, str):
        days = first[:, None] + np.arange(steps)
        place: NDArray[np.int32] = _calendar()[period][days]
        return place
    step = np.broadcast_to(np.float32(_PHASES) / np.asarray(period, dtype=np.float32), first.shape)
    start = (first % 4096).astype(np.float32)
    turns = (start[:, None] + np.arange(steps, dtype=np.float32)) * step[:, None]
    phase: NDArray[np.int32] = turns.astype(np.int32) & (_PHASES - 1)
    return phase


@cache
def _calendar() -> dict[str, NDArray[np.int32]]:
    """Return for a century of days where in their month and year they are."""
    days = np.datetime64("1970-01-01") + np.arange(_DAYS)
    found = {}
    for name, unit in (("month", "M"), ("year", "Y")):
        start = days.astype(f"datetime64[{unit}]")
        length = ((start + 1).astype("datetime64[D]") - start.astype("datetime64[D]")).astype(int)
        place = (days - start.astype("datetime64[D]")).astype(int)
        found[name] = (place * _PHASES // length).astype(np.int32)
    return found


def _shapes(rng: np.random.Generator) -> Numbers:
    """Return shapes of a season, (_SHAPES, _PHASES), of mean 0 and deviation 1.

    A third each: some harmonics; bumps, as of rush hours or of the sun; and stretches of any level,
    as of weekdays or opening hours.
    """
    turn = np.arange(_PHASES) / _PHASES
    order = np.arange(1, 9)
    decay = order[None, :] ** -rng.uniform(0.3, 2.5, (_SHAPES, 1))
    waves = rng.standard_normal((_SHAPES, 8, 2)) * decay[:, :, None]
    angle = 2 * np.pi * np.outer(order, turn)
    centers, widths = rng.random((_SHAPES, 3, 1)), rng.uniform(0.02, 0.2, (_SHAPES, 3, 1))
    heights = rng.normal(1, 0.7, (_SHAPES, 3, 1))
    parts = rng.choice([2, 4, 7, 12, 24, 52], _SHAPES)
    levels = rng.standard_normal((_SHAPES, 52))
    levels[:, :7] = np.where(rng.random((_SHAPES, 1)) < 0.5, np.sort(levels[:, :7]), levels[:, :7])
    shapes = np.empty((_SHAPES, _PHASES))
    harmonic, bumpy, stretched = (np.arange(kind, _SHAPES, 3) for kind in range(3))
    shapes[harmonic] = waves[harmonic, :, 0] @ np.cos(angle) + waves[harmonic, :, 1] @ np.sin(angle)
    away = (turn - centers[bumpy] + 0.5) % 1 - 0.5
    shapes[bumpy] = (np.exp(-0.5 * (away / widths[bumpy]) ** 2) * heights[bumpy]).sum(1)
    place = (turn * parts[stretched, None]).astype(int)
    shapes[stretched] = np.take_along_axis(levels[stretched], place, axis=1)
    shapes -= shapes.mean(1, keepdims=True)
    shapes /= shapes.std(1, keepdims=True) + 1e-6
    table: Numbers = shapes.astype(np.float32)
    return table


def _add_modulated(
    rng: np.random.Generator,
    rows: Numbers,
    chosen: NDArray[np.int64],
    shapes: Numbers,
    which: NDArray[np.int64],
    phase: NDArray[np.int32],
    size: Numbers,
) -> None:
    """Add seasons of the shapes, (C,), to some rows: some grow or shrink, some wander to another.

    No two days are alike: without that, the last season again would be too good a forecast.
    """
    n, steps = phase.shape
    wandering = np.flatnonzero(rng.random(n) < 0.6)
    speed = np.exp(rng.uniform(np.log(0.005), np.log(0.12), (2, len(wandering), 1)))
    moves = rng.standard_normal((2, len(wandering), steps), dtype=np.float32)
    moves *= speed.astype(np.float32)
    filter_rows(moves.reshape(-1, steps), np.arange(2 * len(wandering)), 0.0, (-0.99, 0.0))
    moved = np.full(n, -1)
    moved[wandering] = np.arange(len(wandering))
    growing = np.flatnonzero(rng.random(n) < 0.25)
    growth = np.zeros(n, dtype=np.float32)
    growth[growing] = rng.uniform(-0.8, 0.8, len(growing))
    other = (which + 3) % _SHAPES
    add_season(
        rows,
        chosen,
        shapes,
        which=which,
        other=other,
        phase=phase,
        moved=moved,
        moves=moves,
        growth=growth,
        size=size,
    )


# --- what happens to rows -------------------------------------------------------------------------


def _common_factors(rng: np.random.Generator, rows: Numbers, length: int) -> Numbers:
    """Let variates, (W, M, T + lags), share what their first two move by, earlier or later."""
    n, variates, _ = rows.shape
    lags = rng.integers(0, _LONGEST_LAG + 1, (n, variates))
    lags *= rng.random((n, 1)) < 0.6  # or at once
    joined = np.flatnonzero(rng.random(n) < 0.7)
    own = rows[..., _LONGEST_LAG:].copy()
    share = rng.uniform(0, 1, (len(joined), variates, 1)).astype(np.float32)
    drawn = [rng.standard_normal(share.shape).astype(np.float32) for _ in range(min(2, variates))]
    loadings = np.concatenate([share * each for each in drawn], axis=-1)
    # Behind a cut at each variate's own lag, factors come first in some and last in others.
    add_factors(own, rows, joined, _LONGEST_LAG - lags[joined], loadings)
    return own


def _spoilt(rng: np.random.Generator, rows: Numbers) -> Numbers:
    """Shift, bend, count, round and disturb a part of the rows, (R, T), in place."""
    n, steps = rows.shape
    rows /= rows.std(1, keepdims=True) + 1e-3
    t = np.arange(steps)
    for _ in range(2):  # level shifts
        shifted = np.flatnonzero(rng.random(n) < 0.06)
        at = rng.integers(0, steps, (len(shifted), 1))
        size = (rng.standard_normal((len(shifted), 1)) * 1.5).astype(np.float32)
        rows[shifted] += size * (t >= at)
    kinds = rng.choice(8, n, p=[0.57, 0.22, 0.05, 0.03, 0.04, 0.03, 0.03, 0.03])
    curved = np.flatnonzero(kinds == 1)  # seasons and noise grow with the level
    bend = _column(rng.uniform(0.1, 0.8, len(curved)))
    rows[curved] = np.exp(np.clip(bend * rows[curved], -6, 6))
    counts = np.flatnonzero(kinds == 2)
    rate = np.exp(np.clip(0.5 * rows[counts], -4, 4)) * _column(rng.uniform(0.5, 20, len(counts)))
    rows[counts] = rng.poisson(rate)
    rare = np.flatnonzero(kinds == 3)  # intermittent demand
    happens = rng.random((len(rare), steps)) < rng.uniform(0.05, 0.5, (len(rare), 1))
    rows[rare] = np.where(happens, np.ceil(np.exp(0.5 * rows[rare])), 0)
    floored = np.flatnonzero(kinds == 4)  # as sunshine and rain
    rows[floored] = np.maximum(rows[floored], _column(rng.uniform(-0.8, 0.8, len(floored))))
    rounded = np.flatnonzero(kinds == 5)
    rows[rounded] = np.round(rows[rounded] * _column(rng.uniform(1, 8, len(rounded))))
    held = np.flatnonzero(kinds == 6)  # as a meter that reports now and then
    every = rng.integers(2, 12, (len(held), 1))
    rows[held] = np.take_along_axis(rows[held], t - t % every, axis=1)
    outliers = np.flatnonzero(rng.random(n) < 0.12)
    hit = rng.random((len(outliers), steps)) < rng.uniform(0.001, 0.02, (len(outliers), 1))
    size = rng.standard_normal((len(outliers), steps), dtype=np.float32) * 5
    rows[outliers] += hit * size * (rows[outliers].std(1, keepdims=True) + np.float32(1e-3))
    rows += 3 * rng.standard_normal((n, 1), dtype=np.float32)
    return rows


def _known(
    rng: np.random.Generator, which: NDArray[np.int64], shape: tuple[int, ...], horizon: int
) -> NDArray[np.bool_]:
    """Return what is known of windows of frequencies, (W,): not all are long, some have gaps."""
    n, _, steps = shape
    history = steps - horizon
    shortest = np.array([each.shortest for each in FREQUENCIES.values()])[which]
    shortest = np.minimum(shortest, history)
    lengths = np.exp(rng.uniform(np.log(shortest), np.log(history), n)).astype(int)
    lengths = np.where(rng.random(n) < 0.4, history, lengths)
    known = np.repeat((np.arange(steps) >= (history - lengths)[:, None])[:, None], shape[1], axis=1)
    holes = np.flatnonzero(rng.random(n) < 0.1)
    scattered = rng.random((len(holes), *shape[1:])) < rng.uniform(0.01, 0.2, (len(holes), 1, 1))
    start = rng.integers(0, history, (len(holes), shape[1], 1))
    inside = np.arange(steps) - start
    block = (inside >= 0) & (inside < rng.integers(2, 40, start.shape))
    known[holes] &= ~np.where(rng.random((len(holes), 1, 1)) < 0.5, scattered, block)
    # The newest step of a history is known: a forecast goes on from it.
    known[..., history - 1] = True
    return known


def _column(values: NDArray[np.float64]) -> Numbers:
    column: Numbers = values.astype(np.float32)[:, None]
    return column
