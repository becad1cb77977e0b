"""Bounds on what mixers and leaders add, measured once they are trained.

A linear path says of a window that lies far from all others what it says of any, in proportion.
Mixers were trained there by nothing, and what they add may be many times what they ever added. The
size of what they add to the windows that trained them, to 95 of 100, becomes the bound, see
`tsm2.networks.blocks.MixerBound`. What leaders add to a variate is in proportion to other columns,
which may leave their range: the most that they added becomes their bound.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from tsm2.networks.blocks import MixerBound
from tsm2.networks.leaders import Leaders
from tsm2.networks.tsm2 import TSM2Network
from tsm2.prepared.windows import Windows

__all__ = ["lift_bounds", "set_bounds"]

_USUAL = 0.95
"""Share of the sizes that lie within the bound of mixers."""
_LOOKED_AT = 1024
"""Windows at most whose sizes are measured."""


def lift_bounds(network: nn.Module) -> None:
    """Lift the bounds of a network that is trained anew, if it is one that has any."""
    for part in _bounded(network):
        part.largest.fill_(torch.inf)


@torch.no_grad()
def set_bounds(network: nn.Module, train: Windows) -> None:
    """Bound what a trained network adds to its linear path by what it adds to training windows.

    Parameters
    ----------
    network
        In evaluation mode. It stays as it is if it is none that is `bounded` or has leaders.
    train
        Standardised windows, on its device; as many as tell are looked at.
    """
    parts = _bounded(network)
    if not parts:
        return
    lift_bounds(network)
    with _measured(parts) as sizes:
        for which in torch.split(train.spread(_LOOKED_AT), 64):
            batch = train.gather(which)
            network(batch.context, **batch.auxiliary())
    for part, each in zip(parts, sizes, strict=True):
        whole = torch.cat(each)
        usual = isinstance(part, MixerBound)
        part.largest.copy_(torch.quantile(whole, _USUAL, dim=0) if usual else whole.amax(0))


def _bounded(network: nn.Module) -> list[MixerBound | Leaders]:
    """List the parts of a network that hold what they let through to what was measured."""
    if not isinstance(network, TSM2Network):
        return []
    return [part for part in (network.bound, network.leaders) if part is not None]


@contextmanager
def _measured(parts: list[MixerBound | Leaders]) -> Iterator[list[list[Tensor]]]:
    """Yield lists to which each batch adds the sizes of what parts let through, (B, ...)."""
    sizes: list[list[Tensor]] = [[] for _ in parts]

    def measure(place: int, part: MixerBound | Leaders, given: tuple[Tensor, ...]) -> None:
        sizes[place].append(part.size(*given))

    handles = [
        part.register_forward_pre_hook(partial(measure, place)) for place, part in enumerate(parts)
    ]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()
