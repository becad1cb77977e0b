"""Levels of quantiles: which ones are meant, and what their columns are called.

A level is the share of outcomes that should fall below a quantile, in (0, 1). An interval of
coverage c lies between the levels (1 - c) / 2 and (1 + c) / 2.
"""

import re
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from tsm2.errors import ParameterError

__all__ = ["bound_level", "bound_name", "check_levels", "interval_levels", "with_median"]

_DIGITS = 10  # levels that agree to so many digits are the same


def check_levels(levels: object) -> tuple[float, ...]:
    """Return levels as a tuple of floats.

    Raises
    ------
    ParameterError
        They are no numbers in (0, 1), do not rise, or there are none.
    """
    if isinstance(levels, str) or not isinstance(levels, Iterable):
        raise ParameterError(
            f"quantiles must be several levels, such as (0.1, 0.9), got {levels!r}."
        )
    given = tuple(levels)
    for level in given:
        if not isinstance(level, float | np.floating) or not 0 < level < 1:
            raise ParameterError(
                f"quantiles must be levels between 0 and 1, got {level!r} in {given}. Half of what "
                f"happens falls below level 0.5."
            )
    if not given or any(a >= b for a, b in pairwise(given)):
        raise ParameterError(
            f"quantiles must be levels that rise, each once, got {given}. Sort them and drop what "
            f"is there twice."
        )
    return tuple(round(float(level), _DIGITS) for level in given)


def with_median(levels: tuple[float, ...]) -> tuple[float, ...]:
    """Return the levels with 0.5 among them, as the head of a network needs."""
    return tuple(sorted({*levels, 0.5}))


def interval_levels(coverage: object) -> tuple[float, float]:
    """Return the two levels between which a share `coverage` of all outcomes should fall.

    Raises
    ------
    ParameterError
        The coverage is no number in (0, 1).

    Examples
    --------
    >>> interval_levels(0.8)
    (0.1, 0.9)
    """
    if not isinstance(coverage, float | np.floating) or not 0 < coverage < 1:
        raise ParameterError(
            f"coverage must be a number between 0 and 1, such as 0.8 for 80 %, got {coverage!r}."
        )
    half = float(coverage) / 2
    return round(0.5 - half, _DIGITS), round(0.5 + half, _DIGITS)


def bound_name(level: float) -> str:
    """Return the name of a level in a long table: a bound of the interval that it belongs to.

    Examples
    --------
    >>> bound_name(0.1), bound_name(0.5), bound_name(0.975)
    ('lo-80', 'median', 'hi-95')
    """
    if level == 0.5:
        return "median"
    coverage = 100 * abs(2 * level - 1)
    return f"{'lo' if level < 0.5 else 'hi'}-{coverage:.6g}"


def bound_level(name: object) -> float | None:
    """Return the level of a column that `bound_name` named; None for any other column.

    Examples
    --------
    >>> bound_level("lo-80"), bound_level("median"), bound_level("forecast")
    (0.1, 0.5, None)
    """
    if name == "median":
        return 0.5
    found = re.fullmatch(r"(lo|hi)-(\d+(?:\.\d+)?)", str(name))
    if found is None:
        return None
    half = float(found[2]) / 200
    return round(0.5 - half if found[1] == "lo" else 0.5 + half, _DIGITS)
