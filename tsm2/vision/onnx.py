"""ONNX files of a ViM2 that take batches and images of any size.

Scans become ONNX's own `Scan`, one per order and direction, so that nothing is tied to the size
that was traced. onnxruntime walks them token by token: exact, and slower than our kernels.

Source: https://onnx.ai/onnx/operators/onnx__Scan.html.
"""

import os
from pathlib import Path

import torch

from tsm2.errors import OutputError, ParameterError
from tsm2.kernels.onnx_program import onnx_program
from tsm2.vision.vim2 import ViM2

__all__ = ["export_onnx"]


def export_onnx(model: ViM2, path: str | os.PathLike[str]) -> None:
    """Write a model, as it is in evaluation mode, as an ONNX file.

    Its input "images" is (batch, in_chans, height, width) with every size but the channels open,
    its output "scores" what the model returns.

    Parameters
    ----------
    model
        The model; its mode is the same afterwards.
    path
        The file, usually ending in .onnx.

    Raises
    ------
    ParameterError
        onnx or onnxscript is not installed.
    OutputError
        The folder is missing, or the file cannot be written.

    Notes
    -----
    Images should be so large that the last stage has two patches or more each way: more than 32
    pixels for `vim2_tiny`. Exporting takes a second or two per scan; a token mixer has four, a
    channel mixer two.
    """
    try:
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ImportError as error:
        raise ParameterError(
            "exporting needs onnx and onnxscript: pip install 'tsm2[onnx]'"
        ) from error
    file = Path(path)
    if not file.parent.is_dir():
        raise OutputError(f"cannot write {file}: there is no folder {file.parent}")
    weight = model.stem.proj.weight
    smallest = int(model.config.patch_size * 2 ** (len(model.stages) - 1)) + 1
    height, width = (torch.export.Dim(name, min=smallest) for name in ("height", "width"))
    example = torch.zeros(2, model.in_chans, 2 * smallest, 2 * smallest + 1)
    program = onnx_program(
        model,
        {"image": example.to(device=weight.device, dtype=weight.dtype)},
        {"image": {0: torch.export.Dim("batch"), 2: height, 3: width}},
        input_names=["images"],
        output_names=["scores"],
    )
    try:
        program.save(file)
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error}") from error
