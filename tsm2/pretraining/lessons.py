"""Lessons: what the steps of pretraining read, made while they learn by processes of their own.

    a draw's seed -> windows -> what the network is told of them -> lessons of one shape

A draw follows from what is asked for it and from the sizes of the network, and draws come in the
order in which they were asked for: how many processes make them changes no number. They work on a
processor, one thread each, and stay at most two draws each ahead of the steps.

Sizes: P lessons in a draw, B windows in a lesson, M variates, T lookback, H horizon, Cs static
covariates.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from joblib import cpu_count
from numpy.typing import NDArray
from torch import Tensor

from tsm2.errors import BackendError
from tsm2.networks.config import NetworkConfig
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.pretraining.generator import generate
from tsm2.training import seeded

__all__ = ["Draw", "Lesson", "choose_workers", "drawn", "lessons"]

_FARTHEST = 15.0  # scales from the base, in the loss
_AHEAD = 2  # draws of a worker: the one that it makes, and one that waits
_MOST_WORKERS = 32  # a device learns no faster, and each takes some 400 MB


class Draw(NamedTuple):
    """What is asked for some lessons; all that they depend on beside the network's sizes."""

    seed: tuple[int, ...]
    """Numbers that make up the seed."""
    variates: int
    """Variates M of every window."""
    windows: int
    """Windows B of a lesson."""
    lessons: int
    """Lessons P."""
    first: int = 0
    """The lesson to begin with; those before it are left out."""


class Lesson(NamedTuple):
    """What one step learns from; or several lessons, with an axis in front of all others."""

    context: Tensor
    """Histories in standard units, gaps filled, (B, M, T)."""
    mask: Tensor
    """Where they are known, (B, M, T)."""
    static: Tensor
    """Classical forecasts and facts, (B, M, Cs)."""
    target: Tensor
    """What happened, in scales away from the base, (B, M, H)."""

    def to(self, device: torch.device) -> "Lesson":
        """Return it on a device."""
        if device.type == "cuda":  # which goes on while it fetches
            pinned = (each.pin_memory() for each in self)
            return Lesson(*(each.to(device, non_blocking=True) for each in pinned))
        return Lesson(*(each.to(device) for each in self))

    def each(self) -> "list[Lesson]":
        """Return the single lessons of several."""
        return [Lesson(*parts) for parts in zip(*self, strict=True)]


def choose_workers(requested: int | None, device: torch.device) -> int:
    """Return how many processes draw: as many as asked, or as cores that training leaves free.

    Parameters
    ----------
    requested
        0 for none, so that the training process draws; None for what the cores allow.
    device
        Where the network learns. On a processor it takes torch's threads, elsewhere one core.
    """
    if requested is not None:
        return requested
    taken = torch.get_num_threads() if device.type == "cpu" else 1
    free: int = max(0, min(_MOST_WORKERS, cpu_count() - taken))
    return free


def lessons(sizes: NetworkConfig, draw: Draw) -> Lesson:
    """Return the lessons of a draw, (P, ...), on a processor.

    Parameters
    ----------
    sizes
        Of the network that they are for.
    draw
        What is asked for.
    """
    windows = generate(
        list(draw.seed),
        draw.windows * draw.lessons,
        variates=draw.variates,
        length=sizes.lookback + sizes.horizon,
        horizon=sizes.horizon,
    )
    values, known = torch.from_numpy(windows.values), torch.from_numpy(windows.known)
    # Some come without a frequency, whose season must then be found.
    seasons = torch.from_numpy(windows.seasons) * (torch.arange(len(windows.seasons)) % 5 > 0)
    network, past = _teller(sizes), slice(None, sizes.lookback)
    made = []
    for number in range(draw.first, draw.lessons):
        rows = slice(number * draw.windows, (number + 1) * draw.windows)
        told = network.tell(values[rows, :, past], known[rows, :, past], seasons=seasons[rows])
        future = values[rows, :, sizes.lookback :].double()
        standard = ((future - told.level) / told.deviation).float()
        target = ((standard - told.base) / told.scale).clamp(-_FARTHEST, _FARTHEST)
        made.append((told.context, told.mask, told.static, target))
    return Lesson(*(torch.stack(each) for each in zip(*made, strict=True)))


@cache
def _teller(sizes: NetworkConfig) -> ZeroShotNetwork:
    """Return a network that tells: what it says of windows depends on no weight."""
    with seeded(0):
        return ZeroShotNetwork(sizes)


def drawn(sizes: NetworkConfig, draws: Iterable[Draw], workers: int) -> Generator[Lesson]:
    """Yield the lessons of draws, in their order.

    Parameters
    ----------
    sizes
        Of the network that they are for.
    draws
        May go on for ever: no more of them are begun than two for each worker.
    workers
        Processes that make them ahead; 0 makes each when it is asked for, in this process. They
        end when the iterator is closed, or this process is killed.

    Raises
    ------
    BackendError
        A worker ended before its work.
    """
    if not workers:
        for draw in draws:
            yield lessons(sizes, draw)
        return
    # Forks of a process that uses CUDA, or has threads, cannot be relied upon.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)
    begun = iter(draws)
    ahead: deque[Future[list[NDArray[np.generic]]]] = deque()
    try:
        ahead.extend(pool.submit(_sent, sizes, each) for each in islice(begun, _AHEAD * workers))
        while ahead:
            made = ahead.popleft().result()
            ahead.extend(pool.submit(_sent, sizes, each) for each in islice(begun, 1))
            yield Lesson(*map(torch.from_numpy, made))
    except BrokenProcessPool as error:
        raise BackendError(
            "a process that draws windows ended before its work. If a script pretrains, its own "
            "work must stand below `if __name__ == '__main__':`, for every worker imports it; if "
            "memory is short, ask for fewer workers, or for none: workers=0."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


# --- in a worker ----------------------------------------------------------------------------------


def _begin_worker() -> None:
    """Set a worker up: one thread, deaf to the keyboard, and gone when the trainer is."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _sent(sizes: NetworkConfig, draw: Draw) -> list[NDArray[np.generic]]:
    """Return lessons as arrays: PyTorch would send tensors through shared memory, often scarce."""
    return [each.numpy() for each in lessons(sizes, draw)]
