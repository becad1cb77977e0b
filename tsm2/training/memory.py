"""Memory between the steps of a fit.

A training step takes and frees the same large blocks again and again. glibc gives such blocks back
to the system at once, and every page of the next one is a page fault: a tenth of a step's time on
a CPU. Other C libraries have thresholds of their own, and nothing is done there.
"""

import ctypes
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["freed_memory_kept"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's numbers
_KEEP = 2**31 - 1
"""Bytes of freed memory that are kept in a fit; mallopt takes no more."""
_LARGE = 32 * 2**20
"""Blocks above it come from the system and go back to it, in a fit too. glibc itself moves its
threshold up to this, and that of trimming to twice as much."""

_lock = threading.Lock()
_inside = 0


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory in the process while in here, and give it back after the last one left."""
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _set_thresholds(_KEEP)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _set_thresholds(2 * _LARGE)
                _trim()


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _set_thresholds(trim: int) -> None:
    if (libc := _glibc()) is not None:
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_TRIM_THRESHOLD, trim)


def _trim() -> None:
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)
