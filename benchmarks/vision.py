"""How the time and the peak memory of a ViM2 grow with the number of pixels, on a CPU.

    python benchmarks/vision.py --threads 1

One image of 128 x 128 to 1024 x 1024 pixels: scores of `vim2_tiny` without gradients, and a
training step (forward, loss, backward, AdamW) of `vim2_nano` with patches of 4 pixels. Measured and
fitted as in growth.py, against the number of pixels: 1 is linear growth.
"""

import argparse
from pathlib import Path

import torch
from growth import Axis, measure, write
from step import training_step
from timing import Task

from tsm2.vision import vim2_nano, vim2_tiny

RESULTS = Path(__file__).parent / "results" / "vision.csv"
CLASSES = 10


def scores(side: int) -> Task:
    torch.manual_seed(0)
    model, image = vim2_tiny().eval(), torch.randn(1, 3, side, side)
    return torch.no_grad()(lambda: model(image))


def step(side: int) -> Task:
    torch.manual_seed(0)
    model = vim2_nano(patch_size=4, num_classes=CLASSES)
    return training_step(model, torch.randn(1, 3, side, side), torch.zeros(1, CLASSES))


def pixels(side: int) -> float:
    return float(side * side)


AXES = [
    Axis(work=work, name="side", sizes=(128, 256, 512, 1024), task=task, cost=pixels)
    for work, task in (("vim2_tiny scores", scores), ("vim2_nano training step", step))
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    write(measure(AXES, rounds=options.rounds, threads=options.threads), RESULTS)


if __name__ == "__main__":
    main()
