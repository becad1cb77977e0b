"""What two choices in the mixers of ViM2 cost on a CPU: the convolution, and the channel groups.

    python benchmarks/image_mixers.py

Forward and backward on channels-last tensors. The depthwise 3 x 3 convolution of a token mixer:
PyTorch's, two ways, and nine shifted sums, beside the whole mixer; (B, H, W, E). The channel mixer
of 192 features with groups of 1 to 384 of its inner features, on 4 x 28 x 28 patches.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from timing import Task, hardware, interleave, keep_freed_memory
from torch import Tensor, nn
from torch.nn import functional

from tsm2.kernels import warm_up
from tsm2.networks import SelectiveMixer

SHAPES = [(8, 56, 56, 192), (8, 14, 14, 768), (64, 16, 16, 128)]
GROUPS = (1, 4, 8, 16, 32, 64, 384)


def in_place(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Convolve as the mixer does: a view of channels-last memory goes in and comes out."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def channels_first(x: Tensor, conv: nn.Conv2d) -> Tensor:
    return conv(x.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1).contiguous()


def shifted_sums(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Add nine products of the shifted image, in place of a kernel of our own."""
    height, width = x.shape[1:3]
    padded = functional.pad(x, (0, 0, 1, 1, 1, 1))
    total = conv.bias
    for row in range(3):
        for column in range(3):
            shifted = padded[:, row : row + height, column : column + width]
            total = torch.addcmul(total, shifted, conv.weight[:, 0, row, column])
    return total


def gradients(of: nn.Module, x: Tensor, run: Callable[..., Tensor], upstream: Tensor) -> Task:
    leaves = [x.requires_grad_(), *of.parameters()]
    return lambda: torch.autograd.grad(run(x, of), leaves, upstream)


def convolutions(shape: Sequence[int]) -> dict[str, Task]:
    channels = shape[-1]
    conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
    x, upstream = torch.randn(shape), torch.randn(shape)
    mixer = SelectiveMixer(
        channels // 2, orders=((1, 2), (2, 1)), directions="both", image_conv=3, norm="layer"
    )
    return {
        "PyTorch, channels last": gradients(conv, x, in_place, upstream),
        "PyTorch, channels first": gradients(conv, x, channels_first, upstream),
        "shifted sums": gradients(conv, x, shifted_sums, upstream),
        "whole mixer": of_mixer(mixer, (*shape[:-1], channels // 2)),
    }


def channel_groups() -> dict[str, Task]:
    return {
        f"groups of {group}": of_mixer(
            SelectiveMixer(
                192, orders=((1,),), directions="both", channel_group=group, norm="layer"
            ),
            (4, 28, 28, 192),
        )
        for group in GROUPS
    }


def of_mixer(mixer: SelectiveMixer, shape: Sequence[int]) -> Task:
    tokens, upstream = torch.randn(*shape), torch.randn(*shape)
    return gradients(mixer, tokens, lambda x, mixer: mixer(x), upstream)


def show(title: str, tasks: dict[str, Task], rounds: int) -> None:
    print(f"\n{title}")
    for name, timing in interleave(tasks, rounds=rounds, threads=1).items():
        print(f"  {name:<24}{1e3 * timing.seconds:9.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    warm_up()
    print(f"{hardware(1)}, medians of {options.rounds} rounds, torch {torch.__version__}")
    for shape in SHAPES:
        show(f"convolution, (B, H, W, E) = {shape}", convolutions(shape), options.rounds)
    show("channel mixer", channel_groups(), options.rounds)


if __name__ == "__main__":
    main()
