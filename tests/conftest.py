"""Settings that every test shares."""

import os

# One thread per test process: spinning OpenMP threads on shared cores cost a factor of ten.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", default=None, help="for tests marked gpu: where to run them, cpu too"
    )


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """The GPU that is here, CUDA, MPS or XPU; without one its tests are skipped."""
    asked: str | None = pytestconfig.getoption("--device")
    if asked is not None:
        return asked
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if here is None or here.type not in {"cuda", "mps", "xpu"}:
        pytest.skip("there is no CUDA, MPS or XPU device here")
    return here.type
