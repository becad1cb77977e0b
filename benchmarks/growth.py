"""How time and peak memory grow: of a training step, and of the scan alone, on a CPU.

    python benchmarks/growth.py --threads 1

A training step (forward, loss, backward, AdamW) grows along lookback L and variates M; a scan with
gradients along length L, variates M (of 12 tokens each, the variates scanned) and states N. Prints
and writes the median time of each size, all sizes of an axis interleaved in one process, the growth
of the resident memory at its peak, each size in a process of its own, and the exponents fitted to
both in double logarithms: 1 is linear growth. Exponents are the result: the machine may be shared.
A fixed cost, which weighs most at the smallest sizes, pulls them below 1.
"""

import argparse
import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import torch
from kernels import arguments_of
from step import HORIZON, training_step
from timing import (
    Task,
    can_measure_memory,
    commit,
    fitted_exponent,
    hardware,
    in_fresh_process,
    interleave,
    keep_freed_memory,
    peak_growth,
    processor,
)

from tsm2.kernels import available_backends, selective_scan, warm_up
from tsm2.networks import NetworkConfig, TSM2Network

RESULTS = Path(__file__).parent / "results" / "growth.csv"
BATCH = 4
SMALLEST_PEAK = 1.0
"""MiB; smaller growths are not fitted, for what the process has free already hides part of them."""


def network_step(lookback: int, variates: int) -> Task:
    torch.manual_seed(0)
    config = NetworkConfig(
        lookback=lookback, horizon=HORIZON, n_variates=variates, features=32, blocks=2
    )
    context = torch.randn(BATCH, variates, lookback)
    return training_step(TSM2Network(config), context, torch.randn(BATCH, variates, HORIZON))


def scan(length: int, variates: int, states: int) -> Task:
    """Scan `length` tokens of every variate if there is one, else the variates of each token."""
    arguments = arguments_of("scan", (BATCH, 64, length * variates, states))
    if variates > 1:  # (B, M, L, E)
        arguments = [a.unflatten(1, (variates, length)) if a.ndim == 3 else a for a in arguments]
    leaves = [argument.requires_grad_() for argument in arguments]
    upstream = torch.randn(arguments[0].shape)
    return lambda: torch.autograd.grad(selective_scan(*leaves), leaves, upstream)


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """Sizes of a task that differ along one axis."""

    work: str
    name: str
    sizes: Sequence[int]
    task: Callable[[int], Task]
    """Makes the task of a size; another process must be able to import it."""
    cost: Callable[[int], float] = float
    """What of a size the time and the memory are set against."""


AXES = [
    Axis(
        work="training step",
        name="lookback",
        sizes=(512, 1024, 2048, 4096, 8192),
        task=partial(network_step, variates=7),
    ),
    Axis(
        work="training step",
        name="variates",
        sizes=(7, 23, 77, 257, 862),
        task=partial(network_step, 512),
    ),
    Axis(
        work="scan",
        name="length",
        sizes=(512, 1024, 2048, 4096, 8192),
        task=partial(scan, variates=1, states=16),
    ),
    Axis(
        work="scan",
        name="variates",
        sizes=(7, 23, 77, 257, 862),
        task=partial(scan, 12, states=16),
    ),
    Axis(
        work="scan",
        name="states",
        sizes=(8, 16, 32, 64, 128),
        task=partial(scan, 1024, 1),
    ),
]


def peak_of(task: Callable[[int], Task], size: int, threads: int) -> float:
    """Measure in this process, which has only loaded what it needs: MiB besides the arguments."""
    torch.set_num_threads(threads)
    task(max(1, size // 16))()
    return peak_growth(task(size))


def measure(axes: Sequence[Axis], *, rounds: int, threads: int) -> list[dict[str, object]]:
    """Measure and print every size of every axis, and return a row for each."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    warm_up()
    print(f"{hardware(threads)}, medians of {rounds} rounds")
    rows: list[dict[str, object]] = []
    for axis in axes:
        tasks = {str(size): axis.task(size) for size in axis.sizes}
        timings = interleave(tasks, rounds=rounds, threads=threads)
        seconds = [timings[str(size)].seconds for size in axis.sizes]
        memory = [math.nan] * len(seconds)
        if can_measure_memory():
            memory = [in_fresh_process(peak_of, axis.task, size, threads) for size in axis.sizes]
        clear = [place for place, peak in enumerate(memory) if not peak < SMALLEST_PEAK]
        costs = [axis.cost(size) for size in axis.sizes]
        powers = (
            fitted_exponent(costs, seconds),
            fitted_exponent([costs[p] for p in clear], [memory[p] for p in clear]),
        )
        print(
            f"\n{axis.work}: time grows with {axis.name} to the power {powers[0]:.2f}, "
            f"peak memory to the power {powers[1]:.2f}"
        )
        for size, time, peak in zip(axis.sizes, seconds, memory, strict=True):
            print(
                f"  {size:>5} {1e3 * time:10.2f} ms {time / seconds[0]:8.2f} x "
                f"{peak:8.1f} MiB {peak / memory[0]:8.2f} x",
                flush=True,
            )
            rows.append(
                {
                    "work": axis.work,
                    "axis": axis.name,
                    "size": size,
                    "milliseconds": f"{1e3 * time:.2f}",
                    "time_ratio": f"{time / seconds[0]:.3f}",
                    "time_exponent": f"{powers[0]:.3f}",
                    "peak_mib": f"{peak:.1f}",
                    "memory_ratio": f"{peak / memory[0]:.3f}",
                    "memory_exponent": f"{powers[1]:.3f}",
                    "backend": available_backends("cpu")[0],
                    "threads": threads,
                    "machine": processor(),
                    "torch": torch.__version__,
                    "commit": commit(),
                    "date": date.today().isoformat(),
                }
            )
    return rows


def write(rows: Sequence[dict[str, object]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    write(measure(AXES, rounds=options.rounds, threads=options.threads), RESULTS)


if __name__ == "__main__":
    main()
