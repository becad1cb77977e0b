"""scikit-learn's callbacks see every epoch, get a forecaster that works, and can end a fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor

from tsm2 import TSM2Forecaster


def frame() -> pd.DataFrame:
    t = np.arange(120)
    index = pd.date_range("2024-01-01", periods=120, freq="h")
    return pd.DataFrame({"a": np.sin(t * 0.26), "b": np.cos(t * 0.1) * 9}, index)


def small(**changes: Any) -> TSM2Forecaster:
    given: dict[str, Any] = {"features": 8, "d_state": 4, "device": "cpu", "random_state": 0}
    given["linear_start"] = "random"  # whose epochs begin with 1
    return TSM2Forecaster(24, 6, **(given | {"max_epochs": 4} | changes))


class Recorder:
    """Write down what happens, and ask `stop` whether that is enough."""

    def __init__(self, stop: Callable[[TSM2Forecaster], bool] = lambda _: False) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.forecasts: list[pd.DataFrame] = []
        self.stop = stop

    def setup(self, estimator: Any, context: Any) -> None:
        self.calls.append(("setup",))

    def teardown(self, estimator: Any, context: Any) -> None:
        self.calls.append(("teardown",))

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self.calls.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, fitted_estimator: Any = None
    ) -> bool:
        self.calls.append(("end", context.task_name, context.task_id))
        self.forecasts.append(fitted_estimator.predict())
        return context.task_name == "epoch" and self.stop(estimator)


def test_every_epoch_is_a_task_of_the_fit() -> None:
    recorder = Recorder()
    model = small(max_epochs=2).set_callbacks(recorder)
    model.fit(frame())
    epochs = [(when, "epoch", number) for number in (0, 1) for when in ("begin", "end")]
    assert recorder.calls == [
        ("setup",),
        ("begin", "fit", 0),
        *epochs,
        ("end", "fit", 0),
        ("teardown",),
    ]
    np.testing.assert_array_equal(recorder.forecasts[-1], model.predict())
    assert not recorder.forecasts[0].equals(recorder.forecasts[1])


def test_the_forecaster_of_an_epoch_is_the_one_that_a_shorter_fit_leaves() -> None:
    recorder = Recorder()
    settings = {"schedule": "constant", "ema_decay": 0.5}
    small(**settings).set_callbacks(recorder).fit(frame())
    for n_epochs in (1, 3):
        wanted = small(**settings, max_epochs=n_epochs).fit(frame()).predict()
        np.testing.assert_array_equal(recorder.forecasts[n_epochs - 1], wanted)


def test_a_callback_ends_the_fit() -> None:
    recorder = Recorder(stop=lambda model: len(model.history_) == 2)
    model = small().set_callbacks(recorder).fit(frame())
    assert model.n_iter_ == 2
    assert np.isfinite(model.predict()).all(axis=None)


def test_a_fit_that_a_callback_ended_stays_ended(tmp_path: Path) -> None:
    model = small().set_callbacks(Recorder(stop=lambda model: True))
    model.fit(frame(), checkpoint=tmp_path / "fit")
    again = small().fit(frame(), checkpoint=tmp_path / "fit")
    assert again.n_iter_ == 1
    np.testing.assert_array_equal(again.predict(), model.predict())


def test_an_error_in_a_callback_leaves_nothing_half_fitted() -> None:
    def fail(_: TSM2Forecaster) -> bool:
        raise RuntimeError("pruned")

    recorder = Recorder(stop=fail)
    model = small().fit(frame())
    model.set_callbacks(recorder)
    with pytest.raises(RuntimeError, match="pruned"):
        model.fit(frame())
    assert recorder.calls[-1] == ("teardown",)
    assert not hasattr(model, "network_")


def test_scikit_learns_own_callbacks_work(capsys: pytest.CaptureFixture[str]) -> None:
    monitor = ScoringMonitor(scoring={"score": lambda model, X, _: model.score(X)})
    model = small().set_callbacks(monitor, ProgressBar())
    model.fit(frame())
    log = monitor.get_logs().data_as_pandas
    scores = log.loc[log["task_name"] == "epoch", "score"]
    assert len(scores) == 4
    assert scores.iloc[-1] == pytest.approx(model.score(frame()))
    assert "TSM2Forecaster - fit" in capsys.readouterr().out
    assert not hasattr(clone(model), "_callback_fit_ctx")
