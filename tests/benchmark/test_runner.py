"""The runner runs each run once, survives any kill, and names what it could not run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from psutil import Process, wait_procs

sys.path.append(str(Path(__file__).parents[1] / "cli"))
from command_line import tsm2

# isort: split
from tsm2.benchmark import ABLATIONS, run, runner
from tsm2.benchmark.job import Job, Measurement, measure, run_apart
from tsm2.benchmark.results import COLUMNS, read_results, run_folder, run_stem
from tsm2.errors import DatasetError, OutputError, ParameterError

FLOOR = ["RepeatLast", "SeasonalNaive"]
TINY_TSM2 = "TSM2(max_epochs=1, features=4, d_state=4, sam_radius=0, batch_size=256)"
COMMAND = [
    *(sys.executable, "-m", "tsm2.cli", "benchmark", "sample", "--horizons", "12,24"),
    *("--models", "RepeatLast,RLinear(max_epochs=1)", "--lookback", "48", "-q"),
]
ERRORS = ["dataset", "lookback", "horizon", "model", "config", "seed", "n_windows", "mse", "mae"]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Spare the tests the seconds of a process per run; returns the jobs that were run."""
    ran: list[Job] = []

    def run_here(job: Job, log: Path) -> Measurement:
        ran.append(job)
        return measure(job)

    monkeypatch.setattr(runner, "run_apart", run_here)
    return ran


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a command, and leave neither it nor a process of its own behind."""
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that it and its children are a group
    ) as process:
        try:
            yield process
        finally:
            if sys.platform == "win32":
                process.kill()
            else:
                with suppress(ProcessLookupError):  # all of them have ended
                    os.killpg(process.pid, signal.SIGKILL)


def sorted_errors(file: Path) -> pd.DataFrame:
    table = read_results(file)[ERRORS]
    return table.sort_values(["horizon", "model", "seed"]).reset_index(drop=True)


def test_a_run_is_one_complete_row(tmp_path: Path, in_this_process: list[Job]) -> None:
    out = tmp_path / "r.csv"
    models = [*FLOOR, TINY_TSM2]
    outcome = run("sample", horizons=[12], models=models, seeds=[3, 4], lookback=48, out=out)
    assert outcome.not_run == ()
    table = outcome.results
    assert list(table.columns) == list(COLUMNS)
    assert [tuple(row) for row in table[["model", "seed"]].to_numpy()] == [
        ("RepeatLast", 0),
        ("SeasonalNaive", 0),
        ("TSM2", 3),
        ("TSM2", 4),
    ]
    assert set(table["n_windows"]) == {480 - 12 + 1}
    assert json.loads(table["config"].iloc[-1])["features"] == 4
    assert json.loads(table["config"].iloc[-1])["max_epochs"] == 1  # given beats the settings' 20
    assert (table[["mse", "peak_memory_mb"]] > 0).all(axis=None)
    assert table["versions"].str.contains("torch=").all()
    steps = pd.read_csv(next((tmp_path / "r.runs").glob("*RepeatLast*.csv")))
    assert steps["step"].tolist() == list(range(1, 13))
    assert steps["mse"].mean() == pytest.approx(table["mse"][0], abs=1e-5)


def test_nothing_runs_twice(tmp_path: Path, in_this_process: list[Job]) -> None:
    out = tmp_path / "r.csv"
    asked = {"models": [*FLOOR, *FLOOR], "lookback": 48, "out": out}
    run("sample", horizons=[12, 12], **asked)  # type: ignore[arg-type]
    assert len(in_this_process) == 2
    outcome = run(["sample", "SAMPLE"], horizons=[12, 24], **asked)  # type: ignore[arg-type]
    assert len(in_this_process) == 4
    assert len(outcome.results) == 4
    again = run("sample", horizons=[24], **asked)  # type: ignore[arg-type]
    assert len(in_this_process) == 4
    assert again.results["horizon"].tolist() == [24, 24]


def test_the_key_holds_the_parameters(tmp_path: Path, in_this_process: list[Job]) -> None:
    for period in (24, 48):
        model = f"SeasonalNaive(period={period})"
        run("sample", horizons=[12], models=[model], lookback=48, out=tmp_path / "r.csv")
    assert len(in_this_process) == 2
    assert read_results(tmp_path / "r.csv")["mse"].nunique() == 2


def test_ablation_runs_every_variant_in_place_of_tsm2(
    tmp_path: Path, in_this_process: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("TSM2", "TSM2-MLP", "TSM2 linear path")
    few = {name: ABLATIONS[name] for name in names}
    monkeypatch.setattr(runner, "ABLATIONS", few)
    drawn = TINY_TSM2[:-1] + ", linear_start='random')"  # a start that is kept is the same for all
    asked = {"models": [drawn, "RepeatLast"], "seeds": [0], "lookback": 48}
    out = tmp_path / "r.csv"
    outcome = run("sample", horizons=[12], ablation=True, out=out, **asked)  # type: ignore[arg-type]
    assert outcome.results["model"].tolist() == [*names, "RepeatLast"]
    assert json.loads(outcome.results["config"][1])["variate_mixer"] == "mlp"
    assert outcome.results["mse"].nunique() == 4


def test_what_fails_is_named_and_stops_nothing_else(tmp_path: Path) -> None:
    """In processes of their own: one raises, one dies; a third goes on."""
    (tmp_path / "broken.py").write_text(
        "import os\n"
        "class Raises:\n"
        "    def __init__(self, setup): pass\n"
        "    def fit(self, values, n_train): raise RuntimeError('no luck today')\n"
        "class Dies(Raises):\n"
        "    def fit(self, values, n_train): os.kill(os.getpid(), 9)\n"
    )
    models = "broken:Raises,broken:Dies,RepeatLast"
    command = [*COMMAND, "--models", models, "--horizons", "12", "--seeds", "1", "--jobs", "2"]
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}
    )
    assert result.returncode == 1, result.stderr
    assert "not run: sample, horizon 12, broken:Raises, seed 0: RuntimeError: no luck" in (
        result.stderr
    )
    assert "broken:Dies, seed 0: the process was killed by signal 9" in result.stderr
    assert read_results(tmp_path / "benchmark.csv")["model"].tolist() == ["RepeatLast"]
    (log,) = (tmp_path / "benchmark.runs").glob("*Raises*.log")
    assert "Traceback" in log.read_text()
    assert not list((tmp_path / "benchmark.runs").glob("*RepeatLast*.log"))


def test_what_is_not_to_be_had_is_named(tmp_path: Path, in_this_process: list[Job]) -> None:
    (tmp_path / "data").mkdir()
    outcome = run(
        ["Traffic", "sample"],
        horizons=[12, 500],
        models=["RepeatLast"],
        lookback=48,
        out=tmp_path / "r.csv",
        data_home=tmp_path / "data",
        download=False,
    )
    assert [each.what for each in outcome.not_run] == ["Traffic", "sample, horizon 500"]
    assert "traffic.csv is not in" in outcome.not_run[0].reason
    assert "(horizon)" in outcome.not_run[1].reason
    assert outcome.results["horizon"].tolist() == [12]


def test_mistakes_show_before_any_work(tmp_path: Path, in_this_process: list[Job]) -> None:
    out = tmp_path / "r.csv"
    with pytest.raises(DatasetError, match="no dataset is named"):
        run(["sample", "ETTh9"], out=out)
    with pytest.raises(ParameterError, match="no model is named"):
        run("sample", models=["RepeatLast", "Prophet"], out=out)
    with pytest.raises(ParameterError, match="does not take a parameter"):
        run("sample", models=["RepeatLast", "TSM2(depth=3)"], out=out)
    wrong: list[dict[str, Any]] = [{"horizons": [0]}, {"lookback": 0}, {"jobs": 0}, {"seeds": []}]
    for each in wrong:
        with pytest.raises(ParameterError, match=f"{next(iter(each))} must be at least 1"):
            run("sample", out=out, **each)
    with pytest.raises(OutputError, match="does not exist"):
        run("sample", out=tmp_path / "no" / "r.csv")
    assert in_this_process == []
    assert not out.exists()


def test_a_run_ends_with_the_one_who_asked() -> None:
    """Its input is its leash: when that closes, it leaves without an answer."""
    job = Job(
        dataset="sample",
        lookback=168,
        horizon=24,
        label="RLinear",
        model="RLinear",
        parameters={"max_epochs": 300},  # it would end too, but with an answer
        seed=0,
    )
    line = json.dumps({name: getattr(job, name) for name in Job.__slots__}) + "\n"
    program = "from tsm2.benchmark.job import answer; answer()"
    result = subprocess.run(
        [sys.executable, "-c", program], input=line.encode(), capture_output=True
    )
    assert (result.returncode, result.stdout) == (1, b"")


def test_a_run_apart_measures_what_a_run_here_does(tmp_path: Path) -> None:
    job = Job(
        dataset="sample",
        lookback=48,
        horizon=12,
        label="RLinear",
        model="RLinear",
        parameters={"max_epochs": 1},
        seed=5,
    )
    apart, here = run_apart(job, tmp_path / "log"), measure(job)
    assert [apart.row[name] for name in ERRORS] == [here.row[name] for name in ERRORS]
    np.testing.assert_allclose(apart.squared, here.squared)
    assert not (tmp_path / "log").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_a_kill_at_any_moment_costs_no_row(tmp_path: Path, in_this_process: list[Job]) -> None:
    """Kill the whole command at a random moment, start it again: the rows of a quiet run."""
    out = tmp_path / "r.csv"
    command = [*COMMAND, "--seeds", "1", "--out", str(out)]
    sizes: dict[str, Any] = {"dataset": "sample", "lookback": 48, "seed": 0}
    jobs = [
        Job(**sizes, horizon=horizon, label=model, model=model, parameters=parameters)
        for horizon in (12, 24)
        for model, parameters in (("RepeatLast", {}), ("RLinear", {"max_epochs": 1}))
    ]
    # One run is claimed by somebody else, so that the command cannot end before it is killed.
    with FileLock(run_folder(out) / f"{jobs[-1].stem}.lock"), started(command) as first:
        while not len(read_results(out)):
            assert first.poll() is None, first.communicate()
            time.sleep(0.1)
        delay = random.SystemRandom().uniform(0, 4)
        time.sleep(delay)
        first.send_signal(signal.SIGKILL)
        first.wait()
        before = out.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert whole.count(b"\n") < 5, "it ran what another runner had claimed"
    again = tsm2(*command[3:])
    assert again.returncode == 0, again.stderr
    assert out.read_bytes().startswith(whole), f"a row was lost, killed after {delay} s"
    wanted = [{name: measure(job).row[name] for name in ("model", "mse", "mae")} for job in jobs]
    got = read_results(out)
    assert len(got) == 4
    keys = ["model", "mse", "mae"]
    table = pd.DataFrame(wanted).astype({"mse": float, "mae": float})
    pd.testing.assert_frame_equal(
        got[keys].sort_values(keys).reset_index(drop=True),
        table.sort_values(keys).reset_index(drop=True),
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("name", ["benchmark", "compare"])
def test_the_runs_of_a_command_that_is_ended_end_with_it(
    name: str, tmp_path: Path, in_this_process: list[Job]
) -> None:
    """What was finished is kept, what was under way leaves no process, and the next goes on."""
    rows = pd.DataFrame({"y": range(300)}, pd.date_range("2024", periods=300, freq="h"))
    rows.to_csv(tmp_path / "rows.csv", index_label="time")
    if name == "benchmark":
        results = out = tmp_path / "r.csv"
        command = [*COMMAND, "--horizons", "12", "--seeds", "1"]
    else:
        results, out = tmp_path / "page" / "runs.csv", tmp_path / "page"
        table = str(tmp_path / "rows.csv")
        command = [sys.executable, "-m", "tsm2.cli", "compare", table, "--horizon", "12", "-q"]
    command += ["--jobs", "2", "--out", str(out), "--models"]
    endless = "TSM2(max_epochs=1000000, patience=1000000{}, lookback=24, linear_start='random')"
    models = ["RepeatLast", endless.format(""), endless.format(", batch_size=64")]
    with started([*command, ",".join(models)]) as first:
        runs = Process(first.pid).children
        while not (len(read_results(results)) and len(runs()) == 2):
            assert first.poll() is None, first.communicate()
            time.sleep(0.2)
        ended = runs()
        first.terminate()
        _, said = first.communicate()
        wait_procs(ended)
    assert first.returncode == 143, said
    assert said.strip().splitlines()[-1] == (
        "tsm2: ended by SIGTERM; finished runs are kept, and the same command goes on with the "
        "others."
    )
    kept = results.read_bytes()
    again = tsm2(*command[3:], "RepeatLast,SeasonalNaive")
    assert again.returncode == 0, again.stderr
    assert results.read_bytes().startswith(kept)
    assert read_results(results)["model"].tolist() == ["RepeatLast", "SeasonalNaive"]


def test_a_claimed_run_is_waited_for_and_taken_over(
    tmp_path: Path, in_this_process: list[Job]
) -> None:
    """Another runner holds one of three runs and dies without a row, when the rest is done."""
    out = tmp_path / "r.csv"
    key = ("sample", "48", "12", "RepeatLast", "{}", "0")
    done_meanwhile: list[int] = []
    claimed, over = Event(), Event()

    def hold_and_die() -> None:
        with FileLock(run_folder(out) / f"{run_stem(key)}.lock"):
            claimed.set()
            while len(read_results(out)) < 2 and not over.wait(0.05):
                pass
            done_meanwhile.append(len(in_this_process))

    other = Thread(target=hold_and_die)
    other.start()
    claimed.wait()
    asked = {"horizons": [12, 24, 36], "models": ["RepeatLast"], "lookback": 48}
    try:
        outcome = run("sample", out=out, **asked)  # type: ignore[arg-type]
    finally:
        over.set()
        other.join()
    assert done_meanwhile == [2]
    assert sorted(outcome.results["horizon"]) == [12, 24, 36]
    assert outcome.not_run == ()


def test_two_runners_share_the_work(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    command = [*COMMAND, "--seeds", "1", "--out", str(out)]
    with started(command) as one, started(command) as other:
        for process in (one, other):
            _, messages = process.communicate()
            assert process.returncode == 0, messages
    table = sorted_errors(out)
    assert len(table) == 4
    assert not table.duplicated(["horizon", "model", "seed"]).any()


def test_a_run_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('run from the current folder')")
    monkeypatch.chdir(tmp_path)
    outcome = run("sample", horizons=[24], models=["RepeatLast"], out=tmp_path / "r.csv")
    assert outcome.not_run == ()
    assert len(outcome.results) == 1
