"""Training: from a network and its windows to trained weights."""

from tsm2.training.fit import Epoch, TrainingConfig
from tsm2.training.loop import EpochWatch, choose_device, fit_network, seeded

__all__ = [
    "Epoch",
    "EpochWatch",
    "TrainingConfig",
    "choose_device",
    "fit_network",
    "seeded",
]
