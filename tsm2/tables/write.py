"""Write: series go out in the container that their layout describes.

    wide frame     one column for a variate; quantiles in (variate, 0.1), (variate, 0.9), ...
    long frame     columns of series, time, values; quantiles in "y-lo-80", "y-hi-80", ...
    time column    its place among the columns of a wide table; quantiles as of a long frame
    array          (T, M); quantiles on a third axis

What has several values for a variate and row is a set of quantiles or of sampled paths; the paths'
columns are numbered, (variate, 0) or "y-0" and on.

Sizes: T rows, M variates, K columns of a variate.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.tables.containers import Form, give_back
from tsm2.tables.layout import Layout
from tsm2.tables.quantiles import bound_name
from tsm2.tables.series import Series

__all__ = ["Container", "empty_table", "write", "write_many"]

Container: TypeAlias = Any
"""What a forecast comes out in, that of the history: a table of any library, or several."""


def write(series: Series) -> Container:
    """Put rows into the container that its layout describes.

    Returns
    -------
    A long frame has the columns of `LongColumns` in that order; all else is as it came in.
    """
    return _given_back(_written(series), series.layout)


def _given_back(written: Any, layout: Layout, *, per_variate: int = 1) -> Any:
    """Make frames and arrays what the tables of a layout were."""
    if layout.form == Form():
        return written
    return _each(written, lambda table: give_back(table, layout.form, per_variate=per_variate))


def _written(series: Series) -> Any:
    """Put rows into frames with their stamps as index, a long frame, or arrays."""
    layout = series.layout
    if layout.series in ("list", "dict"):
        pieces = [
            _table(series.values[a:b], series.index[a:b], layout)
            for a, b in zip(series.offsets, series.offsets[1:], strict=False)
        ]
        return pieces if layout.series == "list" else dict(zip(series.ids, pieces, strict=True))
    if layout.series == "one":
        return _table(series.values, series.index, layout)
    names = pd.Index(
        series.ids,
        dtype=layout.id_dtype,
        name=layout.id_name,
        tupleize_cols=False,
    ).repeat(series.counts)
    if layout.series == "levels":
        index = pd.MultiIndex.from_arrays([names, series.index])
        return _table(series.values, index, layout)
    columns: dict[int, Any] = {0: names, 1: series.index}
    columns |= {place + 2: column for place, column in enumerate(series.values.T)}
    frame = pd.DataFrame(columns)
    frame.columns = pd.Index(
        [layout.id_name, layout.index_name, *layout.columns],
        dtype=layout.columns_dtype,
        name=layout.columns_name,
    )
    return frame


def _table(
    values: NDArray[np.float64], index: pd.Index, layout: Layout
) -> pd.DataFrame | NDArray[np.float64]:
    """Return rows, (T, M), as a frame with these stamps, or as an array."""
    own = np.array(values, dtype=np.float64, order="C")
    if layout.kind == "array" and layout.form.library == "pandas":
        return own
    columns = pd.Index(
        layout.columns,
        dtype=layout.columns_dtype,
        name=layout.columns_name,
        tupleize_cols=False,  # a label may be a tuple
    )
    return pd.DataFrame(own, index=index, columns=columns, copy=False)


def empty_table(layout: Layout) -> pd.DataFrame | NDArray[np.float64]:
    """Return a table of these columns that says nothing else: no row, or one of an array."""
    if layout.kind == "array":
        return np.empty((1, len(layout.columns)))
    return pd.DataFrame(columns=pd.Index(layout.columns, tupleize_cols=False))


def write_many(
    rows: Series,
    values: NDArray[np.float64],
    labels: Sequence[float | int],
    *,
    of: Literal["quantile", "sample"],
) -> Any:
    """Put several columns for every variate into the container that a table came in.

    Parameters
    ----------
    rows
        The histories that the values follow.
    values
        Of every series, (S, H, M, K).
    labels
        Levels of quantiles, or numbers of sampled paths, (K,).
    of
        Which of both; it names the columns' second level.
    """
    layout = rows.layout
    *outer, n_variates, n_labels = values.shape
    rows = rows.continued(values.reshape(*outer, n_variates * n_labels))
    if layout.series == "long" or layout.form.stamps != "index":
        names = [bound_name(level) if of == "quantile" else level for level in labels]
        columns = tuple(f"{variate}-{name}" for variate in layout.columns for name in names)
        dtype = layout.columns_dtype if layout.columns_dtype in ("str", "string") else "object"
        named = replace(layout, columns=columns, columns_dtype=dtype)
        return _given_back(_written(replace(rows, layout=named)), layout, per_variate=n_labels)
    numbered = tuple(range(rows.values.shape[1]))
    plain = replace(layout, columns=numbered, columns_dtype="int64", columns_name=None)
    written = _written(replace(rows, layout=plain))
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
