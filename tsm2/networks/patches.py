"""Patches and gaps: what is done to the time axis before any feature is learned.

Sizes: T time steps, P patches.
"""

import torch
from torch import Tensor
from torch.nn import functional

from tsm2.kernels.exporting import is_exporting

__all__ = ["count_patches", "cut_patches", "interpolate_gaps", "running_max"]


def count_patches(steps: int, length: int, stride: int) -> int:
    """Return how many patches P cover `steps`; the last one ends with the newest step."""
    return -(-(steps - length) // stride) + 1


def cut_patches(values: Tensor, length: int, stride: int) -> Tensor:
    """Cut (..., T) into patches, (..., P, length), without a copy if they fit.

    If the strides leave a rest, the first patch is filled up on its left with the oldest value.

    Examples
    --------
    >>> cut_patches(torch.tensor([[1.0, 2.0, 3.0]]), 2, 2).tolist()
    [[[1.0, 1.0], [2.0, 3.0]]]
    """
    steps = values.shape[-1]
    missing = (count_patches(steps, length, stride) - 1) * stride + length - steps
    if missing:
        values = functional.pad(values, (missing, 0), mode="replicate")
    return values.unfold(-1, length, stride)


def running_max(values: Tensor) -> Tensor:
    """Return the largest value so far along the last axis, (..., T).

    For an exporter, which has no such operator, in log2 T steps of twice the reach.
    """
    if not is_exporting():
        return values.cummax(-1).values
    reach, steps = 1, values.shape[-1]
    while reach < steps:
        reached = torch.maximum(values[..., reach:], values[..., :-reach])
        values = torch.cat((values[..., :reach], reached), -1)
        reach *= 2
    return values


def interpolate_gaps(values: Tensor, mask: Tensor) -> Tensor:
    """Fill unknown steps on straight lines between known ones; beyond those, with the nearest.

    Parameters
    ----------
    values
        Values, (..., T), finite even where they are unknown.
    mask
        True where they are known, (..., T). A row without any is filled with zeros.

    Examples
    --------
    >>> values = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0])
    >>> interpolate_gaps(values, torch.tensor([False, True, False, True, False])).tolist()
    [1.0, 1.0, 2.0, 3.0, 3.0]
    """
    steps = values.shape[-1]
    place = torch.arange(steps, device=values.device).expand_as(values)
    before = running_max(torch.where(mask, place, -1))  # -1: nothing known so far
    after = -running_max(-torch.where(mask, place, steps).flip(-1)).flip(-1)
    first = torch.where(before < 0, after, before).clamp(max=steps - 1)
    second = torch.where(after == steps, before, after).clamp(min=0)
    start, end = values.gather(-1, first), values.gather(-1, second)
    share = (place - first).to(values.dtype) / (second - first).clamp(min=1)
    filled = torch.lerp(start, end, share.clamp(0, 1))
    known_at_all = mask.any(-1, keepdim=True)
    return torch.where(mask, values, filled * known_at_all)
