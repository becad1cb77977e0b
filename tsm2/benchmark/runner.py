"""The runner: datasets x horizons x models x seeds, each run once, whatever happens in between.

    plan -> leave out what the result file holds -> one process per run -> one row each -> outcome

Each run is claimed by a file lock while it runs, so that several runners may share a result file:
what another has claimed is left to it, and taken over if it dies. A run that fails is named at the
end with its reason and stops no other.
"""

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
from filelock import FileLock, Timeout
from joblib import Parallel, delayed
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tsm2.benchmark.ablation import ABLATIONS
from tsm2.benchmark.job import Job, JobFailedError, run_apart
from tsm2.benchmark.models import ModelName, Setup, check, uses_seed
from tsm2.benchmark.protocol import count_windows, dataset_name, horizons_of, load_table
from tsm2.benchmark.results import KEY, append_row, finished, read_results, run_folder
from tsm2.benchmark.settings import Config, load_settings
from tsm2.errors import DatasetError, OutputError, ParameterError, WindowError

__all__ = ["DEFAULT_MODELS", "NotRun", "Outcome", "run", "run_jobs"]

DEFAULT_MODELS = ("RepeatLast", "SeasonalNaive", "RLinear", "NLinear", "DLinear", "TSM2")
"""The floor and TSM2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NotRun:
    """Something that was asked for and gave no row."""

    what: str
    """Dataset, horizon, model and seed, as far as it goes."""
    reason: str
    """Why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a benchmark."""

    results: pd.DataFrame
    """The rows that were asked for, in that order, with the columns of the result file."""
    not_run: tuple[NotRun, ...]
    """What gave no row, with the reasons."""


def run(
    datasets: str | Sequence[str],
    *,
    horizons: Sequence[int] | None = None,
    models: Sequence[str] = DEFAULT_MODELS,
    seeds: Sequence[int] = (0, 1, 2),
    lookback: int | None = None,
    config: Config = "paper",
    ablation: bool = False,
    jobs: int = 1,
    threads: int = 1,
    device: str = "cpu",
    out: str | os.PathLike[str] = "benchmark.csv",
    data_home: str | os.PathLike[str] | None = None,
    download: bool = True,
    verbose: int = 0,
) -> Outcome:
    """Measure models on benchmark datasets under the long-horizon protocol.

    Parameters
    ----------
    datasets
        Names; "sample" is a generated table that needs no file.
    horizons
        Rows to forecast; None for those with published results.
    models
        Names, see `tsm2.benchmark.models`.
    seeds
        Each model that draws at random runs once with each.
    lookback
        Rows that every model reads; None for the dataset's settings.
    config
        Which settings TSM2 takes: those of the "paper", the "best" known, or its "defaults".
    ablation
        Run the variants of `ABLATIONS` in place of TSM2.
    jobs
        Runs side by side.
    threads
        Threads of each run.
    device
        Where to train: "auto", "cpu", "cuda" or "mps".
    out
        The result file. Runs that it holds do not run again.
    data_home
        Folder of the files, as in `tsm2.datasets.load`.
    download
        Whether missing files may be downloaded.
    verbose
        1 shows progress with the time left on standard error.

    Returns
    -------
    The rows that were asked for, and what gave none.

    Raises
    ------
    DatasetError
        No dataset has that name. One that is not to be had is named in the outcome instead.
    ParameterError
        A model does not exist or cannot be made with its parameters.
    OutputError
        The result file cannot be read or written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     outcome = run("sample", horizons=[24], models=["RepeatLast"], out=folder + "/r.csv")
    >>> outcome.results[["model", "n_windows"]].to_dict("records")
    [{'model': 'RepeatLast', 'n_windows': 457}]
    """
    out = Path(out)
    _check_place(out)
    _check_counts(horizons=horizons or (), lookback=[] if lookback is None else [lookback])
    _check_counts(jobs=[jobs], threads=[threads], seeds=[len(seeds)])
    names = [dataset_name(each) for each in ([datasets] if isinstance(datasets, str) else datasets)]
    request = _Request(
        entries=_entries(models, ablation=ablation),
        horizons=horizons,
        seeds=seeds,
        lookback=lookback,
        config=config,
        process={
            "device": device,
            "threads": threads,
            "data_home": None if data_home is None else os.fspath(data_home),
        },
        download=download,
    )
    planned: list[Job] = []
    not_run: list[NotRun] = []
    for name in names:
        more, without = _plan(name, request)
        planned += more
        not_run += without
    unique = {job.key: job for job in planned}
    not_run += run_jobs(list(unique.values()), out, n_jobs=jobs, show=bool(verbose and unique))
    results = read_results(out)
    place = {key: number for number, key in enumerate(unique)}
    keys = [tuple(map(str, row)) for row in results[list(KEY)].itertuples(index=False)]
    asked = sorted((place[key], row) for row, key in enumerate(keys) if key in place)
    rows = results.iloc[[row for _, row in asked]].reset_index(drop=True)
    return Outcome(results=rows, not_run=tuple(not_run))


# --- the plan -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """What `run` was asked for, on every dataset."""

    entries: Sequence[tuple[str, str, Mapping[str, Any]]]  # label, name, parameters
    horizons: Sequence[int] | None
    seeds: Sequence[int]
    lookback: int | None
    config: Config
    process: Mapping[str, Any]  # what every job takes as it is
    download: bool


def _plan(dataset: str, request: _Request) -> tuple[list[Job], list[NotRun]]:
    """Return the jobs of one dataset, and what of it cannot be run."""
    settings = load_settings(dataset, request.config, request.lookback)
    lookback = settings.lookback
    horizons = request.horizons or horizons_of(dataset)
    models = {horizon: _with_settings(request, settings.at(horizon)) for horizon in horizons}
    for horizon, given in models.items():  # a wrong name or parameter shows before any work
        for _, name, parameters in given:
            setup = Setup(lookback=lookback, horizon=horizon, season=1, parameters=parameters)
            check(name, setup)
    try:
        load_table(dataset, data_home=request.process["data_home"], download=request.download)
    except DatasetError as error:
        return [], [NotRun(what=dataset, reason=str(error).removeprefix(f"{dataset}: "))]
    jobs: list[Job] = []
    not_run: list[NotRun] = []
    for horizon in horizons:
        try:
            count_windows(dataset, lookback=lookback, horizon=horizon)
        except WindowError as error:
            not_run.append(NotRun(what=f"{dataset}, horizon {horizon}", reason=str(error)))
            continue
        sizes: dict[str, Any] = {"dataset": dataset, "lookback": lookback, "horizon": horizon}
        jobs += [
            Job(**sizes, label=label, model=name, parameters=given, seed=seed, **request.process)
            for label, name, given in models[horizon]
            for seed in (request.seeds if uses_seed(name, given) else (0,))
        ]
    return jobs, not_run


def _with_settings(
    request: _Request, settings: Mapping[str, Any]
) -> list[tuple[str, str, dict[str, Any]]]:
    """Return what was asked for; TSM2 with a dataset's settings, which its own parameters beat."""
    return [
        (label, name, {**(settings if name == "TSM2" else {}), **parameters})
        for label, name, parameters in request.entries
    ]


def _entries(models: Sequence[str], *, ablation: bool) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return label, name and parameters of every model that is to run."""
    entries: list[tuple[str, str, Mapping[str, Any]]] = []
    for text in models:
        model = ModelName.read(text)
        if ablation and model.name == "TSM2":
            entries += [
                (label, "TSM2", {**model.parameters, **changes})
                for label, changes in ABLATIONS.items()
            ]
        else:
            entries.append((model.name, model.name, model.parameters))
    return entries


def _check_place(out: Path) -> None:
    parent = out.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {out}: the folder {parent} does not exist. Make it first.")


def _check_counts(**counts: Sequence[int]) -> None:
    for name, values in counts.items():
        if any(value < 1 for value in values):
            raise ParameterError(f"{name} must be at least 1, got {', '.join(map(str, values))}.")


# --- the runs -------------------------------------------------------------------------------------


def run_jobs(jobs: Sequence[Job], out: Path, *, n_jobs: int, show: bool) -> list[NotRun]:
    """Run what a result file does not hold, and return what failed.

    Parameters
    ----------
    jobs
        The runs.
    out
        The result file.
    n_jobs
        Runs side by side.
    show
        Whether progress is shown, on standard error.
    """
    done = finished(out)
    missing = [job for job in jobs if job.key not in done]
    failures: list[NotRun] = []
    with _progress(len(jobs), len(jobs) - len(missing), show) as progress:
        for wait in (False, True):  # at first leave what another runner has claimed
            parallel = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator_unordered")
            ended = parallel(delayed(_run_one)(job, out, wait=wait) for job in missing)
            missing = []
            for job, reason in cast("Iterator[tuple[Job, str | None]]", ended):
                if reason == _CLAIMED:
                    missing.append(job)
                    continue
                what = f"{job.dataset}, horizon {job.horizon}, {job.label}, seed {job.seed}"
                if reason is not None:
                    failures.append(NotRun(what=what, reason=reason))
                progress(what)
    return failures


_CLAIMED = "claimed by another runner"


def _run_one(job: Job, out: Path, *, wait: bool) -> tuple[Job, str | None]:
    """Run a job unless it is done or claimed, and return why it gave no row, if so."""
    folder = run_folder(out)
    try:
        with FileLock(folder / f"{job.stem}.lock", timeout=-1 if wait else 0):
            if job.key in finished(out):
                return job, None
            measured = run_apart(job, folder / f"{job.stem}.log")
            with (folder / f"{job.stem}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("step", "mse", "mae"))
                steps = zip(measured.squared, measured.absolute, strict=True)
                writer.writerows((n, f"{s:.6f}", f"{a:.6f}") for n, (s, a) in enumerate(steps, 1))
            append_row(out, measured.row)
    except Timeout:
        return job, _CLAIMED
    except JobFailedError as error:
        return job, str(error)
    return job, None


@contextmanager
def _progress(total: int, done: int, show: bool) -> Iterator[Callable[[str], None]]:
    """Yield what to call after each run, with the run's name."""
    if not show:
        yield lambda _: None
        return
    columns = (
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=3600) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda name: bar.update(task, advance=1, description=name)
