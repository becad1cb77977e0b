"""Files are read as they are written, or refused in words: nothing is changed silently."""

import io
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2.errors import DependencyError, FrameError, ParameterError
from tsm2.tables.csv import FileOptions, FileTable, read_text
from tsm2.tables.dates import KnownStamps


def stream(text: str, encoding: str = "utf-8") -> io.BytesIO:
    return io.BytesIO(text.encode(encoding))


def read(text: str, time_column: str | None = None, **options: Any) -> FileTable:
    return read_text(stream(text), FileOptions(**options)).wide(time_column)


def column(stamps: Iterable[object]) -> str:
    """Write a file of a time column and a column of values."""
    return "t,y\n" + "".join(f'"{stamp}",{row}.5\n' for row, stamp in enumerate(stamps))


def next_stamp(text: str, **options: Any) -> str:
    """Read a file and return the stamp that follows its last row."""
    index = read(text, **options).frame.index
    assert isinstance(index, pd.DatetimeIndex)
    regular = pd.DatetimeIndex(index, freq="infer")
    assert regular.freq is not None
    return str(regular[-1] + regular.freq).removesuffix(" 00:00:00")


# --- times ----------------------------------------------------------------------------------------

MONTHS = [f"01/{month:02d}/2023" for month in range(1, 13)]
FIVE_YEARS = [f"01/{month:02d}/{year}" for year in range(2019, 2024) for month in range(1, 13)]
JANUARY = pd.date_range("2024-01-01", "2024-01-31")


@pytest.mark.parametrize(
    ("stamps", "following"),
    [
        (MONTHS, "2024-01-01"),
        (FIVE_YEARS, "2024-01-01"),
        ([f"{day:%Y%m%d}" for day in JANUARY], "2024-02-01"),
        ([f"2023{month:02d}" for month in range(1, 13)], "2024-01-01"),
        ([f"{year}" for year in range(1990, 2024)], "2024-01-01"),
        ([f"{1704067200 + 3600 * row}.0" for row in range(24)], "2024-01-02"),
        ([f"{1704067200 + 3600 * row}" for row in range(24)], "2024-01-02"),
        ([f"{1704067200000 + 3600000 * row}" for row in range(24)], "2024-01-02"),
        ([f"{1704067200000000 + 3600000000 * row}.0" for row in range(24)], "2024-01-02"),
        ([f"{stamp:%Y%m%d%H}" for stamp in pd.date_range("2024", periods=48, freq="h")],
         "2024-01-03"),
        ([f"{stamp:%Y%m%d%H%M}" for stamp in pd.date_range("2024", periods=96, freq="15min")],
         "2024-01-02"),
        ([f"{day:%d%m%Y}" for day in pd.date_range("2024", periods=40)], "2024-02-10"),
        ([f"{day:%y%m%d}" for day in pd.date_range("2024", periods=40)], "2024-02-10"),
        ([f"{day:%m/%d/%y}" for day in pd.date_range("2024", periods=40)], "2024-02-10"),
        ([f"{day:%y-%m-%d}" for day in pd.date_range("2024", periods=40)], "2024-02-10"),
        ([f"{day.day}.{day.month}.{day.year}" for day in JANUARY], "2024-02-01"),
        (["2023Q2", "2023Q3", "2023Q4"], "2024-01-01"),
        (["Q2/2023", "Q3/2023", "Q4/2023"], "2024-01-01"),
        (["2024-W01", "2024-W02", "2024-W03"], "2024-01-22"),
        (["10.2023", "11.2023", "12.2023"], "2024-01-01"),
        (["2023M10", "2023M11", "2023M12"], "2024-01-01"),
        (["Oct 2023", "Nov 2023", "Dec 2023"], "2024-01-01"),
        (["29 May 2024", "30 May 2024", "31 May 2024"], "2024-06-01"),
        (["29-May-24", "30-May-24", "31-May-24"], "2024-06-01"),
        (["May 29, 2024", "May 30, 2024", "May 31, 2024"], "2024-06-01"),
        ([f"1/{day}/24 {h}:00 {half}" for day in (13, 14) for half in ("AM", "PM")
          for h in (12, *range(1, 12))], "2024-01-15"),
        (["2024-01-01", "2024-01-01 12:00:00", "2024-01-02"], "2024-01-02 12:00:00"),
        (["2024-01-01T00:00Z", "2024-01-01T01:00Z", "2024-01-01T02:00Z"],
         "2024-01-01 03:00:00+00:00"),
        (["2024-01-01 00:00 UTC", "2024-01-01 01:00 UTC", "2024-01-01 02:00 UTC"],
         "2024-01-01 03:00:00+00:00"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else value,
)  # fmt: skip
def test_the_stamp_that_comes_next(stamps: list[str], following: str) -> None:
    assert next_stamp(column(stamps)) == following


def test_regular_rows_decide_between_day_and_month() -> None:
    days = [f"{day:%d/%m/%Y} {hour:02d}:00" for day in pd.date_range("2024-03-01", "2024-03-10")
            for hour in range(24)]  # fmt: skip
    assert read(column(days)).frame.index[-1] == pd.Timestamp("2024-03-10 23:00")
    american = [f"{day:%m/01/%Y}" for day in pd.date_range("2019", periods=60, freq="MS")]
    assert next_stamp(column(american)) == "2024-01-01"
    assert read(column(FIVE_YEARS)).notes == ()


def test_the_frequency_of_a_model_decides() -> None:
    text = column(["05/03/2024", "06/03/2024", "07/03/2024"])
    for frequency, last in (("D", "2024-03-07"), ("MS", None)):
        table = read_text(stream(text), FileOptions())
        if last is None:  # the third of each month is no month start
            with pytest.raises(FrameError, match="can be read day first"):
                table.wide(known=KnownStamps(frequency=frequency))
        else:
            frame = table.wide(known=KnownStamps(frequency=frequency)).frame
            assert frame.index[-1] == pd.Timestamp(last)
    numbers = read_text(stream(column([240304, 240305, 240306])), FileOptions())
    known = KnownStamps(index_kind="datetime", frequency="D")
    assert numbers.wide(known=known).frame.index[0] == pd.Timestamp("2024-03-04")


def test_what_was_decided_by_a_coincidence_is_said() -> None:
    (note,) = read(column(MONTHS)).notes
    assert "read day first: 2023-01-01, 2023-02-01 ... 2023-12-01" in note
    assert "day_first=False reads them month first: 2023-01-01, 2023-01-02" in note
    assert next_stamp(column(MONTHS), day_first=False) == "2023-01-13"
    assert read(column(MONTHS), day_first=True).notes == ()
    (note,) = read(column([f"{day:%Y%m%d}" for day in JANUARY])).notes
    assert "read as dates of format %Y%m%d" in note
    index = read(column([20240101, 20240102]), date_format="position").frame.index
    assert list(index) == [20240101, 20240102]


@pytest.mark.parametrize(
    ("stamps", "words"),
    [
        (["00:00", "00:15", "00:30"], "times of day without a date"),
        (["Monday", "Tuesday"], "does not hold times: 'Monday'"),
        (["today", "now"], "does not hold times"),
        (["0.5", "1.0", "1.5"], "not times or whole numbers"),
        (["2024-01-01", "", "2024-01-03"], "no time in row 2"),
        (["2024-01-01", "2024-01-02", "Total"], "row 3 has 'Total'"),
        (["2024-01-01", "2024-02-30"], "row 2 has '2024-02-30'"),
        (["31.01.2024", "32.01.2024"], "row 2 has '32.01.2024'"),
        (["01.01.2024 23:00", "01.01.2024 24:00"], "row 2 has '01.01.2024 24:00'"),
        (["20240101", "20240102", "20240230"], "row 3 below the header has 20240230"),
        (["2024-01-01 00:00Z", "2024-01-01 01:00"], "with and without an offset"),
        (["01/03/2024", "05/03/2024", "06/03/2024"], r"day first \(2024-03-01.* or month first"),
        ([f"05/03/2024 {hour:02d}:00" for hour in range(24)], "Give day_first=True or day_first="),
        ([f"{day:02d}/01/2024" for day in range(1, 10)], "Give day_first=True or day_first="),
        (["24-01-05", "24-01-06", "24-01-07"], "or year first"),
        ([f"2401{day:02d}" for day in range(1, 20)], "or positions. Give date_format="),
        ([f"20{month:02d}01" for month in range(1, 13)], "which can be read as"),
    ],
    ids=str,
)
def test_what_is_no_time_or_two_is_refused(stamps: list[str], words: str) -> None:
    with pytest.raises(FrameError, match=words):
        read(column(stamps))


def test_a_format_settles_it() -> None:
    stamps = ["05/03/2024", "06/03/2024", "08/03/2024"]
    assert read(column(stamps), day_first=True).frame.index[1] == pd.Timestamp("2024-03-06")
    assert read(column(stamps), day_first=False).frame.index[1] == pd.Timestamp("2024-06-03")
    index = read(column(["5h12/03/2024"]), date_format="%Hh%d/%m/%Y").frame.index
    assert index[0] == pd.Timestamp("2024-03-12 05:00")
    with pytest.raises(FrameError, match="row 2 below the header"):
        read(column(["05/03/2024", "05-03-2024"]), date_format="%d/%m/%Y")
    with pytest.raises(ParameterError, match="is no format"):
        read(column(stamps), date_format="dd/mm/yyyy")


def test_positions_stay_whole_numbers() -> None:
    for first, step in ((0, 1), (1, 1), (7, 5), (-3, 1), (999, 1)):
        positions = list(range(first, first + 20 * step, step))
        assert list(read(column(positions)).frame.index) == positions
    assert list(read(column(["0.0", "1.0", "2.0"])).frame.index) == [0, 1, 2]
    table = read_text(stream(column([2001, 2002, 2003])), FileOptions())
    assert list(table.wide(known=KnownStamps(index_kind="range")).frame.index) == [2001, 2002, 2003]


@pytest.mark.parametrize("frequency", ["h", "15min", "D"])
def test_clocks_that_change(frequency: str) -> None:
    there = pd.date_range("2024-03-29", "2024-04-02", freq=frequency, tz="Europe/Berlin")
    text = column(list(there))
    zoned = read(text, time_zone="Europe/Berlin").frame.index
    assert list(zoned) == list(there)
    assert str(zoned.dtype) == "datetime64[us, Europe/Berlin]"
    known = (
        read_text(stream(text), FileOptions())
        .wide(known=KnownStamps(zone="Europe/Berlin"))
        .frame.index
    )
    assert list(known) == list(there)
    if frequency == "D":  # regular on the clock of the zone alone
        with pytest.raises(FrameError, match="time_zone='Europe/Berlin'"):
            read(text)
    else:
        table = read(text)
        assert list(table.frame.index) == list(there.tz_convert("UTC"))
        assert str(table.frame.index.dtype) == "datetime64[us, UTC]"
        assert "+01:00 and +02:00" in table.notes[0]
    winter = read(column([f"{stamp:%Y-%m-%d %H:%M}+01:00" for stamp in there[:20]])).frame.index
    assert winter[0].utcoffset() == pd.Timedelta(hours=1)


def test_stamps_without_an_offset_are_put_into_a_zone() -> None:
    autumn = pd.date_range("2024-10-26", "2024-10-28", freq="h", tz="Europe/Berlin")
    index = read(column(list(autumn.tz_localize(None))), time_zone="Europe/Berlin").frame.index
    assert list(index) == list(autumn)  # the hour that comes twice, by its order
    with pytest.raises(FrameError, match="the clock of time_zone='Europe/Berlin' has not"):
        read(column(pd.date_range("2024-03-31", periods=4, freq="h")), time_zone="Europe/Berlin")
    days = pd.date_range("2024-09-05", periods=5, freq="D")  # a midnight that does not exist
    santiago = read(column(days), time_zone="America/Santiago").frame.index
    assert [stamp.hour for stamp in santiago] == [0, 0, 0, 1, 0]
    with pytest.raises(ParameterError, match="Did you mean 'Europe/Berlin'"):
        read(column(days), time_zone="Europe/Berln")


# --- dialects -------------------------------------------------------------------------------------


def test_ids_are_text_as_written() -> None:
    ids = ["007", "7", "1E5", "TRUE", "NA", "01", "1", "1.0", "nan"]
    rows = [f"{each};0{day}.01.2024;{day},5;x" for each in ids for day in (1, 2, 3)]
    text = "unique_id;ds;y;note\n" + "\n".join(rows)
    options = FileOptions(day_first=True)
    table = read_text(stream(text), options).long("unique_id", "ds", ["y"])
    assert list(dict.fromkeys(table.frame["unique_id"])) == ids
    assert table.frame["y"].tolist() == [1.5, 2.5, 3.5] * len(ids)
    assert any("not read" in note and "'note'" in note for note in table.notes)
    static = read_text(
        stream("id,kind,size,flag\n007,01,1.5,TRUE\n7,02,2,FALSE\nNA,NA,,TRUE\n"), FileOptions()
    ).static()
    assert list(static.frame.index) == ["007", "7", "NA"]
    assert list(static.frame["kind"]) == ["01", "02", "NA"]
    assert list(static.frame["flag"]) == ["TRUE", "FALSE", "TRUE"]
    np.testing.assert_array_equal(static.frame["size"], [1.5, 2.0, np.nan])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("date,a\n", "no rows below its header"),
        ("date\n2024-01-01\n", "give sep="),
        ("date,a\n2024-01-01,1,5\n2024-01-02,2,5\n", "row 1 below the header .* has 3 cells"),
        ("date,a,a\n2024-01-01,1,2\n", "two columns 'a'"),
        ("date,a, a \n2024-01-01,1,2\n", "two columns 'a'"),
        ("date,a,,b\n2024-01-01,1,2,3\n", "column 3 of .* has no name"),
        ("2024-01-01,1\n2024-01-02,2\n", "no header.*header=False"),
        ("x,01.01.2024,1\nx,02.01.2024,2\n", "no header"),
        ("0,1.5\n1,2.5\n", "no header"),
        ("a,date\n1,2024-01-01\n2,2024-01-02\n", "column 'date' holds times.*time_column="),
        ("a,date\n1.5,2024-01-01\n2,2024-01-02\n", "Column 'date' does"),
        ("d;a\n2024-01-01;1.234\n2024-01-02;2.345\n", "decimal='.' or decimal=','"),
        ("d;a;b\n2024-01-01;1.5;2,5\n2024-01-02;1.5;2,5\n", "points and commas"),
    ],
)  # fmt: skip
def test_files_that_would_be_read_wrongly_are_refused(text: str, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        read(text)


def test_what_other_programs_leave_in_files() -> None:
    wanted = pd.DataFrame(
        {"a": [1.0, 2.0], "b": [3.5, np.nan]},
        pd.DatetimeIndex(["2024-01-13", "2024-01-14"], name="date"),
    )
    for text in (
        "date,a,b\n2024-01-13,1,3.5\n2024-01-14,2,\n",
        "date,a,b,\n2024-01-13,1,3.5,\n2024-01-14,2,,\n",
        "date,a,b\n2024-01-13,1,3.5,\n2024-01-14,2,NA,\n",
        "date,a,b\n2024-01-13,1,3.5\n\n2024-01-14,2\n,,\n",
        " date , a,b \n2024-01-13, 1 ,3.5\n2024-01-14,2,#N/A\n",
        'sep=;\r\n"date";"a";"b"\r\n"2024-01-13";"1";"3,5"\r\n"2024-01-14";"2";""\r\n',
        "Unnamed: 0,date,a,b\n0,2024-01-13,1,3.5\n1,2024-01-14,2,\n",
        ",date,a,b\n1,2024-01-13,1,3.5\n2,2024-01-14,2,\n",
    ):
        frame = read(text).frame
        pd.testing.assert_frame_equal(
            frame, wanted, check_freq=False, check_index_type=False, obj=text
        )
    big = read('date;a\n13.01.2024;1.234.567,5\n14.01.2024;"2 345 678"\n').frame
    assert big["a"].tolist() == [1234567.5, 2345678.0]
    kept = read(",0,1\n0,1.5,2\n1,2.5,3\n").frame
    assert (list(kept.columns), list(kept.index)) == (["0", "1"], [0, 1])
    none = read("2024-01-13,1\n2024-01-14,2\n", header=False).frame
    assert list(none.columns) == ["1"]


def test_encodings() -> None:
    text = "Tag;Größe µ\n13.01.2024;1,5\n14.01.2024;2,5\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"):
        table = read_text(stream(text, encoding), FileOptions()).wide()
        assert list(table.frame.columns) == ["Größe µ"], encoding
        assert ("encoding=" in "".join(table.notes)) == (encoding == "cp1252")
    polish = stream("dzień;łąka\n2024-01-13;1\n2024-01-14;2\n", "cp1250")
    named = read_text(polish, FileOptions(encoding="cp1250")).wide()
    assert list(named.frame.columns) == ["łąka"]
    with pytest.raises(FrameError, match="encoding="):
        read_text(io.BytesIO(b"a,b\n\x81\x8d,1\n"), FileOptions())
    with pytest.raises(ParameterError, match="encoding='utf8000' is unknown"):
        read("a,b\n1,2\n", encoding="utf8000")


def test_options_are_checked() -> None:
    with pytest.raises(ParameterError, match="decimal="):
        read("a,b\n1,2\n", decimal=";")
    with pytest.raises(ParameterError, match="sep="):
        read("a,b\n1,2\n", sep="ab")
    assert read("a b\n2024-01-13   1\n", sep="space").frame["b"].tolist() == [1.0]
    assert read("d;a\n2024-01-01;1.234\n", decimal=",").frame["a"].tolist() == [1234.0]
    assert read("d;a\n2024-01-01;1.234\n", decimal=".").frame["a"].tolist() == [1.234]


def test_numbers_are_read_to_the_last_bit() -> None:
    values = np.random.default_rng(0).normal(size=500) * 10.0 ** np.arange(-250, 250)
    days = pd.date_range("1900", periods=500)
    frame = read(pd.DataFrame({"y": values}, days.rename("t")).to_csv()).frame
    np.testing.assert_array_equal(frame["y"].to_numpy(), values)


def test_parquet_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1.5, 2.5]}, pd.date_range("2024", periods=2, name="day"))
    path = tmp_path / "data.parquet"
    frame.to_parquet(path)
    got = read_text(path, FileOptions()).wide().frame
    pd.testing.assert_frame_equal(got, frame, check_freq=False)


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"pip install 'tsm2\[parquet\]'"):
        read_text(path, FileOptions())


# --- three hundred files --------------------------------------------------------------------------

HOURS = pd.date_range("2024-01-30", periods=60, freq="h")
DAYS = pd.date_range("2023-12-25", periods=60, freq="D")
WEEK = pd.date_range("2024-03-04", periods=9, freq="D")
MONTH_STARTS = pd.date_range("2021-01-01", periods=36, freq="MS")
FORMATS: dict[str, dict[str, Any]] = {
    "%Y-%m-%d %H:%M:%S": {}, "%Y/%m/%d %H:%M": {}, "%d.%m.%Y %H:%M": {"day_first": True},
    "%m/%d/%Y %I:%M %p": {"day_first": False}, "%d/%m/%y %H:%M": {"day_first": True},
    "%Y%m%d%H": {}, "%Y-%m-%dT%H:%MZ": {}, "%d %b %Y %H:%M": {}, "epoch": {},
    "position": {},
}  # fmt: skip
DATES: dict[str, dict[str, Any]] = {
    "%Y-%m-%d": {}, "%d/%m/%Y": {"day_first": True}, "%m/%d/%Y": {"day_first": False},
    "%d.%m.%y": {"day_first": True}, "%Y%m%d": {"date_format": "%Y%m%d"},
    "%y%m%d": {"date_format": "%y%m%d"}, "%y-%m-%d": {"date_format": "%y-%m-%d"},
    "%d%m%Y": {"date_format": "%d%m%Y"}, "%B %d, %Y": {},
}  # fmt: skip
DIALECTS = [
    (",", ".", "utf-8", ""), (",", ".", "utf-8-sig", "trailing"), (";", ",", "cp1252", "sep="),
    (";", ",", "utf-16", "blanks"), ("\t", ".", "utf-8", "quoted"), ("\t", ",", "utf-8", ""),
    ("|", ".", "latin-1", "blank lines"), (";", ".", "utf-8", "numbered"),
    (",", ",", "utf-8", "quoted"), (",", ".", "utf-8", "no header"),
]  # fmt: skip
IDS = [None, ["007", "7"], ["1E5", "TRUE"], ["NA", "01"], ["Köln, Süd", "Bonn"]]
NUMBERS = ["%.2f", "%.3f", "%d", "thousands"]


@dataclass
class Case:
    """A file with known content."""

    content: bytes
    index: pd.Index
    values: np.ndarray
    columns: list[str]
    ids: list[str] | None
    settled: dict[str, Any]
    """Options under which it must be read."""
    id_column: str = "Filiale"
    time_column: str = "Zeit"
    note: str = field(default="")


def cases() -> Iterator[Case]:
    steps = [(HOURS, FORMATS), (DAYS, DATES), (WEEK, DATES), (MONTH_STARTS, DATES)]
    dates = [(index, form, known) for index, forms in steps for form, known in forms.items()]
    for number, ((index, form, known), dialect) in enumerate(itertools.product(dates, DIALECTS)):
        if form == "position" and dialect[-1] == "numbered":
            continue  # a column of numbers without a name is the index, as pandas writes it
        ids = IDS[(number + number // len(DIALECTS)) % len(IDS)]
        kind = NUMBERS[(number + number // 7) % len(NUMBERS)]
        yield write(index, form, known, dialect, ids, kind, number)


def write(
    stamps: pd.DatetimeIndex,
    form: str,
    known: dict[str, Any],
    dialect: tuple[str, str, str, str],
    ids: list[str] | None,
    kind: str,
    seed: int,
) -> Case:
    sep, decimal, encoding, oddity = dialect
    if form == "epoch":
        texts = [str(stamp.value // 10**9) for stamp in stamps]
    elif form == "position":
        texts = [str(row) for row in range(len(stamps))]
    else:
        texts = [stamp.strftime(form) for stamp in stamps]
    names = ids or [""]
    drawn = np.random.default_rng(seed).uniform(1, 9999, (len(stamps) * len(names), 2))
    written = [[number_text(value, kind, decimal) for value in row] for row in drawn]
    values = np.array([[float(cell[1]) for cell in row] for row in written])
    columns = ["Größe", "load"]
    header = [*(["Filiale"] if ids else []), "Zeit", *columns]
    lines = [
        [*([each] if ids else []), texts[row], *(cell[0] for cell in written[place])]
        for place, (each, row) in enumerate(itertools.product(names, range(len(stamps))))
    ]
    settled: dict[str, Any] = {"sep": sep, "decimal": decimal, "encoding": encoding, **known}
    if form == "position":
        settled["date_format"] = "position"
    rows = [header, *lines]
    if oddity == "numbered":
        rows = [["", *header], *([str(place), *line] for place, line in enumerate(lines))]
    if oddity == "no header":
        rows, settled["header"] = lines, False
        header = list(map(str, range(len(header))))
        columns = header[-2:]
    quote = {"quoted": '"%s"', "blanks": "  %s "}.get(oddity, "%s")
    shown = [
        sep.join(f'"{cell}"' if sep in cell and oddity != "quoted" else quote % cell
                 for cell in row)
        for row in rows
    ]  # fmt: skip
    text = ("\n\n" if oddity == "blank lines" else "\r\n").join(
        [f"sep={sep}"] * (oddity == "sep=")
        + [line + sep * (oddity == "trailing") for line in shown]
    )
    zone = "UTC" if form.endswith("Z") else None
    index = pd.RangeIndex(len(stamps)) if form == "position" else stamps.tz_localize(zone)
    return Case(
        content=text.encode(encoding),
        index=index,
        values=values,
        columns=columns,
        ids=None if ids is None else [each for each in names for _ in stamps],
        settled=settled,
        id_column=header[0],
        time_column=header[-3],
        note=f"{form} {dialect} {ids} {kind}",
    )


def number_text(value: float, kind: str, decimal: str) -> tuple[str, str]:
    """Return a number as a file has it, and as Python reads it."""
    if kind == "thousands":
        plain = f"{value:.1f}"
        shown = f"{value:,.1f}".translate(str.maketrans(",.", ".," if decimal == "," else ",."))
        return shown, plain
    plain = kind % value
    return plain.replace(".", decimal), plain


def taken(case: Case, options: dict[str, Any]) -> FileTable:
    text = read_text(io.BytesIO(case.content), FileOptions(**options))
    if case.ids is None:
        return text.wide()
    return text.long(case.id_column, case.time_column, case.columns)


def check(case: Case, table: FileTable) -> None:
    frame = table.frame
    np.testing.assert_array_equal(frame[case.columns].to_numpy(), case.values, case.note)
    if case.ids is None:
        assert list(frame.columns) == case.columns, case.note
        index = frame.index
    else:
        assert frame[case.id_column].tolist() == case.ids, case.note
        index = pd.Index(frame[case.time_column])
    wanted = list(case.index) * (1 if case.ids is None else len(set(case.ids)))
    assert list(index) == wanted, f"{case.note}: {index[:3]}"


def test_three_hundred_files_are_read_exactly_or_refused_with_the_way_out() -> None:
    ways = ("sep=", "decimal=", "encoding=", "date_format=", "day_first=", "header=")
    refusals = []
    n_cases = 0
    for case in cases():
        n_cases += 1
        try:
            table = taken(case, {})
        except FrameError as error:
            refusals.append(f"{case.note}: {error}")
        else:
            check(case, table)
        check(case, taken(case, case.settled))  # with the options that settle it
    assert n_cases >= 300
    assert [each for each in refusals if not any(way in each for way in ways)] == []
    assert len(refusals) < 0.3 * n_cases, refusals
