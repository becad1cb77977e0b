"""Parameters: those of `TSM2Forecaster`, what each may be, and which do not go together.

`CONSTRAINTS` is in scikit-learn's form, whose messages name the estimator. What it says of the
network's settings is what `NetworkConfig` says of its fields.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    StrOptions,
    validate_parameter_constraints,
)

from tsm2.errors import ParameterError
from tsm2.networks.config import HINTS, SETTINGS
from tsm2.tables.business import frequency_from_json, frequency_to_json
from tsm2.tables.frequencies import stated_frequency
from tsm2.tables.gaps import Missing
from tsm2.tables.quantiles import check_levels, with_median

__all__ = [
    "CONSTRAINTS",
    "Parameters",
    "changed_parameters",
    "check_count",
    "check_generator",
    "check_parameters",
    "check_path",
    "check_seconds",
    "check_tuning",
    "parameters_from_plain",
    "plain_parameters",
]

_COUNT = Interval(Integral, 1, None, closed="left")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_POSITIVE = Interval(Real, 0, None, closed="neither")


def _constraints(hint: Any) -> list[Any]:
    """Return scikit-learn's form of what a setting of the network may be."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return [each for part in parts for each in _constraints(part)]
    if origin is Annotated:
        kind, (least, below) = parts
        return [Interval(Integral if kind is int else Real, least, below, closed="left")]
    if origin is Literal:
        return [StrOptions(set(parts))]
    return ["boolean" if hint is bool else None if hint is NoneType else hint]


@dataclass(eq=False, repr=False, match_args=False)
class Parameters:
    """The parameters of `TSM2Forecaster`, which says what each means, with their defaults."""

    lookback: int | Sequence[int] | Literal["auto"] = "auto"
    horizon: int = 24
    _: KW_ONLY
    features: int = 16
    blocks: int = 1
    patch_length: int | None = None
    patch_stride: int | None = None
    d_state: int = 4
    d_conv: int = 4
    expand: int = 1
    dropout: float = 0.0
    pre_norm: Literal["2d", "layer", "rms", "none"] = "2d"
    selection: Literal["convolved", "input"] = "convolved"
    time_mixer: Literal["selective", "linear", "none"] = "selective"
    variate_mixer: Literal["selective", "mlp", "none"] = "selective"
    variate_directions: Literal["forward", "both"] = "both"
    averaging: Literal["stream", "identity", "mean"] = "stream"
    averaging_learned: bool = True
    averaging_reach: int | None = None
    readout: Literal["stream", "last"] = "stream"
    zero_start: bool = True
    zero_head: bool = True
    linear_start: Literal["auto", "exact", "random"] = "auto"
    refit_linear: bool = True
    epoch_steps: int | None = None
    min_steps: int = 0
    max_steps: int | None = None
    start_margin: float = 0.02
    season: int | None = None
    instance_norm: bool = True
    level: Literal["auto", "mean", "last"] = "auto"
    separate_heads: bool | Literal["auto"] = "auto"
    quantiles: Sequence[float] | None = None
    loss: Literal["mse", "mae", "huber", "quantile"] | None = None
    max_epochs: int = 10
    batch_size: int | Literal["auto"] = 32
    learning_rate: float | None = None
    mixer_learning_rate: float | None = None
    weight_decay: float = 0.0
    sam_radius: float | None = None
    ema_decay: float = 0.0
    gradient_clip: float = 1.0
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    validation_fraction: float = 0.2
    patience: int = 5
    frequency: str | pd.offsets.BaseOffset | None = None
    target: Hashable | Sequence[Hashable] | None = None
    calendar: Sequence[str] | Literal["auto"] = ()
    holidays: Sequence[str] = ()
    missing: Missing = "raise"
    scaling: Literal["series", "global"] = "series"
    logarithms: bool | Literal["auto"] = "auto"
    nonnegative: bool | Literal["auto"] = "auto"
    classical: bool | Literal["auto"] = "auto"
    leaders: bool | Literal["auto"] = "auto"
    sampling: Literal["windows", "series"] = "windows"
    scaled_errors: bool | Literal["auto"] = "auto"
    id_col: str = "unique_id"
    time_col: str = "ds"
    target_col: str | Sequence[str] = "y"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    capture_steps: Literal["auto"] | bool = "auto"
    backend: str = "auto"
    random_state: int | np.random.RandomState | None = None
    n_estimators: int = 1
    n_jobs: int | None = None
    pretrained: str | None = None
    warm_start: bool = False
    verbose: int = 0


Parameters.__init__.__qualname__ = "TSM2Forecaster.__init__"  # which Python's complaints name

CONSTRAINTS: dict[str, list[Any] | str] = {
    **{name: _constraints(HINTS[name]) for name in ("horizon",)},
    **{each.name: _constraints(each.annotation) for each in SETTINGS},
    "lookback": [_COUNT, list, tuple, StrOptions({"auto"})],
    "level": [StrOptions({"auto", "mean", "last"})],
    "separate_heads": ["boolean", StrOptions({"auto"})],
    "linear_start": [StrOptions({"auto", "exact", "random"})],
    "refit_linear": ["boolean"],
    "epoch_steps": [_COUNT, None],
    "min_steps": [Interval(Integral, 0, None, closed="left")],
    "max_steps": [_COUNT, None],
    "start_margin": [Interval(Real, 0, 1, closed="left")],
    "season": [_COUNT, None],
    "quantiles": ["array-like", None],
    "loss": [StrOptions({"mse", "mae", "huber", "quantile"}), None],
    "max_epochs": [_COUNT],
    "batch_size": [_COUNT, StrOptions({"auto"})],
    "learning_rate": [_POSITIVE, None],
    "mixer_learning_rate": [_POSITIVE, None],
    "weight_decay": [_NOT_NEGATIVE],
    "sam_radius": [_NOT_NEGATIVE, None],
    "ema_decay": [Interval(Real, 0, 1, closed="left")],
    "gradient_clip": [_POSITIVE],
    "schedule": [StrOptions({"onecycle", "cosine", "constant"})],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "patience": [_COUNT],
    "frequency": [str, pd.offsets.BaseOffset, None],
    "target": "no_validation",
    "calendar": "no_validation",
    "holidays": "no_validation",
    "missing": [StrOptions({"raise", "mask", "ffill"})],
    "scaling": [StrOptions({"series", "global"})],
    "logarithms": ["boolean", StrOptions({"auto"})],
    "nonnegative": ["boolean", StrOptions({"auto"})],
    "classical": ["boolean", StrOptions({"auto"})],
    "leaders": ["boolean", StrOptions({"auto"})],
    "sampling": [StrOptions({"windows", "series"})],
    "scaled_errors": ["boolean", StrOptions({"auto"})],
    "id_col": [str],
    "time_col": [str],
    "target_col": [str, list, tuple, np.ndarray, pd.Index],
    "device": [StrOptions({"auto", "cpu", "cuda", "mps"})],
    "precision": [StrOptions({"float32", "bfloat16"})],
    "compile": ["boolean"],
    "capture_steps": ["boolean", StrOptions({"auto"})],
    "random_state": ["random_state"],
    "n_estimators": [_COUNT],
    "n_jobs": [_COUNT, Interval(Integral, None, -1, closed="right"), None],
    "pretrained": [str, None],
    "warm_start": ["boolean"],
    "verbose": ["verbose"],
}
"""What each parameter may be."""


def check_parameters(estimator: str, given: Mapping[str, Any]) -> None:
    """Check all parameters of an estimator, each alone and those that belong together.

    Parameters
    ----------
    estimator
        Name of its class, for the message.
    given
        Every parameter by name.

    Raises
    ------
    ParameterError
        One has the wrong type or lies outside its range, or two do not go together.
    """
    try:
        validate_parameter_constraints(CONSTRAINTS, given, caller_name=estimator)
    except InvalidParameterError as error:
        raise ParameterError(str(error)) from None
    _check_lookback(given["lookback"], given["patch_length"])
    if given["readout"] == "last" and given["zero_start"]:
        raise ParameterError(
            "readout='last' needs zero_start=False: mixers that start at zero would forecast "
            "a constant and learn nothing."
        )
    _check_steps(given["max_epochs"], given["min_steps"], given["max_steps"])
    if given["pretrained"] is not None:
        _check_pretrained(given)
    loss, quantiles = given["loss"], given["quantiles"]
    if quantiles is not None and with_median(check_levels(quantiles)) == (0.5,):
        raise ParameterError(
            "quantiles=(0.5,) is the median alone: pass loss='mae', which forecasts it."
        )
    if loss is not None and (loss == "quantile") != (quantiles is not None):
        raise ParameterError(
            f"loss={loss!r} does not go with quantiles={quantiles}: quantiles, such "
            f"as (0.1, 0.9), are learnt by loss='quantile' and by nothing else. Pass both, or "
            f"neither."
        )


def _check_lookback(lookback: Any, patch_length: int | None) -> None:
    if isinstance(lookback, str):
        return
    rows = [lookback] if isinstance(lookback, Integral) else list(lookback)
    if not rows or not all(isinstance(each, int | np.integer) and each >= 1 for each in rows):
        raise ParameterError(
            "lookback needs a whole number of rows, 1 at least, or several of these, or 'auto'; "
            f"got {lookback!r}."
        )
    if patch_length is not None and patch_length > min(rows):
        raise ParameterError(
            f"patch_length={patch_length} is longer than lookback={min(rows)}. Lower "
            f"patch_length, or pass None for a length that fits."
        )


def _check_steps(max_epochs: int, min_steps: int, max_steps: int | None) -> None:
    if max_steps is not None and max_steps < max(max_epochs, min_steps):
        given = f"min_steps={min_steps}" if max_steps < min_steps else f"max_epochs={max_epochs}"
        raise ParameterError(
            f"max_steps={max_steps} leaves no room for {given}: an epoch takes one step at least. "
            f"Raise max_steps, or lower {given.partition('=')[0]}."
        )


def _check_pretrained(given: Mapping[str, Any]) -> None:
    """Check that nothing is asked of a pretrained network that it was not trained for."""
    asked = {
        "target": given["target"] is not None,
        "logarithms": given["logarithms"] is True,
        "classical": given["classical"] is True,
        "leaders": given["leaders"] is True,
        "scaled_errors": given["scaled_errors"] is True,
        "calendar": given["calendar"] != "auto" and bool(len(given["calendar"])),
        "holidays": bool(len(given["holidays"])),
        "n_estimators": given["n_estimators"] != 1,
    }
    for name in asked:
        if asked[name]:
            raise ParameterError(
                f"{name}={given[name]!r} does not go with pretrained={given['pretrained']!r}: that "
                f"network reads the columns that it forecasts and nothing else. Leave {name} out, "
                f"or pass pretrained=None and fit a network of your own."
            )


def changed_parameters(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the given parameters that are not at their default."""
    return {name: given[name] for name in given if repr(given[name]) != repr(defaults[name])}


def plain_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as a saved model holds them: no arrays, generators and offsets.

    A `RandomState` goes on with every fit; where it would go on is not kept, so that a loaded
    model draws anew, as None does.
    """
    plain = dict(given)
    for name, value in given.items():
        if isinstance(value, np.ndarray | pd.Index | pd.Series):
            plain[name] = value.tolist()
        elif isinstance(value, np.random.RandomState):
            plain[name] = None
        elif isinstance(value, pd.offsets.BaseOffset):
            plain[name] = frequency_to_json(stated_frequency(value))
    return plain


def parameters_from_plain(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that `plain_parameters` wrote."""
    given = dict(saved)
    if given.get("frequency") is not None:
        given["frequency"] = frequency_from_json(given["frequency"])
    return given


def check_path(name: str, value: object) -> Path:
    """Return an argument that names a file or folder.

    Raises
    ------
    ParameterError
        It is no path.
    """
    if isinstance(value, str | os.PathLike) and (path := os.fspath(value)):
        return Path(os.fsdecode(path))
    raise ParameterError(
        f"{name} must be the path of a file or folder, such as 'model', got {value!r}."
    )


def check_count(name: str, value: object) -> int:
    """Return an argument that counts something.

    Raises
    ------
    ParameterError
        It is no integer of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ParameterError(f"{name} must be an integer of at least 1, got {value!r}.")
    return int(value)


def check_generator(random_state: Any) -> np.random.RandomState:
    """Return the generator that a seed stands for.

    Raises
    ------
    ParameterError
        It is no seed.
    """
    try:
        generator: np.random.RandomState = check_random_state(random_state)
    except ValueError as error:
        raise ParameterError(f"random_state: {error}") from None
    return generator


def check_tuning(checkpoint: object, log_dir: object, max_seconds: float) -> None:
    """Check that nothing is asked of the tuning of pretrained weights that only a fit does.

    Raises
    ------
    ParameterError
        It is to be interrupted, or recorded.
    """
    if checkpoint is not None or log_dir is not None or max_seconds < math.inf:
        raise ParameterError(
            "checkpoint, max_time and log_dir do not go with pretrained weights, which are "
            "tuned in one go: leave them out, and lower max_epochs to end sooner."
        )


def check_seconds(max_time: object) -> float:
    """Return a length of time in seconds.

    Raises
    ------
    ParameterError
        It is neither a number above 0 nor a text such as "90min".
    """
    seconds = 0.0
    if isinstance(max_time, Real):
        seconds = float(max_time)
    elif isinstance(max_time, str | pd.Timedelta):
        with suppress(ValueError):
            seconds = pd.Timedelta(max_time).total_seconds()
    if not seconds > 0:
        raise ParameterError(
            f"max_time must be seconds above 0 or a text such as '90min', got {max_time!r}."
        )
    return seconds
