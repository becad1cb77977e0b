"""Choosing: what a recipe leaves to "auto", settled for the rows at hand.

    Recipe, rows, units, covariates -> Choosing -> candidates, and what may be added to them
                                    -> `tsm2.training.choices.choose` -> Choice

A recipe knows parameters alone, and `choices` measures what it is given. Here stands what rows,
gaps and covariates leave to be tried.

Sizes: S series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tsm2.networks.config import patch_sizes, shows_all_steps
from tsm2.networks.periods import find_periods
from tsm2.prepared.codings import Codings
from tsm2.prepared.prepared import Prepared
from tsm2.prepared.roles import Roles
from tsm2.prepared.scaling import Scaling
from tsm2.prepared.seasons import calendars, lookbacks
from tsm2.prepared.windows import Covariates
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.ragged import places
from tsm2.tables.series import Series
from tsm2.training.choices import (
    TELLING,
    Choice,
    SimpleForecasts,
    candidates,
    choose,
    labelled,
)
from tsm2.training.recipe import Recipe

__all__ = ["Choosing", "choices_for"]

_SEASONS, _LONGEST = 5, 1024  # seasons that simple forecasts read, and rows at most
_ASKED = 256  # series, evenly spread, that are looked at for a season


def choices_for(recipe: Recipe, series: Series, given: CovariateTables) -> pd.DataFrame:
    """Return the choices that a fit to series, gaps filled, would make."""
    rows, n_train = recipe.split(series, has_covariates=recipe.has_covariates(given))
    roles = Roles.of(recipe.target, rows.layout)
    units = recipe.units(rows, n_train, roles)
    choosing = Choosing(
        recipe=recipe, rows=rows, n_train=n_train, units=units, roles=roles, given=given
    )
    logarithms = units.in_logarithms(rows.layout.columns)
    return labelled(choosing.choice().table, logarithms=logarithms)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choosing:
    """A recipe, and what its choices are made by."""

    recipe: Recipe
    rows: Series
    """To fit to, as `Recipe.split` returned them."""
    n_train: NDArray[np.int64]
    """How many first rows of each series are for training, (S,)."""
    units: Scaling
    """Of the rows."""
    roles: Roles
    """Which columns are targets."""
    given: CovariateTables
    """Covariates of the rows, which simple forecasts would not read; past ones may lead."""

    def choice(self) -> Choice:
        """Settle what is left to "auto" by the closed form, on the validation rows.

        Returns
        -------
        What was tried and chosen, see `tsm2.training.choices.choose`.
        """
        recipe, rows = self.recipe, self.rows
        has_covariates = recipe.has_covariates(self.given)
        leads = self._tries_leaders()
        past = self._past() if leads else Covariates()
        looks = self._lookbacks()
        level, apart, season = recipe.level, recipe.separate_heads, recipe.season_of(rows)
        levels: list[Any] = ["mean", "last"] if level == "auto" else [level]
        tried = candidates(
            lookbacks=looks,
            levels=levels if recipe.network["instance_norm"] else levels[:1],
            separate=[False, True] if apart == "auto" else [apart],
            season=season,
            n_variates=len(self.roles.targets),
            fine=recipe.fine,
            scaled=recipe.scaled_errors is True,
        )
        prepared = Prepared.of(rows, self.units, self.roles, past, lookback=tried[0].lookback)
        choice = choose(
            prepared,
            self.n_train,
            tried,
            recipe.horizon,
            calendars=self._calendars(),
            simple=None if has_covariates else self._simple(prepared),
            averaged=self._averages(max(looks)) and not (has_covariates or self.roles.others),
            season=season or 1,
            scaled=self._tries_scaled() and not has_covariates,
            leaders=leads,
        )
        found = choice.table
        if "led" in found:
            names = self.roles.layout(rows.layout).columns
            found["led"] = [tuple(str(names[k]) for k in each) for each in found["led"]]
        if recipe.states_classical:
            found["classical"] = found["chosen"]
        if recipe.calendar != "auto":
            found = found.assign(calendar=recipe.stated_calendar)
        return Choice(table=found, solved=choice.solved if recipe.sampling == "windows" else None)

    def _lookbacks(self) -> list[int]:
        """Return the lookbacks to try, the plainest first.

        Of several that are set, those after the first need four times as many validation windows as
        they and a forecast have rows, and a window to train on of each series.
        """
        counts, horizon = self.rows.counts, self.recipe.horizon
        most = int(self.n_train.min()) - horizon
        if self.recipe.stated_lookbacks is None:
            most = min(int(counts.min()) // 3, most)
            return lookbacks(self.rows.layout, horizon, max(1, most))
        judged = int((counts - self.n_train - horizon + 1).clip(min=0).sum())
        if judged < TELLING * horizon:
            most = 0
        first, *others = self.recipe.stated_lookbacks
        return [first, *(each for each in others if each <= min(most, judged // TELLING))]

    def _exactly(self) -> bool:
        """Return whether the start is exact, and counts from a level."""
        return self.recipe.start() == "exact" and bool(self.recipe.network["instance_norm"])

    def _tries_scaled(self) -> bool:
        """Return whether the errors of several series may come to count in units of their own."""
        several = len(self.rows.ids) > 1 and self.recipe.scaling == "series"
        return self.recipe.scaled_errors == "auto" and several and self._exactly()

    def _tries_leaders(self) -> Literal["auto"] | bool:
        """Return whether forecasts may be led by the latest rows of all columns, if there are more.

        They are not where classical forecasts are asked for in any case.
        """
        roles, leaders = self.roles, self.recipe.leaders
        alone = len(roles.targets) + len(roles.others) == 1 and self.given.past is None
        if alone or not self._exactly() or self.recipe.states_classical:
            return False
        return "auto" if leaders == "auto" else bool(leaders)

    def _averages(self, lookback: int) -> bool:
        """Return whether an exact start may be the mean of the maps from both levels.

        An embedding that sees all steps of the longest lookback sees those of any.
        """
        network = self.recipe.network
        patches = patch_sizes(lookback, network["patch_length"], network["patch_stride"])
        all_seen = shows_all_steps(network["features"], **patches)
        return self.recipe.level == "auto" and self._exactly() and all_seen

    def _coded(self, given: CovariateTables, dates: tuple[str, ...] = ()) -> Covariates:
        """Return covariates and features of time stamps, coded by the training rows."""
        rows, recipe = self.rows, self.recipe
        return Codings.learn(
            given,
            dates,
            rows,
            self.roles.layout(rows.layout),
            train=places(rows.offsets) < np.repeat(self.n_train, rows.counts),
            lookback=1,
            horizon=recipe.horizon,
            missing=recipe.missing,
        )[1]

    def _past(self) -> Covariates:
        """Return the past covariates that are given beside the table, coded."""
        past = self.given.past
        return Covariates() if past is None else self._coded(CovariateTables(past=past))

    def _calendars(self) -> dict[tuple[str, ...], Covariates]:
        """Return the features of the calendar to try, and their coded rows.

        There are none where gaps are masked: a history may then be shorter than the lookback, and
        the rows that are missing before it have no stamps. Nor where classical forecasts are asked
        for, which read none.
        """
        recipe = self.recipe
        if recipe.calendar != "auto" or recipe.missing == "mask" or recipe.states_classical:
            return {}
        longest = int(self.n_train.argmax())
        first = self.rows.offsets[longest]
        tried = calendars(self.rows.index[first : first + self.n_train[longest]])
        return {names: self._coded(CovariateTables(), names) for names in tried}

    def _simple(self, prepared: Prepared) -> SimpleForecasts | None:
        """Return the simple forecasts that a choice may be averaged with; None if none may.

        They read five seasons, if the rows have them. Where the frequency tells of none that the
        rows hold, it is the one that most variates of most series show, and they read what was
        chosen.
        """
        recipe, series = self.recipe, prepared.series
        if recipe.stated_lookbacks is not None or not self._exactly():
            return None
        if prepared.covariates.past is not None:
            return None
        season = recipe.season_of(series)
        room = int(self.n_train.min()) - recipe.horizon
        most = min(int(series.counts.min()) // 2, room, _LONGEST)
        whole = recipe.classical_of(series) if recipe.classical == "auto" else None
        if season is None or season > most:
            found = _found_season(prepared, self.n_train)
            return SimpleForecasts(lookback=1, season=found, classical=whole)
        lookback = min(_SEASONS * season, most)
        return SimpleForecasts(lookback=lookback, season=season, classical=whole)


def _found_season(prepared: Prepared, n_train: NDArray[np.int64]) -> int:
    """Return the season that most variates of most series show in their training rows; 1 for none.

    Of many series some are asked, and of each the last rows are read, as many as the longest
    lookback has.
    """
    found = []
    asked = np.linspace(0, len(n_train) - 1, min(len(n_train), _ASKED)).round().astype(np.int64)
    for first, count in zip(prepared.series.offsets[asked], n_train[asked], strict=True):
        rows = slice(int(first + max(0, count - _LONGEST)), int(first + count))
        values = prepared.values[rows].mT.float()
        weights = torch.ones_like(values)
        if prepared.known is not None:
            weights = prepared.known[rows].mT.float()
        none = torch.zeros(len(values), dtype=torch.int64)
        found.append(find_periods(values, weights, none, none)[0][:, 0])
    seasons, counts = torch.unique(torch.cat(found), return_counts=True)
    return int(seasons[counts.argmax()]) if 2 * counts.max() > counts.sum() else 1
