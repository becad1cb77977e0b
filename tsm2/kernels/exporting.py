"""Whether a program is being exported, whatever torch says of it while it compiles.

Dynamo, which traces programs for torch.compile, answers torch's questions about itself. In some
releases, 2.11 among them, it says of every program that it is being exported. torch.export runs a
program in Python unless it is told to be strict, and there the answer can be relied on.
"""

import torch

__all__ = ["is_exporting"]


def is_exporting() -> bool:
    """Whether torch.export or the ONNX exporter reads the program as it runs in Python."""
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
