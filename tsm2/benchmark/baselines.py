"""The floor: three models so simple that losing to one of them is a defect.

Each fits a table of numbers, (T, M), and forecasts contexts, as `tsm2.backtesting` asks.

Sizes: T rows, M variates, B windows, L lookback, H horizon.
Source: Li et al. (2023), arXiv:2305.10721 (RLinear).
"""

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsm2.networks.tsm2 import TSM2Network
from tsm2.scaling import Scaling
from tsm2.training import TrainingConfig, fit_network, seeded
from tsm2.windows import Windows

__all__ = ["RLinear", "RepeatLast", "SeasonalNaive"]


class RepeatLast:
    """Forecast that nothing changes any more."""

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return the last row of each context, (B, L, M), `horizon` times, (B, H, M)."""
        return np.repeat(contexts[:, -1:], horizon, axis=1)


class SeasonalNaive:
    """Forecast that the last season comes again.

    Parameters
    ----------
    period
        Rows in a season.
    """

    def __init__(self, period: int) -> None:
        self.period = period

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return the last season of each context, (B, L, M), again and again, (B, H, M)."""
        return contexts[:, -self.period + np.arange(horizon) % self.period]


class RLinear:
    """One linear map from instance-normalised context to horizon, shared by all variates.

    Parameters
    ----------
    lookback, horizon
        Rows that are read and forecast.
    max_epochs, batch_size, learning_rate
        As in `TSM2Forecaster`; Adam, mean squared error, one-cycle schedule, best epoch by
        validation loss.
    random_state
        Seed of the initial weights and of the order of the windows.
    """

    def __init__(
        self,
        lookback: int,
        horizon: int,
        *,
        max_epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 3e-3,
        random_state: int = 0,
    ) -> None:
        self.lookback = lookback
        self.horizon = horizon
        self.random_state = random_state
        self.training = TrainingConfig(
            max_epochs=max_epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            mixer_learning_rate=learning_rate,
            weight_decay=0.0,
            sam_radius=0.0,
            gradient_clip=float("inf"),
            schedule="onecycle",
            loss="mse",
            patience=max_epochs,
            device="cpu",
            precision="float32",
            verbose=0,
        )

    def fit(self, values: NDArray[np.float64], n_train: int) -> Self:
        """Train on the first `n_train` rows of a table, (T, M), and stop by the rows after them."""
        self.scaling_ = Scaling.of(values[:n_train])
        table = self.scaling_.standardise(values)
        sizes = {"lookback": self.lookback, "horizon": self.horizon}
        with seeded(self.random_state, "cpu"):
            self.network_ = _LinearNetwork(self.lookback, self.horizon)
        self.history_ = fit_network(
            self.network_,
            Windows(values=table[:n_train], **sizes),
            Windows(values=table, first=n_train - self.lookback, **sizes),
            self.training,
            seed=self.random_state,
        )
        return self

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return forecasts, (B, H, M), for contexts, (B, L, M); H is at most the trained one."""
        with torch.inference_mode():
            forecast = self.network_(self.scaling_.standardise(contexts).swapaxes(1, 2))
        return self.scaling_.restore(forecast[..., :horizon].swapaxes(1, 2))


class _LinearNetwork(nn.Module):
    """Instance normalisation around one linear layer."""

    def __init__(self, lookback: int, horizon: int) -> None:
        super().__init__()
        self.linear = nn.Linear(lookback, horizon)

    def forward(self, context: Tensor) -> Tensor:
        """Return forecasts, (B, M, H), for contexts, (B, M, L)."""
        mean = context.mean(-1, keepdim=True)
        variance = context.var(-1, keepdim=True, unbiased=False)
        deviation = torch.sqrt(variance + TSM2Network.epsilon)
        forecast: Tensor = self.linear((context - mean) / deviation)
        return forecast * deviation + mean
