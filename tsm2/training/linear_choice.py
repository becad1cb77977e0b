"""How a linear forecast is cut and solved, chosen among candidates by the validation windows.

A candidate says which rows are read, from which level, by one map or one per variate. Each is
solved by `tsm2.training.ridge`; the plainest comes first, and is left only for a clear gain.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tsm2.errors import WindowError
from tsm2.prepared.windows import Windows
from tsm2.training.moments import LinearInput, relate_covariates
from tsm2.training.ridge import STRENGTHS, LinearMap, solve_linear

__all__ = ["Candidate", "LinearChoice", "choose_linear"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way to cut and solve a linear forecast, and what it reached."""

    lookback: int
    """Rows that it reads."""
    level: Literal["mean", "last"] = "mean"
    """From what it counts."""
    separate: bool = False
    """Whether every variate has a map of its own, held towards the shared one."""
    season: int | None = None
    """Steps of the season whose naive forecast it is held towards; None for the level."""
    calendar: tuple[str, ...] = ()
    """Features of the calendar that it reads too."""
    fine: int | None = None
    """Last rows of very many that it reads one by one; None for all of them."""
    regressed: int | None = None
    """Last rows that the regression reads, where it is averaged with simple forecasts that read
    all; None for a regression alone."""
    cycle: int | None = None
    """Rows of a season of these simple forecasts; 1 for none."""
    averaged: bool = False
    """Whether it is the mean of the maps from both levels, see `solve_averaged`."""
    reverts: bool = False
    """Whether the map from zero is half of that mean."""
    lookbacks: tuple[int, ...] = ()
    """Rows that the maps of that mean read, where they read more and less; empty for `lookback`."""
    classical: bool = False
    """Whether it is averaged with classical forecasts of whole histories."""
    leaders: int | None = None
    """Latest rows of all columns that forecasts read too, see `tsm2.training.leading`; None for
    none."""
    led: tuple[int, ...] = ()
    """Positions of the variates whose forecasts do."""
    leader_strength: float = math.nan
    """Of the ridge of these."""
    scaled: bool = False
    """Whether errors count in units of each series' seasonal naive error."""
    strength: float = math.nan
    """Of the ridge; of several maps the geometric mean. One that is known is tried again, beside a
    tenth and ten times of it, and no other."""
    error: float = math.nan
    """Mean squared error over the validation windows, on standardised values, or `scaled`."""
    scaled_error: float = math.nan
    """Mean absolute scaled error over the validation windows, where that was looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearChoice:
    """What the validation windows chose, and against what."""

    best: Candidate
    """What was chosen."""
    candidates: tuple[Candidate, ...]
    """All that was tried, in its order; the first is the one that others had to beat."""
    maps: Mapping[Candidate, LinearMap]
    """Those of all that were not known before."""


def choose_linear(
    cut: Callable[[Candidate], tuple[Windows, Windows | None]],
    candidates: Sequence[Candidate],
    *,
    margin: float = 0.03,
) -> LinearChoice:
    """Choose how a linear forecast is cut and solved, by its error over the validation windows.

    Parameters
    ----------
    cut
        Makes the training and the validation windows of a candidate; its calendar is all that they
        hold of covariates. The targets of the validation windows must be the same for all, or their
        errors say nothing.
    candidates
        What is tried; one whose error is known is not solved again. The plainest comes first.
    margin
        Share by which another's error must be lower than the first one's: with few validation
        windows the lowest error is often luck.

    Raises
    ------
    WindowError
        There are no windows to choose by.
    """
    tried: list[Candidate] = []
    maps: dict[Candidate, LinearMap] = {}
    for each in candidates:
        if not math.isnan(each.error):
            tried.append(each)
            continue
        train, validation = cut(each)
        linear = LinearInput(level=each.level, fine=each.fine)
        if each.calendar:
            linear = replace(linear, future=relate_covariates(train, linear, "future"))
        known = each.strength
        found = solve_linear(
            train,
            validation,
            linear,
            separate=each.separate,
            season=each.season,
            strengths=STRENGTHS if math.isnan(known) else (0.1 * known, known, 10 * known),
        )
        if found.error is not None:
            strength = float(found.strength.log().mean().exp())
            tried.append(replace(each, strength=strength, error=found.error))
            maps[tried[-1]] = found
    if not tried:
        lookbacks = sorted({each.lookback for each in candidates})
        raise WindowError(
            f"lookback {lookbacks} leaves no windows to choose by. Give more rows, or set lookback,"
            f" level and separate_heads."
        )
    best = min(tried, key=lambda each: each.error)
    if best.error >= (1 - margin) * tried[0].error:
        best = tried[0]
    return LinearChoice(best=best, candidates=tuple(tried), maps=maps)
