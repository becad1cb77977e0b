"""Codings: what a fit has learned about its covariates, and what it keeps of them.

    fit:      tables -> codings -> rows in standard units, the last of them kept
    predict:  tables, or what was kept -> the same codings -> rows of the histories and horizons

Sizes: S series, T rows of all of them, M variates, L lookback; Cp past, Cf future and Cs static
covariates.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tsm2.errors import ParameterError, SavedModelError
from tsm2.prepared.coding import Coding
from tsm2.prepared.windows import Covariates
from tsm2.tables.calendars import calendar_table
from tsm2.tables.covariates import (
    KINDS,
    CovariateTables,
    label_rows,
    read_covariates,
    read_static,
    rows_at,
)
from tsm2.tables.gaps import Missing
from tsm2.tables.holidays import check_days
from tsm2.tables.layout import Layout
from tsm2.tables.ragged import offsets_of, ranges
from tsm2.tables.series import Series

__all__ = ["Codings"]

_ROWS: NDArray[np.float64] = np.empty((0, 0))


def _no_rows() -> NDArray[np.float64]:
    return _ROWS


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Codings:
    """How covariates are coded, and those rows that the next forecast needs."""

    by_kind: Mapping[str, Coding] = field(default_factory=dict)
    """The coding of each kind that was given to fit, and of "calendar"."""
    calendar: tuple[str, ...] = ()
    """Names of calendar features."""
    past: NDArray[np.float64] = field(default_factory=_no_rows)
    """Coded past covariates of the stored contexts."""
    future: NDArray[np.float64] = field(default_factory=_no_rows)
    """Coded future covariates of the stored contexts and of the rows known after them."""
    future_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """How many of these each series has, (S,)."""
    static: NDArray[np.float64] = field(default_factory=_no_rows)
    """Coded static covariates: of every variate, (M, Cs), or of every series, (S, Cs)."""

    # --- learn --------------------------------------------------------------------------------

    @classmethod
    def learn(
        cls,
        tables: CovariateTables,
        calendar: tuple[str, ...],
        series: Series,
        variates: Layout,
        *,
        train: NDArray[np.bool_],
        lookback: int,
        horizon: int,
        missing: Missing,
    ) -> tuple[Self, Covariates]:
        """Learn to code covariates.

        Parameters
        ----------
        tables
            What the user gave.
        calendar
            Names of calendar features.
        series
            The values.
        variates
            Layout of a forecast, whose columns are the variates.
        train
            True for rows that means and deviations are taken from, (T,).
        lookback
            Rows of context to keep of every series.
        horizon
            Rows after it to keep if the tables have them; of a single table, all.
        missing
            What is done about gaps in past covariates.

        Returns
        -------
        The codings, and the covariates of all rows in standard units.

        Raises
        ------
        FrameError
            A table does not fit the values, or has cells that cannot be read.
        ParameterError
            A calendar feature needs time stamps.
        """
        by_kind: dict[str, Coding] = {}
        whole: dict[str, Any] = {"past": _ROWS, "future": _ROWS, "static": _ROWS}
        kept = dict(whole)
        kept_counts = np.minimum(series.counts, lookback)
        kept_first = series.offsets[1:] - kept_counts
        for kind in ("past", "future"):
            if (table := getattr(tables, kind)) is None:
                continue
            name = f"{kind}_covariates"
            raw = read_covariates(table, kind, series.layout)
            frame = _without_gaps(raw, kind, missing)
            here = frame.iloc[rows_at(frame.index, label_rows(series, frame.index), name, series)]
            by_kind[kind] = coding = Coding.of(
                here,
                name,
                train=train,
                categories_of=frame,
                may_lack=_may_lack(kind, missing),
                raw=raw,
            )
            whole[kind] = coding.code(here)
            coding.check_whole(whole[kind], here.index, may_lack=_may_lack(kind, missing))
            kept[kind] = whole[kind][ranges(kept_first, kept_counts)]
            if kind == "future":
                n_most = horizon
                if series.layout.alone:
                    n_most = int((frame.index > series.index[-1]).sum())
                later, later_counts = _rows_after(series, frame.index, n_most)
                after = coding.code(frame.iloc[later])
                coding.check_whole(after, frame.index[later])
                kept_counts, kept[kind] = _interleaved(kept[kind], kept_counts, after, later_counts)
        if calendar:
            check_days(series.layout.frequency, series.layout.index_kind, calendar)
            features = calendar_table(series.index, calendar)
            by_kind["calendar"] = Coding.of(features, "calendar", train=train)
        if tables.static is not None:
            frame = read_static(tables.static, variates, series.ids)
            by_kind["static"] = coding = Coding.of(frame, "static_covariates")
            whole["static"] = kept["static"] = coding.code(frame)
            coding.check_whole(kept["static"], frame.index)
        codings = cls(by_kind=by_kind, calendar=calendar, future_counts=kept_counts, **kept)
        return codings, codings._assemble(series, variates, **whole)

    @property
    def widths(self) -> dict[str, int]:
        """Coded columns of each kind, by the names of the network's settings."""
        width = {kind: coding.width for kind, coding in self.by_kind.items()}
        return {
            "n_past": width.get("past", 0),
            "n_future": width.get("future", 0) + width.get("calendar", 0),
            "n_static": width.get("static", 0),
        }

    def labels(self, kind: str) -> list[Hashable]:
        """Return what to call the coded columns of a kind, or of "calendar"."""
        return self.by_kind[kind].labels if kind in self.by_kind else []

    # --- use ----------------------------------------------------------------------------------

    def covariates(
        self,
        tables: CovariateTables,
        series: Series,
        n_ahead: int,
        variates: Layout,
        *,
        stored: Series | None,
        missing: Missing,
    ) -> Covariates:
        """Return the covariates of a series's rows and of those ahead of them, in standard units.

        Parameters
        ----------
        tables
            What the user gave; rows that they lack are taken from what was kept.
        series
            The values.
        n_ahead
            Rows to come behind every series.
        variates
            Layout of a forecast, whose columns are the variates.
        stored
            The stored contexts; None if what was kept does not belong to these values.
        missing
            What is done about gaps in past covariates.

        Returns
        -------
        A row for every row of the series and for those to come behind each; past covariates are 0
        in these.

        Raises
        ------
        FrameError
            Rows are missing, or a table is not like that of the fit.
        ParameterError
            A table is of a kind that fit was not given.
        """
        unknown = [kind for kind in tables.given() if kind not in self.by_kind]
        if unknown:
            raise ParameterError(
                f"{unknown[0]}_covariates were not given to fit, so the model cannot read them. "
                f"Leave them out, or fit again with them."
            )
        if not self.by_kind:
            return Covariates()
        both = series.grid(series.counts + n_ahead)
        past = self._rows("past", tables.past, series, stored, missing)
        if len(past):
            spread = np.zeros((len(both.index), past.shape[1]))
            spread[ranges(both.offsets[:-1], series.counts)] = past
            past = spread
        return self._assemble(
            both,
            variates,
            past=past,
            future=self._rows("future", tables.future, both, stored, missing),
            static=self._static_rows(tables.static, variates, series, stored),
        )

    def continued(
        self,
        tables: CovariateTables,
        series: Series,
        *,
        lookback: int,
        horizon: int,
        stored: Series,
        missing: Missing,
    ) -> Self:
        """Return the codings with the rows kept that the next forecast needs.

        Parameters
        ----------
        tables
            What the user gave of past and future covariates.
        series
            The values, new ones behind the stored ones.
        lookback, horizon
            As in `learn`.
        stored
            The contexts that were stored until now.
        missing
            What is done about gaps in past covariates.

        Raises
        ------
        FrameError
            Rows are missing, or a table is not like that of the fit.
        """
        tail = series.tail(lookback)
        kept: dict[str, Any] = {"past": self._rows("past", tables.past, tail, stored, missing)}
        if "future" in self.by_kind:
            most = max(horizon, int(self.future_counts.max()))
            both = tail.grid(tail.counts + most)
            last = tail.index[-1]
            labels, coded = self._known("future", tables.future, both, stored, missing, last=last)
            at = rows_at(labels, label_rows(tail), self.by_kind["future"].name, series)
            later, counts = _rows_after(series, labels, most)
            kept["future_counts"], kept["future"] = _interleaved(
                coded[at], tail.counts, coded[later], counts
            )
        return replace(self, **kept)

    def _rows(
        self,
        kind: Literal["past", "future"],
        table: object,
        needed: Series,
        stored: Series | None,
        missing: Missing,
    ) -> NDArray[np.float64]:
        """Return the coded rows of some stamps."""
        if kind not in self.by_kind:
            return _ROWS
        coding, wanted = self.by_kind[kind], label_rows(needed)
        last = needed.index[-1]
        labels, coded = self._known(kind, table, needed, stored, missing, last=last)
        rows: NDArray[np.float64] = coded[rows_at(labels, wanted, coding.name, needed)]
        coding.check_whole(rows, wanted, may_lack=_may_lack(kind, missing))
        return rows

    def _known(
        self,
        kind: Literal["past", "future"],
        table: object,
        wanted: Series,
        stored: Series | None,
        missing: Missing,
        *,
        last: object,
    ) -> tuple[pd.Index, NDArray[np.float64]]:
        """Return the wanted rows that a table has, coded, and those that were kept, by label."""
        coding, coded = self.by_kind[kind], getattr(self, kind)
        everything = label_rows(wanted)
        labels = everything[:0]
        if stored is None:
            coded = coded[:0]
        else:
            counts = stored.counts if kind == "past" else self.future_counts
            labels = label_rows(stored.grid(counts))
        if table is None:
            return labels, coded
        frame = _read_rows(table, kind, wanted.layout, missing, last=last)
        at = frame.index.get_indexer(label_rows(wanted, frame.index))
        there = np.flatnonzero(at >= 0)
        new, older = everything[there], ~labels.isin(everything[there])
        rows = np.concatenate((coding.code(frame.iloc[at[there]]), coded[older]))
        return new.append(labels[older]), rows

    def _static_rows(
        self, table: object, variates: Layout, series: Series, stored: Series | None
    ) -> NDArray[np.float64]:
        if "static" not in self.by_kind:
            return _ROWS
        coding = self.by_kind["static"]
        if table is not None:
            frame = read_static(table, variates, series.ids)
            rows = coding.code(frame)
            coding.check_whole(rows, frame.index)
            return rows
        if variates.alone:
            return self.static
        known = pd.Index(() if stored is None else stored.ids, tupleize_cols=False)
        at = rows_at(known, pd.Index(series.ids, tupleize_cols=False), coding.name, series)
        return self.static[at]

    def _assemble(
        self,
        series: Series,
        variates: Layout,
        *,
        past: NDArray[np.float64],
        future: NDArray[np.float64],
        static: NDArray[np.float64],
    ) -> Covariates:
        """Return coded rows as the network reads them, with calendar features beside them."""
        ahead = [future] if "future" in self.by_kind else []
        if self.calendar:
            features = calendar_table(series.index, self.calendar)
            ahead.append(self.by_kind["calendar"].code(features))
        widths, known = self.widths, ~np.isnan(past)
        if widths["n_static"]:  # (S, M, Cs)
            n_variates = len(variates.columns)
            static = static[None] if variates.alone else static[:, None]
            static = np.broadcast_to(static, (len(series.ids), n_variates, static.shape[-1]))
        return Covariates(
            past=_tensor(np.nan_to_num(past)) if widths["n_past"] else None,
            past_mask=None if known.all() else torch.from_numpy(known),
            future=_tensor(np.concatenate(ahead, axis=1)) if widths["n_future"] else None,
            static=_tensor(static) if widths["n_static"] else None,
        )

    # --- keep ---------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return all but the rows as plain types."""
        codings = {kind: coding.to_json() for kind, coding in self.by_kind.items()}
        return {"codings": codings, "calendar": self.calendar}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the rows, by the names of their fields."""
        names = [kind for kind in KINDS if kind in self.by_kind]
        return {name: getattr(self, name) for name in (*names, "future_counts")}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `to_json` and `arrays` gave.

        Raises
        ------
        SavedModelError
            It is damaged.
        """
        try:
            by_kind = {k: Coding.from_json(coding) for k, coding in saved["codings"].items()}
            return cls(by_kind=by_kind, calendar=tuple(saved["calendar"]), **arrays)
        except (KeyError, TypeError, AttributeError) as error:
            raise SavedModelError(
                f"the saved covariates {saved!r} are damaged. Save the model again."
            ) from error


def _may_lack(kind: str, missing: Missing) -> bool:
    return kind == "past" and missing == "mask"


def _read_rows(
    table: object, kind: str, layout: Layout, missing: Missing, *, last: object = None
) -> pd.DataFrame:
    return _without_gaps(read_covariates(table, kind, layout, last=last), kind, missing)


def _without_gaps(frame: pd.DataFrame, kind: str, missing: Missing) -> pd.DataFrame:
    if kind == "future" or missing != "ffill":
        return frame
    return frame.ffill() if frame.index.nlevels == 1 else frame.groupby(level=0).ffill()


def _rows_after(
    series: Series, labels: pd.Index, n_most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which labels follow the values of every series without a hole.

    They are at most `n_most` of each; with them comes how many of each, (S,).
    """
    ends = series.take(series.offsets[1:] - 1, np.ones(len(series.ids), np.int64))
    behind = ends.grid(ends.counts + n_most)
    at = labels.get_indexer(label_rows(behind, labels)).reshape(len(series.ids), -1)[:, 1:]
    there = np.logical_and.accumulate(at >= 0, axis=1)
    return at[there], there.sum(axis=1)


def _interleaved(
    first: NDArray[np.float64],
    first_counts: NDArray[np.int64],
    second: NDArray[np.float64],
    second_counts: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Put the second rows of every series behind its first ones."""
    counts = first_counts + second_counts
    starts = offsets_of(counts)[:-1]
    rows = np.empty((int(counts.sum()), first.shape[1]))
    rows[ranges(starts, first_counts)] = first
    rows[ranges(starts + first_counts, second_counts)] = second
    return counts, rows


def _tensor(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
