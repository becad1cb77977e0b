"""What moves the weights: AdamW with two learning rates, their schedule, and SAM.

The linear path and the mixers have learning rates of their own; weight decay and sharpness-aware
steps are the mixers' alone.

    SAM: the gradient at w + radius g / |g| is applied at w        g the gradient at w

Sources: Loshchilov & Hutter (2019), arXiv:1711.05101 (AdamW); Smith & Topin (2018),
arXiv:1708.07120 (one-cycle schedule); Foret et al. (2021), arXiv:2010.01412 (SAM).
"""

from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["climb", "descend", "list_mixers", "make_optimizer", "make_scheduler"]


class OptimizerSettings(Protocol):
    """The part of a training configuration that is read here."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def mixer_learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def make_optimizer(
    network: nn.Module, config: OptimizerSettings, *, capturable: bool = False
) -> torch.optim.AdamW:
    """Return AdamW over a network's parameters: the linear path first, then the mixers.

    Parameters
    ----------
    network, config
        What is trained, and how.
    capturable
        Let its steps be recorded in a CUDA graph.
    """
    mixers = list_mixers(network)
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
    given = [group for group in groups if group["params"]]
    return torch.optim.AdamW(given, fused=True, capturable=capturable)


def list_mixers(network: nn.Module) -> list[nn.Parameter]:
    """List what is regularised: a network without `mixer_parameters` is all linear path."""
    found = getattr(network, "mixer_parameters", list)
    return [parameter for parameter in found() if parameter.requires_grad]


def make_scheduler(
    optimizer: torch.optim.Optimizer, schedule: str, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return "onecycle", "cosine" or "constant" learning rates over so many steps."""
    if schedule == "onecycle" and steps > 1:
        peaks = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=peaks, total_steps=steps + 1, cycle_momentum=False
        )
    if schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


@torch.no_grad()
def climb(parameters: list[nn.Parameter], radius: float) -> list[tuple[Tensor, Tensor]]:
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
def descend(before: list[tuple[Tensor, Tensor]]) -> None:
    """Put the weights back where they were before `climb`."""
    for parameter, value in before:
        parameter.copy_(value)
