"""Tables of which columns lead others: what leads is read, in every use."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tsm2 import TSM2Forecaster
from tsm2.cli import app
from tsm2.errors import ParameterError
from tsm2.training.choices import chosen
from tsm2.training.leading import Leading, choose_leading

LOOKBACK, HORIZON, LAG = 16, 8, 6
SETTINGS: dict[str, Any] = {
    "lookback": LOOKBACK,
    "horizon": HORIZON,
    "max_epochs": 1,
    "epoch_steps": 5,
    "random_state": 0,
}


def stores(count: int = 700, *, lag: int = LAG, seed: int = 0) -> pd.DataFrame:
    """A store that leads, two that follow so many hours later, and one that goes its own way."""
    draw = np.random.default_rng(seed)
    first = draw.normal(size=count + lag)
    late = first[:count, None] * [1.0, -2.0] + 0.2 * draw.normal(size=(count, 2))
    values = np.column_stack([first[lag:], late, draw.normal(size=count)])
    index = pd.date_range("2024-01-01", periods=count, freq="h")
    return pd.DataFrame(20 + values, index, ["first", "late", "later", "alone"])


def cut(data: Any, rows: slice) -> Any:
    if isinstance(data, dict):
        return {name: frame.iloc[rows] for name, frame in data.items()}
    return data.iloc[rows]


def values_of(forecast: Any) -> NDArray[np.float64]:
    frames = forecast.values() if isinstance(forecast, dict) else [forecast]
    return np.concatenate([frame.to_numpy() for frame in frames])


def kept(model: TSM2Forecaster) -> pd.Series:
    return model.choices_[model.choices_["chosen"]].iloc[0]


PANEL = {"x": stores(), "y": stores(seed=1).iloc[200:] * 30}
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "table": (stores(), {}),
    "lookback that is found": (stores(), {"lookback": "auto", "quantiles": (0.1, 0.9)}),
    "own maps, no mixers": (stores(), {"separate_heads": True, "blocks": 0}),
    "all set": (stores(), {"separate_heads": False, "level": "mean"}),
    "target": (stores(), {"target": ["late", "alone"]}),
    "target, quantiles, calendar": (
        stores(),
        {"target": "late", "quantiles": (0.1, 0.9), "calendar": ("hour",)},
    ),
    "panel": (PANEL, {}),
    "panel, quantiles, ensemble": (PANEL, {"quantiles": (0.1, 0.9), "n_estimators": 2}),
    "filled gaps, level": (stores(), {"missing": "ffill", "level": "last"}),
    "narrow, trained": (stores(), {"features": 6, "start_margin": 0.0}),
    "equal series": (PANEL, {"sampling": "series"}),
}


@pytest.fixture(scope="module", params=list(WAYS.values()), ids=list(WAYS))
def way(request: Any) -> tuple[Any, dict[str, Any], TSM2Forecaster]:
    data, given = request.param
    how = SETTINGS | given
    return data, how, TSM2Forecaster(**how).fit(cut(data, slice(0, -20)))


def test_what_follows_is_forecast_from_what_leads() -> None:
    frame = stores(900)
    known, later = frame.iloc[:700], frame.iloc[700 - LOOKBACK :]
    errors = {}
    for leaders in ("auto", False):
        model = TSM2Forecaster(**SETTINGS | {"leaders": leaders}).fit(known)
        windows = np.lib.stride_tricks.sliding_window_view(later, LOOKBACK + HORIZON, 0)
        windows = windows.transpose(0, 2, 1)  # (W, L + H, M)
        forecast = model.forecast_contexts(windows[:, :LOOKBACK], HORIZON)
        errors[leaders] = np.abs(forecast - windows[:, LOOKBACK:]).mean(0)  # (H, M)
        assert bool(model.network_.config.leaders) == bool(leaders)
    ratio = errors["auto"] / errors[False]
    assert (ratio[:LAG, 1:3] < 0.35).all()
    assert ratio[LAG:, 1:3] == pytest.approx(1.0, abs=0.1)
    assert ratio[:, [0, 3]] == pytest.approx(1.0, abs=1e-3)


def test_choices_say_what_leads_and_who_is_led() -> None:
    model = TSM2Forecaster(**SETTINGS, blocks=0).fit(stores())
    row = kept(model)
    assert row["led"] == ("late", "later")
    assert row["leaders"] == model.network_.config.leaders > LAG - 1
    before = model.choices_[~model.choices_["chosen"]]["validation_mse"].min()
    assert row["validation_mse"] < 0.7 * before
    assert model.floor_["linear"] == pytest.approx(row["validation_mse"], rel=1e-3)
    told = model.explain(stores()).columns.to_numpy()  # a row for each column that is moved
    assert told[1, 0] > 5 * told[1, [1, 3]].max()
    assert told[3, 0] < 1e-6


@pytest.mark.parametrize(
    ("frame", "given"),
    [
        (stores(lag=LAG).sample(frac=1, random_state=0).set_axis(stores().index), {}),
        (stores(), {"leaders": False}),
        (stores()[["late"]], {}),
        (stores(), {"missing": "mask", "holed": True}),
        (stores(), {"validation_fraction": 0}),
        (stores(), {"linear_start": "random"}),
        (stores(), {"instance_norm": False}),
        (stores(), {"classical": True}),
        (stores(80), {}),  # too few windows to say so
    ],
    ids=["shuffled", "off", "alone", "gaps", "unjudged", "drawn", "plain", "classical", "short"],
)
def test_nothing_leads_where_nothing_does_or_may(
    frame: pd.DataFrame, given: dict[str, Any]
) -> None:
    given = dict(given)
    if given.pop("holed", False):
        frame = frame.copy()
        frame.iloc[100:110, 0] = np.nan
    model = TSM2Forecaster(**SETTINGS | given).fit(frame)
    assert not model.network_.config.leaders
    assert model.network_.leaders is None


@pytest.mark.parametrize(
    ("rows", "of_all", "taken"), [(700, 0.96, False), (700, 0.9, True), (250, 0.9, False)]
)
def test_all_variates_have_a_say_and_few_forecasts_ask_for_more(
    rows: int, of_all: float, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many variates some are always lucky: what these alone gain does not decide.

    A twentieth is for 30 forecasts one after another; here are 17 and 6.
    """

    def found(*given: Any) -> tuple[Leading, float, float]:
        leading = choose_leading(*given)
        assert leading is not None
        return leading[0], 0.5, of_all

    monkeypatch.setattr("tsm2.training.choices.choose_leading", found)
    model = TSM2Forecaster(**SETTINGS, blocks=0).fit(stores(rows))
    assert bool(model.network_.config.leaders) == taken


def test_what_is_switched_off_is_chosen_no_more() -> None:
    model = TSM2Forecaster(**SETTINGS, blocks=0).fit(stores())
    again = model.set_params(leaders=False)._recipe().choose_again(model.choices_)
    assert chosen(again)["leaders"] is None
    assert chosen(again)["led"] == ()


def test_leaders_may_be_asked_for() -> None:
    apart = stores().sample(frac=1, random_state=0).set_axis(stores().index)
    weak = apart.assign(late=apart["late"] + 0.5 * stores()["late"])
    weak["first"] = stores()["first"]
    asked = TSM2Forecaster(**SETTINGS, leaders=True, blocks=0).fit(weak)
    assert asked.network_.config.leaders
    left = TSM2Forecaster(**SETTINGS, blocks=0).fit(weak)
    assert not left.network_.config.leaders
    assert left.choices_["leaders"].notna().any()  # it was tried


def test_past_covariates_of_their_own_lead_too() -> None:
    """As columns do that are only read, in backtests with refits and after an update too."""
    frame = stores()
    known, late = frame.iloc[:-20], frame[["late", "alone"]]
    model = TSM2Forecaster(**SETTINGS)
    model.fit(late.iloc[:-20], past_covariates=known[["first", "later"]])
    assert kept(model)["led"] == ("late",)
    wanted = model.predict()
    columns = TSM2Forecaster(**SETTINGS, target=["late", "alone"]).fit(known)
    np.testing.assert_allclose(wanted, columns.predict(), rtol=1e-4)

    begins: Any = {"start": frame.index[-20], "stride": 100, "refit": True}
    past: Any = {"past_covariates": frame[["first", "later"]]}
    table = TSM2Forecaster(**SETTINGS).backtest(late, **past, **begins)
    np.testing.assert_allclose(table["forecast"], wanted.to_numpy().ravel(), rtol=1e-5)
    got = model.predict(late, **past)
    model.update(late.iloc[-20:], **past)
    np.testing.assert_allclose(model.predict(), got, rtol=1e-5)


def test_gaps_that_come_later_are_no_part_of_what_leads() -> None:
    """A backtest chooses once: what leads is then solved again on rows that have gaps."""
    frame = stores(800)
    holed = frame.copy()
    holed.iloc[610:640:7, 1] = np.nan
    begins: Any = {"start": frame.index[600], "stride": HORIZON, "refit": 5}
    how = SETTINGS | {"blocks": 0, "missing": "mask"}
    errors = []
    for data in (frame, holed):
        table = TSM2Forecaster(**how).backtest(data, **begins)
        late = table[table["variate"] == "late"]
        missed = (late["forecast"] - frame["late"].loc[late["time"]].to_numpy()).abs()
        errors.append(missed.mean())
    assert errors[1] < 1.1 * errors[0]


def test_in_every_way_it_errs_as_its_choice_did(way: tuple[Any, Any, TSM2Forecaster]) -> None:
    _, how, model = way
    assert model.network_ is not None
    row = kept(model)
    assert row["leaders"] > LAG - 1
    assert "late" in row["led"]
    assert not row["classical"]
    if "quantiles" not in how and "target" not in how and "features" not in how:
        assert model.floor_["linear"] == pytest.approx(row["validation_mse"], rel=1e-2)


def test_in_every_way_it_is_the_same_when_it_is_read_again(
    way: tuple[Any, Any, TSM2Forecaster], tmp_path: Path
) -> None:
    _, _, model = way
    model.save(tmp_path / "model")
    again = TSM2Forecaster.load(tmp_path / "model")
    np.testing.assert_array_equal(values_of(again.predict()), values_of(model.predict()))
    assert kept(again)["leaders"] == kept(model)["leaders"]
    assert tuple(kept(again)["led"]) == kept(model)["led"]


def test_in_every_way_new_rows_count_as_known_ones(
    way: tuple[Any, Any, TSM2Forecaster], tmp_path: Path
) -> None:
    data, _, model = way
    model.save(tmp_path / "model")
    updated = TSM2Forecaster.load(tmp_path / "model").update(cut(data, slice(-20, None)))
    got, wanted = updated.predict(), model.predict(data)
    np.testing.assert_allclose(values_of(got), values_of(wanted), rtol=1e-5)


def test_in_every_way_refits_are_fits(way: tuple[Any, Any, TSM2Forecaster]) -> None:
    data, how, model = way
    first = next(iter(data.values())) if isinstance(data, dict) else data
    begins: Any = {"start": first.index[-20], "stride": 100, "refit": True}
    table = TSM2Forecaster(**how).backtest(data, **begins)
    wanted = values_of(model.predict()).ravel()
    np.testing.assert_allclose(table["forecast"], wanted, rtol=1e-5)


def test_in_every_way_the_exported_program_forecasts_it(
    way: tuple[Any, Any, TSM2Forecaster], tmp_path: Path
) -> None:
    _, _, model = way
    model.to_onnx(tmp_path / "model.onnx")  # refuses a file that forecasts something else


def test_in_every_way_training_goes_on(way: tuple[Any, Any, TSM2Forecaster]) -> None:
    """Warm fits begin with what leads, held to what it adds to their windows."""
    data, how, model = way
    warm = TSM2Forecaster(**how).fit(cut(data, slice(0, -20)))
    before = values_of(warm.predict())
    warm.set_params(warm_start=True).fit(cut(data, slice(0, -20)))
    assert kept(warm)["leaders"] == kept(model)["leaders"]
    np.testing.assert_allclose(values_of(warm.predict()), before, rtol=0.1)
    networks = getattr(warm.network_, "members", [warm.network_])
    for network in networks:
        assert network.leaders.largest.isfinite().all()


def test_fits_that_were_cut_off_go_on(tmp_path: Path) -> None:
    how = SETTINGS | {"max_epochs": 2, "start_margin": 0.0, "ema_decay": 0.5}
    whole = TSM2Forecaster(**how).fit(stores())
    folder = tmp_path / "checkpoint"
    TSM2Forecaster(**how).fit(stores(), checkpoint=folder, max_time=1e-3)
    resumed = TSM2Forecaster(**how).fit(stores(), checkpoint=folder)
    np.testing.assert_array_equal(resumed.predict(), whole.predict())


def test_intervals_are_those_of_what_is_led() -> None:
    frame = stores(1500)
    model = TSM2Forecaster(**SETTINGS, blocks=0).fit(frame.iloc[:900])
    table = model.backtest(frame.iloc[900 - LOOKBACK :], stride=3, coverage=0.8)
    inside = (table["actual"] >= table["lo-80"]) & (table["actual"] <= table["hi-80"])
    assert 0.75 < inside.mean() < 0.85
    width = (table["hi-80"] - table["lo-80"]).groupby(table["variate"]).min()
    assert width["late"] < 0.5 * width["first"]


def test_a_leader_that_leaves_its_range_moves_forecasts_no_further() -> None:
    frame = stores()
    model = TSM2Forecaster(**SETTINGS, blocks=0).fit(frame)
    usual, far, farther = (frame.copy() for _ in range(3))
    far.iloc[-LAG:, 0] += 100
    farther.iloc[-LAG:, 0] += 10_000
    forecasts = [model.predict(each)["late"] for each in (usual, far, farther)]
    assert (forecasts[1] - forecasts[0]).abs().max() < 8
    np.testing.assert_allclose(forecasts[1], forecasts[2], rtol=1e-4)


def test_what_asks_for_the_impossible_is_told() -> None:
    with pytest.raises(ParameterError, match="'leaders' parameter"):
        TSM2Forecaster(**SETTINGS | {"leaders": "yes"}).fit(stores())
    with pytest.raises(ParameterError, match="leaders=True does not go with pretrained"):
        TSM2Forecaster(pretrained="zero", horizon=HORIZON, leaders=True).fit(stores())


def test_a_fit_at_the_command_line_says_who_is_led(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stores().to_csv("stores.csv", index_label="time")
    asked = f"fit stores.csv --out model --horizon {HORIZON} --lookback {LOOKBACK} --set blocks=0"
    told = CliRunner().invoke(app, asked.split())
    assert told.exit_code == 0, told.output
    assert "late and later are led by the latest 16 rows of all columns" in told.output
    told = CliRunner().invoke(app, [*asked.split(), "--json", "--quiet"])
    assert json.loads(told.stdout)["led"] == ["late", "later"]
