"""Several scans of one signal at once, for a backend that runs them in one launch.

The scans of an image's mixer read the same tensor and differ in their order and their parameters.
Here their tensors are stacked: an axis in front has an entry for each walk, or one that all of them
read. What scans without convolutions select by is one matrix product for all of them. Both passes
are operators of torch.library, and every graph that torch.compile makes has them: they choose the
backend when they run, and one that takes no several walks runs them one after the other.

The gradient of a weight that every row is multiplied by is one sum over millions of rows with a few
entries. A GPU's library makes that of one product in one go, on as many processors as the entries
fill, a few: half of the time of ViM2's step. So there rows are cut into parts, and their products
are added up.

Sizes: K walks, R rank of steps; the others as in `tsm2.kernels.interface`.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from tsm2.kernels import fused
from tsm2.kernels.dispatch import load_fused, load_stacking
from tsm2.kernels.interface import (
    ConvTensors,
    ScanTensors,
    ScanWeights,
    Walk,
    state_dtype,
)

__all__ = ["cross_scan", "stacked"]

_ROWS_OF_A_PART = 4096
"""At least; enough that the parts' sums are little beside what is summed."""


def cross_scan(
    x: Tensor, scans: Sequence[ScanWeights], walks: tuple[Walk, ...], backend: str
) -> Tensor:
    """Convolve, select and scan along every walk; see `tsm2.kernels.cross_scan`."""
    axes, reverses = [axis for walk in walks for axis in walk.axes], [w.reverse for w in walks]
    weights = stacked(scans)
    select = weights.select_weight  # (K, R + 2 N, E)
    if weights.conv_weight is None:
        u = x[None]
        selected = _times(u, select.flatten(0, 1)[None])
        selected = selected.view(*x.shape[:-1], *select.shape[:2]).movedim(-2, 0)
    else:
        taps, bias = weights.conv_weight, weights.conv_bias
        u = _convs_operator(x[None], taps, bias, axes, reverses, True, backend)
        selected = _times(u, select)
    tensors = weights.reads(u, selected)  # selected: (K, *lead, R + 2 N)
    keep_states = fused.needs_graph(tensors)
    out: Tensor
    out, _ = _scans_operator(*tensors, axes, reverses, keep_states, backend)
    return out


def stacked(parts: Sequence[Any]) -> Any:
    """Stack the tensors of equal places; None where there are none."""
    return type(parts[0])(*map(_stack, zip(*parts, strict=True)))


def _stack(tensors: Sequence[Tensor | None]) -> Tensor | None:
    return None if tensors[0] is None else torch.stack(cast("list[Tensor]", list(tensors)))


def _times(rows: Tensor, weights: Tensor) -> Tensor:
    """Return rows, (K, *lead, E), times weights, (K, C, E): (K, *lead, C)."""
    walks, parts = len(rows), _parts(rows)
    if parts > 1:
        cut = rows.reshape(walks, parts, -1, rows.shape[-1])
        product = cut @ weights[:, None].mT  # adds up the gradients of each part's weights
    elif walks == 1:
        product = functional.linear(rows, weights[0])
    else:
        product = torch.bmm(rows.flatten(1, -2), weights.mT)
    return product.view(*rows.shape[:-1], -1)


def _summed_products(left: Tensor, right: Tensor) -> Tensor:
    """Return the sum over rows of products, (K, E, R), of (K, *lead, E) and (K, *lead, R)."""
    walks, parts = len(left), _parts(left)
    cut = (each.reshape(walks * parts, -1, each.shape[-1]) for each in (left, right))
    products = torch.bmm(next(cut).mT, next(cut))
    return products.view(walks, parts, *products.shape[1:]).sum(1, dtype=state_dtype(left))


def _parts(rows: Tensor) -> int:
    """Return into how many equal parts rows, (K, *lead, E), are cut; 1 where that is no use."""
    if rows.device.type == "cpu" or torch.compiler.is_compiling():  # which keeps sizes open
        return 1
    count = rows.shape[1:-1].numel()
    return _divisor(count, count // _ROWS_OF_A_PART)


@cache
def _divisor(number: int, most: int) -> int:
    """Return the largest divisor up to a number; images and their batches have many."""
    return next((each for each in range(most, 1, -1) if number % each == 0), 1)


@fused.without_autocast
def _scans_forward(
    tensors: ScanTensors, walks: tuple[Walk, ...], keep_states: bool, backend: str
) -> tuple[Tensor, Tensor]:
    kernels = load_stacking(tensors.u, backend)
    if kernels is not None:
        return kernels.scans_forward(_projected(tensors), walks, keep_states)
    out, kept = None, []
    for k, walk in enumerate(walks):
        y, states = fused.scan_forward(_at(tensors, k), walk, keep_states, backend)
        out = y if out is None else out.add_(y)
        kept.append(states)
    return cast(Tensor, out), torch.stack(kept) if keep_states else kept[0]


@fused.without_autocast
def _scans_backward(
    tensors: ScanTensors, walks: tuple[Walk, ...], backend: str, dout: Tensor, states: Tensor
) -> ScanTensors:
    kernels = load_stacking(tensors.u, backend)
    if kernels is None:
        each = [
            fused.scan_backward(_at(tensors, k), walk, backend, dout, states[k])
            for k, walk in enumerate(walks)
        ]
        gradients: ScanTensors = stacked(each)
        if len(tensors.u) == 1:
            gradients = gradients._replace(u=gradients.u.sum(0, keepdim=True))
        return gradients
    gradients = kernels.scans_backward(_projected(tensors), walks, dout, states)
    weight = tensors.delta_weight
    if weight is None:
        return gradients
    wide = gradients.delta  # (K, *lead, E)
    ddelta = torch.bmm(wide.flatten(1, -2), weight.to(wide.dtype)).view(tensors.delta.shape)
    dweight = _summed_products(wide, tensors.delta.to(wide.dtype)).to(weight.dtype)
    return gradients._replace(delta=ddelta, delta_weight=dweight)


def _projected(tensors: ScanTensors) -> ScanTensors:
    """Project steps of low rank onto the channels."""
    delta, weight = tensors.delta, tensors.delta_weight
    if weight is None:
        return tensors
    wide = torch.bmm(delta.flatten(1, -2), weight.to(delta.dtype).transpose(1, 2))
    return tensors._replace(delta=wide.view(*delta.shape[:-1], weight.shape[1]), delta_weight=None)


@fused.without_autocast
def _convs_forward(
    tensors: ConvTensors, walks: tuple[Walk, ...], silu: bool, backend: str
) -> Tensor:
    kernels = load_stacking(tensors.x, backend)
    if kernels is not None:
        return kernels.convs_forward(tensors, walks, silu)
    single = load_fused(tensors.x, backend)
    return torch.stack(
        [single.conv_forward(_at(tensors, k), walk, silu) for k, walk in enumerate(walks)]
    )


@fused.without_autocast
def _convs_backward(
    tensors: ConvTensors, walks: tuple[Walk, ...], silu: bool, backend: str, dout: Tensor
) -> ConvTensors:
    kernels = load_stacking(tensors.x, backend)
    if kernels is not None:
        return kernels.convs_backward(tensors, walks, silu, dout)
    single = load_fused(tensors.x, backend)
    each = [
        single.conv_backward(_at(tensors, k), walk, silu, dout[k]) for k, walk in enumerate(walks)
    ]
    gradients: ConvTensors = stacked(each)
    if len(tensors.x) == 1:
        gradients = gradients._replace(x=gradients.x.sum(0, keepdim=True))
    return gradients


def _at(tensors: Any, walk: int) -> Any:
    """Return what one walk reads."""
    return type(tensors)(*(None if t is None else t[walk if len(t) > 1 else 0] for t in tensors))


# --- operators ------------------------------------------------------------------------------------


def _flattened(kind: type[Any]) -> str:
    """Declare the tensors of a kind, and their walks: the axes of all, one after the other."""
    return f"{fused.declared(kind)}, int[] axes, bool[] reverses"


def _gathered(kind: type[Any], flat: Sequence[Any]) -> Any:
    """Return the tensors, their walks and what follows: the inverse of `_flattened`."""
    n = len(kind._fields)
    axes, reverses, *settings = flat[n:]
    each = len(axes) // len(reverses)
    walks = tuple(
        Walk(tuple(axes[k * each : (k + 1) * each]), reverse) for k, reverse in enumerate(reverses)
    )
    return kind(*flat[:n]), walks, *settings


def _flat_scans(*flat: Any) -> tuple[Tensor, Tensor]:
    return _scans_forward(*_gathered(ScanTensors, flat))


def _flat_scans_backward(dout: Tensor, states: Tensor, *flat: Any) -> tuple[Tensor, ...]:
    tensors, walks, backend = _gathered(ScanTensors, flat)
    gradients = _scans_backward(tensors, walks, backend, dout, states)
    return fused.all_tensors(gradients, dout)


def _flat_convs(*flat: Any) -> Tensor:
    return _convs_forward(*_gathered(ConvTensors, flat))


def _flat_convs_backward(dout: Tensor, *flat: Any) -> tuple[Tensor, ...]:
    tensors, walks, silu, backend = _gathered(ConvTensors, flat)
    return fused.all_tensors(_convs_backward(tensors, walks, silu, backend, dout), dout)


def _fake_scans(*flat: Any) -> tuple[Tensor, Tensor]:
    (u, _, A, *_), walks, keep_states, _ = _gathered(ScanTensors, flat)
    out = u.new_empty(u.shape[1:])
    if not keep_states:
        return out, u.new_empty(0)
    kept = fused.shape_of_states(u.shape[1:-1], walks[0], A)
    return out, u.new_empty((len(walks), *kept), dtype=state_dtype(u))


def _fake_scans_backward(dout: Tensor, states: Tensor, *flat: Any) -> tuple[Tensor, ...]:
    return fused.fake_gradients(dout, _gathered(ScanTensors, flat)[0])


def _fake_convs(x: Tensor, *rest: Any) -> Tensor:
    (_, weight, _), *_ = _gathered(ConvTensors, (x, *rest))
    return x.new_empty((weight.shape[0], *x.shape[1:]))


def _fake_convs_backward(dout: Tensor, *flat: Any) -> tuple[Tensor, ...]:
    return fused.fake_gradients(dout, _gathered(ConvTensors, flat)[0])


def _keep_scans(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, axes, reverses, _, backend = inputs
    _, states = output
    ctx.mark_non_differentiable(states)
    ctx.save_for_backward(states, *tensors)
    ctx.settings = (axes, reverses, backend)


def _gradients_of_scans(ctx: Any, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    gradients = _scans_backward_operator(dout, *saved, *ctx.settings)
    return (*fused.only_wanted(gradients, saved[1:]), None, None, None, None)


def _keep_convs(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, axes, reverses, silu, backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.settings = (axes, reverses, silu, backend)


def _gradients_of_convs(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    gradients = _convs_backward_operator(dout, *saved, *ctx.settings)
    return (*fused.only_wanted(gradients, saved), None, None, None, None)


_scans_operator = fused.register(
    "selective_scans",
    f"{_flattened(ScanTensors)}, bool keep_states, str backend",
    "(Tensor, Tensor)",
    _flat_scans,
    _fake_scans,
    (_keep_scans, _gradients_of_scans),
)
_scans_backward_operator = fused.register(
    "selective_scans_backward",
    f"Tensor dout, Tensor states, {_flattened(ScanTensors)}, str backend",
    f"({', '.join(['Tensor'] * len(ScanTensors._fields))})",
    _flat_scans_backward,
    _fake_scans_backward,
)
_convs_operator = fused.register(
    "causal_convs",
    f"{_flattened(ConvTensors)}, bool silu, str backend",
    "Tensor",
    _flat_convs,
    _fake_convs,
    (_keep_convs, _gradients_of_convs),
)
_convs_backward_operator = fused.register(
    "causal_convs_backward",
    f"Tensor dout, {_flattened(ConvTensors)}, bool silu, str backend",
    "(Tensor, Tensor, Tensor)",
    _flat_convs_backward,
    _fake_convs_backward,
)
