"""The causal depthwise convolution on the CPU, forward and backward.

    p[t] = bias + sum_k W[k] x[t-k]          out[t] = silu(p[t]) or p[t]
    q[t] = dout[t] silu'(p[t]) or dout[t]    dx[t] = sum_k W[k] q[t+k]
    dW[k] = sum_t q[t] x[t-k]                dbias = sum_t q[t]

W[k] is the weight of the token k places back; tokens outside of the sequence count as zero.
Sizes: E channels, K taps. One task walks through one sequence, a block of channels at a time;
the earlier tokens of a window are still in the fastest cache. The backward pass writes q[t] to
the place of dx[t] and turns it into dx[t] K-1 steps later, when nothing else needs it.
"""

from typing import Any, NamedTuple

from tsm2.kernels.numba_runtime import Rows, row
from tsm2.kernels.numba_vectors import (
    LANES,
    VECTOR_BYTES,
    fill,
    fma,
    inlined,
    load,
    load_lanes,
    sigmoid,
    store,
    store_lanes,
)

__all__ = ["Backward", "Conv", "Forward", "backward", "forward"]

TILES = 16
"""Vectors of channels in a block, at most."""


class Conv(NamedTuple):
    """What both passes read."""

    x: Rows
    weight: int  # W, (K, padded)
    bias: int  # (padded,)
    silu: int
    taps: int
    length: int
    channels: int
    padded: int  # bytes of a row of channels, up to a multiple of a vector
    blocks: int  # in a row


class Forward(NamedTuple):
    """One forward call."""

    conv: Conv
    out: Rows


class Backward(NamedTuple):
    """One backward call."""

    conv: Conv
    dout: Rows
    dx: Rows
    sums: int  # dW and dbias, (slots, K + 1, padded); start as zeros


class Tile(NamedTuple):
    """Sixteen channels of one sequence."""

    sequence: int
    left: int  # bytes of a row before the tile
    lanes: int  # channels from here to the end of the row


@inlined
def convolve(conv: Conv, tile: Tile, t: int) -> Any:
    """Return p[t]."""
    p = load(conv.bias + tile.left)
    for k in range(min(conv.taps, t + 1)):
        x = load_lanes(row(conv.x, tile.sequence, t - k) + tile.left, tile.lanes)
        p = fma(load(conv.weight + k * conv.padded + tile.left), x, p)
    return p


@inlined
def tile_of(conv: Conv, sequence: int, number: int) -> Tile:
    """Find a tile of a sequence."""
    return Tile(sequence, number * VECTOR_BYTES, conv.channels - number * LANES)


@inlined
def forward(call: Forward, workspace: int, slot: int, task: int) -> None:
    """Convolve one block of channels of one sequence."""
    conv = call.conv
    sequence, block = task // conv.blocks, task % conv.blocks
    first, last = block * TILES, min((block + 1) * TILES, conv.padded // VECTOR_BYTES)
    for t in range(conv.length):
        for number in range(first, last):
            tile = tile_of(conv, sequence, number)
            p = convolve(conv, tile, t)
            if conv.silu:
                p = p * sigmoid(p)
            store_lanes(row(call.out, sequence, t) + tile.left, p, tile.lanes)


@inlined
def backward(call: Backward, workspace: int, slot: int, task: int) -> None:
    """Find the gradients of one block of channels of one sequence."""
    conv = call.conv
    sequence, block = task // conv.blocks, task % conv.blocks
    first, last = block * TILES, min((block + 1) * TILES, conv.padded // VECTOR_BYTES)
    for t in range(conv.length + conv.taps - 1):
        for number in range(first, last):
            tile = tile_of(conv, sequence, number)
            if t < conv.length:
                add_weight_gradient(call, tile, slot, t)
            if t >= conv.taps - 1:
                finish_input_gradient(call, tile, t - conv.taps + 1)


@inlined
def add_weight_gradient(call: Backward, tile: Tile, slot: int, t: int) -> None:
    """Write q[t] to the place of dx[t], and add its part to dW and dbias."""
    conv = call.conv
    q = load_lanes(row(call.dout, tile.sequence, t) + tile.left, tile.lanes)
    if conv.silu:
        p = convolve(conv, tile, t)
        s = sigmoid(p)
        q = q * fma(p * s, fill(1.0) - s, s)
    store_lanes(row(call.dx, tile.sequence, t) + tile.left, q, tile.lanes)
    sums = call.sums + slot * (conv.taps + 1) * conv.padded + tile.left
    for k in range(min(conv.taps, t + 1)):
        x = load_lanes(row(conv.x, tile.sequence, t - k) + tile.left, tile.lanes)
        dW = sums + k * conv.padded
        store(dW, fma(q, x, load(dW)))
    dbias = sums + conv.taps * conv.padded
    store(dbias, load(dbias) + q)


@inlined
def finish_input_gradient(call: Backward, tile: Tile, t: int) -> None:
    """Replace q[t] by dx[t]; the q behind it are still there."""
    conv = call.conv
    dx = fill(0.0)
    for k in range(min(conv.taps, conv.length - t)):
        q = load_lanes(row(call.dx, tile.sequence, t + k) + tile.left, tile.lanes)
        dx = fma(load(conv.weight + k * conv.padded + tile.left), q, dx)
    store_lanes(row(call.dx, tile.sequence, t) + tile.left, dx, tile.lanes)
