"""Arguments for kernel tests, and the comparison of a backend with the reference in float64."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tsm2.kernels import causal_conv, selective_scan

Arguments = dict[str, Any]  # tensors; Any, because other keywords stand beside them

FORWARD_LIMIT, GRADIENT_LIMIT = 1e-5, 1e-4
"""Largest error of a float32 backend, relative to the largest entry."""


def scan_arguments(
    lead: tuple[int, ...],
    features: int = 20,
    states: int = 3,
    *,
    rank: int | None = None,
    leave_out: tuple[str, ...] = (),
    seed: int = 0,
) -> Arguments:
    """Make float32 arguments with steps around 1e-3 to 1, as a trained network has them.

    With a rank, delta is of that rank and comes with its `delta_weight`.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    arguments = {
        "u": normal(*lead, features),
        "delta": normal(*lead, features),
        "A": -torch.exp(normal(features, states)),
        "B": normal(*lead, states),
        "C": normal(*lead, states),
        "D": normal(features),
        "z": normal(*lead, features),
        "delta_bias": normal(features) - 2,
    }
    if rank is not None:
        arguments["delta"] = normal(*lead, rank)
        arguments["delta_weight"] = normal(features, rank) * rank**-0.5
    return {name: value for name, value in arguments.items() if name not in leave_out}


def conv_arguments(
    lead: tuple[int, ...], features: int = 20, taps: int = 4, *, bias: bool = True, seed: int = 0
) -> Arguments:
    """Make float32 arguments."""
    generator = torch.Generator().manual_seed(seed)
    arguments = {
        "x": torch.randn(*lead, features, generator=generator),
        "weight": torch.randn(features, taps, generator=generator),
        "bias": torch.randn(features, generator=generator),
    }
    if not bias:
        del arguments["bias"]
    return arguments


def out_of_a_wider_buffer(tensor: Tensor) -> Tensor:
    """Return equal values as a view with strides of its own, NaN all around them."""
    wider = [size + 2 for size in tensor.shape]
    order = list(range(tensor.ndim - 1))[::-1]  # lead axes stored the other way round
    buffer = torch.full([wider[axis] for axis in order] + wider[-1:], torch.nan)
    view = buffer.permute(*order, tensor.ndim - 1)[(slice(1, -1),) * tensor.ndim]
    view.copy_(tensor)
    return view


def run_with_gradients(
    operation: Callable[..., Tensor], arguments: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Arguments:
    """Return the output under "out" and the gradient of a fixed weighted sum for each argument."""
    leaves = {name: value.detach().requires_grad_() for name, value in arguments.items()}
    out = operation(**leaves, **options)
    upstream = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape).cos()
    gradients = torch.autograd.grad(out, list(leaves.values()), upstream.to(out.device))
    return {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}


def assert_close(
    got: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    limits: tuple[float, float] = (FORWARD_LIMIT, GRADIENT_LIMIT),
) -> None:
    """Compare an output and its gradients, relative to the largest entry of each."""
    assert got.keys() == wanted.keys()
    for name, right in wanted.items():
        left = got[name].cpu().double()
        assert left.shape == right.shape, f"{name}: {left.shape} is not {right.shape}"
        largest = right.abs().max().item() if right.numel() else 0.0
        limit = limits[0] if name == "out" else limits[1]
        torch.testing.assert_close(
            left,
            right.double(),
            rtol=0.0,
            atol=limit * largest + 1e-30,
            msg=lambda text, name=name: f"{name}: {text}",  # type: ignore[misc]
        )


def assert_backend_agrees(
    operation: Callable[..., Tensor],
    backend: str,
    arguments: Arguments,
    *,
    device: str = "cpu",
    **options: Any,
) -> None:
    """Compare a backend in float32 with the reference in float64, values and all gradients."""
    exact = {name: value.double() for name, value in arguments.items()}
    wanted = run_with_gradients(operation, exact, {"backend": "reference", **options})
    placed = {name: value.to(device) for name, value in arguments.items()}
    got = run_with_gradients(operation, placed, {"backend": backend, **options})
    assert got["out"].is_contiguous()
    assert got["out"].dtype == torch.float32
    assert_close(got, wanted)


def assert_scan_agrees(backend: str, arguments: Arguments, **options: Any) -> None:
    """Compare `selective_scan`."""
    assert_backend_agrees(selective_scan, backend, arguments, **options)


def assert_conv_agrees(backend: str, arguments: Arguments, **options: Any) -> None:
    """Compare `causal_conv`."""
    assert_backend_agrees(causal_conv, backend, arguments, **options)
