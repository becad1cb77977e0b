"""One run in a process of its own: fit a model with a seed, forecast every test window.

    job, as JSON -> standard input of a new process -> measurement, as JSON, on its standard output

A process per run makes its peak memory its own, and keeps a model that crashes or runs out of
memory from taking other runs with it. When the process that asked is gone, the run ends too.
"""

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import tsm2
from tsm2.benchmark.models import Forecaster, Setup, build
from tsm2.benchmark.protocol import Table, TestErrors, load_table, measure_errors
from tsm2.benchmark.results import KEY, Key, run_stem
from tsm2.benchmark.rivals import RivalSetup, make_rival
from tsm2.benchmark.task import Task
from tsm2.errors import TrainingError, TSM2Error
from tsm2.training.loop import choose_device
from tsm2.training.memory import keep_freed_memory

__all__ = [
    "Job",
    "JobFailedError",
    "Measurement",
    "answer",
    "fit_model",
    "measure",
    "measure_model",
    "run_apart",
]

_PROGRAM = "import sys; sys.path[:] = {path!r}; from tsm2.benchmark.job import answer; answer()"
_PACKAGES = ("torch", "numba", "numpy", "pandas", "scikit-learn", "accelerate")


class JobFailedError(TSM2Error, RuntimeError):
    """A run ended without a result; the message is the last that it said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One run."""

    dataset: str
    """Name of the dataset."""
    lookback: int
    """Rows that the model reads."""
    horizon: int
    """Rows that it forecasts."""
    label: str
    """Name of the model in tables."""
    model: str
    """Name of the model that `build` knows."""
    parameters: dict[str, Any]
    """What the model is given beside the sizes and the seed."""
    seed: int
    """Seed of all that is random."""
    device: str = "cpu"
    """Where to train: "auto", "cpu", "cuda" or "mps"."""
    threads: int = 1
    """Threads that the process may use."""
    data_home: str | None = None
    """Folder of the files, as in `tsm2.datasets.load`."""
    task: str | None = None
    """Folder of a `Task`, a table of one's own, in place of a dataset; it gets the forecasts."""

    @property
    def config(self) -> str:
        """The parameters as JSON, in alphabetical order."""
        return json.dumps(self.parameters, sort_keys=True)

    @property
    def key(self) -> Key:
        """What names the run in a result file."""
        sizes = str(self.lookback), str(self.horizon)
        return (self.dataset, *sizes, self.label, self.config, str(self.seed))

    @property
    def stem(self) -> str:
        """A file name for what belongs to the run."""
        return run_stem(self.key)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What a run found out."""

    row: dict[str, str]
    """A value for each column of the result file."""
    squared: list[float]
    """Mean squared error of each step."""
    absolute: list[float]
    """Mean absolute error of each step."""


def measure(job: Job) -> Measurement:
    """Do a job in this process.

    Parameters
    ----------
    job
        The job; its dataset must be on this machine.

    Raises
    ------
    TSM2Error
        The dataset is not here, or the model cannot be made or trained.
    """
    if job.task is not None:
        return _measure_on_task(job, Path(job.task))
    table = load_table(job.dataset, data_home=job.data_home)
    return measure_model(job, table, *fit_model(job, table))


def fit_model(job: Job, table: Table) -> tuple[Forecaster, float]:
    """Return a job's model, fitted on all but the test rows, and the seconds that it took."""
    setup = Setup(
        lookback=job.lookback,
        horizon=job.horizon,
        season=table.season,
        seed=job.seed,
        device=job.device,
        parameters=job.parameters,
    )
    start = time.perf_counter()
    model = build(job.model, setup)
    model.fit(table.values[: table.split.validation_end], table.split.train_end)
    return model, time.perf_counter() - start


def measure_model(job: Job, table: Table, model: Forecaster, fit_seconds: float) -> Measurement:
    """Measure a job's fitted model on the test windows of its dataset."""
    start = time.perf_counter()
    lookback = max(job.lookback, getattr(model, "rows_read", 0))
    errors = measure_errors(model, table, lookback=lookback, horizon=job.horizon)
    predict_seconds = time.perf_counter() - start
    return _measurement(job, errors, fit_seconds, predict_seconds)


def _measure_on_task(job: Job, folder: Path) -> Measurement:
    """Forecast every window of a task, keep the forecasts in its folder, and measure them."""
    task = Task.load(folder)
    setup = RivalSetup.of(task, seed=job.seed, device=job.device, parameters=job.parameters)
    model = make_rival(job.model, setup)
    fit_seconds = predict_seconds = 0.0
    found = []
    for window in range(task.windows):
        known = task.known(window)
        start = time.perf_counter()
        if window == 0 or task.refit:
            model.fit(known)
        fitted = time.perf_counter()
        found.append(model.forecast(known))
        fit_seconds += fitted - start
        predict_seconds += time.perf_counter() - fitted
    point = np.stack([each.point for each in found])  # (W, S, H, M)
    if not np.isfinite(point).all():
        raise TrainingError("a forecast is NaN or infinite; this run has no errors to report.")
    kept = {"point": point}
    bounds = [each.quantiles for each in found if each.quantiles is not None]
    if len(bounds) == len(found):
        kept["quantiles"] = np.sort(np.stack(bounds), axis=-1)
    with (folder / f"{job.stem}.npz").open("wb") as file:
        np.savez(file, **kept)  # type: ignore[arg-type]
    happened = np.stack([task.happened(window) for window in range(task.windows)])
    missed = (point - happened) / task.scale()[:, None]  # (W, S, H, M)
    errors = TestErrors(
        n_windows=task.windows * len(task.series.ids),
        squared=_step_means(np.square(missed)),
        absolute=_step_means(np.abs(missed)),
    )
    return _measurement(job, errors, fit_seconds, predict_seconds)


def _step_means(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return means of errors, (W, S, H, M), by step, (H,); what is unknown counts for nothing."""
    by_step = np.moveaxis(errors, 2, 0).reshape(errors.shape[2], -1)
    known = np.isfinite(by_step)
    sums = np.where(known, by_step, 0.0).sum(axis=1)
    return np.asarray(sums / np.maximum(known.sum(axis=1), 1), dtype=np.float64)


def _measurement(
    job: Job, errors: TestErrors, fit_seconds: float, predict_seconds: float
) -> Measurement:
    found = {
        "n_windows": str(errors.n_windows),
        "mse": f"{errors.mse:.6f}",
        "mae": f"{errors.mae:.6f}",
        "fit_seconds": f"{fit_seconds:.1f}",
        "predict_seconds": f"{predict_seconds:.1f}",
        "peak_memory_mb": _peak_memory(),
        "device": _device(choose_device(job.device)),
        "threads": str(torch.get_num_threads()),
        "versions": _versions(job.model),
        "commit": _commit(),
        "date": date.today().isoformat(),
    }
    return Measurement(
        row=dict(zip(KEY, job.key, strict=True)) | found,
        squared=errors.squared.tolist(),
        absolute=errors.absolute.tolist(),
    )


def run_apart(job: Job, log: Path) -> Measurement:
    """Do a job in a process of its own.

    Parameters
    ----------
    job
        The job.
    log
        File for what the process says; kept only if it fails.

    Raises
    ------
    JobFailedError
        The process ended without an answer.
    """
    threads = {"OMP_NUM_THREADS": str(job.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    theirs, ours = os.pipe()
    with log.open("wb") as errors, os.fdopen(theirs), os.fdopen(ours, "wb") as line:
        line.write(json.dumps(asdict(job)).encode() + b"\n")
        line.flush()  # stays open: its end tells the process that we are gone
        process = subprocess.run(  # noqa: S603 - our own interpreter and program
            [sys.executable, "-P", "-c", _PROGRAM.format(path=_import_path())],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | threads,
            check=False,
        )
    if process.returncode != 0:
        raise JobFailedError(f"{_last_words(log, process.returncode)} (all of it: {log})")
    log.unlink()
    return Measurement(**json.loads(process.stdout))


def _import_path() -> list[str]:
    """Return where a process of ours imports from: where we do, and never the current folder.

    `-c` alone puts the current folder first, so that a json.py lying there would be run.
    """
    home = str(Path(tsm2.__file__).parent.parent)
    path = [each for each in sys.path if each]
    return path if home in path else [*path, home]


def _last_words(log: Path, code: int) -> str:
    if code < 0:
        return f"the process was killed by signal {-code}; 9 often means too little memory"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"the process ended with exit code {code}"


# --- facts about this process ---------------------------------------------------------------------


def _peak_memory() -> str:
    """Peak memory of this process in MB; empty where the system does not tell."""
    try:
        import resource
    except ImportError:
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return str(round(peak / (2**20 if sys.platform == "darwin" else 2**10)))


def _device(kind: str) -> str:
    if kind == "cuda":
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"{kind}: {_processor()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def _versions(model: str) -> str:
    peer = model.partition(":")[0] if ":" in model else None
    named = [f"tsm2={tsm2.__version__}"]
    for package in (*_PACKAGES, *([peer] if peer and peer != "sklearn" else [])):
        try:
            named.append(f"{package}={version(package)}")
        except PackageNotFoundError:
            continue
    return " ".join(named)


def _commit() -> str:
    """Commit of the checkout that tsm2 runs from, with "-dirty" for changes; else empty."""
    folder = Path(tsm2.__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        return _git(folder, "describe", "--always", "--dirty", "--exclude", "*")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    run = subprocess.run(command, cwd=folder, capture_output=True, check=True, text=True)  # noqa: S603
    return run.stdout.strip()


# --- the process ----------------------------------------------------------------------------------


def answer() -> None:
    """Do the job that standard input names; what libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as output:
        os.dup2(2, 1)
        job = Job(**json.loads(sys.stdin.buffer.readline()))
        Thread(target=_leave_with_the_one_who_asked, daemon=True).start()
        torch.set_num_threads(job.threads)
        keep_freed_memory()
        json.dump(asdict(measure(job)), output)


def _leave_with_the_one_who_asked() -> None:
    while os.read(0, 1):  # nothing comes any more; it ends when the other side is closed
        pass
    os._exit(1)
