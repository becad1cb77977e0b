"""Logarithms: which variates swing the wider the higher they are, and are better measured in them.

    halves of seasons  ->  log of mean, log of deviation  ->  slope of one over the other

A slope of 0 is a swing that is always as wide, 1 one that is a share of the level. The plot of the
two is Tukey's spread-versus-level plot, and blocks of a season are Guerrero's. Each half of a
season is compared with the same half of others: what swings the most in its high months every year
need not swing wider in a higher year, and halves say so with twice as many blocks.

Sizes: M variates, N blocks, W rows of a block.
Sources: Tukey (1977), Exploratory Data Analysis; Guerrero (1993), Journal of Forecasting 12(1).
"""

import numpy as np
from numpy.typing import NDArray

from tsm2.errors import FrameError
from tsm2.tables.series import Series

__all__ = ["check_positive", "in_logarithms"]

_HALF = 0.5  # slope, nearer to a share than to a constant
_SURE = 2.0  # standard errors
_MOVES = 0.2  # deviation of the logarithm of the level, below which both kinds of swing look alike
_FEWEST = 6  # blocks
_BLOCKS, _ROWS = 8, 4  # without a season: few blocks, so that each holds one that nobody told of
_ASKED = 256  # series, evenly spread


def in_logarithms(series: Series, season: int | None) -> NDArray[np.bool_]:
    """Return which variates are better measured in logarithms, (M,).

    That takes values above zero alone, a level that moves by a fifth and more, and a swing that
    clearly moves with it. Several series speak together, each of its own level.

    Parameters
    ----------
    series
        Rows to judge by; blocks with gaps are left out.
    season
        Rows of a season; None for none.
    """
    blocks = _blocks(series, season)
    found = np.zeros(len(series.layout.columns), dtype=bool)
    for k in range(len(found)):
        lowest, largest = (each.reduce(series.values[:, k]) for each in (np.fmin, np.fmax))
        if lowest > 0:
            found[k] = _swings_with_level([each[..., k] / largest for each in blocks])
    return found


def _blocks(series: Series, season: int | None) -> list[NDArray[np.float64]]:
    """Return blocks that are compared, (N, W, M): of each series that is asked and each half.

    The last row of a series is in its last block.
    """
    found = []
    asked = np.linspace(0, len(series.ids) - 1, min(len(series.ids), _ASKED)).round().astype(int)
    for first, count in zip(series.offsets[asked], series.counts[asked], strict=True):
        width = season or 1
        if width < _ROWS or count < _FEWEST // 2 * width:
            width = max(_ROWS, count // _BLOCKS)
        number = count // width
        rows = series.values[first + count - number * width : first + count]
        blocks = rows.reshape(number, width, rows.shape[1])
        halves = 2 if width == season and width >= 2 * _ROWS else 1
        found += np.array_split(blocks, halves, axis=1)
    return found


def _swings_with_level(blocks: list[NDArray[np.float64]]) -> bool:
    """Return whether the swing of a variate is a share of its level.

    By blocks, (N, W), each list of which has a level of its own.
    """
    levels, swings, free = [], [], -1
    for each in blocks:
        level, swing = each.mean(1), each.std(1)
        told = (swing > 0) & np.isfinite(swing)  # known, and not still
        if told.sum() > 1:
            x, y = np.log(level[told]), np.log(swing[told])
            levels.append(x - x.mean())
            swings.append(y - y.mean())
            free += len(x) - 1
    if free < _FEWEST - 2:
        return False
    x, y = np.concatenate(levels), np.concatenate(swings)
    moves = float(x @ x)
    if moves < _MOVES**2 * len(x):
        return False
    slope = float(x @ y) / moves
    away = y - slope * x
    error = np.sqrt(float(away @ away) / free / moves)
    return bool(slope - _SURE * error > _HALF)


def check_positive(rows: Series, target: NDArray[np.bool_]) -> None:
    """Check that what is to be measured in logarithms has them.

    Raises
    ------
    FrameError
        A value is zero or less; the message says where.
    """
    low = (rows.values <= 0) & target
    if low.any():
        raise FrameError(
            f"logarithms=True needs values above zero, but "
            f"{rows.wrong_ones(low, 'of zero or less')}. Pass logarithms='auto', which takes them "
            f"where all values are above zero and swing the wider the higher they are, or False."
        )
