"""Pretraining: a network learns from generated series, for as long as one likes.

    generate -> tell -> step                 each window is drawn once and never seen again

The loss is that of the quantiles, in the unit of the network's answer, so that every window counts
alike: an error is measured beside the error that was to be expected of classical forecasts. What is
far beyond that is cut off.

The place is kept in a checkpoint, from which the same call goes on. Windows depend on the seed and
on the number of the step alone; the learning rate on the share of the steps, or of the minutes,
that are over.

Sizes: B windows, M variates, T time steps, H horizon.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsm2.errors import ParameterError, TrainingError
from tsm2.networks.config import NetworkConfig
from tsm2.networks.heads import quantile_loss
from tsm2.networks.zero import Told, ZeroShotNetwork, zero_shot_config
from tsm2.pretraining.generator import generate
from tsm2.training import seeded
from tsm2.training.checkpoints import Checkpoint
from tsm2.training.ema import MovingAverage

__all__ = ["LEVELS", "PretrainingConfig", "Progress", "default_network", "pretrain"]

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Levels of the quantiles that are learned."""

_VARIATES = (1, 1, 4, 1, 2)  # of a draw, in turn
_DRAWN = 2048  # rows at once
_FARTHEST = 15.0  # scales from the base, in the loss
_WARM_UP = 0.02  # share of the training


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

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ParameterError("pretraining needs steps, minutes or both, got neither")
        for name in ("steps", "minutes", "batch_rows", "learning_rate", "report_steps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ParameterError(f"{name} must be above 0, got {value}")


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
    The network with its averaged weights, in evaluation mode, and what was reported.

    Raises
    ------
    TrainingError
        The loss left the finite numbers.
    SavedModelError, OutputError
        The checkpoint is another's, damaged, or cannot be written.
    """
    run = _Pretraining(config, default_network() if network is None else network, checkpoint)
    run.resume()
    while not run.finished:
        run.advance(report)
    with run.average.in_place():
        run.network.eval()
        kept = {name: each.clone() for name, each in run.network.state_dict().items()}
    run.network.load_state_dict(kept)
    return run.network, run.reports


class _Pretraining:
    """A pretraining under way."""

    def __init__(
        self, config: PretrainingConfig, sizes: NetworkConfig, checkpoint: Path | None
    ) -> None:
        self.config = config
        with seeded(config.seed):
            self.network = ZeroShotNetwork(sizes)
        parameters = list(self.network.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self.average = MovingAverage(self.network, config.ema_decay)
        self.step, self.minutes = 0, 0.0
        self.reports: list[Progress] = []
        self.losses: list[float] = []
        self.checkpoint: Checkpoint | None = None
        if checkpoint is not None:
            asked = {k: v for k, v in asdict(config).items() if k not in ("steps", "minutes")}
            identity = asked | {"network": str(sizes)}
            self.checkpoint = Checkpoint(checkpoint, identity)
        self._validation: list[tuple[Told, Tensor]] = []
        self._start_loss = math.nan

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

    def advance(self, report: Callable[[Progress], None] | None) -> None:
        """Draw windows, and take the steps that they are for."""
        if not self._validation:
            self._begin_validation()
        began = time.monotonic()
        for told, target in self._batches():
            self._step(told, target)
            self.minutes += (time.monotonic() - began) / 60
            began = time.monotonic()
            if self.step % self.config.report_steps == 0 or self.finished:
                self._report(report)
                began = time.monotonic()
            if self.finished:
                return

    # --- one step -----------------------------------------------------------------------------

    def _batches(self) -> Iterator[tuple[Told, Tensor]]:
        """Yield what the next steps of one draw read and should say; what was done is left out."""
        per_draw = max(1, _DRAWN // self.config.batch_rows)
        draw, done = divmod(self.step, per_draw)
        pieces = self._drawn(
            [self.config.seed, 1, draw], _VARIATES[draw % len(_VARIATES)], per_draw
        )
        for number, piece in enumerate(pieces):
            if number >= done:
                yield piece()

    def _drawn(
        self, seed: list[int], variates: int, pieces: int
    ) -> list[Callable[[], tuple[Told, Tensor]]]:
        sizes, network = self.network.config, self.network
        count = max(1, self.config.batch_rows // variates)
        windows = generate(
            seed,
            count * pieces,
            variates=variates,
            length=sizes.lookback + sizes.horizon,
            horizon=sizes.horizon,
        )
        values, known = torch.from_numpy(windows.values), torch.from_numpy(windows.known)
        seasons = torch.from_numpy(windows.seasons)
        # Some come without a frequency, whose season must then be found.
        told_of = torch.arange(len(seasons)) % 5 > 0

        def piece(number: int) -> tuple[Told, Tensor]:
            rows = slice(number * count, (number + 1) * count)
            past, mask = values[rows, :, : sizes.lookback], known[rows, :, : sizes.lookback]
            told = network.tell(past, mask, seasons=seasons[rows] * told_of[rows])
            future = values[rows, :, sizes.lookback :].double()
            standard = ((future - told.level) / told.deviation).float()
            target = (standard - told.base) / told.scale
            return told, target.clamp(-_FARTHEST, _FARTHEST)

        return [lambda number=number: piece(number) for number in range(pieces)]  # type: ignore[misc]

    def _step(self, told: Told, target: Tensor) -> None:
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(told, target)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self.average.update(self.average.advance())
        self.step += 1
        self.losses.append(float(loss.detach()))
        if not math.isfinite(self.losses[-1]):
            raise TrainingError(
                f"the loss left the finite numbers at step {self.step}. Lower learning_rate "
                f"({self.config.learning_rate})."
            )

    def _rate(self) -> float:
        """Return the share of the peak learning rate: a warm-up, then half a cosine."""
        warm_up = min(1.0, (self.step + 1) / 100, self.share / _WARM_UP + 0.05)
        return warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.share)))

    def _loss(self, told: Told, target: Tensor) -> Tensor:
        answer = self.network.answer(told)
        return quantile_loss(answer, target, self.network.config.quantiles or ())

    # --- look, and keep -----------------------------------------------------------------------

    def _begin_validation(self) -> None:
        for variates in (1, 4):
            pieces = self._drawn([self.config.seed, 2, variates], variates, 4)
            self._validation += [piece() for piece in pieces]
        if math.isnan(self._start_loss):
            with seeded(self.config.seed):
                begun = ZeroShotNetwork(self.network.config)
            trained, self.network = self.network, begun
            self._start_loss = self._validate()
            self.network = trained

    @torch.no_grad()
    def _validate(self) -> float:
        self.network.eval()
        return sum(float(self._loss(*each)) for each in self._validation) / len(self._validation)

    def _report(self, report: Callable[[Progress], None] | None) -> None:
        with self.average.in_place():
            loss = self._validate()
        progress = Progress(
            step=self.step,
            minutes=self.minutes,
            loss=sum(self.losses) / len(self.losses),
            validation_loss=loss,
            start_loss=self._start_loss,
        )
        self.losses.clear()
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
