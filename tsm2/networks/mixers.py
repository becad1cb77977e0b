"""Mixers: what one step of a MambaMixer network does along one set of axes.

`SelectiveMixer` is the mixer of the paper. Which axes it scans, and in which directions, makes it
a time mixer, a variate mixer or a cross-scan over an image; nothing else differs.

    c_k = silu(conv_k(W_v x))        B_k, C_k, delta_k from c_k        one k per scan
    y   = W_o (sum_k scan_k(c_k) * silu(W_g x))

On an image one convolution over both of its axes can serve all scans; and the scans can run over
groups of the inner features of each token instead of over tokens, which mixes channels. In both
cases the scans are one `cross_scan`.

`AxisLinear` and `AxisMLP` are the fixed mixers that the ablations put in its place.

Sizes: F features, E = expand * F inner features, N states per inner feature, K taps, R step rank;
G groups of E / G features where channels are mixed.
Source: Behrouz et al. (2024), arXiv:2403.19888, equations 6-18 and figures 1, 6 and 7; the sizes
and initial values that they leave open are Mamba's: Gu & Dao (2023), arXiv:2312.00752.
"""

import math
from functools import reduce
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsm2.kernels import ScanWeights, causal_conv, cross_scan, selective_scan, selective_ssm

__all__ = ["AxisLinear", "AxisMLP", "DirectedScan", "SelectiveMixer"]

Selection = Literal["convolved", "input"]
Directions = Literal["forward", "both"]

_STEP_RANGE = (1e-3, 1e-1)
"""Step lengths at the start of training, in tokens (Mamba)."""


class DirectedScan(nn.Module):
    """Short convolution and selective scan along one order of tokens, in one direction.

    Parameters
    ----------
    features
        Width F of the mixer's input, read when `selection` is "input".
    inner
        Width E of the tensor that is scanned.
    axes
        Axes that are scanned, the last one fastest.
    reverse
        Visit the tokens from the last to the first.
    d_state
        States N per inner feature.
    d_conv
        Taps K of the causal convolution; 0 leaves it out.
    selection
        What B, C and delta are computed from: the "convolved" tensor, as in Mamba, or the mixer's
        "input", as equations 8 and 9 read.
    backend
        Kernel backend, see `tsm2.kernels.selective_scan`.
    """

    def __init__(
        self,
        features: int,
        inner: int,
        *,
        axes: tuple[int, ...],
        reverse: bool,
        d_state: int,
        d_conv: int,
        selection: Selection = "convolved",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.axes = axes
        self.reverse = reverse
        self.selection = selection
        self.backend = backend
        rank = math.ceil(features / 16)
        self.sizes = (rank, d_state, d_state)
        self.conv_weight = nn.Parameter(torch.empty(inner, d_conv)) if d_conv else None
        self.conv_bias = nn.Parameter(torch.empty(inner)) if d_conv else None
        self.select = nn.Linear(
            inner if selection == "convolved" else features, sum(self.sizes), bias=False
        )
        self.step = nn.Linear(rank, inner)
        self.log_rate = nn.Parameter(torch.empty(inner, d_state))
        self.skip = nn.Parameter(torch.empty(inner))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw Mamba's initial values: rates 1..N, log-uniform step lengths, skips of one."""
        if self.conv_weight is not None and self.conv_bias is not None:
            bound = self.conv_weight.shape[1] ** -0.5
            for parameter in (self.conv_weight, self.conv_bias):
                nn.init.uniform_(parameter, -bound, bound)
        inner, rank = self.step.weight.shape
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        low, high = _STEP_RANGE
        steps = low * (high / low) ** torch.rand(inner)
        rates = torch.arange(1, self.log_rate.shape[1] + 1, dtype=torch.float32)
        with torch.no_grad():
            self.step.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # inverse softplus
            self.log_rate.copy_(rates.log().expand_as(self.log_rate))
            self.skip.fill_(1.0)

    def forward(self, value: Tensor, source: Tensor, gate: Tensor | None) -> Tensor:
        """Scan `value`, (*lead, E), selecting from itself or from `source`, (*lead, F)."""
        A = -torch.exp(self.log_rate)
        parameters = (self.skip, gate, self.step.bias, self.step.weight)
        order: Any = {"axes": self.axes, "reverse": self.reverse, "backend": self.backend}
        if self.conv_weight is not None and self.selection == "convolved":
            weight, bias, select = self.conv_weight, self.conv_bias, self.select.weight
            return selective_ssm(value, weight, bias, select, A, *parameters, **order)
        convolved = self._convolved(value)
        step, B, C = self._selected(convolved, source)
        return selective_scan(convolved, step, A, B, C, *parameters, **order)

    def weights(self) -> ScanWeights:
        """Return what this scan has of its own in a `cross_scan`."""
        return ScanWeights(
            select_weight=self.select.weight,
            A=-torch.exp(self.log_rate),
            D=self.skip,
            delta_bias=self.step.bias,
            delta_weight=self.step.weight,
            conv_weight=self.conv_weight,
            conv_bias=self.conv_bias,
        )

    def steps(self, value: Tensor, source: Tensor) -> Tensor:
        """Return the lengths of the steps that `forward` takes, (*lead, E)."""
        step, _, _ = self._selected(self._convolved(value), source)
        return functional.softplus(self.step(step))

    def _convolved(self, value: Tensor) -> Tensor:
        if self.conv_weight is None:
            return value
        weight, bias = self.conv_weight, self.conv_bias
        return causal_conv(
            value, weight, bias, axes=self.axes, reverse=self.reverse, backend=self.backend
        )

    def _selected(self, convolved: Tensor, source: Tensor) -> tuple[Tensor, ...]:
        """Return steps of low rank, (*lead, R), B and C, (*lead, N)."""
        selected = self.select(convolved if self.selection == "convolved" else source)
        return torch.split(selected, list(self.sizes), dim=-1)


class SelectiveMixer(nn.Module):
    """Mix tokens along chosen axes with selective scans; the only mixer of the networks.

    One input projection and one gate serve all scans; the convolution and the S6 parameters of
    each scan are its own; the scans are summed, gated and projected. With one causal scan this is
    the Mamba block.

    Parameters
    ----------
    features
        Width F of the tokens.
    orders
        Scan orders; each names the axes of the channels-last input that it visits, the last one
        fastest: ``((2,),)`` along axis 2, ``((1, 2), (2, 1))`` for both orders of an image.
    directions
        "forward", or "both" to visit every order from both ends.
    expand
        Inner width as a multiple of F.
    d_state
        States N per inner feature.
    d_conv
        Taps K of the causal convolution.
    image_conv
        Width of a depthwise convolution over both axes of an image, (B, H, W, F), an odd number.
        It stands in for the causal convolutions: there is one, and all scans share it (figure 8).
    channel_group
        Cut the E inner features of every token into G groups of so many, and let the orders name
        axes of that tensor, (tokens, G, E / G): ``((1,),)`` scans along the groups of each token,
        which mixes its channels with weights that all tokens share. None scans tokens.
    gate
        Multiply the scans by ``silu`` of a second projection of the input.
    norm
        "layer" normalises the summed scans before the gate, as ViM2 does; None leaves them.
    selection
        What B, C and delta are computed from, see `DirectedScan`.
    backend
        Kernel backend, see `tsm2.kernels.selective_scan`.

    References
    ----------
    Behrouz et al. (2024), equations 6-18; figure 6 for the output projection.
    """

    def __init__(
        self,
        features: int,
        *,
        orders: tuple[tuple[int, ...], ...],
        directions: Directions = "forward",
        expand: int = 2,
        d_state: int = 16,
        d_conv: int = 4,
        image_conv: int | None = None,
        channel_group: int | None = None,
        gate: bool = True,
        norm: Literal["layer"] | None = None,
        selection: Selection = "convolved",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        inner = expand * features
        if channel_group is not None and inner % channel_group:
            raise ValueError(
                f"channel_group ({channel_group}) must divide the {inner} inner features "
                f"(expand={expand} x features={features})"
            )
        if channel_group is not None and selection == "input":
            raise ValueError("selection='input' selects by tokens, and channel_group scans groups")
        self.channel_group = channel_group
        self.project_in = nn.Linear(features, inner, bias=False)
        self.project_gate = nn.Linear(features, inner, bias=False) if gate else None
        self.image_conv = None if image_conv is None else _depthwise(inner, image_conv)
        self.scans = nn.ModuleList(
            DirectedScan(
                features if channel_group is None else channel_group,
                inner if channel_group is None else channel_group,
                axes=order,
                reverse=reverse,
                d_state=d_state,
                d_conv=d_conv if image_conv is None else 0,
                selection=selection,
                backend=backend,
            )
            for order in orders
            for reverse in ((False, True) if directions == "both" else (False,))
        )
        self.norm = nn.LayerNorm(inner) if norm == "layer" else None
        self.project_out = nn.Linear(inner, features, bias=False)
        images_or_groups = image_conv is not None or channel_group is not None
        self.as_one = images_or_groups and selection == "convolved"

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed tokens, (*lead, F), for tokens `x` of that shape."""
        value = self._value(x)
        gate = None if self.project_gate is None else self.project_gate(x)
        if self.as_one:
            total = self._scanned_as_one(value).reshape(*x.shape[:-1], -1)  # (*lead, E)
        else:
            fused = gate if self.norm is None else None  # a norm stands between sum and gate
            total = reduce(torch.add, [scan(value, x, fused) for scan in self.scans])
            gate = None if self.norm is None else gate
        if self.norm is not None:
            total = self.norm(total)
        if gate is not None:
            total = total * functional.silu(gate)
        mixed: Tensor = self.project_out(total)
        return mixed

    def steps(self, x: Tensor) -> list[Tensor]:
        """Return the lengths of the steps that each scan takes, (*lead, E), for tokens `x`.

        Where channels are mixed they are those of the groups, (tokens, G, E / G).
        """
        value = self._value(x)
        return [cast(DirectedScan, scan).steps(value, x) for scan in self.scans]

    def _value(self, x: Tensor) -> Tensor:
        """Return what is scanned: tokens, (*lead, E), or their groups, (tokens, G, E / G)."""
        value: Tensor = self.project_in(x)
        if self.image_conv is not None:
            image = self.image_conv(value.permute(0, 3, 1, 2))  # (B, E, H, W), channels last
            value = functional.silu(image.permute(0, 2, 3, 1))
        if self.channel_group is not None:
            value = value.reshape(-1, value.shape[-1] // self.channel_group, self.channel_group)
        return value

    def _scanned_as_one(self, value: Tensor) -> Tensor:
        scans = [cast(DirectedScan, scan) for scan in self.scans]
        return cross_scan(
            value,
            [scan.weights() for scan in scans],
            axes=[scan.axes for scan in scans],
            reverse=[scan.reverse for scan in scans],
            backend=scans[0].backend,
        )


def _depthwise(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, width, padding=width // 2, groups=channels)


class AxisLinear(nn.Module):
    """Mix along one axis with a fixed square matrix: the linear time mixer of the ablation.

    Parameters
    ----------
    size
        Length of the axis, which is fixed by the weights.
    axis
        The axis that is mixed.
    """

    def __init__(self, size: int, *, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.project_out = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed tokens, in the shape of `x`."""
        mixed: Tensor = self.project_out(x.movedim(self.axis, -1))
        return mixed.movedim(-1, self.axis)


class AxisMLP(nn.Module):
    """Mix along one axis with a two-layer perceptron: the paper's TSM2-MLP.

    Parameters
    ----------
    size
        Length of the axis, which is fixed by the weights.
    axis
        The axis that is mixed.
    expand
        Hidden width as a multiple of `size`.
    """

    def __init__(self, size: int, *, axis: int, expand: int = 2) -> None:
        super().__init__()
        self.axis = axis
        self.project_in = nn.Linear(size, expand * size)
        self.project_out = nn.Linear(expand * size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed tokens, in the shape of `x`."""
        hidden = functional.gelu(self.project_in(x.movedim(self.axis, -1)))
        mixed: Tensor = self.project_out(hidden)
        return mixed.movedim(-1, self.axis)
