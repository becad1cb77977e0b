"""What a pretrained network is told of windows, found once and kept beside them.

    windows -> told, in batches -> windows with static covariates: all of it

The classical forecasts of a window take as long as a step of the network, and are the same in every
epoch. Kept are 8 bytes of each of the numbers, 9 kB of a window and variate of the network "zero":
whoever keeps them bounds how many windows.

Sizes: W windows, B windows in a batch, M variates, T lookback, H horizon, Q quantiles.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from tsm2.networks.zero import Told, ZeroShotNetwork
from tsm2.prepared.windows import Batch, Windows

__all__ = ["ToldNetwork", "keep_told", "told_of"]

_KEPT = ("context", "static", "base", "scale", "level", "deviation")
_EXACT = ("level", "deviation")  # in float64


def keep_told(network: ZeroShotNetwork, windows: Windows, batch_size: int) -> Windows:
    """Return windows that carry what a network is told of them, as static covariates.

    Parameters
    ----------
    network
        Tells, whatever its weights.
    windows
        Are told of in their order; must not be balanced.
    batch_size
        Windows at once. In the same batches a network that is told anew says the same to the bit.
    """
    kept = []
    for which in windows.batches(batch_size):
        batch = windows.gather(which)
        told = network.tell(batch.context, batch.mask)
        kept.append(torch.cat([getattr(told, name).double() for name in _KEPT], -1))
    covariates = replace(windows.covariates, static=torch.cat(kept))  # (W, M, ...)
    return replace(windows, series=torch.arange(len(windows)), covariates=covariates)


def told_of(network: ZeroShotNetwork, batch: Batch) -> Told:
    """Return what a network is told of a batch: what is kept, or else found now."""
    if batch.static is None:
        return network.tell(batch.context, batch.mask)
    return _kept(network, batch.context, batch.mask, batch.static)


def _kept(network: ZeroShotNetwork, context: Tensor, mask: Tensor | None, kept: Tensor) -> Told:
    sizes, dtype = network.config, network.inner.embedding.weight.dtype
    widths = [sizes.lookback, sizes.n_static, sizes.horizon, 1, 1, 1]
    parts = dict(zip(_KEPT, torch.split(kept, widths, dim=-1), strict=True))
    exact = {name: parts.pop(name).contiguous() for name in _EXACT}
    known = torch.ones_like(context, dtype=torch.bool) if mask is None else mask
    whole = {name: each.to(dtype).contiguous() for name, each in parts.items()}
    # As it is cut from a table, a step's variates side by side: a product may round by the strides.
    whole["context"] = whole["context"].mT.contiguous().mT
    return Told(mask=known, **whole, **exact)


class ToldNetwork(nn.Module):
    """A pretrained network that reads what it is told from its windows, where they carry it.

    Parameters
    ----------
    network
        Shares its weights.
    """

    def __init__(self, network: ZeroShotNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, context: Tensor, *, mask: Tensor | None = None, static: Tensor | None = None
    ) -> Tensor:
        """Return quantiles, (B, M, H, Q), in the units of `context`, (B, M, T).

        Parameters
        ----------
        context, mask
            As for `ZeroShotNetwork`.
        static
            What `keep_told` kept of these windows; None to find it now.
        """
        if static is None:
            forecast: Tensor = self.network(context, mask=mask)
            return forecast
        told = _kept(self.network, context, mask, static)
        standard = self.network.standard(told, self.network.answer(told)).double()
        level, deviation = told.level.unsqueeze(-1), told.deviation.unsqueeze(-1)
        return (standard * deviation + level).to(context.dtype)

    def mixer_parameters(self) -> list[nn.Parameter]:
        """List the parameters on the mixers' branches."""
        return self.network.mixer_parameters()
