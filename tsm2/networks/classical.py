"""Classical forecasts in closed form, of many short histories at once.

    0 "last"        the last value
    1 "seasonal"    the last season again
    2 "longer"      the last longer season again, or the mean of the last two
    3 "level"       mean season + mean level of the last two seasons or so
    4 "theta"       mean season + exponentially smoothed level + half a straight line's slope
    5 "growing"     the same of the logarithms, where all is positive
      "damped"      mean season + exponentially smoothed level and slope, which fades
    6 "regression"  on a few lags, around the season, held towards "seasonal"; fed its own forecasts

They are what a pretrained network starts from and is told, see `tsm2.networks.zero`, and what a
fitted one may be averaged with, see `tsm2.networks.combined`. The former has learned "growing",
the latter has "damped" in its place. Each is made of the whole history, and of the history without
its last fifth and two fifths, at most one and two horizons, which tells how far it errs.

All of it is operators of PyTorch that a GPU and an ONNX file have too: no size and no branch
depends on what the histories hold, only masks do. Running sums, sums of a phase and those of the
regression are float64, and it is solved in that, so that another device or a file says the same.

Sizes: N histories, T time steps, H horizon, K forecasts; R rows, of all histories and what is left
of them without their ends; V = 2, values and their logarithms, or 1, values alone; G lags; A ways
of smoothing.
Sources: Assimakopoulos & Nikolopoulos (2000), Int. Journal of Forecasting 16(4), for theta;
Gardner & McKenzie (1985), Management Science 31(10), for slopes that fade; Gardner (2006), Int.
Journal of Forecasting 22(4), for exponential smoothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product, repeat
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tsm2.kernels.exporting import is_exporting, repeated
from tsm2.networks.periods import find_periods, straight_line

__all__ = ["NAMES", "NAMES_OF_VALUES", "ClassicalForecasts", "classical_forecasts"]

NAMES = ("last", "seasonal", "longer", "level", "theta", "growing", "regression")
"""The K forecasts that pretrained weights have learned."""
NAMES_OF_VALUES = ("last", "seasonal", "longer", "level", "theta", "damped", "regression")
"""The K forecasts without logarithms."""


class _Smoothing(NamedTuple):
    """Exponential smoothing of a level and its slope."""

    level: float
    """Share of what was not expected that the level takes."""
    slope: float = 0.0
    """Share of it that the slope takes."""
    kept: float = 0.0
    """Share of the slope that is left a step later."""


_LEVELS = tuple(_Smoothing(rate) for rate in (0.05, 0.2, 0.5, 1.0))
_SLOPES = tuple(
    _Smoothing(rate, rate * of_slope, kept)
    for rate, of_slope, kept in product((0.05, 0.2, 0.5, 0.9), (0.05, 0.2), (0.9, 0.98))
)
_BLOCK = 32  # steps that are smoothed in one product
_HELD, _CUTS = 5, 2  # a share of a fifth is held out, two times
_STEADY = 0.1  # smoothing of a level that hardly follows, where there is no season
_CYCLE_DECAY = 0.85  # weight of a season beside the one after it
_FEWEST = 24  # steps to regress on
_RIDGE = 2.0  # steps
_TINY = 1e-6
_TOGETHER, _LONG = 64, 1024  # histories that stay in a cache; half of them, of more steps
_ON_A_GPU = 4096  # histories that leave memory free


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassicalForecasts:
    """Forecasts of histories in standard units: minus their mean, over their deviation."""

    courses: Tensor
    """Forecasts, (N, K, H)."""
    errors: Tensor
    """Mean absolute error of each over the end of the history, (N, K)."""
    naive: Tensor
    """Mean absolute difference from a season before, (N,)."""
    periods: Tensor
    """Steps of the season and of the longer one, (N, 2); 1 for none."""
    strengths: Tensor
    """Autocorrelations at these steps, (N, 2)."""
    counts: Tensor
    """Steps of each history from the first known one on, (N,)."""


class _Rows(NamedTuple):
    """Rows to forecast."""

    values: Tensor
    """(R, T)."""
    weights: Tensor
    """1 where they are known, else 0, (R, T)."""
    first: Tensor
    """First known step, (R, 1)."""
    short: Tensor
    """Steps of the season, (R, 1)."""
    long: Tensor
    """Steps of the longer one, (R, 1)."""
    begin: Tensor
    """Step that smoothing begins with, (R, 1)."""
    offset: Tensor | None
    """As for `classical_forecasts`, (R, 1)."""


def classical_forecasts(
    values: Tensor,
    known: Tensor,
    horizon: int,
    *,
    offset: Tensor | None,
    seasons: Tensor,
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
        is. The forecasts are `NAMES`, and smoothed from the first step on, known or not, as
        pretrained weights have learned. None for values whose zero is not their own: the forecasts
        are `NAMES_OF_VALUES`, and nothing counts that stands before the first known step.
    seasons
        Steps of the season that the frequency tells, (N,); 0 for none.
    """
    if is_exporting():  # which splits nothing of unknown size
        return _of_part(values, known, horizon, offset, seasons)
    cached = _TOGETHER if values.shape[-1] <= _LONG else _TOGETHER // 2
    size = cached if values.device.type == "cpu" else _ON_A_GPU
    offsets = repeat(None) if offset is None else torch.split(offset, size)
    parts = zip(
        *(torch.split(each, size) for each in (values, known, seasons)), offsets, strict=False
    )
    return _joined([_of_part(v, k, horizon, o, s) for v, k, s, o in parts])


def _joined(parts: list[ClassicalForecasts]) -> ClassicalForecasts:
    """Return the forecasts of all parts."""
    names = [field.name for field in fields(ClassicalForecasts)]
    return ClassicalForecasts(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    )


def _of_part(
    values: Tensor,
    known: Tensor,
    horizon: int,
    offset: Tensor | None,
    seasons: Tensor,
) -> ClassicalForecasts:
    """Forecast histories, all at once; what is given as for `classical_forecasts`."""
    steps = values.shape[-1]
    t = torch.arange(steps, device=values.device)
    first = torch.where(known, t, steps - 1).amin(-1, keepdim=True)  # (N, 1)
    weights = known.to(values.dtype)
    periods, strengths = find_periods(values, weights, first[:, 0], seasons)
    held = ((steps - first) // _HELD).clamp(1, horizon)
    cut = held * torch.arange(_CUTS + 1, device=values.device)  # (N, 1 + cuts)
    place = t - cut[..., None]  # without its end, moved to the end: (N, 1 + cuts, T)
    at = place.clamp(min=0)
    of_cuts = (first + cut).clamp(max=steps - 1)
    usable = torch.minimum(periods[:, None], (steps - of_cuts).clamp(min=1)[..., None])
    rows = _Rows(
        values=_at_places(values, at).flatten(0, 1),
        weights=(_at_places(weights, at) * (place >= 0)).flatten(0, 1),
        first=of_cuts.reshape(-1, 1),
        begin=of_cuts.reshape(-1, 1) * (offset is None),
        short=usable[..., 0].reshape(-1, 1),
        long=usable[..., 1].reshape(-1, 1),
        offset=None if offset is None else offset[:, None].expand_as(cut).reshape(-1, 1),
    )
    courses = _forecasts(rows, horizon)
    courses = courses.view(-1, _CUTS + 1, courses.shape[1], horizon)  # (N, 1 + cuts, K, H)
    ahead = torch.arange(horizon, device=values.device)
    place = (steps - cut[:, 1:, None] + ahead).clamp(max=steps - 1)  # (N, cuts, H)
    counted = _at_places(weights, place) * (ahead < held[..., None])
    away = (courses[:, 1:] - _at_places(values, place)[:, :, None]).abs()
    total = counted.sum((1, 2)).clamp(min=1)
    return ClassicalForecasts(
        courses=courses[:, 0],
        errors=(away * counted[:, :, None]).sum((1, 3)) / total[:, None],
        naive=_seasonal_difference(values, weights, periods[:, :1]),
        periods=periods,
        strengths=strengths,
        counts=steps - first[:, 0],
    )


def _at_places(values: Tensor, at: Tensor) -> Tensor:
    """Return the values, (N, T), at several places of each, (N, P, ...)."""
    return values[:, None].expand(-1, at.shape[1], -1).gather(-1, at)


def _of_both(values: Tensor, at: Tensor) -> Tensor:
    """Return values, (R, V, T), at the same places, (R, P)."""
    return values.gather(-1, at[:, None].expand(-1, values.shape[1], -1))


def _seasonal_difference(values: Tensor, weights: Tensor, period: Tensor) -> Tensor:
    """Return the mean absolute difference from a season, (N, 1), before, (N,), of what is known."""
    place = torch.arange(values.shape[1], device=values.device) - period
    at = place.clamp(min=0)
    counted = weights * weights.gather(1, at) * (place >= 0)
    away = (values - values.gather(1, at)).abs() * counted
    return away.sum(1) / counted.sum(1).clamp(min=1)


# --- forecasts ------------------------------------------------------------------------------------


def _forecasts(rows: _Rows, horizon: int) -> Tensor:
    """Return all forecasts, (R, K, H)."""
    values, first, short, long = rows.values, rows.first, rows.short, rows.long
    steps = values.shape[1]
    ahead = torch.arange(horizon, device=values.device)
    again = steps + ahead % short
    seasonal = values.gather(1, again - short)
    before = again - 2 * short
    before = torch.where(before >= first, values.gather(1, before.clamp(min=0)), seasonal)
    far = values.gather(1, steps - long + ahead % long)
    longer = torch.where(long > short, far, 0.5 * (seasonal + before))
    smallest, largest = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    last = values[:, -1:].expand(-1, horizon)
    regression = _regression(rows, seasonal, smallest, largest)
    courses = torch.stack((last, seasonal, longer, *_smooth(rows, horizon), regression), 1)
    width = largest - smallest
    return courses.clamp((smallest - width)[..., None], (largest + width)[..., None])


def _smooth(rows: _Rows, horizon: int) -> tuple[Tensor, ...]:
    """Return "level", "theta" and either "growing" or "damped", (R, H)."""
    values, offset = rows.values, rows.offset
    if offset is None:
        level, theta, damped = _smoothed(rows, values[:, None], horizon, (_LEVELS, _SLOPES))
        return level, theta[:, 0], damped[:, 0]
    lowest = torch.where(rows.weights > 0, values, torch.inf).amin(1, keepdim=True)
    is_positive = (lowest + offset > 0.02) & (offset < 100)
    logs = (values + offset).clamp(min=0.02).log()
    level, thetas = _smoothed(rows, torch.stack((values, logs), 1), horizon, (_LEVELS,))
    theta, grown = thetas.unbind(1)
    return level, theta, torch.where(is_positive, grown.clamp(max=12).exp() - offset, theta)


def _smoothed(
    rows: _Rows, both: Tensor, horizon: int, kinds: Sequence[Sequence[_Smoothing]]
) -> list[Tensor]:
    """Return "level" of the first, (R, H), and "theta" and others of both, (R, V, H).

    They are read of both, (R, V, T): one for each kind of smoothing, that of the first kind with
    half a straight line's slope.
    """
    weights, width = rows.weights, rows.long
    steps = weights.shape[-1]
    ago = torch.arange(steps - 1, -1, -1, device=weights.device)
    cycle = ago // width  # (R, T)
    phase = ago - cycle * width
    trend, inside = _trend(both, rows.first, width)
    decay = _CYCLE_DECAY ** torch.arange(41, device=weights.device).to(weights.dtype)
    counted = weights * inside * decay[cycle.clamp(max=40)]
    summed = torch.cat(((both - trend) * counted[:, None], counted[:, None]), 1).double()
    at = phase[:, None].expand_as(summed)
    summed = torch.zeros_like(summed).scatter_add(-1, at, summed)  # (R, V + 1, T), by phase
    season = summed[:, :-1] / summed[:, -1:].clamp(min=_TINY)
    season = season - season.sum(-1, keepdim=True) / width[:, None]  # zero beyond the period
    is_phase = (ago.flip(0) < width) & (width > 1)
    season = (season * is_phase[:, None]).to(both.dtype)
    adjusted = both - season.gather(-1, at[:, :-1])
    ahead = torch.arange(1, horizon + 1, device=weights.device)
    again = _of_both(season, -ahead % width)  # (R, V, H)
    courses = [each + again for each in _exponential(adjusted, weights, rows.begin, kinds, ahead)]
    _, slope = straight_line(adjusted, weights[:, None])
    courses[0] = courses[0] + 0.5 * slope * ahead
    rate = torch.where(width > 1, 0.5 / width, _STEADY)
    fading = weights * torch.exp(torch.log1p(-rate) * ago)
    steady = (fading * adjusted[:, 0]).sum(1) / fading.sum(1).clamp(min=_TINY)
    return [steady[:, None] + again[:, 0], *courses]


def _trend(both: Tensor, first: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Return means over a season around each step, (R, V, T), and where it is whole, (R, T).

    An even season counts half of the step at either end, which is the mean of two sums.
    """
    steps = both.shape[-1]
    start = torch.arange(steps, device=both.device) - width // 2  # (R, T)
    inside = (start >= first) & (start + width <= steps)
    start = torch.maximum(start, torch.minimum(first, steps - width))
    start = torch.minimum(start, steps - width)
    sums = functional.pad(both.cumsum(-1, dtype=torch.float64), (1, 0))  # (R, V, T + 1)
    halved = 0.5 * (sums[..., :-1] + sums[..., 1:])
    is_even = inside & (width % 2 == 0) & (start + width < steps)
    begin = torch.where(is_even, start + steps + 1, start)
    sums = torch.cat((sums, halved), -1)
    ends = _of_both(sums, begin + width) - _of_both(sums, begin)
    inside = inside | ~inside.any(1, keepdim=True)
    return (ends / width[:, None]).to(both.dtype), inside


def _exponential(
    values: Tensor,
    weights: Tensor,
    begin: Tensor,
    kinds: Sequence[Sequence[_Smoothing]],
    ahead: Tensor,
) -> list[Tensor]:
    """Return what exponential smoothing expects of the steps ahead, (R, V, H), for each kind.

    Of a kind it is that which erred least, a step ahead. The first value is that of the step
    `begin`, (R, 1), and what is before it counts for nothing. A block of steps is read at once:
    what it adds to level and slope at its end, and how far each smoothing errs on its steps, are
    products with fixed weights.
    """
    start, steps = _of_both(values, begin), values.shape[-1]
    blocks = -(-steps // _BLOCK)
    front = blocks * _BLOCK - steps
    smoothings = torch.tensor(
        [each for kind in kinds for each in kind], device=values.device, dtype=torch.float64
    )  # (A, 3)
    fixed = _smoothing_weights(smoothings, blocks)
    of_end, of_later, of_missed = (each.to(values.dtype) for each in fixed)
    away = (values - start) * (torch.arange(steps, device=values.device) >= begin)[:, None]
    away = functional.pad(away, (front, 0)).reshape(*values.shape[:-1], blocks, _BLOCK)
    ends = (away @ of_end).view(*away.shape[:-1], -1, 2)  # (R, V, blocks, A, 2): on their own
    by_kind = ends.movedim(-2, 0).flatten(-2).flatten(1, 2) @ of_later  # (A, R * V, blocks * 2)
    state = by_kind.view(-1, *values.shape[:-1], blocks, 2).movedim(0, -2)
    before = functional.pad(state[..., :-1, :, :], (0, 0, 0, 0, 1, 0)).flatten(-2)
    missed = (torch.cat((away, before), -1) @ of_missed).view(*away.shape[:-1], -1, _BLOCK)
    counted = functional.pad(weights, (front, 0)).view(-1, 1, blocks, _BLOCK, 1)
    errors = (missed.square() @ counted).squeeze(-1).sum(-2)  # (R, V, A)
    faded = (smoothings[:, 2:] ** ahead).cumsum(-1).to(values.dtype)  # (A, H)
    level, slope = torch.split(state[..., -1, :, :], 1, -1)
    courses = start[..., None] + level + slope * faded
    sizes = [len(kind) for kind in kinds]
    each_kind = zip(torch.split(errors, sizes, -1), torch.split(courses, sizes, -2), strict=True)
    return [_of_least(*of_kind) for of_kind in each_kind]


def _of_least(errors: Tensor, courses: Tensor) -> Tensor:
    """Return the course, (R, V, H), of the least error, (R, V, A)."""
    best = errors.argmin(-1, keepdim=True)[..., None]
    return courses.gather(-2, best.expand(-1, -1, 1, courses.shape[-1])).squeeze(-2)


def _smoothing_weights(smoothings: Tensor, blocks: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what blocks of steps are multiplied with, for each of A smoothings, (A, 3).

    That is (block, A * 2) for what a block adds to level and slope at its end; (A, blocks * 2,
    blocks * 2) for what that is worth at its own end and those of later blocks; and (block + A * 2,
    A * block) for how far each step of a block is from what was expected of it, by the steps of the
    block and by level and slope before it.
    """
    level, slope, kept = smoothings[:, :, None].unbind(1)  # (A, 1)
    taken = torch.stack((level, slope), 1)  # (A, 2, 1)
    expects = torch.stack((torch.ones_like(kept), kept), 2)  # (A, 1, 2)
    stays = torch.cat((expects, torch.stack((torch.zeros_like(kept), kept), 2)), 1)
    moves = _powers(stays - taken @ expects, _BLOCK + 1)  # (block + 1, A, 2, 2): by steps
    of_end = (moves[:-1] @ taken).flip(0).flatten(1)
    of_later = _lagged(_powers(moves[-1], blocks)).permute(2, 0, 4, 1, 3)
    echo = (expects @ moves[:-1] @ taken).flatten(1)  # (block, A): of a step in later ones
    expected = functional.pad(_lagged(echo)[:, :-1], (0, 0, 1, 0)).transpose(1, 2)
    own = torch.eye(_BLOCK, device=echo.device, dtype=echo.dtype)[:, None] - expected
    each = torch.eye(len(smoothings), device=echo.device, dtype=echo.dtype)[:, None, :, None]
    before = (expects @ moves[:-1]).permute(1, 3, 2, 0) * each  # (A, 2, A, block)
    of_missed = torch.cat((own, -before.flatten(0, 1))).flatten(1)
    return of_end, of_later.flatten(3).flatten(1, 2), of_missed


def _powers(matrices: Tensor, count: int) -> Tensor:
    """Return the powers 0, 1, ... of matrices, (count, A, S, S)."""
    found = torch.eye(matrices.shape[-1], device=matrices.device, dtype=matrices.dtype)
    found = found.expand(1, *matrices.shape)
    while len(found) < count:
        found = torch.cat((found, found @ matrices))
        matrices = matrices @ matrices
    return found[:count]


def _lagged(weights: Tensor) -> Tensor:
    """Return the weight of each lag, (T, ...), from a row to a column, (T, T, ...)."""
    size = len(weights)
    place = torch.arange(size, device=weights.device)
    lag = place - place[:, None]
    with_none = torch.cat((weights, torch.zeros_like(weights[:1])))
    return with_none[torch.where(lag >= 0, lag, size)]


def _regression(rows: _Rows, seasonal: Tensor, smallest: Tensor, largest: Tensor) -> Tensor:
    """Return the forecast of a regression on lags, (R, H); "seasonal" where too little is known."""
    values, weights, first = rows.values, rows.weights, rows.first
    steps, horizon = values.shape[1], seasonal.shape[1]
    t = torch.arange(steps, device=values.device)
    lag, nearest = _lags(rows)
    read = _at_places(values, (t - lag[..., None]).clamp(min=0))
    counted = weights * (t >= first + lag.amax(1, keepdim=True))
    rest = values - read.gather(1, nearest[..., None].expand(-1, 1, steps)).squeeze(1)
    design = torch.cat((read, torch.ones_like(rest)[:, None], rest[:, None]), 1).double()
    sums = (design[:, :-1] * counted[:, None]) @ design.mT  # (R, G + 1, G + 2)
    of = torch.arange(lag.shape[1] + 1, device=values.device)
    ridge = _RIDGE * functional.pad(torch.eye(len(of), device=values.device), (0, 1))
    weight = (of == nearest) + _solved(sums + ridge).to(values.dtype)  # (R, G + 1)
    spread = 0.5 * (largest - smallest)
    longest = max(steps // 2, 1)  # no lag is longer
    given = (longest - lag, weight, smallest - spread, largest + spread)
    course = repeated(_one_step, values[:, -longest:], horizon, given).mT
    enough = counted.sum(1, keepdim=True) >= _FEWEST
    return torch.where(enough, course, seasonal)


def _one_step(
    recent: Tensor, at: Tensor, weight: Tensor, lowest: Tensor, highest: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the last values after a step ahead, (R, T / 2), and what it is forecast to be, (R,).

    It is read at the lags, which lie at `at`, (R, G); the last weight, (R, G + 1), is the constant.
    """
    read = functional.pad(recent.gather(1, at), (0, 1), value=1.0)
    step = (read * weight).sum(1, keepdim=True).clamp(lowest, highest)
    return torch.cat((recent[:, 1:], step), 1), step.squeeze(1)


def _lags(rows: _Rows) -> tuple[Tensor, Tensor]:
    """Return the lags, (R, G), and the number of that which is a season or one step, (R, 1)."""
    short, long = rows.short, rows.long
    is_none = short == 1
    around = (short - 1, short, short + 1, torch.where(long > short, long, 2 * short))
    fixed = [torch.full_like(short, k) for k in (1, 2, 3)]
    others = [
        torch.where(is_none, k, lag.clamp(min=1))
        for k, lag in zip((4, 6, 8, 12), around, strict=True)
    ]
    longest = ((rows.values.shape[1] - rows.first) // 2).clamp(min=1)
    return torch.minimum(torch.cat((*fixed, *others), 1), longest), torch.where(is_none, 0, 4)


def _solved(system: Tensor) -> Tensor:
    """Return what solves systems, (R, G), of (R, G, G + 1), whose last column is the right side.

    They are positive definite. By elimination: an ONNX file has no operator that does it, and there
    are few columns.
    """
    size = system.shape[1]
    of = torch.arange(size, device=system.device)[:, None]
    for k in range(size):
        row = system.narrow(1, k, 1)
        row = row / row.narrow(2, k, 1)
        system = torch.where(of == k, row, system - system.narrow(2, k, 1) * row)
    return system[..., -1]
