"""What is handed to the official kernels: stand-ins of their layout and limits, in PyTorch."""

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import torch
from kernel_cases import assert_close, conv_arguments, run_with_gradients, scan_arguments
from torch import Tensor
from torch.nn import functional

from tsm2.errors import BackendError
from tsm2.kernels import causal_conv, dispatch, explain_backends, selective_scan
from tsm2.kernels.interface import ConvTensors, ScanTensors, Walk


def official_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    """Scan (batch, channels, tokens) as mamba-ssm does, and insist on what it insists on."""
    assert delta_softplus
    assert u.stride(-1) == delta.stride(-1) == B.stride(-1) == C.stride(-1) == 1
    assert B.dtype == C.dtype == u.dtype
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    dt = functional.softplus(delta)
    h = torch.zeros(*u.shape[:2], A.shape[1], dtype=u.dtype)
    outputs = []
    for t in range(u.shape[-1]):
        h = torch.exp(dt[:, :, t, None] * A) * h
        h = h + (dt * u)[:, :, t, None] * B[:, None, :, t]
        outputs.append((h * C[:, None, :, t]).sum(-1))
    y = torch.stack(outputs, -1)
    y = y if D is None else y + D[:, None] * u
    return y if z is None else y * functional.silu(z)


def official_conv(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    """Convolve (batch, channels, tokens) as causal-conv1d does."""
    padded = functional.pad(x, (weight.shape[1] - 1, 0))
    y = functional.conv1d(padded, weight[:, None], bias, groups=len(weight))
    return functional.silu(y) if activation == "silu" else y


COMPILED = ("selective_scan_cuda",)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import the backend over the stand-ins."""
    interface = "mamba_ssm.ops.selective_scan_interface"
    modules = {
        name: ModuleType(name)
        for name in (*COMPILED, "causal_conv1d", "mamba_ssm", "mamba_ssm.ops", interface)
    }
    modules["causal_conv1d"].__dict__["causal_conv1d_fn"] = official_conv
    modules[interface].__dict__["selective_scan_fn"] = official_scan
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield import_module("tsm2.kernels.mamba_ssm_backend")
    del sys.modules["tsm2.kernels.mamba_ssm_backend"]


WALKS = [((1,), False), ((2,), True), ((1, 2), False), ((2, 1), True)]


@pytest.mark.parametrize(("axes", "reverse"), WALKS, ids=str)
def test_every_walk_is_laid_out_as_the_official_kernels_read_it(
    backend: Any, axes: tuple[int, ...], reverse: bool
) -> None:
    walk, options = Walk(axes, reverse), {"axes": axes, "reverse": reverse, "backend": "reference"}
    scan = {name: each.double() for name, each in scan_arguments((2, 4, 5), 6).items()}
    assert_close(
        run_with_gradients(
            lambda **given: backend.selective_scan(ScanTensors(**given), walk), scan, {}
        ),
        run_with_gradients(selective_scan, scan, options),
        (1e-12, 1e-10),
    )
    conv = {name: each.double() for name, each in conv_arguments((2, 4, 5), 6).items()}
    assert_close(
        run_with_gradients(
            lambda **given: backend.causal_conv(ConvTensors(**given), walk, True), conv, {}
        ),
        run_with_gradients(causal_conv, conv, options),
        (1e-12, 1e-10),
    )


@pytest.mark.parametrize("leave_out", [("D",), ("z",), ("delta_bias",)], ids=str)
def test_options_may_be_absent(backend: Any, leave_out: tuple[str]) -> None:
    arguments = scan_arguments((2, 5), 6, leave_out=leave_out)
    absent: Any = dict.fromkeys(leave_out)
    got = backend.selective_scan(ScanTensors(**arguments, **absent), Walk((1,), False))
    wanted = selective_scan(**arguments, backend="reference")
    torch.testing.assert_close(got, wanted)


def test_what_the_official_kernels_cannot_do_is_refused(backend: Any) -> None:
    walk = Walk((1,), False)
    arguments = ScanTensors(**scan_arguments((1, 2), 3, states=257))
    with pytest.raises(BackendError, match=r"at most 256 .*got 257.*backend='auto'"):
        backend.selective_scan(arguments, walk)
    with pytest.raises(BackendError, match=r"2 to 4 taps, got 5"):
        backend.causal_conv(ConvTensors(**conv_arguments((1, 2), 3, taps=5)), walk, silu=True)


def test_it_is_explained_where_it_cannot_run() -> None:
    assert "not on cpu" in str(explain_backends("cpu")["mamba_ssm"])


def test_an_official_package_without_its_kernels_is_told_from_one_with_them(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As mamba-ssm 2.3.2 installs itself: its interface imports, what it calls is not there."""
    monkeypatch.delitem(sys.modules, backend.__name__)
    monkeypatch.setitem(sys.modules, COMPILED[0], None)
    dispatch._import_obstacle.cache_clear()
    try:
        said = str(explain_backends("cuda")["mamba_ssm"])
        assert re.search(r"Mamba-1 are not built: .*selective_scan_cuda", said)
        assert "MAMBA_KEEP_CUDA_BUILD=TRUE pip install" in said
    finally:
        dispatch._import_obstacle.cache_clear()
        sys.modules[backend.__name__] = backend
