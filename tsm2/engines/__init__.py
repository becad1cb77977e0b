"""Engines: many series on many workers, on pandas, Dask, Ray or Spark.

    frame --by series--> partitions --a worker each, with the model--> rows --> frame of the engine

One function takes a long table of any of them and gives back the same kind. A partition holds whole
series, in the order of time, and a worker does with it what `TSM2Forecaster` does in one process:
what comes out is equal to the bit. `fit` trains one model on a sample of the series, or one for
each group of them; `predict`, `predict_quantiles` and `backtest` send it to all workers.

Dask, Ray and Spark are imported with the first frame of theirs: tsm2's extras `dask`, `ray` and
`spark`. Errors in a worker reach whoever computes the result, in the words of `tsm2.errors`.
"""

from __future__ import annotations

import pickle
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from tsm2.engines.frames import engine_of, own_errors
from tsm2.engines.work import FitGroups, FittedGroups, Forecast, check_columns, in_order
from tsm2.errors import ParameterError
from tsm2.forecaster import TSM2Forecaster
from tsm2.parameters import check_count
from tsm2.tables.quantiles import bound_name, check_levels, interval_levels

__all__ = ["FittedGroups", "backtest", "fit", "predict", "predict_quantiles"]


def fit(
    forecaster: TSM2Forecaster,
    frame: Any,
    *,
    sample: int | None = None,
    fit_by: str | None = None,
    random_state: int = 0,
    partitions: int | None = None,
    **how: Any,
) -> Any:
    """Fit copies of a forecaster to a long table of any engine.

    Parameters
    ----------
    forecaster
        What is asked for; it stays as it is. Its `id_col`, `time_col` and `target_col` name the
        columns.
    frame
        A long table: a DataFrame of pandas, Dask or Spark, or a Ray Dataset.
    sample
        Series to draw, whose rows are then brought together here and fitted to; None takes all.
    fit_by
        A further column whose values get a model each, such as "store", fitted by the workers.
    random_state
        Seed of the draw; the same series come from every engine.
    partitions
        Parts that are worked on side by side; None leaves that to the engine.
    how
        Passed to `TSM2Forecaster.fit`, such as covariates, as tables of pandas for all series.

    Returns
    -------
    A fitted `TSM2Forecaster`, as that of the same rows sorted by series and time, or, with
    `fit_by`, `FittedGroups`. Both are used by `predict` and `backtest`.

    Raises
    ------
    ParameterError
        The frame is of no such kind, or `sample` and `fit_by` are both given.
    FrameError
        A column is not there; or as `TSM2Forecaster.fit`.
    """
    engine = engine_of(frame)
    if sample is not None and fit_by is not None:
        raise ParameterError("pass sample or fit_by, not both: a group is fitted to all its rows.")
    copy: Any = clone(forecaster)
    columns = engine.columns(frame)
    check_columns(columns, copy, fit_by, needs_fit=False)
    if fit_by is not None:
        columns = columns[[fit_by]].assign(model=pd.Series(dtype="object"))
        task = FitGroups(columns=columns, forecaster=copy, by=fit_by, how=how)
        with own_errors():
            found = engine.collect(engine.over(frame, task, fit_by, partitions))
        found = found.sort_values(fit_by, ignore_index=True)
        models = found["model"].map(pickle.loads)  # of our own workers
        return FittedGroups(by=fit_by, forecasters=dict(zip(found[fit_by], models, strict=True)))
    with own_errors():
        names = None
        if sample is not None:
            names = _drawn(engine.names(frame, copy.id_col), sample, random_state)
        rows = engine.rows(frame, copy.id_col, names)
    return copy.fit(rows if engine.ordered else in_order(rows, copy), **how)


def _drawn(names: pd.Index, sample: int, random_state: int) -> list[Hashable]:
    """Draw names, the same ones in whatever order they come."""
    names = names.sort_values()
    count = min(check_count("sample", sample), len(names))
    chosen = np.random.default_rng(random_state).choice(len(names), count, replace=False)
    return names[np.sort(chosen)].tolist()


def predict(
    model: TSM2Forecaster | FittedGroups,
    frame: Any,
    *,
    partitions: int | None = None,
    **how: Any,
) -> Any:
    """Forecast every series of a long table of any engine.

    Parameters
    ----------
    model
        A forecaster that was fitted to a long table of pandas, or what `fit` returned.
    frame
        Histories, as for `fit`; their rows may stand in any order, but for pandas.
    partitions
        Parts that are worked on side by side; None leaves that to the engine. Each must fit into
        the memory of a worker. Those of pandas are worked on one by one, or side by side in a
        `joblib.parallel_config`.
    how
        Passed to `TSM2Forecaster.predict`: `horizon`, and covariates as tables of pandas for all
        series.

    Returns
    -------
    A frame of the same engine, which computes it when it is asked to: the columns of
    `TSM2Forecaster.predict`; of a model by groups, the column of the groups before them.

    Raises
    ------
    ParameterError
        The frame is of no such kind.
    FrameError
        A column is not there, or the model was not fitted to a long table.
    """
    return _forecast("predict", model, frame, partitions, how)


def predict_quantiles(
    model: TSM2Forecaster | FittedGroups,
    frame: Any,
    *,
    partitions: int | None = None,
    **how: Any,
) -> Any:
    """Forecast quantiles of every series; `how` is passed to `TSM2Forecaster.predict_quantiles`.

    All else is as in `predict`.
    """
    return _forecast("predict_quantiles", model, frame, partitions, how)


def backtest(
    model: TSM2Forecaster | FittedGroups,
    frame: Any,
    *,
    partitions: int | None = None,
    **how: Any,
) -> Any:
    """Forecast the windows of every series and set the truth beside them.

    Parameters
    ----------
    model, frame, partitions
        As in `predict`.
    how
        Passed to `TSM2Forecaster.backtest`: `start`, `stride`, `horizon`, `quantiles` or
        `coverage`, and covariates. `refit` fits to the series of one group alone and needs a model
        by groups.

    Returns
    -------
    A frame of the same engine with the columns of `TSM2Forecaster.backtest`; `variate` is text on
    Spark. A part in which no series has a window from `start` on has no rows.

    Raises
    ------
    ParameterError
        `refit` for one model of all series, or `to`.
    """
    if how.get("refit", False) is not False and isinstance(model, TSM2Forecaster):
        raise ParameterError(
            "refit fits one model to all series, which lie on many workers. Leave it out, or fit a "
            "model for each group: tsm2.engines.fit(..., fit_by=...)."
        )
    if how.get("to") is not None:
        raise ParameterError(
            "every worker would write its part to one file. Leave `to` out, and let the engine "
            "write what comes back, as with to_parquet."
        )
    return _forecast("backtest", model, frame, partitions, how)


def _forecast(
    verb: Any,
    model: TSM2Forecaster | FittedGroups,
    frame: Any,
    partitions: int | None,
    how: dict[str, Any],
) -> Any:
    engine = engine_of(frame)
    count = None if partitions is None else check_count("partitions", partitions)
    columns = engine.columns(frame)
    one = model.any_forecaster if isinstance(model, FittedGroups) else model
    by = model.by if isinstance(model, FittedGroups) else None
    check_columns(columns, one, by, needs_fit=True)
    result = _result_columns(verb, one, columns, how)
    if by is not None:
        result.insert(0, by, columns[by])
    task = Forecast(columns=result, model=model, verb=verb, how=how)
    return engine.over(frame, task, one.id_col if by is None else by, count)


def _result_columns(
    verb: str, model: TSM2Forecaster, columns: pd.DataFrame, how: dict[str, Any]
) -> pd.DataFrame:
    """Return the table that a verb returns, without its rows."""
    targets = [str(name) for name in model.roles_.layout(model.layout_).columns]
    levels: Any = how.get("quantiles")
    if how.get("coverage") is not None:
        levels = interval_levels(how["coverage"])
    if verb == "predict_quantiles" and levels is None:
        levels = model.quantiles or (0.1, 0.5, 0.9)
    bounds = [] if levels is None else [bound_name(level) for level in check_levels(levels)]
    if verb != "backtest":
        names = [f"{y}-{bound}" for y in targets for bound in bounds] or targets
        keys = columns[[model.id_col, model.time_col]]
        return keys.assign(**dict.fromkeys(names, pd.Series(dtype=np.float64)))
    name = "series" if model.id_col in ("cutoff", "step", "time", "variate", "actual") else None
    time = columns[model.time_col]
    table = {
        name or model.id_col: columns[model.id_col],
        "cutoff": time,
        "step": pd.Series(dtype=np.int64),
        "time": time,
        "variate": pd.Series(pd.Categorical([], categories=pd.Index(targets))),
        **dict.fromkeys(("actual", "forecast", *bounds), pd.Series(dtype=np.float64)),
    }
    return pd.DataFrame(table)
