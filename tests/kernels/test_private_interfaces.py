"""What the kernels use of other libraries although it is not public, each with a test of its name.

An upgrade that takes one of them away, or changes it, fails here first. There is no public way:
torch has no other operator that an exporter keeps as a loop, and numba tells only its listeners
that it is about to compile, before the seconds that it takes.
"""

import pytest
import torch
from torch import Tensor


def test_torchs_scan_operator() -> None:
    """`exportable` needs torch._higher_order_ops.scan.scan, with an end to start from."""
    from torch._higher_order_ops.scan import scan

    def add(total: Tensor, token: list[Tensor]) -> tuple[Tensor, Tensor]:
        total = total + token[0]
        return total, total.clone()

    tokens = torch.tensor([[1.0], [2.0], [4.0]])
    for reverse, wanted in ((False, [1, 3, 7]), (True, [7, 6, 4])):
        _, sums = scan(add, torch.zeros(1), [tokens], reverse=reverse)
        assert sums.flatten().tolist() == wanted


def test_numbas_compile_event() -> None:
    """`numba_runtime` needs numba.core.event: a compilation names its dispatcher as it starts."""
    numba = pytest.importorskip("numba")
    from numba.core import event

    started = []

    class Listener(event.Listener):
        def on_start(self, event: event.Event) -> None:
            started.append(event.data["dispatcher"])

        def on_end(self, event: event.Event) -> None:
            pass

    kernel = numba.njit(lambda x: x + 1)
    with event.install_listener("numba:compile", Listener()):
        kernel.compile((numba.int64,))
    assert started == [kernel]
