"""Columns that lead: solved, and taken where the validation windows are clearly better for it.

    target - level = share * (own forecast - level) + latest rows of all columns * weights

for every variate and step of the horizon, by least squares: the weights are held towards zero, and
the share, of what the variate says of itself, is free between 0 and 1. It takes no more than one
gram of the columns, X'X, for all variates: with own forecasts f, targets y and

    P = X (X'X + penalty)^-1 X'       share = f'(1 - P) y / f'(1 - P) f
                                      weights = (X'X + penalty)^-1 X'(y - share f)

Tables where columns truly lead gain a third and more. On others what is found is mostly chance, so
that whoever chooses asks for a clear gain.

Sizes: C columns (the variates, then the past covariates), K latest rows, D = C K, M variates, H
horizon, N windows.
Source: Frisch & Waugh (1933), Econometrica 1(4), for the share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tsm2.networks.leaders import Leaders
from tsm2.prepared.windows import Batch, Windows
from tsm2.training.moments import columns_above_level, weights_of_windows
from tsm2.training.ridge import LinearMap

__all__ = ["Leading", "Led", "choose_leading", "most_rows", "solve_led"]

_STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Of the ridge, in units of the mean eigenvalue."""
_OWN = 0.03
"""Share by which the error of a variate must be lower, which else is not led."""
_MOST_ROWS, _MOST_COLUMNS, _MOST_WEIGHTS = 48, 2**10, 2**21
_SOLVED_ON, _JUDGED_ON = 2**12, 2**10
"""Windows at most, evenly spread, that solve and that choose."""
_BATCH = 2**22
"""Numbers in a batch of windows: 32 MiB in double precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leading:
    """How leaders are solved."""

    rows: int
    """Latest rows K of all columns that are read."""
    strength: float
    """Of the ridge, in units of the mean eigenvalue."""
    led: tuple[int, ...]
    """Positions of the variates that are led; the others forecast themselves alone."""
    separate: bool = False
    """Whether the own forecasts are those of maps of single variates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Led:
    """What was solved."""

    share: Tensor
    """Of what each variate says of itself, (M, H)."""
    weights: Tensor
    """Of the latest rows of all columns, (D, M, H)."""
    largest: Tensor
    """What these added at most to a window that solved them, (M, H)."""

    def scaled(self, found: LinearMap) -> LinearMap:
        """Return the map of the own forecasts, by their shares: one for each variate."""
        own = found.weights.expand(len(self.share), -1, -1)
        return replace(found, weights=own * self.share[:, None], error=None)

    @torch.no_grad()
    def write(self, leaders: Leaders) -> None:
        """Let a network's leaders be these."""
        leaders.weight.copy_(self.weights.permute(1, 2, 0))
        leaders.largest.copy_(self.largest)

    def added(self, columns: Tensor) -> Tensor:
        """Return what columns, (N, D), add, (N, M, H)."""
        added = (columns @ self.weights.flatten(1)).view(-1, *self.share.shape)
        return torch.maximum(torch.minimum(added, self.largest), -self.largest)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sums:
    """Over windows: of columns, own forecasts and targets; Y = M H."""

    gram: Tensor
    """(D, D)."""
    with_own: Tensor
    """(D, Y)."""
    with_target: Tensor
    """(D, Y)."""
    own: Tensor
    """Own forecasts with themselves, (Y,)."""
    own_with_target: Tensor
    """(Y,)."""

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            gram=self.gram + other.gram,
            with_own=self.with_own + other.with_own,
            with_target=self.with_target + other.with_target,
            own=self.own + other.own,
            own_with_target=self.own_with_target + other.own_with_target,
        )

    def latest(self, which: Tensor) -> _Sums:
        """Return the sums of some of the columns."""
        return replace(
            self,
            gram=self.gram[which][:, which],
            with_own=self.with_own[which],
            with_target=self.with_target[which],
        )

    def solve(self, strengths: Sequence[float]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield shares, (Y,), and weights, (D, Y), for each strength."""
        values, vectors = torch.linalg.eigh(self.gram)
        values = values.clamp(min=0.0)
        own, target = vectors.mT @ self.with_own, vectors.mT @ self.with_target
        for strength in strengths:
            penalty = (strength * values.mean()).clamp(min=1e-9)
            inverse = (1 / (values + penalty))[:, None]
            explained = (inverse * own).mul(target).sum(0)
            rest = self.own - (inverse * own.square()).sum(0)
            share = (self.own_with_target - explained) / rest.clamp(min=1e-9)
            share = share.clamp(0.0, 1.0)
            yield share, vectors @ (inverse * (target - share * own))


def most_rows(windows: Windows) -> int:
    """Return how many latest rows of all columns may be read; 0 where leaders are not solved.

    That is so where there is one column alone, where values are unknown, where errors count in
    units of their own, and where there are too many columns.
    """
    variates = windows.values.shape[1]
    past = windows.covariates.past
    columns = variates + (0 if past is None else past.shape[1])
    if columns == 1 or windows.known is not None or windows.error_units is not None:
        return 0
    fit = _MOST_WEIGHTS // (columns * variates * windows.horizon)
    return min(windows.lookback, _MOST_ROWS, _MOST_COLUMNS // columns, fit)


def choose_leading(
    found: LinearMap, train: Windows, validation: Windows
) -> tuple[Leading, float, float] | None:
    """Choose what leads, and by how much the error over the validation windows is lower for it.

    Parameters
    ----------
    found
        The own forecasts, as a map of what the windows hold.
    train, validation
        Standardised windows.

    Returns
    -------
    How leaders are solved, the mean squared error with them over that without, and the same as if
    all variates were led: of many variates some are always lucky. None where nobody would be led,
    or nothing can be solved.
    """
    rows = most_rows(train)
    if not rows:
        return None
    sums = _sum([train], found, rows)
    read = [each[:3] for each in _read([validation], found, rows, _JUDGED_ON)]
    columns, own, target = (torch.cat(each) for each in zip(*read, strict=True))

    def errors_of(forecast: Tensor) -> Tensor:
        return (forecast - target).square().mean((0, 2))  # (M,)

    places = torch.arange(columns.shape[1]).reshape(-1, rows)
    everyone = tuple(range(own.shape[1]))
    lowest, best, how = math.inf, None, None
    for latest in sorted({rows, max(1, rows // 4)}):
        which = places[:, -latest:].flatten()
        solved = sums.latest(which).solve(_STRENGTHS)
        for strength, (share, weights) in zip(_STRENGTHS, solved, strict=True):
            forecast = share * own.flatten(1) + columns[:, which] @ weights
            error = float(errors_of(forecast.view_as(own)).mean())
            if error < lowest:
                lowest, best = error, (share, weights)
                how = Leading(rows=latest, strength=strength, led=everyone)
    if best is None or how is None:
        return None
    led = _bounded(*best, found, [train], how)
    which = places[:, -how.rows :].flatten()
    alone, errors = errors_of(own), errors_of(led.share * own + led.added(columns[:, which]))
    gains = errors < (1 - _OWN) * alone
    if not gains.any():
        return None
    ratio = float(errors.where(gains, alone).sum() / alone.sum())
    of_all = float(errors.sum() / alone.sum())
    return replace(how, led=tuple(gains.nonzero()[:, 0].tolist())), ratio, of_all


def solve_led(found: LinearMap, windows: Sequence[Windows], how: Leading) -> Led:
    """Solve what leads.

    Parameters
    ----------
    found
        The own forecasts, as a map of what the windows hold.
    windows
        Standardised; what is known of them all solves it.
    how
        What is read, and who is led.
    """
    ((share, weights),) = _sum(windows, found, how.rows).solve([how.strength])
    return _bounded(share, weights, found, windows, how)


def _bounded(
    share: Tensor, weights: Tensor, found: LinearMap, windows: Sequence[Windows], how: Leading
) -> Led:
    """Return what was solved, (Y,) and (D, Y), and how much it adds to windows at most."""
    shape = windows[0].values.shape[1], windows[0].horizon
    led = torch.zeros(shape[0], 1, dtype=torch.bool)
    led[list(how.led)] = True
    share = share.view(shape).where(led, 1.0)
    weights = weights.view(-1, *shape) * led
    free = Led(share=share, weights=weights, largest=torch.full_like(share, torch.inf))
    largest = torch.zeros_like(share)
    for part, numbers in _spread(windows, _SOLVED_ON):
        for some in numbers:
            added = free.added(_latest(part.gather(some), found, how.rows))
            largest = torch.maximum(largest, added.abs().amax(0))
    return replace(free, largest=largest)


def _sum(windows: Sequence[Windows], found: LinearMap, rows: int) -> _Sums:
    total: _Sums | None = None
    for columns, own_of, target_of, weight in _read(windows, found, rows, _SOLVED_ON):
        own, target = own_of.flatten(1), target_of.flatten(1)
        weighed, own_weighed = columns, own
        if weight is not None:
            weighed, own_weighed = columns * weight[:, None], own * weight[:, None]
        part = _Sums(
            gram=weighed.mT @ columns,
            with_own=weighed.mT @ own,
            with_target=weighed.mT @ target,
            own=(own_weighed * own).sum(0),
            own_with_target=(own_weighed * target).sum(0),
        )
        total = part if total is None else total + part
    if total is None:
        raise AssertionError("windows are never empty")
    return total


def _read(
    windows: Sequence[Windows], found: LinearMap, rows: int, most: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Yield columns, (N, D), own forecasts and targets, (N, M, H), and weights, (N,), of windows.

    All less their levels. Where a target is unknown, as in a refit on rows that were not there when
    leaders were chosen, the own forecast stands for it, which asks for nothing.
    """
    for part, numbers in _spread(windows, most):
        weights = weights_of_windows(part)
        for some in numbers:
            batch = part.gather(some)
            x, target = found.linear.read(batch)
            own, columns = found.applied(x), _latest(batch, found, rows)
            if batch.target_mask is not None:
                target = target.where(batch.target_mask, own)
            yield columns, own, target, None if weights is None else weights[some]


def _spread(windows: Sequence[Windows], most: int) -> Iterator[tuple[Windows, Sequence[Tensor]]]:
    """Yield windows and their numbers in batches; of many some, evenly spread."""
    total = sum(len(each) for each in windows)
    for part in windows:
        which = part.spread(max(1, len(part) * most // total) if total > most else len(part))
        size = (part.lookback + 3 * part.horizon) * part.values.shape[1]
        yield part, torch.split(which, max(1, _BATCH // size))


def _latest(batch: Batch, found: LinearMap, rows: int) -> Tensor:
    """Return the latest rows of all columns, (N, D)."""
    return columns_above_level(batch, found.linear.level)[..., -rows:].flatten(1)
