"""scikit-learn's callbacks: a fit is a task, its epochs are the tasks in it.

A callback follows `sklearn.callback.FitCallback` and is registered with `set_callbacks`; it sees
every epoch begin and end, may ask for the forecaster as it would be if the fit ended here, and
ends the fit by returning True.
"""

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

import pandas as pd
from sklearn.callback import with_callbacks
from torch import nn

from tsm2.training.fit import Epoch

__all__ = ["FitTasks", "closes_callbacks", "history_table"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def closes_callbacks(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a `fit` tear its callbacks down however it ends, and keep its type."""
    return cast("Callable[_P, _R]", with_callbacks(method))


class FitTasks:
    """Tell an estimator's callbacks about its fit: an `EpochWatch`.

    Parameters
    ----------
    estimator
        Has `max_epochs` and the methods of `sklearn.callback.CallbackSupportMixin`; its `history_`
        is kept up to date.
    X
        The table, which callbacks get as the data and as the target.
    attributes
        Makes of a network what the estimator would have if the fit ended with it, by name.
    """

    def __init__(
        self, estimator: Any, X: object, attributes: Callable[[nn.Module], Mapping[str, Any]]
    ) -> None:
        self.estimator, self.attributes = estimator, attributes
        self.data = {"estimator": estimator, "X": X, "y": X}
        # Numbered by hand: a fit that goes on from a checkpoint starts behind the first epoch.
        self.root = estimator._init_callback_context(
            max_subtasks=estimator.max_epochs, sequential_subtasks=False
        )
        self.root.call_on_fit_task_begin(**self.data)

    def begin(self, epoch: int) -> None:
        """Begin the task of an epoch, counted from 1."""
        self.epoch = self.root.subcontext(task_name="epoch", task_id=epoch - 1)
        self.epoch.call_on_fit_task_begin(**self.data)

    def end(self, history: list[Epoch], kept: Callable[[], nn.Module]) -> bool:
        """End the task of an epoch; True if a callback wants the fit to end."""
        self.estimator.history_ = history_table(history)
        stop = self.epoch.call_on_fit_task_end(
            **self.data, reconstruction_attributes=lambda: self.attributes(kept())
        )
        return bool(stop)

    def close(self) -> None:
        """End the task of the whole fit."""
        self.root.call_on_fit_task_end(**self.data, reconstruction_attributes=dict)


def history_table(history: list[Epoch]) -> pd.DataFrame:
    """Return the losses of all epochs, one row each."""
    return pd.DataFrame(
        [(e.epoch, e.train_loss, e.validation_loss) for e in history],
        columns=["epoch", "train_loss", "validation_loss"],
    ).astype({"train_loss": float, "validation_loss": float})
