"""Fitting: from series and a recipe to a fitted model.

    series -> split -> units, choices, codings -> Prepared -> windows, an untrained FittedModel
           -> training -> calibration, floor -> the FittedModel

`Fitting.of` does all that comes before the first step and `Fitting.run` the rest, so that whoever
watches a fit can be told what it starts from.

Sizes: S series, T rows of all of them, M variates.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from tsm2.errors import ParameterError
from tsm2.fitted.floor import measure_floor, warn_below_floor
from tsm2.fitted.model import FittedModel
from tsm2.networks.ensemble import members_of
from tsm2.networks.weights import start_from
from tsm2.prepared.codings import Codings
from tsm2.prepared.prepared import Prepared
from tsm2.prepared.roles import Roles
from tsm2.prepared.splits import split_starts
from tsm2.prepared.windows import Windows
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.ragged import places
from tsm2.tables.series import Series
from tsm2.training import EpochWatch, TrainingConfig
from tsm2.training.choices import chosen
from tsm2.training.ensembles import fit_members, make_network, refit_starts
from tsm2.training.recipe import Recipe

__all__ = ["Fitting", "train_further"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fitting:
    """A fit that is about to begin."""

    recipe: Recipe
    """What was asked for."""
    model: FittedModel
    """What forecasts once its network is trained."""
    choices: pd.DataFrame
    """What was tried for what is left to "auto", see `tsm2.training.choices.choose`."""
    train: Windows
    """Windows to train on."""
    validation: Windows | None
    """Windows held out; None without validation."""
    season: int | None
    """Rows of a season, for the naive forecast; None if there is none."""
    config: TrainingConfig
    """How the network is trained."""
    seeds: list[int]
    """One for each network."""

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        series: Series,
        given: CovariateTables,
        *,
        choices: pd.DataFrame | None = None,
        before: FittedModel | None = None,
        resumable: bool = False,
    ) -> Self:
        """Make all ready for the first step.

        Parameters
        ----------
        recipe
            What is asked for.
        series
            The table, or several series, gaps filled.
        given
            Covariates of its rows.
        choices
            What was chosen before; None chooses now.
        before
            A model whose weights the networks start with; None draws them.
        resumable
            Whether the same fit must come again from the same parameters.

        Raises
        ------
        WindowError, FrameError, ParameterError
            As `TSM2Forecaster.fit`.
        """
        roles = Roles.of(recipe.target, series.layout)
        has_covariates = bool(given.given() or recipe.dates)
        rows, n_train = recipe.split(series, has_covariates=has_covariates)
        units = recipe.units(rows, n_train)
        if choices is None:
            choices = recipe.choose(rows, n_train, units, roles)
        sizes: dict[str, Any] = {
            "lookback": chosen(choices)["lookback"],
            "horizon": recipe.horizon,
        }
        codings, covariates = Codings.learn(
            given,
            recipe.dates,
            rows,
            roles.layout(rows.layout),
            train=places(rows.offsets) < np.repeat(n_train, rows.counts),
            **sizes,
            missing=recipe.missing,
        )
        seeds = recipe.seeds(again=resumable)
        network = make_network(recipe.network_config(choices, roles, codings), seeds)
        if before is not None:
            start_from(network, before.network)
        model = FittedModel(
            network=network,
            scaling=units,
            roles=roles,
            codings=codings,
            context=series.tail(sizes["lookback"]),
            missing=recipe.missing,
            device=recipe.device,
        )
        prepared = Prepared.of(rows, units, roles, covariates, lookback=sizes["lookback"])
        train, held_out = split_starts(rows, n_train, **sizes)
        return cls(
            recipe=recipe,
            model=model,
            choices=choices,
            train=prepared.windows(train, recipe.horizon, balanced=recipe.sampling == "series"),
            validation=prepared.windows(held_out, recipe.horizon) if len(held_out) else None,
            season=recipe.season_of(rows),
            config=recipe.training_config(choices, warm=before is not None),
            seeds=seeds,
        )

    def run(
        self,
        *,
        checkpoint: Path | None = None,
        max_seconds: float = math.inf,
        log_dir: Path | None = None,
        watch: EpochWatch | None = None,
    ) -> tuple[FittedModel, pd.DataFrame, pd.Series[float]]:
        """Train the network, calibrate it, and measure what it should beat.

        Parameters
        ----------
        checkpoint, max_seconds, log_dir, watch
            As for `tsm2.training.ensembles.fit_members`.

        Returns
        -------
        The model, the losses of its epochs, and its floor, empty without validation rows.
        """
        model, config, held_out = self.model, self.config, self.validation
        network = model.network
        history = fit_members(
            members_of(network),
            self.train,
            held_out,
            config,
            seeds=self.seeds,
            n_jobs=self.recipe.n_jobs,
            checkpoint=checkpoint,
            max_seconds=max_seconds,
            log_dir=log_dir,
            watch=watch,
        )
        network.eval()
        if held_out is None:
            return model, history, pd.Series(dtype=float)
        with suppress(ParameterError):  # the validation rows know nothing at all
            model = model.calibrated(held_out)
        linear = _linear_error(history, config.loss)
        floor = measure_floor(
            network, held_out, season=self.season, linear=linear, point=model.point
        )
        warn_below_floor(floor)
        if self.recipe.refit_linear and config.linear_start == "exact":
            members = members_of(network.to("cpu"))
            refit_starts(members, history, self.train, held_out, config)
        return model, history, floor


def train_further(
    recipe: Recipe,
    model: FittedModel,
    series: Series,
    given: CovariateTables,
    *,
    choices: pd.DataFrame,
    epochs: int,
) -> pd.DataFrame:
    """Train a model's network in place on all windows of series, and return the epochs' losses.

    Parameters
    ----------
    recipe
        Learning rates, schedule, sampling, seeds and processes.
    model
        Whose network is trained; its units stay.
    series, given
        Its series with new rows behind them, gaps filled, and their covariates.
    choices
        Of the model's fit.
    epochs
        Passes over the windows.
    """
    prepared = model.prepare(series, given, own=True)
    starts, _ = split_starts(series, series.counts, lookback=model.lookback, horizon=model.horizon)
    return fit_members(
        members_of(model.network),
        prepared.windows(starts, model.horizon, balanced=recipe.sampling == "series"),
        None,
        replace(recipe.training_config(choices, warm=True), max_epochs=epochs),
        seeds=recipe.seeds(),
        n_jobs=recipe.n_jobs,
    )


def _linear_error(history: pd.DataFrame, loss: str) -> float | None:
    """Return the mean squared error of an exact start, if it was measured in it."""
    start = history.loc[history["epoch"] == 0, "validation_loss"]
    return float(start.mean()) if loss == "mse" and len(start) else None
