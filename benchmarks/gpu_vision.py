"""ViM2 on a GPU: the sections on images of `gpu.py`.

1. vim2: images a second in training and prediction and the memory of training, bf16, a batch of 64
   images of 224 x 224 pixels, beside Swin and ConvNeXt of timm where it is importable. Steps and
   predictions are taken one operation at a time and, on CUDA, replayed as one graph each.
2. cifar10: vim2_nano learns CIFAR-10 for the time that is left, by the steps of the recipes, and
   its test accuracy after each pass.

    python benchmarks/gpu_vision.py --device cpu --tiny       # runs to its end anywhere

A model whose outputs differ from the reference's, whose outputs or gradients are not finite, or
whose replayed steps do not lead where the others do, gets no figure.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tsm2.training.capture import CUDAGraphs
from tsm2.training.recording import Replayed
from tsm2.vision import ViM2, ViM2Config, create_vim2

sys.path.append(str(Path(__file__).parents[1] / "examples" / "vision"))
from captured import CapturedStep, recorder_for

RIVALS = ("swin_tiny_patch4_window7_224", "convnext_tiny")
TINY = {"dims": (16, 32), "blocks": (1, 1), "channel_expand": (2, 1), "patch_size": 4}
STATES = (16, 4, 1)
LIMIT = 0.05
"""Largest difference from the reference in bfloat16, relative to the largest output."""
APART = 0.02
"""Largest difference between the losses of replayed steps and of others, relative to the loss:
cuDNN adds up in another order from call to call."""


class Report(Protocol):
    """Where rows go, as in `gpu.py`."""

    def row(self, section: str, **found: object) -> None:
        """Write one row."""
        ...


class Printed:
    """Rows on the screen alone."""

    def row(self, section: str, **found: object) -> None:
        """Print one row."""
        print(json.dumps({"section": section} | found), flush=True)


# --- speed ----------------------------------------------------------------------------------------


def models(device: str, tiny: bool) -> dict[str, Callable[[], nn.Module]]:
    """Return what is measured, most important first: functions that build a model."""

    def vim2(**settings: Any) -> Callable[[], nn.Module]:
        sizes: Any = TINY if tiny else {}
        return lambda: create_vim2("vim2_tiny", **sizes, **settings, zero_start=False)

    made: dict[str, Callable[[], nn.Module]] = {"vim2_tiny": vim2()}
    if not tiny:
        made |= rivals()
    default = ViM2Config().d_state
    return made | {f"vim2_tiny, {n} states": vim2(d_state=n) for n in STATES if n != default}


def rivals() -> dict[str, Callable[[], nn.Module]]:
    """Return functions that build timm's models; none where it cannot be imported."""
    try:
        import timm
    except (ImportError, RuntimeError):  # a torchvision that does not fit raises the second
        return {}
    return {name: partial(timm.create_model, name) for name in RIVALS}


def wrong(model: nn.Module, device: str) -> str | None:
    """Say what is wrong with a model's outputs or gradients, or None.

    A ViM2 is compared with the same weights on the CPU, on the backend that defines the results.
    """
    size = 32 if "cpu" in device else 64  # no weight depends on it, and the CPU is slow
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with autocast(device):
        out = model(images.to(device)).float()
    if not bool(out.isfinite().all()):
        return "outputs are not finite"
    gradients = torch.autograd.grad(out.square().mean(), list(model.parameters()))
    if not all(bool(each.isfinite().all()) for each in gradients):
        return "gradients are not finite"
    config = getattr(model, "config", None)
    if not isinstance(config, ViM2Config):
        return None
    exact = ViM2(replace(config, backend="torch")).double()
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        wanted = exact(images.double())
    error = float((out.detach().cpu().double() - wanted).abs().max() / wanted.abs().max())
    return None if error < LIMIT else f"differs from the CPU in float64 by {error:.2g}"


def autocast(device: str) -> torch.autocast:
    return torch.autocast(device, dtype=torch.bfloat16)


def per_second(task: Callable[[], object], batch: int, device: str, rounds: int) -> float:
    """Return images a second, the device waited for."""
    wait: Any = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(min(3, rounds)):
        task()
    wait()
    began = time.perf_counter()
    for _ in range(rounds):
        task()
    wait()
    return batch * rounds / (time.perf_counter() - began)


def step_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: str,
    *,
    captured: bool,
    smoothing: float = 0.0,
    clip: float | None = None,
) -> Callable[[Sequence[Tensor]], Tensor]:
    """Return a training step, from images and labels to the loss, as the recipes take it."""

    def gradients(batch: Sequence[Tensor]) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device):
            scores = model(batch[0])
            loss = functional.cross_entropy(scores, batch[1], label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        return loss

    def take(batch: Sequence[Tensor]) -> Tensor:
        loss = gradients(batch)
        optimizer.step()
        return loss.detach()

    if not captured:
        return take
    where = torch.device(device)
    recorder = recorder_for(where, optimizer, processes=1, obstacle=None, asked=True)
    return CapturedStep(gradients, model, optimizer, recorder, where, required=True)


def measure(
    build: Callable[[], nn.Module], device: str, tiny: bool, rounds: int
) -> dict[str, object]:
    """Return images a second in training and prediction, and the memory of training in GB."""
    batch, size = (2, 32) if tiny else (64, 224)
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=draw).to(device)
    labels = torch.randint(10, (batch,), generator=draw).to(device)
    found: dict[str, object] = {"batch": batch, "pixels": size, "dtype": "bfloat16"}
    losses: list[float] = []
    for captured in (False, True) if device == "cuda" else (False,):
        named = "_replayed" if captured else ""
        torch.manual_seed(0)
        model = build().to(device).train()
        step = step_of(
            model, torch.optim.AdamW(model.parameters(), lr=1e-4), device, captured=captured
        )
        given = [images, labels]
        losses.append([float(step(given)) for _ in range(5)][-1])
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        found[f"train{named}"] = per_second(partial(step, given), batch, device, rounds)
        if device == "cuda":
            found[f"gigabytes{named}"] = torch.cuda.max_memory_allocated() / 1e9
        model.eval()

        def predict(images: Tensor, model: nn.Module = model) -> Tensor:
            with torch.no_grad(), autocast(device):
                scores: Tensor = model(images)
            return scores

        forward: Callable[[Tensor], Tensor] = predict
        if captured:
            graphs = CUDAGraphs(torch.device(device))
            forward = Replayed(
                predict, graphs, graphs.device, what="predictions", after=0, required=True
            )
        found[f"predict{named}"] = per_second(partial(forward, images), batch, device, rounds)
    if not max(losses) - min(losses) <= APART * max(losses):  # not for NaN either
        return {"refused": f"losses after five steps, as they are and replayed: {losses}"}
    return found


def time_vim2(report: Report, options: argparse.Namespace, ends: float) -> None:
    """Measure every model until the time is over."""
    for name, build in models(options.device, options.tiny).items():
        if time.monotonic() > ends:
            report.row("vim2", ended="out of time")
            return
        torch.manual_seed(0)
        model = build().to(options.device).train()
        refused = wrong(model, options.device)
        if refused is not None:
            report.row("vim2", model=name, refused=refused)
            continue
        parameters = sum(each.numel() for each in model.parameters())
        del model
        rounds = 2 if options.tiny else options.rounds
        found = measure(build, options.device, options.tiny, rounds)
        report.row("vim2", model=name, parameters=parameters, **found)


# --- CIFAR-10 -------------------------------------------------------------------------------------


def cifar10(folder: Path | None, tiny: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read the python version of CIFAR-10, or draw noise of its sizes for a tiny run."""
    if tiny or folder is None:
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(256, (96, 3, 32, 32), generator=draw, dtype=torch.uint8)
        labels = torch.randint(10, (96,), generator=draw)
        return images[:64], labels[:64], images[64:], labels[64:]
    import pickle  # the published format

    def part(name: str) -> tuple[Tensor, Tensor]:
        held = pickle.loads((folder / name).read_bytes(), encoding="latin1")
        return torch.tensor(np.asarray(held["data"])).view(-1, 3, 32, 32), torch.tensor(
            held["labels"]
        )

    parts = [part(f"data_batch_{number}") for number in range(1, 6)]
    return (torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), *part("test_batch"))


def changed(images: Tensor) -> Tensor:
    """Shift a batch by up to four pixels, mirror half of it and hide a square of each image."""
    padded = functional.pad(images, (4, 4, 4, 4), mode="reflect")
    down, right = torch.randint(0, 9, (2,)).tolist()
    images = padded[:, :, down : down + 32, right : right + 32]
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    images = torch.where(mirrored, images.flip(3), images)
    top, left = torch.randint(0, 25, (2, len(images), 1, 1, 1), device=images.device)
    place = torch.arange(32, device=images.device)
    rows, columns = place.view(-1, 1) - top, place - left
    return images.masked_fill((rows >= 0) & (rows < 8) & (columns >= 0) & (columns < 8), 0.0)


def learn_cifar10(report: Report, options: argparse.Namespace, ends: float) -> None:
    """Train for the time that is left; the learning rate falls with the clock."""
    device, tiny = options.device, options.tiny
    folder = getattr(options, "cifar10", None)
    if folder is None and not tiny:
        report.row("cifar10", skipped="pass --cifar10 with the folder cifar-10-batches-py")
        return
    data = [each.to(device) for each in cifar10(folder, tiny)]
    train, labels, test, test_labels = data
    mean = torch.tensor([0.491, 0.482, 0.447], device=device).view(3, 1, 1)
    deviation = torch.tensor([0.247, 0.243, 0.262], device=device).view(3, 1, 1)

    def scaled(images: Tensor) -> Tensor:
        return (images.float() / 255 - mean) / deviation

    torch.manual_seed(0)
    sizes: Any = TINY | {"patch_size": 8} if tiny else {"drop_path_rate": 0.1}
    model = create_vim2("vim2_nano", num_classes=10, **sizes).to(device).train()
    apart = model.no_weight_decay()
    decayed = {n: p for n, p in model.named_parameters() if p.ndim > 1 and n not in apart}
    groups: list[dict[str, Any]] = [
        {"params": list(decayed.values()), "weight_decay": 0.05},
        {"params": [p for n, p in model.named_parameters() if n not in decayed], "weight_decay": 0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0)
    captured = device == "cuda"
    step = step_of(model, optimizer, device, captured=captured, smoothing=0.1, clip=1.0)
    batch, began, number, seen = 256, time.monotonic(), 0, 0
    while number == 0 or (time.monotonic() < ends and not tiny):
        whole = max(1, len(train) // batch)  # a shorter batch would be recorded for itself
        for rows in torch.split(torch.randperm(len(train), device=device), batch)[:whole]:
            share = min(1.0, (time.monotonic() - began) / max(1e-9, ends - began))
            rate = 2e-3 * min(1.0, share / 0.05) * (1 - share) + 1e-6
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = step([changed(scaled(train[rows])), labels[rows]])
            seen += len(rows)
            if share >= 1:
                break
        number += 1
        seconds = time.monotonic() - began
        if not bool(loss.isfinite()):
            report.row("cifar10", refused="the loss is not finite", passes=number)
            return
        model.eval()
        with torch.no_grad(), autocast(device):
            guesses = torch.cat([model(scaled(part)).argmax(1) for part in torch.split(test, 500)])
        model.train()
        report.row(
            "cifar10",
            passes=number,
            seconds=seconds,
            train=seen / seconds,
            accuracy=float((guesses == test_labels).float().mean()),
            noise=folder is None,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="sizes that take a second each")
    parser.add_argument("--seconds", type=float, default=540, help="for both sections together")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--cifar10", type=Path, help="folder cifar-10-batches-py")
    options = parser.parse_args()
    began = time.monotonic()
    time_vim2(Printed(), options, began + 0.3 * options.seconds)
    learn_cifar10(Printed(), options, began + options.seconds)


if __name__ == "__main__":
    main()
