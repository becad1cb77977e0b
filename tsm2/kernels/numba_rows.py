"""Where the rows of a tensor are, in the order in which a scan visits them.

A row is one token's channels, next to each other in memory. Everything about axes, strides and
directions ends here, in two tables of byte offsets: a kernel only walks down a list of rows. So
slices, split views, permuted and expanded tensors cost no copy, and any order of axes none either.
"""

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tsm2.errors import BackendError
from tsm2.kernels.interface import Walk
from tsm2.kernels.numba_vectors import inlined, load_offset

__all__ = ["Path", "RowTables", "Rows", "kernel_input", "path", "row", "tables_of"]

_FLOAT_BYTES = 4


class Rows(NamedTuple):
    """The rows of one tensor.

    Row t of sequence s starts at `address + sequences[s] + steps[t]`, all in bytes;
    `sequences` and `steps` are the addresses of tables.
    """

    address: int
    sequences: int
    steps: int


class Path(NamedTuple):
    """The rows of one sequence; `start + steps[t]` is the address of row t."""

    start: int
    steps: int


@inlined
def path(rows: Rows, sequence: int) -> Path:
    """Find the rows of one sequence."""
    return Path(rows.address + load_offset(rows.sequences, sequence), rows.steps)


@inlined
def row(path: Path, t: int) -> Any:
    """Return the address of row t."""
    return path.start + load_offset(path.steps, t)


class RowTables:
    """Where the rows of tensors are, in the order of a walk.

    Parameters
    ----------
    lead
        Sizes of all axes but the last.
    walk
        A sequence runs along its axes; the other lead axes count sequences.
    """

    def __init__(self, lead: tuple[int, ...], walk: Walk) -> None:
        self._lead, self._walk = lead, walk
        self._batch_axes = tuple(axis for axis in range(len(lead)) if axis not in walk.axes)
        self.sequences = prod(lead[axis] for axis in self._batch_axes)
        self.length = prod(lead[axis] for axis in walk.axes)
        self._tables: dict[tuple[int, ...], tuple[int, int]] = {}
        self._kept: list[npt.NDArray[np.int64]] = []  # addresses are no references

    def rows(self, tensor: Tensor | None) -> Rows:
        """Describe a tensor of these lead axes; good while the tensor and this object live."""
        if tensor is None:
            return Rows(0, 0, 0)
        strides = tensor.stride()
        sequences, steps = self._tables.get(strides) or self._make_tables(strides)
        return Rows(tensor.data_ptr(), sequences, steps)

    def _make_tables(self, strides: tuple[int, ...]) -> tuple[int, int]:
        """Make the tables for some strides and return their addresses."""
        steps = self._offsets(strides, self._walk.axes)
        steps = np.ascontiguousarray(steps[::-1]) if self._walk.reverse else steps
        sequences = self._offsets(strides, self._batch_axes)
        self._kept += sequences, steps
        self._tables[strides] = sequences.ctypes.data, steps.ctypes.data
        return self._tables[strides]

    def _offsets(self, strides: tuple[int, ...], axes: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Byte offsets of all positions along some axes, the last named axis fastest."""
        table = np.zeros(1, np.int64)
        for axis in axes:
            along = _FLOAT_BYTES * strides[axis] * np.arange(self._lead[axis])
            table = np.add.outer(table, along).ravel()
        return table


tables_of = lru_cache(maxsize=64)(RowTables)
"""The same object for the same arguments, so that its tables are made once."""


def kernel_input(tensor: Tensor) -> Tensor:
    """Return a tensor whose memory a kernel may read: float32, on the CPU, rows unbroken."""
    if tensor.device.type != "cpu":
        raise BackendError(f"the numba kernels read memory of the cpu, got {tensor.device}")
    if tensor.layout != torch.strided:
        raise BackendError(f"the numba kernels read dense tensors, got {tensor.layout}")
    if tensor.dtype is not torch.float32:
        tensor = tensor.float()
    tensor = tensor.resolve_neg()
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()
