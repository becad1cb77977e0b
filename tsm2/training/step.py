"""One step of training: gather, climb, descend, clip, move, average, and add up the loss.

    g = gradient at w, or with SAM at w + radius g / |g|      w <- AdamW(w, clipped g)
    a <- average of w                                         loss sum <- loss sum + B loss

`TrainingStep` is the one function of all devices. Given a `Recorder`, it records its own work and
replays it from then on. So nothing in `_take` may depend on a number of the host that changes from
step to step: which windows, the learning rates and the average's share are tensors that stay where
they are, and what Python counts is counted outside. A batch of another size, such as the last of a
pass, is taken without the recording.

Sizes: B windows.
Source: Foret et al. (2021), arXiv:2010.01412, for SAM; the rest in `tsm2.training.optimization`.
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tsm2.networks.dropout import dropout_from
from tsm2.networks.heads import LossName, mean_loss
from tsm2.prepared.windows import Batch, Windows
from tsm2.training.capture import Recorder
from tsm2.training.ema import MovingAverage
from tsm2.training.optimization import climb, descend, list_mixers
from tsm2.training.processes import Processes
from tsm2.training.recording import Replayed, rates_in_place, room_for_rates

__all__ = ["BatchLoss", "TrainingStep"]


class StepSettings(Protocol):
    """The part of a training configuration that is read here."""

    @property
    def batch_size(self) -> int: ...
    @property
    def sam_radius(self) -> float: ...
    @property
    def gradient_clip(self) -> float: ...
    @property
    def loss(self) -> LossName: ...
    @property
    def quantiles(self) -> tuple[float, ...]: ...
    @property
    def precision(self) -> str: ...


class BatchLoss:
    """What is minimised: the loss of a network's forecasts of a batch, in a fit's precision.

    Parameters
    ----------
    model
        Forecasts; may be compiled or wrapped.
    config
        The loss and the precision.
    device
        Where it is trained.
    """

    def __init__(self, model: nn.Module, config: StepSettings, device: torch.device) -> None:
        self.model, self.config, self.device = model, config, device
        # Made once: a tensor of numbers from the host would stop a device in every step.
        self.levels = torch.tensor(config.quantiles, device=device)

    def __call__(self, batch: Batch) -> Tensor:
        """Return the mean loss of a batch."""
        name, levels, mask = self.config.loss, self.levels, batch.target_mask
        with self._precision():
            forecast = self.model(
                batch.context, **batch.auxiliary()
            ).float()  # (B, M, H), or (.., Q)
            target, unit = batch.target, batch.error_unit
            if unit is not None:
                forecast = forecast / (unit if forecast.ndim == target.ndim else unit[..., None])
                target = target / unit
            return mean_loss(name, forecast, target, quantiles=levels, mask=mask)

    def _precision(self) -> torch.autocast:
        """Return what computes in the fit's precision, around the network and never on it.

        Accelerate would put its own on the network's `forward`, where it would stay after the fit.
        """
        lowered = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=lowered)


class TrainingStep:
    """A step of training, taken by calling it.

    Parameters
    ----------
    network
        Whose weights move.
    loss
        What is minimised.
    optimizer
        AdamW over the network's parameters, as Accelerate prepared it. Its groups hold learning
        rates as numbers; whoever schedules them changes these between steps.
    average
        Moving average of the weights.
    windows
        Training windows, on the device.
    loss_sum
        To which each step adds the sum of its windows' losses, ().
    dropout
        Generator of the dropout, on the device.
    config
        How a step is taken.
    processes
        Those that share the step.
    recorder
        Records the step; None if steps are taken one operation at a time.
    required
        Whether a step that cannot be recorded is an error, and no warning.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        loss: BatchLoss,
        optimizer: Any,
        average: MovingAverage,
        windows: Windows,
        loss_sum: Tensor,
        dropout: torch.Generator,
        config: StepSettings,
        processes: Processes,
        recorder: Recorder | None = None,
        required: bool = False,
    ) -> None:
        self.network, self.loss, self.optimizer, self.average = network, loss, optimizer, average
        self.windows, self.loss_sum, self.dropout = windows, loss_sum, dropout
        self.config, self.processes = config, processes
        self.mixers = list_mixers(network) if config.sam_radius > 0 else []
        self._whole = min(config.batch_size, len(windows))
        self._rates: list[Tensor] = []
        self._share: float | Tensor = 1.0
        # On CUDA captured and uncaptured steps do the same, to the bit, with the same tensors.
        if recorder is not None or loss.device.type == "cuda":
            self._rates = room_for_rates(optimizer, loss.device)
            self._share = torch.zeros((), device=loss.device)
        self._replayed = Replayed(
            self._take,
            recorder,
            loss.device,
            what="training steps",
            after=0,
            changes=[*network.parameters(), *network.buffers(), *average.weights, loss_sum],
            optimizer=optimizer,
            generators=[dropout],
            required=required,
        )

    def __call__(self, which: Tensor) -> None:
        """Take a step with the windows numbered `which`, (B,), on their device.

        Raises
        ------
        BackendError
            The step cannot be recorded, and is required to be.

        Warns
        -----
        CaptureWarning
            It cannot be recorded; said once.
        """
        share = self.average.advance()
        if isinstance(self._share, Tensor):
            self._share.fill_(share)
        else:
            self._share = share
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=False):
            rate.fill_(group["lr"])
        take = self._replayed if len(which) == self._whole else self._take
        take(which)

    def _take(self, which: Tensor) -> None:
        """Take a step: all that a device does in it, and nothing that a host must do again."""
        size, own = len(which), self.processes.rows(len(which))
        part = self.windows.gather(which[own])
        with dropout_from(self.network, self.dropout, rows=(size, own)):
            loss = self._gradients(part, size)
            if self.mixers:
                moves = climb(self.mixers, self.config.sam_radius)
                self._gradients(part, size)
                descend(moves)
        if math.isfinite(self.config.gradient_clip):
            parameters = self.loss.model.parameters()
            self.processes.accelerator.clip_grad_norm_(parameters, self.config.gradient_clip)
        with rates_in_place(self.optimizer, self._rates):
            self.optimizer.step()
        self.average.update(self._share)
        self.loss_sum += loss * size

    def _gradients(self, part: Batch, size: int) -> Tensor:
        """Set every gradient to that of a batch's loss, of which this is a part; return the loss.

        `size` is the batch's number of windows.
        """
        self.loss.model.zero_grad(set_to_none=True)
        term, whole = self.processes.shared(self.loss(part), part, size)
        self.processes.accelerator.backward(term)
        return whole
