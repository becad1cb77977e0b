"""How a training step of TSM2 grows with the lookback and with the number of variates.

    python benchmarks/growth.py --threads 1

Prints and writes the median time of forward and backward for each size, all sizes interleaved in
one process, and the exponent fitted to them in double logarithms: 1 is linear growth. Times are
given as ratios to the smallest size, because the machine's speed is not the point.
"""

import argparse
import csv
import platform
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tsm2 import kernels
from tsm2.networks import NetworkConfig, TSM2Network

RESULTS = Path(__file__).parent / "results" / "growth.csv"
LOOKBACKS = (512, 1024, 2048, 4096, 8192)
VARIATES = (7, 21, 63, 189, 567)
BATCH, HORIZON, ROUNDS = 4, 96, 7


def step(network: TSM2Network, context: Tensor) -> float:
    """Return the seconds of one forward and backward pass."""
    start = time.perf_counter()
    network(context).square().mean().backward()
    return time.perf_counter() - start


def measure(sizes: list[tuple[int, int]]) -> list[float]:
    """Return the median seconds for each (lookback, variates)."""
    pairs = []
    for lookback, n_variates in sizes:
        config = NetworkConfig(
            lookback=lookback, horizon=HORIZON, n_variates=n_variates, features=32, blocks=2
        )
        pairs.append((TSM2Network(config), torch.randn(BATCH, n_variates, lookback)))
    for pair in pairs:
        step(*pair)
    seconds = np.array([[step(*pair) for pair in pairs] for _ in range(ROUNDS)])
    return list(np.median(seconds, axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    kernels.warm_up()
    rows = []
    for name, sizes in (
        ("lookback", [(lookback, 7) for lookback in LOOKBACKS]),
        ("variates", [(512, n_variates) for n_variates in VARIATES]),
    ):
        seconds = measure(sizes)
        axis = [max(size) if name == "lookback" else size[1] for size in sizes]
        exponent = float(np.polyfit(np.log(axis), np.log(seconds), 1)[0])
        print(f"time of a step grows with {name} to the power {exponent:.2f}")
        for size, each in zip(axis, seconds, strict=True):
            print(f"  {size:>5}  {each / seconds[0]:7.2f} x")
            rows.append(
                {
                    "axis": name,
                    "size": size,
                    "ratio_to_smallest": f"{each / seconds[0]:.3f}",
                    "milliseconds": f"{1e3 * each:.1f}",
                    "fitted_exponent": f"{exponent:.3f}",
                    "backend": kernels.available_backends("cpu")[0],
                    "threads": torch.get_num_threads(),
                    "machine": platform.processor() or platform.machine(),
                    "torch": torch.__version__,
                }
            )
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
