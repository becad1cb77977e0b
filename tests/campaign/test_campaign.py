"""The campaign: what unattended models meet, drawn at random from a fixed seed.

Every try ends in one of four ways: it survived (nothing changed), it was refused in our words, it
went on silently with something else, or it ended in somebody else's error. The last two are zero.
`TSM2_CAMPAIGN_ROUNDS=30` makes it an hour; the figures are printed, and in docs/reliability.md.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from forging import change_config

from tsm2 import TSM2Forecaster, saving
from tsm2.errors import TSM2Error

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROUNDS = int(os.environ.get("TSM2_CAMPAIGN_ROUNDS", "1"))
VALUES: tuple[Any, ...] = (None, -1, 0, 10**9, 10**30, 0.5, True, "", "x", "ns", [], {}, [[1]])
VALUES = (*VALUES, float("nan"), float("inf"), "\0", "../x", ["a", "b"], {"a": 1}, (1, 2))


def table(rows: int = 200) -> pd.DataFrame:
    t = np.arange(rows)
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    return pd.DataFrame({"a": np.sin(t * 0.26), "b": np.cos(t * 0.1) * 9}, index)


def small(**changes: Any) -> TSM2Forecaster:
    given: dict[str, Any] = {"features": 8, "patch_length": 8, "d_state": 4, "max_epochs": 1}
    given |= {"device": "cpu", "random_state": 0, "zero_start": False}
    return TSM2Forecaster(24, 6, **(given | changes))


@pytest.fixture(scope="module")
def fitted() -> TSM2Forecaster:
    return small(calendar=("hour",)).fit(table())


def outcome(attempt: Callable[[], bool]) -> str:
    """Return how a try ended; it says whether nothing has changed."""
    try:
        return "survived" if attempt() else "silent"
    except TSM2Error:
        return "refused"
    except Exception as error:  # noqa: BLE001 - which must not happen, whatever it is
        print(f"foreign: {type(error).__name__}: {error}")  # noqa: T201
        return "foreign"


def told(what: str, found: Counter[str]) -> None:
    print(json.dumps({"what": what, "tried": found.total(), **found}))  # noqa: T201
    assert not found["silent"], found
    assert not found["foreign"], found


def test_damaged_models(fitted: TSM2Forecaster, tmp_path: Path) -> None:
    draws = random.Random(0)
    wanted, found = fitted.predict(), Counter[str]()
    for number in range(100 * ROUNDS):
        folder = tmp_path / str(number)
        fitted.save(folder)
        parts = [each for each in folder.iterdir() if each.suffix in (".json", ".safetensors")]
        file = draws.choice(sorted(parts))  # the card is for people
        data = bytearray(file.read_bytes())
        kind = draws.choice(["bit", "byte", "cut", "zeros", "gone", "swapped"])
        at = draws.randrange(len(data))
        if kind == "bit":
            data[at] ^= 1 << draws.randrange(8)
        elif kind == "byte":
            data[at] = draws.randrange(256)
        elif kind == "cut":
            del data[at:]
        elif kind == "zeros":
            data[at : at + 512] = bytes(len(data[at : at + 512]))
        elif kind == "swapped":
            data[at:] = data[at:][::-1]
        file.write_bytes(data)
        if kind == "gone":
            file.unlink()
        found[outcome(lambda at=folder: TSM2Forecaster.load(at).predict().equals(wanted))] += 1  # type: ignore[misc]
    told("damaged models", found)


def paths_in(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List where the leaves and branches of nested JSON are."""
    if isinstance(value, dict):
        inner = [each for name in value for each in paths_in(value[name], (*at, name))]
    elif isinstance(value, list):
        inner = [each for k in range(len(value)) for each in paths_in(value[k], (*at, k))]
    else:
        inner = []
    return [*([at] if at else []), *inner]


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """Return nested JSON with something else at one place."""
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = put(copy[at[0]], at[1:], new)
    return copy


def test_forged_models(fitted: TSM2Forecaster, tmp_path: Path) -> None:
    """Whoever writes both checksums may choose the model, but gets a forecast or our words."""
    draws = random.Random(1)
    fitted.save(tmp_path)
    whole, found = (tmp_path / "config.json").read_bytes(), Counter[str]()
    places = paths_in(json.loads(whole))
    encoded = [saving._encode(value, "value", 0) for value in VALUES]

    def attempt() -> bool:
        forecast = TSM2Forecaster.load(tmp_path).predict()
        return bool(np.isfinite(np.asarray(forecast)).all())

    for _ in range(200 * ROUNDS):
        (tmp_path / "config.json").write_bytes(whole)
        at, new = draws.choice(places), draws.choice(encoded)
        change_config(tmp_path, lambda saved, at=at, new=new: put(saved, at, new))  # type: ignore[misc]
        ended = outcome(attempt)
        if ended == "foreign":
            print(at, new)  # noqa: T201
        found[ended] += 1
    told("forged models", found)


SAVER = """
import sys, torch
from tsm2.saving import save_folder
n = int(sys.argv[2])
while True:
    n = (n + 1) % 3
    tensors = {"w": torch.full((50_000,), float(n))}
    save_folder(sys.argv[1], kind="Model", config={"n": n}, tensors=tensors)
    print(n, flush=True)  # noqa: T201
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_savers_that_meet_and_are_killed(tmp_path: Path) -> None:
    draws, found = random.Random(2), Counter[str]()

    def whole() -> bool:
        config, tensors = saving.load_folder(tmp_path, kind="Model")
        return bool((tensors["w"] == config["n"]).all())

    for _ in range(3 * ROUNDS):
        commands = [[sys.executable, "-c", SAVER, str(tmp_path), str(k)] for k in range(2)]
        savers = [subprocess.Popen(each, stdout=subprocess.PIPE) for each in commands]
        for saver in savers:
            assert saver.stdout is not None
            saver.stdout.readline()
        ends = time.monotonic() + draws.random()
        while time.monotonic() < ends:
            found[outcome(whole)] += 1
        for saver in savers:
            saver.send_signal(signal.SIGKILL)
            saver.communicate()
        found[outcome(whole)] += 1
        saving.save_folder(tmp_path, kind="Model", config={"n": 0}, tensors={"w": torch.zeros(9)})
        assert len(list(tmp_path.iterdir())) == 3  # what the killed ones left is gone
    assert not found["refused"]
    told("loads while savers meet and are killed", found)


def test_crossed_features(tmp_path: Path) -> None:
    draws, found = random.Random(3), Counter[str]()
    choices: dict[str, tuple[Any, ...]] = {
        "blocks": (0, 1, 2),
        "dropout": (0.0, 0.3),
        "instance_norm": (True, False),
        "pre_norm": ("2d", "none"),
        "quantiles": (None, (0.1, 0.9)),
        "precision": ("float32", "bfloat16"),
        "n_estimators": (1, 2),
        "calendar": ((), ("hour", "dayofweek")),
        "missing": ("raise", "mask"),
        "ema_decay": (0.0, 0.9),
        "schedule": ("onecycle", "cosine", "constant"),
    }
    for number in range(6 * ROUNDS):
        given = {name: draws.choice(values) for name, values in choices.items()}
        factor = draws.choice([1.0, 1e6, 1e-6])

        def attempt(given: Any = given, factor: float = factor, number: int = number) -> bool:
            model = small(**given).fit(table())
            model.save(tmp_path / str(number))
            again = TSM2Forecaster.load(tmp_path / str(number))
            history = table() * factor
            one, two = model.predict(history), again.predict(history)
            return one.equals(two) and bool(np.isfinite(one.to_numpy()).all())

        ended = outcome(attempt)
        if ended in ("silent", "foreign"):
            print(given, factor)  # noqa: T201
        found[ended] += 1
    told("crossed features", found)
