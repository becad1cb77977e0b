"""How a CPU kernel is compiled and run.

A kernel is a body `body(call, workspace, slot, task)` that does one task, for instance one
sequence; `call` is a NamedTuple of integers, of the class that the body's annotation names. The
tasks are cut into fixed chunks that worker threads take from a shared counter. Sums over tasks go
to a slot of their chunk and are added in order afterwards, so the result is the same to the bit
for any number of threads.

The threads are our own: of numba's threading layers one kills forked data loaders, and another
cannot be entered by two Python threads at once. A forked child makes a pool of its own.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numba import njit, typeof
from numba.core import event  # numba's manual describes it, but none of its public modules has it

from tsm2.kernels.numba_vectors import VECTOR_BYTES, fetch_add

__all__ = ["n_chunks", "run"]

_logger = logging.getLogger("tsm2")

_MOST_CHUNKS = 32  # balances the load of any usual number of threads
_WORK_PER_THREAD = 300_000  # multiply-adds with an exponential; below, a thread does not pay


# --- compiling ------------------------------------------------------------------------------


class _Work(NamedTuple):
    """What the workers of one call share."""

    counter: int  # address of the number of chunks taken
    tasks: int
    chunks: int
    workspace: int
    workspace_bytes: int  # for each worker


def _task_loop(body: Callable[..., None], sources: str) -> Callable[..., None]:
    """Make the function that one worker thread runs.

    numba's cache on disk looks at this function's code and closure, not at what it calls:
    having `sources` in the closure keeps an outdated kernel from being loaded.
    """

    def work_off(call: Any, work: _Work, worker: int) -> None:
        _ = sources
        workspace = work.workspace + worker * work.workspace_bytes
        chunk = fetch_add(work.counter, 1)
        while chunk < work.chunks:
            first = chunk * work.tasks // work.chunks
            last = (chunk + 1) * work.tasks // work.chunks
            for task in range(first, last):
                body(call, workspace, chunk, task)
            chunk = fetch_add(work.counter, 1)

    return work_off


@cache
def _source_digest() -> str:
    """Fingerprint all code that a kernel is compiled from."""
    digest = hashlib.sha256()
    for source in sorted(files("tsm2.kernels").iterdir(), key=lambda source: source.name):
        if source.name.startswith("numba_") and source.name.endswith(".py"):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _zeros(kind: type) -> Any:
    """Make an integer, or a NamedTuple of such."""
    return 0 if kind is int else kind(*map(_zeros, kind.__annotations__.values()))


class _Announcer(event.Listener):
    """Says that a kernel is being compiled: it takes seconds, once on each machine."""

    def __init__(self, kernel: Any, name: str) -> None:
        self._kernel, self._name = kernel, name

    def on_start(self, event: Any) -> None:
        if event.data["dispatcher"] is self._kernel:
            _logger.info("compiling %s for this processor: some seconds, once", self._name)

    def on_end(self, event: Any) -> None:
        pass


@cache
def _compiled(body: Callable[..., None]) -> Callable[..., None]:
    """Compile a body, or load it from numba's cache on disk; without a cache if none works.

    numba unpickles its cache, and what is damaged can fail in any way: it is thrown away.
    """
    name = f"{body.__module__}.{body.__name__}"
    loop = _task_loop(body, _source_digest())
    kinds = (body.__annotations__["call"], _Work, int)
    signature = tuple(typeof(_zeros(kind)) for kind in kinds)  # type: ignore[no-untyped-call]

    def build(*, on_disk: bool, again: bool = False) -> Callable[..., None]:
        kernel: Any = njit(nogil=True, cache=on_disk, error_model="numpy")(loop)
        if again:
            _throw_away(Path(kernel.stats.cache_path))
        with event.install_listener("numba:compile", _Announcer(kernel, name)):
            kernel.compile(signature)
        return cast(Callable[..., None], kernel)

    try:
        return build(on_disk=True)
    except (OSError, RuntimeError) as error:  # numba found no place to write, or a full disk
        _logger.info("numba cannot keep %s on disk: %s", name, error)
        return build(on_disk=False)
    except Exception as error:  # noqa: BLE001 - unpickling fails in any way
        _logger.warning("the compiled kernels on disk are damaged (%s): made anew", error)
        try:
            return build(on_disk=True, again=True)
        except Exception:  # noqa: BLE001 - again, or the fault is not the disk's
            return build(on_disk=False)


def _throw_away(folder: Path) -> None:
    """Remove the kernels that numba keeps in a folder."""
    for file in folder.glob(f"{__name__.rpartition('.')[2]}.*.nb[ci]"):
        with suppress(OSError):
            file.unlink()


# --- running --------------------------------------------------------------------------------


def n_chunks(tasks: int) -> int:
    """Return how many chunks, and so slots, the tasks of one call are cut into."""
    return min(tasks, _MOST_CHUNKS)


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Return this process's threads; they start when first needed."""
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="tsm2")


def run(
    body: Callable[..., None], call: Any, *, tasks: int, work: int, workspace_bytes: int
) -> None:
    """Do all tasks of a call, on as many threads as torch would use and the work is worth.

    Parameters
    ----------
    body
        Does one task: `body(call, workspace, slot, task)`.
    call
        A NamedTuple of integers and such NamedTuples, as annotated in the body.
    tasks
        How many there are.
    work
        State updates in all tasks together.
    workspace_bytes
        Memory that a worker needs, at an address that is a multiple of a vector.
    """
    if tasks == 0:
        return
    kernel = _compiled(body)
    chunks = n_chunks(tasks)
    workers = max(1, min(torch.get_num_threads(), work // _WORK_PER_THREAD, chunks))
    stride = -(-workspace_bytes // VECTOR_BYTES) * VECTOR_BYTES
    memory = np.empty((workers * stride + 2 * VECTOR_BYTES) // 8, np.int64)
    memory[0] = 0  # the counter; behind it, from a multiple of a vector on, the workspaces
    counter = memory.ctypes.data
    workspace = (counter // VECTOR_BYTES + 1) * VECTOR_BYTES
    shared = _Work(counter, tasks, chunks, workspace, stride)

    helpers = [
        _pool(os.getpid()).submit(kernel, call, shared, worker) for worker in range(1, workers)
    ]
    try:
        kernel(call, shared, 0)
    finally:
        for helper in helpers:  # one that never started would find nothing left to do
            if not helper.cancel():
                helper.result()
