"""Windows: from one table in memory to batches of context and target.

Every window is a view of the same array; a batch is gathered from that view in one call. There is
no Python per window and no copy of the table.

Sizes: T rows, M variates, W windows, B windows in a batch, L lookback, H horizon.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tsm2.errors import WindowError

__all__ = ["Windows"]


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

    def gather(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Return the windows numbered `which`, (B,): context (B, M, L) and target (B, M, H)."""
        view = self.values.unfold(0, self.lookback + self.horizon, 1)  # (T - L - H + 1, M, L + H)
        batch = view[self.first + self.stride * which.to(view.device)]
        return batch[..., : self.lookback], batch[..., self.lookback :]

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
