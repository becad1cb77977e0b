"""The causal depthwise convolution on a GPU.

The formulas are those of `tsm2.kernels.interface`. Rows are kept in tuples, which Triton joins
by + alone.

Sizes: E channels, K taps. An item is one segment of one sequence, `span` tokens. A program keeps
the last K tokens of a block of channels in registers and goes through an item, so that every row is
read once, and K - 1 rows more for each segment; the backward pass goes the other way and keeps the
last K rows of dp too. Sums over tokens are written for each program and added afterwards in a
fixed order.
"""

import triton
import triton.language as tl

from tsm2.kernels.triton_rows import place_in_walk, place_of_sequence, to_sequence, to_token

__all__ = ["conv_backward", "conv_forward"]


@triton.jit
def _row(
    pointer: tl.tensor,
    t: tl.tensor,
    walk: tl.tensor,
    e: tl.tensor,
    inside: tl.tensor,
    strides: tl.tensor,
    sizes: tl.tensor,
    length: tl.tensor,
    REVERSED: tl.constexpr,
    SWAPPED: tl.constexpr,
    ONE_AXIS: tl.constexpr,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """Read a token's channels in single precision; zeros outside, and before the first token."""
    at = to_token(
        place_in_walk(t, walk, length, sizes, REVERSED, SWAPPED, ONE_AXIS, WIDE), strides, ONE_AXIS
    )
    mask = inside & (e * 0 + t >= 0)
    return tl.load(pointer + (at + e), mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _taps(
    weight: tl.tensor, walk: tl.tensor, e: tl.tensor, channels: tl.tensor, TAPS: tl.constexpr
) -> tl.tensor:
    """Read the weights of a block, the one for the current token first."""
    inside = e < channels
    e += walk * channels
    taps = (tl.load(weight + (e * TAPS + TAPS - 1), mask=inside, other=0.0).to(tl.float32),)
    for k in tl.static_range(1, TAPS):
        tap = tl.load(weight + (e * TAPS + (TAPS - 1 - k)), mask=inside, other=0.0)
        taps = taps + (tap.to(tl.float32),)  # type: ignore[assignment]  # noqa: RUF005
    return taps


@triton.jit
def _zeros(e: tl.tensor, TAPS: tl.constexpr) -> tl.tensor:
    """Return a window of rows of zeros."""
    window = (tl.zeros(e.shape, tl.float32),)
    for _ in tl.static_range(1, TAPS):
        window = window + (tl.zeros(e.shape, tl.float32),)  # type: ignore[assignment]  # noqa: RUF005
    return window


@triton.jit
def _weighted(taps: tl.tensor, window: tl.tensor, TAPS: tl.constexpr) -> tl.tensor:
    """Sum a window's rows, each with its weight."""
    total = taps[0] * window[0]
    for k in tl.static_range(1, TAPS):
        total += taps[k] * window[k]
    return total


@triton.jit
def conv_forward(
    x: tl.tensor,
    weight: tl.tensor,  # (E, K)
    bias: tl.tensor,  # (E,) or None
    out: tl.tensor,
    x_strides: tl.tensor,
    row_strides: tl.tensor,
    sizes: tl.tensor,
    segments: tl.tensor,
    span: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    TAPS: tl.constexpr,
    SILU: tl.constexpr,
    WALKS: tl.constexpr,
    REVERSED: tl.constexpr,
    SWAPPED: tl.constexpr,
    ONE_AXIS: tl.constexpr,
    WIDE: tl.constexpr,
    UNROLLED: tl.constexpr,  # tokens whose rows are asked for at once
    BLOCK_E: tl.constexpr,
) -> None:
    """Convolve one item, for one block of channels."""
    item = tl.program_id(0)
    walk = tl.program_id(2) if WALKS > 1 else 0
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    in_e = e < channels
    taps = _taps(weight, walk, e, channels, TAPS)
    s = place_of_sequence(item // segments, sizes)
    x += to_sequence(s, walk, x_strides)
    out += to_sequence(s, walk, row_strides) * channels
    first = item % segments * span
    last = tl.minimum(first + span, length)
    window = _zeros(e, TAPS)
    for k in tl.static_range(1, TAPS):
        x_t = _row(
            x,
            first - (TAPS - k),
            walk,
            e,
            in_e,
            x_strides,
            sizes,
            length,
            REVERSED,
            SWAPPED,
            ONE_AXIS,
            WIDE,
        )
        window = (x_t,) + window[: TAPS - 1]  # noqa: RUF005
    for start in range(first, last, UNROLLED):
        for k in tl.static_range(UNROLLED):
            t = start + k
            here = in_e & (e * 0 + t < last)
            x_t = _row(
                x, t, walk, e, here, x_strides, sizes, length, REVERSED, SWAPPED, ONE_AXIS, WIDE
            )
            window = (x_t,) + window[: TAPS - 1]  # noqa: RUF005
            p = _weighted(taps, window, TAPS)
            if bias is not None:
                p += tl.load(bias + (walk * channels + e), mask=in_e, other=0.0).to(tl.float32)
            if SILU:
                p *= tl.sigmoid(p)
            token = place_in_walk(t, walk, length, sizes, REVERSED, SWAPPED, ONE_AXIS, WIDE)
            at = to_token(token, row_strides, ONE_AXIS) * channels
            tl.store(out + (at + e), p, mask=here)


@triton.jit
def conv_backward(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    dout: tl.tensor,
    dx: tl.tensor,
    sums: tl.tensor,  # (programs, E K + E): dweight, dbias
    x_strides: tl.tensor,
    dout_strides: tl.tensor,
    row_strides: tl.tensor,
    sizes: tl.tensor,
    sequences: tl.tensor,
    segments: tl.tensor,
    span: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    TAPS: tl.constexpr,
    SILU: tl.constexpr,
    WALKS: tl.constexpr,
    REVERSED: tl.constexpr,
    SWAPPED: tl.constexpr,
    ONE_AXIS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Find the gradients in the items of one program, for one block of channels."""
    walk = tl.program_id(2) if WALKS > 1 else 0
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    in_e = e < channels
    taps = _taps(weight, walk, e, channels, TAPS)
    sums_of_taps, sum_of_slopes = _zeros(e, TAPS), tl.zeros(e.shape, tl.float32)
    for item in range(tl.program_id(0), sequences * segments, tl.num_programs(0)):
        s = place_of_sequence(item // segments, sizes)
        x_s = x + to_sequence(s, walk, x_strides)
        dout_s = dout + to_sequence(s, walk, dout_strides)
        dx_s = dx + to_sequence(s, walk, row_strides) * channels
        first = item % segments * span
        behind = tl.minimum(first + span, length)
        final = tl.minimum(behind + TAPS - 1, length) - 1  # its dp reaches back to the segment
        window = _zeros(e, TAPS)  # x[t], x[t-1], ..., t the token below
        for k in tl.static_range(TAPS - 1):
            x_t = _row(
                x_s,
                final - k,
                walk,
                e,
                in_e,
                x_strides,
                sizes,
                length,
                REVERSED,
                SWAPPED,
                ONE_AXIS,
                WIDE,
            )
            window = window[1:] + (x_t,)  # noqa: RUF005
        slopes = _zeros(e, TAPS)  # dp[t], dp[t+1], ...
        for k in range(final - first + 1):
            t = final - k
            x_t = _row(
                x_s,
                t - (TAPS - 1),
                walk,
                e,
                in_e,
                x_strides,
                sizes,
                length,
                REVERSED,
                SWAPPED,
                ONE_AXIS,
                WIDE,
            )
            window = window[1:] + (x_t,)  # noqa: RUF005
            dp = _row(
                dout_s,
                t,
                walk,
                e,
                in_e,
                dout_strides,
                sizes,
                length,
                REVERSED,
                SWAPPED,
                ONE_AXIS,
                WIDE,
            )
            if SILU:
                p = _weighted(taps, window, TAPS)
                if bias is not None:
                    p += tl.load(bias + (walk * channels + e), mask=in_e, other=0.0).to(tl.float32)
                gate = tl.sigmoid(p)
                dp *= gate * (1.0 + p * (1.0 - gate))
            slopes = (dp,) + slopes[: TAPS - 1]  # noqa: RUF005
            token = place_in_walk(t, walk, length, sizes, REVERSED, SWAPPED, ONE_AXIS, WIDE)
            at = to_token(token, row_strides, ONE_AXIS) * channels
            here = in_e & (e * 0 + t < behind)
            tl.store(dx_s + (at + e), _weighted(taps, slopes, TAPS), mask=here)
            own = tl.where(here, dp, 0.0)
            sum_of_slopes += own
            added = (sums_of_taps[0] + own * window[0],)
            for tap in tl.static_range(1, TAPS):
                added = added + (sums_of_taps[tap] + own * window[tap],)  # type: ignore[assignment]  # noqa: RUF005
            sums_of_taps = added
    program_of_all = walk * tl.num_programs(0) + tl.program_id(0)
    to = sums + tl.cast(program_of_all, tl.int64) * channels * (TAPS + 1)
    for tap in tl.static_range(TAPS):
        tl.store(to + (e * TAPS + (TAPS - 1 - tap)), sums_of_taps[tap], mask=in_e)
    tl.store(to + (channels * TAPS + e), sum_of_slopes, mask=in_e)
