"""Loops over rows of generated series for which numpy would take many passes.

    y[t] = x[t] + z[t-1]                                        "filtered", in place
    z[t] = later[t-1] + b x[t] - a y[t]        later[t] = -c y[t]

    rows += (shape (1 + stretch) + other shape share) slope size                   "add_season"
    window += loading x row of its first variates, at a lag                           "add_factors"

numba compiles them when they are first called, in about a second. Rows are filtered eight at a
time, for each step of a row waits for the one before it. Every operation rounds to float32, in
the order in which it is written, so that a seed draws the same values to the bit wherever it does
so in numpy.

Sizes: R rows, T time steps, S shapes of P phases; W windows, M variates, K factors.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["add_factors", "add_season", "filter_rows"]

Numbers = NDArray[np.float32]

_AT_ONCE = 8  # rows that are filtered side by side


def filter_rows(
    rows: Numbers, which: NDArray[np.int64], moving: float, poles: tuple[float, float]
) -> None:
    """Filter some rows in place, each from zero.

    Parameters
    ----------
    rows
        The rows, (R, T).
    which
        Those that are filtered.
    moving
        Weight b of the step before, beside 1 of the step itself.
    poles
        Weights a and c of the last two outputs, which are subtracted.
    """
    given = (np.float32(each) for each in (moving, *poles))
    _compiled(_filter)(rows, which, *given)


def add_season(
    rows: Numbers,
    chosen: NDArray[np.int64],
    shapes: Numbers,
    *,
    which: NDArray[np.int64],
    other: NDArray[np.int64],
    phase: NDArray[np.int32],
    moved: NDArray[np.int64],
    moves: Numbers,
    growth: Numbers,
    size: Numbers,
) -> None:
    """Add a season to some rows.

    Parameters
    ----------
    rows, chosen
        Rows, (R, T), and the numbers of those that have it, (C,).
    shapes
        Values at every phase, (S, P).
    which, other
        Numbers of the shape of each, and of the one that it wanders to, (C,).
    phase
        Where in its season each step is, (C, T).
    moved, moves
        Place of each in `moves`, or below zero, (C,); and how far it stretches and wanders at each
        step, (2, W, T).
    growth
        By how much each grows from the middle to the end, (C,).
    size
        What each is multiplied by, (C,).
    """
    steps = np.linspace(-1, 1, rows.shape[1], dtype=np.float32)
    _compiled(_add)(rows, chosen, shapes, which, other, phase, moved, moves, growth, size, steps)


def add_factors(
    own: Numbers,
    rows: Numbers,
    joined: NDArray[np.int64],
    place: NDArray[np.int64],
    loadings: Numbers,
) -> None:
    """Add the first variates of some windows to all of theirs.

    Parameters
    ----------
    own
        What is added to, (W, M, T).
    rows
        What is added, (W, M, T + lags).
    joined
        Numbers of the windows, (J,).
    place
        First step of what each variate is added, (J, M).
    loadings
        What the first K variates are multiplied by for each, (J, M, K).
    """
    _compiled(_join)(own, rows, joined, place, loadings)


@cache
def _compiled(loop: Callable[..., None]) -> Any:
    return njit(nogil=True, error_model="numpy")(loop)


def _filter(rows: Any, which: Any, moving: Any, first: Any, second: Any) -> None:
    steps = rows.shape[1]
    before = np.zeros(_AT_ONCE, np.float32)
    earlier = np.zeros(_AT_ONCE, np.float32)
    for start in range(0, len(which), _AT_ONCE):
        some = which[start : start + _AT_ONCE]
        before[:] = 0
        earlier[:] = 0
        for t in range(steps):
            for k in range(len(some)):
                x = rows[some[k], t]
                y = before[k] + x
                before[k] = (earlier[k] + moving * x) - first * y
                earlier[k] = -(second * y)
                rows[some[k], t] = y


def _add(
    rows: Any,
    chosen: Any,
    shapes: Any,
    which: Any,
    other: Any,
    phase: Any,
    moved: Any,
    moves: Any,
    growth: Any,
    size: Any,
    steps: Any,
) -> None:
    one = np.float32(1)
    for r in range(len(chosen)):
        row, own, place = rows[chosen[r]], shapes[which[r]], phase[r]
        if moved[r] >= 0:
            stretch, share = moves[0, moved[r]], moves[1, moved[r]]
            away = shapes[other[r]]
            for t in range(len(row)):
                season = (stretch[t] + one) * own[place[t]] + share[t] * away[place[t]]
                row[t] += season * (one + growth[r] * steps[t]) * size[r]
        else:
            for t in range(len(row)):
                row[t] += own[place[t]] * (one + growth[r] * steps[t]) * size[r]


def _join(own: Any, rows: Any, joined: Any, place: Any, loadings: Any) -> None:
    for j in range(len(joined)):
        for m in range(own.shape[1]):
            row = own[joined[j], m]
            for factor in range(loadings.shape[2]):
                moved, weight = rows[joined[j], factor], loadings[j, m, factor]
                for t in range(len(row)):
                    row[t] += weight * moved[place[j, m] + t]
