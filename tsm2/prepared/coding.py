"""Coding: how the columns of one table of covariates become numbers in standard units.

A column of numbers is coded as its distance from its mean over the training rows, in deviations; a
column of anything else as one column of zeros and ones for each of its categories. What does not
change over the training rows teaches nothing: it is left out, with a warning.

Sizes: T rows, C coded columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from tsm2.errors import CovariateWarning, FrameError, SavedModelError
from tsm2.prepared.scaling import MOST_DEVIATIONS, tamed
from tsm2.tables.cells import LARGEST
from tsm2.tables.layout import plain_label
from tsm2.tables.stamps import type_name

__all__ = ["Coding"]

_MOST_CATEGORIES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class _Column:
    """How one column is coded."""

    label: Hashable
    """Its label."""
    center: float = 0.0
    """Mean over the training rows, of a column of numbers."""
    scale: float = 1.0
    """Deviation over the training rows, of a column of numbers."""
    categories: tuple[Hashable, ...] | None = None
    """What a column of categories holds; None for a column of numbers."""

    @property
    def width(self) -> int:
        """Coded columns."""
        return 1 if self.categories is None else len(self.categories)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coding:
    """How the columns of a table become numbers in standard units."""

    name: str
    """The table's name in messages."""
    columns: tuple[_Column, ...]
    """Its columns, those that do not change left out."""
    left_out: tuple[Hashable, ...] = ()
    """Labels of columns that did not change over the training rows."""

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        name: str,
        *,
        train: NDArray[np.bool_] | None = None,
        categories_of: pd.DataFrame | None = None,
        may_lack: bool = False,
        raw: pd.DataFrame | None = None,
    ) -> Self:
        """Learn how to code a table.

        Parameters
        ----------
        frame
            The table.
        name
            Its name in messages.
        train
            True for rows that means and deviations are taken from; None for all.
        categories_of
            The table that categories are taken from; None for `frame`.
        may_lack
            Whether cells may be missing.
        raw
            The table before its gaps were filled; None for `frame`.

        Raises
        ------
        FrameError
            A column holds neither numbers nor categories, or too many categories; or cells are
            missing, and all others are alike: left out, they would never be asked for.
        """
        rows = np.ones(len(frame), dtype=bool) if train is None else train
        wider = frame if categories_of is None else categories_of
        columns = [
            _learn(frame.iloc[:, k], wider.iloc[:, k], name, rows) for k in range(frame.shape[1])
        ]
        kept = tuple(column for column in columns if column.scale and column.width)
        left_out = tuple(column.label for column in columns if column not in kept)
        for label in () if may_lack else left_out:
            _refuse_gaps(frame[label], name)
        if left_out:
            listed = ", ".join(repr(label) for label in left_out)
            whole = frame if raw is None else raw
            gaps = [label for label in left_out if whole[label].isna().any()]
            no = (
                f" Missing cells of {gaps[0]!r} do not say no: if they should, fill them."
                if gaps
                else ""
            )
            warnings.warn(
                f"{name}: {listed} does not change over the training rows, so there is nothing to "
                f"learn from it; it is left out.{no}",
                CovariateWarning,
                stacklevel=2,
            )
        return cls(name=name, columns=kept, left_out=left_out)

    @property
    def width(self) -> int:
        """Coded columns C."""
        return sum(column.width for column in self.columns)

    @property
    def units(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Center and scale of the coded columns, (C,) each; 0 and 1 of a category's."""
        center = [column.center for column in self.columns for _ in range(column.width)]
        scale = [column.scale for column in self.columns for _ in range(column.width)]
        return np.array(center), np.array(scale)

    @property
    def labels(self) -> list[Hashable]:
        """What to call the coded columns, (C,): a category is `label=category`."""
        return [
            name
            for column in self.columns
            for name in (
                [column.label]
                if column.categories is None
                else [f"{column.label}={each}" for each in column.categories]
            )
        ]

    def code(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Return the table's rows as numbers, (T, C); NaN where a cell is missing.

        Raises
        ------
        FrameError
            The columns are not those of the fit, or a cell is no number or no known category.
        """
        self._check_labels(frame)
        coded = [self._code_column(column, frame[column.label]) for column in self.columns]
        return np.concatenate([np.empty((len(frame), 0)), *coded], axis=1)

    def check_whole(
        self, rows: NDArray[np.float64], index: pd.Index, *, may_lack: bool = False
    ) -> None:
        """Check that coded rows, (T, C), have no missing cell, unless they may.

        Raises
        ------
        FrameError
            One is missing; the message says where.
        """
        if may_lack or not np.isnan(rows).any():
            return
        row, place = (int(axis[0]) for axis in np.nonzero(np.isnan(rows)))
        labels = [column.label for column in self.columns for _ in range(column.width)]
        count = int(np.isnan(rows).any(axis=1).sum())
        raise FrameError(
            f"{self.name}: column {labels[place]!r} has no value at {index[row]}; in all {count} "
            f"row(s) lack one, but all are needed. Fill them, as with "
            f"{self.name}.ffill(), or drop the column."
        )

    def _check_labels(self, frame: pd.DataFrame) -> None:
        known = [column.label for column in self.columns] + list(self.left_out)
        given = list(frame.columns)
        missing = [label for label in known if label not in given]
        unseen = [label for label in given if label not in known]
        if missing or unseen:
            faults = [f"lacks column {label!r}" for label in missing[:5]]
            faults += [f"has column {label!r}, which fit did not see" for label in unseen[:5]]
            raise FrameError(
                f"{self.name} {' and '.join(faults)}. Pass the columns that fit was given: "
                f"{', '.join(repr(label) for label in known)}."
            )

    def _code_column(self, column: _Column, cells: pd.Series[Any]) -> NDArray[np.float64]:
        if column.categories is None:
            with np.errstate(over="ignore"):
                numbers = (_numbers(cells, self.name) - column.center) / column.scale
            far = np.flatnonzero(np.abs(numbers) > MOST_DEVIATIONS)
            if len(far):
                raise FrameError(
                    f"{self.name}: column {column.label!r} holds {cells.iloc[far[0]]} at "
                    f"{cells.index[far[0]]}, more than {MOST_DEVIATIONS:g} deviations from its "
                    f"mean over the training rows, which is {column.center:g}: networks cannot "
                    f"compute with that. Correct it, or fit again with rows like it."
                )
            return np.reshape(numbers, (-1, 1))
        missing = np.asarray(cells.isna())
        plain = _plain(cells, self.name)
        categories = pd.Index(column.categories, dtype=object)
        codes = categories.get_indexer(pd.Index(plain, dtype=object))
        unseen = np.flatnonzero((codes < 0) & ~missing)
        if len(unseen):
            first = cells.index[unseen[0]]
            raise FrameError(
                f"{self.name}: column {column.label!r} holds {plain[unseen[0]]!r} at {first}, a "
                f"category that fit did not see; it saw "
                f"{', '.join(repr(each) for each in column.categories[:10])}. Correct it, or fit "
                f"again with rows that have it."
            )
        ones: NDArray[np.float64] = (codes[:, None] == np.arange(column.width)).astype(float)
        ones[missing] = np.nan
        return ones

    def to_json(self) -> dict[str, Any]:
        """Return the coding as plain types."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """Return the coding that `to_json` wrote.

        Raises
        ------
        SavedModelError
            It is damaged.
        """
        try:
            columns = tuple(_Column(**column) for column in saved["columns"])
            return cls(name=saved["name"], columns=columns, left_out=tuple(saved["left_out"]))
        except (KeyError, TypeError) as error:
            raise SavedModelError(
                f"the saved covariates {saved!r} are damaged. Save the model again."
            ) from error


def _learn(
    cells: pd.Series[Any], wider: pd.Series[Any], name: str, train: NDArray[np.bool_]
) -> _Column:
    """Learn how to code a column; one that does not change gets scale 0 or no categories."""
    label = plain_label(cells.name, f"label of a column of {name}")
    if types.is_numeric_dtype(cells.dtype) or types.is_bool_dtype(cells.dtype):
        numbers = _numbers(cells, name)[train]
        known = numbers[~np.isnan(numbers)]
        if len(known) == 0 or (known == known[0]).all():
            return _Column(label=label, scale=0.0)
        tame, power = tamed(known)
        center, scale = np.ldexp([tame.mean(), tame.std()], power)
        return _Column(label=label, center=float(center), scale=float(scale))
    if types.is_datetime64_any_dtype(cells.dtype) or types.is_timedelta64_dtype(cells.dtype):
        raise FrameError(
            f"{name}: column {label!r} of dtype {cells.dtype} holds neither numbers nor "
            f"categories. Make numbers of it, or the index if it says when: set_index({label!r})."
        )
    found = pd.unique(pd.Series(_plain(wider.dropna(), name), dtype=object))
    if len(found) > _MOST_CATEGORIES:
        raise FrameError(
            f"{name}: column {label!r} has {len(found)} categories, but at most "
            f"{_MOST_CATEGORIES} are coded. Put rare ones together, drop the column, or convert it "
            f"with pd.to_numeric if it holds numbers."
        )
    categories = tuple(sorted(found, key=lambda each: (type(each).__name__, each)))
    return _Column(label=label, categories=categories if len(categories) > 1 else ())


def _refuse_gaps(cells: pd.Series[Any], name: str) -> None:
    """Refuse missing cells in a column whose others are alike: they may stand for its opposite."""
    missing = np.asarray(cells.isna())
    if not missing.any():
        return
    known = cells[~missing]
    holds = f"is {known.tolist()[0]!r} or missing" if len(known) else "has no value at all"
    raise FrameError(
        f"{name}: column {cells.name!r} {holds}: {missing.sum()} of {len(cells)} rows lack a "
        f"value, the first at {cells.index[int(missing.argmax())]}. If a missing cell says no, "
        f"write that: {name}[{cells.name!r}].fillna(...), with False, 0 or a category of its own; "
        f"if it is unknown, drop the column, which says nothing else."
    )


def _numbers(cells: pd.Series[Any], name: str) -> NDArray[np.float64]:
    """Return a column of numbers; NaN where a cell is missing."""
    if types.is_complex_dtype(cells.dtype) or not (
        types.is_numeric_dtype(cells.dtype) or types.is_bool_dtype(cells.dtype)
    ):
        raise FrameError(
            f"{name}: column {cells.name!r} of dtype {cells.dtype} should hold numbers, as it did "
            f"at fit. Convert it with pd.to_numeric."
        )
    numbers = np.asarray(cells.to_numpy(dtype=np.float64, na_value=np.nan))
    beyond = np.flatnonzero(np.abs(numbers) > LARGEST)
    if len(beyond):
        first = numbers[beyond[0]]
        is_what = "is infinite" if np.isinf(first) else f"holds {first:g}, beyond {LARGEST:g},"
        raise FrameError(
            f"{name}: column {cells.name!r} {is_what} at {cells.index[beyond[0]]}; finite "
            f"numbers are needed. Correct it."
        )
    return numbers


def _plain(cells: pd.Series[Any], name: str) -> NDArray[np.object_]:
    """Return categories as plain Python, which a saved model can hold; None where missing."""
    plain = np.empty(len(cells), dtype=object)
    missing = np.asarray(cells.isna())
    for place, each in enumerate(cells.astype(object)):
        if missing[place]:
            continue
        plain[place] = each.item() if isinstance(each, np.generic) else each
        if type(plain[place]) not in (str, int, float, bool):
            raise FrameError(
                f"{name}: column {cells.name!r} holds {each!r}, {type_name(each)}, at "
                f"{cells.index[place]}, but a category is text or a number. Convert it with str."
            )
    return plain
