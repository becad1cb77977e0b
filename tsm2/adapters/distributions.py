"""From the network's parameters to what a peer library makes a distribution of.

    location c + d y, scale d softplus(y), free y  ->  raw values  ->  the library's own link

A library bends raw values into a distribution's parameters: softplus for what is positive, the
sigmoid for a probability. The functions here undo that link, so that after it a deviation is in the
window's units, and a distribution without location has its mean at the network's location.

Sizes: B windows, H horizon, M variates, K parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tsm2.networks.heads import ParameterKind

__all__ = [
    "BETA",
    "COUNT",
    "DIRICHLET",
    "EXPONENTIAL",
    "GAMMA",
    "GEOMETRIC",
    "LEVEL",
    "LOCATION_SCALE",
    "LOG_NORMAL",
    "SHARE",
    "Family",
    "inverse_softplus",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What the network forecasts for a distribution, and how the library gets it."""

    outputs: tuple[ParameterKind, ...]
    """Kinds of the network's K parameters."""
    raw: Callable[[Tensor], Tensor]
    """From these, (..., K), to the library's raw values, (..., K)."""


def inverse_softplus(y: Tensor) -> Tensor:
    """Return x with softplus(x) = y, for positive y, exact for small and for large ones.

    Examples
    --------
    >>> inverse_softplus(functional.softplus(torch.tensor([-20.0, 0.5, 300.0]))).tolist()
    [-20.0, 0.5, 300.0]
    """
    y = y.clamp(min=torch.finfo(y.dtype).tiny)
    return y + torch.log(-torch.expm1(-y))


def _location_scale(parameters: Tensor) -> Tensor:
    location, scale = parameters.unbind(-1)
    return torch.stack((location, inverse_softplus(scale)), -1)


def _unchanged(parameters: Tensor) -> Tensor:
    return parameters


def _exponential(parameters: Tensor) -> Tensor:
    return inverse_softplus(1 / _positive(parameters))  # the rate is one over the mean


def _gamma(parameters: Tensor) -> Tensor:
    location, free = parameters.unbind(-1)
    rate = functional.softplus(free) / _positive(location)  # the mean is shape over rate
    return torch.stack((free, inverse_softplus(rate)), -1)


def _log_normal(parameters: Tensor) -> Tensor:
    location, free = parameters.unbind(-1)
    return torch.stack((torch.log(_positive(location)), free), -1)


def _share(parameters: Tensor) -> Tensor:
    return 4 * (parameters - 0.5)  # whose sigmoid is a half at a half, and rises as the location


def _geometric(parameters: Tensor) -> Tensor:
    return -torch.log(_positive(parameters))  # the logit of 1 / (1 + mean)


def _beta(parameters: Tensor) -> Tensor:
    location, free = parameters.unbind(-1)
    mean, precision = torch.sigmoid(_share(location)), 4 * functional.softplus(free)
    shapes = torch.stack((mean * precision, (1 - mean) * precision), -1)
    return inverse_softplus(shapes)


def _dirichlet(parameters: Tensor) -> Tensor:
    return torch.log(_positive(parameters))  # whose softmax over the variates are their shares


def _positive(location: Tensor) -> Tensor:
    return functional.softplus(location) + 1e-6


LOCATION_SCALE = Family(outputs=("location", "scale"), raw=_location_scale)
"""Normal, Laplace, Cauchy, Gumbel: a location, and a positive scale behind softplus."""
LEVEL = Family(outputs=("location",), raw=_unchanged)
"""Poisson, half-normal: one positive parameter behind softplus, of the size of the values."""
COUNT = Family(outputs=("location", "free"), raw=_unchanged)
"""Negative binomial, Weibull: the same, and a shape without unit."""
EXPONENTIAL = Family(outputs=("location",), raw=_exponential)
"""A rate behind softplus."""
GAMMA = Family(outputs=("location", "free"), raw=_gamma)
"""A shape and a rate, both behind softplus."""
LOG_NORMAL = Family(outputs=("location", "free"), raw=_log_normal)
"""The location of the logarithm, and its scale behind softplus."""
SHARE = Family(outputs=("location",), raw=_share)
"""Bernoulli and continuous Bernoulli: a probability behind the sigmoid."""
GEOMETRIC = Family(outputs=("location",), raw=_geometric)
"""The probability of an end behind the sigmoid."""
BETA = Family(outputs=("location", "free"), raw=_beta)
"""Two shapes behind softplus."""
DIRICHLET = Family(outputs=("location",), raw=_dirichlet)
"""Concentrations behind a softmax over the variates."""
