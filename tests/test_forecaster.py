"""The estimator as its users meet it: tables, scikit-learn, saving, mistakes."""

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from forging import forge_config
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.utils.estimator_checks import parametrize_with_checks

from tsm2 import TSM2Forecaster, saving
from tsm2.errors import (
    BackendError,
    ForecastError,
    FrameError,
    FrequencyWarning,
    NotFittedError,
    ParameterError,
    SavedModelError,
    TSM2Error,
    WindowError,
)

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


def waves(index: pd.Index | None = None, rows: int = 160) -> pd.DataFrame:
    """Two sines of a day and some noise, far from zero mean and unit scale."""
    if index is None:
        index = pd.date_range("2024-03-01", periods=rows, freq="h", name="time")
    t = np.arange(len(index))
    noise = np.random.default_rng(0).normal(0, 0.1, (len(index), 2))
    values = np.stack((np.sin(t * 2 * np.pi / 24), np.cos(t * 2 * np.pi / 24)), 1) + noise
    return pd.DataFrame(values * [5.0, 300.0] + [50.0, -2000.0], index, ["load", "wind"])


def predicted(model: TSM2Forecaster, horizon: int | None = None) -> pd.DataFrame:
    forecast = model.predict(horizon=horizon)
    assert isinstance(forecast, pd.DataFrame)
    return forecast


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return waves()


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame) -> TSM2Forecaster:
    return TSM2Forecaster(**SMALL).fit(frame)


@pytest.fixture(scope="module")
def mixing(frame: pd.DataFrame) -> TSM2Forecaster:
    """Of which the mixers were kept."""
    return TSM2Forecaster(**SMALL, linear_start="random").fit(frame)


# --- scikit-learn ---------------------------------------------------------------------------------

ROWS_ARE_ORDERED = "the order of the rows is the data: a forecast depends on all rows before it"


@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [TSM2Forecaster(**(SMALL | {"lookback": 4, "horizon": 2, "patch_length": 2, "max_epochs": 1}))],
    expected_failed_checks=lambda _: {
        "check_methods_sample_order_invariance": ROWS_ARE_ORDERED,
        "check_methods_subset_invariance": ROWS_ARE_ORDERED,
    },
)
def test_scikit_learns_checks(estimator: TSM2Forecaster, check: Any) -> None:
    check(estimator)


def test_clone_keeps_the_parameters(fitted: TSM2Forecaster) -> None:
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "network_")


def test_grid_search_over_time_series_splits(frame: pd.DataFrame) -> None:
    search = GridSearchCV(
        TSM2Forecaster(**SMALL), {"blocks": [0, 1]}, cv=TimeSeriesSplit(2, test_size=24)
    ).fit(frame)
    assert set(search.cv_results_["param_blocks"]) == {0, 1}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.predict().shape == (6, 2)


def test_pickle_and_html(fitted: TSM2Forecaster) -> None:
    copy = pickle.loads(pickle.dumps(fitted))
    pd.testing.assert_frame_equal(predicted(copy), predicted(fitted))
    assert "TSM2Forecaster" in fitted._repr_html_()


def test_a_notebook_shows_a_line_about_the_fit(fitted: TSM2Forecaster) -> None:
    shown = fitted._repr_mimebundle_()["text/html"]
    assert shown.startswith(f"<p>Fitted to {fitted.n_rows_} rows; epochs trained: ")
    assert f"network {fitted.floor_['network']:.3f}" in shown
    assert "TSM2Forecaster" in shown
    assert "Fitted" not in TSM2Forecaster()._repr_mimebundle_()["text/html"].partition("<style>")[0]


# --- forecasts ------------------------------------------------------------------------------------


def test_it_learns_a_daily_wave(frame: pd.DataFrame) -> None:
    model = TSM2Forecaster(**(SMALL | {"max_epochs": 15, "learning_rate": 1e-2})).fit(
        frame.iloc[:-6]
    )
    error = ((model.predict() - frame.iloc[-6:]) / frame.std()).abs().mean()
    assert bool((error < 0.35).all()), error


def test_a_forecast_continues_the_table(frame: pd.DataFrame, fitted: TSM2Forecaster) -> None:
    forecast = predicted(fitted)
    assert list(forecast.columns) == ["load", "wind"]
    assert forecast.index.name == "time"
    wanted = pd.date_range(frame.index[-1], periods=7, freq="h")[1:]
    assert list(forecast.index) == list(wanted)
    assert bool(forecast["wind"].between(-3000, -1000).all())


def test_predict_of_the_training_table_is_the_default(
    frame: pd.DataFrame, fitted: TSM2Forecaster
) -> None:
    pd.testing.assert_frame_equal(fitted.predict(frame), predicted(fitted), check_freq=False)
    pd.testing.assert_frame_equal(
        fitted.predict(frame.iloc[-24:]), predicted(fitted), check_freq=False
    )


def test_a_longer_horizon_rolls_forward_on_its_own_forecasts(
    frame: pd.DataFrame, fitted: TSM2Forecaster
) -> None:
    long = predicted(fitted, horizon=15)
    first = predicted(fitted)
    second = fitted.predict(pd.concat((frame, first)))
    np.testing.assert_allclose(long.iloc[:6], first, rtol=1e-5)
    np.testing.assert_allclose(long.iloc[6:12], second, rtol=1e-4)
    assert len(long) == 15
    assert len(fitted.predict(horizon=2)) == 2


INDEXES = {
    "hours": pd.date_range("2024-03-01", periods=160, freq="h"),
    "summer time": pd.date_range("2024-03-28", periods=160, freq="h", tz="Europe/Berlin"),
    "days across summer time": pd.date_range("2024-01-01", periods=160, freq="D", tz="Europe/Rome"),
    "months": pd.date_range("2010-01-01", periods=160, freq="MS"),
    "business days": pd.date_range("2024-01-01", periods=160, freq="B"),
    "periods": pd.period_range("2010-01", periods=160, freq="M"),
    "range": pd.RangeIndex(10, 10 + 160 * 5, 5),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES.keys())
def test_every_kind_of_index_goes_in_and_out(index: pd.Index, tmp_path: Path) -> None:
    table = waves(index)
    model = TSM2Forecaster(**(SMALL | {"max_epochs": 1})).fit(table.iloc[:150])
    forecast = predicted(model, horizon=10)
    assert list(forecast.index) == list(index[150:])
    assert type(forecast.index) is type(index)
    assert model.backtest(table.iloc[150:])["cutoff"].iloc[0] == index[149]
    model.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(predicted(loaded, horizon=10), forecast)


def test_an_array_in_is_an_array_out(frame: pd.DataFrame, fitted: TSM2Forecaster) -> None:
    model = TSM2Forecaster(**SMALL).fit(frame.to_numpy())
    forecast = model.predict()
    assert isinstance(forecast, np.ndarray)
    np.testing.assert_array_equal(forecast, predicted(fitted))


def test_constant_variates_stay_constant(frame: pd.DataFrame) -> None:
    model = TSM2Forecaster(**SMALL).fit(frame.assign(flat=7.0))
    np.testing.assert_allclose(predicted(model)["flat"], 7.0, atol=1e-2)


def test_a_seed_fixes_forecasts_bit_for_bit(frame: pd.DataFrame, fitted: TSM2Forecaster) -> None:
    again = TSM2Forecaster(**SMALL).fit(frame)
    pd.testing.assert_frame_equal(predicted(again), predicted(fitted), check_exact=True)
    other = TSM2Forecaster(**(SMALL | {"random_state": 1})).fit(frame)
    assert not np.array_equal(other.predict(), predicted(fitted))


def test_fit_changes_nothing_of_the_callers(frame: pd.DataFrame) -> None:
    before = frame.copy(deep=True)
    TSM2Forecaster(**SMALL).fit(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_scaling_sees_training_rows_only(frame: pd.DataFrame) -> None:
    tail_changed = frame.copy()
    tail_changed.iloc[-32:] *= 100
    a = TSM2Forecaster(**SMALL, logarithms=False).fit(frame)
    b = TSM2Forecaster(**SMALL, logarithms=False).fit(tail_changed)
    np.testing.assert_array_equal(a.scaling_.center, b.scaling_.center)
    np.testing.assert_array_equal(a.scaling_.scale, b.scaling_.scale)
    np.testing.assert_allclose(a.scaling_.center, frame.iloc[:128].mean())


def test_history_records_every_epoch(fitted: TSM2Forecaster) -> None:
    assert list(fitted.history_["epoch"]) == [0, 1, 2]  # an exact start, and two passes
    assert fitted.n_iter_ == 2
    assert fitted.history_["validation_loss"].notna().all()
    assert fitted.history_["train_loss"].isna().tolist() == [True, False, False]
    alone = TSM2Forecaster(**(SMALL | {"validation_fraction": 0.0})).fit(waves())
    assert alone.history_["validation_loss"].isna().all()


# --- backtest and score ---------------------------------------------------------------------------


def test_a_backtest_holds_what_predict_would_have_said(
    frame: pd.DataFrame, fitted: TSM2Forecaster
) -> None:
    table = fitted.backtest(frame, start=frame.index[100], stride=7)
    assert list(table.columns) == ["cutoff", "step", "time", "variate", "actual", "forecast"]
    cutoffs = table["cutoff"].unique()
    assert list(cutoffs) == list(frame.index[99:154:7])
    for cutoff in cutoffs[[0, 3]]:
        part = table[table["cutoff"] == cutoff].pivot(
            index="time", columns="variate", values=["actual", "forecast"]
        )
        wanted = fitted.predict(frame.loc[:cutoff])
        np.testing.assert_allclose(part["forecast"], wanted, rtol=1e-5)
        np.testing.assert_array_equal(part["actual"], frame.loc[part.index])
    assert sorted(table["step"].unique()) == [1, 2, 3, 4, 5, 6]


def test_every_window_is_tested(frame: pd.DataFrame, fitted: TSM2Forecaster) -> None:
    assert fitted.backtest(frame)["cutoff"].nunique() == 160 - 24 - 6 + 1


def test_rows_after_the_training_table_need_no_context_of_their_own(frame: pd.DataFrame) -> None:
    model = TSM2Forecaster(**SMALL).fit(frame.iloc[:130])
    later = model.backtest(frame.iloc[130:])
    whole = model.backtest(frame, start=frame.index[130])
    pd.testing.assert_frame_equal(later, whole)
    assert later["cutoff"].iloc[0] == frame.index[129]


def test_a_refit_learns_from_the_rows_before_it_and_from_nothing_else(frame: pd.DataFrame) -> None:
    model = TSM2Forecaster(**(SMALL | {"max_epochs": 1}))
    start = frame.index[120]
    table = model.backtest(frame, start=start, stride=9, refit=2)
    assert not hasattr(model, "network_")
    cutoffs = table["cutoff"].unique()
    assert list(cutoffs) == list(frame.index[119:154:9])
    refits = [clone(model).fit(frame.loc[:cutoff]) for cutoff in cutoffs[::2]]
    for number, cutoff in enumerate(cutoffs):
        wanted = refits[number // 2].predict(frame.loc[:cutoff])
        got = table[table["cutoff"] == cutoff].pivot(
            index="time", columns="variate", values="forecast"
        )
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
    with joblib.parallel_config("loky", inner_max_num_threads=1):  # threads change last digits
        array = model.backtest(frame.to_numpy(), start=120, stride=9, refit=2, n_jobs=2)
    np.testing.assert_array_equal(array["forecast"], table["forecast"])


# --- further training -----------------------------------------------------------------------------


def test_a_warm_start_goes_on_from_the_weights_there_are(
    frame: pd.DataFrame, fitted: TSM2Forecaster, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "model")
    tiny = {"warm_start": True, "learning_rate": 1e-9, "mixer_learning_rate": 1e-9}
    warm = TSM2Forecaster.load(tmp_path / "model").set_params(**tiny)
    other = 3 * frame.iloc[::-1].set_axis(frame.index) + 7  # another table: another scale
    warm.fit(other)
    own, begun = warm.network_.state_dict(), fitted.network_.state_dict()
    for name, weight in begun.items():  # the mixers, if any were kept, and the linear path
        np.testing.assert_allclose(own[name], weight, atol=1e-6)
    np.testing.assert_allclose(warm.scaling_.center, other.iloc[:128].mean())
    cold = clone(warm).fit(other)
    assert not np.allclose(cold.network_.head.weight.detach(), begun["head.weight"], atol=1e-3)


def test_a_warm_start_takes_other_columns_but_no_other_sizes(
    frame: pd.DataFrame, fitted: TSM2Forecaster
) -> None:
    warm = pickle.loads(pickle.dumps(fitted)).set_params(warm_start=True, max_epochs=1)
    wide = warm.fit(frame.assign(sun=1.0 * np.arange(len(frame))))
    assert list(wide.predict().columns) == ["load", "wind", "sun"]
    with pytest.raises(ParameterError, match=r"embedding.weight was \(8, 8\) and is \(16, 8\)"):
        wide.set_params(features=16).fit(frame)
    assert list(wide.set_params(features=8).predict().columns) == ["load", "wind", "sun"]


def test_an_update_makes_new_rows_history(frame: pd.DataFrame) -> None:
    model = TSM2Forecaster(**SMALL).fit(frame.iloc[:140])
    weights = {name: weight.clone() for name, weight in model.network_.state_dict().items()}
    wanted = model.predict(frame)
    for rows in (slice(140, 141), slice(141, 150), slice(150, 160)):
        model.update(frame.iloc[rows])
    pd.testing.assert_frame_equal(predicted(model), wanted)
    assert all(bool((w == weights[n]).all()) for n, w in model.network_.state_dict().items())
    with pytest.raises(FrameError, match=r"start at 2024-03-01 00:00:00, but.*2024-03-07 16:00:00"):
        model.update(frame)


def test_an_update_can_learn_from_the_new_rows(frame: pd.DataFrame) -> None:
    turned = frame.copy()
    turned.iloc[100:] = 2 * frame.mean() - turned.iloc[100:]  # upside down from here on
    model = TSM2Forecaster(**(SMALL | {"learning_rate": 1e-2})).fit(turned.iloc[:100])
    before, scale = model.score(turned.iloc[100:]), model.scaling_
    model.update(turned.iloc[100:], epochs=8)
    assert list(model.history_["epoch"]) == list(range(11))
    assert model.n_iter_ == 10
    assert model.scaling_ is scale
    assert model.score(turned) > before
    array = TSM2Forecaster(**SMALL).fit(frame.iloc[:150].to_numpy())
    array.update(frame.iloc[150:].to_numpy(), epochs=1)
    with pytest.raises(WindowError, match="has the 30 rows of a window"):
        array.update(frame.iloc[:3].to_numpy(), epochs=1)
    with pytest.raises(ParameterError, match="epochs must be an integer"):
        array.update(frame.to_numpy(), epochs=-1)


def test_score_is_the_negative_standardised_error(
    frame: pd.DataFrame, fitted: TSM2Forecaster
) -> None:
    table = fitted.backtest(frame)
    scales = dict(zip(frame.columns, fitted.scaling_.scale, strict=True))
    scale = table["variate"].map(scales).astype(float)
    wanted = -(((table["forecast"] - table["actual"]) / scale) ** 2).mean()
    assert fitted.score(frame) == pytest.approx(wanted)


# --- save and load --------------------------------------------------------------------------------


def test_a_loaded_model_forecasts_the_same(
    frame: pd.DataFrame, fitted: TSM2Forecaster, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(predicted(loaded), predicted(fitted))
    pd.testing.assert_frame_equal(loaded.backtest(frame), fitted.backtest(frame))
    pd.testing.assert_frame_equal(loaded.history_, fitted.history_)
    assert loaded.get_params() == fitted.get_params()
    assert list(loaded.feature_names_in_) == ["load", "wind"]
    loaded.fit(frame)


def test_a_model_is_loaded_for_the_device_at_hand(
    frame: pd.DataFrame, fitted: TSM2Forecaster, tmp_path: Path
) -> None:
    made_elsewhere = pickle.loads(pickle.dumps(fitted)).set_params(device="cuda")
    made_elsewhere.save(tmp_path / "model")
    here = TSM2Forecaster.load(tmp_path / "model", device="cpu")
    assert here.device == "cpu"
    pd.testing.assert_frame_equal(predicted(here), predicted(fitted))
    with pytest.raises(BackendError, match="device='gpu' is not at hand"):
        TSM2Forecaster.load(tmp_path / "model", device="gpu")


def test_threads_may_forecast_at_the_same_time(frame: pd.DataFrame, fitted: TSM2Forecaster) -> None:
    tables = [frame.iloc[: 60 + number] for number in range(8)]
    wanted = [fitted.predict(table) for table in tables]
    loaded = pickle.loads(pickle.dumps(fitted))  # its first forecasts come all at once
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            got = pool.map(loaded.predict, tables)
            for one, two in zip(got, wanted, strict=True):
                pd.testing.assert_frame_equal(one, two, check_exact=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (('"blocks": 1', '"blocks": 20000'), "blocks=20000 and n_estimators=1 need at least 20000"),
        (('"n_estimators": 1', '"n_estimators": 9999'), "need at least"),
        (('"d_conv": 4', '"d_conv": 100000000000'), r"conv\S* has shape"),
        (('"horizon": 6', '"horizon": 100000000000'), "has shape"),
        (('"columns_dtype": "', '"columns_dtype": "x'), "usable TSM2Forecaster: data type"),
        (('"calendar": { "$tuple": []', '"calendar": {"$tuple": ["moon"]'), "moon"),
        (('"frequency": "', '"frequency": "x'), "usable TSM2Forecaster"),
        (('"unit": "', '"unit": "x'), "usable TSM2Forecaster"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_found_when_it_is_loaded(
    mixing: TSM2Forecaster, tmp_path: Path, change: tuple[str, str], reason: str
) -> None:
    mixing.save(tmp_path / "model")
    forge_config(tmp_path / "model", *change)
    with pytest.raises(SavedModelError, match=reason):
        TSM2Forecaster.load(tmp_path / "model")


@pytest.mark.parametrize("name", ["center", "scale", "context", "context_offsets", "calibration"])
@pytest.mark.parametrize("change", ["gone", "shape", "dtype"])
def test_numbers_that_do_not_fit_are_found_when_they_are_loaded(
    fitted: TSM2Forecaster, tmp_path: Path, name: str, change: str
) -> None:
    fitted.save(tmp_path)
    config, tensors = saving.load_folder(tmp_path, kind="TSM2Forecaster")
    changed = {"shape": tensors[name][..., None], "dtype": tensors[name].to(torch.int32)}
    rest = {k: v for k, v in tensors.items() if k != name}
    tensors = rest if change == "gone" else rest | {name: changed[change]}
    saving.save_folder(tmp_path, kind="TSM2Forecaster", config=config, tensors=tensors)
    if name == "calibration" and change == "gone":
        assert TSM2Forecaster.load(tmp_path).calibration_ is None
        return
    with pytest.raises(SavedModelError, match=name):
        TSM2Forecaster.load(tmp_path)


@pytest.mark.parametrize("way", ["predict", "predict_quantiles", "sample", "backtest", "score"])
def test_no_forecast_leaves_unless_it_is_finite(frame: pd.DataFrame, way: str) -> None:
    model = TSM2Forecaster(**SMALL, instance_norm=False, pre_norm="none").fit(frame)
    with torch.no_grad():
        for weight in model.network_.parameters():
            weight.mul_(1e30)
    with pytest.raises(ForecastError, match=r"infinite or undefined.*deviations.*instance_norm"):
        getattr(model, way)(frame)


def test_parameters_that_were_edited_do_not_fit_the_weights(
    fitted: TSM2Forecaster, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "model")
    forge_config(tmp_path / "model", '"features": 8', '"features": 16')
    with pytest.raises(SavedModelError, match="embedding"):
        TSM2Forecaster.load(tmp_path / "model")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SavedModelError):
        TSM2Forecaster.load(tmp_path)


# --- quantiles ------------------------------------------------------------------------------------


def test_the_point_forecast_of_a_quantile_model_is_its_median(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    model = TSM2Forecaster(**SMALL, quantiles=[0.1, 0.9]).fit(frame)
    context = model.scaling_.standardise(frame.to_numpy()[-24:]).T[None]
    with torch.inference_mode():
        quantiles = model.network_(context)  # (1, M, H, Q)
    assert quantiles.shape == (1, 2, 6, 3)
    np.testing.assert_allclose(model.predict(), model.scaling_.restore(quantiles[0, ..., 1].T))
    assert len(predicted(model, horizon=15)) == 15
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(
        predicted(TSM2Forecaster.load(tmp_path / "model")), predicted(model)
    )


@pytest.fixture(scope="module")
def skewed() -> pd.DataFrame:
    """Noise that has no memory: 50 below its mean of 100 at most, far above it at times."""
    values = 50 + 50 * np.random.default_rng(0).exponential(size=(1200, 2))
    return pd.DataFrame(values, pd.date_range("2024-01-01", periods=1200, freq="h"), ["a", "b"])


@pytest.mark.parametrize("quantiles", [None, (0.1, 0.9)], ids=["point", "quantiles"])
def test_intervals_cover_what_they_promise(
    skewed: pd.DataFrame, quantiles: tuple[float, ...] | None
) -> None:
    model = TSM2Forecaster(**(SMALL | {"validation_fraction": 0.4}), quantiles=quantiles)
    model.fit(skewed.iloc[:700])
    table = model.backtest(skewed.iloc[700:], quantiles=(0.05, 0.25, 0.5, 0.9, 0.95))
    assert list(table.columns[-5:]) == ["lo-90", "lo-50", "median", "hi-80", "hi-90"]
    shares = {name: float((table["actual"] <= table[name]).mean()) for name in table.columns[-5:]}
    wanted = {"lo-90": 0.05, "lo-50": 0.25, "median": 0.5, "hi-80": 0.9, "hi-90": 0.95}
    assert shares == pytest.approx(wanted, abs=0.05)
    below, above = (
        (table["median"] - table["lo-90"]).mean(),
        (table["hi-90"] - table["median"]).mean(),
    )
    assert above > 1.3 * below  # the intervals are skewed as the noise is
    first = table[table["cutoff"] == table["cutoff"].iloc[0]]
    again = model.predict_quantiles(quantiles=(0.05, 0.95))
    np.testing.assert_allclose(
        first[["lo-90", "hi-90"]],
        again.stack("variate" if again.columns.names[0] else 0),
        rtol=1e-5,
    )


def test_quantiles_come_in_columns_of_variate_and_level(
    frame: pd.DataFrame, fitted: TSM2Forecaster, tmp_path: Path
) -> None:
    quantiles = fitted.predict_quantiles()
    assert list(quantiles.columns) == [
        (name, level) for name in ("load", "wind") for level in (0.1, 0.5, 0.9)
    ]
    assert quantiles.columns.names == [None, "quantile"]
    assert list(quantiles.index) == list(predicted(fitted).index)
    interval = fitted.predict_interval(coverage=0.8)
    pd.testing.assert_frame_equal(interval, quantiles.drop(columns=0.5, level="quantile"))
    pd.testing.assert_frame_equal(
        fitted.predict_interval(frame, horizon=2), interval.iloc[:2], check_freq=False
    )
    plain = TSM2Forecaster(**SMALL).fit(frame.to_numpy()).predict_quantiles()
    assert plain.shape == (6, 2, 3)
    np.testing.assert_allclose(plain.reshape(6, 6), quantiles)
    fitted.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict_quantiles(), quantiles)
    pd.testing.assert_frame_equal(
        loaded.sample(n_samples=3, random_state=0), fitted.sample(n_samples=3, random_state=0)
    )


def test_a_quantile_network_can_be_taken_at_its_word(frame: pd.DataFrame) -> None:
    model = TSM2Forecaster(**SMALL, quantiles=(0.1, 0.5, 0.9)).fit(frame)
    raw = model.predict_quantiles(calibrated=False)
    np.testing.assert_allclose(raw.xs(0.5, axis=1, level="quantile"), predicted(model), rtol=1e-6)
    calibrated = model.predict_quantiles()
    assert not np.allclose(raw, calibrated)
    for table in (raw, calibrated):
        assert bool((table.T.groupby(level=0).diff().dropna() >= 0).all(axis=None))
    with pytest.raises(ParameterError, match=r"0.01, 0.99 were asked .* from 0.1 to 0.9"):
        model.predict_quantiles(quantiles=(0.01, 0.99), calibrated=False)


def test_samples_spread_as_the_quantiles_say(skewed: pd.DataFrame) -> None:
    model = TSM2Forecaster(**(SMALL | {"validation_fraction": 0.4})).fit(skewed)
    paths = model.sample(n_samples=4000, random_state=0)
    assert paths.columns.names == [None, "sample"]
    for name in ("a", "b"):
        drawn = np.quantile(paths[name], (0.1, 0.5, 0.9), axis=1).T
        np.testing.assert_allclose(drawn, model.predict_quantiles()[name], rtol=0.06)
    assert len(model.sample(n_samples=2, horizon=15)) == 15
    again = model.sample(n_samples=4000, random_state=0)
    pd.testing.assert_frame_equal(paths, again)


def test_calibration_may_come_later(skewed: pd.DataFrame) -> None:
    model = TSM2Forecaster(**(SMALL | {"validation_fraction": 0.0})).fit(skewed.iloc[:400])
    assert model.fitted_.calibration is None
    for call in (model.predict_interval, model.predict_quantiles):
        with pytest.raises(
            ParameterError, match=r"was not calibrated\. Fit with a validation_frac"
        ):
            call()
    with pytest.raises(ParameterError, match=r"there are none: fit with a validation_fraction"):
        model.sample()
    model.calibrate(skewed.iloc[400:])
    assert model.calibration_ is not None
    assert len(model.calibration_.scores) == 512
    interval = model.predict_interval(coverage=0.9)
    assert bool(
        (interval.xs(0.05, axis=1, level=1) < interval.xs(0.95, axis=1, level=1)).all(axis=None)
    )
    model.calibrate(skewed, start=skewed.index[1192])
    assert len(model.calibration_.scores) == 3
    with pytest.raises(ParameterError, match=r"has 18 errors, and 199 are needed"):
        model.predict_interval(coverage=0.99)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.predict_quantiles(quantiles=(0.9, 0.1)), "rise, each once"),
        (lambda m: m.predict_quantiles(quantiles=(0.1, 1.0)), "between 0 and 1"),
        (lambda m: m.predict_interval(coverage=80), r"such as 0\.8 for 80 %"),
        (
            lambda m: m.predict_interval(horizon=7),
            r"horizon of 6 rows, but 7 .* draw paths with sam",
        ),
        (lambda m: m.predict_interval(horizon=0), "horizon must be"),
        (lambda m: m.predict_interval(coverage=0.99), "windows, and 199 are needed"),
        (lambda m: m.sample(n_samples=0), "n_samples must be"),
        (lambda m: m.sample(n_samples=1, random_state="x"), "random_state"),
        (lambda m: m.backtest(waves(), quantiles=(0.0,)), "between 0 and 1"),
        (lambda m: m.backtest(waves(), coverage=1.0), r"such as 0\.8"),
        (lambda m: m.backtest(waves(), coverage=0.8, quantiles=(0.1,)), "coverage or quantiles"),
    ],
)
def test_wrong_calls_for_quantiles(fitted: TSM2Forecaster, call: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        call(fitted)


def test_quantiles_and_losses_that_do_not_go_together_are_refused(frame: pd.DataFrame) -> None:
    for wrong in (
        {"loss": "mse", "quantiles": (0.1, 0.9)},
        {"loss": "quantile"},
    ):
        with pytest.raises(ParameterError, match=r"learnt by loss='quantile'.*Pass both, or"):
            TSM2Forecaster(**SMALL, **wrong).fit(frame)
    with pytest.raises(ParameterError, match="pass loss='mae'"):
        TSM2Forecaster(**SMALL, quantiles=(0.5,)).fit(frame)
    with pytest.raises(ParameterError, match=r"between 0 and 1, got 1\.5"):
        TSM2Forecaster(**SMALL, quantiles=(0.5, 1.5)).fit(frame)


# --- mistakes -------------------------------------------------------------------------------------


def test_a_short_table_says_how_many_rows_are_missing() -> None:
    with pytest.raises(WindowError, match=r"30 rows.*24 are for training.*needs 30 \(lookback=24"):
        TSM2Forecaster(**SMALL).fit(waves(rows=30))
    with pytest.raises(WindowError, match=r"keeps 3 of 60 rows.*needs 6 \(horizon\)"):
        TSM2Forecaster(**(SMALL | {"validation_fraction": 0.05})).fit(waves(rows=60))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lookback", 0),
        ("lookback", 2.5),
        ("horizon", "6"),
        ("dropout", 1.0),
        ("learning_rate", 0),
        ("validation_fraction", 1.0),
        ("loss", "rmse"),
        ("device", "gpu"),
        ("max_epochs", None),
        ("random_state", "x"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_range(name: str, value: object) -> None:
    with pytest.raises(ParameterError, match=f"The '{name}' parameter of TSM2Forecaster must be"):
        TSM2Forecaster(**(SMALL | {name: value})).fit(waves())


def test_parameters_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ParameterError, match="patch_length=32 is longer than lookback=24"):
        TSM2Forecaster(**(SMALL | {"patch_length": 32})).fit(waves())
    with pytest.raises(ParameterError, match="zero_start=False"):
        TSM2Forecaster(**(SMALL | {"readout": "last"})).fit(waves())
    with pytest.raises(ParameterError, match="max_steps=1 leaves no room for max_epochs=2"):
        TSM2Forecaster(**(SMALL | {"max_steps": 1})).fit(waves())
    with pytest.raises(ParameterError, match="max_steps=9 leaves no room for min_steps=10"):
        TSM2Forecaster(**(SMALL | {"max_steps": 9, "min_steps": 10})).fit(waves())
    with pytest.raises(BackendError, match=r"'cudnn'.*Pass backend='auto'"):
        TSM2Forecaster(**(SMALL | {"backend": "cudnn"})).fit(waves())


def test_nothing_works_before_fit(frame: pd.DataFrame, tmp_path: Path) -> None:
    model = TSM2Forecaster(**SMALL)
    calls = (
        lambda: model.predict(),
        lambda: model.backtest(frame),
        lambda: model.score(frame),
        lambda: model.update(frame),
        lambda: model.save(tmp_path / "model"),
        lambda: model.predict_quantiles(),
        lambda: model.predict_interval(),
        lambda: model.sample(),
        lambda: model.calibrate(frame),
    )
    for call in calls:
        with pytest.raises(NotFittedError, match=r"Call fit\(table\) first"):
            call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="wind"), "wind"),
        (lambda f: f[["wind", "load"]], "same order"),
        (lambda f: f.assign(sun=1.0), "sun"),
        (lambda f: f.iloc[::2], "frequency"),
        (lambda f: f.tz_localize("UTC"), "time zone"),
        (lambda f: f.reset_index(drop=True), "whole numbers"),
        (lambda f: f.mask(f["load"] > 54), "NaN"),
        (lambda f: f.drop(index=f.index[50]), "50|02:00"),
        (lambda f: f.iloc[:10], r"10 rows.*24 \(lookback\)"),
    ],
)
def test_a_history_of_another_shape_is_refused(
    frame: pd.DataFrame, fitted: TSM2Forecaster, change: Any, message: str
) -> None:
    with pytest.raises(TSM2Error, match=message):
        fitted.predict(change(frame))


def test_wrong_calls_of_predict_and_backtest(frame: pd.DataFrame, fitted: TSM2Forecaster) -> None:
    for horizon in (0, -1, 2.5, True):
        with pytest.raises(ParameterError, match="horizon must be an integer of at least 1"):
            fitted.predict(horizon=horizon)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="stride must be"):
        fitted.backtest(frame, stride=0)
    with pytest.raises(ParameterError, match="refit needs start"):
        fitted.backtest(frame, refit=True)
    with pytest.raises(ParameterError, match="refit must be an integer of at least 1, got 0"):
        fitted.backtest(frame, start=frame.index[100], refit=0)
    with pytest.raises(ParameterError, match="window must be 'expanding' or 'sliding'"):
        fitted.backtest(frame, start=frame.index[100], refit=5, window="rolling")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="n_jobs must be a count"):
        fitted.backtest(frame, start=frame.index[100], refit=5, n_jobs=0)
    with pytest.raises(WindowError, match="the table has 30 rows"):
        fitted.backtest(frame, start=frame.index[30], refit=True)
    with pytest.raises(FrameError, match="is not a row of the table"):
        fitted.backtest(frame, start="2030-01-01")
    with pytest.raises(WindowError, match=r"24 rows \(lookback\) must stand before"):
        fitted.backtest(frame, start=frame.index[3])
    with pytest.raises(WindowError, match="Give more rows"):
        fitted.backtest(frame.iloc[:26])


def test_no_warning_reaches_a_user(frame: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TSM2Forecaster(**SMALL).fit(frame).predict()


def test_rows_that_leave_two_frequencies_are_told() -> None:
    week = pd.DatetimeIndex(["2024-01-08", "2024-01-09", "2024-01-10", "2024-01-11", "2024-01-12"])
    frame = pd.DataFrame({"y": [1.0, 3.0, 2.0, 4.0, 3.0]}, week)
    sizes: dict[str, Any] = {"lookback": 2, "horizon": 1, "blocks": 0, "validation_fraction": 0}
    with pytest.warns(FrequencyWarning, match=r"'D' apart, but 'B' .* frequency='D' or .*'B'"):
        TSM2Forecaster(**sizes).fit(frame)
    with pytest.warns(FrequencyWarning):  # of many series, by all of their stamps
        TSM2Forecaster(**sizes).fit({"one": frame, "two": frame.iloc[1:]})
    assert TSM2Forecaster(**sizes, frequency="B").fit(frame).predict().index[0].day == 15
    stated = frame.set_axis(pd.date_range("2024-01-08", periods=5), axis="index")
    assert TSM2Forecaster(**sizes).fit(stated).predict().index[0].day == 13
