"""The exact start: the linear path of a TSM2 network, solved instead of searched.

    forecast = level + deviation * (sum over patches of W[p] (E patch[p] + e) + b)
             = level + B (context - level)           W[p] E = B[p],  b = - sum W[p] e

A map that reverts adds a share of the level for each step, as the network then does. Where columns
lead (`tsm2.training.leading`), the map of each variate counts by its shares, and the network's
leaders add the rest.

Where the mixers start at zero, a network is a linear map of what `tsm2.training.moments` reads: a
window's values less their level, and its covariates' courses. The ridge solution is written into
the head, and the network then forecasts what the regression does. A division by the window's
deviation and the product at the end cancel out in a linear map.

Of what the network can express, the least squares solution is taken: an embedding of fewer
features than a patch has steps is set to the directions of a patch that the whole solution reads,
and the map is solved again on those. The courses of covariates start as least squares of values on
covariates at the same step.

Sizes: G groups (M with separate heads, or 1), L lookback, H horizon, D columns, P patches of a
course, F features, V directions of L steps that the network sees, Q quantiles, C covariates.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from tsm2.errors import ParameterError
from tsm2.networks.config import NetworkConfig, shows_all_steps
from tsm2.networks.heads import ParameterHead, PointHead, QuantileHead
from tsm2.networks.patches import cut_patches
from tsm2.networks.tsm2 import TSM2Network
from tsm2.networks.weights import start_from
from tsm2.prepared.windows import Batch, Windows
from tsm2.training.blocks import cut_blocks
from tsm2.training.leading import Leading, Led, solve_led
from tsm2.training.moments import LinearInput, relate_covariates
from tsm2.training.ridge import LinearMap, solve_again, solve_averaged, solve_linear
from tsm2.training.simple import Blend, as_seen, blend_in, regressed

__all__ = [
    "ExactStart",
    "add_mixers",
    "leave_out",
    "refit_exactly",
    "solve_exactly",
    "start_exactly",
    "without_mixers",
]

_LOOKED_AT = 1024
"""Windows at most that gaps between quantiles, and what mixers bend, are measured on."""
_BENT = 0.25
"""Share of a change of the linear path, in squares, by which a network may miss it at most: least
squares gain what they change, in squares too, and what is missed is lost."""
_SURELY_SEEN = 1e-2
"""Share of the largest pivot from which on the features' gram is inverted as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactStart:
    """How the linear path is solved."""

    season: int | None = None
    """Steps of the season whose naive forecast the map is held towards; None for the level."""
    blend: Blend | None = None
    """How it is averaged with simple forecasts, where nothing but the values is read; None for the
    map alone."""
    averaged: bool = False
    """Whether the map is the mean of those from both levels, if the network sees all steps of the
    values and reads nothing else."""
    lookbacks: tuple[int, ...] = ()
    """Steps that the maps of this mean read; empty for all of them."""
    fine: int | None = None
    """Last steps of very many that a map reads one by one; None for all of them."""
    leading: Leading | None = None
    """How columns that lead are solved; None if none do."""
    solved: LinearMap | None = None
    """What `solve_exactly` returned for all of it; None lets each network solve its own."""

    def solve(
        self, train: Windows, validation: Windows | None, linear: LinearInput, config: NetworkConfig
    ) -> LinearMap:
        """Solve the map of what a regression reads of windows, see `solve_linear`."""
        averages = self.averaged and linear.plain
        separate = config.separate_heads if self.leading is None else self.leading.separate
        mean = partial(solve_averaged, reverts=config.reverts, lookbacks=self.lookbacks)
        return (mean if averages else solve_linear)(
            regressed(train, self.blend, from_first=True),
            None if validation is None else regressed(validation, self.blend),
            replace(linear, fine=self.fine),
            separate=separate,
            season=self.season,
        )

    def led(self, found: LinearMap, known: Sequence[Windows]) -> tuple[LinearMap, Led | None]:
        """Return the map by its shares, and what columns that lead add; None if none do."""
        if self.leading is None:
            return found, None
        led = solve_led(found, known, self.leading)
        return led.scaled(found), led


_PLAIN = ExactStart()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sight:
    """What the features of all patches say of the steps of a course."""

    basis: Tensor | None
    """Of the steps, orthonormal, (L, V); None if the features say all."""
    to_features: Tensor
    """What makes weights of features from those of steps, (L, P * F)."""

    @classmethod
    def of(cls, network: TSM2Network) -> Self:
        """Return what the embedding of a network shows."""
        reads = _read_steps(network)  # (L, P * F)
        factor, failed = torch.linalg.cholesky_ex(reads @ reads.mT)
        diagonal = factor.diagonal()
        if not failed and diagonal.min() > _SURELY_SEEN * diagonal.max():
            return cls(basis=None, to_features=torch.cholesky_solve(reads, factor))
        left, values, right = torch.linalg.svd(reads, full_matrices=False)
        seen = values > 1e-6 * values[0]
        left, values, right = left[:, seen], values[seen], right[seen]
        return cls(
            basis=None if left.shape[1] == network.config.lookback else left,
            to_features=left / values @ right,
        )


def solve_exactly(
    config: NetworkConfig, train: Windows, validation: Windows | None, how: ExactStart = _PLAIN
) -> LinearMap | None:
    """Solve the map that all networks of some sizes start from.

    Parameters
    ----------
    config
        The sizes.
    train, validation
        Standardised windows, see `solve_linear`.
    how
        How it is solved.

    Returns
    -------
    None if each network solves its own: what is read then goes through weights that it draws.
    """
    all_seen = shows_all_steps(
        config.features, patch_length=config.patch_length, patch_stride=config.patch_stride
    )
    covariates = config.n_past or config.n_future or config.n_static
    if covariates or not (all_seen or how.blend):
        return None
    linear = LinearInput(level=config.level if config.instance_norm else None)
    validation = None if validation is None else validation.to("cpu")
    return how.solve(train.to("cpu"), validation, linear, config)


@torch.no_grad()
def start_exactly(
    network: TSM2Network, train: Windows, validation: Windows | None, how: ExactStart = _PLAIN
) -> LinearMap:
    """Solve the linear path of a network that was not trained yet, and write it into the network.

    Parameters
    ----------
    network
        Its mixers add nothing: `zero_start`, or no blocks.
    train, validation
        Standardised windows, see `solve_linear`.
    how
        How it is solved.

    Returns
    -------
    The map that the network now is; of a blend, what was solved.

    Raises
    ------
    ParameterError
        Its mixers do not start at zero, or hide the model input from the head.
    """
    train = train.to("cpu")
    validation = None if validation is None else validation.to("cpu")
    _stream_share(network)  # refuses first
    _prepare_courses(network, train)
    config, blend = network.config, how.blend
    narrow = config.features < config.patch_length
    if narrow and blend is None:
        linear = _reads(network, basis=None)
        _embed_what_is_read(network, solve_linear(train, validation, linear, season=how.season))
    sight = _Sight.of(network)
    found = _solve_for(network, train, validation, sight, how)
    known = [train] if validation is None else [train, validation]
    whole = blend_in(found, blend, known)
    if narrow and blend is not None:
        _embed_what_is_read(network, whole)
        sight = _Sight.of(network)
    _write(network, *how.led(as_seen(whole, known, sight.basis), [train]), sight)
    if isinstance(network.head, QuantileHead):
        _spread_quantiles(network, train if validation is None else validation)
    return found


def _solve_for(
    network: TSM2Network,
    train: Windows,
    validation: Windows | None,
    sight: _Sight,
    how: ExactStart,
) -> LinearMap:
    """Return the map that a network starts from, which is what was solved if anything was."""
    if how.solved is not None:
        return how.solved
    linear = _reads(network, basis=sight.basis if how.blend is None else None)
    return how.solve(train, validation, linear, network.config)


@torch.no_grad()
def refit_exactly(
    network: TSM2Network,
    train: Windows,
    validation: Windows,
    how: ExactStart = _PLAIN,
    *,
    trained: bool = False,
    again: LinearMap | None = None,
) -> LinearMap:
    """Solve the linear path again with the validation windows too, and write it.

    Parameters
    ----------
    network
        As `start_exactly` left it on these windows, or trained from there; the strength is the one
        that they chose.
    train, validation
        Standardised windows. What the network forecasts of the validation windows is no longer
        held out afterwards: calibrate intervals on it before.
    how
        As for `start_exactly`.
    trained
        Whether the network was trained: what the validation windows change of its start is then
        added to what it has learnt, unless its mixers, which the head reads too, bend that.
    again
        What this returned for another network: taken if all start from `how.solved`.
    """
    train, validation = train.to("cpu"), validation.to("cpu")
    known = [train, validation]
    sight = _Sight.of(network)
    found = _solve_for(network, train, validation, sight, how)
    if again is None or how.solved is None:
        fit, judge = regressed(train, how.blend, from_first=True), regressed(validation, how.blend)
        again = solve_again(found, [fit, judge])
    whole = as_seen(blend_in(again, how.blend, known), known, sight.basis)
    written, led = how.led(whole, known)
    if not trained:
        _write(network, written, led, sight)
        return again
    start = as_seen(blend_in(found, how.blend, known), known, sight.basis)
    start, led_before = how.led(start, [train])
    changed = copy.deepcopy(network)
    change = replace(written, weights=written.weights - start.weights)
    _write_linear(changed, change, sight, added=True)
    if changed.leaders is not None and led is not None and led_before is not None:
        changed.leaders.weight.add_((led.weights - led_before.weights).permute(1, 2, 0))
        changed.leaders.largest.copy_(torch.maximum(changed.leaders.largest, led.largest))
    if _bent(network, changed, validation) <= _BENT:
        network.load_state_dict(changed.state_dict())
    return again


@torch.no_grad()
def leave_out(
    config: NetworkConfig, train: Windows, validation: Windows | None, how: ExactStart = _PLAIN
) -> Iterator[tuple[TSM2Network, Windows]]:
    """Yield blocks of windows, and for each the linear path solved without it.

    Parameters
    ----------
    config
        Of the network whose linear path it is.
    train, validation, how
        As for `start_exactly`. The strength is chosen once.
    """
    train, validation = train.to("cpu"), None if validation is None else validation.to("cpu")
    network = TSM2Network(replace(config, blocks=0)).eval()
    found = start_exactly(network, train, validation, how)
    sight = _Sight.of(network)
    for rest, block in cut_blocks(train, validation):
        other = copy.deepcopy(network)
        again = solve_again(found, [regressed(each, how.blend) for each in rest])
        whole = blend_in(again, how.blend, rest)
        _write(other, *how.led(as_seen(whole, rest, sight.basis), rest), sight)
        yield other, block


def without_mixers(network: TSM2Network) -> TSM2Network:
    """Return the linear path alone: what a network forecasts whose mixers add nothing."""
    linear = TSM2Network(replace(network.config, blocks=0)).eval()
    share = _stream_share(network)
    own = network.state_dict()
    linear.load_state_dict({name: own[name] for name in linear.state_dict()})
    for projection in linear.head.modules():
        if isinstance(projection, PointHead):
            projection.weight.data.mul_(share)
    return linear


@torch.no_grad()
def add_mixers(network: TSM2Network, linear: TSM2Network) -> None:
    """Let a fresh network forecast what a linear path alone does: the way back.

    Raises
    ------
    ParameterError
        The sizes of the two differ, or the network's mixers do not start at zero.
    """
    start_from(without_mixers(network), linear)  # checks the sizes
    network.load_state_dict(linear.state_dict(), strict=False)
    for projection in network.head.modules():
        if isinstance(projection, PointHead):
            projection.weight.div_(_stream_share(network))


def _bent(network: TSM2Network, changed: TSM2Network, windows: Windows) -> float:
    """Return by how much forecasts change otherwise than the linear path alone, as in `_BENT`."""
    pairs = (network, changed), (without_mixers(network), without_mixers(changed))
    missed = whole = 0.0
    for batch in _some(windows):
        read = batch.auxiliary()
        made, wanted = (
            two(batch.context, **read) - one(batch.context, **read) for one, two in pairs
        )
        missed += float((made - wanted).double().square().sum())
        whole += float(wanted.double().square().sum())
    return missed / whole if whole else 0.0


def _some(windows: Windows) -> Iterator[Batch]:
    """Yield batches of windows from first to last, `_LOOKED_AT` at most."""
    for part in torch.split(windows.spread(_LOOKED_AT), 64):
        yield windows.gather(part)


def _write(network: TSM2Network, found: LinearMap, led: Led | None, sight: _Sight) -> None:
    """Let the linear path of a network be a map, and its leaders add what was solved."""
    _write_linear(network, found, sight)
    if led is not None and network.leaders is not None:
        led.write(network.leaders)


def _write_linear(
    network: TSM2Network, found: LinearMap, sight: _Sight, *, added: bool = False
) -> None:
    """Let the linear path of a network be a map that reads what the network can see.

    Or let the map be added to it.
    """
    config, linear = network.config, found.linear
    weights, before = found.weights, float(added)  # the share that stays of what is there
    constant = torch.zeros(len(weights), config.horizon, dtype=torch.float64)
    if linear.level is None:
        weights, constant = weights[:, :-1], weights[:, -1]
    if linear.reverts:
        if network.reversion is None:
            raise AssertionError("a map leaves its level, and its network cannot")
        weights, left = weights[:, :-1], weights[:, -1]
        network.reversion.mul_(before).add_(left.reshape(network.reversion.shape))
    seen = config.lookback if linear.basis is None else linear.basis.shape[1]
    n_courses = 1 + (linear.past is not None) + (linear.future is not None)
    basis = (
        torch.eye(config.lookback, dtype=torch.float64) if linear.basis is None else linear.basis
    )
    by_course = weights[:, : n_courses * seen].reshape(len(weights), n_courses, seen, -1)
    courses = list((basis @ by_course).unbind(1))  # (G, L, H) each
    if network.static is not None:
        of_static = weights[:, n_courses * seen :]
        if not added:
            _show_static(network.static, basis, of_static)
        shown = torch.linalg.pinv(basis.mT @ network.static.weight.double()).mT  # (V, Cs)
        courses.append(basis @ (shown @ of_static))
    features = torch.cat([course.mT @ sight.to_features for course in courses], -1)  # (G, H, width)
    features = features / _stream_share(network)
    offset = network.embedding.bias.double().repeat(features.shape[-1] // config.features)
    constant = constant - features @ offset * _stream_share(network)
    projection, rows = _first_output(network.head)
    weight, bias = projection.weight, projection.bias
    if weight.ndim == 2:
        features, constant = features[0], constant[0]
    weight[..., rows, :] = before * weight[..., rows, :] + features.to(weight.dtype)
    bias[..., rows] = before * bias[..., rows] + constant.to(bias.dtype)


def _show_static(static: nn.Linear, basis: Tensor, weights: Tensor) -> None:
    """Let a course tell static covariates, (Cs, H) weights of which are to be read from it."""
    n_static, seen = weights.shape[1], basis.shape[1]
    directions = torch.eye(n_static, dtype=torch.float64)
    if n_static > seen:  # a course has no room for all: the strongest directions
        flat = weights.transpose(0, 1).flatten(1)  # (Cs, G * H)
        directions = torch.linalg.svd(flat, full_matrices=False).U[:, :seen].mT
    static.weight.copy_(basis[:, : len(directions)] @ directions)
    static.bias.zero_()


def _first_output(head: nn.Module) -> tuple[PointHead, slice]:
    """Return the projection that gives the point forecast, and which of its outputs do."""
    if isinstance(head, QuantileHead):
        return head.median, slice(None)
    if isinstance(head, ParameterHead):
        return head.projection, slice(None, None, head.n_parameters)
    if isinstance(head, PointHead):
        return head, slice(None)
    raise AssertionError(f"a head of an unknown kind: {type(head).__name__}")


def _stream_share(network: TSM2Network) -> float:
    """Return what the head gets of the model input, as a multiple, while the mixers add nothing."""
    config = network.config
    share = 1.0
    if config.blocks and not config.zero_start:
        share = 0.0
    elif network.readout is not None:
        share = float(network.readout.of_input.detach())
    if not share:
        raise ParameterError(
            f"linear_start='exact' needs mixers that start at zero and a head that sees the model "
            f"input, but zero_start={config.zero_start} and averaging={config.averaging!r}. Pass "
            f"zero_start=True and averaging='stream', or linear_start='random'."
        )
    if config.outputs is not None and config.outputs[0] != "location":
        raise ParameterError(
            f"linear_start='exact' needs a distribution whose first parameter is its location, got "
            f"{config.outputs}. Pass linear_start='random'."
        )
    return share


def _reads(network: TSM2Network, *, basis: Tensor | None) -> LinearInput:
    """Return what the linear path reads."""
    config = network.config
    encoders = {"past": network.past, "future": network.future}
    weights: dict[str, Any] = {
        name: encoder.across.detach().double()
        for name, encoder in encoders.items()
        if encoder is not None
    }
    return LinearInput(
        level=config.level if config.instance_norm else None,
        static=network.static is not None,
        basis=basis,
        **weights,
    )


def _prepare_courses(network: TSM2Network, train: Windows) -> None:
    """Let the courses of covariates be what they say of the values at the same step."""
    plain = LinearInput(level=network.config.level if network.config.instance_norm else None)
    if network.past is not None:
        network.past.across.copy_(relate_covariates(train, plain, "past"))
    if network.future is not None:
        network.future.across.copy_(relate_covariates(train, plain, "future"))


def _read_steps(network: TSM2Network) -> Tensor:
    """Return how much each feature of each patch gets from each step, (L, P * F)."""
    config = network.config
    steps = torch.eye(config.lookback, dtype=torch.float64)
    patches = cut_patches(steps, config.patch_length, config.patch_stride)  # (L, P, length)
    features: Tensor = patches @ network.embedding.weight.double().mT
    return features.flatten(1)


def _embed_what_is_read(network: TSM2Network, whole: LinearMap) -> None:
    """Set the embedding to the F directions of a patch that a map of all steps reads most."""
    config = network.config
    courses = whole.weights[:, : config.lookback].mT  # (G, H, L): that of the values
    patches = cut_patches(courses, config.patch_length, config.patch_stride)
    directions = torch.linalg.svd(patches.flatten(0, 2), full_matrices=False).Vh
    rows = min(config.features, len(directions))
    network.embedding.weight[:rows] = directions[:rows].to(network.embedding.weight.dtype)


def _spread_quantiles(network: TSM2Network, windows: Windows) -> None:
    """Start the gaps between quantiles at those of the errors, in units of windows' deviations.

    Each step has its own spread; its shape is that of all steps, as windows may be few.
    """
    head = network.head
    config = network.config
    if not isinstance(head, QuantileHead) or config.quantiles is None:
        raise AssertionError("only a quantile head has gaps")
    network.eval()
    errors = []
    for batch in _some(windows):
        median = network(batch.context, **batch.auxiliary())[..., head.n_below]
        deviation = torch.ones(1)
        if config.instance_norm:
            deviation = network._level(batch.context, batch.mask)[1]
        error = (batch.target - median) / deviation  # (B, M, H)
        if batch.target_mask is not None:
            error = error.where(batch.target_mask, torch.nan)
        errors.append(error)
    each = torch.cat(errors).double().transpose(0, 1)  # (M, B, H)
    if head.gaps.weight.ndim == 2:
        each = each.flatten(0, 1)[None]
    spread = each.square().nanmean(1).sqrt().nan_to_num(nan=1.0).clamp(min=1e-3)  # (G, H)
    levels = torch.tensor(config.quantiles, dtype=torch.float64)
    shapes = torch.stack([_quantiles(group, levels) for group in each / spread[:, None]])  # (G, Q)
    gaps = spread[..., None] * shapes.diff(dim=-1)[:, None].clamp(min=1e-2)  # (G, H, Q - 1)
    bias = torch.log(torch.expm1(gaps)).flatten(1)
    head.gaps.bias.copy_(bias if head.gaps.bias.ndim == 2 else bias[0])


def _quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """Return the quantiles of what is known; those of a normal distribution if nothing is."""
    normal: Tensor = torch.special.ndtri(levels)
    known = values[~values.isnan()]
    if not len(known):
        return normal
    drawn = known[torch.linspace(0, len(known) - 1, min(len(known), 2**20)).long()]
    return torch.quantile(drawn, levels)
