"""Whether a program is being exported, whatever torch says of it while it compiles; loops in it.

Dynamo, which traces programs for torch.compile, answers torch's questions about itself. In some
releases, 2.11 among them, it says of every program that it is being exported. torch.export runs a
program in Python unless it is told to be strict, and there the answer can be relied on.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["is_exporting", "repeated"]


def is_exporting() -> bool:
    """Whether torch.export or the ONNX exporter reads the program as it runs in Python."""
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def repeated(
    step: Callable[..., tuple[Tensor, Tensor]], state: Tensor, count: int, given: tuple[Tensor, ...]
) -> Tensor:
    """Return what steps give one after another, (count, *).

    A loop in Python would be unrolled into an exported program, which has an operator in its place.

    Parameters
    ----------
    step
        Of a state and `given`, the state after the step and what it gives, (*).
    state
        Before the first step.
    count
        Steps, at least one.
    given
        What every step reads.
    """
    if is_exporting():
        from tsm2.kernels import exportable

        return exportable.repeated(step, state, count, given)
    found = []
    for _ in range(count):
        state, output = step(state, *given)
        found.append(output)
    return torch.stack(found)
