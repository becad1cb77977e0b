"""Series: the numbers of one table or of many series, with their stamps, one after another.

    rows     a0 a1 a2 | b0 | c0 c1          offsets  0 3 4 6          index   a stamp for each

A table alone is one series. Whatever is done to rows is done to all series at once, see `ragged`:
their first and last rows, rows in front and behind, new rows of series that go on.

Sizes: S series, T rows of all of them, M variates.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.errors import FrameError, FrequencyWarning, ParameterError, SavedModelError
from tsm2.tables.frequencies import other_frequencies
from tsm2.tables.layout import Layout, layout_from_json, layout_to_json
from tsm2.tables.ragged import offsets_of, owners, places, ranges
from tsm2.tables.stamps import (
    Stamp,
    stamps_after,
    stamps_before,
    stamps_from,
    steps_between,
)

__all__ = [
    "Series",
    "extend",
    "join",
    "numbers_in",
    "series_from_json",
    "series_to_json",
    "warn_of_other_frequencies",
]

Whole = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Series:
    """Tables read into numbers: rows are time steps, columns variates."""

    values: NDArray[np.float64]
    """Numbers, (T, M), C-contiguous, in memory of their own; NaN where unknown."""
    layout: Layout
    """What is needed to write a forecast in the container that came in."""
    index: pd.Index
    """The T stamps; row numbers for arrays."""
    ids: tuple[Hashable, ...] = (None,)
    """Names of the S series; their positions in a list; None for a single table."""
    offsets: Whole = field(default_factory=lambda: np.empty(0, np.int64))
    """Row at which each series starts, and the end, (S + 1,); one series of all rows by default."""

    def __post_init__(self) -> None:
        if not len(self.offsets):
            object.__setattr__(self, "offsets", np.array([0, len(self.values)]))

    @property
    def counts(self) -> Whole:
        """Rows of each series, (S,)."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Whole:
        """Number of the series that each row belongs to, (T,)."""
        return owners(self.offsets)

    def number_of(self, name: Hashable) -> int:
        """Return the number of a series; None stands for the only one.

        Raises
        ------
        ParameterError
            There are several and the name is none of theirs, or there is one without a name.
        """
        if name is None and len(self.ids) == 1:
            return 0
        if name not in self.ids:
            known = ", ".join(map(repr, self.ids[:5]))
            raise ParameterError(
                f"X has several series: series must name one of the {len(self.ids)}, such as "
                f"{known}; got {name!r}."
                if len(self.ids) > 1
                else f"X is one table: leave series out; got {name!r}."
            )
        return self.ids.index(name)

    def owners_of(self, rows: Whole) -> Whole:
        """Return the number of the series that some rows belong to, without looking at others."""
        return np.searchsorted(self.offsets, rows, side="right") - 1

    def rows_from(self, starts: Whole, n: int) -> NDArray[np.float64]:
        """Return n rows from each of some rows on, (W, n, M), given by number, (W,)."""
        view = np.lib.stride_tricks.sliding_window_view(self.values, n, axis=0)
        return view[starts].swapaxes(1, 2)

    @property
    def first_stamps(self) -> pd.Index:
        """Stamp of the first row of each series, (S,)."""
        return self.index[self.offsets[:-1]]

    @property
    def last_stamps(self) -> pd.Index:
        """Stamp of the last row of each series, (S,)."""
        return self.index[self.offsets[1:] - 1]

    def wrong_ones(self, wrong: NDArray[np.bool_], what: str) -> str:
        """Say which column has wrong values, (T, M), how many, and which the first is."""
        row, column = (int(each) for each in np.argwhere(wrong)[0])
        return (
            f"column {self.layout.columns[column]!r} has {wrong[:, column].sum()} {what}, "
            f"the first at {self.index[row]}, {self.values[row, column]:g}"
        )

    # --- some of the rows ---------------------------------------------------------------------

    def take(self, rows: Whole, counts: Whole) -> Series:
        """Return some rows of every series, given by number, `counts` of them from each, (S,)."""
        return replace(
            self, values=self.values[rows], index=self.index[rows], offsets=offsets_of(counts)
        )

    def head(self, counts: Whole) -> Series:
        """Return the first rows of every series, `counts` of them from each, (S,)."""
        return self.take(ranges(self.offsets[:-1], counts), counts)

    def tail(self, counts: Whole | int) -> Series:
        """Return the last rows of every series, `counts` of them, or as many as it has."""
        counts = np.minimum(self.counts, counts)
        return self.take(ranges(self.offsets[1:] - counts, counts), counts)

    def between(self, first: Whole, stop: Whole) -> Series:
        """Return rows of every series, from place `first` up to but without `stop`, (S,)."""
        return self.take(ranges(self.offsets[:-1] + first, stop - first), stop - first)

    def chosen(self, which: NDArray[np.bool_]) -> Series:
        """Return some of the series, (S,)."""
        rows = np.flatnonzero(which.repeat(self.counts))
        ids = tuple(name for name, is_chosen in zip(self.ids, which, strict=True) if is_chosen)
        return replace(self.take(rows, self.counts[which]), ids=ids)

    # --- rows in front and behind -------------------------------------------------------------

    def padded(self, counts: Whole) -> Series:
        """Put rows of NaN in front of every series, `counts` of them, (S,).

        They are for windows alone: their stamps repeat the first one of the series.
        """
        if not counts.any():
            return self
        lengths = self.counts + counts
        offsets = offsets_of(lengths)
        place = places(offsets) - counts.repeat(lengths)
        rows = self.offsets[:-1].repeat(lengths) + place.clip(min=0)
        values = np.where(place[:, None] < 0, np.nan, self.values[rows])
        return replace(self, values=values, index=self.index[rows], offsets=offsets)

    def stamps_behind(self, n: int) -> pd.Index:
        """Return the n stamps that follow every series, (S n,), named as the rows are.

        Raises
        ------
        FrameError
            They leave the range that pandas can represent.
        """
        behind, counts = self.counts, np.full(len(self.ids), n)
        index = _grid(self.first_stamps, counts, self.layout, behind=behind)
        return index.rename(self.layout.index_name)

    def grid(self, counts: Whole) -> Series:
        """Return rows without values from each first stamp on, `counts` of them, (S,)."""
        index = _grid(self.first_stamps, counts, self.layout, behind=0 * counts)
        offsets = offsets_of(counts)
        return replace(self, values=np.empty((len(index), 0)), index=index, offsets=offsets)

    def continued(self, values: NDArray[np.float64]) -> Series:
        """Return forecasts, (S, H, M), as the rows that follow every series."""
        n_series, horizon, n_variates = values.shape
        return replace(
            self,
            values=values.reshape(-1, n_variates),
            index=self.stamps_behind(horizon),
            offsets=np.arange(n_series + 1) * horizon,
        )

    def _followed_by(
        self, values: NDArray[np.float64], index: pd.Index, numbers: Whole, counts: Whole
    ) -> Series:
        """Put `counts` rows each behind those of the series with these numbers."""
        owner = np.concatenate((self.owners, numbers.repeat(counts)))
        order = np.argsort(owner, kind="stable")
        return replace(
            self,
            values=np.concatenate((self.values, values))[order],
            index=self.index.append(index)[order],
            offsets=offsets_of(np.bincount(owner, minlength=len(self.ids))),
        )


def _grid(first: pd.Index, counts: Whole, layout: Layout, *, behind: Whole) -> pd.Index:
    """Return `counts` stamps of every series, from `behind` rows behind its first one on."""
    frequency, clock = layout.frequency, layout.clock
    if len(first) == 1:  # what pandas knows of one regular index stays
        skipped, count = int(behind[0]), int(counts[0])
        return stamps_from(first[0], skipped + count, frequency, clock)[skipped:]
    steps = places(offsets_of(counts)) + behind.repeat(counts)
    return stamps_after(first.repeat(counts), steps, frequency, clock)


# --- series that go on ----------------------------------------------------------------------------


def numbers_in(series: Series, ids: tuple[Hashable, ...]) -> Whole:
    """Return the position in `ids` of every series, (S,); -1 for one that is not there.

    Series without names are not there.
    """
    if not series.layout.named:
        return np.full(len(series.ids), -1)
    known = {name: number for number, name in enumerate(ids)}
    return np.array([known.get(name, -1) for name in series.ids])


def join(past: Series, series: Series) -> Series:
    """Put the rows of `past` before those of each series that goes on right behind them.

    A series goes on if it has the name and the next stamp; rows without stamps have not.
    """
    if not series.layout.stamped:
        return series
    numbers = numbers_in(series, past.ids)
    known = np.flatnonzero(numbers >= 0)
    first = series.first_stamps[known]
    known = known[np.asarray(first == past.stamps_behind(1)[numbers[known]])]
    counts = np.zeros(len(series.ids), np.int64)
    counts[known] = past.counts[numbers[known]]
    rows = ranges(past.offsets[numbers[known]], counts[known])
    before = replace(
        series, values=past.values[rows], index=past.index[rows], offsets=offsets_of(counts)
    )
    every = np.arange(len(series.ids))
    return before._followed_by(series.values, series.index, every, series.counts)


def extend(past: Series, series: Series, *, over_gaps: bool = False) -> Series:
    """Put new rows behind those of the series of `past`, which all stay.

    Parameters
    ----------
    past
        What is known.
    series
        The new rows of some of its series; those without stamps are taken as the next ones.
    over_gaps
        Rows that are lacking in between are put there as unknown ones.

    Raises
    ------
    FrameError
        A series is new, or its rows do not go on where the known ones end.
    """
    numbers = numbers_in(series, past.ids)
    if (numbers < 0).any():
        name = series.ids[int(np.argmin(numbers))]
        raise FrameError(
            f"series {name!r} is new, but only series that were there in fit, by their names, can "
            f"go on. Forecast it with predict(X), or fit again with it."
        )
    expected = past.stamps_behind(1)[numbers]
    if not series.layout.stamped:
        rows = stamps_after(expected.repeat(series.counts), places(series.offsets), 1)
        series = replace(series, index=rows)
    elif over_gaps:
        series = _reaching_back(series, expected)
    first = series.first_stamps
    off = np.flatnonzero(np.asarray(first != expected))
    if len(off):
        where = "" if series.layout.alone else f" of series {series.ids[off[0]]!r}"
        last = past.last_stamps[numbers[off[0]]]
        raise FrameError(
            f"the new rows{where} start at {first[off[0]]}, but the known ones end at {last}, so "
            f"{expected[off[0]]} must come first. Pass the rows from there on."
        )
    return past._followed_by(series.values, series.index, numbers, series.counts)


def _reaching_back(series: Series, expected: pd.Index) -> Series:
    """Put unknown rows in front of series that start later than expected, (S,), on that grid."""
    grid = series.layout.frequency, series.layout.clock
    first = series.first_stamps
    late = np.asarray(first > expected)
    steps = np.zeros(len(first), np.int64)
    steps[late] = steps_between(expected[late], first[late], *grid)
    steps[np.asarray(stamps_after(expected, steps, *grid) != first)] = 0
    if not steps.any():
        return series
    whole = series.padded(steps)
    index = _grid(expected, whole.counts, series.layout, behind=np.zeros_like(steps))
    return replace(whole, index=index.rename(series.layout.index_name))


# --- saved ----------------------------------------------------------------------------------------


def series_to_json(series: Series) -> dict[str, Any]:
    """Return all of series but their numbers and offsets as plain types."""
    stamps = series.last_stamps if series.layout.alone else series.first_stamps
    return {
        "layout": layout_to_json(series.layout),
        "series": series.ids,
        "stamps": [stamp_to_json(stamp) for stamp in stamps],
    }


def series_from_json(
    saved: Mapping[str, Any], values: NDArray[np.float64], offsets: Whole
) -> Series:
    """Return the series that `series_to_json` wrote, with their numbers and offsets.

    Raises
    ------
    SavedModelError
        The parts do not fit together.
    """
    layout = layout_from_json(saved["layout"])
    ids = tuple(saved["series"])
    stamps: Any = [stamp_from_json(stamp, layout) for stamp in saved["stamps"]]
    fits = (
        len(ids) == len(stamps) == len(offsets) - 1
        and values.ndim == 2
        and (offsets[0], offsets[-1]) == (0, len(values))
        and bool((np.diff(offsets) > 0).all())
    )
    if not fits:
        raise SavedModelError("the saved series do not fit their rows. Save the model again.")
    if layout.alone:
        index = stamps_before(stamps[0], len(values), layout.frequency, layout.clock)
    else:
        first = pd.Index(stamps)
        if isinstance(first, pd.DatetimeIndex):
            first = first.as_unit(cast("Any", layout.unit))
        index = _grid(first, np.diff(offsets), layout, behind=np.zeros(len(ids), np.int64))
    return Series(
        values=values,
        layout=layout,
        index=index.rename(layout.index_name),
        ids=ids,
        offsets=offsets,
    )


def stamp_to_json(stamp: object) -> str | int:
    """Return one stamp of an index as a plain JSON type."""
    if isinstance(stamp, pd.Period):
        return int(stamp.ordinal)
    return stamp.isoformat() if isinstance(stamp, pd.Timestamp) else int(cast("int", stamp))


def stamp_from_json(saved: str | int, layout: Layout) -> Stamp:
    """Return the stamp that `stamp_to_json` wrote; `layout` is that of its table.

    Raises
    ------
    SavedModelError
        It is no stamp of such a table.
    """
    try:
        if layout.index_kind == "range":
            return int(saved)
        if layout.index_kind == "period":
            return pd.Period(ordinal=int(saved), freq=cast("str", layout.frequency))
        stamp = pd.Timestamp(saved)
        if pd.isna(stamp):
            raise ValueError("it is no point in time")
        stamp = stamp.as_unit(cast("Any", layout.unit))
        return stamp if layout.timezone is None else stamp.tz_convert(layout.timezone)
    except (TypeError, ValueError, LookupError) as error:
        raise SavedModelError(
            f"the saved stamp {saved!r} does not fit its table ({error}). Save the model again."
        ) from error


def warn_of_other_frequencies(series: Series) -> None:
    """Warn if the stamps leave another frequency as well, and no index states one."""
    taken, index = series.layout.frequency, series.index
    if not isinstance(index, pd.DatetimeIndex) or not isinstance(taken, str):
        return
    if index.freq is not None:
        return
    others = other_frequencies(index.unique().sort_values(), taken)
    if others:
        warnings.warn(
            f"rows are taken to be {taken!r} apart, but {' or '.join(map(repr, others))} would "
            f"explain them as well, and forecasts would have other stamps. Say which it is by "
            f"frequency={taken!r} or frequency={others[0]!r}.",
            FrequencyWarning,
            stacklevel=3,
        )
