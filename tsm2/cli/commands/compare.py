"""`tsm2 compare`: models on a table of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from tsm2.cli.options import (
    AsJson,
    DataFile,
    IdColumn,
    Quiet,
    Reading,
    TargetColumns,
    TimeColumn,
    reads_files,
)
from tsm2.cli.printing import print_json, print_line, print_rows, say

__all__ = ["compare"]


@reads_files
def compare(
    data: DataFile,
    horizon: Annotated[int, typer.Option(help="Rows to forecast.")],
    models: Annotated[
        str | None,
        typer.Option(
            help="TSM2,ETS,sklearn:Ridge(alpha=10); the floor, TSM2 and what is installed by "
            "default."
        ),
    ] = None,
    season: Annotated[
        int | None, typer.Option(help="Rows of a season; of the frequency by default.")
    ] = None,
    windows: Annotated[
        int | None, typer.Option(help="Forecasts that judge; a fifth of the rows by default.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="Rows from one forecast to the next; the horizon by default.")
    ] = None,
    coverage: Annotated[float, typer.Option(help="Of the interval that is forecast too.")] = 0.8,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="Train again before every forecast; done for up to 2,000 rows by default.",
        ),
    ] = None,
    missing: Annotated[
        str, typer.Option(help="What is done about gaps: raise or ffill.")
    ] = "raise",
    seed: Annotated[int, typer.Option(help="Makes the runs repeatable.")] = 0,
    jobs: Annotated[int, typer.Option(help="Runs side by side.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of each run.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "cpu",
    out: Annotated[
        Path, typer.Option(help="Folder for the page and the runs; runs in it do not run again.")
    ] = Path("compare"),
    time_column: TimeColumn = None,
    id_col: IdColumn = None,
    target_col: TargetColumns = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    *,
    reading: Reading,
) -> None:
    """Compare models on a CSV file by one backtest, and write a page; exit code 1 if one failed."""
    from tsm2.benchmark.comparison import compare as run_comparison
    from tsm2.cli.files import read_new, require_writable
    from tsm2.cli.values import split_calls

    require_writable(out)
    frame, roles = read_new(data, reading, time=time_column, series=id_col, targets=target_col)
    columns: dict[str, object] = {}
    if roles.series is not None:
        columns = {"id_col": roles.series, "time_col": roles.time, "target_col": roles.targets}
    found = run_comparison(
        frame,
        horizon,
        models=None if models is None else split_calls(models),
        season=season,
        windows=windows,
        stride=stride,
        coverage=coverage,
        refit="auto" if refit is None else refit,
        missing=missing,  # type: ignore[arg-type]
        seed=seed,
        jobs=jobs,
        threads=threads,
        device=device,
        name=data.stem if str(data) != "-" else "table",
        out=out,
        verbose=0 if quiet else 1,
        **columns,  # type: ignore[arg-type]
    )
    board = found.leaderboard
    print_rows(
        ("model", *(board.columns if as_json else map(_heading, board.columns))),
        (
            (model, *(value if as_json else _text(str(name), value) for name, value in row.items()))
            for model, row in board.astype(object).iterrows()
        ),
        title=f"Horizon {horizon}, forecasts per series: {found.task.windows}; lower is better",
        words=1,
        as_json=as_json,
    )
    page = out / "compare.html"
    found.to_html(page)
    if as_json:
        print_json({"written": "page", "path": page})
    else:
        print_line(f"page: {page}")
    for each in found.not_run:
        say(f"not run: {each.what}: {' '.join(each.reason.split())}")
    if found.not_run:
        raise typer.Exit(1)


def _heading(name: str) -> str:
    """Shorten the name of a column, so that a table fits a terminal."""
    short = {"quantile loss": "loss", "fit seconds": "fit s", "predict seconds": "predict s"}
    return short.get(name, name.replace("coverage-", "in ") + (" %" if "-" in name else ""))


def _text(name: str, value: float) -> str:
    if value != value:  # there is none
        return ""
    if name == "wins":
        return str(value)
    return f"{value:.{1 if name.endswith('seconds') else 3}f}"
