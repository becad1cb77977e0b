"""Holidays: which days are, by region, as covariates that are known in advance.

    "DE-BY"   a country and a part of it       "FR"   a country       "NYSE"   a stock exchange

Each region is three columns: 1 on a holiday, on the day before one, and on the day after one, and 0
else. A stamp counts by its day in its own time zone; a span of time that is longer than a day holds
a number of holidays. Names and days come from the package `holidays`, which is an extra.

Source: https://holidays.readthedocs.io.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.errors import DependencyError, ParameterError
from tsm2.tables.business import Frequency
from tsm2.tables.frequencies import offset_of

__all__ = ["check_days", "check_holidays", "holiday_columns", "is_holiday"]

_PREFIX = "holiday "
_SIDES = {"": 0, " before": 1, " after": -1}  # days on which the holiday is looked for


def check_holidays(regions: object) -> tuple[str, ...]:
    """Return the names of the calendar features of regions.

    Raises
    ------
    ParameterError
        They are no sequence of known regions, or one is there twice.
    DependencyError
        The package `holidays` is not installed.
    """
    if isinstance(regions, np.ndarray | pd.Index):
        regions = tuple(regions.tolist())
    if isinstance(regions, str) or not isinstance(regions, Sequence):
        raise ParameterError(
            f"holidays must be a sequence of regions, got {regions!r}. Pass a tuple, such as "
            f"holidays=('DE-BY', 'FR')."
        )
    if len(set(regions)) < len(regions):
        raise ParameterError(f"holidays={tuple(regions)!r} has a region twice.")
    for region in regions:
        _days_of(region, ())
    return tuple(_PREFIX + region for region in regions)


def is_holiday(name: object) -> bool:
    """Whether a calendar feature is that of a region."""
    return isinstance(name, str) and name.startswith(_PREFIX)


def check_days(frequency: Frequency, kind: str, names: Sequence[str]) -> None:
    """Refuse stamps that stand for more than a day and do not say for which days.

    Raises
    ------
    ParameterError
        They do.
    """
    if kind != "datetime" or not any(name.startswith(_PREFIX) for name in names):
        return
    offset = offset_of(frequency)
    calm = pd.offsets.Tick, pd.offsets.Day, pd.offsets.BusinessDay, pd.offsets.BusinessHour
    monday = pd.Timestamp("2024-01-01")
    is_one = offset.n == 1 and isinstance(offset, pd.offsets.BusinessDay)  # however long closed
    if isinstance(offset, calm) and (is_one or monday + offset - monday <= pd.Timedelta(days=1)):
        return
    raise ParameterError(
        f"holidays need rows that stand for a day or less, but the rows are {frequency!r} apart, "
        f"and their stamps do not say which days they stand for. Make them spans of time, as with "
        f"X.index = X.index.to_period('M'): each then counts its holidays. Or pass holidays=()."
    )


def holiday_columns(stamps: pd.DatetimeIndex | pd.PeriodIndex, name: str) -> Mapping[str, Any]:
    """Return the columns of a calendar feature, none if it is not that of a region.

    Parameters
    ----------
    stamps
        Points in time or spans of time, (T,).
    name
        As `check_holidays` returns it.

    Raises
    ------
    DependencyError
        The package `holidays` is not installed.
    """
    if not name.startswith(_PREFIX):
        return {}
    if isinstance(stamps, pd.PeriodIndex):
        first, last = stamps.start_time, stamps.end_time
    else:
        first = last = stamps.tz_localize(None)
    begin, end = (np.asarray(each, dtype="datetime64[D]") for each in (first, last))
    if not len(begin):
        return {name + side: np.zeros(0) for side in _SIDES}
    years = range(int(str(begin.min())[:4]) - 1, int(str(end.max())[:4]) + 2)
    days = _days_of(name.removeprefix(_PREFIX), years)

    def count(shift: int) -> NDArray[np.float64]:
        from_, to = (each + np.timedelta64(shift, "D") for each in (begin, end))
        return (days.searchsorted(to, side="right") - days.searchsorted(from_)).astype(float)

    return {name + side: count(shift) for side, shift in _SIDES.items()}


def _days_of(region: object, years: Sequence[int]) -> NDArray[np.datetime64]:
    """Return the holidays of a region in some years, in order."""
    try:
        import holidays  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError(
            f"holidays={region!r} needs the package holidays, which is not installed. Install it "
            f"with tsm2's extra 'holidays': pip install 'tsm2[holidays]'."
        ) from error
    countries, markets = (
        holidays.list_supported_countries(),
        holidays.list_supported_financial(),
    )
    country, _, part = region.partition("-") if isinstance(region, str) else ("", "", "")
    if isinstance(region, str) and region in markets:
        found = holidays.financial_holidays(region, years=years)
    elif country in countries and (not part or part in countries[country]):
        found = holidays.country_holidays(country, subdiv=part or None, years=years)
    else:
        known = [*countries, *markets]
        if country in countries:
            known = [f"{country}-{each}" for each in countries[country]]
        near = difflib.get_close_matches(str(region).upper(), known, 3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ParameterError(
            f"holidays does not know the region {region!r}. A region is a country such as 'DE', "
            f"a part of it such as 'DE-BY', or a stock exchange such as 'XNYS'. {hint}".rstrip()
        )
    return np.array(sorted(found), dtype="datetime64[D]")
