"""The definition of both kernels: plain loops in PyTorch, any floating dtype, autograd.

    d[t] = softplus(delta[t] + delta_bias)
    h[t] = exp(d[t] A) h[t-1] + d[t] B[t] u[t]        h[0] = 0 before the first token
    y[t] = (C[t] h[t] + D u[t]) * silu(z[t])

    p[t] = bias + sum_k weight[K-1-k] x[t-k]          y[t] = silu(p[t]) or p[t]

t walks over the tokens of the scan axes, the last named axis fastest; `reverse` walks back.
Sizes: T tokens, * batch axes, E channels, N states per channel, K taps.
The loops take slices with `unbind`: the backward pass of an index `x[t]` writes a zero tensor of
the size of x, which makes training quadratic in T.
Source: Gu & Dao (2023), arXiv:2312.00752, section 3.2, algorithm 2, with their released code's
Euler rule for B, D skip and gate.
"""

import torch
from torch import Tensor
from torch.nn.functional import silu as silu_of

from tsm2.kernels.interface import ConvTensors, ScanTensors, Walk

__all__ = ["causal_conv", "selective_scan"]


def selective_scan(tensors: ScanTensors, walk: Walk) -> Tensor:
    """Scan token by token; see `tsm2.kernels.selective_scan`."""
    u, delta, A, B, C, D, z, delta_bias, _ = tensors
    delta = delta if delta_bias is None else delta + delta_bias
    step = torch.logaddexp(delta, delta.new_zeros(()))  # softplus without torch's threshold at 20
    tokens = zip(*(_tokens(each, walk) for each in (step, step * u, B, C)), strict=True)
    h = torch.zeros((), dtype=u.dtype, device=u.device)
    outputs = []
    for d, du, b, c in tokens:
        h = torch.exp(d[..., None] * A) * h + du[..., None] * b[..., None, :]  # (*, E, N)
        outputs.append((h * c[..., None, :]).sum(-1))  # (*, E)
    y = _untoken(outputs, u, walk)
    if D is not None:
        y = y + D * u
    if z is not None:
        y = y * silu_of(z)
    return y


def causal_conv(tensors: ConvTensors, walk: Walk, silu: bool) -> Tensor:
    """Convolve token by token; see `tsm2.kernels.causal_conv`."""
    x, weight, bias = tensors
    tokens = _tokens(x, walk)
    taps = weight.flip(-1).unbind(-1)  # taps[k] meets the token k places back
    start = torch.zeros_like(weight[:, 0]) if bias is None else bias
    outputs = []
    for t in range(len(tokens)):
        seen = zip(taps, reversed(tokens[: t + 1]), strict=False)
        outputs.append(sum((tap * token for tap, token in seen), start=start))
    y = _untoken(outputs, x, walk)
    return silu_of(y) if silu else y


def _tokens(tensor: Tensor, walk: Walk) -> tuple[Tensor, ...]:
    """Cut a tensor into its tokens, each (*, channels), in the order of the walk."""
    tokens = walk.unroll(tensor).unbind(0)
    return tokens[::-1] if walk.reverse else tokens


def _untoken(tokens: list[Tensor], like: Tensor, walk: Walk) -> Tensor:
    """Put tokens back to their places: the inverse of `_tokens`."""
    if not tokens:
        return like.clone(memory_format=torch.contiguous_format)  # as empty as the output
    return walk.roll_up(torch.stack(tokens[::-1] if walk.reverse else tokens), like)
