"""Windows: from rows in standard units to batches of context, target and what else is known.

Every window is a view of the same array; a batch is gathered from that view in one call. There is
no Python per window and no copy of the table. Several series stand one after another in that
array; `starts` then names the windows that lie within one of them.

Sizes: T rows, M variates, W windows, B windows in a batch, L lookback, H horizon; Cp past, Cf
future and Cs static covariates; S series.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tsm2.errors import WindowError

__all__ = ["Batch", "Covariates", "Windows", "join_known"]


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
    error_unit: Tensor | None = None
    """In what errors count where they are minimised, (B, M, 1), in standard units; None for 1."""

    def auxiliary(self) -> dict[str, Tensor]:
        """Return what a network reads beside the context, by the names of its arguments."""
        names = ("mask", "past", "past_mask", "future", "static")
        given = {name: getattr(self, name) for name in names}
        return {name: tensor for name, tensor in given.items() if tensor is not None}

    def lean(self) -> "Batch":
        """Return the batch without masks of contexts in which all is known."""
        mask, past_mask = (
            None if known is None or bool(known.all()) else known
            for known in (self.mask, self.past_mask)
        )
        return replace(self, mask=mask, past_mask=past_mask)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device."""
        names = [f.name for f in fields(self)]
        given: dict[str, Any] = {
            name: each.to(device) for name in names if (each := getattr(self, name)) is not None
        }
        return Batch(**given)


def join_known(
    first: Tensor, first_known: Tensor | None, second: Tensor | None, second_known: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Put two tensors, (*, C, ...), together along axis 1, and where they are known.

    A mask is None if all is known; there may be no second tensor.
    """
    if second is None:
        return first, first_known
    values = torch.cat((first, second), 1)
    if first_known is None and second_known is None:
        return values, None
    if first_known is None:
        first_known = torch.ones_like(first, dtype=torch.bool)
    if second_known is None:
        second_known = torch.ones_like(second, dtype=torch.bool)
    return values, torch.cat((first_known, second_known), 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Covariates:
    """What is known beside the values of a table, in standard units."""

    past: Tensor | None = None
    """Known up to the last row of a context: a row for every row of the table, (T, Cp)."""
    past_mask: Tensor | None = None
    """True where these are known, (T, Cp); None if all of them are."""
    future: Tensor | None = None
    """Known up to the last row of a forecast, (T, Cf); for forecasts, H rows more."""
    static: Tensor | None = None
    """Known of each variate of each series at all times, (S, M, Cs)."""

    def gather(
        self, first: Tensor, lookback: int, horizon: int, series: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return what belongs to some windows, by the names and in the shapes of `Batch`.

        Parameters
        ----------
        first
            First row of every window, (B,).
        lookback, horizon
            Rows of each window before and in its forecast.
        series
            Number of the series that each window is from, (B,); None if there is one.
        """
        spans = {"past": lookback, "past_mask": lookback, "future": lookback + horizon}
        found = {}
        for name, span in spans.items():
            rows: Tensor | None = getattr(self, name)
            if rows is not None:
                found[name] = rows.unfold(0, span, 1)[first.to(rows.device)]
        if self.static is not None:
            numbers = torch.zeros_like(first) if series is None else series
            found["static"] = self.static[numbers.to(self.static.device)]  # (B, M, Cs)
        return found

    def behind(self, rows: Tensor, known: Tensor | None) -> "Covariates":
        """Put more past covariates, (T, C), before these; `known` says where they are known."""
        if not rows.shape[1]:
            return self
        past, mask = join_known(rows, known, self.past, self.past_mask)
        return replace(self, past=past, past_mask=mask)

    def to(self, device: torch.device | str) -> "Covariates":
        """Return the covariates on a device."""
        given: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return Covariates(**{k: v if v is None else v.to(device) for k, v in given.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Windows of one table, or of several series."""

    values: Tensor
    """The table, (T, M), oldest row first; that of several series one after another."""
    lookback: int
    """Rows L of context."""
    horizon: int
    """Rows H of target behind the context; 0 for contexts alone."""
    starts: Tensor | None = None
    """First row of every window, (W,); None for every row of one table that one fits behind."""
    series: Tensor | None = None
    """Number of the series that each window belongs to, (W,), rising; None for one series."""
    balanced: bool = False
    """Let a shuffled pass draw from every series equally often, not every window once."""
    known: Tensor | None = None
    """True where values are known, (T, M); None if all are. The others are finite all the same."""
    covariates: Covariates = Covariates()
    """What else is known."""
    error_units: Tensor | None = None
    """In what the errors of each series count where they are minimised, (S, M), in standard units;
    None for 1."""

    def __post_init__(self) -> None:
        rows, needed = len(self.values), self.lookback + self.horizon
        if self.starts is None and rows < needed:
            raise WindowError(
                f"the table has {rows} rows to cut windows from, but one window needs {needed} "
                f"(lookback={self.lookback} + horizon={self.horizon}). Give more rows, or lower "
                f"lookback or horizon."
            )
        if self.starts is not None and not len(self.starts):
            raise WindowError(
                f"no series has the {needed} rows of a window (lookback={self.lookback} + "
                f"horizon={self.horizon}). Give more rows."
            )

    def __len__(self) -> int:
        if self.starts is not None:
            return len(self.starts)
        return len(self.values) - self.lookback - self.horizon + 1

    def gather(self, which: Tensor) -> Batch:
        """Return the windows numbered `which`, (B,)."""
        view = self.values.unfold(0, self.lookback + self.horizon, 1)  # (T - L - H + 1, M, L + H)
        which = which.to(view.device)  # where `batches` yields them
        rows = which if self.starts is None else self.starts[which]
        values = view[rows]
        known = None
        if self.known is not None:
            known = self.known.unfold(0, self.lookback + self.horizon, 1)[rows]
        series = None if self.series is None else self.series[which]
        unit = None
        if self.error_units is not None:
            unit = self.error_units[torch.zeros_like(rows) if series is None else series][..., None]
        return Batch(
            context=values[..., : self.lookback],
            target=values[..., self.lookback :],
            mask=None if known is None else known[..., : self.lookback],
            target_mask=None if known is None else known[..., self.lookback :],
            error_unit=unit,
            **self.covariates.gather(rows, self.lookback, self.horizon, series),
        )

    def stretches(self) -> Tensor:
        """Return how many horizons, one after another, the targets of each series are long, (S,).

        Windows that overlap err alike: so many forecasts tell something of their own.
        """
        if self.starts is None:
            return torch.tensor([(len(self) - 1) / self.horizon + 1])
        series = torch.zeros_like(self.starts) if self.series is None else self.series
        series = torch.unique(series, return_inverse=True)[1]
        empty = torch.zeros(int(series.max()) + 1, dtype=self.starts.dtype)
        empty = empty.to(self.starts.device)
        first = empty.scatter_reduce(0, series, self.starts, "amin", include_self=False)
        last = empty.scatter_reduce(0, series, self.starts, "amax", include_self=False)
        return (last - first) / self.horizon + 1

    def mean_over(self, batches: Sequence[Tensor], means: Sequence[float]) -> float:
        """Return the mean over all known targets of what has these means over those of batches.

        Parameters
        ----------
        batches
            Numbers of windows, (B,) each.
        means
            Of each batch; of one without a known target nothing is counted.
        """
        if self.known is None:
            counts = [len(which) for which in batches]  # in windows
        else:
            before = functional.pad(self.known.sum(1).cumsum(0), (1, 0))  # each row
            first = torch.arange(len(self)) if self.starts is None else self.starts
            first = first.to(before.device) + self.lookback
            known = before[first + self.horizon] - before[first]  # (W,)
            counts = torch.stack([known[which].sum() for which in batches]).tolist()  # read once
        total = sum(mean * count for mean, count in zip(means, counts, strict=True))
        return total / max(sum(counts), 1)

    def spread(self, most: int) -> Tensor:
        """Return the numbers of `most` windows, evenly spread from first to last, or of all."""
        return torch.linspace(0, len(self) - 1, min(len(self), most)).round().long()

    def only(self, chosen: Tensor) -> "Windows":
        """Return the windows where `chosen`, (W,), is True."""
        starts = torch.arange(len(self)) if self.starts is None else self.starts
        series = None if self.series is None else self.series[chosen]
        return replace(self, starts=starts[chosen], series=series)

    def shortened(self, lookback: int) -> "Windows":
        """Return windows of the same targets that read the last rows of each context alone."""
        starts = torch.arange(len(self)) if self.starts is None else self.starts
        return replace(self, lookback=lookback, starts=starts + self.lookback - lookback)

    def to(self, device: torch.device | str) -> "Windows":
        """Return the same windows of tables on a device."""
        return replace(
            self,
            values=self.values.to(device),
            starts=None if self.starts is None else self.starts.to(device),
            series=None if self.series is None else self.series.to(device),
            known=None if self.known is None else self.known.to(device),
            covariates=self.covariates.to(device),
            error_units=None if self.error_units is None else self.error_units.to(device),
        )

    def batches(self, size: int, *, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """Yield the numbers of the windows in batches of `size`, on the table's device.

        None is dropped.

        Parameters
        ----------
        size
            Windows in a batch; the last batch may be smaller.
        generator
            Shuffles; None keeps the order, and every window comes once.
        """
        order = torch.arange(len(self)) if generator is None else self._shuffled(generator)
        # All at once: a device waits for what the host sends it.
        yield from torch.split(order.to(self.values.device), size)

    def _shuffled(self, generator: torch.Generator) -> Tensor:
        """Return as many numbers of windows as there are: each once, or all series equally often.

        A series of few windows then repeats them, one of many shows a part of them.
        """
        order = torch.randperm(len(self), generator=generator)
        if self.series is None or not self.balanced:
            return order
        counts = torch.unique_consecutive(self.series.cpu(), return_counts=True)[1]
        turn = order % len(counts)  # the series in turn, in random order
        drawn = torch.rand(len(order), generator=generator, dtype=torch.float64) * counts[turn]
        firsts = counts.cumsum(0) - counts
        return torch.add(firsts[turn], drawn.long())
