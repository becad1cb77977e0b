"""TSM2 as a multivariate model of neuralforecast.

    insample_y, exogenous variables -> TSM2Network -> what the loss asks for, for every series

neuralforecast cuts windows, trains, cross-validates, saves and tunes; the network is tsm2's. All
series of a window are its variates. Historic exogenous variables are past covariates, one of every
series; those of the future are future covariates, likewise; rows that are not available are gaps.

Sizes: B windows, L input_size, h horizon, N series, K outputs that the loss asks for; X historic,
F future and S static exogenous variables.
Interface: neuralforecast 3.3, class BaseModel.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tsm2.adapters import distributions
from tsm2.adapters.distributions import inverse_softplus
from tsm2.adapters.peers import missing_peer
from tsm2.errors import ParameterError
from tsm2.networks.config import SETTINGS, NetworkConfig, patch_sizes
from tsm2.networks.heads import ParameterKind
from tsm2.networks.tsm2 import TSM2Network

try:
    from neuralforecast.common._base_auto import BaseAuto
    from neuralforecast.common._base_model import BaseModel
    from neuralforecast.core import MODEL_FILENAME_DICT
    from neuralforecast.losses.pytorch import MAE
    from ray import tune
    from ray.tune.search.basic_variant import BasicVariantGenerator
except ModuleNotFoundError as error:
    raise missing_peer(error, "neuralforecast") from error

__all__ = ["TSM2", "AutoTSM2"]


class TSM2(BaseModel):
    """TSM2, the selective state-space network, as a multivariate model of neuralforecast.

    Parameters
    ----------
    h
        Rows that it forecasts.
    input_size
        Rows that it reads.
    n_series
        Series, which are forecast together.
    futr_exog_list, hist_exog_list, stat_exog_list
        Columns with exogenous variables that are known ahead, up to now, and for always.
    features, blocks, patch_length, patch_stride, d_state, d_conv, expand, dropout, pre_norm, \
selection, time_mixer, variate_mixer, variate_directions, averaging, averaging_learned, \
averaging_reach, readout, zero_start, zero_head, instance_norm, level, separate_heads, backend
        The network's settings, as in `TSM2Forecaster`.
    others
        As in every model of neuralforecast.

    Examples
    --------
    >>> model = TSM2(h=12, input_size=48, n_series=3, max_steps=10, features=8)
    >>> model.network.config.n_variates
    3
    """

    EXOGENOUS_FUTR = True
    EXOGENOUS_HIST = True
    EXOGENOUS_STAT = True
    EXOGENOUS_CAT = False
    MULTIVARIATE = True
    RECURRENT = False

    def __init__(
        self,
        h: int,
        input_size: int,
        n_series: int,
        futr_exog_list: list[str] | None = None,
        hist_exog_list: list[str] | None = None,
        stat_exog_list: list[str] | None = None,
        exclude_insample_y: bool = False,
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
        instance_norm: bool = True,
        level: Literal["mean", "last"] = "mean",
        separate_heads: bool = False,
        backend: str = "auto",
        loss: Any = MAE(),  # noqa: B008 - as every model of neuralforecast has it
        valid_loss: Any = None,
        max_steps: int = 1000,
        learning_rate: float = 1e-3,
        num_lr_decays: int = -1,
        early_stop_patience_steps: int = -1,
        val_monitor: str = "ptl/val_loss",
        val_check_steps: int = 100,
        batch_size: int = 32,
        valid_batch_size: int | None = None,
        windows_batch_size: int = 32,
        inference_windows_batch_size: int = 32,
        start_padding_enabled: bool = False,
        training_data_availability_threshold: float | list[float] = 0.0,
        step_size: int = 1,
        scaler_type: str = "identity",
        random_seed: int = 1,
        drop_last_loader: bool = False,
        alias: str | None = None,
        optimizer: Any = None,
        optimizer_kwargs: dict[str, Any] | None = None,
        lr_scheduler: Any = None,
        lr_scheduler_kwargs: dict[str, Any] | None = None,
        dataloader_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        super().__init__(
            h=h,
            input_size=input_size,
            n_series=n_series,
            futr_exog_list=futr_exog_list,
            hist_exog_list=hist_exog_list,
            stat_exog_list=stat_exog_list,
            exclude_insample_y=exclude_insample_y,
            loss=loss,
            valid_loss=valid_loss,
            max_steps=max_steps,
            learning_rate=learning_rate,
            num_lr_decays=num_lr_decays,
            early_stop_patience_steps=early_stop_patience_steps,
            val_monitor=val_monitor,
            val_check_steps=val_check_steps,
            batch_size=batch_size,
            valid_batch_size=valid_batch_size,
            windows_batch_size=windows_batch_size,
            inference_windows_batch_size=inference_windows_batch_size,
            start_padding_enabled=start_padding_enabled,
            training_data_availability_threshold=training_data_availability_threshold,
            step_size=step_size,
            scaler_type=scaler_type,
            random_seed=random_seed,
            drop_last_loader=drop_last_loader,
            alias=alias,
            optimizer=optimizer,
            optimizer_kwargs=optimizer_kwargs,
            lr_scheduler=lr_scheduler,
            lr_scheduler_kwargs=lr_scheduler_kwargs,
            dataloader_kwargs=dataloader_kwargs,
            **trainer_kwargs,
        )
        self.demand = _demand(self.loss)
        # Lightning has read the arguments from this frame by their names, so that they stay written
        # out; a saved model says by them what it was made with.
        settings = {each.name: self.hparams[each.name] for each in SETTINGS}
        config = NetworkConfig(
            lookback=input_size,
            horizon=h,
            n_variates=n_series,
            n_past=self.hist_exog_size * n_series,
            n_future=self.futr_exog_size * n_series,
            n_static=self.stat_exog_size,
            quantiles=self.demand.quantiles,
            outputs=self.demand.outputs,
            **settings | patch_sizes(input_size, patch_length, patch_stride),
        )
        self.network = TSM2Network(config)

    def forward(self, windows_batch: dict[str, Any]) -> Tensor:
        """Return what the loss maps to forecasts, (B, h, N * K)."""
        context = windows_batch["insample_y"].swapaxes(1, 2)  # (B, N, L)
        known = windows_batch["insample_mask"].swapaxes(1, 2) > 0
        given: dict[str, Tensor] = {} if bool(known.all()) else {"mask": known}
        if self.hist_exog_size:  # (B, X, L, N)
            given["past"] = windows_batch["hist_exog"].swapaxes(2, 3).flatten(1, 2)
        if self.futr_exog_size:  # (B, F, L + h, N)
            given["future"] = windows_batch["futr_exog"].swapaxes(2, 3).flatten(1, 2)
        if self.stat_exog_size:  # (N, S)
            given["static"] = windows_batch["stat_exog"].expand(len(context), -1, -1)
        forecast = self.network(context, **given)
        if forecast.ndim == 3:
            forecast = forecast.unsqueeze(-1)  # (B, N, h, 1)
        raw = self.demand.raw(forecast).swapaxes(1, 2)  # (B, h, N, K)
        if self.demand.parameters_first:
            raw = raw.swapaxes(2, 3)  # (B, h, K, N)
        return raw.flatten(2)


class AutoTSM2(BaseAuto):
    """`TSM2` with settings that neuralforecast searches, by ray or optuna.

    Parameters
    ----------
    h
        Rows that it forecasts.
    n_series
        Series, which are forecast together.
    others
        As in every Auto model of neuralforecast; `config` replaces the search space.
    """

    default_config: ClassVar[dict[str, Any]] = {
        "input_size_multiplier": [2, 4, 8],
        "h": None,
        "n_series": None,
        "features": tune.choice([8, 16, 32]),
        "blocks": tune.choice([1, 2]),
        "dropout": tune.uniform(0.0, 0.5),
        "learning_rate": tune.loguniform(3e-4, 1e-2),
        "scaler_type": tune.choice(["identity", "robust", "standard"]),
        "max_steps": tune.choice([500, 1000]),
        "batch_size": tune.choice([32, 64]),
        "loss": None,
        "random_seed": tune.randint(1, 20),
    }

    def __init__(
        self,
        h: int,
        n_series: int,
        loss: Any = MAE(),  # noqa: B008 - as every model of neuralforecast has it
        valid_loss: Any = None,
        config: Any = None,
        search_alg: Any = BasicVariantGenerator(random_state=1),  # noqa: B008
        num_samples: int = 10,
        time_budget: int | None = None,
        refit_with_val: bool = False,
        cpus: int | None = None,
        gpus: int | None = None,
        verbose: bool = False,
        alias: str | None = None,
        backend: Literal["ray", "optuna"] = "ray",
        callbacks: Any = None,
        ray_options: dict[str, Any] | None = None,
        optuna_options: dict[str, Any] | None = None,
    ) -> None:
        if config is None:
            config = self.get_default_config(h=h, backend=backend, n_series=n_series)
        elif backend == "ray":
            config = config | {"n_series": n_series}
        super().__init__(
            cls_model=TSM2,
            h=h,
            loss=loss,
            valid_loss=valid_loss,
            config=config,
            search_alg=search_alg,
            num_samples=num_samples,
            time_budget=time_budget,
            refit_with_val=refit_with_val,
            cpus=cpus,
            gpus=gpus,
            verbose=verbose,
            alias=alias,
            backend=backend,
            callbacks=callbacks,
            ray_options=ray_options,
            optuna_options=optuna_options,
        )

    @classmethod
    def get_default_config(cls, h: int, backend: str, n_series: int) -> Any:
        """Return the search space that `config=None` stands for."""
        config = {k: v for k, v in cls.default_config.items() if k != "input_size_multiplier"}
        multipliers = cls.default_config["input_size_multiplier"]
        config["input_size"] = tune.choice([h * each for each in multipliers])
        config["step_size"] = tune.choice([1, h])
        config["n_series"] = n_series
        return cls._ray_config_to_optuna(config) if backend == "optuna" else config


# neuralforecast saves and loads only models that it was told of.
MODEL_FILENAME_DICT["tsm2"] = TSM2
MODEL_FILENAME_DICT["autotsm2"] = TSM2


# --- losses ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Demand:
    """What a loss asks of the network."""

    raw: Callable[[Tensor], Tensor]
    """From the network's, (B, N, h, K or Q), to what the loss maps itself, (B, N, h, K)."""
    quantiles: tuple[float, ...] | None = None
    """Levels that the network forecasts."""
    outputs: tuple[ParameterKind, ...] | None = None
    """Kinds of the parameters that it forecasts."""
    parameters_first: bool = False
    """The loss wants all series' first parameter, then all series' second one."""


def _demand(loss: Any) -> _Demand:
    count = loss.outputsize_multiplier
    if not loss.is_distribution_output:
        levels = getattr(loss, "quantiles", None)
        if count == 1 or levels is None:
            return _Demand(raw=lambda values: values)
        return _of_quantiles([round(float(level), 6) for level in levels])
    distribution = getattr(loss, "distribution", None)
    if distribution in _DISTRIBUTIONS:
        return _DISTRIBUTIONS[distribution]
    if distribution == "ISQF":
        return _of_spline(loss)
    return _of_mixture(loss)


def _of_quantiles(levels: list[float]) -> _Demand:
    """Forecast the levels and the median, which never cross, and return those asked for."""
    trained = tuple(sorted({*levels, 0.5}))
    places = [trained.index(level) for level in levels]
    return _Demand(raw=lambda values: values[..., places], quantiles=trained)


def _of_mixture(loss: Any) -> _Demand:
    """Return what a mixture wants: of all components the first parameter, then the second, ..."""
    kinds: dict[str, tuple[ParameterKind, ...]] = {
        "GMM": ("location", "scale", "free"),
        "PMM": ("location", "free"),
        "NBMM": ("location", "free", "free"),
    }
    if type(loss).__name__ not in kinds:
        raise ParameterError(
            f"TSM2 does not know the parameters of the loss {type(loss).__name__}. Pass a point "
            f"loss, MQLoss, DistributionLoss, GMM, PMM or NBMM."
        )
    mine = kinds[type(loss).__name__][: loss.n_outputs]
    outputs: list[ParameterKind] = [kind for kind in mine for _ in range(loss.n_components)]
    scales = torch.tensor([kind == "scale" for kind in outputs])
    return _Demand(raw=lambda values: _behind_softplus(values, scales), outputs=tuple(outputs))


def _of_spline(loss: Any) -> _Demand:
    """Return what an incremental quantile function wants: shapes, two tails, and the knots."""
    n_knots = len(loss.quantiles)
    n_shapes = loss.outputsize_multiplier - n_knots - 2
    outputs: list[ParameterKind] = ["location"]
    outputs.extend("scale" for _ in range(n_knots - 1))
    outputs.extend("free" for _ in range(n_shapes + 2))
    scales = torch.tensor([kind == "scale" for kind in outputs])

    def raw(values: Tensor) -> Tensor:
        values = _behind_softplus(values, scales)
        return torch.cat((values[..., n_knots:], values[..., :n_knots]), -1)

    return _Demand(raw=raw, outputs=tuple(outputs))


def _behind_softplus(values: Tensor, scales: Tensor) -> Tensor:
    scales = scales.to(values.device)
    return torch.where(scales, inverse_softplus(values.where(scales, 1.0)), values)


def _student(parameters: Tensor) -> Tensor:
    location, scale, free = parameters.unbind(-1)
    return torch.stack((free, location, inverse_softplus(scale)), -1)


def _tweedie(parameters: Tensor) -> Tensor:
    level = torch.nn.functional.softplus(parameters)
    return inverse_softplus(torch.log1p(level))  # the mean is 1 + level


_DISTRIBUTIONS = {
    "Bernoulli": _Demand(raw=distributions.SHARE.raw, outputs=("location",)),
    "Normal": _Demand(
        raw=distributions.LOCATION_SCALE.raw, outputs=("location", "scale"), parameters_first=True
    ),
    "Poisson": _Demand(raw=distributions.LEVEL.raw, outputs=("location",)),
    "StudentT": _Demand(raw=_student, outputs=("location", "scale", "free"), parameters_first=True),
    "NegativeBinomial": _Demand(
        raw=distributions.COUNT.raw, outputs=("location", "free"), parameters_first=True
    ),
    "Tweedie": _Demand(raw=_tweedie, outputs=("location",)),
}
