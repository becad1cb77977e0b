"""The Triton kernels on a CPU, in Triton's interpreter: `test_triton_backend` runs this file.

Run alone: TRITON_INTERPRET=1 pytest tests/kernels/interpreted_triton.py
"""

import dataclasses
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

from tsm2.kernels import causal_conv, dispatch, selective_scan, triton_backend, triton_rows

# isort: split
from test_cross_scan import FOUR, TWO, assert_agrees, drawn, run

# The interpreter is numpy, which warns of the infinities that a sigmoid passes through.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp")
WALKS = [((1,), False), ((1,), True), ((2,), False), ((1, 2), False), ((2, 1), True), ((0,), True)]


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    row = dataclasses.replace(dispatch._BACKENDS["triton"], devices=frozenset({"cpu"}))
    monkeypatch.setitem(dispatch._BACKENDS, "triton", row)
    dispatch.choose_backend.cache_clear()


@pytest.mark.parametrize("length", [1, 15, 16, 17, 33])
def test_every_length(length: int) -> None:
    """One segment, two and three, of which the last holds a token, all but one, or all."""
    assert_scan_agrees("triton", scan_arguments((1, length), 5))
    assert_conv_agrees("triton", conv_arguments((1, length), 5))


@pytest.mark.parametrize(("features", "states"), [(1, 1), (20, 3), (17, 16), (70, 5)])
def test_sizes_that_fill_no_block(features: int, states: int) -> None:
    assert_scan_agrees("triton", scan_arguments((2, 6), features, states))


@pytest.mark.parametrize(("axes", "reverse"), WALKS, ids=str)
def test_every_walk_over_views_in_place(
    monkeypatch: pytest.MonkeyPatch, axes: tuple[int, ...], reverse: bool
) -> None:
    """Five sequences or more for three programs; NaN all around the values."""
    walk: Any = {"axes": axes, "reverse": reverse}
    scan = {n: out_of_a_wider_buffer(each) for n, each in scan_arguments((2, 5, 3), 5).items()}
    assert_scan_agrees("triton", scan, **walk)
    conv = conv_arguments((2, 5, 3), 5)
    conv["x"] = out_of_a_wider_buffer(conv["x"])
    assert_conv_agrees("triton", conv, **walk)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("copied")

    signals: Any = {name: scan[name] for name in ("u", "delta", "z", "B", "C")}
    parameters: Any = {name: scan[name].contiguous() for name in ("A", "D", "delta_bias")}
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda t: t if t.is_contiguous() else refuse())
    with torch.no_grad():
        selective_scan(**signals, **parameters, **walk, backend="triton")


@pytest.mark.parametrize("axes", [(2,), (4, 1)], ids=str)
def test_more_batch_axes_than_the_kernels_have(axes: tuple[int, ...]) -> None:
    arguments = scan_arguments((2, 2, 3, 2, 2, 2), 3)
    views = {n: out_of_a_wider_buffer(each) for n, each in arguments.items()}
    assert_scan_agrees("triton", views, axes=axes)


def test_expanded_arguments_and_broken_rows() -> None:
    arguments = scan_arguments((3, 6))
    arguments["B"] = arguments["B"][:1].expand(3, -1, -1)
    arguments["C"] = arguments["C"][:, :1].expand(-1, 6, -1)
    arguments["z"] = arguments["z"][..., :1].expand(-1, -1, 20)
    arguments["u"] = arguments["u"].transpose(1, 2).contiguous().transpose(1, 2)
    assert_scan_agrees("triton", arguments)


@pytest.mark.parametrize(
    ("channels", "states", "block"), [(128, 4, 128), (192, 4, 64), (64, 8, 64), (128, 3, 32)]
)
def test_wide_blocks_of_few_states(channels: int, states: int, block: int) -> None:
    assert triton_backend.scan_block(channels, states) == block
    assert_scan_agrees("triton", scan_arguments((1, 18), channels, states))


@pytest.mark.parametrize("absent", ["D", "z", "delta_bias"])
def test_options_may_be_absent(absent: str) -> None:
    assert_scan_agrees("triton", scan_arguments((2, 6), 5, leave_out=(absent,)))


@pytest.mark.parametrize("scale", [1e-6, 1e2])
def test_tiny_and_huge_steps(scale: float) -> None:
    arguments = scan_arguments((1, 17), 5)
    arguments["delta"] = arguments["delta"] * scale
    assert_scan_agrees("triton", arguments)


@pytest.mark.parametrize("taps", [1, 2, 5])
@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions(taps: int, activation: str | None, bias: bool) -> None:
    arguments = conv_arguments((2, 18), 5, taps, bias=bias)
    assert_conv_agrees("triton", arguments, activation=activation)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    arguments = scan_arguments((1, 17), 5)
    half: Any = arguments | {n: arguments[n].to(dtype) for n in ("u", "delta", "B", "C", "z")}
    got = run_with_gradients(selective_scan, half, {"backend": "triton"})
    exact = {name: each.double() for name, each in half.items()}
    wanted = run_with_gradients(selective_scan, exact, {"backend": "reference"})
    assert got["out"].dtype == got["u"].dtype == got["B"].dtype == dtype
    assert got["A"].dtype == torch.float32
    assert_close(got, wanted, (2**-7, 2**-6))

    conv = conv_arguments((1, 17), 5)
    conv["x"] = conv["x"].to(dtype)
    got = run_with_gradients(causal_conv, conv, {"backend": "triton"})
    exact = {name: each.double() for name, each in conv.items()}
    wanted = run_with_gradients(causal_conv, exact, {"backend": "reference"})
    assert got["x"].dtype == dtype
    assert_close(got, wanted, (2**-7, 2**-6))


def test_every_element_is_written() -> None:
    """Fresh memory is filled with NaN here."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        assert_scan_agrees("triton", scan_arguments((2, 17), 21))
        assert_conv_agrees("triton", conv_arguments((2, 17), 21))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("lead", [(0, 4), (2, 0)], ids=str)
def test_empty_signals_have_gradients_of_zero(lead: tuple[int, int]) -> None:
    scan = run_with_gradients(selective_scan, scan_arguments(lead, 3), {"backend": "triton"})
    conv = run_with_gradients(causal_conv, conv_arguments(lead, 3), {"backend": "triton"})
    for results in (scan, conv):
        assert results["out"].shape == (*lead, 3)
        assert all((each == 0).all() for each in results.values())


def test_nan_in_gives_nan_out_and_only_there() -> None:
    arguments = scan_arguments((2, 6), 5)
    clean = selective_scan(**arguments, backend="triton")
    arguments["delta"][1, 3, 2] = torch.nan
    got = selective_scan(**arguments, backend="triton")
    hit = torch.zeros_like(got, dtype=torch.bool)
    hit[1, 3:, 2] = True
    assert got[hit].isnan().all()
    assert torch.equal(got[~hit], clean[~hit])


@pytest.mark.parametrize(("axes", "reverse"), [((1, 2), True), ((2, 1), False)], ids=str)
def test_two_axes_in_several_segments(axes: tuple[int, ...], reverse: bool) -> None:
    """Walks of 35 tokens in three segments."""
    scan = {n: out_of_a_wider_buffer(each) for n, each in scan_arguments((1, 5, 7), 3).items()}
    assert_scan_agrees("triton", scan, axes=axes, reverse=reverse)
    conv = conv_arguments((1, 5, 7), 3)
    conv["x"] = out_of_a_wider_buffer(conv["x"])
    assert_conv_agrees("triton", conv, axes=axes, reverse=reverse)


def test_blocks_without_channels_or_states_to_spare() -> None:
    assert_scan_agrees("triton", scan_arguments((1, 18), 64, 4))


def test_addresses_of_64_bits_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, walk = scan_arguments((2, 17), 5), {"reverse": True, "backend": "triton"}
    wanted = run_with_gradients(selective_scan, arguments, walk)
    monkeypatch.setattr(triton_rows, "_LARGEST_NUMBER", 0)
    got = run_with_gradients(selective_scan, arguments, walk)
    assert all(torch.equal(got[name], each) for name, each in wanted.items())


def test_the_number_of_programs_changes_no_more_than_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four segments of two sequences, in two blocks of channels."""
    arguments = scan_arguments((2, 17), 33)
    wanted = run_with_gradients(selective_scan, arguments, {"backend": "triton"})
    monkeypatch.setattr(triton_backend, "_shared_out", lambda items, *_: 1)
    monkeypatch.setattr(triton_backend, "_cut", lambda rows, *_: triton_backend._Cut(1, 32))
    got = run_with_gradients(selective_scan, arguments, {"backend": "triton"})
    assert_close(got, wanted, (1e-6, 1e-6))


@pytest.mark.parametrize("conv", [False, True], ids=["shared", "convolved"])
def test_the_walks_of_an_image_are_one_launch(conv: bool) -> None:
    """Walks of 18 tokens in two segments, and once of 33 in three."""
    assert_agrees("triton", drawn((1, 3, 6), 4, conv=conv), **FOUR)
    lead = (1, 2, 9) if conv else (1, 3, 11)
    arguments = drawn(lead, 4, conv=conv, leave_out=("D", "delta_bias", "conv_bias"))
    arguments["x"] = out_of_a_wider_buffer(arguments["x"])
    assert_agrees("triton", arguments, **FOUR)


def test_both_directions_of_channel_groups_are_one_launch() -> None:
    assert_agrees("triton", drawn((2, 17), 2, conv=True), **TWO)


def test_walks_in_half_precision_are_computed_in_single() -> None:
    arguments = drawn((1, 3, 6), 4)
    wanted = run(**arguments, **FOUR, backend="reference")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run(**arguments | {"x": arguments["x"].bfloat16()}, **FOUR, backend="triton")
    assert got.dtype == torch.bfloat16
    limit = 0.05 * float(wanted.abs().max())
    torch.testing.assert_close(got.float(), wanted, rtol=0, atol=limit)
