"""Ablations: TSM2 with one thing changed at a time, each a set of its own parameters.

Source: Behrouz et al. (2024), arXiv:2403.19888, table 7 (the first three); the others answer what
the paper leaves open: how outputs are averaged, in which directions and along which axis is
scanned, what the scans select by, and what instance normalisation does.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["ABLATIONS"]

_BLOCKS = 3  # with fewer, there is little to average or to reach back to

ABLATIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "TSM2": {},
        "TSM2-MLP": {"variate_mixer": "mlp", "averaging_learned": False},
        "Mamba + Linear Time": {"time_mixer": "linear", "variate_directions": "forward"},
        "TSM2 time only": {"variate_mixer": "none"},
        "TSM2 variates only": {"time_mixer": "none"},
        "TSM2 linear path": {"blocks": 0},
        "TSM2 variates forward": {"variate_directions": "forward"},
        "TSM2 selection by input": {"selection": "input"},
        "TSM2 without instance norm": {"instance_norm": False},
        "TSM2 3 blocks": {"blocks": _BLOCKS},
        "TSM2 3 blocks, averaging off": {"blocks": _BLOCKS, "averaging_learned": False},
        "TSM2 3 blocks, averaging mean": {"blocks": _BLOCKS, "averaging": "mean"},
        # From "identity" nothing but the newest output reaches the head: it cannot start at zero.
        "TSM2 3 blocks, averaging identity": {
            "blocks": _BLOCKS,
            "averaging": "identity",
            "zero_start": False,
        },
        "TSM2 3 blocks, reach 1": {"blocks": _BLOCKS, "averaging_reach": 1},
        "TSM2 3 blocks, reach 2": {"blocks": _BLOCKS, "averaging_reach": 2},
    }
)
"""Parameters of each variant, by its name in tables; "averaging off" is a plain residual stream."""
