"""Ensemble: several networks that differ in their seed, and the mean of what they forecast.

Quantiles are averaged level by level, so that they do not cross.
Source: Lakshminarayanan, Pritzel & Blundell (2017), arXiv:1612.01474, for ensembles over seeds.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tsm2.networks.tsm2 import NetworkConfig, TSM2Network

__all__ = ["Ensemble", "members_of"]


class Ensemble(nn.Module):
    """The mean of networks of the same sizes.

    Parameters
    ----------
    members
        Two or more networks.

    Examples
    --------
    >>> config = NetworkConfig(lookback=96, horizon=24, n_variates=7)
    >>> ensemble = Ensemble([TSM2Network(config), TSM2Network(config)])
    >>> ensemble(torch.zeros(2, 7, 96)).shape
    torch.Size([2, 7, 24])
    """

    def __init__(self, members: Iterable[TSM2Network]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def config(self) -> NetworkConfig:
        """Sizes and settings of every member."""
        return members_of(self)[0].config

    def forward(self, context: Tensor, **auxiliary: Tensor) -> Tensor:
        """Return the members' mean forecast; arguments and shapes are those of `TSM2Network`."""
        forecasts = [member(context, **auxiliary) for member in self.members]
        return torch.stack(forecasts).mean(0)


def members_of(network: TSM2Network | Ensemble) -> list[TSM2Network]:
    """Return the networks of an ensemble, or the one network alone."""
    if isinstance(network, TSM2Network):
        return [network]
    return [member for member in network.members if isinstance(member, TSM2Network)]
