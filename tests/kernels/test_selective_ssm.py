"""Convolution, selection and scan as one operation: the same as the three, however it is run."""

from typing import Any

import pytest
import torch
from kernel_cases import Arguments, assert_backend_agrees, out_of_a_wider_buffer
from torch import Tensor
from torch.nn import functional

from tsm2.errors import ParameterError
from tsm2.kernels import available_backends, causal_conv, selective_scan, selective_ssm

FEATURES, STATES, TAPS = 20, 3, 4
every_backend = pytest.mark.parametrize("backend", available_backends("cpu"))


def drawn(
    lead: tuple[int, ...] = (2, 19, 3), *, rank: int | None = 2, leave_out: tuple[str, ...] = ()
) -> Arguments:
    """Make float32 arguments; with a rank of None the selection has a step for every channel."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    columns = (FEATURES if rank is None else rank) + 2 * STATES
    arguments = {
        "x": normal(*lead, FEATURES),
        "conv_weight": normal(FEATURES, TAPS),
        "conv_bias": normal(FEATURES),
        "select_weight": normal(columns, FEATURES) * FEATURES**-0.5,
        "A": -torch.exp(normal(FEATURES, STATES)),
        "D": normal(FEATURES),
        "z": normal(*lead, FEATURES),
        "delta_bias": normal(FEATURES) - 2,
        "delta_weight": normal(FEATURES, rank or 1),
    }
    unwanted = (*leave_out, *(("delta_weight",) if rank is None else ()))
    return {name: value for name, value in arguments.items() if name not in unwanted}


def one_by_one(arguments: Arguments, **order: Any) -> Tensor:
    """Call the three operations."""
    given = dict(arguments)
    x, taps, bias, select = (
        given.pop(name) for name in ("x", "conv_weight", "conv_bias", "select_weight")
    )
    u = causal_conv(x, taps, bias, **order)
    selected = functional.linear(u, select)
    states = given["A"].shape[1]
    rank = selected.shape[-1] - 2 * states
    delta, B, C = selected[..., :rank], selected[..., rank:-states], selected[..., -states:]
    return selective_scan(u, delta=delta, B=B, C=C, **given, **order)


@every_backend
@pytest.mark.parametrize("rank", [None, 1, 2, 6])
@pytest.mark.parametrize(("axes", "reverse"), [((1,), False), ((2,), True), ((2, 1), True)])
def test_values_and_gradients_are_the_references(
    backend: str, rank: int | None, axes: tuple[int, ...], reverse: bool
) -> None:
    for leave_out in ((), ("D", "z", "delta_bias")):
        arguments = drawn(rank=rank, leave_out=leave_out)
        assert_backend_agrees(selective_ssm, backend, arguments, axes=axes, reverse=reverse)


@every_backend
def test_tensors_are_read_where_they_lie(backend: str) -> None:
    arguments = drawn()
    for name in ("x", "z"):
        arguments[name] = out_of_a_wider_buffer(arguments[name])
    assert_backend_agrees(selective_ssm, backend, arguments, axes=(2,))


def test_the_reference_is_the_three_operations() -> None:
    arguments = {name: value.double() for name, value in drawn().items()}
    order: Any = {"axes": (1,), "reverse": True, "backend": "reference"}
    torch.testing.assert_close(selective_ssm(**arguments, **order), one_by_one(arguments, **order))


def test_training_is_one_node_and_says_what_a_forecast_says() -> None:
    arguments = {name: value.requires_grad_() for name, value in drawn().items()}
    out = selective_ssm(**arguments)
    assert out.grad_fn is not None
    assert {each for each, _ in out.grad_fn.next_functions if each is not None} == {
        torch.autograd.graph.get_gradient_edge(leaf).node for leaf in arguments.values()
    }
    with torch.no_grad():
        torch.testing.assert_close(selective_ssm(**arguments), out)


def test_no_bias() -> None:
    given = {
        name: value.requires_grad_() for name, value in drawn(leave_out=("conv_bias",)).items()
    }
    out = selective_ssm(conv_bias=None, **given)
    zeros = torch.zeros(FEATURES)
    torch.testing.assert_close(out, selective_ssm(conv_bias=zeros, **given))
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert all(value.grad is not None for value in given.values())


def test_mixed_precision_goes_the_long_way() -> None:
    arguments = {name: value.requires_grad_() for name, value in drawn().items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, wanted = selective_ssm(**arguments), one_by_one(arguments)
    torch.testing.assert_close(out, wanted)
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert arguments["select_weight"].grad is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select_weight": torch.zeros(7, FEATURES)}, r"select_weight .* needs \(8, 20\)"),
        ({"conv_weight": torch.zeros(FEATURES)}, r"conv_weight .* needs \(20, K\)"),
        ({"conv_bias": torch.zeros(3)}, r"conv_bias .* needs \(20,\)"),
        ({"A": torch.zeros(3, 3)}, r"A .* needs \(20, N\)"),
        ({"delta_weight": torch.zeros(3)}, r"delta_weight .* needs \(20, R\)"),
        ({"axes": (3,)}, "one or two different axes of x"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        selective_ssm(**(drawn() | changes))
