"""What the benchmarks share: interleaved timing, fresh processes, growth, the machine's name.

Candidates are tasks by name; a task is a function without arguments. All tasks run in one process,
in every round once and in another order, so that whatever else the machine does meets all alike;
the median of the rounds counts. With one thread it is CPU time, else wall time.
"""

import math
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
GIVE_BACK_MEMORY = dict.fromkeys(KEEP_MEMORY, str(1 << 16))
SHORTEST = 0.02  # seconds; faster tasks are repeated within a round

Task = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timing:
    """The median of a task's rounds."""

    seconds: float
    rounds: int


def interleave(
    tasks: dict[str, Task], *, rounds: int, threads: int, limit: float = math.inf, warm: int = 0
) -> dict[str, Timing]:
    """Time all tasks; one that would need more than `limit` seconds for all rounds runs fewer.

    Before it is timed, a task runs `warm` times: what runs in a loop finds its own data in cache,
    not that of the other tasks.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    repeats, turns, seconds = {}, {}, {name: list[float]() for name in tasks}
    for name, task in tasks.items():
        task()
        start = time.perf_counter()
        task()
        once = time.perf_counter() - start
        repeats[name] = max(1, int(SHORTEST / once))
        turns[name] = max(1, int(min(rounds, limit / (once * repeats[name]))))
    shuffled = random.Random(0)
    for turn in range(rounds):
        for name in shuffled.sample(list(tasks), len(tasks)):  # nobody always follows the slowest
            if turn >= turns[name]:
                continue
            task = tasks[name]
            for _ in range(warm):
                task()
            start = clock()
            for _ in range(repeats[name]):
                task()
            seconds[name].append((clock() - start) / repeats[name])
    return {name: Timing(statistics.median(each), len(each)) for name, each in seconds.items()}


def keep_freed_memory() -> None:
    """Start this program again with a malloc that keeps what is freed.

    Else glibc gives large blocks back at once and every use of a large temporary pays for new
    pages, which is noise of the size of the result; the candidates with large temporaries gain
    most.
    """
    if not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)


def in_fresh_process(function: Callable[..., Any], *arguments: object) -> Any:
    """Run a function of a module in a process that has done nothing else.

    Its malloc gives back at once what is freed, so that resident memory is memory in use.
    """
    os.environ.update(GIVE_BACK_MEMORY)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_growth(task: Task) -> float:
    """Return by how many MiB a task's peak resident memory lies above what was there before.

    Linux only. `ru_maxrss` would not do: a child's starts at its parent's peak, and a peak during
    the imports would hide the task's.
    """
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    task()
    return _resident("VmHWM") - before


def can_measure_memory() -> bool:
    return Path("/proc/self/clear_refs").exists()


def _resident(field: str) -> float:
    """Read a field of the process's memory, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def available_memory() -> float:
    """Return the bytes that can be allocated now; infinite where the system does not say."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    kibibytes = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
    return 1024 * float(kibibytes[0]) if kibibytes else math.inf


def fitted_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Fit cost = c size^p by least squares in double logarithms, and return p."""
    return statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    ).slope


def processor() -> str:
    models = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _cpuinfo() -> list[str]:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.read_text().splitlines() if cpuinfo.exists() else []


def hardware(threads: int) -> str:
    """Name the machine, how busy it is, and the threads in use."""
    wide = any("avx512f" in line for line in _cpuinfo())
    return (
        f"{processor()}, {os.cpu_count()} cores{', AVX-512' if wide else ''}, "
        f"load {os.getloadavg()[0]:.1f}; {threads} thread(s)"
    )


def versions(*packages: str) -> str:
    return " ".join(f"{name}={_version(name)}" for name in packages)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return run.stdout.strip() or "unknown"
