"""The sizes and settings of a ViM2.

Source: Behrouz et al. (2024), arXiv:2403.19888, section 4 and table 8; what they leave open is a
setting here, and `docs/guides/vision.md` says how each was chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tsm2.errors import ParameterError
from tsm2.networks.blocks import AveragingInit

__all__ = ["GlobalPool", "ViM2Config"]

GlobalPool = Literal["avg", "max", ""]


@dataclass(frozen=True, kw_only=True, slots=True)
class ViM2Config:
    """Sizes and settings of a ViM2; none is tied to the size of the images."""

    in_chans: int = 3
    """Channels of the images."""
    num_classes: int = 1000
    """Outputs of the classifier; 0 leaves it out."""
    global_pool: GlobalPool = "avg"
    """How the last map becomes one vector per image: its mean or maximum, or "" for not at all."""
    patch_size: int = 4
    """Height and width of a patch, in pixels."""
    dims: Sequence[int] = (96, 192, 384, 768)
    """Width F of the features in each stage; every stage after the first halves the resolution."""
    blocks: Sequence[int] = (1, 1, 3, 1)
    """Blocks in each stage."""
    token_mixers: int = 2
    """Token mixers in a block, before its channel mixer (table 8)."""
    expand: int = 2
    """Inner width of a token mixer as a multiple of F."""
    channel_mixer: Literal["selective", "mlp", "none"] = "selective"
    """What mixes the channels; "mlp" is the ablation ViM2-MLP, "none" leaves token mixers alone."""
    channel_expand: Sequence[int] = (2, 2, 2, 1)
    """Inner width of the channel mixer in each stage, as a multiple of F (table 8)."""
    channel_group: int = 16
    """Inner features that are one token of the channel scan; 1 scans single channels."""
    mlp_expand: int = 4
    """Inner width of the MLP as a multiple of F, where it is the channel mixer."""
    d_state: int = 4
    """States N per inner feature of a scan. 4 learn as much as Mamba's 16 and take three quarters
    of the time (`benchmarks/vision_states.py`)."""
    d_conv: int = 4
    """Taps of the convolution along the channel groups."""
    image_conv: int = 3
    """Width of the depthwise convolution in a token mixer, an odd number of patches."""
    averaging: AveragingInit = "stream"
    """Initial weights of the averaging of earlier outputs, see `WeightedAverage`."""
    averaging_learned: bool = True
    """Learn these weights."""
    averaging_reach: int | None = None
    """How many outputs of each kind back a mixer may look; None for all of its stage."""
    zero_start: bool = True
    """Start the mixers' output projections at zero, so that at first a stage passes its input."""
    drop_rate: float = 0.0
    """Share of the pooled features that is zeroed before the classifier in training, in [0, 1)."""
    drop_path_rate: float = 0.0
    """Share of the images for which the last mixer is left out in training, in [0, 1); it rises
    linearly from 0 at the first."""
    backend: str = "auto"
    """Kernel backend, see `tsm2.kernels.selective_scan`."""

    def __post_init__(self) -> None:
        for name in ("dims", "blocks", "channel_expand"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not len(self.dims) == len(self.blocks) == len(self.channel_expand) > 0:
            raise ParameterError(
                f"dims, blocks and channel_expand need one entry per stage, got {len(self.dims)}, "
                f"{len(self.blocks)} and {len(self.channel_expand)}"
            )
        whole = ("in_chans", "patch_size", "token_mixers", "expand", "channel_group", "d_state")
        for name in whole:
            self._check_least(name, (getattr(self, name),), 1)
        for name in ("dims", "channel_expand"):
            self._check_least(name, getattr(self, name), 1)
        self._check_least("blocks", self.blocks, 0)
        self._check_least("num_classes", (self.num_classes,), 0)
        for name in ("drop_rate", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ParameterError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        for name, known in (
            ("global_pool", ("avg", "max", "")),
            ("channel_mixer", ("selective", "mlp", "none")),
            ("averaging", ("stream", "identity", "mean")),
        ):
            if getattr(self, name) not in known:
                raise ParameterError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if self.image_conv % 2 == 0 or self.image_conv < 1:
            raise ParameterError(f"image_conv must be an odd number, got {self.image_conv}")
        for features, expand in zip(self.dims, self.channel_expand, strict=True):
            if self.channel_mixer == "selective" and features * expand % self.channel_group:
                raise ParameterError(
                    f"channel_group ({self.channel_group}) must divide the {features * expand} "
                    f"inner features of every channel mixer (dims {self.dims} times "
                    f"channel_expand {self.channel_expand})"
                )
        if self.averaging == "identity" and self.zero_start:
            raise ParameterError(
                "averaging='identity' with zero_start=True would pass zeros and get no gradient; "
                "pass zero_start=False"
            )

    def _check_least(self, name: str, values: Sequence[int], least: int) -> None:
        if any(isinstance(value, bool) or int(value) != value or value < least for value in values):
            shown = values if len(values) > 1 else values[0]
            raise ParameterError(f"{name} must be whole and at least {least}, got {shown}")
