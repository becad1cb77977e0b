"""A step that is recorded once and replayed from then on, whatever it trains.

What a recording needs of every step is here: its warm-ups are undone, its learning rates are
tensors that stay where they are, and where it cannot be recorded it is taken as it was, with a
warning. `tsm2.training.capture` is the device's part of it.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from tsm2.errors import BackendError, CaptureWarning
from tsm2.training.capture import Recorder

__all__ = ["rates_in_place", "recorded", "room_for_rates"]


def room_for_rates(optimizer: Any, device: torch.device) -> list[Tensor]:
    """Return a tensor for the learning rate of each of an optimizer's groups."""
    # CUDA's AdamW reads its rates in float32, that of a CPU in float64.
    exact = torch.float32 if device.type == "cuda" else torch.float64
    return [torch.zeros((), dtype=exact, device=device) for _ in optimizer.param_groups]


@contextmanager
def rates_in_place(optimizer: Any, rates: Sequence[Tensor]) -> Iterator[None]:
    """Let an optimizer read the tensors with the rates; its groups keep the numbers."""
    groups = optimizer.param_groups
    numbers = [group["lr"] for group in groups]
    for group, rate in zip(groups, rates, strict=False):
        group["lr"] = rate
    try:
        yield
    finally:
        for group, number in zip(groups, numbers, strict=True):
            group["lr"] = number


def recorded(
    recorder: Recorder,
    step: Callable[[], None],
    *,
    changes: Iterable[Tensor],
    optimizer: Any,
    generators: Sequence[torch.Generator],
    device: torch.device,
    required: bool,
) -> Callable[[], None]:
    """Record a step and return what replays it; without a recording, the step itself.

    Parameters
    ----------
    recorder
        Records what the step does on its device.
    step
        Reads and writes tensors that stay where they are.
    changes
        Tensors that it changes, beside the optimizer's moments: put back after the warm-ups.
    optimizer
        What it moves the weights with.
    generators
        What it draws from, beside the device's own.
    device
        Where it is taken.
    required
        Whether a step that cannot be recorded is an error, and no warning.

    Raises
    ------
    BackendError
        The step cannot be recorded, and is required to be.

    Warns
    -----
    CaptureWarning
        It cannot be recorded.
    """
    own = [*generators, _own_generator(device)]
    with _undone(list(changes), optimizer, own):
        recorder.warm_up(step)
        try:
            return recorder.record(step, generators)
        except RuntimeError as error:
            reason = _first_reason(error)
            if required:
                raise BackendError(
                    f"a training step cannot be captured here: {reason}. Pass "
                    f"capture_steps='auto' to take steps one operation at a time."
                ) from error
    warnings.warn(
        f"training steps are slower than they could be, for one cannot be captured: {reason}. "
        f"Pass capture_steps=False if that is what you want.",
        CaptureWarning,
        stacklevel=3,
    )
    return step


@contextmanager
def _undone(
    changes: list[Tensor], optimizer: Any, generators: Sequence[torch.Generator]
) -> Iterator[None]:
    """Put everything that a step changes back to where it was before the block."""
    moments = optimizer.state.values()
    tensors = [*changes, *_tensors_of(moments)]
    known = {id(each) for each in tensors}
    before = [(each, each.detach().clone()) for each in tensors]
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        with torch.no_grad():
            for each, value in before:
                each.copy_(value)
            for each in _tensors_of(moments):
                if id(each) not in known:  # made by the first step, and zero before it
                    each.zero_()
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _tensors_of(moments: Iterable[Any]) -> list[Tensor]:
    values = chain.from_iterable(each.values() for each in moments)
    return [each for each in values if isinstance(each, Tensor)]


def _first_reason(error: BaseException) -> str:
    """Say what went wrong first: a recording that is broken off fails once more when it ends."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return " ".join(str(error).split("\n\n")[0].split())


def _own_generator(device: torch.device) -> torch.Generator:
    """Return what a layer draws from that has no generator of its own."""
    if device.type != "cuda":
        return torch.default_generator
    cuda: Any = torch.cuda
    generator: torch.Generator = cuda.default_generators[cuda.current_device()]
    return generator
