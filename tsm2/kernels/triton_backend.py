"""The GPU backend: hands tensors to the Triton kernels and takes the results back.

No value ever comes to the host, so the kernels can be captured in a CUDA graph, after one call
outside of it: the first call for each width of rows measures which block size is the fastest.
"""

import os
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from tsm2.kernels import triton_conv, triton_scan
from tsm2.kernels.fused import STATE_STEPS
from tsm2.kernels.triton_rows import Rows, rows_of

__all__ = ["conv_backward", "conv_forward", "scan_backward", "scan_forward"]

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


def _zeros_like(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.new_zeros(tensor.shape)


def _grid(programs: int, channels: int) -> Any:
    return lambda meta: (programs, triton.cdiv(channels, meta["BLOCK_E"]))


# --- scan -------------------------------------------------------------------------------------


def scan_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    axes: tuple[int, ...],
    reverse: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    """Scan, and keep the states before every chunk but the first."""
    channels, states = A.shape
    out = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    rows = rows_of(u.shape[:-1], [u, delta, z, B, C, _row_numbers(u)], axes)
    borders = max(0, (rows.length - 1) // STATE_STEPS)
    shape = (rows.sequences, borders, states, channels) if keep_states else (0,)
    kept = torch.empty(shape, dtype=torch.float32, device=u.device)
    if out.numel():
        _scan_forward[_grid(rows.sequences, channels)](
            *rows.tensors[:5],
            *_parameters(A, D, delta_bias),
            out,
            kept if kept.numel() else None,
            *rows.strides,
            rows.sizes,
            rows.sequences,
            rows.length,
            channels,
            states,
            REVERSE=reverse,
            STEPS=STATE_STEPS,
            BLOCK_N=triton.next_power_of_2(max(1, states)),
        )
    return out, kept


def scan_backward(
    dout: Tensor,
    states: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    axes: tuple[int, ...],
    reverse: bool,
) -> tuple[Tensor | None, ...]:
    """Find all gradients, from the last chunk to the first."""
    if not u.numel():
        return tuple(map(_zeros_like, (u, delta, A, B, C, D, z, delta_bias)))
    channels, n_states = A.shape
    rows = rows_of(u.shape[:-1], [u, delta, z, B, C, dout, _row_numbers(u)], axes)
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
        *_parameters(A, D, delta_bias),
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
        REVERSE=reverse,
        STEPS=STATE_STEPS,
        BLOCK_N=block_n,
    )
    blocks = triton.cdiv(channels, _scan_backward.best_config.kwargs["BLOCK_E"])
    return (
        du,
        ddelta,
        dA.sum(0).to(A.dtype),
        dB[:blocks].sum(0).to(B.dtype),
        dC[:blocks].sum(0).to(C.dtype),
        None if D is None else dD.sum(0).to(D.dtype),
        dz,
        None if delta_bias is None else ddelta_bias.sum(0).to(delta_bias.dtype),
    )


def _row_numbers(signal: Tensor) -> Tensor:
    """Return a tensor without memory whose strides count the rows of a contiguous signal."""
    return torch.empty((*signal.shape[:-1], 1), device="meta")


def _parameters(
    A: Tensor, D: Tensor | None, delta_bias: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    return (
        A.contiguous(),
        None if D is None else D.contiguous(),
        None if delta_bias is None else delta_bias.contiguous(),
    )


# --- convolution ------------------------------------------------------------------------------


def conv_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: tuple[int, ...],
    reverse: bool,
    silu: bool,
) -> Tensor:
    """Convolve."""
    return _convolve(x, weight, bias, axes, reverse, silu, x.dtype)


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: tuple[int, ...],
    reverse: bool,
    silu: bool,
    dtype: torch.dtype,
) -> Tensor:
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    if out.numel():
        channels, taps = weight.shape
        rows = rows_of(x.shape[:-1], [x, _row_numbers(x)], axes)
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
            REVERSE=reverse,
            BLOCK_T=block,
        )
    return out


def conv_backward(
    dout: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: tuple[int, ...],
    reverse: bool,
    silu: bool,
) -> tuple[Tensor | None, ...]:
    """Find the gradients of x, weight and bias."""
    if not x.numel():
        return tuple(map(_zeros_like, (x, weight, bias)))
    channels, taps = weight.shape
    rows = rows_of(x.shape[:-1], [x, dout, _row_numbers(x)], axes)
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
        REVERSE=reverse,
        BLOCK_K=triton.next_power_of_2(taps + 1),
        BLOCK_T=block,
    )
    total = sums.sum(0)
    return (
        _convolve(dp, weight, None, axes, not reverse, False, x.dtype),
        total[:taps].flip(0).t().contiguous().to(weight.dtype),
        None if bias is None else total[taps].clone().to(bias.dtype),
    )


def _tokens_in_tile(rows: Rows) -> int:
    return min(_TOKENS_IN_TILE, int(triton.next_power_of_2(max(1, rows.length))))
