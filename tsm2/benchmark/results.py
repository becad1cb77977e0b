"""The result file: one row per run, which no kill and no second runner can lose or tear.

A row is appended under a file lock, in one write that reaches the disk before the lock is let
go. A last line without its end was torn by a kill: readers leave it out, the next writer cuts it
off. What a run is, is its key; a finished key never runs again.
"""

import csv
import hashlib
import io
import os
import re
from pathlib import Path

import pandas as pd
from filelock import FileLock

from tsm2.errors import OutputError

__all__ = [
    "COLUMNS",
    "KEY",
    "Key",
    "append_row",
    "finished",
    "read_results",
    "run_folder",
    "run_stem",
]

KEY = ("dataset", "lookback", "horizon", "model", "config", "seed")
"""The columns that name a run."""

COLUMNS = (
    *KEY,
    *("n_windows", "mse", "mae", "fit_seconds", "predict_seconds", "peak_memory_mb"),
    *("device", "threads", "versions", "commit", "date"),
)
"""All columns, in order."""

_WHOLE = ("lookback", "horizon", "seed", "n_windows")
_NUMBERS = ("mse", "mae")
_MEASURED = ("fit_seconds", "predict_seconds", "peak_memory_mb", "threads")  # where it could be

Key = tuple[str, ...]


def read_results(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a result file; no file is no rows.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    One row per run, with the columns of `COLUMNS`.

    Raises
    ------
    OutputError
        The file cannot be read, or is no result file.
    """
    lines = [",".join(COLUMNS), *_rows(Path(path))]
    return pd.read_csv(io.StringIO("\n".join(lines)), keep_default_na=False)


def finished(path: str | os.PathLike[str]) -> set[Key]:
    """Return the keys of the runs that a result file holds.

    Raises
    ------
    OutputError
        As `read_results`.
    """
    return {tuple(row[: len(KEY)]) for row in csv.reader(_rows(Path(path)))}


def append_row(path: str | os.PathLike[str], row: dict[str, str]) -> None:
    """Add one run to a result file, which is made if missing.

    Parameters
    ----------
    path
        The file.
    row
        A value for each of `COLUMNS`.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([row[name] for name in COLUMNS])
    try:
        with FileLock(run_folder(path) / "results.lock"), Path(path).open("a+b") as file:
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            file.truncate(whole)
            header = "" if whole else ",".join(COLUMNS) + "\n"
            file.write((header + line.getvalue()).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def run_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder beside a result file that holds what belongs to its runs, made if missing.

    Raises
    ------
    OutputError
        It cannot be made.
    """
    folder = Path(path).with_suffix(".runs")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error
    return folder


def run_stem(key: Key) -> str:
    """Return a file name, without an ending, for what belongs to a run.

    Examples
    --------
    >>> run_stem(("ETTh1", "512", "96", "sklearn:Ridge", "{}", "0"))
    'ETTh1-512-96-sklearn_Ridge-0-11bf70c9571b'
    """
    digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:12]
    words = "-".join(part for name, part in zip(KEY, key, strict=True) if name != "config")
    return f"{re.sub(r'[^A-Za-z0-9-]+', '_', words)}-{digest}"


def _rows(path: Path) -> list[str]:
    """Return the whole lines behind the header."""
    try:
        content = path.read_bytes().decode()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"cannot read {path}: {error}") from error
    header = ",".join(COLUMNS)
    whole = content.split("\n")[:-1]
    if whole[:1] != [header] and not (header.startswith(content) and not whole):
        raise OutputError(
            f"{path} is no result file of the benchmark: its first line is not "
            f"{','.join(COLUMNS)!r}. Name another file with --out."
        )
    for number, line in enumerate(whole[1:], 2):
        if not _is_row(line):
            raise OutputError(f"{path} is damaged in line {number}. Correct or delete that line.")
    return whole[1:]


def _is_row(line: str) -> bool:
    """Return whether a line is a row of a result file, with numbers where they belong."""
    try:
        (cells,) = csv.reader([line], strict=True)
        row = dict(zip(COLUMNS, cells, strict=True))
        for name in _WHOLE:
            int(row[name])
        for name in _NUMBERS:
            float(row[name])
        for name in _MEASURED:
            float(row[name] or "nan")
    except (ValueError, csv.Error):  # also a field of more than csv's 128 KB
        return False
    return True
