"""`tsm2 benchmark`: models beside published figures."""

from pathlib import Path
from typing import Annotated

import typer

from tsm2.cli.options import AsJson, DataHome, Quiet
from tsm2.cli.printing import print_json, print_line, print_rows, say

__all__ = ["benchmark"]


def benchmark(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATASETS...", help="Such as ETTh1 Weather; 'sample' needs no file."
        ),
    ] = None,
    horizons: Annotated[
        str | None, typer.Option(help="Rows to forecast: 96,192; the published ones by default.")
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            help="TSM2,RLinear(max_epochs=5),sklearn:Ridge; the floor and TSM2 by default."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each model that draws at random.")] = 3,
    lookback: Annotated[int | None, typer.Option(help="Rows that every model reads.")] = None,
    config: Annotated[str, typer.Option(help="paper, best or defaults: of TSM2.")] = "paper",
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Run TSM2's variants in place of it.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Runs side by side.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of each run.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "cpu",
    out: Annotated[
        Path, typer.Option(help="CSV file of the runs; those that it holds do not run again.")
    ] = Path("benchmark.csv"),
    report: Annotated[
        Path | None, typer.Option(help="Folder for the report in Markdown and HTML.")
    ] = None,
    data_dir: DataHome = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download no missing file.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure models on benchmark datasets; exit code 1 if something asked for was not run.

    Without datasets, only the report of the CSV file is written.
    """
    from tsm2.benchmark import report as reports
    from tsm2.benchmark import runner
    from tsm2.cli.values import parse_counts, split_calls
    from tsm2.errors import ParameterError

    if not names and report is None:
        raise ParameterError("name datasets to run (see 'tsm2 data list'), or a --report folder.")
    outcome = runner.run(
        names or [],
        horizons=None if horizons is None else parse_counts("--horizons", horizons),
        models=runner.DEFAULT_MODELS if models is None else split_calls(models),
        seeds=range(seeds),
        lookback=lookback,
        config=config,  # type: ignore[arg-type]
        ablation=ablation,
        jobs=jobs,
        threads=threads,
        device=device,
        out=out,
        data_home=data_dir,
        download=not offline,
        verbose=0 if quiet else 1,
    )
    if names:
        cells = outcome.results.groupby(["dataset", "horizon", "model", "config"], sort=False)
        print_rows(
            ("dataset", "model", "horizon", "runs", "MSE", "MAE"),
            (
                (
                    dataset,
                    model,
                    horizon,
                    len(rows),
                    *(x if as_json else f"{x:.4f}" for x in rows[["mse", "mae"]].mean()),
                )
                for (dataset, horizon, model, _), rows in cells
            ),
            title="Errors over every test window, standardised values, mean over seeds",
            words=2,
            as_json=as_json,
        )
        say(f"rows: {out}")
    if report is not None:
        written = reports.write_report(out, report, not_run=outcome.not_run)
        for what, path in written.items():
            if as_json:
                print_json({"written": what, "path": path})
            else:
                print_line(f"{what}: {path}")
    for each in outcome.not_run:
        reason = " ".join(each.reason.split())
        say(f"not run: {each.what}: {reason}")
    if outcome.not_run:
        raise typer.Exit(1)
