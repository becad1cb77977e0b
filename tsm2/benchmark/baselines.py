"""The floor: models so simple that losing to one of them is a defect.

Each fits a table of numbers, (T, M), and forecasts contexts, as `tsm2.backtesting` asks. The
three linear models are trained alike: they differ in what they take out of a context before one
linear map, shared by all variates, reads it.

    RLinear    the context's own mean and deviation, put back at the end
    NLinear    its last value, put back at the end
    DLinear    its moving average over 25 rows, which a second linear map reads

Sizes: T rows, M variates, B windows, L lookback, H horizon.
Sources: Li et al. (2023), arXiv:2305.10721 (RLinear); Zeng et al. (2023), arXiv:2205.13504
(NLinear, DLinear).
"""

from abc import ABC, abstractmethod
from functools import partial
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tsm2.networks.tsm2 import TSM2Network
from tsm2.prepared.scaling import Scaling
from tsm2.prepared.windows import Windows
from tsm2.training.fit import Device
from tsm2.training.loop import TrainingConfig, fit_network, seeded

__all__ = ["DLinear", "NLinear", "RLinear", "RepeatLast", "SeasonalNaive"]


class RepeatLast:
    """Forecast that nothing changes any more."""

    def fit(self, values: NDArray[np.float64], n_train: int) -> Self:
        """Do nothing: there is nothing to learn."""
        return self

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

    def fit(self, values: NDArray[np.float64], n_train: int) -> Self:
        """Do nothing: there is nothing to learn."""
        return self

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return the last season of each context, (B, L, M), again and again, (B, H, M)."""
        return contexts[:, -self.period + np.arange(horizon) % self.period]


class _Linear(ABC):
    """What the linear models share: their training; the parameters are those of `RLinear`."""

    def __init__(
        self,
        lookback: int,
        horizon: int,
        *,
        max_epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 3e-3,
        device: Device = "cpu",
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
            device=device,
            precision="float32",
            verbose=0,
        )

    @abstractmethod
    def _network(self) -> nn.Module:
        """Return a fresh network from contexts, (B, M, L), to forecasts, (B, M, H)."""

    def fit(self, values: NDArray[np.float64], n_train: int) -> Self:
        """Train on the first `n_train` rows of a table, (T, M), and stop by the rows after them."""
        self.scaling_ = Scaling.of(values[:n_train])
        table = self.scaling_.standardise(values)
        cut = partial(Windows, lookback=self.lookback, horizon=self.horizon)
        return self.fit_windows(
            cut(values=table[:n_train]), cut(values=table[n_train - self.lookback :])
        )

    def fit_windows(self, train: Windows, validation: Windows) -> Self:
        """Train on windows of standardised values, and stop by others."""
        with seeded(self.random_state):
            self.network_ = self._network()
        self.history_ = fit_network(
            self.network_,
            train,
            validation,
            self.training,
            seed=self.random_state,
        )
        return self

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return forecasts, (B, H, M), for contexts, (B, L, M); H is at most the trained one."""
        with torch.inference_mode():
            forecast = self.network_(self.scaling_.standardise(contexts).swapaxes(1, 2))
        return self.scaling_.restore(forecast[..., :horizon].swapaxes(1, 2))


class RLinear(_Linear):
    """One linear map from instance-normalised context to horizon, shared by all variates.

    Parameters
    ----------
    lookback, horizon
        Rows that are read and forecast.
    max_epochs, batch_size, learning_rate
        As in `TSM2Forecaster`; Adam, mean squared error, one-cycle schedule, best epoch by
        validation loss.
    device
        Where to train, as in `TSM2Forecaster`.
    random_state
        Seed of the initial weights and of the order of the windows.
    """

    def _network(self) -> nn.Module:
        return _RLinearNetwork(self.lookback, self.horizon)


class NLinear(_Linear):
    """One linear map of the context's distance from its last value; parameters as `RLinear`."""

    def _network(self) -> nn.Module:
        return _NLinearNetwork(self.lookback, self.horizon)


class DLinear(_Linear):
    """One linear map of the moving average and one of the rest; parameters as `RLinear`."""

    def _network(self) -> nn.Module:
        return _DLinearNetwork(self.lookback, self.horizon)


class _RLinearNetwork(nn.Module):
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


class _NLinearNetwork(nn.Module):
    """The last value taken out before one linear layer and put back behind it."""

    def __init__(self, lookback: int, horizon: int) -> None:
        super().__init__()
        self.linear = nn.Linear(lookback, horizon)

    def forward(self, context: Tensor) -> Tensor:
        """Return forecasts, (B, M, H), for contexts, (B, M, L)."""
        last = context[..., -1:]
        forecast: Tensor = self.linear(context - last)
        return forecast + last


class _DLinearNetwork(nn.Module):
    """A linear layer for the moving average, and one for what it leaves."""

    kernel = 25
    """Rows of the moving average; the ends are repeated, so that no row is lost."""

    def __init__(self, lookback: int, horizon: int) -> None:
        super().__init__()
        self.trend = nn.Linear(lookback, horizon)
        self.season = nn.Linear(lookback, horizon)

    def forward(self, context: Tensor) -> Tensor:
        """Return forecasts, (B, M, H), for contexts, (B, M, L)."""
        half = self.kernel // 2
        padded = functional.pad(context, (half, half), mode="replicate")
        average = functional.avg_pool1d(padded, self.kernel, stride=1)  # (B, M, L)
        forecast: Tensor = self.trend(average) + self.season(context - average)
        return forecast
