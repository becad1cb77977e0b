"""The reference against results known from elsewhere: it defines what the other backends do."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from kernel_cases import Arguments, conv_arguments, scan_arguments
from torch import Tensor
from torch.nn.functional import conv1d, pad, silu

from tsm2.kernels import causal_conv, selective_scan


def doubled(arguments: Arguments) -> Arguments:
    return {name: value.double() for name, value in arguments.items()}


def scan_by_matrix(arguments: Arguments) -> Tensor:
    """Compute the scan of one batch without a recurrence, from products of decays."""
    u, delta, A, B, C = (arguments[name] for name in ("u", "delta", "A", "B", "C"))
    step = torch.log1p(torch.exp(delta + arguments["delta_bias"]))
    length = u.shape[1]
    y = arguments["D"] * u
    for t in range(length):
        for s in range(t + 1):
            decay = torch.exp(step[:, s + 1 : t + 1].sum(1)[..., None] * A)
            fed = (step[:, s] * u[:, s])[..., None] * B[:, s, None, :]
            y[:, t] += (decay * fed * C[:, t, None, :]).sum(-1)
    gated: Tensor = y * silu(arguments["z"])
    return gated


def test_scan_is_the_sum_over_all_earlier_tokens() -> None:
    arguments = doubled(scan_arguments((2, 9), features=5))
    got = selective_scan(**arguments, backend="reference")
    torch.testing.assert_close(got, scan_by_matrix(arguments), rtol=1e-12, atol=1e-12)


def test_scan_over_rows_and_columns_of_an_image_unrolls_it() -> None:
    arguments = doubled(scan_arguments((2, 3, 4)))
    tensors = {name: value for name, value in arguments.items() if value.ndim == 4}
    for axes, turned in [((1, 2), False), ((2, 1), True)]:
        unrolled = {
            name: (value.transpose(1, 2) if turned else value).flatten(1, 2)
            for name, value in tensors.items()
        }
        flat = selective_scan(**{**arguments, **unrolled}, backend="reference")
        wanted = flat.reshape(2, 4, 3, -1).transpose(1, 2) if turned else flat.reshape(2, 3, 4, -1)
        got = selective_scan(**arguments, axes=axes, backend="reference")
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_reverse_is_flip_scan_flip() -> None:
    arguments = doubled(scan_arguments((2, 7)))
    flipped = {name: v.flip(1) if v.ndim == 3 else v for name, v in arguments.items()}
    got = selective_scan(**arguments, reverse=True, backend="reference")
    wanted = selective_scan(**flipped, backend="reference").flip(1)
    torch.testing.assert_close(got, wanted, rtol=1e-13, atol=1e-15)


def test_negative_axes_count_from_the_end() -> None:
    scan, conv = scan_arguments((2, 3, 4)), conv_arguments((2, 3, 4))
    for negative, positive in [((-2,), (2,)), ((-3, -2), (1, 2)), ((-4,), (0,))]:
        for operation, arguments in ((selective_scan, scan), (causal_conv, conv)):
            got = operation(**arguments, axes=negative, backend="reference")
            wanted = operation(**arguments, axes=positive, backend="reference")
            torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_conv_is_pytorchs_padded_conv1d(reverse: bool) -> None:
    arguments = doubled(conv_arguments((2, 9), features=5, taps=4))
    x = arguments["x"].flip(1) if reverse else arguments["x"]
    rows = pad(x.transpose(1, 2), (3, 0))
    plain = conv1d(rows, arguments["weight"][:, None], arguments["bias"], groups=5).transpose(1, 2)
    plain = plain.flip(1) if reverse else plain
    for activation, wanted in [(None, plain), ("silu", silu(plain))]:
        options: Arguments = {"activation": activation, "reverse": reverse}
        got = causal_conv(**arguments, **options, backend="reference")
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def _call_by_name(
    operation: Callable[..., Tensor], names: list[str], options: Arguments, *tensors: Tensor
) -> Tensor:
    return operation(**dict(zip(names, tensors, strict=True)), **options)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("axes", [(1,), (2, 1)], ids=str)
def test_gradients_of_the_reference(axes: tuple[int, ...], reverse: bool) -> None:
    scan = doubled(scan_arguments((1, 3, 2), features=2, states=2))
    conv = doubled(conv_arguments((1, 3, 2), features=2, taps=3))
    cases: list[tuple[Callable[..., Tensor], Arguments]] = [
        (selective_scan, scan),
        (causal_conv, conv),
    ]
    for operation, arguments in cases:
        options: Arguments = {"axes": axes, "reverse": reverse, "backend": "reference"}
        by_position = partial(_call_by_name, operation, list(arguments), options)
        leaves = [value.requires_grad_() for value in arguments.values()]
        assert torch.autograd.gradcheck(by_position, leaves)


def test_softplus_is_exact_for_large_steps() -> None:
    """PyTorch's own is the identity from 20 on."""
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    got = selective_scan(one, 25 * one, zero, one, one, backend="reference")
    assert got.item() == pytest.approx(25 + torch.tensor(-25.0).double().exp().item(), rel=1e-15)
