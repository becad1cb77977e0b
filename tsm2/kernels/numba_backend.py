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
from tsm2.kernels.interface import ConvTensors, ScanTensors, Walk, as_arguments
from tsm2.kernels.numba_rows import RowTables, kernel_input, tables_of
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


def scan_forward(tensors: ScanTensors, walk: Walk, keep_states: bool) -> tuple[Tensor, Tensor]:
    """Scan, and keep the states before every chunk but the first."""
    A, dtype = tensors.A, tensors.u.dtype
    if A.numel() and A.amax() > 0:
        raise ParameterError(f"A must hold no positive rate, got {A.max().item()}")
    tensors, parameters = _readable(tensors), _scan_parameters(tensors)
    u = tensors.u
    tables = tables_of(tuple(u.shape[:-1]), walk)
    borders = max(0, (tables.length - 1) // numba_scan.STEPS)
    kept = (tables.sequences, borders, A.shape[1], u.shape[-1]) if keep_states else (0,)
    states, out = u.new_empty(kept), u.new_empty(u.shape)
    scan = _describe_scan(tensors, tables, parameters, states)
    run(
        numba_scan.forward,
        numba_scan.Forward(scan, tables.rows(out)),
        tasks=tables.sequences * scan.blocks,
        work=u.numel() * scan.states,
        workspace_bytes=numba_scan.workspace_bytes(scan.states, scan.rank),
    )
    return (out if dtype is torch.float32 else out.to(dtype)), states


def scan_backward(tensors: ScanTensors, walk: Walk, dout: Tensor, states: Tensor) -> ScanTensors:
    """Find all gradients, from the last chunk to the first."""
    arguments = tensors
    tensors, parameters = _readable(tensors), _scan_parameters(tensors)
    u, delta, _, B, C, _, z, *_ = tensors
    dout, states = kernel_input(dout), states.contiguous()
    tables = tables_of(tuple(u.shape[:-1]), walk)
    scan = _describe_scan(tensors, tables, parameters, states)
    # Few sequences: the blocks of a row go to several tasks, each with sums over E of its own.
    groups = min(scan.blocks, -(-2 // max(1, tables.sequences)))
    tasks = tables.sequences * groups
    du = u.new_empty(u.shape)
    ddelta = delta.new_zeros(groups, *delta.shape) if scan.rank else u.new_empty(1, *u.shape)
    dz = None if z is None else u.new_empty(u.shape)
    dB, dC = B.new_zeros(groups, *B.shape), C.new_zeros(groups, *C.shape)
    sums = u.new_zeros(n_chunks(tasks), *parameters.shape)
    call = numba_scan.Backward(
        scan=scan,
        groups=groups,
        dout=tables.rows(dout),
        du=tables.rows(du),
        ddelta=tables.rows(ddelta[0] if groups else None),
        dz=tables.rows(dz),
        dB=tables.rows(dB[0] if groups else None),
        dC=tables.rows(dC[0] if groups else None),
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
    gradients = ScanTensors(
        u=du,
        delta=ddelta[0] if len(ddelta) == 1 else ddelta.sum(0),
        A=total[: scan.states].t().contiguous(),
        B=dB[0] if groups == 1 else dB.sum(0),
        C=dC[0] if groups == 1 else dC.sum(0),
        D=total[D_at].clone(),
        z=dz,
        delta_bias=total[D_at + 1].clone(),
        delta_weight=total[D_at + 2 :].t().contiguous(),
    )
    return as_arguments(gradients, arguments)


def _readable(tensors: ScanTensors) -> ScanTensors:
    """Return the signals as a kernel may read them, and the parameters as they are."""
    u, delta, A, B, C, D, z, *rest = tensors
    u, delta, B, C = (kernel_input(each) for each in (u, delta, B, C))
    return ScanTensors(u, delta, A, B, C, D, None if z is None else kernel_input(z), *rest)


def _scan_parameters(tensors: ScanTensors) -> Tensor:
    """Stack A log2(e), D, delta_bias and W, (N paired + 2 + R, padded), zeros for what is None."""
    A, D, delta_bias, delta_weight = tensors.A, tensors.D, tensors.delta_bias, tensors.delta_weight
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
    tensors: ScanTensors, tables: RowTables, parameters: Tensor, kept: Tensor
) -> numba_scan.Scan:
    u, delta, _, B, C, _, z, *_ = tensors
    states, n_tiles = B.shape[-1], parameters.shape[1] // LANES
    D_at = _paired(states)
    tiles = numba_scan.TILES
    while tiles > 1 and tables.sequences * -(-n_tiles // tiles) < 2:
        tiles //= 2  # smaller blocks, so that there are tasks for several threads
    padded = parameters.stride(0) * parameters.itemsize
    return numba_scan.Scan(
        u=tables.rows(u),
        delta=tables.rows(delta),
        z=tables.rows(z),
        B=tables.rows(B),
        C=tables.rows(C),
        A=parameters.data_ptr(),
        D=parameters.data_ptr() + D_at * padded,
        delta_bias=parameters.data_ptr() + (D_at + 1) * padded,
        W=parameters.data_ptr() + (D_at + 2) * padded,
        kept=kept.data_ptr(),
        gated=z is not None,
        rank=len(parameters) - D_at - 2,
        sequences=tables.sequences,
        length=tables.length,
        states=states,
        paired=D_at,
        channels=u.shape[-1],
        padded=padded,
        tiles=tiles,
        blocks=-(-n_tiles // tiles),
    )


# --- convolution ------------------------------------------------------------------------------


def conv_forward(tensors: ConvTensors, walk: Walk, silu: bool) -> Tensor:
    """Convolve."""
    dtype, x = tensors.x.dtype, kernel_input(tensors.x)
    tables, parameters = tables_of(tuple(x.shape[:-1]), walk), _conv_parameters(tensors)
    out = x.new_empty(x.shape)
    conv = _describe_conv(x, tables, parameters, silu)
    run(
        numba_conv.forward,
        numba_conv.Forward(conv, tables.rows(out)),
        tasks=tables.sequences * conv.blocks,
        work=x.numel(),
        workspace_bytes=0,
    )
    return out if dtype is torch.float32 else out.to(dtype)


def conv_backward(tensors: ConvTensors, walk: Walk, silu: bool, dout: Tensor) -> ConvTensors:
    """Find the gradients of x, weight and bias."""
    dout, x = kernel_input(dout), kernel_input(tensors.x)
    tables, parameters = tables_of(tuple(x.shape[:-1]), walk), _conv_parameters(tensors)
    conv = _describe_conv(x, tables, parameters, silu)
    tasks = tables.sequences * conv.blocks
    dx = x.new_empty(x.shape)
    sums = x.new_zeros(n_chunks(tasks), *parameters.shape)
    run(
        numba_conv.backward,
        numba_conv.Backward(conv, tables.rows(dout), tables.rows(dx), sums.data_ptr()),
        tasks=tasks,
        work=2 * x.numel(),
        workspace_bytes=0,
    )
    *dW, dbias = sums.sum(0)[:, : conv.channels]  # K taps, then the bias
    return as_arguments(ConvTensors(dx, torch.stack(dW, -1), dbias.clone()), tensors)


def _conv_parameters(tensors: ConvTensors) -> Tensor:
    """Stack the weights and the bias, (K + 1, padded)."""
    _, weight, bias = tensors
    channels, taps = weight.shape
    table = weight.new_zeros(taps + 1, _in_vectors(channels), dtype=torch.float32)
    table[:taps, :channels] = weight.t()
    if bias is not None:
        table[taps, :channels] = bias
    return table


def _describe_conv(x: Tensor, tables: RowTables, parameters: Tensor, silu: bool) -> numba_conv.Conv:
    taps = parameters.shape[0] - 1
    padded = parameters.stride(0) * parameters.itemsize
    return numba_conv.Conv(
        x=tables.rows(x),
        W=parameters.data_ptr(),
        bias=parameters.data_ptr() + taps * padded,
        silu=silu,
        taps=taps,
        length=tables.length,
        channels=x.shape[-1],
        padded=padded,
        blocks=-(-parameters.shape[1] // (LANES * numba_conv.TILES)),
    )
