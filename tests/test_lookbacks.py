"""Several lookbacks: which are tried, which is read, and what the start is the mean over."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.base import clone

from tsm2 import TSM2Forecaster
from tsm2.errors import ParameterError, WindowError

HORIZON = 6
PLAIN: dict[str, Any] = {"horizon": HORIZON, "blocks": 0, "random_state": 0}


def echoes(count: int = 1000, *, back: int = 40, share: float = 0.8, seed: int = 0) -> pd.DataFrame:
    """Noise, of which so many rows later a share comes back."""
    values = np.random.default_rng(seed).normal(0, 1, count)
    for row in range(back, count):
        values[row] += share * values[row - back]
    return pd.DataFrame({"a": values}, pd.date_range("2024-01-01", periods=count, freq="h"))


def tried(model: TSM2Forecaster) -> list[int]:
    return model.choices_["lookback"].drop_duplicates().tolist()


def kept(model: TSM2Forecaster) -> pd.Series:
    return model.choices_[model.choices_["chosen"]].iloc[0]


@pytest.mark.parametrize("kind", [tuple, list])
def test_of_several_the_one_that_errs_clearly_less_is_read(kind: Any) -> None:
    given = kind((24, 48))
    model = TSM2Forecaster(given, **PLAIN)
    assert clone(model).get_params()["lookback"] == given
    assert tried(model.fit(echoes())) == [24, 48]
    assert model.fitted_.lookback == 48
    alone = TSM2Forecaster(48, **PLAIN).fit(echoes())
    np.testing.assert_array_equal(model.predict(), alone.predict())


def test_the_first_stays_where_no_other_is_clearly_better() -> None:
    model = TSM2Forecaster((24, 48), **PLAIN).fit(echoes(back=20))
    assert tried(model) == [24, 48]
    assert model.fitted_.lookback == 24


@pytest.mark.parametrize(
    ("rows", "lookbacks", "of"),
    [
        (1000, (24, 48, 49), [24, 48]),  # 195 validation windows
        (120, (12, 24), [12]),  # 19, which tell nothing of forecasts of 6 rows
        (1000, (24, 48, 24), [24, 48]),
        (1000, (48, 24), [48, 24]),
    ],
)
def test_a_lookback_that_too_few_windows_judge_is_not_tried(
    rows: int, lookbacks: tuple[int, ...], of: list[int]
) -> None:
    assert tried(TSM2Forecaster(lookbacks, **PLAIN).fit(echoes(rows))) == of


def test_of_many_series_all_windows_judge_and_the_shortest_is_to_have_one() -> None:
    panel = {"x": echoes(600), "y": echoes(600, seed=1), "z": echoes(120, seed=2)}
    assert tried(TSM2Forecaster((24, 48, 96), **PLAIN).fit(panel)) == [24, 48]
    short = panel | {"z": echoes(48, seed=2)}
    assert tried(TSM2Forecaster((24, 48), **PLAIN).fit(short)) == [24]


def test_the_first_is_to_fit_the_rows() -> None:
    with pytest.raises(WindowError, match="lookback=100"):
        TSM2Forecaster((100, 24), **PLAIN).fit(echoes(90))


@pytest.mark.parametrize("lookback", [(), [24, 0], [24, 4.5], ["day", 24], "day", 0, 4.5, None])
def test_what_is_no_lookback_is_refused(lookback: Any) -> None:
    with pytest.raises(ParameterError, match="lookback"):
        TSM2Forecaster(lookback, **PLAIN).fit(echoes(90))


def test_patches_are_to_fit_all_of_them() -> None:
    with pytest.raises(ParameterError, match=r"patch_length=32 is longer than lookback=24"):
        TSM2Forecaster((48, 24), patch_length=32, **PLAIN).fit(echoes())


def test_a_mean_over_lookbacks_needs_many_windows_and_maps_that_err_alike() -> None:
    """Of 1,024 windows or more; of lookbacks that err clearly more none is in it."""
    frame = echoes(5600, back=8, share=0.5)
    model = TSM2Forecaster((12, 24, 48), **PLAIN).fit(frame)
    means = model.choices_[model.choices_["averaged"]]
    assert means["lookbacks"].tolist() == [(), (12, 48), kept(model)["lookbacks"]]

    late = echoes(5600, back=20, share=0.8)
    model = TSM2Forecaster((12, 24, 48), **PLAIN).fit(late)
    means = model.choices_[model.choices_["averaged"]]
    assert means["lookbacks"].tolist()[1] == (24, 48)

    long = TSM2Forecaster((300, 24), **PLAIN).fit(frame)  # 1,115 windows, and 1,200 are needed
    assert not any(long.choices_["lookbacks"])

    hourly = TSM2Forecaster(**PLAIN).fit(frame)  # 336 rows too, which need 1,344
    assert set(hourly.choices_["lookbacks"]) == {(), (48, 192)}

    few = TSM2Forecaster((12, 24, 48), **PLAIN).fit(frame.iloc[:4000])
    means = few.choices_[few.choices_["averaged"]]
    assert means["lookbacks"].tolist() == [()]


def test_a_mean_over_lookbacks_is_taken_where_it_errs_less() -> None:
    taken = []
    for lookbacks, frame in (
        ((12, 24), echoes(5600, back=8, share=0.5)),
        ((16, 32), echoes(5600, back=1, share=0.94, seed=3)),
    ):
        model = TSM2Forecaster(lookbacks, **PLAIN | {"horizon": 12}).fit(frame)
        alone, mean = model.choices_[model.choices_["averaged"]].iloc[:2].to_dict("records")
        assert mean["lookbacks"] == lookbacks
        taken.append(mean["validation_mse"] < alone["validation_mse"])
        assert kept(model)["lookbacks"] == (lookbacks if taken[-1] else ())
    assert taken == [True, False]


@pytest.mark.parametrize(
    "given",
    [
        {"logarithms": True},
        {"scaling": "global"},
        {"scaled_errors": True, "separate_heads": True},
        {"scaled_errors": True, "missing": "mask", "n_estimators": 2, "blocks": 1},
    ],
    ids=str,
)
def test_a_mean_over_lookbacks_is_kept_whatever_errors_count_in(
    given: dict[str, Any], tmp_path: Path
) -> None:
    """It errs as its choice did, saved and read too; the lookbacks may be numpy's integers."""
    frame = echoes(5600, back=8, share=0.5).div(9).apply(np.exp)
    if "missing" in given:
        frame.iloc[30:600:41] = np.nan
    panel = {"x": frame, "y": 1e3 * frame.iloc[2000:].iloc[::-1].set_axis(frame.index[2000:])}
    lookbacks = [np.int64(12), np.int64(24)]
    how: dict[str, Any] = PLAIN | {"lookback": lookbacks, "max_epochs": 1, "epoch_steps": 5} | given
    model = TSM2Forecaster(**how).fit(panel)
    assert kept(model)["lookbacks"] == (12, 24)
    assert model.floor_["linear"] == pytest.approx(kept(model)["validation_mse"], rel=1e-5)
    model.save(tmp_path / "model")
    read = TSM2Forecaster.load(tmp_path / "model")
    assert read.lookback == [12, 24]
    for name, forecast in model.predict().items():
        pd.testing.assert_frame_equal(read.predict()[name], forecast)


def test_of_several_very_long_ones_early_rows_are_read_in_means(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of the first lookback one by one, those before in means of eight; of one alone all."""
    monkeypatch.setattr("tsm2.training.ridge._FINE", 4)
    frame = echoes(1000, back=16)

    def moved(lookback: Any) -> NDArray[np.float64]:
        """How far a row more of each place moves the forecast, (L, H)."""
        model = TSM2Forecaster(lookback, **PLAIN).fit(frame)
        assert model.fitted_.lookback == 48
        assert model.floor_["linear"] == pytest.approx(kept(model)["validation_mse"], rel=1e-5)
        rows = np.concatenate((np.zeros((1, 48)), np.eye(48)))[..., None]
        forecasts = model.forecast_contexts(rows, HORIZON)[..., 0]
        difference: NDArray[np.float64] = forecasts[1:] - forecasts[0]
        return difference

    several, alone = moved((12, 48)), moved(48)
    blocks = [range(4), *(range(k, k + 8) for k in range(4, 36, 8))]
    for block in blocks:
        np.testing.assert_allclose(several[block], several[[block[0]] * len(block)], atol=1e-5)
        assert np.ptp(alone[block], axis=0).max() > 0.01
    assert np.abs(np.diff(several[36:], axis=0)).max(1).min() > 0.005


@pytest.mark.parametrize(
    "given",
    [
        {"separate_heads": True},
        {"missing": "mask", "separate_heads": False},
        {"missing": "mask", "quantiles": (0.1, 0.5, 0.9), "n_estimators": 2, "blocks": 1},
    ],
    ids=lambda given: ", ".join(given),
)
def test_means_of_early_rows_are_kept_in_every_use(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The start is what was chosen, by the rows that it reads; refits, files, updates keep it."""
    monkeypatch.setattr("tsm2.training.ridge._FINE", 4)
    frame, other = echoes(600, back=16), echoes(500, back=16, seed=1)
    if "missing" in given:
        frame.iloc[30:400:41] = np.nan
    panel = {"x": frame, "y": other}
    how: dict[str, Any] = PLAIN | {"lookback": (12, 48), "max_epochs": 1, "epoch_steps": 5} | given
    model = TSM2Forecaster(**how).fit(panel)
    assert kept(model)["lookback"] == 48
    floor = model.floor_.get("linear")
    if "quantiles" not in given:
        assert floor == pytest.approx(kept(model)["validation_mse"], rel=1e-5)
    forecast = pd.concat(model.predict())
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(
        pd.concat(TSM2Forecaster.load(tmp_path / "model").predict()), forecast
    )

    begins: Any = {"start": frame.index[-HORIZON], "refit": True}
    table = TSM2Forecaster(**how).backtest({"x": frame, "y": other.iloc[:400]}, **begins)
    ends = {"x": frame.iloc[:-HORIZON], "y": other.iloc[:400]}
    wanted = TSM2Forecaster(**how).fit(ends).predict()["x"]
    own = table[table["series"] == "x"]["forecast"].dropna()
    point = wanted["a"] if "a" in wanted else wanted.iloc[:, wanted.shape[1] // 2]
    np.testing.assert_allclose(own.to_numpy()[: len(point)], point, rtol=1e-4)

    later = model.update({"x": echoes(606, back=16)[600:]}, epochs=0).predict()["x"]
    frame = pd.concat((frame, echoes(606, back=16)[600:]))
    pd.testing.assert_frame_equal(
        later, model.predict({"x": frame})["x"], rtol=1e-4, check_freq=False
    )

    monkeypatch.setattr("tsm2.training.ridge._FINE", 48)
    single = pd.concat(TSM2Forecaster(**how).fit(panel).predict())
    assert np.abs(single.to_numpy() - forecast.to_numpy()).max() > 1e-3


@pytest.mark.parametrize("blocks", [0, 1])
def test_with_covariates_one_of_several_is_read_as_if_it_were_set(
    blocks: int, tmp_path: Path
) -> None:
    """Of targets alone, before any covariate is read, says which; all verbs read as many rows."""
    frame = echoes(1000)
    index = pd.date_range(frame.index[0], periods=1000 + HORIZON, freq="h")
    draw = np.random.default_rng(3)
    wind = pd.DataFrame({"wind": draw.normal(0, 1, 1000)}, frame.index)
    frame["a"] += wind["wind"].shift(1, fill_value=0.0)
    known: dict[str, Any] = {
        "past_covariates": wind,
        "future_covariates": pd.DataFrame({"hour": index.hour}, index),
    }
    how: dict[str, Any] = PLAIN | {"blocks": blocks, "max_epochs": 1, "start_margin": 0.0}
    several = TSM2Forecaster((24, 48), **how).fit(frame, **known)
    assert tried(several) == [24, 48]
    assert several.fitted_.lookback == 48
    alone = TSM2Forecaster(48, level="mean", separate_heads=False, **how).fit(frame, **known)
    wanted = alone.predict(**known)
    pd.testing.assert_frame_equal(several.predict(**known), wanted)
    several.save(tmp_path / "model")
    read = TSM2Forecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(read.predict(**known), wanted)
    table = several.backtest(frame, start=frame.index[-60], stride=HORIZON, **known)
    other = alone.backtest(frame, start=frame.index[-60], stride=HORIZON, **known)
    pd.testing.assert_frame_equal(table, other)


def test_warm_starts_keep_what_was_chosen_while_it_is_asked_for() -> None:
    model = TSM2Forecaster((24, 48), warm_start=True, **PLAIN).fit(echoes())
    assert model.fit(echoes(900)).fitted_.lookback == 48
    assert model.set_params(lookback=48).fit(echoes(900)).fitted_.lookback == 48
    with pytest.raises(ParameterError, match=r"head\.weight was"):
        model.set_params(lookback=(24, 36)).fit(echoes(900))


def test_a_refit_chooses_by_the_rows_before_its_first_forecast() -> None:
    frame = echoes()
    begins: Any = {"start": frame.index[-60], "stride": 60, "refit": True}
    table = TSM2Forecaster((24, 48), **PLAIN).backtest(frame, **begins)
    wanted = TSM2Forecaster((24, 48), **PLAIN).fit(frame.iloc[:-60]).predict()
    np.testing.assert_allclose(table["forecast"], wanted["a"], rtol=1e-5)
