"""Weighted averaging counts, starts and reaches as equations 19 and 20 say."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tsm2.networks.blocks import (
    MambaMixerBlock,
    MixerBound,
    MixerBranch,
    PreNorm,
    WeightedAverage,
)
from tsm2.networks.tsm2 import NetworkConfig, TSM2Network


class Times(nn.Module):
    """A stand-in mixer that multiplies, so that a sum of outputs can be read off."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def scalars(network: nn.Module) -> int:
    blocks = [m for m in network.modules() if isinstance(m, MambaMixerBlock)]
    averages = [m for b in blocks for m in b.modules() if isinstance(m, WeightedAverage)]
    return sum(p.numel() for average in averages for p in average.parameters())


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_the_blocks_hold_l_times_2l_plus_3_scalars(blocks: int) -> None:
    network = TSM2Network(NetworkConfig(lookback=32, horizon=4, n_variates=3, blocks=blocks))
    assert scalars(network) == blocks * (2 * blocks + 3)


def chain(depth: int, make: Callable[[int], MambaMixerBlock]) -> tuple[list[Tensor], list[Tensor]]:
    token = channel = [torch.ones(1, dtype=torch.float64)]
    for position in range(depth):
        token, channel = make(position)(token, channel)
    return token, channel


def test_stream_starts_as_a_residual_stream() -> None:
    def make(position: int) -> MambaMixerBlock:
        n = position + 1
        return MambaMixerBlock(Times(2.0), Times(3.0), n_token=n, n_channel=n).double()

    token, channel = chain(2, make)
    stream, wanted_token, wanted_channel = 1.0, [1.0], [1.0]
    for _ in range(2):
        wanted_token.append(2.0 * stream)
        stream += wanted_token[-1]
        wanted_channel.append(3.0 * stream)
        stream += wanted_channel[-1]
    assert [each.item() for each in token] == wanted_token
    assert [each.item() for each in channel] == wanted_channel


def test_identity_starts_as_a_plain_chain() -> None:
    def make(position: int) -> MambaMixerBlock:
        n = position + 1
        return MambaMixerBlock(
            Times(2.0), Times(3.0), n_token=n, n_channel=n, init="identity"
        ).double()

    _, channel = chain(3, make)
    assert channel[-1].item() == (2.0 * 3.0) ** 3


def test_without_channel_mixers_identity_is_a_chain_of_token_mixers() -> None:
    def make(position: int) -> MambaMixerBlock:
        return MambaMixerBlock(
            Times(2.0), None, n_token=position + 1, n_channel=1, init="identity"
        ).double()

    token, channel = chain(3, make)
    assert token[-1].item() == 2.0**3
    assert len(channel) == 1


def test_mean_starts_as_the_mean() -> None:
    average = WeightedAverage(2, 3, newest="token", init="mean").double()
    outputs = [torch.full((1,), float(value), dtype=torch.float64) for value in range(5)]
    torch.testing.assert_close(average(outputs[:2], outputs[2:]).item(), 2.0)


def test_reach_forgets_older_outputs() -> None:
    average = WeightedAverage(3, 3, newest="token", reach=1).double()
    old, new = torch.full((1,), 100.0).double(), torch.full((1,), 1.0).double()
    assert average([old, old, new], [old, old, new]).item() == 2.0
    assert sum(p.numel() for p in average.parameters()) == 2


def test_weights_are_raw_scalars_with_gradients() -> None:
    average = WeightedAverage(1, 2, newest="token").double()
    with torch.no_grad():
        average.token.fill_(-2.0)
        average.channel.copy_(torch.tensor([0.5, 7.0]))
    one, two, three = (torch.full((1,), float(value)).double() for value in (1, 2, 3))
    total = average([one], [two, three])
    assert total.item() == -2.0 * 1 + 0.5 * 2 + 7.0 * 3
    total.backward()
    assert average.channel.grad is not None
    assert average.channel.grad.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("reach", [None, 1])
def test_gradients_of_the_sum(reach: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(2, 3, 4, generator=generator, dtype=torch.float64) for _ in range(4)]
    for output in outputs:
        output.requires_grad_()
    first, *rest = outputs
    average = WeightedAverage(3, 2, newest="token", reach=reach).double()
    with torch.no_grad():
        for weights in average.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator))

    def total(*tensors: Tensor) -> Tensor:
        one, two, three, four = tensors[:4]
        averaged: Tensor = average([one, two, three], [one, four])
        return averaged

    torch.autograd.gradcheck(total, (*outputs, *average.parameters()))
    torch.autograd.gradgradcheck(total, (*outputs, *average.parameters()))
    values = [weights.detach() for weights in average.parameters()]
    shown = [first, *rest[:2]][average.skipped[0] :], [first, rest[2]][average.skipped[1] :]
    pairs = (
        (weight, output)
        for weights, kind in zip(values, shown, strict=True)
        for weight, output in zip(weights, kind, strict=True)
    )
    torch.testing.assert_close(total(*outputs), sum(weight * output for weight, output in pairs))


def test_the_sum_takes_transforms_of_torch_func() -> None:
    average = WeightedAverage(2, 1, newest="token")

    def loss(output: Tensor) -> Tensor:
        total: Tensor = average([output, 2 * output], [output]).square().sum()
        return total

    batch = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        torch.func.vmap(torch.func.grad(loss))(batch),
        2 * 9 * batch,  # weights of 0.5, 1 and 0.5
    )


def test_2d_norm_takes_tokens_and_features_together() -> None:
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    normalised = PreNorm(4, "2d")(x)
    torch.testing.assert_close(normalised.mean((-2, -1)), torch.zeros(2, 3), rtol=0, atol=1e-5)
    assert float(normalised.mean(-1).abs().max().detach()) > 0.01  # not per token


def test_a_branch_starts_at_zero_and_learns() -> None:
    branch = MixerBranch(
        nn.ModuleDict({"project_out": nn.Linear(4, 4)}), PreNorm(4, "none"), dropout=0.0
    )
    assert not any(bool(p.any()) for p in branch.mixer.parameters())


def test_a_bound_shrinks_what_is_larger_and_leaves_the_rest_to_the_bit() -> None:
    draw = torch.Generator().manual_seed(0)
    plain, added = (torch.randn(2, 3, 4, 5, generator=draw) for _ in range(2))
    added = added / added.square().sum((-2, -1), keepdim=True).sqrt()  # of size 1
    added[0, 1] *= 8
    added[1, 2] = 0.0
    bound = MixerBound(3)
    assert torch.equal(bound(plain, plain + added), plain + added)  # nothing is measured yet
    bound.largest.copy_(torch.tensor([2.0, 4.0, 0.0]))
    held = bound(plain, plain + added)
    assert torch.equal(held[:, 0], (plain + added)[:, 0])
    torch.testing.assert_close(held[0, 1], plain[0, 1] + added[0, 1] / 2)
    assert torch.equal(held[:, 2], plain[:, 2])


@pytest.mark.parametrize("largest", [0.0, 0.5, torch.inf])
def test_a_bound_has_gradients_where_much_is_added_and_where_nothing_is(largest: float) -> None:
    plain, added = torch.randn(2, 1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    added[:, 1] = 0.0
    stream = (plain + added).requires_grad_()
    bound = MixerBound(2)
    bound.largest.fill_(largest)
    bound(plain, stream).square().sum().backward()
    assert stream.grad is not None
    assert bool(stream.grad.isfinite().all())
    if largest == torch.inf:
        assert torch.equal(stream.grad, 2 * stream.detach())
