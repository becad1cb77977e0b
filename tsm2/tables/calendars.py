"""Calendar features: what a time stamp alone says, as covariates that are known in advance.

A feature that comes round is two columns, the sine and cosine of its phase, so that its last value
and its first are neighbours. "weekend" is one column, 1 on Saturdays and Sundays; holidays of a
region are three, see `tsm2.tables.holidays`. Stamps count in their own time zone: an hour is the
hour on the wall.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsm2.errors import ParameterError
from tsm2.tables.holidays import holiday_columns

__all__ = ["CALENDAR", "calendar_table", "check_calendar"]

CALENDAR: Mapping[str, Callable[[Any], Any]] = {
    "minute": lambda stamps: stamps.minute / 60,
    "hour": lambda stamps: (stamps.hour + stamps.minute / 60) / 24,
    "dayofweek": lambda stamps: (stamps.day_of_week + stamps.hour / 24) / 7,
    "day": lambda stamps: (stamps.day - 1) / stamps.days_in_month,
    "dayofyear": lambda stamps: (stamps.day_of_year - 1) / (365 + np.asarray(stamps.is_leap_year)),
    "month": lambda stamps: (stamps.month - 1) / 12,
    "quarter": lambda stamps: (stamps.quarter - 1) / 4,
}
"""Phases in [0, 1) of a DatetimeIndex or PeriodIndex, by the names a user gives; also "weekend"."""


def check_calendar(names: object) -> tuple[str, ...]:
    """Return the names of calendar features as a tuple.

    Raises
    ------
    ParameterError
        They are no sequence of known names, or one is there twice.
    """
    known = (*CALENDAR, "weekend")
    if isinstance(names, np.ndarray | pd.Index):
        names = tuple(names.tolist())
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ParameterError(
            f"calendar must be 'auto' or a sequence of names, got {names!r}. Known: "
            f"{', '.join(known)}. Pass a tuple, such as calendar=('hour', 'dayofweek')."
        )
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names):
        fault = f"does not know {unknown[0]!r}" if unknown else "has a name twice"
        raise ParameterError(f"calendar={tuple(names)!r} {fault}. Known: {', '.join(known)}.")
    return tuple(names)


def calendar_table(stamps: pd.Index, names: Sequence[str]) -> pd.DataFrame:
    """Return calendar features, two columns or one for each name and a row for each stamp.

    Raises
    ------
    ParameterError
        The index holds no time stamps.

    Examples
    --------
    >>> stamps = pd.date_range("2024-01-05 18:00", periods=2, freq="12h")  # a Friday
    >>> calendar_table(stamps, ["hour", "weekend"]).round(6).to_numpy().tolist()
    [[-1.0, -0.0, 0.0], [1.0, 0.0, 1.0]]
    """
    if not isinstance(stamps, pd.DatetimeIndex | pd.PeriodIndex):
        raise ParameterError(
            f"calendar features and holidays, {tuple(names)!r}, need time stamps, but the rows are "
            f"numbered. Pass a DataFrame with a DatetimeIndex or PeriodIndex, or leave them out."
        )
    columns: dict[str, Any] = {}
    for name in names:
        if of_region := holiday_columns(stamps, name):
            columns.update(of_region)
            continue
        if name == "weekend":
            columns[name] = np.asarray(stamps.day_of_week >= 5, dtype=float)
            continue
        phase = 2 * np.pi * np.asarray(CALENDAR[name](stamps), dtype=float)
        columns[f"{name} sin"], columns[f"{name} cos"] = np.sin(phase), np.cos(phase)
    return pd.DataFrame(columns, index=stamps)
