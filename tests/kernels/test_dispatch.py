"""Which backend runs, what is said about it, and what is refused before any kernel starts."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from tsm2.errors import BackendError, ParameterError
from tsm2.kernels import available_backends, causal_conv, explain_backends, selective_scan


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | variables,
    )


def arguments(**changes: Tensor) -> dict[str, Any]:
    sizes = {"u": (2, 5, 3), "delta": (2, 5, 3), "B": (2, 5, 4), "C": (2, 5, 4)}
    made: dict[str, Any] = {name: torch.ones(size) for name, size in sizes.items()}
    return made | {"A": -torch.ones(3, 4)} | changes


def test_importing_the_kernels_loads_no_compiler() -> None:
    result = run_python(
        "import sys, tsm2.kernels\n"
        "print([name for name in ('numba', 'triton', 'mamba_ssm') if name in sys.modules])"
    )
    assert result.stdout == "[]\n", result.stderr


FALLBACK = """
import torch, warnings
from tsm2.kernels import available_backends, explain_backends, selective_scan
one = torch.ones(1, 3, 1, dtype={dtype})
for _ in range(3):
    selective_scan(one, one, -one[0, :1], one, one)
print(available_backends(dtype={dtype}), explain_backends(dtype={dtype})['numba'])
"""


@pytest.mark.parametrize(
    ("dtype", "variables", "reason"),
    [
        ("torch.float32", {"NUMBA_DISABLE_JIT": "1"}, "NUMBA_DISABLE_JIT"),
        ("torch.float64", {}, "float64"),
    ],
)
def test_auto_falls_back_to_torch_and_says_so_once(
    dtype: str, variables: dict[str, str], reason: str
) -> None:
    result = run_python(FALLBACK.format(dtype=dtype), **variables)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("KernelFallbackWarning") == 1
    assert "<string>:6" in result.stderr  # the line of the caller
    assert reason in result.stderr
    assert result.stdout.startswith("['torch', 'reference']")
    assert reason in result.stdout


def test_a_missing_numba_is_explained() -> None:
    code = "import sys\nsys.modules['numba'] = None\n" + FALLBACK.format(dtype="torch.float32")
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert "numba" in result.stdout
    assert result.stdout.startswith("['torch', 'reference']")


def test_a_named_backend_is_never_replaced() -> None:
    double = {name: tensor.double() for name, tensor in arguments().items()}
    with pytest.raises(BackendError, match=r"'numba' cannot run with .*float64.*reference"):
        selective_scan(**double, backend="numba")
    with pytest.raises(BackendError, match=r"'cuda'.*Pass backend='auto'"):
        selective_scan(**arguments(), backend="cuda")


def test_every_backend_is_explained() -> None:
    assert list(explain_backends()) == ["numba", "triton", "torch", "mamba_ssm", "reference"]
    assert all(explain_backends()[name] is None for name in available_backends())
    assert explain_backends("meta")["numba"] is not None


@pytest.mark.parametrize("name", ["delta", "A", "B", "C"])
def test_a_wrong_shape_names_both_arguments(name: str) -> None:
    with pytest.raises(ParameterError, match=rf"{name}.*u"):
        selective_scan(**arguments(**{name: torch.ones(2, 7, 7)}))


@pytest.mark.parametrize("shape", [(3,), (3, 5), (4, 2)], ids=str)
def test_a_wrong_shape_of_a_step_weight_is_named(shape: tuple[int, ...]) -> None:
    low_rank = arguments(delta=torch.ones(2, 5, 2), delta_weight=torch.ones(shape))
    with pytest.raises(ParameterError, match="delta"):
        selective_scan(**low_rank)


@pytest.mark.parametrize("axes", [(), (2,), (-1,), (1, 1), (0, 1, 2), (5,)])
def test_axes_that_do_not_fit_are_refused(axes: tuple[int, ...]) -> None:
    with pytest.raises(ParameterError, match="axes must name"):
        selective_scan(**arguments(), axes=axes)
    with pytest.raises(ParameterError, match="axes must name"):
        causal_conv(torch.ones(2, 5, 3), torch.ones(3, 4), axes=axes)


def test_other_mistakes_are_refused() -> None:
    with pytest.raises(ParameterError, match="floating point"):
        selective_scan(**arguments(u=torch.ones(2, 5, 3, dtype=torch.int64)))
    with pytest.raises(ParameterError, match="activation must be"):
        causal_conv(torch.ones(2, 5, 3), torch.ones(3, 4), activation="relu")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="weight"):
        causal_conv(torch.ones(2, 5, 3), torch.ones(4, 4))
