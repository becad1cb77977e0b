"""Models by name, with random weights."""

from typing import Any

import torch

from tsm2.vision.variants import variant_config
from tsm2.vision.vim2 import ViM2

__all__ = ["create_vim2", "vim2_base", "vim2_nano", "vim2_small", "vim2_tiny"]


def create_vim2(
    variant: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **settings: Any,
) -> ViM2:
    """Build a ViM2 by name, with random weights.

    Parameters
    ----------
    variant
        A name in `VARIANTS`.
    device, dtype
        See `ViM2`.
    **settings
        Fields of `ViM2Config` that are to differ from the variant's.

    Returns
    -------
    The model.

    Raises
    ------
    ParameterError
        As in `variant_config`.

    Examples
    --------
    >>> model = create_vim2("vim2_nano", num_classes=10, in_chans=1)
    >>> model(torch.zeros(1, 1, 32, 32)).shape
    torch.Size([1, 10])
    """
    return ViM2(variant_config(variant, **settings), device=device, dtype=dtype)


def vim2_nano(**settings: Any) -> ViM2:
    """Build the smallest, for images of about 32 pixels; see `create_vim2`."""
    return create_vim2("vim2_nano", **settings)


def vim2_tiny(**settings: Any) -> ViM2:
    """Build the paper's ViM2-T; see `create_vim2`."""
    return create_vim2("vim2_tiny", **settings)


def vim2_small(**settings: Any) -> ViM2:
    """Build the paper's ViM2-S; see `create_vim2`."""
    return create_vim2("vim2_small", **settings)


def vim2_base(**settings: Any) -> ViM2:
    """Build the paper's ViM2-B; see `create_vim2`."""
    return create_vim2("vim2_base", **settings)
