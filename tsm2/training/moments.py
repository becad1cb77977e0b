"""Sums of products over windows: all that a linear forecast needs to be solved or judged.

    x = a window's context minus its level, then its covariates' columns        (D)
    y = its target minus its level                                              (H)
    gram = sum x x',  cross = sum x y',  squares = sum y y,  over windows and variates

A forecast x' B has the sum of squared errors tr(B' gram B) - 2 tr(B' cross) + sum(squares), so the
windows are read once, in batches, whatever is then solved and compared. Where the windows of one
table start in every row and all is known, not even that: neighbouring entries on a diagonal of
sum u u', of whole windows u, differ by their first and last products alone. The same holds for
sum u v', of the courses v of what is known in advance. The first row of both is a correlation.

An unknown target weighs nothing: each step then has a gram of its own, that of all windows less
those in which the step is unknown.

Sizes: W windows, B windows in a batch, M variates, G groups of variates with a map of their own (M
or 1), L lookback, H horizon, D columns, S grams per group (H with unknown targets, else 1), C
covariates, K courses (of the values, and of the future covariates), U rows of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tsm2.networks.patches import interpolate_gaps
from tsm2.prepared.windows import Batch, Windows

__all__ = [
    "Level",
    "LinearInput",
    "Moments",
    "StepMeans",
    "columns_above_level",
    "relate_covariates",
    "sum_columns",
    "sum_moments",
    "weights_of_windows",
]

Level = Literal["mean", "last", "zero"]
"""What a linear forecast may count from."""

_BATCH = 2**22
"""Numbers in the columns of a batch of windows: 32 MiB in double precision."""


@dataclass(frozen=True, slots=True)
class StepMeans:
    """Neighbouring steps that are read as one: V orthonormal columns of L steps."""

    column: Tensor
    """Of each step, (L,), rising from 0."""

    def of(self, steps: Tensor) -> Tensor:
        """Return what is read, (..., V, X), of steps, (..., L, X)."""
        sizes = torch.bincount(self.column)
        sums = steps.new_zeros(*steps.shape[:-2], len(sizes), steps.shape[-1])
        return sums.index_add_(-2, self.column, steps) / sizes[:, None].sqrt()

    def spread(self, weights: Tensor) -> Tensor:
        """Return the weights of steps, (..., L, X), from those of what is read, (..., V, X)."""
        sizes = torch.bincount(self.column)
        return (weights / sizes[:, None].sqrt())[..., self.column, :]


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearInput:
    """What a linear forecast reads of a window, and from which level it counts."""

    level: Level | None = "mean"
    """Subtracted from context and target: the context's mean or last value, or "zero", the mean of
    the training rows in standard units; None for nothing, and then a constant is read too."""
    past: Tensor | None = None
    """Weights of the past covariates in the course of each variate, (M, Cp)."""
    future: Tensor | None = None
    """Weights of the future covariates, (M, Cf)."""
    static: bool = False
    """Whether the static covariates are read."""
    basis: Tensor | None = None
    """What is seen of L steps, (L, V), orthonormal columns; None for all of them."""
    means: StepMeans | None = None
    """Which steps are read as one; None where each is read."""
    fine: int | None = None
    """Last steps that a map of very many reads one by one, at the least; None for all of them."""
    reverts: bool = False
    """Whether the level itself is read too, as the last column."""

    @property
    def plain(self) -> bool:
        """Whether it reads all steps of the values and nothing else."""
        others = (self.past, self.future, self.basis, self.means)
        return self.level is not None and not self.static and all(each is None for each in others)

    def read(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the columns, (B, M, D), and the targets, (B, M, H), in double precision.

        Both are in the units that errors count in, which a linear forecast does not know of.
        """
        context, target = batch.context.double(), batch.target.double()
        values, level = _leveled(context, batch.mask, self.level)
        columns = [self.seen(values.mT).mT]
        lookback = context.shape[-1]
        for weights, covariates in ((self.past, _past(batch)), (self.future, batch.future)):
            if weights is not None and covariates is not None:
                centered = _centered(covariates.double(), lookback, self.level)
                course = torch.einsum("bcs,mc->bms", centered[..., -lookback:], weights)
                columns.append(self.seen(course.mT).mT)
        if self.static and batch.static is not None:
            columns.append(batch.static.double())
        if self.level is None:
            columns.append(torch.ones_like(context[..., :1]))
        if self.reverts:
            columns.append(level)
        x, y = torch.cat(columns, -1), target - level
        return (x, y) if batch.error_unit is None else (x / batch.error_unit, y / batch.error_unit)

    def seen(self, steps: Tensor) -> Tensor:
        """Return what is read, (..., V, X), of steps, (..., L, X)."""
        if self.means is not None:
            return self.means.of(steps)
        return steps if self.basis is None else self.basis.mT @ steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Sums over windows, for G groups of variates."""

    gram: Tensor
    """Of columns with columns, (G, S, D, D): one for all steps, or one for each."""
    cross: Tensor
    """Of columns with targets, (G, D, H)."""
    squares: Tensor
    """Of targets with themselves, (G, H)."""
    counts: Tensor
    """Known targets, (G, H)."""

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            gram=self.gram + other.gram,
            cross=self.cross + other.cross,
            squares=self.squares + other.squares,
            counts=self.counts + other.counts,
        )

    def squared_errors(self, maps: Tensor) -> Tensor:
        """Return the sums of squared errors of the maps, (G, D, H), per step, (G, H)."""
        if self.gram.shape[1] == 1:
            forecast = self.gram[:, 0] @ maps  # (G, D, H)
        else:
            forecast = torch.einsum("ghde,geh->gdh", self.gram, maps)
        errors = (maps * (forecast - 2 * self.cross)).sum(1) + self.squares
        return errors.clamp(min=0.0)  # rounding


def sum_moments(
    windows: Windows, linear: LinearInput, *, variates: slice | None = None, steps: slice
) -> Moments:
    """Sum over all windows.

    Parameters
    ----------
    windows
        Standardised; of a `balanced` table every series weighs the same.
    linear
        What is read.
    variates
        Those that have a map of their own each; None pools all variates.
    steps
        Steps of the horizon.
    """
    plain = linear.past is None and not linear.static and linear.level is not None
    plain = plain and windows.error_units is None
    if plain and windows.known is None and _follow_on(windows):
        return _rolled(windows, linear, variates, steps)
    total: Moments | None = None
    for batch, weights in _batches(windows):
        x, y = linear.read(batch)
        y, known = y[..., steps], batch.target_mask
        known = None if known is None else known[..., steps]
        if variates is not None:
            x, y = x[:, variates], y[:, variates]
            known = None if known is None else known[:, variates]
        part = sum_columns(x, y, known, weights, pooled=variates is None)
        total = part if total is None else total + part
    if total is None:
        raise AssertionError("windows are never empty")
    return total


def columns_above_level(batch: Batch, level: Level | None) -> Tensor:
    """Return values and past covariates less their levels, (B, M + Cp, L), in double precision."""
    values, _ = _leveled(batch.context.double(), batch.mask, level)
    past = _past(batch)
    if past is None:
        return values
    return torch.cat((values, _centered(past.double(), values.shape[-1], level)), 1)


def relate_covariates(
    windows: Windows, linear: LinearInput, kind: Literal["past", "future"]
) -> Tensor:
    """Return how much of each covariate goes into each variate at the same step, (M, C).

    Least squares of values on covariates, both less their level over the lookback: over the
    context's steps, and for future covariates over the target's too.
    """
    rows = windows.covariates.past if kind == "past" else windows.covariates.future
    if rows is None:
        raise AssertionError(f"the windows have no {kind} covariates")
    if windows.known is None and (kind == "future" or windows.covariates.past_mask is None):
        gram, cross = _related(windows, linear, rows, windows.horizon * (kind == "future"))
    else:
        gram, cross = _related_by_batches(windows, linear, kind)
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    penalty = 1e-6 * diagonal.mean(-1, keepdim=True).clamp(min=1e-12)  # covariates may be collinear
    whole = gram + torch.diag_embed(penalty.expand_as(diagonal))  # (C, C) or (M, C, C)
    related: Tensor = torch.linalg.solve(whole, cross[..., None])[..., 0]
    return related


def _related(
    windows: Windows, linear: LinearInput, covariates: Tensor, ahead: int
) -> tuple[Tensor, Tensor]:
    """Return the gram of covariates, (C, C), and their products with the values, (M, C).

    All is known. They are sums over the first L + `ahead` steps of windows, and products of rows
    less their level are those of the rows, of the levels, and of the windows' sums.
    """
    lookback = windows.lookback
    span = lookback + ahead
    rows = torch.cat((covariates[: len(windows.values)], windows.values), 1).double()  # (T, C + M)
    starts = torch.arange(len(windows)) if windows.starts is None else windows.starts
    weights = weights_of_windows(windows)
    weights = torch.ones(len(windows), dtype=torch.float64) if weights is None else weights
    covered = rows.new_zeros(len(rows) + 1)  # how often each row is in a window
    covered.index_add_(0, starts, weights).index_add_(0, starts + span, -weights)
    before = torch.cat((rows.new_zeros(1, rows.shape[1]), rows.cumsum(0)))
    sums = before[starts + span] - before[starts]  # (W, C + M)
    if linear.level in (None, "zero"):
        level = torch.zeros_like(sums)
    elif linear.level == "last":
        level = rows[starts + lookback - 1]
    else:
        level = (before[starts + lookback] - before[starts]) / lookback
    weighed = level * weights[:, None]
    products = (rows * covered.cumsum(0)[:-1, None]).mT @ rows
    products += weighed.mT @ (span * level - sums) - sums.mT @ weighed
    width = covariates.shape[1]
    return products[:width, :width], products[width:, :width]


def _related_by_batches(
    windows: Windows, linear: LinearInput, kind: Literal["past", "future"]
) -> tuple[Tensor, Tensor]:
    """Return the same where something is unknown, and the gram of each variate, (M, C, C)."""
    gram = cross = torch.zeros(())
    for batch, weights in _batches(windows):
        covariates = _past(batch) if kind == "past" else batch.future
        if covariates is None:
            raise AssertionError(f"the windows have no {kind} covariates")
        values, level = _leveled(batch.context.double(), batch.mask, linear.level)
        known = torch.ones_like(values) if batch.mask is None else batch.mask.double()
        if kind == "future":
            values = torch.cat((values, batch.target.double() - level), -1)
            after = (
                torch.ones_like(batch.target) if batch.target_mask is None else batch.target_mask
            )
            known = torch.cat((known, after.double()), -1)
        centered = _centered(covariates.double(), batch.context.shape[-1], linear.level)
        if weights is not None:
            known = known * weights[:, None, None]
        gram = gram + torch.einsum("bcs,bds,bms->mcd", centered, centered, known)
        cross = cross + torch.einsum("bcs,bms->mc", centered, values * known)
    return gram, cross


def weights_of_windows(windows: Windows) -> Tensor | None:
    """Return the weight of each window, (W,); None if all weigh the same."""
    if not windows.balanced or windows.series is None:
        return None
    counts = torch.bincount(windows.series).double()
    return len(windows) / (counts > 0).sum() / counts[windows.series]


def _batches(windows: Windows) -> Iterator[tuple[Batch, Tensor | None]]:
    """Yield batches of windows and the weight of each window, (B,); None if all weigh the same."""
    shares = weights_of_windows(windows)
    span = windows.lookback + windows.horizon
    size = max(1, _BATCH // (span * windows.values.shape[1]))
    for which in windows.batches(size):
        yield windows.gather(which), None if shares is None else shares[which]


def sum_columns(
    x: Tensor, y: Tensor, known: Tensor | None, weights: Tensor | None, *, pooled: bool
) -> Moments:
    """Sum over a batch.

    Parameters
    ----------
    x, y
        Columns, (B, M, D), and targets, (B, M, H), in double precision.
    known
        Where the targets are known, (B, M, H); None if all are.
    weights
        Of each window, (B,); None if all weigh the same.
    pooled
        Whether all variates share one map.
    """
    weight = torch.ones_like(y) if known is None else known.to(y.dtype)
    if weights is not None:
        weight = weight * weights[:, None, None]
    y = y.where(weight > 0, 0.0)
    groups = [each.transpose(0, 1) for each in (x, y, weight)]  # (M, B, ...)
    if pooled:
        groups = [each.flatten(0, 1)[None] for each in groups]
    x, y, weight = groups
    weighed = y * weight
    return Moments(
        gram=_grams(x, weight, each_step=known is not None),
        cross=x.mT @ weighed,
        squares=(weighed * y).sum(1),
        counts=weight.sum(1),
    )


def _grams(x: Tensor, weight: Tensor, *, each_step: bool) -> Tensor:
    """Return the grams, (G, S, D, D), of columns (G, N, D) that weigh (G, N, H) at each step."""
    largest = weight.amax(-1, keepdim=True)  # of the steps that are known
    whole = (x * largest).mT @ x  # (G, D, D)
    if not each_step:
        return whole[:, None]
    grams = whole[:, None].repeat(1, weight.shape[-1], 1, 1)
    missing = (weight == 0) & (largest > 0)
    for group, step in missing.any(1).nonzero().tolist():
        lost = missing[group, :, step]
        rows = x[group, lost]
        grams[group, step] -= (rows * largest[group, lost]).mT @ rows
    return grams


def _follow_on(windows: Windows) -> bool:
    """Say if each window starts a row behind the one before."""
    return windows.starts is None or bool((windows.starts.diff() == 1).all())


def _rolled(windows: Windows, linear: LinearInput, variates: slice | None, steps: slice) -> Moments:
    """Sum over windows that start in every row of one table, of which all is known."""
    n, lookback, span = len(windows), windows.lookback, windows.lookback + windows.horizon
    first_row = 0 if windows.starts is None else int(windows.starts[0])
    rows = _courses(windows, linear)[:, first_row : first_row + n + span - 1]
    if variates is not None:
        rows = rows[..., variates]
    n_courses, _, n_variates = rows.shape
    groups = 1 if variates is None else n_variates
    shape = (groups, n_courses, span - 1, n_courses, span - 1)
    head, tail = (
        rows[:, k : k + span - 1].permute(2, 0, 1).reshape(groups, -1, n_courses * (span - 1))
        for k in (0, n)
    )
    steps_down = (tail.mT @ tail - head.mT @ head).reshape(shape)  # from an entry to the next
    first = _correlated(rows[:, :n], rows)[:, :, :span]  # (K, K, U, M)
    first = first.reshape(*first.shape[:3], groups, -1).sum(-1).permute(3, 0, 1, 2)  # (G, K, K, U)
    whole = first.new_empty(groups, n_courses, span, n_courses, span)
    whole[:, :, 0] = first
    whole[..., 0] = first.permute(0, 2, 3, 1)
    for i in range(span - 1):
        whole[:, :, i + 1, :, 1:] = whole[:, :, i, :, :-1] + steps_down[:, :, i]
    if linear.level != "zero":
        weights = first.new_zeros(span)
        weights[lookback - 1 if linear.level == "last" else slice(0, lookback)] = 1.0
        weights /= weights.sum()
        level = whole @ weights  # (G, K, U, K): of every row with the levels
        both = torch.einsum("gkul,u->gkl", level, weights)
        whole -= level[..., None]
        whole -= level.permute(0, 3, 1, 2)[:, :, None]
        whole += both[:, :, None, :, None]
    read = tuple(enumerate((slice(0, lookback), slice(span - lookback, span))[:n_courses]))
    grams = [
        [linear.seen(linear.seen(whole[:, k, one, m, two]).mT) for k, one in read]
        for m, two in read
    ]
    cross = [linear.seen(whole[:, k, one, 0, lookback:][..., steps]) for k, one in read]
    squares = whole[:, 0, :, 0].diagonal(dim1=1, dim2=2)[:, lookback:][:, steps]
    return Moments(
        gram=torch.cat([torch.cat(each, 2) for each in grams], 1)[:, None],
        cross=torch.cat(cross, 1),
        squares=squares,
        counts=torch.full_like(squares, n * n_variates // groups),
    )


def _correlated(first: Tensor, second: Tensor) -> Tensor:
    """Return sum over t of first[t] second[t + j] for every j, (K, K, T, M), of (K, ..., M) each.

    The second is (K, T, M), and longer than the first by the largest j of use.
    """
    size = 1 << (second.shape[1] - 1).bit_length()  # transforms are fast at powers of two
    one, other = (torch.fft.rfft(each, size, dim=1) for each in (first, second))
    correlated: Tensor = torch.fft.irfft(one[:, None].conj() * other[None], size, dim=2)
    return correlated


def _courses(windows: Windows, linear: LinearInput) -> Tensor:
    """Return the values and, where future covariates are read, their courses, (K, T, M)."""
    values, future = windows.values.double(), windows.covariates.future
    if linear.future is None or future is None:
        return values[None]
    return torch.stack((values, future.double()[: len(values)] @ linear.future.mT))


def _leveled(context: Tensor, mask: Tensor | None, kind: Level | None) -> tuple[Tensor, Tensor]:
    """Return contexts, (B, M, L), less their level, gaps filled, and the level, (B, M, 1)."""
    filled = context if mask is None else interpolate_gaps(context, mask)
    if kind in (None, "zero"):
        return filled, torch.zeros_like(filled[..., :1])
    if kind == "last":
        level = filled[..., -1:]
    elif mask is None:
        level = context.mean(-1, keepdim=True)
    else:
        level = (context * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    if mask is not None:
        # As the network does: it subtracts first, and a context of which nothing is known is 0.
        return interpolate_gaps(context - level, mask), level
    return filled - level, level


def _past(batch: Batch) -> Tensor | None:
    if batch.past is None or batch.past_mask is None:
        return batch.past
    return interpolate_gaps(batch.past, batch.past_mask)


def _centered(covariates: Tensor, lookback: int, kind: Level | None) -> Tensor:
    """Subtract the level over the lookback from covariates, (B, C, steps)."""
    if kind in (None, "zero"):
        return covariates
    before = covariates[..., :lookback]
    return covariates - (before.mean(-1, keepdim=True) if kind == "mean" else before[..., -1:])
