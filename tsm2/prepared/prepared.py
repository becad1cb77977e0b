"""Prepared: series made ready for the network, once and for everybody.

    Series -> gaps filled -> standard units -> targets and past columns -> covariates beside them
    Prepared.windows(starts) -> Windows -> Batch: what a network reads and should forecast

Training, validation, calibration, forecasts, backtests, scores and inspection cut their windows
here. What happened, `series`, is kept apart from what the network reads, `values`: a filled gap is
read, but no forecast is measured by it.

A context may reach into rows before its series, its `room`, which are unknown.

Sizes: S series, T rows of all of them, M columns, of which Mt targets; W windows, B windows in a
batch, L lookback, H horizon, R rows of room.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsm2.errors import FrameError, WindowError
from tsm2.prepared.roles import Roles
from tsm2.prepared.scaling import MOST_DEVIATIONS, Scaling
from tsm2.prepared.windows import Covariates, Windows
from tsm2.tables.cells import check_finite
from tsm2.tables.gaps import Missing, fill_forward
from tsm2.tables.ragged import places
from tsm2.tables.series import Series

__all__ = ["Prepared", "filled", "measured"]

_LEAST_UNIT = 1e-2  # deviations: what hardly errs at all is not to decide alone


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prepared:
    """Series in standard units, with all that stands beside them."""

    series: Series
    """The targets as they happened, (T, Mt), in their units; NaN where that is not known."""
    values: Tensor
    """What is read of them, (T + S (R + ahead), Mt), in standard units; finite even where
    unknown."""
    known: Tensor | None
    """True where that is known, shaped alike; None if all is."""
    covariates: Covariates
    """Coded covariates of all rows; columns that are only read are the first past ones."""
    units: Scaling
    """Units of the targets: (Mt,), or of each series, (S, Mt)."""
    lookback: int
    """Rows L of a context, those that it may reach into among them."""
    ahead: int
    """Rows to come behind each series, for which covariates stand ready."""
    room: int = 0
    """Unknown rows R before each series, that contexts may reach into; none beside covariates."""
    error_units: Tensor | None = None
    """In what the errors of each series count in its windows, (S, Mt); None for standard units."""

    @classmethod
    def of(
        cls,
        series: Series,
        units: Scaling,
        roles: Roles,
        covariates: Covariates,
        *,
        lookback: int,
        read: Series | None = None,
        ahead: int = 0,
    ) -> Prepared:
        """Make series ready.

        Parameters
        ----------
        series
            What happened.
        units
            Units of all columns, (M,), or of each series, (S, M).
        roles
            Which columns are targets.
        covariates
            Coded covariates, a row for every row and for those to come.
        lookback
            Rows of a context.
        read
            What the network is to read of the same rows; None for what happened.
        ahead
            Rows to come behind each series; they are unknown.

        Raises
        ------
        FrameError
            A value is further from its mean than networks can compute with.
        """
        read = series if read is None else read
        rows = units.take(series.owners).standardise(read.values)
        _check_near(rows, read, units)
        if ahead:
            whole = rows.new_full((len(rows) + ahead * len(series.ids), rows.shape[1]), torch.nan)
            whole[torch.from_numpy(_apart(series, behind=ahead))] = rows
            rows = whole
        values, known, others, others_known = roles.split(rows, axis=1)
        return cls(
            series=roles.of_targets(series),
            values=values,
            known=known,
            covariates=covariates.behind(others, others_known),
            units=roles.units(units),
            lookback=lookback,
            ahead=ahead,
        )

    def windows(
        self, starts: NDArray[np.int64], horizon: int, *, balanced: bool = False
    ) -> Windows:
        """Return windows with `horizon` target rows.

        Parameters
        ----------
        starts
            First target row of every window, (W,); the row behind a series is the first to come.
        horizon
            Rows H of target; those to come are unknown.
        balanced
            Let a shuffled pass draw from every series equally often, not every window once.

        Raises
        ------
        WindowError
            There is no window.
        """
        if not len(starts):
            lookback = self.lookback - self.room
            raise WindowError(
                f"no series has the {lookback + horizon} rows of a window (lookback="
                f"{lookback} + horizon={horizon}): there are at most "
                f"{self.series.counts.max()} rows to cut windows from. Give more rows, or lower "
                f"lookback or horizon."
            )
        owner = self.owners(starts)
        return Windows(
            values=self.values,
            lookback=self.lookback,
            horizon=horizon,
            starts=torch.from_numpy(
                starts - self.lookback + self.room + owner * (self.room + self.ahead)
            ),
            series=torch.from_numpy(owner),
            balanced=balanced,
            known=self.known,
            covariates=self.covariates,
            error_units=self.error_units,
        )

    def counting_by(self, season: int, n_train: NDArray[np.int64]) -> Self:
        """Return the same, errors counting in units of each series' own seasonal naive error.

        That is the root mean square of differences over a season in the training rows, as in the
        scaled errors of the M5 competition; at least a hundredth of the deviation, and the
        deviation where a series has no two seasons.

        Parameters
        ----------
        season
            Rows of a season; 1 for none.
        n_train
            First rows of each series that are for training, (S,).

        Source: Hyndman & Koehler (2006), International Journal of Forecasting 22(4).
        """
        owners = self.series.owners
        place = places(self.series.offsets)
        row = np.flatnonzero((place >= season) & (place < n_train[owners]))
        happened = _apart(self.series, before=self.room, behind=self.ahead)
        values = self.values[happened].double()
        known = torch.ones_like(values) if self.known is None else self.known[happened].double()
        both = known[row] * known[row - season]
        squares = (values[row] - values[row - season]).square() * both
        empty = values.new_zeros(len(self.series.ids), values.shape[1])
        owner = torch.from_numpy(owners[row])
        total, count = (empty.index_add(0, owner, each) for each in (squares, both))
        unit = (total / count).sqrt().nan_to_num(nan=1.0).clamp(min=_LEAST_UNIT)
        return replace(self, error_units=unit.float())

    def reaching(self, reach: int) -> Self:
        """Return the same with contexts of `reach` rows, where a series has so many.

        Rows before the first one of a series are unknown. There must be no covariates if any are
        read.
        """
        room = min(reach, int(self.series.counts.max())) - self.lookback
        if room <= 0:
            return self
        owners = np.repeat(np.arange(len(self.series.ids)), self.series.counts + self.ahead)
        at = torch.from_numpy(np.arange(len(owners)) + room * (owners + 1))
        shape = (len(self.values) + room * len(self.series.ids), self.values.shape[1])
        values, known = self.values.new_zeros(shape), torch.zeros(shape, dtype=torch.bool)
        values[at] = self.values
        known[at] = True if self.known is None else self.known
        return replace(self, values=values, known=known, lookback=self.lookback + room, room=room)

    def widened(self, windows: Windows) -> Windows:
        """Return windows that were cut before `reaching`, with contexts that reach as far."""
        starts = torch.arange(len(windows)) if windows.starts is None else windows.starts
        owners = torch.zeros_like(starts) if windows.series is None else windows.series
        return replace(
            windows,
            values=self.values,
            known=self.known,
            lookback=self.lookback,
            starts=starts + self.room * owners,
        )

    def owners(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the series of windows, (W,), given by their first target rows."""
        return self.series.owners_of(starts - 1)

    def units_of(self, starts: NDArray[np.int64]) -> Scaling:
        """Return the units of windows, (W, Mt), given by their first target rows, (W,)."""
        return self.units.take(self.owners(starts))

    def actual(self, starts: NDArray[np.int64], horizon: int) -> NDArray[np.float64]:
        """Return what happened in windows, (W, H, Mt), given by their first target rows."""
        return self.series.rows_from(starts, horizon)


def _apart(series: Series, *, before: int = 0, behind: int = 0) -> NDArray[np.int64]:
    """Return where the rows of series stand, (T,), with others before and behind each series."""
    owners = series.owners
    return np.arange(len(owners)) + before * (owners + 1) + behind * owners


def filled(series: Series, missing: Missing) -> Series:
    """Return series with their gaps filled, if that is what is done about them.

    Raises
    ------
    FrameError
        A series has nothing known before its first gap.
    """
    if missing != "ffill":
        return series
    whole = replace(series, values=fill_forward(series.values, series.offsets))
    try:
        check_finite(whole.values, series.layout.columns, series.index)
    except FrameError as error:
        raise FrameError(
            f"missing='ffill' repeats the value before a gap, but there is none at the start: "
            f"{error}"
        ) from None
    return whole


def measured(series: Series, *, each: bool, logs: NDArray[np.bool_] | None = None) -> Scaling:
    """Return the units of series: of all of them together, (M,), or of `each`, (S, M).

    A table alone has units without the axis of series in any case.

    Parameters
    ----------
    series
        Rows to measure.
    each
        Whether every series is measured on its own.
    logs
        Which columns are measured in logarithms, (M,); None for none.

    Raises
    ------
    FrameError
        A column has no value.
    """
    unknown = np.isnan(series.values).all(axis=0)
    if unknown.any():
        label = series.layout.columns[int(unknown.argmax())]
        raise FrameError(
            f"column {label!r} has no value in any training row, so nothing can be learned of it. "
            f"Drop it, or give rows that have it."
        )
    if each and not series.layout.alone:
        return Scaling.of_each(series.values, series.offsets, logs)
    return Scaling.of(series.values, logs)


def _check_near(rows: Tensor, series: Series, units: Scaling) -> None:
    """Refuse values, in standard units (T, M), whose squares float32 does not hold."""
    far = rows.abs() > MOST_DEVIATIONS
    if not bool(far.any()):
        return
    row, place = (int(axis[0]) for axis in torch.nonzero(far, as_tuple=True))
    own = units.take(series.owners[row])
    raise FrameError(
        f"column {series.layout.columns[place]!r} holds {series.values[row, place]:g} at "
        f"{series.index[row]}, more than {MOST_DEVIATIONS:g} deviations from its mean over the "
        f"training rows ({own.center[place]:g}, deviation {own.scale[place]:g}): networks cannot "
        f"compute with that. Correct it, make it missing, or fit again with rows like it."
    )
