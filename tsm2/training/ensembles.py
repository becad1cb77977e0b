"""Fits of several networks: one after another, or side by side through joblib.

Every network has a seed of its own and is fitted as if it were alone, so that it makes no
difference for its weights what is fitted beside it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from torch import Tensor

from tsm2.networks.config import NetworkConfig
from tsm2.networks.ensemble import Ensemble
from tsm2.networks.tsm2 import TSM2Network
from tsm2.prepared.windows import Windows
from tsm2.training.callbacks import history_table
from tsm2.training.fit import Epoch, TrainingConfig
from tsm2.training.loop import EpochWatch, fit_network, seeded
from tsm2.training.start import refit_exactly

__all__ = ["fit_members", "make_network", "refit_starts"]


def make_network(config: NetworkConfig, seeds: Sequence[int]) -> TSM2Network | Ensemble:
    """Return a fresh network, or an ensemble if there are several seeds."""
    members = []
    for seed in seeds:
        with seeded(seed):
            members.append(TSM2Network(config))
    return members[0] if len(members) == 1 else Ensemble(members)


def fit_members(
    members: Sequence[TSM2Network],
    train: Windows,
    validation: Windows | None,
    config: TrainingConfig,
    *,
    seeds: Sequence[int],
    n_jobs: int | None = None,
    checkpoint: Path | None = None,
    max_seconds: float = math.inf,
    log_dir: Path | None = None,
    watch: EpochWatch | None = None,
) -> pd.DataFrame:
    """Train networks in place and leave them with their best weights.

    Parameters
    ----------
    members
        One network or more.
    train, validation, config
        As `tsm2.training.fit_network` takes them, for every network.
    seeds
        One for each network.
    n_jobs
        Networks fitted side by side, as joblib counts them.
    checkpoint, log_dir
        As `fit_network` takes them; several networks each have a folder in it, `member-0` and on.
    max_seconds
        For all of them together.
    watch
        Is told about the epochs of a single network; several have none.

    Returns
    -------
    Losses of every epoch, with a first column `member` if there are several networks.
    """
    if len(members) == 1:
        return history_table(
            fit_network(
                members[0],
                train,
                validation,
                config,
                seed=seeds[0],
                checkpoint=checkpoint,
                max_seconds=max_seconds,
                log_dir=log_dir,
                watch=watch,
            )
        )
    asked: Any = n_jobs  # joblib's hint forgets None
    side_by_side = min(effective_n_jobs(asked), len(members))
    fits: Any = Parallel(n_jobs=side_by_side)(
        delayed(_fit_member)(
            member,
            train,
            validation,
            config if side_by_side == 1 else replace(config, verbose=0),
            seed,
            None if checkpoint is None else checkpoint / f"member-{number}",
            max_seconds * side_by_side / len(members),
            None if log_dir is None else log_dir / f"member-{number}",
        )
        for number, (member, seed) in enumerate(zip(members, seeds, strict=True))
    )
    histories = []
    for number, (member, (weights, history)) in enumerate(zip(members, fits, strict=True)):
        member.load_state_dict(weights)
        member.eval()
        histories.append(history_table(history).assign(member=number))
    whole = pd.concat(histories, ignore_index=True)
    return whole[["member", *whole.columns.drop("member")]]


def refit_starts(
    members: Sequence[TSM2Network],
    history: pd.DataFrame,
    train: Windows,
    validation: Windows,
    config: TrainingConfig,
) -> list[bool]:
    """Solve those networks again with the validation windows too whose exact start was kept.

    Parameters
    ----------
    members, history
        As `fit_members` left and returned them. What other networks learnt depends on the start
        that they had, so these stay as they are.
    train, validation, config
        What they were fitted with.

    Returns
    -------
    Of each network, whether its start was kept and solved again.
    """
    kept = []
    for number, member in enumerate(members):
        own = history[history["member"] == number] if "member" in history else history
        start, *later = own.sort_values("epoch")["validation_loss"]
        kept.append(not any(loss < start * (1 - config.start_margin) for loss in later))
        if kept[-1]:
            refit_exactly(member, train, validation, season=config.season)
    return kept


def _fit_member(
    network: TSM2Network,
    train: Windows,
    validation: Windows | None,
    config: TrainingConfig,
    seed: int,
    checkpoint: Path | None,
    max_seconds: float,
    log_dir: Path | None,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Fit a network, perhaps in a process of its own, and return its weights."""
    history = fit_network(
        network,
        train,
        validation,
        config,
        seed=seed,
        checkpoint=checkpoint,
        max_seconds=max_seconds,
        log_dir=log_dir,
    )
    return network.state_dict(), history
