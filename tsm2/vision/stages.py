"""The parts of ViM2: stem, down-sampling, and stages of mixers joined by weighted averaging.

    token mixer     4 scans of the image: row by row and column by column, from both ends
    channel mixer   2 scans of the channel groups of each token, from both ends
    block           token mixer, token mixer, channel mixer (table 8)
    mixer l of a stage reads the weighted average of the stage's input and of all mixers before it

No weight depends on the height or the width. A per-token scan of channels cannot tell the four
spatial orders apart, so the channel mixer has the two that differ.

Sizes: B images, H x W tokens, F features; inside a stage images are channels-last, (B, H, W, F).
Source: Behrouz et al. (2024), arXiv:2403.19888, section 4, table 8, figures 2 and 8.
"""

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tsm2.errors import ParameterError
from tsm2.kernels.exporting import is_exporting
from tsm2.networks.blocks import MixerBranch, PreNorm, WeightedAverage
from tsm2.networks.mixers import AxisMLP, SelectiveMixer
from tsm2.vision.config import ViM2Config

__all__ = ["DownSample", "DropPath", "MixerKind", "MixerStep", "Stage", "Stem", "stages_of"]

MixerKind = Literal["token", "channel"]

_HEIGHT_AXIS, _WIDTH_AXIS, _FEATURE_AXIS = 1, 2, 3
_GROUP_AXIS = 1  # of the tensor that a channel mixer scans, (tokens, groups, features of a group)


class Stem(nn.Module):
    """Cut an image into patches and embed them.

    Parameters
    ----------
    in_chans
        Channels of the image.
    features
        Width F of a patch's embedding.
    patch_size
        Height and width of a patch, in pixels.
    """

    def __init__(self, in_chans: int, features: int, patch_size: int) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, features, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(features)

    def forward(self, image: Tensor) -> Tensor:
        """Embed (B, in_chans, height, width) as (B, F, H, W); a rest is filled up with zeros."""
        if not is_exporting():
            self._check(image)
        patches = self.proj(_fill_up(image, self.patch_size))
        embedded: Tensor = self.norm(patches.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return embedded

    def _check(self, image: Tensor) -> None:
        if image.ndim != 4 or image.shape[1] != self.in_chans:
            raise ParameterError(
                f"images have shape {tuple(image.shape)}, but this model reads (batch, "
                f"{self.in_chans}, height, width). Build it with in_chans= for other channels"
            )
        if not image.is_floating_point():
            raise ParameterError(
                f"images are {image.dtype}, but the model reads floating-point numbers that are "
                f"standardised as in training. Scale them first, for example image.float() / 255"
            )
        if min(image.shape[2:]) < self.patch_size:
            height, width = image.shape[2:]
            raise ParameterError(
                f"an image of {height} x {width} pixels is smaller than one patch of "
                f"{self.patch_size} x {self.patch_size}. Enlarge it, or build the model with a "
                f"smaller patch_size"
            )


class DownSample(nn.Module):
    """Merge patches two by two: one linear map of the four, after a norm of each.

    Parameters
    ----------
    features
        Width of the patches that come in.
    out_features
        Width of the merged patches.
    """

    def __init__(self, features: int, out_features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.proj = nn.Conv2d(features, out_features, 2, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Halve (B, H, W, F) to (B, H / 2, W / 2, F'); an odd rest is filled up with zeros."""
        merged: Tensor = self.proj(_fill_up(self.norm(x).permute(0, 3, 1, 2), 2))
        return merged.permute(0, 2, 3, 1)


def _fill_up(image: Tensor, size: int) -> Tensor:
    """Add zeros at the right and the bottom until a convolution of stride `size` misses no pixel.

    For an exporter, which keeps the sizes open, it is always size - 1 rows and columns: what is
    too much is less than a stride, and the convolution leaves it out.
    """
    if is_exporting():
        return functional.pad(image, (0, size - 1, 0, size - 1))
    below, right = (-extent % size for extent in image.shape[-2:])
    return functional.pad(image, (0, right, 0, below)) if below or right else image


class DropPath(nn.Module):
    """Leave out a mixer for some of the images while training (stochastic depth).

    Parameters
    ----------
    rate
        Share of the images, in [0, 1); what stays is scaled up so that the mean does not change.

    References
    ----------
    Huang et al. (2016), arXiv:1603.09382.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, (B, ...), with whole images set to zero."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        kept = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep)
        return x * kept.div_(keep)

    def extra_repr(self) -> str:
        """Name the rate in the module's repr."""
        return f"rate={self.rate:.3g}"


class MixerStep(nn.Module):
    """One mixer, reading the weighted average of all outputs before it in its stage.

    Parameters
    ----------
    kind
        Which list of outputs its own belongs to.
    branch
        The mixer with its norm.
    average
        What it reads.
    drop_path
        See `DropPath`.
    """

    def __init__(
        self, kind: MixerKind, branch: MixerBranch, average: WeightedAverage, drop_path: float
    ) -> None:
        super().__init__()
        self.kind: MixerKind = kind
        self.average = average
        self.branch = branch
        self.drop_path = DropPath(drop_path)

    def forward(self, token: list[Tensor], channel: list[Tensor]) -> Tensor:
        """Return what the mixer gives, (B, H, W, F)."""
        mixed: Tensor = self.drop_path(self.branch(self.average(token, channel)))
        return mixed


class Stage(nn.Module):
    """Mixers at one resolution; averaging reaches back to the stage's input and no further.

    Parameters
    ----------
    downsample
        What halves the image first; None keeps its size.
    steps
        The mixers, in order.
    readout
        What the stage gives: the average that a next mixer would read.
    """

    def __init__(
        self, downsample: DownSample | None, steps: Iterable[MixerStep], readout: WeightedAverage
    ) -> None:
        super().__init__()
        self.downsample = downsample
        self.steps = nn.ModuleList(steps)
        self.readout = readout
        self.grad_checkpointing = False

    def forward(self, image: Tensor) -> Tensor:
        """Mix (B, F, H, W); both are views of channels-last memory, and nothing is transposed."""
        x = image.permute(0, 2, 3, 1)
        if self.downsample is not None:
            x = self.downsample(x)
        token, channel = [x], [x]
        for step in self.steps:
            if self.grad_checkpointing and self.training:
                # it is called again with these lists, so they must not grow
                out = checkpoint(step, list(token), list(channel), use_reentrant=False)
            else:
                out = step(token, channel)
            (token if step.kind == "token" else channel).append(out)
        mixed: Tensor = self.readout(token, channel)
        return mixed.permute(0, 3, 1, 2)


def stages_of(config: ViM2Config) -> list[Stage]:
    """Build the stages; drop path rises linearly from mixer to mixer (Huang et al.)."""
    orders = [_order(config, blocks) for blocks in config.blocks]
    n_mixers = sum(map(len, orders))
    rates = [config.drop_path_rate * i / max(1, n_mixers - 1) for i in range(n_mixers)]
    stages = []
    for number, order in enumerate(orders):
        features = config.dims[number]
        downsample = DownSample(config.dims[number - 1], features) if number else None
        steps = [
            MixerStep(kind, _branch(config, kind, number), _average(config, order[:place]), rate)
            for place, (kind, rate) in enumerate(zip(order, rates, strict=False))
        ]
        rates = rates[len(order) :]
        stages.append(Stage(downsample, steps, _average(config, order)))
    return stages


def _order(config: ViM2Config, blocks: int) -> list[MixerKind]:
    """List the mixers of a stage."""
    block: list[MixerKind] = ["token"] * config.token_mixers
    if config.channel_mixer != "none":
        block.append("channel")
    return block * blocks


def _average(config: ViM2Config, before: list[MixerKind]) -> WeightedAverage:
    """Average the stage's input and what the mixers before gave."""
    return WeightedAverage(
        1 + before.count("token"),
        1 + before.count("channel"),
        newest=before[-1] if before else "token",
        init=config.averaging,
        reach=config.averaging_reach,
        learned=config.averaging_learned,
    )


def _branch(config: ViM2Config, kind: MixerKind, number: int) -> MixerBranch:
    features = config.dims[number]
    if kind == "token":
        mixer: nn.Module = SelectiveMixer(
            features,
            orders=((_HEIGHT_AXIS, _WIDTH_AXIS), (_WIDTH_AXIS, _HEIGHT_AXIS)),
            directions="both",
            expand=config.expand,
            d_state=config.d_state,
            image_conv=config.image_conv,
            norm="layer",
            backend=config.backend,
        )
    elif config.channel_mixer == "selective":
        mixer = SelectiveMixer(
            features,
            orders=((_GROUP_AXIS,),),
            directions="both",
            expand=config.channel_expand[number],
            d_state=config.d_state,
            d_conv=config.d_conv,
            channel_group=config.channel_group,
            norm="layer",
            backend=config.backend,
        )
    else:
        mixer = AxisMLP(features, axis=_FEATURE_AXIS, expand=config.mlp_expand)
    return MixerBranch(mixer, PreNorm(features, "layer"), start_at_zero=config.zero_start)
