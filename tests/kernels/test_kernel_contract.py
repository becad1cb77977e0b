"""What the kernels promise about memory, NaN and autograd, for every backend."""

import pytest
import torch
from kernel_cases import (
    Arguments,
    assert_close,
    assert_conv_agrees,
    assert_scan_agrees,
    conv_arguments,
    out_of_a_wider_buffer,
    run_with_gradients,
    scan_arguments,
)

from tsm2.errors import ParameterError
from tsm2.kernels import available_backends, selective_scan

every_backend = pytest.mark.parametrize("backend", available_backends("cpu", torch.float32))
both_directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


@every_backend
@pytest.mark.parametrize("batch", [1, 2, 5, 40], ids="batch{}".format)
def test_batches(backend: str, batch: int) -> None:
    """Few sequences share the channels of a row among tasks; many share a chunk of tasks."""
    assert_scan_agrees(backend, scan_arguments((batch, 19), features=70))


@every_backend
@pytest.mark.parametrize("lead", [(7,), (2, 2, 3, 2, 2)], ids=str)
def test_any_number_of_batch_axes(backend: str, lead: tuple[int, ...]) -> None:
    assert_scan_agrees(backend, scan_arguments(lead), axes=(len(lead) // 2,))


@every_backend
@both_directions
@pytest.mark.parametrize("axes", [(1,), (2, 1)], ids=str)
def test_views_with_strides_of_their_own(
    backend: str, axes: tuple[int, ...], reverse: bool
) -> None:
    arguments = scan_arguments((2, 5, 4))
    views = {name: out_of_a_wider_buffer(value) for name, value in arguments.items()}
    assert not views["u"].is_contiguous()
    assert_scan_agrees(backend, views, axes=axes, reverse=reverse)
    x = out_of_a_wider_buffer(arguments["u"])
    assert_conv_agrees(backend, conv_arguments((2, 5, 4)) | {"x": x}, axes=axes, reverse=reverse)


@every_backend
def test_expanded_and_transposed_arguments(backend: str) -> None:
    arguments = scan_arguments((3, 18))
    arguments["B"] = arguments["B"][:1].expand(3, -1, -1)
    arguments["C"] = arguments["C"][:, :1].expand(-1, 18, -1)
    arguments["D"] = arguments["D"][:1].expand(20)
    arguments["z"] = arguments["z"][..., :1].expand(-1, -1, 20)  # last stride 0
    arguments["u"] = arguments["u"].transpose(1, 2).contiguous().transpose(1, 2)  # last stride 18
    assert_scan_agrees(backend, arguments)


def test_views_are_read_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    arguments = scan_arguments((2, 5, 4))
    views: Arguments = {name: out_of_a_wider_buffer(arguments[name]) for name in arguments}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("copied")

    selective_scan(**views, backend="numba")  # compiles, if need be
    for copy in ("contiguous", "clone"):
        monkeypatch.setattr(torch.Tensor, copy, refuse)
    selective_scan(**views, axes=(2, 1), reverse=True, backend="numba")


@every_backend
@pytest.mark.parametrize("delta", [-1e30, -200.0, 200.0, 1e4])
def test_extreme_steps_stay_finite(backend: str, delta: float) -> None:
    arguments = scan_arguments((2, 20))
    arguments["delta"] = torch.full_like(arguments["delta"], delta)
    for name, value in run_with_gradients(selective_scan, arguments, {"backend": backend}).items():
        assert value.isfinite().all(), name


@every_backend
@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias"])
def test_nan_in_gives_nan_out_and_only_there(backend: str, name: str) -> None:
    arguments = scan_arguments((2, 20), features=19)
    clean = selective_scan(**arguments, backend=backend)
    arguments[name] = arguments[name].clone()
    per_token = arguments[name].ndim == 3
    if per_token:
        arguments[name][1, 9, 2] = torch.nan  # sequence 1, token 9
    else:
        arguments[name][2] = torch.nan  # channel 2
    got = selective_scan(**arguments, backend=backend)
    channel = slice(None) if name in ("B", "C") else 2
    hit = torch.zeros_like(got, dtype=torch.bool)
    if per_token:
        hit[1, 9 if name in ("C", "z") else slice(9, None), channel] = True
    else:
        hit[..., 2] = True
    assert got[hit].isnan().all()
    torch.testing.assert_close(got[~hit], clean[~hit], rtol=0, atol=0)


@every_backend
@pytest.mark.parametrize("lead", [(2, 17), (1, 16)], ids=str)
def test_every_element_is_written(backend: str, lead: tuple[int, int]) -> None:
    """Fresh memory is filled with NaN here."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        assert_scan_agrees(backend, scan_arguments(lead, features=37))
    finally:
        torch.use_deterministic_algorithms(deterministic)


@every_backend
@pytest.mark.parametrize(
    ("lead", "features", "states"), [((0, 4), 3, 2), ((2, 0), 3, 2), ((2, 4), 0, 2), ((2, 4), 3, 0)]
)
def test_empty_sizes(backend: str, lead: tuple[int, int], features: int, states: int) -> None:
    arguments = {n: v.requires_grad_() for n, v in scan_arguments(lead, features, states).items()}
    out = selective_scan(**arguments, backend=backend)
    assert out.shape == (*lead, features)
    gradients = torch.autograd.grad(out.sum(), list(arguments.values()), allow_unused=True)
    for value, gradient in zip(arguments.values(), gradients, strict=True):
        assert gradient is None or gradient.shape == value.shape


@every_backend
def test_autocast_does_not_reach_inside(backend: str) -> None:
    arguments = scan_arguments((2, 50))
    wanted = run_with_gradients(selective_scan, arguments, {"backend": backend})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run_with_gradients(selective_scan, arguments, {"backend": backend})
        mixed = {**arguments, "u": arguments["u"].bfloat16()}
        assert selective_scan(**mixed, backend=backend).dtype == torch.bfloat16
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], rtol=0, atol=0)


@every_backend
@pytest.mark.parametrize("name", ["delta", "delta_weight"])
def test_a_step_weight_may_have_another_dtype_than_the_steps(backend: str, name: str) -> None:
    arguments = scan_arguments((2, 18), rank=2)
    half = {**arguments, name: arguments[name].bfloat16()}
    got = run_with_gradients(selective_scan, half, {"backend": backend})
    wanted = run_with_gradients(selective_scan, arguments, {"backend": "reference"})
    assert got[name].dtype == torch.bfloat16
    assert_close(got, wanted, (2**-6, 2**-5))


@every_backend
def test_result_without_gradients_is_the_same(backend: str) -> None:
    arguments = scan_arguments((2, 33))
    with_graph = run_with_gradients(selective_scan, arguments, {"backend": backend})["out"]
    leaves = {name: value.requires_grad_() for name, value in arguments.items()}
    with torch.no_grad():
        without = selective_scan(**leaves, backend=backend)
    assert not without.requires_grad
    torch.testing.assert_close(without, with_graph, rtol=0, atol=0)


@every_backend
def test_gradients_only_where_asked(backend: str) -> None:
    arguments = scan_arguments((2, 17))
    wanted = run_with_gradients(selective_scan, arguments, {"backend": backend})
    for name in arguments:
        leaf = arguments[name].detach().requires_grad_()
        out = selective_scan(**{**arguments, name: leaf}, backend=backend)
        upstream = torch.linspace(-1, 1, out.numel()).reshape(out.shape).cos()
        (got,) = torch.autograd.grad(out, leaf, upstream)
        torch.testing.assert_close(got, wanted[name], rtol=1e-6, atol=1e-6)


@every_backend
def test_saved_tensors_may_move(backend: str) -> None:
    """Hooks may hand the backward pass other memory than the forward pass saw."""
    arguments = scan_arguments((2, 40))
    wanted = run_with_gradients(selective_scan, arguments, {"backend": backend})

    def copied_elsewhere(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.repeat_interleave(2, 0)[::2] if tensor.ndim else tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(copied_elsewhere, lambda tensor: tensor):
        got = run_with_gradients(selective_scan, arguments, {"backend": backend})
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], rtol=0, atol=0)


def test_numba_has_no_second_derivative() -> None:
    pytest.importorskip("numba")
    arguments = scan_arguments((2, 5))
    u = arguments["u"].requires_grad_()
    out = selective_scan(**arguments, backend="numba")
    (first,) = torch.autograd.grad(out.square().sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


def test_numba_refuses_growing_states() -> None:
    pytest.importorskip("numba")
    arguments = scan_arguments((2, 5))
    arguments["A"] = -arguments["A"]
    with pytest.raises(ParameterError, match="no positive rate"):
        selective_scan(**arguments, backend="numba")
