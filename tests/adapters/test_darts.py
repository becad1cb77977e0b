"""The Darts adapter: the network's own forecasts, and everything Darts does with a torch model."""

import logging
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("darts")

from darts import TimeSeries, concatenate  # pyright: ignore
from darts.metrics import mae  # pyright: ignore[reportMissingImports]
from darts.utils.likelihood_models import torch as likelihoods  # pyright: ignore
from darts.utils.likelihood_models.torch import (  # pyright: ignore[reportMissingImports]
    GaussianLikelihood,
    QuantileRegression,
    TorchLikelihood,
)
from torch import Tensor

from tsm2 import TSM2Forecaster
from tsm2.adapters.darts import TSM2Model, TSM2ZeroModel, from_darts, to_darts
from tsm2.datasets import load_sample
from tsm2.errors import FrameError, NotFittedError, ParameterError
from tsm2.networks.config import SETTINGS

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
logging.getLogger("darts").setLevel(logging.ERROR)

QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
    "accelerator": "cpu",
}
SIZES: dict[str, Any] = {
    "input_chunk_length": 24,
    "output_chunk_length": 6,
    "features": 8,
    "d_state": 4,
    "patch_length": 8,
    "n_epochs": 1,
    "random_state": 0,
    "pl_trainer_kwargs": QUIET,
}
FRAME = load_sample(200)
STATIC = pd.DataFrame({"size": [1.0, 2.0, 0.0, 1.0, 3.0]})
SERIES = TimeSeries.from_dataframe(FRAME, static_covariates=STATIC).astype(np.float32)
PLAIN = TimeSeries.from_dataframe(FRAME).astype(np.float32)
PAST = PLAIN[["noise_a", "noise_b"]]
HOURS = pd.date_range(FRAME.index[0], periods=260, freq="h")
FUTURE = TimeSeries.from_times_and_values(
    HOURS,
    np.stack([np.sin(2 * np.pi * HOURS.hour / 24), np.cos(2 * np.pi * HOURS.hour / 24)], 1).astype(
        np.float32
    ),
)
COVARIATES = {"past_covariates": PAST, "future_covariates": FUTURE}


def fitted(series: Any = PLAIN, *, covariates: bool = False, **changed: Any) -> Any:
    given = COVARIATES if covariates else {}
    return TSM2Model(**SIZES | changed).fit(series, **given)


def stirred(model: Any) -> Any:
    """A model whose mixers and covariates' parts have left zero."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.model.network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def rows(series: Any, first: int, last: int) -> Tensor:
    """Rows of a series as the network reads them, (1, C, L)."""
    return torch.from_numpy(series.values()[first:last].T[None].copy())


# --- the network's own forecasts ------------------------------------------------------------------


def test_forecasts_are_the_networks() -> None:
    model = stirred(fitted(SERIES, covariates=True))
    inputs: dict[str, Any] = {
        "past": rows(PAST, 176, 200),
        "future": rows(FUTURE, 176, 206),
        "static": torch.from_numpy(STATIC.to_numpy(np.float32))[None],
    }
    got = model.predict(6, **COVARIATES).values()
    with torch.no_grad():
        wanted = model.model.network.eval()(rows(SERIES, 176, 200), **inputs)[0].T
    np.testing.assert_allclose(got, wanted, rtol=1e-4)
    np.testing.assert_allclose(model.predict(4, **COVARIATES).values(), wanted[:4], rtol=1e-4)


def test_beyond_a_chunk_forecasts_roll_forward() -> None:
    model = stirred(fitted(SERIES[:180], covariates=True))
    network = model.model.network.eval()
    history = rows(SERIES, 0, 180)
    static = torch.from_numpy(STATIC.to_numpy(np.float32))[None]
    for end in (180, 186):
        with torch.no_grad():
            forecast = network(
                history[..., -24:],
                past=rows(PAST, end - 24, end),
                future=rows(FUTURE, end - 24, end + 6),
                static=static,
            )
        history = torch.cat((history, forecast), -1)
    got = model.predict(12, **COVARIATES).values()
    np.testing.assert_allclose(got, history[0, :, 180:].T, rtol=1e-4)


@pytest.mark.parametrize("name", ["past", "future", "static"])
def test_every_kind_of_covariate_is_read(name: str) -> None:
    model = stirred(fitted(SERIES, covariates=True))
    before = model.predict(6, SERIES, **COVARIATES).values()
    series, covariates = SERIES, dict(COVARIATES)
    if name == "static":
        series = SERIES.with_static_covariates(STATIC + 1)
    else:
        values = covariates[f"{name}_covariates"]
        covariates[f"{name}_covariates"] = values.with_values(values.all_values() ** 2)
    assert (model.predict(6, series, **covariates).values() != before).all()


def test_static_covariates_may_be_shared_or_left_alone() -> None:
    shared = PLAIN.with_static_covariates(pd.DataFrame({"size": [1.0]}))
    assert fitted(shared).predict(6).n_components == 5
    assert fitted(SERIES, use_static_covariates=False).model.network.config.n_static == 0


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
    config = fitted(**changed).model.network.config
    assert {name: getattr(config, name) for name in changed} == changed
    with pytest.raises(ValueError, match="look_back"):
        TSM2Model(24, 6, look_back=3)


def test_settings_are_recorded_and_default_to_the_estimators() -> None:
    defaults = {each.name: each.default for each in SETTINGS}
    given = dict(signature(TSM2Model.__init__).parameters)
    assert [*given][4:-2] == [*defaults]
    recorded = TSM2Model(24, 6).model_params
    assert {name: recorded[name] for name in defaults} == defaults
    in_their_order: Any = (24, 6, 0, 8, 2)
    assert TSM2Model(*in_their_order).model_params["blocks"] == 2
    got = TSM2Model(24, 6)._network
    plain = TSM2Forecaster(24, 6, level="mean", separate_heads=False)  # not chosen, as in Darts
    wanted = {each.name: getattr(plain, each.name) for each in SETTINGS}
    sizes = {"lookback": 24, "horizon": 6, "patch_length": 16, "patch_stride": 16}
    assert got == wanted | sizes


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
def test_wrong_settings_are_refused_before_a_series_is_seen(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        TSM2Model(24, 6, **changes)


@pytest.mark.parametrize("flag", [True, {"affine": True}])
def test_darts_own_instance_norm_is_ours(flag: object) -> None:
    model = fitted(instance_norm=False, use_reversible_instance_norm=flag)
    assert model.model.rin is None
    assert model.model.network.config.instance_norm


# --- likelihoods ----------------------------------------------------------------------------------

ALL = sorted(
    name
    for name, kind in vars(likelihoods).items()
    if isinstance(kind, type)
    and issubclass(kind, TorchLikelihood)
    and kind not in (TorchLikelihood, QuantileRegression)
)


def outcomes(name: str) -> Any:
    """Values of the kind that a likelihood is for."""
    values = np.abs(PLAIN.values()) + 0.5
    share = values / (values.max(axis=0) * 1.1)
    if name == "BernoulliLikelihood":
        values = (share > 0.3).astype(np.float32)
    elif name in ("BetaLikelihood", "ContinuousBernoulliLikelihood"):
        values = share
    elif name == "DirichletLikelihood":
        values = values / values.sum(axis=1, keepdims=True)
    elif name in ("GeometricLikelihood", "NegativeBinomialLikelihood", "PoissonLikelihood"):
        values = np.round(values)
    return PLAIN.with_values(values.astype(np.float32))


@pytest.mark.parametrize("name", ALL)
def test_every_likelihood_starts_at_the_windows_level(name: str, tmp_path: Path) -> None:
    likelihood = getattr(likelihoods, name)()
    series = outcomes(name)
    model = fitted(series, likelihood=likelihood, optimizer_kwargs={"lr": 1e-6})
    model.model.network.head.projection.weight.data.zero_()
    model.model.network.head.projection.bias.data.zero_()
    parameters = torch.from_numpy(
        model.predict(6, predict_likelihood_parameters=True).values().reshape(1, 6, 5, -1)
    )
    samples = model.predict(12, num_samples=8)
    assert np.isfinite(samples.all_values()).all()
    level = rows(series, 176, 200).mean(-1).expand(6, 5)
    first = parameters[0, ..., 0]
    wanted = {
        "BernoulliLikelihood": torch.sigmoid(4 * (level - 0.5)),
        "ContinuousBernoulliLikelihood": torch.sigmoid(4 * (level - 0.5)),
        "BetaLikelihood": torch.sigmoid(4 * (level - 0.5)),
        "DirichletLikelihood": torch.nn.functional.softplus(level),
        "ExponentialLikelihood": 1 / torch.nn.functional.softplus(level),
        "GammaLikelihood": torch.nn.functional.softplus(level),
        "GeometricLikelihood": 1 / (1 + torch.nn.functional.softplus(level)),
        "HalfNormalLikelihood": torch.nn.functional.softplus(level),
        "LogNormalLikelihood": torch.log(torch.nn.functional.softplus(level)),
        "NegativeBinomialLikelihood": torch.nn.functional.softplus(level),
        "PoissonLikelihood": torch.nn.functional.softplus(level),
        "WeibullLikelihood": torch.nn.functional.softplus(level),
    }.get(name, level)
    if name == "BetaLikelihood":
        first = first / parameters[0].sum(-1)
    elif name == "GammaLikelihood":
        first = first / parameters[0, ..., 1]
    elif name == "DirichletLikelihood":
        wanted = wanted / wanted.sum(-1, keepdim=True)
    elif name == "NegativeBinomialLikelihood":  # Darts names r and p; the mean is r (1 - p) / p
        r, p = parameters[0].unbind(-1)
        first = r * p / (1 - p)
    torch.testing.assert_close(first, wanted.to(first.dtype), rtol=2e-3, atol=1e-4)
    model.save(str(tmp_path / "model.pt"))
    again = TSM2Model.load(str(tmp_path / "model.pt"), pl_trainer_kwargs=QUIET)
    assert again.predict(6, predict_likelihood_parameters=True) == model.predict(
        6, predict_likelihood_parameters=True
    )


@pytest.mark.parametrize(
    "name", ["GaussianLikelihood", "LaplaceLikelihood", "CauchyLikelihood", "GumbelLikelihood"]
)
def test_location_and_scale_move_with_the_values(name: str) -> None:
    model = stirred(fitted(likelihood=getattr(likelihoods, name)()))
    plain = model.predict(6, PLAIN, predict_likelihood_parameters=True).values().reshape(6, 5, 2)
    moved = model.predict(6, PLAIN * 100 + 1000, predict_likelihood_parameters=True)
    got = moved.values().reshape(6, 5, 2)
    np.testing.assert_allclose(got[..., 0], plain[..., 0] * 100 + 1000, rtol=1e-3)
    np.testing.assert_allclose(got[..., 1], plain[..., 1] * 100, rtol=1e-3)


def test_a_high_level_does_not_blow_up_the_scale() -> None:
    noise = 1000 + 0.3 * np.random.default_rng(0).standard_normal((400, 1))
    series = TimeSeries.from_values(noise.astype(np.float32))
    model = fitted(series, likelihood=GaussianLikelihood(), n_epochs=10)
    mean, deviation = model.predict(6, predict_likelihood_parameters=True).values().T
    assert np.abs(mean - 1000).max() < 0.5
    assert 0.2 < deviation.min() < deviation.max() < 0.45


def test_quantiles_never_cross() -> None:
    model = fitted(likelihood=QuantileRegression([0.05, 0.2, 0.5, 0.8, 0.95]))
    for parameter in model.model.network.parameters():
        parameter.data += torch.randn_like(parameter)
    forecast = model.predict(6, predict_likelihood_parameters=True)
    assert (np.diff(forecast.values().reshape(6, 5, 5), axis=2) >= 0).all()
    assert model.predict(15, num_samples=20).n_samples == 20
    median = fitted(likelihood=QuantileRegression([0.5]))
    assert median.predict(6, predict_likelihood_parameters=True).n_components == 5


# --- what Darts does with a model -----------------------------------------------------------------


def test_monte_carlo_dropout_stays_on_only_when_asked() -> None:
    model = stirred(fitted(dropout=0.5))
    spread = model.predict(6, num_samples=10, mc_dropout=True).all_values().std(axis=2)
    assert (spread > 0).all()
    assert model.predict(6) == model.predict(6)


def test_a_shifted_chunk_starts_later() -> None:
    forecast = fitted(output_chunk_shift=3).predict(6)
    assert forecast.start_time() == PLAIN.end_time() + 4 * PLAIN.freq
    with_future = TSM2Model(**SIZES, output_chunk_shift=3).fit(PLAIN, future_covariates=FUTURE)
    assert len(with_future.predict(6)) == 6


def test_many_series_encoders_and_weights() -> None:
    model = TSM2Model(**SIZES, add_encoders={"cyclic": {"future": ["hour"]}})
    model.fit([PLAIN[:120], PLAIN[60:110], PLAIN[100:]], sample_weight="linear")
    first, second = model.predict(9, series=[PLAIN[:120], PLAIN])
    assert first.start_time() == PLAIN.time_index[120]
    assert len(second) == 9
    assert model.model.network.config.n_future == 2
    flat = TSM2Model(**SIZES, add_encoders={"cyclic": {"future": ["hour"]}})
    flat.fit([PLAIN[:120], PLAIN[60:110], PLAIN[100:]])
    assert (flat.predict(6, series=PLAIN).values() != model.predict(6, series=PLAIN).values()).any()


def test_historical_forecasts_are_the_same_at_once_and_one_by_one() -> None:
    model = stirred(fitted(SERIES, covariates=True))
    given = dict(
        COVARIATES, forecast_horizon=6, start=0.7, stride=7, retrain=False, last_points_only=False
    )
    at_once = model.historical_forecasts(SERIES, **given, verbose=False)
    one_by_one = model.historical_forecasts(
        SERIES, **given, verbose=False, enable_optimization=False
    )
    np.testing.assert_allclose(
        concatenate(at_once, ignore_time_axis=True).values(),
        concatenate(one_by_one, ignore_time_axis=True).values(),
        rtol=1e-4,
    )


def test_backtest_and_gridsearch() -> None:
    model = TSM2Model(**SIZES)
    error = model.backtest(PLAIN, forecast_horizon=6, start=0.8, stride=18, metric=mae)
    assert np.isfinite(error)
    lists = {name: [value] for name, value in SIZES.items()} | {"features": [4, 8]}
    _, best, _ = TSM2Model.gridsearch(
        lists, PLAIN, forecast_horizon=6, start=0.8, stride=18, metric=mae
    )
    assert best["features"] in (4, 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("clean", [False, True])
def test_a_kept_model_forecasts_the_same(dtype: type, clean: bool, tmp_path: Path) -> None:
    series = SERIES.astype(dtype)
    given = {name: each.astype(dtype) for name, each in COVARIATES.items()}
    model = stirred(TSM2Model(**SIZES, add_encoders=None).fit(series, **given))
    forecast = model.predict(6, series, **given)
    assert forecast.dtype == dtype
    path = str(tmp_path / "model.pt")
    model.save(path, clean=clean)
    again = TSM2Model.load(path, pl_trainer_kwargs=QUIET)
    assert again.predict(6, series, **given) == forecast
    weights = TSM2Model(**SIZES)
    weights.load_weights(path)
    assert weights.predict(6, series, **given) == forecast


def test_checkpoints(tmp_path: Path) -> None:
    model = TSM2Model(
        **SIZES, save_checkpoints=True, model_name="ck", work_dir=str(tmp_path), force_reset=True
    )
    model.fit(PLAIN[:150], val_series=PLAIN[120:], load_best=True)
    best = TSM2Model.load_from_checkpoint("ck", work_dir=str(tmp_path), best=True)
    assert best.predict(6, series=PLAIN) == model.predict(6, series=PLAIN)


def test_fine_tuning_moves_what_is_unfrozen(tmp_path: Path) -> None:
    path = str(tmp_path / "model.pt")
    fitted().save(path)
    tuned = TSM2Model(**SIZES, enable_finetuning={"unfreeze": ["network.head.*"]})
    tuned.load_weights(path)
    before = {name: p.clone() for name, p in tuned.model.named_parameters()}
    tuned.fit(PLAIN * 2)
    moved = {n for n, p in tuned.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"network.head.weight", "network.head.bias"}


def test_onnx_forecasts_the_same(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    from darts.utils.onnx import run_onnx_prediction  # pyright: ignore[reportMissingImports]

    model = stirred(fitted(SERIES, covariates=True))
    path = str(tmp_path / "model.onnx")
    model.to_onnx(path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    got = run_onnx_prediction(6, session, SERIES, **COVARIATES)
    np.testing.assert_allclose(
        got.values(), model.predict(6, SERIES, **COVARIATES).values(), rtol=1e-3, atol=1e-3
    )


def test_a_seed_repeats_a_fit() -> None:
    assert fitted(n_epochs=2).predict(6) == fitted(n_epochs=2).predict(6)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("about", ["target", "past covariates", "future covariates"])
def test_missing_values_are_refused(about: str) -> None:
    given: dict[str, Any] = {"series": PLAIN, **COVARIATES}
    name = "series" if about == "target" else about.replace(" ", "_")
    values = given[name].values(copy=True)
    values[7, 1] = np.nan
    given[name] = given[name].with_values(values)
    match = f"the {about} of series 0 have 1 missing values, the first in '.*' at 2024-01-01 07"
    with pytest.raises(FrameError, match=match):
        TSM2Model(**SIZES).fit(**given)
    with pytest.raises(FrameError, match=match):
        fitted(covariates=True).predict(6, **given)


# --- between the estimator and the model ----------------------------------------------------------


@pytest.mark.parametrize("quantiles", [None, (0.1, 0.9)])
@pytest.mark.parametrize("index", ["datetime", "period", "range"])
def test_a_forecaster_goes_to_darts_and_back(index: str, quantiles: Any, tmp_path: Path) -> None:
    frame = FRAME.copy()
    if index == "period":
        frame.index = pd.DatetimeIndex(frame.index).to_period("h")
    elif index == "range":
        frame = frame.reset_index(drop=True)
    own = TSM2Forecaster(
        24, 6, max_epochs=1, features=8, patch_length=8, random_state=0, quantiles=quantiles
    ).fit(frame)
    model = to_darts(own, pl_trainer_kwargs=QUIET)
    wanted: Any = own.predict(horizon=6)
    point = model.predict(6, predict_likelihood_parameters=quantiles is not None)
    values = point.values().reshape(6, 5, -1)[..., len(quantiles) // 2 if quantiles else 0]
    np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-4)
    if index == "datetime":
        assert list(point.time_index) == list(wanted.index)
    assert len(model.training_series) == 24
    path = str(tmp_path / "model.pt")
    model.save(path)
    back = from_darts(TSM2Model.load(path, pl_trainer_kwargs=QUIET))
    np.testing.assert_allclose(back.predict(), wanted, rtol=1e-4, atol=1e-4)
    back.save(tmp_path / "folder")
    again = TSM2Forecaster.load(tmp_path / "folder")
    pd.testing.assert_frame_equal(again.predict(), back.predict())


def levels_that_come_back(rows: int = 6000) -> pd.DataFrame:
    draw = np.random.default_rng(0).normal(size=rows)
    values = np.zeros(rows)
    for row in range(1, rows):
        values[row] = 0.94 * values[row - 1] + draw[row]
    return pd.DataFrame({"a": 50 + values}, pd.date_range("2024-01-01", periods=rows, freq="h"))


@pytest.mark.parametrize("kept", ["start", "mixers"])
def test_what_a_fit_finds_goes_to_darts_and_back(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"max_epochs": 1, "epoch_steps": 5, "random_state": 0}
    if kept == "mixers":
        monkeypatch.setattr("tsm2.fitting.sure_margin", lambda *_: -1e9)
    own = TSM2Forecaster(16, 12, **settings).fit(levels_that_come_back())
    network: Any = own.network_
    assert network.config.reverts
    assert (network.config.blocks > 0) == (kept == "mixers")
    wanted = own.predict()
    model = to_darts(own, pl_trainer_kwargs=QUIET)
    np.testing.assert_allclose(model.predict(12).values(), wanted, rtol=1e-4)
    model.save(str(tmp_path / "model.pt"))
    quiet = QUIET | {"enable_checkpointing": False}  # which a model that was loaded forgets
    loaded = TSM2Model.load(str(tmp_path / "model.pt"), pl_trainer_kwargs=quiet)
    back = from_darts(loaded)
    np.testing.assert_allclose(back.predict(), wanted, rtol=1e-4)
    assert bool(back.choices_["reverts"].all())
    back.save(tmp_path / "folder")
    again = TSM2Forecaster.load(tmp_path / "folder")
    pd.testing.assert_frame_equal(again.predict(), back.predict())
    if kept == "mixers":
        assert bool(network.bound.largest.isfinite().all())
        rows = levels_that_come_back(100).astype(np.float32)
        loaded.fit(TimeSeries.from_dataframe(rows), epochs=1)
        assert not bool(loaded.model.network.bound.largest.isfinite().any())


def test_columns_that_lead_go_to_darts_and_back(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    first = draw.normal(size=606)
    frame = pd.DataFrame(
        {"first": first[6:], "late": first[:-6] + 0.1 * draw.normal(size=600)},
        pd.date_range("2024-01-01", periods=600, freq="h"),
    )
    own = TSM2Forecaster(16, 6, blocks=0, random_state=0).fit(frame)
    network: Any = own.network_
    assert network.leaders is not None
    wanted = own.predict()
    model = to_darts(own, pl_trainer_kwargs=QUIET | {"enable_checkpointing": False})
    np.testing.assert_allclose(model.predict(6).values(), wanted, rtol=1e-4, atol=1e-4)
    back = from_darts(model)
    np.testing.assert_allclose(back.predict(), wanted, rtol=1e-4, atol=1e-4)
    assert (back.choices_["leaders"] == network.config.leaders).all()
    back.save(tmp_path / "folder")
    again = TSM2Forecaster.load(tmp_path / "folder")
    pd.testing.assert_frame_equal(again.predict(), back.predict())
    model.fit(TimeSeries.from_dataframe(frame.astype(np.float32)), epochs=1)
    assert not bool(model.model.network.leaders.largest.isfinite().any())


def test_a_model_trained_in_darts_becomes_a_forecaster() -> None:
    model = stirred(fitted())
    forecaster = from_darts(model)
    np.testing.assert_allclose(forecaster.predict(), model.predict(6).values(), rtol=1e-4)
    earlier = from_darts(model, PLAIN[:100])
    wanted = model.predict(6, PLAIN[:100])
    np.testing.assert_allclose(earlier.predict(), wanted.values(), rtol=1e-4)


def test_what_cannot_move_is_refused() -> None:
    with pytest.raises(NotFittedError):
        to_darts(TSM2Forecaster())
    several = TSM2Forecaster(24, 6, max_epochs=1).fit([FRAME, FRAME])
    with pytest.raises(ParameterError, match="fit on one table"):
        to_darts(several)
    ensemble = TSM2Forecaster(24, 6, max_epochs=1, n_estimators=2).fit(FRAME)
    with pytest.raises(ParameterError, match="several networks"):
        to_darts(ensemble)
    stops = TSM2Forecaster(24, 6, max_epochs=1, nonnegative=True).fit(FRAME.abs())
    with pytest.raises(ParameterError, match="nothing below zero"):
        to_darts(stops)
    bent = TSM2Forecaster(24, 6, max_epochs=1, logarithms=True).fit(FRAME.abs() + 1)
    with pytest.raises(ParameterError, match="columns in logarithms"):
        to_darts(bent)
    averaged = TSM2Forecaster(24, 6, max_epochs=1, classical=True).fit(FRAME)
    with pytest.raises(ParameterError, match="classical=False"):
        to_darts(averaged)
    with pytest.raises(NotFittedError):
        from_darts(TSM2Model(24, 6))
    with pytest.raises(ParameterError, match="without covariates"):
        from_darts(fitted(covariates=True))
    with pytest.raises(ParameterError, match="no likelihood"):
        from_darts(fitted(likelihood=GaussianLikelihood()))
    with pytest.raises(ParameterError, match="fit on several series"):
        from_darts(TSM2Model(**SIZES).fit([PLAIN, PLAIN]))


# --- without a fit --------------------------------------------------------------------------------


def zero(**changed: Any) -> Any:
    return TSM2ZeroModel(pl_trainer_kwargs=QUIET, **changed)


def test_without_a_fit_forecasts_are_the_estimators() -> None:
    own: Any = TSM2Forecaster.from_pretrained("zero")
    model = zero().fit(PLAIN)
    got = model.predict(128, verbose=False)  # twice as far as the weights forecast at once
    np.testing.assert_allclose(got.values(), own.predict(FRAME, horizon=128), rtol=1e-3, atol=1e-3)
    levels = [0.07, 0.5, 0.93]
    likely = zero(likelihood=QuantileRegression(levels)).fit(PLAIN)
    band = likely.predict(12, predict_likelihood_parameters=True, verbose=False)
    wanted = own.predict_quantiles(FRAME, quantiles=levels, horizon=12)
    np.testing.assert_allclose(band.values(), wanted, rtol=1e-3, atol=1e-3)
    assert likely.predict(70, num_samples=5, verbose=False).n_samples == 5


def test_without_a_fit_any_series_with_as_many_components_is_read() -> None:
    model = zero().fit(PLAIN)
    gaps = FRAME.astype(np.float32).copy()
    gaps.iloc[50:60, 0] = np.nan
    several = [TimeSeries.from_dataframe(gaps), PLAIN[:20], PLAIN.astype(np.float64)]
    own: Any = TSM2Forecaster.from_pretrained("zero")
    for series, forecast in zip(several, model.predict(8, several, verbose=False), strict=True):
        wanted = own.predict(series.to_dataframe(), horizon=8)
        np.testing.assert_allclose(forecast.values(), wanted, rtol=1e-3, atol=1e-3)
    exact = zero().fit(PLAIN.astype(np.float64))
    np.testing.assert_allclose(
        exact.predict(8, verbose=False).values(),
        own.predict(FRAME, horizon=8),
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize(("season", "wanted"), [(None, 24), (7, 7)])
def test_without_a_fit_the_season_is_that_of_the_frequency(season: Any, wanted: int) -> None:
    model = zero(season=season).fit(PLAIN)
    assert model.model.network.season == wanted
    numbered = TimeSeries.from_values(PLAIN.values())
    model.predict(3, numbered, verbose=False)
    assert model.model.network.season == (season or 0)
    model.predict(3, PLAIN, verbose=False)
    assert model.model.network.season == wanted


def test_without_a_fit_backtests_files_and_shifts(tmp_path: Path) -> None:
    model = zero(output_chunk_length=12).fit(PLAIN)
    walked: dict[str, Any] = {"start": 150, "start_format": "position", "forecast_horizon": 12}
    forecasts = model.historical_forecasts(
        PLAIN, **walked, stride=20, retrain=False, last_points_only=False, verbose=False
    )
    assert [len(each) for each in forecasts] == [12, 12]
    first = model.predict(12, PLAIN[:150], verbose=False)
    np.testing.assert_allclose(forecasts[0].values(), first.values(), rtol=1e-4, atol=1e-4)
    model.save(str(tmp_path / "model.pt"))
    again = TSM2ZeroModel.load(str(tmp_path / "model.pt"))
    np.testing.assert_array_equal(
        again.predict(5, PLAIN, verbose=False).values(),
        model.predict(5, PLAIN, verbose=False).values(),
    )
    shifted = zero(output_chunk_length=8, output_chunk_shift=4).fit(PLAIN[:150])
    late = shifted.predict(8, verbose=False)
    assert late.start_time() == first.time_index[4]
    np.testing.assert_allclose(late.values(), first.values()[4:], rtol=1e-4, atol=1e-4)


def test_fine_tuning_by_darts_moves_the_weights() -> None:
    model = zero(input_chunk_length=(32, 128), enable_finetuning=True, n_epochs=1, batch_size=64)
    model.fit(PLAIN)
    before = zero().fit(PLAIN).predict(5, verbose=False).values()
    after = model.predict(5, verbose=False).values()
    assert np.isfinite(after).all()
    assert (after != before).any()


def test_what_the_weights_do_not_know_is_refused() -> None:
    with pytest.raises(ParameterError, match="read 512 rows at most and forecast 64 at once"):
        zero(output_chunk_length=65)
    with pytest.raises(ParameterError, match="read 512 rows at most"):
        zero(input_chunk_length=600)
    with pytest.raises(ParameterError, match="likelihood is GaussianLikelihood"):
        zero(likelihood=GaussianLikelihood())
    with pytest.raises(ParameterError, match=r"forecasts quantiles from 0\.05 to 0\.95"):
        zero(likelihood=QuantileRegression([0.01, 0.5, 0.99])).fit(PLAIN).predict(3, verbose=False)
    with pytest.raises(ValueError, match="past_covariates"):
        zero().fit(PLAIN, past_covariates=PAST)
