"""The official CUDA kernels of Mamba, where `mamba-ssm` and `causal-conv1d` are installed.

They read (batch, channels, tokens) and scan forward along the last axis, so other orders of
tokens cost a permuted copy and a reversed scan a flip. From version 2.3.2 on, mamba-ssm builds the
kernels of Mamba-1, which these are, only when it is told to; without them this module says so.
The same numbers come out; "auto" does not choose them, for nobody has measured them to be faster
than ours.

Sizes: T tokens, S sequences, E channels, N states per channel, K taps.
Source: Gu & Dao (2023), arXiv:2312.00752, and the code that they released.
"""

from math import prod

from torch import Tensor

try:
    import selective_scan_cuda  # noqa: F401  # pyright: ignore[reportMissingImports]
except ImportError as error:  # mamba_ssm itself may well be importable, and fails when called
    raise ImportError(
        f"the kernels of Mamba-1 are not built: {error}. On a machine with nvcc: "
        f"MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation --no-binary :all: "
        f"--no-deps mamba-ssm causal-conv1d"
    ) from error
from causal_conv1d import causal_conv1d_fn  # pyright: ignore[reportMissingImports]
from mamba_ssm.ops.selective_scan_interface import (  # pyright: ignore[reportMissingImports]
    selective_scan_fn,
)

from tsm2.errors import BackendError
from tsm2.kernels.interface import ConvTensors, ScanTensors, Walk

__all__ = ["causal_conv", "selective_scan"]

_MOST_STATES = 256
_TAPS = (2, 3, 4)


def selective_scan(tensors: ScanTensors, walk: Walk) -> Tensor:
    """Scan; see `tsm2.kernels.selective_scan`."""
    u, delta, A, B, C, D, z, delta_bias, _ = tensors
    if A.shape[1] > _MOST_STATES:
        raise BackendError(
            f"mamba_ssm scans at most {_MOST_STATES} states per channel, got {A.shape[1]}. "
            f"Pass backend='auto' to let tsm2 choose."
        )
    y: Tensor = selective_scan_fn(
        _tokens_last(u, walk),
        _tokens_last(delta, walk),
        A,
        _tokens_last(B, walk),
        _tokens_last(C, walk),
        D=D,
        z=None if z is None else _tokens_last(z, walk),
        delta_bias=delta_bias,
        delta_softplus=True,
    )
    return _channels_last(y, u, walk)


def causal_conv(tensors: ConvTensors, walk: Walk, silu: bool) -> Tensor:
    """Convolve; see `tsm2.kernels.causal_conv`."""
    x, weight, bias = tensors
    if weight.shape[1] not in _TAPS:
        raise BackendError(
            f"causal_conv1d has kernels of 2 to 4 taps, got {weight.shape[1]}. "
            f"Pass backend='auto' to let tsm2 choose."
        )
    rows = _tokens_last(x, walk)
    y: Tensor = causal_conv1d_fn(rows, weight, bias, activation="silu" if silu else None)
    return _channels_last(y, x, walk)


def _tokens_last(tensor: Tensor, walk: Walk) -> Tensor:
    """Lay out (*lead, channels) as (S, channels, T), in the order of the walk."""
    n = len(walk.axes)
    walked = tensor.movedim(walk.axes, tuple(range(-1 - n, -1)))  # (*, *scanned, channels)
    length = prod(walked.shape[-1 - n : -1])
    rows = walked.reshape(-1, length, tensor.shape[-1]).transpose(1, 2).contiguous()
    return rows.flip(-1) if walk.reverse else rows


def _channels_last(rows: Tensor, like: Tensor, walk: Walk) -> Tensor:
    """Put (S, channels, T) back into the shape of the signal: the inverse of `_tokens_last`."""
    last = tuple(range(-1 - len(walk.axes), -1))
    shape = like.movedim(walk.axes, last).shape
    rows = rows.flip(-1) if walk.reverse else rows
    return rows.transpose(1, 2).reshape(shape).movedim(last, walk.axes).contiguous()
