"""Estimator: what every verb of `TSM2Forecaster` begins with.

    X -> Series, read as the parameters say -> the model that is asked, and the history it goes on

It holds what a fit left behind and speaks scikit-learn's protocol; what a forecaster can do, and
what its parameters mean, stands in `tsm2.forecaster`.

Sizes: S series, T rows, M variates.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from operator import attrgetter
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from tsm2.errors import FrameError, NotFittedError
from tsm2.fitted.calibration import Calibration
from tsm2.fitted.model import FittedModel
from tsm2.fitted.pretrained import meet
from tsm2.model_card import fit_in_a_line
from tsm2.networks.ensemble import Ensemble
from tsm2.networks.pretrained import load_pretrained
from tsm2.networks.tsm2 import TSM2Network
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.parameters import (
    CONSTRAINTS,
    Parameters,
    check_count,
    check_parameters,
)
from tsm2.prepared.codings import Codings
from tsm2.prepared.prepared import Prepared, filled
from tsm2.prepared.roles import Roles
from tsm2.prepared.scaling import Scaling
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.layout import Layout
from tsm2.tables.read import Data, LongColumns, read
from tsm2.tables.series import Series
from tsm2.tables.write import empty_table
from tsm2.training.choices import with_mixers
from tsm2.training.recipe import Recipe

__all__ = ["Estimator"]


def _kept(name: str) -> Any:
    """Return an attribute that shows what `fitted_` holds under a name, and cannot be set."""
    return property(attrgetter(f"fitted_.{name}"), doc=f"`fitted_.{name}`")


class Estimator(Parameters, CallbackSupportMixin, BaseEstimator):
    """An estimator of scikit-learn's that reads tables and keeps a `FittedModel`."""

    fitted_: FittedModel
    history_: pd.DataFrame
    choices_: pd.DataFrame
    floor_: pd.Series[float]
    n_rows_: int | None
    n_iter_: int
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]
    network_: TSM2Network | Ensemble | ZeroShotNetwork = _kept("network")
    scaling_: Scaling = _kept("scaling")
    calibration_: Calibration | None = _kept("calibration")
    roles_: Roles = _kept("roles")
    knowledge_: Codings = _kept("codings")
    series_: tuple[Hashable, ...] = _kept("context.ids")
    layout_: Layout = _kept("context.layout")
    context_: NDArray[np.float64] = _kept("context.values")
    context_index_: pd.Index = _kept("context.index")
    context_offsets_: NDArray[np.int64] = _kept("context.offsets")

    # --- parameters and tables ----------------------------------------------------------------

    def _check_parameters(self) -> None:
        check_parameters(type(self).__name__, self.get_params(deep=False))

    def _recipe(self) -> Recipe:
        return Recipe.of(self.get_params(deep=False))

    def _count_steps(self, horizon: int | None) -> int:
        return self.horizon if horizon is None else check_count("horizon", horizon)

    def _read(self, X: Data, *, like: Layout | None = None) -> Series:
        """Read a table; without another that it is to be like, the parameters say what it is."""
        target = self.target_col
        target = target if isinstance(target, str) else tuple(target)
        long = LongColumns(id=self.id_col, time=self.time_col, target=target)
        frequency = self.frequency if like is None else None
        return read(X, long=long, missing=self.missing, like=like, frequency=frequency)

    def _read_history(self, X: Data) -> Series:
        """Read a table that must be like that of the fit."""
        series = self._read(X, like=self.layout_)
        self._check_columns(series.layout, reset=False)
        return series

    def _read_truth(self, truth: Data, rows: Series) -> Series:
        """Read what happened, in the container of the rows before it."""
        fitted = hasattr(self, "fitted_")
        return self._read_history(truth) if fitted else self._read(truth, like=rows.layout)

    # --- what was fitted ----------------------------------------------------------------------

    def _become(
        self,
        model: FittedModel,
        history: pd.DataFrame,
        choices: pd.DataFrame,
        floor: pd.Series[float],
        n_rows: int | None,
    ) -> Self:
        """Be fitted from here on."""
        self._check_columns(model.context.layout, reset=True)
        self.fitted_, self.history_, self.floor_ = model, history, floor
        self.choices_ = with_mixers(choices, model.network.config.blocks > 0)
        self.n_rows_, self.n_iter_ = n_rows, int(history["epoch"].max())
        return self

    def _model(self) -> FittedModel:
        """Return the model that was fitted, on the device that is asked for now."""
        if not hasattr(self, "fitted_"):
            raise NotFittedError(
                f"this {type(self).__name__} is not fitted yet. Call fit(table) first"
                + ("." if self.pretrained is None else ", or pass the history to predict.")
            )
        return replace(self.fitted_, device=self.device, capture_steps=self.capture_steps)

    def _pretrained_network(self) -> ZeroShotNetwork:
        """Return the network that is named, read once."""
        name = str(self.pretrained)
        known: tuple[str, ZeroShotNetwork] | None = self.__dict__.get("_read_network")
        if known is None or known[0] != name:
            known = self._read_network = (name, load_pretrained(name))
        return known[1]

    def _met(self, X: Data) -> tuple[FittedModel, Series]:
        """Return the model and the history that it is asked about.

        A pretrained network that was not fitted meets the history here.
        """
        if self.pretrained is None or hasattr(self, "fitted_"):
            return self._model(), self._read_history(X)
        self._check_parameters()
        series, recipe = self._read(X), self._recipe()
        known = filled(series, self.missing)
        return meet(self._pretrained_network(), recipe, known, CovariateTables()), series

    def _met_or_known(self, X: Data | None) -> tuple[FittedModel, Series | None]:
        """Return the model and the history; None for the one that the model knows."""
        return (self._model(), None) if X is None else self._met(X)

    def _latest(
        self, X: Data | None, horizon: int | None, given: CovariateTables
    ) -> tuple[FittedModel, Series, tuple[Prepared, NDArray[np.int64], int]]:
        """Return the model, the targets of the histories, and what to forecast behind them.

        That is the prepared histories, the row behind each, (S,), and how many rows.
        """
        (model, history), steps = self._met_or_known(X), self._count_steps(horizon)
        rows = model.roles.of_targets(model.context if history is None else history)
        return model, rows, (*model.latest(history, given, steps), steps)

    # --- scikit-learn's protocol --------------------------------------------------------------

    _parameter_constraints: ClassVar[dict[str, list[Any] | str]] = CONSTRAINTS

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.input_tags.allow_nan = self.missing != "raise"
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fitted_")

    def _check_columns(self, layout: Layout, *, reset: bool) -> None:
        """Tell scikit-learn of the columns, or compare them with those of the fit."""
        try:
            columns: Any = empty_table(layout)  # scikit-learn names no types
            validate_data(self, columns, skip_check_array=True, reset=reset)
        except (TypeError, ValueError) as error:  # TypeError: labels of several types
            raise FrameError(str(error)) from None

    def _repr_mimebundle_(self, **how: Any) -> dict[str, str]:
        """Show a notebook scikit-learn's diagram, below a line that sums the fit up."""
        bundle: dict[str, str] = super()._repr_mimebundle_(**how)
        if "text/html" in bundle and hasattr(self, "fitted_"):
            line = fit_in_a_line(self.n_rows_, self.n_iter_, self.floor_)
            bundle["text/html"] = f"<p>{line}</p>{bundle['text/html']}"
        return bundle
