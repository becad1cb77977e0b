"""Walks: which windows of a table, or of each of several series, are forecast.

    rows 0 ... lookback | forecast 1 ->      stride rows further | forecast 2 ->      ...

Sizes: S series, W windows, T rows, M variates, B windows in a batch, L lookback, H horizon.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tsm2.errors import WindowError
from tsm2.prepared.splits import check_long_enough
from tsm2.tables.labels import is_before, position_of
from tsm2.tables.ragged import ranges
from tsm2.tables.series import Series

__all__ = ["Walk", "cut_contexts"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """Which windows of a table are forecast."""

    lookback: int
    """Rows L that a model may read before each forecast."""
    horizon: int
    """Rows H that are forecast."""
    stride: int = 1
    """Rows from one forecast to the next."""
    first: int | None = None
    """Position of the first forecast row; None for the first one with a full lookback."""

    def starts(self, n_rows: int) -> NDArray[np.int64]:
        """Return the position of the first forecast row of every window, none dropped.

        Raises
        ------
        WindowError
            No window fits.
        """
        first = self.lookback if self.first is None else self.first
        if first < self.lookback:
            raise WindowError(
                f"the first forecast row is row {first} of the table, but {self.lookback} rows "
                f"(lookback) must stand before it. Start later, or put history in front."
            )
        if first + self.horizon > n_rows:
            raise WindowError(
                f"the table has {n_rows} rows, but one forecast needs {first + self.horizon}: "
                f"{first} before it and {self.horizon} (horizon) to compare with. Give more rows, "
                f"or lower horizon or lookback."
            )
        return np.arange(first, n_rows - self.horizon + 1, self.stride)

    def starts_in(
        self,
        series: Series,
        start: object = None,
        *,
        known: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Return the row of the first forecast row of every window, (W,), rising.

        Parameters
        ----------
        series
            One table, or several series, none of whose windows reaches into another.
        start
            Label of the first row to forecast; of several series, each starts at its first row from
            there on that has a full lookback before it. None for the first row that has one.
        known
            How many first rows of each series are there to be read alone, (S,); None for none.

        Raises
        ------
        WindowError
            No window fits, or, without `start`, a series is too short for one.
        FrameError
            `start` is no row of the table, or no label of its kind.
        """
        before = np.full(len(series.ids), self.lookback)
        if known is not None:
            before = np.maximum(before, known)
        if series.layout.alone:
            first = self.first if start is None else position_of(series.index, start)
            if known is not None and first is not None and self.lookback <= first < known[0]:
                later = series.index[known[0]]
                raise WindowError(
                    f"start={start!r} is among the rows that the model knows already, and would "
                    f"be forecast too well. Start behind them, at {later} or later."
                )
            walk = replace(self, lookback=int(before[0]), first=first)
            return walk.starts(len(series.values))
        if start is None:
            sum_of = f"lookback={self.lookback}"
            if (before > self.lookback).any():
                sum_of += " or more that are known already"
            sum_of += f" + horizon={self.horizon}"
            check_long_enough(series, before + self.horizon, sum_of)
        else:
            rows = is_before(series.index, start)
            before = np.maximum(before, np.add.reduceat(rows, series.offsets[:-1], dtype=np.int64))
        counts = np.maximum(0, (series.counts - before - self.horizon) // self.stride + 1)
        if not counts.any():
            raise WindowError(
                f"no series has {self.horizon} rows (horizon) from start={start!r} on and "
                f"{self.lookback} (lookback) before them. Start earlier."
            )
        steps = ranges(np.zeros_like(counts), counts) * self.stride
        return np.repeat(series.offsets[:-1] + before, counts) + steps


def cut_contexts(
    values: NDArray[np.float64],
    starts: NDArray[np.int64],
    *,
    lookback: int,
    horizon: int,
    size: int,
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield contexts, (B, L, M), and what followed, (B, H, M), for models that read plain numbers.

    Parameters
    ----------
    values
        The table, (T, M).
    starts
        First forecast row of every window, (W,).
    lookback, horizon
        Rows of both.
    size
        Windows in a batch.
    """
    before = np.lib.stride_tricks.sliding_window_view(values, lookback, axis=0)
    behind = np.lib.stride_tricks.sliding_window_view(values, horizon, axis=0)
    for batch in np.array_split(starts, range(size, len(starts), size)):
        yield before[batch - lookback].swapaxes(1, 2), behind[batch].swapaxes(1, 2)
