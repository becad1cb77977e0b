"""ONNX programs of modules, by torch's exporter, in seconds.

torch optimizes what it exports by rules that onnxscript tries on every node. Their time grows with
the square of the graph: half a minute for that of a pretrained network, of which onnxruntime makes
no faster one. So constants are folded and what is there twice is merged, and no rule is tried.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["onnx_program"]


def onnx_program(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    sizes: Mapping[str, Mapping[int, Any]],
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> torch.onnx.ONNXProgram:
    """Return the program of a module, as it is in evaluation mode.

    Parameters
    ----------
    module
        Its mode is the same afterwards.
    inputs
        Examples of what its `forward` takes, by name.
    sizes
        The axes of each input that stay open, as `torch.export.Dim`.
    input_names, output_names
        What goes in and comes out is called in the program.
    """
    training = module.training
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(),
                (),
                kwargs=dict(inputs),
                dynamo=True,
                dynamic_shapes={name: dict(axes) for name, axes in sizes.items()},
                input_names=list(input_names),
                output_names=list(output_names),
                optimize=False,
                verbose=False,
            )
    finally:
        module.train(training)
    exported = cast("torch.onnx.ONNXProgram", program)
    _fold(exported.model)
    return exported


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


def _fold(model: Any) -> None:
    """Compute what follows from constants alone, and keep each value once."""
    from onnx_ir import passes
    from onnx_ir.passes import common
    from onnxscript import optimizer  # pyright: ignore[reportMissingImports]

    optimizer.inline(model)
    optimizer.fold_constants(model)
    passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)
