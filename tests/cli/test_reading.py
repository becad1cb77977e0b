"""Files on the command line: what is read is right, and what is not is refused with an option."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import FAST, own_process, refused, tsm2

import tsm2 as package
from tsm2 import TSM2Forecaster
from tsm2.cli.advice import for_command_line

QUICK = ["--lookback", "4", *FAST[2:], "--set", "validation_fraction=0"]


VALIDATED = ["--set", "validation_fraction=0.25"]


def write(path: Path, stamps: Iterable[object], head: str = "t,y", sep: str = ",") -> Path:
    rows = [f"{stamp}{sep}{np.sin(row):.3f}" for row, stamp in enumerate(stamps)]
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def first_forecast(data: Path, *options: str) -> str:
    """Fit, forecast, and return the first stamp that is written."""
    model = data.with_suffix(".model")
    fitted = tsm2("fit", data, "--horizon", 3, "--out", model, *QUICK, *options)
    assert fitted.returncode == 0, fitted.stderr
    reading = [o for o in options if o not in ("--missing", "mask")]
    result = tsm2("predict", model, data, *reading)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[1].split(",")[0]


YEAR = [f"01/{month:02d}/2023" for month in range(1, 13)]
FIVE_YEARS = [f"01/{month:02d}/{year}" for year in range(2019, 2024) for month in range(1, 13)]


@pytest.mark.parametrize(
    ("stamps", "options", "wanted"),
    [
        (YEAR, [], "2024-01-01"),
        (YEAR, ["--month-first"], "2023-01-13"),
        (FIVE_YEARS, ["--missing", "mask"], "2024-01-01"),
        ([f"202401{day:02d}" for day in range(1, 32)], [], "2024-02-01"),
        ([f"2023{month:02d}" for month in range(1, 13)], [], "2024-01-01"),
        ([f"{1704067200 + 3600 * row}.0" for row in range(24)], [], "2024-01-02 00:00:00"),
        ([f"202401{day:02d}" for day in range(1, 32)], ["--date-format", "position"], "20240132"),
    ],
    ids=["months", "as days", "five years", "compact", "year and month", "epoch", "numbers"],
)
def test_the_first_forecast(
    tmp_path: Path, stamps: list[str], options: list[str], wanted: str
) -> None:
    assert first_forecast(write(tmp_path / "data.csv", stamps), *options) == wanted


def test_how_a_file_was_read_is_said_with_options(tmp_path: Path) -> None:
    data = write(tmp_path / "data.csv", YEAR)
    fit = ("fit", data, "--horizon", 3, "--out", tmp_path / "model", *QUICK)
    said = tsm2(*fit).stderr
    assert "note: the dates of column 't' are read day first" in said
    assert "--month-first reads them month first: 2023-01-01, 2023-01-02" in said
    assert "note:" not in tsm2(*fit, "--day-first").stderr
    write(data, ["00:00", "00:15", "00:30"])
    assert "name another with --time-column" in refused(*fit)
    write(data, [f"05/03/2024 {hour:02d}:00" for hour in range(24)])
    assert "Give --day-first or --month-first." in refused(*fit)


def test_clocks_that_change(tmp_path: Path) -> None:
    berlin = pd.date_range("2024-03-29", periods=96, freq="h", tz="Europe/Berlin")
    data, model = write(tmp_path / "data.csv", berlin), tmp_path / "model"
    fit = ("fit", data, "--horizon", 3, "--out", model, *QUICK)
    said = tsm2(*fit)
    assert "is read as UTC. --time-zone Europe/Berlin, for one" in said.stderr
    assert TSM2Forecaster.load(model).layout_.timezone == "UTC"
    lines, summer = data.read_text().splitlines(), tmp_path / "summer.csv"
    summer.write_text("\n".join([lines[0], *lines[60:]]))  # of one offset, +02:00
    one, two = tsm2("predict", model, data), tsm2("predict", model, summer)
    assert one.stdout == two.stdout != "", two.stderr
    assert tsm2(*fit, "--time-zone", "Europe/Berlin").returncode == 0
    assert tsm2("predict", model, data).stdout.splitlines()[1].startswith("2024-04-02 01:00:00+02")
    days = pd.date_range("2024-03-20", periods=30, freq="D", tz="Europe/Berlin")
    assert "Name the zone with --time-zone Europe/Berlin" in refused(
        "fit", write(data, days), *fit[2:]
    )
    naive = write(data, days.tz_localize(None))
    assert "Give --time-zone." in refused("predict", model, naive)


def long_file(path: Path, ids: Iterable[str], n_rows: int, head: str = "unique_id;ds;y") -> Path:
    rows = [
        f"{each};{day:%d.%m.%Y};{100 * place + np.sin(row):.2f}"
        for place, each in enumerate(ids)
        for row, day in enumerate(pd.date_range("2024-01-01", periods=n_rows))
    ]
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_series_are_known_by_their_text(tmp_path: Path) -> None:
    ids = ["007", "7", "1E5", "TRUE", "NA", "01", "1"]
    data, model = long_file(tmp_path / "data.csv", ids, 40), tmp_path / "model"
    fit = ("fit", data, "--horizon", 3, "--rows", 30, "--out", model, *QUICK)
    result = tsm2(*fit)
    assert result.returncode == 0, result.stderr
    assert list(TSM2Forecaster.load(model).series_) == ids
    every = pd.read_csv(_stdout(tmp_path, "predict", model, data), dtype=str, na_filter=False)
    assert list(dict.fromkeys(every["unique_id"])) == ids
    for place, name in enumerate(ids):  # each alone is the same series, with the same units
        lines = data.read_text().splitlines()
        own = [lines[0], *lines[1 + 40 * place : 41 + 40 * place]]
        alone = tmp_path / "alone.csv"
        alone.write_text("\n".join(own) + "\n")
        table = pd.read_csv(_stdout(tmp_path, "predict", model, alone), dtype=str, na_filter=False)
        wanted = every[every["unique_id"] == name].reset_index(drop=True)
        pd.testing.assert_series_equal(
            table["y"].astype(float), wanted["y"].astype(float), rtol=1e-5
        )
        assert list(table["ds"]) == list(wanted["ds"])
    updated = tsm2("update", model, data, "--out", tmp_path / "updated")
    assert "70 new rows" in updated.stderr, updated.stderr
    measured = tsm2("backtest", model, data, "--start", "2024-02-01", "--json")
    assert measured.returncode == 0, measured.stderr


def _stdout(folder: Path, *arguments: object) -> Path:
    result = tsm2(*arguments)
    assert result.returncode == 0, result.stderr
    path = folder / "stdout.csv"
    path.write_text(result.stdout)
    return path


def test_a_model_that_was_fitted_to_numbers_knows_their_texts(tmp_path: Path) -> None:
    data = long_file(tmp_path / "data.csv", ["7", "12"], 40)
    frame = pd.read_csv(data, sep=";", parse_dates=["ds"], date_format="%d.%m.%Y")
    assert frame["unique_id"].dtype == np.int64
    model = TSM2Forecaster(
        lookback=4, horizon=3, features=8, max_epochs=1, validation_fraction=0, random_state=0
    ).fit(frame)
    model.save(tmp_path / "model")
    path = _stdout(tmp_path, "predict", tmp_path / "model", data)
    np.testing.assert_allclose(pd.read_csv(path)["y"], model.predict()["y"], rtol=1e-5)
    long_file(data, ["007", "12"], 40)
    assert "series '007' is named otherwise" in refused("predict", tmp_path / "model", data)


def test_static_covariates_are_named_by_text(tmp_path: Path) -> None:
    data, model = long_file(tmp_path / "data.csv", ["007", "7"], 40), tmp_path / "model"
    static = tmp_path / "static.csv"
    static.write_text("unique_id;kind\n7;01\n007;1\n")
    fit = ("fit", data, "--horizon", 3, "--out", model, *QUICK, "--static-covariates", static)
    result = tsm2(*fit)
    assert result.returncode == 0, result.stderr
    assert TSM2Forecaster.load(model).network_.config.n_static == 2  # two categories
    static.write_text("unique_id;kind\n7;01\n7.0;1\n")
    assert "007" in refused(*fit)


def test_a_dialect_on_standard_input(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=40)
    numbers = [f"{1000 * np.sin(row):.2f}".replace(".", ",") for row in range(40)]
    rows = [f"{day:%d.%m.%Y};{number}" for day, number in zip(days, numbers, strict=True)]
    content = "\r\n".join(["sep=;", " Tag ; Größe ", *rows]).encode("cp1252")
    model = tmp_path / "model"
    fit = ("fit", "-", "--horizon", 3, "--out", model, "--target", " Größe ", *QUICK)
    result = tsm2(*fit, stdin=content)
    assert result.returncode == 0, result.stderr
    assert "cp1252" in result.stderr
    assert "--encoding names another" in result.stderr
    predicted = tsm2("predict", model, "-", stdin=content).stdout.splitlines()
    assert predicted[0] == "Tag,Größe"
    assert predicted[1].startswith("2024-02-10,")
    strange = content.replace(b";", b"^").replace(b"sep=^", b"sep=;")
    assert tsm2(*fit, "--sep", "^", "--encoding", "latin-1", stdin=strange).returncode == 0


def test_columns_that_are_not_read_are_said(tmp_path: Path) -> None:
    data = long_file(tmp_path / "data.csv", ["a", "b"], 40)
    lines = data.read_text().splitlines()
    data.write_text("\n".join([lines[0] + ";note"] + [line + ";x" for line in lines[1:]]))
    result = tsm2("fit", data, "--horizon", 3, "--out", tmp_path / "model", *QUICK)
    assert result.returncode == 0, result.stderr
    assert "column 'note'" in result.stderr


# --- advice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ("d,a\n2024-01-01,1\n2024-01-02,\n2024-01-03,3\n", "--missing mask or --missing ffill"),
        ("d,a\n2024-01-01,1\n2024-01-02,2\n2024-01-05,3\n2024-01-06,3\n", "Give --missing mask"),
        ("d,a\n2024-01-01,1\n2024-01-01,2\n2024-01-02,2\n", "need --id-col"),
        ("d,a\n2024-01-02,1\n2024-01-01,2\n2024-01-04,2\n", "Sort the rows of the file by time"),
        ("d,a\n2024-01-01,1\n2024-01-02,x\n2024-01-03,3\n", "see --decimal"),
        ("d;a\n2024-01-01;1.234\n2024-01-02;2.345\n", "--decimal . or --decimal ,"),
        ("2024-01-01,1\n2024-01-02,2\n", "Give --no-header to read it as a row, or --header"),
        ("d\n2024-01-01\n", "give --sep"),
        ("d,a\nx,1\ny,2\n", "--time-column, or its format with --date-format"),
    ],
)  # fmt: skip
def test_errors_advise_options(tmp_path: Path, content: str, advice: str) -> None:
    data = tmp_path / "data.csv"
    data.write_text(content)
    line = refused("fit", data, "--horizon", 1, "--out", tmp_path / "model", *QUICK)
    assert advice in line
    assert not any(word in line for word in ("X.", "pd.", "missing='", "DataFrame")), line


def test_advice_of_a_model(tmp_path: Path) -> None:
    data, model = tmp_path / "data.csv", tmp_path / "model"
    frame = pd.DataFrame({"a": np.arange(40.0), "b": 1.0}, pd.date_range("2024", periods=40))
    frame.to_csv(data)
    assert tsm2("fit", data, "--horizon", 3, "--out", model, *QUICK).returncode == 0
    frame[["b", "a"]].to_csv(data)
    assert "a file with the same columns in the same order" in refused("predict", model, data)
    frame.iloc[:2].to_csv(data)
    line = refused("predict", model, data)
    assert "X." not in line
    frame.to_csv(data)
    assert "Did you mean dropout" in refused("fit", data, "--horizon", 3, "--set", "droput=1",
                                              "--out", model)  # fmt: skip
    assert "--lookback 40" in refused("fit", data, "--horizon", 3, "--out", model, *FAST,
                                      "--lookback", 40)  # fmt: skip


def test_advice_leaves_other_texts_alone() -> None:
    for text in ("Ridge(alpha=10)", "pip install 'tsm2[plot]'", "a == b", "column 'lookback'"):
        assert for_command_line(text) == text


# --- what is shown --------------------------------------------------------------------------------


def test_help_is_complete_and_imports_no_numbers() -> None:
    code = (
        "import sys, runpy; sys.argv = ['tsm2', '--help']\n"
        "try: runpy.run_module('tsm2.cli', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('pandas', 'numpy', 'torch', 'sklearn') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
    for command in ("fit", "update", "predict", "backtest", "inspect"):
        shown = tsm2(command, "--help").stdout
        for option in ("--sep", "--decimal", "--encoding", "--no-header", "--date-format",
                       "--day-first", "--month-first", "--time-zone"):  # fmt: skip
            assert option in shown, f"{command} {option}"


def test_the_version() -> None:
    result = own_process("--version")
    assert (result.returncode, result.stdout) == (0, f"tsm2 {package.__version__}\n")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table of seven columns and a model of them."""
    folder = tmp_path_factory.mktemp("wide")
    t = np.arange(60)
    frame = pd.DataFrame({f"v{k}": np.sin(0.3 * t + k) for k in range(7)})
    frame.index = pd.date_range("2024", periods=60, name="day")
    frame.to_csv(folder / "data.csv")
    fit = (
        "fit",
        folder / "data.csv",
        "--horizon",
        3,
        "--out",
        folder / "model",
        *QUICK,
        *VALIDATED,
    )
    assert tsm2(*fit).returncode == 0
    return folder


def test_objects_for_other_programs(wide: Path, tmp_path: Path) -> None:
    data, model = wide / "data.csv", wide / "model"

    def records(*arguments: object) -> list[dict[str, Any]]:
        result = tsm2(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    forecast = records("predict", model, data, "--coverage", "0.8")
    assert [row["day"] for row in forecast] == ["2024-03-01 00:00:00", "2024-03-02 00:00:00",
                                                "2024-03-03 00:00:00"]  # fmt: skip
    wanted = TSM2Forecaster.load(model).predict()
    np.testing.assert_allclose([row["v6"] for row in forecast], wanted["v6"], rtol=1e-5)
    assert {"v0-lo-80", "v6-hi-80"} <= set(forecast[0])
    errors = records("backtest", model, data, "--start", "2024-02-10")
    assert [row["variate"] for row in errors][-3:] == ["all", "repeat last", "seasonal naive"]
    assert {"MSE", "MAE", "MASE", "MAE in units"} <= set(errors[0])
    (fitted,) = records(
        "fit", data, "--horizon", "3", "--out", tmp_path / "new", "--epochs", "1", "-q"
    )
    assert (fitted["variates"], fitted["series"], fitted["model"]) == (7, 1, str(tmp_path / "new"))
    assert isinstance(fitted["mixers"], bool)
    assert isinstance(fitted["classical"], bool)
    influence = records("inspect", model, data)
    assert len(influence) == 7
    assert records("data", "list")[0]["name"] == "ETTh1"
    (checked,) = records("data", "check", "ETTh1", "--data-dir", tmp_path)
    assert checked["status"] == "missing"
    (machine,) = records("info")
    assert machine["tsm2 version"] == package.__version__
    out = tmp_path / "runs.csv"
    runs = records("benchmark", "sample", "--horizons", 12, "--lookback", 48, "--out", out,
                   "--models", "RepeatLast", "-q")  # fmt: skip
    assert runs[0]["model"] == "RepeatLast"
    assert runs[0]["MSE"] == pd.read_csv(out)["mse"].mean()


def test_a_picture_has_every_column(wide: Path, tmp_path: Path) -> None:
    picture = tmp_path / "plot.svg"
    result = tsm2("predict", wide / "model", wide / "data.csv", "--plot", picture)
    assert result.returncode == 0, result.stderr
    assert all(f"<!-- v{k} -->" in picture.read_text() for k in range(7))
    assert "leaves out" not in result.stderr
    assert "--series chooses one of many" in refused(
        "predict", wide / "model", wide / "data.csv", "--plot", picture, "--series", "v1"
    )


def test_a_picture_of_one_series(tmp_path: Path) -> None:
    data, model = long_file(tmp_path / "data.csv", ["007", "7"], 40), tmp_path / "model"
    fit = ("fit", data, "--horizon", 3, "--out", model, *QUICK, *VALIDATED)
    assert tsm2(*fit).returncode == 0
    picture = tmp_path / "plot.svg"
    predict = ("predict", model, data, "--plot", picture, "--coverage", "0.8")
    first = tsm2(*predict)
    assert first.returncode == 0, first.stderr
    assert "plot shows series 007, the first" in first.stderr
    assert "80 % interval" in picture.read_text()
    drawn = picture.read_bytes()
    other = tsm2(*predict, "--series", "7")
    assert "the first" not in other.stderr
    assert picture.read_bytes() != drawn
    assert "Did you mean 007" in refused(*predict, "--series", "0077")


def test_a_lookback_is_chosen_that_fits_a_short_file(tmp_path: Path) -> None:
    data, model = tmp_path / "data.csv", tmp_path / "model"
    write(data, pd.date_range("2024", periods=60).strftime("%Y-%m-%d"))
    fit = ("fit", data, "--horizon", 3, "--out", model, *FAST[2:])
    result = tsm2(*fit)
    assert result.returncode == 0, result.stderr
    chosen = TSM2Forecaster.load(model).fitted_.lookback
    assert 3 <= chosen <= 30  # half of the rows
    assert f"from lookbacks of {chosen} rows" in result.stderr
    assert "--lookback 96" in refused(*fit, "--lookback", 96)  # what was asked for is not changed


def test_a_start_is_read_as_the_file_is(wide: Path) -> None:
    backtest = ("backtest", wide / "model", wide / "data.csv", "--json", "--start")
    one = tsm2(*backtest, "2024-02-10")
    assert one.returncode == 0, one.stderr
    assert tsm2(*backtest, "10.02.2024", "--day-first").stdout == one.stdout
    assert "--day-first or --month-first" in refused(*backtest, "10.02.2024")


def test_a_second_frequency_that_fits_is_named_in_words_of_the_command_line(tmp_path: Path) -> None:
    lines = ["day,y", *(f"2024-01-{day:02},{day % 3}" for day in range(8, 13))]
    (tmp_path / "week.csv").write_text("\n".join(lines))
    fit = ("fit", tmp_path / "week.csv", "--horizon", 1, "--lookback", 2, "-q")
    sets = ("--set", "blocks=0", "--set", "validation_fraction=0")
    said = " ".join(tsm2(*fit, *sets, "--out", tmp_path / "m").stderr.split())
    assert "tsm2: rows are taken to be 'D' apart, but 'B' would explain them as well" in said
    assert "--set frequency='B'" in said
    quiet = tsm2(*fit, *sets, "--set", "frequency=B", "--out", tmp_path / "n").stderr
    assert "apart" not in quiet
