"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled for two of them."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("compiles the kernels, which the interpreter replaces", allow_module_level=True)


def test_the_kernels_agree_with_the_reference_in_the_interpreter() -> None:
    """In a process of its own: Triton looks at the variable when it is imported."""
    file = Path(__file__).with_name("interpreted_triton.py")
    plugins_off = ["-p", "no:cacheprovider", "-p", "no:xdist"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins_off, str(file)],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=file.parents[2],
    )
    assert result.returncode == 0, result.stdout[-5000:]
    assert " passed" in result.stdout
    assert "skipped" not in result.stdout


@pytest.mark.parametrize(
    ("lead", "walks", "columns", "wide"),
    [
        ((2**15, 2**10), 1, 63, False),
        ((2**15, 2**10), 1, 64, True),  # however short its sequences are
        ((2**13, 2**10), 3, 64, False),
        ((2**13, 2**10), 4, 64, True),
    ],
)
def test_distances_of_32_bits_reach_every_element(
    lead: tuple[int, int], walks: int, columns: int, wide: bool
) -> None:
    from tsm2.kernels.triton_rows import rows_of

    shape = (walks, *lead, columns)
    signal = torch.empty(shape, device="meta")
    shared = torch.empty((1, *shape[1:]), device="meta")
    rows = rows_of(lead, [signal, shared], (1,), columns, walks=walks, stacked=True)
    assert rows.wide is wide
    assert rows_of(lead, [shared], (1,), columns, walks=walks, stacked=True).wide is wide


WALK = {"WALKS": 1, "REVERSED": 1, "SWAPPED": 0, "ONE_AXIS": True, "WIDE": False}
FOUR_WALKS = {"WALKS": 4, "REVERSED": 0b1010, "SWAPPED": 0b1100, "ONE_AXIS": False}
SCAN = WALK | {"STEPS": 16, "BLOCK_N": 16, "BLOCK_E": 32}
CONV = WALK | {"TAPS": 4, "SILU": True, "BLOCK_E": 128}
KERNELS = [
    ("triton_scan.scan_forward", SCAN),
    ("triton_scan.scan_backward", SCAN | {"WHOLE": True}),
    ("triton_scan.scan_backward", SCAN | {"WHOLE": True} | FOUR_WALKS),
    ("triton_segments.scan_segments", WALK | {"BLOCK_N": 16, "BLOCK_E": 32}),
    ("triton_segments.scan_segments_back", WALK | {"BLOCK_N": 16, "BLOCK_E": 32}),
    ("triton_segments.join_segments", {"WALKS": 1, "BACKWARD": True, "BLOCK_N": 16, "BLOCK_E": 32}),
    ("triton_conv.conv_forward", CONV | {"UNROLLED": 4}),
    ("triton_conv.conv_backward", CONV),
]
SIGNALS = {"u", "delta", "z", "B", "C", "x", "dout", "out", "du", "ddelta", "dz", "dx"}
NUMBERS = {"sequences", "segments", "span", "length", "channels", "states"}


def compiled(name: str, constants: dict[str, Any], dtype: str, arch: int) -> Any:
    """Compile a kernel for a processor that need not be there."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tsm2.kernels import triton_backend

    module, function = name.split(".")
    kernel = getattr(import_module(f"tsm2.kernels.{module}"), function)
    options: dict[str, int] = {"num_warps": triton_backend._WARPS}
    if function == "scan_backward":
        options["maxnreg"] = triton_backend._MOST_REGISTERS

    def kind(argument: str) -> Any:
        if argument in constants:
            return "constexpr"
        if argument == "sizes" or argument.endswith("strides"):
            return ("i32",) * (4 if argument == "sizes" else 6)
        if argument in NUMBERS:
            return "i32"
        return f"*{dtype}" if argument in SIGNALS else "*fp32"

    signature = {argument: kind(argument) for argument in kernel.arg_names}
    places = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
    multiples: Any = {  # of 16, as Triton finds tensors and sizes of whole blocks
        (place,): [["tt.divisibility", 16]]
        for place, argument in enumerate(kernel.arg_names)
        if str(signature[argument]).startswith("*") or argument in {"channels", "states", "span"}
    }
    return triton.compile(
        ASTSource(kernel, signature, places, multiples),
        target=GPUTarget("cuda", arch, 32),
        options=options,
    )


@pytest.mark.filterwarnings("ignore")  # of Triton's own
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize(
    ("name", "constants"), KERNELS, ids=[f"{name}, {c['WALKS']}" for name, c in KERNELS]
)
def test_the_kernels_compile_and_keep_to_the_registers(
    tmp_path: Path, name: str, constants: dict[str, Any], arch: int
) -> None:
    """As the backend launches them; what does not fit the registers goes through slow memory.

    Twelve programs of 168 registers, 32 threads each, fill the 65,536 of a processor.
    """
    (ptxas, *_) = (Path(triton.__file__).parent / "backends/nvidia/bin").glob("ptxas*")
    for dtype in ("fp32", "bf16"):
        assembly = compiled(name, constants, dtype, arch).asm["ptx"]
        (tmp_path / "kernel.ptx").write_text(assembly)
        report = subprocess.run(
            [ptxas, "-v", f"--gpu-name=sm_{arch}{'a' if arch >= 90 else ''}", "kernel.ptx"],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        ).stderr
        assert re.findall(r"(\d+) bytes spill", report) == ["0", "0"], report
        (registers,) = re.findall(r"Used (\d+) registers", report)
        assert int(registers) <= 168
