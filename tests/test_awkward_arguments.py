"""Labels that are tuples, parameters that are arrays, columns without held-out rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.backtesting import error_table
from tsm2.errors import CalibrationWarning, ParameterError

SMALL: dict[str, Any] = {"lookback": 8, "horizon": 3, "max_epochs": 1, "features": 4}


def table() -> pd.DataFrame:
    t = np.arange(60.0)
    index = pd.date_range("2024-01-01", periods=60)
    return pd.DataFrame({"a": np.sin(t), "b": np.cos(t)}, index)


def fitted(frame: pd.DataFrame, **changes: Any) -> TSM2Forecaster:
    return TSM2Forecaster(**(SMALL | {"random_state": 0} | changes)).fit(frame)


# --- labels ---------------------------------------------------------------------------------------


def test_tuples_are_labels_like_any_other(tmp_path: Path) -> None:
    plain = table()
    labels = [("x", 1), ("y", 2)]
    tuples = plain.set_axis(pd.Index(labels, tupleize_cols=False), axis="columns")
    one, two = (fitted(each, linear_start="random") for each in (plain, tuples))
    wanted, got = one.backtest(plain, coverage=0.5), two.backtest(tuples, coverage=0.5)
    assert got["variate"].tolist() == [labels["ab".index(name)] for name in wanted["variate"]]
    same = [name for name in wanted if name != "variate"]
    pd.testing.assert_frame_equal(got[same], wanted[same])
    np.testing.assert_array_equal(error_table(got), error_table(wanted))
    scale = two.error_scale(tuples)
    np.testing.assert_array_equal(
        error_table(got, scale=scale), error_table(wanted, scale=one.error_scale(plain))
    )
    influence: Any = two.inspect(tuples, past_covariates=None).influence
    assert influence.index.tolist() == influence.columns.tolist() == labels
    np.testing.assert_array_equal(influence, one.inspect(plain).influence)
    assert set(two.inspect(tuples).steps["variate"]) == set(labels)
    two.save(tmp_path / "model")
    assert TSM2Forecaster.load(tmp_path / "model").backtest(tuples).shape == (got.shape[0], 6)


def test_tuples_among_several_series_and_with_covariates() -> None:
    tuples = table().set_axis(pd.Index([("x", 1), ("y", 2)], tupleize_cols=False), axis="columns")
    tables = {("north", 1): tuples, ("south", 2): tuples + 1}
    model = TSM2Forecaster(**SMALL, random_state=0, target=[("y", 2)])
    model.fit(tables, past_covariates={k: v.iloc[:, :1] ** 2 for k, v in tables.items()})
    backtest = model.backtest(
        tables, past_covariates={k: v.iloc[:, :1] ** 2 for k, v in tables.items()}
    )
    assert set(backtest["variate"]) == {("y", 2)}
    assert set(backtest["series"]) == set(tables)
    selection: Any = model.inspect()
    assert selection.influence.columns.tolist() == [("y", 2), ("x", 1), ("x", 1)]


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("target", table().columns[:2], ["a", "b"]),
        ("target", table().columns[1:], ["b"]),
        ("target", np.array(["b", "a"]), ["b", "a"]),
        ("target", pd.Series(["b"]), ["b"]),
        ("quantiles", np.array([0.1, 0.9]), [0.1, 0.9]),
        ("calendar", np.array(["dayofweek"]), ["dayofweek"]),
        ("calendar", pd.Index(["dayofweek"]), ["dayofweek"]),
        ("target_col", pd.Index(["y"]), ["y"]),
        ("lookback", np.int64(8), 8),
        ("random_state", np.random.RandomState(0), None),
    ],
    ids=str,
)
def test_parameters_may_be_arrays(name: str, given: Any, kept: Any, tmp_path: Path) -> None:
    model = fitted(table(), **{name: given})
    assert model.get_params()[name] is given
    model.save(tmp_path)
    loaded = TSM2Forecaster.load(tmp_path)
    assert loaded.get_params()[name] == kept
    pd.testing.assert_frame_equal(loaded.predict(), model.predict())
    if name != "random_state":
        plain = fitted(table(), **{name: kept})
        pd.testing.assert_frame_equal(plain.predict(), model.predict())


@pytest.mark.parametrize("path", [None, 5, "", b"model", ["model"]])
def test_what_is_no_path_is_refused_by_name(path: Any) -> None:
    model = fitted(table())
    for call in (model.save, model.to_onnx, TSM2Forecaster.load):
        with pytest.raises(ParameterError, match=r"^path must be the path of a file or folder"):
            call(path)
    if path is not None:
        with pytest.raises(ParameterError, match=r"^checkpoint must be the path"):
            model.fit(table(), checkpoint=path)
        with pytest.raises(ParameterError, match=r"^log_dir must be the path"):
            model.fit(table(), log_dir=path)


# --- held-out rows --------------------------------------------------------------------------------


@pytest.mark.parametrize("quantiles", [None, (0.1, 0.9)])
def test_a_column_that_ends_early_keeps_the_intervals_of_the_others(
    quantiles: Any, tmp_path: Path
) -> None:
    frame = table()
    frame.loc["2024-02-10":, "b"] = np.nan
    model = fitted(frame, missing="mask", quantiles=quantiles, linear_start="random")
    model.save(tmp_path)
    assert np.isfinite(model.predict()).all(axis=None)
    for each in (model, TSM2Forecaster.load(tmp_path)):
        with pytest.warns(CalibrationWarning, match=r"column 'b' is not known on the held-out"):
            interval = each.predict_interval(coverage=0.5)
        assert np.isfinite(interval["a"]).all(axis=None)
        assert np.isnan(interval["b"]).all(axis=None)
        with pytest.warns(CalibrationWarning, match="'b'"):
            paths = each.sample(n_samples=4, horizon=7, random_state=0)
        assert np.isfinite(paths["a"]).all(axis=None)
        assert np.isnan(paths["b"]).all(axis=None)
    model.calibrate(table())
    assert np.isfinite(model.predict_interval(coverage=0.5)).all(axis=None)


def test_held_out_rows_without_any_value_calibrate_nothing() -> None:
    frame = table()
    frame.loc["2024-02-10":] = np.nan
    model = fitted(frame, missing="mask", linear_start="random")
    assert model.calibration_ is None
    with pytest.raises(ParameterError, match="nothing is known in any of the held-out windows"):
        model.calibrate(frame, start="2024-02-20")
