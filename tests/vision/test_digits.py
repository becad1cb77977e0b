"""A ViM2 of under 100,000 parameters learns scikit-learn's digits in a minute on a CPU."""

from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

from tsm2.vision import ViM2, ViM2Config

EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 30, 64, 8e-3, 0.05
CONFIG = ViM2Config(
    in_chans=1,
    num_classes=10,
    patch_size=2,
    dims=(24, 48),
    blocks=(1, 1),
    channel_expand=(2, 1),
    channel_group=8,
    d_state=8,
)


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split 1,797 images of 8 x 8 pixels, scaled to [-1, 1], four to one."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    train, test = train_test_split(
        range(len(labels)), test_size=0.2, stratify=labels, random_state=0
    )
    targets = torch.tensor(labels)
    return images[train], targets[train], images[test], targets[test]


def train(images: Tensor, targets: Tensor) -> ViM2:
    """Fit with AdamW, one cycle of the learning rate, and shifts by a pixel."""
    model = ViM2(CONFIG).train()
    apart = model.no_weight_decay()
    decayed = {n: p for n, p in model.named_parameters() if p.ndim > 1 and n not in apart}
    others = [p for n, p in model.named_parameters() if n not in decayed]
    groups: list[dict[str, Any]] = [
        {"params": list(decayed.values()), "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    batches = -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=EPOCHS * batches
    )
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(images)), BATCH):
            down, right = torch.randint(-1, 2, (2,)).tolist()
            shifted = torch.roll(images[rows], (down, right), (2, 3))
            loss = functional.cross_entropy(model(shifted), targets[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


@pytest.mark.slow
def test_a_small_model_reads_98_of_100_digits() -> None:
    images, targets, test_images, test_targets = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = train(images, targets)
    with torch.no_grad():
        right = model(test_images).argmax(1) == test_targets
    assert sum(parameter.numel() for parameter in model.parameters()) <= 100_000
    assert float(right.float().mean()) >= 0.98
