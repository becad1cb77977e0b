"""The public operations: what they mean, what they accept, which backend they call.

Sizes: E channels, N states per channel, K taps; *lead stands for all axes but the last.
A scan walks over one or two of the lead axes, the others are batch.
Source: Gu & Dao (2023), arXiv:2312.00752, section 3.2, algorithm 2.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from tsm2.errors import ParameterError
from tsm2.kernels import fused, stacked
from tsm2.kernels.dispatch import is_fused, load_differentiable, stacks
from tsm2.kernels.exporting import is_exporting
from tsm2.kernels.interface import (
    ConvTensors,
    ScanTensors,
    ScanWeights,
    SSMTensors,
    Walk,
    converted,
    state_dtype,
)

__all__ = ["causal_conv", "cross_scan", "selective_scan", "selective_ssm", "warm_up"]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_weight: Tensor | None = None,
    *,
    axes: Sequence[int] = (1,),
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor:
    r"""Run the input-dependent linear recurrence along one or two axes.

        d[t] = softplus(delta[t] + delta_bias)    or    softplus(W delta[t] + delta_bias)
        h[t] = exp(d[t] A) h[t-1] + d[t] B[t] u[t]
        y[t] = (C[t] h[t] + D u[t]) * silu(z[t])

    Tensors are read where they lie: slices of a wider projection, permuted lead axes and
    expanded axes cost no copy as long as the last axis has stride 1.

    Parameters
    ----------
    u
        Input signal, (\*lead, E).
    delta
        Step lengths before softplus, (\*lead, E); after softplus in the time unit of `A`. With
        `delta_weight`, what they are projected from, (\*lead, R).
    A
        Rates, (E, N), per time unit, not positive.
    B
        Weights into the state, (\*lead, N).
    C
        Weights out of the state, (\*lead, N).
    D
        Weight of the direct path from `u`, (E,); none if None.
    z
        Gate, (\*lead, E); none if None.
    delta_bias
        Added to `delta` before softplus, (E,); zero if None.
    delta_weight
        W, which projects a `delta` of low rank onto the channels, (E, R); None if it has E
        columns. With a small R the CPU kernels project as they scan, and write no tensor for it.
    axes
        The lead axes to walk over, the last named one fastest: on an image (B, H, W, E),
        (1, 2) walks row by row and (2, 1) column by column. One or two axes, negative
        numbers count from the end.
    reverse
        Walk from the last token to the first.
    backend
        "auto" for the fastest that runs here, or a name from `available_backends`.

    Returns
    -------
    y, (\*lead, E), contiguous, in the dtype of `u`.

    Raises
    ------
    ParameterError
        Two shapes, devices or dtypes disagree, or an axis does not fit; also a ValueError.
    BackendError
        The named backend is unknown or cannot run on this device and dtype.

    Warns
    -----
    KernelFallbackWarning
        "auto" could not take the kernels made for this device; said once.

    Notes
    -----
    The state is float64 if `u` is float64, else float32, also under autocast, and everything is
    computed in the dtype of the state. Only backend="reference" has second derivatives,
    `torch.func` transforms, and rates above zero. Under torch.compile the fused backends are
    operators of `torch.library` and break no graph; torch.export and ONNX get operators that they
    know, and lead axes of any size.

    References
    ----------
    Gu & Dao (2023), algorithm 2; `B` by Euler's rule, as in their released code.

    Examples
    --------
    Without decay and with steps of length 1, the scan is a running sum:

    >>> one = torch.ones(1, 3, 1)
    >>> unit_step = one.expm1().log()  # softplus of this is 1
    >>> y = selective_scan(one, unit_step, torch.zeros(1, 1), one, one, backend="reference")
    >>> y.flatten().tolist()
    [1.0, 2.0, 3.0]
    """
    tensors = ScanTensors(u, delta, A, B, C, D, z, delta_bias, delta_weight)
    walk = _checked_walk(axes, reverse, "u", u)
    states = _check_parameters("u", u, tensors)
    lead, rank = u.shape[:-1], u.shape[-1] if delta_weight is None else delta_weight.shape[1]
    for name, tensor, columns in (("delta", delta, rank), ("B", B, states), ("C", C, states)):
        _check_like("u", u, name, tensor, (*lead, columns))

    if is_fused(backend) and not is_exporting():
        return fused.selective_scan(tensors, walk, backend)
    tensors = fused.projected(tensors)
    kernels = load_differentiable(u, backend)
    return kernels.selective_scan(converted(tensors, state_dtype(u)), walk).to(u.dtype)


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    axes: Sequence[int] = (1,),
    reverse: bool = False,
    activation: Literal["silu"] | None = "silu",
    backend: str = "auto",
) -> Tensor:
    r"""Convolve every channel with its own window of the current and earlier tokens.

        y[t] = silu(bias + sum over k of weight[K-1-k] x[t-k])        k = 0 .. K-1

    Tokens before the first count as zero. Tensors are read where they lie, as in
    `selective_scan`.

    Parameters
    ----------
    x
        Input signal, (\*lead, E).
    weight
        One window per channel, (E, K); `weight[:, K-1]` multiplies the current token.
    bias
        Added before the activation, (E,); zero if None.
    axes
        The lead axes to walk over, as in `selective_scan`.
    reverse
        Walk from the last token to the first, so that the window looks at later tokens.
    activation
        "silu", or None for the plain sum.
    backend
        "auto" for the fastest that runs here, or a name from `available_backends`.

    Returns
    -------
    y, (\*lead, E), contiguous, in the dtype of `x`.

    Raises
    ------
    ParameterError
        Two shapes, devices or dtypes disagree, or an axis does not fit; also a ValueError.
    BackendError
        The named backend is unknown or cannot run on this device and dtype.

    Warns
    -----
    KernelFallbackWarning
        "auto" could not take the kernels made for this device; said once.

    Notes
    -----
    Computed in the dtype of the state, as in `selective_scan`.

    References
    ----------
    Gu & Dao (2023), section 3.4: the short convolution before the scan.

    Examples
    --------
    >>> x = torch.tensor([[[1.0], [2.0], [4.0]]])
    >>> previous_and_current = torch.tensor([[10.0, 1.0]])
    >>> y = causal_conv(x, previous_and_current, activation=None, backend="reference")
    >>> y.flatten().tolist()
    [1.0, 12.0, 24.0]
    """
    tensors = ConvTensors(x, weight, bias)
    walk = _checked_walk(axes, reverse, "x", x)
    _check_taps(x, "weight", weight, "bias", bias)
    if activation not in ("silu", None):
        raise ParameterError(f"activation must be 'silu' or None, got {activation!r}")

    silu = activation == "silu"
    if is_fused(backend) and not is_exporting():
        return fused.causal_conv(tensors, walk, silu, backend)
    kernels = load_differentiable(x, backend)
    return kernels.causal_conv(converted(tensors, state_dtype(x)), walk, silu).to(x.dtype)


def selective_ssm(
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    select_weight: Tensor,
    A: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_weight: Tensor | None = None,
    *,
    axes: Sequence[int] = (1,),
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor:
    r"""Convolve, select and scan: all that a mixer does between its projections.

        u = causal_conv(x)        [delta | B | C] = S u        y = selective_scan(u, delta, A, B, C)

    The same as these three calls; in training it is one node of the graph.

    Parameters
    ----------
    x
        Input signal, (\*lead, E).
    conv_weight, conv_bias
        `weight` and `bias` of `causal_conv`, (E, K) and (E,).
    select_weight
        S, which projects the convolved signal onto `delta`, `B` and `C`, (R + 2 N, E); without
        `delta_weight` R is E.
    A, D, z, delta_bias, delta_weight
        As in `selective_scan`.
    axes, reverse, backend
        As in `selective_scan`, for the convolution too.

    Returns
    -------
    y, (\*lead, E), contiguous, in the dtype of `x`.

    Raises
    ------
    ParameterError
        Two shapes, devices or dtypes disagree, or an axis does not fit; also a ValueError.
    BackendError
        The named backend is unknown or cannot run on this device and dtype.

    Warns
    -----
    KernelFallbackWarning
        "auto" could not take the kernels made for this device; said once.

    References
    ----------
    Gu & Dao (2023), algorithm 2 and figure 3.

    Examples
    --------
    >>> x, one = torch.ones(1, 3, 1), torch.ones(1, 1)
    >>> y = selective_ssm(x, one, None, torch.zeros(3, 1), -one, torch.ones(1))
    >>> torch.equal(y, causal_conv(x, one))  # nothing is selected, D passes it on
    True
    """
    tensors = SSMTensors(
        x, conv_weight, conv_bias, select_weight, A, D, z, delta_bias, delta_weight
    )
    walk = _checked_walk(axes, reverse, "x", x)
    _check_taps(x, "conv_weight", conv_weight, "conv_bias", conv_bias)
    _check_selection(x, tensors)
    if is_fused(backend) and fused.trains_eagerly(tensors):
        return fused.selective_ssm(tensors, walk, backend)
    order: Any = {"axes": axes, "reverse": reverse, "backend": backend}
    u = causal_conv(x, conv_weight, conv_bias, **order)
    return selective_scan(*tensors.scan(u, functional.linear(u, select_weight)), **order)


def cross_scan(
    x: Tensor,
    scans: Sequence[ScanWeights],
    *,
    axes: Sequence[Sequence[int]],
    reverse: Sequence[bool],
    backend: str = "auto",
) -> Tensor:
    r"""Select and scan one signal along several walks, and add the outputs.

        u_k = causal_conv(x)  or  x        [delta_k | B_k | C_k] = S_k u_k
        y   = sum over k of selective_scan(u_k, delta_k, A_k, B_k, C_k)

    The same as these calls one by one. On a GPU all of them are one launch; on a CPU, where that
    saves nothing, they are these calls.

    Parameters
    ----------
    x
        Input signal, (\*lead, E).
    scans
        What each scan has of its own, `ScanWeights`: the arguments of `selective_ssm` of these
        names, in the same shapes for all scans. Without a `conv_weight` they read x itself.
    axes, reverse
        Of each scan, as in `selective_scan`. All go over the same axes, in any order.
    backend
        As in `selective_scan`.

    Returns
    -------
    y, (\*lead, E), contiguous, in the dtype of `x`.

    Raises
    ------
    ParameterError
        Two shapes, devices or dtypes disagree, or an axis does not fit; also a ValueError.
    BackendError
        The named backend is unknown or cannot run on this device and dtype.

    Warns
    -----
    KernelFallbackWarning
        "auto" could not take the kernels made for this device; said once.

    References
    ----------
    Liu et al. (2024), arXiv:2401.10166, section 4.3: the cross-scan of VMamba.

    Examples
    --------
    Without decay and with steps of length 1, both directions of a running sum:

    >>> x, zero = torch.ones(1, 3, 1), torch.zeros(1, 1)
    >>> unit_step = torch.ones(1).expm1().log()  # softplus of this is 1
    >>> scan = ScanWeights(torch.tensor([[0.0], [1.0], [1.0]]), zero, delta_bias=unit_step)
    >>> cross_scan(x, [scan, scan], axes=[(1,), (1,)], reverse=[False, True]).flatten().tolist()
    [4.0, 4.0, 4.0]
    """
    walks = _checked_walks(axes, reverse, x, scans)
    for scan in scans:
        if scan.conv_weight is not None:
            _check_taps(x, "conv_weight", scan.conv_weight, "conv_bias", scan.conv_bias)
        _check_selection(x, scan)
    convolved = scans[0].conv_weight is not None
    in_graph = torch.compiler.is_compiling() and not is_exporting()
    if is_fused(backend) and (in_graph or stacks(x, backend)):
        return stacked.cross_scan(x, scans, walks, backend)
    outputs = []
    for scan, walk in zip(scans, walks, strict=True):
        order: Any = {"axes": walk.axes, "reverse": walk.reverse, "backend": backend}
        if convolved:
            outputs.append(selective_ssm(*scan.ssm(x), **order))
        else:
            selected = functional.linear(x, scan.select_weight)
            outputs.append(selective_scan(*scan.reads(x, selected), **order))
    return reduce(torch.add, outputs)


def warm_up(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
    """Compile, or load from disk, what "auto" will run, so that the first real call is fast.

    Without it the first call of each kernel on a machine takes some seconds; later processes
    load the compiled code from a cache on disk.

    Parameters
    ----------
    device
        Where the tensors will be.
    dtype
        The dtype of the signal.

    Examples
    --------
    >>> warm_up()
    """
    signal = torch.zeros(1, 2, 1, device=device, dtype=dtype, requires_grad=True)
    weight = signal[0, :1]  # (1, 1)
    y = selective_scan(causal_conv(signal, weight), signal, weight, signal, signal)
    y.sum().backward()  # type: ignore[no-untyped-call]


def _checked_walk(axes: Sequence[int], reverse: bool, name: str, signal: Tensor) -> Walk:
    """Return the walk, its axes counted from the front."""
    counted = tuple(axis + signal.ndim if axis < 0 else axis for axis in axes)
    n_lead = signal.ndim - 1
    if (
        len(counted) not in (1, 2)
        or len(set(counted)) < len(counted)
        or not all(0 <= axis < n_lead for axis in counted)
    ):
        raise ParameterError(
            f"axes must name one or two different axes of {name} without the last, "
            f"got axes={tuple(axes)} for {name} of shape {tuple(signal.shape)}"
        )
    return Walk(counted, reverse)


def _checked_walks(
    axes: Sequence[Sequence[int]], reverse: Sequence[bool], x: Tensor, scans: Sequence[ScanWeights]
) -> tuple[Walk, ...]:
    """Return the walks of a cross-scan; raise unless its scans go together."""
    if not len(axes) == len(reverse) == len(scans) > 0:
        raise ParameterError(
            f"a cross-scan needs axes and reverse for each scan, got {len(axes)} and "
            f"{len(reverse)} for {len(scans)} scans"
        )
    walks = tuple(
        _checked_walk(each, back, "x", x) for each, back in zip(axes, reverse, strict=True)
    )
    if len({tuple(sorted(walk.axes)) for walk in walks}) > 1:
        raise ParameterError(f"all scans of a cross-scan must go over the same axes, got {axes}")
    first = scans[0]
    for scan in scans[1:]:
        for name, wanted, given in zip(ScanWeights._fields, first, scan, strict=True):
            shapes = [None if each is None else tuple(each.shape) for each in (wanted, given)]
            if shapes[0] != shapes[1]:
                raise ParameterError(
                    f"all scans of a cross-scan need {name} of one shape, got {shapes[0]} and "
                    f"{shapes[1]}"
                )
    return walks


def _check_taps(
    x: Tensor, weight_name: str, weight: Tensor, bias_name: str, bias: Tensor | None
) -> None:
    """Raise unless a convolution's weights fit the signal."""
    channels = x.shape[-1]
    if weight.ndim != 2 or weight.shape[0] != channels or weight.shape[1] < 1:
        raise _mismatch(weight_name, weight, (channels, "K"), "x", x)
    _check_like("x", x, weight_name, weight, tuple(weight.shape))
    _check_like("x", x, bias_name, bias, (channels,))


def _check_selection(x: Tensor, tensors: SSMTensors | ScanWeights) -> None:
    """Raise unless what a scan selects by, and its parameters, fit the signal."""
    states, channels, weight = _check_parameters("x", x, tensors), x.shape[-1], tensors.delta_weight
    rank = channels if weight is None else weight.shape[1]
    wanted = (rank + 2 * states, channels)
    _check_like("x", x, "select_weight", tensors.select_weight, wanted)


def _check_parameters(
    signal_name: str, signal: Tensor, tensors: ScanTensors | SSMTensors | ScanWeights
) -> int:
    """Return a scan's number of states; raise unless what does not depend on it fits the signal."""
    channels, A, delta_weight = signal.shape[-1], tensors.A, tensors.delta_weight
    if A.ndim != 2 or A.shape[0] != channels:
        raise _mismatch("A", A, (channels, "N"), signal_name, signal)
    if delta_weight is not None:
        if delta_weight.ndim != 2:
            raise _mismatch("delta_weight", delta_weight, (channels, "R"), signal_name, signal)
        wanted = (channels, delta_weight.shape[1])
        _check_like(signal_name, signal, "delta_weight", delta_weight, wanted)
    _check_like(signal_name, signal, "A", A, tuple(A.shape))
    _check_like(signal_name, signal, "D", tensors.D, (channels,))
    if not isinstance(tensors, ScanWeights):
        _check_like(signal_name, signal, "z", tensors.z, tuple(signal.shape))
    _check_like(signal_name, signal, "delta_bias", tensors.delta_bias, (channels,))
    states: int = A.shape[1]
    return states


def _check_like(
    signal_name: str, signal: Tensor, name: str, tensor: Tensor | None, wanted: tuple[int, ...]
) -> None:
    """Raise unless a tensor fits the signal in shape, device and kind of number."""
    if tensor is None:
        return
    if tensor.shape != wanted:
        raise _mismatch(name, tensor, wanted, signal_name, signal)
    if tensor.device != signal.device:
        raise ParameterError(
            f"{name} is on {tensor.device}, but {signal_name} is on {signal.device}"
        )
    if not (tensor.is_floating_point() and signal.is_floating_point()):
        raise ParameterError(
            f"{name} and {signal_name} must be floating point, "
            f"got {tensor.dtype} and {signal.dtype}"
        )


def _mismatch(
    name: str, tensor: Tensor, wanted: tuple[int | str, ...], signal_name: str, signal: Tensor
) -> ParameterError:
    shape = ", ".join(str(size) for size in wanted)
    return ParameterError(
        f"{name} has shape {tuple(tensor.shape)}, but {signal_name} of shape "
        f"{tuple(signal.shape)} needs ({shape}{',' * (len(wanted) == 1)})"
    )
