"""What a GPU makes of the kernels and of a training step: one command for ten minutes of a device.

    python benchmarks/gpu.py --out rows.jsonl
    python benchmarks/gpu.py --device cpu --tiny     # runs to its end anywhere, for its own sake

Sections come most important first, each with a share of `--seconds`: it ends early where that is
used up. Every row is written and printed as soon as it is measured, so that nothing is lost when
the device is taken away.

1. correct: every kernel against the reference in float64, output and all gradients.
2. kernels: milliseconds of scans and convolutions, forward and with gradients, called one after
   the other ("eager") and replayed as a CUDA graph, beside the official kernels where they are
   usable. "floor" is the bytes that must be moved over the rate of a large copy.
3. fit: seconds of a fit of ETTh1, its steps captured and not, with its test error.
4. step: milliseconds of a training step, captured and not, with SAM and without, of networks of
   several sizes and numbers of variates (`gpu_steps.py`).
5. validation, forecasts: milliseconds of a batch of validation, and seconds of the forecasts of
   8192 windows, captured and not (`gpu_batches.py`).
6. pretraining: steps and series in a second of pretraining "zero", captured and not, and how far
   those who draw windows keep up (`gpu_pretraining.py`).
7. vim2, cifar10: images, see `gpu_vision.py`.
8. peers: the steps of PatchTST and iTransformer, where neuralforecast is installed.

What disagreed gets no speed, and no section runs whose kernels all did.
Sizes: B sequences, L tokens, E channels, N states.
"""

import argparse
import itertools
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_batches import time_forecasts, time_validation
from gpu_pretraining import time_pretraining
from gpu_steps import time_fits, time_peers, time_steps
from gpu_vision import learn_cifar10, time_vim2
from timing import versions
from torch import Tensor

from tsm2.errors import TSM2Error
from tsm2.kernels import (
    ScanWeights,
    available_backends,
    causal_conv,
    cross_scan,
    selective_scan,
)

Arguments = dict[str, Any]
SCANS = [
    (64, 3136, 192, 16),
    (1, 65536, 128, 16),
    (4, 2048, 1536, 16),
    (224, 96, 64, 16),
    (448, 32, 16, 4),
    (2048, 7, 16, 4),
]
TINY_SCANS = [(2, 40, 16, 4)]
IMAGES = [(64, 56, 192, 4), (64, 28, 384, 4), (64, 14, 768, 4), (64, 7, 1536, 4)]
"""Images, their height and width, channels and states of the scans of vim2_tiny's stages."""
TINY_IMAGES = [(2, 5, 16, 4)]
IMAGE_CASES = [((2, 9, 13), 20, 3)]
CASES = [((1, 600), 64, 16), ((2, 131), 20, 3), ((3, 5, 70), 16, 4)]
"""Few: each has kernels of its own, and to compile them took 2.8 seconds on the host of an H100.
`make test-gpu` has all walks and sizes."""
TINY_CASES = [((2, 33), 16, 4), ((2, 3, 7), 5, 3)]
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
SIGNALS = {"u", "delta", "B", "C", "z", "x"}
SECONDS_EACH = 1.0
"""After which nothing is timed once more."""


class Report:
    """Rows, written and printed as they come."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.began = path, time.monotonic()

    def row(self, section: str, **found: object) -> None:
        """Write one row."""
        at = round(time.monotonic() - self.began, 1)  # seconds
        line = json.dumps({"section": section, "at": at} | found)
        print(line, flush=True)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(line + "\n")


def scan_arguments(lead: tuple[int, ...], channels: int, states: int, device: str) -> Arguments:
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    made = {
        "u": normal(*lead, channels),
        "delta": normal(*lead, channels),
        "A": -torch.exp(normal(channels, states)),
        "B": normal(*lead, states),
        "C": normal(*lead, states),
        "D": normal(channels),
        "z": normal(*lead, channels),
        "delta_bias": normal(channels) - 2,
    }
    return {name: each.to(device) for name, each in made.items()}


def conv_arguments(lead: tuple[int, ...], channels: int, device: str) -> Arguments:
    draw = torch.Generator().manual_seed(0)
    shapes = {"x": (*lead, channels), "weight": (channels, 4), "bias": (channels,)}
    return {name: torch.randn(s, generator=draw).to(device) for name, s in shapes.items()}


def image_arguments(lead: tuple[int, ...], channels: int, states: int, device: str) -> Arguments:
    """Return an image and the weights of its four scans, stacked."""
    draw = torch.Generator().manual_seed(0)
    rank = -(-channels // 16)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    made = {
        "x": normal(*lead, channels),
        "select_weight": normal(4, rank + 2 * states, channels) * channels**-0.5,
        "delta_weight": normal(4, channels, rank),
        "delta_bias": normal(4, channels) - 2,
        "A": -torch.exp(normal(4, channels, states)),
        "D": normal(4, channels),
    }
    return {name: each.to(device) for name, each in made.items()}


def image_scan(*, x: Tensor, backend: str = "auto", **weights: Tensor) -> Tensor:
    """Scan an image row by row and column by column, from both ends."""
    scans = [ScanWeights(**{name: each[k] for name, each in weights.items()}) for k in range(4)]
    axes = [(1, 2), (1, 2), (2, 1), (2, 1)]
    return cross_scan(x, scans, axes=axes, reverse=[False, True, False, True], backend=backend)


def in_dtype(arguments: Arguments, dtype: torch.dtype) -> Arguments:
    """Give the signals a dtype, and what torch.autocast would; other parameters stay float32."""
    rounded = {*SIGNALS, "select_weight"}
    return {name: each.to(dtype) if name in rounded else each for name, each in arguments.items()}


def both_passes(operation: Callable[..., Tensor], given: Arguments, **options: Any) -> Arguments:
    leaves = {name: each.detach().requires_grad_() for name, each in given.items()}
    out = operation(**leaves, **options)
    upstream = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device)
    gradients = torch.autograd.grad(out, list(leaves.values()), upstream.view(out.shape))
    return {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}


def largest_error(got: Arguments, wanted: Arguments) -> float:
    """Return the largest error of an output and its gradients, relative to the largest entry."""
    return max(
        float((got[name].cpu().double() - right).abs().max() / (right.abs().max() + 1e-30))
        for name, right in wanted.items()
    )


def checked(options: argparse.Namespace) -> Iterator[tuple[Any, Arguments, Arguments]]:
    """Yield what is compared: an operation, its arguments, and how it walks."""
    device = options.device
    cases = TINY_CASES if options.tiny else CASES
    for reverse, (lead, channels, states) in zip(itertools.cycle((False, True)), cases):
        walk: Arguments = {"axes": (len(lead) - 1,), "reverse": reverse}
        yield selective_scan, scan_arguments(lead, channels, states, device), walk
        yield causal_conv, conv_arguments(lead, channels, device), walk
    for lead, channels, states in IMAGE_CASES:
        yield image_scan, image_arguments(lead, channels, states, device), {}


def check(report: Report, options: argparse.Namespace, backends: list[str]) -> set[str]:
    """Compare every backend with the reference; return those that agree in every case."""
    wrong = set()
    dtypes = [torch.float32] if options.device == "cpu" else list(TOLERANCE)
    for dtype, (operation, drawn, walk) in itertools.product(dtypes, list(checked(options))):
        given = in_dtype(drawn, dtype)
        exact = {name: each.cpu().double() for name, each in given.items()}
        wanted = both_passes(operation, exact, backend="reference", **walk)
        for backend in backends:
            failed = None
            try:
                got = both_passes(operation, given, backend=backend, **walk)
                error = largest_error(got, wanted)
            except (RuntimeError, TSM2Error) as reason:
                error, failed = math.nan, str(reason)
            agrees = error < TOLERANCE[dtype]  # False for NaN
            wrong |= set() if agrees else {backend}
            report.row(
                "correct",
                backend=backend,
                operation=operation.__name__,
                sizes={name: tuple(each.shape) for name, each in given.items() if name in "uxA"},
                reverse=walk.get("reverse"),
                dtype=str(dtype),
                error=error,
                agrees=agrees,
                failed=failed,
            )
    return set(backends) - wrong


def milliseconds(task: Callable[[], object], device: str, rounds: int) -> float:
    """Return the median time of a task, the device waited for."""
    wait: Any = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(3):
        task()
    taken = []
    for _ in range(rounds):
        wait()
        began = time.perf_counter()
        task()
        wait()
        taken.append(time.perf_counter() - began)
        if sum(taken) > SECONDS_EACH:
            break
    return 1e3 * statistics.median(taken)


def replayed(task: Callable[[], object]) -> Callable[[], object]:
    """Capture a task as a CUDA graph."""
    cuda: Any = torch.cuda
    stream = cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            task()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        task()
    return graph.replay


def timed_kernels(
    options: argparse.Namespace, backend: str
) -> Iterator[tuple[dict[str, object], Callable[[], object], int]]:
    """Yield what is timed, as a task, and the bytes that it must move."""
    dtypes = [torch.float32] if options.device == "cpu" else list(TOLERANCE)
    device = options.device
    tasks: list[tuple[Any, tuple[int, ...], Arguments]] = []
    for size, length, channels, states in TINY_SCANS if options.tiny else SCANS:
        sizes, lead = (size, length, channels, states), (size, length)
        tasks.append((selective_scan, sizes, scan_arguments(lead, channels, states, device)))
        tasks.append((causal_conv, sizes, conv_arguments(lead, channels, device)))
    for size, width, channels, states in TINY_IMAGES if options.tiny else IMAGES:
        sizes, lead = (size, width, width, channels, states), (size, width, width)
        tasks.append((image_scan, sizes, image_arguments(lead, channels, states, device)))
    for operation, sizes, drawn in tasks:
        for dtype in dtypes:
            given = in_dtype(drawn, dtype)
            signals = [each for name, each in given.items() if name in SIGNALS]
            moved = sum(each.nbytes for each in signals) + signals[0].nbytes
            named: dict[str, object] = {
                "backend": backend,
                "operation": operation.__name__,
                "size": sizes,
                "dtype": str(dtype),
            }

            def forward(operation: Any = operation, given: Arguments = given) -> object:
                with torch.no_grad():
                    return operation(**given, backend=backend)

            def both(operation: Any = operation, given: Arguments = given) -> object:
                return both_passes(operation, given, backend=backend)

            yield named | {"passes": "forward"}, forward, moved
            yield named | {"passes": "both"}, both, 3 * moved


def copy_rate(options: argparse.Namespace) -> float:
    """Return the GB that a large copy reads and writes in a second."""
    source = torch.zeros(2**16 if options.tiny else 2**28, device=options.device)
    copy = torch.empty_like(source)
    return 2e-6 * source.nbytes / milliseconds(lambda: copy.copy_(source), options.device, 7)


def time_kernels(
    report: Report, options: argparse.Namespace, backends: list[str], ends: float
) -> None:
    rate = copy_rate(options)
    report.row("kernels", copy_gb_per_s=rate)
    for backend in backends:
        for named, task, moved in timed_kernels(options, backend):
            if time.monotonic() > ends:
                report.row("kernels", ended="out of time")
                return
            found: dict[str, object] = {"floor": 1e-6 * moved / rate}
            found["eager"] = milliseconds(task, options.device, options.rounds)
            if options.device == "cuda":
                found["replayed"] = milliseconds(replayed(task), "cuda", options.rounds)
            report.row("kernels", **named, milliseconds=found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "mps", "xpu", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="sizes that take a second each")
    parser.add_argument("--seconds", type=float, default=540, help="for all sections together")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, help="file to which rows are added")
    parser.add_argument("--cifar10", type=Path, help="folder cifar-10-batches-py")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device here; --device cpu --tiny runs everything at tiny sizes")
    if options.tiny:
        options.rounds = 3
    torch.set_num_threads(1)  # what a CPU compares with is thousands of tiny operations
    began = time.monotonic()
    report = Report(options.out)
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor()
    report.row("machine", device=name, versions=versions("torch", "triton", "mamba-ssm"))
    backends = [each for each in available_backends(options.device) if each != "reference"]
    agree = check(report, options, backends)
    if not agree:
        sys.exit("no backend agrees with the reference: nothing is timed")

    def timed(task: Callable[[], object]) -> float:
        return milliseconds(task, options.device, options.rounds)

    right = [each for each in backends if each in agree]
    time_kernels(report, options, right, began + 0.25 * options.seconds)
    if backends[0] not in agree:  # what a network runs on
        sys.exit(f"{backends[0]} disagrees with the reference: no network is timed")
    if options.device != "xpu":  # where nothing is fitted
        time_fits(report, options, began + 0.35 * options.seconds)
        time_steps(report, options, timed, began + 0.55 * options.seconds)
        time_validation(report, options, timed, began + 0.6 * options.seconds)
        time_forecasts(report, options, began + 0.63 * options.seconds)
        time_pretraining(report, options, began + 0.7 * options.seconds)
    time_vim2(report, options, began + 0.9 * options.seconds)
    time_peers(report, options, timed, replayed, began + 0.93 * options.seconds)
    learn_cifar10(report, options, began + options.seconds)


if __name__ == "__main__":
    main()
