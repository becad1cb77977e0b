"""What ViM2 reduces to: VMamba's chain of cross-scan blocks; and its symmetry."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tsm2.networks.mixers import DirectedScan, SelectiveMixer
from tsm2.vision import ViM2, ViM2Config
from tsm2.vision.stages import Stage

STATES = 3
TOKENS_ONLY = ViM2Config(
    patch_size=2,
    dims=(8, 16),
    blocks=(1, 2),
    channel_expand=(1, 1),
    channel_mixer="none",
    num_classes=4,
    d_state=STATES,
    averaging_learned=False,
    zero_start=False,
    backend="reference",
)


def perturbed(config: ViM2Config) -> ViM2:
    """Build a model in which no weight has a special value, in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = ViM2(config)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
    return model.double().eval()


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def vmamba_weights(mixer: SelectiveMixer) -> dict[str, Tensor]:
    """Name a token mixer's weights as VMamba's SS2D does, one entry for all four scans."""
    scans = [scan for scan in mixer.scans if isinstance(scan, DirectedScan)]
    forward_first = [scans[0], scans[2], scans[1], scans[3]]  # rows, columns, then both reversed
    state, gate = mixer.state_dict(), mixer.get_parameter("project_gate.weight")

    def stacked(name: str) -> Tensor:
        return torch.stack([scan.state_dict()[name] for scan in forward_first])

    return {
        "in_proj": torch.cat((mixer.project_in.weight, gate)),
        "conv2d.weight": state["image_conv.weight"],
        "conv2d.bias": state["image_conv.bias"],
        "x_proj_weight": stacked("select.weight"),
        "dt_projs_weight": stacked("step.weight"),
        "dt_projs_bias": stacked("step.bias"),
        "A_logs": stacked("log_rate"),
        "Ds": stacked("skip"),
        "out_norm.weight": state["norm.weight"],
        "out_norm.bias": state["norm.bias"],
        "out_proj": state["project_out.weight"],
    }


def ss2d(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Write VMamba's mixer down: unfold an image into four sequences, scan, fold back, add."""
    batch, height, width, _ = x.shape
    signal, z = functional.linear(x, weights["in_proj"]).chunk(2, dim=-1)
    inner = signal.shape[-1]
    signal = functional.conv2d(
        signal.permute(0, 3, 1, 2),
        weights["conv2d.weight"],
        weights["conv2d.bias"],
        padding=1,
        groups=inner,
    )
    signal = functional.silu(signal)  # (B, E, H, W)
    rows, columns = signal.flatten(2), signal.transpose(2, 3).flatten(2)
    sequences = torch.stack((rows, columns, rows.flip(-1), columns.flip(-1)), dim=1)

    projected = torch.einsum("bkel,kce->bkcl", sequences, weights["x_proj_weight"])
    rank = weights["dt_projs_weight"].shape[-1]
    dt, B, C = torch.split(projected, [rank, STATES, STATES], dim=2)
    dt = torch.einsum("bkrl,ker->bkel", dt, weights["dt_projs_weight"])
    dt = functional.softplus(dt + weights["dt_projs_bias"][..., None])
    A = -weights["A_logs"].exp()  # (4, E, N)
    h = x.new_zeros(batch, 4, inner, STATES)
    outputs = []
    for t in range(height * width):
        h = torch.exp(dt[..., t, None] * A) * h
        h = h + dt[..., t, None] * B[:, :, None, :, t] * sequences[..., t, None]
        outputs.append((h * C[:, :, None, :, t]).sum(-1) + weights["Ds"] * sequences[..., t])
    y = torch.stack(outputs, dim=-1)  # (B, 4, E, L)

    in_place = y[:, :2] + y[:, 2:].flip(-1)
    by_row = in_place[:, 0].reshape(batch, inner, height, width)
    by_column = in_place[:, 1].reshape(batch, inner, width, height).transpose(2, 3)
    merged = (by_row + by_column).permute(0, 2, 3, 1)
    normal = functional.layer_norm(
        merged, (inner,), weights["out_norm.weight"], weights["out_norm.bias"]
    )
    return functional.linear(normal * functional.silu(z), weights["out_proj"])


def vmamba(model: ViM2, image: Tensor, *, residual: bool) -> Tensor:
    """Chain SS2D blocks, with or without VMamba's skip connection around each."""
    x = model.stem(image).permute(0, 2, 3, 1)
    for stage in model.stages:
        assert isinstance(stage, Stage)
        x = x if stage.downsample is None else stage.downsample(x)
        for step in stage.steps:
            mixer = step.get_submodule("branch.mixer")
            assert isinstance(mixer, SelectiveMixer)
            normal = step.get_submodule("branch.norm")(x)
            x = x * residual + ss2d(normal, vmamba_weights(mixer))
    return model.forward_head(model.norm(x).permute(0, 3, 1, 2))


@pytest.mark.parametrize(("averaging", "residual"), [("identity", False), ("stream", True)])
def test_token_mixers_and_fixed_averaging_are_vmambas_chain(averaging: Any, residual: bool) -> None:
    """Averaging that keeps the previous output is the chain; one that adds all is its residuals."""
    model = perturbed(replace(TOKENS_ONLY, averaging=averaging))
    image = images(2, 3, 10, 12)
    wanted = vmamba(model, image, residual=residual)
    torch.testing.assert_close(model(image), wanted, rtol=1e-9, atol=1e-11)
    assert not torch.allclose(vmamba(model, image, residual=not residual), wanted)


def test_learned_averaging_is_not_that_chain() -> None:
    model = perturbed(replace(TOKENS_ONLY, averaging_learned=True))
    image = images(2, 3, 8, 8)
    assert not torch.allclose(model(image), vmamba(model, image, residual=True))


def tie_directions(model: ViM2) -> None:
    """Give each scan and its reverse the same weights, and make every window symmetric."""
    for module in model.modules():
        if isinstance(module, SelectiveMixer) and module.image_conv is not None:
            for forward, backward in zip(module.scans[::2], module.scans[1::2], strict=True):
                backward.load_state_dict(forward.state_dict())
        if isinstance(module, nn.Conv2d):
            module.weight.data += module.weight.data.flip(-1, -2)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_directions_commute_with_half_a_turn(tied: bool) -> None:
    config = replace(TOKENS_ONLY, channel_mixer="selective", channel_group=4, zero_start=False)
    model = perturbed(config)
    if tied:
        tie_directions(model)
    image = images(2, 3, 8, 12)  # a whole number of patches in both stages
    turned = model.forward_features(image.flip(-1, -2)).flip(-1, -2)
    assert torch.allclose(turned, model.forward_features(image), rtol=1e-9, atol=1e-11) == tied
