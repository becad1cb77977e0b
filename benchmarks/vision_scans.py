"""What sharing saves: a ViM2 whose mixers scan as one, beside the same with its scans one by one.

    python benchmarks/vision_scans.py

Images a second of one training step (forward and backward) and of prediction, with the same
weights: as the model is ("together"), with `cross_scan` replaced by the scans one by one
("one by one"), for several numbers of states. Interleaved medians; outputs and gradients of both
ways are compared first, and where they disagree there is no figure.
"""

import argparse
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import torch
from timing import Task, hardware, interleave, keep_freed_memory
from torch import Tensor, nn

from tsm2.kernels import ScanWeights, selective_scan, selective_ssm, warm_up
from tsm2.networks import mixers
from tsm2.vision import create_vim2

MODELS = {"vim2_nano": (16, 32), "vim2_tiny": (2, 224)}  # images in a batch, their pixels
STATES = (16, 4, 1)
TOGETHER = mixers.cross_scan


def one_by_one(
    x: Tensor,
    scans: Sequence[ScanWeights],
    *,
    axes: Sequence[Sequence[int]],
    reverse: Sequence[bool],
    backend: str,
) -> Tensor:
    """Select and scan for each walk, as mixers did before, and add the outputs."""
    outputs = []
    for scan, along, backwards in zip(scans, axes, reverse, strict=True):
        order: Any = {"axes": along, "reverse": backwards, "backend": backend}
        if scan.conv_weight is not None:
            outputs.append(selective_ssm(*scan.ssm(x), **order))
        else:
            selected = nn.functional.linear(x, scan.select_weight)
            outputs.append(selective_scan(*scan.reads(x, selected), **order))
    return reduce(torch.add, outputs)


def run(model: nn.Module, images: Tensor, way: Any, *, train: bool) -> list[Tensor]:
    mixers.cross_scan = way
    try:
        if not train:
            with torch.no_grad():
                return [model(images)]
        out = model(images)
        return [out, *torch.autograd.grad(out.square().sum(), list(model.parameters()))]
    finally:
        mixers.cross_scan = TOGETHER


def tasks_of(name: str, states: int) -> dict[str, Task]:
    batch, pixels = MODELS[name]
    torch.manual_seed(0)
    model = create_vim2(name, num_classes=10, d_state=states, zero_start=False)
    images = torch.randn(batch, 3, pixels, pixels)
    pairs = zip(
        *(run(model, images, way, train=True) for way in (TOGETHER, one_by_one)), strict=True
    )
    for got, wanted in pairs:
        limit = 1e-3 * float(wanted.detach().abs().max()) + 1e-5  # some cancel to nothing
        torch.testing.assert_close(got, wanted, rtol=0, atol=limit)
    return {
        f"{what}, {how}": partial(run, model, images, way, train=what == "train")
        for what in ("train", "predict")
        for how, way in (("together", TOGETHER), ("one by one", one_by_one))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    warm_up()
    print(
        f"{hardware(options.threads)}, medians of {options.rounds} rounds, "
        f"torch {torch.__version__}; images a second"
    )
    for name in options.models:
        for states in STATES:
            tasks = tasks_of(name, states)
            found = interleave(tasks, rounds=options.rounds, threads=options.threads)
            rate = {task: MODELS[name][0] / timing.seconds for task, timing in found.items()}
            for what in ("train", "predict"):
                new, old = rate[f"{what}, together"], rate[f"{what}, one by one"]
                print(
                    f"{name} {states:2} states {what:8} together {new:7.2f}, "
                    f"one by one {old:7.2f}, {new / old:.2f} times",
                    flush=True,
                )


if __name__ == "__main__":
    main()
