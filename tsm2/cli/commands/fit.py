"""`tsm2 fit | update | export`: what makes a saved model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tsm2.cli.options import (
    AsJson,
    DataFile,
    FutureFile,
    IdColumn,
    ModelFolder,
    PastFile,
    Quiet,
    Reading,
    StaticFile,
    TargetColumns,
    TimeColumn,
    reads_files,
)
from tsm2.cli.printing import print_json, print_line, say

__all__ = ["export", "fit", "update"]

_TOLD = 5  # columns that are named


@reads_files
def fit(
    data: DataFile,
    horizon: Annotated[int, typer.Option(help="Rows to forecast at once.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    lookback: Annotated[
        str | None,
        typer.Option(
            help="Rows that the model reads, or several to try, such as 168,336; chosen by default."
        ),
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
        str | None,
        typer.Option(help="Features of the time stamps to read: auto, or hour,dayofweek."),
    ] = None,
    holidays: Annotated[
        str | None, typer.Option(help="Regions whose holidays to read, such as DE-BY,FR.")
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
    id_col: IdColumn = None,
    target_col: TargetColumns = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    *,
    reading: Reading,
) -> None:
    """Train a forecaster on a CSV file, of one table or of many series, and save it to a folder."""
    from tsm2.cli.files import Covariates, read_covariates, read_new, require_writable
    from tsm2.cli.values import parse_counts, parse_levels, parse_setting, split_names
    from tsm2.forecaster import TSM2Forecaster
    from tsm2.saving import check_replaceable
    from tsm2.training.choices import chosen as choice_of
    from tsm2.training.memory import keep_freed_memory

    keep_freed_memory()
    frame, roles = read_new(data, reading, time=time_column, series=id_col, targets=target_col)
    is_long = roles.series is not None
    require_writable(out)
    check_replaceable(out)
    if start_from is None:
        model = TSM2Forecaster()
    else:
        model = TSM2Forecaster.load(start_from).set_params(warm_start=True)
    chosen: dict[str, object] = {"horizon": horizon, "device": device, "random_state": seed}
    chosen["verbose"] = not quiet
    if is_long:
        chosen |= {"id_col": roles.series, "time_col": roles.time, "target_col": roles.targets}
    if lookback is not None:
        counts = parse_counts("--lookback", lookback)
        chosen["lookback"] = counts if len(counts) > 1 else counts[0]
    chosen |= {"max_epochs": epochs} if epochs is not None else {}
    chosen |= {"quantiles": parse_levels(quantiles)} if quantiles is not None else {}
    chosen |= {"target": split_names(target)} if target is not None else {}
    if calendar is not None:
        chosen["calendar"] = "auto" if calendar == "auto" else split_names(calendar)
    chosen |= {"holidays": split_names(holidays)} if holidays is not None else {}
    chosen |= {"missing": missing} if missing is not None else {}
    chosen |= dict(parse_setting(model, each) for each in settings or [])
    model.set_params(**chosen)
    if rows is not None:
        frame = frame.groupby(roles.series, sort=False).head(rows) if is_long else frame.iloc[:rows]
    files = Covariates(past=past, future=future, static=static)
    covariates = read_covariates(files, roles, reading)
    model.fit(
        frame,
        checkpoint=checkpoint,
        max_time=max_time,
        log_dir=log_dir,
        **covariates,
    )
    model.save(out)
    losses, config = model.history_.iloc[-1], model.network_.config
    mixes, kept = config.blocks > 0, choice_of(model.choices_)
    if as_json:
        print_json(
            {
                "model": out,
                "series": len(model.series_),
                "variates": model.n_features_in_,
                "lookback": model.fitted_.lookback,
                "epochs": model.n_iter_,
                "mixers": mixes,
                "reverts": config.reverts,
                "classical": model.fitted_.classical is not None,
                "led": list(kept["led"]),
                "nonnegative": list(kept["nonnegative"]),
                "train_loss": losses["train_loss"],
                "validation_loss": losses["validation_loss"],
            }
        )
        return
    known = [
        f"{part} {loss:.4f}"
        for part in ("train", "validation")
        if (loss := losses[f"{part}_loss"]) == loss  # NaN of a part that was not measured
    ]
    series = f" of {len(model.series_)} series" if is_long else ""
    several = f"{model.n_estimators} networks for up to " if model.n_estimators > 1 else ""
    say(
        f"trained {several}{model.n_iter_} epochs on {model.n_features_in_} variates{series}, "
        f"from lookbacks of {model.fitted_.lookback} rows; "
        f"last losses: {', '.join(known) or 'none'}"
        + ("" if mixes else "; kept the exact linear forecast, without mixers")
        + ("; half of it comes back to the mean of the training rows" if config.reverts else "")
        + ("; averaged with classical forecasts" if model.fitted_.classical else "")
        + (f"; {_led(kept['led'], kept['leaders'])}" if kept["led"] else "")
        + (f"; {_nonnegative(kept['nonnegative'])}" if kept["nonnegative"] else "")
    )
    print_line(f"model: {out}")


def _led(names: Sequence[str], rows: int) -> str:
    """Say which columns are led."""
    verb = "are" if len(names) > 1 else "is"
    return f"{_some(names)} {verb} led by the latest {rows} rows of all columns"


def _nonnegative(names: Sequence[str]) -> str:
    """Say which columns have no forecast below zero."""
    verb = "have" if len(names) > 1 else "has"
    return f"{_some(names)} {verb} no forecast below zero"


def _some(names: Sequence[str]) -> str:
    """Return names as a part of a sentence, of many the first."""
    rest = len(names) - _TOLD
    *before, last = [*names[:_TOLD], *([f"{rest} more"] if rest > 0 else [])]
    return f"{', '.join(before)} and {last}" if before else last


@reads_files
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
    as_json: AsJson = False,
    *,
    reading: Reading,
) -> None:
    """Let the rows of a CSV file that a saved model does not know yet become its history."""
    from tsm2.cli.files import Covariates, covariates_for, read_for
    from tsm2.cli.known import later_rows
    from tsm2.errors import FrameError
    from tsm2.forecaster import TSM2Forecaster
    from tsm2.training.memory import keep_freed_memory

    keep_freed_memory()
    model = TSM2Forecaster.load(model_folder)
    frame = read_for(model, data, time_column, reading)
    new = later_rows(model, frame)
    if new.empty:
        raise FrameError(
            f"{data} has no row after those that the model knows, which end at "
            f"{model.fitted_.ends.max()}. Give later rows."
        )
    given = covariates_for(model, Covariates(past=past, future=future), time_column, reading)
    model.update(new, epochs=epochs, **given).save(out or model_folder)
    if as_json:
        print_json({"model": out or model_folder, "new_rows": len(new)})
        return
    say(f"{len(new)} new rows")
    print_line(f"model: {out or model_folder}")


@reads_files
def export(
    model_folder: ModelFolder,
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DATA.csv]",
            help="For zero: a table with the columns and the season that the ONNX file is for.",
        ),
    ] = None,
    time_column: TimeColumn = None,
    as_json: AsJson = False,
    *,
    reading: Reading,
) -> None:
    """Write a saved model, or zero for the columns of a table, as an ONNX file for onnxruntime."""
    from tsm2.cli.files import open_model
    from tsm2.errors import ParameterError
    from tsm2.forecaster import TSM2Forecaster
    from tsm2.networks.pretrained import holds_pretrained

    is_pretrained = holds_pretrained(str(model_folder))
    if is_pretrained and data is None:
        raise ParameterError(
            f"{model_folder} forecasts any table, but an ONNX file has the columns and the season "
            f"of one. Give it, as in tsm2 export {model_folder} DATA.csv --out {out}."
        )
    if data is not None and not is_pretrained:
        raise ParameterError(
            f"the saved model {model_folder} knows its columns, and reads nothing of {data}. Leave "
            f"{data} out."
        )
    if data is None:
        given = [*reading.values(), time_column]
        if any(each is not None for each in given):
            raise ParameterError(
                f"the saved model {model_folder} knows its columns, and reads no file. Leave out "
                f"the options that say how one is read."
            )
        model = TSM2Forecaster.load(model_folder)
    else:
        model, _ = open_model(model_folder, data, time_column, reading)
    model.to_onnx(out)
    if as_json:
        print_json({"file": out})
        return
    say(f"written: {out}")
