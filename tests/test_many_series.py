"""One network for many series: every container, every series its own units, none drowned."""

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from forging import forge_config
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GridSearchCV, KFold

from tsm2 import TSM2Forecaster
from tsm2.errors import FrameError, ParameterError, SavedModelError, TSM2Error, WindowError

SMALL: dict[str, Any] = {
    "lookback": 24,
    "horizon": 6,
    "features": 8,
    "patch_length": 8,
    "d_state": 4,
    "max_epochs": 2,
    "batch_size": 16,
    "device": "cpu",
    "random_state": 0,
}
ROWS = {"north": 120, "south": 60, "east": 34}  # east has windows for training alone
LEVEL = {"north": 50.0, "south": -4000.0, "east": 0.5}
SWING = {"north": 5.0, "south": 300.0, "east": 0.01}


def wave(name: str) -> pd.DataFrame:
    """A day's wave of two variates, at the level and with the swing of a series."""
    start = pd.Timestamp("2024-03-01") + pd.Timedelta(hours=7 * len(name))
    t = np.arange(ROWS[name])
    noise = np.random.default_rng(len(name)).normal(0, 0.1, (len(t), 2))
    values = np.stack((np.sin(t * 2 * np.pi / 24), np.cos(t * 2 * np.pi / 24)), 1) + noise
    index = pd.date_range(start, periods=len(t), freq="h", name="ds")
    return pd.DataFrame(values * SWING[name] + LEVEL[name], index, ["y", "z"])


TABLES = {name: wave(name) for name in ROWS}


def levels(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, names=["unique_id"])


CONTAINERS: dict[str, Callable[[dict[str, pd.DataFrame]], Any]] = {
    "long": lambda tables: levels(tables).reset_index(),
    "levels": levels,
    "dict": lambda tables: tables,
    "list": lambda tables: list(tables.values()),
    "arrays": lambda tables: [table.to_numpy() for table in tables.values()],
}


def forecaster(**changes: Any) -> TSM2Forecaster:
    return TSM2Forecaster(**(SMALL | {"target_col": ["y", "z"]} | changes))


def of_each(forecast: Any, names: Any = tuple(ROWS)) -> dict[str, np.ndarray[Any, Any]]:
    """Return the forecast of every series as an array, whatever it came in."""
    if isinstance(forecast, pd.DataFrame):
        by = "unique_id" if "unique_id" in forecast.columns else pd.Grouper(level=0)
        return {str(k): part[["y", "z"]].to_numpy() for k, part in forecast.groupby(by)}
    pieces = forecast if isinstance(forecast, list) else [forecast[name] for name in names]
    return {name: np.asarray(piece) for name, piece in zip(names, pieces, strict=True)}


@pytest.fixture(scope="module", params=list(CONTAINERS))
def container(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def fitted(container: str) -> TSM2Forecaster:
    return forecaster().fit(CONTAINERS[container](TABLES))


@pytest.fixture(scope="module")
def of_dict() -> TSM2Forecaster:
    return forecaster().fit(TABLES)


# --- forecasts ------------------------------------------------------------------------------------


def test_every_container_gives_the_same_forecasts(
    fitted: TSM2Forecaster, of_dict: TSM2Forecaster, container: str
) -> None:
    found, wanted = of_each(fitted.predict()), of_each(of_dict.predict())
    assert set(found) == set(wanted) == set(ROWS)
    for name in ROWS:
        np.testing.assert_array_equal(found[name], wanted[name])
    again = of_each(fitted.predict(CONTAINERS[container](TABLES)))
    for name in ROWS:  # the series of a list are measured again, by all of their rows
        swing = SWING[name] * (0.1 if container in ("list", "arrays") else 1e-5)
        np.testing.assert_allclose(again[name], found[name], rtol=0, atol=swing)


def test_forecasts_continue_every_series_in_its_container(
    fitted: TSM2Forecaster, container: str
) -> None:
    forecast = fitted.predict(horizon=8)
    if isinstance(forecast, pd.DataFrame):
        frame = forecast.reset_index() if container == "levels" else forecast
        assert list(frame.columns) == ["unique_id", "ds", "y", "z"]
        assert list(frame["unique_id"]) == [name for name in ROWS for _ in range(8)]
        stamps = {name: part["ds"] for name, part in frame.groupby("unique_id")}
    elif container == "arrays":
        assert [piece.shape for piece in forecast] == [(8, 2)] * 3
        return
    else:
        pieces = forecast if isinstance(forecast, list) else forecast.values()
        stamps = {name: piece.index for name, piece in zip(ROWS, pieces, strict=True)}
    for name, table in TABLES.items():
        wanted = pd.date_range(table.index[-1], periods=9, freq="h")[1:]
        assert list(stamps[name]) == list(wanted)


def test_a_forecast_is_that_of_each_series_alone(of_dict: TSM2Forecaster) -> None:
    together = of_each(of_dict.predict())
    for number, name in enumerate(ROWS):
        units = of_dict.scaling_.take([number])
        context = TABLES[name].to_numpy()[None, -24:]
        alone = of_dict.forecast_contexts(context, 6, units=units)[0]
        np.testing.assert_allclose(together[name], alone, rtol=1e-5)
        one = of_dict.predict({name: TABLES[name]})[name]
        np.testing.assert_allclose(one, together[name], rtol=1e-5)


def test_one_series_is_learnt_as_one_table_is() -> None:
    table = TABLES["north"]
    as_table = forecaster().fit(table)
    as_series = forecaster().fit({"north": table})
    np.testing.assert_allclose(as_series.scaling_.center[0], as_table.scaling_.center)
    np.testing.assert_allclose(as_series.scaling_.scale[0], as_table.scaling_.scale)
    np.testing.assert_allclose(as_series.history_, as_table.history_, rtol=1e-4)
    np.testing.assert_allclose(as_series.predict()["north"], as_table.predict(), rtol=1e-4)
    later = {"north": table}
    assert as_series.score(later) == pytest.approx(as_table.score(table), rel=1e-4)


def test_every_series_has_units_of_its_own_from_its_training_rows(of_dict: TSM2Forecaster) -> None:
    n_train = {"north": 96, "south": 48, "east": 34}
    for number, (name, n) in enumerate(n_train.items()):
        rows = TABLES[name].to_numpy()[:n]
        np.testing.assert_allclose(of_dict.scaling_.center[number], rows.mean(0))
        np.testing.assert_allclose(of_dict.scaling_.scale[number], rows.std(0))
    alike = forecaster(scaling="global").fit(TABLES)
    rows = np.concatenate([TABLES[name].to_numpy()[:n] for name, n in n_train.items()])
    np.testing.assert_allclose(alike.scaling_.center, rows.mean(0))


def test_one_network_learns_series_of_any_size() -> None:
    histories = {name: table.iloc[:-4] for name, table in TABLES.items()}
    model = forecaster(max_epochs=15, learning_rate=1e-2).fit(histories)
    for name, forecast in model.predict().items():
        error = ((forecast.iloc[:4] - TABLES[name].iloc[-4:]) / SWING[name]).abs().mean()
        assert bool((error < 0.35).all()), name


def test_a_series_that_fit_has_not_seen_is_forecast_in_its_own_units(
    of_dict: TSM2Forecaster,
) -> None:
    history = TABLES["south"]
    forecast = of_dict.predict({"west": history * 1000 + 7, "south": history})
    as_new = of_dict.predict({"new": history})["new"]
    np.testing.assert_allclose(forecast["west"], as_new * 1000 + 7, rtol=1e-4)
    np.testing.assert_allclose(as_new, forecast["south"], rtol=0, atol=30)  # a tenth of its swing
    assert list(forecast["west"].index) == list(forecast["south"].index)


def test_a_new_series_is_measured_without_instance_normalisation_too() -> None:
    model = forecaster(instance_norm=False, max_epochs=1).fit(TABLES)
    history = TABLES["south"]
    forecast = model.predict({"west": history * 1000 + 7, "new": history})
    np.testing.assert_allclose(forecast["west"], forecast["new"] * 1000 + 7, rtol=1e-5)


def test_sampling_by_series_does_not_let_a_long_one_drown_the_short() -> None:
    t = np.arange(1500)
    long = pd.DataFrame({"y": np.sin(t * 2 * np.pi / 7)})
    short = {f"s{k}": pd.DataFrame({"y": np.sin(t[: 32 + k] * 2 * np.pi / 11)}) for k in range(3)}
    errors = {}
    for sampling in ("windows", "series"):
        model = forecaster(sampling=sampling, blocks=0, max_epochs=3, learning_rate=1e-2)
        model.fit({"long": long, **short})
        backtest = model.backtest(short)
        errors[sampling] = float(np.square(backtest["forecast"] - backtest["actual"]).mean())
    assert errors["series"] < 0.5 * errors["windows"], errors


# --- uncertainty ----------------------------------------------------------------------------------


def test_quantiles_of_every_series_are_in_its_units(of_dict: TSM2Forecaster) -> None:
    found = of_dict.predict_quantiles(quantiles=(0.2, 0.5, 0.8))
    for number, name in enumerate(ROWS):
        context = TABLES[name].to_numpy()[None, -24:]
        units = of_dict.scaling_.take([number])
        alone = of_dict.forecast_quantiles(context, 6, (0.2, 0.5, 0.8), units=units)[0]
        np.testing.assert_allclose(found[name].to_numpy(), alone.reshape(6, -1), rtol=1e-5)
        assert list(found[name].columns[:3]) == [("y", 0.2), ("y", 0.5), ("y", 0.8)]
    history = {"west": TABLES["south"] * 1000 + 7}
    wide = of_dict.predict_interval(history, coverage=0.6)["west"]
    narrow = of_dict.predict_interval({"new": TABLES["south"]}, coverage=0.6)["new"]
    np.testing.assert_allclose(wide, narrow * 1000 + 7, rtol=1e-4)


def test_paths_of_every_series_are_in_its_units(of_dict: TSM2Forecaster) -> None:
    paths = of_dict.sample(n_samples=40, horizon=8, random_state=0)
    forecast = of_dict.predict(horizon=8)
    for name in ROWS:
        assert paths[name].shape == (8, 80)
        middle = paths[name]["y"].median(axis=1)
        assert bool(((middle - forecast[name]["y"]).abs() < 2 * SWING[name]).all())
        assert bool((paths[name]["y"].std(axis=1) > 0.01 * SWING[name]).all())
    long = forecaster().fit(CONTAINERS["long"](TABLES)).sample(n_samples=2, random_state=0)
    assert list(long.columns) == ["unique_id", "ds", "y-0", "y-1", "z-0", "z-1"]
    assert len(long) == 18


def test_series_are_calibrated_together(of_dict: TSM2Forecaster) -> None:
    model = forecaster().fit(TABLES)
    assert model.calibration_ is not None
    windows = sum(len(table) - 24 - 6 + 1 for table in TABLES.values())
    assert len(model.calibration_.scores) == windows  # few are held out: each block in turn
    later = TABLES["south"].index[35]
    scores = model.calibrate(TABLES, start=later).calibration_.scores  # type: ignore[union-attr]
    table = model.backtest(TABLES, start=later, coverage=0.6)
    assert len(scores) == len(table) // 12
    inside = table["actual"].between(table["lo-60"], table["hi-60"]).mean()
    assert 0.5 < inside < 0.75


# --- backtests ------------------------------------------------------------------------------------


def test_a_backtest_holds_what_predict_would_have_said(
    fitted: TSM2Forecaster, container: str
) -> None:
    table = fitted.backtest(CONTAINERS[container](TABLES), stride=5)
    column = "unique_id" if container in ("long", "levels") else "series"
    assert list(table.columns) == [
        column, "cutoff", "step", "time", "variate", "actual", "forecast",
    ]  # fmt: skip
    names = list(ROWS) if container not in ("list", "arrays") else [0, 1, 2]
    assert list(table[column].unique()) == names
    for name, rows, (key, frame) in zip(names, ROWS.values(), TABLES.items(), strict=True):
        part = table[table[column] == name]
        assert part["cutoff"].nunique() == (rows - 30) // 5 + 1
        if container in ("list", "arrays"):
            continue  # measured by other rows than predict's
        cutoff = part["cutoff"].iloc[-1]
        last = part[part["cutoff"] == cutoff].pivot(
            index="time", columns="variate", values=["actual", "forecast"]
        )
        wanted = fitted.predict(CONTAINERS[container]({key: frame.loc[:cutoff]}))
        np.testing.assert_allclose(last["forecast"], of_each(wanted, [key])[key], rtol=1e-4)
        np.testing.assert_array_equal(last["actual"], frame.loc[last.index])


def test_the_score_is_that_of_the_backtest(of_dict: TSM2Forecaster) -> None:
    table = of_dict.backtest(TABLES)
    scale = {
        (name, variate): of_dict.scaling_.scale[i, j]
        for i, name in enumerate(ROWS)
        for j, variate in enumerate(("y", "z"))
    }
    own = [scale[key] for key in zip(table["series"], table["variate"], strict=True)]
    wanted = -np.square((table["forecast"] - table["actual"]) / own).mean()
    assert of_dict.score(TABLES) == pytest.approx(wanted)


def test_a_backtest_starts_where_it_is_told(of_dict: TSM2Forecaster) -> None:
    start = TABLES["south"].index[40]
    table = of_dict.backtest(TABLES, start=start)
    first = table.groupby("series")["time"].min()
    assert first["south"] == start
    assert first["north"] == start
    assert "east" not in first  # has too few rows from there on
    early = of_dict.backtest(TABLES, start="2000-01-01")
    assert list(early.groupby("series", sort=False)["time"].min()) == [
        frame.index[24] for frame in TABLES.values()
    ]
    with pytest.raises(WindowError, match=r"no series has 6 rows .* Start earlier"):
        of_dict.backtest(TABLES, start="2030-01-01")
    with pytest.raises(FrameError, match="start=7 cannot be the label of a row"):
        of_dict.backtest(TABLES, start=7)


@pytest.mark.parametrize("name", ["long", "levels", "dict"])
def test_rows_after_the_training_rows_need_no_context_of_their_own(name: str) -> None:
    make = CONTAINERS[name]
    histories = {key: table.iloc[:-10] for key, table in TABLES.items() if key != "east"}
    model = forecaster().fit(make(histories))
    later = {key: TABLES[key].iloc[-10:] for key in histories} | {"east": TABLES["east"]}
    found = model.backtest(make(later))
    wanted = model.backtest(make(TABLES))
    for key, rows in ROWS.items():
        part, whole = (each[each.iloc[:, 0] == key] for each in (found, wanted))
        if key == "east":
            assert part["cutoff"].nunique() == rows - 30 + 1  # no context but its own
        else:
            assert part["cutoff"].nunique() == 5
            whole = whole[whole["cutoff"].isin(part["cutoff"])]
            np.testing.assert_allclose(part["forecast"], whole["forecast"], rtol=1e-5)
            np.testing.assert_array_equal(part["actual"], whole["actual"])


def test_new_series_are_measured_before_they_are_forecast(of_dict: TSM2Forecaster) -> None:
    table = TABLES["south"].copy()
    before = of_dict.backtest({"new": table})
    table.iloc[30:] *= 1e6  # unseen by the first window, whose forecast is rows 24 to 29
    after = of_dict.backtest({"new": table})
    np.testing.assert_array_equal(after["forecast"][:12], before["forecast"][:12])


def test_grid_search_holds_out_series() -> None:
    tables = [wave("north").iloc[k : k + 60] for k in range(0, 40, 10)]
    search = GridSearchCV(forecaster(), {"blocks": [0, 1]}, cv=KFold(2)).fit(tables)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def after_east() -> pd.DatetimeIndex:
    return pd.date_range(TABLES["east"].index[-1], periods=35, freq="h", name="ds")[1:]


# --- update ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["long", "levels", "dict"])
def test_new_rows_of_some_series_become_history(name: str) -> None:
    make = CONTAINERS[name]
    histories = {key: table.iloc[:-8] for key, table in TABLES.items()} | {"east": TABLES["east"]}
    model = forecaster().fit(make(histories))
    before = of_each(model.predict())
    new = {key: TABLES[key].iloc[-8:] for key in ("south", "north")}  # in another order
    model.update(make(new))
    after = of_each(model.predict())
    wanted = of_each(model.predict(make(TABLES)))
    for key in ROWS:
        np.testing.assert_allclose(after[key], wanted[key], rtol=1e-5)
    np.testing.assert_array_equal(after["east"], before["east"])
    assert model.series_ == tuple(ROWS)
    trained = forecaster().fit(make(histories)).update(make(new), epochs=1)
    assert trained.history_["epoch"].tolist() == [0, 1, 2, 3]
    with pytest.raises(WindowError, match="no series has the 30 rows"):
        model.update(make({"east": wave("east").set_axis(after_east())[:5]}), epochs=1)


def test_rows_that_do_not_go_on_are_refused(of_dict: TSM2Forecaster) -> None:
    with pytest.raises(FrameError, match="series 'new' is new, but only series"):
        of_dict.update({"new": TABLES["north"]})
    wanted = "new rows of series 'south' start at .* so 2024-03-04 23:00:00 must come first"
    later = pd.date_range("2024-03-05", periods=3, freq="h")
    with pytest.raises(FrameError, match=wanted):
        of_dict.update({"south": TABLES["south"].iloc[:3].set_axis(later)})
    named = forecaster().fit({key: table.to_numpy() for key, table in TABLES.items()})
    forecast = named.predict()["north"]
    named.update({"north": np.array([[1.0, 2.0]])})
    assert named.context_[23].tolist() == [1.0, 2.0]
    assert not np.array_equal(named.predict()["north"], forecast)


# --- save and load --------------------------------------------------------------------------------


def test_a_loaded_model_forecasts_the_same(
    fitted: TSM2Forecaster, container: str, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    first, second = fitted.predict(), loaded.predict()
    assert type(first) is type(second)
    if isinstance(first, pd.DataFrame):
        pd.testing.assert_frame_equal(first, second)
    else:
        for a, b in zip(of_each(first).values(), of_each(second).values(), strict=True):
            np.testing.assert_array_equal(a, b)
    pd.testing.assert_frame_equal(
        fitted.backtest(CONTAINERS[container](TABLES)),
        loaded.backtest(CONTAINERS[container](TABLES)),
    )
    assert loaded.series_ == fitted.series_
    assert loaded.context_index_.equals(fitted.context_index_)


INDEXES = {
    "business days": lambda n: pd.date_range("2024-01-02", periods=n, freq="B", tz="Asia/Tokyo"),
    "months": lambda n: pd.period_range("2010-01", periods=n, freq="M"),
    "numbers": lambda n: pd.RangeIndex(10, 10 + 5 * n, 5),
}


@pytest.mark.parametrize("make", INDEXES.values(), ids=INDEXES)
def test_every_kind_of_index_is_saved(make: Callable[[int], pd.Index], tmp_path: Path) -> None:
    tables = {name: wave(name).set_axis(make(ROWS[name])) for name in ROWS}
    model = forecaster(max_epochs=1).fit(tables)
    model.save(tmp_path / "model")
    forecast = TSM2Forecaster.load(tmp_path / "model").predict(horizon=3)
    for name, rows in ROWS.items():
        assert list(forecast[name].index) == list(make(rows + 3)[-3:])
        pd.testing.assert_frame_equal(forecast[name], model.predict(horizon=3)[name])


def test_saved_series_that_do_not_fit_their_rows_are_refused(
    of_dict: TSM2Forecaster, tmp_path: Path
) -> None:
    of_dict.save(tmp_path / "model")
    forge_config(tmp_path / "model", '"north",', "")
    with pytest.raises(SavedModelError, match="do not fit their rows"):
        TSM2Forecaster.load(tmp_path / "model")


# --- many -----------------------------------------------------------------------------------------


def test_ten_thousand_short_series_fit_and_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    n, rows = 10_000, 48
    t = np.arange(rows) + np.arange(n)[:, None]
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(n), rows),
            "ds": pd.Timestamp("2024-01-01") + pd.to_timedelta(t.ravel(), unit="D"),
            "y": (np.sin(t * 2 * np.pi / 12) + np.arange(n)[:, None]).ravel(),
        }
    )
    begin = time.perf_counter()
    model = TSM2Forecaster(
        **(SMALL | {"horizon": 12, "batch_size": 1000, "blocks": 0, "max_epochs": 20}),
        validation_fraction=0.25,
        learning_rate=1e-2,
    ).fit(frame)
    forecast = model.predict()
    seconds = time.perf_counter() - begin
    assert len(forecast) == n * 12
    assert model.score(frame) > -0.05
    assert seconds < 30  # a loop over series takes minutes
    wanted = np.sin((np.arange(rows, rows + 12) + 9_999) * 2 * np.pi / 12) + 9_999
    np.testing.assert_allclose(forecast["y"].iloc[-12:], wanted, atol=0.5)


# --- mistakes -------------------------------------------------------------------------------------


def test_a_short_series_is_named() -> None:
    short = TABLES | {"tiny": TABLES["north"].iloc[:20], "small": TABLES["north"].iloc[:29]}
    wanted = (
        r"series 'tiny' has 20 rows, but one window needs 30 \(lookback=24 \+ horizon=6\), and 1 "
    )
    with pytest.raises(WindowError, match=wanted + "more series are too short. .*drop the series"):
        forecaster().fit(short)
    model = forecaster().fit(TABLES)
    with pytest.raises(WindowError, match=r"'tiny' has 20 rows, .* needs 24 \(lookback\)\. Lower"):
        model.predict(short)
    with pytest.raises(WindowError, match=r"'tiny' has 20 rows"):
        model.backtest(short)
    assert len(model.backtest(short, start=TABLES["east"].index[0])) > 0


def test_series_that_are_all_too_short_to_validate_say_so() -> None:
    tables = {name: table.iloc[:30] for name, table in TABLES.items() if name != "east"}
    with pytest.raises(WindowError, match=r"at most 6 rows .* at most 24 .*6 \(horizon\) and 30"):
        forecaster().fit(tables)
    model = forecaster(validation_fraction=0.0).fit(tables)
    assert model.history_["validation_loss"].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v.drop(columns="z") for k, v in t.items()}, "now missing:\n- z"),
        (lambda t: {k: v.assign(w=1.0) for k, v in t.items()}, "unseen at fit time:\n- w"),
        (lambda t: {k: v[["z", "y"]] for k, v in t.items()}, "same order"),
        (lambda t: {k: v.iloc[::2] for k, v in t.items()}, "series 'north'.*frequency"),
        (lambda t: t | {"north": t["north"].tz_localize("UTC")}, "series 'south': its time zone"),
        (lambda t: levels(t), "fit on a dict of DataFrames, but this is a frame with a MultiIndex"),
        (lambda t: t["north"], "fit on a dict of DataFrames, but this is a DataFrame"),
    ],
)
def test_a_history_of_another_shape_is_refused(
    of_dict: TSM2Forecaster, change: Any, message: str
) -> None:
    with pytest.raises(FrameError, match=f"(?s){message}"):
        of_dict.predict(change(TABLES))


def test_names_of_columns_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ParameterError, match="name a column twice"):
        forecaster(id_col="y").fit(levels(TABLES).reset_index())
    with pytest.raises(ParameterError, match="'sampling' parameter"):
        forecaster(sampling="rows").fit(TABLES)


# --- short series ---------------------------------------------------------------------------------

SHORT = {"tiny": TABLES["north"].iloc[:20], "small": TABLES["north"].iloc[3:12]}


def test_short_series_train_and_are_forecast_with_unknown_rows_before_them() -> None:
    alone = forecaster(missing="mask", validation_fraction=0.0).fit(SHORT)  # none has a window
    assert np.isfinite(alone.history_["train_loss"][1:]).all()
    model = forecaster(missing="mask").fit(TABLES | SHORT)
    for number, table in ((3, SHORT["tiny"]), (4, SHORT["small"])):
        np.testing.assert_allclose(model.scaling_.center[number], table.mean())
    forecast = model.predict()
    assert list(forecast["small"].index) == list(TABLES["north"].index[12:18])
    unknown = np.full((1, 24, 2), np.nan)
    unknown[0, -9:] = SHORT["small"]
    units = model.scaling_.take([4])
    wanted = model.forecast_contexts(unknown, 6, units=units)[0]
    np.testing.assert_allclose(forecast["small"], wanted, rtol=1e-5)
    np.testing.assert_allclose(model.predict(SHORT)["small"], wanted, rtol=1e-5)


def test_a_masked_model_learns_short_series() -> None:
    t = np.arange(18)
    tables = {
        f"s{k}": pd.DataFrame({"y": np.sin((t + k) * 2 * np.pi / 6) * 10**k}) for k in range(6)
    }
    model = forecaster(
        missing="mask", blocks=0, max_epochs=60, learning_rate=1e-2, validation_fraction=0.0
    ).fit(tables)
    for k, forecast in enumerate(model.predict().values()):
        wanted = np.sin((np.arange(18, 24) + k) * 2 * np.pi / 6) * 10**k
        assert np.abs(forecast["y"] - wanted).mean() < 0.4 * 10**k


def test_short_series_are_backtested_from_their_own_rows_on(tmp_path: Path) -> None:
    model = forecaster(missing="mask").fit(TABLES | SHORT)
    table = model.backtest(TABLES | SHORT)
    for name, first in {
        "tiny": 6,
        "small": 3,
        "east": 24,
    }.items():  # rows before the first forecast
        part = table[table["series"] == name]
        frame = (TABLES | SHORT)[name]
        assert part["cutoff"].min() == frame.index[first - 1]
        assert part["cutoff"].nunique() == len(frame) - first - 6 + 1
        last = part[part["cutoff"] == part["cutoff"].max()].pivot(
            index="time", columns="variate", values=["actual", "forecast"]
        )
        np.testing.assert_array_equal(last["actual"], frame.iloc[-6:])
        wanted = model.predict({name: frame.iloc[:-6]})[name]
        np.testing.assert_allclose(last["forecast"], wanted, rtol=1e-4)
    assert np.isfinite(model.score(TABLES | SHORT))
    model.calibrate(SHORT)
    model.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict()["small"], model.predict()["small"])


def test_a_series_without_a_row_before_a_forecast_is_refused() -> None:
    wanted = r"'x' has 6 rows, but one window needs 7 \(1 \+ horizon=6\)\. Lower horizon, or drop"
    with pytest.raises(WindowError, match=wanted):
        forecaster(missing="mask").fit(TABLES | {"x": TABLES["north"].iloc[:6]})
    with pytest.raises(WindowError, match=r"needs 30 .* pass missing='mask'"):
        forecaster().fit(TABLES | SHORT)
    with pytest.raises(WindowError, match=r"'tiny' has 20 rows"):  # whose hours would be unknown
        forecaster(missing="mask", calendar=("hour",)).fit(TABLES | SHORT)


def test_series_may_lack_rows() -> None:
    gappy = {name: table.drop(table.index[[5, 30]]) for name, table in TABLES.items()}
    model = forecaster(missing="mask").fit(gappy)
    for name, table in TABLES.items():
        forecast = model.predict()[name]
        assert list(forecast.index) == list(pd.date_range(table.index[-1], periods=7, freq="h")[1:])
        assert bool(forecast.notna().all(axis=None))
    lost = TABLES["north"].iloc[:96].drop(TABLES["north"].index[[5, 30]])
    np.testing.assert_allclose(model.scaling_.center[0], lost.mean())


# --- anything -------------------------------------------------------------------------------------

LABELS = st.one_of(st.text(max_size=3), st.integers(-3, 3))


@st.composite
def anything(draw: st.DrawFn) -> Any:
    """Some series in some container, with faults or without."""
    labels = draw(st.lists(LABELS, min_size=1, max_size=2, unique=draw(st.booleans())))
    kinds = st.sampled_from(["datetime", "period", "numbers", "text"])
    kind = draw(kinds)
    dtype: Any = draw(st.sampled_from(["float64", "int64", "bool", "Int64", "object"]))
    tables = {}
    for name in draw(st.lists(LABELS, min_size=1, max_size=3, unique=True)):
        n = draw(st.integers(0, 30))
        day = draw(st.dates(datetime.date(2000, 1, 1), datetime.date(2030, 1, 1)))
        index: Any = pd.RangeIndex(n)
        if kind == "datetime":
            index = pd.date_range(day, periods=n, freq="h")
        elif kind == "period":
            index = pd.period_range(day, periods=n, freq="M")
        elif kind == "text":
            index = index.astype(str)
        values = np.random.default_rng(n).integers(0, 50, (n, len(labels)))
        table = pd.DataFrame(values, index).astype(dtype)
        table.columns = pd.Index(labels, dtype=object)
        if n and draw(st.integers(0, 3)) == 0:
            table = table.drop(table.index[draw(st.integers(0, n - 1))])
        if len(table) and draw(st.integers(0, 5)) == 0:
            table = table.astype(object)
            table.iloc[-1, 0] = draw(st.sampled_from([np.nan, np.inf, "x", None]))
        tables[name] = table
    container = draw(st.sampled_from(["dict", "list", "levels", "long", "one", "arrays"]))
    if container == "one":
        return next(iter(tables.values()))
    if container == "arrays":
        return [table.to_numpy() for table in tables.values()]
    if container == "list":
        return list(tables.values())
    if container == "dict" or len(set(labels)) < len(labels):
        return tables
    X = pd.concat(tables, names=["unique_id", "ds"])
    return X.set_axis(["y", "z"][: len(labels)], axis=1).reset_index() if container == "long" else X


@settings(deadline=None, max_examples=80)
@given(anything(), st.integers(1, 4), st.sampled_from(["raise", "mask", "ffill"]))
def test_anything_is_forecast_or_refused_as_ours(X: Any, horizon: int, missing: str) -> None:
    tiny = {"lookback": 4, "horizon": 2, "patch_length": 2, "blocks": 0, "max_epochs": 1}
    model = TSM2Forecaster(**(SMALL | tiny | {"batch_size": 64, "missing": missing}))
    try:
        forecast = model.fit(X).predict(horizon=horizon)
        model.backtest(X)
    except TSM2Error as error:
        assert len(str(error)) > 20  # noqa: PT017
        return
    assert type(forecast) is type(X)
    pieces = list(forecast.values()) if isinstance(forecast, dict) else forecast
    for piece in pieces if isinstance(pieces, list) else [pieces]:
        numbers = piece.select_dtypes("number") if isinstance(piece, pd.DataFrame) else piece
        assert np.isfinite(np.asarray(numbers, dtype=float)).all()
