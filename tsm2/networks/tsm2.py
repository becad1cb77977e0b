"""TSM2: the forecasting network of the MambaMixer paper.

    normalise -> patches -> embedding -> L blocks(time mixer, variate mixer) -> readout -> head
    -> inverse normalisation

The time mixer scans the patches of each variate, forward; the variate mixer scans the variates of
each patch, in both directions. The mixers start at zero, so that the network starts as a linear
map on instance-normalised input, and nothing but weighted averaging touches that linear path.

Sizes: B windows, M variates, T lookback, P patches, F features, H horizon, Q quantiles.
Source: Behrouz et al. (2024), arXiv:2403.19888, section 5; what it leaves open is a setting here.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsm2.networks.blocks import (
    AveragingInit,
    MambaMixerBlock,
    MixerBranch,
    PreNorm,
    PreNormKind,
    WeightedAverage,
)
from tsm2.networks.heads import PointHead, QuantileHead
from tsm2.networks.mixers import AxisLinear, AxisMLP, Directions, Selection, SelectiveMixer

__all__ = ["NetworkConfig", "TSM2Network"]

_VARIATE_AXIS, _PATCH_AXIS = 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Sizes and settings of a TSM2 network; says nothing about training or data."""

    lookback: int
    """Time steps T that the network reads."""
    horizon: int
    """Time steps H that it forecasts at once."""
    n_variates: int
    """Variates M; only the fixed mixers and separate heads tie weights to it."""
    patch_length: int = 16
    """Time steps in a patch, from 1 to the lookback."""
    patch_stride: int = 16
    """Time steps from one patch to the next."""
    features: int = 16
    """Width F of a patch's embedding."""
    blocks: int = 1
    """MambaMixer blocks; 0 leaves the linear path alone."""
    d_state: int = 16
    """States N per inner feature of a scan."""
    d_conv: int = 4
    """Taps of the causal convolution before a scan."""
    expand: int = 2
    """Inner width of a mixer as a multiple of F."""
    dropout: float = 0.0
    """Share of a mixer's output that is zeroed in training, in [0, 1)."""
    pre_norm: PreNormKind = "2d"
    """What normalises a mixer's input, see `PreNorm`."""
    selection: Selection = "convolved"
    """What B, C and delta are computed from, see `DirectedScan`."""
    time_mixer: Literal["selective", "linear", "none"] = "selective"
    """What mixes the patches of a variate; all but "selective" are for ablation."""
    variate_mixer: Literal["selective", "mlp", "none"] = "selective"
    """What mixes the variates of a patch; all but "selective" are for ablation."""
    variate_directions: Directions = "both"
    """Directions in which the variates are scanned."""
    averaging: AveragingInit = "stream"
    """Initial weights of the averaging of earlier outputs, see `WeightedAverage`."""
    averaging_learned: bool = True
    """Learn these weights."""
    averaging_reach: int | None = None
    """How many outputs back a block may look; None for all."""
    readout: Literal["stream", "last"] = "stream"
    """What the head reads: the sum that a next block would receive, or the last output."""
    zero_start: bool = True
    """Start the mixers' output projections at zero."""
    instance_norm: bool = True
    """Subtract each window's mean and divide by its deviation, and undo both at the end."""
    separate_heads: bool = False
    """Give every variate a head of its own."""
    quantiles: tuple[float, ...] | None = None
    """Levels Q of a quantile forecast, rising, 0.5 among them; None for a point forecast."""
    backend: str = "auto"
    """Kernel backend, see `tsm2.kernels.selective_scan`."""

    def __post_init__(self) -> None:
        for name in ("lookback", "horizon", "n_variates", "patch_length", "patch_stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.patch_length > self.lookback:
            raise ValueError(
                f"patch_length ({self.patch_length}) must not exceed lookback ({self.lookback})"
            )
        if self.quantiles is not None:
            steps = pairwise((0.0, *self.quantiles, 1.0))
            if (
                len(self.quantiles) < 2
                or 0.5 not in self.quantiles
                or any(a >= b for a, b in steps)
            ):
                raise ValueError(
                    f"quantiles must be two or more that rise inside (0, 1) and hold 0.5, got "
                    f"{self.quantiles}"
                )
        if self.readout == "last" and self.zero_start:
            raise ValueError(
                "readout='last' with zero_start=True would forecast a constant at first and get "
                "no gradient; pass zero_start=False"
            )

    @property
    def n_patches(self) -> int:
        """Patches P; the first one is filled up on its left if the strides leave a rest."""
        return -(-(self.lookback - self.patch_length) // self.patch_stride) + 1


class TSM2Network(nn.Module):
    """Forecast all variates of a window.

    Parameters
    ----------
    config
        Sizes and settings.

    Examples
    --------
    >>> network = TSM2Network(NetworkConfig(lookback=96, horizon=24, n_variates=7))
    >>> network(torch.zeros(2, 7, 96)).shape
    torch.Size([2, 7, 24])
    """

    epsilon = 1e-5
    """Added to a window's variance, in squared standardised units."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Linear(config.patch_length, config.features)
        if config.features >= config.patch_length:
            nn.init.orthogonal_(self.embedding.weight)  # the linear path loses and bends nothing
        self.blocks = nn.ModuleList()
        n_token = n_channel = 1  # the model input counts as the first output of both kinds
        for _ in range(config.blocks):
            block = MambaMixerBlock(
                _branch(_time_mixer(config), config),
                _branch(_variate_mixer(config), config),
                n_token=n_token,
                n_channel=n_channel,
                init=config.averaging,
                reach=config.averaging_reach,
                learned=config.averaging_learned,
            )
            n_token += block.token is not None
            n_channel += block.channel is not None
            self.blocks.append(block)
        self.readout = (
            WeightedAverage(
                n_token,
                n_channel,
                newest="token" if config.variate_mixer == "none" else "channel",
                init=config.averaging,
                learned=config.averaging_learned,
            )
            if config.blocks and config.readout == "stream"
            else None
        )
        width = config.n_patches * config.features
        n_heads = config.n_variates if config.separate_heads else None
        self.head = (
            PointHead(width, config.horizon, n_variates=n_heads)
            if config.quantiles is None
            else QuantileHead(width, config.horizon, config.quantiles, n_variates=n_heads)
        )

    def forward(self, context: Tensor) -> Tensor:
        """Forecast the steps after `context`.

        Parameters
        ----------
        context
            Standardised values, (B, M, T), oldest first.

        Returns
        -------
        Forecasts, (B, M, H), or quantiles, (B, M, H, Q), in the units of `context`.
        """
        if self.config.instance_norm:
            mean = context.mean(-1, keepdim=True)  # (B, M, 1)
            variance = context.var(-1, keepdim=True, unbiased=False)
            deviation = torch.sqrt(variance + self.epsilon)
            forecast = self._forecast((context - mean) / deviation)
            if self.config.quantiles is not None:
                mean, deviation = mean.unsqueeze(-1), deviation.unsqueeze(-1)  # (B, M, 1, 1)
            return forecast * deviation + mean
        return self._forecast(context)

    def _forecast(self, context: Tensor) -> Tensor:
        stream = self.embedding(self._patches(context))  # (B, M, P, F)
        token, channel = [stream], [stream]
        for block in self.blocks:
            token, channel = block(token, channel)
        if self.readout is not None:
            stream = self.readout(token, channel)
        elif self.config.blocks:
            stream = token[-1] if self.config.variate_mixer == "none" else channel[-1]
        forecast: Tensor = self.head(stream)
        return forecast

    def _patches(self, context: Tensor) -> Tensor:
        """Cut (B, M, T) into patches, (B, M, P, patch_length), without a copy if they fit."""
        length, stride = self.config.patch_length, self.config.patch_stride
        missing = (self.config.n_patches - 1) * stride + length - self.config.lookback
        if missing:
            context = functional.pad(context, (missing, 0), mode="replicate")
        return context.unfold(-1, length, stride)

    def mixer_parameters(self) -> list[nn.Parameter]:
        """List the parameters on the mixers' branches; all others make up the linear path."""
        return [
            parameter
            for module in self.modules()
            if isinstance(module, MixerBranch)
            for parameter in module.parameters()
        ]


def _branch(mixer: nn.Module | None, config: NetworkConfig) -> MixerBranch | None:
    if mixer is None:
        return None
    norm = PreNorm(config.features, config.pre_norm)
    return MixerBranch(mixer, norm, dropout=config.dropout, start_at_zero=config.zero_start)


def _time_mixer(config: NetworkConfig) -> nn.Module | None:
    if config.time_mixer == "none":
        return None
    if config.time_mixer == "linear":
        return AxisLinear(config.n_patches, axis=_PATCH_AXIS)
    return _selective(config, _PATCH_AXIS, "forward")


def _variate_mixer(config: NetworkConfig) -> nn.Module | None:
    if config.variate_mixer == "none":
        return None
    if config.variate_mixer == "mlp":
        return AxisMLP(config.n_variates, axis=_VARIATE_AXIS)
    return _selective(config, _VARIATE_AXIS, config.variate_directions)


def _selective(config: NetworkConfig, axis: int, directions: Directions) -> SelectiveMixer:
    return SelectiveMixer(
        config.features,
        orders=((axis,),),
        directions=directions,
        expand=config.expand,
        d_state=config.d_state,
        d_conv=config.d_conv,
        selection=config.selection,
        backend=config.backend,
    )
