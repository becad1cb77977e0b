"""A step that is recorded and replayed leaves the weights of one that is taken, to the bit.

The recorder is that of a CPU, see `recorders`; `tests/gpu` has the same for CUDA.
"""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from recorders import Broken, NoHost, Tape
from torch import Tensor, nn
from torch.nn import functional

from tsm2 import TSM2Forecaster
from tsm2.errors import BackendError, CaptureWarning
from tsm2.networks.config import NetworkConfig
from tsm2.networks.dropout import Dropout
from tsm2.networks.tsm2 import TSM2Network
from tsm2.prepared.windows import Covariates, Windows
from tsm2.training import checkpoints, loop
from tsm2.training.capture import CUDAGraphs, find_recorder, why_not_captured
from tsm2.training.fit import Fit, TrainingConfig
from tsm2.training.loop import fit_network, seeded

CONFIG = TrainingConfig(
    max_epochs=2,
    batch_size=8,
    learning_rate=1e-2,
    mixer_learning_rate=2e-2,
    weight_decay=0.01,
    sam_radius=0.05,
    ema_decay=0.9,
    gradient_clip=1.0,
    schedule="onecycle",
    loss="mse",
    patience=5,
    device="cpu",
    precision="float32",
    verbose=0,
)
SIZES: dict[str, Any] = {
    "lookback": 12,
    "horizon": 3,
    "n_variates": 2,
    "patch_length": 4,
    "patch_stride": 4,
    "features": 4,
    "d_state": 2,
    "dropout": 0.2,
    "zero_start": False,
    "backend": "torch",  # a tape hears of nothing else
}
QUANTILES = (0.1, 0.5, 0.9)
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "quantiles": {"quantiles": QUANTILES},
    "gaps": {"gaps": True},
    "last level": {"level": "last", "gaps": True},
    "covariates": {"n_past": 2, "n_future": 1, "n_static": 2, "gaps": True},
    "apart": {"separate_heads": True, "instance_norm": False},
    "patches with a rest": {"patch_length": 5, "patch_stride": 2, "pre_norm": "rms"},
    "other mixers": {"time_mixer": "linear", "variate_mixer": "mlp", "averaging": "mean"},
    "by the input": {"selection": "input", "d_conv": 1, "averaging_learned": False},
    "linear": {"blocks": 0},
}


def made(**changes: Any) -> TSM2Network:
    with seeded(0):
        return TSM2Network(NetworkConfig(**SIZES | changes))


def table(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def windows(rows: int = 40, **sizes: Any) -> Windows:
    """Windows of a table, with what a network of these sizes reads beside it."""
    past = table(rows, n, 1) if (n := sizes.get("n_past", 0)) else None
    future = table(rows, n, 2) if (n := sizes.get("n_future", 0)) else None
    static = table(2, 2 * n, 3).view(2, 2, n) if (n := sizes.get("n_static", 0)) else None
    starts = torch.arange(rows - 14)
    return Windows(
        values=table(rows, 2, 0).cumsum(0) / 5,
        lookback=12,
        horizon=3,
        starts=starts,
        series=(starts > 15).long(),
        known=table(rows, 2, 4) > -1 if sizes.get("gaps") else None,
        covariates=Covariates(
            past=past,
            past_mask=None if past is None else past > -1,
            future=future,
            static=static,
        ),
    )


def fit(network: nn.Module, rows: Windows, folder: Path | None = None, **changes: Any) -> list[Any]:
    config = dataclasses.replace(CONFIG, **changes)
    return fit_network(network, rows, rows, config, seed=1, checkpoint=folder)


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Record the steps of every fit from now on; return what they were recorded on."""
    found: list[Tape] = []

    def record(*_: Any, **__: Any) -> Tape:
        found.append(Tape())
        return found[-1]

    monkeypatch.setattr(loop, "find_recorder", record)
    return found


def assert_same(one: nn.Module, two: nn.Module) -> None:
    for (name, a), (_, b) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("name", NETWORKS)
def test_no_value_comes_to_the_host_in_a_step(name: str) -> None:
    sizes = NETWORKS[name]
    loss: dict[str, Any] = {"loss": "quantile", "quantiles": QUANTILES} if "quant" in name else {}
    config = dataclasses.replace(CONFIG, **loss)
    fits = Fit(made(**sizes), windows(**sizes), None, config, 1, loop._accelerator("cpu", None))
    which = torch.arange(8)
    with NoHost():  # type: ignore[no-untyped-call]
        fits.take_step._take(which)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "cosine, bfloat16": ({}, {"schedule": "cosine", "precision": "bfloat16"}),
    "no SAM, no clipping": (
        {},
        {"sam_radius": 0.0, "gradient_clip": float("inf"), "schedule": "constant"},
    ),
    "quantiles": (NETWORKS["quantiles"], {"loss": "quantile", "quantiles": QUANTILES}),
    "covariates": (NETWORKS["covariates"], {"loss": "huber", "epoch_steps": 2}),
    "a start of its own": ({"zero_start": True}, {"linear_start": "exact", "sam_radius": 0.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_replayed_steps_leave_the_same_weights_and_losses(
    name: str, request: pytest.FixtureRequest
) -> None:
    sizes, changes = CASES[name]
    rows = windows(**sizes)
    taken, replayed = made(**sizes), made(**sizes)
    history = fit(taken, rows, **changes)
    (tapes := request.getfixturevalue("tapes")).clear()
    assert fit(replayed, rows, **changes) == history
    assert_same(taken, replayed)
    (tape,) = tapes
    assert (tape.warm_ups, tape.recorded) == (3, 1)
    # 26 windows: three whole batches in a pass, and one of two windows that is never replayed.
    assert tape.replays == 2 * min(3, changes.get("epoch_steps", 3))


def test_a_table_of_less_than_a_batch_is_one_whole_batch(tapes: list[Tape]) -> None:
    fit(made(), windows(), batch_size=100)
    assert tapes[0].replays == 2


class KilledError(Exception):
    pass


@pytest.mark.parametrize("how", ["captured", "begun uncaptured", "gone on uncaptured"])
def test_a_captured_fit_that_is_killed_goes_on(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_PATIENCE", 0)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    rows, unbroken, again = windows(), made(), made()
    history = fit(unbroken, rows)
    recorders: list[Tape | None] = {
        "captured": [Tape(), Tape()],
        "begun uncaptured": [None, Tape()],
        "gone on uncaptured": [Tape(), None],
    }[how]  # type: ignore[assignment]
    monkeypatch.setattr(loop, "find_recorder", lambda *_, **__: recorders.pop(0))
    save, saved = checkpoints.Checkpoint.save, 0

    def die(*given: Any) -> None:
        nonlocal saved
        save(*given)
        saved += 1
        if saved == 6:  # in the middle of the second epoch
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoint, "save", die)
        with pytest.raises(KilledError):
            fit(made(), rows, tmp_path / "fit")
    asked = False if recorders[0] is None else "auto"
    assert fit(again, rows, tmp_path / "fit", capture_steps=asked) == history
    assert_same(again, unbroken)


class Foreign(nn.Module):
    """A network with dropout of PyTorch's own, with a buffer, and perhaps a value for the host."""

    def __init__(self, asks: bool = False) -> None:
        super().__init__()
        self.map, self.norm = nn.Linear(12, 3), nn.BatchNorm1d(2)
        self.drop, self.own, self.asks = nn.Dropout(0.3), Dropout(0.3), asks

    def forward(self, context: Tensor) -> Tensor:
        forecast: Tensor = self.map(self.own(self.drop(self.norm(context))))
        return forecast * 2 if self.asks and forecast.sum().isnan().item() else forecast


def foreign(asks: bool = False) -> Foreign:
    with seeded(0):
        return Foreign(asks)


def test_buffers_and_the_generator_of_the_process_are_put_back_too(
    request: pytest.FixtureRequest,
) -> None:
    taken, replayed = foreign(), foreign()
    torch.manual_seed(3)
    fit(taken, windows())
    drawn = torch.rand(1)
    request.getfixturevalue("tapes")
    torch.manual_seed(3)
    fit(replayed, windows())
    assert torch.equal(torch.rand(1), drawn)
    assert_same(taken, replayed)


def test_a_step_that_cannot_be_captured_is_taken(tapes: list[Tape]) -> None:
    taken, replayed = foreign(), foreign(asks=True)
    torch.manual_seed(3)
    with pytest.warns(CaptureWarning, match=r"slower.*_local_scalar_dense.*capture_steps=False"):
        fit(replayed, windows())
    assert tapes[0].replays == 0
    torch.manual_seed(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "find_recorder", lambda *_, **__: None)
        fit(taken, windows())
    assert_same(taken, replayed)


def test_a_device_that_records_nothing_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, fallen_back = made(), made()
    fit(taken, windows())
    monkeypatch.setattr(loop, "find_recorder", lambda *_, **__: Broken())
    with pytest.warns(CaptureWarning) as said:
        fit(fallen_back, windows())
    assert len(said) == 1
    assert "operation not permitted when stream is capturing. Pass" in str(said[0].message)
    assert_same(taken, fallen_back)
    with pytest.raises(BackendError, match=r"cannot be captured here: operation not permitted"):
        fit(made(), windows(), capture_steps=True)


def test_an_estimator_s_fit_of_two_networks_with_a_callback(
    request: pytest.FixtureRequest,
) -> None:
    days = pd.date_range("2024-01-01", periods=60)
    frame = pd.DataFrame({"a": np.sin(np.arange(60.0)), "b": np.arange(60.0) % 7}, index=days)
    given: dict[str, Any] = {
        **{name: SIZES[name] for name in ("lookback", "horizon", "features", "d_state", "backend")},
        "max_epochs": 2,
        "batch_size": 8,
        "random_state": 0,
        "n_estimators": 2,
    }
    taken = TSM2Forecaster(**given).fit(frame).predict()
    tapes = request.getfixturevalue("tapes")
    pd.testing.assert_frame_equal(TSM2Forecaster(**given).fit(frame).predict(), taken)
    assert [tape.recorded for tape in tapes] == [1, 1]

    class Watch:
        def begin(self, epoch: int) -> None: ...

        def end(self, history: list[Any], kept: Any) -> bool:
            assert_finite(kept())
            return len(history) == 2

    network = made()
    history = fit_network(network, windows(), windows(), CONFIG, seed=1, watch=Watch())
    assert len(history) == 2


def assert_finite(network: nn.Module) -> None:
    assert all(each.isfinite().all() for each in network.state_dict().values())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"device": "cpu"}, "only CUDA has graphs of steps, and the device is cpu"),
        ({"device": "mps"}, "the device is mps"),
        ({"device": "cuda", "processes": 4}, "4 processes take each step together"),
        ({"device": "cuda", "compiled": True}, "compile=True"),
        ({"device": "cuda", "asked": False}, "capture_steps=False"),
    ],
)
def test_why_steps_are_not_captured(given: dict[str, Any], words: str) -> None:
    assert words in str(why_not_captured(**given))
    assert why_not_captured("cuda") is None
    rest: dict[str, Any] = {"processes": 1, "compiled": False, "asked": "auto"} | given
    device = torch.device(rest.pop("device"))
    assert find_recorder(device, **rest) is None
    if rest["asked"] == "auto":
        with pytest.raises(BackendError, match=f"capture_steps=True, but .*{words}"):
            find_recorder(device, **rest | {"asked": True})


# --- how CUDA is asked ----------------------------------------------------------------------------


class FakeCUDA:
    """Takes down what CUDA is asked, in order; a capture fails if a task raises, and in its end."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.now = "outside"

    def Stream(self, device: torch.device) -> Any:  # noqa: N802
        return SimpleNamespace(name="own", wait_stream=lambda other: self.said.append("own waits"))

    def current_stream(self, device: torch.device) -> Any:
        name = self.now
        return SimpleNamespace(
            name=name, wait_stream=lambda other: self.said.append(f"{name} waits")
        )

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.now = self.now, stream.name
        try:
            yield
        finally:
            self.now = before

    def CUDAGraph(self) -> Any:  # noqa: N802
        return SimpleNamespace(
            register_generator_state=lambda generator: self.said.append("registered"),
            replay=lambda: self.said.append("replayed"),
        )

    @contextmanager
    def graph(self, graph: Any, *, stream: Any, capture_error_mode: str) -> Iterator[None]:
        self.said.append(f"{capture_error_mode} capture on {stream.name}")
        self.now = stream.name  # where a capture that fails leaves it
        try:
            yield
        except RuntimeError:
            raise RuntimeError("capture ended badly")  # noqa: B904 (as PyTorch does)
        self.said.append("ended")
        self.now = "outside"


def test_what_cuda_is_asked_to_record(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCUDA()
    monkeypatch.setattr(torch, "cuda", cuda)
    graphs, generator = CUDAGraphs(torch.device("cpu")), torch.Generator()
    graphs.warm_up(lambda: cuda.said.append(f"a step {cuda.now}"))
    assert cuda.said == ["own waits", *["a step own"] * 3, "outside waits"]
    cuda.said.clear()
    replay = graphs.record(lambda: cuda.said.append(f"a step {cuda.now}"), [generator])
    replay()
    capture = ["registered", "thread_local capture on own"]
    assert cuda.said == [*capture, "a step own", "ended", "replayed"]
    cuda.said.clear()

    def asks() -> None:
        raise RuntimeError("a value went to the host")

    with pytest.raises(RuntimeError, match="ended badly"):
        graphs.record(asks, [generator])
    assert cuda.said == [*capture, *capture, "ended"]  # the second lets go of the generators
    assert cuda.now == "outside"


def test_a_failed_capture_is_explained_by_what_failed_first() -> None:
    class BadEnd(Broken):
        def record(self, task: Any, generators: Any) -> Any:
            try:
                raise RuntimeError("a value went to the host\n\nlong advice")
            except RuntimeError:
                raise RuntimeError("capture ended badly")  # noqa: B904 (as PyTorch does)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "find_recorder", lambda *_, **__: BadEnd())
        with pytest.warns(CaptureWarning, match=r"captured: a value went to the host\. Pass"):
            fit(made(), windows(), max_epochs=1)


# --- the step itself ------------------------------------------------------------------------------


class Plain(nn.Module):
    """A map, of which one half counts as a mixer."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.mixer = nn.Linear(12, 3), nn.Linear(12, 3)

    def mixer_parameters(self) -> list[nn.Parameter]:
        return list(self.mixer.parameters())

    def forward(self, context: Tensor) -> Tensor:
        forecast: Tensor = self.map(context) + self.mixer(context)
        return forecast


def test_a_step_is_the_published_one() -> None:
    """SAM (Foret et al., algorithm 1), clipping and AdamW, written down again by hand."""
    with seeded(0):
        network, again = Plain(), Plain()
    again.load_state_dict(network.state_dict())
    rows = windows()
    config = dataclasses.replace(CONFIG, max_epochs=1, epoch_steps=3, schedule="constant")
    fit_network(network, rows, None, config, seed=1)

    order = list(rows.batches(8, generator=torch.Generator().manual_seed(1)))[:3]
    parameters, mixers = list(again.parameters()), again.mixer_parameters()
    average = [p.detach().clone() for p in parameters]
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]

    def gradients(which: Tensor) -> list[Tensor]:
        batch = rows.gather(which)
        loss = functional.mse_loss(again(batch.context), batch.target)
        return list(torch.autograd.grad(loss, parameters))

    for step, which in enumerate(order, start=1):
        found = gradients(which)
        climbed = found[2:]
        norm = torch.cat([g.flatten() for g in climbed]).norm()
        with torch.no_grad():
            moves = [0.05 * g / norm for g in climbed]
            for parameter, move in zip(mixers, moves, strict=True):
                parameter.add_(move)
        found = gradients(which)
        with torch.no_grad():
            for parameter, move in zip(mixers, moves, strict=True):
                parameter.sub_(move)
            norm = torch.cat([g.flatten() for g in found]).norm()
            share = 1 - min(0.9, (1 + step) / (10 + step))
            for number, (parameter, gradient) in enumerate(zip(parameters, found, strict=True)):
                clipped = gradient * min(1.0, float(1 / norm))
                first[number] = 0.9 * first[number] + 0.1 * clipped
                second[number] = 0.999 * second[number] + 0.001 * clipped**2
                mean = first[number] / (1 - 0.9**step)
                spread = (second[number] / (1 - 0.999**step)).sqrt() + 1e-8
                rate = 1e-2 if number < 2 else 2e-2
                decay = 0.01 if number == 2 else 0.0
                parameter.mul_(1 - rate * decay).sub_(rate * mean / spread)
                average[number] += share * (parameter - average[number])
    for kept, wanted in zip(network.parameters(), average, strict=True):
        torch.testing.assert_close(kept, wanted)
