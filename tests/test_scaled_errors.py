"""Errors in units of each series' seasonal naive error: measured, solved, trained, kept."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from tsm2 import TSM2Forecaster
from tsm2.errors import ParameterError
from tsm2.networks.heads import mean_loss
from tsm2.prepared.prepared import Prepared, measured
from tsm2.prepared.roles import Roles
from tsm2.prepared.windows import Covariates, Windows
from tsm2.tables.read import read
from tsm2.training.moments import LinearInput
from tsm2.training.ridge import solve_linear
from tsm2.training.step import BatchLoss

SEASON = 6


def smooth(rows: int, seed: int) -> NDArray[np.float64]:
    """A season with an edge of its own, again and again, and hardly any noise."""
    draw = np.random.default_rng(seed)
    season = draw.normal(size=SEASON)
    return 20 + np.resize(season, rows) + 0.01 * draw.normal(size=rows)


def rough(rows: int, seed: int) -> NDArray[np.float64]:
    """A walk that comes back, without any season."""
    draw = np.random.default_rng(seed)
    values = np.zeros(rows)
    for row in range(1, rows):
        values[row] = 0.9 * values[row - 1] + draw.normal()
    return values


def panel(rows: int = 90) -> dict[str, pd.DataFrame]:
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    kinds = {"smooth": smooth, "rough": rough}
    return {
        f"{name} {k}": pd.DataFrame({"y": kind(rows, k)}, index)
        for name, kind in kinds.items()
        for k in range(4)
    }


def forecaster(**given: Any) -> TSM2Forecaster:
    sizes: dict[str, Any] = {"lookback": 12, "horizon": SEASON, "season": SEASON}
    sizes |= {"features": 16, "patch_length": 6, "max_epochs": 2, "random_state": 0}
    return TSM2Forecaster(**sizes | given)


def scaled_error(model: TSM2Forecaster, tables: dict[str, pd.DataFrame]) -> float:
    """Return the mean over series of their mean absolute scaled errors on the last rows."""
    found = []
    for name, table in tables.items():
        values = table["y"].to_numpy()
        known, later = values[: -model.horizon], values[-model.horizon :]
        forecast = model.predict({name: table.iloc[: -model.horizon]})[name]["y"]
        naive = np.abs(known[SEASON:] - known[:-SEASON]).mean()
        found.append(np.abs(forecast.to_numpy() - later).mean() / naive)
    return float(np.mean(found))


# --- measured -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("ahead", [0, 3])
def test_units_are_seasonal_differences_of_training_rows(gaps: bool, ahead: int) -> None:
    tables = list(panel(40).values())[3:6]
    if gaps:
        for table in tables:
            table.iloc[[9, 20, 21]] = np.nan
    tables[0] = tables[0].iloc[:SEASON]  # no two seasons
    series = read(tables, missing="mask" if gaps else "raise")
    n_train = np.array([SEASON, 30, 30])
    units = measured(series.head(n_train), each=True)
    roles = Roles.of(None, series.layout)
    how: dict[str, Any] = {"lookback": 12, "ahead": ahead}
    prepared = Prepared.of(series, units, roles, Covariates(), **how)
    found = prepared.counting_by(SEASON, n_train).error_units
    assert found is not None
    assert found.shape == (3, 1)
    assert float(found[0]) == 1.0
    for number in (1, 2):
        rows = (tables[number]["y"].to_numpy()[:30] - units.center[number]) / units.scale[number]
        wanted = np.sqrt(np.nanmean(np.square(rows[SEASON:] - rows[:-SEASON])))
        assert float(found[number]) == pytest.approx(max(wanted, 1e-2), rel=1e-5)


# --- solved and trained ---------------------------------------------------------------------------


def windows(units: torch.Tensor | None) -> Windows:
    rows = np.concatenate([smooth(60, 0) - 20, rough(60, 1)])
    starts = torch.cat([torch.arange(43), 60 + torch.arange(43)])
    return Windows(
        values=torch.from_numpy(rows)[:, None].float(),
        lookback=12,
        horizon=SEASON,
        starts=starts,
        series=torch.arange(2).repeat_interleave(43),
        error_units=units,
    )


@pytest.mark.parametrize("level", ["mean", "last"])
def test_a_solved_map_is_ridge_regression_with_weights(level: Any) -> None:
    units = torch.tensor([[0.02], [0.7]])
    given = windows(units)
    found = solve_linear(given, None, LinearInput(level=level), strengths=(0.01,))
    batch = given.gather(torch.arange(len(given)))
    x, y = batch.context[:, 0].double().numpy(), batch.target[:, 0].double().numpy()
    base = x.mean(-1, keepdims=True) if level == "mean" else x[:, -1:]
    weights = units[given.series, 0].double().numpy() ** -2
    alpha = 0.01 * float((weights[:, None] * (x - base) ** 2).sum()) / 12
    ridge = Ridge(alpha=alpha, fit_intercept=False, solver="cholesky")
    ridge.fit(x - base, y - base, sample_weight=weights)
    np.testing.assert_allclose(found.weights[0].numpy(), ridge.coef_.T, atol=1e-6)
    plain = solve_linear(windows(None), None, LinearInput(level=level), strengths=(0.01,))
    assert not torch.allclose(found.weights, plain.weights, atol=1e-2)


@pytest.mark.parametrize("name", ["mse", "mae", "quantile"])
def test_the_loss_is_that_of_errors_in_these_units(name: Any) -> None:
    units = torch.tensor([[0.02], [0.7]])
    batch = windows(units).gather(torch.tensor([0, 50]))
    quantiles = (0.1, 0.5, 0.9) if name == "quantile" else ()
    last = batch.context[..., -1:].expand(batch.target.shape)
    forecast = torch.stack([last - 1, last, last + 1], -1) if quantiles else last

    class Fixed(torch.nn.Module):
        def forward(self, context: torch.Tensor) -> torch.Tensor:
            return forecast

    config: Any = SimpleNamespace(loss=name, quantiles=quantiles, precision="float32")
    loss = BatchLoss(Fixed(), config, torch.device("cpu"))
    each = [
        float(mean_loss(name, forecast[[k]] / u, batch.target[[k]] / u, quantiles=quantiles))
        for k, u in enumerate((0.02, 0.7))
    ]
    assert float(loss(batch)) == pytest.approx(np.mean(each), rel=1e-5)
    assert float(loss(replace(batch, error_unit=None))) != pytest.approx(np.mean(each), rel=1e-2)


def test_losses_and_floor_are_in_these_units() -> None:
    model = forecaster(scaled_errors=True, level="mean", blocks=0).fit(panel())
    assert model.floor_["network"] == pytest.approx(model.floor_["linear"], rel=1e-3)
    plain = forecaster(scaled_errors=False, level="mean", blocks=0).fit(panel())
    # A season that is repeated errs by about a unit, whatever the deviation of a series is.
    assert 0.5 < model.floor_["seasonal naive"] < 2
    assert plain.floor_["network"] < 0.7 * model.floor_["network"]


# --- chosen ---------------------------------------------------------------------------------------


def test_series_that_err_little_are_not_drowned_by_those_that_err_much() -> None:
    tables = panel()
    known = {name: table.iloc[:-SEASON] for name, table in tables.items()}
    errors = {}
    for scaled in ("auto", False):
        model = forecaster(scaled_errors=scaled, level="mean").fit(known)
        errors[scaled] = scaled_error(model, tables)
        assert model.choices_.loc[model.choices_["chosen"], "scaled_errors"].tolist() == [
            scaled == "auto"
        ]
    assert errors["auto"] < 0.7 * errors[False]


@pytest.mark.parametrize(
    "given",
    [
        {"scaling": "global"},
        {"linear_start": "random"},
        {"instance_norm": False},
        {"calendar": ("hour",)},
        {"scaled_errors": False},
    ],
    ids=str,
)
def test_nothing_else_counts_that_way_unasked(given: dict[str, Any]) -> None:
    model = forecaster(max_epochs=1, **given).fit(panel(60))
    assert not model.choices_["scaled_errors"].any()


def test_series_that_are_alike_count_as_before_and_so_does_one_table() -> None:
    alike = {name: table for name, table in panel(60).items() if name.startswith("rough")}
    tried = forecaster(max_epochs=1).fit(alike).choices_
    assert tried["scaled_errors"].any()
    assert not tried.loc[tried["chosen"], "scaled_errors"].any()
    table = pd.concat(list(panel(60).values()), axis=1).set_axis(list("abcdefgh"), axis=1)
    assert not forecaster(max_epochs=1).fit(table).choices_["scaled_errors"].any()


def test_a_pretrained_network_cannot_count_otherwise() -> None:
    with pytest.raises(ParameterError, match="scaled_errors=True does not go with pretrained"):
        TSM2Forecaster.from_pretrained("zero", scaled_errors=True).fit(panel(60))


# --- kept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"quantiles": (0.1, 0.9)}, {"n_estimators": 2}], ids=str)
def test_what_was_chosen_is_kept_by_saving_updates_refits_and_warm_starts(
    more: dict[str, Any], tmp_path: Path
) -> None:
    tables = panel()
    known = {name: table.iloc[:80] for name, table in tables.items()}
    model = forecaster(level="mean", **more).fit(known)
    assert model.choices_.loc[model.choices_["chosen"], "scaled_errors"].all()
    model.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    assert loaded.choices_["scaled_errors"].tolist() == [True]
    for name, forecast in model.predict().items():
        pd.testing.assert_frame_equal(loaded.predict()[name], forecast)
    later = {name: table.iloc[80:] for name, table in tables.items()}
    updated = [each.update(later, epochs=1).predict() for each in (model, loaded)]
    for name, forecast in updated[0].items():
        pd.testing.assert_frame_equal(updated[1][name], forecast)
    counts = loaded.set_params(warm_start=True).fit(tables).choices_["scaled_errors"]
    assert counts.tolist() == [True]
    start = next(iter(tables.values())).index[78]
    table = forecaster(level="mean", **more).fit(known).backtest(tables, refit=2, start=start)
    assert np.isfinite(table.select_dtypes("number").to_numpy()).all()


@pytest.mark.parametrize("missing", ["mask", "ffill"])
def test_gaps_and_covariates_go_with_it(missing: Any) -> None:
    tables = panel(60)
    for table in tables.values():
        table.iloc[[11, 25, 26]] = np.nan
    index = next(iter(tables.values())).index
    future = pd.date_range(index[0], periods=len(index) + SEASON, freq="h")
    wave = pd.DataFrame({"wave": np.cos(np.arange(len(future)))}, future)
    model = forecaster(missing=missing, scaled_errors=True, max_epochs=1)
    for given in (None, wave):
        model.fit(tables, future_covariates=given)
        assert all(np.isfinite(each.to_numpy()).all() for each in model.predict().values())
        assert model.choices_["scaled_errors"].all()
        assert (model.floor_ > 0).all()
