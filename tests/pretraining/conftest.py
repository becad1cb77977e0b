"""A pretrained network small enough for tests, in a folder of its own."""

import pytest

from tsm2.networks.config import NetworkConfig
from tsm2.networks.pretrained import save_pretrained
from tsm2.networks.zero import ZeroShotNetwork, zero_shot_config
from tsm2.training import seeded


@pytest.fixture(scope="session")
def sizes() -> NetworkConfig:
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
def weights(sizes: NetworkConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("weights") / "small"
    with seeded(0):
        network = ZeroShotNetwork(sizes)
    save_pretrained(network, folder, facts={"seed": 0})
    return str(folder)
