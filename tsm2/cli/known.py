"""What a saved model knows of the rows of a file: where they go on, and how they are scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tsm2.forecaster import TSM2Forecaster

__all__ = ["later_rows", "scale_of"]


def later_rows(model: TSM2Forecaster, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows after those that a model knows, and all of series that it does not."""
    ends = model.context_index_[model.context_offsets_[1:] - 1]
    if model.layout_.series == "long":
        known = frame[model.id_col].map(dict(zip(model.series_, ends, strict=True)))
        is_later = ~(frame[model.time_col] <= known)
    else:
        is_later = frame.index > ends[0]
    later: pd.DataFrame = frame[is_later]
    return later


def scale_of(
    model: TSM2Forecaster, table: pd.DataFrame, frame: pd.DataFrame
) -> NDArray[np.float64]:
    """Return what the errors of each row of a backtest are divided by.

    A series that the model was not fitted to is measured by the rows of the file.
    """
    columns = list(model.layout_.columns)
    if model.scaling_.scale.ndim == 1:
        scale = dict(zip(columns, model.scaling_.scale, strict=True))
        return table["variate"].map(scale).to_numpy(dtype=float)
    fitted = pd.DataFrame(model.scaling_.scale, index=pd.Index(model.series_), columns=columns)
    here = frame.groupby(model.id_col)[columns].std(ddof=0).replace(0.0, 1.0)
    each = fitted.combine_first(here).stack()
    keys = pd.MultiIndex.from_arrays([table.iloc[:, 0], table["variate"].astype(object)])
    return each.reindex(keys).to_numpy(dtype=float)
