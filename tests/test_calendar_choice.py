"""calendar="auto": features of the time stamps where they lower the validation error."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.errors import ParameterError
from tsm2.prepared.seasons import calendars

SMALL: dict[str, Any] = {"lookback": 12, "horizon": 6, "features": 4, "max_epochs": 1}
SMALL |= {"level": "mean", "separate_heads": False, "leaders": False, "random_state": 0}


def working_hours(rows: int = 24 * 28, *, columns: int = 2, weeks: bool = True) -> pd.DataFrame:
    """Return hours that are high on working days, of which a lookback of 12 hours knows nothing."""
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    draw = np.random.default_rng(0)
    works = (index.day_of_week < 5) & weeks
    values = 5 * works[:, None] + 0.3 * draw.normal(size=(rows, columns))
    return pd.DataFrame(values + np.arange(columns), index, [f"v{k}" for k in range(columns)])


def fitted(X: Any, **changes: Any) -> TSM2Forecaster:
    return TSM2Forecaster(**(SMALL | {"calendar": "auto"} | changes)).fit(X)


def of_choice(model: TSM2Forecaster) -> str:
    return str(model.choices_.loc[model.choices_["chosen"], "calendar"].item())


def test_what_lowers_the_error_is_read_and_the_choice_says_against_what() -> None:
    frame = working_hours()
    model, plain = fitted(frame.iloc[:-72]), fitted(frame.iloc[:-72], calendar=())
    assert "dayofweek" in of_choice(model)
    assert model.knowledge_.calendar == tuple(of_choice(model).split(", "))
    tried = model.choices_.set_index("calendar")["validation_mse"]
    assert set(tried.index) == {
        "",
        "hour",
        "dayofweek, weekend",
        "hour, dayofweek, weekend",
    }
    assert tried[of_choice(model)] < 0.9 * tried[""]
    happened = frame.iloc[-72:]
    start = happened.index[0]
    errors = [
        (table["forecast"] - table["actual"]).abs().mean()
        for table in (each.backtest(frame, start=start) for each in (model, plain))
    ]
    assert errors[0] < 0.8 * errors[1]


def test_what_says_nothing_is_not_read() -> None:
    model = fitted(working_hours(weeks=False))
    assert of_choice(model) == ""
    assert model.network_.config.n_future == 0
    assert len(model.choices_) == 4


def test_what_is_set_is_read_and_nothing_is_tried() -> None:
    model = fitted(working_hours(), calendar=("hour",))
    assert of_choice(model) == "hour"
    assert len(model.choices_) == 1
    with pytest.raises(ParameterError, match="calendar must be 'auto' or a sequence of names"):
        fitted(working_hours(), calendar="hour")


@pytest.mark.parametrize(
    "X",
    [
        working_hours().to_numpy(),
        working_hours().reset_index(drop=True),
        working_hours(48),
    ],
    ids=["array", "numbered", "two days"],
)
def test_without_stamps_or_cycles_there_is_nothing_to_try(X: Any) -> None:
    model = fitted(X)
    assert of_choice(model) == ""
    assert len(model.choices_) == 1


@pytest.mark.parametrize(
    ("frequency", "rows", "wanted"),
    [
        ("h", 48, {"hour"}),
        ("D", 13, set()),
        ("D", 14, {"dayofweek", "weekend"}),
        ("B", 40, {"dayofweek"}),
        ("W", 105, {"month"}),
        ("MS", 24, {"month"}),
        ("QS", 8, {"month"}),
        ("YS", 90, set()),
    ],
)
def test_a_feature_is_tried_if_its_cycle_comes_round_twice(
    frequency: str, rows: int, wanted: set[str]
) -> None:
    stamps = pd.date_range("2021-01-01", periods=rows, freq=frequency)
    tried = calendars(stamps)
    assert {name for names in tried for name in names} == wanted
    if frequency not in ("B", "W"):  # periods of these have other names
        assert calendars(stamps.to_period()) == tried


def series(kind: str, days: int = 21) -> Any:
    frame = working_hours(24 * days)
    if kind == "gaps":
        frame.iloc[50:53] = np.nan
    return {"x": frame, "y": 2 * frame.iloc[24:]} if kind == "dict" else frame


@pytest.mark.parametrize(
    ("container", "beside", "changes"),
    [
        ("wide", "past", {"quantiles": (0.1, 0.9)}),
        ("wide", "future", {"n_estimators": 2}),
        ("dict", "nothing", {}),
        ("dict", "past", {"scaling": "global"}),
        ("dict", "future", {"quantiles": (0.1, 0.9), "n_estimators": 2}),
        ("gaps", "nothing", {"missing": "ffill", "quantiles": (0.1, 0.9), "warm_start": True}),
        ("gaps", "future", {"missing": "ffill"}),
    ],
    ids=str,
)
def test_it_goes_with_everything_else(
    container: str, beside: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    """Saved, loaded, forecast with intervals, fitted again, and continued."""
    X = series(container)
    hours = working_hours(24 * 21 + 12).index
    other = pd.DataFrame({"c": np.arange(len(hours)) % 5.0}, hours)
    tables = {"x": other, "y": other} if container == "dict" else other
    given: dict[str, Any] = {} if beside == "nothing" else {f"{beside}_covariates": tables}
    model = TSM2Forecaster(**(SMALL | {"calendar": "auto"} | changes)).fit(X, **given)
    assert "dayofweek" in of_choice(model)
    forecast = model.predict()
    model.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    assert of_choice(loaded) == of_choice(model)
    one, two = (
        each if isinstance(each, dict) else {"": each} for each in (forecast, loaded.predict())
    )
    for name, table in one.items():
        assert np.isfinite(table.to_numpy()).all()
        pd.testing.assert_frame_equal(table, two[name])
    assert len(model.predict_interval(coverage=0.5)) == len(forecast)
    model.update(forecast, **given)
    later = model.predict()
    for name, table in one.items():
        assert (later[name] if name else later).index[0] > table.index[-1]
    if changes.get("warm_start"):
        assert of_choice(model.fit(X, **given)) == of_choice(loaded)


def test_masked_gaps_and_numbered_contexts_read_no_calendar() -> None:
    model = fitted(series("gaps"), missing="mask")
    assert of_choice(model) == ""
    assert model.predict(series("gaps").iloc[-5:]).shape == (6, 2)  # shorter than the lookback


@pytest.mark.parametrize("container", ["wide", "dict"])
def test_refits_of_a_backtest_read_what_the_first_rows_chose(container: str) -> None:
    X = series(container, days=28)
    start = working_hours().index[24 * 25]
    asked: dict[str, Any] = {"start": start, "stride": 24, "refit": 2, "coverage": 0.5}
    how = SMALL | {"blocks": 0}
    read, plain = (
        TSM2Forecaster(**how, calendar=calendar).backtest(X, **asked) for calendar in ("auto", ())
    )
    errors = [(table["forecast"] - table["actual"]).abs().mean() for table in (read, plain)]
    assert errors[0] < errors[1]
    assert np.isfinite(read[["lo-50", "hi-50"]].to_numpy()).all()


def test_onnx_reads_the_calendar_as_future_covariates(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnxruntime")
    model = fitted(working_hours(24 * 21))
    model.to_onnx(tmp_path / "model.onnx")
    names = {each.name for each in onnx.InferenceSession(tmp_path / "model.onnx").get_inputs()}
    assert names == {"context", "future"}
