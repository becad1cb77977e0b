"""What torch.export gets: operators that keep every size open, compared beyond the traced sizes."""

from typing import Any

import pytest
import torch
from kernel_cases import assert_close, conv_arguments, scan_arguments
from torch import Tensor, nn

from tsm2.kernels import causal_conv, exportable, selective_scan
from tsm2.kernels.exporting import repeated
from tsm2.kernels.interface import ConvTensors, ScanTensors, Walk
from tsm2.networks.mixers import SelectiveMixer
from tsm2.networks.tsm2 import NetworkConfig, TSM2Network

# torch.export loads parts of torch that torch itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method. is deprecated")
WALKS = [((1,), False), ((2,), True), ((1, 2), False), ((2, 1), True)]


@pytest.mark.parametrize(("axes", "reverse"), WALKS, ids=str)
def test_it_agrees_with_the_reference(axes: tuple[int, ...], reverse: bool) -> None:
    scan = {name: each.double() for name, each in scan_arguments((2, 4, 5), 6).items()}
    walk = Walk(axes, reverse)
    got = exportable.selective_scan(ScanTensors(**scan), walk)
    wanted = selective_scan(**scan, axes=axes, reverse=reverse, backend="reference")
    assert_close({"out": got}, {"out": wanted}, (1e-12, 0))
    conv = {name: each.double() for name, each in conv_arguments((2, 4, 5), 6).items()}
    got = exportable.causal_conv(ConvTensors(**conv), walk, silu=True)
    wanted = causal_conv(**conv, axes=axes, reverse=reverse, backend="reference")
    assert_close({"out": got}, {"out": wanted}, (1e-12, 0))


@pytest.mark.parametrize("absent", [["D"], ["z"], ["delta_bias"]], ids=str)
def test_options_may_be_absent(absent: list[str]) -> None:
    arguments = scan_arguments((2, 5), 6, leave_out=tuple(absent))
    options: Any = dict.fromkeys(absent)
    got = exportable.selective_scan(ScanTensors(**arguments, **options), Walk((1,), False))
    torch.testing.assert_close(got, selective_scan(**arguments, backend="reference"))


def exported(network: nn.Module, x: Tensor, open_axes: tuple[int, ...]) -> nn.Module:
    sizes = {axis: torch.export.Dim(f"size{axis}") for axis in open_axes}
    with torch.no_grad():
        return torch.export.export(network.eval(), (x,), dynamic_shapes=(sizes,)).module()


def test_an_exported_mixer_takes_larger_images_than_the_traced_one() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mixer = SelectiveMixer(8, orders=((1, 2), (2, 1)), directions="both")
        program = exported(mixer, torch.randn(2, 5, 4, 8), open_axes=(0, 1, 2))
        for lead in ((2, 5, 4), (3, 9, 7), (2, 20, 2)):
            image = torch.randn(*lead, 8)
            torch.testing.assert_close(program(image), mixer(image))


def test_an_exported_forecaster_takes_larger_batches_than_the_traced_one() -> None:
    config = NetworkConfig(
        lookback=64, horizon=8, n_variates=3, features=8, zero_start=False, zero_head=False
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TSM2Network(config)
        program = exported(network, torch.randn(2, 3, 64), open_axes=(0,))
        for batch in (2, 9):
            windows = torch.randn(batch, 3, 64)
            torch.testing.assert_close(program(windows), network(windows))


class Growing(nn.Module):
    """Each step is the sum of the two before, times a factor."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        def step(last: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
            new = factor * last.sum(1, keepdim=True)
            return torch.cat((last[:, 1:], new), 1), new.squeeze(1)

        return repeated(step, x, self.count, (x.new_full((1,), 0.5),))


def operators(program: Any) -> list[str]:
    return [str(node.target) for node in program.graph.nodes]


def test_steps_that_are_repeated_are_no_more_operators_the_more_they_are() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        few, many = (exported(Growing(count), torch.randn(2, 2), (0,)) for count in (3, 40))
        x = torch.randn(5, 2)
    for program, count in ((few, 3), (many, 40)):
        torch.testing.assert_close(program(x), Growing(count)(x))
    assert operators(few) == operators(many)
