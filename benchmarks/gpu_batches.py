"""Validation and forecasts on a device, for `gpu.py`: captured and not.

A batch of validation is that of a fit: windows gathered by number, the network, the loss. Forecasts
are those of `TSM2Forecaster.score`, from the table to one number, 256 windows at once. Both must
give the same number captured and uncaptured, to the last bit; what does not gets no speed.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from gpu_steps import NETWORKS, Report, Timer, begun, config_of

from tsm2 import TSM2Forecaster
from tsm2.errors import TSM2Error
from tsm2.networks import NetworkConfig
from tsm2.training.capture import CUDAGraphs, Recorder
from tsm2.training.recording import PAYS

__all__ = ["time_forecasts", "time_validation"]


def time_validation(report: Report, options: argparse.Namespace, timed: Timer, ends: float) -> None:
    """Time a batch of validation, of networks of several sizes."""
    lookback, horizon, variates, batch = (96, 24, 3, 4) if options.tiny else (512, 96, 7, 64)
    recorders: dict[str, Recorder | None] = {"uncaptured": None}
    if options.device == "cuda":
        recorders["captured"] = CUDAGraphs(torch.device("cuda"))
    for name, sizes in NETWORKS.items():
        if time.monotonic() > ends:
            report.row("validation", ended="out of time")
            return
        network = NetworkConfig(lookback=lookback, horizon=horizon, n_variates=variates, **sizes)
        config = config_of(options.device, batch, 0.0)
        found, losses = {}, []
        try:
            for how, recorder in recorders.items():
                judge = judged(network, config, recorder)
                for _ in range(PAYS + 1):  # the last of them is replayed
                    judge()
                losses.append(float(judge()))
                found[how] = timed(judge)
        except RuntimeError as error:  # such as too little memory
            report.row("validation", network=name, failed=" ".join(str(error).split())[:300])
            continue
        wrong = None if len(set(losses)) == 1 else f"captured or not the losses are {losses}"
        report.row(
            "validation",
            network=name,
            variates=variates,
            batch=4 * batch,
            milliseconds=None if wrong else found,
            wrong=wrong,
        )


def judged(
    network: NetworkConfig, config: Any, recorder: Recorder | None
) -> Callable[[], torch.Tensor]:
    """Return what measures the same batch of validation again and again."""
    fit = begun(network, config, recorder)
    fit.validation = fit.train
    fit.model.eval()
    which = torch.arange(4 * config.batch_size, device=fit.train.values.device)

    @torch.inference_mode()
    def judge() -> torch.Tensor:
        return fit.judge_batch(which)

    return judge


def time_forecasts(report: Report, options: argparse.Namespace, ends: float) -> None:
    """Time the forecasts of many windows, from a table to their error."""
    lookback, horizon, variates, windows = (48, 24, 3, 300) if options.tiny else (512, 96, 7, 8192)
    rows = 4 * lookback + windows
    values = np.random.default_rng(0).normal(size=(rows, variates)).cumsum(0)
    table = pd.DataFrame(values, columns=[f"v{number}" for number in range(variates)])
    n_fit = 4 * lookback - horizon + 1
    model = TSM2Forecaster(
        lookback,
        horizon,
        max_epochs=1,
        epoch_steps=1,
        linear_start="random",
        calendar=(),
        random_state=0,
        device=options.device,
    ).fit(table[:n_fit])
    found, scores = {}, []
    for how, asked in {"uncaptured": False, "captured": "auto"}.items():
        if asked and options.device != "cuda":
            continue
        if time.monotonic() > ends:
            report.row("forecasts", ended="out of time")
            return
        model.set_params(capture_steps=asked)
        try:
            model.score(table[n_fit:])  # kernels are compiled in it
            began = time.perf_counter()
            scores.append(model.score(table[n_fit:]))
        except (RuntimeError, TSM2Error) as error:
            report.row("forecasts", how=how, failed=" ".join(str(error).split())[:300])
            return
        found[how] = time.perf_counter() - began
    wrong = None if len(set(scores)) == 1 else f"captured or not the scores are {scores}"
    report.row(
        "forecasts",
        windows=rows - n_fit - horizon + 1,
        variates=variates,
        seconds=None if wrong else found,
        wrong=wrong,
    )
