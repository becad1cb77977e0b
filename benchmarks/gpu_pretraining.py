"""Pretraining on a device, for `gpu.py`: its steps, captured and not, and who draws for them.

1. The steps alone: lessons of one, two and four variates are at hand on the device, and taken in
   turn, captured and not. After as many steps both must have the same weights to the last bit.
2. The drawing alone: what one core of this machine draws and tells, the series in a second.
3. Both together, as `python -m tsm2.pretraining` runs: for some seconds with as many workers as the
   cores allow, with the share of the time in which the device waited for windows.
"""

import argparse
import itertools
import time
from typing import Any, Protocol

import torch
from joblib import cpu_count
from torch import nn

from tsm2.errors import BackendError
from tsm2.networks.config import NetworkConfig
from tsm2.networks.zero import ZeroShotNetwork, zero_shot_config
from tsm2.pretraining import generate
from tsm2.pretraining.lessons import Draw, Lesson, choose_workers, lessons
from tsm2.pretraining.pretrain import PretrainingConfig, default_network, pretrain
from tsm2.pretraining.step import PretrainingStep
from tsm2.training import seeded
from tsm2.training.ema import MovingAverage

__all__ = ["time_pretraining"]

ROWS, TINY_ROWS = 256, 16
VARIATES = (1, 2, 4)
COMPARED = 12  # steps
TURNS = 3


class Report(Protocol):
    """Where rows go."""

    def row(self, section: str, **found: object) -> None:
        """Write one row."""
        ...


def tiny_network() -> NetworkConfig:
    return zero_shot_config(
        lookback=64, horizon=8, features=8, blocks=1, patch_length=16, patch_stride=16,
        quantiles=(0.1, 0.5, 0.9),
    )  # fmt: skip


def begun(sizes: NetworkConfig, device: torch.device, capture: Any) -> PretrainingStep:
    """Return the step of a pretraining that begins."""
    with seeded(0):
        network = ZeroShotNetwork(sizes).to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-3, fused=True, capturable=device.type == "cuda"
    )
    network.train()
    return PretrainingStep(
        network,
        optimizer,
        MovingAverage(network, 0.998),
        device=device,
        gradient_clip=1.0,
        capture=capture,
    )


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([each.detach().flatten().cpu() for each in network.parameters()])


def steps_per_second(step: PretrainingStep, given: list[Lesson], seconds: float) -> float:
    """Return the rate of steps with lessons that are at hand."""
    for lesson in given:  # records, or compiles
        step(lesson, 1e-3).item()
    turns = itertools.cycle(given)
    began, taken = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for lesson in itertools.islice(turns, 10):
            loss = step(lesson, 1e-3)
        loss.item()  # the device is waited for
        taken += 10
    return taken / (time.perf_counter() - began)


def time_pretraining(report: Report, options: argparse.Namespace, ends: float) -> None:
    """Time the steps, the drawing and both together; see the module."""
    sizes = tiny_network() if options.tiny else default_network()
    rows = TINY_ROWS if options.tiny else ROWS
    device = torch.device(options.device)
    seconds = 0.5 if options.tiny else 10.0
    given = [
        each.to(device)
        for variates in VARIATES
        for each in lessons(sizes, Draw((0, variates), variates, rows // variates, 2)).each()
    ]
    report.row(
        "pretraining", rows=rows, weights=weights(begun(sizes, device, False).network).numel()
    )
    report.row("pretraining", one_core=drawn_per_second(sizes, rows), cores=cpu_count())
    captures = (False, True) if device.type == "cuda" else (False,)
    ended = []
    for capture in captures:
        if time.monotonic() > ends:
            report.row("pretraining", ended="out of time")
            return
        try:
            step = begun(sizes, device, capture)
            for lesson in itertools.islice(itertools.cycle(given), COMPARED):
                step(lesson, 1e-3)
            ended.append(weights(step.network))
            rate = steps_per_second(step, given, seconds)
        except (BackendError, RuntimeError) as error:
            report.row("pretraining", captured=capture, failed=" ".join(str(error).split())[:300])
            continue
        right = torch.equal(ended[0], ended[-1])
        report.row(
            "pretraining",
            captured=capture,
            steps_per_s=rate if right else None,
            series_per_s=rate * rows if right else None,
            wrong=None if right else f"{float((ended[0] - ended[-1]).abs().max())} apart",
        )
    for capture in captures:
        if time.monotonic() > ends:
            report.row("pretraining", ended="out of time")
            return
        report.row("pretraining", captured=capture, **together(sizes, options, rows, capture))


def drawn_per_second(sizes: NetworkConfig, rows: int) -> dict[str, float]:
    """Return the series that one core draws in a second, and draws and tells, by the variates."""
    found = {}
    length = sizes.lookback + sizes.horizon
    for variates in VARIATES:
        draw = Draw((1, variates), variates, rows // variates, TURNS)
        windows = draw.windows * draw.lessons
        horizon = {"length": length, "horizon": sizes.horizon}
        generate(0, 8, variates=variates, **horizon)  # compiles
        began = time.process_time()
        generate(1, windows, variates=variates, **horizon)
        found[f"drawn, {variates} variates"] = rows * TURNS / (time.process_time() - began)
        began = time.process_time()
        lessons(sizes, draw)
        found[f"and told, {variates} variates"] = rows * TURNS / (time.process_time() - began)
    return found


def together(
    sizes: NetworkConfig, options: argparse.Namespace, rows: int, capture: bool
) -> dict[str, object]:
    """Pretrain for some seconds; the first report, before which all is compiled, is left out."""
    config = PretrainingConfig(
        steps=40 if options.tiny else None,
        minutes=None if options.tiny else 25.0 / 60,
        batch_rows=rows,
        report_steps=20 if options.tiny else 100,
        device=options.device,
        workers=0 if options.tiny else None,
        capture_steps=capture,
    )
    _, reports = pretrain(config, sizes)
    found: dict[str, object] = {
        "workers": choose_workers(config.workers, torch.device(options.device))
    }
    if len(reports) < 2:
        return found | {"ended": f"after {reports[-1].step} steps, too few to tell a rate"}
    first, last = reports[0], reports[-1]
    rate = (last.step - first.step) / (60 * (last.minutes - first.minutes))
    waited = sum(each.waited for each in reports[1:]) / len(reports[1:])
    return found | {
        "together_steps_per_s": rate,
        "together_series_per_s": rate * rows,
        "waited": waited,
    }
