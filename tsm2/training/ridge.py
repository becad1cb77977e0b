"""Linear forecasts in closed form: ridge regression on windows, its strength chosen by others.

    B = (gram + penalty)^-1 (cross + penalty B0)    penalty = strength * mean eigenvalue of gram

for every strength on a grid; the lowest squared error on the validation windows decides. All of it
from the moments of `tsm2.training.moments`: seconds for a table of 35,000 rows, and no step size.

What the map is held towards, B0, is the window's level, or the seasonal naive forecast. Maps of
their own for every variate are held towards the one that all variates share: each variate leaves
that as far as its own rows say, by a strength of its own.

Where rows are few or drift, nothing says whether to count from a window's mean or its last value:
`solve_averaged` takes the mean of both maps. A variate's own map is averaged with the shared one,
each by (its mean squared error over the validation windows of the variate) to the power -3. A third
map may count from zero, the mean of the training rows, and then is half of the mean: that leaves a
window's level by a share of it, as what comes back to its mean does. Each of these may itself be
the mean of maps that read more and less of the lookback.

A map of very many steps may read the earlier ones in means of a few: their number costs its cube,
and single values of long ago tell little. Its weights are written out for every step.

Without validation windows, the last tenth of the rows of every series chooses the strength, and
all windows solve the map.

Sizes: A strengths, G groups of variates (M or 1), M variates, D columns, H horizon, L lookback.
Source: Hoerl & Kennard (1970), Technometrics 12(1).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tsm2.prepared.windows import Windows
from tsm2.training.moments import (
    Level,
    LinearInput,
    Moments,
    StepMeans,
    sum_moments,
)

__all__ = [
    "LEVELS",
    "STRENGTHS",
    "LinearMap",
    "solve_again",
    "solve_averaged",
    "solve_from_zero",
    "solve_linear",
    "solve_moments",
    "with_zero",
]

STRENGTHS = (1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, 1e3, 1e4)
"""Strengths that are tried, in units of the mean eigenvalue; the last ones leave B0 as it is."""

LEVELS: tuple[Literal["mean", "last"], ...] = ("mean", "last")
"""From which a map may count."""

_POWER = 3
"""Of the squared errors that own and shared maps are averaged by."""

_FINE = 512
"""Last steps that every map reads one by one; one of up to twice as many reads all so."""

_COARSE = 8
"""Earlier steps that a longer map may read the mean of."""

_MEMORY = 2**26
"""Numbers in the grams that are held at once: 512 MiB in double precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearMap:
    """A linear forecast: target = level + columns times weights."""

    linear: LinearInput
    """What it reads."""
    weights: Tensor
    """For each column and step, (G, D, H), in double precision; with `linear.reverts` the last row
    says by what share of the level a step leaves it."""
    strength: Tensor
    """Of each group of variates, (G,)."""
    error: float | None
    """Mean squared error over the windows that chose the strength; None if there were none."""
    season: int | None = None
    """Steps of the season whose naive forecast it is held towards; None for the level."""
    shared: "LinearMap | None" = None
    """The map of all variates that those of single ones are held towards."""
    own_share: Tensor | None = None
    """What each variate's own map weighs where it is averaged with the shared one, (M,)."""
    parts: "tuple[LinearMap, ...]" = ()
    """The maps whose mean it is, each averaged with the one that it is held towards."""
    zero: "LinearMap | None" = None
    """The map from zero that is half of it, beside the mean of its parts."""
    lookback: int | None = None
    """Last steps that a part reads of a window; None for all of them."""

    def applied(self, x: Tensor) -> Tensor:
        """Return the forecasts less their level, (B, M, H), of columns, (B, M, D)."""
        if len(self.weights) == 1:
            return x @ self.weights[0]
        return torch.einsum("bmd,mdh->bmh", x, self.weights)


def solve_linear(
    train: Windows,
    validation: Windows | None,
    linear: LinearInput,
    *,
    separate: bool = False,
    season: int | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> LinearMap:
    """Solve the map on the training windows, its strength chosen by the validation windows.

    Parameters
    ----------
    train, validation
        Standardised windows. Without validation, the last tenth of the training rows chooses.
    linear
        What is read.
    separate
        Whether every variate has a map of its own, and a strength of its own.
    season
        Hold the map towards the seasonal naive forecast, of so many steps, and not the level. A
        season that is longer than the lookback is not seen, and the level is taken.
    strengths
        In units of the mean eigenvalue, positive.
    """
    fit, judge = (train, validation) if validation is not None else _hold_out(train)
    if judge is None:
        ones = torch.ones(train.values.shape[1] if separate else 1, dtype=torch.float64)
        unsolved = LinearMap(
            linear=linear,
            weights=torch.empty(0),
            strength=ones,
            error=None,
            season=season,
            shared=solve_linear(train, None, linear, season=season) if separate else None,
            own_share=ones / 2 if separate else None,
        )
        return solve_again(unsolved, [train])
    shared = None
    if separate:
        shared = solve_linear(fit, judge, linear, season=season, strengths=strengths)
    reads = _with_means(linear, train.lookback)
    towards = _held_towards(reads, season, shared, train)
    weights, chosen, shares, total, count = [], [], [], 0.0, 0.0
    for variates in _variates(train, separate):
        maps, errors, held, known = [], [], [], 0.0
        for steps in _steps(train, reads):
            moments = sum_moments(fit, reads, variates=variates, steps=steps)
            judging = sum_moments(judge, reads, variates=variates, steps=steps)
            naive = towards[..., steps]
            tried = [solve_moments(moments, reads, strength, naive) for strength in strengths]
            maps.append(tried)  # A maps, (G, D, H) each
            errors.append(torch.stack([judging.squared_errors(each).sum(-1) for each in tried]))
            if shared is not None:
                held.append(judging.squared_errors(naive).sum(-1))
            known += float(judging.counts.sum())
        each_error = torch.stack(errors).sum(0)  # (A, G)
        best = each_error.argmin(0)
        # Picked one by one: maps of many variates fill gigabytes, and are not copied again.
        picked = list(enumerate(best.tolist()))
        parts = [torch.stack([tried[which][group] for group, which in picked]) for tried in maps]
        weights.append(torch.cat(parts, -1))
        chosen.append(torch.tensor(strengths, dtype=torch.float64)[best])
        lowest = each_error.amin(0)
        total, count = total + float(lowest.sum()), count + known
        if shared is not None:
            shares.append(_share_of(lowest, torch.stack(held).sum(0)))
    found = LinearMap(
        linear=linear,
        weights=_of_steps(torch.cat(weights), reads),
        strength=torch.cat(chosen),
        error=total / max(count, 1.0),
        season=season,
        shared=shared,
        own_share=torch.cat(shares) if shares else None,
    )
    return found if validation is not None else solve_again(found, [train])


def solve_averaged(
    train: Windows,
    validation: Windows | None,
    linear: LinearInput,
    *,
    separate: bool = False,
    season: int | None = None,
    reverts: bool = False,
    lookbacks: Sequence[int] = (),
    solved: Sequence[LinearMap] = (),
) -> LinearMap:
    """Solve the maps from both levels, and return their mean, as for `solve_linear`.

    Those of single variates are averaged with the one that all share, by what each errs.

    Parameters
    ----------
    train, validation, separate, season
        As for `solve_linear`.
    linear
        All of the values and nothing else, from the level that the mean is to count from.
    reverts
        Whether half of the mean is the map from zero.
    lookbacks
        Last steps of the windows that are read, each by maps of its own that weigh alike; empty for
        all steps.
    solved
        Maps of all steps of these windows; those that the mean is of are taken as they are.
    """
    known = {
        (each.linear.level, train.lookback): replace(each, lookback=train.lookback)
        for each in solved
        if each.linear.plain and (each.shared is not None, each.season) == (separate, season)
    }
    parts = [
        known.get((level, lookback))
        or _solve_part(
            train,
            validation,
            replace(linear, level=level),
            lookback,
            separate=separate,
            season=season,
        )
        for lookback in lookbacks or (train.lookback,)
        for level in LEVELS
    ]
    found = _mean_of(parts, linear, train.lookback)
    return with_zero(found, solve_from_zero(found, train, validation)) if reverts else found


def solve_from_zero(found: LinearMap, train: Windows, validation: Windows | None) -> LinearMap:
    """Solve the map that counts from zero, the mean of the training rows, as others were.

    Parameters
    ----------
    found
        Of `solve_averaged`, on the same windows.
    train, validation
        As for `solve_linear`.
    """
    zeros = [
        _solve_part(
            train,
            validation,
            replace(part.linear, level="zero"),
            part.lookback,
            separate=part.shared is not None,
            season=part.season,
        )
        for part in found.parts
        if part.linear.level == LEVELS[0]
    ]
    return _mean_of(zeros, zeros[0].linear, train.lookback)


def with_zero(found: LinearMap, zero: LinearMap) -> LinearMap:
    """Return the mean of a map of `solve_averaged` and one of `solve_from_zero`, by half each."""
    left = zero.weights.sum(1, keepdim=True) - 1  # by which it leaves a level of one
    return replace(
        found,
        linear=replace(found.linear, reverts=True),
        weights=torch.cat((found.weights + zero.weights, left), 1) / 2,
        zero=zero,
    )


def _share_of(own: Tensor, shared: Tensor) -> Tensor:
    """Return what own maps weigh beside the shared one, (G,), by the squared errors of both.

    Half where nothing says which is better.
    """
    part = (own / (own + shared)).nan_to_num(0.5)  # neither errs, or nothing was known
    weight, other = (1 - part) ** _POWER, part**_POWER
    return weight / (weight + other)


def _solve_part(
    train: Windows,
    validation: Windows | None,
    linear: LinearInput,
    lookback: int | None,
    *,
    separate: bool,
    season: int | None,
) -> LinearMap:
    """Solve a map of the last steps of windows."""
    judged = None if validation is None else _last_steps(validation, lookback)
    fit = _last_steps(train, lookback)
    found = solve_linear(fit, judged, linear, separate=separate, season=season)
    return replace(found, lookback=fit.lookback)


def _last_steps(windows: Windows, lookback: int | None) -> Windows:
    """Return windows that begin later, and read so many steps; None for all of them."""
    return windows if lookback in (None, windows.lookback) else windows.shortened(lookback)


def _mean_of(parts: Sequence[LinearMap], linear: LinearInput, lookback: int) -> LinearMap:
    """Return the mean of maps of the values, each averaged with the one it is held towards."""
    each = [_with_shared(part, linear.level, lookback) for part in parts]
    mean = torch.stack(each).mean(0)
    return replace(
        parts[0], linear=linear, weights=mean, error=None, lookback=None, parts=tuple(parts)
    )


def _with_shared(found: LinearMap, level: Level | None, lookback: int) -> Tensor:
    """Return the weights, (G, L, H), of a map averaged with the shared one, from a level."""
    own = _counted_from(level, found, lookback)
    if found.shared is None or found.own_share is None:
        return own
    share = found.own_share[:, None, None]
    return share * own + (1 - share) * _counted_from(level, found.shared, lookback)


def _counted_from(level: Level | None, found: LinearMap, lookback: int) -> Tensor:
    """Return the weights, (G, L, H), of the same forecast from another level, that of L steps.

    That from zero repeats no level: its weights are the same, and what it leaves is not in them.
    """
    own, weights = found.linear.level, found.weights
    earlier = lookback - weights.shape[1]  # steps that it does not read
    if own == "mean" and (level != own or earlier):
        weights = weights + _repeated(weights) / weights.shape[1]
    elif own == "last" and level != own:  # one of the values that are read
        weights = torch.cat((weights[:, :-1], weights[:, -1:] + _repeated(weights)), 1)
    return functional.pad(weights, (0, 0, earlier, 0))


def _repeated(weights: Tensor) -> Tensor:
    """Return by what share the forecast of weights repeats its level, (G, 1, H)."""
    return 1 - weights.sum(1, keepdim=True)


def solve_again(found: LinearMap, windows: Sequence[Windows]) -> LinearMap:
    """Solve a map on other windows, and keep its strength and what own maps weigh."""
    if found.parts:
        again = [solve_again(each, windows) for each in found.parts]
        mean = _mean_of(again, found.linear, windows[0].lookback)
        return mean if found.zero is None else with_zero(mean, solve_again(found.zero, windows))
    windows = [_last_steps(each, found.lookback) for each in windows]
    shared = None if found.shared is None else solve_again(found.shared, windows)
    linear = found.linear
    reads = _with_means(linear, windows[0].lookback)
    towards = _held_towards(reads, found.season, shared, windows[0])
    weights = []
    for variates in _variates(windows[0], shared is not None):
        strength = found.strength if variates is None else found.strength[variates]
        parts = []
        for steps in _steps(windows[0], reads):
            each = [sum_moments(w, reads, variates=variates, steps=steps) for w in windows]
            moments = each[0]
            for more in each[1:]:
                moments = moments + more
            strengths = strength[:, None, None]
            parts.append(solve_moments(moments, reads, strengths, towards[..., steps]))
        weights.append(torch.cat(parts, -1))
    return replace(found, weights=_of_steps(torch.cat(weights), reads), shared=shared)


def _with_means(linear: LinearInput, lookback: int) -> LinearInput:
    """Return what a map is solved of: of very many values the earlier ones in means."""
    if linear.fine is None or not linear.plain or lookback <= max(2 * _FINE, linear.fine):
        return linear
    fine = max(_FINE, linear.fine)
    earlier = lookback - fine
    means = torch.arange(earlier).sub(earlier).div(_COARSE, rounding_mode="floor")  # to -1
    steps = torch.cat((means, torch.arange(fine)))
    return replace(linear, means=StepMeans(steps - steps[0]))


def _of_steps(weights: Tensor, reads: LinearInput) -> Tensor:
    """Return the weights of single steps, from those of what was solved."""
    return weights if reads.means is None else reads.means.spread(weights)


def _held_towards(
    reads: LinearInput, season: int | None, shared: LinearMap | None, windows: Windows
) -> Tensor:
    """Return the map that others are held towards, (1, V or D, H)."""
    if shared is not None:
        return shared.weights if reads.means is None else reads.means.of(shared.weights)
    naive = torch.zeros(1, windows.lookback, windows.horizon, dtype=torch.float64)
    if season is not None and 1 <= season <= windows.lookback:
        steps = torch.arange(windows.horizon)
        naive[0, windows.lookback - season + steps % season, steps] = 1.0
    return reads.seen(naive)


def solve_moments(
    moments: Moments, linear: LinearInput, strength: float | Tensor, towards: Tensor
) -> Tensor:
    """Return the maps, (G, D, H), of moments.

    Parameters
    ----------
    moments
        Of the windows.
    linear
        What they were summed of: with a constant, which is not held down, or without.
    strength
        In units of the mean eigenvalue: one, or one per group, (G, 1, 1).
    towards
        What the maps are held towards, (1, V or D, H).
    """
    diagonal = moments.gram.diagonal(dim1=-2, dim2=-1)  # (G, S, D)
    free = int(linear.level is None)  # the constant is not held down
    penalised = diagonal[..., : diagonal.shape[-1] - free]
    scale = penalised.mean(-1, keepdim=True)  # the mean eigenvalue
    penalty = (strength * scale).clamp(min=1e-9).expand_as(penalised)
    if free:
        penalty = torch.cat((penalty, torch.full_like(diagonal[..., -1:], 1e-9)), -1)
    rest = diagonal.shape[-1] - towards.shape[1]
    towards = functional.pad(towards, (0, 0, 0, rest))  # (1, D, H): nothing of the further columns
    each_step = moments.gram.shape[1] > 1
    cross, towards = (
        each.mT[..., None] if each_step else each[:, None] for each in (moments.cross, towards)
    )  # (G, S, D, H / S)
    cross = cross + penalty[..., None] * towards
    factor = torch.linalg.cholesky(moments.gram + torch.diag_embed(penalty))
    maps = torch.cholesky_solve(cross, factor)
    return maps[..., 0].mT if each_step else maps[:, 0]


def _variates(windows: Windows, separate: bool) -> Iterator[slice | None]:
    """Yield the variates that are solved side by side; None for all of them together."""
    if not separate:
        yield None
        return
    span = windows.lookback + windows.horizon
    per_variate = span**2 * (1 if windows.known is None else windows.horizon)
    size = max(1, _MEMORY // per_variate)
    for start in range(0, windows.values.shape[1], size):
        yield slice(start, min(start + size, windows.values.shape[1]))


def _steps(windows: Windows, linear: LinearInput) -> Iterator[slice]:
    """Yield the steps of the horizon that are solved side by side."""
    horizon = windows.horizon
    courses = 1 + (linear.past is not None) + (linear.future is not None)
    read = windows.lookback if linear.means is None else int(linear.means.column[-1]) + 1
    columns = courses * read
    size = horizon if windows.known is None else max(1, _MEMORY // columns**2)
    for start in range(0, horizon, size):
        yield slice(start, min(start + size, horizon))


def _hold_out(windows: Windows) -> tuple[Windows, Windows | None]:
    """Split off the windows whose targets lie in the last tenth of the rows of every series.

    The windows before end where those targets begin. None if either part had no window.
    """
    horizon = windows.horizon
    starts = torch.arange(len(windows)) if windows.starts is None else windows.starts
    windows = replace(windows, starts=starts)
    series = torch.zeros_like(starts) if windows.series is None else windows.series
    counts = torch.bincount(series)
    ends = counts.cumsum(0)
    place = torch.arange(len(series)) - (ends - counts)[series]  # of each window in its series
    rows = counts + windows.lookback + horizon - 1
    held = (rows // 10).clamp(min=horizon)  # rows
    judges = place >= (counts - held + horizon - 1)[series]
    fits = place < (counts - held)[series]
    if not fits.any():
        return windows, None
    return windows.only(fits), windows.only(judges)
