"""Roles: which columns of a table are forecast, and which are only read.

Sizes: M columns, of which Mt targets and Mo others.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsm2.errors import ParameterError
from tsm2.prepared.scaling import Scaling
from tsm2.tables.layout import Layout
from tsm2.tables.series import Series

__all__ = ["Roles"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Roles:
    """Which columns are forecast."""

    targets: tuple[int, ...]
    """Positions of the columns that are forecast, (Mt,), in the order of the forecast."""
    others: tuple[int, ...] = ()
    """Positions of the columns that are only read, (Mo,)."""

    @classmethod
    def of(cls, target: object, layout: Layout) -> Self:
        """Find the columns that a user named.

        Parameters
        ----------
        target
            A label, or a list of labels; None for all columns.
        layout
            Of the table.

        Raises
        ------
        ParameterError
            A label is no column, is there twice, or none is given.

        Examples
        --------
        >>> layout = Layout(kind="frame", columns=("a", "b"), index_kind="range", frequency=1)
        >>> Roles.of("b", layout)
        Roles(targets=(1,), others=(0,))
        """
        columns = list(layout.columns)
        if isinstance(target, np.ndarray | pd.Index | pd.Series):
            target = list(target)
        if target is None:
            return cls(targets=tuple(range(len(columns))))
        labels = [target] if target in columns or not _is_several(target) else list(target)  # type: ignore[call-overload]
        unknown = [label for label in labels if label not in columns]
        if unknown or not labels or len(set(labels)) < len(labels):
            listed = ", ".join(repr(label) for label in columns[:10])
            raise ParameterError(
                f"target={target!r} must name columns of the table, each once; it has: {listed}"
                f"{', ...' if len(columns) > 10 else ''}. Pass None to forecast all of them."
            )
        targets = tuple(columns.index(label) for label in labels)
        return cls(
            targets=targets, others=tuple(k for k in range(len(columns)) if k not in targets)
        )

    @property
    def all_forecast(self) -> bool:
        """Whether every column is forecast, in the order of the table."""
        return self.targets == tuple(range(len(self.targets) + len(self.others)))

    @property
    def is_target(self) -> NDArray[np.bool_]:
        """Whether each column is forecast, (M,)."""
        return np.isin(np.arange(len(self.targets) + len(self.others)), self.targets)

    def select(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the targets of rows, (..., M)."""
        return values if self.all_forecast else values[..., list(self.targets)]

    def units(self, units: Scaling) -> Scaling:
        """Return the units of the targets."""
        return units if self.all_forecast else units.of_columns(list(self.targets))

    def split(
        self, values: Tensor, *, axis: int
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Split standardised values along the axis of the columns; NaN is what is unknown.

        Returns
        -------
        The targets and where they are known; the others and where these are known. All values are
        finite; a mask is None if all is known.
        """
        if self.all_forecast:
            return *_split_known(values), values.narrow(axis, 0, 0), None
        targets, others = (
            values.index_select(axis, torch.tensor(which, dtype=torch.long))
            for which in (self.targets, self.others)
        )
        return *_split_known(targets), *_split_known(others)

    def of_targets(self, series: Series) -> Series:
        """Return series without the columns that are only read."""
        return replace(series, values=self.select(series.values), layout=self.layout(series.layout))

    def layout(self, layout: Layout) -> Layout:
        """Return the layout of a forecast, from that of the table."""
        labels: tuple[Hashable, ...] = tuple(layout.columns[k] for k in self.targets)
        return replace(layout, columns=labels)


def _is_several(target: object) -> bool:
    return isinstance(target, list | tuple)


def _split_known(values: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return values that are finite everywhere, and where they are known; None if all are."""
    unknown = torch.isnan(values)
    if not bool(unknown.any()):
        return values, None
    return values.masked_fill(unknown, 0.0), ~unknown
