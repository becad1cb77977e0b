"""Tables of other libraries, stamps in a column, a Series: the same forecast, as it came in."""

import contextlib
import datetime
import decimal
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.backtesting import error_table
from tsm2.cli import main
from tsm2.errors import DependencyError, FrameError
from tsm2.plotting import plot_errors
from tsm2.tables.containers import to_library
from tsm2.tables.layout import layout_from_json, layout_to_json
from tsm2.tables.read import LongColumns, read
from tsm2.tables.write import write

pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

ROWS = 60


def stamps(rows: int = ROWS, **options: Any) -> pd.DatetimeIndex:
    given = {"start": "2024-03-28", "freq": "h", "unit": "us", "name": "when"} | options
    return pd.date_range(periods=rows, **given)


def table(rows: int = ROWS, **options: Any) -> pd.DataFrame:
    time = np.arange(rows)
    return pd.DataFrame({"a": np.sin(time / 3), "b": np.cos(time)}, index=stamps(rows, **options))


def polars(frame: pd.DataFrame) -> Any:
    return pl.from_arrow(arrow(frame))


def arrow(frame: pd.DataFrame) -> Any:
    return pa.Table.from_pandas(frame, preserve_index=False)


def forecaster(**changes: Any) -> TSM2Forecaster:
    sizes: dict[str, Any] = {"features": 4, "max_epochs": 1, "linear_start": "random"}
    changes = sizes | {"batch_size": 64, "random_state": 0} | changes
    return TSM2Forecaster(8, 3, **changes)


def numbers(given: Any, *names: str) -> np.ndarray[Any, Any]:
    return np.column_stack([np.asarray(given[name]) for name in names or ("a", "b")])


WIDE: dict[str, Callable[[pd.DataFrame], Any]] = {
    "column": pd.DataFrame.reset_index,
    "polars": lambda frame: polars(frame.reset_index()),
    "arrow": lambda frame: arrow(frame.reset_index()),
}


# --- the same forecast ----------------------------------------------------------------------------


def test_every_container_and_file_gives_the_same_forecast_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = table()
    wanted = forecaster().fit(frame).predict()
    for make in WIDE.values():
        got = forecaster().fit(make(frame)).predict()
        np.testing.assert_array_equal(numbers(got), wanted.to_numpy())
    frame.to_csv(tmp_path / "table.csv")
    frame.reset_index().to_parquet(tmp_path / "table.parquet")
    given = {"features": 4, "batch_size": 64, "linear_start": "random"}
    settings = [f"--set={name}={value}" for name, value in given.items()]
    for name in ("table.csv", "table.parquet"):
        model = str(tmp_path / f"{name} model")
        sizes = ["--lookback=8", "--horizon=3", "--epochs=1", "--seed=0"]
        arguments = ["fit", str(tmp_path / name), *sizes, *settings, "--out", model, "-q"]
        monkeypatch.setattr(sys, "argv", ["tsm2", *arguments])
        with contextlib.suppress(SystemExit):
            main()
        got = TSM2Forecaster.load(model).predict()
        np.testing.assert_array_equal(got.to_numpy(), wanted.to_numpy())


@pytest.mark.parametrize("kind", WIDE)
def test_what_comes_in_goes_out_of_every_verb(kind: str, tmp_path: Path) -> None:
    X, new = WIDE[kind](table()), WIDE[kind](table(72).iloc[ROWS:])
    model = forecaster().fit(X)
    reference = forecaster().fit(table())
    model.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    wanted = {
        "predict": (reference.predict(), ["when", "a", "b"]),
        "predict_interval": (
            reference.predict_interval(),
            ["when", "a-lo-80", "a-hi-80", "b-lo-80", "b-hi-80"],
        ),
    }
    for verb, (values, names) in wanted.items():
        for one in (model, loaded):
            for history in ((), (X,)):
                got = getattr(one, verb)(*history)
                assert type(got) is type(X)
                assert names_of(got) == names
                np.testing.assert_array_equal(numbers(got, *names[1:]), values.to_numpy())
    assert type(model.sample(n_samples=2)) is type(X)
    backtest, expected = model.backtest(new, coverage=0.5), reference.backtest(table(72)[ROWS:])
    assert type(backtest) is type(X)
    np.testing.assert_array_equal(numbers(backtest, "forecast"), expected[["forecast"]])
    errors = error_table(backtest, scale=model.error_scale(new))
    assert isinstance(errors, pd.DataFrame) == (kind == "column")
    np.testing.assert_array_equal(
        numbers(errors, "MSE"), error_table(expected, scale=reference.error_scale(X))[["MSE"]]
    )
    assert model.score(new) == reference.score(table(72)[ROWS:])
    assert not model.inspect(new).steps.empty
    model.calibrate(X)
    updated, known = model.update(new).predict(), reference.update(table(72)[ROWS:]).predict()
    assert type(updated) is type(X)
    np.testing.assert_array_equal(numbers(updated), known.to_numpy())
    np.testing.assert_array_equal(pd.DatetimeIndex(np.asarray(updated["when"])), known.index)


def names_of(given: Any) -> list[str]:
    return list(given.column_names if isinstance(given, pa.Table) else given.columns)


@pytest.mark.parametrize("library", [polars, arrow])
def test_covariates_come_in_the_same_containers(library: Callable[[Any], Any]) -> None:
    index = stamps(ROWS + 3)
    wind = pd.DataFrame({"wind": np.cos(np.arange(len(index)) / 3)}, index)
    kind = pd.DataFrame({"kind": np.where(index.hour < 8, "night", "day")}, index)
    static = pd.DataFrame({"variate": ["b", "a"], "size": [1.0, 2.0], "sort": ["x", "y"]})
    wanted = forecaster().fit(
        table(),
        past_covariates=wind,
        future_covariates=kind,
        static_covariates=static.set_index("variate"),
    )
    got = forecaster().fit(
        library(table().reset_index()),
        past_covariates=library(wind.reset_index()),
        future_covariates=library(kind.reset_index()),
        static_covariates=library(static),
    )
    np.testing.assert_array_equal(numbers(got.predict()), wanted.predict().to_numpy())
    with pytest.raises(FrameError, match="without a column 'variate' that names every variate"):
        forecaster().fit(
            library(table().reset_index()), static_covariates=library(static[["size"]])
        )


@pytest.mark.parametrize("dtype", ["str", "category", "int64", "int32"])
@pytest.mark.parametrize("library", [polars, arrow, lambda frame: frame])
def test_long_tables_with_any_names_of_series(library: Callable[[Any], Any], dtype: str) -> None:
    ids: list[Any] = [7, 12] if dtype.startswith("int") else ["007", "7"]
    pieces = [table(ROWS - 4 * k).reset_index().assign(shop=name) for k, name in enumerate(ids)]
    frame = pd.concat(pieces, ignore_index=True).astype({"shop": dtype})
    X = library(frame[["shop", "when", "a", "b"]])
    names: dict[str, Any] = {"id_col": "shop", "time_col": "when", "target_col": ["a", "b"]}
    wind = pd.DataFrame({"wind": np.cos(np.arange(ROWS + 3) / 3)}, stamps(ROWS + 3)).reset_index()
    each = pd.concat([wind.assign(shop=name) for name in ids]).astype({"shop": dtype})
    static = pd.DataFrame({"shop": ids, "size": [1.0, 2.0]}).astype({"shop": dtype})
    given: dict[str, Any] = {
        "future_covariates": library(each),
        "static_covariates": library(static),
    }
    model = forecaster(**names).fit(X, **given)
    forecast = model.predict(X, **given)
    assert type(forecast) is type(X)
    assert names_of(forecast) == ["shop", "when", "a", "b"]
    assert np.asarray(forecast["shop"]).tolist() == [ids[0]] * 3 + [ids[1]] * 3
    np.testing.assert_array_equal(numbers(model.predict()), numbers(forecast))
    table_of = model.backtest(X, coverage=0.5, **given)
    assert sorted(set(np.asarray(table_of["shop"]).tolist())) == sorted(ids)
    assert len(np.asarray(error_table(table_of, by="shop", scale=model.error_scale(X))["MSE"])) == 2


@pytest.mark.parametrize("text", ["dictionary", "dictionary of numbers", "string"])
def test_a_dictionary_of_arrow_in_pandas_is_what_it_stands_for(text: str) -> None:
    names: Any = pa.array(["x", "y"] if text != "dictionary of numbers" else [7, 12])
    ids = names.to_pylist()
    column = names.take(pa.array([0] * ROWS + [1] * ROWS))
    column = column.dictionary_encode() if text != "string" else column
    twice = pd.concat([table(), table() * 2]).reset_index(names="ds")
    frame = twice.assign(unique_id=pd.arrays.ArrowExtensionArray(column))
    X = frame[["unique_id", "ds", "a", "b"]]
    model = forecaster(target_col=["a", "b"]).fit(X)
    assert model.series_ == tuple(ids)
    assert model.predict(X)["unique_id"].tolist() == [ids[0]] * 3 + [ids[1]] * 3
    assert set(model.backtest(X, start=stamps()[40])["unique_id"]) == set(ids)
    kinds = frame[["unique_id", "ds"]].assign(kind=np.arange(2 * ROWS) % 3)
    kinds["kind"] = pd.arrays.ArrowExtensionArray(
        pa.array(["p", "q", "r"]).take(pa.array(kinds["kind"])).dictionary_encode()
    )
    forecaster(target_col=["a", "b"]).fit(X, past_covariates=kinds).predict()


@pytest.mark.parametrize("library", [polars, arrow])
def test_lists_and_dicts_of_tables(library: Callable[[Any], Any]) -> None:
    each = {"x": table(), "y": table(50) * 2}
    wanted = forecaster().fit(each).predict()
    static = pd.DataFrame({"series": ["y", "x"], "size": [1.0, 2.0]})
    opened = {name: library(frame.reset_index()) for name, frame in each.items()}
    got = forecaster().fit(opened).predict()
    assert list(got) == ["x", "y"]
    for name, forecast in got.items():
        assert type(forecast) is type(opened["x"])
        np.testing.assert_array_equal(numbers(forecast), wanted[name].to_numpy())
    assert len(forecaster().fit(list(opened.values())).predict_interval()) == 2
    forecaster().fit(opened, static_covariates=library(static), future_covariates=opened)
    with pytest.raises(FrameError, match="series 'y': its container is a DataFrame, but that of"):
        forecaster().fit({"x": opened["x"], "y": table()})


# --- stamps and cells -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    [
        *("datetime[us]", "datetime[ns]", "datetime[ms]", "date"),
        *("datetime[us, Europe/Berlin]", "datetime[ms, UTC]"),
    ],
)
def test_stamps_of_polars_come_back_in_their_type(dtype: str) -> None:
    unit, _, zone = dtype.removeprefix("datetime[").removesuffix("]").partition(", ")
    kind = pl.Date if dtype == "date" else pl.Datetime(unit, zone or None)
    days = pl.Series("t", pd.date_range("2024-03-28", periods=6).to_numpy()).cast(pl.Datetime("us"))
    days = days.cast(pl.Date) if kind == pl.Date else days.dt.cast_time_unit(unit)
    days = days.dt.replace_time_zone(zone) if zone else days  # over a change of the clocks
    X = pl.DataFrame({"y": [1.0, 2, 3, 4, 5, 6], "t": days})
    assert X["t"].dtype == kind
    back = write(read(X))
    assert back.equals(X)
    assert back["t"].dtype == kind


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns")),
        *(pa.timestamp("us", "America/Santiago"), pa.timestamp("us", "+01:00"), pa.date32()),
    ],
    ids=str,
)
def test_stamps_of_arrow_come_back_in_their_type(kind: Any) -> None:
    days = pa.array(pd.date_range("2024-01-01 12:00", periods=6).to_numpy()).cast(kind, safe=False)
    X = pa.table({"t": days, "y": [1.0, 2, 3, 4, 5, 6]})
    assert write(read(X)).equals(X)


CELLS: dict[str, tuple[Any, list[float]]] = {
    "whole": (lambda: pl.Series([1, 2, 3], dtype=pl.Int8), [1, 2, 3]),
    "unsigned": (lambda: pl.Series([1, 2, 2**63], dtype=pl.UInt64), [1, 2, 2.0**63]),
    "wide": (lambda: pl.Series([1, 2, 3], dtype=pl.Int128), [1, 2, 3]),
    "missing whole": (lambda: pl.Series([1, None, 3]), [1, np.nan, 3]),
    "null and NaN": (lambda: pl.Series([None, np.nan, 3.0]), [np.nan, np.nan, 3]),
    "all missing": (lambda: pl.Series([None, None, None]), [np.nan] * 3),
    "single": (lambda: pl.Series([0.1, 2, 3], dtype=pl.Float32), [float(np.float32(0.1)), 2, 3]),
    "flags": (lambda: pl.Series([True, None, False]), [1, np.nan, 0]),
    "decimals": (
        lambda: pl.Series([decimal.Decimal("1.1"), None, decimal.Decimal(3)]),
        [1.1, np.nan, 3],
    ),
}


@pytest.mark.parametrize("library", ["polars", "arrow"])
@pytest.mark.parametrize("cells", CELLS)
def test_cells_become_the_numbers_that_they_are(cells: str, library: str) -> None:
    make, wanted = CELLS[cells]
    X = pl.DataFrame({"t": stamps(3).to_numpy(), "y": make()})
    if library == "arrow" and cells != "wide":
        X = X.to_arrow()
    np.testing.assert_array_equal(read(X, missing="mask").values.ravel(), wanted)


def test_missing_numbers_are_null_where_tables_tell_them_apart() -> None:
    X = table().reset_index()
    X.loc[[20, 55], "a"] = None
    X = polars(X)
    backtest = forecaster(missing="mask").fit(X).backtest(X)
    assert backtest["actual"].null_count() > 0
    assert not backtest["actual"].is_nan().any()
    assert np.isfinite(numbers(error_table(backtest), "MSE")).all()


def test_series_named_by_an_enum_and_a_category() -> None:
    frame = pd.concat([table(3).assign(k="x"), table(3).assign(k="7")]).reset_index()
    columns = LongColumns(id="k", time="when", target=("a", "b"))
    for dtype in (pl.Enum(["7", "x"]), pl.Categorical):
        series = read(polars(frame).with_columns(pl.col("k").cast(dtype)), long=columns)
        assert series.ids == ("x", "7")
        assert write(series)["k"].to_list() == ["x"] * 3 + ["7"] * 3


def test_rows_without_stamps_are_counted() -> None:
    X, new = (polars(table(70).iloc[part]) for part in (slice(ROWS), slice(ROWS, 70)))
    model, reference = forecaster().fit(X), forecaster().fit(X.to_numpy())
    np.testing.assert_array_equal(numbers(model.predict()), reference.predict())
    np.testing.assert_array_equal(
        numbers(model.update(new).predict()), reference.update(new.to_numpy()).predict()
    )
    assert model.predict_interval().columns == ["a-lo-80", "a-hi-80", "b-lo-80", "b-hi-80"]
    wind = pl.DataFrame({"wind": np.cos(np.arange(ROWS + 3))})
    forecaster().fit(X, future_covariates=wind[:ROWS]).predict(X, future_covariates=wind)
    with pytest.raises(FrameError, match="a polars DataFrame without stamps, but this is a Data"):
        model.predict(table())
    with pytest.raises(FrameError, match="Feature names unseen at fit time:\n- c"):
        model.predict(X.rename({"b": "c"}))


def test_a_series_comes_back_as_one() -> None:
    named, unnamed, new = table()["a"], table()["a"].rename(None), table(66)["a"][ROWS:]
    wanted = forecaster().fit(table()[["a"]])
    for given in (named, unnamed):
        later = new if given is named else new.rename(None)
        model = forecaster().fit(given)
        forecast = model.predict(given)
        assert forecast.name == given.name
        pd.testing.assert_series_equal(forecast.rename("a"), wanted.predict()["a"])
        assert model.predict_interval().shape == (3, 2)
        assert len(model.backtest(given)) == len(wanted.backtest(table()[["a"]]))
        pd.testing.assert_series_equal(
            model.update(later).predict().rename("a"), forecaster().fit(named).update(new).predict()
        )
    assert [each.name for each in forecaster().fit([named, named]).predict()] == ["a", "a"]


def test_the_column_of_stamps_stays_where_it_was() -> None:
    frame = table().assign(c=1.0).reset_index()[["a", "when", "b", "c"]]
    model = forecaster(target=["a", "b"]).fit(frame)
    assert list(model.predict().columns) == ["a", "when", "b"]
    assert list(model.predict_interval(coverage=0.5).columns)[2] == "when"
    shifted = frame.set_axis(range(7, 67))  # what a filter leaves behind
    assert model.predict(shifted).index.tolist() == [0, 1, 2]
    periods = frame.assign(when=frame["when"].dt.to_period("h"))
    assert forecaster().fit(periods).predict()["when"].dtype == "period[h]"
    stored = frame.astype({"when": "timestamp[ns][pyarrow]"})
    assert forecaster().fit(stored).predict()["when"].tolist() == model.predict()["when"].tolist()


# --- mixed, saved, drawn --------------------------------------------------------------------------


def test_a_model_forecasts_what_comes_in_whatever_it_was_fitted_to() -> None:
    model = forecaster().fit(polars(table().reset_index()))
    for X in (table(), table().reset_index(), arrow(table().reset_index())):
        forecast = model.predict(X)
        assert type(forecast) is type(X)
        np.testing.assert_array_equal(numbers(forecast), numbers(model.predict()))


def test_a_layout_keeps_what_a_table_was_and_older_ones_are_read() -> None:
    layout = read(polars(table().reset_index())).layout
    saved = json.loads(json.dumps(layout_to_json(layout)))
    assert layout_from_json(saved) == layout
    old = {name: value for name, value in saved.items() if name != "form"}
    assert layout_from_json(old).form.library == "pandas"
    with pytest.raises(ValueError, match="no table that tsm2 reads"):
        layout_from_json(saved | {"form": saved["form"] | {"library": "os"}})


def test_without_the_library_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = forecaster().fit(polars(table().reset_index()))
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(DependencyError, match="pip install polars, or pass the history as a pand"):
        model.predict()
    assert isinstance(model.predict(table()), pd.DataFrame)


def test_pictures_are_drawn_of_any_container() -> None:
    pytest.importorskip("matplotlib")
    X = polars(table().reset_index())
    model = forecaster().fit(X)
    truth = polars(table(63)[ROWS:].reset_index())
    assert len(model.plot(X, truth=truth, coverage=0.5).axes) == 2
    assert len(model.plot().axes) == 2
    assert len(plot_errors(model.backtest(X)).axes) == 2
    column = forecaster().fit(table()["a"])
    assert len(column.plot(coverage=0.5).axes) == 1


# --- what is refused ------------------------------------------------------------------------------


def wide(**columns: Any) -> Any:
    return pl.DataFrame({"t": stamps(3).to_numpy()} | columns)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "two times": (lambda: wide(u=stamps(3).to_numpy(), y=[1, 2, 3]), "2 columns of time.*'t', 'u'"),
    "lists": (lambda: wide(y=[[1], [2], [3]]), r"column 'y' of the polars DataFrame holds List"),
    "durations": (lambda: wide(y=[datetime.timedelta(1)] * 3), "holds Duration.*Convert it, or dr"),
    "text": (lambda: wide(y=["a", "b", "c"]), r"'y' \(str\)"),
    "a long table": (lambda: wide(shop=["a", "b", "c"], y=[1, 2, 3]), "long table.*time_col='t'"),
    "null": (lambda: wide(y=[1.0, None, 3.0]), "1 NaN value.*missing='mask'"),
    "missing stamp": (
        lambda: wide(y=[1, 2, 3]).with_columns(t=pl.Series([None, *stamps(2)])),
        "1 missing stamps",
    ),
    "lazy": (lambda: wide(y=[1, 2, 3]).lazy(), r"polars LazyFrame, .*pass X.collect\(\)"),
    "column": (lambda: pl.Series([1.0, 2.0]), r"polars Series, .*pass X.to_frame\(\)"),
    "column in a list": (lambda: [wide(y=[1, 2, 3]), pl.Series([1.0])], "series 1: it is a polars"),
    "batch": (lambda: pa.record_batch({"a": [1.0]}), r"RecordBatch, .*X.to_pandas\(\)"),
    "twice": (lambda: pa.table([[1.0], [2.0]], names=["a", "a"]), "'a' more than once"),
    "no columns": (lambda: pl.DataFrame(), r"0 feature\(s\)"),
    "no rows": (lambda: wide(y=[1, 2, 3])[:0], r"0 sample\(s\)"),
    "no series": (
        lambda: wide(unique_id=["a", None, "a"], y=[1, 2, 3]).rename({"t": "ds"}),
        "row 1 belongs to no series",
    ),
    "dates as text": (
        lambda: pl.DataFrame({"unique_id": ["a"], "ds": ["2024-01-01"], "y": [1]}),
        "column 'ds' holds",
    ),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_with_the_reason(
    make: Callable[[], Any], reason: str
) -> None:
    with pytest.raises(FrameError, match=reason) as caught:
        read(make())
    assert not type(caught.value).__name__.startswith("_")


def test_a_table_of_pandas_is_not_touched() -> None:
    frame = table()
    assert to_library(frame, read(frame).layout.form) is frame


@pytest.mark.parametrize("label", [None, pd.NA, float("nan"), pd.NaT, ("a", 1)])
def test_a_column_of_stamps_may_have_any_label_or_is_refused_in_words(label: Any) -> None:
    frame = pd.DataFrame({"a": np.arange(20.0), "when": stamps(20)})
    frame.columns = pd.Index(["a", label], dtype=object, tupleize_cols=False)
    try:
        forecast = forecaster().fit(frame).predict()
    except FrameError:
        return
    assert list(forecast.columns) == ["a", label]
