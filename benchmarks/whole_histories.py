"""What the classical forecasts of whole histories are worth to a fit, on tables new and old.

    python benchmarks/whole_histories.py --data FOLDER          # runs what results/ lacks
    python benchmarks/whole_histories.py --summary

Every fit has nothing set but the horizon and `blocks=0`. It forecasts twice: as it is, and without
the classical forecasts that it may be averaged with. FOLDER is that of `benchmarks/defaults.py`,
whose development tasks are run at many cutoffs; the new tables, `NEW`, were fixed before the first
run and chose no default. Of the long-horizon files they hold rows that the benchmark trains on.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from defaults import (
    TASKS,
    MissingDataError,
    Task,
    at_many_cutoffs,
    fits_anew,
    heads,
    loaded,
    long,
    naive_errors,
    ours_as_table,
)
from rows import keys_in, run_or_show

from tsm2 import TSM2Forecaster

RESULTS = Path(__file__).parent / "results" / "whole_histories.csv"

NEW = (
    Task("fertility", "statsmodels", "YS", 1, 5, 2, "panel", "192 countries, 52 years"),
    Task("danish money", "statsmodels", "QS", 4, 4, 3, about="5 columns, 55 rows"),
    Task("copper", "statsmodels", "YS", 1, 3, 2, about="6 columns, 25 rows"),
    Task("ETTh1, days", "long_horizon/ETT-small/ETTh1.csv", "D", 7, 14, 6, about="means, 360 rows"),
    Task("ETTm2, hours", "long_horizon/ETT-small/ETTm2.csv", "h", 24, 24, 6, about="1,500 rows"),
    Task("Weather, hours", "long_horizon/weather/weather.csv", "h", 24, 24, 4, about="2,000 rows"),
    Task("ILI", "long_horizon/illness/national_illness.csv", "W", 52, 12, 6, about="676 rows"),
    Task("Exchange, weeks", "long_horizon/exchange_rate/exchange_rate.csv", "W", 1, 8, 6,
         about="600 rows"),
    Task("sensor, later", "long_horizon/traffic/traffic_sensor0.csv", "h", 24, 24, 6,
         about="rows 6000 to 7500"),
    Task("M4 hourly, others", "short_horizon/m4/Hourly-train.csv", "h", 24, 48, 1, "panel",
         "60 series from the 300th on"),
)  # fmt: skip


# --- read -----------------------------------------------------------------------------------------


def read_new(task: Task, folder: Path) -> dict[str, pd.Series]:
    """Return the series of a new table, by name."""
    if task.source == "statsmodels":
        columns = _from_statsmodels(task.name)
    elif not (folder / task.source).is_file():
        raise MissingDataError(f"{task.name}: {folder / task.source} is not here")
    elif task.name == "M4 hourly, others":
        table = pd.read_csv(folder / task.source, index_col=0).iloc[300:360]
        columns = {str(name): row.dropna().to_numpy() for name, row in table.iterrows()}
    else:
        columns = _from_file(task.name, pd.read_csv(folder / task.source))
    return {
        name: pd.Series(
            np.asarray(values, dtype=float),
            index=pd.date_range(task.begins, periods=len(values), freq=task.frequency),
        )
        for name, values in columns.items()
    }


def _from_statsmodels(name: str) -> dict[str, np.ndarray]:
    from statsmodels import datasets

    if name == "fertility":
        table = datasets.fertility.load_pandas().data.set_index("Country Name")
        years = table[[column for column in table if str(column).isdigit()]].astype(float)
        years = years.loc[:, :"2011"].dropna()
        return {str(country): row.to_numpy() for country, row in years.iterrows()}
    if name == "danish money":
        table = datasets.danish_data.load_pandas().data.select_dtypes("number")
        return {str(column): table[column].to_numpy() for column in table}
    table = datasets.copper.load_pandas().data
    return {str(column): table[column].to_numpy() for column in table.columns[:6]}


def _from_file(name: str, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the rows that are meant, means over several where the name says so."""
    first, stop, each = {
        "ETTh1, days": (0, 360 * 24, 24),
        "ETTm2, hours": (0, 1500 * 4, 4),
        "Weather, hours": (0, 2000 * 6, 6),
        "ILI": (0, 676, 1),
        "Exchange, weeks": (0, 3000, 5),
        "sensor, later": (6000, 7500, 1),
    }[name]
    rows = table.select_dtypes("number").iloc[first:stop]
    means = rows.groupby(np.arange(len(rows)) // each).mean()
    return {str(column): means[column].to_numpy() for column in means}


def every_task(folder: Path) -> Iterator[tuple[Task, str, dict[str, pd.Series]]]:
    """Yield new tables and development tasks, and which it is; one without data is named."""
    for task in NEW:
        try:
            yield task, "new", read_new(task, folder)
        except (MissingDataError, ImportError) as error:
            print(f"left out: {task.name}: {error}")
    judged = [task for task in TASKS if task.name != "prescriptions"]  # its errors are all zero
    for task, series in loaded(judged, folder):
        yield at_many_cutoffs(task, series), "development", series


# --- forecast and judge ---------------------------------------------------------------------------


def forecasts(
    task: Task, series: dict[str, pd.Series]
) -> Iterator[tuple[bool, dict[str, pd.DataFrame]]]:
    """Yield whether the fit is averaged, and its forecasts by name, at each cutoff."""
    model = None
    for number, known in enumerate(heads(task, series)):
        frame = pd.DataFrame(known) if task.kind == "table" else long(known)
        if model is None or fits_anew(series, number):
            model = TSM2Forecaster(horizon=task.horizon, blocks=0, random_state=0).fit(frame)
        whole = model.fitted_
        found = {"TSM2": ours_as_table(model.predict(frame), task)}
        model.fitted_ = replace(whole, classical=None)
        found["without"] = ours_as_table(model.predict(frame), task)
        model.fitted_ = whole
        last = pd.DataFrame({name: each.to_numpy()[-task.season :] for name, each in known.items()})
        again = np.resize(np.arange(task.season), task.horizon)
        found["SeasonalNaive"] = last.iloc[again].reset_index(drop=True)
        yield whole.classical is not None, found


def row_of(task: Task, kind: str, series: dict[str, pd.Series]) -> dict[str, object]:
    """Return the errors of a task: MASE of each forecast, and how many fits were averaged."""
    known, scale = heads(task, series), naive_errors(task, series)
    errors: dict[str, list[float]] = {}
    averaged = []
    for head, (is_averaged, found) in zip(known, forecasts(task, series), strict=True):
        averaged.append(is_averaged)
        for name, each in series.items():
            happened = each.iloc[len(head[name]) :][: task.horizon].to_numpy()
            for label, forecast in found.items():
                if scale[name] > 0:
                    error = np.abs(happened - forecast[name].to_numpy()).mean() / scale[name]
                    errors.setdefault(label, []).append(float(error))
    means = {label: f"{np.mean(each):.4f}" for label, each in errors.items()}
    share = f"{np.mean(averaged):.2f}"
    return {"kind": kind, "task": task.name, "cutoffs": task.cutoffs, "averaged": share} | means


def summary() -> None:
    """Print the errors over those of seasonal naive, and their geometric means."""
    table = pd.read_csv(RESULTS).set_index(["kind", "task"])
    ratios = table[["without", "TSM2"]].div(table["SeasonalNaive"], axis=0)
    print(ratios.assign(averaged=table["averaged"]).round(3).to_string())
    print("\ngeometric means:")
    print(np.exp(np.log(ratios).groupby(level="kind").mean()).round(3).to_string())


def missing_rows(
    tables: Iterable[tuple[Task, str, dict[str, pd.Series]]],
    results: Path,
    row_of: Callable[[Task, str, dict[str, pd.Series]], dict[str, object]],
) -> Iterator[dict[str, object]]:
    """Yield the rows of those tables, each with its kind, that results lack."""
    done = keys_in(results, ("kind", "task"))
    for task, kind, series in tables:
        if (kind, task.name) in done:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield row_of(task, kind, series)


def rows(data: Path) -> Iterator[dict[str, object]]:
    """Make the rows that are missing."""
    return missing_rows(every_task(data), RESULTS, row_of)


if __name__ == "__main__":
    run_or_show(__doc__, RESULTS, rows, summary)
