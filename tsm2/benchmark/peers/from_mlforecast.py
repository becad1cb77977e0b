"""LightGBM on lags, one model of all series, through mlforecast.

Every column of every series is standardised on its own, and a step is forecast from the lags before
it. Lags reach back two seasons, as far as the shortest series allows. Intervals are conformal, from
two windows at the end of what is known, where the rows are enough for them and the model is fitted
anew before the forecast.

Sizes: S series, M variates, H horizon.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tsm2.benchmark.peers.from_statsforecast import long_frame
from tsm2.benchmark.rivals import Rival, RivalSetup
from tsm2.benchmark.task import Forecasts
from tsm2.tables.series import Series

__all__ = ["BoostedTrees", "on_tables"]

_LAGS, _WINDOWS = 96, 2


class BoostedTrees:
    """LightGBM on the lags of all series.

    Parameters
    ----------
    setup
        What the model is told; parameters are those of `LGBMRegressor`.
    """

    def __init__(self, setup: RivalSetup) -> None:
        from lightgbm import LGBMRegressor  # pyright: ignore[reportMissingImports]

        fixed = {"verbosity": -1, "random_state": setup.seed, "n_jobs": 1}
        self.setup = setup
        self.regressor = LGBMRegressor(**fixed | dict(setup.parameters))

    def fit(self, known: Series) -> Self:
        """Train on the lags of all series."""
        from mlforecast import MLForecast  # pyright: ignore[reportMissingImports]
        from mlforecast.target_transforms import (  # pyright: ignore[reportMissingImports]
            LocalStandardScaler,
        )
        from mlforecast.utils import PredictionIntervals  # pyright: ignore[reportMissingImports]

        horizon, shortest = self.setup.horizon, int(known.counts.min())
        reach = max(2, min(2 * self.setup.season, shortest // 3, _LAGS))
        self.model = MLForecast(
            models={"boosted": self.regressor},
            freq=1,
            lags=range(1, reach + 1),
            target_transforms=[LocalStandardScaler()],
        )
        is_judged = shortest > reach + (_WINDOWS + 1) * horizon + 1
        intervals = PredictionIntervals(n_windows=_WINDOWS, h=horizon) if is_judged else None
        self.model.fit(long_frame(known), prediction_intervals=intervals, static_features=[])
        self.learnt, self.is_judged = len(known.values), is_judged
        return self

    def forecast(self, known: Series) -> Forecasts:
        """Forecast step by step, each from the one before."""
        is_new = len(known.values) != self.learnt
        low, high = self.setup.levels
        level = [round(100 * (high - low), 6)] if self.is_judged and not is_new else None
        new = long_frame(known) if is_new else None
        found = self.model.predict(self.setup.horizon, level=level, new_df=new)
        found = found.sort_values(["unique_id", "ds"])

        def table(name: str) -> NDArray[np.float64]:
            shape = len(known.ids), len(known.layout.columns), self.setup.horizon
            return np.asarray(found[name], dtype=np.float64).reshape(shape).swapaxes(1, 2)

        if level is None:
            return Forecasts(point=table("boosted"))
        names = [next(n for n in found if f"-{end}-" in n) for end in ("lo", "hi")]
        ends = np.stack([table(name) for name in names], axis=-1)
        return Forecasts(point=table("boosted"), quantiles=ends)


def on_tables(name: str) -> Callable[[RivalSetup], Rival]:
    """Return what makes the model."""
    made: Callable[[RivalSetup], Any] = BoostedTrees
    return made
