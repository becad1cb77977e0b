"""Calibration: from how far off forecasts were on held-out windows to quantiles that hold.

A forecast is read as a line from normal scores z to values, which goes on straight at both ends:

    point forecast f       z = 0, 1                  values f, f + deviation of its context
    quantile forecast q    z = normal scores of its levels    values q

The score of an outcome is its z. Over held-out windows, every variate and step has scores of its
own; the calibrated quantile of a level is the value at that level's quantile of the scores. It is
the n + 1 in the quantile's position that makes a share `level` of later outcomes fall below it, if
they come like those held out (split conformal prediction). Because scores are measured in a
window's own deviation, or in the width that the network gave it, calm and wild times may differ.

Errors of windows that overlap hang together, so that what counts is how many horizons fit, one
after another, into the rows that were held out: m stretches. As the deviation of m independent
errors is not that of all, scores are drawn apart, from their median, by what takes the normal
quantile to that of Student's prediction, t[m](level) sqrt(1 + 1/m).

The scores of a window belong together: drawing whole windows of them gives paths whose steps and
variates move together as errors did.

Sizes: W held-out windows, B windows, M variates, H horizon, Q levels, K points of a line.
Sources: Vovk, Gammerman & Shafer (2005), "Algorithmic Learning in a Random World"; Lei et al.
(2018), JASA 113(523), section 5.2, for errors in units of a deviation; Romano, Patterson & Candès
(2019), arXiv:1905.03222, for quantile forecasts; Student (1908), Biometrika 6(1).
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
import torch
from scipy.special import ndtri, stdtrit
from torch import Tensor, nn

from tsm2.errors import ParameterError
from tsm2.fitted.rolling import roll_forward
from tsm2.networks.combined import CombinedNetwork, affordable
from tsm2.networks.tsm2 import TSM2Network
from tsm2.prepared.windows import Windows

__all__ = [
    "ENOUGH_WINDOWS",
    "Calibration",
    "ForecastLine",
    "calibrate",
    "draw_paths",
    "read_quantiles",
]

ENOUGH_WINDOWS = 512
"""Windows at most that are forecast."""
_FEWEST_WINDOWS = 64
_FEW_WINDOWS = 8  # of fewer, not even the spread of a step is known: all steps have one
_MOST_SCORES = 2**22  # 16 MB in memory and in the model's folder
_BATCH = 64
_NARROWEST = 1e-6  # standard units per normal score


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastLine:
    """Forecasts read as lines from normal scores to values, in standard units."""

    scores: Tensor
    """Normal scores of the line's points, (K,), rising."""
    values: Tensor
    """Values at these scores, (B, M, H, K), not falling."""

    @classmethod
    def of(
        cls,
        forecast: Tensor,
        context: Tensor,
        *,
        quantiles: Sequence[float] = (),
        mask: Tensor | None = None,
        lookback: int | None = None,
    ) -> Self:
        """Read what a network returned.

        Parameters
        ----------
        forecast
            Forecasts, (B, M, H), or quantiles, (B, M, H, Q).
        context
            What they were made from, (B, M, L).
        quantiles
            Levels of a quantile forecast, (Q,); empty for a point forecast.
        mask
            True where the context is known, (B, M, L); None if all of it is.
        lookback
            Last steps of the context whose deviation counts; None for all of them.
        """
        values = forecast.double()
        if quantiles:
            levels = torch.tensor(quantiles, dtype=torch.float64, device=values.device)
            return cls(scores=torch.special.ndtri(levels), values=values)
        last = slice(None) if lookback is None else slice(-lookback, None)
        mask = None if mask is None else mask[..., last]
        deviation = _deviation(context[..., last].double(), mask).unsqueeze(-1)  # (B, M, 1)
        scores = torch.tensor([0.0, 1.0], dtype=torch.float64, device=values.device)
        return cls(scores=scores, values=torch.stack((values, values + deviation), dim=-1))

    def score(self, outcomes: Tensor) -> Tensor:
        """Return the scores, (B, M, H), at which the lines have these values, (B, M, H)."""
        value = outcomes.double().unsqueeze(-1)
        start, score, slope = self._pieces((value >= self.values[..., 1:-1]).sum(-1, keepdim=True))
        return (score + (value - start) / slope).squeeze(-1)

    def value(self, scores: Tensor) -> Tensor:
        """Return the values, (B, M, H, Q), that the lines have at scores, (B, M, H, Q)."""
        given = scores.double()
        inner = self.scores[1:-1]
        start, score, slope = self._pieces((given.unsqueeze(-1) >= inner).sum(-1))
        return start + (given - score) * slope

    def _pieces(self, which: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return where the pieces numbered `which`, (B, M, H, *), start, and their slopes."""
        widths = self.values.diff(dim=-1) / self.scores.diff()
        slopes = widths.clamp(min=_NARROWEST)
        return self.values.gather(-1, which), self.scores[which], slopes.gather(-1, which)


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Scores of what happened on held-out windows."""

    scores: Tensor
    """Scores, (W, M, H), float32, on the CPU; NaN of a variate and step that no window knows."""
    stretches: float = math.inf
    """How many horizons, one after another, the rows of the windows are long."""

    @property
    def lacking(self) -> Tensor:
        """True for a variate and step without scores, (M, H)."""
        return self.scores[0].isnan()

    @property
    def pooled(self) -> bool:
        """Whether windows are so few that the errors of a variate are read together at all steps.

        Their shape is then that of all steps, the spread each step's own or, of very few windows,
        that of all steps too.
        """
        return len(self.scores) < _FEWEST_WINDOWS and not bool(self.lacking.any())

    @property
    def widest(self) -> float:
        """The largest coverage of an interval that can be known from so many errors."""
        n = len(self.scores) * (self.scores.shape[2] if self.pooled else 1)
        return max(0.0, 1 - 2 / (n + 1))

    def _repr_html_(self) -> str:
        n_windows, n_variates, horizon = self.scores.shape
        text = (
            f"Calibration by {n_windows} held-out windows, variates: {n_variates}, steps: "
            f"{horizon}. An interval can be known up to a coverage of {100 * self.widest:.1f} %."
        )
        if lacking := int(self.lacking.sum()):
            text += f" Without scores: {lacking} of {n_variates * horizon} variates and steps."
        return f"<p>{text}</p>"

    def at(self, levels: Sequence[float]) -> Tensor:
        """Return the scores below which a share `levels`, (Q,), of outcomes falls, (M, H, Q).

        They are NaN of a variate and step without scores.

        Raises
        ------
        ParameterError
            There are too few windows to tell anything about a level.
        """
        scores, few = self.scores, self.pooled
        spread = torch.ones(1, dtype=torch.float64)
        if few:
            scores = scores.double()
            spread = scores.square().mean(0).sqrt().clamp(min=1e-12)  # (M, H)
            if len(scores) < _FEW_WINDOWS:
                spread = spread.square().mean(1, keepdim=True).sqrt().expand_as(spread)
            scores = (scores / spread).transpose(1, 2).flatten(0, 1).unsqueeze(-1)  # (W * H, M, 1)
        n = len(scores)
        edge = min(min(level, 1 - level) for level in levels)
        if edge * (n + 1) < 1 - 1e-9:
            needed = int(np.ceil(1 / edge - 1e-9)) - 1
            known = f"{n} errors" if few else f"{n} windows"
            raise ParameterError(
                f"quantile {edge:g} or {1 - edge:g} was asked for, but the calibration has {known},"
                f" and {needed} are needed to know it. Ask for a smaller coverage, raise "
                f"validation_fraction, or call calibrate with more rows."
            )
        values = scores.numpy()
        found = np.quantile(values, levels, axis=0, method="weibull")  # (Q, M, H or 1)
        median = np.median(values, axis=0)
        apart = np.array([self._widening(level) for level in levels])[:, None, None]
        found = median + apart * (found - median)
        return torch.from_numpy(np.moveaxis(found, 0, -1)) * spread.unsqueeze(-1)

    def _widening(self, level: float) -> float:
        """Return how much further than that of the scores the quantile of a level is away."""
        m = self.stretches
        if math.isinf(m) or level == 0.5:
            return 1.0
        return float(stdtrit(m, level) / ndtri(level)) * math.sqrt(1 + 1 / m)

    def draw(self, n: int, generator: np.random.RandomState) -> Tensor:
        """Return the scores of windows drawn at random with replacement, (n, M, H)."""
        return self.scores[torch.from_numpy(generator.randint(len(self.scores), size=n))]


@torch.inference_mode()
def calibrate(
    held_out: Iterable[tuple[nn.Module, Windows]],
    *,
    quantiles: Sequence[float] = (),
    lookback: int | None = None,
) -> Calibration:
    """Measure scores on windows that the network which forecasts them was not trained on.

    Parameters
    ----------
    held_out
        One network or more in evaluation mode, as `tsm2.training.fit_network` takes them, each with
        standardised windows. At most 512 windows in all, evenly spread, are forecast, and fewer
        (but 64) where that would make more than four million scores, or where classical forecasts
        of them take long.
    quantiles
        Levels of a quantile forecast; empty for a point forecast.
    lookback
        As for `ForecastLine.of`.

    Raises
    ------
    ParameterError
        Nothing is known in any of the windows.
    """
    pairs = list(held_out)
    parts, stretches = [], 0.0
    for network, each in pairs:
        windows = each.to(next(network.parameters()).device)
        stretches += float(each.stretches().max())
        n_variates = windows.values.shape[-1]
        most = min(ENOUGH_WINDOWS, _MOST_SCORES // (windows.horizon * n_variates))
        if isinstance(network, CombinedNetwork):
            most = min(most, affordable(windows.lookback, n_variates))
        spread = windows.spread(max(1, max(most, _FEWEST_WINDOWS) // len(pairs)))
        for which in torch.split(spread, _BATCH):
            batch = windows.gather(which)
            forecast = network(batch.context, **batch.auxiliary())
            line = ForecastLine.of(
                forecast,
                batch.context,
                quantiles=quantiles,
                mask=batch.mask,
                lookback=lookback,
            )
            scores = line.score(batch.target)
            if batch.target_mask is not None:
                scores = scores.where(batch.target_mask, torch.nan)
            parts.append(scores.float().cpu())
    return Calibration(scores=_filled(torch.cat(parts)), stretches=stretches)


def read_quantiles(
    line: ForecastLine,
    levels: Sequence[float],
    *,
    calibration: Calibration | None,
    quantiles: Sequence[float] = (),
) -> Tensor:
    """Return the quantiles of forecasts, (B, M, H, Q), which never cross, in standard units.

    Parameters
    ----------
    line
        The forecasts.
    levels
        Levels that are asked for, (Q,), rising.
    calibration
        What makes them hold; None takes the network at its word.
    quantiles
        Levels that the network forecasts; empty for a point forecast.

    Raises
    ------
    ParameterError
        The calibration has too few windows; or there is none and the network was not trained for
        such levels.
    """
    shape = (*line.values.shape[:-1], len(levels))
    if calibration is not None:
        scores = calibration.at(levels).to(line.values.device)[:, : shape[2]]
    elif quantiles and quantiles[0] <= min(levels) and max(levels) <= quantiles[-1]:
        scores = torch.special.ndtri(line.scores.new_tensor(levels))
    else:
        learnt = f"quantiles from {quantiles[0]:g} to {quantiles[-1]:g}" if quantiles else "a point"
        raise ParameterError(
            f"quantiles {', '.join(f'{level:g}' for level in levels)} were asked for, but this "
            f"network forecasts {learnt} and was not calibrated. Fit with a validation_fraction "
            f"above 0, call calibrate with rows that it was not trained on, or fit with quantiles "
            f"that reach so far."
        )
    return line.value(scores.expand(shape)).cummax(-1).values  # rounding alone could cross them


@torch.inference_mode()
def draw_paths(
    network: Callable[..., Tensor],
    context: Tensor,
    steps: int,
    *,
    calibration: Calibration,
    quantiles: Sequence[float],
    generator: np.random.RandomState,
    lookback: int | None = None,
    alike: int = 1,
    auxiliary: Mapping[str, Tensor] = MappingProxyType({}),
) -> Tensor:
    """Continue each context by a path that errs as the network did on a held-out window.

    Parameters
    ----------
    network
        In evaluation mode.
    context
        Standardised, (B, M, L), on the network's device.
    steps
        Steps of a path; beyond the trained horizon it rolls forward on itself.
    calibration
        Scores of the held-out windows; every path, and every roll of it, draws one of them.
    quantiles
        Levels that the network forecasts; empty for a point forecast.
    generator
        Draws.
    lookback
        As for `ForecastLine.of`.
    alike
        How many contexts, one behind another, are the same: their first roll is forecast once.
    auxiliary
        What else the network reads, as for `tsm2.fitted.rolling.roll_forward`.

    Returns
    -------
    Paths, (B, M, steps), in standard units; NaN of a variate and step without scores, for which
    the other variates see the forecast itself.
    """

    def drawn(forecast: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        line = ForecastLine.of(forecast, context, quantiles=quantiles, mask=mask, lookback=lookback)
        scores = calibration.draw(len(context), generator).nan_to_num(0.0)  # (B, M, H)
        scores = scores.to(context.device)
        return line.value(scores.unsqueeze(-1)).squeeze(-1).float()

    rolls = itertools.count()

    def forecast(context: Tensor, **more: Tensor) -> Tensor:
        if next(rolls) or alike == 1:
            return network(context, **more)
        first = network(context[::alike], **{name: each[::alike] for name, each in more.items()})
        return first.repeat_interleave(alike, dim=0)

    horizon = calibration.scores.shape[-1]
    paths = roll_forward(forecast, context, steps, horizon, auxiliary, point=drawn)
    lacking = calibration.lacking.repeat(1, -(-steps // horizon))[:, :steps]
    return paths.masked_fill(lacking.to(paths.device), torch.nan)


def _filled(scores: Tensor) -> Tensor:
    """Put the known scores of a variate and step, in turn, in place of its unknown ones.

    They are NaN where no window knows any.
    """
    known = scores.isfinite()
    counts = known.sum(0)  # (M, H)
    if not bool(counts.any()):
        raise ParameterError(
            "nothing is known in any of the held-out windows, so that no error can be measured. "
            "Give more rows, or fill their gaps."
        )
    if bool(known.all()):
        return scores
    ordered = scores.gather(0, known.int().argsort(dim=0, descending=True, stable=True))
    turn = (~known).cumsum(0) - 1
    in_turn = ordered.gather(0, turn.clamp(min=0) % counts.clamp(min=1))
    return scores.where(known, in_turn).masked_fill(counts == 0, torch.nan)


def _deviation(context: Tensor, mask: Tensor | None) -> Tensor:
    """Return the deviation of each context, (B, M, L), over what is known of it, (B, M)."""
    if mask is None:
        variance = context.var(-1, unbiased=False)
    else:
        count = mask.sum(-1, keepdim=True).clamp(min=1)
        mean = (context * mask).sum(-1, keepdim=True) / count
        variance = ((context - mean).square() * mask / count).sum(-1)
    return torch.sqrt(variance + TSM2Network.epsilon)
