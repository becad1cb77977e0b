"""The selective mixer against an independent Mamba block, and the symmetries it promises."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tsm2.networks.mixers import (
    AxisLinear,
    AxisMLP,
    DirectedScan,
    SelectiveMixer,
)


def seeded_mixer(**settings: object) -> SelectiveMixer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        mixer = SelectiveMixer(8, d_state=4, backend="reference", **settings)  # type: ignore[arg-type]
        for parameter in mixer.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return mixer.double()


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def mamba_block(x: Tensor, weights: dict[str, Tensor], states: int) -> Tensor:
    """Write Mamba's block down by its own names and layout, (B, D, L), one step at a time."""
    inner = weights["in_proj.weight"].shape[0] // 2
    xz = functional.linear(x, weights["in_proj.weight"]).transpose(1, 2)  # (B, 2 E, L)
    signal, z = xz[:, :inner], xz[:, inner:]
    width = weights["conv1d.weight"].shape[-1]
    signal = functional.conv1d(
        functional.pad(signal, (width - 1, 0)),
        weights["conv1d.weight"],
        weights["conv1d.bias"],
        groups=inner,
    )
    signal = functional.silu(signal)
    selected = functional.linear(signal.transpose(1, 2), weights["x_proj.weight"])
    rank = selected.shape[-1] - 2 * states
    dt = functional.softplus(
        functional.linear(selected[..., :rank], weights["dt_proj.weight"], weights["dt_proj.bias"])
    )
    B, C = selected[..., rank : rank + states], selected[..., rank + states :]
    A = -torch.exp(weights["A_log"])
    h = torch.zeros(len(x), inner, states, dtype=x.dtype)
    outputs = []
    for t in range(x.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h
        h = h + dt[:, t, :, None] * B[:, t, None] * signal[:, :, t, None]
        outputs.append((h * C[:, t, None]).sum(-1) + weights["D"] * signal[:, :, t])
    y = torch.stack(outputs, 1) * functional.silu(z.transpose(1, 2))
    return functional.linear(y, weights["out_proj.weight"])


def test_one_causal_scan_is_the_mamba_block() -> None:
    mixer = seeded_mixer(orders=((1,),))
    scan = mixer.scans[0]
    state, gate = scan.state_dict(), mixer.get_parameter("project_gate.weight")
    weights = {
        "in_proj.weight": torch.cat((mixer.project_in.weight, gate)),
        "conv1d.weight": state["conv_weight"][:, None],
        "conv1d.bias": state["conv_bias"],
        "x_proj.weight": state["select.weight"],
        "dt_proj.weight": state["step.weight"],
        "dt_proj.bias": state["step.bias"],
        "A_log": state["log_rate"],
        "D": state["skip"],
        "out_proj.weight": mixer.project_out.weight,
    }
    x = tokens(2, 11, 8)
    torch.testing.assert_close(mixer(x), mamba_block(x, weights, 4), rtol=1e-10, atol=1e-12)


def test_initial_values_are_mambas() -> None:
    scan = SelectiveMixer(8, orders=((1,),), d_state=4).scans[0]
    assert isinstance(scan, DirectedScan)
    steps = functional.softplus(scan.step.bias)
    assert float(steps.detach().min()) >= 1e-3 * (1 - 1e-4)
    assert float(steps.detach().max()) <= 1e-1 * (1 + 1e-4)
    torch.testing.assert_close(scan.log_rate.exp()[0], torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert bool((scan.skip == 1).all())
    assert scan.sizes[0] == math.ceil(8 / 16)


@pytest.mark.parametrize("selection", ["convolved", "input"])
def test_a_forward_scan_is_causal(selection: str) -> None:
    mixer = seeded_mixer(orders=((2,),), selection=selection)
    x = tokens(2, 3, 9, 8)
    changed = x.clone()
    changed[:, :, 5] += 1
    difference = (mixer(changed) - mixer(x)).abs().amax(dim=(0, 1, 3))
    assert bool((difference[:5] == 0).all())
    assert bool((difference[5:] > 0).all())


def test_scans_of_both_directions_let_every_token_see_every_other() -> None:
    mixer = seeded_mixer(orders=((1,),), directions="both")
    x = tokens(1, 6, 2, 8)
    for source in (0, 5):
        changed = x.clone()
        changed[:, source] += 1
        assert bool(((mixer(changed) - mixer(x)).abs().amax(dim=(0, 2, 3)) > 0).all())


def test_tied_directions_commute_with_a_flip() -> None:
    mixer = seeded_mixer(orders=((1,),), directions="both")
    forward, backward = mixer.scans
    backward.load_state_dict(forward.state_dict())
    x = tokens(2, 6, 3, 8)
    torch.testing.assert_close(mixer(x.flip(1)), mixer(x).flip(1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", [None, "layer"])
def test_scans_are_summed_before_the_gate(norm: str | None) -> None:
    mixer = seeded_mixer(orders=((1, 2), (2, 1)), directions="both", norm=norm)
    x = tokens(2, 3, 4, 8)
    value, gate = mixer.project_in(x), mixer.get_submodule("project_gate")(x)
    total = sum(scan(value, x, None) for scan in mixer.scans)
    if mixer.norm is not None:
        total = mixer.norm(total)
    wanted = mixer.project_out(total * functional.silu(gate))
    torch.testing.assert_close(mixer(x), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("norm", [None, "layer"])
@pytest.mark.parametrize("group", [1, 4, 16])
def test_a_channel_mixer_scans_the_groups_of_each_token(group: int, norm: str | None) -> None:
    mixer = seeded_mixer(orders=((1,),), directions="both", channel_group=group, norm=norm)
    x = tokens(2, 3, 5, 8)
    value, gate = mixer.project_in(x), mixer.get_submodule("project_gate")(x)
    forward, backward = mixer.scans
    for image, row, column in ((0, 0, 0), (1, 2, 3)):
        sequence = value[image, row, column].reshape(1, -1, group)  # (1, G, E / G)
        total = sum(scan(sequence, sequence, None) for scan in (forward, backward)).flatten()
        if mixer.norm is not None:
            total = mixer.norm(total)
        wanted = mixer.project_out(total * functional.silu(gate[image, row, column]))
        torch.testing.assert_close(mixer(x)[image, row, column], wanted, rtol=1e-9, atol=1e-11)


def test_a_channel_mixer_leaves_other_tokens_alone() -> None:
    mixer = seeded_mixer(orders=((1,),), directions="both", channel_group=4)
    x = tokens(2, 3, 5, 8)
    changed = x.clone()
    changed[1, 2, 3] += 1
    moved = (mixer(changed) - mixer(x)).abs() > 0
    assert bool(moved[1, 2, 3].all())
    assert int(moved.sum()) == 8


def test_an_image_convolution_stands_in_for_those_of_the_scans() -> None:
    mixer = seeded_mixer(orders=((1, 2), (2, 1)), directions="both", image_conv=3)
    assert isinstance(mixer.image_conv, torch.nn.Conv2d)
    assert not any("conv" in name for name, _ in mixer.scans.named_parameters())
    x = tokens(2, 4, 5, 8)
    value, gate = mixer.project_in(x), mixer.get_submodule("project_gate")(x)
    convolved = functional.silu(mixer.image_conv(value.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    total = sum(scan(convolved, x, None) for scan in mixer.scans)
    wanted = mixer.project_out(total * functional.silu(gate))
    torch.testing.assert_close(mixer(x), wanted, rtol=1e-9, atol=1e-11)


def test_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"channel_group \(5\) must divide the 16 inner features"):
        SelectiveMixer(8, orders=((1,),), channel_group=5)
    with pytest.raises(ValueError, match="selection='input'"):
        SelectiveMixer(8, orders=((1,),), channel_group=4, selection="input")


@pytest.mark.parametrize("mixer_class", [AxisLinear, AxisMLP])
def test_fixed_mixers_mix_only_their_axis(mixer_class: type[AxisLinear | AxisMLP]) -> None:
    mixer = mixer_class(3, axis=1).double()
    x = tokens(2, 3, 4, 8)
    changed = x.clone()
    changed[:, 1, 2, 5] += 1
    moved = (mixer(changed) - mixer(x)).abs() > 0
    assert moved[:, :, 2, 5].all()
    assert int(moved.sum()) == 2 * 3
