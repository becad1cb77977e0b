"""ONNX files of a forecaster: histories in, forecasts out, in the units of the table.

    context (B, L, M) -> standard units -> network -> units of the table -> forecast (B, H, M)

The batch B is open. Units are taken and put back in float64, the network computes in float32, as
in Python. Its scans become ONNX's own `Scan`, which onnxruntime walks token by token.

Sizes: B windows, L lookback, M variates, H horizon, Q quantiles.
Source: https://onnx.ai/onnx/operators/onnx__Scan.html.
"""

import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsm2.errors import OutputError, ParameterError
from tsm2.networks.ensemble import Ensemble
from tsm2.networks.tsm2 import TSM2Network
from tsm2.prepared.scaling import Scaling
from tsm2.saving import replacing

__all__ = ["UnitsAround", "export_onnx"]


class UnitsAround(nn.Module):
    """A network between the units of tables and standard units.

    Parameters
    ----------
    network
        Forecasts in standard units.
    scaling
        Units of the table, (M,); those of several series, (S, M), are taken as inputs instead.
    """

    def __init__(self, network: TSM2Network | Ensemble, scaling: Scaling) -> None:
        super().__init__()
        self.network = network
        if scaling.center.ndim == 1:
            self.register_buffer("center", torch.from_numpy(scaling.center))
            self.register_buffer("scale", torch.from_numpy(scaling.scale))

    def forward(
        self, context: Tensor, center: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Forecast histories, (B, L, M), float64.

        Parameters
        ----------
        context
            Histories.
        center, scale
            Units of each history, (B, M), where they are not those of one table.

        Returns
        -------
        Forecasts, (B, H, M), float64; with a quantile head also all quantiles, (B, H, M, Q).
        """
        if center is None or scale is None:
            center, scale = cast("Tensor", self.center)[None], cast("Tensor", self.scale)[None]
        standard = (context - center[:, None]) / scale[:, None]
        forecast: Tensor = self.network(standard.float().transpose(1, 2)).double()  # (B, M, H)
        levels = self.network.config.quantiles
        if levels is None:
            return forecast.transpose(1, 2) * scale[:, None] + center[:, None]
        units = scale[:, None, :, None], center[:, None, :, None]
        quantiles = forecast.transpose(1, 2) * units[0] + units[1]  # (B, H, M, Q)
        return quantiles[..., levels.index(0.5)], quantiles


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's exporter from telling of parts that it deprecates and packages it misses."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def export_onnx(
    network: TSM2Network | Ensemble,
    scaling: Scaling,
    path: str | os.PathLike[str],
    *,
    description: Mapping[str, Any],
) -> None:
    """Write a network as an ONNX file; an earlier file is replaced as a whole or, on failure, kept.

    Parameters
    ----------
    network
        Is left as it is.
    scaling
        Units of the table, or of several series.
    path
        The file, usually ending in .onnx.
    description
        What is said of the model in the file's metadata, under "tsm2", as JSON.

    Raises
    ------
    ParameterError
        onnx or onnxscript is not installed, or the network reads covariates.
    OutputError
        The folder is missing, or the file cannot be written.
    """
    try:
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ImportError as error:
        raise ParameterError(
            "exporting needs onnx and onnxscript, which are not installed. Install them with "
            "tsm2's extra 'onnx': pip install 'tsm2[onnx]'."
        ) from error
    config = network.config
    if config.n_past or config.n_future or config.n_static:
        raise ParameterError(
            "a network that reads covariates cannot be exported yet. Fit without covariates."
        )
    file = Path(path)
    if not file.absolute().parent.is_dir():
        raise OutputError(f"cannot write {file}: there is no folder {file.parent}. Make it first.")
    whole = UnitsAround(copy.deepcopy(network).to("cpu"), scaling).eval()
    batch = torch.export.Dim("batch")
    inputs = {"context": torch.zeros(2, config.lookback, config.n_variates, dtype=torch.float64)}
    if scaling.center.ndim > 1:
        one = torch.ones(2, config.n_variates, dtype=torch.float64)
        inputs |= {"center": 0 * one, "scale": one}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            whole,
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            input_names=list(inputs),
            output_names=["forecast"] if config.quantiles is None else ["forecast", "quantiles"],
            verbose=False,
        )
    exported = cast("torch.onnx.ONNXProgram", program)
    exported.model.metadata_props["tsm2"] = json.dumps(dict(description))
    with replacing(file) as part:
        exported.save(part)
        check_runs(part, {name: each.numpy() for name, each in inputs.items()})


def check_runs(file: Path, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Let onnxruntime, where it is installed, load a file and run it once.

    Raises
    ------
    OutputError
        It refuses the file.
    """
    try:
        import onnxruntime  # type: ignore[import-untyped]  # pyright: ignore[reportMissingImports]
    except ImportError:
        return
    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        session.run(None, dict(inputs))
    except Exception as error:  # onnxruntime has a dozen, of no common class
        reason = " ".join(str(error).split())[:300]
        raise OutputError(
            f"onnxruntime {onnxruntime.__version__} cannot run what was exported, so it was not "
            f"written: {reason}. Tell us, with the parameters of the model."
        ) from error
