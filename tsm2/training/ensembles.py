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
from tsm2.networks.ensemble import Ensemble, members_of
from tsm2.networks.tsm2 import TSM2Network
from tsm2.networks.weights import start_from
from tsm2.prepared.windows import Windows
from tsm2.training.callbacks import history_table
from tsm2.training.fit import Epoch, TrainingConfig
from tsm2.training.loop import EpochWatch, fit_network, seeded
from tsm2.training.processes import check_side_by_side, warn_if_alone
from tsm2.training.ridge import LinearMap
from tsm2.training.start import add_mixers, without_mixers

__all__ = ["begin_with", "drop_mixers", "fit_members", "make_network", "starts_kept"]


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
    solved: LinearMap | None = None,
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
    solved
        As `fit_network` takes it, for every network.

    Returns
    -------
    Losses of every epoch, with a first column `member` if there are several networks.

    Raises
    ------
    ParameterError
        `n_jobs` asks for more than one where several processes share each fit.
    """
    asked: Any = n_jobs  # joblib's hint forgets None
    count, names = len(members), [f"member-{number}" for number in range(len(members))]
    side_by_side = min(effective_n_jobs(asked), count)
    check_side_by_side(side_by_side)
    warn_if_alone()
    fits: Any = Parallel(n_jobs=side_by_side)(
        delayed(_fit_member)(
            member,
            train,
            validation,
            config if side_by_side == 1 else replace(config, verbose=0),
            seed=seed,
            checkpoint=checkpoint if checkpoint is None or count == 1 else checkpoint / name,
            max_seconds=max_seconds * side_by_side / count,
            log_dir=log_dir if log_dir is None or count == 1 else log_dir / name,
            watch=watch if count == 1 else None,
            solved=solved,
        )
        for member, seed, name in zip(members, seeds, names, strict=True)
    )
    histories = []
    for number, (member, (weights, history)) in enumerate(zip(members, fits, strict=True)):
        member.load_state_dict(weights)
        member.eval()
        histories.append(history_table(history).assign(member=number))
    whole = pd.concat(histories, ignore_index=True)
    losses = whole.columns.drop("member")
    return whole[losses] if count == 1 else whole[["member", *losses]]


def starts_kept(
    members: Sequence[TSM2Network], history: pd.DataFrame, config: TrainingConfig
) -> list[bool]:
    """Return of each network whether it still is the exact start that it was fitted from.

    Parameters
    ----------
    members, history
        As `fit_members` left and returned them.
    config
        What they were fitted with.
    """
    if config.linear_start != "exact":
        return [False] * len(members)
    kept = []
    for number, member in enumerate(members):
        own = history[history["member"] == number] if "member" in history else history
        start, *later = own.sort_values("epoch")["validation_loss"]
        beaten = any(not loss >= start * (1 - config.start_margin) for loss in later)
        kept.append(not beaten or not member.config.blocks)
    return kept


def begin_with(network: TSM2Network | Ensemble, earlier: TSM2Network | Ensemble) -> None:
    """Let fresh networks begin with the weights of earlier ones, whose mixers may be dropped.

    Raises
    ------
    ParameterError
        The sizes differ.
    """
    fresh, known = members_of(network), members_of(earlier)
    dropped = all(each.config.blocks > 0 for each in fresh) and not any(
        each.config.blocks for each in known
    )
    if not dropped or len(fresh) != len(known):
        start_from(network, earlier)
        return
    for own, linear in zip(fresh, known, strict=True):
        add_mixers(own, linear)


def drop_mixers(network: TSM2Network | Ensemble) -> TSM2Network | Ensemble:
    """Return the linear paths of networks alone, for those whose mixers add nothing."""
    members = [without_mixers(each) for each in members_of(network)]
    return members[0] if isinstance(network, TSM2Network) else Ensemble(members)


def _fit_member(
    network: TSM2Network, *data: Any, **how: Any
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Fit a network, perhaps in a process of its own, and return its weights."""
    history = fit_network(network, *data, **how)
    return network.state_dict(), history
