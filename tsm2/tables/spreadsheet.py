"""Spreadsheets: text in CSV files that a spreadsheet would take for a formula.

Names of series and columns come from files of others: "=HYPERLINK(...)" must stay a name. Such text
is marked by the apostrophe that spreadsheets know.
"""

from typing import Any

import pandas as pd

__all__ = ["mark_formulas", "may_hold_text", "unmark_formulas"]

_FIRST = ("=", "+", "-", "@", "\t", "\r")


def mark_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table, and the names of its rows and columns, with such text marked."""
    marked = frame.rename(columns=_marked)
    marked.columns.name = frame.columns.name
    for place in range(marked.shape[1]):
        column = marked.iloc[:, place]
        if may_hold_text(column.dtype):
            marked.isetitem(place, column.map(_marked).array)
    if any(map(may_hold_text, frame.index.to_frame().dtypes)):
        marked.index = frame.index.map(
            lambda label: tuple(map(_marked, label)) if isinstance(label, tuple) else _marked(label)
        ).set_names(frame.index.names)
    return marked


def unmark_formulas(column: "pd.Series[Any]") -> "pd.Series[Any]":
    r"""Return a column of text without the marks.

    Examples
    --------
    >>> unmark_formulas(pd.Series(["'=A1", "it's", "'quoted'"])).tolist()
    ['=A1', "it's", "'quoted'"]
    """
    return column.str.replace(r"^'(?=[=+\-@\t\r])", "", regex=True)


def may_hold_text(dtype: Any) -> bool:
    """Say if a column of some type may hold text; numbers and points in time never do."""
    types = pd.api.types
    return not (types.is_numeric_dtype(dtype) or types.is_datetime64_any_dtype(dtype))


def _marked(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(_FIRST):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell  # a number that is written as text
