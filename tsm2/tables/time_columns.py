"""A time column as it is written: different texts, the rows that have them, the series of each row.

It judges a reading of its texts: whether the rows are regular under it, and how it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.errors import FrameError
from tsm2.tables.business import Frequency

__all__ = ["TimeColumn"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeColumn:
    """A time column: its different texts, and which row has which."""

    name: str
    texts: list[str]
    """Different texts, in the order of their first rows, (U,)."""
    codes: NDArray[np.intp]
    """Place in `texts` of each row, (T,)."""
    groups: list[NDArray[np.intp]]
    """Rows of each series."""

    def row_of(self, place: int) -> int:
        """Return the number of the first row, from 1, with a text."""
        return int(np.argmax(self.codes == place)) + 1

    def refusal(self, why: str, way_out: str) -> FrameError:
        """Return the error that says why a column is not read."""
        return FrameError(f"column {self.name!r} {why} {way_out}")

    def step(self, stamps: Any) -> float | None:
        """Return the common step of the rows in days; None if they are not regular.

        `stamps` are of the different texts of the column, points in time or whole numbers. Series
        of fewer than three rows say nothing.
        """
        steps = {_step_of(stamps[self.codes[rows]]) for rows in self.groups if len(rows) > 2}
        return steps.pop() if len(steps) == 1 else None

    def follows(self, stamps: pd.DatetimeIndex, frequency: Frequency | None) -> bool:
        """Return whether the rows of every series, two at least, are so far apart."""
        each = [stamps[self.codes[rows]] for rows in self.groups if len(rows) > 1]
        return bool(each and frequency) and all(
            rows.equals(
                pd.date_range(
                    rows[0], periods=len(rows), freq=cast("Any", frequency), unit=rows.unit
                )
            )
            for rows in each
        )

    def span(self, stamps: pd.DatetimeIndex) -> str:
        """Show the first stamps and the last one."""
        shown = [stamps[self.codes[row]] for row in range(min(2, len(self.codes)))]
        words = [str(stamp).removesuffix(" 00:00:00") for stamp in (*shown, stamps[self.codes[-1]])]
        return f"{', '.join(words[:-1])} ... {words[-1]}"


def _step_of(stamps: Any) -> float | None:
    """Return the step of one series in days: constant, or so many months, or business days."""
    if isinstance(stamps, pd.DatetimeIndex):
        stamps = stamps if stamps.tz is None else stamps.tz_convert(None)
    values = np.asarray(stamps)
    differences = np.diff(values)
    one = differences[0]
    is_constant = bool((differences == one).all())
    if not isinstance(stamps, pd.DatetimeIndex):
        return float(abs(one)) if is_constant and one != 0 else None
    if is_constant:
        days = abs(one / np.timedelta64(1, "D"))
        return float(days) or None
    months = np.diff(stamps.year * 12 + stamps.month)
    is_end = bool(stamps.is_month_end.all())
    same_day = is_end or bool((stamps.day == stamps.day[0]).all())
    same_time = bool(((stamps - stamps.normalize()) == (stamps - stamps.normalize())[0]).all())
    if same_day and same_time and months[0] != 0 and (months == months[0]).all():
        return float(abs(months[0])) * 30.4375
    days = values.astype("M8[D]")
    is_business = bool((abs(np.busday_count(days[:-1], days[1:])) == 1).all())
    return 1.4 if is_business and same_time and np.is_busday(days).all() else None
