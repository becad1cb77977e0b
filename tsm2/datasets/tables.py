"""A benchmark file as a table: rows are time steps, columns are variates in the file's order.

Nothing is repaired or left out: sentinels, duplicate stamps and gaps stay as the published
results saw them. `Dataset.notes` lists them.
"""

import os
from pathlib import Path

import pandas as pd

from tsm2.datasets.files import fetch, path
from tsm2.datasets.registry import Dataset, describe
from tsm2.errors import DatasetError

__all__ = ["load"]


def load(
    dataset: str | Dataset,
    *,
    data_home: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> pd.DataFrame:
    """Load a benchmark dataset, from this machine or from its public address.

    The file is looked for in `data_home` (or else the folder in the environment variable
    TSM2_DATA_HOME), then in the user's cache folder; a download goes into the cache folder.

    Weather has one duplicate stamp and one gap, which a forecaster of regular series refuses.
    The published results count rows and do not look at the stamps; to do the same, fit
    ``load("Weather").reset_index(drop=True)``.

    Solar has no dates: its index is the 10 minute steps of 2006, the year its data are from.

    Parameters
    ----------
    dataset
        Name in any case, or a record.
    data_home
        Folder to look in first; the environment variable TSM2_DATA_HOME if None.
    download
        Whether a file that is not on this machine may be downloaded.

    Returns
    -------
    Table with a DatetimeIndex named "date", one float64 column per variate.

    Raises
    ------
    DatasetError
        No dataset has this name, its file is not the right one, or it is missing and cannot be
        downloaded. The message says what to put where.

    Examples
    --------
    >>> from tsm2.datasets import load
    >>> load("ETTh1").shape  # doctest: +SKIP
    (17420, 7)
    """
    record = describe(dataset)
    locate = fetch if download else path
    return read_table(locate(record, data_home=data_home), record)


def read_table(file: Path, record: Dataset) -> pd.DataFrame:
    """Read a file laid out as `record` says, of any number of rows, without verifying it."""
    try:
        if record.start is None:
            return _read_dated(file)
        return _read_undated(file, record.start, record.frequency)
    except ValueError as error:  # a cell that is no number, no date, or not UTF-8
        raise DatasetError(
            f"{record.name}: {file} is not laid out as expected ({error}). "
            f"Compare it with the file at {', '.join(record.addresses) or 'its origin'}."
        ) from error


def _read_dated(file: Path) -> pd.DataFrame:
    table = pd.read_csv(file, encoding="utf-8")
    if table.columns[0] != "date":
        raise ValueError(f"its first column is {table.columns[0]!r}, not 'date'")
    stamps = table.pop("date").astype(str)
    slashes = len(stamps) > 0 and "/" in stamps.iloc[0]  # 1990/1/1 0:00
    layout = "%Y/%m/%d %H:%M" if slashes else "%Y-%m-%d %H:%M:%S"
    table.index = pd.DatetimeIndex(pd.to_datetime(stamps, format=layout), name="date")
    return table.astype("float64")


def _read_undated(file: Path, start: str, frequency: str) -> pd.DataFrame:
    table = pd.read_csv(file, header=None, encoding="utf-8")
    table.columns = pd.Index([str(number) for number in range(table.shape[1])])
    table.index = pd.date_range(start, periods=len(table), freq=frequency, name="date")
    return table.astype("float64")
