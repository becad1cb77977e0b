"""Arguments and options that several commands share, with their help."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "AsJson",
    "Coverage",
    "DataFile",
    "DataHome",
    "FutureFile",
    "IdColumn",
    "ModelFolder",
    "PastFile",
    "PlottedSeries",
    "Quantiles",
    "Quiet",
    "Reading",
    "StaticFile",
    "TargetColumns",
    "TimeColumn",
    "reads_files",
]

DataFile = Annotated[
    Path,
    typer.Argument(
        metavar="DATA.csv",
        help="Rows are time steps, columns variates, header first; - for standard input; or a "
        "Parquet file.",
    ),
]
ModelFolder = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="Folder that `fit` wrote; `predict`, `backtest` and `export` also take zero, which "
        "needs no fit.",
    ),
]
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
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line, for other programs.")
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        help="Column that says which series a row belongs to, in a file of many; unique_id is "
        "known as one."
    ),
]
TargetColumns = Annotated[
    str | None, typer.Option(help="Its columns to forecast, with commas; y by default.")
]
PlottedSeries = Annotated[
    str | None,
    typer.Option("--series", help="Series that --plot draws, of many; the first by default."),
]
DataHome = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of the datasets; else TSM2_DATA_HOME, else the cache."),
]


# --- how files are read ---------------------------------------------------------------------------

Reading = dict[str, Any]
"""Fields of `tsm2.tables.csv.FileOptions`, by name."""

_PANEL = "How files are read"
_READING: dict[str, Any] = {
    "sep": Annotated[
        str | None,
        typer.Option(help="Sign between columns, or tab.", rich_help_panel=_PANEL),
    ],
    "decimal": Annotated[
        str | None, typer.Option(help="Sign before decimals: . or ,", rich_help_panel=_PANEL)
    ],
    "encoding": Annotated[
        str | None, typer.Option(help="Such as utf-8 or cp1250.", rich_help_panel=_PANEL)
    ],
    "header": Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="Whether the first line names the columns; without, they are 0, 1, ...",
            rich_help_panel=_PANEL,
        ),
    ],
    "date_format": Annotated[
        str | None,
        typer.Option(
            help="Such as '%d.%m.%Y %H:%M'; s or ms since 1970; position for whole numbers that "
            "are no dates.",
            rich_help_panel=_PANEL,
        ),
    ],
    "day_first": Annotated[
        bool | None,
        typer.Option(
            "--day-first/--month-first",
            help="Whether 01/02/2024 is in February or in January.",
            rich_help_panel=_PANEL,
        ),
    ],
    "time_zone": Annotated[
        str | None,
        typer.Option(
            help="Zone of the time stamps, such as Europe/Berlin.", rich_help_panel=_PANEL
        ),
    ],
}


def reads_files(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that settle how files are read, gathered in `reading`."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        reading = {name: given.pop(name) for name in _READING}
        command(**given, reading=reading)

    own = inspect.signature(command).parameters.values()
    parameters = [each for each in own if each.name != "reading"]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _READING.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
