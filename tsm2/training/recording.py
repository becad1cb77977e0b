"""What is done again and again: recorded once and replayed from then on, whatever it does.

`Replayed` is the one way: a training step, a batch of validation and a batch of forecasts are each
a function of tensors, called as it is until a recording pays, and replayed from then on. What a
recording needs of all of them is here: tensors are copied to where they were recorded, warm-ups
are undone, learning rates are tensors that stay where they are, and what cannot be recorded is
done as it was, with a warning. `tsm2.training.capture` is the device's part of it.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from tsm2.errors import BackendError, CaptureWarning
from tsm2.training.capture import Recorder

__all__ = ["PAYS", "Replayed", "rates_in_place", "recorded", "room_for_rates", "sizes_of"]

PAYS = 10
"""Calls with tensors of the same sizes after which a recording pays: it takes about as long as so
many of them."""
_MOST = 4  # sizes that are recorded: each recording keeps its memory

Output = TypeVar("Output", bound=Tensor | None)


class Replayed(Generic[Output]):
    """A function of tensors that is replayed from a recording where that pays.

    Tensors of other sizes have a recording of their own, four at most.

    Parameters
    ----------
    task
        Maps tensors to a tensor, or to nothing. What else it reads and writes stays where it is.
    recorder
        Records what it does on the device; None never does.
    device
        Where it is done.
    what
        Is said of it where it cannot be recorded, in the plural.
    after
        Calls with tensors of the same sizes before it is recorded.
    changes
        Tensors that it changes, beside the optimizer's moments.
    optimizer
        What it moves weights with, if it does.
    generators
        What it draws from, beside the device's own.
    required
        Whether it is an error, and no warning, if it cannot be recorded.
    """

    def __init__(
        self,
        task: Callable[..., Output],
        recorder: Recorder | None,
        device: torch.device,
        *,
        what: str,
        after: int = PAYS,
        changes: Sequence[Tensor] = (),
        optimizer: Any = None,
        generators: Sequence[torch.Generator] = (),
        required: bool = False,
    ) -> None:
        self.task, self.recorder, self.device = task, recorder, device
        self.what, self.after, self.required = what, after, required
        self.changes, self.optimizer, self.generators = changes, optimizer, generators
        self._calls: dict[object, int] = {}
        self._recordings: dict[object, _Recording[Output]] = {}

    def __call__(self, *given: Tensor, **named: Tensor) -> Output:
        """Do the task with these tensors; what it returns is the caller's own.

        Raises
        ------
        BackendError
            It cannot be recorded, and is required to be.

        Warns
        -----
        CaptureWarning
            It cannot be recorded; said once.
        """
        if self.recorder is None:
            return self.task(*given, **named)
        sizes = sizes_of(given, named)
        recording = self._recordings.get(sizes)
        if recording is None:
            calls = self._calls[sizes] = self._calls.get(sizes, 0) + 1
            if calls > self.after and len(self._recordings) < _MOST:
                recording = self._record(self.recorder, given, named)
            if recording is None:
                return self.task(*given, **named)
            self._recordings[sizes] = recording
        return recording.replay([*given, *named.values()])

    def _record(
        self, recorder: Recorder, given: Sequence[Tensor], named: dict[str, Tensor]
    ) -> "_Recording[Output] | None":
        made: _Recording[Output] = _Recording(self.task, given, named)
        again = recorded(
            recorder,
            [made.do],
            what=self.what,
            changes=self.changes,
            optimizer=self.optimizer,
            generators=self.generators,
            device=self.device,
            required=self.required,
        )
        if again is None:
            self.recorder = None  # nor for tensors of other sizes
            return None
        (made.again,) = again
        return made


class _Recording(Generic[Output]):
    """A task with tensors that stay where they are."""

    def __init__(
        self, task: Callable[..., Output], given: Sequence[Tensor], named: Mapping[str, Tensor]
    ) -> None:
        self.task = task
        self.given = [_room_for(each) for each in given]
        self.named = {name: _room_for(each) for name, each in named.items()}
        self.out: Output
        self.again: Callable[[], None] = self.do

    def do(self) -> None:
        """Do the task, which is what is recorded."""
        self.out = self.task(*self.given, **self.named)

    def replay(self, tensors: Sequence[Tensor]) -> Output:
        """Do the recorded work with other tensors, in the order of the first ones."""
        for there, each in zip([*self.given, *self.named.values()], tensors, strict=True):
            there.copy_(each)
        self.again()
        own: Any = None if self.out is None else self.out.clone()
        out: Output = own
        return out


def sizes_of(given: Iterable[Tensor], named: Mapping[str, Tensor] = MappingProxyType({})) -> object:
    """Return what a recording depends on, of the tensors that it reads."""
    parts = chain(((None, each) for each in given), named.items())
    return tuple((name, each.shape, each.stride(), each.dtype) for name, each in parts)


def _room_for(given: Tensor) -> Tensor:
    """Return a copy that lies in memory as a tensor does: kernels may choose their way by that."""
    if 0 in given.stride():  # one number stands for many
        return given.clone()
    room = torch.empty_strided(given.shape, given.stride(), dtype=given.dtype, device=given.device)
    return room.copy_(given)


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
    tasks: Sequence[Callable[[], None]],
    *,
    what: str,
    device: torch.device,
    changes: Sequence[Tensor] = (),
    optimizer: Any = None,
    generators: Sequence[torch.Generator] = (),
    required: bool = False,
) -> list[Callable[[], None]] | None:
    """Record tasks and return what replays each; None if one cannot be recorded.

    Parameters
    ----------
    recorder
        Records what the tasks do on their device.
    tasks
        Read and write tensors that stay where they are; done one behind the other.
    what, device, changes, optimizer, generators, required
        As for `Replayed`; all that the warm-ups change is put back.

    Raises
    ------
    BackendError
        A task cannot be recorded, and is required to be.

    Warns
    -----
    CaptureWarning
        One cannot be recorded.
    """

    def do() -> None:
        for task in tasks:
            task()

    own = [*generators, _own_generator(device)]
    with _undone(changes, optimizer, own):
        recorder.warm_up(do)
        try:
            return [recorder.record(task, generators) for task in tasks]
        except RuntimeError as error:
            reason = _first_reason(error)
            if required:
                raise BackendError(
                    f"{what} cannot be captured here: {reason}. Pass capture_steps='auto' to take "
                    f"them one operation at a time."
                ) from error
    warnings.warn(
        f"{what} are slower than they could be, for they cannot be captured: {reason}. "
        f"Pass capture_steps=False if that is what you want.",
        CaptureWarning,
        stacklevel=5,
    )
    return None


@contextmanager
def _undone(
    changes: Sequence[Tensor], optimizer: Any, generators: Sequence[torch.Generator]
) -> Iterator[None]:
    """Put everything that a task changes back to where it was before the block."""
    moments = [] if optimizer is None else optimizer.state.values()
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
