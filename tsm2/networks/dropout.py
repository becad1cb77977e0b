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
    rows: tuple[int, slice] | None = None
    """Rows of the batch that the input is a part of, and which ones it is; None for all of it."""

    def forward(self, input: Tensor) -> Tensor:
        """Zero a share of the input, and raise the rest by as much; only in training."""
        if self.generator is None or not self.training or not self.p:
            return super().forward(input)
        kept = 1 - self.p
        size, own = self.rows or (len(input), slice(None))
        whole = input if size == len(input) else input.new_empty(size, *input.shape[1:])
        mask = torch.empty_like(whole).bernoulli_(kept, generator=self.generator)[own]
        return input * (mask.div_(kept) if kept else mask)


@contextmanager
def dropout_from(
    network: nn.Module, generator: torch.Generator, *, rows: tuple[int, slice] | None = None
) -> Iterator[None]:
    """Let every `Dropout` of a network draw from a generator.

    With `rows` it draws for a batch of so many rows and uses those of the slice, so that several
    processes with a part each drop what one with the whole batch drops.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, Dropout)]
    for layer in layers:
        layer.generator, layer.rows = generator, rows
    try:
        yield
    finally:
        for layer in layers:
            layer.generator = layer.rows = None
