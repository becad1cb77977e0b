"""Series of unequal lengths, one after another in one array.

    rows     a0 a1 a2 | b0 | c0 c1          offsets  0 3 4 6
    owners    0  0  0    1    2  2          places   0 1 2 0 0 1

Whatever is asked of every series is asked of these arrays at once; nothing here loops over series.

Sizes: S series, T rows of all of them.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["offsets_of", "owners", "places", "ranges"]

Whole = NDArray[np.int64]


def offsets_of(counts: Whole) -> Whole:
    """Return the row at which each series starts, and the end, (S + 1,), from lengths, (S,)."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def owners(offsets: Whole) -> Whole:
    """Return the number of the series that each row belongs to, (T,)."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def places(offsets: Whole) -> Whole:
    """Return how far behind the first row of its series each row stands, (T,)."""
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))


def ranges(starts: Whole, counts: Whole) -> Whole:
    """Return `counts` whole numbers from each of `starts` on, one range after another.

    Examples
    --------
    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    offsets = offsets_of(counts)
    return places(offsets) + np.repeat(starts, counts)
