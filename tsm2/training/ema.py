"""Moving average of weights: what a network learnt lately, without the noise of its last steps.

    a[t] = d[t] a[t-1] + (1 - d[t]) w[t]        d[t] = min(decay, (1 + t) / (10 + t))

The small decay of the first steps forgets the initial weights, w[0] = a[0], as they are no result
of training. Sources: Polyak & Juditsky (1992), SIAM J. Control Optim. 30(4), for averaging;
Tarvainen & Valpola (2017), arXiv:1703.01780, for the exponential form.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["MovingAverage"]


class MovingAverage:
    """The moving average of a network's trained parameters.

    Parameters
    ----------
    network
        Whose parameters are averaged; the average starts at their values.
    decay
        Share of the old average in a new one, in [0, 1). At 0 the average is the network itself:
        nothing is stored or computed.

    Attributes
    ----------
    steps
        Counted so far.
    weights
        The averages, in the order of the network's trained parameters; empty at decay 0.

    Examples
    --------
    >>> network = nn.Linear(1, 1, bias=False)
    >>> average = MovingAverage(network, 0.5)
    >>> _ = nn.init.ones_(network.weight)
    >>> for _ in range(20):
    ...     average.update(average.advance())
    >>> with average.in_place():
    ...     round(network.weight.item(), 4)
    1.0
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._parameters = [p for p in network.parameters() if p.requires_grad] if decay else []
        self.weights: list[Tensor] = [p.detach().clone() for p in self._parameters]

    def advance(self) -> float:
        """Count a step, and return the share that its weights have in the average, 1 - d[t]."""
        self.steps += 1
        return 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))

    @torch.no_grad()
    def update(self, share: float | Tensor) -> None:
        """Take the weights that a training step has left into the average, with their share."""
        for average, parameter in zip(self.weights, self._parameters, strict=True):
            weight = share.to(average.dtype) if isinstance(share, Tensor) else share
            average.lerp_(parameter, weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network hold the averages inside a `with` block and its own weights after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, parameter in zip(self.weights, self._parameters, strict=True):
            own = parameter.clone()
            parameter.copy_(average)
            average.copy_(own)
