"""Arguments and options that several commands share, with their help."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Coverage",
    "DataFile",
    "DataHome",
    "FutureFile",
    "ModelFolder",
    "PastFile",
    "Quantiles",
    "Quiet",
    "StaticFile",
    "TimeColumn",
]

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
