"""Registers, spills and instructions of the Triton kernels, for GPUs that need not be there.

    python benchmarks/triton_registers.py

Every kernel is compiled as the backend launches it, for walks along one axis in 32-bit addresses,
with all options on; those of the scan for the four walks of an image, too, with 16 states and, as
ViM2 has them, with 4. Registers bound how many programs a processor holds: 65,536 of them by 32
threads, so that 168 allow twelve; what is spilled goes through slow memory. The counts are of the
whole kernel, most of it two loops over tokens in `scan_backward` and one in each other.
"""

import re
import subprocess
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tsm2.kernels import triton_backend, triton_conv, triton_scan, triton_segments
from tsm2.kernels.interface import STATE_STEPS

ARCHITECTURES = (80, 90)
SHOWN = ("SHFL", "LDS", "STS", "BAR", "LDG", "STG", "MUFU", "FFMA", "IMAD")
SIGNALS = {"u", "delta", "z", "B", "C", "x", "dout", "out", "du", "ddelta", "dz", "dx"}
MULTIPLES_OF_16 = {"channels", "states", "span"}
WALK = {"WALKS": 1, "REVERSED": 0, "SWAPPED": 0, "ONE_AXIS": True, "WIDE": False}
FOUR_WALKS = {"WALKS": 4, "REVERSED": 0b1010, "SWAPPED": 0b1100, "ONE_AXIS": False, "WIDE": False}
SCAN = {"STEPS": STATE_STEPS, "BLOCK_N": 16}
FEW = {"STEPS": STATE_STEPS, "BLOCK_N": 4}
KERNELS: list[tuple[Any, dict[str, Any]]] = [
    (triton_scan.scan_forward, WALK | SCAN),
    (triton_scan.scan_forward, FOUR_WALKS | SCAN),
    (triton_scan.scan_backward, WALK | SCAN | {"WHOLE": True}),
    (triton_scan.scan_backward, FOUR_WALKS | SCAN | {"WHOLE": True}),
    (triton_scan.scan_forward, FOUR_WALKS | FEW),
    (triton_scan.scan_backward, FOUR_WALKS | FEW | {"WHOLE": True}),
    (triton_segments.scan_segments, WALK | {"BLOCK_N": 16}),
    (triton_segments.scan_segments_back, WALK | {"BLOCK_N": 16}),
    (triton_segments.join_segments, {"WALKS": 1, "BACKWARD": False, "BLOCK_N": 16}),
    (triton_conv.conv_forward, WALK | {"TAPS": 4, "SILU": True, "UNROLLED": 4}),
    (triton_conv.conv_backward, WALK | {"TAPS": 4, "SILU": True}),
]


def compiled(
    kernel: Any, constants: dict[str, Any], dtype: str, architecture: int, *, aligned: bool = True
) -> str:
    """Return a kernel's assembly."""

    def kind(argument: str) -> Any:
        if argument in constants:
            return "constexpr"
        if argument == "sizes" or argument.endswith("strides"):
            return ("i32",) * (4 if argument == "sizes" else 6)
        if argument in {"sequences", "segments", "span", "length", "channels", "states"}:
            return "i32"
        return f"*{dtype}" if argument in SIGNALS else "*fp32"

    signature = {argument: kind(argument) for argument in kernel.arg_names}
    places = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
    multiples: Any = {
        (place,): [["tt.divisibility", 16]]
        for place, argument in enumerate(kernel.arg_names)
        if aligned and (str(signature[argument]).startswith("*") or argument in MULTIPLES_OF_16)
    }
    limit = {"maxnreg": triton_backend._MOST_REGISTERS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Triton's own
        result = triton.compile(
            ASTSource(kernel, signature, places, multiples),
            target=GPUTarget("cuda", architecture, 32),
            options={"num_warps": 1, **(limit if kernel is triton_scan.scan_backward else {})},
        )
    assembly: str = result.asm["ptx"]
    return assembly


def assembled(assembly: str, architecture: int, folder: Path) -> tuple[int, int, Counter[str]]:
    """Return registers, bytes spilled, and instructions by their name."""
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    (ptxas, *_) = tools.glob("ptxas*")
    (folder / "kernel.ptx").write_text(assembly)
    target = f"sm_{architecture}{'a' if architecture >= 90 else ''}"
    report = subprocess.run(
        [ptxas, "-v", f"--gpu-name={target}", "kernel.ptx", "-o", "kernel.cubin"],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    ).stderr
    listing = subprocess.run(
        [tools / "cuobjdump", "--dump-sass", "kernel.cubin"],
        capture_output=True,
        text=True,
        cwd=folder,
    ).stdout
    found = re.findall(r"^\s+/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\d+ )?([A-Z0-9]+)", listing, re.M)
    (registers,) = re.findall(r"Used (\d+) registers", report)
    spilled = sum(int(each) for each in re.findall(r"(\d+) bytes spill", report))
    return int(registers), spilled, Counter(found)


def block_of(kernel: Any, channels: int, states: int) -> int:
    """Return the channels in a block as the backend chooses them."""
    is_conv = kernel.fn.__module__.endswith("conv")
    return (
        triton_backend.conv_block(channels)
        if is_conv
        else triton_backend.scan_block(channels, states)
    )


def main() -> None:
    print(f"Triton {triton.__version__}, 192 channels, one warp to a program")
    print("architecture, kernel, states, dtype, block: registers, bytes spilled, instructions")
    with tempfile.TemporaryDirectory() as folder:
        for architecture in ARCHITECTURES:
            for kernel, constants in KERNELS:
                for dtype in ("fp32", "bf16"):
                    states = constants.get("BLOCK_N", 16)
                    block = block_of(kernel, 192, states)
                    assembly = compiled(kernel, constants | {"BLOCK_E": block}, dtype, architecture)
                    registers, spilled, counts = assembled(assembly, architecture, Path(folder))
                    parts = ", ".join(f"{name} {counts[name]}" for name in SHOWN if counts[name])
                    print(
                        f"sm_{architecture} {kernel.fn.__name__:18} "
                        f"{'4 walks ' if constants['WALKS'] > 1 else ''}"
                        f"{states:2} {dtype} {block:3}: "
                        f"{registers:3} registers, {spilled} bytes spilled, "
                        f"{counts.total():4} instructions ({parts})",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
