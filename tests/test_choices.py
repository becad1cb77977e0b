"""What fit settles by itself: the start, the choices left to "auto", and the floor below it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tsm2 import TSM2Forecaster
from tsm2.errors import FloorWarning, ParameterError, WindowError


def months(rows: int = 120, *, noise: float = 0.1, columns: int = 2) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    time = np.arange(rows)[:, None]
    waves = 10 + np.sin(2 * np.pi * time / 12 + np.arange(columns)) + 0.01 * time
    values = waves + noise * draw.normal(size=waves.shape)
    index = pd.date_range("2015-01-01", periods=rows, freq="MS")
    return pd.DataFrame(values, index, [f"v{k}" for k in range(columns)])


def walk(rows: int = 300) -> pd.DataFrame:
    steps = np.random.default_rng(1).normal(size=(rows, 1))
    return pd.DataFrame({"a": steps.cumsum()}, pd.date_range("2024-01-01", periods=rows))


def fitted(X: Any, **settings: Any) -> TSM2Forecaster:
    given = {"horizon": 12, "features": 8, "max_epochs": 2, "random_state": 0} | settings
    return TSM2Forecaster(**given).fit(X)


def test_with_nothing_set_but_the_horizon_a_season_is_forecast() -> None:
    frame = months()
    model = fitted(frame.iloc[:-12])
    kept = model.choices_[model.choices_["chosen"]]
    assert kept["regressed"].item() == 24  # two seasons
    assert model.fitted_.lookback == 54  # as much of five seasons as half of the rows holds
    error = np.abs(model.predict().to_numpy() - frame.iloc[-12:].to_numpy()).mean()
    naive = np.abs(frame.iloc[-24:-12].to_numpy() - frame.iloc[-12:].to_numpy()).mean()
    assert error < naive
    assert model.floor_["network"] < model.floor_["seasonal naive"] < model.floor_["repeat last"]


def test_choices_say_what_was_tried_and_the_kept_one_has_no_clearly_higher_error() -> None:
    # Of few validation windows a blend is taken, and leaders would need a larger margin.
    choices = fitted(months(400), leaders=False).choices_
    chosen = choices[choices["chosen"]]
    assert len(chosen) == 1
    assert {"mean", "last"} == set(choices["level"])
    assert set(choices["separate_heads"]) == {False, True}
    assert chosen["validation_mse"].item() <= choices["validation_mse"].min() / 0.96


def test_few_forecasts_that_judge_ask_mixers_for_a_larger_gain() -> None:
    """The margin is meant for 30 forecasts one after another, of all series; here are 4 or 8."""
    frame = np.square(months(noise=0.02))
    plain = {"lookback": 12, "level": "mean", "separate_heads": False, "validation_fraction": 0.4}
    plain["scaled_errors"] = False
    for data, n_forecasts in ((frame, 4), ({"a": frame, "b": 2 * frame}, 8)):
        free = fitted(data, start_margin=0.0, max_epochs=5, **plain)
        losses = free.history_["validation_loss"]
        gain = 1 - losses[1:].min() / losses[0]
        assert gain > 0
        more = (30 / n_forecasts) ** 0.5
        for margin, kept in (
            (0.99 * gain, False),
            (1.01 * gain / more, False),
            (0.99 * gain / more, True),
        ):
            model = fitted(data, start_margin=margin, max_epochs=5, **plain)
            assert model.choices_["mixers"].dropna().tolist() == [kept]


def test_what_is_set_is_not_chosen() -> None:
    model = fitted(months(), lookback=18, level="last", separate_heads=True)
    assert len(model.choices_) == 1
    config = model.network_.config
    assert (config.lookback, config.level, config.separate_heads) == (18, "last", True)


def test_a_start_that_nothing_beats_is_kept_and_solved_again_on_all_rows() -> None:
    frame, plain = months(), {"lookback": 12, "level": "mean", "separate_heads": False}
    kept = fitted(frame, start_margin=0.9, refit_linear=False, **plain)
    linear = fitted(frame, blocks=0, refit_linear=False, **plain)
    pd.testing.assert_frame_equal(kept.predict(), linear.predict(), rtol=1e-4)
    again = fitted(frame, start_margin=0.9, **plain)
    assert not np.allclose(again.predict(), kept.predict(), rtol=1e-5)
    assert kept.history_["epoch"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"n_estimators": 2},
        {"quantiles": (0.1, 0.5, 0.9)},
        {"loss": "mae", "level": "last"},
        {"missing": "mask", "separate_heads": True},
    ],
    ids=str,
)
def test_mixers_that_are_kept_cost_no_refit(given: dict[str, Any]) -> None:
    """What all rows change of the linear forecast is added to what was learnt."""
    frame = months(noise=0.02) ** 2
    if "missing" in given:
        frame.iloc[20:60:7] = np.nan
    plain: dict[str, Any] = {"lookback": 12, "level": "mean", "separate_heads": False}
    plain |= {"validation_fraction": 0.4, "scaled_errors": False, "start_margin": 0.0}
    plain |= {"max_epochs": 5, "learning_rate": 1e-3} | given

    def change(**how: Any) -> NDArray[np.float64]:
        models = [fitted(frame, refit_linear=refit, **plain | how) for refit in (False, True)]
        assert all(model.choices_["mixers"].tolist() == ["blocks" not in how] for model in models)
        forecasts = [model.predict().to_numpy() for model in models]
        difference: NDArray[np.float64] = forecasts[1] - forecasts[0]
        return difference

    wanted = change(blocks=0)
    np.testing.assert_allclose(change(), wanted, rtol=0, atol=0.1 * np.abs(wanted).max())


def test_a_fit_that_cannot_start_exactly_starts_from_drawn_weights() -> None:
    assert fitted(months(), zero_start=False).history_["epoch"].tolist() == [1, 2]
    drawn = fitted(months(), averaging="mean")
    assert drawn.history_["epoch"].tolist() == [1, 2]
    alone = fitted(months(), averaging="mean", refit_linear=False)
    pd.testing.assert_frame_equal(drawn.predict(), alone.predict())


@pytest.mark.parametrize("columns", [1, 40])
def test_short_tables_get_a_lookback_that_fits(columns: int) -> None:
    frame = months(36, columns=columns)
    model = fitted(frame, horizon=8)
    assert model.choices_.loc[model.choices_["chosen"], "regressed"].item() <= 12
    assert 2 <= model.fitted_.lookback <= 18
    assert np.isfinite(model.predict()).all(axis=None)
    panel = {name: frame[["v0"]].iloc[:14] for name in "xyz"}
    assert len(fitted(panel, horizon=6).predict()) == 3
    with pytest.raises(WindowError, match=r"the table has 9 rows, but a forecast of horizon=8"):
        fitted(frame.iloc[:9], horizon=8)


def test_a_model_below_the_floor_says_so() -> None:
    frame = walk()
    poor: dict[str, Any] = {"lookback": 14, "blocks": 0, "linear_start": "random", "max_epochs": 1}
    with pytest.warns(FloorWarning, match=r"errs more than the forecast 'repeat last' \(mean sq"):
        model = fitted(frame, horizon=3, zero_head=False, **poor)
    assert model.floor_["network"] > model.floor_["repeat last"]
    assert fitted(frame, horizon=3, validation_fraction=0.0, lookback=14).floor_.empty


@pytest.mark.parametrize("features", [{}, {"quantiles": (0.1, 0.9)}, {"n_estimators": 2}])
def test_choices_and_floor_are_saved(features: dict[str, Any], tmp_path: Path) -> None:
    model = fitted(months(), **features)
    model.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(), model.predict())
    assert loaded.fitted_.lookback == model.fitted_.lookback
    pd.testing.assert_series_equal(loaded.floor_, model.floor_)
    assert loaded.choices_["chosen"].all()
    kept = model.choices_[model.choices_["chosen"]]
    for name in ("lookback", "level", "separate_heads", "regressed", "cycle", "averaged", "mixers"):
        assert str(loaded.choices_[name].item()) == str(kept[name].item()).replace("<NA>", "None")


@pytest.mark.parametrize("container", ["wide", "dict"])
def test_refits_choose_by_the_rows_before_the_first_forecast(container: str) -> None:
    frame = months()
    X = frame if container == "wide" else {"x": frame, "y": frame.iloc[6:] * 2}
    start = frame.index[96]
    changed = frame.copy()
    changed.iloc[96:] = 0.0  # what comes later chooses nothing
    Y = changed if container == "wide" else {"x": changed, "y": changed.iloc[6:] * 2}
    model = TSM2Forecaster(horizon=6, max_epochs=1, random_state=0, features=8)
    one, two = (model.backtest(each, start=start, refit=100, stride=24) for each in (X, Y))
    first = one["cutoff"] == one["cutoff"].min()
    np.testing.assert_array_equal(one["forecast"][first], two["forecast"][first])


def test_a_warm_start_keeps_what_was_chosen_but_not_against_what_is_set() -> None:
    model = fitted(months(), warm_start=True)
    lookback = model.fitted_.lookback
    model.fit(months().iloc[:110])
    assert model.fitted_.lookback == lookback == 60
    with pytest.raises(ParameterError, match=r"head\.weight was"):
        model.set_params(lookback=36).fit(months())
