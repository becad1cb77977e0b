"""Covariates: what is known beside a window's values, brought to the window's own length.

    S_proj  = Linear_stat(S)                              (B, M, Cs)      -> (B, M, T)
    Z_proj  = Linear_future(SelectiveChannelMixer(Z))     (B, Cf, T + H)  -> (B, M, T)
    x_input = x || Z_proj || S_proj                       along time: M variates of 3 T steps

Past covariates need no encoder: they are variates that are read and not forecast. Neither do static
ones: `Linear_stat` is a plain linear layer, shared by the variates.

The paper leaves open how Z, known per covariate and step, becomes one course per variate. Here the
channel mixer scans the covariates of each patch of steps and starts at zero; then every variate
weighs the covariates, which is what lets variates answer differently to one covariate; and a linear
map along time, shared by the variates, starts by taking the newest T of the T + H steps.

Sizes: B windows, M variates, T lookback, H horizon, Cf future and Cs static covariates, P patches.
Source: Behrouz et al. (2024), arXiv:2403.19888, section 5.1, equations 21-24.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsm2.networks.blocks import MixerBranch
from tsm2.networks.patches import cut_patches

__all__ = ["FutureEncoder"]


class FutureEncoder(nn.Module):
    """Turn covariates that are known through the horizon into one course per variate.

    Parameters
    ----------
    n_covariates
        Covariates Cf.
    n_variates
        Variates M, each with weights of its own.
    lookback, horizon
        Steps T before and H in the forecast; the covariates cover both.
    branch
        Mixes the covariates, (B, Cf, P, patch_length), along axis 1.
    patch_length
        Steps that the branch reads as the features of one token.
    """

    def __init__(
        self,
        n_covariates: int,
        n_variates: int,
        *,
        lookback: int,
        horizon: int,
        branch: MixerBranch,
        patch_length: int,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.patch_length = patch_length
        self.across = nn.Parameter(torch.zeros(n_variates, n_covariates))
        newest = torch.eye(lookback + horizon)[horizon:]
        self.along_time = nn.Parameter(newest)  # (T, T + H)

    def forward(self, future: Tensor) -> Tensor:
        """Return one course per variate, (B, M, T), from covariates, (B, Cf, T + H)."""
        patches = cut_patches(future, self.patch_length, self.patch_length)  # (B, Cf, P, length)
        mixed = (patches + self.branch(patches)).flatten(2)[..., -future.shape[-1] :]
        weighed = torch.einsum("bcs,mc->bms", mixed, self.across)  # (B, M, T + H)
        return functional.linear(weighed, self.along_time)
