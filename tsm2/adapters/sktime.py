"""TSM2 as an sktime forecaster.

    y, X -> TSM2Forecaster -> the rows that fh names

Everything that is learned and forecast is `TSM2Forecaster`'s; these classes read horizons, keep the
rows seen, and pass tables on. Of panels and hierarchies sktime gives it one series at a time.

Interface: sktime 1.2, extension template of forecasters.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from dataclasses import replace
from inspect import Parameter, signature
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from tsm2.adapters.peers import missing_peer
from tsm2.errors import FrameError, WindowError
from tsm2.forecaster import TSM2Forecaster
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.tables.stamps import stamps_from

try:
    from sktime.forecasting.base import (  # pyright: ignore[reportMissingImports]
        BaseForecaster,
        ForecastingHorizon,
    )
except ModuleNotFoundError as error:
    raise missing_peer(error, "sktime") from error

__all__ = ["TSM2SktimeForecaster", "TSM2Zero"]

_PATHS = 400  # sampled to read quantiles of steps beyond the trained horizon


class TSM2SktimeForecaster(BaseForecaster):
    """Forecast all columns of a table with TSM2, in sktime's pipelines.

    Parameters
    ----------
    horizon
        Rows that the network forecasts at once; None for the farthest step of the `fh` that `fit`
        gets, or `TSM2Forecaster`'s default, 24, without one. Steps beyond it are rolled forward to.
    others
        As in `TSM2Forecaster`, with its names, order and defaults. With `missing` other than
        "raise", tables may have missing values. Exogenous `X` are its future covariates.

    Attributes
    ----------
    forecaster_
        The fitted `TSM2Forecaster`.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsm2.adapters.sktime import TSM2SktimeForecaster
    >>> model = TSM2SktimeForecaster(lookback=24, max_epochs=2, random_state=0)
    >>> model.fit(load_airline(), fh=[1, 2, 12]).predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-12']
    """

    forecaster_: TSM2Forecaster

    _tags: ClassVar[dict[str, Any]] = {
        "authors": ["tsm2"],
        "maintainers": ["tsm2"],
        "python_dependencies": ["torch", "tsm2"],
        "y_inner_mtype": "pd.DataFrame",
        "X_inner_mtype": "pd.DataFrame",
        "capability:multivariate": True,
        "capability:exogenous": True,
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:missing_values": False,
        "capability:categorical_in_X": False,
        "capability:update": True,
        "capability:random_state": True,
        "property:randomness": "derandomized",
        "requires-fh-in-fit": False,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = _SIGNATURE.bind(self, *args, **kwargs)
        given.apply_defaults()
        for name, value in list(given.arguments.items())[1:]:
            setattr(self, name, value)
        super().__init__()
        if given.arguments["missing"] != "raise":
            self.set_tags(**{"capability:missing_values": True})

    def _fit(
        self, y: pd.DataFrame, X: pd.DataFrame | None, fh: ForecastingHorizon | None
    ) -> TSM2SktimeForecaster:
        parameters = self.get_params(deep=False)
        if parameters["horizon"] is None:
            del parameters["horizon"]
            if fh is not None:
                parameters["horizon"] = int(_steps(fh, self.cutoff, y).max())
        forecaster = TSM2Forecaster(**parameters)
        try:
            self.forecaster_ = forecaster.fit(y, future_covariates=X)
        except WindowError as error:
            if "horizon" in parameters:
                raise
            raise WindowError(
                f"{error} The horizon of {forecaster.horizon} is the default, because fit was "
                f"given no fh: pass fh to fit, or horizon= to {type(self).__name__}."
            ) from error
        self._rows, self._exogenous = y, X
        return self

    def _predict(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.DataFrame:
        steps = int(_steps(fh, self.cutoff, self._rows).max())
        forecast = self.forecaster_.predict(
            self._rows, horizon=steps, future_covariates=self._known_ahead(fh, X)
        )
        return _rows_of(forecast, fh, self.cutoff, self._rows)

    def _predict_quantiles(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None, alpha: list[float]
    ) -> pd.DataFrame:
        steps, levels = int(_steps(fh, self.cutoff, self._rows).max()), sorted(set(alpha))
        known = self._known_ahead(fh, X)
        given: dict[str, Any] = {"horizon": steps, "future_covariates": known}
        if steps <= self.forecaster_.horizon:
            forecast = self.forecaster_.predict_quantiles(self._rows, quantiles=levels, **given)
        else:
            paths = self.forecaster_.sample(
                self._rows, n_samples=_PATHS, random_state=self.random_state, **given
            )
            forecast = paths.T.groupby(level=0, sort=False).quantile(levels).T
        names = self._get_varnames()
        forecast.columns = pd.MultiIndex.from_product([names, levels])
        return _rows_of(forecast, fh, self.cutoff, self._rows)[list(product(names, alpha))]

    def _known_ahead(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.DataFrame | None:
        """Return the exogenous rows of the context and of whole horizons behind the cutoff.

        Steps that fh leaves out, and the rest of the last horizon, repeat the row before.
        """
        if self._exogenous is None:
            return None
        known = self._exogenous if X is None else _joined(X, self._exogenous)
        missing = _labels(fh, self.cutoff, self._rows).difference(known.index)
        if len(missing):
            raise FrameError(
                f"the forecaster was fit with exogenous columns, but X has no rows for "
                f"{len(missing)} steps of fh, the first {missing[0]}. Pass X with a row for each."
            )
        forecaster = self.forecaster_
        n_horizons = -(-int(_steps(fh, self.cutoff, self._rows).max()) // forecaster.horizon)
        rows, ahead = self._rows.index, n_horizons * forecaster.horizon
        layout = forecaster.layout_
        whole = stamps_from(rows[0], len(rows) + ahead, layout.frequency, layout.clock)
        stamps = whole[-ahead - forecaster.fitted_.lookback :]
        return known.reindex(stamps).ffill()

    def _update(
        self, y: pd.DataFrame, X: pd.DataFrame | None = None, update_params: bool = True
    ) -> TSM2SktimeForecaster:
        self._rows = _joined(y, self._rows)
        if X is not None and self._exogenous is not None:
            self._exogenous = _joined(X, self._exogenous)
        if update_params:
            self.forecaster_.fit(self._rows, future_covariates=self._exogenous)
        return self

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return settings for sktime's own tests, whose series have some ten rows."""
        small = {"features": 4, "d_state": 2, "max_epochs": 1, "validation_fraction": 0.0}
        sure = {"quantiles": (0.01, 0.99)}  # too few rows to calibrate a forecast of points
        return [
            {"lookback": 4, "horizon": 5, "random_state": 0, **small, **sure},
            {"lookback": 3, "horizon": 5, "blocks": 0, **small, **sure},
        ]


class TSM2Zero(BaseForecaster):
    """Forecast all columns of a table with TSM2's pretrained weights, without a fit, in sktime.

    `fit` keeps the last rows and learns nothing. `pretrain` tunes the weights on a panel: it solves
    exactly what they miss, then trains them on gently, and keeps what held-out rows say is better.

    Parameters
    ----------
    pretrained
        "zero", or a folder that `python -m tsm2.pretraining` wrote.
    season
        Rows of a season; None for that of the frequency.
    max_epochs
        Epochs of `pretrain`, after the exact part.
    device
        As in `TSM2Forecaster`.
    random_state
        Of `pretrain`.

    Attributes
    ----------
    forecaster_
        The `TSM2Forecaster` that forecasts.
    tuned_
        The network that `pretrain` left, if it was called.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsm2.adapters.sktime import TSM2Zero
    >>> TSM2Zero().fit(load_airline()).predict(fh=[1, 2, 12]).index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-12']
    """

    forecaster_: TSM2Forecaster

    _tags: ClassVar[dict[str, Any]] = {
        "authors": ["tsm2"],
        "maintainers": ["tsm2"],
        "python_dependencies": ["torch", "tsm2"],
        "y_inner_mtype": "pd.DataFrame",
        "capability:multivariate": True,
        "capability:exogenous": False,
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:missing_values": True,
        "capability:pretrain": True,
        "capability:update": True,
        "capability:random_state": True,
        "property:randomness": "derandomized",
        "requires-fh-in-fit": False,
    }

    def __init__(
        self,
        pretrained: str = "zero",
        season: int | None = None,
        max_epochs: int = 3,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.pretrained = pretrained
        self.season = season
        self.max_epochs = max_epochs
        self.device = device
        self.random_state = random_state
        super().__init__()

    def _pretrain(
        self, y: pd.DataFrame, X: pd.DataFrame | None = None, fh: ForecastingHorizon | None = None
    ) -> TSM2Zero:
        levels: list[Hashable] = list(range(y.index.nlevels - 1))
        series = {name: rows.droplevel(levels) for name, rows in y.groupby(level=levels)}
        known = self._knowing(series)
        try:
            known.set_params(warm_start=True).fit(series)
        except WindowError as error:
            warnings.warn(f"pretrain leaves the weights as they are: {error}", stacklevel=2)
        self.tuned_ = known.network_
        return self

    def _begun(self) -> TSM2Forecaster:
        return TSM2Forecaster.from_pretrained(
            self.pretrained,
            season=self.season,
            max_epochs=self.max_epochs,
            device=self.device,
            random_state=self.random_state,
        )

    def _knowing(self, data: Any) -> TSM2Forecaster:
        """Return a forecaster that knows data, with the weights that were tuned, if any were."""
        known = self._begun().fit(data)
        tuned, model = getattr(self, "tuned_", None), known.fitted_
        if tuned is None or not isinstance(model.network, ZeroShotNetwork):
            return known
        own = replace(model, network=tuned.for_season(model.network.season))
        return known.take_over(
            own, known.history_, choice={"season": self.season}, n_rows=known.n_rows_
        )

    def _fit(
        self, y: pd.DataFrame, X: pd.DataFrame | None, fh: ForecastingHorizon | None
    ) -> TSM2Zero:
        self.forecaster_ = self._knowing(y) if hasattr(self, "tuned_") else self._begun()
        self._rows = y
        return self

    def _predict(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.DataFrame:
        steps = int(_steps(fh, self.cutoff, self._rows).max())
        forecast = self.forecaster_.predict(self._rows, horizon=steps)
        return _rows_of(forecast, fh, self.cutoff, self._rows)

    def _predict_quantiles(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None, alpha: list[float]
    ) -> pd.DataFrame:
        steps, levels = int(_steps(fh, self.cutoff, self._rows).max()), sorted(set(alpha))
        forecast = self.forecaster_.predict_quantiles(self._rows, quantiles=levels, horizon=steps)
        names = self._get_varnames()
        forecast.columns = pd.MultiIndex.from_product([names, levels])
        rows = _rows_of(forecast, fh, self.cutoff, self._rows)
        return rows[list(product(names, alpha))]

    def _update(
        self, y: pd.DataFrame, X: pd.DataFrame | None = None, update_params: bool = True
    ) -> TSM2Zero:
        self._rows = _joined(y, self._rows)
        return self

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return settings for sktime's own tests."""
        return [{"max_epochs": 1, "random_state": 0}, {"season": 4}]


def _joined(new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """Return all rows of two tables; where both have a row, the new one."""
    return new.combine_first(old)[new.columns]


def _step(rows: pd.DataFrame) -> int:
    """Return how far labels of whole numbers are apart; 1 for time stamps."""
    if len(rows) < 2 or not types.is_integer_dtype(rows.index.dtype):
        return 1
    return int(rows.index[1] - rows.index[0])


def _steps(fh: ForecastingHorizon, cutoff: pd.Index, rows: pd.DataFrame) -> NDArray[np.int64]:
    """Return which rows behind the cutoff fh names, from 1.

    sktime takes whole numbers for rows that are 1 apart, whatever the table says.

    Raises
    ------
    FrameError
        A label lies between two rows.
    """
    apart = np.asarray(fh.to_relative(cutoff).to_numpy(), dtype=np.int64)
    step = _step(rows)
    if fh.is_relative or step == 1:
        return apart
    beside = np.flatnonzero(apart % step)
    if len(beside):
        raise FrameError(
            f"fh names {cutoff[0] + apart[beside[0]]}, but the rows are {step} apart: the next "
            f"ones are {cutoff[0] + step}, {cutoff[0] + 2 * step}, ... Name some of them."
        )
    return apart // step


def _rows_of(
    forecast: pd.DataFrame, fh: ForecastingHorizon, cutoff: pd.Index, rows: pd.DataFrame
) -> pd.DataFrame:
    """Return the rows that fh names out of all rows behind the cutoff, with its stamps."""
    chosen: pd.DataFrame = forecast.iloc[_steps(fh, cutoff, rows) - 1]
    return chosen.set_axis(_labels(fh, cutoff, rows))


def _labels(fh: ForecastingHorizon, cutoff: pd.Index, rows: pd.DataFrame) -> pd.Index:
    """Return the labels of the rows that fh names."""
    labels: pd.Index = fh.to_absolute_index(cutoff)
    if _step(rows) > 1:
        labels = pd.Index(int(cutoff[0]) + _step(rows) * _steps(fh, cutoff, rows))
    return labels


def _parameters() -> list[Parameter]:
    """List `TSM2Forecaster`'s parameters, with a horizon that may be None."""
    own = signature(TSM2Forecaster.__init__).parameters.values()
    return [each.replace(default=None) if each.name == "horizon" else each for each in own]


# sktime reads the parameters of a forecaster from this signature, so that there is no second list.
_SIGNATURE = signature(TSM2Forecaster.__init__).replace(parameters=_parameters())
TSM2SktimeForecaster.__init__.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
