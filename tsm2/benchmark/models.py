"""Models by name: ours, the floor, those of peer libraries, and your own.

A name may carry parameters, as a call does:

    TSM2, RepeatLast, SeasonalNaive, RLinear, NLinear, DLinear        in this package
    TSM2Zero                                                          in it too, learns from no row
    RLinear(max_epochs=5)                                             with parameters
    sklearn:Ridge, neuralforecast:PatchTST, darts:NLinearModel, sktime:ThetaForecaster
                                                                      any model of a peer
    my_models:Mean                                                    a class of your own module

A model of your own is a class that is called with a `Setup` and does what `Forecaster` says.

Sizes: T rows, M variates, B windows, L lookback, H horizon.
"""

import ast
import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tsm2.benchmark.baselines import DLinear, NLinear, RepeatLast, RLinear, SeasonalNaive
from tsm2.errors import ParameterError
from tsm2.forecaster import TSM2Forecaster

__all__ = ["MODELS", "PEERS", "Forecaster", "ModelName", "Setup", "build", "check", "uses_seed"]


class Forecaster(Protocol):
    """What a model does to be measured.

    One that reads more rows than it was told, since it was given several lookbacks to try, says how
    many in `rows_read`.
    """

    def fit(self, values: NDArray[np.float64], n_train: int) -> object:
        """Learn from the training and validation rows, (T, M), in the file's units.

        The first `n_train` rows are for training, the rest chooses: epochs, settings.
        """
        ...

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return forecasts, (B, H, M), for contexts, (B, L, M), both in the file's units."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a model is told before it sees any row."""

    lookback: int
    """Rows that it reads."""
    horizon: int
    """Rows that it forecasts."""
    season: int
    """Rows of a day; of a week for daily rows, and of a year for weekly ones."""
    seed: int = 0
    """Seed of all that is random."""
    device: str = "cpu"
    """Where to train: "auto", "cpu", "cuda" or "mps"."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What was given with the model's name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelName:
    """A model's name, taken apart."""

    name: str
    """The name without parameters, such as "RLinear" or "sklearn:Ridge"."""
    parameters: Mapping[str, Any]
    """The parameters given with it."""

    @classmethod
    def read(cls, text: str) -> Self:
        """Take apart a name with parameters.

        Raises
        ------
        ParameterError
            It does not read like a call with plain values.

        Examples
        --------
        >>> ModelName.read("sklearn:Ridge(alpha=10.0)").parameters
        {'alpha': 10.0}
        """
        match = re.fullmatch(r"\s*([\w.]+(?::\w+)?)\s*(\(.*\))?\s*", text, re.DOTALL)
        try:
            if match is None:
                raise ValueError("it is no name")
            call = ast.parse(f"f{match[2] or '()'}", mode="eval").body
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                raise ValueError("it is no name")
            parameters = {each.arg or "": ast.literal_eval(each.value) for each in call.keywords}
            if call.args or "" in parameters:
                raise ValueError("parameters need names")
            json.dumps(parameters)
        except (ValueError, SyntaxError, TypeError) as error:
            raise ParameterError(
                f"cannot read the model {text!r} ({error}). Write NAME or NAME(parameter=value), "
                f"with plain values: RLinear(max_epochs=5), sklearn:Ridge(alpha=10)."
            ) from error
        return cls(name=match[1], parameters=parameters)


# --- ours -----------------------------------------------------------------------------------------


class _Ours:
    """`TSM2Forecaster` with the protocol's rows as its validation rows."""

    def __init__(self, estimator: TSM2Forecaster) -> None:
        self.estimator = estimator

    def fit(self, values: NDArray[np.float64], n_train: int) -> Self:
        share = (len(values) - n_train) / len(values)
        self.estimator.set_params(validation_fraction=share).fit(values)
        return self

    @property
    def rows_read(self) -> int:
        return self.estimator.fitted_.lookback

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        forecast: NDArray[np.float64] = self.estimator.forecast_contexts(contexts, horizon)
        return forecast


def _tsm2(setup: Setup) -> _Ours:
    model = TSM2Forecaster(setup.lookback, setup.horizon, **_told(setup))
    return _Ours(model.set_params(**setup.parameters))


def _zero(setup: Setup) -> _Ours:
    """Return the pretrained network, which reads rows of its own number."""
    return _Ours(TSM2Forecaster.from_pretrained("zero", **{**_told(setup), **setup.parameters}))


def _told(setup: Setup) -> dict[str, Any]:
    """Return what our models are told: the season too, which rows without stamps do not tell."""
    season = setup.season if setup.season > 1 else None
    return {"season": season, "device": setup.device, "random_state": setup.seed}


def _seasonal_naive(setup: Setup) -> SeasonalNaive:
    period: int = setup.parameters.get("period", setup.season)
    unknown = set(setup.parameters) - {"period"}
    if unknown:
        raise TypeError(f"unexpected parameters {sorted(unknown)}; it has: period")
    if not 1 <= period <= setup.lookback:
        raise ParameterError(
            f"SeasonalNaive repeats the last {period} rows (period), but reads only "
            f"{setup.lookback} (lookback). Raise lookback, or pass SeasonalNaive(period=...)."
        )
    return SeasonalNaive(period)


def _linear(kind: type[RLinear | NLinear | DLinear]) -> Callable[[Setup], Forecaster]:
    def build_linear(setup: Setup) -> Forecaster:
        fixed: dict[str, Any] = {"device": setup.device, "random_state": setup.seed}
        return kind(setup.lookback, setup.horizon, **fixed, **setup.parameters)

    return build_linear


MODELS: Mapping[str, Callable[[Setup], Forecaster]] = {
    "TSM2": _tsm2,
    "TSM2Zero": _zero,
    "RepeatLast": lambda setup: RepeatLast(**setup.parameters),
    "SeasonalNaive": _seasonal_naive,
    "RLinear": _linear(RLinear),
    "NLinear": _linear(NLinear),
    "DLinear": _linear(DLinear),
}
"""The models of this package, by name."""

PEERS = ("sklearn", "neuralforecast", "darts", "sktime")
"""Peer libraries; ``tsm2.benchmark.peers`` has a module for each."""

_SEEDLESS = {"RepeatLast", "SeasonalNaive"}


# --- by name --------------------------------------------------------------------------------------


def build(name: str, setup: Setup) -> Forecaster:
    """Return the model of a name, not yet fitted.

    Parameters
    ----------
    name
        Name without parameters; those are in the setup.
    setup
        What the model is told.

    Raises
    ------
    ParameterError
        No model has this name, its library is not installed, or it does not take a parameter.
    """
    place, colon, kind = name.partition(":")
    if not colon:
        if name not in MODELS:
            near = difflib.get_close_matches(name, MODELS, 2)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ParameterError(
                f"no model is named {name!r}.{hint} Known: {', '.join(MODELS)}; "
                f"{', '.join(f'{peer}:NAME' for peer in PEERS)}; or MODULE:CLASS of your own."
            )
        make = MODELS[name]
    elif place in PEERS:
        _require_installed(place)
        make = _adapter(place).adapt(kind)
    else:
        make = _own(place, kind)
    try:
        return make(setup)
    except TypeError as error:
        raise ParameterError(f"the model {name} cannot be made: {error}") from error
    except ValueError as error:
        raise ParameterError(f"the model {name} does not take a parameter: {error}") from error


def check(name: str, setup: Setup) -> None:
    """Find out before any work whether a model can be made; your own is left for later.

    Raises
    ------
    ParameterError
        As `build`.
    """
    place, colon, _ = name.partition(":")
    if place in PEERS and place != "sklearn":
        _require_installed(place)  # these take seconds to import: their jobs do
    elif not colon or place == "sklearn":
        build(name, setup)


def uses_seed(name: str, parameters: Mapping[str, Any]) -> bool:
    """Tell whether a model's errors differ from seed to seed, so that it runs with each.

    Examples
    --------
    >>> uses_seed("RLinear", {}), uses_seed("RepeatLast", {}), uses_seed("sklearn:Ridge", {})
    (True, False, False)
    """
    if name.startswith("sklearn:"):
        seeded: bool = _adapter("sklearn").uses_seed(name.partition(":")[2], parameters)
        return seeded
    return name not in _SEEDLESS


def _adapter(peer: str) -> ModuleType:
    return import_module(f"tsm2.benchmark.peers.from_{peer}")


def _require_installed(peer: str) -> None:
    if find_spec(peer) is None:
        raise ParameterError(
            f"models named {peer}:... need {peer}, which is not installed. Install it with "
            f"tsm2's extra {peer!r}: pip install 'tsm2[{peer}]'."
        )


def _own(module: str, name: str) -> Callable[[Setup], Forecaster]:
    try:
        found: Callable[[Setup], Forecaster] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ParameterError(
            f"there is no module {module!r} for the model {module}:{name}, and no peer of that "
            f"name ({', '.join(PEERS)}). Put {module}.py into the folder you start from."
        ) from error
    except AttributeError as error:
        raise ParameterError(f"the module {module!r} has no {name!r}.") from error
    return found
