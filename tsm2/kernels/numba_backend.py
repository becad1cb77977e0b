"""The CPU backend: hands tensors to the numba kernels and takes the results back.

The kernels read raw addresses. So every tensor goes through `kernel_input` first, and every
tensor whose address a call holds stays in a local variable until the call is over.
"""

from math import log
from typing import Any

import torch
from numba import config
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsm2.errors import ParameterError
from tsm2.kernels import numba_conv, numba_scan
from tsm2.kernels.numba_rows import Walk, kernel_input, walk_over
from tsm2.kernels.numba_runtime import n_chunks, run
from tsm2.kernels.numba_vectors import LANES

__all__ = ["causal_conv", "selective_scan"]

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("needs numba's compiler, which NUMBA_DISABLE_JIT switches off")


def selective_scan(
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
) -> Tensor:
    """Scan; see `tsm2.kernels.selective_scan`."""
    if A.numel() and A.detach().amax() > 0:
        raise ParameterError(f"A must hold no positive rate, got {A.max().item()}")
    walk = walk_over(tuple(u.shape[:-1]), axes, reverse)
    arguments = (walk, u, delta, A, B, C, D, z, delta_bias)
    if _needs_graph(arguments):
        return _SelectiveScan.apply(*arguments)  # type: ignore[no-any-return,no-untyped-call]
    return _scan_forward(*arguments, keep_states=False)[0]


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: tuple[int, ...],
    reverse: bool,
    silu: bool,
) -> Tensor:
    """Convolve; see `tsm2.kernels.causal_conv`."""
    walk = walk_over(tuple(x.shape[:-1]), axes, reverse)
    arguments = (walk, silu, x, weight, bias)
    if _needs_graph(arguments):
        return _CausalConv.apply(*arguments)  # type: ignore[no-any-return,no-untyped-call]
    return _conv_forward(*arguments)[0]


def _needs_graph(arguments: tuple[Any, ...]) -> bool:
    tensors = (each for each in arguments if isinstance(each, Tensor))
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _in_vectors(channels: int) -> int:
    """Round a number of channels up to whole vectors."""
    return -(-channels // LANES) * LANES


# --- scan -------------------------------------------------------------------------------------


def _scan_parameters(A: Tensor, D: Tensor | None, delta_bias: Tensor | None) -> Tensor:
    """Stack A log2(e), D and delta_bias, (N + 2, padded), with zeros for what is None."""
    channels, states = A.shape
    table = A.new_zeros(states + 2, _in_vectors(channels))
    torch.mul(A.t(), 1 / log(2), out=table[:states, :channels])
    if D is not None:
        table[states, :channels] = D
    if delta_bias is not None:
        table[states + 1, :channels] = delta_bias
    return table


def _describe_scan(
    walk: Walk,
    u: Tensor,
    delta: Tensor,
    B: Tensor,
    C: Tensor,
    z: Tensor | None,
    parameters: Tensor,
    checkpoints: Tensor,
) -> numba_scan.Scan:
    states, n_tiles = B.shape[-1], parameters.shape[1] // LANES
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
        D=parameters.data_ptr() + states * padded,
        delta_bias=parameters.data_ptr() + (states + 1) * padded,
        checkpoints=checkpoints.data_ptr(),
        gated=z is not None,
        length=walk.length,
        states=states,
        channels=u.shape[-1],
        padded=padded,
        tiles=tiles,
        blocks=-(-n_tiles // tiles),
    )


def _scan_forward(
    walk: Walk,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    *,
    keep_states: bool,
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Return the output and what the backward pass reads."""
    u, delta, B, C = (kernel_input(each) for each in (u, delta, B, C))
    z = None if z is None else kernel_input(z)
    parameters = _scan_parameters(A, D, delta_bias)
    borders = (walk.length - 1) // numba_scan.STEPS if keep_states else 0
    checkpoints = u.new_empty(walk.sequences, max(0, borders), A.shape[1], parameters.shape[1])
    out = u.new_empty(u.shape)
    scan = _describe_scan(walk, u, delta, B, C, z, parameters, checkpoints)
    run(
        numba_scan.forward,
        numba_scan.Forward(scan, walk.rows(out)),
        tasks=walk.sequences * scan.blocks,
        work=u.numel() * scan.states,
        workspace_bytes=numba_scan.workspace_bytes(scan.states),
    )
    return out, (u, delta, B, C, z, parameters, checkpoints)


class _SelectiveScan(torch.autograd.Function):
    """The scan as one node of the graph; it has no second derivative."""

    @staticmethod
    def forward(ctx: Any, walk: Walk, *tensors: Any) -> Tensor:
        out, saved = _scan_forward(walk, *tensors, keep_states=True)
        ctx.save_for_backward(*saved)
        ctx.walk = walk
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout: Tensor
    ) -> tuple[Tensor | None, ...]:
        walk: Walk = ctx.walk
        dout, u, delta, B, C = (kernel_input(each) for each in (dout, *ctx.saved_tensors[:4]))
        z, parameters, checkpoints = ctx.saved_tensors[4:]
        z = None if z is None else kernel_input(z)
        # Hooks on saved tensors may have moved them, so nothing is left from the forward pass.
        parameters, checkpoints = parameters.contiguous(), checkpoints.contiguous()
        scan = _describe_scan(walk, u, delta, B, C, z, parameters, checkpoints)
        # Few sequences: the blocks of a row go to several tasks, each with a dB and dC of its own.
        groups = min(scan.blocks, -(-2 // max(1, walk.sequences)))
        tasks = walk.sequences * groups
        du, ddelta = u.new_empty(u.shape), u.new_empty(u.shape)
        dz = None if z is None else u.new_empty(u.shape)
        dB, dC = B.new_zeros(groups, *B.shape), C.new_zeros(groups, *C.shape)
        dA = u.new_zeros(n_chunks(tasks), scan.states, parameters.shape[1])
        dD, ddelta_bias = dA.new_zeros(2, n_chunks(tasks), parameters.shape[1])
        call = numba_scan.Backward(
            scan=scan,
            groups=groups,
            dout=walk.rows(dout),
            du=walk.rows(du),
            ddelta=walk.rows(ddelta),
            dz=walk.rows(dz),
            dB=walk.rows(dB[0] if groups else None),
            dC=walk.rows(dC[0] if groups else None),
            group_bytes=dB.stride(0) * dB.itemsize,
            dA=dA.data_ptr(),
            dD=dD.data_ptr(),
            ddelta_bias=ddelta_bias.data_ptr(),
        )
        run(
            numba_scan.backward,
            call,
            tasks=tasks,
            work=2 * u.numel() * scan.states,
            workspace_bytes=numba_scan.workspace_bytes(scan.states),
        )
        E = scan.channels
        return (
            None,
            du,
            ddelta,
            dA.sum(0)[:, :E].t().contiguous(),
            dB.sum(0),
            dC.sum(0),
            dD.sum(0)[:E] if ctx.needs_input_grad[6] else None,
            dz,
            ddelta_bias.sum(0)[:E] if ctx.needs_input_grad[8] else None,
        )


# --- convolution ------------------------------------------------------------------------------


def _conv_parameters(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Stack the taps, the current token's first, and the bias, (K + 1, padded)."""
    channels, taps = weight.shape
    table = weight.new_zeros(taps + 1, _in_vectors(channels))
    table[:taps, :channels] = weight.flip(-1).t()
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


def _conv_forward(
    walk: Walk, silu: bool, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return the output and what the backward pass reads."""
    x = kernel_input(x)
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
    return out, (x, parameters)


class _CausalConv(torch.autograd.Function):
    """The convolution as one node of the graph; it has no second derivative."""

    @staticmethod
    def forward(ctx: Any, walk: Walk, silu: bool, *tensors: Any) -> Tensor:
        out, saved = _conv_forward(walk, silu, *tensors)
        ctx.save_for_backward(*saved)
        ctx.walk, ctx.silu = walk, silu
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout: Tensor
    ) -> tuple[Tensor | None, ...]:
        walk: Walk = ctx.walk
        dout, x = kernel_input(dout), kernel_input(ctx.saved_tensors[0])
        parameters = ctx.saved_tensors[1].contiguous()
        conv = _describe_conv(walk, ctx.silu, x, parameters)
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
        dW = sums.sum(0)[:, : conv.channels]
        dbias = dW[-1] if ctx.needs_input_grad[4] else None
        return None, None, dx, dW[:-1].flip(0).t().contiguous(), dbias
