"""Chronos, which was trained before on many series and is fitted to none of ours.

Each column of each series is a series of its own, of whose end the model reads as much as it can.
Its weights come from the Hugging Face Hub, or from a folder: `Chronos(model="folder")`.

Sizes: S series, M variates, H horizon, Q quantiles.
"""

from collections.abc import Callable
from typing import Any, Self

import torch

from tsm2.benchmark.rivals import Rival, RivalSetup
from tsm2.benchmark.task import Forecasts
from tsm2.tables.series import Series
from tsm2.training.loop import choose_device

__all__ = ["ChronosModel", "on_tables"]

_WEIGHTS = "amazon/chronos-bolt-small"


class ChronosModel:
    """A pipeline of Chronos.

    Parameters
    ----------
    setup
        What the model is told; the parameter `model` names the weights.
    """

    def __init__(self, setup: RivalSetup) -> None:
        given = {"model": _WEIGHTS, **setup.parameters}
        self.setup, self.weights = setup, given.pop("model")
        if given:
            raise TypeError(f"unexpected parameters {sorted(given)}; it has: model")

    def fit(self, known: Series) -> Self:
        """Load the weights; nothing is learnt."""
        from chronos import BaseChronosPipeline  # pyright: ignore[reportMissingImports]

        if not hasattr(self, "pipeline"):
            device = choose_device(self.setup.device)
            self.pipeline = BaseChronosPipeline.from_pretrained(self.weights, device_map=device)
        return self

    def forecast(self, known: Series) -> Forecasts:
        """Forecast every column of every series; the median is the point forecast."""
        contexts = [
            torch.from_numpy(known.values[first:stop, variate]).float()
            for first, stop in zip(known.offsets, known.offsets[1:], strict=False)
            for variate in range(known.values.shape[1])
        ]
        low, high = self.setup.levels
        found, _ = self.pipeline.predict_quantiles(
            contexts, prediction_length=self.setup.horizon, quantile_levels=[low, 0.5, high]
        )  # (S M, H, 3)
        shape = len(known.ids), known.values.shape[1], self.setup.horizon, 3
        values = found.double().cpu().numpy().reshape(shape).swapaxes(1, 2)
        return Forecasts(point=values[..., 1], quantiles=values[..., [0, 2]])


def on_tables(name: str) -> Callable[[RivalSetup], Rival]:
    """Return what makes the model."""
    made: Callable[[RivalSetup], Any] = ChronosModel
    return made
