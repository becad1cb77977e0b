"""Where a fit stands, as its checkpoint says it: no more than what nothing else tells.

The epoch, the best loss and the patience follow from the losses so far, and the learning rates from
the number of steps. They are worked out again and not believed, so that a position either is one
that this fit can be in or is refused.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from torch import Tensor

from tsm2.errors import SavedModelError
from tsm2.saving import check_tensors

__all__ = ["Epoch", "Position", "check_state"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """What one pass over the training windows reached."""

    epoch: int
    """Counted from 1; 0 is an exact start."""
    train_loss: float | None
    """Mean over the training windows while the weights moved, mixers' dropout on; None of a
    start."""
    validation_loss: float | None
    """Mean over the validation windows after the pass; None without validation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where a fit stands, but for its tensors."""

    step: int
    """Steps of the epoch that were taken."""
    seen: int
    """Windows of the epoch that were seen."""
    loss_sum: float
    """Sum of their losses."""
    history: tuple[Epoch, ...]
    """Epochs that ended."""
    finished: bool
    """Whether the fit has ended."""

    @property
    def epoch(self) -> int:
        """The epoch that is under way, counted from 1."""
        return 1 + sum(record.epoch > 0 for record in self.history)

    def to_json(self) -> dict[str, Any]:
        """Return the position in what JSON holds."""
        return {
            "step": self.step,
            "seen": self.seen,
            "loss_sum": self.loss_sum,
            "history": [asdict(record) for record in self.history],
            "finished": self.finished,
        }

    @classmethod
    def from_json(
        cls,
        saved: Mapping[str, Any],
        *,
        has_start: bool,
        validates: bool,
        steps_per_epoch: int,
        max_epochs: int,
        batch_size: int,
    ) -> Self:
        """Return the position that `to_json` wrote, if a fit like this can be there.

        Parameters
        ----------
        saved
            What was written.
        has_start
            Whether the losses begin with those of an exact start.
        validates
            Whether epochs have a validation loss.
        steps_per_epoch, max_epochs, batch_size
            Of the fit; `batch_size` of all processes together.

        Raises
        ------
        SavedModelError
            No such fit can be there; the message says why.
        """
        names = {field.name for field in fields(cls)}
        _require(set(saved) == names, f"it says {sorted(saved)}, but {sorted(names)} are needed")
        _require(isinstance(saved["history"], list), "its history is no list")
        history = tuple(
            _epoch(record, number if has_start else number + 1, validates)
            for number, record in enumerate(saved["history"])
        )
        _require(bool(history) or not has_start, "its history lacks the exact start")
        step, seen, loss_sum = saved["step"], saved["seen"], saved["loss_sum"]
        _require(
            type(step) is int and 0 <= step <= steps_per_epoch,
            f"step={step!r} is none of the {steps_per_epoch} steps of an epoch",
        )
        _require(
            type(seen) is int and step <= seen <= step * batch_size,
            f"{seen!r} windows cannot be seen in {step} steps of {batch_size}",
        )
        _require(type(loss_sum) is float, f"loss_sum={loss_sum!r} is no number")
        finished = saved["finished"]
        _require(type(finished) is bool, f"finished={finished!r} is neither true nor false")
        position = cls(step=step, seen=seen, loss_sum=loss_sum, history=history, finished=finished)
        _require(
            position.epoch <= max_epochs or (finished and position.epoch == max_epochs + 1),
            f"epoch {position.epoch} is none of its {max_epochs}",
        )
        _require(not (finished and step), "it is finished within an epoch")
        return position


def _epoch(saved: object, number: int, validates: bool) -> Epoch:
    names = {field.name for field in fields(Epoch)}
    if not isinstance(saved, dict) or set(saved) != names:
        raise _wrong(f"record {number} of its history is no epoch")
    record = Epoch(**saved)
    _require(
        record.epoch == number
        and _is_loss(record.train_loss, number > 0)
        and _is_loss(record.validation_loss, validates),
        f"record {number} of its history is no epoch: {saved}",
    )
    return record


def _is_loss(value: object, expected: bool) -> bool:
    """Return whether a loss is a number where one is expected, and None elsewhere."""
    return type(value) is float if expected else value is None


def check_state(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
    *,
    has_best: bool,
) -> None:
    """Check the names, shapes and dtypes of a checkpoint's tensors.

    Parameters
    ----------
    tensors
        As loaded.
    own
        The fit's own at its start.
    moments
        Those that the optimizer holds later; a parameter without a gradient has none.
    has_best
        Whether there are weights of a best epoch, of which `own` has none.

    Raises
    ------
    SavedModelError
        They are not those of this fit.
    """
    expected = dict(own)
    if has_best:
        weights = {name for name in own if name.startswith("weights.")}
        expected |= {f"best.{name.removeprefix('weights.')}": own[name] for name in weights}
    for name, moment in moments.items():
        prefix = name.rpartition(".")[0]
        if any(other.rpartition(".")[0] == prefix for other in tensors):
            expected[name] = moment
    check_tensors(tensors, {name: tuple(each.shape) for name, each in expected.items()})
    for name, each in expected.items():
        _require(
            tensors[name].dtype == each.dtype,
            f"its tensor {name!r} is {tensors[name].dtype}, but {each.dtype} is needed",
        )


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise _wrong(reason)


def _wrong(reason: str) -> SavedModelError:
    return SavedModelError(
        f"the checkpoint holds no place in this fit: {reason}. Delete its folder to start anew."
    )
