"""TSM2 with nothing set but the horizon beside simple and strong forecasts, on development tasks.

    python benchmarks/defaults.py --data FOLDER           # runs what results/defaults.csv lacks
    python benchmarks/defaults.py --data FOLDER --only TSM2 AirPassengers
    python benchmarks/defaults.py --summary
    python benchmarks/defaults.py --data FOLDER --many    # the same at more cutoffs
    python benchmarks/defaults.py --summary --many

FOLDER holds `small/`, `short_horizon/m4/` and `long_horizon/` with the public files that `TASKS`
names; the other tables come with statsmodels and sktime or are generated. Nothing is downloaded,
and a task whose data is missing is named and skipped.

`TASKS` was fixed before the first run. Defaults are chosen on these tasks, so that what is printed
here says how good the choice is and not what to expect elsewhere.

Every task is a holdout: each cutoff is the end of what a model sees, and the horizon behind it
judges. Cutoffs lie a horizon apart and end at the last row. Every model is fitted anew at every
cutoff; on tables of more than 2,000 rows TSM2 and LightGBM are fitted once, before the first
cutoff, and read the rows since.

One to four cutoffs are few: errors and coverage of a single task are then luck for a good part.
`--many` has twelve where half of the rows allow, of tables of more than twelve columns fewer, and
results of its own. One default was chosen by them too: `classical` (decision 20).

MASE divides a series' absolute error by that of the seasonal naive forecast over the rows before
the first cutoff, and is averaged over series; constant series are left out.
Coverage is the share of values inside the 80 % interval.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rows import add_row, keys_in

RESULTS = Path(__file__).parent / "results" / "defaults.csv"
MANY_RESULTS = RESULTS.with_stem("defaults_many")
MOST_CUTOFFS = 12
MODELS = ("SeasonalNaive", "AutoETS", "AutoTheta", "LightGBM", "TSM2")


@dataclass(frozen=True)
class Task:
    """A table, how it is read, and how it is split."""

    name: str
    source: str
    """Where the data is from: a file below FOLDER, "statsmodels", "sktime" or "generated"."""
    frequency: str
    """pandas alias; where the file has no dates, of the made-up ones."""
    season: int
    horizon: int
    cutoffs: int
    """Origins, a horizon apart, of which the last is a horizon before the end."""
    kind: str = "table"
    """"table": columns that one network forecasts together; "panel": series of their own."""
    about: str = ""
    begins: str = "1900-01-01"
    """First stamp, a Monday where it is made up."""


TASKS = (
    Task("AirPassengers", "small/AirPassengers.csv", "MS", 12, 12, 3),
    Task("milk", "small/monthly-milk.csv", "MS", 12, 12, 3),
    Task("beer", "small/ausbeer.csv", "QS", 4, 8, 4),
    Task("tourism", "small/australian_tourism.csv", "QS", 4, 4, 1, about="96 columns, 36 rows"),
    Task("ice cream", "small/ice_cream_heater.csv", "MS", 12, 12, 3),
    Task("heart rate", "small/heart_rate.csv", "500ms", 1, 60, 4),
    Task("exchange", "small/exchange_rate.csv", "D", 1, 30, 4, about="rows 3000 to 5000 alone"),
    Task("co2", "statsmodels", "W", 52, 26, 3, about="gaps interpolated"),
    Task("sunspots", "statsmodels", "YS", 11, 11, 3),
    Task("macro", "statsmodels", "QS", 4, 8, 3, about="8 columns in levels"),
    Task("nile", "statsmodels", "YS", 1, 10, 2),
    Task("elnino", "statsmodels", "MS", 12, 12, 3),
    Task("electrical equipment", "statsmodels", "MS", 12, 12, 3),
    Task("interest and inflation", "statsmodels", "QS", 4, 8, 2),
    Task("lynx", "sktime", "YS", 10, 10, 2),
    Task("prescriptions", "sktime", "MS", 12, 12, 3),
    Task("shampoo", "sktime", "MS", 12, 6, 2),
    Task("seatbelts", "sktime", "MS", 12, 12, 3),
    Task("US change", "sktime", "QS", 4, 8, 2, about="5 columns of growth rates"),
    Task("solar", "sktime", "30min", 48, 48, 2),
    Task("sensor", "long_horizon/traffic/traffic_sensor0.csv", "h", 24, 24, 4, about="3,000 rows",
         begins="2015-01-01"),
    Task("daily counts", "generated", "D", 7, 14, 4, about="weekly season, growth, Poisson"),
    Task("half-hourly load", "generated", "30min", 48, 48, 4, about="day, week, weather"),
    Task("random walks", "generated", "D", 1, 10, 4, about="4 columns, nothing to learn"),
    Task("leads and lags", "generated", "h", 24, 24, 4, about="12 columns that follow each other"),
    Task("short panel", "generated", "MS", 12, 12, 1, "panel", "60 series of 48 to 96 months"),
    Task("M4 hourly", "short_horizon/m4/Hourly-train.csv", "h", 24, 48, 1, "panel", "first 60"),
    Task("electricity", "long_horizon/electricity/electricity_1000x203.csv", "h", 24, 24, 1,
         about="203 columns, 1,000 rows", begins="2016-07-01 02:00"),
)  # fmt: skip


class MissingDataError(Exception):
    """A task's data is not here."""


# --- read ---------------------------------------------------------------------------------------


def load(task: Task, folder: Path) -> dict[str, pd.Series]:
    """Return the series of a task, by name, each with a DatetimeIndex."""
    if task.source == "generated":
        columns = _GENERATED[task.name]()
    elif task.source in {"statsmodels", "sktime"}:
        columns = _packaged(task)
    else:
        file = folder / task.source
        if not file.is_file():
            raise MissingDataError(f"{task.name}: {file} is not here")
        columns = _from_file(task, file)
    return {
        str(name): pd.Series(
            np.asarray(values, dtype=float),
            index=pd.date_range(task.begins, periods=len(values), freq=task.frequency),
        )
        for name, values in columns.items()
    }


def loaded(tasks: Iterable[Task], folder: Path) -> Iterator[tuple[Task, dict[str, pd.Series]]]:
    """Yield tasks with their series; one whose data is missing is named and skipped."""
    for task in tasks:
        try:
            yield task, load(task, folder)
        except MissingDataError as error:
            print(f"left out: {error}")


def _from_file(task: Task, file: Path) -> dict[str, np.ndarray]:
    if task.name == "M4 hourly":
        table = pd.read_csv(file, index_col=0).iloc[:60]  # the first 207 are for development
        return {str(name): row.dropna().to_numpy() for name, row in table.iterrows()}
    table = pd.read_csv(file)
    table = table.select_dtypes("number")
    if task.name == "exchange":
        table = table.iloc[3000:5000]  # before the benchmark's test rows
    if task.name == "sensor":
        table = table.iloc[:3000]
    return {name: table[name].to_numpy() for name in table}


def _packaged(task: Task) -> dict[str, np.ndarray]:
    try:
        if task.source == "statsmodels":
            return _from_statsmodels(task.name)
        return _from_sktime(task.name)
    except ImportError as error:
        raise MissingDataError(f"{task.name}: {task.source} is not installed") from error


def _from_statsmodels(name: str) -> dict[str, np.ndarray]:
    from statsmodels import datasets

    if name == "co2":
        co2 = datasets.co2.load_pandas().data["co2"].interpolate()
        return {"co2": co2.to_numpy()[-1040:]}
    if name == "sunspots":
        return {"sunspots": datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy()}
    if name == "macro":
        table = datasets.macrodata.load_pandas().data
        names = ["realgdp", "realcons", "realinv", "realgovt", "realdpi", "cpi", "m1", "unemp"]
        return {each: table[each].to_numpy() for each in names}
    if name == "nile":
        return {"nile": datasets.nile.load_pandas().data["volume"].to_numpy()}
    if name == "elnino":
        table = datasets.elnino.load_pandas().data.drop(columns="YEAR")
        return {"elnino": table.to_numpy().ravel()}
    if name == "electrical equipment":
        from statsmodels.datasets import elec_equip

        return {"equipment": elec_equip.load_pandas().data.iloc[:, -1].to_numpy()}
    table = datasets.interest_inflation.load_pandas().data
    return {each: table[each].to_numpy() for each in ("Dp", "R")}


def _from_sktime(name: str) -> dict[str, np.ndarray]:
    from sktime import datasets

    if name == "lynx":
        return {"lynx": datasets.load_lynx().to_numpy()}
    if name == "prescriptions":
        return {"scripts": datasets.load_PBS_dataset().to_numpy()}
    if name == "shampoo":
        return {"sales": datasets.load_shampoo_sales().to_numpy()}
    if name in {"solar", "seatbelts"}:  # read by hand: the loader of the first asks the network
        folder = Path(datasets.__file__).parent / "data" / name
        table = pd.read_csv(folder / f"{name}.csv")
        return {name: table["solar_gen" if name == "solar" else "KSI"].to_numpy()}
    change, more = datasets.load_uschange()
    return {"consumption": change.to_numpy()} | {n: more[n].to_numpy() for n in more}


def _daily_counts() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    day = np.arange(800)
    week = np.array([1.0, 0.9, 0.95, 1.0, 1.3, 1.6, 0.6])[day % 7]
    year = 1 + 0.2 * np.sin(2 * np.pi * day / 365)
    return {"counts": draw.poisson(40 * week * year * np.exp(day / 1600)).astype(float)}


def _load_curve() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(2)
    step = np.arange(48 * 7 * 12)
    hour, weekday = step % 48 / 2, step // 48 % 7
    shape = np.exp(-((hour - 8) ** 2) / 6) + 1.4 * np.exp(-((hour - 19) ** 2) / 8)
    weather = np.cumsum(draw.normal(size=len(step))) * 0.02
    weather -= pd.Series(weather).rolling(960, min_periods=1).mean().to_numpy()
    load_ = 10 + 5 * shape * np.where(weekday < 5, 1.0, 0.6) + 2 * weather
    return {"load": load_ + 0.2 * draw.normal(size=len(step))}


def _random_walks() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    steps = draw.normal(size=(600, 4))
    return {f"walk {m}": 100 + steps[:, m].cumsum() for m in range(4)}


def _leads_and_lags() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(4)
    n = 2000
    season = np.sin(2 * np.pi * np.arange(n + 50) / 24)
    noise = pd.Series(draw.normal(size=n + 50)).ewm(alpha=0.15).mean().to_numpy() * 3
    columns = {}
    for m in range(12):
        own = 0.3 * draw.normal(size=n)
        lag = 2 * m
        columns[f"follows by {lag}"] = (season + noise)[50 - lag : n + 50 - lag] + own
    return columns


def _short_panel() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(5)
    found = {}
    for k in range(60):
        n = int(draw.integers(48, 97))
        month = np.arange(n)
        growth = draw.normal(0.003, 0.004) * month
        season = draw.uniform(0, 0.3) * np.sin(2 * np.pi * (month + draw.integers(12)) / 12)
        walk = np.cumsum(draw.normal(0, 0.02, n))
        level = np.exp(draw.normal(6, 1))
        found[f"series {k}"] = level * np.exp(growth + season + walk + draw.normal(0, 0.05, n))
    return found


_GENERATED: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    "daily counts": _daily_counts,
    "half-hourly load": _load_curve,
    "random walks": _random_walks,
    "leads and lags": _leads_and_lags,
    "short panel": _short_panel,
}


# --- forecast -----------------------------------------------------------------------------------

Forecasts = Iterator[tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]]
"""Point, lower and upper end of each cutoff: a row per step, a column per series."""


def long(series: dict[str, pd.Series]) -> pd.DataFrame:
    """Return a long frame: a row per series and time."""
    parts = [
        pd.DataFrame({"unique_id": name, "ds": each.index, "y": each.to_numpy()})
        for name, each in series.items()
    ]
    return pd.concat(parts, ignore_index=True)


def heads(task: Task, series: dict[str, pd.Series]) -> list[dict[str, pd.Series]]:
    """Return what is known at each cutoff."""
    return [
        {name: each.iloc[: -task.horizon * back] for name, each in series.items()}
        for back in range(task.cutoffs, 0, -1)
    ]


def at_many_cutoffs(task: Task, series: dict[str, pd.Series]) -> Task:
    """Return the task with as many cutoffs as half of the rows allow, at most twelve.

    They are fewer where more than twelve series would be forecast so often, and never fewer than
    the task has.
    """
    rows = min(len(each) for each in series.values())
    allowed = min(MOST_CUTOFFS, rows // 2 // task.horizon, MOST_CUTOFFS**2 // len(series))
    return replace(task, cutoffs=max(task.cutoffs, allowed))


def fits_anew(series: dict[str, pd.Series], number: int) -> bool:
    """Return whether a trained model is fitted at the cutoff of this number."""
    return number == 0 or max(len(each) for each in series.values()) <= 2000


def wide(frame: pd.DataFrame, column: str, task: Task) -> pd.DataFrame:
    """Return the values of a long frame, a row per step and a column per series."""
    parts = {name: each[column].to_numpy() for name, each in frame.groupby("unique_id", sort=False)}
    return pd.DataFrame(parts, index=range(task.horizon))


def statistical(name: str, task: Task, series: dict[str, pd.Series]) -> Forecasts:
    """Forecast with a model of statsforecast, fitted at every cutoff."""
    from statsforecast import StatsForecast, models

    model = getattr(models, name)(season_length=task.season)
    for known in heads(task, series):
        engine = StatsForecast(
            models=[model],
            freq=task.frequency,
            fallback_model=models.SeasonalNaive(season_length=task.season),
        )
        found = engine.forecast(df=long(known), h=task.horizon, level=[80])
        yield tuple(wide(found, f"{name}{end}", task) for end in ("", "-lo-80", "-hi-80"))


def boosted(task: Task, series: dict[str, pd.Series]) -> Forecasts:
    """Forecast with LightGBM on lags, global over series, trained before the first cutoff."""
    from lightgbm import LGBMRegressor
    from mlforecast import MLForecast
    from mlforecast.target_transforms import LocalStandardScaler
    from mlforecast.utils import PredictionIntervals

    known = heads(task, series)
    shortest = min(len(each) for each in known[0].values())
    reach = max(2, min(2 * task.season, shortest // 3, 96))
    model = MLForecast(
        models={"boosted": LGBMRegressor(verbosity=-1, random_state=0, n_jobs=1)},
        freq=task.frequency,
        lags=range(1, reach + 1),
        target_transforms=[LocalStandardScaler()],
    )
    intervals = PredictionIntervals(n_windows=2, h=task.horizon)
    judged = shortest > reach + 3 * task.horizon + 1
    for number, each in enumerate(known):
        frame = long(each)
        anew = fits_anew(series, number)
        if anew:
            model.fit(frame, prediction_intervals=intervals if judged else None, static_features=[])
        new = None if anew else frame
        level = [80] if judged and new is None else None
        found = model.predict(task.horizon, level=level, new_df=new)
        point = wide(found, "boosted", task)
        unknown = point * np.nan
        if level is None:
            yield point, unknown, unknown
        else:
            yield tuple(wide(found, f"boosted{end}", task) for end in ("", "-lo-80", "-hi-80"))


def ours(task: Task, series: dict[str, pd.Series]) -> Forecasts:
    """Forecast with TSM2 and nothing set but the horizon."""
    from tsm2 import TSM2Forecaster
    from tsm2.errors import ParameterError

    model = None
    for number, each in enumerate(heads(task, series)):
        frame = pd.DataFrame(each) if task.kind == "table" else long(each)
        if model is None or fits_anew(series, number):
            model = TSM2Forecaster(horizon=task.horizon, random_state=0).fit(frame)
        try:
            ends = model.predict_interval(frame, coverage=0.8)
        except ParameterError:  # too few windows for the level
            ends = None
        yield _ours(model.predict(frame), ends, task, list(each))


def ours_as_table(point: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Return forecasts of TSM2: a row per step, a column per series."""
    if task.kind == "panel":
        return wide(point.reset_index(), "y", task)
    return point.reset_index(drop=True)


def _ours(
    point: pd.DataFrame, ends: pd.DataFrame | None, task: Task, names: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    value = ours_as_table(point, task)
    if ends is None:
        return value, value * np.nan, value * np.nan
    if task.kind == "panel":
        flat = ends.reset_index()
        flat.columns = [
            "/".join(str(p) for p in c if str(p)) if isinstance(c, tuple) else str(c)
            for c in flat.columns
        ]
        low, high = [c for c in flat.columns if c.startswith("y")]
        return value, wide(flat, low, task), wide(flat, high, task)
    table = ends.to_numpy().reshape(task.horizon, len(names), 2)
    return value, *(pd.DataFrame(table[..., k], columns=names) for k in range(2))


# --- judge --------------------------------------------------------------------------------------


def naive_errors(task: Task, series: dict[str, pd.Series]) -> dict[str, float]:
    """Return what MASE divides by: seasonal naive's error before the first cutoff, by series."""
    before = {name: each.to_numpy() for name, each in heads(task, series)[0].items()}
    return {
        name: float(np.abs(each[task.season :] - each[: -task.season]).mean())
        for name, each in before.items()
    }


def run(task: Task, model: str, series: dict[str, pd.Series]) -> dict[str, object]:
    """Return the row of a model on a task."""
    start = time.perf_counter()
    if model == "TSM2":
        forecasts = ours(task, series)
    elif model == "LightGBM":
        forecasts = boosted(task, series)
    else:
        forecasts = statistical(model, task, series)
    scale = naive_errors(task, series)
    errors, inside = [], []
    for known, (point, low, high) in zip(heads(task, series), forecasts, strict=True):
        for name, each in series.items():
            happened = each.iloc[len(known[name]) :][: task.horizon].to_numpy()
            if scale[name] > 0:
                error = np.abs(happened - point[name].to_numpy()).mean()
                errors.append(error / scale[name])
            lower, upper = low[name].to_numpy(), high[name].to_numpy()
            if not np.isnan(lower).any():
                inside.append(((happened >= lower) & (happened <= upper)).mean())
    return {
        "task": task.name,
        "model": model,
        "mase": round(float(np.mean(errors)), 4),
        "coverage": round(float(np.mean(inside)), 3) if inside else "",
        "seconds": round(time.perf_counter() - start, 2),
        "rows": max(len(each) for each in series.values()),
        "series": len(series),
        "cutoffs": task.cutoffs,
    }


def summary(results: Path) -> None:
    """Print every task's errors, and geometric means over seasonal naive."""
    table = pd.read_csv(results)
    judged = [task.name for task in TASKS if task.name != "prescriptions"]
    table = table[table["task"].isin(judged)]  # all rows that judge it at few cutoffs are 0
    errors = table.pivot_table(index="task", columns="model", values="mase", sort=False)
    errors = errors[[name for name in MODELS if name in errors]]
    print(errors.round(3).to_string())
    ratios = errors.div(errors["SeasonalNaive"], axis=0)
    complete = ratios.dropna()
    print(f"\ngeometric mean over seasonal naive, {len(complete)} tasks that all ran:")
    print(np.exp(np.log(complete).mean()).round(3).to_string())
    print("\nmean rank:")
    print(complete.rank(axis=1).mean().round(2).to_string())
    if "TSM2" in ratios:
        worse = ratios["TSM2"][ratios["TSM2"] > 1.1].round(2)
        print(f"\nTSM2 above 1.1 of seasonal naive: {worse.to_dict() or 'nowhere'}")
    by_model = table.groupby("model", sort=False)
    print("\ncoverage of 80 % intervals and seconds in all:")
    print(by_model.agg(coverage=("coverage", "mean"), worst=("coverage", "min"),
                       seconds=("seconds", "sum")).round(3).to_string())  # fmt: skip


def main() -> None:
    """Run what is missing, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the public files")
    parser.add_argument("--only", nargs="+", default=(), help="names of models and tasks")
    parser.add_argument("--summary", action="store_true", help="print what is there")
    parser.add_argument("--many", action="store_true", help="forecast at more cutoffs")
    given = parser.parse_args()
    results = MANY_RESULTS if given.many else RESULTS
    if given.summary:
        summary(results)
        return
    if given.data is None:
        parser.error("--data FOLDER is needed to run")
    done = keys_in(results, ("task", "model"))
    wanted = set(given.only)
    named = [task for task in TASKS if task.name in wanted]
    for task, series in loaded(named or TASKS, given.data):
        for model in MODELS:
            if wanted & set(MODELS) and model not in wanted:
                continue
            if (task.name, model) in done:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row = run(at_many_cutoffs(task, series) if given.many else task, model, series)
            add_row(results, row)
            print(" ".join(map(str, row.values())), flush=True)


if __name__ == "__main__":
    main()
