"""Where the rows of a tensor are: the same idea as in `numba_rows`, by strides instead of tables.

A row is one token's channels. The walk is described by at most three batch axes and two scan
axes, neighbours merged where the strides of all tensors allow it; row t of sequence s of a tensor
starts at the inner product of their positions with the tensor's strides. So slices, permuted and
expanded tensors, any order of axes and both directions cost no copy.
"""

from math import prod
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["Rows", "offset", "place_in_walk", "place_of_sequence", "rows_of"]

_BATCH_AXES, _SCAN_AXES = 3, 2


class Rows(NamedTuple):
    """Tensors with the same lead axes, described for a kernel."""

    tensors: list[Tensor | None]
    strides: list[tuple[int, ...]]
    """For each tensor, elements between neighbours along three batch and two scan axes."""
    sizes: tuple[int, ...]
    """Of the last two batch axes and the last scan axis, which tell the positions apart."""
    sequences: int
    length: int


def rows_of(lead: tuple[int, ...], tensors: list[Tensor | None], axes: tuple[int, ...]) -> Rows:
    """Describe tensors that have the same lead axes; None stays None.

    A tensor is copied if its channels do not lie next to each other, and all are if their batch
    axes cannot be merged to three, which takes views of views.
    """
    tensors = [_with_unbroken_rows(tensor) for tensor in tensors]
    batch = [axis for axis, size in enumerate(lead) if axis not in axes and size > 1]
    groups = _merged(batch, tensors)
    if len(groups) > _BATCH_AXES:
        tensors = [None if tensor is None else tensor.contiguous() for tensor in tensors]
        groups = _merged(batch, tensors)
    missing = _BATCH_AXES - len(groups), _SCAN_AXES - len(axes)
    places: list[list[int]] = [*[[]] * missing[0], *groups, *[[]] * missing[1]]
    places += [[axis] for axis in axes]
    sizes = [prod(lead[axis] for axis in place) for place in places]
    strides = [
        tuple(0 if tensor is None or not place else tensor.stride(place[-1]) for place in places)
        for tensor in tensors
    ]
    return Rows(tensors, strides, (*sizes[1:3], sizes[4]), prod(sizes[:3]), prod(sizes[3:]))


def _with_unbroken_rows(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or tensor.stride(-1) == 1 or tensor.shape[-1] == 1:
        return tensor
    return tensor.contiguous()


def _merged(axes: list[int], tensors: list[Tensor | None]) -> list[list[int]]:
    """Join neighbouring axes that every tensor steps through evenly."""
    groups: list[list[int]] = []
    for axis in axes:
        if groups and all(
            tensor is None
            or tensor.stride(groups[-1][-1]) == tensor.shape[axis] * tensor.stride(axis)
            for tensor in tensors
        ):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return groups


@triton.jit
def place_of_sequence(sequence: tl.tensor, sizes: tl.tensor) -> tl.tensor:
    """Return a sequence's position along the three batch axes."""
    last = sequence % sizes[1]
    rest = sequence // sizes[1]
    return rest // sizes[0], rest % sizes[0], last


@triton.jit
def place_in_walk(
    t: tl.tensor, length: tl.tensor, sizes: tl.tensor, REVERSE: tl.constexpr
) -> tl.tensor:
    """Return the position of the walk's t-th token along the two scan axes."""
    at = length - 1 - t if REVERSE else t
    return at // sizes[2], at % sizes[2]


@triton.jit
def offset(sequence: tl.tensor, token: tl.tensor, strides: tl.tensor) -> tl.tensor:
    """Return how many elements before a row of a tensor others lie."""
    batch = sequence[0] * strides[0] + sequence[1] * strides[1] + sequence[2] * strides[2]
    return batch + token[0] * strides[3] + token[1] * strides[4]
