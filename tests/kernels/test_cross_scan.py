"""Several scans of one signal as one operation: the same as one by one, however it is run."""

from typing import Any

import pytest
import torch
from kernel_cases import Arguments, assert_close, out_of_a_wider_buffer, run_with_gradients
from torch import Tensor

from tsm2.errors import ParameterError
from tsm2.kernels import (
    ScanWeights,
    available_backends,
    cross_scan,
    dispatch,
    exporting,
    selective_ssm,
    stacked,
)

FEATURES, STATES, TAPS = 20, 3, 4
FOUR: Any = {
    "axes": [(1, 2), (1, 2), (2, 1), (2, 1)],
    "reverse": [False, True, False, True],
}
TWO: Any = {"axes": [(1,), (1,)], "reverse": [False, True]}
every_backend = pytest.mark.parametrize("backend", available_backends("cpu"))


def drawn(
    lead: tuple[int, ...],
    scans: int,
    *,
    rank: int | None = 2,
    conv: bool = False,
    leave_out: tuple[str, ...] = (),
) -> Arguments:
    """Make a float32 signal and the weights of every scan, "A_0", "A_1" and so on."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    arguments = {"x": normal(*lead, FEATURES)}
    columns = (FEATURES if rank is None else rank) + 2 * STATES
    for k in range(scans):
        made = {
            "select_weight": normal(columns, FEATURES) * FEATURES**-0.5,
            "A": -torch.exp(normal(FEATURES, STATES)),
            "D": normal(FEATURES),
            "delta_bias": normal(FEATURES) - 2,
            "delta_weight": normal(FEATURES, rank or 1),
            "conv_weight": normal(FEATURES, TAPS),
            "conv_bias": normal(FEATURES),
        }
        unwanted = {*leave_out, *(() if conv else ("conv_weight", "conv_bias"))}
        unwanted |= {"delta_weight"} if rank is None else set()
        arguments |= {f"{name}_{k}": each for name, each in made.items() if name not in unwanted}
    return arguments


def gathered(weights: Arguments) -> list[ScanWeights]:
    count = 1 + max(int(name.rpartition("_")[2]) for name in weights)
    return [
        ScanWeights(
            **{n: weights[f"{n}_{k}"] for n in ScanWeights._fields if f"{n}_{k}" in weights}
        )
        for k in range(count)
    ]


def run(*, x: Tensor, axes: Any, reverse: Any, backend: str = "auto", **weights: Tensor) -> Tensor:
    return cross_scan(x, gathered(weights), axes=axes, reverse=reverse, backend=backend)


def assert_agrees(backend: str, arguments: Arguments, **walks: Any) -> None:
    exact = {name: each.double() for name, each in arguments.items()}
    wanted = run_with_gradients(run, exact, {"backend": "reference", **walks})
    assert_close(run_with_gradients(run, arguments, {"backend": backend, **walks}), wanted)


@every_backend
@pytest.mark.parametrize("rank", [None, 2, 6])
@pytest.mark.parametrize("conv", [False, True], ids=["shared", "convolved"])
def test_values_and_gradients_are_the_references(
    backend: str, rank: int | None, conv: bool
) -> None:
    for leave_out in ((), ("D", "delta_bias", "conv_bias")):
        image = drawn((2, 5, 7), 4, rank=rank, conv=conv, leave_out=leave_out)
        assert_agrees(backend, image, **FOUR)
        groups = drawn((5, 19), 2, rank=rank, conv=conv, leave_out=leave_out)
        assert_agrees(backend, groups, **TWO)


@every_backend
def test_signals_are_read_where_they_lie(backend: str) -> None:
    arguments = drawn((2, 5, 3), 4)
    arguments["x"] = out_of_a_wider_buffer(arguments["x"])
    assert_agrees(backend, arguments, **FOUR)


def test_the_reference_is_the_sum_of_the_scans() -> None:
    arguments = {name: each.double() for name, each in drawn((2, 4, 3), 4, conv=True).items()}
    total = torch.zeros_like(arguments["x"])
    weights = gathered({name: each for name, each in arguments.items() if name != "x"})
    for scan, axes, reverse in zip(weights, FOUR["axes"], FOUR["reverse"], strict=True):
        given: Any = dict(zip(ScanWeights._fields, scan, strict=True))
        order: Any = {"axes": axes, "reverse": reverse, "backend": "reference"}
        total += selective_ssm(arguments["x"], **given, **order)
    torch.testing.assert_close(run(**arguments, **FOUR, backend="reference"), total)


@every_backend
@pytest.mark.parametrize("conv", [False, True], ids=["shared", "convolved"])
def test_forecasts_and_mixed_precision_give_about_the_same(backend: str, conv: bool) -> None:
    arguments = drawn((2, 5, 3), 4, conv=conv)
    wanted = run(**arguments, **FOUR, backend="reference")
    with torch.no_grad():
        torch.testing.assert_close(run(**arguments, **FOUR, backend=backend), wanted)
    if backend == "reference":
        return  # knows nothing of mixed precision
    leaves: Any = {name: each.clone().requires_grad_() for name, each in arguments.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = run(**leaves, **FOUR, backend=backend)
    limit = 0.05 * float(wanted.detach().abs().max())
    torch.testing.assert_close(lowered.float(), wanted, rtol=0, atol=limit)
    gradients = torch.autograd.grad(lowered.float().square().mean(), list(leaves.values()))
    assert all(bool(each.isfinite().all()) for each in gradients)


class Compiled(torch.nn.Module):
    """A cross-scan as a program."""

    def forward(self, x: Tensor, *weights: Tensor) -> Tensor:
        names = [n for n in ScanWeights._fields if self.conv or not n.startswith("conv")]
        given = [dict(zip(names, weights[k : k + len(names)], strict=True)) for k in self.starts]
        scans = [ScanWeights(**each) for each in given]
        return cross_scan(x, scans, **self.walks)

    def __init__(self, scans: int, conv: bool, walks: Any) -> None:
        super().__init__()
        self.conv, self.walks = conv, walks
        n = len(ScanWeights._fields) - (0 if conv else 2)
        self.starts = range(0, scans * n, n)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # what torch's tracer does
@pytest.mark.parametrize("conv", [False, True], ids=["shared", "convolved"])
@pytest.mark.parametrize("answer", [False, True], ids=["told", "told wrongly"])
def test_compiled_scans_are_operators_whatever_torch_says(
    monkeypatch: pytest.MonkeyPatch, conv: bool, answer: bool
) -> None:
    """Under torch 2.11 a program that is compiled is told that it is exported."""
    arguments = drawn((2, 5, 3), 4, conv=conv)
    leaves = [each.requires_grad_() for each in arguments.values()]
    program = Compiled(4, conv, FOUR)
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(program, fullgraph=True, backend=keep)
    with monkeypatch.context() as told:
        told.setattr(torch.compiler, "_is_exporting_flag", answer)
        compiled(*leaves)
    called = {str(node.target) for graph in graphs for node in graph.graph.nodes}
    assert "tsm2.selective_scans.default" in called
    assert ("tsm2.causal_convs.default" in called) == conv
    assert not any("scan" in name and not name.startswith("tsm2") for name in called)

    compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
    got, wanted = compiled(*leaves), program(*leaves)
    torch.testing.assert_close(got, wanted)
    for left, right in zip(
        torch.autograd.grad(got.square().sum(), leaves),
        torch.autograd.grad(wanted.square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-5 * float(right.abs().max()))


def test_only_a_program_in_python_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "_is_exporting_flag", True)
    assert exporting.is_exporting()
    monkeypatch.setattr(torch.compiler, "is_dynamo_compiling", lambda: True)
    assert not exporting.is_exporting()


@pytest.mark.parametrize("backend", [b for b in available_backends("cpu") if dispatch.is_fused(b)])
@pytest.mark.parametrize("conv", [False, True], ids=["shared", "convolved"])
def test_the_operators_are_sound(backend: str, conv: bool) -> None:
    made = drawn((2, 3, 2), 2, conv=conv)
    scans = gathered({name: each for name, each in made.items() if name != "x"})
    fields: Any = stacked.stacked(scans)
    walks: Any = [[1, 2, 2, 1], [False, True]]
    u = made["x"][None]
    if conv:
        call = (u, fields.conv_weight, fields.conv_bias, *walks, True, backend)
        leaves: Any = [e.requires_grad_() if isinstance(e, Tensor) else e for e in call]
        torch.library.opcheck(torch.ops.tsm2.causal_convs.default, leaves)
        u = torch.ops.tsm2.causal_convs(*call).detach()
    selected = u @ fields.select_weight[:, None].transpose(-1, -2)
    tensors = [None if e is None else e.detach() for e in fields.reads(u, selected)]
    call = (*[e if e is None else e.requires_grad_() for e in tensors], *walks, True, backend)
    torch.library.opcheck(torch.ops.tsm2.selective_scans.default, call)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": [(1, 2)]}, "needs axes and reverse for each scan, got 1 and 4 for 4 scans"),
        ({"axes": [(1, 2), (1,), (1, 2), (1, 2)]}, "must go over the same axes"),
        ({"A_2": -torch.ones(FEATURES, 5)}, r"need A of one shape, got \(20, 3\) and \(20, 5\)"),
        ({"select_weight_0": torch.ones(3, FEATURES)}, "need select_weight of one shape"),
        ({"x": torch.ones(2, 5, 3, 4)}, r"A has shape \(20, 3\), but x"),
    ],
)
def test_scans_that_do_not_go_together_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        run(**(drawn((2, 5, 3), 4) | FOUR | changes))


@pytest.mark.parametrize(("walks", "conv"), [(FOUR, False), (TWO, True)], ids=["image", "groups"])
def test_rows_in_parts_give_what_whole_rows_give(
    walks: dict[str, Any], conv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = drawn(
        (6, 4, 5) if len(walks["axes"]) == 4 else (12, 5), len(walks["axes"]), conv=conv
    )
    whole = run_with_gradients(run, arguments, {"backend": "torch", **walks})
    monkeypatch.setattr(stacked, "_parts", lambda rows: 6)
    assert_close(run_with_gradients(run, arguments, {"backend": "torch", **walks}), whole)


def test_rows_are_cut_into_equal_parts_of_thousands() -> None:
    assert stacked._divisor(64 * 56 * 56, 64 * 56 * 56 // 4096) == 49
    assert stacked._divisor(8191, 1) == stacked._divisor(8191, 2) == 1
    assert stacked._parts(torch.empty(1, 100_000, 3)) == 1  # a CPU takes them at once
    assert stacked._parts(torch.empty(1, 100_000, 3, device="meta")) == 20


def test_a_compiler_keeps_the_number_of_rows_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert stacked._parts(torch.empty(1, 100_000, 3, device="meta")) == 1
