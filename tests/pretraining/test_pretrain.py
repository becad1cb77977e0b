"""Pretraining: the loss falls, and a run that was cut off goes on as if it had not been."""

from pathlib import Path

import pytest
import torch

from tsm2.errors import ParameterError, SavedModelError
from tsm2.networks.config import NetworkConfig
from tsm2.networks.pretrained import describe_pretrained, load_pretrained, save_pretrained
from tsm2.pretraining.pretrain import PretrainingConfig, pretrain

HOW = {"batch_rows": 64, "report_steps": 20, "learning_rate": 5e-3}


def test_the_loss_falls_in_some_seconds(zero_sizes: NetworkConfig) -> None:
    _, reports = pretrain(PretrainingConfig(steps=160, **HOW), zero_sizes)  # type: ignore[arg-type]
    assert [each.step for each in reports] == list(range(20, 180, 20))
    assert reports[-1].validation_loss < 0.985 * reports[-1].start_loss


def test_a_run_that_was_cut_off_goes_on(zero_sizes: NetworkConfig, tmp_path: Path) -> None:
    config = PretrainingConfig(steps=40, **HOW)  # type: ignore[arg-type]
    whole, _ = pretrain(config, zero_sizes)

    def cut(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(config, zero_sizes, checkpoint=tmp_path / "run", report=cut)
    again, reports = pretrain(config, zero_sizes, checkpoint=tmp_path / "run")
    assert [each.step for each in reports] == [20, 40]
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=0, atol=0)


def test_a_checkpoint_of_another_seed_is_refused(zero_sizes: NetworkConfig, tmp_path: Path) -> None:
    pretrain(PretrainingConfig(steps=20, **HOW), zero_sizes, checkpoint=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(SavedModelError, match="seed was 0 and is 1"):
        pretrain(PretrainingConfig(seed=1, steps=20, **HOW), zero_sizes, checkpoint=tmp_path)  # type: ignore[arg-type]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ParameterError, match="needs steps, minutes or both"):
        PretrainingConfig()
    with pytest.raises(ParameterError, match="minutes must be above 0, got -1"):
        PretrainingConfig(minutes=-1)


def test_weights_come_back_with_their_facts(zero_sizes: NetworkConfig, tmp_path: Path) -> None:
    network, _ = pretrain(PretrainingConfig(steps=1, **HOW), zero_sizes)  # type: ignore[arg-type]
    save_pretrained(network, tmp_path / "mine", facts={"seed": 7})
    loaded = load_pretrained(str(tmp_path / "mine"))
    assert describe_pretrained(str(tmp_path / "mine")) == {"seed": 7}
    context = torch.randn(2, 3, 64)
    torch.testing.assert_close(loaded(context), network(context))
    with pytest.raises(ParameterError, match="no pretrained weights 'nothing'"):
        load_pretrained("nothing")
