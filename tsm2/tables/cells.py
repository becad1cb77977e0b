"""Cells: the numbers of a frame or an array, and every way in which they can be unusable.

Sizes: T rows, M variates.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types
from sklearn.utils import check_array

from tsm2.errors import CellTypeError, FrameError
from tsm2.tables.gaps import Missing
from tsm2.tables.stamps import type_name

__all__ = ["LARGEST", "are_finite", "check_finite", "name_some", "read_array", "read_cells"]

LARGEST = 1e300
"""What a number may be at most: sums of a few, and forecasts beyond all, are still float64."""


def _refuse_container(X: object) -> None:
    """Refuse what `check_array` would misread or explain badly."""
    advice = None
    if hasattr(X, "collect") and hasattr(X, "lazy"):
        advice = "nothing is computed yet: pass X.collect()"
    elif hasattr(X, "to_frame"):
        advice = "it is one column: pass X.to_frame()"
    elif hasattr(X, "to_pandas"):
        advice = "pass X.to_pandas() with its time stamps as index"
    elif isinstance(X, np.ma.MaskedArray):
        advice = "a mask would be ignored: pass X.filled(...) or a DataFrame with the gaps filled"
    elif isinstance(X, np.ndarray) and X.dtype.kind in "mM":
        advice = "time stamps are no values: pass a DataFrame with them as index"
    if advice is not None:
        raise CellTypeError(
            f"X is {type_name(X)}, but a wide DataFrame or a 2-D array is needed; {advice}."
        )


def read_array(X: object) -> NDArray[np.float64]:
    """Return the numbers of an array or of what NumPy makes one of, (T, M), in memory of their own.

    Raises
    ------
    FrameError
        It is no 2-D table of numbers.
    """
    _refuse_container(X)
    try:
        values = check_array(
            X, dtype="float64", order="C", copy=True, ensure_all_finite=False, input_name="X"
        )
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        wrong_type = isinstance(error, TypeError)
        raise (CellTypeError if wrong_type else FrameError)(
            f"X is {type_name(X)} that cannot be read as a 2-D table of numbers: {error}\n"
            f"Pass a DataFrame, or an array with a row per time step and a column per variate."
        ) from error
    return cast("NDArray[np.float64]", values)


def read_cells(frame: pd.DataFrame, *, time: Hashable = None) -> NDArray[np.float64]:
    """Return the numbers of a frame, (T, M), in memory of their own; missing ones are NaN.

    Parameters
    ----------
    frame
        The table.
    time
        Name of the column that its stamps were in; None if they were no column.

    Raises
    ------
    FrameError
        A column does not hold numbers.
    """
    _check_dtypes(frame, time)
    values = np.empty(frame.shape)
    for position, label in enumerate(frame.columns):  # the one copy; no mixed table in between
        column = frame.iloc[:, position]
        try:
            values[:, position] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise FrameError(
                f"column {label!r} of dtype {column.dtype} cannot be read as numbers: {error}. "
                f"Convert it with pd.to_numeric."
            ) from error
    return values


def _check_dtypes(frame: pd.DataFrame, time: Hashable) -> None:
    dtypes = list(zip(frame.columns, frame.dtypes, strict=True))
    sparse = [label for label, dtype in dtypes if isinstance(dtype, pd.SparseDtype)]
    if sparse:
        raise FrameError(
            f"{name_some(sparse, 'column')} sparse, but dense numbers are needed. Use "
            f"X.sparse.to_dense()."
        )
    if any(types.is_complex_dtype(dtype) for _, dtype in dtypes):
        raise FrameError("Complex data not supported: split it into real and imaginary columns.")
    wrong = [
        (k, d) for k, d in dtypes if not types.is_numeric_dtype(d) and not types.is_bool_dtype(d)
    ]
    if not wrong:
        return
    times = [label for label, dtype in wrong if types.is_datetime64_any_dtype(dtype)]
    advice = "Convert with pd.to_numeric, or drop what is no series: X.select_dtypes('number')."
    if time is None and len(wrong) > 1 and times:
        time = times[0]
    if time is not None:
        advice = (
            "Is this a long table, with one row per series and time? Name its columns: id_col="
            f"..., time_col={time!r}, target_col=...; or make it wide: "
            f"X.pivot(index={time!r}, columns=..., values=...)."
        )
    elif times:
        advice = f"Make the time stamps the index: X.set_index({times[0]!r})."
    listed = ", ".join(f"{label!r} ({dtype})" for label, dtype in wrong[:5])
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    raise FrameError(f"every column must be numeric, but these are not: {listed}{more}. {advice}")


def are_finite(values: NDArray[np.float64], missing: Missing = "raise") -> NDArray[np.bool_]:
    """Return which numbers, (T, M), are finite and at most `LARGEST`, or NaN if that may be."""
    fine: NDArray[np.bool_] = np.abs(values) <= LARGEST
    return fine if missing == "raise" else fine | np.isnan(values)


def check_finite(
    values: NDArray[np.float64],
    columns: tuple[Hashable, ...],
    index: pd.Index,
    *,
    missing: Missing = "raise",
) -> None:
    """Refuse NaN, infinity and what is near it; say how many, in which columns, and where first.

    Parameters
    ----------
    values
        Numbers, (T, M).
    columns, index
        Labels of the columns and rows.
    missing
        All but "raise" lets NaN pass.
    """
    finite = are_finite(values, missing)
    if finite.all():
        return
    gaps = int((np.isnan(values) & ~finite).sum())
    infinite = int(np.isinf(values).sum())
    huge = int(values.size - finite.sum() - gaps - infinite)
    kinds = [f"{gaps} NaN"] * bool(gaps) + [f"{infinite} infinity"] * bool(infinite)
    kinds += [f"{huge} larger than {LARGEST:g}"] * bool(huge)
    places = []
    for position in np.flatnonzero(~finite.all(axis=0))[:3]:
        rows = np.flatnonzero(~finite[:, position])
        places.append(f"{columns[position]!r} ({len(rows)}, first at {index[rows[0]]})")
    affected = int((~finite.all(axis=0)).sum())
    more = f" and {affected - 3} more columns" if affected > 3 else ""
    raise FrameError(
        f"the table contains {' and '.join(kinds)} value(s), in column {', '.join(places)}{more}; "
        f"finite numbers are needed. Pass missing='mask' or missing='ffill' for NaN, fill them "
        f"(X.ffill(), X.interpolate()), or drop these columns."
        f"{' Divide columns of such sizes by a number first.' * bool(huge)}"
    )


def name_some(labels: Iterable[object], noun: str) -> str:
    """Return "column 'a' is" or "columns 'a', 'b' and 7 more are"."""
    named = [repr(label) for label in labels]
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    plural = len(named) > 1
    return f"{noun}{'s' * plural} {', '.join(named[:5])}{more} {'are' if plural else 'is'}"
