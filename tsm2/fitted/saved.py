"""SavedFit: a fit as a model folder holds it, beside the parameters of the estimator.

    SavedFit -> to_json, tensors -> `tsm2.saving` -> SavedFit.restored

A checksum tells what was damaged by chance. What was written on purpose or by another program is
found out here, when it is read and not when it first forecasts: sizes are compared before anything
of that size is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsm2.errors import FrameError, ParameterError, SavedModelError, WindowError
from tsm2.fitted.calibration import Calibration
from tsm2.fitted.model import FittedModel
from tsm2.networks.combined import ClassicalMean
from tsm2.networks.config import NetworkConfig
from tsm2.networks.ensemble import Ensemble
from tsm2.networks.tsm2 import TSM2Network
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.prepared.codings import Codings
from tsm2.prepared.roles import Roles
from tsm2.prepared.scaling import Scaling
from tsm2.saving import check_tensors
from tsm2.tables.calendars import check_calendar
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.holidays import is_holiday
from tsm2.tables.layout import Layout
from tsm2.tables.series import series_from_json, series_to_json
from tsm2.tables.write import write
from tsm2.training.choices import chosen
from tsm2.training.ensembles import make_network
from tsm2.training.recipe import CHOSEN, Recipe

__all__ = ["SavedFit"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SavedFit:
    """What `fit` leaves behind, to be written and to be found again."""

    model: FittedModel
    """What forecasts."""
    history: pd.DataFrame
    """Losses of every epoch."""
    choice: Mapping[str, Any]
    """What was chosen, by the names of the estimator's parameters."""
    floor: pd.Series[float]
    """Mean squared errors on the validation rows, on standardised values, by name; may be empty."""
    n_rows: int | None
    """Rows that it was fitted on, of all series together; None if it was made elsewhere."""

    def to_json(self) -> dict[str, Any]:
        """Return all but the tensors, as plain types; the network's settings are its recipe's."""
        network = self.model.network
        own: dict[str, Any] = {}
        if isinstance(network, ZeroShotNetwork):
            more = {"season": network.season, "solved": network.solved is not None}
            own = {"pretrained": asdict(network.config) | more}
        if self.model.classical is not None:
            own |= {"classical": asdict(self.model.classical)}
        calibration = self.model.calibration
        if calibration is not None and math.isfinite(calibration.stretches):
            own |= {"stretches": calibration.stretches}
        return own | {
            "context": series_to_json(self.model.context),
            "covariates": self.model.codings.to_json(),
            "history": self.history.to_dict("list"),
            "choices": [self.choice],
            "floor": self.floor.to_dict(),
            "rows": self.n_rows,
            **_flags_to_json("logarithms", self.model.scaling.logs),
            **_flags_to_json("nonnegative", self.model.nonnegative),
        }

    def tensors(self) -> dict[str, Tensor | NDArray[Any]]:
        """Return the numbers of the model by name."""
        model = self.model
        weights = model.network.state_dict().items()
        found: dict[str, Tensor | NDArray[Any]] = {
            **{f"network.{name}": weight.cpu() for name, weight in weights},
            "center": model.scaling.center,
            "scale": model.scaling.scale,
            "context": model.context.values,
            "context_offsets": model.context.offsets,
            **{f"covariates.{name}": rows for name, rows in model.codings.arrays().items()},
        }
        if model.scaling.unbent is not None:
            found["unbent"] = model.scaling.unbent
        if model.calibration is not None:
            found["calibration"] = model.calibration.scores.numpy()
        return found

    @classmethod
    def restored(
        cls, saved: Mapping[str, Any], tensors: Mapping[str, Tensor], recipe: Recipe
    ) -> Self:
        """Return what `to_json` and `tensors` gave.

        Parameters
        ----------
        saved, tensors
            As they were given.
        recipe
            What the parameters of the estimator ask for.

        Raises
        ------
        SavedModelError
            The parts do not fit together.
        """
        settings = {name: getattr(recipe, name) for name in CHOSEN} | {"season": None}
        (choice,) = saved.get("choices", [settings])  # older ones hold none: all was set
        return cls(
            model=_restored_model(saved, tensors, recipe, choice),
            history=pd.DataFrame(saved["history"]),
            choice=choice,
            floor=pd.Series(saved.get("floor", {}), dtype=float),
            n_rows=saved.get("rows"),
        )


def _restored_model(
    saved: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    recipe: Recipe,
    choice: Mapping[str, Any],
) -> FittedModel:
    choices = pd.DataFrame([{**choice, "chosen": True}])
    sizes = dict(saved.get("pretrained") or {})
    blocks = recipe.network["blocks"] if chosen(choices)["mixers"] else 0
    _check_count_of_blocks(blocks, recipe.n_estimators, tensors)
    parts = dict(tensors)
    names = ["center", "scale", "context", "context_offsets"]
    names += ["unbent"] if saved.get("logarithms") is not None else []
    numbers = {name: parts.pop(name).numpy() for name in names}
    _check_numbers(numbers, len(saved["context"]["layout"]["columns"]))
    center, scale, context, offsets, *unbent = numbers.values()
    series = series_from_json(saved["context"], context, offsets)
    scores = parts.pop("calibration", None)
    kept = [name for name in parts if name.startswith("covariates.")]
    rows = {name.partition(".")[2]: parts.pop(name).numpy() for name in kept}
    roles = Roles.of(recipe.target, series.layout)
    codings = Codings.from_json(saved["covariates"], rows)
    _check_labels(series.layout, codings.calendar)
    config, members = recipe.network_config(choices, roles, codings), range(recipe.n_estimators)
    # Of what the weights say, since models that were saved earlier have no bound.
    config = replace(config, bounded=any(name.endswith("bound.largest") for name in tensors))
    season, solved = int(sizes.pop("season", 0)), bool(sizes.pop("solved", False))
    if sizes:
        config = NetworkConfig(**sizes)

    def made() -> TSM2Network | Ensemble | ZeroShotNetwork:
        if sizes:
            return ZeroShotNetwork(config, season, solved=solved)
        return make_network(config, members)

    with torch.device("meta"):  # sizes first: nothing of a size that was not saved is made
        shapes = {name: tuple(each.shape) for name, each in made().state_dict().items()}
    weights = {name.removeprefix("network."): weight for name, weight in parts.items()}
    check_tensors(weights, shapes)
    network = made()
    _check_scores(scores, len(roles.targets), config.horizon)
    network.load_state_dict(weights)
    model = FittedModel(
        network=network.eval(),
        scaling=Scaling(
            center=center,
            scale=scale,
            logs=_flags(saved, "logarithms", center.shape[-1]),
            unbent=unbent[0] if unbent else None,
        ),
        roles=roles,
        codings=codings,
        context=series,
        missing=recipe.missing,
        nonnegative=_flags(saved, "nonnegative", len(roles.targets)),
        classical=_classical(saved),
        calibration=None if scores is None else Calibration(scores=scores, **_stretches(saved)),
        device=recipe.device,
        capture_steps=recipe.training["capture_steps"],
    )
    _rehearse(model)
    return model


def _flags_to_json(name: str, flags: NDArray[np.bool_] | None) -> dict[str, list[bool]]:
    return {} if flags is None else {name: flags.tolist()}


def _flags(saved: Mapping[str, Any], name: str, n_columns: int) -> NDArray[np.bool_] | None:
    """Return of which columns something is said, (M,); None if nothing was saved of it.

    Raises
    ------
    SavedModelError
        They are not as many as there are columns.
    """
    told = saved.get(name)
    if told is None:
        return None
    flags = np.asarray(told)
    if flags.dtype != bool or flags.shape != (n_columns,):
        raise SavedModelError(
            f"{name!r} of the saved model is {told!r}, but one truth value for each of {n_columns} "
            f"columns is needed. Save the model again."
        )
    return flags


def _classical(saved: Mapping[str, Any]) -> ClassicalMean | None:
    """Return what the network is averaged with, if that was saved.

    Raises
    ------
    SavedModelError
        Its rows or its season are no counts.
    """
    told = saved.get("classical")
    if told is None:
        return None
    if (
        not isinstance(told, Mapping)
        or set(told) != {"rows", "season"}
        or not all(type(each) is int and each >= 1 for each in told.values())
    ):
        raise SavedModelError(
            f"the saved classical forecasts are {told!r}, but rows and season, whole numbers of at "
            f"least 1, are needed. Save the model again."
        )
    return ClassicalMean(**told)


def _stretches(saved: Mapping[str, Any]) -> dict[str, float]:
    """Return how long the rows of the scores are, if that was saved.

    Raises
    ------
    SavedModelError
        It is no number of at least 1.
    """
    told = saved.get("stretches")
    if told is None:
        return {}
    if isinstance(told, bool) or not isinstance(told, int | float) or not told >= 1:
        raise SavedModelError(
            f"the saved stretches are {told!r}, but a number of at least 1 is needed. Save the "
            f"model again."
        )
    return {"stretches": float(told)}


def _rehearse(model: FittedModel) -> None:
    """Make a forecast, but for the network's part, so that what does not fit is found now."""
    with suppress(FrameError, ParameterError, WindowError):  # it asks for covariates, in words
        model.latest(None, CovariateTables(), model.horizon)
    rows = model.roles.of_targets(model.context)
    write(rows.continued(np.zeros((len(rows.ids), model.horizon, len(model.roles.targets)))))


def _check_count_of_blocks(blocks: int, members: int, tensors: Mapping[str, Tensor]) -> None:
    """Check that as many blocks can have been saved, before that many are made.

    Raises
    ------
    SavedModelError
        There are fewer tensors than blocks.
    """
    needed = members * max(1, blocks)
    if needed > len(tensors):
        raise SavedModelError(
            f"blocks={blocks} and n_estimators={members} need at least {needed} tensors, but only "
            f"{len(tensors)} were saved. Save the model again."
        )


def _check_numbers(arrays: Mapping[str, NDArray[np.generic]], n_columns: int) -> None:
    """Check the dtypes and shapes of the units and the stored context.

    Parameters
    ----------
    arrays
        "center" and "scale", "context" and "context_offsets"; "unbent" if there is any.
    n_columns
        Columns M of the table.

    Raises
    ------
    SavedModelError
        One of them does not fit; the message says which.
    """
    dtypes = {"context_offsets": np.dtype(np.int64)}
    n_series = arrays["context_offsets"].size - 1
    units: set[tuple[int, ...]] = {(n_columns,), (n_series, n_columns)}
    shapes: dict[str, set[tuple[int, ...]]] = {
        "center": units,
        "scale": units & {arrays["center"].shape},
        "unbent": units & {arrays["center"].shape},
        "context": {(len(arrays["context"]) if arrays["context"].ndim else 0, n_columns)},
        "context_offsets": {(n_series + 1,)},
    }
    for name, array in arrays.items():
        dtype = dtypes.get(name, np.dtype(np.float64))
        if array.dtype != dtype or array.shape not in shapes[name]:
            needed = " or ".join(map(str, sorted(shapes[name]))) or "that of center"
            raise SavedModelError(
                f"the saved {name} is {array.dtype} of shape {array.shape}, but {dtype} of shape "
                f"{needed} is needed. Save the model again."
            )


def _check_labels(layout: Layout, calendar: Sequence[str]) -> None:
    """Check what is only read when a forecast is written: dtypes of labels, and a calendar's names.

    Raises
    ------
    TypeError
        There is no such dtype.
    ParameterError
        There is no such feature of a calendar.
    """
    check_calendar([name for name in calendar if not is_holiday(name)])
    for name in (layout.columns_dtype, layout.id_dtype):
        pd.api.types.pandas_dtype(name)


def _check_scores(scores: Tensor | None, n_targets: int, horizon: int) -> None:
    """Check the scores of a calibration, (W, Mt, H).

    Raises
    ------
    SavedModelError
        They do not fit the model.
    """
    if scores is None:
        return
    fits = scores.ndim == 3 and scores.shape[1:] == (n_targets, horizon) and len(scores)
    if not scores.is_floating_point() or not fits:
        raise SavedModelError(
            f"the saved calibration is {scores.dtype} of shape {tuple(scores.shape)}, but floats "
            f"of shape (windows, {n_targets}, {horizon}) are needed. Save the model again."
        )
