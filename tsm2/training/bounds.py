"""Bounds on what mixers add, measured once they are trained.

A linear path says of a window that lies far from all others what it says of any, in proportion.
Mixers were trained there by nothing, and what they add may be many times what they ever added. The
size of what they add to the windows that trained them, to 95 of 100, becomes the bound, see
`tsm2.networks.blocks.MixerBound`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tsm2.networks.blocks import MixerBound
from tsm2.networks.tsm2 import TSM2Network
from tsm2.prepared.windows import Windows

__all__ = ["bound_mixers", "free_mixers"]

_USUAL = 0.95
"""Share of the sizes that lie within the bound."""
_LOOKED_AT = 1024
"""Windows at most whose sizes are measured."""


def free_mixers(network: nn.Module) -> None:
    """Lift the bound of a network that is trained anew, if it is one that has any."""
    if isinstance(network, TSM2Network) and network.bound is not None:
        network.bound.largest.fill_(torch.inf)


@torch.no_grad()
def bound_mixers(network: nn.Module, train: Windows) -> None:
    """Bound what a trained network's mixers add by what they add to windows that trained them.

    Parameters
    ----------
    network
        In evaluation mode. It stays as it is if it is none that is `bounded`.
    train
        Standardised windows, on its device; as many as tell are looked at.
    """
    if not isinstance(network, TSM2Network) or network.bound is None:
        return
    with _measured(network.bound) as sizes:
        for which in torch.split(train.spread(_LOOKED_AT), 64):
            batch = train.gather(which)
            network(batch.context, **batch.auxiliary())
    network.bound.largest.copy_(torch.quantile(torch.cat(sizes), _USUAL, dim=0))


@contextmanager
def _measured(bound: MixerBound) -> Iterator[list[Tensor]]:
    """Yield a list to which each batch adds the sizes of what mixers add unbounded, (B, M)."""
    sizes: list[Tensor] = []

    def measure(_: object, given: tuple[Tensor, Tensor]) -> None:
        sizes.append(bound.size(*given))

    handle = bound.register_forward_pre_hook(measure)
    try:
        yield sizes
    finally:
        handle.remove()
