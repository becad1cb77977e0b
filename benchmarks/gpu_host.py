"""What a call of the GPU kernels costs on the host, on a machine that needs no GPU.

    python benchmarks/gpu_host.py

The launches are replaced by nothing, and tensors of few elements lie on the CPU, so that what is
left is what Python and PyTorch do around the kernels: describing rows, asking for memory, adding
up the sums of the programs. Within a captured CUDA graph none of it counts.
"""

import platform
from typing import Any

import torch
from timing import Task, hardware, interleave, versions

from tsm2.kernels import triton_backend, triton_conv, triton_scan
from tsm2.kernels.interface import ConvTensors, ScanTensors, Walk

LEAD, CHANNELS, STATES, TAPS = (2, 96, 3), 16, 4, 4  # long enough for several segments
ROUNDS = 25


class Nothing:
    """A kernel that is launched and does nothing."""

    def __getitem__(self, grid: object) -> Any:
        return lambda *arguments, **options: None


def silence(module: Any) -> None:
    for name in module.__all__:
        if hasattr(getattr(module, name), "arg_names"):
            setattr(module, name, Nothing())


def main() -> None:
    torch.set_num_threads(1)
    for module in (triton_scan, triton_conv, getattr(triton_backend, "triton_segments", None)):
        if module is not None:
            silence(module)
    for name in ("_scan_forward", "_scan_backward", "_conv_forward", "_conv_sums"):
        if hasattr(triton_backend, name):  # of a commit that still measured its blocks
            kernel: Any = Nothing()
            kernel.best_config = type("Config", (), {"kwargs": {"BLOCK_E": 16}})
            setattr(triton_backend, name, kernel)
    signal = torch.randn(*LEAD, CHANNELS)
    select = torch.randn(*LEAD, 2 * STATES + CHANNELS)
    delta, B, C = torch.split(select, [CHANNELS, STATES, STATES], dim=-1)
    A, row = -torch.rand(CHANNELS, STATES), torch.randn(CHANNELS)
    scan = ScanTensors(signal, delta, A, B, C, row, signal, row)
    conv = ConvTensors(signal, torch.randn(CHANNELS, TAPS), row)
    walk = Walk((1,), False)
    out, kept = triton_backend.scan_forward(scan, walk, True)
    tasks: dict[str, Task] = {
        "scan forward": lambda: triton_backend.scan_forward(scan, walk, True),
        "scan backward": lambda: triton_backend.scan_backward(scan, walk, out, kept),
        "convolution forward": lambda: triton_backend.conv_forward(conv, walk, True),
        "convolution backward": lambda: triton_backend.conv_backward(conv, walk, True, out),
    }
    print(f"{hardware(1)}, medians of {ROUNDS} rounds, CPU time")
    print(f"Python {platform.python_version()}, {versions('torch', 'triton')}")
    for name, timing in interleave(tasks, rounds=ROUNDS, threads=1, warm=3).items():
        print(f"  {name:22} {1e6 * timing.seconds:6.0f} microseconds")


if __name__ == "__main__":
    main()
