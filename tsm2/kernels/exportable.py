"""The kernels for torch.export and ONNX: forward only, in operators that an exporter knows.

A loop in Python would be unrolled to the number of tokens of the example, and be wrong for any
other, so the recurrence is torch's own `scan` operator, and so is any other loop, see `repeated`.
Sizes of all axes may stay open.

Sizes and formulas: as in `tsm2.kernels.interface`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan_op
from torch.nn import functional

from tsm2.kernels.interface import ConvTensors, ScanTensors, Walk

__all__ = ["causal_conv", "repeated", "selective_scan"]


def selective_scan(tensors: ScanTensors, walk: Walk) -> Tensor:
    """Scan; see `tsm2.kernels.selective_scan`."""
    u, delta, A, B, C, D, z, delta_bias, _ = tensors
    step = functional.softplus(delta if delta_bias is None else delta + delta_bias, threshold=40.0)
    tokens = [walk.unroll(each) for each in (step, step * u, B, C)]
    if walk.reverse:
        tokens = [each.flip(0) for each in tokens]
    first = tokens[0][0]  # (*, E)
    start = first.new_zeros(1) * first[..., None] * A
    length = tokens[0].shape[0]
    if isinstance(length, int) and length == 1:  # nothing is walked
        d, v, b, c = (each[0] for each in tokens)
        outputs = _advance(start, d, v, b, c, A)[1][None]
    else:
        _, outputs = scan_op(_advance, (start,), tuple(tokens), (A,))
    if walk.reverse:
        outputs = outputs.flip(0)
    y = walk.roll_up(outputs, u)
    y = y if D is None else y + D * u
    return y if z is None else y * functional.silu(z)


def _advance(
    h: Tensor, d: Tensor, v: Tensor, b: Tensor, c: Tensor, A: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the state after one token, (*, E, N), and what is read from it, (*, E)."""
    h = torch.exp(d[..., None] * A) * h + v[..., None] * b[..., None, :]
    return h, (h * c[..., None, :]).sum(-1)


def causal_conv(tensors: ConvTensors, walk: Walk, silu: bool) -> Tensor:
    """Convolve; see `tsm2.kernels.causal_conv`."""
    x, weight, bias = tensors
    tokens, taps = walk.unroll(x), weight.shape[1]  # (T, *, E)
    around = (0, taps - 1) if walk.reverse else (taps - 1, 0)
    padded = functional.pad(tokens, (0, 0) * (tokens.ndim - 1) + around)
    kernel = weight.flip(-1) if walk.reverse else weight
    windows = [padded.narrow(0, k, tokens.shape[0]) * kernel[:, k] for k in range(taps)]
    y = walk.roll_up(torch.stack(windows).sum(0), x)
    y = y if bias is None else y + bias
    return functional.silu(y) if silu else y


def repeated(
    step: Callable[..., tuple[Tensor, Tensor]], state: Tensor, count: int, given: tuple[Tensor, ...]
) -> Tensor:
    """Repeat a step; see `tsm2.kernels.exporting.repeated`."""

    def numbered(state: Tensor, _: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        return step(state, *given)

    numbers = torch.zeros(count, device=state.device)
    found: Tensor = scan_op(numbered, (state,), (numbers,), given)[1]
    return found
