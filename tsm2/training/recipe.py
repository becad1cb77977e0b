"""Recipe: what a user asks of a fit, and what that comes to for the data at hand.

    parameters of the estimator -> Recipe -> rows to train on, units, choices, NetworkConfig,
                                             TrainingConfig, seeds

Sizes: S series.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from tsm2.errors import ParameterError
from tsm2.networks.combined import ClassicalMean
from tsm2.networks.config import SETTINGS, NetworkConfig, patch_sizes, shows_all_steps
from tsm2.networks.periods import find_periods
from tsm2.prepared.codings import Codings
from tsm2.prepared.logarithms import check_positive, in_logarithms
from tsm2.prepared.nonnegative import check_nonnegative, stop_at_zero
from tsm2.prepared.prepared import Prepared, measured
from tsm2.prepared.roles import Roles
from tsm2.prepared.scaling import Scaling
from tsm2.prepared.seasons import calendars, lookbacks, season_of
from tsm2.prepared.splits import room_in_front, training_rows
from tsm2.prepared.windows import Covariates
from tsm2.tables.calendars import check_calendar
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.gaps import Missing
from tsm2.tables.holidays import check_holidays, is_holiday
from tsm2.tables.layout import Layout
from tsm2.tables.quantiles import check_levels, with_median
from tsm2.tables.ragged import places
from tsm2.tables.series import Series
from tsm2.training.choices import (
    TELLING,
    Choice,
    SimpleForecasts,
    candidates,
    choose,
    chosen,
    enough_rows,
    labelled,
)
from tsm2.training.fit import TrainingConfig
from tsm2.training.leading import Leading
from tsm2.training.simple import Blend

__all__ = ["BEGUN", "CHOSEN", "Recipe", "choices_of"]

CHOSEN = ("lookback", "level", "separate_heads")
"""Settings of the network that may be "auto"."""
BEGUN = (
    "season",
    "regressed",
    "cycle",
    "averaged",
    "lookbacks",
    "reverts",
    "scaled_errors",
    "classical",
    "leaders",
    "led",
    "leader_strength",
)
"""How an exact start was made, and what it is averaged with, which its network does not say."""
_SUITS: Mapping[str, Mapping[str, Any]] = {
    # A start that is good already is spoilt by large steps, and the whole radius of SAM would fall
    # on mixers that are still at zero.
    "exact": {
        "learning_rate": 1e-5,
        "mixer_learning_rate": 1e-3,
        "sam_radius": 0.0,
        "epoch_steps": 150,
    },
    "random": {"learning_rate": 1e-3, "mixer_learning_rate": 3e-3, "sam_radius": 0.35},
}
"""What None stands for, by how the linear path starts."""
_BATCHES, _STEPS = (8, 32), 16  # windows in a batch that is "auto", and steps of a pass over few
_SEASONS, _LONGEST = 5, 1024  # seasons that simple forecasts read, and rows at most
_ASKED = 256  # series, evenly spread, that are looked at for a season


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a user asks of a fit; each field is the parameter of `TSM2Forecaster` of that name."""

    lookback: int | Sequence[int] | Literal["auto"]
    horizon: int
    level: Literal["auto", "mean", "last"]
    separate_heads: bool | Literal["auto"]
    season: int | None
    linear_start: Literal["auto", "exact", "random"]
    refit_linear: bool
    quantiles: Sequence[float] | None
    loss: Literal["mse", "mae", "huber", "quantile"] | None
    validation_fraction: float
    target: Hashable | Sequence[Hashable] | None
    calendar: Sequence[str] | Literal["auto"]
    holidays: Sequence[str]
    missing: Missing
    scaling: Literal["series", "global"]
    logarithms: bool | Literal["auto"]
    nonnegative: bool | Literal["auto"]
    classical: bool | Literal["auto"]
    leaders: bool | Literal["auto"]
    sampling: Literal["windows", "series"]
    scaled_errors: bool | Literal["auto"]
    device: Literal["auto", "cpu", "cuda", "mps"]
    random_state: int | np.random.RandomState | None
    n_estimators: int
    n_jobs: int | None
    pretrained: str | None
    network: Mapping[str, Any]
    """Settings of the network, by the names of `NetworkConfig`."""
    training: Mapping[str, Any]
    """Settings of the training, by the names of `TrainingConfig`; None for what suits the start."""

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Sort the parameters of an estimator, all of them by name."""
        own, trained = ({f.name for f in fields(each)} for each in (cls, TrainingConfig))
        return cls(
            **{name: value for name, value in parameters.items() if name in own},
            network={each.name: parameters[each.name] for each in SETTINGS},
            training={name: value for name, value in parameters.items() if name in trained},
        )

    # --- rows and units -----------------------------------------------------------------------

    def split(self, series: Series, *, has_covariates: bool) -> tuple[Series, NDArray[np.int64]]:
        """Return the rows to fit to, and how many first ones of each series are for training, (S,).

        Raises
        ------
        WindowError
            The table, or a series, is too short.
        """
        if self.stated_lookbacks is None:
            return series, enough_rows(series, self.horizon, self.validation_fraction)
        sizes = {"lookback": self.stated_lookbacks[0], "horizon": self.horizon}
        room = np.zeros(len(series.ids), dtype=np.int64)
        if self.missing == "mask" and not has_covariates:
            room = room_in_front(series, **sizes)
        rows, share = series.padded(room), self.validation_fraction
        return rows, training_rows(rows, **sizes, validation_fraction=share, room=room)

    def units(
        self,
        rows: Series,
        n_train: NDArray[np.int64],
        roles: Roles,
        choices: pd.DataFrame | None = None,
    ) -> Scaling:
        """Return the units of the rows: those of their training rows.

        Parameters
        ----------
        rows, n_train
            As `split` returned them.
        roles
            Which columns are targets: they alone are measured in logarithms.
        choices
            What was chosen before; None chooses now.

        Raises
        ------
        FrameError
            A column has no value, or a target none that has a logarithm, where one is asked for.
        """
        known, each = rows.head(n_train), self.scaling == "series"
        logs = self._logarithms(rows, roles, choices)
        return measured(known, each=each, logs=logs if logs.any() else None)

    def _logarithms(
        self, rows: Series, roles: Roles, choices: pd.DataFrame | None
    ) -> NDArray[np.bool_]:
        """Return which columns are measured in logarithms, (M,)."""
        columns = rows.layout.columns
        target = roles.is_target
        if self.logarithms != "auto":
            if self.logarithms:
                check_positive(rows, target)
            return target & self.logarithms
        if choices is not None:
            names = chosen(choices)["logarithms"]
            return np.array([str(label) in names for label in columns]) & target
        return in_logarithms(rows, self.season_of(rows)) & target

    def nonnegative_of(self, series: Series, roles: Roles) -> NDArray[np.bool_] | None:
        """Return which targets have no forecast below zero, (Mt,); None if that is none of them.

        Raises
        ------
        FrameError
            It is said of all of them, and one has a value below zero.
        """
        which = roles.is_target
        if self.nonnegative == "auto":
            which = stop_at_zero(series)
        elif self.nonnegative:
            check_nonnegative(series, which)
        else:
            return None
        found = which[list(roles.targets)]
        return found if found.any() else None

    @property
    def stated_lookbacks(self) -> tuple[int, ...] | None:
        """The lookbacks that are set, one or several to try; None for "auto"."""
        if isinstance(self.lookback, str):
            return None
        given = self.lookback if isinstance(self.lookback, Sequence) else (self.lookback,)
        return tuple(dict.fromkeys(map(int, given)))

    @property
    def _fine(self) -> int | None:
        """Last rows of very many that are read one by one: of several lookbacks those of the first.

        A lookback that is set alone reads all of its rows so.
        """
        stated = self.stated_lookbacks
        return None if stated is None or len(stated) == 1 else stated[0]

    # --- choices ------------------------------------------------------------------------------

    def choose(
        self,
        rows: Series,
        n_train: NDArray[np.int64],
        units: Scaling,
        roles: Roles,
        given: CovariateTables,
    ) -> Choice:
        """Settle what is left to "auto" by the closed form, on the validation rows.

        Parameters
        ----------
        rows, n_train
            As `split` returned them.
        units, roles
            Of the rows.
        given
            Covariates of the rows, which simple forecasts would not read; past ones may lead.

        Returns
        -------
        What was tried and chosen, see `tsm2.training.choices.choose`.
        """
        has_covariates = self.has_covariates(given)
        leads = self._tries_leaders(roles, given)
        past = self._past(rows, n_train, roles, given) if leads else Covariates()
        looks = self._lookbacks(rows, n_train)
        levels: list[Any] = ["mean", "last"] if self.level == "auto" else [self.level]
        apart: list[Any] = [False, True] if self.separate_heads == "auto" else [self.separate_heads]
        tried = candidates(
            lookbacks=looks,
            levels=levels if self.network["instance_norm"] else levels[:1],
            separate=apart,
            season=self.season_of(rows),
            n_variates=len(roles.targets),
            fine=self._fine,
            scaled=self.scaled_errors is True,
        )
        prepared = Prepared.of(rows, units, roles, past, lookback=tried[0].lookback)
        choice = choose(
            prepared,
            n_train,
            tried,
            self.horizon,
            calendars=self._calendars(rows, n_train, roles),
            simple=None if has_covariates else self._simple(prepared, n_train),
            averaged=self._averages(max(looks)) and not (has_covariates or roles.others),
            season=self.season_of(rows) or 1,
            scaled=self._tries_scaled(rows) and not has_covariates,
            leaders=leads,
        )
        found = choice.table
        if "led" in found:
            names = roles.layout(rows.layout).columns
            found["led"] = [tuple(str(names[k]) for k in each) for each in found["led"]]
        found = labelled(found, logarithms=units.in_logarithms(rows.layout.columns))
        if self._states_classical:
            found["classical"] = found["chosen"]
        if self.calendar != "auto":
            found = found.assign(calendar=self._stated_calendar)
        return Choice(table=found, solved=choice.solved if self.sampling == "windows" else None)

    def _lookbacks(self, rows: Series, n_train: NDArray[np.int64]) -> list[int]:
        """Return the lookbacks to try, the plainest first.

        Of several that are set, those after the first need four times as many validation windows as
        they and a forecast have rows, and a window to train on of each series.
        """
        most = int(n_train.min()) - self.horizon
        if self.stated_lookbacks is None:
            most = min(int(rows.counts.min()) // 3, most)
            return lookbacks(rows.layout, self.horizon, max(1, most))
        judged = int((rows.counts - n_train - self.horizon + 1).clip(min=0).sum())
        if judged < TELLING * self.horizon:
            most = 0
        first, *others = self.stated_lookbacks
        return [first, *(each for each in others if each <= min(most, judged // TELLING))]

    def _tries_scaled(self, rows: Series) -> bool:
        """Return whether the errors of several series may come to count in units of their own."""
        several = len(rows.ids) > 1 and self.scaling == "series"
        exact = self._start() == "exact" and bool(self.network["instance_norm"])
        return self.scaled_errors == "auto" and several and exact

    def counted(
        self, prepared: Prepared, n_train: NDArray[np.int64], choices: pd.DataFrame
    ) -> Prepared:
        """Return rows whose errors count as was chosen, see `Prepared.counting_by`."""
        if not chosen(choices)["scaled_errors"]:
            return prepared
        return prepared.counting_by(self.season_of(prepared.series) or 1, n_train)

    def _tries_leaders(self, roles: Roles, given: CovariateTables) -> Literal["auto"] | bool:
        """Return whether forecasts may be led by the latest rows of all columns, if there are more.

        They are not where classical forecasts are asked for in any case.
        """
        exact = self._start() == "exact" and bool(self.network["instance_norm"])
        alone = len(roles.targets) + len(roles.others) == 1 and given.past is None
        if alone or not exact or self._states_classical:
            return False
        return "auto" if self.leaders == "auto" else bool(self.leaders)

    def _past(
        self, rows: Series, n_train: NDArray[np.int64], roles: Roles, given: CovariateTables
    ) -> Covariates:
        """Return the past covariates that are given beside the table, coded."""
        if given.past is None:
            return Covariates()
        train = places(rows.offsets) < np.repeat(n_train, rows.counts)
        how: dict[str, Any] = {"lookback": 1, "horizon": self.horizon, "missing": self.missing}
        past, variates = CovariateTables(past=given.past), roles.layout(rows.layout)
        return Codings.learn(past, (), rows, variates, train=train, **how)[1]

    def has_covariates(self, given: CovariateTables) -> bool:
        """Return whether anything is read beside the columns of a table."""
        return bool(given.given()) or self.states_dates

    def _averages(self, lookback: int) -> bool:
        """Return whether an exact start may be the mean of the maps from both levels.

        An embedding that sees all steps of the longest lookback sees those of any.
        """
        network = self.network
        patches = patch_sizes(lookback, network["patch_length"], network["patch_stride"])
        all_seen = shows_all_steps(network["features"], **patches)
        exact = self._start() == "exact" and network["instance_norm"]
        return self.level == "auto" and exact and all_seen

    def _calendars(
        self, rows: Series, n_train: NDArray[np.int64], roles: Roles
    ) -> dict[tuple[str, ...], Covariates]:
        """Return the features of the calendar to try, and their coded rows.

        There are none where gaps are masked: a history may then be shorter than the lookback, and
        the rows that are missing before it have no stamps. Nor where classical forecasts are asked
        for, which read none.
        """
        if self.calendar != "auto" or self.missing == "mask" or self._states_classical:
            return {}
        longest = int(n_train.argmax())
        first = rows.offsets[longest]
        train = places(rows.offsets) < np.repeat(n_train, rows.counts)
        how: dict[str, Any] = {"lookback": 1, "horizon": self.horizon, "missing": self.missing}
        variates, none = roles.layout(rows.layout), CovariateTables()
        return {
            names: Codings.learn(none, names, rows, variates, train=train, **how)[1]
            for names in calendars(rows.index[first : first + n_train[longest]])
        }

    def _simple(self, prepared: Prepared, n_train: NDArray[np.int64]) -> SimpleForecasts | None:
        """Return the simple forecasts that a choice may be averaged with; None if none may.

        They read five seasons, if the rows have them. Where the frequency tells of none that the
        rows hold, it is the one that most variates of most series show, and they read what was
        chosen.
        """
        plain = self.network["instance_norm"] and prepared.covariates.past is None
        if self.stated_lookbacks is not None or self._start() != "exact" or not plain:
            return None
        series = prepared.series
        season = self.season_of(series)
        most = min(int(series.counts.min()) // 2, int(n_train.min()) - self.horizon, _LONGEST)
        whole = self.classical_of(series) if self.classical == "auto" else None
        if season is None or season > most:
            found = _found_season(prepared, n_train)
            return SimpleForecasts(lookback=1, season=found, classical=whole)
        lookback = min(_SEASONS * season, most)
        return SimpleForecasts(lookback=lookback, season=season, classical=whole)

    def classical_of(self, rows: Series) -> ClassicalMean:
        """Return the classical forecasts that a fit to series may be averaged with."""
        return ClassicalMean(season=self.season_of(rows) or 1)

    @property
    def _states_classical(self) -> bool:
        """Whether classical forecasts are asked for in any case."""
        return self.classical != "auto" and bool(self.classical)

    def check_classical(self, *, has_covariates: bool, roles: Roles) -> None:
        """Check that nothing but values is read, if classical forecasts are asked for.

        Raises
        ------
        ParameterError
            Covariates are given, or columns that are only read.
        """
        if self._states_classical and (has_covariates or roles.others):
            read = "covariates" if has_covariates else "columns that are only read"
            raise ParameterError(
                f"classical=True averages with forecasts that read values alone, but this fit has "
                f"{read}. Pass classical='auto', or leave them out."
            )

    def choose_for(self, series: Series, given: CovariateTables) -> pd.DataFrame:
        """Return the choices that a fit to series, gaps filled, would make."""
        rows, n_train = self.split(series, has_covariates=self.has_covariates(given))
        roles = Roles.of(self.target, rows.layout)
        units = self.units(rows, n_train, roles)
        return self.choose(rows, n_train, units, roles, given).table

    def choose_again(self, choices: pd.DataFrame) -> pd.DataFrame:
        """Return the choices of the fit before, but for what is no longer left to be chosen."""
        fixed = {name: value for name in CHOSEN if (value := getattr(self, name)) != "auto"}
        fixed.pop("lookback", None)  # below: it may be one of several
        if self.calendar != "auto":
            fixed["calendar"] = self._stated_calendar
        if self.scaled_errors != "auto":
            fixed["scaled_errors"] = self.scaled_errors
        before, stated = chosen(choices), self.stated_lookbacks
        if stated is not None:
            fixed |= {"regressed": None, "cycle": None, "classical": False}
            if not {before["lookback"], *before["lookbacks"]} <= set(stated):
                fixed |= {"lookback": stated[0], "lookbacks": ()}
        if self.classical != "auto":
            fixed["classical"] = bool(self.classical)
        if not self.leaders or (before["leaders"] or 0) > fixed.get("lookback", before["lookback"]):
            fixed |= {"leaders": None, "led": ()}
        return pd.DataFrame([before | fixed | {"mixers": True, "chosen": True}])

    def season_of(self, rows: Series) -> int | None:
        """Return the rows of a season; None if there is none, or nobody can know."""
        return self.season or season_of(rows.layout)

    @property
    def states_dates(self) -> bool:
        """Whether features of the calendar or holidays are set."""
        return bool(self._stated_calendar or check_holidays(self.holidays))

    @property
    def _stated_calendar(self) -> str:
        return "" if self.calendar == "auto" else ", ".join(check_calendar(self.calendar))

    def dates(self, choices: pd.DataFrame) -> tuple[str, ...]:
        """Return the features of the calendar and the holidays to read."""
        names = chosen(choices)["calendar"]
        return tuple(names.split(", ") if names else ()) + check_holidays(self.holidays)

    # --- configs ------------------------------------------------------------------------------

    @property
    def levels(self) -> tuple[float, ...] | None:
        """Levels of the network's head; None for a point forecast."""
        return None if self.quantiles is None else with_median(check_levels(self.quantiles))

    def network_config(
        self, choices: pd.DataFrame, roles: Roles, codings: Codings
    ) -> NetworkConfig:
        """Return the network for these columns and covariates."""
        known = chosen(choices)
        given = {
            **self.network,
            **codings.widths,
            **patch_sizes(
                known["lookback"], self.network["patch_length"], self.network["patch_stride"]
            ),
            **{name: known[name] for name in CHOSEN},
            "separate_heads": known["separate_heads"] or bool(known["leaders"]),
            "leaders": known["leaders"] or 0,
            "reverts": known["reverts"],
            "bounded": self._start() == "exact",
            "blocks": self.network["blocks"] if known["mixers"] else 0,
            "horizon": self.horizon,
            "n_variates": len(roles.targets),
            "n_past": len(roles.others) + codings.widths["n_past"],
            "gaps": self.missing == "mask",
            "quantiles": self.levels,
        }
        return NetworkConfig(**given)

    def training_config(
        self, choices: pd.DataFrame, n_windows: int, *, warm: bool, variates: Layout
    ) -> TrainingConfig:
        """Return how the network is trained on so many windows of variates.

        It begins with weights of its own or, `warm`, with earlier ones. An exact start is "auto"
        wherever the mixers start at zero behind a plain stream.
        """
        start = "random" if warm else self._start()
        known = chosen(choices)
        blended = {"regressed": known["regressed"], "season": known["cycle"]}
        given = {
            **self.training,
            "loss": self.loss or ("mse" if self.levels is None else "quantile"),
            "quantiles": self.levels or (),
            "linear_start": start,
            "season": known["season"],
            "averaged": known["averaged"],
            "lookbacks": known["lookbacks"],
            "fine": self._fine,
            "leading": _leading(known, variates) if start == "exact" else None,
            "blend": Blend(**blended) if start == "exact" and all(blended.values()) else None,
        }
        given |= {name: value for name, value in _SUITS[start].items() if given[name] is None}
        given["batch_size"] = self.batch_size_for(n_windows)
        return TrainingConfig(**given)

    def _start(self) -> Literal["exact", "random"]:
        """Return how the linear path of fresh weights starts."""
        if self.linear_start != "auto":
            return self.linear_start
        network = self.network
        plain = network["averaging"] == "stream" and network["averaging_reach"] is None
        still = not network["blocks"] or (network["zero_start"] and plain)
        return "exact" if still else "random"

    def batch_size_for(self, n_windows: int) -> int:
        """Return how many of so many windows go into a step; "auto" takes fewer of few."""
        asked: int | str = self.training["batch_size"]
        if isinstance(asked, str):
            return min(_BATCHES[1], max(_BATCHES[0], n_windows // _STEPS))
        return asked

    def seeds(self, *, again: bool = False) -> list[int]:
        """Draw a seed for every network; `again` if the same are needed another time.

        Raises
        ------
        ParameterError
            They are needed again, but there is no `random_state`.
        """
        if again and self.random_state is None:
            raise ParameterError(
                "checkpoint needs a random_state, such as random_state=0: a fit that draws another "
                "seed every time cannot go on where it was cut off."
            )
        generator = check_random_state(self.random_state)
        return [int(generator.randint(2**31 - 1)) for _ in range(self.n_estimators)]


def choices_of(
    config: NetworkConfig,
    dates: Sequence[str],
    choice: Mapping[str, Any],
    **labels: tuple[str, ...],
) -> pd.DataFrame:
    """Return the choices of a network that was made elsewhere: one row, which was chosen.

    Parameters
    ----------
    config
        Of the network.
    dates
        Features of the time stamps that it reads.
    choice
        What is known of `BEGUN`, by name.
    labels
        Columns that are measured in "logarithms", and that are "nonnegative", as text.
    """
    row: dict[str, Any] = {name: getattr(config, name) for name in CHOSEN}
    calendar = ", ".join(name for name in dates if not is_holiday(name))
    begun = {name: choice[name] for name in BEGUN if name in choice}
    row |= {"calendar": calendar, "season": None, **begun}
    row |= {"validation_mse": math.nan, "chosen": True}
    return labelled(pd.DataFrame([row]), **labels)


def _leading(known: Mapping[str, Any], variates: Layout) -> Leading | None:
    """Return how leaders are solved, by what was chosen."""
    if not known["leaders"]:
        return None
    return Leading(
        rows=known["leaders"],
        strength=known["leader_strength"],
        led=tuple(k for k, name in enumerate(variates.columns) if str(name) in known["led"]),
        separate=known["separate_heads"],
    )


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
