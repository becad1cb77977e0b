"""A fit that is killed goes on to the weights of an unbroken one, bit for bit, or says why not."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from forging import forge_config
from torch import Tensor, nn

from tsm2 import TSM2Forecaster, saving
from tsm2.errors import OutputError, ParameterError, SavedModelError, TrainingError
from tsm2.networks.dropout import Dropout
from tsm2.prepared.windows import Windows
from tsm2.training import checkpoints
from tsm2.training.fit import TrainingConfig
from tsm2.training.loop import fit_network, seeded

CONFIG = TrainingConfig(
    max_epochs=3,
    batch_size=16,
    learning_rate=1e-2,
    mixer_learning_rate=1e-2,
    weight_decay=0.01,
    sam_radius=0.0,
    gradient_clip=1.0,
    schedule="onecycle",
    loss="mse",
    patience=2,
    device="cpu",
    precision="float32",
    verbose=0,
)


AVERAGED: dict[str, Any] = {"ema_decay": 0.9, "max_epochs": 2}


class KilledError(Exception):
    pass


class Mortal(nn.Module):
    """A network that dies at one of its calls."""

    def __init__(self, dies_at: int | None = None) -> None:
        super().__init__()
        self.map, self.mixer = nn.Linear(8, 2), nn.Linear(8, 2)
        self.drop = Dropout(0.3)
        self.calls, self.dies_at = 0, dies_at

    def mixer_parameters(self) -> list[nn.Parameter]:
        return list(self.mixer.parameters())

    def forward(self, context: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.dies_at:
            raise KilledError
        forecast: Tensor = self.map(context) + self.mixer(self.drop(context))
        return forecast


def made(dies_at: int | None = None) -> Mortal:
    with seeded(0):
        return Mortal(dies_at)


def windows(rows: int = 80, shift: float = 0.0) -> Windows:
    values = torch.sin(torch.arange(rows) * 0.7)[:, None].repeat(1, 2) + shift
    return Windows(values=values, lookback=8, horizon=2)


def run(network: Mortal, folder: Path | None = None, **changes: Any) -> list[Any]:
    config = dataclasses.replace(CONFIG, **changes)
    return fit_network(network, windows(), windows(40), config, seed=1, checkpoint=folder)


def assert_same(one: nn.Module, two: nn.Module) -> None:
    for (name, a), (_, b) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"schedule": "cosine", "ema_decay": 0.9, "epoch_steps": 2},
        {"min_steps": 13},  # several passes in an epoch
        {"schedule": "constant", "sam_radius": 0.05, "gradient_clip": float("inf")},
        {"max_epochs": 9, "learning_rate": 1.0, "schedule": "constant"},  # patience ends it
    ],
    ids=str,
)
def test_a_fit_that_dies_at_any_call_goes_on_as_if_it_had_not(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_PATIENCE", 0)  # save after every step
    monkeypatch.setattr(os, "fsync", lambda _: None)
    unbroken = made()
    history = run(unbroken, **changes)
    for dies_at in range(1, unbroken.calls + 1):
        folder = tmp_path / str(dies_at)
        with pytest.raises(KilledError):
            run(made(dies_at), folder, **changes)
        torch.rand(1)  # the new process has drawn other numbers
        again = made()
        assert run(again, folder, **changes) == history
        assert_same(again, unbroken)
        assert dies_at <= 2 or again.calls < unbroken.calls  # the first step may take two calls


def test_a_finished_fit_is_not_repeated(tmp_path: Path) -> None:
    first, second = made(), made()
    history = run(first, tmp_path / "fit")
    assert run(second, tmp_path / "fit") == history
    assert second.calls == 0
    assert_same(first, second)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "fit"
    run(made(), folder)
    with pytest.raises(SavedModelError, match=r"learning_rate was 0.01 and is 0.02.*delete"):
        run(made(), folder, learning_rate=0.02)
    with pytest.raises(SavedModelError, match="another fit: the training windows differ"):
        fit_network(made(), windows(81), windows(40), CONFIG, seed=1, checkpoint=folder)
    with pytest.raises(SavedModelError, match="another fit: the validation windows differ"):
        fit_network(made(), windows(), None, CONFIG, seed=1, checkpoint=folder)
    with pytest.raises(SavedModelError, match="seed was 1 and is 2"):
        fit_network(made(), windows(), windows(40), CONFIG, seed=2, checkpoint=folder)
    other = made()
    nn.init.ones_(other.map.weight)
    with pytest.raises(SavedModelError, match="network's initial weights differ"):
        run(other, folder)
    forge_config(folder, '"version of tsm2": "', '"version of tsm2": "9.')
    with pytest.raises(SavedModelError, match=r"version of tsm2 was '9\."):
        run(made(), folder)


def forged(folder: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Tensor]]]:
    """Yield what was changed of a checkpoint, its config and its tensors."""
    config, tensors = saving.load_folder(folder, kind="checkpoint of a fit")
    position = config["position"]
    values: tuple[Any, ...] = (None, "x", -1, 10**9, 1.5, True, [], {}, float("nan"))
    for part in ("identity", "position"):
        yield f"no {part}", {k: v for k, v in config.items() if k != part}, tensors
        for value in values:
            yield f"{part}={value}", config | {part: value}, tensors
    for name in position:
        rest = {k: v for k, v in position.items() if k != name}
        yield f"no {name}", config | {"position": rest}, tensors
        for value in values:
            if value != position[name]:
                changed = config | {"position": position | {name: value}}
                yield f"{name}={value}", changed, tensors
    yield "more", config | {"position": position | {"scheduler": {}}}, tensors
    for change in ({"epoch": 7}, {"train_loss": None}, {"validation_loss": "low"}, {"more": 1}):
        history = [position["history"][0] | change, *position["history"][1:]]
        yield str(change), config | {"position": position | {"history": history}}, tensors
    for name, tensor in tensors.items():
        yield f"no {name}", config, {k: v for k, v in tensors.items() if k != name}
        other = [tensor[None], tensor.to(torch.float16)]
        if name.startswith("random."):
            other.append(torch.full_like(tensor, 255))
        for each in other:
            yield f"{name} {tuple(each.shape)} {each.dtype}", config, tensors | {name: each}
    yield "more", config, tensors | {"optimizer.x.step": torch.zeros(())}
    yield "more", config, tensors | {"weights.other": torch.zeros(1)}


def test_a_forged_checkpoint_is_refused_or_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_PATIENCE", 0)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    folder, unbroken = tmp_path / "fit", made()
    run(unbroken, **AVERAGED)
    with pytest.raises(KilledError):
        run(made(dies_at=11), folder, **AVERAGED)  # within the second epoch
    tried = refused = 0
    for number, (what, config, tensors) in enumerate(list(forged(folder))):
        copy = tmp_path / str(number)
        saving.save_folder(copy, kind="checkpoint of a fit", config=config, tensors=tensors)
        network = made()
        tried += 1
        try:
            run(network, copy, **AVERAGED)
        except (SavedModelError, TrainingError):  # a loss may have been NaN
            refused += 1
        else:  # what was lost is the record of a loss, no weight
            assert "loss_sum" in what, what
            assert_same(network, unbroken)
    assert refused > 0.9 * tried > 90


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        run(made(), tmp_path)
    saving.save_folder(tmp_path / "model", kind="TSM2Forecaster", config={}, tensors={})
    with pytest.raises(SavedModelError, match="kind 'TSM2Forecaster'"):
        run(made(), tmp_path / "model")


def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_PATIENCE", 0)
    unbroken, folder, written = made(), tmp_path / "fit", 0
    run(unbroken)

    def fsync(_: int) -> None:
        nonlocal written
        written += 1
        if written == 9:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OutputError, match=r"No space left.*unchanged"):
            run(made(), folder)
    again = made()
    run(again, folder)
    assert 0 < again.calls < unbroken.calls
    assert_same(again, unbroken)


def test_what_a_killed_save_left_is_cleared_away(tmp_path: Path) -> None:
    folder = tmp_path / "fit"
    run(made(), folder)
    (folder / "model-000000000000.safetensors").write_bytes(b"half of it")
    (folder / ".config.json.00000000.part").write_bytes(b"{")
    run(made(), folder)
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".json", ".safetensors"]
    assert not (folder / "model-000000000000.safetensors").exists()


def test_saving_takes_a_twentieth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def save_folder(*_: object, **__: object) -> None:
        nonlocal now
        now += 1.0

    monkeypatch.setattr(checkpoints, "save_folder", save_folder)
    kept = checkpoints.Checkpoint(tmp_path / "fit", {})
    assert kept.is_due()
    kept.save({}, {})
    now += 20.0
    assert not kept.is_due()
    now += 0.1
    assert kept.is_due()


# --- the estimator in processes that are really killed --------------------------------------------

FITS = """
import os, sys
import numpy as np, pandas as pd
from tsm2 import TSM2Forecaster

def fit(checkpoint, out):
    rows = np.arange(300)
    index = pd.date_range("2024-01-01", periods=300, freq="h")
    frame = pd.DataFrame({"a": np.sin(rows * 0.26), "b": np.cos(rows * 0.1) * 9}, index)
    model = TSM2Forecaster(
        24, 6, features=8, d_state=4, dropout=0.2, max_epochs=4, ema_decay=0.9,
        device="cpu", random_state=0,
    )
    print(os.getpid(), flush=True)
    model.fit(frame, checkpoint=checkpoint or None)
    model.save(out)

for line in sys.stdin:
    child = os.fork()  # in place of the seconds that a process takes to import
    if not child:
        fit(*line.rstrip().split(";"))
        sys.stdout.flush()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def killed(process: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(process, signal.SIGKILL)


def code_of(fits: subprocess.Popen[str], checkpoint: object, out: Path, limit: float) -> int:
    """Return how a process ended that fits, and is killed when its time is over."""
    assert fits.stdin is not None
    assert fits.stdout is not None
    fits.stdin.write(f"{checkpoint};{out}\n")
    fits.stdin.flush()
    process = int(fits.stdout.readline())  # from here on it trains
    over = threading.Timer(limit, killed, (process,))
    over.start()
    code = int(fits.stdout.readline())
    over.cancel()
    over.join()
    return code


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_processes_killed_at_random_moments_reach_the_same_weights(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FITS]
    ends: list[int] = []
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as fits:
        assert code_of(fits, "", tmp_path / "unbroken", 120.0) == 0
        moments = random.Random(0)
        while not ends or ends[-1]:
            limit = 0.3 + 0.7 * moments.random() if len(ends) < 5 else 120.0
            ends.append(code_of(fits, tmp_path / "fit", tmp_path / "resumed", limit))
    assert len(ends) > 3
    assert set(ends[:-1]) == {-signal.SIGKILL}
    one, two = (TSM2Forecaster.load(tmp_path / name) for name in ("unbroken", "resumed"))
    assert_same(one.network_, two.network_)
    pd.testing.assert_frame_equal(one.history_, two.history_, check_exact=True)


def frame(rows: int = 300) -> pd.DataFrame:
    t = np.arange(rows)
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    return pd.DataFrame({"a": np.sin(t * 0.26), "b": np.cos(t * 0.1) * 9}, index)


def small(**changes: Any) -> TSM2Forecaster:
    given: dict[str, Any] = {"features": 8, "d_state": 4, "device": "cpu", "random_state": 0}
    given["linear_start"] = "random"  # whose epochs begin with 1
    return TSM2Forecaster(24, 6, **(given | {"max_epochs": 3} | changes))


def test_time_that_runs_out_keeps_the_place(tmp_path: Path) -> None:
    unbroken = small().fit(frame())
    pieces = 0
    while True:
        model = small().fit(frame(), checkpoint=tmp_path / "fit", max_time=0.05)
        pieces += 1
        assert np.isfinite(model.predict()).all(axis=None)
        if len(model.history_) == 3 and model.history_.equals(unbroken.history_):
            break
        assert pieces < 100
    assert pieces > 1
    assert_same(model.network_, unbroken.network_)


def test_time_that_runs_out_ends_a_long_fit() -> None:
    start = time.monotonic()
    model = small(max_epochs=100_000, patience=100_000).fit(frame(), max_time="1s")
    assert 1 < time.monotonic() - start < 5
    assert 1 <= model.n_iter_ < 100_000


def test_the_estimator_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="checkpoint needs a random_state"):
        small(random_state=None).fit(frame(), checkpoint=tmp_path / "fit")
    refused: tuple[Any, ...] = (0, -1, "soon", float("nan"), [])
    for max_time in refused:
        with pytest.raises(ParameterError, match="max_time must be seconds above 0"):
            small().fit(frame(), max_time=max_time)
    small(max_epochs=1).fit(frame(), checkpoint=tmp_path / "fit")
    with pytest.raises(SavedModelError, match="training windows differ"):
        small(max_epochs=1).fit(frame() + 0.1 * frame() ** 2, checkpoint=tmp_path / "fit")
