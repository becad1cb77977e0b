"""What the texts of options mean: levels, counts, settings, labels of rows."""

import json
import re

import pandas as pd

from tsm2.errors import ParameterError
from tsm2.tables.quantiles import check_levels, interval_levels

__all__ = [
    "chosen_levels",
    "parse_counts",
    "parse_label",
    "parse_levels",
    "parse_setting",
    "split_calls",
]


def parse_label(text: str, index: pd.Index) -> object:
    """Read a label of an index: a stamp, or a whole number."""
    try:
        return pd.Timestamp(text) if isinstance(index, pd.DatetimeIndex) else int(text)
    except ValueError as error:
        raise ParameterError(f"start={text!r} is not a row of the data: {error}") from error


def parse_setting(model: object, text: str) -> tuple[str, object]:
    """Read NAME=VALUE; the value is a JSON literal or else a word."""
    name, equals, value = text.partition("=")
    known = model.get_params()  # type: ignore[attr-defined]
    if not equals or name not in known:
        raise ParameterError(
            f"--set needs NAME=VALUE with one of these names: {', '.join(known)}; got {text!r}."
        )
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


def split_calls(text: str) -> list[str]:
    """Split at the commas that stand in no brackets."""
    return re.split(r",(?![^(]*\))", text)
