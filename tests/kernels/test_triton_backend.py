"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled for two of them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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


SCAN = {"REVERSE": True, "STEPS": 16, "BLOCK_N": 16}
CONV = {"TAPS": 4, "SILU": True, "REVERSE": False, "BLOCK_T": 16}
KERNELS = [
    ("triton_scan.scan_forward", SCAN),
    ("triton_scan.scan_backward", SCAN),
    ("triton_conv.conv_forward", CONV),
    ("triton_conv.conv_sums", CONV | {"BLOCK_K": 8}),
]
SIGNALS = {"u", "delta", "z", "B", "C", "x", "dout", "out", "du", "ddelta", "dz"}
NUMBERS = {"sequences", "length", "channels", "states", "padded", "tasks"}


def compiled(name: str, constants: dict[str, Any], warps: int, dtype: str, arch: int) -> Any:
    """Compile a kernel for a processor that need not be there."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tsm2.kernels import triton_conv, triton_scan

    module, function = name.split(".")
    kernel = getattr({"triton_scan": triton_scan, "triton_conv": triton_conv}[module], function)

    def kind(argument: str) -> Any:
        if argument in constants:
            return "constexpr"
        if argument == "sizes" or argument.endswith("strides"):
            return ("i32",) * (3 if argument == "sizes" else 5)
        if argument in NUMBERS:
            return "i32"
        return f"*{dtype}" if argument in SIGNALS else "*fp32"

    signature = {argument: kind(argument) for argument in kernel.arg_names}
    places = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
    return triton.compile(
        ASTSource(kernel, signature, places),
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": warps},
    )


@pytest.mark.filterwarnings("ignore")  # of Triton's own
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize(("name", "constants"), KERNELS, ids=[name for name, _ in KERNELS])
def test_the_kernels_compile_and_keep_to_the_registers(
    tmp_path: Path, name: str, constants: dict[str, Any], arch: int
) -> None:
    """In every shipped block size; what does not fit the registers goes through slow memory."""
    from tsm2.kernels import triton_backend

    (ptxas, *_) = (Path(triton.__file__).parent / "backends/nvidia/bin").glob("ptxas*")
    for block, warps in triton_backend._BLOCKS:
        for dtype in ("fp32", "bf16"):
            sizes = constants | {"BLOCK_E": block}
            assembly = compiled(name, sizes, warps, dtype, arch).asm["ptx"]
            (tmp_path / "kernel.ptx").write_text(assembly)
            report = subprocess.run(
                [ptxas, "-v", f"--gpu-name=sm_{arch}{'a' if arch >= 90 else ''}", "kernel.ptx"],
                capture_output=True,
                text=True,
                check=True,
                cwd=tmp_path,
            ).stderr
            assert re.findall(r"(\d+) bytes spill", report) == ["0", "0"], report
