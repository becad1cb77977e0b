"""What the texts of options mean: levels, counts, settings, labels of rows."""

import csv
import datetime
import difflib
import json
import re

import pandas as pd

from tsm2.cli.options import Reading
from tsm2.errors import ParameterError
from tsm2.tables.dates import DateOptions, read_stamps
from tsm2.tables.quantiles import check_levels, interval_levels

__all__ = [
    "chosen_levels",
    "parse_counts",
    "parse_label",
    "parse_levels",
    "parse_setting",
    "split_calls",
    "split_names",
]


def parse_label(text: str, index: pd.Index, reading: Reading) -> object:
    """Read a label of an index: a whole number, or a stamp in ISO's form or in that of the file.

    Raises
    ------
    ParameterError
        It is none.
    """
    try:
        if not isinstance(index, pd.DatetimeIndex):
            return int(text)
        stamp = pd.Timestamp(datetime.datetime.fromisoformat(text))
    except ValueError as error:
        if not isinstance(index, pd.DatetimeIndex):
            raise ParameterError(
                f"--start {text!r} is no whole number, as the rows have."
            ) from error
        options = DateOptions(date_format=reading["date_format"], day_first=reading["day_first"])
        stamp = read_stamps([text], options, name="--start")[0][0]
    is_bare = stamp.tz is None and index.tz is not None
    return stamp.tz_localize(index.tz) if is_bare else stamp


def parse_setting(model: object, text: str) -> tuple[str, object]:
    """Read NAME=VALUE; the value is a JSON literal or else a word."""
    name, equals, value = (part.strip() for part in text.partition("="))
    known = model.get_params()  # type: ignore[attr-defined]
    if not equals or name not in known:
        near = difflib.get_close_matches(name, known, 3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "See TSM2Forecaster's parameters."
        raise ParameterError(f"--set needs NAME=VALUE with a known name, got {text!r}. {hint}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def chosen_levels(coverage: float | None, quantiles: str | None) -> tuple[float, ...] | None:
    """Return the levels that two options ask for; None if neither is given."""
    if coverage is not None and quantiles is not None:
        raise ParameterError("give --coverage or --quantiles, not both.")
    if coverage is not None:
        return interval_levels(coverage)
    return None if quantiles is None else parse_levels(quantiles)


def parse_levels(text: str) -> tuple[float, ...]:
    """Read levels between commas."""
    try:
        levels = [float(word) for word in text.split(",")]
    except ValueError as error:
        raise ParameterError(
            f"--quantiles needs levels between commas, such as 0.1,0.9; got {text!r}."
        ) from error
    return check_levels(levels)


def parse_counts(option: str, text: str) -> list[int]:
    """Read whole numbers between commas."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise ParameterError(
            f"{option} needs whole numbers between commas, got {text!r}."
        ) from error


def split_names(text: str) -> list[str]:
    """Split at commas and trim; a name that holds a comma stands in double quotes.

    Examples
    --------
    >>> split_names('load, "sun, east",price')
    ['load', 'sun, east', 'price']
    """
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True))]


def split_calls(text: str) -> list[str]:
    """Split at the commas that stand in no brackets."""
    return [call.strip() for call in re.split(r",(?![^(]*\))", text)]
