"""The operations that every tsm2 network shares, each with one definition and several backends.

`reference` defines the results; every faster backend agrees with it, values and gradients.
Importing this package compiles nothing and loads no compiler.
"""

from tsm2.kernels.dispatch import KernelFallbackWarning, available_backends, explain_backends
from tsm2.kernels.interface import ScanWeights
from tsm2.kernels.operations import (
    causal_conv,
    cross_scan,
    selective_scan,
    selective_ssm,
    warm_up,
)

__all__ = [
    "KernelFallbackWarning",
    "ScanWeights",
    "available_backends",
    "causal_conv",
    "cross_scan",
    "explain_backends",
    "selective_scan",
    "selective_ssm",
    "warm_up",
]
