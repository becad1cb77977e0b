"""Time, growth and peak memory of the kernels on a CPU.

    python benchmarks/kernels.py --threads 1
    python benchmarks/kernels.py --threads 2 --prototypes path/to/prototypes

All candidates run in one process, in every round once and in another order; medians of the rounds
are printed, with one thread in CPU time, else in wall time. Ratios are the result: the machine may
be shared.
Nothing is timed before the backend has agreed with the reference in float64, values and gradients.
glibc is told to keep freed memory: else whoever happens to be given back pages pays for all.
`--prototypes` names a folder with the modules numba_scan_final and numba_conv to compare with.
"""

import argparse
import importlib
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tsm2.kernels import available_backends, causal_conv, selective_scan, warm_up

Kernel = Callable[..., Tensor]
Size = tuple[int, int, int, int]

SIZES: list[Size] = [  # batch, channels, length, states
    (32, 128, 7, 16),
    (32, 128, 96, 16),
    (256, 128, 21, 16),
    (32, 256, 96, 8),
    (224, 64, 96, 16),
    (1, 128, 4096, 16),
    (32, 128, 862, 16),
    (32, 256, 512, 16),
]
LENGTHS = (512, 1024, 2048, 4096, 8192)
VARIATES = (7, 21, 62, 321, 862)
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
REFERENCE_LIMIT = 8_000_000  # state updates; beyond, the reference only costs time


def arguments_of(name: str, size: Size) -> list[Tensor]:
    """Make what a trained network would hand over."""
    batch, channels, length, states = size
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    lead = (batch, length)
    if name == "conv":
        return [normal(*lead, channels), normal(channels, 4), normal(channels)]
    u, delta, z = (normal(*lead, channels) for _ in range(3))
    A = -torch.arange(1.0, states + 1).expand(channels, -1).contiguous()
    B, C = (normal(*lead, states) for _ in range(2))
    return [u, delta / 2, A, B, C, normal(channels), z, normal(channels) - 4]


def on(backend: str, name: str) -> Kernel:
    operation: Any = selective_scan if name == "scan" else causal_conv
    return lambda *arguments: operation(*arguments, backend=backend)


def prototypes_in(folder: Path) -> dict[str, Kernel]:
    sys.path.insert(0, str(folder))
    scan = importlib.import_module("numba_scan_final").scan_nb
    conv = importlib.import_module("numba_conv").conv_silu
    return {"scan": scan, "conv": lambda x, weight, bias: conv(x, weight[:, None], bias)}


def step(kernel: Kernel, arguments: list[Tensor]) -> list[Tensor]:
    """Run forward and backward; return the output and all gradients."""
    leaves = [argument.detach().requires_grad_() for argument in arguments]
    out = kernel(*leaves)
    upstream = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def refuse_if_wrong(kernel: Kernel, name: str, size: Size) -> None:
    """Stop unless a kernel agrees with the reference in float64 on a part of a size."""
    batch, channels, length, states = size
    arguments = arguments_of(name, (min(batch, 2), channels, min(length, 100), states))
    wanted = step(on("reference", name), [argument.double() for argument in arguments])
    for number, (got, right) in enumerate(zip(step(kernel, arguments), wanted, strict=True)):
        error = ((got - right).abs().max() / right.abs().max()).item()
        if not error < (1e-4 if number else 1e-5):
            sys.exit(f"{name} {size}: result {number} is wrong by {error:.1e}; no speed to report")


def medians(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each task, all of them run in every round."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    repeats, seconds = {}, {name: list[float]() for name in tasks}
    for name, task in tasks.items():
        task()
        start = time.perf_counter()
        task()
        repeats[name] = max(1, int(0.02 / (time.perf_counter() - start)))
    shuffled = random.Random(0)
    for _ in range(rounds):
        for name in shuffled.sample(list(tasks), len(tasks)):  # nobody always follows the slowest
            task = tasks[name]
            start = clock()
            for _ in range(repeats[name]):
                task()
            seconds[name].append((clock() - start) / repeats[name])
    return {name: 1e3 * statistics.median(each) for name, each in seconds.items()}


def timings(
    kernels: dict[str, Kernel], arguments: list[Tensor], rounds: int
) -> dict[str, tuple[float, float]]:
    """Return milliseconds of forward without a graph, and of forward and backward."""
    leaves = [argument.detach().requires_grad_() for argument in arguments]
    upstream = torch.randn(arguments[0].shape)
    tasks: dict[str, Callable[[], object]] = {}
    for name, kernel in kernels.items():

        def forward(kernel: Kernel = kernel) -> Tensor:
            with torch.no_grad():
                return kernel(*leaves)

        def both(kernel: Kernel = kernel) -> object:
            return torch.autograd.grad(kernel(*leaves), leaves, upstream)

        tasks |= {f"{name} forward": forward, f"{name} both": both}
    result = medians(tasks, rounds)
    return {name: (result[f"{name} forward"], result[f"{name} both"]) for name in kernels}


def print_speed(name: str, rivals: dict[str, Kernel], rounds: int) -> None:
    print(f"\n{name}: ms forward / forward and backward; x = times the numba backend")
    for size in SIZES:
        refuse_if_wrong(on("numba", name), name, size)
        kernels = {"numba": on("numba", name), **rivals}
        if np.prod(size) < REFERENCE_LIMIT:
            kernels["reference"] = on("reference", name)
        result = timings(kernels, arguments_of(name, size), rounds)
        ours = result.pop("numba")
        line = f"  {size!s:20}  numba {ours[0]:8.3f} / {ours[1]:8.3f}"
        for rival, (forward, both) in result.items():
            line += f"   {rival} {forward:8.3f} / {both:8.3f}"
            line += f" (x {forward / ours[0]:.2f} / {both / ours[1]:.2f})"
        print(line, flush=True)


def print_growth(rounds: int) -> None:
    """Fit time = c size^p to forward and backward of the numba scan."""

    def along_time(length: int) -> tuple[list[Tensor], tuple[int, ...]]:
        return arguments_of("scan", (4, 64, length, 16)), (1,)

    def along_variates(variates: int) -> tuple[list[Tensor], tuple[int, ...]]:
        arguments = arguments_of("scan", (4, 64, variates * 12, 16))
        patches = [a.view(4, variates, 12, -1) if a.ndim == 3 else a for a in arguments]
        return patches, (1,)

    for name, sizes, make in (
        ("length", LENGTHS, along_time),
        ("variates", VARIATES, along_variates),
    ):
        tasks: dict[str, Callable[[], object]] = {}
        for size in sizes:
            arguments, axes = make(size)
            leaves = [argument.requires_grad_() for argument in arguments]
            upstream = torch.randn(arguments[0].shape)

            def both(
                leaves: list[Tensor] = leaves,
                upstream: Tensor = upstream,
                axes: tuple[int, ...] = axes,
            ) -> object:
                out = selective_scan(*leaves, axes=axes, backend="numba")
                return torch.autograd.grad(out, leaves, upstream)

            tasks[str(size)] = both
        result = medians(tasks, rounds)
        power = np.polyfit(np.log(sizes), np.log(list(result.values())), 1)[0]
        times = ", ".join(f"{size}: {each:.2f} ms" for size, each in result.items())
        print(f"\ntime of a scan with gradients grows with {name} to the power {power:.2f}")
        print(f"  {times}")


def print_memory(prototypes: Path | None) -> None:
    if not Path("/proc/self/clear_refs").exists():
        return
    print("\nscan: growth of the peak resident memory in forward and backward, MiB")
    for size in [(32, 128, 96, 16), (224, 64, 96, 16), (32, 256, 512, 16)]:
        line = f"  {size!s:20}"
        for candidate in ["numba", "reference"] + ["prototype"] * (prototypes is not None):
            command = [sys.executable, __file__, "--peak", candidate, *map(str, size)]
            command += ["--threads", str(torch.get_num_threads())]
            command += ["--prototypes", str(prototypes)] if prototypes else []
            environment = {k: v for k, v in os.environ.items() if k not in KEEP_MEMORY}
            output = subprocess.run(
                command, capture_output=True, text=True, check=True, env=environment
            ).stdout
            line += f"   {candidate} {float(output):7.0f}"
        print(line, flush=True)


def peak(candidate: str, size: Size, prototypes: Path | None) -> float:
    """Measure in this process, which has done nothing else: MiB on top of the arguments."""
    if candidate == "prototype" and prototypes:
        kernel = prototypes_in(prototypes)["scan"]
    else:
        kernel = on(candidate, "scan")
    step(kernel, arguments_of("scan", (1, 16, 20, 2)))
    leaves = [argument.requires_grad_() for argument in arguments_of("scan", size)]
    upstream = torch.randn(leaves[0].shape)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    torch.autograd.grad(kernel(*leaves), leaves, upstream)
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """Read a field of the process's memory, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    wide = "avx512f" in cpuinfo.read_text() if lines else False
    return (
        f"{models[0] if models else platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores{', AVX-512' if wide else ''}, load {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--prototypes", type=Path)
    parser.add_argument("--peak", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        candidate, *numbers = options.peak
        batch, channels, length, states = map(int, numbers)
        print(peak(candidate, (batch, channels, length, states), options.prototypes))
        return
    if not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    if "numba" not in available_backends("cpu"):
        sys.exit("the numba backend cannot run here: see `tsm2 info`")
    warm_up()
    print(f"{machine()}; {options.threads} thread(s), medians of {options.rounds} rounds")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, float32")
    rivals = prototypes_in(options.prototypes) if options.prototypes else {}
    for name in ("scan", "conv"):
        rival = {"prototype": rivals[name]} if rivals else {}
        print_speed(name, rival, options.rounds)
    print_growth(options.rounds)
    print_memory(options.prototypes)


if __name__ == "__main__":
    main()
