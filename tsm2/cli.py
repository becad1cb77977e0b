"""The command line: `tsm2 demo | fit | update | predict | backtest | benchmark | ...`.

Results go to files or standard output, progress and messages to standard error. Exit codes: 0 for
success, 1 for a check that found a fault, 2 for a mistake in what was asked, 130 when interrupted.
"""

import csv
import logging
import os
import platform
import re
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from tsm2.errors import FrameError, OutputError, ParameterError, TSM2Error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tsm2.forecaster import TSM2Forecaster

__all__ = ["app", "main"]

app = typer.Typer(
    name="tsm2",
    help="Forecast your own tables with TSM2, a selective state-space model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="List, fetch and check the benchmark datasets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

_out = Console(soft_wrap=True)
_messages = Console(stderr=True, soft_wrap=True)

DataFile = Annotated[
    Path,
    typer.Argument(metavar="DATA.csv", help="Rows are time steps, columns variates, header first."),
]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that `fit` wrote.")]
TimeColumn = Annotated[
    str | None,
    typer.Option(
        "--time-column",
        "--time-col",
        help="Column with the time stamps; the first one by default, of several series ds.",
    ),
]
Coverage = Annotated[
    float | None,
    typer.Option(help="Forecast the interval with this coverage too, such as 0.8."),
]
Quantiles = Annotated[
    str | None, typer.Option(help="Forecast these levels too, such as 0.1,0.5,0.9.")
]
PastFile = Annotated[
    Path | None,
    typer.Option("--past-covariates", help="CSV file of what is measured beside the data."),
]
FutureFile = Annotated[
    Path | None,
    typer.Option("--future-covariates", help="CSV file of what is known in advance."),
]
StaticFile = Annotated[
    Path | None,
    typer.Option(
        "--static-covariates", help="CSV file with a row per variate, or per series, named first."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
DataHome = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of the datasets; else TSM2_DATA_HOME, else the cache."),
]


def main() -> None:
    """Run the command line and leave with its exit code."""
    logging.basicConfig(format="tsm2: %(message)s")
    logging.getLogger("tsm2").setLevel(logging.INFO)  # such as: kernels are being compiled
    try:
        app()
    except TSM2Error as error:
        _messages.print(f"tsm2: {' '.join(str(error).split())}", markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        _messages.print("tsm2: interrupted")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


# --- commands -------------------------------------------------------------------------------------


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"),
    quiet: Quiet = False,
) -> None:
    """Fit, backtest, forecast and plot the generated sample; needs no data."""
    from tsm2.demo import run_demo
    from tsm2.training.memory import keep_freed_memory

    keep_freed_memory()
    result = run_demo(out, verbose=0 if quiet else 1)
    table = Table(title=f"Errors over {result.n_windows} test windows, standardised values")
    for column in ("model", *result.errors.columns):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, row in result.errors.iterrows():
        table.add_row(str(name), *(f"{value:.4f}" for value in row))
    _out.print(table)
    for what, path in result.written.items():
        _out.print(f"{what}: {path}", highlight=False)


@app.command()
def fit(
    data: DataFile,
    horizon: Annotated[int, typer.Option(help="Rows to forecast at once.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    lookback: Annotated[
        int | None, typer.Option(help="Rows that the model reads; 96 by default.")
    ] = None,
    quantiles: Annotated[
        str | None, typer.Option(help="Levels that the network learns, such as 0.1,0.9.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data at most.")] = None,
    seed: Annotated[int, typer.Option(help="Makes the fit repeatable.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    rows: Annotated[
        int | None, typer.Option(help="Use only so many first rows of the data, or of each series.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Columns to forecast, with commas; the others are only read."),
    ] = None,
    calendar: Annotated[
        str | None, typer.Option(help="Features of the time stamps to read: hour,dayofweek.")
    ] = None,
    missing: Annotated[
        str | None, typer.Option(help="What is done about gaps: raise, mask or ffill.")
    ] = None,
    past: PastFile = None,
    future: FutureFile = None,
    static: StaticFile = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other parameter; may be repeated."),
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Saved model whose weights and parameters to begin with.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps the fit; the same command goes on after a kill."),
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(help="End training after so long, such as 90min.")
    ] = None,
    log_dir: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard's record of every epoch.")
    ] = None,
    time_column: TimeColumn = None,
    id_col: Annotated[
        str | None,
        typer.Option(
            help="Column that says which series a row belongs to, in a file of many; unique_id "
            "is known as one."
        ),
    ] = None,
    target_col: Annotated[
        str | None, typer.Option(help="Its columns to forecast, with commas; y by default.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a forecaster on a CSV file, of one table or of many series, and save it to a folder."""
    from tsm2.forecaster import TSM2Forecaster
    from tsm2.saving import check_replaceable
    from tsm2.training.memory import keep_freed_memory

    keep_freed_memory()
    long = [id_col or "unique_id", time_column or "ds", *(target_col or "y").split(",")]
    frame = read_csv(data, time_column, long, is_long=id_col is not None)
    is_long = long[0] in frame.columns
    _require_writable(out)
    check_replaceable(out)
    if start_from is None:
        model = TSM2Forecaster()
    else:
        model = TSM2Forecaster.load(start_from).set_params(warm_start=True)
    chosen: dict[str, object] = {"horizon": horizon, "device": device, "random_state": seed}
    chosen["verbose"] = not quiet
    if is_long:
        chosen |= {"id_col": long[0], "time_col": long[1], "target_col": long[2:]}
    chosen |= {"lookback": lookback} if lookback is not None else {}
    chosen |= {"max_epochs": epochs} if epochs is not None else {}
    chosen |= {"quantiles": _parse_levels(quantiles)} if quantiles is not None else {}
    chosen |= {"target": target.split(",")} if target is not None else {}
    chosen |= {"calendar": calendar.split(",")} if calendar is not None else {}
    chosen |= {"missing": missing} if missing is not None else {}
    chosen |= dict(_parse_setting(model, each) for each in settings or [])
    model.set_params(**chosen)
    if rows is not None:
        frame = frame.groupby(long[0], sort=False).head(rows) if is_long else frame.iloc[:rows]
    model.fit(
        frame,
        checkpoint=checkpoint,
        max_time=max_time,
        log_dir=log_dir,
        **_read_covariates(past, future, static, time_column, long if is_long else ()),
    )
    model.save(out)
    losses = model.history_.iloc[-1]
    series = f" of {len(model.series_)} series" if is_long else ""
    several = f"{model.n_estimators} networks for up to " if model.n_estimators > 1 else ""
    _messages.print(
        f"trained {several}{model.n_iter_} epochs on {model.n_features_in_} variates{series}; "
        f"last losses: "
        f"train {losses['train_loss']:.4f}, validation {losses['validation_loss']:.4f}",
        highlight=False,
    )
    _out.print(f"model: {out}", highlight=False)


@app.command()
def update(
    model_folder: ModelFolder,
    data: DataFile,
    epochs: Annotated[
        int, typer.Option(help="Passes over the new rows to learn from them; 0 learns nothing.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the new model; in place of the old by default.")
    ] = None,
    past: PastFile = None,
    future: FutureFile = None,
    time_column: TimeColumn = None,
) -> None:
    """Let the rows of a CSV file that a saved model does not know yet become its history."""
    from tsm2.forecaster import TSM2Forecaster
    from tsm2.training.memory import keep_freed_memory

    keep_freed_memory()
    model = TSM2Forecaster.load(model_folder)
    frame = _read_for(model, data, time_column)
    new = _later_rows(model, frame)
    if new.empty:
        raise FrameError(
            f"{data} has no row after those that the model knows, which end at "
            f"{model.context_index_[model.context_offsets_[1:] - 1].max()}. Give later rows."
        )
    given = _covariates_for(model, past, future, None, time_column)
    model.update(new, epochs=epochs, **given).save(out or model_folder)
    _messages.print(f"{len(new)} new rows", highlight=False)
    _out.print(f"model: {out or model_folder}", highlight=False)


@app.command()
def predict(
    model_folder: ModelFolder,
    data: DataFile,
    out: Annotated[
        Path | None, typer.Option(help="CSV file for the forecast; standard output by default.")
    ] = None,
    horizon: Annotated[int | None, typer.Option(help="Rows to forecast.")] = None,
    coverage: Coverage = None,
    quantiles: Quantiles = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture of the forecast, .png or .svg.")
    ] = None,
    past: PastFile = None,
    future: FutureFile = None,
    static: StaticFile = None,
    time_column: TimeColumn = None,
) -> None:
    """Forecast the rows after the end of a CSV file."""
    from tsm2.forecaster import TSM2Forecaster

    model = TSM2Forecaster.load(model_folder)
    frame = _read_for(model, data, time_column)
    if plot is not None and model.layout_.series != "one":
        raise ParameterError("--plot draws one table, but the data hold many series. Leave it out.")
    levels = _chosen_levels(coverage, quantiles)
    given = _covariates_for(model, past, future, static, time_column)
    point = forecast = model.predict(frame, horizon=horizon, **given)
    interval = None
    keys = [model.layout_.id_name, model.layout_.index_name]
    if model.layout_.series == "long":
        forecast = forecast.set_index(keys)
    written = forecast
    if levels is not None:
        bounds = model.predict_quantiles(frame, quantiles=levels, horizon=horizon, **given)
        if model.layout_.series == "long":
            written = forecast.join(bounds.set_index(keys))
        else:
            written, interval = _beside(forecast, bounds), bounds
    _write_csv(written, out)
    if plot is not None:
        from tsm2.plotting import plot_forecast, save_figure

        save_figure(plot_forecast(frame[list(point)], point, interval=interval), plot)
        _messages.print(f"plot: {plot}", highlight=False)


@app.command()
def backtest(
    model_folder: ModelFolder,
    data: DataFile,
    start: Annotated[
        str | None, typer.Option(help="First row to forecast, by its time stamp or number.")
    ] = None,
    stride: Annotated[int, typer.Option(help="Rows from one forecast to the next.")] = 1,
    horizon: Annotated[int | None, typer.Option(help="Rows per forecast.")] = None,
    refit: Annotated[
        int | None,
        typer.Option(help="Fit a copy again before every so many forecasts; needs --start."),
    ] = None,
    window: Annotated[
        str, typer.Option(help="Rows of a refit: expanding takes all before it, or sliding.")
    ] = "expanding",
    jobs: Annotated[int, typer.Option(help="Refits side by side.")] = 1,
    coverage: Coverage = None,
    quantiles: Quantiles = None,
    out: Annotated[
        Path | None, typer.Option(help="CSV file with every forecast beside the truth.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture of the errors per step and variate, .png or .svg.")
    ] = None,
    past: PastFile = None,
    future: FutureFile = None,
    static: StaticFile = None,
    time_column: TimeColumn = None,
) -> None:
    """Measure a saved model's errors on a CSV file; prints them per variate."""
    from tsm2.backtesting import error_table
    from tsm2.forecaster import TSM2Forecaster
    from tsm2.training.memory import keep_freed_memory

    keep_freed_memory()
    model = TSM2Forecaster.load(model_folder)
    frame = _read_for(model, data, time_column)
    if out is not None:
        _require_writable(out)
    stamps = pd.Index(frame[model.time_col]) if model.layout_.series == "long" else frame.index
    first = None if start is None else _parse_label(start, stamps)
    levels = _chosen_levels(coverage, quantiles)
    table = model.backtest(
        frame,
        start=first,
        stride=stride,
        horizon=horizon,
        refit=False if refit is None else refit,
        window=window,  # type: ignore[arg-type]
        n_jobs=jobs,
        quantiles=levels,
        **_covariates_for(model, past, future, static, time_column),
    )
    scale = _scale_of(model, table, frame)
    summary = pd.concat(error_table(table, by=by, scale=scale) for by in ("variate", None))
    shown = Table(
        title=f"Errors over {(table['step'] == 1).sum() // table['variate'].nunique()} windows, "
        f"standardised values",
        min_width=40,
    )
    for column in ("variate", *summary.columns):
        shown.add_column(column, justify="left" if column == "variate" else "right")
    for name, row in summary.iterrows():
        shown.add_row(str(name), *(f"{value:.4f}" for value in row))
    _out.print(shown)
    if out is not None:
        _write_csv(table.set_index(table.columns[0]), out)
    if plot is not None:
        from tsm2.plotting import plot_errors, save_figure

        save_figure(plot_errors(table, scale=scale), plot)
        _messages.print(f"plot: {plot}", highlight=False)


@app.command()
def inspect(
    model_folder: ModelFolder,
    data: DataFile,
    plot: Annotated[
        Path | None, typer.Option(help="Picture of all that was selected, .png or .svg.")
    ] = None,
    past: PastFile = None,
    future: FutureFile = None,
    static: StaticFile = None,
    time_column: TimeColumn = None,
) -> None:
    """Show which variates move which forecasts of a saved model."""
    from tsm2.forecaster import TSM2Forecaster

    model = TSM2Forecaster.load(model_folder)
    given = _covariates_for(model, past, future, static, time_column)
    selection = model.inspect(_read_for(model, data, time_column), **given)
    shown = Table(title="How far a forecast moves without the history of a variate, in deviations")
    shown.add_column("forecast of")
    for source in selection.influence.columns:
        shown.add_column(str(source), justify="right")
    for target, row in selection.influence.iterrows():
        shown.add_row(str(target), *(f"{value:.3f}" for value in row))
    _out.print(shown)
    if plot is not None:
        from tsm2.plotting import plot_selection, save_figure

        save_figure(plot_selection(selection), plot)
        _messages.print(f"plot: {plot}", highlight=False)


@app.command()
def export(
    model_folder: ModelFolder,
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
) -> None:
    """Write a saved model as an ONNX file, for onnxruntime in any language."""
    from tsm2.forecaster import TSM2Forecaster

    TSM2Forecaster.load(model_folder).to_onnx(out)
    _messages.print(f"written: {out}", highlight=False)


@app.command()
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
    config: Annotated[str, typer.Option(help="Settings of TSM2: paper or best.")] = "paper",
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
) -> None:
    """Measure models on benchmark datasets; exit code 1 if something asked for was not run.

    Without datasets, only the report of the CSV file is written.
    """
    from tsm2.benchmark import report as reports
    from tsm2.benchmark import runner

    if not names and report is None:
        raise ParameterError("name datasets to run (see 'tsm2 data list'), or a --report folder.")
    outcome = runner.run(
        names or [],
        horizons=None if horizons is None else _parse_counts("--horizons", horizons),
        models=runner.DEFAULT_MODELS if models is None else _split_calls(models),
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
        table = Table(title="Errors over every test window, standardised values, mean over seeds")
        for column in ("dataset", "horizon", "model", "runs", "MSE", "MAE"):
            table.add_column(column, justify="left" if column in {"dataset", "model"} else "right")
        cells = outcome.results.groupby(["dataset", "horizon", "model", "config"], sort=False)
        for (dataset, horizon, model, _), rows in cells:
            means = f"{rows['mse'].mean():.4f}", f"{rows['mae'].mean():.4f}"
            table.add_row(str(dataset), str(horizon), str(model), str(len(rows)), *means)
        _out.print(table, markup=False)
        _messages.print(f"rows: {out}", highlight=False, markup=False)
    if report is not None:
        written = reports.write_report(out, report, not_run=outcome.not_run)
        for what, path in written.items():
            _out.print(f"{what}: {path}", highlight=False, markup=False)
    for each in outcome.not_run:
        reason = " ".join(each.reason.split())
        _messages.print(f"not run: {each.what}: {reason}", highlight=False, markup=False)
    if outcome.not_run:
        raise typer.Exit(1)


@app.command()
def info(
    warm_up: Annotated[
        bool, typer.Option("--warm-up", help="Compile the kernels now and keep them on disk.")
    ] = False,
) -> None:
    """Show versions, devices, threads, and which kernels run here and why."""
    import torch

    from tsm2 import kernels
    from tsm2.training.loop import choose_device

    if warm_up:
        kernels.warm_up()
    device = choose_device("auto")
    rows = {f"{name} version": _version(name) for name in _SHOWN_PACKAGES}
    rows |= {
        "Python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "threads": str(torch.get_num_threads()),
    }
    for name, reason in kernels.explain_backends(device).items():
        rows[f"kernels: {name}"] = "usable" if reason is None else f"not usable: {reason}"
    rows["kernels in use"] = kernels.available_backends(device)[0]
    table = Table(show_header=False, box=None)
    for name, value in rows.items():
        table.add_row(name, value)
    _out.print(table)


_SHOWN_PACKAGES = (
    "tsm2",
    "torch",
    "numba",
    "triton",
    "mamba-ssm",
    "numpy",
    "pandas",
    "scikit-learn",
    "accelerate",
)


@data_app.command("list")
def data_list() -> None:
    """List the datasets with their sizes and licences."""
    from tsm2 import datasets

    table = Table(box=None)
    for column in ("name", "rows", "variates", "frequency", "licence"):
        table.add_column(column)
    for name in datasets.names():
        record = datasets.describe(name)
        table.add_row(
            name, str(record.rows), str(record.variates), record.frequency, record.licence
        )
    _out.print(table)


@data_app.command("get")
def data_get(name: str, data_dir: DataHome = None) -> None:
    """Fetch a dataset, verify its checksum, and print where it is."""
    from tsm2 import datasets

    _out.print(str(datasets.fetch(name, data_home=data_dir)), highlight=False)


@data_app.command("check")
def data_check(
    name: Annotated[str | None, typer.Argument(help="One dataset; all by default.")] = None,
    data_dir: DataHome = None,
) -> None:
    """Compare local files with their known sizes and checksums; exit code 1 if one is damaged."""
    from tsm2 import datasets

    damaged = False
    for each in datasets.names() if name is None else [name]:
        result = datasets.check(each, data_home=data_dir)
        damaged |= result.status.startswith("wrong")
        line = f"{each}: {result.status}, {result.path}"
        if result.status.startswith("wrong"):
            line += f" (expected {result.expected}, found {result.found})"
        _out.print(line, highlight=False, markup=False)
    if damaged:
        raise typer.Exit(1)


# --- files ----------------------------------------------------------------------------------------


def read_csv(
    path: Path, time_column: str | None, long: Sequence[str] = (), *, is_long: bool = False
) -> pd.DataFrame:
    """Read a CSV file into a frame indexed by its time column, or into a long frame.

    Parameters
    ----------
    path
        The file.
    time_column
        Its column of time stamps, if it holds one table; None for the first.
    long
        Columns of a long frame: series, time, values. A file with the first of them holds one.
    is_long
        Refuse another file.

    Raises
    ------
    FrameError
        The file cannot be read, or its time column is missing or not readable as times.
    """
    frame = _read_file(path)
    if is_long or (long and long[0] in frame.columns):
        missing = [name for name in long if name not in frame.columns]
        if missing:
            raise FrameError(
                f"{path} has no column {', '.join(map(repr, missing))}; it has: "
                f"{', '.join(map(str, frame.columns))}. Name its columns with --id-col, "
                f"--time-col and --target-col."
            )
        stamps = _read_stamps(path, frame[long[1]])
        return frame[list(long)].assign(**{long[1]: stamps})
    column = frame.columns[0] if time_column is None else time_column
    if column not in frame.columns:
        raise FrameError(
            f"{path} has no column {column!r}; it has: {', '.join(map(str, frame.columns))}."
        )
    return frame.set_index(_read_stamps(path, frame.pop(column)))


def _read_file(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FrameError(f"cannot read {path}: {reason}") from error


def _read_stamps(path: Path, column: "pd.Series[Any]") -> pd.Index:
    """Return whole numbers or time stamps of a column, as an index of its name."""
    index: pd.Index = pd.Index(column, name=str(column.name))
    if pd.api.types.is_integer_dtype(column):
        return index
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a format that must be guessed row by row
            return pd.DatetimeIndex(pd.to_datetime(column), name=str(column.name))
    except (ValueError, TypeError) as error:
        raise FrameError(
            f"column {column.name!r} of {path} does not hold times ({str(error).splitlines()[0]}). "
            f"Name the time column with --time-column."
        ) from error


def _read_for(model: "TSM2Forecaster", path: Path, time_column: str | None) -> pd.DataFrame:
    """Read a CSV file in the form that a model was fitted to."""
    layout = model.layout_
    if layout.series != "long":
        return read_csv(path, time_column)
    time = time_column or model.time_col
    long = [model.id_col, time, *map(str, layout.columns)]
    return read_csv(path, None, long, is_long=True).rename(columns={time: model.time_col})


def _read_covariates(
    past: Path | None,
    future: Path | None,
    static: Path | None,
    time_column: str | None,
    long: Sequence[str],
) -> dict[str, Any]:
    """Read files of covariates, by the names of the arguments of `TSM2Forecaster.fit`.

    `long` names the columns of series and time, if the data are a long frame. A file without the
    first of them holds for all series.
    """
    found = {}
    for name, path in {"past_covariates": past, "future_covariates": future}.items():
        if path is None:
            continue
        frame = read_csv(path, long[1] if long else time_column)
        if long and long[0] in frame.columns:
            frame = frame.reset_index()
        found[name] = frame
    if static is not None:
        table = _read_file(static)
        found["static_covariates"] = table.set_index(table.columns[0])
    return found


def _covariates_for(
    model: "TSM2Forecaster",
    past: Path | None,
    future: Path | None,
    static: Path | None,
    time_column: str | None,
) -> dict[str, Any]:
    """Read files of covariates in the form that a model was fitted to."""
    is_long = model.layout_.series == "long"
    long = (model.id_col, time_column or model.time_col) if is_long else ()
    found = _read_covariates(past, future, static, time_column, long)
    renamed = {time_column: model.time_col} if is_long and time_column is not None else {}
    return {name: frame.rename(columns=renamed) for name, frame in found.items()}


def _later_rows(model: "TSM2Forecaster", frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows after those that a model knows, and all of series that it does not."""
    ends = model.context_index_[model.context_offsets_[1:] - 1]
    if model.layout_.series == "long":
        known = frame[model.id_col].map(dict(zip(model.series_, ends, strict=True)))
        is_later = ~(frame[model.time_col] <= known)
    else:
        is_later = frame.index > ends[0]
    later: pd.DataFrame = frame[is_later]
    return later


def _scale_of(
    model: "TSM2Forecaster", table: pd.DataFrame, frame: pd.DataFrame
) -> "NDArray[np.float64]":
    """Return what the errors of each row of a backtest are divided by.

    A series that the model was not fitted to is measured by the rows of the file.
    """
    columns = list(model.layout_.columns)
    if model.scaling_.scale.ndim == 1:
        scale = dict(zip(columns, model.scaling_.scale, strict=True))
        return table["variate"].map(scale).to_numpy(dtype=float)
    fitted = pd.DataFrame(model.scaling_.scale, index=pd.Index(model.series_), columns=columns)
    here = frame.groupby(model.id_col)[columns].std(ddof=0).replace(0.0, 1.0)
    each = fitted.combine_first(here).stack()
    keys = pd.MultiIndex.from_arrays([table.iloc[:, 0], table["variate"].astype(object)])
    return each.reindex(keys).to_numpy(dtype=float)


def _write_csv(frame: pd.DataFrame, out: Path | None) -> None:
    try:
        frame.to_csv(sys.stdout if out is None else out, quoting=csv.QUOTE_MINIMAL)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    if out is not None:
        _messages.print(f"written: {out}", highlight=False)


def _require_writable(out: Path) -> None:
    """Find out before the work starts that its result has a place to go."""
    parent = out.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {out}: the folder {parent} does not exist. Make it first.")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write {out}: the folder {parent} is not writable.")


def _parse_label(text: str, index: pd.Index) -> object:
    try:
        return pd.Timestamp(text) if isinstance(index, pd.DatetimeIndex) else int(text)
    except ValueError as error:
        raise ParameterError(f"start={text!r} is not a row of the data: {error}") from error


def _parse_setting(model: object, text: str) -> tuple[str, object]:
    """Read NAME=VALUE; the value is a JSON literal or else a word."""
    import json

    name, equals, value = text.partition("=")
    known = model.get_params()  # type: ignore[attr-defined]
    if not equals or name not in known:
        raise ParameterError(
            f"--set needs NAME=VALUE with one of these names: {', '.join(known)}; got {text!r}."
        )
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _chosen_levels(coverage: float | None, quantiles: str | None) -> tuple[float, ...] | None:
    """Return the levels that two options ask for; None if neither is given."""
    from tsm2.tables.quantiles import interval_levels

    if coverage is not None and quantiles is not None:
        raise ParameterError("give --coverage or --quantiles, not both.")
    if coverage is not None:
        return interval_levels(coverage)
    return None if quantiles is None else _parse_levels(quantiles)


def _parse_levels(text: str) -> tuple[float, ...]:
    """Read levels between commas."""
    from tsm2.tables.quantiles import check_levels

    try:
        levels = [float(word) for word in text.split(",")]
    except ValueError as error:
        raise ParameterError(
            f"--quantiles needs levels between commas, such as 0.1,0.9; got {text!r}."
        ) from error
    return check_levels(levels)


def _beside(forecast: pd.DataFrame, bounds: pd.DataFrame) -> pd.DataFrame:
    """Put the quantiles of each variate beside its forecast, as "load-lo-80" beside "load"."""
    from tsm2.tables.quantiles import bound_name

    variates, levels = (bounds.columns.get_level_values(place) for place in (0, 1))
    names = [f"{v}-{bound_name(level)}" for v, level in zip(variates, levels, strict=True)]
    return pd.concat((forecast, bounds.set_axis(names, axis="columns")), axis="columns")


def _parse_counts(option: str, text: str) -> list[int]:
    """Read whole numbers between commas."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise ParameterError(
            f"{option} needs whole numbers between commas, got {text!r}."
        ) from error


def _split_calls(text: str) -> list[str]:
    """Split at the commas that stand in no brackets."""
    return re.split(r",(?![^(]*\))", text)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
