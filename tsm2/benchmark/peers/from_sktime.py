"""Any forecaster or time series regressor of sktime: ThetaForecaster, RocketRegressor, ...

A regressor is trained as scikit-learn's are: one per variate, from its lagged rows to its next
ones. A forecaster that goes on from rows that `update` brings is fit once on the training rows, and
gets each context by `update`; any other is fit on each context anew and sees nothing else. Which
kind it is, is measured, because sktime's tags do not tell. Values are standardised before, and
validation rows are not used, for nothing is chosen.

Sizes: T rows, M variates, W windows, B windows, L lookback, H horizon.
"""

from collections.abc import Callable
from copy import deepcopy
from inspect import signature
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tsm2.benchmark.models import Forecaster, Setup
from tsm2.errors import ParameterError
from tsm2.prepared.scaling import Scaling

__all__ = ["SktimeForecaster", "SktimeRegressors", "adapt"]


class SktimeForecaster:
    """One of sktime's forecasters, from contexts to forecasts.

    Parameters
    ----------
    kind
        Class of the forecaster.
    setup
        What the model is told.
    """

    def __init__(self, kind: type[Any], setup: Setup) -> None:
        self.setup = setup
        self.model = _made(kind, setup)
        self.trained: Any = None  # stays None for a forecaster that is fit on each context

    def fit(self, values: NDArray[np.float64], n_train: int) -> Self:
        """Fit on the training rows, if that helps to forecast a context."""
        self.scaling_ = Scaling.of(values[:n_train])
        table = self.scaling_.standardise(values[:n_train]).numpy()
        if self.model.get_tag("capability:update"):
            self.trained = self._fit(table)
            last = table[-self.setup.lookback :]
            if np.array_equal(self._continue(last), self._continue(last[::-1])):
                self.trained = None  # it keeps forecasting from the rows that it was fit on
        return self

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return forecasts, (B, H, M), for contexts, (B, L, M)."""
        scaled = self.scaling_.standardise(contexts).numpy()
        if self.trained is None:
            forecasts = [np.asarray(self._fit(context).predict()) for context in scaled]
        else:
            forecasts = [self._continue(context) for context in scaled]
        return self.scaling_.restore(torch.from_numpy(np.stack(forecasts).astype(np.float32)))

    def _fit(self, rows: NDArray[np.float32]) -> Any:
        steps = np.arange(1, self.setup.horizon + 1)
        return self.model.clone().fit(pd.DataFrame(rows), fh=steps)

    def _continue(self, context: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the forecast after rows, (L, M), that follow the training rows."""
        model = deepcopy(self.trained)
        (end,) = np.ravel(model.cutoff)
        stamps = pd.RangeIndex(end + 1, end + 1 + len(context))
        model.update(pd.DataFrame(context, index=stamps), update_params=False)
        return np.asarray(model.predict())


class SktimeRegressors:
    """One time series regressor per variate, from its lagged rows to its next ones.

    Parameters
    ----------
    kind
        Class of the regressor.
    setup
        What the model is told.
    """

    def __init__(self, kind: type[Any], setup: Setup) -> None:
        self.setup = setup
        self.model = _made(kind, setup)

    def fit(self, values: NDArray[np.float64], n_train: int) -> Self:
        """Fit every variate's regressor on the training rows."""
        self.scaling_ = Scaling.of(values[:n_train])
        table = self.scaling_.standardise(values[:n_train]).numpy()
        size = self.setup.lookback + self.setup.horizon
        windows = np.lib.stride_tricks.sliding_window_view(table, size, axis=0)  # (W, M, L + H)
        context, target = np.split(windows, [self.setup.lookback], axis=-1)
        self.regressors_ = [
            self.model.clone().fit(context[:, variate].copy(), target[:, variate].copy())
            for variate in range(values.shape[1])
        ]
        return self

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return forecasts, (B, H, M), for contexts, (B, L, M)."""
        context = self.scaling_.standardise(contexts).numpy()
        forecast = [
            np.asarray(regressor.predict(context[..., variate].copy())).reshape(len(context), -1)
            for variate, regressor in enumerate(self.regressors_)
        ]  # M of (B, H)
        return self.scaling_.restore(torch.from_numpy(np.stack(forecast, axis=-1)))


def adapt(name: str) -> Callable[[Setup], Forecaster]:
    """Return what makes the forecaster or regressor of a class name in sktime.

    Raises
    ------
    ParameterError
        sktime has neither of that name.
    """
    from sktime.registry import all_estimators  # pyright: ignore[reportMissingImports]

    forecasters = dict(
        all_estimators("forecaster", as_dataframe=False, suppress_import_stdout=True)
    )
    if name in forecasters:
        return lambda setup: SktimeForecaster(forecasters[name], setup)
    regressors = dict(all_estimators("regressor", as_dataframe=False, suppress_import_stdout=True))
    if name in regressors:
        return lambda setup: SktimeRegressors(regressors[name], setup)
    raise ParameterError(
        f"sktime has no forecaster or regressor named {name!r}. It has: "
        f"{', '.join([*forecasters, *regressors])}."
    )


def _made(kind: type[Any], setup: Setup) -> Any:
    takes_seed = "random_state" in signature(kind).parameters
    seed = {"random_state": setup.seed} if takes_seed else {}
    return kind(**seed | dict(setup.parameters))
