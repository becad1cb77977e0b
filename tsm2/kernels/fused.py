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

__all__ = ["STATE_STEPS", "causal_conv", "selective_scan", "selective_ssm", "trains_eagerly"]

STATE_STEPS = 16
"""Tokens between two states that a scan keeps for its backward pass."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_weight: Tensor | None,
    axes: tuple[int, ...],
    reverse: bool,
    backend: str,
) -> Tensor:
    """Scan; see `tsm2.kernels.selective_scan`."""
    tensors = (u, delta, A, B, C, D, z, delta_bias, delta_weight)
    keep_states = _needs_graph(tensors)
    settings: Any = (axes, reverse, keep_states, backend)
    out: Tensor
    if torch.compiler.is_compiling():
        out, _ = _scan_operator(*tensors, *settings)
    elif keep_states:
        out, _ = _SelectiveScan.apply(*tensors, *settings)  # type: ignore[no-untyped-call]
    else:
        out, _ = _scan_forward(*tensors, *settings)
    return out


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: tuple[int, ...],
    reverse: bool,
    silu: bool,
    backend: str,
) -> Tensor:
    """Convolve; see `tsm2.kernels.causal_conv`."""
    tensors = (x, weight, bias)
    settings: Any = (axes, reverse, silu, backend)
    out: Tensor
    if torch.compiler.is_compiling():
        out = _conv_operator(*tensors, *settings)
    elif _needs_graph(tensors):
        out = _CausalConv.apply(*tensors, *settings)  # type: ignore[no-untyped-call]
    else:
        out = _conv_forward(*tensors, *settings)
    return out


def trains_eagerly(signal: Tensor, *others: Tensor | None) -> bool:
    """Whether `selective_ssm` takes these: float32 with gradients, no compiler, no autocast."""
    tensors = (signal, *others)
    return (
        _needs_graph(tensors)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled(signal.device.type)
        and all(each is None or each.dtype is torch.float32 for each in tensors)
    )


def selective_ssm(
    tensors: Sequence[Tensor | None], axes: tuple[int, ...], reverse: bool, backend: str
) -> Tensor:
    """Convolve, select and scan the tensors of `tsm2.kernels.selective_ssm`, in its order."""
    out: Tensor = _SelectiveSSM.apply(*tensors, axes, reverse, backend)  # type: ignore[no-untyped-call]
    return out


def _needs_graph(tensors: Sequence[Tensor | None]) -> bool:
    return torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in tensors
    )


def _without_autocast(
    function: Callable[Concatenate[Tensor, _P], _R],
) -> Callable[Concatenate[Tensor, _P], _R]:
    """Keep autocast from lowering the precision of a backend that is made of torch operations."""

    def run(signal: Tensor, /, *rest: _P.args, **named: _P.kwargs) -> _R:
        if not torch.is_autocast_enabled(signal.device.type):
            return function(signal, *rest, **named)
        with torch.autocast(signal.device.type, enabled=False):
            return function(signal, *rest, **named)

    return run


# --- the four calls ---------------------------------------------------------------------------


@_without_autocast
def _scan_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_weight: Tensor | None,
    axes: Sequence[int],
    reverse: bool,
    keep_states: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    kernels = load_fused(u.device.type, u.dtype, backend)
    delta, own = _projected(delta, delta_weight, u, backend)
    return kernels.scan_forward(
        u, delta, A, B, C, D, z, delta_bias, tuple(axes), reverse, keep_states, **own
    )


@_without_autocast
def _scan_backward(
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
    delta_weight: Tensor | None,
    axes: Sequence[int],
    reverse: bool,
    backend: str,
) -> tuple[Tensor, ...]:
    kernels = load_fused(u.device.type, u.dtype, backend)
    wide, own = _projected(delta, delta_weight, u, backend)
    gradients = kernels.scan_backward(
        dout, states, u, wide, A, B, C, D, z, delta_bias, tuple(axes), reverse, **own
    )
    if own:
        return _all_tensors(gradients, u)
    du, dwide, *rest = gradients
    if delta_weight is None or dwide is None:
        return _all_tensors((du, dwide, *rest, None), u)
    rows = dwide.flatten(0, -2)
    dweight = rows.t() @ delta.flatten(0, -2).to(rows.dtype)
    ddelta = dwide @ delta_weight.to(rows.dtype)
    return _all_tensors((du, ddelta, *rest, dweight.to(delta_weight.dtype)), u)


@_without_autocast
def _conv_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: Sequence[int],
    reverse: bool,
    silu: bool,
    backend: str,
) -> Tensor:
    kernels = load_fused(x.device.type, x.dtype, backend)
    return kernels.conv_forward(x, weight, bias, tuple(axes), reverse, silu)


@_without_autocast
def _conv_backward(
    dout: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: Sequence[int],
    reverse: bool,
    silu: bool,
    backend: str,
) -> tuple[Tensor, ...]:
    kernels = load_fused(x.device.type, x.dtype, backend)
    gradients = kernels.conv_backward(dout, x, weight, bias, tuple(axes), reverse, silu)
    return _all_tensors(gradients, x)


def _projected(
    delta: Tensor, weight: Tensor | None, u: Tensor, backend: str
) -> tuple[Tensor, dict[str, Any]]:
    """Return steps of low rank as the backend takes them: with their weight, or already wide."""
    if weight is None:
        return delta, {}
    if takes_step_rank(u.device.type, u.dtype, backend, weight.shape[1]):
        return delta, {"delta_weight": weight}
    return functional.linear(delta, weight.to(delta.dtype)), {}


def _all_tensors(gradients: Sequence[Tensor | None], like: Tensor) -> tuple[Tensor, ...]:
    """Put an empty tensor where there is none: operators return nothing else."""
    return tuple(like.new_empty(0) if each is None else each for each in gradients)


def _only_wanted(
    gradients: Sequence[Tensor], arguments: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Drop the gradients of arguments that are None."""
    pairs = zip(gradients, arguments, strict=True)
    return tuple(None if argument is None else gradient for gradient, argument in pairs)


# --- autograd ---------------------------------------------------------------------------------
#
# The Functions have no `setup_context` of torch's: it inspects a signature in every call, which
# takes longer than the rest of the call.


class _SelectiveScan(torch.autograd.Function):
    """The scan as one node of the graph; it has no second derivative."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _scan_forward(*inputs)
        _SelectiveScan.keep(ctx, inputs, output)
        return output

    @staticmethod
    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, axes, reverse, _, backend = inputs
        _, states = output
        ctx.mark_non_differentiable(states)
        ctx.save_for_backward(states, *tensors)
        ctx.settings = (axes, reverse, backend)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # asked for once: checkpointing allows no more
        gradients = _scan_backward(dout, *saved, *ctx.settings)
        return _SelectiveScan.of_inputs(gradients, saved)

    @staticmethod
    def backward_in_graph(ctx: Any, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        gradients = _scan_backward_operator(dout, *saved, *ctx.settings)
        return _SelectiveScan.of_inputs(gradients, saved)

    @staticmethod
    def of_inputs(
        gradients: Sequence[Tensor], saved: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        return (*_only_wanted(gradients, saved[1:]), None, None, None, None)


class _CausalConv(torch.autograd.Function):
    """The convolution as one node of the graph; it has no second derivative."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output = _conv_forward(*inputs)
        _CausalConv.keep(ctx, inputs, output)
        return output

    @staticmethod
    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, axes, reverse, silu, backend = inputs
        ctx.save_for_backward(*tensors)
        ctx.settings = (axes, reverse, silu, backend)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout: Tensor
    ) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        gradients = _conv_backward(dout, *saved, *ctx.settings)
        return _CausalConv.of_inputs(gradients, saved)

    @staticmethod
    def backward_in_graph(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        gradients = _conv_backward_operator(dout, *saved, *ctx.settings)
        return _CausalConv.of_inputs(gradients, saved)

    @staticmethod
    def of_inputs(
        gradients: Sequence[Tensor], saved: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        return (*_only_wanted(gradients, saved), None, None, None, None)


class _SelectiveSSM(torch.autograd.Function):
    """Convolution, selection and scan as one node.

    What the selection gives back is added in place to the gradient that the scan gives u.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        conv_weight: Tensor,
        conv_bias: Tensor | None,
        select_weight: Tensor,
        A: Tensor,
        *rest: Any,
    ) -> Tensor:
        D, z, delta_bias, delta_weight, axes, reverse, backend = rest
        u = _conv_forward(x, conv_weight, conv_bias, axes, reverse, True, backend)
        selected = functional.linear(u, select_weight)
        parameters = (D, z, delta_bias, delta_weight)
        delta, B, C = _selection(selected, A)
        out, states = _scan_forward(u, delta, A, B, C, *parameters, axes, reverse, True, backend)
        ctx.save_for_backward(
            x, conv_weight, conv_bias, select_weight, u, selected, states, A, *parameters
        )
        ctx.settings = (axes, reverse, backend)
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout: Tensor
    ) -> tuple[Tensor | None, ...]:
        saved: Any = ctx.saved_tensors  # asked for once: checkpointing allows no more
        x, conv_weight, conv_bias, select_weight, u, selected, states, A, *rest = saved
        D, z, delta_bias, delta_weight = rest
        axes, reverse, backend = ctx.settings
        delta, B, C = _selection(selected, A)
        scanned = (u, delta, A, B, C, D, z, delta_bias, delta_weight)
        convolved = (x, conv_weight, conv_bias)
        gradients: Any = _only_wanted(
            _scan_backward(dout, states, *scanned, axes, reverse, backend), scanned
        )
        du, ddelta, dA, dB, dC, *dparameters = gradients
        dselected = torch.cat((ddelta, dB, dC), dim=-1).flatten(0, -2)  # (tokens, R + 2 N)
        dselect_weight = dselected.t() @ u.flatten(0, -2)
        du.flatten(0, -2).addmm_(dselected, select_weight)
        dconvolved = _only_wanted(
            _conv_backward(du, *convolved, axes, reverse, True, backend), convolved
        )
        return (*dconvolved, dselect_weight, dA, *dparameters, None, None, None)


def _selection(selected: Tensor, A: Tensor) -> tuple[Tensor, ...]:
    """Take delta, B and C out of what was selected, (*lead, R + 2 N)."""
    states = A.shape[1]
    return torch.split(selected, [selected.shape[-1] - 2 * states, states, states], dim=-1)


# --- operators --------------------------------------------------------------------------------

_SCAN_TENSORS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
    "Tensor? delta_bias, Tensor? delta_weight"
)
_CONV_TENSORS = "Tensor x, Tensor weight, Tensor? bias"
_ORDER = "int[] axes, bool reverse"

_library = torch.library.Library("tsm2", "DEF")  # type: ignore[no-untyped-call]


def _fake_scan(u: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Say what `_scan_forward` returns, without its values."""
    A, axes, keep_states = rest[1], rest[8], rest[10]
    out = u.new_empty(u.shape)
    if not keep_states:
        return out, u.new_empty(0)
    length = prod(u.shape[axis] for axis in axes)
    sequences = prod(size for axis, size in enumerate(u.shape[:-1]) if axis not in axes)
    borders: Any = torch.sym_max(0, (length - 1) // STATE_STEPS)  # type: ignore[no-untyped-call]
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    return out, u.new_empty(sequences, borders, A.shape[1], u.shape[-1], dtype=dtype)


def _fake_scan_backward(dout: Tensor, states: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _fake_gradients(dout, rest[:9])


def _fake_conv(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


def _fake_conv_backward(dout: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _fake_gradients(dout, rest[:3])


def _fake_gradients(dout: Tensor, arguments: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    return tuple(
        dout.new_empty(0) if argument is None else argument.new_empty(argument.shape)
        for argument in arguments
    )


def _register(signature: str, call: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    name, library = signature.partition("(")[0], cast(Any, _library)
    library.define(signature, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, call, "CompositeExplicitAutograd")
    torch.library.register_fake(f"tsm2::{name}", fake, lib=_library)
    return getattr(torch.ops.tsm2, name).default


_scan_operator = _register(
    f"selective_scan({_SCAN_TENSORS}, {_ORDER}, bool keep_states, str backend) -> (Tensor, Tensor)",
    _scan_forward,
    _fake_scan,
)
_scan_backward_operator = _register(
    f"selective_scan_backward(Tensor dout, Tensor states, {_SCAN_TENSORS}, {_ORDER}, str backend)"
    f" -> ({', '.join(['Tensor'] * 9)})",
    _scan_backward,
    _fake_scan_backward,
)
_conv_operator = _register(
    f"causal_conv({_CONV_TENSORS}, {_ORDER}, bool silu, str backend) -> Tensor",
    _conv_forward,
    _fake_conv,
)
_conv_backward_operator = _register(
    f"causal_conv_backward(Tensor dout, {_CONV_TENSORS}, {_ORDER}, bool silu, str backend)"
    " -> (Tensor, Tensor, Tensor)",
    _conv_backward,
    _fake_conv_backward,
)
for _operator, _function in ((_scan_operator, _SelectiveScan), (_conv_operator, _CausalConv)):
    torch.library.register_autograd(
        _operator,
        _function.backward_in_graph,
        setup_context=_function.keep,
        lib=_library,
    )
