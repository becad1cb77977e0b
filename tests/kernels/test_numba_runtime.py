"""How the numba kernels are compiled, kept on disk, and spread over threads."""

import os
import shutil
import subprocess
import sys
import threading
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_cases import run_with_gradients, scan_arguments
from torch import Tensor

import tsm2
from tsm2.errors import BackendError
from tsm2.kernels import available_backends, causal_conv, selective_scan

if "numba" not in available_backends("cpu"):
    pytest.skip("the numba kernels cannot run here", allow_module_level=True)

from tsm2.kernels import numba_conv, numba_rows, numba_runtime

CONVOLVE = """
import logging, sys, torch
from tsm2.kernels import causal_conv
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
print(causal_conv(torch.ones(1, 1, 1), torch.tensor([[3.0]]), backend="numba").item())
"""


def convolve_in(folder: Path) -> list[str]:
    """Run silu(3 * 1) in a fresh process with the package of a folder; return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", CONVOLVE],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A package that has compiled one kernel, and what the kernel says."""
    folder = tmp_path_factory.mktemp("compiled")
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(tsm2.__file__).parent, folder / "tsm2", ignore=no_caches)
    announcement, value = convolve_in(folder)
    assert announcement.startswith("compiling tsm2.kernels.numba_conv.forward")
    assert float(value) == pytest.approx(3 / (1 + exp(-3)))
    return folder, value


def test_damaged_kernels_on_disk_are_made_anew(compiled: tuple[Path, str]) -> None:
    folder, value = compiled
    for ending in ("nbc", "nbi"):
        for file in (folder / "tsm2").rglob(f"*.{ending}"):
            file.write_bytes(file.read_bytes()[:-7] + b"damaged")
        said, announcement, again = convolve_in(folder)
        assert said.startswith("the compiled kernels on disk are damaged")
        assert announcement.startswith("compiling")
        assert again == value
    assert convolve_in(folder) == [value]


def test_kernels_are_kept_on_disk_until_a_word_of_theirs_changes(
    compiled: tuple[Path, str],
) -> None:
    """numba itself looks only at the file and the closure of the function that it compiles."""
    folder, value = compiled
    assert convolve_in(folder) == [value]

    words = folder / "tsm2" / "kernels" / "numba_vectors.py"
    before, text = words.stat(), words.read_text()
    words.write_text(text.replace('"fmuladd", x, y, z)', '"fmuladd", x, x, z)'))
    os.utime(words, ns=(before.st_atime_ns, before.st_mtime_ns))
    announcement, changed = convolve_in(folder)
    assert announcement.startswith("compiling")
    assert float(changed) == pytest.approx(9 / (1 + exp(-9)))
    words.write_text(text)
    assert convolve_in(folder)[-1] == value


@pytest.mark.parametrize("obstacle", ["no place to write", "a full disk"])
def test_kernels_run_where_nothing_can_be_kept(
    monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    from numba import njit

    class FullDisk:
        def compile(self, signature: Any) -> None:
            raise OSError("no space left on device")

    def njit_without_disk(*, cache: bool, **options: Any) -> Any:
        if not cache:
            return njit(**options)
        if obstacle == "no place to write":
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: FullDisk()

    monkeypatch.setattr(numba_runtime, "njit", njit_without_disk)
    compile_anew = numba_runtime._compiled.__wrapped__
    kernel = compile_anew(numba_conv.forward)
    monkeypatch.setattr(numba_runtime, "_compiled", lambda body: kernel)
    x, weight = torch.ones(1, 3, 2), torch.ones(2, 2)
    got = causal_conv(x, weight, activation=None, backend="numba")
    assert got.flatten().tolist() == [1.0, 1.0, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("lead", [(1, 20), (3, 20), (50, 3)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, lead: tuple[int, int]
) -> None:
    monkeypatch.setattr(numba_runtime, "_WORK_PER_THREAD", 1)
    arguments = scan_arguments(lead, features=300)
    runs = []
    threads = torch.get_num_threads()
    try:
        for n in (1, 2, 3, 4):
            torch.set_num_threads(n)
            runs.append(run_with_gradients(selective_scan, arguments, {"backend": "numba"}))
            x, weight = arguments["u"], torch.linspace(-1, 1, 1200).reshape(300, 4)
            conv = run_with_gradients(causal_conv, {"x": x, "weight": weight}, {"backend": "numba"})
            runs[-1] |= {f"conv {name}": value for name, value in conv.items()}
    finally:
        torch.set_num_threads(threads)
    assert any(thread.name.startswith("tsm2") for thread in threading.enumerate())
    for run in runs[1:]:
        for name, value in run.items():
            assert torch.equal(value, runs[0][name]), name


def test_python_threads_may_scan_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_runtime, "_WORK_PER_THREAD", 1)
    arguments = scan_arguments((6, 40), features=64)
    wanted = run_with_gradients(selective_scan, arguments, {"backend": "numba"})
    failures: list[str] = []

    def scan_often() -> None:
        torch.set_num_threads(2)  # each thread has a setting of its own
        for _ in range(10):
            got = run_with_gradients(selective_scan, arguments, {"backend": "numba"})
            failures.extend(name for name in wanted if not torch.equal(got[name], wanted[name]))

    scanners = [threading.Thread(target=scan_often) for _ in range(8)]
    for scanner in scanners:
        scanner.start()
    for scanner in scanners:
        scanner.join()
    assert not failures


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(2, 3, device="meta"), torch.zeros(2, 3).to_sparse()],
    ids=["device", "layout"],
)
def test_memory_that_a_kernel_cannot_read_is_refused(tensor: Tensor) -> None:
    with pytest.raises(BackendError, match="the numba kernels read"):
        numba_rows.kernel_input(tensor)


def test_a_lazily_negated_view_is_read_with_its_sign() -> None:
    x = torch.complex(torch.ones(1, 3, 1), torch.ones(1, 3, 1)).conj().imag
    assert x.is_neg()
    got = causal_conv(x, torch.ones(1, 1), activation=None, backend="numba")
    assert got.flatten().tolist() == [-1.0, -1.0, -1.0]
