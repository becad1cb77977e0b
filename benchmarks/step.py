"""One training step of TSM2 beside published networks of the same batch, on a CPU.

    pip install neuralforecast
    python benchmarks/step.py --threads 1
    python benchmarks/step.py --threads 1 --profile

A step is forward, mean squared error, backward and AdamW. A candidate is a name and a function
`step()`. The networks' own code runs, without their trainers: PatchTST (channel independent, so
every variate of a window is a series), iTransformer and TSMixer come from neuralforecast; what
cannot be imported is named as missing. Every network has the dropout that its library trains with;
ours has none. Random numbers cost PyTorch much time: `--no-dropout` leaves them out, which favours
the peers. All run as in `tsm2 fit`, in a process that keeps freed memory
(`tsm2.training.memory`); ours with the fused AdamW that a fit takes, theirs with the one that
PyTorch takes by itself. Each step is timed after two of the same network, as in training.

The estimator's `fit` takes two forward and backward passes for each step while `sam_radius` is
above 0, its default; the table is about one.

`--profile` divides the time of TSM2's step by kind of work, and puts beside it a floor: the flops
of its matrix products at the rate of one large product, the bytes that its other operations read
and write at the rate of a copy as large as a scanned tensor, and its exponentials at the rate of
the kernels' own `exp2` in cache (without numba, of `torch.exp`). The rates are measured in the same
run; the parts are added up as if nothing overlapped.

Sizes: B windows, M variates, L lookback, H horizon, E inner features, N states.
"""

import argparse
import logging
import math
import platform
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from timing import Task, hardware, interleave, versions
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from tsm2.kernels import available_backends, warm_up
from tsm2.networks import NetworkConfig, TSM2Network
from tsm2.training.memory import keep_freed_memory

LOOKBACK, HORIZON = 512, 96
SIZES = [(64, 7), (32, 7), (32, 21)]  # windows, variates
OURS: dict[str, dict[str, Any]] = {
    "TSM2": {"features": 32, "blocks": 2},
    "TSM2, E = 2 F": {"features": 32, "blocks": 2, "expand": 2},
    "TSM2, E = 2 F, N = 16": {"features": 32, "blocks": 2, "expand": 2, "d_state": 16},
    "TSM2 default": {},  # the network that TSM2Forecaster(512, 96) makes
}
PEERS = ("PatchTST", "iTransformer", "TSMixer")
LEARNING_RATE = 1e-4
ELEMENT = 4  # bytes of a float32


# --- candidates -----------------------------------------------------------------------------------


def training_step(network: nn.Module, given: Any, target: Tensor) -> Task:
    """Make a step of a network on one batch."""
    fused = True if isinstance(network, TSM2Network) else None
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, fused=fused)
    shape = network(given).shape
    if shape != target.shape:
        sys.exit(f"{type(network).__name__} forecasts {tuple(shape)}, not {tuple(target.shape)}")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.mse_loss(network(given), target).backward()
        optimizer.step()

    return step


def ours(name: str, variates: int) -> TSM2Network:
    return TSM2Network(
        NetworkConfig(lookback=LOOKBACK, horizon=HORIZON, n_variates=variates, **OURS[name])
    )


def peer(name: str, variates: int, *, dropout: bool) -> nn.Module:
    """Make a network of neuralforecast at the size of its paper, or raise ImportError."""
    from neuralforecast import models

    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)  # announces every seed
    none: dict[str, Any] = {} if dropout else {"dropout": 0.0}
    network: nn.Module
    if name == "PatchTST":
        network = models.PatchTST(
            h=HORIZON,
            input_size=LOOKBACK,
            hidden_size=128,
            encoder_layers=3,
            n_heads=16,
            linear_hidden_size=256,
            patch_len=16,
            stride=8,
            **(none and {"fc_dropout": 0.0, **none}),
        )
    elif name == "iTransformer":
        network = models.iTransformer(
            h=HORIZON,
            input_size=LOOKBACK,
            n_series=variates,
            hidden_size=256,
            e_layers=3,
            n_heads=8,
            d_ff=256,
            **none,
        )
    else:
        network = models.TSMixer(
            h=HORIZON, input_size=LOOKBACK, n_series=variates, n_block=2, ff_dim=64, **none
        )
    return network


def candidates(
    batch: int, variates: int, *, dropout: bool
) -> tuple[dict[str, Task], dict[str, int], dict[str, str]]:
    """Return the steps, the numbers of parameters, and who is missing why."""
    torch.manual_seed(0)
    context = torch.randn(batch, variates, LOOKBACK)
    target = torch.randn(batch, variates, HORIZON)
    steps, parameters, missing = dict[str, Task](), dict[str, int](), dict[str, str]()
    for name in (*OURS, *PEERS):
        given: Any = context
        wanted = target
        try:
            network = (
                ours(name, variates) if name in OURS else peer(name, variates, dropout=dropout)
            )
        except ImportError as error:
            missing[name] = str(error)
            continue
        if name == "PatchTST":
            given = {"insample_y": context.reshape(-1, LOOKBACK, 1)}  # (B M, L, 1)
            wanted = target.reshape(-1, HORIZON, 1)
        elif name in PEERS:
            given = {"insample_y": context.mT.contiguous()}  # (B, L, M)
            wanted = target.mT.contiguous()
        steps[name] = training_step(network, given, wanted)
        parameters[name] = sum(weights.numel() for weights in network.parameters())
    return steps, parameters, missing


def print_steps(batch: int, variates: int, options: argparse.Namespace) -> None:
    steps, parameters, missing = candidates(batch, variates, dropout=not options.no_dropout)
    timings = interleave(steps, rounds=options.rounds, threads=options.threads, warm=2)
    print(f"\nbatch {batch}, {variates} variates, lookback {LOOKBACK}, horizon {HORIZON}")
    for name, timing in timings.items():
        ratio = timing.seconds / timings["TSM2"].seconds
        print(
            f"  {name:14} {1e3 * timing.seconds:9.1f} ms   x{ratio:6.2f}   "
            f"{parameters[name]:>9,} parameters"
        )
    for name, reason in missing.items():
        print(f"  {name:14} missing: {reason}")
    sys.stdout.flush()


# --- where the time goes --------------------------------------------------------------------------


def kind_of(operation: str) -> str | None:
    """Sort an operation by its name; None leaves it to the operation that called it."""
    for mark, kind in (
        ("SelectiveSSM", "convolution, selection, scan"),
        ("Optimizer.step", "optimizer"),
    ):
        if mark in operation:
            return kind
    is_product = operation in {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
    return "matrix products" if is_product else None


def shares(step: Task, rounds: int) -> dict[str, float]:
    """Return milliseconds of one step by kind of work, the profiler's own time included."""
    with profile() as profiler:
        for _ in range(rounds):
            step()
    spent: Counter[str] = Counter()

    def add(event: Any, inherited: str | None) -> None:
        kind = inherited or kind_of(event.name)
        spent[kind or "elementwise, rest"] += event.self_cpu_time_total
        for called in event.cpu_children:
            add(called, kind)

    for event in profiler.events() or ():
        if event.cpu_parent is None:
            add(event, None)
    return {kind: 1e-3 * each / rounds for kind, each in spent.most_common()}


class Traffic(TorchDispatchMode):
    """Count the bytes that operations read and write, but for views and matrix products."""

    free = frozenset({"mm", "addmm", "bmm", "baddbmm", "_unsafe_view", "empty", "empty_like"})

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and func.overloadpacket.__name__ not in self.free:
            for tensor in tree_leaves((args, kwargs, out)):
                if isinstance(tensor, Tensor):
                    sizes = zip(tensor.shape, tensor.stride(), strict=True)
                    stored = math.prod(size for size, stride in sizes if stride)
                    self.bytes += stored * tensor.element_size()
        return out


def floor(network: TSM2Network, batch: int, threads: int, rounds: int) -> dict[str, float]:
    """Return the least milliseconds of one step by the kind of limit, and print the rates."""
    config = network.config
    inner = config.expand * config.features
    tokens = batch * config.n_variates * config.n_patches
    scans = config.blocks * (1 + (2 if config.variate_directions == "both" else 1))

    context = torch.randn(batch, config.n_variates, config.lookback)
    with FlopCounterMode(display=False) as flops, Traffic() as traffic:
        network(context).square().mean().backward()
    # What the kernels move does not pass PyTorch. A scan reads u, delta, z, B, C and writes y, then
    # reads them again beside y's gradient to write theirs; a convolution does so with x alone.
    kernel_bytes = ELEMENT * scans * tokens * ((4 + 7 + 5) * inner + 6 * config.d_state)
    weights = sum(weight.numel() for weight in network.parameters())
    adamw_bytes = ELEMENT * 7 * weights  # weight, both moments: read, written; gradient: read
    # The decays, and per inner feature softplus and two silu, in forward and again in backward.
    exponentials = 2 * scans * tokens * inner * (config.d_state + 3)

    rates = measured_rates(tokens * inner, threads, rounds)
    print(
        f"  rates: {rates['product'] / 1e9:.0f} GFLOP/s, copy {rates['copy'] / 1e9:.1f} GB/s "
        f"read and written, {rates['exp'] / 1e9:.2f} Gexp/s"
    )
    moved = traffic.bytes + kernel_bytes + adamw_bytes
    return {
        f"{flops.get_total_flops() / 1e9:.2f} GFLOP of matrix products": 1e3
        * flops.get_total_flops()
        / rates["product"],
        f"{moved / 1e9:.2f} GB of everything else": 1e3 * moved / rates["copy"],
        f"{exponentials / 1e9:.3f} billion exponentials": 1e3 * exponentials / rates["exp"],
    }


def measured_rates(elements: int, threads: int, rounds: int) -> dict[str, float]:
    """Measure flops, bytes and exponentials per second."""
    side, cached, passes = 1024, 4096, 100
    left, right, product = (torch.randn(side, side) for _ in range(3))
    source, copy = torch.randn(elements), torch.empty(elements)
    powers, out = torch.randn(cached), torch.empty(cached)
    exponentials = exponential_loop()
    tasks: dict[str, Task] = {
        "product": lambda: torch.mm(left, right, out=product),
        "copy": lambda: copy.copy_(source),
        "exp": lambda: exponentials(powers, out, passes),
    }
    work = {
        "product": 2 * side**3,
        "copy": 2 * ELEMENT * elements,
        "exp": threads * passes * cached,  # one thread ran, as if all were as fast
    }
    timings = interleave(tasks, rounds=rounds, threads=threads)
    return {name: work[name] / timing.seconds for name, timing in timings.items()}


def exponential_loop() -> Callable[[Tensor, Tensor, int], None]:
    """Make a loop that writes the exponentials of one tensor into another, some times over."""
    if "numba" not in available_backends("cpu"):

        def plain(powers: Tensor, out: Tensor, passes: int) -> None:
            for _ in range(passes):
                torch.exp(powers, out=out)

        return plain

    from numba import njit

    from tsm2.kernels.numba_vectors import VECTOR_BYTES, exp2, load, store

    def loop(powers: int, out: int, stop: int, passes: int) -> None:
        for _ in range(passes):
            for at in range(0, stop, VECTOR_BYTES):
                store(out + at, exp2(load(powers + at)))

    compiled: Any = njit(loop)

    def vectors(powers: Tensor, out: Tensor, passes: int) -> None:
        compiled(powers.data_ptr(), out.data_ptr(), powers.nbytes, passes)

    return vectors


def print_profile(batch: int, variates: int, options: argparse.Namespace) -> None:
    for name in OURS:
        torch.manual_seed(0)
        network = ours(name, variates)
        step = training_step(
            network, torch.randn(batch, variates, LOOKBACK), torch.randn(batch, variates, HORIZON)
        )
        timing = interleave({"step": step}, rounds=options.rounds, threads=options.threads)["step"]
        total = 1e3 * timing.seconds
        print(f"\n{name}, batch {batch}, {variates} variates: a step takes {total:.1f} ms")
        spent = shares(step, options.rounds)
        profiled = sum(spent.values())
        print(f"  by kind of work, {profiled:.1f} ms under the profiler:")
        for kind, each in spent.items():
            print(f"    {kind:34} {each:8.1f} ms  {each / profiled:4.0%}")
        parts = floor(network, batch, options.threads, options.rounds)
        for kind, each in parts.items():
            print(f"    {kind:34} {each:8.1f} ms")
        least = sum(parts.values())
        print(f"    {'floor':34} {least:8.1f} ms: the step takes {total / least:.2f} times that")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--profile", action="store_true", help="divide TSM2's step by kind of work instead"
    )
    parser.add_argument("--no-dropout", action="store_true", help="set the peers' dropout to 0")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warm_up()
    print(f"{hardware(options.threads)}, medians of {options.rounds} rounds")
    print(
        f"Python {platform.python_version()}, {versions('torch', 'numba', 'neuralforecast')}, "
        f"float32, backend {available_backends('cpu')[0]}"
    )
    keep_freed_memory()
    for batch, variates in SIZES:
        if options.profile:
            print_profile(batch, variates, options)
        else:
            print_steps(batch, variates, options)


if __name__ == "__main__":
    main()
