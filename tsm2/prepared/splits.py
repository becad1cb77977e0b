"""What each series gives to training and to validation, and the windows in both.

    one series    rows 0 ........ n_train | n_train ...... T
    training      windows that end before n_train
    validation    windows whose forecast starts at n_train or later; their context may reach back

Of several series, each gives its own last rows. One whose last rows hold no forecast, or whose
first rows hold no window, gives all of its rows to training: it is short, and the others judge.

Sizes: S series, T rows of all of them, L lookback, H horizon.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from tsm2.errors import FrameError, ParameterError, WindowError
from tsm2.tables.gaps import Missing
from tsm2.tables.ragged import ranges
from tsm2.tables.series import Series

__all__ = [
    "check_contexts",
    "check_long_enough",
    "room_in_front",
    "split_starts",
    "training_rows",
]


def training_rows(
    series: Series,
    *,
    lookback: int,
    horizon: int,
    validation_fraction: float,
    room: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return how many first rows of each series are for training, (S,).

    Parameters
    ----------
    series
        The series.
    lookback, horizon
        Rows of context and of target.
    validation_fraction
        Share of each series' rows for validation.
    room
        How many rows of each are unknown ones in front, (S,), see `room_in_front`; None for none.

    Raises
    ------
    WindowError
        A series is too short for a window, or none is long enough to validate.
    """
    needed = lookback + horizon
    counts = series.counts
    own = counts if room is None else counts - room
    n_validation = np.round(own * validation_fraction).astype(np.int64)
    if series.layout.alone:
        _check_one(int(counts[0]), int(n_validation[0]), lookback, horizon, validation_fraction)
        return counts - n_validation
    check_long_enough(series, needed, f"lookback={lookback} + horizon={horizon}")
    validates = (n_validation >= horizon) & (counts - n_validation >= needed)
    if validation_fraction and not validates.any():
        raise WindowError(
            f"validation_fraction={validation_fraction} keeps at most {n_validation.max()} rows of "
            f"a series for validation and leaves at most {(counts - n_validation).max()} for "
            f"training, but at least one series needs {horizon} (horizon) and {needed} (lookback + "
            f"horizon). Change validation_fraction, or pass 0 to train without validation."
        )
    return counts - np.where(validates, n_validation, 0)


def room_in_front(series: Series, *, lookback: int, horizon: int) -> NDArray[np.int64]:
    """Return how many unknown rows in front of each series make windows of one that is short, (S,).

    The first context of a short series then ends with as many of its own rows as a forecast has,
    or with as many as there are before one. A series that is long enough gets none, nor does one
    table alone.

    Raises
    ------
    WindowError
        A series has no row before a forecast.
    """
    if series.layout.alone:
        return np.zeros(1, dtype=np.int64)
    short = series.counts < lookback + horizon
    check_long_enough(series, horizon + 1, f"1 + horizon={horizon}", way="Lower horizon")
    return np.where(short, lookback - np.minimum(series.counts - horizon, horizon), 0).clip(min=0)


def check_long_enough(
    series: Series,
    needed: int | NDArray[np.int64],
    sum_of: str,
    *,
    way: str = "Lower lookback, pass missing='mask' to count rows before a series as unknown",
) -> None:
    """Check that every series has the rows that a window needs, or that its own one does, (S,).

    Raises
    ------
    WindowError
        Some have not; the message names the first.
    """
    short = np.flatnonzero(series.counts < needed)
    if len(short):
        first = short[0]
        more = f", and {len(short) - 1} more series are too short" if len(short) > 1 else ""
        raise WindowError(
            f"series {series.ids[first]!r} has {series.counts[first]} rows, but one window needs "
            f"{np.broadcast_to(needed, series.counts.shape)[first]} ({sum_of}){more}. {way}, or "
            f"drop the series."
        )


def _check_one(
    n_rows: int, n_validation: int, lookback: int, horizon: int, validation_fraction: float
) -> None:
    n_train, needed = n_rows - n_validation, lookback + horizon
    if n_train < needed:
        raise WindowError(
            f"the table has {n_rows} rows (n_samples = {n_rows}), of which {n_train} are for "
            f"training and {n_validation} for validation (validation_fraction="
            f"{validation_fraction}), but training needs {needed} (lookback={lookback} + "
            f"horizon={horizon}). Give more rows, or lower lookback, horizon or "
            f"validation_fraction."
        )
    if 0 < n_validation < horizon or (validation_fraction and not n_validation):
        raise WindowError(
            f"validation_fraction={validation_fraction} keeps {n_validation} of {n_rows} rows for "
            f"validation, but one forecast needs {horizon} (horizon). Raise validation_fraction, "
            f"or pass 0 to train without validation."
        )


def split_starts(
    series: Series, n_train: NDArray[np.int64], *, lookback: int, horizon: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first target row of every window for training and for validation, (W,) each.

    Parameters
    ----------
    series
        The series.
    n_train
        First rows of each that are for training, (S,).
    lookback, horizon
        Rows of context and of target.
    """
    first = series.offsets[:-1]
    train = ranges(first + lookback, np.maximum(0, n_train - lookback - horizon + 1))
    n_validation = np.where(series.counts > n_train, series.counts - n_train - horizon + 1, 0)
    return train, ranges(first + n_train, n_validation)


def check_contexts(
    contexts: NDArray[np.float64],
    columns: Sequence[Hashable],
    *,
    lookback: int,
    missing: Missing,
) -> None:
    """Check that contexts, (B, L, M), can be forecast from.

    Raises
    ------
    ParameterError
        These are no contexts of the columns, (M,).
    WindowError
        They are shorter than the lookback, and unknown rows may not stand before them.
    FrameError
        A value is unknown, and nothing is to be done about that.
    """
    if contexts.ndim != 3 or contexts.shape[2] != len(columns) or not contexts.shape[1]:
        raise ParameterError(
            f"contexts must have windows, rows and {len(columns)} columns, got an array of shape "
            f"{contexts.shape}."
        )
    if missing != "mask" and contexts.shape[1] < lookback:
        raise WindowError(
            f"the contexts have {contexts.shape[1]} rows, but a forecast reads {lookback} "
            f"(lookback). Give longer ones, or fit with missing='mask', which takes rows before "
            f"them for unknown."
        )
    if missing == "raise" and not np.isfinite(contexts).all():
        window, row, column = np.argwhere(~np.isfinite(contexts))[0]
        raise FrameError(
            f"column {columns[column]!r} is {contexts[window, row, column]} in row {row} of "
            f"context {window}. Fill it, or fit with missing='mask' or 'ffill'."
        )
