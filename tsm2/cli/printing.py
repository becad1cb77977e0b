"""What is shown: results on standard output, messages on standard error."""

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["print_json", "print_line", "print_rows", "print_table", "say"]

_out = Console(soft_wrap=True)
if not _out.is_terminal and "COLUMNS" not in os.environ:
    _out.width = 1000  # columns: only a screen has an edge, and a file gets every word
_messages = Console(stderr=True, soft_wrap=True)


def print_line(text: str) -> None:
    """Print one line of a result."""
    _out.print(text, highlight=False, markup=False)


def say(text: str) -> None:
    """Print a message to standard error."""
    _messages.print(text, highlight=False, markup=False)


def print_json(record: Mapping[Any, object]) -> None:
    """Print a record as a JSON object on one line; what is missing or no number is null."""
    plain = {str(name): _plain(value) for name, value in record.items()}
    sys.stdout.write(json.dumps(plain, ensure_ascii=False) + "\n")


def _plain(value: Any) -> object:
    value = value.item() if hasattr(value, "item") else value  # of numpy
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool | int | None) else str(value)


def print_table(
    table: "pd.DataFrame",
    first: str,
    title: str,
    *,
    decimals: int = 4,
    min_width: int = 0,
    as_json: bool = False,
) -> None:
    """Print a table of numbers; `first` is the heading of the names of its rows."""
    if as_json:
        for name, row in table.iterrows():
            print_json({first: name, **row})
        return
    rows = (
        (name, *("" if x != x else f"{x:.{decimals}f}" for x in row))  # NaN: it means nothing here
        for name, row in table.iterrows()
    )
    print_rows((first, *table.columns), rows, title=title, words=1, min_width=min_width)


def print_rows(
    columns: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    words: int | None = None,
    min_width: int = 0,
    as_json: bool = False,
) -> None:
    """Print rows under the names of their columns.

    Parameters
    ----------
    columns
        Names; none for a table without heading.
    rows
        Cells, as many as columns.
    title
        Printed above; without one the table has no border.
    words
        So many first columns hold words and start at the left, the others numbers; None for all.
    min_width
        Least width of the table.
    as_json
        Print an object per row instead.
    """
    if as_json:
        for row in rows:
            print_json(dict(zip(columns, row, strict=True)))
        return
    table = Table(
        title=title,
        show_header=bool(columns),
        box=box.HEAVY_HEAD if title else None,
        min_width=min_width or None,
    )
    for place, column in enumerate(columns):
        table.add_column(str(column), justify="left" if words is None or place < words else "right")
    for row in rows:
        table.add_row(*map(str, row))
    _out.print(table, markup=False)
