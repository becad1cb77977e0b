"""Gaps: rows that a table lacks, and cells that hold NaN.

    missing="raise"   a gap is refused
    missing="mask"    a gap stays unknown: it counts neither in scaling nor in the loss, and the
                      network is told
    missing="ffill"   a gap repeats the value before it

Sizes: T rows, M variates.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tsm2.tables.ragged import owners

__all__ = ["Missing", "fill_forward"]

Missing = Literal["raise", "mask", "ffill"]
"""What is done about gaps."""


def fill_forward(
    values: NDArray[np.float64], offsets: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Return values, (T, M), with every gap filled by the last known value before it.

    Parameters
    ----------
    values
        Rows of one series after another; NaN where unknown.
    offsets
        Row at which each series starts, and the end; None for one series.

    Returns
    -------
    Values in memory of their own; NaN is left where a series has nothing known before.

    Examples
    --------
    >>> fill_forward(np.array([[np.nan], [1.0], [np.nan]])).ravel().tolist()
    [nan, 1.0, 1.0]
    """
    rows = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, rows), axis=0)  # (T, M)
    first = 0 if offsets is None else offsets[owners(offsets)][:, None]  # of the row's own series
    filled = np.take_along_axis(values, last.clip(min=0), axis=0)
    return np.where(last >= first, filled, np.nan)
