"""Pretraining: the loss falls, and a run that was cut off goes on as if it had not been."""

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tsm2.errors import (
    BackendError,
    CaptureWarning,
    ParameterError,
    SavedModelError,
    TrainingError,
)
from tsm2.networks.config import NetworkConfig
from tsm2.networks.pretrained import describe_pretrained, load_pretrained, save_pretrained
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.pretraining import pretrain as module
from tsm2.pretraining import step
from tsm2.pretraining.pretrain import PretrainingConfig, pretrain
from tsm2.training.capture import find_recorder

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
recorders: Any = import_module("recorders")

HOW: dict[str, Any] = {
    "batch_rows": 64,
    "report_steps": 20,
    "learning_rate": 5e-3,
    "device": "cpu",
    "workers": 0,
}


def test_the_loss_falls_in_some_seconds(zero_sizes: NetworkConfig) -> None:
    _, reports = pretrain(PretrainingConfig(steps=160, **HOW), zero_sizes)
    assert [each.step for each in reports] == list(range(20, 180, 20))
    assert reports[-1].validation_loss < 0.985 * reports[-1].start_loss


def weights(network: ZeroShotNetwork) -> Tensor:
    return torch.cat([each.flatten() for each in network.state_dict().values()])


def cut_off(config: PretrainingConfig, sizes: NetworkConfig, folder: Path) -> None:
    """Pretrain until the first report."""

    def cut(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(config, sizes, checkpoint=folder, report=cut)


def test_a_run_that_was_cut_off_goes_on(zero_sizes: NetworkConfig, tmp_path: Path) -> None:
    config = PretrainingConfig(steps=40, **HOW)
    whole, _ = pretrain(config, zero_sizes)
    cut_off(config, zero_sizes, tmp_path / "run")
    again, reports = pretrain(config, zero_sizes, checkpoint=tmp_path / "run")
    assert [each.step for each in reports] == [20, 40]
    assert torch.equal(weights(again), weights(whole))


def test_workers_move_no_weight_and_a_run_goes_on_with_others(
    zero_sizes: NetworkConfig, tmp_path: Path, children: Callable[[], set[BaseProcess]]
) -> None:
    alone = PretrainingConfig(steps=40, **HOW | {"batch_rows": 128})
    whole, _ = pretrain(alone, zero_sizes)
    cut_off(replace(alone, workers=1), zero_sizes, tmp_path / "run")
    assert not children()
    again, reports = pretrain(alone, zero_sizes, checkpoint=tmp_path / "run")
    assert torch.equal(weights(again), weights(whole))
    assert all(0 <= each.waited <= 1 for each in reports)


@pytest.fixture
def mixed(monkeypatch: pytest.MonkeyPatch) -> PretrainingConfig:
    """Settings of which 16 steps see one, two and four variates, and each again later."""
    monkeypatch.setattr(module, "_DRAWN", 64)
    return PretrainingConfig(steps=16, **HOW | {"batch_rows": 32, "report_steps": 7})


def test_captured_steps_leave_the_weights_of_uncaptured_ones(
    zero_sizes: NetworkConfig, mixed: PretrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tapes: list[Any] = []

    def record(*_: Any, **__: Any) -> Any:
        tapes.append(recorders.Tape())
        return tapes[-1]

    taken, losses = pretrain(mixed, zero_sizes)
    monkeypatch.setattr(step, "find_recorder", record)
    replayed, same_losses = pretrain(mixed, zero_sizes)
    assert torch.equal(weights(replayed), weights(taken))
    for one, two in zip(losses, same_losses, strict=True):
        assert (one.loss, one.validation_loss) == (two.loss, two.validation_loss)
    used = [each for each in tapes if each.recorded]
    assert [each.recorded for each in used] == [3]  # for 1, 2 and 4 variates
    assert sum(each.replays for each in used) == 16


@pytest.mark.parametrize("captured_first", [True, False])
def test_a_run_goes_on_captured_or_not(
    zero_sizes: NetworkConfig,
    mixed: PretrainingConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    captured_first: bool,
) -> None:
    whole, _ = pretrain(mixed, zero_sizes)
    finders: list[Any] = [find_recorder, lambda *_, **__: recorders.Tape()]
    monkeypatch.setattr(step, "find_recorder", finders[captured_first])
    cut_off(mixed, zero_sizes, tmp_path)
    monkeypatch.setattr(step, "find_recorder", finders[not captured_first])
    again, _ = pretrain(mixed, zero_sizes, checkpoint=tmp_path)
    assert torch.equal(weights(again), weights(whole))


def test_steps_that_cannot_be_captured_are_taken(
    zero_sizes: NetworkConfig, mixed: PretrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, _ = pretrain(mixed, zero_sizes)
    with pytest.raises(BackendError, match="capture_steps=True, but only CUDA has graphs"):
        pretrain(replace(mixed, capture_steps=True), zero_sizes)
    monkeypatch.setattr(step, "find_recorder", lambda *_, **__: recorders.Broken())
    with pytest.warns(CaptureWarning, match="slower than they could be") as said:
        warned, _ = pretrain(mixed, zero_sizes)
    assert len(said) == 1
    assert torch.equal(weights(warned), weights(taken))
    with pytest.raises(BackendError, match="cannot be captured here"):
        pretrain(replace(mixed, capture_steps=True), zero_sizes)


def test_a_loss_that_is_no_number_is_told_with_its_step(zero_sizes: NetworkConfig) -> None:
    config = PretrainingConfig(steps=40, **HOW | {"learning_rate": 1e30, "gradient_clip": 1e30})
    with pytest.raises(
        TrainingError, match=r"left the finite numbers at step \d+\. Lower learning"
    ):
        pretrain(config, zero_sizes)


def test_a_checkpoint_of_another_seed_is_refused(zero_sizes: NetworkConfig, tmp_path: Path) -> None:
    pretrain(PretrainingConfig(steps=20, **HOW), zero_sizes, checkpoint=tmp_path)
    with pytest.raises(SavedModelError, match="seed was 0 and is 1"):
        pretrain(PretrainingConfig(seed=1, steps=20, **HOW), zero_sizes, checkpoint=tmp_path)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ParameterError, match="needs steps, minutes or both"):
        PretrainingConfig()
    with pytest.raises(ParameterError, match="minutes must be above 0, got -1"):
        PretrainingConfig(minutes=-1)
    with pytest.raises(ParameterError, match="workers must be at least 0, which is none"):
        PretrainingConfig(steps=1, workers=-1)


def test_weights_come_back_with_their_facts(zero_sizes: NetworkConfig, tmp_path: Path) -> None:
    network, _ = pretrain(PretrainingConfig(steps=1, **HOW), zero_sizes)
    save_pretrained(network, tmp_path / "mine", facts={"seed": 7})
    loaded = load_pretrained(str(tmp_path / "mine"))
    assert describe_pretrained(str(tmp_path / "mine")) == {"seed": 7}
    context = torch.randn(2, 3, 64)
    torch.testing.assert_close(loaded(context), network(context))
    with pytest.raises(ParameterError, match="no pretrained weights 'nothing'"):
        load_pretrained("nothing")
