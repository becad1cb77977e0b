"""Models on a table of one's own: from what is known to forecasts, also of several series.

Each is fitted to the rows before a cutoff and forecasts those behind it. By name:

    RepeatLast, SeasonalNaive, RLinear, TSM2      in this package
    TSM2Zero                                      in it too, learns from no row
    ETS, Theta                                    statsforecast's AutoETS and AutoTheta
    LightGBM                                      boosted trees on lags, through mlforecast
    Chronos                                       zero-shot, through its own package
    statsforecast:AutoARIMA                       any model of statsforecast
    sklearn:Ridge, darts:..., and all of `models` fitted to each series on its own

TSM2 is told the horizon and nothing else. RLinear too chooses its lookback on validation rows, from
the lengths that TSM2 chooses from.

Sizes: S series, T rows, M variates, L lookback, H horizon, Q quantiles.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tsm2.benchmark.baselines import RLinear, SeasonalNaive
from tsm2.benchmark.models import Forecaster, Setup, build, check
from tsm2.benchmark.task import Forecasts, Task, as_table
from tsm2.errors import ParameterError
from tsm2.forecaster import TSM2Forecaster
from tsm2.prepared.prepared import Prepared, measured
from tsm2.prepared.roles import Roles
from tsm2.prepared.seasons import lookbacks
from tsm2.prepared.splits import split_starts
from tsm2.prepared.windows import Covariates
from tsm2.tables.series import Series
from tsm2.training.choices import enough_rows

__all__ = ["FLOOR", "RIVALS", "Rival", "RivalSetup", "check_rival", "installed", "make_rival"]

_VALIDATION = 0.2


class Rival(Protocol):
    """What a model does to be compared on a table."""

    def fit(self, known: Series) -> object:
        """Learn from rows, if the model is trained; one that is not does nothing."""
        ...

    def forecast(self, known: Series) -> Forecasts:
        """Forecast the rows after those that are known."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RivalSetup:
    """What a model is told before it sees any row."""

    horizon: int
    """Rows H to forecast."""
    season: int
    """Rows of a season; 1 for none."""
    levels: tuple[float, ...]
    """Levels of the quantiles to forecast: the bounds of one interval."""
    seed: int = 0
    """Seed of all that is random."""
    device: str = "cpu"
    """Where to train: "auto", "cpu", "cuda" or "mps"."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What was given with the model's name."""

    @classmethod
    def of(cls, task: Task, *, seed: int, device: str, parameters: Mapping[str, Any]) -> Self:
        """Return what a model of a task is told."""
        own = {name: getattr(task, name) for name in ("horizon", "season", "levels")}
        return cls(**own, seed=seed, device=device, parameters=parameters)


class _Ours:
    """`TSM2Forecaster` as it is."""

    def __init__(self, model: TSM2Forecaster, levels: tuple[float, ...]) -> None:
        self.model, self.levels = model, levels

    def fit(self, known: Series) -> Self:
        self.model.fit(as_table(known))
        return self

    def forecast(self, known: Series) -> Forecasts:
        table = as_table(known)
        point = _stacked(self.model.predict(table))
        try:
            bounds = _stacked(self.model.predict_quantiles(table, quantiles=self.levels))
        except ParameterError:  # too few validation windows for these levels
            return Forecasts(point=point)
        return Forecasts(point=point, quantiles=bounds.reshape(*point.shape, -1))


def _tsm2(setup: RivalSetup) -> _Ours:
    """Return it with nothing set but the horizon, and what was given with its name."""
    fixed: dict[str, Any] = {"device": setup.device, "random_state": setup.seed}
    model = TSM2Forecaster(horizon=setup.horizon, **fixed)
    return _Ours(model.set_params(**setup.parameters), setup.levels)


def _zero(setup: RivalSetup) -> _Ours:
    """Return it pretrained, and told the season."""
    fixed = {
        "horizon": setup.horizon,
        "season": setup.season if setup.season > 1 else None,
        "device": setup.device,
        "random_state": setup.seed,
    }
    model = TSM2Forecaster.from_pretrained("zero", **{**fixed, **setup.parameters})
    return _Ours(model, setup.levels)


def _stacked(forecast: Any) -> NDArray[np.float64]:
    tables = forecast.values() if isinstance(forecast, dict) else [forecast]
    return np.stack([np.asarray(table, dtype=np.float64) for table in tables])


class _Naive:
    """Repeat the last season, or the last row."""

    def __init__(self, period: int, horizon: int) -> None:
        self.period, self.horizon = period, horizon

    def fit(self, known: Series) -> Self:
        return self

    def forecast(self, known: Series) -> Forecasts:
        model = SeasonalNaive(self.period)
        contexts = _ends(known, self.period)
        return Forecasts(point=model.forecast_contexts(contexts, self.horizon))


class _RLinear:
    """RLinear of all series, with the lookback of the lowest validation loss."""

    def __init__(self, setup: RivalSetup) -> None:
        self.setup = setup
        self.given = dict(setup.parameters)
        self.lookback = self.given.pop("lookback", None)
        self._model(1)  # a parameter that it does not take shows here

    def _model(self, lookback: int) -> RLinear:
        fixed: dict[str, Any] = {"device": self.setup.device, "random_state": self.setup.seed}
        return RLinear(lookback, self.setup.horizon, **fixed, **self.given)

    def fit(self, known: Series) -> Self:
        horizon = self.setup.horizon
        n_train = enough_rows(known, horizon, _VALIDATION)
        self.units = measured(known.head(n_train), each=not known.layout.alone)
        most = max(1, min(int(known.counts.min()) // 3, int(n_train.min()) - horizon))
        tried = lookbacks(known.layout, horizon, most)
        best = np.inf
        for lookback in tried if self.lookback is None else [self.lookback]:
            prepared = Prepared.of(
                known, self.units, Roles.of(None, known.layout), Covariates(), lookback=lookback
            )
            train, validation = split_starts(known, n_train, lookback=lookback, horizon=horizon)
            model = self._model(lookback).fit_windows(
                prepared.windows(train, horizon), prepared.windows(validation, horizon)
            )
            losses = [each.validation_loss for each in model.history_]
            loss = min((each for each in losses if each is not None), default=np.inf)
            if loss < best or best == np.inf:
                best, self.model = loss, model
        return self

    def forecast(self, known: Series) -> Forecasts:
        self.model.scaling_ = self.units
        contexts = _ends(known, self.model.lookback)
        return Forecasts(point=self.model.forecast_contexts(contexts, self.setup.horizon))


class _EachAlone:
    """Any model of `models`, fitted to every series on its own."""

    def __init__(self, name: str, setup: RivalSetup) -> None:
        self.name, self.setup = name, setup

    def fit(self, known: Series) -> Self:
        given = dict(self.setup.parameters)
        horizon = self.setup.horizon
        n_train = enough_rows(known, horizon, _VALIDATION)
        most = max(1, min(int(known.counts.min()) // 3, int(n_train.min()) - horizon))
        self.lookback = given.pop("lookback", lookbacks(known.layout, horizon, most)[0])
        setup = Setup(
            lookback=self.lookback,
            horizon=horizon,
            season=min(self.setup.season, self.lookback),
            seed=self.setup.seed,
            device=self.setup.device,
            parameters=given,
        )
        self.models: list[Forecaster] = []
        for first, stop, n in zip(known.offsets, known.offsets[1:], n_train, strict=False):
            model = build(self.name, setup)
            model.fit(known.values[first:stop], int(n))
            self.models.append(model)
        return self

    def forecast(self, known: Series) -> Forecasts:
        contexts = _ends(known, self.lookback)
        found = [
            model.forecast_contexts(context[None], self.setup.horizon)
            for model, context in zip(self.models, contexts, strict=True)
        ]
        return Forecasts(point=np.concatenate(found))


def _ends(known: Series, lookback: int) -> NDArray[np.float64]:
    """Return the last rows of every series, (S, L, M)."""
    rows = known.offsets[1:, None] - np.arange(lookback, 0, -1)
    contexts: NDArray[np.float64] = known.values[rows]
    return contexts


# --- by name --------------------------------------------------------------------------------------

RIVALS: Mapping[str, Callable[[RivalSetup], Rival]] = {
    "RepeatLast": lambda setup: _Naive(1, setup.horizon, **setup.parameters),
    "SeasonalNaive": lambda setup: _Naive(
        **{"period": setup.season, "horizon": setup.horizon, **setup.parameters}
    ),
    "RLinear": _RLinear,
    "TSM2": _tsm2,
    "TSM2Zero": _zero,
}
"""The models of this package, by name."""

FLOOR = ("RepeatLast", "SeasonalNaive", "RLinear")
"""What a model should beat."""

_LIBRARIES = {
    "ETS": ("statsforecast", "AutoETS", "compare"),
    "Theta": ("statsforecast", "AutoTheta", "compare"),
    "LightGBM": ("mlforecast", "LGBMRegressor", "compare"),
    "Chronos": ("chronos", "Chronos", "chronos"),
}
"""Library, name there, and tsm2's extra, of models with names of their own."""


def installed() -> tuple[str, ...]:
    """Return what `compare` runs if nothing is named: the floor, ours, and what is installed.

    Chronos is not among them, because it loads its weights from the network.
    """
    found = [name for name in ("ETS", "Theta") if find_spec("statsforecast")]
    if find_spec("mlforecast") and find_spec("lightgbm"):
        found.append("LightGBM")
    return (*FLOOR, *found, "TSM2Zero", "TSM2")


def make_rival(name: str, setup: RivalSetup) -> Rival:
    """Return the model of a name, not yet fitted.

    Raises
    ------
    ParameterError
        No model has this name, its library is not installed, or it does not take a parameter.
    """
    library, own = _library_of(name)
    try:
        if library:
            module = import_module(f"tsm2.benchmark.peers.from_{library}")
            rival: Rival = module.on_tables(own)(setup)
            return rival
        if name in RIVALS:
            return RIVALS[name](setup)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"the model {name} cannot be made: {error}") from error
    return _EachAlone(name, setup)


def check_rival(name: str, setup: RivalSetup) -> None:
    """Find out before any work whether a model can be made.

    Raises
    ------
    ParameterError
        As `make_rival`.
    """
    library, _ = _library_of(name)
    if name in RIVALS:
        make_rival(name, setup)
    elif not library:
        own = {n: v for n, v in setup.parameters.items() if n != "lookback"}
        lookback = max(2, setup.season)
        sizes: dict[str, Any] = {
            "lookback": lookback,
            "horizon": setup.horizon,
            "season": setup.season,
        }
        check(name, Setup(**sizes, parameters=own))


def _library_of(name: str) -> tuple[str | None, str]:
    """Return the library of a model that takes whole tables, and the model's name there."""
    library, colon, own = name.partition(":")
    if name in _LIBRARIES:
        library, own, extra = _LIBRARIES[name]
    elif colon and library == "statsforecast":
        extra = "compare"
    else:
        return None, name
    if find_spec(library) is None:
        raise ParameterError(
            f"the model {name} needs {library}, which is not installed. Install it with tsm2's "
            f"extra {extra!r}: pip install 'tsm2[{extra}]'."
        )
    return library, own
