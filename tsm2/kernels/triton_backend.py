"""The GPU backend: hands tensors to the Triton kernels and takes the results back.

No value ever comes to the host, so the kernels can be captured in a CUDA graph, after one call
outside of it: the first call for each width of rows measures which block size is the fastest.
"""

import os
from functools import cache
from typing import Any, TypeVar

import torch
import triton
from torch import Tensor

from tsm2.kernels import triton_conv, triton_scan
from tsm2.kernels.interface import STATE_STEPS, ConvTensors, ScanTensors, Walk, as_arguments
from tsm2.kernels.triton_rows import Rows, rows_of

__all__ = ["conv_backward", "conv_forward", "scan_backward", "scan_forward"]

_Tensors = TypeVar("_Tensors", ScanTensors, ConvTensors)

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_BLOCKS = ((16, 1), (32, 2), (32, 4), (64, 8))
"""Channels in a block, and the warps for it; with fewer warps the registers do not suffice."""
_NARROWEST, _WIDEST = _BLOCKS[0][0], _BLOCKS[-1][0]
_TOKENS_IN_TILE = 16
_PROGRAMS_PER_PROCESSOR = 16


def _tuned(kernel: Any, key: list[str]) -> Any:
    """Let Triton measure which block is the fastest for each value of the key."""
    blocks = _BLOCKS[:1] if _INTERPRETED else _BLOCKS
    configurations = [triton.Config({"BLOCK_E": size}, num_warps=warps) for size, warps in blocks]
    return triton.autotune(configurations, key=key)(kernel)


_scan_forward = _tuned(triton_scan.scan_forward, ["channels", "states"])
_scan_backward = _tuned(triton_scan.scan_backward, ["channels", "states"])
_conv_forward = _tuned(triton_conv.conv_forward, ["channels", "TAPS", "BLOCK_T"])
_conv_sums = _tuned(triton_conv.conv_sums, ["channels", "TAPS", "BLOCK_T"])


@cache
def _most_programs(device: torch.device) -> int:
    """Return how many programs keep a device busy; more would only cost memory."""
    if device.type != "cuda":
        return 3  # in the interpreter, so that programs take several sequences
    processors: int = torch.cuda.get_device_properties(device).multi_processor_count
    return processors * _PROGRAMS_PER_PROCESSOR


def _zeros_like(tensors: _Tensors) -> _Tensors:
    zeros: Any = (None if each is None else each.new_zeros(each.shape) for each in tensors)
    return type(tensors)(*zeros)


def _grid(programs: int, channels: int) -> Any:
    return lambda meta: (programs, triton.cdiv(channels, meta["BLOCK_E"]))


# --- scan -------------------------------------------------------------------------------------


def scan_forward(tensors: ScanTensors, walk: Walk, keep_states: bool) -> tuple[Tensor, Tensor]:
    """Scan, and keep the states before every chunk but the first."""
    u = tensors.u
    channels, states = tensors.A.shape
    out = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    rows = rows_of(u.shape[:-1], [*_signals(tensors), _row_numbers(u)], walk.axes)
    borders = max(0, (rows.length - 1) // STATE_STEPS)
    shape = (rows.sequences, borders, states, channels) if keep_states else (0,)
    kept = torch.empty(shape, dtype=torch.float32, device=u.device)
    if out.numel():
        _scan_forward[_grid(rows.sequences, channels)](
            *rows.tensors[:5],
            *_parameters(tensors),
            out,
            kept if kept.numel() else None,
            *rows.strides,
            rows.sizes,
            rows.sequences,
            rows.length,
            channels,
            states,
            REVERSE=walk.reverse,
            STEPS=STATE_STEPS,
            BLOCK_N=triton.next_power_of_2(max(1, states)),
        )
    return out, kept


def scan_backward(tensors: ScanTensors, walk: Walk, dout: Tensor, states: Tensor) -> ScanTensors:
    """Find all gradients, from the last chunk to the first."""
    u, delta, A, B, _, _, z, *_ = tensors
    if not u.numel():
        return _zeros_like(tensors)
    channels, n_states = A.shape
    rows = rows_of(u.shape[:-1], [*_signals(tensors), dout, _row_numbers(u)], walk.axes)
    programs = min(rows.sequences, _most_programs(u.device))
    single: Any = {"dtype": torch.float32, "device": u.device}
    du, ddelta = (torch.empty(u.shape, dtype=each.dtype, device=u.device) for each in (u, delta))
    dz = None if z is None else torch.empty(u.shape, dtype=z.dtype, device=u.device)
    blocks = triton.cdiv(channels, _NARROWEST)
    dB, dC = (torch.empty(blocks, *B.shape, **single) for _ in range(2))
    dA = torch.empty(programs, channels, n_states, **single)
    dD, ddelta_bias = (torch.empty(programs, channels, **single) for _ in range(2))
    block_n = triton.next_power_of_2(max(1, n_states))
    padded = triton.cdiv(channels, _WIDEST) * _WIDEST
    scratch = torch.empty(programs, STATE_STEPS + 1, block_n, padded, **single)
    _scan_backward[_grid(programs, channels)](
        *rows.tensors[:5],
        *_parameters(tensors),
        rows.tensors[5],
        states.contiguous(),
        scratch,
        du,
        ddelta,
        dz,
        dB,
        dC,
        dA,
        dD,
        ddelta_bias,
        *rows.strides,
        rows.sizes,
        rows.sequences,
        rows.length,
        channels,
        n_states,
        padded,
        REVERSE=walk.reverse,
        STEPS=STATE_STEPS,
        BLOCK_N=block_n,
    )
    blocks = triton.cdiv(channels, _scan_backward.best_config.kwargs["BLOCK_E"])
    gradients = ScanTensors(
        u=du,
        delta=ddelta,
        A=dA.sum(0),
        B=dB[:blocks].sum(0),
        C=dC[:blocks].sum(0),
        D=dD.sum(0),
        z=dz,
        delta_bias=ddelta_bias.sum(0),
    )
    return as_arguments(gradients, tensors)


def _signals(tensors: ScanTensors) -> tuple[Tensor | None, ...]:
    """Return what has rows, in the order of the kernels."""
    return tensors.u, tensors.delta, tensors.z, tensors.B, tensors.C


def _row_numbers(signal: Tensor) -> Tensor:
    """Return a tensor without memory whose strides count the rows of a contiguous signal."""
    return torch.empty((*signal.shape[:-1], 1), device="meta")


def _parameters(tensors: ScanTensors) -> tuple[Tensor | None, ...]:
    """Return what has none, in the order of the kernels."""
    parameters = (tensors.A, tensors.D, tensors.delta_bias)
    return tuple(None if each is None else each.contiguous() for each in parameters)


# --- convolution ------------------------------------------------------------------------------


def conv_forward(tensors: ConvTensors, walk: Walk, silu: bool) -> Tensor:
    """Convolve."""
    return _convolve(tensors, walk, silu, tensors.x.dtype)


def _convolve(tensors: ConvTensors, walk: Walk, silu: bool, dtype: torch.dtype) -> Tensor:
    x, weight, bias = tensors
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    if out.numel():
        channels, taps = weight.shape
        rows = rows_of(x.shape[:-1], [x, _row_numbers(x)], walk.axes)
        block = _tokens_in_tile(rows)
        tasks = rows.sequences * triton.cdiv(rows.length, block)
        _conv_forward[_grid(tasks, channels)](
            rows.tensors[0],
            weight.contiguous(),
            None if bias is None else bias.contiguous(),
            out,
            *rows.strides,
            rows.sizes,
            rows.length,
            channels,
            TAPS=taps,
            SILU=silu,
            REVERSE=walk.reverse,
            BLOCK_T=block,
        )
    return out


def conv_backward(tensors: ConvTensors, walk: Walk, silu: bool, dout: Tensor) -> ConvTensors:
    """Find the gradients of x, weight and bias."""
    x, weight, bias = tensors
    if not x.numel():
        return _zeros_like(tensors)
    channels, taps = weight.shape
    rows = rows_of(x.shape[:-1], [x, dout, _row_numbers(x)], walk.axes)
    block = _tokens_in_tile(rows)
    tasks = rows.sequences * triton.cdiv(rows.length, block)
    programs = min(tasks, _most_programs(x.device))
    sums = torch.empty(programs, taps + 1, channels, dtype=torch.float32, device=x.device)
    dp = torch.empty(x.shape, dtype=torch.float32, device=x.device) if silu else dout
    _conv_sums[_grid(programs, channels)](
        rows.tensors[0],
        weight.contiguous(),
        None if bias is None else bias.contiguous(),
        rows.tensors[1],
        dp,
        sums,
        *rows.strides,
        rows.sizes,
        tasks,
        rows.length,
        channels,
        TAPS=taps,
        SILU=silu,
        REVERSE=walk.reverse,
        BLOCK_K=triton.next_power_of_2(taps + 1),
        BLOCK_T=block,
    )
    total = sums.sum(0)
    way_back = Walk(walk.axes, not walk.reverse)
    gradients = ConvTensors(
        x=_convolve(ConvTensors(dp, weight, None), way_back, False, x.dtype),
        weight=total[:taps].flip(0).t().contiguous(),
        bias=total[taps].clone(),
    )
    return as_arguments(gradients, tensors)


def _tokens_in_tile(rows: Rows) -> int:
    return min(_TOKENS_IN_TILE, int(triton.next_power_of_2(max(1, rows.length))))
