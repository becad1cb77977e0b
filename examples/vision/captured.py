"""A training step over batches of one size, recorded as a CUDA graph and replayed.

    copy the batch and the learning rates to where they were recorded -> replay -> read the loss

It is the same recording as a forecaster's, `tsm2.training.recording`: the step is tried three
times, all that it changed is put back, and where it cannot be recorded it is taken as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tsm2.errors import BackendError
from tsm2.training.capture import Recorder, find_recorder
from tsm2.training.recording import Replayed, rates_in_place, room_for_rates


def recorder_for(
    device: torch.device, optimizer: Any, *, processes: int, obstacle: str | None, asked: bool | str
) -> Recorder | None:
    """Return what records steps on a device, or None if they are not captured.

    `obstacle` says why steps of this recipe cannot be, if it knows; `asked` is `capture_steps`.
    An optimizer is made to take steps that can be recorded, or, if none are, those that need not.
    """
    if obstacle is None and not all("capturable" in group for group in optimizer.param_groups):
        obstacle = f"{type(optimizer).__name__} takes no steps that can be captured"
    if obstacle is not None and asked is True:
        raise BackendError(
            f"capture_steps=true, but {obstacle}. Set capture_steps='auto' to capture steps where "
            f"that is possible."
        )
    able: Any = asked if obstacle is None else False
    recorder = find_recorder(device, processes=processes, compiled=False, asked=able)
    on_cuda = recorder is not None and device.type == "cuda"
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = on_cuda  # a checkpoint may say otherwise
    if on_cuda:
        for moments in optimizer.state.values():
            moments["step"] = moments["step"].to(device)
    return recorder


class CapturedStep:
    """A step, recorded when it is first called with a batch.

    Parameters
    ----------
    gradients
        Sets every gradient to that of a batch's loss, clips them, and returns the loss.
    model
        Whose weights and buffers move.
    optimizer
        As accelerate prepared it. Whoever schedules its groups' rates changes them between steps.
    recorder
        Records it.
    device
        Where it is taken.
    required
        Whether a step that cannot be recorded is an error, and no warning.
    """

    def __init__(
        self,
        gradients: Callable[[Sequence[Tensor]], Tensor],
        model: nn.Module,
        optimizer: Any,
        recorder: Recorder,
        device: torch.device,
        *,
        required: bool,
    ) -> None:
        self.gradients, self.optimizer = gradients, optimizer
        self.rates = room_for_rates(optimizer, device)
        self.replayed = Replayed(
            self._take,
            recorder,
            device,
            what="training steps",
            after=0,
            changes=[*model.parameters(), *model.buffers()],
            optimizer=optimizer,
            required=required,
        )

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """Take a step with a batch and return its loss, ()."""
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        return self.replayed(*batch)

    def _take(self, *batch: Tensor) -> Tensor:
        """Take a step: all that a device does in it."""
        loss = self.gradients(batch).detach()
        with rates_in_place(self.optimizer, self.rates):
            self.optimizer.step()
        return loss
