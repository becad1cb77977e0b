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

__all__ = [
    "conv_backward",
    "conv_forward",
    "convs_backward",
    "convs_forward",
    "scan_backward",
    "scan_forward",
    "scans_backward",
    "scans_forward",
]

_Tensors = TypeVar("_Tensors", ScanTensors, ConvTensors)

# Any, for a launch takes more than a kernel's own arguments.
_SCAN: Any = triton_scan
_SEGMENTS: Any = triton_segments
_CONV: Any = triton_conv

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_TILE = 512
"""States of a program, 16 to each thread of a warp. With fewer, several threads compute the steps
and gates of the same channel: with 4 states, 32 channels took twice as long as 64 or 128."""
_WARPS = 1
"""Of every program: of 16, 32 and 64 channels with 1, 2 and 4 warps, 32 with one were fastest."""
_MOST_REGISTERS, _MOST_REGISTERS_WIDE = 168, 255
"""Of a thread in the backward pass, which spills none then: a processor holds twelve programs, or
eight where distances take 64 bits."""
_ITEMS_PER_PROCESSOR = 64
_PROGRAMS_PER_PROCESSOR = 20
"""Of the backward pass, more than are held: the next one starts where one has ended early."""
_FEWEST_CHUNKS = 2
"""In a segment: shorter ones cost more to join than they save."""
_CONV_SPAN, _CONV_SPAN_BACK = 32, 64
_TOKENS_AT_ONCE = 4


def scan_block(channels: int, states: int) -> int:
    """Return how many channels a program of a scan takes.

    More than 32 only where blocks have neither channels nor states to spare: masks take registers.
    """
    if channels <= 16:
        return 16
    block = 128 if states == _power_of_two(states) else 32
    while block > 32 and (channels % block or block * states > _TILE):
        block //= 2
    return block


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


class _Cut(NamedTuple):
    """Into what pieces every sequence is cut along time."""

    segments: int
    span: int
    """Tokens of a segment, whole chunks; the last one may have fewer."""


def _cut(rows: Rows, blocks: int, per_processor: int, device: torch.device) -> _Cut:
    """Cut sequences into as many segments as keep a device busy; one if they do so uncut.

    Each is cut for `blocks` programs, of channels or of walks.
    """
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
    return _scan_forward(tensors, (walk,), keep_states, stacked=False)


def scans_forward(
    tensors: ScanTensors, walks: tuple[Walk, ...], keep_states: bool
) -> tuple[Tensor, Tensor]:
    """Scan along every walk in one launch, and add the outputs."""
    out, kept = _scan_forward(tensors, walks, keep_states, stacked=True)
    return out.sum(0), kept


def scan_backward(tensors: ScanTensors, walk: Walk, dout: Tensor, states: Tensor) -> ScanTensors:
    """Find all gradients, from the last chunk to the first."""
    return _scan_backward(tensors, (walk,), dout, states, stacked=False)


def scans_backward(
    tensors: ScanTensors, walks: tuple[Walk, ...], dout: Tensor, states: Tensor
) -> ScanTensors:
    """Find the gradients of all scans in one launch."""
    gradients = _scan_backward(tensors, walks, dout[None], states, stacked=True)
    if len(tensors.u) == 1:  # all read the same
        gradients = gradients._replace(u=gradients.u.sum(0, keepdim=True))
    return gradients


def _scan_forward(
    tensors: ScanTensors, walks: tuple[Walk, ...], keep_states: bool, *, stacked: bool
) -> tuple[Tensor, Tensor]:
    """Scan; what is stacked has an axis in front, with an entry for each walk."""
    u, delta, A, B, C, D, z, delta_bias, _ = tensors
    channels, states = A.shape[-2:]
    front = (len(walks),) if stacked else ()
    lead = u.shape[len(front) : -1]
    out = torch.empty((*front, *lead, channels), dtype=u.dtype, device=u.device)
    rows = _rows_of_walks(lead, [u, delta, z, B, C], walks, max(channels, states), stacked=stacked)
    borders = max(0, (rows.length - 1) // STATE_STEPS)
    shape = (*front, rows.sequences, borders, states, channels) if keep_states else (0,)
    kept = torch.empty(shape, dtype=torch.float32, device=u.device)
    if out.numel():
        block = scan_block(channels, states)
        blocks = -(-channels // block)
        cut = _cut(rows, blocks * len(walks), _ITEMS_PER_PROCESSOR, u.device)
        rate, skip, bias = A.contiguous(), _contiguous(D), _contiguous(delta_bias)
        u_, delta_, z_, B_, C_ = rows.tensors
        u_strides, delta_strides, z_strides, B_strides, C_strides, row_strides = rows.strides
        tile = {"BLOCK_N": _power_of_two(states), "BLOCK_E": block, "num_warps": _WARPS}
        order = _order(rows, walks)
        grid = (rows.sequences * cut.segments, blocks, len(walks))
        starts = None
        if cut.segments > 1:
            starts, sums = _borders_of(rows, cut, A, len(walks))
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
            _join(starts, sums, rate, rows, cut, len(walks), tile, backward=False)
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


def _scan_backward(
    tensors: ScanTensors, walks: tuple[Walk, ...], dout: Tensor, states: Tensor, *, stacked: bool
) -> ScanTensors:
    """Find the gradients; what is stacked has an axis in front, with an entry for each walk."""
    u, delta, A, B, C, D, z, delta_bias, _ = tensors
    if not u.numel():
        return _zeros_like(tensors)
    channels, n_states = A.shape[-2:]
    n_walks, front = len(walks), (len(walks),) if stacked else ()
    lead = u.shape[len(front) : -1]
    signals = [u, delta, z, B, C, dout]
    device, block = u.device, scan_block(channels, n_states)
    blocks = -(-channels // block)
    # A row of a signal, or one of dB in every part of it.
    columns = max(channels, blocks * n_states)
    rows = _rows_of_walks(lead, signals, walks, columns, stacked=stacked)
    cut = _cut(rows, n_walks, _PROGRAMS_PER_PROCESSOR, device)
    per_walk = max(1, _PROGRAMS_PER_PROCESSOR // n_walks)
    programs = _shared_out(rows.sequences * cut.segments, per_walk, device)
    # A program takes all blocks one after the other, unless too few programs are busy then.
    groups = 2 if _INTERPRETED else _processors(device) * per_walk // programs
    groups = max(1, min(blocks, groups))
    tile = {"BLOCK_N": _power_of_two(n_states), "BLOCK_E": block, "num_warps": _WARPS}
    order = _order(rows, walks)

    single: Any = {"dtype": torch.float32, "device": device}
    wide = (*front, *lead, channels)
    du = torch.empty(wide, dtype=u.dtype, device=device)
    ddelta = torch.empty(wide, dtype=delta.dtype, device=device)
    dz = None if z is None else torch.empty(wide, dtype=z.dtype, device=device)
    added = torch.float32 if blocks > 1 else B.dtype  # what is added to is not rounded between
    dB = torch.empty((*front, groups, *lead, n_states), dtype=added, device=device)
    dC = torch.empty_like(dB)
    sums = torch.empty((*front, programs, channels * (n_states + 2)), **single)
    scratch = torch.empty(
        (n_walks, programs, groups, STATE_STEPS, tile["BLOCK_N"], block), **single
    )

    rate, skip, bias = A.contiguous(), _contiguous(D), _contiguous(delta_bias)
    u_, delta_, z_, B_, C_, dout_ = rows.tensors
    _, delta_strides, z_strides, _, C_strides, dout_strides, _ = rows.strides
    ends = None
    if cut.segments > 1:
        ends, lengths = _borders_of(rows, cut, A, n_walks)
        _SEGMENTS.scan_segments_back[(rows.sequences * cut.segments, blocks, n_walks)](
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
        _join(ends, lengths, rate, rows, cut, n_walks, tile, backward=True)
    _SCAN.scan_backward[(programs, groups, n_walks)](
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
        maxnreg=_MOST_REGISTERS_WIDE if rows.wide else _MOST_REGISTERS,
        **order,
        **tile,
    )
    axis = len(front)  # of the parts that are added up
    dA, dD, ddelta_bias = torch.split(sums, [channels * n_states, channels, channels], -1)
    dA = _total(dA, axis).view(*front, n_states, channels).transpose(-1, -2)
    gradients = ScanTensors(
        u=du,
        delta=ddelta,
        A=dA.contiguous(),
        B=_total(dB, axis),
        C=_total(dC, axis),
        D=None if D is None else _total(dD, axis),
        z=dz,
        delta_bias=None if delta_bias is None else _total(ddelta_bias, axis),
    )
    return as_arguments(gradients, tensors)


def _borders_of(rows: Rows, cut: _Cut, A: Tensor, walks: int) -> tuple[Tensor, Tensor]:
    """Return room for a state and a sum of steps at each segment's border."""
    single: Any = {"dtype": torch.float32, "device": A.device}
    channels, states = A.shape[-2:]
    tiles = torch.empty((walks, rows.sequences, cut.segments, states, channels), **single)
    return tiles, torch.empty((walks, rows.sequences, cut.segments, channels), **single)


def _join(
    tiles: Tensor,
    sums: Tensor,
    A: Tensor,
    rows: Rows,
    cut: _Cut,
    walks: int,
    tile: Any,
    *,
    backward: bool,
) -> None:
    channels, states = A.shape[-2:]
    blocks = -(-channels // tile["BLOCK_E"])
    _SEGMENTS.join_segments[(rows.sequences, blocks, walks)](
        tiles, sums, A, cut.segments, channels, states, WALKS=walks, BACKWARD=backward, **tile
    )


def _rows_of_walks(
    lead: tuple[int, ...],
    tensors: list[Tensor | None],
    walks: tuple[Walk, ...],
    columns: int,
    *,
    stacked: bool,
) -> Rows:
    axes = walks[0].axes
    swapped = any(walk.axes != axes for walk in walks)
    return rows_of(lead, tensors, axes, columns, walks=len(walks), stacked=stacked, swapped=swapped)


def _order(rows: Rows, walks: tuple[Walk, ...]) -> dict[str, int]:
    """Say how the walks go: a bit for each, the first one's axes being the order to swap."""
    backwards = (walk.reverse << k for k, walk in enumerate(walks))
    swapped = ((walk.axes != walks[0].axes) << k for k, walk in enumerate(walks))
    return {
        "WALKS": len(walks),
        "REVERSED": sum(backwards),
        "SWAPPED": sum(swapped),
        "ONE_AXIS": rows.one_axis,
        "WIDE": rows.wide,
    }


def _total(parts: Tensor, axis: int) -> Tensor:
    """Add up an axis."""
    return parts.squeeze(axis) if parts.shape[axis] == 1 else parts.sum(axis)


# --- convolution ------------------------------------------------------------------------------


def conv_forward(tensors: ConvTensors, walk: Walk, silu: bool) -> Tensor:
    """Convolve."""
    return _conv_forward(tensors, (walk,), silu, stacked=False)


def convs_forward(tensors: ConvTensors, walks: tuple[Walk, ...], silu: bool) -> Tensor:
    """Convolve along every walk in one launch."""
    return _conv_forward(tensors, walks, silu, stacked=True)


def conv_backward(tensors: ConvTensors, walk: Walk, silu: bool, dout: Tensor) -> ConvTensors:
    """Find the gradients of x, weight and bias."""
    return _conv_backward(tensors, (walk,), silu, dout, stacked=False)


def convs_backward(
    tensors: ConvTensors, walks: tuple[Walk, ...], silu: bool, dout: Tensor
) -> ConvTensors:
    """Find the gradients of all convolutions in one launch."""
    gradients = _conv_backward(tensors, walks, silu, dout, stacked=True)
    if len(tensors.x) == 1:  # all read the same
        gradients = gradients._replace(x=gradients.x.sum(0, keepdim=True))
    return gradients


def _conv_forward(
    tensors: ConvTensors, walks: tuple[Walk, ...], silu: bool, *, stacked: bool
) -> Tensor:
    x, weight, bias = tensors
    front = (len(walks),) if stacked else ()
    lead = x.shape[len(front) : -1]
    out = torch.empty((*front, *lead, x.shape[-1]), dtype=x.dtype, device=x.device)
    if out.numel():
        channels, taps = weight.shape[-2:]
        rows = _rows_of_walks(lead, [x], walks, channels, stacked=stacked)
        cut = _conv_cut(rows, _CONV_SPAN)
        block = conv_block(channels)
        _CONV.conv_forward[(rows.sequences * cut.segments, -(-channels // block), len(walks))](
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
            **_order(rows, walks),
        )
    return out


def _conv_backward(
    tensors: ConvTensors, walks: tuple[Walk, ...], silu: bool, dout: Tensor, *, stacked: bool
) -> ConvTensors:
    x, weight, bias = tensors
    if not x.numel():
        return _zeros_like(tensors)
    channels, taps = weight.shape[-2:]
    front = (len(walks),) if stacked else ()
    lead = x.shape[len(front) : -1]
    rows = _rows_of_walks(lead, [x, dout], walks, channels, stacked=stacked)
    cut = _conv_cut(rows, _CONV_SPAN_BACK)
    block = conv_block(channels)
    per_walk = max(1, 2 * _PROGRAMS_PER_PROCESSOR // len(walks))
    programs = _shared_out(rows.sequences * cut.segments, per_walk, x.device)
    shape = (*front, programs, channels * (taps + 1))
    sums = torch.empty(shape, dtype=torch.float32, device=x.device)
    dx = torch.empty((*front, *lead, channels), dtype=x.dtype, device=x.device)
    _CONV.conv_backward[(programs, -(-channels // block), len(walks))](
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
        **_order(rows, walks),
    )
    dweight, dbias = torch.split(sums, [channels * taps, channels], -1)
    total = _total(dweight, len(front)).view(*front, channels, taps)
    gradients = ConvTensors(dx, total, None if bias is None else _total(dbias, len(front)))
    return as_arguments(gradients, tensors)


def _conv_cut(rows: Rows, span: int) -> _Cut:
    span = 8 if _INTERPRETED else span
    return _Cut(-(-rows.length // span), span)
