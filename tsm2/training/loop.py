"""The fit loop: from a network and its windows to trained weights.

    for each epoch: a pass over the training windows, then the validation loss, then stop or go on

Accelerate places the network, runs mixed precision and several processes; the loop is ours. The
linear path and the mixers have learning rates of their own, and weight decay and sharpness-aware
steps are the mixers' alone: they overfit long before the linear path does, which such steps slow.
With a moving average of the weights, it is the average that is validated, kept and left behind.

`Fit` takes the steps and knows where it stands; this file decides how long it goes on, and who is
told: the checkpoint, the progress bar, TensorBoard, callbacks.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import nn

from tsm2.errors import BackendError, ParameterError
from tsm2.networks.tsm2 import TSM2Network
from tsm2.prepared.windows import Windows
from tsm2.training.bounds import lift_bounds, set_bounds
from tsm2.training.capture import find_recorder
from tsm2.training.checkpoints import Checkpoint, digest
from tsm2.training.fit import Epoch, Fit, TrainingConfig
from tsm2.training.progress import StepBar, step_bar
from tsm2.training.ridge import LinearMap
from tsm2.training.start import start_exactly

__all__ = ["Epoch", "EpochWatch", "TrainingConfig", "choose_device", "fit_network", "seeded"]


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


_TURNS = threading.RLock()  # for what belongs to the process: its generator, accelerate's state


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from PyTorch's generator of the CPU, begun at `seed`; then it is put back.

    The process has one, so threads take turns. It is for the moment in which a network is made:
    what a fit draws comes from generators of its own.
    """
    with _TURNS, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class EpochWatch(Protocol):
    """Who is told about a fit while it runs."""

    def begin(self, epoch: int) -> None:
        """Take note that an epoch begins, counted from 1."""
        ...

    def end(self, history: list[Epoch], kept: Callable[[], nn.Module]) -> bool:
        """Take note of an epoch's end; True ends the fit.

        Parameters
        ----------
        history
            Of all epochs, the one that ended last.
        kept
            Makes a copy of the network as the fit would leave it if it ended here.
        """
        ...


def fit_network(
    network: nn.Module,
    train: Windows,
    validation: Windows | None,
    config: TrainingConfig,
    *,
    seed: int,
    checkpoint: Path | None = None,
    max_seconds: float = math.inf,
    log_dir: Path | None = None,
    watch: EpochWatch | None = None,
    solved: LinearMap | None = None,
) -> list[Epoch]:
    """Train a network in place and leave it with its best weights, in evaluation mode, on the CPU.

    Parameters
    ----------
    network
        Maps contexts, (B, M, L), to forecasts, (B, M, H), or to quantiles, (B, M, H, Q); takes
        what else a batch holds by the names of `Batch.auxiliary`. May offer `mixer_parameters()`.
    train, validation
        Standardised windows; without validation the last weights are kept.
    config
        How to train.
    seed
        Fixes the order of the windows and the dropout.
    checkpoint
        Folder to which the fit is written while it runs, and from which this very fit goes on if
        it was cut off. After the end it holds the end.
    max_seconds
        End after the first step beyond so many seconds, with the best weights until then. A
        checkpoint keeps the place: the next call goes on for as long again.
    log_dir
        Folder for TensorBoard's record of every epoch.
    watch
        Is told about every epoch and may end the fit.
    solved
        What an exact start begins with, see `tsm2.training.start.solve_exactly`; None solves it.

    Returns
    -------
    One record per epoch; an exact start is epoch 0, of which `watch` is not told.

    Raises
    ------
    TrainingError
        The loss became infinite or undefined.
    ParameterError
        The network cannot start exactly, see `tsm2.training.start`.
    BackendError
        `capture_steps=True`, and steps cannot be captured here.
    SavedModelError
        The checkpoint is damaged, or of another fit.
    OutputError
        The checkpoint cannot be written.
    ParameterError
        `log_dir` is given, but TensorBoard is not installed.
    """
    accelerator = _accelerator(choose_device(config.device), log_dir)
    lift_bounds(network)
    kept = _open_checkpoint(checkpoint, network, train, validation, config, seed, accelerator)
    exact = config.linear_start == "exact"
    if exact:
        how = replace(config.exactly, solved=solved)
        start_exactly(_tsm2(network), train, validation, how)
    recorder = find_recorder(
        accelerator.device,
        processes=accelerator.num_processes,
        compiled=config.compile,
        asks_host=getattr(network, "asks_host", False),
        asked=config.capture_steps,
    )
    fit = Fit(network, train, validation, config, seed, accelerator, recorder)
    ends = time.monotonic() + max_seconds
    show = bool(config.verbose) and accelerator.is_local_main_process
    with step_bar(fit.n_steps, show) as bar:
        if kept is not None and (saved := kept.load()) is not None:
            fit.resume(*saved)
        if kept is not None:
            fit.processes.check_together(fit.steps_done)
        bar.advance(fit.steps_done)
        in_time = True
        with _log(accelerator, first_epoch=fit.epoch):
            if exact and not fit.history:
                record = fit.measure_start()
                bar.report(_losses(record))
                accelerator.log(fit.measured(record), step=0)
                # Nothing is left to learn, or nothing is to be learnt.
                fit.finished = not (_tsm2(network).config.blocks and config.max_epochs)
            while in_time and not fit.finished:
                if watch is not None:
                    watch.begin(fit.epoch)
                in_time = _train_epoch(fit, bar, kept, ends)
                record = fit.end_epoch()
                bar.report(_losses(record))
                accelerator.log(fit.measured(record), step=record.epoch)
                if watch is not None:
                    ends_here = watch.end(fit.history, fit.kept_network)
                    fit.finished |= fit.processes.any(ends_here)
        if kept is not None and in_time:
            kept.save(fit.position(), fit.tensors())
        left = _kept_epoch(fit.history, config.start_margin) if fit.history else None
        if left is not None:
            bar.end(f"kept {_losses(left)}; {fit.history[-1].epoch} epochs trained")
    network.load_state_dict(fit.kept_weights())
    network.eval()
    if left is None or left.epoch:  # a start knows its bounds, and its mixers add nothing
        set_bounds(network, fit.train)
    network.to("cpu")
    return fit.history


def _kept_epoch(history: Sequence[Epoch], start_margin: float) -> Epoch:
    """Return the epoch whose weights are kept: the best, or without validation the last."""
    kept, best = history[-1], math.inf
    for record in history:
        loss = record.validation_loss
        if loss is not None and loss < best:
            kept = record
            best = loss * (1 - start_margin) if record.epoch == 0 else loss
    return kept


def _tsm2(network: nn.Module) -> TSM2Network:
    if not isinstance(network, TSM2Network):
        raise ParameterError(
            f"linear_start='exact' solves the linear path of a TSM2Network, got a "
            f"{type(network).__name__}. Pass linear_start='random'."
        )
    return network


def _train_epoch(fit: Fit, bar: StepBar, kept: Checkpoint | None, ends: float) -> bool:
    """Take the steps that the epoch still needs; return False if the time ran out before the last.

    Out of time, the place within the epoch is kept before anything is made of it.
    """
    for _ in fit.steps():
        bar.advance(1)
        over = fit.processes.any(time.monotonic() > ends) if ends < math.inf else False
        if kept is not None and (over or kept.is_due()):
            kept.save(fit.position(), fit.tensors())
        if over:
            return False
    return True


def _open_checkpoint(
    folder: Path | None,
    network: nn.Module,
    train: Windows,
    validation: Windows | None,
    config: TrainingConfig,
    seed: int,
    accelerator: Accelerator,
) -> Checkpoint | None:
    """Return the checkpoint of this very fit, named by all that its weights depend on."""
    if folder is None:
        return None
    settings = asdict(config)
    del settings["device"], settings["verbose"], settings["capture_steps"]
    settings["batch_size"] *= accelerator.num_processes  # which share the batch, whoever they are
    identity = settings | {
        "device": accelerator.device.type,
        "seed": seed,
        "network's initial weights": digest(dict(network.state_dict())),
        "training windows": digest(train),
        "validation windows": digest(validation),
    }
    return Checkpoint(folder, identity, writes=accelerator.is_main_process)


@contextmanager
def _log(accelerator: Accelerator, *, first_epoch: int) -> Iterator[None]:
    """Record in TensorBoard if asked to; what a killed run said of later epochs is dropped."""
    if accelerator.log_with:
        accelerator.init_trackers("", init_kwargs={"tensorboard": {"purge_step": first_epoch}})
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def _accelerator(device: str, log_dir: Path | None) -> Accelerator:
    """Set accelerate up for this fit; its state of an earlier fit on another device is let go.

    That state belongs to the process: fits in threads share it, and so it says nothing of a fit's
    precision.
    """
    if log_dir is not None and find_spec("tensorboard") is None:
        raise ParameterError(
            "log_dir needs TensorBoard, which is not installed. Install it with tsm2's extra "
            "'tensorboard': pip install 'tsm2[tensorboard]'."
        )
    log_with = None if log_dir is None else "tensorboard"
    with _TURNS:
        if PartialState._shared_state:
            state = PartialState()
            placed: Any = state.device  # never None once the state is made
            fits = placed.type == device and _shared_precision() == "no"
            if state.num_processes == 1 and not fits:
                AcceleratorState._reset_state(reset_partial_state=True)
        return Accelerator(
            cpu=device == "cpu", mixed_precision="no", log_with=log_with, project_dir=log_dir
        )


def _shared_precision() -> str:
    """Return the precision in accelerate's state, which somebody else may have set."""
    return AcceleratorState().mixed_precision if AcceleratorState._shared_state else "no"


def _losses(record: Epoch) -> str:
    losses = f"epoch {record.epoch}"
    if record.train_loss is not None:
        losses += f": train {record.train_loss:.4f}"
    if record.validation_loss is not None:
        losses += f", validation {record.validation_loss:.4f}"
    return losses
