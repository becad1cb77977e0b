"""Models are found by name, told what they need, and compute what their papers say."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from tsm2 import TSM2Forecaster
from tsm2.benchmark import ABLATIONS, DLinear, NLinear, RepeatLast
from tsm2.benchmark.job import Job, fit_model, measure_model
from tsm2.benchmark.models import MODELS, ModelName, Setup, build, check, uses_seed
from tsm2.benchmark.protocol import load_table, measure_errors
from tsm2.benchmark.settings import Settings, load_settings
from tsm2.datasets import names
from tsm2.errors import ParameterError

SETUP = Setup(lookback=24, horizon=6, season=24)


def given(**parameters: object) -> Setup:
    return Setup(lookback=24, horizon=6, season=24, parameters=parameters)


def waves(rows: int = 400) -> np.ndarray:
    t = np.arange(rows)
    return np.stack((np.sin(t * 0.3), 5 + 3 * np.cos(t * 0.3)), axis=1)


def test_a_name_is_taken_apart() -> None:
    model = ModelName.read(" neuralforecast:PatchTST(max_steps=5, loss='MSE', sizes=[1, 2]) ")
    assert model.name == "neuralforecast:PatchTST"
    assert model.parameters == {"max_steps": 5, "loss": "MSE", "sizes": [1, 2]}
    assert ModelName.read("TSM2").parameters == {}


@pytest.mark.parametrize(
    "text",
    ["", "TSM2(", "TSM2(5)", "TSM2(a=b)", "TSM2(a={1})", "a:b:c", "TSM2(a=1)(b=2)", "TSM2(**{})"],
)
def test_a_name_that_is_no_call_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="cannot read the model"):
        ModelName.read(text)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_ours_is_made_fitted_and_forecasts(name: str) -> None:
    quick = {"max_epochs": 1, "features": 4, "sam_radius": 0} if name == "TSM2" else {}
    model = build(name, given(**quick))
    values = waves()
    model.fit(values[:320], 240)
    forecast = model.forecast_contexts(values[None, 320:344], 6)
    assert forecast.shape == (1, 6, 2)
    assert np.isfinite(forecast).all()


@pytest.mark.parametrize(
    ("name", "setup", "message"),
    [
        (
            "RLiner",
            SETUP,
            r"no model is named 'RLiner'\. Did you mean RLinear.*\? Known: TSM2, TSM2Zero",
        ),
        ("RLinear", given(epochs=5), "RLinear cannot be made"),
        ("RepeatLast", given(period=5), "RepeatLast cannot be made"),
        ("SeasonalNaive", given(season=5), "unexpected parameters"),
        ("SeasonalNaive", given(period=25), "Raise lookback"),
        ("TSM2", given(blks=5), "does not take a parameter: Invalid parameter 'blks'"),
        ("sklearn:Rigde", SETUP, "no regressor named 'Rigde'"),
        ("sklearn:Ridge", given(alfa=1), "unexpected keyword argument 'alfa'"),
        ("neuralforcast:PatchTST", SETUP, "no module 'neuralforcast'"),
        ("tsm2.benchmark.baselines:Median", SETUP, "has no 'Median'"),
    ],
)
def test_what_cannot_be_made_says_why(name: str, setup: Setup, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        build(name, setup)


def test_a_peer_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsm2.benchmark.models.find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"pip install 'tsm2\[darts\]'"):
        check("darts:NLinearModel", SETUP)


def test_what_repeats_itself_runs_once() -> None:
    assert [name for name in MODELS if not uses_seed(name, {})] == ["RepeatLast", "SeasonalNaive"]
    for name in ("LinearRegression", "Ridge", "Lasso"):
        assert not uses_seed(f"sklearn:{name}", {})
    assert uses_seed("sklearn:Ridge", {"solver": "sag"})
    assert uses_seed("sklearn:RandomForestRegressor", {})
    assert uses_seed("neuralforecast:PatchTST", {})


def test_nlinear_forecasts_the_last_value_and_a_map_of_the_rest() -> None:
    network = NLinear(5, 2)._network()
    context = torch.tensor([[[1.0, 2.0, 4.0, 8.0, 16.0]]])
    weight, bias = network.linear.weight, network.linear.bias  # type: ignore[union-attr]
    wanted = weight @ (context[0, 0] - 16) + bias + 16  # type: ignore[operator]
    torch.testing.assert_close(network(context)[0, 0], wanted)


def test_dlinear_takes_the_moving_average_of_25_rows_apart() -> None:
    network = DLinear(40, 3)._network()
    context = torch.randn(2, 4, 40, generator=torch.Generator().manual_seed(0))
    ends = [context[..., :1]] * 12, [context[..., -1:]] * 12
    padded = torch.cat([*ends[0], context, *ends[1]], dim=-1)
    average = torch.stack([padded[..., i : i + 25].mean(-1) for i in range(40)], dim=-1)
    trend, season = network.trend, network.season
    wanted = trend(average) + season(context - average)  # type: ignore[operator]
    torch.testing.assert_close(network(context), wanted)


@pytest.mark.parametrize("kind", [NLinear, DLinear])
def test_the_linear_models_learn_waves(kind: type[NLinear | DLinear]) -> None:
    values = waves()
    model = kind(24, 6, max_epochs=30, learning_rate=1e-2).fit(values[:320], 240)
    error = model.forecast_contexts(values[None, 350:374], 6)[0] - values[374:380]
    naive = RepeatLast().forecast_contexts(values[None, 350:374], 6)[0] - values[374:380]
    assert (error**2).mean() < 0.05 * (naive**2).mean()


def test_a_regressor_sees_the_lags_of_its_own_variate() -> None:
    table = load_table("sample")
    train = table.values[: table.split.train_end]
    model = build("sklearn:Ridge", given(alpha=3.0))
    model.fit(table.values[: table.split.validation_end], len(train))
    scaled = (train[:, 2] - train[:, 2].mean()) / train[:, 2].std()
    lags = np.lib.stride_tricks.sliding_window_view(scaled, 30)
    ridge = Ridge(alpha=3.0).fit(lags[:, :24], lags[:, 24:])
    context = table.values[-24:]
    own = ridge.predict((context[None, :, 2] - train[:, 2].mean()) / train[:, 2].std())
    wanted = own[0] * train[:, 2].std() + train[:, 2].mean()
    got = model.forecast_contexts(context[None], 6)[0, :, 2]
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_a_regressor_of_one_output_forecasts_every_step() -> None:
    values = waves()
    model = build("sklearn:GradientBoostingRegressor", given(n_estimators=2))
    model.fit(values[:320], 240)
    assert model.forecast_contexts(values[None, 320:344], 6).shape == (1, 6, 2)


@pytest.mark.parametrize("dataset", [*names(), "sample"])
@pytest.mark.parametrize("config", ["paper", "best", "defaults"])
def test_settings_name_parameters_of_the_estimator(dataset: str, config: str) -> None:
    settings = load_settings(dataset, config)  # type: ignore[arg-type]
    assert settings.how
    assert settings.lookback >= 96
    for horizon in (24, 96, 720):
        parameters = settings.at(horizon)
        build("TSM2", Setup(lookback=512, horizon=horizon, season=1, parameters=parameters))


def test_without_settings_the_lookback_and_two_and_four_times_of_it_are_tried() -> None:
    assert load_settings("ETTh1", "defaults").at(96) == {"lookback": [512, 1024, 2048]}
    asked = load_settings("ETTh1", "defaults", 96)
    assert (asked.lookback, asked.at(720)) == (96, {"lookback": [96, 192, 384]})
    assert load_settings("ETTh1", "best", 96).lookback == 96


@pytest.mark.parametrize("lookback", [[12, 24], [60]])
def test_a_model_that_reads_more_rows_is_measured_on_the_same_windows(lookback: list[int]) -> None:
    given: dict[str, Any] = {"lookback": lookback, "blocks": 0}
    job = Job(
        dataset="sample",
        lookback=24,
        horizon=6,
        label="TSM2",
        model="TSM2",
        parameters=given,
        seed=0,
    )
    table = load_table("sample")
    model, seconds = fit_model(job, table)
    estimator = TSM2Forecaster(horizon=6, season=24, random_state=0, **given)
    share = 1 - table.split.train_end / table.split.validation_end
    estimator.set_params(validation_fraction=share).fit(table.values[: table.split.validation_end])
    wanted = measure_errors(estimator, table, lookback=60, horizon=6)
    row = measure_model(job, table, model, seconds).row
    assert int(row["n_windows"]) == wanted.n_windows
    assert float(row["mse"]) == pytest.approx(wanted.squared.mean(), abs=1e-6)


def test_settings_change_with_the_horizon() -> None:
    settings = Settings(
        how="by hand",
        lookback=96,
        parameters={"blocks": 2, "features": 8},
        longer={336: {"features": 4}, 192: {"features": 6, "dropout": 0.5}},
    )
    assert settings.at(96) == {"blocks": 2, "features": 8}
    assert settings.at(192) == {"blocks": 2, "features": 6, "dropout": 0.5}
    assert settings.at(720) == {"blocks": 2, "features": 4, "dropout": 0.5}


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ParameterError, match="'paper', 'best' or 'defaults'"):
        load_settings("ETTh1", "worst")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_variant_trains_and_forecasts(name: str) -> None:
    quick = {"max_epochs": 1, "features": 4, "d_state": 4, "validation_fraction": 0.0}
    model = TSM2Forecaster(24, 6, device="cpu", random_state=0, **quick, **ABLATIONS[name])  # type: ignore[arg-type]
    model.fit(waves(120))
    assert np.isfinite(model.forecast_contexts(waves()[None, :24], 6)).all()


def test_variants_differ_from_each_other() -> None:
    assert len({str(sorted(changes.items())) for changes in ABLATIONS.values()}) == len(ABLATIONS)


@pytest.mark.parametrize(("season", "told"), [(24, 24), (1, None)])
def test_tsm2_is_told_the_season_that_rows_without_stamps_do_not_tell(
    season: int, told: int | None
) -> None:
    setup = Setup(lookback=48, horizon=8, season=season, parameters={"blocks": 0})
    model = build("TSM2", setup)
    model.fit(waves(240), 180)
    estimator = model.estimator  # type: ignore[attr-defined]
    assert estimator.season == told
    assert ("seasonal naive" in estimator.floor_) == (told is not None)


def test_a_season_given_with_the_name_goes_before_the_tables() -> None:
    setup = Setup(lookback=48, horizon=8, season=24, parameters={"season": 12})
    assert build("TSM2", setup).estimator.season == 12  # type: ignore[attr-defined]


def test_tsm2_validates_on_the_protocols_rows() -> None:
    table = load_table("sample")
    quick = {"max_epochs": 1, "features": 4, "sam_radius": 0.0}
    model = build("TSM2", Setup(lookback=48, horizon=24, season=24, parameters=quick))
    model.fit(table.values[: table.split.validation_end], table.split.train_end)
    estimator = model.estimator  # type: ignore[attr-defined]
    train = table.values[: table.split.train_end]
    np.testing.assert_allclose(estimator.scaling_.center, train.mean(axis=0))
    assert measure_errors(model, table, lookback=48, horizon=24).n_windows == 457
