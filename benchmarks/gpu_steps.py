"""Training steps and fits on a device, for `gpu.py`: captured and not, beside published networks.

A step is the one of a fit (`tsm2.training.step`): windows gathered, forward, backward, with SAM a
second time, clipping, AdamW and the loss sum. Before it is timed, twelve captured steps must leave
the weights of twelve uncaptured ones to the last bit, and a step on a CPU must leave nearly the
same; who does not gets no speed. The published networks' code is neuralforecast's; their step is
forward, backward and AdamW, and is captured by the same means.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import step as on_a_cpu
import torch
from torch import nn
from torch.nn import functional

from tsm2.benchmark.models import Setup, build
from tsm2.benchmark.protocol import load_table, measure_errors
from tsm2.errors import TSM2Error
from tsm2.networks import NetworkConfig, TSM2Network
from tsm2.prepared.windows import Windows
from tsm2.training import TrainingConfig
from tsm2.training.capture import CUDAGraphs, Recorder
from tsm2.training.fit import Fit
from tsm2.training.loop import _accelerator, seeded

__all__ = ["time_fits", "time_peers", "time_steps"]

NETWORKS: dict[str, dict[str, Any]] = {
    "default": {},
    "32 features, 2 blocks": {"features": 32, "blocks": 2},
    "64 features, 3 blocks": {"features": 64, "blocks": 3},
}
PEERS = ("PatchTST", "iTransformer")
SAM_RADIUS = 0.35
CLOSE = 1e-3
"""Largest difference between the weights that a step leaves on a device and on a CPU, relative to
how far the largest moved: float32's rounding, and AdamW's first step, which divides by it."""
KNOWN_MSE = {"ETTh1": 0.38}
"""Test error that a fit of a table must stay below, H=96, or its time says nothing."""
Timer = Callable[[Callable[[], object]], float]


class Report(Protocol):
    """Where rows go."""

    def row(self, section: str, **found: object) -> None:
        """Write one row."""
        ...


def config_of(device: str, batch: int, radius: float) -> TrainingConfig:
    return TrainingConfig(
        max_epochs=1000,
        batch_size=batch,
        learning_rate=1e-4,
        mixer_learning_rate=1e-4,
        weight_decay=0.0,
        sam_radius=radius,
        gradient_clip=1.0,
        schedule="constant",
        loss="mse",
        patience=1000,
        device=device,  # type: ignore[arg-type]
        precision="float32",
        verbose=0,
    )


def begun(network: NetworkConfig, config: TrainingConfig, recorder: Recorder | None) -> Fit:
    """Return a fit at its start."""
    with seeded(0):
        made = TSM2Network(network)
        rows = 8 * config.batch_size + network.lookback + network.horizon
        values = torch.randn(rows, network.n_variates)
    windows = Windows(values=values, lookback=network.lookback, horizon=network.horizon)
    return Fit(made, windows, None, config, 0, _accelerator(config.device, None), recorder)


def weights_after(fit: Fit, steps: int) -> torch.Tensor:
    which = torch.arange(fit.config.batch_size, device=fit.train.values.device)
    for number in range(steps):
        fit.take_step(which + number)
    return torch.cat([each.detach().flatten().cpu() for each in fit.network.parameters()])


def wrong(network: NetworkConfig, config: TrainingConfig) -> str | None:
    """Say what is wrong with the steps of a network on this device, or None."""
    plain = replace(network, dropout=0.0)  # drawn otherwise on every device
    small = replace(config, batch_size=min(8, config.batch_size))
    with seeded(0):
        start = TSM2Network(plain)
    before = torch.cat([each.detach().flatten() for each in start.parameters()])
    here = weights_after(begun(plain, replace(small, device="cpu"), None), 1)
    there = weights_after(begun(plain, small, None), 1)
    # Nearly all: a gradient near zero has an unsure sign, and AdamW's first step is its sign.
    apart = (here - there).abs() / (here - before).abs().max()
    if not float((apart < CLOSE).float().mean()) > 0.98:
        return f"a step moves {float((apart >= CLOSE).float().mean()):.1%} of the weights elsewhere"
    if config.device == "cuda":
        taken = weights_after(begun(network, small, None), 12)
        replayed = weights_after(begun(network, small, CUDAGraphs(torch.device("cuda"))), 12)
        if not torch.equal(taken, replayed):
            return f"captured steps differ by {float((taken - replayed).abs().max())}"
    return None


def time_steps(report: Report, options: argparse.Namespace, timed: Timer, ends: float) -> None:
    """Time steps of networks of several sizes and numbers of variates."""
    lookback, horizon = (96, 24) if options.tiny else (512, 96)
    for variates, name, radius in itertools.product(
        (3,) if options.tiny else (7, 21, 321, 862), NETWORKS, (0.0, SAM_RADIUS)
    ):
        if time.monotonic() > ends:
            report.row("step", ended="out of time")
            return
        batch = 4 if options.tiny else 64 if variates <= 21 else 16
        network = NetworkConfig(
            lookback=lookback, horizon=horizon, n_variates=variates, **NETWORKS[name]
        )
        config = config_of(options.device, batch, radius)
        named: dict[str, object] = {"network": name, "variates": variates, "batch": batch}
        named["sam"] = radius > 0
        try:
            obstacle = wrong(network, config)
            if obstacle is not None:
                report.row("step", **named, wrong=obstacle)
                continue
            found = {"uncaptured": timed_steps(begun(network, config, None), timed)}
            if options.device == "cuda":
                recorder = CUDAGraphs(torch.device("cuda"))
                found["captured"] = timed_steps(begun(network, config, recorder), timed)
        except RuntimeError as error:  # such as too little memory
            report.row("step", **named, failed=" ".join(str(error).split())[:300])
            continue
        report.row("step", **named, milliseconds=found)


def timed_steps(fit: Fit, timed: Timer) -> float:
    """Return the milliseconds of a step, each with other windows."""
    batches = itertools.cycle(fit.train.batches(fit.config.batch_size))
    whole = (which for which in batches if len(which) == fit.config.batch_size)
    return timed(lambda: fit.take_step(next(whole)))


def time_peers(
    report: Report,
    options: argparse.Namespace,
    timed: Timer,
    replayed: Callable[[Callable[[], object]], Callable[[], object]],
    ends: float,
) -> None:
    """Time steps of published networks, where neuralforecast is installed."""
    lookback, horizon = on_a_cpu.LOOKBACK, on_a_cpu.HORIZON
    for name, variates in itertools.product(PEERS, (3,) if options.tiny else (7, 21, 321, 862)):
        if time.monotonic() > ends:
            report.row("peers", ended="out of time")
            return
        batch = 4 if options.tiny else 64 if variates <= 21 else 16
        named: dict[str, object] = {"network": name, "variates": variates, "batch": batch}
        try:
            network: nn.Module = on_a_cpu.peer(name, variates, dropout=True).to(options.device)
        except ImportError as error:
            report.row("peers", network=name, missing=str(error))
            continue
        context = torch.randn(batch, variates, lookback, device=options.device)
        target = torch.randn(batch, variates, horizon, device=options.device)
        alone = name == "PatchTST"  # every variate of a window is a series
        given = context.reshape(-1, lookback, 1) if alone else context.mT.contiguous()
        wanted = target.reshape(-1, horizon, 1) if alone else target.mT.contiguous()
        on_cuda = options.device == "cuda"
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True, capturable=on_cuda)

        def take(
            network: Any = network, optimizer: Any = optimizer, given: Any = given, y: Any = wanted
        ) -> None:
            optimizer.zero_grad(set_to_none=True)
            functional.mse_loss(network({"insample_y": given}), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        try:
            found = {"uncaptured": timed(take)}
            if on_cuda:
                found["captured"] = timed(replayed(take))
        except RuntimeError as error:
            report.row("peers", **named, failed=" ".join(str(error).split())[:300])
            continue
        report.row("peers", **named, milliseconds=found)


def time_fits(report: Report, options: argparse.Namespace, ends: float) -> None:
    """Time fits of ETTh1, or at tiny size of the generated sample, with their test errors."""
    name = "sample" if options.tiny else "ETTh1"
    lookback, horizon = (48, 24) if options.tiny else (512, 96)
    try:
        table = load_table(name)
    except TSM2Error as error:
        report.row("fit", missing=str(error))
        return
    short: dict[str, Any] = {"max_epochs": 1, "epoch_steps": 3} if options.tiny else {}
    errors = []
    taken = 0.0
    for captured, start in itertools.product(("auto", False), ("random", "exact")):
        if captured is False and options.device != "cuda":
            continue
        # Uncaptured fits take some ten times as long.
        if time.monotonic() + (10 * taken if captured is False else 0) > ends:
            report.row("fit", ended="out of time")
            return
        given = short | {"linear_start": start, "level": "mean", "capture_steps": captured}
        model: Any = build(
            "TSM2",
            Setup(
                lookback=lookback,
                horizon=horizon,
                season=table.season,
                device=options.device,
                parameters=given,
            ),
        )
        began = time.perf_counter()
        rows = table.values[: table.split.validation_end]
        model.fit(rows, table.split.train_end)
        taken = time.perf_counter() - began
        mse = measure_errors(model, table, lookback=lookback, horizon=horizon).mse
        errors.append((start, mse))
        same = len({each for known, each in errors if known == start}) == 1
        limit = KNOWN_MSE.get(name, math.inf)
        right = mse < limit and same
        report.row(
            "fit",
            table=name,
            start=start,
            capture_steps=captured,
            epochs=model.estimator.n_iter_,
            mse=mse,
            seconds=taken if right else None,
            wrong=None if right else f"below {limit} expected, captured or not the same: {errors}",
        )
