"""Every backend that runs on the GPU at hand, against the reference on a CPU in float64."""

from typing import Any

import pytest
import torch
from kernel_cases import (
    assert_close,
    assert_conv_agrees,
    assert_scan_agrees,
    conv_arguments,
    out_of_a_wider_buffer,
    run_with_gradients,
    scan_arguments,
)
from test_cross_scan import FOUR, TWO, drawn, run

from tsm2.kernels import available_backends, causal_conv, selective_scan

pytestmark = pytest.mark.gpu
WALKS = [((1,), False), ((1,), True), ((2,), False), ((1, 2), False), ((2, 1), True), ((0,), True)]


def backends_on(device: str) -> list[str]:
    return [name for name in available_backends(device) if name != "reference"]


@pytest.mark.parametrize("length", [1, 15, 16, 17, 33, 500, 2001])
def test_every_length(device: str, length: int) -> None:
    for backend in backends_on(device):
        assert_scan_agrees(backend, scan_arguments((2, length), 20), device=device)
        assert_conv_agrees(backend, conv_arguments((2, length), 20), device=device)


@pytest.mark.parametrize(
    ("features", "states"), [(1, 1), (17, 16), (70, 5), (192, 16)], ids="E{}".format
)
def test_sizes_that_fill_no_block(device: str, features: int, states: int) -> None:
    for backend in backends_on(device):
        given = scan_arguments((3, 40), features, states)
        assert_scan_agrees(backend, given, device=device)


@pytest.mark.parametrize(("axes", "reverse"), WALKS, ids=str)
def test_every_walk_over_views(device: str, axes: tuple[int, ...], reverse: bool) -> None:
    walk: Any = {"axes": axes, "reverse": reverse, "device": device}
    scan = {n: out_of_a_wider_buffer(each) for n, each in scan_arguments((4, 19, 23), 5).items()}
    conv = {n: out_of_a_wider_buffer(each) for n, each in conv_arguments((4, 19, 23), 5).items()}
    for backend in backends_on(device):
        assert_scan_agrees(backend, scan, **walk)
        assert_conv_agrees(backend, conv, **walk)


def test_bfloat16_signals(device: str) -> None:
    for operation, arguments, signals in (
        (selective_scan, scan_arguments((2, 100)), {"u", "delta", "B", "C", "z"}),
        (causal_conv, conv_arguments((2, 100)), {"x"}),
    ):
        rounded = {n: v.bfloat16() if n in signals else v for n, v in arguments.items()}
        exact = {n: v.double() for n, v in rounded.items()}
        wanted = run_with_gradients(operation, exact, {"backend": "reference"})
        placed = {n: v.to(device) for n, v in rounded.items()}
        for backend in backends_on(device):
            got = run_with_gradients(operation, placed, {"backend": backend})
            assert got["out"].dtype is torch.bfloat16
            assert_close(got, wanted, (2e-2, 2e-2))


@pytest.mark.parametrize(
    ("lead", "walks", "conv"),
    [((2, 9, 13), FOUR, False), ((2, 40, 40), FOUR, False), ((500, 6), TWO, True)],
    ids=["image", "larger image", "channel groups"],
)
def test_scans_that_share_a_signal(
    device: str, lead: tuple[int, ...], walks: dict[str, Any], conv: bool
) -> None:
    given = drawn(lead, len(walks["axes"]), conv=conv)
    exact = {n: v.double() for n, v in given.items()}
    wanted = run_with_gradients(run, exact, {"backend": "reference", **walks})
    placed = {n: v.to(device) for n, v in given.items()}
    for backend in backends_on(device):
        assert_close(run_with_gradients(run, placed, {"backend": backend, **walks}), wanted)
