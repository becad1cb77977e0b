"""Simple forecasts as linear maps, and their mean with a regression: one map again.

    "last"      the last value
    "season"    the last season again; the mean of the last two; the last week of days
    "level"     mean season + mean level of the last two seasons or so
    "theta"     mean season + exponentially smoothed level + half a straight line's slope

Each adds up to one over the steps it reads, so that it repeats a level, and so does a regression on
what is above a level, unless it reverts. Their mean weighs each by (mean absolute error over known
windows) to the power -6, of the rates of smoothing the best; it counts as much as the regression.
What is averaged errs less than either where few windows say which is better, and being one map it
is written into the network as the regression alone would be.

The simple forecasts read more rows than the regression, whose weights on the others are zero: a
season is known from several of its kind, and they have nothing to fit.

Sizes: K forecasts, G groups of variates (M or 1), M variates, L lookback, H horizon, W windows.
Sources: Assimakopoulos & Nikolopoulos (2000), Int. Journal of Forecasting 16(4), for theta;
Gardner (2006), ibid. 22(4), for exponential smoothing; Bates & Granger (1969), Operational Research
Quarterly 20(4), for means of forecasts weighted by their errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tsm2.networks.combined import ClassicalMean, affordable
from tsm2.prepared.windows import Windows
from tsm2.training.moments import LinearInput, sum_moments
from tsm2.training.ridge import LinearMap

__all__ = [
    "Blend",
    "as_seen",
    "blend_in",
    "error_of",
    "errors_beside",
    "regressed",
    "simple_maps",
]

_SHARE = 0.5
"""What the simple forecasts weigh beside the regression."""
_POWER = -6.0
_SMOOTHING = (0.1, 0.3, 0.6, 1.0)
_CYCLE_DECAY = 0.85  # weight of a season beside the one after it
_STEADY = 0.1  # smoothing of a level that hardly follows, where there is no season
_DAY, _WEEK = 20, 7  # rows of a season from which it may be a day, and days
_JUDGED = 2**13  # rows of windows, each of one variate, that weigh the forecasts
_BATCH = 2**22  # numbers in the contexts of a batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Blend:
    """How a regression is averaged with simple forecasts."""

    regressed: int
    """Last steps of the lookback that the regression reads."""
    season: int
    """Steps of the season of the simple forecasts; 1 for none."""


def regressed(windows: Windows, blend: Blend | None, *, from_first: bool = False) -> Windows:
    """Return the windows as the regression reads them.

    Parameters
    ----------
    windows
        Of the whole lookback, those of a series following each other if `from_first`.
    blend
        None leaves the windows as they are.
    from_first
        Begin where the windows of each series do: its first targets are then those that lie in the
        first context of the whole lookback.
    """
    if blend is None:
        return windows
    if not from_first:
        return windows.shortened(blend.regressed)
    more = windows.lookback - blend.regressed
    starts = torch.arange(len(windows)) if windows.starts is None else windows.starts
    owners = torch.zeros_like(starts) if windows.series is None else windows.series
    found, counts = torch.unique_consecutive(owners, return_counts=True)
    firsts = starts[counts.cumsum(0) - counts]
    counts = counts + more
    place = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return replace(
        windows,
        lookback=blend.regressed,
        starts=firsts.repeat_interleave(counts) + place,
        series=None if windows.series is None else found.repeat_interleave(counts),
    )


def blend_in(found: LinearMap, blend: Blend | None, windows: Sequence[Windows]) -> LinearMap:
    """Return the mean of a regression and the simple forecasts, as a map of the whole lookback.

    Parameters
    ----------
    found
        Solved on windows as `regressed` returns them.
    blend
        None leaves the map as it is.
    windows
        What weighs the simple forecasts, of the whole lookback.
    """
    if blend is None:
        return found
    lookback, horizon = windows[0].lookback, windows[0].horizon
    maps = simple_maps(lookback, horizon, blend.season)
    shares = _shares(maps, windows, separate=len(found.weights) > 1)  # (G, K)
    simple = torch.einsum("gk,klh->glh", shares, torch.cat(maps))
    whole = torch.zeros_like(simple)
    own = found.weights[:, : blend.regressed]
    whole[:, -blend.regressed :] = own
    level = 1 - own.sum(1, keepdim=True)  # (G, 1, H)
    if found.linear.reverts:
        level += found.weights[:, -1:]
    if found.linear.level == "last":
        whole[:, -1:] += level
    else:
        whole[:, -blend.regressed :] += level / blend.regressed
    weights = _SHARE * simple + (1 - _SHARE) * whole
    if found.linear.reverts:
        weights = torch.cat((weights, weights.sum(1, keepdim=True) - 1), 1)
    return replace(found, weights=weights, error=None)


def as_seen(found: LinearMap, windows: Sequence[Windows], basis: Tensor | None) -> LinearMap:
    """Return what comes nearest to a map over windows, of what a network sees.

    Parameters
    ----------
    found
        One that was solved on what is seen is returned as it is.
    windows
        Of the whole lookback.
    basis
        What the network sees of the lookback, (L, V); None for all of it.
    """
    if basis is None or found.linear.basis is not None:
        return found
    first = slice(0, 1)
    values = replace(found.linear, reverts=False)
    grams = [sum_moments(each, values, steps=first).gram for each in windows]
    gram = torch.stack([each[0, 0] for each in grams]).sum(0)  # (L, L)
    of_values, of_level = found.weights[:, : len(basis)], found.weights[:, len(basis) :]
    seen = basis.mT @ gram @ basis
    tiny = 1e-6 * seen.diagonal().mean().clamp(min=1e-9) * torch.eye(len(seen), dtype=seen.dtype)
    wanted = basis.mT @ gram @ of_values + tiny @ basis.mT @ of_values
    weights = torch.cat((torch.linalg.solve(seen + tiny, wanted), of_level), 1)
    return replace(found, linear=replace(found.linear, basis=basis), weights=weights)


def simple_maps(lookback: int, horizon: int, season: int) -> list[Tensor]:
    """Return the simple forecasts as maps, (k, L, H) each; several are of one kind, by its rates.

    Parameters
    ----------
    lookback, horizon
        Steps that are read, and forecast.
    season
        Steps of a season, 1 for none. One that is longer than the lookback is left out.
    """
    last = torch.zeros(lookback, horizon, dtype=torch.float64)
    last[-1] = 1.0
    found = [last]
    if 1 < season <= lookback:
        found.append(_again(lookback, horizon, season))
    if 1 < season <= lookback // 2:
        found.append((found[-1] + _again(lookback, horizon, season, ago=2)) / 2)
    week = _WEEK * season if season >= _DAY else season
    if season < week <= lookback:
        found.append(_again(lookback, horizon, week))
    cycle = next((each for each in (week, season) if 1 < each <= lookback // 2), 1)
    level, thetas = _smoothed(lookback, horizon, cycle)
    return [each[None] for each in (*found, level)] + [torch.stack(thetas)]


def error_of(found: LinearMap, windows: Windows, *, absolute: bool = False) -> float:
    """Return the mean squared or absolute error of a map over windows, of all that is known."""
    total = count = 0.0
    size = max(1, _BATCH // (windows.lookback * windows.values.shape[1]))
    for which in windows.batches(size):
        batch = windows.gather(which)
        x, y = found.linear.read(batch)
        error = found.applied(x) - y
        known = torch.ones_like(y, dtype=torch.bool)
        known = known if batch.target_mask is None else batch.target_mask
        error = error.abs() if absolute else error.square()
        total += float(error.where(known, 0.0).sum())
        count += float(known.sum())
    return total / max(count, 1.0)


def errors_beside(
    found: LinearMap, windows: Windows, whole: Windows, classical: ClassicalMean
) -> tuple[float, float]:
    """Return the mean squared errors of a map, and of its mean with classical forecasts.

    Parameters
    ----------
    found
        Solved.
    windows
        As the map reads them; as many as are affordable, evenly spread, are forecast.
    whole
        The same, with contexts that reach as far as the classical forecasts do.
    classical
        Classical forecasts.
    """
    n_variates = windows.values.shape[1]
    spread = windows.spread(affordable(whole.lookback, n_variates))
    sums = torch.zeros(3, dtype=torch.float64)
    for which in torch.split(spread, max(1, _BATCH // (whole.lookback * n_variates))):
        batch, histories = windows.gather(which), whole.gather(which)
        x, y = found.linear.read(batch)
        unit = 1.0 if batch.error_unit is None else batch.error_unit
        error = found.applied(x) - y  # (B, M, H)
        own = batch.target + error * unit
        moved = classical.correction(own, histories.context, histories.mask) / unit
        known = torch.ones_like(y, dtype=torch.bool)
        known = known if batch.target_mask is None else batch.target_mask
        each = [error.square().where(known, 0.0), (error + moved).square().where(known, 0.0), known]
        sums += torch.stack([part.sum().double() for part in each])
    alone, both = sums[:2] / sums[2].clamp(min=1)
    return float(alone), float(both)


def _shares(maps: Sequence[Tensor], windows: Sequence[Windows], *, separate: bool) -> Tensor:
    """Return what each map weighs, (G, K), by its mean absolute error over windows."""
    every = torch.cat(list(maps))
    linear = LinearInput(level="last")  # takes away nothing: the maps repeat a level
    errors = torch.zeros(len(every), windows[0].values.shape[1], dtype=torch.float64)
    counts = torch.zeros(errors.shape[1], dtype=torch.float64)
    total = sum(len(each) for each in windows) * errors.shape[1]
    for part in windows:
        judged = max(1, len(part) * _JUDGED // total)
        size = max(1, _BATCH // (part.lookback * errors.shape[1]))
        for which in torch.split(part.spread(judged), size):
            batch = part.gather(which)
            x, y = linear.read(batch)
            known = torch.ones_like(y, dtype=torch.bool)
            known = known if batch.target_mask is None else batch.target_mask
            counts += known.sum((0, 2))
            for k, each in enumerate(every):
                errors[k] += (x @ each - y).abs().where(known, 0.0).sum((0, 2))
    if not separate:
        errors, counts = errors.sum(1, keepdim=True), counts.sum(0, keepdim=True)
    means = (errors / counts.clamp(min=1)).mT  # (G, K)
    means = means / means.amax(1, keepdim=True).clamp(min=1e-12) + 1e-6
    best = torch.cat([part == part.amin(1, keepdim=True) for part in _kinds(means, maps)], 1)
    shares = means**_POWER * best
    return shares / shares.sum(1, keepdim=True)


def _kinds(means: Tensor, maps: Sequence[Tensor]) -> Sequence[Tensor]:
    return torch.split(means, [len(each) for each in maps], 1)


def _again(lookback: int, horizon: int, season: int, *, ago: int = 1) -> Tensor:
    """Return the map of a season that comes again, (L, H)."""
    steps = torch.arange(horizon)
    found = torch.zeros(lookback, horizon, dtype=torch.float64)
    found[lookback - ago * season + steps % season, steps] = 1.0
    return found


def _smoothed(lookback: int, horizon: int, cycle: int) -> tuple[Tensor, list[Tensor]]:
    """Return the map "level", (L, H), and the maps "theta", one for each rate of smoothing."""
    ago = torch.arange(lookback - 1, -1, -1)
    season = _mean_season(lookback, cycle)  # (cycle, L): by how many steps ago
    adjusted = torch.eye(lookback, dtype=torch.float64) - season[ago % cycle]  # (L, L)
    ahead = torch.arange(1, horizon + 1)
    again = season[-ahead % cycle].mT  # (L, H)
    away = torch.arange(lookback, dtype=torch.float64) - (lookback - 1) / 2
    slope = away / away.square().sum().clamp(min=1.0) @ adjusted  # (L,)
    drift = 0.5 * slope[:, None] * ahead
    rate = 0.5 / cycle if cycle > 1 else _STEADY
    fading = (1 - rate) ** ago.double()
    level = (fading / fading.sum() @ adjusted)[:, None] + again
    thetas = []
    for alpha in _SMOOTHING:
        weights = alpha * (1 - alpha) ** ago.double()
        weights[0] = (1 - alpha) ** (lookback - 1)
        thetas.append((weights @ adjusted)[:, None] + again + drift)
    return level, thetas


def _mean_season(lookback: int, cycle: int) -> Tensor:
    """Return how far each step of a cycle is above the trend, (cycle, L), by how long ago it was.

    The trend is the mean over a cycle around a step, and later cycles weigh more.
    """
    found = torch.zeros(cycle, lookback, dtype=torch.float64)
    if cycle == 1:
        return found
    half = cycle // 2
    around = torch.full((2 * half + 1,), 1 / cycle, dtype=torch.float64)
    if cycle % 2 == 0:
        around[[0, -1]] /= 2
    weights = torch.zeros(cycle, dtype=torch.float64)
    for step in range(half, lookback - half):
        ago = lookback - 1 - step
        weight = _CYCLE_DECAY ** (ago // cycle)
        weights[ago % cycle] += weight
        found[ago % cycle, step] += weight
        found[ago % cycle, step - half : step + half + 1] -= weight * around
    found = found / weights[:, None]
    return found - found.mean(0)
