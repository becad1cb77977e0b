"""What the three recipes share: settings from a file, the training loop, a run that can be killed.

    for each epoch: seed by (seed, epoch) -> pass over the images -> evaluate -> checkpoint

What an epoch draws depends on the seed and its number alone, so a run that was killed goes on from
its last checkpoint to the weights of an unbroken one: start the same command again. timm makes the
optimizer, the schedule and the averaged weights; accelerate places them, on one device or on many.
"""

import tsm2.vision.timm  # noqa: F401 - before timm: says which torchvision this torch needs

# isort: split
import csv
import difflib
import io
import json
import math
import os
import random
import sys
import time
import tomllib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import torch
import typer
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from captured import CapturedStep, capture_passes, recorder_for
from safetensors.torch import save
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from tsm2 import TSM2Error
from tsm2.errors import DatasetError, OutputError, ParameterError, TrainingError
from tsm2.training.loop import choose_device

CONFIGS = Path(__file__).parent / "configs"
S = TypeVar("S", bound="Settings")

# What every recipe's command line takes.
Config = Annotated[str, typer.Argument(help="A TOML file, or the name of one in configs/.")]
Data = Annotated[Path | None, typer.Option(help="Folder of the images, laid out as set.")]
Out = Annotated[Path, typer.Option(help="Folder of the run; one that was begun there goes on.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="A line of the file anew.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


# --- settings -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every recipe is told; a table goes whole to the function that it names."""

    layout: str
    """How the data folder is laid out; each recipe names those that it reads."""
    model: str
    """Backbone, by the name that timm knows."""
    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images in an update, over all processes and accumulated batches."""
    accumulate: int = 1
    """Batches whose gradients make one update, for devices that hold no larger batch."""
    ema_decay: float = 0.0
    """Decay of the averaged weights, which are then the result; 0 for none."""
    gradient_clip: float | None = None
    """Largest norm of all gradients together; None for no limit."""
    precision: str = "no"
    """Mixed precision by accelerate's name: "no" or "bf16"."""
    capture_steps: bool | str = "auto"
    """Replay steps as a CUDA graph: "auto" where that is possible; true or else an error; false
    never. A run may go on with another value."""
    workers: int = 0
    """Processes that read images; 0 reads in the training process."""
    seed: int = 0
    """Fixes initial weights, order and augmentation."""
    minutes: float | None = None
    """Training time that the schedule spans, of the processor on a CPU, else by the clock. Then
    `epochs` is an upper limit, and a run that was killed ends near an unbroken one, not at it."""
    limit: int | None = None
    """Images that are used of each part at most, for a quick try."""
    model_options: dict[str, Any] = field(default_factory=dict)
    """Of `timm.create_model`."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """Of `timm.optim.create_optimizer_v2`."""
    schedule: dict[str, Any] = field(default_factory=dict)
    """Of `timm.scheduler.create_scheduler_v2`, counted in epochs."""

    def __post_init__(self) -> None:
        for name, least in {"epochs": 1, "batch_size": 1, "accumulate": 1, "workers": 0}.items():
            if getattr(self, name) < least:
                raise ParameterError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        for name in ("gradient_clip", "minutes", "limit"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ParameterError(f"{name} must be positive, got {value}.")
        if not 0 <= self.ema_decay < 1:
            raise ParameterError(f"ema_decay must be in [0, 1), got {self.ema_decay}.")
        require_known(self.precision, ("no", "bf16"), "precision")
        if isinstance(self.capture_steps, str):
            require_known(self.capture_steps, ("auto",), "capture_steps")


def read_settings(kind: type[S], config: str, changes: list[str] | None) -> S:
    """Read a configuration file, or one of ours by its name, and change it as `--set` says."""
    file = Path(config) if Path(config).is_file() else CONFIGS / f"{config}.toml"
    if not file.is_file():
        known = ", ".join(sorted(known.stem for known in CONFIGS.glob("*.toml")))
        raise ParameterError(f"there is no configuration file {config!r}; those by name: {known}.")
    table = _parsed(file.read_text(encoding="utf-8"), file.name)
    for change in changes or []:
        table = _merged(table, _parsed(change, f"--set {change!r}"))
    hints = get_type_hints(kind)
    for name, value in table.items():
        require_known(name, hints, f"{file.name}: setting")
        if not _fits(value, hints[name]):
            needed = getattr(hints[name], "__name__", hints[name])
            raise ParameterError(f"{file.name}: {name} must be {needed}, got {value!r}.")
    with options_of(file.name):
        return kind(**table)


def require_known(name: str, known: Collection[str], what: str) -> None:
    """Refuse a name that is not among the known ones."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise ParameterError(f"{what} {name!r} is unknown; known: {', '.join(known)}.{meant}")


@contextmanager
def options_of(table: str) -> Iterator[None]:
    """Name the table of the configuration whose options a library refused."""
    try:
        yield
    except (TypeError, ValueError, AssertionError, KeyError, RuntimeError) as error:
        raise ParameterError(f"{table}: {str(error) or 'an option has a wrong value'}") from error


def _parsed(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(
            f"{origin} is not TOML: {error}. Text needs quotes: model='vim2_tiny'."
        ) from error


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Put values in the place of those of the same name; tables entry by entry, `{}` empties."""
    both = {
        name: _merged(old[name], value)
        for name, value in new.items()
        if value and isinstance(value, dict) and isinstance(old.get(name), dict)
    }
    return old | new | both


def _fits(value: object, hint: Any) -> bool:
    union = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    kinds = tuple(get_origin(kind) or kind for kind in union)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, (*kinds, int) if float in kinds else kinds)


# --- data -----------------------------------------------------------------------------------------


def folder_of(data: Path | None, layout: str, *parts: str) -> Path:
    """Return the data folder, which must have these parts."""
    needed = f"The layout {layout!r} needs --data FOLDER with {', '.join(parts)} in it"
    if data is None:
        raise DatasetError(f"there is no --data. {needed}.")
    missing = [part for part in parts if not (data / part).exists()]
    if missing:
        raise DatasetError(f"{data} has no {', '.join(missing)}. {needed}.")
    return data


def at_most(images: Dataset[Any], settings: Settings) -> Dataset[Any]:
    """Take the images that `limit` allows, spread over all of them."""
    count = len(images)  # type: ignore[arg-type]
    if settings.limit is None or settings.limit >= count:
        return images
    return Subset(images, np.linspace(0, count - 1, settings.limit).astype(int).tolist())


# --- a run ----------------------------------------------------------------------------------------


def begin(settings: Settings, out: Path, device: str) -> Accelerator:
    """Set accelerate up and the run's folder, which must be new or of the same settings."""
    accelerator = Accelerator(
        cpu=choose_device(device) == "cpu",
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulate,
        dataloader_config=DataLoaderConfiguration(
            use_seedable_sampler=True,
            data_seed=settings.seed,
            even_batches=False,  # no held-out image counts twice
        ),
    )
    shares = accelerator.num_processes * settings.accumulate
    if settings.batch_size % shares:
        raise ParameterError(
            f"batch_size={settings.batch_size} does not divide among {shares} batches "
            f"({accelerator.num_processes} processes, accumulate={settings.accumulate})."
        )
    if settings.minutes is not None and accelerator.num_processes > 1:
        raise ParameterError(
            f"minutes={settings.minutes} is for one process, whose clock ends the run; there are "
            f"{accelerator.num_processes}. Set epochs instead."
        )
    wanted = json.loads(json.dumps(asdict(settings)))
    del wanted["capture_steps"]  # moves no weight
    noted = out / "settings.json"
    if noted.exists():
        found = json.loads(noted.read_text(encoding="utf-8"))
        others = [name for name in wanted | found if wanted.get(name) != found.get(name)]
        if others:
            raise ParameterError(
                f"{out} holds a run of other settings: {', '.join(sorted(others))} differ. "
                f"Name another folder with --out, or use its settings."
            )
    elif accelerator.is_main_process:
        write_whole(noted, json.dumps(wanted, indent=1).encode())
    accelerator.wait_for_everyone()
    seed_all(settings.seed)  # the same initial weights in all processes
    return accelerator


class Training:
    """A model on its way through the epochs.

    `loss_of` gives the mean loss of a batch, `evaluate` the figures of a model in evaluation mode.
    `prepare` makes a batch what `loss_of` reads: what draws numbers on the host. `part` is what can
    be captured of a model whose losses ask the host.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Dataset[Any],
        settings: Settings,
        accelerator: Accelerator,
        out: Path,
        *,
        loss_of: Callable[[nn.Module, Any], Tensor],
        evaluate: Callable[[nn.Module], dict[str, float]],
        prepare: Callable[[Any], Any] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        part: nn.Module | None = None,
    ) -> None:
        self.settings, self.accelerator, self.out = settings, accelerator, out
        self.loss_of, self.evaluate, self.prepare = loss_of, evaluate, prepare
        loader = DataLoader(
            images,
            settings.batch_size // (accelerator.num_processes * settings.accumulate),
            shuffle=True,
            drop_last=True,
            collate_fn=collate,
            num_workers=settings.workers,
            pin_memory=accelerator.device.type == "cuda",
        )
        batches = len(loader) // accelerator.num_processes
        if batches < settings.accumulate:
            raise DatasetError(
                f"there are {len(loader.dataset)} training images, "  # type: ignore[arg-type]
                f"fewer than batch_size={settings.batch_size}. Lower it."
            )
        self.updates_in_all = settings.epochs * math.ceil(batches / settings.accumulate)
        self.model = model.to(accelerator.device)
        with options_of("[optimizer]"):
            self.optimizer = create_optimizer_v2(model, **settings.optimizer)
        with options_of("[schedule]"):
            self.schedule, _ = create_scheduler_v2(
                self.optimizer,
                num_epochs=settings.epochs,
                updates_per_epoch=self.updates_in_all // settings.epochs,
                step_on_epochs=False,
                **settings.schedule,
            )
        decay = settings.ema_decay
        self.average = ModelEmaV3(model, decay=decay, use_warmup=True) if decay else None
        self.updates, self.seconds, self.log = 0, 0.0, list[dict[str, float]]()
        if (out / "checkpoint.pt").exists():
            self._go_on()
        asked: Any = settings.capture_steps
        where: dict[str, Any] = {"processes": accelerator.num_processes}
        recorder = None
        if part is not None:
            capture_passes(part, accelerator.device, **where, asked=asked)
        else:
            shared = settings.accumulate > 1
            obstacle = f"accumulate={settings.accumulate}" if shared else None
            recorder = recorder_for(
                accelerator.device, self.optimizer, **where, obstacle=obstacle, asked=asked
            )
        self.parallel, self.moved, self.loader = accelerator.prepare(model, self.optimizer, loader)
        self.captured: CapturedStep | None = None
        if recorder is not None:
            self.captured = CapturedStep(
                self._fresh_gradients,
                model,
                self.moved,
                recorder,
                accelerator.device,
                required=settings.capture_steps is True,
            )

    @property
    def trained(self) -> nn.Module:
        """The model as it is judged and kept: with averaged weights if they are kept."""
        return self.model if self.average is None else self.average.module

    def run(self) -> dict[str, float]:
        """Train to the end, and return what the last line of the log says."""
        while len(self.log) < self.settings.epochs and self._share_of_time() < 1:
            epoch = 1 + len(self.log)
            loss = self._epoch(epoch)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the training loss became {loss} in epoch {epoch}. Lower lr in [optimizer] or "
                    f"gradient_clip, in a new folder; {self.out} keeps the epoch before."
                )
            self.trained.eval()
            with torch.inference_mode():
                figures = self.evaluate(self.trained)
            self.log.append({"epoch": epoch, "loss": loss, **figures})
            self._keep()
        self.trained.eval()
        return self.log[-1]

    def _epoch(self, epoch: int) -> float:
        """Pass once over the images, or until time is up; return the mean loss of the batches."""
        clock = time.process_time if self.accelerator.device.type == "cpu" else time.perf_counter
        begun = clock() - self.seconds
        seed_all(self.settings.seed, epoch, self.accelerator.process_index)
        self.loader.set_epoch(epoch)
        self.parallel.train()
        losses = []
        for batch in self.loader:
            with self.accelerator.accumulate(self.parallel):
                losses.append(self._step(batch))
            self.seconds = clock() - begun
            if self._share_of_time() >= 1:
                break
        mean = torch.stack(losses).mean()
        return float(self.accelerator.reduce(mean, "mean"))

    def _step(self, batch: Any) -> Tensor:
        timed = int(self._share_of_time() * self.updates_in_all)
        self.schedule.step_update(max(self.updates, timed))
        batch = batch if self.prepare is None else self.prepare(batch)
        synced = self.accelerator.sync_gradients  # else the next batch adds to these gradients
        if self.captured is not None:
            loss = self.captured(batch)
        else:
            loss = self._gradients(batch)
            self.moved.step()
            self.moved.zero_grad()
        if synced:
            self.updates += 1
            if self.average is not None:
                self.average.update(self.model, step=self.updates)
        return loss.detach()

    def _gradients(self, batch: Any) -> Tensor:
        """Add the gradients of a batch's loss, and clip them before an update; return the loss."""
        loss = self.loss_of(self.parallel, batch)
        self.accelerator.backward(loss)
        limit = self.settings.gradient_clip
        if self.accelerator.sync_gradients and limit is not None:
            self.accelerator.clip_grad_norm_(self.parallel.parameters(), limit)
        return loss

    def _fresh_gradients(self, batch: Sequence[Tensor]) -> Tensor:
        """Set the gradients anew, in memory of the recording's own."""
        self.parallel.zero_grad(set_to_none=True)
        return self._gradients(batch)

    def _share_of_time(self) -> float:
        minutes = self.settings.minutes
        return 0.0 if minutes is None else self.seconds / (60 * minutes)

    def _keep(self) -> None:
        """Write the checkpoint and the log, each whole or not at all."""
        if self.accelerator.is_main_process:
            buffer = io.BytesIO()
            torch.save(
                {
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "average": None if self.average is None else self.average.module.state_dict(),
                    "run": [self.updates, self.seconds, self.log],
                },
                buffer,
            )
            write_whole(self.out / "checkpoint.pt", buffer.getvalue())
            lines = io.StringIO()
            rows = csv.DictWriter(lines, list(self.log[0]), lineterminator="\n")
            rows.writeheader()
            rows.writerows(self.log)
            write_whole(self.out / "log.csv", lines.getvalue().encode())
            shown = ", ".join(f"{name} {value:.4g}" for name, value in self.log[-1].items())
            print(f"{shown}; {self.seconds / 60:.1f} minutes of training", flush=True)
        self.accelerator.wait_for_everyone()

    def _go_on(self) -> None:
        """Take up the run where its checkpoint left it."""
        kept = torch.load(
            self.out / "checkpoint.pt", map_location=self.accelerator.device, weights_only=True
        )
        self.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(kept["average"])
        self.updates, self.seconds, self.log = kept["run"]


def keep_result(training: Training, figures: dict[str, float], **facts: Any) -> None:
    """Write `result.json`: the last figures, the model's size, and what it took."""
    settings = training.settings
    result = {
        "layout": settings.layout,
        "model": settings.model,
        **facts,
        "parameters": sum(weight.numel() for weight in training.model.parameters()),
        "seed": settings.seed,
        "updates": training.updates,
        "images": training.updates * settings.batch_size,
        "seconds": round(training.seconds, 1),
        **figures,
    }
    if training.accelerator.is_main_process:
        write_whole(training.out / "result.json", json.dumps(result, indent=1).encode())


def write_weights(training: Training) -> None:
    """Write the trained weights as `model.safetensors`."""
    if training.accelerator.is_main_process:
        write_whole(training.out / "model.safetensors", save(training.trained.state_dict()))


def seed_all(*numbers: int) -> None:
    """Seed the global generators, which timm and torchvision draw their augmentation from."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a kill leaves the old one or the new one."""
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def command(main: Callable[..., None]) -> None:
    """Run a recipe's command line; a user's mistake ends it with one message."""
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    try:
        app()
    except TSM2Error as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
