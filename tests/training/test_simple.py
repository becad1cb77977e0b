"""Simple forecasts as maps, and their mean with a regression: what a network then forecasts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from tsm2 import TSM2Forecaster
from tsm2.networks.tsm2 import NetworkConfig, TSM2Network
from tsm2.prepared.windows import Windows
from tsm2.training.loop import seeded
from tsm2.training.simple import Blend, blend_in, error_of, regressed, simple_maps
from tsm2.training.start import ExactStart, leave_out, refit_exactly, start_exactly

LOOKBACK, HORIZON, SEASON, READS = 20, 6, 4, 8
ROWS, N_TRAIN = 120, 90
BLEND = Blend(regressed=READS, season=SEASON)
HOW = ExactStart(blend=BLEND)


def table(columns: int = 2, rows: int = ROWS) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    steps = torch.arange(rows, dtype=torch.float64)[:, None]
    noise = torch.randn(rows, columns, generator=draw, dtype=torch.float64)
    wave = torch.sin(steps * 2 * torch.pi / SEASON + torch.arange(columns))
    return (wave + 0.3 * noise + 0.02 * steps).float()


def parts(**given: Any) -> tuple[Windows, Windows]:
    values = table()
    train = Windows(values=values[:N_TRAIN], lookback=LOOKBACK, horizon=HORIZON, **given)
    return train, Windows(values=values[N_TRAIN - LOOKBACK :], lookback=LOOKBACK, horizon=HORIZON)


def fresh(**given: Any) -> TSM2Network:
    sizes: dict[str, Any] = {"lookback": LOOKBACK, "horizon": HORIZON, "n_variates": 2}
    with seeded(0):
        return TSM2Network(NetworkConfig(**sizes, patch_length=10, patch_stride=10, **given)).eval()


# --- the maps -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lookback", "season"), [(1, 1), (2, 1), (9, 5), (12, 4), (14, 7), (60, 12), (240, 24)]
)
def test_simple_forecasts_repeat_a_level(lookback: int, season: int) -> None:
    for each in simple_maps(lookback, 7, season):
        assert each.shape[1:] == (lookback, 7)
        torch.testing.assert_close(each.sum(1), torch.ones(len(each), 7, dtype=torch.float64))


def test_the_last_value_the_last_seasons_and_the_last_week_come_again() -> None:
    values = torch.arange(240.0, dtype=torch.float64)
    last, season, two, week, *_ = (values @ each[0] for each in simple_maps(240, 30, 24))
    assert last.tolist() == [239.0] * 30
    assert season.tolist() == [*range(216, 240), *range(216, 222)]
    assert two.tolist() == [each - 12 for each in season.tolist()]
    assert week.tolist() == [*range(72, 102)]


@pytest.mark.parametrize("cycle", [4, 5])
def test_a_season_around_a_level_goes_on(cycle: int) -> None:
    draw = np.random.default_rng(0)
    wave = np.resize(draw.normal(size=cycle), 6 * cycle + 9) + 3.0
    for maps in simple_maps(6 * cycle, 9, cycle)[-2:]:
        for each in maps:
            got = torch.from_numpy(wave[: 6 * cycle]) @ each
            np.testing.assert_allclose(got, wave[6 * cycle :], atol=1e-9)


def test_without_a_season_theta_is_a_smoothed_level_and_half_the_slope() -> None:
    values = np.random.default_rng(1).normal(size=30).cumsum()
    slope = np.polyfit(np.arange(30), values, 1)[0]
    thetas = simple_maps(30, 5, 1)[-1]
    for alpha, each in zip((0.1, 0.3, 0.6, 1.0), thetas, strict=True):
        level = pd.Series(values).ewm(alpha=alpha, adjust=False).mean().iloc[-1]
        wanted = level + 0.5 * slope * np.arange(1, 6)
        np.testing.assert_allclose(torch.from_numpy(values) @ each, wanted, rtol=1e-9)


# --- the blend ------------------------------------------------------------------------------------


def test_the_regression_reads_the_last_steps_and_loses_no_target() -> None:
    train, validation = parts()
    own = regressed(validation, BLEND).gather(torch.arange(len(validation)))
    whole = validation.gather(torch.arange(len(validation)))
    torch.testing.assert_close(own.context, whole.context[..., -READS:])
    torch.testing.assert_close(own.target, whole.target)
    more = regressed(train, BLEND, from_first=True)
    assert more.starts is not None
    assert more.starts.tolist() == list(range(N_TRAIN - READS - HORIZON + 1))
    several = replace(
        train,
        starts=torch.tensor([0, 1, 2, 40, 41]),
        series=torch.tensor([0, 0, 0, 2, 2]),
    )
    more = regressed(several, BLEND, from_first=True)
    assert more.starts is not None
    assert more.starts.tolist() == [*range(15), *range(40, 54)]
    assert more.series is not None
    assert more.series.tolist() == [0] * 15 + [2] * 14


def simple_by_hand(train: Windows, validation: Windows) -> np.ndarray:
    """Each simple forecast of the validation windows, weighted by its error over all windows."""
    errors, forecasts = [], []
    judged = validation.gather(torch.arange(len(validation)))
    for maps in simple_maps(LOOKBACK, HORIZON, SEASON):
        tried = []
        for each in maps:
            missed = []
            for part in (train, validation):
                batch = part.gather(torch.arange(len(part)))
                missed.append((batch.context.double() @ each - batch.target).abs().flatten())
            tried.append((float(torch.cat(missed).mean()), judged.context.double() @ each))
        error, forecast = min(tried, key=lambda pair: pair[0])
        errors.append(error)
        forecasts.append(forecast.numpy())
    weights = np.array(errors) ** -6
    return np.average(forecasts, axis=0, weights=weights)


@pytest.mark.parametrize("level", ["mean", "last"])
def test_a_blended_network_is_the_mean_of_ridge_regression_and_simple_forecasts(level: Any) -> None:
    train, validation = parts()
    network = fresh(level=level)
    found = start_exactly(network, train, validation, HOW)

    def read(part: Windows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        batch = part.gather(torch.arange(len(part)))
        x, y = batch.context.double().numpy(), batch.target.double().numpy()
        base = x.mean(-1, keepdims=True) if level == "mean" else x[..., -1:]
        return x - base, y - base, base

    x, y, _ = read(Windows(values=table()[:N_TRAIN], lookback=READS, horizon=HORIZON))
    x, y = x.reshape(-1, READS), y.reshape(-1, HORIZON)
    alpha = float(found.strength) * float((x**2).sum()) / READS
    model = Ridge(alpha=alpha, fit_intercept=False, solver="cholesky").fit(x, y)
    xv, yv, base = read(regressed(validation, BLEND))
    alone = base + model.predict(xv.reshape(-1, READS)).reshape(yv.shape)
    judged = validation.gather(torch.arange(len(validation)))
    with torch.no_grad():
        got = network(judged.context)
    wanted = (alone + simple_by_hand(train, validation)) / 2
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    whole = blend_in(found, BLEND, [train, validation])
    error = float(((wanted - judged.target.numpy()) ** 2).mean())
    assert error_of(whole, validation) == pytest.approx(error, rel=1e-5)
    refit_exactly(network, train, validation, HOW)
    with torch.no_grad():
        assert not np.allclose(network(judged.context), wanted, atol=1e-3)


@pytest.mark.parametrize("level", ["mean", "last"])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("features", [16, 3])
def test_a_blend_with_a_map_that_leaves_the_level_leaves_half_as_much(
    level: Any, separate: bool, features: int
) -> None:
    """Of the steps that the regression reads, in a network that reads more."""
    train, validation = parts()
    network = fresh(level=level, features=features, separate_heads=separate, reverts=True)
    found = start_exactly(network, train, validation, replace(HOW, averaged=True))
    judged = validation.gather(torch.arange(len(validation)))
    with torch.no_grad():
        got, higher = network(judged.context), network(judged.context + 10.0)
    left = 10 * found.weights[:, -1] / 2  # (G, H): of a level that is ten higher
    assert left.abs().max() > 0.1
    torch.testing.assert_close(
        (higher - got).double(), (10 + left).expand(got.shape), rtol=0, atol=1e-3
    )

    reads = regressed(validation, BLEND)
    batch = reads.gather(torch.arange(len(reads)))
    x, y = found.linear.read(batch)
    errors = torch.einsum("bmd,mdh->bmh", x, found.weights.expand(2, -1, -1)) - y
    assert error_of(found, reads) == pytest.approx(float(errors.square().mean()), rel=1e-9)
    if features == 16 and not separate:  # all is seen, and one share for both variates
        alone = (batch.target + errors).numpy()
        wanted = (alone + simple_by_hand(train, validation)) / 2
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_variates_with_maps_of_their_own_weigh_simple_forecasts_by_their_own_errors() -> None:
    values = table()
    values[:, 1] = torch.randn(ROWS, generator=torch.Generator().manual_seed(2)).cumsum(0)
    sizes: dict[str, Any] = {"lookback": LOOKBACK, "horizon": HORIZON}
    config = NetworkConfig(**sizes, n_variates=2, patch_length=10, separate_heads=True)
    train = Windows(values=values, **sizes)
    together = TSM2Network(config).eval()
    start_exactly(together, train, None, HOW)
    batch = train.gather(torch.arange(len(train)))
    for column in range(2):
        alone = TSM2Network(replace(config, n_variates=1, separate_heads=False)).eval()
        found = start_exactly(alone, replace(train, values=values[:, [column]]), None, HOW)
        assert found.strength.shape == (1,)
        with torch.no_grad():
            wanted = alone(batch.context[:, [column]])
            got = together(batch.context)[:, [column]]
        # The regressions are held towards different maps; the simple forecasts are the same.
        assert (got - wanted).abs().mean() < 0.25 * (
            wanted - batch.target[:, [column]]
        ).abs().mean()


def test_what_an_embedding_cannot_show_costs_little() -> None:
    train, validation = parts()
    config = NetworkConfig(
        lookback=LOOKBACK, horizon=HORIZON, n_variates=2, patch_length=10, patch_stride=10
    )
    errors = []
    for features in (16, 3):
        network = TSM2Network(replace(config, features=features)).eval()
        start_exactly(network, train, validation, HOW)
        judged = validation.gather(torch.arange(len(validation)))
        with torch.no_grad():
            errors.append(float((network(judged.context) - judged.target).square().mean()))
    assert errors[1] < 1.15 * errors[0]


def test_blocks_are_forecast_by_blends_that_did_not_see_them() -> None:
    train, validation = parts()
    config = NetworkConfig(
        lookback=LOOKBACK, horizon=HORIZON, n_variates=2, patch_length=10, blocks=0
    )
    whole = TSM2Network(config).eval()
    start_exactly(whole, train, validation, HOW)
    refit_exactly(whole, train, validation, HOW)
    seen = held = 0.0
    for network, block in leave_out(config, train, validation, HOW):
        batch = block.gather(torch.arange(len(block)))
        with torch.no_grad():
            held += float((network(batch.context) - batch.target).square().sum())
            seen += float((whole(batch.context) - batch.target).square().sum())
    assert held > 1.005 * seen


# --- what fits make of it -------------------------------------------------------------------------


def months(rows: int = 96, columns: int = 2, *, noise: float = 0.2) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    time = np.arange(rows)[:, None]
    waves = 10 + np.sin(2 * np.pi * time / 12 + np.arange(columns)) + 0.01 * time
    index = pd.date_range("2015-01-01", periods=rows, freq="MS")
    values = waves + noise * draw.normal(size=waves.shape)
    return pd.DataFrame(values, index, [f"v{k}" for k in range(columns)])


def kept(model: TSM2Forecaster) -> dict[str, Any]:
    (row,) = model.choices_[model.choices_["chosen"]].to_dict("records")
    return {str(name): value for name, value in row.items()}


def test_on_few_windows_a_blend_is_taken_and_reads_five_seasons() -> None:
    model = TSM2Forecaster(horizon=12, blocks=0, random_state=0).fit(months(150))
    assert (kept(model)["regressed"], kept(model)["cycle"]) == (24, 12)
    assert model.fitted_.lookback == kept(model)["lookback"] == 60
    assert len(model.choices_) > 2


@pytest.mark.parametrize(
    "given",
    [
        {"lookback": 24},
        {"calendar": ["month"]},
        {"instance_norm": False},
        {"linear_start": "random", "max_epochs": 1, "blocks": 1, "features": 4},
        {"target": ["v0"]},
    ],
    ids=lambda each: next(iter(each)),
)
def test_what_reads_more_or_was_set_is_not_blended(given: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"horizon": 6, "blocks": 0, "random_state": 0} | given
    model = TSM2Forecaster(**settings).fit(months())
    assert pd.isna(kept(model)["regressed"])
    assert model.fitted_.lookback == 24


def test_covariates_are_not_blended_nor_in_refits() -> None:
    frame = months()
    known = pd.DataFrame({"x": np.arange(108.0) % 5}, pd.date_range("2015", periods=108, freq="MS"))
    model = TSM2Forecaster(horizon=6, blocks=0, random_state=0)
    model.fit(frame, future_covariates=known)
    assert pd.isna(kept(model)["regressed"])
    tested = model.backtest(frame, future_covariates=known, refit=12, start=frame.index[80])
    assert np.isfinite(tested["forecast"]).all()


def test_where_enough_windows_say_so_the_regression_stays_alone() -> None:
    """Every value follows from the two before it, which no simple forecast can know."""
    draw = np.random.default_rng(3)
    values = np.zeros(600)
    for k in range(2, 600):
        values[k] = 1.6 * values[k - 1] - 0.95 * values[k - 2] + 0.1 * draw.normal()
    frame = pd.DataFrame({"a": values}, pd.date_range("2024-01-01", periods=600))
    model = TSM2Forecaster(horizon=5, blocks=0, random_state=0).fit(frame)
    assert pd.isna(kept(model)["regressed"])
    blended = model.choices_[model.choices_["regressed"].notna()]
    assert blended["validation_mse"].item() > kept(model)["validation_mse"] / 0.97


@pytest.mark.parametrize(("rows", "alone"), [(2000, False), (8000, True)])
def test_a_regression_that_is_hardly_better_stays_alone_on_many_windows(
    rows: int, alone: bool
) -> None:
    draw = np.random.default_rng(3)
    values = np.zeros(rows)
    for k in range(1, rows):
        values[k] = 0.95 * values[k - 1] + draw.normal()
    frame = pd.DataFrame({"a": values}, pd.date_range("2000-01-01", periods=rows))
    model = TSM2Forecaster(horizon=3, blocks=0, random_state=0).fit(frame)
    linear = model.choices_[~model.choices_["classical"]]
    blended = linear[linear["regressed"].notna()].iloc[0]
    itself = linear[linear["averaged"] & (linear["reverts"] == blended["reverts"])].iloc[0]
    assert 0.97 < itself["validation_mse"] / blended["validation_mse"] < 1
    assert pd.isna(kept(model)["regressed"]) is alone


def test_a_season_that_no_frequency_tells_is_found() -> None:
    years = pd.date_range("1800-01-01", periods=150, freq="YS")
    values = np.sin(2 * np.pi * np.arange(150) / 11)
    values += 0.2 * np.random.default_rng(0).normal(size=150)
    model = TSM2Forecaster(horizon=15, blocks=0, random_state=0).fit(
        pd.DataFrame({"a": values}, years)
    )
    tried = model.choices_.dropna(subset="regressed")
    assert tried["cycle"].tolist() == [11, 11]  # without classical forecasts, and with them


@pytest.mark.parametrize(
    "given", [{}, {"quantiles": (0.1, 0.9)}, {"n_estimators": 2}, {"missing": "mask"}], ids=str
)
@pytest.mark.parametrize("container", ["wide", "dict"])
def test_a_blend_forecasts_in_every_kind_of_fit_and_is_the_same_each_time(
    given: dict[str, Any], container: str, tmp_path: object
) -> None:
    frame = months(80)
    if "missing" in given:
        frame.iloc[30:33, 0] = np.nan
    X = frame if container == "wide" else {"x": frame, "y": frame.iloc[10:] * 3}
    settings: dict[str, Any] = {"horizon": 6, "features": 8, "max_epochs": 1, "random_state": 0}
    model = TSM2Forecaster(**settings, **given).fit(X)
    assert kept(model)["regressed"] in (23, 24)  # a third of the rows of the shorter series
    forecast = model.predict()
    one = forecast if container == "wide" else forecast["y"]
    assert np.isfinite(one.to_numpy()).all()
    again = TSM2Forecaster(**settings, **given).fit(X).predict()
    pd.testing.assert_frame_equal(one, again if container == "wide" else again["y"])
    model.save(f"{tmp_path}/model")
    loaded = TSM2Forecaster.load(f"{tmp_path}/model").predict()
    pd.testing.assert_frame_equal(one, loaded if container == "wide" else loaded["y"])


def test_a_fit_with_a_checkpoint_goes_on_with_its_blend(tmp_path: Any) -> None:
    settings: dict[str, Any] = {"horizon": 6, "features": 8, "max_epochs": 2, "random_state": 0}
    whole = TSM2Forecaster(**settings).fit(months()).predict()
    for _ in range(2):
        model = TSM2Forecaster(**settings).fit(months(), checkpoint=tmp_path / "fit")
        pd.testing.assert_frame_equal(model.predict(), whole)
