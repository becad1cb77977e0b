"""Values that stop at zero: which variates have never been below it, and are often there.

What is sold, how much it rains and what the sun yields cannot be less than nothing. A forecast that
is below zero there is wrong whatever happens, and at zero errs less; the lower end of an interval
loses no outcome by it. That a variate has no negative value does not say that it has none, a table
of summers has no frost either: that it comes to zero again and again, and never goes on, does.

Sizes: T rows, M variates.
"""

import numpy as np
from numpy.typing import NDArray

from tsm2.errors import FrameError
from tsm2.tables.series import Series

__all__ = ["check_nonnegative", "stop_at_zero"]

_FEWEST = 10  # zeros
_SHARE = 0.05  # of what is known


def stop_at_zero(rows: Series) -> NDArray[np.bool_]:
    """Return which variates stop at zero, (M,), by the values of all series together.

    None of what is known is below zero, and a twentieth of it and ten values or more are zero.
    """
    zeros = (rows.values == 0).sum(0)
    known = np.isfinite(rows.values).sum(0)
    often = (zeros >= _FEWEST) & (zeros >= _SHARE * known)
    return np.asarray(often & ~(rows.values < 0).any(0))


def check_nonnegative(rows: Series, which: NDArray[np.bool_]) -> None:
    """Check that variates, (M,), of which that was said have no value below zero.

    Raises
    ------
    FrameError
        A value is below zero; the message says where.
    """
    low = (rows.values < 0) & which
    if low.any():
        raise FrameError(
            f"nonnegative=True says that nothing is below zero, but "
            f"{rows.wrong_ones(low, 'values that are')}. Mend these rows, or pass "
            f"nonnegative='auto', which keeps the forecasts of columns above zero that come to it "
            f"and have never been below, or False."
        )
