"""Captured steps: what a GPU did once is recorded and replayed as a whole.

A training step of a small network is hundreds of short pieces of work, and a host takes ten times
as long to hand them over one by one as a GPU takes to do them. CUDA records them in a graph, which
the host then starts with one call. A graph repeats exactly what was recorded, at the same addresses
and with the same numbers: what changes from step to step must be in tensors that stay where they
are, and no value may come to the host.

`Recorder` is what `tsm2.training.recording` asks of a device; `CUDAGraphs` is the only one.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol

import torch

from tsm2.errors import BackendError

__all__ = ["CUDAGraphs", "Recorder", "find_recorder", "why_not_captured"]

_WARM_UPS = 3
"""Steps before a recording: kernels are compiled in them, and libraries take their memory."""
_TURNS = threading.Lock()  # a process records one graph at a time


class Recorder(Protocol):
    """Records what a task does on a device."""

    def warm_up(self, task: Callable[[], None]) -> None:
        """Do a task a few times, as it must be done before it is recorded."""
        ...

    def record(
        self, task: Callable[[], None], generators: Sequence[torch.Generator]
    ) -> Callable[[], None]:
        """Record a task, and return what does the recorded work again.

        Parameters
        ----------
        task
            Reads and writes tensors that stay where they are. It runs once, but what it does on
            the device is recorded and not done.
        generators
            Those of the device that it draws from; every replay draws anew.

        Raises
        ------
        RuntimeError
            It does something that cannot be recorded.
        """
        ...


class CUDAGraphs:
    """Records CUDA graphs.

    Parameters
    ----------
    device
        A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        cuda: Any = torch.cuda
        self.device, self.stream = device, cuda.Stream(device)

    def warm_up(self, task: Callable[[], None]) -> None:
        """Do a task on the stream that it will be recorded on."""
        outside = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(outside)
        with torch.cuda.stream(self.stream):
            for _ in range(_WARM_UPS):
                task()
        outside.wait_stream(self.stream)

    def record(
        self, task: Callable[[], None], generators: Sequence[torch.Generator]
    ) -> Callable[[], None]:
        """Record a task as a CUDA graph; see `Recorder`."""
        # A capture that fails leaves its stream as the current one.
        with _TURNS, torch.cuda.stream(torch.cuda.current_stream(self.device)):
            try:
                return self._capture(task, generators)
            except RuntimeError:
                # It leaves the generators in it, too, which refuse to draw from then on. A capture
                # of nothing, ended in order, takes them out again.
                with suppress(RuntimeError):
                    self._capture(lambda: None, generators)
                raise

    def _capture(
        self, task: Callable[[], None], generators: Sequence[torch.Generator]
    ) -> Callable[[], None]:
        graph: Any = torch.cuda.CUDAGraph()
        for generator in generators:  # CUDA's own is in every graph
            graph.register_generator_state(generator)
        # Other threads may go on with work of their own.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            torch.zeros((), device=self.device)  # an empty graph is one that cannot be replayed
            task()
        replay: Callable[[], None] = graph.replay
        return replay


def why_not_captured(
    device: str,
    *,
    processes: int = 1,
    compiled: bool = False,
    asks_host: bool = False,
    asked: Literal["auto"] | bool = "auto",
) -> str | None:
    """Say why a device is handed one operation at a time, or None if it replays recordings.

    Parameters
    ----------
    device
        Kind of the device, such as "cuda".
    processes
        That share a step.
    compiled
        Whether torch.compile makes the steps.
    asks_host
        Whether the network computes on the host, too.
    asked
        `TrainingConfig.capture_steps`.

    Examples
    --------
    >>> why_not_captured("cpu")
    'only CUDA has graphs of steps, and the device is cpu'
    """
    if device != "cuda":
        return f"only CUDA has graphs of steps, and the device is {device}"
    if asked is False:
        return "capture_steps=False"
    if processes > 1:
        return f"{processes} processes take each step together"
    if compiled:
        return "compile=True"
    if asks_host:
        return "the network computes on the host, too"
    return None


def find_recorder(
    device: torch.device,
    *,
    processes: int = 1,
    compiled: bool = False,
    asks_host: bool = False,
    asked: Literal["auto"] | bool = "auto",
) -> Recorder | None:
    """Return what records on a device, or None if nothing is captured.

    Parameters
    ----------
    device, processes, compiled, asks_host, asked
        As in `why_not_captured`.

    Raises
    ------
    BackendError
        Steps must be captured, `asked` is True, and cannot be.
    """
    obstacle = why_not_captured(
        device.type, processes=processes, compiled=compiled, asks_host=asks_host, asked=asked
    )
    if obstacle is None:
        return CUDAGraphs(device)
    if asked is True:
        raise BackendError(
            f"capture_steps=True, but {obstacle}. Pass capture_steps='auto' to capture steps "
            f"where that is possible."
        )
    return None
