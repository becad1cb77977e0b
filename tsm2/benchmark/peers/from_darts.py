"""Any torch model of Darts: NLinearModel, TiDEModel, TSMixerModel, NHiTSModel, ...

The library trains as it ships, on the training rows, with the validation rows as `val_series`,
the seed, and silence. Values are standardised before. It keeps the last epoch's weights.

Sizes: T rows, M variates, B windows, L lookback, H horizon.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from tsm2.benchmark.models import Forecaster, Setup
from tsm2.errors import ParameterError
from tsm2.prepared.scaling import Scaling
from tsm2.training.loop import choose_device

__all__ = ["DartsModel", "adapt"]


class DartsModel:
    """One of Darts' torch models, from contexts to forecasts.

    Parameters
    ----------
    kind
        Class of the model.
    setup
        What the model is told.
    """

    def __init__(self, kind: type[Any], setup: Setup) -> None:
        accelerator = "gpu" if choose_device(setup.device) == "cuda" else "cpu"
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        self.horizon = setup.horizon
        self.model = kind(
            input_chunk_length=setup.lookback,
            output_chunk_length=setup.horizon,
            random_state=setup.seed,
            pl_trainer_kwargs={"accelerator": accelerator, **quiet},
            **setup.parameters,
        )

    def fit(self, values: NDArray[np.float64], n_train: int) -> Self:
        """Train as the library does."""
        from darts import TimeSeries  # pyright: ignore[reportMissingImports]

        self.scaling_ = Scaling.of(values[:n_train])
        table = self.scaling_.standardise(values).numpy()
        validation = table[n_train - self.model.input_chunk_length :]
        self.model.fit(
            TimeSeries.from_values(table[:n_train]),
            val_series=TimeSeries.from_values(validation),
            verbose=False,
        )
        return self

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return forecasts, (B, H, M), for contexts, (B, L, M)."""
        from darts import TimeSeries  # pyright: ignore[reportMissingImports]

        context = self.scaling_.standardise(contexts).numpy()
        series = [TimeSeries.from_values(each) for each in context]
        forecasts = self.model.predict(horizon, series=series, verbose=False)
        stacked = np.stack([forecast.values(copy=False) for forecast in forecasts])
        return self.scaling_.restore(torch.from_numpy(stacked))


def adapt(name: str) -> Callable[[Setup], Forecaster]:
    """Return what makes the model of a class name in darts.models.

    Raises
    ------
    ParameterError
        Darts has no torch model of that name.
    """
    from darts import models  # pyright: ignore[reportMissingImports]
    from darts.models.forecasting.torch_forecasting_model import TorchForecastingModel  # pyright: ignore[reportMissingImports]

    kind = getattr(models, name, None)
    if not isinstance(kind, type) or not issubclass(kind, TorchForecastingModel):
        raise ParameterError(
            f"Darts has no torch model named {name!r}. Its models end in 'Model', such as "
            f"NLinearModel, TiDEModel, TSMixerModel or NHiTSModel."
        )
    return lambda setup: DartsModel(kind, setup)
