"""The MambaMixer block and the weighted averaging that connects blocks.

    x_token[l]   = sum_{i<l}  alpha[l,i] y_token[i] + sum_{i<l} beta[l,i]  y_channel[i]
    x_channel[l] = sum_{i<=l} theta[l,i] y_token[i] + sum_{i<l} gamma[l,i] y_channel[i]
    y_token[0] = y_channel[0] = the model input

The weights are plain scalars, L(2L+3) of them for L blocks, and stand in for residual connections:
there is no softmax and no other skip. Norm and dropout sit on the branch of a mixer, never on the
sum, so that what no mixer touches passes through unchanged. What mixers add to a trained network's
stream may be bounded before the head reads it.

Source: Behrouz et al. (2024), arXiv:2403.19888, section 3.3, equations 19 and 20.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsm2.networks.dropout import Dropout

__all__ = [
    "AveragingInit",
    "MambaMixerBlock",
    "MixerBound",
    "MixerBranch",
    "PreNorm",
    "WeightedAverage",
]

AveragingInit = Literal["stream", "identity", "mean"]
PreNormKind = Literal["2d", "layer", "rms", "none"]


class WeightedAverage(nn.Module):
    """Weighted sum of what earlier mixers gave, with learned scalars.

    Parameters
    ----------
    n_token
        Token-mixer outputs at hand, the model input counted as the first.
    n_channel
        Channel-mixer outputs at hand, the model input counted as the first.
    newest
        Which kind was computed last; "identity" starts from it.
    init
        "stream": every output counts 1 and each of the two copies of the model input 0.5, so that
        the network starts as a residual stream. "identity": the newest output counts 1, the rest
        0. "mean": all count the same and sum to 1.
    reach
        Use only so many of the newest outputs of each kind; None for all.
    learned
        Learn the weights; otherwise they keep their initial values.
    """

    def __init__(
        self,
        n_token: int,
        n_channel: int,
        *,
        newest: Literal["token", "channel"],
        init: AveragingInit = "stream",
        reach: int | None = None,
        learned: bool = True,
    ) -> None:
        super().__init__()
        self.skipped = tuple(
            0 if reach is None else max(0, n - reach) for n in (n_token, n_channel)
        )
        token, channel = torch.ones(n_token), torch.ones(n_channel)
        if init == "stream":
            token[0] = channel[0] = 0.5
        elif init == "identity":
            token.zero_()
            channel.zero_()
            (token if newest == "token" else channel)[-1] = 1.0
        token, channel = token[self.skipped[0] :], channel[self.skipped[1] :]
        if init == "mean":
            token, channel = (w / (len(token) + len(channel)) for w in (token, channel))
        self.token = nn.Parameter(token, requires_grad=learned)
        self.channel = nn.Parameter(channel, requires_grad=learned)

    @property
    def of_input(self) -> Tensor:
        """The weight of the model input in the sum, (); 0 if it is out of reach."""
        return self.token.new_zeros(()) if any(self.skipped) else self.token[0] + self.channel[0]

    def forward(self, token: Sequence[Tensor], channel: Sequence[Tensor]) -> Tensor:
        """Return the sum, in the shape that all outputs share."""
        if self.skipped == (0, 0) and token[0] is channel[0]:  # the model input, read once
            outputs = [*token, *channel[1:]]
            inputs = self.token[:1] + self.channel[:1]
            weights = torch.cat((inputs, self.token[1:], self.channel[1:]))
        else:
            outputs = [*token[self.skipped[0] :], *channel[self.skipped[1] :]]
            weights = torch.cat((self.token, self.channel))
        if torch.compiler.is_compiling():
            return _weighted_sum(weights, outputs)
        total: Tensor = _WeightedSum.apply(weights, *outputs)  # type: ignore[no-untyped-call]
        return total


def _weighted_sum(weights: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    first, *rest = weights.unbind()
    total = first * outputs[0]
    for weight, output in zip(rest, outputs[1:], strict=True):
        total = torch.addcmul(total, weight, output)
    return total


class _WeightedSum(torch.autograd.Function):
    """The sum with gradients that read every output once; addcmul's take three times as long."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weights: Tensor, *outputs: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _weighted_sum(weights, outputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, ...]:
        weights, *outputs = ctx.saved_tensors
        flat = gradient.flatten()
        products = [torch.dot(flat, output.flatten().to(flat.dtype)) for output in outputs]
        scaled = (gradient * weight for weight in weights.unbind())
        return torch.stack(products).to(weights.dtype), *scaled


class PreNorm(nn.Module):
    """Normalise the input of a mixer.

    Parameters
    ----------
    features
        Width F of the tokens; scale and shift are one value per feature.
    kind
        "2d" takes the statistics over the last two axes together (tokens and features), as the
        paper and TSMixer do; "layer" and "rms" over the features of each token; "none" passes.
    """

    def __init__(self, features: int, kind: PreNormKind = "2d") -> None:
        super().__init__()
        self.kind = kind
        if kind != "none":
            self.weight = nn.Parameter(torch.ones(features))
        if kind in {"2d", "layer"}:
            self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, (..., tokens, F), normalised."""
        if self.kind == "none":
            return x
        if self.kind == "rms":
            return functional.rms_norm(x, x.shape[-1:], self.weight)
        if self.kind == "layer":
            return functional.layer_norm(x, x.shape[-1:], self.weight, self.bias)
        scale, shift = (each.expand(x.shape[-2:]) for each in (self.weight, self.bias))
        return functional.layer_norm(x, x.shape[-2:], scale, shift)


class MixerBranch(nn.Module):
    """A mixer with its norm before and its dropout behind: all that regularises, off the sum.

    Parameters
    ----------
    mixer
        The mixer; its `project_out` starts at zero if `start_at_zero`.
    norm
        What normalises the mixer's input.
    dropout
        Share of the mixer's output that is zeroed in training.
    start_at_zero
        Let the mixer add nothing at first, so that the network starts as its linear path.
    """

    def __init__(
        self, mixer: nn.Module, norm: PreNorm, *, dropout: float = 0.0, start_at_zero: bool = True
    ) -> None:
        super().__init__()
        self.norm = norm
        self.mixer = mixer
        self.dropout = Dropout(dropout)
        if start_at_zero:
            for parameter in mixer.get_submodule("project_out").parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the mixer gives for `x`, in its shape."""
        mixed: Tensor = self.dropout(self.mixer(self.norm(x)))
        return mixed


class MixerBound(nn.Module):
    """Hold what mixers add to a stream to what they added to the windows that trained them.

    A window unlike all of these, after a jump or an outage, may make them add many times as much as
    they ever did, while a linear path says of it what it says of any. The size of what is added to
    a variate is its norm over patches and features; a larger one than the variate's bound is shrunk
    to it.

    Parameters
    ----------
    n_variates
        Variates M.

    Attributes
    ----------
    largest
        The bounds, (M,); infinite until `tsm2.training.bounds` has measured them.
    """

    largest: Tensor

    def __init__(self, n_variates: int) -> None:
        super().__init__()
        self.register_buffer("largest", torch.full((n_variates,), torch.inf))

    @staticmethod
    def size(plain: Tensor, stream: Tensor) -> Tensor:
        """Return the size of what mixers added to `plain`, of both (B, M, P, F), as (B, M)."""
        norm: Tensor = torch.linalg.vector_norm(stream - plain, dim=(-2, -1))
        return norm

    def forward(self, plain: Tensor, stream: Tensor) -> Tensor:
        """Return the stream, (B, M, P, F), brought nearer to `plain` where too much was added."""
        size = self.size(plain, stream)
        beyond = (size - self.largest).clamp(min=0)  # nothing where the bound is infinite
        share = 1 - beyond / size.clamp(min=torch.finfo(size.dtype).tiny)
        return torch.lerp(plain, stream, share[..., None, None])


class MambaMixerBlock(nn.Module):
    """A token mixer, then a channel mixer, each reading a weighted average of all before it.

    Parameters
    ----------
    token, channel
        The mixers' branches; None leaves that mixer out.
    n_token, n_channel
        Outputs of each kind at hand when the block runs, the model input counted in both.
    init, reach, learned
        See `WeightedAverage`.
    """

    def __init__(
        self,
        token: nn.Module | None,
        channel: nn.Module | None,
        *,
        n_token: int,
        n_channel: int,
        init: AveragingInit = "stream",
        reach: int | None = None,
        learned: bool = True,
    ) -> None:
        super().__init__()
        self.token = token
        self.channel = channel
        if token is not None:
            self.token_average = WeightedAverage(
                n_token,
                n_channel,
                newest="token" if channel is None else "channel",
                init=init,
                reach=reach,
                learned=learned,
            )
        if channel is not None:
            self.channel_average = WeightedAverage(
                n_token + (token is not None),
                n_channel,
                newest="channel" if token is None else "token",
                init=init,
                reach=reach,
                learned=learned,
            )

    def forward(
        self, token: Sequence[Tensor], channel: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return both lists of outputs, longer by what this block's mixers gave."""
        token, channel = list(token), list(channel)
        if self.token is not None:
            token.append(self.token(self.token_average(token, channel)))
        if self.channel is not None:
            channel.append(self.channel(self.channel_average(token, channel)))
        return token, channel
