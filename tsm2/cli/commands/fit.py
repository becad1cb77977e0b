"""`tsm2 fit | update | export`: what makes a saved model."""

from pathlib import Path
from typing import Annotated

import typer

from tsm2.cli.options import (
    DataFile,
    FutureFile,
    ModelFolder,
    PastFile,
    Quiet,
    StaticFile,
    TimeColumn,
)
from tsm2.cli.printing import print_line, say

__all__ = ["export", "fit", "update"]


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
    from tsm2.cli.files import read_covariates, read_csv, require_writable
    from tsm2.cli.values import parse_levels, parse_setting
    from tsm2.forecaster import TSM2Forecaster
    from tsm2.saving import check_replaceable

    long = [id_col or "unique_id", time_column or "ds", *(target_col or "y").split(",")]
    frame = read_csv(data, time_column, long, is_long=id_col is not None)
    is_long = long[0] in frame.columns
    require_writable(out)
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
    chosen |= {"quantiles": parse_levels(quantiles)} if quantiles is not None else {}
    chosen |= {"target": target.split(",")} if target is not None else {}
    chosen |= {"calendar": calendar.split(",")} if calendar is not None else {}
    chosen |= {"missing": missing} if missing is not None else {}
    chosen |= dict(parse_setting(model, each) for each in settings or [])
    model.set_params(**chosen)
    if rows is not None:
        frame = frame.groupby(long[0], sort=False).head(rows) if is_long else frame.iloc[:rows]
    model.fit(
        frame,
        checkpoint=checkpoint,
        max_time=max_time,
        log_dir=log_dir,
        **read_covariates(past, future, static, time_column, long if is_long else ()),
    )
    model.save(out)
    losses = model.history_.iloc[-1]
    series = f" of {len(model.series_)} series" if is_long else ""
    several = f"{model.n_estimators} networks for up to " if model.n_estimators > 1 else ""
    say(
        f"trained {several}{model.n_iter_} epochs on {model.n_features_in_} variates{series}; "
        f"last losses: "
        f"train {losses['train_loss']:.4f}, validation {losses['validation_loss']:.4f}"
    )
    print_line(f"model: {out}")


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
    from tsm2.cli.files import covariates_for, read_for
    from tsm2.cli.known import later_rows
    from tsm2.errors import FrameError
    from tsm2.forecaster import TSM2Forecaster

    model = TSM2Forecaster.load(model_folder)
    frame = read_for(model, data, time_column)
    new = later_rows(model, frame)
    if new.empty:
        raise FrameError(
            f"{data} has no row after those that the model knows, which end at "
            f"{model.context_index_[model.context_offsets_[1:] - 1].max()}. Give later rows."
        )
    given = covariates_for(model, past, future, None, time_column)
    model.update(new, epochs=epochs, **given).save(out or model_folder)
    say(f"{len(new)} new rows")
    print_line(f"model: {out or model_folder}")


def export(
    model_folder: ModelFolder,
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
) -> None:
    """Write a saved model as an ONNX file, for onnxruntime in any language."""
    from tsm2.forecaster import TSM2Forecaster

    TSM2Forecaster.load(model_folder).to_onnx(out)
    say(f"written: {out}")
