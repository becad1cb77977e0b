"""Where a benchmark file lies: found, verified, or downloaded and verified.

Looked for, in this order:

    1. the folder `data_home`, or else the folder in the environment variable TSM2_DATA_HOME
    2. the user's cache folder, ``pooch.os_cache("tsm2")``
    3. `fetch` and `load` only: a download into the cache folder

In a folder the file may lie at its relative path (ETT-small/ETTh1.csv) or directly (ETTh1.csv).
The first one found counts: if it is not the right file, that is an error, never a reason to look
on. Size and checksum are verified at every use.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Literal

import pooch

from tsm2.datasets.registry import Dataset, describe
from tsm2.errors import DatasetError

__all__ = ["FileCheck", "check", "fetch", "path"]

_CHUNK = 2**20  # bytes per write of a download
_MOST_BYTES = 2**32  # of a download whose size is not known


@dataclass(frozen=True, kw_only=True, slots=True)
class FileCheck:
    """What `check` found out about one file."""

    dataset: str
    """Name of the dataset."""
    status: Literal["present", "missing", "wrong size", "wrong checksum"]
    """Only a file that is "present" is used."""
    path: Path
    """Where the file lies; if missing, where to put it."""
    expected: str
    """The size or checksum that the file must have."""
    found: str | None
    """The size or checksum that it has; None if missing."""


def check(dataset: str | Dataset, *, data_home: str | os.PathLike[str] | None = None) -> FileCheck:
    """Look for a dataset's file and verify it, without downloading or raising for what is found.

    Parameters
    ----------
    dataset
        Name in any case, or a record.
    data_home
        Folder to look in first; the environment variable TSM2_DATA_HOME if None.

    Returns
    -------
    The status, the path, and what was expected and found there.

    Raises
    ------
    DatasetError
        No dataset has this name, or the data home is not a folder.

    Examples
    --------
    >>> import tempfile
    >>> from tsm2.datasets import Dataset, check
    >>> mine = Dataset(name="Mine", file="not_there.csv", addresses=(), bytes=None,
    ...                sha256="0" * 64, rows=1, variates=1, frequency="h", licence="my own")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check(mine, data_home=folder).status
    'missing'
    """
    record = describe(dataset)
    folders = _folders(data_home)
    for folder in folders:
        for file in (folder / record.file, folder / Path(record.file).name):
            if file.is_file():
                return _verify(file, record)
    return FileCheck(
        dataset=record.name,
        status="missing",
        path=folders[0] / record.file,
        expected=record.checksum,
        found=None,
    )


def path(dataset: str | Dataset, *, data_home: str | os.PathLike[str] | None = None) -> Path:
    """Return where a dataset's verified file lies on this machine; never download.

    Parameters
    ----------
    dataset
        Name in any case, or a record.
    data_home
        Folder to look in first; the environment variable TSM2_DATA_HOME if None.

    Returns
    -------
    Path of the file, whose size and checksum are right.

    Raises
    ------
    DatasetError
        No dataset has this name, or its file is missing or not the right one. The message says
        where to put the file, its checksum and its address.

    Examples
    --------
    >>> from tsm2.datasets import path
    >>> path("ETTh1")  # doctest: +SKIP
    PosixPath('/home/me/data/ETT-small/ETTh1.csv')
    """
    record = describe(dataset)
    found = check(record, data_home=data_home)
    if found.status == "missing":
        raise DatasetError(
            f"{record.name}: {record.file} is not in "
            f"{' or '.join(str(folder) for folder in _folders(data_home))}. "
            f"{_way_to_get(record, found.path)}"
        )
    return _usable(found)


def fetch(dataset: str | Dataset, *, data_home: str | os.PathLike[str] | None = None) -> Path:
    """Return where a dataset's verified file lies; download it into the user's cache if missing.

    A download gets its final name only after its size and checksum were verified.

    Parameters
    ----------
    dataset
        Name in any case, or a record.
    data_home
        Folder to look in first; the environment variable TSM2_DATA_HOME if None.

    Returns
    -------
    Path of the file, whose size and checksum are right.

    Raises
    ------
    DatasetError
        No dataset has this name, its file is not the right one, or no address gave the right
        one. The message says what each address gave, where to put the file and its checksum.

    Examples
    --------
    >>> from tsm2.datasets import fetch
    >>> fetch("ETTh1")  # doctest: +SKIP
    PosixPath('/home/me/.cache/tsm2/ETT-small/ETTh1.csv')
    """
    record = describe(dataset)
    found = check(record, data_home=data_home)
    if found.status != "missing":
        return _usable(found)
    target = _cache() / record.file
    outcomes = []
    cause: Exception | None = None
    for address in record.addresses:
        try:
            _download(record, address, target)
        except (OSError, ValueError) as error:  # every error of requests is an OSError
            outcomes.append(f"{address}: {_reason(error)}")
            cause = error
        else:
            return target
    raise DatasetError(
        f"{record.name}: {record.file} is not on this machine and could not be downloaded "
        f"({'; '.join(outcomes) or 'no address is known'}). {_way_to_get(record, found.path)}"
    ) from cause


def _folders(data_home: str | os.PathLike[str] | None) -> list[Path]:
    """Folders to look in, first to last."""
    origin, home = "data_home", data_home
    if home is None:
        origin, home = "TSM2_DATA_HOME", os.environ.get("TSM2_DATA_HOME") or None
    if home is None:
        return [_cache()]
    folder = Path(home).expanduser()
    if not folder.is_dir():
        raise DatasetError(
            f"{origin} is {str(folder)!r}, which is not a folder. Create it, correct it, "
            f"or leave it out to use {_cache()}."
        )
    return [folder, _cache()]


def _cache() -> Path:
    return Path(pooch.os_cache("tsm2"))


def _verify(file: Path, record: Dataset) -> FileCheck:
    """Compare size, then checksum: the size is free, and tells most wrong files."""
    status: Literal["present", "wrong size", "wrong checksum"]
    size = file.stat().st_size
    if record.bytes is not None and size != record.bytes:
        status, expected, found = "wrong size", f"{record.bytes:,} bytes", f"{size:,} bytes"
    else:
        expected, found = record.checksum, _checksum(file, record)
        status = "present" if found == expected else "wrong checksum"
    return FileCheck(dataset=record.name, status=status, path=file, expected=expected, found=found)


def _checksum(file: Path, record: Dataset) -> str:
    """Checksum of a file, of the kind and in the words of `Dataset.checksum`."""
    with file.open("rb") as content:
        if record.sha256 is not None:
            return f"sha256 {hashlib.file_digest(content, 'sha256').hexdigest()}"
        blob = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
        return f"git blob {hashlib.file_digest(content, lambda: blob).hexdigest()}"


def _usable(found: FileCheck) -> Path:
    if found.status != "present":
        raise DatasetError(
            f"{found.dataset}: {found.path} has the {found.status}: expected {found.expected}, "
            f"found {found.found}. It is damaged or another version, and was not used. Delete "
            f"or move it, then fetch the file again with 'tsm2 data get {found.dataset}'."
        )
    return found.path


def _download(record: Dataset, address: str, target: Path) -> None:
    """Download, verify, and only then move to `target`, in one step of the file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
        part = Path(folder) / target.name
        try:
            with part.open("xb") as file:
                limited = _Limited(file, record.bytes or _MOST_BYTES)
                pooch.HTTPDownloader(chunk_size=_CHUNK)(address, limited, None)
        except OSError as error:
            response = getattr(error, "response", None)
            if response is not None:
                response.close()  # pooch leaves the connection of a refused request open
            raise
        found = _verify(part, record)
        if found.status != "present":
            raise DatasetError(f"{found.status}, expected {found.expected}, found {found.found}")
        part.replace(target)


class _Limited:
    """A file that takes no more than so many bytes: an address may send without end."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._most, self._left = file, most, most

    def write(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise DatasetError(f"more than the {self._most:,} bytes expected")
        self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _reason(error: Exception) -> str:
    """Say in a few words why an address gave nothing, without the words of foreign libraries."""
    if isinstance(error, DatasetError):
        return str(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP status {status}"
    words = getattr(error, "strerror", None)  # set by the operating system, such as "disk full"
    return f"{type(error).__name__}, {words}" if words else type(error).__name__


def _way_to_get(record: Dataset, target: Path) -> str:
    size = "size not known" if record.bytes is None else f"{record.bytes:,} bytes"
    address = record.addresses[0] if record.addresses else "where you have it"
    return (
        f"Get it from {address} ({size}, {record.checksum}) and put it at {target}, "
        f"or name a folder that has it with data_home= or TSM2_DATA_HOME."
    )
