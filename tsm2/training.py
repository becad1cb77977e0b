"""The fit loop: from a network and its windows to trained weights.

    for each epoch: a pass over the training windows, then the validation loss, then stop or go on

Accelerate places the network, runs mixed precision and several processes; the loop is ours. The
linear path and the mixers have learning rates of their own, and weight decay and sharpness-aware
steps are the mixers' alone: they overfit long before the linear path does, which such steps slow.
With a moving average of the weights, it is the average that is validated, kept and left behind.

Sources: Foret et al. (2021), arXiv:2010.01412 (SAM); Smith & Topin (2018), arXiv:1708.07120
(one-cycle schedule).
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from tsm2.ema import MovingAverage
from tsm2.errors import BackendError, TrainingError
from tsm2.networks.heads import LOSSES
from tsm2.windows import Batch, Windows

__all__ = ["Epoch", "TrainingConfig", "choose_device", "fit_network", "seeded"]

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How a network is trained; says nothing about its sizes."""

    max_epochs: int
    """Passes over the training windows at most."""
    batch_size: int
    """Windows in a step of one process."""
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
    loss: Literal["mse", "mae", "huber"]
    """What is minimised, on standardised values."""
    patience: int
    """Epochs without a better validation loss after which training stops."""
    device: Device
    """Where to train."""
    precision: Literal["float32", "bfloat16"]
    """bfloat16 runs the matrix products in mixed precision; the scan's state stays float32."""
    verbose: int
    """0 is silent, 1 shows a progress bar on standard error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """What one pass over the training windows reached."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    """Mean over the training windows while the weights moved, mixers' dropout on."""
    validation_loss: float | None
    """Mean over the validation windows after the pass; None without validation."""


def choose_device(requested: str) -> str:
    """Return the device to use: the requested one, or for "auto" the first of cuda, mps, cpu here.

    Raises
    ------
    BackendError
        The requested device is not at hand.
    """
    at_hand = [
        name
        for name, present in (
            ("cuda", torch.cuda.is_available()),
            ("mps", torch.backends.mps.is_available()),
            ("cpu", True),
        )
        if present
    ]
    if requested == "auto":
        return at_hand[0]
    if requested not in at_hand:
        raise BackendError(
            f"device={requested!r} is not at hand; here is: {', '.join(at_hand)}. "
            f"Pass device='auto' to take the first of them."
        )
    return requested


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Draw from generators that start at `seed`, and put the global ones back afterwards."""
    kind = device if device in {"cuda", "mps"} else "cuda"
    devices = [getattr(torch, kind).current_device()] if device == "cuda" else []
    if device == "mps":
        devices = [0]
    with torch.random.fork_rng(devices=devices, device_type=kind):
        torch.manual_seed(seed)
        yield


def fit_network(
    network: nn.Module,
    train: Windows,
    validation: Windows | None,
    config: TrainingConfig,
    *,
    seed: int,
) -> list[Epoch]:
    """Train a network in place and leave it with its best weights, in evaluation mode, on the CPU.

    Parameters
    ----------
    network
        Maps contexts, (B, M, L), to forecasts, (B, M, H); takes what else a batch holds by the
        names of `Batch.auxiliary`. May offer `mixer_parameters()`.
    train, validation
        Standardised windows; without validation the last weights are kept.
    config
        How to train.
    seed
        Fixes the order of the windows and the dropout.

    Returns
    -------
    One record per epoch.

    Raises
    ------
    TrainingError
        The loss became infinite or undefined.
    """
    accelerator = _accelerator(choose_device(config.device), config.precision)
    optimizer = _optimizer(network, config)
    model, optimizer = accelerator.prepare(network, optimizer)
    per_process = math.ceil(len(train) / accelerator.num_processes)
    steps = config.max_epochs * math.ceil(per_process / config.batch_size)
    scheduler = _scheduler(optimizer.optimizer, config.schedule, steps)
    train, validation = _moved(train, accelerator), validation and _moved(validation, accelerator)
    average = MovingAverage(network, config.ema_decay)

    best_loss, best_weights, waited = math.inf, None, 0
    history: list[Epoch] = []
    shuffler = torch.Generator().manual_seed(seed)
    show = bool(config.verbose) and accelerator.is_local_main_process
    with seeded(seed, accelerator.device.type), _progress(steps, show) as progress:
        for number in range(1, config.max_epochs + 1):
            train_loss = _train_epoch(
                model, train, optimizer, scheduler, average, accelerator, config, shuffler, progress
            )
            _require_finite(train_loss, number, config)
            validation_loss = None
            if validation is not None:
                with average.in_place():
                    validation_loss = _mean_loss(model, validation, accelerator, config)
            history.append(
                Epoch(epoch=number, train_loss=train_loss, validation_loss=validation_loss)
            )
            progress.report(history[-1])
            if validation_loss is None:
                continue
            waited += 1
            if validation_loss < best_loss:
                best_loss, waited = validation_loss, 0
                with average.in_place():
                    best_weights = copy.deepcopy(network.state_dict())
            if waited >= config.patience:
                break
    if best_weights is None:
        with average.in_place():
            best_weights = copy.deepcopy(network.state_dict())
    network.load_state_dict(best_weights)
    network.to("cpu").eval()
    return history


def _accelerator(device: str, precision: str) -> Accelerator:
    """Set accelerate up for this fit; its process-wide state of an earlier fit is let go."""
    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    mixed = "bf16" if precision == "bfloat16" else "no"
    return Accelerator(cpu=device == "cpu", mixed_precision=mixed)


def _optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    mixers = _mixers(network)
    known = {id(parameter) for parameter in mixers}
    linear = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    rates = config.learning_rate, config.mixer_learning_rate
    groups = [
        {"params": linear, "lr": rates[0], "weight_decay": 0.0},
        {
            "params": [p for p in mixers if p.ndim > 1],
            "lr": rates[1],
            "weight_decay": config.weight_decay,
        },
        {"params": [p for p in mixers if p.ndim <= 1], "lr": rates[1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]])


def _mixers(network: nn.Module) -> list[nn.Parameter]:
    """List what is regularised: a network without `mixer_parameters` is all linear path."""
    list_mixers = getattr(network, "mixer_parameters", list)
    return [parameter for parameter in list_mixers() if parameter.requires_grad]


def _scheduler(
    optimizer: torch.optim.Optimizer, schedule: str, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if schedule == "onecycle" and steps > 1:
        peaks = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=peaks, total_steps=steps + 1, cycle_momentum=False
        )
    if schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _moved(windows: Windows, accelerator: Accelerator) -> Windows:
    return Windows(
        values=windows.values.to(accelerator.device),
        lookback=windows.lookback,
        horizon=windows.horizon,
        first=windows.first,
        stride=windows.stride,
    )


def _train_epoch(
    model: nn.Module,
    windows: Windows,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    average: MovingAverage,
    accelerator: Accelerator,
    config: TrainingConfig,
    shuffler: torch.Generator,
    progress: "_Progress",
) -> float:
    """Pass once over the windows and return the mean loss per window."""
    model.train()
    mixers = _mixers(accelerator.unwrap_model(model))
    total = torch.zeros((), device=accelerator.device)
    seen = 0
    shares = {"rank": accelerator.process_index, "ranks": accelerator.num_processes}
    for which in windows.batches(config.batch_size, generator=shuffler, **shares):
        batch = windows.gather(which)
        loss = _gradients(model, batch, accelerator, config)
        if config.sam_radius > 0 and mixers:
            moves = _climb(mixers, config.sam_radius)
            _gradients(model, batch, accelerator, config)
            _descend(moves)
        if math.isfinite(config.gradient_clip):
            accelerator.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        scheduler.step()
        average.update()
        total += loss * len(which)
        seen += len(which)
        progress.advance()
    return float(total / seen)


def _gradients(
    model: nn.Module, batch: Batch, accelerator: Accelerator, config: TrainingConfig
) -> Tensor:
    """Set every gradient to that of the batch's loss, and return the loss."""
    model.zero_grad(set_to_none=True)
    with accelerator.autocast():
        loss = _loss(model, batch, config)
    accelerator.backward(loss)
    return loss.detach()


def _loss(model: nn.Module, batch: Batch, config: TrainingConfig) -> Tensor:
    forecast = model(batch.context, **batch.auxiliary())  # (B, M, H)
    return LOSSES[config.loss](forecast.float(), batch.target)


@torch.no_grad()
def _climb(parameters: list[nn.Parameter], radius: float) -> list[tuple[Tensor, Tensor]]:
    """Move parameters by `radius` up their gradient; return where they were (SAM, equation 2)."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    stretch = radius / (torch.nn.utils.get_total_norm(gradients) + 1e-12)
    before: list[tuple[Tensor, Tensor]] = []
    for parameter in parameters:
        if parameter.grad is not None:
            before.append((parameter, parameter.clone()))
            parameter.addcmul_(parameter.grad, stretch)
    return before


@torch.no_grad()
def _descend(before: list[tuple[Tensor, Tensor]]) -> None:
    """Put the weights back where they were before `_climb`."""
    for parameter, value in before:
        parameter.copy_(value)


@torch.inference_mode()
def _mean_loss(
    model: nn.Module, windows: Windows, accelerator: Accelerator, config: TrainingConfig
) -> float:
    """Return the mean loss over every window."""
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64)
    shares = {"rank": accelerator.process_index, "ranks": accelerator.num_processes}
    for which in windows.batches(config.batch_size, **shares):
        batch = windows.gather(which)
        with accelerator.autocast():
            loss = _loss(model, batch, config)
        sums += torch.tensor([float(loss) * len(which), len(which)], dtype=torch.float64)
    if accelerator.num_processes > 1:
        sums = torch.as_tensor(accelerator.reduce(sums.float().to(accelerator.device), "sum"))
    return float(sums[0] / sums[1])


def _require_finite(loss: float, epoch: int, config: TrainingConfig) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the training loss became {loss} in epoch {epoch} (learning_rate="
            f"{config.learning_rate}, mixer_learning_rate={config.mixer_learning_rate}, "
            f"gradient_clip={config.gradient_clip}). Lower the learning rates or gradient_clip."
        )


class _Progress:
    """A bar over all steps with the time left, or nothing at all."""

    def __init__(self, bar: Progress | None, steps: int) -> None:
        self.bar = bar
        if bar is not None:
            self.task = bar.add_task("fit", total=steps, losses="")

    def advance(self) -> None:
        if self.bar is not None:
            self.bar.advance(self.task)

    def report(self, epoch: Epoch) -> None:
        if self.bar is None:
            return
        losses = f"epoch {epoch.epoch}: train {epoch.train_loss:.4f}"
        if epoch.validation_loss is not None:
            losses += f", validation {epoch.validation_loss:.4f}"
        self.bar.update(self.task, losses=losses)


@contextmanager
def _progress(steps: int, show: bool) -> Iterator[_Progress]:
    if not show:
        yield _Progress(None, steps)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Progress(bar, steps)
