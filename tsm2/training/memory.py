"""Freed memory that stays at hand, for processes of our own.

A training step takes and frees the same large blocks again and again. glibc gives such blocks back
to the system at once, and every page of the next one is a page fault. What is set here stays set
until the process ends (`docs/decisions/0010-memory.md`), so that only a process that tsm2 itself
starts sets it: the command line, and the runs of a benchmark. In a process of yours, set
`MALLOC_TRIM_THRESHOLD_=2147483647 MALLOC_MMAP_THRESHOLD_=33554432` before Python starts, which does
the same. Other C libraries have thresholds of their own, and nothing is done there.
"""

import ctypes
import platform

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's numbers
_KEEP = 2**31 - 1
"""Bytes of freed memory that are kept; mallopt takes no more."""
_LARGE = 32 * 2**20
"""Bytes of the blocks above which they come from the system and go back to it all the same; glibc
itself moves its threshold up to this."""


def keep_freed_memory() -> None:
    """Keep freed memory in this process from now on, until it ends."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_TRIM_THRESHOLD, _KEEP)
