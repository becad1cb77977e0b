"""How a CPU kernel is compiled, fed and run.

A kernel is a body `body(call, workspace, slot, task)` that does one task, for instance one
sequence. The tasks are cut into fixed chunks that worker threads take from a shared counter.
Sums over tasks go to a slot of their chunk and are added in order afterwards, so the result is
the same to the bit for any number of threads.

The threads are our own: of numba's threading layers one kills forked data loaders, and another
cannot be entered by two Python threads at once. A forked child makes a pool of its own.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from importlib.resources import files
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba import njit, types
from numba.core import event
from torch import Tensor

from tsm2.errors import BackendError
from tsm2.kernels.numba_vectors import VECTOR_BYTES, fetch_add, inlined, load_offset

__all__ = ["Path", "Rows", "Walk", "kernel_input", "n_chunks", "path", "row", "run", "walk_over"]

_logger = logging.getLogger("tsm2")

_MOST_CHUNKS = 32  # balances the load of any usual number of threads
_WORK_PER_THREAD = 300_000  # multiply-adds with an exponential; below, a thread does not pay


_FLOAT_BYTES = 4


# --- where the rows of a tensor are ---------------------------------------------------------


class Rows(NamedTuple):
    """Where the rows of a tensor are; a row is one token's channels, next to each other.

    Row t of sequence s starts at `address + sequences[s] + steps[t]`, all in bytes;
    `sequences` and `steps` are the addresses of tables.
    """

    address: int
    sequences: int
    steps: int


class Path(NamedTuple):
    """The rows of one sequence; `start + steps[t]` is the address of row t."""

    start: int
    steps: int


@inlined
def path(rows: Rows, sequence: int) -> Path:
    """Find the rows of one sequence."""
    return Path(rows.address + load_offset(rows.sequences, sequence), rows.steps)


@inlined
def row(path: Path, t: int) -> Any:
    """Return the address of row t."""
    return path.start + load_offset(path.steps, t)


class Walk:
    """The order in which the tokens of some lead axes are visited.

    Parameters
    ----------
    lead
        Sizes of all axes but the last.
    axes
        Those that a sequence runs along, the last named one fastest; the others count sequences.
    reverse
        From the last token to the first.
    """

    def __init__(self, lead: tuple[int, ...], axes: tuple[int, ...], reverse: bool) -> None:
        self._lead, self._axes, self._reverse = lead, axes, reverse
        self._batch_axes = tuple(axis for axis in range(len(lead)) if axis not in axes)
        self.sequences = prod(lead[axis] for axis in self._batch_axes)
        self.length = prod(lead[axis] for axis in axes)
        self._tables: dict[tuple[int, ...], tuple[int, int, object]] = {}

    def rows(self, tensor: Tensor | None) -> Rows:
        """Describe a tensor of these lead axes; good while the tensor and this walk live."""
        if tensor is None:
            return Rows(0, 0, 0)
        strides = tensor.stride()
        if strides not in self._tables:
            steps = self._offsets(strides, self._axes)
            steps = np.ascontiguousarray(steps[::-1]) if self._reverse else steps
            sequences = self._offsets(strides, self._batch_axes)
            self._tables[strides] = sequences.ctypes.data, steps.ctypes.data, (sequences, steps)
        sequences_at, steps_at, _ = self._tables[strides]
        return Rows(tensor.data_ptr(), sequences_at, steps_at)

    def _offsets(self, strides: tuple[int, ...], axes: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Byte offsets of all positions along some axes, the last named axis fastest."""
        table = np.zeros(1, np.int64)
        for axis in axes:
            along = _FLOAT_BYTES * strides[axis] * np.arange(self._lead[axis])
            table = np.add.outer(table, along).ravel()
        return table


walk_over = lru_cache(maxsize=64)(Walk)
"""The same walk for the same arguments, so that its tables are made once."""


def kernel_input(tensor: Tensor) -> Tensor:
    """Return a tensor whose memory a kernel may read: float32, on the CPU, rows unbroken."""
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        raise BackendError(
            f"the numba kernels read float32 on cpu, got {tensor.dtype} on {tensor.device}"
        )
    if tensor.layout != torch.strided:
        raise BackendError(f"the numba kernels read dense tensors, got {tensor.layout}")
    tensor = tensor.resolve_neg()
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


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
    """Fingerprint of all code that a kernel is compiled from."""
    sources = (each for each in files(__package__).iterdir() if each.name.startswith("numba_"))
    digest = hashlib.sha256()
    for source in sorted(sources, key=lambda each: each.name):
        if source.name.endswith(".py"):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _numba_type(kind: type) -> Any:
    """Translate int, or a NamedTuple of such, for numba."""
    if kind is int:
        return types.int64
    members = [_numba_type(member) for member in kind.__annotations__.values()]
    return types.BaseTuple.from_types(members, kind)


class _Announcer(event.Listener):  # type: ignore[misc]
    """Says so before numba starts to compile: it takes seconds, once on each machine."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_start(self, event: Any) -> None:
        if event.data["dispatcher"].py_func.__name__ == "work_off":
            _logger.info("compiling %s for this processor: some seconds, only once", self.name)

    def on_end(self, event: Any) -> None:
        pass


@cache
def _compiled(body: Callable[..., None], call_kind: type) -> Callable[..., None]:
    """Compile a body, or load it from numba's cache on disk; without a cache if none works."""
    loop = _task_loop(body, _source_digest())
    signature = (_numba_type(call_kind), _numba_type(_Work), types.int64)

    def build(on_disk: bool) -> Callable[..., None]:
        kernel: Any = njit(nogil=True, cache=on_disk, error_model="numpy")(loop)
        with event.install_listener("numba:compile", _Announcer(body.__name__)):
            kernel.compile(signature)
        return kernel  # type: ignore[no-any-return]

    try:
        return build(on_disk=True)
    except (OSError, RuntimeError) as error:  # numba found no place to write, or it is full
        _logger.info("numba cannot keep %s on disk (%s)", body.__name__, error)
        return build(on_disk=False)


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
        A NamedTuple of integers, possibly nested.
    tasks
        How many there are.
    work
        State updates in all tasks together.
    workspace_bytes
        Memory that a worker needs, at an address that is a multiple of a vector.
    """
    if tasks == 0:
        return
    kernel = _compiled(body, type(call))
    chunks = n_chunks(tasks)
    workers = max(1, min(torch.get_num_threads(), work // _WORK_PER_THREAD, chunks))
    counter = np.zeros(1, np.int64)
    stride = -(-workspace_bytes // VECTOR_BYTES) * VECTOR_BYTES
    workspace = np.empty(workers * stride + VECTOR_BYTES, np.uint8)
    start = -(-workspace.ctypes.data // VECTOR_BYTES) * VECTOR_BYTES
    shared = _Work(counter.ctypes.data, tasks, chunks, start, stride)

    helpers = [
        _pool(os.getpid()).submit(kernel, call, shared, worker) for worker in range(1, workers)
    ]
    try:
        kernel(call, shared, 0)
    finally:
        for helper in helpers:  # one that never started would find nothing left to do
            if not helper.cancel():
                helper.result()
