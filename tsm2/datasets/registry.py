"""What is known of each benchmark file: addresses, size, checksum, shape, licence and splits.

An address says where a file can be had; the checksum decides whether it is the file.

Splits, in rows, in time order:

    ETTh1, ETTh2    8640 / 2880 / 2880      12, 4 and 4 months of 30 days; later rows are not used
    ETTm1, ETTm2    four times as many      the same months at 15 minutes
    all others      int(0.7 n) / the rest / int(0.2 n)

Source: Zhou et al. (2021), arXiv:2012.07436 (the ETT files and months); Wu et al. (2021),
arXiv:2106.13008, and their released loader (the other files, 70/10/20 and its rounding);
Lai et al. (2018), arXiv:1703.07015 (Solar, Traffic, Electricity and Exchange at their origin).
"""

from dataclasses import dataclass
from difflib import get_close_matches

from tsm2.errors import DatasetError, ParameterError

__all__ = ["Dataset", "Split", "borders", "describe", "names"]

_ETT = (
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07"
)
_LAIGUOKUN = "https://raw.githubusercontent.com/laiguokun/multivariate-time-series-data/7f402f185cc2435b5e66aed13a3b560ed142e023"
_SCALATION = (
    "https://raw.githubusercontent.com/scalation/data/26c82efa44e473f986dcdd15ff6f8db9e908a88f"
)
_TSLIB = "https://huggingface.co/datasets/thuml/Time-Series-Library/resolve/main"

_ETT_LICENCE = "CC BY-ND 4.0 (ETDataset); its Hugging Face copy ETDataset/ett says CC BY 4.0"
_TSLIB_LICENCE = (
    "none stated at the origin; the Hugging Face copy thuml/Time-Series-Library says CC BY 4.0"
)

_HOURLY_SPLIT = (8640, 2880, 2880)
_QUARTER_HOURLY_SPLIT = (4 * 8640, 4 * 2880, 4 * 2880)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One benchmark file; says nothing about models.

    The functions of `tsm2.datasets` take a record of your own wherever they take a name.

    Examples
    --------
    >>> from tsm2.datasets import describe
    >>> etth1 = describe("ETTh1")
    >>> etth1.file, etth1.rows, etth1.variates, etth1.frequency
    ('ETT-small/ETTh1.csv', 17420, 7, 'h')
    """

    name: str
    """Name of the dataset in tables and on the command line."""
    file: str
    """Path of the file relative to the data home, with forward slashes."""
    addresses: tuple[str, ...]
    """Where to download the file, best first."""
    bytes: int | None
    """Size of the file; None where it is not known."""
    sha256: str | None
    """SHA-256 of the file, hexadecimal; None where it is not known."""
    git_blob: str | None = None
    """Git's object id (SHA-1) of the file, checked where `sha256` is None."""
    rows: int
    """Time steps."""
    variates: int
    """Columns beside the date."""
    frequency: str
    """Step between rows, a pandas offset alias."""
    licence: str
    """What the sources say of the licence."""
    split_rows: tuple[int, int, int] | None = None
    """Rows of the training, validation and test part; None for 70/10/20 percent."""
    horizons: tuple[int, ...] = (96, 192, 336, 720)
    """Forecast lengths with published results, in steps."""
    start: str | None = None
    """First time stamp of a file that has no header and no dates; None for all others."""
    notes: tuple[str, ...] = ()
    """What surprises in the file; `load` changes none of it."""

    def __post_init__(self) -> None:
        if self.sha256 is None and self.git_blob is None:
            raise ValueError(f"dataset {self.name!r} needs a sha256 or a git_blob to be verified")

    @property
    def checksum(self) -> str:
        """The checksum that identifies the file, with its kind in front.

        Examples
        --------
        >>> from tsm2.datasets import describe
        >>> describe("Solar").checksum
        'git blob 08a1f235546b3708309ff4fb544a54bb82e4f5e7'
        """
        return f"git blob {self.git_blob}" if self.sha256 is None else f"sha256 {self.sha256}"


@dataclass(frozen=True, slots=True)
class Split:
    """Where the parts of a table end, in rows: training, validation and test follow each other."""

    train_end: int
    """Rows before this one train the model."""
    validation_end: int
    """Rows from `train_end` up to this one choose settings."""
    test_end: int
    """Rows from `validation_end` up to this one judge; later rows are not used."""


_DATASETS = (
    Dataset(
        name="ETTh1",
        file="ETT-small/ETTh1.csv",
        addresses=(f"{_ETT}/ETT-small/ETTh1.csv", f"{_TSLIB}/ETT-small/ETTh1.csv"),
        bytes=2_589_657,
        sha256="f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
        rows=17_420,
        variates=7,
        frequency="h",
        licence=_ETT_LICENCE,
        split_rows=_HOURLY_SPLIT,
    ),
    Dataset(
        name="ETTh2",
        file="ETT-small/ETTh2.csv",
        addresses=(f"{_ETT}/ETT-small/ETTh2.csv", f"{_TSLIB}/ETT-small/ETTh2.csv"),
        bytes=2_417_960,
        sha256="a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
        rows=17_420,
        variates=7,
        frequency="h",
        licence=_ETT_LICENCE,
        split_rows=_HOURLY_SPLIT,
    ),
    Dataset(
        name="ETTm1",
        file="ETT-small/ETTm1.csv",
        addresses=(f"{_ETT}/ETT-small/ETTm1.csv", f"{_TSLIB}/ETT-small/ETTm1.csv"),
        bytes=10_360_719,
        sha256="6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
        rows=69_680,
        variates=7,
        frequency="15min",
        licence=_ETT_LICENCE,
        split_rows=_QUARTER_HOURLY_SPLIT,
    ),
    Dataset(
        name="ETTm2",
        file="ETT-small/ETTm2.csv",
        addresses=(f"{_ETT}/ETT-small/ETTm2.csv", f"{_TSLIB}/ETT-small/ETTm2.csv"),
        bytes=9_677_236,
        sha256="db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd",
        rows=69_680,
        variates=7,
        frequency="15min",
        licence=_ETT_LICENCE,
        split_rows=_QUARTER_HOURLY_SPLIT,
    ),
    Dataset(
        name="Weather",
        file="weather/weather.csv",
        addresses=(f"{_TSLIB}/weather/weather.csv",),
        bytes=7_235_425,
        sha256="34ee981d07313e51da2a50bb600072c8ae4a69cb4b0651f4cb93a069d7a2ba63",
        rows=52_696,
        variates=21,
        frequency="10min",
        licence=_TSLIB_LICENCE,
        notes=(
            "-9999 marks missing values: 1 in 'wv (m/s)', 30 in 'max. PAR', 50 in 'OT' (CO2).",
            "The stamp 2020-05-12 06:00 occurs twice.",
            "A gap: 2020-05-29 11:10 follows 09:30.",
            "Three column names hold U+FFFD where the signs for square and micro were lost.",
            "Lines end in CRLF.",
        ),
    ),
    Dataset(
        name="Exchange",
        file="exchange_rate/exchange_rate.csv",
        addresses=(
            f"{_TSLIB}/exchange_rate/exchange_rate.csv",
            "https://raw.githubusercontent.com/wayne155/multivariate_timeseries_datasets/main/exchange_rate/exchange_rate.csv",
        ),
        bytes=637_800,
        sha256="48b4d9d3d508f5104162e85b9a6042e3557fde11aa9f2944eba8c0d0efc89842",
        rows=7_588,
        variates=8,
        frequency="D",
        licence=_TSLIB_LICENCE,
        notes=(
            "The dates are not true: business days of 1990-2016 stamped as consecutive days.",
            "The last two columns are swapped against Lai et al.'s undated file.",
            "Dates are written 1990/1/1 0:00; lines end in CRLF, without one at the end.",
        ),
    ),
    Dataset(
        name="ILI",
        file="illness/national_illness.csv",
        addresses=(
            f"{_SCALATION}/Influenza/national_illness.csv",
            f"{_TSLIB}/illness/national_illness.csv",
        ),
        bytes=67_620,
        sha256="93601f64d2566dc796ca4305adad8b8560c2db1a1ff04543c3bd813a7263570a",
        rows=966,
        variates=7,
        frequency="W-TUE",
        licence=_TSLIB_LICENCE,
        horizons=(24, 36, 48, 60),
        notes=(
            "The scales of the columns differ by a factor of 1e5.",
            "Published errors often leave out the last incomplete batch of 32 windows.",
            "Lines end in CRLF.",
        ),
    ),
    Dataset(
        name="Traffic",
        file="traffic/traffic.csv",
        addresses=(f"{_TSLIB}/traffic/traffic.csv",),
        bytes=136_478_119,
        sha256="cb06463d56fa17d87f47027cd9389ceae82a69eddee51cdb61480e120dab0b16",
        rows=17_544,
        variates=862,
        frequency="h",
        licence=_TSLIB_LICENCE,
        notes=(
            "The dates are shifted: data of 2015-2016 stamped from 2016-07-01 02:00 on.",
            "Lines end in CRLF.",
        ),
    ),
    Dataset(
        name="Electricity",
        file="electricity/electricity.csv",
        addresses=(f"{_TSLIB}/electricity/electricity.csv",),
        bytes=95_581_762,
        sha256="7e45845d54c5219bad0ae6bc1b5316cf8ff9cead5d33fa998a5a51c2e4a497ad",
        rows=26_304,
        variates=321,
        frequency="h",
        licence=_TSLIB_LICENCE,
        notes=("Copies with other bytes (date format, decimals) are about and are refused.",),
    ),
    Dataset(
        name="Solar",
        file="solar/solar_AL.txt.gz",
        addresses=(f"{_LAIGUOKUN}/solar-energy/solar_AL.txt.gz",),
        bytes=None,
        sha256=None,
        git_blob="08a1f235546b3708309ff4fb544a54bb82e4f5e7",
        rows=52_560,
        variates=137,
        frequency="10min",
        licence="none stated",
        start="2006-01-01 00:00:00",
        notes=(
            "No header and no dates: columns are numbered, and the index is the 10 minute steps "
            "of 2006, the year the data are from.",
            "Size and SHA-256 are not known; the compressed file is verified by its git blob id.",
        ),
    ),
)


def names() -> tuple[str, ...]:
    """Return the names of the benchmark datasets.

    Examples
    --------
    >>> from tsm2.datasets import names
    >>> names()[:4]
    ('ETTh1', 'ETTh2', 'ETTm1', 'ETTm2')
    """
    return tuple(record.name for record in _DATASETS)


def describe(dataset: str | Dataset) -> Dataset:
    """Return the record of a dataset.

    Parameters
    ----------
    dataset
        Name in any case, or a record, which is returned as it is.

    Returns
    -------
    The record.

    Raises
    ------
    DatasetError
        No dataset has this name; the message names the nearest ones.

    Examples
    --------
    >>> from tsm2.datasets import describe
    >>> describe("weather").notes[1]
    'The stamp 2020-05-12 06:00 occurs twice.'
    """
    if isinstance(dataset, Dataset):
        return dataset
    by_name = {record.name.casefold(): record for record in _DATASETS}
    wanted = str(dataset).strip().casefold()
    if wanted in by_name:
        return by_name[wanted]
    near = [by_name[key].name for key in get_close_matches(wanted, by_name)]
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise DatasetError(f"no dataset is named {dataset!r}. {hint}Known: {', '.join(names())}.")


def borders(dataset: str | Dataset, n_rows: int | None = None) -> Split:
    """Return the published borders between training, validation and test rows.

    Parameters
    ----------
    dataset
        Name in any case, or a record.
    n_rows
        Rows of the table to split; those of the full file if None.

    Returns
    -------
    The borders, counted in rows from the start of the table.

    Raises
    ------
    DatasetError
        No dataset has this name.
    ParameterError
        `n_rows` leaves a part empty, or is fewer than the fixed rows of an ETT split need.

    References
    ----------
    Zhou et al. (2021) for ETT; Wu et al. (2021), released loader, for the others: training is
    ``int(0.7 * n)``, test ``int(0.2 * n)``, validation the rest.

    Examples
    --------
    >>> from tsm2.datasets import borders
    >>> borders("ETTh1")
    Split(train_end=8640, validation_end=11520, test_end=14400)
    """
    record = describe(dataset)
    n = record.rows if n_rows is None else n_rows
    if record.split_rows is None:
        train, test = int(0.7 * n), int(0.2 * n)
        validation = n - train - test
    else:
        train, validation, test = record.split_rows
    split = Split(train, train + validation, train + validation + test)
    if min(train, validation, test) < 1 or split.test_end > n:
        raise ParameterError(
            f"{record.name} cannot be split at {n} rows into {train} + {validation} + {test} "
            f"(training + validation + test). Pass the whole table, {record.rows} rows."
        )
    return split
