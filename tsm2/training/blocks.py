"""Blocks: all windows of a fit, cut so that each is forecast by a map that has not seen it.

Of every series a run of windows is held out, and those whose targets overlap with theirs are left
out of the rest. Errors on held-out blocks say how far off later forecasts will be even where the
validation rows are few (cross-fitting).

Source: Chernozhukov et al. (2018), Econometrics Journal 21(1), section 3; Racine (2000), Journal
of Econometrics 99(1), for the gap beside a block.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from tsm2.prepared.windows import Windows

__all__ = ["BLOCKS", "cut_blocks"]

BLOCKS = 5


def cut_blocks(
    train: Windows, validation: Windows | None
) -> Iterator[tuple[list[Windows], Windows]]:
    """Yield each block with the rest: the windows that share no target row with it, in pieces.

    Parameters
    ----------
    train, validation
        Windows of one Prepared. Those between the two, which hold rows of both, take part.

    Yields
    ------
    Pieces of the rest, whose windows follow each other where one table is cut, and the block. A
    block that leaves no rest is passed over.
    """
    whole, place, count = _joined(train, validation)
    reach = whole.horizon - 1
    alone = train.series is None or int(train.series.max()) == 0
    for number in range(BLOCKS):
        first, end = (-(-(number + k) * count // BLOCKS) for k in (0, 1))
        block = (place >= first) & (place < end)
        before, behind = place < first - reach, place >= end + reach
        sides = [before, behind] if alone else [before | behind]
        rest = [whole.only(each) for each in sides if each.any()]
        if rest and block.any():
            yield rest, whole.only(block)


def _joined(train: Windows, validation: Windows | None) -> tuple[Windows, Tensor, Tensor]:
    """Return all windows, the place of each in its series, and how many its series has, (W,)."""
    parts = [train] if validation is None else [train, validation]
    starts, owners = [], []
    for each in parts:
        own = torch.arange(len(each)) if each.starts is None else each.starts
        starts.append(own)
        owners.append(torch.zeros_like(own) if each.series is None else each.series)
    start, owner = torch.cat(starts), torch.cat(owners)
    series, owner = torch.unique(owner, return_inverse=True)
    empty = torch.zeros_like(series)
    first = empty.scatter_reduce(0, owner, start, "amin", include_self=False)
    last = empty.scatter_reduce(0, owner, start, "amax", include_self=False)
    counts = last - first + 1
    place = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    whole = replace(
        train,
        starts=place + first.repeat_interleave(counts),
        series=series.repeat_interleave(counts),
    )
    return whole, place, counts.repeat_interleave(counts)
