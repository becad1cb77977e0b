"""The selective scan on a GPU, forward and backward.

The formulas are those of `tsm2.kernels.interface`, with d for dt.

Sizes: E channels, N states per channel; a block is BLOCK_E channels, a chunk STEPS tokens. One
program keeps the state of a block, (N, BLOCK_E), in registers and goes through a sequence token by
token; then it takes another sequence. So the work is parallel over sequences and channels, not
over time: a single long sequence leaves most of the device idle. Sums over channels are written
for each block, sums over tokens for each program, and added afterwards in a fixed order.
The backward pass writes the states of one chunk to a scratch and reads them backwards.
Source: Gu & Dao (2023), arXiv:2312.00752, section 3.3 (recomputation) and algorithm 2.
"""

import triton
import triton.language as tl

from tsm2.kernels.triton_rows import offset, place_in_walk, place_of_sequence

__all__ = ["scan_backward", "scan_forward"]

_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _softplus(x: tl.tensor) -> tl.tensor:
    """log(1 + e^x) = max(x, 0) + 2 artanh(s), s = e / (2 + e), e = exp(-|x|); relative 4e-9."""
    small = tl.exp2(-tl.abs(x) * _LOG2_E)
    s = small / (2.0 + small)
    square = s * s
    series = 0.14089167981784154
    series = series * square + 0.13980301729229763
    series = series * square + 0.20012455071173857
    series = series * square + 0.3333315734440936
    series = series * square + 1.0
    return tl.where(x < 0.0, 0.0, x) + 2.0 * s * series  # NaN stays NaN


@triton.jit
def _row(pointer: tl.tensor, at: tl.tensor, columns: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """Read a row in single precision."""
    return tl.load(pointer + at + columns, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _optional_row(pointer: tl.tensor, columns: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """Read a row of parameters, zeros if there is none."""
    if pointer is None:
        return tl.zeros(columns.shape, tl.float32)
    return tl.load(pointer + columns, mask=mask, other=0.0).to(tl.float32)


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
    u_strides: tl.tensor,
    delta_strides: tl.tensor,
    z_strides: tl.tensor,
    B_strides: tl.tensor,
    C_strides: tl.tensor,
    row_strides: tl.tensor,  # of contiguous rows, in rows
    sizes: tl.tensor,
    sequences: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    states: tl.tensor,
    REVERSE: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Scan the sequences of one program, for one block of channels."""
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    in_e, in_n = e < channels, n < states
    in_ne = in_n[:, None] & in_e[None, :]
    decay = tl.load(A + e[None, :] * states + n[:, None], mask=in_ne, other=0.0)
    decay = decay.to(tl.float32) * _LOG2_E
    skip, bias = _optional_row(D, e, in_e), _optional_row(delta_bias, e, in_e)
    for sequence in range(tl.program_id(0), sequences, tl.num_programs(0)):
        s = place_of_sequence(tl.cast(sequence, tl.int64), sizes)
        h = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
        for t in range(length):
            if kept is not None and t % STEPS == 0:
                border = tl.cast(sequence, tl.int64) * ((length - 1) // STEPS) + t // STEPS - 1
                at = (border * states + n[:, None]) * channels + e[None, :]
                tl.store(kept + at, h, mask=in_ne & (t > 0))
            token = place_in_walk(t, length, sizes, REVERSE)
            u_t = _row(u, offset(s, token, u_strides), e, in_e)
            d = _softplus(_row(delta, offset(s, token, delta_strides), e, in_e) + bias)
            B_t = _row(B, offset(s, token, B_strides), n, in_n)
            C_t = _row(C, offset(s, token, C_strides), n, in_n)
            h = tl.exp2(d[None, :] * decay) * h + B_t[:, None] * (d * u_t)[None, :]
            y = tl.sum(h * C_t[:, None], 0) + skip * u_t
            if z is not None:
                z_t = _row(z, offset(s, token, z_strides), e, in_e)
                y *= z_t * tl.sigmoid(z_t)
            tl.store(out + offset(s, token, row_strides) * channels + e, y, mask=in_e)


@triton.jit
def scan_backward(
    u: tl.tensor,
    delta: tl.tensor,
    z: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    A: tl.tensor,
    D: tl.tensor,
    delta_bias: tl.tensor,
    dout: tl.tensor,
    kept: tl.tensor,  # (S, chunks - 1, N, E)
    scratch: tl.tensor,  # (programs, STEPS + 1, BLOCK_N, E padded)
    du: tl.tensor,
    ddelta: tl.tensor,
    dz: tl.tensor,  # or None
    dB: tl.tensor,  # (blocks, *lead, N)
    dC: tl.tensor,
    dA: tl.tensor,  # (programs, E, N)
    dD: tl.tensor,  # (programs, E)
    ddelta_bias: tl.tensor,  # (programs, E)
    u_strides: tl.tensor,
    delta_strides: tl.tensor,
    z_strides: tl.tensor,
    B_strides: tl.tensor,
    C_strides: tl.tensor,
    dout_strides: tl.tensor,
    row_strides: tl.tensor,
    sizes: tl.tensor,
    sequences: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    states: tl.tensor,
    padded: tl.tensor,  # channels of the scratch
    REVERSE: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Find the gradients in the sequences of one program, for one block of channels."""
    block, program = tl.program_id(1), tl.cast(tl.program_id(0), tl.int64)
    e = block * BLOCK_E + tl.arange(0, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    in_e, in_n = e < channels, n < states
    in_ne = in_n[:, None] & in_e[None, :]
    rate = tl.load(A + e[None, :] * states + n[:, None], mask=in_ne, other=0.0).to(tl.float32)
    decay = rate * _LOG2_E
    skip, bias = _optional_row(D, e, in_e), _optional_row(delta_bias, e, in_e)
    chunks = (length + STEPS - 1) // STEPS
    rows = tl.cast(sequences, tl.int64) * length
    state = n[:, None] * padded + e[None, :]
    scratch += program * (STEPS + 1) * BLOCK_N * padded
    sum_A = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    sum_D = tl.zeros((BLOCK_E,), tl.float32)
    sum_bias = tl.zeros((BLOCK_E,), tl.float32)
    for sequence in range(tl.program_id(0), sequences, tl.num_programs(0)):
        s = place_of_sequence(tl.cast(sequence, tl.int64), sizes)
        g = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)  # a[t+1] g[t+1]
        for chunk in range(chunks - 1, -1, -1):
            start = chunk * STEPS
            steps = tl.minimum(STEPS, length - start)
            border = tl.cast(sequence, tl.int64) * (chunks - 1) + chunk - 1
            at = (border * states + n[:, None]) * channels + e[None, :]
            h = tl.load(kept + at, mask=in_ne & (chunk > 0), other=0.0)
            tl.store(scratch + state, h)
            for k in range(steps):
                token = place_in_walk(start + k, length, sizes, REVERSE)
                u_t = _row(u, offset(s, token, u_strides), e, in_e)
                d = _softplus(_row(delta, offset(s, token, delta_strides), e, in_e) + bias)
                B_t = _row(B, offset(s, token, B_strides), n, in_n)
                h = tl.exp2(d[None, :] * decay) * h + B_t[:, None] * (d * u_t)[None, :]
                tl.store(scratch + (k + 1) * BLOCK_N * padded + state, h)
            tl.debug_barrier()  # the scratch is read as another thread may have written it
            for k in range(steps - 1, -1, -1):
                token = place_in_walk(start + k, length, sizes, REVERSE)
                row = offset(s, token, row_strides)
                u_t = _row(u, offset(s, token, u_strides), e, in_e)
                x = _row(delta, offset(s, token, delta_strides), e, in_e) + bias
                d = _softplus(x)
                B_t = _row(B, offset(s, token, B_strides), n, in_n)
                C_t = _row(C, offset(s, token, C_strides), n, in_n)
                dy = _row(dout, offset(s, token, dout_strides), e, in_e)
                h = tl.load(scratch + (k + 1) * BLOCK_N * padded + state)
                before = tl.load(scratch + k * BLOCK_N * padded + state)
                if z is not None:
                    z_t = _row(z, offset(s, token, z_strides), e, in_e)
                    gate = tl.sigmoid(z_t)
                    y = tl.sum(h * C_t[:, None], 0) + skip * u_t
                    slope = gate * (1.0 + z_t * (1.0 - gate))
                    tl.store(dz + row * channels + e, dy * y * slope, mask=in_e)
                    dy *= z_t * gate
                g += C_t[:, None] * dy[None, :]
                part = block * rows + row
                tl.store(dC + part * states + n, tl.sum(h * dy[None, :], 1), mask=in_n)
                tl.store(dB + part * states + n, tl.sum(g * (d * u_t)[None, :], 1), mask=in_n)
                dv = tl.sum(g * B_t[:, None], 0)
                g *= tl.exp2(d[None, :] * decay)
                r = g * before
                dx = (u_t * dv + tl.sum(r * rate, 0)) * tl.sigmoid(x)
                tl.store(ddelta + row * channels + e, dx, mask=in_e)
                tl.store(du + row * channels + e, d * dv + skip * dy, mask=in_e)
                sum_A += r * d[None, :]
                sum_D += dy * u_t
                sum_bias += dx
            tl.debug_barrier()  # before the next chunk overwrites the scratch
    tl.store(dA + (program * channels + e[None, :]) * states + n[:, None], sum_A, mask=in_ne)
    tl.store(dD + program * channels + e, sum_D, mask=in_e)
    tl.store(ddelta_bias + program * channels + e, sum_bias, mask=in_e)
