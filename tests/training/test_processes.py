"""Two processes share a fit: the steps, losses and checkpoints are those of one."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import shared_fits
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tsm2 import TSM2Forecaster
from tsm2.errors import ParameterError, ProcessesWarning, SavedModelError
from tsm2.training import processes

SCRIPT = Path(shared_fits.__file__)
ROOT = SCRIPT.parents[2]
BY_ONE, BY_TWO = "dropout, begun by one", "gaps, dropout, begun by two"
ALONE = [case for case in shared_fits.CASES if case not in (BY_ONE, BY_TWO, "any seed")]


def launch(*arguments: str) -> str:
    """Run a launcher to its end, and return what it said on standard error."""
    command = [sys.executable, "-m", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have fitted everything, and left two checkpoints."""
    folder = tmp_path_factory.mktemp("shared")
    shared_fits.fit_in(folder, f"{BY_ONE}; cut off")
    cases = [*ALONE, "any seed", BY_ONE, f"{BY_TWO}; cut off"]
    count = ["--nproc-per-node", str(shared_fits.PROCESSES)]
    launch("torch.distributed.run", "--standalone", *count, str(SCRIPT), str(folder), *cases)
    return folder


def left(folder: Path, case: str, rank: int) -> dict[str, NDArray[np.float64]]:
    """Return what the fit of a case left in a process."""
    found = load_file(folder / f"{rank}.safetensors")
    return {k.removeprefix(f"{case}/"): v for k, v in found.items() if k.startswith(f"{case}/")}


def assert_same_fit(
    one: dict[str, NDArray[np.float64]], two: dict[str, NDArray[np.float64]]
) -> None:
    """Compare weights and losses.

    The sums over a batch are added in another order. AdamW divides each gradient by its own size,
    so that where it is nearly zero its rounding error grows to a share of a step.
    """
    assert one.keys() == two.keys()
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-6, atol=1e-6)
    errors = np.concatenate(
        [abs(two[name] - one[name]).ravel() for name in one if name != "losses"]
    )
    assert errors.max() < 1e-5
    assert np.quantile(errors, 0.9) < 3e-7


@pytest.mark.filterwarnings("ignore::tsm2.errors.FloorWarning")
@pytest.mark.parametrize("case", ALONE)
def test_two_processes_fit_what_one_fits_with_the_whole_batch(folder: Path, case: str) -> None:
    assert_same_fit(shared_fits.result(shared_fits.fit(case)), left(folder, case, 0))


def test_all_processes_are_left_with_the_same(folder: Path) -> None:
    first, second = (load_file(folder / f"{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys()
    for name, each in first.items():
        np.testing.assert_array_equal(second[name], each, err_msg=name)


@pytest.mark.filterwarnings("ignore::tsm2.errors.FloorWarning")
def test_a_checkpoint_of_one_process_is_taken_up_by_two(folder: Path) -> None:
    assert_same_fit(shared_fits.result(shared_fits.fit(BY_ONE)), left(folder, BY_ONE, 0))


@pytest.mark.filterwarnings("ignore::tsm2.errors.FloorWarning")
def test_a_checkpoint_of_two_processes_is_taken_up_by_one(folder: Path) -> None:
    cut = left(folder, f"{BY_TWO}; cut off", 0)["losses"]
    unbroken = shared_fits.result(shared_fits.fit(BY_TWO))
    assert len(cut) < len(unbroken["losses"])
    again = shared_fits.fit_in(folder, BY_TWO)
    assert_same_fit(unbroken, shared_fits.result(again))
    with pytest.raises(SavedModelError, match="batch_size was 8 and is 4"):
        shared_fits.fit(BY_TWO, 2, checkpoint=folder / BY_TWO)  # as one of two, but alone


@pytest.mark.filterwarnings("ignore::tsm2.errors.FloorWarning")
def test_a_launcher_that_starts_one_process_is_told_of_once(tmp_path: Path) -> None:
    how = ["--cpu", "--num_processes", "2", "--num_machines", "1"]
    fit = [str(SCRIPT), str(tmp_path), "gaps, exact start, ensemble"]
    said = launch("accelerate.commands.launch", *how, *fit)
    assert said.count("ProcessesWarning") == 1
    assert "accelerate launch was asked for several processes, and started one" in said
    assert "torchrun --nproc-per-node 2" in said


def test_a_fit_outside_the_launchers_group_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    Accelerator(cpu=True)
    processes.warn_if_alone()  # nothing to say
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    processes.warn_if_alone()  # a cluster of one
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.warns(ProcessesWarning, match="says that there are 2 processes; this fit runs"):
        processes.warn_if_alone()


def test_fits_side_by_side_within_several_processes_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings: dict[str, Any] = shared_fits.SIZES | {"n_estimators": 2, "n_jobs": 2}
    model, table = TSM2Forecaster(**settings), shared_fits.table(gaps=False)
    fitted = TSM2Forecaster(**shared_fits.SIZES | {"max_epochs": 1}).fit(table)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ParameterError, match="n_jobs asks for 2 fits side by side, but 2 proc"):
        model.fit(table)
    start = table.index[50]
    with pytest.raises(ParameterError, match="n_jobs asks for 2 fits side by side, but 2 proc"):
        fitted.backtest(table, start=start, refit=True, n_jobs=2)


def test_processes_that_find_different_checkpoints_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accelerator: Any = SimpleNamespace(process_index=0, num_processes=2)
    shared = processes.Processes(accelerator)
    monkeypatch.setattr(processes, "gather_object", lambda own: [*own, 7])
    shared.check_together(7)
    with pytest.raises(SavedModelError, match=r"found checkpoints after \[5, 7\] steps"):
        shared.check_together(5)
