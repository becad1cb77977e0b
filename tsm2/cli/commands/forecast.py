"""`tsm2 predict | backtest | inspect`: what a saved model says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsm2.cli.options import (
    AsJson,
    Coverage,
    DataFile,
    FutureFile,
    ModelFolder,
    PastFile,
    PlottedSeries,
    Quantiles,
    Reading,
    StaticFile,
    TimeColumn,
    reads_files,
)
from tsm2.cli.printing import print_table, say

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["backtest", "inspect", "predict"]


@reads_files
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
    series: PlottedSeries = None,
    past: PastFile = None,
    future: FutureFile = None,
    static: StaticFile = None,
    time_column: TimeColumn = None,
    as_json: AsJson = False,
    *,
    reading: Reading,
) -> None:
    """Forecast the rows after the end of a CSV file."""
    from tsm2.cli.files import Covariates, covariates_for, open_model, write
    from tsm2.cli.pictures import choose_series, draw_forecast
    from tsm2.cli.values import chosen_levels

    model, frame = open_model(model_folder, data, time_column, reading)
    files = Covariates(past=past, future=future, static=static)
    levels = chosen_levels(coverage, quantiles)
    given = covariates_for(model, files, time_column, reading)
    shown = None if plot is None else choose_series(model, frame, series)
    point = model.predict(frame, horizon=horizon, **given)
    bounds = None
    if levels is not None:
        bounds = model.predict_quantiles(frame, quantiles=levels, horizon=horizon, **given)
    if model.layout_.series == "long":
        keys = [model.layout_.id_name, model.layout_.index_name]
        written = point.set_index(keys)
        written = written if bounds is None else written.join(bounds.set_index(keys))
    else:
        written = point if bounds is None else _beside(point, bounds)
    write(written, out, as_json=as_json)
    if plot is not None:
        draw_forecast(model, frame, point, bounds, levels, shown, plot)


@reads_files
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
    to: Annotated[
        Path | None,
        typer.Option(
            help="The same, .parquet or .csv, written while forecasts are made: for any number."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture of the errors per step and variate, .png or .svg.")
    ] = None,
    past: PastFile = None,
    future: FutureFile = None,
    static: StaticFile = None,
    time_column: TimeColumn = None,
    as_json: AsJson = False,
    *,
    reading: Reading,
) -> None:
    """Measure a saved model's errors on a CSV file; prints them per variate."""
    import pandas as pd

    from tsm2.backtesting import error_table
    from tsm2.cli.files import Covariates, covariates_for, open_model, require_writable, write
    from tsm2.cli.values import chosen_levels, parse_label
    from tsm2.errors import ParameterError
    from tsm2.training.memory import keep_freed_memory

    keep_freed_memory()
    model, frame = open_model(model_folder, data, time_column, reading)
    files = Covariates(past=past, future=future, static=static)
    if out is not None and to is not None:
        raise ParameterError("give --out or --to, not both: they hold the same table.")
    if out is not None:
        require_writable(out)
    stamps = pd.Index(frame[model.time_col]) if model.layout_.series == "long" else frame.index
    first = None if start is None else parse_label(start, stamps, reading)
    levels = chosen_levels(coverage, quantiles)
    table = model.backtest(
        frame,
        start=first,
        stride=stride,
        horizon=horizon,
        refit=False if refit is None else refit,
        window=window,  # type: ignore[arg-type]
        n_jobs=jobs,
        quantiles=levels,
        to=to,
        **covariates_for(model, files, time_column, reading),
    )
    walk: dict[str, Any] = {"horizon": horizon, "start": first}
    scale, naive = (model.error_scale(frame, kind=kind, **walk) for kind in ("deviation", "naive"))

    def measured(table: Any, by: str | None) -> pd.DataFrame:
        errors: pd.DataFrame = error_table(table, by=by, scale=scale)
        errors.insert(2, "MASE", error_table(table, by=by, scale=naive)["MAE"])
        if by is not None:
            errors.insert(3, "MAE in units", error_table(table, by=by)["MAE"])
        return errors

    floor = model.backtest_floor(frame, stride=stride, lazy=to is not None, **walk)
    parts = [measured(table, "variate"), measured(table, None)]
    parts += [measured(each, None).set_axis([name]) for name, each in floor.items()]
    summary = pd.concat(parts)
    pieces = [table] if to is None else table.pieces()
    n_windows = sum((piece["step"] == 1).sum() for piece in pieces) // (len(parts[0]))
    title = f"Errors over {n_windows} windows: MSE and MAE of standardised values, and the floor"
    print_table(summary, "variate", title, min_width=40, as_json=as_json)
    if out is not None:
        write(table.set_index(table.columns[0]), out)
    if to is not None:
        say(f"written: {to}")
    if plot is not None:
        from tsm2.plotting import plot_errors, save_figure

        save_figure(plot_errors(table, scale=scale), plot)
        say(f"plot: {plot}")


@reads_files
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
    as_json: AsJson = False,
    *,
    reading: Reading,
) -> None:
    """Show which variates move which forecasts of a saved model."""
    from tsm2.cli.files import Covariates, covariates_for, read_for
    from tsm2.forecaster import TSM2Forecaster

    model = TSM2Forecaster.load(model_folder)
    files = Covariates(past=past, future=future, static=static)
    given = covariates_for(model, files, time_column, reading)
    selection = model.inspect(read_for(model, data, time_column, reading), **given)
    title = "How far a forecast moves without the history of a variate, in deviations"
    print_table(selection.influence, "forecast of", title, decimals=3, as_json=as_json)
    if plot is not None:
        from tsm2.plotting import plot_selection, save_figure

        save_figure(plot_selection(selection), plot)
        say(f"plot: {plot}")


def _beside(forecast: "pd.DataFrame", bounds: "pd.DataFrame") -> "pd.DataFrame":
    """Put the quantiles of each variate beside its forecast, as "load-lo-80" beside "load"."""
    from tsm2.tables.quantiles import bound_name

    variates, levels = (bounds.columns.get_level_values(place) for place in (0, 1))
    names = [f"{v}-{bound_name(level)}" for v, level in zip(variates, levels, strict=True)]
    return forecast.join(bounds.set_axis(names, axis="columns"))
