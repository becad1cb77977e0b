"""Dropout whose draws belong to one training, and not to the process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Dropout", "dropout_from"]


class Dropout(nn.Dropout):
    """Dropout that can draw from a generator of its own.

    PyTorch's draws from the one generator of the process, so that two trainings in two threads take
    each other's numbers and neither can be repeated. On a CPU the same seed gives the same draws.
    """

    generator: torch.Generator | None = None
    """Where to draw, on the device of the input; None for PyTorch's generator."""

    def forward(self, input: Tensor) -> Tensor:
        """Zero a share of the input, and raise the rest by as much; only in training."""
        if self.generator is None or not self.training or not self.p:
            return super().forward(input)
        kept = 1 - self.p
        mask = torch.empty_like(input).bernoulli_(kept, generator=self.generator)
        return input * (mask.div_(kept) if kept else mask)


@contextmanager
def dropout_from(network: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Let every `Dropout` of a network draw from a generator."""
    layers = [layer for layer in network.modules() if isinstance(layer, Dropout)]
    for layer in layers:
        layer.generator = generator
    try:
        yield
    finally:
        for layer in layers:
            layer.generator = None
