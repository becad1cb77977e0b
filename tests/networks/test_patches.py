"""Patches end with the newest step; gaps are filled on straight lines."""

import numpy as np
import pytest
import torch

from tsm2.networks.patches import count_patches, cut_patches, interpolate_gaps


@pytest.mark.parametrize("steps", [8, 9, 15, 16, 17])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_patches_cover_every_step_and_end_with_the_newest(steps: int, stride: int) -> None:
    patches = cut_patches(torch.arange(float(steps)).expand(1, 1, -1), 8, stride)[0, 0]
    assert patches.shape == (count_patches(steps, 8, stride), 8)
    assert patches[-1].tolist() == list(range(steps - 8, steps))
    assert set(patches.flatten().tolist()) == set(range(steps))


@pytest.mark.parametrize("seed", range(5))
def test_gaps_are_filled_as_numpy_would(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(4, 3, 20, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 3, 20, generator=generator) < 0.4
    mask[..., 7] = True
    filled = interpolate_gaps(torch.where(mask, values, 99.0), mask)
    for course, known, got in zip(
        values.view(-1, 20).numpy(), mask.view(-1, 20).numpy(), filled.view(-1, 20), strict=True
    ):
        rows = np.arange(20)
        np.testing.assert_allclose(got, np.interp(rows, rows[known], course[known]))


def test_what_is_known_stays_and_nothing_known_is_zero() -> None:
    values = torch.tensor([[5.0, 6.0, 7.0]])
    assert torch.equal(interpolate_gaps(values, torch.ones(1, 3, dtype=torch.bool)), values)
    assert interpolate_gaps(values, torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[0, 0, 0]]


def test_gaps_pass_gradients_to_what_is_known() -> None:
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    interpolate_gaps(values, torch.tensor([True, False, True])).sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == [1.5, 0.0, 1.5]
