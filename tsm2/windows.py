"""Windows: from one table in memory to batches of context, target and what else is known.

Every window is a view of the same array; a batch is gathered from that view in one call. There is
no Python per window and no copy of the table.

Sizes: T rows, M variates, W windows, B windows in a batch, L lookback, H horizon; Cp past, Cf
future and Cs static covariates.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tsm2.errors import WindowError

__all__ = ["Batch", "Windows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Some windows, gathered: what a network reads and what it should forecast."""

    context: Tensor
    """Values before the forecast, (B, M, L), oldest first."""
    target: Tensor
    """Values to forecast, (B, M, H)."""
    mask: Tensor | None = None
    """True where the context is known, (B, M, L); None if all of it is."""
    target_mask: Tensor | None = None
    """True where the target is known, (B, M, H); None if all of it is."""
    past: Tensor | None = None
    """Covariates known up to the last row of the context, (B, Cp, L)."""
    past_mask: Tensor | None = None
    """True where these are known, (B, Cp, L); None if all of them are."""
    future: Tensor | None = None
    """Covariates known up to the last row of the target, (B, Cf, L + H)."""
    static: Tensor | None = None
    """Covariates that hold for a variate at all times, (B, M, Cs)."""

    def auxiliary(self) -> dict[str, Tensor]:
        """Return what a network reads beside the context, by the names of its arguments."""
        names = ("mask", "past", "past_mask", "future", "static")
        given = {name: getattr(self, name) for name in names}
        return {name: tensor for name, tensor in given.items() if tensor is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """All windows of a table that start in a range of rows."""

    values: Tensor
    """The table, (T, M), oldest row first."""
    lookback: int
    """Rows L of context."""
    horizon: int
    """Rows H of target behind the context; 0 for contexts alone."""
    first: int = 0
    """First row of the first window."""
    stride: int = 1
    """Rows from one window to the next."""

    def __post_init__(self) -> None:
        rows = len(self.values) - self.first
        needed = self.lookback + self.horizon
        if rows < needed:
            raise WindowError(
                f"the table has {rows} rows to cut windows from, but one window needs {needed} "
                f"(lookback={self.lookback} + horizon={self.horizon}). Give more rows, or lower "
                f"lookback or horizon."
            )

    def __len__(self) -> int:
        rows = len(self.values) - self.first - self.lookback - self.horizon
        return rows // self.stride + 1

    def gather(self, which: Tensor) -> Batch:
        """Return the windows numbered `which`, (B,)."""
        view = self.values.unfold(0, self.lookback + self.horizon, 1)  # (T - L - H + 1, M, L + H)
        values = view[self.first + self.stride * which.to(view.device)]
        return Batch(context=values[..., : self.lookback], target=values[..., self.lookback :])

    def batches(
        self, size: int, *, generator: torch.Generator | None = None, rank: int = 0, ranks: int = 1
    ) -> Iterator[Tensor]:
        """Yield the numbers of the windows in batches of `size`; none is dropped.

        Parameters
        ----------
        size
            Windows in a batch of one process; the last batch may be smaller.
        generator
            Shuffles; None keeps the order.
        rank, ranks
            Which of how many processes asks; each gets every `ranks`-th window.
        """
        count = len(self)
        order = (
            torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
        )
        if ranks > 1:
            order = order[: max(ranks, count - count % ranks)]  # as many for every process
        yield from torch.split(order[rank::ranks], size)
