"""Where the rows of a tensor are: the same idea as in `numba_rows`, by strides instead of tables.

A row is one token's channels. The walk is described by at most three batch axes and two scan
axes, neighbours merged where the strides of all tensors allow it; row t of sequence s of a tensor
starts at the inner product of their positions with the tensor's strides. So slices, permuted and
expanded tensors, any order of axes and both directions cost no copy.

A kernel moves each pointer to its sequence once, in 64 bits, and adds the token's distance from
there; or it keeps no pointers, which take two registers each, and adds both distances. Those of
tokens and the `narrowed` ones take 32 bits unless `Rows.wide` says that these do not suffice.
"""

from functools import lru_cache
from math import prod
from typing import NamedTuple, cast

import triton
import triton.language as tl
from torch import Tensor

__all__ = [
    "Rows",
    "narrowed",
    "place_in_walk",
    "place_of_sequence",
    "rows_of",
    "to_sequence",
    "to_token",
]

_BATCH_AXES, _SCAN_AXES = 3, 2
_LARGEST_NUMBER = 2**31 - 1  # of 32 bits


class _Walks(NamedTuple):
    """Where the rows of some tensors are, without the tensors."""

    strides: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    sequences: int
    length: int
    farthest: int
    """Elements between the first row of a tensor and its farthest, in any of the tensors."""


class Rows(NamedTuple):
    """Tensors with the same lead axes, described for a kernel."""

    tensors: list[Tensor | None]
    strides: tuple[tuple[int, ...], ...]
    """For each tensor, elements between neighbours along three batch and two scan axes, and between
    walks; then, in rows, those of a contiguous tensor."""
    sizes: tuple[int, ...]
    """Of the last two batch axes and the last scan axis, which tell the positions apart; then of
    the first scan axis."""
    sequences: int
    length: int
    wide: bool
    """Whether an element's distance from its tensor's first takes 64 bits."""

    @property
    def one_axis(self) -> bool:
        """Whether the walk goes along one axis, or along two that lie behind each other."""
        return self.sizes[2] == self.length


def rows_of(
    lead: tuple[int, ...],
    tensors: list[Tensor | None],
    axes: tuple[int, ...],
    columns: int,
    *,
    walks: int = 1,
    stacked: bool = False,
    swapped: bool = False,
) -> Rows:
    """Describe tensors that have the same lead axes and at most so many columns; None stays None.

    `stacked` tensors have an axis in front with an entry for each walk, or one for all of them;
    where some of the walks have `swapped` axes the two are kept apart. A tensor is copied if its
    channels do not lie next to each other, and all are if their batch axes cannot be merged to
    three, which takes views of views.
    """
    of_walks = lead, axes, walks, swapped
    tensors = [
        tensor
        if tensor is None or tensor.stride(-1) == 1 or tensor.shape[-1] == 1
        else tensor.contiguous()
        for tensor in tensors
    ]
    found = _walks(_strides(tensors, stacked), *of_walks)
    if found is None:
        tensors = [None if tensor is None else tensor.contiguous() for tensor in tensors]
        # A contiguous tensor has at most three groups: before, between and behind the scan axes.
        found = cast(_Walks, _walks(_strides(tensors, stacked), *of_walks))
    strides, sizes, sequences, length, farthest = found
    written = walks * sequences * length * columns
    wide = max(farthest + columns, written) > _LARGEST_NUMBER
    return Rows(tensors, strides, sizes, sequences, length, wide)


def _strides(tensors: list[Tensor | None], stacked: bool) -> tuple[tuple[int, ...] | None, ...]:
    """Return the strides of each tensor, those between walks first: 0 where all read the same."""
    if not stacked:
        return tuple(None if each is None else (0, *each.stride()) for each in tensors)
    return tuple(
        None if each is None else (each.stride(0) * (len(each) > 1), *each.stride()[1:])
        for each in tensors
    )


@lru_cache(maxsize=1024)
def _walks(
    all_strides: tuple[tuple[int, ...] | None, ...],
    lead: tuple[int, ...],
    axes: tuple[int, ...],
    walks: int,
    swapped: bool,
) -> _Walks | None:
    """Find where rows are, or None if there are more batch axes than a kernel has.

    A step of training asks the same thousands of times, which took longer than the kernels ran.
    """
    in_order = tuple(prod(lead[axis + 1 :]) for axis in range(len(lead)))  # strides, in rows
    given = [strides[1:] for strides in all_strides if strides is not None]
    batch = [axis for axis, size in enumerate(lead) if axis not in axes and size > 1]
    groups = _merged(batch, lead, [*given, in_order])
    if len(groups) > _BATCH_AXES:
        return None
    missing = _BATCH_AXES - len(groups), _SCAN_AXES - len(axes)
    places: list[list[int]] = [*[[]] * missing[0], *groups, *[[]] * missing[1]]
    places += [[axis] for axis in axes]
    sizes = [prod(lead[axis] for axis in place) for place in places]
    sequences, length = prod(sizes[:3]), prod(sizes[3:])
    strides = tuple(
        (0,) * 6 if each is None else (*(each[1 + p[-1]] if p else 0 for p in places), each[0])
        for each in (*all_strides, (sequences * length, *in_order))
    )
    if not swapped and all(each[3] == sizes[4] * each[4] for each in strides):
        sizes = [*sizes[:3], 1, sizes[3] * sizes[4]]  # one behind the other
    reaches = (
        sum((size - 1) * stride for size, stride in zip((*sizes, walks), each, strict=True))
        for each in strides[:-1]
    )
    places_told = (*sizes[1:3], sizes[4], sizes[3])
    return _Walks(strides, places_told, sequences, length, max(reaches))


def _merged(
    axes: list[int], lead: tuple[int, ...], all_strides: list[tuple[int, ...]]
) -> list[list[int]]:
    """Join neighbouring axes that every tensor steps through evenly."""
    groups: list[list[int]] = []
    for axis in axes:
        if groups and all(
            strides[groups[-1][-1]] == lead[axis] * strides[axis] for strides in all_strides
        ):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return groups


@triton.jit
def place_of_sequence(sequence: tl.tensor, sizes: tl.tensor) -> tl.tensor:
    """Return a sequence's position along the three batch axes, in 64 bits."""
    last = sequence % sizes[1]
    rest = sequence // sizes[1]
    first, middle = rest // sizes[0], rest % sizes[0]
    return tl.cast(first, tl.int64), tl.cast(middle, tl.int64), tl.cast(last, tl.int64)


@triton.jit
def to_sequence(sequence: tl.tensor, walk: tl.tensor, strides: tl.tensor) -> tl.tensor:
    """Return how far a walk's sequence is from the first of the first walk."""
    within = sequence[0] * strides[0] + sequence[1] * strides[1] + sequence[2] * strides[2]
    return within + tl.cast(walk, tl.int64) * strides[5]


@triton.jit
def narrowed(distance: tl.tensor, WIDE: tl.constexpr) -> tl.tensor:
    """Return a distance in as many bits as every distance in its tensor takes."""
    return distance if WIDE else tl.cast(distance, tl.int32)


@triton.jit
def place_in_walk(
    t: tl.tensor,
    walk: tl.tensor,
    length: tl.tensor,
    sizes: tl.tensor,
    REVERSED: tl.constexpr,
    SWAPPED: tl.constexpr,
    ONE_AXIS: tl.constexpr,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """Return the position of a walk's t-th token along the two scan axes.

    Bit `walk` of REVERSED says that the walk goes from the last token to the first, and that of
    SWAPPED that the first axis is its fastest.
    """
    at = tl.where((REVERSED >> walk) & 1 != 0, length - 1 - t, t)
    if WIDE:
        at = tl.cast(at, tl.int64)
    if ONE_AXIS:
        return at * 0, at
    if SWAPPED == 0:
        return at // sizes[2], at % sizes[2]
    swapped = (SWAPPED >> walk) & 1 != 0
    fastest = tl.where(swapped, sizes[3], sizes[2])
    slow, fast = at // fastest, at % fastest
    return tl.where(swapped, fast, slow), tl.where(swapped, slow, fast)


@triton.jit
def to_token(token: tl.tensor, strides: tl.tensor, ONE_AXIS: tl.constexpr) -> tl.tensor:
    """Return how far a token is from the first of its sequence."""
    if ONE_AXIS:
        return token[1] * strides[4]
    return token[0] * strides[3] + token[1] * strides[4]
