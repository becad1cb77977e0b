"""BacktestRequest: what a backtest forecasts beside the point, and where its table goes.

arguments -> BacktestRequest -> levels to forecast -> a backtest -> a table, or a file of it
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import pandas as pd

from tsm2.backtest_files import check_target, write_backtest
from tsm2.errors import ParameterError
from tsm2.fitted.adaptive import adapted_table
from tsm2.parameters import check_path
from tsm2.tables.containers import to_library
from tsm2.tables.quantiles import check_levels, interval_levels, with_median
from tsm2.tables.series import Series

__all__ = ["Backtest", "BacktestRequest"]


class Backtest(Protocol):
    """Forecasts of windows beside what happened, still to be made."""

    @property
    def series(self) -> Series:
        """What is forecast."""
        ...

    def table(self) -> pd.DataFrame:
        """Make all of them."""
        ...

    def pieces(self, folder: Path) -> Iterator[pd.DataFrame]:
        """Make the same table in pieces; what has to wait for its turn waits in the folder."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BacktestRequest:
    """What is asked of a backtest; arguments that do not go together are refused here."""

    asked: tuple[float, ...]
    """Levels of quantiles that the table shows; none for the point alone."""
    adaptive: bool
    """Whether what was missed so far moves the next bounds."""
    path: Path | None
    """File to write to; None for a table."""

    @classmethod
    def of(
        cls, *, quantiles: Sequence[float] | None, coverage: object, intervals: object, to: object
    ) -> Self:
        """Return what arguments of `TSM2Forecaster.backtest` ask for.

        Raises
        ------
        ParameterError
            One of them is out of its range, or two do not go together.
        """
        if coverage is not None and quantiles is not None:
            raise ParameterError("pass coverage or quantiles, not both.")
        levels = () if quantiles is None else check_levels(quantiles)
        if coverage is not None:
            levels = interval_levels(coverage)
        adaptive = intervals == "adaptive"
        if intervals not in ("calibrated", "adaptive") or (adaptive and not levels):
            raise ParameterError(
                f"intervals must be 'calibrated', or 'adaptive' with coverage or quantiles, got "
                f"{intervals!r} with {'levels ' + str(levels) if levels else 'neither'}."
            )
        path = None if to is None else check_target(check_path("to", to))
        if path is not None and adaptive:
            raise ParameterError(
                "to writes forecasts as they are made, but intervals='adaptive' looks at all of a "
                "series once they are there: leave one of the two out."
            )
        return cls(asked=levels, adaptive=adaptive, path=path)

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels to forecast: bounds that adapt move around the median."""
        return with_median(self.asked) if self.adaptive else self.asked

    def answer(self, backtest: Backtest) -> Any:
        """Make a backtest, and return its table in the library of its series, or its file."""
        layout = backtest.series.layout
        if self.path is not None:
            pieces = backtest.pieces(self.path.absolute().parent)
            return write_backtest(self.path, pieces, layout.form)
        table = backtest.table()
        if self.adaptive:
            table = adapted_table(table, self.asked, several=not layout.alone)
        return to_library(table, layout.form)
