"""What a saved model knows of the rows of a file: where they go on, and which series they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from tsm2.errors import FrameError

if TYPE_CHECKING:
    from tsm2.forecaster import TSM2Forecaster

__all__ = ["as_known_ids", "later_rows"]


def later_rows(model: TSM2Forecaster, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows after those that a model knows, and all of series that it does not."""
    ends = model.fitted_.ends
    if model.layout_.series == "long":
        is_later = ~(frame[model.time_col] <= frame[model.id_col].map(ends))
    else:
        is_later = frame.index > ends.iloc[0]
    later: pd.DataFrame = frame[is_later]
    return later


def as_known_ids(model: TSM2Forecaster, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a long frame, or a table by series, with the names of series that a model knows.

    Files name series by text. A model that was fitted to other names, such as whole numbers, knows
    those whose text is the same.

    Raises
    ------
    FrameError
        A name is no text of such a number.
    """
    by_text = {str(series): series for series in model.series_}
    if all(isinstance(series, str) for series in model.series_):
        return frame
    is_column = model.id_col in frame.columns
    if not is_column and frame.index.name != model.id_col and not set(frame.index) & set(by_text):
        return frame  # covariates of all series
    names = frame[model.id_col] if is_column else frame.index
    new = {}
    for name in dict.fromkeys(names):
        is_plain = name.removeprefix("-").isdecimal() and str(int(name)) == name
        if name not in by_text and not is_plain:
            raise FrameError(
                f"series {name!r} is named otherwise than those of the model, which are whole "
                f"numbers such as {model.series_[0]}: it was fitted to a table, or by a version of "
                f"tsm2, that read names as numbers. Fit it again on the file."
            )
        new[name] = by_text[name] if name in by_text else int(name)
    if is_column:
        return frame.assign(**{model.id_col: frame[model.id_col].map(new)})
    return frame.set_axis(pd.Index([new[name] for name in frame.index], name=frame.index.name))
