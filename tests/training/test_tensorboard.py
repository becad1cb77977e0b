"""TensorBoard gets every epoch once, also from a fit that was cut off; needs the extra."""

from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.errors import ParameterError
from tsm2.training import loop

# TensorBoard's own modules use what protobuf, setuptools and NumPy deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def fit(model: TSM2Forecaster, **options: Any) -> TSM2Forecaster:
    t = np.arange(120)
    return model.fit(np.stack((np.sin(t * 0.26), np.cos(t * 0.1) * 9), axis=1), **options)


def small(**changes: Any) -> TSM2Forecaster:
    given: dict[str, Any] = {"features": 8, "d_state": 4, "device": "cpu", "random_state": 0}
    given["linear_start"] = "random"  # whose epochs begin with 1
    return TSM2Forecaster(24, 6, **(given | {"max_epochs": 3} | changes))


def recorded(folder: Path) -> pd.DataFrame:
    """Read the scalars back, one row per epoch."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(folder))
    accumulator.Reload()
    table = {}
    for name in accumulator.Tags()["scalars"]:
        steps = [event.step for event in accumulator.Scalars(name)]
        assert len(set(steps)) == len(steps)  # none is there twice
        table[name] = {event.step: event.value for event in accumulator.Scalars(name)}
    return pd.DataFrame(table)


def test_every_epoch_is_recorded(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    model = fit(small(), log_dir=tmp_path)
    table = recorded(tmp_path)
    assert list(table.index) == [1, 2, 3]
    assert list(table) == [
        "loss/train",
        "loss/validation",
        "learning_rate/linear",
        "learning_rate/mixers",
    ]
    np.testing.assert_allclose(table["loss/train"], model.history_["train_loss"], rtol=1e-6)
    np.testing.assert_allclose(
        table["loss/validation"], model.history_["validation_loss"], rtol=1e-6
    )
    fit(small())  # and no record is kept of a fit that does not ask for it


def test_a_fit_that_was_cut_off_is_recorded_as_one(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    wanted = fit(small()).history_
    options = {"log_dir": tmp_path / "log", "checkpoint": tmp_path / "fit", "max_time": 0.05}
    assert any(fit(small(), **options).history_.equals(wanted) for _ in range(100))
    table = recorded(tmp_path / "log")
    assert list(table.index) == [1, 2, 3]
    np.testing.assert_allclose(table["loss/train"], wanted["train_loss"], rtol=1e-6)


def test_without_tensorboard_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "find_spec", lambda name: None)
    assert util.find_spec("numpy") is not None
    with pytest.raises(ParameterError, match=r"log_dir needs TensorBoard.*tsm2\[tensorboard\]"):
        fit(small(), log_dir=tmp_path)
