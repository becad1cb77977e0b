"""Pretraining on the GPU at hand: near that of a CPU, and captured as it is uncaptured."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tsm2.networks.config import NetworkConfig
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.pretraining import pretrain as module
from tsm2.pretraining.pretrain import PretrainingConfig, pretrain

pytestmark = pytest.mark.gpu


@pytest.fixture
def config(device: str, monkeypatch: pytest.MonkeyPatch) -> PretrainingConfig:
    """Settings of which 16 steps see one, two and four variates, and each again later."""
    if device == "xpu":
        pytest.skip("pretraining runs on CUDA, MPS and CPUs, not on XPU")
    monkeypatch.setattr(module, "_DRAWN", 64)
    where: Any = device
    return PretrainingConfig(steps=16, batch_rows=32, report_steps=7, workers=0, device=where)


@pytest.fixture
def sizes(zero_sizes: NetworkConfig) -> NetworkConfig:
    return replace(zero_sizes, backend="auto")


def weights(network: ZeroShotNetwork) -> torch.Tensor:
    return torch.cat([each.flatten() for each in network.state_dict().values()])


def test_it_learns_what_a_cpu_learns(config: PretrainingConfig, sizes: NetworkConfig) -> None:
    _, here = pretrain(replace(config, device="cpu"), sizes)
    network, there = pretrain(config, sizes)
    assert {each.device.type for each in network.parameters()} == {"cpu"}
    for one, two in zip(here, there, strict=True):
        assert two.start_loss == pytest.approx(one.start_loss, rel=1e-4)
        assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-3)


def test_captured_steps_leave_the_weights_of_uncaptured_ones(
    config: PretrainingConfig, sizes: NetworkConfig
) -> None:
    if config.device != "cuda":
        pytest.skip("only CUDA captures steps")
    taken, losses = pretrain(replace(config, capture_steps=False), sizes)
    replayed, same_losses = pretrain(replace(config, capture_steps=True), sizes)
    assert torch.equal(weights(replayed), weights(taken))
    assert [each.loss for each in losses] == [each.loss for each in same_losses]


def test_a_run_goes_on_from_a_checkpoint(
    config: PretrainingConfig, sizes: NetworkConfig, tmp_path: Path
) -> None:
    def cut(progress: object) -> None:
        raise KeyboardInterrupt

    whole, _ = pretrain(config, sizes)
    with pytest.raises(KeyboardInterrupt):
        pretrain(replace(config, workers=1), sizes, checkpoint=tmp_path / "there", report=cut)
    again, _ = pretrain(config, sizes, checkpoint=tmp_path / "there")
    assert torch.equal(weights(again), weights(whole))
    with pytest.raises(KeyboardInterrupt):
        pretrain(replace(config, device="cpu"), sizes, checkpoint=tmp_path / "here", report=cut)
    again, _ = pretrain(config, sizes, checkpoint=tmp_path / "here")
    torch.testing.assert_close(weights(again), weights(whole), rtol=1e-2, atol=1e-2)
