"""What a network selected: step sizes, averaging weights, and what moves a forecast.

    step[b, m, p] = mean over inner features of softplus(delta)    what a scan lets in of a token
    influence[target, source] = sqrt(mean over windows and steps of (f(x) - f(x without source))^2)

A scan takes a token in with a large step and passes over it with a small one, so the step sizes
are the network's own selection, per patch and variate. They need not be all of it: what a token
writes also depends on the gate and the projections around the scan. The influence looks at nothing
but the forecasts: a source is left out by standing still at its mean in each window.

Sizes: B windows, M variates, P patches, L lookback, H horizon.
Source: Gu & Dao (2023), arXiv:2312.00752, section 3.5.2, for the meaning of a step.
"""

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsm2.networks.blocks import MambaMixerBlock, WeightedAverage
from tsm2.networks.combined import CombinedNetwork
from tsm2.networks.ensemble import Ensemble, members_of
from tsm2.networks.mixers import DirectedScan
from tsm2.networks.tsm2 import TSM2Network
from tsm2.networks.zero import ZeroShotNetwork

__all__ = [
    "Selection",
    "averaging_weights",
    "influence",
    "inspect_network",
    "mean_of",
    "step_sizes",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What a network selected in some windows."""

    steps: pd.DataFrame
    """Step sizes, one row per scan, variate and patch, in tokens: `block` (from 1), `mixer`
    ("time" or "variate"), `direction`, `variate`, `patch` (from 1, the oldest first), `first` and
    `last` (the rows of the patch, counted to 0 for the last row before the forecast), `step`."""
    averaging: pd.DataFrame
    """Averaging weights, one row each: who reads (`block`, `reader`), what (`source`, and its
    `source_block`, 0 for the model input), and `weight`."""
    influence: pd.DataFrame
    """How far the forecast of a variate (rows) moves without the history of another, or without
    a covariate (columns), in
    the units in which the network was trained: deviations of the training rows."""

    def _repr_html_(self) -> str:
        what = "How far a forecast (row) moves without the history of a column, in deviations."
        return f"<p>{what}</p>{self.influence.round(3).to_html()}"


def inspect_network(
    network: TSM2Network | Ensemble | ZeroShotNetwork | CombinedNetwork,
    inputs: Mapping[str, Tensor],
    names: Mapping[str, Sequence[Hashable]],
    *,
    point: Callable[[Tensor], Tensor],
) -> Selection:
    """Inspect a network on some windows.

    Parameters
    ----------
    network
        Is left as it is. Of an ensemble, steps and averaging weights are the members' means; of a
        pretrained or a combined network, those of the TSM2 in it.
    inputs
        What it reads, by the names of its arguments: "context", (B, M, L), and the rest.
    names
        Names of the variates under "context" and, where there are any, of the covariates under
        "past" and "future".
    point
        Makes a point forecast, (B, M, H), of what the network returns.
    """
    members: tuple[TSM2Network, ...]
    if isinstance(network, ZeroShotNetwork):
        told = network.tell(inputs["context"], inputs.get("mask"))
        read = {"context": told.context, "mask": told.mask, "static": told.static}
        members = (network.inner,)
    elif isinstance(network, CombinedNetwork):
        read, members = network.read(**inputs), tuple(members_of(network.network))
    else:
        read, members = dict(inputs), tuple(members_of(network))
    return Selection(
        steps=_mean_of([step_sizes(each, read, names) for each in members], "step"),
        averaging=_mean_of([averaging_weights(each) for each in members], "weight"),
        influence=influence(network, inputs, names, point=point),
    )


def _mean_of(tables: list[pd.DataFrame], column: str) -> pd.DataFrame:
    """Return the first of tables that differ in one column, with the mean of that column."""
    if len(tables) == 1:
        return tables[0]
    return tables[0].assign(**{column: sum(table[column] for table in tables) / len(tables)})


# --- steps ----------------------------------------------------------------------------------------


@torch.inference_mode()
def step_sizes(
    network: TSM2Network, inputs: Mapping[str, Tensor], names: Mapping[str, Sequence[Hashable]]
) -> pd.DataFrame:
    """Return the mean step of every scan for every variate and patch, see `Selection.steps`."""
    variates = names["context"]
    watched = copy.deepcopy(network)  # hooks on the network itself would be felt by other threads
    seen: dict[int, Tensor] = {}
    scans = list(_scans(watched))
    for number, (_, scan) in enumerate(scans):
        scan.register_forward_hook(partial(_keep_steps, seen, number))
    watched(**inputs)
    tables = [
        _step_table(network, seen[number], variates).assign(**labels)
        for number, (labels, _) in enumerate(scans)
    ]
    columns = ["block", "mixer", "direction", "variate", "patch", "first", "last", "step"]
    return (
        pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    )


def _blocks(network: TSM2Network) -> list[MambaMixerBlock]:
    return cast("list[MambaMixerBlock]", list(network.blocks))


def _scans(network: TSM2Network) -> Iterator[tuple[dict[str, Any], DirectedScan]]:
    """Yield every scan of the blocks with what it is called in the table."""
    for number, block in enumerate(_blocks(network), start=1):
        for mixer, branch in (("time", block.token), ("variate", block.channel)):
            for scan in branch.modules() if branch is not None else ():
                if isinstance(scan, DirectedScan):
                    direction = "backward" if scan.reverse else "forward"
                    yield {"block": number, "mixer": mixer, "direction": direction}, scan


def _keep_steps(
    seen: dict[int, Tensor],
    number: int,
    scan: DirectedScan,
    arguments: tuple[Tensor, Tensor, Tensor | None],
    scanned: Tensor,
) -> None:
    value, source, _ = arguments
    seen[number] = scan.steps(value, source).mean((0, 3)).cpu()  # of (B, M, P, E)


def _step_table(network: TSM2Network, steps: Tensor, variates: Sequence[Hashable]) -> pd.DataFrame:
    config = network.config
    n_patches = config.n_patches
    ends = [config.patch_stride * (p + 1 - n_patches) for p in range(n_patches)]
    starts = [max(end - config.patch_length, -config.lookback) + 1 for end in ends]
    own = steps[:, :n_patches]  # (M, P): covariates' patches stand behind
    return pd.DataFrame(
        {
            "variate": [name for name in variates for _ in range(n_patches)],
            "patch": list(range(1, n_patches + 1)) * len(variates),
            "first": starts * len(variates),
            "last": ends * len(variates),
            "step": own.flatten().tolist(),
        }
    )


# --- averaging ------------------------------------------------------------------------------------


def averaging_weights(network: TSM2Network) -> pd.DataFrame:
    """Return the weight with which every mixer, and the readout, reads every earlier output."""
    rows: list[tuple[int, str, str, int, float]] = []
    token, channel = [0], [0]  # blocks whose outputs there are; the model input is both's first
    for number, block in enumerate(_blocks(network), start=1):
        if block.token is not None:
            rows += _weights(number, "time mixer", block.token_average, token, channel)
            token.append(number)
        if block.channel is not None:
            rows += _weights(number, "variate mixer", block.channel_average, token, channel)
            channel.append(number)
    if network.readout is not None:
        rows += _weights(len(network.blocks), "readout", network.readout, token, channel)
    return pd.DataFrame(rows, columns=["block", "reader", "source", "source_block", "weight"])


def _weights(
    block: int, reader: str, average: WeightedAverage, token: list[int], channel: list[int]
) -> list[tuple[int, str, str, int, float]]:
    kinds = (
        ("time mixer", average.token, token[average.skipped[0] :]),
        ("variate mixer", average.channel, channel[average.skipped[1] :]),
    )
    return [
        (block, reader, source, number, weight)
        for source, weights, numbers in kinds
        for number, weight in zip(numbers, weights.tolist(), strict=True)
    ]


# --- influence ------------------------------------------------------------------------------------


def mean_of(inputs: Mapping[str, Tensor], kind: str, number: int) -> Tensor:
    """Return the mean of a source in each window, (B, 1), over what is known of it."""
    values = inputs[kind][:, number]
    mask = inputs.get({"context": "mask", "past": "past_mask"}.get(kind, ""))
    if mask is None:
        return values.mean(-1, keepdim=True)
    known = mask[:, number]
    return (values * known).sum(-1, keepdim=True) / known.sum(-1, keepdim=True).clamp(min=1)


@torch.inference_mode()
def influence(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    names: Mapping[str, Sequence[Hashable]],
    *,
    point: Callable[[Tensor], Tensor],
) -> pd.DataFrame:
    """Return how far each forecast moves without each variate's history, (targets, sources)."""
    whole = point(network(**inputs))  # (B, M, H)
    labels: list[Hashable] = []
    columns: list[NDArray[np.float32]] = []
    for kind, sources in names.items():
        for number, source in enumerate(sources):
            without = inputs[kind].clone()
            without[:, number] = mean_of(inputs, kind, number)
            moved = point(network(**{**inputs, kind: without})) - whole
            labels.append(source)
            columns.append(moved.square().mean((0, 2)).sqrt().cpu().numpy())
    return pd.DataFrame(
        np.stack(columns, axis=1),
        index=pd.Index(list(names["context"]), name="target", tupleize_cols=False),
        columns=pd.Index(labels, name="source", tupleize_cols=False),
    )
