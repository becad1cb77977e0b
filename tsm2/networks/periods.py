"""The season of histories, and a longer one, found in their autocorrelation.

    covariance[k] = sum over t of x[t] x[t - k]          x: what a straight line leaves of a history
    correlation   = covariance / pairs of known steps, over that at lag 0
    season        = the first of its peaks that is nearly as high as the highest

Branches are masks and the transforms are forward ones of real rows alone, which an ONNX file has
too. What is chosen by is float64, so that the same is chosen wherever it runs.

Sizes: N histories, T time steps.
"""

import torch
from torch import Tensor
from torch.nn import functional

from tsm2.networks.patches import running_max

__all__ = ["find_periods", "straight_line"]

_TINY = 1e-6


def find_periods(
    values: Tensor, weights: Tensor, first: Tensor, seasons: Tensor
) -> tuple[Tensor, Tensor]:
    """Find the season of each history, and a longer one, by its autocorrelation.

    Parameters
    ----------
    values, weights
        Histories, (N, T), and 1 where they are known, else 0.
    first
        First known step, (N,).
    seasons
        What the frequency tells, (N,): taken where the history does not speak against it.

    Returns
    -------
    Steps of both, (N, 2), and the autocorrelations there.
    """
    steps = values.shape[-1]
    counts, told = steps - first[:, None], seasons[:, None].clamp(max=steps - 1)  # (N, 1)
    lags = torch.arange(steps, device=values.device)
    moved = weights * (values - straight_line(values, weights)[0])
    changes = values.diff(dim=-1) * weights[:, 1:] * weights[:, :-1]
    changes = changes - changes.sum(-1, keepdim=True) / max(steps - 1, 1)
    covariance, pairs, again = _autocovariances(
        torch.stack((moved, weights, functional.pad(changes, (1, 0))), 1)
    ).unbind(1)
    correlation = covariance / pairs.round().clamp(min=1)
    correlation = correlation / correlation[:, :1].clamp(min=_TINY)
    correlation = torch.where((pairs.round() > 3) & (lags < counts), correlation, 0)
    rise = correlation + running_max(-correlation)  # above the lowest before
    few = counts < 2 * told
    trusted = (told > 1) & (counts > told) & (few | (rise.gather(1, told) > 0.1))
    peaks = (correlation >= functional.pad(correlation[:, :-1], (1, 0))) & (
        correlation > functional.pad(correlation[:, 1:], (0, 1))
    )
    peaks &= (lags >= 2) & (lags < steps - 1) & (lags <= counts // 2)
    peaks &= (rise > 0.4) & (correlation > 0.25)
    # A random walk turns by chance; its steps from one row to the next do not come round again.
    again = again / again[:, :1].clamp(min=_TINY)
    peaks &= again > (2.0 / counts.clamp(min=4).to(again.dtype).sqrt()).clamp(min=0.08)
    height = torch.where(peaks, correlation, 0)
    highest = height.amax(-1, keepdim=True)
    is_high = height >= 0.9 * highest.clamp(min=_TINY)
    seen = torch.where(is_high, lags, steps - 1).amin(-1, keepdim=True)  # the first of them
    period = torch.where(trusted, told, torch.where(highest > 0, seen, 1))
    week = 7 * period
    at_week = correlation.gather(1, week.clamp(max=steps - 1))
    reach = (period >= 20) & (10 * week < 7 * counts)
    longer = torch.where(reach & (at_week > correlation.gather(1, period)), week, period)
    found = torch.cat((period, longer), 1)
    return found, correlation.gather(1, found).to(values.dtype)


def _autocovariances(rows: Tensor) -> Tensor:
    """Return sums of products of rows, (..., T), with themselves by lag, (..., T), float64."""
    steps = rows.shape[-1]
    transformed = torch.fft.rfft(rows.double(), 2 * steps)
    power = transformed.real.square() + transformed.imag.square()  # (..., T + 1), then as before
    whole = torch.cat((power, power[..., 1:-1].flip(-1)), -1)
    back: Tensor = torch.fft.rfft(whole).real[..., :steps] / (2 * steps)
    return back


def straight_line(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the straight line of least squares, (..., T), and its slope per step, (..., 1).

    Parameters
    ----------
    values, weights
        Values, (..., T), and how much each counts, in shapes that go together.

    Examples
    --------
    >>> values, weights = torch.tensor([1.0, 3.0, 5.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    >>> [each.tolist() for each in straight_line(values, weights)]
    [[1.0, 3.0, 5.0, 7.0], [2.0]]
    """
    t = torch.arange(values.shape[-1], device=values.device).to(values.dtype)
    total = weights.sum(-1, keepdim=True).clamp(min=1)
    middle = (weights * t).sum(-1, keepdim=True) / total
    mean = (weights * values).sum(-1, keepdim=True) / total
    away = (t - middle) * weights
    spread = (away * (t - middle)).sum(-1, keepdim=True).clamp(min=1)
    slope = (away * (values - mean)).sum(-1, keepdim=True) / spread
    return mean + slope * (t - middle), slope
