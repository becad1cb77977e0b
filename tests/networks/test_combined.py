"""The mean of a network and of classical forecasts of whole histories."""

import pytest
import torch
from torch import Tensor

from tsm2.networks.classical import NAMES_OF_VALUES, classical_forecasts
from tsm2.networks.combined import ClassicalMean, CombinedNetwork
from tsm2.networks.ensemble import Ensemble
from tsm2.networks.tsm2 import NetworkConfig, TSM2Network

HORIZON = 6


def histories(windows: int = 3, variates: int = 2, steps: int = 150, seed: int = 0) -> Tensor:
    """Return monthly seasons that drift, (B, M, T), each with a level and a size of its own."""
    draw = torch.Generator().manual_seed(seed)
    shape = (windows, variates, 1)
    season = torch.sin(2 * torch.pi * torch.arange(steps) / 12 + torch.rand(shape, generator=draw))
    walk = torch.randn((windows, variates, steps), generator=draw).cumsum(-1)
    return 3 * torch.randn(shape, generator=draw) + season + 0.1 * walk


def test_each_classical_forecast_weighs_by_how_far_it_errs() -> None:
    context = histories()[:1, :1, :128]
    level, deviation = context.mean(), context.std(unbiased=False)
    found = classical_forecasts(
        (context[0] - level) / deviation,
        torch.ones(1, 128, dtype=torch.bool),
        HORIZON,
        offset=None,
        seasons=torch.tensor([12]),
    )
    assert found.courses.shape == (1, len(NAMES_OF_VALUES), HORIZON)
    weights = found.errors[0] ** -9
    wanted = (weights / weights.sum()) @ found.courses[0] * deviation + level
    mean = ClassicalMean(season=12).forecast(context, None, HORIZON)
    torch.testing.assert_close(mean[0, 0], wanted, rtol=1e-4, atol=1e-4)


def test_it_reads_whole_histories_up_to_a_limit_and_nothing_before_them() -> None:
    context, mean = histories(steps=400), ClassicalMean(season=12, rows=300)
    whole = mean.forecast(context, None, HORIZON)
    assert torch.equal(mean.forecast(context[..., -300:], None, HORIZON), whole)
    assert not torch.allclose(mean.forecast(context[..., -100:], None, HORIZON), whole)
    known = torch.arange(400).expand_as(context) >= 200
    told = torch.where(known, context, 1e6)
    short = mean.forecast(context[..., 200:], None, HORIZON)
    torch.testing.assert_close(mean.forecast(told, known, HORIZON), short)


def test_it_moves_with_the_units_and_stays_finite_where_little_is_known() -> None:
    context, mean = histories(), ClassicalMean(season=12)
    other = mean.forecast(5 * context + 7, None, HORIZON)
    torch.testing.assert_close(
        other, 5 * mean.forecast(context, None, HORIZON) + 7, rtol=1e-4, atol=1e-4
    )
    still = torch.full_like(context, 4.0)
    torch.testing.assert_close(
        mean.forecast(still, None, HORIZON), torch.full((3, 2, HORIZON), 4.0)
    )
    nothing = mean.forecast(context, torch.zeros_like(context, dtype=torch.bool), HORIZON)
    assert torch.equal(nothing, torch.zeros(3, 2, HORIZON))


def test_a_history_is_forecast_alike_to_the_bit_beside_any_others() -> None:
    mean, steps = ClassicalMean(season=12), 300
    context = histories(windows=40, variates=1, steps=steps)
    lengths = torch.arange(40)[:, None, None] * 7 + 20
    known = torch.arange(steps) >= steps - lengths
    together = mean.forecast(context, known, HORIZON, together=64)
    for number in (0, 11, 39):
        one = slice(number, number + 1)
        last = slice(-int(lengths[number]), None)
        alone = mean.forecast(context[one][..., last], known[one][..., last], HORIZON, together=64)
        assert torch.equal(alone, together[one])


@pytest.mark.parametrize("quantiles", [None, (0.1, 0.5, 0.9)])
@pytest.mark.parametrize("members", [1, 2])
def test_the_mean_is_half_of_either_and_quantiles_move_with_their_median(
    quantiles: tuple[float, ...] | None, members: int
) -> None:
    config = NetworkConfig(
        lookback=24, horizon=HORIZON, n_variates=2, quantiles=quantiles, features=4, zero_head=False
    )
    networks = [TSM2Network(config).eval() for _ in range(members)]
    network = networks[0] if members == 1 else Ensemble(networks).eval()
    mean, context = ClassicalMean(season=12), histories()
    whole = CombinedNetwork(network, mean).eval()
    assert whole.config == config
    with torch.no_grad():
        forecast, own = whole(context), network(context[..., -24:])
    classical = mean.forecast(context, None, HORIZON)
    if quantiles is None:
        torch.testing.assert_close(forecast, (own + classical) / 2)
        return
    torch.testing.assert_close(forecast[..., 1], (own[..., 1] + classical) / 2)
    torch.testing.assert_close(forecast.diff(dim=-1), own.diff(dim=-1))


def test_a_network_that_knows_of_gaps_is_told_of_its_own_steps() -> None:
    config = NetworkConfig(lookback=24, horizon=HORIZON, n_variates=2, gaps=True, features=4)
    known = torch.rand(3, 2, 150, generator=torch.Generator().manual_seed(1)) > 0.2
    whole = CombinedNetwork(TSM2Network(config), ClassicalMean(season=12))
    read = whole.read(histories(), known)
    assert read["context"].shape == (3, 2, 24)
    assert torch.equal(read["mask"], known[..., -24:])
    assert torch.isfinite(whole(histories(), mask=known)).all()
