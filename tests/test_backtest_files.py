"""A backtest that is written while it is made says what one in memory says, to the bit."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config

from tsm2 import TSM2Forecaster, backtesting
from tsm2.backtest_files import in_blocks, write_backtest
from tsm2.backtesting import BacktestFile, error_table
from tsm2.errors import DependencyError, OutputError, ParameterError, TSM2Error
from tsm2.plotting import plot_errors
from tsm2.tables.containers import Form


def table(rows: int = 330, **how: Any) -> pd.DataFrame:
    index = pd.date_range("2024-03-30", periods=rows, freq="h", **how)
    values = np.random.default_rng(0).normal(size=(rows, 2)).cumsum(axis=0)
    return pd.DataFrame(values, index, ["=a", "b"])


def shops() -> pd.DataFrame:
    frame = table(400)
    parts = [
        pd.DataFrame({"unique_id": name, "ds": part.index, "y": part["b"]})
        for name, part in (("@north", frame[:330]), ("south", frame[20:]), ("new", frame[300:]))
    ]
    return pd.concat(parts, ignore_index=True)


TABLES: dict[str, Any] = {
    "datetime": table(),
    "zone": table(tz="Europe/Paris"),
    "period": table().to_period("h"),
    "dates": table().set_axis(pd.date_range("2024-01-01", periods=330, unit="s")),
    "array": table().to_numpy(),
    "numbers": table().set_axis([7, 5], axis="columns"),
    "shops": shops(),
    "list": [table().to_numpy(), table(350).to_numpy()],
    "dict": {3: table(), 1: table(350)},
    "named": {"north": table(), "south": table(350)},
}


def forecaster(**changes: Any) -> TSM2Forecaster:
    sizes: dict[str, Any] = {"lookback": 12, "horizon": 3, "blocks": 0, "random_state": 0}
    return TSM2Forecaster(**(sizes | {"max_epochs": 1} | changes))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("kind", TABLES)
def test_a_file_holds_the_table(
    kind: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    X = TABLES[kind]
    model = forecaster().fit(X)
    wanted = model.backtest(X, coverage=0.8)
    monkeypatch.setattr(backtesting, "_BLOCK", 1000)  # rows: a few blocks
    monkeypatch.setattr("tsm2.backtest_files._ROWS", 700)
    file = model.backtest(X, coverage=0.8, to=tmp_path / f"errors.{suffix}")
    assert isinstance(file, BacktestFile)
    pd.testing.assert_frame_equal(file.read(), wanted, check_exact=True)
    assert len(list(file.pieces(500))) == -(-len(wanted) // 500)
    scale = model.error_scale(X)
    for by in (None, "variate", ["step", "variate"], "cutoff", [wanted.columns[0], "variate"]):
        pd.testing.assert_frame_equal(
            error_table(file, by=by, scale=scale),
            error_table(wanted, by=by, scale=scale),
            check_exact=True,
        )
    each = np.linspace(1, 2, len(wanted))
    pd.testing.assert_frame_equal(
        error_table(file, scale=each), error_table(wanted, scale=each), check_exact=True
    )
    assert [each.name for each in tmp_path.iterdir()] == [f"errors.{suffix}"]


def test_blocks_change_sums_by_rounding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    X = TABLES["shops"]
    wanted = forecaster().fit(X).backtest(X)
    by_hand = (wanted["forecast"] - wanted["actual"]).pow(2).groupby(wanted["step"]).mean()
    assert error_table(wanted, by="step")["MSE"].tolist() == by_hand.tolist()
    whole = error_table(wanted, by=["unique_id", "step"])
    monkeypatch.setattr(backtesting, "_BLOCK", 100)
    in_parts = error_table(wanted, by=["unique_id", "step"])
    pd.testing.assert_frame_equal(in_parts, whole, rtol=1e-12)


@pytest.mark.parametrize("kind", ["datetime", "shops", "list"])
@pytest.mark.parametrize("window", ["expanding", "sliding"])
def test_a_file_of_refits_holds_the_table(kind: str, window: Any, tmp_path: Path) -> None:
    X = TABLES[kind]
    start: Any = 200 if kind == "list" else table().index[200]
    how: dict[str, Any] = {"start": start, "stride": 7, "refit": 5, "window": window}
    wanted = forecaster().backtest(X, coverage=0.5, **how)
    file = forecaster().backtest(X, coverage=0.5, to=tmp_path / "refits.csv", **how)
    pd.testing.assert_frame_equal(file.read(), wanted, check_exact=True)


def test_refits_side_by_side_are_written_too(tmp_path: Path) -> None:
    X = TABLES["datetime"]
    how: dict[str, Any] = {"start": X.index[200], "stride": 20, "refit": 3}
    wanted = forecaster().backtest(X, **how)
    with parallel_config(backend="threading"):  # processes would take long to start
        file = forecaster().backtest(X, n_jobs=2, to=tmp_path / "refits.csv", **how)
    pd.testing.assert_frame_equal(file.read(), wanted, rtol=1e-6)


def test_polars_comes_back_as_polars(tmp_path: Path) -> None:
    polars, testing = pytest.importorskip("polars"), pytest.importorskip("polars.testing")
    X = polars.from_pandas(table().reset_index(names="time"))
    model = forecaster().fit(X)
    file = model.backtest(X, to=tmp_path / "errors.csv")
    testing.assert_frame_equal(file.read(), model.backtest(X))
    testing.assert_frame_equal(error_table(file), error_table(model.backtest(X)))


def test_a_parquet_file_is_taken_up_again(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    X = TABLES["shops"]
    model = forecaster().fit(X)
    model.backtest(X, to=tmp_path / "errors.parquet")
    again = BacktestFile(tmp_path / "errors.parquet")
    wanted = model.backtest(X)
    pd.testing.assert_frame_equal(again.read(), wanted, check_exact=True)
    pd.testing.assert_frame_equal(error_table(again), error_table(wanted), check_exact=True)
    with pytest.raises(OutputError, match="there is no file"):
        BacktestFile(tmp_path / "other.parquet")
    X.to_parquet(tmp_path / "shops.parquet")
    with pytest.raises(OutputError, match="is no backtest: it has no column actual, cutoff"):
        BacktestFile(tmp_path / "shops.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(OutputError, match="is no Parquet file of a backtest"):
        BacktestFile(tmp_path / "text.parquet")
    X.to_csv(tmp_path / "shops.csv")
    with pytest.raises(OutputError, match=r"Read it with pandas\.read_csv"):
        BacktestFile(tmp_path / "shops.csv")


def test_a_file_is_drawn_as_a_table_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    X = TABLES["shops"]
    model = forecaster().fit(X)
    file = model.backtest(X, to=tmp_path / "errors.csv")
    for how in ({}, {"scale": model.error_scale(X)}, {"units": "kW"}):
        drawn = [plot_errors(each, **how) for each in (file, model.backtest(X))]
        one, other = ([line.get_ydata() for line in each.axes[0].lines] for each in drawn)
        np.testing.assert_array_equal(one, other)


def test_the_floor_is_measured_without_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    X = TABLES["shops"]
    model = forecaster(season=24).fit(X)
    scale = model.error_scale(X)
    tables, lazy = (model.backtest_floor(X, stride=2, lazy=each) for each in (False, True))
    assert list(tables) == list(lazy) == ["repeat last", "seasonal naive"]
    for block in (10**6, 50):
        monkeypatch.setattr(backtesting, "_BLOCK", block)
        for name, wanted in tables.items():
            pd.testing.assert_frame_equal(
                error_table(lazy[name], by="step", scale=scale),
                error_table(wanted, by="step", scale=scale),
                check_exact=True,
            )


def test_what_cannot_be_written_is_refused_before_the_first_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = TABLES["datetime"]
    model = forecaster().fit(X)

    def refused(to: Any, kind: type[TSM2Error], message: str) -> None:
        with pytest.raises(kind, match=message):
            model.backtest(X.to_numpy() if to == "never" else X, start="no row", to=to)

    refused(tmp_path / "errors.txt", ParameterError, r"is written to a \.parquet or a \.csv file")
    refused(3, ParameterError, "to must be the path of a file")
    refused("", ParameterError, "to must be the path of a file")
    refused(tmp_path / "none" / "errors.csv", OutputError, "does not exist. Make it first")
    (tmp_path / "folder.csv").mkdir()
    refused(tmp_path / "folder.csv", OutputError, "is a link, a folder or a device")
    (tmp_path / "link.csv").symlink_to(tmp_path / "target")
    refused(tmp_path / "link.csv", OutputError, "is a link, a folder or a device")
    monkeypatch.setattr("tsm2.backtest_files.find_spec", lambda _: None)
    refused(tmp_path / "errors.parquet", DependencyError, r"pip install 'tsm2\[parquet\]'")


def test_a_backtest_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "errors.csv"
    out.write_text("before")

    def pieces() -> Iterator[pd.DataFrame]:
        yield pd.DataFrame({"step": range(2**17)})
        raise ParameterError("it went wrong")

    with pytest.raises(ParameterError, match="it went wrong"):
        write_backtest(out, pieces(), Form())
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


def test_parquet_says_which_names_it_cannot_hold(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    X = table().set_axis(pd.Index([("a", 1), ("b", 2)], tupleize_cols=False), axis="columns")
    model = forecaster().fit(X)
    with pytest.raises(ParameterError, match=r"cannot hold the names of these series or columns"):
        model.backtest(X, to=tmp_path / "errors.parquet")
    file = model.backtest(X, to=tmp_path / "errors.csv")
    pd.testing.assert_frame_equal(file.read(), model.backtest(X), check_exact=True)


def test_formulas_in_a_csv_file_are_marked_as_text(tmp_path: Path) -> None:
    X = TABLES["datetime"]
    forecaster().fit(X).backtest(X, to=tmp_path / "errors.csv")
    assert ",'=a," in (tmp_path / "errors.csv").read_text()


def test_blocks_are_the_same_however_a_table_is_cut() -> None:
    rows = pd.DataFrame({"step": range(100)})
    for size in (1, 7, 33, 100):
        pieces = (rows[first : first + size] for first in range(0, 100, size))
        assert [len(block) for block in in_blocks(pieces, 40)] == [40, 40, 20]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_notebook_shows_where_a_file_is_and_its_errors(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr("tsm2.backtest_files._ROWS", 100)  # a file of several pieces
    file = (
        forecaster(horizon=4)
        .fit(table())
        .backtest(table(400).iloc[330:], to=tmp_path / f"<new>.{suffix}")
    )
    shown = file._repr_html_()
    assert f"&lt;new&gt;.{suffix}, " in shown
    assert re.findall(r"<th>(step \d+|all|=a|b)</th>", shown) == (
        ["step 1", "step 2", "step 4", "all", "=a", "b"]
    )
    steps = error_table(file, by=["variate", "step"])["MAE"].unstack().loc[["=a", "b"], [1, 2, 4]]
    wanted = steps.assign(all=error_table(file)["MAE"]).to_numpy().ravel()
    found = [float(cell) for cell in re.findall("<td>(.*)</td>", shown)]
    np.testing.assert_allclose(found, wanted, rtol=1e-3)

    monkeypatch.setattr("tsm2.backtest_files._AT_A_GLANCE", 0)  # too large to be measured
    shown = file._repr_html_()
    assert "Its first rows" in shown
    assert shown.count("<tr") == 1 + 5
