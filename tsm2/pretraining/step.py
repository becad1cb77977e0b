"""A step of pretraining: the loss of a lesson, its gradients, AdamW and the moving average.

    g = gradient of the quantile loss, clipped      w <- AdamW(w, g)      a <- average of w

On CUDA a step is recorded once for every shape of lessons, and replayed: the recordings share the
weights, their moments and their average, and each has a place of its own for its lesson. What a
recording needs, `tsm2.training.recording` says.
"""

from typing import Literal

import torch
from torch import Tensor

from tsm2.networks.heads import quantile_loss
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.pretraining.lessons import Lesson
from tsm2.training.capture import find_recorder
from tsm2.training.ema import MovingAverage
from tsm2.training.recording import Replayed, rates_in_place, room_for_rates

__all__ = ["PretrainingStep"]


class PretrainingStep:
    """Takes a step by being called.

    Parameters
    ----------
    network
        Whose weights move, on its device.
    optimizer
        AdamW over them.
    average
        Moving average of them.
    device
        Where they are.
    gradient_clip
        Largest norm of the gradients.
    capture
        Whether steps are captured, as `PretrainingConfig.capture_steps` has it.

    Raises
    ------
    BackendError
        Steps must be captured, and cannot be.
    """

    def __init__(
        self,
        network: ZeroShotNetwork,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage,
        *,
        device: torch.device,
        gradient_clip: float,
        capture: Literal["auto"] | bool,
    ) -> None:
        self.network, self.optimizer, self.average = network, optimizer, average
        self.gradient_clip = gradient_clip
        # Made once: a tensor of numbers from the host would stop a device in every step.
        self.levels = torch.tensor(network.config.quantiles or (), device=device)
        self.loss = torch.zeros((), device=device)
        recorder = find_recorder(device, processes=1, compiled=False, asked=capture)
        self._rates: list[Tensor] = []
        self._share: float | Tensor = 1.0
        # On CUDA captured and uncaptured steps do the same, to the bit, with the same tensors.
        if recorder is not None or device.type == "cuda":
            self._rates = room_for_rates(optimizer, device)
            self._share = torch.zeros((), device=device)
        self._step = Replayed(
            self._take,
            recorder,
            device,
            what="training steps",
            after=0,
            changes=[*network.parameters(), *network.buffers(), *average.weights, self.loss],
            optimizer=optimizer,
            required=capture is True,
        )

    def __call__(self, lesson: Lesson, rate: float) -> Tensor:
        """Take a step at a learning rate, and return its loss, (), on the device.

        Raises
        ------
        BackendError
            The step cannot be recorded, and is required to be.

        Warns
        -----
        CaptureWarning
            It cannot be recorded; said once.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for each in self._rates:
            each.fill_(rate)
        share = self.average.advance()
        if isinstance(self._share, Tensor):
            self._share.fill_(share)
        else:
            self._share = share
        self._step(*lesson)
        return self.loss.clone()

    def _take(self, context: Tensor, mask: Tensor, static: Tensor, target: Tensor) -> None:
        """Take a step: all that a device does in it, and nothing that a host must do again."""
        self.optimizer.zero_grad(set_to_none=True)
        answer = self.network.inner(context, mask=mask, static=static)
        loss = quantile_loss(answer, target, self.levels)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.gradient_clip)
        with rates_in_place(self.optimizer, self._rates):
            self.optimizer.step()
        self.average.update(self._share)
        self.loss.copy_(loss.detach())
