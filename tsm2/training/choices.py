"""Choices: what a fit settles by the closed form, on validation rows, before it learns anything.

    lookbacks x levels x seasons                       ->  validation errors  ->  the choice
    the choice x (one map, one per variate) x levels   ->  validation errors  ->  the choice
    the choice x features of the calendar              ->  validation errors  ->  the choice
    the choice, the mean of the maps from both levels, unless it reads the calendar
    the choice, the mean over two lookbacks that err alike, if many validation windows speak for it
    the choice, half of it the map from zero, if many validation windows speak for that
    the choice, solved for errors in units of each series' seasonal naive error
    the choice, averaged with simple forecasts, unless the validation errors speak against it
    the choice, averaged with classical forecasts of whole histories, unless they speak against it
    the choice before, led by the latest rows of all columns, if the errors are clearly lower

Every candidate is a ridge regression of the linear path (`tsm2.training.ridge`), so that a choice
costs seconds at most. The plainest candidate comes first and is left only for a clear gain.

Sizes: S series, H horizon.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.errors import WindowError
from tsm2.networks.combined import ClassicalMean
from tsm2.prepared.prepared import Prepared
from tsm2.prepared.splits import split_starts
from tsm2.prepared.windows import Covariates, Windows
from tsm2.tables.series import Series
from tsm2.training.leading import choose_leading
from tsm2.training.linear_choice import Candidate, choose_linear
from tsm2.training.missed import SolvedCandidate
from tsm2.training.moments import LinearInput
from tsm2.training.ridge import (
    LinearMap,
    solve_averaged,
    solve_from_zero,
    solve_linear,
    with_zero,
)
from tsm2.training.simple import Blend, blend_in, error_of, errors_beside, regressed

__all__ = [
    "TELLING",
    "Choice",
    "SimpleForecasts",
    "candidates",
    "choose",
    "chosen",
    "enough_rows",
    "labelled",
    "sure_margin",
    "with_mixers",
    "with_solved",
]

TELLING = 4
"""Horizons, or lookbacks, of validation windows that can tell one forecast from another."""
_SURE = 30  # forecasts one after another that margins are meant for
_MOST_MAPS = 32  # variates with a map of their own each
_FEWEST = 2  # rows that a lookback may shrink to
_MARGIN = 0.03  # share by which another's error must be lower than the plainest's
_MANY = 1024  # validation windows that need no margin to do so, and say whether levels come back
_ALIKE = 0.1  # share that lookbacks may err more by, and still be part of a mean
_LEADS = 0.05  # share by which many forecasts must err less for columns that lead
_CLEAR = 0.1  # share by which errors that count otherwise must be lower by that measure

Cut = Callable[[Candidate], tuple[Windows, Windows | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SimpleForecasts:
    """Simple forecasts that a choice may be averaged with, see `tsm2.training.simple`."""

    lookback: int
    """Rows that they read, if the choice does not read more."""
    season: int
    """Rows of a season; 1 for none."""
    classical: ClassicalMean | None
    """Classical forecasts of whole histories, which the outcome is then averaged with; None for
    none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What was tried and what was chosen."""

    table: pd.DataFrame
    """A row for each candidate, with its validation errors and whether it was chosen."""
    solved: LinearMap | None
    """The map of the choice, solved on all windows that a fit trains and is judged on, without what
    it is averaged with in turn; None if it is no mean of the maps from both levels."""


def enough_rows(series: Series, horizon: int, validation_fraction: float) -> NDArray[np.int64]:
    """Return how many first rows of each series are for training, (S,), if the lookback may shrink.

    The validation part grows to the horizon where the share of the rows is less; a series that then
    has no rows left to train on gives all of them to training.

    Raises
    ------
    WindowError
        A series has no row before a forecast.
    """
    short = np.flatnonzero(series.counts < horizon + _FEWEST)
    if len(short):
        name = series.ids[short[0]]
        which = "the table" if series.layout.alone else f"series {name!r}"
        raise WindowError(
            f"{which} has {series.counts[short[0]]} rows, but a forecast of horizon={horizon} "
            f"needs {horizon + _FEWEST} at least. Give more rows, or lower horizon."
        )
    if not validation_fraction:
        return series.counts
    n_validation = np.round(series.counts * validation_fraction).astype(np.int64).clip(min=horizon)
    validates = series.counts - n_validation >= horizon + _FEWEST
    return series.counts - np.where(validates, n_validation, 0)


def sure_margin(margin: float, validation: Windows) -> float:
    """Return the margin that few forecasts ask for where `_SURE` ask for this one.

    How far a mean of independent errors is off goes with one over the root of their number.
    """
    stretches = float(validation.stretches().sum())
    return min(1.0, margin * max(1.0, math.sqrt(_SURE / stretches)))


def candidates(
    *,
    lookbacks: Sequence[int],
    levels: Sequence[Literal["mean", "last"]],
    separate: Sequence[bool],
    season: int | None,
    n_variates: int,
    fine: int | None = None,
    scaled: bool = False,
) -> list[Candidate]:
    """Return what is tried, the plainest first."""
    maps = [each for each in separate if not each or 1 < n_variates <= _MOST_MAPS]
    kinds: list[Any] = [(levels[0], None)]  # levels, and seasons to be held towards
    if len(levels) > 1 and season is not None:
        kinds.append(("mean", season))
    kinds += [(level, None) for level in levels[1:]]
    return [
        Candidate(
            lookback=lookback,
            level=level,
            season=own if own is None or own <= lookback else None,
            separate=apart,
            fine=fine,
            scaled=scaled,
        )
        for apart in maps or [False]
        for lookback in lookbacks
        for level, own in kinds
    ]


def choose(
    prepared: Prepared,
    n_train: NDArray[np.int64],
    tried: Sequence[Candidate],
    horizon: int,
    *,
    calendars: Mapping[tuple[str, ...], Covariates] = MappingProxyType({}),
    averaged: bool = False,
    season: int = 1,
    scaled: bool = False,
    simple: SimpleForecasts | None = None,
    leaders: Literal["auto"] | bool = False,
) -> Choice:
    """Try candidates, and choose one by its error on the validation rows.

    Parameters
    ----------
    prepared
        The targets, without covariates.
    n_train
        First rows of each series that are for training, (S,).
    tried
        The plainest first; one alone is taken as it is.
    horizon
        Rows of a forecast.
    calendars
        Features of the calendar that are tried with what was chosen without any, and their coded
        rows.
    averaged
        Whether the choice is the mean of the maps from both levels, unless it reads the calendar.
    season
        Rows of a season, for what counts in seasonal naive errors; 1 for none.
    scaled
        Whether it is tried if errors are to count in units of each series' seasonal naive error,
        unless the choice reads the calendar.
    simple
        What may be averaged with it in turn, unless that reads the calendar; None for nothing.
    leaders
        Whether the choice may be led by the latest rows of all columns: "auto" where the errors
        are clearly lower, True in any case. Classical forecasts, which know of none, have no part
        in it.
    """
    rows = list(dict.fromkeys(tried))
    best, solved = rows[0], None
    maps: dict[Candidate, LinearMap] = {}  # of single maps that were tried
    counting = prepared.counting_by(season, n_train) if scaled or best.scaled else prepared

    def cut(candidate: Candidate, reach: int = 0) -> tuple[Windows, Windows | None]:
        sizes = {"lookback": candidate.lookback, "horizon": horizon}
        fits, judges = split_starts(prepared.series, n_train, **sizes)
        known = prepared.covariates
        if candidate.calendar:
            known = replace(known, future=calendars[candidate.calendar].future)
        whole = counting if candidate.scaled else prepared
        own = replace(whole, lookback=candidate.lookback, covariates=known)
        own = own.reaching(reach) if reach else own
        judged = own.windows(judges, horizon) if len(judges) else None
        return own.windows(fits, horizon), judged

    with suppress(WindowError):  # too few windows to choose by: the plainest
        if len(rows) > 1 or calendars or simple is not None or leaders:
            shared = [each for each in rows if not each.separate]
            choice = choose_linear(cut, shared or rows)
            maps |= choice.maps
            looks = choice.best.lookback
            apart = [each for each in rows if each.separate and each.lookback == looks]
            rows, best = list(choice.candidates), choice.best
            if shared and apart:
                choice = choose_linear(cut, [best, *apart])
                maps |= choice.maps
                rows, best = [*rows, *choice.candidates[1:]], choice.best
        if calendars:
            more = [replace(best, calendar=names, error=math.nan) for names in calendars]
            choice = choose_linear(cut, [best, *more])
            maps |= choice.maps
            rows, best = [*rows, *choice.candidates[1:]], choice.best
    if averaged and not best.calendar:
        means, best, solved = _averaged(cut, best, _near(rows, best), maps)
        rows = [*rows, *means]
    if scaled and not best.calendar:
        plain, other, otherwise = _scaled(cut, best, solved)
        rows = [*(plain if each is best else each for each in rows), other]
        clear = other.scaled_error < (1 - _CLEAR) * plain.scaled_error
        best, solved = (other, otherwise if best.averaged else None) if clear else (plain, solved)
    found = solved
    if simple is not None and not best.calendar:
        blended, stands, found = _blended(cut, best, simple, solved)
        rows, best = [*rows, blended], blended if stands else best
    led = _led(cut, best, found or maps.get(best), leaders) if leaders else None
    if simple is not None and simple.classical is not None and not best.calendar:
        combined, stands = _combined(cut, best, found, simple.classical)
        rows, best = [*rows, combined], combined if stands else best
    if led is not None:
        whole, beats = led
        stands = leaders is True or beats < best.error
        rows, best = [*rows, whole], whole if stands else best
    return Choice(table=_table_of(rows, best), solved=solved)


def _table_of(rows: Sequence[Candidate], best: Candidate) -> pd.DataFrame:
    """Return the candidates, one row each."""
    led = {
        "leaders": pd.array([each.leaders for each in rows], dtype="Int64"),
        "led": [each.led for each in rows],
        "leader_strength": [each.leader_strength for each in rows],
    }
    return pd.DataFrame(
        {
            "lookback": [each.lookback for each in rows],
            "level": [each.level for each in rows],
            "season": pd.array([each.season for each in rows], dtype="Int64"),
            "separate_heads": [each.separate for each in rows],
            "calendar": [", ".join(each.calendar) for each in rows],
            "regressed": pd.array([each.regressed for each in rows], dtype="Int64"),
            "cycle": pd.array([each.cycle for each in rows], dtype="Int64"),
            "averaged": [each.averaged for each in rows],
            "lookbacks": [each.lookbacks for each in rows],
            "reverts": [each.reverts for each in rows],
            **(led if any(each.leaders for each in rows) else {}),
            "classical": [each.classical for each in rows],
            "scaled_errors": [each.scaled for each in rows],
            "validation_mse": [each.error for each in rows],
            "validation_scaled_error": [each.scaled_error for each in rows],
            "chosen": [each is best for each in rows],
        }
    )


def _solved(
    best: Candidate,
    train: Windows,
    validation: Windows | None,
    known: Sequence[LinearMap] = (),
) -> LinearMap:
    """Solve a candidate that reads nothing but values, see `solve_averaged`."""
    mean = partial(solve_averaged, reverts=best.reverts, lookbacks=best.lookbacks, solved=known)
    solve = mean if best.averaged else solve_linear
    linear = LinearInput(level=best.level, fine=best.fine)
    return solve(train, validation, linear, separate=best.separate, season=best.season)


def _near(tried: Sequence[Candidate], best: Candidate) -> list[int]:
    """Return the lookbacks that err little more than the one that was chosen, in order.

    By their best maps of the kind that was tried with all of them.
    """
    lowest: dict[int, float] = {}
    for each in tried:
        if each.separate == tried[0].separate:
            lowest[each.lookback] = min(each.error, lowest.get(each.lookback, math.inf))
    least = lowest[best.lookback]
    return sorted(own for own, error in lowest.items() if error < (1 + _ALIKE) * least)


def _averaged(
    cut: Cut, best: Candidate, lookbacks: Sequence[int], maps: Mapping[Candidate, LinearMap]
) -> tuple[list[Candidate], Candidate, LinearMap | None]:
    """Return means of what was chosen, the one that is taken, and its map; None where none judge.

    Single maps that were tried are known.

    The first is that of the maps from both levels, and taken where few windows judge. Where many
    do, that over the shortest and the longest lookback is taken if it errs less, since errors of
    maps that read very different rows differ most. Then half of it counts from zero if the map from
    zero alone errs less still: how far levels come back takes long to show.
    """
    alone = replace(best, averaged=True, error=math.nan)
    found, solved, validation = _mean_of_levels(cut, alone, maps)
    tried = [found]
    if solved is None or validation is None or not _tells(validation, validation.horizon):
        return tried, found, solved
    lookbacks = [each for each in lookbacks if _tells(validation, each)]
    if len(lookbacks) > 1:
        ends = (lookbacks[0], lookbacks[-1])
        both = replace(found, lookback=ends[1], lookbacks=ends, error=math.nan)
        both, solved_both, longer = _mean_of_levels(cut, both, maps)
        tried.append(both)
        if solved_both is not None and longer is not None and both.error < found.error:
            found, solved, validation = both, solved_both, longer
    zero = solve_from_zero(solved, cut(found)[0], validation)
    reverting = with_zero(solved, zero)
    tried.append(replace(found, reverts=True, error=error_of(reverting, validation)))
    if error_of(zero, validation) < found.error:
        return tried, tried[-1], reverting
    return tried, found, solved


def _mean_of_levels(
    cut: Cut, mean: Candidate, maps: Mapping[Candidate, LinearMap]
) -> tuple[Candidate, LinearMap | None, Windows | None]:
    """Return a mean of maps with its error, its map, and the windows that judge; None for none."""
    train, validation = cut(mean)
    if validation is None:
        return mean, None, None
    known = [found for each, found in maps.items() if each.lookback == mean.lookback]
    found = _solved(mean, train, validation, known)
    return replace(mean, error=error_of(found, validation)), found, validation


def _tells(validation: Windows, span: int) -> bool:
    """Return whether there are many windows, and four times as many as a span has rows."""
    return len(validation) >= max(_MANY, TELLING * span)


def _scaled(
    cut: Cut, best: Candidate, solved: LinearMap | None
) -> tuple[Candidate, Candidate, LinearMap | None]:
    """Return a choice, and the same solved for scaled errors, with the scaled errors of both.

    The map is that of the latter, and None where no windows judge.
    """
    scaled = replace(best, scaled=True, error=math.nan)
    train, judged = cut(scaled)
    if judged is None:
        return best, scaled, None
    maps = [solved or _solved(best, *cut(best)), _solved(scaled, train, judged)]
    errors = [error_of(each, judged, absolute=True) for each in maps]
    error = error_of(maps[1], judged)
    return (
        replace(best, scaled_error=errors[0]),
        replace(scaled, error=error, scaled_error=errors[1]),
        maps[1],
    )


def _blended(
    cut: Cut, best: Candidate, simple: SimpleForecasts, solved: LinearMap | None
) -> tuple[Candidate, bool, LinearMap | None]:
    """Return the mean of the choice and simple forecasts, with its error, and whether it is taken.

    It is, unless enough windows say that the choice alone is better: on few the lower error is
    often luck, and a mean of forecasts seldom far off. The map is that of what is taken; None where
    no windows judge.
    """
    lookback = max(best.lookback, simple.lookback)
    whole = replace(
        best,
        lookback=lookback,
        regressed=best.lookback,
        cycle=simple.season,
        error=math.nan,
        scaled_error=math.nan,
    )
    train, validation = cut(whole)
    if validation is None:
        return whole, True, None
    blend = Blend(regressed=best.lookback, season=simple.season)
    parts = regressed(train, blend, from_first=True), regressed(validation, blend)
    alone = solved or _solved(best, *parts)
    both = blend_in(alone, blend, [train, validation])
    error = error_of(both, validation)
    stands = _stands(validation, best.error, error)
    return replace(whole, error=error), stands, both if stands else alone


def _led(
    cut: Cut, best: Candidate, found: LinearMap | None, leaders: Literal["auto"] | bool
) -> tuple[Candidate, float] | None:
    """Return the choice as it is led by the latest rows of all columns, and how much it beats.

    Others are left for it that err more than the latter. None where nothing can be solved, nobody
    would be led, or few windows say so.
    """
    train, validation = cut(best)
    if validation is None:
        return None
    few = len(validation) < TELLING * validation.horizon
    if few and leaders == "auto":
        return None
    leading = choose_leading(found or _solved(best, train, validation), train, validation)
    if leading is None:
        return None
    how, ratio, of_all = leading
    whole = replace(
        best,
        leaders=how.rows,
        led=how.led,
        leader_strength=how.strength,
        error=best.error * ratio,
        scaled_error=math.nan,
    )
    return whole, best.error * of_all / (1 - sure_margin(_LEADS, validation))


def _combined(
    cut: Callable[..., tuple[Windows, Windows | None]],
    best: Candidate,
    found: LinearMap | None,
    classical: ClassicalMean,
) -> tuple[Candidate, bool]:
    """Return the mean of the choice and classical forecasts, and whether it is taken, likewise.

    Its error is that of the choice times how the errors of both compare on windows that are looked
    at.
    """
    whole = replace(best, classical=True, error=math.nan, scaled_error=math.nan)
    judged = cut(best)[1]
    if found is None or judged is None:
        return whole, True
    reaching = cut(best, classical.rows)[1]
    alone, both = errors_beside(found, judged, reaching or judged, classical)
    error = best.error * both / alone if alone else both
    return replace(whole, error=error), _stands(judged, alone, both)


def _stands(validation: Windows, alone: float, both: float) -> bool:
    """Return whether a mean is taken, by the errors of the choice alone and of both."""
    few = len(validation) < TELLING * validation.horizon
    margin = _MARGIN if len(validation) < _MANY else 0.0
    return few or not alone < (1 - margin) * both


def chosen(choices: pd.DataFrame) -> dict[str, Any]:
    """Return what was chosen, by the names of the estimator's parameters."""
    (row,) = choices[choices["chosen"]].to_dict("records")
    mixers = row.get("mixers", True)  # not known before training
    # Models that were saved earlier lack some.
    several = {
        name: tuple(each) if isinstance(each := row.get(name), list | tuple) else ()
        for name in ("lookbacks", "logarithms", "nonnegative", "led")
    }
    whole = {
        name: None if pd.isna(row.get(name)) else int(row[name])
        for name in ("season", "regressed", "cycle", "leaders")
    }
    return {
        "lookback": int(row["lookback"]),
        "level": str(row["level"]),
        "separate_heads": bool(row["separate_heads"]),
        "calendar": str(row.get("calendar", "")),
        "mixers": bool(mixers),
        "averaged": bool(row.get("averaged", False)),
        "reverts": bool(row.get("reverts", False)),
        "classical": bool(row.get("classical", False)),
        "scaled_errors": bool(row.get("scaled_errors", False)),
        "leader_strength": float(row.get("leader_strength", math.nan)),
        **several,
        **whole,
    }


def labelled(choices: pd.DataFrame, **labels: tuple[str, ...]) -> pd.DataFrame:
    """Say in a table of choices of which columns something is so, as text; not at all of none."""
    found = choices.drop(columns=list(labels), errors="ignore")
    for name, columns in labels.items():
        if columns:
            found[name] = [columns] * len(found)
    return found


def with_solved(choices: pd.DataFrame, tried: Sequence[SolvedCandidate]) -> pd.DataFrame:
    """Return a row of choices once for each way to correct a pretrained network, as was tried."""
    if not tried:
        return choices
    repeated = choices.loc[choices.index.repeat(len(tried))].reset_index(drop=True)
    told = repeated.assign(
        solved=[", ".join(each.solved) for each in tried],
        strength=[each.strength for each in tried],
        validation_mse=[each.error for each in tried],
        chosen=[each.chosen for each in tried],
    )
    return with_mixers(told, bool(choices["mixers"].iloc[0]))


def with_mixers(choices: pd.DataFrame, kept: bool) -> pd.DataFrame:
    """Say in a table of choices whether the mixers of the chosen network were kept."""
    known = [kept if each else None for each in choices["chosen"]]
    return choices.assign(mixers=pd.array(known, dtype="boolean"))
