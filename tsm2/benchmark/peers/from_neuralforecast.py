"""Any point-forecast network of neuralforecast: PatchTST, iTransformer, TSMixer, TimesNet, ...

The library trains as it ships, on the training rows, with the validation rows as its `val_size`;
what differs from its defaults is here: mean squared error, the seed, and silence. Values are
standardised before; a scaler that the model brings works on top. It trains `max_steps` steps, or
fewer with `early_stop_patience_steps`, and keeps the last weights.

Sizes: T rows, M variates, B windows, L lookback, H horizon.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tsm2.benchmark.models import Forecaster, Setup
from tsm2.errors import ParameterError
from tsm2.prepared.scaling import Scaling
from tsm2.training.loop import choose_device

__all__ = ["NeuralForecastModel", "adapt"]

_CHUNK = 512  # windows in a forward pass


class NeuralForecastModel:
    """One of neuralforecast's models, from contexts to forecasts.

    Parameters
    ----------
    kind
        Class of the model.
    setup
        What the model is told.
    """

    def __init__(self, kind: type[Any], setup: Setup) -> None:
        self.kind = kind
        self.setup = setup

    def fit(self, values: NDArray[np.float64], n_train: int) -> Self:
        """Train as the library does."""
        from neuralforecast import NeuralForecast  # pyright: ignore[reportMissingImports]

        n_rows, n_variates = values.shape
        self.scaling_ = Scaling.of(values[:n_train])
        table = self.scaling_.standardise(values).numpy()
        width = len(str(n_variates))
        labels = [str(number).zfill(width) for number in range(n_variates)]  # sorted as they stand
        long = pd.DataFrame(
            {
                "unique_id": np.repeat(labels, n_rows),
                "ds": np.tile(np.arange(n_rows), n_variates),
                "y": table.T.ravel(),
            }
        )
        driver = NeuralForecast(models=[self._model(n_variates)], freq=1)
        driver.fit(long, val_size=n_rows - n_train)
        (self.model_,) = driver.models
        self.model_.to(choose_device(self.setup.device)).eval()
        return self

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return forecasts, (B, H, M), for contexts, (B, L, M)."""
        context = self.scaling_.standardise(contexts)
        if self.model_.MULTIVARIATE:
            return self.scaling_.restore(self._forward(context))
        n_windows, lookback, n_variates = context.shape
        single = context.swapaxes(1, 2).reshape(-1, lookback, 1)  # (B * M, L, 1)
        forecast = self._forward(single).reshape(n_windows, n_variates, -1)
        return self.scaling_.restore(forecast.swapaxes(1, 2))

    def _forward(self, context: torch.Tensor) -> torch.Tensor:
        """Return forecasts, (B, H, N), for contexts, (B, L, N), in the model's batch format."""
        scaler = self.model_.scaler  # the model's own: it remembers each window's level and scale
        forecasts = []
        with torch.inference_mode():
            for chunk in torch.split(context.contiguous(), _CHUNK):
                known = chunk.to(self.model_.device).unsqueeze(2)  # (B, L, 1, N)
                series = scaler.transform(x=known, mask=torch.ones_like(known)).squeeze(2)
                batch = {
                    "insample_y": series,
                    "insample_mask": torch.ones_like(series),
                    "futr_exog": None,
                    "hist_exog": None,
                    "stat_exog": None,
                }
                output = self.model_.loss.domain_map(self.model_(batch))
                scaled = output.reshape(len(chunk), self.setup.horizon, 1, -1)
                forecasts.append(scaler.inverse_transform(z=scaled).squeeze(2).cpu())
        return torch.cat(forecasts)

    def _model(self, n_variates: int) -> Any:
        from neuralforecast.losses.pytorch import MSE  # pyright: ignore[reportMissingImports]

        own = {"n_series": n_variates} if self.kind.MULTIVARIATE else {}
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        chosen = {
            "loss": MSE(),
            "random_seed": self.setup.seed,
            "accelerator": "gpu" if choose_device(self.setup.device) == "cuda" else "cpu",
        }
        sizes = {"h": self.setup.horizon, "input_size": self.setup.lookback}
        model = self.kind(**sizes, **own, **quiet, **(chosen | dict(self.setup.parameters)))
        if model.RECURRENT or model.loss.is_distribution_output:
            raise ParameterError(
                f"neuralforecast:{self.kind.__name__} must forecast points in one step: leave out "
                f"loss and recurrent, or give recurrent=False."
            )
        return model


def adapt(name: str) -> Callable[[Setup], Forecaster]:
    """Return what makes the model of a class name in neuralforecast.models.

    Raises
    ------
    ParameterError
        neuralforecast has no model of that name.
    """
    from neuralforecast import models  # pyright: ignore[reportMissingImports]

    if name not in models.__all__:
        raise ParameterError(
            f"neuralforecast has no model named {name!r}. It has: {', '.join(models.__all__)}."
        )
    kind = getattr(models, name)
    return lambda setup: NeuralForecastModel(kind, setup)
