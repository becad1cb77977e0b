"""Where the segments of a scan start: what makes the scan on a GPU parallel over time.

A scan over a segment that starts with h ends with h times the product of its decays, plus where it
ends from a start of zero. That product is exp(A sum of d), so that a sum per channel is all to be
kept of it. First every segment is scanned from zero; then one program per sequence and block walks
over the segments; then `triton_scan` scans each from its true start. Gradients go the same way
from the end, with g in the place of h.

Sizes and formulas: as in `triton_scan`.
Source: Blelloch (1990), CMU-CS-90-190, section 1.4 (recurrences as scans over blocks).
"""

import triton
import triton.language as tl

from tsm2.kernels.triton_rows import place_in_walk, place_of_sequence, to_sequence, to_token
from tsm2.kernels.triton_scan import decays, optional_row, row, softplus

__all__ = ["join_segments", "scan_segments", "scan_segments_back"]


@triton.jit
def scan_segments(
    u: tl.tensor,
    delta: tl.tensor,
    B: tl.tensor,
    A: tl.tensor,
    delta_bias: tl.tensor,
    ends: tl.tensor,  # (S, segments, N, E): h behind each segment from a start of zero
    sums: tl.tensor,  # (S, segments, E): sum of d over each segment
    u_strides: tl.tensor,
    delta_strides: tl.tensor,
    B_strides: tl.tensor,
    sizes: tl.tensor,
    segments: tl.tensor,
    span: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    states: tl.tensor,
    WALKS: tl.constexpr,
    REVERSED: tl.constexpr,
    SWAPPED: tl.constexpr,
    ONE_AXIS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Scan one segment from zero, for one block of channels."""
    item = tl.program_id(0)
    walk = tl.program_id(2) if WALKS > 1 else 0
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    in_e, in_n = e < channels, n < states
    decay = decays(A, walk, e, n, channels, states)
    bias = optional_row(delta_bias, walk * channels + e, in_e)
    s = place_of_sequence(item // segments, sizes)
    u += to_sequence(s, walk, u_strides)
    delta += to_sequence(s, walk, delta_strides)
    B += to_sequence(s, walk, B_strides)
    first = item % segments * span
    h = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_E,), tl.float32)
    for t in range(first, tl.minimum(first + span, length)):
        token = place_in_walk(t, walk, length, sizes, REVERSED, SWAPPED, ONE_AXIS, WIDE)
        u_t = row(u, to_token(token, u_strides, ONE_AXIS), e, in_e)
        d, _ = softplus(row(delta, to_token(token, delta_strides, ONE_AXIS), e, in_e) + bias)
        B_t = row(B, to_token(token, B_strides, ONE_AXIS), n, in_n)
        h = tl.exp2(d[None, :] * decay) * h + B_t[:, None] * (d * u_t)[None, :]
        total += d
    _write(ends, sums, h, total, walk * tl.num_programs(0) + item, e, n, channels, states)


@triton.jit
def scan_segments_back(
    delta: tl.tensor,
    z: tl.tensor,  # or None
    C: tl.tensor,
    dout: tl.tensor,
    A: tl.tensor,
    delta_bias: tl.tensor,
    starts: tl.tensor,  # (S, segments, N, E): a g before each segment from an end of zero
    sums: tl.tensor,  # (S, segments, E)
    delta_strides: tl.tensor,
    z_strides: tl.tensor,
    C_strides: tl.tensor,
    dout_strides: tl.tensor,
    sizes: tl.tensor,
    segments: tl.tensor,
    span: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    states: tl.tensor,
    WALKS: tl.constexpr,
    REVERSED: tl.constexpr,
    SWAPPED: tl.constexpr,
    ONE_AXIS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Find what one segment gives back to the one before it, for one block of channels."""
    item = tl.program_id(0)
    walk = tl.program_id(2) if WALKS > 1 else 0
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    in_e, in_n = e < channels, n < states
    decay = decays(A, walk, e, n, channels, states)
    bias = optional_row(delta_bias, walk * channels + e, in_e)
    s = place_of_sequence(item // segments, sizes)
    delta += to_sequence(s, walk, delta_strides)
    C += to_sequence(s, walk, C_strides)
    dout += to_sequence(s, walk, dout_strides)
    if z is not None:
        z += to_sequence(s, walk, z_strides)
    first = item % segments * span
    last = tl.minimum(first + span, length) - 1
    g = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_E,), tl.float32)
    for k in range(last - first + 1):
        token = place_in_walk(last - k, walk, length, sizes, REVERSED, SWAPPED, ONE_AXIS, WIDE)
        d, _ = softplus(row(delta, to_token(token, delta_strides, ONE_AXIS), e, in_e) + bias)
        C_t = row(C, to_token(token, C_strides, ONE_AXIS), n, in_n)
        dy = row(dout, to_token(token, dout_strides, ONE_AXIS), e, in_e)
        if z is not None:
            z_t = row(z, to_token(token, z_strides, ONE_AXIS), e, in_e)
            dy *= z_t * tl.sigmoid(z_t)
        g = tl.exp2(d[None, :] * decay) * (g + C_t[:, None] * dy[None, :])
        total += d
    _write(starts, sums, g, total, walk * tl.num_programs(0) + item, e, n, channels, states)


@triton.jit
def _write(
    tiles: tl.tensor,
    sums: tl.tensor,
    tile: tl.tensor,
    total: tl.tensor,
    item: tl.tensor,
    e: tl.tensor,
    n: tl.tensor,
    channels: tl.tensor,
    states: tl.tensor,
) -> None:
    at = tl.cast(item, tl.int64) * channels
    in_e = e < channels
    inside = (n < states)[:, None] & in_e[None, :]
    tl.store(tiles + at * states + (n[:, None] * channels + e[None, :]), tile, mask=inside)
    tl.store(sums + at + e, total, mask=in_e)


@triton.jit
def join_segments(
    tiles: tl.tensor,  # (S, segments, N, E): what each adds, replaced by where each starts
    sums: tl.tensor,  # (S, segments, E)
    A: tl.tensor,
    segments: tl.tensor,
    channels: tl.tensor,
    states: tl.tensor,
    WALKS: tl.constexpr,
    BACKWARD: tl.constexpr,  # from the last segment to the first
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Walk over the segments of one sequence, for one block of channels."""
    walk = tl.program_id(2) if WALKS > 1 else 0
    sequence = walk * tl.num_programs(0) + tl.program_id(0)
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    in_e = e < channels
    inside = (n < states)[:, None] & in_e[None, :]
    decay = decays(A, walk, e, n, channels, states)
    h = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    for k in range(segments):
        number = segments - 1 - k if BACKWARD else k
        at = (tl.cast(sequence, tl.int64) * segments + number) * channels
        place = tiles + at * states + (n[:, None] * channels + e[None, :])
        added = tl.load(place, mask=inside, other=0.0)
        d = tl.load(sums + at + e, mask=in_e, other=0.0)
        tl.store(place, h, mask=inside)
        h = tl.exp2(d[None, :] * decay) * h + added
