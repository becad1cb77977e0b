"""Any scikit-learn regressor, on lagged rows: one per variate, which sees that variate alone.

Inputs are the L rows of a context, outputs the H rows behind it, in standard units. Validation
rows are not used, for nothing is chosen.

Sizes: T rows, M variates, W windows, B windows, L lookback, H horizon.
"""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.multioutput import MultiOutputRegressor
from sklearn.utils import all_estimators, get_tags

from tsm2.benchmark.models import Forecaster, Setup
from tsm2.errors import ParameterError
from tsm2.prepared.scaling import Scaling

__all__ = ["LaggedRegressors", "adapt", "uses_seed"]


class LaggedRegressors:
    """One regressor per variate, from its lagged rows to its next ones.

    Parameters
    ----------
    kind
        Class of the regressor.
    setup
        What the model is told.
    """

    def __init__(self, kind: type[BaseEstimator], setup: Setup) -> None:
        self.kind = kind
        self.setup = setup
        self._regressor()  # a parameter that it does not take shows here

    def fit(self, values: NDArray[np.float64], n_train: int) -> Self:
        """Fit every variate's regressor on the training rows."""
        self.scaling_ = Scaling.of(values[:n_train])
        table = self.scaling_.standardise(values[:n_train]).numpy()
        size = self.setup.lookback + self.setup.horizon
        windows = np.lib.stride_tricks.sliding_window_view(table, size, axis=0)  # (W, M, L + H)
        context, target = np.split(windows, [self.setup.lookback], axis=-1)
        self.regressors_ = [
            self._regressor().fit(context[:, variate], target[:, variate])
            for variate in range(values.shape[1])
        ]
        return self

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return forecasts, (B, H, M), for contexts, (B, L, M)."""
        context = self.scaling_.standardise(contexts).numpy()
        forecast = [
            np.asarray(regressor.predict(context[..., variate])).reshape(len(context), -1)
            for variate, regressor in enumerate(self.regressors_)
        ]  # M of (B, H)
        return self.scaling_.restore(torch.from_numpy(np.stack(forecast, axis=-1)))

    def _regressor(self) -> Any:
        seed = {"random_state": self.setup.seed} if _takes_seed(self.kind) else {}
        regressor = self.kind(**seed | dict(self.setup.parameters))
        one_output = not get_tags(regressor).target_tags.multi_output
        return MultiOutputRegressor(regressor) if one_output else regressor


def adapt(name: str) -> Callable[[Setup], Forecaster]:
    """Return what makes the regressor of a scikit-learn class name.

    Raises
    ------
    ParameterError
        scikit-learn has no regressor of that name.
    """
    kind = _find(name)
    return lambda setup: LaggedRegressors(kind, setup)


def uses_seed(name: str, parameters: Mapping[str, Any]) -> bool:
    """Tell whether the regressor of a name draws at random with these parameters."""
    kind = _find(name)
    if not _takes_seed(kind):
        return False
    regressor = kind(**parameters)
    exact = getattr(regressor, "solver", None) == "auto"  # Ridge
    in_order = getattr(regressor, "selection", None) == "cyclic"  # Lasso, ElasticNet
    return not (exact or in_order)


def _takes_seed(kind: type[BaseEstimator]) -> bool:
    return "random_state" in signature(kind).parameters


def _find(name: str) -> type[BaseEstimator]:
    regressors = dict(all_estimators(type_filter="regressor"))
    if name not in regressors:
        raise ParameterError(
            f"scikit-learn has no regressor named {name!r}. It has: {', '.join(regressors)}."
        )
    found: type[BaseEstimator] = regressors[name]
    return found
