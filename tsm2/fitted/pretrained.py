"""Pretrained networks as fitted models: what meets series that it was not fitted to.

    meet        series -> their units and season, their last rows kept -> FittedModel, at once
    fine_tune   what it misses is solved, then its weights go on for some gentle steps; both are
                kept if later rows say so

Sizes: S series, L lookback, H horizon.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch

from tsm2.errors import ParameterError, WindowError
from tsm2.fitted.model import FittedModel
from tsm2.networks.heads import mean_loss
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.prepared.codings import Codings
from tsm2.prepared.prepared import measured
from tsm2.prepared.roles import Roles
from tsm2.prepared.splits import split_starts
from tsm2.prepared.windows import Windows
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.series import Series
from tsm2.training.fit import Epoch, TrainingConfig
from tsm2.training.loop import fit_network
from tsm2.training.missed import BATCH, SolvedCandidate, solve_missed
from tsm2.training.recipe import Recipe
from tsm2.training.told import ToldNetwork, keep_told

__all__ = ["fine_tune", "fit_pretrained", "meet"]

_GENTLE = {"learning_rate": 1e-4, "mixer_learning_rate": 1e-4, "epoch_steps": 50}
"""What None stands for when weights are tuned that know much already."""
_JUDGED = 256  # windows at most that judge,
_WIDEST = 8192  # and windows times variates, as long as a batch is left
_KEPT = 8192  # windows times variates of which what is told is kept, 70 MB, to judge and to train
_SOLVED = 4096  # windows times variates


def fit_pretrained(
    network: ZeroShotNetwork,
    recipe: Recipe,
    series: Series,
    given: CovariateTables,
    *,
    before: FittedModel | None,
    tune: bool,
) -> tuple[FittedModel, list[SolvedCandidate], list[Epoch]]:
    """Return the model that takes series for its history, what was solved, and its epochs' losses.

    Parameters
    ----------
    network, recipe, series, given
        As for `meet`.
    before
        A model whose weights are tuned further in place of the network's; None for the network's.
    tune
        Whether the weights learn from the series, see `fine_tune`.

    Raises
    ------
    ParameterError, FrameError, WindowError
        As for `meet` and `fine_tune`.
    """
    model = meet(network, recipe, series, given)
    if not tune:
        return model, [], [Epoch(epoch=0, train_loss=None, validation_loss=None)]
    if before is not None and before.pretrained:
        model = replace(model, network=before.network)
    return fine_tune(model, recipe, series)


def meet(
    network: ZeroShotNetwork, recipe: Recipe, series: Series, given: CovariateTables
) -> FittedModel:
    """Return the model that forecasts series with a network as it is.

    Parameters
    ----------
    network
        Is left as it is; the model shares its weights.
    recipe
        What is asked for.
    series
        Gaps filled, if that is what is done about them.
    given
        Covariates, of which there must be none.

    Raises
    ------
    ParameterError
        There are covariates.
    FrameError
        A column has no value.
    """
    if given.given():
        raise ParameterError(
            f"a pretrained network reads no covariates, but {', '.join(given.given())} were given. "
            f"Leave them out, or fit a TSM2Forecaster of your own with them."
        )
    roles = Roles.of(None, series.layout)
    return FittedModel(
        network=network.for_season(recipe.season_of(series)),
        scaling=measured(series, each=recipe.scaling == "series").from_zero(),
        roles=roles,
        codings=Codings(),
        context=series.tail(network.config.lookback),
        missing=recipe.missing,
        nonnegative=recipe.nonnegative_of(series, roles),
        device=recipe.device,
        capture_steps=recipe.training["capture_steps"],
    )


def fine_tune(
    model: FittedModel, recipe: Recipe, series: Series
) -> tuple[FittedModel, list[SolvedCandidate], list[Epoch]]:
    """Solve what a model misses of its series, then train its weights gently; keep what is better.

    Parameters
    ----------
    model
        As `meet` returns it; left as it is.
    recipe
        Epochs, rates, validation share and seed; a rate that is None is a tenth of a fresh fit's.
        Without validation rows, or with a `linear_start` that is "random", nothing is solved.
    series
        What to learn from. Rows before the first ones count as unknown.

    Returns
    -------
    The model, what was solved and tried, and the losses of its epochs: the weights before the first
    step are epoch 0.

    Raises
    ------
    ParameterError
        The weights cannot be tuned on gaps that are not masked.
    WindowError
        There is less than one window to train on.
    """
    network = model.network
    if not isinstance(network, ZeroShotNetwork) or recipe.missing != "mask":
        raise ParameterError(
            f"a pretrained network is tuned on rows some of which count as unknown, but missing="
            f"{recipe.missing!r}. Pass missing='mask'."
        )
    windows, judged = _windows(model, recipe, series)
    config = _config(recipe, model.levels, len(windows))
    (seed,) = recipe.seeds()
    begun, tried = copy.deepcopy(network).cpu(), list[SolvedCandidate]()
    told, told_again = _judged(begun, judged, config.batch_size)
    windows = _told(begun, windows, config)
    if told is not None and recipe.linear_start != "random":
        begun, tried = solve_missed(begun, windows, told, chosen=_to_solve(windows, seed))
    before = None if told is None else _loss(begun, told, config)
    tuned = copy.deepcopy(begun)
    history = fit_network(ToldNetwork(tuned), windows, told_again, config, seed=seed)
    history = [Epoch(epoch=0, train_loss=None, validation_loss=before), *history]
    losses = [each.validation_loss for each in history[1:] if each.validation_loss is not None]
    if before is not None and losses and not min(losses) < before:
        tuned = begun
    return replace(model, network=tuned.eval()), tried, history


def _windows(model: FittedModel, recipe: Recipe, series: Series) -> tuple[Windows, Windows | None]:
    """Return the windows to train on, and some of those that judge, evenly spread."""
    sizes = {"lookback": model.lookback, "horizon": model.horizon}
    if (longest := series.counts.max()) <= model.horizon:
        raise WindowError(
            f"a pretrained network is tuned on more than the {model.horizon} rows that it "
            f"forecasts at once, but there are at most {longest}. Give more rows, or take it as it "
            f"is: warm_start=False."
        )
    # So many rows at least are read of a context, where a whole target is left behind them.
    read = np.minimum(series.counts // 4, series.counts - model.horizon)
    front = model.lookback - read.clip(1, model.horizon)
    rows = series.padded(np.maximum(front, 0))
    n_own = np.maximum(1, (series.counts * recipe.validation_fraction).astype(np.int64))
    kept = n_own if recipe.validation_fraction else np.zeros_like(n_own)
    kept = np.where(kept >= model.horizon, kept, 0)
    prepared = model.prepare(rows, CovariateTables(), own=True)
    train, held_out = split_starts(rows, rows.counts - kept, **sizes)
    windows = prepared.windows(train, model.horizon, balanced=recipe.sampling == "series")
    if not len(held_out):
        return windows, None
    most = min(_JUDGED, max(BATCH, _WIDEST // len(series.layout.columns)))
    spread = np.linspace(0, len(held_out) - 1, min(len(held_out), most)).round().astype(int)
    return windows, prepared.windows(held_out[spread], model.horizon)


def _judged(
    network: ZeroShotNetwork, windows: Windows | None, batch_size: int
) -> tuple[Windows | None, Windows | None]:
    """Return the windows that judge, with what is told of them: for solving and for training.

    It is found in the batches that it is read in, so that no loss moves by a bit: twice if they
    differ.
    """
    if windows is None or _n_rows(windows) > _KEPT:
        return windows, windows
    first = keep_told(network, windows, BATCH)
    return first, first if batch_size == BATCH else keep_told(network, windows, batch_size)


def _told(network: ZeroShotNetwork, windows: Windows, config: TrainingConfig) -> Windows:
    """Return windows to train on, with what is told of them if steps read them again.

    Steps read them in other batches, which what is told of a window does not depend on.
    """
    read = config.max_epochs * config.steps_per_epoch(len(windows)) * config.batch_size
    if windows.balanced or _n_rows(windows) > _KEPT or read < len(windows):
        return windows
    return keep_told(network, windows, BATCH)


def _n_rows(windows: Windows) -> int:
    """Return windows times variates."""
    return len(windows) * windows.values.shape[1]


def _to_solve(windows: Windows, seed: int) -> torch.Tensor:
    """Return the numbers of the windows that are solved on: all, or so many of them by chance."""
    count = max(BATCH, _SOLVED // windows.values.shape[1])
    if len(windows) <= count and not windows.balanced:
        return torch.arange(len(windows))
    generator = torch.Generator().manual_seed(seed)
    return next(windows.batches(count, generator=generator)).cpu()


def _config(recipe: Recipe, levels: tuple[float, ...], n_windows: int) -> TrainingConfig:
    asked = {**recipe.training, "batch_size": recipe.batch_size_for(n_windows)}
    fixed = {"loss": "quantile", "quantiles": levels, "linear_start": "random", "season": None}
    gentle = {name: asked[name] or value for name, value in _GENTLE.items()}
    return TrainingConfig(**{**asked, **fixed, **gentle, "sam_radius": asked["sam_radius"] or 0.0})


@torch.inference_mode()
def _loss(network: ZeroShotNetwork, windows: Windows, config: TrainingConfig) -> float:
    """Return the mean loss over all that is known of windows."""
    told = ToldNetwork(network)
    batches, losses = list(windows.batches(BATCH)), []
    for which in batches:
        batch = windows.gather(which)
        forecast = told(batch.context, **batch.auxiliary())
        loss = mean_loss(
            "quantile",
            forecast,
            batch.target,
            quantiles=config.quantiles,
            mask=batch.target_mask,
        )
        losses.append(float(loss))
    return windows.mean_over(batches, losses)
