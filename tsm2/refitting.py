"""Backtests with refits: a model that is fitted again as the backtest moves on.

Every fit learns from rows before the first one that it forecasts, and from nothing else:

    window="expanding"   fit 1 |======|          fit 2 |=========|       fit 3 |============|
    window="sliding"     fit 1 |======|          fit 2    |======|       fit 3       |======|

Sizes: S series, T rows, M variates, W windows, B windows in a batch, L lookback, H horizon, Q
quantiles.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray

from tsm2.backtesting import backtest_pieces, backtest_table, batches, outcomes
from tsm2.errors import ParameterError
from tsm2.fitted.model import FittedModel
from tsm2.fitted.rolling import whole_horizons
from tsm2.parameters import check_count
from tsm2.prepared.prepared import Prepared, filled
from tsm2.prepared.walk import Walk
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.labels import is_before
from tsm2.tables.quantiles import bound_name
from tsm2.tables.ragged import ranges
from tsm2.tables.series import Series
from tsm2.training.choices import chosen
from tsm2.training.choosing import choices_for
from tsm2.training.processes import check_side_by_side
from tsm2.training.recipe import Recipe

__all__ = ["Refits"]

Fit: TypeAlias = Callable[[Series, CovariateTables, pd.DataFrame], FittedModel]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Refits:
    """A walk through series, each window forecast by a model that was fitted shortly before it."""

    recipe: Recipe
    fit: Fit
    walk: Walk
    window: Literal["expanding", "sliding"]
    n_jobs: int | None
    quantiles: Sequence[float]
    given: CovariateTables
    choices: pd.DataFrame
    """What the first fit chooses, for all."""
    series: Series
    read: Series
    """What is read of their rows."""
    starts: NDArray[np.int64]
    """First forecast row of every window, (W,), rising."""
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    """Of each fit, the rows that are known of every series, (S,), and the places of its windows."""

    @classmethod
    def planned(
        cls,
        recipe: Recipe,
        fit: Fit,
        series: Series,
        *,
        start: object,
        horizon: int,
        stride: int,
        every: int | bool,
        window: Literal["expanding", "sliding"],
        n_jobs: int | None = None,
        quantiles: Sequence[float] = (),
        given: CovariateTables = CovariateTables(),  # noqa: B008 (frozen)
    ) -> Self:
        """Settle which rows each fit learns from, and which windows it forecasts.

        Parameters
        ----------
        recipe
            What is asked of every fit.
        fit
            Fits series with their covariates and choices made before.
        series
            One table or several series. A series is in a fit from its first whole window on;
            before, it is forecast as one that the fit has not seen.
        start
            Label of the first row to forecast, as for `Walk.starts_in`.
        horizon, stride
            Rows of a forecast, and from one to the next.
        every
            How many forecasts, one behind another in time, one fit makes: of several series, those
            of all of them from the same row are one. True is 1.
        window
            "expanding" fits to all rows before a fit's first forecast, "sliding" to the last of
            them, as many as the first fit had of each series.
        n_jobs
            Fits side by side, as joblib counts them.
        quantiles
            As in `backtest_table`.
        given
            Covariates of all rows.

        Raises
        ------
        ParameterError
            There is no start, `window` is unknown, `n_jobs` is no count or more than 1 where
            several processes share the fits, or nothing would be fitted.
        WindowError
            No window fits, or the rows before the start are too few to fit to.
        """
        if recipe.pretrained is not None:
            raise ParameterError(
                f"refit={every!r} does not go with pretrained={recipe.pretrained!r}: such a "
                f"network reads the rows before every forecast, and nothing is fitted. Pass "
                f"refit=False; to judge tuned weights, fit them to earlier rows with "
                f"warm_start=True before."
            )
        every = check_count("refit", 1 if every is True else every)
        _check_refits(start, window, n_jobs)
        known = _with_windows(series.head(_rows_before(series, start)), recipe)
        choices = choices_for(recipe, filled(known, recipe.missing), given)
        walk = Walk(lookback=chosen(choices)["lookback"], horizon=horizon, stride=stride)
        starts = walk.starts_in(series, start)
        # Places of a list name its series as long as they are together.
        series = replace(series, layout=series.layout.with_names())
        stamps = series.index[starts]
        cutoffs = stamps.unique().sort_values()
        parts = []
        for first in range(0, len(cutoffs), every):
            those = np.asarray(stamps.isin(cutoffs[first : first + every]))
            parts.append((_rows_before(series, cutoffs[first]), np.flatnonzero(those)))
        return cls(
            recipe=recipe,
            fit=fit,
            walk=walk,
            window=window,
            n_jobs=n_jobs,
            quantiles=quantiles,
            given=given,
            choices=choices,
            series=series,
            read=filled(series, recipe.missing),
            starts=starts,
            parts=parts,
        )

    def table(self) -> pd.DataFrame:
        """Fit and forecast, with the columns of `backtest_table`."""
        backtests: Any = Parallel(n_jobs=self.n_jobs)(
            delayed(_refit_piece)(
                self.fit,
                known,
                *self._around(places),
                self.walk.horizon,
                self.quantiles,
                self.given,
                self.choices,
            )
            for known, places in self._fits()
        )
        whole: pd.DataFrame = pd.concat(backtests, ignore_index=True)
        per_window = len(whole) // len(self.starts)
        places = np.concatenate([places for _, places in self.parts])
        order = ranges(np.argsort(places) * per_window, np.full(len(places), per_window))
        return whole.iloc[order].reset_index(drop=True)

    def pieces(self, folder: Path) -> Iterator[pd.DataFrame]:
        """Yield the same table in pieces.

        Forecasts come fit by fit, and the table goes series by series: they wait in a file without
        a name in `folder`. Fits run side by side, their forecasts are made one behind another.
        """
        models: Any = Parallel(n_jobs=self.n_jobs, return_as="generator")(
            delayed(self.fit)(known, self.given, self.choices) for known, _ in self._fits()
        )
        columns = ["forecast", *map(bound_name, self.quantiles)]
        horizon, targets = self.walk.horizon, self.series
        with TemporaryFile(dir=folder) as waiting:
            for model, (_, places) in zip(models, self.parts, strict=True):
                targets = model.roles.of_targets(self.series)
                tested, read, starts = self._around(places)
                prepared = _prepared_piece(model, tested, read, starts, horizon, self.given)
                tables = backtest_pieces(model, prepared, starts, horizon, quantiles=self.quantiles)
                for table, where in zip(tables, batches(places), strict=True):
                    rows = table[columns].to_numpy(np.float64).reshape(len(where), -1)
                    for place, row in zip(where, rows, strict=True):
                        waiting.seek(int(place) * row.nbytes)
                        waiting.write(row.tobytes())
            waiting.seek(0)
            for batch in batches(self.starts):
                table = outcomes(targets, batch, horizon)
                cells = len(table) * len(columns)
                numbers = np.frombuffer(waiting.read(8 * cells), np.float64)
                table[columns] = numbers.reshape(len(table), len(columns))
                yield table

    def _fits(self) -> Iterator[tuple[Series, NDArray[np.int64]]]:
        """Yield the rows of each fit, and the places of its windows."""
        first = self.parts[0][0]
        for n_known, places in self.parts:
            learnt = _learnt(n_known, first, self.window)
            known = self.read.between(n_known - learnt, n_known)
            yield _with_windows(known, self.recipe), places

    def _around(self, places: NDArray[np.int64]) -> tuple[Series, Series, NDArray[np.int64]]:
        """Return the rows that windows lie in, what is read of them, and their first rows."""
        reach = self.walk.lookback
        if chosen(self.choices)["classical"]:
            reach = max(reach, self.recipe.classical_of(self.series).rows)
        return _around(self.series, self.read, self.starts[places], self.walk, reach)


def _check_refits(start: object, window: object, n_jobs: object) -> None:
    if start is None:
        raise ParameterError(
            "refit needs start, the label of the first row to forecast: the rows before it are "
            "what the first fit learns from."
        )
    if window not in ("expanding", "sliding"):
        raise ParameterError(f"window must be 'expanding' or 'sliding', got {window!r}.")
    if not isinstance(n_jobs, int | None) or n_jobs == 0:
        raise ParameterError(
            f"n_jobs must be a count of processes, -1 for all processors, or None, got {n_jobs!r}."
        )
    asked: Any = n_jobs  # joblib's hint forgets None
    check_side_by_side(effective_n_jobs(asked))


def _rows_before(series: Series, label: object) -> NDArray[np.int64]:
    """Count the rows of each series before a label, (S,)."""
    before = is_before(series.index, label)
    return np.add.reduceat(before, series.offsets[:-1], dtype=np.int64)


def _learnt(
    n_known: NDArray[np.int64], first: NDArray[np.int64], window: Literal["expanding", "sliding"]
) -> NDArray[np.int64]:
    """Count the rows of each series that a fit learns from, (S,); `first` had none of new ones."""
    if window == "expanding":
        return n_known
    return np.where(first > 0, np.minimum(n_known, first), n_known)


def _around(
    series: Series, read: Series, starts: NDArray[np.int64], walk: Walk, reach: int
) -> tuple[Series, Series, NDArray[np.int64]]:
    """Return the rows that windows lie in, what is read of them, and the windows' first rows.

    Before the first window of each series are the `reach` rows that it may read, or all.
    """
    owned, first, count = np.unique(series.owners[starts], return_index=True, return_counts=True)
    before, stop = np.zeros(len(series.ids), np.int64), np.zeros(len(series.ids), np.int64)
    before[owned] = np.maximum(0, starts[first] - reach - series.offsets[owned])
    stop[owned] = starts[first + count - 1] + walk.horizon - series.offsets[owned]
    tested, seen = series.between(before, stop), read.between(before, stop)
    here = stop > before
    shift = (tested.offsets[:-1] - series.offsets[:-1] - before)[series.owners[starts]]
    return tested.chosen(here), seen.chosen(here), starts + shift


def _refit_piece(
    fit: Fit,
    known: Series,
    tested: Series,
    read: Series,
    starts: NDArray[np.int64],
    horizon: int,
    quantiles: Sequence[float],
    given: CovariateTables,
    choices: pd.DataFrame,
) -> pd.DataFrame:
    """Fit to the known rows and forecast the windows of the tested ones."""
    model = fit(known, given, choices)
    prepared = _prepared_piece(model, tested, read, starts, horizon, given)
    return backtest_table(model, prepared, starts, horizon, quantiles=quantiles)


def _prepared_piece(
    model: FittedModel,
    tested: Series,
    read: Series,
    starts: NDArray[np.int64],
    horizon: int,
    given: CovariateTables,
) -> Prepared:
    ahead = whole_horizons(horizon, model.horizon)
    return model.prepare(tested, given, starts=starts, ahead=ahead, read=read)


def _with_windows(series: Series, recipe: Recipe) -> Series:
    """Leave out series that give a fit no window yet; if none does, the fit says so of all."""
    needed = recipe.horizon + 2
    stated = recipe.stated_lookbacks
    if stated is not None and recipe.missing != "mask":
        needed = stated[0] + recipe.horizon  # else rows before are taken as unknown
    enough = series.counts >= needed
    if series.layout.alone or enough.all():
        return series
    return series.chosen(enough if enough.any() else series.counts > 0)
