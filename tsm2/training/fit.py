"""One fit under way: its steps, its epochs, and all that the next step depends on.

Weights, moments of the optimizer, random generators, the place in the shuffled windows, the best
weights so far: `Fit.position` and `Fit.tensors` say all of it and `Fit.resume` takes it back, so
that a fit that is killed after any step goes on from a checkpoint as if nothing had happened. What
is added to a fit must be added to these three, unless it follows from what is there: the learning
rates are those after so many steps, and the patience left follows from the losses.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tsm2.errors import BackendError, SavedModelError, TrainingError
from tsm2.networks.heads import LossName
from tsm2.prepared.windows import Windows
from tsm2.training.capture import Recorder
from tsm2.training.ema import MovingAverage
from tsm2.training.leading import Leading
from tsm2.training.optimization import make_optimizer, make_scheduler
from tsm2.training.position import Epoch, Position, check_state
from tsm2.training.processes import Processes
from tsm2.training.recording import Replayed
from tsm2.training.simple import Blend
from tsm2.training.start import ExactStart
from tsm2.training.step import BatchLoss, TrainingStep

__all__ = ["Epoch", "Fit", "TrainingConfig"]

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How a network is trained; says nothing about its sizes."""

    max_epochs: int
    """Epochs at most, each a pass over the training windows, a part of one or several."""
    epoch_steps: int | None = None
    """Steps after which an epoch ends, though its pass is not over: validation then comes as often
    on a long table as on a short one, and the next epoch draws anew. None for whole passes."""
    min_steps: int = 0
    """Steps that all epochs take at least, unless patience ends them: on few windows an epoch is
    several passes."""
    max_steps: int | None = None
    """Steps that all epochs take at most: on many windows an epoch is a part of a pass; None for no
    limit."""
    batch_size: int
    """Windows in a step of one process; several take as many each."""
    learning_rate: float
    """Peak learning rate of the linear path."""
    mixer_learning_rate: float
    """Peak learning rate of the mixers."""
    weight_decay: float
    """AdamW's decay of the mixers' matrices; nothing else decays."""
    sam_radius: float
    """Radius of the mixers' sharpness-aware minimisation, in parameter units; 0 for none."""
    ema_decay: float = 0.0
    """Share of the old average in the moving average of the weights, in [0, 1); 0 for none."""
    gradient_clip: float
    """Largest norm of all gradients together; infinity for no limit."""
    schedule: Literal["onecycle", "cosine", "constant"]
    """How the learning rates move from the first step to the last."""
    loss: LossName
    """What is minimised, on standardised values."""
    quantiles: tuple[float, ...] = ()
    """Levels of a quantile forecast, for loss "quantile"."""
    patience: int
    """Epochs without a better validation loss after which training stops."""
    device: Device
    """Where to train."""
    precision: Literal["float32", "bfloat16"]
    """bfloat16 runs the matrix products in mixed precision; the scan's state stays float32."""
    linear_start: Literal["exact", "random"] = "random"
    """Where the linear path starts: solved, see `tsm2.training.start`, or as it was drawn. The
    solved one is validated as epoch 0, kept if no later one is better, and all there is without
    mixers."""
    start_margin: float = 0.0
    """Share by which a later epoch's validation loss must be lower than an exact start's to be
    kept in its place, in [0, 1)."""
    season: int | None = None
    """Steps of the season whose naive forecast an exact start is held towards; None for the
    window's level."""
    blend: Blend | None = None
    """How an exact start is averaged with simple forecasts; None for the regression alone."""
    averaged: bool = False
    """Whether an exact start is the mean of the maps from both levels, see
    `tsm2.training.ridge.solve_averaged`."""
    lookbacks: tuple[int, ...] = ()
    """Steps that the maps of this mean read; empty for all of them."""
    fine: int | None = None
    """Last steps of very many that an exact start reads one by one; None for all of them."""
    leading: Leading | None = None
    """How an exact start is led by the latest rows of all columns; None for not at all."""
    compile: bool = False
    """Compile the network for training with torch.compile."""
    capture_steps: Literal["auto"] | bool = "auto"
    """Replay steps and validation as CUDA graphs: "auto" where that is possible, see
    `tsm2.training.capture`; True or else an error; False never. It moves no weight."""
    verbose: int
    """0 is silent, 1 shows a progress bar on standard error."""

    @property
    def exactly(self) -> ExactStart:
        """How an exact start is solved."""
        return ExactStart(
            season=self.season,
            blend=self.blend,
            averaged=self.averaged,
            lookbacks=self.lookbacks,
            fine=self.fine,
            leading=self.leading,
        )

    def steps_per_epoch(self, n_windows: int) -> int:
        """Return the steps of an epoch of a process that has so many windows."""
        epochs = max(1, self.max_epochs)
        steps = math.ceil(n_windows / self.batch_size)
        if self.epoch_steps is not None:
            steps = min(steps, self.epoch_steps)
        if self.max_steps is not None:
            steps = min(steps, max(1, self.max_steps // epochs))
        return max(steps, math.ceil(self.min_steps / epochs))


class Fit:
    """A fit under way: all that its next step depends on.

    Parameters
    ----------
    network, train, validation, config, seed
        See `tsm2.training.fit_network`.
    accelerator
        Places the tensors and runs the processes.
    recorder
        Records steps and batches of validation; None if all is done one operation at a time.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Windows,
        validation: Windows | None,
        config: TrainingConfig,
        seed: int,
        accelerator: Accelerator,
        recorder: Recorder | None = None,
    ) -> None:
        self.network, self.config = network, config
        device = accelerator.device
        model = torch.compile(network) if config.compile else network
        optimizer = make_optimizer(network, config, capturable=device.type == "cuda")
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.train = train.to(device)
        self.validation = None if validation is None else validation.to(device)
        self.processes = Processes(accelerator)
        self.batch_size = config.batch_size * self.processes.count
        self.steps_per_epoch = config.steps_per_epoch(math.ceil(len(train) / self.processes.count))
        self.n_steps = config.max_epochs * self.steps_per_epoch
        self.average = MovingAverage(network, config.ema_decay)
        self.scheduler = make_scheduler(self.optimizer.optimizer, config.schedule, self.n_steps)
        seed = self.processes.first(seed)
        self.shuffler = torch.Generator().manual_seed(seed)
        self.dropout = torch.Generator(device).manual_seed(seed)
        self.epoch_order = self.shuffler.get_state()  # the shuffler's when the epoch began
        self.epoch, self.step = 1, 0
        self.loss_sum, self.seen = torch.zeros((), device=device), 0
        self.history: list[Epoch] = []
        self.best_loss, self.waited = math.inf, 0
        self.best_weights: dict[str, Tensor] | None = None
        self.finished = False
        self.loss = BatchLoss(self.model, config, device)
        self.take_step = TrainingStep(
            network=network,
            loss=self.loss,
            optimizer=self.optimizer,
            average=self.average,
            windows=self.train,
            loss_sum=self.loss_sum,
            dropout=self.dropout,
            config=config,
            processes=self.processes,
            recorder=recorder,
            required=config.capture_steps is True,
        )
        self.judge_batch = Replayed(
            self._loss_of,
            recorder,
            device,
            what="batches of validation",
            required=config.capture_steps is True,
        )

    # --- train --------------------------------------------------------------------------------

    @property
    def steps_done(self) -> int:
        """Steps since the fit began, in all its runs."""
        done: int = (self.epoch - 1) * self.steps_per_epoch + self.step
        return done

    def steps(self) -> Iterator[None]:
        """Take the steps that the epoch still needs, one at a time."""
        try:
            yield from self._steps()
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise BackendError(
                f"the network cannot be compiled here: {reason}. Pass compile=False; on a CPU, "
                f"torch.compile needs a C++ compiler."
            ) from error

    def _steps(self) -> Iterator[None]:
        self.model.train()
        self.epoch_order = self.shuffler.get_state()
        draw = partial(self.train.batches, self.batch_size, generator=self.shuffler)
        passes = chain.from_iterable(iter(draw, None))  # each is drawn when the last is over
        for which in islice(passes, self.step, self.steps_per_epoch):
            self.take_step(which)
            self.scheduler.step()
            self.seen += len(which)
            self.step += 1
            yield

    def measure_start(self) -> Epoch:
        """Measure the weights before the first step, and keep them if no later ones are better."""
        loss = None if self.validation is None else self._validate(self.validation)
        return self._end(Epoch(epoch=0, train_loss=None, validation_loss=loss))

    def end_epoch(self) -> Epoch:
        """Measure the epoch, keep the weights if they are the best, and go to the next."""
        train_loss = float(self.loss_sum / self.seen)
        _require_finite(train_loss, self.epoch, self.config)
        validation_loss = None
        if self.validation is not None:
            with self.average.in_place():
                validation_loss = self._validate(self.validation)
        record = self._end(
            Epoch(epoch=self.epoch, train_loss=train_loss, validation_loss=validation_loss)
        )
        self.finished = self.waited >= self.config.patience or self.epoch == self.config.max_epochs
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum.zero_()
        self.seen = 0
        return record

    def _validate(self, windows: Windows) -> float:
        """Measure the weights, and keep them if they are the best."""
        loss = self._mean_loss(windows)
        if loss < self.best_loss:
            self.best_weights = copy.deepcopy(self.network.state_dict())
        return loss

    @torch.inference_mode()
    def _mean_loss(self, windows: Windows) -> float:
        """Return the mean loss over all that is known, with the weights that the network holds now.

        Weights are only ever copied into the network, averages too, so that a replay reads them.
        """
        self.model.eval()
        # Without gradients there is room for more windows, and CUDA works no longer on them.
        size = self.batch_size * (4 if self.loss.device.type == "cuda" else 1)
        batches = list(windows.batches(size))
        means = torch.stack([self.judge_batch(which) for which in batches]).tolist()  # read once
        return windows.mean_over(batches, means)

    def _loss_of(self, which: Tensor) -> Tensor:
        """Return the mean loss of the validation windows numbered `which`, (B,)."""
        if self.validation is None:
            raise AssertionError("there is nothing to validate on")
        part = self.validation.gather(which[self.processes.rows(len(which))])
        return self.processes.shared(self.loss(part), part, len(which))[1]

    def _end(self, record: Epoch) -> Epoch:
        """Take note of an epoch's losses, and of how long the best of them was not beaten."""
        self.history.append(record)
        loss = record.validation_loss
        if loss is not None:
            self.waited += 1
            if loss < self.best_loss:
                self.best_loss, self.waited = loss, 0
            if record.epoch == 0:
                self.best_loss = loss * (1 - self.config.start_margin)  # for later ones to beat
        return record

    def kept_weights(self) -> dict[str, Tensor]:
        """Return the weights to keep: the best, or without validation the last."""
        if self.best_weights is not None:
            return self.best_weights
        with self.average.in_place():
            return copy.deepcopy(self.network.state_dict())

    def kept_network(self) -> nn.Module:
        """Return a copy of the network as the fit would leave it now."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.kept_weights())
        return network.to("cpu").eval()

    def measured(self, record: Epoch) -> dict[str, float]:
        """Return what TensorBoard shows of an epoch."""
        losses = {"loss/train": record.train_loss, "loss/validation": record.validation_loss}
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if record.epoch == 0:
            return {name: value for name, value in losses.items() if value is not None}
        rows = losses | {"learning_rate/linear": rates[0], "learning_rate/mixers": rates[-1]}
        return {name: value for name, value in rows.items() if value is not None}

    # --- keep and go on -----------------------------------------------------------------------

    def position(self) -> dict[str, Any]:
        """Return where the fit stands, in what JSON holds."""
        return Position(
            step=self.step,
            seen=self.seen,
            loss_sum=float(self.loss_sum),
            history=tuple(self.history),
            finished=self.finished,
        ).to_json()

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights, the optimizer's moments and the random generators, by name."""
        # Every process draws what all draw, so one generator speaks for all.
        order = self.epoch_order if self.step else self.shuffler.get_state()
        named = {"random.dropout": self.dropout.get_state(), "random.order": order}
        named |= {f"weights.{name}": each for name, each in self.network.state_dict().items()}
        named |= {f"best.{name}": each for name, each in (self.best_weights or {}).items()}
        named |= {f"average.{k}": each for k, each in enumerate(self.average.weights)}
        for number, moments in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer.{number}.{name}": each for name, each in moments.items()}
        return named

    def resume(self, saved: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go where an earlier run was when it wrote this.

        Raises
        ------
        SavedModelError
            This fit can never be there.
        """
        position = Position.from_json(
            saved,
            has_start=self.config.linear_start == "exact",
            validates=self.validation is not None,
            steps_per_epoch=self.steps_per_epoch,
            max_epochs=self.config.max_epochs,
            batch_size=self.batch_size,
        )
        self.step, self.seen, self.finished = position.step, position.seen, position.finished
        self.loss_sum.fill_(position.loss_sum)
        for record in position.history:
            self._end(record)
        self.epoch = position.epoch
        has_best = self.best_loss < math.inf
        moments = self._moments() if self.steps_done else {}
        check_state(tensors, self.tensors(), moments, has_best=has_best)
        self.network.load_state_dict(_under("weights.", tensors))
        self.best_weights = _under("best.", tensors) or None
        self.average.steps = self.steps_done
        for number, average in enumerate(self.average.weights):
            average.copy_(tensors[f"average.{number}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            place, _, moment = name.partition(".")
            state.setdefault(int(place), {})[moment] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.optimizer.optimizer.step()  # without gradients it moves nothing, but it is asked for
        for _ in range(self.steps_done):
            self.scheduler.step()
        try:
            self.shuffler.set_state(tensors["random.order"])
            self.dropout.set_state(tensors["random.dropout"])
        except RuntimeError as error:
            raise SavedModelError(
                f"the checkpoint holds no state of a random generator ({error}). Delete its folder "
                f"to start anew."
            ) from error

    def _moments(self) -> dict[str, Tensor]:
        """Return what the optimizer will hold of every parameter, by the names of `tensors`."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        found: dict[str, Tensor] = {}
        for number, parameter in enumerate(parameters):
            found[f"optimizer.{number}.step"] = torch.zeros(())
            for name in ("exp_avg", "exp_avg_sq"):
                found[f"optimizer.{number}.{name}"] = parameter.detach()
        return found


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without it."""
    starts = {name: each for name, each in tensors.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): each for name, each in starts.items()}


def _require_finite(loss: float, epoch: int, config: TrainingConfig) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the training loss became {loss} in epoch {epoch} (learning_rate="
            f"{config.learning_rate}, mixer_learning_rate={config.mixer_learning_rate}, "
            f"gradient_clip={config.gradient_clip}). Lower the learning rates or gradient_clip."
        )
