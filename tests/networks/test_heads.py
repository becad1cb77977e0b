"""Heads and losses: quantiles never cross, losses are the formulas, masks are obeyed."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tsm2.networks.heads import (
    ParameterHead,
    PointHead,
    QuantileHead,
    in_units,
    mean_loss,
    quantile_loss,
)
from tsm2.networks.tsm2 import NetworkConfig, TSM2Network

LEVELS = (0.05, 0.25, 0.5, 0.9)
CONFIG = NetworkConfig(
    lookback=40, horizon=6, n_variates=3, patch_length=8, patch_stride=8, features=8, d_state=4
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded_network(config: NetworkConfig) -> TSM2Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return TSM2Network(config).eval()


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_variates", [None, 3])
def test_quantiles_start_normal_around_what_a_point_head_says(n_variates: int | None) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        point = PointHead(8, 6, n_variates=n_variates)
        torch.manual_seed(3)
        head = QuantileHead(8, 6, LEVELS, n_variates=n_variates)
    stream = drawn(2, 3, 4, 2)
    quantiles = head(stream)
    assert quantiles.shape == (2, 3, 6, 4)
    torch.testing.assert_close(quantiles[..., 2], point(stream))
    normal = torch.tensor([-1.6449, -0.6745, 0.0, 1.2816]).expand_as(quantiles)
    torch.testing.assert_close(quantiles - quantiles[..., 2:3], normal, rtol=0, atol=1e-4)


@pytest.mark.parametrize("levels", [LEVELS, (0.1, 0.5), (0.5, 0.9, 0.99)])
def test_quantiles_never_cross_whatever_the_weights(levels: tuple[float, ...]) -> None:
    head = QuantileHead(8, 6, levels)
    for seed in range(20):
        for index, parameter in enumerate(head.parameters()):
            parameter.data = 30 * drawn(*parameter.shape, seed=10 * seed + index)
        assert bool((head(drawn(4, 3, 4, 2, seed=seed)).diff(dim=-1) >= 0).all())


def test_level_and_scale_of_a_window_pass_through_to_every_quantile() -> None:
    network = seeded_network(dataclasses.replace(CONFIG, quantiles=LEVELS))
    for index, parameter in enumerate(network.parameters()):
        parameter.data += 0.05 * drawn(*parameter.shape, seed=index)
    context = drawn(2, 3, 40)
    shifted = network(context * 100 + 1000)
    assert shifted.shape == (2, 3, 6, 4)
    torch.testing.assert_close(shifted, network(context) * 100 + 1000, rtol=1e-3, atol=1e-1)


def test_the_median_starts_as_the_point_forecast_and_every_gap_learns() -> None:
    point = seeded_network(CONFIG)
    network = seeded_network(dataclasses.replace(CONFIG, quantiles=LEVELS))
    context = drawn(2, 3, 40)
    assert torch.equal(network(context)[..., 2], point(context))
    quantile_loss(network(context), drawn(2, 3, 6), LEVELS).backward()  # type: ignore[no-untyped-call]
    head = network.head
    assert isinstance(head, QuantileHead)
    assert head.gaps.weight.grad is not None
    assert bool((head.gaps.weight.grad.abs().amax(1) > 0).all())


@pytest.mark.parametrize("changes", [{}, {"separate_heads": True}, {"level": "last"}], ids=str)
def test_a_head_of_zeros_forecasts_the_level_and_learns(changes: dict[str, Any]) -> None:
    network = seeded_network(dataclasses.replace(CONFIG, **changes))
    context = drawn(2, 3, 40) * 3 + 100
    level = context[..., -1:] if changes.get("level") == "last" else context.mean(-1, keepdim=True)
    torch.testing.assert_close(network(context), level.expand(2, 3, 6))
    network(context).square().sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in network.head.parameters())  # type: ignore[union-attr]
    other = seeded_network(dataclasses.replace(CONFIG, zero_head=False, **changes))
    assert not torch.allclose(other(context), level.expand(2, 3, 6))


@pytest.mark.parametrize("quantiles", [(0.5,), (0.1, 0.9), (0.0, 0.5), (0.5, 0.4), (0.5, 0.5)])
def test_levels_that_cannot_be_are_refused(quantiles: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"rise inside \(0, 1\) and hold 0.5"):
        dataclasses.replace(CONFIG, quantiles=quantiles)


@pytest.mark.parametrize("n_variates", [None, 3])
def test_only_the_first_parameter_starts_from_the_input(n_variates: int | None) -> None:
    head = ParameterHead(8, 6, 3, n_variates=n_variates)
    parameters = head(drawn(2, 3, 4, 2))
    assert parameters.shape == (2, 3, 6, 3)
    assert bool((parameters[..., 0].diff(dim=0) != 0).all())
    assert not parameters[..., 1:].any()


@pytest.mark.parametrize("instance_norm", [True, False])
def test_every_parameter_gets_the_windows_units(instance_norm: bool) -> None:
    """Of values 100 times as large and 1000 higher: the location too, the scale as large only."""
    network = seeded_network(
        dataclasses.replace(
            CONFIG, outputs=("location", "scale", "free"), instance_norm=instance_norm
        )
    )
    for index, parameter in enumerate(network.parameters()):
        parameter.data += 0.05 * drawn(*parameter.shape, seed=index)
    context = drawn(2, 3, 40)
    location, scale, free = network(context).unbind(-1)
    assert bool((scale > 0).all())
    if instance_norm:
        shifted = network(context * 100 + 1000).unbind(-1)
        torch.testing.assert_close(shifted[0], location * 100 + 1000, rtol=1e-3, atol=1e-1)
        torch.testing.assert_close(shifted[1], scale * 100, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(shifted[2], free, rtol=1e-3, atol=1e-3)
    else:
        raw = network.head(drawn(2, 3, 5, 8)).detach()
        one, zero = torch.ones(2, 3, 1), torch.zeros(2, 3, 1)
        wanted = torch.stack((raw[..., 0], nn.functional.softplus(raw[..., 1]), raw[..., 2]), -1)
        torch.testing.assert_close(in_units(raw, ("location", "scale", "free"), zero, one), wanted)


@pytest.mark.parametrize("change", [{"outputs": ()}, {"outputs": ("free",), "quantiles": LEVELS}])
def test_outputs_that_cannot_be_are_refused(change: dict[str, tuple[object, ...]]) -> None:
    with pytest.raises(ValueError, match="outputs must be one kind or more, and quantiles None"):
        dataclasses.replace(CONFIG, **change)  # type: ignore[arg-type]


# --- losses ---------------------------------------------------------------------------------------


def test_the_quantile_loss_is_least_at_the_quantiles() -> None:
    """Of many draws, each level's best constant is the empirical quantile of that level."""
    target = drawn(2001).exp()
    wanted = torch.quantile(target, torch.tensor(LEVELS))
    constant = nn.Parameter(torch.ones(4))
    optimizer = torch.optim.Adam([constant], lr=0.02)
    for _ in range(600):
        optimizer.zero_grad()
        quantile_loss(constant.expand(2001, 4), target, LEVELS).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.testing.assert_close(constant.detach(), wanted, rtol=0.05, atol=0.03)


def test_the_medians_loss_is_the_absolute_error() -> None:
    forecast, target = drawn(2, 3, 6), drawn(2, 3, 6, seed=1)
    loss = mean_loss("quantile", forecast[..., None], target, quantiles=(0.5,))
    torch.testing.assert_close(loss, mean_loss("mae", forecast, target))


def test_the_mean_over_many_levels_is_the_ranked_probability_score() -> None:
    """For a standard normal forecast and y = 0.7 the score is known in closed form."""
    levels = ((torch.arange(999) + 1) / 1000).tolist()
    forecast = torch.special.ndtri(torch.tensor(levels, dtype=torch.float64))
    y = torch.tensor(0.7, dtype=torch.float64)
    density = torch.exp(-(y**2) / 2) / (2 * torch.pi) ** 0.5
    wanted = y * (2 * torch.special.ndtr(y) - 1) + 2 * density - 1 / torch.pi**0.5
    assert quantile_loss(forecast, y, levels).item() == pytest.approx(wanted.item(), abs=2e-3)


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "quantile"])
def test_what_is_masked_counts_for_nothing(name: str) -> None:
    quantiles = LEVELS if name == "quantile" else ()
    shape = (2, 3, 6, 4) if quantiles else (2, 3, 6)
    forecast, target = drawn(*shape).requires_grad_(), drawn(2, 3, 6, seed=1)
    mask = drawn(2, 3, 6, seed=2) > 0
    broken = target.where(mask, torch.nan)
    loss = mean_loss(name, forecast, broken, quantiles=quantiles, mask=mask)  # type: ignore[arg-type]
    wanted = mean_loss(name, forecast[mask], target[mask], quantiles=quantiles)  # type: ignore[arg-type]
    torch.testing.assert_close(loss, wanted)
    (gradient,) = torch.autograd.grad(loss, forecast)
    (wanted_gradient,) = torch.autograd.grad(wanted, forecast)
    torch.testing.assert_close(gradient, wanted_gradient)
    nothing = mean_loss(name, forecast, broken, quantiles=quantiles, mask=mask & ~mask)  # type: ignore[arg-type]
    assert nothing.item() == 0
