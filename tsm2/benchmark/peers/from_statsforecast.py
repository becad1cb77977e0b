"""Any model of statsforecast: AutoETS, AutoTheta, AutoARIMA, MSTL, ...

Each column of each series is a series of its own there, fitted anew before every forecast to its
last 1,000 rows at most, which keeps hourly tables to seconds; `rows` in the model's parameters says
otherwise. The stamps are numbered: these models look at no calendar.

Sizes: S series, M variates, H horizon, Q quantiles.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pandas as pd

from tsm2.benchmark.rivals import Rival, RivalSetup
from tsm2.benchmark.task import Forecasts
from tsm2.errors import ParameterError
from tsm2.tables.series import Series

__all__ = ["StatsforecastModel", "long_frame", "on_tables"]

_ROWS = 1000


class StatsforecastModel:
    """One of statsforecast's models.

    Parameters
    ----------
    kind
        Class of the model.
    setup
        What the model is told.
    """

    def __init__(self, kind: type[Any], setup: RivalSetup) -> None:
        given = {"season_length": setup.season, **setup.parameters}
        self.rows = given.pop("rows", _ROWS)
        self.setup, self.model = setup, kind(**given)

    def fit(self, known: Series) -> Self:
        """Do nothing: the model is fitted when it forecasts."""
        return self

    def forecast(self, known: Series) -> Forecasts:
        """Fit every column of every series, and forecast it."""
        from statsforecast import StatsForecast  # pyright: ignore[reportMissingImports]
        from statsforecast import models as theirs  # pyright: ignore[reportMissingImports]

        setup = self.setup
        low, high = setup.levels
        engine = StatsForecast(
            models=[self.model],
            freq=1,
            fallback_model=theirs.SeasonalNaive(season_length=setup.season),
        )
        level = round(100 * (high - low), 6)
        found = engine.forecast(
            df=long_frame(known.tail(self.rows)), h=setup.horizon, level=[level]
        )
        shape = len(known.ids), len(known.layout.columns), setup.horizon
        values = found.sort_values(["unique_id", "ds"]).drop(columns=["unique_id", "ds"])
        tables = {name: values[name].to_numpy().reshape(shape).swapaxes(1, 2) for name in values}
        point = next(iter(tables.values()))
        ends = [next(t for n, t in tables.items() if f"-{end}-" in n) for end in ("lo", "hi")]
        return Forecasts(point=point, quantiles=np.stack(ends, axis=-1))


def long_frame(series: Series) -> pd.DataFrame:
    """Return a row per series, variate and time, the series numbered in order, the rows too."""
    n_variates = len(series.layout.columns)
    width = len(str(len(series.ids) * n_variates))
    parts = [
        pd.DataFrame(
            {
                "unique_id": str(number * n_variates + variate).zfill(width),
                "ds": np.arange(stop - first),
                "y": series.values[first:stop, variate],
            }
        )
        for number, (first, stop) in enumerate(
            zip(series.offsets, series.offsets[1:], strict=False)
        )
        for variate in range(n_variates)
    ]
    return pd.concat(parts, ignore_index=True)


def on_tables(name: str) -> Callable[[RivalSetup], Rival]:
    """Return what makes the model of a class name in statsforecast.models.

    Raises
    ------
    ParameterError
        statsforecast has no model of that name.
    """
    from statsforecast import models  # pyright: ignore[reportMissingImports]

    if name not in models.__all__:
        raise ParameterError(
            f"statsforecast has no model named {name!r}. It has: {', '.join(models.__all__)}."
        )
    kind = getattr(models, name)
    return lambda setup: StatsforecastModel(kind, setup)
