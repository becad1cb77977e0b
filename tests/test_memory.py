"""Freed memory stays at hand in a fit, and goes back to the system after it."""

import platform
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are"
)

PROLOGUE = """
import resource
import torch
from tsm2.memory import freed_memory_kept

def use() -> int:
    '''Take and free 160 MiB, as every step does, and count the page faults of eight times.'''
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        blocks = [torch.ones(5 * 2**20) for _ in range(8)]
        while blocks:
            blocks.pop()  # from the end of the heap
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident() -> float:
    '''MiB of this process.'''
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

torch.set_num_threads(1)
"""


def run(program: str) -> None:
    """Run a program in a process whose memory nothing else uses."""
    program = PROLOGUE + textwrap.dedent(program)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_what_is_freed_is_used_again_without_page_faults() -> None:
    run("""
        usual = use()
        with freed_memory_kept():
            with freed_memory_kept():
                pass
            use()
            kept = use()
        assert kept < usual / 20, (usual, kept)
    """)


def test_it_goes_back_to_the_system_at_the_end() -> None:
    run("""
        before = resident()
        try:
            with freed_memory_kept():
                use()
                kept = resident()
                1 / 0
        except ZeroDivisionError:
            pass
        assert kept > before + 100, (before, kept)
        assert resident() < before + 50, (before, resident())
    """)
