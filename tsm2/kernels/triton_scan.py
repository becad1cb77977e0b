"""The selective scan on a GPU, forward and backward.

The formulas are those of `tsm2.kernels.interface`, with d for dt.

Sizes: E channels, N states per channel; a block is BLOCK_E channels, a chunk STEPS tokens, a
segment `span` tokens, some chunks. An item is one segment of one sequence. A program keeps the
state of a block, (N, BLOCK_E), in registers and goes through an item token by token;
`triton_segments` finds where each segment starts, so that the work is parallel over time as well.

The backward pass goes through a chunk twice: forward, for what needs h, writing the states before
the tokens to a scratch; then backward, for what needs g, reading them. One program takes several
blocks one after the other and adds what they give dB and dC in place; sums over tokens are written
for each program. All is added in a fixed order.

The kernels are limited by registers: that is why the scratch's addresses are constants, why gates
and decays are computed twice instead of kept, and why the backward pass keeps 32-bit distances from
the tensors' first elements and no pointers. `benchmarks/triton_registers.py` counts them.
Source: Gu & Dao (2023), arXiv:2312.00752, section 3.3 (recomputation) and algorithm 2.
"""

import triton
import triton.language as tl

from tsm2.kernels.triton_rows import (
    narrowed,
    place_in_walk,
    place_of_sequence,
    to_sequence,
    to_token,
)

__all__ = ["LN_2", "decays", "optional_row", "row", "scan_backward", "scan_forward", "softplus"]

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def softplus(x: tl.tensor) -> tl.tensor:
    """log(1 + e^x) and its slope.

    The logarithm is max(x, 0) + 2 artanh(s), s = e / (2 + e), e = exp(-|x|); relative 4e-9.
    """
    small = tl.exp2(-tl.abs(x) * LOG2_E)
    s = small / (2.0 + small)
    square = s * s
    series = 0.14089167981784154
    series = series * square + 0.13980301729229763
    series = series * square + 0.20012455071173857
    series = series * square + 0.3333315734440936
    series = series * square + 1.0
    value = tl.where(x < 0.0, 0.0, x) + 2.0 * s * series  # NaN stays NaN
    return value, tl.where(x < 0.0, small, 1.0) / (1.0 + small)


@triton.jit
def row(pointer: tl.tensor, at: tl.tensor, columns: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """Read a row in single precision."""
    return tl.load(pointer + (at + columns), mask=mask, other=0.0).to(tl.float32)


@triton.jit
def optional_row(pointer: tl.tensor, columns: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """Read a row of parameters, zeros if there is none."""
    if pointer is None:
        return tl.zeros(columns.shape, tl.float32)
    return tl.load(pointer + columns, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def decays(
    A: tl.tensor,
    walk: tl.tensor,
    e: tl.tensor,
    n: tl.tensor,
    channels: tl.tensor,
    states: tl.tensor,
) -> tl.tensor:
    """Read the rates of a block, (N, E), as powers of two."""
    inside = (n < states)[:, None] & (e < channels)[None, :]
    at = (walk * channels + e)[None, :] * states + n[:, None]
    rates = tl.load(A + at, mask=inside, other=0.0)
    return rates.to(tl.float32) * LOG2_E


@triton.jit
def scan_forward(
    u: tl.tensor,
    delta: tl.tensor,
    z: tl.tensor,  # or None
    B: tl.tensor,
    C: tl.tensor,
    A: tl.tensor,  # (E, N)
    D: tl.tensor,  # (E,) or None
    delta_bias: tl.tensor,  # (E,) or None
    out: tl.tensor,
    kept: tl.tensor,  # (S, chunks - 1, N, E), or None
    starts: tl.tensor,  # (S, segments, N, E): h before each segment; None if there is one
    u_strides: tl.tensor,
    delta_strides: tl.tensor,
    z_strides: tl.tensor,
    B_strides: tl.tensor,
    C_strides: tl.tensor,
    row_strides: tl.tensor,  # of contiguous rows, in rows
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
    STEPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Scan one item, for one block of channels."""
    item = tl.program_id(0)
    walk = tl.program_id(2) if WALKS > 1 else 0
    item_of_all = walk * tl.num_programs(0) + item
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    in_e, in_n = e < channels, n < states
    in_ne = in_n[:, None] & in_e[None, :]
    in_state = n[:, None] * channels + e[None, :]
    decay = decays(A, walk, e, n, channels, states)
    skip = optional_row(D, walk * channels + e, in_e)
    bias = optional_row(delta_bias, walk * channels + e, in_e)
    s = place_of_sequence(item // segments, sizes)
    u += to_sequence(s, walk, u_strides)
    delta += to_sequence(s, walk, delta_strides)
    B += to_sequence(s, walk, B_strides)
    C += to_sequence(s, walk, C_strides)
    out += to_sequence(s, walk, row_strides) * channels
    if z is not None:
        z += to_sequence(s, walk, z_strides)
    h = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    if starts is not None:
        starts += tl.cast(item_of_all, tl.int64) * states * channels
        h = tl.load(starts + in_state, mask=in_ne, other=0.0)
    chunks = (length + STEPS - 1) // STEPS
    first = item % segments * (span // STEPS)
    for chunk in range(first, tl.minimum(first + span // STEPS, chunks)):
        if kept is not None:
            border = tl.cast(item_of_all // segments, tl.int64) * (chunks - 1) + chunk - 1
            later = in_ne & (e[None, :] * 0 + chunk > 0)
            tl.store(kept + border * states * channels + in_state, h, mask=later)
        for t in range(chunk * STEPS, tl.minimum((chunk + 1) * STEPS, length)):
            token = place_in_walk(t, walk, length, sizes, REVERSED, SWAPPED, ONE_AXIS, WIDE)
            u_t = row(u, to_token(token, u_strides, ONE_AXIS), e, in_e)
            d, _ = softplus(row(delta, to_token(token, delta_strides, ONE_AXIS), e, in_e) + bias)
            B_t = row(B, to_token(token, B_strides, ONE_AXIS), n, in_n)
            C_t = row(C, to_token(token, C_strides, ONE_AXIS), n, in_n)
            h = tl.exp2(d[None, :] * decay) * h + B_t[:, None] * (d * u_t)[None, :]
            y = tl.sum(h * C_t[:, None], 0) + skip * u_t
            if z is not None:
                z_t = row(z, to_token(token, z_strides, ONE_AXIS), e, in_e)
                y *= z_t * tl.sigmoid(z_t)
            at = to_token(token, row_strides, ONE_AXIS) * channels
            tl.store(out + (at + e), y, mask=in_e)


@triton.jit
def scan_backward(
    u: tl.tensor,
    delta: tl.tensor,
    z: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    dout: tl.tensor,
    A: tl.tensor,
    D: tl.tensor,
    delta_bias: tl.tensor,
    kept: tl.tensor,  # (S, chunks - 1, N, E)
    ends: tl.tensor,  # (S, segments, N, E): a g behind each segment; None if there is one
    scratch: tl.tensor,  # (programs, groups, STEPS, BLOCK_N, BLOCK_E)
    du: tl.tensor,
    ddelta: tl.tensor,
    dz: tl.tensor,  # or None
    dB: tl.tensor,  # (groups, *lead, N)
    dC: tl.tensor,
    sums: tl.tensor,  # (programs, N E + 2 E): dA turned, dD, ddelta_bias
    u_strides: tl.tensor,
    delta_strides: tl.tensor,
    z_strides: tl.tensor,
    B_strides: tl.tensor,
    C_strides: tl.tensor,
    dout_strides: tl.tensor,
    row_strides: tl.tensor,
    sizes: tl.tensor,
    sequences: tl.tensor,
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
    WHOLE: tl.constexpr,  # no block has channels or states to spare: no masks to keep
    STEPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Find the gradients in the items of one program, for the blocks of one group."""
    program, group = tl.program_id(0), tl.program_id(1)
    walk = tl.program_id(2) if WALKS > 1 else 0
    program_of_all = walk * tl.num_programs(0) + program
    n = tl.arange(0, BLOCK_N)
    in_n = n < states
    if WHOLE:
        in_n = tl.full((BLOCK_N,), True, tl.int1)
    chunks = (length + STEPS - 1) // STEPS
    tile: tl.constexpr = BLOCK_N * BLOCK_E
    scratch += (tl.cast(program_of_all, tl.int64) * tl.num_programs(1) + group) * (STEPS * tile)
    scratch += n[:, None] * BLOCK_E + tl.arange(0, BLOCK_E)[None, :]
    for block in range(group, tl.cdiv(channels, BLOCK_E), tl.num_programs(1)):
        e = block * BLOCK_E + tl.arange(0, BLOCK_E)
        in_e = e < channels
        if WHOLE:
            in_e = tl.full((BLOCK_E,), True, tl.int1)
        in_ne = in_n[:, None] & in_e[None, :]
        in_more = in_n & (n * 0 + block > group)  # dB and dC hold those of earlier blocks
        decay = decays(A, walk, e, n, channels, states)
        skip = optional_row(D, walk * channels + e, in_e)
        bias = optional_row(delta_bias, walk * channels + e, in_e)
        sum_A = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
        sum_D = tl.zeros((BLOCK_E,), tl.float32)
        sum_bias = tl.zeros((BLOCK_E,), tl.float32)
        for item in range(program, sequences * segments, tl.num_programs(0)):
            sequence = item // segments
            s = place_of_sequence(sequence, sizes)
            to_u = narrowed(to_sequence(s, walk, u_strides), WIDE)
            to_delta = narrowed(to_sequence(s, walk, delta_strides), WIDE)
            to_B = narrowed(to_sequence(s, walk, B_strides), WIDE)
            to_C = narrowed(to_sequence(s, walk, C_strides), WIDE)
            to_dout = narrowed(to_sequence(s, walk, dout_strides), WIDE)
            to_row = narrowed(to_sequence(s, walk, row_strides), WIDE)
            part = tl.cast(walk * (tl.num_programs(1) - 1) + group, tl.int64) * sequences * length
            to_part = narrowed(part * states, WIDE)
            if z is not None:
                to_z = narrowed(to_sequence(s, walk, z_strides), WIDE)
            in_state = n[:, None] * channels + e[None, :]
            g = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)  # a[t+1] g[t+1]
            if ends is not None:
                end = tl.cast(walk * sequences * segments + item, tl.int64) * states * channels
                g = tl.load(ends + end + in_state, mask=in_ne, other=0.0)
            first = item % segments * (span // STEPS)
            behind = tl.minimum(first + span // STEPS, chunks)
            for turn in range(behind - first):
                chunk = behind - 1 - turn
                start = chunk * STEPS
                steps = tl.minimum(STEPS, length - start)
                border = tl.cast(walk * sequences + sequence, tl.int64) * (chunks - 1) + chunk - 1
                later = in_ne & (e[None, :] * 0 + chunk > 0)
                h = tl.load(kept + border * states * channels + in_state, mask=later, other=0.0)
                for k in range(steps):
                    tl.store(scratch + k * tile, h)
                    token = place_in_walk(
                        start + k, walk, length, sizes, REVERSED, SWAPPED, ONE_AXIS, WIDE
                    )
                    at = to_row + to_token(token, row_strides, ONE_AXIS)
                    u_t = row(u, to_u + to_token(token, u_strides, ONE_AXIS), e, in_e)
                    x = (
                        row(delta, to_delta + to_token(token, delta_strides, ONE_AXIS), e, in_e)
                        + bias
                    )
                    d, _ = softplus(x)
                    B_t = row(B, to_B + to_token(token, B_strides, ONE_AXIS), n, in_n)
                    dy = row(dout, to_dout + to_token(token, dout_strides, ONE_AXIS), e, in_e)
                    h = tl.exp2(d[None, :] * decay) * h + B_t[:, None] * (d * u_t)[None, :]
                    if z is not None:
                        C_t = row(C, to_C + to_token(token, C_strides, ONE_AXIS), n, in_n)
                        z_t = row(z, to_z + to_token(token, z_strides, ONE_AXIS), e, in_e)
                        gate = tl.sigmoid(z_t)
                        y = tl.sum(h * C_t[:, None], 0) + skip * u_t
                        dz_t = dy * y * (gate * (1.0 + z_t * (1.0 - gate)))
                        tl.store(dz + (at * channels + e), dz_t, mask=in_e)
                        dy *= z_t * gate
                    dC_at = dC + (to_part + at * states + n)
                    dC_t = tl.sum(h * dy[None, :], 1)
                    tl.store(dC_at, dC_t + tl.load(dC_at, mask=in_more, other=0.0), mask=in_n)
                tl.debug_barrier()  # the scratch is read as another thread may have written it
                for k in range(steps - 1, -1, -1):
                    token = place_in_walk(
                        start + k, walk, length, sizes, REVERSED, SWAPPED, ONE_AXIS, WIDE
                    )
                    at = to_row + to_token(token, row_strides, ONE_AXIS)
                    u_t = row(u, to_u + to_token(token, u_strides, ONE_AXIS), e, in_e)
                    x = (
                        row(delta, to_delta + to_token(token, delta_strides, ONE_AXIS), e, in_e)
                        + bias
                    )
                    d, slope = softplus(x)
                    B_t = row(B, to_B + to_token(token, B_strides, ONE_AXIS), n, in_n)
                    C_t = row(C, to_C + to_token(token, C_strides, ONE_AXIS), n, in_n)
                    dy = row(dout, to_dout + to_token(token, dout_strides, ONE_AXIS), e, in_e)
                    if z is not None:
                        z_t = row(z, to_z + to_token(token, z_strides, ONE_AXIS), e, in_e)
                        dy *= z_t * tl.sigmoid(z_t)
                    g += C_t[:, None] * dy[None, :]
                    dB_at = dB + (to_part + at * states + n)
                    dB_t = tl.sum(g * (d * u_t)[None, :], 1)
                    tl.store(dB_at, dB_t + tl.load(dB_at, mask=in_more, other=0.0), mask=in_n)
                    dv = tl.sum(g * B_t[:, None], 0)
                    g *= tl.exp2(d[None, :] * decay)
                    r = g * tl.load(scratch + k * tile)
                    dx = (u_t * dv + LN_2 * tl.sum(r * decay, 0)) * slope
                    at = at * channels
                    tl.store(ddelta + (at + e), dx, mask=in_e)
                    tl.store(du + (at + e), d * dv + skip * dy, mask=in_e)
                    sum_A += r * d[None, :]
                    sum_D += dy * u_t
                    sum_bias += dx
                tl.debug_barrier()  # before the next chunk overwrites the scratch
        to = sums + tl.cast(program_of_all, tl.int64) * channels * (states + 2)
        tl.store(to + (n[:, None] * channels + e[None, :]), sum_A, mask=in_ne)
        tl.store(to + (channels * states + e), sum_D, mask=in_e)
        tl.store(to + (channels * (states + 1) + e), sum_bias, mask=in_e)
