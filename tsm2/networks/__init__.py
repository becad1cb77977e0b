"""The networks: what time series and images share, and TSM2 itself."""

from tsm2.networks.blocks import MambaMixerBlock, WeightedAverage
from tsm2.networks.ensemble import Ensemble
from tsm2.networks.mixers import SelectiveMixer
from tsm2.networks.tsm2 import NetworkConfig, TSM2Network

__all__ = [
    "Ensemble",
    "MambaMixerBlock",
    "NetworkConfig",
    "SelectiveMixer",
    "TSM2Network",
    "WeightedAverage",
]
