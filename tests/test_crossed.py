"""Features crossed: whatever the container, gaps, covariates and head, the verbs agree.

A forecaster is fitted to the first part of some series. Then `update` with the rest and `predict`
of the whole, `backtest` and `predict` of the rows before a cutoff, `backtest` and `score`, a refit
and a fit of one's own, a loaded model and the saved one must say the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.backtesting import error_table

LOOKBACK, HORIZON, KNOWN, ROWS = 12, 3, 70, 84
SERIES = {"x": 0, "y": 9, "z": 4}  # the row at which each begins
CONTAINERS = ("wide", "long")  # of one table and of several, with all that there is
OTHERS = ("array", "levels", "dict", "list")  # read into the same: each feature once
FOREIGN = {
    "time column": ("covariates",),
    "polars": ("quantiles", "calendar and target", "covariates"),
    "arrow long": ("quantiles", "covariates"),
    "polars dict": ("covariates",),
}
MISSING = ("raise", "mask", "ffill")
FEATURES = ("plain", "quantiles", "ensemble", "covariates", "calendar and target", "chosen")


STOPPING = ("quantiles", "covariates", "chosen")
"""Features with which the second variate is never below zero, and often there."""
MIXERS = ("quantiles", "ensemble", "covariates")
"""Features with which mixers are kept whatever they gain; else mostly the start is."""


def stamps(rows: int = ROWS + 2 * HORIZON) -> pd.DatetimeIndex:
    return pd.date_range("2024-03-28", periods=rows, freq="h", tz="Europe/Berlin", name="ds")


def table(number: int, *, gaps: bool, rows: bool) -> pd.DataFrame:
    """Return two variates, where asked for with gaps before, at and behind the end of the fit."""
    draw = np.random.default_rng(number)
    time = np.arange(ROWS)[:, None]
    values = (number + 1) * np.sin(time / 2 + [0.0, 1.0]) + 0.2 * draw.normal(size=(ROWS, 2))
    frame = pd.DataFrame(values, index=stamps()[:ROWS], columns=["a", "b"])
    if gaps:
        frame.iloc[[30, 31, 68, 69, 70, 77], 0] = np.nan
        frame.iloc[[69, 78], 1] = np.nan
    if gaps and rows:
        frame = frame.drop(frame.index[[40, 71]])  # the second follows the last row of the fit
    return frame


@dataclass(frozen=True)
class Case:
    """One container with one way about gaps and one feature."""

    container: str
    missing: Any
    features: str

    def frames(self) -> dict[str, pd.DataFrame]:
        gaps = self.missing != "raise"
        has_stamps = self.container not in ("array", "list")
        names = {"x": 0} if self.container in ("wide", "array", "polars", "time column") else SERIES
        tables = {
            name: table(number, gaps=gaps, rows=has_stamps).iloc[first:]
            for number, (name, first) in enumerate(names.items())
        }
        if self.features in STOPPING:
            return {name: each.assign(b=each["b"].clip(lower=0)) for name, each in tables.items()}
        return tables

    def between(self, first: int, stop: int) -> Any:
        """Return the rows from stamp `first` up to but without `stop`, in the container."""
        ends = stamps()[first], stamps()[stop] - pd.Timedelta("1h")
        return self.contained({k: each.loc[ends[0] : ends[1]] for k, each in self.frames().items()})

    def contained(self, frames: dict[str, pd.DataFrame]) -> Any:
        if self.container in FOREIGN:
            return self.foreign(frames)
        if self.container == "wide":
            return frames["x"]
        if self.container == "array":
            return frames["x"].to_numpy()
        if self.container == "list":
            return list(frames.values())
        if self.container == "dict":
            return frames
        pieces = [each.reset_index().assign(unique_id=name) for name, each in frames.items()]
        long = pd.concat(pieces, ignore_index=True)[["unique_id", "ds", "a", "b"]]
        return long if self.container == "long" else long.set_index(["unique_id", "ds"])

    def foreign(self, frames: dict[str, pd.DataFrame]) -> Any:
        """Return tables without an index, of other libraries."""
        tables = {name: each.reset_index() for name, each in frames.items()}
        if self.container == "time column":
            return tables["x"]
        pa, pl = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
        if self.container == "arrow long":
            long = pd.concat([each.assign(unique_id=name) for name, each in tables.items()])
            return pa.Table.from_pandas(long, preserve_index=False)
        opened = {name: pl.from_pandas(each) for name, each in tables.items()}
        return opened["x"] if self.container == "polars" else opened

    def forecaster(self) -> TSM2Forecaster:
        if self.features == "calendar and target":  # Easter lies behind the end of the fit
            pytest.importorskip("holidays")
        model = TSM2Forecaster(
            LOOKBACK,
            HORIZON,
            features=4,
            patch_length=4,
            max_epochs=1,
            mixer_learning_rate=1e-2,
            learning_rate=1e-2,
            missing=self.missing,
            target_col=["a", "b"],
            frequency=None if self.container == "array" else "h",
            random_state=0,
        )
        changes: dict[str, dict[str, Any]] = {
            "quantiles": {"quantiles": (0.2, 0.8), "scaled_errors": True},
            "ensemble": {"n_estimators": 2, "scaled_errors": True},
            # Few validation rows: the exact start is then averaged with simple forecasts.
            "chosen": {"lookback": "auto", "validation_fraction": 0.05},
            "calendar and target": {
                "calendar": ("hour",),
                "holidays": ("DE-BY",),
                "target": "b",
                "scaled_errors": True,
            },
        }
        chosen: TSM2Forecaster = model.set_params(**changes.get(self.features, {}))
        return chosen

    @property
    def covariates(self) -> dict[str, Any]:
        """One table holds for all series, longer than any of them."""
        if self.features != "covariates":
            return {}
        index = stamps()
        wind = pd.DataFrame({"wind": np.cos(np.arange(len(index)) / 3)}, index=index)
        kind = np.where(index.hour < 8, "night", "day")
        future = pd.DataFrame({"kind": kind}, index)
        if self.container in FOREIGN:
            wind, future = wind.reset_index(), future.reset_index()
        if self.container in FOREIGN and self.container != "time column":
            wind, future = (pytest.importorskip("polars").from_pandas(f) for f in (wind, future))
        return {"past_covariates": wind, "future_covariates": future}


def usable(case: Case) -> bool:
    return case.container != "array" or case.features not in ("covariates", "calendar and target")


WHOLE = [Case(*each) for each in product(CONTAINERS, MISSING, FEATURES)]
ONCE = [
    Case(container, MISSING[(number + place) % 3], features)
    for number, container in enumerate(OTHERS)
    for place, features in enumerate(FEATURES)
]
CASES = [case for case in WHOLE + ONCE if usable(case)] + [
    Case(container, "mask", each) for container, features in FOREIGN.items() for each in features
]


@pytest.fixture(
    scope="module", params=CASES, ids=lambda c: f"{c.container}-{c.missing}-{c.features}"
)
def fitted(request: pytest.FixtureRequest) -> Iterator[tuple[Case, TSM2Forecaster]]:
    case: Case = request.param
    with pytest.MonkeyPatch.context() as patch:  # for fits within the tests too
        if case.features in MIXERS:
            patch.setattr("tsm2.fitting.sure_margin", lambda *_: -1e6)
        model = case.forecaster().fit(case.between(0, KNOWN), **case.covariates)
        if case.features in MIXERS:
            assert model.choices_["mixers"].dropna().tolist() == [True]
            bounds = dict(model.fitted_.network.named_buffers())  # on what mixers, leaders add
            on_mixers = [name for name in bounds if name.endswith("bound.largest")]
            assert len(on_mixers) == model.n_estimators
            assert all(bool(bound.isfinite().all()) for bound in bounds.values())
        yield case, model


def numbers(forecast: Any) -> np.ndarray[Any, Any]:
    """Return the numbers of a forecast in any container, one series after another."""
    if isinstance(forecast, list | dict):
        each = forecast.values() if isinstance(forecast, dict) else forecast
        return np.concatenate([numbers(one) for one in each])
    if hasattr(forecast, "column_names"):  # an Arrow table
        forecast = forecast.to_pandas()
    if type(forecast).__module__.startswith("polars"):
        forecast = forecast.to_pandas()
    if isinstance(forecast, pd.DataFrame):
        return forecast.select_dtypes("number").to_numpy(np.float64)
    return np.asarray(forecast, dtype=np.float64)


def columns(table: Any, *names: str) -> Any:
    """Return some columns of a backtest."""
    return table.select(names) if hasattr(table, "column_names") else table[list(names)]


def agree(one: Any, other: Any) -> None:
    np.testing.assert_allclose(numbers(one), numbers(other), rtol=1e-4, atol=1e-5)


def again(model: TSM2Forecaster, change: Callable[[TSM2Forecaster], Any], folder: Path) -> Any:
    """Change a copy of a model."""
    model.save(folder / "copy")
    copy = TSM2Forecaster.load(folder / "copy")
    change(copy)
    return copy


def test_a_chosen_start_alone_is_averaged_with_simple_forecasts(
    fitted: tuple[Case, TSM2Forecaster],
) -> None:
    case, model = fitted
    (taken,) = model.choices_[model.choices_["chosen"]].to_dict("records")
    assert pd.notna(taken["regressed"]) is (case.features == "chosen")
    if case.features == "chosen":
        assert taken["regressed"] <= taken["lookback"] == model.fitted_.lookback


def test_a_variate_that_stops_at_zero_has_no_forecast_below_it(
    fitted: tuple[Case, TSM2Forecaster],
) -> None:
    case, model = fitted
    stops = model.fitted_.nonnegative
    if case.features not in STOPPING:
        assert stops is None
        return
    assert stops is not None
    assert stops.tolist() == [False, True]
    ends = numbers(model.predict_interval(coverage=0.5)).reshape(-1, 4)
    assert ends[:, 2:].min() >= 0 > ends[:, :2].min()


def test_an_update_and_a_longer_history_say_the_same(
    fitted: tuple[Case, TSM2Forecaster], tmp_path: Path
) -> None:
    case, model = fitted
    if case.container == "list":
        pytest.skip("the series of a list have no names that new rows could go on from")
    new, given = case.between(KNOWN, ROWS), case.covariates
    updated = again(model, lambda copy: copy.update(new, **given), tmp_path)
    agree(updated.predict(), model.predict(case.between(0, ROWS), **given))


def test_a_saved_model_forecasts_as_before(
    fitted: tuple[Case, TSM2Forecaster], tmp_path: Path
) -> None:
    case, model = fitted
    copy = again(model, lambda copy: copy, tmp_path)
    np.testing.assert_array_equal(numbers(copy.predict()), numbers(model.predict()))
    agree(copy.predict_interval(coverage=0.5), model.predict_interval(coverage=0.5))
    if case.container != "list":  # whose series have no names, and are measured anew
        agree(model.predict(case.between(0, KNOWN), **case.covariates), model.predict())


def test_a_backtest_and_forecasts_of_the_rows_before_say_the_same(
    fitted: tuple[Case, TSM2Forecaster],
) -> None:
    case, model = fitted
    given, start = case.covariates, KNOWN + 5
    label = start if case.container == "array" else stamps()[start]
    whole, history = case.between(0, ROWS), case.between(0, start)
    table = model.backtest(whole, start=label, stride=ROWS, coverage=0.5, **given)
    agree(
        numbers(columns(table, "forecast")).ravel(),
        numbers(model.predict(history, **given)).ravel(),
    )
    bounds = numbers(model.predict_interval(history, coverage=0.5, **given))
    agree(numbers(columns(table, "lo-50", "hi-50")).ravel(), bounds.ravel())


def test_a_score_is_the_error_of_the_backtest(fitted: tuple[Case, TSM2Forecaster]) -> None:
    case, model = fitted
    later = case.between(35, ROWS)
    table = model.backtest(later, **case.covariates)
    errors = error_table(table, by=None, scale=model.error_scale(later))
    score = model.score(later, **case.covariates)
    np.testing.assert_allclose(score, -np.asarray(errors["MSE"])[0], rtol=1e-5)


def test_a_refit_is_a_fit_to_the_rows_before(fitted: tuple[Case, TSM2Forecaster]) -> None:
    case, model = fitted
    if case.container == "list":
        pytest.skip("the series of a list have no names, so a backtest measures them anew")
    label = KNOWN if case.container == "array" else stamps()[KNOWN]
    whole, given = case.between(0, ROWS), case.covariates
    refitted = case.forecaster().backtest(whole, start=label, refit=100, coverage=0.5, **given)
    own = model.backtest(whole, start=label, coverage=0.5, **given)
    for column in ("forecast", "lo-50", "hi-50", "actual"):
        agree(columns(refitted, column), columns(own, column))
    np.testing.assert_array_equal(np.asarray(refitted["cutoff"]), np.asarray(own["cutoff"]))


@pytest.mark.parametrize("container", ["wide", "dict", "long"])
def test_a_refit_may_start_in_a_gap(container: str) -> None:
    """The lookback of the second fit's first window starts in a gap that was filled before."""
    case = Case(container, "ffill", "plain")
    start = stamps()[68 + LOOKBACK]  # row 68 lacks a value
    table = case.forecaster().backtest(case.between(0, ROWS), start=start, refit=1)
    assert np.isfinite(table["forecast"]).all()
    assert table["actual"].isna().sum() == 0
