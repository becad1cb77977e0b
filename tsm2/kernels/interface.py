"""What passes between the public operations and their backends, and the formulas of both passes.

    x[t] = delta[t] + delta_bias           dt[t] = softplus(x[t])        v[t] = dt[t] u[t]
           W delta[t] + delta_bias with a delta of low rank
    h[t] = a[t] h[t-1] + B[t] v[t]         a[t] = exp(dt[t] A)
    y[t] = C[t] h[t] + D u[t]              out[t] = y[t] silu(z[t])

With `dq` for the gradient of the loss by q, g[t] = dh[t] runs backwards and the rest follows:

    dy[t] = dout[t] silu(z[t])             dz[t] = dout[t] y[t] silu'(z[t])
    g[t] = C[t] dy[t] + a[t+1] g[t+1]      r[t] = g[t] a[t] h[t-1]
    dC[t] = sum_e dy[t] h[t]               dB[t] = sum_e g[t] v[t]
    dv[t] = sum_n g[t] B[t]                du[t] = dv[t] dt[t] + D dy[t]
    ddt[t] = sum_n r[t] A + dv[t] u[t]     dx[t] = ddt[t] sigmoid(x[t])
    dA = sum_t r[t] dt[t]                  dD = sum_t dy[t] u[t]         ddelta_bias = sum_t dx[t]
    ddelta[t] = dx[t], or dx[t] W          dW = sum_t dx[t] delta[t]

And for the convolution, where weight[K-1-k] is for the token k places back:

    p[t] = bias + sum_k weight[K-1-k] x[t-k]                   out[t] = silu(p[t])  or  p[t]
    dp[t] = dout[t] silu'(p[t])  or  dout[t]                   dbias = sum_t dp[t]
    dx[t] = sum_k weight[K-1-k] dp[t+k]                        dweight[K-1-k] = sum_t dp[t] x[t-k]

h, x and dp are zero outside of the sequence. `reference` has the same definition as code.
Sizes: T tokens, * batch axes, E channels, N states per channel, R step rank, K taps; *lead stands
for all axes but the last, that is the scan axes and the batch axes in the order of the tensor.
Source: Gu & Dao (2023), arXiv:2312.00752, section 3.3 (recomputation) and algorithm 2.
"""

from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

__all__ = [
    "STATE_STEPS",
    "ConvTensors",
    "DifferentiableKernels",
    "FusedKernels",
    "SSMTensors",
    "ScanTensors",
    "ScanWeights",
    "StackingKernels",
    "Walk",
    "as_arguments",
    "converted",
    "state_dtype",
]

STATE_STEPS = 16
"""Tokens between two states that a scan keeps for its backward pass."""


class Walk(NamedTuple):
    """The order in which tokens are visited."""

    axes: tuple[int, ...]
    """One or two lead axes, counted from the front; the last named one is the fastest."""
    reverse: bool
    """From the last token to the first."""

    def unroll(self, tensor: Tensor) -> Tensor:
        """Bring (*lead, channels) to (T, *, channels); a reversed walk starts at its end."""
        front = tuple(range(len(self.axes)))
        return tensor.movedim(self.axes, front).flatten(0, len(self.axes) - 1)

    def roll_up(self, tokens: Tensor, like: Tensor) -> Tensor:
        """Bring (T, *, channels) to (*lead, channels), contiguous: the inverse of `unroll`."""
        scanned = (like.shape[axis] for axis in self.axes)
        others = (size for axis, size in enumerate(like.shape) if axis not in self.axes)
        front = tuple(range(len(self.axes)))
        return tokens.reshape(*scanned, *others).movedim(front, self.axes).contiguous()


class ScanTensors(NamedTuple):
    """What a scan reads, or the gradients of it, each in the place of its argument."""

    u: Tensor  # (*lead, E)
    delta: Tensor  # (*lead, E), or (*lead, R) with a delta_weight
    A: Tensor  # (E, N)
    B: Tensor  # (*lead, N)
    C: Tensor  # (*lead, N)
    D: Tensor | None  # (E,)
    z: Tensor | None  # (*lead, E)
    delta_bias: Tensor | None  # (E,)
    delta_weight: Tensor | None = None  # (E, R)


class ConvTensors(NamedTuple):
    """What a convolution reads, or the gradients of it, each in the place of its argument."""

    x: Tensor  # (*lead, E)
    weight: Tensor  # (E, K)
    bias: Tensor | None  # (E,)


class SSMTensors(NamedTuple):
    """What `selective_ssm` reads, or the gradients of it, each in the place of its argument."""

    x: Tensor  # (*lead, E)
    conv_weight: Tensor  # (E, K)
    conv_bias: Tensor | None  # (E,)
    select_weight: Tensor  # (R + 2 N, E)
    A: Tensor  # (E, N)
    D: Tensor | None  # (E,)
    z: Tensor | None  # (*lead, E)
    delta_bias: Tensor | None  # (E,)
    delta_weight: Tensor | None  # (E, R)

    def conv(self) -> ConvTensors:
        """Return what the convolution reads."""
        return ConvTensors(self.x, self.conv_weight, self.conv_bias)

    def scan(self, u: Tensor, selected: Tensor) -> ScanTensors:
        """Return what the scan reads; delta, B and C are parts of what was selected."""
        states = self.A.shape[1]
        sizes = [selected.shape[-1] - 2 * states, states, states]
        delta, B, C = torch.split(selected, sizes, dim=-1)
        rest = (self.D, self.z, self.delta_bias, self.delta_weight)
        return ScanTensors(u, delta, self.A, B, C, *rest)


class ScanWeights(NamedTuple):
    """What one of the scans of `cross_scan` has of its own."""

    select_weight: Tensor  # (R + 2 N, E)
    A: Tensor  # (E, N)
    D: Tensor | None = None  # (E,)
    delta_bias: Tensor | None = None  # (E,)
    delta_weight: Tensor | None = None  # (E, R)
    conv_weight: Tensor | None = None  # (E, K)
    conv_bias: Tensor | None = None  # (E,)

    def ssm(self, x: Tensor) -> SSMTensors:
        """Return what `selective_ssm` reads; there must be a convolution."""
        weight: Any = self.conv_weight
        rest = (self.D, None, self.delta_bias, self.delta_weight)
        return SSMTensors(x, weight, self.conv_bias, self.select_weight, self.A, *rest)

    def reads(self, u: Tensor, selected: Tensor) -> ScanTensors:
        """Return what the scan reads; delta, B and C are parts of what was selected."""
        states = self.A.shape[-1]
        sizes = [selected.shape[-1] - 2 * states, states, states]
        delta, B, C = torch.split(selected, sizes, dim=-1)
        rest = (self.D, None, self.delta_bias, self.delta_weight)
        return ScanTensors(u, delta, self.A, B, C, *rest)


_Tensors = TypeVar("_Tensors", ScanTensors, ConvTensors)


def state_dtype(signal: Tensor) -> torch.dtype:
    """Return the dtype that everything is computed in."""
    return torch.float64 if signal.dtype == torch.float64 else torch.float32


def converted(tensors: _Tensors, dtype: torch.dtype) -> _Tensors:
    """Return all tensors in one dtype."""
    changed: Any = [None if each is None else each.to(dtype) for each in tensors]
    return type(tensors)(*changed)


def as_arguments(gradients: _Tensors, arguments: _Tensors) -> _Tensors:
    """Give each gradient its argument's dtype, and leave out those of arguments that are None."""
    changed: Any = [
        None if gradient is None or argument is None else _in_dtype(gradient, argument.dtype)
        for gradient, argument in zip(gradients, arguments, strict=True)
    ]
    return type(arguments)(*changed)


def _in_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype is dtype else tensor.to(dtype)  # the call costs, too


class DifferentiableKernels(Protocol):
    """What a backend's module provides that is made of operations which autograd knows.

    Arguments arrive checked: one device, one floating dtype, `delta` of all channels.
    """

    def selective_scan(self, tensors: ScanTensors, walk: Walk) -> Tensor:
        """Scan, as `tsm2.kernels.selective_scan` defines it."""
        ...

    def causal_conv(self, tensors: ConvTensors, walk: Walk, silu: bool) -> Tensor:
        """Convolve, as `tsm2.kernels.causal_conv` defines it."""
        ...


class FusedKernels(Protocol):
    """What a backend's module provides that computes gradients itself; `fused` does the rest.

    Arguments arrive checked: one device, any floating dtypes. A `delta_weight` comes only to a
    backend that takes steps of that rank. Outputs are new and contiguous, in the dtype of the
    signal; gradients are so too, each in the shape and dtype of its argument, and None for None.
    """

    def scan_forward(
        self, tensors: ScanTensors, walk: Walk, keep_states: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the output and, if asked, the states that the backward pass starts from.

        These are h before tokens 16, 32, ... of each walk, (sequences, chunks - 1, N, E), the
        sequences in row-major order of the batch axes; else an empty tensor, (0,).
        """
        ...

    def scan_backward(
        self, tensors: ScanTensors, walk: Walk, dout: Tensor, states: Tensor
    ) -> ScanTensors:
        """Return the gradients."""
        ...

    def conv_forward(self, tensors: ConvTensors, walk: Walk, silu: bool) -> Tensor:
        """Convolve."""
        ...

    def conv_backward(
        self, tensors: ConvTensors, walk: Walk, silu: bool, dout: Tensor
    ) -> ConvTensors:
        """Return the gradients."""
        ...


class StackingKernels(Protocol):
    """What a backend's module provides, too, if it runs several walks in one launch.

    The walks go over the same axes. All tensors have an axis in front with an entry for each walk;
    that of the signal has one entry alone where all walks read the same, and so has its gradient.
    """

    def scans_forward(
        self, tensors: ScanTensors, walks: tuple[Walk, ...], keep_states: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of the outputs, (*lead, E), and the states, those of the walks stacked."""
        ...

    def scans_backward(
        self, tensors: ScanTensors, walks: tuple[Walk, ...], dout: Tensor, states: Tensor
    ) -> ScanTensors:
        """Return the gradients."""
        ...

    def convs_forward(self, tensors: ConvTensors, walks: tuple[Walk, ...], silu: bool) -> Tensor:
        """Return the outputs, stacked."""
        ...

    def convs_backward(
        self, tensors: ConvTensors, walks: tuple[Walk, ...], silu: bool, dout: Tensor
    ) -> ConvTensors:
        """Return the gradients."""
        ...
