"""Tables with several columns for a variate: one for each quantile, or for each sampled path.

    wide frame     columns (variate, 0.1), (variate, 0.9), ...; sampled paths (variate, 0), ...
    long frame     columns "y-lo-80", "y-hi-80", ...; sampled paths "y-0", ...
    array          a third axis

Sizes: H rows, M variates, K columns of a variate.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.tables.frames import Panel
from tsm2.tables.panels import write_panel
from tsm2.tables.quantiles import bound_name

__all__ = ["write_many"]


def write_many(
    rows: Panel,
    values: NDArray[np.float64],
    labels: Sequence[float | int],
    *,
    of: Literal["quantile", "sample"],
) -> Any:
    """Put several columns for every variate into the container that a table came in.

    Parameters
    ----------
    rows
        Layout and stamps; its values, (H, M), are left aside.
    values
        (H, M, K).
    labels
        Levels of quantiles, or numbers of sampled paths, (K,).
    of
        Which of both; it names the columns' second level.
    """
    layout = rows.layout
    n_rows, n_variates, n_labels = values.shape
    flat = values.reshape(n_rows, n_variates * n_labels)
    if layout.series == "long":
        names = [bound_name(level) if of == "quantile" else level for level in labels]
        columns = tuple(f"{variate}-{name}" for variate in layout.columns for name in names)
        return write_panel(replace(rows, values=flat, layout=replace(layout, columns=columns)))
    numbered = tuple(range(flat.shape[1]))
    plain = replace(layout, columns=numbered, columns_dtype="int64", columns_name=None)
    written = write_panel(replace(rows, values=flat, layout=plain))
    if layout.kind == "array":
        return _each(written, lambda table: table.reshape(-1, n_variates, n_labels))
    variates = pd.Index(layout.columns, dtype=layout.columns_dtype, tupleize_cols=False)
    pairs = pd.MultiIndex.from_arrays(
        [variates.repeat(n_labels), np.tile(np.asarray(labels), n_variates)],
        names=[layout.columns_name, of],
    )
    return _each(written, lambda table: table.set_axis(pairs, axis="columns"))


def _each(written: Any, change: Callable[[Any], Any]) -> Any:
    """Change one table, or every one of a list or dict."""
    if isinstance(written, list):
        return [change(table) for table in written]
    if isinstance(written, dict):
        return {key: change(table) for key, table in written.items()}
    return change(written)
