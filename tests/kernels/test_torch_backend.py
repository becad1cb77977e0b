"""The chunked PyTorch kernels, called directly, against the reference in float64."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tsm2.kernels import reference, torch_backend
from tsm2.kernels.interface import ConvTensors, ScanTensors, Walk

Arguments = dict[str, Tensor | None]

both_directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
every_axis = pytest.mark.parametrize(
    "axes", [(0,), (1,), (2,), (0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)], ids=str
)
in_small_and_large_buffers = pytest.mark.parametrize("room", [1, 500, 2**19], ids="room{}".format)

EXACT = (1e-10, 1e-9)
SINGLE = (1e-5, 1e-4)
"""Largest error of the output and of the gradients, relative to the largest entry."""


def scan_arguments(*lead: int, channels: int = 7, states: int = 3, seed: int = 0) -> Arguments:
    """Make float64 arguments that float32 holds exactly, so that rounding is the kernel's alone."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).double()

    return {
        "u": normal(*lead, channels),
        "delta": normal(*lead, channels),
        "A": -normal(channels, states).exp().float().double(),
        "B": normal(*lead, states),
        "C": normal(*lead, states),
        "D": normal(channels),
        "z": normal(*lead, channels),
        "delta_bias": (normal(channels) - 2).float().double(),
    }


def conv_arguments(*lead: int, channels: int = 7, taps: int = 4) -> Arguments:
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (*lead, channels), "weight": (channels, taps), "bias": (channels,)}
    return {name: torch.randn(s, generator=generator).double() for name, s in shapes.items()}


def changed(arguments: Arguments, dtype: torch.dtype) -> Arguments:
    return {name: None if each is None else each.to(dtype) for name, each in arguments.items()}


def upstream_of(signal: Tensor) -> Tensor:
    return torch.linspace(-3, 4, signal.numel(), device="cpu").cos().view(signal.shape).double()


def scan_tensors(arguments: Arguments) -> ScanTensors:
    return ScanTensors(**arguments)  # type: ignore[arg-type]


def conv_tensors(arguments: Arguments) -> ConvTensors:
    return ConvTensors(**arguments)  # type: ignore[arg-type]


def by_reference(
    kernel: str, arguments: Arguments, axes: tuple[int, ...], reverse: bool, **options: Any
) -> Arguments:
    """Return the reference's output, and its gradients by autograd, in float64."""
    leaves = {
        name: None if each is None else each.detach().double().requires_grad_()
        for name, each in arguments.items()
    }
    walk = Walk(axes, reverse)
    if kernel == "selective_scan":
        out = reference.selective_scan(scan_tensors(leaves), walk)
    else:
        out = reference.causal_conv(conv_tensors(leaves), walk, **options)
    present = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    gradients = torch.autograd.grad(
        out, list(present.values()), upstream_of(out), materialize_grads=True
    )
    found = dict(zip(present, gradients, strict=True))
    return {"out": out.detach(), **{name: found.get(name) for name in arguments}}


def by_torch(
    kernel: str, arguments: Arguments, axes: tuple[int, ...], reverse: bool, **options: Any
) -> Arguments:
    """Return the output and the gradients of the chunked kernels."""
    signal = next(iter(arguments.values()))
    assert signal is not None
    dout = upstream_of(signal).to(signal.dtype)
    values = {name: None if each is None else each.detach() for name, each in arguments.items()}
    walk = Walk(axes, reverse)
    gradients: ScanTensors | ConvTensors
    with torch.no_grad():
        if kernel == "selective_scan":
            scan = scan_tensors(values)
            out, kept = torch_backend.scan_forward(scan, walk, keep_states=True)
            gradients = torch_backend.scan_backward(scan, walk, dout, kept)
        else:
            conv = conv_tensors(values)
            out = torch_backend.conv_forward(conv, walk, **options)
            gradients = torch_backend.conv_backward(conv, walk, **options, dout=dout)
    found = gradients._asdict()
    return {"out": out, **{name: found[name] for name in arguments}}


def assert_agrees(
    kernel: str, arguments: Arguments, limits: tuple[float, float] = EXACT, **options: Any
) -> None:
    options = {"axes": (1,), "reverse": False, **options}
    wanted = by_reference(kernel, arguments, **options)
    got = by_torch(kernel, arguments, **options)
    dtypes = {"out": next(iter(arguments.values())), **arguments}
    for name, right in wanted.items():
        left, like = got[name], dtypes[name]
        if right is None or left is None or like is None:
            assert left is right is like, name
            continue
        assert left.shape == right.shape, name
        assert left.dtype == like.dtype, name
        assert left.is_contiguous(), name
        if right.numel():
            limit = limits[name != "out"]
            error = (left.double() - right).abs().max() / right.abs().max().clamp_min(1e-30)
            assert error <= limit, f"{name}: relative error {error:.1e}"


@both_directions
@pytest.mark.parametrize("length", [1, 15, 16, 17, 33, 100], ids="L{}".format)
@in_small_and_large_buffers
def test_every_length(
    monkeypatch: pytest.MonkeyPatch, room: int, length: int, reverse: bool
) -> None:
    monkeypatch.setattr(torch_backend, "CPU_ROOM", room)
    assert_agrees("selective_scan", scan_arguments(3, length), reverse=reverse)
    assert_agrees("causal_conv", conv_arguments(3, length), reverse=reverse, silu=True)


@pytest.mark.parametrize("states", [1, 3, 16], ids="N{}".format)
@pytest.mark.parametrize("channels", [1, 7, 20], ids="E{}".format)
def test_channels_and_states(channels: int, states: int) -> None:
    assert_agrees("selective_scan", scan_arguments(2, 19, channels=channels, states=states))


@both_directions
@every_axis
def test_every_axis(axes: tuple[int, ...], reverse: bool) -> None:
    assert_agrees("selective_scan", scan_arguments(4, 5, 6), axes=axes, reverse=reverse)
    assert_agrees("causal_conv", conv_arguments(4, 5, 6), axes=axes, reverse=reverse, silu=True)


@pytest.mark.parametrize("lead", [(18,), (2, 1, 18, 2, 2)], ids=str)
def test_any_number_of_batch_axes(lead: tuple[int, ...]) -> None:
    axes = (len(lead) // 2,)
    assert_agrees("selective_scan", scan_arguments(*lead), axes=axes)
    assert_agrees("causal_conv", conv_arguments(*lead), axes=axes, silu=True)


@pytest.mark.parametrize("taps", [1, 2, 5])
@pytest.mark.parametrize("silu", [False, True])
def test_taps_and_activation(taps: int, silu: bool) -> None:
    arguments = conv_arguments(2, 4, taps=taps)
    for bias in (arguments["bias"], None):
        assert_agrees("causal_conv", {**arguments, "bias": bias}, silu=silu)


@pytest.mark.parametrize(
    "absent", [("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")], ids=str
)
def test_absent_options(absent: Sequence[str]) -> None:
    arguments = scan_arguments(2, 19)
    assert_agrees("selective_scan", {**arguments, **dict.fromkeys(absent)})


@both_directions
@pytest.mark.parametrize("axes", [(1,), (0, 1), (2, 0)], ids=str)
def test_arguments_with_strides_of_their_own(axes: tuple[int, ...], reverse: bool) -> None:
    arguments = scan_arguments(3, 5, 4)
    wide = torch.full((5, 3, 4, 16), torch.nan).double()
    u, delta, z, B = (arguments[name] for name in ("u", "delta", "z", "B"))
    assert u is not None
    assert delta is not None
    assert z is not None
    assert B is not None
    slice_of_a_permuted_buffer = wide.transpose(0, 1)[..., 2:16:2]
    slice_of_a_permuted_buffer.copy_(u)
    arguments["u"] = slice_of_a_permuted_buffer
    arguments["delta"] = delta[:, :1].expand(-1, 5, -1, -1)
    arguments["z"] = z[..., :1].expand(-1, -1, -1, 7)
    arguments["B"] = B.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    assert_agrees("selective_scan", arguments, axes=axes, reverse=reverse)
    convolved = {**conv_arguments(3, 5, 4), "x": slice_of_a_permuted_buffer}
    assert_agrees("causal_conv", convolved, axes=axes, reverse=reverse, silu=True)


@pytest.mark.parametrize("delta_scale", [1e-6, 1e-3, 1.0, 10.0, 100.0])
def test_single_precision_at_tiny_and_huge_steps(delta_scale: float) -> None:
    arguments = scan_arguments(2, 100, channels=20, states=16)
    assert arguments["delta"] is not None
    arguments["delta"] = (arguments["delta"] * delta_scale).float().double()
    assert_agrees("selective_scan", changed(arguments, torch.float32), SINGLE)


def test_single_precision_keeps_steps_far_below_one() -> None:
    """softplus(-20) is 2e-9: 1 + e^x, rounded, would lose it."""
    arguments = {**scan_arguments(2, 40), "D": None, "delta_bias": None}
    arguments["delta"] = torch.linspace(-20, -15, 2 * 40 * 7).view(2, 40, 7)
    assert_agrees("selective_scan", changed(arguments, torch.float32), SINGLE)


@both_directions
def test_single_precision_convolution(reverse: bool) -> None:
    arguments = changed(conv_arguments(3, 40), torch.float32)
    assert_agrees("causal_conv", arguments, SINGLE, reverse=reverse, silu=True)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("low", [("u", "z"), ("delta", "B", "C"), ("A", "D", "delta_bias")])
def test_mixed_dtypes_are_computed_in_the_dtype_of_the_state(
    half: torch.dtype, low: Sequence[str]
) -> None:
    arguments = changed(scan_arguments(2, 40), torch.float32)
    for name in low:
        argument = arguments[name]
        assert argument is not None
        arguments[name] = argument.to(half)
    wanted = by_torch("selective_scan", changed(arguments, torch.float32), axes=(1,), reverse=False)
    got = by_torch("selective_scan", arguments, axes=(1,), reverse=False)
    for name, right in wanted.items():
        left = got[name]
        assert left is not None
        assert right is not None
        like = arguments["u" if name == "out" else name]
        assert like is not None
        assert left.dtype == like.dtype, name
        if "u" not in low:  # else the upstream gradient was rounded, too
            torch.testing.assert_close(left, right.to(left.dtype), rtol=0, atol=0)
    if "u" in low:
        assert_agrees("selective_scan", arguments, (1e-2, 5e-2))


def test_a_state_in_single_precision_takes_arguments_in_double() -> None:
    arguments = scan_arguments(2, 40)
    assert arguments["u"] is not None
    assert_agrees("selective_scan", {**arguments, "u": arguments["u"].float()}, SINGLE)


def test_mixed_dtypes_of_a_convolution() -> None:
    arguments = changed(conv_arguments(2, 20), torch.float32)
    assert arguments["x"] is not None
    arguments["x"] = arguments["x"].bfloat16()
    assert_agrees("causal_conv", arguments, (1e-2, 5e-2), silu=True)
    double = {**arguments, "x": arguments["x"].double()}
    assert_agrees("causal_conv", double, (1e-10, 1e-6), silu=True)


@both_directions
@pytest.mark.parametrize("axes", [(1,), (2, 0)], ids=str)
@pytest.mark.parametrize("length", [0, 15, 16, 17, 32, 50], ids="L{}".format)
@in_small_and_large_buffers
def test_kept_states_are_the_references(
    monkeypatch: pytest.MonkeyPatch,
    room: int,
    length: int,
    axes: tuple[int, ...],
    reverse: bool,
) -> None:
    """With C the n-th unit vector, y is h[n]."""
    monkeypatch.setattr(torch_backend, "CPU_ROOM", room)
    arguments = scan_arguments(2, length, 3)
    C = arguments["C"]
    assert C is not None
    plain = {**arguments, "D": None, "z": None}
    batch = 2 * 3 if axes == (1,) else length
    tokens = length if axes == (1,) else 3 * 2
    walk = Walk(axes, reverse)
    path = []  # h after each token, in the order of the walk
    for unit in torch.eye(3).double():
        y = reference.selective_scan(scan_tensors({**plain, "C": unit.expand_as(C)}), walk)
        rows = y.movedim(axes, tuple(range(-1 - len(axes), -1)))
        rows = rows.reshape(batch, tokens, 7)
        path.append(rows.flip(1) if reverse else rows)
    wanted = torch.stack(path, 2)[:, 15:-1:16]  # (S, ., N, E)
    with torch.no_grad():
        _, got = torch_backend.scan_forward(scan_tensors(arguments), walk, keep_states=True)
    assert got.shape == (batch, max(0, -(-tokens // 16) - 1), 3, 7)
    assert got.is_contiguous()
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_states_are_kept_in_the_dtype_of_the_state_and_only_if_asked() -> None:
    arguments = {**changed(scan_arguments(2, 40), torch.float32)}
    arguments["u"] = arguments["u"].bfloat16() if arguments["u"] is not None else None
    kept = [
        torch_backend.scan_forward(scan_tensors(arguments), Walk((1,), False), keep)[1]
        for keep in (True, False)
    ]
    assert kept[0].shape == (2, 2, 3, 7)
    assert kept[1].shape == (0,)
    assert {each.dtype for each in kept} == {torch.float32}


@pytest.mark.parametrize(
    ("lead", "channels", "states"),
    [((0, 4), 3, 2), ((2, 0), 3, 2), ((2, 4), 0, 2), ((2, 4), 3, 0), ((0, 0), 3, 2)],
)
@both_directions
def test_empty_sizes(lead: tuple[int, int], channels: int, states: int, reverse: bool) -> None:
    arguments = scan_arguments(*lead, channels=channels, states=states)
    assert_agrees("selective_scan", arguments, reverse=reverse)
    arguments = conv_arguments(*lead, channels=channels)
    assert_agrees("causal_conv", arguments, reverse=reverse, silu=True)


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias"])
def test_nan_in_gives_nan_out_and_only_there(name: str) -> None:
    arguments = changed(scan_arguments(2, 20), torch.float32)
    options: dict[str, Any] = {"axes": (1,), "reverse": False}
    clean = by_torch("selective_scan", arguments, **options)["out"]
    argument = arguments[name]
    assert argument is not None
    per_token = argument.ndim == 3
    argument[(1, 9, 2) if per_token else 2] = torch.nan
    got = by_torch("selective_scan", arguments, **options)["out"]
    assert got is not None
    assert clean is not None
    hit = torch.zeros_like(got, dtype=torch.bool)
    if per_token:
        later = 9 if name in ("C", "z") else slice(9, None)
        hit[1, later, slice(None) if name in ("B", "C") else 2] = True
    else:
        hit[..., 2] = True
    assert got[hit].isnan().all()
    torch.testing.assert_close(got[~hit], clean[~hit], rtol=0, atol=0)


def test_results_share_no_memory() -> None:
    for kernel, arguments in (
        ("selective_scan", scan_arguments(1, 1, channels=1, states=1)),
        ("causal_conv", conv_arguments(1, 1, channels=1, taps=1)),
    ):
        options = {"silu": False} if kernel == "causal_conv" else {}
        results = by_torch(kernel, arguments, axes=(0,), reverse=False, **options)
        given = [each for each in arguments.values() if each is not None]
        made = [each for each in results.values() if each is not None]
        addresses = [each.untyped_storage().data_ptr() for each in (*given, *made)]
        assert len(set(addresses)) == len(addresses)


def test_arguments_are_only_read() -> None:
    arguments = scan_arguments(20, 1)  # by token as they lie, so that no copy protects them
    before = {name: None if each is None else each.clone() for name, each in arguments.items()}
    by_torch("selective_scan", arguments, axes=(0,), reverse=False)
    torch.testing.assert_close(arguments, before, rtol=0, atol=0)


def test_autocast_does_not_reach_inside() -> None:
    arguments = changed(scan_arguments(2, 40), torch.float32)
    wanted = by_torch("selective_scan", arguments, axes=(1,), reverse=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = by_torch("selective_scan", arguments, axes=(1,), reverse=False)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_every_element_is_written() -> None:
    """Fresh memory is filled with NaN here."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        assert_agrees("selective_scan", scan_arguments(2, 33))
        assert_agrees("causal_conv", conv_arguments(2, 33), silu=True)
    finally:
        torch.use_deterministic_algorithms(deterministic)


def test_no_value_is_read_by_the_host_and_nothing_lies_on_another_device() -> None:
    """A tensor on the meta device has no values, and does not mix with one on the CPU."""
    arguments = {
        name: None if each is None else each.to("meta")
        for name, each in scan_arguments(3, 40).items()
    }
    scan, walk = scan_tensors(arguments), Walk((1,), True)
    out, kept = torch_backend.scan_forward(scan, walk, keep_states=True)
    gradients = torch_backend.scan_backward(scan, walk, scan.u, kept)
    conv = conv_tensors(
        {
            name: None if each is None else each.to("meta")
            for name, each in conv_arguments(3, 40).items()
        }
    )
    made = [out, kept, *gradients, torch_backend.conv_forward(conv, walk, silu=True)]
    made += torch_backend.conv_backward(conv, walk, True, conv.x)
    assert {each.device.type for each in made if each is not None} == {"meta"}
