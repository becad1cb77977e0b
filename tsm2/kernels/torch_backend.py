"""The kernels in PyTorch alone, for every device and both precisions.

    d[t] = softplus(delta[t] + delta_bias)      a[t] = exp(d[t] A)      v[t] = d[t] u[t]
    h[t] = a[t] h[t-1] + B[t] v[t]              y[t] = C[t] h[t] + D u[t]

With `dq` for the gradient of the loss by q, and g for that of h:

    g[t]  = C[t] dy[t] + a[t+1] g[t+1]          r[t] = a[t] g[t] h[t-1]
    dv[t] = B[t] g[t]                           dd[t] = dv[t] u[t] + sum over N of r[t] A
    dB[t] = v[t] g[t]       dC[t] = h[t] dy[t]  dA = sum over t of d[t] r[t]

Only the recurrence itself goes token by token, one operation each; all else is done for a chunk of
tokens at once, in buffers that are used again. The backward pass starts each chunk from the h that
was kept and recomputes the others. Decays are at most 1 and only multiplied, never divided.

Sizes: T tokens, S sequences, E channels, N states per channel, K taps. Signals are read as views
(T, S, E), in the order in which they lie; a reversed walk counts down.
Source: Gu & Dao (2023), arXiv:2312.00752, section 3.3 (recomputation) and algorithm 2.
"""

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from tsm2.kernels.fused import STATE_STEPS

__all__ = ["conv_backward", "conv_forward", "scan_backward", "scan_forward"]

_WORK_FLOATS = {"cpu": 1 << 20}
"""Elements of a work buffer: on a CPU it should stay in the cache, elsewhere keep a device busy."""
_WORK_FLOATS_ELSEWHERE = 1 << 26
_LONGEST_CHUNK = 8 * STATE_STEPS


# --- the order of tokens ----------------------------------------------------------------------


class _Walk:
    """Tokens of some scan axes as the first axis of a view, (T, S, channels)."""

    def __init__(self, signal: Tensor, axes: tuple[int, ...], reverse: bool) -> None:
        lead = signal.shape[:-1]
        batch = [axis for axis in range(len(lead)) if axis not in axes]
        self._order = (*axes, *batch)
        self._sizes = tuple(lead[axis] for axis in self._order)
        self.length = prod(lead[axis] for axis in axes)
        self.sequences = prod(lead[axis] for axis in batch)
        self.reverse = reverse

    def tokens(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Return (T, S, channels), a view where the strides allow it."""
        front = tensor.to(dtype).permute(*self._order, -1)
        return front.reshape(self.length, self.sequences, tensor.shape[-1])

    def restored(self, tokens: Tensor) -> Tensor:
        """Return (*lead, channels), contiguous: the inverse of `tokens`."""
        places = [self._order.index(axis) for axis in range(len(self._order))]
        return tokens.reshape(*self._sizes, tokens.shape[-1]).permute(*places, -1).contiguous()

    def chunks(self, steps: int) -> Iterator[tuple[int, slice]]:
        """Cut the tokens into chunks: how many come before, and where they lie."""
        for start in range(0, self.length, steps):
            end = min(start + steps, self.length)
            if self.reverse:
                yield start, slice(self.length - end, self.length - start)
            else:
                yield start, slice(start, end)

    def within(self, tokens: int) -> Sequence[int]:
        """Return the positions in a chunk, in the order of the walk."""
        return range(tokens)[:: -1 if self.reverse else 1]


def _work_sizes(walk: _Walk, per_sequence: int, device: torch.device) -> tuple[list[slice], int]:
    """Cut the sequences into groups and choose the tokens in a chunk, to fit the work buffers."""
    budget = _WORK_FLOATS.get(device.type, _WORK_FLOATS_ELSEWHERE)
    size = max(1, budget // max(1, STATE_STEPS * per_sequence))
    groups = [slice(first, first + size) for first in range(0, walk.sequences, size)]
    kept_in_chunk = budget // max(1, STATE_STEPS * min(size, walk.sequences) * per_sequence)
    return groups, min(max(1, kept_in_chunk) * STATE_STEPS, _LONGEST_CHUNK)


def _state_dtype(signal: Tensor) -> torch.dtype:
    return torch.float64 if signal.dtype == torch.float64 else torch.float32


# --- scan -------------------------------------------------------------------------------------


def scan_forward(
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
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    """Scan, and keep the states before every chunk but the first."""
    walk, dtype = _Walk(u, axes, reverse), _state_dtype(u)
    signal, B, C = (walk.tokens(each, dtype) for each in (u, B, C))
    d = _softplus(walk.tokens(delta, dtype), delta_bias)
    v, A = d * signal, A.to(dtype)
    channels, states = A.shape
    borders = max(0, (walk.length - 1) // STATE_STEPS)
    kept = v.new_empty((walk.sequences, borders, states, channels) if keep_states else (0,))
    y = torch.empty_like(v)
    groups, steps = _work_sizes(walk, channels * states, u.device)
    for group in groups:
        h = v.new_zeros(len(v[0, group]) if walk.length else 0, channels, states)
        a_buffer = v.new_empty(steps, *h.shape)
        h_buffer = torch.empty_like(a_buffer)
        for start, chunk in walk.chunks(steps):
            tokens = chunk.stop - chunk.start
            a, hs = a_buffer[:tokens], h_buffer[:tokens]
            torch.mul(d[chunk, group, :, None], A, out=a).exp_()
            torch.mul(v[chunk, group, :, None], B[chunk, group, None], out=hs)
            for place, t in enumerate(walk.within(tokens), start):
                if keep_states and place and place % STATE_STEPS == 0:
                    kept[group, place // STATE_STEPS - 1] = h.transpose(1, 2)
                h = hs[t].addcmul_(a[t], h)
            y[chunk, group] = (hs @ C[chunk, group, :, None]).squeeze(-1)
            h = h.clone()  # the buffer is used again
    if D is not None:
        y.addcmul_(signal, D.to(dtype))
    if z is not None:
        y.mul_(functional.silu(walk.tokens(z, dtype)))
    return walk.restored(y).to(u.dtype), kept


def scan_backward(
    dout: Tensor,
    states: Tensor,
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
) -> tuple[Tensor | None, ...]:
    """Find all gradients, from the last chunk to the first."""
    arguments = (u, delta, A, B, C, D, z, delta_bias)
    walk, dtype = _Walk(u, axes, reverse), _state_dtype(u)
    signal, delta, B, C = (walk.tokens(each, dtype) for each in (u, delta, B, C))
    A = A.to(dtype)
    skip = A.new_zeros(len(A)) if D is None else D.to(dtype)
    d = _softplus(delta, delta_bias)
    v, dy, y = d * signal, walk.tokens(dout, dtype), None
    if z is not None:
        gate = walk.tokens(z, dtype)
        dy, y = dy * functional.silu(gate), torch.empty_like(v)
    dv, decay = torch.empty_like(v), torch.empty_like(v)  # decay: dd without the part by u
    dB, dC = (each.new_empty(each.shape) for each in (B, C))
    dA = torch.zeros_like(A)
    groups, steps = _work_sizes(walk, A.numel(), u.device)
    for group in groups:
        dA += _scan_group_backward(
            walk, steps, group, A, states, d, v, dy, B, C, y=y, dv=dv, decay=decay, dB=dB, dC=dC
        )

    slope = torch.sigmoid(delta if delta_bias is None else delta + delta_bias)
    ddelta = torch.addcmul(decay, dv, signal).mul_(slope)
    dz = None
    if y is not None and z is not None:
        dsilu = torch.ops.aten.silu_backward(walk.tokens(dout, dtype), walk.tokens(z, dtype))
        dz = walk.restored(y.addcmul_(signal, skip).mul_(dsilu))
    gradients = (
        walk.restored(torch.addcmul(dv.mul_(d), dy, skip)),
        walk.restored(ddelta),
        dA,
        walk.restored(dB),
        walk.restored(dC),
        (dy * signal).sum((0, 1)),
        dz,
        ddelta.sum((0, 1)),
    )
    return _as_arguments(gradients, arguments)


def _scan_group_backward(
    walk: _Walk,
    steps: int,
    group: slice,
    A: Tensor,
    states: Tensor,
    d: Tensor,
    v: Tensor,
    dy: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    y: Tensor | None,
    dv: Tensor,
    decay: Tensor,
    dB: Tensor,
    dC: Tensor,
) -> Tensor:
    """Fill y, dv, decay, dB and dC for some sequences, and return their part of dA."""
    dA = torch.zeros_like(A)
    a_buffer = v.new_empty(steps, len(states[group]), *A.shape)
    g_buffer = torch.empty_like(a_buffer)
    h_buffer = v.new_empty(steps + 1, *a_buffer.shape[1:])
    carry = torch.zeros_like(a_buffer[0])  # a[t+1] g[t+1] of the chunk behind
    for start, chunk in reversed(list(walk.chunks(steps))):
        tokens = chunk.stop - chunk.start
        order = walk.within(tokens)
        a, g = a_buffer[:tokens], g_buffer[:tokens]
        h, before = h_buffer[1 : tokens + 1], h_buffer[:tokens]  # h[t] and h[t-1], by place
        if walk.reverse:
            h, before = before, h
        border = start // STATE_STEPS
        before[order[0]] = states[group, border - 1].transpose(1, 2) if start else 0.0
        torch.mul(d[chunk, group, :, None], A, out=a).exp_()
        torch.mul(v[chunk, group, :, None], B[chunk, group, None], out=h)
        for t in order:
            h[t].addcmul_(a[t], before[t])

        if y is not None:
            y[chunk, group] = (h @ C[chunk, group, :, None]).squeeze(-1)
        dC[chunk, group] = (dy[chunk, group, None] @ h).squeeze(-2)
        torch.mul(dy[chunk, group, :, None], C[chunk, group, None], out=g)
        g[order[-1]] += carry
        for later, t in zip(order[:0:-1], order[-2::-1], strict=True):
            g[t].addcmul_(a[later], g[later])
        dB[chunk, group] = (v[chunk, group, None] @ g).squeeze(-2)
        dv[chunk, group] = (g @ B[chunk, group, :, None]).squeeze(-1)
        g.mul_(a)
        carry = g[order[0]].clone()
        g.mul_(before)  # r
        torch.mul(g, A, out=a)
        decay[chunk, group] = a.sum(-1)
        dA += g.mul_(d[chunk, group, :, None]).sum((0, 1))
    return dA


def _softplus(delta: Tensor, delta_bias: Tensor | None) -> Tensor:
    """log(1 + e^x), exact in double precision too: torch's own threshold is 20."""
    x = delta if delta_bias is None else delta + delta_bias.to(delta.dtype)
    return functional.softplus(x, threshold=40.0)


def _as_arguments(
    gradients: Sequence[Tensor | None], arguments: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Give each gradient its argument's dtype, and leave out those of arguments that are None."""
    return tuple(
        None if gradient is None or argument is None else gradient.to(argument.dtype)
        for gradient, argument in zip(gradients, arguments, strict=True)
    )


# --- convolution ------------------------------------------------------------------------------


def conv_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: tuple[int, ...],
    reverse: bool,
    silu: bool,
) -> Tensor:
    """Convolve."""
    walk, dtype = _Walk(x, axes, reverse), _state_dtype(x)
    p = _convolved(walk.tokens(x, dtype), weight.to(dtype), bias, reverse)
    return walk.restored(functional.silu(p) if silu else p).to(x.dtype)


def conv_backward(
    dout: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: tuple[int, ...],
    reverse: bool,
    silu: bool,
) -> tuple[Tensor | None, ...]:
    """Find the gradients of x, weight and bias."""
    walk, dtype = _Walk(x, axes, reverse), _state_dtype(x)
    signal, dp = walk.tokens(x, dtype), walk.tokens(dout, dtype)
    taps = weight.to(dtype)
    if silu:
        dp = torch.ops.aten.silu_backward(dp, _convolved(signal, taps, bias, reverse))
    dx = _convolved(dp, taps, None, not reverse)
    dW = torch.stack(
        [
            (late * early).sum((0, 1))
            for late, early in _shifted(dp, signal, len(taps.t()), reverse)
        ],
        -1,
    ).flip(-1)
    return _as_arguments((walk.restored(dx), dW, dp.sum((0, 1))), (x, weight, bias))


def _convolved(tokens: Tensor, taps: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """Sum the taps, (T, S, E); tokens before the first count as zero."""
    y = tokens * taps[:, -1]
    if bias is not None:
        y += bias
    n_taps = taps.shape[1]
    for k, (late, early) in enumerate(_shifted(y, tokens, n_taps, reverse)):
        if k:
            late.addcmul_(early, taps[:, n_taps - 1 - k])
    return y


def _shifted(
    late: Tensor, early: Tensor, n_taps: int, reverse: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pair the tokens of one tensor with those k places back in another, for every tap k."""
    length = len(late)
    for k in range(n_taps):
        back, front = slice(min(k, length), length), slice(0, max(0, length - k))
        yield (late[front], early[back]) if reverse else (late[back], early[front])
