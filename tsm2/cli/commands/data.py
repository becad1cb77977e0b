"""`tsm2 data list | get | check`: the benchmark datasets."""

from typing import Annotated

import typer

from tsm2.cli.options import AsJson, DataHome
from tsm2.cli.printing import print_json, print_line, print_rows

__all__ = ["data_check", "data_get", "data_list"]

_CHECKED = ("status", "path", "expected", "found")


def data_list(as_json: AsJson = False) -> None:
    """List the datasets with their sizes and licences."""
    from tsm2 import datasets

    records = {name: datasets.describe(name) for name in datasets.names()}
    print_rows(
        ("name", "rows", "variates", "frequency", "licence"),
        [(name, r.rows, r.variates, r.frequency, r.licence) for name, r in records.items()],
        as_json=as_json,
    )


def data_get(name: str, data_dir: DataHome = None, as_json: AsJson = False) -> None:
    """Fetch a dataset, verify its checksum, and print where it is."""
    from tsm2 import datasets

    file = datasets.fetch(name, data_home=data_dir)
    if as_json:
        print_json({"name": name, "path": file})
    else:
        print_line(str(file))


def data_check(
    name: Annotated[str | None, typer.Argument(help="One dataset; all by default.")] = None,
    data_dir: DataHome = None,
    as_json: AsJson = False,
) -> None:
    """Compare local files with their known sizes and checksums; exit code 1 if one is damaged."""
    from tsm2 import datasets

    damaged = False
    for each in datasets.names() if name is None else [name]:
        result = datasets.check(each, data_home=data_dir)
        damaged |= result.status.startswith("wrong")
        if as_json:
            print_json({"name": each} | {key: getattr(result, key) for key in _CHECKED})
            continue
        line = f"{each}: {result.status}, {result.path}"
        if result.status.startswith("wrong"):
            line += f" (expected {result.expected}, found {result.found})"
        print_line(line)
    if damaged:
        raise typer.Exit(1)
