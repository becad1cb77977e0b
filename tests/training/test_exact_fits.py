"""Fits from the exact start: it is epoch 0, kept unless beaten, and survives what a fit does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from tsm2.errors import ParameterError
from tsm2.networks.tsm2 import NetworkConfig, TSM2Network
from tsm2.prepared.windows import Windows
from tsm2.training import checkpoints
from tsm2.training.ensembles import fit_members, starts_kept
from tsm2.training.fit import Epoch, TrainingConfig
from tsm2.training.loop import fit_network, seeded
from tsm2.training.start import start_exactly

SIZES = NetworkConfig(lookback=16, horizon=4, n_variates=2, patch_length=8, patch_stride=8)
CONFIG = TrainingConfig(
    max_epochs=2,
    batch_size=16,
    learning_rate=1e-4,
    mixer_learning_rate=1e-3,
    weight_decay=0.0,
    sam_radius=0.0,
    gradient_clip=1.0,
    schedule="onecycle",
    loss="mse",
    patience=5,
    linear_start="exact",
    device="cpu",
    precision="float32",
    verbose=0,
)
HARMFUL = replace(CONFIG, learning_rate=0.1, mixer_learning_rate=0.1, schedule="constant")


def table() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    steps = torch.arange(200)[:, None]
    wave = torch.sin(steps * 0.7 + torch.arange(2))
    return wave * torch.sin(steps * 0.05) + 0.2 * torch.randn(200, 2, generator=draw)


def parts() -> tuple[Windows, Windows]:
    values = table()
    return (
        Windows(values=values[:140], lookback=16, horizon=4),
        Windows(values=values[124:], lookback=16, horizon=4),
    )


def drawn(config: NetworkConfig = SIZES, seed: int = 0) -> TSM2Network:
    with seeded(seed):
        return TSM2Network(config)


def fitted(config: TrainingConfig, network: TSM2Network, **given: Any) -> list[Epoch]:
    return fit_network(network, *parts(), config, seed=1, **given)


def assert_same(one: nn.Module, two: nn.Module) -> None:
    for (name, a), (_, b) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@torch.no_grad()
def error(network: TSM2Network, windows: Windows) -> float:
    batch = windows.gather(torch.arange(len(windows)))
    return float((network(batch.context) - batch.target).square().mean())


def test_the_start_is_epoch_0_and_is_validated() -> None:
    network, started = drawn(), drawn()
    found = start_exactly(started, *parts())
    history = fitted(CONFIG, network)
    assert [each.epoch for each in history] == [0, 1, 2]
    assert history[0].train_loss is None
    assert history[0].validation_loss == pytest.approx(found.error, rel=1e-4)


def test_the_start_is_kept_if_nothing_beats_it() -> None:
    network, started = drawn(), drawn()
    start_exactly(started, *parts())
    history = fitted(HARMFUL, network)
    losses = [each.validation_loss for each in history]
    assert min(losses[1:]) > losses[0]  # type: ignore[type-var,operator]
    assert_same(network, started)


def test_what_beats_the_start_is_kept() -> None:
    network, started = drawn(), drawn()
    start_exactly(started, *parts())
    history = fitted(replace(CONFIG, max_epochs=10), network)
    best = min(history, key=lambda each: each.validation_loss or 0.0)
    assert best.epoch > 0
    _, validation = parts()
    assert error(network, validation) < error(started.eval(), validation)


def test_a_margin_keeps_the_start_before_what_is_hardly_better() -> None:
    config = replace(CONFIG, max_epochs=10)
    free = fitted(config, drawn())
    losses = [each.validation_loss or 0.0 for each in free]
    gain = 1 - min(losses) / losses[0]
    assert gain > 0
    started = drawn()
    train, validation = parts()
    start_exactly(started, train, validation)
    for margin, kept in ((gain + 0.01, True), (gain / 2, False)):
        network = drawn()
        asked = replace(config, start_margin=margin, patience=99)
        history = fit_members([network], train, validation, asked, seeds=[1])
        same = all(map(torch.equal, network.parameters(), started.parameters()))
        assert same is kept
        assert starts_kept([network], history, asked) == [kept]


def test_without_mixers_the_start_is_the_fit() -> None:
    config = replace(SIZES, blocks=0)
    network, started = drawn(config), drawn(config)
    start_exactly(started, *parts())
    assert [each.epoch for each in fitted(CONFIG, network)] == [0]
    assert_same(network, started)


def test_without_validation_the_start_has_no_loss_and_the_last_weights_are_kept() -> None:
    network = drawn()
    train, _ = parts()
    history = fit_network(network, train, None, CONFIG, seed=1)
    assert [each.epoch for each in history] == [0, 1, 2]
    assert history[0].validation_loss is None


@pytest.mark.parametrize(
    "changes", [{}, {"ema_decay": 0.9}, {"sam_radius": 0.1}, {"learning_rate": 1.0}], ids=str
)
def test_a_fit_cut_off_goes_on_as_if_it_had_not_been(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_PATIENCE", 0)
    config = replace(CONFIG, **changes)
    unbroken, broken = drawn(), drawn()
    history = fitted(config, unbroken)
    got: list[Epoch] = []
    for _ in range(2 * 8 + 2):  # as many times as there are steps
        broken = drawn()
        got = fitted(config, broken, checkpoint=tmp_path / "fit", max_seconds=0)
    assert got == history
    assert_same(broken, unbroken)


@pytest.mark.parametrize("batch_size", [2, 16])
def test_with_gaps_every_known_value_counts_once_whatever_the_batches(batch_size: int) -> None:
    """Batches know unequally many values."""
    known = torch.ones(200, 2, dtype=torch.bool)
    known[130:160, 0] = False
    train, validation = (
        replace(each, known=known[first : first + len(each.values)])
        for each, first in zip(parts(), (0, 124), strict=True)
    )
    config = replace(CONFIG, batch_size=batch_size, max_epochs=1)
    network = drawn(replace(SIZES, gaps=True))
    found = start_exactly(network, train, validation)
    history = fit_network(network, train, validation, config, seed=0)
    assert history[0].validation_loss == pytest.approx(found.error, rel=1e-4)


def test_a_callback_is_told_of_the_epochs_and_sees_the_start_in_their_history() -> None:
    class Watch:
        told: list[int] = []  # noqa: RUF012
        seen: list[int] = []  # noqa: RUF012

        def begin(self, epoch: int) -> None:
            self.told.append(epoch)

        def end(self, history: list[Epoch], kept: Any) -> bool:
            self.seen.append(len(history))
            return False

    watch = Watch()
    fitted(CONFIG, drawn(), watch=watch)
    assert watch.told == [1, 2]
    assert watch.seen == [2, 3]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_members_start_alike_and_those_that_kept_their_start_are_solved_again(n_jobs: int) -> None:
    members = [drawn(seed=0), drawn(seed=1)]
    train, validation = parts()
    history = fit_members(members, train, validation, HARMFUL, seeds=[1, 2], n_jobs=n_jobs)
    starts = history[history["epoch"] == 0]
    assert starts["validation_loss"].nunique() <= 2
    assert starts["validation_loss"].std() < 1e-4
    assert starts_kept(members, history, HARMFUL) == [True, True]
    alone = drawn(seed=1)
    start_exactly(alone, train, validation)
    assert_same(members[1], alone)


def test_a_member_that_learnt_is_no_longer_its_start() -> None:
    network = drawn()
    train, validation = parts()
    config = replace(CONFIG, max_epochs=10)
    history = fit_members([network], train, validation, config, seeds=[1])
    assert starts_kept([network], history, config) == [False]
    assert isinstance(history, pd.DataFrame)
    assert history["train_loss"].isna().tolist() == [True] + [False] * 10


def test_other_networks_cannot_start_exactly() -> None:
    train, validation = parts()
    with pytest.raises(ParameterError, match="got a Linear"):
        fit_network(nn.Linear(16, 4), train, validation, CONFIG, seed=1)
