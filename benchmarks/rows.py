"""Result files of the programs here that can be run again: one row per run."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["add_row", "keys_in"]


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
