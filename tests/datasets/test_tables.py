"""Files become tables: values, stamps, order of columns, and the oddities that must stay."""

import gzip
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsm2.datasets import borders, describe, load, names, path
from tsm2.datasets.tables import read_table
from tsm2.errors import DatasetError

SIBLING = Path(__file__).parents[2].parent / "shared" / "data" / "long_horizon"
HOME = Path(os.environ.get("TSM2_DATA_HOME") or SIBLING)


def real(file: str) -> Path:
    """Path of a file of the real data; skips the test where it is not."""
    if not (HOME / file).is_file():
        pytest.skip(f"{file} is not in {HOME}; set TSM2_DATA_HOME to the folder that has it")
    return HOME / file


def real_table(name: str) -> pd.DataFrame:
    real(describe(name).file)
    return load(name, data_home=HOME, download=False)


# --- real files ---


@pytest.mark.parametrize("name", names())
def test_the_record_fits_the_real_file(name: str) -> None:
    record = describe(name)
    file = real(record.file)
    if record.bytes is not None:
        assert file.stat().st_size == record.bytes
        assert hashlib.sha256(file.read_bytes()).hexdigest() == record.sha256
    assert path(name, data_home=HOME) == file
    frame = real_table(name)
    assert frame.shape == (record.rows, record.variates)
    assert frame.index.name == "date"
    assert set(frame.dtypes) == {np.dtype("float64")}
    assert np.isfinite(frame.to_numpy()).all()
    if name != "Weather":  # a duplicate and a gap
        steps = pd.date_range(frame.index[0], periods=len(frame), freq=record.frequency)
        assert (frame.index == steps).all()


@pytest.mark.parametrize(
    ("name", "first", "last", "columns"),
    [
        ("ETTh1", "2016-07-01 00:00", "2018-06-26 19:00", "HUFL HULL MUFL MULL LUFL LULL OT"),
        ("ETTh2", "2016-07-01 00:00", "2018-06-26 19:00", "HUFL HULL MUFL MULL LUFL LULL OT"),
        ("ETTm1", "2016-07-01 00:00", "2018-06-26 19:45", "HUFL HULL MUFL MULL LUFL LULL OT"),
        ("ETTm2", "2016-07-01 00:00", "2018-06-26 19:45", "HUFL HULL MUFL MULL LUFL LULL OT"),
        ("Exchange", "1990-01-01", "2010-10-10", "0 1 2 3 4 5 6 OT"),
        ("ILI", "2002-01-01", "2020-06-30", None),
        ("Weather", "2020-01-01 00:10", "2021-01-01 00:00", None),
    ],
)
def test_stamps_and_columns_of_the_real_file(
    name: str, first: str, last: str, columns: str | None
) -> None:
    frame = real_table(name)
    assert frame.index[0] == pd.Timestamp(first)
    assert frame.index[-1] == pd.Timestamp(last)
    assert frame.columns[-1] == "OT"
    if columns is not None:
        assert list(frame.columns) == columns.split()


@pytest.mark.parametrize(
    ("name", "row", "values"),
    [
        ("ETTh1", 0, {"HUFL": 5.827000141143799, "OT": 30.5310001373291}),
        ("ETTm1", -1, {"HUFL": 12.994000434875488, "HULL": 3.818000078201294}),
        ("Exchange", -1, {"0": 0.720825, "6": 0.690942, "OT": 0.692689}),
        ("ILI", 0, {"% WEIGHTED ILI": 1.22262, "AGE 0-4": 582.0, "OT": 176569.0}),
        ("Weather", 0, {"p (mbar)": 1008.89, "Tdew (degC)": -1.33, "OT": 428.1}),
    ],
)
def test_values_are_the_written_ones(name: str, row: int, values: dict[str, float]) -> None:
    found = real_table(name).iloc[row][list(values)].to_dict()
    assert found == pytest.approx(values, rel=1e-14)


def test_weather_keeps_its_oddities() -> None:
    frame = real_table("Weather")
    sentinels = (frame == -9999).sum()
    assert sentinels[sentinels > 0].tolist() == [1, 30, 50]
    assert list(sentinels.index[sentinels > 0]) == [
        "wv (m/s)",
        "max. PAR (\ufffdmol/m\ufffd/s)",
        "OT",
    ]
    assert "SWDR (W/m\ufffd)" in frame.columns
    assert list(frame.index[frame.index.duplicated()]) == [pd.Timestamp("2020-05-12 06:00")]
    stamps = frame.index.to_series()
    before = stamps.shift()[stamps.diff() > pd.Timedelta("10min")]
    assert before.to_dict() == {
        pd.Timestamp("2020-05-29 11:10"): pd.Timestamp("2020-05-29 09:30"),
    }
    by_position = frame.reset_index(drop=True)
    assert by_position.index.equals(pd.RangeIndex(52696))


@pytest.mark.parametrize(
    ("name", "horizon", "mse", "mae"),
    [("ETTh1", 96, 1.294, 0.713), ("Exchange", 96, 0.081, 0.196), ("ILI", 24, 6.213, 1.622)],
)
def test_repeating_the_last_value_has_the_known_error(
    name: str, horizon: int, mse: float, mae: float
) -> None:
    """Table, borders and standardisation together give the figures that others found."""
    frame, split = real_table(name), borders(name)
    train = frame.iloc[: split.train_end]
    scaled = ((frame - train.mean()) / train.std(ddof=0)).to_numpy()
    wanted = np.lib.stride_tricks.sliding_window_view(
        scaled[split.validation_end : split.test_end], horizon, axis=0
    )  # (windows, variates, horizon)
    last = scaled[split.validation_end - 1 :][: len(wanted), :, None]
    assert np.mean((wanted - last) ** 2) == pytest.approx(mse, abs=6e-4)
    assert np.mean(np.abs(wanted - last)) == pytest.approx(mae, abs=6e-4)


# --- parts of the real files that could not be had whole ---


@pytest.mark.parametrize(
    ("name", "file", "rows", "last", "value"),
    [
        ("Traffic", "traffic/traffic_head25.csv", 25, "2016-07-02 02:00", 0.0039),
        ("Electricity", "electricity/electricity_head55.csv", 55, "2016-07-03 08:00", 14.0),
    ],
)
def test_the_head_of_a_large_file_is_read(
    name: str, file: str, rows: int, last: str, value: float
) -> None:
    record = describe(name)
    frame = read_table(real(file), record)
    assert frame.shape == (rows, record.variates)
    assert frame.index[0] == pd.Timestamp("2016-07-01 02:00")
    assert frame.index[-1] == pd.Timestamp(last)
    wanted = [str(number) for number in range(record.variates - 1)]
    assert list(frame.columns) == [*wanted, "OT"]
    assert frame.iloc[-1, 0] == value


def test_dates_with_slashes_are_read() -> None:
    frame = read_table(real("electricity/electricity_1000x203.csv"), describe("Electricity"))
    assert frame.shape == (1000, 203)
    assert frame.index[-1] == pd.Timestamp("2016-08-11 17:00")
    head = read_table(real("electricity/electricity_head55.csv"), describe("Electricity"))
    common = head[frame.columns]
    pd.testing.assert_frame_equal(frame.iloc[:55], common)


def test_the_head_of_a_large_file_is_not_taken_for_the_file(tmp_path: Path) -> None:
    head = real("traffic/traffic_head25.csv").read_bytes()
    (tmp_path / "traffic.csv").write_bytes(head)
    with pytest.raises(DatasetError, match="expected 136,478,119 bytes, found 197,792 bytes"):
        load("Traffic", data_home=tmp_path)


# --- small files of our own ---


def test_solar_gets_the_ten_minutes_of_2006(tmp_path: Path) -> None:
    file = tmp_path / "solar_AL.txt.gz"
    file.write_bytes(gzip.compress(b"0.0,1.5,2\n3,4.25,5\n"))
    frame = read_table(file, describe("Solar"))
    assert frame.to_numpy().tolist() == [[0.0, 1.5, 2.0], [3.0, 4.25, 5.0]]
    assert list(frame.columns) == ["0", "1", "2"]
    assert list(frame.index) == [pd.Timestamp("2006-01-01"), pd.Timestamp("2006-01-01 00:10")]
    assert frame.index.name == "date"
    record = describe("Solar")
    year = pd.date_range(str(record.start), periods=record.rows, freq=record.frequency)
    assert year[-1] == pd.Timestamp("2006-12-31 23:50")


def test_numbers_are_read_to_the_last_digits(tmp_path: Path) -> None:
    numbers = ["5.827000141143799", "0.1", "1e-7", "123456.789012345", "-9999.0"]
    numbers += [repr(value) for value in np.random.default_rng(0).standard_normal(500).tolist()]
    lines = [f"2020-01-01 00:{i // 60:02}:{i % 60:02},{n}" for i, n in enumerate(numbers)]
    file = tmp_path / "table.csv"
    file.write_text("\r\n".join(["date,a", *lines]))
    frame = read_table(file, describe("ETTh1"))
    wanted = [float(number) for number in numbers]
    assert frame["a"].tolist() == pytest.approx(wanted, rel=1e-14)  # pandas 2: some ulp off


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"day,a\n2020-01-01 00:00:00,1\n", "its first column is 'day', not 'date'"),
        (b"date,a\n2020-01-01 00:00:00,one\n", "one"),
        (b"date,a\nyesterday,1\n", "yesterday"),
        (b"", "not laid out as expected"),
    ],
)
def test_a_file_laid_out_otherwise_is_an_error(
    content: bytes, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(content)
    record = replace(describe("ETTh1"), name="Mine")
    with pytest.raises(DatasetError, match=message) as caught:
        read_table(file, record)
    assert "Mine" in str(caught.value)
    assert str(file) in str(caught.value)
