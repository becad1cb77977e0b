"""TSM2 as a torch model of Darts, and as a foundation model that needs no training.

    past_target, covariates -> TSM2Network -> values, quantiles or a likelihood's parameters
    past_target -> pretrained ZeroShotNetwork -> quantiles

Darts trains, rolls forward, samples, backtests, saves and exports; the network is tsm2's. So are a
window's level and deviation: they are put back into a location and a scale each in its own way,
where Darts' flag would treat a likelihood's scale like a location.

Sizes: B windows, L input_chunk_length, T output_chunk_length, C components, K parameters of a
likelihood; P past and F future covariates, S static ones per component.
Interface: Darts 0.48, classes PLForecastingModule, MixedCovariatesTorchModel and FoundationModel.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import copyreg
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from tsm2.adapters import distributions
from tsm2.adapters.distributions import Family
from tsm2.adapters.peers import missing_peer
from tsm2.errors import FrameError, NotFittedError, ParameterError
from tsm2.fitted.calibration import ForecastLine, read_quantiles
from tsm2.fitted.model import FittedModel
from tsm2.forecaster import TSM2Forecaster
from tsm2.networks.config import SETTINGS, NetworkConfig, patch_sizes
from tsm2.networks.dropout import Dropout
from tsm2.networks.pretrained import load_pretrained
from tsm2.networks.tsm2 import TSM2Network
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.prepared.codings import Codings
from tsm2.prepared.roles import Roles
from tsm2.prepared.scaling import Scaling
from tsm2.prepared.seasons import season_of
from tsm2.tables.layout import Layout
from tsm2.tables.read import read
from tsm2.training.bounds import lift_bounds
from tsm2.training.callbacks import history_table
from tsm2.training.loop import Epoch

try:
    from darts.models.forecasting.foundation_model import FoundationModel
    from darts.models.forecasting.pl_forecasting_module import PLForecastingModule, io_processor
    from darts.models.forecasting.torch_forecasting_model import MixedCovariatesTorchModel
    from darts.timeseries import TimeSeries
    from darts.utils.data.torch_datasets.utils import (
        PLModuleInput,
        PLModuleOutput,
        TorchTrainingSample,
    )
    from darts.utils.likelihood_models.base import LikelihoodType
    from darts.utils.likelihood_models.torch import QuantileRegression, TorchLikelihood
    from darts.utils.serialization import add_safe_globals
    from darts.utils.torch import MonteCarloDropout
    from pytorch_lightning import Trainer
except ModuleNotFoundError as error:
    raise missing_peer(error, "darts") from error

__all__ = ["TSM2Model", "TSM2Module", "TSM2ZeroModel", "TSM2ZeroModule", "from_darts", "to_darts"]

_FAMILIES = {
    "BernoulliLikelihood": distributions.SHARE,
    "BetaLikelihood": distributions.BETA,
    "CauchyLikelihood": distributions.LOCATION_SCALE,
    "ContinuousBernoulliLikelihood": distributions.SHARE,
    "DirichletLikelihood": distributions.DIRICHLET,
    "ExponentialLikelihood": distributions.EXPONENTIAL,
    "GammaLikelihood": distributions.GAMMA,
    "GaussianLikelihood": distributions.LOCATION_SCALE,
    "GeometricLikelihood": distributions.GEOMETRIC,
    "GumbelLikelihood": distributions.LOCATION_SCALE,
    "HalfNormalLikelihood": distributions.LEVEL,
    "LaplaceLikelihood": distributions.LOCATION_SCALE,
    "LogNormalLikelihood": distributions.LOG_NORMAL,
    "NegativeBinomialLikelihood": distributions.COUNT,
    "PoissonLikelihood": distributions.LEVEL,
    "WeibullLikelihood": distributions.COUNT,
}


_Init = TypeVar("_Init", bound=Callable[..., None])


class TSM2Module(PLForecastingModule):
    """The Lightning module around the network; `TSM2Model` makes it.

    Parameters
    ----------
    network
        Fields of a `NetworkConfig`, but for what the likelihood decides. A plain dict, so that
        Darts reads its checkpoints without trusting other classes.
    kwargs
        What every `PLForecastingModule` takes.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, network: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.family = _family(self.likelihood)
        quantiles = getattr(self.likelihood, "quantiles", None) if self.family is None else None
        config = NetworkConfig(
            **network,
            quantiles=None if quantiles is None else tuple(quantiles),
            outputs=None if self.family is None else self.family.outputs,
        )
        self.network = _with_monte_carlo_dropout(TSM2Network(config))
        # Standard units, as a forecaster that `to_darts` brings was trained on.
        self.register_buffer("center", torch.zeros(config.n_variates))
        self.register_buffer("scale", torch.ones(config.n_variates))

    def on_fit_start(self) -> None:
        """Lift the bounds that `to_darts` brought: what they hold is trained further."""
        super().on_fit_start()
        lift_bounds(self.network)

    @io_processor
    def forward(self, x_in: PLModuleInput) -> PLModuleOutput:
        """Return forecasts, (B, T, C, K), in the units of the target."""
        target = x_in.past_target  # (B, L, C)
        context = ((target - self.center) / self.scale).swapaxes(1, 2)  # (B, C, L)
        forecast = self.network(context, **self._auxiliary(x_in, len(target)))
        if forecast.ndim == 3:
            forecast = forecast.unsqueeze(-1)  # (B, C, T, 1)
        forecast = forecast.swapaxes(1, 2)  # (B, T, C, K)
        return PLModuleOutput(prediction=self._in_units(forecast))

    def _auxiliary(self, x_in: PLModuleInput, n_windows: int) -> dict[str, Tensor]:
        """Return the covariates that are there, by the names of the network's arguments."""
        given = {}
        if x_in.past_covariates is not None:
            given["past"] = x_in.past_covariates.swapaxes(1, 2)  # (B, P, L)
        if x_in.future_covariates is not None:
            parts = (x_in.historic_future_covariates, x_in.future_covariates)  # of L and T rows
            given["future"] = torch.cat(parts, 1).swapaxes(1, 2)  # (B, F, L + T)
        if x_in.static_covariates is not None:  # (B, C, S), or (B, 1, S) if shared
            static = x_in.static_covariates
            given["static"] = static.expand(n_windows, len(self.center), -1)
        return given

    def _in_units(self, forecast: Tensor) -> Tensor:
        if self.family is None:
            return forecast * self.scale[:, None] + self.center[:, None]
        return self.family.raw(forecast)


def _taking_settings(init: _Init) -> _Init:
    """Put the network's settings into a signature, by which Darts records and checks parameters."""
    mine = signature(init).parameters.values()
    named = [each for each in mine if each.kind is Parameter.POSITIONAL_OR_KEYWORD]
    others = [each for each in mine if each.kind is not Parameter.POSITIONAL_OR_KEYWORD]
    vars(init)["__signature__"] = Signature([*named, *SETTINGS, *others])
    return init


class TSM2Model(MixedCovariatesTorchModel):
    """TSM2, the selective state-space network, as one more torch model of Darts.

    Past, future and static covariates, several components and several series, every likelihood of
    Darts, quantiles that never cross, forecasts beyond `output_chunk_length`, and all that Darts
    does with such models. Targets and covariates with NaN are refused; Darts would train on them.

    Parameters
    ----------
    input_chunk_length
        Rows that the network reads.
    output_chunk_length
        Rows that it forecasts at once.
    output_chunk_shift
        Rows between the two.
    features, blocks, patch_length, patch_stride, d_state, d_conv, expand, dropout, pre_norm, \
selection, time_mixer, variate_mixer, variate_directions, averaging, averaging_learned, \
averaging_reach, readout, zero_start, zero_head, instance_norm, level, separate_heads, backend
        The network's settings, as in `TSM2Forecaster`. `dropout` is Monte Carlo dropout.
    use_static_covariates
        Read the series' static covariates, which must be numbers.
    kwargs
        What every torch model of Darts takes: `likelihood`, `n_epochs`, `batch_size`,
        `optimizer_kwargs`, `random_state`, `pl_trainer_kwargs`, ... `use_reversible_instance_norm`
        turns on the network's own `instance_norm`.

    Examples
    --------
    >>> from tsm2.datasets import load_sample
    >>> series = TimeSeries.from_dataframe(load_sample(200)).astype(np.float32)
    >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    >>> model = TSM2Model(48, 12, n_epochs=1, random_state=0, pl_trainer_kwargs=quiet)
    >>> model.fit(series).predict(24, verbose=False).shape
    (24, 5, 1)
    """

    @_taking_settings
    def __init__(
        self,
        input_chunk_length: int,
        output_chunk_length: int,
        output_chunk_shift: int = 0,
        *,
        use_static_covariates: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**self._extract_torch_model_params(**self.model_params))
        self.pl_module_params = self._extract_pl_module_params(**self.model_params)
        settings = {each.name: kwargs.get(each.name, each.default) for each in SETTINGS}
        if self.pl_module_params.pop("use_reversible_instance_norm", False):
            settings["instance_norm"] = True
        settings |= patch_sizes(
            input_chunk_length, settings["patch_length"], settings["patch_stride"]
        )
        self._network = {
            "lookback": input_chunk_length,
            "horizon": output_chunk_length,
            **settings,
        }
        NetworkConfig(**self._network, n_variates=1)  # refuses before a series is seen
        self._considers_static_covariates = use_static_covariates

    @property
    def supports_static_covariates(self) -> bool:
        """True: the network reads static covariates."""
        return True

    def _create_model(self, train_sample: TorchTrainingSample) -> TSM2Module:
        sizes = {
            "n_variates": train_sample.future_target.shape[1],
            "n_past": _width(train_sample.past_covariates),
            "n_future": _width(train_sample.future_covariates),
            "n_static": _width(train_sample.static_covariates),
        }
        return TSM2Module(network=self._network | sizes, **self.pl_module_params)

    def _build_train_dataset(self, series: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_gaps(series, *args, **kwargs)
        return super()._build_train_dataset(series, *args, **kwargs)

    def _build_inference_dataset(self, n: int, series: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_gaps(series, *args, **kwargs)
        return super()._build_inference_dataset(n, series, *args, **kwargs)


class TSM2ZeroModule(PLForecastingModule):
    """The Lightning module around a pretrained network; `TSM2ZeroModel` makes it.

    Parameters
    ----------
    network
        Fields of its `NetworkConfig`, as a plain dict.
    kwargs
        What every `PLForecastingModule` takes.
    """

    def __init__(self, network: dict[str, Any], **kwargs: Any) -> None:
        kwargs.pop("enable_finetuning", None)  # weights that stay are no matter of the module
        super().__init__(**kwargs)
        self.network = ZeroShotNetwork(NetworkConfig(**network))
        self.levels = getattr(self.likelihood, "quantiles", [0.5])

    @io_processor
    def forward(self, x_in: PLModuleInput) -> PLModuleOutput:
        """Return the quantiles that the likelihood names, (B, T, C, K), or the median."""
        target = x_in.past_target.swapaxes(1, 2)  # (B, C, L); Darts puts NaN before short ones
        room = self.network.config.lookback - target.shape[-1]
        target = functional.pad(target, (room, 0), value=math.nan)
        known = target.isfinite()
        context, learned = target.nan_to_num(), self.network.config.quantiles or ()
        end = self.output_chunk_shift + self.output_chunk_length
        forecast = self.network(context, mask=known)[:, :, self.output_chunk_shift : end]
        line = ForecastLine.of(forecast, context, quantiles=learned, mask=known)
        values = read_quantiles(line, self.levels, calibration=None, quantiles=learned)
        return PLModuleOutput(prediction=values.swapaxes(1, 2))


class TSM2ZeroModel(FoundationModel):
    """TSM2 with weights that forecast without a fit, as one more foundation model of Darts.

    `fit` trains nothing: it tells Darts of the components; `predict` then takes any series with as
    many of them, and so do backtests with `retrain=False`. Gaps and short histories are unknown.
    Covariates are not read.

    Parameters
    ----------
    input_chunk_length
        Rows that are read: so many, or from so many to so many.
    output_chunk_length
        Rows that are forecast at once, at most 64; longer forecasts roll forward.
    output_chunk_shift
        Rows between the two.
    likelihood
        A `QuantileRegression` with levels from 0.05 to 0.95; None forecasts the median.
    pretrained
        "zero", or a folder that `python -m tsm2.pretraining` wrote.
    season
        Rows of a season; None for that of the series' frequency.
    kwargs
        What every torch model of Darts takes. `enable_finetuning=True` lets `fit` train the weights
        by Darts' means; `TSM2Forecaster` with `warm_start` does more.

    Examples
    --------
    >>> from tsm2.datasets import load_sample
    >>> series = TimeSeries.from_dataframe(load_sample(200)).astype(np.float32)
    >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    >>> model = TSM2ZeroModel(pl_trainer_kwargs=quiet)
    >>> model.fit(series).predict(24, verbose=False).shape
    (24, 5, 1)
    """

    def __init__(
        self,
        input_chunk_length: int | tuple[int, int] = (1, 512),
        output_chunk_length: int = 64,
        output_chunk_shift: int = 0,
        *,
        likelihood: QuantileRegression | None = None,
        pretrained: str = "zero",
        season: int | None = None,
        **kwargs: Any,
    ) -> None:
        config = load_pretrained(pretrained).config
        longest = np.max(input_chunk_length)
        if longest > config.lookback or output_chunk_length + output_chunk_shift > config.horizon:
            raise ParameterError(
                f"the weights {pretrained!r} read {config.lookback} rows at most and forecast "
                f"{config.horizon} at once, but input_chunk_length={input_chunk_length}, "
                f"output_chunk_length={output_chunk_length} and output_chunk_shift="
                f"{output_chunk_shift}. Lower them: predict(n) rolls forward."
            )
        if likelihood is not None and not isinstance(likelihood, QuantileRegression):
            raise ParameterError(
                f"the weights {pretrained!r} forecast quantiles, but likelihood is "
                f"{type(likelihood).__name__}. Pass a QuantileRegression, or None for the median."
            )
        self._pretrained, self._season = pretrained, season
        super().__init__(**kwargs)

    @property
    def supports_past_covariates(self) -> bool:
        """False: the weights know none."""
        return False

    @property
    def supports_future_covariates(self) -> bool:
        """False: the weights know none."""
        return False

    def _create_model(self, train_sample: TorchTrainingSample) -> TSM2ZeroModule:
        weights = load_pretrained(self._pretrained)
        module = TSM2ZeroModule(network=asdict(weights.config), **self.pl_module_params)
        module.network.load_state_dict(weights.state_dict())
        module.network.season = self._own_season
        return module

    def _build_train_dataset(self, series: Any, *args: Any, **kwargs: Any) -> Any:
        self._meet(series)
        return super()._build_train_dataset(series, *args, **kwargs)

    def _build_inference_dataset(self, n: int, series: Any, *args: Any, **kwargs: Any) -> Any:
        self._meet(series)
        return super()._build_inference_dataset(n, series, *args, **kwargs)

    def _meet(self, series: Sequence[TimeSeries]) -> None:
        """Take the season of the series' frequency, if they have one and nobody said another."""
        seasons = {_season_of(each) for each in series}
        own = seasons.pop() if len(seasons) == 1 else None
        self._own_season = (own if self._season is None else self._season) or 0
        if self.model is not None:
            self.model.network.season = self._own_season


# Darts loads only classes that it was told of.
add_safe_globals([TSM2Model, TSM2Module, TSM2ZeroModel, TSM2ZeroModule])
if sys.version_info < (3, 11, 4):
    # These pickle a member of an enumeration as a call of getattr, which Darts trusts in no file.
    copyreg.pickle(LikelihoodType, lambda member: (LikelihoodType, (member.value,)))


# --- between the estimator and the model ----------------------------------------------------------


def to_darts(forecaster: TSM2Forecaster, **kwargs: Any) -> TSM2Model:
    """Return a fitted Darts model with a fitted forecaster's network, scaling and context.

    Parameters
    ----------
    forecaster
        Fitted on one table.
    kwargs
        What `TSM2Model` takes beside the network's settings, such as `pl_trainer_kwargs`.

    Returns
    -------
    The model; `predict()` continues the forecaster's context, with its forecasts. Quantiles become
    a `QuantileRegression`.

    Raises
    ------
    NotFittedError
        The forecaster is not fitted.
    ParameterError
        It has several networks, was fit on several series, reads covariates or gaps, measures
        columns in logarithms, forecasts nothing below zero, or is averaged with classical
        forecasts.
    """
    if not hasattr(forecaster, "network_"):
        raise NotFittedError("this TSM2Forecaster is not fitted yet. Call fit(table) first.")
    network = forecaster.network_
    if not isinstance(network, TSM2Network):
        raise ParameterError(
            "a TSM2Forecaster of several networks (n_estimators) does not become one TSM2Model. "
            "Fit with n_estimators=1, or make an ensemble of TSM2Models in Darts."
        )
    config = network.config
    covariates = config.n_past or config.n_future or config.n_static
    if covariates or config.gaps or not forecaster.layout_.alone:
        raise ParameterError(
            "only a TSM2Forecaster that was fit on one table, without covariates and gaps, becomes "
            "a TSM2Model. Fit one like that, or fit a TSM2Model with the series and covariates."
        )
    if forecaster.scaling_.logs is not None:
        raise ParameterError(
            "a TSM2Forecaster that measures columns in logarithms does not become a TSM2Model. Fit "
            "with logarithms=False, or fit a TSM2Model with the logarithms of the series."
        )
    if forecaster.fitted_.nonnegative is not None:
        raise ParameterError(
            "a TSM2Forecaster that forecasts nothing below zero does not become a TSM2Model, which "
            "would. Fit with nonnegative=False."
        )
    if forecaster.fitted_.classical is not None:
        raise ParameterError(
            "a TSM2Forecaster that is averaged with classical forecasts does not become a "
            "TSM2Model, which holds a network alone. Fit with classical=False."
        )
    chosen = {each.name: getattr(config, each.name) for each in SETTINGS}
    if config.quantiles is not None:
        chosen["likelihood"] = QuantileRegression(list(config.quantiles))
    model = TSM2Model(config.lookback, config.horizon, **chosen | kwargs)
    found = ("reverts", "bounded", "leaders")  # by the fit
    model._network |= {name: getattr(config, name) for name in found}
    context = _context_series(forecaster)
    # Darts makes a network when it sees a series with a window in it, even to train for no epoch.
    longer = context.prepend_values(np.repeat(context.values()[:1], config.horizon, axis=0))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=0, enable_checkpointing=False, accelerator="cpu", **quiet)
    model.fit(longer, trainer=trainer)
    model.training_series = context
    model.model.network.load_state_dict(network.state_dict())
    model.model.center.copy_(torch.from_numpy(forecaster.scaling_.center))
    model.model.scale.copy_(torch.from_numpy(forecaster.scaling_.scale))
    return model


def from_darts(model: TSM2Model, series: TimeSeries | None = None) -> TSM2Forecaster:
    """Return a fitted forecaster with a fitted Darts model's network.

    Parameters
    ----------
    model
        Fitted, without covariates, and without a likelihood other than quantiles.
    series
        The series that `predict()` continues; None for the one that the model was fit on.

    Returns
    -------
    The forecaster; its `save` writes safetensors and JSON, no pickle.

    Raises
    ------
    NotFittedError
        The model is not fitted.
    ParameterError
        It reads covariates, or forecasts what the forecaster does not, or there is no series.
    """
    if model.model is None:
        raise NotFittedError("this TSM2Model is not fitted yet. Call fit(series) first.")
    module, config = model.model, model.model.network.config
    if config.n_past or config.n_future or config.n_static or config.outputs:
        raise ParameterError(
            "only a TSM2Model without covariates, and with no likelihood or QuantileRegression, "
            "becomes a TSM2Forecaster. Fit one like that, or keep this one in Darts."
        )
    series = model.training_series if series is None else series
    if series is None:
        raise ParameterError(
            "the model was fit on several series, or saved without them: pass the series that "
            "predict() continues."
        )
    forecaster = TSM2Forecaster(
        config.lookback,
        config.horizon,
        **{each.name: getattr(config, each.name) for each in SETTINGS},
        quantiles=config.quantiles,
        random_state=model.model_params.get("random_state"),
    )
    network = TSM2Network(config)
    network.load_state_dict({k: v.cpu() for k, v in module.network.state_dict().items()})
    context = read(series[-config.lookback :].to_dataframe().astype(float))
    center, scale = (each.double().cpu().numpy() for each in (module.center, module.scale))
    # Darts keeps no losses; one row says how many epochs there were, which may be none.
    last = Epoch(epoch=model.epochs_trained, train_loss=math.nan, validation_loss=None)
    return forecaster.take_over(
        FittedModel(
            network=network.eval(),
            scaling=Scaling(center=center, scale=scale),
            roles=Roles.of(None, context.layout),
            codings=Codings(),
            context=context,
            missing="raise",
        ),
        history_table([last]),
        choice={"reverts": config.reverts, "leaders": config.leaders or None},
    )


def _context_series(forecaster: TSM2Forecaster) -> TimeSeries:
    table = pd.DataFrame(
        forecaster.context_.astype(np.float32),
        index=forecaster.context_index_,
        columns=[str(column) for column in forecaster.layout_.columns],
    )
    if isinstance(table.index, pd.PeriodIndex):
        table.index = table.index.to_timestamp()
    return TimeSeries.from_dataframe(table)


# --- likelihoods ----------------------------------------------------------------------------------


def _family(likelihood: TorchLikelihood | None) -> Family | None:
    """Return what a likelihood needs; None where the network forecasts values or quantiles."""
    if likelihood is None:
        return None
    if isinstance(likelihood, QuantileRegression):
        return None if len(likelihood.quantiles) > 1 else distributions.LEVEL
    for kind in type(likelihood).__mro__:
        if kind.__name__ in _FAMILIES:
            return _FAMILIES[kind.__name__]
    others = ("free",) * (likelihood.num_parameters - 1)
    return Family(outputs=("location", *others), raw=distributions.LEVEL.raw)


def _with_monte_carlo_dropout(network: TSM2Network) -> TSM2Network:
    """Replace every dropout by one that Darts can leave on while it predicts."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, MonteCarloDropout(child.p))
    return network


# --- series ---------------------------------------------------------------------------------------


def _width(values: np.ndarray[Any, Any] | None) -> int:
    return 0 if values is None else values.shape[1]


def _season_of(series: TimeSeries) -> int | None:
    """Return the rows of a season that the frequency of a series tells."""
    index = series.time_index
    if isinstance(index, pd.RangeIndex):
        return None
    columns = tuple(series.components)
    return season_of(
        Layout(kind="frame", columns=columns, index_kind="datetime", frequency=series.freq_str)
    )


def _refuse_gaps(
    series: Sequence[TimeSeries],
    past_covariates: Sequence[TimeSeries] | None = None,
    future_covariates: Sequence[TimeSeries] | None = None,
    *_: Any,
    **__: Any,
) -> None:
    groups = {
        "target": series,
        "past covariates": past_covariates,
        "future covariates": future_covariates,
    }
    for about, group in groups.items():
        for number, each in enumerate(group or ()):
            unknown = np.argwhere(np.isnan(each.all_values(copy=False)))
            if len(unknown):
                row, component, _sample = unknown[0]
                raise FrameError(
                    f"the {about} of series {number} have {len(unknown)} missing values, the first "
                    f"in {each.components[component]!r} at {each.time_index[row]}. Fill them, for "
                    f"example with darts.utils.missing_values.fill_missing_values."
                )
