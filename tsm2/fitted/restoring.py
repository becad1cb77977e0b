"""What a saved model must hold, found out when it is read and not when it first forecasts.

A checksum tells what was damaged by chance. This is for what was written on purpose or by another
program: sizes are compared before anything of that size is made.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from tsm2.errors import SavedModelError
from tsm2.tables.calendars import check_calendar
from tsm2.tables.holidays import is_holiday
from tsm2.tables.layout import Layout

__all__ = ["check_count_of_blocks", "check_labels", "check_numbers", "check_scores"]


def check_count_of_blocks(blocks: int, members: int, tensors: Mapping[str, Tensor]) -> None:
    """Check that as many blocks can have been saved, before that many are made.

    Raises
    ------
    SavedModelError
        There are fewer tensors than blocks.
    """
    needed = members * max(1, blocks)
    if needed > len(tensors):
        raise SavedModelError(
            f"blocks={blocks} and n_estimators={members} need at least {needed} tensors, but only "
            f"{len(tensors)} were saved. Save the model again."
        )


def check_numbers(arrays: Mapping[str, NDArray[np.generic]], n_columns: int) -> None:
    """Check the dtypes and shapes of the units and the stored context.

    Parameters
    ----------
    arrays
        "center" and "scale", "context" and "context_offsets".
    n_columns
        Columns M of the table.

    Raises
    ------
    SavedModelError
        One of them does not fit; the message says which.
    """
    dtypes = {"context_offsets": np.dtype(np.int64)}
    n_series = arrays["context_offsets"].size - 1
    units: set[tuple[int, ...]] = {(n_columns,), (n_series, n_columns)}
    shapes: dict[str, set[tuple[int, ...]]] = {
        "center": units,
        "scale": units & {arrays["center"].shape},
        "context": {(len(arrays["context"]) if arrays["context"].ndim else 0, n_columns)},
        "context_offsets": {(n_series + 1,)},
    }
    for name, array in arrays.items():
        dtype = dtypes.get(name, np.dtype(np.float64))
        if array.dtype != dtype or array.shape not in shapes[name]:
            needed = " or ".join(map(str, sorted(shapes[name]))) or "that of center"
            raise SavedModelError(
                f"the saved {name} is {array.dtype} of shape {array.shape}, but {dtype} of shape "
                f"{needed} is needed. Save the model again."
            )


def check_labels(layout: Layout, calendar: Sequence[str]) -> None:
    """Check what is only read when a forecast is written: dtypes of labels, and a calendar's names.

    Raises
    ------
    TypeError
        There is no such dtype.
    ParameterError
        There is no such feature of a calendar.
    """
    check_calendar([name for name in calendar if not is_holiday(name)])
    for name in (layout.columns_dtype, layout.id_dtype):
        pd.api.types.pandas_dtype(name)


def check_scores(scores: Tensor | None, n_targets: int, horizon: int) -> None:
    """Check the scores of a calibration, (W, Mt, H).

    Raises
    ------
    SavedModelError
        They do not fit the model.
    """
    if scores is None:
        return
    fits = scores.ndim == 3 and scores.shape[1:] == (n_targets, horizon) and len(scores)
    if not scores.is_floating_point() or not fits:
        raise SavedModelError(
            f"the saved calibration is {scores.dtype} of shape {tuple(scores.shape)}, but floats "
            f"of shape (windows, {n_targets}, {horizon}) are needed. Save the model again."
        )
