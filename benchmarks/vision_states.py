"""States per scan of a ViM2: what 16, 4 and 1 of them cost and give, on two sets of small images.

    python benchmarks/vision_states.py --data fashion-mnist

scikit-learn's digits, a fifth of them held out, and the first 8,000 training images of
Fashion-MNIST with its 10,000 test images. Each is learnt by a small ViM2 with every number of
states and two seeds, one seed after the other; all else is the same: passes, batches, one cycle of
the learning rate, shifts by a pixel (and mirrored clothes). Test images are looked at once, after
the last pass, and train nothing. Seconds are of one processor core. A row goes to
`results/vision_states.csv` as soon as it is measured, and what has one is not run again.
"""

import argparse
import csv
import gzip
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from timing import commit, processor, versions
from torch import Tensor
from torch.nn import functional

from tsm2.vision import VARIANTS, ViM2, ViM2Config, create_vim2

RESULTS = Path(__file__).parent / "results" / "vision_states.csv"
STATES, SEEDS = (16, 4, 1), (0, 1)
TRAINED_ON = 8_000  # images of Fashion-MNIST


@dataclass(frozen=True, kw_only=True)
class Images:
    """Grey images, (n, 1, height, width), scaled to about [-1, 1], and how they are learnt."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    patch_size: int
    passes: int
    mirrored: bool
    batch: int = 64
    learning_rate: float = 3e-3


def digits() -> Images:
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    rows = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    targets = torch.tensor(labels)
    return Images(
        train=images[rows[0]],
        train_labels=targets[rows[0]],
        test=images[rows[1]],
        test_labels=targets[rows[1]],
        patch_size=1,
        passes=20,
        mirrored=False,
    )


def fashion_mnist(folder: Path) -> Images:
    def read(name: str, header: int, limit: int) -> Tensor:
        values = np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, -1, header)
        values = values.reshape(10_000 if name.startswith("t10k") else 60_000, -1)
        return torch.tensor(values[:limit])

    def images(name: str, limit: int) -> Tensor:
        pixels = read(f"{name}-images-idx3-ubyte.gz", 16, limit)
        return pixels.float().reshape(-1, 1, 28, 28) / 127.5 - 1

    def labels(name: str, limit: int) -> Tensor:
        return read(f"{name}-labels-idx1-ubyte.gz", 8, limit).long().flatten()

    return Images(
        train=images("train", TRAINED_ON),
        train_labels=labels("train", TRAINED_ON),
        test=images("t10k", 10_000),
        test_labels=labels("t10k", 10_000),
        patch_size=2,
        passes=5,
        mirrored=True,
    )


def config_of(images: Images, d_state: int) -> ViM2Config:
    return ViM2Config(
        in_chans=1,
        num_classes=10,
        patch_size=images.patch_size,
        dims=(32, 64),
        blocks=(1, 1),
        channel_expand=(2, 1),
        d_state=d_state,
    )


def trained(images: Images, d_state: int, seed: int) -> tuple[ViM2, float]:
    """Fit with AdamW; return the model and the seconds of one core that its steps took."""
    torch.manual_seed(seed)
    model = ViM2(config_of(images, d_state)).train()
    apart = model.no_weight_decay()
    decayed = {n: p for n, p in model.named_parameters() if p.ndim > 1 and n not in apart}
    others = [p for n, p in model.named_parameters() if n not in decayed]
    groups: list[dict[str, Any]] = [
        {"params": list(decayed.values()), "weight_decay": 0.05},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=images.learning_rate)
    steps = images.passes * -(-len(images.train) // images.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, images.learning_rate, total_steps=steps
    )
    began = time.thread_time()
    for _ in range(images.passes):
        for rows in torch.split(torch.randperm(len(images.train)), images.batch):
            down, right = torch.randint(-1, 2, (2,)).tolist()
            shifted = torch.roll(images.train[rows], (down, right), (2, 3))
            if images.mirrored and torch.rand(()) < 0.5:
                shifted = shifted.flip(3)
            loss = functional.cross_entropy(
                model(shifted), images.train_labels[rows], label_smoothing=0.1
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval(), time.thread_time() - began


def accuracy(model: ViM2, images: Images) -> float:
    with torch.no_grad():
        scores = torch.cat([model(part) for part in torch.split(images.test, 250)])
    return float((scores.argmax(1) == images.test_labels).float().mean())


def parameters(model: torch.nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of Fashion-MNIST's files")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in VARIANTS:
        counts = (
            f"{parameters(create_vim2(name, d_state=n, device='meta')) / 1e6:.2f} million with {n}"
            for n in STATES
        )
        print(f"{name}: {', '.join(counts)} states")
    done = set()
    if options.out.exists():
        with options.out.open(newline="") as file:
            done = {(row["data"], row["d_state"], row["seed"]) for row in csv.DictReader(file)}
    for name, images in (("digits", digits()), ("fashion-mnist", fashion_mnist(options.data))):
        for seed in SEEDS:
            for d_state in STATES:
                if (name, str(d_state), str(seed)) in done:
                    continue
                model, seconds = trained(images, d_state, seed)
                row = {
                    "data": name,
                    "d_state": d_state,
                    "seed": seed,
                    "parameters": parameters(model),
                    "accuracy": f"{accuracy(model, images):.4f}",
                    "seconds": f"{seconds:.0f}",
                    "passes": images.passes,
                    "images": len(images.train),
                    "patch_size": images.patch_size,
                    "threads": 1,
                    "machine": processor(),
                    "versions": versions("torch", "numba"),
                    "commit": commit(),
                    "date": date.today().isoformat(),
                }
                print(row, flush=True)
                new = not options.out.exists()
                with options.out.open("a", newline="") as file:
                    writer = csv.DictWriter(file, list(row), lineterminator="\n")
                    if new:
                        writer.writeheader()
                    writer.writerow(row)


if __name__ == "__main__":
    main()
