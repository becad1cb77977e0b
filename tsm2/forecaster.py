"""TSM2Forecaster: a scikit-learn style estimator around the TSM2 network.

    fit:      table -> Series -> split -> Prepared -> windows -> network -> training -> FittedModel
    predict:  history -> Series -> Prepared -> network, rolled forward -> original units -> table

What the parameters mean stands here, because scikit-learn shows it; their defaults, and what each
may be, are in `tsm2.parameters`. What a fit leaves behind is a `FittedModel`, which every other
verb asks; what verbs begin with, a table read and the model at hand, is `tsm2.estimator`.

Sizes: S series, T rows, M variates, B windows, L lookback, H horizon, Q quantiles, N sampled paths.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from tsm2 import saving
from tsm2.backtest_request import BacktestRequest
from tsm2.backtesting import Floor, Walked, naive_scale_table, recalibrated, scale_table
from tsm2.errors import ParameterError, SavedModelError
from tsm2.estimator import Estimator
from tsm2.fitted.explanation import Explanation, WhatIf
from tsm2.fitted.exporting import export_onnx
from tsm2.fitted.inspection import Selection
from tsm2.fitted.model import FittedModel
from tsm2.fitted.pretrained import fit_pretrained
from tsm2.fitted.saved import SavedFit
from tsm2.fitted.what_if import what_if
from tsm2.fitting import Fitting, train_further
from tsm2.model_card import model_card
from tsm2.networks.pretrained import load_pretrained
from tsm2.networks.tsm2 import TSM2Network
from tsm2.parameters import (
    changed_parameters,
    check_count,
    check_generator,
    check_path,
    check_seconds,
    check_tuning,
    parameters_from_plain,
    plain_parameters,
)
from tsm2.plotting.forecasts import plot_series
from tsm2.prepared.prepared import filled
from tsm2.prepared.scaling import Scaling, labels_of
from tsm2.refitting import Refits
from tsm2.tables.containers import to_library
from tsm2.tables.covariates import CovariateTable, CovariateTables
from tsm2.tables.quantiles import check_levels, interval_levels
from tsm2.tables.read import Data
from tsm2.tables.series import Series, warn_of_other_frequencies
from tsm2.tables.write import write, write_many
from tsm2.training import choose_device
from tsm2.training.callbacks import FitTasks, closes_callbacks, history_table
from tsm2.training.choices import chosen, with_solved
from tsm2.training.recipe import choices_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TSM2Forecaster"]


class TSM2Forecaster(Estimator):
    """Forecast all columns of a table, or of many series, with TSM2, the MambaMixer network.

    Parameters
    ----------
    lookback
        Rows that the network reads. Of several, such as (168, 336), the first is read, unless
        another errs clearly less on the validation windows: four times as many as it has rows, or
        it is not tried. "auto" tries lengths that suit season, horizon and rows; only then, and
        without covariates, an exact start is averaged with simple forecasts, unless many validation
        windows speak against it: that errs less on short tables. On long ones an exact start that
        is the mean of the maps from both levels is also that over two lookbacks that err alike, if
        it then errs less on the validation windows; the network reads the longest of them.
    horizon
        Rows that it forecasts at once; `predict` rolls forward for more.
    features
        Width of a patch's embedding.
    blocks
        MambaMixer blocks; 0 leaves a linear model.
    patch_length
        Rows in a patch; None for 16, or the lookback if that is shorter.
    patch_stride
        Rows from one patch to the next; None for the patch length.
    d_state
        States per inner feature of a scan.
    d_conv
        Taps of the short convolution before a scan.
    expand
        Inner width of a mixer as a multiple of `features`.
    dropout
        Share of the mixers' outputs that is zeroed in training, in [0, 1).
    pre_norm
        What normalises a mixer's input: "2d" (patches and features), "layer", "rms" or "none".
    selection
        What the scans select by: the "convolved" tensor or the mixer's "input".
    time_mixer
        "selective"; "linear" and "none" are for ablation.
    variate_mixer
        "selective"; "mlp" and "none" (every variate on its own) are for ablation.
    variate_directions
        Scan the variates in "both" directions or only "forward".
    averaging
        Initial weights of the averaging of earlier outputs: "stream", "identity" or "mean".
    averaging_learned
        Learn these weights.
    averaging_reach
        How many outputs back a block may look; None for all.
    readout
        What the head reads: the "stream" that a next block would receive or the "last" output.
    zero_start
        Start the mixers at zero, so that the network starts as a linear model.
    zero_head
        Start the head at zero too: the first forecast is the window's level.
    linear_start
        Start from the linear model of least squares, "exact", which counts as epoch 0, or from
        drawn weights, "random". "auto" is exact where mixers start at zero behind a plain stream.
    refit_linear
        Solve the linear start again on all rows, those for validation included; to a network that
        was trained on from it, add what that changes.
    start_margin
        Share by which a later epoch's validation loss must be lower than an exact start's, where 30
        forecasts one after another judge; it grows with one over the root of their number where
        there are fewer.
    season
        Rows of a season, for the choice of `lookback` and `level` and for simple forecasts; None
        for that of the frequency.
    instance_norm
        Remove each window's own level and deviation, and put both back at the end.
    level
        A window's level: its "mean", or its "last" value, for what moves like a random walk, such
        as exchange rates. "auto" chooses, and where nothing but values is read, an exact start is
        then the mean of the maps from both; where many validation windows say that levels come back
        to the mean of the training rows, half of it counts from that.
    separate_heads
        Give every variate a head of its own; "auto" chooses. Where an exact start is averaged, its
        map is averaged with that of all, each by its errors on the variate's validation rows.
    quantiles
        Levels, such as (0.1, 0.5, 0.9), to forecast besides the median, which is then the point
        forecast; None for a point forecast alone.
    loss
        What is minimised: "mse", "mae", "huber" or, for `quantiles`, "quantile"; None for "mse", or
        "quantile" if there are `quantiles`.
    max_epochs
        Epochs at most. An epoch is a pass over the training windows, or as much of one, or as many,
        as the next three say; then the network is validated.
    epoch_steps
        Steps of an epoch at most; None for 150 after an exact start, else for whole passes.
    min_steps, max_steps
        Steps of all `max_epochs` epochs together, at least and at most: a budget that does not hang
        on how many windows there are. `max_steps` None sets no limit.
    batch_size
        Windows in a training step of one process; "auto" takes 32, and down to 8 where a pass would
        else have fewer than 16 steps.
    learning_rate
        Peak learning rate of the linear path; None for 1e-5 after an exact start, else 1e-3.
    mixer_learning_rate
        Peak learning rate of the mixers; None for 1e-3 after an exact start, else 3e-3.
    weight_decay
        Decay of the mixers' matrices (AdamW).
    sam_radius
        Radius of the mixers' sharpness-aware minimisation; wider mixers bear a larger one. 0 halves
        the training time; None for 0 after an exact start, else 0.35.
    ema_decay
        Share of the old average in a moving average of the weights, in [0, 1), which is then
        validated and kept; 0 keeps the weights themselves.
    gradient_clip
        Largest norm of the gradients.
    schedule
        Course of the learning rates: "onecycle", "cosine" or "constant".
    validation_fraction
        Share of the last rows that is kept from training and stops it, in [0, 1); 0 trains for
        `max_epochs` and keeps the last weights.
    patience
        Epochs without a better validation loss after which training stops: of as many steps each
        as `min_steps` and `max_steps` make them.
    frequency
        pandas alias of the time between rows, or an offset such as
        `pd.offsets.CustomBusinessDay(holidays=...)`; None takes that of the index, or infers it.
    target
        Column, or list of columns, to forecast; the others are then read as past covariates. None
        forecasts all.
    calendar
        Features of the time stamps to read as future covariates: "minute", "hour", "day",
        "dayofweek", "weekend", "dayofyear", "month", "quarter". "auto" reads hour, day of the week
        or month, or all of them, where the exact linear forecast errs clearly less with them on the
        validation rows; with missing="mask" it reads none.
    holidays
        Regions whose holidays to read as future covariates, such as ("DE-BY", "FR", "XNYS"):
        countries, parts of them or stock exchanges, as the package `holidays` knows them. Each
        tells the day, the day before and the day after.
    missing
        What is done about NaN and about rows that the index lacks: "raise" refuses them, "mask"
        leaves them out of scaling and loss and tells the network, "ffill" repeats the value before.
        "mask" also pads those of several series that are shorter than a window with unknown rows.
    scaling
        Standardise every "series" by its own training rows or all alike, "global". A series that
        `fit` has not seen is measured by the history that it comes with.
    logarithms
        Standardise the logarithms of what is forecast, which must be above zero: for growth by a
        share, and swings that are the wider the higher the level. The forecast is then rather the
        median of what may come than its mean. "auto" does so for columns that are above zero, whose
        level moves by a fifth and more, and whose swings clearly move with it.
    nonnegative
        Forecast nothing below zero, neither a value nor an end of an interval: sales, rain, what
        the sun yields. "auto" does so for columns that have never been below zero and have come to
        it in a twentieth of the rows and ten times or more; True for all that is forecast. Where
        the rows that are read for a forecast have been below zero, it may be, too.
    classical
        Average what was fitted, half and half, with classical forecasts of the whole of each
        history, up to 2,000 rows: that errs less where series are short or differ, and a forecast
        takes milliseconds more. "auto" does so where `lookback` is "auto", without covariates,
        unless many validation windows speak against it; True in any case, of values alone.
    leaders
        Let a variate's forecast read the latest rows of all columns too, and not its own lookback
        alone: where one column leads another by some rows, that is what tells. "auto" does so where
        that errs a twentieth less on the validation rows than all else, classical forecasts among
        it; True wherever it errs less for a variate. Past covariates are columns too. It
        takes two columns or more, and all values known or filled.
    sampling
        Let a pass over the training windows take all "windows" once, or draw from every "series"
        equally often, so that long ones do not drown short ones.
    scaled_errors
        Let the errors of each series count in units of its own seasonal naive error, as MASE does,
        and not of its deviation, where they are minimised: series that hardly leave their season
        then count as much as those that do. "auto" does so for several series without covariates
        where the exact linear forecast then errs a tenth less in these units on the validation
        rows.
    id_col, time_col, target_col
        Columns of a long frame, which has a row per series and time: the series, the time stamp,
        the variate or a list of variates. A frame with the first of them is taken for one.
    device
        "auto" takes the first of "cuda", "mps" and "cpu" that is here.
    precision
        "float32", or "bfloat16" for mixed precision.
    compile
        Compile the network for training with `torch.compile`: a slow first step, faster later ones.
        Needs a C++ compiler on a CPU.
    capture_steps
        Record a training step as a CUDA graph and replay it: the same weights, many times faster
        for small networks. "auto" does so on CUDA where it is possible, `tsm2 info` says whether;
        True refuses to fit where it is not, False leaves it out. So it is with validation and
        forecasts of more than ten equal batches.
    backend
        Kernel backend, see `tsm2.kernels.selective_scan`.
    random_state
        Seed; an integer makes fits repeatable bit for bit on one machine.
    n_estimators
        Networks that differ in their seed alone and whose forecasts are averaged: better, and as
        many times as slow. The first is the one that a fit of one network gives. Callbacks are told
        of the fit of several, but not of their epochs.
    n_jobs
        Networks that are fitted side by side, through joblib; None is 1 unless a
        `joblib.parallel_config` says more, -1 takes all processors.
    pretrained
        Weights that forecast without a fit, see `from_pretrained`: "zero", or a folder. `fit` then
        learns nothing and takes the table for the history that is known; with `warm_start` it
        solves what they miss and trains them on. None has none.
    warm_start
        Let `fit` begin with the weights of the last fit, or of the loaded model, in place of drawn
        ones. Scaling is measured anew.
    verbose
        1 shows training progress with the time left.

    Attributes
    ----------
    fitted_
        The `tsm2.fitted.FittedModel`, which holds what the last ten show, and forecasts.
    choices_
        What was tried for what is left to "auto", with the validation error of the exact linear
        forecast and which was `chosen`; one row if there was no choice. Where that is averaged with
        simple forecasts, `regressed` says how many rows it reads itself, and `cycle` what season
        they have; `averaged` says whether it is the mean of the maps from both levels, `lookbacks`
        over which lookbacks too, `reverts` whether half of it counts from the mean of the training
        rows, `classical` whether the model is averaged with classical forecasts of whole histories,
        `leaders` how many rows of all columns forecasts read where these lead, `led` whose do,
        `logarithms` which columns are measured in them, and `nonnegative` which have no forecast
        below zero, if any have; `scaled_errors` in what units errors counted, `validation_mse`
        among them. Of pretrained weights that are tuned, what was `solved`.
    floor_
        Mean squared errors on the validation rows, on standardised values, of the model and of the
        forecasts that it should beat: "repeat last", "seasonal naive" and "linear", the exact
        start, of which a model that is averaged with classical forecasts is not warned; empty
        without validation rows. With `scaled_errors` they are in these units, and so
        are the losses of `history_`. A model that errs more warns (`FloorWarning`).
    history_
        Losses of every epoch, on standardised values, an exact start as epoch 0; of several
        networks, `member` says whose.
    n_rows_
        Rows that `fit` was given, of all series together; None if the model was made elsewhere.
    n_iter_
        Epochs trained; of several networks, the most that one of them was.
    n_features_in_, feature_names_in_
        Number of columns, and their names if all are strings.
    network_
        The trained network, or the `Ensemble` of several; without the classical forecasts that
        `fitted_` may average it with.
    scaling_
        Mean and deviation of every column over the training rows, (M,), or of each series, (S, M);
        of their logarithms where `logs` says so.
    calibration_
        Scores of the held-out windows, which quantiles are read against; None without any.
    roles_
        Which of the columns are forecast.
    knowledge_
        How covariates are coded, and those rows that a forecast without new ones reads.
    series_
        Names of the series, in their order; their positions for a list.
    layout_
        The container that came in: columns, frequency, time zone.
    context_, context_index_
        The last rows of every series, one after another, (T, M), and their stamps, (T,): `lookback`
        of each, or 2,000 where classical forecasts read them, or as many as there are.
    context_offsets_
        Row of `context_` at which each series starts, and the end, (S + 1,).

    Notes
    -----
    What holds for all methods is said once, here; each says only what is its own.

    `X` comes in any container that `fit` takes, the same in every call, and forecasts go out in it,
    with its columns and units. It may hold series that `fit` has not seen. None stands for the
    history that is known: the training table and what `update` added.

    `horizon` is how many rows to forecast; None for the trained horizon.

    `past_covariates`, `future_covariates` and `static_covariates` are passed as to `fit`, of the
    kinds that `fit` was given: past ones with a row for each of the last `lookback` rows of the
    history, those of the future also for the rows to forecast, in whole trained horizons. A method
    that forecasts from many rows of `X` needs them for every row. Rows that they lack are taken
    from those that `fit` was given. An array ends with the last row needed.

    All but `fit`, `load` and a backtest with `refit` raise `NotFittedError` if nothing was fitted
    yet; `FrameError` if columns, frequency or kind of index are not those of the fit, or covariates
    lack rows or are not like those of the fit; `WindowError` if a history is shorter than the
    lookback (with missing="mask" the rows before it count as unknown, unless there are covariates);
    `ParameterError` if covariates are of a kind that `fit` was not given, an argument is out of its
    range, or the horizon rolls forward where past covariates would be needed.

    References
    ----------
    Behrouz, Santacatterina & Zabih (2024), "MambaMixer", arXiv:2403.19888, section 5.

    Examples
    --------
    >>> from tsm2.datasets import load_sample
    >>> frame = load_sample().iloc[:400]
    >>> model = TSM2Forecaster(lookback=48, horizon=24, max_epochs=1, random_state=0).fit(frame)
    >>> model.predict().shape == (24, frame.shape[1])
    True
    """

    # --- learn --------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, name: str = "zero", **parameters: Any) -> Self:
        """Return a forecaster that needs no fit: its network has learned from generated series.

        `predict`, `predict_quantiles`, `predict_interval`, `backtest`, `score` and `plot` then
        take any table, or any series, as `X`, read their last 512 rows or as many as there are, and
        forecast every column; gaps and short histories count as unknown. What needs a known history
        (`X=None`, `update`, `calibrate`, `save`) first needs `fit`, which learns nothing but takes
        the table for it. With `warm_start=True`, `fit` solves what the network misses on the
        table, exactly, and trains the weights on, gently; validation rows say what is kept.

        Parameters
        ----------
        name
            "zero", or a folder that `python -m tsm2.pretraining` wrote.
        **parameters
            Of the estimator, by name, such as `season` for rows without time stamps.

        Raises
        ------
        ParameterError
            There are no such weights, or no such parameter.
        SavedModelError
            The folder is damaged.

        Examples
        --------
        >>> from tsm2.datasets import load_sample
        >>> frame = load_sample().iloc[:400]
        >>> model = TSM2Forecaster.from_pretrained("zero")
        >>> model.predict(frame, horizon=24).shape == (24, frame.shape[1])
        True
        """
        network = load_pretrained(name)
        unknown = sorted(set(parameters) - set(cls().get_params()))
        if unknown:
            raise ParameterError(f"TSM2Forecaster has no parameter {unknown[0]!r}.")
        config = network.config
        sizes: dict[str, Any] = {"lookback": config.lookback, "horizon": config.horizon}
        forecaster = cls(**{**sizes, "missing": "mask", "pretrained": name, **parameters})
        forecaster._read_network = (name, network)
        return forecaster

    def fit(
        self,
        X: Data,
        y: object = None,
        *,
        past_covariates: CovariateTable = None,
        future_covariates: CovariateTable = None,
        static_covariates: CovariateTable = None,
        checkpoint: str | os.PathLike[str] | None = None,
        max_time: float | str | pd.Timedelta | None = None,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Learn to forecast the columns of a table, or of many series with one network.

        Parameters
        ----------
        X
            Rows are time steps, columns variates, (T, M). A DataFrame's index is a regular
            DatetimeIndex, PeriodIndex or RangeIndex; or one of its columns holds the time stamps,
            as in a table of polars or Arrow; a pandas Series is one column with its index. Several
            series with the same variates and frequency, from when to when ever, come as a long
            table, a frame with a MultiIndex (series, time), or a list or dict of tables; each gives
            its own last rows to validation, unless it is too short for that.
        y
            Ignored; scikit-learn's interface asks for it.
        past_covariates
            What is measured beside `X`: a table with a row for every row of `X` at least, found by
            its stamp. Of several series, in the container of `X`, or one table for all of them.
            Columns hold numbers or categories.
        future_covariates
            What is known in advance: as `past_covariates`. Rows after the end of `X` are kept for
            `predict`.
        static_covariates
            What holds at all times: a table whose index names the variates, or the series; of
            polars or Arrow, its column "variate", or the one of the series' names ("series" for a
            list or dict).
        checkpoint
            Folder that keeps the fit while it runs. The same call goes on from there after a
            crash, to the weights that it would have reached in one go, and returns at once when the
            fit is through; `random_state` must be given.
        max_time
            Seconds, or a text such as "90min", after which training ends with the best weights so
            far. With a checkpoint, the same call then goes on for as long again.
        log_dir
            Folder for TensorBoard's record of every epoch.

        Raises
        ------
        ParameterError
            A parameter has the wrong type or lies outside its range.
        FrameError
            The table, or a series, is irregular, not numeric or not finite; or covariates lack
            rows, or do not go with it.
        WindowError
            The table, or a series, is too short for lookback, horizon and validation.
        BackendError
            The device or the kernel backend is not at hand.
        TrainingError
            The loss left the finite numbers.
        SavedModelError
            The checkpoint is damaged, or was begun with another table or other parameters.
        OutputError
            The checkpoint cannot be written.
        """
        self._check_parameters()
        series = self._read(X)
        if self.frequency is None:
            warn_of_other_frequencies(series)
        return self.fit_series(
            series,
            CovariateTables(past_covariates, future_covariates, static_covariates),
            data=X,
            checkpoint=None if checkpoint is None else check_path("checkpoint", checkpoint),
            max_seconds=math.inf if max_time is None else check_seconds(max_time),
            log_dir=None if log_dir is None else check_path("log_dir", log_dir),
        )

    @closes_callbacks
    def fit_series(
        self,
        series: Series,
        given: CovariateTables,
        *,
        data: Data | None = None,
        choices: pd.DataFrame | None = None,
        checkpoint: Path | None = None,
        max_seconds: float = math.inf,
        log_dir: Path | None = None,
    ) -> Self:
        """Fit series that were read before, as `fit`.

        `data` is what callbacks are shown; `choices` that were made before are made no more.
        """
        series, recipe = filled(series, self.missing), self._recipe()
        before = getattr(self, "fitted_", None) if self.warm_start else None
        if self.pretrained is not None:
            check_tuning(checkpoint, log_dir, max_seconds)
            network = self._pretrained_network()
            model, tried, epochs = fit_pretrained(
                network, recipe, series, given, before=before, tune=self.warm_start
            )
            choice = {"season": recipe.season_of(series)}
            self.take_over(model, history_table(epochs), choice=choice, n_rows=len(series.values))
            self.choices_ = with_solved(self.choices_, tried)
            return self
        if choices is None and before is not None:
            choices = recipe.choose_again(self.choices_)
        resumable = checkpoint is not None
        fitting = Fitting.of(
            recipe, series, given, choices=choices, before=before, resumable=resumable
        )
        self._check_columns(series.layout, reset=True)
        self.choices_, self.floor_ = fitting.choices, pd.Series(dtype=float)
        self.__dict__.pop("fitted_", None)  # what fails from here on leaves nothing half fitted
        tasks = FitTasks(
            self,
            write(series) if data is None else data,
            lambda kept: {"fitted_": replace(fitting.model, network=cast("TSM2Network", kept))},
        )
        model, history, floor = fitting.run(
            checkpoint=checkpoint, max_seconds=max_seconds, log_dir=log_dir, watch=tasks
        )
        self._become(model, history, fitting.choices, floor, len(series.values))
        tasks.close()
        return self

    def take_over(
        self,
        model: FittedModel,
        history: pd.DataFrame,
        *,
        choice: Mapping[str, Any] = MappingProxyType({}),
        floor: pd.Series[float] | None = None,
        n_rows: int | None = None,
    ) -> Self:
        """Become fitted with a model that was made elsewhere, and the losses of its epochs.

        `choice` is what was chosen for its start, which its network does not say of itself: the
        season, and the rest of what `tsm2.training.recipe.BEGUN` names.
        """
        layout = model.context.layout
        choices = choices_of(
            model.network.config,
            model.codings.calendar,
            choice,
            logarithms=model.scaling.in_logarithms(layout.columns),
            nonnegative=labels_of(model.roles.layout(layout).columns, model.nonnegative),
        )
        floor = pd.Series(dtype=float) if floor is None else floor
        return self._become(model, history, choices, floor, n_rows)

    def update(
        self,
        X: Data,
        *,
        epochs: int = 0,
        past_covariates: CovariateTable = None,
        future_covariates: CovariateTable = None,
    ) -> Self:
        """Let new rows become history, and train on them further if asked to.

        Parameters
        ----------
        X
            The rows after those that the forecaster knows. An array's rows are taken as the next
            ones. Of several series, any that `fit` has seen may be there.
        epochs
            Passes over the windows that end in the new rows, from the weights as they are and
            with the learning rates and the schedule that are set. The scaling stays. 0 learns
            nothing: `predict` continues the new rows with the old weights.
        past_covariates, future_covariates
            Of the new rows; those of known rows were kept.

        Raises
        ------
        FrameError
            The rows do not go on where the known ones end.
        WindowError
            There is less than one window to train on.
        """
        model = self._model()
        whole = model.extended(self._read_history(X))
        given = CovariateTables(past_covariates, future_covariates)
        continued = model.continued(whole, given)
        if epochs:
            self._check_parameters()
            count = check_count("epochs", epochs)
            known: dict[str, Any] = {"choices": self.choices_, "history": self.history_}
            self.history_ = train_further(
                self._recipe(), model, whole, given, **known, epochs=count
            )
            self.n_iter_ = int(self.history_["epoch"].max())
        self.fitted_ = continued
        return self

    # --- forecast -----------------------------------------------------------------------------

    def predict(
        self,
        X: Data | None = None,
        *,
        horizon: int | None = None,
        past_covariates: CovariateTable = None,
        future_covariates: CovariateTable = None,
        static_covariates: CovariateTable = None,
    ) -> Any:
        """Forecast the rows after a history.

        The parameters, and what is raised, are those that the notes of the class describe; `X` is
        the history to continue.

        Returns
        -------
        The next rows, (H, M), as `X` came; of several series, the next H rows of each.
        """
        given = CovariateTables(past_covariates, future_covariates, static_covariates)
        model, rows, windows = self._latest(X, horizon, given)
        return write(rows.continued(model.forecast(*windows)))

    def predict_quantiles(
        self,
        X: Data | None = None,
        *,
        quantiles: Sequence[float] | None = None,
        horizon: int | None = None,
        calibrated: bool = True,
        past_covariates: CovariateTable = None,
        future_covariates: CovariateTable = None,
        static_covariates: CovariateTable = None,
    ) -> Any:
        """Forecast levels below which given shares of what happens should fall.

        They are calibrated on the validation rows of `fit`, or on the rows given to `calibrate`,
        whether the network forecasts a point or quantiles. The rest is as in `predict`.

        Parameters
        ----------
        quantiles
            Levels in (0, 1), rising; None for the parameter `quantiles`, or else 0.1, 0.5, 0.9.
        horizon
            Rows to forecast, at most the trained horizon: `sample` rolls forward.
        calibrated
            False takes the network's own quantiles at their word.

        Returns
        -------
        The next rows: a DataFrame with the columns (variate, quantile); a long table, or one with
        its stamps in a column, with columns such as "y-lo-80" and "y-hi-80"; or an array,
        (H, M, Q). Quantiles do not cross.

        Raises
        ------
        ParameterError
            There is no calibration, or too little for such levels.
        """
        given = CovariateTables(past_covariates, future_covariates, static_covariates)
        model, rows, windows = self._latest(X, horizon, given)
        levels = check_levels(self.quantiles or (0.1, 0.5, 0.9) if quantiles is None else quantiles)
        values = model.quantiles(*windows, levels, calibrated=calibrated)
        return write_many(rows, values, levels, of="quantile")

    def predict_interval(
        self,
        X: Data | None = None,
        *,
        coverage: float = 0.8,
        horizon: int | None = None,
        calibrated: bool = True,
        past_covariates: CovariateTable = None,
        future_covariates: CovariateTable = None,
        static_covariates: CovariateTable = None,
    ) -> Any:
        """Forecast intervals that a share `coverage` of what happens should fall into.

        Parameters
        ----------
        coverage
            In (0, 1); as many outcomes should lie above the interval as below it.

        Returns
        -------
        The quantiles (1 - coverage) / 2 and (1 + coverage) / 2; all else is as in
        `predict_quantiles`.
        """
        return self.predict_quantiles(
            X,
            quantiles=interval_levels(coverage),
            horizon=horizon,
            calibrated=calibrated,
            past_covariates=past_covariates,
            future_covariates=future_covariates,
            static_covariates=static_covariates,
        )

    def sample(
        self,
        X: Data | None = None,
        *,
        n_samples: int = 100,
        horizon: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        past_covariates: CovariateTable = None,
        future_covariates: CovariateTable = None,
        static_covariates: CovariateTable = None,
    ) -> Any:
        """Draw paths that the table may take.

        Each path errs as the network did on one of the held-out windows, at all steps and for all
        variates together, so that sums and maxima over a path have their right spread too. Beyond
        the trained horizon every path rolls forward on itself. The rest is as in `predict`.

        Parameters
        ----------
        n_samples
            Paths N.
        random_state
            Seed or generator of the draws.

        Returns
        -------
        The next rows: a DataFrame with the columns (variate, sample); a long table, or one with
        its stamps in a column, with columns such as "y-0" and "y-1"; or an array, (H, M, N).

        Raises
        ------
        ParameterError
            There is no calibration.
        """
        count = check_count("n_samples", n_samples)
        generator = check_generator(random_state)
        given = CovariateTables(past_covariates, future_covariates, static_covariates)
        model, rows, windows = self._latest(X, horizon, given)
        values = model.paths(*windows, count, generator)
        return write_many(rows, values, range(count), of="sample")

    def forecast_contexts(
        self, contexts: NDArray[np.float64], horizon: int, *, units: Scaling | None = None
    ) -> NDArray[np.float64]:
        """Forecast many contexts at once, without looking at any index.

        Parameters
        ----------
        contexts
            Histories of `lookback` rows, (B, L, M), in the units of the training table; of more
            where classical forecasts are to read them. Where the model was fitted with
            missing="mask", they may be shorter, and NaN where unknown.
        units
            Units of the contexts, (M,) or (B, M); None for those of the training table.

        Returns
        -------
        Forecasts of the targets, (B, H, M), in the same units.

        Raises
        ------
        ParameterError
            The model reads covariates, or columns that are not forecast and would be needed; or
            these are no contexts of its columns.
        WindowError, FrameError
            Contexts are too short, or hold NaN.
        """
        model = self._model()
        prepared, starts = model.of_contexts(contexts, horizon, units)
        return model.forecast(prepared, starts, horizon, size=len(starts))

    def forecast_quantiles(
        self,
        contexts: NDArray[np.float64],
        horizon: int,
        levels: Sequence[float],
        *,
        calibrated: bool = True,
        units: Scaling | None = None,
    ) -> NDArray[np.float64]:
        """Forecast quantiles, (B, H, M, Q), of many contexts at once.

        All is as in `forecast_contexts` and `predict_quantiles`; `levels` are the latter's
        `quantiles`, (Q,).
        """
        model = self._model()
        prepared, starts = model.of_contexts(contexts, horizon, units)
        size = len(starts)
        return model.quantiles(prepared, starts, horizon, levels, calibrated=calibrated, size=size)

    # --- look back ----------------------------------------------------------------------------

    def calibrate(
        self,
        X: Data,
        *,
        start: object = None,
        past_covariates: CovariateTable = None,
        future_covariates: CovariateTable = None,
        static_covariates: CovariateTable = None,
    ) -> Self:
        """Calibrate quantiles on rows that the network was not trained on.

        `fit` does it on its validation rows. Do it again when newer rows have come, or to have a
        word on levels far out, which need many windows. `X` and `start` are as in `backtest`.
        """
        given = CovariateTables(past_covariates, future_covariates, static_covariates)
        model = self._model()
        self.fitted_ = recalibrated(model, self._read_history(X), given, start, model.horizon)
        return self

    def backtest(
        self,
        X: Data,
        *,
        horizon: int | None = None,
        start: object = None,
        stride: int = 1,
        refit: bool | int = False,
        window: Literal["expanding", "sliding"] = "expanding",
        n_jobs: int | None = None,
        quantiles: Sequence[float] | None = None,
        coverage: float | None = None,
        intervals: Literal["calibrated", "adaptive"] = "calibrated",
        to: str | os.PathLike[str] | None = None,
        past_covariates: CovariateTable = None,
        future_covariates: CovariateTable = None,
        static_covariates: CovariateTable = None,
    ) -> Any:
        """Forecast from every `stride`-th row of a table and set the truth beside it.

        Rows that the model was trained on are forecast too well: pass later rows, or `start`, or
        `refit`. If the table goes on where the training table ended, the stored context stands
        before it.

        Parameters
        ----------
        start
            Label of the first row to forecast; None for the first with a full lookback before it.
            Of several series, each starts at its first row from there on that has a full lookback
            before it; one without such a row is left out.
        stride
            Rows from one forecast to the next.
        refit
            False: the fitted network makes every forecast. A number: a copy is fitted before
            every so many forecasts, to the rows before the first of them and to nothing else;
            True is 1. The forecaster itself need not be fitted and stays as it is; `start` must
            be given.
        window
            Rows of a refit: "expanding" takes all before it, "sliding" as many as the first had.
        n_jobs
            Refits side by side, as the parameter `n_jobs`.
        quantiles
            Levels of quantiles to forecast too, as in `predict_quantiles`.
        coverage
            In place of `quantiles`, the coverage of an interval to forecast too.
        intervals
            "adaptive" lets what was missed so far move the next bounds, of each variate of each
            series: they widen after misses and narrow without, so that the coverage holds where
            the table drifts away from the rows that quantiles were calibrated on
            (`tsm2.fitted.adaptive`).
        to
            A .parquet or .csv file to write the table to while the forecasts are made, so that
            memory does not grow with their number; Parquet needs pyarrow. The file takes its place
            when it is whole. None returns the table, as "adaptive" intervals need.

        Returns
        -------
        With `to`, the `tsm2.backtesting.BacktestFile`, which `error_table` takes like the table.
        Without, a DataFrame, or a table of the library of `X`, with one row per forecast, step and
        variate: `cutoff` (last row seen), `step` (from 1), `time`, `variate`, `actual`, `forecast`;
        then a column per quantile, such as `lo-80` and `hi-80`.
        Of several series, the first column says which: it has the name of the column or level that
        held their names, or "series". `tsm2.backtesting.error_table` sums it up.

        Raises
        ------
        FrameError
            `start` is no row of the table.
        WindowError
            No window fits.
        OutputError
            The file cannot be written.
        """
        request = BacktestRequest.of(
            quantiles=quantiles, coverage=coverage, intervals=intervals, to=to
        )
        given = CovariateTables(past_covariates, future_covariates, static_covariates)
        walk: dict[str, Any] = {"start": start, "stride": check_count("stride", stride)}
        walk |= {"horizon": self._count_steps(horizon), "quantiles": request.levels}
        if refit is False:
            return request.answer(Walked.through(*self._met(X), given, **walk))
        self._check_parameters()
        refits = Refits.planned(
            self._recipe(),
            self._fitted_copy,
            self._read(X),
            given=given,
            every=refit,
            window=window,
            n_jobs=n_jobs,
            **walk,
        )
        return request.answer(refits)

    def _fitted_copy(
        self, series: Series, given: CovariateTables, choices: pd.DataFrame
    ) -> FittedModel:
        copy: Any = clone(self)
        fitted: FittedModel = copy.fit_series(series, given, choices=choices).fitted_
        return fitted

    def score(
        self,
        X: Data,
        y: object = None,
        *,
        past_covariates: CovariateTable = None,
        future_covariates: CovariateTable = None,
        static_covariates: CovariateTable = None,
    ) -> float:
        """Return the negative mean squared error over every window, on standardised values.

        Of rows `X` that go on where the training table ended, all are forecast; else the first
        `lookback` rows serve as context. `y` is ignored; scikit-learn's interface asks for it.
        """
        given = CovariateTables(past_covariates, future_covariates, static_covariates)
        model, history = self._met(X)
        walk = Walked.through(model, history, given, start=None, horizon=self.horizon)
        return -walk.mean_squared_error()

    def backtest_floor(
        self,
        X: Data,
        *,
        start: object = None,
        horizon: int | None = None,
        stride: int = 1,
        lazy: bool = False,
    ) -> dict[str, Any]:
        """Return the backtests of the forecasts that cost nothing, on the windows of `backtest`.

        Parameters
        ----------
        X, start, horizon, stride
            As in `backtest`.
        lazy
            Return, in place of each table, what makes it piece by piece whenever
            `tsm2.backtesting.error_table` measures it, so that memory does not grow with windows.

        Returns
        -------
        "repeat last" and, if the season is known, "seasonal naive", each a table as `backtest`
        returns it.
        """
        model, history = self._met(X)
        steps, stride = self._count_steps(horizon), check_count("stride", stride)
        season = self._recipe().season_of(history)
        walk: dict[str, Any] = {"start": start, "horizon": steps, "stride": stride}
        floor = Floor.through(model, history, **walk, season=season)
        if lazy:
            return dict(floor.pieces())
        form = history.layout.form
        return {name: to_library(table, form) for name, table in floor.tables().items()}

    def error_scale(
        self,
        X: Data,
        *,
        horizon: int | None = None,
        start: object = None,
        kind: Literal["deviation", "naive"] = "deviation",
    ) -> pd.DataFrame:
        """Return what `score` divides errors by: the deviation that each variate was scaled with.

        A series that `fit` has not seen is measured by the rows before its first forecast. `X`,
        `horizon` and `start` are as in `backtest`.

        Parameters
        ----------
        kind
            "naive" returns what the errors of MASE are divided by instead: the mean absolute
            difference from a season earlier, over the rows before the first forecast.

        Returns
        -------
        A row for each series, a column for each variate, in the table's units;
        `tsm2.backtesting.error_table` takes it as `scale`.
        """
        (model, history), steps = self._met(X), self._count_steps(horizon)
        if kind == "deviation":
            return scale_table(model, history, start=start, horizon=steps)
        if kind == "naive":
            season = self._recipe().season_of(history)
            return naive_scale_table(model, history, start=start, horizon=steps, season=season)
        raise ParameterError(f"kind must be 'deviation' or 'naive', got {kind!r}.")

    def plot(
        self,
        X: Data | None = None,
        *,
        horizon: int | None = None,
        truth: Data | None = None,
        coverage: float | None = None,
        series: Hashable | Sequence[Hashable] | None = None,
        columns: Sequence[Hashable] | None = None,
        max_variates: int = 6,
        units: str | Mapping[Any, str] = "",
        title: str | None = None,
        ax: Axes | Sequence[Axes] | None = None,
        backend: Literal["matplotlib", "plotly"] = "matplotlib",
        past_covariates: CovariateTable = None,
        future_covariates: CovariateTable = None,
        static_covariates: CovariateTable = None,
    ) -> Any:
        """Draw a history, its forecast and, if asked to, an interval, one panel per variate.

        Parameters
        ----------
        truth
            What happened, drawn behind the forecast; in the container of `X`.
        coverage
            Share of what happens that the shaded interval should hold, as in `predict_interval`.
        series
            Which of several series to draw, one name or a list; None for the first ones.
        columns, max_variates, units, title, ax, backend
            As in `tsm2.plotting.plot_forecast`.

        Returns
        -------
        The figure, of matplotlib or of plotly. `tsm2.plotting` draws more: the errors of a backtest
        and what the network selects.

        Raises
        ------
        ParameterError
            The library is not installed, a series or a column is not there, or as in
            `predict_interval`.
        """
        given = CovariateTables(past_covariates, future_covariates, static_covariates)
        model, rows, windows = self._latest(X, horizon, given)
        levels = None if coverage is None else interval_levels(coverage)
        return plot_series(
            rows,
            model.forecast(*windows),
            truth=None if truth is None else model.roles.of_targets(self._read_truth(truth, rows)),
            quantiles=None if levels is None else model.quantiles(*windows, levels),
            levels=levels or (),
            series=series,
            columns=columns,
            max_variates=max_variates,
            units=units,
            title=title,
            ax=ax,
            backend=backend,
        )

    def inspect(
        self,
        X: Data | None = None,
        *,
        past_covariates: CovariateTable = None,
        future_covariates: CovariateTable = None,
        static_covariates: CovariateTable = None,
    ) -> Selection:
        """Return what the network selects: step sizes, averaging weights, and what moves forecasts.

        Up to 64 of the windows of `X` are looked at, spread evenly; without it, the last window of
        the training table, or of each series.

        Returns
        -------
        The three as DataFrames; `tsm2.plotting.plot_selection` draws them.
        """
        given = CovariateTables(past_covariates, future_covariates, static_covariates)
        model, history = self._met_or_known(X)
        return model.select(*model.to_inspect(history, given))

    def explain(
        self,
        X: Data | None = None,
        *,
        series: Hashable = None,
        part: int | None = None,
        past_covariates: CovariateTable = None,
        future_covariates: CovariateTable = None,
        static_covariates: CovariateTable = None,
    ) -> Explanation:
        """Say which columns and which past steps moved this forecast, the one of `predict`.

        Parameters
        ----------
        series
            Which of several series: its name, or its place in a list.
        part
            Rows that are looked at together; None for an eighth of those that are read.

        Returns
        -------
        Influences as DataFrames; `in_words` says them. `inspect` looks at many windows instead.

        Raises
        ------
        ParameterError
            There are several series, and none of them is named.
        """
        given = CovariateTables(past_covariates, future_covariates, static_covariates)
        model, histories, (prepared, starts, _) = self._latest(X, None, given)
        number = histories.number_of(series)
        rows = None if part is None else check_count("part", part)
        return model.explain(prepared, starts[[number]], rows)

    def what_if(
        self,
        changes: Mapping[Hashable, float],
        X: Data,
        *,
        future_covariates: CovariateTable,
        series: Hashable = None,
        past_covariates: CovariateTable = None,
        static_covariates: CovariateTable = None,
    ) -> WhatIf:
        """Forecast with covariates changed in the rows to forecast, beside the forecast as it is.

        Parameters
        ----------
        changes
            By what to multiply each covariate, such as ``{"price": 1.1}``.
        X, future_covariates
            As in `predict`, of DataFrames; the covariates with the columns that change.
        series
            Which of several series: its name, or its place in a list. The covariates of the others
            stay, as far as the tables tell them apart.

        Returns
        -------
        Both forecasts and their difference; `tsm2.plotting.plot_what_if` draws them.

        Raises
        ------
        ParameterError
            A covariate that changes is not there, or is not numeric; or there are several series,
            and none of them is named.
        """
        given = CovariateTables(past_covariates, future_covariates, static_covariates)
        return what_if(
            self._model(),
            self._read_history(X),
            given,
            changes,
            series=series,
            horizon=self.horizon,
            id_col=self.id_col,
            time_col=self.time_col,
        )

    # --- keep ---------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted forecaster to a folder: safetensors and JSON, replaced as a whole.

        README.md beside them is a model card: what was fitted, on how many rows, with which errors
        on the validation rows, and how to load it. `load` does not read it. An earlier tsm2 model
        in the folder is replaced, anything else is left alone.

        Raises
        ------
        SavedModelError
            A parameter or column label cannot be written as JSON.
        OutputError
            The folder cannot be written.
        """
        model, folder = self._model(), check_path("path", path)
        given = self.get_params(deep=False)
        fit = SavedFit(
            model=model,
            history=self.history_,
            choice=chosen(self.choices_),
            floor=self.floor_,
            n_rows=self.n_rows_,
        )
        changed = changed_parameters(given, type(self)().get_params(deep=False))
        saving.save_folder(
            folder,
            kind=type(self).__name__,
            config={"parameters": plain_parameters(given), **fit.to_json()},
            tensors=fit.tensors(),
            card=model_card(fit, changed=changed),
        )

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the model as an ONNX file that other languages and machines run.

        Its input "context", float64, is (batch, lookback, columns) in the units of the training
        table, with any batch; its output "forecast" is (batch, horizon, variates) in the same
        units. NaN in it is a gap, and is masked or filled as `missing` says. A quantile head adds
        "quantiles", (batch, horizon, variates, levels), not calibrated. What covariates and series
        with units of their own add, and what the metadata name, says
        `tsm2.fitted.exporting.export_onnx`. The file of a pretrained model holds its classical
        forecasts too, for the columns and the season of the table that was given to `fit`, and so
        does that of a model that is averaged with them: it reads as many rows as the model knows,
        at most 2,000, of which NaN are those before a shorter history.

        The file is run once before it takes its place, as a whole, if onnxruntime is installed;
        without it a `tsm2.errors.ExportWarning` says so.

        Raises
        ------
        ParameterError
            onnx or onnxscript is not installed.
        OutputError
            The file cannot be written, or does not say what the model says.
        """
        export_onnx(self._model(), check_path("path", path))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | None = None) -> Self:
        """Read a forecaster that `save` wrote; no code in the folder is run.

        Parameters
        ----------
        path
            The folder.
        device
            Where to forecast; None for the device that the forecaster was made with.

        Raises
        ------
        SavedModelError
            The folder is damaged, edited, of a newer format, or not a saved forecaster.
        BackendError
            The device is not at hand.
        """
        config, tensors = saving.load_folder(check_path("path", path), kind=cls.__name__)
        if device is not None:
            choose_device(device)
            config["parameters"]["device"] = device
        try:
            return cls._restored(config, tensors)
        except Exception as error:  # whatever comes of what somebody else wrote
            raise SavedModelError(
                f"{os.fspath(path)} does not hold a usable {cls.__name__}: {error}. "
                f"Save the model again."
            ) from error

    @classmethod
    def _restored(cls, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Self:
        forecaster = cls(**parameters_from_plain(config["parameters"]))
        forecaster._check_parameters()
        fit = SavedFit.restored(config, tensors, forecaster._recipe())
        return forecaster.take_over(
            fit.model,
            fit.history,
            choice=fit.choice,
            floor=fit.floor,
            n_rows=fit.n_rows,
        )
