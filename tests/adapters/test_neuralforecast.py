"""The neuralforecast adapter: the network's own forecasts, every loss, the library around it."""

import logging
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("neuralforecast")

from neuralforecast import NeuralForecast  # pyright: ignore
from neuralforecast.losses import pytorch as losses  # pyright: ignore[reportMissingImports]
from torch import Tensor

from tsm2.adapters.neuralforecast import TSM2, AutoTSM2
from tsm2.datasets import load_sample
from tsm2.errors import ParameterError
from tsm2.networks.config import SETTINGS, NetworkConfig

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

SIZES: dict[str, Any] = {
    "h": 6,
    "input_size": 24,
    "n_series": 3,
    "features": 8,
    "d_state": 4,
    "patch_length": 8,
    "max_steps": 2,
    "windows_batch_size": 8,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
}
NAMES = ["temperature", "load", "price"]
FRAME = load_sample(160)
LONG = FRAME[NAMES].melt(ignore_index=False, var_name="unique_id", value_name="y").reset_index()
LONG = LONG.rename(columns={LONG.columns[0]: "ds"}).sort_values(["unique_id", "ds"])
LONG = LONG.assign(
    hour=np.sin(2 * np.pi * LONG["ds"].dt.hour / 24),
    noise=np.tile(FRAME["noise_a"].to_numpy(), 3),
)
IDS = sorted(NAMES)
STATIC = pd.DataFrame({"unique_id": IDS, "size": [1.0, 2.0, 0.5]})
EXOGENOUS: dict[str, Any] = {
    "futr_exog_list": ["hour"],
    "hist_exog_list": ["noise"],
    "stat_exog_list": ["size"],
}


def fitted(frame: pd.DataFrame = LONG, **changed: Any) -> Any:
    plain = not changed.get("futr_exog_list")
    columns = ["unique_id", "ds", "y"]
    driver = NeuralForecast(models=[TSM2(**SIZES | changed)], freq="h")
    driver.fit(frame[columns] if plain else frame, static_df=None if plain else STATIC)
    return driver


def stir(driver: Any) -> Any:
    """Let the mixers and the covariates' parts leave zero."""
    generator = torch.Generator().manual_seed(1)
    for parameter in driver.models[0].network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return driver


def table(column: str, last: int | None = None) -> Tensor:
    wide = LONG.pivot(index="ds", columns="unique_id", values=column)[IDS]
    return torch.from_numpy(wide.to_numpy(np.float32)[:last].T[None].copy())  # (1, N, T)


def wide(forecast: pd.DataFrame, column: str = "TSM2") -> np.ndarray[Any, Any]:
    return forecast.pivot(index="ds", columns="unique_id", values=column)[IDS].to_numpy()


# --- the network's own forecasts ------------------------------------------------------------------


def test_forecasts_are_the_networks() -> None:
    driver = stir(fitted(LONG[LONG["ds"] < FRAME.index[154]], **EXOGENOUS))
    future = LONG.loc[LONG["ds"] >= FRAME.index[154], ["unique_id", "ds", "hour"]]
    got = wide(driver.predict(futr_df=future))
    network = driver.models[0].network.eval()
    static = torch.from_numpy(STATIC[["size"]].to_numpy(np.float32))[None]
    with torch.no_grad():
        wanted = network(
            table("y")[..., 130:154],
            past=table("noise")[..., 130:154],
            future=table("hour")[..., 130:160],
            static=static,
        )[0].T
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["hour", "noise", "size"])
def test_every_kind_of_exogenous_variable_is_read(name: str) -> None:
    driver = stir(fitted(**EXOGENOUS))
    future = driver.make_future_dataframe().assign(hour=0.0)
    before = wide(driver.predict(LONG, static_df=STATIC, futr_df=future))
    frame, static = LONG, STATIC
    if name == "size":
        static = STATIC.assign(size=[2.0, -1.0, 3.0])
    else:
        frame = LONG.assign(**{name: LONG[name] ** 2})
    after = wide(driver.predict(frame, static_df=static, futr_df=future))
    assert (before != after).all()


def test_rows_before_a_series_are_gaps() -> None:
    late = LONG[(LONG["unique_id"] != "load") | (LONG["ds"] >= FRAME.index[150])]
    driver = stir(fitted(late, start_padding_enabled=True))
    network = driver.models[0].network.eval()
    context = table("y")[..., -24:].clone()
    mask = torch.ones_like(context, dtype=torch.bool)
    mask[0, IDS.index("load"), :14] = False
    with torch.no_grad():
        wanted = network(context * mask, mask=mask)[0].T
        assert not torch.allclose(wanted, network(context * mask)[0].T)
    np.testing.assert_allclose(wide(driver.predict()), wanted, rtol=1e-4)


def test_settings_reach_the_network() -> None:
    changed: dict[str, Any] = {
        "features": 6, "blocks": 2, "patch_length": 4, "patch_stride": 2, "d_state": 3, "d_conv": 2,
        "expand": 1, "dropout": 0.25, "pre_norm": "rms", "selection": "input",
        "time_mixer": "linear", "variate_mixer": "mlp", "variate_directions": "forward",
        "averaging": "mean", "averaging_learned": False, "averaging_reach": 1, "readout": "last",
        "zero_start": False, "zero_head": False, "instance_norm": False, "level": "last",
        "separate_heads": True, "backend": "torch",
    }  # fmt: skip
    assert [*changed] == [each.name for each in SETTINGS]
    config = TSM2(**SIZES | changed).network.config
    assert {name: getattr(config, name) for name in changed} == changed


def test_settings_are_those_of_the_network_with_its_defaults() -> None:
    """Written out, since Lightning reads `__init__`'s arguments from its frame by their names."""
    given = dict(signature(TSM2.__init__).parameters)
    names = [each.name for each in SETTINGS]
    first = [*given].index("features")
    assert [*given][first : first + len(names)] == names
    assert [given[name].default for name in names] == [each.default for each in SETTINGS]
    wanted = get_type_hints(NetworkConfig)
    wanted |= dict.fromkeys(("patch_length", "patch_stride"), int | None)
    hints = get_type_hints(TSM2.__init__)
    assert {name: hints[name] for name in names} == {name: wanted[name] for name in names}
    recorded = TSM2(h=6, input_size=24, n_series=3).hparams
    assert {name: recorded[name] for name in names} == {
        each.name: each.default for each in SETTINGS
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_length": 30}, r"patch_length \(30\) must not exceed"),
        ({"patch_length": 0}, "patch_length must be an integer of at least 1, got 0"),
        ({"patch_stride": 0}, "patch_stride must be an integer of at least 1, got 0"),
        ({"time_mixer": "lstm"}, "time_mixer must be one of"),
        ({"dropout": 7}, "dropout must be a number in"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        TSM2(**SIZES | changes)


# --- losses ---------------------------------------------------------------------------------------

POINTS = ["MAE", "MSE", "RMSE", "MAPE", "SMAPE", "HuberLoss", "TukeyLoss", "IQLoss", "HuberIQLoss"]
ALL = {
    **{name: getattr(losses, name)() for name in POINTS},
    "MASE": losses.MASE(seasonality=6),
    "QuantileLoss": losses.QuantileLoss(0.7),
    "HuberQLoss": losses.HuberQLoss(0.7),
    "MQLoss": losses.MQLoss(level=[80, 90]),
    "HuberMQLoss": losses.HuberMQLoss(quantiles=[0.9, 0.2]),
    "GMM": losses.GMM(n_components=2),
    "GMM-weighted": losses.GMM(n_components=3, weighted=True),
    "PMM": losses.PMM(n_components=2),
    "NBMM": losses.NBMM(n_components=2, weighted=True),
    **{
        name: losses.DistributionLoss(name)
        for name in ("Normal", "StudentT", "Poisson", "NegativeBinomial", "ISQF")
    },
    "Tweedie": losses.DistributionLoss("Tweedie", rho=1.5),
    "Bernoulli": losses.DistributionLoss("Bernoulli"),
}


@pytest.mark.parametrize("name", ALL)
def test_every_loss_trains_and_forecasts(name: str) -> None:
    values = LONG["y"].abs() + 1
    if name == "Bernoulli":
        values = (values > values.median()).astype(float)
    driver = fitted(LONG.assign(y=values), loss=ALL[name])
    forecast = driver.predict()
    numbers = forecast.drop(columns=["unique_id", "ds"]).to_numpy()
    assert np.isfinite(numbers).all()
    assert len(forecast) == 18


@pytest.mark.parametrize("name", ["Normal", "StudentT", "GMM", "ISQF", "Poisson", "PMM"])
def test_a_distribution_starts_at_each_series_own_level(name: str) -> None:
    """Series of far apart levels: parameters that came to the wrong series would show."""
    level = LONG["unique_id"].map({"load": 1000.0, "price": 10.0, "temperature": 100.0})
    wave = 1 + 0.02 * np.sin(np.arange(len(LONG)))
    driver = fitted(LONG.assign(y=np.round(level * wave)), loss=ALL[name], learning_rate=1e-6)
    head = driver.models[0].network.head.projection
    head.weight.data.zero_()
    head.bias.data.zero_()
    forecast = wide(driver.predict())
    wanted = np.array([1000.0, 10.0, 100.0])
    np.testing.assert_allclose(forecast.mean(axis=0), wanted, rtol=0.35)


def test_a_scale_moves_with_the_values() -> None:
    """The loss itself adds a fifth of the scaler's unit, which is 1 here, to a deviation."""
    loss = losses.DistributionLoss("Normal", return_params=True)
    driver = stir(fitted(loss=loss))
    plain = driver.predict(LONG[["unique_id", "ds", "y"]])
    moved = driver.predict(LONG[["unique_id", "ds", "y"]].assign(y=LONG["y"] * 100 + 1000))
    np.testing.assert_allclose(
        wide(moved, "TSM2-loc"), wide(plain, "TSM2-loc") * 100 + 1000, rtol=1e-3
    )
    np.testing.assert_allclose(
        wide(moved, "TSM2-scale") - 0.2, (wide(plain, "TSM2-scale") - 0.2) * 100, rtol=1e-3
    )


def test_a_loss_of_unknown_parameters_is_refused() -> None:
    class Other(losses.GMM):  # type: ignore[misc]
        """A mixture of something else."""

    with pytest.raises(ParameterError, match="does not know the parameters of the loss Other"):
        TSM2(**SIZES, loss=Other(n_components=2))


def test_quantiles_never_cross_and_are_those_asked_for() -> None:
    driver = stir(fitted(loss=losses.MQLoss(quantiles=[0.9, 0.2, 0.6])))
    forecast = driver.predict()
    high, low, middle = forecast[[c for c in forecast if c.startswith("TSM2")]].to_numpy().T
    assert (low < middle).all()
    assert (middle < high).all()
    assert driver.models[0].network.config.quantiles == (0.2, 0.5, 0.6, 0.9)


# --- the library around it ------------------------------------------------------------------------


def test_a_kept_model_forecasts_the_same_without_pickle(tmp_path: Path) -> None:
    driver = stir(fitted(loss=losses.MQLoss(level=[80])))
    driver.save(str(tmp_path / "model"))
    again = NeuralForecast.load(str(tmp_path / "model"), allow_pickle=False)
    pd.testing.assert_frame_equal(again.predict(), driver.predict())


def test_cross_validation_and_intervals() -> None:
    from neuralforecast.utils import PredictionIntervals  # pyright: ignore[reportMissingImports]

    frame = LONG[["unique_id", "ds", "y"]]
    driver = NeuralForecast(models=[TSM2(**SIZES, scaler_type="standard")], freq="h")
    folds = driver.cross_validation(frame, n_windows=3, step_size=6)
    assert folds["cutoff"].nunique() == 3
    driver.fit(frame, prediction_intervals=PredictionIntervals(n_windows=2))
    forecast = driver.predict(level=[80])
    assert (forecast["TSM2-lo-80"] <= forecast["TSM2-hi-80"]).all()


@pytest.mark.parametrize("backend", ["ray", "optuna"])
def test_settings_are_searched(backend: str, tmp_path: Path) -> None:
    if backend == "optuna":
        few = {key: SIZES[key] for key in SIZES if key not in ("h", "features")}

        def config(trial: Any) -> dict[str, Any]:
            return {**few, "features": trial.suggest_categorical("features", [4, 8])}

        auto = AutoTSM2(
            h=6, n_series=3, config=config, backend="optuna", num_samples=2, search_alg=None
        )
        driver = NeuralForecast(models=[auto], freq="h")
        driver.fit(LONG[["unique_id", "ds", "y"]], val_size=12)
        assert np.isfinite(driver.predict()["AutoTSM2"]).all()
        driver.save(str(tmp_path / "model"))
        again = NeuralForecast.load(str(tmp_path / "model"))
        pd.testing.assert_frame_equal(again.predict(), driver.predict())
    else:
        space = AutoTSM2.get_default_config(h=6, backend=backend, n_series=3)
        assert {"input_size", "features", "learning_rate"} <= set(space)
        assert space["n_series"] == 3
        assert AutoTSM2(h=6, n_series=3).config["n_series"] == 3
        assert AutoTSM2(h=6, n_series=3, config={"input_size": 24}).config["n_series"] == 3
