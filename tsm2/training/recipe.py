"""Recipe: what a user asks of a fit, and what that comes to for the data at hand.

    parameters of the estimator -> Recipe -> rows to train on, units, seeds
    what was chosen (`tsm2.training.choosing`)  -> NetworkConfig, TrainingConfig

Sizes: S series.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from tsm2.errors import ParameterError
from tsm2.networks.combined import ClassicalMean
from tsm2.networks.config import SETTINGS, NetworkConfig, patch_sizes
from tsm2.prepared.codings import Codings
from tsm2.prepared.logarithms import check_positive, in_logarithms
from tsm2.prepared.nonnegative import check_nonnegative, stop_at_zero
from tsm2.prepared.prepared import Prepared, measured
from tsm2.prepared.roles import Roles
from tsm2.prepared.scaling import Scaling
from tsm2.prepared.seasons import season_of
from tsm2.prepared.splits import room_in_front, training_rows
from tsm2.tables.calendars import check_calendar
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.gaps import Missing
from tsm2.tables.holidays import check_holidays, is_holiday
from tsm2.tables.layout import Layout
from tsm2.tables.quantiles import check_levels, with_median
from tsm2.tables.series import Series
from tsm2.training.choices import (
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
    def fine(self) -> int | None:
        """Last rows of very many that are read one by one: of several lookbacks those of the first.

        A lookback that is set alone reads all of its rows so.
        """
        stated = self.stated_lookbacks
        return None if stated is None or len(stated) == 1 else stated[0]

    # --- what is chosen, or stated ------------------------------------------------------------

    def counted(
        self, prepared: Prepared, n_train: NDArray[np.int64], choices: pd.DataFrame
    ) -> Prepared:
        """Return rows whose errors count as was chosen, see `Prepared.counting_by`."""
        if not chosen(choices)["scaled_errors"]:
            return prepared
        return prepared.counting_by(self.season_of(prepared.series) or 1, n_train)

    def has_covariates(self, given: CovariateTables) -> bool:
        """Return whether anything is read beside the columns of a table."""
        return bool(given.given()) or self.states_dates

    def classical_of(self, rows: Series) -> ClassicalMean:
        """Return the classical forecasts that a fit to series may be averaged with."""
        return ClassicalMean(season=self.season_of(rows) or 1)

    @property
    def states_classical(self) -> bool:
        """Whether classical forecasts are asked for in any case."""
        return self.classical != "auto" and bool(self.classical)

    def check_classical(self, *, has_covariates: bool, roles: Roles) -> None:
        """Check that nothing but values is read, if classical forecasts are asked for.

        Raises
        ------
        ParameterError
            Covariates are given, or columns that are only read.
        """
        if self.states_classical and (has_covariates or roles.others):
            read = "covariates" if has_covariates else "columns that are only read"
            raise ParameterError(
                f"classical=True averages with forecasts that read values alone, but this fit has "
                f"{read}. Pass classical='auto', or leave them out."
            )

    def choose_again(self, choices: pd.DataFrame) -> pd.DataFrame:
        """Return the choices of the fit before, but for what is no longer left to be chosen."""
        fixed = {name: value for name in CHOSEN if (value := getattr(self, name)) != "auto"}
        fixed.pop("lookback", None)  # below: it may be one of several
        if self.calendar != "auto":
            fixed["calendar"] = self.stated_calendar
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
        return bool(self.stated_calendar or check_holidays(self.holidays))

    @property
    def stated_calendar(self) -> str:
        """The features of the calendar that are set, as choices name them; none of "auto"."""
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
            "bounded": self.start() == "exact",
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
        start = "random" if warm else self.start()
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
            "fine": self.fine,
            "leading": _leading(known, variates) if start == "exact" else None,
            "blend": Blend(**blended) if start == "exact" and all(blended.values()) else None,
        }
        given |= {name: value for name, value in _SUITS[start].items() if given[name] is None}
        given["batch_size"] = self.batch_size_for(n_windows)
        return TrainingConfig(**given)

    def start(self) -> Literal["exact", "random"]:
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
