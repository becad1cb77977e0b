"""The CPU backend: hands tensors to the numba kernels and takes the results back.

The kernels read raw addresses. So every tensor goes through `kernel_input` first, and every
tensor whose address a call holds stays in a local variable until the call is over.
"""

from math import log

import torch
from numba import config
from torch import Tensor

from tsm2.errors import ParameterError
from tsm2.kernels import numba_conv, numba_scan
from tsm2.kernels.numba_rows import Walk, kernel_input, walk_over
from tsm2.kernels.numba_runtime import n_chunks, run
from tsm2.kernels.numba_vectors import LANES

__all__ = ["conv_backward", "conv_forward", "scan_backward", "scan_forward"]

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("needs numba's compiler, which NUMBA_DISABLE_JIT switches off")


def _in_vectors(channels: int) -> int:
    """Round a number of channels up to whole vectors."""
    return -(-channels // LANES) * LANES


def _paired(states: int) -> int:
    return states + states % 2


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
    delta_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scan, and keep the states before every chunk but the first."""
    if A.numel() and A.amax() > 0:
        raise ParameterError(f"A must hold no positive rate, got {A.max().item()}")
    walk = walk_over(tuple(u.shape[:-1]), axes, reverse)
    dtype, shape = u.dtype, u.shape
    u, delta, B, C = (kernel_input(each) for each in (u, delta, B, C))
    z = None if z is None else kernel_input(z)
    parameters = _scan_parameters(A, D, delta_bias, delta_weight)
    borders = max(0, (walk.length - 1) // numba_scan.STEPS)
    kept = (walk.sequences, borders, A.shape[1], shape[-1]) if keep_states else (0,)
    states, out = u.new_empty(kept), u.new_empty(shape)
    scan = _describe_scan(walk, u, delta, B, C, z, parameters, states)
    run(
        numba_scan.forward,
        numba_scan.Forward(scan, walk.rows(out)),
        tasks=walk.sequences * scan.blocks,
        work=u.numel() * scan.states,
        workspace_bytes=numba_scan.workspace_bytes(scan.states, scan.rank),
    )
    return _as(out, dtype), states


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
    delta_weight: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """Find all gradients, from the last chunk to the first."""
    arguments = (u, delta, A, B, C, D, z, delta_bias, delta_weight)
    walk = walk_over(tuple(u.shape[:-1]), axes, reverse)
    dout, u, delta, B, C = (kernel_input(each) for each in (dout, u, delta, B, C))
    z = None if z is None else kernel_input(z)
    parameters, states = _scan_parameters(A, D, delta_bias, delta_weight), states.contiguous()
    scan = _describe_scan(walk, u, delta, B, C, z, parameters, states)
    # Few sequences: the blocks of a row go to several tasks, each with sums over E of its own.
    groups = min(scan.blocks, -(-2 // max(1, walk.sequences)))
    tasks = walk.sequences * groups
    du = u.new_empty(u.shape)
    ddelta = delta.new_zeros(groups, *delta.shape) if scan.rank else u.new_empty(1, *u.shape)
    dz = None if z is None else u.new_empty(u.shape)
    dB, dC = B.new_zeros(groups, *B.shape), C.new_zeros(groups, *C.shape)
    sums = u.new_zeros(n_chunks(tasks), *parameters.shape)
    call = numba_scan.Backward(
        scan=scan,
        groups=groups,
        dout=walk.rows(dout),
        du=walk.rows(du),
        ddelta=walk.rows(ddelta[0] if groups else None),
        dz=walk.rows(dz),
        dB=walk.rows(dB[0] if groups else None),
        dC=walk.rows(dC[0] if groups else None),
        ddelta_group_bytes=ddelta.stride(0) * ddelta.itemsize if scan.rank else 0,
        group_bytes=dB.stride(0) * dB.itemsize,
        sums=sums.data_ptr(),
    )
    run(
        numba_scan.backward,
        call,
        tasks=tasks,
        work=2 * u.numel() * scan.states,
        workspace_bytes=numba_scan.workspace_bytes(scan.states, scan.rank),
    )
    total = sums.sum(0)[:, : scan.channels]
    D_at = scan.paired
    gradients = (
        du,
        ddelta[0] if len(ddelta) == 1 else ddelta.sum(0),
        total[: scan.states].t().contiguous(),
        dB[0] if groups == 1 else dB.sum(0),
        dC[0] if groups == 1 else dC.sum(0),
        total[D_at].clone(),
        dz,
        total[D_at + 1].clone(),
        total[D_at + 2 :].t().contiguous(),
    )
    wanted = _as_arguments(gradients, arguments)
    return wanted[:-1] if delta_weight is None else wanted


def _scan_parameters(
    A: Tensor, D: Tensor | None, delta_bias: Tensor | None, delta_weight: Tensor | None
) -> Tensor:
    """Stack A log2(e), D, delta_bias and W, (N paired + 2 + R, padded), zeros for what is None."""
    channels, states = A.shape
    rank = 0 if delta_weight is None else delta_weight.shape[1]
    D_at = _paired(states)
    table = A.new_zeros(D_at + 2 + rank, _in_vectors(channels), dtype=torch.float32)
    torch.mul(A.t(), 1 / log(2), out=table[:states, :channels])
    if D is not None:
        table[D_at, :channels] = D
    if delta_bias is not None:
        table[D_at + 1, :channels] = delta_bias
    if delta_weight is not None:
        table[D_at + 2 :, :channels] = delta_weight.t()
    return table


def _describe_scan(
    walk: Walk,
    u: Tensor,
    delta: Tensor,
    B: Tensor,
    C: Tensor,
    z: Tensor | None,
    parameters: Tensor,
    kept: Tensor,
) -> numba_scan.Scan:
    states, n_tiles = B.shape[-1], parameters.shape[1] // LANES
    D_at = _paired(states)
    tiles = numba_scan.TILES
    while tiles > 1 and walk.sequences * -(-n_tiles // tiles) < 2:
        tiles //= 2  # smaller blocks, so that there are tasks for several threads
    padded = parameters.stride(0) * parameters.itemsize
    return numba_scan.Scan(
        u=walk.rows(u),
        delta=walk.rows(delta),
        z=walk.rows(z),
        B=walk.rows(B),
        C=walk.rows(C),
        A=parameters.data_ptr(),
        D=parameters.data_ptr() + D_at * padded,
        delta_bias=parameters.data_ptr() + (D_at + 1) * padded,
        W=parameters.data_ptr() + (D_at + 2) * padded,
        kept=kept.data_ptr(),
        gated=z is not None,
        rank=len(parameters) - D_at - 2,
        sequences=walk.sequences,
        length=walk.length,
        states=states,
        paired=D_at,
        channels=u.shape[-1],
        padded=padded,
        tiles=tiles,
        blocks=-(-n_tiles // tiles),
    )


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype is dtype else tensor.to(dtype)


def _as_arguments(
    gradients: tuple[Tensor | None, ...], arguments: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Give each gradient its argument's dtype, and leave out those of arguments that are None."""
    return tuple(
        None if gradient is None or argument is None else _as(gradient, argument.dtype)
        for gradient, argument in zip(gradients, arguments, strict=True)
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
    walk = walk_over(tuple(x.shape[:-1]), axes, reverse)
    dtype, x = x.dtype, kernel_input(x)
    parameters = _conv_parameters(weight, bias)
    out = x.new_empty(x.shape)
    conv = _describe_conv(walk, silu, x, parameters)
    run(
        numba_conv.forward,
        numba_conv.Forward(conv, walk.rows(out)),
        tasks=walk.sequences * conv.blocks,
        work=x.numel(),
        workspace_bytes=0,
    )
    return _as(out, dtype)


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
    arguments = (x, weight, bias)
    walk = walk_over(tuple(x.shape[:-1]), axes, reverse)
    dout, x = kernel_input(dout), kernel_input(x)
    parameters = _conv_parameters(weight, bias)
    conv = _describe_conv(walk, silu, x, parameters)
    tasks = walk.sequences * conv.blocks
    dx = x.new_empty(x.shape)
    sums = x.new_zeros(n_chunks(tasks), *parameters.shape)
    call = numba_conv.Backward(conv, walk.rows(dout), walk.rows(dx), sums.data_ptr())
    run(
        numba_conv.backward,
        call,
        tasks=tasks,
        work=2 * x.numel(),
        workspace_bytes=0,
    )
    *dW, dbias = sums.sum(0)[:, : conv.channels]  # K taps, then the bias
    return _as_arguments((dx, torch.stack(dW, -1), dbias.clone()), arguments)


def _conv_parameters(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Stack the weights and the bias, (K + 1, padded)."""
    channels, taps = weight.shape
    table = weight.new_zeros(taps + 1, _in_vectors(channels), dtype=torch.float32)
    table[:taps, :channels] = weight.t()
    if bias is not None:
        table[taps, :channels] = bias
    return table


def _describe_conv(walk: Walk, silu: bool, x: Tensor, parameters: Tensor) -> numba_conv.Conv:
    taps = parameters.shape[0] - 1
    padded = parameters.stride(0) * parameters.itemsize
    return numba_conv.Conv(
        x=walk.rows(x),
        W=parameters.data_ptr(),
        bias=parameters.data_ptr() + taps * padded,
        silu=silu,
        taps=taps,
        length=walk.length,
        channels=x.shape[-1],
        padded=padded,
        blocks=-(-parameters.shape[1] // (LANES * numba_conv.TILES)),
    )
