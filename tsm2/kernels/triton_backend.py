"""The GPU backend: hands tensors to the Triton kernels and takes the results back.

No value ever comes to the host, and nothing is measured: how work is cut follows from the sizes
and the number of the device's processors, by the rules of `_cut` and `_shared_out`. So the kernels
can be captured in a CUDA graph, and what one process compiled, the next takes from Triton's cache.
The rules hold what was measured once, on an H200 (`docs/gpu.md`).
"""

import os
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from tsm2.kernels import triton_conv, triton_scan, triton_segments
from tsm2.kernels.interface import STATE_STEPS, ConvTensors, ScanTensors, Walk, as_arguments
from tsm2.kernels.triton_rows import Rows, rows_of

__all__ = ["conv_backward", "conv_forward", "scan_backward", "scan_forward"]

_Tensors = TypeVar("_Tensors", ScanTensors, ConvTensors)

# Any, for a launch takes more than a kernel's own arguments.
_SCAN: Any = triton_scan
_SEGMENTS: Any = triton_segments
_CONV: Any = triton_conv

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_WARPS = 1
"""Of every program: of 16, 32 and 64 channels with 1, 2 and 4 warps, 32 with one were fastest."""
_MOST_REGISTERS = {8: 184, 9: 168}
"""Of a thread in the backward pass, by the device's major version: the fewest without spills. A
processor then holds eleven or twelve programs."""
_ITEMS_PER_PROCESSOR = 64
_PROGRAMS_PER_PROCESSOR = 12
_FEWEST_CHUNKS = 2
"""In a segment: shorter ones cost more to join than they save."""
_CONV_SPAN, _CONV_SPAN_BACK = 32, 64
_TOKENS_AT_ONCE = 4


def scan_block(channels: int) -> int:
    """Return how many channels a program of a scan takes."""
    return 32 if channels > 16 else 16


def conv_block(channels: int) -> int:
    """Return how many channels a program of a convolution takes: four to a thread if there are."""
    return min(128, max(32, _power_of_two(channels)))


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


@cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 2
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


@cache
def _most_registers(device: torch.device) -> int:
    major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 9
    return _MOST_REGISTERS[8 if major < 9 else 9]


class _Cut(NamedTuple):
    """Into what pieces every sequence is cut along time."""

    segments: int
    span: int
    """Tokens of a segment, whole chunks; the last one may have fewer."""


def _cut(rows: Rows, blocks: int, per_processor: int, device: torch.device) -> _Cut:
    """Cut sequences into as many segments as keep a device busy; one if they do so uncut."""
    if _INTERPRETED:  # so that the smallest tensors have several
        return _Cut(-(-rows.length // STATE_STEPS), STATE_STEPS)
    wanted = -(-_processors(device) * per_processor // max(1, rows.sequences * blocks))
    segments = max(1, min(wanted, rows.length // (_FEWEST_CHUNKS * STATE_STEPS)))
    span = -(-rows.length // (segments * STATE_STEPS)) * STATE_STEPS
    return _Cut(-(-rows.length // span), span)


def _shared_out(items: int, per_processor: int, device: torch.device) -> int:
    """Return how many programs take so many items, all of them about equally many."""
    most = 3 if _INTERPRETED else _processors(device) * per_processor
    turns = -(-items // most)
    return -(-items // turns)


def _zeros_like(tensors: _Tensors) -> _Tensors:
    zeros: Any = (None if each is None else each.new_zeros(each.shape) for each in tensors)
    return type(tensors)(*zeros)


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


# --- scan -------------------------------------------------------------------------------------


def scan_forward(tensors: ScanTensors, walk: Walk, keep_states: bool) -> tuple[Tensor, Tensor]:
    """Scan, and keep the states before every chunk but the first."""
    u, delta, A, B, C, D, z, delta_bias, _ = tensors
    channels, states = A.shape
    out = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    rows = rows_of(u.shape[:-1], [u, delta, z, B, C], walk.axes, max(channels, states))
    borders = max(0, (rows.length - 1) // STATE_STEPS)
    shape = (rows.sequences, borders, states, channels) if keep_states else (0,)
    kept = torch.empty(shape, dtype=torch.float32, device=u.device)
    if out.numel():
        block = scan_block(channels)
        blocks = -(-channels // block)
        cut = _cut(rows, blocks, _ITEMS_PER_PROCESSOR, u.device)
        rate, skip, bias = A.contiguous(), _contiguous(D), _contiguous(delta_bias)
        u_, delta_, z_, B_, C_ = rows.tensors
        u_strides, delta_strides, z_strides, B_strides, C_strides, row_strides = rows.strides
        tile = {"BLOCK_N": _power_of_two(states), "BLOCK_E": block, "num_warps": _WARPS}
        order = _order(rows, walk)
        grid = (rows.sequences * cut.segments, blocks)
        starts = None
        if cut.segments > 1:
            starts, sums = _borders_of(rows, cut, A)
            _SEGMENTS.scan_segments[grid](
                u_,
                delta_,
                B_,
                rate,
                bias,
                starts,
                sums,
                u_strides,
                delta_strides,
                B_strides,
                rows.sizes,
                *cut,
                rows.length,
                channels,
                states,
                **order,
                **tile,
            )
            _join(starts, sums, rate, rows, cut, tile, backward=False)
        _SCAN.scan_forward[grid](
            u_,
            delta_,
            z_,
            B_,
            C_,
            rate,
            skip,
            bias,
            out,
            kept if borders and keep_states else None,
            starts,
            u_strides,
            delta_strides,
            z_strides,
            B_strides,
            C_strides,
            row_strides,
            rows.sizes,
            *cut,
            rows.length,
            channels,
            states,
            STEPS=STATE_STEPS,
            **order,
            **tile,
        )
    return out, kept


def scan_backward(tensors: ScanTensors, walk: Walk, dout: Tensor, states: Tensor) -> ScanTensors:
    """Find all gradients, from the last chunk to the first."""
    u, delta, A, B, C, D, z, delta_bias, _ = tensors
    if not u.numel():
        return _zeros_like(tensors)
    channels, n_states = A.shape
    rows = rows_of(u.shape[:-1], [u, delta, z, B, C, dout], walk.axes, max(channels, n_states))
    device, block = u.device, scan_block(channels)
    blocks = -(-channels // block)
    cut = _cut(rows, 1, _PROGRAMS_PER_PROCESSOR, device)
    programs = _shared_out(rows.sequences * cut.segments, _PROGRAMS_PER_PROCESSOR, device)
    # A program takes all blocks one after the other, unless too few programs are busy then.
    groups = 2 if _INTERPRETED else _processors(device) * _PROGRAMS_PER_PROCESSOR // programs
    groups = max(1, min(blocks, groups))
    tile = {"BLOCK_N": _power_of_two(n_states), "BLOCK_E": block, "num_warps": _WARPS}
    order = _order(rows, walk)

    single: Any = {"dtype": torch.float32, "device": device}
    du = torch.empty(u.shape, dtype=u.dtype, device=device)
    ddelta = torch.empty(u.shape, dtype=delta.dtype, device=device)
    dz = None if z is None else torch.empty(u.shape, dtype=z.dtype, device=device)
    added = torch.float32 if blocks > 1 else B.dtype  # what is added to is not rounded between
    dB = torch.empty((groups, *B.shape), dtype=added, device=device)
    dC = torch.empty((groups, *B.shape), dtype=added, device=device)
    sums = torch.empty((programs, channels * (n_states + 2)), **single)
    scratch = torch.empty((programs, groups, STATE_STEPS, tile["BLOCK_N"], block), **single)

    rate, skip, bias = A.contiguous(), _contiguous(D), _contiguous(delta_bias)
    u_, delta_, z_, B_, C_, dout_ = rows.tensors
    _, delta_strides, z_strides, _, C_strides, dout_strides, _ = rows.strides
    ends = None
    if cut.segments > 1:
        ends, lengths = _borders_of(rows, cut, A)
        _SEGMENTS.scan_segments_back[(rows.sequences * cut.segments, blocks)](
            delta_,
            z_,
            C_,
            dout_,
            rate,
            bias,
            ends,
            lengths,
            delta_strides,
            z_strides,
            C_strides,
            dout_strides,
            rows.sizes,
            *cut,
            rows.length,
            channels,
            n_states,
            **order,
            **tile,
        )
        _join(ends, lengths, rate, rows, cut, tile, backward=True)
    _SCAN.scan_backward[(programs, groups)](
        u_,
        delta_,
        z_,
        B_,
        C_,
        dout_,
        rate,
        skip,
        bias,
        states.contiguous(),
        ends,
        scratch,
        du,
        ddelta,
        dz,
        dB,
        dC,
        sums,
        *rows.strides,
        rows.sizes,
        rows.sequences,
        *cut,
        rows.length,
        channels,
        n_states,
        STEPS=STATE_STEPS,
        WHOLE=channels % block == 0 and n_states == tile["BLOCK_N"],
        maxnreg=_most_registers(device),
        **order,
        **tile,
    )
    dA, dD, ddelta_bias = torch.split(sums, [channels * n_states, channels, channels], 1)
    gradients = ScanTensors(
        u=du,
        delta=ddelta,
        A=_total(dA).view(n_states, channels).t().contiguous(),
        B=_total(dB),
        C=_total(dC),
        D=None if D is None else _total(dD),
        z=dz,
        delta_bias=None if delta_bias is None else _total(ddelta_bias),
    )
    return as_arguments(gradients, tensors)


def _borders_of(rows: Rows, cut: _Cut, A: Tensor) -> tuple[Tensor, Tensor]:
    """Return room for a state and a sum of steps at each segment's border."""
    single: Any = {"dtype": torch.float32, "device": A.device}
    channels, states = A.shape
    tiles = torch.empty((rows.sequences, cut.segments, states, channels), **single)
    return tiles, torch.empty((rows.sequences, cut.segments, channels), **single)


def _join(
    tiles: Tensor, sums: Tensor, A: Tensor, rows: Rows, cut: _Cut, tile: Any, *, backward: bool
) -> None:
    channels, states = A.shape
    blocks = -(-channels // tile["BLOCK_E"])
    _SEGMENTS.join_segments[(rows.sequences, blocks)](
        tiles, sums, A, cut.segments, channels, states, BACKWARD=backward, **tile
    )


def _order(rows: Rows, walk: Walk) -> dict[str, bool]:
    return {"REVERSE": walk.reverse, "ONE_AXIS": rows.one_axis, "WIDE": rows.wide}


def _total(parts: Tensor) -> Tensor:
    """Add up the first axis."""
    return parts[0] if len(parts) == 1 else parts.sum(0)


# --- convolution ------------------------------------------------------------------------------


def conv_forward(tensors: ConvTensors, walk: Walk, silu: bool) -> Tensor:
    """Convolve."""
    x, weight, bias = tensors
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if out.numel():
        channels, taps = weight.shape
        rows = rows_of(x.shape[:-1], [x], walk.axes, channels)
        cut = _conv_cut(rows, _CONV_SPAN)
        block = conv_block(channels)
        _CONV.conv_forward[(rows.sequences * cut.segments, -(-channels // block))](
            rows.tensors[0],
            weight.contiguous(),
            _contiguous(bias),
            out,
            *rows.strides,
            rows.sizes,
            *cut,
            rows.length,
            channels,
            TAPS=taps,
            SILU=silu,
            UNROLLED=_TOKENS_AT_ONCE,
            BLOCK_E=block,
            num_warps=_WARPS,
            **_order(rows, walk),
        )
    return out


def conv_backward(tensors: ConvTensors, walk: Walk, silu: bool, dout: Tensor) -> ConvTensors:
    """Find the gradients of x, weight and bias."""
    x, weight, bias = tensors
    if not x.numel():
        return _zeros_like(tensors)
    channels, taps = weight.shape
    rows = rows_of(x.shape[:-1], [x, dout], walk.axes, channels)
    cut = _conv_cut(rows, _CONV_SPAN_BACK)
    block = conv_block(channels)
    programs = _shared_out(rows.sequences * cut.segments, 2 * _PROGRAMS_PER_PROCESSOR, x.device)
    sums = torch.empty((programs, channels * (taps + 1)), dtype=torch.float32, device=x.device)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _CONV.conv_backward[(programs, -(-channels // block))](
        rows.tensors[0],
        weight.contiguous(),
        _contiguous(bias),
        rows.tensors[1],
        dx,
        sums,
        *rows.strides,
        rows.sizes,
        rows.sequences,
        *cut,
        rows.length,
        channels,
        TAPS=taps,
        SILU=silu,
        BLOCK_E=block,
        num_warps=_WARPS,
        **_order(rows, walk),
    )
    dweight, dbias = torch.split(sums, [channels * taps, channels], 1)
    total = _total(dweight).view(channels, taps)
    gradients = ConvTensors(dx, total, None if bias is None else _total(dbias))
    return as_arguments(gradients, tensors)


def _conv_cut(rows: Rows, span: int) -> _Cut:
    span = 8 if _INTERPRETED else span
    return _Cut(-(-rows.length // span), span)
