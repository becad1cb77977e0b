"""TSM2: the forecasting network of the MambaMixer paper.

    normalise -> append covariates -> patches -> embedding -> L blocks(time mixer, variate mixer)
    -> readout -> head -> inverse normalisation

The time mixer scans the patches of each variate, forward; the variate mixer scans the variates of
each patch, in both directions. The mixers start at zero, so that the network starts as a linear
map on instance-normalised input, and nothing but weighted averaging touches that linear path. The
head starts at zero too, so that the first forecast is the window's level.

Covariates become courses of T steps, see `tsm2.networks.covariates`, whose patches follow those of
the values. They are divided by the window's deviation, as the values are, so that a covariate's
effect has the same size in a calm window and in a lively one.

Gaps: known values alone make up a window's mean and deviation, unknown ones are interpolated for
the linear path, and a linear map of the mask tells the mixers which were.

A network that `reverts` forecasts level + reversion * level + deviation * head: what is in standard
units comes back to 0, the mean of the training rows, by a share for each step.

One with `leaders` adds to a variate's level, for each step, what the latest rows of all variates
and past covariates say of it, see `tsm2.networks.leaders`.

The mixers of one that is `bounded` add no more to a window than they added to those that trained
them, for nearly all of these: what reaches the head beside the linear path is shrunk to that size.

Sizes: B windows, M variates, T lookback, P patches, F features, H horizon, Q quantiles, K
parameters of a distribution; Cp past, Cf future and Cs static covariates.
Source: Behrouz et al. (2024), arXiv:2403.19888, section 5; what it leaves open is a setting, see
`tsm2.networks.config`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from tsm2.networks.blocks import (
    MambaMixerBlock,
    MixerBound,
    MixerBranch,
    PreNorm,
    WeightedAverage,
)
from tsm2.networks.config import NetworkConfig
from tsm2.networks.covariates import CourseEncoder
from tsm2.networks.heads import ParameterHead, PointHead, QuantileHead, in_units
from tsm2.networks.leaders import Leaders
from tsm2.networks.mixers import AxisLinear, AxisMLP, Directions, SelectiveMixer
from tsm2.networks.patches import cut_patches, interpolate_gaps

__all__ = ["NetworkConfig", "TSM2Network"]

_VARIATE_AXIS, _PATCH_AXIS = 1, 2


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
        self.gaps = _gaps(config)
        self.past = _encoder(config, config.n_past, config.lookback)
        self.future = _encoder(config, config.n_future, config.lookback + config.horizon)
        self.static = nn.Linear(config.n_static, config.lookback) if config.n_static else None
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
        bounded = config.bounded and self.readout is not None
        self.bound = MixerBound(config.n_variates) if bounded else None
        width = config.n_courses * config.n_patches * config.features
        n_heads = config.n_variates if config.separate_heads else None
        self.head = _head(config, width, n_heads)
        self.reversion = _reversion(config)
        self.leaders = _leaders(config)

    def forward(
        self,
        context: Tensor,
        *,
        mask: Tensor | None = None,
        past: Tensor | None = None,
        past_mask: Tensor | None = None,
        future: Tensor | None = None,
        static: Tensor | None = None,
    ) -> Tensor:
        """Forecast the steps after `context`.

        Parameters
        ----------
        context
            Standardised values, (B, M, T), oldest first; finite even where they are unknown.
        mask
            True where the context is known, (B, M, T); None if all of it is.
        past
            Past covariates, (B, Cp, T).
        past_mask
            True where these are known, (B, Cp, T); None if all of them are.
        future
            Future covariates, (B, Cf, T + H).
        static
            Static covariates, (B, M, Cs).

        Returns
        -------
        Forecasts, (B, M, H), quantiles, (B, M, H, Q), or parameters of a distribution,
        (B, M, H, K), in the units of `context`.
        """
        if past is not None and past_mask is not None:
            past = interpolate_gaps(past, past_mask)
        if not self.config.instance_norm:
            forecast = self._forecast(context, mask, self._courses(past, future, static))
            unmoved = forecast.new_zeros(1), forecast.new_ones(1)
            return forecast if self.config.outputs is None else self._restored(forecast, *unmoved)
        level, deviation = self._level(context, mask)
        past, future = self._centered(past), self._centered(future)
        courses = [course / deviation for course in self._courses(past, future, static)]
        values = context - level
        forecast = self._forecast(values / deviation, mask, courses)
        return self._restored(forecast, self._moved(level, values, mask, past), deviation)

    def _moved(
        self, level: Tensor, values: Tensor, mask: Tensor | None, past: Tensor | None
    ) -> Tensor:
        """Return where forecasts count from, (B, M, 1 or H), by each window's level, (B, M, 1).

        Values and past covariates are less their levels, (B, M, T) and (B, Cp, T).
        """
        moved = level if self.reversion is None else level + level * self.reversion
        if self.leaders is None:
            return moved
        values = values if mask is None else interpolate_gaps(values, mask)
        columns = values if past is None else torch.cat((values, past), 1)
        added: Tensor = self.leaders(columns)
        return moved + added

    def _restored(self, forecast: Tensor, level: Tensor, deviation: Tensor) -> Tensor:
        """Put level, (B, M, 1 or H), and deviation, (B, M, 1), back into what the head gave."""
        if self.config.outputs is not None:
            return in_units(forecast, self.config.outputs, level, deviation)
        if self.config.quantiles is not None:
            level, deviation = level.unsqueeze(-1), deviation.unsqueeze(-1)  # (B, M, 1, 1)
        return forecast * deviation + level

    def _level(self, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return each window's level and deviation per variate, (B, M, 1), of what is known."""
        if mask is None:
            mean, last = values.mean(-1, keepdim=True), values[..., -1:]
            variance = (values - mean).square().mean(-1, keepdim=True)
        else:
            count = mask.sum(-1, keepdim=True).clamp(min=1)
            mean = (values * mask).sum(-1, keepdim=True) / count
            variance = ((values - mean).square() * mask).sum(-1, keepdim=True) / count
            last = interpolate_gaps(values, mask)[..., -1:]
        level = mean if self.config.level == "mean" else last
        return level, torch.sqrt(variance + self.epsilon)

    def _centered(self, covariates: Tensor | None) -> Tensor | None:
        """Subtract the level over the lookback, as from the values, from (B, C, T or T + H)."""
        if covariates is None:
            return None
        before = covariates[..., : self.config.lookback]
        is_mean = self.config.level == "mean"
        return covariates - (before.mean(-1, keepdim=True) if is_mean else before[..., -1:])

    def _courses(
        self, past: Tensor | None, future: Tensor | None, static: Tensor | None
    ) -> list[Tensor]:
        """Return the covariates' courses, (B, M, T) each."""
        encoders = (self.past, past), (self.future, future), (self.static, static)
        return [encode(given) for encode, given in encoders if encode is not None]

    def _forecast(self, values: Tensor, mask: Tensor | None, courses: list[Tensor]) -> Tensor:
        stream = self._embedded(values, mask)  # (B, M, P, F)
        if courses:
            pieces = [self.embedding(self._patches(course)) for course in courses]
            stream = torch.cat((stream, *pieces), 2)  # (B, M, P of all courses, F)
        token, channel = [stream], [stream]
        for block in self.blocks:
            token, channel = block(token, channel)
        if self.readout is not None:
            plain, stream = stream, self.readout(token, channel)
            if self.bound is not None and not self.training:
                stream = self.bound(self.readout.of_input * plain, stream)
        elif self.config.blocks:
            stream = token[-1] if self.config.variate_mixer == "none" else channel[-1]
        forecast: Tensor = self.head(stream)
        return forecast

    def _embedded(self, values: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            values = interpolate_gaps(values, mask)
        embedded: Tensor = self.embedding(self._patches(values))
        if mask is None or self.gaps is None:
            return embedded
        told: Tensor = self.gaps(self._patches((~mask).to(values.dtype)))
        return embedded + told

    def _patches(self, course: Tensor) -> Tensor:
        """Cut (B, M, T) into patches, (B, M, P, patch_length)."""
        return cut_patches(course, self.config.patch_length, self.config.patch_stride)

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


def _head(config: NetworkConfig, width: int, n_heads: int | None) -> nn.Module:
    starts: Any = {"n_variates": n_heads, "start_at_zero": config.zero_head}
    if config.outputs is not None:
        return ParameterHead(width, config.horizon, len(config.outputs), **starts)
    if config.quantiles is not None:
        return QuantileHead(width, config.horizon, config.quantiles, **starts)
    return PointHead(width, config.horizon, **starts)


def _reversion(config: NetworkConfig) -> nn.Parameter | None:
    """Return by what share of a level each step leaves it, (H,) or (M, H): by none at first."""
    if not config.reverts:
        return None
    sizes = (config.n_variates,) if config.separate_heads else ()
    return nn.Parameter(torch.zeros(*sizes, config.horizon))


def _leaders(config: NetworkConfig) -> Leaders | None:
    """Return what reads the latest rows of all columns, silent at first."""
    if not config.leaders:
        return None
    columns = config.n_variates + config.n_past
    return Leaders(columns, config.n_variates, rows=config.leaders, horizon=config.horizon)


def _gaps(config: NetworkConfig) -> nn.Linear | None:
    """Return what tells of gaps, silent at first."""
    if not config.gaps:
        return None
    told = nn.Linear(config.patch_length, config.features, bias=False)
    nn.init.zeros_(told.weight)
    return told


def _encoder(config: NetworkConfig, n_covariates: int, steps: int) -> CourseEncoder | None:
    if not n_covariates:
        return None
    mixer = SelectiveMixer(
        config.patch_length,
        orders=((_VARIATE_AXIS,),),
        directions="both",
        expand=config.expand,
        d_state=config.d_state,
        d_conv=config.d_conv,
        selection=config.selection,
        backend=config.backend,
    )
    norm = PreNorm(config.patch_length, config.pre_norm)
    return CourseEncoder(
        n_covariates,
        config.n_variates,
        steps=steps,
        lookback=config.lookback,
        branch=MixerBranch(mixer, norm, dropout=config.dropout, start_at_zero=config.zero_start),
        patch_length=config.patch_length,
    )


def _time_mixer(config: NetworkConfig) -> nn.Module | None:
    if config.time_mixer == "none":
        return None
    if config.time_mixer == "linear":
        return AxisLinear(config.n_courses * config.n_patches, axis=_PATCH_AXIS)
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
