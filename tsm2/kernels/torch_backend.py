"""The backend for every device PyTorch knows: a chunk of tokens at a time, gradients by hand.

The formulas are those of `tsm2.kernels.interface`.

Sizes: T tokens, S sequences, E channels, N states per channel, K taps; a block has s sequences, a
chunk n tokens. Tokens stay in the order in which they are stored; a reversed walk takes them from
the last. What has a value for every state, (n, s, N, E), exists for one chunk of one block, in
buffers that stay in the cache. One operation takes all states of a block one token further,
everything else is done for a whole chunk. The forward pass keeps h every 16 tokens, the backward
pass recomputes the h in between. Both kernels and both passes share one layout, hence one file.
Source: Gu & Dao (2023), arXiv:2312.00752, section 3.3 (recomputation) and algorithm 2.
"""

# ruff: noqa: N815 (fields are named as in the formulas)

from collections.abc import Iterator
from dataclasses import dataclass
from math import log, prod
from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.nn.functional import silu as silu_of

from tsm2.kernels.interface import (
    STATE_STEPS,
    ConvTensors,
    ScanTensors,
    Walk,
    as_arguments,
    state_dtype,
)

__all__ = ["conv_backward", "conv_forward", "scan_backward", "scan_forward"]

FLOOR = -64.0
"""Least exponent of a decay, a power of two: nothing beside 1, yet never a denormal number, which
many processors multiply slowly."""

CPU_ROOM, DEVICE_ROOM = 2**19, 2**24
"""Numbers in a buffer: for each thread of a CPU, to fit its cache; elsewhere to be worth a launch.
On a CPU a quarter or four times as much costs up to a third."""


# --- the layout -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """Where the tokens of a walk are, and how many are worked on at a time."""

    walk: Walk
    batch: tuple[int, ...]  # sizes of the lead axes that are not scanned
    scanned: tuple[int, ...]  # sizes of the scan axes, the fastest last
    tokens: int
    sequences: int
    dtype: torch.dtype  # of the state
    room: int  # numbers in a buffer

    def signal(self, tensor: Tensor) -> Tensor:
        """Bring (*lead, C) to (T, S, C), a view where the strides allow it."""
        rows = tensor.movedim(self.walk.axes, self._last_axes)  # (*batch, *scanned, C)
        return rows.reshape(self.sequences, self.tokens, tensor.shape[-1]).transpose(0, 1)

    def empty_like(self, tensor: Tensor) -> Tensor:
        """Make room for a result of the size of (*lead, C), as (T, S, C), for `restore`."""
        return tensor.new_empty(self.sequences, self.tokens, tensor.shape[-1]).transpose(0, 1)

    def restore(self, result: Tensor) -> Tensor:
        """Bring what `empty_like` made to (*lead, C), contiguous."""
        rows = result.transpose(0, 1).view(*self.batch, *self.scanned, result.shape[-1])
        return rows.movedim(self._last_axes, self.walk.axes).contiguous()

    @property
    def _last_axes(self) -> tuple[int, ...]:
        return tuple(range(-1 - len(self.walk.axes), -1))

    def read(self, signal: Tensor, rows: slice) -> Tensor:
        """Take a block of sequences, (T, s, C), contiguous, in the dtype of the state."""
        return signal[:, rows].to(self.dtype).contiguous()

    def blocks(self, size: int) -> Iterator[slice]:
        """Cut the sequences into blocks."""
        for start in range(0, self.sequences, size):
            yield slice(start, start + size)

    def chunks(self, size: int) -> Iterator[tuple[int, slice]]:
        """Cut the walk: how many tokens come before each chunk, and where its own are stored."""
        for start in range(0, self.tokens, size):
            stop = min(start + size, self.tokens)
            if self.walk.reverse:
                yield start, slice(self.tokens - stop, self.tokens - start)
            else:
                yield start, slice(start, stop)

    def in_order(self, chunk: Tensor) -> tuple[Tensor, ...]:
        """Take the tokens of a chunk one by one, in the order of the walk."""
        return chunk.unbind(0)[::-1] if self.walk.reverse else chunk.unbind(0)


def _lay_out(signal: Tensor, walk: Walk) -> _Layout:
    lead = signal.shape[:-1]
    batch = tuple(size for axis, size in enumerate(lead) if axis not in walk.axes)
    scanned = tuple(lead[axis] for axis in walk.axes)
    on_cpu = signal.device.type == "cpu"
    return _Layout(
        walk=walk,
        batch=batch,
        scanned=scanned,
        tokens=prod(scanned),
        sequences=prod(batch),
        dtype=state_dtype(signal),
        room=CPU_ROOM * torch.get_num_threads() if on_cpu else DEVICE_ROOM,
    )


# --- scan -------------------------------------------------------------------------------------


class _Block(NamedTuple):
    """What both passes read of a block of sequences."""

    rows: slice
    u: Tensor  # (T, s, E)
    x: Tensor
    dt: Tensor
    v: Tensor
    B: Tensor  # (T, s, N)
    C: Tensor


@final
class _Recurrence:
    """The way from token to token in both passes, and the buffers it needs."""

    def __init__(self, layout: _Layout, tensors: ScanTensors) -> None:
        self.layout = layout
        u, delta, A, B, C, _, _, bias, _ = tensors
        self.signals = [layout.signal(each) for each in (u, delta, B, C)]
        self.delta_bias = None if bias is None else bias.to(layout.dtype)
        self.A = A.t().to(layout.dtype).contiguous()  # (N, E)
        self.rates = self.A / log(2)  # for exp2: exp is slow on some processors
        # As many sequences as fit with 16 tokens each; if all fit, more tokens of them.
        least = max(1, min(STATE_STEPS, layout.tokens))
        fitting = max(1, layout.room // max(1, least * A.numel()))
        self.size = max(1, min(fitting, layout.sequences))
        self.steps = max(1, min(fitting // self.size * STATE_STEPS, layout.tokens))
        self.a = self.A.new_empty(self.steps * self.size * A.numel())
        self.path = self.A.new_empty((self.steps + 1) * self.size * A.numel())

    def blocks(self) -> Iterator[_Block]:
        """Read the signals, a block of sequences after the other."""
        for rows in self.layout.blocks(self.size):
            u, x, B, C = (self.layout.read(each, rows) for each in self.signals)
            x = x if self.delta_bias is None else x + self.delta_bias
            dt = torch.logaddexp(x, x.new_zeros(()))  # softplus without torch's threshold at 20
            yield _Block(rows, u, x, dt, dt * u, B, C)

    def chunks(self) -> Iterator[tuple[int, slice]]:
        """Cut the walk so that a chunk of a block fits into the buffers."""
        return self.layout.chunks(self.steps)

    def chunk_of(self, buffer: Tensor, block: _Block, tokens: int) -> Tensor:
        """Return the start of a buffer as (tokens, s, N, E)."""
        sizes = (tokens, block.u.shape[1], *self.A.shape)
        return buffer[: prod(sizes)].view(sizes)

    def advance(self, block: _Block, now: slice, h_before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Walk through a chunk; return a[t], h[t] and h[t-1], (n, s, N, E), in the buffers."""
        tokens = now.stop - now.start
        a = self.chunk_of(self.a, block, tokens)
        path = self.chunk_of(self.path, block, tokens + 1)
        h, before = (path[:-1], path[1:]) if self.layout.walk.reverse else (path[1:], path[:-1])
        self.layout.in_order(before)[0].copy_(h_before)
        torch.mul(_each_state(block.dt[now]), self.rates, out=a).clamp_min_(FLOOR).exp2_()
        torch.mul(_each_state(block.v[now]), _each_channel(block.B[now]), out=h)
        for h_t, a_t, before_t in zip(*map(self.layout.in_order, (h, a, before)), strict=True):
            h_t.addcmul_(a_t, before_t)
        return a, h, before


def _each_state(signal: Tensor) -> Tensor:
    return signal.unsqueeze(-2)  # (n, s, 1, E)


def _each_channel(weights: Tensor) -> Tensor:
    return weights.unsqueeze(-1)  # (n, s, N, 1)


def _sum_states(left: Tensor, right: Tensor, room: Tensor, out: Tensor) -> None:
    """Sum a product over the states, to (n, s, E). A matrix product may round to fewer digits."""
    torch.sum(torch.mul(left, right, out=room), -2, out=out)


def _sum_channels(left: Tensor, right: Tensor, room: Tensor, out: Tensor) -> None:
    """Sum a product over the channels, to (n, s, N)."""
    torch.sum(torch.mul(left, right, out=room), -1, out=out)


def scan_forward(tensors: ScanTensors, walk: Walk, keep_states: bool) -> tuple[Tensor, Tensor]:
    """Return the output, and h before tokens 16, 32, ... of the walk, (S, ., N, E)."""
    u, D, z = tensors.u, tensors.D, tensors.z
    layout = _lay_out(u, walk)
    scan = _Recurrence(layout, tensors)
    gate = None if z is None else layout.signal(z)
    out = layout.empty_like(u)
    n_kept = max(0, -(-layout.tokens // STATE_STEPS) - 1)
    kept = scan.A.new_empty((layout.sequences, n_kept, *scan.A.shape) if keep_states else 0)
    for block in scan.blocks():
        y = torch.empty_like(block.u)
        h_now = y.new_zeros(())
        for start, now in scan.chunks():
            a, h, _ = scan.advance(block, now, h_now)
            _sum_states(h, _each_channel(block.C[now]), a, out=y[now])
            path = layout.in_order(h)
            h_now = path[-1]
            if keep_states:
                borders = range(start // STATE_STEPS, n_kept)
                last_before = path[STATE_STEPS - 1 :: STATE_STEPS]
                for border, state in zip(borders, last_before, strict=False):
                    kept[block.rows, border] = state
        if D is not None:
            y.addcmul_(block.u, D.to(layout.dtype))
        if gate is not None:
            y.mul_(silu_of(layout.read(gate, block.rows)))
        out[:, block.rows] = y
    return layout.restore(out), kept


class _Sums(NamedTuple):
    """What the states of a block give to the gradients, and y without the direct path."""

    y: Tensor  # (T, s, E)
    dv: Tensor
    ddt: Tensor
    dB: Tensor  # (T, s, N)
    dC: Tensor
    dA: Tensor  # (N, E)


def _retrace(scan: _Recurrence, block: _Block, dy: Tensor, kept: Tensor, room: Tensor) -> _Sums:
    """Walk back through a block, the last chunk first."""
    y, dv, ddt, dB, dC = map(torch.empty_like, (dy, dy, dy, block.B, block.C))
    sums = _Sums(y, dv, ddt, dB, dC, torch.zeros_like(scan.A))
    zero = dy.new_zeros(())
    ag_after = zero  # a[t+1] g[t+1]
    for start, now in reversed([*scan.chunks()]):
        h_before = kept[block.rows, start // STATE_STEPS - 1] if start else zero
        a, h, before = scan.advance(block, now, h_before)
        g = scan.chunk_of(room, block, len(a))
        B, C = _each_channel(block.B[now]), _each_channel(block.C[now])
        dt, v, dy_now = (_each_state(each[now]) for each in (block.dt, block.v, dy))
        _sum_states(h, C, g, out=sums.y[now])
        _sum_channels(h, dy_now, g, out=sums.dC[now])

        torch.mul(C, dy_now, out=g)
        way_back, a_back = scan.layout.in_order(g)[::-1], scan.layout.in_order(a)[::-1]
        way_back[0].add_(ag_after)
        for g_t, g_after, a_after in zip(way_back[1:], way_back[:-1], a_back[:-1], strict=True):
            g_t.addcmul_(a_after, g_after)
        ag_after = a_back[-1] * way_back[-1]

        r = before.mul_(a).mul_(g)  # from here on a is free
        _sum_channels(g, v, a, out=sums.dB[now])
        _sum_states(g, B, a, out=sums.dv[now])
        _sum_states(r, scan.A, a, out=sums.ddt[now])
        sums.dA.add_(r.mul_(dt).sum((0, 1)))
    return sums


def scan_backward(tensors: ScanTensors, walk: Walk, dout: Tensor, states: Tensor) -> ScanTensors:
    """Return the gradients."""
    u, delta, A, B, C, D, z, *_ = tensors
    layout = _lay_out(u, walk)
    scan = _Recurrence(layout, tensors)
    upstream, gate = layout.signal(dout), None if z is None else layout.signal(z)
    du, ddelta, dB, dC = (layout.empty_like(each) for each in (u, delta, B, C))
    dz = None if z is None else layout.empty_like(z)
    dA, dD = torch.zeros_like(scan.A), scan.A.new_zeros(A.shape[0])
    ddelta_bias = torch.zeros_like(dD)
    room = torch.empty_like(scan.a)
    for block in scan.blocks():
        dout_block = layout.read(upstream, block.rows)
        z_block = None if gate is None else layout.read(gate, block.rows)
        dy = dout_block if z_block is None else silu_of(z_block).mul_(dout_block)
        sums = _retrace(scan, block, dy, states, room)
        dx = sums.ddt.addcmul_(sums.dv, block.u).mul_(block.x.sigmoid())
        du_block = sums.dv.mul_(block.dt)
        if D is not None:
            du_block.addcmul_(dy, D.to(layout.dtype))
            sums.y.addcmul_(block.u, D.to(layout.dtype))
            dD += (dy * block.u).sum((0, 1))
        if dz is not None and z_block is not None:
            dz[:, block.rows] = _silu_backward(sums.y.mul_(dout_block), z_block)
        du[:, block.rows], ddelta[:, block.rows] = du_block, dx
        dB[:, block.rows], dC[:, block.rows] = sums.dB, sums.dC
        dA += sums.dA
        ddelta_bias += dx.sum((0, 1))
    gradients = ScanTensors(
        u=layout.restore(du),
        delta=layout.restore(ddelta),
        A=dA.t().contiguous(),
        B=layout.restore(dB),
        C=layout.restore(dC),
        D=dD,
        z=None if dz is None else layout.restore(dz),
        delta_bias=ddelta_bias,
    )
    return as_arguments(gradients, tensors)


# --- convolution ------------------------------------------------------------------------------


def conv_forward(tensors: ConvTensors, walk: Walk, silu: bool) -> Tensor:
    """Return the output."""
    x, layout = tensors.x, _lay_out(tensors.x, walk)
    signal, out = layout.signal(x), layout.empty_like(x)
    taps, start = _taps(tensors, layout.dtype)
    for rows in layout.blocks(_rows_that_fit(layout, x)):
        p = _convolve(layout, layout.read(signal, rows), taps, start)
        out[:, rows] = silu_of(p) if silu else p
    return layout.restore(out)


def conv_backward(tensors: ConvTensors, walk: Walk, silu: bool, dout: Tensor) -> ConvTensors:
    """Return the gradients."""
    x, layout = tensors.x, _lay_out(tensors.x, walk)
    signal, upstream, dx = layout.signal(x), layout.signal(dout), layout.empty_like(x)
    taps, start = _taps(tensors, layout.dtype)
    dtaps, dbias = torch.zeros_like(taps), torch.zeros_like(start)
    for rows in layout.blocks(_rows_that_fit(layout, x)):
        x_block, dp = layout.read(signal, rows), layout.read(upstream, rows)
        if silu:
            dp = _silu_backward(dp, _convolve(layout, x_block, taps, start))
        dx_block = torch.zeros_like(dp)
        for k, here, back in _pairs(layout, len(taps)):
            dx_block[back].addcmul_(dp[here], taps[k])
            dtaps[k] += (dp[here] * x_block[back]).sum((0, 1))
        dbias += dp.sum((0, 1))
        dx[:, rows] = dx_block
    gradients = ConvTensors(layout.restore(dx), dtaps.flip(0).t().contiguous(), dbias)
    return as_arguments(gradients, tensors)


def _rows_that_fit(layout: _Layout, x: Tensor) -> int:
    return max(1, layout.room // max(1, layout.tokens * x.shape[-1]))


def _taps(tensors: ConvTensors, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the taps, (K, E), where taps[k] meets the token k back, and the bias, (E,)."""
    _, weight, bias = tensors
    taps = weight.to(dtype).t().flip(0).contiguous()
    return taps, taps.new_zeros(taps.shape[1]) if bias is None else bias.to(dtype)


def _pairs(layout: _Layout, taps: int) -> Iterator[tuple[int, slice, slice]]:
    """Say for each k which tokens have one k back, and which those are."""
    for k in range(min(taps, layout.tokens)):
        later, earlier = slice(k, layout.tokens), slice(0, layout.tokens - k)
        yield (k, earlier, later) if layout.walk.reverse else (k, later, earlier)


def _convolve(layout: _Layout, x: Tensor, taps: Tensor, start: Tensor) -> Tensor:
    """Return p, (T, s, E)."""
    p = start.expand_as(x).clone(memory_format=torch.contiguous_format)
    for k, here, back in _pairs(layout, len(taps)):
        p[here].addcmul_(x[back], taps[k])
    return p


def _silu_backward(dout: Tensor, x: Tensor) -> Tensor:
    dx: Tensor = torch.ops.aten.silu_backward(dout, x)
    return dx
