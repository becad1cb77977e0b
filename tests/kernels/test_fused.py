"""The fused kernels as torch sees them: operators with known shapes, and gradients of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from kernel_cases import conv_arguments, run_with_gradients, scan_arguments
from torch import Tensor, nn
from torch.nn import functional

from tsm2.kernels import available_backends, causal_conv, selective_scan
from tsm2.kernels.dispatch import is_fused
from tsm2.kernels.interface import STATE_STEPS
from tsm2.networks.mixers import SelectiveMixer
from tsm2.networks.tsm2 import NetworkConfig, TSM2Network

BACKENDS = [name for name in available_backends("cpu") if is_fused(name)]
WALKS = [((1,), False), ((2, 1), True)]
every_fused_backend = pytest.mark.parametrize("backend", BACKENDS)
every_walk = pytest.mark.parametrize(("axes", "reverse"), WALKS, ids=str)


def in_order(arguments: dict[str, Tensor]) -> list[Tensor | None]:
    names = ["u", "delta", "A", "B", "C", "D", "z", "delta_bias", "delta_weight"]
    names = names if "u" in arguments else ["x", "weight", "bias"]
    return [arguments.get(name) for name in names]


def leaves(arguments: dict[str, Tensor]) -> list[Tensor | None]:
    return in_order({name: each.requires_grad_() for name, each in arguments.items()})


@every_fused_backend
@every_walk
@pytest.mark.parametrize("leave_out", [(), ("D", "z", "delta_bias")], ids=["all", "few"])
def test_the_scan_is_a_sound_operator(
    backend: str, axes: tuple[int, ...], reverse: bool, leave_out: tuple[str, ...]
) -> None:
    """Shapes, strides and dtypes of fake tensors, autograd, and tracing with both."""
    arguments = scan_arguments((2, 19, 3), 5, leave_out=leave_out)
    for keep_states in (False, True):
        settings = (axes, reverse, keep_states, backend)
        torch.library.opcheck(
            torch.ops.tsm2.selective_scan.default, (*in_order(arguments), *settings)
        )
    settings = (axes, reverse, True, backend)
    torch.library.opcheck(torch.ops.tsm2.selective_scan.default, (*leaves(arguments), *settings))


@every_fused_backend
@every_walk
@pytest.mark.parametrize("bias", [True, False])
def test_the_convolution_is_a_sound_operator(
    backend: str, axes: tuple[int, ...], reverse: bool, bias: bool
) -> None:
    tensors = leaves(conv_arguments((2, 19, 3), 5, bias=bias))
    settings = (axes, reverse, True, backend)
    torch.library.opcheck(torch.ops.tsm2.causal_conv.default, (*tensors, *settings))


def test_the_scan_with_steps_of_low_rank_is_a_sound_operator() -> None:
    arguments = scan_arguments((2, 40), 5, rank=2)
    settings = ((1,), False, True, "numba")
    torch.library.opcheck(torch.ops.tsm2.selective_scan.default, (*leaves(arguments), *settings))


@every_fused_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_gradients_are_sound_operators(backend: str, dtype: torch.dtype) -> None:
    checks = ["test_faketensor", "test_schema"]
    arguments = scan_arguments((2, 40), 5)
    tensors = in_order(arguments | {"u": arguments["u"].to(dtype)})
    out, states = torch.ops.tsm2.selective_scan(*tensors, (1,), False, True, backend)
    assert states.shape == (2, 40 // STATE_STEPS, 3, 5)
    given = (out, states, *tensors, (1,), False, backend)
    backward = torch.ops.tsm2.selective_scan_backward.default
    torch.library.opcheck(backward, given, test_utils=checks)

    arguments = conv_arguments((2, 40), 5)
    tensors = in_order(arguments | {"x": arguments["x"].to(dtype)})
    given = (tensors[0], *tensors, (1,), False, True, backend)
    backward = torch.ops.tsm2.causal_conv_backward.default
    torch.library.opcheck(backward, given, test_utils=checks)


@every_walk
@pytest.mark.parametrize("backend", available_backends("cpu", torch.float64))
def test_gradients_in_double_precision(backend: str, axes: tuple[int, ...], reverse: bool) -> None:
    options: dict[str, Any] = {"axes": axes, "reverse": reverse, "backend": backend}
    assert_gradients(partial(selective_scan, **options), scan_arguments((1, 18, 2), 2, 2))
    assert_gradients(partial(causal_conv, **options), conv_arguments((1, 18, 2), 2))


def assert_gradients(operation: Callable[..., Tensor], arguments: dict[str, Tensor]) -> None:
    double = [each.double().requires_grad_() for each in arguments.values()]
    assert torch.autograd.gradcheck(
        lambda *tensors: operation(**dict(zip(arguments, tensors, strict=True))),
        double,
        fast_mode=True,
    )


@every_fused_backend
def test_there_is_no_second_derivative(backend: str) -> None:
    arguments = scan_arguments((2, 5))
    u = arguments["u"].requires_grad_()
    out = selective_scan(**arguments, backend=backend)
    (first,) = torch.autograd.grad(out.square().sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


@every_walk
def test_every_backend_keeps_the_same_states(axes: tuple[int, ...], reverse: bool) -> None:
    tensors = in_order(scan_arguments((3, 50, 4), 70))
    wanted, *others = (
        torch.ops.tsm2.selective_scan(*tensors, axes, reverse, True, backend)[1]
        for backend in BACKENDS
    )
    for states in others:
        torch.testing.assert_close(states, wanted)


def make_network(kind: str) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "mixer":
            mixer = SelectiveMixer(8, orders=((1,), (2, 1)), directions="both")
            return mixer, torch.randn(2, 20, 3, 8)
        config = NetworkConfig(
            lookback=64, horizon=8, n_variates=3, features=8, zero_start=False, zero_head=False
        )
        return TSM2Network(config), torch.randn(2, 3, 64)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # what torch's tracer does
@pytest.mark.parametrize("kind", ["mixer", "TSM2Network"])
def test_a_network_compiles_to_one_graph(kind: str) -> None:
    """The backend "aot_eager" traces both passes and runs the graphs without a C++ compiler."""
    network, x = make_network(kind)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager", dynamic=False)

    def gradients(module: Any) -> tuple[Tensor, ...]:
        out = module(x)
        loss = functional.mse_loss(out, torch.zeros_like(out))
        return (out, *torch.autograd.grad(loss, list(network.parameters())))

    for got, wanted in zip(gradients(compiled), gradients(network), strict=True):
        torch.testing.assert_close(got, wanted)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x))


def test_compiled_scans_take_any_length() -> None:
    def scan(u: Tensor, A: Tensor, B: Tensor) -> Tensor:
        return selective_scan(u, u, A, B, B).square()

    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager", dynamic=True)
    for length in (5, 9, 20, 40, 33):
        made = scan_arguments((2, length), 8)
        arguments = {name: made[name] for name in ("u", "A", "B")}
        wanted = run_with_gradients(scan, arguments, {})
        got = run_with_gradients(compiled, arguments, {})
        for name in wanted:
            torch.testing.assert_close(got[name], wanted[name])
