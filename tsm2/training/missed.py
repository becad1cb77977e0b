"""What a pretrained network misses on a table, solved: the exact part of its tuning.

    error = (target - median) / scale               in the unit of the network's answer
    error ~ sum over k of (a[k] + b[k] line) (course[k] - base) / scale   line: -1 ... 1 over steps
    rest  ~ B (history - its last value) / scale

Two ridge regressions, one after the other, held towards nothing: towards the forecast as it is. The
strength of each is the one with the lowest quantile loss over held-out windows, and a regression
that does not lower it clearly is left out. All quantiles move alike.

Sizes: N windows times variates, K classical forecasts, L lookback, H horizon, Q quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tsm2.networks.heads import mean_loss
from tsm2.networks.zero import SolvedPath, ZeroShotNetwork
from tsm2.prepared.windows import Windows
from tsm2.training.moments import LinearInput, sum_columns
from tsm2.training.ridge import STRENGTHS, solve_moments
from tsm2.training.told import told_of

__all__ = ["BATCH", "SolvedCandidate", "solve_missed"]

BATCH = 32
"""Windows that are read at once."""
_FARTHEST = 15.0  # scales: what is further off says nothing about the rest
_MARGIN = 0.01  # share by which the loss must be lower


@dataclass(frozen=True, kw_only=True, slots=True)
class SolvedCandidate:
    """A way to correct the forecasts, and how far they then err on held-out windows."""

    solved: tuple[str, ...]
    """What is solved: nothing, "courses", "history" or both."""
    strength: float
    """Of the last of these ridges; infinite where nothing is solved."""
    loss: float
    """Quantile loss, on standardised values."""
    error: float
    """Mean squared error of the median, on standardised values."""
    chosen: bool = False
    """Whether the network is so now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Missed:
    """What the path may read of windows, and what is missed without it."""

    columns: dict[str, Tensor]
    """By the names of the path's parameters: (N, H, 2 K) and (N, L)."""
    error: Tensor
    """Target minus median in scales, (N, H)."""
    known: Tensor | None
    """Where the target is known, (N, H); None if all of it is."""
    quantiles: Tensor
    """Forecasts in the unit of the windows, (N, H, Q)."""
    target: Tensor
    """In the unit of the windows, (N, H)."""
    scale: Tensor
    """Of the answer, in the unit of the windows, (N, 1)."""


@torch.no_grad()
def solve_missed(
    network: ZeroShotNetwork, train: Windows, judged: Windows, *, chosen: Tensor
) -> tuple[ZeroShotNetwork, list[SolvedCandidate]]:
    """Solve what a network misses.

    Parameters
    ----------
    network
        Left as it is. What it has solved before is kept, and the rest is solved.
    train
        Windows to learn from.
    judged
        Windows that choose the strengths; they may carry what is told of them, see
        `tsm2.training.told`.
    chosen
        Which of the training windows are read, (N,).

    Returns
    -------
    The network with what was solved, and what was tried: the network as it is first, then each
    regression with its best strength. One of them is chosen.
    """
    seen, held_out = _missed(network, train, chosen), _missed(network, judged, None)
    better = network.with_solved()
    levels = network.config.quantiles or ()
    best = _judged(held_out, torch.zeros(()), levels, solved=(), strength=math.inf)
    tried = [best]
    rest, added = seen.error, torch.zeros_like(held_out.error)
    for name in ("courses", "history"):
        columns = seen.columns[name]
        candidates = []
        for strength, weights in _solutions(columns, rest, seen.known):
            moved = added + _applied(held_out.columns[name], weights)
            solved = (*best.solved, name)
            found = _judged(held_out, moved, levels, solved=solved, strength=strength)
            candidates.append((found, weights, moved))
        lowest, weights, moved = min(candidates, key=lambda each: each[0].loss)
        tried.append(lowest)
        if lowest.loss < (1 - _MARGIN) * best.loss:
            best, added = lowest, moved
            rest = rest - _applied(columns, weights)
            own = better.get_parameter(f"solved.{name}").detach()
            own.add_(weights.view_as(own).to(own.dtype))
    marked = [replace(each, chosen=each is best) for each in tried]
    return (better if best.solved else network), marked


def _missed(network: ZeroShotNetwork, windows: Windows, chosen: Tensor | None) -> _Missed:
    """Read windows, those numbered `chosen` or all."""
    path = SolvedPath(network.config.lookback, network.config.horizon)
    middle = (network.config.quantiles or ()).index(0.5)
    order = torch.arange(len(windows)) if chosen is None else chosen
    pieces: list[dict[str, Tensor]] = []
    for which in torch.split(order, BATCH):
        batch = windows.gather(which)
        told = told_of(network, batch)
        answer = network.answer(told)
        level, deviation = told.level, told.deviation  # (B, M, 1)
        standard = (batch.target.double() - level) / deviation
        away = (standard - told.base) / told.scale - answer[..., middle]
        courses, history = path.columns(told)
        forecast = network.standard(told, answer).double()
        everywhere = torch.ones_like(batch.target, dtype=torch.bool)
        pieces.append(
            {
                "courses": courses.mT,
                "history": history,
                "error": away.clamp(-_FARTHEST, _FARTHEST),
                "quantiles": forecast * deviation.unsqueeze(-1) + level.unsqueeze(-1),
                "target": batch.target,
                "scale": told.scale * deviation,
                "known": everywhere if batch.target_mask is None else batch.target_mask,
            }
        )
    joined = {name: torch.cat([each[name] for each in pieces]).flatten(0, 1) for name in pieces[0]}
    known = joined.pop("known")
    columns = {name: joined.pop(name).double() for name in ("courses", "history")}
    whole = {name: each.double() for name, each in joined.items()}
    return _Missed(columns=columns, known=None if bool(known.all()) else known, **whole)


def _solutions(
    columns: Tensor, error: Tensor, known: Tensor | None
) -> Iterator[tuple[float, Tensor]]:
    """Yield strengths and the weights that they give, (2 K, 1) or (L, H)."""
    if columns.ndim == 3:  # a step is as good as another
        columns, error = columns.flatten(0, 1), error.reshape(-1, 1)
        known = None if known is None else known.reshape(-1, 1)
    known = None if known is None else known[:, None]
    moments = sum_columns(columns[:, None], error[:, None], known, None, pooled=True)
    nothing = torch.zeros(1, columns.shape[-1], error.shape[-1], dtype=torch.float64)
    for strength in STRENGTHS:
        yield strength, solve_moments(moments, LinearInput(), strength, nothing)[0]


def _applied(columns: Tensor, weights: Tensor) -> Tensor:
    """Return what is added to the answer, (N, H)."""
    added = columns @ weights
    return added if columns.ndim == 2 else added.squeeze(-1)


def _judged(
    held_out: _Missed,
    added: Tensor,
    levels: tuple[float, ...],
    *,
    solved: tuple[str, ...],
    strength: float,
) -> SolvedCandidate:
    forecast = held_out.quantiles + (added * held_out.scale).unsqueeze(-1)
    known = held_out.known
    loss = mean_loss("quantile", forecast, held_out.target, quantiles=levels, mask=known)
    median = forecast[..., levels.index(0.5)]
    error = mean_loss("mse", median, held_out.target, mask=known)
    return SolvedCandidate(solved=solved, strength=strength, loss=float(loss), error=float(error))
