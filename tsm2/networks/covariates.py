"""Covariates: what is known beside a window's values, as courses of the window's own length.

    P_proj  = Linear_past(SelectiveChannelMixer(P))       (B, Cp, T)      -> (B, M, T)
    Z_proj  = Linear_future(SelectiveChannelMixer(Z))     (B, Cf, T + H)  -> (B, M, T)
    S_proj  = Linear_stat(S)                              (B, M, Cs)      -> (B, M, T)
    x_input = x || P_proj || Z_proj || S_proj             along time: M variates, T steps each

The paper has Z and S, and leaves open how Z, known per covariate and step, becomes one course per
variate. Here the channel mixer scans the covariates of each patch of steps and starts at zero; then
every variate weighs the covariates, which is what lets variates answer differently to one
covariate; and a linear map along time, shared by the variates, starts by taking the newest T steps.
Past covariates P go the same way. `Linear_stat` is a plain linear layer, shared by the variates.

Sizes: B windows, M variates, T lookback, H horizon, C covariates (Cp past, Cf future, Cs static), P
patches.
Source: Behrouz et al. (2024), arXiv:2403.19888, section 5.1, equations 21-24.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsm2.networks.blocks import MixerBranch
from tsm2.networks.patches import cut_patches

__all__ = ["CourseEncoder"]


class CourseEncoder(nn.Module):
    """Turn covariates that change with time into one course per variate.

    Parameters
    ----------
    n_covariates
        Covariates C.
    n_variates
        Variates M, each with weights of its own.
    steps
        Steps of the covariates: T, or T + H.
    lookback
        Steps T of the courses.
    branch
        Mixes the covariates, (B, C, P, patch_length), along axis 1.
    patch_length
        Steps that the branch reads as the features of one token.
    """

    def __init__(
        self,
        n_covariates: int,
        n_variates: int,
        *,
        steps: int,
        lookback: int,
        branch: MixerBranch,
        patch_length: int,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.patch_length = patch_length
        self.across = nn.Parameter(torch.zeros(n_variates, n_covariates))
        newest = torch.eye(steps)[steps - lookback :]
        self.along_time = nn.Parameter(newest)  # (T, steps)

    def forward(self, covariates: Tensor) -> Tensor:
        """Return one course per variate, (B, M, T), from covariates, (B, C, steps)."""
        patches = cut_patches(covariates, self.patch_length, self.patch_length)
        mixed = patches + self.branch(patches)  # (B, C, P, patch_length)
        whole = mixed.flatten(2)[..., -covariates.shape[-1] :]
        weighed = torch.einsum("bcs,mc->bms", whole, self.across)  # (B, M, steps)
        return functional.linear(weighed, self.along_time)
