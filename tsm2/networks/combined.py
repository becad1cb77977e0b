"""A fitted network and classical forecasts of the whole history: their mean.

    network     reads the last L steps of a history, what was learned of all series
    classical   reads all of it, T steps, of each series alone: a mean, each forecast weighted by
                (how far it erred on the history's end) to the power -9
    forecast  = half of either; quantiles move with their median

The two err alike on the whole and apart on single tables. A network sees a few seasons and shares
what it learns; seasons, levels and lags of one series are better known from all of its rows.
Nothing of the classical half is trained, so that it has no part in a fit: it meets the network when
that forecasts.

Sizes: B windows, M variates, T steps of a history, L lookback of the network, H horizon, Q
quantiles, K classical forecasts.
Sources: Bates & Granger (1969), Operational Research Quarterly 20(4), for means of forecasts
weighted by their errors; Clemen (1989), Int. Journal of Forecasting 5(4), for equal weights.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsm2.kernels.exporting import is_exporting
from tsm2.networks.classical import classical_forecasts
from tsm2.networks.config import NetworkConfig
from tsm2.networks.ensemble import Ensemble
from tsm2.networks.patches import interpolate_gaps
from tsm2.networks.tsm2 import TSM2Network

__all__ = ["ClassicalMean", "CombinedNetwork", "affordable"]

_SHARE = 0.5
"""What the classical forecasts weigh beside another."""
_POWER = -9.0
_TINY = 1e-6  # deviations: what errs by nothing does not divide by it
_WIDTH = 64  # steps that the width of a history is a multiple of
_CELLS, _FEWEST = 2**19, 8  # steps of histories, in half a second, and windows in any case


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassicalMean:
    """The mean of classical forecasts of histories, each weighted by how far it errs there."""

    season: int
    """Steps of the season that the frequency tells; 1 for none."""
    rows: int = 2000
    """Last steps of a history that are read, at most."""

    @torch.no_grad()
    def forecast(
        self, context: Tensor, mask: Tensor | None, horizon: int, *, together: int = 1
    ) -> Tensor:
        """Return the mean, (B, M, H), in the units of `context`.

        A history is cut to what is known of it, up to whole blocks of steps, and forecast beside
        those that are as long: what is unknown before it costs nothing.

        Parameters
        ----------
        context
            Histories, (B, M, T), oldest first; finite even where they are unknown.
        mask
            True where they are known, (B, M, T); None if all are. One that is known nowhere is
            forecast as zero.
        horizon
            Steps H to forecast.
        together
            Histories that are forecast at once, or a multiple of it, the last one again to make
            them whole: a history's forecast is then the same, to the bit, beside any others.
        """
        known = torch.ones_like(context, dtype=torch.bool) if mask is None else mask
        context, known = context[..., -self.rows :], known[..., -self.rows :]
        windows, variates, steps = context.shape
        values, known = context.flatten(0, 1), known.flatten(0, 1)  # (N, T)
        if is_exporting():  # which knows one width
            width = -(-steps // _WIDTH) * _WIDTH
            found = self._of_rows(_last(values, width), _last(known, width), horizon)
            return found.view(windows, variates, horizon)
        t = torch.arange(steps, device=known.device)
        counts = steps - torch.where(known, t, steps - 1).amin(-1)  # (N,)
        widths = -(-counts // _WIDTH) * _WIDTH
        found = values.new_empty(len(values), horizon)
        for width in sorted(set(widths.tolist())):
            which = (widths == width).nonzero().flatten()
            whole = -(-len(which) // together) * together - len(which)
            filled_up = torch.cat((which, which[-1:].expand(whole)))
            rows = [_last(each[filled_up], width) for each in (values, known)]
            found[which] = self._of_rows(rows[0], rows[1], horizon)[: len(which)]
        return found.view(windows, variates, horizon)

    def _of_rows(self, values: Tensor, known: Tensor, horizon: int) -> Tensor:
        """Return the mean, (N, H), of histories of one width, (N, T)."""
        count = known.sum(-1, keepdim=True).clamp(min=1)
        exact = torch.where(known, values, 0).double()
        level = exact.sum(-1, keepdim=True) / count
        away = torch.where(known, exact - level, 0)
        deviation = (away.square().sum(-1, keepdim=True) / count).sqrt()
        deviation = torch.where(deviation > 1e-9 * level.abs(), deviation, 1.0)
        classical = classical_forecasts(
            interpolate_gaps((away / deviation).float(), known),
            known,
            horizon,
            offset=None,  # zero is the mean of training rows, and logarithms may be taken already
            seasons=torch.full_like(count[:, 0], self.season if self.season > 1 else 0),
        )
        weights = (classical.errors + _TINY).double() ** _POWER  # (N, K)
        weights = weights / weights.sum(1, keepdim=True)
        mean = (weights[..., None] * classical.courses).sum(1)
        return (mean * deviation + level).to(values.dtype)

    def correction(
        self, own: Tensor, context: Tensor, mask: Tensor | None, *, together: int = 1
    ) -> Tensor:
        """Return what takes another forecast, (B, M, H), to the mean with it, as `forecast`."""
        mean = self.forecast(context, mask, own.shape[-1], together=together)
        return _SHARE * (mean - own)


def affordable(steps: int, n_variates: int) -> int:
    """Return how many windows of so many steps may be forecast, where that is a matter of choice.

    Examples
    --------
    >>> affordable(128, 1), affordable(2000, 1), affordable(2000, 862)
    (4096, 262, 8)
    """
    return max(_FEWEST, _CELLS // (steps * n_variates))


def _last(rows: Tensor, width: int) -> Tensor:
    """Return the last steps of rows, (N, width), with zeros before those that are shorter."""
    lacking = max(0, width - rows.shape[-1])
    return functional.pad(rows[..., -width:], (lacking, 0)) if lacking else rows[..., -width:]


class CombinedNetwork(nn.Module):
    """The mean of what a network and classical forecasts say.

    Parameters
    ----------
    network
        Reads values alone.
    classical
        What it is averaged with.
    together
        As for `ClassicalMean.forecast`.
    """

    asks_host = True
    """Classical forecasts are made on the host, which no recording of a device holds."""

    def __init__(
        self, network: TSM2Network | Ensemble, classical: ClassicalMean, *, together: int = 1
    ) -> None:
        super().__init__()
        self.network = network
        self.classical = classical
        self.together = together

    @property
    def config(self) -> NetworkConfig:
        """Sizes and settings of the network."""
        return self.network.config

    def forward(self, context: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Return forecasts, (B, M, H), or quantiles, (B, M, H, Q), in the units of `context`.

        Parameters
        ----------
        context
            Histories, (B, M, T), oldest first, of L steps at least; finite even where unknown.
        mask
            True where they are known, (B, M, T); None if all are. A network that was not made for
            gaps knows the last L steps.
        """
        own: Tensor = self.network(**self.read(context, mask))
        levels = self.config.quantiles
        point = own if levels is None else own[..., levels.index(0.5)]
        moved = self.classical.correction(point, context, mask, together=self.together)
        return own + (moved if levels is None else moved.unsqueeze(-1))

    def read(self, context: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return what the network reads of histories, by the names of its arguments."""
        last = slice(-self.config.lookback, None)
        read = {"context": context[..., last]}
        if mask is not None and self.config.gaps:
            read["mask"] = mask[..., last]
        return read
