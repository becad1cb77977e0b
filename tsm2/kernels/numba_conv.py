"""The causal depthwise convolution on the CPU, forward and backward.

The formulas are those of `tsm2.kernels.interface`; W is the weight.

Sizes: E channels, K taps; a tile is 16 channels (one vector), a block 16 tiles. One task walks
through one sequence, a block of channels at a time. The backward pass writes dp[t] to the place
of dx[t] and replaces it K - 1 steps later, when the last dx that needs it is done.
"""

# ruff: noqa: N815 (fields are named as in the formulas)

from typing import Any, NamedTuple

from tsm2.kernels.numba_rows import Path, Rows, path, row
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

__all__ = ["TILES", "Backward", "Conv", "Forward", "backward", "forward"]

TILES = 16
"""Tiles in a block, at most."""
USUAL_TAPS = 4
"""The width of Mamba's convolution, for which the loops over taps are unrolled."""


class Conv(NamedTuple):
    """What both passes read."""

    x: Rows
    W: int  # (K, padded)
    bias: int  # (padded,)
    silu: int
    taps: int
    length: int
    channels: int
    padded: int  # bytes of a row of channels, up to a multiple of a vector
    blocks: int  # in a row


class Forward(NamedTuple):
    """One forward call; a task is a block of channels of a sequence."""

    conv: Conv
    out: Rows


class Backward(NamedTuple):
    """One backward call; a task is a block of channels of a sequence."""

    conv: Conv
    dout: Rows
    dx: Rows
    dW: int  # with dbias as its last row, (slots, K + 1, padded); starts as zeros


class Tile(NamedTuple):
    """Sixteen channels."""

    left: int  # bytes of a row before the tile
    lanes: int  # channels from here to the end of the row


@inlined
def tile_of(conv: Conv, number: int) -> Tile:
    """Find a tile of a row."""
    return Tile(number * VECTOR_BYTES, conv.channels - number * LANES)


@inlined
def tiles_of(conv: Conv, task: int) -> tuple[int, int]:
    """Return the first tile of a task's block, and the first after it."""
    first = task % conv.blocks * TILES
    return first, min(first + TILES, conv.padded // VECTOR_BYTES)


@inlined
def convolve(conv: Conv, taps: int, x: Path, tile: Tile, t: int) -> Any:
    """Return p[t]."""
    p = load(conv.bias + tile.left)
    for k in range(taps):
        if k <= t:
            x_k = load_lanes(row(x, t - k) + tile.left, tile.lanes)
            p = fma(load(conv.W + (taps - 1 - k) * conv.padded + tile.left), x_k, p)
    return p


# --- forward ----------------------------------------------------------------------------------


@inlined
def forward(call: Forward, workspace: int, slot: int, task: int) -> None:
    """Convolve one block of channels of one sequence."""
    if call.conv.taps == USUAL_TAPS:
        forward_taps(call, USUAL_TAPS, task)
    else:
        forward_taps(call, call.conv.taps, task)


@inlined
def forward_taps(call: Forward, taps: int, task: int) -> None:
    """Convolve, as `forward`, with a number of taps that the compiler may know."""
    conv, sequence = call.conv, task // call.conv.blocks
    first, last = tiles_of(conv, task)
    x, out = path(conv.x, sequence), path(call.out, sequence)
    for t in range(conv.length):
        for number in range(first, last):
            tile = tile_of(conv, number)
            p = convolve(conv, taps, x, tile, t)
            if conv.silu:
                p = p * sigmoid(p)
            store_lanes(row(out, t) + tile.left, p, tile.lanes)


# --- backward ---------------------------------------------------------------------------------


@inlined
def backward(call: Backward, workspace: int, slot: int, task: int) -> None:
    """Find the gradients of one block of channels of one sequence."""
    if call.conv.taps == USUAL_TAPS:
        backward_taps(call, USUAL_TAPS, slot, task)
    else:
        backward_taps(call, call.conv.taps, slot, task)


@inlined
def backward_taps(call: Backward, taps: int, slot: int, task: int) -> None:
    """Find the gradients, as `backward`, with a number of taps that the compiler may know."""
    conv, sequence = call.conv, task // call.conv.blocks
    first, last = tiles_of(conv, task)
    x, dout, dx = path(conv.x, sequence), path(call.dout, sequence), path(call.dx, sequence)
    dW = call.dW + slot * (taps + 1) * conv.padded
    for t in range(conv.length + taps - 1):
        for number in range(first, last):
            tile = tile_of(conv, number)
            if t < conv.length:
                write_dp(conv, taps, x, dout, dx, dW, tile, t)
            if t >= taps - 1:
                replace_by_dx(conv, taps, dx, tile, t - (taps - 1))


@inlined
def write_dp(
    conv: Conv, taps: int, x: Path, dout: Path, dx: Path, dW: int, tile: Tile, t: int
) -> None:
    """Write dp[t] to the place of dx[t], and add its part to dW and dbias."""
    dp = load_lanes(row(dout, t) + tile.left, tile.lanes)
    if conv.silu:
        p = convolve(conv, taps, x, tile, t)
        s = sigmoid(p)
        dp = dp * fma(p * s, fill(1.0) - s, s)
    store_lanes(row(dx, t) + tile.left, dp, tile.lanes)
    for k in range(taps):
        if k <= t:
            x_k = load_lanes(row(x, t - k) + tile.left, tile.lanes)
            dW_k = dW + (taps - 1 - k) * conv.padded + tile.left
            store(dW_k, fma(dp, x_k, load(dW_k)))
    dbias = dW + taps * conv.padded + tile.left
    store(dbias, load(dbias) + dp)


@inlined
def replace_by_dx(conv: Conv, taps: int, dx: Path, tile: Tile, t: int) -> None:
    """Turn dp[t] into dx[t]; the dp after it are still there."""
    dx_t = fill(0.0)
    for k in range(taps):
        if t + k < conv.length:
            dp = load_lanes(row(dx, t + k) + tile.left, tile.lanes)
            dx_t = fma(load(conv.W + (taps - 1 - k) * conv.padded + tile.left), dp, dx_t)
    store_lanes(row(dx, t) + tile.left, dx_t, tile.lanes)
