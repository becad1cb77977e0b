"""What only the backend in PyTorch has: work buffers of limited size, and double precision."""

import pytest
import torch
from kernel_cases import assert_close, conv_arguments, run_with_gradients, scan_arguments

from tsm2.kernels import causal_conv, selective_scan, torch_backend


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("work", [1, 5_000, 1 << 20])
def test_any_size_of_the_work_buffers_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, work: int, reverse: bool
) -> None:
    """From one sequence and one chunk at a time to everything at once."""
    monkeypatch.setitem(torch_backend._WORK_FLOATS, "cpu", work)
    arguments = {name: each.double() for name, each in scan_arguments((5, 150), 6).items()}
    options = {"reverse": reverse}
    assert_close(
        run_with_gradients(selective_scan, arguments, options | {"backend": "torch"}),
        run_with_gradients(selective_scan, arguments, options | {"backend": "reference"}),
        (1e-12, 1e-10),
    )


@pytest.mark.parametrize("length", [1, 2, 16, 17])
@pytest.mark.parametrize("taps", [1, 4, 20])
def test_convolutions_in_double_precision(length: int, taps: int) -> None:
    arguments = {n: each.double() for n, each in conv_arguments((2, length), 3, taps).items()}
    assert_close(
        run_with_gradients(causal_conv, arguments, {"backend": "torch"}),
        run_with_gradients(causal_conv, arguments, {"backend": "reference"}),
        (1e-12, 1e-10),
    )


def test_half_precision_is_computed_in_single() -> None:
    arguments = scan_arguments((2, 40), 8)
    half = arguments | {name: arguments[name].bfloat16() for name in ("u", "delta", "B", "C", "z")}
    got = run_with_gradients(selective_scan, half, {"backend": "torch"})
    exact = {name: each.double() for name, each in half.items()}
    wanted = run_with_gradients(selective_scan, exact, {"backend": "reference"})
    assert got["out"].dtype == got["u"].dtype == torch.bfloat16
    assert got["A"].dtype == torch.float32
    assert_close(got, wanted, (2**-8, 2**-6))
