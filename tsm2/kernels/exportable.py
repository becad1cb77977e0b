"""The kernels for torch.export and ONNX: forward only, in operators that an exporter knows.

    h[t] = exp(d[t] A) h[t-1] + d[t] B[t] u[t]        y[t] = C[t] h[t]

A loop in Python would be unrolled to the number of tokens of the example, and be wrong for any
other, so the recurrence is torch's own `scan` operator. Sizes of all axes may stay open.

Sizes: T tokens, * batch axes, E channels, N states per channel, K taps.
Source: as `tsm2.kernels.reference`, which defines the results.
"""

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan
from torch.nn import functional

__all__ = ["causal_conv", "selective_scan"]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    axes: tuple[int, ...],
    reverse: bool,
) -> Tensor:
    """Scan; see `tsm2.kernels.selective_scan`."""
    step = functional.softplus(delta if delta_bias is None else delta + delta_bias, threshold=40.0)
    tokens = [_tokens_first(each, axes) for each in (step, step * u, B, C)]
    first = tokens[0][0]  # (*, E)

    def advance(h: Tensor, token: list[Tensor]) -> tuple[Tensor, Tensor]:
        d, v, b, c = token
        h = torch.exp(d[..., None] * A) * h + v[..., None] * b[..., None, :]  # (*, E, N)
        return h, (h * c[..., None, :]).sum(-1)

    start = first.new_zeros(1) * first[..., None] * A
    _, outputs = scan(advance, start, tokens, reverse=reverse)
    y = _tokens_back(outputs, u, axes)
    y = y if D is None else y + D * u
    return y if z is None else y * functional.silu(z)


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: tuple[int, ...],
    reverse: bool,
    silu: bool,
) -> Tensor:
    """Convolve; see `tsm2.kernels.causal_conv`."""
    tokens, taps = _tokens_first(x, axes), weight.shape[1]  # (T, *, E)
    around = (0, taps - 1) if reverse else (taps - 1, 0)
    padded = functional.pad(tokens, (0, 0) * (tokens.ndim - 1) + around)
    kernel = weight.flip(-1) if reverse else weight
    windows = [padded.narrow(0, k, tokens.shape[0]) * kernel[:, k] for k in range(taps)]
    y = _tokens_back(torch.stack(windows).sum(0), x, axes)
    y = y if bias is None else y + bias
    return functional.silu(y) if silu else y


def _tokens_first(tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return (T, *, channels)."""
    return tensor.movedim(axes, tuple(range(len(axes)))).flatten(0, len(axes) - 1)


def _tokens_back(tokens: Tensor, like: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return (*lead, channels): the inverse of `_tokens_first`."""
    front = tokens.reshape(*(like.shape[axis] for axis in axes), *tokens.shape[1:])
    return front.movedim(tuple(range(len(axes))), axes).contiguous()
