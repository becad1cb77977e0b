"""TSM2Forecaster: a scikit-learn style estimator around the TSM2 network.

    fit:      table -> panel -> split -> standardise -> windows -> network -> training
    predict:  history -> panel -> standardise -> network, rolled forward -> original units -> table
    predict_quantiles: the same, read against the scores of held-out windows, see `calibration`

The parameters stand here because scikit-learn shows them; what each may be is in `tsm2.parameters`.

Sizes: S series, T rows, M variates, B windows, L lookback, H horizon, Q quantiles, N sampled paths.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, overload

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import validate_data

from tsm2 import saving
from tsm2.backtesting import Walk, backtest_table, mean_errors, refit_table, start_position
from tsm2.errors import FrameError, NotFittedError, ParameterError, SavedModelError, WindowError
from tsm2.fitted.calibration import Calibration, ForecastLine, calibrate, draw_paths, read_quantiles
from tsm2.fitted.exporting import export_onnx
from tsm2.fitted.inspection import Selection, inspect_network
from tsm2.fitted.rolling import roll_forward, whole_horizons
from tsm2.networks.ensemble import Ensemble, members_of
from tsm2.networks.tsm2 import NetworkConfig, TSM2Network
from tsm2.networks.weights import start_from
from tsm2.parameters import CONSTRAINTS, check_count, check_parameters, check_seconds
from tsm2.plotting import plot_forecast
from tsm2.prepared.inputs import Beside, last_rows, network_inputs
from tsm2.prepared.knowledge import Knowledge, Tables
from tsm2.prepared.roles import Roles
from tsm2.prepared.scaling import Scaling
from tsm2.prepared.splits import check_long_enough, cut_windows, room_in_front, training_rows
from tsm2.prepared.windows import Covariates, Windows
from tsm2.tables import frames
from tsm2.tables.calendars import check_calendar
from tsm2.tables.gaps import Missing, fill_forward
from tsm2.tables.panels import (
    Container,
    Data,
    LongColumns,
    extend,
    future_rows,
    join,
    numbers_in,
    panel_from_json,
    panel_to_json,
    read_panel,
    write_panel,
)
from tsm2.tables.quantile_tables import write_many
from tsm2.tables.quantiles import check_levels, interval_levels, with_median
from tsm2.tables.ragged import owners, places
from tsm2.training.callbacks import FitTasks, closes_callbacks
from tsm2.training.ensembles import fit_members, refit_starts
from tsm2.training.loop import TrainingConfig, choose_device, seeded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TSM2Forecaster"]

_INSPECTED = 64  # windows
_CONTEXTS = 1024  # that are forecast at once


class TSM2Forecaster(CallbackSupportMixin, BaseEstimator):
    """Forecast all columns of a table, or of many series, with TSM2, the MambaMixer network.

    Parameters
    ----------
    lookback
        Rows that the network reads.
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
        What normalises a mixer's input: "2d" (patches and features together), "layer", "rms" or
        "none".
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
        Start from the linear model that least squares gives, "exact", which is validated as epoch
        0 and kept unless a later one is better, or from drawn weights, "random".
    refit_linear
        Solve a linear start that was kept again on all rows, those for validation included.
    instance_norm
        Remove each window's own level and deviation, and put both back at the end.
    level
        What a window's level is: its "mean" or its "last" value. The last one suits tables that
        move like random walks, such as exchange rates.
    separate_heads
        Give every variate a head of its own.
    quantiles
        Levels, such as (0.1, 0.5, 0.9), that the network forecasts besides its median, which is
        then its point forecast; None for a point forecast alone.
    loss
        What is minimised on standardised values: "mse", "mae", "huber" or, for `quantiles`,
        "quantile"; None for "mse", or "quantile" if there are `quantiles`.
    max_epochs
        Passes over the training windows at most.
    batch_size
        Windows in a training step.
    learning_rate
        Peak learning rate of the linear path.
    mixer_learning_rate
        Peak learning rate of the mixers.
    weight_decay
        Decay of the mixers' matrices (AdamW).
    sam_radius
        Radius of the mixers' sharpness-aware minimisation, a distance in the space of all their
        parameters: wider mixers bear a larger one. 0 halves the training time.
    ema_decay
        Share of the old average in a moving average of the weights, in [0, 1), such as 0.99: the
        average is then what is validated and kept. 0 keeps the weights themselves.
    gradient_clip
        Largest norm of the gradients.
    schedule
        Course of the learning rates: "onecycle", "cosine" or "constant".
    validation_fraction
        Share of the table's last rows that is kept from training and stops it, in [0, 1); 0 trains
        for `max_epochs` and keeps the last weights.
    patience
        Epochs without a better validation loss after which training stops.
    frequency
        pandas alias of the time between rows; None infers it from the index.
    target
        Column, or list of columns, to forecast; the others are then read as past covariates. None
        forecasts all.
    calendar
        Features of the time stamps to read as future covariates, such as ("hour", "dayofweek");
        also "minute", "weekend", "day", "dayofyear", "month" and "quarter".
    missing
        What is done about NaN and about rows that the index lacks: "raise" refuses them, "mask"
        leaves them out of scaling and loss and tells the network, "ffill" repeats the value before.
        "mask" also pads those of several series that are shorter than a window with unknown rows.
    scaling
        Standardise every "series" by its own training rows or all alike, "global". A series that
        `fit` has not seen is measured by the history that it comes with. For one table the same.
    sampling
        Let a pass over the training windows take all "windows" once, or draw from every "series"
        equally often, so that long ones do not drown short ones.
    id_col, time_col, target_col
        Columns of a long frame, which has a row per series and time: the series, the time stamp,
        the variate or a list of variates. A frame with the first of them is taken for one.
    device
        "auto" takes the first of "cuda", "mps" and "cpu" that is here.
    precision
        "float32", or "bfloat16" for mixed precision.
    compile
        Compile the network for training with `torch.compile`: the first steps take a minute or
        more, the others less. Needs a C++ compiler on a CPU.
    backend
        Kernel backend, see `tsm2.kernels.selective_scan`.
    random_state
        Seed; an integer makes fits repeatable bit for bit on one machine.
    n_estimators
        Networks that differ in their seed alone and whose forecasts are averaged: better, and as
        many times as slow. The first is the one that a fit of one network gives. Callbacks are told
        of the fit of several, but not of their epochs.
    n_jobs
        How many of these networks are fitted side by side, through joblib; None is 1 unless a
        `joblib.parallel_config` says more, -1 takes all processors.
    warm_start
        Let `fit` begin with the weights of the last fit, or of the loaded model, in place of drawn
        ones: further training, and fine-tuning on another table. Scaling is measured anew.
    verbose
        1 shows training progress with the time left.

    Attributes
    ----------
    network_
        The trained network, or the `Ensemble` of several.
    history_
        Losses of every epoch, on standardised values; of several networks, `member` says whose.
    n_iter_
        Epochs trained; of several networks, the most that one of them was.
    scaling_
        Mean and deviation of every variate over the training rows, (M,), or of every series and
        variate, (S, M).
    calibration_
        Scores of the held-out windows, which quantiles are read against; None without any.
    series_
        Names of the series, in their order; their positions for a list.
    context_
        The last `lookback` rows of the table, (L, M), in its units; those of several series one
        after another.
    context_index_
        Their index.
    context_offsets_
        Row of `context_` at which each series starts, and the end, (S + 1,).
    layout_
        The container that came in: columns, frequency, time zone.
    roles_
        Which of its columns are forecast.
    knowledge_
        How covariates are coded, and those rows that a forecast without new ones reads.
    n_features_in_, feature_names_in_
        Number of columns, and their names if all are strings.

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

    missing: Missing
    network_: TSM2Network | Ensemble
    scaling_: Scaling
    layout_: frames.Layout
    roles_: Roles
    knowledge_: Knowledge
    calibration_: Calibration | None
    context_: NDArray[np.float64]
    context_index_: pd.Index
    context_offsets_: NDArray[np.int64]
    series_: tuple[Hashable, ...]
    history_: pd.DataFrame
    n_iter_: int
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]

    _parameter_constraints: ClassVar[dict[str, list[Any] | str]] = CONSTRAINTS

    def __init__(
        self,
        lookback: int = 96,
        horizon: int = 24,
        *,
        features: int = 16,
        blocks: int = 1,
        patch_length: int | None = None,
        patch_stride: int | None = None,
        d_state: int = 4,
        d_conv: int = 4,
        expand: int = 1,
        dropout: float = 0.0,
        pre_norm: Literal["2d", "layer", "rms", "none"] = "2d",
        selection: Literal["convolved", "input"] = "convolved",
        time_mixer: Literal["selective", "linear", "none"] = "selective",
        variate_mixer: Literal["selective", "mlp", "none"] = "selective",
        variate_directions: Literal["forward", "both"] = "both",
        averaging: Literal["stream", "identity", "mean"] = "stream",
        averaging_learned: bool = True,
        averaging_reach: int | None = None,
        readout: Literal["stream", "last"] = "stream",
        zero_start: bool = True,
        zero_head: bool = True,
        linear_start: Literal["exact", "random"] = "exact",
        refit_linear: bool = True,
        epoch_steps: int | None = 150,
        start_margin: float = 0.02,
        season: int | None = None,
        instance_norm: bool = True,
        level: Literal["mean", "last"] = "mean",
        separate_heads: bool = False,
        quantiles: Sequence[float] | None = None,
        loss: Literal["mse", "mae", "huber", "quantile"] | None = None,
        max_epochs: int = 10,
        batch_size: int = 32,
        learning_rate: float = 1e-5,
        mixer_learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        sam_radius: float = 0.0,
        ema_decay: float = 0.0,
        gradient_clip: float = 1.0,
        schedule: Literal["onecycle", "cosine", "constant"] = "onecycle",
        validation_fraction: float = 0.2,
        patience: int = 3,
        frequency: str | None = None,
        target: Hashable | Sequence[Hashable] | None = None,
        calendar: Sequence[str] = (),
        missing: Missing = "raise",
        scaling: Literal["series", "global"] = "series",
        sampling: Literal["windows", "series"] = "windows",
        id_col: str = "unique_id",
        time_col: str = "ds",
        target_col: str | Sequence[str] = "y",
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
        precision: Literal["float32", "bfloat16"] = "float32",
        compile: bool = False,
        backend: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        n_estimators: int = 1,
        n_jobs: int | None = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.lookback = lookback
        self.horizon = horizon
        self.features = features
        self.blocks = blocks
        self.patch_length = patch_length
        self.patch_stride = patch_stride
        self.d_state = d_state
        self.d_conv = d_conv
        self.expand = expand
        self.dropout = dropout
        self.pre_norm = pre_norm
        self.selection = selection
        self.time_mixer = time_mixer
        self.variate_mixer = variate_mixer
        self.variate_directions = variate_directions
        self.averaging = averaging
        self.averaging_learned = averaging_learned
        self.averaging_reach = averaging_reach
        self.readout = readout
        self.zero_start = zero_start
        self.zero_head = zero_head
        self.linear_start = linear_start
        self.refit_linear = refit_linear
        self.epoch_steps = epoch_steps
        self.start_margin = start_margin
        self.season = season
        self.instance_norm = instance_norm
        self.level = level
        self.separate_heads = separate_heads
        self.quantiles = quantiles
        self.loss = loss
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.mixer_learning_rate = mixer_learning_rate
        self.weight_decay = weight_decay
        self.sam_radius = sam_radius
        self.ema_decay = ema_decay
        self.gradient_clip = gradient_clip
        self.schedule = schedule
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.frequency = frequency
        self.target = target
        self.calendar = calendar
        self.missing = missing
        self.scaling = scaling
        self.sampling = sampling
        self.id_col = id_col
        self.time_col = time_col
        self.target_col = target_col
        self.device = device
        self.precision = precision
        self.compile = compile
        self.backend = backend
        self.random_state = random_state
        self.n_estimators = n_estimators
        self.n_jobs = n_jobs
        self.warm_start = warm_start
        self.verbose = verbose

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.input_tags.allow_nan = self.missing != "raise"
        return tags

    # --- learn --------------------------------------------------------------------------------

    @closes_callbacks
    def fit(
        self,
        X: Data,
        y: object = None,
        *,
        past_covariates: object = None,
        future_covariates: object = None,
        static_covariates: object = None,
        checkpoint: str | os.PathLike[str] | None = None,
        max_time: float | str | pd.Timedelta | None = None,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Learn to forecast the columns of a table, or of many series with one network.

        Parameters
        ----------
        X
            Rows are time steps, columns variates, (T, M). A DataFrame's index is a regular
            DatetimeIndex, PeriodIndex or RangeIndex. Several series with the same variates and
            frequency, from when to when ever, come as a long frame, a frame with a MultiIndex
            (series, time), or a list or dict of tables; each gives its own last rows to
            validation, unless it is too short for that.
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
            What holds at all times: a table whose index names the variates, or the series.
        checkpoint
            Folder that keeps the fit while it runs. The same call goes on from there after a
            crash, to the weights that it would have reached in one go; `random_state` must be
            given. Once the fit is through, the same call returns at once.
        max_time
            Seconds, or a text such as "90min", after which training ends with the best weights so
            far. With a checkpoint, the same call then goes on for as long again.
        log_dir
            Folder for TensorBoard's record of every epoch.

        Returns
        -------
        The forecaster itself.

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
        seconds = math.inf if max_time is None else check_seconds(max_time)
        given = self._filled(self._read(X, frequency=self.frequency))
        tables = Tables(past=past_covariates, future=future_covariates, static=static_covariates)
        room = self._room(given, pads=not (tables.given() or self.calendar))
        panel = given.padded(room)
        n_train = training_rows(
            panel,
            lookback=self.lookback,
            horizon=self.horizon,
            validation_fraction=self.validation_fraction,
            room=room,
        )
        roles = Roles.of(self.target, panel.layout)
        self._check_columns(X, panel.layout, reset=True)
        scaling = self._measure(panel.head(n_train))
        knowledge, covariates = Knowledge.learn(
            tables,
            check_calendar(self.calendar),
            panel,
            roles.layout(panel.layout),
            train=places(panel.offsets) < np.repeat(n_train, panel.counts),
            lookback=self.lookback,
            horizon=self.horizon,
            missing=self.missing,
        )
        config = self._network_config(roles, knowledge)
        seeds = self._draw_seeds(checkpoint)
        network = _make_network(config, seeds)
        if self.warm_start and hasattr(self, "network_"):
            start_from(network, self.network_)
        self.__dict__.pop("network_", None)  # what fails from here on leaves nothing half fitted
        self.scaling_, self.roles_, self.knowledge_ = scaling, roles, knowledge
        self._remember(given.tail(self.lookback))
        train, validation = self._cut(panel, n_train, covariates)
        tasks = FitTasks(self, X)
        history = fit_members(
            members_of(network),
            train,
            validation,
            self._training_config(warm=self.warm_start and hasattr(self, "history_")),
            seeds=seeds,
            n_jobs=self.n_jobs,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            max_seconds=seconds,
            log_dir=None if log_dir is None else Path(log_dir),
            watch=tasks,
        )
        network.eval()
        self.calibration_ = None
        if validation is not None:
            with suppress(ParameterError):  # a variate of which the validation rows know nothing
                self.calibration_ = self._calibrated(network, validation)
            if self.refit_linear and self.linear_start == "exact" and history["epoch"].eq(0).any():
                members = members_of(network.to("cpu"))
                refit_starts(members, history, train, validation, self._training_config())
        self.network_ = network
        self.history_ = history
        self.n_iter_ = int(history["epoch"].max())
        tasks.close()
        return self

    def update(
        self,
        X: Data,
        *,
        epochs: int = 0,
        past_covariates: object = None,
        future_covariates: object = None,
    ) -> Self:
        """Let new rows become history, and train on them further if asked to.

        Parameters
        ----------
        X
            The rows after those that the forecaster knows, with the same columns. An array's rows
            are taken as the next ones. Of several series, any that `fit` has seen may be there.
        epochs
            Passes over the windows that end in the new rows, from the weights as they are and
            with the learning rates and the schedule that are set. The scaling stays. 0 learns
            nothing: `predict` continues the new rows with the old weights.
        past_covariates, future_covariates
            As in `predict`, of the new rows; those of known rows were kept.

        Returns
        -------
        The forecaster itself.

        Raises
        ------
        NotFittedError
            `fit` was not called.
        FrameError
            The rows do not go on where the known ones end.
        WindowError
            There is less than one window to train on.
        """
        self._require_fitted()
        panel = self._read_history(X)
        stored = self._remembered()
        whole = extend(stored, panel)
        new = Tables(past=past_covariates, future=future_covariates)
        knowledge = self.knowledge_.continued(
            new,
            whole,
            lookback=self.lookback,
            horizon=self.horizon,
            stored=stored,
            missing=self.missing,
        )
        if epochs:
            self._check_parameters()
            covariates = self._covariates(whole, 0, new, own=True)
            train, _ = self._cut(whole, whole.counts, covariates)
            epochs = check_count("epochs", epochs)
            config = replace(self._training_config(warm=True), max_epochs=epochs)
            added = fit_members(
                members_of(self.network_),
                train,
                None,
                config,
                seeds=self._draw_seeds(),
                n_jobs=self.n_jobs,
            )
            added = added.assign(epoch=lambda new: new["epoch"] + self.n_iter_)
            self.history_ = pd.concat((self.history_, added), ignore_index=True)
            self.n_iter_ = int(self.history_["epoch"].max())
        self.knowledge_ = knowledge
        self._remember(whole.tail(self.lookback))
        return self

    def _draw_seeds(self, checkpoint: object = None) -> list[int]:
        if checkpoint is not None and self.random_state is None:
            raise ParameterError(
                "checkpoint needs a random_state, such as random_state=0: a fit that draws another "
                "seed every time cannot go on where it was cut off."
            )
        generator = check_random_state(self.random_state)
        return [int(generator.randint(2**31 - 1)) for _ in range(self.n_estimators)]

    def _check_parameters(self) -> None:
        check_parameters(type(self).__name__, self.get_params(deep=False))

    def _trained_levels(self) -> tuple[float, ...] | None:
        """Return the levels of the network's head; None for a point forecast."""
        return None if self.quantiles is None else with_median(check_levels(self.quantiles))

    def _check_columns(self, X: Any, layout: frames.Layout, *, reset: bool) -> None:
        if layout.series != "one":  # their columns are what scikit-learn calls features
            X = pd.DataFrame(columns=pd.Index(layout.columns, tupleize_cols=False))
        try:
            validate_data(self, X, skip_check_array=True, reset=reset)
        except (TypeError, ValueError) as error:  # TypeError: labels of several types
            raise FrameError(str(error)) from None

    def _long_columns(self) -> LongColumns:
        target = self.target_col
        return LongColumns(
            id=self.id_col,
            time=self.time_col,
            target=target if isinstance(target, str) else tuple(target),
        )

    def _measure(self, panel: frames.Panel) -> Scaling:
        """Return the units of the series, each its own or all of them one."""
        unknown = np.isnan(panel.values).all(axis=0)
        if unknown.any():
            label = panel.layout.columns[int(unknown.argmax())]
            raise FrameError(
                f"column {label!r} has no value in any training row, so nothing can be learned of "
                f"it. Drop it, or give rows that have it."
            )
        if panel.layout.series == "one" or self.scaling == "global":
            return Scaling.of(panel.values)
        return Scaling.of_each(panel.values, panel.offsets)

    def _read(self, X: Data, **how: Any) -> frames.Panel:
        return read_panel(X, long=self._long_columns(), missing=self.missing, **how)

    def _filled(self, panel: frames.Panel) -> frames.Panel:
        """Fill gaps if that is what is done about them; what comes before all values cannot be."""
        if self.missing != "ffill":
            return panel
        filled = replace(panel, values=fill_forward(panel.values, panel.offsets))
        try:
            frames.check_finite(filled.values, panel.layout.columns, panel.index)
        except FrameError as error:
            raise FrameError(
                f"missing='ffill' repeats the value before a gap, but there is none at the start: "
                f"{error}"
            ) from None
        return filled

    def _room(self, panel: frames.Panel, *, pads: bool) -> NDArray[np.int64]:
        """Return how many unknown rows to put before each series, (S,): of short ones, masked."""
        if not pads or self.missing != "mask" or panel.layout.series == "one":
            return np.zeros(len(panel.ids), dtype=np.int64)
        return room_in_front(panel, lookback=self.lookback, horizon=self.horizon)

    def _cut(
        self, panel: frames.Panel, n_train: NDArray[np.int64], covariates: Covariates
    ) -> tuple[Windows, Windows | None]:
        """Return the windows for training and for validation."""
        table = self._standardised(panel, self.scaling_)
        values, known, others, others_known = self.roles_.split(table, axis=1)
        return cut_windows(
            values,
            panel,
            n_train,
            lookback=self.lookback,
            horizon=self.horizon,
            balanced=self.sampling == "series",
            known=known,
            covariates=covariates.behind(others, others_known),
        )

    def _standardised(self, panel: frames.Panel, units: Scaling) -> torch.Tensor:
        """Return the rows of a panel, (T, M), in the units of its series."""
        return units.take(owners(panel.offsets)).standardise(panel.values)

    def _remember(self, panel: frames.Panel) -> None:
        """Keep what a forecast without a history continues."""
        self.layout_ = panel.layout
        self.series_ = panel.ids
        self.context_, self.context_index_ = panel.values, panel.index
        self.context_offsets_ = panel.offsets

    def _remembered(self) -> frames.Panel:
        return frames.Panel(
            values=self.context_,
            layout=self.layout_,
            index=self.context_index_,
            ids=self.series_,
            offsets=self.context_offsets_,
        )

    def _network_config(self, roles: Roles, knowledge: Knowledge) -> NetworkConfig:
        patch_length = self.patch_length or min(16, self.lookback)
        given = {
            f.name: getattr(self, f.name) for f in fields(NetworkConfig) if hasattr(self, f.name)
        }
        given |= {
            **knowledge.widths,
            "n_variates": len(roles.targets),
            "n_past": len(roles.others) + knowledge.widths["n_past"],
            "gaps": self.missing == "mask",
            "patch_length": patch_length,
            "patch_stride": self.patch_stride or patch_length,
            "quantiles": self._trained_levels(),
        }
        return NetworkConfig(**given)

    def _training_config(self, *, warm: bool = False) -> TrainingConfig:
        given = {f.name: getattr(self, f.name) for f in fields(TrainingConfig)}
        levels = self._trained_levels()
        given |= {
            "loss": self.loss or ("mse" if levels is None else "quantile"),
            "quantiles": levels or (),
            "linear_start": "random" if warm else self.linear_start,
        }
        return TrainingConfig(**given)

    def _calibrated(self, network: TSM2Network | Ensemble, windows: Windows) -> Calibration:
        network = network.to(choose_device(self.device))
        return calibrate(network, windows, quantiles=self._trained_levels() or ())

    # --- forecast -----------------------------------------------------------------------------

    @overload
    def predict(
        self,
        X: pd.DataFrame,
        *,
        horizon: int | None = None,
        past_covariates: object = None,
        future_covariates: object = None,
        static_covariates: object = None,
    ) -> pd.DataFrame: ...
    @overload
    def predict(
        self,
        X: Data | None = None,
        *,
        horizon: int | None = None,
        past_covariates: object = None,
        future_covariates: object = None,
        static_covariates: object = None,
    ) -> Any: ...
    def predict(
        self,
        X: Data | None = None,
        *,
        horizon: int | None = None,
        past_covariates: object = None,
        future_covariates: object = None,
        static_covariates: object = None,
    ) -> Container:
        """Forecast the rows after a history.

        Parameters
        ----------
        X
            The history to continue, with the columns and the frequency of the training table and
            at least `lookback` rows; None for the training table. Of several series, any may be
            there, also new ones.
        horizon
            Rows to forecast; None for the trained horizon, more rolls forward on its own forecasts.
        past_covariates, future_covariates
            As in `fit`, with a row for each of the last `lookback` rows of the history; those of
            the future also for the rows to forecast, in whole trained horizons. Rows that they
            lack are taken from those that `fit` was given. An array ends with the last row needed.
        static_covariates
            As in `fit`; None for those of `fit`.

        Returns
        -------
        The next rows, (H, M), in the container that came in, with its columns and units; of
        several series, the next H rows of each.

        Raises
        ------
        NotFittedError
            `fit` was not called.
        FrameError
            The history's columns or frequency are not those of the training table; or covariates
            lack rows, or are not like those of the fit.
        WindowError
            The history, or a series of it, is shorter than the lookback; with missing="mask" the
            rows before it count as unknown, unless there are covariates.
        ParameterError
            The horizon rolls forward, where past covariates would be needed; or covariates are of
            a kind that `fit` was not given.
        """
        steps = self._count_steps(horizon)
        tables = Tables(past=past_covariates, future=future_covariates, static=static_covariates)
        panel, contexts, beside = self._read_contexts(X, steps, tables)
        forecast = self._in_batches(
            lambda which: self.forecast_contexts(contexts[which], steps, **beside(which)),
            len(contexts),
        )  # (S, H, M)
        return write_panel(future_rows(self._of_targets(panel), forecast))

    def _of_targets(self, panel: frames.Panel) -> frames.Panel:
        """Return a panel without the columns that are only read."""
        layout = self.roles_.layout(panel.layout)
        return replace(panel, values=self.roles_.select(panel.values), layout=layout)

    def _read_contexts(
        self, X: Data | None, steps: int, tables: Tables
    ) -> tuple[frames.Panel, NDArray[np.float64], Beside]:
        """Return histories, a context of each, (S, L, M), and what belongs to each beside it."""
        self._require_fitted()
        panel = self._remembered() if X is None else self._filled(self._read_history(X))
        units = self.scaling_ if X is None else self._units(panel)
        if self.missing == "mask" and not self.knowledge_.codings:  # too short: unknown before
            return panel, last_rows(panel, self.lookback), lambda at: {"units": units.take(at)}
        if panel.layout.series != "one":
            check_long_enough(panel, self.lookback, "lookback")
        elif len(panel.values) < self.lookback:
            raise WindowError(
                f"the history has {len(panel.values)} rows, but a forecast reads "
                f"{self.lookback} (lookback). Give more history."
            )
        tail = panel.tail(self.lookback)
        contexts = last_rows(panel, self.lookback)
        starts = tail.offsets[:-1] + self.lookback
        return panel, contexts, self._beside(tail, starts, steps, units, tables, own=X is None)

    def _beside(
        self,
        panel: frames.Panel,
        starts: NDArray[np.int64],
        steps: int,
        units: Scaling,
        tables: Tables,
        *,
        own: bool = False,
    ) -> Beside:
        """Return what belongs to windows beside their values, as arguments by window.

        The windows are given by their first forecast rows, (W,), in the panel; `own` if its rows
        are the stored ones, whatever they are called.
        """
        ahead = whole_horizons(steps, self.horizon)
        covariates = self._covariates(panel, ahead, tables, own=own)
        owner = owners(panel.offsets)[starts - 1]
        first = torch.from_numpy(starts - self.lookback + owner * ahead)
        series = torch.from_numpy(owner)

        def arguments(which: slice) -> dict[str, Any]:
            rows = covariates.gather(first[which], self.lookback, ahead, series[which])
            return {"units": units.take(which), "covariates": rows}

        return arguments

    def _units(self, panel: frames.Panel, n_known: NDArray[np.int64] | None = None) -> Scaling:
        """Return the units of every series: those of the fit; a new one is measured.

        It is measured by its first `n_known` rows, (S,), or by all of them.
        """
        if self.scaling_.center.ndim == 1:
            return self.scaling_
        numbers = numbers_in(panel, self.series_)
        known = panel if n_known is None else panel.head(n_known)
        new, old = Scaling.of_each(known.values, known.offsets), self.scaling_.take(numbers)
        is_new = numbers[:, None] < 0
        return Scaling(
            center=np.where(is_new, new.center, old.center),
            scale=np.where(is_new, new.scale, old.scale),
        )

    def _covariates(
        self, panel: frames.Panel, ahead: int, tables: Tables, *, own: bool = False
    ) -> Covariates:
        """Return coded covariates of a panel's rows and of those ahead of them."""
        named = self.layout_.kind == "frame" and self.layout_.series != "list"
        return self.knowledge_.covariates(
            tables,
            panel,
            ahead,
            self.roles_.layout(panel.layout),
            stored=self._remembered() if own or named else None,
            missing=self.missing,
        )

    def _in_batches(
        self, forecast: Callable[[slice], NDArray[np.float64]], count: int, *, paths: int = 1
    ) -> NDArray[np.float64]:
        """Forecast `count` contexts, as many at a time as memory holds, `paths` of each."""
        size = max(1, _CONTEXTS // paths)
        return np.concatenate(
            [forecast(slice(first, first + size)) for first in range(0, count, size)]
        )

    def _count_steps(self, horizon: int | None) -> int:
        return self.horizon if horizon is None else check_count("horizon", horizon)

    def forecast_contexts(
        self,
        contexts: NDArray[np.float64],
        horizon: int,
        *,
        units: Scaling | None = None,
        covariates: Mapping[str, torch.Tensor] | None = None,
    ) -> NDArray[np.float64]:
        """Forecast many contexts at once, without looking at any index.

        Parameters
        ----------
        contexts
            Histories of `lookback` rows, (B, L, M), in the units of the training table; NaN where
            unknown.
        horizon
            Rows H to forecast; beyond the trained horizon it rolls forward.
        units
            Units of the contexts, (M,) or (B, M); None for those of the training table.
        covariates
            Coded covariates by kind, see `tsm2.prepared.windows.Covariates.gather`.

        Returns
        -------
        Forecasts of the targets, (B, H, M), in the same units.
        """
        self._require_fitted()
        self._check_reach(horizon)
        network = self.network_.to(choose_device(self.device))
        units = self.scaling_ if units is None else units
        context, auxiliary = self._inputs(contexts, units, covariates)
        with torch.inference_mode():
            whole = roll_forward(
                network, context, horizon, self.horizon, auxiliary, point=self._point
            )
        return self.roles_.units(units).restore(whole.swapaxes(1, 2))  # (B, H, M)

    def _check_reach(self, steps: int) -> None:
        if steps > self.horizon and self.network_.config.n_past and self.missing != "mask":
            raise ParameterError(
                f"horizon={steps} is longer than trained ({self.horizon}) and would need past "
                f"covariates, or columns that are only read, of rows to come. Fit with a longer "
                f"horizon, or with missing='mask', which lets them be unknown."
            )

    def _inputs(
        self,
        contexts: NDArray[np.float64],
        units: Scaling,
        covariates: Mapping[str, torch.Tensor] | None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return what the network reads, contexts in standard units and all else."""
        if covariates is None and self.knowledge_.codings:
            raise ParameterError(
                "this model reads covariates, but contexts alone were given. Call predict or "
                "backtest, which find them by their stamps."
            )
        rows = units.standardise(contexts)
        context, auxiliary = network_inputs(rows, self.roles_, covariates or {})
        device = choose_device(self.device)
        return context.to(device), {name: each.to(device) for name, each in auxiliary.items()}

    def _point(self, forecast: torch.Tensor, *_: object) -> torch.Tensor:
        """Return the point forecast, (B, M, H), in what the network returned."""
        levels = self._trained_levels()
        return forecast if levels is None else forecast[..., levels.index(0.5)]

    def predict_quantiles(
        self,
        X: Data | None = None,
        *,
        quantiles: Sequence[float] | None = None,
        horizon: int | None = None,
        calibrated: bool = True,
        past_covariates: object = None,
        future_covariates: object = None,
        static_covariates: object = None,
    ) -> Any:
        """Forecast levels below which given shares of what happens should fall.

        They are calibrated on the validation rows of `fit`, or on the rows given to `calibrate`,
        whether the network forecasts a point or quantiles.

        Parameters
        ----------
        X
            The history to continue, as in `predict`.
        quantiles
            Levels in (0, 1), rising; None for the parameter `quantiles`, or else 0.1, 0.5, 0.9.
        horizon
            Rows to forecast, at most the trained horizon, which None stands for.
        calibrated
            False takes the network's own quantiles at their word.
        past_covariates, future_covariates, static_covariates
            As in `predict`.

        Returns
        -------
        The next rows: a DataFrame with the columns (variate, quantile), a long frame with columns
        such as "y-lo-80" and "y-hi-80", or an array, (H, M, Q). Quantiles do not cross.

        Raises
        ------
        NotFittedError, FrameError, WindowError
            As `predict`.
        ParameterError
            The quantiles are no rising levels, there is no calibration or too little for them, or
            the horizon is longer than trained: `sample` rolls forward.
        """
        steps = self._count_steps(horizon)
        tables = Tables(past=past_covariates, future=future_covariates, static=static_covariates)
        panel, contexts, beside = self._read_contexts(X, steps, tables)
        levels = check_levels(self.quantiles or (0.1, 0.5, 0.9) if quantiles is None else quantiles)
        values = self._in_batches(
            lambda which: self.forecast_quantiles(
                contexts[which], steps, levels, calibrated=calibrated, **beside(which)
            ),
            len(contexts),
        )
        return self._write_many(panel, values, levels, of="quantile")

    def predict_interval(
        self,
        X: Data | None = None,
        *,
        coverage: float = 0.8,
        horizon: int | None = None,
        calibrated: bool = True,
        past_covariates: object = None,
        future_covariates: object = None,
        static_covariates: object = None,
    ) -> Any:
        """Forecast intervals that a share `coverage` of what happens should fall into.

        Parameters
        ----------
        X, horizon, calibrated, past_covariates, future_covariates, static_covariates
            As in `predict_quantiles`.
        coverage
            In (0, 1); as many outcomes should lie above the interval as below it.

        Returns
        -------
        The quantiles (1 - coverage) / 2 and (1 + coverage) / 2, as `predict_quantiles` does.

        Raises
        ------
        NotFittedError, FrameError, WindowError, ParameterError
            As `predict_quantiles`.
        """
        levels = interval_levels(coverage)
        return self.predict_quantiles(
            X,
            quantiles=levels,
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
        past_covariates: object = None,
        future_covariates: object = None,
        static_covariates: object = None,
    ) -> Any:
        """Draw paths that the table may take.

        Each path errs as the network did on one of the held-out windows, at all steps and for all
        variates together, so that sums and maxima over a path have their right spread too.

        Parameters
        ----------
        X
            The history to continue, as in `predict`.
        n_samples
            Paths N.
        horizon
            Rows of a path; beyond the trained horizon every path rolls forward on itself.
        random_state
            Seed or generator of the draws.
        past_covariates, future_covariates, static_covariates
            As in `predict`.

        Returns
        -------
        The next rows: a DataFrame with the columns (variate, sample), a long frame with columns
        such as "y-0" and "y-1", or an array, (H, M, N).

        Raises
        ------
        NotFittedError, FrameError, WindowError
            As `predict`.
        ParameterError
            There is no calibration, or `n_samples` is below 1.
        """
        self._require_fitted()
        if self.calibration_ is None:
            raise ParameterError(
                "sample draws from the errors on held-out windows, but there are none: fit with a "
                "validation_fraction above 0, or call calibrate with later rows."
            )
        count, steps = check_count("n_samples", n_samples), self._count_steps(horizon)
        try:
            generator = check_random_state(random_state)
        except ValueError as error:
            raise ParameterError(f"random_state: {error}") from None
        tables = Tables(past=past_covariates, future=future_covariates, static=static_covariates)
        panel, contexts, beside = self._read_contexts(X, steps, tables)
        self._check_reach(steps)
        network, calibration = self.network_.to(choose_device(self.device)), self.calibration_

        def draw(which: slice) -> NDArray[np.float64]:
            own = beside(which)
            units, covariates = own["units"], own.get("covariates")
            context, auxiliary = self._inputs(contexts[which], units, covariates)
            paths = draw_paths(
                network,
                context.repeat_interleave(count, dim=0),
                steps,
                calibration=calibration,
                quantiles=self._trained_levels() or (),
                generator=generator,
                auxiliary={k: v.repeat_interleave(count, dim=0) for k, v in auxiliary.items()},
            )  # (B * N, M, H)
            by_context = paths.view(len(context), count, *paths.shape[1:])  # (B, N, M, H)
            values = self.roles_.units(units).restore(by_context.permute(0, 3, 1, 2))
            return values.swapaxes(2, 3)  # (B, H, M, N)

        values = self._in_batches(draw, len(contexts), paths=count)
        return self._write_many(panel, values, range(count), of="sample")

    def forecast_quantiles(
        self,
        contexts: NDArray[np.float64],
        horizon: int,
        levels: Sequence[float],
        *,
        calibrated: bool = True,
        units: Scaling | None = None,
        covariates: Mapping[str, torch.Tensor] | None = None,
    ) -> NDArray[np.float64]:
        """Forecast quantiles of many contexts at once, without looking at any index.

        Parameters
        ----------
        contexts
            Histories of `lookback` rows, (B, L, M), in the units of the training table.
        horizon
            Rows H to forecast, at most the trained horizon.
        levels
            Levels of the quantiles, (Q,), in (0, 1), rising.
        calibrated
            As in `predict_quantiles`.
        units, covariates
            As in `forecast_contexts`.

        Returns
        -------
        Quantiles of the targets, (B, H, M, Q), in the same units.
        """
        self._require_fitted()
        if horizon > self.horizon:
            raise ParameterError(
                f"quantiles reach the trained horizon of {self.horizon} rows, but {horizon} were "
                f"asked for. Fit with a longer horizon, or draw paths with sample, which rolls "
                f"forward."
            )
        network, trained = self.network_.to(choose_device(self.device)), self._trained_levels()
        trained = trained or ()
        units = self.scaling_ if units is None else units
        context, auxiliary = self._inputs(contexts, units, covariates)
        with torch.inference_mode():
            forecast, mask = network(context, **auxiliary), auxiliary.get("mask")
            line = ForecastLine.of(forecast, context, quantiles=trained, mask=mask)
        calibration = self.calibration_ if calibrated else None
        values = read_quantiles(line, levels, calibration=calibration, quantiles=trained)
        values = values[:, :, :horizon].permute(0, 2, 3, 1)  # (B, H, Q, M)
        return self.roles_.units(units).restore(values).swapaxes(2, 3)

    def _write_many(
        self,
        panel: frames.Panel,
        values: NDArray[np.float64],
        labels: Sequence[float],
        *,
        of: Literal["quantile", "sample"],
    ) -> Any:
        """Write several columns for a variate, (S, H, M, *), behind the histories."""
        rows = future_rows(self._of_targets(panel), values[..., 0])
        return write_many(rows, values.reshape(-1, *values.shape[2:]), labels, of=of)

    def calibrate(
        self,
        X: Data,
        *,
        start: object = None,
        past_covariates: object = None,
        future_covariates: object = None,
        static_covariates: object = None,
    ) -> Self:
        """Calibrate quantiles on rows that the network was not trained on.

        `fit` does it on its validation rows. Do it again when newer rows have come, or to have a
        word on levels far out, which need many windows.

        Parameters
        ----------
        X
            The table, with the columns and the frequency of the training table. If it goes on
            where the training table ended, the stored context stands before it.
        start
            Label of the first row to forecast; None for the first with a full lookback before it.
        past_covariates, future_covariates, static_covariates
            As in `predict`, with a row for every row of the table.

        Returns
        -------
        The forecaster itself, with the new `calibration_`.

        Raises
        ------
        NotFittedError, FrameError, WindowError
            As `backtest`.
        """
        self._require_fitted()
        panel = self._filled(self._with_stored_context(self._read_history(X)))
        starts = Walk(lookback=self.lookback, horizon=self.horizon).starts_in(panel, start)
        tables = Tables(past=past_covariates, future=future_covariates, static=static_covariates)
        covariates = self._covariates(panel, 0, tables)
        table = self._standardised(panel, self._units(panel))
        values, known, others, others_known = self.roles_.split(table, axis=1)
        windows = Windows(
            values=values,
            lookback=self.lookback,
            horizon=self.horizon,
            starts=torch.from_numpy(starts - self.lookback),
            series=torch.from_numpy(owners(panel.offsets)[starts]),
            known=known,
            covariates=covariates.behind(others, others_known),
        )
        self.calibration_ = self._calibrated(self.network_, windows)
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
        past_covariates: object = None,
        future_covariates: object = None,
        static_covariates: object = None,
    ) -> pd.DataFrame:
        """Forecast from every `stride`-th row of a table and set the truth beside it.

        Rows that the model was trained on are forecast too well: pass later rows, or `start`, or
        `refit`. If the table goes on where the training table ended, the stored context stands
        before it.

        Parameters
        ----------
        X
            The table, with the columns and the frequency of the training table, or several series.
        horizon
            Rows per forecast; None for the trained horizon.
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
            Refits side by side, through joblib: None is 1 unless a `joblib.parallel_config` says
            more, -1 takes all processors.
        quantiles
            Levels of quantiles to forecast too, as in `predict_quantiles`.
        coverage
            In place of `quantiles`, the coverage of an interval to forecast too.
        past_covariates, future_covariates, static_covariates
            As in `predict`, with a row for every row of the table, and of those ahead of it if
            `horizon` is not a multiple of the trained one.

        Returns
        -------
        One row per forecast, step and variate: `cutoff` (last row seen), `step` (from 1), `time`,
        `variate`, `actual`, `forecast`; then a column per quantile, such as `lo-80` and `hi-80`.
        Of several series, the first column says which: it has the name of the column or level that
        held their names, or "series". `tsm2.backtesting.error_table` sums it up.

        Raises
        ------
        NotFittedError, FrameError, WindowError, ParameterError
            As `predict` and `predict_quantiles`; or `start` is no row of the table, or `stride` is
            below 1.
        """
        if coverage is not None and quantiles is not None:
            raise ParameterError("pass coverage or quantiles, not both.")
        levels = () if quantiles is None else check_levels(quantiles)
        if coverage is not None:
            levels = interval_levels(coverage)
        tables = Tables(past=past_covariates, future=future_covariates, static=static_covariates)
        walk = Walk(
            lookback=self.lookback,
            horizon=self._count_steps(horizon),
            stride=check_count("stride", stride),
        )
        if refit is False:
            self._require_fitted()
            panel = self._with_stored_context(self._read_history(X))
            return self.backtest_panel(panel, walk, start=start, quantiles=levels, tables=tables)
        self._check_parameters()
        panel = self._read(X, frequency=self.frequency)
        every = 1 if refit is True else check_count("refit", refit)
        if start is not None:
            walk = replace(walk, first=start_position(panel.index, start))
        return refit_table(
            self,
            panel,
            walk,
            every=every,
            window=window,
            n_jobs=n_jobs,
            quantiles=levels,
            tables=tables,
        )

    def backtest_panel(
        self,
        panel: frames.Panel,
        walk: Walk,
        *,
        start: object = None,
        quantiles: Sequence[float] = (),
        tables: Tables = Tables(),  # noqa: B008 (frozen)
    ) -> pd.DataFrame:
        """Forecast the windows of a walk through series that were read before, as `backtest`."""
        starts = walk.starts_in(panel, start)
        read = self._filled(panel)
        units = self._window_units(read, starts)
        return backtest_table(
            self,
            self._of_targets(panel),
            walk,
            contexts=read.values,
            starts=starts,
            beside=self._beside(read, starts, walk.horizon, units, tables),
            quantiles=quantiles,
        )

    def score(
        self,
        X: Data,
        y: object = None,
        *,
        past_covariates: object = None,
        future_covariates: object = None,
        static_covariates: object = None,
    ) -> float:
        """Return the negative mean squared error over every window, on standardised values.

        Parameters
        ----------
        X
            Rows to forecast. If they go on where the training table ended, all of them are
            forecast from the stored context on; else the first `lookback` rows serve as context.
            The same holds of each of several series.
        y
            Ignored; scikit-learn's interface asks for it.
        past_covariates, future_covariates, static_covariates
            As in `backtest`.
        """
        self._require_fitted()
        tables = Tables(past=past_covariates, future=future_covariates, static=static_covariates)
        panel = self._with_stored_context(self._read_history(X))
        read = self._filled(panel)
        walk = Walk(lookback=self.lookback, horizon=self.horizon)
        starts = walk.starts_in(panel)
        units = self._window_units(read, starts)
        errors = mean_errors(
            self,
            self.roles_.select(panel.values),
            walk,
            scale=self.roles_.units(units).scale,
            contexts=read.values,
            starts=starts,
            beside=self._beside(read, starts, walk.horizon, units, tables),
        )
        return -errors[0]

    def plot(
        self,
        X: Data | None = None,
        *,
        horizon: int | None = None,
        truth: pd.DataFrame | None = None,
        coverage: float | None = None,
        max_variates: int = 6,
        past_covariates: object = None,
        future_covariates: object = None,
        static_covariates: object = None,
    ) -> list[Axes]:
        """Draw a history, its forecast and, if asked to, an interval, one panel per variate.

        Parameters
        ----------
        X
            The history to continue, one table, as in `predict`.
        horizon
            Rows to forecast, as in `predict`.
        truth
            What happened, drawn behind the forecast.
        coverage
            Share of what happens that the shaded interval should hold, as in `predict_interval`.
        max_variates
            Panels at most; the first columns are drawn.
        past_covariates, future_covariates, static_covariates
            As in `predict`.

        Returns
        -------
        One Axes per panel, top to bottom. `tsm2.plotting` draws more: the errors of a backtest and
        what the network selects.

        Raises
        ------
        NotFittedError, FrameError, WindowError
            As `predict`.
        ParameterError
            matplotlib is not installed, there are several series, or as `predict_interval`.
        """
        self._require_fitted()
        panel = self._of_targets(self._remembered() if X is None else self._read_history(X))
        if panel.layout.series != "one":
            raise ParameterError(
                f"a plot shows one table, but X is {panel.layout.container}. Pass one of its "
                f"series."
            )
        given: dict[str, Any] = {
            "past_covariates": past_covariates,
            "future_covariates": future_covariates,
            "static_covariates": static_covariates,
        }
        columns = pd.Index(panel.layout.columns, tupleize_cols=False)
        values = np.asarray(self.predict(X, horizon=horizon, **given))
        index = frames.future_index(panel.index, len(values), self.layout_)
        interval = None
        if coverage is not None:
            bounds = self.predict_interval(X, coverage=coverage, horizon=horizon, **given)
            pairs = pd.MultiIndex.from_product([columns, interval_levels(coverage)])
            interval = pd.DataFrame(np.asarray(bounds).reshape(len(values), -1), index, pairs)
        return plot_forecast(
            pd.DataFrame(panel.values, panel.index, columns),
            pd.DataFrame(values, index, columns),
            truth=truth,
            interval=interval,
            max_variates=max_variates,
        )

    # --- look inside --------------------------------------------------------------------------

    def inspect(
        self,
        X: Data | None = None,
        *,
        past_covariates: object = None,
        future_covariates: object = None,
        static_covariates: object = None,
    ) -> Selection:
        """Return what the network selects: step sizes, averaging weights, and what moves forecasts.

        Parameters
        ----------
        X
            Tables to look at, as `predict` takes them; up to 64 of their windows are, spread
            evenly. None takes the last window of the training table, or of each series.
        past_covariates, future_covariates, static_covariates
            As in `predict`, with a row for every row of the tables.

        Returns
        -------
        The three as DataFrames; `tsm2.plotting.plot_selection` draws them.

        Raises
        ------
        NotFittedError, FrameError, WindowError
            As `predict`.
        """
        self._require_fitted()
        tables = Tables(past=past_covariates, future=future_covariates, static=static_covariates)
        panel = self._remembered() if X is None else self._filled(self._read_history(X))
        walk = Walk(lookback=self.lookback, horizon=0)
        starts = walk.starts_in(panel)
        if len(starts) > _INSPECTED:
            starts = starts[np.linspace(0, len(starts) - 1, _INSPECTED).round().astype(int)]
        rows = starts[:, None] + np.arange(-self.lookback, 0)  # (B, L)
        units = self._window_units(panel, starts - 1)
        own = self._beside(panel, starts, self.horizon, units, tables, own=X is None)(slice(None))
        context, auxiliary = self._inputs(panel.values[rows], units, own["covariates"])
        columns = self.layout_.columns
        names = {
            "context": [columns[k] for k in self.roles_.targets],
            "past": [*(columns[k] for k in self.roles_.others), *self.knowledge_.labels("past")],
            "future": self.knowledge_.labels("future") + self.knowledge_.labels("calendar"),
        }
        return inspect_network(
            self.network_.to(choose_device(self.device)),
            {"context": context, **auxiliary},
            {kind: labels for kind, labels in names.items() if labels},
            point=self._point,
        )

    def _window_units(self, panel: frames.Panel, starts: NDArray[np.int64]) -> Scaling:
        """Return the units of every window; a new series is measured before its first one."""
        owner = owners(panel.offsets)[starts]
        series, first = np.unique(owner, return_index=True)
        n_known = panel.counts.copy()
        n_known[series] = starts[first] - panel.offsets[series]
        return self._units(panel, n_known).take(owner)

    def _require_fitted(self) -> None:
        if not hasattr(self, "network_"):
            raise NotFittedError(
                f"this {type(self).__name__} is not fitted yet. Call fit(table) first."
            )

    def _read_history(self, X: Data) -> frames.Panel:
        panel = self._read(X, like=self.layout_)
        self._check_columns(X, panel.layout, reset=False)
        return panel

    def _with_stored_context(self, panel: frames.Panel) -> frames.Panel:
        """Put the stored context before each series that goes on where the training table ended.

        Before a series that is short all the same go unknown rows, if gaps are masked.
        """
        whole = join(self._remembered(), panel)
        return whole.padded(self._room(whole, pads=not self.knowledge_.codings))

    # --- keep ---------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted forecaster to a folder: safetensors and JSON, replaced as a whole.

        Parameters
        ----------
        path
            The folder; an earlier tsm2 model there is replaced, anything else is left alone.

        Raises
        ------
        NotFittedError
            `fit` was not called.
        SavedModelError
            A parameter or column label cannot be written as JSON.
        OutputError
            The folder cannot be written.
        """
        self._require_fitted()
        config = {
            "parameters": self.get_params(deep=False),
            "context": panel_to_json(self._remembered()),
            "covariates": self.knowledge_.to_json(),
            "feature_names": list(getattr(self, "feature_names_in_", [])),
            "history": self.history_.to_dict("list"),
        }
        weights = self.network_.state_dict().items()
        tensors = {f"network.{name}": weight.cpu() for name, weight in weights}
        arrays = {
            "center": self.scaling_.center,
            "scale": self.scaling_.scale,
            "context": self.context_,
            "context_offsets": self.context_offsets_,
        }
        arrays |= {f"covariates.{k}": rows for k, rows in self.knowledge_.arrays().items()}
        if self.calibration_ is not None:
            arrays["calibration"] = self.calibration_.scores.numpy()
        saving.save_folder(path, kind=type(self).__name__, config=config, tensors=tensors | arrays)

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the network as an ONNX file that other languages and machines run.

        Its input "context", float64, is (batch, lookback, variates) in the units of the training
        table, with any batch; its output "forecast" is (batch, horizon, variates) in the same
        units. A quantile head adds "quantiles", (batch, horizon, variates, levels), not calibrated.
        After a fit to several series with units of their own, the inputs "center" and "scale",
        (batch, variates), are the units of each history. The file's metadata, "tsm2", say which
        variates, levels and frequency these are.

        Parameters
        ----------
        path
            The file, usually ending in .onnx; an earlier one is replaced as a whole.

        Raises
        ------
        NotFittedError
            `fit` was not called.
        ParameterError
            onnx or onnxscript is not installed.
        OutputError
            The file cannot be written.
        """
        self._require_fitted()
        description = {
            "variates": [str(column) for column in self.layout_.columns],
            "lookback": self.lookback,
            "horizon": self.horizon,
            "frequency": self.layout_.frequency,
            "quantiles": self._trained_levels(),
        }
        export_onnx(self.network_, self.scaling_, path, description=description)

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
        config, tensors = saving.load_folder(path, kind=cls.__name__)
        if device is not None:
            choose_device(device)
            config["parameters"]["device"] = device
        try:
            return cls._restore(config, tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise SavedModelError(
                f"{os.fspath(path)} does not hold a usable {cls.__name__}: {error}. "
                f"Save the model again."
            ) from error

    @classmethod
    def _restore(cls, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Self:
        model = cls(**config["parameters"])
        model._check_parameters()
        center, scale, context = (tensors.pop(n).numpy() for n in ("center", "scale", "context"))
        model.scaling_ = Scaling(center=center, scale=scale)
        offsets = tensors.pop("context_offsets").numpy()
        model._remember(panel_from_json(config["context"], context, offsets))
        scores = tensors.pop("calibration", None)
        model.calibration_ = None if scores is None else Calibration(scores=scores)
        model.roles_ = Roles.of(model.target, model.layout_)
        kept = [name for name in tensors if name.startswith("covariates.")]
        rows = {name.partition(".")[2]: tensors.pop(name).numpy() for name in kept}
        model.knowledge_ = Knowledge.from_json(config["covariates"], rows)
        settings = model._network_config(model.roles_, model.knowledge_)
        network = _make_network(settings, range(model.n_estimators))
        weights = {name.removeprefix("network."): weight for name, weight in tensors.items()}
        own = network.state_dict().items()
        saving.check_tensors(weights, {name: tuple(weight.shape) for name, weight in own})
        network.load_state_dict(weights)
        model.network_ = network.eval()
        model.history_ = pd.DataFrame(config["history"])
        model.n_iter_ = int(model.history_["epoch"].max())
        model.n_features_in_ = center.shape[-1]
        if config["feature_names"]:
            model.feature_names_in_ = np.asarray(config["feature_names"], dtype=object)
        return model


def _make_network(config: NetworkConfig, seeds: Sequence[int]) -> TSM2Network | Ensemble:
    """Return a fresh network, or an ensemble if there are several seeds."""
    members = []
    for seed in seeds:
        with seeded(seed, "cpu"):
            members.append(TSM2Network(config))
    return members[0] if len(members) == 1 else Ensemble(members)
