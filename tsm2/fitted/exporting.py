"""ONNX files of a forecaster: histories in, forecasts out, in the units of the table.

    context (B, L, M), NaN where unknown -> standard units, of logarithms where the model has them
    -> targets and columns that are read
    past (B, L, Cp), future (B, L + H, Cf) -> coded as in the fit
    -> network -> units of the table -> forecast (B, H, Mt), quantiles (B, H, Mt, Q)

The batch B is open: several series stand side by side in it. Units are taken and put back in
float64, the network computes in float32, as in Python. Its scans become ONNX's own `Scan`, which
onnxruntime walks token by token. What is done about gaps is in the graph: a mask is made of NaN,
or the value before is repeated. So are the classical forecasts of a pretrained network, and those
that a fitted one is averaged with: rows before a shorter history are then NaN.

A file is run once before it takes its place, and must say what the model says.

Sizes: B windows, L lookback, M columns, of which Mt targets; H horizon, Q quantiles; Cp past, Cf
future and Cs static covariates, coded: a category is a column of zeros and ones.
Source: https://onnx.ai/onnx/operators/onnx__Scan.html.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsm2.errors import ExportWarning, OutputError, ParameterError
from tsm2.fitted.model import FittedModel
from tsm2.kernels.onnx_program import onnx_program
from tsm2.networks.patches import running_max
from tsm2.prepared.scaling import KNEE
from tsm2.replacing import replacing
from tsm2.tables.business import frequency_to_json

__all__ = ["UnitsAround", "export_onnx"]

_CLOSE = 1e-3  # deviations between a file and its model, which compute in another order


class UnitsAround(nn.Module):
    """A network between the units of tables and standard units, gaps and codings included.

    Parameters
    ----------
    model
        What forecasts; it is left as it is.
    """

    def __init__(self, model: FittedModel) -> None:
        super().__init__()
        self.network = copy.deepcopy(model.forecasting()).to("cpu")
        self.missing, self.needed = model.missing, model.lookback
        self.reaches = model.classical is not None
        self.targets, self.others = list(model.roles.targets), list(model.roles.others)
        units = {"context": (model.scaling.center, model.scaling.scale)}
        self.deviation = model.roles.units(model.scaling).deviation
        if self.takes_units(model):
            units, self.deviation = {}, np.ones(1)
        kinds = {"past": ["past"], "future": ["future", "calendar"], "static": ["static"]}
        for kind, names in kinds.items():
            codings = [
                model.codings.by_kind[name] for name in names if name in model.codings.by_kind
            ]
            if sum(coding.width for coding in codings):
                pairs = [coding.units for coding in codings]
                centers, scales = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
                units[kind] = np.concatenate(centers), np.concatenate(scales)
        for kind, (center, scale) in units.items():
            self.register_buffer(f"{kind}_center", torch.from_numpy(center))
            self.register_buffer(f"{kind}_scale", torch.from_numpy(scale))
        self.logs: Tensor | None
        logs = model.scaling.logs
        self.register_buffer("logs", None if logs is None else torch.from_numpy(logs))
        self.nonnegative: Tensor | None
        flags = model.nonnegative
        self.register_buffer("nonnegative", None if flags is None else torch.from_numpy(flags))
        self.fixed: Tensor | None
        is_one = "static" in units and model.context.layout.alone
        of_variates = torch.from_numpy(model.codings.static).float()[None] if is_one else None
        self.register_buffer("fixed", of_variates)  # (1, Mt, Cs)

    @staticmethod
    def takes_units(model: FittedModel) -> bool:
        """Return whether each history brings its own units along."""
        return model.scaling.center.ndim > 1

    def forward(
        self,
        context: Tensor,
        past: Tensor | None = None,
        future: Tensor | None = None,
        static: Tensor | None = None,
        center: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Forecast histories, float64.

        Parameters
        ----------
        context
            Histories, (B, L, M); NaN where unknown, if the model was fitted to gaps.
        past, future
            Covariates, (B, L, Cp) and (B, L + H, Cf), in the units of their tables.
        static
            Covariates of each history's series, (B, Cs); those of the variates of one table are
            in the file.
        center, scale
            Units of each history, (B, M), where they are not those of one table.

        Returns
        -------
        Forecasts, (B, H, Mt), float64; with a quantile head also all quantiles, (B, H, Mt, Q).
        """
        if center is None or scale is None:
            center = cast("Tensor", self.context_center)[None]
            scale = cast("Tensor", self.context_scale)[None]
        if self.missing == "ffill":
            context = _repeated(context)
            past = None if past is None else _repeated(past)
        targets = context[..., self.targets]
        if self.logs is not None:
            bent = _bent(context, center[:, None], scale[:, None])
            context = torch.where(self.logs, bent, context)
        rows = ((context - center[:, None]) / scale[:, None]).float().transpose(1, 2)  # (B, M, L)
        read = [rows[:, self.others]] if self.others else []
        if past is not None:
            read.append(self._coded("past", past))
        auxiliary: dict[str, Tensor] = {}
        values, known = _known(rows[:, self.targets])
        if self.missing == "mask" or self.reaches:
            auxiliary["mask"] = known
        else:
            values = rows[:, self.targets]
        if read:
            auxiliary["past"] = whole = torch.cat(read, 1)
            if self.missing == "mask":
                auxiliary["past"], auxiliary["past_mask"] = _known(whole)
        if future is not None:
            auxiliary["future"] = self._coded("future", future)
        if self.fixed is not None:
            auxiliary["static"] = self.fixed.expand(values.shape[0], -1, -1)
        elif static is not None:
            coded = self._coded("static", static[:, None])  # (B, Cs, 1)
            auxiliary["static"] = coded.transpose(1, 2).expand(-1, len(self.targets), -1)
        forecast: Tensor = self.network(values, **auxiliary).double()  # (B, Mt, H), or with Q
        if self.reaches and self.missing != "mask":  # what the network needs must be known
            lacks = ~known[..., -self.needed :].all(-1)  # (B, Mt)
            of_all = lacks[(..., *[None] * (forecast.ndim - 2))]
            forecast = forecast.masked_fill(of_all, torch.nan)
        center, scale = (each[:, self.targets][:, None] for each in (center, scale))
        levels = self.network.config.quantiles
        if levels is None:
            restored = self._restored(forecast.transpose(1, 2), center, scale)
            return self._stopped_at_zero(restored, targets)
        columns = forecast.permute(0, 2, 3, 1)  # (B, H, Q, Mt)
        restored = self._restored(columns, center[:, None], scale[:, None])
        quantiles = self._stopped_at_zero(restored, targets[:, None]).transpose(2, 3)
        return quantiles[..., levels.index(0.5)], quantiles

    def _restored(self, forecast: Tensor, center: Tensor, scale: Tensor) -> Tensor:
        """Return a forecast, (..., Mt), in the units of the table."""
        restored = forecast * scale + center
        if self.logs is None:
            return restored
        return torch.where(self.logs[self.targets], _straight(restored, center, scale), restored)

    def _stopped_at_zero(self, forecasts: Tensor, history: Tensor) -> Tensor:
        """Return forecasts, (..., Mt), at zero where the history, (..., L, Mt), cannot be below."""
        if self.nonnegative is None:
            return forecasts
        stops = self.nonnegative & ~(history < 0).any(-2, keepdim=True)
        return torch.where(stops, forecasts.clamp(min=0), forecasts)

    def _coded(self, kind: str, covariates: Tensor) -> Tensor:
        """Return covariates, (B, T, C), in standard units, (B, C, T)."""
        center, scale = getattr(self, f"{kind}_center"), getattr(self, f"{kind}_scale")
        coded: Tensor = ((covariates - center) / scale).float().transpose(1, 2)
        return coded


def _bent(values: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """Return logarithms as `tsm2.prepared.scaling` has them, a straight line below its knee."""
    knee = center + KNEE * scale
    turn = knee.exp()
    return torch.where(values >= turn, values.clamp(min=turn).log(), knee + (values - turn) / turn)


def _straight(bent: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """Return the values of what `_bent` returned."""
    knee = center + KNEE * scale
    return torch.where(bent >= knee, bent.clamp(min=knee).exp(), knee.exp() * (1 + bent - knee))


def _known(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return values that are finite everywhere, and where they are known."""
    unknown = torch.isnan(values)
    return values.masked_fill(unknown, 0.0), ~unknown


def _repeated(rows: Tensor) -> Tensor:
    """Fill gaps in rows, (B, T, C), with the value before; NaN stays where there is none."""
    columns = rows.transpose(1, 2)
    place = torch.arange(columns.shape[-1]).expand_as(columns)
    last = running_max(torch.where(torch.isnan(columns), 0, place))
    return columns.gather(-1, last).transpose(1, 2)


def export_onnx(model: FittedModel, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX file; an earlier file is replaced as a whole or, on failure, kept.

    Beside "context" and what comes of it, covariates are inputs of their own: "past", (batch,
    lookback, columns), "future", (batch, lookback + horizon, columns), which calendar features
    belong to, and of several series "static", (batch, columns). Numbers come in the units of their
    tables, a category as a column of zeros and ones. After a fit to several series with units of
    their own, the inputs "center" and "scale", (batch, columns), are the units of each history. The
    file's metadata, "tsm2", name the columns of every input, the variates, levels and the
    frequency.

    Parameters
    ----------
    model
        Is left as it is.
    path
        The file, usually ending in .onnx.

    Raises
    ------
    ParameterError
        onnx or onnxscript is not installed.
    OutputError
        The folder is missing, the file cannot be written, or it does not say what the model says.
    """
    try:
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ImportError as error:
        raise ParameterError(
            "exporting needs onnx and onnxscript, which are not installed. Install them with "
            "tsm2's extra 'onnx': pip install 'tsm2[onnx]'."
        ) from error
    file = Path(path)
    if not file.absolute().parent.is_dir():
        raise OutputError(f"cannot write {file}: there is no folder {file.parent}. Make it first.")
    whole = UnitsAround(model).eval()
    labels = _labels(model)
    example = _example(model, whole, labels, batch=2)
    batch = torch.export.Dim("batch")
    exported = onnx_program(
        whole,
        example,
        {name: {0: batch} for name in example},
        input_names=list(example),
        output_names=["forecast", "quantiles"] if model.levels else ["forecast"],
    )
    exported.model.metadata_props["tsm2"] = json.dumps(_description(model, labels))
    with replacing(file) as part:
        exported.save(part)
        _check(part, whole, _example(model, whole, labels, batch=3), file)


def _labels(model: FittedModel) -> dict[str, list[str]]:
    """Return what the columns of each input are, by its name."""
    codings, columns = model.codings, list(model.context.layout.columns)
    labels = {
        "context": columns,
        "past": codings.labels("past"),
        "future": codings.labels("future") + codings.labels("calendar"),
        "static": [] if model.context.layout.alone else codings.labels("static"),
    }
    if UnitsAround.takes_units(model):
        labels |= {"center": columns, "scale": columns}
    return {name: [str(label) for label in each] for name, each in labels.items() if each}


def _description(model: FittedModel, labels: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return what the file says of itself, as plain types."""
    layout = model.context.layout
    return {
        "variates": [str(column) for column in model.roles.layout(layout).columns],
        "inputs": dict(labels),
        "lookback": _rows_read(model),
        "horizon": model.horizon,
        "frequency": frequency_to_json(layout.frequency),
        "quantiles": list(model.levels) or None,
        "missing": model.missing,
    }


def _rows_read(model: FittedModel) -> int:
    """Return the rows of a context: what the network needs or, where more are read, is known."""
    return max(model.lookback, min(model.reach, int(model.context.counts.max())))


def _example(
    model: FittedModel, whole: UnitsAround, labels: Mapping[str, list[str]], *, batch: int
) -> dict[str, Tensor]:
    """Return inputs as they may come, in the units of the fit, with gaps if these may be."""
    generator = torch.Generator().manual_seed(0)
    spans = {"context": _rows_read(model), "past": model.lookback}
    spans["future"] = model.lookback + model.horizon
    front = spans["context"] - model.lookback
    found: dict[str, Tensor] = {}
    for name, columns in labels.items():
        shape = (batch, spans[name], len(columns)) if name in spans else (batch, len(columns))
        if name in ("center", "scale"):
            found[name] = torch.full(shape, float(name == "scale"), dtype=torch.float64)
            continue
        given = torch.randn(shape, generator=generator, dtype=torch.float64)
        center = getattr(whole, f"{name}_center", 0.0)
        found[name] = given * getattr(whole, f"{name}_scale", 1.0) + center
        if name == "context" and whole.logs is not None:
            scale = getattr(whole, "context_scale", torch.ones(1))
            straight = _straight(found[name], torch.as_tensor(center), scale)
            found[name] = torch.where(whole.logs, straight, found[name])
        if name == "context" and whole.reaches:
            found[name][:1, : front // 2] = torch.nan  # a history that is shorter
        if model.missing != "raise" and name in ("context", "past"):
            # The row before is there, to be repeated.
            found[name][:, front + 1 : front + 2] = torch.nan
    return found


def _check(part: Path, whole: UnitsAround, inputs: Mapping[str, Tensor], file: Path) -> None:
    """Run a file once, and compare it with the model.

    Raises
    ------
    OutputError
        It does not run, or says something else.
    """
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ImportError:
        warnings.warn(
            f"{file} was written but not run, because onnxruntime is not installed: run it once "
            f"where it is, or install tsm2's extra 'onnx' here.",
            ExportWarning,
            stacklevel=4,
        )
        return
    given: dict[str, NDArray[Any]] = {name: each.numpy() for name, each in inputs.items()}
    try:
        session = onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        got = session.run(["forecast"], given)[0]
    except Exception as error:  # onnxruntime has no exception of its own
        raise OutputError(
            f"{file} was not kept, because onnxruntime refuses it: {error}"
        ) from error
    with torch.no_grad():
        answer = whole(**inputs)
    wanted = (answer[0] if isinstance(answer, tuple) else answer).numpy()
    apart = float(np.max(np.abs(got - wanted) / whole.deviation))
    if not apart <= _CLOSE * (1 + float(np.max(np.abs(wanted / whole.deviation)))):
        raise OutputError(
            f"{file} was not kept, because it says something else than the model, by {apart:g} "
            f"deviations at most. This is a fault of tsm2, of torch's exporter or of onnxruntime."
        )
