"""Sums over windows: the short ways give what a sum over gathered windows does."""

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tsm2.prepared.windows import Covariates, Windows
from tsm2.training.moments import (
    Level,
    LinearInput,
    StepMeans,
    relate_covariates,
    sum_moments,
)

ROWS, VARIATES, LOOKBACK, HORIZON = 90, 3, 12, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def windows(**changes: Any) -> Windows:
    known = Covariates(past=drawn(ROWS, 2, seed=2), future=drawn(ROWS, 4, seed=1))
    plain = Windows(
        values=drawn(ROWS, VARIATES),
        lookback=LOOKBACK,
        horizon=HORIZON,
        starts=torch.arange(5, 60),
        covariates=known,
    )
    return replace(plain, **changes)


@pytest.mark.parametrize("level", ["mean", "last", "zero"])
@pytest.mark.parametrize("variates", [None, slice(1, 3)], ids=["pooled", "each"])
@pytest.mark.parametrize("sees", ["all", "five columns", "means"])
def test_rolled_windows_with_future_covariates_have_the_moments_of_gathered_ones(
    level: Level, variates: slice | None, sees: str
) -> None:
    how: dict[str, Any] = {
        "all": {},
        "five columns": {"basis": torch.linalg.qr(drawn(LOOKBACK, 5, seed=3))[0]},
        "means": {"means": StepMeans((torch.arange(LOOKBACK) + 1) // 3)},
    }
    linear = LinearInput(level=level, future=drawn(VARIATES, 4, seed=4), **how[sees])
    rolled = windows()
    gathered = replace(rolled, starts=torch.arange(5, 60).flip(0))  # in no order that rolls
    one, two = (
        sum_moments(each, linear, variates=variates, steps=slice(1, 4))
        for each in (rolled, gathered)
    )
    for name in ("gram", "cross", "squares", "counts"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["past", "future"])
@pytest.mark.parametrize("level", ["mean", "last", None])
@pytest.mark.parametrize("balanced", [False, True])
def test_covariates_relate_to_values_as_over_gathered_windows(
    kind: Literal["past", "future"], level: Literal["mean", "last"] | None, balanced: bool
) -> None:
    series = (torch.arange(55) >= 20).long()
    plain = windows(series=series, balanced=balanced)
    masked = replace(plain, known=torch.ones(ROWS, VARIATES, dtype=torch.bool))
    one, two = (relate_covariates(each, LinearInput(level=level), kind) for each in (plain, masked))
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_weights_of_means_are_spread_over_their_steps() -> None:
    """What is read times weights is the steps times the weights that they are spread to."""
    means = StepMeans((torch.arange(LOOKBACK) + 1) // 3)
    steps, weights = drawn(2, LOOKBACK, 7), drawn(2, 5, 4, seed=1)
    read = means.of(steps)
    torch.testing.assert_close(read.mT @ weights, steps.mT @ means.spread(weights))
    torch.testing.assert_close(read[:, 0], steps[:, :2].sum(1) / 2**0.5)
    torch.testing.assert_close(means.of(means.spread(weights)), weights)
