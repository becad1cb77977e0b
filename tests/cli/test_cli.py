"""The command line: each command does its job, and a user's mistake is one line and exit code 2."""

import json
import os
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import FAST, own_process, refused, tsm2

from tsm2 import TSM2Forecaster
from tsm2.cli.files import write
from tsm2.datasets import load_stores


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and a model that was fitted to its first 200 rows."""
    folder = tmp_path_factory.mktemp("cli")
    index = pd.date_range("2024-01-01", periods=240, freq="h", name="date")
    t = np.arange(240)
    frame = pd.DataFrame({"sun": 5 + np.sin(t * 0.26), "load": 50 + np.cos(t * 0.26)}, index)
    frame.to_csv(folder / "data.csv")
    frame.iloc[:200].to_csv(folder / "head.csv")
    data, model = folder / "data.csv", folder / "model"
    result = tsm2("fit", data, "--horizon", 6, "--rows", 200, "--out", model, *FAST)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"model: {model}\n"
    assert "trained 1 epochs on 2 variates" in result.stderr
    return folder


def test_predict_writes_what_python_says(work: Path) -> None:
    model = TSM2Forecaster.load(work / "model")
    wanted = model.predict(horizon=9)
    assert isinstance(wanted, pd.DataFrame)
    out, plot = work / "forecast.csv", work / "forecast.png"
    result = tsm2(
        "predict", work / "model", work / "head.csv", "--horizon", 9, "--out", out, "--plot", plot
    )
    assert result.returncode == 0, result.stderr
    written = pd.read_csv(out, index_col=0, parse_dates=True)
    np.testing.assert_allclose(written, wanted)
    assert list(written.index) == list(wanted.index)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_fit_that_ran_out_of_time_goes_on(work: Path, tmp_path: Path) -> None:
    fit = ("fit", work / "head.csv", "--horizon", 6, *FAST, "--epochs", 3)
    whole = tsm2(*fit, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    kept = (*fit, "--out", tmp_path / "pieces", "--checkpoint", tmp_path / "fit")
    first = tsm2(*kept, "--max-time", "1ms")
    assert first.returncode == 0, first.stderr
    assert "trained 1 epochs" in first.stderr
    assert tsm2(*kept).returncode == 0
    one, two = (TSM2Forecaster.load(tmp_path / name) for name in ("whole", "pieces"))
    np.testing.assert_array_equal(one.predict(), two.predict())
    other = refused(*kept, "--seed", 1)
    assert "is the checkpoint of another fit: seed was" in other
    assert "'soon'" in refused(*kept, "--max-time", "soon")


def test_a_model_is_updated_and_trained_on(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "later"
    result = tsm2("update", work / "model", work / "data.csv", "--out", out)
    assert result.returncode == 0, result.stderr
    assert "40 new rows" in result.stderr
    wanted = TSM2Forecaster.load(work / "model").predict(
        pd.read_csv(work / "data.csv", index_col=0, parse_dates=True)
    )
    later = TSM2Forecaster.load(out)
    np.testing.assert_array_equal(later.predict(), wanted)
    assert "Give later rows" in refused("update", out, work / "data.csv")
    fit = ("fit", work / "data.csv", "--horizon", 6, "--start-from", out, *FAST[2:])
    assert tsm2(*fit, "--out", tmp_path / "tuned").returncode == 0
    assert TSM2Forecaster.load(tmp_path / "tuned").lookback == 24
    assert "head.weight was" in refused(*fit, "--set", "lookback=48", "--out", tmp_path / "longer")


def test_one_of_several_lookbacks_is_read(work: Path, tmp_path: Path) -> None:
    fit = ("fit", work / "data.csv", "--horizon", 2, "--seed", 0, *FAST[2:])
    several = tsm2(*fit, "--lookback", "4,8", "--json", "--out", tmp_path / "model")
    assert several.returncode == 0, several.stderr
    model = TSM2Forecaster.load(tmp_path / "model")
    assert json.loads(several.stdout)["lookback"] == model.fitted_.lookback
    assert model.lookback == [4, 8]
    assert model.fitted_.lookback == 8
    out = ("--out", tmp_path / "none")
    assert "--lookback needs whole numbers" in refused(*fit, "--lookback", "a day", *out)
    assert "got [24, 0]" in refused(*fit, "--lookback", "24,0", *out)


def test_errors_and_selections_are_drawn(work: Path, tmp_path: Path) -> None:
    errors, selection = tmp_path / "errors.png", tmp_path / "selection.svg"
    drawn = tsm2("backtest", work / "model", work / "data.csv", "--stride", 24, "--plot", errors)
    assert drawn.returncode == 0, drawn.stderr
    assert errors.read_bytes().startswith(b"\x89PNG")
    result = tsm2("inspect", work / "model", work / "data.csv", "--plot", selection)
    assert result.returncode == 0, result.stderr
    table = TSM2Forecaster.load(work / "model").inspect(
        pd.read_csv(work / "data.csv", index_col=0, parse_dates=True)
    )
    assert f"{table.influence.to_numpy()[0, 1]:.3f}" in result.stdout
    assert "<svg" in selection.read_text()


def test_a_model_is_exported(work: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    result = tsm2("export", work / "model", "--out", tmp_path / "model.onnx")
    assert result.returncode == 0, result.stderr
    model = TSM2Forecaster.load(work / "model")
    (got,) = runtime.InferenceSession(tmp_path / "model.onnx").run(
        None, {"context": model.context_[None]}
    )
    np.testing.assert_allclose(got[0], model.predict(), atol=1e-4)
    assert "no folder" in refused("export", work / "model", "--out", tmp_path / "no" / "model.onnx")
    to = ("--out", tmp_path / "model.onnx")
    assert "Leave" in refused("export", work / "model", work / "data.csv", *to)
    for option in (("--decimal", ","), ("--month-first",), ("--time-column", "day")):
        assert "reads no file" in refused("export", work / "model", *to, *option)


def test_a_pretrained_model_is_exported_for_the_columns_of_a_table(
    work: Path, tmp_path: Path, zero_weights: str
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    file = tmp_path / "zero.onnx"
    assert "DATA.csv" in refused("export", zero_weights, "--out", file)
    result = tsm2("export", zero_weights, work / "data.csv", "--out", file)
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(work / "data.csv", index_col=0, parse_dates=True)
    model = TSM2Forecaster.from_pretrained(zero_weights).fit(table)
    got = runtime.InferenceSession(file).run(["forecast"], {"context": model.context_[None]})[0]
    np.testing.assert_allclose(got[0], model.predict(), atol=1e-3)


def test_predict_prints_to_standard_output(work: Path) -> None:
    result = tsm2("predict", work / "model", work / "data.csv")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "date,sun,load"
    assert len(result.stdout.splitlines()) == 7


def test_intervals_are_written_beside_the_forecast(work: Path) -> None:
    model = TSM2Forecaster.load(work / "model")
    plot = ("--plot", work / "interval.png")
    result = tsm2("predict", work / "model", work / "head.csv", "--coverage", 0.8, *plot)
    assert result.returncode == 0, result.stderr
    written = pd.read_csv(StringIO(result.stdout), index_col=0, parse_dates=True)
    names = ["sun", "load", "sun-lo-80", "sun-hi-80", "load-lo-80", "load-hi-80"]
    assert list(written.columns) == names
    np.testing.assert_allclose(written[names[:2]], model.predict())
    np.testing.assert_allclose(written[names[2:]], model.predict_interval(coverage=0.8))
    out = work / "quantiles.csv"
    backtest = ("backtest", work / "model", work / "data.csv", "--start", "2024-01-09 08:00")
    result = tsm2(*backtest, "--quantiles", "0.1,0.5,0.9", "--out", out)
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(out)
    assert list(table.columns[-3:]) == ["lo-80", "median", "hi-80"]
    share = ((table["actual"] >= table["lo-80"]) & (table["actual"] <= table["hi-80"])).mean()
    printed = next(line for line in result.stdout.splitlines() if "all" in line)
    assert f"{share:.4f}" in printed
    assert "coverage-" in result.stdout


def test_a_network_learns_quantiles(work: Path) -> None:
    model = work / "quantile model"
    fit = ("fit", work / "head.csv", "--horizon", 6, "--out", model, *FAST)
    result = tsm2(*fit, "--quantiles", "0.1,0.9")
    assert result.returncode == 0, result.stderr
    assert TSM2Forecaster.load(model).network_.config.quantiles == (0.1, 0.5, 0.9)


def test_backtest_measures_every_window(work: Path) -> None:
    out = work / "backtest.csv"
    start = "2024-01-09 08:00"  # row 200
    result = tsm2("backtest", work / "model", work / "data.csv", "--start", start, "--out", out)
    assert result.returncode == 0, result.stderr
    assert "35 windows" in result.stdout
    assert all(name in result.stdout for name in ("sun", "load", "all"))
    table = pd.read_csv(out)
    assert len(table) == 35 * 6 * 2
    assert table["cutoff"].iloc[0] == "2024-01-09 07:00:00"
    streamed = tsm2(
        "backtest", work / "model", work / "data.csv", "--start", start, "--to", work / "to.csv"
    )
    assert streamed.returncode == 0, streamed.stderr
    assert streamed.stdout == result.stdout
    assert (work / "to.csv").read_text() == out.read_text()
    refit = ("--start", start, "--stride", 12, "--refit", 2, "--window", "sliding")
    again = tsm2("backtest", work / "model", work / "data.csv", *refit)
    assert again.returncode == 0, again.stderr
    assert "3 windows" in again.stdout


def test_benchmark_prints_its_table_and_writes_its_report(tmp_path: Path) -> None:
    out, report = tmp_path / "r.csv", tmp_path / "report"
    sample = ("benchmark", "sample", "--horizons", "12", "--lookback", 48, "--out", out)
    result = tsm2(*sample, "--models", "RepeatLast,SeasonalNaive(period=48)", "--report", report)
    assert result.returncode == 0, result.stderr
    assert "RepeatLast" in result.stdout
    assert f"html: {report / 'report.html'}\n" in result.stdout
    assert "2/2" in result.stderr
    assert len(pd.read_csv(out)) == 2
    again = tsm2("benchmark", "--out", out, "--report", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    first, second = (folder / "report.md" for folder in (report, tmp_path / "again"))
    assert first.read_text() == second.read_text()
    missing = tsm2(*sample[:1], "Solar", *sample[2:], "--offline", "--data-dir", tmp_path)
    assert missing.returncode == 1
    assert "not run: Solar: solar/solar_AL.txt.gz is not in" in missing.stderr
    assert "Traceback" not in missing.stderr


@pytest.fixture(scope="module")
def shops(work: Path) -> Path:
    """A long file of three shops, of which a model has seen the first rows of two."""
    stamps = pd.date_range("2024-01-01", periods=90, freq="D")
    t = np.arange(90)
    parts = {"a": (90, 5.0), "b": (70, 400.0), "new": (50, -3.0)}
    frame = pd.concat(
        pd.DataFrame({"shop": name, "day": stamps[:n], "sales": level + np.sin(t[:n] * 0.9)})
        for name, (n, level) in parts.items()
    )
    frame.to_csv(work / "shops.csv", index=False)
    frame[frame["shop"] != "new"].to_csv(work / "known.csv", index=False)
    columns = ("--id-col", "shop", "--time-col", "day", "--target-col", "sales")
    model, known = work / "shops", work / "known.csv"
    result = tsm2("fit", known, *columns, "--rows", 60, "--horizon", 6, "--out", model, *FAST)
    assert result.returncode == 0, result.stderr
    assert "trained 1 epochs on 1 variates of 2 series" in result.stderr
    return work


def test_a_file_of_many_series(shops: Path) -> None:
    model = TSM2Forecaster.load(shops / "shops")
    assert model.context_index_[-1] == pd.Timestamp("2024-02-29")
    data, out = shops / "shops.csv", shops / "sales.csv"
    result = tsm2("predict", shops / "shops", data, "--out", out)
    assert result.returncode == 0, result.stderr
    wanted = model.predict(pd.read_csv(data, parse_dates=["day"]))
    pd.testing.assert_frame_equal(
        pd.read_csv(out, parse_dates=["day"]), wanted, check_dtype=False, rtol=1e-6
    )
    measured = tsm2("backtest", shops / "shops", data, "--out", out)
    assert measured.returncode == 0, measured.stderr
    assert "Errors over 123 windows" in measured.stdout  # 61 + 41 + 21
    table = pd.read_csv(out)
    assert list(table.columns[:2]) == ["shop", "cutoff"]
    assert set(table["shop"]) == {"a", "b", "new"}
    bounds = tsm2("predict", shops / "shops", data, "--coverage", 0.5)
    assert bounds.stdout.splitlines()[0] == "shop,day,sales,sales-lo-50,sales-hi-50", bounds.stderr
    both = tsm2("update", shops / "shops", shops / "known.csv", "--out", shops / "updated")
    assert both.returncode == 0, both.stderr
    assert "40 new rows" in both.stderr
    later = TSM2Forecaster.load(shops / "updated").predict()
    assert later.groupby("shop")["day"].min().to_dict() == {
        "a": pd.Timestamp("2024-03-31"),
        "b": pd.Timestamp("2024-03-11"),
    }


def test_mistakes_with_many_series_are_one_line(shops: Path, tmp_path: Path) -> None:
    model, data = shops / "shops", shops / "shops.csv"
    assert "has no column 'shop'" in refused("predict", model, shops / "data.csv")
    plot = ("--plot", tmp_path / "p.png", "--series")
    assert "Did you mean new?" in refused("predict", model, data, *plot, "knew")
    assert "'new' is new" in refused("update", model, data)
    fit = ("fit", data, "--horizon", 6, "--out", tmp_path / "m", *FAST)
    assert "has no column 'ds', 'y'" in refused(*fit, "--id-col", "shop")
    assert not (tmp_path / "p.png").exists()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of three stores and all kinds of covariates."""
    folder = tmp_path_factory.mktemp("stores")
    data = load_stores(3, 60)
    data.sales.to_csv(folder / "sales.csv", index=False)
    data.past.to_csv(folder / "past.csv", index=False)
    data.future.to_csv(folder / "future.csv", index=False)
    data.static.to_csv(folder / "static.csv")
    return folder


def test_files_of_covariates(stores: Path) -> None:
    columns = ("--id-col", "store", "--time-col", "day", "--target-col", "sales")
    files: tuple[object, ...] = ()
    for kind in ("past", "future", "static"):
        files += (f"--{kind}-covariates", stores / f"{kind}.csv")
    model, data = stores / "model", stores / "sales.csv"
    fit = ("fit", data, *columns, *files, "--calendar", "dayofweek", "--horizon", 7, "--out", model)
    result = tsm2(*fit, *FAST)
    assert result.returncode == 0, result.stderr
    loaded = TSM2Forecaster.load(model)
    config = loaded.network_.config
    assert (config.n_past, config.n_future, config.n_static) == (1, 1 + 3 + 2, 1 + 2)
    wanted = loaded.predict()
    out = stores / "forecast.csv"
    result = tsm2("predict", model, data, *files, "--out", out)
    assert result.returncode == 0, result.stderr
    pd.testing.assert_frame_equal(
        pd.read_csv(out, parse_dates=["day"]), wanted, check_dtype=False, rtol=1e-5
    )
    measured = tsm2("backtest", model, data, *files, "--start", "2024-02-10")
    assert measured.returncode == 0, measured.stderr
    named = tsm2("inspect", model, data, *files)
    assert named.returncode == 0, named.stderr
    assert "visits" in named.stdout
    lacking = refused("predict", model, data, "--horizon", 20, *files[2:4])
    assert "future_covariates lacks" in lacking or "longer than trained" in lacking


def test_a_file_with_gaps_and_a_target(work: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(work / "data.csv").drop(index=[30, 31])
    frame.loc[50:55, "sun"] = np.nan
    frame.to_csv(tmp_path / "gaps.csv", index=False)
    fit = ("fit", tmp_path / "gaps.csv", "--horizon", 6, "--out", tmp_path / "model", *FAST)
    assert "NaN" in refused(*fit) or "irregular" in refused(*fit)
    result = tsm2(*fit, "--missing", "mask", "--target", "load", "--calendar", "hour,weekend")
    assert result.returncode == 0, result.stderr
    shown = tsm2("predict", tmp_path / "model", tmp_path / "gaps.csv", "--plot", tmp_path / "p.png")
    assert shown.stdout.splitlines()[0] == "date,load", shown.stderr
    holidays = pd.DataFrame({"date": frame["date"], "day off": 1.0})
    holidays.to_csv(tmp_path / "off.csv", index=False)
    refusal = refused(
        "predict",
        tmp_path / "model",
        work / "data.csv",
        "--future-covariates",
        tmp_path / "off.csv",
    )
    assert "future_covariates" in refusal


def test_info_explains_the_kernels() -> None:
    result = own_process("info")
    assert result.returncode == 0, result.stderr
    assert "kernels: numba" in result.stdout
    assert "threads" in result.stdout
    assert "training steps" in result.stdout


def test_data_lists_and_checks(tmp_path: Path) -> None:
    listed = tsm2("data", "list")
    assert listed.returncode == 0, listed.stderr
    assert all(name in listed.stdout for name in ("ETTh1", "Weather", "Solar"))
    missing = tsm2("data", "check", "ETTh1", "--data-dir", tmp_path)
    assert missing.returncode == 0, missing.stderr
    assert "missing" in missing.stdout
    (tmp_path / "ETTh1.csv").write_text("date,OT\n2016-07-01,1\n")
    damaged = tsm2("data", "check", "ETTh1", "--data-dir", tmp_path)
    assert damaged.returncode == 1
    assert "wrong size" in damaged.stdout


def test_help_names_every_command() -> None:
    result = own_process("--help")
    assert result.returncode == 0
    for command in ("demo", "fit", "update", "predict", "backtest", "benchmark", "data", "info"):
        assert command in result.stdout


def test_mistakes_are_one_line(work: Path, tmp_path: Path) -> None:
    data, model, out = work / "data.csv", work / "model", tmp_path / "out"
    fit = ("--horizon", 6, "--out", out, *FAST)
    assert "No such file" in refused("fit", tmp_path / "none.csv", *fit)
    (tmp_path / "empty.csv").write_text("")
    assert "No columns" in refused("fit", tmp_path / "empty.csv", *fit)
    (tmp_path / "words.csv").write_text("day,load\nMonday,1\nTuesday,2\n")
    assert "does not hold times" in refused("fit", tmp_path / "words.csv", *fit)
    assert "has no column 'when'" in refused("fit", data, "--time-column", "when", *fit)
    assert "'dropout' parameter" in refused("fit", data, "--set", "dropout=2", *fit)
    assert "NAME=VALUE" in refused("fit", data, "--set", "droput=0.1", *fit)
    assert "does not exist" in refused(
        "fit", data, "--horizon", 6, "--out", tmp_path / "no" / "model"
    )
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    notes = refused("fit", data, "--horizon", 6, "--out", tmp_path / "notes", *FAST)
    assert "not overwritten" in notes
    assert (tmp_path / "notes" / "mine.txt").exists()
    assert "needs 306" in refused("fit", data, "--horizon", 6, "--out", out, "--lookback", 300)
    assert "tsm2: " in refused("predict", tmp_path, data)
    assert "such as 0.8 for 80 %" in refused("predict", model, data, "--coverage", 80)
    assert "got '10%'" in refused("predict", model, data, "--quantiles", "10%")
    assert "stride must be" in refused("backtest", model, data, "--stride", 0)
    both = refused("backtest", model, data, "--out", out / "a.csv", "--to", out / "b.csv")
    assert "give --out or --to, not both" in both
    assert ".parquet or a .csv file" in refused("backtest", model, data, "--to", out / "b.txt")
    assert "is not a row" in refused("backtest", model, data, "--start", "2030-01-01")
    assert "did you mean" in refused("data", "get", "ETTh11").lower()
    assert not out.exists()
    table = tmp_path / "r.csv"
    bench = ("benchmark", "sample", "--out", table)
    assert "--report folder" in refused("benchmark", "--out", table)
    assert "between commas, got '96,many'" in refused(*bench, "--horizons", "96,many")
    assert "no model is named 'Prophet'" in refused(*bench, "--models", "Prophet")
    assert "no result file" in refused("benchmark", "sample", "--out", data)
    assert not table.exists()


def test_a_wrong_option_has_exit_code_2(work: Path) -> None:
    result = tsm2("predict", work / "model", work / "data.csv", "--horizont", 3)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_text_that_a_spreadsheet_takes_for_a_formula_is_marked(tmp_path: Path) -> None:
    frame = pd.DataFrame({"=a": ["@b", "c", "-5"], "d": [-1.5, 2.0, 3.0]}, index=["+e", "f", "-g"])
    frame.index.name = "id"
    write(frame, tmp_path / "out.csv")
    text = (tmp_path / "out.csv").read_text()
    assert text == "id,'=a,d\n'+e,'@b,-1.5\nf,c,2.0\n'-g,-5,3.0\n"
    dated = frame.set_axis(pd.date_range("2024", periods=3), axis=0)[["d"]]
    write(dated, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == dated.to_csv()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_a_command_that_is_ended_says_what_is_kept(tmp_path: Path) -> None:
    rows = pd.DataFrame({"y": range(400)}, pd.date_range("2024", periods=400, freq="h"))
    rows.to_csv(tmp_path / "rows.csv")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "tsm2.cli",
        "fit",
        tmp_path / "rows.csv",
        "--out",
    ]
    command += [tmp_path / "model", "--checkpoint", tmp_path / "kept", "--horizon", "6"]
    command += ["--lookback", "24", "--epochs", "1000000", "--device", "cpu", "-q"]
    command += ["--set", "patience=1000000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (tmp_path / "kept" / "config.json").exists():
            time.sleep(0.05)
        process.terminate()
        _, said = process.communicate()
    assert process.returncode == 143
    last = said.strip().splitlines()[-1]
    assert last == (
        "tsm2: ended by SIGTERM; the checkpoint is kept, and the same command goes on from it."
    )
    assert not (tmp_path / "model").exists()


def test_columns_that_stop_at_zero_are_named(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    columns = {"sun": np.maximum(0, draw.normal(size=200)), "cold": draw.normal(size=200)}
    index = pd.date_range("2024-01-01", periods=200, freq="h", name="time")
    pd.DataFrame(columns, index).to_csv(tmp_path / "data.csv")
    fit = ("fit", tmp_path / "data.csv", "--horizon", 6, "--out", tmp_path / "model", *FAST[:-1])
    shown = tsm2(*fit)
    assert shown.returncode == 0
    assert "sun has no forecast below zero" in " ".join(shown.stderr.split())
    assert json.loads(tsm2(*fit, "--json", "-q").stdout)["nonnegative"] == ["sun"]
    wrong = tsm2(*fit, "--set", "nonnegative=true")
    message = " ".join(wrong.stderr.split())
    assert wrong.returncode == 2
    assert "column 'cold' has" in message
    assert "--set nonnegative='auto'" in message
