"""Settings that every test shares."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess

# One thread per test process: spinning OpenMP threads on shared cores cost a factor of ten.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from tsm2.networks.config import NetworkConfig
from tsm2.networks.pretrained import save_pretrained
from tsm2.networks.zero import ZeroShotNetwork, zero_shot_config
from tsm2.training import seeded


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


@pytest.fixture
def children() -> Iterator[Callable[[], set[BaseProcess]]]:
    """The processes that a test has started and that run; none of them is left at its end."""
    of_others = set(multiprocessing.active_children())

    def started() -> set[BaseProcess]:
        return set(multiprocessing.active_children()) - of_others

    yield started
    assert not started()


@pytest.fixture(scope="session")
def zero_sizes() -> NetworkConfig:
    """Sizes of a network for forecasts without a fit, small enough for tests."""
    return zero_shot_config(
        lookback=64,
        horizon=8,
        features=8,
        blocks=1,
        patch_length=16,
        patch_stride=16,
        quantiles=(0.1, 0.5, 0.9),
        backend="torch",
    )


@pytest.fixture(scope="session")
def zero_weights(zero_sizes: NetworkConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of such a network, as it was drawn."""
    folder = tmp_path_factory.mktemp("weights") / "small"
    with seeded(0):
        network = ZeroShotNetwork(zero_sizes)
    save_pretrained(network, folder, facts={"seed": 0})
    return str(folder)
