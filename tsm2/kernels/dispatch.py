"""Which backend runs: a table, a pure choice, a late import.

"auto" takes the first fused backend of the table that can run; a backend that was named is never
replaced by another. A backend's module says that it cannot run here by raising ImportError,
in words, when it is imported.
"""

import itertools
import sys
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from traceback import walk_stack
from typing import cast

import torch
from torch import Tensor

from tsm2.errors import BackendError
from tsm2.kernels.interface import DifferentiableKernels, FusedKernels, StackingKernels

__all__ = [
    "KernelFallbackWarning",
    "available_backends",
    "choose_backend",
    "explain_backends",
    "is_fused",
    "load_differentiable",
    "load_fused",
    "load_stacking",
    "stacks",
    "takes_step_rank",
]


class KernelFallbackWarning(UserWarning):
    """backend="auto" had to take slow kernels; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One way to run the kernels: where its code is and what it accepts."""

    module: str
    devices: frozenset[str]
    dtypes: frozenset[torch.dtype]
    fused: bool
    """Whether it provides `FusedKernels`; "auto" takes no other."""
    step_rank: int = 0
    """Largest rank of `delta_weight` that its scan takes, and is faster with than without."""
    stacks: bool = False
    """Whether it provides `StackingKernels`, and is faster with them than without."""


_EVERYWHERE = frozenset({"cpu", "cuda", "mps", "xpu"})
_SINGLE = frozenset({torch.float32, torch.bfloat16, torch.float16})
_ALL = _SINGLE | {torch.float64}

_BACKENDS = {  # fastest first
    "numba": Backend(
        module="tsm2.kernels.numba_backend",
        devices=frozenset({"cpu"}),
        dtypes=_SINGLE,
        fused=True,
        step_rank=4,
    ),
    "triton": Backend(
        module="tsm2.kernels.triton_backend",
        devices=frozenset({"cuda"}),
        dtypes=_SINGLE,
        fused=True,
        stacks=True,
    ),
    "torch": Backend(
        module="tsm2.kernels.torch_backend", devices=_EVERYWHERE, dtypes=_ALL, fused=True
    ),
    "mamba_ssm": Backend(
        module="tsm2.kernels.mamba_ssm_backend",
        devices=frozenset({"cuda"}),
        dtypes=_SINGLE,
        fused=False,
    ),
    "reference": Backend(
        module="tsm2.kernels.reference", devices=_EVERYWHERE, dtypes=_ALL, fused=False
    ),
}


@cache
def _import_obstacle(module: str) -> str | None:
    """Say why a backend's module cannot be imported in this process, or None."""
    try:
        import_module(module)
    except ImportError as error:
        return str(error)
    return None


def _obstacle(backend: Backend, device: str, dtype: torch.dtype) -> str | None:
    """Say why a backend cannot run, or None; import it only if nothing else is in the way."""
    if device not in backend.devices:
        return f"runs on {', '.join(sorted(backend.devices))}, not on {device}"
    if dtype not in backend.dtypes:
        return f"does not take {str(dtype).removeprefix('torch.')}"
    return _import_obstacle(backend.module)


def explain_backends(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, str | None]:
    """Say of every backend whether it can run here and, if not, why.

    Parameters
    ----------
    device
        Where the tensors are.
    dtype
        The dtype of the signal `u` or `x`.

    Returns
    -------
    For each backend, fastest first: None if it can run, else the reason in words.

    Examples
    --------
    >>> explain_backends(dtype=torch.float64)  # doctest: +ELLIPSIS
    {'numba': 'does not take float64', ..., 'torch': None, ..., 'reference': None}
    """
    kind = torch.device(device).type
    return {name: _obstacle(backend, kind, dtype) for name, backend in _BACKENDS.items()}


def available_backends(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> list[str]:
    """List the backends that can run, fastest first.

    Parameters
    ----------
    device
        Where the tensors are.
    dtype
        The dtype of the signal `u` or `x`.

    Returns
    -------
    Names that `selective_scan` and `causal_conv` accept as `backend`.

    Examples
    --------
    >>> available_backends(dtype=torch.float64)
    ['torch', 'reference']
    """
    return [name for name, obstacle in explain_backends(device, dtype).items() if not obstacle]


@cache
def choose_backend(device: str, dtype: torch.dtype, requested: str = "auto") -> str:
    """Return the fastest fused backend that fits, or exactly the requested one; never another."""
    runnable = available_backends(device, dtype)
    obstacle: str | None = "no backend of this name fits"
    if requested == "auto":
        for name in runnable:
            if is_fused(name):
                return name
    elif requested in _BACKENDS:
        obstacle = _obstacle(_BACKENDS[requested], device, dtype)
        if obstacle is None:
            return requested
    raise BackendError(
        f"backend {requested!r} cannot run with {dtype} on {device!r}: {obstacle}. "
        f"These can: {', '.join(runnable) or 'none'}. Pass backend='auto' to let tsm2 choose."
    )


def is_fused(requested: str) -> bool:
    """Whether `load_fused` is the one to ask for this backend, "auto" and unknown names too."""
    return requested not in _BACKENDS or _BACKENDS[requested].fused


def takes_step_rank(signal: Tensor, requested: str, rank: int) -> bool:
    """Whether the chosen backend's scan takes `delta_weight`; else delta is projected before."""
    name = choose_backend(signal.device.type, signal.dtype, requested)
    return rank <= _BACKENDS[name].step_rank


def stacks(signal: Tensor, requested: str) -> bool:
    """Whether the chosen backend takes several walks at once, and eager code asks."""
    if torch.compiler.is_compiling():
        return False
    return _BACKENDS[choose_backend(signal.device.type, signal.dtype, requested)].stacks


def load_stacking(signal: Tensor, requested: str) -> StackingKernels | None:
    """Import the chosen backend if it takes several walks at once, else return None."""
    row = _BACKENDS[choose_backend(signal.device.type, signal.dtype, requested)]
    return cast(StackingKernels, import_module(row.module)) if row.stacks else None


def load_differentiable(signal: Tensor, requested: str) -> DifferentiableKernels:
    """Import a backend that was named and is not fused, or what can be exported if one is."""
    if is_fused(requested):
        return cast(DifferentiableKernels, import_module("tsm2.kernels.exportable"))
    name = choose_backend(signal.device.type, signal.dtype, requested)
    return cast(DifferentiableKernels, import_module(_BACKENDS[name].module))


def load_fused(signal: Tensor, requested: str) -> FusedKernels:
    """Import the chosen backend, and warn if "auto" could not take one made for the device."""
    device, dtype = signal.device.type, signal.dtype
    name = choose_backend(device, dtype, requested)
    if requested == "auto" and name == "torch":
        _announce_fallback(device, dtype)
    return cast(FusedKernels, import_module(_BACKENDS[name].module))


@cache
def _announce_fallback(device: str, dtype: torch.dtype) -> None:
    """Say once what keeps the device's own kernels from running; nothing if it has none."""
    reasons = [
        f"{name}: {obstacle}"
        for name, obstacle in explain_backends(device, dtype).items()
        if obstacle and device in _BACKENDS[name].devices and is_fused(name)
    ]
    if reasons:
        warnings.warn(
            f"backend='auto' takes the slower 'torch' kernels ({'; '.join(reasons)}). "
            f"Pass backend='torch' if that is what you want.",
            KernelFallbackWarning,
            stacklevel=_level_of_the_caller(),
        )


def _level_of_the_caller() -> int:
    """Count the frames from the function that asks to whoever called the kernels."""
    frames = itertools.takewhile(
        lambda frame: frame.f_globals["__name__"].startswith(("tsm2.kernels.", "torch.")),
        (frame for frame, _ in walk_stack(sys._getframe(1))),
    )
    return 1 + sum(1 for _ in frames)
