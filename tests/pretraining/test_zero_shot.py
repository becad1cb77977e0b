"""The network between classical forecasts and quantiles: what it promises of any history."""

import numpy as np
import pytest
import torch

from tsm2.networks.classical import NAMES, classical_forecasts
from tsm2.networks.config import NetworkConfig
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.training import seeded


@pytest.fixture
def network(zero_sizes: NetworkConfig) -> ZeroShotNetwork:
    with seeded(0):
        network = ZeroShotNetwork(zero_sizes).eval()
    with torch.no_grad():  # as if it had learned something
        torch.nn.init.normal_(network.inner.head.median.weight, std=0.05)  # type: ignore[union-attr,arg-type]
    return network


def test_units_do_not_matter(network: ZeroShotNetwork) -> None:
    generator = torch.Generator().manual_seed(0)
    context = torch.rand(3, 2, 64, generator=generator) + 1
    torch.testing.assert_close(network(context * 1e4), network(context) * 1e4, rtol=1e-3, atol=1e-2)


def test_what_stands_before_a_history_is_not_read(network: ZeroShotNetwork) -> None:
    context = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(64) >= 40
    other = torch.where(mask, context, 1e6)
    known = mask.expand_as(context)
    torch.testing.assert_close(network(other, mask=known), network(context, mask=known))


@pytest.mark.parametrize("known", [0, 1, 2, 5])
def test_a_history_of_hardly_any_rows_is_forecast(network: ZeroShotNetwork, known: int) -> None:
    context = torch.full((1, 1, 64), 3.0)
    mask = (torch.arange(64) >= 64 - known).expand_as(context)
    assert network(context, mask=mask).isfinite().all()


def test_a_constant_stays_constant(network: ZeroShotNetwork) -> None:
    forecast = network(torch.full((1, 1, 64), 1e6))[..., 1]
    torch.testing.assert_close(forecast, torch.full_like(forecast, 1e6), rtol=0.3, atol=0)


def test_quantiles_do_not_cross(network: ZeroShotNetwork) -> None:
    assert (network(torch.randn(8, 3, 64)).diff(dim=-1) > 0).all()


def test_variates_in_any_number(network: ZeroShotNetwork) -> None:
    for variates in (1, 7):
        assert network(torch.randn(2, variates, 64)).shape == (2, variates, 8, 3)


def wave(period: int, steps: int = 96, growth: float = 0.0) -> np.ndarray:
    t = np.arange(steps)
    rows: np.ndarray = np.sin(2 * np.pi * t / period) + growth * t
    return rows


def forecasts(
    rows: np.ndarray, season: int, horizon: int = 12
) -> tuple[dict[str, np.ndarray], int]:
    mean, deviation = rows.mean(), rows.std()
    found = classical_forecasts(
        torch.from_numpy((rows - mean) / deviation).float()[None],
        torch.ones(1, len(rows), dtype=torch.bool),
        horizon,
        offset=torch.tensor([mean / deviation], dtype=torch.float32),
        seasons=torch.tensor([season]),
    )
    courses = found.courses[0].numpy() * deviation + mean
    return dict(zip(NAMES, courses, strict=True)), int(found.periods[0, 0])


@pytest.mark.parametrize("season", [12, 0])
def test_a_wave_goes_on_whether_or_not_its_season_is_told(season: int) -> None:
    rows = wave(12, 108)
    courses, period = forecasts(rows[:96], season)
    assert period == 12
    for name in ("seasonal", "level", "regression"):
        np.testing.assert_allclose(courses[name], rows[96:], atol=0.1)


def test_growth_in_shares_goes_on_in_shares() -> None:
    rows = np.exp(0.03 * np.arange(108)) * (1 + 0.3 * wave(12, 108))
    courses, _ = forecasts(rows[:96], 12)
    errors = {name: np.abs(course - rows[96:]).mean() for name, course in courses.items()}
    assert errors["growing"] < 0.5 * errors["seasonal"]


def test_a_random_walk_has_no_season() -> None:
    generator = np.random.default_rng(0)
    periods = [forecasts(generator.standard_normal(512).cumsum(), 0)[1] for _ in range(40)]
    assert np.mean([each == 1 for each in periods]) > 0.7
