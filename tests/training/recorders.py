"""Recorders of a CPU: what a GPU's graph does, one operation after the other.

A `Tape` holds what PyTorch was asked to do below autograd, with the very tensors, and does it again
without the Python around it: a number that Python passed, a tensor that moved, or a count that
Python keeps is wrong in a replay, as it would be in a CUDA graph.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HOST_OPERATIONS = (
    "_local_scalar_dense",
    "bincount",
    "equal",
    "is_nonzero",
    "item",
    "lift_fresh",  # a tensor of numbers from the host
    "masked_select",
    "nonzero",
    "repeat_interleave.Tensor",
    "unique",
)


class NoHost(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what a CUDA graph cannot hold: a value that goes to the host, or comes from it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = str(func).removeprefix("aten.")
        places = args[1] if name.startswith(("index.", "index_put")) else ()
        by_mask = any(place is not None and place.dtype is torch.bool for place in places)
        if by_mask or name.startswith(HOST_OPERATIONS):
            raise RuntimeError(f"{name} is not permitted when a stream is capturing")
        return func(*args, **kwargs or {})


Call = tuple[Any, tuple[Any, ...], dict[str, Any], Any]
"""An operation, what it was given, and what it gave."""


class Tape(NoHost):
    """Records what tasks do, and does it again."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.warm_ups = self.recorded = self.replays = 0

    def warm_up(self, task: Callable[[], None]) -> None:
        for _ in range(3):
            self.warm_ups += 1
            task()

    def record(
        self, task: Callable[[], None], generators: Sequence[torch.Generator]
    ) -> Callable[[], None]:
        self.recorded += 1
        self.calls = []
        with self:
            task()
        return partial(self.replay, self.calls)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self, calls: Sequence[Call]) -> None:
        self.replays += 1
        for func, args, kwargs, out in calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Broken:
    """Cannot record anything."""

    def warm_up(self, task: Callable[[], None]) -> None:
        task()

    def record(
        self, task: Callable[[], None], generators: Sequence[torch.Generator]
    ) -> Callable[[], None]:
        task()
        raise RuntimeError("operation not permitted when stream is capturing\n\nmore of it")
