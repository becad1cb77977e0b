"""A training step over batches of one size, recorded as a CUDA graph and replayed.

    copy the batch and the learning rates to where they were recorded -> replay -> read the loss

It is the same recording as a forecaster's, `tsm2.training.recording`: the step is tried three
times, all that it changed is put back, and where it cannot be recorded it is taken as it is.

A detector's losses ask the host how many boxes there are, again and again. What can be recorded of
its step is the forward and the backward pass of a part, `CapturedPasses`:

    copy the images -> replay the part forward -> losses, and their gradients, as they are
    -> copy the gradients of what the part gave -> replay it backward -> gradients of its weights
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tsm2.errors import BackendError
from tsm2.training.capture import Recorder, find_recorder
from tsm2.training.recording import (
    PAYS,
    Replayed,
    rates_in_place,
    recorded,
    room_for_rates,
    sizes_of,
)


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


def capture_passes(
    module: nn.Module, device: torch.device, *, processes: int, asked: Literal["auto"] | bool
) -> None:
    """Let the passes of a module be replayed where that is possible; `asked` is `capture_steps`."""
    recorder = find_recorder(device, processes=processes, asked=asked)
    if recorder is not None:
        passes: Any = CapturedPasses(module, recorder, device, required=asked is True)
        module.forward = passes


class CapturedPasses:
    """A module over images whose two passes of training are replayed, which it is called for.

    They are recorded for images of one size, the first that came ten times: what a pass keeps for
    the other is the most that training has in memory. A weight of what no loss reads gets gradients
    of zero. Images of other sizes, others before the backward pass of the last ones, and all that
    is not training go through the module as they are.

    Parameters
    ----------
    module
        Maps images, (B, C, H, W), to named tensors.
    recorder
        Records its passes.
    device
        Where it is.
    required
        Whether passes that cannot be recorded are an error, and no warning.
    """

    def __init__(
        self, module: nn.Module, recorder: Recorder, device: torch.device, *, required: bool
    ) -> None:
        self.module, self.device, self.required = module, device, required
        self.recorder: Recorder | None = recorder
        self.pass_through: Callable[[Tensor], dict[str, Tensor]] = module.forward
        self.calls: Counter[object] = Counter()
        self.size: object = None  # that came ten times
        self.images = torch.empty(0)
        self.given: dict[str, Tensor] = {}
        self.wanted: dict[str, Tensor] = {}
        self.weights: list[Tensor] = []
        self.found: Sequence[Tensor | None] = ()
        self.replays: list[Callable[[], None]] = []
        self.is_open = False  # gone through forward, and not yet backward

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return what the module gives for images."""
        trains = self.module.training and torch.is_grad_enabled() and not images.requires_grad
        if self.recorder is None or not trains:
            return self.pass_through(images)
        size = sizes_of([images])
        if self.size is None:
            self.calls[size] += 1
            if self.calls[size] < PAYS:
                return self.pass_through(images)
            self.size = size
            return self._look_at(self.pass_through(images))
        if size == self.size and not self.replays:
            self._record(self.recorder, images)
        if size != self.size or not self.replays or self.is_open:
            return self.pass_through(images)
        self.images.copy_(images)
        replayed: Any = _Passes.apply(self, *self.weights)  # type: ignore[no-untyped-call]
        return OrderedDict(zip(self.given, replayed, strict=True))

    def _look_at(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make room for gradients as they lie in memory, by those of the last step as it is.

        A convolution adds them up in another order if they lie otherwise.
        """

        def look(name: str, gradient: Tensor) -> None:
            self.wanted[name] = torch.empty_strided(
                gradient.shape, gradient.stride(), dtype=gradient.dtype, device=gradient.device
            ).zero_()

        for name, each in given.items():
            if each.requires_grad:
                each.register_hook(partial(look, name))
        return given

    def _record(self, recorder: Recorder, images: Tensor) -> None:
        self.images = images.clone()
        self.weights = [each for each in self.module.parameters() if each.requires_grad]
        replays = recorded(
            recorder,
            [self._forward, self._backward],
            what="passes of a detector's backbone",
            changes=list(self.module.buffers()),
            device=self.device,
            required=self.required,
        )
        if replays is None:
            self.recorder = None
        else:
            self.replays = replays

    def _forward(self) -> None:
        try:
            self.given = self.pass_through(self.images)
        finally:
            # What mixed precision makes of weights here is made again in every replay, and it must
            # not read here what a warm-up made.
            torch.clear_autocast_cache()

    def _backward(self) -> None:
        given = {name: each for name, each in self.given.items() if each.requires_grad}
        for name, each in given.items():
            if name not in self.wanted:  # nobody read it in the step that was looked at
                self.wanted[name] = torch.zeros_like(each)
        wanted = [self.wanted[name] for name in given]
        self.found = torch.autograd.grad(
            list(given.values()), self.weights, wanted, allow_unused=True
        )


class _Passes(torch.autograd.Function):
    """What was recorded of a module, as one operation of its weights."""

    @staticmethod
    def forward(ctx: Any, passes: CapturedPasses, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.passes = passes
        passes.replays[0]()
        passes.is_open = True
        return tuple(each.detach().clone() for each in passes.given.values())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        passes: CapturedPasses = ctx.passes
        for name, each in zip(passes.given, gradients, strict=True):
            if name in passes.wanted:
                passes.wanted[name].copy_(each)
        passes.replays[1]()
        passes.is_open = False
        return None, *(None if each is None else each.clone() for each in passes.found)
