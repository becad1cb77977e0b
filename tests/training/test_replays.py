"""What is done often is replayed, steps and validation alike, with the same values to the bit.

The recorder is that of a CPU, see `recorders`.
"""

from typing import Any

import pytest
import torch
from recorders import Broken, Tape
from test_captured_steps import CASES, NETWORKS, assert_same, fit, foreign, made, windows
from torch import Tensor

from tsm2.errors import BackendError, CaptureWarning
from tsm2.training import loop
from tsm2.training.recording import PAYS, Replayed

CPU = torch.device("cpu")


def doubled(values: Tensor, *, more: Tensor | None = None) -> Tensor:
    return values * 2 if more is None else values * 2 + more


def replayed(recorder: Any, **how: Any) -> Replayed[Tensor]:
    return Replayed(doubled, recorder, CPU, what="these", **how)


def test_a_function_is_recorded_when_it_was_called_often() -> None:
    tape, given = Tape(), [torch.rand(3) for _ in range(PAYS + 4)]
    task = replayed(tape)
    found = [task(each) for each in given]
    assert (tape.warm_ups, tape.recorded, tape.replays) == (3, 1, 4)
    # What was returned before is not written over.
    assert all(torch.equal(one, 2 * two) for one, two in zip(found, given, strict=True))


def test_what_is_of_other_sizes_is_recorded_apart() -> None:
    tape = Tape()
    task = replayed(tape, after=0)
    whole, other = torch.rand(4, 6), torch.rand(4, 6)
    of_other_sizes: list[tuple[Tensor, dict[str, Tensor]]] = [
        (whole, {}),
        (whole[:3], {}),
        (whole[:, :3], {}),  # as many as above in another way
        (whole, {"more": other}),
        (whole.double(), {}),  # one more than are recorded
    ]
    for _ in range(2):
        for given, named in of_other_sizes:
            assert torch.equal(task(given, **named), doubled(given, **named))
    assert (tape.recorded, tape.replays) == (4, 8)


def test_tensors_are_read_as_they_lie_in_memory() -> None:
    seen: list[tuple[int, ...]] = []

    def noted(values: Tensor) -> Tensor:
        seen.append(values.stride())
        return values + 1

    task = Replayed(noted, Tape(), CPU, what="these", after=0)
    for given in (torch.rand(4, 6)[:, :3], torch.rand(3).expand(2, 3)):
        assert torch.equal(task(given), given + 1)
    assert set(seen) == {(6, 1), (3, 1)}  # one number for many has room for all of them


def test_what_cannot_be_recorded_is_said_once_and_done_all_the_same() -> None:
    task = replayed(Broken(), after=1)
    with pytest.warns(CaptureWarning, match="^these are slower than") as said:
        found = [task(torch.ones(size)) for size in (1, 1, 1, 2, 2)]
    assert len(said) == 1
    assert all(torch.equal(each, torch.full_like(each, 2)) for each in found)
    with pytest.raises(BackendError, match=r"^these cannot be captured here: operation not perm"):
        replayed(Broken(), after=0, required=True)(torch.ones(1))


VALIDATED = CASES | {
    "gaps": ({"gaps": True}, {"loss": "mae"}),
    "the network itself, not its average": ({}, {"ema_decay": 0.0, "sam_radius": 0.0}),
    "the linear path alone": (NETWORKS["linear"], {"linear_start": "random"}),
}


@pytest.mark.parametrize("name", VALIDATED)
def test_replayed_validation_measures_what_is_measured(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, changes = VALIDATED[name]
    epochs = {"max_epochs": 6, "patience": 6}
    rows, taken, again = windows(**sizes), made(**sizes), made(**sizes)
    history = fit(taken, rows, **changes | epochs)
    assert len({each.validation_loss for each in history}) == len(history)
    tape = Tape()
    monkeypatch.setattr(loop, "find_recorder", lambda *_, **__: tape)
    assert fit(again, rows, **changes | epochs) == history
    assert_same(taken, again)
    # 26 windows: three whole batches in a pass, and one of two windows that comes too seldom.
    steps, judged = 6 * min(3, changes.get("epoch_steps", 3)), 3 * len(history)
    assert (tape.recorded, tape.replays) == (2, steps + judged - PAYS)


def test_validation_that_cannot_be_replayed_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, again = foreign(), foreign(asks=True)
    epochs: dict[str, Any] = {"max_epochs": 6, "patience": 6}
    torch.manual_seed(3)
    history = fit(taken, windows(), **epochs)
    monkeypatch.setattr(loop, "find_recorder", lambda *_, **__: Tape())
    torch.manual_seed(3)
    with pytest.warns(CaptureWarning) as said:
        assert fit(again, windows(), **epochs) == history
    first, second = (str(each.message) for each in said)
    assert first.startswith("training steps are slower")
    assert second.startswith("batches of validation are slower")
    assert_same(taken, again)
