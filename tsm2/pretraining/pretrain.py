"""Pretraining: a network learns from generated series, for as long as one likes.

    generate -> tell -> step                 each window is drawn once and never seen again

The first two are made on a processor, ahead of the steps (`tsm2.pretraining.lessons`); steps are
taken on any device, and captured on CUDA (`tsm2.pretraining.step`).

The loss is that of the quantiles, in the unit of the network's answer, so that every window counts
alike: an error is measured beside the error that was to be expected of classical forecasts. What is
far beyond that is cut off.

The place is kept in a checkpoint, from which the same call goes on. Windows depend on the seed and
on the number of the step alone; the learning rate on the share of the steps, or of the minutes,
that are over. So a run may go on elsewhere, on another device and with more or fewer workers.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tsm2.errors import ParameterError, TrainingError
from tsm2.networks.config import NetworkConfig
from tsm2.networks.heads import quantile_loss
from tsm2.networks.zero import ZeroShotNetwork, zero_shot_config
from tsm2.pretraining.lessons import Draw, Lesson, choose_workers, drawn, lessons
from tsm2.pretraining.step import PretrainingStep
from tsm2.training import choose_device, seeded
from tsm2.training.checkpoints import Checkpoint
from tsm2.training.ema import MovingAverage

__all__ = ["LEVELS", "PretrainingConfig", "Progress", "default_network", "pretrain"]

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Levels of the quantiles that are learned."""

_VARIATES = (1, 1, 4, 1, 2)  # of a draw, in turn
_DRAWN = 2048  # rows at once
_WARM_UP = 0.02  # share of the training
_WHERE = ("device", "workers", "capture_steps")
"""Settings that say where and how it is done, and not what: a run may go on with others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainingConfig:
    """How a network is pretrained."""

    seed: int = 0
    """Of the weights and of all windows."""
    steps: int | None = None
    """Steps in all; None for as many as the minutes allow."""
    minutes: float | None = None
    """Minutes in all, over all runs of a checkpoint; None for as many as the steps take."""
    batch_rows: int = 256
    """Rows in a step: windows times variates."""
    learning_rate: float = 2e-3
    """Peak of the linear path and of the mixers."""
    weight_decay: float = 1e-2
    """AdamW's decay of all matrices."""
    ema_decay: float = 0.998
    """Share of the old average in the moving average of the weights, which is kept."""
    gradient_clip: float = 1.0
    """Largest norm of the gradients."""
    report_steps: int = 250
    """Steps from one report to the next."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network learns."""
    workers: int | None = None
    """Processes that draw windows ahead of it; 0 for none, None for as many as there are cores that
    the network leaves free. They change no weight."""
    capture_steps: Literal["auto"] | bool = "auto"
    """Replay steps as CUDA graphs: "auto" where that is possible, see `tsm2.training.capture`;
    True or else an error; False never. It changes no weight."""

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ParameterError("pretraining needs steps, minutes or both, got neither")
        for name in ("steps", "minutes", "batch_rows", "learning_rate", "report_steps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ParameterError(f"{name} must be above 0, got {value}")
        if self.workers is not None and self.workers < 0:
            raise ParameterError(
                f"workers must be at least 0, which is none, or None for what the cores allow; "
                f"got {self.workers}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where pretraining stands."""

    step: int
    """Steps done."""
    minutes: float
    """Minutes of training, over all runs."""
    loss: float
    """Mean quantile loss since the last report, in scales."""
    validation_loss: float
    """The same of windows that are never trained on, by the averaged weights."""
    start_loss: float
    """The same of the network before its first step: of the classical forecasts alone."""
    waited: float
    """Share of the time since the last report in which the network waited for windows."""


def default_network() -> NetworkConfig:
    """Return the network that is pretrained under the name "zero"."""
    return zero_shot_config(
        lookback=512,
        horizon=64,
        features=48,
        blocks=2,
        patch_length=32,
        patch_stride=32,
        quantiles=LEVELS,
    )


def pretrain(
    config: PretrainingConfig,
    network: NetworkConfig | None = None,
    *,
    checkpoint: Path | None = None,
    report: Callable[[Progress], None] | None = None,
) -> tuple[ZeroShotNetwork, list[Progress]]:
    """Pretrain a network on generated series.

    Parameters
    ----------
    config
        How.
    network
        Its sizes; None for those of "zero".
    checkpoint
        Folder that keeps the place; the same call goes on from there.
    report
        Is told now and then how far it is.

    Returns
    -------
    The network with its averaged weights, in evaluation mode, on the CPU, and what was reported.

    Raises
    ------
    TrainingError
        The loss left the finite numbers.
    BackendError
        The device is not at hand, steps must be captured and cannot be, or a worker ended.
    SavedModelError, OutputError
        The checkpoint is another's, damaged, or cannot be written.
    """
    run = _Pretraining(config, default_network() if network is None else network, checkpoint)
    run.resume()
    if not run.finished:
        run.learn(report)
    with run.average.in_place():
        kept = {name: each.clone() for name, each in run.network.state_dict().items()}
    run.network.load_state_dict(kept)
    return run.network.to("cpu").eval(), run.reports


class _Pretraining:
    """A pretraining under way."""

    def __init__(
        self, config: PretrainingConfig, sizes: NetworkConfig, checkpoint: Path | None
    ) -> None:
        self.config, self.sizes = config, sizes
        self.device = torch.device(choose_device(config.device))
        self.workers = choose_workers(config.workers, self.device)
        self.network = self._begun()
        parameters = list(self.network.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        capturable = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            groups, lr=config.learning_rate, fused=True, capturable=capturable
        )
        self.average = MovingAverage(self.network, config.ema_decay)
        self.take_step = PretrainingStep(
            self.network,
            self.optimizer,
            self.average,
            device=self.device,
            gradient_clip=config.gradient_clip,
            capture=config.capture_steps,
        )
        self.step, self.minutes = 0, 0.0
        self.reports: list[Progress] = []
        self.losses: list[Tensor] = []
        """Since the last report, on the device."""
        self._waited, self._taken = 0.0, 0.0  # minutes since then
        self.checkpoint: Checkpoint | None = None
        if checkpoint is not None:
            asked = {k: v for k, v in asdict(config).items() if k not in ("steps", "minutes")}
            identity = {k: v for k, v in asked.items() if k not in _WHERE}
            self.checkpoint = Checkpoint(checkpoint, identity | {"network": str(sizes)})
        self._validation: list[Lesson] = []
        self._start_loss = math.nan

    def _begun(self) -> ZeroShotNetwork:
        """Return the network before its first step."""
        with seeded(self.config.seed):
            return ZeroShotNetwork(self.sizes).to(self.device)

    @property
    def share(self) -> float:
        """Share of the training that is over."""
        config = self.config
        by_steps = 0.0 if config.steps is None else self.step / config.steps
        by_minutes = 0.0 if config.minutes is None else self.minutes / config.minutes
        return min(1.0, max(by_steps, by_minutes))

    @property
    def finished(self) -> bool:
        """Whether the steps, or the minutes, are over."""
        return self.share >= 1.0

    def learn(self, report: Callable[[Progress], None] | None) -> None:
        """Take the steps that are left."""
        self._begin_validation()
        began = time.monotonic()
        with closing(drawn(self.sizes, self._draws(), self.workers)) as draws:
            for draw in draws:
                self._waited += (time.monotonic() - began) / 60
                for lesson in draw.to(self.device).each():
                    self._step(lesson)
                    began = self._count_from(began)
                    if self.step % self.config.report_steps == 0 or self.finished:
                        self._require_finite()
                        self._count_from(began)
                        self._report(report)
                        began = time.monotonic()
                    if self.finished:
                        return
                self._require_finite()
                began = self._count_from(began)

    def _count_from(self, began: float) -> float:
        """Add the time since then to the minutes, and return the time."""
        now = time.monotonic()
        self.minutes += (now - began) / 60
        self._taken += (now - began) / 60
        return now

    # --- one step -----------------------------------------------------------------------------

    def _draws(self) -> Iterator[Draw]:
        """Yield what is drawn for the steps that are left."""
        per_draw = max(1, _DRAWN // self.config.batch_rows)
        begun, done = divmod(self.step, per_draw)
        steps = self.config.steps
        for number in count(begun) if steps is None else range(begun, -(-steps // per_draw)):
            variates = _VARIATES[number % len(_VARIATES)]
            first = done if number == begun else 0
            yield self._draw((self.config.seed, 1, number), variates, per_draw, first)

    def _draw(self, seed: tuple[int, ...], variates: int, n_lessons: int, first: int = 0) -> Draw:
        windows = max(1, self.config.batch_rows // variates)
        return Draw(seed, variates, windows, n_lessons, first)

    def _step(self, lesson: Lesson) -> None:
        self.network.train()
        self.losses.append(self.take_step(lesson, self.config.learning_rate * self._rate()))
        self.step += 1

    def _require_finite(self) -> None:
        """Wait for the device, and look at the losses since the last report."""
        if not self.losses:
            return
        losses = torch.stack(self.losses)
        if bool(losses.isfinite().all()):
            return
        first = self.step - len(losses) + int(losses.isfinite().int().argmin()) + 1
        raise TrainingError(
            f"the loss left the finite numbers at step {first}. Lower learning_rate "
            f"({self.config.learning_rate})."
        )

    def _rate(self) -> float:
        """Return the share of the peak learning rate: a warm-up, then half a cosine."""
        warm_up = min(1.0, (self.step + 1) / 100, self.share / _WARM_UP + 0.05)
        return warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.share)))

    # --- look, and keep -----------------------------------------------------------------------

    def _begin_validation(self) -> None:
        for variates in (1, 4):
            draw = self._draw((self.config.seed, 2, variates), variates, 4)
            self._validation += lessons(self.sizes, draw).to(self.device).each()
        if math.isnan(self._start_loss):
            self._start_loss = self._validate(self._begun())

    @torch.no_grad()
    def _validate(self, network: ZeroShotNetwork) -> float:
        """Return the mean loss over lessons that are never trained on."""
        network.eval()
        losses = [
            quantile_loss(
                network.inner(each.context, mask=each.mask, static=each.static),
                each.target,
                self.sizes.quantiles or (),
            )
            for each in self._validation
        ]
        return sum(map(float, losses)) / len(losses)

    def _report(self, report: Callable[[Progress], None] | None) -> None:
        with self.average.in_place():
            loss = self._validate(self.network)
        losses = torch.stack(self.losses).tolist()
        progress = Progress(
            step=self.step,
            minutes=self.minutes,
            loss=sum(losses) / len(losses),
            validation_loss=loss,
            start_loss=self._start_loss,
            waited=self._waited / self._taken if self._taken else 0.0,
        )
        self.losses.clear()
        self._waited = self._taken = 0.0
        self.reports.append(progress)
        self.keep()
        if report is not None:
            report(progress)

    def keep(self) -> None:
        """Write the place to the checkpoint."""
        if self.checkpoint is None:
            return
        tensors = {f"weights.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in enumerate(self.average.weights)}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"moments.{number}.{name}": each for name, each in state.items()}
        position: dict[str, Any] = {
            "step": self.step,
            "minutes": self.minutes,
            "average_steps": self.average.steps,
            "reports": [asdict(each) for each in self.reports],
        }
        self.checkpoint.save(position, tensors)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        saved = None if self.checkpoint is None else self.checkpoint.load()
        if saved is None:
            return
        position, tensors = saved
        weights = {
            name.removeprefix("weights."): each
            for name, each in tensors.items()
            if name.startswith("weights.")
        }
        self.network.load_state_dict(weights)
        for number in range(len(self.average.weights)):
            self.average.weights[number].copy_(tensors[f"average.{number}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, each in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "moments":
                which, _, moment = rest.partition(".")
                state.setdefault(int(which), {})[moment] = each
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.minutes = int(position["step"]), float(position["minutes"])
        self.average.steps = int(position["average_steps"])
        self.reports = [Progress(**each) for each in position["reports"]]
        if self.reports:
            self._start_loss = self.reports[0].start_loss
