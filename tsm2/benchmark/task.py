"""A table of one's own as a task: which rows every model sees, and which ones judge it.

    series A   |========== known to forecast 1 ==========| horizon |
               |============== known to forecast 2 ===============| horizon |
    series B          |====== known to forecast 1 ======| horizon | ...

Every series is forecast from `windows` of its rows, `stride` rows apart, the last of which is a
horizon before its end. A task is kept in a folder, where the processes of the runs find it.

Sizes: S series, T rows, M variates, W windows, H horizon, Q quantiles.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2.errors import WindowError
from tsm2.metrics import naive_scale
from tsm2.tables.series import Series, series_from_json, series_to_json
from tsm2.tables.write import write

__all__ = ["Forecasts", "Task", "as_table", "default_windows"]

_TEST_SHARE, _FEWEST, _MOST = 0.2, 3, 10


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Forecasts:
    """What a model forecast from one cutoff."""

    point: NDArray[np.float64]
    """Point forecasts, (S, H, M)."""
    quantiles: NDArray[np.float64] | None = None
    """Quantiles at the task's levels, (S, H, M, Q); None if the model gives none."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """A table and how it is split."""

    series: Series
    """The rows, without gaps."""
    actual: NDArray[np.float64]
    """What happened, (T, M); NaN where nobody knows."""
    horizon: int
    """Rows H of a forecast."""
    windows: int
    """Forecasts W of each series."""
    stride: int
    """Rows from one forecast to the next."""
    season: int
    """Rows of a season; 1 for none."""
    levels: tuple[float, ...]
    """Levels of the quantiles to forecast, rising."""
    refit: bool
    """Whether models that are trained are trained again before every forecast."""

    def __post_init__(self) -> None:
        shortest = int(np.argmin(self.series.counts))
        rows = int(self.series.counts[shortest])
        tested = self.horizon + (self.windows - 1) * self.stride
        needed = tested + max(2 * self.horizon, self.season + 1, 3)
        if rows < needed:
            name = self.series.ids[shortest]
            of = "the table" if name is None else f"series {name!r}"
            raise WindowError(
                f"{of} has {rows} rows, but {needed} are needed: {tested} that judge "
                f"({self.windows} windows of {self.horizon}, {self.stride} rows apart) and "
                f"{needed - tested} before them. Lower windows or horizon, or leave it out."
            )

    def known(self, window: int) -> Series:
        """Return the rows that a model may see before a forecast, the first of which is 0."""
        return self.series.head(self._ends(window))

    def happened(self, window: int) -> NDArray[np.float64]:
        """Return what a forecast is judged by, (S, H, M)."""
        starts = self.series.offsets[:-1] + self._ends(window)
        rows: NDArray[np.float64] = self.actual[starts[:, None] + np.arange(self.horizon)]
        return rows

    def stamps(self, window: int) -> tuple[pd.Index, pd.Index]:
        """Return the last stamps known, (S,), and those that are forecast, (S H,)."""
        starts = self.series.offsets[:-1] + self._ends(window)
        behind = (starts[:, None] + np.arange(self.horizon)).ravel()
        return self.series.index[starts - 1], self.series.index[behind]

    def _ends(self, window: int) -> NDArray[np.int64]:
        back = self.horizon + (self.windows - 1 - window) * self.stride
        return self.series.counts - back

    def scale(self) -> NDArray[np.float64]:
        """Return what MASE divides by, (S, M).

        It is `tsm2.metrics.naive_scale` before the first cutoff.
        """
        known = self.known(0)
        rows = (known.values[first:stop] for first, stop in pairwise(known.offsets))
        return np.stack([naive_scale(each, self.season) for each in rows])

    # --- kept in a folder ---------------------------------------------------------------------

    @property
    def digest(self) -> str:
        """A few signs that name the task: other rows or another split have others."""
        text = json.dumps(self._plan(), sort_keys=True)
        return hashlib.sha256(text.encode() + self.actual.tobytes()).hexdigest()[:8]

    def _plan(self) -> dict[str, Any]:
        names = ("horizon", "windows", "stride", "season", "levels", "refit")
        plan = {name: getattr(self, name) for name in names}
        return plan | {"series": series_to_json(self.series)}

    def save(self, folder: Path) -> None:
        """Write the task to a folder."""
        (folder / "task.json").write_text(json.dumps(self._plan()), encoding="utf-8")
        rows = {"values": self.series.values, "offsets": self.series.offsets, "actual": self.actual}
        with (folder / "task.npz").open("wb") as file:
            np.savez(file, **rows)  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        plan = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        with np.load(folder / "task.npz", allow_pickle=False) as rows:
            series = series_from_json(plan.pop("series"), rows["values"], rows["offsets"])
            actual = rows["actual"]
        plan["levels"] = tuple(plan["levels"])
        return cls(series=series, actual=actual, **plan)


def as_table(series: Series) -> Any:
    """Return rows as what a forecaster takes: one table, or a dict of them."""
    return write(replace(series, layout=series.layout.in_pieces()))


def default_windows(series: Series, horizon: int) -> int:
    """Return how many forecasts judge: as many as a fifth of the shortest series holds.

    There are at least three where these take no more than a third of it, else at least one.
    """
    shortest = int(series.counts.min())
    few = _FEWEST if _FEWEST * horizon <= shortest // 3 else 1
    return min(_MOST, max(few, int(_TEST_SHARE * shortest / horizon)))
