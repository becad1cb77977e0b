"""The fit loop: it learns, stops, restores the best, repeats itself, and leaves the seed alone."""

import dataclasses
import math
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from tsm2 import TSM2Forecaster
from tsm2.errors import BackendError, TrainingError
from tsm2.networks.dropout import Dropout
from tsm2.prepared.windows import Batch, Windows
from tsm2.training.loop import TrainingConfig, choose_device, fit_network, seeded

CONFIG = TrainingConfig(
    max_epochs=3,
    batch_size=16,
    learning_rate=1e-2,
    mixer_learning_rate=1e-2,
    weight_decay=0.0,
    sam_radius=0.0,
    gradient_clip=1.0,
    schedule="onecycle",
    loss="mse",
    patience=5,
    device="cpu",
    precision="float32",
    verbose=0,
)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(8, 2)
        self.drop = Dropout(0.1)

    def forward(self, context: Tensor) -> Tensor:
        forecast: Tensor = self.map(self.drop(context))
        return forecast


def made() -> Linear:
    with seeded(0):
        return Linear()


def sine(rows: int = 200) -> Tensor:
    return torch.sin(torch.arange(rows) * 0.7)[:, None].repeat(1, 2)


def windows(rows: int = 200) -> Windows:
    return Windows(values=sine(rows), lookback=8, horizon=2)


def test_it_learns() -> None:
    network = made()
    history = fit_network(
        network, windows(), None, dataclasses.replace(CONFIG, max_epochs=20), seed=1
    )
    assert [epoch.epoch for epoch in history] == list(range(1, 21))
    first, last = (each.train_loss or math.nan for each in (history[0], history[-1]))
    assert last < 0.25 * first
    assert not network.training


def test_an_epoch_may_end_before_its_pass_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """191 windows make 12 batches; five of them are an epoch, and the next one draws others."""
    seen: list[Tensor] = []
    gather = Windows.gather

    def noted(self: Windows, which: Tensor) -> Batch:
        seen.append(which)
        return gather(self, which)

    monkeypatch.setattr(Windows, "gather", noted)
    config = dataclasses.replace(CONFIG, epoch_steps=5)
    history = fit_network(made(), windows(), None, config, seed=1)
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert len(seen) == 15
    assert not torch.equal(seen[0], seen[5])
    seen.clear()
    fit_network(made(), windows(), None, dataclasses.replace(CONFIG, epoch_steps=99), seed=1)
    assert len(seen) == 36


def test_an_epoch_may_take_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """191 windows make 12 batches; of 30 steps, two passes see all and the third a half of them."""
    seen: list[Tensor] = []
    gather = Windows.gather

    def noted(self: Windows, which: Tensor) -> Batch:
        seen.append(which)
        return gather(self, which)

    monkeypatch.setattr(Windows, "gather", noted)
    config = dataclasses.replace(CONFIG, min_steps=90)
    history = fit_network(made(), windows(), None, config, seed=1)
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert len(seen) == 90
    for first in (0, 12):
        assert torch.equal(torch.cat(seen[first : first + 12]).sort().values, torch.arange(191))
    assert not torch.equal(seen[0], seen[12])


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({}, 12),
        ({"max_steps": 31}, 10),
        ({"max_steps": 31, "epoch_steps": 4}, 4),
        ({"min_steps": 9, "epoch_steps": 2}, 3),
        ({"min_steps": 40}, 14),
        ({"max_steps": 1000}, 12),
    ],
)
def test_a_budget_of_steps_decides_how_long_an_epoch_is(budget: Any, steps: int) -> None:
    assert dataclasses.replace(CONFIG, max_epochs=3, **budget).steps_per_epoch(191) == steps


@pytest.mark.parametrize("sam_radius", [0.0, 0.05])
@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "constant"])
def test_a_seed_fixes_the_weights_bit_for_bit(sam_radius: float, schedule: str) -> None:
    config = dataclasses.replace(CONFIG, sam_radius=sam_radius, schedule=schedule)  # type: ignore[arg-type]
    one, two = made(), made()
    fit_network(one, windows(), windows(), config, seed=1)
    torch.rand(3)  # somebody draws from the global generator in between
    fit_network(two, windows(), windows(), config, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(2)
    torch.manual_seed(7)
    fit_network(made(), windows(), None, CONFIG, seed=1)
    assert torch.equal(torch.rand(2), wanted)


def test_the_best_weights_come_back_and_patience_ends_the_fit() -> None:
    misleading = Windows(values=-sine(), lookback=8, horizon=2)  # what is learnt makes this worse
    shifted = Windows(values=sine() + 3, lookback=8, horizon=2)
    config = dataclasses.replace(CONFIG, max_epochs=30, patience=2, schedule="constant")
    network = made()
    history = fit_network(network, shifted, misleading, config, seed=1)
    losses = [epoch.validation_loss for epoch in history]
    assert None not in losses
    best = min(range(len(losses)), key=lambda k: losses[k] or math.inf)
    assert len(losses) == best + 1 + 2
    network.eval()
    batch = misleading.gather(torch.arange(len(misleading)))
    loss = nn.functional.mse_loss(network(batch.context), batch.target).item()
    assert loss == pytest.approx(losses[best], rel=1e-5)


def test_the_network_gets_what_a_batch_holds_beside_its_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A doubled context, handed over as the past, is what this network forecasts from."""

    class Doubled(Linear):
        def forward(self, context: Tensor, *, past: Tensor | None = None) -> Tensor:
            assert past is not None
            return super().forward(past - context)

    gather = Windows.gather
    monkeypatch.setattr(
        Windows,
        "gather",
        lambda self, which: dataclasses.replace(
            gather(self, which), past=2 * gather(self, which).context
        ),
    )
    with seeded(0):
        doubled = Doubled()
    history = fit_network(doubled, windows(), None, CONFIG, seed=1)
    monkeypatch.undo()
    assert history == fit_network(made(), windows(), None, CONFIG, seed=1)


def test_sharpness_aware_steps_take_the_gradient_uphill() -> None:
    """For loss w^2/2 and radius r the gradient is that at w + r sign(w), and the step is from w."""

    class Scalar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(2.0))

        def mixer_parameters(self) -> list[nn.Parameter]:
            return [self.w]

        def forward(self, context: Tensor) -> Tensor:
            return self.w * torch.ones_like(context[..., :1]) / math.sqrt(2)

    def one_step(radius: float) -> tuple[float, float]:
        seen: list[float] = []
        network = Scalar()
        network.w.register_hook(lambda g: seen.append(g.item()))  # type: ignore[no-untyped-call]
        zero = Windows(values=torch.zeros(9, 1), lookback=8, horizon=1)
        config = dataclasses.replace(
            CONFIG, max_epochs=1, sam_radius=radius, schedule="constant", gradient_clip=float("inf")
        )
        fit_network(network, zero, None, config, seed=0)
        return seen[-1], network.w.item()

    first_adam_step = 2.0 - CONFIG.mixer_learning_rate
    assert one_step(0.0) == pytest.approx((2.0, first_adam_step))
    assert one_step(0.5) == pytest.approx((2.5, first_adam_step))


def test_the_linear_path_takes_plain_steps() -> None:
    one, two = made(), made()
    fit_network(one, windows(), None, CONFIG, seed=1)
    fit_network(two, windows(), None, dataclasses.replace(CONFIG, sam_radius=0.5), seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_only_the_mixers_matrices_decay() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.path = nn.Parameter(torch.ones(8, 2))
            self.mixer = nn.Parameter(torch.ones(8, 2))
            self.vector = nn.Parameter(torch.ones(2))

        def mixer_parameters(self) -> list[nn.Parameter]:
            return [self.mixer, self.vector]

        def forward(self, context: Tensor) -> Tensor:
            total = self.path.sum() + self.mixer.sum() + self.vector.sum()
            return context[..., :2] * 0 + 0 * total

    network = Split()
    config = dataclasses.replace(CONFIG, weight_decay=0.5, schedule="constant")
    fit_network(network, windows(), None, config, seed=0)
    assert bool((network.mixer < 1).all())
    assert bool((network.path == 1).all())
    assert bool((network.vector == 1).all())


def test_a_fit_without_validation_leaves_the_average_of_its_steps() -> None:
    """With its steps known, the average of a fit is the formula over them."""
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, context: Tensor) -> Tensor:
            if self.training:
                seen.append(self.weight.detach().clone())
            return context[..., -2:] * self.weight

    config = dataclasses.replace(CONFIG, ema_decay=0.9, schedule="constant")
    plain, network = Watched(), Watched()
    fit_network(plain, windows(), None, dataclasses.replace(config, ema_decay=0.0), seed=1)
    path = [*seen[1:], plain.weight.detach().clone()]
    fit_network(network, windows(), None, config, seed=1)
    wanted = torch.zeros(())
    for step, weight in enumerate(path, start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * weight
    torch.testing.assert_close(network.weight.detach(), wanted)
    assert not torch.equal(network.weight, plain.weight)


def test_what_is_validated_is_what_is_kept() -> None:
    network = made()
    config = dataclasses.replace(CONFIG, ema_decay=0.9, max_epochs=6)
    history = fit_network(network, windows(), windows(), config, seed=1)
    batch = windows().gather(torch.arange(len(windows())))
    loss = nn.functional.mse_loss(network(batch.context), batch.target).item()
    assert loss == pytest.approx(min(epoch.validation_loss or 0 for epoch in history), rel=1e-5)


def test_a_diverging_fit_says_what_to_change() -> None:
    broken = Windows(values=sine() * float("inf"), lookback=8, horizon=2)
    with pytest.raises(TrainingError, match="Lower the learning rates"):
        fit_network(made(), broken, None, CONFIG, seed=0)


def test_bfloat16_trains_too() -> None:
    history = fit_network(
        made(), windows(), windows(), dataclasses.replace(CONFIG, precision="bfloat16"), seed=0
    )
    assert math.isfinite(history[-1].train_loss or math.nan)
    fit_network(made(), windows(), None, CONFIG, seed=0)  # and float32 after it, in one process


def test_a_precision_stays_with_its_fit() -> None:
    """A network forecasts alike in memory, copied and pickled: nothing is left wrapped around it.

    Somebody else's mixed precision in accelerate's shared state is not the fit's either.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    Accelerator(cpu=True, mixed_precision="bf16")
    networks = made(), made()
    precisions: tuple[Literal["bfloat16", "float32"], ...] = ("bfloat16", "float32")
    for network, precision in zip(networks, precisions, strict=True):
        config = dataclasses.replace(CONFIG, precision=precision)
        fit_network(network, windows(), windows(), config, seed=0)
        assert "forward" not in vars(network)
        context = windows().gather(torch.arange(4)).context
        again = made()
        again.load_state_dict(network.state_dict())
        assert torch.equal(network(context), again.eval()(context))
        assert torch.equal(network(context), pickle.loads(pickle.dumps(network))(context))
    assert not torch.equal(*(network.map.weight for network in networks))


def test_fits_in_threads_are_those_of_one_thread() -> None:
    def fitted(seed: int) -> Linear:
        with seeded(seed):
            network = Linear()
        fit_network(network, windows(), windows(), CONFIG, seed=seed)
        return network

    def disturb() -> None:
        while not over.is_set():
            torch.rand(1)

    wanted = [fitted(seed) for seed in range(4)]
    over = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(fitted, range(4)))
    for one, other in zip(wanted, got, strict=True):
        assert torch.equal(one.map.weight, other.map.weight)
    with ThreadPoolExecutor(1) as pool:  # who draws, but fits nothing
        network = made()
        pool.submit(disturb)
        fit_network(network, windows(), windows(), CONFIG, seed=5)
        over.set()
    again = made()
    fit_network(again, windows(), windows(), CONFIG, seed=5)
    assert torch.equal(network.map.weight, again.map.weight)


def test_a_compiled_network_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def compile_with(backend: Any, network: nn.Module) -> Any:
        compiled.append(network)
        return inductor(network, backend=backend)

    inductor = torch.compile  # whose code takes a minute to build; how it is called is the same
    monkeypatch.setattr(torch, "compile", partial(compile_with, "aot_eager"))
    plain, network = made(), made()
    fit_network(plain, windows(), windows(), CONFIG, seed=1)
    assert compiled == []
    config = dataclasses.replace(CONFIG, compile=True)
    fit_network(network, windows(), windows(), config, seed=1)
    assert compiled == [network]
    torch.testing.assert_close(dict(network.state_dict()), dict(plain.state_dict()))

    def broken(*_: object) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr(torch, "compile", partial(compile_with, broken))
    with pytest.raises(
        BackendError, match=r"cannot be compiled here: .*no compiler.*compile=False"
    ):
        fit_network(made(), windows(), None, config, seed=1)


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    fit_network(made(), windows(), windows(), dataclasses.replace(CONFIG, verbose=1), seed=0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch 3" in captured.err


def test_a_device_that_is_not_here_is_named() -> None:
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(BackendError, match=f"device='{missing}' is not at hand; here is"):
        choose_device(missing)
    assert choose_device("auto") in {"cuda", "mps", "cpu"}


def test_the_bar_ends_with_a_fit_that_stopped_early_and_names_what_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = np.random.default_rng(0).normal(size=(200, 1))  # nothing to learn: the start is kept
    model = TSM2Forecaster(12, 4, max_epochs=20, patience=1, random_state=0, verbose=1, features=4)
    model.fit(values)
    assert model.n_iter_ < 20
    history = model.history_
    shown = " ".join(capsys.readouterr().err.split())
    first = history["validation_loss"].iloc[0]
    assert f"kept epoch 0, validation {first:.4f}; {model.n_iter_} epochs trained" in shown
    assert shown.endswith("left 0:00:00")
