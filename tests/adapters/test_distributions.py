"""Parameters behind a peer library's links: what the link makes of them is what was meant."""

import pytest
import torch
from torch.nn import functional

from tsm2.adapters import distributions
from tsm2.adapters.distributions import inverse_softplus

LOCATION = torch.tensor([0.2, 5.0, 40.0], dtype=torch.float64)
FREE = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
LEVEL = functional.softplus(LOCATION)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_of_softplus_is_exact_at_both_ends(dtype: torch.dtype) -> None:
    x = torch.tensor([-60.0, -1.0, 0.0, 1.0, 30.0, 1000.0], dtype=dtype, requires_grad=True)
    back = inverse_softplus(functional.softplus(x, threshold=80))
    torch.testing.assert_close(back, x, rtol=1e-5, atol=1e-6)
    (slope,) = torch.autograd.grad(back.sum(), x)
    torch.testing.assert_close(slope, torch.ones_like(x), rtol=1e-4, atol=1e-5)


def test_nothing_stays_finite() -> None:
    y = torch.zeros(1, requires_grad=True)
    back = inverse_softplus(y)
    back.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(back).all()
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()


@pytest.mark.parametrize(
    ("family", "mean"),
    [
        (distributions.EXPONENTIAL, lambda raw: 1 / functional.softplus(raw[..., 0])),
        (distributions.GEOMETRIC, lambda raw: 1 / torch.sigmoid(raw[..., 0]) - 1),
        (distributions.LEVEL, lambda raw: functional.softplus(raw[..., 0])),
        (distributions.COUNT, lambda raw: functional.softplus(raw[..., 0])),
        (distributions.LOG_NORMAL, lambda raw: torch.exp(raw[..., 0])),
        (
            distributions.GAMMA,
            lambda raw: functional.softplus(raw[..., 0]) / functional.softplus(raw[..., 1]),
        ),
    ],
)
def test_the_mean_is_at_the_location(family: distributions.Family, mean: object) -> None:
    parameters = torch.stack((LOCATION, FREE)[: len(family.outputs)], -1)
    assert callable(mean)
    torch.testing.assert_close(mean(family.raw(parameters)), LEVEL, rtol=1e-4, atol=1e-5)


def test_shares_rise_with_the_location() -> None:
    location = torch.linspace(0, 1, 5)[:, None]
    share = torch.sigmoid(distributions.SHARE.raw(location))
    assert bool((share.diff(dim=0) > 0).all())
    assert share[2].item() == 0.5
    both = torch.cat((location, torch.zeros(5, 1)), -1)
    shapes = functional.softplus(distributions.BETA.raw(both))
    torch.testing.assert_close(shapes[:, :1] / shapes.sum(-1, keepdim=True), share)


def test_a_scale_comes_through_softplus_as_it_is() -> None:
    parameters = torch.stack((LOCATION, LEVEL), -1)
    location, scale = distributions.LOCATION_SCALE.raw(parameters).unbind(-1)
    torch.testing.assert_close(location, LOCATION)
    torch.testing.assert_close(functional.softplus(scale), LEVEL)
