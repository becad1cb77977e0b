"""What stands between the fused kernels and torch: autograd, torch.compile, autocast.

A fused backend computes outputs and gradients and knows nothing else of torch. Eager code runs it
as an autograd Function. A graph that torch.compile makes cannot hold a call into foreign code, so
there it is an operator of torch.library: its shapes are known without running it, and the graph
is not broken. Both are the same four calls, and the backend is chosen when they run.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tsm2.kernels.dispatch import load_fused, takes_step_rank
from tsm2.kernels.interface import (
    STATE_STEPS,
    ConvTensors,
    ScanTensors,
    SSMTensors,
    Walk,
    state_dtype,
)

__all__ = [
    "all_tensors",
    "causal_conv",
    "declared",
    "fake_gradients",
    "needs_graph",
    "only_wanted",
    "projected",
    "register",
    "scan_backward",
    "scan_forward",
    "selective_scan",
    "selective_ssm",
    "shape_of_states",
    "trains_eagerly",
    "without_autocast",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Tensors = TypeVar("_Tensors", ScanTensors, ConvTensors)


def selective_scan(tensors: ScanTensors, walk: Walk, backend: str) -> Tensor:
    """Scan; see `tsm2.kernels.selective_scan`."""
    keep_states = needs_graph(tensors)
    out: Tensor
    if torch.compiler.is_compiling():
        out, _ = _scan_operator(*tensors, *walk, keep_states, backend)
    elif keep_states:
        out = _SelectiveScan.apply(*tensors, walk, backend)  # type: ignore[no-untyped-call]
    else:
        out, _ = scan_forward(tensors, walk, False, backend)
    return out


def causal_conv(tensors: ConvTensors, walk: Walk, silu: bool, backend: str) -> Tensor:
    """Convolve; see `tsm2.kernels.causal_conv`."""
    out: Tensor
    if torch.compiler.is_compiling():
        out = _conv_operator(*tensors, *walk, silu, backend)
    elif needs_graph(tensors):
        out = _CausalConv.apply(*tensors, walk, silu, backend)  # type: ignore[no-untyped-call]
    else:
        out = _conv_forward(tensors, walk, silu, backend)
    return out


def trains_eagerly(tensors: SSMTensors) -> bool:
    """Whether `selective_ssm` takes these: float32 with gradients, no compiler, no autocast."""
    return (
        needs_graph(tensors)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled(tensors.x.device.type)
        and all(each is None or each.dtype is torch.float32 for each in tensors)
    )


def selective_ssm(tensors: SSMTensors, walk: Walk, backend: str) -> Tensor:
    """Convolve, select and scan; see `tsm2.kernels.selective_ssm`."""
    out: Tensor = _SelectiveSSM.apply(*tensors, walk, backend)  # type: ignore[no-untyped-call]
    return out


def projected(tensors: ScanTensors) -> ScanTensors:
    """Project steps of low rank onto the channels."""
    delta, weight = tensors.delta, tensors.delta_weight
    if weight is None:
        return tensors
    # Autocast brings both to a dtype of its own.
    if weight.dtype != delta.dtype and not torch.is_autocast_enabled(delta.device.type):
        weight = weight.to(delta.dtype)
    return tensors._replace(delta=functional.linear(delta, weight), delta_weight=None)


def needs_graph(tensors: Sequence[Tensor | None]) -> bool:
    """Whether gradients of any of these will be asked for."""
    return torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in tensors
    )


def without_autocast(
    function: Callable[Concatenate[_Tensors, _P], _R],
) -> Callable[Concatenate[_Tensors, _P], _R]:
    """Keep autocast from lowering the precision of a backend that is made of torch operations."""

    def run(tensors: _Tensors, /, *rest: _P.args, **named: _P.kwargs) -> _R:
        device = tensors[0].device.type
        if not torch.is_autocast_enabled(device):
            return function(tensors, *rest, **named)
        with torch.autocast(device, enabled=False):
            return function(tensors, *rest, **named)

    return run


# --- the four calls ---------------------------------------------------------------------------


@without_autocast
def scan_forward(
    tensors: ScanTensors, walk: Walk, keep_states: bool, backend: str
) -> tuple[Tensor, Tensor]:
    """Scan with a backend, which may not take steps of low rank."""
    kernels = load_fused(tensors.u, backend)
    return kernels.scan_forward(_as_taken(tensors, backend), walk, keep_states)


@without_autocast
def scan_backward(
    tensors: ScanTensors, walk: Walk, backend: str, dout: Tensor, states: Tensor
) -> ScanTensors:
    """Find the gradients with a backend, which may not take steps of low rank."""
    kernels = load_fused(tensors.u, backend)
    taken, weight = _as_taken(tensors, backend), tensors.delta_weight
    gradients = kernels.scan_backward(taken, walk, dout, states)
    if taken.delta_weight is weight or weight is None:
        return gradients
    wide = gradients.delta
    rows = wide.flatten(0, -2)
    dweight = rows.t() @ tensors.delta.flatten(0, -2).to(rows.dtype)
    ddelta = wide @ weight.to(rows.dtype)
    return gradients._replace(delta=ddelta, delta_weight=dweight.to(weight.dtype))


@without_autocast
def _conv_forward(tensors: ConvTensors, walk: Walk, silu: bool, backend: str) -> Tensor:
    return load_fused(tensors.x, backend).conv_forward(tensors, walk, silu)


@without_autocast
def _conv_backward(
    tensors: ConvTensors, walk: Walk, silu: bool, backend: str, dout: Tensor
) -> ConvTensors:
    return load_fused(tensors.x, backend).conv_backward(tensors, walk, silu, dout)


def _as_taken(tensors: ScanTensors, backend: str) -> ScanTensors:
    """Return steps of low rank as the backend takes them: with their weight, or already wide."""
    weight = tensors.delta_weight
    if weight is None or takes_step_rank(tensors.u, backend, weight.shape[1]):
        return tensors
    return projected(tensors)


# --- autograd ---------------------------------------------------------------------------------
#
# Autograd sees tensors only if they stand alone among the arguments.
# The Functions have no `setup_context` of torch's: it inspects a signature in every call, which
# takes longer than the rest of the call.


class _SelectiveScan(torch.autograd.Function):
    """The scan as one node of the graph; it has no second derivative."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, walk, backend = inputs
        out, states = scan_forward(ScanTensors(*tensors), walk, True, backend)
        ctx.save_for_backward(states, *tensors)
        ctx.settings = (walk, backend)
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout: Tensor
    ) -> tuple[Tensor | None, ...]:
        states, *tensors = ctx.saved_tensors  # asked for once: checkpointing allows no more
        walk, backend = ctx.settings
        gradients = scan_backward(ScanTensors(*tensors), walk, backend, dout, states)
        return (*gradients, None, None)


class _CausalConv(torch.autograd.Function):
    """The convolution as one node of the graph; it has no second derivative."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, walk, silu, backend = inputs
        ctx.save_for_backward(*tensors)
        ctx.settings = (walk, silu, backend)
        return _conv_forward(ConvTensors(*tensors), walk, silu, backend)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout: Tensor
    ) -> tuple[Tensor | None, ...]:
        walk, silu, backend = ctx.settings
        gradients = _conv_backward(ConvTensors(*ctx.saved_tensors), walk, silu, backend, dout)
        return (*gradients, None, None, None)


class _SelectiveSSM(torch.autograd.Function):
    """Convolution, selection and scan as one node.

    What the selection gives back is added in place to the gradient that the scan gives u.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *saved, walk, backend = inputs
        tensors = SSMTensors(*saved)
        u = _conv_forward(tensors.conv(), walk, True, backend)
        selected = functional.linear(u, tensors.select_weight)
        out, states = scan_forward(tensors.scan(u, selected), walk, True, backend)
        ctx.save_for_backward(u, selected, states, *saved)
        ctx.settings = (walk, backend)
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout: Tensor
    ) -> tuple[Tensor | None, ...]:
        u, selected, states, *saved = ctx.saved_tensors  # asked for once, as above
        tensors, (walk, backend) = SSMTensors(*saved), ctx.settings
        scan = scan_backward(tensors.scan(u, selected), walk, backend, dout, states)
        dselected = torch.cat((scan.delta, scan.B, scan.C), dim=-1).flatten(0, -2)
        dselect_weight = dselected.t() @ u.flatten(0, -2)  # (R + 2 N, E)
        scan.u.flatten(0, -2).addmm_(dselected, tensors.select_weight)
        conv = _conv_backward(tensors.conv(), walk, True, backend, scan.u)
        rest = (scan.A, scan.D, scan.z, scan.delta_bias, scan.delta_weight)
        return (*conv, dselect_weight, *rest, None, None)


# --- operators --------------------------------------------------------------------------------
#
# They take and return nothing but tensors, numbers and lists of numbers, one after the other.

_library = torch.library.Library("tsm2", "DEF")  # type: ignore[no-untyped-call]


def declared(kind: type[Any]) -> str:
    """Declare the tensors of a kind."""
    return ", ".join(
        f"{'Tensor' if hint is Tensor else 'Tensor?'} {name}"
        for name, hint in kind.__annotations__.items()
    )


def _flattened(kind: type[Any]) -> str:
    """Declare the tensors of a kind, and their walk."""
    return f"{declared(kind)}, int[] axes, bool reverse"


def _gathered(kind: type[Any], flat: Sequence[Any]) -> Any:
    """Return the tensors, their walk and what follows: the inverse of `_flattened`."""
    n = len(kind._fields)
    axes, reverse, *settings = flat[n:]
    return kind(*flat[:n]), Walk(tuple(axes), reverse), *settings


def _flat_scan(*flat: Any) -> tuple[Tensor, Tensor]:
    return scan_forward(*_gathered(ScanTensors, flat))


def _flat_scan_backward(dout: Tensor, states: Tensor, *flat: Any) -> tuple[Tensor, ...]:
    tensors, walk, backend = _gathered(ScanTensors, flat)
    return all_tensors(scan_backward(tensors, walk, backend, dout, states), dout)


def _flat_conv(*flat: Any) -> Tensor:
    return _conv_forward(*_gathered(ConvTensors, flat))


def _flat_conv_backward(dout: Tensor, *flat: Any) -> tuple[Tensor, ...]:
    tensors, walk, silu, backend = _gathered(ConvTensors, flat)
    return all_tensors(_conv_backward(tensors, walk, silu, backend, dout), dout)


def all_tensors(gradients: Sequence[Tensor | None], like: Tensor) -> tuple[Tensor, ...]:
    """Put an empty tensor where there is none: operators return nothing else."""
    return tuple(like.new_empty(0) if each is None else each for each in gradients)


def only_wanted(
    gradients: Sequence[Tensor], arguments: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Drop the gradients of arguments that are None: the inverse of `all_tensors`."""
    pairs = zip(gradients, arguments, strict=True)
    return tuple(None if argument is None else gradient for gradient, argument in pairs)


def _fake_scan(*flat: Any) -> tuple[Tensor, Tensor]:
    """Say what `_flat_scan` returns, without its values."""
    (u, _, A, *_), walk, keep_states, _ = _gathered(ScanTensors, flat)
    out = u.new_empty(u.shape)
    if not keep_states:
        return out, u.new_empty(0)
    kept = shape_of_states(u.shape[:-1], walk, A)
    return out, u.new_empty(kept, dtype=state_dtype(u))


def shape_of_states(lead: Sequence[int], walk: Walk, A: Tensor) -> tuple[Any, ...]:
    """Say how many states a scan keeps, (sequences, chunks - 1, N, E)."""
    length = prod(lead[axis] for axis in walk.axes)
    sequences = prod(size for axis, size in enumerate(lead) if axis not in walk.axes)
    borders: Any = torch.sym_max(0, (length - 1) // STATE_STEPS)  # type: ignore[no-untyped-call]
    return sequences, borders, A.shape[-1], A.shape[-2]


def _fake_scan_backward(dout: Tensor, states: Tensor, *flat: Any) -> tuple[Tensor, ...]:
    return fake_gradients(dout, _gathered(ScanTensors, flat)[0])


def _fake_conv(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


def _fake_conv_backward(dout: Tensor, *flat: Any) -> tuple[Tensor, ...]:
    return fake_gradients(dout, _gathered(ConvTensors, flat)[0])


def fake_gradients(dout: Tensor, arguments: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Say what the gradients are, without their values."""
    return all_tensors(
        [None if each is None else each.new_empty(each.shape) for each in arguments], dout
    )


def _keep_scan(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, axes, reverse, _, backend = inputs
    _, states = output
    ctx.mark_non_differentiable(states)
    ctx.save_for_backward(states, *tensors)
    ctx.settings = (axes, reverse, backend)


def _gradients_of_scan(ctx: Any, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    gradients = _scan_backward_operator(dout, *saved, *ctx.settings)
    return (*only_wanted(gradients, saved[1:]), None, None, None, None)


def _keep_conv(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, axes, reverse, silu, backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.settings = (axes, reverse, silu, backend)


def _gradients_of_conv(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    gradients = _conv_backward_operator(dout, *saved, *ctx.settings)
    return (*only_wanted(gradients, saved), None, None, None, None)


def register(
    name: str,
    arguments: str,
    returns: str,
    call: Callable[..., Any],
    fake: Callable[..., Any],
    autograd: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
) -> Any:
    """Make an operator; `autograd` is what it keeps for its gradients, and how they follow."""
    library = cast(Any, _library)
    library.define(f"{name}({arguments}) -> {returns}", tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, call, "CompositeExplicitAutograd")
    torch.library.register_fake(f"tsm2::{name}", fake, lib=_library)
    operator = getattr(torch.ops.tsm2, name).default
    if autograd is not None:
        keep, gradients = autograd
        torch.library.register_autograd(operator, gradients, setup_context=keep, lib=_library)
    return operator


_scan_operator = register(
    "selective_scan",
    f"{_flattened(ScanTensors)}, bool keep_states, str backend",
    "(Tensor, Tensor)",
    _flat_scan,
    _fake_scan,
    (_keep_scan, _gradients_of_scan),
)
_scan_backward_operator = register(
    "selective_scan_backward",
    f"Tensor dout, Tensor states, {_flattened(ScanTensors)}, str backend",
    f"({', '.join(['Tensor'] * len(ScanTensors._fields))})",
    _flat_scan_backward,
    _fake_scan_backward,
)
_conv_operator = register(
    "causal_conv",
    f"{_flattened(ConvTensors)}, bool silu, str backend",
    "Tensor",
    _flat_conv,
    _fake_conv,
    (_keep_conv, _gradients_of_conv),
)
_conv_backward_operator = register(
    "causal_conv_backward",
    f"Tensor dout, {_flattened(ConvTensors)}, bool silu, str backend",
    "(Tensor, Tensor, Tensor)",
    _flat_conv_backward,
    _fake_conv_backward,
)
