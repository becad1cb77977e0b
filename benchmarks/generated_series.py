"""Whether generated series are as different from each other as real ones: numbers and a picture.

    python benchmarks/generated_series.py DATA --plot docs/images/generated.png

Prints the 10th, 50th and 90th percentile of the strength of trend and season and of the spectral
entropy, of the tables of `zero_tasks.py` and of generated windows, and how fast these are drawn.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from zero_tasks import CHOICES, READ_ONCE, tasks

from tsm2.pretraining import generate
from tsm2.pretraining.characteristics import NAMES, characteristics


def real(folder: Path) -> np.ndarray:
    """Return the characteristics of all histories that hold three seasons, (N, 3)."""
    found = []
    for task in tasks(CHOICES + READ_ONCE, folder):
        rows = [each for each in task.histories if len(each) >= max(3 * task.season, 24)]
        chosen = rows[:: max(1, len(rows) // 100)]
        found += [characteristics(row[None], task.season) for row in chosen]
    return np.concatenate(found)


def generated(count: int) -> np.ndarray:
    """Return the characteristics of generated windows of 512 steps, (N, 3)."""
    windows = generate(0, count)
    found = []
    for season in np.unique(windows.seasons):
        rows = windows.values[windows.seasons == season, 0, :512]
        found.append(characteristics(rows, max(1, int(season))))
    return np.concatenate(found)


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    sets = {"real tables": real(given.data), "generated": generated(4096)}
    for name, values in sets.items():
        for k, what in enumerate(NAMES):
            quantiles = np.quantile(values[:, k], (0.1, 0.5, 0.9)).round(2).tolist()
            print(f"{name:12} {what:8} {quantiles}")
    for variates, count in ((1, 2048), (4, 512)):
        began = time.process_time()
        for seed in range(5):
            generate(seed, count, variates=variates)
        rate = 5 * count * variates / (time.process_time() - began)
        print(f"variates={variates}: {rate:.0f} series of 576 steps in a second of one core")
    if given.plot is not None:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
        for k, ax in enumerate(axes):
            for name, values in sets.items():
                ax.hist(values[:, k], bins=25, range=(0, 1), density=True, alpha=0.55, label=name)
            ax.set_xlabel(("strength of trend", "strength of season", "spectral entropy")[k])
            ax.set_yticks([])
        axes[0].legend(frameon=False)
        figure.savefig(given.plot, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
