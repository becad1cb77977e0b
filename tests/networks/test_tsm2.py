"""The whole network: it starts linear, every setting forecasts, every part gets gradients."""

import dataclasses
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tsm2.networks.patches import interpolate_gaps
from tsm2.networks.tsm2 import NetworkConfig, TSM2Network

BASE = NetworkConfig(
    lookback=40, horizon=6, n_variates=3, patch_length=8, patch_stride=8, features=8, d_state=4
)


def context(n_variates: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(2, n_variates, 40, generator=torch.Generator().manual_seed(seed))


def stirred(config: NetworkConfig) -> TSM2Network:
    """A network whose mixers have left zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = TSM2Network(config)
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval()


def test_it_starts_as_a_linear_map_of_each_variate() -> None:
    network = TSM2Network(dataclasses.replace(BASE, blocks=2, instance_norm=False)).eval()
    a, b = context(seed=1), context(seed=2)
    zero = network(torch.zeros_like(a))
    torch.testing.assert_close(
        network(a + 2 * b) - zero, network(a) - zero + 2 * (network(b) - zero), rtol=1e-4, atol=1e-5
    )
    changed = a.clone()
    changed[:, 0] += 1
    assert bool((network(changed)[:, 1:] == network(a)[:, 1:]).all())


def test_variates_learn_from_each_other() -> None:
    network = stirred(BASE)
    a = context()
    changed = a.clone()
    changed[:, 0, ::3] += 1
    assert bool(((network(changed) - network(a)).abs().amax((0, 2)) > 0).all())


@pytest.mark.parametrize("level", ["mean", "last"])
def test_instance_norm_lets_level_and_scale_pass_through(level: Literal["mean", "last"]) -> None:
    network = stirred(dataclasses.replace(BASE, level=level))
    a = context()
    shifted = network(a * 100 + 1000)
    torch.testing.assert_close(shifted, network(a) * 100 + 1000, rtol=1e-3, atol=1e-1)


def test_a_head_of_zeros_forecasts_the_level() -> None:
    mask = torch.ones(2, 3, 40, dtype=torch.bool)
    mask[:, 1, -5:] = False
    a = context()
    last = torch.stack([a[:, 0, -1], a[:, 1, -6], a[:, 2, -1]], 1)
    mean = (a * mask).sum(-1) / mask.sum(-1)
    levels: dict[Literal["mean", "last"], Tensor] = {"mean": mean, "last": last}
    for level, wanted in levels.items():
        network = stirred(dataclasses.replace(BASE, level=level))
        for parameter in network.head.parameters():
            torch.nn.init.zeros_(parameter)
        forecast = network(a, mask=mask)
        torch.testing.assert_close(forecast, wanted[..., None].expand(-1, -1, 6))


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(
    "head", [{}, {"quantiles": (0.1, 0.5, 0.9)}, {"outputs": ("location", "scale")}], ids=str
)
def test_a_level_that_is_left_is_left_by_a_share_for_each_step(
    separate: bool, head: dict[str, Any]
) -> None:
    """All else stays as it is: what a window adds to its level, quantiles' gaps, a scale."""
    config = dataclasses.replace(BASE, reverts=True, separate_heads=separate, **head)
    network = stirred(config)
    assert network.reversion is not None
    assert network.reversion.shape == ((3, 6) if separate else (6,))
    with torch.no_grad():
        share = network.reversion.copy_(torch.linspace(0, -1, 6).expand_as(network.reversion))
        leaving = network(context() + 5)
        share.zero_()
        staying = network(context() + 5)
    level = (context() + 5).mean(-1, keepdim=True)  # (B, M, 1)
    left = level * torch.linspace(0, -1, 6)
    if head:
        left = left[..., None].expand_as(staying)
    if "outputs" in head:
        left = left * torch.tensor([1.0, 0.0])  # of the location alone
    torch.testing.assert_close(leaving - staying, left, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", ["mean", "last"])
@pytest.mark.parametrize("n_past", [0, 2])
@pytest.mark.parametrize(
    "head", [{}, {"quantiles": (0.1, 0.5, 0.9)}, {"outputs": ("location", "scale")}], ids=str
)
def test_leaders_move_a_forecast_by_the_latest_rows_of_all_columns(
    head: dict[str, Any], n_past: int, level: Any
) -> None:
    """All else stays as it is, gaps are filled before, and columns count from their levels."""
    config = dataclasses.replace(BASE, leaders=5, n_past=n_past, level=level, **head)
    network = stirred(config)
    assert network.leaders is not None
    known = torch.rand(2, 3, 40, generator=torch.Generator().manual_seed(0)) > 0.3
    past = {"past": context()[:, :n_past] * 2} if n_past else {}
    with torch.no_grad():
        led = network(context() + 5, mask=known, **past)
        weight = network.leaders.weight.clone()
        network.leaders.weight.zero_()
        alone = network(context() + 5, mask=known, **past)
    filled = interpolate_gaps(context() + 5, known)
    mean = (context() * known).sum(-1, keepdim=True) / known.sum(-1, keepdim=True) + 5
    columns = [filled - (mean if level == "mean" else filled[..., -1:])]
    for each in past.values():
        columns += [each - (each.mean(-1, keepdim=True) if level == "mean" else each[..., -1:])]
    latest = torch.cat(columns, 1)[..., -5:].flatten(1)
    moved = torch.einsum("bd,mhd->bmh", latest, weight)
    if head:
        moved = moved[..., None].expand_as(alone)
    if "outputs" in head:
        moved = moved * torch.tensor([1.0, 0.0])  # the location alone
    torch.testing.assert_close(led - alone, moved, rtol=1e-4, atol=1e-4)


def test_a_constant_context_gives_a_finite_forecast() -> None:
    forecast = stirred(BASE)(torch.full((2, 3, 40), 7.0))
    assert bool(torch.isfinite(forecast).all())


@pytest.mark.parametrize("lookback", [40, 41, 47])
@pytest.mark.parametrize("stride", [3, 8])
def test_the_newest_steps_are_always_in_a_patch(lookback: int, stride: int) -> None:
    config = dataclasses.replace(BASE, lookback=lookback, patch_stride=stride)
    network = TSM2Network(config)
    series = torch.arange(lookback, dtype=torch.float32).expand(1, 1, -1)
    patches = network._patches(series)
    assert patches.shape == (1, 1, config.n_patches, 8)
    assert patches[0, 0, -1].tolist() == list(range(lookback - 8, lookback))
    assert float(patches.min()) == 0


VARIANTS = {
    "blocks=0": {"blocks": 0},
    "blocks=3": {"blocks": 3},
    "layer": {"pre_norm": "layer"},
    "rms": {"pre_norm": "rms"},
    "no norm": {"pre_norm": "none"},
    "input": {"selection": "input"},
    "linear time": {"time_mixer": "linear"},
    "variates only": {"time_mixer": "none"},
    "mlp": {"variate_mixer": "mlp"},
    "time only": {"variate_mixer": "none", "blocks": 2},
    "forward": {"variate_directions": "forward"},
    "identity": {"averaging": "identity", "blocks": 2},
    "mean": {"averaging": "mean", "blocks": 2},
    "reach": {"averaging_reach": 1, "blocks": 2},
    "last": {"readout": "last", "zero_start": False},
    "last, time only": {"readout": "last", "zero_start": False, "variate_mixer": "none"},
    "separate": {"separate_heads": True},
    "reverts": {"reverts": True},
    "reverts, separate": {"reverts": True, "separate_heads": True},
    "leaders": {"leaders": 4},
    "leaders, reverts": {"leaders": 40, "reverts": True},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_forecasts_and_every_parameter_learns(changes: dict[str, object]) -> None:
    network = stirred(dataclasses.replace(BASE, **changes))  # type: ignore[arg-type]
    forecast = network(context())
    assert forecast.shape == (2, 3, 6)
    forecast.square().mean().backward()
    unmoved = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not bool((p.grad != 0).any())
    ]
    assert unmoved == []


def test_fixed_averaging_has_no_gradient() -> None:
    network = TSM2Network(dataclasses.replace(BASE, averaging_learned=False))
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert frozen
    assert all("average" in name or "readout" in name for name in frozen)


def test_separate_heads_forecast_apart() -> None:
    network = stirred(dataclasses.replace(BASE, separate_heads=True, blocks=0))
    same = context()[:, :1].expand(-1, 3, -1)
    forecast = network(same)
    assert not torch.allclose(forecast[:, 0], forecast[:, 1])


@pytest.mark.parametrize("n_variates", [1, 3, 9])
def test_a_shared_network_takes_any_number_of_variates(n_variates: int) -> None:
    assert stirred(BASE)(context(n_variates)).shape == (2, n_variates, 6)


def test_mixer_parameters_are_all_but_the_linear_path() -> None:
    network = TSM2Network(dataclasses.replace(BASE, blocks=2))
    mixers = {id(p) for p in network.mixer_parameters()}
    rest = {name.split(".")[0] for name, p in network.named_parameters() if id(p) not in mixers}
    names = {name for name, p in network.named_parameters() if id(p) not in mixers}
    assert rest == {"embedding", "head", "blocks", "readout"}
    assert all("average" in name for name in names if name.startswith("blocks"))
