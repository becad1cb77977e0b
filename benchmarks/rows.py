"""Programs here that can be run again: what they are told, and their files, one row per run."""

import argparse
import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

__all__ = ["add_row", "folder_given", "keys_in", "run_or_show"]


def run_or_show(
    about: str | None,
    results: Path,
    rows: Callable[[Path], Iterable[Mapping[str, object]]],
    show: Callable[[], None],
) -> None:
    """Do what the command line asks for: run what is missing, or show what is there.

    Parameters
    ----------
    about
        The program's docstring, whose first line says what it is for.
    results
        File of the results.
    rows
        Makes the rows that it lacks, from the folder of the public files.
    show
        Prints what is there.
    """
    data = folder_given(about or "")
    if data is None:
        show()
        return
    for row in rows(data):
        add_row(results, row)
        print(*row.values(), flush=True)


def folder_given(about: str) -> Path | None:
    """Return the folder of the public files that `--data` names; None for `--summary`.

    Parameters
    ----------
    about
        The program's docstring, whose first line says what it is for.
    """
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, metavar="FOLDER", help="of the public files: run")
    what.add_argument("--summary", action="store_true", help="print what is there")
    return parser.parse_args().data


def keys_in(path: Path, key: Sequence[str]) -> set[tuple[str, ...]]:
    """Return what names each row of a file; no file is no rows."""
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {tuple(row[name] for name in key) for row in csv.DictReader(file)}


def add_row(path: Path, row: Mapping[str, object]) -> None:
    """Add a row to a file, which begins with its columns."""
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)
