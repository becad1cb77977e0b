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
from tsm2.fitted.calibration import ENOUGH_WINDOWS
from tsm2.fitted.floor import measure_floor, warn_below_floor
from tsm2.fitted.model import FittedModel
from tsm2.networks.ensemble import Ensemble, members_of
from tsm2.networks.tsm2 import TSM2Network
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.prepared.codings import Codings
from tsm2.prepared.prepared import Prepared
from tsm2.prepared.roles import Roles
from tsm2.prepared.scaling import labels_of
from tsm2.prepared.splits import split_starts
from tsm2.prepared.windows import Windows
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.ragged import places
from tsm2.tables.series import Series
from tsm2.training import EpochWatch, TrainingConfig, seeded
from tsm2.training.choices import chosen, labelled, sure_margin
from tsm2.training.choosing import Choosing
from tsm2.training.ensembles import (
    begin_with,
    drop_mixers,
    fit_members,
    make_network,
    starts_kept,
)
from tsm2.training.recipe import Recipe
from tsm2.training.ridge import LinearMap
from tsm2.training.start import ExactStart, leave_out, refit_exactly, solve_exactly

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
    reaching: Prepared | None
    """The rows of both for contexts that reach further than the network's; None if none do."""
    season: int | None
    """Rows of a season, for the naive forecast; None if there is none."""
    config: TrainingConfig
    """How the network is trained."""
    seeds: list[int]
    """One for each network."""
    solved: LinearMap | None
    """The exact start, if the choice has solved it on these windows."""

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
        has_covariates = recipe.has_covariates(given)
        recipe.check_classical(has_covariates=has_covariates, roles=roles)
        rows, n_train = recipe.split(series, has_covariates=has_covariates)
        units = recipe.units(rows, n_train, roles, choices)
        solved = None
        if choices is None:
            choosing = Choosing(
                recipe=recipe, rows=rows, n_train=n_train, units=units, roles=roles, given=given
            )
            choice = choosing.choice()
            choices, solved = choice.table, choice.solved
        nonnegative = recipe.nonnegative_of(series, roles)
        sizes: dict[str, Any] = {
            "lookback": chosen(choices)["lookback"],
            "horizon": recipe.horizon,
        }
        variates = roles.layout(rows.layout)
        choices = labelled(
            choices,
            logarithms=units.in_logarithms(rows.layout.columns),
            nonnegative=labels_of(variates.columns, nonnegative),
        )
        codings, covariates = Codings.learn(
            given,
            recipe.dates(choices),
            rows,
            variates,
            train=places(rows.offsets) < np.repeat(n_train, rows.counts),
            **sizes,
            missing=recipe.missing,
        )
        seeds = recipe.seeds(again=resumable)
        network = make_network(recipe.network_config(choices, roles, codings), seeds)
        if before is not None:
            begin_with(network, _own(before.network))
        model = FittedModel(
            network=network,
            scaling=units,
            roles=roles,
            codings=codings,
            context=series,
            missing=recipe.missing,
            nonnegative=nonnegative,
            classical=recipe.classical_of(series) if chosen(choices)["classical"] else None,
            device=recipe.device,
            capture_steps=recipe.training["capture_steps"],
        )
        model = replace(model, context=series.tail(model.reach))
        prepared = Prepared.of(rows, units, roles, covariates, lookback=sizes["lookback"])
        prepared = recipe.counted(prepared, n_train, choices)
        train, held_out = split_starts(rows, n_train, **sizes)
        warm = before is not None
        config = recipe.training_config(choices, len(train), warm=warm, variates=variates)
        validation = prepared.windows(held_out, recipe.horizon) if len(held_out) else None
        if validation is not None:
            config = replace(config, start_margin=sure_margin(config.start_margin, validation))
        if recipe.validation_fraction and not len(held_out) and config.linear_start == "exact":
            config = replace(config, max_epochs=0)  # nothing could tell if mixers are any good
        return cls(
            recipe=recipe,
            model=model,
            choices=choices,
            train=prepared.windows(train, recipe.horizon, balanced=recipe.sampling == "series"),
            validation=validation,
            reaching=prepared.reaching(model.reach) if model.classical else None,
            season=recipe.season_of(rows),
            config=config,
            seeds=seeds,
            solved=solved,
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
        network = _own(model.network)
        how = config.exactly
        if config.linear_start == "exact":
            solved = self.solved or solve_exactly(network.config, self.train, held_out, how)
            how = replace(how, solved=solved)
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
            solved=how.solved,
        )
        network.eval()
        members = members_of(network.to("cpu"))
        started = starts_kept(members, history, config)
        with suppress(ParameterError):  # the held-out rows know nothing at all
            model = self._calibrated(started=all(started), how=how)
        floor = pd.Series(dtype=float)
        if held_out is not None:
            linear = _linear_error(history, config.loss)
            floor = measure_floor(
                model.forecasting(),
                self._whole(held_out),
                season=self.season,
                linear=linear,
                point=model.point,
            )
            # Of the linear forecast few windows cannot say that it is better than its mean with
            # others: the choice has weighed them.
            weighed = ["linear"] if model.classical else []
            warn_below_floor(floor.drop(weighed, errors="ignore"))
            if self.recipe.refit_linear and config.linear_start == "exact":
                again = None
                for member, kept in zip(members, started, strict=True):
                    again = refit_exactly(
                        member, self.train, held_out, how, trained=not kept, again=again
                    )
        if all(started):
            model = replace(model, network=drop_mixers(network))
        return model, history, floor

    def _calibrated(self, *, started: bool, how: ExactStart) -> FittedModel:
        """Return the model with scores of held-out windows.

        Where these are few, every block of all windows is held out in turn, and its errors are
        those of the exact start solved without it. What quantiles a network has learnt says
        nothing about those of its start.
        """
        model, held_out = self.model, self.validation
        few = held_out is None or len(held_out) < ENOUGH_WINDOWS
        judged = held_out is not None and self.config.linear_start == "exact"
        if few and (started or (judged and not model.levels)):
            with seeded(self.seeds[0]):  # what is drawn is solved over
                blocks = list(leave_out(model.network.config, self.train, held_out, how))
            if blocks:
                return model.calibrated_by([(own, self._whole(block)) for own, block in blocks])
        return model if held_out is None else model.calibrated(self._whole(held_out))

    def _whole(self, windows: Windows) -> Windows:
        """Return windows as the model reads them, which may be more than its network does."""
        return windows if self.reaching is None else self.reaching.widened(windows)


def train_further(
    recipe: Recipe,
    model: FittedModel,
    series: Series,
    given: CovariateTables,
    *,
    choices: pd.DataFrame,
    history: pd.DataFrame,
    epochs: int,
) -> pd.DataFrame:
    """Train a model's network in place on all windows of series, and return its longer history.

    Parameters
    ----------
    recipe
        Learning rates, schedule, sampling, seeds and processes.
    model
        Whose network is trained; its units stay.
    series, given
        Its series with new rows behind them, gaps filled, and their covariates.
    choices, history
        Of the model's fit: what was chosen, and the losses of all epochs so far.
    epochs
        Passes over the windows.
    """
    own = replace(model, classical=None)
    fresh = series.counts - model.context.counts
    series = series.tail(fresh + np.minimum(model.context.counts, own.lookback))
    prepared = own.prepare(series, given, own=True)
    prepared = recipe.counted(prepared, series.counts, choices)
    starts, _ = split_starts(series, series.counts, lookback=model.lookback, horizon=model.horizon)
    variates = model.roles.layout(series.layout)
    config = recipe.training_config(choices, len(starts), warm=True, variates=variates)
    added = fit_members(
        members_of(_own(model.network)),
        prepared.windows(starts, model.horizon, balanced=recipe.sampling == "series"),
        None,
        replace(config, max_epochs=epochs, min_steps=0, max_steps=None),
        seeds=recipe.seeds(),
        n_jobs=recipe.n_jobs,
    )
    added["epoch"] += history["epoch"].max()
    return pd.concat((history, added), ignore_index=True)


def _own(network: TSM2Network | Ensemble | ZeroShotNetwork) -> TSM2Network | Ensemble:
    """Return a network that is no pretrained one."""
    if isinstance(network, ZeroShotNetwork):
        raise ParameterError(
            "a pretrained network is trained by fit with warm_start=True, and neither by update "
            "nor by a fit without pretrained. Call set_params(warm_start=True) and fit, or update "
            "with epochs=0."
        )
    return network


def _linear_error(history: pd.DataFrame, loss: str) -> float | None:
    """Return the mean squared error of an exact start, if it was measured in it."""
    start = history.loc[history["epoch"] == 0, "validation_loss"]
    return float(start.mean()) if loss == "mse" and len(start) else None
