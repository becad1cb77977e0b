"""Standard units: every variate minus its mean over the training rows, over its deviation.

A variate may be measured in logarithms: what grows by a share each year, and swings the wider the
higher it is, then moves alike everywhere. Far below its mean, and so for zero and what is negative,
the logarithm goes on as a straight line: each value has its units and each unit its value.

Sizes: T rows, M variates, S series, B windows.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

__all__ = ["KNEE", "MOST_DEVIATIONS", "Scaling", "labels_of", "tamed"]

MOST_DEVIATIONS = 1e15
"""What may stand in a window: networks compute in float32, in which squares overflow at 1e19."""
KNEE = -4.0
"""Deviations of logarithms from their mean, below which they go on as a straight line."""
_FAR = 1e3  # deviations
_ORDINARY = 100  # powers of two, 1e30, whose squares and sums are far from the limits of float64


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """What takes the units of a table, or of several series, to standard units and back.

    Units of several series have a row for each; they suit values whose first axis has them too.
    """

    center: NDArray[np.float64]
    """Mean of every variate, (M,), in its unit; (S, M) if every series has its own."""
    scale: NDArray[np.float64]
    """Deviation of every variate, in its unit, shaped alike; 1 for one that does not move."""
    logs: NDArray[np.bool_] | None = None
    """Which variates are measured in logarithms, (M,), as their mean and deviation; None: none."""
    unbent: NDArray[np.float64] | None = None
    """Deviations in the variates' units, shaped as `scale`, where some are in logarithms."""

    @classmethod
    def of(cls, values: NDArray[np.float64], logs: NDArray[np.bool_] | None = None) -> Self:
        """Measure a table, (T, M), some variates in logarithms, of which there must be some."""
        if logs is not None:
            bent = cls.of(_logarithms(values, logs))
            return replace(bent, logs=logs, unbent=cls.of(values).scale)
        tame, power = tamed(values)
        scaler = StandardScaler().fit(tame)
        center, scale = np.asarray(scaler.mean_), np.asarray(scaler.scale_)
        return cls(center=np.ldexp(center, power), scale=np.ldexp(scale, power))

    @classmethod
    def of_each(
        cls,
        values: NDArray[np.float64],
        offsets: NDArray[np.int64],
        logs: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Measure every series on its own; rows of all of them, (T, M), see `tsm2.tables.ragged`.

        Missing values count for nothing, and neither do values without a logarithm where `logs`
        asks for one; a variate without any other has center 0 and scale 1.
        """
        if logs is not None:
            bent = cls.of_each(_logarithms(values, logs), offsets)
            return replace(bent, logs=logs, unbent=cls.of_each(values, offsets).scale)
        values, power = tamed(values, offsets)
        known = np.isfinite(values)
        first, lengths = offsets[:-1], np.diff(offsets)
        n = np.maximum(np.add.reduceat(known, first, dtype=np.int64), 1)  # (S, M)
        mean = np.add.reduceat(np.where(known, values, 0.0), first) / n
        away = np.where(known, values - np.repeat(mean, lengths, axis=0), 0.0)
        variance = np.add.reduceat(np.square(away), first) / n
        # As scikit-learn's StandardScaler: what moves by rounding errors alone does not move.
        rounding = np.finfo(np.float64).eps * n
        still = variance <= rounding * variance + np.square(rounding * mean)
        scale = np.where(still, 1.0, np.sqrt(variance))
        return cls(center=np.ldexp(mean, power), scale=np.ldexp(scale, power))

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Deviation of every variate, in its unit, whatever it is measured in."""
        return self.scale if self.unbent is None else self.unbent

    def in_logarithms(self, labels: Sequence[Hashable]) -> tuple[str, ...]:
        """Return the labels, (M,), of the variates that are measured in logarithms, as text."""
        return labels_of(labels, self.logs)

    def from_zero(self) -> Self:
        """Count the same units from zero, so that what is positive stays so.

        A column that is further away from zero than a thousand deviations keeps its center: float32
        would lose what moves there.
        """
        far = np.abs(self.center) > _FAR * self.scale
        return type(self)(center=np.where(far, self.center, 0.0), scale=self.scale)

    def take(self, which: Any) -> Self:
        """Return the units of some series, by an index; those of one table are the same for all."""
        if self.center.ndim == 1:
            return self
        unbent = None if self.unbent is None else self.unbent[which]
        return replace(self, center=self.center[which], scale=self.scale[which], unbent=unbent)

    def of_columns(self, which: list[int]) -> Self:
        """Return the units of some variates, by position."""
        return type(self)(
            center=self.center[..., which],
            scale=self.scale[..., which],
            logs=None if self.logs is None else self.logs[which],
            unbent=None if self.unbent is None else self.unbent[..., which],
        )

    def standardise(self, values: NDArray[np.float64]) -> torch.Tensor:
        """Return values, (..., M), in standard units, as float32; infinite where that overflows."""
        center, scale = self._beside(values.ndim)
        with np.errstate(over="ignore"):
            if self.logs is not None:
                bent = _bent(values[..., self.logs], center[..., self.logs], scale[..., self.logs])
                values = values.copy()
                values[..., self.logs] = bent
            return torch.from_numpy(((values - center) / scale).astype(np.float32))

    def restore(self, values: torch.Tensor) -> NDArray[np.float64]:
        """Return standardised values, (..., M), in their own units, as float64."""
        center, scale = self._beside(values.ndim)
        wide: NDArray[np.float64] = values.cpu().double().numpy()
        restored: NDArray[np.float64] = wide * scale + center
        if self.logs is not None:
            logs = self.logs
            straight = _straight(restored[..., logs], center[..., logs], scale[..., logs])
            restored[..., logs] = straight
        return restored

    def _beside(self, ndim: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return center and scale with the axes that they need beside values of `ndim` axes."""
        if self.center.ndim == 1:
            return self.center, self.scale
        shape = (len(self.center), *[1] * (ndim - 2), self.center.shape[-1])
        return self.center.reshape(shape), self.scale.reshape(shape)


def labels_of(labels: Sequence[Hashable], which: NDArray[np.bool_] | None) -> tuple[str, ...]:
    """Return the labels, (M,), of some variates, (M,), as text; None are none of them."""
    if which is None:
        return ()
    return tuple(str(label) for label, one in zip(labels, which, strict=True) if one)


def _logarithms(values: NDArray[np.float64], logs: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return rows, (T, M), with the logarithms of some variates; NaN of what has none."""
    found = values.copy()
    positive = np.where(values[:, logs] > 0, values[:, logs], np.nan)
    found[:, logs] = np.log(positive)
    return found


def _bent(
    values: NDArray[np.float64], center: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return logarithms, and below the knee the straight line that goes on from them."""
    knee = center + KNEE * scale
    turn = np.exp(knee)
    return np.where(values >= turn, np.log(np.maximum(values, turn)), knee + (values - turn) / turn)


def _straight(
    bent: NDArray[np.float64], center: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the values of what `_bent` returned; infinite where that overflows."""
    knee = center + KNEE * scale
    turn = np.exp(knee)
    with np.errstate(over="ignore"):
        return np.where(bent >= knee, np.exp(np.maximum(bent, knee)), turn * (1 + bent - knee))


def tamed(
    values: NDArray[np.float64], offsets: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Divide columns, (T, M) or (T,), by a power of two if their squares leave float64's range.

    Such a power changes no digit: what is measured of the quotients, times the power, is what is
    measured of the values. A column that does not move gets its own size as its unit that way.

    Parameters
    ----------
    values
        Rows; NaN where unknown.
    offsets
        Row at which each series starts, and the end; None for one series.

    Returns
    -------
    The values, and the exponent of each column's power, (M,) or (), or of each series, (S, M); 0
    for an ordinary column.

    Examples
    --------
    >>> values, power = tamed(np.array([3e200, 1e200]))
    >>> float(np.ldexp(values.mean(), power))
    2e+200
    """
    sizes = np.abs(values)
    if offsets is None:
        largest = np.fmax.reduce(sizes, axis=0, initial=0.0)
    else:
        largest = np.fmax.reduceat(sizes, offsets[:-1], axis=0)
    exponent = np.frexp(np.nan_to_num(largest))[1].astype(np.int64)
    power = np.where(np.abs(exponent) > _ORDINARY, exponent, 0)
    if not power.any():
        return values, power
    of_rows = power if offsets is None else np.repeat(power, np.diff(offsets), axis=0)
    return np.ldexp(values, -of_rows), power
