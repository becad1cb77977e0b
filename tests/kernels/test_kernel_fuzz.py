"""Random shapes, axes, options and memory layouts, the same in every run."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    assert_conv_agrees,
    assert_scan_agrees,
    conv_arguments,
    out_of_a_wider_buffer,
    scan_arguments,
)
from torch import Tensor

from tsm2.kernels import available_backends

fast_backends = [name for name in available_backends("cpu") if name != "reference"]
every_fast_backend = pytest.mark.parametrize("backend", fast_backends)
fuzz = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def walks(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Draw the sizes of the lead axes, and how to walk over them."""
    lead = draw(st.lists(st.integers(1, 19), min_size=1, max_size=3))
    order = draw(st.permutations(range(len(lead))))
    n_axes = draw(st.integers(1, min(2, len(lead))))
    return tuple(lead), {"axes": tuple(order[:n_axes]), "reverse": draw(st.booleans())}


def some_from_wider_buffers(data: st.DataObject, arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: out_of_a_wider_buffer(value) if data.draw(st.booleans(), f"{name} a view") else value
        for name, value in arguments.items()
    }


@every_fast_backend
@settings(fuzz, max_examples=60)
@given(st.data(), walks(), st.integers(2, 40), st.integers(1, 18))
def test_scans(
    backend: str,
    data: st.DataObject,
    walk: tuple[tuple[int, ...], dict[str, Any]],
    features: int,
    states: int,
) -> None:
    lead, options = walk
    leave_out = data.draw(st.sets(st.sampled_from(["D", "z", "delta_bias"])))
    sizes = {"features": features, "states": states, "seed": data.draw(st.integers(0, 99))}
    rank = data.draw(st.sampled_from([None, 1, 2, 4, 5]))
    arguments = scan_arguments(lead, rank=rank, leave_out=tuple(leave_out), **sizes)
    arguments["delta"] = arguments["delta"] * data.draw(st.sampled_from([0.1, 1.0, 20.0]))
    assert_scan_agrees(backend, some_from_wider_buffers(data, arguments), **options)


@every_fast_backend
@settings(fuzz, max_examples=40)
@given(st.data(), walks(), st.integers(2, 40), st.integers(1, 9))
def test_convolutions(
    backend: str,
    data: st.DataObject,
    walk: tuple[tuple[int, ...], dict[str, Any]],
    features: int,
    taps: int,
) -> None:
    lead, options = walk
    arguments = conv_arguments(lead, features, taps, bias=data.draw(st.booleans()))
    options["activation"] = data.draw(st.sampled_from(["silu", None]))
    assert_conv_agrees(backend, some_from_wider_buffers(data, arguments), **options)
