"""Where the device's time goes in a training step, and what the rules of the scans cost.

    python benchmarks/gpu_profile.py                  # on CUDA
    python benchmarks/gpu_profile.py --tiny           # runs to its end on a CPU, for its own sake

1. A step of ViM2 in bfloat16 and of TSM2, one operation at a time: how long it takes, how long the
   device works in it, and on what, by kernel.
2. Milliseconds of scans, forward and with gradients, replayed as CUDA graphs, with other values of
   the constants by which `tsm2.kernels.triton_backend` cuts work: the first value of each is the
   one that it has. A new tile is compiled first, which takes some seconds.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib import import_module
from typing import Any
from unittest.mock import patch

import gpu
import torch
from gpu_steps import NETWORKS, begun, config_of
from gpu_vision import TINY, step_of
from torch.profiler import ProfilerActivity, profile

from tsm2.networks import NetworkConfig
from tsm2.vision import create_vim2

Task = Callable[[], object]
SHOWN = 25
RULES = {
    "_TILE": (512, 128, 256),
    "_ITEMS_PER_PROCESSOR": (64, 16, 32, 128),
    "_PROGRAMS_PER_PROCESSOR": (20, 12, 16, 24),
}


def vim2(name: str, batch: int, size: int, device: str, tiny: bool) -> Task:
    """Return a training step of a ViM2."""
    torch.manual_seed(0)
    sizes: Any = TINY if tiny else {}
    model = create_vim2(name, zero_start=False, **sizes).to(device).train()
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    step = step_of(model, optimizer, device, captured=False)
    return lambda: step([images, labels])


def tsm2(name: str, variates: int, batch: int, device: str) -> Task:
    """Return a training step of a forecaster, uncaptured and without SAM."""
    network = NetworkConfig(lookback=512, horizon=96, n_variates=variates, **NETWORKS[name])
    fit = begun(network, config_of(device, batch, 0.0), None)
    batches = itertools.cycle(fit.train.batches(batch))
    whole = (which for which in batches if len(which) == batch)
    return lambda: fit.take_step(next(whole))


def show(title: str, step: Task, device: str, rounds: int) -> None:
    """Print where the time of a step goes."""
    milliseconds = gpu.milliseconds(step, device, rounds)
    on_cuda = device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU]) as seen:
        for _ in range(rounds):
            step()
        if on_cuda:
            torch.cuda.synchronize()
    spent = [
        ((each.self_device_time_total if on_cuda else each.self_cpu_time_total) / rounds, each)
        for each in seen.key_averages()
    ]
    spent.sort(key=lambda pair: -pair[0])
    works = sum(microseconds for microseconds, _ in spent) / 1e3
    launches = sum(each.count for microseconds, each in spent if microseconds) / rounds
    print(f"{title}: {milliseconds:.2f} ms, of which it works {works:.2f}, launches {launches:.0f}")
    for microseconds, each in spent[:SHOWN]:
        print(f"{microseconds / 1e3:9.3f} ms {each.count / rounds:5.0f} x {each.key[:90]}")


def scans(device: str, tiny: bool) -> Iterator[tuple[str, Any, gpu.Arguments]]:
    """Yield a name, an operation and its arguments: an image's in bfloat16, others in float32."""
    for size, width, channels, states in gpu.TINY_IMAGES if tiny else gpu.IMAGES:
        drawn = gpu.image_arguments((size, width, width), channels, states, device)
        given = gpu.in_dtype(drawn, torch.bfloat16)
        yield f"image {size, width, channels, states}", gpu.image_scan, given
    for size, length, channels, states in gpu.TINY_SCANS if tiny else gpu.SCANS:
        given = gpu.scan_arguments((size, length), channels, states, device)
        yield f"{size, length, channels, states}", gpu.selective_scan, given


def time_rules(device: str, tiny: bool, rounds: int) -> None:
    """Print the time of every scan under every value of every constant."""
    rules: Any = import_module("tsm2.kernels.triton_backend") if device == "cuda" else None
    made = list(scans(device, tiny))
    print("forward / both passes, ms:", ", ".join(name for name, *_ in made))
    for rule, values in RULES.items():
        for value in values if rules else values[:1]:
            with patch.object(rules, rule, value) if rules else nullcontext():
                taken = [timed(*each, device, rounds) for each in made]
            print(f"{rule}={value}", *taken, flush=True)


def timed(_: str, operation: Any, given: gpu.Arguments, device: str, rounds: int) -> str:
    """Return the time forward and of both passes."""

    def forward() -> object:
        with torch.no_grad():
            return operation(**given)

    def both() -> object:
        return gpu.both_passes(operation, given)

    tasks: list[Task] = [forward, both]
    if device == "cuda":
        tasks = [gpu.replayed(each) for each in tasks]
    return " / ".join(f"{gpu.milliseconds(each, device, rounds):.3f}" for each in tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="on a CPU, at tiny sizes")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tiny, rounds = options.tiny, options.rounds
    if not tiny and not torch.cuda.is_available():
        sys.exit("no CUDA device here; --tiny runs everything at tiny sizes on a CPU")
    device = "cpu" if tiny else "cuda"
    batch, size = (2, 32) if tiny else (64, 224)
    show("vim2_tiny", vim2("vim2_tiny", batch, size, device, tiny), device, rounds)
    show("vim2_nano", vim2("vim2_nano", 4 * batch, 32, device, tiny), device, rounds)
    show("TSM2", tsm2("default", 7, batch, device), device, rounds)
    time_rules(device, tiny, rounds)


if __name__ == "__main__":
    main()
