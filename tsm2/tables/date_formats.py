"""Formats of dates: the ones, in the terms of `strftime`, that a written stamp can have."""

from __future__ import annotations

import itertools
import re
from typing import Literal

__all__ = ["CLOCK", "Order", "formats_of"]

CLOCK = re.compile(
    r"(?P<gap>T| |, ?)(?P<hour>\d{1,2}):\d{2}(?P<second>:\d{2})?(?P<part>\.\d+)?"
    r"(?P<half> ?[AaPp]\.?[Mm]\.?)?(?P<offset> ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2}))?$"
)
"""A time of day behind a date, in its parts."""
Order = Literal["day", "month", "year"]
"""What stands first in a date of three numbers."""


def formats_of(text: str) -> list[tuple[str, Order | None]]:
    """Return the formats that a stamp can have, with what stands first in a date of three numbers.

    Examples
    --------
    >>> formats_of("1/2/2024 00:00")
    [('%d/%m/%Y %H:%M', 'day'), ('%m/%d/%Y %H:%M', 'month')]
    """
    clock = CLOCK.search(text)
    date, tail = (text, "") if clock is None else (text[: clock.start()], _clock_format(clock))
    three = re.fullmatch(r"(\d{1,4})([-/. ])(\d{1,2})\2(\d{1,4})(\.?)", date)
    found: list[tuple[str, Order | None]] = []
    if three:
        first, sign, _, last, end = three.groups()
        if len(first) == 4 and len(last) < 3:
            found = [(f"%Y{sign}%m{sign}%d{end}", None)]
        elif len(last) == 4 and len(first) < 3:
            found = [(f"%d{sign}%m{sign}%Y{end}", "day"), (f"%m{sign}%d{sign}%Y{end}", "month")]
        elif len(first) < 3 and len(last) == 2:
            found = [(f"%d{sign}%m{sign}%y{end}", "day"), (f"%m{sign}%d{sign}%y{end}", "month")]
            if len(first) == 2:
                found.append((f"%y{sign}%m{sign}%d{end}", "year"))
    elif re.fullmatch(r"\d{8}", date):
        found = [("%Y%m%d", None)]
    elif two := re.fullmatch(r"(\d{1,4})([-/.]|M)(\d{1,4})", date):
        first, sign, last = two.groups()
        if len(first) == 4 and len(last) <= 2:
            found = [(f"%Y{sign}%m", None)]
        elif len(last) == 4 and len(first) <= 2 and sign != "M":
            found = [(f"%m{sign}%Y", None)]
    elif re.search(r"[A-Za-z]", date):
        found = [(form, None) for form in _named_formats(date)]
    return [(form + tail, order) for form, order in found]


def _named_formats(date: str) -> list[str]:
    """Return the formats of a date whose month is an English word, such as "1 Jan 2024"."""
    words, numbers = re.findall(r"[A-Za-z]+", date), re.findall(r"\d+", date)
    if len(words) not in (1, 2) or len(numbers) not in (1, 2):
        return []
    found = []
    for month, weekday in itertools.product(("%b", "%B"), ("%a", "%A")):
        letters = [month] if len(words) == 1 else [weekday, month]
        for order in itertools.permutations(("%d", "%Y", "%y"), len(numbers)):
            has_year = ("%Y" in order) != ("%y" in order)
            if has_year and (len(order) == 1 or order[0] != "%y"):  # 13 May 24, in English
                digits, names = iter(order), iter(letters)
                form = re.sub(
                    r"\d+|[A-Za-z]+",
                    lambda match, d=digits, n=names: next(d if match[0].isdigit() else n),  # type: ignore[misc]
                    date,
                )
                found.append(form)
    return found


def _clock_format(clock: re.Match[str]) -> str:
    is_half = clock["half"] is not None
    form = clock["gap"] + ("%I" if is_half else "%H") + ":%M"
    form += ":%S" if clock["second"] else ""
    form += ".%f" if clock["part"] else ""
    form += (" %p" if clock["half"].startswith(" ") else "%p") if is_half else ""
    if clock["offset"]:
        form += " %z" if clock["offset"].startswith(" ") else "%z"
    return form
