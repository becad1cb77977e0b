"""A recipe's step that is recorded and replayed leaves the weights of one that is taken.

The recorder is that of a CPU, `tests/training/recorders.py`. No vision library is needed here;
`test_recipes` asks the same of whole runs.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tsm2.errors import BackendError, CaptureWarning

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "training"), str(TESTS.parent / "examples" / "vision")]

captured: Any = import_module("captured")
recorders: Any = import_module("recorders")

CPU = torch.device("cpu")
BATCHES = [(torch.rand(4, 3, 8, 8), torch.randint(5, (4,))) for _ in range(6)]


class Classifier(nn.Module):
    """Has what a backbone has: a convolution, buffers, dropout; perhaps a value for the host."""

    def __init__(self, asks: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.3))
        self.head, self.asks = nn.Linear(6, 5), asks

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(images).mean((-2, -1)))
        return scores * 2 if self.asks and scores.sum().isnan().item() else scores


def trained(recorder: Any, *, asks: bool = False, required: bool = False) -> tuple[Any, ...]:
    """Take six steps whose rate changes; return the losses, the weights, and what is drawn next."""
    torch.manual_seed(0)
    model = Classifier(asks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    def gradients(batch: Any) -> Tensor:
        model.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        return loss

    step = None
    if recorder is not None:
        step = captured.CapturedStep(gradients, model, optimizer, recorder, CPU, required=required)
    losses = []
    for number, batch in enumerate(BATCHES):
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + number)
        if step is None:
            losses.append(gradients(batch).detach())
            optimizer.step()
        else:
            losses.append(step(batch))
    return *losses, *model.state_dict().values(), torch.rand(2)


def assert_same(one: tuple[Any, ...], two: tuple[Any, ...]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_replayed_steps_leave_the_same_losses_weights_and_buffers() -> None:
    tape = recorders.Tape()
    assert_same(trained(tape), trained(None))
    assert (tape.warm_ups, tape.recorded, tape.replays) == (3, 1, 6)


@pytest.mark.parametrize("recorder", [recorders.Tape, recorders.Broken])
def test_a_step_that_cannot_be_captured_is_taken(recorder: Any) -> None:
    with pytest.warns(CaptureWarning, match="slower than they could be") as said:
        found = trained(recorder(), asks=recorder is recorders.Tape)
    assert len(said) == 1
    assert_same(found, trained(None))
    with pytest.raises(BackendError, match="cannot be captured here"):
        trained(recorder(), asks=recorder is recorders.Tape, required=True)


# --- the passes of a part -------------------------------------------------------------------------


class Pyramid(nn.Module):
    """Has what a detector's backbone has: levels of which one is made of another."""

    def __init__(self, asks: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.3))
        self.unused, self.asks = nn.Linear(2, 2), asks

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine: Tensor = self.body(images).contiguous(memory_format=torch.channels_last)
        fine = fine * 2 if self.asks and fine.sum().isnan().item() else fine
        return {"fine": fine, "coarse": functional.max_pool2d(fine, 2)}


class Detector(nn.Module):
    """Losses that ask the host, over a part that does not."""

    def __init__(self, asks: bool, twice: bool) -> None:
        super().__init__()
        self.backbone, self.head, self.twice = Pyramid(asks), nn.Conv2d(6, 4, 1), twice

    def forward(self, images: Tensor) -> Tensor:
        levels = self.backbone(images)
        read = [levels["fine"], levels["coarse"]]
        if self.twice:  # before the backward pass of the first
            read.append(self.backbone(images.flip(0))["fine"])
        found = torch.cat([self.head(each).flatten(2) for each in read], 2)
        chosen = found[found > found.mean()]  # as many as there are
        return chosen.square().mean() / len(chosen)


def detected(
    recorder: Any,
    *,
    asks: bool = False,
    required: bool = False,
    autocast: bool = False,
    twice: bool = False,
) -> tuple[Tensor, ...]:
    """Take eight steps, half of them with larger images; return losses, gradients and weights."""
    torch.manual_seed(0)
    model = Detector(asks, twice)
    if recorder is not None:
        passes: Any = captured.CapturedPasses(model.backbone, recorder, CPU, required=required)
        model.backbone.forward = passes  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    kept: list[Tensor] = []
    for number in range(8):
        size = 12 if number % 2 else 8
        images = torch.rand(4, 3, size, size)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(images)
        loss.backward()
        optimizer.step()
        kept += [loss.detach(), *(w.grad.clone() for w in model.parameters() if w.grad is not None)]
    model.eval()
    with torch.no_grad():
        kept.append(model(torch.rand(4, 3, 8, 8)))
    return *kept, *model.state_dict().values(), torch.rand(2)


@pytest.mark.parametrize(
    ("how", "replays"),
    [({}, 4), ({"autocast": True}, 4), ({"twice": True}, 6)],
    ids=["float32", "bfloat16", "two forward passes"],
)
def test_replayed_passes_leave_the_same_losses_gradients_and_weights(
    how: dict[str, Any], replays: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four batches of one size the first two are taken as they are, or the two of the first."""
    monkeypatch.setattr(captured, "PAYS", 2)
    tape = recorders.Tape()
    assert_same(detected(tape, **how), detected(None, **how))
    assert (tape.warm_ups, tape.recorded, tape.replays) == (3, 2, replays)


@pytest.mark.parametrize("recorder", [recorders.Tape, recorders.Broken])
def test_passes_that_cannot_be_captured_are_taken(
    recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "PAYS", 2)
    asks = recorder is recorders.Tape
    with pytest.warns(CaptureWarning, match="^passes of a detector's backbone are slower") as said:
        found = detected(recorder(), asks=asks)
    assert len(said) == 1
    assert_same(found, detected(None))
    with pytest.raises(BackendError, match=r"^passes of a detector's backbone cannot be captured"):
        detected(recorder(), asks=asks, required=True)


# --- where they are captured ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (torch.optim.AdamW, {}, "only CUDA has graphs of steps"),
        (torch.optim.SGD, {}, "SGD takes no steps that can be captured"),
        (torch.optim.AdamW, {"obstacle": "accumulate=2"}, "accumulate=2"),
        (torch.optim.AdamW, {"processes": 2}, "only CUDA has graphs"),
    ],
)
def test_where_steps_are_not_captured(kind: Any, given: dict[str, Any], words: str) -> None:
    optimizer = kind(nn.Linear(2, 2).parameters(), lr=0.1)
    rest = {"processes": 1, "obstacle": None} | given
    for asked in ("auto", False):
        assert captured.recorder_for(CPU, optimizer, asked=asked, **rest) is None
    with pytest.raises(BackendError, match=words):
        captured.recorder_for(CPU, optimizer, asked=True, **rest)


def test_a_run_that_was_captured_goes_on_where_there_are_no_graphs() -> None:
    weights = nn.Linear(2, 2)
    optimizer: Any = torch.optim.AdamW(weights.parameters(), lr=0.1, capturable=True)
    captured.recorder_for(CPU, optimizer, processes=1, obstacle=None, asked="auto")
    weights(torch.ones(1, 2)).sum().backward()
    optimizer.step()


def test_on_cuda_the_optimizer_s_steps_can_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a checkpoint that was written by uncaptured ones."""
    monkeypatch.setattr(captured, "find_recorder", lambda *_, **__: recorders.Broken())
    weights = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(weights.parameters(), lr=0.1)
    weights(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    moved: list[Any] = []

    def move(tensor: Tensor, device: torch.device) -> Tensor:
        moved.append(device)
        return tensor

    monkeypatch.setattr(Tensor, "to", move)
    cuda = torch.device("cuda")
    assert captured.recorder_for(cuda, optimizer, processes=1, obstacle=None, asked="auto")
    assert moved == [cuda, cuda]
    assert optimizer.param_groups[0]["capturable"]
