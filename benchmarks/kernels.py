"""Time and peak memory of the kernels on a CPU, beside other ways to run the same recurrence.

    python benchmarks/kernels.py --threads 1
    python benchmarks/kernels.py --threads 2 --prototypes path/to/prototypes

Candidates: every backend that runs here; `indexed`, the plain loop over x[:, t] that the authors of
Mamba published as their reference, quadratic in training; mambapy's `pscan` (pip install mambapy);
PyTorch's `associative_scan`; and, for the convolution, `nn.Conv1d` with the transposes that it
needs. `--prototypes` names a folder with the modules numba_scan_final and numba_conv.

Every candidate is first compared with the reference in float64, output and all gradients, on a part
of the size; one that disagrees gets no speed. Ratios are the result: the machine may be shared.
A candidate that is slow runs fewer rounds, and none if one call is expected to take longer than
`--limit` or more memory than there is; the table says so.
Memory is allocated as in any Python process; `--keep-memory` keeps freed memory, which favours
candidates with large temporaries, see `timing.keep_freed_memory`.
Sizes: (B windows, E channels, L tokens, N states).
"""

import argparse
import importlib
import math
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timing import (
    Task,
    available_memory,
    can_measure_memory,
    hardware,
    in_fresh_process,
    interleave,
    keep_freed_memory,
    peak_growth,
    versions,
)
from torch import Tensor
from torch.nn import functional

from tsm2.kernels import available_backends, causal_conv, selective_scan, warm_up

Kernel = Callable[..., Tensor]
Size = tuple[int, int, int, int]

SIZES: list[Size] = [
    (32, 128, 7, 16),
    (32, 128, 96, 16),
    (256, 128, 21, 16),
    (32, 256, 96, 8),
    (224, 64, 96, 16),
    (1, 128, 4096, 16),
    (32, 128, 862, 16),
    (32, 256, 512, 16),
]
MEMORY_SIZES: list[Size] = [(32, 128, 96, 16), (224, 64, 96, 16), (32, 256, 512, 16)]
VALUE_LIMIT, GRADIENT_LIMIT = 1e-5, 1e-4  # errors relative to the largest entry


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way to run a kernel."""

    kernel: Kernel
    state_tensors: int = 0
    """How many tensors of all states, (B, L, E, N), it holds at once in training, at most."""


# --- candidates -----------------------------------------------------------------------------------


def indexed_recurrence(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    """Scan as the published reference of Mamba does, with an index for every token."""
    step = functional.softplus(delta + bias)
    decay = torch.exp(step[..., None] * A)  # (B, L, E, N)
    inflow = (step * u)[..., None] * B[:, :, None]
    h, outputs = torch.zeros_like(decay[:, 0]), []
    for t in range(u.shape[1]):
        h = decay[:, t] * h + inflow[:, t]
        outputs.append((h * C[:, t, None]).sum(-1))
    return (torch.stack(outputs, 1) + D * u) * functional.silu(z)


def of_all_states(recurrence: Callable[[Tensor, Tensor], Tensor]) -> Kernel:
    """Make a kernel of a function that turns decays and inflows into states, all (B, L, E, N)."""

    def kernel(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        z: Tensor,
        bias: Tensor,
    ) -> Tensor:
        step = functional.softplus(delta + bias)
        h = recurrence(torch.exp(step[..., None] * A), (step * u)[..., None] * B[:, :, None])
        return ((h @ C[..., None]).squeeze(-1) + D * u) * functional.silu(z)

    return kernel


def mambapy_scan() -> Kernel:
    return of_all_states(importlib.import_module("mambapy.pscan").pscan)


def associative_scan() -> Kernel:
    module = importlib.import_module("torch._higher_order_ops.associative_scan")

    def combine(early: list[Tensor], late: list[Tensor]) -> list[Tensor]:
        return [early[0] * late[0], late[0] * early[1] + late[1]]

    def recurrence(decay: Tensor, inflow: Tensor) -> Tensor:
        scanned = module.associative_scan(combine, [decay, inflow], 1, combine_mode="generic")
        states: Tensor = scanned[1]
        return states

    return of_all_states(recurrence)


def transposed_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve with PyTorch's own operation, which wants the channels before the tokens."""
    channels, taps = weight.shape
    y = functional.conv1d(
        x.transpose(1, 2), weight[:, None], bias, padding=taps - 1, groups=channels
    )
    return functional.silu(y[..., : x.shape[1]]).transpose(1, 2)


def on(backend: str, name: str) -> Kernel:
    operation: Any = selective_scan if name == "scan" else causal_conv
    return lambda *arguments: operation(*arguments, backend=backend)


def candidates(
    name: str, prototypes: Path | None = None
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """Return the candidates for "scan" or "conv", fastest backend first, and who is missing why."""
    found = {
        backend: Candidate(
            kernel=on(backend, name),
            state_tensors=4 if backend == "reference" and name == "scan" else 0,
        )
        for backend in available_backends("cpu")
    }
    if prototypes:
        sys.path.insert(0, str(prototypes))
        module = importlib.import_module("numba_scan_final" if name == "scan" else "numba_conv")
        found["prototype"] = Candidate(
            kernel=module.scan_nb
            if name == "scan"
            else lambda x, weight, bias: module.conv_silu(x, weight[:, None], bias)
        )
    if name == "conv":
        return found | {"nn.Conv1d": Candidate(kernel=transposed_conv)}, {}
    missing = {}
    for peer, make in (("mambapy", mambapy_scan), ("associative", associative_scan)):
        try:
            found[peer] = Candidate(kernel=make(), state_tensors=10)
        except ImportError as error:
            missing[peer] = str(error)
    found["indexed"] = Candidate(kernel=indexed_recurrence, state_tensors=10)
    return found, missing


# --- what a candidate runs ------------------------------------------------------------------------


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


def tasks_of(kernel: Kernel, arguments: list[Tensor]) -> tuple[Task, Task]:
    """Return forward without a graph, and forward and backward."""
    leaves = [argument.detach().requires_grad_() for argument in arguments]
    upstream = torch.randn(arguments[0].shape)

    def forward() -> Tensor:
        with torch.no_grad():
            return kernel(*leaves)

    def both() -> object:
        return torch.autograd.grad(kernel(*leaves), leaves, upstream)

    return forward, both


def results(kernel: Kernel, arguments: list[Tensor]) -> list[Tensor]:
    """Return the output and all gradients."""
    leaves = [argument.detach().requires_grad_() for argument in arguments]
    out = kernel(*leaves)
    upstream = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


# --- reasons for no speed -------------------------------------------------------------------------


def disagreement(kernel: Kernel, name: str, size: Size) -> str | None:
    """Compare with the reference in float64 on a part of a size; say what is wrong, or None."""
    batch, channels, length, states = size
    arguments = arguments_of(name, (min(batch, 2), channels, min(length, 100), states))
    wanted = results(on("reference", name), [argument.double() for argument in arguments])
    for number, (got, right) in enumerate(zip(results(kernel, arguments), wanted, strict=True)):
        error = ((got - right).abs().max() / right.abs().max()).item()
        if not error < (GRADIENT_LIMIT if number else VALUE_LIMIT):
            what = f"gradient {number}" if number else "output"
            return f"disagrees: {what} is wrong by {error:.0e}"
    return None


def obstacle(candidate: Candidate, name: str, size: Size, limit: float) -> str | None:
    """Say why one call is too much for this machine or for our patience, or None."""
    needed = 4 * candidate.state_tensors * math.prod(size)
    if needed > 0.8 * available_memory():
        return f"not run: needs about {needed / 2**30:.1f} GiB"
    batch, channels, length, states = size
    if length >= 256:
        sixteenth, eighth = (
            seconds_of(candidate.kernel, name, (batch, channels, length // part, states))
            for part in (16, 8)
        )
        expected = eighth * (eighth / sixteenth) ** 3
        if expected > limit:
            return f"not run: expected to take {expected:.0f} s, judging by shorter lengths"
    return None


def seconds_of(kernel: Kernel, name: str, size: Size) -> float:
    _, both = tasks_of(kernel, arguments_of(name, size))
    start = time.perf_counter()
    both()
    return time.perf_counter() - start


# --- tables ---------------------------------------------------------------------------------------


def print_speed(name: str, options: argparse.Namespace) -> None:
    found, missing = candidates(name, options.prototypes)
    fastest = next(iter(found))
    print(f"\n{name}: ms, and times the {fastest} backend; forward, then forward and backward")
    for peer, why in missing.items():
        print(f"  {peer} is missing: {why}")
    for size in options.sizes:
        print(f"  {size}, {math.prod(size) / 1e6:.1f} million states")
        arguments, reasons = arguments_of(name, size), dict[str, str]()
        tasks = dict[str, Task]()
        for who, candidate in found.items():
            wrong = disagreement(candidate.kernel, name, size)
            if reason := wrong or obstacle(candidate, name, size, options.limit):
                reasons[who] = reason
            else:
                forward, both = tasks_of(candidate.kernel, arguments)
                tasks |= {f"{who} forward": forward, f"{who} both": both}
        timings = interleave(
            tasks, rounds=options.rounds, threads=options.threads, limit=options.limit
        )
        for who in found:
            if who in reasons:
                print(f"    {who:12} {reasons[who]}")
                continue
            line = f"    {who:12}"
            for part in ("forward", "both"):
                timing = timings[f"{who} {part}"]
                line += f" {1e3 * timing.seconds:10.3f}"
                if fastest not in reasons:
                    line += f" x{timing.seconds / timings[f'{fastest} {part}'].seconds:7.2f}"
            rounds = timings[f"{who} both"].rounds
            print(line + (f"   {rounds} round(s)" if rounds < options.rounds else ""))
        sys.stdout.flush()


def print_memory(options: argparse.Namespace) -> None:
    if not can_measure_memory():
        print("\npeak memory: not measured, this system does not let a process reset its peak")
        return
    found, _ = candidates("scan", options.prototypes)
    print("\nscan: growth of the peak resident memory in forward and backward, MiB")
    for size in MEMORY_SIZES:
        print(f"  {size}")
        for who, candidate in found.items():
            result = obstacle(candidate, "scan", size, options.limit)
            if result is None:
                arguments = (who, size, options.threads, options.prototypes)
                result = f"{in_fresh_process(peak_of, *arguments):7.0f}"
            print(f"    {who:12} {result}", flush=True)


def peak_of(who: str, size: Size, threads: int, prototypes: Path | None) -> float:
    """Measure in this process, which has only loaded what it needs: MiB besides the arguments."""
    torch.set_num_threads(threads)
    kernel = candidates("scan", prototypes)[0][who].kernel
    results(kernel, arguments_of("scan", (1, 16, 20, 2)))
    _, both = tasks_of(kernel, arguments_of("scan", size))
    return peak_growth(both)


def size_of(text: str) -> Size:
    batch, channels, length, states = map(int, text.split(","))
    return batch, channels, length, states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--limit", type=float, default=20, help="seconds for a candidate's rounds")
    parser.add_argument("--prototypes", type=Path, help="folder with prototypes to compare with")
    parser.add_argument("--keep-memory", action="store_true", help="keep freed memory")
    parser.add_argument(
        "--sizes",
        type=size_of,
        nargs="+",
        default=SIZES,
        metavar="BATCH,CHANNELS,LENGTH,STATES",
        help="speed at these sizes alone, and no memory",
    )
    options = parser.parse_args()
    if options.keep_memory:
        keep_freed_memory()
    torch.set_num_threads(options.threads)
    warm_up()
    print(f"{hardware(options.threads)}, medians of {options.rounds} rounds")
    print(f"Python {platform.python_version()}, {versions('torch', 'numba', 'mambapy')}, float32")
    for name in ("scan", "conv"):
        print_speed(name, options)
    if options.sizes is SIZES:
        print_memory(options)


if __name__ == "__main__":
    main()
