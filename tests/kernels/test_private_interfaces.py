"""What the kernels use of other libraries although it is not public, each with a test of its name.

An upgrade that takes one of them away, or changes it, fails here first. There is no public way:
torch has no other operator that an exporter keeps as a loop, and numba tells only its listeners
that it is about to compile, before the seconds that it takes.
"""

import pytest
import torch
from torch import Tensor


def test_torchs_scan_operator() -> None:
    """`exportable` needs torch._higher_order_ops.scan.scan_op, and hands it all that it reads.

    The function beside it, `scan`, compiles what it is given first: a second for each scan.
    """
    from torch._higher_order_ops.scan import scan_op

    def add(total: Tensor, token: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        total = total + weight * token
        return total, total.clone()

    tokens = torch.tensor([[1.0], [2.0], [4.0]])
    last, sums = scan_op(add, (torch.zeros(1),), (tokens,), (torch.full((1,), 2.0),))
    assert sums.flatten().tolist() == [2, 6, 14]
    assert last.tolist() == [14]


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
