"""TSM2 as an sktime forecaster.

    y, X -> TSM2Forecaster -> the rows that fh names

Everything that is learned and forecast is `TSM2Forecaster`'s; this class reads horizons, keeps the
rows seen, and passes tables on. Of panels and hierarchies sktime gives it one series at a time.

Interface: sktime 1.2, extension template of forecasters.
"""

from __future__ import annotations

from inspect import Parameter, signature
from itertools import product
from typing import Any, ClassVar

import pandas as pd

from tsm2.adapters.peers import missing_peer
from tsm2.errors import FrameError
from tsm2.forecaster import TSM2Forecaster
from tsm2.tables.stamps import stamps_from

try:
    from sktime.forecasting.base import (  # pyright: ignore[reportMissingImports]
        BaseForecaster,
        ForecastingHorizon,
    )
except ModuleNotFoundError as error:
    raise missing_peer(error, "sktime") from error

__all__ = ["TSM2SktimeForecaster"]

_PATHS = 400  # sampled to read quantiles of steps beyond the trained horizon


class TSM2SktimeForecaster(BaseForecaster):
    """Forecast all columns of a table with TSM2, in sktime's pipelines.

    Parameters
    ----------
    horizon
        Rows that the network forecasts at once; None for the farthest step of the `fh` that `fit`
        gets, or `TSM2Forecaster`'s default without one. Steps beyond it are rolled forward to.
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
                parameters["horizon"] = _farthest(fh, self.cutoff)
        self.forecaster_ = TSM2Forecaster(**parameters).fit(y, future_covariates=X)
        self._rows, self._exogenous = y, X
        return self

    def _predict(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.DataFrame:
        steps = _farthest(fh, self.cutoff)
        forecast = self.forecaster_.predict(
            self._rows, horizon=steps, future_covariates=self._known_ahead(fh, X)
        )
        return self._rows_of(forecast, fh)

    def _predict_quantiles(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None, alpha: list[float]
    ) -> pd.DataFrame:
        steps, levels = _farthest(fh, self.cutoff), sorted(set(alpha))
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
        return self._rows_of(forecast, fh)[list(product(names, alpha))]

    def _known_ahead(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.DataFrame | None:
        """Return the exogenous rows of the context and of whole horizons behind the cutoff.

        Steps that fh leaves out, and the rest of the last horizon, repeat the row before.
        """
        if self._exogenous is None:
            return None
        known = self._exogenous if X is None else _joined(X, self._exogenous)
        missing = fh.to_absolute_index(self.cutoff).difference(known.index)
        if len(missing):
            raise FrameError(
                f"the forecaster was fit with exogenous columns, but X has no rows for "
                f"{len(missing)} steps of fh, the first {missing[0]}. Pass X with a row for each."
            )
        forecaster = self.forecaster_
        n_horizons = -(-_farthest(fh, self.cutoff) // forecaster.horizon)
        rows, ahead = self._rows.index, n_horizons * forecaster.horizon
        layout = forecaster.layout_
        whole = stamps_from(rows[0], len(rows) + ahead, layout.frequency, layout.clock)
        stamps = whole[-ahead - forecaster.fitted_.lookback :]
        return known.reindex(stamps).ffill()

    def _rows_of(self, forecast: pd.DataFrame, fh: ForecastingHorizon) -> pd.DataFrame:
        """Return the rows that fh names out of all rows behind the cutoff, with its stamps."""
        steps = fh.to_relative(self.cutoff).to_numpy()
        chosen: pd.DataFrame = forecast.iloc[steps - 1]
        return chosen.set_axis(fh.to_absolute_index(self.cutoff))

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


def _joined(new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """Return all rows of two tables; where both have a row, the new one."""
    return new.combine_first(old)[new.columns]


def _farthest(fh: ForecastingHorizon, cutoff: pd.Index) -> int:
    return int(fh.to_relative(cutoff).to_numpy().max())


def _parameters() -> list[Parameter]:
    """List `TSM2Forecaster`'s parameters, with a horizon that may be None."""
    own = signature(TSM2Forecaster.__init__).parameters.values()
    return [each.replace(default=None) if each.name == "horizon" else each for each in own]


# sktime reads the parameters of a forecaster from this signature, so that there is no second list.
_SIGNATURE = signature(TSM2Forecaster.__init__).replace(parameters=_parameters())
TSM2SktimeForecaster.__init__.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
