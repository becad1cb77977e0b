"""Covariates in the network: each kind reaches the forecast, none disturbs a network without."""

import dataclasses
from typing import Literal

import pytest
import torch
from torch import Tensor

from tsm2.networks.tsm2 import NetworkConfig, TSM2Network

BASE = NetworkConfig(
    lookback=40, horizon=6, n_variates=3, patch_length=8, patch_stride=8, features=8, d_state=4
)
ALL = dataclasses.replace(BASE, n_past=2, n_future=4, n_static=5, gaps=True)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(config: NetworkConfig) -> dict[str, Tensor]:
    given = {"context": drawn(2, 3, 40)}
    if config.n_past:
        given["past"] = drawn(2, config.n_past, 40, seed=1)
    if config.n_future:
        given["future"] = drawn(2, config.n_future, 46, seed=2)
    if config.n_static:
        given["static"] = drawn(2, 3, config.n_static, seed=3)
    if config.gaps:
        given["mask"] = drawn(2, 3, 40, seed=4) > -1
        given["past_mask"] = drawn(2, 2, 40, seed=5) > -1
    return given


def stirred(config: NetworkConfig) -> TSM2Network:
    """A network whose mixers and encoders have left zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = TSM2Network(config)
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval()


VARIANTS = {
    "all": {},
    "no instance norm": {"instance_norm": False},
    "two blocks": {"blocks": 2},
    "mlp": {"variate_mixer": "mlp"},
    "linear time": {"time_mixer": "linear"},
    "overlapping": {"patch_stride": 3},
    "separate": {"separate_heads": True},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_input_reaches_the_forecast_and_every_parameter_learns(
    changes: dict[str, object],
) -> None:
    config = dataclasses.replace(ALL, **changes)  # type: ignore[arg-type]
    network, given = stirred(config), inputs(config)
    forecast = network(**given)
    assert forecast.shape == (2, 3, 6)
    for name, tensor in given.items():
        changed = ~tensor if tensor.dtype == torch.bool else tensor.square()
        assert not torch.allclose(network(**(given | {name: changed})), forecast), name
    forecast.square().mean().backward()
    unmoved = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not bool((p.grad != 0).any())
    ]
    assert unmoved == []


def test_covariates_that_change_with_time_and_gaps_are_silent_at_first() -> None:
    config = dataclasses.replace(ALL, n_static=0)
    network, given = TSM2Network(config).eval(), inputs(config)
    forecast = network(**given)
    for name, other in {"future": drawn(2, 4, 46, seed=9), "past": drawn(2, 2, 40, seed=9)}.items():
        torch.testing.assert_close(network(**(given | {name: other})), forecast)
    untold = TSM2Network(dataclasses.replace(config, gaps=False)).eval()
    untold.load_state_dict({k: v for k, v in network.state_dict().items() if "gaps" not in k})
    torch.testing.assert_close(untold(**given), forecast)


def test_the_linear_path_adds_the_future_covariates_in_their_own_units() -> None:
    """Without mixers, twice the covariate has twice the effect, in calm and lively windows."""
    network = stirred(dataclasses.replace(BASE, n_future=2, blocks=0))
    assert network.future is not None
    torch.nn.init.zeros_(network.future.branch.get_submodule("mixer.project_out").weight)  # type: ignore[arg-type]
    context, future = drawn(2, 3, 40), drawn(2, 2, 46, seed=1)
    plain = network(context, future=0 * future)
    effect = network(context, future=future) - plain
    torch.testing.assert_close(network(context, future=2 * future) - plain, 2 * effect)
    lively = network(10 * context, future=future) - network(10 * context, future=0 * future)
    torch.testing.assert_close(lively, effect, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("level", ["mean", "last"])
def test_a_covariates_level_over_the_lookback_is_of_no_account(
    level: Literal["mean", "last"],
) -> None:
    network = stirred(dataclasses.replace(BASE, n_future=2, n_past=1, level=level))
    context, past, future = drawn(2, 3, 40), drawn(2, 1, 40, seed=2), drawn(2, 2, 46, seed=1)
    wanted = network(context, past=past, future=future)
    moved = network(context, past=past - 5, future=future + 7)
    torch.testing.assert_close(moved, wanted, rtol=1e-3, atol=1e-4)


def test_future_covariates_are_aligned_to_the_newest_steps() -> None:
    network = TSM2Network(dataclasses.replace(BASE, n_future=1))
    assert network.future is not None
    network.future.across.data.fill_(2.0)
    future = drawn(2, 1, 46)
    course = network.future(future)
    torch.testing.assert_close(course, 2 * future[..., 6:].expand(-1, 3, -1))


def test_past_covariates_keep_their_place_in_time() -> None:
    network = TSM2Network(dataclasses.replace(BASE, n_past=1))
    assert network.past is not None
    network.past.across.data[1] = 3.0
    past = drawn(2, 1, 40)
    course = network.past(past)
    torch.testing.assert_close(course[:, 1:2], 3 * past)
    assert bool((course[:, [0, 2]] == 0).all())


def test_a_mask_of_what_is_known_changes_nothing_where_all_is_known() -> None:
    network = stirred(dataclasses.replace(BASE, gaps=True))
    context = drawn(2, 3, 40)
    mask = torch.ones(2, 3, 40, dtype=torch.bool)
    torch.testing.assert_close(network(context, mask=mask), network(context))


@pytest.mark.parametrize("instance_norm", [True, False])
def test_what_stands_where_nothing_is_known_is_never_read(instance_norm: bool) -> None:
    config = dataclasses.replace(BASE, gaps=True, n_past=1, instance_norm=instance_norm)
    network, context, past = stirred(config), drawn(2, 3, 40), drawn(2, 1, 40, seed=1)
    masks = {"mask": drawn(2, 3, 40, seed=2) > 0, "past_mask": drawn(2, 1, 40, seed=3) > 0}
    masks["mask"][0, 1] = False  # a variate of which nothing is known
    wanted = network(context, past=past, **masks)
    moved = network(
        torch.where(masks["mask"], context, 1e6),
        past=torch.where(masks["past_mask"], past, -1e6),
        **masks,
    )
    assert bool(torch.isfinite(wanted).all())
    torch.testing.assert_close(moved, wanted)


def test_a_gap_moves_no_level() -> None:
    """The mean and deviation are those of the known steps: a straight line keeps its level."""
    network = stirred(dataclasses.replace(BASE, blocks=0, gaps=True))
    assert network.gaps is not None
    torch.nn.init.zeros_(network.gaps.weight)
    mask = torch.ones(1, 3, 40, dtype=torch.bool)
    mask[..., 10:30:2] = False
    flat = torch.full((1, 3, 40), 5.0)
    torch.testing.assert_close(
        network(torch.where(mask, flat, 0.0), mask=mask), network(flat), rtol=1e-5, atol=1e-5
    )
