"""A TSM2 network that forecasts series which it was not fitted to: pretrained, between two steps.

    history -> standard units, gaps filled -> classical forecasts, how far they err on its end
    base  = their mean, each weighted by (error + a tenth of the naive one's) to the power -3
    scale = their mean error, weighted alike
    what TSM2 reads: the history; as static covariates, all forecasts, their errors, the season
    forecast = base + scale * TSM2(...)                            quantiles, in the history's units

    ... + scale * a linear map of forecasts and history            once it was solved on a table

So the network starts as a good mean of classical forecasts, and learns when to trust which of them
and how far they miss. It is `TSM2Network` as it is: static covariates are known of each variate and
share their weights, so that any number of variates can be forecast.

Sizes: B windows, M variates, T lookback, H horizon, Q quantiles, K classical forecasts, N = B M.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tsm2.networks.classical import NAMES, ClassicalForecasts, classical_forecasts
from tsm2.networks.config import NetworkConfig
from tsm2.networks.patches import interpolate_gaps
from tsm2.networks.tsm2 import TSM2Network

__all__ = ["SolvedPath", "Told", "ZeroShotNetwork", "zero_shot_config"]

_POWER = -3.0
_FLOOR = 0.1  # of the naive error
_SMALLEST = 1e-2  # scale, in deviations of the history
_FARTHEST = 8.0  # what is told of a forecast, in scales
_N_FACTS = 2 + 2 * len(NAMES) + 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What is told to the network of windows, and what its answer is measured in."""

    context: Tensor
    """Histories in standard units, gaps filled, (B, M, T)."""
    mask: Tensor
    """Where they are known, (B, M, T)."""
    static: Tensor
    """Classical forecasts and facts, (B, M, Cs)."""
    base: Tensor
    """Where the forecast starts, (B, M, H), in standard units."""
    scale: Tensor
    """Unit of the network's answer, (B, M, 1), in standard units."""
    level: Tensor
    """Mean of each history, (B, M, 1), float64."""
    deviation: Tensor
    """Its deviation, (B, M, 1), float64."""


class SolvedPath(nn.Module):
    """What is added to every quantile: linear in what is told, solved on a table, never searched.

    A weight for each classical forecast, which moves along a straight line from the first step to
    the last, and a linear map of the history: `tsm2.training.missed` solves both. The history
    counts from its last value, so that what moves like a random walk needs no weight.

    Parameters
    ----------
    lookback, horizon
        Steps of the history and of the forecast.
    """

    def __init__(self, lookback: int, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.courses = nn.Parameter(torch.zeros(2 * len(NAMES)), requires_grad=False)
        self.history = nn.Parameter(torch.zeros(lookback, horizon), requires_grad=False)

    def forward(self, told: Told) -> Tensor:
        """Return what is added to the answer, (B, M, H), in scales."""
        courses, history = self.columns(told)
        added: Tensor = torch.einsum("bmkh,k->bmh", courses, self.courses) + history @ self.history
        return added

    def columns(self, told: Told) -> tuple[Tensor, Tensor]:
        """Return what is read, in scales, (B, M, 2 K, H) and (B, M, T).

        The courses less the base come twice: as they are, and times a line from -1 to 1.
        """
        apart = told.static[..., self.horizon : (len(NAMES) + 1) * self.horizon]
        apart = apart.reshape(*apart.shape[:-1], len(NAMES), self.horizon)
        line = torch.linspace(-1, 1, self.horizon, dtype=apart.dtype, device=apart.device)
        away = (told.context - told.context[..., -1:]) / told.scale
        return torch.cat((apart, line * apart), -2), away


def zero_shot_config(**given: Any) -> NetworkConfig:
    """Return the configuration of the inner network; `given` are fields of it, horizon among them.

    Examples
    --------
    >>> zero_shot_config(lookback=512, horizon=64, quantiles=(0.1, 0.5, 0.9)).instance_norm
    False
    """
    width = (len(NAMES) + 1) * int(given["horizon"]) + _N_FACTS
    fixed: dict[str, Any] = {"n_variates": 1, "n_static": width, "gaps": True}
    return NetworkConfig(**{**given, **fixed, "instance_norm": False})


class ZeroShotNetwork(nn.Module):
    """Forecast any series by what was learned from others.

    Parameters
    ----------
    config
        As `zero_shot_config` makes it.
    season
        Steps of the season that the frequency of the series tells; 0 for none.
    solved
        Whether there is a `SolvedPath` beside TSM2, which adds nothing at first.
    """

    asks_host = True
    """Classical forecasts are made on the host, which no recording of a device holds."""

    def __init__(self, config: NetworkConfig, season: int = 0, *, solved: bool = False) -> None:
        super().__init__()
        self.config = config
        self.season = season
        self.inner = TSM2Network(config)
        self.solved = SolvedPath(config.lookback, config.horizon) if solved else None

    def forward(self, context: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Return quantiles, (B, M, H, Q), in the units of `context`, (B, M, T).

        Parameters
        ----------
        context
            Histories, oldest first, in units in which zero is the series's own; finite even where
            they are unknown.
        mask
            True where they are known, (B, M, T); None if all are.
        """
        told = self.tell(context, mask)
        standard = self.standard(told, self.answer(told)).double()
        level, deviation = told.level.unsqueeze(-1), told.deviation.unsqueeze(-1)
        return (standard * deviation + level).to(context.dtype)

    def answer(self, told: Told) -> Tensor:
        """Return what TSM2 says, (B, M, H, Q), in scales away from the base."""
        answer: Tensor = self.inner(told.context, mask=told.mask, static=told.static)
        if self.solved is not None:
            answer = answer + self.solved(told).unsqueeze(-1)
        return answer

    def standard(self, told: Told, answer: Tensor) -> Tensor:
        """Return quantiles in standard units, (B, M, H, Q), of an answer."""
        return told.base.unsqueeze(-1) + told.scale.unsqueeze(-1) * answer

    @torch.no_grad()
    def tell(
        self, context: Tensor, mask: Tensor | None = None, *, seasons: Tensor | None = None
    ) -> Told:
        """Return what the network is told of windows.

        Parameters
        ----------
        context, mask
            As for `forward`.
        seasons
            Steps of the season of each window, (B,); None for that of the network.
        """
        windows, variates, steps = context.shape
        known = torch.ones_like(context, dtype=torch.bool) if mask is None else mask
        values = torch.where(known, context, 0).double()
        count = known.sum(-1, keepdim=True).clamp(min=1)
        level = values.sum(-1, keepdim=True) / count
        away = torch.where(known, values - level, 0)
        deviation = (away.square().sum(-1, keepdim=True) / count).sqrt()
        deviation = torch.where(deviation > 1e-9 * level.abs(), deviation, level.abs())
        deviation = torch.where(deviation > 0, deviation, 1.0)
        standard = interpolate_gaps((away / deviation).float(), known)
        if seasons is None:
            season = torch.full((windows,), self.season, device=context.device)
        else:
            season = seasons.to(context.device)
        classical = classical_forecasts(
            standard.flatten(0, 1),
            known.flatten(0, 1),
            self.config.horizon,
            offset=(level / deviation).flatten().float(),
            seasons=season[:, None].expand(-1, variates).flatten(),
        )
        base, scale, static = (
            each.view(windows, variates, -1).to(self.inner.embedding.weight.dtype)
            for each in _told(classical, steps)
        )
        return Told(
            context=standard.clamp(-10, 10).to(base.dtype),
            mask=known,
            static=static,
            base=base,
            scale=scale,
            level=level,
            deviation=deviation,
        )

    @torch.no_grad()
    def shrink(self, share: float) -> None:
        """Let the median move away from the base by a share, in (0, 1], of what was learned.

        Real series are not drawn by the generator: half a step can be the better one.
        """
        median = self.inner.head.get_submodule("median")
        for parameter in median.parameters():
            parameter.mul_(share)

    def for_season(self, season: int | None) -> "ZeroShotNetwork":
        """Return the network for series of a season, None for none known; weights are shared."""
        other = copy.copy(self)
        other.season = season or 0
        return other

    def with_solved(self) -> "ZeroShotNetwork":
        """Return a network of the same weights, copied, with a path to be solved if it has none."""
        other = ZeroShotNetwork(self.config, self.season, solved=True)
        other.load_state_dict(self.state_dict(), strict=False)
        return other.eval()

    def mixer_parameters(self) -> list[nn.Parameter]:
        """List the parameters on the mixers' branches."""
        return self.inner.mixer_parameters()


def _told(classical: ClassicalForecasts, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the base, (N, H), the scale, (N, 1), and the static covariates, (N, Cs)."""
    errors, naive = classical.errors, classical.naive[:, None]
    weights = (errors + _FLOOR * naive + 1e-3) ** _POWER
    weights = weights / weights.sum(1, keepdim=True)
    base = (weights[..., None] * classical.courses).sum(1)
    scale = (weights * errors).sum(1, keepdim=True) + _FLOOR * naive + _SMALLEST
    apart = (classical.courses - base[:, None]) / scale[..., None]
    facts = (
        scale.log(),
        (naive + 1e-3).log(),
        ((errors + 1e-3) / scale).log().clamp(-3, 3),
        weights,
        classical.strengths,
        classical.periods.log() / 3,
        (classical.periods == 1).to(base.dtype),
        (classical.counts / steps).log()[:, None],
    )
    static = torch.cat((base, apart.clamp(-_FARTHEST, _FARTHEST).flatten(1), *facts), 1)
    return base, scale, static
