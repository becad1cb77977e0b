"""Which backend runs: a table, a pure choice, a late import.

"auto" takes the first backend of the table that can run; a backend that was named is never
replaced by another. A backend's module says that it cannot run here by raising ImportError,
in words, when it is imported.
"""

import warnings
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor

from tsm2.errors import BackendError

__all__ = [
    "KernelFallbackWarning",
    "Kernels",
    "available_backends",
    "choose_backend",
    "explain_backends",
    "load_backend",
]


class KernelFallbackWarning(UserWarning):
    """backend="auto" had to take the slow reference; the message says why."""


class Kernels(Protocol):
    """What a backend's module provides.

    Arguments arrive checked: one device, one floating dtype, axes counted from the front.
    """

    def selective_scan(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        axes: tuple[int, ...],
        reverse: bool,
    ) -> Tensor:
        """Scan, as `tsm2.kernels.selective_scan` defines it."""
        ...

    def causal_conv(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        axes: tuple[int, ...],
        reverse: bool,
        silu: bool,
    ) -> Tensor:
        """Convolve, as `tsm2.kernels.causal_conv` defines it."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One way to run the kernels: where its code is and what it accepts."""

    module: str
    devices: frozenset[str]
    dtypes: frozenset[torch.dtype]


_SINGLE = frozenset({torch.float32, torch.bfloat16, torch.float16})

_BACKENDS = {  # fastest first
    "numba": Backend(
        module="tsm2.kernels.numba_backend", devices=frozenset({"cpu"}), dtypes=_SINGLE
    ),
    "reference": Backend(
        module="tsm2.kernels.reference",
        devices=frozenset({"cpu", "cuda", "mps", "xpu"}),
        dtypes=_SINGLE | {torch.float64},
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
    >>> explain_backends(dtype=torch.float64)
    {'numba': 'does not take float64', 'reference': None}
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
    ['reference']
    """
    return [name for name, obstacle in explain_backends(device, dtype).items() if not obstacle]


@cache
def choose_backend(device: str, dtype: torch.dtype, requested: str = "auto") -> str:
    """Return the fastest backend that fits, or exactly the requested one; never another."""
    if requested == "auto" and (runnable := available_backends(device, dtype)):
        return runnable[0]
    obstacle: str | None = "no backend of this name fits"
    if requested in _BACKENDS:
        obstacle = _obstacle(_BACKENDS[requested], device, dtype)
    if obstacle is None:
        return requested
    can_run = ", ".join(available_backends(device, dtype)) or "none"
    raise BackendError(
        f"backend {requested!r} cannot run with {dtype} on {device!r}: {obstacle}. "
        f"These can: {can_run}. Pass backend='auto' to let tsm2 choose."
    )


@cache
def _announce_fallback(reasons: str) -> None:
    """Say once for each set of reasons that the slow reference runs."""
    warnings.warn(
        f"backend='auto' takes the slow reference kernels ({reasons}). "
        f"Pass backend='reference' if that is what you want.",
        KernelFallbackWarning,
        stacklevel=4,  # the caller of selective_scan or causal_conv
    )


def load_backend(device: str, dtype: torch.dtype, requested: str) -> Kernels:
    """Import the chosen backend, and warn if "auto" found nothing but the reference."""
    name = choose_backend(device, dtype, requested)
    if requested == "auto" and name == "reference":
        others = explain_backends(device, dtype).items()
        _announce_fallback("; ".join(f"{other}: {why}" for other, why in others if why))
    return cast(Kernels, import_module(_BACKENDS[name].module))
