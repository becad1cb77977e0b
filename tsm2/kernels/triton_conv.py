"""The causal depthwise convolution on a GPU.

The formulas are those of `tsm2.kernels.interface`; dx is also the convolution of dp in the other
direction, without a bias.

Sizes: E channels, K taps. A tile is BLOCK_T tokens of BLOCK_E channels; its tokens are read K
times, all but the first from the cache. Sums over tokens are written for each program and added
afterwards in a fixed order.
"""

import triton
import triton.language as tl

from tsm2.kernels.triton_rows import offset, place_in_walk, place_of_sequence

__all__ = ["conv_forward", "conv_sums"]


@triton.jit
def _tile(
    x: tl.tensor,
    strides: tl.tensor,
    s: tl.tensor,
    t: tl.tensor,
    sizes: tl.tensor,
    length: tl.tensor,
    e: tl.tensor,
    channels: tl.tensor,
    REVERSE: tl.constexpr,
) -> tl.tensor:
    """Read some tokens of some channels in single precision, zeros outside of the sequence."""
    rows = offset(s, place_in_walk(t, length, sizes, REVERSE), strides)
    inside = ((t >= 0) & (t < length))[:, None] & (e < channels)[None, :]
    return tl.load(x + rows[:, None] + e[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _convolved(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    strides: tl.tensor,
    s: tl.tensor,
    t: tl.tensor,
    sizes: tl.tensor,
    length: tl.tensor,
    e: tl.tensor,
    channels: tl.tensor,
    TAPS: tl.constexpr,
    REVERSE: tl.constexpr,
) -> tl.tensor:
    """Sum the taps for a tile."""
    p = tl.zeros((t.shape[0], e.shape[0]), tl.float32)
    if bias is not None:
        p += tl.load(bias + e, mask=e < channels, other=0.0).to(tl.float32)[None, :]
    for k in range(TAPS):
        tap = tl.load(weight + e * TAPS + (TAPS - 1 - k), mask=e < channels, other=0.0)
        earlier = _tile(x, strides, s, t - k, sizes, length, e, channels, REVERSE)
        p += tap.to(tl.float32)[None, :] * earlier
    return p


@triton.jit
def conv_forward(
    x: tl.tensor,
    weight: tl.tensor,  # (E, K)
    bias: tl.tensor,  # (E,) or None
    out: tl.tensor,
    x_strides: tl.tensor,
    row_strides: tl.tensor,
    sizes: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    TAPS: tl.constexpr,
    SILU: tl.constexpr,
    REVERSE: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Convolve one tile."""
    tiles = tl.cdiv(length, BLOCK_T)
    task = tl.program_id(0)
    s = place_of_sequence(tl.cast(task // tiles, tl.int64), sizes)
    t = task % tiles * BLOCK_T + tl.arange(0, BLOCK_T)
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    p = _convolved(x, weight, bias, x_strides, s, t, sizes, length, e, channels, TAPS, REVERSE)
    if SILU:
        p *= tl.sigmoid(p)
    rows = offset(s, place_in_walk(t, length, sizes, REVERSE), row_strides)
    inside = (t < length)[:, None] & (e < channels)[None, :]
    tl.store(out + rows[:, None] * channels + e[None, :], p, mask=inside)


@triton.jit
def conv_sums(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    dout: tl.tensor,
    dp: tl.tensor,  # written if SILU
    sums: tl.tensor,  # (programs, K + 1, E): dW by taps back, dbias
    x_strides: tl.tensor,
    dout_strides: tl.tensor,
    row_strides: tl.tensor,
    sizes: tl.tensor,
    tasks: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    TAPS: tl.constexpr,
    SILU: tl.constexpr,
    REVERSE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Write dp for the tiles of one program, and their sums for dW and dbias."""
    tiles = tl.cdiv(length, BLOCK_T)
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    tap = tl.arange(0, BLOCK_K)[:, None]
    total = tl.zeros((BLOCK_K, BLOCK_E), tl.float32)
    for task in range(tl.program_id(0), tasks, tl.num_programs(0)):
        s = place_of_sequence(tl.cast(task // tiles, tl.int64), sizes)
        t = task % tiles * BLOCK_T + tl.arange(0, BLOCK_T)
        slope = _tile(dout, dout_strides, s, t, sizes, length, e, channels, REVERSE)
        if SILU:
            p = _convolved(
                x, weight, bias, x_strides, s, t, sizes, length, e, channels, TAPS, REVERSE
            )
            gate = tl.sigmoid(p)
            slope *= gate * (1.0 + p * (1.0 - gate))
            rows = offset(s, place_in_walk(t, length, sizes, REVERSE), row_strides)
            inside = (t < length)[:, None] & (e < channels)[None, :]
            tl.store(dp + rows[:, None] * channels + e[None, :], slope, mask=inside)
        for k in range(TAPS):
            earlier = _tile(x, x_strides, s, t - k, sizes, length, e, channels, REVERSE)
            total += tl.where(tap == k, tl.sum(slope * earlier, 0)[None, :], 0.0)
        total += tl.where(tap == TAPS, tl.sum(slope, 0)[None, :], 0.0)
    at = (tl.program_id(0) * (TAPS + 1) + tap) * channels + e[None, :]
    tl.store(sums + at, total, mask=(tap <= TAPS) & (e < channels)[None, :])
