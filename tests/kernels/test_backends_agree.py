"""Every backend agrees with the reference in float64: values and all gradients, every layout."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tsm2.kernels import available_backends, causal_conv, selective_scan

BACKENDS = [name for name in available_backends("cpu") if name != "reference"]
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
LENGTHS = [1, 2, 15, 16, 17, 100]


def scan_arguments(
    *lead: int, channels: int, states: int, seed: int = 0, delta_scale: float = 1.0
) -> list[Tensor | None]:
    """Inputs in float64 that float32 holds exactly, so that rounding is the kernel's alone."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).double()

    rates = -torch.arange(1.0, states + 1).double().repeat(channels, 1)
    spread = 1 + torch.rand(channels, states, generator=generator).double().mul(64).round() / 64
    return [
        normal(*lead, channels),
        normal(*lead, channels) * delta_scale,
        rates * spread,
        normal(*lead, states),
        normal(*lead, states),
        normal(channels),
        normal(*lead, channels),
        normal(channels) - 2,
    ]


def single(arguments: list[Tensor | None]) -> list[Tensor | None]:
    return [None if argument is None else argument.float() for argument in arguments]


def with_gradients(
    run: Callable[..., Tensor], arguments: list[Tensor | None], dtype: torch.dtype
) -> list[Tensor | None]:
    """Return the output and the gradients of every argument."""
    leaves = [None if a is None else a.detach().to(dtype).requires_grad_() for a in arguments]
    output = run(*leaves)
    upstream = torch.linspace(-1, 1, output.numel()).view_as(output)
    present = [leaf for leaf in leaves if leaf is not None]
    gradients = iter(torch.autograd.grad(output, present, upstream.to(dtype)))
    return [output.detach(), *(None if leaf is None else next(gradients) for leaf in leaves)]


def assert_agrees(
    run: Callable[..., Tensor], arguments: list[Tensor | None], backend: str, names: tuple[str, ...]
) -> None:
    def on(name: str) -> Callable[..., Tensor]:
        return lambda *leaves: run(*leaves, backend=name)

    wanted = with_gradients(on("reference"), arguments, torch.float64)
    got = with_gradients(on(backend), arguments, torch.float32)
    for name, g, w in zip(("y", *(f"d{n}" for n in names)), got, wanted, strict=True):
        if w is None or g is None:
            assert g is None, name
            assert w is None, name
            continue
        tolerance = 1e-5 if name == "y" else 1e-4
        error = (g.double() - w).abs().max().item() / max(w.abs().max().item(), 1e-6)
        assert error <= tolerance, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("length", LENGTHS, ids="L{}".format)
def test_scan_at_every_length(backend: str, reverse: bool, length: int) -> None:
    arguments = scan_arguments(3, length, channels=20, states=5)
    assert_agrees(
        lambda *a, backend: selective_scan(*a, reverse=reverse, backend=backend),
        arguments,
        backend,
        NAMES,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [1, 7, 16, 33, 130])
@pytest.mark.parametrize("states", [1, 3, 16, 33])
def test_scan_at_sizes_that_fill_no_vector(backend: str, channels: int, states: int) -> None:
    arguments = scan_arguments(2, 18, channels=channels, states=states)
    assert_agrees(selective_scan, arguments, backend, NAMES)


AXES = [(0,), (1,), (2,), (-2,), (0, 1), (1, 2), (2, 1), (2, 0)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_both_kernels_along_every_axis(backend: str, axes: tuple[int, ...], reverse: bool) -> None:
    arguments = scan_arguments(4, 5, 6, channels=9, states=3)
    assert_agrees(
        lambda *a, backend: selective_scan(*a, axes=axes, reverse=reverse, backend=backend),
        arguments,
        backend,
        NAMES,
    )
    x, weight, bias = arguments[0], torch.randn(9, 4).double(), arguments[5]
    assert_agrees(
        lambda *a, backend: causal_conv(*a, axes=axes, reverse=reverse, backend=backend),
        [x, weight, bias],
        backend,
        ("x", "weight", "bias"),
    )


@pytest.mark.parametrize("axes", [(1, 2), (2, 1)], ids=str)
@pytest.mark.parametrize("backend", available_backends("cpu"))
def test_two_axes_are_one_walk_over_the_flattened_image(
    backend: str, axes: tuple[int, int]
) -> None:
    arguments = scan_arguments(2, 3, 4, channels=5, states=2)
    tensors = single(arguments)
    got = selective_scan(*tensors, axes=axes, backend=backend)  # type: ignore[arg-type]

    def flat(tensor: Tensor | None) -> Tensor | None:
        if tensor is None or tensor.ndim < 4:
            return tensor
        return (tensor if axes == (1, 2) else tensor.transpose(1, 2)).flatten(1, 2)

    walked = selective_scan(*map(flat, tensors), backend="reference")  # type: ignore[arg-type]
    wanted = walked.view(2, *((3, 4) if axes == (1, 2) else (4, 3)), 5)
    wanted = wanted if axes == (1, 2) else wanted.transpose(1, 2)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("absent", ["D", "z", "delta_bias", "all"])
def test_scan_without_its_options(backend: str, absent: str) -> None:
    arguments = scan_arguments(2, 19, channels=10, states=4)
    for place, name in enumerate(NAMES):
        if name == absent or (absent == "all" and name in {"D", "z", "delta_bias"}):
            arguments[place] = None
    assert_agrees(selective_scan, arguments, backend, NAMES)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("delta_scale", [1e-6, 1e-2, 10.0, 100.0])
def test_scan_at_tiny_and_huge_steps(backend: str, delta_scale: float) -> None:
    arguments = scan_arguments(2, 40, channels=6, states=4, delta_scale=delta_scale)
    assert_agrees(selective_scan, arguments, backend, NAMES)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("length", [1, 2, 17])
@pytest.mark.parametrize("activation", ["silu", None])
def test_convolution_of_every_width(
    backend: str, taps: int, length: int, activation: str | None
) -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight, bias = (
        torch.randn(*shape, generator=generator).double()
        for shape in ((3, length, 21), (21, taps), (21,))
    )

    def run(*arguments: Tensor, backend: str) -> Tensor:
        return causal_conv(*arguments, activation=activation, backend=backend)  # type: ignore[arg-type]

    assert_agrees(run, [x, weight, bias], backend, ("x", "weight", "bias"))
    assert_agrees(run, [x, weight, None], backend, ("x", "weight", "bias"))


@pytest.mark.parametrize("step", [1e-1, 1e-2, 1e-3])
def test_eulers_rule_is_the_zero_order_hold_for_short_steps(step: float) -> None:
    """Zero-order hold weighs the input by (exp(dt A) - 1) / A, Euler's rule by dt."""
    A = torch.tensor([[-1.0], [-4.0]]).double()
    u = torch.ones(1, 1, 2).double()
    delta = torch.full((1, 1, 2), step).double().expm1().log()
    one = torch.ones(1, 1, 1).double()
    euler = selective_scan(u, delta, A, one, one, backend="reference")[0, 0]
    hold = (torch.exp(step * A[:, 0]) - 1) / A[:, 0]
    assert float(((euler - hold) / hold).abs().max()) < 2.1 * step * 4 / 2


def test_a_scan_survives_a_fork_and_several_threads() -> None:
    code = """
import os, torch
from concurrent.futures import ThreadPoolExecutor
from tsm2.kernels import selective_scan
torch.set_num_threads(2)
g = torch.Generator().manual_seed(0)
r = lambda *s: torch.randn(*s, generator=g)
a = (r(32, 64, 64), r(32, 64, 64), -r(64, 16).abs(), r(32, 64, 16), r(32, 64, 16))
y = selective_scan(*a).numpy()
with ThreadPoolExecutor(8) as pool:
    scans = pool.map(lambda _: selective_scan(*a).numpy(), range(16))
    assert all((y == scan).all() for scan in scans)
child = os.fork()
if child == 0:
    # Compared by numpy: OpenMP, which torch's own operations use, does not survive a fork.
    os._exit(0 if (selective_scan(*a).numpy() == y).all() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
