"""Small fits of every kind, made by one process, or shared by several that a launcher starts.

    torchrun --standalone --nproc-per-node 2 shared_fits.py FOLDER CASE ...

Each process writes the weights and losses of its fits to FOLDER/RANK.safetensors, as CASE/NAME.
A case that has a folder of its name in FOLDER goes on from the checkpoint there; one that ends in
"cut off" leaves a checkpoint of its first step there.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tsm2 import TSM2Forecaster

PROCESSES = 2
BATCH = 8
"""Windows in a step of all processes together."""
SIZES: dict[str, Any] = {
    "lookback": 8,
    "horizon": 2,
    "patch_length": 4,
    "features": 4,
    "blocks": 1,
    "linear_start": "random",
    "max_epochs": 3,
    "epoch_steps": None,
    "patience": 3,
    "validation_fraction": 0.3,
    "random_state": 0,
    "device": "cpu",
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {"validation_fraction": 16 / 60},  # a last batch of three windows
    "gaps": {"missing": "mask"},
    "gaps, SAM, quantiles, covariates": {
        "missing": "mask",
        "sam_radius": 0.1,
        "quantiles": [0.1, 0.5, 0.9],
    },
    "gaps, exact start, ensemble": {
        "missing": "mask",
        "linear_start": "exact",
        "n_estimators": 2,
        "validation_fraction": 0.0,
        "max_epochs": 6,
        "loss": "mae",
    },
    "dropout, SAM, average": {
        "dropout": 0.3,
        "sam_radius": 0.1,
        "ema_decay": 0.9,
        "epoch_steps": 3,
    },
    "gaps, series": {
        "missing": "mask",
        "sampling": "series",
        "scaled_errors": True,
        "validation_fraction": 0.0,
    },
    "dropout, begun by one": {"dropout": 0.3, "sam_radius": 0.1},
    "gaps, dropout, begun by two": {"missing": "mask", "dropout": 0.3, "n_estimators": 2},
    "any seed": {"random_state": None},
}


def table(*, gaps: bool, series: bool = False) -> pd.DataFrame:
    """Return two columns that know much at some times and little at others."""
    rows = 60
    time = np.arange(rows)
    generator = np.random.default_rng(0)
    values = np.stack([np.sin(time * 0.5), np.cos(time * 0.9) * 4 + time * 0.1], axis=1)
    values += generator.normal(size=values.shape) * 0.3
    if gaps:
        values[20:40][generator.random((20, 2)) < 0.7] = np.nan
    index = pd.date_range("2026-01-01", periods=rows, freq="h", name="time")
    frame = pd.DataFrame(values, index, ["a", "b"])
    if not series:
        return frame
    return pd.concat({"long": frame, "short": frame.iloc[5:23] * 2}, names=["series", "time"])


def fit(case: str, processes: int = 1, **more: Any) -> TSM2Forecaster:
    """Return the fit of a case by this process, or its share of it if there are several."""
    settings = SIZES | {"batch_size": BATCH // processes} | CASES[case]
    frame = table(gaps="gaps" in case, series="series" in case)
    covariates: dict[str, Any] = {}
    if "covariates" in case:
        known = pd.DataFrame({"c": np.arange(len(frame) + 2) % 5 / 5})
        known.index = pd.date_range(frame.index[0], periods=len(known), freq="h")
        covariates = {"past_covariates": known, "future_covariates": known}
    return TSM2Forecaster(**settings).fit(frame, **covariates, **more)


def result(model: TSM2Forecaster) -> dict[str, NDArray[np.float64]]:
    """Return the weights and the losses that a fit left."""
    weights = model.fitted_.network.state_dict()
    found = {name: each.numpy().astype(np.float64) for name, each in weights.items()}
    return found | {"losses": model.history_.to_numpy(dtype=np.float64)}


def fit_in(folder: Path, case: str, processes: int = 1) -> TSM2Forecaster:
    """Return the fit of a case that has a checkpoint; "cut off" ends it after its first step."""
    name, _, cut = case.partition("; ")
    most = 1e-9 if cut else None
    return fit(name, processes, checkpoint=folder / name, max_time=most)


def main(folder: Path, cases: Sequence[str]) -> None:
    """Fit, as one of the processes that the launcher started."""
    rank, processes = os.environ.get("RANK", "0"), int(os.environ.get("WORLD_SIZE", "1"))
    found: dict[str, NDArray[np.float64]] = {}
    for case in cases:
        resumes = case.endswith("cut off") or (folder / case).exists()
        model = fit_in(folder, case, processes) if resumes else fit(case, processes)
        for name, each in result(model).items():
            found[f"{case}/{name}"] = np.ascontiguousarray(each)  # all that safetensors takes
    save_file(found, folder / f"{rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
