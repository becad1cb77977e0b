"""FittedModel: what a fit leaves behind, and every forecast that is made of it.

    Series -> Prepared -> windows in batches -> network, rolled forward -> units of the series

It owns all that a forecast depends on and nothing else: the network, the classical forecasts that
it is averaged with, the units, which columns are targets, how covariates are coded, the scores of
held-out windows, and the last rows of the table.

The network needs L rows before a forecast; classical forecasts read more, `reach` of them, or as
many as there are.

Sizes: S series, T rows, M columns, of which Mt targets; W windows, B windows in a batch, L
lookback, H horizon, Q quantiles, N sampled paths.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsm2.errors import (
    CalibrationWarning,
    ForecastError,
    ParameterError,
    WindowError,
)
from tsm2.fitted.calibration import (
    Calibration,
    ForecastLine,
    calibrate,
    draw_paths,
    read_quantiles,
)
from tsm2.fitted.explanation import Explanation, explain_window
from tsm2.fitted.inspection import Selection, inspect_network
from tsm2.fitted.rolling import roll_forward, roll_quantiles, whole_horizons
from tsm2.networks.combined import ClassicalMean, CombinedNetwork
from tsm2.networks.ensemble import Ensemble
from tsm2.networks.tsm2 import TSM2Network
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.prepared.codings import Codings
from tsm2.prepared.prepared import Prepared, filled
from tsm2.prepared.roles import Roles
from tsm2.prepared.scaling import Scaling
from tsm2.prepared.splits import check_contexts, check_long_enough, room_in_front
from tsm2.prepared.walk import Walk
from tsm2.prepared.windows import Batch, Covariates, Windows
from tsm2.tables.cells import name_some
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.gaps import Missing
from tsm2.tables.ragged import offsets_of
from tsm2.tables.series import Series, extend, join, numbers_in
from tsm2.training import choose_device
from tsm2.training.capture import find_recorder
from tsm2.training.recording import Replayed

__all__ = ["FittedModel", "known_before"]

_CONTEXTS = 1024  # that are forecast at once
_WHOLE = 64  # which batches of several series are a multiple of
_INSPECTED = 64  # windows

Rows = NDArray[np.int64]
Numbers = NDArray[np.float64]
Network: TypeAlias = TSM2Network | Ensemble | ZeroShotNetwork


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FittedModel:
    """A trained network with all that its forecasts depend on."""

    network: Network
    """In evaluation mode."""
    scaling: Scaling
    """Units of all columns, (M,), or of each series, (S, M)."""
    roles: Roles
    """Which columns are targets."""
    codings: Codings
    """How covariates are coded, and the rows of them that belong to the stored context."""
    context: Series
    """The last rows of each series, `reach` or as many as it has: what a forecast goes on from."""
    missing: Missing
    """What is done about gaps."""
    nonnegative: NDArray[np.bool_] | None = None
    """Which targets have no forecast below zero, (Mt,); None for none."""
    classical: ClassicalMean | None = None
    """What forecasts of the network are averaged with; None for nothing."""
    calibration: Calibration | None = None
    """Scores of held-out windows, which quantiles are read against."""
    device: str = "auto"
    """Where to forecast, see `tsm2.training.choose_device`."""
    capture_steps: Literal["auto"] | bool = "auto"
    """Whether many batches of forecasts are replayed as a CUDA graph, see
    `tsm2.training.recording`; where nothing is recorded, True forecasts all the same."""

    @property
    def lookback(self) -> int:
        """Rows L that the network reads, and needs."""
        return self.network.config.lookback

    @property
    def reach(self) -> int:
        """Rows that are read where there are so many."""
        return self.lookback if self.classical is None else max(self.lookback, self.classical.rows)

    @property
    def horizon(self) -> int:
        """Rows H that the network forecasts at once."""
        return self.network.config.horizon

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels of the network's quantiles; none for a point forecast."""
        return self.network.config.quantiles or ()

    @property
    def pretrained(self) -> bool:
        """Whether the network was not fitted to the series, or began with what it knew before."""
        return isinstance(self.network, ZeroShotNetwork)

    @property
    def ends(self) -> pd.Series[Any]:
        """The last stamp that is known of each series, by name."""
        names = pd.Index(self.context.ids, tupleize_cols=False)
        return pd.Series(self.context.last_stamps, index=names)

    # --- make ready ---------------------------------------------------------------------------

    def with_context(self, series: Series) -> tuple[Series, Rows]:
        """Put the stored context before each series that goes on where it ended.

        Before a series that is short all the same go unknown rows, if gaps are masked.

        Returns
        -------
        The series, and how many rows in front of each were not in it before, (S,).
        """
        whole = join(self.context, series)
        if self.missing == "mask" and not self.codings.by_kind:
            front = room_in_front(whole, lookback=self.lookback, horizon=self.horizon)
            whole = whole.padded(front)
        return whole, whole.counts - series.counts

    def extended(self, series: Series) -> Series:
        """Put new rows behind the stored context, gaps filled.

        Raises
        ------
        FrameError
            A series is new, or its rows do not go on where the known ones end.
        """
        whole = extend(self.context, series, over_gaps=self.missing != "raise")
        return filled(whole, self.missing)

    def continued(self, series: Series, given: CovariateTables) -> Self:
        """Return the model that goes on from the rows that `extended` made, with their covariates.

        Raises
        ------
        FrameError
            Rows of covariates are missing, or a table is not like that of the fit.
        """
        codings = self.codings.continued(
            given,
            series,
            lookback=self.lookback,
            horizon=self.horizon,
            stored=self.context,
            missing=self.missing,
        )
        return replace(self, codings=codings, context=series.tail(self.reach))

    def prepare(
        self,
        series: Series,
        given: CovariateTables,
        *,
        starts: Rows | None = None,
        ahead: int = 0,
        own: bool = False,
        read: Series | None = None,
    ) -> Prepared:
        """Make series ready.

        Parameters
        ----------
        series
            What happened.
        given
            Covariates of these rows; those that they lack are taken from what was kept.
        starts
            First forecast rows of windows, (W,): a series that fit has not seen is measured by the
            rows before its first window; None measures it by all.
        ahead
            Rows to come behind each series.
        own
            Whether the series are those of the stored context, whatever they are called.
        read
            What the network reads of the rows, gaps filled; None fills them here.
        """
        read = filled(series, self.missing) if read is None else read
        return Prepared.of(
            series,
            self.scaling if own else self.units(read, starts),
            self.roles,
            self._covariates(read, given, ahead=ahead, own=own),
            lookback=self.lookback,
            read=read,
            ahead=ahead,
        ).reaching(self.reach)

    def latest(
        self, series: Series | None, given: CovariateTables, steps: int
    ) -> tuple[Prepared, Rows]:
        """Make the last context of each series ready for a forecast of `steps` rows.

        Parameters
        ----------
        series
            The histories; None for the stored context.
        given
            Covariates, as for `prepare`.
        steps
            Rows to forecast.

        Returns
        -------
        The contexts, and the row that follows each, (S,).

        Raises
        ------
        WindowError
            A history is shorter than the lookback, and unknown rows may not stand before it.
        """
        own = series is None
        read = self.context if series is None else filled(series, self.missing)
        units = self.scaling if own else self.units(read)
        tail = read.tail(self.reach)
        if self.missing == "mask" and not self.codings.by_kind:  # too short: unknown before
            tail = tail.padded(np.maximum(self.lookback - tail.counts, 0))
        elif not read.layout.alone:
            check_long_enough(read, self.lookback, "lookback")
        elif len(read.values) < self.lookback:
            raise WindowError(
                f"the history has {len(read.values)} rows, but a forecast reads "
                f"{self.lookback} (lookback). Give more history."
            )
        ahead = whole_horizons(steps, self.horizon)
        covariates = self._covariates(tail, given, ahead=ahead, own=own)
        prepared = Prepared.of(
            tail, units, self.roles, covariates, lookback=self.lookback, ahead=ahead
        )
        return prepared.reaching(self.reach), tail.offsets[1:]

    def to_inspect(self, series: Series | None, given: CovariateTables) -> tuple[Prepared, Rows]:
        """Make every window of series ready, (W,), whether or not rows to forecast follow it.

        Without series it is the last window of each stored one.
        """
        if series is None:
            return self.latest(None, given, self.horizon)
        read = filled(series, self.missing)
        starts = Walk(lookback=self.lookback, horizon=0).starts_in(read)
        return self.prepare(read, given, starts=starts, ahead=self.horizon), starts

    def units(self, series: Series, starts: Rows | None = None) -> Scaling:
        """Return the units of every series: those of the fit; a new one is measured.

        It is measured by the rows before its first window, of those that start at `starts`, (W,),
        or by all of them.
        """
        if self.scaling.center.ndim == 1:
            return self.scaling
        numbers = numbers_in(series, self.context.ids)
        known = series if starts is None else series.head(known_before(series, starts))
        old = self.scaling.take(numbers)
        new = Scaling.of_each(known.values, known.offsets, old.logs)
        if self.pretrained:
            new = new.from_zero()
        is_new = numbers[:, None] < 0
        unbent = None
        if new.unbent is not None and old.unbent is not None:
            unbent = np.where(is_new, new.unbent, old.unbent)
        return replace(
            old,
            center=np.where(is_new, new.center, old.center),
            scale=np.where(is_new, new.scale, old.scale),
            unbent=unbent,
        )

    def _covariates(
        self, series: Series, given: CovariateTables, *, ahead: int, own: bool
    ) -> Covariates:
        """Return coded covariates of series' rows and of those to come."""
        layout = self.context.layout
        known = layout.stamped and layout.named  # rows that are there are found again
        return self.codings.covariates(
            given,
            series,
            ahead,
            self.roles.layout(series.layout),
            stored=self.context if own or known else None,
            missing=self.missing,
        )

    # --- forecast -----------------------------------------------------------------------------

    def forecast(
        self, prepared: Prepared, starts: Rows, steps: int, *, size: int = _CONTEXTS
    ) -> Numbers:
        """Return forecasts, (W, steps, Mt), in the units of the series.

        Parameters
        ----------
        prepared
            Histories with the covariates that whole horizons need.
        starts
            First forecast row of every window, (W,).
        steps
            Rows to forecast; beyond the horizon the network rolls forward.
        size
            Windows that are forecast at once.

        Raises
        ------
        ParameterError
            It would roll forward over past covariates that nobody knows.
        """
        return np.concatenate(list(self.forecasts(prepared, starts, steps, size=size)))

    def forecasts(
        self, prepared: Prepared, starts: Rows, steps: int, *, size: int
    ) -> Iterator[Numbers]:
        """Return what yields the forecasts of `size` windows after the other; as `forecast`."""
        self._check_reach(steps)
        network = self._replayed()

        def run(batch: Batch) -> Tensor:
            return roll_forward(
                network, batch.context, steps, self.horizon, batch.auxiliary(), point=self.point
            )

        return self._in_batches(run, prepared, starts, steps, size)

    def quantiles(
        self,
        prepared: Prepared,
        starts: Rows,
        steps: int,
        levels: Sequence[float],
        *,
        calibrated: bool = True,
        size: int = _CONTEXTS,
    ) -> Numbers:
        """Return quantiles, (W, steps, Mt, Q), in the units of the series; they do not cross.

        Parameters
        ----------
        prepared, starts, size
            As for `forecast`.
        steps
            Rows to forecast, at most the horizon; a pretrained network that is taken at its word
            rolls forward.
        levels
            Levels, (Q,), in (0, 1), rising.
        calibrated
            False takes the network's own quantiles at their word.

        Raises
        ------
        ParameterError
            The steps go beyond the horizon, or there is too little to read such levels against.
        """
        each = self.each_quantiles(
            prepared, starts, steps, levels, calibrated=calibrated, size=size
        )
        return np.concatenate(list(each))

    def each_quantiles(
        self,
        prepared: Prepared,
        starts: Rows,
        steps: int,
        levels: Sequence[float],
        *,
        calibrated: bool = True,
        size: int,
    ) -> Iterator[Numbers]:
        """Return what yields the quantiles of `size` windows after the other; as `quantiles`."""
        network, calibration = self._replayed(), self.calibration if calibrated else None
        rolls = self.pretrained and calibration is None
        if steps > self.horizon and not rolls:
            raise ParameterError(
                f"quantiles reach the trained horizon of {self.horizon} rows, but {steps} were "
                f"asked for. Fit with a longer horizon, or draw paths with sample, which rolls "
                f"forward."
            )
        self._warn_of_lacking(calibration, stacklevel=5)

        def run(batch: Batch) -> Tensor:
            if rolls:
                forecast = roll_quantiles(
                    network, batch.context, steps, self.horizon, batch.auxiliary(), point=self.point
                )
            else:
                forecast = network(batch.context, **batch.auxiliary())
            line = ForecastLine.of(
                forecast,
                batch.context,
                quantiles=self.levels,
                mask=batch.mask,
                lookback=self.lookback,
            )
            values = read_quantiles(line, levels, calibration=calibration, quantiles=self.levels)
            return values[:, :, :steps].permute(0, 1, 3, 2)  # (B, Mt, Q, steps)

        values = self._in_batches(run, prepared, starts, steps, size)  # (B, steps, Q, Mt) each
        return (each.swapaxes(2, 3) for each in values)

    def paths(
        self,
        prepared: Prepared,
        starts: Rows,
        steps: int,
        count: int,
        generator: np.random.RandomState,
    ) -> Numbers:
        """Return paths that err as on held-out windows, (W, steps, Mt, N), in the series' units.

        Parameters
        ----------
        prepared, starts, steps
            As for `forecast`.
        count
            Paths N of every window.
        generator
            Draws.

        Raises
        ------
        ParameterError
            There is no calibration, or as for `forecast`.
        """
        if self.calibration is None:
            raise ParameterError(
                "sample draws from the errors on held-out windows, but there are none: fit with a "
                "validation_fraction above 0, or call calibrate with later rows."
            )
        self._check_reach(steps)
        network, calibration = self._replayed(), self.calibration
        self._warn_of_lacking(calibration, stacklevel=4)

        def run(batch: Batch) -> Tensor:
            auxiliary = batch.auxiliary()
            paths = draw_paths(
                network,
                batch.context.repeat_interleave(count, dim=0),
                steps,
                calibration=calibration,
                quantiles=self.levels,
                generator=generator,
                lookback=self.lookback,
                alike=count,
                auxiliary={k: v.repeat_interleave(count, dim=0) for k, v in auxiliary.items()},
            )  # (B N, Mt, steps)
            by_window = paths.view(len(batch.context), count, *paths.shape[1:])
            return by_window.swapaxes(1, 2)  # (B, Mt, N, steps)

        size = max(1, _CONTEXTS // count)
        values = list(self._in_batches(run, prepared, starts, steps, size))
        return np.concatenate(values).swapaxes(2, 3)  # (W, steps, Mt, N)

    def select(self, prepared: Prepared, starts: Rows) -> Selection:
        """Return what the network selects in windows, at most 64 of them, evenly spread."""
        if len(starts) > _INSPECTED:
            starts = starts[np.linspace(0, len(starts) - 1, _INSPECTED).round().astype(int)]
        inputs, names = self._inspected(prepared, starts)
        return inspect_network(self._placed(), inputs, names, point=self.point)

    def explain(self, prepared: Prepared, start: Rows, part: int | None) -> Explanation:
        """Return what moved the forecast of one window, which starts at `start`, (1,).

        `part` are the rows that are looked at together; None for an eighth of those that are read.
        """
        inputs, names = self._inspected(prepared, start)
        rows = prepared.lookback
        if self.classical is not None and "mask" in inputs:  # nothing is before a shorter history
            there = int(inputs["mask"].any(1).int().argmax())
            rows = max(self.lookback, rows - there)
            inputs = {name: each[..., -rows:] for name, each in inputs.items()}
        return explain_window(
            self._placed(),
            inputs,
            names,
            point=self.point,
            part=max(1, rows // 8) if part is None else part,
            lookback=rows,
        )

    def _inspected(
        self, prepared: Prepared, starts: Rows
    ) -> tuple[dict[str, Tensor], dict[str, Sequence[Hashable]]]:
        """Return what the network reads in windows, and what it is called."""
        ((_, batch),) = self._batches(prepared, starts, self.horizon, _INSPECTED)
        columns = self.context.layout.columns
        names: dict[str, Sequence[Hashable]] = {
            "context": [columns[k] for k in self.roles.targets],
            "past": [*(columns[k] for k in self.roles.others), *self.codings.labels("past")],
            "future": self.codings.labels("future") + self.codings.labels("calendar"),
        }
        inputs = {"context": batch.context, **batch.auxiliary()}
        return inputs, {kind: labels for kind, labels in names.items() if labels}

    def calibrated(self, windows: Windows) -> Self:
        """Return the model with the scores of windows that it was not trained on.

        Raises
        ------
        ParameterError
            A variate and step is not known in any of them.
        """
        return self.calibrated_by([(self.network, windows)])

    def calibrated_by(self, held_out: Iterable[tuple[Network, Windows]]) -> Self:
        """Return the model with the scores of networks in its place, each on windows of its own."""
        pairs = ((self._placed(network), windows) for network, windows in held_out)
        scores = calibrate(pairs, quantiles=self.levels, lookback=self.lookback)
        return replace(self, calibration=scores)

    def of_contexts(
        self, contexts: Numbers, steps: int, units: Scaling | None
    ) -> tuple[Prepared, Rows]:
        """Make histories without stamps ready, (B, L, M); NaN where unknown.

        Parameters
        ----------
        contexts
            The histories.
        steps
            Rows to forecast.
        units
            Units of the histories, (M,) or (B, M); None for those of the fit.

        Raises
        ------
        ParameterError
            The model reads covariates, or these are no contexts of its columns.
        WindowError
            They are shorter than the lookback, and unknown rows may not stand before them.
        FrameError
            A value is unknown, and the model was not told what to do about that.
        """
        if self.codings.by_kind:
            raise ParameterError(
                "this model reads covariates, but contexts alone were given. Call predict or "
                "backtest, which find them by their stamps."
            )
        columns = self.context.layout.columns
        check_contexts(contexts, columns, lookback=self.lookback, missing=self.missing)
        n_windows, n_rows, n_columns = contexts.shape
        series = replace(
            self.context,
            values=contexts.reshape(-1, n_columns),
            index=pd.RangeIndex(n_windows * n_rows),
            ids=tuple(range(n_windows)),
            offsets=offsets_of(np.full(n_windows, n_rows)),
        )
        series = filled(series, self.missing)
        series = series.padded(np.maximum(self.lookback - series.counts, 0))
        prepared = Prepared.of(
            series,
            self.scaling if units is None else units,
            self.roles,
            Covariates(),
            lookback=self.lookback,
            ahead=whole_horizons(steps, self.horizon),
        )
        return prepared.reaching(self.reach), series.offsets[1:]

    def _batches(
        self, prepared: Prepared, starts: Rows, steps: int, size: int
    ) -> Iterator[tuple[slice, Batch]]:
        """Yield which windows, and what the network reads of them.

        Libraries of linear algebra add up in another order where rows are few, so that a forecast
        would depend on how many others are made beside it. Batches of several series are therefore
        filled up to whole ones, with their last window again: a series is forecast alike, to the
        bit, alone and among a million.
        """
        windows = prepared.windows(starts, whole_horizons(steps, self.horizon))
        device = choose_device(self.device)
        together = self._together
        for first in range(0, len(starts), size):
            stop = min(first + size, len(starts))
            filled_up = first + -(-(stop - first) // together) * together
            which = torch.arange(first, filled_up).clamp(max=stop - 1)
            yield slice(first, stop), windows.gather(which).lean().to(device)

    @torch.inference_mode()
    def _in_batches(
        self,
        run: Callable[[Batch], Tensor],
        prepared: Prepared,
        starts: Rows,
        steps: int,
        size: int,
    ) -> Iterator[Numbers]:
        """Run batches, (B, Mt, ..., steps) each, and yield them in their units, (B, steps, ...)."""
        units = prepared.units_of(starts)
        lacking = self.calibration is not None and bool(self.calibration.lacking.any())
        for which, batch in self._batches(prepared, starts, steps, size):
            standard = run(batch)[: which.stop - which.start].movedim(-1, 1).movedim(2, -1)
            own = units.take(which)
            piece = own.restore(standard)
            _require_finite(piece, batch, may_lack=lacking)
            yield self._stopped_at_zero(piece, batch, own)

    def _stopped_at_zero(self, forecasts: Numbers, batch: Batch, units: Scaling) -> Numbers:
        """Return forecasts, (B, ..., Mt), at zero where they are below it and nothing can be.

        Windows of `batch` that read a value below zero say that it can.
        """
        if self.nonnegative is None:
            return forecasts
        count, n_targets = len(forecasts), forecasts.shape[-1]
        zero = units.standardise(np.zeros((count, 1, n_targets))).movedim(1, -1)  # (B, Mt, 1)
        context = batch.context[:count]  # where what is unknown stands at the mean
        low = (context < zero.to(context.device)).any(-1)
        stops = self.nonnegative & ~low.cpu().numpy()
        lowest = np.where(stops, 0.0, -np.inf)
        return np.maximum(forecasts, lowest.reshape(count, *[1] * (forecasts.ndim - 2), n_targets))

    def _warn_of_lacking(self, calibration: Calibration | None, *, stacklevel: int) -> None:
        """Name the variates whose intervals are not known, if there are any."""
        if calibration is None or not bool(calibration.lacking.any()):
            return
        columns = self.roles.layout(self.context.layout).columns
        names = [columns[k] for k in calibration.lacking.any(1).nonzero().flatten().tolist()]
        warnings.warn(
            f"{name_some(names, 'column')} not known on the held-out rows, at least not at every "
            f"step, so that how far its forecasts err is not known either: what is asked of its "
            f"errors is NaN. Call calibrate with rows that have it.",
            CalibrationWarning,
            stacklevel=stacklevel,
        )

    def forecasting(self, network: Network | None = None) -> Network | CombinedNetwork:
        """Return what forecasts: the network, or another in its place, averaged as it is."""
        network = self.network if network is None else network
        if self.classical is None or isinstance(network, ZeroShotNetwork):
            return network
        return CombinedNetwork(network, self.classical, together=self._together).eval()

    @property
    def _together(self) -> int:
        """What batches are a multiple of: windows of one table come as many as there are."""
        return 1 if self.context.layout.alone else _WHOLE

    def _placed(self, network: Network | None = None) -> Network | CombinedNetwork:
        whole = self.forecasting(network)
        device = torch.device(choose_device(self.device))
        if next(whole.parameters()).device == device:  # which `to` takes a while to see
            return whole
        return whole.to(device)

    def _replayed(self) -> Callable[..., Tensor]:
        """Return the network for many batches, which is replayed where that pays."""
        network = self._placed()
        device = next(network.parameters()).device
        recorder = find_recorder(
            device,
            asks_host=getattr(network, "asks_host", False),
            asked="auto" if self.capture_steps else False,  # a fit may be forecast elsewhere
        )
        return Replayed(
            network, recorder, device, what="forecasts", required=self.capture_steps is True
        )

    def point(self, forecast: Tensor, *_: object) -> Tensor:
        """Return the point forecast, (B, Mt, H), in what the network returned."""
        return forecast[..., self.levels.index(0.5)] if self.levels else forecast

    def _check_reach(self, steps: int) -> None:
        if steps > self.horizon and self.network.config.n_past and self.missing != "mask":
            raise ParameterError(
                f"horizon={steps} is longer than trained ({self.horizon}) and would need past "
                f"covariates, or columns that are only read, of rows to come. Fit with a longer "
                f"horizon, or with missing='mask', which lets them be unknown."
            )


def _require_finite(forecasts: Numbers, batch: Batch, *, may_lack: bool) -> None:
    """Check forecasts, (B, ...), before anybody gets them; NaN may say that nothing is known."""
    bad = np.isinf(forecasts) if may_lack else ~np.isfinite(forecasts)
    wrong = np.flatnonzero(bad.reshape(len(forecasts), -1).any(axis=1))
    if not len(wrong):
        return
    read = batch.context[int(wrong[0])].abs()
    raise ForecastError(
        f"{len(wrong)} of {len(forecasts)} forecasts that were made together are infinite or "
        f"undefined. The first of them reads values up to {float(read.max()):.3g} deviations away "
        f"from the mean of the rows of fit. If that is far, check the units of the history, or fit "
        f"again with rows like these and instance_norm=True, which measures each window by itself; "
        f"else the weights have gone astray: fit again with lower learning rates."
    )


def known_before(series: Series, starts: Rows) -> Rows:
    """Return how many rows of each series stand before its first window, (S,), or all of them."""
    owned, first = np.unique(series.owners[starts - 1], return_index=True)
    n_known = series.counts.copy()
    n_known[owned] = starts[first] - series.offsets[owned]
    return n_known
