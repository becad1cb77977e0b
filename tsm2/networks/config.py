"""What a TSM2 network may be set to: the one place for names, defaults, meanings and ranges.

    NetworkConfig --> HINTS    --> what scikit-learn is told of the estimator's parameters
                  --> SETTINGS --> the signatures of models of other libraries

A field's annotation says what it may be: `Literal` lists choices, `Count`, `Number` and `Share`
are ranges, `| None` allows None. `NetworkConfig` checks itself by these hints, and whoever needs
ranges in another form makes them of `HINTS`. A new setting is a new field; tests name the
signatures that must stay written out and follow.

Sizes: T lookback, H horizon, M variates, P patches, F features, N states, Q quantiles, K parameters
of a distribution; Cp past, Cf future and Cs static covariates.
"""

from dataclasses import dataclass, fields
from inspect import Parameter
from itertools import pairwise
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np

from tsm2.errors import ParameterError
from tsm2.networks.blocks import AveragingInit, PreNormKind
from tsm2.networks.heads import ParameterKind
from tsm2.networks.mixers import Directions, Selection
from tsm2.networks.patches import count_patches

__all__ = ["HINTS", "SETTINGS", "NetworkConfig", "Range", "patch_sizes", "shows_all_steps"]


class Range(NamedTuple):
    """The numbers from `least`, and below `below` if there is such a bound."""

    least: int
    below: int | None = None

    def __str__(self) -> str:
        least, below = self
        return f"of at least {least}" if below is None else f"in [{least}, {below})"


_PATCH_LENGTH = 16

Number = Annotated[int, Range(0)]
Count = Annotated[int, Range(1)]
Share = Annotated[float, Range(0, below=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Sizes and settings of a TSM2 network; says nothing about training or data.

    Raises
    ------
    ParameterError
        A field has the wrong type or lies outside its range, or two do not go together.
    """

    lookback: Count
    """Time steps T that the network reads."""
    horizon: Count
    """Time steps H that it forecasts at once."""
    n_variates: Count
    """Variates M; only fixed mixers, separate heads, covariates, bounds and leaders tie weights to
    it."""
    n_past: Number = 0
    """Past covariates Cp."""
    n_future: Number = 0
    """Future covariates Cf."""
    n_static: Number = 0
    """Static covariates Cs."""
    gaps: bool = False
    """Learn from where values are unknown."""
    reverts: bool = False
    """Let a forecast leave the window's level by a share of it, for each step: towards the mean of
    the training rows, where it comes back to that."""
    bounded: bool = False
    """Hold what mixers add to what they added to training windows, if the head reads the stream and
    a fit measures it, see `MixerBound`."""
    leaders: Number = 0
    """Latest rows of all variates and past covariates that each variate's forecast reads too, see
    `Leaders`; 0 for none."""
    features: Count = 16
    """Width F of a patch's embedding."""
    blocks: Number = 1
    """MambaMixer blocks; 0 leaves the linear path alone."""
    patch_length: Count = _PATCH_LENGTH
    """Time steps in a patch, from 1 to the lookback."""
    patch_stride: Count = _PATCH_LENGTH
    """Time steps from one patch to the next."""
    d_state: Count = 4
    """States N per inner feature of a scan."""
    d_conv: Count = 4
    """Taps of the causal convolution before a scan."""
    expand: Count = 1
    """Inner width of a mixer as a multiple of F."""
    dropout: Share = 0.0
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
    averaging_reach: Count | None = None
    """How many outputs back a block may look; None for all."""
    readout: Literal["stream", "last"] = "stream"
    """What the head reads: the sum that a next block would receive, or the last output."""
    zero_start: bool = True
    """Start the mixers' output projections at zero."""
    zero_head: bool = True
    """Start the head at zero, so that the first forecast is the window's level."""
    instance_norm: bool = True
    """Subtract each window's level and divide by its deviation, and undo both at the end."""
    level: Literal["mean", "last"] = "mean"
    """What the level is: the mean of the window, or its last value."""
    separate_heads: bool = False
    """Give every variate a head of its own."""
    quantiles: tuple[float, ...] | None = None
    """Levels Q of a quantile forecast, rising, 0.5 among them; None for a point forecast."""
    outputs: tuple[ParameterKind, ...] | None = None
    """Kinds of the K parameters of a distribution that are forecast instead; None for none."""
    backend: str = "auto"
    """Kernel backend, see `tsm2.kernels.selective_scan`."""

    def __post_init__(self) -> None:
        for name, hint in HINTS.items():
            value = getattr(self, name)
            if not _allows(hint, value):
                raise ParameterError(f"{name} must be {_described(hint)}, got {value!r}")
        if self.patch_length > self.lookback:
            raise ParameterError(
                f"patch_length ({self.patch_length}) must not exceed lookback ({self.lookback})"
            )
        if self.quantiles is not None:
            rise = all(a < b for a, b in pairwise((0.0, *self.quantiles, 1.0)))
            if len(self.quantiles) < 2 or 0.5 not in self.quantiles or not rise:
                raise ParameterError(
                    f"quantiles must be two or more that rise inside (0, 1) and hold 0.5, got "
                    f"{self.quantiles}"
                )
        if self.outputs is not None and (self.quantiles is not None or not self.outputs):
            raise ParameterError(
                f"outputs must be one kind or more, and quantiles None, got {self.outputs} and "
                f"{self.quantiles}"
            )
        if self.reverts and not self.instance_norm:
            raise ParameterError("reverts needs a level to leave; pass instance_norm=True")
        if self.leaders and not self.instance_norm:
            raise ParameterError("leaders count from levels; pass instance_norm=True")
        if self.leaders > self.lookback:
            raise ParameterError(
                f"leaders ({self.leaders}) must not exceed lookback ({self.lookback})"
            )
        if self.readout == "last" and self.zero_start:
            raise ParameterError(
                "readout='last' with zero_start=True would forecast a constant at first and get "
                "no gradient; pass zero_start=False"
            )

    @property
    def n_patches(self) -> int:
        """Patches P of a course of T steps: the values', and each kind of covariates'."""
        return count_patches(self.lookback, self.patch_length, self.patch_stride)

    @property
    def n_courses(self) -> int:
        """Courses of T steps that follow each other: the values, and each kind of covariates."""
        return 1 + (self.n_past > 0) + (self.n_future > 0) + (self.n_static > 0)


HINTS: dict[str, Any] = get_type_hints(NetworkConfig, include_extras=True)
"""What each field may be."""


_DECIDED = {
    "lookback", "horizon", "n_variates", "n_past", "n_future", "n_static", "gaps", "reverts",
    "bounded", "leaders", "quantiles", "outputs",
}  # fmt: skip
"""Fields that the data, the task and the loss decide; the others are settings of the network."""


def _parameter(name: str, default: object) -> Parameter:
    hint = HINTS[name]
    if name in ("patch_length", "patch_stride"):
        default, hint = None, hint | None  # what `patch_sizes` makes of them
    return Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=hint)


SETTINGS = tuple(
    _parameter(each.name, each.default)
    for each in fields(NetworkConfig)
    if each.name not in _DECIDED
)
"""Settings that estimators and other libraries' models take by these names."""


def shows_all_steps(features: int, *, patch_length: int, patch_stride: int) -> bool:
    """Return whether features of patches say all of the steps, whatever the embedding draws."""
    return features >= patch_length >= patch_stride


def patch_sizes(lookback: int, length: int | None, stride: int | None) -> dict[str, Any]:
    """Return the fields for patches, with what None stands for.

    Parameters
    ----------
    lookback
        Time steps T that the network reads.
    length
        Time steps in a patch; None for 16, or the lookback if that is shorter.
    stride
        Time steps from one patch to the next; None for the patch length.

    Examples
    --------
    >>> patch_sizes(96, None, 8), patch_sizes(12, None, None)
    ({'patch_length': 16, 'patch_stride': 8}, {'patch_length': 12, 'patch_stride': 12})
    """
    length = min(_PATCH_LENGTH, lookback) if length is None else length
    return {"patch_length": length, "patch_stride": length if stride is None else stride}


# --- what an annotation allows --------------------------------------------------------------------


def _allows(hint: Any, value: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_allows(part, value) for part in parts)
    if origin is Annotated:
        kind, (least, below) = parts
        return _allows(kind, value) and least <= value and (below is None or value < below)
    if origin is tuple:
        return isinstance(value, tuple) and all(_allows(parts[0], each) for each in value)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if hint in (int, float):  # NumPy's too, but neither True nor False
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    return isinstance(value, (bool, np.bool_) if hint is bool else hint)


def _described(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_described(part) for part in parts)
    if origin is Annotated:
        return f"{_described(parts[0])} {parts[1]}"
    if origin is tuple:
        return f"a tuple, each {_described(parts[0])}"
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    names = {int: "an integer", float: "a number", bool: "True or False", str: "a text"}
    return names.get(hint, "None")
