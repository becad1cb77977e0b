"""Fashion-MNIST: ViM2 and a CNN of its size, each with the same minutes of one processor core.

    pip install -c constraints/vision.txt '.[vision-recipes]'
    python benchmarks/fashion_mnist.py --data fashion-mnist --out runs

Runs the recipe `examples/vision/classify.py` with each configuration, one after the other, and
writes a row for each into `results/fashion-mnist.csv`. Test images are looked at after every pass
and choose nothing: the row has the figure after the last one. A run that was killed goes on.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

from timing import commit, processor, versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "fashion-mnist.csv"
CONFIGS = ("fashion-mnist", "fashion-mnist-cnn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the four files")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs")
    options = parser.parse_args()
    rows = []
    for config in CONFIGS:
        run = options.out / config
        recipe = ROOT / "examples" / "vision" / "classify.py"
        subprocess.run(
            [
                *(sys.executable, recipe, config, "--device", "cpu"),
                *("--data", options.data, "--out", run),
            ],
            env=os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
            check=True,
        )
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        rows.append(
            {
                "config": config,
                **{name: result[name] for name in ("model", "parameters", "seed")},
                "minutes": f"{result['seconds'] / 60:.2f}",
                "passes": f"{result['images'] / 60_000:.2f}",
                "accuracy": f"{result['accuracy']:.4f}",
                "threads": 1,
                "machine": processor(),
                "versions": versions("torch", "timm", "numba"),
                "commit": commit(),
                "date": date.today().isoformat(),
            }
        )
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
