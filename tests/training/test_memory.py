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
from tsm2.training.memory import freed_memory_kept

def use() -> None:
    '''Take and free 160 MiB.'''
    blocks = [torch.ones(2**20) for _ in range(40)]

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


def test_freed_memory_is_kept_and_goes_back_to_the_system_at_the_end() -> None:
    run("""
        before = resident()
        try:
            with freed_memory_kept():
                with freed_memory_kept():
                    use()
                kept = resident()
                1 / 0
        except ZeroDivisionError:
            pass
        assert kept > before + 100, (before, kept)
        assert resident() < before + 50, (before, resident())
    """)
