"""A fit leaves the process's malloc as it is; processes of our own keep freed memory."""

import json
import platform
import subprocess
import sys
import textwrap

import pytest

from tsm2.cli import app
from tsm2.errors import TSM2Error
from tsm2.training import memory

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are"
)

PROLOGUE = """
import ctypes
import resource
import sys
import torch

torch.set_num_threads(1)

def kept() -> float:
    '''MiB that stay in this process after 160 MiB were taken and freed.'''
    before = resident()
    blocks = [torch.ones(2**20) for _ in range(40)]
    del blocks
    return resident() - before

def resident() -> float:
    '''MiB of this process.'''
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

class Mallinfo2(ctypes.Structure):
    '''glibc's; its hblks counts the blocks that come from the system.'''
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks".split()
    ] + [("keepcost", ctypes.c_size_t)]

def large_block_is_the_systems() -> bool:
    '''Whether a block of 24 MiB comes from the system, as it does until a threshold is set.'''
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Mallinfo2
    libc.malloc.restype = ctypes.c_void_p
    blocks = libc.mallinfo2().hblks
    assert libc.malloc(ctypes.c_size_t(24 * 2**20))
    return libc.mallinfo2().hblks == blocks + 1
"""


def run(program: str) -> str:
    """Run a program in a process whose memory nothing else uses."""
    program = PROLOGUE + textwrap.dedent(program)
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_fit_leaves_malloc_as_it_is() -> None:
    run("""
        from tsm2 import TSM2Forecaster
        model = TSM2Forecaster(8, 2, features=4, max_epochs=1, device="cpu")
        model.fit(torch.randn(100, 2).numpy())
        assert kept() < 50, kept()
        assert large_block_is_the_systems()
    """)


def test_freed_memory_is_kept_where_it_is_asked_for() -> None:
    run("""
        from tsm2.training.memory import keep_freed_memory
        keep_freed_memory()
        assert kept() > 100, kept()
    """)


@pytest.mark.parametrize("command", ["demo", "fit", "update", "backtest"])
def test_commands_that_train_keep_freed_memory(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is asked for what is not there, and keeps memory before it says so."""
    given = {
        "demo": ["--out", "/dev/null/demo"],
        "fit": ["no.csv", "--horizon", "2", "--out", "model"],
        "update": ["no-model", "no.csv"],
        "backtest": ["no-model", "no.csv"],
    }
    calls: list[str] = []
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: calls.append(command))
    with pytest.raises(TSM2Error):
        app([command, *given[command]], standalone_mode=False)
    assert calls == [command]


def test_a_run_of_a_benchmark_keeps_freed_memory() -> None:
    output = run("""
        import json, os
        from tsm2.benchmark import job
        def measure(asked: job.Job) -> job.Measurement:
            return job.Measurement(row={}, squared=[kept()], absolute=[])
        job.measure = measure
        asked = {
            "dataset": "sample", "lookback": 8, "horizon": 2, "label": "RepeatLast",
            "model": "RepeatLast", "parameters": {}, "seed": 0,
        }
        theirs, ours = os.pipe()  # ours stays open: its end would end the run
        os.write(ours, json.dumps(asked).encode() + b"\\n")
        os.dup2(theirs, 0)
        job.answer()
    """)
    assert json.loads(output)["squared"][0] > 100, output
